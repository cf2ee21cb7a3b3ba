"""A plan: what is run on what, read from TOML or options, checked before torch is imported.

Its fingerprint covers everything that can change a result. Batch size, engine, workers and order are no part of it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from unsample.errors import BadInput, BadOption, Incompatible, WeightsMissing, shown, unknown_name
from unsample.numeric import is_real, is_text, is_whole

if TYPE_CHECKING:
    from unsample.media.pictures import Fit

FORMAT = 1  # of rows and keys; a change of numbers at the same settings makes it another one
BASELINES = ("identity", "vae(source)", "vae(truth)", "fresh")
SHIPPED = ("quick", "zeng", "easyinv", "editing", "pie_bench")
OF_A_METHOD = ("inversion_guidance",)  # keys of a plan that a method may have its own value of
_KINDS: dict[type, Callable[[object], bool]] = {  # what a value of a field's type is
    bool: lambda value: isinstance(value, bool),
    int: lambda value: is_whole(value) and abs(value) < 2**63,
    float: lambda value: is_real(value) and (isinstance(value, float) or abs(value) < 2**63),
    str: is_text,
}
_LABEL = re.compile(r"(\w+)(?:\[(.*)\])?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run. Lists multiply."""

    dataset: str
    methods: tuple[str, ...]  # `ddim`, `fixed_point[num_iters=5]`, `edict[inversion_guidance=3]`
    models: tuple[str, ...] = ("scenes-sd",)
    metrics: tuple[str, ...] = ("psnr", "ssim")
    guidance: tuple[float, ...] = (1.0,)  # of sampling
    inversion_guidance: float = 1.0  # of methods that say none of their own
    steps: int = 50
    edit: bool = False
    seed: int = 0
    dtype: str = "float32"
    quick: bool = False  # every method's quick preset
    fit: Fit = "crop"  # of pictures from files; scenes have the model's size
    clip: str = "scenes-clip"  # of the CLIP metrics

    def fingerprint(self) -> str:
        """SHA-256 of everything that can change a result."""
        return digest({"format": FORMAT, **asdict(self)})


@dataclass(frozen=True)
class Named:
    """A method of a plan: its label, and how `get_method` makes it."""

    label: str
    name: str
    settings: Mapping[str, Any]
    inversion_guidance: float
    baseline: bool = False


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
    for singular, plural in (("model", "models"), ("method", "methods"), ("metric", "metrics")):
        if singular in values and plural not in values:
            values[plural] = values.pop(singular)
    if "methods" in values:
        asked = values["methods"]
        values["methods"] = [_label(m) for m in (asked if isinstance(asked, list | tuple) else [asked])]
    values = {key: _typed(key, value) for key, value in values.items()}
    for key, value in values.items():
        if isinstance(value, tuple) and len({*value}) < (len(value) or 1):
            raise BadOption(f"{key} must be different values, at least one; got {shown(list(value))}")
    for key in ("dataset", "methods"):
        if not values.get(key):
            raise BadOption(
                f"a plan needs {key}, for example {'scenes:64' if key == 'dataset' else 'ddim,fixed_point'}"
            )
    return _checked(values)


def _typed(key: str, value: Any) -> Any:
    """A value as `Plan` declares its field; where that is a list, one value stands for a list of it.

    Raises:
        UnknownName: no such field. BadOption: a value of another type.
    """
    hints = get_type_hints(Plan, localns={"Fit": str})  # a word; which one is seen later
    if key not in hints:
        raise unknown_name("key of a plan", key, hints)
    kind, *more = get_args(hints[key]) or (hints[key],)
    values = tuple(value) if isinstance(value, list | tuple) and more else (value,)
    if not all(_KINDS[kind](v) for v in values):
        what = f"{kind.__name__} values" if more else kind.__name__
        raise BadOption(f"{key} of a plan must be {what}; got {shown(value)}")
    return values if more else value


def _checked(values: dict[str, Any]) -> Plan:
    from unsample.datasets.spec import read_spec
    from unsample.datasets.table import DATASETS
    from unsample.media.pictures import Fit
    from unsample.models.guidance import check_guidance
    from unsample.models.loading import DTYPES
    from unsample.numbers.grid import check_steps

    for key, choices in (("dtype", DTYPES), ("fit", get_args(Fit))):
        if values.get(key, choices[0]) not in choices:
            raise unknown_name(key, values[key], choices)
    if "guidance" in values:
        values["guidance"] = tuple(check_guidance(w, "guidance") for w in values["guidance"])
    if "inversion_guidance" in values:
        values["inversion_guidance"] = check_guidance(values["inversion_guidance"], "inversion_guidance")
    check_steps(values.get("steps", 50))
    read_spec(values["dataset"], DATASETS)
    plan = Plan(**values)
    _check_methods(plan)
    _check_metrics(plan)
    return plan


def _label(entry: Any) -> Any:
    """A method of a plan as text: `{name = "edict[p=0.9]", inversion_guidance = 3}` is `edict[p=0.9,inversion_...=3]`.

    Raises:
        UnknownName: a key that a method has not. BadOption: no name.
    """
    if not isinstance(entry, Mapping):
        return entry
    known = ("name", *OF_A_METHOD)
    for key in entry:
        if key not in known:
            raise unknown_name("key of a method", key, known)
    match = _LABEL.fullmatch(entry["name"].strip() if is_text(entry.get("name")) else "")
    if match is None:
        raise BadOption(
            f"a method of a plan needs a name, such as {{name = 'edict', inversion_guidance = 3}}; got {shown(entry)}"
        )
    own = [f"{key}={_short(_typed(key, entry[key]))}" for key in OF_A_METHOD if key in entry]
    inner = [*filter(None, [match[2]]), *own]
    return f"{match[1]}[{','.join(inner)}]" if inner else match[1]


