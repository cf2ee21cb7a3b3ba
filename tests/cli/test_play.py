"""`unsample reconstruct`, `edit` and `interpolate`: playing saved inversions, and pictures, back."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run, draw

SHORT = ("--steps", 4)


def pixels(path: Path | str) -> Any:
    """(H, W, 3) in 0 to 255."""
    return np.asarray(Image.open(path), np.int64)


@pytest.fixture
def inverted(run: Run, scene: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A saved inversion by tiny-sd, in a folder where that name is found."""
    os.symlink(tiny_sd, "tiny-sd")
    prompts = ("--prompt", "a red circle", "--negative-prompt", "a blue star")
    assert run("invert", scene, "-m", "tiny-sd", *SHORT, *prompts).code == 0
    return "out/scene.safetensors"


# ---------------------------------------------------------------- reconstruct


def test_reconstruct_makes_the_very_picture_that_invert_wrote(run: Run, inverted: str) -> None:
    ended = run("reconstruct", inverted, "-o", "again", "--json")
    assert ended.code == 0
    (row,) = ended.json["images"]
    assert (row["input"], row["reconstruction"]) == (inverted, "again/scene.png")
    assert (row["nfe"], row["status"]) == (4, "ok")
    assert np.array_equal(pixels("again/scene.png"), pixels("out/scene.png"))
    settings = run("show", "again/scene.png", "--json").json["unsample"]
    assert (settings["verb"], settings["use"], settings["prompt"]) == ("reconstruct", "record", "a red circle")


def test_reconstruct_takes_other_guidance_and_the_noise_alone(run: Run, inverted: str) -> None:
    ended = run("reconstruct", inverted, "-o", "again", "--use", "noise", "--guidance-scale", 3, "--json")
    assert ended.json["images"][0]["nfe"] == 8  # two passes a step
    settings = run("show", "again/scene.png", "--json").json["unsample"]
    assert (settings["use"], settings["guidance_scale"]) == ("noise", 3)


def test_a_file_of_several_pictures_is_reconstructed_into_several(run: Run, tmp_path: Path, tiny_ddpm: Path) -> None:
    import unsample

    files = [draw(tmp_path / "a.png"), draw(tmp_path / "b.png", colour="blue")]
    unsample.invert(tiny_ddpm, files, num_inference_steps=2).save("both.safetensors")
    ended = run("reconstruct", "both.safetensors", "-m", tiny_ddpm, "-o", "again", "--json")
    assert [row["reconstruction"] for row in ended.json["images"]] == ["again/both.png", "again/both-2.png"]
    assert sorted(os.listdir("again")) == ["both-2.png", "both.png"]
    for verb in ("edit both.safetensors --target-prompt x", "interpolate both.safetensors both.safetensors"):
        refused = run(*verb.split())
        assert refused.code == 4
        assert "holds 2 pictures" in refused.err


