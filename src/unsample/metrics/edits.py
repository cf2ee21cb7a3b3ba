"""How near an edit comes to the true edit, where the truth is known (`scenes`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput
from unsample.metrics.subject import Found, Settings, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.datasets.scenes import Scene


@dataclass(frozen=True)
class EditGain:
    """`total = inside + outside`, one value a picture: (B,). 1 is the true edit, 0 did nothing, negative is worse."""

    total: Tensor
    inside: Tensor
    outside: Tensor


def edit_gain(edit: Tensor, truth: Tensor, source: Tensor) -> EditGain:
    """`1 - MSE(edit, truth) / MSE(source, truth)`, and its two parts.

    Inside are the pixels that the true edit changes. Outside the source *is* the truth, so a ratio of its own would
    divide by zero; its part is therefore `-SSE_outside(edit, truth) / SSE(source, truth)`: what the edit broke, in
    units of what it had to change.

    Args:
        edit, truth, source: (B, 3, H, W) in [0, 1].

    Raises:
        BadInput: shapes that differ, or a truth that equals its source.
    """
    if not edit.shape == truth.shape == source.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (edit, truth, source))
        raise BadInput(f"edit_gain needs one shape; got {shapes}")
    edit, truth, source = edit.double(), truth.double(), source.double()
    had = (source - truth).square().flatten(1).sum(1)
    if bool((had == 0).any()):
        raise BadInput("edit_gain: for some picture the truth equals the source; nothing was to be edited")
    changed = (source != truth).any(1, keepdim=True).double()
    error = (edit - truth).square()
    inside = 1 - (error * changed).flatten(1).sum(1) / had
    outside = -(error * (1 - changed)).flatten(1).sum(1) / had
    return EditGain(inside + outside, inside, outside)


# ---------------------------------------------------------------- as the table calls them

NOTHING = "the true edit equals the source: nothing was to be edited"


def _three(subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    assert subject.images is not None
    assert subject.truth is not None
    assert subject.reference is not None
    return subject.images, subject.truth, subject.reference


def _gains(subject: Subject, part: str) -> list[float | str]:
    """One part of the gain, picture by picture, so that one without an edit does not stop the others."""
    edit, truth, source = _three(subject)
    if not edit.shape == truth.shape == source.shape:
        edit_gain(edit, truth, source)  # refuses
    found: list[float | str] = []
    for e, t, s in zip(edit, truth, source, strict=True):
        same = bool((t == s).all())
        found.append(NOTHING if same else float(getattr(edit_gain(e[None], t[None], s[None]), part)))
    return found


def of_gain(subject: Subject, settings: Settings) -> list[float | str]:
    """The whole of `edit_gain`."""
    return _gains(subject, "total")


def of_gain_inside(subject: Subject, settings: Settings) -> list[float | str]:
    """Its part in the pixels that the true edit changes."""
    return _gains(subject, "inside")


def of_gain_outside(subject: Subject, settings: Settings) -> list[float | str]:
    """Its part in all the others."""
    return _gains(subject, "outside")


def of_gain_lpips(subject: Subject, settings: Settings) -> Found:
    """`1 - LPIPS(edit, truth) / LPIPS(source, truth)`."""
    from unsample.metrics import lpips

    edit, truth, source = _three(subject)
    net = settings.lpips_net
    left, had = (lpips.lpips(p, truth, net, settings).tolist() for p in (edit, source))
    values: list[float | str] = [1 - a / b if b > 0 else NOTHING for a, b in zip(left, had, strict=True)]
    return Found(values, lpips.details(net, settings))


def of_render_fit(subject: Subject, settings: Settings) -> list[float]:
    """1 where the judge that draws the scene again finds the attribute that the edit was to give."""
    from unsample.metrics.judges import fit_attribute

    return _found(subject, lambda rows, name: fit_attribute(_images(rows), _targets(rows), name))


def of_clip(subject: Subject, settings: Settings) -> list[float]:
    """1 where CLIP does, by zero-shot choice."""
    from unsample.metrics.judges import clip_attribute
    from unsample.metrics.weights import find_folder

    clip = _judge(str(find_folder(settings.clip, settings.weights_dir)))
    return _found(subject, lambda rows, name: clip_attribute(clip, _images(rows), _targets(rows), name))


def _found(subject: Subject, judge: Callable[[Subject, str], Sequence[str]]) -> list[float]:
    """Ask the judge, an attribute at a time."""
    assert subject.changed is not None
    found = [0.0] * len(subject.changed)
    for name in dict.fromkeys(subject.changed):
        rows = [k for k, changed in enumerate(subject.changed) if changed == name]
        targets = [_targets(subject)[k] for k in rows]
        answers = judge(replace(subject, images=_images(subject)[rows], targets=targets), name)
        for k, answer, target in zip(rows, answers, targets, strict=True):
            found[k] = float(answer == getattr(target, name))
    return found


def _images(subject: Subject) -> Tensor:
    assert subject.images is not None
    return subject.images


def _targets(subject: Subject) -> Sequence[Scene]:
    assert subject.targets is not None
    return subject.targets


@lru_cache(maxsize=1)
def _judge(folder: str) -> tuple[Any, Any]:
    from unsample.metrics.judges import load_clip

    return load_clip(folder)
