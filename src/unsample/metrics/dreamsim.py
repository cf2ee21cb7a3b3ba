"""DreamSim (Fu et al., 2023, arXiv:2306.09344): an adapter for its own package, where that is installed.

The package downloads whatever it does not find, so it is called only when all of its files are in one folder. It needs
torchvision, and DINO's code in torch hub's cache.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import WeightsMissing
from unsample.metrics.pixels import as_pil
from unsample.metrics.subject import Settings, Subject
from unsample.metrics.weights import find_weights

if TYPE_CHECKING:
    from torch import Tensor

DINO_CODE = "facebookresearch_dino_main"


def dreamsim(subject: Subject, settings: Settings) -> list[float]:
    """The distance of the ensemble of three networks.

    Raises:
        WeightsMissing: package, weights or DINO's code are not here.
    """
    from importlib.util import find_spec

    if find_spec("dreamsim") is None:
        raise WeightsMissing("dreamsim needs its package, which needs torchvision: pip install dreamsim")
    folder = find_weights("dreamsim", settings.weights_dir)
    model, prepare = _loaded(folder, settings.device)
    images, reference = subject.given("images", "reference")
    found = []
    for a, b in zip(as_pil(images), as_pil(reference), strict=True):
        both: list[Tensor] = [prepare(p).to(settings.device) for p in (a, b)]
        found.append(float(model(*both)))
    return found


@lru_cache(maxsize=1)
def _loaded(folder: Path, device: str) -> tuple[Any, Any]:
    import torch

    if not (Path(torch.hub.get_dir()) / DINO_CODE).is_dir():
        raise WeightsMissing(
            f"dreamsim loads DINO's code from torch hub's cache, and {DINO_CODE} is not in {torch.hub.get_dir()!r}"
        )
    from dreamsim import dreamsim as load

    return load(pretrained=True, device=device, cache_dir=str(folder))
