"""Several inversions as one: what a picture had before it has after, and what does not go together is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import unsample
from unsample.datasets import Scenes
from unsample.errors import BadInput
from unsample.verbs.joining import joined


@pytest.mark.filterwarnings("ignore")
def test_parts_that_are_joined_are_what_they_were_together(tmp_path: Path) -> None:
    model = unsample.load("scenes-mixture")
    images = torch.stack([item.image for item in Scenes("tune", 3, size=32)])
    given = {"num_inference_steps": 2, "keep_trajectory": True, "progress": False}
    whole = unsample.invert(model, images, ["a", "b", "c"], method="edict", **given)
    again = joined([whole[0], whole[1:]])
    assert torch.equal(again.noise, whole.noise)
    assert again.trajectory is not None
    assert torch.equal(again.trajectory, whole.trajectory)  # type: ignore[arg-type]
    assert {k: v.tolist() for k, v in again.state.items()} == {k: v.tolist() for k, v in whole.state.items()}
    assert (again.meta.prompt, again.status, again.nfe) == (["a", "b", "c"], whole.status, whole.nfe)
    assert again.seconds == pytest.approx(whole.seconds)
    again.save(tmp_path / "again.safetensors")
    back = unsample.Inversion.load(tmp_path / "again.safetensors")
    assert torch.equal(unsample.reconstruct(model, back).images, unsample.reconstruct(model, whole).images)
    other = unsample.invert(model, images[:1], "a", method="edict", num_inference_steps=3, progress=False)
    with pytest.raises(BadInput, match="do not go together: their meta differ"):
        joined([whole[0], other])
    without = unsample.invert(model, images[:1], "a", method="edict", num_inference_steps=2, progress=False)
    with pytest.raises(BadInput, match="their shapes differ"):
        joined([whole[0], without])
