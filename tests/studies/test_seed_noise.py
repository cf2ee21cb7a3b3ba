"""The judges of seed_noise, on scenes drawn as they are and with one attribute changed."""

from __future__ import annotations

from unsample.datasets.scenes import ATTRIBUTES, draw_scene, render
from unsample.studies import get_study
from unsample.studies.running import asked_of
from unsample.studies.seed_noise import NONE, OWN, SOURCE, judged, rows


def test_judges_see_what_is_drawn_and_what_is_not() -> None:
    scene = draw_scene(100_000_003)
    other = next(colour for colour in ("red", "blue") if colour not in (scene.colour, scene.background))
    drawn = render([scene, scene.replace(colour=other)], 64).images
    right, wrong = judged(drawn, [scene, scene])
    assert all(right[name]["render"] == 1 for name in ATTRIBUTES)
    assert wrong["colour"] == {"render": 0, "clip": 0}
    assert wrong["background"]["render"] == 1


def test_rows_tell_source_methods_and_prompts_apart() -> None:
    seen = {"colour": {"render": 1.0, "clip": 0.0}}
    cell = {"model": "m", "item": "a", "probed": {OWN: seen, NONE: seen}}
    methods = [{"method_name": "ddim", "settings": {}}, {"method_name": "forward_first", "settings": {"fraction": 0.1}}]
    cells = [cell | method for method in methods]
    cells[0]["probed"] = {SOURCE: seen, OWN: seen, NONE: seen}
    found = list(rows(cells, asked_of(get_study("seed_noise"))))
    assert [(row["method"], row["prompt"]) for row in found] == [
        *((SOURCE, NONE), ("ddim", OWN), ("ddim", NONE)),
        *(("forward_first 10 %", OWN), ("forward_first 10 %", NONE)),
    ]
    assert {row["kept"] for row in found} == {0.5}
