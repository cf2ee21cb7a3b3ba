"""Judges: which attributes a picture of the scenes world shows, by two unrelated means.

`fit_attribute` and `fit_scene` ("render_fit") use no network: they draw the world again and take what comes
closest. `clip_attribute` asks a CLIP model (zero-shot, arXiv:2103.00020, Sec. 3.1). The bundled CLIP shares its
text tower with the model it would judge, so neither answer is enough alone; `agreement` says how far they agree.

`fit_scene` goes from the sure to the doubtful: the background covers most of the picture, so it is fitted first,
robustly; then every shape, size and place is tried as a mask on what the background leaves unexplained; then the
object's surface; then Gauss-Newton steps on the whole renderer decide among the few explanations left. Longer than
400 lines, because these steps are of no use to anything else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, max_pool2d, normalize, pad

from unsample.datasets.scenes import (
    ATTRIBUTES,
    COLOURS,
    DISTANCES,
    PLACES,
    SEED_RANGES,
    SHAPES,
    SIZES,
    Scene,
    _pattern,
    draw_scene,
    render,
)
from unsample.errors import BadInput, WeightsMissing, unknown_name
from unsample.models.loading import without_bars

SEARCH = 32  # side at which fit_scene searches; the last polish is at the picture's own size
FLOOR = 2e-4  # squared error per value below which two explanations count as equally good (0.014 of the range)
NAMES = tuple(COLOURS)
RGB = torch.tensor(list(COLOURS.values()))  # (12, 3)
DARK = (RGB @ torch.tensor([0.299, 0.587, 0.114]) < 0.35).float()
WAY = DARK[:, None] - RGB  # (12, 3): where texture carries each colour, to white or to black
REGULAR = ("striped", "checkered", "dotted")


@dataclass(frozen=True)
class Fit:
    """What `fit_scene` found. A rough surface is drawn from the picture itself: its noise has 2^24 seeds."""

    scene: Scene  # the best scene; noise_seed is 0
    mse: float  # mean squared error of the redrawn picture, values in [0, 1]
    explained: float  # 1 - mse / variance: 1 for a perfect fit, near 0 for noise


@dataclass(frozen=True)
class Threshold:
    """What `explained_threshold` found: the score, and the shares of pictures that reach it."""

    value: float
    renders: float  # share of slightly blurred renders that pass
    chimeras: float  # share of pictures made of halves of two scenes that pass
    shuffled: float  # share of the same renders, pixels shuffled, that pass
    noise: float  # share of Gaussian noise pictures that pass
    count: int  # pictures of each kind


# ---------------------------------------------------------------- pixels and costs


@lru_cache
def _axes(size: int) -> tuple[Tensor, Tensor]:
    """x to the right and y upwards, both (H, W) in [-1, 1]."""
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    return axis[None, :].expand(size, size), -axis[:, None].expand(size, size)


def _resized(images: Tensor, size: int | None) -> Tensor:
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


def _nats(squared: Tensor) -> Tensor:
    """Cost of a pixel from its squared error summed over the three channels; a Gaussian's, with its width unknown."""
    return 1.5 * (squared / 3 + FLOOR).log()


def _freedom(texture: str, pixels: float) -> float:
    """Penalty in nats for what a texture leaves free; rough is a free, smooth pattern: set on `tune` seeds."""
    return {"plain": 0.0, "rough": 10 + 0.3 * pixels}.get(texture, 10.0)


