"""The checks of `unsample.testing` find what is wrong: each is given a method, an editor or a metric that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

import unsample
from unsample.edits import Editor, Steering
from unsample.methods import METHODS, Method, Setting, configured, ddim, ddim_invert_at_target, register
from unsample.metrics import MetricFacts
from unsample.testing import editors, failures, methods, metrics, table, trained
from unsample.testing.checking import run_all

pytestmark = [pytest.mark.usefixtures("tables_restored"), pytest.mark.filterwarnings("ignore")]
FACTS: dict[str, Any] = {"summary": "s", "equation": "e", "cost": "T", "year": 2026, "reference": "unpublished"}


def step(change: Callable[[Any, Any], Any]) -> Any:
    """DDIM's step up, and then something."""

    def changed(predict: Any, x: Any, grid: Any, i: int, j: int, state: Any) -> Any:
        x, state = ddim_invert_at_target(predict, x, grid, i, j, state)
        return change(predict, x), state

    return changed


def lost(predict: Any, x: Any) -> Any:
    return x.nan_to_num(0)


def switched(predict: Any, x: Any) -> Any:
    torch.manual_seed(0)
    return x


WRONG_METHODS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "cost": ({"passes": lambda w: w.steps}, methods.its_cost_is_what_it_declares_throughout, "nfe at 1 steps and gui"),
    "backward": ({"backward": lambda w: 1}, methods.its_cost_is_what_it_declares_throughout, "backward at 1 steps"),
    "exact": ({"exact": True}, methods.its_exactness_is_what_it_declares, "it says that it is exact"),
    "batch": ({"invert_step": step(lambda p, x: x + x.mean(0) / 9)}, methods.a_batch_gives_what_single_pictures_give,
              "the noise of picture 0 alone and in a batch"),
    "random": ({"invert_step": step(lambda p, x: x + torch.randn_like(x) / 99)},
               methods.the_same_seed_gives_the_same_bits, "two inversions with one seed"),
    "seeding": ({"invert_step": step(switched)}, trained.it_runs_on_a_trained_network_and_changes_nothing_global,
                "it changes what is not its own: global random state"),
    "far": ({"invert_step": step(lambda p, x: x.roll(1, -1))}, methods.it_inverts_and_reconstructs,
            "its reconstruction is off by"),
    "nan": ({"invert_step": step(lambda p, x: x * torch.inf)}, methods.it_inverts_and_reconstructs, "diverged"),
    "no edit": ({"edit_step": lambda predict, x, grid, i, j, state: (0 * x, state), "edit_guidance_scale": 1.0,
                 "sample_step": lambda predict, x, grid, i, j, state: (0 * x, state)},
                methods.it_edits_or_says_why_it_cannot, "changes nothing"),
    "fitted": ({"fitted": True}, methods.its_record_says_how_it_was_made, "keeps nothing"),
    "hidden": ({"invert_step": step(lost)}, failures.a_picture_that_is_lost_leaves_the_others_untouched,
               "a picture whose answers are nan ends with"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_METHODS)
def test_a_wrong_method_is_found(what: str) -> None:
    change, check, said = WRONG_METHODS[what]

    def wrong() -> Method:
        """DDIM, and something wrong."""
        return replace(ddim(), **{"passes": lambda w: w.steps * w.pair, **change})

    register(configured(wrong), **FACTS)
    check(methods.Case("ddim", "vp"))
    with pytest.raises(Exception, match=said) as found:
        run_all("wrong", [("", check, methods.Case("wrong", "vp"))])
    assert isinstance(found.value, AssertionError)


class Steered(Steering):
    """Adds something to edits, sources or both, in the first picture or all."""

    def __init__(self, branches: Any, to: slice, more: Callable[[Any], Any]) -> None:
        self.branches, self.to, self.more = branches, to, more

    def after(self, k: int, j: int, x: Any, state: Any) -> Any:
        edits, sources = x[: self.branches.count], x[self.branches.count :]
        both = [self.more(edits) if self.to.start == 0 else edits, self.more(sources) if self.to.stop == 2 else sources]
        return torch.cat(both), state


class Hooked(Steered):
    @contextmanager
    def attached(self) -> Any:
        self.branches.model.unet.conv_in.register_forward_hook(lambda *args: None)
        yield


class Swallowing(Steered):
    @contextmanager
    def asked(self, rows: Any) -> Any:
        try:
            yield
        except KeyboardInterrupt as error:
            raise ValueError("stopped") from error


class Uncounted(Steered):
    def before(self, k: int, i: int, j: int) -> None:
        b = self.branches
        b.model.network(b.noise, b.grid.timesteps[i], b.predict.condition.rows(torch.arange(b.count)))


