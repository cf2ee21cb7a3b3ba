"""What each method costs over the bare network: wall time over the forward and backward passes it ran, timed bare.

As many bare passes (20 at most) are timed before every run of a method. Of both the shortest time counts, since what
else a machine does can only lengthen one. At most 1.15 is asked of every method without a regulariser; of
`pix2pix_zero` and `renoise` the share of the wall time that the regulariser takes stands beside the ratio, by running
the same method without it. Memory is how far one inversion raises the resident memory of a process of its own.

    python -m benchmarks.method_cost [--methods NAME,NAME] [--docs]

With `--docs` the table is written into `docs/methods.md` too.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import unsample
from benchmarks.common import growth, in_child, scene_batch, seconds, show, where
from unsample.methods import METHODS, get_method, setting_defaults
from unsample.report.docs import table_of, write_section

STEPS, SKIPPED = 20, ("oracle",)
ENOUGH = 6.0  # seconds for which a method is run again, 4 times at least and 15 at most
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {  # the same method without its regulariser
    "pix2pix_zero": ("ddim", {}),
    "renoise": ("renoise", {"num_reg_steps": 0}),
}


def bare(model: Any, batch: int, condition: Any, passes: int, *, grad: bool) -> float:
    """Seconds of one forward pass, or of one forward and backward pass, of the whole batch, in a row of `passes`."""
    x = torch.randn(batch, *model.sample_shape, generator=torch.Generator().manual_seed(0))

    def call() -> None:
        with torch.set_grad_enabled(grad):
            y = model.network(x.clone().requires_grad_(grad), 500, condition)
            _ = y.square().sum().backward() if grad else None

    call()
    return seconds(lambda: [call() for _ in range(passes)]) / passes


def settings(name: str) -> dict[str, Any]:
    """The quick preset, all iterations run."""
    quick = dict(METHODS[name].quick)
    return quick | ({"tol": None} if "tol" in setting_defaults(METHODS[name].factory) else {})


def measure(model: Any, method: Any, batch: int) -> tuple[int, int, float, float | None]:
    """Passes forward and backward a picture, wall seconds, and these over what the bare passes take."""
    images, prompts, condition = scene_batch(model, batch)
    for parameter in model.unet.parameters():
        parameter.requires_grad_(False)

    def run() -> unsample.Inversion:
        return unsample.invert(model, images, prompts, method=method, num_inference_steps=STEPS)

    found = run()
    nfe, backward = found.nfe[0], found.backward[0]
    forward, both, times = [], [], []
    while len(times) < 4 or (sum(times) < ENOUGH and len(times) < 15):
        forward.append(bare(model, batch, condition, min(nfe or 1, 20), grad=False))
        both += [bare(model, batch, condition, min(backward, 20), grad=True)] if backward else []
        times.append(seconds(run))
    one = min(forward)
    ideal = nfe * one + backward * (min(both, default=one) - one)
    return nfe, backward, min(times), min(times) / ideal if ideal else None


def peak(name: str, batch: int) -> float:
    """How far one inversion raises the resident memory of this process, with a bare pass behind it, in MB."""
    model = unsample.load("scenes-sd")
    images, prompts, condition = scene_batch(model, batch)
    with torch.no_grad():
        model.network(model.encode(images), 500, condition)
    given = {"method": get_method(name, settings(name)), "num_inference_steps": STEPS}
    return growth(lambda: unsample.invert(model, images, prompts, **given))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="", help="default: all")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/methods.md")
    parser.add_argument("--peak", nargs=2, metavar=("NAME", "BATCH"), help="print the MB of this method alone")
    options = parser.parse_args()
    if options.peak:
        print(peak(options.peak[0], int(options.peak[1])))
        return
    names = [n for n in options.methods.split(",") if n] or [n for n in METHODS if n not in SKIPPED]
    model = unsample.load("scenes-sd")
    rows = []
    for name, batch in tqdm([(name, batch) for name in names for batch in (1, 8)], "method x batch"):
        nfe, backward, wall, ratio = measure(model, get_method(name, settings(name)), batch)
        share = ""
        if name in PLAIN and ratio:
            *_, plain = measure(model, get_method(*PLAIN[name]), batch)
            share = f"{100 * (1 - plain / ratio):.0f} %" if plain else ""
        memory = f"{in_child('benchmarks.method_cost', '--peak', name, batch):.0f}"
        over = f"{ratio:.2f}" if ratio else "-"
        rows.append([name, *map(str, (batch, nfe, backward)), f"{wall:.2f}", over, share, memory])
        tqdm.write("  ".join(rows[-1]), file=sys.stderr)
    columns = ("method", "batch", "forward", "backward", "seconds", "over bare passes", "regulariser", "MB more")
    title = f"Cost of invert, scenes-sd, {STEPS} steps, quick presets, tol=None"
    note = "the shortest of 4 to 15 runs, bare passes timed before each"
    show(title, columns, rows, note)
    if options.docs:
        made = f"`python -m benchmarks.method_cost --docs`, {datetime.date.today()}. {title}; {note}; {where()}."
        write_section(Path("docs/methods.md"), "cost", f"{made}\n\n{table_of(columns, rows)}")


if __name__ == "__main__":
    main()
