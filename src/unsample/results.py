"""What the verbs return. An `Inversion` is saved as one safetensors file: tensors and JSON, never pickle."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, Incompatible
from unsample.grid import Grid
from unsample.prediction import PREDICTION_TYPES

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

FORMAT_VERSION = 1
PER_PICTURE = ("status", "nfe", "backward", "health")  # lists with one entry a picture, saved in the JSON
PER_PICTURE_META = (
    "prompt",
    "negative_prompt",
    "seeds",
    "source_sizes",
    "names",
    "notes",
    "nfe",
    "backward",
    "residual",
)
STATUSES = ("ok", "not_converged")  # of a saved picture
HEALTH = frozenset({"mean", "std", "kl", "lag1_correlation"})
TENSORS: dict[str, tuple[int | None, tuple[str, ...] | None]] = {  # number of dimensions and types; None: any
    "noise": (4, ("F32", "F64")),
    "source": (4, ("U8",)),
    "trajectory": (5, ("F32", "F64")),
    "prompt_embeds": (None, None),
    "negative_prompt_embeds": (None, None),
    "class_labels": (1, ("I64",)),
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

    def pil(self) -> list[Image | None]:
        """8-bit PIL pictures; None for one that diverged."""
        from PIL import Image

        pixels = (self.images.nan_to_num().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(p) if s != "diverged" else None for p, s in zip(pixels, self.status, strict=True)]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Inversion:
    """What `invert` recovered: the noise, what else the method needs to play it back, and how it was made.

    `noise` (B, C, H, W), at the noisiest grid point reached; `nfe`, `backward`, `status` ("ok", "not_converged",
    "diverged") and `health` one entry a picture; `seconds` of the whole call; `meta` how it was made; `state` what the
    method stored beside the noise; `source` the pictures as the model saw them, 8 bit (B, H, W, 3); `prompt_embeds`,
    `negative_prompt_embeds` and `class_labels` if they were given as such; `latents` (not saved) the start of the walk;
    `trajectory` (N + 1, B, C, H, W), clean first, if kept.
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
    latents: Tensor | None = None
    trajectory: Tensor | None = None

    def __len__(self) -> int:
        return len(self.noise)

    def __getitem__(self, index: int | slice) -> Inversion:
        """The inversion of one picture, or of some."""
        rows = slice(int(index), int(index) + 1 or None) if isinstance(index, Integral) else index
        if isinstance(index, Integral) and not -len(self) <= index < len(self):
            raise IndexError(index)
        meta = self.meta | {k: self.meta[k][rows] for k in PER_PICTURE_META if isinstance(self.meta.get(k), list)}
        lists = {name: getattr(self, name)[rows] for name in PER_PICTURE}
        optional = ("source", "prompt_embeds", "negative_prompt_embeds", "class_labels", "latents")
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
        from safetensors.torch import save

        from unsample.files import atomic_write

        if "diverged" in self.status:
            raise BadInput(f"cannot save {path}: a picture of this inversion diverged; save the others one by one")
        named = {"noise": self.noise, "source": self.source, "trajectory": self.trajectory}
        named |= {n: getattr(self, n) for n in ("prompt_embeds", "negative_prompt_embeds", "class_labels")}
        named |= {f"state.{name}": value for name, value in self.state.items()}
        tensors = {name: value.detach().cpu().contiguous() for name, value in named.items() if value is not None}
        written = {"meta": self.meta, "seconds": self.seconds, **{n: getattr(self, n) for n in PER_PICTURE}}
        header = {"unsample_format": str(FORMAT_VERSION), "unsample": json.dumps(written)}
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
        noise = tensors.pop("noise")
        if not bool(noise.isfinite().all()):
            raise BadInput(f"{path}: the stored noise is not finite; invert the picture again")
        state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
        rest = {k: v for k, v in tensors.items() if not k.startswith("state.")}
        return Inversion(noise=noise, state=state, **{**header, **rest})


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
    except BadInput:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
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


