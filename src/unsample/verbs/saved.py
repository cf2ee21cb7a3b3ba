"""A saved inversion: what its tensors are, and whether a file, or an inversion in memory, is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, BadOption, first_line

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.verbs.provenance import Header, Provenance
    from unsample.verbs.results import Inversion

FORMAT_VERSION = 1
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
MORE = tuple(f"{name}." for name in EMBEDS)  # begin the names of a prompt's other rows
KINDS = {  # of torch, as safetensors calls them
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float32": "F32",
    "torch.float64": "F64",
    "torch.uint8": "U8",
    "torch.int64": "I64",
    "torch.bool": "BOOL",
}


def read_header(path: str | Path) -> dict[str, Any]:
    """The JSON of a saved inversion, checked, without importing torch; its "meta" is a `Provenance`.

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
        written = json.loads(metadata["unsample"])
        header = _checked(written, shapes, kinds)
        if "diverged" in header.status:
            raise ValueError("a picture that diverged is never saved")
    except BadInput:
        raise
    except Exception as error:
        reason = first_line(error, type(error).__name__)
        raise BadInput(
            f"cannot read inversion {path}: corrupt or truncated ({reason}); invert the picture again"
        ) from error
    return written | {"meta": header.meta}  # type: ignore[no-any-return]


def noise_shape(path: str | Path) -> tuple[int, ...]:
    """The shape of the noise in a saved inversion whose header was read, without importing torch."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return tuple(file.get_slice("noise").get_shape())


def check_whole(inversion: Inversion) -> Inversion:
    """Refuse an inversion in memory that is not whole, as a file of it would be refused.

    Returns:
        The inversion, its meta as a `Provenance` in any case.

    Raises:
        BadInput: a tensor or a fact that is not what `invert` makes.
    """
    from unsample.verbs.provenance import Provenance

    named = tensors_of(inversion)
    try:
        header = json.loads(json.dumps(json_of(inversion)))
        kinds = {name: KINDS.get(str(t.dtype), str(t.dtype)) for name, t in named.items()}
        found = _checked(header, {name: list(t.shape) for name, t in named.items()}, kinds)
        check_finite(named, inversion.status)
    except Exception as error:  # whatever strange values raise
        raise BadInput(f"this inversion is not whole ({first_line(error)}); invert the picture again") from error
    return inversion if isinstance(inversion.meta, Provenance) else replace(inversion, meta=found.meta)


def tensors_of(inversion: Inversion) -> dict[str, Tensor]:
    """What is saved, by the names in a file."""
    named = {name: getattr(inversion, name) for name in TENSORS} | {
        f"state.{name}": value for name, value in inversion.state.items()
    }
    named |= inversion.more
    return {name: value for name, value in named.items() if value is not None}


def json_of(inversion: Inversion) -> dict[str, Any]:
    """The JSON of a file."""
    from unsample.verbs.provenance import Header

    return {n: getattr(inversion, n) for n in Header.model_fields} | {"meta": dict(inversion.meta)}


def text_of(inversion: Inversion) -> str:
    """The JSON of a file, as text that can be read again.

    Raises:
        BadInput: a fact that is not what `invert` makes.
    """
    from unsample.verbs.provenance import checked_header

    try:
        text = json.dumps(json_of(inversion))
        checked_header(json.loads(text))
    except Exception as error:  # whatever strange values raise
        raise BadInput(f"this inversion is not whole ({first_line(error)}); invert the picture again") from error
    return text


def _checked(written: dict[str, Any], shapes: dict[str, list[int]], kinds: dict[str, str]) -> Header:
    """What `Inversion.load` and the verbs rely on; any exception here means a file that is corrupt."""
    from unsample.verbs.provenance import checked_header

    header = checked_header(written)
    _check_tensors(shapes, kinds, len(header.status), header.meta.stop_index)
    _check_state(shapes, kinds, header.meta)
    for name in ("prompt", "negative_prompt"):
        if f"{name}_embeds" in shapes and any(p is not None for p in getattr(header.meta, name)):
            raise ValueError(f"it holds {name} and {name}_embeds, of which one holds")
    return header


def _check_tensors(shapes: dict[str, list[int]], kinds: dict[str, str], count: int, stop: int) -> None:
    for name, shape in shapes.items():
        known = name in TENSORS or name.startswith(("state.", *MORE))
        dimensions, types = TENSORS.get(name, (None, (*FLOATS, "I64", "BOOL") if name.startswith(MORE) else FLOATS))
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
    ragged = any(name.startswith(MORE) for name in shapes)
    if len(embeds) == 2 and embeds[0][1:] != embeds[1][1:] and not ragged:
        raise ValueError(f"its prompt_embeds and negative_prompt_embeds differ in shape: {embeds[0]} and {embeds[1]}")


def _check_state(shapes: dict[str, list[int]], kinds: dict[str, str], meta: Provenance) -> None:
    """Each state against what its method keeps; one that is missing is said where it would be played back."""
    from unsample.methods import get_method

    try:
        method = get_method(meta.method.name, meta.method.settings)
    except (BadOption, TypeError):
        return  # a method that is not known here is refused where it would be played back
    embedding = next((shapes[n][1:] for n in EMBEDS if n in shapes), None)
    for name in (n for n in shapes if n.startswith("state.")):
        kept = method.keeps.get(name.removeprefix("state."))
        if kept is None:
            raise ValueError(f"{method.name} keeps {', '.join(method.keeps) or 'the noise alone'}, and no {name}")
        wanted = kept.misfit(shapes[name], shapes["noise"], embedding, (meta.grid.timesteps, meta.stop_index))
        if wanted or kinds[name] not in EXACT:
            raise ValueError(
                f"{name} of {method.name} is {kept.shape} of float32 or float64, here {wanted or 'that'}, and not "
                f"{tuple(shapes[name])} of type {kinds[name]}"
            )


def check_finite(named: Mapping[str, Tensor], status: Sequence[str]) -> None:
    """Whether all numbers of the pictures that were not lost are finite."""
    sound = [k for k, verdict in enumerate(status) if verdict != "diverged"]
    for name, value in named.items():
        rows = value.transpose(0, 1) if name == "trajectory" else value
        if value.is_floating_point() and not bool(rows[sound].isfinite().all()):
            raise ValueError(f"the stored {name} is not finite")
