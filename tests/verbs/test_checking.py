"""`check`: a model's own pipeline and we, from one noise."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest

import unsample
from tests.problems import SD_TABLE, ddpm, sd14
from unsample.errors import BadOption, Incompatible
from unsample.models.reference import first_order
from unsample.numbers.spectrum import first_step_radius
from unsample.studies.asking import asking
from unsample.verbs.checking import Contraction, check

pytestmark = pytest.mark.filterwarnings("ignore")
TABLE = {name: value for name, value in SD_TABLE.items() if name != "clip_sample"}


def test_a_model_of_each_hand_written_kind_is_clean_with_what_was_changed() -> None:
    found = check(sd14(), num_inference_steps=3)
    assert found.clean
    assert [one.guidance_scale for one in found.compared] == [1, 3]
    assert max(one.latents for one in found.compared) < 1e-5
    assert found.changes == ["its sampler PNDMScheduler gives way to DDIM of the same table, which draws no noise"]
    found = check(ddpm(), num_inference_steps=3)
    assert found.clean
    assert [one.guidance_scale for one in found.compared] == [1]
    assert found.autoencoder_psnr is None
    assert ["DDPMScheduler" in found.changes[0], "does not clamp" in found.changes[1]] == [True, True]


def test_the_first_step_of_three_pictures_is_looked_at_where_they_were_made() -> None:
    model = unsample.load(ddpm())
    found = check(model, num_inference_steps=3)
    made = unsample.sample(model, generator=1, num_inference_steps=3, keep_trajectory=True, progress=False).trajectory
    assert made is not None
    with asking(model, 3, None, 1) as predict:
        second = float(first_step_radius(predict, made[-1], made[-2]))
    assert len(found.first_step.radii) == 3
    assert found.first_step.radii[1] == pytest.approx(second, rel=1e-4)
    assert found.entries()["first_step"]["verdict"] == found.first_step.verdict


@pytest.mark.parametrize(
    ("radii", "words"),
    [
        ([0.2, 0.89], "converges to the truth there"),
        ([1.2, 1.5], "the truth repels"),
        ([0.95, 1.05], "is slow to converge"),
        ([0.5, 1.5], "for some pictures and not for others"),
        ([0.5, None], "unknown"),
    ],
)
def test_a_radius_is_said_in_words(radii: list[float | None], words: str) -> None:
    assert words in Contraction(radii, 1.0).verdict


def test_an_adapter_that_asks_otherwise_is_found_out() -> None:
    model: Any = unsample.load(sd14())
    embed = model.embed
    model.embed = lambda prompts, negative=False: embed([f"{p} " for p in prompts], negative)
    ask = model.network
    model.network = lambda x, t, condition: ask(x, t, condition) * 1.01
    found = check(model, num_inference_steps=3)
    assert not found.clean
    assert found.entries()["verdict"] == "differs"
    assert "at guidance 1 latents differ after the first step by" in found.problems[0]


@pytest.mark.parametrize(
    ("name", "into"),
    [
        ("DPMSolverMultistepScheduler", "DPMSolverMultistepScheduler"),
        ("UniPCMultistepScheduler", "UniPCMultistepScheduler"),
        ("HeunDiscreteScheduler", "EulerDiscreteScheduler"),
        ("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler"),
        ("DDPMScheduler", "DDIMScheduler"),
    ],
)
def test_a_sampler_of_higher_order_or_with_noise_gives_way_and_it_is_said(name: str, into: str) -> None:
    own = getattr(diffusers, name)(**TABLE)
    made, changes = first_order(own)
    assert type(made).__name__ == into
    assert made.config.get("solver_order", 1) == 1
    assert name in changes[0]
    assert own.config.get("solver_order", 2) == 2  # as it was


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(Incompatible, match="no pipeline of diffusers to be compared with"):
        check("scenes-mixture")
    with pytest.raises(BadOption, match="at least 1"):
        check(sd14(), guidance_scale=0.5)
    with pytest.raises(BadOption, match="takes no prompt"):
        check(ddpm(), "a cat")
    with pytest.raises(BadOption, match="has no guidance"):
        check(ddpm(), guidance_scale=3)
    with pytest.raises(BadOption, match="draws no classes"):
        check(sd14(), class_labels=1)
