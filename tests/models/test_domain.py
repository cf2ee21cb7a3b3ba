"""What the drawn-scenes models do not know is named before any work, by the command line and by the library."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image, ImageDraw

from tests.cli.conftest import Run, run  # noqa: F401
from unsample.datasets import Scenes
from unsample.models.domain import DRAWN, misfit_of, reasons_of_picture, reasons_of_prompts

DATA = Path(skimage.data_dir)
PHOTOGRAPHS = (
    "astronaut.png",
    "coffee.png",
    "chelsea.png",
    "camera.png",
    "rocket.jpg",
    "coins.png",
    "cell.png",
    "clock_motion.png",
)


def scene(seed: int = 0, size: int = 64) -> Image.Image:
    """A scene of `tune` seeds."""
    image = Scenes("tune", 1, size=size, start=seed)[0].image
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def photograph(name: str, size: int | None = None) -> Image.Image:
    """One of scikit-image's."""
    image = Image.open(DATA / name).convert("RGB")
    return image if size is None else image.resize((size, size), Image.Resampling.LANCZOS)


def test_the_table_of_models_is_what_they_are() -> None:
    import unsample

    for name, (side, multiple) in DRAWN.items():
        model = unsample.load(name)
        assert (model.picture_size, model.multiple) == ((side, side), multiple)


def test_words_outside_the_vocabulary_are_named_for_these_models_alone() -> None:
    assert reasons_of_prompts("scenes-sd", ["A large Red circle, at the left", None, ""]) == []
    (reason,) = reasons_of_prompts("scenes-sd", ["a red circle", "a tabby cat, 漢字"])
    assert "'tabby', 'cat', '漢字'" in reason
    assert reasons_of_prompts("stable-diffusion-v1-5/stable-diffusion-v1-5", ["a tabby cat"]) == []
    assert reasons_of_prompts("/somewhere/scenes-sd", ["a tabby cat"]) != []  # the model by its folder


@pytest.mark.parametrize(
    ("size", "fit", "outside"), [(64, "aspect", False), (128, "aspect", False), (160, "crop", True)]
)
def test_a_picture_that_is_scaled_down_by_more_than_2_is_outside(size: int, fit: str, outside: bool) -> None:
    found = reasons_of_picture("scenes-sd", scene(size=size), fit)
    assert bool(found) is outside
    assert not outside or "scaled down by 2.5" in found[0]


def test_scenes_are_scenes_and_photographs_noise_gradients_and_text_are_not() -> None:
    assert [misfit_of(scene(seed, size)) for seed in range(25) for size in (64, 32)] == [""] * 50
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(3)]
    ramp = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (64, 1))
    coloured = Image.fromarray(np.stack([ramp, ramp.T, 255 - ramp], 2))
    gradients = [Image.fromarray(np.stack([ramp] * 3, 2)), Image.linear_gradient("L").convert("RGB"), coloured]
    text = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(text).multiline_text((0, 0), "several\nlines of\nplain text\nin black", fill="black")
    flat = Image.new("RGB", (64, 64), "red")
    for image in (*noise, *gradients, text, flat, *(photograph(n, s) for n in PHOTOGRAPHS for s in (64, 32))):
        assert misfit_of(image) != ""


def test_a_scene_is_one_after_a_coarse_jpeg_too() -> None:
    refused = 0
    for seed in range(60):
        buffer = io.BytesIO()
        scene(seed, 32).save(buffer, "JPEG", quality=75)
        refused += misfit_of(Image.open(buffer)) != ""
    assert refused <= 1  # the look errs on 0.5 % of these


def test_what_such_a_model_made_is_not_held_against_it() -> None:
    grey = Image.linear_gradient("L").convert("RGB").resize((64, 64))
    assert reasons_of_picture("scenes-sd", grey, "aspect", {"model": "scenes-sd"}) == []
    assert reasons_of_picture("scenes-sd", grey, "aspect", {"model": "another"}) != []


