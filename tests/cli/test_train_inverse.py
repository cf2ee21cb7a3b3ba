"""`unsample train-inverse`: refusals before any work, what it says, and that `invert` takes what it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from unsample.models.digests import VARIABLE
from unsample.verbs import learning

MINI = "mini-ink-linear-epsilon-0"


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("--steps", 2), 2, "use 3 steps or more"),
        (("--num-pictures", 3), 2, "--num-pictures must be a whole number from 64 to 10**12; got 3"),
        (("--num-updates", 10**13), 2, "--num-updates must be a whole number from 1 to 10**12; got 10000000000000"),
        (("--seed", 10**30), 2, "--seed must be a whole number from 0 to 10**12"),
        (("--learning-rate", 0), 2, "--learning-rate must be above 0"),
        (("-o", "network.pt"), 2, "written as NAME.safetensors"),
        (("-o", "there.safetensors"), 4, "there.safetensors exists already"),
        (("--prompts", "nowhere.txt"), 4, "cannot read the prompts in nowhere.txt"),
        (("--prompts", "empty.txt"), 4, "holds no prompt"),
        (("--prompts", "prompts.txt"), 2, "takes no prompt; leave --prompts out"),
        (("--guidance-scale", 3), 2, "takes no prompt, so there is no guidance"),
        (("--model", "scenes-flow"), 2, "scenes-flow cannot be learned: what is taught is a copy of a UNet"),
        (("--model", "nobody"), 3, "nobody"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(run: Run, given: tuple[object, ...], code: int, said: str) -> None:
    Path("there.safetensors").touch()
    Path("empty.txt").write_text("\n \n")
    Path("prompts.txt").write_text("a cat\n")
    before = sorted(Path().iterdir())
    ended = run("train-inverse", *(() if "--model" in given else ("--model", MINI)), *given)
    assert (ended.code, said in ended.err) == (code, True), ended.err
    assert sorted(Path().iterdir()) == before


def test_it_teaches_once_and_invert_takes_it(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "kept"))
    for name in ("CHUNK", "HELD_OUT"):
        monkeypatch.setattr(learning, name, 2)
    small = ("--model", MINI, "--steps", 3, "--num-pictures", 4, "--num-updates", 2, "--batch-size", 2)
    run("sample", "--model", MINI, "--steps", 3, "-o", "a.png")
    asked = ("invert", "a.png", "--model", MINI, "--steps", 3, "--method", "learned_start", "-o", "a.safetensors")
    missing = run(*asked)
    assert (missing.code, f"unsample train-inverse --model {MINI} --steps 3" in missing.err) == (3, True), missing.err
    ended = run("train-inverse", *small, "--json")
    assert ended.code == 0, ended.err
    found = ended.json
    assert (found["model"], found["num_updates"], found["backward"]) == (MINI, 2, 4)
    assert Path(found["file"]).parent == tmp_path / "kept" / "learned"
    assert run("train-inverse", *small, "--json").json == found  # it is there
    again = run("train-inverse", *small, "--seed", 1)
    assert (again.code, "is another one; give another output" in again.err) == (4, True), again.err
    assert run(*asked).code == 0
    spoken = run("train-inverse", *small, "--overwrite")
    assert (spoken.code, "x_2 is off by" in spoken.err + spoken.out) == (0, True)
