"""ComfyUI's `.latent` files: a recovered noise for its samplers, and what it saved for ours.

Such a file is safetensors: `latent_tensor`, what the VAE's encoder made, unscaled, and an empty
`latent_format_version_0` (without it, files of before, the tensor is scaled by .18215). Its sampler scales the latent
and, given no noise to add, begins at it in the terms x / alpha: `x0 + (sigma / alpha) eps`, of a flow `alpha x` of it.
So what is written is the noise over alpha at the point that was reached, unscaled; at alpha = 0 there is none.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, Incompatible, first_line

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.verbs.results import Inversion

TENSOR, VERSION = "latent_tensor", "latent_format_version_0"
OLD_SCALE = 0.18215  # of files without a version


def to_comfyui(inversion: Inversion, path: str | os.PathLike[str], model: Any) -> None:
    """See `Inversion.to_comfyui`."""
    import torch
    from safetensors.torch import save

    from unsample.media.files import as_json, atomic_write, plain_settings
    from unsample.verbs.playing import check_model, opened
    from unsample.verbs.settings import settings

    inversion, path = opened(inversion), Path(path)
    _check_autoencoder(model)
    check_model(model, inversion, False)
    if path.suffix != ".latent":
        raise BadInput(f"{path}: ComfyUI lists files that end in .latent; give such a name")
    if "diverged" in inversion.status:
        raise BadInput(f"cannot save {path}: a picture of this inversion diverged; save the others one by one")
    alpha = inversion.meta.grid.alpha[inversion.meta.stop_index]
    if alpha == 0:
        raise Incompatible(
            f"{model.id}: the noise lies at alpha = 0, and ComfyUI's samplers multiply a latent by alpha, so that none "
            "leads there; invert with a strength under 1, or take .noise for a node that takes noise"
        )
    told = plain_settings(settings("invert", inversion.meta, 0), max_bytes=2**16)
    with torch.no_grad():
        latent = model.for_vae(inversion.noise.to(model.device) / alpha).float().cpu().contiguous()
    content = save({TENSOR: latent, VERSION: torch.tensor([])}, metadata={"unsample": as_json(told)})
    atomic_write(path, lambda temporary: temporary.write_bytes(content))


def from_comfyui(path: str | os.PathLike[str], model: Any, num_inference_steps: int | None = None) -> Tensor:
    """What a `.latent` file of ComfyUI holds, on the model's own range.

    Args:
        path: the file.
        model: the one that it is for, as `load` gives it.
        num_inference_steps: read the latent as a noise, the point at the noisiest level of a grid of so many steps,
            for `sample(model, noise=...)` with as many; None: as a picture's latents, for `invert(model, latents=...)`.

    Returns:
        (B, C, H, W), float32.

    Raises:
        BadInput: missing, no such file, not of that model's shape, or a noise of ours without its number of steps.
            Incompatible: a model without an autoencoder.
        BadOption: a number of steps that cannot be.

    Example:
        >>> import tempfile, unsample
        >>> model = unsample.load("scenes-sd")
        >>> picture = unsample.sample(model, num_inference_steps=2).images
        >>> inversion = unsample.invert(model, picture, num_inference_steps=10)
        >>> inversion.to_comfyui(tempfile.gettempdir() + "/noise.latent", model)
        >>> noise = unsample.from_comfyui(tempfile.gettempdir() + "/noise.latent", model, num_inference_steps=10)
        >>> float((noise - inversion.noise).abs().max()) < 1e-5
        True
    """
    from safetensors.torch import load_file

    from unsample.numbers.grid import check_steps

    _check_autoencoder(model)
    if num_inference_steps is None and (steps := _steps_of(path)) is not None:
        raise BadInput(
            f"{os.fspath(path)!r} is the noise of an inversion in {steps} steps; give num_inference_steps={steps} to "
            "read it as that noise"
        )
    grid = None if num_inference_steps is None else model.grid(check_steps(num_inference_steps))
    try:
        tensors = load_file(Path(path))
    except Exception as error:  # safetensors raises its own kind, OSError and ValueError
        raise BadInput(
            f"{os.fspath(path)!r} cannot be read: {first_line(error)}; give a .latent file of ComfyUI"
        ) from error
    if TENSOR not in tensors or not tensors[TENSOR].is_floating_point():
        raise BadInput(f"{os.fspath(path)!r} holds no {TENSOR}; give a .latent file of ComfyUI")
    latent = tensors[TENSOR].float() / (1 if VERSION in tensors else OLD_SCALE)
    channels = model.sample_shape[0]
    if latent.ndim not in (4, 5) or latent.shape[1] != channels or 0 in latent.shape:
        shape = tuple(latent.shape)
        raise BadInput(f"{os.fspath(path)!r} holds a latent of {shape}; {model.id} takes (B, {channels}, H, W)")
    if not bool(latent.isfinite().all()):
        raise BadInput(f"{os.fspath(path)!r} holds numbers that are not finite; save it again")
    found: Tensor = model.from_vae(latent)
    return found if grid is None else found * grid.alpha[-1]


def _steps_of(path: str | os.PathLike[str]) -> int | None:
    """Of a whole noise that `to_comfyui` wrote: in how many steps it was found; None for every other file."""
    import json

    from safetensors import safe_open

    try:
        with safe_open(os.fspath(path), "pt") as file:
            told = json.loads((file.metadata() or {}).get("unsample", "{}"))
        whole = told.get("verb") == "invert" and told.get("strength", 1) == 1
        return int(told["num_inference_steps"]) if whole else None
    except Exception:  # no such file, or not ours: it is read below
        return None


def _check_autoencoder(model: Any) -> None:
    """ComfyUI's latents are an autoencoder's."""
    if getattr(model, "vae", None) is None or not hasattr(model, "for_vae"):
        raise Incompatible(
            f"{getattr(model, 'id', type(model).__name__)} has no autoencoder, and .latent files hold what one makes; "
            "give a latent model, as unsample.load gives it"
        )
