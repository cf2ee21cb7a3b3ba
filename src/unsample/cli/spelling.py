"""What an unknown option was meant to be: other tools' names for the same thing, and slips of the fingers."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

# Ours, and what diffusers, AUTOMATIC1111's web UI and the scripts of papers call it.
OTHERS = {
    "--guidance-scale": ("cfg", "cfg-scale", "cfgscale", "guidance", "scale", "w", "unconditional-guidance-scale"),
    "--edit-guidance-scale": ("edit-cfg", "target-guidance-scale", "edit-guidance"),
    "--inversion-guidance-scale": ("inv-guidance-scale", "inverse-guidance-scale", "source-guidance-scale"),
    "--num-inference-steps": (
        "ddim-steps",
        "num-steps",
        "n-steps",
        "step",
        "sampling-steps",
        "num-ddim-steps",
        "n-iter",
    ),
    "--negative-prompt": ("neg", "neg-prompt", "n-prompt", "uncond-prompt", "np"),
    "--prompt": ("caption", "text", "p", "source-prompt", "target-prompt"),
    "--target-prompt": (
        "edit-prompt",
        "target",
        "tgt-prompt",
        "new-prompt",
        "editing-prompt",
        "prompt-tgt",
        "caption",
        "p",
    ),
    "--source-prompt": ("source", "src-prompt", "init-prompt", "inversion-prompt", "prompt-src"),
    "--model": (
        "ckpt",
        "checkpoint",
        "model-id",
        "model-path",
        "model-name",
        "pretrained-model-name-or-path",
        "sd-model",
    ),
    "--method": ("inversion-method", "inversion", "sampler", "scheduler", "algorithm"),
    "--methods": ("method", "inversion-method", "sampler"),
    "--output": ("out", "outdir", "out-dir", "output-dir", "output-path", "outpath", "save-dir", "save", "dest"),
    "--overwrite": ("force", "yes", "f", "y", "replace", "exist-ok"),
    "--seed": ("generator", "random-seed", "manual-seed", "seeds"),
    "--num-images": ("n", "num-images-per-prompt", "n-samples", "num-samples", "batch-count", "count", "number"),
    "--num-frames": ("n", "frames", "num-images", "n-frames", "steps", "num-interpolation-steps"),
    "--dtype": ("precision", "torch-dtype", "half", "fp16", "bf16", "weight-dtype"),
    "--strength": ("denoising-strength", "denoise", "t-start", "skip"),
    "--batch-size": ("bs", "batch", "b"),
    "--fit": ("resize", "resize-mode", "size", "crop", "height", "width"),
    "--set": ("param", "config", "setting", "option", "num-iters"),
    "--device": ("gpu", "cuda", "cpu"),
    "--grid": ("figure", "sheet"),
    "--json": ("format", "as-json"),
    "--debug": ("verbose", "v", "traceback"),
}
MOST = 3  # that are named


def meant(option: str, known: Sequence[str]) -> list[str]:
    """The options of a verb that an unknown one may stand for, the likeliest first; none when nothing is near.

    Args:
        option: with its dashes, as it was typed.
        known: the verb's own, with their dashes.
    """
    bare = option.lstrip("-").replace("_", "-").lower()
    if f"--{bare}" in known:
        return [f"--{bare}"]
    same = [ours for ours, theirs in OTHERS.items() if ours in known and bare in theirs]
    near = get_close_matches(f"--{bare}", [k for k in known if k.startswith("--")], n=MOST) if len(bare) > 1 else []
    return same or near
