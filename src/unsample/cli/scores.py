"""What `unsample measure` found: kept, summarised, and said as a table, as JSON or as CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from unsample.cli import talk
from unsample.cli.methods import table
from unsample.cli.pairs import Matched

if TYPE_CHECKING:
    from unsample.metrics import Score
    from unsample.metrics.facts import Asked


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
    notes: list[str] = field(default_factory=list)  # what was done to which file

    @property
    def code(self) -> int:
        """The exit code: files before weights."""
        return 4 if self.failed else 3 if self.lacking else 0


def summary(found: Measured, one: Asked) -> dict[str, Any]:
    """A metric over all pictures. The mean of PSNR is the PSNR of the mean MSE, so that exact pictures count."""
    facts = one.facts
    told: dict[str, Any] = {
        "name": one.name,
        "unit": facts.unit,
        "better": facts.better,
        "convention": facts.convention,
    }
    if facts.tally is not None:
        score = found.sets.get(one.key)
        reason = found.lacking.get(one.key) or (score.reasons[0] if score else None)
        value, n = (score.values[0], score.n) if score else (None, 0)
        details = dict(score.details) if score else {}
        return told | {"value": value, "n": n, "missing": int(value is None), "reason": reason, "details": details}
    column = found.values[one.key]
    numbers = [v for v in column if isinstance(v, float)]
    reasons = [v for v in column if isinstance(v, str)]
    middle = median(numbers) if numbers else None
    return told | {
        "mean": _mean(numbers, facts.unit),
        "median": _plain(middle),
        "min": _plain(min(numbers, default=None)),
        "max": _plain(max(numbers, default=None)),
        "n": len(numbers),
        "exact": sum(math.isinf(v) for v in numbers),
        "missing": len(reasons),
        "reason": reasons[0] if reasons else None,
        "details": found.details.get(one.key, {}),
    }


def _mean(numbers: Sequence[float], unit: str) -> float | None:
    if not numbers or unit != "dB":
        return fmean(numbers) if numbers else None
    return _plain(-10 * math.log10(power) if (power := fmean(10 ** (-v / 10) for v in numbers)) > 0 else math.inf)


def _plain(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def report(found: Measured, matched: Matched, as_json: bool) -> None:
    """The answer on stdout."""
    summaries = {one.key: summary(found, one) for one in found.asked}
    if as_json:
        talk.document({"metrics": summaries, "pairs": rows(found), **_left(found, matched)})
        return
    single = len(found.files) == 1
    lines = []
    for key, told in summaries.items():
        value = told.get("value", told.get("mean"))
        cells = [key if key in told["name"] else told["name"], _shown(value, told)]
        if not single:
            cells += [_shown(told.get(k), told) for k in ("median", "min", "max")]
            cells += [str(told["n"]), str(told.get("exact", 0)), str(told["missing"])]
        lines.append([*cells, told["unit"] or "-", told["better"]])
    spread = [] if single else ["median", "min", "max", "n", "exact", "missing"]
    talk.answer(table([["metric", "value" if single else "mean", *spread, "unit", "better"], *lines]))
    for key, told in summaries.items():
        if told["reason"] is not None and key not in found.lacking:
            talk.note(f"{key}: {told['missing']} without a value: {told['reason']}")
        if told["details"]:
            talk.say(f"{key}: " + ", ".join(f"{k} {_short(v)}" for k, v in told["details"].items()))


def _left(found: Measured, matched: Matched) -> dict[str, Any]:
    from unsample import __version__

    return {"unmatched": dict(matched.unmatched), "failed": found.failed, "notes": found.notes, "unsample": __version__}


def rows(found: Measured) -> list[dict[str, Any]]:
    """A row a picture, as JSON has it."""
    listed = []
    for k, file in enumerate(found.files):
        cells = {key: column[k] for key, column in found.values.items()}
        values = {key: _plain(v) if isinstance(v, float) else None for key, v in cells.items()}
        exact = [key for key, v in cells.items() if isinstance(v, float) and math.isinf(v)]
        listed.append({"file": file, "values": values, "exact": exact,
                       "reasons": {key: v for key, v in cells.items() if isinstance(v, str)}})  # fmt: skip
    return listed


def write_csv(found: Measured, path: Path, raw: bool = False) -> None:
    """A row a picture: its values ('exact' for equal pictures, empty where there is none) and why some are missing."""
    from unsample.media.files import as_csv, atomic_write

    table: list[dict[str, Any]] = []
    for row in rows(found):
        exact = dict.fromkeys(row["exact"], "exact")
        table.append({"reasons": "; ".join(dict.fromkeys(row["reasons"].values())), **row["values"], **exact})
        table[-1]["file"] = row["file"]
    text = as_csv(["file", *found.values, "reasons"], table, raw)
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _shown(value: Any, told: dict[str, Any]) -> str:
    if value is None:
        return "exact" if told.get("exact") and told["n"] == told["exact"] else "-"
    return _short(value)


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
