"""A model's name with changes to its scheduler."""

from __future__ import annotations

import pytest

import unsample
from unsample.errors import BadOption, Incompatible, UnknownName, WeightsMissing
from unsample.models.variants import parted
from unsample.preflight.known import known_model, named_by_file

TRAILING = "scenes-mixture[timestep_spacing=trailing]"


def test_a_name_is_taken_apart() -> None:
    assert parted("scenes-sd") == ("scenes-sd", {})
    both = parted("scenes-sd[timestep_spacing=linspace, set_alpha_to_one=true]")
    assert both == ("scenes-sd", {"timestep_spacing": "linspace", "set_alpha_to_one": True})


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("scenes-sd[spacing=trailing]", UnknownName),
        ("scenes-sd[timestep_spacing=late]", BadOption),
        ("scenes-sd[timestep_spacing=trailing,timestep_spacing=leading]", BadOption),
        ("scenes-sd[]", UnknownName),
        ("nothing-here[timestep_spacing=trailing]", WeightsMissing),
        ("scenes-flow[timestep_spacing=trailing]", Incompatible),
    ],
)
def test_what_cannot_be_is_refused_by_name(name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        unsample.load(name)


def test_the_grid_is_the_other_one_and_the_weights_are_the_same() -> None:
    plain, changed = unsample.load("scenes-mixture"), unsample.load(TRAILING)
    assert changed.id == TRAILING
    assert plain.weights_sha256() == changed.weights_sha256()
    own, other = plain.grid(10).timesteps, changed.grid(10).timesteps
    assert max(other) == 999 > max(own)
    assert plain.grid(10).timesteps == own  # the bundled model itself is as it was


def test_another_clean_end_of_a_ddpm_scheduler_is_that_of_its_ddim_grid() -> None:
    plain, changed = unsample.load("scenes-ddpm"), unsample.load("scenes-ddpm[set_alpha_to_one=false]")
    assert plain.grid(10).sigma[0] == 0 < changed.grid(10).sigma[0]
    assert plain.grid(10).sigma[1:] == changed.grid(10).sigma[1:]


def test_a_round_trip_and_a_saved_inversion_know_the_name(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = unsample.load(TRAILING)
    made = unsample.sample(model, "a red circle", num_inference_steps=6, generator=0)
    inversion = unsample.invert(
        model, latents=made.latents, prompt="a red circle", method="edict", num_inference_steps=6, generator=0
    )
    file = tmp_path / "a.safetensors"
    inversion.save(file)
    assert unsample.Inversion.load(file).meta["model"]["id"] == TRAILING
    assert known_model(TRAILING).takes_prompt
    assert named_by_file(TRAILING) is not None
    assert named_by_file("scenes-sd[spacing=x]") is None
