"""What a record holds is held against what its method keeps, in files and in memory, before anything is played."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import unsample
from tests.problems import PROMPTS, mixture, mixture_picture, normal
from unsample.errors import BadInput, UnsampleError
from unsample.methods import METHODS, get_method
from unsample.verbs.results import Inversion
from unsample.verbs.saved import read_header

STEPS = 4
KEEPING = {"sdedit": {"eta": 1.0}, "renoise": {"eta": 1.0}}  # settings with which a method keeps more than the noise

pytestmark = pytest.mark.filterwarnings("ignore")


def at_home(name: str) -> Any:
    """The mixture under noise levels that a method runs on."""
    return mixture(scheduler=FlowMatchEulerDiscreteScheduler() if get_method(name).refuses_vp else None)


@pytest.fixture(scope="module")
def inverted() -> Callable[[str], Inversion]:
    """One picture by each method, made once."""
    kept: dict[str, Inversion] = {}

    def get(name: str) -> Inversion:
        if name not in kept:
            method, model = get_method(name, {"preset": "quick", **KEEPING.get(name, {})}), at_home(name)
            noise = normal(1, *model.sample_shape, seed=11)
            made = unsample.sample(model, "left", num_inference_steps=STEPS, noise=noise, keep_trajectory=True)
            given: dict[str, Any] = {"latents": made.latents, "num_inference_steps": STEPS, "strength": 1.0}
            given |= {"trajectory": made.trajectory} if method.needs_trajectory else {}
            kept[name] = unsample.invert(model, prompt="left", method=method, **given)
        return kept[name]

    return get


STATE_CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "flattened": lambda t: t.flatten(1),
    "flattened whole": lambda t: t.flatten(),
    "transposed": lambda t: t.transpose(1, -1).contiguous(),
    "whole numbers": lambda t: t.long(),
    "true and false": lambda t: t > 0,
    "complex": lambda t: t.to(torch.complex64),
    "half": lambda t: t.half(),
    "not a number": lambda t: torch.full_like(t, torch.nan),
    "infinite": lambda t: torch.cat([t.flatten()[1:], torch.tensor([torch.inf])]).view_as(t),
    "of two pictures": lambda t: torch.cat([t, t]),
    "of a step less": lambda t: t[:, :-1].clone(),
    "of a step more": lambda t: torch.cat([t, t[:, :1]], 1),
    "of one channel": lambda t: t[..., :1, :, :].clone(),
    "empty": lambda t: t[..., :0].clone(),
    "a number": lambda t: torch.tensor(1.0),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_state_that_is_not_what_its_method_keeps_is_refused(
    name: str, inverted: Callable[[str], Inversion], tmp_path: Path
) -> None:
    model, good, path = at_home(name), inverted(name), tmp_path / "a.safetensors"
    assert (name in KEEPING) <= bool(good.state)

    def refuse(state: dict[str, Tensor], match: str, header_too: bool = True) -> None:
        bad = replace(good, state=state)
        bad.save(path)
        for read in (Inversion.load, *([read_header] if header_too else [])):
            with pytest.raises(BadInput, match=match):
                read(path)
        for verb in (unsample.reconstruct, lambda *a: unsample.edit(*a, "right"), interpolated):
            with pytest.raises(BadInput, match=match):
                verb(model, bad)

    for state, tensor in good.state.items():
        for change, make in STATE_CHANGES.items():
            finite = change not in ("not a number", "infinite")
            match = f"state.{state} of {name} is|unexpected tensor state.{state}" if finite else "is not finite"
            changed = make(tensor)
            if changed.shape == tensor.shape and changed.dtype == tensor.dtype and finite:
                continue  # one step has no step less
            refuse(good.state | {state: changed}, match, header_too=finite)
        with pytest.raises(BadInput, match=f"{name} plays back"):
            unsample.reconstruct(model, replace(good, state={k: v for k, v in good.state.items() if k != state}))
    refuse(good.state | {"other": good.noise}, "and no state.other")


def interpolated(model: Any, inversion: Inversion) -> Any:
    """Between one and itself."""
    return unsample.interpolate(model, inversion, inversion, num_frames=2)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_keeps_is_what_it_declares(name: str, inverted: Callable[[str], Inversion]) -> None:
    good, kept = inverted(name), get_method(name, {"preset": "quick", **KEEPING.get(name, {})}).keeps
    assert set(good.state) == set(kept)
    for state, tensor in good.state.items():
        assert tensor.dtype in (torch.float32, torch.float64)
        assert tensor.ndim == kept[state].shape.count(",") + 1, kept[state].shape


def test_an_embedding_of_another_text_encoder_is_refused_by_width(inverted: Callable[[str], Inversion]) -> None:
    good, model = inverted("null_text"), mixture()
    for changed in (good.state["unconditional"][..., :-1], good.state["unconditional"].repeat(1, 1, 2, 1)):
        with pytest.raises(BadInput, match="null_text"):
            unsample.reconstruct(model, replace(good, state={"unconditional": changed}))


# ---------------------------------------------------------------- the JSON

WRONG = [None, True, -1, 0, 1.5, 1e300, 10**400, "x", "\ud800", [], [None], ["x"], [[]], {}, {"x": []}, float("nan")]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and the first item of every list, however deep."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


def test_no_fact_of_the_wrong_kind_raises_an_error_that_is_not_ours(tmp_path: Path) -> None:
    """Every key of the JSON takes every wrong value: refused as the file's error, or played, or refused in words."""
    from unsample.cli.show import of_inversion, spoken

    model, path = mixture(), tmp_path / "a.safetensors"
    unsample.invert(model, mixture_picture(model), PROMPTS[0], num_inference_steps=2).save(path)
    whole = Inversion.load(path)
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header, read, refused = json.loads(metadata["unsample"]), 0, 0
    for at in places(header):
        for wrong in [*WRONG, ...]:
            changed = deepcopy(header)
            inner = changed
            for key in at[:-1]:
                inner = inner[key]
            if wrong is ...:
                del inner[at[-1]]
            else:
                inner[at[-1]] = wrong
            save_file(tensors, path, metadata=metadata | {"unsample": json.dumps(changed)})
            try:
                inversion = Inversion.load(path)
                "\n".join(spoken(of_inversion(str(path))))
            except BadInput:
                refused += 1
                continue
            read += 1
            for verb in (
                unsample.reconstruct,
                lambda m, i: unsample.edit(m, i, "right", guidance_scale=1),
                interpolated,
                lambda m, i: unsample.interpolate(m, whole, i, num_frames=2),
            ):
                with contextlib.suppress(UnsampleError):
                    verb(model, inversion)
    assert refused > 500
    assert read > 50


