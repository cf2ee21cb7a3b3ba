"""Options and model names, checked before torch is imported, so that a mistake costs no time."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, BadOption, Incompatible, WeightsMissing
from unsample.models.loading import MIXTURE as MIXTURE

if TYPE_CHECKING:
    from unsample.cli.options import Placement
    from unsample.media.pictures import Fit
    from unsample.methods import Method

DEFAULT_MODEL = "scenes-sd"
DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "npu", "mtia", "xla")
MAX_SEED = 2**63 - 1


@contextmanager
def option(name: str) -> Iterator[None]:
    """Put the option's name before what the library says of its value."""
    try:
        yield
    except BadOption as error:
        raise type(error)(f"{name}: {error}") from error


@dataclass(frozen=True)
class Labels:
    """`--class-labels` and `--negative-class-labels`: one for all pictures, or one each; None where not given."""

    classes: tuple[int, ...] | None = None
    negative: tuple[int, ...] | None = None

    def taken(self, pictures: Iterable[int]) -> dict[str, Any]:
        """What the library is given for some of the pictures, told by their place."""
        places, both = list(pictures), {"class_labels": self.classes, "negative_class_labels": self.negative}
        return {n: None if v is None else [v[k % len(v)] for k in places] for n, v in both.items()}


@dataclass(frozen=True)
class Walk:
    """How to invert: checked."""

    method: Method
    steps: int
    guidance_scale: float | None  # None: the method's own, else 1
    sampling_guidance_scale: float | None
    guidance_schedule: str
    strength: float  # resolved: the method's own where none was given
    seed: int
    fit: Fit
    clip: str
    labels: Labels = Labels()


def checked_walk(method: str, settings: list[str] | None, walk: dict[str, Any]) -> Walk:
    """The options of an inversion; `walk` holds the fields of `Walk` after the first.

    Raises:
        BadOption: any of them cannot be.
    """
    from unsample.numbers.grid import check_steps

    with option("--steps"):
        check_steps(walk["steps"])
    for name in ("guidance_scale", "sampling_guidance_scale"):
        if walk[name] is not None:
            guidance(f"--{name.replace('_', '-')}", walk[name])
    configured = configured_method(method, settings)
    strength = (configured.strength or 1.0) if walk["strength"] is None else walk["strength"]
    if not 0 < strength <= 1:
        raise BadOption(f"--strength must be above 0 and at most 1; got {strength:g}")
    if int(walk["steps"] * strength) < 1:
        raise BadOption(
            f"--strength {strength:g} of {walk['steps']} steps is no step; use more steps or a larger strength"
        )
    seed(walk["seed"])
    return Walk(configured, **walk | {"strength": strength})


def guidance(name: str, value: float) -> float:
    """A guidance scale, finite and not negative."""
    from unsample.models.guidance import check_guidance

    with option(name):
        return check_guidance(value)


def seed(value: int, count: int = 1) -> int:
    """A seed that torch takes, and `count` from it on."""
    if not 0 <= value <= MAX_SEED - count:
        raise BadOption(f"--seed must be from 0 to {MAX_SEED - count}; got {value}")
    return value


def at_least(name: str, value: int, lowest: int = 1, highest: int | None = None) -> int:
    """A count."""
    if value < lowest:
        raise BadOption(f"{name} must be at least {lowest}; got {value}")
    if highest is not None and value > highest:
        raise BadOption(f"{name} must be at most {highest}; got {value}")
    return value


def text(name: str, value: str | None) -> str | None:
    """A prompt; bytes that are no text (a broken paste) are refused before a tokenizer chokes on them."""
    if value is not None and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadOption(f"{name} is not valid UTF-8 text; type it again") from error
    return value


def labels(classes: str | None, negative: str | None, count: int, of: str = "") -> Labels:
    """The two options, for `count` pictures; `of` stands before the first one's name."""
    found: list[tuple[int, ...] | None] = []
    for name, value in ((f"--{of}class-labels", classes), ("--negative-class-labels", negative)):
        if value is None:
            found.append(None)
            continue
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            raise BadOption(f"{name} takes whole numbers of at least 0, separated by commas; got {value!r}")
        if len(parts) not in (1, count):
            raise BadOption(f"{name} holds {len(parts)} classes for {count} pictures; give 1 or {count}")
        found.append(tuple(map(int, parts)))
    if found[0] is None and found[1] is not None:
        raise BadOption("--negative-class-labels is for guidance over classes; give --class-labels too")
    return Labels(*found)


def configured_method(name: str, settings: list[str] | None) -> Method:
    """The method that `--method` and `--set` describe."""
    from unsample.methods import get_method, parse_settings

    get_method(name)  # refuses a name that is not in the table
    pairs: list[tuple[str, str]] = []
    for pair in settings or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadOption(f"--set takes KEY=VALUE, for example --set num_iters=5; got {pair!r}")
        pairs.append((key.strip(), value.strip()))
    with option("--set"):
        return get_method(name, parse_settings(name, pairs))


def recorded_method(recorded: Mapping[str, Any], where: str) -> Method:
    """The method that a saved inversion was made with."""
    from unsample.methods import get_method

    try:
        return get_method(recorded["name"], recorded["settings"])
    except (BadOption, TypeError) as error:
        raise BadInput(f"{where}: the method it was made with cannot be played back: {error}") from error


