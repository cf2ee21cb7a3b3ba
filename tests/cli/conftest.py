"""Small models of random weights, small pictures, and the command run in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

os.environ["HF_HUB_OFFLINE"] = "1"


@dataclass(frozen=True)
class Ended:
    """What a run of the command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("invert", "a.png")`, in a folder of its own."""
    from unsample.cli.main import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Ended:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        captured = capfd.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion's layout at 16x16, trained on 200 timesteps, of random weights."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from training.tokenizer import build

    torch.manual_seed(0)
    tokenizer = build()
    last = len(tokenizer) - 1
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=last + 1,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=24,
            bos_token_id=last - 1,
            eos_token_id=last,
            pad_token_id=last,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
        sample_size=16,
    )
    scheduler = DDIMScheduler(
        num_train_timesteps=200, beta_end=0.1, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-sd"
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_ddpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pixel model at 16x16, of random weights."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16,
        down_block_types=["DownBlock2D"] * 2,
        up_block_types=["UpBlock2D"] * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
    )
    torch.nn.init.normal_(unet.conv_out.weight, std=0.01)  # a gentle one, that a few steps can invert
    folder = tmp_path_factory.mktemp("models") / "tiny-ddpm"
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)
    return folder


def draw(path: Path, size: tuple[int, int] = (16, 16), colour: str = "red", ground: str = "white") -> Path:
    """A disc on a plain ground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, ground)
    ImageDraw.Draw(image).ellipse((3, 3, size[0] - 4, size[1] - 4), fill=colour)
    image.save(path)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A picture of 16x16."""
    return draw(tmp_path / "scene.png")
