"""Null-text inversion: against the published loop written out, and where the best embedding is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.problems import float64_tables, normal, rms, sd14, smooth_network
from unsample.errors import BadOption, Diverged, Incompatible
from unsample.methods import Walked, fixed_point, null_text
from unsample.numbers.grid import Grid, grid_from_scheduler

pytestmark = pytest.mark.filterwarnings("ignore:the noisiest of", "ignore:.*did not converge")

SHAPE = (3, 4, 4)


def smooth(network: Any = smooth_network, shape: tuple[int, int, int] = SHAPE) -> Any:
    return unsample.wrap(network, float64_tables(DDIMScheduler(clip_sample=False)), sample_shape=shape)


def texts(count: int, seed: int = 1) -> dict[str, Tensor]:
    """A prompt of its own for every picture, and one negative prompt."""
    return {"prompt_embeds": normal(count, 2, 3, seed=seed).float(), "negative_prompt_embeds": torch.zeros(1, 2, 3)}


def sample_step(x: Tensor, eps: Tensor, grid: Grid, i: int) -> Tensor:
    """DDIM, Eq. 12, written out."""
    x0 = (x - grid.sigma[i] * eps) / grid.alpha[i]
    return grid.alpha[i - 1] * x0 + grid.sigma[i - 1] * eps


def published(x0: Tensor, cond: Tensor, rate: float, epsilon: float | None) -> tuple[list[Tensor], int]:
    """Algorithm 1 with the numbers of the authors' notebook, torch's Adam and its backward; one picture."""
    steps, w = 50, 7.5
    grid = grid_from_scheduler(smooth().scheduler, steps)
    net = lambda x, i, e: smooth_network(x, torch.tensor(grid.timesteps[i]), e)  # noqa: E731
    way_up = [x0]
    for i in range(1, steps + 1):
        x, eps = way_up[-1], net(way_up[-1], i, cond)
        way_up.append(grid.alpha[i] * (x - grid.sigma[i - 1] * eps) / grid.alpha[i - 1] + grid.sigma[i] * eps)
    x, null, found, updates = way_up[-1], torch.zeros(1, 2, 3), [], 0
    for k in range(steps):
        i = steps - k
        null = null.clone().detach().requires_grad_()
        adam = torch.optim.Adam([null], lr=rate * (1 - k / 100))
        for _ in range(10):
            free = net(x, i, null)
            landed = sample_step(x, free + w * (net(x, i, cond) - free), grid, i)
            loss = torch.nn.functional.mse_loss(landed, way_up[i - 1])
            adam.zero_grad()
            loss.backward()
            adam.step()
            updates += 1
            if epsilon is not None and loss.item() < epsilon + k * 2e-5:
                break
        found.append(null.detach())
        with torch.no_grad():
            x = sample_step(x, net(x, i, null) + w * (net(x, i, cond) - net(x, i, null)), grid, i)
    return found[::-1], updates


@pytest.mark.parametrize(("rate", "epsilon", "same"), [(1e-2, 1e-5, 8), (1e-2, None, 8), (1e-4, None, 50)])
def test_it_is_the_published_loop_at_fifty_steps(rate: float, epsilon: float | None, same: int) -> None:
    """At the authors' rate Adam swings about the solution, and a rounding of 1e-7 grows tenfold in five steps."""
    x0, given = 0.3 * normal(1, *SHAPE, seed=3), texts(1)
    inversion = unsample.invert(smooth(), latents=x0, method=null_text("ddim", 10, rate, epsilon), **given)
    found, updates = published(x0, given["prompt_embeds"], rate, epsilon)
    assert inversion.backward == [updates]
    assert inversion.nfe == [50 + 50 + updates + 50]
    assert (updates == 500) == (epsilon is None)
    assert rms((inversion.state["unconditional"][0] - torch.cat(found))[-same:]) < 1e-5


