"""One surface of the scenes world explained: which colour, texture, contrast and phase come closest to a region.

No network: the world is drawn again, and cost is that of a Gaussian error of unknown width, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from unsample.datasets.scenes import COLOURS, _pattern
from unsample.errors import BadInput

FLOOR = 2e-4  # squared error per value below which two explanations count as equally good (0.014 of the range)
NAMES = tuple(COLOURS)
RGB = torch.tensor(list(COLOURS.values()))  # (12, 3)
DARK = (RGB @ torch.tensor([0.299, 0.587, 0.114]) < 0.35).float()
WAY = DARK[:, None] - RGB  # (12, 3): where texture carries each colour, to white or to black
REGULAR = ("striped", "checkered", "dotted")


@lru_cache
def pixel_axes(size: int) -> tuple[Tensor, Tensor]:
    """x to the right and y upwards, both (H, W) in [-1, 1]."""
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    return axis[None, :].expand(size, size), -axis[:, None].expand(size, size)


def resized(images: Tensor, size: int | None) -> Tensor:
    """Checked pictures at `size`, float32 on the CPU."""
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or images.shape[2] < 16:
        raise BadInput(f"judges take square pictures (B, 3, H, H) of at least 16 pixels, got {tuple(images.shape)}")
    images = images.detach().float().cpu()
    if not bool(torch.isfinite(images).all()):
        raise BadInput("judges take finite pictures; these hold nan or inf")
    if size is None or size == images.shape[-1]:
        return images
    if size < 16:
        raise BadInput(f"judges need at least 16 pixels, got size {size}")
    return interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def nats(squared: Tensor) -> Tensor:
    """Cost of a pixel from its squared error summed over the three channels; a Gaussian's, with its width unknown."""
    return 1.5 * (squared / 3 + FLOOR).log()


def freedom(texture: str, pixels: float) -> float:
    """Penalty in nats for what a texture leaves free; rough is a free, smooth pattern: set on `tune` seeds."""
    return {"plain": 0.0, "rough": 10 + 0.3 * pixels}.get(texture, 10.0)


