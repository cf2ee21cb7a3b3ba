"""How the networks of a diffusers pipeline are called: the denoiser, and the two halves of a VAE."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from unsample.errors import Incompatible, UnsampleError, first_line, out_of_memory
from unsample.numbers.grid import FLOW, prediction_type_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unsample.models.base import Condition


LABELS = ("class_labels", "y")  # what diffusers calls them; what ADM and DiT do


class Denoiser:
    """What adapters of diffusers-like networks share: how the network is asked."""

    unet: Any
    scheduler: Any
    dtype: torch.dtype | None
    batched_timestep = False  # whether the network takes a time for every picture
    timestep_scale: float | None = None  # what the network's time is of the scheduler's; None: that itself
    reversed_time = False  # whether its time runs from the noise to the picture, and its velocity with it
    label_name = LABELS[0]
    vectors = False  # whether it works on (B, D), of states (B, D, 1, 1)

    def network(self, x: Tensor, timestep: float, condition: Condition) -> Tensor:
        """The network's raw output: cast in, unwrap `.sample`, drop a learned variance, cast out.

        Raises:
            Incompatible: the network cannot be asked so, or its answer is not one.
        """
        import torch

        state, x = x, x.flatten(1) if self.vectors else x
        t, dtype, more = self.time(timestep, x), self.dtype or x.dtype, {}
        if condition.prompt_embeds is not None:
            more["encoder_hidden_states"] = condition.prompt_embeds.to(dtype)
        if condition.class_labels is not None:
            more[self.label_name] = condition.class_labels
        try:
            output = self.unet(x.to(dtype, copy=True), t, **more)  # it may write into what it is given
        except Exception as error:  # whatever a network of the user's raises
            if isinstance(error, UnsampleError) or out_of_memory(error):
                raise
            missing = [name for name in more if f"unexpected keyword argument '{name}'" in str(error)]
            if missing:
                raise Incompatible(
                    f"{missing[0]} was given, and the network takes no such argument: {error}"
                ) from error
            raise Incompatible(_not_so(error, x, t, more)) from error
        output = getattr(output, "sample", output)
        output = output[0] if isinstance(output, tuple) else output
        if not isinstance(output, torch.Tensor):
            raise Incompatible(
                f"the network answered {type(output).__name__}, not a tensor, a tuple with one or .sample"
            )
        if x.ndim == output.ndim == 4 and output.shape[1] == 2 * x.shape[1]:
            output = output[:, : x.shape[1]]  # the other half is a learned variance
        if output.shape != x.shape:
            learned = ", or twice the channels where it learned a variance" if x.ndim == 4 else ""
            raise Incompatible(
                f"the network answered {tuple(output.shape)} to a sample of {tuple(x.shape)}; its noise is of the "
                f"sample's own shape{learned}"
            )
        output = output.to(x.dtype).reshape(state.shape)
        return -output if self.reversed_time else output

    def time(self, timestep: float, x: Tensor) -> Tensor:
        """What the network is told of a timestep: a scalar, or (B,) of equal numbers.

        int64, as the rows of a scheduler's table are; a float (float64 for a network of that dtype, else float32) where
        they are none (flow matching, a point between two rows) or are scaled.
        """
        import torch

        flow, at = prediction_type_of(self.scheduler) == FLOW, timestep
        if self.reversed_time:
            at = self.scheduler.config.num_train_timesteps - at
        whole = not flow and self.timestep_scale is None and at == int(at)
        wide = torch.float64 if (self.dtype or x.dtype) is torch.float64 else torch.float32
        scaled = at if self.timestep_scale is None else at * self.timestep_scale
        t = torch.tensor(scaled, dtype=torch.int64 if whole else wide, device=x.device)
        return t.expand(len(x)) if self.batched_timestep else t


def _not_so(error: BaseException, x: Tensor, t: Tensor, more: dict[str, Tensor]) -> str:
    """What a network was given when it stopped with an error of its own, and what can be wrong with it."""
    given = [f"a sample {tuple(x.shape)}", "one timestep for all" if t.ndim == 0 else f"timesteps {tuple(t.shape)}"]
    given += [f"{name} {tuple(value.shape)}" for name, value in more.items()]
    said = first_line(error)
    return (
        f"the network stopped with {type(error).__name__}{f' ({said})' if said else ''} when it was given "
        f"{', '.join(given)}; if the size is wrong, give pictures or latents of another; if it wants a time for every "
        "picture, unsample.wrap(..., batched_timestep=True) gives (B,); another form, or more arguments, a function of "
        "your own gives: lambda x, t: net(x, t.expand(len(x), 1))"
    )


def inputs_of(unet: Any, id: str) -> tuple[frozenset[str], frozenset[str]]:
    """Of a network's arguments after sample and timestep: which it cannot be asked without, and all that it names.

    Raises:
        Incompatible: it cannot be asked without something that nobody would give.
    """
    network = getattr(unet, "_orig_mod", unet)
    try:
        signature = inspect.signature(getattr(network, "forward", network))
    except (TypeError, ValueError):
        return frozenset(), frozenset()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [p for p in signature.parameters.values() if p.kind not in variable][2:]
    needed = [p.name for p in named if p.default is inspect.Parameter.empty]
    strange = [name for name in needed if name not in ("encoder_hidden_states", *LABELS)]
    if strange:
        raise Incompatible(
            f"{id} cannot be asked without {', '.join(strange)}; give unsample.wrap a function that gives them: "
            f"lambda x, t: net(x, t, {strange[0]}=...)"
        )
    return frozenset(needed), frozenset(p.name for p in named)


def config_of(network: Any) -> dict[str, Any]:
    """A diffusers network's config as its `forward` reads it (an IP-Adapter sets an attribute, not the entry)."""
    config = getattr(network, "config", None)
    return {name: getattr(config, name, value) for name, value in dict(config or {}).items()}


