"""Every row of the table of methods does what its facts declare. A new row is tested with no new line here.

Rows run at their `quick` preset and at most ten steps, on the closed-form mixture (float64), where a guided text
condition is exact, seen as a diffusion that preserves the variance ("vp") and as a flow ("flow"), and on a trained
network of the kind that they apply to. A row that says why it refuses one of the two is held to the refusal.
"""

from __future__ import annotations

import copy
import inspect
import random
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

import unsample
from tests.problems import PROMPTS, mixture, normal, rms, smooth_network
from unsample.errors import BadOption, Diverged, Incompatible, UnknownName
from unsample.methods import (
    METHODS,
    Method,
    MethodFacts,
    Walked,
    declarations,
    get_method,
    parse_setting,
    setting_defaults,
)
from unsample.methods.citations import arxiv_ids, bibtex
from unsample.models.guidance import guidance_scales
from unsample.models.pixel import CallableModel
from unsample.numbers.grid import grid_from_scheduler

STEPS = 10
SCHEDULERS: dict[str, Any] = {
    "vp": DDIMScheduler(clip_sample=False),
    "flow": FlowMatchEulerDiscreteScheduler(shift=3.0),
}
EVERY = pytest.mark.parametrize("name", METHODS)
REFUSED = [
    (name, kind) for name in METHODS for kind in SCHEDULERS if getattr(get_method(name), f"refuses_{kind}") is not None
]
AT_HOME = pytest.mark.parametrize(
    ("name", "kind"), [(n, "flow" if (n, "vp") in REFUSED else "vp") for n in METHODS], scope="module"
)
ON_BOTH = pytest.mark.parametrize(
    ("name", "kind"), [(n, k) for k in SCHEDULERS for n in METHODS if (n, k) not in REFUSED], scope="module"
)
BASELINES = [n for n, facts in METHODS.items() if facts.family == "baseline"]  # bring nothing of the picture's noise
EDITING = [n for n in METHODS if get_method(n).refuses_edit is None]

# A matrix product of another height rounds differently (1e-16), and the score of a mixture magnifies it step by step.
BATCH = 1e-8

pytestmark = [
    pytest.mark.filterwarnings("ignore:invert. .* did not converge"),
    pytest.mark.filterwarnings("ignore:the noisiest of"),
    pytest.mark.filterwarnings("ignore:.*does not account for guidance"),
    pytest.mark.filterwarnings("ignore:.*recovered a noise of std"),
]


def quick(name: str, **more: Any) -> Method:
    """The row's quick preset."""
    return get_method(name, {"preset": "quick", **more})


def unstopped(name: str) -> Method:
    """The row with early stopping off."""
    defaults = setting_defaults(METHODS[name].factory)
    return quick(name, **{k: None for k in ("tol", "early_stop") if k in defaults})


def stopped(name: str) -> Method:
    """The row with an early stop that is always reached."""
    defaults = setting_defaults(METHODS[name].factory)
    return quick(name, **{k: 1e3 for k in ("tol", "early_stop") if k in defaults})


@pytest.fixture(scope="module")
def kind() -> str:
    return "vp"


@pytest.fixture(scope="module")
def model(kind: str) -> Any:
    return mixture(scheduler=SCHEDULERS[kind])


class Source:
    """Pictures that the mixture made, with the run that made them."""

    def __init__(self, model: Any, steps: int = STEPS) -> None:
        noise = normal(2, *model.sample_shape, seed=11)
        self.made = unsample.sample(
            model, list(PROMPTS), num_inference_steps=steps, noise=noise, keep_trajectory=True, progress=False
        )

    def given(self, method: Method, row: int | None = None) -> dict[str, Any]:
        """The arguments of `invert` for both pictures or one of them."""
        rows = slice(None) if row is None else slice(row, row + 1)
        kept: dict[str, Any] = {"latents": self.made.latents[rows], "prompt": list(PROMPTS)[rows], "method": method}
        return kept | ({"trajectory": self.made.trajectory[:, rows]} if method.needs_trajectory else {})


@pytest.fixture(scope="module")
def source(model: Any) -> Source:
    return Source(model)


