"""Direct optimisation: it solves each step's own equation by gradients through the network, picture by picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.problems import (
    broken_from,
    ddpm,
    gaussian,
    gaussian_ddim_step,
    gaussian_grid,
    mixture,
    mixture_picture,
    normal,
    predictor,
    rms,
    smooth_network,
)
from unsample.errors import BadOption, Incompatible
from unsample.methods import Walked, fixed_point, gradient, hybrid
from unsample.numbers.grid import Grid
from unsample.numbers.solvers.fixed_point import fixed_point_invert
from unsample.numbers.solvers.gradient import OPTIMIZERS, gradient_invert

pytestmark = pytest.mark.filterwarnings("ignore:invert. .* did not converge")

# alpha = 1 on both sides, so f(y) = y - eps(y) and the test chooses the map itself
LINE = Grid((1.0, 1.0), (0.0, 1.0), (0, 10), (1.0, 1.0), (0.1, 1.0))
STEPS = [(0, 1), (5, 6), (9, 10)]


def solution(model: Any, x: Tensor, grid: Grid, i: int, j: int) -> tuple[Tensor, float]:
    """What the sampling step from j carries to x, and the slope of that step: it is affine."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    offset = gaussian_ddim_step(model, zero, grid, j, i)
    slope = float((gaussian_ddim_step(model, one, grid, j, i) - offset).mean())
    return (x - offset) / slope, slope


def pictures(model: Any, count: int = 2) -> Tensor:
    return torch.cat([mixture_picture(model, k, k + 5) for k in range(count)]).double() * 2 - 1


def wrapped(network: Any) -> Any:
    return unsample.wrap(network, DDIMScheduler(clip_sample=False), sample_shape=(3, 4, 4))


# ---------------------------------------------------------------- against closed forms


@pytest.mark.parametrize("ends", STEPS)
def test_plain_gradient_descent_is_the_geometric_series_of_the_closed_form(ends: tuple[int, int]) -> None:
    """On an affine step the error shrinks by exactly 1 - 2 lr slope^2 an update."""
    model = gaussian(shape=(1, 2, 2))
    grid, x = gaussian_grid(model, 10), normal(3, 1, 2, 2)
    exact, slope = solution(model, x, grid, *ends)
    y, state = gradient_invert(7, 0.1, "sgd", None)(predictor(model, grid, 3), x, grid, *ends, {})
    assert rms(y - (exact + (1 - 0.2 * slope**2) ** 7 * (x - exact))) < 1e-12
    last = (1 - 0.2 * slope**2) ** 6 * (x - exact)  # the residual is that of the last evaluation, before the update
    size = (exact + last).flatten(1).square().mean(1).sqrt()
    assert torch.allclose(state["residual"], abs(slope) * last.flatten(1).square().mean(1).sqrt() / size)


@pytest.mark.parametrize(("optimizer", "updates", "lr"), [("adam", 800, 1e-2), ("sgd", 400, 0.2), ("lbfgs", 25, 1.0)])
def test_every_optimiser_reaches_the_solution_of_the_step(optimizer: str, updates: int, lr: float) -> None:
    model = gaussian(shape=(1, 2, 2))
    grid, x = gaussian_grid(model, 10), normal(2, 1, 2, 2)
    y, state = gradient_invert(updates, lr, optimizer, None)(predictor(model, grid, 2), x, grid, 5, 6, {})
    assert rms(y - solution(model, x, grid, 5, 6)[0]) < 1e-5  # Adam at a fixed rate ends on a small cycle
    assert state["converged"].all()


@pytest.mark.parametrize("name", ["adam", "lbfgs"])
def test_the_optimisers_are_those_of_torch(name: str) -> None:
    """Two independent writings of the same rule, on a function that is not quadratic, each row its own optimiser."""
    x = normal(2, 12)
    lr = 0.05 if name == "adam" else 0.7
    ours, memory = x.clone(), []
    for k in range(12):  # torch drops pairs with y.s < 1e-10, absolute; not met so early
        change, memory = OPTIMIZERS[name](_slope(ours), memory, k, lr)
        ours = ours + change
    for row in range(2):
        y = x[row].clone().requires_grad_(True)
        if name == "adam":
            optimizer: Any = torch.optim.Adam([y], lr=lr)
        else:  # max_iter=1 is one evaluation a step; its memory goes on
            optimizer = torch.optim.LBFGS([y], lr=lr, max_iter=1, history_size=10, tolerance_grad=0, tolerance_change=0)
        for _ in range(12):
            y.grad = _slope(y.detach()[None])[0]
            optimizer.step(lambda: torch.zeros(()))
        assert rms(ours[row] - y.detach()) < 1e-10


def _slope(x: Tensor) -> Tensor:
    """Of sum x^4 / 4 + a x^2 / 2."""
    return x**3 + torch.linspace(0.1, 3, x.shape[1]).double() * x


