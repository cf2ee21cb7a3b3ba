"""`measure`: metrics by name, of pictures that are at hand or of many that come a batch at a time.

A metric that cannot be computed answers None with the reason, and the others go on; nothing is ever nan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from unsample.errors import UnsampleError, WeightsMissing, first_line
from unsample.metrics.facts import Asked, Tally, resolve
from unsample.metrics.subject import Found, Score, Settings, Subject
from unsample.metrics.table import METRICS

DEFAULTS = Settings()


def measure(names: Sequence[str], subject: Subject, settings: Settings = DEFAULTS) -> dict[str, Score]:
    """Measure pictures by several metrics.

    Args:
        names: of the table (`unsample metrics`), some with brackets: `psnr`, `fd[scenes-clip]`, `clip_image[FOLDER]`.
        subject: what is known of the pictures.
        settings: where weights lie, which CLIP, on which device.

    Returns:
        For each name a `Score`: an entry a picture, or one for a metric of sets. What a metric needs and the subject
        or this machine does not have is None with the reason. Equal pictures have PSNR None with `exact` True.

    Raises:
        UnknownName: no such metric. BadOption: brackets that it does not take.

    Example:
        >>> import torch, unsample
        >>> from unsample.metrics import Subject
        >>> grey = torch.full((1, 3, 32, 32), 0.5)
        >>> scores = unsample.measure(["psnr"], Subject(images=grey + 0.1, reference=grey))
        >>> round(scores["psnr"].values[0], 3)
        20.0
    """
    measuring = Measuring(names, settings)
    scores = measuring.add(subject) | measuring.finish()
    return {name: scores[name] for name in names}


class Measuring:
    """Metrics over pictures that do not fit into memory together: `add` batches, then `finish`.

    Metrics of sets that need the same of the pictures share one tally; two that ran on shards merge.
    """

    def __init__(self, names: Sequence[str], settings: Settings = DEFAULTS) -> None:
        self.asked = [resolve(name, METRICS, settings) for name in dict.fromkeys(names)]
        self._tallies: dict[tuple[Any, Settings], Tally] = {}
        self._failed: dict[tuple[Any, Settings], str] = {}
        self.n = 0  # pictures seen

    def add(self, subject: Subject) -> dict[str, Score]:
        """Measure some pictures: the scores of all metrics that give a value a picture."""
        subject = _on_cpu(subject)
        self._tally(subject)
        self.n += len(subject)
        return {asked.key: _measured(asked, subject) for asked in self.asked if asked.facts.compute is not None}

    def finish(self) -> dict[str, Score]:
        """The scores of the metrics of sets."""
        return {asked.key: self._concluded(asked) for asked in self.asked if asked.facts.tally is not None}

    def merge(self, other: Measuring) -> None:
        """Take in what another one, with the same metrics, has seen."""
        for key, tally in other._tallies.items():
            if key in self._tallies:
                self._tallies[key].merge(tally)
            else:
                self._tallies[key] = tally
        self._failed = {**other._failed, **self._failed}
        self.n += other.n

    def _tally(self, subject: Subject) -> None:
        """Show the pictures to every tally; one that cannot take them is out, since a part would be another set."""
        wanted = {(asked.facts.tally, asked.settings): asked for asked in self.asked if asked.facts.tally is not None}
        for key, asked in wanted.items():
            if key in self._failed:
                continue
            lacking = _lacking(asked, subject)
            try:
                if lacking is None:
                    assert asked.facts.tally is not None
                    if key not in self._tallies:
                        self._tallies[key] = asked.facts.tally(asked.settings)
                    self._tallies[key].add(subject)
                else:
                    self._failed[key] = lacking
            except Exception as error:
                self._failed[key] = _reason(error)

    def _concluded(self, asked: Asked) -> Score:
        key = (asked.facts.tally, asked.settings)
        tally = self._tallies.get(key)
        if key in self._failed or tally is None:
            return _score(asked, Found([self._failed.get(key, "no pictures were given")]), self.n)
        assert asked.facts.conclude is not None
        try:
            value, details = asked.facts.conclude(tally)
        except Exception as error:
            return _score(asked, Found([_reason(error)]), tally.n)
        return _score(asked, Found([value], details), tally.n)


def _on_cpu(subject: Subject) -> Subject:
    """Metrics are computed on the CPU, but for the networks inside some of them; tensors there already are kept."""
    tensors = {f.name: getattr(subject, f.name) for f in fields(subject)}
    away = {
        k: t.detach().cpu()
        for k, t in tensors.items()
        if hasattr(t, "detach") and (t.device.type != "cpu" or t.requires_grad)
    }
    return replace(subject, **away) if away else subject


def about(asked: Asked) -> dict[str, Any]:
    """All that the table knows of a metric, and why its weights are not here: for JSON, without torch."""
    kept = ("title", "unit", "low", "high", "range", "better", "kind", "needs", "any_size", "convention", "reference")
    return {
        "name": asked.facts.name,
        "full_name": asked.name,
        **{k: getattr(asked.facts, k) for k in kept},
        "depends": asked.facts.depends,
        "weights": list(asked.weights),
        "missing": lacking_weights(asked),
    }


def lacking_weights(asked: Asked) -> str | None:
    """Why a metric's weights, or its key, are not here, found without torch and weights unopened; None if they are."""
    from unsample.metrics.detecting import lacking_key
    from unsample.metrics.weights import find_folder, find_weights

    if asked.facts.mark is not None:
        return lacking_key(asked.facts.mark, asked.settings)
    try:
        for name in asked.weights:
            find_weights(name, asked.settings.weights_dir)
        if asked.facts.depends in ("clip", "dino"):
            chosen = str(getattr(asked.settings, asked.facts.depends))
            if chosen != "pixels" or asked.facts.kind != "set":
                find_folder(chosen, asked.settings.weights_dir)
    except WeightsMissing as error:
        return str(error)
    return None


