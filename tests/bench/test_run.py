"""A run: rows that do not depend on how they were made, and that survive kills, full disks and other hands."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from unsample.bench import ledger as ledgers
from unsample.bench.cells import BatchTask
from unsample.bench.checking import merge, same_table, verify
from unsample.bench.export import as_text, write
from unsample.bench.ledger import FILE, Ledger, read_run
from unsample.bench.local import Crew, Event, InProcess, Processes, Workplace
from unsample.bench.parts import cell_id
from unsample.bench.plan import make_plan
from unsample.bench.run import How, run_plan
from unsample.errors import BadInput, UnknownName

PLAN = make_plan(
    {
        "dataset": "scenes:5,split=tune",
        "models": ["scenes-mixture"],
        "methods": ["ddim", "fixed_point[num_iters=2]", "edit_friendly"],
        "metrics": ["psnr", "lag1_correlation", "edit_gain", "e_latent"],
        "steps": 3,
        "edit": True,
    }
)
HOW = How(batch_size=2, threads=1, artefacts="pictures")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    run_plan(PLAN, folder, HOW)
    return folder


def test_an_export_holds_no_formula_unless_it_is_raw(whole: Path) -> None:
    run = read_run(whole)
    evil = replace(run, rows=[run.rows[0] | {"error": "=cmd|' /C calc'!A0", "item": "-x"}])
    assert all(cell in as_text(evil, "csv") for cell in (",'-x,", ",'=cmd|' /C calc'!A0,"))
    assert ",=cmd|' /C calc'!A0," in as_text(evil, "csv", raw=True)


def test_a_run_holds_every_cell_once_with_hashed_pictures(whole: Path) -> None:
    rows = read_run(whole).rows
    assert len(rows) == 5 * (3 + 4)
    assert [r["order"] for r in rows] == list(range(35))
    assert len({r["key"] for r in rows}) == 35
    found = verify(whole)
    assert found.sound
    assert (found.lost, found.cells, found.rows) == ([], 35, 35)
    row = rows[0]
    assert row["values"]["record.psnr"]["value"] > 0
    assert row["values"]["record.psnr"] == row["values"]["noise.psnr"]
    assert "true_noise" in row["values"]["recovered.e_latent"]["reason"]
    assert {a["kind"] for a in row["artefacts"]} == {"source", "truth", "record", "noise", "edit"}
    assert row["nfe"] == 3
    identity = next(r for r in rows if r["method"] == "identity")
    assert identity["values"]["edit.edit_gain"]["value"] == 0
    truth = next(r for r in rows if r["method"] == "vae(truth)")
    assert truth["values"]["edit.edit_gain"]["value"] == pytest.approx(1, abs=1e-3)  # the mixture loses nothing
    part_way = next(r for r in rows if r["method_name"] == "edit_friendly")
    assert "stops at step" in part_way["values"]["noise.psnr"]["reason"]


def test_runs_that_kept_their_inversions_are_compared_and_merged(tmp_path: Path) -> None:
    from unsample import Inversion

    how = replace(HOW, artefacts="all", shard=(1, 9))
    for name in ("one", "two"):
        run_plan(PLAN, tmp_path / name, how)
    assert same_table(tmp_path / "one", tmp_path / "two")
    merge([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
    assert verify(tmp_path / "both").sound
    kept = next(a for a in read_run(tmp_path / "one").rows[0]["artefacts"] if a["kind"] == "inversion")
    assert len(Inversion.load(tmp_path / "one" / kept["path"])) == 1


def test_the_same_plan_is_gone_on_with_and_another_is_refused(whole: Path, tmp_path: Path) -> None:
    half = replace(HOW, shard=(1, 2))
    first = run_plan(PLAN, tmp_path, half)
    assert 0 < first.done == first.cells < 35
    second = run_plan(PLAN, tmp_path, HOW)
    assert second.found == first.cells
    assert same_table(tmp_path, whole)
    with pytest.raises(BadInput, match="steps: 3 there, 4 asked"):
        run_plan(replace(PLAN, steps=(4,)), tmp_path, HOW)


def test_a_worker_goes_on_with_the_items_that_it_has(tmp_path: Path) -> None:
    given: list[tuple[int, tuple[int, ...]]] = []

    class Two(InProcess):
        """Two workers, of which the one that was given something first is done first."""

        def __init__(self, place: Workplace) -> None:
            super().__init__(place)
            self.tasks: dict[int, BatchTask] = {}

        def idle(self) -> list[int]:
            return [k for k in (0, 1) if k not in self.tasks]

        def submit(self, task: BatchTask, worker: int = 0) -> None:
            given.append((worker, task.items))
            self.tasks[worker] = task

        def events(self) -> list[Event]:
            worker = next(iter(self.tasks))
            super().submit(self.tasks.pop(worker))
            return super().events()

    plan = replace(PLAN, dataset="scenes:4,split=tune", edit=False, metrics=("psnr",))
    run_plan(plan, tmp_path, replace(HOW, artefacts="none"), engine=Two)
    assert sorted(given) == [(0, (0, 1))] * 3 + [(1, (2, 3))] * 3


def test_methods_are_run_one_after_another_where_that_is_asked(whole: Path, tmp_path: Path) -> None:
    summary = run_plan(PLAN, tmp_path, replace(HOW, only=("ddim", "fresh")))
    assert (summary.cells, {row["method"] for row in read_run(tmp_path).rows}) == (10, {"ddim", "fresh"})
    with pytest.raises(UnknownName, match="method of the plan 'fixed_point'"):
        run_plan(PLAN, tmp_path, replace(HOW, only=("fixed_point",)))
    run_plan(PLAN, tmp_path, HOW)
    assert same_table(tmp_path, whole)


def test_pictures_that_a_model_makes_at_several_guidances_are_kept_apart(tmp_path: Path) -> None:
    given = {"dataset": "generated:1,split=tune", "models": ["scenes-mixture"], "methods": ["ddim"], "steps": [2, 3]}
    run_plan(make_plan(given | {"guidance": [1.0, 3.0], "metrics": ["e_latent"]}), tmp_path, HOW)
    assert len({row["artefacts"][0]["sha256"] for row in read_run(tmp_path).rows}) == 4
    assert verify(tmp_path).sound


def test_batch_size_changes_only_the_rounding_and_processes_change_nothing(whole: Path, tmp_path: Path) -> None:
    run_plan(PLAN, tmp_path / "one", replace(HOW, batch_size=1, artefacts="none"))
    run_plan(PLAN, tmp_path / "two", replace(HOW, workers=2))
    assert same_table(tmp_path / "two", whole)
    for a, b in zip(read_run(tmp_path / "one").rows, read_run(whole).rows, strict=True):
        assert a["key"] == b["key"]
        for name, entry in b["values"].items():
            value = a["values"][name]["value"]
            # another batch size rounds the sums of the closed form otherwise: 1e-6 a step in float32
            assert value == entry["value"] or value == pytest.approx(entry["value"], rel=1e-3, abs=1e-4)


def test_shards_merged_are_the_whole_and_contradictions_are_refused(whole: Path, tmp_path: Path) -> None:
    for i in (1, 2):
        run_plan(PLAN, tmp_path / str(i), replace(HOW, shard=(i, 2)))
    merge([tmp_path / "1", tmp_path / "2", tmp_path / "2"], tmp_path / "all")
    assert same_table(tmp_path / "all", whole)
    assert verify(tmp_path / "all").sound
    row = read_run(tmp_path / "2").rows[0]
    row["values"]["record.psnr"]["value"] = 1.0
    with Ledger(tmp_path / "2") as other:
        other.add([row])
    with pytest.raises(BadInput, match="differs between"):
        merge([tmp_path / "all", tmp_path / "2"], tmp_path / "never")


def test_verify_finds_what_was_changed_lost_or_added(whole: Path, tmp_path: Path) -> None:
    run_plan(PLAN, tmp_path, HOW)
    rows = read_run(tmp_path).rows
    (tmp_path / rows[0]["artefacts"][0]["path"]).write_bytes(b"another picture")
    (tmp_path / rows[9]["artefacts"][-1]["path"]).unlink()
    db = sqlite3.connect(tmp_path / FILE)
    cell = cell_id(rows[20])
    db.execute("UPDATE rows SET json = replace(json, '\"ok\"', '\"no\"') WHERE cell = ?", (cell,))
    db.execute("DELETE FROM rows WHERE cell = ?", (cell_id(rows[30]),))
    db.commit()
    db.close()
    found = verify(tmp_path)
    assert not found.sound
    assert found.lost == [cell_id(rows[30])]
    assert any("is not what was written" in d for d in found.damaged)
    assert any("is missing" in d for d in found.damaged)
    assert f"row {cell}" in found.damaged
    with pytest.raises(BadInput, match="damaged"):
        read_run(tmp_path)


def test_a_killed_worker_loses_nothing_and_a_cell_that_kills_five_fails(whole: Path, tmp_path: Path) -> None:
    place = Workplace(PLAN, tmp_path / "killed", "pictures", None, 1, {"engine": "local", "workers": 2})
    killed: list[int] = []

    class Killing(Processes):
        def submit(self, task: BatchTask, worker: int = 0) -> None:
            super().submit(task, worker)
            if len(killed) < 2 and task.items == (2, 3):
                pid = self._workers[worker].process.pid
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    (tmp_path / "killed").mkdir()
    summary = run_plan(PLAN, tmp_path / "killed", replace(HOW, workers=2), engine=lambda _: Killing(place, 2))
    assert len(killed) == 2
    assert summary.failed == 0
    assert same_table(tmp_path / "killed", whole)

    class Deadly(InProcess):
        def events(self) -> list[Event]:
            task = self._task
            if task is not None and task.method == "ddim" and 4 in task.items:
                self._task = None
                return [Event(task, None)]
            return super().events()

    where = tmp_path / "deadly"
    where.mkdir()
    summary = run_plan(PLAN, where, HOW, engine=lambda p: Deadly(p))
    failed = [r for r in read_run(where).rows if r["status"] == "failed"]
    assert [(r["item"], r["deaths"]) for r in failed] == [("tune-4", 5)]
    assert "died 5 times" in failed[0]["error"]


def test_a_run_in_this_process_gives_its_threads_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run_plan(replace(PLAN, methods=PLAN.methods[:1], edit=False), tmp_path, replace(HOW, threads=before + 1))
    assert torch.get_num_threads() == before


def test_a_crew_goes_from_run_to_run_and_changes_nothing(whole: Path, tmp_path: Path) -> None:
    """Also to a plan in another type, past a worker that died in between, and after a run that was broken off."""
    how = replace(HOW, workers=2)
    exact = replace(PLAN, dtype="float64", methods=PLAN.methods[:1], edit=False, metrics=("psnr",))
    run_plan(exact, tmp_path / "alone", HOW)

    def broken_off(summary: Any) -> None:
        if summary.done:
            raise KeyboardInterrupt

    with Crew() as crew:
        engine = partial(crew.engine, 2)
        run_plan(PLAN, tmp_path / "first", how, engine=engine)
        assert crew.started
        pids = engine(Workplace(PLAN, tmp_path, threads=1)).pids()
        run_plan(exact, tmp_path / "exact", how, engine=engine)
        assert engine(Workplace(PLAN, tmp_path, threads=1)).pids() == pids
        os.kill(pids[0], signal.SIGKILL)
        run_plan(PLAN, tmp_path / "second", how, engine=engine)
        with pytest.raises(KeyboardInterrupt):
            run_plan(PLAN, tmp_path / "third", how, broken_off, engine)
        assert not crew.started
        assert not any(map(_alive, pids))
        run_plan(PLAN, tmp_path / "third", how, engine=engine)
        left = engine(Workplace(PLAN, tmp_path, threads=1)).pids()
        other = engine(Workplace(PLAN, tmp_path, threads=2)).pids()  # with which these do not go on
        assert not {*left} & {*other}
        assert not any(map(_alive, left))
    assert not any(map(_alive, other))
    assert same_table(tmp_path / "exact", tmp_path / "alone")
    assert all(same_table(tmp_path / name, whole) for name in ("first", "second", "third"))


def test_an_error_is_tried_three_times_alone_and_then_a_row(tmp_path: Path) -> None:
    tried: list[tuple[int, ...]] = []

    class Failing(InProcess):
        def events(self) -> list[Event]:
            task = self._task
            if task is not None and task.method == "ddim" and 1 in task.items:
                self._task = None
                tried.append(task.items)
                return [Event(task, {"kind": "error", "error": "ValueError: no", "traceback": "Traceback ..."})]
            return super().events()

    summary = run_plan(PLAN, tmp_path, replace(HOW, artefacts="none"), engine=lambda p: Failing(p))
    assert tried == [(0, 1), (1,), (1,)]
    assert summary.failed == 1
    row = next(r for r in read_run(tmp_path).rows if r["status"] == "failed")
    assert (row["item"], row["attempts"], row["error"]) == ("tune-1", 3, "ValueError: no")
    rows = read_run(tmp_path).rows
    assert sum(r["status"] == "ok" for r in rows) >= 29
    assert [r["order"] for r in rows] == list(range(35))


def test_auto_halves_when_memory_is_short_and_remembers(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Small(InProcess):
        def events(self) -> list[Event]:
            task = self._task
            if task is not None and task.method == "ddim":
                sizes.append(len(task.ids))
                if len(task.ids) > 2:
                    self._task = None
                    return [Event(task, {"kind": "memory", "error": "out of memory", "traceback": ""})]
            return super().events()

    summary = run_plan(PLAN, tmp_path, How(threads=1, artefacts="none"), engine=lambda p: Small(p))
    assert sizes == [5, 3, 2, 1, 2]
    assert summary.failed == 0
    assert summary.done == 35


def test_a_full_disk_ends_the_run_and_it_goes_on(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unsample.bench import artefacts

    def full(path: Path, write: Any) -> None:
        raise BadInput(f"cannot write file {str(path)!r}: the disk is full; free some space or choose another folder")

    with monkeypatch.context() as patch:
        patch.setattr(artefacts, "atomic_write", full)
        with pytest.raises(BadInput, match=r"disk is full.*gone on with"):
            run_plan(PLAN, tmp_path, HOW)
    assert read_run(tmp_path).rows == []
    run_plan(PLAN, tmp_path, HOW)
    assert same_table(tmp_path, whole)


def test_a_picture_that_a_batch_cannot_take_fails_alone(tmp_path: Path) -> None:
    from PIL import Image

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.linear_gradient("L").resize((64, 64)).save(pictures / "a.png")
    Image.linear_gradient("L").resize((128, 64)).save(pictures / "b.png")
    (pictures / "c.png").write_bytes(b"no picture")
    given = {"dataset": f"folder:{pictures}", "models": ["scenes-sd"], "methods": ["ddim"], "steps": 1}
    plan = make_plan(given | {"fit": "aspect"})  # two sizes in one batch: each is then done alone
    summary = run_plan(plan, tmp_path / "run", replace(HOW, batch_size=3, artefacts="none"))
    assert summary.failed == 0
    assert [(r["item"], r["status"], r["attempts"]) for r in read_run(tmp_path / "run").rows] == [
        ("a", "ok", 2),
        ("b", "ok", 2),
    ]
    assert [item for item, _ in read_run(tmp_path / "run").broken] == ["c"]


def test_two_drivers_do_not_write_one_run(tmp_path: Path) -> None:
    with Ledger(tmp_path), pytest.raises(BadInput, match="another process"):
        run_plan(PLAN, tmp_path, HOW)


def test_a_driver_killed_at_any_moment_is_gone_on_with(whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unsample", "bench", "run", "--dataset", PLAN.dataset, "-m", "scenes-mixture"]
    command += ["--methods", ",".join(PLAN.methods), "--metrics", ",".join(PLAN.metrics), "--steps", "3", "--edit"]
    command += ["--batch-size", "2", "--threads", "1", "-o", str(tmp_path)]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until and not (tmp_path / FILE).exists():
        time.sleep(0.05)
    while time.monotonic() < until and not _rows(tmp_path):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = _rows(tmp_path)
    assert 0 < before < 35
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    assert same_table(tmp_path, whole)
    assert verify(tmp_path).sound


def _rows(folder: Path) -> int:
    try:
        return len(ledgers.raw_rows(folder))
    except BadInput:  # the table is not made yet
        return 0


def test_generated_pictures_have_a_known_noise(tmp_path: Path) -> None:
    given = {"dataset": "generated:2,split=tune", "models": ["scenes-mixture"], "steps": 5}
    given |= {"methods": ["ddim", "oracle[num_steps=5]"], "metrics": ["e_latent", "e_recon", "e_interp"]}
    run_plan(make_plan(given), tmp_path, HOW)
    rows = {(r["method_name"], r["item"]): r["values"] for r in read_run(tmp_path).rows}
    for item in ("generated-tune-0", "generated-tune-1"):
        assert rows["ddim", item]["recovered.e_latent"]["value"] > 1e-3
        for name in ("e_latent", "e_recon", "e_interp"):
            # with the true predictions the inversion trajectory is that of sampling; float32 rounding is left
            assert rows["oracle", item][f"recovered.{name}"]["value"] < 1e-6


def test_a_method_is_inverted_at_its_own_guidance_and_what_drifts_is_marked(tmp_path: Path) -> None:
    from unsample.report import write_report

    methods = ["edict", {"name": "edict", "inversion_guidance": 3}]
    given = {"dataset": "scenes:2,split=tune", "models": ["scenes-mixture"], "methods": methods, "metrics": ["psnr"]}
    run_plan(make_plan(given | {"steps": 4, "guidance": [3.0]}), tmp_path, replace(HOW, artefacts="none"))
    rows = {(r["method"], r["item"]): r for r in read_run(tmp_path).rows}
    assert len({r["key"] for r in rows.values()}) == 4
    for item in ("tune-0", "tune-1"):
        drifts, holds = rows["edict", item], rows["edict[inversion_guidance=3]", item]
        assert (drifts["inversion_guidance"], holds["inversion_guidance"]) == (1.0, 3.0)
        assert (drifts["exact_by_construction"], holds["exact_by_construction"]) == (False, True)
        assert holds["nfe"] == 2 * drifts["nfe"]
        psnr = [row["values"]["record.psnr"] for row in (drifts, holds)]
        assert psnr[1]["exact"] or psnr[1]["value"] > psnr[0]["value"] + 20
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text().replace("\\", "")
    assert "edict drifts by guidance: edict accounts for guidance only if it is the same both ways" in text
    assert text.count("| edict (drifts by guidance) |") >= 2
    assert "edict[inversion_guidance=3] (drifts" not in text
    assert "edict[inversion_guidance=3] (exact by construction)" in text


def test_exports_hold_every_row_and_value(whole: Path, tmp_path: Path) -> None:
    found = read_run(whole)
    lines = as_text(found, "csv").splitlines()
    assert len(lines) == 36
    assert "record.psnr" in lines[0]
    assert json.loads(as_text(found, "json"))["rows"] == found.rows
    parquet = pytest.importorskip("pyarrow.parquet")
    write(found, tmp_path / "rows.parquet", "parquet")
    table = parquet.read_table(tmp_path / "rows.parquet")
    assert table.num_rows == 35
    assert table["record.psnr"][0].as_py() == found.rows[0]["values"]["record.psnr"]["value"]


def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    child = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    worker = int(child.stdout.readline())
    until = time.monotonic() + 120
    while time.monotonic() < until and not (tmp_path / "busy").exists():
        time.sleep(0.05)
    assert (tmp_path / "busy").exists()
    child.send_signal(signal.SIGKILL)
    child.wait()
    until = time.monotonic() + 10  # its batch would take two minutes
    while time.monotonic() < until and _alive(worker):
        time.sleep(0.05)
    assert not _alive(worker)


DRIVER = """
import sys, time
from pathlib import Path
from unsample.bench.cells import tasks_of
from unsample.bench.local import Processes, Workplace

