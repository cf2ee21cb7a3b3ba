"""How near an edit comes to the true edit, where the truth is known (`scenes`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput
from unsample.metrics import clip, recovery
from unsample.metrics.remember import Remembered
from unsample.metrics.subject import Found, Settings, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.datasets.scenes import Scene
    from unsample.metrics.clip import Clip


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


def of_gain(subject: Subject, settings: Settings, part: str = "total") -> list[float | str]:
    """`edit_gain` or one of its parts, picture by picture, so that one without an edit does not stop the others."""
    edit, truth, source = subject.given("images", "truth", "reference")
    if not edit.shape == truth.shape == source.shape:
        edit_gain(edit, truth, source)  # refuses
    found: list[float | str] = []
    for e, t, s in zip(edit, truth, source, strict=True):
        same = bool((t == s).all())
        found.append(NOTHING if same else float(getattr(edit_gain(e[None], t[None], s[None]), part)))
    return found


def of_gain_lpips(subject: Subject, settings: Settings) -> Found:
    """`1 - LPIPS(edit, truth) / LPIPS(source, truth)`."""
    from unsample.metrics import lpips

    edit, truth, source = subject.given("images", "truth", "reference")
    net = settings.lpips_net
    left, had = (lpips.lpips(p, truth, net, settings).tolist() for p in (edit, source))
    values: list[float | str] = [1 - a / b if b > 0 else NOTHING for a, b in zip(left, had, strict=True)]
    return Found(values, lpips.details(net, settings))


def of_size(subject: Subject, settings: Settings) -> list[float]:
    """How much was to be edited: MSE(source, truth), the weight with which gains are pooled over pixels."""
    truth, source = subject.given("truth", "reference")
    if truth.shape != source.shape:
        edit_gain(source, truth, source)  # refuses
    return recovery.mse(source, truth).tolist()


def of_render_fit(subject: Subject, settings: Settings) -> list[float]:
    """1 where the judge that draws the scene again finds the attribute that the edit was to give."""
    return _same(_by_render(*_judged(subject)), _wanted(subject))


def of_clip(subject: Subject, settings: Settings) -> list[float]:
    """1 where CLIP does, by zero-shot choice."""
    return _same(_by_clip(*_judged(subject), clip.load(settings)), _wanted(subject))


def of_agreement(subject: Subject, settings: Settings) -> list[float]:
    """1 where the two judges give the same answer, right or wrong."""
    return _same(_by_render(*_judged(subject)), _by_clip(*_judged(subject), clip.load(settings)))


def _judged(subject: Subject) -> tuple[Tensor, list[Scene], list[str]]:
    images, targets, changed = subject.given("images", "targets", "changed")
    return images, list(targets), list(changed)


def _wanted(subject: Subject) -> list[str]:
    """The values that the edit was to give."""
    _, targets, changed = _judged(subject)
    return [getattr(target, name) for target, name in zip(targets, changed, strict=True)]


def _same(answers: Sequence[str], others: Sequence[str]) -> list[float]:
    return [float(a == b) for a, b in zip(answers, others, strict=True)]


def _an_attribute_at_a_time(
    images: Tensor, targets: Sequence[Scene], changed: Sequence[str], judge: Callable[[Tensor, list[Scene], str], Any]
) -> list[str]:
    """Ask the judge for every attribute once, of the pictures in which it changes."""
    found = [""] * len(changed)
    for name in dict.fromkeys(changed):
        rows = [k for k, other in enumerate(changed) if other == name]
        for k, answer in zip(rows, judge(images[rows], [targets[k] for k in rows], name), strict=True):
            found[k] = answer
    return found


@Remembered
def _by_render(images: Tensor, targets: Sequence[Scene], changed: Sequence[str]) -> list[str]:
    """What the judge that draws the scenes again sees in each picture."""
    from unsample.metrics.judges import fit_attribute

    return _an_attribute_at_a_time(images, targets, changed, fit_attribute)


@Remembered
def _by_clip(images: Tensor, targets: Sequence[Scene], changed: Sequence[str], clip: Clip) -> list[str]:
    """What CLIP sees in each picture."""
    from unsample.metrics.judges import clip_attribute

    return _an_attribute_at_a_time(images, targets, changed, partial(clip_attribute, (clip.model, clip.tokenizer)))
