"""Verdicts, computed from rows and claims alone: never written by hand.

On one model the effect has a 95 % interval over units: of means, differences, ratios and shares by the jackknife and
Student's t (of ratios on the logarithm), of medians by order statistics and the sign test. The claim's p-value is that
of the effect lying on the other side of `least`, and the p-values of a study's claims on one model are corrected by
Holm's method. So a verdict is `holds`, `does not hold` (the effect lies clearly on the other side, or is clearly too
small), `too few samples` (the interval reaches over the limit), or `not comparable`, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any, Final, Literal

from unsample.models.minis import COUNT, is_mini
from unsample.studies.base import REPELLING
from unsample.studies.claimed import Claim

Answer = Literal["holds", "does not hold", "too few samples", "not comparable"]
HOLDS: Final = "holds"
FAILS: Final = "does not hold"
FEW: Final = "too few samples"
NOT: Final = "not comparable"
LEVEL, ENOUGH = 0.05, 10  # of minis whose sign must agree
MEDIAN = 6  # units below which a median has no such interval
UNSTEADY = "what it is a ratio to is not above 0, or would not be without one unit: a ratio says nothing"
ALIKE = "every unit gave the same: their spread gives no interval"
WITHOUT_SCIPY = "scipy is not installed: pip install 'unsample[studies]'"


@dataclass(frozen=True)
class Found:
    """A claim on one model: effect, its 95 % interval, p-values (`p` as it is, `holm` corrected), and the verdict."""

    model: str
    answer: Answer
    n: int = 0
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    holm: float | None = None
    sign: int = 0  # 1: as claimed, -1: on the other side of no effect, 0: between, or of too few units
    reason: str = ""

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        numbers = {k: getattr(self, k) for k in ("effect", "low", "high", "p", "holm")}
        finite = {k: None if v is None or not math.isfinite(v) else v for k, v in numbers.items()}
        return {"model": self.model, "verdict": self.answer, "n": self.n, **finite, "sign": self.sign} | (
            {"reason": self.reason} if self.reason else {}
        )


@dataclass(frozen=True)
class Verdict:
    """A claim, what was found of it on each model, and what follows."""

    claim: Claim
    answer: Answer
    found: tuple[Found, ...]
    reason: str = ""

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        about: dict[str, Any] = {
            "claim": self.claim.name,
            "says": self.claim.says,
            "verdict": self.answer,
            "reason": self.reason,
        }
        about |= {"effect": self.claim.effect, "direction": self.claim.direction, "least": self.claim.least}
        about |= {"against_value": self.claim.against_value}
        return about | {"published": self.claim.published, "models": [each.plain() for each in self.found]}


def judge(claims: Sequence[Claim], rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """The verdicts of a study's claims, in their order.

    Args:
        claims: of `claimed.claims_of`.
        rows: finished rows; `model` and `unit` are columns of them.
    """
    models = list(dict.fromkeys(str(row["model"]) for row in rows))
    by_model = {model: [row for row in rows if row["model"] == model] for model in models}
    table = {m: _corrected([_on(c, m, by_model[m]) for c in claims if not c.models or m in c.models]) for m in models}
    found: dict[str, list[Found]] = {claim.name: [] for claim in claims}
    for model in models:
        about = [claim for claim in claims if not claim.models or model in claim.models]
        for claim, (_, each) in zip(about, table[model], strict=True):
            found[claim.name].append(each)
    return [_verdict(claim, found[claim.name]) for claim in claims]


def _verdict(claim: Claim, found: list[Found]) -> Verdict:
    if not found or all(each.answer == NOT for each in found):
        reason = found[0].reason if found else "no model that it is about was run"
        return Verdict(claim, NOT, tuple(found), reason)
    judged = [each for each in found if each.answer != NOT]
    answer, reason = _of_nature(judged) if claim.nature else _of_all(judged)
    return Verdict(claim, answer, tuple(found), reason)


def _of_all(found: Sequence[Found]) -> tuple[Answer, str]:
    """Of a claim about the models that ran: it holds on each."""
    against = [named(each.model) for each in found if each.answer == FAILS]
    few = [named(each.model) for each in found if each.answer == FEW]
    if against:
        more = "" if len(found) == 1 else f"on {len(against)} of {len(found)} models ({', '.join(against)})"
        return FAILS, more
    return (FEW, "" if len(found) == 1 else f"on {', '.join(few)}") if few else (HOLDS, "")


def named(model: str) -> str:
    """A model's name in a sentence: the longest change to a scheduler in two words."""
    return model.replace(REPELLING, " on trailing")


