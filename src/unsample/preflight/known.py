"""What can be told of a model without loading it, and which one a name means."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unsample.errors import BadOption, Incompatible, WeightsMissing
from unsample.models.loading import BUNDLED, MIXTURE, find_model
from unsample.models.minis import mini
from unsample.models.variants import parted
from unsample.numbers.grid import check_steps
from unsample.preflight import rules
from unsample.wording import argument, of

if TYPE_CHECKING:
    from unsample.methods import Method
    from unsample.models.base import Model

DEFAULT_MODEL = "scenes-sd"


@dataclass(frozen=True)
class KnownModel:
    """What can be told of a model without loading it; None where it cannot (a hub id that is not here yet)."""

    name: str
    folder: Path | None = None  # or the path of a single file
    takes_prompt: bool | None = None
    num_train_timesteps: int | None = None
    only_size: tuple[int, int] | None = None
    from_file: bool = False  # a file named it: nothing is fetched for it
    num_classes: int | None = None  # 0: it is known to draw none
    flow: bool | None = None  # whether its noise levels are those of flow matching
    autoencoder: bool | None = None  # whether it has one

    def check(
        self,
        steps: int | None = None,
        prompt: str | None = None,
        scales: Sequence[float | None] = (),
        nulled: bool = False,
        *,
        name: str = "prompt",
    ) -> None:
        """Refuse steps, prompts and guidance that it does not take; `name` is the prompt's as an argument.

        Raises:
            BadOption, Incompatible: with the reason.
        """
        if steps is not None:
            with of("steps"):
                check_steps(steps, self.num_train_timesteps)
        rules.check_takes_prompt(self.name, self.takes_prompt, prompt, name)
        rules.check_guidance_of(self.name, self.takes_prompt, self.num_classes, scales, nulled)

    def check_method(self, method: Method, prompt: str | None, name: str = "prompt") -> None:
        """Refuse a method that works on text where there is none, or on noise levels of the other kind."""
        if self.flow is not None:
            rules.check_levels(method, self.flow)
        rules.check_needs_prompt(method, self.name, self.takes_prompt, bool(prompt), name)

    def check_labels(
        self, classes: Sequence[int] | None, negative: Sequence[int] | None, name: str = "class_labels"
    ) -> None:
        """Refuse class labels that it does not draw, or that are missing."""
        rules.check_classes(self.name, self.num_classes, classes is not None, name)
        for said, labels in ((name, classes), ("negative_class_labels", negative)):
            rules.check_in_range(self.name, self.num_classes, labels or (), said)

    def check_autoencoder(self) -> None:
        """Refuse a model that is known to have none.

        Raises:
            Incompatible: it works on the pictures themselves.
        """
        if self.autoencoder is False:
            raise Incompatible(
                f"{self.name} has no autoencoder: it works on the pictures themselves; name another model"
            )

    def why_not(self, method: Method, scales: Sequence[float | None] = ()) -> str | None:
        """Why it cannot take a method, or guidance, when the pictures have prompts; None where it can."""
        try:
            self.check(scales=scales)
            self.check_method(method, "a prompt")
        except Incompatible as error:
            return str(error)
        return None


def known_model(name: str) -> KnownModel:
    """A model that the user named.

    Raises:
        WeightsMissing: no such model, or it is not here and may not be fetched.
    """
    base, changes = parted(name)
    if changes:
        return replace(known_model(base), name=name)
    if name == MIXTURE:
        return KnownModel(
            name, None, takes_prompt=True, num_train_timesteps=1000, only_size=(32, 32), flow=False, autoencoder=False
        )
    if not name:
        raise WeightsMissing(
            "a model without a name was asked for; give a bundled name, a diffusers folder or a hub id"
        )
    try:
        folder = find_model(name)
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise WeightsMissing(
            f"no model {name[:60]!r}: {error.strerror or error}; 'unsample models' lists some"
        ) from error
    if name in BUNDLED and not (folder and (folder / "model_index.json").is_file()):
        raise WeightsMissing(
            f"the bundled model {name} is missing from this installation; reinstall unsample, or 'make models'"
        )
    folder = folder or cached(name)
    if folder is not None:
        return KnownModel(name, folder) if folder.is_file() else _read(name, folder)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise WeightsMissing(
            f"model {name!r} is not in the local cache, and HF_HUB_OFFLINE forbids fetching it; give a diffusers folder"
        )
    return KnownModel(name)


def known_of(model: Model) -> KnownModel:
    """A model in memory, told as one that is not loaded."""
    from unsample.numbers.grid import FLOW, prediction_type_of

    scheduler = getattr(model, "scheduler", None)
    steps = getattr(scheduler, "config", {}).get("num_train_timesteps")
    flow = None if scheduler is None else prediction_type_of(scheduler) == FLOW
    return KnownModel(model.id, None, model.takes_prompt, steps if isinstance(steps, int) else None, flow=flow)


def named_by_file(name: object, folders: bool = False) -> KnownModel | None:
    """The model that a file names, or None. A file is others' text: nothing is fetched for it, and no path is followed.

    Args:
        name: what stands in the file.
        folders: whether a folder of that very name in the current one will do, as a saved inversion records it. A name
            with a slash is a hub id that the local cache holds, or nothing.
    """
    if not isinstance(name, str):
        return None
    try:
        beside = folders and not re.search(r"[/\\:]", name) and name not in ("", ".", "..", "~") and Path(name).is_dir()
        if parted(name)[0] in BUNDLED or mini(name) or beside or (cached(name) and not os.path.lexists(name)):
            return replace(known_model(name), from_file=True)
    except (WeightsMissing, BadOption, OSError, ValueError):
        pass
    return None


def recorded_model(name: object, where: str) -> KnownModel:
    """The model that a saved inversion names; its weights' hash is compared before anything is played.

    Raises:
        WeightsMissing: not here.
    """
    known = named_by_file(name, folders=True)
    if known is None:
        raise WeightsMissing(
            f"{where} was made with the model {name!r}, which is not here under that name; "
            f"give the model with {argument('model')} (a bundled name, a diffusers folder or a hub id)"
        )
    return known


def playing_model(named: KnownModel | None, name: str, where: str, allow_other: bool) -> KnownModel:
    """The model to play a file back with: the one that the user named, else the one that the file names.

    Raises:
        BadInput: two bundled models, whose weights differ; of others it is known when they are loaded.
        WeightsMissing: not here.
    """
    if named is None:
        return recorded_model(name, where)
    if not allow_other and named.name != name and {named.name, name} <= BUNDLED.keys():
        raise rules.other_model(name, named.name, where)
    return named


def cached(name: str) -> Path | None:
    """The folder of a hub id in the local cache."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "model_index.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _read(name: str, folder: Path) -> KnownModel:
    """The facts in a pipeline folder's JSON files."""
    try:
        index = json.loads((folder / "model_index.json").read_text())
        parts = {part for part, kind in index.items() if isinstance(kind, list) and kind[0] is not None}
        scheduler = folder / "scheduler" / "scheduler_config.json"
        config = json.loads(scheduler.read_text()) if scheduler.is_file() else {}
        steps = config.get("num_train_timesteps")
        network = folder / "unet" / "config.json"
        unet = json.loads(network.read_text()) if network.is_file() else {}
        prompted = any(part.startswith(("text_encoder", "bert")) for part in parts)
        pixel = "UNet2DModel" in (index.get("unet") or ()) and not parts & {"vae", "vqvae"}
        classes = (unet.get("num_class_embeds") or 0) if prompted or pixel else None  # the others may draw classes
    except (OSError, ValueError, AttributeError, IndexError) as error:
        raise WeightsMissing(
            f"model {name}: its model_index.json or scheduler_config.json cannot be read ({error})"
        ) from error
    flow = "flow" in str(config.get("prediction_type", "")) or bool(config.get("use_flow_sigmas"))
    flow = flow or str(config.get("_class_name", "")).startswith("FlowMatch")
    steps, classes = (n if isinstance(n, int) else None for n in (steps, classes))
    return KnownModel(
        name,
        folder,
        True if prompted else False if pixel else None,
        steps,
        num_classes=classes,
        flow=flow if config else None,
        autoencoder=False if pixel else True if "vae" in parts else None,
    )
