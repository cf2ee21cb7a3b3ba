"""A network's output as the pair (x0, eps), of every type, at every level, and through the adapter."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler

import unsample
from tests.problems import SD_TABLE, normal, predictor, rms
from unsample.errors import Incompatible
from unsample.models.base import Condition
from unsample.models.guidance import Predict
from unsample.numbers.grid import Grid, grid_from_scheduler
from unsample.numbers.prediction import prediction_from_output

SHAPE = (2, 3, 4, 4)
ROUNDING = 1e-12  # float64, magnified by 1 / alpha or 1 / sigma <= 160


def grid_of(prediction: str, **more: object) -> Grid:
    settings = {**SD_TABLE, "timestep_spacing": "trailing", "prediction_type": prediction, **more}
    return grid_from_scheduler(DDIMScheduler(**settings), 50)


@pytest.mark.parametrize("i", [1, 25, 50])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_type_recovers_the_x0_and_eps_that_made_x(prediction: str, i: int) -> None:
    grid = grid_of(prediction)
    x0, eps = normal(*SHAPE), normal(*SHAPE, seed=1)
    a, s = grid.alpha[i], grid.sigma[i]
    output = {"epsilon": eps, "sample": x0, "v_prediction": a * eps - s * x0}[prediction]
    p = prediction_from_output(output, a * x0 + s * eps, grid, i)
    assert rms(p.x0 - x0) < ROUNDING
    assert rms(p.eps - eps) < ROUNDING


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_at_alpha_zero_eps_is_x_itself(prediction: str) -> None:
    grid = grid_of(prediction, rescale_betas_zero_snr=True)
    assert grid.alpha[50] == 0
    x, output = normal(*SHAPE), normal(*SHAPE, seed=1)
    p = prediction_from_output(output, x, grid, 50)
    assert torch.equal(p.eps, x)
    assert torch.equal(p.x0, -output if prediction == "v_prediction" else output)


def test_epsilon_at_alpha_zero_is_refused() -> None:
    grid = grid_of("epsilon", rescale_betas_zero_snr=True)
    with pytest.raises(Incompatible, match="says nothing at alpha = 0"):
        prediction_from_output(normal(*SHAPE), normal(*SHAPE), grid, 50)
    model = unsample.wrap(lambda x, t: x, DDIMScheduler(**SD_TABLE), sample_shape=SHAPE[1:])
    model.scheduler = DDIMScheduler(**SD_TABLE, timestep_spacing="trailing", rescale_betas_zero_snr=True)
    for verb in (lambda: unsample.sample(model), lambda: unsample.invert(model, latents=normal(*SHAPE))):
        with pytest.raises(Incompatible, match="use a v_prediction model"):
            verb()


def test_sample_at_sigma_zero_is_refused() -> None:
    grid = Grid((1.0, 0.5), (0.0, 0.8), (0, 9), (1.0, 0.5), (0.0, 0.8), "sample")
    with pytest.raises(Incompatible, match="sigma = 0"):
        prediction_from_output(normal(*SHAPE), normal(*SHAPE), grid, 0)


def test_an_unknown_type_is_refused() -> None:
    grid = Grid((1.0, 0.5), (0.0, 0.8), (0, 9), (1.0, 0.5), (0.0, 0.8), "flow")
    with pytest.raises(
        Incompatible, match="prediction_type 'flow' is not one of epsilon, v_prediction, sample, flow_prediction"
    ):
        prediction_from_output(normal(*SHAPE), normal(*SHAPE), grid, 1)


def test_the_clean_end_is_converted_at_the_level_of_timestep_zero() -> None:
    """There sigma is 0 in the grid and an eps could not be told from the output; the network answers for timestep 0."""
    grid = grid_from_scheduler(DDIMScheduler(prediction_type="v_prediction"), 50)
    assert grid.sigma[0] == 0
    abar = float(DDIMScheduler().alphas_cumprod[0].double())
    x, v = normal(*SHAPE), normal(*SHAPE, seed=1)
    p = prediction_from_output(v, x, grid, 0)
    assert rms(p.eps - (math.sqrt(abar) * v + math.sqrt(1 - abar) * x)) < ROUNDING


def test_x0_is_clamped_only_when_the_grid_clips() -> None:
    x, output = 3 * normal(*SHAPE), normal(*SHAPE, seed=1)
    off = grid_from_scheduler(DDIMScheduler(clip_sample_range=0.5), 50)
    on = grid_from_scheduler(DDIMScheduler(clip_sample_range=0.5), 50, clip="config")
    free, clipped = (prediction_from_output(output, x, g, 25) for g in (off, on))
    assert float(free.x0.abs().max()) > 0.5
    assert torch.equal(clipped.x0, free.x0.clamp(-0.5, 0.5))
    assert torch.equal(clipped.eps, free.eps)  # not derived again, as in diffusers


# ---------------------------------------------------------------- guidance and cost


class Recorder:
    """A network that keeps what it was asked: eps is the mean of the embedding, everywhere."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x: torch.Tensor, t: torch.Tensor, encoder_hidden_states: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        return 0 * x + encoder_hidden_states.mean((1, 2))[:, None, None, None]


