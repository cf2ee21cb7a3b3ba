"""Train `scenes-clip`: contrastive, with hard negatives, because random batches never teach shape and place.

In half of each batch (with `--freeze-text`, in all of it, and mostly of shapes, which are learnt last) scenes come in
groups that share everything but one attribute. Linear heads that name the
attributes from the picture's embedding, and one that draws the object's mask from the patches, help the image
tower along; they are not kept.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, pixel_unshuffle
from transformers import CLIPConfig, CLIPModel

from training.heads import AttributeHeads, attribute_index, naming_loss
from training.run import BUNDLED, Run, arguments, train_scenes
from training.tokenizer import LENGTH, build
from unsample.datasets.scenes import ATTRIBUTES, Scene, render

BATCH, GROUP, PATCH = 96, 4, 8
WEIGHTS = {"shape": 4, "place": 2, "size": 2, "texture": 3, "colour": 1, "background": 1, "background_texture": 1}
MEAN, STD = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]


def config(vocab_size: int) -> CLIPConfig:
    """2.1 M parameters: vision 64 px in patches of 8, text of 24 tokens."""
    ids = {"eos_token_id": vocab_size - 1, "bos_token_id": vocab_size - 2, "pad_token_id": vocab_size - 1}
    text = {"vocab_size": vocab_size, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3}
    text |= {"num_attention_heads": 4, "max_position_embeddings": LENGTH, "projection_dim": 128, **ids}
    vision = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 6}
    vision |= {"image_size": 64, "patch_size": PATCH, "projection_dim": 128}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=128, logit_scale_init_value=2.66)


def batch(step: int, grouped: float = 0.5, shapes: int = 4) -> list[Scene]:
    """Random scenes, and in a part of the batch groups with one attribute varied; `shapes` is the weight of shape."""
    chooser = random.Random(step)
    scenes = train_scenes(step, BATCH)
    weights = WEIGHTS | {"shape": shapes}
    for g in range(int(BATCH * grouped) // GROUP):
        attribute = chooser.choices(list(weights), list(weights.values()))[0]
        base = scenes[g * GROUP]
        others = [v for v in ATTRIBUTES[attribute] if v != getattr(base, attribute)]
        if attribute in ("colour", "background"):
            others = [v for v in others if v not in (base.colour, base.background)]
        for k, value in enumerate(chooser.sample(others, min(GROUP - 1, len(others)))):
            scenes[g * GROUP + 1 + k] = base.replace(**{attribute: value})
    return scenes


class Trained(nn.Module):
    """The model and the heads that help it."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.clip = CLIPModel(config(vocab_size))
        self.heads = AttributeHeads(192)
        self.mask = nn.Linear(192, PATCH * PATCH)


def main() -> None:
    options = arguments(__doc__ or "", steps=4000, switches=["--freeze-text"])
    torch.manual_seed(0)
    tokenizer = build()
    model = Trained(len(tokenizer)).to(options.device)
    folder = BUNDLED / "scenes-clip"
    if options.freeze_text:  # its hidden states are what the U-Net of scenes-sd reads; only the vision tower goes on
        model.clip.text_model.requires_grad_(False)

    def committed() -> dict[str, Tensor]:
        kept = CLIPModel.from_pretrained(folder, dtype=torch.float32).state_dict()
        return {f"clip.{k}": v for k, v in kept.items()}

    run = Run("clip", model, lr=8e-4, steps=options.steps, folder=folder, committed=committed)
    if options.freeze_text:
        frozen = {k: v for k, v in run.ema.items() if k.startswith("clip.text_model.")}
        model.load_state_dict(frozen, strict=False)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        scenes = batch(step, 1.0, 20) if options.freeze_text else batch(step)
        drawn = render(scenes)
        pixels, mask = ((drawn.images - 0.5) / 0.5).to(options.device), drawn.object_mask.to(options.device)
        tokens = tokenizer([s.caption for s in scenes], padding="max_length", return_tensors="pt").to(options.device)
        with torch.autocast(options.device, torch.bfloat16):
            seen = model.clip.vision_model(pixels)
            vision = seen.pooler_output
            drawn_mask = model.mask(seen.last_hidden_state[:, 1:]).float()  # (B, 64 patches, 64 pixels)
            text = model.clip.text_model(input_ids=tokens["input_ids"]).pooler_output
            image_embeds = model.clip.visual_projection(vision).float()
            text_embeds = model.clip.text_projection(text).float()
            named = model.heads(vision)
        image_embeds = image_embeds / image_embeds.norm(dim=-1, keepdim=True)
        text_embeds = text_embeds / text_embeds.norm(dim=-1, keepdim=True)
        logits = image_embeds @ text_embeds.T * model.clip.logit_scale.exp().clamp(max=100)
        truth = torch.arange(len(scenes), device=options.device)
        contrastive = (cross_entropy(logits, truth) + cross_entropy(logits.T, truth)) / 2
        index = attribute_index(scenes, options.device)
        heads = naming_loss(named, index)
        patches = pixel_unshuffle(mask, PATCH).flatten(2).transpose(1, 2)
        outline = binary_cross_entropy_with_logits(drawn_mask, patches)
        shape = (named["shape"].argmax(-1) == index["shape"]).float().mean().item()
        right = (logits.argmax(-1) == truth).float().mean().item()
        return contrastive + 0.2 * heads + 2 * outline, {
            "contrastive": contrastive.item(),
            "outline": outline.item(),
            "top1": right,
            "shape_head": shape,
        }

    run.loop(loss, minutes=options.minutes)
    export(run, model)


def export(run: Run, model: Trained) -> None:
    """Write the EMA as a transformers folder, fp16."""
    model.load_state_dict(run.ema)
    folder = BUNDLED / "scenes-clip"
    model.clip.half().save_pretrained(folder)
    build().save_pretrained(folder)
    from transformers import CLIPImageProcessor

    size = {"height": 64, "width": 64}
    kept = CLIPImageProcessor(size=size, do_center_crop=False, image_mean=MEAN, image_std=STD)
    kept.save_pretrained(folder)
    run.write_history()


if __name__ == "__main__":
    main()
