"""Scenes: a procedural picture world whose truth is known.

One object on a background, lit by a soft gradient, drawn from signed distance functions with an anti-aliased
edge. A `Scene` is plain data; `render` turns scenes into pictures and masks. Because the jitter and the light
are fields of the scene, `scene.replace(colour="blue")` draws *the true edited picture*, so an edit can be
scored against the truth instead of by proxy.

Every scene has a seed of its own. Seeds come in disjoint ranges: `train`, `tune` (to choose settings) and
`report` (to make tables).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.12, 0.12),
    "green": (0.13, 0.62, 0.20),
    "blue": (0.13, 0.25, 0.85),
    "yellow": (0.96, 0.88, 0.15),
    "purple": (0.52, 0.16, 0.68),
    "orange": (0.97, 0.52, 0.08),
    "cyan": (0.15, 0.82, 0.86),
    "white": (0.96, 0.96, 0.96),
    "black": (0.06, 0.06, 0.07),
    "gray": (0.50, 0.50, 0.50),
    "pink": (0.98, 0.58, 0.74),
    "brown": (0.45, 0.27, 0.12),
}
SIZES = {"small": 0.26, "medium": 0.35, "large": 0.48}  # radius; the picture spans [-1, 1]
PLACES = {"left": (-0.45, 0.0), "right": (0.45, 0.0), "top": (0.0, 0.45), "bottom": (0.0, -0.45), "center": (0.0, 0.0)}
TEXTURES = ("plain", "striped", "checkered", "dotted", "rough")
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond")

SEED_RANGES = {"tune": (0, 10**8), "report": (10**8, 2 * 10**8), "train": (10**9, 4 * 10**9)}


@dataclass(frozen=True)
class Scene:
    """One picture of the world, as data. `replace` keeps the jitter and the light: the true edited picture."""

    shape: str
    colour: str
    texture: str
    size: str
    place: str
    background: str  # its colour
    background_texture: str
    contrast: float  # of both textures, [0.15, 0.45]; not named in the caption
    jitter: tuple[float, float, float, float]  # dx, dy (picture units), relative size, turn (radians)
    light: tuple[float, float]  # direction (radians), strength [0, 0.12]
    tint: tuple[float, float, float]  # added to every colour, [-0.03, 0.03]
    phase: tuple[float, float, float, float, float, float]  # angle, two phases in [0, 1): object, then background
    noise_seed: int  # of the rough textures
    companion: Scene | None = None  # a second object (variant `ood` only)

    @property
    def caption(self) -> str:
        """The prompt: `a small striped red circle at the left on a blue background`."""
        kind = "" if self.texture == "plain" else f"{self.texture} "
        ground = "" if self.background_texture == "plain" else f"{self.background_texture} "
        return (
            f"a {self.size} {kind}{self.colour} {self.shape} at the {self.place} "
            f"on a {ground}{self.background} background"
        )

    def replace(self, **attributes: Any) -> Scene:
        """The same scene with attributes changed, drawn with the same jitter and light."""
        for name, value in attributes.items():
            allowed = ATTRIBUTES.get(name)
            if allowed is None and name != "contrast":
                raise unknown_name("attribute", name, [*ATTRIBUTES, "contrast"])
            if allowed is not None and value not in allowed:
                raise unknown_name(name, value, allowed)
        return replace(self, **attributes)


ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "texture": TEXTURES,
    "size": tuple(SIZES),
    "place": tuple(PLACES),
    "background": tuple(COLOURS),
    "background_texture": TEXTURES,
}


def held_out(shape: str, colour: str) -> bool:
    """Whether this pair is never drawn in `train`, `tune` or `report`: one colour a shape, for variant `ood`."""
    return (SHAPES.index(shape) * 5 + list(COLOURS).index(colour)) % len(COLOURS) == 0


def draw_scene(seed: int) -> Scene:
    """The scene of one seed (the low 32 bits count, as in torch's CPU generator)."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    u = iter(torch.rand(40, generator=generator).tolist())

    def pick(values: Sequence[str]) -> str:
        return values[min(int(next(u) * len(values)), len(values) - 1)]

    def texture() -> str:
        return pick(TEXTURES[1:]) if next(u) < 0.5 else (next(u), "plain")[1]  # both branches use two draws

    def between(low: float, high: float) -> float:
        return low + (high - low) * next(u)

    shape = pick(SHAPES)
    colour = pick([c for c in COLOURS if not held_out(shape, c)])
    background = pick([c for c in COLOURS if c != colour])
    return Scene(
        shape=shape,
        colour=colour,
        texture=texture(),
        size=pick(list(SIZES)),
        place=pick(list(PLACES)),
        background=background,
        background_texture=texture(),
        contrast=between(0.15, 0.45),
        jitter=(between(-0.08, 0.08), between(-0.08, 0.08), between(0.93, 1.07), between(-0.2, 0.2)),
        light=(between(0, 2 * math.pi), between(0, 0.12)),
        tint=(between(-0.03, 0.03), between(-0.03, 0.03), between(-0.03, 0.03)),
        phase=(between(0, math.pi), next(u), next(u), between(0, math.pi), next(u), next(u)),
        noise_seed=int(next(u) * 2**24),
    )


# ---------------------------------------------------------------- shapes: signed distance, unit radius, y upwards


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    qx, qy = x.abs() - half_width, y.abs() - half_height
    return (qx.clamp(min=0) ** 2 + qy.clamp(min=0) ** 2).sqrt() + qx.maximum(qy).clamp(max=0)


def _reflect(x: Tensor, y: Tensor, kx: float, ky: float, side: float) -> tuple[Tensor, Tensor]:
    """Mirror the points on one side of the line through 0 with normal (kx, ky)."""
    d = 2 * side * (side * (x * kx + y * ky)).clamp(min=0)
    return x - d * kx, y - d * ky


def _triangle(x: Tensor, y: Tensor, r: float = 0.95) -> Tensor:
    k = math.sqrt(3.0)
    x, y = x.abs() - r, y + r / k
    flip = x + k * y > 0
    x, y = (x - k * y).div(2).where(flip, x), (-k * x - y).div(2).where(flip, y)
    x = x - x.clamp(-2 * r, 0)
    return -(x**2 + y**2).sqrt() * y.sign()


def _star(x: Tensor, y: Tensor, r: float = 1.0, inner: float = 0.45) -> Tensor:
    kx, ky = math.cos(math.pi / 5), -math.sin(math.pi / 5)
    x = x.abs()
    x, y = _reflect(x, y, kx, ky, 1)
    x, y = _reflect(x, y, -kx, ky, 1)
    x, y = x.abs(), y - r
    bx, by = inner * -ky, inner * kx - 1
    h = ((x * bx + y * by) / (bx * bx + by * by)).clamp(0, r)
    return ((x - bx * h) ** 2 + (y - by * h) ** 2).sqrt() * (y * bx - x * by).sign()


def _heart(x: Tensor, y: Tensor, scale: float = 0.6) -> Tensor:
    x, y = x.abs() * scale, y * scale + 0.53
    lobe = ((x - 0.25) ** 2 + (y - 0.75) ** 2).sqrt() - math.sqrt(2) / 4
    m = 0.5 * (x + y).clamp(min=0)
    tip = (x**2 + (y - 1) ** 2).minimum((x - m) ** 2 + (y - m) ** 2).sqrt() * (x - y).sign()
    return lobe.where(x + y > 1, tip) / scale


def _hexagon(x: Tensor, y: Tensor, r: float = 0.82) -> Tensor:
    x, y = _reflect(x.abs(), y.abs(), -math.sqrt(3) / 2, 0.5, -1)
    half = r / math.sqrt(3)
    x, y = x - x.clamp(-half, half), y - r
    return (x**2 + y**2).sqrt() * y.sign()


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": lambda x, y: (x**2 + y**2).sqrt() - 0.9,
    "square": lambda x, y: _box(x, y, 0.78, 0.78),
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "ring": lambda x, y: ((x**2 + y**2).sqrt() - 0.66).abs() - 0.24,
    "cross": lambda x, y: _box(x, y, 1.0, 0.33).minimum(_box(x, y, 0.33, 1.0)),
    "diamond": lambda x, y: (x.abs() / 0.62 + y.abs() - 1) / math.sqrt(1 + 1 / 0.62**2),
    "hexagon": _hexagon,
}

