"""How much memory a pipeline's folder needs, before anything is loaded: weights from headers, activations by shape.

The networks are built from their configs with tensors that have a shape and no values (torch's `FakeTensorMode`), and
the pipeline's own call is followed up to its first question to the denoiser. Every tensor that an operator makes is
counted while it lives, so attention counts its scores only where the kernel that torch chooses makes them; added is
what convolutions take to reorder on a CPU. Not counted: what other kernels take for themselves while they run, the
fragments of an allocator, Python and the libraries.
"""

from __future__ import annotations

import inspect
import json
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from unsample.errors import BadInput, UnsampleError, WeightsMissing, first_line
from unsample.models.families import DENOISERS, check_pipeline, weights_variant
from unsample.models.headers import size, stored
from unsample.models.pipelines import check_folder
from unsample.models.placing import BITS_A_WEIGHT, VAE_PARTS
from unsample.models.weights import UNUSED

SAMPLE = ("hidden_states", "sample", "x")  # what denoisers call the state


@dataclass(frozen=True)
class Footprint:
    """Bytes. An activation is what its phase needs beside the weights; None where it cannot be told without values."""

    adapter: str
    weights: dict[str, int]  # part to bytes
    largest: dict[str, int]  # part to its largest layer
    activations: dict[str, int | None]  # text, encode, denoise, backward, decode
    why: dict[str, str] = field(default_factory=dict)  # what cannot be told, and why

    @property
    def denoiser(self) -> str:
        """The part that is asked at every step."""
        return next(part for part in DENOISERS if part in self.weights)

    def peak(self, offload: str = "none", free_text_encoders: bool = False) -> dict[str, int]:
        """Of the device that computes, and of the machine's own memory where parts wait there; phase by phase.

        Args:
            offload: none, model, group or sequential.
            free_text_encoders: whether text encoders are dropped when the denoiser is asked.
        """
        total, text = sum(self.weights.values()), sum(n for p, n in self.weights.items() if _reads_text(p))
        vae = sum(n for p, n in self.weights.items() if p in VAE_PARTS)
        own = {"text": text, "encode": vae, "decode": vae, "denoise": self.weights[self.denoiser]}
        own["backward"] = own["denoise"]
        device = 0
        for phase, needed in self.activations.items():
            resident = total
            if offload == "model":
                resident = own[phase]
            elif offload in ("group", "sequential"):
                resident = max(self.largest.values())
            elif free_text_encoders and phase != "text":
                resident = total - text
            device = max(device, resident + (needed or 0))
        if offload == "none" and free_text_encoders:
            device = max(device, total)  # while a prompt is read
        return {"device": device, "waiting": total if offload != "none" else 0}


def footprint(
    folder: Path,
    id: str,
    *,
    dtype: str = "float32",
    picture: tuple[int, int] | None = None,
    pictures: int = 1,
    rows: int = 1,
    backward: bool = False,
    vae_tiling: bool = False,
    quantize: str | None = None,
) -> tuple[Footprint, tuple[int, int]]:
    """The memory that a folder's model needs, and the size (width, height) of its pictures.

    Args:
        folder: of a diffusers pipeline.
        id: what errors call it.
        dtype: of denoiser and text encoders.
        picture: width and height; None: the model's own.
        pictures: in a batch.
        rows: that the denoiser is asked for at once: twice the pictures under guidance.
        backward: whether gradients run through the denoiser.
        vae_tiling: whether the VAE works in tiles.
        quantize: of the denoiser.

    Raises:
        WeightsMissing: a part that is missing or cannot be read. Incompatible: not served.
        BadInput: a size that the pipeline refuses.
    """
    asked = _Asked(dtype, picture, pictures, rows, backward, vae_tiling, quantize)
    try:
        index = json.loads((folder / "model_index.json").read_text())
        kinds = {part: kind for part, kind in index.items() if isinstance(kind, list)}
        names = {part: kind[1] for part, kind in kinds.items()}
        which = check_pipeline(id, index.get("_class_name"), names)
        check_folder(id, folder, which, names)
        there = {part: (kind[0], kind[1]) for part, kind in kinds.items() if kind[0] is not None}
        return _Weightless(folder, id, index["_class_name"], which, there, asked).footprint()
    except UnsampleError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        reason = first_line(error, type(error).__name__)
        raise WeightsMissing(f"model {id} at {folder.name} cannot be planned for: {reason}") from error