EDITS, SOURCES = slice(0, 1), slice(1, 2)
BATCHED = editors.a_batch_of_edits_gives_what_single_ones_give
WRONG_EDITORS: dict[str, tuple[Callable[[Any], Steering], Any, str]] = {
    "source": (lambda b: Steered(b, SOURCES, lambda x: x + 0.1), editors.the_source_is_its_reconstruction,
               "a source beside its edit"),
    "identity": (lambda b: Steered(b, EDITS, lambda x: x + 0.1),
                 editors.under_the_prompt_of_its_source_an_edit_is_the_reconstruction, "under the prompt and guidance"),
    "nothing": (lambda b: Steered(b, EDITS, lambda x: x), editors.it_edits, "that of the prompt alone"),
    "batch": (lambda b: Steered(b, EDITS, lambda x: x + x.mean(0)), BATCHED,
              "an edit alone and in a batch"),
    "random": (lambda b: Steered(b, EDITS, lambda x: x + torch.randn_like(x)),
               editors.the_same_edit_gives_the_same_bits, "the same edit twice differs"),
    "drawing": (lambda b: Steered(b, EDITS, lambda x: x + 0 * torch.randn_like(x)), editors.nothing_global_changes,
                "global random state"),
    "hook": (lambda b: Hooked(b, EDITS, lambda x: x), editors.nothing_is_left_behind_after_an_error, "hooks"),
    "ctrl-c": (lambda b: Swallowing(b, EDITS, lambda x: x), editors.nothing_is_left_behind_after_an_error,
               "KeyboardInterrupt while the network was asked comes out as"),
    "cost": (lambda b: Uncounted(b, EDITS, lambda x: x), editors.its_cost_is_counted, "rows went through"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_EDITORS)
def test_a_wrong_editor_is_found(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steer, check, said = WRONG_EDITORS[what]

    def wrong() -> Editor:
        """Something wrong."""
        return Editor(steer=steer)

    unsample.edits.register(configured(wrong), **FACTS)
    case = editors.EditorCase("wrong")
    hooks = case.loaded.unet.conv_in._forward_hooks
    try:
        with pytest.raises(AssertionError, match=said):
            run_all("wrong", [("", check, case)])
    finally:
        hooks.clear()


def test_a_wrong_row_is_found() -> None:
    def wrong(share: Any = 0.5, what: Any = 1) -> Method:
        return ddim()

    wrong.__annotations__ |= {"share": float, "return": Method}
    with pytest.raises(TypeError, match=r"declare its setting share as `share: Annotated\[TYPE, Setting"):
        configured(wrong)

    def unsaid() -> Method:
        return ddim()

    register(configured(unsaid), **FACTS)
    with pytest.raises(AssertionError, match="the factory needs a docstring"):
        table.its_factory_is_configured_and_documented(table.Named("method", "unsaid"))
    assert Setting("one.").low == 0


def test_all_that_does_not_hold_is_said_together() -> None:
    def wrong() -> Method:
        return replace(ddim(), exact=True, passes=lambda w: 7)

    register(configured(wrong), **FACTS)
    with pytest.raises(AssertionError) as found:
        unsample.testing.check_method(METHODS["wrong"].factory, networks=False)
    text = str(found.value)
    assert text.startswith("wrong: ")
    assert "- its exactness is what it declares (on noise levels of a flow): it says that it is exact" in text
    assert "- its cost is what it declares throughout (on noise levels that preserve the variance): nfe at 1" in text
    with pytest.raises(AssertionError, match=r"no method 'nowhere' is registered: call unsample\.methods\.register"):
        unsample.testing.check_method("nowhere")


@pytest.mark.parametrize(
    ("compute", "check", "said"),
    [
        (lambda s, _: [2.0] * len(s), metrics.it_answers_within_its_range_or_says_why_not, "is not in its range"),
        (lambda s, _: [0.5], metrics.it_answers_within_its_range_or_says_why_not, "of 6 pictures it has 1 values"),
        (lambda s, _: 1 / 0, metrics.it_has_a_value_where_all_is_known, "ZeroDivisionError"),
        (lambda s, _: [float(s.images.mean())] * len(s), metrics.a_picture_alone_gets_what_it_gets_in_a_batch, "alone"),
    ],
)
def test_a_wrong_metric_is_found(compute: Any, check: Any, said: str) -> None:
    unsample.metrics.register(
        MetricFacts("wrong", "w", 0, 1, "lower", kind="pair", needs=("images",), convention="c", reference="r",
                    compute=compute)
    )  # fmt: skip
    with pytest.raises(AssertionError, match=said):
        check(metrics.MetricCase("wrong"))
