"""What stands around the tables: what was run, what it cannot tell, what failed, and the conventions of its metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.bench.coverage import Counts, Covered, listed, outside, total
from unsample.bench.parts import NOT_APPLICABLE, edits_of
from unsample.report import words
from unsample.report.columns import Column
from unsample.report.table import Block

if TYPE_CHECKING:
    from unsample.bench.ledger import RunData

MOST = 100  # failures, and broken rows, that are listed
FEW = 10  # items under which a bootstrap interval is known to be too narrow
UNKNOWN = (
    "How many cells were planned is not noted in this run, which an earlier version made: what no method has a row of "
    "is not counted as missing here. ‘unsample bench verify’ counts it."
)
SCENES = (
    "What scenes cannot test: absolute PSNR, LPIPS, CLIP or FID of any paper; loss of photographic detail and human "
    "preference; one Stable Diffusion against another; few-step (Turbo, LCM) claims; half-precision overflow of real "
    "autoencoders; free-form, wrong or missing source prompts; how the real CLIP behaves; ratios of wall time of real "
    "models; photographs. Flat areas make “plain regions are worse” likely by construction: read the dose and the "
    "response (error against local contrast), not two bins."
)


@dataclass(frozen=True)
class Failure:
    """A cell without a result."""

    item: str
    where: str
    error: str
    attempts: str
    traceback: str


@dataclass(frozen=True)
class Convention:
    """How a metric was computed."""

    title: str
    metric: str
    better: str
    text: str
    reference: str


@dataclass(frozen=True)
class About:
    """All of it, as text."""

    summary: str
    cautions: Sequence[str]
    failures: Sequence[Failure]
    broken: Sequence[tuple[str, str]]
    conventions: Sequence[Convention]
    settings: Sequence[tuple[str, str]]
    versions: Sequence[tuple[str, str]]
    command: str


def about(run: RunData, blocks: Sequence[Block], parts: Sequence[Covered] = ()) -> About:
    """Everything but the tables."""
    plan = settings_of(run.plan)
    seen = {column.metric: column for block in blocks for column in block.columns}
    return About(
        summary=_summary(run, plan, parts),
        cautions=_cautions(run, plan, blocks, parts),
        failures=[_failure(row) for row in run.rows if row["status"] == "failed"],
        broken=[(words.line(item, 200), words.plain(reason, 2000)) for item, reason in run.broken],
        conventions=[_convention(column) for column in seen.values()],
        settings=[(words.line(name), words.setting(value)) for name, value in plan.items()],
        versions=[(words.line(k), words.setting(v)) for k, v in dict(run.plan.get("versions") or {}).items()],
        command=_command(run.plan.get("command")),
    )


def settings_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan's own settings, without what stands beside them in its file."""
    inner = plan.get("plan")
    beside = ("versions", "command")
    return dict(inner) if isinstance(inner, Mapping) else {k: v for k, v in plan.items() if k not in beside}


def counts_of(run: RunData, parts: Sequence[Covered]) -> Counts:
    """All that was planned; of a run that did not note its items, what has a row."""
    statuses = Counter(str(row["status"]) for row in run.rows)
    return total(part.counts for part in parts) if parts else Counts(len(run.rows), statuses)


def _summary(run: RunData, plan: Mapping[str, Any], parts: Sequence[Covered]) -> str:
    items = sum(map(len, run.items.values())) or len({row["item"] for row in run.rows})
    methods = len({part.part.method for part in parts if not part.baseline and part.counts.planned})
    methods = methods or len({row["method"] for row in run.rows if not row.get("baseline")})
    data = words.line(", ".join(_data(plan)) or "no data set named", 300)
    ends = counts_of(run, parts).told()
    return f"{data}: {words.count(items, 'item')}, {words.count(methods, 'method')}; {ends}."


def _cautions(run: RunData, plan: Mapping[str, Any], blocks: Sequence[Block], parts: Sequence[Covered]) -> list[str]:
    data = _data(plan)
    names = {spec.partition(":")[0].partition(",")[0] for spec in data}
    found = []
    if not run.rows:
        found.append("No cell has ended yet: there is nothing to report.")
    found += _incomplete(blocks, parts)
    for part in parts:
        if part.apart is not None:
            what = "Not applicable, and not run" if part.apart.kind == NOT_APPLICABLE else "Stopped"
            found.append(words.line(f"{what}: {part.where}: {part.apart.reason}", 1000))
    for label, said in {(m.label, m.drift): None for b in blocks for m in b.methods if m.drift}:
        found.append(f"{words.line(label, 200)} drifts by guidance: {said}.")
    found += [f"{words.line(said, 400)}." for said in outside(run.rows)]
    if plan.get("quick"):
        found.append("Made with the methods' quick presets: a look, not a measurement of the methods as published.")
    if any("split=tune" in spec.replace(" ", "") for spec in data):
        found.append("Made on `tune` seeds, on which settings may be chosen: no table of it may be published.")
    shared = [n for b in blocks for n in b.shared.values() if n]
    if shared and min(shared) < FEW:
        found.append(f"Columns over fewer than {FEW} items: their intervals are narrower than they should be.")
    if names & {"scenes", "generated"}:
        found.append(SCENES)
    return found


def _data(plan: Mapping[str, Any]) -> list[str]:
    """The data sets of a plan, of all stages."""
    more = plan.get("datasets")
    every = [plan.get("dataset"), *(more.values() if isinstance(more, Mapping) else ())]
    return list(dict.fromkeys(str(spec) for spec in every if spec))


def _incomplete(blocks: Sequence[Block], parts: Sequence[Covered]) -> list[str]:
    """What is missing, of which method with which model."""
    again = "Start the same command again to finish it, or merge the shards; until then read no rank from it."
    counts = total(part.counts for part in parts)
    if counts.missing:
        said = f"{counts.missing:,} of {words.count(counts.planned, 'cell')} have no row yet"
        return [words.line(f"The run is not complete: {said} ({listed(parts)}). {again}", 4000)]
    if parts:
        return []
    some = any(m.missing for b in blocks for m in b.everyone)
    found = [f"The run is not complete: some cells have no row yet. {again}"] if some else []
    return [*found, UNKNOWN]


def _failure(row: Mapping[str, Any]) -> Failure:
    where = f"{row['method']} · {row['model']} · guidance {words.setting(row.get('guidance'))}"
    where += f" · edited by {how}" if (how := edits_of(row)) else ""
    tried = words.count(int(row.get("attempts") or 0), "attempt")
    deaths = int(row.get("deaths") or 0)
    return Failure(
        words.line(row["item"], 200),
        words.line(where, 400),
        words.plain(row.get("error") or "no reason recorded", 2000),
        f"{tried}, {words.count(deaths, 'death')} of the worker" if deaths else tried,
        words.plain(row.get("traceback") or "", 8000),
    )


def _convention(column: Column) -> Convention:
    better = {"higher": "higher is better", "lower": "lower is better"}.get(column.better, "ranks nothing")
    unit = f", in {column.unit}" if column.unit not in ("", "1") else ""
    return Convention(column.title, column.metric, f"{better}{unit}", column.convention, column.reference)


def _command(given: Any) -> str:
    import shlex

    if not given:
        return ""
    return words.line(given if isinstance(given, str) else shlex.join(str(word) for word in given), 4000)
