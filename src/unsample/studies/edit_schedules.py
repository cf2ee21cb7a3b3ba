"""Figure 5 of the report on editing by inversion: guidance that falls over the steps, with and without null-text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from unsample.studies.base import EDITING, SD, Asked, Cells, Row, Study
from unsample.studies.edited import WITH_RECONSTRUCTION as DRAWN
from unsample.studies.edited import looked_at, mean_of, plan_with_reconstruction, row_with_reconstruction, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PEAK, HIGH = 7.5, 14.0  # falling from HIGH to 1 has the mean of a constant PEAK
HALF = (PEAK + 1) / 2  # and a constant HALF that of falling from PEAK to 1
METHODS = ("ddim", "null_text")


class Course(NamedTuple):
    """How guidance runs: by a name of `guidance_schedule`, up to `peak`."""

    schedule: str
    peak: float

    @property
    def mean(self) -> float:
        """Over the steps: linear, cosine and increasing are symmetric about half way."""
        return self.peak if self.schedule == "constant" else (self.peak + 1) / 2


COURSES = (
    Course("constant", PEAK),
    Course("linear", PEAK),
    Course("cosine", PEAK),
    Course("increasing", PEAK),
    Course("constant", HALF),
    Course("linear", HIGH),
    Course("cosine", HIGH),
    Course("increasing", HIGH),
)
FITTED = COURSES[:5]  # null-text is fitted under each anew, and dear


def plans(asked: Asked) -> list[dict[str, Any]]:
    """A plan a course: it is one for a whole plan."""
    courses, fitted = (FITTED, FITTED[:2]) if asked.quick else (COURSES, FITTED)
    return [
        plan_with_reconstruction(
            asked,
            "edit_schedules",
            methods=list(METHODS) if course in fitted else ["ddim"],
            guidance=[course.peak],
            guidance_schedule=course.schedule,
        )
        for course in courses
    ]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, method and course: its reconstruction and its edit."""
    for cell in cells:
        if cell["method"] in METHODS:
            yield _row(cell, COURSES[cell["plan"]])


def _row(cell: Mapping[str, Any], course: Course) -> Row:
    about = {"schedule": course.schedule, "peak": course.peak, "mean": course.mean}
    return row_with_reconstruction(cell, about)


def figure(rows: Sequence[Row]) -> Figure:
    """What is measured under each course, without and with null-text."""
    from unsample.studies.plotting import colour, models_of, panels

    models = models_of(rows)
    figure, axes = panels(len(DRAWN) * len(models), columns=len(DRAWN), width=2.7, height=3.6, sharey=True)
    places = list(range(len(COURSES)))[::-1]
    shown = [(model, column) for model in models for column in DRAWN]
    for axis, (model, column) in zip(axes, shown, strict=True):
        of = {"model": model}
        for k, method in enumerate(METHODS):
            found = [mean_of(rows, column, method=method, schedule=c.schedule, peak=c.peak, **of) for c in COURSES]
            means, widths = zip(*found, strict=True)
            axis.errorbar(
                means, [p - 0.2 * k for p in places], xerr=widths, fmt="os"[k], ms=4, color=colour(k), label=method
            )
        axis.set_title(titled(DRAWN[column], model, models), fontsize=8)
    axes[0].set_yticks(places, [f"{c.schedule} {c.peak:g}, mean {c.mean:g}" for c in COURSES])
    axes[0].legend(fontsize=7)
    return figure


STUDY = Study(
    name="edit_schedules",
    question="Does guidance that falls over the steps reconstruct better, and is that its course or its mean?",
    paper=EDITING,
    shows="Figure 5",
    models=(SD,),
    num_samples=8,
    steps=20,
    needs=("prompt",),
    plans=plans,
    rows=rows,
    figure=figure,
    probe=looked_at,
    minutes=3.2,
    published="unsample study edit_schedules --model CompVis/stable-diffusion-v1-4 --num-samples 200 --steps 50",
    about=(
        "A falling schedule also guides less in sum. So each is held against a constant scale of the same mean, and "
        "against its own mirror, which rises from 1: they differ in their course alone.",
        "linear, cosine and increasing run between 1 and the peak; their means over the steps are (peak + 1) / 2.",
        "The report says neither whether its figure is with null-text, nor where the scale ends: both are run, to 1.",
        "null_text is fitted under each course anew; it is not run up to 14.",
    ),
)