def blurred(fields: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (..., H, W)."""
    reach = math.ceil(2.5 * sigma)
    kernel = (-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2)).exp()
    kernel = kernel / kernel.sum()
    flat = fields.reshape(-1, 1, *fields.shape[-2:])
    flat = conv2d(pad(flat, (reach, reach, 0, 0), mode="replicate"), kernel[None, None, None, :])
    return conv2d(pad(flat, (0, 0, reach, reach), mode="replicate"), kernel[None, None, :, None]).reshape(fields.shape)


def light_of(slope: Tensor, size: int) -> Tensor:
    """The light (P,) of a slope."""
    x, y = pixel_axes(size)
    return (1 + slope[0] * x + slope[1] * y).flatten()


@dataclass(frozen=True)
class Surface:
    """An explanation of one region. `unlit` (3, P) is it everywhere, before the light."""

    colour: int
    texture: str
    contrast: float
    phase: tuple[float, float, float]
    tint: Tensor  # (3,)
    pattern: Tensor | None  # (P,) in [0, 1], of a rough surface
    unlit: Tensor
    cost: float  # nats


@lru_cache
def _waves(size: int, frequency: float) -> tuple[Tensor, Tensor]:
    """30 angles in a quarter turn, and at each (30, 5, P): 1, cos u, sin u, cos v, sin v with v across u."""
    x, y = (axis.flatten() for axis in pixel_axes(size))
    angles = torch.arange(30) * (math.pi / 60)
    cos, sin = angles.cos()[:, None] * math.tau * frequency, angles.sin()[:, None] * math.tau * frequency
    u, v = x * cos + y * sin, y * cos - x * sin
    return angles, torch.stack([torch.ones_like(u), u.cos(), u.sin(), v.cos(), v.sin()], dim=1)


def _best_waves(angles: Tensor, basis: Tensor, weight: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted least squares at each angle; the two best angles (C, 2) and their coefficients (C, 2, K)."""
    weighted = basis * weight
    gram = weighted @ basis.transpose(1, 2)  # (T, K, K)
    gram = gram + 1e-3 * weight.sum() * torch.diag(torch.tensor([1e-3] + [1.0] * (basis.shape[1] - 1)))
    projected = weighted @ signal.T  # (T, K, C)
    solved = torch.linalg.solve(gram, projected)
    best = (solved * projected).sum(1).topk(2, dim=0).indices  # (2, C)
    kept = solved.transpose(1, 2).gather(0, best[..., None].expand(-1, -1, basis.shape[1]))  # (2, C, K)
    return angles[best].T, kept.transpose(0, 1)


def _turns(y: Tensor, x: Tensor) -> Tensor:
    """The angle of (x, y) in whole turns."""
    return torch.atan2(y, x) / math.tau


def _phases(weight: Tensor, signal: Tensor, size: int) -> dict[str, Tensor]:
    """Angle and phases (C, 2, 3) of each regular texture, from its fundamental waves; signal (C, P)."""
    angles, basis = _waves(size, 3.5)
    stripes = torch.cat([basis[:, :3], basis[:, [0, 3, 4]]])
    turn, k = _best_waves(torch.cat([angles, angles + math.pi / 2]), stripes, weight, signal)
    striped = torch.stack([turn, _turns(k[..., 1], k[..., 2]), torch.zeros_like(turn)], -1)
    turn, k = _best_waves(angles, basis, weight, signal)
    dotted = torch.stack([turn, -_turns(k[..., 2], k[..., 1]), -_turns(k[..., 4], k[..., 3])], -1)
    # sin(pi u) sin(pi v) = (cos pi(u - v) - cos pi(u + v)) / 2: two waves across, an eighth of a turn aside
    turn, k = _best_waves(*_waves(size, 3.5 / math.sqrt(2)), weight, signal)
    less, more = -_turns(k[..., 2], k[..., 1]), 0.5 - _turns(k[..., 4], k[..., 3])
    checkered = torch.stack([turn + math.pi / 4, more + less, more - less], -1)
    return {"striped": striped, "checkered": checkered, "dotted": dotted}


def patterns_at(texture: str, phases: Tensor, size: int) -> Tensor:
    """The regular pattern at each of the phases (N, 3): (N, P)."""
    x, y = pixel_axes(size)
    angle, p, q = phases.T[:, :, None, None]
    return _pattern(texture, x, y, angle, p, q).flatten(1)


def _coloured(unlit: Tensor, weight: Tensor, patterns: Tensor, colour: int) -> tuple[Tensor, Tensor, Tensor]:
    """Best contrast (N,), tint (N, 3) and squared error (N,) of one colour with each pattern (N, P)."""
    base, way, total = RGB[colour], WAY[colour], weight.sum()
    p, pp, s, ps = patterns @ weight, patterns**2 @ weight, unlit @ weight, patterns @ (unlit * weight).T
    contrast, tint = torch.full((len(patterns),), 0.3), torch.zeros(len(patterns), 3)
    for _ in range(4):  # alternate: the two are close to independent
        left = ps - (base + tint) * p[:, None]
        contrast = ((left @ way) / (way @ way * pp).clamp(min=1e-6)).clamp(0.13, 0.47)
        tint = ((s - total * base - way * (contrast * p)[:, None]) / total).clamp(-0.035, 0.035)
    drawn = (base + tint)[:, :, None] + way[:, None] * (contrast[:, None] * patterns)[:, None]  # (N, 3, P)
    return contrast, tint, ((unlit - drawn) ** 2).sum(1) @ weight


def spread_out(pattern: Tensor, weight: Tensor, size: int) -> Tensor:
    """A pattern (N, P) smoothed within the weight, and continued outside it from further away."""
    fields, mask = (pattern * weight).view(-1, size, size), weight.view(1, size, size)
    near, far = 0.8 * size / 32, 3 * size / 32
    wide = (blurred(fields, far) + 5e-4) / (blurred(mask, far) + 1e-3)
    return ((blurred(fields, near) + 0.02 * wide) / (blurred(mask, near) + 0.02)).flatten(1).clamp(0, 1)


def stray(mean: Tensor, whole: bool) -> Tensor:
    """Penalty in nats for a rough pattern's mean: 1/2 over the whole picture by construction, any in a small part.

    Without it black, roughened to gray, would explain any gray.
    """
    return 10 * ((mean - 0.5) / (0.04 if whole else 0.25)) ** 2


def _rough(unlit: Tensor, weight: Tensor, colour: int, size: int) -> Surface:
    """The rough surface of one colour whose free pattern and contrast explain the region best."""
    base, way, total = RGB[colour][:, None], WAY[colour][:, None], weight.sum()
    contrasts = torch.arange(0.15, 0.46, 0.05)
    along = ((unlit - base) * way).sum(0) / (way * way).sum()
    pattern = spread_out((along / contrasts[:, None]).clamp(0, 1), weight, size)  # (7, P)
    drawn = base + way * (contrasts[:, None] * pattern)[:, None]
    tint = ((unlit - drawn) @ weight / total).clamp(-0.035, 0.035)
    error = ((unlit - drawn - tint[:, :, None]) ** 2).sum(1) @ weight
    mean = pattern @ weight / total
    cost = total * nats(error / total) + stray(mean, float(total) > 0.5 * size * size)
    k = int(cost.argmin())
    surface = drawn[k] + tint[k][:, None]
    return Surface(colour, "rough", float(contrasts[k]), (0, 0, 0), tint[k], pattern[k], surface, float(cost[k]))


def explanations(unlit: Tensor, weight: Tensor, colours: Sequence[int], size: int) -> list[Surface]:
    """Every colour with every texture as an explanation of a region, the likeliest first.

    Args:
        unlit: (3, P), the picture without its light.
        weight: (P,) in [0, 1], the region.
        colours: the colours to try.
    """
    total, found = weight.sum(), []
    signal = WAY[list(colours)] @ unlit
    phases = _phases(weight, signal - (signal @ weight / total)[:, None], size)
    for k, colour in enumerate(colours):
        tried = {"plain": torch.zeros(1, 3), **{t: phases[t][k] for t in REGULAR}}
        patterns = [
            patterns_at(t, p, size) if t != "plain" else torch.zeros(1, unlit.shape[1]) for t, p in tried.items()
        ]
        stacked = torch.cat(patterns)
        contrast, tint, error = _coloured(unlit, weight, stacked, colour)
        owners = [(t, p) for t, ps in tried.items() for p in ps]
        for texture in tried:
            n = min((n for n, (t, _) in enumerate(owners) if t == texture), key=lambda n: float(error[n]))
            drawn = (RGB[colour] + tint[n])[:, None] + WAY[colour][:, None] * contrast[n] * stacked[n]
            a, p, q = owners[n][1].tolist()
            cost = float(total * nats(error[n] / total))
            found.append(Surface(colour, texture, float(contrast[n]), (a, p, q), tint[n], None, drawn, cost))
        found.append(_rough(unlit, weight, colour, size))
    found = [replace(f, cost=f.cost + freedom(f.texture, float(total))) for f in found]
    return sorted(found, key=lambda f: f.cost)
