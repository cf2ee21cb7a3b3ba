"""From a folder of a diffusers pipeline, or a loaded one, to an adapter; nothing is cast, moved or frozen yet."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from unsample.errors import Incompatible, UnsampleError, WeightsMissing, first_line, out_of_memory
from unsample.models.digests import Remembered, folder_sha256
from unsample.models.families import (
    DENOISERS,
    SERVED,
    check_channels,
    check_pipeline,
    check_pixel_unet,
    check_unet,
    read_json,
    weights_variant,
)
from unsample.models.headers import stored, widest
from unsample.models.placing import VAE_PARTS, Placing, quantization_config
from unsample.models.weights import UNUSED, joined

Read = tuple[Any, Placing, str, dict[str, Callable[[], Any]]]
"""What `placing.place` takes: an adapter, how it is to be placed, its hash as stored, and its parts' readers."""


def adapted(pipeline: Any, id: str) -> Any:
    """An adapter for a loaded diffusers pipeline; an adapter comes back as it is.

    Raises:
        Incompatible: not served, with the reason.
    """
    if hasattr(pipeline, "network") and hasattr(pipeline, "weights_sha256"):
        if hasattr(pipeline, "check"):
            pipeline.check()  # what was put into it since it was loaded
        return pipeline
    parts = getattr(pipeline, "components", None)
    kinds = {name: _kind(part) for name, part in (parts or {}).items() if part is not None}
    if parts is None:
        raise Incompatible(f"{type(pipeline).__name__} is no pipeline of diffusers; {SERVED}")
    which = check_pipeline(id, type(pipeline).__name__, kinds)
    if which == "pixel":
        from unsample.models.pixel import PixelModel

        return PixelModel(parts["unet"], parts["scheduler"], id)
    if which == "latent":
        from unsample.models.latent import LatentModel

        texts = (parts["text_encoder"], parts["tokenizer"])
        return LatentModel(parts["unet"], parts["vae"], *texts, parts["scheduler"], id)
    if kinds.get("unet") and kinds.get("vae"):
        check_channels(id, parts["unet"].config.in_channels, parts["vae"].config.get("latent_channels"))
    return replayed(pipeline, id)


def replayed(pipeline: Any, id: str) -> Any:
    """The adapter that records what a pipeline asks of its denoiser."""
    from unsample.models.replay import ReplayModel

    return ReplayModel(pipeline, id)


def _kind(part: Any) -> str:
    """The class of a pipeline's part; torch.compile wraps it."""
    return type(getattr(part, "_orig_mod", part)).__name__


