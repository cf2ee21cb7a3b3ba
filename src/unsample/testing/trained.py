"""On a trained network: a method runs in float32 and bfloat16, and leaves everything as it was."""

from __future__ import annotations

import copy
import random
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

import unsample
from unsample.testing.methods import Case
from unsample.testing.problems import seeded
from unsample.testing.words import must, rms

PROMPT = "a large red circle at the left on a white background"
SAMPLES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@cache
def network(name: str, dtype: torch.dtype) -> Any:
    """A bundled model, loaded once."""
    return unsample.load(name, dtype=dtype)


def global_state(model: Any) -> dict[str, Any]:
    """What a verb must leave as it was."""
    unet = model.unet
    hooks = [(n, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in unet.named_modules()]
    return {
        "weights": [p.detach().clone() for p in unet.parameters()],
        "gradients": [(p.grad is None, p.requires_grad) for p in unet.parameters()],
        "attention processors": {k: id(m.processor) for k, m in unet.named_modules() if hasattr(m, "processor")},
        "hooks": hooks,
        "forwards": [n for n, m in unet.named_modules() if "forward" in vars(m)],
        "modes": (unet.training, unet.is_gradient_checkpointing),
        "torch's switches": (torch.is_grad_enabled(), torch.get_default_dtype()),
        "global random state": (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()),  # type: ignore[index]
        "scheduler": copy.deepcopy(dict(model.scheduler.config)),
    }


def must_be_as_before(before: dict[str, Any], model: Any, when: str = "") -> None:
    """Fail where something of `global_state` has changed."""
    after = global_state(model)
    changed = [what for what in before if not same(before[what], after[what])]
    must(not changed, f"it changes what is not its own{when}: {', '.join(changed)}")


def same(a: Any, b: Any) -> bool:
    """Equality through lists, tuples, dicts and tensors."""
    if isinstance(a, Tensor | np.ndarray):
        return bool((a == b).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(p, q) for p, q in zip(a, b, strict=True))
    return bool(a == b)


def it_runs_on_a_trained_network_and_changes_nothing_global(case: Case, dtype: torch.dtype = torch.float32) -> None:
    """Three steps of `scenes-sd` (`scenes-ddpm` for a method without prompts) up and down."""
    method = case.method
    if method.refuses_vp:
        return  # the trained networks preserve the variance
    model = network("scenes-sd" if method.needs_prompt else "scenes-ddpm", dtype)
    prompt = [PROMPT] if method.needs_prompt else None
    noise = torch.randn(1, *model.sample_shape, generator=seeded(0))
    made = unsample.sample(model, prompt, num_inference_steps=3, noise=noise, keep_trajectory=True)
    before = global_state(model)
    extra: dict[str, Any] = {"trajectory": made.trajectory} if method.needs_trajectory else {}
    extra |= {} if method.needs_prompt else {"sampling_guidance_scale": 1.0}
    inversion = unsample.invert(
        model, latents=made.latents, prompt=prompt, method=method, num_inference_steps=3, strength=1.0,
        guidance_scale=1.0, **extra,
    )  # fmt: skip
    again = unsample.reconstruct(model, inversion)
    must_be_as_before(before, model)
    must(inversion.noise.dtype is torch.float32, f"its noise is {inversion.noise.dtype}, not float32")
    kept = {name: t.dtype for name, t in inversion.state.items() if t.dtype is torch.bfloat16}
    must(not kept, f"it keeps {', '.join(kept)} in bfloat16")
    must(not inversion.noise.requires_grad, "its noise carries gradients")
    must(again.status == ["ok"], f"its reconstruction ends with {again.status}")
    if method.exact and not method.reversible:
        # by construction, whatever the network's dtype: what a step misses is stored
        off, most = rms(again.latents - made.latents), 1e-4 if dtype is torch.float32 else 5e-2
        must(off < most, f"it says that it is exact, and comes back to {off:.2g} in {dtype}: at most {most:g}")


def it_runs_on_trained_networks(case: Case) -> None:
    """In both dtypes."""
    for dtype in SAMPLES.values():
        it_runs_on_a_trained_network_and_changes_nothing_global(case, dtype)


CHECKS = (it_runs_on_trained_networks,)
