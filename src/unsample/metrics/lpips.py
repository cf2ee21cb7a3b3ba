"""LPIPS (Zhang et al., 2018, arXiv:1801.03924, Eq. 1), version 0.1: a distance of normalised features of a trunk.

`d = sum_l mean_hw w_l . (f_l / |f_l| - g_l / |g_l|)^2`, pictures scaled to [-1, 1] and then by the authors' own shift
and scale; |f| = sqrt(1e-8 + sum f^2), as torchmetrics has it. The linear heads w come with torchmetrics, the trunk from
a local file. A trunk other than torchvision's ranks pictures, and does not give published numbers: `details` names it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from unsample.errors import BadInput, BadOption, WeightsMissing
from unsample.metrics.subject import Found, Settings, Subject
from unsample.metrics.trunks import MIN_SIDE, NETWORKS, TAPS, load
from unsample.metrics.weights import WEIGHTS, find_weights

if TYPE_CHECKING:
    from torch import Tensor

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPSILON = 1e-8


def lpips(images: Tensor, reference: Tensor, net: str, settings: Settings) -> Tensor:
    """The distance of each picture from its reference: (B,), float64.

    Args:
        images, reference: (B, 3, H, W) in [0, 1].
        net: alex, vgg or squeeze.

    Raises:
        WeightsMissing: no trunk. BadInput: shapes that differ, or a picture too small for the trunk.
    """
    return sum(layer.mean((1, 2, 3)) for layer in layers(images, reference, net, settings))  # type: ignore[return-value]


def layers(images: Tensor, reference: Tensor, net: str, settings: Settings) -> list[Tensor]:
    """The distance before it is averaged: for each layer (B, 1, h, w), float64."""
    import torch

    trunk = load(net, trunk_path(net, settings), settings.device)
    if images.shape != reference.shape:
        raise BadInput(f"LPIPS needs two of one shape; got {tuple(images.shape)} and {tuple(reference.shape)}")
    if min(images.shape[2:]) < MIN_SIDE[net]:
        side = min(images.shape[2:])
        raise BadInput(f"LPIPS on {NETWORKS[net]} needs sides of at least {MIN_SIDE[net]} pixels; got {side}")
    shift, scale = (torch.tensor(v, device=settings.device).view(1, 3, 1, 1) for v in (SHIFT, SCALE))
    found: list[Tensor] = []
    with torch.no_grad():
        x, y = ((2 * p.float().to(settings.device) - 1 - shift) / scale for p in (images, reference))
        for index, layer in enumerate(trunk):
            x, y = layer(x), layer(y)
            if index in TAPS[net]:
                head = heads(net)[len(found)].to(x.device)
                found.append(((_unit(x) - _unit(y)).square() * head).sum(1, keepdim=True).double().cpu())
    return found


def _unit(features: Tensor) -> Tensor:
    return features / (EPSILON + features.square().sum(1, keepdim=True)).sqrt()


@lru_cache
def heads(net: str) -> list[Tensor]:
    """The trained weights of each layer's channels, (1, C, 1, 1), out of the torchmetrics package."""
    from importlib.util import find_spec

    import torch

    spec = find_spec("torchmetrics")
    folder = Path(spec.origin or "").parent if spec else Path()
    path = folder / "functional" / "image" / "lpips_models" / f"{net}.pth"
    if not path.is_file():
        raise WeightsMissing(
            f"the LPIPS heads {net}.pth are not in the installed torchmetrics; install torchmetrics 1.x"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    wanted = [f"lin{k}.model.1.weight" for k in range(len(TAPS[net]))]
    if sorted(state) != wanted:
        raise WeightsMissing(f"the LPIPS heads {net}.pth of torchmetrics hold {sorted(state)}, not {wanted}")
    return [state[key].float() for key in wanted]


def trunk_path(net: str, settings: Settings) -> Path:
    """Where the trunk's weights are.

    Raises:
        BadOption: no such net. WeightsMissing: nowhere.
    """
    if net not in NETWORKS:
        raise BadOption(f"LPIPS knows the networks {', '.join(NETWORKS)}; got {net!r}")
    return find_weights(NETWORKS[net], settings.weights_dir)


def details(net: str, settings: Settings) -> dict[str, str]:
    """The file that the trunk's weights are from, and whether it is the published one."""
    file = trunk_path(net, settings).name
    published = "" if file == WEIGHTS[NETWORKS[net]].file else "; not by name torchvision's file: ranks only"
    return {"trunk": file + published}


def of_lpips(net: str, subject: Subject, settings: Settings) -> Found:
    """On `alex`, the default of the LPIPS authors; on `vgg`, as EasyInv reports it; on `squeeze`, as PIE-Bench."""
    images, reference = subject.given("images", "reference")
    return Found(lpips(images, reference, net, settings).tolist(), details(net, settings))
