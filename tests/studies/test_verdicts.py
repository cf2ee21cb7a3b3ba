"""Verdicts against second computations: coverage on simulated data, intervals by other formulas, Holm by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from unsample.models.minis import PREFIX
from unsample.studies.claimed import Claim
from unsample.studies.verdicts import FAILS, FEW, HOLDS, NOT, Found, Verdict, judge

N = 24


def claim(effect: str, direction: str = "above", least: float = 0.0, **given: Any) -> Claim:
    pairs = {} if effect in ("value", "median", "share") and "against_value" not in given else {"against": {"of": "b"}}
    pairs = {} if "against_value" in given else pairs
    about: dict[str, Any] = {"name": "c", "says": "So.", "value": "v", "of": {"of": "a"}, "n": 3, **pairs}
    return Claim(**{**about, "effect": effect, "direction": direction, "least": least, **given})


def rows_of(a: Any, b: Any = (), model: str = "m") -> list[dict[str, Any]]:
    both = (("a", a), ("b", b))
    return [{"model": model, "unit": k, "of": of, "v": float(v)} for of, values in both for k, v in enumerate(values)]


def found(asked: Claim, a: Any, b: Any = ()) -> Found:
    return judge([asked], rows_of(a, b))[0].found[0]


def drawn(effect: str, rng: np.random.Generator) -> tuple[Any, Any, float]:
    """Two samples, and the true effect."""
    shared = rng.normal(0, 1, N)
    if effect == "value":
        return rng.normal(2, 1, N), (), 2.0
    if effect == "difference":
        return shared + rng.normal(1.5, 0.5, N), shared, 1.5
    if effect == "ratio":
        return np.exp(0.2 * shared) * 3, np.exp(0.2 * rng.normal(0, 1, N)), 3.0
    if effect == "median":
        return rng.exponential(1, N), (), math.log(2)
    return (rng.random(4 * N) < 0.7).astype(float), (), 0.7


@pytest.mark.parametrize("effect", ["value", "difference", "ratio", "share", "median"])
def test_the_interval_covers_the_true_effect_as_often_as_it_says(effect: str) -> None:
    rng, inside, runs = np.random.default_rng(7), 0, 400
    asked = claim(effect)
    for _ in range(runs):
        a, b, truth = drawn(effect, rng)
        each = found(asked, a, b)
        assert each.low is not None
        assert each.high is not None
        inside += each.low <= truth <= each.high
    assert 0.92 <= inside / runs <= (0.99 if effect == "median" else 0.98)  # order statistics cover at least 95 %


def test_a_paired_difference_is_students_paired_test() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.4, 1, N), rng.normal(0, 1, N)
    each, test = found(claim("difference"), a, b), stats.ttest_rel(a, b)
    interval = test.confidence_interval()
    assert (each.low, each.high, each.p) == pytest.approx((interval.low, interval.high, test.pvalue), rel=1e-9)


def test_a_share_has_wilsons_interval_and_the_binomial_p() -> None:
    wins, n, z = 17, 24, stats.norm.ppf(0.975)
    each = found(claim("share", least=0.5), [1.0] * wins + [0.0] * (n - wins))
    share = wins / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    assert (each.low, each.high) == pytest.approx((center - half, center + half), rel=1e-9)
    assert each.p == pytest.approx(2 * sum(math.comb(n, k) for k in range(wins, n + 1)) / 2**n, rel=1e-9)


def test_a_ratio_agrees_with_the_delta_method() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(6, 1, 200), rng.normal(3, 1, 200)
    each = found(claim("ratio", least=1.0), a, b)
    relative = np.cov(np.stack([a / a.mean(), b / b.mean()]))
    error = math.sqrt((relative[0, 0] + relative[1, 1] - 2 * relative[0, 1]) / 200)
    width = stats.t.ppf(0.975, 199) * error
    center = math.log(a.mean() / b.mean())
    assert (each.low, each.high) == pytest.approx((math.exp(center - width), math.exp(center + width)), rel=2e-3)


@pytest.mark.parametrize("count", [6, 8, 9, 16, 99])
def test_a_median_has_the_interval_of_order_statistics_and_the_p_of_signs(count: int) -> None:
    """Hollander and Wolfe's: the k-th value from either end, k the most that leaves 2.5 % outside on each side."""
    values = np.sort(np.random.default_rng(3).exponential(1, count))
    each = found(claim("median", least=0.2), values)
    outside = max(k for k in range(count) if sum(math.comb(count, m) for m in range(k + 1)) / 2**count <= 0.025)
    assert each.effect == pytest.approx(float(np.median(values)))
    assert (each.low, each.high) == (values[outside], values[count - 1 - outside])
    below = int((values < 0.2).sum())
    assert each.p == pytest.approx(min(1.0, 2 * sum(math.comb(count, m) for m in range(below + 1)) / 2**count))


