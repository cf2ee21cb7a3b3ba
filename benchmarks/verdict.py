"""Is the grade of an inversion right? Pictures that models made, inverted: what the verdict says, and what is so.

`python -m benchmarks.verdict --split report --rows out/verdict.jsonl --docs docs/methods.md` makes the table "verdict"
of docs/methods.md. Finished cases are lines of the file of rows, and are not run again. The bounds of 50 steps in
`unsample.numbers.verdict` were chosen with `--split tune`. With `--few` it is the table "verdict_few": 20 steps in
place of 50, a flow, and guidance.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import unsample
from benchmarks.common import show
from unsample.datasets.scenes import SEED_RANGES, draw_scene
from unsample.errors import UnsampleWarning
from unsample.media.files import atomic_write
from unsample.methods import get_method
from unsample.metrics.recovery import mse
from unsample.models.minis import is_mini, minis
from unsample.numbers.verdict import CONTRACTS, LATENT, RECON, SURE, graded, sure
from unsample.report.docs import table_of, write_section
from unsample.studies.base import DDPM, FLOW, REPELLING, SD

(STEPS, TIGHT, _), (FEW, TIGHTER, _) = SURE
TO_THE_END = "fixed_point(60, tol=1e-6)"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "anderson": ("anderson", {}),
    TO_THE_END: ("fixed_point", {"num_iters": 60, "tol": 1e-6}),
    "fixed_point(10)": ("fixed_point", {"num_iters": 10}),
}
TITLES = (
    *("models", "grid", "method", "pictures", "recovered", "graded so", "of these right", "of those found"),
    *("graded to reconstruct at least", "of these right"),
)
BY_THE_BOUNDS = f"right of those within the bounds of {STEPS} steps, at any guidance"


@dataclass(frozen=True)
class Case:
    """One method on one model."""

    model: str
    method: str
    guidance_scale: float
    split: str
    count: int
    steps: int = STEPS

    @property
    def strong(self) -> bool:
        """Whether its guidance is stronger than is graded."""
        return self.guidance_scale > self.sure[1]

    @property
    def sure(self) -> tuple[float, float]:
        """The bounds that it is held to."""
        return sure(self.steps, self.flow)

    @property
    def flow(self) -> bool:
        """Whether its model is one."""
        return self.model == FLOW

    @property
    def group(self) -> tuple[str, str, str]:
        """The row of the table that it belongs to."""
        name, _, changed = self.model.partition("[")
        own = "the minis" if is_mini(self.model) else name
        own += "" if self.guidance_scale == 1 else f", w = {self.guidance_scale:g}"
        own += "" if self.steps == STEPS else f", {self.steps} steps"
        return own, "trailing" if changed else "own", self.method


Finished = Sequence[tuple[Case, list[dict[str, Any]]]]


def cases(split: str, dear: int, cheap: int, few: bool) -> list[Case]:
    """All of them, so many pictures of each larger model and of each mini; the iteration to the end on minis alone."""
    small, large = (
        [name + changed for name in names for changed in ("", REPELLING)] for names in (minis(), (DDPM, SD))
    )
    if few:
        found = [Case(model, "anderson", 1.0, split, cheap, FEW) for model in small]
        found += [Case(model, "anderson", 1.0, split, dear, FEW) for model in large]
        found += [Case(FLOW, "anderson", 1.0, split, dear, n) for n in (STEPS, FEW)]
        return [*found, *(Case(SD, "anderson", w, split, dear, n) for w, n in ((3.0, FEW), (7.5, FEW), (7.5, STEPS)))]
    found = []
    for method in METHODS:
        found += [Case(model, method, 1.0, split, cheap) for model in small]
        found += [Case(model, method, 1.0, split, dear) for model in large if method != TO_THE_END]
    return [*found, Case(SD, "anderson", 3.0, split, dear)]


def done(case: Case) -> list[dict[str, Any]]:
    """A row a picture."""
    model = unsample.load(case.model)
    seeds = [SEED_RANGES[case.split][0] + k for k in range(case.count)]
    prompts = [draw_scene(seed).caption for seed in seeds] if model.takes_prompt else None
    given: dict[str, Any] = {"num_inference_steps": case.steps, "progress": False}
    given["guidance_scale"] = case.guidance_scale
    drawn = [torch.Generator().manual_seed(seed) for seed in seeds]
    each = {} if prompts else {"num_images_per_prompt": case.count}
    made = unsample.sample(model, prompts, generator=drawn, **each, **given)
    method = get_method(*METHODS[case.method])
    found = unsample.invert(model, latents=made.latents, prompt=prompts, method=method, first_step_radius=True, **given)
    again = unsample.sample(model, prompts, noise=found.noise, **given)
    latent, recon = mse(found.noise, made.noise).tolist(), mse(again.latents, made.latents).tolist()
    names = ("residual", "residual_step", "first_step", "std")
    return [
        {"seed": seed, "e_latent": a, "e_recon": b, "status": status} | {name: health[name] for name in names}
        for seed, a, b, status, health in zip(seeds, latent, recon, found.status, found.health, strict=True)
    ]


def with_grades(case: Case, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the grade that `invert` gives such a picture: with other bounds, nothing is run again."""
    given: dict[str, Any] = {"steps": case.steps, "flow": case.flow, "guidance": case.guidance_scale}
    return [row | {"grade": graded(row, row["status"], None, exact=True, **given)[0]} for row in rows]


