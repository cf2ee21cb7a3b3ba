"""What every editor does: on a bundled trained network in float64, beside a source whose reconstruction is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import torch

import unsample
from unsample.edits import Editor, get_editor
from unsample.errors import BadOption, Incompatible
from unsample.methods import METHODS, get_method
from unsample.preflight.rules import check_edits
from unsample.testing import trained
from unsample.testing.problems import PROMPTS, Source, known
from unsample.testing.words import must, must_be_near, must_refuse, rms

STEPS = 3
GUIDANCE = 3.0
PAIRS = (  # what a picture shows, and what it shall show
    ("a large red circle at the left on a white background", "a large blue circle at the left on a white background"),
    ("a small green star at the top on a black background", "a small yellow star at the top on a black background"),
)
METHODS_TRIED = ("ddim", "edict", "direct")  # noise alone; a second state; offsets that are the source's alone
# float64: sums in another order, for other rows in a batch, differ by 1e-16, and a guided step magnifies that.
BATCH = 1e-7


@dataclass(frozen=True)
class EditorCase:
    """An editor with the model and the prompts that it is tried on.

    Args:
        name: of a row.
        settings: those that it is tried at.
        model: a bundled model.
        pairs: prompts of two sources and of their edits.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = "scenes-sd"
    pairs: tuple[tuple[str, str], ...] = PAIRS

    @property
    def editor(self) -> Editor:
        """As it is tried."""
        return get_editor(self.name, dict(self.settings))

    @property
    def loaded(self) -> Any:
        """The model."""
        return trained.network(self.model, torch.float64)

    def inversion(self, method: str = "ddim") -> unsample.Inversion:
        """Of both sources, whose own sampling is guided."""
        return _inversion(self.model, self.pairs, method, torch.float64)

    def edited(self, row: int | None = None, inversion: Any = None, **more: Any) -> unsample.Images:
        """Both pictures, or one of them, under the prompts of their edits."""
        own = self.inversion() if inversion is None else inversion
        source = own if row is None else own[row]
        targets = [target for _, target in self.pairs]
        given = {"prompt": targets if row is None else targets[row], "editor": self.editor, "guidance_scale": GUIDANCE}
        return unsample.edit(self.loaded, source, **{**given, **more}, progress=False)

    @cached_property
    def both(self) -> unsample.Images:
        """The edits of both pictures, made once."""
        return self.edited()

    @cached_property
    def alone(self) -> tuple[unsample.Images, int]:
        """The edit of the first picture alone, made once, and how many rows went through the network."""
        with counted(self.loaded) as rows:
            made = self.edited(0)
        return made, sum(rows)

    @property
    def first(self) -> unsample.Images:
        """The edit of the first picture alone."""
        return self.alone[0]


@cache
def _inversion(model: str, pairs: tuple[tuple[str, str], ...], method: str, dtype: torch.dtype) -> Any:
    loaded, sources = trained.network(model, dtype), [source for source, _ in pairs]
    made = unsample.sample(loaded, sources, num_inference_steps=STEPS, guidance_scale=1.0, progress=False)
    scales: dict[str, Any] = {
        "sampling_guidance_scale": GUIDANCE,
        "guidance_scale": GUIDANCE if method == "edict" else 1.0,
    }
    return unsample.invert(
        loaded, latents=made.latents, prompt=sources, method=method, num_inference_steps=STEPS, progress=False, **scales
    )


@contextmanager
def counted(
    model: Any, stop_at: int | None = None, error: type[BaseException] = KeyboardInterrupt
) -> Iterator[list[int]]:
    """While it lasts, the rows of each call of the denoiser; one of them may fail."""
    kind, rows = type(model.unet), []  # type: ignore[var-annotated]
    own = kind.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else next(v for v in kwargs.values() if isinstance(v, torch.Tensor) and v.ndim > 2)
        rows.append(len(first))
        if len(rows) == stop_at:
            raise error("while the network was asked")
        return own(self, *args, **kwargs)

    kind.forward = forward
    try:
        yield rows
    finally:
        kind.forward = own


