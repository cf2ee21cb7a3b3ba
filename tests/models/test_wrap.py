"""What `wrap` says of a network: its time, its classes, what it predicts, what it works on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

import unsample
from tests.problems import mixture, normal
from unsample.errors import BadOption, Incompatible
from unsample.models.base import Condition

SHAPE = (3, 8, 8)
STEPS: dict[str, Any] = {"num_inference_steps": 5}
pytestmark = pytest.mark.filterwarnings("ignore:the noisiest of . grid points")


def ddim(**more: Any) -> Any:
    return DDIMScheduler(clip_sample=False, **more)


def flow(**more: Any) -> Any:
    return FlowMatchEulerDiscreteScheduler(**more)


def wrapped(network: Any, scheduler: Any = None, **more: Any) -> Any:
    return unsample.wrap(network, scheduler or ddim(), sample_shape=more.pop("sample_shape", SHAPE), **more)


# ---------------------------------------------------------------- time


@pytest.mark.parametrize(
    ("make", "given", "timestep", "time"),
    [
        (ddim, {}, 801, torch.tensor(801)),
        (ddim, {}, 80.5, torch.tensor(80.5)),
        (ddim, {"timestep_scale": 1}, 801, torch.tensor(801.0)),
        (ddim, {"timestep_scale": 1000 / 4000}, 801, torch.tensor(200.25)),
        (ddim, {"timestep_scale": 0.25, "batched_timestep": True}, 801, torch.tensor([200.25, 200.25])),
        (flow, {}, 800, torch.tensor(800.0)),
        (flow, {"timestep_scale": 1 / 1000}, 800, torch.tensor(0.8)),
        (flow, {"reversed_time": True}, 800, torch.tensor(200.0)),
        (flow, {"reversed_time": True, "timestep_scale": 1 / 1000}, 0, torch.tensor(1.0)),
    ],
)
def test_the_network_is_told_the_time_as_it_wants_it(make: Any, given: Any, timestep: float, time: Tensor) -> None:
    asked: list[Tensor] = []
    model = wrapped(lambda x, t: (asked.append(t), 0 * x)[1], make(), **given)
    model.network(normal(2, *SHAPE, dtype=torch.float32), timestep, Condition())
    assert asked[0].dtype is time.dtype
    assert torch.equal(asked[0], time)


def test_a_flow_whose_time_runs_to_the_picture_is_the_same_flow() -> None:
    """The mixture's exact velocity, asked as the first rectified flow asks: t in [0, 1], 1 at the picture."""
    oracle = mixture(scheduler=flow(shift=2.0), prompts=False)

    def network(x: Tensor, t: Tensor) -> Tensor:
        assert t.dtype is torch.float64  # as the state: what time loses in float32 is not to be seen here
        return -oracle.network(x, 1000 * (1 - float(t)), Condition())

    model = wrapped(network, oracle.scheduler, reversed_time=True, timestep_scale=1 / 1000)
    noise = normal(2, *SHAPE)
    made, expected = (unsample.sample(m, noise=noise, **STEPS).latents for m in (model, oracle))
    torch.testing.assert_close(made, expected, atol=1e-9, rtol=0)  # 1000 (1 - t) is rounded
    found, known = (unsample.invert(m, latents=expected, **STEPS).noise for m in (model, oracle))
    torch.testing.assert_close(found, known, atol=1e-9, rtol=0)


# ---------------------------------------------------------------- what it predicts


def test_what_the_network_predicts_can_be_said_in_place_of_the_scheduler() -> None:
    scheduler, noise = ddim(), normal(1, *SHAPE, dtype=torch.float32)
    models = [
        wrapped(lambda x, t: torch.tanh(x), scheduler, prediction_type="v_prediction"),
        wrapped(lambda x, t: torch.tanh(x), ddim(prediction_type="v_prediction")),
        wrapped(lambda x, t: torch.tanh(x), scheduler),
    ]
    said, configured, epsilon = (unsample.sample(m, noise=noise, **STEPS).latents for m in models)
    assert torch.equal(said, configured)
    assert not torch.equal(said, epsilon)
    assert scheduler.config.prediction_type == "epsilon"


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ({"prediction_type": "flow"}, Incompatible, "'flow' does not go with DDIMScheduler"),
        ({"prediction_type": "sample", "scheduler": flow()}, Incompatible, "does not go with FlowMatchEuler"),
        ({"prediction_type": "noise"}, BadOption, "must be one of epsilon, v_prediction, sample, flow; got 'noise'"),
        ({"reversed_time": True}, Incompatible, "DDIMScheduler is no scheduler of flow matching"),
        ({"timestep_scale": 0}, BadOption, "timestep_scale must be a finite number above 0; got 0"),
        ({"timestep_scale": float("inf")}, BadOption, "timestep_scale must be"),
        ({"timestep_scale": True}, BadOption, "timestep_scale must be"),
        ({"num_classes": 0}, BadOption, "num_classes must be a whole number of at least 1; got 0"),
        ({"null_class": -1}, BadOption, "null_class must be a whole number of at least 0; got -1"),
        ({"sample_shape": (2, 2)}, BadOption, r"sample_shape must be \(C, H, W\), or \(D,\) of vectors"),
        ({"scheduler": object()}, Incompatible, "wrap needs a diffusers scheduler, .* got object"),
    ],
)
def test_what_contradicts_itself_is_refused_at_once(given: Any, kind: Any, says: str) -> None:
    with pytest.raises(kind, match=says):
        wrapped(lambda x, t: x, given.pop("scheduler", None), **given)


