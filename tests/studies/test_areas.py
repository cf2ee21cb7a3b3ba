"""Plain and textured areas against a loop over pixels, and against pictures whose areas are known."""

from __future__ import annotations

import torch

from unsample.datasets.scenes import draw_scene
from unsample.studies import areas


def test_the_threshold_is_that_of_the_paper_pixel_by_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(2, 3, 5, 6, generator=generator) * 0.05
    found = areas.plain_by_threshold(pictures)
    x = pictures * 2 - 1
    for k in range(2):
        for row in range(5):
            for column in range(6):
                plain = True
                for channel in range(3):
                    here = x[k, channel, row, column]
                    down = abs(here - x[k, channel, row + 1, column]) if row < 4 else 0.0
                    right = abs(here - x[k, channel, row, column + 1]) if column < 5 else 0.0
                    plain = plain and bool((down + right) / 2 < 0.025)
                assert bool(found[k, 0, row, column]) is plain
    assert 0.1 < float(found.double().mean()) < 0.9


def test_a_cell_is_plain_where_all_of_its_pixels_are() -> None:
    plain = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    plain[0, 0, 5, 2] = False
    assert areas.in_cells(plain, (4, 4, 4))[0, 0].tolist() == [
        [not (r == 2 and c == 1) for c in range(4)] for r in range(4)
    ]
    scene = draw_scene(3).replace(texture="plain", background_texture="plain", shape="square", place="center")
    known = areas.plain_of_scenes([scene, scene.replace(background_texture="striped")], 32, (3, 32, 32))
    assert known[0, 0, 0, 0]
    assert known[0, 0, 16, 16]
    assert not known[0].all()
    assert known[1, 0, 16, 16]
    assert not known[1, 0, 0, 0]


def test_means_and_deviations_are_of_their_areas() -> None:
    plain = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    plain[..., :4] = True
    values = torch.where(plain, 2.0, torch.tensor([-1.0, 1.0]).repeat(4)).expand(1, 2, 8, 8)
    assert areas.mean_by_area(values, plain) == [{"plain": 2.0, "textured": 0.0, "all": 1.0}]
    spread = areas.deviation_by_area(values, plain)[0]
    assert spread["plain"] == 0.0
    assert abs((spread["textured"] or 0) - (64 / 63) ** 0.5) < 1e-9
    assert areas.share_of(plain) == [0.5]
    few = areas.mean_by_area(values, torch.zeros_like(plain))
    assert few[0]["plain"] is None
