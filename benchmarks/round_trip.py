"""Round trip at guidance 1: scenes from their recovered noise alone, and the noise of pictures that the model made.

Decibels are medians over held-out scenes: against the autoencoder's round trip (where there is one) and the source.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

from benchmarks.common import load, show
from unsample.datasets import open_dataset
from unsample.experiment.cell import run_cells
from unsample.experiment.setup import Setup
from unsample.methods import get_method

SCENES, MADE, STEPS, BATCH = "scenes:64", "generated:16", 50, 16
METHODS = ("ddim", "fixed_point")
TO_CEILING, TO_SOURCE, STD = "noise.psnr_to_ceiling", "noise.psnr", "recovered.std"
E_LATENT, E_RECON = "recovered.e_latent", "recovered.e_recon"


def values(model: Any, method: str, spec: str, *keys: str) -> dict[str, list[float]]:
    """The values of a data set, `inf` for an exact one."""
    data, found = open_dataset(spec, size=model.picture_size[0]), {key: list[float]() for key in keys}
    metrics = tuple(key.partition(".")[2] for key in keys)
    for k in range(0, len(data), BATCH):
        items = [data[n] for n in range(k, min(k + BATCH, len(data)))]
        of_batch = run_cells(model, items, Setup(method=get_method(method), metrics=metrics, steps=STEPS)).values
        for key in keys:
            found[key] += [math.inf if v["exact"] else v["value"] for v in of_batch[key]]
    return found


def main() -> None:
    columns = ("method", "dB to D(z0)", "dB to source", "noise std", "noise MSE, known", "latent MSE, known")
    for name in ("scenes-sd", "scenes-ddpm"):
        model, rows = load(name), []
        for method in METHODS:
            scenes = values(model, method, SCENES, TO_CEILING, TO_SOURCE, STD)
            made = values(model, method, MADE, E_LATENT, E_RECON)
            decibels = [f"{statistics.median(scenes[key]):.2f}" for key in (TO_CEILING, TO_SOURCE)]
            errors = [f"{statistics.mean(made[key]):.2e}" for key in (E_LATENT, E_RECON)]
            rows.append((method, *decibels, f"{statistics.mean(scenes[STD]):.3f}", *errors))
        show(f"Round trip, {name}", columns, rows, f"{SCENES} and {MADE} (known), {STEPS} steps, w = 1")


if __name__ == "__main__":
    main()