@pytest.fixture(scope="module")
def inverted(model: Any, source: Source) -> Any:
    """Each row's inversion, made once."""
    kept: dict[str, unsample.Inversion] = {}

    def get(name: str) -> unsample.Inversion:
        if name not in kept:
            kept[name] = unsample.invert(model, **source.given(quick(name)), num_inference_steps=STEPS)
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
    assert bibtex(arxiv_ids(facts.reference)).count("@misc") >= 1


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


@EVERY
def test_a_setting_that_is_not_as_declared_is_refused_by_name(name: str) -> None:
    factory = METHODS[name].factory
    for declared in declarations(factory):
        assert declared.setting.text.strip().endswith(".")
        if declared.spelling == "Base":
            continue
        wrong: list[Any] = [object(), [], *([] if declared.optional else [None])]
        if declared.kind in (int, float):
            bounds = declared.setting.among or (declared.setting.low, declared.setting.high)
            wrong += [True, "5", min(bounds) - 1, max(bounds) + 1]  # above no bound: infinity
        for value in wrong:
            with pytest.raises(BadOption, match=f"^{name}: {declared.name} must be "):
                factory(**{declared.name: value})


@EVERY
def test_every_preset_is_a_method_and_changes_something_it_names(name: str) -> None:
    for preset, values in METHODS[name].named_settings().items():
        made = get_method(name, {"preset": preset})
        assert made.name == name
        assert {k: made.settings[k] for k in values} == dict(values)
    with pytest.raises(UnknownName, match=f"preset of {name}"):
        get_method(name, {"preset": "quikc"})


def test_unknown_methods_are_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="unknown method 'fixd_point'; did you mean 'fixed_point'"):
        get_method("fixd_point")
    for wrong in (5, None, ["ddim"]):
        with pytest.raises(BadOption, match="a name or a configured method"):
            get_method(wrong)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what it does


@ON_BOTH
def test_it_inverts_and_reconstructs(name: str, model: Any, inverted: Any, source: Source) -> None:
    inversion, made = inverted(name), source.made
    assert inversion.noise.shape == made.latents.shape
    assert inversion.noise.isfinite().all()
    assert set(inversion.status) <= {"ok", "not_converged"}
    for use in ("record", "noise"):
        again = unsample.reconstruct(model, inversion, use=use)
        assert again.status == ["ok", "ok"]
        assert again.latents.shape == made.latents.shape
    again = unsample.reconstruct(model, inversion)
    if name not in BASELINES:
        # neither noise nor a constant comes back: the error is well below the spread of the picture
        assert rms(again.latents - made.latents) < 0.7 * float(made.latents.std())


@ON_BOTH
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
    assert set(back.state) == set(quick(name).keeps)


@ON_BOTH
def test_it_edits_or_says_why_it_cannot(name: str, model: Any, inverted: Any) -> None:
    if name not in EDITING:
        with pytest.raises(Incompatible, match=f"{name} cannot edit: "):
            unsample.edit(model, inverted(name), list(PROMPTS)[::-1])
        return
    edited = unsample.edit(model, inverted(name), list(PROMPTS)[::-1])
    assert edited.status == ["ok", "ok"]
    assert edited.meta["prompt"] == list(PROMPTS)[::-1]
    assert rms(edited.latents - unsample.reconstruct(model, inverted(name)).latents) > 0.05  # it did something


@pytest.mark.parametrize("kind", SCHEDULERS, scope="module")
def test_no_two_methods_are_one(kind: str, model: Any, inverted: Any) -> None:
    """Edits that agree bit for bit would be one method under two names."""
    here = [name for name in EDITING if (name, kind) not in REFUSED]
    edits = {name: unsample.edit(model, inverted(name), list(PROMPTS)[::-1]).latents for name in here}
    names = list(edits)
    for k, one in enumerate(names):
        for other in names[k + 1 :]:
            assert not torch.equal(edits[one], edits[other]), f"{one} and {other} edit alike"


@ON_BOTH
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("guided", [False, True])
def test_its_cost_is_what_it_declares(name: str, steps: int, guided: bool, model: Any) -> None:
    source = Source(model, steps)
    w = 2.0 if guided else 1.0
    walk = {"guidance_scale": w, "sampling_guidance_scale": w, "strength": 1.0, "num_inference_steps": steps}
    method = unstopped(name)
    grid = grid_from_scheduler(model.scheduler, steps, timestep_spacing=method.spacing(model.scheduler))
    pair = 2 if guided else 1
    walked = Walked(steps, pair, pair, grid.timesteps[1:])
    inversion = unsample.invert(model, **source.given(method), **walk)
    assert inversion.nfe == [method.passes(walked)] * 2
    assert inversion.backward == [method.backward(walked)] * 2
    early = unsample.invert(model, **source.given(stopped(name)), **walk)
    assert max(early.nfe) <= method.passes(walked)
    assert max(early.backward) <= method.backward(walked)