@dataclass(frozen=True)
class _Asked:
    dtype: str
    picture: tuple[int, int] | None
    pictures: int
    rows: int
    backward: bool
    vae_tiling: bool
    quantize: str | None


class _Stop(Exception):
    """The pipeline has asked its denoiser."""


@dataclass
class _Weightless:
    """A pipeline whose networks have shapes and no values."""

    folder: Path
    id: str
    name: str
    which: str
    kinds: Mapping[str, tuple[str, str]]
    asked: _Asked
    found: dict[str, int | None] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)

    def footprint(self) -> tuple[Footprint, tuple[int, int]]:
        """See `footprint`."""
        weights: dict[str, int] = {}
        largest: dict[str, int] = {}
        for part in self.networks:
            tensors = stored(self.folder / part, weights_variant(self.id, self.folder, part))
            dtype = "float32" if part in VAE_PARTS else self.asked.dtype
            weights[part] = size(tensors, dtype)
            if self.asked.quantize and part in DENOISERS:
                matrices = {n: t for n, t in tensors.items() if t.floating and len(t.shape) > 1}
                bits = BITS_A_WEIGHT.get(self.asked.quantize, 8)
                weights[part] += sum(t.count for t in matrices.values()) * bits // 8 - size(matrices, dtype)
            largest[part] = max((size({n: t}, dtype) for n, t in tensors.items()), default=0)
        if self.which == "pixel":
            self.ask_pixels()
        else:
            self.ask_pipeline()
            self.ask_vae()
        order = ("text", "encode", "denoise", "backward", "decode")
        activations = {phase: self.found[phase] for phase in order if phase in self.found}
        return Footprint(self.which, weights, largest, activations, self.why), self.size

    @cached_property
    def networks(self) -> dict[str, Any]:
        """Part to class, of what has weights that count."""
        found = {part: self.cls(part) for part in self.kinds if part not in UNUSED}
        return {part: cls for part, cls in found.items() if hasattr(cls, "state_dict")}

    def cls(self, part: str) -> Any:
        """The class of a part."""
        import diffusers

        library, name = self.kinds[part]
        owner = import_module(library) if library in ("diffusers", "transformers") else None
        found = getattr(owner or getattr(diffusers.pipelines, library, None), name, None)
        if found is None:
            raise AttributeError(f"{part} is a {name} of {library}, which is not here")
        return found

    @cached_property
    def mode(self) -> Any:
        """Tensors made in it have no values."""
        from torch._subclasses.fake_tensor import FakeTensorMode

        return FakeTensorMode(allow_non_fake_inputs=True)

    @cached_property
    def built(self) -> dict[str, Any]:
        """Part to network, by config."""
        import torch

        made = {}
        for part, cls in self.networks.items():
            dtype = torch.float32 if part in VAE_PARTS else getattr(torch, self.asked.dtype)
            with _default_dtype(dtype), self.mode:
                if hasattr(cls, "load_config"):
                    network = cls.from_config(cls.load_config(self.folder / part))
                else:
                    network = cls(cls.config_class.from_pretrained(self.folder / part, local_files_only=True))
            made[part] = network.eval().requires_grad_(False)
        return made

    @property
    def denoiser(self) -> Any:
        """The network that is asked at every step."""
        return next(self.built[part] for part in DENOISERS if part in self.built)

    def ask_pixels(self) -> None:
        """A `UNet2DModel`."""
        import torch

        config = self.denoiser.config
        own = config["sample_size"]
        height, width = (own, own) if isinstance(own, int) else own
        self.size = self.asked.picture or (width, height)
        x = torch.zeros(self.asked.rows, config["in_channels"], self.size[1], self.size[0])
        labels = torch.zeros(self.asked.rows, dtype=torch.int64) if config.get("num_class_embeds") else None
        more = {} if labels is None else {"class_labels": labels}
        x = x.to(getattr(torch, self.asked.dtype))
        self.ask(self.denoiser.forward, (x, torch.tensor(1)), more, self.asked.rows)

    def ask_pipeline(self) -> None:
        """The pipeline's own call, up to its first question."""
        import diffusers
        import torch

        cls: Any = diffusers.StableDiffusionPipeline if self.which == "latent" else getattr(diffusers, self.name)
        takes = inspect.signature(cls.__init__).parameters
        parts: dict[str, Any] = dict.fromkeys([*cls._optional_components, *cls._get_signature_keys(cls)[0]])
        plain = [p for p in self.kinds if p not in self.networks and p not in UNUSED and p in takes]
        parts |= {p: self.cls(p).from_pretrained(self.folder / p, local_files_only=True) for p in plain}
        parts |= {p: network for p, network in self.built.items() if p in takes}
        if "requires_safety_checker" in takes:
            parts["requires_safety_checker"] = False
        pipeline = cls(**{p: v for p, v in parts.items() if p in takes})
        pipeline.set_progress_bar_config(disable=True)
        for part, network in self.built.items():
            if _reads_text(part):
                network.forward = self.reading(network.forward, network)
        asked = self.denoiser.forward

        def stop(*args: Any, **kwargs: Any) -> None:
            sample = next((kwargs[n] for n in SAMPLE if n in kwargs), args[0] if args else None)
            self.ask(asked, args, kwargs, len(sample) if sample is not None else self.asked.pictures)
            raise _Stop

        self.denoiser.forward = stop
        try:
            with torch.no_grad():
                pipeline(**self.call(cls))
        except _Stop:
            pass
        except (ValueError, RuntimeError, TypeError) as error:
            raise BadInput(
                f"{self.id}: {self.name} refuses to be asked for {self.size[0]}x{self.size[1]}: {first_line(error)}"
            ) from error
        finally:
            del self.denoiser.forward

    def call(self, cls: Any) -> dict[str, Any]:
        """The arguments of the pipeline's call."""
        takes = inspect.signature(cls.__call__).parameters
        own = self.own_size()
        self.size = self.asked.picture or own
        prompts = ["a picture"] * self.asked.pictures
        call: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent", "width": self.size[0]}
        call |= {"height": self.size[1], "prompt": prompts, "class_labels": [0] * self.asked.pictures}
        call |= {"batch_size": self.asked.pictures, "guidance_scale": 1.0, "true_cfg_scale": 1.0}
        call |= {"use_resolution_binning": False, "clean_caption": False}
        if "prompt" in takes:
            call.pop("batch_size")
        return {name: value for name, value in call.items() if name in takes}

    def own_size(self) -> tuple[int, int]:
        """Width and height of the pictures that the model was made for."""
        config = self.denoiser.config
        own = config.get("sample_size") or 128
        height, width = (own, own) if isinstance(own, int) else own
        vae: Mapping[str, Any] = next((self.built[p].config for p in VAE_PARTS if p in self.built), {})
        blocks = vae.get("block_out_channels") or vae.get("encoder_block_out_channels") or (vae.get("dim_mult") or [1])
        factor = 2 ** (len(blocks) - 1)
        return width * factor, height * factor

    def reading(self, forward: Callable[..., Any], network: Any) -> Callable[..., Any]:
        """A text encoder's `forward` that answers zeros, and is counted."""

        def read(*args: Any, **kwargs: Any) -> Any:
            import torch
            from torch.utils import _pytree as tree

            peak, out = self.counted(network, lambda a, k: forward(*a, **k), args, kwargs)
            self.found["text"] = max(self.found.get("text") or 0, peak)
            empty = lambda t: torch.zeros(t.shape, dtype=t.dtype) if isinstance(t, torch.Tensor) else t  # noqa: E731
            return tree.tree_map(empty, out)

        return read

    def ask(self, forward: Callable[..., Any], args: Any, kwargs: Any, rows: int) -> None:
        """The denoiser's memory; scaled from the rows of this question to those that are asked."""

        def backwards(a: Any, k: Any) -> Any:
            import torch

            x = next(t for t in _tensors((a, k)) if t.is_floating_point() and t.ndim > 2).requires_grad_()
            out = next(_tensors(forward(*a, **k)))
            return torch.autograd.grad(out.sum(), x)

        self.phase("denoise", self.denoiser, lambda a, k: forward(*a, **k), args, kwargs, rows)
        if self.asked.backward:
            self.phase("backward", self.denoiser, backwards, args, kwargs, rows)

    def ask_vae(self) -> None:
        """Encoding and decoding a batch."""
        import torch

        vae = next((self.built[p] for p in VAE_PARTS if p in self.built), None)
        if vae is None:
            return
        if self.asked.vae_tiling and hasattr(vae, "enable_tiling"):
            vae.enable_tiling()
        x = torch.zeros(self.asked.pictures, 3, self.size[1], self.size[0])
        if any(type(layer).__name__.endswith(("Conv3d", "Conv3D")) for layer in vae.modules()):
            x = x[:, :, None]  # a video's VAE
        made: list[Any] = []

        def encode(a: Any, _: Any) -> Any:
            out = vae.encode(*a)
            made.append(out.latent_dist.mode() if hasattr(out, "latent_dist") else next(_tensors(out)))
            return made[-1]

        self.phase("encode", vae, encode, (x,), {}, self.asked.rows)  # as many as are asked: none to scale by
        if made:
            self.phase("decode", vae, lambda a, _: vae.decode(*a), (torch.zeros(made[0].shape),), {}, self.asked.rows)

    def phase(self, name: str, network: Any, call: Any, args: Any, kwargs: Any, rows: int) -> None:
        """One phase's memory, or why it cannot be told."""
        try:
            peak, _ = self.counted(network, call, args, kwargs, grad=name == "backward")
        except _cannot_be_told() as error:
            self.found[name] = None
            self.why[name] = f"{type(network).__name__} looks at values ({first_line(error, type(error).__name__)})"
            return
        self.found[name] = peak * self.asked.rows // rows

    def counted(self, network: Any, call: Any, args: Any, kwargs: Any, grad: bool = False) -> tuple[int, Any]:
        """The peak of what is made beside weights and arguments, and the answer."""
        import torch
        from torch.utils import _pytree as tree

        with self.mode:
            fake = lambda t: self.mode.from_tensor(t) if isinstance(t, torch.Tensor) else t  # noqa: E731
            a, k = tree.tree_map(fake, (args, kwargs))
            count = _counting([*network.parameters(), *network.buffers(), *_tensors((a, k))])
            with torch.set_grad_enabled(grad), count:
                out = call(a, k)
        return count.peak, out


