"""`unsample invert` goes on where the same command was killed, and patterns that no shell has expanded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ended, Run, draw

NAMES = ("a", "b", "c")


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    """Pictures in the folder of the run."""
    return [
        draw(tmp_path / f"{name}.png", colour=c).name for name, c in zip(NAMES, ("red", "lime", "blue"), strict=True)
    ]


def stamps() -> dict[str, int]:
    """When each file in out/ was written."""
    return {f.name: f.stat().st_mtime_ns for f in Path("out").iterdir()}


def test_a_run_that_was_killed_goes_on_where_it_stopped(run: Run, three: list[str], tiny_ddpm: Path) -> None:
    def invert(*more: object) -> Ended:
        return run("invert", *three, "-m", tiny_ddpm, "--steps", 2, "--json", *more)

    whole = invert().json
    assert (whole["skipped"], [row["skipped"] for row in whole["images"]]) == (0, [False] * 3)
    for gone in (
        "out/b.png",
        "out/c.png",
        "out/c.safetensors",
    ):  # as a kill between two files, and between two pictures
        Path(gone).unlink()
    before = stamps()
    ended = invert()
    assert ended.code == 0
    assert [row["skipped"] for row in ended.json["images"]] == [True, False, False]
    assert ended.json["skipped"] == 1
    assert "skipped 1 of 3" in ended.err
    assert "wrote 2 inversions" in ended.err
    after = stamps()
    assert set(after) == {f"{name}.{end}" for name in NAMES for end in ("png", "safetensors")}
    assert [name for name in before if after[name] == before[name]] == ["a.png", "a.safetensors"]
    for key in ("psnr", "nfe", "seconds", "health", "inversion", "reconstruction"):  # what was skipped is told in full
        assert ended.json["images"][0][key] == whole["images"][0][key]
    again = invert()
    assert (again.json["skipped"], stamps()) == (3, after)
    assert invert("--overwrite").json["skipped"] == 0
    assert all(stamps()[name] != after[name] for name in after)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--steps", 3), "steps 2, not 3"),
        (("--seed", 1), "seed 0, not 1"),
        (("--method", "fixed_point"), "method 'ddim', not 'fixed_point'"),
        (("--strength", 0.5), "strength 1.0, not 0.5"),
        (("--guidance-schedule", "cosine"), "guidance schedule 'constant', not 'cosine'"),
        (("--clip", "config"), "clip 'off', not 'config'"),
        (("--fit", "crop"), "fit 'aspect', not 'crop'"),
        (("--dtype", "bfloat16"), "another dtype"),
    ],
)
def test_files_of_other_settings_are_replaced_only_when_told(
    run: Run, scene: Path, tiny_ddpm: Path, more: tuple[Any, ...], named: str
) -> None:
    arguments = ("invert", scene, "-m", tiny_ddpm, "--steps", 2)
    assert run(*arguments).code == 0
    before = stamps()
    Path(
        "out/scene.png"
    ).unlink() if "--seed" in more else None  # half a set of other settings is not made again either
    ended = run(*arguments, *more)
    assert ended.code == 4
    assert "out/scene.safetensors exists already" in ended.err
    assert named in ended.err
    assert "--overwrite" in ended.err
    assert stamps().items() <= before.items()
    assert run(*arguments, *more, "--overwrite").code == 0


def test_files_of_another_source_prompt_or_model_are_not_taken_for_done(
    run: Run, tmp_path: Path, tiny_sd: Path, tiny_ddpm: Path
) -> None:
    scene = draw(tmp_path / "scene.png")
    arguments = ("invert", scene, "--steps", 2, "-m")
    assert run(*arguments, tiny_sd, "--prompt", "a red circle").code == 0
    for ended in (run(*arguments, tiny_sd, "--prompt", "a star"), run(*arguments, tiny_ddpm)):
        assert ended.code == 4
        assert "exists already" in ended.err
    draw(scene, colour="blue")
    assert "its source is another picture" in run(*arguments, tiny_sd, "--prompt", "a red circle").err
    draw(scene)
    draw(Path("out/scene.png"))  # somebody else's picture beside the inversion
    assert "is not the picture of that inversion" in run(*arguments, tiny_sd, "--prompt", "a red circle").err


def test_a_pattern_that_no_shell_expanded_is_expanded(run: Run, three: list[str], tiny_ddpm: Path) -> None:
    rows = run("invert", "?.png", "-m", tiny_ddpm, "--steps", 1, "--json").json["images"]
    assert [row["input"] for row in rows] == three
    again = run("reconstruct", "out/*.safetensors", "-m", tiny_ddpm, "-o", "again", "--json").json["images"]
    assert len(again) == 3
    assert run("show", "out/[a]*.safetensors").code == 0
    draw(Path("[a].png"), colour="pink")  # a file of that very name is meant
    assert run("invert", "[a].png", "-m", tiny_ddpm, "--steps", 1, "--json").json["images"][0]["input"] == "[a].png"


@pytest.mark.parametrize(
    "verb",
    [("invert",), ("edit", "--target-prompt", "a star"), ("compare",), ("show",), ("reconstruct",), ("measure",)],
)
def test_a_pattern_that_matches_nothing_is_named(run: Run, three: list[str], verb: tuple[str, ...]) -> None:
    more = ("a.png",) if verb[0] == "measure" else ()
    ended = run(verb[0], "*.jpg", *more, *verb[1:])
    assert ended.code == 4
    assert "no file matches the pattern '*.jpg'" in ended.err
    if verb[0] not in ("invert", "reconstruct"):
        several = run(verb[0], "*.png", *more, *verb[1:])
        assert several.code == 4
        assert "'*.png' matches 3 files" in several.err
