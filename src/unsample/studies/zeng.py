"""What the studies of Zeng et al. (arXiv:2606.03111) share: their methods as a plan writes them, and names for rows.

The paper states neither optimiser nor learning rate of the hybrid's 1,000 updates. The bundled models get fewer, at a
rate that was chosen on `tune` seeds; any other model gets the paper's number at the library's rate.
"""

from __future__ import annotations

from dataclasses import replace

from unsample.models.minis import PREFIX
from unsample.studies.base import Asked, is_cheap

ITERS = 10  # of the fixed point, and ReNoise's predictions
UPDATES, RATE = 200, 3e-3  # of the hybrid on bundled models
FIXED = f"fixed_point[num_iters={ITERS}]"
PLAIN = ("ddim", "pix2pix_zero", FIXED, f"renoise[num_renoise_steps={ITERS - 1}]")
ORACLE = f"oracle[num_steps=1,base=fixed_point,base.num_iters={ITERS}]"
CALLED = {"fixed_point": "aidi"}  # what the paper's table calls it: without prompts averaging changes nothing there
COST = (
    "AIDI is the plain fixed point with ten iterations, as in the paper's reproduction; ReNoise makes ten predictions.",
    f"On bundled models the hybrid's first step has {UPDATES} updates of Adam at {RATE:g} (chosen on tune seeds); on "
    "others the paper's 1,000 at the library's rate, since the paper states none.",
)


def bundled(model: str) -> bool:
    """Whether it is one of ours, which are run at less than the paper's cost."""
    return model.startswith((PREFIX, "scenes-"))


def hybrid(model: str, asked: Asked) -> str:
    """The paper's method for a model."""
    if asked.quick:
        return "hybrid[num_updates=10,lr=0.01]"
    return f"hybrid[num_updates={UPDATES},lr={RATE:g}]" if bundled(model) else "hybrid"


def called(method: str) -> str:
    """A method's name in rows."""
    name = method.partition("[")[0]
    return CALLED.get(name, name)


def split(asked: Asked) -> list[Asked]:
    """What is asked of models that are run alike; of half of the pictures where a prediction is dear, of our own."""
    kinds = {  # the quick ones first
        "cheap": ([m for m in asked.models if bundled(m) and is_cheap(m)], asked.num_samples),
        "dear": ([m for m in asked.models if bundled(m) and not is_cheap(m)], max(1, asked.num_samples // 2)),
        "given": ([m for m in asked.models if not bundled(m)], asked.num_samples),
    }
    return [replace(asked, models=tuple(some), num_samples=count) for some, count in kinds.values() if some]