@ON_BOTH
def test_its_declared_exactness_round_trips(name: str, model: Any, inverted: Any, source: Source) -> None:
    """Exact by construction means to rounding: 1e-16 in float64, magnified on the way back."""
    inversion = inverted(name)
    error = rms(unsample.reconstruct(model, inversion).latents - inversion.latents) / rms(inversion.latents)
    if quick(name).exact:
        assert error < 1e-8
        single = unsample.invert(model, **source.given(quick(name)) | {"latents": source.made.latents.float()},
                                 num_inference_steps=STEPS)  # fmt: skip
        assert rms(unsample.reconstruct(model, single).latents - single.latents) < 1e-4 * rms(single.latents)
    else:
        assert error > 1e-9, "it is exact: let it say so"


@ON_BOTH
def test_a_batch_gives_what_single_pictures_give(name: str, model: Any, source: Source, inverted: Any) -> None:
    together = inverted(name)
    for k in range(2):
        alone = unsample.invert(model, **source.given(quick(name), k), num_inference_steps=STEPS)
        assert rms(alone.noise[0] - together.noise[k]) < BATCH
        assert (alone.nfe, alone.backward) == (together.nfe[k : k + 1], together.backward[k : k + 1])
        one, other = (unsample.reconstruct(model, i).latents[0] for i in (alone, together[k]))
        assert rms(one - other) < 10 * BATCH  # and once more on the way back


@ON_BOTH
@pytest.mark.usefixtures("global_rng_unchanged")
def test_the_same_seed_gives_the_same_bits(name: str, model: Any, source: Source, inverted: Any) -> None:
    again = unsample.invert(model, **source.given(quick(name)), num_inference_steps=STEPS)
    assert torch.equal(again.noise, inverted(name).noise)
    assert again.state.keys() == inverted(name).state.keys()
    assert all(torch.equal(again.state[k], inverted(name).state[k]) for k in again.state)
    one, other = (unsample.reconstruct(model, again).latents for _ in range(2))
    assert torch.equal(one, other)


@ON_BOTH
def test_strength_works(name: str, model: Any, source: Source) -> None:
    method = quick(name)
    half = unsample.invert(model, **source.given(method), num_inference_steps=STEPS, strength=0.5)
    assert half.meta["stop_index"] == STEPS // 2
    made = unsample.reconstruct(model, half)
    if name not in BASELINES:
        assert rms(made.latents - source.made.latents) < 0.7 * float(source.made.latents.std())


@ON_BOTH
def test_its_record_says_how_it_was_made(name: str, inverted: Any) -> None:
    meta, configured = inverted(name).meta, quick(name)
    assert meta["method"] == {"name": name, "settings": dict(configured.settings)}
    assert meta["stored"]["what"] == configured.stores
    assert meta["stored"]["fitted_to_picture"] == configured.fitted
    assert configured.fitted <= bool(configured.keeps) or configured.playback is not None


@ON_BOTH
def test_a_record_is_played_back_under_the_guidance_it_was_fitted_with(name: str, model: Any, inverted: Any) -> None:
    method, inversion = quick(name), inverted(name)
    other = inversion.meta["sampling_guidance_scale"] + 1
    bound = {unsample.reconstruct: method.guidance_bound, unsample.edit: method.edits_as_fitted}
    for verb, holds in bound.items():
        if verb is unsample.edit and method.refuses_edit:
            continue
        more = {"prompt": list(PROMPTS)} if verb is unsample.edit else {}
        for given in ({"guidance_scale": other}, {"guidance_schedule": "cosine", "guidance_scale": other}):
            if holds:
                with pytest.raises(Incompatible, match="fitted under guidance"):
                    verb(model, inversion, **more, **given)
            else:
                assert verb(model, inversion, **more, **given).latents.isfinite().all()


