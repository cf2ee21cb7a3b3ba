"""How a pipeline joins the answers of its passes, read off a record whose answers are noise.

Linear guidance is `free + w (bound - free)`. Five rules that change it are known in closed form, each verified on
every recorded step, per picture: with `joined` for the linear sum,

    whole    joined min(1, |bound| / |joined|), norms over the picture (Z-Image, cfg_normalization)
    last     joined |bound| / |joined|, norms over the last axis of the packed state (Qwen-Image, Lumina2)
    lower    the same, never longer than joined (LongCat-Image)
    rescale  joined (phi std(bound) / std(joined) + 1 - phi) (arXiv:2305.08891, Eq. 16: guidance_rescale)
    three    joined in the first three channels, bound in the others (Lumina)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CLOSE = 1e-4  # relative residual of a fit that holds
EXACT = 1e-5  # of a closed form


@dataclass(frozen=True)
class Rule:
    """What becomes of an unconditional and a conditional output; `sign` is -1 where the pipeline negates them."""

    name: str = "linear"
    scale: float = 1.0  # the w that the recorded call had
    sign: float = 1.0
    phi: float = 0.0

    def __call__(self, free: Tensor, bound: Tensor, w: float) -> Tensor:
        """Joined, (B, ...) as the pipeline packs them."""
        return FORMS[self.name](free + w * (bound - free), bound, self.phi)


def _whole(joined: Tensor, bound: Tensor, phi: float) -> Tensor:
    ratio = _norm(bound.flatten(1)) / _norm(joined.flatten(1))
    return joined * ratio.clamp(max=1).reshape(-1, *[1] * (joined.ndim - 1))


def _last(joined: Tensor, bound: Tensor, phi: float) -> Tensor:
    return joined * (_norm(bound) / _norm(joined))


def _lower(joined: Tensor, bound: Tensor, phi: float) -> Tensor:
    return joined * (_norm(bound) / (_norm(joined) + 1e-8)).clamp(0, 1)


def _rescale(joined: Tensor, bound: Tensor, phi: float) -> Tensor:
    axes = tuple(range(1, joined.ndim))
    ratio = bound.std(axes, keepdim=True) / joined.std(axes, keepdim=True)
    return phi * (joined * ratio) + (1 - phi) * joined


def _three(joined: Tensor, bound: Tensor, phi: float) -> Tensor:
    import torch

    return torch.cat([joined[:, :3], bound[:, 3:]], 1)


def _norm(x: Tensor) -> Tensor:
    return x.norm(dim=-1, keepdim=True)


FORMS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "linear": lambda joined, bound, phi: joined,
    "whole": _whole,
    "last": _last,
    "lower": _lower,
    "rescale": _rescale,
    "three": _three,
}


def rule_of(steps: Sequence[tuple[list[Tensor], Tensor, Tensor]], free: int | None, bound: int) -> Rule | None:
    """The rule of recorded steps; None where none that is known explains them.

    Args:
        steps: of each, the passes' outputs, what reached the scheduler, and the sample, all of one shape (1, ...).
        free: which pass is unconditional, None where there is one pass.
        bound: which is conditional.
    """
    fits = [_fit(*step) for step in steps]
    totals = [float(c[:-1].sum()) for c, _ in fits]
    sign = -1.0 if totals[0] < 0 else 1.0
    first = fits[0][0] * sign
    plain = all(
        residual < CLOSE and abs(total - sign) < CLOSE and abs(float(found[-1])) < CLOSE
        for (found, residual), total in zip(fits, totals, strict=True)
    )
    if plain and all(bool(((c * sign - first).abs() < 1e-3 * first.abs().max()).all()) for c, _ in fits):
        return Rule("linear", float(first[bound]), sign)
    if plain or free is None or len(steps[0][0]) != 2:
        return None  # its coefficients change from step to step, or there is nothing to renormalise
    return next((r for r in _candidates(steps, free, bound) if _holds(r, steps, free, bound)), None)


def _fit(outputs: list[Tensor], reached: Tensor, sample: Tensor) -> tuple[Tensor, float]:
    """Coefficients of the outputs and of the sample by least squares, and the relative residual."""
    import torch

    columns = torch.stack([t.double().flatten() for t in (*outputs, sample)])
    wanted = reached.double().flatten()
    found = torch.linalg.solve(columns @ columns.T, columns @ wanted)
    return found, float((found @ columns - wanted).norm() / wanted.norm())


def _candidates(steps: Sequence[tuple[list[Tensor], Tensor, Tensor]], free: int, bound: int) -> list[Rule]:
    """Every closed form, at the scales and signs that the first step allows."""
    outputs, reached, _ = steps[0]
    f, b, m = (t.double() for t in (outputs[free], outputs[bound], reached))
    found = []
    for sign in (1.0, -1.0):
        for name in FORMS:
            if name != "linear":
                found += [Rule(name, w, sign, phi) for w, phi in _scales(name, f, b, sign * m)]
    return found


def _scales(name: str, f: Tensor, b: Tensor, m: Tensor) -> list[tuple[float, float]]:
    """The (w, phi) under which a form may give m: its direction within the plane of f and b fixes w."""
    if name == "three":
        part = (b - f)[:, :3].flatten()
        return [(float(((m - f)[:, :3].flatten() @ part) / (part @ part)), 0.0)]
    if name in ("last", "lower"):  # each row has a length of its own; that of its direction is w
        f, b, m = (t.reshape(-1, t.shape[-1])[0] for t in (f, b, m))
    a, c = _plane(f.flatten(), b.flatten(), m.flatten())
    if abs(a + c) < 1e-9:
        return []
    w, length = c / (a + c), a + c
    if name != "rescale":
        return [(w, 0.0)]
    joined = f + w * (b - f)
    ratio = float(b.std() / joined.std())
    return [] if abs(ratio - 1) < 1e-9 else [(w, (length - 1) / (ratio - 1))]


def _plane(f: Tensor, b: Tensor, m: Tensor) -> tuple[float, float]:
    """m = a f + c b by least squares."""
    import torch

    a, c = torch.linalg.lstsq(torch.stack([f, b], 1), m[:, None]).solution[:, 0].tolist()
    return a, c


def _holds(rule: Rule, steps: Sequence[tuple[list[Tensor], Tensor, Tensor]], free: int, bound: int) -> bool:
    for outputs, reached, _ in steps:
        m = reached.double() * rule.sign
        if (rule(outputs[free].double(), outputs[bound].double(), rule.scale) - m).norm() > EXACT * m.norm():
            return False
    return True