def _measured(asked: Asked, subject: Subject) -> Score:
    """One metric; whatever goes wrong in it is the reason of all its entries."""
    count = len(subject)
    lacking = _lacking(asked, subject)
    if lacking is not None:
        return _score(asked, Found([lacking] * count), count)
    assert asked.facts.compute is not None
    try:
        result = asked.facts.compute(subject, asked.settings)
    except Exception as error:
        return _score(asked, Found([_reason(error)] * count), count)
    return _score(asked, result if isinstance(result, Found) else Found(result), count)


def _lacking(asked: Asked, subject: Subject) -> str | None:
    """What of the subject a metric needs and does not find, in words."""
    for need in asked.facts.needs:
        if all(getattr(subject, name) is None for name in need.split("|")):
            return f"{asked.facts.name} needs {need.replace('|', ' or ')}, which is not known here"
    images, reference = subject.images, subject.reference
    if asked.facts.any_size or "reference" not in asked.facts.needs or images is None or reference is None:
        return None
    if images.shape[1:] != reference.shape[1:]:
        sizes = " and ".join(f"{t.shape[-1]}x{t.shape[-2]}" for t in (images, reference))
        return f"{asked.facts.name} compares pictures of one size; got {sizes} (ssim_global resizes)"
    return None


def _score(asked: Asked, found: Found, n: int) -> Score:
    values: list[float | None] = []
    reasons: list[str | None] = []
    exact = []
    for value in found.values:
        infinite = not isinstance(value, str) and value == math.inf and asked.facts.unit == "dB"
        if isinstance(value, str):
            reason: str | None = value
        else:
            reason = None if math.isfinite(value) or infinite else f"the result is {value}: the input is not finite"
        values.append(float(value) if reason is None and not infinite else None)  # type: ignore[arg-type]
        reasons.append(reason)
        exact.append(infinite)
    return Score(
        name=asked.name,
        values=values,
        exact=exact,
        reasons=reasons,
        unit=asked.facts.unit,
        n=n,
        details=_finite(found.details),
    )


def _finite(details: Mapping[str, Any]) -> dict[str, Any]:
    """Without nan and infinity."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in details.items()}


def _reason(error: Exception) -> str:
    """An exception as a reason: our own speak for themselves."""
    text = first_line(error)
    return text if isinstance(error, UnsampleError) else f"{type(error).__name__}: {text}"
