"""Every row of the table of methods does what its facts declare. A new row is tested with no new line here.

The contract is said in `unsample.testing`, for the methods of others too; here each of its checks is a test of each
row. Rows run at their `quick` preset and at most ten steps, on the closed-form mixture (float64), where a guided text
condition is exact, seen as a diffusion that preserves the variance ("vp") and as a flow ("flow"), and on a trained
network of the kind that they apply to. A row that says why it refuses one of the two is held to the refusal.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

import unsample
from tests.problems import PROMPTS
from unsample.errors import BadOption, UnknownName
from unsample.methods import BUILT_IN, MethodFacts, get_method
from unsample.methods.citations import arxiv_ids, bibtex
from unsample.models.guidance import SCHEDULES, guidance_scales
from unsample.numbers.grid import grid_from_scheduler
from unsample.testing import failures, methods, table, trained
from unsample.testing.methods import Case, kinds_of
from unsample.testing.problems import KINDS

EVERY = pytest.mark.parametrize("name", BUILT_IN)
HOMES = {name: kinds_of(get_method(name)) for name in BUILT_IN}
REFUSED = [(name, kind) for name in BUILT_IN for kind in KINDS if kind not in HOMES[name]]
AT_HOME = pytest.mark.parametrize(("name", "kind"), [(n, HOMES[n][0]) for n in BUILT_IN])
ON_BOTH = pytest.mark.parametrize(("name", "kind"), [(n, k) for k in KINDS for n in BUILT_IN if k in HOMES[n]])
EDITING = [n for n in BUILT_IN if get_method(n).refuses_edit is None]

pytestmark = [
    pytest.mark.filterwarnings("ignore:invert. .* did not converge"),
    pytest.mark.filterwarnings("ignore:the noisiest of"),
    pytest.mark.filterwarnings("ignore:.*does not account for guidance"),
    pytest.mark.filterwarnings("ignore:.*recovered a noise of std"),
]
case = cache(Case)  # each row's inversion is made once
row = cache(lambda name: table.Named("method", name))


# ---------------------------------------------------------------- the table


@EVERY
def test_the_facts_are_stated(name: str) -> None:
    facts = BUILT_IN[name]
    assert isinstance(facts, MethodFacts)
    table.its_facts_are_stated(row(name))
    assert facts.family.strip()
    assert re.search(r"arXiv:\d{4}\.\d{5}", facts.reference)
    assert bibtex(arxiv_ids(facts.reference)).count("@misc") >= 1


@EVERY
def test_the_factory_is_public_documented_and_configured_by_keyword_defaults(name: str) -> None:
    factory = BUILT_IN[name].factory
    assert getattr(unsample.methods, factory.__name__) is factory
    assert "Example:" in (inspect.getdoc(factory) or "")
    table.its_factory_is_configured_and_documented(row(name))


@EVERY
def test_every_setting_can_be_written_as_text(name: str) -> None:
    table.its_settings_can_be_written_as_text(row(name))


@EVERY
def test_a_setting_that_is_not_as_declared_is_refused_by_name(name: str) -> None:
    table.its_settings_are_refused_where_they_are_not_as_declared(row(name))


@EVERY
def test_every_preset_is_a_method_and_changes_something_it_names(name: str) -> None:
    table.its_presets_are_settings_of_it(row(name))


def test_unknown_methods_are_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="unknown method 'fixd_point'; did you mean 'fixed_point'"):
        get_method("fixd_point")
    for wrong in (5, None, ["ddim"]):
        with pytest.raises(BadOption, match="a name or a configured method"):
            get_method(wrong)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what it does


@ON_BOTH
def test_it_inverts_and_reconstructs(name: str, kind: str) -> None:
    methods.it_inverts_and_reconstructs(case(name, kind))


@ON_BOTH
def test_a_saved_inversion_plays_back_as_the_one_in_memory(name: str, kind: str, tmp_path: Path) -> None:
    methods.a_saved_inversion_plays_back_as_the_one_in_memory(case(name, kind), tmp_path)


@ON_BOTH
def test_it_edits_or_says_why_it_cannot(name: str, kind: str) -> None:
    methods.it_edits_or_says_why_it_cannot(case(name, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_methods_are_one(kind: str) -> None:
    """Edits that agree bit for bit would be one method under two names."""
    here = [case(name, kind) for name in EDITING if kind in HOMES[name]]
    edits = {c.name: unsample.edit(c.model, c.inversion, list(PROMPTS)[::-1]).latents for c in here}
    names = list(edits)
    for k, one in enumerate(names):
        for other in names[k + 1 :]:
            assert not torch.equal(edits[one], edits[other]), f"{one} and {other} edit alike"


@ON_BOTH
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("guided", [False, True])
def test_its_cost_is_what_it_declares(name: str, kind: str, steps: int, guided: bool) -> None:
    methods.its_cost_is_what_it_declares(case(name, kind), steps, guided)


@ON_BOTH
def test_its_declared_exactness_round_trips(name: str, kind: str) -> None:
    methods.its_exactness_is_what_it_declares(case(name, kind))


@ON_BOTH
def test_a_batch_gives_what_single_pictures_give(name: str, kind: str) -> None:
    methods.a_batch_gives_what_single_pictures_give(case(name, kind))


@ON_BOTH
@pytest.mark.usefixtures("global_rng_unchanged")
def test_the_same_seed_gives_the_same_bits(name: str, kind: str) -> None:
    methods.the_same_seed_gives_the_same_bits(case(name, kind))


@ON_BOTH
def test_strength_works(name: str, kind: str) -> None:
    methods.strength_works(case(name, kind))


@ON_BOTH
def test_its_record_says_how_it_was_made(name: str, kind: str) -> None:
    methods.its_record_says_how_it_was_made(case(name, kind))


@ON_BOTH
def test_a_record_is_played_back_under_the_guidance_it_was_fitted_with(name: str, kind: str) -> None:
    methods.a_record_is_played_back_under_the_guidance_it_was_fitted_with(case(name, kind))


@ON_BOTH
def test_it_inverts_under_its_own_guidance_unless_told(name: str, kind: str) -> None:
    methods.it_inverts_under_its_own_guidance_unless_told(case(name, kind))


# ---------------------------------------------------------------- wrong use


@pytest.mark.parametrize(("name", "kind"), REFUSED)
def test_noise_levels_that_it_refuses_are_refused_before_any_work(name: str, kind: str) -> None:
    failures.noise_levels_that_it_refuses_are_refused_before_any_work(case(name, kind))


@AT_HOME
def test_wrong_use_is_refused_before_any_work(name: str, kind: str) -> None:
    failures.wrong_use_is_refused_before_any_work(case(name, kind))


@AT_HOME
def test_a_network_without_gradients_is_refused_where_they_are_needed(name: str, kind: str) -> None:
    failures.a_network_without_gradients_is_refused_where_they_are_needed(case(name, kind))


# ---------------------------------------------------------------- what can go wrong in a batch


@AT_HOME
def test_adversarial_starts_end_finite_or_are_said_to_diverge(name: str, kind: str) -> None:
    failures.adversarial_starts_end_finite_or_are_said_to_diverge(case(name, kind))


@AT_HOME
def test_a_picture_that_is_lost_leaves_the_others_untouched(name: str, kind: str) -> None:
    failures.a_picture_that_is_lost_leaves_the_others_untouched(case(name, kind))


@AT_HOME
@pytest.mark.parametrize(("at_call", "value"), [(1, torch.nan), (3, torch.inf)])
def test_an_answer_that_is_not_finite_is_named_with_its_picture_whatever_becomes_of_it(
    name: str, kind: str, at_call: int, value: float
) -> None:
    failures.an_answer_that_is_not_finite_is_named_with_its_picture(case(name, kind), at_call, value)


# ---------------------------------------------------------------- trained networks


@EVERY
@pytest.mark.parametrize("dtype", trained.SAMPLES.values(), ids=trained.SAMPLES)
def test_it_runs_on_a_trained_network_and_changes_nothing_global(name: str, dtype: Any) -> None:
    trained.it_runs_on_a_trained_network_and_changes_nothing_global(case(name, HOMES[name][0]), dtype)


def test_guidance_schedules_run_from_the_noisiest_step_to_the_last() -> None:
    grid = grid_from_scheduler(DDIMScheduler(), 5)
    at = {name: guidance_scales(5.0, name, grid) for name in SCHEDULES}
    assert at["constant"] == (5.0,) * 6
    assert at["linear"][5] == at["cosine"][5] == 5.0  # s = 0: the step that leaves the noisiest point
    assert at["linear"][1] == at["cosine"][1] == pytest.approx(1.0)  # s = 1: the last step
    assert at["linear"][3] == at["cosine"][3] == pytest.approx(3.0)
    assert at["linear"][4] == pytest.approx(4.0)
    assert at["increasing"][1:] == pytest.approx(at["linear"][:0:-1])
    assert at["cosine"][4] == pytest.approx(1 + 4 * (1 + 0.5**0.5) / 2)
    assert guidance_scales(5.0, lambda s: 2 + s, grid)[1:] == pytest.approx((3.0, 2.75, 2.5, 2.25, 2.0))
    with pytest.raises(UnknownName, match="guidance schedule 'cosin'"):
        guidance_scales(5.0, "cosin", grid)
    with pytest.raises(BadOption, match="finite"):
        guidance_scales(5.0, lambda s: -1.0, grid)
