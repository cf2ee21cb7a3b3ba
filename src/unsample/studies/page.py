"""The page of a study: one HTML file that needs nothing else, no host and no script."""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unsample.models.minis import COUNT, minis
from unsample.studies import get_study
from unsample.studies.base import Study
from unsample.studies.claimed import Claim
from unsample.studies.means import means_of, number, numbers_of
from unsample.studies.passes import pictures_told
from unsample.studies.plotting import short
from unsample.studies.running import StudyResult, command_of
from unsample.studies.verdicts import FAILS, FEW, HOLDS, NOT, Found, Verdict, limits_of

HERE = Path(__file__).parent
KINDS = {HOLDS: "holds", FAILS: "fails", FEW: "few", NOT: "not"}  # a verdict's class in the style
SVG_MOST = 400_000  # bytes, above which the figure is shown as PNG
WIDE = 900  # pixels of a figure at which a narrow window scrolls it
READING = (
    "The dot is the effect on one model, the line its 95 % interval over units (pictures, or splits of them); the thin "
    "line is no effect, the dashed ones are what the claim asks for.",
    "holds: the interval lies where the claim says. does not hold: it lies on the other side. too few samples: it "
    "reaches over the limit, or would with the correction. not comparable: the rows do not have what it is about.",
    "p is of the effect lying on the other side of the limit; p, Holm, is corrected over the claims of this study on "
    "one model, and decides.",
    f"A claim about the nature of inversion holds where the effect lies as claimed on 10 of {COUNT} small networks and "
    "on every larger model. In its row of signs + is as claimed, − on the other side of no effect, · between the two, "
    "or of too few units.",
)


@dataclass(frozen=True)
class Bar:
    """An effect as a drawing 208 wide: x of the dot, of its interval, of no effect, and of the limits."""

    effect: float
    low: float | None
    high: float | None
    null: float
    limits: tuple[float, ...]


def study_page(
    found: StudyResult, pictures: Mapping[str, bytes], said: Sequence[str] = (), in_site: bool = False
) -> str:
    """The file's text.

    Args:
        found: the study's result.
        pictures: its figure, by file name; none where it could not be drawn.
        said: what could not be made, and what to install.
        in_site: whether there is an index in the folder above.
    """
    study, about = get_study(found.name), found.about
    claims = [verdict.claim for verdict in found.verdicts]
    means = means_of(found.rows, {key for claim in claims for key in (*claim.of, *(claim.against or ()))})
    return render(
        "study.html.jinja",
        title=f"{found.name}: {study.question}",
        study=study,
        in_site=in_site,
        samples=samples_told(found),
        cautions=cautions_of(found, said),
        picture=_picture(pictures),
        wide=_width(pictures) >= WIDE,
        verdicts=[verdict_shown(each) for each in found.verdicts],
        reading=READING,
        means=means,
        units="units (pictures, or splits of them)",
        count=f"{len(numbers_of(found.rows)):,}",
        command=shlex.join(command_of(found.name, found.asked)),
        made=_made(study, about),
    )


def render(template: str, **given: Any) -> str:
    """A page of a template of this folder, in the style of reports."""
    from unsample import __version__
    from unsample.report.page import HERE as REPORT
    from unsample.report.page import environment, policy

    style = Markup("\n".join((folder / "page.css").read_text("utf-8") for folder in (REPORT, HERE)))
    page = environment(HERE).get_template(template)
    return page.render(style=style, policy=policy(style), version=__version__, **given)


def samples_told(found: StudyResult) -> str:
    """Models, pictures, steps and seed, in words."""
    asked, models = found.asked, len(dict.fromkeys(row["model"] for row in found.rows))
    said = f"{models} model{'s' if models != 1 else ''}, {pictures_told(found.about.get('pictures', {}))}"
    return f"{said}, {asked.steps} steps each way, seed {asked.seed}."


def cautions_of(found: StudyResult, said: Sequence[str]) -> list[str]:
    """What a reader must know first."""
    study, cautions = get_study(found.name), list(said)
    if found.asked.quick:
        cautions.append("Made with every method's quick preset: a look, not a result.")
    if found.asked.num_samples < study.num_samples:
        cautions.append(f"Made with --num-samples {found.asked.num_samples}; by default it is {study.num_samples}.")
    if found.asked.steps != study.steps:
        cautions.append(f"Made with {found.asked.steps} steps; by default it takes {study.steps}.")
    if any(verdict.claim.nature for verdict in found.verdicts):
        here = sum(model in minis() for model in {str(row["model"]) for row in found.rows})
        if here < COUNT:
            cautions.append(
                f"{here} of the {COUNT} small networks took part: claims about the nature of inversion need them all."
            )
    if failed := found.about.get("failed_cells"):
        cautions.append(f"{failed:,} of {found.about.get('cells', 0):,} cells failed; their rows lack values.")
    for each in found.about.get("apart", ()):
        cautions.append(f"{each['kind']}: {each['reason']}.")
    if diverged := found.about.get("diverged_cells"):
        cautions.append(
            f"{diverged:,} of {found.about.get('cells', 0):,} cells diverged: they have no values, and no verdict."
        )
    return cautions


