"""A plan: what is run on what, read from TOML or options, checked before torch is imported.

Its fingerprint covers everything that can change a result. Batch size, engine, workers and order are no part of it.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from unsample.bench.entries import SAME, editors_of, methods_of, text_of
from unsample.errors import BadInput, BadOption, Incompatible, WeightsMissing, shown, unknown_name
from unsample.experiment.setup import NO_MASK, PLAIN_EDIT, STAGES, check_mask
from unsample.numeric import is_real, is_text, is_whole
from unsample.wording import of

if TYPE_CHECKING:
    from unsample.media.pictures import Fit

FORMAT = 2  # of rows and keys; a change of numbers at the same settings makes it another one
SHIPPED = ("quick", "zeng", "easyinv", "editing", "pie_bench")
OF_EDITS = ("editors", "masks", "edit_guidance")
RENAMED = {"model": "models", "method": "methods", "metric": "metrics", "editor": "editors", "mask": "masks"}
RENAMED |= {"clip": "clip_model"}  # in format 1
_KINDS: dict[type, Callable[[object], bool]] = {  # what a value of a field's type is
    bool: lambda value: isinstance(value, bool),
    int: lambda value: is_whole(value) and abs(value) < 2**63,
    float: lambda value: is_real(value) and (isinstance(value, float) or abs(value) < 2**63),
    str: is_text,
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run. Lists multiply."""

    methods: tuple[str, ...]  # `ddim`, `fixed_point[num_iters=5]`, `edict[inversion_guidance=3]`
    dataset: str = ""  # of the stages that `datasets` does not name; none: they are not measured
    datasets: dict[str, str] = field(default_factory=dict)  # stage to data set
    models: tuple[str, ...] = ("scenes-sd",)
    metrics: tuple[str, ...] = ("psnr", "ssim")
    guidance: tuple[float, ...] = (1.0,)  # of sampling
    guidance_schedule: str = "constant"  # how it runs over the steps, in sampling and edits alike
    inversion_guidance: float | Literal["same"] | None = None  # of methods that say none of their own; None: theirs
    steps: tuple[int, ...] = (50,)
    strength: float | None = None  # None: each method's own
    edit: bool = False
    editors: tuple[str, ...] = (PLAIN_EDIT,)  # `p2p`, `p2p[cross_steps=0.4]`: what an edit takes of its source
    masks: tuple[str, ...] = (NO_MASK,)  # `given`, `auto` ..., of editors that say none of their own
    edit_guidance: tuple[float, ...] = ()  # of editors that say none of their own; none: that of sampling
    seed: int = 0
    dtype: str = "float32"
    quick: bool = False  # every method's quick preset
    fit: Fit = "crop"  # of pictures from files; scenes have the model's size
    clip_model: str = "scenes-clip"  # of the CLIP metrics
    keep_trajectory: bool = False  # of sampling and inversion, for a probe
    probe: str = ""  # a study that looks further at each cell (`unsample.studies`); its findings are a column of rows
    probe_settings: dict[str, Any] = field(default_factory=dict)
    docs: dict[str, Any] = field(default_factory=dict)  # of a report's tables; changes no result

    def fingerprint(self) -> str:
        """SHA-256 of everything that can change a result."""
        same = ("docs", *unsaid(self))
        return digest({"format": FORMAT, **{k: v for k, v in asdict(self).items() if k not in same}})

    @property
    def stages(self) -> dict[str, tuple[str, ...]]:
        """Each data set, and what is measured on it."""
        found: dict[str, tuple[str, ...]] = {}
        for stage in STAGES:
            spec = self.datasets.get(stage, self.dataset)
            if spec and (self.edit or stage != "edit"):
                found[spec] = (*found.get(spec, ()), stage)
        return found

    @property
    def set_metrics(self) -> tuple[str, ...]:
        """Its metrics of whole sets: a value a method and stage, none a picture."""
        from unsample.metrics.table import METRICS

        return tuple(name for name in self.metrics if METRICS[name.partition("[")[0]].compute is None)


def unsaid(plan: Plan) -> list[str]:
    """The later keys that say nothing in a plan, which is what it was before there were such keys."""
    unprobed = () if plan.probe else ("keep_trajectory", "probe", "probe_settings")
    later = (*OF_EDITS, "guidance_schedule")
    return [key for key in later if getattr(plan, key) == getattr(Plan, key)] + [*unprobed]


def digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON value, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def read_plan(name: str, changes: Mapping[str, Any]) -> Plan:
    """A plan from a TOML file or a shipped one's name, with some of its keys replaced.

    Raises:
        BadInput: no such file, or no TOML. BadOption, UnknownName: a plan that cannot be.
    """
    path = plan_file(name)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, no TOML, a number of 5,000 digits
        raise BadInput(f"cannot read plan {name!r}: {error}; it is a TOML file such as plans/quick.toml") from error
    if "clip" in found:
        warnings.warn(f"{name}: the key clip of a plan is called clip_model now", stacklevel=2)
    if "dataset" in changes:  # one for every stage
        found.pop("datasets", None)
    return make_plan({**found, **changes})


def plan_file(name: str) -> Path:
    """The file of a plan: a path, or the name of a shipped one (`quick`, `plans/quick.toml`)."""
    path = Path(name)
    with suppress(OSError):  # a name that is too long
        if path.is_file():
            return path
    shipped = Path(__file__).parent / "plans"
    for folder in (shipped, Path(__file__).parents[3] / "plans"):
        here = folder / f"{path.stem}.toml"
        if path.stem in SHIPPED and path.parent.name in ("", "plans") and here.is_file():
            return here
    raise BadInput(f"no plan {name!r}: give a TOML file, or one of the shipped plans: {', '.join(SHIPPED)}")


def make_plan(given: Mapping[str, Any]) -> Plan:
    """A checked plan from its keys.

    Raises:
        BadOption, UnknownName: a key, method, metric, data set or number that cannot be.
    """
    values = dict(given)
    for old, new in RENAMED.items():
        if old in values and new not in values:
            values[new] = values.pop(old)
    if "methods" in values:
        asked = values["methods"]
        values["methods"] = [text_of(m) for m in (asked if isinstance(asked, list | tuple) else [asked])]
    if "editors" in values:
        asked = values["editors"]
        values["editors"] = [text_of(e, "editor") for e in (asked if isinstance(asked, list | tuple) else [asked])]
    if values.get("edit_guidance") in ((), []):  # as a plan has it that says none
        del values["edit_guidance"]
    values = {key: typed(key, value) for key, value in values.items()}
    if not values.get("dataset") and not values.get("datasets"):
        raise BadOption("a plan needs dataset, for example scenes:64, or datasets, one a stage")
    if not values.get("methods"):
        raise BadOption("a plan needs methods, for example ddim,fixed_point")
    return _checked(values)


