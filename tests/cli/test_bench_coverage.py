"""A run that is not whole says so: what was planned, finished, failed, is missing, was left out, stopped or refused."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from unsample.bench.cells import BatchTask
from unsample.bench.checking import merge, verify
from unsample.bench.coverage import Counts, coverage, total
from unsample.bench.ledger import Ledger, read_run
from unsample.bench.local import Event, InProcess
from unsample.bench.parts import STOPPED, Part
from unsample.bench.plan import make_plan
from unsample.bench.run import How, run_plan
from unsample.errors import WeightsMissing
from unsample.report import write_report

GIVEN: dict[str, Any] = {
    "dataset": "scenes:6,split=tune",
    "models": ["scenes-mixture"],
    "methods": ["ddim", "fixed_point[num_iters=2]"],
    "metrics": ["psnr"],
    "steps": 2,
}
PLAN = make_plan(GIVEN)
HOW = How(batch_size=2, threads=1, artefacts="none")
COMMAND = [
    "bench",
    "run",
    "--dataset",
    GIVEN["dataset"],
    "-m",
    "scenes-mixture",
    "--methods",
    ",".join(GIVEN["methods"]),
]
COMMAND += ["--metrics", "psnr", "--steps", "2", "--batch-size", "2", "--threads", "1", "--artefacts", "none"]


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C once so many batches are done."""
    events, done = InProcess.events, []

    def until(self: InProcess) -> list[Event]:
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(1)
        return events(self)

    monkeypatch.setattr(InProcess, "events", until)


def failing(
    match: Callable[[BatchTask], bool], error: Callable[[BatchTask], str] = lambda task: "ValueError: no"
) -> Any:
    """An engine in which some tasks raise."""

    class Failing(InProcess):
        tried: list[BatchTask] = []  # noqa: RUF012 -- one a class

        def events(self) -> list[Event]:
            task = self._task
            if task is not None and match(task):
                self._task = None
                self.tried.append(task)
                return [Event(task, {"kind": "error", "error": error(task), "traceback": "Traceback ..."})]
            return super().events()

    return Failing


def first_lines(folder: Path) -> tuple[str, str, list[dict[str, str]]]:
    """The first line of the Markdown file with its cautions, the page, and the CSV."""
    write_report(folder)
    md, html = ((folder / name).read_text() for name in ("report.md", "report.html"))
    with open(folder / "report.csv", newline="") as file:
        return md.partition("\n- Means")[0].replace("\\", ""), html, list(csv.DictReader(file))


