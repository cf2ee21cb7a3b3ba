"""pix2pix-zero against its loop written out with automatic differentiation, and around other methods."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.problems import gaussian_grid, mixture, mixture_picture, normal, predictor, rms
from unsample.errors import BadOption, Incompatible
from unsample.methods import Walked, ddim, easyinv, fixed_point, get_method, pix2pix_zero, renoise
from unsample.numbers.grid import transfer

QUIET = pytest.mark.filterwarnings("ignore:invert. .* did not converge")


def pictures(model: Any, count: int = 2) -> Tensor:
    return torch.cat([mixture_picture(model, k, k + 5) for k in range(count)]).double() * 2 - 1


def by_autograd(eps: Tensor, rolls: Tensor, lambda_ac: float, lambda_kl: float) -> Tensor:
    """The authors' loop for one picture, rolls (rounds, rolls a round, C, levels), without our guard."""

    def stepped(eps: Tensor, loss: Any, rate: float) -> Tensor:
        leaf = eps.clone().requires_grad_(True)
        with torch.enable_grad():
            loss(leaf).backward()
        assert leaf.grad is not None
        return eps - rate * leaf.grad

    def correlation(x: Tensor, roll: Tensor) -> Tensor:
        total = torch.zeros((), dtype=x.dtype)
        for c in range(len(x)):
            level = x[c][None, None]
            for r in roll[c].tolist():
                total = total + (level * level.roll(r, 2)).mean() ** 2 + (level * level.roll(r, 3)).mean() ** 2
                level = F.avg_pool2d(level, 2)
        return total

    for outer in rolls:
        for roll in outer:
            eps = stepped(eps, lambda x, roll=roll: correlation(x, roll), lambda_ac / len(outer))
        eps = stepped(eps, lambda x: x.var() + x.mean() ** 2 - 1 - torch.log(x.var() + 1e-7), lambda_kl)
    return eps


