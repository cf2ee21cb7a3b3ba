"""Features of pictures for distances between sets, by the name that such a distance carries in its brackets.

`pixels` are the values themselves; any CLIP (bundled, folder, hub id) gives its image embeddings, not normalised. The
2048 Inception features of the papers are `fid`'s alone; they come from torch-fidelity (the `[fid]` extra), which needs
torchvision, and from weights whose digest is checked before that package unpickles them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, WeightsMissing
from unsample.metrics.subject import Settings, Subject
from unsample.metrics.weights import check_digest, find_weights

if TYPE_CHECKING:
    from torch import Tensor

PIXELS, INCEPTION = "pixels", "inception"


def extract(images: Tensor, settings: Settings) -> Tensor:
    """Features (B, D) of pictures (B, 3, H, W) in [0, 1].

    Raises:
        WeightsMissing: the extractor's weights, or its package, are not here.
    """
    if settings.clip == PIXELS:
        return images.flatten(1).double()
    if settings.clip == INCEPTION:
        return _inception(images, settings)
    from unsample.metrics.clip import load

    return load(settings).images(images)


def both(subject: Subject, settings: Settings) -> tuple[Tensor, Tensor]:
    """Features of the results and of the sources.

    Raises:
        BadInput: features of two lengths (pixels of two sizes).
    """
    images, reference = subject.given("images", "reference")
    a, b = extract(images, settings), extract(reference, settings)
    if a.shape[1] != b.shape[1]:
        raise BadInput(f"features of one length are needed; {settings.clip} gives {a.shape[1]} and {b.shape[1]}")
    return a, b


def _inception(images: Tensor, settings: Settings) -> Tensor:
    import torch

    network = _network(settings.weights_dir, settings.device)
    levels = (images.double().clamp(0, 1) * 255).round().byte().to(settings.device)
    with torch.no_grad():
        features: Tensor = network(levels)[0]
    return features.flatten(1).double().cpu()


@lru_cache(maxsize=1)
def _network(weights_dir: str | None, device: str) -> Any:
    from importlib.util import find_spec

    if find_spec("torch_fidelity") is None:
        raise WeightsMissing(
            "fid is the distance of Inception features as the papers have it and needs torch-fidelity: "
            "pip install 'unsample[fid]'; fd[scenes-clip] or fd[FOLDER] does without"
        )
    path = find_weights(INCEPTION, weights_dir)
    check_digest(path, INCEPTION)
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except Exception as error:  # without a working torchvision: ImportError, RuntimeError
        raise WeightsMissing(
            f"torch-fidelity cannot be imported ({error}); it needs a torchvision that works"
        ) from error
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    return network.eval().to(device)