def _of_nature(found: Sequence[Found]) -> tuple[Answer, str]:
    """Of a claim about inversion itself: it is as claimed on 10 of the 12 minis, and on every larger model."""
    small, large = ([e for e in found if is_mini(e.model) is is_small] for is_small in (True, False))
    agree, larger = sum(e.sign > 0 for e in small), sum(e.sign > 0 for e in large)
    said = f"as claimed on {agree} of {len(small)} minis and {larger} of {len(large)} larger models"
    if len(small) < COUNT or len(large) < 2:
        return FEW, f"{said}; it takes {COUNT} and at least 2"
    if agree >= ENOUGH and larger == len(large):
        return HOLDS, said
    clearly = [e for e in found if e.answer == FAILS]
    many = sum(is_mini(e.model) for e in clearly)
    if many > COUNT - ENOUGH or many < len(clearly):
        return FAILS, said
    return FEW, f"{said}; clearly against it {many or 'none'}, which leaves it open"


def _corrected(pairs: list[tuple[Claim, Found]]) -> list[tuple[Claim, Found]]:
    """Holm's correction over the claims of one model, and the verdicts that follow."""
    ranked = sorted((k for k, (_, each) in enumerate(pairs) if each.p is not None), key=lambda k: pairs[k][1].p or 0.0)
    holm, highest = {}, 0.0
    for rank, k in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - rank) * (pairs[k][1].p or 0.0)))
        holm[k] = highest
    return [(claim, _answered(claim, replace(each, holm=holm.get(k)))) for k, (claim, each) in enumerate(pairs)]


def _answered(claim: Claim, found: Found) -> Found:
    if found.holm is None or found.effect is None:
        return found
    answer: Answer = FEW
    if found.holm <= LEVEL:
        answer = HOLDS if _beyond(claim, found.effect) else FAILS
    return replace(found, answer=answer)


def _beyond(claim: Claim, effect: float) -> bool:
    low, high = limits_of(claim)
    return low < effect < high


def limits_of(claim: Claim) -> tuple[float, float]:
    """Where an effect must lie for the claim to hold."""
    if claim.direction == "above":
        return claim.least, math.inf
    if claim.direction == "below":
        return -math.inf, claim.least
    if claim.effect == "ratio":
        return min(claim.least, 1 / claim.least), max(claim.least, 1 / claim.least)
    return claim.null - claim.least, claim.null + claim.least


def _on(claim: Claim, model: str, rows: Sequence[Mapping[str, Any]]) -> tuple[Claim, Found]:
    """The effect on one model, before any correction."""
    pairs, reason = _pairs(claim, rows)
    if not pairs:
        return claim, Found(model, NOT, reason=reason)
    statistic, logarithmic = _statistic(claim)
    paired = claim.against is not None or claim.against_value is not None
    finite = all(math.isfinite(a) and (math.isfinite(b) or not paired) for a, b in pairs)
    effect = statistic(pairs) if finite else math.nan
    if not math.isfinite(effect):
        reason = UNSTEADY if finite else "the effect is no finite number"
        return claim, Found(model, NOT, n=len(pairs), reason=reason)
    side = {"above": 1, "below": -1, "within": 0}[claim.direction]
    sign = 1 if _beyond(claim, effect) else 0 if side * (effect - claim.null) > 0 else -1
    found = Found(model, FEW, len(pairs), effect, effect, effect, sign=sign)
    if claim.exact:
        return claim, replace(found, p=0.0)
    least = MEDIAN if claim.effect == "median" else 2
    if len(pairs) < max(claim.n, least):
        few = len(pairs) < claim.n  # below it nothing is said, not even a sign
        units = f"{len(pairs)} unit{'s' if len(pairs) > 1 else ''}"
        reason = f"{units}; it takes {claim.n}" if few else f"{units}; an interval takes {least}"
        return claim, replace(found, low=None, high=None, sign=0 if few else sign, reason=reason)
    try:
        low, high, p = _interval(claim, pairs, statistic, logarithmic)
    except ImportError:
        return claim, Found(model, NOT, len(pairs), effect, reason=WITHOUT_SCIPY)
    if not math.isfinite(low + high):
        return claim, replace(found, low=None, high=None, sign=0, reason=UNSTEADY)
    if math.isnan(p):
        return claim, replace(found, low=None, high=None, reason=ALIKE)
    return claim, replace(found, low=low, high=high, p=p)


def _pairs(claim: Claim, rows: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[float, float]], str]:
    """A and B of each unit; or why there is none."""
    first = _column(claim, rows, claim.of)
    if not first:
        return [], f"no row has {claim.value} for {_said(claim.of)}"
    if claim.against is None:
        other = math.nan if claim.against_value is None else claim.against_value
        return [(a, other) for a in first.values()], ""
    second = _column(claim, rows, claim.against)
    both = [(a, second[unit]) for unit, a in first.items() if unit in second]
    return both, "" if both else f"no row has {claim.value} for {_said(claim.against)}"


