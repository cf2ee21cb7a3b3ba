"""From a name, a folder, a hub id or a loaded pipeline to an adapter."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption, Incompatible, WeightsMissing
from unsample.models.families import VAES, folder_without_index, not_a_folder
from unsample.models.minis import mini
from unsample.models.pipelines import adapted, read
from unsample.models.placing import DTYPES, Placing, check_placing, place
from unsample.models.single_file import read_single_file, single_file
from unsample.models.variants import parted, varied
from unsample.numbers.grid import FLOW, PREDICTION_TYPES, prediction_type_of
from unsample.wording import argument

if TYPE_CHECKING:
    from unsample.models.base import Model

BUNDLED_FOLDER = Path(__file__).parent / "bundled"
BUNDLED = {
    "scenes-sd": "text to 64x64 pictures of scenes, Stable Diffusion 1.x layout (the default)",
    "scenes-flow": "text to 64x64 pictures of scenes, a rectified flow in Stable Diffusion 3's layout",
    "scenes-ddpm": "unconditional 32x32 pictures of scenes, DDPM layout",
    "scenes-mixture": "a Gaussian mixture over 512 scenes at 32x32: exact eps, with prompts; nothing trained",
}
MIXTURE = "scenes-mixture"  # closed form: no folder
JUDGES = {
    "scenes-clip": "a CLIP of scenes: the text encoder of scenes-sd, and a judge ('unsample measure'); makes none"
}


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
    """The folder of a bundled name or a path, a single file's path; None for a hub id. Imports nothing heavy.

    Raises:
        WeightsMissing: a name that is neither, or a folder without `model_index.json`.
        BadOption: a change of its scheduler that cannot be (`variants.parted`).
    """
    name, _ = parted(name)
    if name in BUNDLED:
        return BUNDLED_FOLDER / name
    if (small := mini(name)) is not None:
        return small
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise WeightsMissing(f"{name} is a folder without model_index.json; {folder_without_index(folder)}")
        return folder
    if (file := single_file(name)) is not None:
        return file
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
    quantize: str | None = None,
    free_text_encoders: bool = False,
    config: str | Path | None = None,
    local_files_only: bool = False,
) -> Model:
    """Load a model.

    Args:
        model: a bundled name (`unsample models` lists them), a diffusers pipeline folder, a hub id, a single file of
            weights (`.safetensors`, `.ckpt`), or a loaded diffusers pipeline (used as it is; the other arguments then
            must be left alone). Behind a name, changes to its scheduler: `scenes-sd[timestep_spacing=trailing]`,
            `[set_alpha_to_one=true]`.
        device: "cpu", "cuda", ...; default: the first accelerator, else the CPU.
        dtype: of the network and the text encoders: "float32" (default), "float64", "bfloat16", "float16" or a
            torch dtype. The VAE stays in float32.
        offload: "none", or diffusers' CPU offload: "model", "group" (leaf by leaf) or "sequential", each of which needs
            less memory of the accelerator than the one before it, and more time.
        vae_tiling: decode and encode large pictures in tiles (diffusers' `vae.enable_tiling`).
        gradient_checkpointing: for methods that differentiate through the network.
        quantize: of the denoiser's weights: "bitsandbytes_4bit" (NF4), "bitsandbytes_8bit", "torchao_int8",
            "torchao_float8", "quanto_int8" or "quanto_float8", by the package of that name. It changes predictions, so
            it is part of the hash.
        free_text_encoders: keep text encoders in memory only while a prompt is read; one that is new has them read from
            the disk again.
        config: for a single file: the folder or hub id of the pipeline whose configs, and parts that the file lacks,
            are taken; default: the one that diffusers names for such a file, out of the local cache.
        local_files_only: fetch nothing: what is not in the cache is missing.

    Raises:
        WeightsMissing: not found, or not what its manifest says.
        Incompatible: a pipeline that is not served, with the reason.
        BadOption: an unknown dtype, device or offload, or what this model does not have.

    Example:
        >>> import unsample
        >>> unsample.load("scenes-mixture").sample_shape
        (3, 32, 32)
    """
    check_placing(offload, quantize, free_text_encoders)
    asked = Placing(device, dtype, offload, vae_tiling, gradient_checkpointing, quantize, free_text_encoders)
    if not isinstance(model, str | Path):
        if (device, dtype, config) != (None, None, None) or not asked.default:
            raise BadOption("a loaded model is used as it is; set device, dtype and the like on it, or give its name")
        return adapted(model, Path(str(getattr(model, "name_or_path", None) or type(model).__name__)).name)
    asked = replace(asked, device=resolve_device(device), dtype=resolve_dtype(dtype))
    base, changes = parted(str(model))
    if changes:
        return varied(_named(base, asked, config, local_files_only), str(model), changes)
    return _named(base, asked, config, local_files_only)


def _named(model: str, asked: Placing, config: str | Path | None, local_files_only: bool) -> Model:
    """The model of a name without changes."""
    single = single_file(model)
    if config is not None and single is None:
        raise BadOption(f"{argument('config')} is for a single file of weights, and {model} is none; leave it out")
    if model == MIXTURE:
        from unsample.models.gaussian import scenes_mixture

        if not asked.default:
            raise BadOption(
                "scenes-mixture is a closed form: there is nothing to offload, tile, quantize or checkpoint; leave "
                "those out"
            )
        return scenes_mixture().to(asked.device)
    with without_bars("diffusers", "transformers"):
        if single is not None:
            return place(*read_single_file(single, config, asked))
        folder = locate(model, local_files_only)
        given_by_name = model in BUNDLED or not Path(model).expanduser().is_dir()
        return place(*read(folder, model if given_by_name else folder.name, asked))


def locate(name: str, local_files_only: bool = False) -> Path:
    """The folder of a model by name, path or hub id, which is fetched where it is not here; nothing is loaded.

    Raises:
        WeightsMissing: nowhere, or a bundled one that is not what its manifest says.
    """
    name, _ = parted(name)
    folder = find_model(name) or _download(name, local_files_only)
    if name in BUNDLED and name != MIXTURE:
        check_manifest(folder)
    return folder


def wrap(
    unet: Any,
    scheduler: Any,
    vae: Any = None,
    sample_shape: tuple[int, ...] | None = None,
    *,
    id: str | None = None,
    batched_timestep: bool = False,
    timestep_scale: float | None = None,
    reversed_time: bool = False,
    prediction_type: str | None = None,
    num_classes: int | None = None,
    null_class: int | None = None,
) -> Model:
    """Wrap any callable network.

    A network that also learned a variance answers with twice the channels of its sample, the noise first: the rest is
    left out, as deterministic sampling has no use for it.

    Args:
        unet: `unet(sample, timestep)`, with `encoder_hidden_states=prompt_embeds` and `class_labels=...` where those
            are given to a verb (`y=...` to a network that calls its classes so, as ADM and DiT do); returns `.sample`
            or a tensor. `timestep` is an int64 scalar tensor, of flow matching a float one, (B,) for networks of
            diffusers.
        scheduler: of diffusers: one with a discrete table of betas, or of flow matching or other noise levels. It says
            what the network predicts: of flow matching the velocity eps - x0.
        vae: an `AutoencoderKL`, `AsymmetricAutoencoderKL`, `AutoencoderTiny` or `VQModel` of diffusers, if the network
            works on latents.
        sample_shape: (C, H, W) of the network's input; default: from `unet.config`. Or (D,) of a network that works on
            vectors (B, D): latents and noise are (B, D, 1, 1) then, and there are no pictures (`.images` is empty).
        id: the network's identity, in place of what can be read of it. By default a network with weights is told by
            them, a function by its source, constants, and what it closes over or names (`models.identity`), read once,
            here, since it may count or remember: wrap it again when you have changed what it holds.
        batched_timestep: give the timestep as (B,) to other networks too.
        timestep_scale: the network is given the scheduler's timestep times this, as a float: 1000 / 4000 for OpenAI's
            `rescale_timesteps` at 4000 steps, 1 / 1000 for flow networks that want a time in [0, 1], 1 for floats.
        reversed_time: of a flow network whose time runs from the noise (0) to the picture, and its velocity with it,
            x0 - eps (the first rectified flow, SiT, Meta's flow_matching). Without it, both run as in SD3 and FLUX.
        prediction_type: "epsilon", "v_prediction" or "sample", in place of what the scheduler says (it is copied);
            "flow" says that the scheduler is one of flow matching, and is refused with another.
        num_classes: how many classes the network draws; default: from `unet.config`, else any label is let through.
        null_class: the label that stands for no class, from which guidance leads away; default: that of a DiT's config.

    Raises:
        Incompatible: a network that cannot be asked so, a scheduler or VAE of another kind, or one that contradicts
            `prediction_type`. BadOption: a value that cannot be.

    Guidance other than 0 or 1 needs a null class, `negative_prompt_embeds` or `negative_class_labels`.

    Example:
        >>> from diffusers import FlowMatchEulerDiscreteScheduler
        >>> import unsample
        >>> given = {"sample_shape": (3, 8, 8), "timestep_scale": 1 / 1000}
        >>> model = unsample.wrap(lambda x, t: x / t, FlowMatchEulerDiscreteScheduler(), **given)  # of grey pictures
        >>> round(float(unsample.sample(model, num_inference_steps=4, generator=0).latents.abs().max()), 3)
        0.0
    """
    from unsample.models.pixel import CallableModel

    if not callable(unet):
        raise Incompatible(f"wrap needs a callable network; got {type(unet).__name__}")
    scheduler = _predicting(scheduler, prediction_type)
    if id is not None and (not isinstance(id, str) or not id):
        raise BadOption(f"id must be a text that names the network; got {id!r}")
    if vae is not None and type(vae).__name__ not in VAES:
        raise Incompatible(f"wrap takes a VAE of class {', '.join(VAES)}; got {type(vae).__name__}")
    time, classes = (batched_timestep, timestep_scale, reversed_time), (num_classes, null_class)
    return CallableModel(unet, scheduler, vae, sample_shape, id, *time, *classes)


def _predicting(scheduler: Any, prediction_type: str | None) -> Any:
    """A scheduler whose network predicts so: itself, or a copy that says so."""
    name, levels = type(scheduler).__name__, ("alphas_cumprod", "sigmas")
    if not hasattr(scheduler, "config") or not any(hasattr(scheduler, level) for level in levels):
        raise Incompatible(f"wrap needs a diffusers scheduler, with a table of betas or of noise levels; got {name}")
    own = prediction_type_of(scheduler)
    wanted = FLOW if prediction_type == "flow" else prediction_type or own
    if prediction_type is not None and wanted not in PREDICTION_TYPES:
        known = ", ".join(t for t in (*PREDICTION_TYPES, "flow") if t != FLOW)
        raise BadOption(f"prediction_type must be one of {known}; got {prediction_type!r}")
    if (wanted == FLOW) is not (own == FLOW):
        raise Incompatible(
            f"prediction_type={prediction_type!r} does not go with {name}, whose networks predict {own}; flow matching "
            "needs a scheduler such as FlowMatchEulerDiscreteScheduler, and the others one such as DDIMScheduler"
        )
    if wanted == own:
        return scheduler
    scheduler = copy.deepcopy(scheduler)
    scheduler.register_to_config(prediction_type=wanted)
    return scheduler


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