def line(x: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Tensor:
    """A network whose dependence on the embedding is its mean, of one number a picture."""
    return 0.3 * x + encoder_hidden_states.to(x.dtype).mean((1, 2))[:, None, None, None]


def test_it_finds_the_embedding_that_is_known() -> None:
    """With eps = 0.3 x + m, the m_u that lands on the inversion trajectory solves one linear equation a step."""
    w, x0, given = 4.0, normal(2, 1, 1, 1, seed=4), texts(2)
    model = smooth(line, (1, 1, 1))
    method = null_text(num_inner_steps=500, learning_rate=0.03, early_stop=None)
    inversion = unsample.invert(
        model, latents=x0, method=method, num_inference_steps=4, sampling_guidance_scale=w, keep_trajectory=True,
        **given,
    )  # fmt: skip
    assert max(inversion.meta["residual"]) < 1e-4  # float32 embeddings, and Adam's last wobble
    assert inversion.trajectory is not None
    grid, cond = grid_from_scheduler(model.scheduler, 4), given["prompt_embeds"].double().mean((1, 2))
    for i in range(1, 5):
        x, wanted = (inversion.trajectory[k].flatten() for k in (i, i - 1))
        slope = grid.sigma[i - 1] - grid.alpha[i - 1] * grid.sigma[i] / grid.alpha[i]
        eps = (wanted - grid.alpha[i - 1] / grid.alpha[i] * x) / slope
        mean = (eps - 0.3 * x - w * cond) / (1 - w)
        assert rms(inversion.state["unconditional"][:, i - 1].double().mean((1, 2)) - mean) < 1e-3
    made = unsample.reconstruct(model, inversion)
    assert rms(made.latents - x0) < 1e-3
    plain = unsample.reconstruct(model, inversion, use="noise")
    assert rms(plain.latents - x0) > 0.1


def test_what_a_picture_gets_and_costs_does_not_depend_on_its_neighbours() -> None:
    model, x0, given = smooth(line, (1, 1, 1)), normal(3, 1, 1, 1, seed=1), texts(3)
    given["prompt_embeds"] *= torch.tensor([0.01, 0.2, 1.0])[:, None, None]
    run = {"method": null_text(early_stop=1e-4), "num_inference_steps": 6}
    together = unsample.invert(model, latents=x0, **run, **given)
    assert len(set(together.backward)) > 1  # they end at different times, and then cost nothing more
    for k in range(3):
        alone = unsample.invert(
            model, latents=x0[k : k + 1], **run, **given | {"prompt_embeds": given["prompt_embeds"][k : k + 1]}
        )
        assert (alone.nfe, alone.backward) == (together.nfe[k : k + 1], together.backward[k : k + 1])
        assert rms(alone.state["unconditional"][0] - together.state["unconditional"][k]) < 1e-6


def test_without_guidance_there_is_nothing_to_fit() -> None:
    model, x0, method = smooth(), 0.3 * normal(2, *SHAPE), null_text()
    inversion = unsample.invert(
        model, latents=x0, method=method, num_inference_steps=5, sampling_guidance_scale=1, **texts(2)
    )
    assert inversion.nfe == [5, 5] == [method.passes(Walked(5))] * 2
    assert inversion.backward == [0, 0]
    record, noise = (unsample.reconstruct(model, inversion, use=use) for use in ("record", "noise"))
    assert torch.equal(record.latents, noise.latents)


def test_steps_that_a_schedule_leaves_unguided_are_not_fitted() -> None:
    method = null_text(early_stop=None)
    inversion = unsample.invert(
        smooth(), latents=0.3 * normal(1, *SHAPE), method=method, num_inference_steps=4, guidance_schedule="cosine",
        **texts(1),
    )  # fmt: skip
    assert inversion.backward == [30]
    assert inversion.nfe == [4 + 3 * 12 + 1]
    last, before = inversion.state["unconditional"][0, :2]
    assert torch.equal(last, before)


def test_one_embedding_for_all_steps_is_swept_over_the_way_up() -> None:
    model, x0, given = smooth(), 0.3 * normal(1, *SHAPE, seed=3), texts(1)
    method = null_text(num_inner_steps=20, early_stop=None, global_embedding=True)
    inversion = unsample.invert(model, latents=x0, method=method, num_inference_steps=4, keep_trajectory=True, **given)
    assert inversion.state["unconditional"].shape == (1, 1, 2, 3)
    assert inversion.nfe == [4 + 4 * 21] == [method.passes(Walked(4, 1, 2))]
    grid, cond = grid_from_scheduler(model.scheduler, 4), given["prompt_embeds"]
    assert inversion.trajectory is not None
    null = torch.zeros(1, 2, 3, requires_grad=True)
    adam = torch.optim.Adam([null], lr=1e-2)
    for _ in range(20):
        for i in (4, 3, 2, 1):
            x, t = inversion.trajectory[i], torch.tensor(grid.timesteps[i])
            free, bound = smooth_network(x, t, null), smooth_network(x, t, cond)
            loss = (sample_step(x, free + 7.5 * (bound - free), grid, i) - inversion.trajectory[i - 1]).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    assert rms(inversion.state["unconditional"][:, 0] - null.detach()) < 1e-5
    loose = unsample.invert(
        model, latents=x0, num_inference_steps=4, **given,
        method=null_text(num_inner_steps=20, early_stop=1e3, global_embedding=True),
    )  # fmt: skip
    assert loose.backward == [4]  # the first sweep was good enough


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpointing_changes_nothing_but_memory(dtype: torch.dtype) -> None:
    pipeline = sd14()
    pipeline.unet.to(dtype)
    model, x0 = unsample.load(pipeline), 0.5 * normal(1, 4, 8, 8).float()
    made = []
    for wanted in (False, True):
        method = null_text(num_inner_steps=2, gradient_checkpointing=wanted)
        made.append(unsample.invert(model, latents=x0, prompt="a cat", method=method, num_inference_steps=2))
        assert not pipeline.unet.is_gradient_checkpointing
    one, other = (m.state["unconditional"] for m in made)
    assert one.dtype is torch.float32
    assert torch.equal(one, other)
    assert not torch.equal(one[0, 0], one[0, 1])  # it was fitted
    assert made[0].nfe == made[1].nfe
    # a pipeline that is given as it is has weights that ask for gradients: none is left in them
    assert all(p.grad is None and p.requires_grad for p in pipeline.unet.parameters())


def test_checkpointing_that_was_on_stays_on() -> None:
    pipeline = sd14()
    pipeline.unet.enable_gradient_checkpointing()
    method = null_text(num_inner_steps=1, gradient_checkpointing=True)
    unsample.invert(
        unsample.load(pipeline), latents=normal(1, 4, 8, 8).float(), prompt="a cat", method=method,
        num_inference_steps=1,
    )  # fmt: skip
    assert pipeline.unet.is_gradient_checkpointing


def test_the_learning_rate_never_reaches_zero() -> None:
    """The authors' 1 - k / 100 would, at 100 steps."""
    run: dict[str, Any] = {"method": null_text(num_inner_steps=1, early_stop=None), "num_inference_steps": 120}
    inversion = unsample.invert(smooth(line, (1, 1, 1)), latents=normal(1, 1, 1, 1), **run, **texts(1))
    moves = inversion.state["unconditional"][0].diff(dim=0).abs()  # Adam's first update is the learning rate
    assert float(moves.min()) > 0.5e-2
    assert float(moves.max()) < 1e-2 * (1 + 1e-4)


def test_a_walk_that_is_lost_leaves_no_record() -> None:
    def network(x: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        output = smooth_network(x, t, encoder_hidden_states)
        unknown = encoder_hidden_states.mean((1, 2)).abs() < 1e-6  # nan for the negative prompt
        return torch.where(unknown[:, None, None, None], torch.nan, output)

    with pytest.raises(Diverged, match="null_text lost every picture"):
        unsample.invert(
            smooth(network), latents=normal(1, *SHAPE), method=null_text(), num_inference_steps=2, **texts(1)
        )


def test_any_way_up_serves_as_base() -> None:
    method = null_text(base=fixed_point(3), num_inner_steps=2, early_stop=None)
    inversion = unsample.invert(
        smooth(), latents=0.3 * normal(1, *SHAPE), method=method, num_inference_steps=4, **texts(1)
    )
    assert inversion.nfe == [4 * 3 + 4 * 4]
    assert inversion.meta["method"]["settings"]["base"] == {
        "name": "fixed_point",
        "settings": dict(fixed_point(3).settings),
    }
    with pytest.raises(Incompatible, match="null_text\\(base=null_text\\) makes no sense"):
        null_text(base="null_text")


@pytest.mark.parametrize(
    "settings",
    [
        {"num_inner_steps": 0},
        {"learning_rate": 0},
        {"early_stop": -1e-5},
        {"global_embedding": "yes"},
        {"gradient_checkpointing": 1},
        {"base": 5},
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        null_text(**settings)


def test_what_cannot_be_fitted_is_refused() -> None:
    run: dict[str, Any] = {"latents": normal(1, *SHAPE), "num_inference_steps": 2, **texts(1)}
    with pytest.raises(Incompatible, match="a sampling guidance of 0"):
        unsample.invert(smooth(), method=null_text(), sampling_guidance_scale=0, **run)
    with pytest.raises(Incompatible, match="gradient_checkpointing=True"):
        unsample.invert(smooth(), method=null_text(gradient_checkpointing=True), **run)
    inversion = unsample.invert(smooth(), method=null_text(num_inner_steps=1), **run)
    for verb, more in ((unsample.reconstruct, {}), (unsample.edit, texts(1, seed=5))):
        with pytest.raises(Incompatible, match="fitted under guidance 7.5"):
            verb(smooth(), inversion, guidance_scale=3, **more)


@pytest.mark.parametrize("one_for_all", [False, True])
def test_a_fit_that_is_lost_leaves_no_record_although_the_way_up_is_sound(one_for_all: bool) -> None:
    def network(x: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        free = encoder_hidden_states.detach().abs().mean((1, 2)) < 0.5  # asked in the fit alone
        lost = free & (x.detach().flatten(1).mean(1) > 2)
        return torch.where(lost[:, None, None, None], torch.nan, smooth_network(x, t, encoder_hidden_states))

    model, x0 = smooth(network), 0.3 * normal(2, *SHAPE, seed=4)
    x0[1] += 9
    given = {"prompt_embeds": torch.ones(1, 2, 3), "negative_prompt_embeds": torch.zeros(1, 2, 3)}
    method = null_text(num_inner_steps=2, early_stop=None, global_embedding=one_for_all)
    with pytest.warns(UserWarning, match="picture 1 diverged"):
        made = unsample.invert(model, latents=x0, method=method, num_inference_steps=4, **given)
    assert made.status == ["ok", "diverged"]
    alone = unsample.invert(model, latents=x0[:1], method=method, num_inference_steps=4, **given)
    assert torch.equal(alone.state["unconditional"][0], made.state["unconditional"][0])
