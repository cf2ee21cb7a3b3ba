"""Every family, tiny and random: its pipeline's own latents, inversion, saving, lengths, gradients, or its refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import unsample
from tests.zoo.table import ZOO, Family
from unsample.errors import Incompatible
from unsample.models.families import FAMILIES, family_of
from unsample.models.replay import ReplayModel
from unsample.verbs.checking import check

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS = 3
SERVED = [name for name, family in ZOO.items() if family.refused is None]
LENGTHS = ("a cat", "two dogs and a very long day")
SLOW = ("hunyuan_image", "hunyuan_meanflow", "klein", "flux2", "sana")  # long prompts, many layers
LIKE_ANOTHER = ("sd_v", "sd_karras", "pixart_alpha", "sd3_dynamic", "flux_karras", "flux_inverted")
GRADIENTS = ("sdxl", "sd3", "qwen_image", "z_image", "lumina2", "pixart_sigma")


def adapter(name: str) -> Any:
    """Over a pipeline of the zoo, with the arguments that are no sizes."""
    family = ZOO[name]
    more = {k: v for k, v in family.call.items() if k not in ("height", "width", "class_labels")}
    more |= {"true_cfg_scale": 3.0} if name == "flux_true" else {}
    return ReplayModel(family.built(), name, **more)


def size(family: Family) -> dict[str, Any]:
    return {n: family.call[n] for n in ("height", "width") if n in family.call}


@pytest.mark.parametrize("name", SERVED)
def test_our_latents_are_the_pipeline_s_own_guided_and_not(name: str) -> None:
    """To 1e-5 of their largest value; and the noise comes back, and the picture from it."""
    found = check(adapter(name), num_inference_steps=STEPS, **size(ZOO[name]))
    assert found.clean, found.problems
    assert max(one.latents for one in found.compared) < 1e-5
    assert max(one.picture_levels for one in found.compared) < 0.01
    assert len(found.compared) == (2 if ZOO[name].kind == "cfg" and name != "hunyuan_image" else 1)
    assert found.inverted.status in ("ok", "not_converged")  # in 3 large steps of a random network
    assert found.inverted.psnr is None or found.inverted.psnr > 35


@pytest.mark.parametrize("name", [n for n in SERVED if ZOO[n].prompted and n not in (*SLOW, *LIKE_ANOTHER)])
def test_two_prompts_of_other_lengths_are_each_what_they_are_alone_and_a_saved_inversion_is_the_same(
    name: str, tmp_path: Path
) -> None:
    model: Any = adapter(name)
    shape = model.shape_of(*(ZOO[name].call.get(n) for n in ("height", "width")))
    noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    how: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 2.0 if model.guidance == "cfg" else 1.0}
    both = unsample.sample(model, list(LENGTHS), noise=noise, **how).latents
    worst = 0.0
    for k, prompt in enumerate(LENGTHS):
        alone = unsample.sample(model, prompt, noise=noise[k : k + 1], **how).latents
        worst = max(worst, float((both[k : k + 1] - alone).abs().max() / alone.abs().max()))
    assert worst < 1e-5
    inversion = unsample.invert(model, prompt=list(LENGTHS), latents=both, num_inference_steps=2)
    inversion.save(tmp_path / "a.safetensors")
    kept = unsample.Inversion.load(tmp_path / "a.safetensors")
    again = [unsample.reconstruct(model, one).images for one in (inversion, kept)]
    assert torch.equal(*again)


@pytest.mark.parametrize("name", GRADIENTS)
def test_null_text_optimises_through_the_pipeline_s_own_conditioning(name: str) -> None:
    model: Any = adapter(name)
    shape = model.shape_of(*(ZOO[name].call.get(n) for n in ("height", "width")))
    latents = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    how = {"num_inference_steps": 2, "sampling_guidance_scale": 3.0}
    fitted = unsample.invert(model, prompt=LENGTHS[0], latents=latents, method="null_text", **how)
    assert fitted.backward[0] > 0
    assert fitted.state


@pytest.mark.parametrize("name", [n for n, family in ZOO.items() if family.refused])
def test_what_is_not_served_is_refused_by_name_and_reason(name: str) -> None:
    with pytest.raises(Incompatible, match=ZOO[name].refused):
        unsample.load(ZOO[name].built())


@pytest.mark.parametrize("name", ["sdxl", "flux", "z_image", "sana", "dit"])
def test_a_saved_folder_is_served_too(name: str, tmp_path: Path) -> None:
    folder = ZOO[name].saved(tmp_path / name)
    assert check(str(folder), num_inference_steps=2, **size(ZOO[name])).clean


def test_what_the_table_says_was_tried_is_in_the_zoo_and_the_other_way_round() -> None:
    kinds = {name: type(ZOO[name].build()).__name__ for name in SERVED}
    for name, kind in kinds.items():
        row = family_of(kind)
        assert row is not None, f"{name} ({kind}) stands in no row"
        assert "tests/zoo" in row.tried, name
    for row in FAMILIES:
        assert ("tests/zoo" in row.tried) == bool({*row.pipelines} & {*kinds.values()}), row.name
