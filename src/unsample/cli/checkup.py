"""What `unsample doctor --model` does and prints: a model's own pipeline against us, from one noise."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated

from unsample.cli import checks, options, session, talk
from unsample.cli.methods import table
from unsample.cli.options import Placement, opt
from unsample.errors import BadOption
from unsample.numbers.grid import check_steps
from unsample.preflight import rules
from unsample.preflight.known import known_model
from unsample.wording import argument, of

if TYPE_CHECKING:
    from unsample.verbs.checking import Check, Compared

CHECKING = "Checking a model"
NOT_CLEAN = 5
STEPS = 10


@dataclass(frozen=True)
class Checked:
    """Which model is checked, and at what."""

    model: Annotated[
        str | None,
        opt(CHECKING, "NAME", "Sample with its own pipeline and with us, and compare.", "--model", "-m", default=False),
    ] = None
    prompt: Annotated[str | None, opt(CHECKING, "TEXT", "What is sampled.", default="one of a scene, or a cat")] = None
    class_labels: Annotated[int | None, opt(CHECKING, "N", "Of a model that draws classes.", default="0")] = None
    steps: Annotated[int | None, opt(CHECKING, "N", options.STEPS_HELP, *options.STEPS, default=str(STEPS))] = None
    guidance_scale: Annotated[
        float | None, opt(CHECKING, "W", "Compared beside guidance 1; at least 1.", default="3, distilled 3.5")
    ] = None
    size: Annotated[str | None, opt(CHECKING, "N|WxH", "Of the picture, in pixels.", default="the model's own")] = None
    seed: Annotated[int | None, opt(CHECKING, "N", "Of the noise.", default="0")] = None


def run(asked: Checked, where: Placement, json: bool) -> int:
    """Check, print, and end with 0 where the verdict is clean, else 5."""
    width, height = _size(asked.size)
    steps = STEPS if asked.steps is None else asked.steps
    with of("steps"):
        check_steps(steps)
    checks.guidance("guidance_scale", asked.guidance_scale)
    rules.check_text(asked.prompt)
    rules.check_seed(asked.seed or 0)
    assert asked.model is not None
    known = known_model(asked.model)
    known.check(steps, asked.prompt, [asked.guidance_scale])
    loaded = session.load(known, checks.place(where))
    from unsample.verbs.checking import check

    found = check(
        loaded,
        asked.prompt,
        class_labels=asked.class_labels,
        num_inference_steps=steps,
        guidance_scale=asked.guidance_scale,
        height=height,
        width=width,
        generator=asked.seed or 0,
    )
    if json:
        talk.document(found.entries())
    else:
        talk.answer(page(found))
    return 0 if found.clean else NOT_CLEAN


def refuse_alone(asked: Checked, where: Placement) -> None:
    """Options that speak of a model, without one.

    Raises:
        BadOption: there is one.
    """
    for group in (asked, where):
        for field in fields(group):
            if getattr(group, field.name) != field.default:
                raise BadOption(f"{argument(field.name)} is of a model to be checked; give {argument('model')} too")


def _size(text: str | None) -> tuple[int | None, int | None]:
    """Width and height."""
    if text is None:
        return None, None
    found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if not found:
        raise BadOption(f"--size takes a number of pixels, or WIDTHxHEIGHT; got {text!r}")
    return int(found[1]), int(found[2] or found[1])


def page(found: Check) -> str:
    """The check, for reading."""
    width, height = found.size
    adapter = "our replay of its own call" if found.adapter == "pipeline" else "an adapter written by hand"
    lines = [
        ("model", f"{found.model} ({found.pipeline}), {found.dtype} on {found.device}, {width}x{height}"),
        ("served by", f"{adapter}{f'; family: {found.family}' if found.family else ''}"),
        ("tried before", found.tried or "no such pipeline was ever run by us"),
        *(("changed", change) for change in found.changes or ["nothing"]),
        *(("sampling", _sampling(one, found.steps)) for one in found.compared),
        ("inversion", _inversion(found)),
        ("first step", _first_step(found)),
    ]
    if found.adapter != "pixel":
        lines.append(("autoencoder", f"brings that picture back at {_decibels(found.autoencoder_psnr)}"))
    lines.append(("peak memory", f"{found.peak_bytes / 1e9:.2f} GB"))
    verdict = "clean: its own pipeline's latents are ours" if found.clean else "differs"
    return "\n".join([table([*lines, ("verdict", verdict)]), *(f"problem: {p}" for p in found.problems)])


def _sampling(one: Compared, steps: int) -> str:
    own = ", ".join(f"{name}={value:g}" for name, value in one.own.items())
    return (
        f"guidance {one.guidance_scale:g}{f' (its own {own})' if own else ''}: latents differ by {one.latents:.1e} of "
        f"their largest value after {steps} steps ({one.first_step:.1e} after one), pictures by "
        f"{one.picture_levels:.2g} of 255"
    )


def _inversion(found: Check) -> str:
    one = found.inverted
    std = "not finite" if one.noise_std is None else f"{one.noise_std:.3f}"
    return (
        f"fixed_point at guidance {one.guidance_scale:g}: {one.status}, reconstruction at {_decibels(one.psnr)}, noise "
        f"off by {one.noise_mse:.1e} in mean square (its std {std})"
    )


def _first_step(found: Check) -> str:
    one = found.first_step
    radii = ", ".join("not finite" if radius is None else f"{radius:.2f}" for radius in one.radii)
    return f"spectral radius {radii} on {found.steps} steps at guidance {one.guidance_scale:g}: {one.verdict}"


def _decibels(value: float | None) -> str:
    return "every pixel" if value is None else f"{value:.1f} dB"