@ON_BOTH
def test_it_inverts_under_its_own_guidance_unless_told(name: str, model: Any, source: Source, inverted: Any) -> None:
    method = quick(name)
    own = 1.0 if method.guidance_scale is None else method.guidance_scale
    assert inverted(name).meta["guidance_scale"] == own
    half = replace(method, guidance_scale=0.5)
    given = source.given(half) | {"num_inference_steps": STEPS}
    assert unsample.invert(model, **given).meta["guidance_scale"] == 0.5
    assert unsample.invert(model, **given, guidance_scale=1.0).meta["guidance_scale"] == 1.0
    if not method.needs_prompt:  # nothing to guide away from
        plain = {name: value for name, value in given.items() if name != "prompt"}
        assert unsample.invert(mixture(scheduler=model.scheduler, prompts=False), **plain).meta["guidance_scale"] == 1.0


# ---------------------------------------------------------------- wrong use


@pytest.mark.parametrize(("name", "kind"), REFUSED, scope="module")
def test_noise_levels_that_it_refuses_are_refused_before_any_work(name: str, kind: str, model: Any) -> None:
    method, x = quick(name), normal(1, *model.sample_shape)
    why = getattr(method, f"refuses_{kind}")
    with pytest.raises(Incompatible, match=rf"^{name} does not run on .*: {re.escape(why)}"):
        unsample.invert(model, latents=x, prompt="left", method=method, num_inference_steps=2)


@AT_HOME
def test_wrong_use_is_refused_before_any_work(name: str, model: Any, source: Source) -> None:
    method = quick(name)
    if method.needs_prompt:
        plain = mixture(scheduler=model.scheduler, prompts=False)
        with pytest.raises(Incompatible, match="takes no prompt"):
            unsample.invert(plain, latents=source.made.latents, method=method, num_inference_steps=2)
        with pytest.raises(BadOption, match="needs the prompt"):
            unsample.invert(model, latents=source.made.latents, method=method, num_inference_steps=2)
    if method.needs_trajectory:
        given = source.given(method)
        with pytest.raises(BadOption, match="needs the recorded sampling run"):
            unsample.invert(model, **{k: v for k, v in given.items() if k != "trajectory"}, num_inference_steps=STEPS)
        with pytest.raises(unsample.BadInput, match="trajectory must be"):
            unsample.invert(model, **given | {"trajectory": given["trajectory"][1:]}, num_inference_steps=STEPS)