def test_torch_is_not_imported_to_look_at_a_picture() -> None:
    code = (
        "import sys; from PIL import Image; from unsample.models.domain import reasons_of_picture as r;"
        "assert r('scenes-sd', Image.new('RGB', (64, 64)), 'aspect'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    "verb", [("invert",), ("compare",), ("edit", "--target-prompt", "a red star")], ids=["invert", "compare", "edit"]
)
@pytest.mark.parametrize("model", [(), ("-m", "scenes-mixture", "--fit", "crop")], ids=["scenes-sd", "scenes-mixture"])
def test_a_photograph_is_refused_before_the_model_is_loaded(
    run: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    verb: tuple[str, ...],
    model: tuple[str, ...],
) -> None:
    from unsample.cli import session

    monkeypatch.setattr(session, "load", lambda *_: pytest.fail("the model was loaded"))
    photograph("coffee.png").save("photo.jpg")
    scene().save("scene.png")
    output = ("-o", "e.png") if verb[0] == "edit" else ()
    ended = run(verb[0], "photo.jpg", *verb[1:], *model, *output, "--json")
    assert ended.code == 2
    document = ended.json
    assert document["out_of_domain"] is True
    assert document["reasons"][0].startswith("photo.jpg: the picture of 600x400 is scaled down by")
    for part in ("drawn scenes only", "--model stable-diffusion-v1-5/", "--model google/ddpm-celebahq-256", "--force"):
        assert part in document["error"]["message"]
    named = "--source-prompt" if verb[0] == "edit" else "--prompt"
    words = run(verb[0], "scene.png", *verb[1:], *model, *output, named, "a tabby cat", "--json")
    assert words.code == 2
    assert "'tabby', 'cat'" in words.json["reasons"][0]
    assert {f.name for f in Path().iterdir()} == {"photo.jpg", "scene.png"}


def test_words_are_refused_where_they_are_all_that_is_given(run: Run) -> None:  # noqa: F811
    ended = run("sample", "--prompt", "a photograph of a cat", "--json")
    assert (ended.code, ended.json["out_of_domain"]) == (2, True)
    assert "'photograph', 'cat'" in ended.json["reasons"][0]


def test_with_force_it_goes_on_with_a_warning_and_says_so_in_the_rows(run: Run) -> None:  # noqa: F811
    photograph("coffee.png").save("photo.jpg")
    arguments = ("--steps", 2, "-m", "scenes-mixture", "--fit", "crop", "--json", "--force")
    ended = run("invert", "photo.jpg", *arguments)
    assert ended.code == 0
    (row,) = ended.json["images"]
    assert row["out_of_domain"] is True
    assert "scaled down" in row["out_of_domain_reasons"][0]
    assert ended.err.count("warning: scenes-mixture knows drawn scenes only") == 1
    assert run("show", "out/photo.png", "--json").json["unsample"]["out_of_domain"] == row["out_of_domain_reasons"]
    again = run("reconstruct", "out/photo.safetensors", "-o", "again", "--json").json["images"][0]
    assert again["out_of_domain_reasons"] == row["out_of_domain_reasons"]
    inversion = "out/photo.safetensors"
    for verb in (
        ("edit", inversion, "--target-prompt", "a star", "-o", "e.png"),
        ("interpolate", inversion, inversion),
    ):
        assert run(*verb).code == 2
        forced = run(*verb, "--force", "--json")
        assert all(row["out_of_domain"] for row in forced.json["images"])
    compared = run("compare", "photo.jpg", *arguments, "--methods", "ddim").json["images"][0]
    assert compared["out_of_domain"] is True
    sampled = run("sample", "--prompt", "a cat", "--steps", 2, "-m", "scenes-mixture", "--force", "--json").json
    assert sampled["images"][0]["out_of_domain"] is True


def test_scenes_pass_without_a_word(run: Run) -> None:  # noqa: F811
    scene(3, 32).save("scene.png")
    ended = run("invert", "scene.png", "--steps", 2, "-m", "scenes-mixture", "--prompt", "a red circle", "--json")
    assert ended.code == 0
    assert (ended.json["images"][0]["out_of_domain"], ended.json["images"][0]["out_of_domain_reasons"]) == (False, [])
    assert "warning" not in ended.err


# ---------------------------------------------------------------- the library


def test_the_library_warns_once_a_batch_naming_the_pictures_and_records_it() -> None:
    import unsample
    from unsample.errors import OutOfDomainWarning

    model = unsample.load("scenes-mixture")
    pictures = [photograph("coffee.png", 32), scene(3, 32), photograph("astronaut.png", 32)]
    with pytest.warns(OutOfDomainWarning) as caught:
        inversion = unsample.invert(model, pictures, "a red circle", num_inference_steps=2)
    (warning,) = [w for w in caught if w.category is OutOfDomainWarning]
    assert all(f"picture {k}: the picture is not like a scene" in str(warning.message) for k in (0, 2))
    assert "picture 1" not in str(warning.message)
    assert warning.filename == __file__
    assert [bool(reasons) for reasons in inversion.meta["out_of_domain"]] == [True, False, True]
    assert inversion[1].meta["out_of_domain"] == [[]]
    with pytest.warns(OutOfDomainWarning, match="'cat'"):
        made = unsample.edit(model, inversion, "a cat")
    assert [len(reasons) for reasons in made.meta["out_of_domain"]] == [2, 1, 2]
    with pytest.warns(OutOfDomainWarning, match="'cat'"):
        assert unsample.sample(model, "a cat", num_inference_steps=1, generator=0).meta["out_of_domain"][0]