# ---------------------------------------------------------------- textures: a pattern in [0, 1]


def _rough(seed: int, size: int) -> Tensor:
    """1/f noise on a 64-pixel base, so that a scene looks the same at every size."""
    import torch
    from torch.nn.functional import interpolate

    white = torch.randn(64, 64, generator=torch.Generator().manual_seed(seed))
    fy, fx = torch.fft.fftfreq(64)[:, None], torch.fft.rfftfreq(64)[None, :]
    falloff = 1 / (fx**2 + fy**2).sqrt().clamp(min=1 / 64) * ((fx**2 + fy**2).sqrt() < 0.2)
    field = torch.fft.irfft2(torch.fft.rfft2(white) * falloff, s=(64, 64))
    field = (field - field.mean()) / field.std()
    if size != 64:
        field = interpolate(field[None, None], size=(size, size), mode="bilinear", antialias=True)[0, 0]
    return (0.5 + 0.35 * field).clamp(0, 1)


def _pattern(texture: str, x: Tensor, y: Tensor, angle: Tensor, p: Tensor, q: Tensor) -> Tensor:
    import torch

    frequency = 3.5  # periods over the half picture: 9 pixels a period at 64
    u = (x * angle.cos() + y * angle.sin()) * frequency + p
    v = (y * angle.cos() - x * angle.sin()) * frequency + q
    if texture == "striped":
        return 0.5 + 0.5 * torch.tanh(3 * torch.sin(2 * math.pi * u))
    if texture == "checkered":
        return 0.5 + 0.5 * torch.tanh(4 * torch.sin(math.pi * u) * torch.sin(math.pi * v))
    du, dv = u - u.round(), v - v.round()  # dotted
    return torch.sigmoid((0.3 - (du**2 + dv**2).sqrt()) * 25)