def test_only_a_learned_variance_may_stand_beside_the_noise() -> None:
    x = normal(1, *SHAPE, dtype=torch.float32)
    for channels, sound in ((3, True), (6, True), (4, False), (5, False), (7, False), (9, False)):
        model = wrapped(lambda x, t, n=channels: torch.cat([x, x, x], 1)[:, :n])
        if sound:
            assert torch.equal(model.network(x, 5, Condition()), x)
        else:
            with pytest.raises(Incompatible, match=rf"answered \(1, {channels}, 8, 8\) .* or twice the channels"):
                model.network(x, 5, Condition())


# ---------------------------------------------------------------- classes


def classes(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    """Every class pulls to its own level; ADM and DiT call them y."""
    return torch.tanh(0.5 * x - 0.2 * y.to(x)[:, None, None, None])  # type: ignore[union-attr]


def test_classes_go_in_under_the_networks_own_name_and_guidance_leads_away_from_its_null_class() -> None:
    noise = normal(2, *SHAPE, dtype=torch.float32)
    model = wrapped(classes, num_classes=9, null_class=9)
    given: dict[str, Any] = {"noise": noise, "class_labels": [1, 2], **STEPS}
    made = unsample.sample(model, guidance_scale=3, **given)
    assert made.nfe == [10, 10]
    plain = wrapped(classes)
    assert torch.equal(made.latents, unsample.sample(plain, guidance_scale=3, negative_class_labels=9, **given).latents)
    for label in (9, -1):
        with pytest.raises(BadOption, match="class_labels of .* are 0 to 8"):
            unsample.sample(model, class_labels=label, **STEPS)
    with pytest.raises(BadOption, match="draws classes; give class_labels, 0 to 8"):
        unsample.sample(model, **STEPS)
    inside = wrapped(classes, num_classes=9, null_class=0)
    with pytest.raises(BadOption, match="negative_class_labels of .* are 0 to 8"):
        unsample.sample(inside, class_labels=1, negative_class_labels=9, guidance_scale=3, **STEPS)


def test_a_time_called_y_is_no_class() -> None:
    with pytest.raises(Incompatible, match="takes no class_labels"):
        unsample.sample(wrapped(lambda x, y: 0 * x), class_labels=1, **STEPS)


def test_an_inversion_is_not_played_back_by_the_same_network_with_other_time_or_null_class() -> None:
    def network(x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return 0.3 * x

    x, given = normal(1, *SHAPE, dtype=torch.float32), [{}, {"null_class": 0}, {"timestep_scale": 0.25}]
    models = [wrapped(network, **more) for more in given]
    assert len({model.weights_sha256() for model in models}) == 3
    assert wrapped(network, **given[1]).weights_sha256() == models[1].weights_sha256()
    inversion = unsample.invert(models[2], latents=x, **STEPS)
    unsample.reconstruct(wrapped(network, timestep_scale=0.25), inversion)
    with pytest.raises(unsample.BadInput, match="was made by"):
        unsample.reconstruct(models[0], inversion)


# ---------------------------------------------------------------- vectors


def pulling(x: Tensor, t: Tensor) -> Tensor:
    """A velocity of vectors that is not linear."""
    assert x.shape[1:] == (2,)
    return torch.tanh(x.flip(1)) * t


@pytest.mark.parametrize("method", ["ddim", "fixed_point", "aidi_e", "forward_first"])
def test_vectors_go_through_the_verbs(method: str, tmp_path: Path) -> None:
    model = wrapped(pulling, flow(), sample_shape=(2,), timestep_scale=1 / 1000)
    made = unsample.sample(model, num_inference_steps=20, generator=[1, 2, 3])
    assert made.latents.shape == (3, 2, 1, 1)
    assert made.images.shape == (3, 3, 0, 0)
    inversion = unsample.invert(model, latents=made.latents, method=method, num_inference_steps=20)
    assert inversion.health[0]["lag1_correlation"] is None
    inversion.save(tmp_path / "a.safetensors")
    again = unsample.reconstruct(model, unsample.Inversion.load(tmp_path / "a.safetensors"))
    error = float((again.latents - made.latents).abs().max())
    assert error < (1e-4 if method == "fixed_point" else 0.1)  # the others leave an error of order 1/steps
    assert "3 pictures" in repr(made)


def test_what_makes_no_pictures_says_so(tmp_path: Path) -> None:
    for shape in ((2,), (5, 8, 8)):
        model = wrapped(lambda x, t: 0.3 * x, sample_shape=shape)
        made = unsample.sample(model, generator=0, **STEPS)
        for call in (made.pil, lambda made=made: made.save(tmp_path)):
            with pytest.raises(Incompatible, match=r"makes no pictures; take \.latents"):
                call()
        made._repr_html_()
        with pytest.raises(Incompatible, match="no pictures; give latents="):
            unsample.invert(model, torch.rand(1, 3, 8, 8), **STEPS)
    with pytest.raises(Incompatible, match=r"was given .*a sample \(1, 128\)"):
        unsample.invert(
            wrapped(lambda x, t: x @ torch.ones(2, 2), sample_shape=(2,)), latents=normal(1, 2, 8, 8), **STEPS
        )
