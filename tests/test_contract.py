"""Every row of the table of methods does what its facts declare. A new row is tested with no new line here."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import unsample
from tests.problems import PROMPTS, mixture, mixture_picture, rms
from unsample.errors import BadOption, UnknownName
from unsample.methods import METHODS, Method, MethodFacts, Walked, get_method, parse_setting, setting_defaults

STEPS = 50  # at 20 the steps of this mixture are no contraction, and implicit methods may leave the picture's component
EVERY = pytest.mark.parametrize("name", METHODS)

# A matrix product of another height rounds differently (1e-16), and the score of a mixture magnifies it step by step.
BATCH = 1e-9

pytestmark = pytest.mark.filterwarnings("ignore:invert. .* did not converge")


@pytest.fixture(scope="module")
def model() -> Any:
    return mixture()


@pytest.fixture(scope="module")
def images(model: Any) -> torch.Tensor:
    return torch.cat([mixture_picture(model, k) for k in (0, 4)])


@pytest.fixture(scope="module")
def inverted(model: Any, images: torch.Tensor) -> Any:
    """Each method's inversion, made once."""
    kept: dict[str, unsample.Inversion] = {}

    def get(name: str) -> unsample.Inversion:
        if name not in kept:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kept[name] = unsample.invert(model, images, list(PROMPTS), method=name, num_inference_steps=STEPS)
        return kept[name]

    return get


# ---------------------------------------------------------------- the table


@EVERY
def test_the_facts_are_stated(name: str) -> None:
    facts = METHODS[name]
    assert isinstance(facts, MethodFacts)
    for text in (facts.summary, facts.family, facts.equation, facts.cost, facts.reference):
        assert text.strip()
    assert 2020 <= facts.year <= 2100
    assert re.search(r"arXiv:\d{4}\.\d{5}", facts.reference)


@EVERY
def test_the_factory_is_public_documented_and_configured_by_keyword_defaults(name: str) -> None:
    factory = METHODS[name].factory
    assert getattr(unsample.methods, factory.__name__) is factory
    assert all(p.default is not inspect.Parameter.empty for p in inspect.signature(factory).parameters.values())
    described = inspect.getdoc(factory) or ""
    assert "Example:" in described
    made = factory()
    assert isinstance(made, Method)
    assert made.name == name
    assert dict(made.settings) == setting_defaults(factory)
    for setting in made.settings:
        assert f"{setting}:" in described, f"{setting} is not documented"


@EVERY
def test_every_setting_can_be_written_as_text(name: str) -> None:
    factory = METHODS[name].factory
    for setting, default in setting_defaults(factory).items():
        assert parse_setting(factory, setting, str(default)) == default
        with pytest.raises(BadOption):
            factory(**{setting: parse_setting(factory, setting, "-7.5e")})
    with pytest.raises(UnknownName, match="known:" if setting_defaults(factory) else "unknown"):
        parse_setting(factory, "num_itres", "5")
    with pytest.raises(UnknownName, match=f"setting of {name}"):
        get_method(name, {"num_itres": 5})


def test_unknown_methods_are_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="unknown method 'fixd_point'; did you mean 'fixed_point'"):
        get_method("fixd_point")
    for wrong in (5, None, ["ddim"]):
        with pytest.raises(BadOption, match="a name or a configured method"):
            get_method(wrong)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what it does


@EVERY
def test_it_inverts_and_reconstructs(name: str, model: Any, inverted: Any, images: torch.Tensor) -> None:
    inversion = inverted(name)
    assert inversion.noise.shape == images.shape
    assert inversion.noise.isfinite().all()
    assert set(inversion.status) <= {"ok", "not_converged"}
    for use in ("record", "noise"):
        made = unsample.reconstruct(model, inversion, use=use)
        assert made.status == ["ok", "ok"]
        assert made.images.shape == images.shape
        # neither noise nor a constant comes back: the error is well below the spread of the picture
        assert rms(made.images - images) < 0.5 * float(images.std())


