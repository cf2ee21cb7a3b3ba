"""How a run ends when something goes wrong on the way: divergence, memory, Ctrl-C, a full disk, a surprise."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run, draw

Break = Callable[[Callable[[Any, int], None]], None]


@pytest.fixture
def at_the_network(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Let a function see, and change, each output of a pixel model's network: `change(output, timestep, x)`."""
    from unsample.models.pixel import PixelModel

    ask = PixelModel.network

    def install(change: Any) -> None:
        def network(self: Any, x: Any, timestep: int, condition: Any) -> Any:
            output = ask(self, x, timestep, condition)
            change(output, timestep, x)
            return output

        monkeypatch.setattr(PixelModel, "network", network)

    return install


def lose_bright_ones(output: Any, timestep: int, x: Any) -> None:
    """From timestep 400 on there is no answer for pictures that were bright."""
    if timestep >= 400:
        output[x.mean((1, 2, 3)) > 0] = float("nan")


def test_a_diverged_picture_is_left_out_and_the_good_one_written(
    run: Run, tmp_path: Path, tiny_ddpm: Path, at_the_network: Any
) -> None:
    for name, ground in (("bright", "white"), ("light", "white"), ("dark", "black")):
        draw(tmp_path / f"{name}.png", ground=ground)
    at_the_network(lose_bright_ones)
    ended = run("invert", "bright.png", "light.png", "dark.png", "-m", tiny_ddpm, "--steps", 5, "--json")
    assert ended.code == 5
    assert sorted(os.listdir("out")) == ["dark.png", "dark.safetensors"]
    bright, light, dark = ended.json["images"]
    assert light["diverged_at"] == "step 3 of 5 (timestep 400)"
    assert light["lost_at"] == {"where": "step", "step": 3, "of": 5, "timestep": 400, "what": None}
    assert "lost_at" not in dark
    assert (bright["status"], bright["inversion"], bright["reconstruction"]) == ("diverged", None, None)
    assert bright["diverged_at"] == "step 3 of 5 (timestep 400)"
    assert dark["status"] == "ok"
    assert ended.json["error"]["code"] == 5
    assert "step 3 of 5 (timestep 400)" in ended.json["error"]["message"]
    errors = [line for line in ended.err.splitlines() if line.startswith("error:")]
    for name, error in zip(("bright.png", "light.png"), errors, strict=True):
        assert error.startswith(f"error: {name}: diverged at step 3 of 5 (timestep 400)")
    assert "picture 0" not in ended.err


def test_when_every_picture_diverged_nothing_is_written(
    run: Run, scene: Path, tiny_ddpm: Path, at_the_network: Any
) -> None:
    at_the_network(lose_bright_ones)
    ended = run("invert", scene, "-m", tiny_ddpm, "--steps", 5, "--json")
    assert ended.code == 5
    assert os.listdir("out") == []
    assert ended.json["images"][0]["status"] == "diverged"
    assert "step 3 of 5 (timestep 400)" in ended.err


def test_an_answer_that_was_not_finite_stands_in_the_row_of_a_picture_that_came_out(
    run: Run, tmp_path: Path, tiny_ddpm: Path, at_the_network: Any
) -> None:
    draw(tmp_path / "bright.png", ground="white")
    draw(tmp_path / "dark.png", ground="black")
    asked: list[int] = []

    def fail_once(output: Any, timestep: int, x: Any) -> None:
        asked.append(timestep)
        if len(asked) == 5:
            output[x.mean((1, 2, 3)) > 0] = float("inf")

    at_the_network(fail_once)
    more = ("--method", "fixed_point", "--set", "num_iters=3", "--steps", 5, "--json")
    ended = run("invert", "bright.png", "dark.png", "-m", tiny_ddpm, *more)
    bright, dark = ended.json["images"]
    place = {"what": "answer", "timestep": asked[4], "half": None, "input_finite": True, "evaluation": 5, "times": 1}
    assert bright["status"] != "diverged"
    assert bright["nonfinite_at"] == place
    assert dark["nonfinite_at"] is None
    said = f"bright.png ({bright['status']}): the network's answer was not finite at timestep {asked[4]} (evaluation 5)"
    assert said in ended.err
    shown = run("show", "out/bright.safetensors", "--json").json
    assert shown["meta"]["nonfinite_at"] == [place]


def test_a_diverged_reconstruction_and_sample_are_not_written(
    run: Run, scene: Path, tiny_ddpm: Path, at_the_network: Any
) -> None:
    assert run("invert", scene, "-m", tiny_ddpm, "--steps", 5).code == 0
    at_the_network(lambda output, timestep, x: output.fill_(float("nan")))
    again = run("reconstruct", "out/scene.safetensors", "-m", tiny_ddpm, "-o", "again", "--json")
    assert again.code == 5
    assert again.json["images"][0]["diverged_at"] == "step 1 of 5 (timestep 800)"
    made = run("sample", "-m", tiny_ddpm, "--steps", 5, "-o", "again", "--json")
    assert made.code == 5
    assert os.listdir("again") == []


OUT_OF_MEMORY = [
    'RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can\'t allocate memory: you tried")',
    "torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')",
    "RuntimeError('MPS backend out of memory')",
    "MemoryError()",
]


@pytest.mark.parametrize("failure", OUT_OF_MEMORY)
def test_too_little_memory_ends_with_6_and_advice(
    run: Run, scene: Path, tiny_ddpm: Path, at_the_network: Any, failure: str
) -> None:
    import torch

    def change(output: Any, timestep: int, x: Any) -> None:
        raise eval(failure, {"torch": torch})

    at_the_network(change)
    ended = run("invert", scene, "-m", tiny_ddpm, "--steps", 2, "--json")
    assert ended.code == 6
    assert ended.json["error"]["code"] == 6
    assert "--batch-size" in ended.err
    assert os.listdir("out") == []