@pytest.mark.parametrize("lowest_roll", [0, 1])
def test_a_step_is_the_authors_loop_at_the_source_level(lowest_roll: int) -> None:
    """At 16 x 16, two levels of the pyramid, rates at which every step descends."""
    model = mixture((2, 16, 16), prompts=False)
    grid, x = gaussian_grid(model, 10), pictures(model)
    method = pix2pix_zero(lambda_ac=5.0, lambda_kl=2.0, num_reg_steps=2, num_ac_rolls=3, lowest_roll=lowest_roll)
    rolls = torch.randint(lowest_roll, 4, (2, 10, 2, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    predict = predictor(model, grid, 2)
    found, _ = method.invert_step(predict, x, grid, 6, 7, {"ac_rolls": rolls})
    asked = predict(x, 6).eps
    eps = torch.stack([by_autograd(asked[b], rolls[b, 6], 5.0, 2.0) for b in range(2)])
    assert rms(eps - asked) > 1e-3
    assert rms(found - transfer(x, eps, grid, 6, 7)) < 1e-12


def test_the_prediction_stays_consistent() -> None:
    model = mixture(prompts=False)
    grid, x = gaussian_grid(model, 10), pictures(model)
    seen: list[Any] = []

    def spy(predict: Any, x: Tensor, grid: Any, i: int, j: int, state: Any) -> Any:
        seen.append(predict(x, j))
        return x, state

    from dataclasses import replace

    method = pix2pix_zero(base=replace(ddim(), invert_step=spy))
    rolls = torch.ones(2, 10, 5, 5, 3, 1, dtype=torch.int64)
    method.invert_step(predictor(model, grid, 2), x, grid, 6, 7, {"ac_rolls": rolls})
    assert rms(grid.alpha[7] * seen[0].x0 + grid.sigma[7] * seen[0].eps - x) < 1e-14


@QUIET
def test_all_steps_run_and_no_pass_goes_backward() -> None:
    model = mixture()
    for method, each in ((pix2pix_zero(), 1), (pix2pix_zero(base=fixed_point(5)), 5)):
        inversion = unsample.invert(model, latents=pictures(model), method=method, num_inference_steps=10)
        assert inversion.nfe == [method.passes(Walked(10))] * 2 == [10 * each] * 2
        assert inversion.backward == [0, 0]


def test_without_weights_it_is_its_base() -> None:
    model = mixture()
    x = pictures(model)
    for base in (ddim(), ddim(eps_at="source")):
        off = pix2pix_zero(base=base, lambda_ac=0.0, lambda_kl=0.0)
        ours, plain = (unsample.invert(model, latents=x, method=m, num_inference_steps=10) for m in (off, base))
        assert torch.equal(ours.noise, plain.noise)


def test_the_bare_name_of_ddim_is_the_authors_pairing_and_the_record_says_so() -> None:
    model = mixture()
    x = pictures(model)
    noises = {}
    for label, base in (("bare", "ddim"), ("source", ddim(eps_at="source")), ("target", ddim())):
        made = unsample.invert(model, latents=x, method=pix2pix_zero(base=base), num_inference_steps=10)
        noises[label] = made.noise
        where = "target" if label == "target" else "source"
        assert made.meta["regularised"] == {"name": "ddim", "settings": {"eps_at": where}}
    assert torch.equal(noises["bare"], noises["source"])
    assert rms(noises["bare"] - noises["target"]) > 1e-3


@QUIET
@pytest.mark.parametrize("base", ["ddim", fixed_point(6, 1e-3), easyinv(start=0.1, stop=0.9), renoise(num_reg_steps=0)])
def test_a_batch_gives_what_single_pictures_give(base: Any) -> None:
    model = mixture()
    x = pictures(model, 3)
    method = pix2pix_zero(base=base, num_reg_steps=2)
    together = unsample.invert(model, latents=x, method=method, num_inference_steps=10)
    for k in range(3):
        alone = unsample.invert(model, latents=x[k : k + 1], method=method, num_inference_steps=10)
        assert rms(alone.noise[0] - together.noise[k]) < 1e-9
        assert alone.nfe == together.nfe[k : k + 1]


def test_the_rolls_follow_the_seed() -> None:
    model = mixture()
    made = [
        unsample.invert(model, latents=pictures(model), method="pix2pix_zero", generator=g, num_inference_steps=5).noise
        for g in (1, 1, 2)
    ]
    assert torch.equal(made[0], made[1])
    assert rms(made[0] - made[2]) > 1e-6


def test_an_implicit_base_solves_one_regularised_equation() -> None:
    """A step's predictions share their rolls: the iteration converges, which with fresh rolls it could not."""
    model = mixture(prompts=False)
    grid, x = gaussian_grid(model, 50), pictures(model)
    rolls = torch.ones(2, 50, 2, 2, 3, 1, dtype=torch.int64)
    method = pix2pix_zero(base=fixed_point(100, 1e-10), lambda_ac=1.0, lambda_kl=1.0, num_reg_steps=2, num_ac_rolls=2)
    _, state = method.invert_step(predictor(model, grid, 2), x, grid, 30, 31, {"ac_rolls": rolls})
    assert state["converged"].all()


def test_at_alpha_zero_there_is_nothing_to_regularise() -> None:
    tables = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    model = mixture(scheduler=DDIMScheduler(clip_sample=False, **tables))
    made = unsample.invert(model, latents=pictures(model), method=pix2pix_zero(base=ddim()), num_inference_steps=5)
    assert made.noise.isfinite().all()


def test_combinations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(Incompatible, match="regularised already"):
        pix2pix_zero(base=easyinv(base="pix2pix_zero"))
    with pytest.raises(Incompatible, match="differentiates"):
        pix2pix_zero(base="gradient")
    with pytest.raises(Incompatible, match="keeps more than the noise"):
        pix2pix_zero(base=renoise(eta=1.0))
    with pytest.raises(Incompatible, match="at least 4 x 4"):
        unsample.invert(mixture((3, 2, 2)), latents=normal(1, 3, 2, 2), method="pix2pix_zero", num_inference_steps=5)


@pytest.mark.parametrize(
    "settings",
    [{"lambda_ac": -1.0}, {"lambda_kl": float("nan")}, {"num_reg_steps": 0}, {"num_ac_rolls": 0}, {"lowest_roll": 2}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=f"pix2pix_zero: {next(iter(settings))}"):
        get_method("pix2pix_zero", settings)