def vae_factor(vae: Any) -> int:
    """Picture pixels per latent pixel."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def vae_encode(vae: Any, images: Tensor) -> Tensor:
    """The scaled posterior mean (never a sample) of pictures in [0, 1]; of a VAE without a posterior, what it makes."""
    encoded = vae.encode((images * 2 - 1).to(vae.dtype))
    mean = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    return scaled(vae, mean.to(images.dtype))


def vae_decode(vae: Any, latents: Tensor) -> Tensor:
    """Latents to pictures, nominally in [0, 1]."""
    return vae.decode(unscaled(vae, latents).to(vae.dtype)).sample.to(latents.dtype) / 2 + 0.5


def scaled(vae: Any, z: Tensor) -> Tensor:
    """What the VAE makes, as the denoiser sees it."""
    return (z - (vae.config.get("shift_factor") or 0)) * vae.config.scaling_factor


def unscaled(vae: Any, latents: Tensor) -> Tensor:
    """The other way."""
    return latents / vae.config.scaling_factor + (vae.config.get("shift_factor") or 0)


_told: WeakSet[Any] = WeakSet()


@contextmanager
def evaluating(model: Any, stacklevel: int = 5) -> Iterator[None]:
    """The model's networks without dropout and the like; afterwards each layer is in the mode that it was in.

    A network in train mode answers differently every time, and nothing can be inverted then: it is said once, of the
    caller that `stacklevel` names.
    """
    named = ("unet", "vae", "text_encoder")
    parts: list[Any] = getattr(model, "networks", None) or [getattr(model, name, None) for name in named]
    parts += list(getattr(getattr(model, "identity", None), "networks", ()))
    owners = [part for part in parts if hasattr(part, "modules")]
    training = {part: [layer for layer in part.modules() if layer.training] for part in owners}
    new = [part for part, layers in training.items() if layers and part not in _told]
    if new:
        _told.update(new)
        names = ", ".join(type(part).__name__ for part in new)
        warnings.warn(
            f"{model.id}: {names} was in train mode (dropout and the like), in which it answers differently every "
            "time; it is in evaluation mode for the call and put back afterwards; call .eval() on it",
            stacklevel=stacklevel,
        )
    for layer in (layer for layers in training.values() for layer in layers):
        layer.training = False
    try:
        yield
    finally:
        for layer in (layer for layers in training.values() for layer in layers):
            layer.training = True