@AT_HOME
def test_a_network_without_gradients_is_refused_where_they_are_needed(name: str, kind: str) -> None:
    @torch.no_grad()
    def network(x: Tensor, t: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:
        return smooth_network(x, t, encoder_hidden_states)

    wrapped = CallableModel(network, SCHEDULERS[kind], sample_shape=(3, 8, 8))
    method = quick(name)
    if not method.needs_grad or method.needs_trajectory:
        pytest.skip("needs no gradients")
    embeds = {"prompt_embeds": torch.ones(1, 2, 4), "negative_prompt_embeds": torch.zeros(1, 2, 4)}
    with pytest.raises(Incompatible, match="gradient"):
        unsample.invert(wrapped, latents=normal(1, 3, 8, 8).float(), method=method, num_inference_steps=2, **embeds)


# ---------------------------------------------------------------- what can go wrong in a batch


def starts() -> dict[str, Tensor]:
    """Pictures at the ends of what is possible."""
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    return {
        "black": -torch.ones(3, 8, 8),
        "white": torch.ones(3, 8, 8),
        "checkerboard": (2.0 * board - 1).expand(3, 8, 8),
        "noise": normal(3, 8, 8, seed=5).clamp(-1, 1).float(),
        "ends": torch.where(normal(3, 8, 8, seed=6) > 0, 1.0, -1.0),
    }


@AT_HOME
def test_adversarial_starts_end_finite_or_are_said_to_diverge(name: str, model: Any) -> None:
    method = quick(name)
    if method.needs_trajectory:
        pytest.skip("its start is what was sampled")
    x = torch.stack(list(starts().values()))
    inversion = unsample.invert(model, latents=x, prompt="left", method=method, num_inference_steps=6, strength=1.0)
    lost = [k for k, s in enumerate(inversion.status) if s == "diverged"]
    assert all(bool(inversion.noise[k].isfinite().all()) for k in range(len(x)) if k not in lost)
    for k in range(len(x)):
        if k in lost:
            continue
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            made = unsample.reconstruct(model, inversion[k])
        assert made.status == ["diverged"] or made.latents.isfinite().all()
        flat = float(made.images.std()) < 1 / 255
        assert not flat or float(x[k].std()) == 0 or any("constant" in str(w.message) for w in said)


@AT_HOME
def test_a_picture_that_is_lost_leaves_the_others_untouched(name: str, kind: str) -> None:
    method = quick(name)
    if method.needs_trajectory:
        pytest.skip("its start is what was sampled")
    good, bad = normal(1, 3, 8, 8, seed=1) * 0.3, normal(1, 3, 8, 8, seed=2) * 0.3 + 4

    def network(x: Tensor, t: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:
        assert encoder_hidden_states is not None
        shift = 0.1 * encoder_hidden_states.to(x.dtype).mean((1, 2))[:, None, None, None]
        output = torch.tanh(0.5 * x + shift)  # keeps the mean of the good one near zero
        lost = (x.detach().flatten(1).mean(1) > 2) & (int(t) > 100)
        return torch.where(lost[:, None, None, None], torch.nan, output)

    wrapped = CallableModel(network, SCHEDULERS[kind], sample_shape=(3, 8, 8))
    given: dict[str, Any] = {"method": method, "num_inference_steps": 6, "strength": 1.0}
    given |= {"prompt_embeds": torch.ones(1, 2, 4), "negative_prompt_embeds": torch.zeros(1, 2, 4)}
    alone = unsample.invert(wrapped, latents=good, **given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = unsample.invert(wrapped, latents=torch.cat([good, bad]), **given)
    assert together.status[0] == alone.status[0]
    assert rms(together.noise[0] - alone.noise[0]) < 1e-9
    assert all(torch.allclose(together.state[k][0], alone.state[k][0], atol=1e-7) for k in alone.state)
    if alone.nfe[0] > 0:  # a method that asks the network nothing cannot lose a picture
        assert together.status[1] == "diverged"
        with pytest.raises(Diverged):
            unsample.invert(wrapped, latents=bad, **given)


def failing(kind: str, at_call: int, value: float, calls: list[float]) -> Any:
    """A network whose answer to a picture marked in its embeddings is not finite at the `at_call`-th call (0: any)."""

    def network(x: Tensor, t: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:
        assert encoder_hidden_states is not None
        calls.append(float(t))
        shift = 0.1 * encoder_hidden_states[..., 1:].to(x.dtype).mean((1, 2))[:, None, None, None]
        marked = (encoder_hidden_states[:, 0, 0] > 50) & (at_call in (0, len(calls)))
        return torch.where(marked[:, None, None, None], value, torch.tanh(0.5 * x + shift))

    return CallableModel(network, SCHEDULERS[kind], sample_shape=(3, 8, 8))


@AT_HOME
@pytest.mark.parametrize(("at_call", "value"), [(1, torch.nan), (3, torch.inf)])
def test_an_answer_that_is_not_finite_is_named_with_its_picture_whatever_becomes_of_it(
    name: str, kind: str, at_call: int, value: float
) -> None:
    method, calls = quick(name), []  # type: ignore[var-annotated]
    if method.needs_trajectory or method.passes(Walked(6)) == 0:
        pytest.skip("its start is what was sampled, or it asks nothing")
    embeds = {"prompt_embeds": torch.ones(2, 2, 4), "negative_prompt_embeds": torch.zeros(2, 2, 4)}
    for tensor in embeds.values():
        tensor[1, 0, 0] = 100
    given: dict[str, Any] = {"method": method, "num_inference_steps": 6, "strength": 1.0}
    x = normal(2, 3, 8, 8, seed=1) * 0.3
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        inversion = unsample.invert(failing(kind, at_call, value, calls), latents=x, **embeds, **given)
    well, failed = inversion.nonfinite_at
    assert well is None
    assert failed is not None
    assert (failed["what"], failed["input_finite"]) == ("answer", True)
    assert failed["timestep"] == pytest.approx(calls[at_call - 1])  # the network's own is float32
    words = f"not finite at timestep {failed['timestep']} (evaluation {failed['evaluation']}"
    own = [str(w.message) for w in said if words in str(w.message)]
    assert [text.startswith(f"invert: picture 1 ({inversion.status[1]}): ") for text in own] == (
        [] if inversion.status[1] == "diverged" else [True]
    )
    assert inversion[1].nonfinite_at == [failed]
    with pytest.raises(Diverged, match=r"the network's (un)?(conditional )?answer was not finite at timestep") as lost:
        unsample.invert(failing(kind, 0, value, []), latents=x[1:], **{n: t[1:] for n, t in embeds.items()}, **given)
    assert lost.value.nonfinite_at[0]["times"] >= 1


# ---------------------------------------------------------------- trained networks

NETWORKS: dict[str, Any] = {}


def trained(method: Method, dtype: torch.dtype) -> Any:
    """`scenes-sd` for the methods that work on text, else `scenes-ddpm`."""
    key = ("scenes-sd" if method.needs_prompt else "scenes-ddpm", dtype)
    if key not in NETWORKS:
        NETWORKS[key] = unsample.load(key[0], dtype=dtype)
    return NETWORKS[key]


def global_state(model: Any) -> tuple[Any, ...]:
    """What an inversion must leave as it was."""
    unet = model.unet
    return (
        [p.detach().clone() for p in unet.parameters()],
        [(p.grad is None, p.requires_grad) for p in unet.parameters()],
        {k: type(m.processor) for k, m in unet.named_modules() if hasattr(m, "processor")},
        (unet.training, unet.is_gradient_checkpointing, torch.is_grad_enabled(), torch.get_default_dtype()),
        (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()),
        copy.deepcopy(dict(model.scheduler.config)),
    )


def same(a: Any, b: Any) -> bool:
    """Equality through lists, tuples and tensors."""
    if isinstance(a, Tensor | np.ndarray):
        return bool((a == b).all())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(p, q) for p, q in zip(a, b, strict=True))
    return bool(a == b)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_it_runs_on_a_trained_network_and_changes_nothing_global(name: str, dtype: torch.dtype) -> None:
    method = quick(name)
    if method.refuses_vp:
        pytest.skip("the trained networks preserve the variance")
    model = trained(method, dtype)
    prompt = ["a large red circle at the left on a white background"] if method.needs_prompt else None
    noise = torch.randn(1, *model.sample_shape, generator=torch.Generator().manual_seed(0))
    made = unsample.sample(model, prompt, num_inference_steps=3, noise=noise, keep_trajectory=True)
    before = global_state(model)
    extra = {"trajectory": made.trajectory} if method.needs_trajectory else {}
    inversion = unsample.invert(
        model, latents=made.latents, prompt=prompt, method=method, num_inference_steps=3, strength=1.0,
        guidance_scale=1.0, **({} if method.needs_prompt else {"sampling_guidance_scale": 1.0}), **extra,
    )  # fmt: skip
    again = unsample.reconstruct(model, inversion)
    assert same(before, global_state(model))
    assert inversion.noise.dtype is torch.float32
    assert all(t.dtype is not torch.bfloat16 for t in inversion.state.values())
    assert not inversion.noise.requires_grad
    assert again.status == ["ok"]
    if method.exact and not method.reversible:
        # by construction, whatever the network's dtype: what a step misses is stored
        assert rms(again.latents - made.latents) < (1e-4 if dtype is torch.float32 else 5e-2)


def test_guidance_schedules_run_from_the_noisiest_step_to_the_last() -> None:
    grid = grid_from_scheduler(DDIMScheduler(), 5)
    at = {name: guidance_scales(5.0, name, grid) for name in ("constant", "linear", "cosine")}
    assert at["constant"] == (5.0,) * 6
    assert at["linear"][5] == at["cosine"][5] == 5.0  # s = 0: the step that leaves the noisiest point
    assert at["linear"][1] == at["cosine"][1] == pytest.approx(1.0)  # s = 1: the last step
    assert at["linear"][3] == at["cosine"][3] == pytest.approx(3.0)
    assert at["linear"][4] == pytest.approx(4.0)
    assert at["cosine"][4] == pytest.approx(1 + 4 * (1 + 0.5**0.5) / 2)
    assert guidance_scales(5.0, lambda s: 2 + s, grid)[1:] == pytest.approx((3.0, 2.75, 2.5, 2.25, 2.0))
    with pytest.raises(UnknownName, match="guidance schedule 'cosin'"):
        guidance_scales(5.0, "cosin", grid)
    with pytest.raises(BadOption, match="finite"):
        guidance_scales(5.0, lambda s: -1.0, grid)
