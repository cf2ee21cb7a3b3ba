"""Problems with known answers, and small networks of real layouts.

A single Gaussian N(mu, v) is the one model whose every number is known: with s = alpha^2 v + sigma^2 the
probability-flow ODE carries x along `x_t = alpha_t mu + sqrt(s_t) c` with c constant, and a DDIM step is the affine map
`gaussian_ddim_step`. A mixture is not linear, and its score can be had by automatic differentiation of its density.
The random diffusers networks are for plumbing only: they are nearly linear and hide inversion failure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import Tensor

from unsample.models.base import Condition
from unsample.models.gaussian import GaussianModel
from unsample.models.guidance import Predict
from unsample.numbers.grid import Grid, grid_from_scheduler
from unsample.testing.problems import PROMPTS as PROMPTS
from unsample.testing.problems import mixture as mixture
from unsample.testing.problems import normal as normal
from unsample.testing.problems import seeded as seeded
from unsample.testing.problems import smooth_network as smooth_network
from unsample.testing.words import rms as rms

SD_TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


def float64_tables(scheduler: Any) -> Any:
    """The scheduler with its two tables cast to float64, in place."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    return scheduler


# ---------------------------------------------------------------- closed form


def gaussian(
    mean: float = 0.4, variance: float = 0.25, shape: tuple[int, int, int] = (1, 1, 1), scheduler: Any = None
) -> GaussianModel:
    """A single Gaussian."""
    scheduler = scheduler or float64_tables(DDIMScheduler(timestep_spacing="trailing", clip_sample=False))
    return GaussianModel(torch.full((1, *shape), mean), torch.full((1, *shape), variance), scheduler)


def gaussian_ode(model: GaussianModel, x: Tensor, grid: Grid, i: int, j: int) -> Tensor:
    """Where the probability-flow ODE of a single Gaussian carries x from grid point i to j."""
    mu, v = model.means[0], model.variances[0]
    scale = [(grid.alpha[k] ** 2 * v + grid.sigma[k] ** 2).sqrt() for k in (i, j)]
    return grid.alpha[j] * mu + (x - grid.alpha[i] * mu) * scale[1] / scale[0]


def gaussian_ddim_step(model: GaussianModel, x: Tensor, grid: Grid, i: int, j: int) -> Tensor:
    """The DDIM sampling step of a single Gaussian, written out: an affine map."""
    mu, v = model.means[0], model.variances[0]
    s = grid.alpha[i] ** 2 * v + grid.sigma[i] ** 2
    slope = (grid.alpha[j] * grid.alpha[i] * v + grid.sigma[j] * grid.sigma[i]) / s
    return grid.alpha[j] * mu + slope * (x - grid.alpha[i] * mu)


def mixture_picture(model: GaussianModel, component: int = 0, seed: int = 3) -> Tensor:
    """A picture (1, C, H, W) in [0, 1] drawn from one component."""
    x = model.means[component] + model.variances[component].sqrt() * normal(*model.sample_shape, seed=seed)
    return (x / 2 + 0.5).clamp(0, 1)[None].float()


def predictor(model: Any, grid: Grid, count: int = 1) -> Predict:
    """`predict` without text or guidance."""
    return Predict(model, grid, Condition(), None, 1.0, count)


def gaussian_grid(model: GaussianModel, steps: int) -> Grid:
    """The model's grid."""
    return grid_from_scheduler(model.scheduler, steps)


# ---------------------------------------------------------------- plain functions as networks


def broken_from(timestep: int, rows: Callable[[Tensor], Tensor] | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """`smooth_network` that returns nan from `timestep` on, for the pictures that `rows` picks (default: all)."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        output = smooth_network(x, t)
        if int(t) >= timestep:
            hit = torch.ones(len(x), dtype=torch.bool) if rows is None else rows(x)
            output = torch.where(hit[:, None, None, None], torch.nan, output)
        return output

    return network


# ---------------------------------------------------------------- small random networks of real layouts


def tokenizer(length: int = 16) -> Any:
    """A `CLIPTokenizer` without merges: every byte is a token."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*symbols, *(s + "</w>" for s in symbols), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={t: k for k, t in enumerate(vocabulary)}, merges=[], model_max_length=length)


def _text_encoder(width: int, tokens: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokens.model_max_length,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
        pad_token_id=len(tokens) - 1,
    )
    return CLIPTextModel(config).eval()


def _stable_diffusion(scheduler: Any, **unet: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokens = tokenizer()
        settings: dict[str, Any] = {
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "layers_per_block": 1,
            "block_out_channels": (16, 32),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 32,
            "norm_num_groups": 8,
            **unet,
        }
        vae = AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=16,
        ).eval()
        return StableDiffusionPipeline(
            vae=vae,
            text_encoder=_text_encoder(32, tokens),
            tokenizer=tokens,
            unet=UNet2DConditionModel(**settings).eval(),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def sd14() -> Any:
    """Stable Diffusion 1.4's configuration, small: epsilon, the PNDM scheduler it ships."""
    scheduler = PNDMScheduler(
        **{k: v for k, v in SD_TABLE.items() if k != "clip_sample"},
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )
    return _stable_diffusion(scheduler, attention_head_dim=8)


def sd21() -> Any:
    """Stable Diffusion 2.1's configuration, small: v prediction, linear projections, head counts a level."""
    scheduler = DDIMScheduler(**SD_TABLE, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction")
    return _stable_diffusion(scheduler, attention_head_dim=(2, 4), use_linear_projection=True)


def ddpm(**more: Any) -> Any:
    """google/ddpm-*'s configuration, small: pixels, no condition."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=16,
            layers_per_block=1,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
            **more,
        ).eval()
    return DDPMPipeline(unet=unet, scheduler=DDPMScheduler())


def saved(pipeline: Any, folder: Path) -> Path:
    """The pipeline's folder."""
    pipeline.save_pretrained(folder)
    return folder


def slope(steps: Sequence[int], errors: Sequence[float]) -> float:
    """The order of convergence: minus the slope of log error over log steps, by least squares."""
    a, b = torch.tensor(steps).double().log(), torch.tensor(errors).double().log()
    a, b = a - a.mean(), b - b.mean()
    return -float((a * b).sum() / (a * a).sum())
