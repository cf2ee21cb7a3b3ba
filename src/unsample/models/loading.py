"""From a name, a folder, a hub id or a loaded pipeline to an adapter."""

from __future__ import annotations

import difflib
import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption, Incompatible, UnsampleError, WeightsMissing, first_line
from unsample.models.families import (
    FAMILIES,
    VAES,
    check_pipeline,
    check_pixel_unet,
    check_unet,
    folder_without_index,
    not_a_folder,
    read_json,
    weights_variant,
)
from unsample.models.families import family as family_of

if TYPE_CHECKING:
    from unsample.models.base import Model

BUNDLED_FOLDER = Path(__file__).parent / "bundled"
BUNDLED = {
    "scenes-sd": "text to 64x64 pictures of scenes, Stable Diffusion 1.x layout (the default)",
    "scenes-ddpm": "unconditional 32x32 pictures of scenes, DDPM layout",
    "scenes-mixture": "a Gaussian mixture over 512 scenes at 32x32: exact eps, with prompts; nothing trained",
}
MIXTURE = "scenes-mixture"  # closed form: no folder
JUDGES = {
    "scenes-clip": "a CLIP of scenes: the text encoder of scenes-sd, and a judge ('unsample measure'); makes none"
}
DTYPES = ("float32", "float64", "bfloat16", "float16")
OFFLOADS = ("none", "model", "sequential")


def quiet_libraries() -> None:
    """Silence the bars and log lines of diffusers and transformers, for as long as the process lasts.

    What they call an error reaches us as an exception, and is said once.
    """
    from logging import CRITICAL

    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity(CRITICAL)


@contextmanager
def without_bars(*libraries: str) -> Iterator[None]:
    """While it lasts, these libraries (diffusers, transformers) draw no bars; then all is as it was before.

    For weights that are on the disk already: a bar that is gone at once, and that no caller can turn off, is noise.
    """
    hub: Any = import_module("huggingface_hub.utils")
    loggings = [import_module(f"{library}.utils.logging") for library in libraries]
    shown = [logging for logging in loggings if logging.is_progress_bar_enabled()]
    hub_is_silent = hub.are_progress_bars_disabled()  # transformers turns the hub's on and off with its own
    for logging in shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in shown:
            logging.enable_progress_bar()
        if hub_is_silent:
            hub.disable_progress_bars()


