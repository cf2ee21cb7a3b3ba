"""What `invert` says of what it recovered, picture by picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import unsample
from tests.problems import mixture, normal
from unsample.errors import Incompatible
from unsample.methods import get_method

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS: dict[str, Any] = {"num_inference_steps": 50, "progress": False}
NEW = ("residual", "residual_step", "first_step", "grade", "grade_reason")


@pytest.fixture(scope="module")
def made() -> tuple[Any, Any]:
    model = mixture()
    return model, unsample.sample(model, ["left", "right"], noise=normal(2, *model.sample_shape, seed=11), **STEPS)


def invert(made: tuple[Any, Any], method: Any, **more: Any) -> unsample.Inversion:
    model, pictures = made
    return unsample.invert(model, latents=pictures.latents, prompt=["left", "right"], method=method, **STEPS | more)


def test_the_step_of_the_largest_residual_is_the_one_of_the_walk(made: tuple[Any, Any]) -> None:
    """One iteration from x_i leaves `F(x_i) - x_i`, the step itself."""
    found = invert(made, get_method("fixed_point", {"num_iters": 1}), keep_trajectory=True)
    assert found.trajectory is not None
    walk = found.trajectory.flatten(2).double()
    relative = (walk[1:] - walk[:-1]).norm(dim=2) / walk[:-1].norm(dim=2)
    assert [h["residual_step"] for h in found.health] == (relative.argmax(0) + 1).tolist()
    assert [h["residual"] for h in found.health] == pytest.approx(relative.amax(0).tolist(), rel=1e-5)
    assert [h["residual"] for h in found.health] == found.meta.residual


def test_from_a_picture_none_is_recovered_whatever_the_radius(made: tuple[Any, Any]) -> None:
    model, pictures = made
    method = get_method("fixed_point", {"num_iters": 60, "tol": 1e-6})
    given = {"prompt": ["left", "right"], "method": method, "first_step_radius": True, **STEPS}
    of_latents = unsample.invert(model, latents=pictures.latents, **given)
    of_pictures = unsample.invert(model, pictures.images, **given)
    assert [h["grade"] for h in of_latents.health] == ["recovered"] * 2
    assert [h["grade"] for h in of_pictures.health] == ["reconstructs only"] * 2
    assert "latents were not given" in of_pictures.health[0]["grade_reason"]


@pytest.mark.parametrize(("guidance", "grade"), [(3.0, "recovered"), (3.5, "reconstructs only")])
def test_above_a_guidance_of_3_none_is_recovered(made: tuple[Any, Any], guidance: float, grade: str) -> None:
    found = invert(made, "anderson", first_step_radius=True, guidance_scale=guidance)
    solved = found.health[1]
    assert solved["grade"] == grade
    assert ("later steps have other roots" in solved["grade_reason"]) is (guidance > 3)
    few = invert(made, "anderson", first_step_radius=True, guidance_scale=guidance, num_inference_steps=10)
    assert "in fewer than 20 steps" in few.health[1]["grade_reason"]


def test_the_radius_is_asked_for_and_counted(made: tuple[Any, Any]) -> None:
    method = get_method("fixed_point", {"num_iters": 30})
    plain, asked = invert(made, method), invert(made, method, first_step_radius=True)
    assert torch.equal(plain.noise, asked.noise)
    assert [b - a for a, b in zip(plain.nfe, asked.nfe, strict=True)] == [9, 9]
    assert all(h["first_step"]["radius"] is None and h["grade"] != "recovered" for h in plain.health)
    for a, b in zip(plain.health, asked.health, strict=True):
        assert b["first_step"] == a["first_step"] | {"radius": b["first_step"]["radius"]}
        assert (b["grade"] == "recovered") is (b["first_step"]["radius"] < 0.9 and b["residual"] <= 1e-3)
    assert ("first_step_radius" in plain.meta, asked.meta["first_step_radius"]) == (False, True)
    guided = invert(made, method, first_step_radius=True, guidance_scale=2.0)
    assert guided.nfe == [2 * n for n in asked.nfe]


@pytest.mark.parametrize(
    ("method", "given", "stands", "why"),
    [
        ("ddim", {}, True, "ddim solves no equation"),
        ("fixed_point", {"strength": 0.5}, True, "a strength below 1"),
        ("edict", {}, False, "it stores"),
        ("direct", {}, False, "it stores"),
        (get_method("forward_first", {"base": "fixed_point"}), {}, False, "are drawn, not solved"),
        (get_method("easyinv", {"base": "fixed_point", "stop": 0.5}), {}, False, "is blended afterwards"),
        ("random_noise", {}, False, "its noise is drawn"),
        ("sdedit", {"strength": 1.0}, False, "its noise is drawn"),
    ],
)
def test_what_cannot_be_graded_says_why(
    made: tuple[Any, Any], method: Any, given: dict[str, Any], stands: bool, why: str
) -> None:
    (found, _) = invert(made, method, **given).health
    assert found["grade"] is None
    assert why in found["grade_reason"]
    assert (found["first_step"] is not None) is stands
    if not stands:
        with pytest.raises(Incompatible, match="first_step_radius is of a first step"):
            invert(made, method, first_step_radius=True, **given)


def test_the_verdict_is_saved_and_a_file_without_one_is_read(made: tuple[Any, Any], tmp_path: Path) -> None:
    found = invert(made, "anderson", first_step_radius=True)
    path, old = tmp_path / "a.safetensors", tmp_path / "old.safetensors"
    found.save(path)
    kept = unsample.Inversion.load(path).health
    assert all(list(h) == list(k) for h, k in zip(found.health, kept, strict=True))
    assert [[h[name] for name in NEW] for h in found.health] == [[h[name] for name in NEW] for h in kept]
    with safe_open(path, "pt") as file:
        header = dict(file.metadata())
    document = json.loads(header["unsample"])
    for health in document["health"]:
        for name in NEW:
            del health[name]
    save_file(load_file(path), old, header | {"unsample": json.dumps(document)})
    before = unsample.Inversion.load(old)
    assert before.health == document["health"]
    assert "no grade" not in repr(before)
    assert found.health[0]["grade"] in repr(found)
