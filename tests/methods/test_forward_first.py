"""Forward diffusion first: the level it reaches, the seed it depends on, and what follows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.problems import SD_TABLE, gaussian_grid, mixture, mixture_picture, predictor, rms, seeded
from unsample.errors import BadOption, Incompatible
from unsample.methods import Walked, fixed_point, forward_first, get_method, gradient, hybrid, renoise
from unsample.numbers.draws import draw_noise
from unsample.numbers.solvers.ddim import ddim_invert_at_target
from unsample.numbers.walk import walk


def pictures(model: Any, count: int = 2) -> Tensor:
    return torch.cat([mixture_picture(model, k, k + 5) for k in range(count)]).double() * 2 - 1


def noise_of(seeds: tuple[int, ...], x: Tensor) -> Tensor:
    return draw_noise([seeded(s) for s in seeds], x.shape[1:]).to(x)


@pytest.mark.parametrize("table", [{}, {**SD_TABLE, "set_alpha_to_one": False, "steps_offset": 1}])
def test_the_walk_is_forward_diffusion_to_the_level_of_a_grid_point_and_the_base_from_there(table: Any) -> None:
    """At a clean end that is not alpha = 1 too: the picture is x_0, not a point of level 0."""
    model = mixture(prompts=False, scheduler=DDIMScheduler(**({"clip_sample": False} | table)))
    grid, x = gaussian_grid(model, 10), pictures(model)
    made = unsample.invert(
        model,
        latents=x,
        method=forward_first(fraction=0.3),
        num_inference_steps=10,
        keep_trajectory=True,
        generator=[seeded(3), seeded(4)],
    )
    n = noise_of((3, 4), x)
    for j in (1, 2, 3):
        assert rms(made.trajectory[j] - (grid.alpha[j] * x + grid.sigma[j] * n)) < 1e-14
    start = grid.alpha[3] * x + grid.sigma[3] * n
    rest, _ = walk(ddim_invert_at_target, predictor(model, grid, 2), start, grid, range(3, 11))
    assert rms(made.noise - rest) < 1e-10
    assert made.nfe == [7, 7]
    assert made.meta["forward_steps"] == 3
    assert made.meta["forward_timestep"] == grid.timesteps[3]


@pytest.mark.parametrize(
    ("steps", "fraction", "replaced"),
    [(50, 0.04, 2), (100, 0.03, 3), (50, 0.06, 3), (20, 0.09, 2), (10, 0.04, 1), (1, 0.04, 1)],
)
def test_the_fraction_is_rounded_and_at_least_one_step(steps: int, fraction: float, replaced: int) -> None:
    assert forward_first(fraction=fraction).passes(Walked(steps)) == steps - replaced
    assert forward_first(base=fixed_point(5), fraction=fraction).passes(Walked(steps, 2)) == 10 * (steps - replaced)


def test_all_of_it_is_forward_diffusion_alone() -> None:
    model = mixture()
    x = pictures(model)
    made = unsample.invert(
        model, latents=x, method=forward_first(fraction=1.0), num_inference_steps=5, generator=[seeded(3), seeded(4)]
    )
    grid = gaussian_grid(model, 5)
    assert rms(made.noise - (grid.alpha[5] * x + grid.sigma[5] * noise_of((3, 4), x))) < 1e-14
    assert made.nfe == [0, 0]


def test_what_the_base_spends_on_the_replaced_steps_is_not_counted() -> None:
    five = gradient(100, first_steps=5, rest=fixed_point(10))
    assert forward_first(base=five).passes(Walked(50)) == 3 * 100 + 450  # two of its first steps are gone
    assert forward_first(base=five).backward(Walked(50)) == 300
    timesteps = tuple(range(1, 1000, 100))
    late = renoise().passes(Walked(9, timesteps=timesteps[1:]))
    assert forward_first(base=renoise()).passes(Walked(10, timesteps=timesteps)) == late


def test_a_base_whose_first_steps_would_never_run_is_refused() -> None:
    for wrapper in (forward_first, unsample.methods.oracle):
        with pytest.raises(Incompatible, match="both say what the first steps are"):
            wrapper(base=hybrid())


@pytest.mark.filterwarnings("ignore:invert. .* did not converge")
@pytest.mark.parametrize("base", [gradient(4, first_steps=2, rest=fixed_point(2)), renoise(), fixed_point(3)])
def test_the_count_is_what_was_spent(base: Any) -> None:
    model = mixture()
    method = forward_first(base=base)
    made = unsample.invert(model, latents=pictures(model), method=method, num_inference_steps=7)
    walked = Walked(7, timesteps=tuple(made.meta["grid"]["timesteps"][1:]))
    assert made.nfe == [method.passes(walked)] * 2
    assert made.backward == [method.backward(walked)] * 2


def test_each_picture_has_its_own_noise_unless_one_is_shared() -> None:
    model = mixture()
    same = pictures(model, 1).repeat(2, 1, 1, 1)
    given = {"num_inference_steps": 5, "strength": 0.2, "generator": [seeded(1), seeded(2)]}
    own = unsample.invert(model, latents=same, method=forward_first(), **given)
    assert rms(own.noise[0] - own.noise[1]) > 1e-2
    shared = forward_first(shared_noise=999)
    given["generator"] = [seeded(1), seeded(2)]
    both = unsample.invert(model, latents=same, method=shared, **given)
    assert torch.equal(both.noise[0], both.noise[1])
    alone = unsample.invert(model, latents=same[:1], method=shared, num_inference_steps=5, strength=0.2)
    assert torch.equal(alone.noise[0], both.noise[0])  # whatever the picture's own seed


def test_the_first_noise_is_less_correlated_in_a_plain_picture_than_that_of_ddim() -> None:
    """What it is for: the latent of a plain picture after the first step is white, DDIM's is not."""
    model = unsample.load("scenes-ddpm")
    x = torch.full((4, 3, 32, 32), 0.9) * torch.tensor([1.0, 0.5, -0.5, -1.0])[:, None, None, None]
    lag = {}
    for method in ("ddim", forward_first(fraction=0.1)):
        n = unsample.invert(model, latents=x, method=method, num_inference_steps=10).noise.double()
        n = n - n.mean((-2, -1), keepdim=True)
        lag[getattr(method, "name", method)] = abs(float((n * n.roll(1, -1)).mean() / n.square().mean()))
    assert lag["forward_first"] < lag["ddim"]


def test_presets_are_the_authors_configurations() -> None:
    assert get_method("forward_first", {"preset": "readme"}).settings["shared_noise"] == 999
    assert get_method("forward_first", {"preset": "masactrl"}).passes(Walked(50)) == 48
    assert get_method("forward_first", {"preset": "style_aligned"}).passes(Walked(50)) == 47


@pytest.mark.parametrize("settings", [{"fraction": 1.1}, {"fraction": -0.1}, {"shared_noise": True}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match="forward_first"):
        forward_first(**settings)


def test_a_base_that_keeps_more_than_the_noise_is_refused() -> None:
    with pytest.raises(Incompatible, match="keeps more than the noise"):
        forward_first(base="edict")


def test_a_base_that_says_itself_what_the_first_steps_are_is_refused() -> None:
    for base in ("oracle", "forward_first", {"name": "easyinv", "settings": {"base": "oracle"}}):
        with pytest.raises(Incompatible, match="the first steps"):
            forward_first(base=base)
