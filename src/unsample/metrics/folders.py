"""Metrics of pictures that lie in files: `measure_pairs` reads them as their turn comes, `Measured` sums them up.

Missing weights are found before torch is imported. A file that cannot be read is one picture's failure, not all's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput
from unsample.metrics.facts import Asked
from unsample.metrics.measuring import DEFAULTS, Measuring, lacking_weights
from unsample.metrics.subject import Score, Settings, Subject
from unsample.numeric import finite

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.datasets.pairs import Pair
    from unsample.models.base import Model


def measure_pairs(
    asked: Sequence[Asked],
    pairs: Sequence[Pair],
    settings: Settings = DEFAULTS,
    *,
    failed: Callable[[str], object] = lambda reason: None,
    step: Callable[[int], object] = lambda count: None,
    autoencoder: Model | None = None,
    maps: Callable[[str, str, Tensor], object] | None = None,
) -> Measured:
    """Measure files that belong together, a batch of them in memory at a time.

    Args:
        asked: metrics, as `facts.resolve` gives them.
        pairs: as `datasets.pairs.match` gives them.
        settings: where weights lie, which CLIP, on which device.
        failed: told at once, in words, of what cannot be measured.
        step: told how many more pictures are done.
        autoencoder: the model whose autoencoder alone the images are sent through, for metrics that need it.
        maps: given the name of a picture, the key of a metric and its map (H, W), where the metric has one.
    """
    from unsample.datasets.batches import batches

    lacking = {one.key: reason for one in asked if (reason := lacking_weights(one)) is not None}
    found = Measured(asked, lacking=lacking, values={one.key: [] for one in asked if one.facts.compute is not None})
    for reason in dict.fromkeys(lacking.values()):
        failed(f"{', '.join(key for key, why in lacking.items() if why == reason)}: {reason}")
    if len(lacking) == len(asked):
        found.files = [pair.name for pair in pairs]
        found.values = {key: [lacking[key]] * len(pairs) for key in found.values}
        return found
    measuring = Measuring([one.key for one in asked if one.key not in lacking], settings)
    for batch in batches(pairs):
        subject = None if batch.fields is None else Subject(**batch.fields)
        if subject is not None and autoencoder is not None:
            subject = _autoencoded(autoencoder, subject, batch.names, failed, found.failed)
        scores = {} if subject is None else measuring.add(subject)
        found.files += batch.names
        found.notes += batch.notes
        for key, column in found.values.items():
            column += _column(scores.get(key), len(batch.names), lacking.get(key) or batch.reason)
            if key in scores and scores[key].details:
                found.details[key] = dict(scores[key].details)
        if subject is not None and maps is not None:
            _show_maps(measuring, subject, scores, batch.names, maps)
        if batch.reason is not None:
            found.failed[batch.names[0]] = batch.reason
            failed(batch.reason)
        if (sizes := _two_sizes(asked, subject)) is not None:
            for file in batch.names:
                found.failed[file] = f"{file}: the two pictures are {sizes}"
                failed(f"{found.failed[file]}; metrics that compare pictures of one size leave it out")
        step(len(batch.names))
    found.sets = measuring.finish()
    return found


def _autoencoded(
    model: Model, subject: Subject, names: Sequence[str], failed: Callable[[str], object], lost: dict[str, str]
) -> Subject:
    """With what the model's autoencoder alone makes of the images, where their size allows it."""
    from unsample.metrics.detecting import with_autoencoded

    try:
        return with_autoencoded(model, subject)
    except BadInput as error:
        for name in names:
            lost[name] = f"{name}: {error}"
            failed(lost[name])
        return subject


def _show_maps(
    measuring: Measuring,
    subject: Subject,
    scores: Mapping[str, Score],
    names: Sequence[str],
    maps: Callable[[str, str, Tensor], object],
) -> None:
    for one in measuring.asked:
        known = one.key in scores and all(reason is None for reason in scores[one.key].reasons)
        if one.facts.map is not None and known:
            for name, values in zip(names, one.facts.map(subject, one.settings), strict=True):
                maps(name, one.key, values)