def _short(value: Any) -> str:
    """A number as one writes it: 3, not 3.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_methods(plan: Plan) -> None:
    from unsample.methods import get_method

    made = plan.dataset.partition(":")[0].partition(",")[0].strip() == "generated"
    for named in methods_of(plan):
        if not named.baseline and get_method(named.name, dict(named.settings)).needs_trajectory and not made:
            raise Incompatible(
                f"{named.label} needs the sampling run that made the pictures, and {plan.dataset!r} has none; "
                "use the data set generated"
            )


def drifting(plan: Plan) -> dict[tuple[str, float], str]:
    """The methods of a plan, by label and guidance, whose reconstruction drifts for the guidance alone; what is said.

    It is what the verbs warn of (`playing.drift`).
    """
    found = {(m.label, w): drift_of(m, w) for w in plan.guidance for m in methods_of(plan)}
    return {key: said for key, said in found.items() if said}


def drift_of(named: Named, guidance: float) -> str:
    """What is to be said of a method that is inverted at its own guidance and sampled at another; mostly nothing."""
    from unsample.methods import get_method
    from unsample.verbs.playing import drift

    if named.baseline:
        return ""
    method = get_method(named.name, dict(named.settings))
    scales = (guidance,)
    return drift(method, named.inversion_guidance, scales) if method.drifts(named.inversion_guidance, scales) else ""


def without_weights(plan: Plan) -> dict[str, str]:
    """The metrics of a plan whose weights are not here, and why: their values will be null.

    Raises:
        WeightsMissing: no metric is left.
    """
    from unsample.metrics.facts import resolve
    from unsample.metrics.measuring import lacking_weights
    from unsample.metrics.subject import Settings
    from unsample.metrics.table import METRICS

    asked = {name: lacking_weights(resolve(name, METRICS, Settings(clip=plan.clip))) for name in plan.metrics}
    lacking = {name: reason for name, reason in asked.items() if reason}
    if len(lacking) == len(plan.metrics):
        raise WeightsMissing("; ".join(f"{name}: {reason}" for name, reason in lacking.items()))
    return lacking


def _check_metrics(plan: Plan) -> None:
    from unsample.metrics.facts import resolve
    from unsample.metrics.subject import Settings
    from unsample.metrics.table import METRICS

    for name in plan.metrics:
        asked = resolve(name, METRICS, Settings(clip=plan.clip))
        if asked.facts.compute is None:
            raise BadOption(
                f"{name} is a metric of whole sets, and a cell is one picture; run without it and then "
                "'unsample measure' on two folders of the run's pictures"
            )


def methods_of(plan: Plan) -> list[Named]:
    """The methods of a plan in order, baselines last.

    Raises:
        UnknownName: no such method or setting. BadOption: a label that is none, or a setting that cannot be.
    """
    from unsample.methods import get_method, parse_settings

    found = []
    for label in plan.methods:
        match = _LABEL.fullmatch(str(label).strip())
        if match is None:
            raise BadOption(f"a method of a plan is NAME or NAME[key=value,...]; got {label!r}")
        name, inner = match[1], match[2] or ""
        get_method(name)
        pairs = [tuple(part.split("=", 1)) for part in split_outside(inner, ",") if part.strip()]
        if any(len(pair) != 2 for pair in pairs):
            raise BadOption(f"settings in {label!r} are key=value, separated by commas")
        given = [(k.strip(), v.strip()) for k, v in pairs]  # type: ignore[misc]
        own = dict(pair for pair in given if pair[0] in OF_A_METHOD)
        settings = parse_settings(name, [("preset", "quick")] * plan.quick + [p for p in given if p[0] not in own])
        get_method(name, dict(settings))
        found.append(Named(str(label).strip(), name, settings, _guidance(own, str(label), plan)))
    baselines = BASELINES if plan.edit else ()
    return found + [Named(b, b, {}, plan.inversion_guidance, baseline=True) for b in baselines]


def _guidance(own: Mapping[str, str], label: str, plan: Plan) -> float:
    """The guidance that a method is inverted at: its own, else the plan's."""
    from unsample.models.guidance import check_guidance

    if "inversion_guidance" not in own:
        return plan.inversion_guidance
    try:
        return check_guidance(float(own["inversion_guidance"]), "inversion_guidance")
    except ValueError as error:
        raise BadOption(
            f"inversion_guidance in {label!r} must be a number; got {own['inversion_guidance']!r}"
        ) from error


def split_outside(text: str, separator: str) -> list[str]:
    """Split at a separator that stands outside of brackets: `a,b[c,d]` gives `a` and `b[c,d]`."""
    parts, depth, begin = [], 0, 0
    for k, letter in enumerate(text):
        depth += (letter in "[(") - (letter in "])")
        if letter == separator and depth == 0:
            parts.append(text[begin:k])
            begin = k + 1
    return [*parts, text[begin:]]


def differing(mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys in which two plans, as JSON, differ."""
    return [k for k in sorted({*mine, *other}) if json.dumps(mine.get(k)) != json.dumps(other.get(k))]


def plain(plan: Plan) -> dict[str, Any]:
    """A plan as JSON takes it."""
    return {k: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for k, v in asdict(plan).items()}