class Slow:
    def do(self, task):
        Path(sys.argv[1], "busy").touch()
        time.sleep(120)

class Place(Workplace):
    def worker(self):
        return Slow()

if __name__ == "__main__":
    from unsample.bench.plan import make_plan
    plan = make_plan({"dataset": "scenes:1", "methods": ["ddim"]})
    engine = Processes(Place(plan, Path(sys.argv[1])), 1)
    engine.submit(tasks_of(plan, {plan.dataset: ["report-0"]}, 1)[0])
    print(engine.pids()[0], flush=True)
    time.sleep(120)
"""


def _alive(pid: int) -> bool:
    """Whether a process is there and is no zombie that nobody waited for."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False


def test_items_that_a_model_does_not_know_are_said_in_the_run_and_in_the_report(tmp_path: Path) -> None:
    import skimage
    from PIL import Image

    from unsample.bench.coverage import outside
    from unsample.datasets import Scenes
    from unsample.metrics.pixels import as_pil
    from unsample.report.about import about

    (tmp_path / "pictures").mkdir()
    photograph = Image.open(Path(skimage.data_dir) / "coffee.png")
    photograph.save(tmp_path / "pictures" / "photograph.png")
    as_pil(Scenes("tune", 1, size=32)[0].image[None])[0].save(tmp_path / "pictures" / "scene.png")
    asked = make_plan(
        {
            "dataset": f"folder:{tmp_path / 'pictures'}",
            "models": ["scenes-mixture"],
            "methods": ["ddim"],
            "metrics": ["psnr"],
            "steps": 2,
            "fit": "crop",
        }
    )
    run_plan(asked, tmp_path / "run", How(artefacts="none"))
    run = read_run(tmp_path / "run")
    assert {row["item"]: row["out_of_domain"] for row in run.rows} == {"photograph": True, "scene": False}
    (said,) = outside(run.rows)
    assert "scenes-mixture knows drawn scenes only, and 1 of 2 items are none" in said
    assert any(said in caution for caution in about(run, []).cautions)
