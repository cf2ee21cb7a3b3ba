"""What the studies of EasyInv share: the methods as the paper ran them, their names, and a figure of means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unsample.studies.base import Asked, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EASYINV = "easyinv"  # eta 0.5 and 0.05 T < i < 0.25 T, as the paper ran Stable Diffusion 1.4
SDXL = "easyinv[eta=0.8,start=0.85,stop=0.95]"  # and SDXL
PAN = "aidi_e[num_iters=7]"  # "Fixed-Point Iteration (Pan et al.)": seven predictions a step in the authors' code
NAMES = {EASYINV: "easyinv", SDXL: "easyinv_sdxl", PAN: "fixed_point"}  # in rows; others have their own
ABOUT_FIXED_POINT = (
    "The paper's `Fixed-Point Iteration` is Pan et al.'s averaged one (`aidi_e`) with seven predictions a step, at "
    "0.4 of the others' steps (20 of 50), as the authors' code and the paper's text have it."
)


def named(label: str) -> str:
    """A method's name in rows."""
    return NAMES.get(label, label)


def fewer(asked: Asked, part: float) -> int:
    """A part of the steps that are asked, at least one."""
    return max(1, round(part * asked.steps))


def at(label: str, *steps: int) -> str:
    """A method of a plan with steps of its own."""
    name, bracket, settings = label.partition("[")
    own = f"steps=[{','.join(map(str, dict.fromkeys(steps)))}]"
    return f"{name}[{settings[:-1]},{own}]" if bracket else f"{name}[{own}]"


def means(
    rows: Sequence[Row],
    value: str,
    by: str,
    label: str,
    *,
    series: str | None = None,
    across: str = "model",
    log: bool = False,
) -> Figure:
    """Mean and 95 % interval of `value` for each `by`, a panel for each `across`, a colour for each `series`."""
    from unsample.studies.plotting import colour, panels, short

    places = list(dict.fromkeys(str(row[across]) for row in rows))
    groups = list(dict.fromkeys(str(row[by]) for row in rows))
    kinds = list(dict.fromkeys(str(row[series]) for row in rows)) if series else [""]
    figure, axes = panels(
        len(places), columns=2 if len(places) == 4 else 3, width=3.6, height=0.9 + 0.32 * len(groups), sharey=True
    )
    for axis, place in zip(axes, places, strict=True):
        here = [row for row in rows if str(row[across]) == place and row.get(value) is not None]
        for k, kind in enumerate(kinds):
            for n, group in enumerate(groups):
                found = [r[value] for r in here if str(r[by]) == group and (not series or str(r[series]) == kind)]
                if not found:
                    continue
                low, middle, high = interval(found)
                y = n + 0.2 * (k - (len(kinds) - 1) / 2)
                axis.plot([low, high], [y, y], color=colour(k), linewidth=1.5)
                axis.plot([middle], [y], "o", color=colour(k), markersize=4.5, label=kind)
        axis.set_yticks(range(len(groups)), groups)
        axis.set_ylim(len(groups) - 0.5, -0.5)
        axis.set_title(short(place), fontsize=9)
        axis.set_xlabel(label, fontsize=8)
        axis.grid(axis="x", alpha=0.3)
        if log:
            axis.set_xscale("log")
    if series:
        handles, names = axes[0].get_legend_handles_labels()
        once = dict(zip(names, handles, strict=True))
        figure.legend(once.values(), once.keys(), loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Low end, mean and high end of a 95 % interval by Student's t; of one value that value."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return mean, mean, mean
    try:
        from scipy import stats

        wide = float(stats.t.ppf(0.975, n - 1))
    except ImportError:
        wide = 1.96
    half = wide * math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
    return mean - half, mean, mean + half