def guided(w: float) -> tuple[Predict, Recorder]:
    network = Recorder()
    model = unsample.wrap(network, DDIMScheduler(**SD_TABLE), sample_shape=SHAPE[1:])
    bound, free = (Condition(torch.full((2, 5, 4), value)) for value in (3.0, 1.0))
    return Predict(model, grid_from_scheduler(model.scheduler, 50), bound, free, w, 2), network


@pytest.mark.parametrize(
    ("w", "passes", "eps"), [(0, 1, 1.0), (1, 1, 3.0), (0.5, 2, 2.0), (5, 2, 11.0), (7.5, 2, 16.0)]
)
def test_guidance_is_eps_u_plus_w_times_the_difference_and_its_passes_are_counted(
    w: float, passes: int, eps: float
) -> None:
    predict, network = guided(w)
    p = predict(normal(*SHAPE, dtype=torch.float32), 10)
    assert torch.allclose(p.eps, torch.full(SHAPE, eps), rtol=1e-6)  # one float32 multiplication and addition
    assert predict.cost.nfe == [passes, passes]
    assert network.batches == [2 * passes]  # a guided pair is one batched call


@pytest.mark.parametrize("w", [1, 3])
def test_some_rows_are_asked_about_and_only_they_are_counted(w: float) -> None:
    predict, network = guided(w)
    x = normal(*SHAPE, dtype=torch.float32)
    predict(x, 10)
    p = predict(x[1:], 10, torch.tensor([1]))
    cost = 1 if w == 1 else 2
    assert predict.cost.nfe == [cost, 2 * cost]
    assert p.eps.shape == (1, *SHAPE[1:])
    assert network.batches[-1] == cost


def test_guidance_without_an_unconditional_prediction_is_refused() -> None:
    model = unsample.wrap(lambda x, t: x, DDIMScheduler(**SD_TABLE), sample_shape=SHAPE[1:])
    grid = grid_from_scheduler(model.scheduler, 50)
    for w in (0, 2):
        with pytest.raises(Incompatible, match="give negative_prompt_embeds"):
            Predict(model, grid, Condition(), None, w, 1)


def test_backward_passes_are_counted_where_they_happen() -> None:
    predict, _ = guided(3)
    x = normal(*SHAPE, dtype=torch.float32).requires_grad_()
    first = predict(x, 10).x0.square().sum()
    assert predict.cost.backward == [0, 0]  # nothing has gone backwards yet
    first.backward(retain_graph=True)
    assert predict.cost.backward == [2, 2]  # a guided pair counts two
    torch.autograd.grad(first, x)
    assert predict.cost.backward == [4, 4]
    single, _ = guided(1)
    second = single(x[:1], 10, torch.tensor([0])).x0.square().sum()
    second.backward()
    assert (single.cost.nfe, single.cost.backward) == ([1, 0], [1, 0])


def test_no_gradient_no_backward_pass() -> None:
    predict, _ = guided(1)
    with torch.no_grad():
        predict(normal(*SHAPE, dtype=torch.float32), 10)
    assert predict.cost.backward == [0, 0]


# ---------------------------------------------------------------- numbers: the network's dtype and the state's


@pytest.mark.parametrize("state", [torch.float32, torch.float64])
@pytest.mark.parametrize("network", [torch.float32, torch.bfloat16, torch.float64])
def test_the_state_keeps_its_dtype_whatever_the_network_computes_in(state: torch.dtype, network: torch.dtype) -> None:
    layer = torch.nn.Conv2d(3, 3, 1, dtype=network)
    seen: list[torch.dtype] = []
    times: list[torch.Tensor] = []

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            seen.append(x.dtype)
            times.append(t)
            return self.layer(x)

    model = unsample.wrap(Network(), DDIMScheduler(**SD_TABLE), sample_shape=SHAPE[1:])
    grid = grid_from_scheduler(model.scheduler, 50)
    p = predictor(model, grid, 2)(normal(*SHAPE, dtype=state), 10)
    assert seen == [network]
    assert p.x0.dtype is p.eps.dtype is state
    assert times[0].dtype is torch.int64
    assert times[0].ndim == 0
    assert int(times[0]) == grid.timesteps[10]


def test_a_learned_variance_is_dropped_and_a_sample_attribute_or_tuple_unwrapped() -> None:
    x = normal(*SHAPE, dtype=torch.float32)

    class Output:
        sample = torch.cat([x, x * 7], 1)

    for answer in (Output(), (Output.sample,), Output.sample):
        model = unsample.wrap(lambda _x, _t, a=answer: a, DDIMScheduler(**SD_TABLE), sample_shape=SHAPE[1:])
        assert torch.equal(model.network(x, 5, Condition()), x)