def test_it_finds_what_the_fixed_point_finds_where_that_converges() -> None:
    model = mixture(prompts=False)
    grid, x = gaussian_grid(model, 50), pictures(model)
    for ends in [(0, 1), (25, 26), (49, 50)]:
        ours, _ = gradient_invert(40, 1.0, "lbfgs", None)(predictor(model, grid, 2), x, grid, *ends, {})
        theirs, _ = fixed_point_invert(200, 1e-13)(predictor(model, grid, 2), x, grid, *ends, {})
        assert rms(ours - theirs) < 1e-7  # L-BFGS without a line search stalls near sqrt of its curvature threshold


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_update_is_one_pass_each_way(optimizer: Any) -> None:
    model = wrapped(smooth_network)
    made = gradient(5, optimizer=optimizer, first_steps=2, rest=fixed_point(3))
    inversion = unsample.invert(model, latents=normal(2, 3, 4, 4), method=made, num_inference_steps=4)
    assert inversion.nfe == [2 * 5 + 2 * 3] * 2 == [made.passes(Walked(4))] * 2
    assert inversion.backward == [2 * 5] * 2 == [made.backward(Walked(4))] * 2


def test_the_hybrid_costs_what_the_paper_says() -> None:
    assert (hybrid().passes(Walked(50)), hybrid().backward(Walked(50))) == (1490, 1000)
    made = hybrid(num_updates=6, num_iters=2)
    inversion = unsample.invert(wrapped(smooth_network), latents=normal(2, 3, 4, 4), method=made, num_inference_steps=5)
    assert (inversion.nfe, inversion.backward) == ([6 + 2 * 4] * 2, [6] * 2)


def test_the_hybrid_is_gradient_descent_on_the_first_step_and_the_fixed_point_after() -> None:
    model = wrapped(smooth_network)
    x = normal(1, 3, 4, 4)
    grid_points = {"latents": x, "num_inference_steps": 4, "keep_trajectory": True}
    ours = unsample.invert(model, method=hybrid(20, 4), **grid_points).trajectory
    descent = unsample.invert(model, method=gradient(20), **grid_points).trajectory
    assert ours is not None
    assert descent is not None
    assert torch.equal(ours[1], descent[1])
    inversion = unsample.invert(model, method=hybrid(20, 4), **grid_points)
    grid = Grid(**{k: tuple(v) if isinstance(v, list) else v for k, v in inversion.meta["grid"].items()})
    second, _ = fixed_point_invert(4, None)(predictor(model, grid), ours[1], grid, 1, 2, {})
    assert torch.equal(ours[2], second)
    assert rms(ours[2] - descent[2]) > 1e-3


# ---------------------------------------------------------------- per picture


def test_a_picture_stops_at_its_tolerance_and_costs_nothing_more() -> None:
    model = mixture()
    made = gradient(20, optimizer="lbfgs", tol=1e-4)
    x = pictures(model, 3)
    together = unsample.invert(model, latents=x, method=made, num_inference_steps=50)
    assert together.status == ["ok"] * 3
    assert max(together.meta["residual"]) <= 1e-4
    assert max(together.nfe) < made.passes(Walked(50))
    assert len(set(together.nfe)) > 1
    for k in range(3):
        alone = unsample.invert(model, latents=x[k : k + 1], method=made, num_inference_steps=50)
        assert rms(alone.noise[0] - together.noise[k]) < 1e-9
        assert (alone.nfe, alone.backward) == (together.nfe[k : k + 1], together.backward[k : k + 1])


def test_a_picture_whose_residual_grows_is_returned_at_its_best_iterate() -> None:
    """lr 2 overshoots: the start is the best iterate there is."""
    model = gaussian(shape=(1, 2, 2))
    grid, x = gaussian_grid(model, 10), normal(2, 1, 2, 2)
    y, state = gradient_invert(6, 2.0, "sgd", None)(predictor(model, grid, 2), x, grid, 5, 6, {})
    assert torch.equal(y, x)
    assert not state["converged"].any()


def test_a_picture_that_is_not_finite_leaves_the_others_alone() -> None:
    network = broken_from(500, lambda x: x.flatten(1).mean(1) > 0.5)
    x = torch.cat([normal(1, 3, 4, 4) * 0.1, 3 + normal(1, 3, 4, 4)])
    with pytest.warns(UserWarning, match="picture 1 diverged"):
        together = unsample.invert(wrapped(network), latents=x, method=gradient(5, 0.05), num_inference_steps=4)
    assert together.status[1] == "diverged"
    assert together.noise[0].isfinite().all()
    assert not together.noise[1].isfinite().any()
    alone = unsample.invert(wrapped(network), latents=x[:1], method=gradient(5, 0.05), num_inference_steps=4)
    assert rms(alone.noise[0] - together.noise[0]) < 1e-12


