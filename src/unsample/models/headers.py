"""What a folder of weights holds, told from the headers of its safetensors files; no weights are read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from unsample.models.families import read_json, variants_in

BITS = {
    **{"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16},
    **{"F8_E5M2": 8, "F8_E4M3": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8},
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64},
}
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
LONGEST = 100_000_000  # bytes of a header that safetensors takes


@dataclass(frozen=True)
class Stored:
    """One tensor in a file."""

    dtype: str  # as safetensors spells it: F32, BF16 ...
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Numbers in it."""
        return prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether a cast changes it."""
        return self.dtype.startswith(("F", "BF"))


def header(path: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file.

    Raises:
        ValueError: it is not one.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 1 < length <= min(LONGEST, path.stat().st_size):
                raise ValueError(f"a header of {length} bytes")
            found = json.loads(file.read(length))
        return {
            name: Stored(str(kind["dtype"]), tuple(int(n) for n in kind["shape"]))
            for name, kind in found.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path.parent.name}/{path.name} is no readable safetensors file: {error}") from error


def weights_files(part: Path, variant: str | None = None) -> list[Path]:
    """The safetensors files of one part of a pipeline: the plain ones, or those of a variant ("fp16").

    Where an index lists shards, they alone are taken: a single file that lies beside them is not what is loaded.
    """
    files = [f for f in sorted(part.glob("*.safetensors")) if next(variants_in(f.name), None) == variant]
    indices = sorted(part.glob("*.safetensors.index*.json"))
    named = {
        name
        for index in indices
        if (variant is not None) is (f".{variant}." in index.name)
        for name in _shards(read_json(index).get("weight_map"))
    }
    single = [f for f in files if f.name not in named and "-of-" not in f.name]
    return single or [f for f in files if f.name in named] or files


def _shards(weight_map: object) -> Iterator[str]:
    if isinstance(weight_map, Mapping):
        yield from (name for name in weight_map.values() if isinstance(name, str))


def stored(part: Path, variant: str | None = None) -> dict[str, Stored]:
    """All tensors of one part of a pipeline; empty where it has no weights in safetensors."""
    return {name: kind for file in weights_files(part, variant) for name, kind in header(file).items()}


def widest(tensors: Mapping[str, Stored]) -> str | None:
    """The floating dtype ("float32", "bfloat16" ...) that holds every tensor exactly; None where there is none."""
    kinds = {kind.dtype for kind in tensors.values() if kind.floating}
    if len(kinds) == 1:
        return FLOATS.get(kinds.pop(), "float32")
    return ("float64" if "F64" in kinds else "float32") if kinds else None


def size(tensors: Mapping[str, Stored], dtype: str | None = None) -> int:
    """Bytes of the tensors, their floating ones cast to `dtype`."""
    bits = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16}
    return sum(
        t.count * (bits[dtype] if dtype is not None and t.floating else BITS.get(t.dtype, 32)) // 8
        for t in tensors.values()
    )
