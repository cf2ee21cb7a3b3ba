"""What every method does: on the closed-form mixture (float64), where a guided text condition is exact."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import unsample
from unsample.errors import Incompatible
from unsample.methods import METHODS, Method, Walked, get_method, setting_defaults
from unsample.numbers.grid import grid_from_scheduler
from unsample.testing.problems import KINDS, PROMPTS, STEPS, Source, known, mixture, scheduler, source
from unsample.testing.words import must, must_be_near, must_refuse, rms

# A matrix product of another height rounds differently (1e-16), and the score of a mixture magnifies it step by step.
BATCH = 1e-8
OTHERS = list(PROMPTS)[::-1]


@dataclass(frozen=True)
class Case:
    """A method on one kind of noise levels.

    Args:
        name: of a row.
        kind: "vp" or "flow".
        settings: those that it is tried at.
    """

    name: str
    kind: str
    settings: Mapping[str, Any] = field(default_factory=lambda: {"preset": "quick"})

    def made(self, **more: Any) -> Method:
        """The method, with other settings too."""
        return get_method(self.name, {**self.settings, **more})

    @property
    def method(self) -> Method:
        """As it is tried."""
        return self.made()

    def stopping(self, tol: float | None) -> Method:
        """With an early stop at a tolerance, or with none, where it has one."""
        defaults = setting_defaults(METHODS[self.name].factory)
        return self.made(**{k: tol for k in ("tol", "early_stop") if k in defaults})

    @property
    def model(self) -> Any:
        """The mixture."""
        return known(self.kind)

    @property
    def source(self) -> Source:
        """Two of its pictures."""
        return source(self.kind)

    @property
    def brings_back(self) -> bool:
        """Whether it brings anything of the picture's noise: a baseline does not."""
        return METHODS[self.name].family != "baseline"

    @cached_property
    def inversion(self) -> unsample.Inversion:
        """Of both pictures, made once."""
        return self.inverted(self.method)

    def inverted(self, method: Method, row: int | None = None, **more: Any) -> unsample.Inversion:
        """Of both pictures, or of one."""
        return unsample.invert(self.model, **{"num_inference_steps": STEPS, **self.source.given(method, row), **more})


def kinds_of(method: Method) -> list[str]:
    """The kinds of noise levels that it runs on."""
    return [kind for kind in KINDS if getattr(method, f"refuses_{kind}") is None]


def it_inverts_and_reconstructs(case: Case) -> None:
    """The noise is finite; the record and the noise alone are played back; the record comes near the picture."""
    made, inversion = case.source.made.latents, case.inversion
    must(inversion.noise.shape == made.shape, f"its noise is {tuple(inversion.noise.shape)}, not {tuple(made.shape)}")
    must(inversion.noise.isfinite().all(), "its noise is not finite")
    must(set(inversion.status) <= {"ok", "not_converged"}, f"it ends with {inversion.status}")
    for use in ("record", "noise"):
        again = unsample.reconstruct(case.model, inversion, use=use)
        must(again.status == ["ok", "ok"], f"played back from the {use} it ends with {again.status}")
        must(again.latents.shape == made.shape, f"played back from the {use} it has another shape")
    it_comes_near(case, inversion)


def it_comes_near(case: Case, inversion: unsample.Inversion) -> None:
    """Neither noise nor a constant comes back: the error is well below the spread of the pictures."""
    made = case.source.made.latents
    off = rms(unsample.reconstruct(case.model, inversion).latents - made)
    most = 0.7 * float(made.std())
    must(off < most or not case.brings_back, f"its reconstruction is off by {off:.3g} in RMS: at most {most:.3g}")


def a_saved_inversion_plays_back_as_the_one_in_memory(case: Case, folder: Path | None = None) -> None:
    """A file holds the whole record, of the size that it says, and gives the same bits."""
    with tempfile.TemporaryDirectory() as made:
        path = (folder or Path(made)) / "a.safetensors"
        case.inversion.save(path)
        back = unsample.Inversion.load(path)
    for use in ("record", "noise"):
        one, other = (unsample.reconstruct(case.model, i, use=use).latents for i in (back, case.inversion))
        must(torch.equal(one, other), f"a saved inversion, played from the {use}, differs from the one in memory")
    size = sum(t.numel() * t.element_size() for t in (back.noise, *back.state.values()))
    declared = back.meta["stored"]["size_over_noise"] * back.noise.numel() * back.noise.element_size()
    must(abs(size - declared) <= 0.01 * declared, f"it stores {size} bytes and says {declared:.0f}")
    must(set(back.state) == set(case.method.keeps), f"it stores {set(back.state)} and keeps {set(case.method.keeps)}")


