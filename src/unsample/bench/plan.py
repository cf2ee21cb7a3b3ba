"""A plan: what is run on what, read from TOML or options, checked before torch is imported.

Its fingerprint covers everything that can change a result. Batch size, engine, workers and order are no part of it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from unsample.errors import BadInput, BadOption, unknown_name

if TYPE_CHECKING:
    from unsample.pictures import Fit

FORMAT = 1  # of rows and keys; a change of numbers at the same settings makes it another one
BASELINES = ("identity", "vae(source)", "vae(truth)", "fresh")
SHIPPED = ("quick", "zeng", "easyinv", "editing", "pie_bench")
_LABEL = re.compile(r"(\w+)(?:\[(.*)\])?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run. Lists multiply."""

    dataset: str
    methods: tuple[str, ...]  # `ddim`, `fixed_point[num_iters=5]`
    models: tuple[str, ...] = ("scenes-sd",)
    metrics: tuple[str, ...] = ("psnr", "ssim")
    guidance: tuple[float, ...] = (1.0,)  # of sampling
    inversion_guidance: float = 1.0
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
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"cannot read plan {name!r}: {error}; it is a TOML file such as plans/quick.toml") from error
    return make_plan({**found, **changes})


def plan_file(name: str) -> Path:
    """The file of a plan: a path, or the name of a shipped one (`quick`, `plans/quick.toml`)."""
    path = Path(name)
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
    known = {f.name for f in fields(Plan)}
    values = dict(given)
    for singular, plural in (("model", "models"), ("method", "methods"), ("metric", "metrics")):
        if singular in values and plural not in values:
            values[plural] = values.pop(singular)
    for key in values:
        if key not in known:
            raise unknown_name("key of a plan", key, known)
    for key in ("models", "methods", "metrics", "guidance"):
        if key in values:
            kept = values[key]
            values[key] = tuple(kept) if isinstance(kept, list | tuple) else (kept,)
            if not values[key] or len(set(map(str, values[key]))) < len(values[key]):
                raise BadOption(f"{key} must be different values, at least one; got {kept!r}")
    for key in ("dataset", "methods"):
        if not values.get(key):
            raise BadOption(
                f"a plan needs {key}, for example {'scenes:64' if key == 'dataset' else 'ddim,fixed_point'}"
            )
    return _checked(values)


def _checked(values: dict[str, Any]) -> Plan:
    from unsample.datasets.spec import read_spec
    from unsample.datasets.table import DATASETS
    from unsample.grid import check_steps
    from unsample.models.guidance import check_guidance
    from unsample.models.loading import DTYPES
    from unsample.pictures import Fit

    for key, kind in (("edit", bool), ("quick", bool), ("seed", int), ("dataset", str), ("dtype", str), ("fit", str)):
        if key in values and not (
            isinstance(values[key], kind) and (kind is bool or not isinstance(values[key], bool))
        ):
            raise BadOption(f"{key} of a plan must be {kind.__name__}; got {values[key]!r}")
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
    methods_of(plan)
    _check_metrics(plan)
    return plan


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
        given = [("preset", "quick")] * plan.quick + [(k.strip(), v.strip()) for k, v in pairs]  # type: ignore[misc]
        settings = parse_settings(name, given)
        get_method(name, dict(settings))
        found.append(Named(str(label).strip(), name, settings))
    return found + [Named(b, b, {}, baseline=True) for b in BASELINES if plan.edit]


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
