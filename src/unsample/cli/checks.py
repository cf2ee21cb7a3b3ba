"""Options, checked before torch is imported, so that a mistake costs no time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from unsample.errors import BadOption
from unsample.models.guidance import check_guidance
from unsample.models.placing import check_placing
from unsample.preflight import rules
from unsample.preflight.walk import Labels, Walk
from unsample.wording import argument, of

if TYPE_CHECKING:
    from unsample.cli.options import LabelOptions, Placement, PromptOptions, WalkOptions
    from unsample.edits import Editor
    from unsample.methods import Method

DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "npu", "mtia", "xla")


def walk(given: WalkOptions, method: str | None = None, settings: list[str] | None = None) -> Walk:
    """The walk that the options describe, by their own method and settings or by others.

    Raises:
        BadOption: any of them cannot be.
    """
    names = ("guidance_scale", "sampling_guidance_scale", "guidance_schedule", "strength", "seed", "fit", "clip")
    own = given.set if settings is None else settings
    return Walk(
        configured_method(method or given.method, own), given.steps, **{name: getattr(given, name) for name in names}
    )


def prompts(given: PromptOptions) -> tuple[str | None, str | None]:
    """Prompt and negative prompt."""
    return rules.check_text(given.prompt), rules.check_text(given.negative_prompt, "negative_prompt")


def guidance(name: str, value: float | None) -> float | None:
    """A guidance scale, finite and not negative; `name` is that of the argument."""
    with of(name):
        return None if value is None else check_guidance(value)


def at_least(name: str, value: int, lowest: int = 1, highest: int | None = None) -> int:
    """A count."""
    if value < lowest:
        raise BadOption(f"{name} must be at least {lowest}; got {value}")
    if highest is not None and value > highest:
        raise BadOption(f"{name} must be at most {highest}; got {value}")
    return value


def batch_size(text: str) -> int:
    """`--batch-size`; 0 is auto.

    Raises:
        BadOption: it is neither a number nor auto.
    """
    if text == "auto":
        return 0
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 4096:
        raise BadOption(f"--batch-size takes a number from 1 to 4096, or auto; got {text!r}")
    return int(text)


def labels(classes: str | None, negative: str | None, count: int, name: str = "class_labels") -> Labels:
    """Class labels and negative ones for `count` pictures; `name` is the first one's as an argument."""
    found: list[tuple[int, ...] | None] = []
    for said, value in ((argument(name), classes), (argument("negative_class_labels"), negative)):
        if value is None:
            found.append(None)
            continue
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            raise BadOption(f"{said} takes whole numbers of at least 0, separated by commas; got {value!r}")
        if len(parts) not in (1, count):
            raise BadOption(f"{said} holds {len(parts)} classes for {count} pictures; give 1 or {count}")
        found.append(tuple(map(int, parts)))
    if found[0] is None and found[1] is not None:
        raise BadOption("--negative-class-labels is for guidance over classes; give --class-labels too")
    return Labels(*found)


def both_labels(given: LabelOptions, count: int) -> Labels:
    """The same of a group of options."""
    return labels(given.class_labels, given.negative_class_labels, count)


def configured_method(name: str, settings: list[str] | None) -> Method:
    """The method that `--method` and `--set` describe."""
    from unsample.cli import talk
    from unsample.edits.choose import AUTO, METHOD
    from unsample.methods import get_method, parse_settings

    if name == AUTO:
        talk.say(f"method auto: {METHOD}, which edits as well as any at the lowest price (docs/editing.md)")
        name = METHOD
    get_method(name)  # refuses a name that is not in the table
    with of("set"):
        return get_method(name, parse_settings(name, _pairs("--set", settings, "num_iters=5")))


def configured_editor(name: str, settings: list[str] | None) -> Editor | str:
    """The editor that `--editor` and `--editor-set` describe; the word `auto` stays one."""
    from unsample.edits import get_editor, parse_settings
    from unsample.edits.choose import AUTO

    if name == AUTO:
        if settings:
            raise BadOption("--editor auto chooses the settings too; leave --editor-set out, or name an editor")
        return name
    get_editor(name)
    with of("editor_set"):
        return get_editor(name, parse_settings(name, _pairs("--editor-set", settings, "cross_steps=0.8")))


def _pairs(option: str, settings: list[str] | None, example: str) -> list[tuple[str, str]]:
    pairs = []
    for pair in settings or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadOption(f"{option} takes KEY=VALUE, for example {option} {example}; got {pair!r}")
        pairs.append((key.strip(), value.strip()))
    return pairs


def device(name: str | None) -> str:
    """The kind of a device, "" where none was named."""
    kind = (name or "").partition(":")[0]
    if name is not None and (kind not in DEVICES or not re.fullmatch(r"[a-z]+(:\d+)?", name)):
        raise BadOption(f"--device must be one of {', '.join(DEVICES)}, or like cuda:1; got {name!r}")
    return kind


def workers(devices: str | None, count: int | None, threads: int | None, engine: str, ray_address: str | None) -> None:
    """Of those who do the batches: their devices, how many they are, threads of each, and where they are."""
    for name in (devices or "").split(","):
        device(name or None)
    for option, number in (("--workers", count), ("--threads", threads)):
        if number is not None:
            at_least(option, number, highest=1024)
    rules.check_ray(engine, ray_address)
    if engine == "ray":
        from unsample.bench.ray_engine import import_ray

        import_ray()


def place(where: Placement) -> Placement:
    """How a model is to be loaded, as far as it can be known without torch."""
    kind = device(where.device)
    if where.offload != "none" and kind == "cpu":
        raise BadOption(f"--offload {where.offload} needs an accelerator; leave it out with --device cpu")
    check_placing(where.offload, where.quantize, where.free_text_encoders)
    return where
