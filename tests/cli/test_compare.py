"""`unsample compare`, `cite` and `methods`, and the methods that need more than a picture on the command line."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.conftest import Run
from unsample.edits import BUILT_IN as EDITORS
from unsample.methods import METHODS, get_method

PROMPT = ("--prompt", "a red circle")


def test_compare_writes_a_figure_and_a_table_of_several_methods(run: Run, scene: Path, tiny_sd: Path) -> None:
    names = "ddim,fixed_point,null_text"
    ended = run("compare", scene, "-m", tiny_sd, *PROMPT, "--methods", names, "--steps", 3, "--set",
                "fixed_point.num_iters=4", "--set", "null_text.num_inner_steps=1")  # fmt: skip
    assert ended.code == 0, ended.err
    rows = list(csv.DictReader(Path("compared/compare.csv").read_text().splitlines()))
    assert [r["method"] for r in rows] == names.split(",")
    assert [r["nfe"] for r in rows] == ["3", "12", str(3 + 3 * 3)]
    assert all(float(r["noise_psnr"]) > 0 and float(r["std"]) > 0 for r in rows)
    for name in names.split(","):
        assert name in ended.out
    figure = Image.open("compared/compare.png")
    assert figure.height > figure.width  # four rows of three


def test_compare_with_a_target_prompt_edits_by_each_method(run: Run, scene: Path, tiny_sd: Path) -> None:
    """As `edit` would: its default guidance, a record fitted under it, methods that cannot edit said."""
    names = "ddim,null_text,direct"
    walk = ("compare", scene, "-m", tiny_sd, *PROMPT, "--methods", names, "--steps", 3)
    walk += ("--set", "null_text.num_inner_steps=1", "--target-prompt", "a blue star")
    ended = run(*walk, "--json")
    assert ended.code == 0, ended.err
    rows = {row["method"]: row for row in ended.json["images"]}
    assert [rows[n]["edit_status"] for n in names.split(",")] == ["ok", "ok", "refused"]
    assert [rows[n]["edit_guidance"] for n in names.split(",")] == [5, 7.5, None]
    assert "direct: cannot edit" in ended.err
    target = ("--target-prompt", "a blue star")
    alone = run("edit", scene, "-m", tiny_sd, "--source-prompt", "a red circle", *target, "--steps", 3, "--json")
    assert rows["ddim"]["edit_psnr"] == alone.json["images"][0]["psnr"]
    assert rows["ddim"]["target_prompt"] == "a blue star"
    table = list(csv.DictReader(Path("compared/compare.csv").read_text().splitlines()))
    assert [r["edit_status"] for r in table] == ["ok", "ok", "refused"]
    figure = Image.open("compared/compare.png")
    assert run(*walk[:-2], "-o", "plain").code == 0
    assert "edit_psnr" not in Path("plain/compare.csv").read_text()
    plain = Image.open("plain/compare.png")
    assert plain.width < figure.width  # a column more
    fitted = run(*walk, "--edit-guidance-scale", 2, "-o", "two", "--json")
    assert [row["edit_guidance"] for row in fitted.json["images"]] == [2, 2, None]
    assert [row["guidance"] for row in fitted.json["images"]][1] == 2
    settings = run("show", "two/compare.png", "--json").json["unsample"]
    assert settings["target_prompt"] == "a blue star"
    beside = run(*walk, "--editor", "p2p", "--editor-set", "cross_steps=0.5", "-o", "p2p", "--json")
    rows = {row["method"]: row for row in beside.json["images"]}
    assert [rows[n]["edit_status"] for n in names.split(",")] == ["ok"] * 3  # direct too: its offsets steer the source
    assert {rows[n]["edit_guidance"] for n in names.split(",")} == {7.5}  # the editor's own
    assert {rows[n]["editor"]["settings"]["cross_steps"] for n in names.split(",")} == {0.5}
    assert run("show", "p2p/compare.png", "--json").json["unsample"]["editor"] == "p2p"


def test_an_edit_that_diverges_leaves_the_comparison(
    run: Run, scene: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unsample.models.latent import LatentModel

    embed = LatentModel.embed

    def lost(self: Any, prompts: Any, negative: bool = False) -> Any:
        made = embed(self, prompts, negative)
        return replace(made, prompt_embeds=made.prompt_embeds * (float("nan") if "a blue star" in prompts else 1))

    monkeypatch.setattr(LatentModel, "embed", lost)
    ended = run("compare", scene, "-m", tiny_sd, *PROMPT, "--methods", "ddim", "--steps", 3, "--json",
                "--target-prompt", "a blue star")  # fmt: skip
    assert ended.code == 0
    (row,) = ended.json["images"]
    assert (row["status"], row["edit_status"], row["edit_psnr"]) == ("ok", "diverged", None)
    assert Path("compared/compare.png").is_file()


def test_compare_refuses_before_any_work(run: Run, scene: Path, tiny_sd: Path, tiny_ddpm: Path) -> None:
    wrong = {
        "did you mean 'ddim'": ("--methods", "ddmi"),
        "different names": ("--methods", "ddim,ddim"),
        "METHOD.KEY=VALUE": ("--methods", "ddim", "--set", "fixed_point.num_iters=3"),
        "num_iters must be": ("--methods", "fixed_point", "--set", "fixed_point.num_iters=0"),
        "give --prompt": ("--methods", "null_text"),
        "needs the recorded sampling run": ("--methods", "oracle"),
        "give --target-prompt too": ("--edit-guidance-scale", "3"),
        "--editor is of edits": ("--editor", "p2p"),
        "editor p2p compares": ("--methods", "ddim", "--target-prompt", "x", "--editor", "p2p"),
        "--edit-guidance-scale: ": ("--target-prompt", "x", "--edit-guidance-scale", "-1"),
        "--sampling-guidance-scale 3 and --edit-guidance-scale 2 differ": (
            *("--methods", "null_text", *PROMPT, "--sampling-guidance-scale", "3"),
            *("--target-prompt", "x", "--edit-guidance-scale", "2"),
        ),
    }
    for message, options in wrong.items():
        ended = run("compare", scene, "-m", tiny_sd, *options)
        assert (ended.code, ended.out) == (2, "")
        assert message in ended.err
    assert run("compare", scene, "-m", tiny_ddpm, "--methods", "null_text").code == 2
    assert run("compare", scene, "-m", tiny_ddpm, "--methods", "ddim", "--target-prompt", "x").code == 2
    assert not Path("compared").exists()


def test_every_method_can_be_compared_at_its_quick_preset(run: Run, scene: Path, tiny_sd: Path) -> None:
    names = [n for n in METHODS if n != "oracle" and not get_method(n).refuses_vp]
    ended = run(
        "compare", scene, "-m", tiny_sd, *PROMPT, "--quick", "--steps", 2, "--methods", ",".join(names), "--json"
    )
    assert ended.code == 0, ended.err
    assert [r["method"] for r in ended.json["images"]] == names
    assert all(r["status"] in ("ok", "not_converged") for r in ended.json["images"])


def test_the_oracle_takes_the_trajectory_that_sample_kept(run: Run, tiny_sd: Path) -> None:
    walk = ("-m", tiny_sd, "--steps", 3)
    made = run("sample", *walk, *PROMPT, "--keep-trajectory", "-o", "s.png")
    assert made.code == 0
    assert "s.trajectory.safetensors" in made.err
    ended = run("invert", "s.png", *walk, *PROMPT, "--method", "oracle", "--set", "num_steps=2", "--trajectory",
                "s.trajectory.safetensors", "--json")  # fmt: skip
    assert ended.code == 0, ended.err
    for options in (("--method", "oracle"), ("--method", "ddim", "--trajectory", "s.trajectory.safetensors")):
        assert run("invert", "s.png", *walk, *PROMPT, *options, "-o", "other").code == 2
    missing = run(
        "invert", "s.png", *walk, *PROMPT, "--method", "oracle", "--trajectory", "none.safetensors", "-o", "o"
    )
    assert missing.code == 4
    assert "--keep-trajectory" in missing.err


def test_a_method_inside_a_method_is_set_by_dots(run: Run, scene: Path, tiny_sd: Path) -> None:
    ended = run("invert", scene, "-m", tiny_sd, "--steps", 4, "--method", "forward_first", "--set", "base=fixed_point",
                "--set", "base.num_iters=5", "--json")  # fmt: skip
    assert ended.code == 0, ended.err
    assert ended.json["images"][0]["nfe"] == 5 * 3
    shown = run("show", "out/scene.safetensors", "--json").json["meta"]
    assert shown["method"]["settings"]["base"] == {
        "name": "fixed_point",
        "settings": {"num_iters": 5, "tol": None, "start": "source"},
    }
    refused = run("invert", scene, "-m", tiny_sd, "--method", "ddim", "--set", "base.num_iters=5", "-o", "o")
    assert (refused.code, "ddim has no base" in refused.err) == (2, True)
    nonsense = run("invert", scene, "-m", tiny_sd, "--method", "easyinv", "--set", "base=edict", "-o", "o")
    assert (nonsense.code, "makes no sense" in nonsense.err) == (2, True)


def test_an_edit_of_a_picture_fits_the_record_under_its_own_guidance(run: Run, scene: Path, tiny_sd: Path) -> None:
    walk = ("-m", tiny_sd, "--steps", 3, "--method", "null_text", "--set", "num_inner_steps=1")
    source = ("--source-prompt", "a red circle", "--target-prompt", "a blue circle")
    ended = run("edit", scene, *walk, *source, "--guidance-scale", 3, "--guidance-schedule", "cosine", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["images"][0]["guidance_scale"] == 3
    assert run("edit", scene, *walk, *source, "--guidance-scale", "3,5", "-o", "b.png").code == 2
    refused = run("edit", scene, *walk[:4], "--method", "direct", *source, "-o", "c.png")
    assert (refused.code, "direct cannot edit" in refused.err) == (2, True)


@pytest.mark.parametrize("name", METHODS)
def test_methods_shows_each_with_its_equation_settings_and_presets(run: Run, name: str) -> None:
    page = run("methods", name).out
    assert METHODS[name].equation in page
    assert "--set preset=quick" in page
    row = run("methods", name, "--json").json["methods"][0]
    assert {"family", "stores", "cost", "gradients", "exact", "models", "year", "paper", "presets"} <= row.keys()


@pytest.mark.parametrize("name", EDITORS)
def test_editors_shows_each_with_its_equation_and_settings(run: Run, name: str) -> None:
    page = run("editors", name).out
    assert EDITORS[name].equation in page
    row = run("editors", name, "--json").json["editors"][0]
    assert all(f"--editor-set {s['name']}=" in page for s in row["settings"])
    assert {"summary", "cost", "year", "paper", "needs", "mask", "presets"} <= row.keys()
    assert name in run("editors").out


def test_cite_knows_what_is_a_method_and_an_editor(run: Run) -> None:
    found = run("cite", "pix2pix_zero", "masactrl", "--json").json
    assert (list(found["methods"]), list(found["editors"])) == (["pix2pix_zero"], ["pix2pix_zero", "masactrl"])
    assert "did you mean 'masactrl'?" in run("cite", "masactl").err


def test_cite_prints_each_paper_once(run: Run) -> None:
    everything = run("cite").out
    assert everything.count("@misc{song2021ddim") == 1
    both = run("cite", "null_text", "easyinv").out
    assert "2211.09794" in both
    assert "2408.05159" in both
    assert run("cite", "nul_text").code == 2


def lost(when: Callable[[str, str], bool]) -> Callable[..., Any]:
    """The library's `reconstruct`, but diverging where `when(method, use)` says."""
    from unsample.errors import Diverged
    from unsample.verbs import api

    real = api.reconstruct

    def reconstruct(model: Any, inversion: Any, *, use: str = "record", **more: Any) -> Any:
        if when(inversion.meta["method"]["name"], use):
            raise Diverged("not finite any more")
        return real(model, inversion, use=use, **more)

    return reconstruct


def test_compare_keeps_what_one_of_the_two_playbacks_made(
    run: Run, scene: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unsample.verbs.api.reconstruct", lost(lambda name, use: name == "edict" and use == "noise"))
    ended = run("compare", scene, "-m", tiny_sd, *PROMPT, "--methods", "ddim,edict", "--steps", 2, "--json")
    assert ended.code == 0, ended.err
    row = ended.json["images"][1]
    assert row["noise_psnr"] is None
    assert row["record_psnr"] is not None
    assert row["nfe"] == 4
    assert "edict: its noise alone: not finite any more" in ended.err


def test_compare_names_no_figure_where_every_method_diverged(
    run: Run, scene: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unsample.verbs.api.reconstruct", lost(lambda name, use: True))
    ended = run("compare", scene, "-m", tiny_sd, *PROMPT, "--methods", "ddim", "--steps", 2)
    assert ended.code == 5
    assert not Path("compared/compare.png").exists()
    assert "compare.png" not in ended.err
    assert "compare.csv" in ended.err
