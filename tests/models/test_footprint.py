"""Memory predicted from configs and headers, against what torch's profiler sees on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.problems import ddpm, saved, sd14
from unsample.models.footprint import footprint
from unsample.models.loading import BUNDLED_FOLDER, load


def measured(call: Callable[[], Any]) -> int:
    """The peak of what a call allocates, in bytes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = call()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    del kept
    return peak


def backwards(model: Any, x: torch.Tensor, more: dict[str, Any]) -> Any:
    x = x.requires_grad_()
    return torch.autograd.grad(model.unet(x, torch.tensor(5), **more).sample.sum(), x)


def plain(call: Callable[[], Any]) -> Callable[[], Any]:
    return torch.no_grad()(call)


@pytest.mark.parametrize("which", ["scenes-sd", "scenes-ddpm", "sd14", "ddpm"])
def test_activations_are_within_15_percent_of_what_torch_allocates(which: str, tmp_path: Path) -> None:
    makers = {"sd14": sd14, "ddpm": ddpm}
    folder = saved(makers[which](), tmp_path / which) if which in makers else BUNDLED_FOLDER / which
    found, (width, height) = footprint(folder, which, pictures=2, rows=4, backward=True)
    model: Any = load(folder)
    torch.manual_seed(0)
    x = torch.randn(4, *model.sample_shape)
    more = {}
    if model.family == "latent":
        length, depth = model.tokenizer.model_max_length, model.unet.config.cross_attention_dim
        more = {"encoder_hidden_states": torch.randn(4, length, depth)}
    calls = {
        "denoise": plain(lambda: model.unet(x, torch.tensor(5), **more)),
        "backward": lambda: backwards(model, x, more),
    }
    if model.family == "latent":
        pictures, latents = torch.rand(2, 3, height, width), torch.randn(2, *model.sample_shape)
        calls |= {
            "encode": plain(lambda: model.vae.encode(pictures).latent_dist.mode()),
            "decode": plain(lambda: model.vae.decode(latents)),
        }
    for phase, call in calls.items():
        predicted = found.activations[phase]
        assert predicted == pytest.approx(measured(call), rel=0.15), phase
    assert found.weights["unet"] == sum(p.numel() * 4 for p in model.unet.parameters())
