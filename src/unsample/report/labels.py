"""Where the labels of a plot stand: beside their points, and never on one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LETTER, LINE = 7.2, 15.0  # a letter's width and a line's height at 13 px, on the generous side
LONGEST = 34  # letters of a label
GAP = 5.0


@dataclass(frozen=True)
class Box:
    """A rectangle on the picture."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.height

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return self.left + self.width / 2, self.top + self.height / 2

    def meets(self, other: Box) -> bool:
        """Whether the two overlap."""
        apart = self.left >= other.right or other.left >= self.right
        return not (apart or self.top >= other.bottom or other.top >= self.bottom)

    def holds(self, other: Box) -> bool:
        """Whether the other lies inside."""
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom


@dataclass(frozen=True)
class Label:
    """A text in its place."""

    text: str
    box: Box
    anchor: str  # start | middle | end
    leader: bool  # far from its point, so that a line has to lead to it

    @property
    def x(self) -> float:
        """Where its anchor stands."""
        return {"start": self.box.left, "middle": self.box.middle[0], "end": self.box.right}[self.anchor]


def placed(text: str, mark: Box, taken: Sequence[Box], frame: Box) -> Label:
    """A place for the label of a mark where nothing stands yet: right, left, above, below, then further off."""
    width = len(text) * LETTER
    inside = [label for label in _places(text, width, mark) if frame.holds(label.box)]
    free = (label for label in inside if not any(label.box.meets(box) for box in taken))
    return next(free, next(iter(inside), next(iter(_places(text, width, mark)))))


def _places(text: str, width: float, mark: Box) -> list[Label]:
    right, left = mark.right + GAP, mark.left - GAP - width
    (x, y), half = mark.middle, LINE / 2
    near = [(right, y - half, "start"), (left, y - half, "end")]
    near += [(x - width / 2, row, "middle") for row in (mark.top - LINE - 1, mark.bottom + 1)]
    far = []
    for k in range(1, 30):
        for row in (y - half - k * LINE * 0.8, y - half + k * LINE * 0.8):
            far += [(right + 6, row, "start"), (left - 6, row, "end")]
    places = [(*place, False) for place in near] + [(*place, abs(place[1] + half - y) > LINE) for place in far]
    return [Label(text, Box(at, top, width, LINE), anchor, leader) for at, top, anchor, leader in places]


def stacked(names: Sequence[str], heights: Sequence[float], right: float, frame: Box) -> list[Box]:
    """Places for the names of horizontal lines at their right end: on the line, or under it, or further up or down."""
    found: list[Box] = []
    for name, height in zip(names, heights, strict=True):
        width = len(name) * LETTER
        tops = [height - LINE, height + 2, *(height + sign * LINE * k for k in range(2, 12) for sign in (-1, 1))]
        places = [Box(right - width, top, width, LINE) for top in tops]
        free = [p for p in places if frame.holds(p) and not any(p.meets(o) for o in found)]
        found.append((free or places)[0])
    return found
