"""What an inversion will take, before anything is loaded: memory, and passes through the network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible, UnsampleError, WeightsMissing
from unsample.methods.base import Walked
from unsample.models.families import read_json
from unsample.models.footprint import footprint
from unsample.models.loading import MIXTURE
from unsample.preflight.rules import check_strength, check_takes_prompt

if TYPE_CHECKING:
    from unsample.methods import Method
    from unsample.preflight.known import KnownModel


@dataclass(frozen=True)
class Planned:
    """Bytes, and passes a picture; `peak["device"]` is a lower bound where an activation is None."""

    model: str
    adapter: str
    method: str
    size: tuple[int, int]  # width, height
    pictures: int
    steps: int  # that are walked
    guided: bool  # whether the network is asked twice a step
    weights: dict[str, int]
    activations: dict[str, int | None]
    unknown: dict[str, str]  # activation that cannot be told, and why
    peak: dict[str, int]  # device, waiting (in the machine's memory, under offload)
    passes: int  # of the inversion, without early stopping
    backward: int

    def json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {"size": list(self.size)}


def plan(
    known: KnownModel,
    method: Method,
    *,
    size: tuple[int, int] | None = None,
    num_inference_steps: int = 50,
    pictures: int = 1,
    guidance_scale: float | None = None,
    sampling_guidance_scale: float | None = None,
    strength: float | None = None,
    dtype: str = "float32",
    offload: str = "none",
    vae_tiling: bool = False,
    quantize: str | None = None,
    free_text_encoders: bool = False,
) -> Planned:
    """Peak memory and passes of an inversion; configs and headers of weights are read, no weights.

    Args:
        known: the model, which must be here as a folder.
        method: a configured method.
        size: width and height; None: the model's own.
        num_inference_steps: of the whole grid; `strength` walks a part of it.
        pictures: that go through the model together.
        guidance_scale, sampling_guidance_scale: as of `invert`.
        strength: as of `invert`.
        dtype, offload, vae_tiling, quantize, free_text_encoders: as of `load`.

    Raises:
        WeightsMissing: not here. Incompatible: a model that is not served, or has no folder.
        BadInput: a size that the pipeline refuses.
    """
    folder = _folder(known)
    kind = guidance_of(folder, known.takes_prompt)
    scale = method.inverts_at(guidance_scale, kind == "cfg")
    own = sampling_guidance_scale if sampling_guidance_scale is not None else method.sampling_guidance_scale
    playing = scale if own is None or kind != "cfg" else own
    check_takes_prompt(known.name, known.takes_prompt, method.needs_prompt, "method")
    pairs = [2 if kind == "cfg" and w not in (0, 1) else 1 for w in (scale, playing)]
    share = strength if strength is not None else method.strength
    walked_steps = num_inference_steps if share is None else check_strength(share, num_inference_steps)
    walked = Walked(walked_steps, pairs[0], pairs[1], _timesteps(folder, num_inference_steps)[:walked_steps])
    backward = method.backward(walked)
    found, (width, height) = footprint(
        folder,
        known.name,
        dtype=dtype,
        picture=size,
        pictures=pictures,
        rows=pictures * max(pairs),
        backward=backward > 0,
        vae_tiling=vae_tiling,
        quantize=quantize,
    )
    return Planned(
        known.name,
        found.adapter,
        method.name,
        (width, height),
        pictures,
        walked_steps,
        max(pairs) == 2,
        found.weights,
        found.activations,
        found.why,
        found.peak(offload, free_text_encoders),
        method.passes(walked),
        backward,
    )


def _folder(known: KnownModel) -> Path:
    """Of a model whose configs are here.

    Raises:
        Incompatible: it has none. WeightsMissing: it is not here.
    """
    if known.name == MIXTURE:
        raise Incompatible(f"{MIXTURE} is a closed form of a few megabytes: there is nothing to plan")
    if known.folder is None:
        raise WeightsMissing(
            f"{known.name} is not here, and its configs and the headers of its weights are what is read: fetch it "
            f"first (hf download {known.name})"
        )
    if known.folder.is_file():
        raise Incompatible(
            f"{known.name} is a single file, without the configs that a plan is made from; give the folder of its "
            "pipeline"
        )
    return known.folder


def guidance_of(folder: Path, takes_prompt: bool | None) -> str:
    """What guidance a model has: "cfg" (two passes), "distilled" (a number that the network is told) or "none"."""
    network = read_json(folder / "transformer" / "config.json") or read_json(folder / "unet" / "config.json")
    if network.get("guidance_embeds"):
        return "distilled"
    classes = network.get("num_class_embeds") or network.get("num_embeds_ada_norm")
    return "none" if takes_prompt is False and not classes else "cfg"


def _timesteps(folder: Path, steps: int) -> tuple[int, ...]:
    """The noisier ends of the steps, clean to noisy; equally spaced where only the pipeline can tell them."""
    import diffusers

    from unsample.numbers.grid import grid_from_scheduler

    try:
        config = read_json(folder / "scheduler" / "scheduler_config.json")
        scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
        return tuple(int(t) for t in grid_from_scheduler(scheduler, steps).timesteps[1:])
    except (UnsampleError, KeyError, AttributeError, ValueError, TypeError):
        return tuple(round(1000 * (k + 1) / steps) - 1 for k in range(steps))
