"""`unsample plan`: the memory and the passes that an inversion takes, before anything is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from unsample.cli import checks, options, talk
from unsample.cli.flat import command
from unsample.cli.methods import table
from unsample.cli.options import INVERSION, Placement, opt
from unsample.errors import BadOption
from unsample.numbers.grid import check_steps
from unsample.preflight.known import DEFAULT_MODEL, known_model
from unsample.wording import of

if TYPE_CHECKING:
    from unsample.verbs.planning import Planned


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    command(
        app,
        plan,
        "unsample plan -m scenes-sd --method null_text --steps 50",
        "unsample plan -m FOLDER --method fixed_point --size 1024x1024 --dtype bfloat16 --offload model --json",
    )


@dataclass(frozen=True)
class PlanOptions:
    """The inversion that is planned."""

    method: Annotated[str, opt(INVERSION, "NAME", "'unsample methods' lists them.")] = "ddim"
    set: Annotated[list[str] | None, opt(INVERSION, "KEY=VALUE", options.SET_HELP, default="the method's own")] = None
    size: Annotated[
        str | None, opt(INVERSION, "WxH", "Of the pictures, in pixels; one number is a square.", default="the model's")
    ] = None
    steps: Annotated[int, opt(INVERSION, "N", options.STEPS_HELP, *options.STEPS)] = 50
    batch_size: Annotated[int, opt(INVERSION, "N", "Pictures that go through the model together.")] = 1
    guidance_scale: Annotated[
        float | None, opt(INVERSION, "W", "Guidance while inverting.", default="the method's own, else 1")
    ] = None
    sampling_guidance_scale: Annotated[
        float | None,
        opt(INVERSION, "W", "Guidance of the reconstruction.", default="the method's own, else --guidance-scale"),
    ] = None
    strength: Annotated[
        float | None, opt(INVERSION, "S", "In (0, 1]: the part that is walked.", default="the method's own, else 1")
    ] = None


def plan(
    *,
    what: PlanOptions,
    model: options.OwnModel = DEFAULT_MODEL,
    place: Placement,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Predict an inversion's peak memory and passes; no weights are read.

    The model's configs and the headers of its weights must be here. Memory is what
    torch allocates; Python and the libraries come on top (about 1 GB).
    """
    with of("steps"):
        check_steps(what.steps)
    for name in ("guidance_scale", "sampling_guidance_scale"):
        checks.guidance(name, getattr(what, name))
    method = checks.configured_method(what.method, what.set)
    checks.at_least("--batch-size", what.batch_size)
    size, where, known = size_of(what.size), checks.place(place), known_model(model)
    known.check(what.steps, scales=[what.guidance_scale, what.sampling_guidance_scale], nulled=True)
    if not talk.hears_everything():
        from unsample.models.loading import quiet_libraries

        quiet_libraries()
    from unsample.verbs import planning

    found = planning.plan(
        known,
        method,
        size=size,
        num_inference_steps=what.steps,
        pictures=what.batch_size,
        guidance_scale=what.guidance_scale,
        sampling_guidance_scale=what.sampling_guidance_scale,
        strength=what.strength,
        dtype=where.dtype,
        offload=where.offload,
        vae_tiling=where.vae_tiling,
        quantize=where.quantize,
        free_text_encoders=where.free_text_encoders,
    )
    if json:
        talk.document(found.json())
    else:
        talk.answer(told(found))
    return 0


def size_of(text: str | None) -> tuple[int, int] | None:
    """Width and height."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})(?:[x×](\d{1,5}))?", text.strip())
    width, height = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not width or not height:
        raise BadOption(f"--size must be WIDTHxHEIGHT in pixels, such as 1024x768; got {text!r}")
    return width, height


def told(found: Planned) -> str:
    """The plan, for reading."""
    passes = f"{found.passes:,} a picture" + (f", and {found.backward:,} backward" if found.backward else "")
    rows = [
        ("model", f"{found.model} ({found.adapter})"),
        ("pictures", f"{found.pictures} of {found.size[0]}x{found.size[1]}"),
        ("inversion", f"{found.method}, {found.steps} steps{', guided' if found.guided else ''}"),
        ("passes", f"{passes}, without early stopping"),
        *((f"weights of {part}", amount(n)) for part, n in found.weights.items()),
        *((f"to {phase}", "unknown" if n is None else amount(n)) for phase, n in found.activations.items()),
        ("peak", amount(found.peak["device"]) + (" at least" if found.unknown else "")),
    ]
    if found.peak["waiting"]:
        rows.append(("waiting in the machine's memory", amount(found.peak["waiting"])))
    notes = [f"\nto {phase}: {why}, so its memory cannot be told beforehand" for phase, why in found.unknown.items()]
    return "".join([table(rows), *notes])


def amount(count: int) -> str:
    """Bytes, for reading."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
