"""The arguments of a denoiser as rows of pictures and all the rest, found by comparing recorded calls.

A leaf is an argument, or what a dictionary or list among them holds, by its path ("added_cond_kwargs.time_ids"). Where
twice the pictures make it twice as long is its picture axis. A leaf that changes with the prompt is a row of the
condition; any other is part of the template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible

if TYPE_CHECKING:
    from torch import Tensor

LIST = "list"  # the picture axis of a list with one entry a picture


@dataclass(frozen=True)
class Pass:
    """One of the network's answers in a step: which call, and which of the equal parts of its batch."""

    call: int
    part: int
    parts: int


@dataclass(frozen=True)
class Slot:
    """Where a leaf has its pictures: an axis, a list, or nowhere (None)."""

    axis: int | str | None
    like: Any = None  # the leaf of one picture, of the type that the network takes

    def row(self, leaf: Any, of: Pass) -> Any:
        """The leaf of one picture in one pass."""
        if self.axis is None:
            return leaf
        size = len(leaf) if self.axis == LIST else leaf.shape[self.axis]
        if size % of.parts:
            return leaf
        each = size // of.parts
        if self.axis == LIST:
            return leaf[of.part * each : (of.part + 1) * each]
        return leaf.narrow(self.axis, of.part * each, each)

    def tensor(self, row: Any) -> Tensor:
        """As a row of a condition: pictures first."""
        import torch

        if self.axis == LIST:
            return torch.stack([torch.as_tensor(v) for v in row])
        if not isinstance(self.axis, int):
            return torch.as_tensor(row)[None]
        return row.movedim(self.axis, 0)  # type: ignore[no-any-return]

    def filled(self, rows: Tensor) -> Any:
        """What the network takes for rows (B, ...) of a condition."""
        if self.axis is None:
            return self._typed(rows[0], self.like)
        if self.axis == LIST:
            return [self._typed(row, self.like[0]) for row in rows]
        assert isinstance(self.axis, int)
        return self._typed(rows.movedim(0, self.axis), self.like)

    def repeated(self, leaf: Any, count: int) -> Any:
        """The template's leaf for `count` pictures."""
        if self.axis is None:
            return leaf
        if self.axis == LIST:
            return list(leaf) * count if len(leaf) == 1 else leaf
        return leaf.repeat(*(count if d == self.axis and leaf.shape[d] == 1 else 1 for d in range(leaf.ndim)))

    @staticmethod
    def _typed(value: Tensor, like: Any) -> Any:
        import torch

        if isinstance(like, torch.Tensor):
            return value.to(like.dtype)
        return type(like)(value.item()) if value.ndim == 0 else value.tolist()


@dataclass(frozen=True)
class Template:
    """Everything that the denoiser is given beside sample and time, for one picture."""

    slots: Mapping[str, Slot]
    rows: frozenset[str]  # the paths that are rows of the condition
    rest: Mapping[str, Any]  # the other leaves, of one picture
    shape: Any  # the arguments with paths for leaves
    varying: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # leaves that change from step to step

    def filled(self, rows: Mapping[str, Tensor], count: int, step: int | None) -> dict[str, Any]:
        """The arguments for `count` pictures.

        Args:
            rows: of the condition, by path, (count, ...) each.
            count: of the pictures.
            step: of the recorded ones; None between them.
        """
        if self.varying and step is None:
            raise Incompatible(
                f"the network is told {', '.join(self.varying)} too, and what that is between its pipeline's steps is "
                "not known; use a method that asks at the timesteps of its grid only"
            )

        def leaf(path: str) -> Any:
            if path in self.rows:
                return self.slots[path].filled(rows[path])
            value = self.varying[path][step] if step is not None and path in self.varying else self.rest[path]
            return self.slots[path].repeated(value, count)

        return {name: mapped(value, leaf) for name, value in self.shape.items()}


@dataclass(frozen=True)
class Leaf:
    """Stands for a leaf in `Template.shape`."""

    path: str


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its path; a list of tensors or numbers is one."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from leaves(value, f"{path}.{name}" if path else str(name))
    else:
        yield path, tree


def shape_of(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The tree with a `Leaf` in place of each."""
    return {
        name: shape_of(value, f"{path}{name}.") if isinstance(value, Mapping) else Leaf(f"{path}{name}")
        for name, value in tree.items()
    }


def mapped(tree: Any, of: Callable[[str], Any]) -> Any:
    """A tree of leaves with what stands for each."""
    if isinstance(tree, Leaf):
        return of(tree.path)
    return {name: mapped(value, of) for name, value in tree.items()}


def slots_of(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Slot]:
    """The picture axis of each leaf, from the same call for one picture and for two."""
    doubled = dict(leaves(two))
    return {path: Slot(_axis(path, leaf, doubled.get(path))) for path, leaf in leaves(one)}


def _axis(path: str, one: Any, two: Any) -> int | str | None:
    import torch

    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor) and one.ndim == two.ndim:
        return next((d for d in range(one.ndim) if one.shape[d] and two.shape[d] == 2 * one.shape[d]), None)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple) and one and len(two) == 2 * len(one):
        return LIST
    return None


def same(a: Any, b: Any) -> bool:
    """Whether two leaves are equal."""
    import torch

    if a is b:
        return True
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(u, v) for u, v in zip(a, b, strict=True))
    return bool(type(a) is type(b) and not isinstance(a, torch.Tensor) and a == b)
