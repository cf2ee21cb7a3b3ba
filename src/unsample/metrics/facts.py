"""What the table says of a metric, and how a name with brackets is read. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from unsample.errors import BadOption
from unsample.metrics.subject import Found, Settings, Subject
from unsample.registry import Table

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.watermarks.keys import Key

Better = Literal["higher", "lower", "neither"]
Kind = Literal["pair", "ceiling", "autoencoder", "text", "masked", "edit", "recovery", "noise", "set"]
KINDS: dict[str, str] = {
    "pair": "images against a reference",
    "ceiling": "images, not rounded, against the autoencoder's round trip of their source",
    "autoencoder": "images, and what a model's autoencoder alone makes of them",
    "text": "images and prompts",
    "masked": "images, reference and mask",
    "edit": "scenes: images against the true edit",
    "recovery": "needs the true noise, or the start of the walk",
    "noise": "the recovered noise alone",
    "set": "over many pictures: one value",
}


class Tally(Protocol):
    """What is kept of many pictures until a metric of sets is computed; shards merge."""

    @property
    def n(self) -> int: ...
    def add(self, subject: Subject) -> None: ...
    def merge(self, other: Any) -> None: ...


@dataclass(frozen=True)
class MetricFacts:
    """A row of the table."""

    name: str
    title: str
    low: float | None  # None: no bound
    high: float | None
    better: Better
    _: KW_ONLY
    kind: Kind
    needs: tuple[str, ...]  # fields of Subject; "a|b": one of them
    convention: str  # one line: input range, size, window
    reference: str
    unit: str = ""  # "" for a bare number
    weights: tuple[str, ...] = ()  # names in WEIGHTS
    depends: str | None = None  # the field of Settings that the brackets set: fd[scenes-clip]
    mark: type[Key] | None = None  # the kind of watermark whose key it needs
    chosen: str | None = None  # what they hold where there are none; else what Settings says
    any_size: bool = False  # image and reference may differ in size
    compute: Callable[[Subject, Settings], Found | Sequence[float | str]] | None = None  # a value a picture
    map: Callable[[Subject, Settings], Tensor] | None = None  # (B, H, W): where in the picture the value is from
    tally: Callable[[Settings], Tally] | None = None  # metrics of sets
    conclude: Callable[[Any], tuple[float | str, dict[str, Any]]] | None = None

    @property
    def range(self) -> str:
        """For reading: 0 to 1."""
        low, high = ("-inf" if self.low is None else f"{self.low:g}", "inf" if self.high is None else f"{self.high:g}")
        return f"{low} to {high}"


@dataclass(frozen=True)
class Asked:
    """A metric with what it depends on."""

    key: str  # as it was asked for
    name: str  # in full: fd[scenes-clip]
    facts: MetricFacts
    settings: Settings

    @property
    def weights(self) -> tuple[str, ...]:
        """The weights that this very metric needs, by their names in WEIGHTS."""
        from unsample.metrics.trunks import NETWORKS
        from unsample.metrics.weights import WEIGHTS

        if self.facts.depends == "lpips_net":
            return (NETWORKS[self.settings.lpips_net],)
        chosen = getattr(self.settings, self.facts.depends) if self.facts.depends else None
        return (chosen,) if chosen in WEIGHTS else self.facts.weights


def resolve(key: str, table: Table[MetricFacts], settings: Settings) -> Asked:
    """Read `name` or `name[argument]`.

    Raises:
        UnknownName: no such metric. BadOption: brackets that it does not take, or an unknown LPIPS network.
    """
    from unsample.metrics.trunks import NETWORKS

    name, bracket, rest = key.partition("[")
    if name not in table:
        raise table.unknown(name)
    facts = table[name]
    if bracket and (not rest.endswith("]") or not rest[:-1] or facts.depends is None):
        takes = f"takes one {facts.depends} in brackets" if facts.depends else "takes nothing in brackets"
        raise BadOption(f"metric {name!r} {takes}; got {key!r}")
    if facts.depends is None:
        return Asked(key, name, facts, settings)
    if said := rest[:-1] if bracket else facts.chosen:
        settings = replace(settings, **{facts.depends: said})
    if facts.depends == "lpips_net" and settings.lpips_net not in NETWORKS:
        raise BadOption(f"LPIPS knows the networks {', '.join(NETWORKS)}; got {settings.lpips_net!r}")
    chosen = getattr(settings, facts.depends)
    if not isinstance(chosen, str):  # no key, or one that is in no file
        return Asked(key, name, facts, settings)
    short = chosen.rstrip("/\\").replace("\\", "/").split("/")[-1]
    return Asked(key, f"{name}[{short}]", facts, settings)
