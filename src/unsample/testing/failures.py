"""What a method says where it is used wrongly, and what it does where a network fails."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor

import unsample
from unsample.errors import BadInput, BadOption, Diverged, Incompatible
from unsample.methods import Walked
from unsample.testing.methods import Case
from unsample.testing.problems import (
    STEPS,
    embeddings,
    failing,
    losing,
    mixture,
    normal,
    scheduler,
    smooth_network,
    starts,
    wrapped,
)
from unsample.testing.words import heard, must, must_refuse, rms


def noise_levels_that_it_refuses_are_refused_before_any_work(case: Case) -> None:
    """With the reason that `refuses_vp` or `refuses_flow` gives; for a case of such a kind."""
    why = getattr(case.method, f"refuses_{case.kind}")
    given = {"latents": normal(1, *case.model.sample_shape), "prompt": "left", "method": case.method}
    pattern = rf"^{case.name} does not run on .*: {re.escape(why)}"
    must_refuse(Incompatible, pattern, f"noise levels of kind {case.kind}", unsample.invert, case.model, **given,
                num_inference_steps=2)  # fmt: skip


def wrong_use_is_refused_before_any_work(case: Case) -> None:
    """A prompt or a recorded sampling run that it needs and does not get."""
    method, made = case.method, case.source.made
    if method.needs_prompt:
        plain = mixture(scheduler=scheduler(case.kind), prompts=False)
        given: dict[str, Any] = {"latents": made.latents, "method": method, "num_inference_steps": 2}
        must_refuse(Incompatible, "takes no prompt", "a model without prompts", unsample.invert, plain, **given)
        must_refuse(BadOption, "needs the prompt", "a missing prompt", unsample.invert, case.model, **given)
    if method.needs_trajectory:
        given = case.source.given(method) | {"num_inference_steps": STEPS}
        none = {k: v for k, v in given.items() if k != "trajectory"}
        said = "needs the recorded sampling run"
        must_refuse(BadOption, said, "a missing trajectory", unsample.invert, case.model, **none)
        short = given | {"trajectory": given["trajectory"][1:]}
        must_refuse(BadInput, "trajectory must be", "a trajectory too short", unsample.invert, case.model, **short)


def a_network_without_gradients_is_refused_where_they_are_needed(case: Case) -> None:
    """A method that counts backward passes says that it cannot have them."""
    if not case.method.needs_grad or case.method.needs_trajectory:
        return
    given = {"latents": normal(1, 3, 8, 8).float(), "method": case.method, "num_inference_steps": 2, **embeddings()}
    model = wrapped(torch.no_grad()(smooth_network), case.kind)
    must_refuse(Incompatible, "gradient", "a network without gradients", unsample.invert, model, **given)


def adversarial_starts_end_finite_or_are_said_to_diverge(case: Case) -> None:
    """Black, white, a checkerboard, noise, and only the two ends of the range."""
    if case.method.needs_trajectory:
        return  # its start is what was sampled
    x, model = torch.stack(list(starts().values())), case.model
    inversion = unsample.invert(
        model, latents=x, prompt="left", method=case.method, num_inference_steps=6, strength=1.0
    )
    for k, start in enumerate(starts()):
        if inversion.status[k] == "diverged":
            continue
        must(
            inversion.noise[k].isfinite().all(), f"the noise of a picture ({start}) is not finite, and said to be fine"
        )
        with heard() as said:
            made = unsample.reconstruct(model, inversion[k])
        fine = made.status == ["diverged"] or made.latents.isfinite().all()
        must(fine, f"the reconstruction of a picture ({start}) is not finite, and said to be fine")
        flat = float(made.images.std()) < 1 / 255 and float(x[k].std()) > 0
        warned = any("constant" in str(w.message) for w in said)
        must(warned or not flat, f"the reconstruction of a picture ({start}) is constant, and nothing is said of it")


def a_picture_that_is_lost_leaves_the_others_untouched(case: Case) -> None:
    """Where the network gives nan for one picture of a batch, the other is as it is alone."""
    if case.method.needs_trajectory:
        return  # its start is what was sampled
    good, bad = normal(1, 3, 8, 8, seed=1) * 0.3, normal(1, 3, 8, 8, seed=2) * 0.3 + 4
    model = losing(case.kind)
    given: dict[str, Any] = {"method": case.method, "num_inference_steps": 6, "strength": 1.0, **embeddings()}
    alone = unsample.invert(model, latents=good, **given)
    with heard():
        together = unsample.invert(model, latents=torch.cat([good, bad]), **given)
    must(together.status[0] == alone.status[0], f"a picture ends with {together.status[0]} beside one that is lost")
    off = rms(together.noise[0] - alone.noise[0])
    must(off < 1e-9, f"the noise of a picture beside one that is lost is off by {off:.2g}")
    for k in alone.state:
        near = torch.allclose(together.state[k][0], alone.state[k][0], atol=1e-7)
        must(near, f"{k} of a picture beside one that is lost is another")
    if alone.nfe[0] > 0:  # a method that asks the network nothing cannot lose a picture
        must(together.status[1] == "diverged", f"a picture whose answers are nan ends with {together.status[1]}")
        must_refuse(Diverged, "", "a picture whose answers are nan", unsample.invert, model, latents=bad, **given)


def an_answer_that_is_not_finite_is_named_with_its_picture(case: Case, at_call: int, value: float) -> None:
    """Which picture, timestep and evaluation, whatever becomes of the picture."""
    method, calls = case.method, []  # type: ignore[var-annotated]
    if method.needs_trajectory or method.passes(Walked(6)) == 0:
        return  # its start is what was sampled, or it asks nothing
    embeds = embeddings(2)
    for tensor in embeds.values():
        tensor[1, 0, 0] = 100
    given: dict[str, Any] = {"method": method, "num_inference_steps": 6, "strength": 1.0}
    x = normal(2, 3, 8, 8, seed=1) * 0.3
    with heard() as said:
        inversion = unsample.invert(failing(case.kind, at_call, value, calls), latents=x, **embeds, **given)
    well, failed = inversion.nonfinite_at
    must(well is None and failed is not None, f"answer {at_call} was {value} for picture 1; found {well} and {failed}")
    assert failed is not None
    must((failed["what"], failed["input_finite"]) == ("answer", True), f"it was the network's answer; found {failed}")
    near = math.isclose(failed["timestep"], calls[at_call - 1], rel_tol=1e-6)  # the network's own is float32
    must(near, f"it was at timestep {calls[at_call - 1]}; found {failed['timestep']}")
    words = f"not finite at timestep {failed['timestep']} (evaluation {failed['evaluation']}"
    own = [str(w.message) for w in said if words in str(w.message)]
    status = inversion.status[1]
    starts_well = [text.startswith(f"invert: picture 1 ({status}): ") for text in own]
    must(starts_well == ([] if status == "diverged" else [True]), f"the warnings of a picture ({status}) are {own}")
    must(inversion[1].nonfinite_at == [failed], "a row of the inversion has another `nonfinite_at`")
    _all_lost(failing(case.kind, 0, value, []), x[1:], {n: t[1:] for n, t in embeds.items()} | given)


def _all_lost(model: Any, x: Tensor, given: dict[str, Any]) -> None:
    try:
        unsample.invert(model, latents=x, **given)
    except Diverged as lost:
        said = r"the network's (un)?(conditional )?answer was not finite at timestep"
        must(re.search(said, str(lost)), f"the error does not say what was not finite: {lost}")
        must((lost.nonfinite_at[0] or {}).get("times", 0) >= 1, f"the error holds {lost.nonfinite_at}")
        return
    raise AssertionError("a picture whose every answer is not finite must be refused by Diverged; it went through")


def answers_that_are_not_finite_are_named(case: Case) -> None:
    """The first one nan, or the third one infinite."""
    an_answer_that_is_not_finite_is_named_with_its_picture(case, 1, math.nan)
    an_answer_that_is_not_finite_is_named_with_its_picture(case, 3, math.inf)


CHECKS = (
    wrong_use_is_refused_before_any_work,
    a_network_without_gradients_is_refused_where_they_are_needed,
    adversarial_starts_end_finite_or_are_said_to_diverge,
    a_picture_that_is_lost_leaves_the_others_untouched,
    answers_that_are_not_finite_are_named,
)
