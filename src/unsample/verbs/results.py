"""What the verbs return. An `Inversion` is saved as one safetensors file: tensors and JSON, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, BadOption, Incompatible, LostAt, UnsampleWarning, first_line
from unsample.verbs import notebook

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

FORMAT_VERSION = 1
PER_PICTURE = ("status", "nfe", "backward", "health")  # lists with one entry a picture, saved in the JSON
PER_PICTURE_META = (
    "prompt",
    "negative_prompt",
    "class_labels",
    "negative_class_labels",
    "seeds",
    "source_sizes",
    "source_sha256",
    "out_of_domain",
    "names",
    "notes",
    "nfe",
    "backward",
    "nonfinite_at",
    "lost_at",
    "residual",
)
EXACT, FLOATS = ("F32", "F64"), ("F16", "BF16", "F32", "F64")
TENSORS: dict[str, tuple[int | None, tuple[str, ...]]] = {  # number of dimensions (None: any) and types
    "noise": (4, EXACT),
    "source": (4, ("U8",)),
    "trajectory": (5, EXACT),
    "prompt_embeds": (None, FLOATS),
    "negative_prompt_embeds": (None, FLOATS),
    "class_labels": (1, ("I64",)),
    "negative_class_labels": (1, ("I64",)),
}
EMBEDS = ("prompt_embeds", "negative_prompt_embeds")
KINDS = {  # of torch, as safetensors calls them
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float32": "F32",
    "torch.float64": "F64",
    "torch.uint8": "U8",
    "torch.int64": "I64",
}


@dataclass(frozen=True, eq=False)
class Images:
    """Pictures that a model made.

    `images` (B, 3, H, W) in [0, 1]; `latents` (B, C, h, w) what the network ended with; `noise` what it started from;
    `trajectory` (N + 1, B, C, h, w), noisiest first, if kept; `status` "ok" or "diverged" a picture; `nfe` and
    `backward` one integer a picture; `seconds` of the whole call.
    """

    images: Tensor
    latents: Tensor
    noise: Tensor
    status: list[str]
    nfe: list[int]
    backward: list[int]
    seconds: float
    trajectory: Tensor | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def nonfinite_at(self) -> list[dict[str, Any] | None]:
        """Where the network's answer was not finite, picture by picture; None where all of them were.

        `what` ("answer", or the "gradient" through the network), `timestep`, `evaluation` (the picture's how-manieth),
        `half` ("conditional", "unconditional", None for both or where there are no two), `input_finite` (whether the
        network was asked about a finite point) of the first time, and how many `times` it happened. A method that goes
        on without such an answer still calls the picture "ok" or "not_converged".
        """
        return self.meta.get("nonfinite_at") or [None] * len(self)

    @property
    def lost_at(self) -> list[LostAt | None]:
        """Where each picture stopped being finite; None for one that did not."""
        return lost_at(self.meta, len(self))

    def pil(self) -> list[Image | None]:
        """8-bit PIL pictures; None for one that diverged.

        Their `info` holds the settings as `PIL.Image.open` gives those of a saved one ("unsample" and "parameters"),
        but Pillow's own `save` leaves them out: `Images.save` writes them.
        """
        from PIL import Image

        from unsample.media.pictures import png_texts

        pixels = (self.images.nan_to_num().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        made = [Image.fromarray(p) if s != "diverged" else None for p, s in zip(pixels, self.status, strict=True)]
        for k, image in enumerate(made):
            if image is not None and self.meta:
                image.info.update(png_texts(self.settings(k)))
        return made

    def settings(self, index: int) -> dict[str, Any]:
        """How one picture was made, flat: prompt, model, method, steps, guidance ...; `save` writes it into its PNG."""
        height, width = self.images.shape[2:]
        return settings(self.meta.get("verb", "sample"), self.meta, index, size=(width, height))

    def save(self, path: str | PathLike[str]) -> list[Path | None]:
        """Write the pictures as PNGs that carry their settings, as the command line does; `unsample show` prints them.

        Args:
            path: of a PNG (several pictures become STEM.png, STEM-2.png ...), or a folder, for sample-SEED.png,
                frame-00.png, or the sources' names. Folders are made when missing, files that exist are replaced.

        Returns:
            The files; None, and a warning, for a picture that diverged.

        Raises:
            BadInput: another kind of file than PNG, or it cannot be written.
        """
        import warnings

        from unsample.media.files import check_writable_folder, png_files
        from unsample.media.pictures import write_png

        files = png_files(path, [self._stem(k) for k in range(len(self))])
        for folder in dict.fromkeys(file.parent for file in files):
            check_writable_folder(folder)
        written: list[Path | None] = []
        for k, (image, file) in enumerate(zip(self.pil(), files, strict=True)):
            if image is None:
                warnings.warn(_unwritten(k, file), stacklevel=2)
            else:
                write_png(image, file, self.settings(k))
            written.append(None if image is None else file)
        return written

    def _stem(self, index: int) -> str:
        """The name of one picture in a folder."""
        if "num_frames" in self.meta:
            return f"frame-{index:0{max(2, len(str(len(self) - 1)))}}"
        names = self.meta.get("names") or [f"sample-{seed}" for seed in self.meta.get("seeds") or ()]
        return str(names[index]) if index < len(names) else f"image-{index}"

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return notebook.of_images(self)

    def _repr_html_(self) -> str:
        return notebook.images_as_html(self)


@dataclass(frozen=True, eq=False)
class Inversion:
    """What `invert` recovered: the noise, what else the method needs to play it back, and how it was made.

    `noise` (B, C, H, W), at the noisiest grid point reached; `nfe`, `backward`, `status` ("ok", "not_converged",
    "diverged") and `health` one entry a picture; `seconds` of the whole call; `meta` how it was made; `state` what the
    method stored beside the noise; `source` the pictures as the model saw them, 8 bit (B, H, W, 3); `prompt_embeds`,
    `negative_prompt_embeds`, `class_labels` and `negative_class_labels` if they were given as such; `latents` (not
    saved) the start of the walk; `trajectory` (N + 1, B, C, H, W), clean first, if kept.
    """

    noise: Tensor
    nfe: list[int]
    backward: list[int]
    seconds: float
    status: list[str]
    health: list[dict[str, Any]]
    meta: dict[str, Any]
    state: dict[str, Tensor] = field(default_factory=dict)
    source: Tensor | None = None
    prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None
    class_labels: Tensor | None = None
    negative_class_labels: Tensor | None = None
    latents: Tensor | None = None
    trajectory: Tensor | None = None

    def __len__(self) -> int:
        return len(self.noise)

    @property
    def nonfinite_at(self) -> list[dict[str, Any] | None]:
        """Where the network's answer was not finite while inverting; as `Images.nonfinite_at`."""
        return self.meta.get("nonfinite_at") or [None] * len(self)

    @property
    def lost_at(self) -> list[LostAt | None]:
        """Where each picture stopped being finite; None for one that did not."""
        return lost_at(self.meta, len(self))

    def __repr__(self) -> str:
        return notebook.of_inversion(self)

    def _repr_html_(self) -> str:
        return notebook.inversion_as_html(self)

    def repeated(self, count: int) -> Inversion:
        """An inversion of one picture, `count` times."""
        if len(self) != 1:
            raise BadInput(f"an inversion of one picture can be repeated; this one holds {len(self)}")
        parts: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in PER_PICTURE:
                parts[each.name] = value * count
            elif hasattr(value, "repeat_interleave"):
                parts[each.name] = value.repeat_interleave(count, 1 if each.name == "trajectory" else 0)
        parts["state"] = {name: value.repeat_interleave(count, 0) for name, value in self.state.items()}
        lists = {k: self.meta[k] * count for k in PER_PICTURE_META if isinstance(self.meta.get(k), list)}
        return replace(self, **parts, meta=self.meta | lists)

    def __getitem__(self, index: int | slice) -> Inversion:
        """The inversion of one picture, or of some."""
        rows = slice(int(index), int(index) + 1 or None) if isinstance(index, Integral) else index
        if isinstance(index, Integral) and not -len(self) <= index < len(self):
            raise IndexError(index)
        meta = self.meta | {k: self.meta[k][rows] for k in PER_PICTURE_META if isinstance(self.meta.get(k), list)}
        lists = {name: getattr(self, name)[rows] for name in PER_PICTURE}
        optional = ("source", *EMBEDS, "class_labels", "negative_class_labels", "latents")
        tensors = {name: None if (t := getattr(self, name)) is None else t[rows] for name in optional}
        kept = None if self.trajectory is None else self.trajectory[:, rows]
        state = {name: value[rows] for name, value in self.state.items()}
        part = {**lists, **tensors, "noise": self.noise[rows], "trajectory": kept, "state": state, "meta": meta}
        seconds = self.seconds * len(lists["nfe"]) / len(self)
        part["meta"] = meta | {"seconds": seconds}
        return replace(self, **part, seconds=seconds)

    def save(self, path: str | Path) -> None:
        """Write one `.safetensors` file, atomically.

        Raises:
            BadInput: a picture diverged (there is nothing to save), or the path cannot be written.
        """
        import torch
        from safetensors.torch import save

        from unsample.media.files import atomic_write

        if "diverged" in self.status:
            raise BadInput(f"cannot save {path}: a picture of this inversion diverged; save the others one by one")
        # copied, because two of them may be one (a belm of one step), which safetensors does not write
        tensors = {n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in _tensors(self).items()}
        header = {"unsample_format": str(FORMAT_VERSION), "unsample": json.dumps(_written(self))}
        content = save(tensors, metadata=header)  # its save_file turns a full disk into an error of its own kind
        atomic_write(path, lambda temporary: temporary.write_bytes(content))

    @staticmethod
    def load(path: str | Path) -> Inversion:
        """Read a saved inversion.

        Raises:
            BadInput: missing, corrupt, not an inversion, or of a later version.
        """
        from safetensors.torch import load_file

        header = read_header(path)
        try:
            # copied, because a file's tensors lie at any address, and kernels round by alignment
            tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        except Exception as error:  # safetensors raises its own kind, OSError and ValueError
            raise BadInput(f"cannot read inversion {path}: {error}") from error
        try:
            _check_finite(tensors, header["status"])
        except ValueError as error:
            raise BadInput(f"{path}: {error}; invert the picture again") from error
        noise = tensors.pop("noise")
        state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
        rest = {k: v for k, v in tensors.items() if not k.startswith("state.")}
        return Inversion(noise=noise, state=state, **{**header, **rest})


def _unwritten(picture: int, file: Path) -> UnsampleWarning:
    return UnsampleWarning("diverged", lambda name: f"{name(picture)} diverged; {file} was not written", [picture])


def lost_at(meta: Mapping[str, Any], count: int) -> list[LostAt | None]:
    """The places that a meta records; inversions saved by earlier versions hold none."""
    return [None if where is None else LostAt(**where) for where in meta.get("lost_at") or [None] * count]


def settings(verb: str, meta: Mapping[str, Any], index: int, **more: Any) -> dict[str, Any]:
    """The settings of one picture for its PNG, flat, as A1111 has them; `more` wins.

    Args:
        verb: what made it.
        meta: of an `Inversion` (then for its reconstruction), or of `Images`.
        index: which picture of the batch.
    """

    def own(name: str) -> Any:
        values = meta.get(name)
        return values[index] if isinstance(values, Sequence) and len(values) > index else None

    method, model = meta.get("method") or {}, meta.get("model") or {}
    given = meta.get("guidance_scale")
    inverted = "sampling_guidance_scale" in meta and "verb" not in meta  # `guidance_scale` is then of inverting
    kept = {
        "verb": verb,
        "prompt": own("prompt"),
        "negative_prompt": own("negative_prompt"),
        "class_labels": own("class_labels"),
        "negative_class_labels": own("negative_class_labels"),
        "source_prompt": own("source_prompt") if verb == "edit" else None,
        "model": model.get("id"),
        "model_family": model.get("family"),
        "model_sha256": model.get("sha256"),
        "dtype": model.get("dtype"),
        "method": method.get("name"),
        "method_settings": method.get("settings"),
        "num_inference_steps": meta.get("num_inference_steps"),
        "guidance_scale": meta["sampling_guidance_scale"] if inverted else given,
        "inversion_guidance_scale": given if inverted else meta.get("inversion_guidance_scale"),
        "strength": meta.get("strength"),
        "seed": own("seeds"),
        "guidance_schedule": meta.get("guidance_schedule"),
        "fit": meta.get("fit"),
        "clip": meta.get("grid", {}).get("meta", {}).get("clip"),
        "use": meta.get("use"),
        "source_size": own("source_sizes"),
        "out_of_domain": own("out_of_domain") or None,
        "versions": meta.get("versions"),
        **_between(meta, index),
    }
    return {k: v for k, v in (kept | more).items() if v is not None}


def _between(meta: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What is particular to a frame of an interpolation: both prompts, and where it stands."""
    if "num_frames" not in meta:
        return {}
    pair, place = divmod(index, meta["num_frames"])
    both = {name: [end[pair] for end in meta[name]] for name in ("prompts", "negative_prompts")}
    said = {name: texts for name, texts in both.items() if name == "prompts" or any(texts)}
    return {**said, "num_frames": meta["num_frames"], "position": place / (meta["num_frames"] - 1)}


def read_header(path: str | Path) -> dict[str, Any]:
    """The JSON of a saved inversion, checked, without importing torch.

    Raises:
        BadInput: missing, corrupt, not an inversion, or of a later version.
    """
    from safetensors import safe_open

    path = Path(path)
    if not path.is_file():
        what = "a directory" if path.is_dir() else "not there"
        raise BadInput(f"inversion {path} is {what}; give a .safetensors file that 'unsample invert' wrote")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            kinds = {name: file.get_slice(name).get_dtype() for name in shapes}
        version = metadata.get("unsample_format")
        if version is None:
            raise BadInput(f"{path} is a safetensors file but not an inversion of unsample; invert the picture again")
        if not version.isdecimal() or not 1 <= int(version) <= FORMAT_VERSION:
            raise BadInput(
                f"{path} has inversion format {version!r}, this unsample reads 1 to {FORMAT_VERSION}; "
                "if it is a later one, upgrade unsample"
            )
        header = json.loads(metadata["unsample"])
        _check(header, shapes, kinds)
        if "diverged" in header["status"]:
            raise ValueError("a picture that diverged is never saved")
    except BadInput:
        raise
    except Exception as error:
        reason = first_line(error, type(error).__name__)
        raise BadInput(
            f"cannot read inversion {path}: corrupt or truncated ({reason}); invert the picture again"
        ) from error
    return header  # type: ignore[no-any-return]


def noise_shape(path: str | Path) -> tuple[int, ...]:
    """The shape of the noise in a saved inversion whose header was read, without importing torch."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return tuple(file.get_slice("noise").get_shape())


def check_pair(
    a: tuple[tuple[int, ...], Mapping[str, Any]],
    b: tuple[tuple[int, ...], Mapping[str, Any]],
    guidance_scale: float | None,
) -> None:
    """Whether two inversions, each the shape of its noise and its meta, can be interpolated.

    Raises:
        Incompatible: other shapes, grids or strengths, or guidance that differs where none is given.
    """
    if a[0] != b[0] or any(a[1][key] != b[1][key] for key in ("grid", "stop_index")):
        (shape, steps), (other, others) = ((s, f"{m['stop_index']} of {m['num_inference_steps']}") for s, m in (a, b))
        raise Incompatible(
            f"cannot interpolate: shapes {shape} and {other}, steps {steps} and {others}; invert both with the same "
            "model, size, steps and strength"
        )
    scales = [(m["sampling_guidance_scale"], m.get("guidance_schedule", "constant")) for _, m in (a, b)]
    if guidance_scale is None and scales[0] != scales[1]:
        raise Incompatible(f"cannot interpolate: sampling guidance {scales[0]} and {scales[1]}; give guidance_scale")


def check_whole(inversion: Inversion) -> None:
    """Refuse an inversion in memory that is not whole, as a file of it would be refused.

    Raises:
        BadInput: a tensor or a fact that is not what `invert` makes.
    """
    named = _tensors(inversion)
    try:
        header = json.loads(json.dumps(_written(inversion)))
        kinds = {name: KINDS.get(str(t.dtype), str(t.dtype)) for name, t in named.items()}
        _check(header, {name: list(t.shape) for name, t in named.items()}, kinds)
        _check_finite(named, inversion.status)
    except Exception as error:  # whatever strange values raise
        raise BadInput(f"this inversion is not whole ({first_line(error)}); invert the picture again") from error


def _tensors(inversion: Inversion) -> dict[str, Tensor]:
    """What is saved, by the names in a file."""
    named = {name: getattr(inversion, name) for name in TENSORS} | {
        f"state.{name}": value for name, value in inversion.state.items()
    }
    return {name: value for name, value in named.items() if value is not None}


def _written(inversion: Inversion) -> dict[str, Any]:
    """The JSON of a file."""
    return {n: getattr(inversion, n) for n in ("meta", "seconds", *PER_PICTURE)}


def _check(header: dict[str, Any], shapes: dict[str, list[int]], kinds: dict[str, str]) -> None:
    """What `Inversion.load` and the verbs rely on; any exception here means a file that is corrupt."""
    from unsample.verbs.provenance import check_header

    check_header(header, PER_PICTURE, PER_PICTURE_META)
    meta = header["meta"]
    _check_tensors(shapes, kinds, len(header["status"]), meta["stop_index"])
    _check_state(shapes, kinds, meta)
    for name in ("prompt", "negative_prompt"):
        if f"{name}_embeds" in shapes and any(p is not None for p in meta[name]):
            raise ValueError(f"it holds {name} and {name}_embeds, of which one holds")


def _check_tensors(shapes: dict[str, list[int]], kinds: dict[str, str], count: int, stop: int) -> None:
    for name, shape in shapes.items():
        known = name in TENSORS or name.startswith("state.")
        dimensions, types = TENSORS.get(name, (None, FLOATS))
        batch = shape[1] if name == "trajectory" and len(shape) > 1 else next(iter(shape), 0)
        fits = (dimensions or len(shape)) == len(shape) and kinds[name] in types
        if not known or batch != count or not fits or 0 in shape:
            raise ValueError(f"unexpected tensor {name} of type {kinds[name]}, shape {shape}")
    noise, embeds = shapes.get("noise"), [shapes[n] for n in EMBEDS if n in shapes]
    if noise is None:
        raise ValueError("no noise in it")
    if shapes.get("source", [3])[-1] != 3:
        raise ValueError(f"its source is (B, H, W, 3), and not {shapes['source']}")
    if shapes.get("trajectory", [stop + 1, *noise]) != [stop + 1, *noise]:
        raise ValueError(f"its trajectory is {[stop + 1, *noise]}, and not {shapes['trajectory']}")
    if len(embeds) == 2 and embeds[0][1:] != embeds[1][1:]:
        raise ValueError(f"its prompt_embeds and negative_prompt_embeds differ in shape: {embeds[0]} and {embeds[1]}")


def _check_state(shapes: dict[str, list[int]], kinds: dict[str, str], meta: dict[str, Any]) -> None:
    """Each state against what its method keeps; one that is missing is said where it would be played back."""
    from unsample.methods import get_method

    try:
        method = get_method(meta["method"]["name"], meta["method"]["settings"])
    except (BadOption, TypeError):
        return  # a method that is not known here is refused where it would be played back
    embedding = next((shapes[n][1:] for n in EMBEDS if n in shapes), None)
    for name in (n for n in shapes if n.startswith("state.")):
        kept = method.keeps.get(name.removeprefix("state."))
        if kept is None:
            raise ValueError(f"{method.name} keeps {', '.join(method.keeps) or 'the noise alone'}, and no {name}")
        wanted = kept.misfit(shapes[name], shapes["noise"], embedding, (meta["grid"]["timesteps"], meta["stop_index"]))
        if wanted or kinds[name] not in EXACT:
            raise ValueError(
                f"{name} of {method.name} is {kept.shape} of float32 or float64, here {wanted or 'that'}, and not "
                f"{tuple(shapes[name])} of type {kinds[name]}"
            )


def _check_finite(named: Mapping[str, Tensor], status: Sequence[str]) -> None:
    """Whether all numbers of the pictures that were not lost are finite."""
    sound = [k for k, verdict in enumerate(status) if verdict != "diverged"]
    for name, value in named.items():
        rows = value.transpose(0, 1) if name == "trajectory" else value
        if value.is_floating_point() and not bool(rows[sound].isfinite().all()):
            raise ValueError(f"the stored {name} is not finite")
