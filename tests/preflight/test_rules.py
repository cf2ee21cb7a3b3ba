"""A rule is one sentence, whoever calls: the library names arguments as Python does, a shell as flags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import unsample
from unsample.errors import UnsampleError
from unsample.methods import get_method
from unsample.preflight import rules
from unsample.preflight.known import KnownModel, known_model
from unsample.wording import COMMAND_LINE, worded

RULES: dict[str, tuple[Callable[[], Any], str, str]] = {
    "strength": (lambda: rules.check_strength(1.5, 50), "strength must be above 0", "--strength must be above 0"),
    "no step": (lambda: rules.check_strength(0.01, 50), "strength=0.01 of 50", "--strength 0.01 of 50"),
    "text": (lambda: rules.check_text("\ud800"), "prompt is not text", "--prompt is not text"),
    "prompt": (lambda: rules.check_takes_prompt("m", False, "x"), "leave prompt out", "leave --prompt out"),
    "classes": (lambda: rules.check_classes("m", 4, False), "give class_labels, 0 to 3", "give --class-labels, 0 to 3"),
    "no classes": (lambda: rules.check_classes("m", 0, True), "takes no class_labels", "takes no --class-labels"),
    "range": (lambda: rules.check_in_range("m", 4, [1, 4]), r"are 0 to 3; got \[1, 4\]", "are 0 to 3; got 1,4$"),
    "size": (lambda: rules.check_size("m", (32, 32), (8, 9)), "8x9.*use fit='crop' or 'pad'", "use --fit crop or pad"),
    "words": (
        lambda: rules.check_needs_prompt(get_method("null_text"), "m", True, False),
        "null_text needs the prompt .* give prompt",
        "null_text needs the prompt .* give --prompt",
    ),
    "trajectory": (
        lambda: rules.check_needs_trajectory(get_method("oracle"), False),
        r"give trajectory, which sample\(keep_trajectory=True\) records",
        "give --trajectory, which 'unsample sample --keep-trajectory' records",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_names_arguments_as_its_reader_writes_them(rule: str) -> None:
    broken, in_python, in_a_shell = RULES[rule]
    with pytest.raises(UnsampleError, match=in_python):
        broken()
    with worded(COMMAND_LINE), pytest.raises(UnsampleError, match=in_a_shell):
        broken()
    with pytest.raises(UnsampleError, match=in_python):  # and afterwards as before
        broken()


def test_the_library_follows_the_door_that_calls_it() -> None:
    model = unsample.load("scenes-mixture")
    with worded(COMMAND_LINE), pytest.raises(UnsampleError, match="--strength must be"):
        unsample.invert(model, latents=None, strength=2.0)


def test_what_a_model_cannot_take_is_told_before_it_is_loaded() -> None:
    pixels, classes = known_model("scenes-ddpm"), KnownModel("classes", takes_prompt=False, num_classes=10)
    ddim, null_text = get_method("ddim"), get_method("null_text")
    assert pixels.why_not(ddim, (1.0, None)) is None
    assert "null_text works on the text condition" in str(pixels.why_not(null_text))
    assert "no guidance" in str(pixels.why_not(ddim, (1.0, 3.0)))
    assert "class that stands for none" in str(classes.why_not(ddim, (3.0,)))
    assert known_model("scenes-sd").why_not(null_text, (7.5,)) is None
    straight = get_method("flow_align")
    assert "flow_align does not run on a diffusion model" in str(known_model("scenes-sd").why_not(straight))
    assert KnownModel("flow", takes_prompt=True, flow=True).why_not(straight) is None
