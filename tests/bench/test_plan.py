"""Plans: what cannot be is refused before any work, what matters changes the fingerprint, shards and batches add up."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unsample.bench.cells import estimated_nfe, tasks_of
from unsample.bench.entries import OF_A_METHOD, drifting, methods_of
from unsample.bench.parts import examine, parts_of
from unsample.bench.plan import SHIPPED, Plan, make_plan, plain, plan_file, read_plan
from unsample.errors import LONGEST, BadInput, BadOption, UnknownName, UnsampleError

DOCS = {"table": "t", "note": "n", "columns": ["method", "made"]}
PLAN: dict[str, Any] = {"dataset": "scenes:5,split=tune", "methods": ["ddim", "fixed_point[num_iters=3]"], "steps": 3}


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"methods": ["ddmi"]}, UnknownName, "did you mean 'ddim'"),
        ({"methods": ["ddim[eta=1]"]}, UnknownName, "unknown setting of ddim 'eta'"),
        ({"methods": ["ddim", "ddim"]}, BadOption, "different"),
        ({"methods": []}, BadOption, "at least one"),
        ({"methods": ["fixed_point[num_iters]"]}, BadOption, "key=value"),
        ({"metrics": ["pnsr"]}, UnknownName, "did you mean 'psnr'"),
        ({"dataset": "scene:5"}, BadOption, "scenes"),
        ({"dataset": ""}, BadOption, "needs dataset"),
        ({"guidance": [float("nan")]}, BadOption, "finite"),
        ({"steps": 0}, BadOption, "steps"),
        ({"edit": "yes"}, BadOption, "bool"),
        ({"dtype": "float8"}, UnknownName, "dtype"),
        ({"batch_size": 8}, UnknownName, "key of a plan"),
        ({"methods": [{"name": "edict", "guidanse": 3}]}, UnknownName, "key of a method"),
        ({"methods": [{"inversion_guidance": 3}]}, BadOption, "needs a name"),
        ({"methods": [{"name": "edict", "inversion_guidance": "much"}]}, BadOption, "must be float"),
        ({"methods": ["edict[inversion_guidance=much]"]}, BadOption, "must be a number"),
        ({"methods": ["edict[inversion_guidance=nan]"]}, BadOption, "finite"),
        ({"methods": [{"name": "edict", "settings": 3}]}, BadOption, "a table"),
        ({"methods": [{"name": "edict", "settings": {"p": [1]}}]}, BadOption, "a number"),
        ({"methods": [{"name": "easyinv", "settings": {"base": {"num_iters": 3}}}]}, BadOption, "is a name"),
        ({"methods": [{"name": "edict", "items": 0}]}, BadOption, "items of a method"),
        ({"methods": ["ddim", {"name": "edict", "models": ["scenes-s"]}]}, UnknownName, "did you mean 'scenes-sd'"),
        ({"methods": ["edict[models=[scenes-sd,scenes-sd]]"]}, BadOption, "models must be different"),
        ({"methods": [{"name": "edict", "models": [3]}]}, BadOption, "models of a plan must be str"),
        (
            {"methods": ["ddim[models=scenes-sd]"], "models": ["scenes-sd", "scenes-ddpm"]},
            BadOption,
            "no method of the plan is tried on scenes-ddpm",
        ),
        ({"methods": ["ddim[steps=[2,2]]"]}, BadOption, "different values"),
        ({"methods": ["ddim[steps=2]", "ddim[steps=3]"]}, BadOption, "a list of guidance or steps"),
        ({"methods": ["ddim[quick=3]"]}, BadOption, "quick of a plan must be bool"),
        ({"methods": ["ddim[strength=0.1]"]}, BadOption, "is no step"),
        ({"datasets": {"recover": "scenes:3"}}, UnknownName, "stage"),
        ({"datasets": {"edit": "scenes:3"}}, BadOption, "edit = true"),
        ({"datasets": dict.fromkeys(("record", "noise", "recovered"), "scenes:3")}, BadOption, "nothing is measured"),
        ({"dataset": "", "datasets": {"record": "scenes:3"}, "edit": True}, BadOption, "for the stage edit"),
        ({"dataset": "", "datasets": {"recovered": "scenes:3"}, "metrics": ["fd"]}, BadOption, "of pictures"),
        ({"dataset": "", "datasets": {"noise": "scenes:2"}, "metrics": ["e_latent"]}, BadOption, "stage recovered,"),
        ({"metrics": ["attribute_render_fit"]}, BadOption, "attribute_render_fit: it is measured in the stage edit"),
        ({"methods": ["fixed_point[num_iters=3,num_iters=2]"]}, BadOption, "'num_iters' stands twice in"),
        ({"methods": [{"name": "ddim[steps=3]", "steps": 2}]}, BadOption, "'steps' stands twice in"),
        (
            {"methods": [{"name": "fixed_point[num_iters=3]", "settings": {"num_iters": 2}}]},
            BadOption,
            "'num_iters' stands twice in",
        ),
        ({"methods": [{"name": "gradient", "preset": "first_step", "quick": True}]}, BadOption, "preset and quick"),
        (
            {"methods": [{"name": "gradient", "preset": "first_step", "settings": {"preset": "quick"}}]},
            BadOption,
            "'preset' stands twice in",
        ),
        ({"docs": {"table": "t"}}, BadOption, "columns"),
        ({"methods": ["edict[inversion_guidance=3]", {"name": "edict", "inversion_guidance": 3.0}]}, BadOption, "diff"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make_plan(PLAN | change)


def test_everything_that_can_change_a_result_changes_the_fingerprint() -> None:
    changes: list[dict[str, Any]] = [
        {"dataset": "scenes:6,split=tune"}, {"methods": ["ddim"]}, {"models": ["scenes-mixture"]},
        {"metrics": ["ssim"]}, {"guidance": [2.0]}, {"inversion_guidance": 2.0}, {"steps": 4}, {"edit": True},
        {"seed": 1}, {"dtype": "float64"}, {"quick": True}, {"fit": "pad"}, {"clip_model": "/models/clip"},
        {"datasets": {"record": "scenes:4"}}, {"strength": 0.5},
    ]  # fmt: skip
    found = {make_plan(PLAN | change).fingerprint() for change in [{}, *changes]}
    assert len(found) == len(changes) + 1
    assert make_plan(dict(reversed(PLAN.items()))).fingerprint() == make_plan(PLAN).fingerprint()


def test_shards_are_all_cells_and_none_twice() -> None:
    plan = make_plan(PLAN | {"guidance": [1.0, 3.0], "edit": True})
    ids = {plan.dataset: [f"tune-{k}" for k in range(5)]}
    whole = [cell for task in tasks_of(plan, ids, 2) for cell in task.cells()]
    parts = [cell for i in (1, 2, 3) for task in tasks_of(plan, ids, 2, (i, 3)) for cell in task.cells()]
    assert len(whole) == len(set(whole)) == 2 * (2 + 4) * 5
    assert sorted(parts) == sorted(whole)
    assert {m.label for m in methods_of(plan) if m.baseline} == {"identity", "vae(source)", "vae(truth)", "fresh"}


def test_a_batch_is_neighbours_and_its_cells_stand_in_the_order_of_the_plan() -> None:
    tasks = tasks_of(make_plan(PLAN), {PLAN["dataset"]: [f"tune-{k}" for k in range(5)]}, 2)
    assert [t.items for t in tasks] == [(0, 1), (0, 1), (2, 3), (2, 3), (4,), (4,)]
    assert [t.order for t in tasks] == [0, 5, 2, 7, 4, 9]


def nfe(given: dict[str, Any], items: int) -> int:
    """The estimate for so many items."""
    plan = make_plan(given)
    return estimated_nfe(tasks_of(plan, {spec: [str(k) for k in range(items)] for spec in plan.stages}, 2))


def test_the_estimate_is_the_methods_own_formula() -> None:
    assert nfe(PLAN, 5) == 5 * (3 + 3 * 3)
    assert nfe(PLAN | {"inversion_guidance": 2.0}, 5) == 2 * 5 * (3 + 3 * 3)


def test_a_method_may_be_inverted_at_a_guidance_of_its_own() -> None:
    entries = ["ddim", "edict[p=0.9,inversion_guidance=3]", {"name": "edict[p=0.9]", "inversion_guidance": 2.5}]
    plan = make_plan(PLAN | {"methods": entries, "guidance": [3.0], "inversion_guidance": 0.5})
    found = {m.label: m for m in methods_of(plan)}
    assert [m.inversion_guidance for m in found.values()] == [0.5, 3.0, 2.5]
    assert found["edict[p=0.9,inversion_guidance=2.5]"].settings == {"p": 0.9}
    assert make_plan(plain(plan)) == plan  # what plan.json holds
    assert nfe(plain(plan), 1) == 3 * 2 + 2 * (2 * 3 * 2)  # guided pairs, each for itself
    assert {label for label, _ in drifting(plan)} == {"ddim", "edict[p=0.9,inversion_guidance=2.5]"}


def test_a_table_and_a_text_say_the_same_of_a_method() -> None:
    inner = {"name": "fixed_point", "settings": {"num_iters": 3}}
    table = {
        "name": "easyinv",
        "settings": {"base": inner},
        "inversion_guidance": "same",
        "guidance": [1.5, 3],
        "items": 2,
    }
    text = "easyinv[base=fixed_point,base.num_iters=3,inversion_guidance=same,guidance=[1.5,3],items=2]"
    plan = make_plan(PLAN | {"methods": ["ddim[steps=[4,5]]", table, "gradient[preset=first_step]"], "docs": DOCS})
    assert plan.methods[1] == text
    assert make_plan(plain(plan)) == plan
    ddim, easyinv, gradient = methods_of(plan)
    assert (ddim.label, ddim.steps, gradient.settings) == ("ddim", (4, 5), {"preset": "first_step"})
    assert easyinv.label == "easyinv[base=fixed_point,base.num_iters=3,inversion_guidance=same]"
    assert (easyinv.settings["base"], easyinv.items) == (inner, 2)
    found = {(p.part.method, p.part.steps, p.part.guidance): p.named.inversion_guidance for p in parts_of(plan)}
    assert found == {
        (easyinv.label, 3, 1.5): 1.5, (easyinv.label, 3, 3.0): 3.0, ("ddim", 4, 1.0): 1.0, ("ddim", 5, 1.0): 1.0,
        ("gradient[preset=first_step]", 3, 1.0): 1.0,
    }  # fmt: skip
    ids = {PLAN["dataset"]: list("abcde")}
    assert sum(len(task.ids) for task in tasks_of(plan, ids, 2)) == 2 * 5 + 2 * 2 + 5
    assert plan.fingerprint() == make_plan({k: v for k, v in plain(plan).items() if k != "docs"}).fingerprint()


def test_a_method_may_be_tried_on_some_models_alone() -> None:
    trailing = "scenes-ddpm[timestep_spacing=trailing,set_alpha_to_one=true]"
    models = ["scenes-ddpm", trailing, "scenes-sd"]
    dear, cheap = {"name": "edict", "settings": {"p": 0.9}, "models": trailing}, "edict[p=0.95,models=[scenes-ddpm]]"
    both = {"name": "hybrid", "steps": 4, "models": ["scenes-sd", trailing]}
    plan = make_plan(PLAN | {"models": models, "methods": ["fixed_point", dear, cheap, both, "random_noise"]})
    assert plan.methods[1] == f"edict[p=0.9,models={trailing}]"
    assert plan.methods[3] == f"hybrid[steps=4,models=[scenes-sd,{trailing}]]"
    assert make_plan(plain(plan)) == plan
    found = {(planned.part.model, planned.part.method, planned.part.steps) for planned in parts_of(plan)}
    every = {(model, name, 3) for model in models for name in ("fixed_point", "random_noise")}
    own = {(trailing, "edict[p=0.9]", 3), ("scenes-ddpm", "edict[p=0.95]", 3)}
    assert found == every | own | {("scenes-sd", "hybrid", 4), (trailing, "hybrid", 4)}
    ids = {PLAN["dataset"]: list("abcde")}
    assert {(t.model, t.method, t.part.steps) for t in tasks_of(plan, ids, 2)} == found


def test_a_baseline_stands_where_a_method_of_its_model_does() -> None:
    given = {"dataset": "generated:2", "metrics": ["e_latent"], "models": ["scenes-ddpm", "scenes-sd"]}
    methods = ["zero[steps=[3,4]]", "ddim[models=scenes-sd]", "edict[steps=4,models=scenes-ddpm]"]
    parts = [planned.part for planned in parts_of(make_plan(PLAN | given | {"methods": methods}))]
    assert {(p.model, p.steps) for p in parts if p.method == "zero"} == {("scenes-sd", 3), ("scenes-ddpm", 4)}


def test_stages_have_data_sets_of_their_own_and_baselines_where_edits_are() -> None:
    given = {"datasets": {"recovered": "generated:3", "edit": "scenes:2"}, "edit": True, "methods": ["ddim", "oracle"]}
    plan = make_plan(PLAN | given)
    assert plan.stages == {PLAN["dataset"]: ("record", "noise"), "generated:3": ("recovered",), "scenes:2": ("edit",)}
    assert {p.part.dataset for p in parts_of(plan) if p.named.baseline} == {"scenes:2"}
    apart = examine(make_plan(PLAN | given | {"models": ["scenes-mixture"]})).apart
    assert {(a.part.dataset, a.part.method) for a in apart} == {(PLAN["dataset"], "oracle"), ("scenes:2", "oracle")}


def test_an_old_plan_is_read_and_says_what_a_key_is_called_now(tmp_path: Path) -> None:
    (tmp_path / "old.toml").write_text('dataset = "scenes:3"\nmethods = ["ddim"]\nclip = "mine"\n')
    with pytest.warns(UserWarning, match="clip of a plan is called clip_model"):
        assert read_plan(str(tmp_path / "old.toml"), {}).clip_model == "mine"


@pytest.mark.parametrize("name", SHIPPED)
def test_in_shipped_plans_only_plain_ddim_drifts(name: str) -> None:
    """It is the baseline that guidance breaks, and its authors' way; the others are inverted as theirs do."""
    plan = read_plan(name, {"dataset": "generated:2"})
    found = drifting(plan)
    assert {label for label, _ in found} == ({"ddim"} if max(plan.guidance) > 1 else set())
    assert all(said.startswith("ddim does not account for guidance above 1 (inverting 1") for said in found.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_plans_are_found_by_name_and_by_path(name: str) -> None:
    assert plan_file(name) == plan_file(f"plans/{name}.toml").resolve() or plan_file(name).name == f"{name}.toml"
    read_plan(name, {"dataset": "scenes:2"})  # their keys hold; their data sets are not here


def test_a_plan_of_a_file_can_be_changed_by_options_and_a_bad_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('dataset = "scenes:3"\nmethods = ["ddim"]\nsteps = 9\n')
    assert read_plan(str(tmp_path / "mine.toml"), {"steps": 4}).steps == (4,)
    (tmp_path / "bad.toml").write_text("dataset = \n")
    for wrong in ("bad.toml", "gone.toml"):
        with pytest.raises(BadInput, match="plan"):
            read_plan(str(tmp_path / wrong), {})


WRONG = {  # TOML to the kinds of fields that take it, for which it is not wrong by its type
    "1": ("int", "float"),
    "1.5": ("float",),
    "nan": ("float",),
    "true": ("bool",),
    "1979-05-27": (),
    "07:32:00": (),
    "{}": ("dict",),
    "{ a = 1 }": ("dict",),
    "[[1]]": (),
    "[{}]": (),
    "[true]": (),
    "[1979-05-27]": (),
    '"x"': ("str", "Fit"),
    "1" * 400: (),
    "-9223372036854775809": ("float",),
}


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize("field", fields(Plan), ids=lambda field: field.name)
def test_a_value_of_another_type_is_refused_whatever_the_field(field: Any, text: str) -> None:
    value = tomllib.loads(f"v = {text}")["v"]
    if any(kind in field.type for kind in WRONG[text]):
        return
    for shape in [value, [value]] if "tuple" in field.type else [value]:
        with pytest.raises(BadOption, match=f"^{field.name} of a plan must be|method|an editor"):
            make_plan(PLAN | {field.name: shape})
    if field.name == "inversion_guidance":
        with pytest.raises(BadOption, match="^inversion_guidance of a plan must be float"):
            make_plan(PLAN | {"methods": [{"name": "edict", "inversion_guidance": value}]})


OWN = {key: st.floats() | st.integers() | st.lists(st.integers(), max_size=2) for key in OF_A_METHOD}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**300, 10**5000) | st.floats() | st.dates()
    | st.fixed_dictionaries({"name": st.just("ddim")}, optional=OWN)
    | st.text(st.characters(), max_size=8) | st.sampled_from(["ddim[", "ddim[x]", "\ud800", "\0", "a" * 100_000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
KEYS = st.sampled_from([f.name for f in fields(Plan)] + ["model", "method", "", "\ud800", "b" * 5000])


@settings(max_examples=200, deadline=None)
@given(changes=st.dictionaries(KEYS, ANYTHING, min_size=1, max_size=2))
def test_whatever_a_plan_holds_it_is_a_plan_or_refused_in_a_sentence(changes: dict[str, Any]) -> None:
    try:
        assert len(make_plan(PLAN | changes).fingerprint()) == 64
    except UnsampleError as error:
        assert 0 < len(str(error)) <= LONGEST


@pytest.mark.parametrize(
    "text", ["v = " + "[" * 5000 + "]" * 5000, "v = " + "9" * 5000, 'v = "\\ud800"', "\ud800", "a" * 300 + "."]
)
def test_a_file_that_no_parser_bears_is_no_plan(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.toml").write_text(text, errors="surrogatepass")
    with pytest.raises(BadInput, match="cannot read plan"):
        read_plan(str(tmp_path / "bad.toml"), {})


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000, "\0", "", "\ud800"])
def test_a_name_that_no_file_can_have_is_no_plan(name: str) -> None:
    with pytest.raises(BadInput, match="no plan"):
        plan_file(name)


def test_a_plan_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "mark.toml").write_text('dataset = "scenes:3"\nmethods = ["ddim"]\n', encoding="utf-8-sig")
    assert read_plan(str(tmp_path / "mark.toml"), {}).methods == ("ddim",)