def _check(header: dict[str, Any], shapes: dict[str, list[int]], kinds: dict[str, str]) -> None:
    """What `Inversion.load` and the verbs rely on; any exception here means a corrupt file."""
    count = len(header["status"])
    _check_tensors(shapes, kinds, count)
    lists = [header[name] for name in PER_PICTURE]
    if set(header) != {"meta", "seconds", *PER_PICTURE} or any(not _is_list(v, count) for v in lists):
        raise ValueError("its JSON does not hold what an inversion holds")
    if any(s not in STATUSES for s in header["status"]) or any(not set(h) >= HEALTH for h in header["health"]):
        raise ValueError("its status or health is not what is written")
    _numbers([*header["nfe"], *header["backward"], header["seconds"]])
    meta = header["meta"]
    if any(name in meta and meta[name] is not None and not _is_list(meta[name], count) for name in PER_PICTURE_META):
        raise ValueError(f"its JSON does not speak of {count} pictures")
    _check_grid(meta)
    names = [meta["model"]["id"], meta["model"]["sha256"], meta["method"]["name"]]
    if not all(isinstance(n, str) for n in names) or not isinstance(meta["method"]["settings"], dict):
        raise ValueError("its model or method is not named")
    _numbers([meta["guidance_scale"], meta["sampling_guidance_scale"]])
    scales = meta.get("sampling_scales", [])
    _numbers(scales)
    if "sampling_scales" in meta and not _is_list(scales, meta["num_inference_steps"] + 1):
        raise ValueError("its guidance does not fit its grid")
    if not isinstance(meta.get("guidance_schedule", "constant"), str):
        raise ValueError("its guidance schedule is not named")
    if ("guidance_schedule" in meta) is not ("sampling_scales" in meta):
        raise ValueError("its guidance schedule is without scales, or its scales without a schedule")
    if not all(p is None or isinstance(p, str) for n in ("prompt", "negative_prompt") for p in meta[n]):
        raise ValueError("a prompt is not text")
    for name in ("prompt", "negative_prompt"):
        if f"{name}_embeds" in shapes and any(p is not None for p in meta[name]):
            raise ValueError(f"it holds {name} and {name}_embeds, of which one holds")


def _check_tensors(shapes: dict[str, list[int]], kinds: dict[str, str], count: int) -> None:
    for name, shape in shapes.items():
        known = name in TENSORS or name.startswith("state.")
        dimensions, types = TENSORS.get(name, (None, None))
        batch = shape[1] if name == "trajectory" else shape[0]
        fits = (dimensions or len(shape)) == len(shape) and kinds[name] in (types or (kinds[name],))
        if not known or batch != count or not fits or 0 in shape:
            raise ValueError(f"unexpected tensor {name} of type {kinds[name]}, shape {shape}")
    if "noise" not in shapes:
        raise ValueError("no noise in it")


def _check_grid(meta: dict[str, Any]) -> None:
    grid, steps = meta["grid"], meta["num_inference_steps"]
    lists = [grid[name] for name in ("alpha", "sigma", "timesteps", "eval_alpha", "eval_sigma")]
    if set(grid) != {f.name for f in fields(Grid)} or any(not _is_list(v, steps + 1) for v in lists):
        raise ValueError("its grid is not a grid")
    if not isinstance(grid["meta"], dict) or grid["prediction_type"] not in PREDICTION_TYPES:
        raise ValueError("its grid does not say what it is of")
    _numbers([n for v in lists for n in v])
    if grid["clip"] is not None:
        _numbers([grid["clip"]])
    whole = all(isinstance(n, int) for n in [*grid["timesteps"], meta["stop_index"], steps])
    if not whole or not 0 < meta["stop_index"] <= steps:
        raise ValueError("its steps are not whole numbers in range")
    rising = [grid["timesteps"], grid["sigma"], [-a for a in grid["alpha"]]]
    if any(v != sorted(v) for v in rising) or 0 in (*grid["sigma"][1:], *grid["alpha"][:-1]):
        raise ValueError("its levels do not run from clean to noisy")
    if any(abs(a * a + s * s - 1) > 1e-3 for a, s in zip(grid["alpha"], grid["sigma"], strict=True)):
        raise ValueError("its levels do not preserve the variance")


def _numbers(values: list[Any]) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
            raise ValueError(f"{value!r} is not a number of at least 0")


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length
