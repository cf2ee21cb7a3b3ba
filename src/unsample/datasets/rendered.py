"""The data sets that are made on the spot: `scenes`, with edits and their truth; `generated`, for a model to sample.

Both walk through the seeds of a split, so that scene k is the same in every data set that holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import overload

from unsample.datasets.edits import CHANGED, KINDS, changed, edited_region, on_ground
from unsample.datasets.item import Item
from unsample.datasets.scenes import COLOURS, SEED_RANGES, SHAPES, Scene, Scenes, draw_scene, grainy, render
from unsample.datasets.spec import Spec
from unsample.errors import BadOption

COUNT = 64
MIN_SIZE = 8


@dataclass(frozen=True)
class Numbered(Sequence[str]):
    """The ids of a run of seeds: `report-100`, `report-101` ...; not held in memory."""

    prefix: str
    start: int
    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, k: int) -> str: ...
    @overload
    def __getitem__(self, k: slice) -> list[str]: ...
    def __getitem__(self, k: int | slice) -> str | list[str]:
        numbers = range(self.start, self.start + self.length)[k]
        return f"{self.prefix}-{numbers}" if isinstance(numbers, int) else [f"{self.prefix}-{n}" for n in numbers]


@dataclass(frozen=True)
class RenderedScenes:
    """Scenes as items: a picture, its edit by the rule `changed`, the true edited picture and where it differs."""

    spec: str
    scenes: Scenes
    kinds: Sequence[str] = CHANGED
    ground: str = ""  # the colour of every background, plain; none: each scene's own
    broken: Sequence[tuple[str, str]] = ()

    @property
    def ids(self) -> Sequence[str]:
        """`report-7`, or `report-ood-7`, `report-white-7`, `report-ood-white-7`."""
        parts = [self.scenes.split, "ood" if self.scenes.ood else "", self.ground]
        return Numbered("-".join(filter(None, parts)), self.scenes.start, self.scenes.count)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, k: int) -> Item:
        id = self.ids[k]
        k %= len(self)
        scenes, scene = self.scenes, self.scenes.scene(k)
        scene = on_ground(scene, self.ground) if self.ground else scene
        name, target = changed(scene, scenes.start + k, self.kinds)
        clean, truth = render([scene, target], scenes.size).images
        mask = edited_region(clean, truth)
        if scenes.grain:  # the same sensor noise: outside the edit the truth is the source
            clean, truth = (grainy(picture, scenes.grain, scenes.seed(k)) for picture in (clean, truth))
        return Item(
            id=id,
            image=clean,
            prompt=scene.caption,
            target_prompt=target.caption,
            mask=mask,
            scene=scene,
            target=target,
            changed=name,
            truth=truth,
            recipe=f"{scene!r} to {target!r} at {scenes.size}, grain {scenes.grain:g} of {scenes.seed(k)}",
        )


SAVED = {"png": "8 bit", "jpeg95": "jpeg 95", "jpeg75": "jpeg 75"}  # what a file does to pictures, by its name


@dataclass(frozen=True)
class Generated:
    """Pictures that the model under test makes, of the captions and seeds of scenes: their true noise is known.

    The picture is not the scene's rendering, so the scene, its mask and its truth are not given.
    """

    spec: str
    split: str
    start: int
    count: int
    mixture: bool = False  # the captions are those of `scenes-mixture`, evenly taken
    saved: str | None = None  # of SAVED: as which the pictures are saved before they are inverted
    broken: Sequence[tuple[str, str]] = ()

    @property
    def ids(self) -> Sequence[str]:
        """`generated-report-7`, or `generated-mixture-report-7`, with the format where they are saved."""
        kind = f"{'mixture-' * self.mixture}{self.split}{'' if self.saved is None else f'-{self.saved}'}"
        return Numbered(f"generated-{kind}", self.start, self.count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, k: int) -> Item:
        id = self.ids[k]
        number = self.start + k % self.count
        seed = SEED_RANGES[self.split][0] + number
        scene = self._known(number) if self.mixture else draw_scene(seed)
        name, target = changed(scene, number)
        caption, edited = scene.caption, target.caption
        return Item(id=id, image=None, prompt=caption, target_prompt=edited, changed=name, seed=seed, saved=self.saved)

    def _known(self, number: int) -> Scene:
        """As far from each other as there are pictures, in the order of the mixture's components."""
        scenes = mixture_scenes()
        return scenes[number * max(1, len(scenes) // self.count) % len(scenes)]


def mixture_scenes() -> list[Scene]:
    """The 512 scenes of `scenes-mixture`, in the order of its components."""
    base = draw_scene(SEED_RANGES["tune"][0]).replace(size="medium", place="center", contrast=0.4)
    textures = [("plain", "plain"), ("striped", "plain"), ("plain", "dotted"), ("rough", "checkered")]
    colours, grounds = ("red", "green", "blue", "yellow"), ("white", "black", "purple", "orange")
    return [
        base.replace(shape=s, colour=c, background=g, texture=t, background_texture=b)
        for s, c, g, (t, b) in product(SHAPES, colours, grounds, textures)
    ]


def open_scenes(spec: Spec, size: int) -> RenderedScenes:
    """`scenes:200,split=report`."""
    if size < MIN_SIZE:
        raise BadOption(f"scenes are rendered at {MIN_SIZE} pixels a side or more; got size {size}")
    split, start, count = _run(spec)
    grain, ood = spec.number("grain", 0.0), "ood" in spec.options
    kinds = spec.several("edit", CHANGED, KINDS)
    ground = spec.choice("ground", "", COLOURS) if "ground" in spec.options else ""
    kept: dict[str, object] = ({"start": start} if start else {}) | ({"grain": grain} if grain else {})
    kept |= {} if kinds == CHANGED else {"edit": "+".join(kinds)}
    written = spec.written(count, leave=("limit", *({"start", "grain", "edit"} - set(kept))), split=split, **kept)
    return RenderedScenes(written, Scenes(split, count, size=size, start=start, grain=grain, ood=ood), kinds, ground)


def open_generated(spec: Spec, size: int) -> Generated:
    """`generated:128,split=report`. The model gives the size."""
    split, start, count = _run(spec)
    kept = {"start": start} if start else {}
    written = spec.written(count, leave=("limit", *({"start"} - set(kept))), split=split, **kept)
    saved = spec.choice("saved", "", tuple(SAVED)) if "saved" in spec.options else None
    return Generated(written, split, start, count, "mixture" in spec.options, saved)


def _run(spec: Spec) -> tuple[str, int, int]:
    """Split, first seed in it, and how many.

    Raises:
        BadOption: more seeds than the split has.
    """
    split, start, count = spec.choice("split", "report", SEED_RANGES), spec.whole("start", 0, low=0), spec.count(COUNT)
    assert start is not None
    low, high = SEED_RANGES[split]
    if start + count > high - low:
        name = spec.facts.name
        raise BadOption(f"{name}: split {split} has seeds 0 to {high - low - 1}; asked for {count} from {start}")
    return split, start, count
