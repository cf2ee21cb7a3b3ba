"""A copy of a model's own network that takes features beside x and answers with more than one picture.

The copy is asked as the network is, at its level and under its prompts. Two convolutions bring the features in behind
its first layer, and one in front of its last layer gives the answers; the last of each is 0 at first, so that the copy
begins as the network it was made of, and answers 0.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.models.base import Model

if TYPE_CHECKING:
    from torch import Tensor

ENDS = ("conv_in", "conv_out")  # of a diffusers UNet


@dataclass(frozen=True)
class Copy:
    """A copied network.

    Args:
        model: an adapter like the original's, whose network is the copy.
        modules: `unet`, `branch`, `head`.
    """

    model: Any
    modules: Any

    def asked(self, ask: Any, features: Tensor, answers: int) -> Sequence[Tensor]:
        """The answers (B, C, H, W) to features (B, F, H, W), both float32, where `ask()` asks `model` once.

        Gradients reach all three modules, unless they are off.
        """
        unet, seen = self.modules["unet"], []

        def beside(layer: Any, given: Any, output: Tensor) -> Tensor:
            return output + self.modules["branch"](features.to(output.dtype))

        def kept(layer: Any, given: Any) -> None:
            seen.append(given[0])

        hooks = [unet.conv_in.register_forward_hook(beside), unet.conv_out.register_forward_pre_hook(kept)]
        try:
            ask()
        finally:
            for hook in hooks:
                hook.remove()
        told: Sequence[Tensor] = self.modules["head"](seen[0]).chunk(answers, 1)
        return told

    def tensors(self) -> dict[str, Tensor]:
        """All weights by name."""
        return {name: t.detach().cpu().contiguous() for name, t in self.modules.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take weights.

        Raises:
            RuntimeError: they are not those of such a copy.
        """
        self.modules.load_state_dict(dict(tensors))


def check_copied(model: Model) -> None:
    """Refuse a model whose network is none that can be copied.

    Raises:
        Incompatible: it is no UNet of diffusers, or lies offloaded or quantized.
    """
    unet = getattr(model, "unet", None)
    if any(getattr(unet, end, None) is None for end in ENDS):
        raise Incompatible(
            f"the first steps of {model.id} cannot be learned: what is taught is a copy of a UNet of diffusers (with "
            f"{' and '.join(ENDS)}), and its network is none; use anderson"
        )
    assert unet is not None
    if any(hasattr(layer, "_hf_hook") for layer in unet.modules()):
        raise Incompatible(f"the network of {model.id} is offloaded and cannot be copied; load it with offload='none'")
    if not all(p.is_floating_point() for p in unet.parameters()):
        raise Incompatible(f"the network of {model.id} is quantized and cannot be taught; load it without quantize")


def copied(model: Model, features: int, answers: int, seed: int = 0) -> Copy:
    """A copy of the model's network in float32, for `features` and `answers` times the channels of its state.

    Args:
        model: checked by `check_copied`.
        features: tensors of the shape of a state that it is given beside x.
        answers: tensors of that shape that it gives.
        seed: of the new layers.
    """
    import torch

    channels = model.sample_shape[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = copy.deepcopy(model.unet).float().eval().requires_grad_(True)  # type: ignore[attr-defined]
        wide, last = unet.conv_in.out_channels, unet.conv_out.in_channels
        branch = torch.nn.Sequential(
            torch.nn.Conv2d(features * channels, wide, 3, padding=1),
            torch.nn.SiLU(),
            torch.nn.Conv2d(wide, wide, 3, padding=1),
        )
        head = torch.nn.Conv2d(last, answers * channels, 3, padding=1)
    with torch.no_grad():
        for parameter in (*branch[2].parameters(), *head.parameters()):
            parameter.zero_()
    modules = torch.nn.ModuleDict({"unet": unet, "branch": branch, "head": head}).to(model.device)
    own: Any = copy.copy(getattr(model, "bare", model))  # an adapter whose answers are remembered would mix up the two
    own.unet, own.dtype = unet, torch.float32
    return Copy(own, modules)
