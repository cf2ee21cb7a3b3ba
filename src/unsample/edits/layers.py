"""On which layers and steps an editor acts, told from the denoiser itself.

Papers count on the U-Net of Stable Diffusion 1.x: sixteen transformer blocks, each with a self-attention, in the order
in which they are computed (encoder 0 to 5, middle 6, decoder 7 to 15), and 50 steps. Elsewhere a number of theirs
stands for the same share of depth and steps, and a place in the decoder for the same place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.edits.attention import Layer, layers_of
from unsample.errors import BadOption, Incompatible

if TYPE_CHECKING:
    from unsample.models.base import Model

PAPER_LAYERS, PAPER_STEPS = 16, 50


def from_layer(model: Model, start_layer: int | None, paper: int, editor: str) -> list[Layer]:
    """The self-attentions from one on: the given one, else the paper's share of this depth, rounded up; one at least.

    Raises:
        Incompatible: the model has none. BadOption: a layer beyond the last; their number itself is "none of them".
    """
    layers = layers_of(model, f"editor {editor}", cross=False)
    depth = len(layers)
    if start_layer is None:
        start_layer = min(math.ceil(paper * depth / PAPER_LAYERS), depth - 1)
    if start_layer > depth:
        raise BadOption(
            f"{editor}: start_layer must be at most {depth}, the number of self-attentions of {model.id} (then none is "
            f"touched); got {start_layer}"
        )
    return layers[start_layer:]


def from_step(start_step: int | None, paper: int, steps: int) -> int:
    """From which step on an editor acts: the given one, else the paper's share of the steps, rounded."""
    return round(paper * steps / PAPER_STEPS) if start_step is None else start_step


def steps_of(share: float, steps: int) -> int:
    """How many steps a share of them is, rounded down: 0.8 of 50 is 40."""
    return math.floor(share * steps + 1e-9)


@dataclass(frozen=True)
class Decoder:
    """Where plug-and-play acts."""

    place: str  # of the residual block, "up_blocks.1.resnets.1"
    resnet: Any  # `ResnetBlock2D`: its `conv2` ends the residual branch
    layers: Sequence[Layer]  # the self-attentions from it on


def decoder_of(model: Model, editor: str) -> Decoder:
    """The second residual block of the first decoder block with self-attention, and all self-attention from it on.

    In Stable Diffusion 1.x and 2.x `up_blocks[1].resnets[1]` and, from `up_blocks[1].attentions[1]` on, eight layers;
    in SDXL `up_blocks[0].resnets[1]`, as there at a quarter of the latents' size.

    Raises:
        Incompatible: no U-Net, or none with self-attention in its decoder.
    """
    layers = [layer for layer in layers_of(model, f"editor {editor}", cross=False) if layer.place == "up"]
    network: Any = getattr(model, "unet", None)
    network = getattr(network, "_orig_mod", network)
    if not layers:
        raise Incompatible(
            f"editor {editor} injects features of a U-Net's decoder, and {model.id} ({type(network).__name__}) has no "
            "decoder with residual blocks and self-attention; use editor masactrl, which acts on any transformer block"
        )
    block = _place(layers[0])[0]
    resnets = network.up_blocks[block].resnets
    at = min(1, len(resnets) - 1)
    after = [layer for layer in layers if _place(layer) >= (block, at)]
    return Decoder(f"up_blocks.{block}.resnets.{at}", resnets[at], after)


def _place(layer: Layer) -> tuple[int, int]:
    """Of a decoder's layer: which block, and which attention of it, in "up_blocks.1.attentions.2..."."""
    parts = layer.name.split(".")
    return int(parts[1]), int(parts[3])
