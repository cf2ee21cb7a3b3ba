"""What the studies of Zeng et al. (arXiv:2606.03111) share: their methods as a plan writes them, and names for rows.

The paper states neither optimiser nor learning rate of the hybrid's 1,000 updates. The bundled models get fewer, at a
rate that was chosen on `tune` seeds; any other model gets the paper's number at the library's rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from unsample.models.minis import PREFIX, minis
from unsample.models.variants import parted
from unsample.studies.base import DDPM, MIXTURE, REPELLING, SD, Asked, Row, is_cheap

ITERS = 10  # of the fixed point, and ReNoise's predictions
OWN, TRAILED = "own", "trailing"  # grids, as rows call them
UPDATES, RATES = 200, {OWN: 3e-3, TRAILED: 1e-2}  # of the hybrid on bundled models, by grid
FIXED = f"fixed_point[num_iters={ITERS}]"
PLAIN = ("ddim", "pix2pix_zero", FIXED, f"renoise[num_renoise_steps={ITERS - 1}]")
ORACLE = f"oracle[num_steps=1,base=fixed_point,base.num_iters={ITERS}]"
CALLED = {"fixed_point": "aidi"}  # what the paper's table calls it: without prompts averaging changes nothing there
COST = (
    "AIDI is the plain fixed point with ten iterations, as in the paper's reproduction; ReNoise makes ten predictions.",
    f"On bundled models the hybrid's first step has {UPDATES} updates of Adam at {RATES[OWN]:g}, on trailing spacing "
    f"{RATES[TRAILED]:g} (chosen on tune seeds); on others the paper's 1,000 at the library's rate, since the paper "
    "states none.",
)


GRIDS = (
    "Bundled models are asked twice: on the grid that is their own (leading spacing, diffusers' default; the paper "
    "states none), and on trailing from a clean end, where the first step is long and the truth may repel the fixed "
    "point. eigenvalue, of the fixed point's map at the true point, tells by how much: above 1 in size it repels.",
)


def models() -> tuple[str, ...]:
    """Those of a claim about the nature of inversion, by themselves: each is run on two grids."""
    return (SD, DDPM, MIXTURE, *minis())


def on_both(asked: Asked) -> Asked:
    """What is asked, and of bundled models the same on the grid whose first step repels."""
    more = [[m, m + REPELLING] if bundled(m) and parted(m) == (m, {}) else [m] for m in asked.models]
    return replace(asked, models=tuple(dict.fromkeys(name for both in more for name in both)))


def grid_of(model: str) -> dict[str, str]:
    """The columns `model` and `grid` of a row."""
    name = model.removesuffix(REPELLING)
    spacing = parted(model)[1].get("timestep_spacing")
    return {"model": name, "grid": TRAILED if spacing == "trailing" else OWN}


def in_order(rows: Iterable[Row], asked: Asked) -> list[Row]:
    """By the models asked for, as they are named in rows; the own grid first."""
    place = {grid_of(model)["model"]: k for k, model in reversed([*enumerate(asked.models)])}
    return sorted(rows, key=lambda row: (place[row["model"]], row["grid"] != OWN))


def grids_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Model and grid of rows, in their order."""
    return list(dict.fromkeys((str(row["model"]), str(row["grid"])) for row in rows))


def titled(model: str, grid: str) -> str:
    """Model and grid as the title of a panel."""
    from unsample.studies.plotting import short

    return short(model) + ("" if grid == OWN else f", {grid}")


def bundled(model: str) -> bool:
    """Whether it is one of ours, which are run at less than the paper's cost."""
    return model.startswith((PREFIX, "scenes-"))


def hybrid(model: str, asked: Asked) -> str:
    """The paper's method for a model."""
    if asked.quick:
        return "hybrid[num_updates=10,lr=0.01]"
    return f"hybrid[num_updates={UPDATES},lr={RATES[grid_of(model)['grid']]:g}]" if bundled(model) else "hybrid"


def called(method: str) -> str:
    """A method's name in rows."""
    name = method.partition("[")[0]
    return CALLED.get(name, name)


def groups(asked: Asked) -> list[Asked]:
    """What is asked of models that are run alike, the quick ones first: ours or not, cheap or dear, on one grid."""
    found: dict[tuple[bool, bool, str], list[str]] = {}
    for model in sorted(asked.models, key=lambda model: (not bundled(model), not is_cheap(model))):
        found.setdefault((bundled(model), is_cheap(model), grid_of(model)["grid"]), []).append(model)
    return [replace(asked, models=tuple(some)) for some in found.values()]


def split(asked: Asked) -> list[Asked]:
    """The same, of half of the pictures where a prediction is dear, of our own."""
    half = max(1, asked.num_samples // 2)
    return [
        replace(own, num_samples=half if bundled(own.models[0]) and not is_cheap(own.models[0]) else own.num_samples)
        for own in groups(asked)
    ]