def read(folder: Path, id: str, asked: Placing) -> Read:
    """An adapter of a pipeline's folder, with what `place` needs beside it.

    Raises:
        Incompatible: not served. WeightsMissing: a part is missing, or cannot be read.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text())
        kinds = {part: kind for part, kind in index.items() if isinstance(kind, list)}
        names = {part: kind[1] for part, kind in kinds.items()}
        which = check_pipeline(id, index.get("_class_name"), names)
        check_folder(id, folder, which, names)
        libraries = {part: kind[0] for part, kind in kinds.items() if kind[0] is not None}
        return _Folder(folder, id, index["_class_name"], which, names, libraries, asked).read()
    except UnsampleError:
        raise
    except Exception as error:  # whatever the readers of json, safetensors and configs raise
        if out_of_memory(error):
            raise
        reason = first_line(error, type(error).__name__)
        raise WeightsMissing(f"model {id} at {folder.name} could not be read: {reason}; fetch it again") from error


def check_folder(id: str, folder: Path, which: str, kinds: Mapping[str, str | None]) -> None:
    """What can be told of a pipeline's folder before its weights are read.

    Raises:
        Incompatible: its U-Net needs what it would not be given. WeightsMissing: weights of a kind that is not read.
    """
    own = {"pixel": ("unet",), "latent": ("unet", "vae", "text_encoder")}
    parts = own.get(which) or tuple(p for p in kinds if kinds[p] and p not in UNUSED and (folder / p).is_dir())
    configs = {p: c for p in parts if (c := read_json(folder / p / "config.json"))}
    if "unet" in configs and which != "pipeline":
        made = configs.get("vae", {}).get("latent_channels")
        check_pixel_unet(id, configs["unet"]) if which == "pixel" else check_unet(id, configs["unet"], made)
    if "unet" in configs and which == "pipeline":
        check_channels(id, configs["unet"].get("in_channels", 4), configs.get("vae", {}).get("latent_channels"))
    variants = {p: v for p in parts if (v := weights_variant(id, folder, p))}
    if variants:
        named = ", ".join(f"{p} ({v})" for p, v in variants.items())
        warnings.warn(f"{id}: only rounded variants are there and are used: {named}", stacklevel=5)


@dataclass
class _Folder:
    """A pipeline's folder that is being read."""

    folder: Path
    id: str
    name: str  # of the pipeline's class
    which: str  # adapter
    kinds: dict[str, str]  # part to class
    libraries: dict[str, str]  # part to where its class is
    asked: Placing

    def read(self) -> Read:
        """See `read`."""
        if self.which == "pipeline":
            self.check_classes()
        variant = ",".join(filter(None, (self.variant(part) for part in self.parts.values())))
        remembered = Remembered(self.folder, [*self.parts.values()], variant)
        on_disk = remembered.sha256()
        if on_disk is None and not self.is_exact:
            on_disk = folder_sha256({prefix: partial(self.as_stored, part) for prefix, part in self.parts.items()})
            remembered.keep(on_disk)
        adapter = {"pixel": self.pixel, "latent": self.latent, "pipeline": self.pipeline}[self.which]()
        if on_disk is None:
            on_disk = adapter.weights_sha256()
            remembered.keep(on_disk)
        if self.asked.quantize:
            on_disk = joined(on_disk, [f"quantize {self.asked.quantize}"])
        return adapter, self.asked, on_disk, {part: partial(self.again, part) for part in self.parts.values()}

    @cached_property
    def parts(self) -> dict[str, str]:
        """Prefix of the tensors' names to part: those with weights that count."""
        if self.which == "pixel":
            return {"": "unet"}
        if self.which == "latent":
            return {f"{part}.": part for part in ("unet", "vae", "text_encoder")}
        networks = [part for part in self.libraries if part not in UNUSED and hasattr(self.cls(part), "state_dict")]
        return {f"{part}.": part for part in networks}

    def cls(self, part: str) -> Any:
        """The class of a part, out of the libraries whose classes a folder may name.

        Raises:
            Incompatible: it names another.
        """
        import diffusers

        library, name = self.libraries.get(part, "diffusers"), self.kinds[part]
        if library in ("diffusers", "transformers"):
            found = getattr(import_module(library), name, None)
        else:
            found = getattr(getattr(diffusers.pipelines, library, None), name, None)
        if found is None:
            raise Incompatible(
                f"{self.id}: {part} is a {name} of {library}, which diffusers {diffusers.__version__} does not have; "
                "a newer one may (code that comes with a model is never run)"
            )
        return found

    def check_classes(self) -> None:
        """Refuse a folder that names what diffusers and transformers do not have (`Incompatible`)."""
        _ = self.pipeline_class
        for part in self.libraries:
            self.cls(part)

    @cached_property
    def pipeline_class(self) -> Any:
        """The class of a pipeline of diffusers.

        Raises:
            Incompatible: it is none.
        """
        import diffusers

        found = getattr(diffusers, self.name, None)
        if packages := getattr(found, "_backends", None):  # what stands in its place where they are not installed
            raise Incompatible(f"{self.id} is a {self.name}, which needs the packages {', '.join(packages)}")
        if not (isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)):
            raise Incompatible(
                f"{self.id} is a {self.name}, which diffusers {diffusers.__version__} does not have; a newer one may "
                "(code that comes with a model is never run)"
            )
        return found

    @cached_property
    def is_exact(self) -> bool:
        """Whether the dtype in which each part is read holds what is stored, so that its hash is that of the files."""
        return self.asked.quantize is None and all(self.holds(part) for part in self.parts.values())

    def holds(self, part: str) -> bool:
        """The same of one part."""
        import torch

        found = widest(stored(self.folder / part, self.variant(part)))
        return found is None or torch.promote_types(getattr(torch, found), self.dtype(part)) == self.dtype(part)

    def dtype(self, part: str) -> Any:
        """The one in which a part is read: the hand-written adapters' are cast afterwards."""
        import torch

        return torch.float32 if self.which != "pipeline" or part in VAE_PARTS else self.asked.dtype

    def variant(self, part: str) -> str | None:
        """Of a part's weights."""
        return weights_variant(self.id, self.folder, part)

    def part(self, part: str, cls: Any, dtype: Any, **more: Any) -> Any:
        """One network, in evaluation mode."""
        found = cls.from_pretrained(
            self.folder / part,
            variant=self.variant(part),
            local_files_only=True,
            use_safetensors=True,
            dtype=dtype,
            **more,
        )
        return found.eval()

    def as_stored(self, part: str) -> Any:
        """A part in a dtype that holds what is stored."""
        import torch

        found = widest(stored(self.folder / part, self.variant(part)))
        return self.part(part, self.cls(part), torch.float32 if found is None else getattr(torch, found))

    def again(self, part: str) -> Any:
        """A part as it is after it was placed."""
        import torch

        dtype = torch.float32 if part in VAE_PARTS else self.asked.dtype
        return self.part(part, self.cls(part), self.dtype(part)).to(dtype=dtype)

    def unet(self, cls: Any) -> Any:
        """A hand-written adapter's denoiser; quantized while it is read, where that is asked."""
        if self.asked.quantize is None:
            return self.part("unet", cls, self.dtype("unet"), low_cpu_mem_usage=False)
        config = quantization_config(self.asked.quantize, self.asked.dtype)
        return self.part("unet", cls, self.asked.dtype, quantization_config=config)

    def scheduler(self) -> Any:
        """A scheduler of diffusers."""
        import diffusers

        kind = getattr(diffusers, self.kinds["scheduler"])
        if not issubclass(kind, diffusers.SchedulerMixin):  # a folder may name anything
            raise Incompatible(f"{self.kinds['scheduler']} is no scheduler of diffusers")
        return kind.from_pretrained(self.folder / "scheduler", local_files_only=True)

    def pixel(self) -> Any:
        """The hand-written adapter of `UNet2DModel`."""
        from diffusers import UNet2DModel

        from unsample.models.pixel import PixelModel

        return PixelModel(self.unet(UNet2DModel), self.scheduler(), self.id)

    def latent(self) -> Any:
        """The hand-written adapter of Stable Diffusion 1.x/2.x."""
        import diffusers
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        from unsample.models.latent import LatentModel

        return LatentModel(
            self.unet(UNet2DConditionModel),
            self.part("vae", getattr(diffusers, self.kinds["vae"]), self.dtype("vae")),
            self.part("text_encoder", CLIPTextModel, self.dtype("text_encoder")),
            CLIPTokenizer.from_pretrained(self.folder / "tokenizer", local_files_only=True),
            self.scheduler(),
            self.id,
        )

    def pipeline(self) -> Any:
        """Any other, by its own loader, without the parts that take no part in a prediction or were left out."""

        cls = self.pipeline_class
        taken, settings = cls._get_signature_keys(cls)
        more: dict[str, Any] = {p: None for p in self.kinds if p in UNUSED and p in cls._optional_components}
        more |= {p: None for p in self.kinds if p in taken and p not in self.libraries}  # diffusers wants it said again
        if "requires_safety_checker" in settings:
            more["requires_safety_checker"] = False
        if self.asked.quantize is not None:
            denoiser = next(part for part in DENOISERS if part in self.libraries)
            config = quantization_config(self.asked.quantize, self.asked.dtype)
            pipeline_config = import_module("diffusers.quantizers").PipelineQuantizationConfig
            more["quantization_config"] = pipeline_config(quant_mapping={denoiser: config})
        pipeline = cls.from_pretrained(
            self.folder,
            dtype={"default": self.asked.dtype, **{part: self.dtype(part) for part in self.parts.values()}},
            variant=next(filter(None, (self.variant(part) for part in self.parts.values())), None),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            **more,
        )
        return replayed(pipeline, self.id)