def _reads_text(part: str) -> bool:
    return part.startswith(("text_encoder", "bert"))


def _tensors(value: Any) -> Iterator[Any]:
    import torch
    from torch.utils import _pytree as tree

    return (leaf for leaf in tree.tree_leaves(value) if isinstance(leaf, torch.Tensor))


def _cannot_be_told() -> tuple[type[Exception], ...]:
    from torch._subclasses import fake_tensor

    return (
        fake_tensor.DataDependentOutputException,
        fake_tensor.DynamicOutputShapeException,
        fake_tensor.UnsupportedOperatorException,
    )


@contextmanager
def _default_dtype(dtype: Any) -> Iterator[None]:
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _scratch(operator: str, args: Any, out: Any) -> int:
    """What torch's CPU kernels take to bring tensors into their own order, measured by its profiler."""
    if operator == "convolution":
        return args[0].nbytes + args[1].nbytes
    return args[0].nbytes + out.nbytes if operator == "upsample_nearest2d" else 0


def _counting(known: list[Any]) -> Any:
    """A mode of torch that counts the bytes of what operators make while it lives; `known` is not counted."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.now = self.peak = 0
            self.sizes = {t.untyped_storage()._cdata: 0 for t in known}
            self.kept = known  # while they live, their storages are told by these numbers

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for tensor in _tensors(out):
                self.see(tensor.untyped_storage())
            self.peak = max(self.peak, self.now + _scratch(func.overloadpacket.__name__, args, out))
            return out

        def see(self, storage: Any) -> None:
            key = storage._cdata
            if key not in self.sizes:
                self.sizes[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.gone, key)

        def gone(self, key: int) -> None:
            self.now -= self.sizes.pop(key, 0)

    return Counting()