def test_a_surprise_ends_with_1_and_without_a_traceback(
    run: Run, scene: Path, tiny_ddpm: Path, at_the_network: Any
) -> None:
    def change(output: Any, timestep: int, x: Any) -> None:
        raise ZeroDivisionError("surprise\nin two lines")

    at_the_network(change)
    ended = run("invert", scene, "-m", tiny_ddpm, "--steps", 2)
    assert ended.code == 1
    (error,) = [line for line in ended.err.splitlines() if line]
    assert error.startswith("error: unexpected ZeroDivisionError: surprise;")
    assert "--debug" in error
    assert "Traceback" in run("invert", scene, "-m", tiny_ddpm, "--steps", 2, "--debug").err


def test_an_interrupted_run_keeps_whole_files_only(
    run: Run, tmp_path: Path, tiny_ddpm: Path, at_the_network: Any
) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    calls = []

    def change(output: Any, timestep: int, x: Any) -> None:
        calls.append(timestep)
        if len(calls) > 4:  # the first picture took two steps there and two back
            raise KeyboardInterrupt

    at_the_network(change)
    ended = run("invert", "a.png", "b.png", "-m", tiny_ddpm, "--steps", 2, "--batch-size", 1, "--json")
    assert ended.code == 130
    assert ended.json == {"error": {"code": 130, "message": "interrupted; the files that were written are whole"}}
    assert sorted(os.listdir("out")) == ["a.png", "a.safetensors"]
    from unsample import Inversion

    assert len(Inversion.load("out/a.safetensors")) == 1


def test_an_interrupt_while_writing_leaves_no_half_file(
    run: Run, scene: Path, tiny_ddpm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(file: int) -> None:
        raise KeyboardInterrupt

    real = os.fsync
    calls = []

    def fsync(file: int) -> None:
        calls.append(file)
        if len(calls) > 1:  # the first is of the check that the folder can be written to
            raise KeyboardInterrupt
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    assert run("invert", scene, "-m", tiny_ddpm, "--steps", 2).code == 130
    assert os.listdir("out") == []


@pytest.mark.parametrize("full", ["scene.safetensors", "scene.png"])
def test_a_full_disk_ends_with_4_and_leaves_no_half_file(
    run: Run, scene: Path, tiny_ddpm: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    import errno

    real = os.replace

    def replace(source: Any, target: Any) -> None:
        if Path(target).name == full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    ended = run("invert", scene, "-m", tiny_ddpm, "--steps", 2)
    assert ended.code == 4
    assert "disk is full" in ended.err
    assert not [name for name in os.listdir("out") if name.endswith(".tmp")]
    assert full not in os.listdir("out")


def test_a_limit_on_file_sizes_ends_with_4(run: Run, scene: Path, tiny_ddpm: Path) -> None:
    import resource

    draw(scene, (64, 64))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4500, hard))
    try:
        ended = run("invert", scene, "-m", tiny_ddpm, "--steps", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ended.code == 4
    assert "larger than is allowed" in ended.err
    assert os.listdir("out") == []


def test_a_read_only_folder_ends_with_4_before_any_work(
    run: Run, scene: Path, tiny_ddpm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from unsample.cli import session
    from unsample.media import files

    def refuse(path: Path) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    def never(*_: Any) -> None:
        raise AssertionError("the model was loaded before the output was checked")

    monkeypatch.setattr(files, "_create", refuse)
    monkeypatch.setattr(session, "load", never)
    ended = run("invert", scene, "-m", tiny_ddpm)
    assert ended.code == 4
    assert "read-only" in ended.err


def test_a_reader_that_goes_away_is_no_error_to_speak_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from unsample.cli import talk

    def gone(text: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(talk, "answer", gone)
    ended = run("models")
    assert ended.err == ""
    assert ended.code in (0, 1)


def test_only_our_warnings_are_shown_each_once(run: Run, scene: Path, tiny_ddpm: Path, at_the_network: Any) -> None:
    def change(output: Any, timestep: int, x: Any) -> None:
        warnings.warn("somebody else's business", UserWarning, stacklevel=1)

    at_the_network(change)
    draw(scene.with_name("second.png"))
    both = (scene, scene.with_name("second.png"))
    quiet = run("invert", *both, "-m", tiny_ddpm, "--steps", 1, "--batch-size", 1)
    assert "business" not in quiet.err
    assert quiet.err.count("warning: the noisiest of 1 grid points") == 1
    assert "business" in run("invert", scene, "-m", tiny_ddpm, "--steps", 1, "-o", "b", "--debug").err


def test_a_constant_picture_is_warned_of_by_the_name_of_its_file(
    run: Run, scene: Path, tiny_ddpm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unsample.models.pixel import PixelModel

    monkeypatch.setattr(PixelModel, "decode", lambda self, latents: latents * 0 + 0.5)
    ended = run("invert", scene, "-m", tiny_ddpm, "--steps", 2)
    (warning,) = [line for line in ended.err.splitlines() if "came out constant" in line]
    assert warning.startswith("warning: ")
    assert str(scene) in warning


@pytest.mark.parametrize(
    ("terminal", "no_color", "coloured"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_colour_is_for_terminals_and_not_against_no_color(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, no_color: bool, coloured: bool
) -> None:
    import io
    import sys

    from unsample.cli import talk

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    talk.warn("careful\x1b[2J")
    assert ("\x1b[33m" in stream.getvalue()) is coloured
    assert "\x1b[2J" not in stream.getvalue()
    assert "careful" in stream.getvalue()