def test_a_median_of_few_units_covers_the_truth_and_of_five_says_nothing() -> None:
    rng, inside = np.random.default_rng(8), 0
    for _ in range(400):
        each = found(claim("median"), rng.exponential(1, 8))
        inside += (each.low or 0.0) <= math.log(2) <= (each.high or 0.0)
    assert inside / 400 >= 0.95
    few = found(claim("median"), [1.0, 2.0, 3.0, 4.0, 5.0])
    assert (few.answer, few.low, few.effect) == (FEW, None, 3.0)
    assert "an interval takes 6" in few.reason


@pytest.mark.parametrize("effect", ["value", "difference", "ratio", "median"])
def test_a_planted_effect_holds_its_opposite_does_not_and_noise_says_nothing(effect: str) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(5, 0.3, N), rng.normal(3, 0.3, N)
    least = {"value": 4.0, "median": 4.0, "difference": 1.0}.get(effect, 1.3)
    beyond = {"value": 6.0, "median": 6.0, "difference": 3.0}.get(effect, 2.5)
    at = {"value": float(a.mean()), "median": float(np.median(a)), "difference": float((a - b).mean())}
    at |= {"ratio": float(a.mean() / b.mean())}
    assert found(claim(effect, "above", least), a, b).answer == HOLDS
    assert found(claim(effect, "above", beyond), a, b).answer == FAILS
    assert found(claim(effect, "below", least), a, b).answer == FAILS
    assert found(claim(effect, "below", beyond), a, b).answer == HOLDS
    assert found(claim(effect, "above", at[effect]), a, b).answer == FEW  # the limit is the effect itself


def test_shares_hold_and_do_not() -> None:
    wins = [1.0] * 22 + [0.0] * 2
    assert found(claim("share", least=0.5), wins).answer == HOLDS
    assert found(claim("share", "below", 0.5), wins).answer == FAILS
    assert found(claim("share", least=0.5), [1.0] * 12 + [0.0] * 12).answer == FEW
    better = found(claim("share", least=0.5, against={"of": "b"}), [2.0] * 24, [1.0] * 24)
    assert (better.effect, better.answer) == (1.0, HOLDS)


def test_within_holds_inside_of_both_limits_alone() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(3, 0.05, N), rng.normal(3, 0.05, N)
    assert found(claim("difference", "within", 0.2), a, b).answer == HOLDS
    assert found(claim("difference", "within", 0.2), a + 1, b).answer == FAILS
    assert found(claim("difference", "within", 0.2), a - 1, b).answer == FAILS
    assert found(claim("ratio", "within", 1.1), a, b).answer == HOLDS
    assert found(claim("ratio", "within", 1.1), a / 2, b).answer == FAILS
    assert found(claim("difference", "within", 0.2), rng.normal(3, 3, N), b).answer == FEW
    wide = stats.zscore(rng.normal(0, 1, N), ddof=1)
    assert (
        found(claim("difference", "within", 0.2, against_value=0.0), wide + 0.3).answer == FEW
    )  # just outside, and not clearly
    assert found(claim("difference", "within", 0.2, against_value=0.0), wide + 0.9).answer == FAILS

    with pytest.raises(ValueError, match="within is around no effect"):
        claim("value", "within", 0.2)


def test_too_few_units_say_nothing_and_units_without_a_pair_do_not_count() -> None:
    assert found(claim("difference", n=5), [2.0, 2.1, 1.9], [1.0, 1.0, 1.1]).answer == FEW
    assert found(claim("difference"), [2.0, 2.1, 1.9, 2.0], [1.0, 1.0, 1.1]).n == 3
    nothing = judge([claim("difference")], rows_of([1.0, 2.0]))[0]
    assert (nothing.answer, nothing.found[0].answer) == (NOT, NOT)
    assert "of b" in nothing.reason


def test_holms_correction_is_the_one_made_by_hand() -> None:
    rows: list[dict[str, Any]] = []
    asked = []
    around = stats.zscore(np.random.default_rng(6).normal(0, 1, N), ddof=1)
    for k, shift in enumerate((0.9, 0.47, 0.45, 0.1)):
        rows += [{"model": "m", "unit": u, "of": f"a{k}", "v": float(v)} for u, v in enumerate(around + shift)]
        asked.append(claim("value", name=f"c{k}", of={"of": f"a{k}"}))
    each = [verdict.found[0] for verdict in judge(asked, rows)]
    ps = [e.p or 0.0 for e in each]
    order = sorted(range(4), key=lambda k: ps[k])
    by_hand, highest = [0.0] * 4, 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, ps[k] * (4 - rank)))
        by_hand[k] = highest
    assert [e.holm for e in each] == pytest.approx(by_hand)
    assert any(p <= 0.05 < holm for p, holm in zip(ps, by_hand, strict=True))  # it decides something here
    assert [e.answer == HOLDS for e in each] == [holm <= 0.05 for holm in by_hand]


