"""What TABA looks at: of each picture that a model made its noise, its sample, and its latent (what inversion gives).

Here are the plans that several studies share, the probe that brings the three back, and their tensors by model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unsample.studies.base import Asked, Cells, is_cheap, packed, unpacked
from unsample.studies.geometry import VERTICES

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.experiment.findings import Findings


def by_size(asked: Asked, times: int) -> list[Asked]:
    """The same asked of the small networks with `times` as many pictures, apart; a part without models is left out."""
    small = tuple(model for model in asked.models if is_cheap(model))
    large = tuple(model for model in asked.models if not is_cheap(model))
    parts = (replace(asked, models=large), replace(asked, models=small, num_samples=times * asked.num_samples))
    return [part for part in parts if part.models]


def inverted(asked: Asked, study: str, **given: Any) -> dict[str, Any]:
    """The plan of a study that inverts by DDIM the pictures that the model made, and looks at them by its probe."""
    where = {"recovered": asked.generated}
    return asked.plan(methods=["ddim"], metrics=["std"], datasets=where, probe=study, **given)


def three(found: Findings) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, sample and latent of a batch: (B, C, h, w) each."""
    assert found.true_noise is not None
    assert found.start is not None
    assert found.noise is not None
    return found.true_noise.cpu(), found.start.cpu(), found.noise.cpu()


def space(found: Findings) -> str:
    """Where the network works: "pixels", or the "latents" of an autoencoder."""
    return "pixels" if found.source.shape[2:] == three(found)[1].shape[2:] else "latents"


def whole(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A probe: the three themselves, packed, and where they are."""
    every = dict(zip(VERTICES, three(found), strict=True))
    return [
        {"space": space(found)} | {name: packed(tensor[n]) for name, tensor in every.items()}
        for n in range(len(found.items))
    ]


def finite(cells: Cells) -> list[Mapping[str, Any]]:
    """The cells that have something to say: those that diverged have not."""
    return [cell for cell in cells if cell["probed"] and cell["status"] != "diverged"]


def gathered(cells: Cells) -> Iterator[tuple[str, int, str, list[str], dict[str, Tensor]]]:
    """By model and number of steps: both, the space, the pictures' ids, and the three, (N, C, h, w) each."""
    import torch

    from unsample.studies.running import cells_by

    for (model, steps), some in cells_by(finite(cells), "model", "steps"):
        tensors = {name: torch.stack([unpacked(cell["probed"][name]) for cell in some]) for name in VERTICES}
        yield model, steps, some[0]["probed"]["space"], [cell["item"] for cell in some], tensors


def steps_of(asked: Asked, times: Sequence[float]) -> dict[float, int]:
    """Numbers of steps as multiples of what is asked, between 1 and 1000; none twice, what is asked before others."""
    found: dict[float, int] = {}
    for each in sorted(times, key=lambda each: each != 1):
        steps = min(1000, max(1, round(each * asked.steps)))
        if steps not in found.values():
            found[each] = steps
    return {each: found[each] for each in times if each in found}
