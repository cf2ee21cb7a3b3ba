"""`unsample show`, `methods`, `models` and `doctor`: what can be asked."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.cli.conftest import Run


def with_texts(path: Path, **texts: str) -> Path:
    """A PNG with text chunks."""
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (16, 16)).save(path, pnginfo=info)
    return path


def test_an_inversion_shows_how_it_was_made_and_its_health(run: Run, scene: Path, tiny_ddpm: Path) -> None:
    assert run("invert", scene, "-m", tiny_ddpm, "--steps", 3, "--seed", 9).code == 0
    text = run("show", "out/scene.safetensors").out
    for word in ("an inversion of 1 picture", "tiny-ddpm", "eps_at", "num_inference_steps", "picture 0: ok, 3 nfe"):
        assert word in text
    figures, _, verdict = text.partition("true noise")[2].partition("  first step: its eps has an RMS of ")
    assert "  grade: none: ddim solves no equation" in verdict
    health = {line.split()[0]: line for line in figures.splitlines()[1:]}
    assert set(health) == {"mean", "std", "kl", "lag1_correlation"}
    assert all(line.endswith(("within", "OUTSIDE")) for line in health.values())
    document = run("show", "out/scene.safetensors", "--json").json
    assert document["kind"] == "inversion"
    assert document["meta"]["seeds"] == [9]
    assert document["health"][0]["bands"]["std"]
    assert "alpha" not in document["meta"]["grid"]
    assert document["meta"]["grid"]["meta"]["timestep_spacing"] == "leading"


def test_an_inversion_shows_where_its_first_step_led_and_its_grade(run: Run, scene: Path, tiny_ddpm: Path) -> None:
    asked = ("invert", scene, "-m", tiny_ddpm, "--steps", 3, "--method", "fixed_point", "--first-step-radius")
    ended = run(*asked)
    assert ended.code == 0
    (health,) = run("show", "out/scene.safetensors", "--json").json["health"]
    text = run("show", "out/scene.safetensors").out
    assert f"; spectral radius {health['first_step']['radius']:.3g}" in text
    assert f"grade: {health['grade']}: {health['grade_reason']}" in text
    assert f", {health['grade']}, 39 nfe" in ended.err  # 3 x 10, and 9
    assert run(*asked[:-1]).code == 4  # what is there was asked for more than this


def test_part_of_the_way_the_bands_of_noise_do_not_apply(run: Run, scene: Path, tiny_ddpm: Path) -> None:
    assert run("invert", scene, "-m", tiny_ddpm, "--steps", 4, "--strength", 0.5).code == 0
    text = run("show", "out/scene.safetensors").out
    assert "not pure noise" in text
    assert "OUTSIDE" not in text


def test_a_file_is_recognised_without_its_ending(run: Run, scene: Path, tiny_ddpm: Path) -> None:
    run("invert", scene, "-m", tiny_ddpm, "--steps", 2)
    Path("out/scene.safetensors").rename("renamed")
    assert run("show", "renamed", "--json").json["kind"] == "inversion"
    Path("out/scene.png").rename("renamed-too")
    assert run("show", "renamed-too", "--json").json["kind"] == "picture"


def test_a_picture_of_another_program_shows_its_parameters(run: Run, tmp_path: Path) -> None:
    with_texts(tmp_path / "a.png", parameters="a cat\nSteps: 20, Sampler: Euler a")
    assert run("show", "a.png", "--json").json["parameters"] == "a cat\nSteps: 20, Sampler: Euler a"
    assert "Sampler: Euler a" in run("show", "a.png").out


def test_a_picture_without_settings_says_so(run: Run, scene: Path) -> None:
    ended = run("show", scene)
    assert ended.code == 0
    assert "without settings" in ended.out
    assert run("show", scene, "--json").json == {
        "file": str(scene),
        "kind": "picture",
        "parameters": None,
        "unsample": None,
    }


def test_control_characters_of_a_file_do_not_reach_the_terminal(run: Run, tmp_path: Path) -> None:
    evil = "red\x1b]0;owned\x07\x1b[2J\x9b31m"
    with_texts(tmp_path / "a.png", parameters=evil, unsample=json.dumps({"prompt": evil}))
    ended = run("show", "a.png")
    assert "red" in ended.out
    assert not set("\x1b\x07\x9b") & set(ended.out)
    assert run("show", "a.png", "--json").json["unsample"]["prompt"] == evil  # JSON escapes them
    assert "\x1b" not in run("show", "a.png", "--json").out
    missing = run("show", "no\x1b[2Jfile.png")
    assert "\x1b" not in missing.err


def test_the_methods_are_listed_and_each_has_a_page(run: Run) -> None:
    from unsample.methods import METHODS

    listed = run("methods").out
    rows = {row["name"]: row for row in run("methods", "--json").json["methods"]}
    assert set(rows) == set(METHODS)
    for name, facts in METHODS.items():
        assert f"\n{name} " in listed
        page = run("methods", name).out
        assert facts.reference in page
        flat = " ".join(page.split())
        for s in rows[name]["settings"]:
            assert f"--set {s['name']}={s['default']} ({s['type']}) {' '.join(s['what'].split())}" in flat
    first = {
        "name": "num_iters",
        "default": 10,
        "type": "int",
        "what": "iterations a step, one network evaluation each.",
    }
    assert rows["fixed_point"]["settings"][0] == first
    assert [s["type"] for s in rows["fixed_point"]["settings"]] == [
        "int",
        "float | None",
        "source | previous | extrapolated",
    ]


def test_the_bundled_models_are_listed(run: Run) -> None:
    from unsample.models.loading import BUNDLED

    text = run("models").out
    rows = run("models", "--json").json["models"]
    assert [row["name"] for row in rows if row["invertible"]] == list(BUNDLED)
    (judge,) = [row for row in rows if not row["invertible"]]
    assert (judge["name"], judge["state"]) == ("scenes-clip", "here")
    assert "judge" in judge["what"]
    for row in rows:
        assert row["name"] in text
        assert row["what"] in text


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation whose bundled models are whole."""
    from unsample.models import loading

    folder = tmp_path / "bundled"
    sums = {}
    for name in loading.BUNDLED:
        if name == "scenes-mixture":
            continue
        (folder / name).mkdir(parents=True)
        (folder / name / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DModel"]}')
        sums[f"{name}/model_index.json"] = hashlib.sha256((folder / name / "model_index.json").read_bytes()).hexdigest()
    (folder / "scenes-judge").mkdir()
    (folder / "scenes-judge" / "config.json").write_text("{}")
    sums["scenes-judge/config.json"] = hashlib.sha256(b"{}").hexdigest()
    (folder / "manifest.json").write_text(json.dumps(sums))
    monkeypatch.setattr(loading, "BUNDLED_FOLDER", folder)
    return folder


def test_the_doctor_is_content_with_a_whole_installation(run: Run, bundled: Path) -> None:
    import torch

    ended = run("doctor", "--json")
    assert ended.code == 0
    report = ended.json
    assert report["ok"] is True
    assert report["problems"] == []
    assert report["packages"]["torch"] == torch.__version__
    assert report["devices"][0] == "cpu"
    assert report["models"]["scenes-sd"] == report["models"]["scenes-judge"] == "verified"
    assert report["hub_offline"] is True
    assert "all is well" in run("doctor").out


@pytest.mark.parametrize("damage", ["changed", "missing", "no manifest"])
def test_the_doctor_finds_a_damaged_model_and_ends_with_3(run: Run, bundled: Path, damage: str) -> None:
    index = bundled / "scenes-sd" / "model_index.json"
    if damage == "changed":
        index.write_text("{}")
    else:
        (index if damage == "missing" else bundled / "manifest.json").unlink()
    ended = run("doctor", "--json")
    assert ended.code == 3
    assert ended.json["ok"] is False
    assert "scenes-sd" in ended.json["problems"][0]
    assert "problem: scenes-sd" in run("doctor").out


def test_the_doctor_finds_a_torchvision_that_is_broken(
    run: Run, bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    ended = run("doctor", "--json")
    assert ended.code == 1
    assert "torchvision is installed but broken" in ended.json["problems"][0]


def test_the_doctor_refuses_an_old_torch(run: Run, bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    ended = run("doctor", "--json")
    assert ended.code == 1
    assert "2.10" in ended.json["problems"][0]


def test_a_bundled_model_that_is_missing_is_exit_3(run: Run, scene: Path, monkeypatch: Any, tmp_path: Path) -> None:
    from unsample.models import loading

    monkeypatch.setattr(loading, "BUNDLED_FOLDER", tmp_path / "nowhere")
    ended = run("invert", scene)
    assert ended.code == 3
    assert "scenes-sd" in ended.err
    assert run("models", "--json").json["models"][0]["state"] == "missing"
