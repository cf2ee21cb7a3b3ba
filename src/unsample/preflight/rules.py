"""One function a rule, one sentence for every caller. `model` is a model's name, and None is: it is not known.

Raises, all of them: BadOption, what is given cannot be, or something is missing; Incompatible, it exists and does not
fit; BadInput, a file that does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, BadOption, Incompatible
from unsample.numeric import is_real, is_text
from unsample.wording import argument, call, given, value

if TYPE_CHECKING:
    from unsample.edits.base import Editor
    from unsample.methods import Method

MAX_SEED = 2**63 - 1  # the largest that torch takes for sure


def check_strength(strength: object, steps: int) -> int:
    """How many of the steps a strength in (0, 1] comes to, at least one."""
    if not is_real(strength) or not 0 < strength <= 1:
        raise BadOption(f"{argument('strength')} must be above 0 and at most 1; got {value(strength)}")
    stop = min(int(steps * strength), steps)
    if stop < 1:
        least = f"use more steps, or at least {1 / steps:.3g}"
        raise BadOption(f"{given('strength', strength)} of {steps} steps is no step; {least}")
    return stop


def check_seed(seed: int, count: int = 1) -> int:
    """A seed that torch takes, and `count` from it on."""
    if not 0 <= seed <= MAX_SEED - count:
        raise BadOption(f"{argument('seed')} must be from 0 to {MAX_SEED - count}; got {seed}")
    return seed


def check_text(text: str | None, name: str = "prompt") -> str | None:
    """A prompt; bytes that are no text (a broken paste) are refused before a tokenizer chokes on them."""
    if text is not None and not is_text(text):
        raise BadOption(f"{argument(name)} is not text in UTF-8; type it again: {text[:80]!a}")
    return text


# ---------------------------------------------------------------- what a model takes


def check_takes_prompt(model: str, takes_prompt: bool | None, prompt: object, name: str = "prompt") -> None:
    """No prompt for a model without text."""
    if prompt and takes_prompt is False:
        raise Incompatible(
            f"{model} takes no prompt; leave {argument(name)} out, or use a text model such as scenes-sd"
        )


def check_ray(engine: str, ray_address: str | None) -> None:
    """No address of a cluster without the engine that goes there."""
    if ray_address is not None and engine != "ray":
        raise BadOption(
            f"{argument('ray_address')} goes with {given('engine', 'ray')}; give that too, or leave the address out"
        )


def check_guidance_of(
    model: str, takes_prompt: bool | None, classes: int | None, scales: Sequence[float | None], nulled: bool = False
) -> None:
    """No guidance of a model that has nothing to guide away from.

    Args:
        model, takes_prompt: whose guidance it is.
        classes: how many it draws.
        scales: of guidance.
        nulled: whether the class that stands for none was given.
    """
    for scale in (s for s in scales if takes_prompt is False and s not in (None, 0, 1)):
        if not classes:
            raise Incompatible(f"{model} takes no prompt, so there is no guidance; got {scale:g}, use 1")
        if not nulled:
            raise Incompatible(
                f"guidance {scale:g} over the classes of {model} needs the class that stands for none; give "
                f"{argument('negative_class_labels')}, or use 1"
            )


def check_classes(model: str, classes: int | None, labelled: bool, name: str = "class_labels") -> None:
    """Class labels for a model that draws classes, and for no other; `classes` is how many it draws."""
    if classes is not None and labelled and not classes:
        raise Incompatible(f"{model} draws no classes and takes no {argument(name)}; leave them out")
    if classes and not labelled:
        raise BadOption(f"{model} draws classes; give {argument(name)}, 0 to {classes - 1}")


def check_in_range(model: str, classes: int | None, labels: Sequence[int], name: str = "class_labels") -> None:
    """Labels from 0 to the last of so many classes; None is no end of them."""
    if labels and (min(labels) < 0 or (classes and max(labels) >= classes)):
        known = f"0 to {classes - 1}" if classes else "at least 0"
        raise BadOption(f"{argument(name)} of {model} are {known}; got {value(list(labels))}")


def check_size(
    model: str, only: tuple[int, int] | None, size: tuple[int, int], what: str = "a picture", was: str = ""
) -> None:
    """Pictures of the one size (width, height) that a model knows, where it knows no other; `was` is that of a file."""
    if only is not None and size != only:
        raise BadInput(
            f"{what} is {was or '{}x{}'.format(*size)}, and {model} knows pictures of {'{}x{}'.format(*only)} only; "
            f"use {given('fit', 'crop')} or {value('pad')}"
        )


# ---------------------------------------------------------------- what a method needs and does


def check_first_step_radius(method: Method, asked: bool) -> None:
    """The first step's spectral radius only of a method whose first step is one of the sampler's."""
    if asked and method.ungraded is not None:
        raise Incompatible(
            f"{argument('first_step_radius')} is of a first step that plain sampling undoes: {method.ungraded}; leave "
            "it out, or use a method such as anderson or fixed_point"
        )


def check_needs_prompt(
    method: Method, model: str, takes_prompt: bool | None, prompted: bool, name: str = "prompt"
) -> None:
    """A method that works on text has a text model and the words of the picture; `prompted` counts embeddings too."""
    if not method.needs_prompt:
        return
    if takes_prompt is False:
        raise Incompatible(f"{method.name} works on the text condition and {model} takes no prompt; use a text model")
    if not prompted:
        raise BadOption(f"{method.name} needs the prompt that describes the picture; give {argument(name)}")


def check_needs_trajectory(method: Method, recorded: bool) -> None:
    """A method that needs the sampling run has it."""
    if method.needs_trajectory and not recorded:
        raise BadOption(
            f"{method.name} needs the recorded sampling run that made the picture; give {argument('trajectory')}, "
            f"which {call('sample', 'keep_trajectory')} records"
        )


def check_levels(method: Method, flow: bool) -> None:
    """A method that runs on the noise levels of the model: of flow matching, or such that preserve the variance."""
    if why := method.refuses_flow if flow else method.refuses_vp:
        raise Incompatible(f"{method.name} does not run on {'flow matching' if flow else 'a diffusion model'}: {why}")


def check_edits(method: Method, editor: Editor | None = None, masked: bool = False) -> None:
    """A method that can edit, by that editor; in two branches every method can whose edit is not refused for good."""
    steered = editor is not None and editor.steer is not None
    if method.refuses_edit and not (method.edit_state is not None and (steered or masked)):
        raise Incompatible(f"{method.name} cannot edit: {method.refuses_edit}")
    if editor is None or not steered:
        return
    if method.edit_step is not None:
        raise Incompatible(
            f"editor {editor.name} does not go with {method.name}, whose edit is a step of its own, not that of its "
            "source; leave the editor out, or take another method"
        )
    if (why := editor.refuses(method)) is not None:
        raise Incompatible(f"editor {editor.name} does not go with {method.name}: {why}")


def check_source_prompt(editor: Editor, prompts: Sequence[str | None]) -> None:
    """An editor that compares two prompts is given both; `prompts` are what the pictures show."""
    if editor.needs_source_prompt and not all(prompts):
        raise BadOption(
            f"editor {editor.name} compares the prompt of the edit with the source's, and the source has none; say "
            f"what the picture shows when it is inverted: {argument('source_prompt')}; for a model that takes no "
            "prompt there are none, masactrl and pnp"
        )


def check_paste(paste: bool, editor: Editor, masked: bool) -> None:
    """The source's own pixels outside of a mask need one: a mask that is asked for, or an editor that makes its own."""
    if paste and not masked and not editor.makes_mask:
        raise BadOption(
            f"{argument('paste')} keeps the source's own pixels outside a mask, and there is none; give "
            f"{argument('mask')}"
        )


# ---------------------------------------------------------------- what a saved inversion says of itself


def recorded_method(recorded: Mapping[str, Any], what: str = "this inversion") -> Method:
    """The method that an inversion was made with, from its name and settings."""
    from unsample.methods import get_method

    try:
        return get_method(recorded["name"], recorded["settings"])
    except (BadOption, TypeError) as error:  # settings of a type that no factory takes
        raise BadInput(f"{what}: the method it was made with cannot be played back: {error}") from error


def other_model(made_by: str, model: str, what: str = "this inversion") -> BadInput:
    """The error where an inversion is to be played back by another model than made it."""
    return BadInput(f"{what} was made by {made_by}, not by {model}; use that model, or {argument('allow_other_model')}")
