"""Figures alike: sizes, colours that the colour-blind tell apart, names of models and methods that fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unsample.models.minis import PREFIX

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")  # Okabe and Ito
WITHOUT = "matplotlib is not installed: pip install 'unsample[studies]' draws the figure"


def panels(
    count: int, *, columns: int = 4, width: float = 3.0, height: float = 2.4, **given: Any
) -> tuple[Figure, list[Any]]:
    """A figure of `count` axes in rows of `columns`, without pyplot's global state; `given` goes to `subplots`."""
    from matplotlib.figure import Figure

    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    if not count:
        return figure, []
    axes = figure.subplots(rows, columns, squeeze=False, **given)
    every = [axis for row in axes for axis in row]
    for axis in every[count:]:
        axis.set_visible(False)
    for axis in every[:count]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure, every[:count]


def short(model: str) -> str:
    """A model's name for a title: `sd trailing`, `ink linear eps 0`."""
    name = model.removeprefix(PREFIX).removeprefix("scenes-")
    return (
        name.replace("[timestep_spacing=", " ")
        .replace(",set_alpha_to_one=true]", "")
        .replace("]", "")
        .replace("v_prediction", "v")
        .replace("epsilon", "eps")
        .replace("-", " ")
    )


def colour(index: int) -> str:
    """One of COLOURS."""
    return COLOURS[index % len(COLOURS)]


def models_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The models of rows, in order."""
    return list(dict.fromkeys(str(row["model"]) for row in rows))


def logarithmic(axis: Any) -> None:
    """A logarithmic x axis with few, short labels at 1, 2 and 5, whatever its range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    low, high = axis.get_xlim()
    decades = high / low if low > 0 else 1.0
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 50 else (1.0,), numticks=6))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="x", labelsize=7)