@EVERY
def test_a_saved_inversion_plays_back_as_the_one_in_memory(
    name: str, model: Any, inverted: Any, tmp_path: Path
) -> None:
    inverted(name).save(tmp_path / "a.safetensors")
    back = unsample.Inversion.load(tmp_path / "a.safetensors")
    for use in ("record", "noise"):
        one, other = (unsample.reconstruct(model, i, use=use) for i in (back, inverted(name)))
        assert torch.equal(one.latents, other.latents)
    size = sum(t.numel() * t.element_size() for t in (back.noise, *back.state.values()))
    declared = back.meta["stored"]["size_over_noise"]
    assert size == pytest.approx(declared * back.noise.numel() * back.noise.element_size(), rel=0.01)


@EVERY
def test_it_edits(name: str, model: Any, inverted: Any) -> None:
    edited = unsample.edit(model, inverted(name), list(PROMPTS)[::-1], guidance_scale=2)
    assert edited.status == ["ok", "ok"]
    assert edited.meta["prompt"] == list(PROMPTS)[::-1]
    assert rms(edited.latents - unsample.reconstruct(model, inverted(name)).latents) > 0.05  # it did something


@EVERY
@pytest.mark.parametrize("steps", [1, 7])
def test_its_cost_is_what_it_declares(name: str, steps: int, model: Any, images: torch.Tensor) -> None:
    configured = get_method(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few steps keep the picture
        given = {"prompt": list(PROMPTS), "method": configured, "num_inference_steps": steps}
        inversion = unsample.invert(model, images, **given)
        assert inversion.nfe == [configured.passes(Walked(steps))] * 2
        assert (max(inversion.backward) > 0) == configured.needs_grad
        guided = unsample.invert(model, images, **given, guidance_scale=2.0)
        assert guided.nfe == [configured.passes(Walked(steps, 2, 2))] * 2


@EVERY
def test_its_declared_exactness_round_trips(name: str, model: Any, inverted: Any) -> None:
    """Exact by construction means to rounding: 1e-16 in float64, magnified on the way back."""
    inversion = inverted(name)
    error = rms(unsample.reconstruct(model, inversion).latents - inversion.latents) / rms(inversion.latents)
    assert error < (1e-8 if get_method(name).exact else 0.5)


@EVERY
def test_a_batch_gives_what_single_pictures_give(name: str, model: Any, images: torch.Tensor, inverted: Any) -> None:
    together = inverted(name)
    for k in range(2):
        alone = unsample.invert(model, images[k : k + 1], PROMPTS[k], method=name, num_inference_steps=STEPS)
        assert rms(alone.noise[0] - together.noise[k]) < BATCH
        assert (alone.nfe, alone.backward) == (together.nfe[k : k + 1], together.backward[k : k + 1])
        one, other = (unsample.reconstruct(model, i).latents[0] for i in (alone, together[k]))
        assert rms(one - other) < 10 * BATCH  # and once more on the way back


@EVERY
@pytest.mark.usefixtures("global_rng_unchanged")
def test_the_same_seed_gives_the_same_bits_and_nothing_global_changes(
    name: str, model: Any, images: torch.Tensor, inverted: Any
) -> None:
    again = unsample.invert(model, images, list(PROMPTS), method=name, num_inference_steps=STEPS)
    assert torch.equal(again.noise, inverted(name).noise)
    assert again.state.keys() == inverted(name).state.keys()
    assert all(torch.equal(again.state[k], inverted(name).state[k]) for k in again.state)
    one, other = (unsample.reconstruct(model, again).latents for _ in range(2))
    assert torch.equal(one, other)


@EVERY
def test_strength_works(name: str, model: Any, images: torch.Tensor) -> None:
    half = unsample.invert(model, images, list(PROMPTS), method=name, num_inference_steps=STEPS, strength=0.5)
    assert half.meta["stop_index"] == STEPS // 2
    made = unsample.reconstruct(model, half)
    assert rms(made.images - images) < 0.5 * float(images.std())


@EVERY
def test_its_record_says_how_it_was_made(name: str, inverted: Any) -> None:
    meta, configured = inverted(name).meta, get_method(name)
    assert meta["method"] == {"name": name, "settings": dict(configured.settings)}
    assert meta["stored"]["what"] == configured.stores
    assert meta["stored"]["fitted_to_picture"] == configured.fitted
