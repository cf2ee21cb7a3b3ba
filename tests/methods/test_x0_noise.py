"""What is known of a picture: the level at which its walk begins, and the latents behind a picture in 8 bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

import unsample
from tests.problems import seeded
from unsample.errors import BadOption, Incompatible
from unsample.methods import METHODS, anderson, forward_first
from unsample.methods.settings import parse_setting
from unsample.numbers.grid import grid_from_scheduler
from unsample.numbers.solvers.decoding import ROUNDED, latents_of
from unsample.numbers.solvers.noisy import passed, ratio, with_noise

SPREAD = 0.004  # of the pictures, less than the first level's noise: most of their noise is lost in an error like it


def narrow(scheduler: DDIMScheduler) -> Any:
    """The exact network of pictures N(0, SPREAD^2)."""
    kept = scheduler.alphas_cumprod.double()

    def network(x: Tensor, t: Tensor) -> Tensor:
        a = kept[int(t)]
        return (1 - a).sqrt() * x / (a * SPREAD**2 + 1 - a)

    return unsample.wrap(network, scheduler, sample_shape=(3, 16, 16))


def test_the_noise_of_a_picture_with_an_error_is_white_and_nearer_to_the_true_one() -> None:
    model = narrow(DDIMScheduler(clip_sample=False))
    made = unsample.sample(
        model, noise=torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=seeded(1)), progress=False
    )
    error = SPREAD * torch.randn(made.latents.shape, dtype=torch.float64, generator=seeded(2))

    def found(**known: Any) -> tuple[float, float, unsample.Inversion]:
        inversion = unsample.invert(model, latents=made.latents + error, method=anderson(**known), progress=False)
        return float((inversion.noise - made.noise).square().mean()), float(inversion.noise.std()), inversion

    exact, _, _ = found()
    near, std, inversion = found(x0_noise=SPREAD)
    assert near < 0.5 * exact
    assert 0.75 < std < 1.1
    assert (inversion.meta["x0_noise"], inversion.meta["levels_passed"]) == (SPREAD, 0)
    assert found(x0_noise=1e-12)[0] == pytest.approx(exact, rel=1e-3)


def test_a_noisier_picture_passes_over_the_levels_below_it() -> None:
    model = narrow(DDIMScheduler(clip_sample=False))
    grid = model.grid(50)
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64, generator=seeded(1))
    noise = 1.01 * ratio(grid, 3)
    made = unsample.invert(model, latents=x, method=anderson(x0_noise=noise), keep_trajectory=True, progress=False)
    assert made.meta["levels_passed"] == 3
    for j in (1, 2, 3):
        assert torch.allclose(made.trajectory[j], grid.alpha[j] / grid.alpha[0] * x)
    drawn = unsample.invert(
        model, latents=x, method=forward_first(x0_noise=noise), keep_trajectory=True, generator=3, progress=False
    )
    assert drawn.meta["forward_steps"] == 4
    added = drawn.trajectory[4] - grid.alpha[4] * x
    assert float(added.square().mean()) == pytest.approx(grid.sigma[4] ** 2 - (grid.alpha[4] * noise) ** 2, rel=0.2)


@pytest.mark.parametrize("method", [anderson, forward_first])
def test_a_noise_that_leaves_nothing_to_invert_is_refused(method: Any) -> None:
    model = narrow(DDIMScheduler(clip_sample=False))
    noise = 1.01 * ratio(model.grid(10), 10)
    with pytest.raises(Incompatible, match=f"x0_noise={noise:.3g} is no less than .* nothing of the picture is left"):
        unsample.invert(
            model,
            latents=torch.zeros(1, 3, 16, 16),
            method=method(x0_noise=noise),
            num_inference_steps=10,
            progress=False,
        )


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), FlowMatchEulerDiscreteScheduler()])
def test_the_level_of_a_noise_is_of_the_grids_own_kind(scheduler: Any) -> None:
    grid = grid_from_scheduler(scheduler, 10)
    own = with_noise(grid, 2, 0.3)
    assert ratio(own, 2) == pytest.approx((ratio(grid, 0) ** 2 + 0.3**2) ** 0.5, abs=1e-4)
    total = own.alpha[2] + own.sigma[2] if grid.is_flow else own.alpha[2] ** 2 + own.sigma[2] ** 2
    assert total == pytest.approx(1)
    with pytest.raises(Incompatible, match="nothing of the picture is left"):
        passed(grid, 3, 1.1 * ratio(grid, 3))


def decoder(z: Tensor) -> Tensor:
    """(B, 1, 4, 4) to (B, 3, 8, 8), smooth and not linear; some pixels lie outside of [0, 1]."""
    weights = torch.randn(192, 16, dtype=torch.float64, generator=seeded(5))
    return (0.5 + 0.15 * (z.flatten(1) + 0.1 * z.flatten(1) ** 2) @ weights.T).reshape(-1, 3, 8, 8)


def test_the_latents_behind_a_rounded_picture_are_found_within_the_rounding_alone_as_in_a_batch() -> None:
    true = 0.5 * torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=seeded(6))
    pictures = (decoder(true).clamp(0, 1) * 255).round() / 255
    start = true + 0.3 * torch.randn(true.shape, dtype=torch.float64, generator=seeded(7))
    found = latents_of(decoder, start, pictures)
    off = (decoder(found).clamp(0, 1) - pictures).square().flatten(1).mean(1).sqrt()
    assert (off <= 1.01 * ROUNDED).all()
    assert float((found - true).square().mean().sqrt()) < 0.01 * float((start - true).square().mean().sqrt())
    assert torch.allclose(latents_of(decoder, start[1:2], pictures[1:2]), found[1:2], atol=1e-9)
    with torch.no_grad(), pytest.raises(Incompatible, match="carries none"):
        latents_of(lambda z: decoder(z.detach()), start, pictures)


def test_eight_bits_of_latents_are_refused_where_a_decoder_makes_the_picture() -> None:
    model = unsample.load("scenes-sd")
    latents = torch.zeros(1, *model.sample_shape)
    with pytest.raises(Incompatible, match="latents were given"):
        unsample.invert(model, latents=latents, method=anderson(x0_noise="8bit"), num_inference_steps=2, progress=False)


@pytest.mark.parametrize("name", ["anderson", "forward_first"])
def test_it_is_a_number_or_8bit(name: str) -> None:
    factory = METHODS[name].factory
    assert [parse_setting(factory, "x0_noise", text) for text in ("8bit", "0.01", "none")] == ["8bit", 0.01, None]
    for wrong in ("9bit", "0x"):
        with pytest.raises(BadOption, match="a finite number above 0, or 8bit"):
            parse_setting(factory, "x0_noise", wrong)
    for value in (0, -1.0, True, float("inf"), "9bit"):
        with pytest.raises(BadOption, match="a finite number above 0, or 8bit"):
            factory(x0_noise=value)
    with pytest.raises(BadOption, match="give one of them"):
        forward_first(fraction=0.1, x0_noise=0.01)