def judged(rows: Sequence[dict[str, Any]]) -> list[str]:
    """How many pictures, how many truly recovered; graded so, of these right, of the recovered found; and the rest."""
    recovered = [row for row in rows if row["e_latent"] <= LATENT]
    said = [row for row in rows if row["grade"] == "recovered"]
    right = [row for row in said if row["e_latent"] <= LATENT]
    played = [row for row in rows if row["grade"] != "neither"]
    back = [row for row in played if row["e_recon"] <= RECON]
    shares = [(right, said), (right, recovered), (back, played)]
    precise, found, made = (f"{len(a)} of {len(b)}" if b else "-" for a, b in shares)
    return [str(len(rows)), str(len(recovered)), str(len(said)), precise, found, str(len(played)), made]


def nearest(finished: Finished) -> str:
    """The smallest radius of a picture that was solved and not recovered, under a guidance that is graded."""
    held_to = [(row, case.sure[0]) for case, rows in finished if not case.strong for row in rows]
    radii = [solved(row, tight) for row, tight in held_to if row["e_latent"] > LATENT]
    known = [radius for radius in radii if radius is not None]
    return f"{min(known):.2f}" if known else "none"


def solved(row: dict[str, Any], tight: float) -> float | None:
    """Its radius, where its residual is within a bound."""
    radius: float | None = row["first_step"]["radius"]
    return None if row["residual"] is None or row["residual"] > tight else radius


def by_the_bounds(rows: Sequence[dict[str, Any]]) -> str:
    """How many would be rightly called recovered by the residual and the radius of 50 steps alone."""
    radii = [(row, solved(row, TIGHT)) for row in rows]
    told = [row["e_latent"] <= LATENT for row, radius in radii if radius is not None and radius < CONTRACTS]
    return f"{sum(told)} of {len(told)}" if told else "-"


def table(rows: Finished, few: bool) -> list[list[str]]:
    """A line a group, and one of all."""

    def line(own: Sequence[dict[str, Any]]) -> list[str]:
        return [*judged(own), *([by_the_bounds(own)] if few else [])]

    lines = []
    for group in dict.fromkeys(case.group for case, _ in rows):
        lines.append([*group, *line([row for case, some in rows if case.group == group for row in some])])
    return [*lines, ["all", "", "", *line([row for _, some in rows for row in some])]]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--split", choices=("tune", "report"), default="tune")
    asked.add_argument("--rows", type=Path, required=True, help="where finished cases are kept, a line each")
    asked.add_argument("--docs", type=Path, help="a document with a place for the table")
    asked.add_argument("--few", action="store_true", help="20 steps in place of 50, a flow, and guidance")
    asked.add_argument("--finished", action="store_true", help="the table of the cases that are finished; run none")
    asked.add_argument("--pictures", type=int, nargs=2, default=(16, 16), help="of a larger model, of a mini")
    given = asked.parse_args()
    warnings.simplefilter("ignore", UnsampleWarning)
    kept = given.rows.read_text().splitlines() if given.rows.exists() else []
    known = {Case(**line["case"]): line["rows"] for line in map(json.loads, kept)}
    rows = []
    for case in cases(given.split, *given.pictures, given.few):
        if case not in known and given.finished:
            continue
        if case not in known:
            known[case] = done(case)
            kept.append(json.dumps({"case": asdict(case), "rows": known[case]}))
            given.rows.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(given.rows, lambda temporary: temporary.write_text("\n".join(kept) + "\n"))
        rows.append((case, with_grades(case, known[case])))
    lines, titles = table(rows, given.few), (*TITLES, *([BY_THE_BOUNDS] if given.few else []))
    also = " where no other number is said" if given.few else ""
    tighter = f" ({TIGHTER:g} in {FEW} steps, and of a flow)" if given.few else ""
    note = (
        f"`python -m benchmarks.verdict --split {given.split} --pictures {given.pictures[0]} {given.pictures[1]}"
        f"{' --few' if given.few else ''}{' --finished' if given.finished else ''}`: "
        f"pictures that the models made from {given.split} seeds, {STEPS} steps{also}, inverted from their latents "
        f"with `first_step_radius`. Recovered: an E_latent of at most {LATENT:g}; reconstructed: an E_recon of at most "
        f"{RECON:g}. The smallest radius of a picture with a residual of at most {TIGHT:g}{tighter} that was not "
        f"recovered: {nearest(rows)}."
    )
    show("The grade of an inversion", titles, lines, note)
    if given.docs is not None:
        write_section(given.docs, "verdict_few" if given.few else "verdict", f"{note}\n\n{table_of(titles, lines)}")


if __name__ == "__main__":
    main()