def test_a_picture_of_zeros_that_is_its_own_solution_converges() -> None:
    model = wrapped(lambda x, t: 0.5 * x)
    inversion = unsample.invert(model, latents=torch.zeros(1, 3, 4, 4), method=gradient(3), num_inference_steps=4)
    assert inversion.status == ["ok"]
    assert inversion.noise.abs().max() == 0


# ---------------------------------------------------------------- the network


def test_a_network_without_gradients_is_refused() -> None:
    for made in (gradient(2), hybrid(2, 2), unsample.methods.gnri()):
        with pytest.raises(Incompatible, match="output carries no gradient"):
            unsample.invert(
                wrapped(lambda x, t: smooth_network(x.detach(), t)),
                latents=normal(1, 3, 4, 4),
                method=made,
                num_inference_steps=3,
            )


def test_gradient_checkpointing_changes_nothing_but_memory_and_leaves_the_network_as_it_was() -> None:
    pipeline = ddpm()
    model = unsample.wrap(pipeline.unet, pipeline.scheduler)
    x = normal(1, 3, 16, 16, dtype=torch.float32)
    asked: list[bool] = []
    pipeline.unet.register_forward_pre_hook(lambda unet, given: asked.append(unet.is_gradient_checkpointing))
    plain, saving = (
        unsample.invert(model, latents=x, method=gradient(3, 0.01, gradient_checkpointing=on), num_inference_steps=2)
        for on in (False, True)
    )
    assert asked == [False] * 6 + [True] * 6
    assert rms(plain.noise - saving.noise) < 1e-6
    assert plain.backward == saving.backward == [6]
    assert not pipeline.unet.is_gradient_checkpointing
    assert all(p.grad is None for p in pipeline.unet.parameters())


def test_gradient_checkpointing_of_a_plain_function_is_refused() -> None:
    for made in (gradient(2, gradient_checkpointing=True), unsample.methods.gnri(gradient_checkpointing=True)):
        with pytest.raises(Incompatible, match="gradient_checkpointing"):
            unsample.invert(wrapped(smooth_network), latents=normal(1, 3, 4, 4), method=made, num_inference_steps=3)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "settings",
    [
        {"num_iters": 0},
        {"lr": 0},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"optimizer": "adamw"},
        {"first_steps": -1},
        {"first_steps": 1.5},
        {"tol": -1e-3},
        {"gradient_checkpointing": 1},
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=next(iter(settings))):
        gradient(**settings)


@pytest.mark.parametrize("settings", [{"num_updates": 0}, {"num_iters": 0}, {"lr": 0}, {"tol": "x"}, {"optimizer": ""}])
def test_settings_of_the_hybrid_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=next(iter(settings))):
        hybrid(**settings)


def test_the_rest_can_be_any_way_up_and_is_set_from_text() -> None:
    made = gradient(4, first_steps=1, rest={"name": "fixed_point", "settings": {"num_iters": 3}})
    assert made.settings["rest"] == {
        "name": "fixed_point",
        "settings": {"num_iters": 3, "tol": None, "start": "source"},
    }
    text = [("first_steps", "1"), ("rest", "fixed_point"), ("rest.num_iters", "3"), ("num_iters", "4")]
    parsed = unsample.methods.get_method("gradient", unsample.methods.parse_settings("gradient", text))
    assert parsed.settings == made.settings
    with pytest.raises(BadOption, match="ddim has no rest"):
        unsample.methods.parse_settings("ddim", [("rest.num_iters", "3")])
    with pytest.raises(Incompatible, match="edict"):
        gradient(rest="edict")


def test_no_step_is_optimised_when_none_is_asked_for() -> None:
    model, x = wrapped(smooth_network), normal(1, 3, 4, 4)
    none = unsample.invert(model, latents=x, method=gradient(5, first_steps=0), num_inference_steps=4)
    assert torch.equal(none.noise, unsample.invert(model, latents=x, num_inference_steps=4).noise)
    assert (none.nfe, none.backward) == ([4], [0])


@pytest.mark.parametrize("own", [1, 2, 5])
@pytest.mark.parametrize("rest", [gradient(2, first_steps=4), fixed_point(3)])
def test_what_the_rest_would_have_spent_on_the_optimised_steps_is_not_counted(own: int, rest: Any) -> None:
    model, method = mixture(), gradient(3, first_steps=own, rest=rest)
    x = mixture_picture(model).double() * 2 - 1
    made = unsample.invert(model, latents=x, method=method, num_inference_steps=6)
    assert (made.nfe, made.backward) == ([method.passes(Walked(6))], [method.backward(Walked(6))])


@pytest.mark.parametrize("rest", ["forward_first", "oracle"])
def test_a_rest_that_says_what_the_first_steps_are_is_refused(rest: str) -> None:
    with pytest.raises(Incompatible, match="the first steps"):
        gradient(first_steps=2, rest=rest)