def steers(case: EditorCase) -> bool:
    """Whether it is more than a prompt swap."""
    return case.editor.steer is not None


def the_source_is_its_reconstruction(case: EditorCase) -> None:
    """Beside an edit to another prompt, the source is played as `reconstruct` plays it."""
    again = unsample.reconstruct(case.loaded, case.inversion(), progress=False)
    must(case.both.status == ["ok", "ok"], f"edits end with {case.both.status}")
    if steers(case):
        must(case.both.reconstruction is not None, "an edit has no `reconstruction` of its source")
        must_be_near(case.both.reconstruction, again.images, BATCH, "a source beside its edit, and its reconstruction")  # type: ignore[arg-type]


def under_the_prompt_of_its_source_an_edit_is_the_reconstruction(case: EditorCase) -> None:
    """Or not, as `holds_source` says; an editor whose settings say what is edited is left out."""
    if not case.editor.needs_prompt:
        return
    made = case.edited(prompt=[source for source, _ in case.pairs])
    again = unsample.reconstruct(case.loaded, case.inversion(), progress=False)
    what = "an edit under the prompt and guidance of its source, and the reconstruction,"
    if case.editor.holds_source:
        must_be_near(made.latents, again.latents, BATCH, what)
    else:
        must(rms(made.latents - again.latents) > BATCH, f"{what} are one: let it say so (holds_source=True)")


def it_edits(case: EditorCase) -> None:
    """Under another prompt the picture changes, and otherwise than by the prompt alone."""
    again = unsample.reconstruct(case.loaded, case.inversion(), progress=False)
    moved = rms(case.both.latents - again.latents)
    must(moved > 1e-3, f"an edit to another prompt changes nothing: {moved:.2g} in RMS")
    if steers(case):
        swapped = case.edited(editor="none")
        moved = rms(case.both.latents - swapped.latents)
        must(moved > 1e-6, "its edit is that of the prompt alone; an editor that steers nothing is `none`")


def a_batch_of_edits_gives_what_single_ones_give(case: EditorCase) -> None:
    """An edit does not depend on its neighbours, nor its cost."""
    must_be_near(case.first.latents[0], case.both.latents[0], BATCH, "an edit alone and in a batch")
    costs = (case.first.nfe, case.first.backward), (case.both.nfe[:1], case.both.backward[:1])
    must(costs[0] == costs[1], f"an edit costs {costs[0]} alone and {costs[1]} in a batch")


def several_prompts_share_one_source(case: EditorCase) -> None:
    """Two edits of one picture: each as it is alone."""
    if not case.editor.needs_prompt:
        return
    made = case.edited(0, prompt=list(case.pairs[0]))
    must_be_near(made.latents[1], case.first.latents[0], BATCH, "an edit alone, and beside another one of its source,")


def its_cost_is_counted(case: EditorCase) -> None:
    """Evaluations are the rows that went through the network, of edit and source."""
    made, rows = case.alone
    must(sum(made.nfe) == rows, f"it counts {sum(made.nfe)} evaluations, and {rows} rows went through the network")


def the_same_edit_gives_the_same_bits(case: EditorCase) -> None:
    """Nothing is drawn that is not seeded."""
    must(torch.equal(case.edited(0).latents, case.first.latents), "the same edit twice differs")


def its_record_says_how_it_was_made(case: EditorCase) -> None:
    """Name, settings and notes, as plain JSON."""
    made, editor = case.both, case.editor
    asked = {"name": case.name, "settings": dict(editor.settings)}
    if steers(case):
        must(made.meta["editor"] == asked, f"its record says {made.meta['editor']}, and it is {asked}")
    try:
        json.dumps(dict(made.meta))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"settings and notes must be plain JSON: {error}") from error


