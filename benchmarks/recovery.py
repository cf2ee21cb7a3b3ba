"""The table of Zeng et al. on `scenes-ddpm`: how well the noise of generated pictures is recovered.

`E_latent`, `E_recon` and `E_interp` (their Eq. 9 to 11) beside cosine and std, because shrinking an estimate lowers its
mean squared error; with the rows `zero` (nothing), `random_noise` (the floor) and `oracle` (the true first step, then
fixed point). Their AIDI row is ten plain fixed-point iterations, their ReNoise runs ten.

    python -m benchmarks.recovery            # the table, 128 pictures, report seeds; finished rows are skipped
    python -m benchmarks.recovery --tune     # hybrid's learning rate, 8 pictures, tune seeds
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import unsample
from benchmarks.ledger import dates, finished, markdown, write_section
from benchmarks.tables import generators, load
from unsample.datasets.scenes import SEED_RANGES
from unsample.metrics.recovery import cosine, mean_interval, mse, std
from unsample.numbers.slerp import slerp

COUNT, STEPS, BATCH = 128, 50, 64
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("ddim", {}),
    "pix2pix_zero": ("pix2pix_zero", {"base": "ddim"}),
    "fixed_point(10) (the paper's AIDI)": ("fixed_point", {"num_iters": 10}),
    "aidi_e(10)": ("aidi_e", {"num_iters": 10}),
    "aidi_a(10)": ("aidi_a", {"num_iters": 10}),
    "renoise(10)": ("renoise", {"num_renoise_steps": 9}),
    "forward_first": ("forward_first", {}),
    "random_noise": ("random_noise", {}),
    "oracle(1) then fixed_point(10)": (
        "oracle",
        {"num_steps": 1, "base": {"name": "fixed_point", "settings": {"num_iters": 10}}},
    ),
    "hybrid": ("hybrid", {}),
}
COLUMNS = ("method", "E_latent", "E_recon", "E_interp", "cosine", "std", "NFE", "backward", "n")


def pictures(model: Any, seeds: str, count: int) -> unsample.Images:
    """Generated pictures, with the noise and the trajectory they came from."""
    first = SEED_RANGES[seeds][0]
    made = unsample.sample(
        model, num_inference_steps=STEPS, generator=generators(range(first, first + count)), keep_trajectory=True
    )
    return replace(made, images=made.images.cpu(), latents=made.latents.cpu(), noise=made.noise.cpu())


def figures(model: Any, made: unsample.Images, estimate: Tensor, cost: tuple[int, int]) -> dict[str, Any]:
    """One row: means over the pictures with half widths of 95 % intervals."""

    def again(noise: Tensor) -> Tensor:
        return unsample.sample(model, num_inference_steps=STEPS, noise=noise.float()).latents.cpu()

    halfway = torch.cat([slerp(a[None], b[None], 0.5) for a, b in zip(made.noise, estimate, strict=True)])
    values = {
        "E_latent": mse(estimate, made.noise),
        "E_recon": mse(again(estimate), made.latents),
        "E_interp": mse(again(halfway), made.latents),
        "cosine": cosine(estimate, made.noise),
        "std": std(estimate),
    }
    row: dict[str, Any] = {k: mean_interval(v) for k, v in values.items()}
    return row | {"median E_latent": float(values["E_latent"].median()), "nfe": cost[0], "backward": cost[1]}


def inverted(model: Any, made: unsample.Images, method: Any) -> tuple[Tensor, tuple[int, int]]:
    """The estimates of all pictures, and the cost of one."""
    parts, cost = [], (0, 0)
    for k in range(0, len(made), BATCH):
        rows = slice(k, k + BATCH)
        assert made.trajectory is not None
        extra = {"trajectory": made.trajectory[:, rows]} if method.needs_trajectory else {}
        found = unsample.invert(
            model, latents=made.latents[rows], method=method, num_inference_steps=STEPS, generator=0, **extra
        )
        parts.append(found.noise.cpu())
        cost = found.nfe[0], found.backward[0]
    return torch.cat(parts), cost


def table() -> None:
    """Make what is missing, and write docs/methods.md."""
    model = load("scenes-ddpm")
    about = {"model": model.weights_sha256(), "count": COUNT, "steps": STEPS, "seeds": "report"}
    made = pictures(model, "report", COUNT)
    rows = {
        "zero": finished("recovery", "zero", about, lambda: figures(model, made, torch.zeros_like(made.noise), (0, 0)))
    }
    for label, (name, settings) in ROWS.items():
        method = unsample.methods.get_method(name, settings)
        key = about | {"method": name, "settings": dict(method.settings)}

        def make(method: Any = method) -> dict[str, Any]:
            return figures(model, made, *inverted(model, made, method))

        rows[label] = finished("recovery", label, key, make)
    shown = [
        [
            label,
            *(f"{r[c][0]:.3g} ± {r[c][1]:.1g}" for c in COLUMNS[1:6]),
            str(r["nfe"]),
            str(r["backward"]),
            str(COUNT),
        ]
        for label, r in rows.items()
    ]
    note = (
        f"`python -m benchmarks.recovery`, {dates('recovery')}: {COUNT} pictures that scenes-ddpm made from report "
        f"seeds, {STEPS} steps, started from x0 raw; means ± half width of the 95 % interval."
    )
    write_section("recovery", f"{note}\n\n{markdown(COLUMNS, shown)}")
    print(markdown(COLUMNS, shown))


def tune() -> None:
    """Hybrid's learning rate on tune seeds."""
    model = load("scenes-ddpm")
    made = pictures(model, "tune", 8)
    for lr in (3e-4, 1e-3, 3e-3, 1e-2):
        method = unsample.methods.get_method("hybrid", {"lr": lr})
        row = figures(model, made, *inverted(model, made, method))
        print(f"lr {lr:g}: E_latent {row['E_latent'][0]:.4f}, E_recon {row['E_recon'][0]:.3e}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tune() if options.tune else table()
