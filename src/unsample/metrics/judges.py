"""Judges: which attributes a picture of the scenes world shows, by two unrelated means.

`fit_attribute` ("render_fit") uses no network: it draws the world again and takes what comes closest. `clip_attribute`
asks a CLIP model (zero-shot, arXiv:2103.00020, Sec. 3.1). The bundled CLIP shares its text tower with the model it
would judge, so neither answer is enough alone; `agreement` says how far they agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, normalize

from unsample.datasets.scenes import ATTRIBUTES, SEED_RANGES, Scene, draw_scene, render
from unsample.errors import BadInput, unknown_name
from unsample.metrics.clip import tensor_of
from unsample.metrics.surfaces import NAMES, explanations, light_of, nats, resized


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
    light = light_of(torch.tensor([math.cos(direction), math.sin(direction)]) * strength, image.shape[-1])
    colour = NAMES.index(scene.background if ground else scene.colour)
    found = explanations(image.flatten(1) / light, region.flatten(), [colour], image.shape[-1])
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
    for image, scene in zip(resized(images, size), scenes, strict=True):
        drawn = render([scene.replace(**{attribute: value}) for value in values], image.shape[-1])
        region = _region(attribute, drawn.object_mask)
        error = (((drawn.images - image) ** 2).sum(1, keepdim=True) * region).sum((1, 2, 3)) / region.sum()
        costs = dict(zip(values, (region.sum() * nats(error)).tolist(), strict=True))
        if "texture" in attribute:
            free = _texture_costs(image, scene, region, attribute == "background_texture")
            costs = {value: min(cost, free[value]) for value, cost in costs.items()}
        answers.append(min(costs, key=lambda value: costs[value]))
    return answers


# ---------------------------------------------------------------- the other judge: CLIP


def _unit(features: Any) -> Tensor:
    return normalize(tensor_of(features).float(), dim=-1)


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
    pixels = (resized(images, model.config.vision_config.image_size) - 0.5) / 0.5
    seen = _unit(model.get_image_features(pixel_values=pixels.to(model.device, model.dtype)))  # (B, D)
    length, prompts = model.config.text_config.max_position_embeddings, []
    for value in values:
        texts = _captions(attribute, value, scenes)
        tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        tokens = {key: tokens[key].to(model.device) for key in ("input_ids", "attention_mask")}
        said = _unit(model.get_text_features(**tokens))
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