def nothing_global_changes(case: EditorCase) -> None:
    """In float32 and bfloat16: weights, processors, hooks, modes, random state, grad mode."""
    for dtype in trained.SAMPLES.values():
        model, inversion = trained.network(case.model, dtype), _inversion(case.model, case.pairs, "ddim", dtype)
        before = trained.global_state(model)
        made = unsample.edit(model, inversion[0], case.pairs[0][1], editor=case.editor, progress=False)
        trained.must_be_as_before(before, model)
        must(made.latents.dtype is torch.float32, f"on a network in {dtype} its latents are {made.latents.dtype}")
        must(made.latents.isfinite().all(), f"on a network in {dtype} its latents are not finite")
        must(not made.latents.requires_grad, "its latents carry gradients")


def nothing_is_left_behind_after_an_error(case: EditorCase) -> None:
    """An error, or Ctrl-C, while the network is asked."""
    before = trained.global_state(case.loaded)
    for error, wanted in ((RuntimeError, Exception), (KeyboardInterrupt, KeyboardInterrupt)):
        try:
            with counted(case.loaded, stop_at=2, error=error):
                case.edited(0)
        except BaseException as found:
            must(isinstance(found, wanted), f"{error.__name__} while the network was asked comes out as {found!r}")
        else:
            raise AssertionError(f"{error.__name__} while the network was asked is swallowed")
        trained.must_be_as_before(before, case.loaded, f" after {error.__name__}")


def it_goes_with_methods_or_says_why_not(case: EditorCase) -> None:
    """By ddim or an exact method at least; what it refuses, it refuses with its reason, before any work."""
    editor, fits = case.editor, []
    for name in METHODS_TRIED:
        inversion = case.inversion(name)
        try:
            check_edits(get_method(name), editor)
        except Incompatible as refused:
            must_refuse(Incompatible, "", f"an edit of what {name} inverted", case.edited, 0, inversion)
            must(name in str(refused), f"{name} is refused without its name: {refused}")
            continue
        made = case.edited(0, inversion)
        must(made.status == ["ok"], f"the edit of what {name} inverted ends with {made.status}")
        if steers(case):
            again = unsample.reconstruct(case.loaded, inversion[0], progress=False)
            what = f"a source that {name} inverted, beside its edit, and its reconstruction"
            must_be_near(made.reconstruction, again.images, BATCH, what)  # type: ignore[arg-type]
        fits.append(name)
    must(fits, f"it goes with none of {', '.join(METHODS_TRIED)}")
    for name in METHODS:
        why = editor.refuses(get_method(name))
        must(why is None or why.strip(), f"it refuses {name} without a reason")


def wrong_use_is_refused(case: EditorCase) -> None:
    """Prompts that it needs; and a model that it does not serve, in words."""
    editor, source = case.editor, case.inversion()[0]
    if editor.needs_source_prompt:
        nameless = unsample.invert(case.loaded, latents=source.latents, num_inference_steps=STEPS, progress=False)
        must_refuse(BadOption, "prompt", "a source without a prompt", case.edited, 0, nameless)
    if editor.needs_prompt:
        must_refuse(BadOption, "prompt", "an edit without a prompt", case.edited, 0, prompt=None)
    closed = known("vp")
    made = unsample.invert(closed, **Source(closed, STEPS).given(get_method("ddim")), num_inference_steps=STEPS)
    try:
        unsample.edit(closed, made, list(PROMPTS)[::-1], editor=editor, progress=False)
    except BadOption:
        pass
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise AssertionError(
            f"a model without attention must be refused by Incompatible (`check`); it was {said}"
        ) from error


CHECKS: tuple[Callable[[EditorCase], None], ...] = (
    the_source_is_its_reconstruction,
    under_the_prompt_of_its_source_an_edit_is_the_reconstruction,
    it_edits,
    a_batch_of_edits_gives_what_single_ones_give,
    several_prompts_share_one_source,
    its_cost_is_counted,
    the_same_edit_gives_the_same_bits,
    its_record_says_how_it_was_made,
    nothing_global_changes,
    nothing_is_left_behind_after_an_error,
    it_goes_with_methods_or_says_why_not,
    wrong_use_is_refused,
)
