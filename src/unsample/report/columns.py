"""The columns of the report: a metric at a stage, with its convention; which of them rank methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STAGES = {
    "record": "Reconstruction from the record",
    "noise": "Reconstruction from the noise alone",
    "recovered": "Recovered noise",
    "edit": "Edit",
}
# What says most of an edit comes first: how much of the true edit was reached, then what was kept outside of it.
EDIT_KINDS = ("edit", "text", "masked", "pair")


@dataclass(frozen=True)
class Column:
    """A metric at a stage."""

    stage: str
    metric: str
    title: str
    unit: str = ""
    better: str = "neither"  # higher | lower | neither
    kind: str = ""
    convention: str = ""
    reference: str = ""

    @property
    def key(self) -> str:
        """Its name in a row's values."""
        return f"{self.stage}.{self.metric}"

    @property
    def decibels(self) -> bool:
        """Whether it is averaged as MSE."""
        return self.unit == "dB"

    @property
    def higher(self) -> bool:
        """Whether more is better."""
        return self.better == "higher"

    @property
    def ranks(self) -> bool:
        """Whether methods are ranked by it.

        Never by what a record plays back, which may hold the picture itself, nor by one value of a whole set, of which
        it is not known how far chance moves it.
        """
        return self.better != "neither" and self.stage != "record" and not self.of_set

    @property
    def of_set(self) -> bool:
        """Whether there is one value of all pictures together."""
        return self.kind == "set"

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return {"higher": "↑", "lower": "↓"}.get(self.better, "")


def columns(rows: Iterable[Mapping[str, Any]], metrics: Sequence[str] = ()) -> list[Column]:
    """Every stage and metric that a row has a value or a reason for, in the order of the stages and of the plan."""
    keys = dict.fromkeys(key for row in rows for key in row["values"])
    order = {name: k for k, name in enumerate(metrics)}
    stages = {name: k for k, name in enumerate(STAGES)}

    def place(key: str) -> tuple[int, int]:
        stage, _, metric = key.partition(".")
        return stages.get(stage, len(stages)), order.get(metric, len(order))

    return [column(*key.split(".", 1)) for key in sorted(keys, key=place)]


def column(stage: str, metric: str) -> Column:
    """A column with what the table of metrics says of it; one that is not in there ranks nothing."""
    from unsample.metrics.table import METRICS

    facts = METRICS.get(metric) or METRICS.get(metric.partition("[")[0])  # fd[scenes-clip] is an fd
    if facts is None:
        return Column(stage, metric, metric)
    title = facts.title if metric == facts.name else metric
    return Column(stage, metric, title, facts.unit, facts.better, facts.kind, facts.convention, facts.reference)


def leading(of: Sequence[Column], stage: str) -> Column | None:
    """The column that orders a stage's table: the first of the plan that ranks; of edits, by kind first."""
    ranking = [c for c in of if c.stage == stage and c.ranks]
    if stage == "edit":
        ranking.sort(key=lambda c: EDIT_KINDS.index(c.kind) if c.kind in EDIT_KINDS else len(EDIT_KINDS))
    return ranking[0] if ranking else None