def test_a_run_that_was_interrupted_says_what_is_missing_in_every_place(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        interrupted(patch, after=4)
        ended = run(*COMMAND, "-o", "x")
    assert ended.code == 130
    said = "8 of 12 cells finished, 4 not converged, 4 missing"
    assert f"{said}; the same command goes on" in ended.err
    assert run("bench", "verify", "x").out.strip().endswith(f"8 of 12 cells, 0 files: all as written; {said}")
    told = run("bench", "verify", "x", "--json").json
    assert (told["planned"], told["finished"], told["missing"], len(told["lost"])) == (12, 8, 4, 4)
    md, html, lines = first_lines(tmp_path / "x")
    where = "4 of 12 cells have no row yet (ddim with scenes-mixture at guidance 1: 2 of 6; "
    where += "fixed_point[num_iters=2] with scenes-mixture at guidance 1: 2 of 6)"
    for text in (md, html):
        assert f"6 items, 2 methods; {said}." in text
        assert f"The run is not complete: {where}" in text
    assert "4 of 6" in html
    by_method = {line["method"]: line for line in lines}
    counted = by_method["fixed_point[num_iters=2]"]
    assert [counted[k] for k in ("planned", "finished", "missing", "left_out")] == ["6", "4", "2", "0"]
    exported = run("bench", "export", "x", "--json")
    assert exported.json["cells"]["missing"] == 4
    assert [p["missing"] for p in exported.json["parts"]] == [2, 2]
    assert said in exported.err
    ended = run(*COMMAND, "-o", "x")
    assert "12 of 12 cells finished, 6 not converged (4 of them now)" in ended.err
    md, html, _ = first_lines(tmp_path / "x")
    assert "not complete" not in md + html


def test_a_method_without_any_row_is_in_the_tables_and_ranks_on_few_items_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for after, there in ((0, 0), (1, 2), (5, 10)):
        folder = tmp_path / str(after)
        with monkeypatch.context() as patch:
            interrupted(patch, after)
            with pytest.raises(KeyboardInterrupt):
                run_plan(PLAN, folder, HOW)
        md, html, lines = first_lines(folder)
        assert f"{there} of 12 cells finished" in md
        assert {line["method"] for line in lines} == {"ddim", "fixed_point[num_iters=2]"}
        assert f"{12 - there} of 12 cells have no row yet" in html
        assert ("No cell has ended yet" in md) == (there == 0)
        uneven = "means and ranks are over the 4 items that all were tried on" in html
        assert uneven == (after == 5)


def test_methods_without_a_common_item_are_not_ranked(tmp_path: Path) -> None:
    run_plan(PLAN, tmp_path, replace(HOW, shard=(1, 2)))  # batches 1, 2, 3: ddim on 4 items, fixed_point on 2 of them
    rows = read_run(tmp_path).rows
    with Ledger(tmp_path) as ledger:
        ledger._db.execute("DELETE FROM rows WHERE cell LIKE '%ddim%tune-0'")
        ledger._db.execute("DELETE FROM rows WHERE cell LIKE '%ddim%tune-1'")
    assert len(rows) == 6
    _, html, lines = first_lines(tmp_path)
    assert "nothing in it ranks them" in html
    assert not any(line["best"] == "yes" for line in lines)


def test_what_diverged_counts_only_on_items_that_every_method_was_tried_on(tmp_path: Path) -> None:
    run_plan(PLAN, tmp_path, HOW)
    found = read_run(tmp_path)
    lost, few = "fixed_point[num_iters=2]", "ddim"
    for row in found.rows:
        if row["method"] == lost:
            row["values"]["noise.psnr"]["value"] += 40.0
            if row["item"] in ("tune-0", "tune-1", "tune-2", "tune-3"):
                row |= {"status": "diverged", "values": {"noise.psnr": {"value": None, "exact": False, "reason": "x"}}}
    from unsample.report.table import blocks

    def best(rows: list[dict[str, Any]]) -> str:
        (block,) = blocks(rows, ["psnr"], coverage(found))
        return next(m.label for m in block.methods if m.cells["noise.psnr"].best)

    assert best(found.rows) == few  # four of six diverged, and the other method lost none of them
    late = [r for r in found.rows if r["method"] == lost or r["item"] in ("tune-4", "tune-5")]
    assert best(late) == lost  # the other was not tried on these four: they say nothing between the two


def test_items_that_cannot_be_used_are_left_out_and_not_missing(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for name in ("a", "b"):
        Image.linear_gradient("L").resize((32, 32)).save(tmp_path / "pictures" / f"{name}.png")
    (tmp_path / "pictures" / "c.png").write_bytes(b"no picture")
    plan = make_plan(GIVEN | {"dataset": f"folder:{tmp_path / 'pictures'}", "fit": "crop"})
    summary = run_plan(plan, tmp_path / "x", HOW)
    said = "4 of 6 cells finished, 2 not converged, 2 left out"
    assert summary.counts.told() == said
    (tmp_path / "pictures").rename(tmp_path / "moved")  # what was planned stands in the ledger
    assert verify(tmp_path / "x").counts.told() == said
    md, html, lines = first_lines(tmp_path / "x")
    assert f"3 items, 2 methods; {said}." in md
    assert "not complete" not in md
    assert "Left out of every method: 1 item" in html
    assert {(line["planned"], line["left_out"], line["missing"]) for line in lines} == {("3", "1", "0")}


def test_shards_that_are_not_merged_are_not_the_whole(tmp_path: Path) -> None:
    for i in (1, 2, 3):
        summary = run_plan(PLAN, tmp_path / str(i), replace(HOW, shard=(i, 3)))
        assert summary.counts.told().startswith("4 of 4 cells finished")
        assert "4 of 12 cells finished" in first_lines(tmp_path / str(i))[0]
    part = merge([tmp_path / "1", tmp_path / "3"], tmp_path / "part")
    assert total(c.counts for c in coverage(part)).missing == 4
    assert "8 of 12 cells finished" in first_lines(tmp_path / "part")[0]
    assert len(verify(tmp_path / "part").lost) == 4
    whole = merge([tmp_path / "part", tmp_path / "2"], tmp_path / "part")
    assert total(c.counts for c in coverage(whole)) == Counts(12, {"ok": 6, "not_converged": 6}, 0)


def test_a_part_that_fails_from_the_start_is_stopped_and_tried_again_when_resumed(tmp_path: Path) -> None:
    engine = failing(lambda task: task.method == "ddim")
    summary = run_plan(PLAN, tmp_path, HOW, engine=engine)
    (part,) = summary.stopped
    assert part.part == Part(PLAN.dataset, "scenes-mixture", "ddim", 2, 1.0)
    assert part.reason == "its first 3 cells all failed: ValueError: no"
    assert summary.counts.told() == "6 of 12 cells finished, 6 not converged, 3 failed, 3 missing"
    assert {k for task in engine.tried for k in task.items} == {0, 1, 2, 3}  # the second batch, then one of it alone
    md, html, lines = first_lines(tmp_path)
    assert "Stopped: ddim with scenes-mixture at guidance 1: its first 3 cells all failed: ValueError: no" in md
    assert "ddim was stopped: its first 3 cells all failed" in html
    assert next(line for line in lines if line["method"] == "ddim")["stopped"]
    assert [a.kind for a in verify(tmp_path).apart] == [STOPPED]
    merged = merge([tmp_path, tmp_path], tmp_path / "merged")
    assert [a.reason for a in merged.apart] == [part.reason]
    again = failing(lambda task: task.method == "ddim")
    assert run_plan(PLAN, tmp_path, HOW, engine=again).stopped == [part]  # tried again, and stopped again
    assert again.tried
    healed = run_plan(PLAN, tmp_path, HOW)
    assert healed.counts.told() == "12 of 12 cells finished, 6 not converged"
    assert read_run(tmp_path).apart == []
    assert verify(tmp_path).sound


def test_cells_that_fail_for_reasons_of_their_own_or_after_a_success_stop_nothing(tmp_path: Path) -> None:
    own = failing(lambda task: task.method == "ddim", lambda task: f"ValueError: {task.ids[0]}")
    assert run_plan(PLAN, tmp_path / "own", HOW, engine=own).counts.failed == 6
    late = failing(lambda task: task.method == "ddim" and 0 not in task.items)
    summary = run_plan(PLAN, tmp_path / "late", HOW, engine=late)
    assert (summary.counts.failed, summary.stopped) == (4, [])
    (tmp_path / "resumed").mkdir()
    run_plan(PLAN, tmp_path / "resumed", replace(HOW, shard=(1, 6)))
    all_but = failing(lambda task: task.method == "ddim")
    assert run_plan(PLAN, tmp_path / "resumed", HOW, engine=all_but).stopped == []


def test_a_model_that_cannot_be_had_is_said_before_any_work(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # then a hub id may be fetched, and the network is not there
    asked: list[str] = []

    def gone(hub_id: str, local_files_only: bool) -> Path:
        asked.append(hub_id)
        raise WeightsMissing(f"model {hub_id!r} is not in the local cache and could not be fetched")

    monkeypatch.setattr("unsample.models.loading._download", gone)
    for models in (["nobody/nothing"], ["scenes-mixture", "nobody/nothing"]):
        ended = run(*COMMAND[:4], "-m", ",".join(models), *COMMAND[6:], "-o", "x")
        assert ended.code == 3
        assert "could not be fetched" in ended.err
    assert asked == ["nobody/nothing"] * 2  # asked for once a run
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_here_and_cannot_be_loaded_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import unsample

    load = unsample.load

    def broken(name: str, **more: Any) -> Any:
        if name == "scenes-ddpm":
            raise WeightsMissing("model scenes-ddpm could not be read: cut short")
        return load(name, **more)

    monkeypatch.setattr(unsample, "load", broken)
    with pytest.raises(WeightsMissing, match="cut short"):
        run_plan(make_plan(GIVEN | {"models": ["scenes-ddpm"]}), tmp_path / "one", HOW)
    summary = run_plan(make_plan(GIVEN | {"models": ["scenes-ddpm", "scenes-mixture"]}), tmp_path / "two", HOW)
    assert {(a.part.model, a.reason) for a in summary.stopped} == {
        ("scenes-ddpm", "model scenes-ddpm could not be read: cut short")
    }
    assert summary.counts.told() == "12 of 24 cells finished, 6 not converged, 12 missing"


def test_a_method_that_no_model_takes_is_refused_and_one_that_some_take_is_listed(
    run: Run,
    tmp_path: Path,
) -> None:
    methods = ["--methods", "ddim,null_text[num_inner_steps=1]", *COMMAND[8:]]
    ended = run(*COMMAND[:4], "-m", "scenes-ddpm", *methods, "-o", "x")
    assert ended.code == 2
    assert "null_text works on the text condition and scenes-ddpm takes no prompt" in ended.err
    assert not (tmp_path / "x").exists()
    ended = run(*COMMAND[:4], "-m", "scenes-ddpm,scenes-mixture", *methods, "-o", "x", "--dry-run", "--json")
    assert ended.json["cells"] == 18
    ended = run(*COMMAND[:4], "-m", "scenes-ddpm,scenes-mixture", *methods, "-o", "x", "--shard", "1/6", "--json")
    assert ended.code == 0
    assert "not run: null_text[num_inner_steps=1] with scenes-ddpm at guidance 1: null_text works on" in ended.err
    assert len(ended.json["not_applicable"]) == 1
    md, _, lines = first_lines(tmp_path / "x")
    assert "of 18 cells finished" in md
    assert "Not applicable, and not run: null_text[num_inner_steps=1] with scenes-ddpm" in md
    assert ("null_text[num_inner_steps=1]", "scenes-ddpm") not in {(line["method"], line["model"]) for line in lines}
    assert run("bench", "verify", "x", "--json").json["planned"] == 18


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (["--methods", "oracle[num_steps=1]", "--metrics", "psnr"], 2, "use the data set generated"),
        (["-m", "scenes-ddpm", "--guidance", "3"], 2, "scenes-ddpm takes no prompt, so there is no guidance; got 3"),
        (["-m", "scenes-ddpm", "--inversion-guidance", "3"], 2, "scenes-ddpm takes no prompt, so there is no guidance"),
        (["--steps", "1001"], 2, "--steps"),
        (["--metrics", "lpips"], 3, "weights 'alexnet' are not here"),
    ],
)
def test_what_a_plan_cannot_have_is_said_before_any_work(
    run: Run,
    tmp_path: Path,
    change: list[str],
    code: int,
    said: str,
) -> None:
    ended = run(*COMMAND, *change, "-o", "x")
    assert ended.code == code, ended.err
    assert said in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_metric_without_its_weights_is_said_once_before_the_work(run: Run) -> None:
    ended = run(*COMMAND, "--metrics", "psnr,lpips", "-o", "x", "--dry-run")
    assert ended.err.count("lpips will not be measured: weights 'alexnet' are not here") == 1


def test_ray_stops_what_fails_from_the_start_like_the_local_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="pip install 'unsample[ray]'")
    monkeypatch.undo()  # Ray's processes speak over the loopback interface
    plan = make_plan(GIVEN | {"models": ["scenes-mixture", "scenes-ddpm"]})
    # no model can be loaded to a device that is not here: what a worker says of it goes through Ray
    summary = run_plan(plan, tmp_path, replace(HOW, engine="ray", device="mps"))
    assert summary.counts.told() == "0 of 24 cells finished, 24 missing"
    assert len(summary.stopped) == 4
