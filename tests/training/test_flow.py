"""How `scenes-flow` is made: trained on what diffusers' own SD3 pipeline feeds, in a folder that it reads."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch.nn.functional import layer_norm

from tests.problems import seeded
from training import flow
from training.flow import NULLS, JointAttention, both_encoders, build, embed, levels, text_tower, with_null
from training.run import train_scenes

CAPTIONS = ["", *[s.caption for s in train_scenes(0, 3)]]


@pytest.fixture(scope="module")
def text() -> tuple[Any, Any]:
    return text_tower()


@pytest.fixture(scope="module")
def pipeline(text: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder that `export` writes, of an untrained network, as diffusers reads it."""
    folder = tmp_path_factory.mktemp("flow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "FOLDER", folder)
        torch.manual_seed(0)
        flow.export(awake(build()), *text_tower())
    made = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32, text_encoder_3=None, tokenizer_3=None)
    made.set_progress_bar_config(disable=True)
    return made


def awake(transformer: SD3Transformer2DModel) -> SD3Transformer2DModel:
    """Away from the start, where the velocity is zero and next to nothing is passed on."""
    for weight in transformer.parameters():
        weight.data += 0.03 * torch.randn_like(weight)
    return transformer


def test_the_text_is_what_diffusers_pipeline_feeds(pipeline: Any, text: tuple[Any, Any]) -> None:
    with torch.no_grad():
        told, untold, pooled, unpooled = pipeline.encode_prompt(CAPTIONS, None, None, device="cpu")
    hidden, projected = embed(*text, CAPTIONS)
    assert told.shape == (len(CAPTIONS), hidden.shape[1] + NULLS, 256)
    assert (told[:, hidden.shape[1] :] == 0).all()
    for row, (ours, theirs) in enumerate(zip(with_null(hidden), told, strict=True)):
        assert (ours - theirs[: len(ours)]).abs().max() < 1e-6, CAPTIONS[row]
    assert (both_encoders(projected) - pooled).abs().max() < 1e-5  # of values up to 5; batches of other sizes
    assert (with_null(hidden)[0] - untold[0, : hidden.shape[1] + 1]).abs().max() < 1e-6, "no negative prompt is ''"
    assert (both_encoders(projected)[0] - unpooled[0]).abs().max() < 1e-5


def test_one_token_in_training_is_all_the_zero_tokens_forward_and_backward() -> None:
    torch.manual_seed(0)
    transformer = awake(build())
    x, t, pooled = torch.randn(4, 4, 16, 16), torch.rand(4) * 1000, torch.randn(4, 256)
    words = 3 * torch.randn(4, 24, 256)
    zeros = words.new_zeros(4, NULLS, 256)

    def run(tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        transformer.zero_grad()
        velocity = transformer(x, torch.cat([words, zeros[:, :tokens]], 1), pooled, t).sample
        (velocity * torch.linspace(-1, 1, velocity.numel()).view_as(velocity)).mean().backward()
        return velocity.detach(), torch.cat([w.grad.flatten() for w in transformer.parameters()])

    velocity, gradient = run(NULLS)
    for count, same in ((NULLS, True), (NULLS - 1, False)):
        transformer.set_attn_processor(JointAttention(count))
        ours, slope = run(1)
        assert ((ours - velocity).abs().max() < 1e-5) == same
        assert ((slope - gradient).abs().max() < 1e-5 * gradient.abs().max()) == same


def test_the_zero_tokens_start_with_the_weight_of_one_and_the_velocity_at_zero() -> None:
    torch.manual_seed(0)
    transformer = build()
    assert sum(w.numel() for w in transformer.parameters()) * 2 < 8e6, "at most 8 MB in fp16"
    width = transformer.inner_dim
    seen = layer_norm(torch.randn(500, width), (width,))
    null = layer_norm(transformer.context_embedder(torch.zeros(256)), (width,))
    for block in transformer.transformer_blocks:
        for queries in (block.attn.to_q, block.attn.add_q_proj):
            query, key = (v.view(-1, block.attn.heads, 32) for v in (queries(seen), block.attn.add_k_proj(null)))
            logits = (query * key).sum(-1) / math.sqrt(32)
            assert float(logits.detach().mean()) == pytest.approx(-math.log(NULLS), abs=0.2)
    x = torch.randn(2, 4, 16, 16)
    assert (transformer(x, torch.randn(2, 30, 256), torch.randn(2, 256), torch.tensor([500.0])).sample == 0).all()


@pytest.mark.parametrize(("shift", "late"), [(1, 0.36), (3, 0.65)])
def test_levels_reach_both_ends_and_a_shift_moves_them_to_where_the_shape_is_decided(shift: int, late: float) -> None:
    t = levels(seeded(0), 20_000, shift)
    assert 0 < float(t.min()) < 0.002
    assert 0.998 < float(t.max()) < 1
    assert float((t > 0.6).double().mean()) == pytest.approx(late, abs=0.01)


def test_the_folder_is_one_of_diffusers_and_samples_euler_from_noise(pipeline: Any) -> None:
    noise = torch.randn(1, 4, 16, 16, generator=seeded(0))
    given = {"guidance_scale": 3.0, "latents": noise, "output_type": "latent", "num_inference_steps": 3}
    theirs = pipeline(CAPTIONS[1], **given).images
    assert pipeline(CAPTIONS[1], num_inference_steps=1, output_type="pt").images.shape == (1, 3, 64, 64)
    x, levels_ = noise, [*torch.linspace(1, 0.001, 3).tolist(), 0.0]
    tower, tokenizer = pipeline.text_encoder, pipeline.tokenizer
    hidden, pooled = embed(tower, tokenizer, [CAPTIONS[1], ""])
    pipeline.transformer.set_attn_processor(JointAttention(NULLS))
    with torch.no_grad():
        for now, after in itertools.pairwise(levels_):
            inputs = (x.repeat(2, 1, 1, 1), with_null(hidden), both_encoders(pooled), torch.tensor([1000 * now] * 2))
            told, untold = pipeline.transformer(*inputs).sample.chunk(2)
            x = x + (after - now) * (untold + 3.0 * (told - untold))
    assert (x - theirs).abs().max() < 1e-4
    assert isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler)


def test_both_text_encoders_are_one_and_the_same_file(pipeline: Any) -> None:
    folder = Path(pipeline.name_or_path)
    first, second = (folder / part / "model.safetensors" for part in ("text_encoder", "text_encoder_2"))
    assert first.read_bytes() == second.read_bytes()
    assert json.loads((folder / "vae" / "config.json").read_text())["shift_factor"] == 0.0
