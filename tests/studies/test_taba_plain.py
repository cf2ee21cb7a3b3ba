"""Areas of known truth, errors that were planted in one of them, and scenes of which one part is varied."""

from __future__ import annotations

from pathlib import Path

import torch

from unsample.bench.run import How
from unsample.datasets.rendered import mixture_scenes
from unsample.datasets.scenes import draw_scene, render
from unsample.numbers.grid import Grid
from unsample.studies import taba_plain as study
from unsample.studies.base import DDPM
from unsample.studies.running import asked_of, run_study


def test_a_planted_error_and_a_planted_deviation_are_found_in_their_area() -> None:
    true = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    plain[:, :, 4:12, :] = True
    noise = torch.where(plain, 0.5 * true, true + 0.1)
    for k, found in enumerate(study.by_mask(noise, true, plain)):
        inside = true[k][:, 4:12].double()
        assert abs(found["error"]["plain"] - 0.5 * float(inside.abs().mean())) < 1e-7
        assert abs(found["error"]["textured"] - 0.1) < 1e-6
        assert abs(found["std"]["plain"] - 0.5 * float(inside.std())) < 1e-7
        assert abs(found["std"]["textured"] - found["true_std"]["textured"]) < 1e-6
        assert found["share"] == 0.5


def test_a_picture_of_the_mixture_has_the_mask_of_its_component() -> None:
    scenes = mixture_scenes()
    drawn = render([scenes[300], scenes[7]], 32)
    pictures = drawn.images * 2 - 1 + 0.1 * torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    means = render(scenes, 32).images * 2 - 1
    assert torch.equal(study.plain_of_mixture(pictures, means), drawn.plain_mask > 0.5)


def test_a_dose_changes_one_part_of_the_scene_and_nothing_else() -> None:
    for seed in range(20):
        scene = draw_scene(seed)
        plain, of_object = study.dosed(scene, 0.0)
        weak, _ = study.dosed(scene, 0.15)
        strong, _ = study.dosed(scene, 0.45)
        assert (plain.texture, plain.background_texture) == ("plain", "plain")
        drawn = render([plain, weak, strong], 32)
        part = drawn.object_mask[0] == (1 if of_object else 0)
        rest = drawn.object_mask[0] == (0 if of_object else 1)
        change = (drawn.images - drawn.images[0]).abs().amax(1, keepdim=True)
        assert float(change[:, rest].max()) < 1e-6
        assert 0 < float(change[1][part].mean()) < float(change[2][part].mean())


def test_the_level_is_the_noisiest_that_keeps_the_scene() -> None:
    sigma = (0.0, 0.1, 0.5, 0.69, 0.71, 0.9)
    levels = tuple((1 - s * s) ** 0.5 for s in sigma), sigma, (0, 1, 2, 3, 4, 5)
    assert study.level_of(Grid(*levels, levels[0], levels[1])) == 3


def test_drawn_scenes_are_redrawn_and_dosed(tmp_path: Path) -> None:
    asked = asked_of(study.STUDY, [DDPM], num_samples=4, steps=4)
    found = run_study("taba_plain", asked, tmp_path, How(artefacts="none", batch_size=2, threads=1)).rows
    doses = [row for row in found if row["kind"] == "dose"]
    assert len({(r["unit"], r["part"], r["contrast"]) for r in doses}) == len(doses) == 2 * 2 * 5
    assert all(row["error"] is None or 0 < row["error"] < 3 for row in doses)
    assert {row["mask"] for row in found if row["kind"] == "picture" and row["source"] == "redrawn"} == {"true"}