def it_edits_or_says_why_it_cannot(case: Case) -> None:
    """An edit to the other prompt changes something; where `refuses_edit` is set, it is refused."""
    if case.method.refuses_edit is not None:
        must_refuse(Incompatible, f"{case.name} cannot edit: ", "an edit", unsample.edit, case.model, case.inversion,
                    OTHERS)  # fmt: skip
        return
    edited = unsample.edit(case.model, case.inversion, OTHERS)
    must(edited.status == ["ok", "ok"], f"an edit ends with {edited.status}")
    must(edited.meta["prompt"] == OTHERS, "an edit does not record its prompt")
    moved = rms(edited.latents - unsample.reconstruct(case.model, case.inversion).latents)
    must(moved > 0.05, f"an edit to another prompt changes nothing: {moved:.2g} in RMS")


def its_cost_is_what_it_declares(case: Case, steps: int, guided: bool) -> None:
    """Evaluations and backward passes are those of `passes` and `backward`, and no more with an early stop."""
    w, pair = (2.0, 2) if guided else (1.0, 1)
    walk: dict[str, Any] = {
        "guidance_scale": w,
        "sampling_guidance_scale": w,
        "strength": 1.0,
        "num_inference_steps": steps,
    }
    method = case.stopping(None)
    grid = grid_from_scheduler(case.model.scheduler, steps, timestep_spacing=method.spacing(case.model.scheduler))
    walked = Walked(steps, pair, pair, grid.timesteps[1:])
    declared = {"nfe": method.passes(walked), "backward": method.backward(walked)}
    start = source(case.kind, steps)
    found = unsample.invert(case.model, **start.given(method), **walk)
    early = unsample.invert(case.model, **start.given(case.stopping(1e3)), **walk)
    for what, count in declared.items():
        counted, fewer = getattr(found, what), getattr(early, what)
        at = f"at {steps} steps and guidance {w:g}"
        must(
            counted == [count] * 2, f"{what} {at} is {counted}, and {'passes' if what == 'nfe' else what} says {count}"
        )
        must(max(fewer) <= count, f"{what} {at} with an early stop is {fewer}, more than {count}")


def its_exactness_is_what_it_declares(case: Case) -> None:
    """Exact by construction means to rounding: 1e-16 in float64, magnified on the way back; others are not so near."""
    error = _off(case.model, case.inversion)
    if not case.method.exact:
        must(error > 1e-9, f"its record comes back to {error:.2g}: it is exact, let it say so (exact=True)")
        return
    must(error < 1e-8, f"it says that it is exact, and comes back to {error:.2g} in float64")
    single = case.inverted(case.method, latents=case.source.made.latents.float())
    error = _off(case.model, single)
    must(error < 1e-4, f"it says that it is exact, and comes back to {error:.2g} in float32")


def _off(model: Any, inversion: unsample.Inversion) -> float:
    """How far the record comes back from where it began, as a share of it."""
    assert inversion.latents is not None
    return rms(unsample.reconstruct(model, inversion).latents - inversion.latents) / rms(inversion.latents)


def a_batch_gives_what_single_pictures_give(case: Case) -> None:
    """Noise, record, cost and reconstruction of a picture do not depend on its neighbours."""
    together = case.inversion
    for k in range(2):
        alone = case.inverted(case.method, k)
        must_be_near(alone.noise[0], together.noise[k], BATCH, f"the noise of picture {k} alone and in a batch")
        costs = (alone.nfe, alone.backward), (together.nfe[k : k + 1], together.backward[k : k + 1])
        must(costs[0] == costs[1], f"picture {k} costs {costs[0]} alone and {costs[1]} in a batch")
        one, other = (unsample.reconstruct(case.model, i).latents[0] for i in (alone, together[k]))
        # and once more on the way back
        must_be_near(one, other, 10 * BATCH, f"the reconstructions of picture {k} alone and in a batch")


def the_same_seed_gives_the_same_bits(case: Case) -> None:
    """Twice the same: random numbers come from the generators that were passed in, and from nowhere else."""
    again, first = case.inverted(case.method), case.inversion
    must(torch.equal(again.noise, first.noise), "two inversions with one seed differ")
    must(again.state.keys() == first.state.keys(), "two inversions with one seed keep other things")
    for k in again.state:
        must(torch.equal(again.state[k], first.state[k]), f"{k} of two inversions with one seed differs")
    one, other = (unsample.reconstruct(case.model, again).latents for _ in range(2))
    must(torch.equal(one, other), "two reconstructions of one inversion differ")