def typed(key: str, value: Any) -> Any:
    """A value as `Plan` declares its field, and in its range; where that is a list, one value stands for a list of it.

    Raises:
        UnknownName: no such field. BadOption: a value that cannot be.
    """
    from unsample.models.guidance import check_guidance
    from unsample.numbers.grid import check_steps
    from unsample.preflight.rules import check_strength

    hints = get_type_hints(Plan, localns={"Fit": str})  # a word; which one is seen later
    if key not in hints:
        raise unknown_name("key of a plan", key, hints)
    if key in ("inversion_guidance", "strength") and (value is None or (value == SAME and key != "strength")):
        return value
    kind, many = (get_args(hints[key]) or (hints[key],))[0], get_origin(hints[key])
    if many is dict:
        texts = key == "datasets"
        if not isinstance(value, Mapping) or not (all(map(is_text, value.values())) if texts else _is_json(value)):
            raise BadOption(f"{key} of a plan must be a table of {'texts' if texts else 'JSON'}; got {shown(value)}")
        return dict(value)
    values = tuple(value) if isinstance(value, list | tuple) and many is tuple else (value,)
    if not all(_KINDS[kind](v) for v in values):
        what = f"{kind.__name__} values" if many is tuple else kind.__name__
        what += f" or {SAME!r}" if key == "inversion_guidance" else ""
        raise BadOption(f"{key} of a plan must be {what}; got {shown(value)}")
    if len({*values}) < (len(values) or 1):
        raise BadOption(f"{key} must be different values, at least one; got {shown(list(values))}")
    if key == "masks":
        values = tuple(check_mask(v) for v in values)
    if key in ("guidance", "inversion_guidance", "edit_guidance"):
        values = tuple(check_guidance(v, key) for v in values)
    if key == "steps":
        with of("steps"):
            values = tuple(check_steps(v) for v in values)
    if key == "strength":
        check_strength(value, 10**9)
    return values if many is tuple else values[0]


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _checked(values: dict[str, Any]) -> Plan:
    from unsample.bench.docs import EDITING, read_docs
    from unsample.datasets.spec import read_spec
    from unsample.datasets.table import DATASETS
    from unsample.media.pictures import Fit
    from unsample.models.guidance import SCHEDULES
    from unsample.models.placing import DTYPES
    from unsample.preflight.rules import check_strength

    for key, choices in (("dtype", DTYPES), ("fit", get_args(Fit)), ("guidance_schedule", tuple(SCHEDULES))):
        if values.get(key, choices[0]) not in choices:
            raise unknown_name(key, values[key], choices)
    plan = Plan(**values)
    for stage, spec in plan.datasets.items():
        if stage not in STAGES:
            raise unknown_name("stage", stage, STAGES)
        if stage == "edit" and not plan.edit:
            raise BadOption(f"the data set {spec!r} is for the stage edit, and the plan does not edit; say edit = true")
    if plan.edit and not any("edit" in stages for stages in plan.stages.values()):
        raise BadOption("edit = true needs a data set for the stage edit: datasets = { edit = ... }, or dataset")
    for spec in filter(None, (plan.dataset, *plan.datasets.values())):
        read_spec(spec, DATASETS)
    if plan.dataset and plan.dataset not in plan.stages:
        raise BadOption(f"nothing is measured on dataset = {plan.dataset!r}: datasets names one for every stage")
    for named in methods_of(plan):
        for steps in named.steps if named.strength is not None else ():
            check_strength(named.strength, steps)
    labels = [named.label for named in methods_of(plan)]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise BadOption(
            f"methods must be different; {twice[0]} stands there twice: give it a list of guidance or steps"
        )
    if plan.probe:
        _check_probe(plan)
    _check_models(plan)
    _check_editors(plan)
    _check_trajectories(plan)
    _check_metrics(plan)
    if plan.docs:
        docs = read_docs(plan.docs, plan.metrics, [stage for stages in plan.stages.values() for stage in stages])
        for against in dict.fromkeys(c.against for c in docs.columns if not isinstance(c, str) and c.against):
            _check_against(plan, against)
        axes = dict(zip(EDITING, ("editors", "masks", "edit_guidance"), strict=True))
        editors = editors_of(plan)
        several = {
            "editor": len(editors) > 1,
            "mask": len({m for e in editors for m in e.masks}) > 1,
            "edit w": any(len(e.guidance) > 1 for e in editors),
        }
        if lacking := [c for c, more in several.items() if more and c not in docs.columns]:
            raise BadOption(f"the plan has several {axes[lacking[0]]}, so columns in docs must hold {lacking[0]!r}")
    return plan


def _check_probe(plan: Plan) -> None:
    from unsample.studies import get_study

    if get_study(plan.probe).probe is None:
        raise BadOption(f"the study {plan.probe} looks at nothing but metrics; leave probe out")


def _check_models(plan: Plan) -> None:
    named = [m for m in methods_of(plan) if not m.baseline]
    for unknown in (model for m in named for model in m.models if model not in plan.models):
        raise unknown_name("model of a method, of those of the plan", unknown, plan.models)
    for model in plan.models:
        if named and all(m.models and model not in m.models for m in named):
            raise BadOption(f"no method of the plan is tried on {model}; add one, or leave the model out")


def _check_against(plan: Plan, name: str) -> None:
    from unsample.bench.parts import others, parts_of

    every = [(planned.part, planned.named.name) for planned in parts_of(plan)]
    found = {part: others(part, name, every) for part, _ in every}
    if not any(found.values()):
        known = dict.fromkeys(text for part, own in every for text in (part.method, own))
        raise unknown_name("method in against, in docs of a plan, of those of the plan", name, [*known])
    if several := next((some for some in found.values() if some[1:]), None):
        told = " and ".join(part.method for part in several)
        raise BadOption(
            f"{name} in against, in docs of a plan, is {told} on {several[0].model}; give one as it is listed"
        )


