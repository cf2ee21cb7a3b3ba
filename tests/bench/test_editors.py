"""The axis of editors: which cells there are, what is shared between them, and that runs without it are as before."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import unsample
from tests.editors import registered
from unsample.bench.checking import verify
from unsample.bench.ledger import FILE, Ledger, read_run
from unsample.bench.parts import STOPPED, Apart, Part, examine, part_of, parts_of
from unsample.bench.plan import Plan, make_plan, plain
from unsample.bench.run import How, run_plan
from unsample.errors import BadOption, Incompatible, UnknownName

GIVEN = {
    "dataset": "scenes:2,split=tune",
    "models": ["scenes-mixture"],
    "methods": ["ddim", "null_text[quick=true]"],
    "metrics": ["psnr", "edit_gain"],
    "guidance": [2.0],
    "steps": 2,
    "edit": True,
}
HOW = How(batch_size=2, threads=1)
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True, scope="module")
def pull() -> Iterator[None]:
    with registered():
        yield


def plan(**more: Any) -> Plan:
    return make_plan(GIVEN | more)


def test_editors_multiply_methods_and_each_may_say_guidance_masks_and_methods_of_its_own() -> None:
    entries = ["none", {"name": "pull", "guidance": [2, 3], "settings": {"share": 0.25}, "methods": "ddim"}]
    asked = plan(editors=entries, masks=["none", "given"])
    assert asked.editors == ("none", "pull[share=0.25,guidance=[2,3],methods=ddim]")
    assert make_plan(plain(asked)) == asked
    found = [(p.part.method, p.part.edits, p.stages(asked)) for p in parts_of(asked) if not p.named.baseline]
    whole = ("record", "noise", "recovered", "edit")
    swaps = [("", whole), ("none, mask given", ("edit",))]
    own = [f"pull[share=0.25]{mask}{w}" for mask in ("", ", mask given") for w in ("", ", w 3")]
    assert found == [("ddim", *s) for s in swaps] + [("ddim", e, ("edit",)) for e in own] + [
        ("null_text[quick=true]", *s) for s in swaps
    ]


def test_a_plan_without_the_axis_is_the_plan_that_it_was() -> None:
    before = make_plan({"dataset": "scenes:2,split=tune", "methods": ["ddim", "edict[p=0.9]"], "guidance": [1, 3],
                        "edit": True, "steps": [2, 4]})  # fmt: skip
    assert before.fingerprint() == "51d4bb44594dc21620c8dd11ced54572f773627d29e2bf6439a5fb24712393d6"
    assert not {"editors", "masks", "edit_guidance"} & {*plain(before)}
    assert {p.part.cell("a") for p in parts_of(plan())} >= {"scenes:2,split=tune|2|scenes-mixture|ddim|2|a"}
    old = {"dataset": "d", "model": "m", "method": "ddim", "steps": 2, "guidance": 1.0}
    assert part_of(old) == Part("d", "m", "ddim", 2, 1.0)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"editors": ["pul"]}, UnknownName, "did you mean 'pull'"),
        ({"editors": ["pull[shares=1]"]}, UnknownName, "did you mean 'share'"),
        ({"editors": ["pull[share=2]"]}, BadOption, "share"),
        ({"editors": ["pull", "pull[guidance=3]"]}, BadOption, "pull stands there twice"),
        ({"editors": ["pull[mask=givn]"]}, UnknownName, "did you mean 'given'"),
        ({"editors": [{"name": "pull", "gidance": 3}]}, UnknownName, "did you mean 'guidance'"),
        ({"editors": ["pull[methods=ddmi]"]}, UnknownName, "did you mean 'ddim'"),
        ({"editors": ["pull[methods=ddim]"]}, BadOption, "no editor of the plan is tried with null_text"),
        ({"editors": ["pull"], "edit": False}, BadOption, "editors of a plan are of edits"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(changes: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        plan(**changes)


def test_pairs_that_make_no_sense_are_left_out_and_said_or_refused_when_none_is_left() -> None:
    given = {"methods": ["ddim", "sdedit", "edict"], "datasets": {"edit": "scenes:2,split=tune"}, "dataset": ""}
    swaps = plan(editors=["none", "pull"], **given | {"methods": ["ddim", "flow_align"], "models": ["scenes-flow"]})
    assert {(a.part.method, a.part.editor) for a in examine(swaps).apart} == {("flow_align", "pull")}
    assert examine(plan(editors=["none", "pull"], **given)).apart == []
    with pytest.raises(Incompatible, match="flow_align"):
        examine(plan(editors=["pull"], **given | {"methods": ["flow_align"], "models": ["scenes-flow"]}))


def test_an_inversion_is_made_once_for_all_editors_and_nothing_of_one_reaches_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, invert = Counter[str](), unsample.invert

    def counted(*args: Any, **more: Any) -> Any:
        calls[more["method"].name] += 1
        return invert(*args, **more)

    monkeypatch.setattr(unsample, "invert", counted)
    run_plan(plan(editors=["pull[share=1]", "none", "pull[guidance=3]"], guidance=[2.0, 3.0]), tmp_path / "all", HOW)
    assert calls == {"ddim": 1, "null_text": 2}  # what is fitted, once a guidance
    rows = read_run(tmp_path / "all").rows
    for editor in ("pull[share=1]", "none", "pull"):
        text = editor if editor != "pull" else "pull[guidance=3]"
        run_plan(plan(editors=[text], guidance=[2.0, 3.0]), tmp_path / editor, HOW)
        alone = {(part_of(r), r["item"]): r for r in read_run(tmp_path / editor).rows if not r["baseline"]}
        for row in (r for r in rows if r["editor"] == editor and not r["baseline"]):
            one = alone[part_of(row), row["item"]]
            key = "edit.edit_gain"
            assert (row["values"][key], row["edit_nfe"]) == (one["values"][key], one["edit_nfe"])
            recorded = any(name.startswith("record.") for name in row["values"])
            assert recorded == (editor == "pull[share=1]")  # it does not depend on the editor, and is measured once
    costs = {(r["editor"], r["guidance"]): r["edit_nfe"] for r in rows if r["method"] == "ddim"}
    assert costs["none", 2.0] == 4 < costs["pull[share=1]", 2.0] == 8
    assert {r["edit_guidance"] for r in rows if r["editor"] == "pull"} == {3.0, None}
    assert verify(tmp_path / "all").sound


def test_a_ledger_from_before_editors_is_read_and_gone_on_with(tmp_path: Path) -> None:
    run_plan(plan(methods=["ddim"]), tmp_path, How(batch_size=2, threads=1, shard=(1, 2)))
    with sqlite3.connect(tmp_path / FILE) as db:  # as it was laid out
        db.executescript(
            "DROP TABLE apart; CREATE TABLE apart (dataset, model, method, steps, guidance, kind, reason, PRIMARY KEY "
            "(dataset, model, method, steps, guidance)); INSERT INTO apart VALUES "
            "('d', 'm', 'ddim', 2, 1.0, 'stopped', 'why'); PRAGMA user_version=2;"
        )
    db.close()
    stopped = [Apart(Part("d", "m", "ddim", 2, 1.0), STOPPED, "why")]
    assert read_run(tmp_path).apart == stopped
    with Ledger(tmp_path) as ledger:
        assert ledger.standing.apart == stopped
    assert read_run(tmp_path).apart == stopped
    run_plan(plan(methods=["ddim"]), tmp_path, HOW)
    assert read_run(tmp_path).apart == []
    assert verify(tmp_path).lost == []