def strength_works(case: Case) -> None:
    """It can be stopped half way up, and comes back."""
    half = case.inverted(case.method, strength=0.5)
    stop = half.meta["stop_index"]
    must(stop == STEPS // 2, f"strength 0.5 of {STEPS} steps ends at {stop}")
    it_comes_near(case, half)


def its_record_says_how_it_was_made(case: Case) -> None:
    """Name, settings, and what is stored."""
    meta, method = case.inversion.meta, case.method
    asked = {"name": case.name, "settings": dict(method.settings)}
    must(meta["method"] == asked, f"its record says {meta['method']} and it is {asked}")
    must(meta["stored"]["what"] == method.stores, "its record does not say what it stores")
    must(meta["stored"]["fitted_to_picture"] == method.fitted, "its record does not say whether it is fitted")
    kept = bool(method.keeps) or method.playback is not None
    must(kept or not method.fitted, "it is fitted to the picture and keeps nothing: name what it keeps in `keeps`")
    for told in case.inversion.health:
        residual, step = told["residual"], told["residual_step"]
        must((residual is None) is (step is None), f"its largest residual is {residual}, at step {step}: say both")
        must(step is None or 1 <= step <= STEPS, f"its largest residual is at step {step} of {STEPS}")
        graded = told["grade"] is not None
        must(graded is (method.ungraded is None and residual is not None and method.strength is None),
             f"its grade is {told['grade']} ({told['grade_reason']}), and its residual {residual}")  # fmt: skip


def a_record_is_played_back_under_the_guidance_it_was_fitted_with(case: Case) -> None:
    """Where `guidance_bound` (or `edits_as_fitted`) is set, other guidance is refused; else it is played."""
    method, inversion = case.method, case.inversion
    other = inversion.meta["sampling_guidance_scale"] + 1
    verbs: tuple[tuple[Any, bool], ...] = (
        (unsample.reconstruct, method.guidance_bound),
        (unsample.edit, method.edits_as_fitted),
    )
    for verb, holds in verbs:
        if verb is unsample.edit and method.refuses_edit:
            continue
        more = {"prompt": list(PROMPTS)} if verb is unsample.edit else {}
        each: tuple[dict[str, Any], ...] = (
            {"guidance_scale": other},
            {"guidance_schedule": "cosine", "guidance_scale": other},
        )
        for given in each:
            if holds:
                what = f"{verb.__name__} under other guidance"
                must_refuse(Incompatible, "fitted under guidance", what, verb, case.model, inversion, **more, **given)
            else:
                found = verb(case.model, inversion, **more, **given).latents
                must(found.isfinite().all(), f"{verb.__name__} at guidance {other:g} is not finite")


def it_inverts_under_its_own_guidance_unless_told(case: Case) -> None:
    """`guidance_scale` of the method is taken where nobody says another, and where there is something to guide from."""
    method = case.method
    own = 1.0 if method.guidance_scale is None else method.guidance_scale
    found = case.inversion.meta["guidance_scale"]
    must(found == own, f"it inverts at guidance {found}, and its own is {own}")
    half = replace(method, guidance_scale=0.5)
    told: tuple[tuple[dict[str, Any], float], ...] = (({}, 0.5), ({"guidance_scale": 1.0}, 1.0))
    for given, wanted in told:
        found = case.inverted(half, **given).meta["guidance_scale"]
        must(found == wanted, f"it inverts at guidance {found} where {wanted} is asked")
    if not method.needs_prompt:  # nothing to guide away from
        plain = {name: value for name, value in case.source.given(half).items() if name != "prompt"}
        model = mixture(scheduler=scheduler(case.kind), prompts=False)
        found = unsample.invert(model, **plain, num_inference_steps=STEPS).meta["guidance_scale"]
        must(found == 1.0, f"on a model without prompts it inverts at guidance {found}")


def its_cost_is_what_it_declares_throughout(case: Case) -> None:
    """At one step and at seven, guided and not."""
    for steps in (1, 7):
        for guided in (False, True):
            its_cost_is_what_it_declares(case, steps, guided)


CHECKS = (
    it_inverts_and_reconstructs,
    a_saved_inversion_plays_back_as_the_one_in_memory,
    it_edits_or_says_why_it_cannot,
    its_cost_is_what_it_declares_throughout,
    its_exactness_is_what_it_declares,
    a_batch_gives_what_single_pictures_give,
    the_same_seed_gives_the_same_bits,
    strength_works,
    its_record_says_how_it_was_made,
    a_record_is_played_back_under_the_guidance_it_was_fitted_with,
    it_inverts_under_its_own_guidance_unless_told,
)
