"""A model out of one file of weights in its author's layout, through diffusers' `from_single_file`.

Such a file holds no configs and no tokenizers, and often no text encoders and no VAE: those are taken from a pipeline's
folder, the one that diffusers names for the kind of file, out of the local cache, or the one that is given. A `.ckpt`
is pickled; diffusers has torch read it with `weights_only=True`, which runs no code of the file's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unsample.errors import BadOption, Incompatible, UnsampleError, WeightsMissing, first_line, out_of_memory
from unsample.models.digests import Remembered
from unsample.models.families import check_pipeline, check_unet, not_a_folder, read_json
from unsample.models.headers import header, widest
from unsample.models.pipelines import Read, adapted
from unsample.models.placing import VAE_PARTS, Placing
from unsample.models.weights import UNUSED
from unsample.wording import argument, given

ENDINGS = (".safetensors", ".ckpt")
KINDS = {  # as diffusers calls what it can tell; what is not here is not served
    "v1": "Stable Diffusion 1.x",
    "v2": "Stable Diffusion 2.x",
    "xl_base": "SDXL",
    "sd3": "Stable Diffusion 3",
    "sd35_medium": "Stable Diffusion 3.5 medium",
    "sd35_large": "Stable Diffusion 3.5 large",
    "flux-dev": "FLUX.1 dev",
    "flux-schnell": "FLUX.1 schnell",
    "flux-2-dev": "FLUX.2 dev",
    "chroma": "Chroma",
    "auraflow": "AuraFlow",
    "lumina2": "Lumina 2",
    "sana": "Sana",
    "z-image-turbo": "Z-Image",
}
OF_A_VAE = ("first_stage_model.", "vae.")
OF_A_DENOISER = ("model.diffusion_model.", "double_blocks.", "joint_blocks.")


def single_file(name: str) -> Path | None:
    """The path of a file of weights; None where a name is something else. Imports nothing heavy.

    Raises:
        WeightsMissing: a file that is no model (a LoRA, an inversion), or is not there.
    """
    path = Path(name).expanduser()
    if not name.lower().endswith(ENDINGS) or "://" in name or path.is_dir():
        return None
    if not path.is_file():
        raise WeightsMissing(f"{name} is not there; give a single file of weights, a diffusers folder or a hub id")
    what = not_a_folder(name)
    if what is not None:
        raise WeightsMissing(f"{name} {what}")
    return path


def read_single_file(path: Path, config: str | Path | None, asked: Placing) -> Read:
    """An adapter of a single file, with what `placing.place` needs beside it.

    Args:
        path: of the file.
        config: the folder or hub id of a pipeline whose configs are taken; None: diffusers' own choice.
        asked: how it is to be placed.

    Raises:
        WeightsMissing: the configs are not here, or the file cannot be read.
        Incompatible: a kind of file that is not served. BadOption: what cannot be had of a single file.
    """
    for name, value in (("quantize", asked.quantize), ("free_text_encoders", asked.free_text_encoders)):
        if value:
            raise BadOption(
                f"{argument(name)} was asked for, and it needs a folder, since parts are read one by one; load the "
                "file in diffusers and save_pretrained it, then give that folder"
            )
    try:
        tensors = header(path) if path.suffix.lower() == ".safetensors" else {}
    except ValueError as error:
        raise WeightsMissing(f"{error}; fetch it again") from error
    folder = _configs(path, tensors, config)
    try:
        return _File(path, folder, tensors, asked).read()
    except UnsampleError:
        raise
    except Exception as error:  # whatever torch, safetensors and the converters raise
        if out_of_memory(error):
            raise
        reason = first_line(error, type(error).__name__)
        raise WeightsMissing(
            f"{path.name} could not be read as a single file with the configs of {folder.name}: {reason}"
        ) from error


def _configs(path: Path, tensors: Mapping[str, Any], config: str | Path | None) -> Path:
    """The folder whose configs are taken."""
    from diffusers.loaders.single_file_utils import DIFFUSERS_DEFAULT_PIPELINE_PATHS, infer_diffusers_model_type

    what, repo = "a pickled checkpoint", None
    if tensors:
        kind = infer_diffusers_model_type(tensors)  # of names and shapes alone
        if not any(name.startswith(OF_A_DENOISER) for name in tensors) and kind == "v1":
            raise Incompatible(f"{path.name} is no checkpoint that diffusers knows; give the folder of its pipeline")
        if kind not in KINDS:
            raise Incompatible(
                f"{path.name} is a single file of the kind {kind}, which is not served; served are "
                f"{', '.join(KINDS.values())}"
            )
        what, repo = (
            f"a checkpoint of {KINDS[kind]}",
            DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]["pretrained_model_name_or_path"],
        )
    chosen = str(config) if config is not None else repo
    if chosen is None:
        raise WeightsMissing(
            f"{path.name} is {what}, whose kind is not told before it is read; give the folder or hub id of a pipeline "
            f"of its kind as {argument('config')}"
        )
    folder = Path(chosen).expanduser()
    if (folder / "model_index.json").is_file():
        return folder
    if folder.is_dir():
        raise WeightsMissing(
            f"{given('config', chosen)} is a folder without model_index.json; give that of a diffusers pipeline"
        )
    cached = _cached(chosen)
    if cached is None:
        raise WeightsMissing(
            f"{path.name} is {what}: it needs the configs and tokenizers of {chosen}, which are not in the local "
            f"cache; fetch them (hf download {chosen} --include '*.json' '*.txt' '*.model'), or give the folder of a "
            f"pipeline of the same kind as {argument('config')}"
        )
    return cached


def _cached(repo: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo, "model_index.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


class _File:
    """A single file that is being read, with the folder of its configs."""

    def __init__(self, path: Path, folder: Path, tensors: Mapping[str, Any], asked: Placing) -> None:
        import diffusers

        self.path, self.folder, self.asked = path, folder, asked
        self.id = path.stem
        index = read_json(folder / "model_index.json")
        self.kinds = {part: kind for part, kind in index.items() if isinstance(kind, list) and len(kind) == 2}
        names = {part: kind[1] for part, kind in self.kinds.items()}
        self.which = check_pipeline(self.id, index.get("_class_name"), names)
        self.cls: Any = getattr(diffusers, str(index.get("_class_name")), None)
        if not hasattr(self.cls, "from_single_file"):
            raise Incompatible(
                f"{folder.name} is a {index.get('_class_name')}, of which diffusers {diffusers.__version__} reads no "
                "single files; give a folder"
            )
        if self.which == "latent":
            made = read_json(folder / "vae" / "config.json").get("latent_channels")
            check_unet(self.id, read_json(folder / "unet" / "config.json"), made)
        self.stored = widest(tensors) if tensors else "float32"
        # many files hold the denoiser alone
        self.alone = bool(tensors) and not any(name.startswith(OF_A_VAE) for name in tensors)
        self.vae = next(part for part in VAE_PARTS if part in self.kinds)

    def read(self) -> Read:
        """See `read_single_file`."""
        import torch

        asked = torch.float32 if self.which == "latent" else self.asked.dtype
        stored = getattr(torch, self.stored or "float32")
        remembered = Remembered(self.path.parent, [self.path.name], str(self.folder.resolve()))
        on_disk = remembered.sha256()
        if on_disk is None and torch.promote_types(stored, asked) != asked:
            on_disk = adapted(self.pipeline(stored), self.id).weights_sha256()
            remembered.keep(on_disk)
        adapter = adapted(self.pipeline(asked), self.id)
        if on_disk is None:
            on_disk = adapter.weights_sha256()
            remembered.keep(on_disk)
        readers: dict[str, Callable[[], Any]] = {}
        return adapter, self.asked, on_disk, readers

    def pipeline(self, dtype: Any) -> Any:
        """The file's pipeline, its VAE in float32."""
        import diffusers
        import torch

        here: dict[str, Any] = {"local_files_only": True, "config": str(self.folder)}
        parts: dict[str, Any] = {p: None for p in self.kinds if p in UNUSED and p in self.cls._optional_components}
        if self.alone:
            name = "transformer" if "transformer" in self.kinds else "unet"
            denoiser = getattr(diffusers, self.kinds[name][1])
            parts[name] = denoiser.from_single_file(str(self.path), subfolder=name, dtype=dtype, **here)
            return self.cls.from_pretrained(
                self.folder,
                dtype={"default": dtype, self.vae: torch.float32},
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                **parts,
            )
        vae = getattr(diffusers, self.kinds[self.vae][1])
        parts[self.vae] = vae.from_single_file(str(self.path), subfolder=self.vae, dtype=torch.float32, **here)
        return self.cls.from_single_file(str(self.path), dtype=dtype, **here, **parts)