def _column(score: Score | None, count: int, reason: str | None) -> list[float | str | None]:
    if score is None:
        return [reason] * count
    rows = zip(score.values, score.exact, score.reasons, strict=True)
    return [math.inf if exact else value if why is None else why for value, exact, why in rows]


def _two_sizes(asked: Sequence[Asked], subject: Subject | None) -> str | None:
    """The sizes of image and reference where they differ and a metric cannot take that."""
    if subject is None or subject.images is None or subject.reference is None:
        return None
    if subject.images.shape == subject.reference.shape or all(one.facts.any_size for one in asked):
        return None
    return " and ".join(f"{t.shape[3]}x{t.shape[2]}" for t in (subject.images, subject.reference))


@dataclass
class Measured:
    """What came out: for each picture its values, and of every metric what is needed to summarise it."""

    asked: Sequence[Asked]
    files: list[str] = field(default_factory=list)
    values: dict[str, list[float | str | None]] = field(default_factory=dict)  # a text: why none; inf: exact
    sets: dict[str, Score] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # file to reason
    lacking: dict[str, str] = field(default_factory=dict)  # metric to reason
    notes: list[tuple[str, str]] = field(default_factory=list)  # file, and what was done to it

    def summaries(self) -> dict[str, dict[str, Any]]:
        """Each metric over all pictures: `mean`, `median`, `min`, `max`, or of a metric of sets the one `value`."""
        return {one.key: self._summary(one) for one in self.asked}

    def _summary(self, one: Asked) -> dict[str, Any]:
        """The mean of PSNR is the PSNR of the mean MSE, so that exact pictures count."""
        facts, key = one.facts, one.key
        told = {"name": one.name, "unit": facts.unit, "better": facts.better, "convention": facts.convention}
        if facts.tally is not None:
            score = self.sets.get(key)
            value, n, details = (score.values[0], score.n, dict(score.details)) if score else (None, 0, {})
            reason = self.lacking.get(key) or (score.reasons[0] if score else None)
            return told | {"value": value, "n": n, "missing": int(value is None), "reason": reason, "details": details}
        numbers = [v for v in self.values[key] if isinstance(v, float)]
        reasons = [v for v in self.values[key] if isinstance(v, str)]
        return told | {
            "mean": _mean(numbers, facts.unit),
            "median": finite(median(numbers) if numbers else None),
            "min": finite(min(numbers, default=None)),
            "max": finite(max(numbers, default=None)),
            "n": len(numbers),
            "exact": sum(math.isinf(v) for v in numbers),
            "missing": len(reasons),
            "reason": reasons[0] if reasons else None,
            "details": self.details.get(key, {}),
        }

    def rows(self) -> list[dict[str, Any]]:
        """A row a picture: `file`, `values` (None where there is none), which are `exact`, and the `reasons`."""
        listed = []
        for k, file in enumerate(self.files):
            cells = {key: column[k] for key, column in self.values.items()}
            values = {key: finite(v) if isinstance(v, float) else None for key, v in cells.items()}
            exact = [key for key, v in cells.items() if isinstance(v, float) and math.isinf(v)]
            reasons = {key: v for key, v in cells.items() if isinstance(v, str)}
            listed.append({"file": file, "values": values, "exact": exact, "reasons": reasons})
        return listed

    def csv(self, raw: bool = False) -> str:
        """A row a picture: its values ('exact' for equal pictures, empty where there is none), why some are missing.

        Texts that a spreadsheet would run are made harmless, unless `raw`.
        """
        from unsample.media.files import as_csv

        table = [
            {"reasons": "; ".join(dict.fromkeys(row["reasons"].values()))}
            | row["values"] | dict.fromkeys(row["exact"], "exact") | {"file": row["file"]}
            for row in self.rows()
        ]  # fmt: skip
        return as_csv(["file", *self.values, "reasons"], table, raw)


def _mean(numbers: Sequence[float], unit: str) -> float | None:
    if not numbers or unit != "dB":
        return fmean(numbers) if numbers else None
    return finite(-10 * math.log10(power) if (power := fmean(10 ** (-v / 10) for v in numbers)) > 0 else math.inf)
