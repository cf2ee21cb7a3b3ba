"""What the verbs return, to be kept and looked at: PNGs with their settings, one line of text, a notebook's cell."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import unsample
from tests.cli.conftest import Run, scene, tiny_sd  # noqa: F401
from tests.cli.conftest import run as run
from tests.problems import PROMPTS, mixture, mixture_picture, sd14
from unsample.errors import BadInput, BadOption
from unsample.media.pictures import read_metadata
from unsample.verbs.results import Images, Inversion

STEPS = 3


@pytest.fixture(scope="module")
def oracle() -> Any:
    return mixture()


@pytest.fixture(scope="module")
def inversion(oracle: Any) -> Inversion:
    images = torch.cat([mixture_picture(oracle, k) for k in (0, 4)])
    return unsample.invert(oracle, images, list(PROMPTS), num_inference_steps=STEPS)


def settings_of(path: Path) -> dict[str, Any]:
    found = read_metadata(path)["unsample"]
    assert found is not None
    return found


# ---------------------------------------------------------------- saving


def test_saved_pictures_carry_the_settings_that_the_command_line_writes(run: Run, scene: Path, tiny_sd: Path) -> None:  # noqa: F811
    """Key by key, for each verb; only the command line knows the name of the input."""
    model = unsample.load(tiny_sd)
    words = ("--prompt", "a red circle", "--negative-prompt", "a blue star")
    texts = {"negative_prompt": "a blue star", "num_inference_steps": STEPS}
    steps = ("-m", tiny_sd, "--steps", STEPS)
    assert run("sample", *steps, *words, "--seed", 4, "--guidance-scale", 2, "-o", "cli/s.png").code == 0
    sampled = unsample.sample(model, "a red circle", guidance_scale=2, generator=4, **texts)  # type: ignore[arg-type]
    assert run("invert", scene, *steps, *words, "-o", "cli").code == 0
    inverted = Inversion.load("cli/scene.safetensors")
    file = "cli/scene.safetensors"
    played = ("-m", tiny_sd, "--guidance-scale", 3, "--guidance-schedule", "linear")
    assert run("reconstruct", file, *played, "-o", "cli/r").code == 0
    kind: dict[str, Any] = {"guidance_scale": 3, "guidance_schedule": "linear"}
    assert run("edit", file, *played, "--target-prompt", "a star", "-o", "cli/e.png").code == 0
    assert run("interpolate", file, file, "-m", tiny_sd, "--num-frames", 3, "-o", "cli/i").code == 0
    pairs = {
        "cli/s.png": (sampled, 0),
        "cli/r/scene.png": (unsample.reconstruct(model, inverted, **kind), 0),
        "cli/e.png": (unsample.edit(model, inverted, "a star", **kind), 0),
        "cli/i/frame-01.png": (unsample.interpolate(model, inverted, inverted, num_frames=3), 1),
    }
    for path, (made, k) in pairs.items():
        file = made.save("here")[k]
        theirs, ours = read_metadata(path), read_metadata(file)
        own = {name: theirs["unsample"].pop(name, None) for name in ("input", "inputs")}
        assert ours["unsample"] == theirs["unsample"], path
        assert ours["parameters"] == theirs["parameters"]
        assert Image.open(file).tobytes() == Image.open(path).tobytes()
        assert ours["unsample"]["guidance_scale"] == made.meta["guidance_scale"]
        assert path == "cli/s.png" or ours["unsample"]["inversion_guidance_scale"] == 1
        assert any(own.values()) or path in ("cli/s.png", "cli/r/scene.png")


def test_pictures_in_memory_carry_the_texts_that_a_saved_one_is_opened_with(oracle: Any, tmp_path: Path) -> None:
    made = unsample.sample(oracle, PROMPTS[0], num_inference_steps=STEPS, generator=3)
    (file,) = made.save(tmp_path / "a.png")
    held, opened = made.pil()[0].info, Image.open(file).info
    assert held == {name: opened[name] for name in ("unsample", "parameters")}
    assert json.loads(held["unsample"])["seed"] == 3


def test_names_of_saved_pictures(oracle: Any, inversion: Inversion, tmp_path: Path) -> None:
    def names(made: Images, to: str) -> list[str]:
        return [str(f.relative_to(tmp_path)) for f in made.save(tmp_path / to)]

    sampled = unsample.sample(oracle, list(PROMPTS), num_inference_steps=STEPS, generator=7)
    assert names(sampled, "new/folder") == ["new/folder/sample-7.png", "new/folder/sample-8.png"]
    assert names(sampled, "a.png") == ["a.png", "a-2.png"]
    assert names(unsample.reconstruct(oracle, inversion), "r") == ["r/image-0.png", "r/image-1.png"]
    frames = unsample.interpolate(oracle, inversion[0], inversion[1], num_frames=2)
    assert names(frames, "f") == ["f/frame-00.png", "f/frame-01.png"]
    assert [settings_of(f)["position"] for f in frames.save(tmp_path / "f")] == [0, 1]  # replaced
    assert settings_of(tmp_path / "f" / "frame-01.png")["prompts"] == list(PROMPTS)


def test_a_picture_that_diverged_is_not_saved_and_is_said(oracle: Any, tmp_path: Path) -> None:
    made = unsample.sample(oracle, list(PROMPTS), num_inference_steps=STEPS, generator=7)
    lost = replace(made, status=["diverged", "ok"])
    with pytest.warns(UserWarning, match="picture 0 diverged"):
        assert lost.save(tmp_path / "a.png") == [None, tmp_path / "a-2.png"]
    assert [f.name for f in tmp_path.iterdir()] == ["a-2.png"]


@pytest.mark.parametrize("name", ["a.jpg", "file", "file/a.png"])
def test_pictures_are_saved_as_png_or_refused(oracle: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("no folder")
    made = unsample.sample(oracle, num_inference_steps=STEPS, generator=7)
    with pytest.raises(BadInput):
        made.save(tmp_path / name)
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


# ---------------------------------------------------------------- several prompts over one inversion


def test_several_prompts_over_an_inversion_of_one_picture_make_an_edit_each(oracle: Any, inversion: Inversion) -> None:
    one = inversion[0]
    edits = unsample.edit(oracle, one, list(PROMPTS), guidance_scale=2)
    assert len(edits) == len(edits.status) == len(edits.nfe) == 2
    assert edits.meta["prompt"] == list(PROMPTS)
    assert [edits.settings(k)["prompt"] for k in range(2)] == list(PROMPTS)
    for k, prompt in enumerate(PROMPTS):
        alone = unsample.edit(oracle, one, prompt, guidance_scale=2)
        assert float((alone.images[0] - edits.images[k]).abs().max()) < 1e-6  # another batch size rounds otherwise
    embeds = unsample.edit(oracle, one, prompt_embeds=oracle.embed(list(PROMPTS)).prompt_embeds, guidance_scale=2)
    assert float((embeds.images - edits.images).abs().max()) < 1e-6
    with pytest.raises(BadOption, match="3 of them for 2 pictures|one string, or 2"):
        unsample.edit(oracle, inversion, [*PROMPTS, PROMPTS[0]])


@pytest.mark.parametrize("method", ["edict", "null_text", "edit_friendly"])
def test_a_record_is_repeated_for_each_of_several_prompts(oracle: Any, method: str) -> None:
    configured = unsample.methods.get_method(method, {"num_inner_steps": 1} if method == "null_text" else {})
    image = mixture_picture(oracle, 0)
    one = unsample.invert(oracle, image, PROMPTS[0], method=configured, num_inference_steps=STEPS, keep_trajectory=True)
    edits = unsample.edit(oracle, one, list(PROMPTS))
    for k, prompt in enumerate(PROMPTS):
        alone = unsample.edit(oracle, one, prompt)
        assert float((alone.images[0] - edits.images[k]).abs().max()) < 1e-5  # rounds otherwise, as above
    with pytest.raises(BadInput, match="one picture"):
        one.repeated(2).repeated(2)


# ---------------------------------------------------------------- looking


def test_the_text_of_a_result_is_one_short_line(oracle: Any, inversion: Inversion) -> None:
    made = unsample.edit(oracle, inversion, list(PROMPTS), guidance_scale=3)
    many = unsample.invert(oracle, torch.rand(40, 3, 8, 8), num_inference_steps=STEPS)
    for result in (inversion, made, many, oracle, unsample.load(sd14()), unsample.methods.fixed_point(5)):
        text = repr(result)
        assert len(text) < 300
        assert "\n" not in text
        assert "tensor" not in text
    for word in ("2 pictures", "ddim", oracle.id, f"{STEPS} steps", "(2, 3, 8, 8)", "ok"):
        assert word in repr(inversion)
    for word in ("2 pictures of 8x8", "edit", "guidance 3"):
        assert word in repr(made)
    assert repr(unsample.methods.fixed_point(5)) == "fixed_point(num_iters=5, tol=None, start='source')"
    assert "1 diverged, 1 ok" in repr(replace(made, status=["diverged", "ok"]))


def test_the_text_of_a_data_sets_item_holds_no_pixels() -> None:
    from unsample.datasets import Scenes, open_dataset, render

    item = Scenes("tune", 1)[0]
    for value in (item, render([item.scene]), open_dataset("scenes:1")[0]):
        assert "tensor" not in repr(value)


def test_a_notebook_shows_the_pictures_and_escapes_the_texts(oracle: Any, inversion: Inversion) -> None:
    evil = "<script>alert(1)</script> left"
    made = unsample.edit(oracle, inversion, [evil, PROMPTS[1]], guidance_scale=3)
    named = replace(inversion, meta=inversion.meta | {"names": [evil, "b"], "model": {"id": evil}})
    for page, count in ((made._repr_html_(), 2), (named._repr_html_(), 4)):
        assert "<script" not in page
        assert "&lt;script&gt;" in page
        pictures = re.findall(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"', page)
        assert len(pictures) == count
        assert len(page) < 20_000
    lost = replace(made, status=["diverged", "ok"])._repr_html_()
    assert lost.count("<img") == 1
    large = replace(made, images=torch.rand(2, 3, 800, 600))._repr_html_()
    assert len(large) < 700_000  # shrunk: at full size the two would be 3.8 MB
    many = unsample.invert(oracle, torch.rand(40, 3, 8, 8), num_inference_steps=STEPS)._repr_html_()
    assert "and 24 more" in many


def test_results_made_by_hand_are_shown_and_saved_too(tmp_path: Path) -> None:
    noise = torch.zeros(1, 3, 8, 8)
    bare = Images(torch.rand(1, 3, 8, 8), noise, noise, ["ok"], [0], [0], 0.0)
    assert repr(bare) == "<Images: 1 picture of 8x8; ok>"
    assert bare.pil()[0].info == {}
    assert bare.save(tmp_path) == [tmp_path / "image-0.png"]
    assert "<img" in bare._repr_html_()
    inversion = Inversion(noise, [0], [0], 0.0, ["ok"], [{}], {})
    assert "noise (1, 3, 8, 8); ok" in repr(inversion)
    assert "<img" in inversion._repr_html_()