def nature(small: int, larger: tuple[float, ...] = (1.0, 1.0), minis: int = 12) -> Verdict:
    """Of a claim on `minis` small models, of which `small` agree, and on larger ones with these effects."""
    rng, rows = np.random.default_rng(8), []
    effects = {f"{PREFIX}{k}": 1.0 if k < small else -1.0 for k in range(minis)}
    effects |= {f"larger-{k}": effect for k, effect in enumerate(larger)}
    for model, effect in effects.items():
        rows += rows_of(rng.normal(effect, 0.2, N), model=model)
    return judge([claim("value", nature=True)], rows)[0]


def test_a_claim_about_the_nature_of_inversion_needs_ten_of_twelve_and_every_larger_model() -> None:
    assert nature(12).answer == nature(10).answer == HOLDS
    assert nature(9).answer == nature(12, (1.0, -1.0)).answer == FAILS
    assert nature(11, minis=11).answer == nature(12, (1.0,)).answer == FEW
    assert "10 of 12" in nature(10).reason


def test_an_effect_on_its_side_that_is_too_small_to_count_is_no_sign() -> None:
    rng, rows = np.random.default_rng(10), []
    small = {f"{PREFIX}{k}": 3.0 if k < 9 else 1.2 for k in range(12)}
    for model, ratio in {**small, "larger-0": 3.0, "larger-1": 3.0}.items():
        rows += rows_of(rng.normal(ratio, 0.05, N), rng.normal(1, 0.05, N), model=model)
    half = judge([claim("ratio", least=2.0, nature=True)], rows)[0]
    assert [e.sign for e in half.found] == [1] * 9 + [0] * 3 + [1, 1]
    assert (half.answer, "9 of 12" in half.reason) == (FAILS, True)
    assert judge([claim("ratio", least=1.1, nature=True)], rows)[0].answer == HOLDS
    other = judge([claim("ratio", "below", 0.5, nature=True)], rows)[0]
    assert {e.sign for e in other.found} == {-1}


def test_a_ratio_to_what_may_be_nothing_says_nothing() -> None:
    below = found(claim("ratio", least=2.0), [1.0] * 9, [-1.0] * 9)
    assert (below.answer, below.effect, "not above 0" in below.reason) == (NOT, None, True)
    steep = found(claim("ratio", least=2.0), [1.0] * 3, [-1.0, 0.4, 2.0])
    assert (steep.answer, steep.low, steep.sign, "not above 0" in steep.reason) == (FEW, None, 0, True)


def test_one_small_network_against_it_leaves_a_claim_open_and_three_settle_it() -> None:
    rng, answers = np.random.default_rng(11), []
    for against in (1, 3):
        rows: list[dict[str, Any]] = []
        for k in range(12):
            centre, width = (-1.0, 0.2) if k < against else (-0.05, 1.0) if k < 3 else (1.0, 0.2)
            rows += rows_of(centre + width * stats.zscore(rng.normal(0, 1, N)), model=f"{PREFIX}{k}")
        for k in range(2):
            rows += rows_of(rng.normal(1, 0.2, N), model=f"larger-{k}")
        answers.append(judge([claim("value", nature=True)], rows)[0].answer)
    assert answers == [FEW, FAILS]


def test_units_that_are_all_alike_have_no_interval() -> None:
    each = found(claim("value", least=0.9), [1.0] * 32)
    assert (each.answer, each.effect, each.low, "every unit" in each.reason) == (FEW, 1.0, None, True)
    assert found(claim("share", least=0.9), [1.0] * 32).answer == FEW  # Wilson's lower end is .893
    assert found(claim("share", least=0.9), [1.0] * 64).answer == HOLDS


def test_of_several_models_it_holds_on_each() -> None:
    rng = np.random.default_rng(9)
    rows = [row for k, m in enumerate((1.0, -1.0)) for row in rows_of(rng.normal(m, 0.2, N), model=f"m{k}")]
    verdict = judge([claim("value")], rows)[0]
    assert verdict.answer == FAILS
    assert "m1" in verdict.reason
    assert "m0" not in verdict.reason


def test_of_fewer_units_than_a_claim_takes_no_sign_counts() -> None:
    names = [f"{PREFIX}{k}" for k in range(12)] + ["larger-0", "larger-1"]
    rows = [row for name in names for row in rows_of([1.0, 1.1], model=name)]
    verdict = judge([claim("value", nature=True)], rows)[0]
    assert verdict.answer == FEW
    assert "0 of 12" in verdict.reason


def test_a_ratio_that_one_picture_turns_has_an_interval_too() -> None:
    each = found(claim("ratio", "below", 1.0), [0.1] * 9 + [-0.8], [1.0] * 10)
    assert each.effect == pytest.approx(0.01)
    assert (each.low or 0.0) < 0.01 < (each.high or 0.0)


@pytest.mark.parametrize("effect", ["value", "median", "share", "difference"])
def test_what_is_no_number_gives_no_verdict(effect: str) -> None:
    given = {"least": 0.5, "against_value": 0.0} if effect == "share" else {}
    each = found(claim(effect, **given), [1.0] * 11 + [math.nan], [0.0] * 12)
    assert each.answer == NOT