def test_an_inversion_in_memory_is_looked_at_before_it_is_played(inverted: Callable[[str], Inversion]) -> None:
    good, model = inverted("ddim"), mixture()
    for field, value in {
        "noise": good.noise[:, 0],
        "meta": good.meta | {"stop_index": STEPS + 1},
        "status": ["fine"],
        "prompt_embeds": torch.ones(1, 2, 3).bool(),
        "class_labels": torch.ones(1),
        "nfe": ["many"],
    }.items():
        with pytest.raises(BadInput, match="this inversion is not whole"):
            unsample.reconstruct(model, replace(good, **{field: value}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unsample.reconstruct(model, good)


def test_where_the_network_failed_is_kept_in_the_file_and_older_files_say_nothing_of_it(tmp_path: Path) -> None:
    model, path = mixture(), tmp_path / "a.safetensors"
    inversion = unsample.invert(model, mixture_picture(model), PROMPTS[0], num_inference_steps=2)
    place = {"what": "answer", "timestep": 500, "evaluation": 2, "half": None, "input_finite": True, "times": 1}
    for meta in ({"nonfinite_at": [place]}, {"nonfinite_at": [None]}, None):
        kept = {k: v for k, v in inversion.meta.items() if k != "nonfinite_at"} | (meta or {})
        replace(inversion, meta=kept).save(path)
        back = Inversion.load(path)
        assert back.nonfinite_at == ((meta or {}).get("nonfinite_at") or [None])
        assert unsample.reconstruct(model, back).nonfinite_at == [None]  # of its own walk


def test_where_a_picture_was_lost_is_kept_with_the_others_and_older_files_say_nothing_of_it(tmp_path: Path) -> None:
    model, path = mixture(), tmp_path / "a.safetensors"
    inversion = unsample.invert(model, mixture_picture(model), PROMPTS[0], num_inference_steps=2)
    assert inversion.meta["lost_at"] == [None]
    inversion.save(path)
    assert Inversion.load(path).lost_at == [None]
    replace(inversion, meta={k: v for k, v in inversion.meta.items() if k != "lost_at"}).save(path)
    old = Inversion.load(path)
    assert old.lost_at == unsample.reconstruct(model, old).lost_at == [None]
    for place in ({"where": "nowhere"}, {"where": "step", "step": -1}, "step 1"):
        with pytest.raises(BadInput, match=r"meta\.lost_at"):
            unsample.reconstruct(model, replace(inversion, meta=inversion.meta | {"lost_at": [place]}))


def test_a_record_of_which_two_tensors_are_one_is_saved(tmp_path: Path) -> None:
    """The one step of a belm hands the picture on: noise and the point before it are one tensor."""
    model = mixture()
    inversion = unsample.invert(model, mixture_picture(model), PROMPTS[0], method="belm", num_inference_steps=1)
    inversion.save(tmp_path / "a.safetensors")
    assert torch.equal(Inversion.load(tmp_path / "a.safetensors").state["cleaner"], inversion.state["cleaner"])


def test_embeddings_of_the_wrong_shape_are_the_files_error(inverted: Callable[[str], Inversion]) -> None:
    """One of them has as many numbers as the right one, and was played as if it were."""
    good, model = inverted("ddim"), mixture()
    for embeds in (torch.ones(1, 2, 3), torch.ones(1, 6), torch.ones(1)):
        bad = replace(good, prompt_embeds=embeds, meta=good.meta | {"prompt": [None]})
        with pytest.raises(BadInput, match="does not fit mixture: prompt_embeds"):
            unsample.reconstruct(model, bad)
    with pytest.raises(unsample.BadOption, match="floating point"):
        unsample.invert(model, latents=good.noise, prompt_embeds=torch.ones(1, 1, 6).long(), num_inference_steps=2)
