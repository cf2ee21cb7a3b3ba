"""Options, checked before torch is imported, so that a mistake costs no time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption
from unsample.preflight import rules

if TYPE_CHECKING:
    from unsample.cli.options import Placement
    from unsample.media.pictures import Fit
    from unsample.methods import Method

DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "npu", "mtia", "xla")
MAX_SEED = 2**63 - 1


@contextmanager
def option(name: str) -> Iterator[None]:
    """Put the option's name before what the library says of its value."""
    try:
        yield
    except BadOption as error:
        raise type(error)(f"{name}: {error}") from error


@dataclass(frozen=True)
class Labels:
    """`--class-labels` and `--negative-class-labels`: one for all pictures, or one each; None where not given."""

    classes: tuple[int, ...] | None = None
    negative: tuple[int, ...] | None = None

    def taken(self, pictures: Iterable[int]) -> dict[str, Any]:
        """What the library is given for some of the pictures, told by their place."""
        places, both = list(pictures), {"class_labels": self.classes, "negative_class_labels": self.negative}
        return {n: None if v is None else [v[k % len(v)] for k in places] for n, v in both.items()}


@dataclass(frozen=True)
class Walk:
    """How to invert: checked."""

    method: Method
    steps: int
    guidance_scale: float | None  # None: the method's own, else 1
    sampling_guidance_scale: float | None
    guidance_schedule: str
    strength: float  # resolved: the method's own where none was given
    seed: int
    fit: Fit
    clip: str
    labels: Labels = Labels()


def checked_walk(method: str, settings: list[str] | None, walk: dict[str, Any]) -> Walk:
    """The options of an inversion; `walk` holds the fields of `Walk` after the first.

    Raises:
        BadOption: any of them cannot be.
    """
    from unsample.numbers.grid import check_steps

    with option("--steps"):
        check_steps(walk["steps"])
    for name in ("guidance_scale", "sampling_guidance_scale"):
        if walk[name] is not None:
            guidance(f"--{name.replace('_', '-')}", walk[name])
    configured = configured_method(method, settings)
    strength = (configured.strength or 1.0) if walk["strength"] is None else walk["strength"]
    rules.check_strength(strength, walk["steps"])
    seed(walk["seed"])
    return Walk(configured, **walk | {"strength": strength})


def guidance(name: str, value: float) -> float:
    """A guidance scale, finite and not negative."""
    from unsample.models.guidance import check_guidance

    with option(name):
        return check_guidance(value)


def seed(value: int, count: int = 1) -> int:
    """A seed that torch takes, and `count` from it on."""
    if not 0 <= value <= MAX_SEED - count:
        raise BadOption(f"--seed must be from 0 to {MAX_SEED - count}; got {value}")
    return value


def at_least(name: str, value: int, lowest: int = 1, highest: int | None = None) -> int:
    """A count."""
    if value < lowest:
        raise BadOption(f"{name} must be at least {lowest}; got {value}")
    if highest is not None and value > highest:
        raise BadOption(f"{name} must be at most {highest}; got {value}")
    return value


def labels(classes: str | None, negative: str | None, count: int, of: str = "") -> Labels:
    """The two options, for `count` pictures; `of` stands before the first one's name."""
    found: list[tuple[int, ...] | None] = []
    for name, value in ((f"--{of}class-labels", classes), ("--negative-class-labels", negative)):
        if value is None:
            found.append(None)
            continue
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            raise BadOption(f"{name} takes whole numbers of at least 0, separated by commas; got {value!r}")
        if len(parts) not in (1, count):
            raise BadOption(f"{name} holds {len(parts)} classes for {count} pictures; give 1 or {count}")
        found.append(tuple(map(int, parts)))
    if found[0] is None and found[1] is not None:
        raise BadOption("--negative-class-labels is for guidance over classes; give --class-labels too")
    return Labels(*found)


def configured_method(name: str, settings: list[str] | None) -> Method:
    """The method that `--method` and `--set` describe."""
    from unsample.methods import get_method, parse_settings

    get_method(name)  # refuses a name that is not in the table
    pairs: list[tuple[str, str]] = []
    for pair in settings or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadOption(f"--set takes KEY=VALUE, for example --set num_iters=5; got {pair!r}")
        pairs.append((key.strip(), value.strip()))
    with option("--set"):
        return get_method(name, parse_settings(name, pairs))


def place(where: Placement) -> Placement:
    """Device and offload, as far as they can be known without torch."""
    kind = (where.device or "").partition(":")[0]
    if where.device is not None and (kind not in DEVICES or not re.fullmatch(r"[a-z]+(:\d+)?", where.device)):
        raise BadOption(f"--device must be one of {', '.join(DEVICES)}, or like cuda:1; got {where.device!r}")
    if where.offload != "none" and kind == "cpu":
        raise BadOption(f"--offload {where.offload} needs an accelerator; leave it out with --device cpu")
    return where
