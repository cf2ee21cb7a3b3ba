"""Which scene a picture shows, where nothing about it is known: the judge of what the bundled models draw.

It goes from the sure to the doubtful: the background covers most of the picture, so it is fitted first, robustly; then
every shape, size and place is tried as a mask on what the background leaves unexplained; then the object's surface;
then Gauss-Newton steps on the whole renderer decide among the few explanations left. Longer than 400 lines, because
these steps are of no use to anything else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from unsample.datasets.scenes import DISTANCES, PLACES, SEED_RANGES, SHAPES, SIZES, Scene, draw_scene, render
from unsample.errors import BadInput
from unsample.metrics.surfaces import (
    FLOOR,
    NAMES,
    RGB,
    WAY,
    Surface,
    blurred,
    explanations,
    freedom,
    light_of,
    nats,
    patterns_at,
    pixel_axes,
    resized,
    spread_out,
    stray,
)

SEARCH = 32  # side at which fit_scene searches; the last polish is at the picture's own size


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

    surface: Surface
    slope: Tensor
    weight: Tensor
    cost: float


def _slope(picture: Tensor, unlit: Tensor, weight: Tensor, size: int) -> Tensor:
    """The slope (2,) of the light, by least squares, at most as steep as the world's."""
    axes = torch.stack(pixel_axes(size)).flatten(1)
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
            light = light_of(slope, size)
            surfaces = explanations(picture / light, weight, [colour], size)
            left = ((picture - surfaces[0].unlit * light) ** 2).sum(0)
            weight = 1 / (1 + (left / 0.01) ** 2)
            slope = _slope(picture, surfaces[0].unlit, weight, size)
        for surface in surfaces[:2]:
            left = ((picture - surface.unlit * light_of(slope, size)) ** 2).sum(0)
            cost = float(nats(left.clamp(max=0.01)).sum()) + freedom(surface.texture, size * size)
            if surface.pattern is not None:
                cost += float(stray(surface.pattern.mean(), True))
            found.append(_Ground(surface, slope, weight, cost))
    found.sort(key=lambda g: g.cost)
    return [g for g in found[:2] if g.cost < found[0].cost + 0.2 * size * size]


def _coverage(shape: str, poses: Tensor, size: int) -> Tensor:
    """Masks (N, H, W) of a shape at poses (N, 4): centre x, centre y, radius, turn."""
    x, y = pixel_axes(size)
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
        return nats(((unlit - surface.unlit) ** 2).sum(0).clamp(max=0.09))
    way = normalize(WAY[surface.colour], dim=0)[:, None]
    off = unlit - (RGB[surface.colour] + surface.tint)[:, None]
    along = (off * way).sum(0)
    aside = ((off - way * along) ** 2).sum(0)
    mean = along @ weight / weight.sum()
    spread = ((along - mean) ** 2) @ weight / weight.sum() + FLOOR
    return (aside / 2 + FLOOR).log() + 0.5 * (spread.log() + ((along - mean) ** 2 / spread).clamp(max=9) - 1)


def _objects(picture: Tensor, ground: _Ground, size: int) -> list[tuple[tuple[str, str, str], Tensor, Tensor]]:
    """The likeliest few (shape, size, place), each with its best pose (4,) and mask (P,)."""
    unlit = picture / light_of(ground.slope, size)
    plain, shaded = _palette(unlit)
    other = [c for c in range(len(NAMES)) if c != ground.surface.colour]
    gain = torch.cat([nats(plain[other]), nats(shaded[other]) + 0.5]) - _ground_nats(unlit, ground)  # (22, P)
    masks, poses = _templates(size)
    score, which = (masks @ gain.T).amin(-1).min(1)  # (120,)
    best = score.topk(6, largest=False)
    kept = [int(k) for k, s in zip(best.indices, best.values, strict=True) if s < best.values[0] + 0.15 * size * size]
    return [(_kinds()[k], poses[k, which[k]], masks[k, which[k]]) for k in kept]


def _object_surfaces(unlit: Tensor, ground: Tensor, mask: Tensor, avoid: int, size: int) -> list[Surface]:
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
    return explanations(unlit, weight, distance.topk(3, largest=False).indices.tolist(), size)


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


def _guess(kind: tuple[str, str, str], pose: Tensor, thing: Surface, ground: Surface, slope: Tensor) -> _Guess:
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
    drawn = patterns_at(texture, thetas[:, (PHASE, GROUND_PHASE)[which]], size) if pattern is None else pattern
    return layer + WAY[colour][:, None] * (thetas[:, CONTRAST, None] * drawn)[:, None]


def _draw(guess: _Guess, thetas: Tensor, size: int) -> Tensor:
    """The guess with each row of thetas (N, 17): (N, 3, P). What `render` would draw, but for free rough patterns."""
    thing, ground = (_layer(guess, thetas, which, size) for which in (0, 1))
    mask = _coverage(guess.kind[0], thetas[:, POSE], size).flatten(1)[:, None]
    x, y = (axis.flatten() for axis in pixel_axes(size))
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
    free = freedom(guess.textures[0], area) + freedom(guess.textures[1], pixels)
    if guess.patterns[1] is not None:
        free += float(stray(guess.patterns[1].mean(), True))
    prior = 0.5 * float((((guess.theta - _middle(guess)) / WIDTH)[_active(guess)] ** 2).sum())
    return replace(guess, error=error, cost=pixels * float(nats(torch.tensor(error / pixels))) + free + prior)


def _second_look(guess: _Guess, picture: Tensor, size: int) -> list[_Guess]:
    """The object's surface fitted again where it was found: every texture in its likeliest colour."""
    theta = guess.theta
    mask = _coverage(guess.kind[0], theta[None, POSE], size).flatten()
    light = light_of(theta[LIGHT], size)
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
        light = light_of(ground.slope, size)
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
    light, patterns = light_of(guess.theta[LIGHT], size), []
    weights = (mask**2 * (mask > 0.5) + 1e-3 * mask, (1 - mask) ** 2)
    for colour, texture, weight in zip(guess.colours, guess.textures, weights, strict=True):
        base, way = (RGB[colour] + guess.theta[TINT])[:, None], WAY[colour][:, None]
        along = ((picture / light - base) * way).sum(0) / (way * way).sum() / guess.theta[CONTRAST]
        patterns.append(spread_out(along.clamp(0, 1)[None], weight, size)[0] if texture == "rough" else None)
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
    images = resized(images, size)
    side = images.shape[-1]
    coarse = resized(images, min(side, SEARCH))
    fits = []
    for image, small in zip(images.flatten(2), coarse.flatten(2), strict=True):
        guess = _decide(_search(small, coarse.shape[-1]), image, side)
        mse = guess.error / image.numel()
        spread = float(((image - image.mean(1, keepdim=True)) ** 2).mean())
        fits.append(Fit(_scene(guess), mse, 1 - mse / spread if spread > 1e-8 else 0.0))
    return fits


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
    kinds = (blurred(images, blur), chimeras, shuffled, noise)
    scores = [torch.tensor([fit.explained for fit in fit_scene(kind)]) for kind in kinds]
    value = float(scores[1].quantile(1 - share))
    soft, joined, shuffles, noises = (float((s >= value).float().mean()) for s in scores)
    return Threshold(value, soft, joined, shuffles, noises, count)