def _blur(fields: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (..., H, W)."""
    reach = math.ceil(2.5 * sigma)
    kernel = (-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2)).exp()
    kernel = kernel / kernel.sum()
    flat = fields.reshape(-1, 1, *fields.shape[-2:])
    flat = conv2d(pad(flat, (reach, reach, 0, 0), mode="replicate"), kernel[None, None, None, :])
    return conv2d(pad(flat, (0, 0, reach, reach), mode="replicate"), kernel[None, None, :, None]).reshape(fields.shape)


# ---------------------------------------------------------------- one surface: colour, texture, contrast, phase


@dataclass(frozen=True)
class _Surface:
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
    x, y = (axis.flatten() for axis in _axes(size))
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


def _patterns(texture: str, phases: Tensor, size: int) -> Tensor:
    """The regular pattern at each of the phases (N, 3): (N, P)."""
    x, y = _axes(size)
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


def _spread(pattern: Tensor, weight: Tensor, size: int) -> Tensor:
    """A pattern (N, P) smoothed within the weight, and continued outside it from further away."""
    fields, mask = (pattern * weight).view(-1, size, size), weight.view(1, size, size)
    near, far = 0.8 * size / 32, 3 * size / 32
    wide = (_blur(fields, far) + 5e-4) / (_blur(mask, far) + 1e-3)
    return ((_blur(fields, near) + 0.02 * wide) / (_blur(mask, near) + 0.02)).flatten(1).clamp(0, 1)


def _stray(mean: Tensor, whole: bool) -> Tensor:
    """Penalty in nats for a rough pattern's mean: 1/2 over the whole picture by construction, any in a small part.

    Without it black, roughened to gray, would explain any gray.
    """
    return 10 * ((mean - 0.5) / (0.04 if whole else 0.25)) ** 2


def _rough(unlit: Tensor, weight: Tensor, colour: int, size: int) -> _Surface:
    """The rough surface of one colour whose free pattern and contrast explain the region best."""
    base, way, total = RGB[colour][:, None], WAY[colour][:, None], weight.sum()
    contrasts = torch.arange(0.15, 0.46, 0.05)
    along = ((unlit - base) * way).sum(0) / (way * way).sum()
    pattern = _spread((along / contrasts[:, None]).clamp(0, 1), weight, size)  # (7, P)
    drawn = base + way * (contrasts[:, None] * pattern)[:, None]
    tint = ((unlit - drawn) @ weight / total).clamp(-0.035, 0.035)
    error = ((unlit - drawn - tint[:, :, None]) ** 2).sum(1) @ weight
    mean = pattern @ weight / total
    cost = total * _nats(error / total) + _stray(mean, float(total) > 0.5 * size * size)
    k = int(cost.argmin())
    surface = drawn[k] + tint[k][:, None]
    return _Surface(colour, "rough", float(contrasts[k]), (0, 0, 0), tint[k], pattern[k], surface, float(cost[k]))


def _surfaces(unlit: Tensor, weight: Tensor, colours: Sequence[int], size: int) -> list[_Surface]:
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
        patterns = [_patterns(t, p, size) if t != "plain" else torch.zeros(1, unlit.shape[1]) for t, p in tried.items()]
        stacked = torch.cat(patterns)
        contrast, tint, error = _coloured(unlit, weight, stacked, colour)
        owners = [(t, p) for t, ps in tried.items() for p in ps]
        for texture in tried:
            n = min((n for n, (t, _) in enumerate(owners) if t == texture), key=lambda n: float(error[n]))
            drawn = (RGB[colour] + tint[n])[:, None] + WAY[colour][:, None] * contrast[n] * stacked[n]
            a, p, q = owners[n][1].tolist()
            cost = float(total * _nats(error[n] / total))
            found.append(_Surface(colour, texture, float(contrast[n]), (a, p, q), tint[n], None, drawn, cost))
        found.append(_rough(unlit, weight, colour, size))
    found = [replace(f, cost=f.cost + _freedom(f.texture, float(total))) for f in found]
    return sorted(found, key=lambda f: f.cost)


def _palette(unlit: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance (12, P) of each pixel to each colour, plain and anywhere on its way to white or black."""
    shade, light = torch.tensor([0, 0.11, 0.22, 0.33, 0.45]), torch.tensor([0.9, 1.0, 1.1])
    points = (RGB[:, None] + WAY[:, None] * shade[:, None])[:, :, None] * light[:, None]  # (12, 5, 3, 3)
    squared = torch.cdist(unlit.T, points.reshape(-1, 3)).square().view(-1, 12, 5, 3)
    return squared[:, :, 0].amin(-1).T, squared.amin((-1, -2)).T


# ---------------------------------------------------------------- the background, then the object


@dataclass(frozen=True)
class _Ground:
    """An explanation of the background: its surface, the light's slope (2,), the pixels that it explains (P,)."""

    surface: _Surface
    slope: Tensor
    weight: Tensor
    cost: float


def _light(slope: Tensor, size: int) -> Tensor:
    """The light (P,) of a slope."""
    x, y = _axes(size)
    return (1 + slope[0] * x + slope[1] * y).flatten()


def _slope(picture: Tensor, unlit: Tensor, weight: Tensor, size: int) -> Tensor:
    """The slope (2,) of the light, by least squares, at most as steep as the world's."""
    axes = torch.stack(_axes(size)).flatten(1)
    square, along = (unlit**2).sum(0) * weight, ((picture - unlit) * unlit).sum(0) * weight
    slope = torch.linalg.solve((axes * square) @ axes.T + 1e-4 * size * size * torch.eye(2), axes @ along)
    gentle: Tensor = slope * (0.13 / slope.norm().clamp(min=0.13))
    return gentle


def _grounds(picture: Tensor, size: int) -> list[_Ground]:
    """The likeliest one or two backgrounds of a picture (3, P), by re-weighted least squares."""
    found, squared = [], _palette(picture)[1]
    share = (squared < 0.01).float().mean(1)
    for colour in [c for c in share.topk(3).indices.tolist() if share[c] >= share.max() / 2]:
        weight = (squared[colour] < 0.012).float() + 1e-3
        level = (picture @ weight / weight.sum())[:, None].expand_as(picture)
        slope = _slope(picture, level, weight, size)
        for _ in range(3):
            light = _light(slope, size)
            surfaces = _surfaces(picture / light, weight, [colour], size)
            left = ((picture - surfaces[0].unlit * light) ** 2).sum(0)
            weight = 1 / (1 + (left / 0.01) ** 2)
            slope = _slope(picture, surfaces[0].unlit, weight, size)
        for surface in surfaces[:2]:
            left = ((picture - surface.unlit * _light(slope, size)) ** 2).sum(0)
            cost = float(_nats(left.clamp(max=0.01)).sum()) + _freedom(surface.texture, size * size)
            if surface.pattern is not None:
                cost += float(_stray(surface.pattern.mean(), True))
            found.append(_Ground(surface, slope, weight, cost))
    found.sort(key=lambda g: g.cost)
    return [g for g in found[:2] if g.cost < found[0].cost + 0.2 * size * size]


def _coverage(shape: str, poses: Tensor, size: int) -> Tensor:
    """Masks (N, H, W) of a shape at poses (N, 4): centre x, centre y, radius, turn."""
    x, y = _axes(size)
    left, up, radius, turn = poses.T[:, :, None, None]
    px, py = (x - left) / radius, (y - up) / radius
    distance = DISTANCES[shape](px * turn.cos() + py * turn.sin(), py * turn.cos() - px * turn.sin())
    covered: Tensor = (0.5 - distance * radius * size / 2).clamp(0, 1)
    return covered


@lru_cache
def _templates(size: int) -> tuple[Tensor, Tensor]:
    """Masks (120, J, P) and poses (120, J, 4): every shape, size and place, each a little moved, scaled and turned."""
    masks, poses = [], []
    moves, turns = (-0.055, 0.0, 0.055), (-0.13, 0.0, 0.13)
    for shape in SHAPES:
        for radius in SIZES.values():
            for left, up in PLACES.values():
                jitters = product(moves, moves, (0.965, 1.035), turns)
                pose = torch.tensor([(left + dx, up + dy, radius * s, t) for dx, dy, s, t in jitters])
                masks.append(_coverage(shape, pose, size).flatten(1))
                poses.append(pose)
    return torch.stack(masks), torch.stack(poses)


def _kinds() -> list[tuple[str, str, str]]:
    """Shape, size and place in the order of `_templates`."""
    return list(product(SHAPES, SIZES, PLACES))


def _ground_nats(unlit: Tensor, ground: _Ground) -> Tensor:
    """Cost (P,) of each pixel as background. A rough one is no better than its spread: else it explains any object."""
    surface, weight = ground.surface, ground.weight
    if surface.texture != "rough":
        return _nats(((unlit - surface.unlit) ** 2).sum(0).clamp(max=0.09))
    way = normalize(WAY[surface.colour], dim=0)[:, None]
    off = unlit - (RGB[surface.colour] + surface.tint)[:, None]
    along = (off * way).sum(0)
    aside = ((off - way * along) ** 2).sum(0)
    mean = along @ weight / weight.sum()
    spread = ((along - mean) ** 2) @ weight / weight.sum() + FLOOR
    return (aside / 2 + FLOOR).log() + 0.5 * (spread.log() + ((along - mean) ** 2 / spread).clamp(max=9) - 1)


def _objects(picture: Tensor, ground: _Ground, size: int) -> list[tuple[tuple[str, str, str], Tensor, Tensor]]:
    """The likeliest few (shape, size, place), each with its best pose (4,) and mask (P,)."""
    unlit = picture / _light(ground.slope, size)
    plain, shaded = _palette(unlit)
    other = [c for c in range(len(NAMES)) if c != ground.surface.colour]
    gain = torch.cat([_nats(plain[other]), _nats(shaded[other]) + 0.5]) - _ground_nats(unlit, ground)  # (22, P)
    masks, poses = _templates(size)
    score, which = (masks @ gain.T).amin(-1).min(1)  # (120,)
    best = score.topk(6, largest=False)
    kept = [int(k) for k, s in zip(best.indices, best.values, strict=True) if s < best.values[0] + 0.15 * size * size]
    return [(_kinds()[k], poses[k, which[k]], masks[k, which[k]]) for k in kept]


def _object_surfaces(unlit: Tensor, ground: Tensor, mask: Tensor, avoid: int, size: int) -> list[_Surface]:
    """Explanations of what the mask (P,) covers, in the three likeliest colours, the background's share taken out.

    Args:
        unlit: (3, P), the picture without its light.
        ground: (3, P), the background without its light.
        mask: (P,), the object.
        avoid: the background's colour.
    """
    unlit = ((unlit - (1 - mask) * ground) / mask.clamp(min=0.05)).clamp(-0.3, 1.4)
    weight = mask**2 * (mask > 0.5) + 1e-3 * mask + 1e-6  # never nothing, however thin the object
    distance = _palette(unlit)[1] @ weight
    distance[avoid] = math.inf
    return _surfaces(unlit, weight, distance.topk(3, largest=False).indices.tolist(), size)


# ---------------------------------------------------------------- the whole picture

# what the entries of theta are
POSE, CONTRAST, PHASE, GROUND_PHASE = slice(0, 4), 4, slice(5, 8), slice(8, 11)
LIGHT, TINT, SOFT = slice(11, 13), slice(13, 16), 16
# SOFT: how far the whole picture is blurred, as VAEs do: half the variance of the blur, in square pixels
STEP = torch.tensor([0.01] * 3 + [0.02] * 8 + [0.01] * 6)  # of the numerical derivatives
WIDTH = torch.tensor([0.06, 0.06, 0.02, 0.14, 0.1] + [1.0] * 6 + [0.06] * 2 + [0.02] * 3 + [0.3])  # of the prior


@dataclass(frozen=True)
class _Guess:
    """An explanation of the whole picture. Pairs are (object, background)."""

    kind: tuple[str, str, str]  # shape, size, place
    colours: tuple[int, int]
    textures: tuple[str, str]
    patterns: tuple[Tensor | None, Tensor | None]  # (P,), where rough
    theta: Tensor  # (17,): pose, contrast, two phases, slope of the light, tint, softness
    error: float = math.inf  # squared, summed over the picture
    cost: float = math.inf


def _guess(kind: tuple[str, str, str], pose: Tensor, thing: _Surface, ground: _Surface, slope: Tensor) -> _Guess:
    contrast = ground.contrast if ground.texture != "plain" else thing.contrast if thing.texture != "plain" else 0.3
    numbers = [*pose.tolist(), contrast, *thing.phase, *ground.phase, *slope.tolist(), *ground.tint.tolist(), 0.05]
    pairs = (thing.colour, ground.colour), (thing.texture, ground.texture), (thing.pattern, ground.pattern)
    return _Guess(kind, *pairs, torch.tensor(numbers))


def _layer(guess: _Guess, thetas: Tensor, which: int, size: int) -> Tensor:
    """The object's (0) or the background's (1) surface everywhere, before the light: (N, 3, P)."""
    colour, texture, pattern = guess.colours[which], guess.textures[which], guess.patterns[which]
    layer = (RGB[colour] + thetas[:, TINT])[:, :, None].expand(-1, -1, size * size)
    if texture == "plain":
        return layer
    drawn = _patterns(texture, thetas[:, (PHASE, GROUND_PHASE)[which]], size) if pattern is None else pattern
    return layer + WAY[colour][:, None] * (thetas[:, CONTRAST, None] * drawn)[:, None]


def _draw(guess: _Guess, thetas: Tensor, size: int) -> Tensor:
    """The guess with each row of thetas (N, 17): (N, 3, P). What `render` would draw, but for free rough patterns."""
    thing, ground = (_layer(guess, thetas, which, size) for which in (0, 1))
    mask = _coverage(guess.kind[0], thetas[:, POSE], size).flatten(1)[:, None]
    x, y = (axis.flatten() for axis in _axes(size))
    light = 1 + thetas[:, LIGHT][:, :1] * x + thetas[:, LIGHT][:, 1:] * y
    sharp = ((ground + mask * (thing - ground)) * light[:, None]).view(-1, 3, size, size)
    wide = pad(sharp, (1, 1, 1, 1), mode="replicate")
    around = wide[..., 1:-1, :-2] + wide[..., 1:-1, 2:] + wide[..., :-2, 1:-1] + wide[..., 2:, 1:-1]
    return (sharp + thetas[:, SOFT, None, None, None] * (around - 4 * sharp)).flatten(2).clamp(0, 1)


def _active(guess: _Guess) -> list[int]:
    """The entries of theta that this guess depends on."""
    numbers = {"striped": 2, "checkered": 3, "dotted": 3}
    on = [0, 1, 2] + [3] * (guess.kind[0] not in ("circle", "ring")) + [4] * (guess.textures != ("plain", "plain"))
    for texture, phase in zip(guess.textures, (PHASE, GROUND_PHASE), strict=True):
        on += range(phase.start, phase.start + numbers.get(texture, 0))
    return [*on, *range(LIGHT.start, SOFT + 1)]


def _middle(guess: _Guess) -> Tensor:
    """The middle of the prior (17,)."""
    middle = guess.theta.clone()
    middle[POSE] = torch.tensor([*PLACES[guess.kind[2]], SIZES[guess.kind[1]], 0.0])
    middle[CONTRAST], middle[LIGHT.start :] = 0.3, 0
    return middle


def _polish(guess: _Guess, picture: Tensor, size: int, steps: int) -> _Guess:
    """Gauss-Newton steps on everything continuous at once, damped when they fail; error and cost are set."""
    on, middle, theta = _active(guess), _middle(guess), guess.theta
    rows = torch.arange(len(on))

    def loss(thetas: Tensor) -> tuple[Tensor, Tensor]:
        drawn = _draw(guess, thetas, size).flatten(1)
        prior = (((thetas - middle) / WIDTH)[:, on] ** 2).sum(1)
        return drawn, ((drawn - picture.flatten()) ** 2).sum(1) / (2 * FLOOR) + prior

    for _ in range(steps):
        moved = theta.repeat(len(on) + 1, 1)
        moved[rows, on] += STEP[on]
        drawn, losses = loss(moved)  # the last row is theta itself
        slopes = (drawn[:-1] - drawn[-1]) / STEP[on][:, None]
        curve = slopes @ slopes.T / (2 * FLOOR) + torch.diag(WIDTH[on] ** -2)
        pull = slopes @ (picture.flatten() - drawn[-1]) / (2 * FLOOR) - ((theta - middle) / WIDTH**2)[on]
        tries = theta.repeat(2, 1)
        for k, damping in enumerate((1e-3, 0.3)):
            tries[k, on] += torch.linalg.solve(curve + damping * torch.diag(curve.diagonal()), pull)
        tries[:, 2], tries[:, CONTRAST] = tries[:, 2].clamp(0.15, 0.65), tries[:, CONTRAST].clamp(0.12, 0.48)
        tries[:, SOFT] = tries[:, SOFT].clamp(0, 0.4)
        after, best = loss(tries)[1].min(0)
        if after > losses[-1] - 0.5:
            break
        theta = tries[best]
    return _priced(replace(guess, theta=theta), picture, size)


def _priced(guess: _Guess, picture: Tensor, size: int) -> _Guess:
    """The guess with its error and its cost."""
    error = float(((_draw(guess, guess.theta[None], size)[0] - picture) ** 2).sum())
    pixels, area = size * size, math.pi * float(guess.theta[2]) ** 2 / 4 * size * size
    free = _freedom(guess.textures[0], area) + _freedom(guess.textures[1], pixels)
    if guess.patterns[1] is not None:
        free += float(_stray(guess.patterns[1].mean(), True))
    prior = 0.5 * float((((guess.theta - _middle(guess)) / WIDTH)[_active(guess)] ** 2).sum())
    return replace(guess, error=error, cost=pixels * float(_nats(torch.tensor(error / pixels))) + free + prior)


def _second_look(guess: _Guess, picture: Tensor, size: int) -> list[_Guess]:
    """The object's surface fitted again where it was found: every texture in its likeliest colour."""
    theta = guess.theta
    mask = _coverage(guess.kind[0], theta[None, POSE], size).flatten()
    light = _light(theta[LIGHT], size)
    ground = _layer(guess, theta[None], 1, size)[0]
    found: dict[str, _Guess] = {}
    for s in _object_surfaces(picture / light, ground, mask, guess.colours[1], size):
        new = theta.clone()
        new[PHASE] = torch.tensor(s.phase)
        if guess.textures[1] == "plain":
            new[CONTRAST] = s.contrast
        colours, textures = (s.colour, guess.colours[1]), (s.texture, guess.textures[1])
        patterns = (s.pattern, guess.patterns[1])
        found.setdefault(s.texture, _Guess(guess.kind, colours, textures, patterns, new))
    return list(found.values())


def _search(picture: Tensor, size: int) -> _Guess:
    """The likeliest explanation of a picture (3, P)."""
    guesses = []
    for ground in _grounds(picture, size):
        light = _light(ground.slope, size)
        for kind, pose, mask in _objects(picture, ground, size):
            things = _object_surfaces(picture / light, ground.surface.unlit, mask, ground.surface.colour, size)
            for thing in things[:3]:
                guesses.append(_priced(_guess(kind, pose, thing, ground.surface, ground.slope), picture, size))
    first: dict[tuple[object, ...], _Guess] = {}  # of each kind and colours: textures are decided later
    for guess in sorted(guesses, key=lambda g: g.cost):
        first.setdefault((guess.kind, guess.colours), guess)
    return min((_polish(g, picture, size, 4) for g in list(first.values())[:5]), key=lambda g: g.cost)


def _decide(guess: _Guess, picture: Tensor, size: int) -> _Guess:
    """The last word on the object's texture, at the picture's own size."""
    guess = _polish(_enlarged(guess, picture, size), picture, size, 3)
    others = sorted((_priced(g, picture, size) for g in _second_look(guess, picture, size)), key=lambda g: g.cost)
    guess = min([guess, *(_polish(g, picture, size, 4) for g in others[:4])], key=lambda g: g.cost)
    return _priced(_enlarged(guess, picture, size), picture, size)


def _enlarged(guess: _Guess, picture: Tensor, size: int) -> _Guess:
    """The guess at the picture's own size: the free patterns are read off it again."""
    mask = _coverage(guess.kind[0], guess.theta[None, POSE], size).flatten()
    light, patterns = _light(guess.theta[LIGHT], size), []
    weights = (mask**2 * (mask > 0.5) + 1e-3 * mask, (1 - mask) ** 2)
    for colour, texture, weight in zip(guess.colours, guess.textures, weights, strict=True):
        base, way = (RGB[colour] + guess.theta[TINT])[:, None], WAY[colour][:, None]
        along = ((picture / light - base) * way).sum(0) / (way * way).sum() / guess.theta[CONTRAST]
        patterns.append(_spread(along.clamp(0, 1)[None], weight, size)[0] if texture == "rough" else None)
    return replace(guess, patterns=(patterns[0], patterns[1]))


def _scene(guess: _Guess) -> Scene:
    """The guess as a scene."""
    theta = guess.theta.tolist()
    size = min(SIZES, key=lambda s: abs(SIZES[s] - theta[2]))  # it may have moved away from where it began
    place = min(PLACES, key=lambda p: math.dist(PLACES[p], theta[:2]))
    left, up = PLACES[place]
    return Scene(
        shape=guess.kind[0],
        colour=NAMES[guess.colours[0]],
        texture=guess.textures[0],
        size=size,
        place=place,
        background=NAMES[guess.colours[1]],
        background_texture=guess.textures[1],
        contrast=theta[CONTRAST],
        jitter=(theta[0] - left, theta[1] - up, theta[2] / SIZES[size], theta[3]),
        light=(math.atan2(theta[12], theta[11]) % math.tau, math.hypot(theta[11], theta[12])),
        tint=(theta[13], theta[14], theta[15]),
        phase=(theta[5], theta[6], theta[7], theta[8], theta[9], theta[10]),
        noise_seed=0,
    )


@torch.no_grad()
def fit_scene(images: Tensor, size: int | None = None) -> list[Fit]:
    """Find the scene that explains each picture best, where nothing about it is known.

    Args:
        images: (B, 3, H, H) in [0, 1], at least 16 pixels wide; a float type, any device.
        size: fit the pictures resized to this side; their own by default.

    Returns:
        A `Fit` for each picture; what a picture shows is in `fit.scene`.

    Raises:
        BadInput: not square pictures, or not finite.

    Example:
        >>> fit_scene(render([draw_scene(7)]).images)[0].scene.caption == draw_scene(7).caption
        True
    """
    images = _resized(images, size)
    side = images.shape[-1]
    coarse = _resized(images, min(side, SEARCH))
    fits = []
    for image, small in zip(images.flatten(2), coarse.flatten(2), strict=True):
        guess = _decide(_search(small, coarse.shape[-1]), image, side)
        mse = guess.error / image.numel()
        spread = float(((image - image.mean(1, keepdim=True)) ** 2).mean())
        fits.append(Fit(_scene(guess), mse, 1 - mse / spread if spread > 1e-8 else 0.0))
    return fits


# ---------------------------------------------------------------- render_fit for an edit


def _checked(attribute: str, images: Tensor, scenes: Sequence[Scene] | None) -> tuple[str, ...]:
    """The values of an attribute."""
    if attribute not in ATTRIBUTES:
        raise unknown_name("attribute", attribute, ATTRIBUTES)
    if scenes is not None and len(scenes) != len(images):
        raise BadInput(f"{len(images)} pictures but {len(scenes)} scenes: each picture needs the scene it should show")
    return ATTRIBUTES[attribute]


def _eroded(mask: Tensor) -> Tensor:
    """Where a mask (1, H, W) is whole and so are its neighbours; the mask itself if almost nothing is left."""
    whole = (-max_pool2d(-mask[None], 3, stride=1, padding=1)[0] > 0.99).float()
    return whole if whole.sum() >= 8 else mask


def _region(attribute: str, masks: Tensor) -> Tensor:
    """Where to compare (1, H, W), given the object masks (V, 1, H, W) of the candidates."""
    if attribute in ("shape", "size", "place"):
        return masks.amax(0)
    return _eroded(1 - masks[0] if attribute.startswith("background") else masks[0])


def _texture_costs(image: Tensor, scene: Scene, region: Tensor, ground: bool) -> dict[str, float]:
    """Cost of each texture of a known colour, its contrast and phase left free: an edit need not keep them."""
    direction, strength = scene.light
    light = _light(torch.tensor([math.cos(direction), math.sin(direction)]) * strength, image.shape[-1])
    colour = NAMES.index(scene.background if ground else scene.colour)
    found = _surfaces(image.flatten(1) / light, region.flatten(), [colour], image.shape[-1])
    return {surface.texture: surface.cost for surface in found}


@torch.no_grad()
def fit_attribute(images: Tensor, scenes: Sequence[Scene], attribute: str, size: int | None = None) -> list[str]:
    """Name one attribute of pictures of known scenes: draw every value of it in place, take what comes closest.

    Colours and textures are compared inside the region that carries them, away from its edge; shape, size and
    place wherever any candidate's object lies. A texture counts as found with another contrast or phase too.

    Args:
        images: (B, 3, H, H) in [0, 1].
        scenes: what each picture should show, apart from `attribute`; jitter and light are taken from it.
        attribute: a key of `ATTRIBUTES`.
        size: compare at this side; the pictures' own by default.

    Returns:
        The value of the attribute that each picture shows.

    Raises:
        UnknownName: no such attribute.
        BadInput: not square or not finite pictures, or not one scene for each.

    Example:
        >>> scene = draw_scene(7)
        >>> fit_attribute(render([scene.replace(colour="cyan")]).images, [scene], "colour")
        ['cyan']
    """
    values, answers = _checked(attribute, images, scenes), []
    for image, scene in zip(_resized(images, size), scenes, strict=True):
        drawn = render([scene.replace(**{attribute: value}) for value in values], image.shape[-1])
        region = _region(attribute, drawn.object_mask)
        error = (((drawn.images - image) ** 2).sum(1, keepdim=True) * region).sum((1, 2, 3)) / region.sum()
        costs = dict(zip(values, (region.sum() * _nats(error)).tolist(), strict=True))
        if "texture" in attribute:
            free = _texture_costs(image, scene, region, attribute == "background_texture")
            costs = {value: min(cost, free[value]) for value, cost in costs.items()}
        answers.append(min(costs, key=lambda value: costs[value]))
    return answers


# ---------------------------------------------------------------- how good a fit must be


def explained_threshold(
    size: int = 32,
    count: int = 200,
    *,
    share: float = 0.01,
    blur: float = 0.5,
    generator: torch.Generator | None = None,
) -> Threshold:
    """The score above which a sample counts as a scene: what `share` of chimeras of `tune` seeds reach.

    A chimera is the left half of one render and the right half of another: right colours and right textures, but not
    a scene, which is how a model fails that has learnt no more than those. Pixel-shuffled renders and noise lie far
    below. Renders as soft as a model's samples are should pass.

    Args:
        size: side of the pictures in pixels, even.
        count: pictures of each kind, at least 10.
        share: of the chimeras that may pass, in (0, 1).
        blur: of the renders, standard deviation in pixels.
        generator: of the shuffles and the noise; seed 0 by default.
    """
    if count < 10 or not 0 < share < 1 or blur <= 0:
        raise BadInput(f"need at least 10 pictures, 0 < share < 1 and blur > 0, got {count}, {share} and {blur}")
    generator = generator or torch.Generator().manual_seed(0)
    first = SEED_RANGES["tune"][0]
    images = render([draw_scene(first + k) for k in range(count)], size).images
    chimeras = torch.cat([images[..., : size // 2], images.roll(1, 0)[..., size // 2 :]], -1)
    orders = torch.stack([torch.randperm(size * size, generator=generator) for _ in range(count)])
    shuffled = images.flatten(2).gather(2, orders[:, None].expand(-1, 3, -1)).view_as(images)
    noise = (0.5 + 0.25 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    kinds = (_blur(images, blur), chimeras, shuffled, noise)
    scores = [torch.tensor([fit.explained for fit in fit_scene(kind)]) for kind in kinds]
    value = float(scores[1].quantile(1 - share))
    soft, joined, shuffles, noises = (float((s >= value).float().mean()) for s in scores)
    return Threshold(value, soft, joined, shuffles, noises, count)


# ---------------------------------------------------------------- the other judge: CLIP


@without_bars("transformers")
def load_clip(folder: str | Path) -> tuple[Any, Any]:
    """A `CLIPModel` in float32 and its tokenizer, from a transformers folder; nothing is downloaded.

    Raises:
        WeightsMissing: no such folder, or it holds no CLIP.
    """
    from transformers import CLIPModel, CLIPTokenizer

    try:
        model = CLIPModel.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32)
        return model.eval(), CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise WeightsMissing(f"no CLIP model could be read from {str(folder)!r}: {error}") from error


def _embedded(features: Any) -> Tensor:
    """Unit vectors (N, D) from a tensor, or from the output object of transformers 5."""
    return normalize(getattr(features, "pooler_output", features).float(), dim=-1)


def _captions(attribute: str, value: str, scenes: Sequence[Scene] | None) -> list[str]:
    """The captions that speak for a value: one a scene, or, where no scene is known, of 24 scenes of `tune`."""
    known = scenes if scenes is not None else [draw_scene(SEED_RANGES["tune"][0] + k) for k in range(24)]
    return [scene.replace(**{attribute: value}).caption for scene in known]


@torch.no_grad()
def clip_attribute(clip: tuple[Any, Any], images: Tensor, scenes: Sequence[Scene] | None, attribute: str) -> list[str]:
    """Name one attribute of pictures by zero-shot choice between prompts (Radford et al. 2021, arXiv:2103.00020).

    With scenes, the prompts are a picture's own caption with this one attribute replaced: use it for accuracies.
    Without, a value's prompt is the mean of many captions that name it (Sec. 3.1.4): a model that has read only
    whole captions answers "a red background" less well.

    Args:
        clip: model and tokenizer, as from `load_clip`; pictures are scaled to [-1, 1], at the model's own side.
        images: (B, 3, H, H) in [0, 1].
        scenes: what each picture should show, apart from `attribute`; or None.
        attribute: a key of `ATTRIBUTES`.

    Returns:
        The value of the attribute that each picture shows.

    Raises:
        UnknownName: no such attribute.
        BadInput: not square or not finite pictures, or not one scene for each.
    """
    values, (model, tokenizer) = _checked(attribute, images, scenes), clip
    pixels = (_resized(images, model.config.vision_config.image_size) - 0.5) / 0.5
    seen = _embedded(model.get_image_features(pixel_values=pixels.to(model.device, model.dtype)))  # (B, D)
    length, prompts = model.config.text_config.max_position_embeddings, []
    for value in values:
        texts = _captions(attribute, value, scenes)
        tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        tokens = {key: tokens[key].to(model.device) for key in ("input_ids", "attention_mask")}
        said = _embedded(model.get_text_features(**tokens))
        prompts.append(said if scenes is not None else normalize(said.mean(0, keepdim=True), dim=-1))
    scores = torch.stack([(seen * prompt).sum(-1) for prompt in prompts], dim=-1)  # (B, V)
    return [values[k] for k in scores.argmax(-1).tolist()]


def agreement(a: Sequence[str], b: Sequence[str]) -> float:
    """Share of equal answers of two judges, in [0, 1].

    Raises:
        BadInput: not as many answers, or none.
    """
    if len(a) != len(b) or not a:
        raise BadInput(f"cannot compare {len(a)} answers with {len(b)}: two lists of the same length are needed")
    return sum(x == y for x, y in zip(a, b, strict=True)) / len(a)