def _paint(scenes: Sequence[Scene], ground: bool, x: Tensor, y: Tensor) -> Tensor:
    """The textured colour of the object or of the background everywhere: (B, 3, H, W)."""
    import torch

    size = x.shape[-1]
    names = [(s.background, s.background_texture) if ground else (s.colour, s.texture) for s in scenes]
    colour = torch.tensor([COLOURS[c] for c, _ in names])[:, :, None, None]
    phase = torch.tensor([s.phase[3:] if ground else s.phase[:3] for s in scenes])[:, :, None, None]
    pattern = torch.zeros(len(scenes), size, size)
    for texture in TEXTURES[1:]:
        rows = [k for k, (_, t) in enumerate(names) if t == texture]
        if not rows:
            continue
        if texture == "rough":
            pattern[rows] = torch.stack([_rough(scenes[k].noise_seed * 2 + ground, size) for k in rows])
        else:
            pattern[rows] = _pattern(texture, x, y, phase[rows, 0], phase[rows, 1], phase[rows, 2])
    luminance = (colour * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    towards = (luminance < 0.35).float()  # dark colours are textured with white, light ones with black
    contrast = torch.tensor([s.contrast for s in scenes])[:, None, None, None]
    return colour + (towards - colour) * contrast * pattern[:, None]


@dataclass(frozen=True)
class Rendering:
    """What `render` returns. `images` (B, 3, H, W) in [0, 1]; the masks (B, 1, H, W) in [0, 1]."""

    images: Tensor = field(repr=False)
    object_mask: Tensor = field(repr=False)  # coverage of the object, anti-aliased
    plain_mask: Tensor = field(repr=False)  # 1 where the picture carries no texture and no edge (plain_true)


def _coverage(scenes: Sequence[Scene], x: Tensor, y: Tensor) -> Tensor:
    import torch

    size = x.shape[-1]
    place = torch.tensor([PLACES[s.place] for s in scenes])
    dx, dy, scale, turn = torch.tensor([s.jitter for s in scenes]).T[:, :, None, None]
    radius = torch.tensor([SIZES[s.size] for s in scenes])[:, None, None] * scale
    px, py = x - place[:, 0, None, None] - dx, y - place[:, 1, None, None] - dy
    px, py = (px * turn.cos() + py * turn.sin()) / radius, (py * turn.cos() - px * turn.sin()) / radius
    distance = torch.empty(len(scenes), size, size)
    for name in {s.shape for s in scenes}:
        rows = [k for k, s in enumerate(scenes) if s.shape == name]
        distance[rows] = DISTANCES[name](px[rows], py[rows])
    return (0.5 - distance * radius * size / 2).clamp(0, 1)[:, None]


def render(scenes: Sequence[Scene], size: int = 64) -> Rendering:
    """Draw scenes.

    Args:
        scenes: any number, at least one.
        size: side of the square pictures in pixels, at least 8.

    Returns:
        `Rendering`, float32 on the CPU.
    """
    import torch

    if size < 8 or not scenes:
        raise BadInput(f"cannot render {len(scenes)} scenes at size {size}: at least one scene and 8 pixels are needed")
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    x, y = axis[None, None, :].expand(1, size, size), -axis[None, :, None].expand(1, size, size)
    picture = _paint(scenes, True, x, y)
    object_mask = torch.zeros(len(scenes), 1, size, size)
    layers = [scenes, [s.companion or s for s in scenes]] if any(s.companion for s in scenes) else [scenes]
    for layer in layers:
        coverage = _coverage(layer, x, y)
        picture = picture + coverage * (_paint(layer, False, x, y) - picture)
        object_mask = object_mask.maximum(coverage)
    direction, strength = torch.tensor([s.light for s in scenes]).T[:, :, None, None, None]
    light = 1 + strength * (x * direction.cos() + y * direction.sin())
    tint = torch.tensor([s.tint for s in scenes])[:, :, None, None]
    plain = torch.tensor([[s.texture == "plain", s.background_texture == "plain"] for s in scenes]).float()
    plain = plain[:, :, None, None, None]
    plain_mask = (object_mask == 1) * plain[:, 0] + (object_mask == 0) * plain[:, 1]
    return Rendering(((picture + tint) * light).clamp(0, 1), object_mask, plain_mask)


# ---------------------------------------------------------------- the dataset


@dataclass(frozen=True)
class SceneItem:
    """One item of the dataset. `image` (3, H, W) in [0, 1]; masks (1, H, W) in [0, 1]."""

    id: str
    scene: Scene
    prompt: str
    image: Tensor = field(repr=False)
    object_mask: Tensor = field(repr=False)
    plain_mask: Tensor = field(repr=False)


def _ood(seed: int) -> Scene:
    """Outside the training world: an unseen pair, a hexagon, or two objects, in turn."""
    scene = draw_scene(seed)
    kind = seed % 3
    if kind == 0:
        return replace(scene, colour=next(c for c in COLOURS if held_out(scene.shape, c)))
    if kind == 1:
        return replace(scene, shape="hexagon")
    other = draw_scene((seed + 3 * 10**7) % 2**32)
    away = {"left": "right", "right": "left", "top": "bottom", "bottom": "top", "center": "left"}
    first = replace(scene, size="small")
    return replace(first, companion=replace(other, size="small", place=away[scene.place]))


class Scenes:
    """The built-in data set: `Scenes("report", 64)[3].image`.

    Args:
        split: `tune` (choose settings on it), `report` (make tables on it) or `train`.
        count: number of scenes.
        size: side in pixels.
        start: first seed within the split.
        grain: standard deviation of sensor noise in 255ths (evaluation only).
        ood: scenes outside the training world (evaluation only).

    Raises:
        UnknownName: no such split.
        BadInput: a count, size or start that cannot be.
    """

    def __init__(
        self,
        split: str = "report",
        count: int = 64,
        *,
        size: int = 64,
        start: int = 0,
        grain: float = 0,
        ood: bool = False,
    ) -> None:
        if split not in SEED_RANGES:
            raise unknown_name("split", split, SEED_RANGES)
        low, high = SEED_RANGES[split]
        if count < 1 or start < 0 or low + start + count > high or grain < 0:
            raise BadInput(
                f"scenes:{split} holds seeds 0 to {high - low - 1}; asked for {count} from {start}, grain {grain}"
            )
        self.split, self.count, self.size, self.start, self.grain, self.ood = split, count, size, start, grain, ood

    def __len__(self) -> int:
        return self.count

    def seed(self, index: int) -> int:
        """The seed of one item."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return SEED_RANGES[self.split][0] + self.start + index

    def scene(self, index: int) -> Scene:
        """The scene of one item, not drawn."""
        return _ood(self.seed(index)) if self.ood else draw_scene(self.seed(index))

    def __iter__(self) -> Iterator[SceneItem]:
        return (self[k] for k in range(self.count))

    def __getitem__(self, index: int) -> SceneItem:
        scene = self.scene(index)
        drawn = render([scene], self.size)
        image = drawn.images[0]
        if self.grain:
            image = grainy(image, self.grain, self.seed(index))
        return SceneItem(
            f"{self.split}-{self.start + index}", scene, scene.caption, image, drawn.object_mask[0], drawn.plain_mask[0]
        )


def grainy(image: Tensor, grain: float, seed: int) -> Tensor:
    """A picture with sensor noise of its own seed, `grain` in 255ths, clamped to [0, 1]."""
    import torch

    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed + 1))
    return (image + grain / 255 * noise).clamp(0, 1)
