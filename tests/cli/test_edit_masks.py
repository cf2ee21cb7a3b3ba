"""`unsample edit --mask`: read before any work, written where it was found, told everywhere."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run
from tests.cli.test_play import inverted, pixels

__all__ = ["inverted"]
TARGET = ("--target-prompt", "a blue circle", "--guidance-scale", 3)


def half(path: str, size: tuple[int, int] = (16, 16)) -> str:
    """A mask whose left half is white."""
    where = np.zeros(size[::-1], dtype=bool)
    where[:, : size[0] // 2] = True
    Image.fromarray(where).save(path)
    return path


def test_a_given_mask_keeps_the_rest_and_is_told_everywhere(run: Run, inverted: str) -> None:
    mask = half("mask.png", (32, 32))
    ended = run("edit", inverted, *TARGET, "--mask", mask, "--mask-dilate", 0, "-o", "half.png", "--grid", "--json")
    assert ended.code == 0, ended.err
    (row,) = ended.json["images"]
    assert row["mask"]["how"] == "given"
    assert row["mask"]["share"] == 0.5
    assert (row["mask_given"], row["paste"], row["mask_picture"]) == (True, None, None)
    assert row["mask"]["notes"] == ["resized from 32x32 to the picture's 16x16"]
    assert ended.err.count("note: the mask: resized from 32x32 to the picture's 16x16") == 1
    assert sorted(f for f in os.listdir() if f.startswith("half")) == ["half-grid.png", "half.png"]
    kept = run("show", "half.png", "--json").json["unsample"]
    assert (kept["mask"], kept["mask_given"]) == (row["mask"], True)
    assert "how      given" in run("show", "half.png").out
    figure = run("show", "half-grid.png", "--json").json["unsample"]
    assert figure["figure"] == "source, reconstruction, mask, edit, difference"
    assert Image.open("half-grid.png").size[0] > 5 * 192
    assert run("edit", inverted, *TARGET, "-o", "plain.png").code == 0
    assert not np.array_equal(pixels("plain.png"), pixels("half.png"))
    plain = run("edit", inverted, *TARGET, "-o", "again.png", "--json").json["images"][0]
    assert (plain["mask"], plain["mask_given"], plain["paste"]) == (None, False, None)


def test_a_found_mask_is_written_and_may_be_given_again(run: Run, inverted: str) -> None:
    found = ("--mask", "auto", "--mask-dilate", 0)
    ended = run("edit", inverted, *TARGET, *found, "-o", "a.png", "--grid", "--json")
    (row,) = ended.json["images"]
    assert (row["mask"]["how"], row["mask_given"], row["mask_picture"]) == ("auto", False, "a-mask.png")
    assert "wrote a.png, a-mask.png, a-grid.png" in ended.err
    assert run("edit", inverted, *TARGET, "--mask", "a-mask.png", "--mask-dilate", 0, "-o", "b.png").code == 0
    assert np.array_equal(pixels("a.png"), pixels("b.png"))
    refused = run("edit", inverted, *TARGET, *found, "-o", "a.png")
    assert refused.code == 4
    assert "a-mask.png" in refused.err
    over = run("edit", inverted, *TARGET, "--mask", "a-mask.png", "-o", "a-mask.png", "--overwrite")
    assert over.code == 4
    assert "is an input of this command" in over.err


def test_maps_of_words_stand_in_the_figure(run: Run, inverted: str) -> None:
    ended = run("edit", inverted, *TARGET, "--mask", "attention", "-o", "a.png", "--grid", "--json")
    assert ended.json["images"][0]["mask"]["words"] == ["red", "blue"]
    figure = run("show", "a-grid.png", "--json").json["unsample"]["figure"]
    assert figure == "source, reconstruction, mask, edit, difference, attention maps"
    assert Image.open("a-grid.png").size[0] > 7 * 192


@pytest.mark.parametrize("fit", ["aspect", "crop", "pad"])
def test_pasted_pixels_are_the_pictures_own_at_its_own_size(run: Run, tiny_sd: Path, fit: str) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 64, 3), dtype=np.uint8)).save("photo.png")
    mask = half("mask.png", (64, 40))
    walk = ("-m", tiny_sd, "--steps", 4, "--source-prompt", "a red circle", "--fit", fit)
    pasted = ("--mask", mask, "--mask-dilate", 0, "--paste", "-o", "edit.png", "--json")
    ended = run("edit", "photo.png", *walk, *TARGET, *pasted)
    assert ended.code == 0, ended.err
    assert ended.json["images"][0]["paste"] == 0.5
    photo, made = pixels("photo.png"), pixels("edit-source-size.png")
    own = photo[:, 12:52] if fit == "crop" else photo
    assert made.shape == own.shape
    right = slice(made.shape[1] // 2 + 12, None)  # the feather is two pixels of the model's, and enlarged
    assert np.array_equal(made[:, right], own[:, right])
    assert not np.array_equal(made[:, :8], own[:, :8])


def test_an_inversion_has_no_pixels_of_the_pictures_own_size(run: Run, tiny_sd: Path) -> None:
    Image.new("RGB", (40, 40), "red").save("photo.png")
    assert run("invert", "photo.png", "-m", tiny_sd, "--steps", 2, "--prompt", "a red circle").code == 0
    mask = half("mask.png", (40, 40))
    ended = run("edit", "out/photo.safetensors", "-m", tiny_sd, *TARGET, "--mask", mask, "--paste", "-o", "a.png")
    assert ended.code == 0, ended.err
    assert "a-source-size.png its pixels are enlarged" in " ".join(ended.err.split())


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--mask", "nowhere.png"], 4, "there is no such file"),
        (["--mask", "photo.png"], 4, "is no mask"),
        (["--mask", "auto:2"], 2, "--mask auto:2"),
        (["--mask", "attention:dog"], 2, "no word 'dog'"),
        (["--mask", "attention:"], 2, "names no word"),
        (["--mask", "auto", "--mask-feather", -1], 2, "--mask-feather"),
        (["--mask", "auto", "--mask-dilate", -1], 2, "--mask-dilate"),
        (["--mask-feather", 2], 2, "give --mask"),
        (["--paste"], 2, "--paste keeps"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(
    run: Run, inverted: str, monkeypatch: pytest.MonkeyPatch, options: list[object], code: int, said: str
) -> None:
    from unsample.verbs import api

    monkeypatch.setattr(api, "load", None)
    Image.effect_noise((16, 16), 80).save("photo.png")
    ended = run("edit", inverted, *TARGET, *options, "-o", "a.png")
    assert ended.code == code, ended.err
    assert said in " ".join(ended.err.split())
    assert not Path("a.png").exists()


def test_an_empty_mask_is_said(run: Run, inverted: str) -> None:
    Image.new("1", (16, 16)).save("none.png")
    ended = run("edit", inverted, *TARGET, "--mask", "none.png", "-o", "a.png")
    assert ended.code == 0
    assert "nothing is to be edited" in ended.err
    assert np.array_equal(pixels("a.png"), pixels("out/scene.png"))