def find_model(name: str) -> Path | None:
    """The folder of a bundled name or a path; None for a hub id. Imports nothing heavy.

    Raises:
        WeightsMissing: a name that is neither, or a folder without `model_index.json`.
    """
    if name in BUNDLED:
        return BUNDLED_FOLDER / name
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise WeightsMissing(f"{name} is a folder without model_index.json; {folder_without_index(folder)}")
        return folder
    what = not_a_folder(name)
    if what is not None:
        raise WeightsMissing(f"{name} {what}")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not folder.exists():
        return None
    near = difflib.get_close_matches(name.lower(), BUNDLED, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    hint = "it judges pictures (unsample measure) and makes none; " if name in JUDGES else hint
    raise WeightsMissing(
        f"no model {name!r}: {hint}bundled are {', '.join(BUNDLED)}; or give a diffusers folder or a hub id owner/name"
    )


def load(
    model: Any,
    *,
    device: Any = None,
    dtype: Any = None,
    offload: str = "none",
    vae_tiling: bool = False,
    gradient_checkpointing: bool = False,
    local_files_only: bool = False,
) -> Model:
    """Load a model.

    Args:
        model: a bundled name (`unsample models` lists them), a diffusers pipeline folder, a hub id, or a loaded
            diffusers pipeline (used as it is; the other arguments then must be left alone).
        device: "cpu", "cuda", ...; default: the first accelerator, else the CPU.
        dtype: of the network and the text encoder: "float32" (default), "float64", "bfloat16", "float16" or a
            torch dtype. The VAE stays in float32.
        offload: "none", "model" or "sequential" (diffusers' CPU offload; needs an accelerator).
        vae_tiling: decode and encode large pictures in tiles (diffusers' `vae.enable_tiling`).
        gradient_checkpointing: for methods that differentiate through the network.
        local_files_only: fetch nothing: what is not in the cache is missing.

    Raises:
        WeightsMissing: not found, or not what its manifest says.
        Incompatible: a pipeline of a family that is not supported.
        BadOption: an unknown dtype, device or offload.

    Example:
        >>> import unsample
        >>> unsample.load("scenes-mixture").sample_shape
        (3, 32, 32)
    """
    if offload not in OFFLOADS:
        raise BadOption(f"offload must be one of {', '.join(OFFLOADS)}; got {offload!r}")
    if not isinstance(model, str | Path):
        if (device, dtype, offload, vae_tiling, gradient_checkpointing) != (None, None, "none", False, False):
            raise BadOption("a loaded model is used as it is; set device, dtype and the like on it, or give its name")
        return _adapt(model, getattr(model, "name_or_path", None) or type(model).__name__)
    wanted_device, wanted_dtype = resolve_device(device), resolve_dtype(dtype)
    if str(model) == MIXTURE:
        from unsample.models.gaussian import scenes_mixture

        if offload != "none" or vae_tiling or gradient_checkpointing:
            raise BadOption(
                "scenes-mixture is a closed form: there is nothing to offload, tile or checkpoint; leave those out"
            )
        return scenes_mixture().to(wanted_device)
    folder = locate(str(model), local_files_only)
    given_by_name = str(model) in BUNDLED or not Path(model).expanduser().is_dir()
    with without_bars("diffusers", "transformers"):
        adapter = _load_folder(folder, str(model) if given_by_name else folder.name)
    return _place(adapter, wanted_device, wanted_dtype, offload, vae_tiling, gradient_checkpointing)


def locate(name: str, local_files_only: bool = False) -> Path:
    """The folder of a model by name, path or hub id, which is fetched where it is not here; nothing is loaded.

    Raises:
        WeightsMissing: nowhere, or a bundled one that is not what its manifest says.
    """
    folder = find_model(name) or _download(name, local_files_only)
    if name in BUNDLED and name != MIXTURE:
        check_manifest(folder)
    return folder


def wrap(
    unet: Any,
    scheduler: Any,
    vae: Any = None,
    sample_shape: tuple[int, int, int] | None = None,
    *,
    id: str | None = None,
    batched_timestep: bool = False,
) -> Model:
    """Wrap any callable network.

    Args:
        unet: `unet(sample, timestep)`, with `encoder_hidden_states=prompt_embeds` and `class_labels=...` where those
            are given to a verb; `timestep` is an int64 scalar tensor, (B,) for networks of diffusers; returns `.sample`
            or a tensor.
        scheduler: a diffusers scheduler with a discrete table.
        vae: an `AutoencoderKL`, `AsymmetricAutoencoderKL`, `AutoencoderTiny` or `VQModel` of diffusers, if the network
            works on latents.
        sample_shape: (C, H, W) of the network's input; default: from `unet.config`.
        id: the network's identity, in place of what can be read of it. By default a network with weights is told by
            them, a function by its source, constants, and what it closes over or names (`models.identity`), read once,
            here, since it may count or remember: wrap it again when you have changed what it holds.
        batched_timestep: give the timestep as (B,) to other networks too.

    Guidance other than 0 or 1 needs `negative_prompt_embeds` or `negative_class_labels`.
    """
    from unsample.models.pixel import CallableModel

    if not callable(unet):
        raise Incompatible(f"wrap needs a callable network; got {type(unet).__name__}")
    if not hasattr(scheduler, "alphas_cumprod"):
        raise Incompatible(f"wrap needs a diffusers scheduler with a discrete table; got {type(scheduler).__name__}")
    if id is not None and (not isinstance(id, str) or not id):
        raise BadOption(f"id must be a text that names the network; got {id!r}")
    if vae is not None and type(vae).__name__ not in VAES:
        raise Incompatible(f"wrap takes a VAE of class {', '.join(VAES)}; got {type(vae).__name__}")
    return CallableModel(unet, scheduler, vae, sample_shape, id, batched_timestep)


def resolve_dtype(dtype: Any) -> Any:
    """A torch dtype from a name."""
    import torch

    if dtype is None:
        return torch.float32
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise BadOption(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    return getattr(torch, name)


def resolve_device(device: Any) -> Any:
    """A torch device that exists here."""
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise BadOption(f"device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return chosen


def check_manifest(folder: Path) -> None:
    """Compare a bundled model's files with the manifest beside them.

    Raises:
        WeightsMissing: a manifest or a file that is missing or differs.
    """
    remedy = "reinstall unsample, or rebuild with 'make models'"
    try:
        manifest = json.loads((BUNDLED_FOLDER / "manifest.json").read_text())
        listed = {name: sha for name, sha in manifest.items() if name.startswith(folder.name + "/")}
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsMissing(f"the manifest of the bundled models cannot be read ({error}); {remedy}") from error
    if not listed:
        raise WeightsMissing(f"bundled model {folder.name} is not in the manifest; {remedy}")
    for name, expected in listed.items():
        path = BUNDLED_FOLDER / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        if found != expected:
            state = "is missing" if found is None else f"has SHA-256 {found[:12]}, expected {expected[:12]}"
            raise WeightsMissing(f"bundled file {name} {state}; {remedy}")


def _download(hub_id: str, local_files_only: bool) -> Path:
    from diffusers import DiffusionPipeline

    try:
        safely: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
        return Path(DiffusionPipeline.download(hub_id, **safely, local_files_only=local_files_only))
    except Exception as error:  # the hub client raises many kinds
        raise WeightsMissing(
            f"model {hub_id!r} is not in the local cache and could not be fetched "
            f"({str(error).splitlines()[0] or type(error).__name__}); give a diffusers folder, "
            "or fetch it first with 'hf download'"
        ) from error


def _load_folder(folder: Path, id: str) -> Any:
    try:
        index = json.loads((folder / "model_index.json").read_text())
        kinds = {part: kind[1] for part, kind in index.items() if isinstance(kind, list)}
        family = check_pipeline(id, index.get("_class_name"), kinds)
        check_folder(id, folder, family)
        return (_pixel if family == "pixel" else _latent)(folder, kinds, id)
    except UnsampleError:
        raise
    except Exception as error:  # whatever the readers of json, safetensors and configs raise
        reason = first_line(error, type(error).__name__)
        raise WeightsMissing(f"model {id} at {folder.name} could not be read: {reason}; fetch it again") from error


def check_folder(id: str, folder: Path, family: str) -> None:
    """What can be told of a pipeline's folder before its weights are read.

    Raises:
        Incompatible: its U-Net needs what it would not be given. WeightsMissing: weights of a kind that is not read.
    """
    parts = ("unet",) if family == "pixel" else ("unet", "vae", "text_encoder")
    configs = {p: c for p in parts if (c := read_json(folder / p / "config.json"))}
    if "unet" in configs:
        made = configs.get("vae", {}).get("latent_channels")
        check_pixel_unet(id, configs["unet"]) if family == "pixel" else check_unet(id, configs["unet"], made)
    variants = {p: v for p in parts if (v := weights_variant(id, folder, p))}
    if variants:
        named = ", ".join(f"{p} ({v})" for p, v in variants.items())
        warnings.warn(f"{id}: only rounded variants are there and are used: {named}", stacklevel=5)


def _part(folder: Path, name: str, cls: Any) -> Any:
    import torch

    more: dict[str, Any] = {"low_cpu_mem_usage": False} if name == "unet" else {}
    more["variant"] = weights_variant(folder.name, folder, name)
    return cls.from_pretrained(
        folder / name, local_files_only=True, use_safetensors=True, dtype=torch.float32, **more
    ).eval()


def _scheduler(folder: Path, kinds: dict[str, str]) -> Any:
    import diffusers

    kind = getattr(diffusers, kinds["scheduler"])
    if not issubclass(kind, diffusers.SchedulerMixin):  # a folder may name anything
        raise Incompatible(f"{kinds['scheduler']} is no scheduler of diffusers")
    return kind.from_pretrained(folder / "scheduler", local_files_only=True)


def _pixel(folder: Path, kinds: dict[str, str], id: str) -> Any:
    from diffusers import UNet2DModel

    from unsample.models.pixel import PixelModel

    return PixelModel(_part(folder, "unet", UNet2DModel), _scheduler(folder, kinds), id)


def _latent(folder: Path, kinds: dict[str, str], id: str) -> Any:
    import diffusers
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from unsample.models.latent import LatentModel

    return LatentModel(
        _part(folder, "unet", UNet2DConditionModel),
        _part(folder, "vae", getattr(diffusers, kinds["vae"])),
        _part(folder, "text_encoder", CLIPTextModel),
        CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        _scheduler(folder, kinds),
        id,
    )


def _adapt(pipeline: Any, id: str) -> Any:
    """An adapter for a loaded diffusers pipeline; an adapter comes back as it is."""
    from unsample.models.latent import LatentModel
    from unsample.models.pixel import PixelModel

    if hasattr(pipeline, "network") and hasattr(pipeline, "sample_shape"):
        if hasattr(pipeline, "check"):
            pipeline.check()  # what was put into it since it was loaded
        return pipeline
    parts = getattr(pipeline, "components", None)
    kinds = {name: _kind(part) for name, part in (parts or {}).items() if part is not None}
    if parts is None or family_of(kinds) is None:
        raise Incompatible(f"{type(pipeline).__name__} is not supported; supported are {FAMILIES}, and unsample.wrap")
    name = Path(str(id)).name
    if check_pipeline(name, type(pipeline).__name__, kinds) == "pixel":
        return PixelModel(parts["unet"], parts["scheduler"], name)
    texts = (parts["text_encoder"], parts["tokenizer"])
    return LatentModel(parts["unet"], parts["vae"], *texts, parts["scheduler"], name)


def _kind(part: Any) -> str:
    """The class of a pipeline's part; torch.compile wraps it."""
    return type(getattr(part, "_orig_mod", part)).__name__


def _place(adapter: Any, device: Any, dtype: Any, offload: str, vae_tiling: bool, gradient_checkpointing: bool) -> Any:
    """Freeze, hash, cast, move."""
    import torch

    latent = adapter.family == "latent"
    if vae_tiling and not latent:
        raise BadOption(f"vae_tiling was asked for, and {adapter.id} has no VAE; leave it out")
    networks, on_disk = [adapter.unet, *([adapter.text_encoder] if latent else [])], None
    for module in [*networks, *([adapter.vae] if latent else [])]:
        module.requires_grad_(False)
    if dtype != torch.float32 or offload != "none":
        on_disk = adapter.weights_sha256()  # before they are rounded or moved away
    for module in networks:
        if module.dtype != dtype:
            module.to(dtype)
    adapter.dtype = dtype
    if gradient_checkpointing:
        adapter.unet.enable_gradient_checkpointing()
    if vae_tiling:
        adapter.vae.enable_tiling()
    if offload == "none":
        for module in [*networks, *([adapter.vae] if latent else [])]:
            module.to(device)
    else:
        _offload(adapter, offload, device)
    if not latent:
        adapter.device = device
    if on_disk is not None:
        adapter.weights.adopt(on_disk)
    return adapter


def _offload(adapter: Any, offload: str, device: Any) -> None:
    """diffusers' own CPU offload, on a pipeline of the same components."""
    if device.type == "cpu" or adapter.family != "latent":
        raise BadOption(f"offload={offload!r} needs an accelerator and a latent model; use offload='none' here")
    from diffusers import StableDiffusionPipeline

    parts = {name: getattr(adapter, name) for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}
    pipeline = StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    getattr(pipeline, f"enable_{offload}_cpu_offload")(device=device)
    adapter.pipeline = pipeline  # keeps the hooks alive
