"""Train the transformer of `scenes-flow`, in the layout of Stable Diffusion 3, on the latents of `scenes-sd`.

Rectified flow: x_t = (1 - t) x0 + t noise, and the network learns the velocity noise - x0 (Liu et al., 2022,
arXiv:2209.03003; with the levels and the joint blocks of Esser et al., 2024, arXiv:2403.03206). Its text is what
diffusers' `StableDiffusion3Pipeline` feeds with the text tower of `scenes-clip` as both CLIP encoders and no T5.

Which levels. Of what a caption says the shape is learnt last, and it tells between t = 0.6 and 0.97 only: there a
caption with another shape raises the error. The first steps, which learn what noise and colours are, draw t around 0.5;
later ones are shifted by 3, as Esser et al. shift theirs, and nearly twice as many lie there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from training.run import BUNDLED, CHECKPOINTS, Run, arguments, train_scenes
from unsample.datasets.scenes import render
from unsample.media.files import atomic_write

STEPS, BATCH = 31437, 32
CHUNK, CHUNKS = 4096, 24  # the latents and the text of 24 x 4,096 = 98,304 scenes are kept
NULLS = 256  # zero tokens of the pipeline where there is no T5
EARLY, SHIFT = 11687, 3  # steps around t = 0.5; then around 3/4
FOLDER = BUNDLED / "scenes-flow"


def build() -> SD3Transformer2DModel:
    """3.6 M parameters: 64 tokens of 2x2 latents, 4 joint blocks of width 160, 5 heads; the velocity starts at 0."""
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=5,
        joint_attention_dim=256,
        caption_projection_dim=160,
        pooled_projection_dim=256,
        pos_embed_max_size=8,
    )
    modulations = [n for n, _ in transformer.named_modules() if "norm" in n and n.endswith(".linear")]
    for name in (*modulations, "proj_out"):
        for weight in transformer.get_submodule(name).parameters():
            nn.init.zeros_(weight)
    return quiet(transformer)


@torch.no_grad()
def quiet(transformer: SD3Transformer2DModel, heed: float = 4) -> SD3Transformer2DModel:
    """Let the 256 zero tokens start with the weight of one: each key of theirs meets every query at -log 256.

    Otherwise three quarters of all attention goes to them at first. One direction of each head is made to tell them:
    the biases of the queries point along it, and the key of a zero token, which is the bias of the text's embedding,
    against it.
    """
    width = transformer.inner_dim // transformer.transformer_blocks[0].attn.heads
    null = layer_norm(transformer.context_embedder.bias, (transformer.inner_dim,))
    for block in transformer.transformer_blocks:
        key, first = block.attn.add_k_proj, slice(None, None, width)
        nn.init.zeros_(key.bias)
        wanted = torch.zeros_like(key.bias)
        wanted[first] = -math.log(NULLS) * width**0.5 / heed
        key.weight += torch.outer(wanted - key.weight @ null, null) / (null @ null)
        block.attn.to_q.bias[first] = block.attn.add_q_proj.bias[first] = heed
    return transformer


class JointAttention:
    """Joint attention by plain matrix products, where the last text token stands for `nulls` tokens that are alike.

    On a CPU the fused attention goes backward 1.6 times slower here. Tokens that are alike get alike weights, and
    change alike: one whose logit has log(nulls) added is all of them, forward and backward.
    """

    def __init__(self, nulls: int) -> None:
        self.more = math.log(nulls)

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> tuple[Tensor, ...]:
        count, tokens = hidden_states.shape[:2]

        def heads(*parts: Tensor) -> Tensor:
            return torch.cat(parts, 1).view(count, -1, attn.heads, attn.inner_dim // attn.heads).transpose(1, 2)

        query = heads(attn.to_q(hidden_states), attn.add_q_proj(encoder_hidden_states))
        key = heads(attn.to_k(hidden_states), attn.add_k_proj(encoder_hidden_states))
        value = heads(attn.to_v(hidden_states), attn.add_v_proj(encoder_hidden_states))
        logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        last = logits.new_zeros(logits.shape[-1], dtype=torch.float32)
        last[-1] = self.more
        weights = (logits.float() + last).softmax(-1).to(value.dtype)
        found = (weights @ value).transpose(1, 2).reshape(count, -1, attn.inner_dim)
        picture, text = found[:, :tokens], found[:, tokens:]
        return attn.to_out[0](picture), text if attn.context_pre_only else attn.to_add_out(text)


def both_encoders(found: Tensor) -> Tensor:
    """The pipeline joins what its two encoders, here alike, make of a text: (..., 128) to (..., 256)."""
    return torch.cat([found, found], -1)


def with_null(hidden: Tensor) -> Tensor:
    """One encoder's (B, 24, 128) as both encoders' and one of the zero tokens: (B, 25, 256)."""
    return pad(both_encoders(hidden), (0, 0, 0, 1))


def text_tower() -> tuple[CLIPTextModelWithProjection, CLIPTokenizer]:
    """The text tower of `scenes-clip` with its projection, and its tokenizer."""
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(BUNDLED / "scenes-clip", dtype=torch.float32)
    tower = CLIPTextModelWithProjection(clip.config.text_config)
    tower.text_model.load_state_dict(clip.text_model.state_dict())
    tower.text_projection.load_state_dict(clip.text_projection.state_dict())
    return tower.eval(), CLIPTokenizer.from_pretrained(BUNDLED / "scenes-clip")


@torch.no_grad()
def embed(tower: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, captions: Sequence[str]) -> tuple[Tensor, ...]:
    """One encoder's half of the text: the last hidden state but one (B, 24, 128), and the projection (B, 128)."""
    tokens = tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids
    found = tower(tokens.to(tower.device), output_hidden_states=True)
    return found.hidden_states[-2], found.text_embeds


