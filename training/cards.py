"""Model cards: what a bundled model is, how it was made, what it reaches, what it cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unsample.media.files import atomic_write

ABOUT = {
    "scenes-clip": (
        "zero-shot-image-classification",
        "A `CLIPModel` (2.1 M parameters) of the procedural picture world *scenes*: 64-pixel pictures, captions of up "
        "to 24 tokens. Its text tower is the text encoder of `scenes-sd`.",
        ["python -m training.clip", "python -m training.clip --freeze-text"],
    ),
    "scenes-sd": (
        "text-to-image",
        "A `StableDiffusionPipeline` of the procedural picture world *scenes*: AutoencoderKL f4 (64x64x3 to 16x16x4), "
        "U-Net of 4.8 M parameters with cross-attention at 16x16 and 8x8, the text tower of `scenes-clip`, DDIM "
        "scaled_linear 0.00085-0.012, epsilon.",
        ["python -m training.vae all", "python -m training.vae decoder", "python -m training.sd"],
    ),
    "scenes-flow": (
        "text-to-image",
        "A `StableDiffusion3Pipeline` of the procedural picture world *scenes*: a rectified flow, "
        "`SD3Transformer2DModel` of 3.6 M parameters (4 joint blocks of width 160 over 64 patches of 2x2 latents), "
        "`FlowMatchEulerDiscreteScheduler` with shift 1, the autoencoder of `scenes-sd`, the text tower of "
        "`scenes-clip` as both CLIP encoders, no T5 (for diffusers: `from_pretrained(folder, text_encoder_3=None, "
        "tokenizer_3=None)`). Pictures of 64x64 only.",
        ["python -m training.flow --threads 1 --compile --finish 102"],
    ),
    "scenes-ddpm": (
        "unconditional-image-generation",
        "A `DDPMPipeline` of the procedural picture world *scenes*: 32x32 pixels, unconditional, linear 1e-4-0.02, "
        "epsilon. Run with DDIM: leading spacing, offset 0, `set_alpha_to_one=True`, no clipping.",
        [
            "git checkout 9ecd597 -- training  # the script has changed since these weights",
            "python -m training.ddpm --compile --workers 13 --finish 8.2",
        ],
    ),
}
LIMITS = (
    "Scores are not comparable with those of Stable Diffusion or of any paper. Flat cartoon areas make some findings "
    "(plain regions invert worse) likely by construction. Nothing is said of photographs, free-form prompts, human "
    "preference, half-precision overflow of real autoencoders, or wall time of real models."
)


def write_card(folder: Path, rows: Sequence[tuple[str, ...]], where: str, histories: dict[str, dict[str, Any]]) -> None:
    """Write `README.md` beside the weights."""
    tag, about, commands = ABOUT[folder.name]
    lines = ["---", "license: apache-2.0", "library_name: diffusers", f"pipeline_tag: {tag}"]
    lines += ["tags: [diffusion-inversion, unsample, synthetic]", "---", f"# {folder.name}", "", about, ""]
    lines += ["Trained by the unsample project on its own generated data; weights and code are Apache-2.0.", ""]
    lines += ["## Evaluation", "", f"By `make models-eval`: {where}.", ""]
    lines += ["| measure | value | at least | verdict | n |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(row[1:])} |" for row in rows]
    lines += ["", "## Training", "", "Data: `unsample.datasets.scenes`, `train` seeds, drawn on the fly. Commands:", ""]
    lines += ["```", *commands, "```", "", "| part | steps | hours | on |", "|---|---|---|---|"]
    lines += [f"| {n} | {h['steps']} | {h['hours']:.2f} | {h['on']} |" for n, h in histories.items()]
    lines += ["", "Loss curves (means of 100 steps):", ""]
    for name, history in histories.items():
        lines += [f"`{name}`: {curve(history['curve'])}", ""]
    lines += ["## Limits", "", LIMITS, ""]
    atomic_write(folder / "README.md", lambda temporary: temporary.write_text("\n".join(lines)))


def curve(rows: Sequence[dict[str, float]], points: int = 12) -> str:
    """The loss at evenly spaced steps, in a line."""
    step = max(len(rows) // points, 1)
    kept = [*rows[::step], *rows[-1:]]
    return ", ".join(f"{row['step']}: {row['loss']:.4g}" for row in {r["step"]: r for r in kept}.values())