def other_weights(folder: Path, to: Path) -> Path:
    """The same model with other weights."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, to)
    weights = to / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({k: v + 0.01 for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})
    return to


@pytest.mark.parametrize("verb", ["reconstruct {0}", "edit {0} --target-prompt x", "interpolate {0} {0}"])
def test_another_models_inversion_is_refused_unless_allowed(
    run: Run, tmp_path: Path, inverted: str, tiny_sd: Path, verb: str
) -> None:
    other = other_weights(tiny_sd, tmp_path / "other-sd")
    arguments = (*verb.format(inverted).split(), "-m", other, "-o", "again.png" if "edit" in verb else "again")
    refused = run(*arguments, "--json")
    assert refused.code == 4
    assert refused.json["error"]["code"] == 4
    for word in (inverted, "tiny-sd", "other-sd", "--allow-other-model"):
        assert word in refused.err
    assert os.listdir("again") == [] if Path("again").exists() else not Path("again.png").exists()
    assert run(*arguments, "--allow-other-model").code == 0


def test_of_several_inversions_one_of_another_model_means_that_nothing_is_written(
    run: Run, tmp_path: Path, inverted: str, scene: Path, tiny_sd: Path
) -> None:
    other = other_weights(tiny_sd, tmp_path / "other" / "tiny-sd")
    assert run("invert", scene, "-m", other, *SHORT, "-o", "alien").code == 0
    refused = run("reconstruct", inverted, "alien/scene.safetensors", "-m", "tiny-sd", "-o", "again")
    assert refused.code == 4
    assert "alien/scene.safetensors" in refused.err
    assert os.listdir("again") == []


def test_a_recorded_model_that_is_not_here_is_exit_3_and_says_where_to_give_it(run: Run, inverted: str) -> None:
    os.unlink("tiny-sd")
    ended = run("reconstruct", inverted, "-o", "again")
    assert ended.code == 3
    assert "'tiny-sd'" in ended.err
    assert "--model" in ended.err
    assert not Path("again").exists()


# ---------------------------------------------------------------- edit


def test_an_edit_of_a_picture_is_written_at_the_models_size_and_at_the_sources(
    run: Run, tmp_path: Path, tiny_sd: Path
) -> None:
    draw(tmp_path / "wide.png", (60, 30))
    arguments = ("--source-prompt", "a red circle", "--target-prompt", "a blue star", *SHORT, "--json")
    ended = run("edit", "wide.png", "-m", tiny_sd, *arguments, "-o", "made/edit.png")
    assert ended.code == 0
    (row,) = ended.json["images"]
    assert (row["edit"], row["edit_source_size"]) == ("made/edit.png", "made/edit-source-size.png")
    assert (row["nfe"], row["inversion_nfe"], row["guidance_scale"]) == (8, 4, 5)
    assert sorted(os.listdir("made")) == ["edit-source-size.png", "edit.png"]
    assert Image.open("made/edit.png").size == (24, 12)  # about 256 pixels, in steps of 4
    assert Image.open("made/edit-source-size.png").size == (60, 30)
    settings = run("show", "made/edit-source-size.png", "--json").json["unsample"]
    expected = {"verb": "edit", "prompt": "a blue star", "source_prompt": "a red circle", "guidance_scale": 5}
    expected |= {"inversion_guidance_scale": 1, "input": "wide.png", "size": [60, 30]}
    assert {name: settings.get(name) for name in expected} == expected


def test_an_edit_of_an_inversion_equals_that_of_its_picture(run: Run, scene: Path, inverted: str) -> None:
    target = ("--target-prompt", "a blue star", "--guidance-scale", 2)
    prompts = ("--source-prompt", "a red circle", "--negative-prompt", "a blue star")
    assert run("edit", inverted, *target, "-o", "a.png").code == 0
    assert run("edit", scene, "-m", "tiny-sd", *target, *prompts, *SHORT, "-o", "b.png").code == 0
    assert np.array_equal(pixels("a.png"), pixels("b.png"))  # with the recorded negative prompt
    assert not Path("a-source-size.png").exists()  # the sizes are equal
    assert run("edit", inverted, *target, "--negative-prompt", "a zebra", "-o", "c.png").code == 0
    assert not np.array_equal(pixels("a.png"), pixels("c.png"))


CONTRADICTIONS = [
    ("--steps 5", "--steps 4"),
    ("--method fixed_point", "--method ddim"),
    ("--set eps_at=source", "--set eps_at=target"),
    ("--strength 0.5", "--strength 1"),
    ("--seed 3", "--seed 0"),
    ("--fit crop", "--fit aspect"),
    ("--clip config", "--clip off"),
    ("--inversion-guidance-scale 2", "--inversion-guidance-scale 1"),
    ("--source-prompt circle", "--source-prompt=a red circle"),
]


@pytest.mark.parametrize(("contradiction", "repetition"), CONTRADICTIONS)
def test_an_option_that_contradicts_the_inversion_is_refused(
    run: Run, inverted: str, monkeypatch: pytest.MonkeyPatch, contradiction: str, repetition: str
) -> None:
    from unsample.cli import session
    from unsample.errors import WeightsMissing

    def stop(*_: Any) -> None:
        raise WeightsMissing("it came as far as loading the model")

    monkeypatch.setattr(session, "load", stop)
    refused = run("edit", inverted, "--target-prompt", "x", *contradiction.split(), "-o", "e.png")
    assert refused.code == 2
    assert contradiction.split()[0] in refused.err
    assert inverted in refused.err
    repeated = [repetition] if "=a" in repetition else repetition.split()
    assert run("edit", inverted, "--target-prompt", "x", *repeated, "-o", "e.png").code == 3


def test_several_guidance_scales_make_one_sheet(run: Run, inverted: str) -> None:
    ended = run("edit", inverted, "--target-prompt", "x", "--guidance-scale", "1,3,5", "-o", "sheet.png", "--json")
    assert ended.code == 0
    rows = ended.json["images"]
    assert [(row["edit"], row["guidance_scale"]) for row in rows] == [
        ("sheet.png", 1),
        ("sheet.png", 3),
        ("sheet.png", 5),
    ]
    width, height = Image.open("sheet.png").size
    assert width > 3 * height  # four panels in a row, with labels
    assert run("show", "sheet.png", "--json").json["unsample"]["guidance_scales"] == [1, 3, 5]
    assert sorted(name for name in os.listdir() if name.endswith(".png")) == ["scene.png", "sheet.png"]


def test_a_grid_is_a_figure_beside_the_edit(run: Run, inverted: str) -> None:
    ended = run("edit", inverted, "--target-prompt", "x", "--grid", "-o", "blue.png", "--json")
    (row,) = ended.json["images"]
    assert (row["figure"], row["edit"], row["prompt"]) == ("blue-grid.png", "blue.png", "x")
    assert "wrote blue.png, blue-grid.png" in ended.err
    assert Image.open("blue.png").size == (16, 16)
    assert run("edit", inverted, "--target-prompt", "x", "-o", "again.png").code == 0
    assert np.array_equal(pixels("again.png"), pixels("blue.png"))  # what -o names is the edit, with a grid or without
    refused = run("edit", inverted, "--target-prompt", "x", "--grid", "-o", "blue.png")
    assert refused.code == 4
    assert "blue.png, blue-grid.png exist already" in refused.err
    figure, panel = pixels("blue-grid.png"), pixels("scene.png")
    factor = 192 // 16
    enlarged = np.kron(panel, np.ones((factor, factor, 1), np.int64))
    corner = next((y, x) for y in range(40) for x in range(40) if np.array_equal(figure[y, x : x + 1], enlarged[0, :1]))
    assert corner
    found = [np.array_equal(figure[y : y + 192, x : x + 192], enlarged) for y in range(5, 20) for x in range(5, 20)]
    assert any(found)  # the source is the first panel, with hard pixel edges


def test_an_editor_that_cannot_be_is_refused_before_the_inversion(run: Run, inverted: str) -> None:
    walk = (
        "scene.png",
        "-m",
        "tiny-sd",
        "--steps",
        2,
        "--source-prompt",
        "a red circle",
        "--target-prompt",
        "a blue circle",
    )
    ended = run("edit", *walk, "--editor", "p2p", "--editor-set", "reweight=green=2", "-o", "p2p.png")
    assert ended.code == 2
    assert "green" in ended.err
    assert "inverted" not in ended.err


def test_an_editor_is_asked_for_by_name_and_told_everywhere(run: Run, inverted: str) -> None:
    arguments = ("edit", inverted, "--target-prompt", "a blue circle", "--guidance-scale", 3)
    assert run(*arguments, "-o", "swap.png").code == 0
    ended = run(*arguments, "--editor", "p2p", "--editor-set", "cross_steps=0.5", "-o", "p2p.png", "--json")
    (row,) = ended.json["images"]
    assert (row["editor"]["name"], row["editor"]["settings"]["cross_steps"]) == ("p2p", 0.5)
    kept = run("show", "p2p.png", "--json").json["unsample"]
    assert {"name": kept["editor"], "settings": kept["editor_settings"]} == row["editor"]
    assert "p2p" in run("show", "p2p.png").out
    assert not np.array_equal(pixels("p2p.png"), pixels("swap.png"))
    own = run("edit", inverted, "--target-prompt", "x", "--editor", "p2p", "-o", "own.png", "--json")
    assert own.json["images"][0]["guidance_scale"] == 7.5  # the editor's own


@pytest.mark.parametrize(
    ("fit", "source", "model", "expected"),
    [
        ("aspect", (60, 30), (24, 12), (60, 30)),
        ("crop", (60, 30), (16, 16), (30, 30)),
        ("pad", (60, 30), (16, 16), (60, 30)),
        ("aspect", (16, 16), (16, 16), None),
    ],
)
def test_an_edit_is_scaled_back_to_what_the_source_was(
    fit: str, source: tuple[int, int], model: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    from unsample.media.fitting import at_source_size
    from unsample.media.pictures import fit_picture, from_pil

    picture = Image.new("RGB", source, "red")
    fitted, _ = fit_picture(from_pil(picture), (16, 16), 4, fit)  # type: ignore[arg-type]
    assert fitted.size == model
    scaled = at_source_size(fitted, list(source), fit)
    assert (scaled and scaled.size) == expected
    if scaled is not None:
        lowest = np.asarray(scaled)[..., 1:].max()
        assert lowest < 60  # red to the edges: what was padded is cut off again


def test_an_edit_that_diverges_at_one_scale_keeps_the_others(
    run: Run, inverted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unsample.models.latent import LatentModel

    ask = LatentModel.network

    def network(self: Any, x: Any, timestep: int, condition: Any) -> Any:
        return ask(self, x, timestep, condition) * (float("nan") if len(x) == 2 else 1)  # w = 1 is a single pass

    monkeypatch.setattr(LatentModel, "network", network)
    arguments = ("edit", inverted, "--target-prompt", "x", "--json", "--guidance-scale")
    ended = run(*arguments, "1,3", "-o", "some.png")
    assert ended.code == 5
    assert [row["status"] for row in ended.json["images"]] == ["ok", "diverged"]
    assert Path("some.png").is_file()
    ended = run(*arguments, "3", "-o", "none.png")
    assert ended.code == 5
    assert "step 1 of 4 (timestep 151)" in ended.json["error"]["message"]
    assert not Path("none.png").exists()


def test_several_target_prompts_make_an_edit_each_and_a_row_each_in_the_grid(run: Run, inverted: str) -> None:
    prompts = ("--target-prompt", "a blue star", "--target-prompt", "a green star")
    ended = run("edit", inverted, *prompts, "--grid", "-o", "made/star.png", "--json")
    assert ended.code == 0
    rows = ended.json["images"]
    assert [(row["edit"], row["prompt"]) for row in rows] == [
        ("made/star.png", "a blue star"),
        ("made/star-2.png", "a green star"),
    ]
    assert sorted(os.listdir("made")) == ["star-2.png", "star-grid.png", "star.png"]
    for row in rows:
        assert run("edit", inverted, "--target-prompt", row["prompt"], "-o", "alone.png", "--overwrite").code == 0
        assert np.array_equal(pixels("alone.png"), pixels(row["edit"]))
        assert run("show", row["edit"], "--json").json["unsample"]["prompt"] == row["prompt"]
    assert run("edit", inverted, *prompts[:2], "--grid", "-o", "one.png").code == 0
    width, height = Image.open("made/star-grid.png").size
    assert width == Image.open("one-grid.png").size[0]
    assert height > 1.8 * Image.open("one-grid.png").size[1]
    settings = run("show", "made/star-grid.png", "--json").json["unsample"]
    assert settings["prompts"] == ["a blue star", "a green star"]


def test_several_prompts_at_several_scales_make_one_sheet_a_row_a_prompt(run: Run, inverted: str) -> None:
    prompts = ("--target-prompt", "a blue star", "--target-prompt", "a green star")
    ended = run("edit", inverted, *prompts, "--guidance-scale", "1,3", "-o", "sheet.png", "--json")
    found = [(row["edit"], row["prompt"], row["guidance_scale"]) for row in ended.json["images"]]
    assert found == [("sheet.png", p, w) for p in prompts[1::2] for w in (1, 3)]
    width, height = Image.open("sheet.png").size
    assert 1 < width / height < 1.6  # three panels wide, two rows with labels


def test_prompt_is_another_name_of_target_prompt_for_an_edit(run: Run, inverted: str) -> None:
    assert run("edit", inverted, "--prompt", "a blue star", "-o", "a.png").code == 0
    assert run("edit", inverted, "--target-prompt", "a blue star", "-o", "b.png").code == 0
    assert np.array_equal(pixels("a.png"), pixels("b.png"))
    both = ("--prompt", "a blue star", "--target-prompt")
    assert run("edit", inverted, *both, "a blue star", "-o", "c.png").code == 0
    refused = run("edit", inverted, *both, "a red star", "-o", "d.png")
    assert refused.code == 2
    for word in ("--prompt 'a blue star'", "--target-prompt 'a red star'", "--source-prompt"):
        assert word in refused.err


def test_one_of_several_edits_that_diverges_leaves_the_others(
    run: Run, inverted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unsample.models.latent import LatentModel

    embed = LatentModel.embed

    def lost(self: Any, prompts: Any, negative: bool = False) -> Any:
        made = embed(self, prompts, negative)
        return replace(made, prompt_embeds=made.prompt_embeds * (float("nan") if "a green star" in prompts else 1))

    monkeypatch.setattr(LatentModel, "embed", lost)
    prompts = ("--target-prompt", "a green star", "--target-prompt", "a blue star", "--guidance-scale")
    ended = run("edit", inverted, *prompts, "1", "--grid", "-o", "some.png", "--json")
    assert ended.code == 5
    assert [(row["status"], row["prompt"]) for row in ended.json["images"]] == [
        ("diverged", "a green star"),
        ("ok", "a blue star"),
    ]
    assert not Path("some.png").exists()
    assert Path("some-2.png").is_file()
    assert Path("some-grid.png").is_file()
    assert run("edit", inverted, *prompts, "1,1", "-o", "sheet.png").code == 5
    assert Path("sheet.png").is_file()


# ---------------------------------------------------------------- interpolate


def test_interpolate_writes_frames_and_a_strip(run: Run, tmp_path: Path, inverted: str) -> None:
    draw(tmp_path / "other.png", colour="blue")
    assert run("invert", "other.png", "-m", "tiny-sd", *SHORT, "--prompt", "a blue circle").code == 0
    ended = run("interpolate", inverted, "out/other.safetensors", "--num-frames", 4, "-o", "between", "--json")
    assert ended.code == 0
    names = [f"frame-0{k}.png" for k in range(4)]
    assert sorted(os.listdir("between")) == [*names, "strip.png"]
    document = ended.json
    assert [row["frame"] for row in document["images"]] == [f"between/{name}" for name in names]
    assert [row["position"] for row in document["images"]] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert (document["strip"], document["inputs"]) == ("between/strip.png", [inverted, "out/other.safetensors"])
    run("reconstruct", inverted, "out/other.safetensors", "--use", "noise", "-o", "ends")
    assert np.abs(pixels("between/frame-00.png") - pixels("ends/scene.png")).max() <= 1
    assert np.abs(pixels("between/frame-03.png") - pixels("ends/other.png")).max() <= 1
    width, height = Image.open("between/strip.png").size
    assert width > 4 * height
    settings = run("show", "between/frame-01.png", "--json").json["unsample"]
    assert settings["prompts"] == ["a red circle", "a blue circle"]
    assert settings["inputs"] == ["scene.safetensors", "other.safetensors"]


def test_inversions_that_do_not_go_together_are_refused(run: Run, scene: Path, inverted: str) -> None:
    run("invert", scene, "-m", "tiny-sd", "--steps", 5, "-o", "five")
    ended = run("interpolate", inverted, "five/scene.safetensors", "-o", "between")
    assert ended.code == 2
    assert "4 of 4 and 5 of 5" in ended.err
    assert not Path("between").exists()
