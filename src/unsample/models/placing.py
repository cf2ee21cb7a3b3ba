"""Where a model lies and how: dtype, device, offload, tiles, quantization, text encoders that are let go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from unsample.errors import BadOption
from unsample.wording import argument, given, value

DTYPES = ("float32", "float64", "bfloat16", "float16")
OFFLOADS = ("none", "model", "sequential", "group")
QUANTIZATIONS = {  # name to the package that does it
    "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes",
    "torchao_int8": "torchao",
    "torchao_float8": "torchao",
    "quanto_int8": "optimum.quanto",
    "quanto_float8": "optimum.quanto",
}
BITS_A_WEIGHT = {"bitsandbytes_4bit": 4}  # the others: 8
VAE_PARTS = ("vae", "vqvae", "movq")  # these stay in float32


@dataclass(frozen=True)
class Placing:
    """How a model is to be loaded. `dtype` is of the denoiser and the text encoders; a VAE stays in float32."""

    device: Any  # torch's
    dtype: Any  # torch's
    offload: str = "none"
    vae_tiling: bool = False
    gradient_checkpointing: bool = False
    quantize: str | None = None
    free_text_encoders: bool = False

    @property
    def default(self) -> bool:
        """Whether nothing but a device and a dtype is asked."""
        return (self.offload, self.vae_tiling, self.gradient_checkpointing, self.quantize, self.free_text_encoders) == (
            *("none", False, False, None, False),
        )


def check_placing(offload: str, quantize: str | None, free_text_encoders: bool) -> None:
    """Refuse, before torch is imported, what cannot be or does not go together.

    Raises:
        BadOption: with what to do.
    """
    for name, wanted, known in (
        ("offload", offload, OFFLOADS),
        ("quantize", quantize or "none", ("none", *QUANTIZATIONS)),
    ):
        if wanted not in known:
            raise BadOption(f"{argument(name)} must be one of {', '.join(known)}; got {value(wanted)}")
    if free_text_encoders and offload != "none":
        raise BadOption(
            f"{argument('free_text_encoders')} and {given('offload', offload)} were asked for, and offload moves the "
            "text encoders away already; leave one of them out"
        )
    if quantize is None:
        return
    if offload in ("sequential", "group"):
        raise BadOption(
            f"{given('quantize', quantize)} and {given('offload', offload)} were asked for, and quantized layers "
            f"cannot be moved one by one: use {given('offload', 'model')}, or none"
        )
    if find_spec(QUANTIZATIONS[quantize].partition(".")[0]) is None:
        pip = QUANTIZATIONS[quantize].replace(".", "-")
        raise BadOption(
            f"{given('quantize', quantize)} needs the package {pip}, which is not installed: pip install {pip}"
        )


def quantization_config(name: str, dtype: Any) -> Any:
    """diffusers' config of a quantization; the computation runs in `dtype`."""
    import diffusers

    if name == "bitsandbytes_4bit":
        return diffusers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    if name == "bitsandbytes_8bit":
        return diffusers.BitsAndBytesConfig(load_in_8bit=True)
    if name.startswith("quanto"):
        return diffusers.QuantoConfig(weights_dtype=name.removeprefix("quanto_"))
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    return diffusers.TorchAoConfig(Int8WeightOnlyConfig() if name == "torchao_int8" else Float8WeightOnlyConfig())


def place(adapter: Any, asked: Placing, on_disk: str | None, read_again: Mapping[str, Callable[[], Any]]) -> Any:
    """Freeze, cast and move an adapter's networks, which were read and not moved yet; the adapter comes back.

    Args:
        adapter: hand-written, or a replayed pipeline.
        asked: how.
        on_disk: the hash of its weights as they are stored.
        read_again: a part's name to a function that reads it anew, as it was read.

    Raises:
        BadOption: something is asked that this model does not have.
    """
    modules = {prefix.rstrip(".") or "unet": module for prefix, module in adapter.weights.parts().items()}
    for module in modules.values():
        module.requires_grad_(False).eval()
    denoiser = _denoiser(modules)
    vaes = [module for name, module in modules.items() if name in VAE_PARTS]
    encoders = {name: module for name, module in modules.items() if name.startswith(("text_encoder", "bert"))}
    if asked.free_text_encoders and not encoders:
        raise BadOption(
            f"{argument('free_text_encoders')} was asked for, and {adapter.id} has no text encoder; leave it out"
        )
    if asked.gradient_checkpointing:
        if not hasattr(denoiser, "enable_gradient_checkpointing"):
            raise BadOption(
                f"{argument('gradient_checkpointing')} was asked for, and {type(denoiser).__name__} cannot; leave it "
                "out"
            )
        denoiser.enable_gradient_checkpointing()
    if asked.vae_tiling:
        _tile(vaes, adapter.id)
    _cast(adapter, modules, asked)
    if asked.offload == "none":
        for module in modules.values():
            module.to(asked.device)
    else:
        _offload(adapter, asked)
    if adapter.family == "pixel":
        adapter.device = asked.device
    if asked.free_text_encoders:
        from unsample.models.encoders import freeing

        freeing(adapter, encoders, denoiser, read_again, asked)
    if on_disk is not None:
        adapter.weights.adopt(on_disk)
    return adapter


def _denoiser(modules: Mapping[str, Any]) -> Any:
    from unsample.models.families import DENOISERS

    return next(modules[name] for name in DENOISERS if name in modules)


def _tile(vaes: list[Any], id: str) -> None:
    if not vaes:
        raise BadOption(f"{argument('vae_tiling')} was asked for, and {id} has no VAE; leave it out")
    for vae in vaes:
        if not hasattr(vae, "enable_tiling"):
            raise BadOption(
                f"{argument('vae_tiling')} was asked for, and {type(vae).__name__} of {id} has no tiling; leave it out"
            )
        vae.enable_tiling()


def _cast(adapter: Any, modules: Mapping[str, Any], asked: Placing) -> None:
    """Hand-written adapters are read in float32; a pipeline is read in the dtype that is asked."""
    if adapter.family != "pipeline":
        for name, module in modules.items():
            if name not in VAE_PARTS and module.dtype != asked.dtype and not getattr(module, "is_quantized", False):
                module.to(asked.dtype)
        adapter.dtype = asked.dtype  # a pipeline tells its own


def _offload(adapter: Any, asked: Placing) -> None:
    """diffusers' own CPU offload, on a pipeline of the same components."""
    if asked.device.type == "cpu" or adapter.family == "pixel":
        raise BadOption(
            f"{given('offload', asked.offload)} needs an accelerator and a latent model; use "
            f"{given('offload', 'none')} here"
        )
    pipeline = getattr(adapter, "pipeline", None) or _pipeline_of(adapter)
    if asked.offload == "group":
        pipeline.enable_group_offload(onload_device=asked.device, offload_type="leaf_level")
    else:
        getattr(pipeline, f"enable_{asked.offload}_cpu_offload")(device=asked.device)
    adapter.pipeline = pipeline  # keeps the hooks alive


def _pipeline_of(adapter: Any) -> Any:
    from diffusers import StableDiffusionPipeline

    parts = {name: getattr(adapter, name) for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
