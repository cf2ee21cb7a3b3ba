"""`unsample invert`: what it writes, what it says, and what it records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run, draw

KEYS = {
    *("input", "inversion", "reconstruction", "psnr", "exact", "ssim", "ceiling_psnr", "nfe", "backward", "seconds"),
    *("status", "nonfinite_at", "out_of_domain", "out_of_domain_reasons", "health", "notes", "skipped"),
}


def pixels(path: Path | str) -> Any:
    """(H, W, 3) in 0 to 255."""
    return np.asarray(Image.open(path), np.float64)


def test_an_inversion_and_its_reconstruction_are_written(run: Run, scene: Path, tiny_ddpm: Path) -> None:
    from unsample import Inversion

    ended = run("invert", scene, "-m", tiny_ddpm, "--steps", 5, "-o", "made/out")
    assert ended.code == 0
    assert sorted(os.listdir("made/out")) == ["scene.png", "scene.safetensors"]
    saved = Inversion.load("made/out/scene.safetensors")
    assert saved.meta["num_inference_steps"] == 5
    assert Image.open("made/out/scene.png").size == (16, 16)
    assert ended.out == ""
    assert "scene.png: inverted, " in ended.err
    assert " 5 nfe, " in ended.err


def test_the_json_document_has_the_keys_of_the_contract(run: Run, scene: Path, tiny_sd: Path) -> None:
    ended = run(
        "invert", scene, "-m", tiny_sd, "--steps", 4, "--method", "fixed_point", "--set", "num_iters=2", "--json"
    )
    document = ended.json
    assert set(document) == {"version", "model", "method", "images", "skipped"}
    assert (document["model"], document["method"]) == ("tiny-sd", "fixed_point")
    (row,) = document["images"]
    assert set(row) == KEYS
    assert set(row["health"]) == {
        *("mean", "std", "kl", "lag1_correlation"),
        *("residual", "residual_step", "first_step", "grade", "grade_reason"),
    }
    assert (row["input"], row["inversion"]) == (str(scene), "out/scene.safetensors")
    assert (row["nfe"], row["backward"]) == (8, 0)
    assert row["status"] in ("ok", "not_converged")


def test_the_figures_are_those_of_the_files(run: Run, tmp_path: Path, tiny_sd: Path) -> None:
    from skimage.metrics import structural_similarity

    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    row = run("invert", "noise.png", "-m", tiny_sd, "--steps", 4, "--json").json["images"][0]
    source, made = pixels("noise.png"), pixels("out/noise.png")
    mse = ((source - made) ** 2).mean()
    assert row["psnr"] == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-6)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
    # the two treat the border differently, and 16 pixels are mostly border
    assert row["ssim"] == pytest.approx(structural_similarity(source, made, data_range=255, **options), abs=0.05)
    assert row["ceiling_psnr"] is not None


def test_an_exact_reconstruction_is_null_and_exact(run: Run, scene: Path, tiny_ddpm: Path) -> None:
    arguments = ("--steps", 50, "--strength", 0.1, "--method", "fixed_point", "--set", "num_iters=5", "--json")
    ended = run("invert", scene, "-m", tiny_ddpm, *arguments)
    row = ended.json["images"][0]
    assert (row["psnr"], row["exact"]) == (None, True)
    assert "exact" in ended.err
    assert np.array_equal(pixels(scene), pixels("out/scene.png"))
    assert row["ceiling_psnr"] is None  # of a pixel model: infinite
    assert row["ssim"] == pytest.approx(1)


def test_ssim_is_null_for_a_picture_with_a_side_under_11(run: Run, tmp_path: Path, tiny_ddpm: Path) -> None:
    draw(tmp_path / "wide.png", (32, 8))  # 256 pixels, as the model's own
    row = run("invert", "wide.png", "-m", tiny_ddpm, "--steps", 3, "--json").json["images"][0]
    assert Image.open("out/wide.png").size == (32, 8)
    assert row["ssim"] is None
    assert row["psnr"] is not None or row["exact"]


def test_a_picture_outside_the_encoders_world_is_a_warning_that_names_two_models(
    run: Run, scene: Path, tiny_sd: Path, tiny_ddpm: Path
) -> None:
    ended = run("invert", scene, "-m", tiny_sd, "--steps", 3, "--json")  # a random encoder brings nothing back
    assert ended.json["images"][0]["out_of_domain"] is True
    warning = next(line for line in ended.err.splitlines() if line.startswith("warning:") and "outside" in line)
    assert "--model stable-diffusion-v1-5/stable-diffusion-v1-5" in warning
    assert "--model google/ddpm-celebahq-256" in warning
    inside = run("invert", scene, "-m", tiny_ddpm, "--steps", 3, "--json", "-o", "inside")
    assert inside.json["images"][0]["out_of_domain"] is False
    assert "outside the world" not in inside.err


def test_equal_stems_get_numbers(run: Run, tmp_path: Path, tiny_ddpm: Path) -> None:
    files = [
        draw(tmp_path / "a" / "scene.png", colour="red"),
        draw(tmp_path / "b" / "scene.png", colour="blue"),
        draw(tmp_path / "c" / "scene.png", colour="lime"),
    ]
    rows = run("invert", *files, "-m", tiny_ddpm, "--steps", 2, "--json").json["images"]
    assert [row["reconstruction"] for row in rows] == ["out/scene.png", "out/scene-2.png", "out/scene-3.png"]
    assert [row["input"] for row in rows] == [str(f) for f in files]
    for row, channel in zip(rows, (0, 2, 1), strict=True):
        assert pixels(row["reconstruction"])[8, 8].argmax() == channel  # each file holds its own picture


def test_pictures_of_several_sizes_keep_their_order_and_equal_single_runs(
    run: Run, tmp_path: Path, tiny_ddpm: Path
) -> None:
    from unsample import Inversion

    kinds = [((16, 16), "red"), ((32, 8), "blue"), ((16, 16), "green"), ((8, 32), "black"), ((16, 16), "yellow")]
    files = [draw(tmp_path / f"p{k}.png", size, colour) for k, (size, colour) in enumerate(kinds)]
    rows = run("invert", *files, "-m", tiny_ddpm, "--steps", 3, "--batch-size", 2, "--json").json["images"]
    assert [row["input"] for row in rows] == [str(f) for f in files]
    run("invert", files[2], "-m", tiny_ddpm, "--steps", 3, "-o", "single")
    together, alone = (Inversion.load(f"{folder}/p2.safetensors") for folder in ("out", "single"))
    assert (together.noise - alone.noise).abs().max() < 1e-4  # other summation orders for other batch sizes
    assert together.meta["names"] == ["p2"]
    assert len(together) == 1


def test_a_run_is_recorded_in_the_png_and_shown(run: Run, scene: Path, tiny_sd: Path) -> None:
    arguments = ("--steps", 4, "--prompt", "a red circle", "--seed", 7, "--strength", 0.5, "--guidance-scale", 2)
    assert run("invert", scene, "-m", tiny_sd, *arguments).code == 0
    shown = run("show", "out/scene.png", "--json").json
    settings = shown["unsample"]
    expected = {"verb": "invert", "prompt": "a red circle", "model": "tiny-sd", "method": "ddim", "seed": 7}
    expected |= {"num_inference_steps": 4, "strength": 0.5, "guidance_scale": 2, "inversion_guidance_scale": 2}
    expected |= {
        "method_settings": {"eps_at": "target"},
        "size": [16, 16],
        "source_size": [16, 16],
        "input": "scene.png",
    }
    assert {name: settings.get(name) for name in expected} == expected
    assert len(settings["model_sha256"]) == 64
    assert "alpha" not in str(settings)
    assert shown["parameters"].splitlines()[0] == "a red circle"
    assert "Steps: 4, Sampler: DDIM, CFG scale: 2, Seed: 7" in shown["parameters"]


def test_no_folder_is_recorded(run: Run, tmp_path: Path, tiny_sd: Path) -> None:
    draw(tmp_path / "private" / "scene.png")
    run("invert", tmp_path / "private" / "scene.png", "-m", tiny_sd, "--steps", 2, "-o", tmp_path / "secret")
    for file in ("scene.png", "scene.safetensors"):
        content = (tmp_path / "secret" / file).read_bytes()
        assert b"private" not in content
        assert b"secret" not in content
        assert tmp_path.name.encode() not in content


def test_model_and_prompt_come_from_the_pictures_own_metadata(run: Run, tiny_sd: Path) -> None:
    arguments = ("-m", "scenes-mixture", "--steps", 2)
    assert run("sample", *arguments, "--prompt", "a blue star", "-o", "star.png").code == 0
    ended = run("invert", "star.png", "--steps", 2, "--json")
    assert ended.json["model"] == "scenes-mixture"
    assert "model scenes-mixture, as its own metadata says" in ended.err
    assert run("show", "out/star.png", "--json").json["unsample"]["prompt"] == "a blue star"
    other = run("invert", "star.png", "--steps", 2, "-o", "b", "--prompt", "a red ring", "--json", "-m", tiny_sd)
    assert other.json["model"] == "tiny-sd"
    assert "metadata" not in other.err
    assert run("show", "b/star.png", "--json").json["unsample"]["prompt"] == "a red ring"


def test_pictures_of_several_models_are_inverted_each_with_its_own(
    run: Run, scene: Path, tiny_ddpm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unsample.media.pictures import write_png
    from unsample.models import loading
    from unsample.preflight import known

    monkeypatch.setattr(known, "cached", lambda name: tiny_ddpm if name == "tiny/ddpm" else None)
    monkeypatch.setattr(loading, "_download", lambda name, local_files_only: tiny_ddpm)
    write_png(Image.open(scene), scene.with_name("pixels.png"), {"model": "tiny/ddpm"})
    write_png(Image.open(scene), scene.with_name("mixture.png"), {"model": "scenes-mixture"})
    files = [scene.with_name(n) for n in ("mixture.png", "pixels.png")]
    document = run("invert", *files, "--steps", 2, "-o", scene.with_name("several"), "--json").json
    assert document["model"] is None
    assert [row["model"] for row in document["images"]] == ["scenes-mixture", "tiny/ddpm"]


def test_what_was_done_to_a_picture_is_said(run: Run, tmp_path: Path, tiny_ddpm: Path) -> None:
    Image.new("RGBA", (40, 20), (255, 0, 0, 128)).save(tmp_path / "glass.png")
    ended = run("invert", "glass.png", "-m", tiny_ddpm, "--steps", 2, "--fit", "crop", "--json")
    (note,) = ended.json["images"][0]["notes"]
    for word in ("transparency composited on white", "cropped", "resized"):
        assert word in note
    assert f"note: glass.png: {note}" in ended.err


def test_existing_files_are_replaced_only_when_told(run: Run, scene: Path, tiny_ddpm: Path) -> None:
    arguments = ("invert", scene, "-m", tiny_ddpm, "--steps", 2)
    assert run(*arguments).code == 0
    before = Path("out/scene.safetensors").read_bytes()
    assert run(*arguments[:-1], 3).code == 4
    assert Path("out/scene.safetensors").read_bytes() == before
    assert run(*arguments[:-1], 3, "--overwrite").code == 0
    assert Path("out/scene.safetensors").read_bytes() != before


def test_what_did_not_converge_is_kept_and_warned_of(run: Run, scene: Path, tiny_ddpm: Path) -> None:
    arguments = ("--method", "fixed_point", "--set", "num_iters=1", "--set", "tol=1e-12", "--steps", 3, "--json")
    ended = run("invert", scene, "-m", tiny_ddpm, *arguments)
    assert ended.code == 0
    assert ended.json["images"][0]["status"] == "not_converged"
    assert Path("out/scene.safetensors").is_file()
    (warning,) = [line for line in ended.err.splitlines() if "did not converge" in line]
    assert warning.startswith("warning: ")
    assert str(scene) in warning


def test_clip_and_sampling_guidance_reach_the_library(run: Run, scene: Path, tiny_sd: Path) -> None:
    from unsample import Inversion

    assert (
        run("invert", scene, "-m", tiny_sd, "--steps", 2, "--clip", "config", "--sampling-guidance-scale", 3).code == 0
    )
    meta = Inversion.load("out/scene.safetensors").meta
    assert meta["grid"]["meta"]["clip"] == "config"
    assert (meta["guidance_scale"], meta["sampling_guidance_scale"]) == (1, 3)


def test_a_prompt_that_is_too_long_is_a_warning_that_names_what_was_dropped(
    run: Run, scene: Path, tiny_sd: Path
) -> None:
    ended = run("invert", scene, "-m", tiny_sd, "--steps", 2, "--prompt", "red " * 2500 + "zebra", "--json")
    assert ended.code == 0
    assert ended.json["images"]
    (warning,) = [line for line in ended.err.splitlines() if "dropped" in line]
    assert warning.startswith("warning: ")


@pytest.mark.parametrize("prompt", ["", "漢字と丸", "\udc80"])
def test_a_prompt_may_be_empty_or_of_any_script_but_must_be_text(
    run: Run, scene: Path, tiny_sd: Path, prompt: str
) -> None:
    ended = run("invert", scene, "-m", tiny_sd, "--steps", 2, "--prompt", prompt)
    assert ended.code == (2 if prompt == "\udc80" else 0)