def _check_editors(plan: Plan) -> None:
    if not plan.edit and (said := sorted({*OF_EDITS} - {*unsaid(plan)})):
        raise BadOption(f"{' and '.join(said)} of a plan are of edits, and the plan does not edit; say edit = true")
    from unsample.methods import METHODS

    editors, asked = editors_of(plan), [m for m in methods_of(plan) if not m.baseline]
    methods = {name for m in asked for name in (m.label, m.name)}
    labels = [e.label for e in editors]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise BadOption(
            f"editors must be different; {twice[0]} stands there twice: give it a list of guidance or masks"
        )
    for unknown in (name for e in editors for name in e.methods if name not in methods and name not in METHODS):
        raise unknown_name("method of an editor", unknown, sorted({*methods, *METHODS}))
    tried = {name for e in editors for name in e.methods or methods}
    if left := [m.label for m in asked if not {m.label, m.name} & tried]:
        raise BadOption(f"no editor of the plan is tried with {left[0]}; add one, or leave the method out")


def generated(spec: str) -> bool:
    """Whether the model makes the pictures of a data set, so that their sampling run is known."""
    return spec.partition(":")[0].partition(",")[0].strip() == "generated"


def _check_trajectories(plan: Plan) -> None:
    from unsample.methods import get_method

    for named in methods_of(plan):
        if named.name != "zero" and (
            named.baseline or not get_method(named.name, dict(named.settings)).needs_trajectory
        ):
            continue
        if not any(map(generated, plan.stages)):
            raise Incompatible(no_run(named.label, ", ".join(map(repr, plan.stages))))


def no_run(label: str, spec: str) -> str:
    """What is said of a method that needs more than pictures."""
    return f"{label} needs the sampling run that made the pictures, and {spec} has none; use the data set generated"


def without_weights(plan: Plan) -> dict[str, str]:
    """The metrics of a plan whose weights are not here, and why: their values will be null.

    Raises:
        WeightsMissing: no metric is left.
    """
    from unsample.metrics.facts import resolve
    from unsample.metrics.measuring import lacking_weights
    from unsample.metrics.subject import Settings
    from unsample.metrics.table import METRICS

    names = [name for name in plan.metrics if name not in unmeasured(plan)]
    asked = {name: lacking_weights(resolve(name, METRICS, Settings(clip=plan.clip_model))) for name in names}
    lacking = {name: reason for name, reason in asked.items() if reason}
    if len(lacking) == len(names):
        raise WeightsMissing("; ".join(f"{name}: {reason}" for name, reason in lacking.items()))
    return lacking


def _check_metrics(plan: Plan) -> None:
    from unsample.metrics.facts import resolve
    from unsample.metrics.subject import Settings
    from unsample.metrics.table import METRICS

    for name in plan.metrics:
        resolve(name, METRICS, Settings(clip=plan.clip_model))
    if plan.set_metrics and all(stages == ("recovered",) for stages in plan.stages.values()):
        raise BadOption(f"{plan.set_metrics[0]} is of pictures, and the stage recovered has none; name another stage")
    lost = unmeasured(plan)
    if len(lost) == len(plan.metrics):
        said = "; ".join(f"{name}: {reason}" for name, reason in lost.items())
        raise BadOption(f"no metric of the plan can be measured: {said}; name others, or give a stage a data set")


def unmeasured(plan: Plan) -> dict[str, str]:
    """The metrics of a plan that no stage of it asks for, and why: no row has them."""
    from unsample.metrics.table import METRICS

    here = [stage for stage in STAGES if any(stage in stages for stages in plan.stages.values())]
    found = {}
    for name in plan.metrics:
        kind = METRICS[name.partition("[")[0]].kind
        asking = [s for s, kinds in STAGES.items() if kind in kinds or (kind == "set" and s != "recovered")]
        if not {*asking} & {*here}:
            found[name] = f"it is measured in {_told(asking)}, and the plan has only {_told(here)}"
    return found


def _told(stages: Sequence[str]) -> str:
    return f"the stage{'s' if len(stages) > 1 else ''} {', '.join(stages)}"


def differing(mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys in which two plans, as JSON, differ."""
    keys = sorted({*mine, *other} - {"docs"})
    return [k for k in keys if json.dumps(mine.get(k)) != json.dumps(other.get(k))]


def plain(plan: Plan) -> dict[str, Any]:
    """A plan as JSON takes it; keys that say nothing are left out."""
    found = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(plan).items()}
    return {k: v for k, v in found.items() if v is not None and v != {} and k not in unsaid(plan)}
