"""Weights that metrics need and that are not ours to carry: what they are called, where they are looked for.

Nothing is ever downloaded. A file is looked for in `weights_dir`, then in `$UNSAMPLE_WEIGHTS`, then in the caches of
the Hugging Face hub and of torch hub. A missing one is a `WeightsMissing` that says what to put where; `measure`
turns it into a reason. SHA-256 digits are those that torch hub's own file names carry, so only the first eight.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache, partial
from pathlib import Path

from unsample.errors import WeightsMissing

VARIABLE = "UNSAMPLE_WEIGHTS"
SUFFIXES = (".safetensors", ".pth")


@dataclass(frozen=True)
class WeightFiles:
    """A file, or a folder, of weights."""

    name: str  # as metrics call it
    file: str  # its usual name
    megabytes: float
    url: str
    _: KW_ONLY
    licence: str
    sha256: str = ""  # its first digits, where they are known
    hub: str = ""  # its id on the Hugging Face hub, for folders
    holds: tuple[str, ...] = ()  # for folders: what must be in it


TORCHVISION = partial(WeightFiles, licence="BSD-3-Clause (torchvision)")
HUB = partial(WeightFiles, holds=("config.json",))
TORCH, HUGGING_FACE = "https://download.pytorch.org/models/", "https://huggingface.co/"
# fmt: off
ROWS = (
    TORCHVISION("alexnet", "alexnet-owt-7be5be79.pth", 233, TORCH + "alexnet-owt-7be5be79.pth", sha256="7be5be79"),
    TORCHVISION("vgg16", "vgg16-397923af.pth", 528, TORCH + "vgg16-397923af.pth", sha256="397923af"),
    TORCHVISION("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", 5, TORCH + "squeezenet1_1-b8a52dc0.pth",
                sha256="b8a52dc0"),
    HUB("clip-vit-large-patch14", "clip-vit-large-patch14", 1710, HUGGING_FACE + "openai/clip-vit-large-patch14",
        licence="MIT (OpenAI CLIP)", hub="openai/clip-vit-large-patch14"),
    HUB("clip-vit-base-patch32", "clip-vit-base-patch32", 605, HUGGING_FACE + "openai/clip-vit-base-patch32",
        licence="MIT (OpenAI CLIP)", hub="openai/clip-vit-base-patch32"),
    HUB("dino-vitb8", "dino-vitb8", 343, HUGGING_FACE + "facebook/dino-vitb8",
        licence="Apache-2.0 (DINO)", hub="facebook/dino-vitb8"),
    WeightFiles("dreamsim", "dreamsim", 1300, "https://github.com/ssundaram21/dreamsim/releases",
            licence="MIT (DreamSim)", holds=("dino_vitb16_pretrain.pth", "open_clip_vitb16_pretrain.pth.tar",
                                             "clip_vitb16_pretrain.pth.tar", "ensemble_lora")),
    WeightFiles("inception", "weights-inception-2015-12-05-6726825d.pth", 91,
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
            sha256="6726825d", licence="Apache-2.0 (torch-fidelity)"),
)
# fmt: on
WEIGHTS: dict[str, WeightFiles] = {row.name: row for row in ROWS}


def find_weights(name: str, weights_dir: str | None = None) -> Path:
    """Where the weights of a name in `WEIGHTS` lie: a file, or a folder.

    Raises:
        WeightsMissing: nowhere; the message names file, size, SHA-256, source, and where to put it.
    """
    wanted = WEIGHTS[name]
    found = next((c for place in places(weights_dir) for c in _candidates(place, name) if _is_it(c, wanted)), None)
    if found is None and wanted.hub:
        found = _in_hub_cache(wanted.hub)
    if found is None:
        raise missing(name, weights_dir)
    return found


def find_folder(name: str, weights_dir: str | None = None) -> Path:
    """The folder of a transformers model: bundled, a path, a name in `WEIGHTS`, or a hub id in the cache.

    Raises:
        WeightsMissing: none of these.
    """
    from unsample.models.loading import BUNDLED_FOLDER

    bundled = BUNDLED_FOLDER / name
    if name and "/" not in name and (bundled / "config.json").is_file():
        return bundled
    if name in WEIGHTS:
        return find_weights(name, weights_dir)
    known = next((key for key, w in WEIGHTS.items() if w.hub == name), None)
    if known:
        return find_weights(known, weights_dir)
    here = [Path(name).expanduser(), *(place / name for place in places(weights_dir))]
    found = next((path for path in here if (path / "config.json").is_file()), None) or _in_hub_cache(name)
    if found is None:
        raise WeightsMissing(
            f"no transformers folder {name!r} was found: it is no bundled name, no folder with a config.json, not in "
            f"{_listed(weights_dir)} or the hub's cache; put the folder there, or give its path"
        )
    return found


def places(weights_dir: str | None = None) -> list[Path]:
    """The folders that are looked into, in order."""
    given = [weights_dir, os.environ.get(VARIABLE)]
    return [Path(g).expanduser() for g in given if g] + [_torch_hub()]


def missing(name: str, weights_dir: str | None = None) -> WeightsMissing:
    """The error for weights that are nowhere."""
    wanted = WEIGHTS[name]
    digest = f", SHA-256 {wanted.sha256}..." if wanted.sha256 else ""
    parts = f" with {', '.join(wanted.holds)}" if wanted.holds else ""
    kind = "folder" if wanted.holds else "file"
    return WeightsMissing(
        f"weights {name!r} are not here: the {kind} {wanted.file}{parts} ({wanted.megabytes:g} MB{digest}) is not in "
        f"{_listed(weights_dir)}; get it from {wanted.url} and put it into a folder that --weights-dir or "
        f"${VARIABLE} names; nothing is downloaded"
    )


def check_digest(path: Path, name: str) -> None:
    """Refuse a file that carries its usual name and not its digest; others are taken for what they are said to be.

    Raises:
        WeightsMissing: the digits differ.
    """
    wanted = WEIGHTS[name]
    if path.name != wanted.file or not wanted.sha256:
        return
    found = _digest(path, path.stat().st_mtime_ns)
    if not found.startswith(wanted.sha256):
        raise WeightsMissing(
            f"{path.name} is damaged or another file: its SHA-256 begins {found[:8]}, that of {wanted.file} "
            f"{wanted.sha256}; get it again from {wanted.url}"
        )


@lru_cache
def _digest(path: Path, changed: int) -> str:
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _candidates(place: Path, name: str) -> Iterator[Path]:
    """The usual file name, then the short names."""
    yield place / WEIGHTS[name].file
    yield from (place / f"{name}{suffix}" for suffix in SUFFIXES)
    yield place / name


def _is_it(path: Path, wanted: WeightFiles) -> bool:
    if wanted.holds:
        return path.is_dir() and all((path / part).exists() for part in wanted.holds)
    return path.is_file() or (path / "weights").is_dir()  # a folder of .npy files


def _listed(weights_dir: str | None) -> str:
    return ", ".join(repr(str(p)) for p in places(weights_dir))


def _torch_hub() -> Path:
    """Torch hub's folder of checkpoints, found without torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub" / "checkpoints"


def _in_hub_cache(hub: str) -> Path | None:
    """The newest snapshot of a hub id in the local cache; the network is not asked."""
    if hub.count("/") != 1 or hub.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(hub, "config.json")
    except HFValidationError:  # a path that merely looks like an id
        return None
    return Path(found).parent if isinstance(found, str) else None
