"""The page `docs/metrics.md`, made from the tables: `python -m unsample.metrics.page > docs/metrics.md`."""

from __future__ import annotations

from unsample.metrics.facts import KINDS, MetricFacts
from unsample.metrics.table import METRICS
from unsample.metrics.weights import VARIABLE, WEIGHTS

HEAD = """# Metrics

Each name stands for one convention, stated here; papers use others under the same names. `unsample metrics NAME` shows
a row and whether its weights are on this machine, `unsample measure A B --metrics NAMES` computes it.

A value that cannot be had is null, with the reason. Equal pictures have infinitely many dB: null, and marked exact. A
name in brackets says what a value depends on: `fd[scenes-clip]`, `clip_image[FOLDER]`, `masked_lpips[squeeze]`.
"""
TOLD = f"""
## Weights

Nothing is downloaded. Files and folders are looked for in `--weights-dir`, then `${VARIABLE}`, torch hub's cache, and
for folders the Hugging Face cache, under the name given here (or `NAME.pth`, `NAME.safetensors`). `scenes-clip` is
bundled. The linear heads of LPIPS come with torchmetrics. A file that carries its usual name is refused when its
SHA-256 does not begin as that name says. `fid` needs `pip install 'unsample[fid]'`, `dreamsim` its own package; both
need a torchvision that works.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for kind, what in KINDS.items():
        rows = [facts for facts in METRICS.values() if facts.kind == kind]
        parts.append(f"\n## {kind.capitalize()}: {what}\n\n" + _table(rows))
    parts.append(TOLD + "\n" + _weights())
    return "".join(parts)


def _table(rows: list[MetricFacts]) -> str:
    lines = ["| name | what | range | better | convention | reference |", "|---|---|---|---|---|---|"]
    for facts in rows:
        unit = f" {facts.unit}" if facts.unit else ""
        cells = (f"`{facts.name}`", facts.title, facts.range + unit, facts.better, facts.convention, facts.reference)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _weights() -> str:
    lines = ["| name | file or folder | MB | SHA-256 begins | licence | from |", "|---|---|---|---|---|---|"]
    for name, w in WEIGHTS.items():
        digest = f"`{w.sha256}`" if w.sha256 else "-"
        lines.append(f"| {name} | `{w.file}` | {w.megabytes:g} | {digest} | {w.licence} | {w.url} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