def place(where: Placement) -> Placement:
    """Device and offload, as far as they can be known without torch."""
    kind = (where.device or "").partition(":")[0]
    if where.device is not None and (kind not in DEVICES or not re.fullmatch(r"[a-z]+(:\d+)?", where.device)):
        raise BadOption(f"--device must be one of {', '.join(DEVICES)}, or like cuda:1; got {where.device!r}")
    if where.offload != "none" and kind == "cpu":
        raise BadOption(f"--offload {where.offload} needs an accelerator; leave it out with --device cpu")
    return where


# ---------------------------------------------------------------- models


@dataclass(frozen=True)
class KnownModel:
    """What can be told of a model without loading it; None where it cannot (a hub id that is not here yet)."""

    name: str
    folder: Path | None = None
    takes_prompt: bool | None = None
    num_train_timesteps: int | None = None
    only_size: tuple[int, int] | None = None
    from_file: bool = False  # a file named it: nothing is fetched for it
    num_classes: int | None = None  # 0: it is known to draw none

    def check_method(self, method: Method, prompt: str | None) -> None:
        """Refuse a method that works on text where there is none."""
        if method.needs_prompt and self.takes_prompt is False:
            raise Incompatible(
                f"{method.name} works on the text condition and {self.name} takes no prompt; use a text model"
            )
        if method.needs_prompt and not prompt:
            raise BadOption(f"{method.name} needs the prompt that describes the picture; give --prompt")

    def check_labels(self, given: Labels, option: str = "--class-labels") -> None:
        """Refuse class labels that it does not draw, or that are missing."""
        if self.num_classes is None:
            return
        if given.classes is not None and not self.num_classes:
            raise Incompatible(f"{self.name} draws no classes; leave {option} out")
        if given.classes is None and self.num_classes:
            raise BadOption(f"{self.name} draws classes; give {option}, 0 to {self.num_classes - 1}")
        for name, values in {option: given.classes, "--negative-class-labels": given.negative}.items():
            if values and max(values) >= self.num_classes:
                raise BadOption(f"{name} of {self.name} are 0 to {self.num_classes - 1}; got {max(values)}")

    def check(
        self,
        steps: int | None = None,
        prompt: str | None = None,
        scales: Sequence[float | None] = (),
        nulled: bool = False,
    ) -> None:
        """Refuse steps, prompts and guidance that it does not take."""
        from unsample.numbers.grid import check_steps

        if steps is not None:
            with option("--steps"):
                check_steps(steps, self.num_train_timesteps)
        if prompt and self.takes_prompt is False:
            raise Incompatible(
                f"{self.name} takes no prompt; leave the prompt out, or use a text model such as scenes-sd"
            )
        for scale in scales:
            if self.takes_prompt is False and scale not in (None, 0, 1) and self.num_classes:
                if not nulled:
                    raise Incompatible(
                        f"guidance {scale:g} over the classes of {self.name} needs the class that stands for none; "
                        "give --negative-class-labels, or use 1"
                    )
            elif self.takes_prompt is False and scale not in (None, 0, 1):
                raise Incompatible(f"{self.name} takes no prompt, so there is no guidance; got {scale:g}, use 1")


def known_model(name: str) -> KnownModel:
    """A model that the user named.

    Raises:
        WeightsMissing: no such model, or it is not here and may not be fetched.
    """
    from unsample.models.loading import BUNDLED, find_model

    if name == MIXTURE:
        return KnownModel(name, None, takes_prompt=True, num_train_timesteps=1000, only_size=(32, 32))
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
        return _read(name, folder)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise WeightsMissing(
            f"model {name!r} is not in the local cache, and HF_HUB_OFFLINE forbids fetching it; give a diffusers folder"
        )
    return KnownModel(name)


def named_by_file(name: object, folders: bool = False) -> KnownModel | None:
    """The model that a file names, or None. A file is others' text: nothing is fetched for it, and no path is followed.

    Args:
        name: what stands in the file.
        folders: whether a folder of that very name in the current one will do, as a saved inversion records it. A name
            with a slash is a hub id that the local cache holds, or nothing.
    """
    from unsample.models.loading import BUNDLED

    if not isinstance(name, str):
        return None
    try:
        beside = folders and not re.search(r"[/\\:]", name) and name not in ("", ".", "..", "~") and Path(name).is_dir()
        if name in BUNDLED or beside or (cached(name) and not os.path.lexists(name)):
            return replace(known_model(name), from_file=True)
    except (WeightsMissing, OSError, ValueError):
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
            "give the model with --model (a bundled name, a diffusers folder or a hub id)"
        )
    return known


def playing_model(named: KnownModel | None, name: str, where: str, allow_other: bool) -> KnownModel:
    """The model to play a file back with: the one that the user named, else the one that the file names.

    Raises:
        BadInput: two bundled models, whose weights differ; of others it is known when they are loaded.
        WeightsMissing: not here.
    """
    from unsample.models.loading import BUNDLED

    if named is None:
        return recorded_model(name, where)
    if not allow_other and named.name != name and {named.name, name} <= BUNDLED.keys():
        raise BadInput(
            f"{where} was made by {name}, not by {named.name}; use that model (leave --model out), or "
            "--allow-other-model"
        )
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
        classes = json.loads(network.read_text()).get("num_class_embeds") if network.is_file() else None
    except (OSError, ValueError, AttributeError, IndexError) as error:
        raise WeightsMissing(
            f"model {name}: its model_index.json or scheduler_config.json cannot be read ({error})"
        ) from error
    steps, classes = (n if isinstance(n, int) else None for n in (steps, classes or 0))
    return KnownModel(name, folder, "text_encoder" in parts, steps, num_classes=classes)