class Cache:
    """The scaled posterior means and the text of the training scenes, computed once, kept on disk in chunks."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.vae = AutoencoderKL.from_pretrained(BUNDLED / "scenes-sd" / "vae", dtype=torch.float32).to(device).eval()
        self.text = text_tower()

    def chunk(self, key: int) -> dict[str, Tensor]:
        """`latents` (4096, 4, 16, 16), `hidden` (4096, 24, 128) and `pooled` (4096, 128) of one chunk, in half."""
        path = CHECKPOINTS / "flow-cache" / f"{key:03d}.safetensors"
        if not path.exists():
            parts = [self._batch(key * CHUNK // 64 + k) for k in range(CHUNK // 64)]
            made = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, partial(save_file, made))
        return load_file(path)

    @torch.no_grad()
    def _batch(self, step: int) -> dict[str, Tensor]:
        scenes = train_scenes(step, 64, stream=5)
        x = render(scenes).images.to(self.device) * 2 - 1
        with torch.autocast(self.device, torch.bfloat16):
            mean = self.vae.encode(x).latent_dist.mode().float()
        hidden, pooled = embed(*self.text, [s.caption for s in scenes])
        made = {"latents": mean * self.vae.config.scaling_factor, "hidden": hidden, "pooled": pooled}
        return {name: value.half().cpu() for name, value in made.items()}


def levels(generator: torch.Generator, count: int, shift: float) -> Tensor:
    """The t of a batch, in (0, 1): 30 % uniform, 70 % logit-normal around shift / (1 + shift)."""
    normal, uniform = torch.randn(count, generator=generator), torch.rand(count, generator=generator)
    normal = (normal + math.log(shift)).sigmoid()
    return torch.where(torch.rand(count, generator=generator) < 0.3, uniform, normal).clamp(1e-3, 1 - 1e-3)


def main() -> None:
    options = arguments(__doc__ or "", steps=STEPS, switches=("--compile",))
    torch.manual_seed(0)
    cache = Cache(options.device)
    unsaid = [value.half() for value in embed(*cache.text, [""])]
    transformer = build().to(options.device)
    transformer.set_attn_processor(JointAttention(NULLS))
    network = torch.compile(transformer) if options.compile else transformer

    def committed() -> dict[str, Tensor]:
        kept = SD3Transformer2DModel.from_pretrained(FOLDER / "transformer", dtype=torch.float32)
        return dict(kept.state_dict())

    given = {"folder": FOLDER, "committed": committed, "finish": options.finish}
    run = Run("flow", transformer, lr=2e-3, steps=options.steps, **given)
    chunks = [cache.chunk(k) for k in range(CHUNKS if run.done() < 1 else 0)]
    held = {name: torch.cat([c[name] for c in chunks]) for name in (chunks[0] if chunks else ())}

    def loss(step: int) -> tuple[Tensor, dict[str, Any]]:
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(0, CHUNK * CHUNKS, (BATCH,), generator=generator)
        dropped = torch.rand(BATCH, generator=generator) < 0.1
        t = levels(generator, BATCH, 1 if step < EARLY else SHIFT)
        x0, text, project = (held[name][rows] for name in ("latents", "hidden", "pooled"))
        noise, level = torch.randn(x0.shape, generator=generator), t[:, None, None, None]
        text[dropped], project[dropped] = unsaid
        inputs = ((1 - level) * x0.float() + level * noise, with_null(text).float())
        inputs += (both_encoders(project).float(), 1000 * t)
        with torch.autocast(options.device, torch.bfloat16):
            velocity = network(*(value.to(options.device) for value in inputs)).sample.float()
        error = (velocity - (noise - x0.float()).to(options.device)).square().mean((1, 2, 3))
        return error.mean(), {}

    run.loop(loss, minutes=options.minutes, keep=lambda step: step % 2500 == 0)
    transformer.load_state_dict(run.ema)
    export(transformer.cpu(), *cache.text)
    run.write_history()


def export(transformer: SD3Transformer2DModel, tower: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer) -> None:
    """Write the folder that `StableDiffusion3Pipeline.from_pretrained` reads, fp16."""
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    vae = AutoencoderKL.from_pretrained(BUNDLED / "scenes-sd" / "vae", dtype=torch.float16)
    vae.register_to_config(shift_factor=0.0)  # the pipeline adds it
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer.half(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=tower.half(),
        tokenizer=tokenizer,
        text_encoder_2=tower.half(),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.save_pretrained(FOLDER)


if __name__ == "__main__":
    main()