def _picture(pictures: Mapping[str, bytes]) -> str:
    """The figure as a data URL: drawn lines where they are few, else pixels."""
    svg, png = pictures.get("figure.svg", b""), pictures.get("figure.png", b"")
    if not png:
        return ""
    kind, content = ("svg+xml", svg) if 0 < len(svg) <= SVG_MOST else ("png", png)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _width(pictures: Mapping[str, bytes]) -> int:
    """Pixels of the PNG, as its header says."""
    return int.from_bytes(pictures.get("figure.png", b"")[16:20], "big")


def _made(study: Study, about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Whatever a number depends on."""
    keys = (
        "num_samples",
        "steps",
        "seed",
        "quick",
        "cells",
        "failed_cells",
        "diverged_cells",
    )  # no seconds: pages are the same bits
    rows = [(key.replace("_", " "), str(about[key])) for key in keys if key in about]
    rows += [("needs", ", ".join(study.needs))] if study.needs else []
    rows += [(f"SHA-256 of {name}", sha256) for name, sha256 in about.get("weights_sha256", {}).items()]
    return rows + [(name, version) for name, version in about.get("versions", {}).items()]


# ---------------------------------------------------------------- verdicts


def verdict_shown(verdict: Verdict) -> dict[str, Any]:
    """A verdict for the template."""
    claim = verdict.claim
    scale = _Scale.of(verdict)
    return {
        "verdict": verdict,
        "kind": KINDS[verdict.answer],
        "judged": judged(claim),
        "effect": claim.effect.replace("_", " "),
        "signs": [_sign(claim, each) for each in verdict.found] if claim.nature else [],
        "lines": [_line(each, scale) for each in verdict.found],
    }


def judged(claim: Claim) -> str:
    """How a claim is judged, in words."""
    of = _where(claim.of)
    against = f" against {_where(claim.against)}" if claim.against else ""
    if claim.against is None and claim.against_value is not None:
        against = f" against {number(claim.against_value)}"
    said = f"Judged by the {claim.effect.replace('_', ' ')} of {claim.value} ({of}{against})"
    return f"{said}: {claim.direction} {number(claim.least)}, from {claim.n} units on."


def _where(where: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in where.items()) or "every row"


def _sign(claim: Claim, found: Found) -> dict[str, str]:
    kind, sign = {1: ("plus", "+"), 0: ("none", "·"), -1: ("minus", "−")}[found.sign]
    return {"kind": kind, "sign": sign, "model": short(found.model), "effect": number(found.effect)}


def _line(found: Found, scale: _Scale | None) -> dict[str, Any]:
    whole = found.low is None or found.high is None or found.low == found.high
    return {
        "model": found.model,
        "short": short(found.model),
        "effect": number(found.effect),
        "interval": "" if whole else f"[{number(found.low)}, {number(found.high)}]",
        "n": found.n,
        "p": p_told(found.p),
        "holm": p_told(found.holm),
        "answer": found.answer,
        "reason": found.reason,
        "bar": None if scale is None else scale.bar(found),
    }


def p_told(p: float | None) -> str:
    """A p-value; below one in a thousand its size does not count."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


@dataclass(frozen=True)
class _Scale:
    """One for all models of a claim."""

    low: float
    high: float
    logarithmic: bool
    null: float
    limits: tuple[float, ...]

    @staticmethod
    def of(verdict: Verdict) -> _Scale | None:
        """None where there is nothing to draw."""
        claim = verdict.claim
        effects = [e.effect for e in verdict.found if e.effect is not None]
        if not effects:
            return None
        logarithmic = claim.effect == "ratio" and min(effects) > 0
        limits = tuple(x for x in limits_of(claim) if math.isfinite(x) and (x > 0 or not logarithmic))
        values = [*effects, claim.null, *limits]
        values += [x for e in verdict.found for x in (e.low, e.high) if x is not None and (x > 0 or not logarithmic)]
        into = math.log if logarithmic else float
        near = [into(x) for x in (*effects, claim.null, *limits)]
        span = max(near) - min(near) or 1.0
        ends = [into(x) for x in values]
        low, high = max(min(ends), min(near) - span), min(max(ends), max(near) + span)
        return _Scale(low, high if high > low else low + 1.0, logarithmic, claim.null, limits)

    def x(self, value: float) -> float:
        """Where a value is drawn; beyond an end, at it."""
        if self.logarithmic and value <= 0:
            return 4.0
        at = math.log(value) if self.logarithmic else value
        return round(4 + 200 * min(1.0, max(0.0, (at - self.low) / (self.high - self.low))), 1)

    def bar(self, found: Found) -> Bar | None:
        """Of one model."""
        if found.effect is None:
            return None
        low, high = (None, None) if found.low is None or found.high is None else (self.x(found.low), self.x(found.high))
        return Bar(self.x(found.effect), low, high, self.x(self.null), tuple(map(self.x, self.limits)))
