"""The three networks on whose features LPIPS stands, by hand: torchvision is not needed, its weights are.

Layers and names are those of torchvision's `features`, so that its state dicts fit. Keys are strict: a file that lacks
one, or holds one that is not the network's, is refused, because LPIPS on random layers still looks like a distance.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unsample.errors import WeightsMissing, first_line
from unsample.metrics.weights import check_digest

if TYPE_CHECKING:
    from torch import Tensor, nn

NETWORKS: Final = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
TAPS: Final = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29), "squeeze": (1, 4, 7, 9, 10, 11, 12)}
MIN_SIDE: Final = {"alex": 31, "vgg": 16, "squeeze": 17}  # below, a pooling layer has nothing left
CLASSIFIER: Final = re.compile(r"classifier\.\d+\.(weight|bias)")  # in the files, and not needed here
VGG: Final = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)  # 0: pool
FIRES: Final = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128), 9: (256, 48, 192),
                10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}  # fmt: skip


def build(net: str) -> nn.Sequential:
    """The layers up to the last that LPIPS looks at, of random weights."""
    return {"alex": _alexnet, "vgg": _vgg16, "squeeze": _squeezenet}[net]()


def _alexnet() -> nn.Sequential:
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    )


def _vgg16() -> nn.Sequential:
    from torch import nn

    layers: list[nn.Module] = []
    channels = 3
    for width in VGG:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2, 2)]
        channels = width or channels
    return nn.Sequential(*layers)


def _squeezenet() -> nn.Sequential:
    import torch
    from torch import nn

    class Fire(nn.Module):
        """Squeeze to few channels, expand by 1x1 and 3x3 side by side."""

        def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
            super().__init__()
            self.squeeze = nn.Conv2d(channels, squeezed, 1)
            self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
            self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.squeeze(x).relu()
            return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()

    pools = {k: nn.MaxPool2d(3, 2, ceil_mode=True) for k in (2, 5, 8)}
    first: dict[int, nn.Module] = {0: nn.Conv2d(3, 64, 3, 2), 1: nn.ReLU()}
    layers = {**first, **pools, **{k: Fire(*sizes) for k, sizes in FIRES.items()}}
    return nn.Sequential(*(layers[k] for k in range(13)))


@lru_cache(maxsize=3)
def load(net: str, path: Path, device: str = "cpu") -> nn.Sequential:
    """The trunk with the weights of a file (.pth, .safetensors) or a folder of .npy files, for inference.

    Raises:
        WeightsMissing: another file than its name says, unreadable, or not exactly this network's keys and shapes.
    """
    check_digest(path, NETWORKS[net])
    state = _npy(path) if path.is_dir() else _read(path)
    trunk = build(net)
    wanted = {k: tuple(v.shape) for k, v in trunk.state_dict().items()}
    found = {k.removeprefix("features."): v for k, v in state.items() if not CLASSIFIER.fullmatch(k)}
    wrong = sorted(set(wanted) ^ set(found)) or [k for k in wanted if tuple(found[k].shape) != wanted[k]]
    if wrong:
        raise WeightsMissing(
            f"{path.name} is no {NETWORKS[net]}: {len(wrong)} of its tensors are missing, unknown or of another shape, "
            f"{wrong[0]!r} first; give torchvision's file, whole or its features alone"
        )
    trunk.load_state_dict({k: v.float() for k, v in found.items()}, strict=True)
    return trunk.requires_grad_(False).eval().to(device)


def _read(path: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's, zip's and safetensors' errors have no common root
        reason = first_line(error)
        raise WeightsMissing(f"weights {path.name} cannot be read ({reason}); get the file again") from error
    if not isinstance(state, dict):
        raise WeightsMissing(f"{path.name} holds a {type(state).__name__}, not a state dict; give torchvision's file")
    return state


def _npy(folder: Path) -> dict[str, Tensor]:
    """SqueezeNet 1.1 of the ONNX model zoo, a file a tensor: conv 0, then three of each fire, then the classifier."""
    import numpy as np
    import torch

    places = ["features.0", *(f"features.{k}.{part}" for k in FIRES for part in ("squeeze", "expand1x1", "expand3x3"))]
    names = {f"squeezenet0_conv{k}_{part}": f"{place}.{part}"
             for k, place in enumerate([*places, "classifier.1"]) for part in ("weight", "bias")}  # fmt: skip
    files = {file.stem: file for file in (folder / "weights").glob("*.npy")}
    if set(files) != set(names):
        odd = sorted(set(files) ^ set(names))
        raise WeightsMissing(f"folder {folder.name!r} is no SqueezeNet 1.1 in .npy files; {odd[0]!r} is missing or odd")
    return {names[stem]: torch.from_numpy(np.load(file, allow_pickle=False)) for stem, file in files.items()}
