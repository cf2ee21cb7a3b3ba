"""Every argument of the verbs that says how a picture is made makes another picture."""

from __future__ import annotations

from typing import Any

import torch

import unsample

STEPS = {"num_inference_steps": 4, "progress": False}
OTHERS: dict[str, dict[str, Any]] = {
    "edit": {"guidance_scale": 2.0, "guidance_schedule": "cosine", "negative_prompt": "a blue star"},
    "reconstruct": {"guidance_scale": 2.0, "guidance_schedule": "cosine", "use": "noise"},
    "interpolate": {"guidance_scale": 2.0, "num_frames": 3},
    "sample": {"guidance_scale": 2.0, "guidance_schedule": "cosine", "negative_prompt": "a blue star"},
}


def test_every_argument_of_a_playback_changes_what_is_made() -> None:
    model = unsample.load("scenes-mixture")
    start = {"guidance_scale": 5.0, "generator": torch.Generator().manual_seed(0), **STEPS}
    made = unsample.sample(model, "a red circle", **start)
    inversion = unsample.invert(model, made.images, "a red circle", method="edict", guidance_scale=5.0, **STEPS)
    quiet = {"progress": False}
    verbs: dict[str, Any] = {
        "edit": lambda **more: unsample.edit(
            model, inversion, "a blue circle", **{"guidance_scale": 5.0} | quiet | more
        ),
        "reconstruct": lambda **more: unsample.reconstruct(model, inversion, **quiet, **more),
        "interpolate": lambda **more: unsample.interpolate(model, inversion, inversion, **quiet, **more),
        "sample": lambda **more: unsample.sample(
            model, "a red circle", noise=made.noise, **{"guidance_scale": 5.0} | STEPS | more
        ),
    }
    for verb, others in OTHERS.items():
        plain = verbs[verb]().images
        assert torch.equal(plain, verbs[verb]().images)
        for name, value in others.items():
            assert not torch.equal(plain, verbs[verb](**{name: value}).images), f"{verb}: {name}"