def _column(claim: Claim, rows: Sequence[Mapping[str, Any]], where: Mapping[str, Any]) -> dict[Any, float]:
    """The mean of the value for each unit."""
    found: dict[Any, list[float]] = {}
    for row in rows:
        given = row.get(claim.value)
        if given is not None and all(row.get(key) == wanted for key, wanted in where.items()):
            found.setdefault(row["unit"], []).append(float(given))
    return {unit: math.fsum(values) / len(values) for unit, values in found.items()}


def _said(where: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in where.items()) or "any"


Statistic = Callable[[Sequence[tuple[float, float]]], float]


def _statistic(claim: Claim) -> tuple[Statistic, bool]:
    """The effect of pairs, and whether its interval is taken on the logarithm."""
    kinds: dict[str, tuple[Statistic, bool]] = {
        "value": (lambda pairs: fmean([a for a, _ in pairs]), False),
        "difference": (lambda pairs: fmean([a - b for a, b in pairs]), False),
        "ratio": (lambda pairs: _over(fmean([a for a, _ in pairs]), fmean([b for _, b in pairs])), True),
        "share": (lambda pairs: fmean([float(a > (0.5 if math.isnan(b) else b)) for a, b in pairs]), False),
        "median": (lambda pairs: median([a for a, _ in pairs]), False),
    }
    return kinds[claim.effect]


def _over(a: float, b: float) -> float:
    return a / b if b > 0 else math.nan


def _interval(
    claim: Claim, pairs: Sequence[tuple[float, float]], statistic: Statistic, logarithmic: bool
) -> tuple[float, float, float]:
    """Low and high end, and the p-value of the effect lying on the other side of a limit."""
    if claim.effect == "median":
        return _of_median(claim, [a for a, _ in pairs])
    if claim.effect == "share":
        return _of_share(claim, pairs, statistic)
    from scipy import stats

    n = len(pairs)
    plain = [statistic(pairs), *(statistic([*pairs[:k], *pairs[k + 1 :]]) for k in range(n))]
    if not all(map(math.isfinite, plain)):
        return math.nan, math.nan, 1.0
    into: Callable[[float], float] = math.log if logarithmic and min(plain) > 0 else float
    back: Callable[[float], float] = math.exp if into is math.log else float
    effect, *without = (into(each) for each in plain)
    ends = [_into(into, end) for end in limits_of(claim)]
    center = fmean(without)
    error = math.sqrt((n - 1) / n * math.fsum((each - center) ** 2 for each in without))
    if error <= 1e-12 * abs(effect):
        return back(effect), back(effect), math.nan
    width = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
    near = [end for end in ends if math.isfinite(end)]
    p = max((_tail(stats, effect - end, error, n) for end in near), default=0.0)
    return back(effect - width), back(effect + width), p


def _into(into: Callable[[float], float], end: float) -> float:
    if not math.isfinite(end):
        return end
    return into(end) if into is not math.log or end > 0 else -math.inf


def _tail(stats: Any, distance: float, error: float, n: int) -> float:
    """Two-sided, as the 95 % interval is."""
    return float(2 * stats.t.sf(abs(distance) / error, n - 1))


def _of_median(claim: Claim, values: Sequence[float]) -> tuple[float, float, float]:
    """By the narrowest order statistics that cover it in 95 % of samples at least, and the sign test."""
    from scipy import stats

    ranked, n = sorted(values), len(values)
    outside = int(stats.binom.ppf(LEVEL / 2, n, 0.5))  # the fewest values that may lie below it
    low, high = ranked[outside - 1], ranked[n - outside]
    p = 0.0
    for end in (end for end in limits_of(claim) if math.isfinite(end)):
        below, above = sum(value < end for value in values), sum(value > end for value in values)
        p = max(p, float(stats.binomtest(below, below + above).pvalue) if below + above else 1.0)
    return low, high, p


def _of_share(claim: Claim, pairs: Sequence[tuple[float, float]], statistic: Statistic) -> tuple[float, float, float]:
    """By the binomial distribution, with Wilson's interval."""
    from scipy import stats

    wins, n = round(statistic(pairs) * len(pairs)), len(pairs)
    tests = [stats.binomtest(wins, n, end) for end in limits_of(claim) if 0 <= end <= 1]
    around = stats.binomtest(wins, n).proportion_ci(1 - LEVEL, method="wilson")
    return float(around.low), float(around.high), float(max((t.pvalue for t in tests), default=0.0))
