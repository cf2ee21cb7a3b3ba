"""A network of OpenAI's guided-diffusion (ADM) behind `unsample.wrap`: `python examples/adm.py` inverts with one.

The network is small and random, in the layout, the names and the calling convention of that code: it is called
`network(x, timesteps, y=labels)`, every picture with its time, takes a class, and answers with twice the channels,
the noise and the variance that it learned. Weights of the same settings load by their names (`load_state_dict`). What
is needed to invert with one are the arguments of `wrap` in `wrapped`, and a scheduler of diffusers for its schedule
(`scheduler`): the timesteps of a respaced schedule are those of the original one.

References: Dhariwal and Nichol, 2021, arXiv:2105.05233, section 3 (the network); Nichol and Dhariwal, 2021,
arXiv:2102.09672, Eq. 17 (the cosine schedule) and section 4 (fewer steps).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

import unsample

STEPS, TIMESTEPS, CLASSES, SIDE = 25, 4000, 10, 16


def scheduler(timestep_respacing: str = "", timesteps: int = TIMESTEPS) -> Any:
    """guided-diffusion's cosine schedule as a scheduler of diffusers.

    `num_inference_steps` is then the number in `timestep_respacing`.

    Args:
        timestep_respacing: as in that code. "ddimN" takes every (timesteps / N)-th timestep from 0 on, for an N that
            divides them; "N" and "" spread N timesteps evenly from the first to the last.
        timesteps: of the original schedule (`diffusion_steps`).
    """
    return DDIMScheduler(
        num_train_timesteps=timesteps,
        beta_schedule="squaredcos_cap_v2",  # with noise_schedule="linear" it is "linear", 0.1 / T to 20 / T
        timestep_spacing="leading" if timestep_respacing.startswith("ddim") else "linspace",
        steps_offset=0,
        set_alpha_to_one=True,  # the last step ends in the picture itself
        clip_sample=False,
    )


def wrapped(network: nn.Module, respacing: str = f"ddim{STEPS}", rescale_timesteps: bool = True) -> Any:
    """The network as a model of unsample; the flags of guided-diffusion are those that it was trained with."""
    return unsample.wrap(
        network,
        scheduler(respacing),
        sample_shape=(3, SIDE, SIDE),
        batched_timestep=True,
        timestep_scale=1000 / TIMESTEPS if rescale_timesteps else None,
        num_classes=CLASSES,
    )


# ---------------------------------------------------------------- the network


class ResBlock(nn.Module):
    """A residual block, with time and class as a scale and a shift after its second norm; may halve or double sides."""

    def __init__(self, channels: int, out: int, embedding: int, resample: str = "") -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out))
        last = nn.Conv2d(out, out, 3, padding=1)
        self.out_layers = nn.Sequential(nn.GroupNorm(8, out), nn.SiLU(), nn.Dropout(0.0), last)
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)
        resamplers: dict[str, nn.Module] = {"down": nn.AvgPool2d(2), "up": nn.Upsample(scale_factor=2, mode="nearest")}
        self.resample = resamplers.get(resample, nn.Identity())

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        norm, activation, convolution = self.in_layers
        h = convolution(self.resample(activation(norm(x))))
        scale, shift = self.emb_layers(embedded)[:, :, None, None].chunk(2, dim=1)
        norm, *rest = self.out_layers
        h = norm(h) * (1 + scale) + shift
        for layer in rest:
            h = layer(h)
        return self.skip_connection(self.resample(x)) + h


class AttentionBlock(nn.Module):
    """Self-attention over the pixels; of each head's channels the queries come first, then keys, then values."""

    def __init__(self, channels: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(8, channels)
        self.qkv, self.proj_out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        flat = x.flatten(2)
        split = self.qkv(self.norm(flat)).unflatten(1, (self.heads, 3, -1)).transpose(3, 4)  # (B, heads, 3, HW, C)
        attended = nn.functional.scaled_dot_product_attention(*split.unbind(2))
        return x + self.proj_out(attended.transpose(2, 3).flatten(1, 2)).reshape(x.shape)


class Blocks(nn.Sequential):
    """Layers in a row, each given time and class where it takes them."""

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, embedded) if isinstance(layer, ResBlock | AttentionBlock) else layer(x)
        return x


class ADM(nn.Module):
    """Two resolutions, a block a side, attention at the lower one; `learn_sigma`, `class_cond`, `resblock_updown`."""

    def __init__(self, width: int = 32, classes: int = CLASSES) -> None:
        super().__init__()
        wide, embedding = 2 * width, 4 * width
        self.width = width
        self.time_embed = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label_emb = nn.Embedding(classes, embedding)
        block = lambda a, b, *resample: ResBlock(a, b, embedding, *resample)  # noqa: E731
        self.input_blocks = nn.ModuleList(
            [
                Blocks(nn.Conv2d(3, width, 3, padding=1)),
                Blocks(block(width, width)),
                Blocks(block(width, width, "down")),
                Blocks(block(width, wide), AttentionBlock(wide)),
            ]
        )
        self.middle_block = Blocks(block(wide, wide), AttentionBlock(wide), block(wide, wide))
        self.output_blocks = nn.ModuleList(
            [
                Blocks(block(2 * wide, wide), AttentionBlock(wide)),
                Blocks(block(wide + width, wide), AttentionBlock(wide), block(wide, wide, "up")),
                Blocks(block(wide + width, width)),
                Blocks(block(2 * width, width)),
            ]
        )
        self.out = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 6, 3, padding=1))

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, 6, H, W) of (B, 3, H, W), a time and a class for each: the noise, then what stands for its variance."""
        if y is None:
            raise ValueError("a class for each picture is needed")
        half = self.width // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        angles = timesteps[:, None].float() * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], 1).to(x.dtype)
        embedded, h, kept = self.time_embed(waves) + self.label_emb(y), x, []
        for blocks in self.input_blocks:
            h = blocks(h, embedded)
            kept.append(h)
        h = self.middle_block(h, embedded)
        for blocks in self.output_blocks:
            h = blocks(torch.cat([h, kept.pop()], 1), embedded)
        return self.out(h)


def random_network(seed: int = 0) -> nn.Module:
    """Random weights that let time and class be seen in the answer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ADM().eval().requires_grad_(False)


# ---------------------------------------------------------------- the example


def rms(x: Tensor) -> float:
    """Root mean square."""
    return float(x.double().square().mean().sqrt())


def measured(model: Any, steps: int = STEPS) -> dict[str, dict[str, float]]:
    """Of two pictures that the model made: how far the noise found is from the true one, and the picture again."""
    labels = [3, 7]
    made = unsample.sample(model, class_labels=labels, generator=0, num_inference_steps=steps)
    given = {"latents": made.latents, "class_labels": labels, "num_inference_steps": steps}
    found = {}
    for method in ("ddim", "fixed_point"):
        inversion = unsample.invert(model, method=method, **given)
        again = unsample.reconstruct(model, inversion)
        found[method] = {"noise": rms(inversion.noise - made.noise), "picture": rms(again.latents - made.latents)}
    return found


def main() -> None:
    model = wrapped(random_network())
    print(f"{model}\ntimesteps {model.grid(STEPS).timesteps[1:4]} ... of {TIMESTEPS}, given times {1000 / TIMESTEPS}")
    for method, error in measured(model).items():
        print(f"{method:12} noise off by {error['noise']:.1e}, reconstruction by {error['picture']:.1e} (rms)")


if __name__ == "__main__":
    main()
