"""Every option of the verbs that run a model reaches the library: with it, what the library is asked for is another.

The library is replaced by a recorder; that it heeds what it is asked for is tested beside it
(tests/test_every_argument.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.cli.conftest import Run, draw
from tests.recorded import recording
from unsample.errors import BadInput

KEPT = "kept.safetensors"
PLACE = {  # where and how the model is loaded: options of every verb
    "--device": ["--device", "cpu"],
    "--dtype": ["--dtype", "float16"],
    "--offload": ["--offload", "model"],
    "--vae-tiling": ["--vae-tiling"],
    "--quantize": ["--quantize", "torchao_int8"],
    "--free-text-encoders": ["--free-text-encoders"],
    "--config": ["--config", "other"],
}
# verb: the command that an option is added to, and for each option what is added (and what the command needs for it).
VERBS: dict[str, tuple[list[str], dict[str, list[str]]]] = {
    "invert": (
        ["a.png", "b.png", "-m", "sd", "--steps", "4"],
        {
            "--model": ["-m", "ddpm"],
            **PLACE,
            "--prompt": ["--prompt", "a red circle"],
            "--negative-prompt": ["--negative-prompt", "blue"],
            "--method": ["--method", "fixed_point"],
            "--set": ["--set", "eps_at=source"],
            "--num-inference-steps": ["--steps", "5"],
            "--guidance-scale": ["--guidance-scale", "2"],
            "--sampling-guidance-scale": ["--sampling-guidance-scale", "2"],
            "--guidance-schedule": ["--guidance-schedule", "cosine"],
            "--strength": ["--strength", "0.5"],
            "--seed": ["--seed", "1"],
            "--fit": ["--fit", "crop"],
            "--clip": ["--clip", "config"],
            "--batch-size": ["--batch-size", "1"],
            "--first-step-radius": ["--first-step-radius"],
        },
    ),
    "sample": (
        ["-m", "sd", "--steps", "4", "--prompt", "a red circle", "-o", "made"],
        {
            "--model": ["-m", "scenes-mixture"],
            **PLACE,
            "--prompt": ["--prompt", "a blue star"],
            "--negative-prompt": ["--negative-prompt", "blue"],
            "--method": ["--method", "edict"],
            "--set": ["--method", "edict", "--set", "p=0.9"],
            "--num-images": ["--num-images", "2"],
            "--seed": ["--seed", "1"],
            "--num-inference-steps": ["--steps", "5"],
            "--guidance-scale": ["--guidance-scale", "2"],
            "--guidance-schedule": ["--guidance-schedule", "cosine"],
            "--clip": ["--clip", "config"],
            "--keep-trajectory": ["--keep-trajectory"],
        },
    ),
    "reconstruct": (
        [KEPT, "-m", "sd"],
        {
            "--model": ["-m", "other"],
            **PLACE,
            "--allow-other-model": ["--allow-other-model"],
            "--use": ["--use", "noise"],
            "--guidance-scale": ["--guidance-scale", "2"],
            "--guidance-schedule": ["--guidance-schedule", "cosine"],
        },
    ),
    "interpolate": (
        [KEPT, KEPT, "-m", "sd"],
        {
            "--model": ["-m", "other"],
            **PLACE,
            "--allow-other-model": ["--allow-other-model"],
            "--num-frames": ["--num-frames", "3"],
            "--guidance-scale": ["--guidance-scale", "2"],
        },
    ),
    "edit": (
        ["a.png", "-m", "sd", "--steps", "4", "--target-prompt", "a blue circle", "--source-prompt", "a red circle"],
        {
            "--model": ["-m", "other"],
            **PLACE,
            "--allow-other-model": ["--allow-other-model"],
            "--source-prompt": ["--source-prompt", "a circle"],
            "--negative-prompt": ["--negative-prompt", "blue"],
            "--guidance-scale": ["--guidance-scale", "2"],
            "--guidance-schedule": ["--guidance-schedule", "cosine"],  # a saved inversion: see PLAYED
            "--inversion-guidance-scale": ["--inversion-guidance-scale", "2"],
            "--method": ["--method", "fixed_point"],
            "--set": ["--set", "eps_at=source"],
            "--num-inference-steps": ["--steps", "5"],
            "--strength": ["--strength", "0.5"],
            "--seed": ["--seed", "1"],
            "--fit": ["--fit", "crop"],
            "--clip": ["--clip", "config"],
        },
    ),
    "compare": (
        ["a.png", "-m", "sd", "--steps", "4", "--methods", "fixed_point"],
        {
            "--model": ["-m", "ddpm"],
            **PLACE,
            "--methods": ["--methods", "ddim"],
            "--prompt": ["--prompt", "a red circle"],
            "--negative-prompt": ["--negative-prompt", "blue"],
            "--set": ["--set", "fixed_point.num_iters=7"],
            "--quick": ["--quick"],
            "--num-inference-steps": ["--steps", "5"],
            "--guidance-scale": ["--guidance-scale", "2"],
            "--sampling-guidance-scale": ["--sampling-guidance-scale", "2"],
            "--guidance-schedule": ["--guidance-schedule", "cosine"],
            "--seed": ["--seed", "1"],
            "--fit": ["--fit", "crop"],
        },
    ),
}
# What an edit passes on to both of its calls is looked for in each: a saved inversion is only played, and of a picture
# that is inverted first only the inversion is looked at.
BOTH = ("--negative-prompt", "--guidance-schedule")
PLAYED = [KEPT, "-m", "sd", "--target-prompt", "a blue circle"]
# Where it goes and what is said of it; tested beside the verbs, as are --batch-size of sample and --trajectory.
OUTSIDE = {"--output", "--overwrite", "--json", "--debug", "--grid", "--trajectory", "--batch-size", "--raw-csv"}
OUTSIDE |= {"--pictures"}
OUTSIDE |= {
    "--metrics",
    "--sharded",
    "--workers",
    "--threads",
    "--engine",
    "--ray-address",
    "--shard-size",
}  # of collections
# Of --force tests/test_domain.py tells, and of those that need a model with classes tests/cli/test_class_labels.py.
OUTSIDE |= {"--force", "--class-labels", "--negative-class-labels", "--source-class-labels"}
# Those that the recorder cannot hear, since an earlier call ends the command: tests/cli/test_play.py, test_compare.py.
MASKS = {"--mask", "--mask-feather", "--mask-dilate", "--paste"}  # tests/cli/test_edit_masks.py
BESIDE = {
    "edit": {"--target-prompt", "--prompt", "--editor", "--editor-set", *MASKS},
    "compare": {"--target-prompt", "--edit-guidance-scale", "--editor", "--editor-set"},
}


class Enough(BadInput):
    """The library was asked; what it would answer does not matter."""


@pytest.fixture
def asked(run: Run, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Any]]:
    """`asked("edit", ...)`: what a command asks of the library, each call with its arguments."""
    import unsample
    from unsample.verbs import api

    model = api.load(tiny_sd)
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png", colour="blue")
    for name in ("sd", "other", "ddpm"):
        (tmp_path / name).symlink_to(tiny_sd)
    kept = unsample.invert(model, tmp_path / "a.png", "a red circle", num_inference_steps=2)
    kept.save(tmp_path / KEPT)
    calls: list[Any] = []

    def enough(*args: Any, **more: Any) -> Any:
        raise Enough("enough")

    def ask(verb: str, *arguments: str) -> list[Any]:
        calls.clear()
        answers = dict.fromkeys(("invert", "sample", "reconstruct", "edit", "interpolate"), enough)
        answers |= {"load": lambda *args, **more: model}
        answers |= {"invert": lambda *args, **more: kept} if verb == "edit" else {}
        with monkeypatch.context() as patch:
            patch.setattr("unsample.models.placing.find_spec", lambda package: package)  # as if it were installed
            for name, answer in answers.items():
                patch.setattr(api, name, recording(calls, name, answer))
            ended = run(verb, *arguments)
        assert "enough" in ended.err, ended.err
        return list(calls)

    return ask


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_is_in_the_table(verb: str) -> None:
    from unsample.cli.app import app

    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    names = {next(o for o in p.opts if o.startswith("--")) for p in command.params if p.opts[0].startswith("-")}
    assert names - OUTSIDE - BESIDE.get(verb, set()) - {"--help"} == VERBS[verb][1].keys() - OUTSIDE


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_reaches_the_library(verb: str, asked: Callable[..., list[Any]]) -> None:
    command, options = VERBS[verb]
    plain = asked(verb, *command)
    assert asked(verb, *command) == plain
    unheard = [option for option, added in options.items() if asked(verb, *command, *added) == plain]
    assert unheard == []


@pytest.mark.parametrize("option", BOTH)
def test_what_is_for_the_inversion_and_the_edit_reaches_both(option: str, asked: Callable[..., list[Any]]) -> None:
    command, options = VERBS["edit"]
    for arguments, call in ((command, "invert"), (PLAYED, "edit")):
        plain, other = (
            [c for c in asked("edit", *arguments, *added) if c[0] == call] for added in ([], options[option])
        )
        assert len(plain) == len(other) == 1
        assert plain != other, call
