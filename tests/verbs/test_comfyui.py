"""`.latent` files: what ComfyUI's sampler does with them leads to the reconstruction, and the noise comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import unsample
from unsample.errors import BadInput, Incompatible

PROMPT, STEPS = "a large red circle at the center on a white background", 6
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def sd() -> tuple[Any, Any]:
    model: Any = unsample.load("scenes-sd")
    picture = unsample.sample(model, PROMPT, num_inference_steps=STEPS).images
    return model, unsample.invert(model, picture, PROMPT, num_inference_steps=STEPS)


def test_comfyuis_own_arithmetic_leads_to_the_reconstruction(sd: tuple[Any, Any], tmp_path: Path) -> None:
    """LoadLatent, the latent format's scale, Euler in x / alpha at the levels of the grid; the network gets alpha x."""
    model, inversion = sd
    inversion.to_comfyui(tmp_path / "noise.latent", model)
    file = load_file(tmp_path / "noise.latent")
    assert {name: tuple(t.shape) for name, t in file.items()} == {
        "latent_tensor": (1, 4, 16, 16),
        "latent_format_version_0": (0,),
    }
    x, grid = file["latent_tensor"] * model.vae.config.scaling_factor, inversion.meta.grid
    ratios = [s / a for a, s in zip(grid.alpha, grid.sigma, strict=True)]
    condition = model.embed([PROMPT])
    with torch.no_grad():
        for i in range(STEPS, 0, -1):
            eps = model.network(x / (1 + ratios[i] ** 2) ** 0.5, grid.timesteps[i], condition)
            x = x + (ratios[i - 1] - ratios[i]) * eps
    expected = unsample.reconstruct(model, inversion).latents
    assert float((x * grid.alpha[0] - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    with safe_open(tmp_path / "noise.latent", framework="pt") as opened:
        assert json.loads(opened.metadata()["unsample"])["prompt"] == PROMPT


def test_a_noise_comes_back_and_a_pictures_latents_are_read(sd: tuple[Any, Any], tmp_path: Path) -> None:
    model, inversion = sd
    inversion.to_comfyui(tmp_path / "noise.latent", model)
    with pytest.raises(BadInput, match=f"give num_inference_steps={STEPS}"):
        unsample.from_comfyui(tmp_path / "noise.latent", model)
    noise = unsample.from_comfyui(tmp_path / "noise.latent", model, STEPS)
    assert torch.allclose(noise, inversion.noise, atol=1e-5)
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    unscaled = latents / model.vae.config.scaling_factor
    save_file({"latent_tensor": unscaled, "latent_format_version_0": torch.tensor([])}, tmp_path / "new.latent")
    save_file({"latent_tensor": unscaled * 0.18215}, tmp_path / "old.latent")
    for name in ("new", "old"):
        assert torch.allclose(unsample.from_comfyui(tmp_path / f"{name}.latent", model), latents, atol=1e-5)


def test_a_replayed_model_undoes_its_pipelines_shift_and_scale(tmp_path: Path) -> None:
    model: Any = unsample.load("scenes-flow")
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = unsample.invert(model, picture, PROMPT, num_inference_steps=3)
    with pytest.raises(Incompatible, match="alpha = 0"):
        whole.to_comfyui(tmp_path / "noise.latent", model)
    assert not [*tmp_path.iterdir()]
    part = unsample.invert(model, picture, PROMPT, num_inference_steps=3, strength=0.7)
    part.to_comfyui(tmp_path / "noise.latent", model)
    z = load_file(tmp_path / "noise.latent")["latent_tensor"]
    config = model.vae.config
    alpha = part.meta.grid.alpha[part.meta.stop_index]
    again = (z - (config.get("shift_factor") or 0)) * config.scaling_factor * alpha
    assert torch.allclose(again, part.noise, atol=1e-5)
    assert torch.allclose(unsample.from_comfyui(tmp_path / "noise.latent", model) * alpha, part.noise, atol=1e-5)


def test_what_is_no_latent_is_refused(sd: tuple[Any, Any], tmp_path: Path) -> None:
    model, inversion = sd
    for tensors, said in (
        ({"other": torch.zeros(1)}, "holds no latent_tensor"),
        ({"latent_tensor": torch.zeros(1, 4, 16, 16, dtype=torch.int64)}, "holds no latent_tensor"),
        ({"latent_tensor": torch.zeros(1, 16, 16, 16)}, r"takes \(B, 4, H, W\)"),
        ({"latent_tensor": torch.zeros(4, 16, 16)}, r"takes \(B, 4, H, W\)"),
        ({"latent_tensor": torch.full((1, 4, 16, 16), float("nan"))}, "not finite"),
    ):
        save_file(tensors, tmp_path / "a.latent")
        with pytest.raises(BadInput, match=said):
            unsample.from_comfyui(tmp_path / "a.latent", model)
    (tmp_path / "b.latent").write_bytes(b"not one")
    for name in ("b.latent", "none.latent"):
        with pytest.raises(BadInput, match="cannot be read"):
            unsample.from_comfyui(tmp_path / name, model)
    with pytest.raises(BadInput, match=r"\.latent"):
        inversion.to_comfyui(tmp_path / "noise.safetensors", model)
    ddpm: Any = unsample.load("scenes-ddpm")
    with pytest.raises(Incompatible, match="no autoencoder"):
        unsample.from_comfyui(tmp_path / "a.latent", ddpm)
    with pytest.raises(Incompatible, match="no autoencoder"):
        inversion.to_comfyui(tmp_path / "c.latent", ddpm)
