"""A Gaussian mixture in closed form: the oracle. Its eps is exact, for a prompt too, in any dimension.

With `x = alpha x0 + sigma eps` and x0 from component k ~ N(mu_k, v_k) (diagonal), component k of x is
N(alpha mu_k, s_k), s_k = alpha^2 v_k + sigma^2, and E[x0 | x, k] = mu_k + alpha v_k / s_k (x - alpha mu_k).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.models.base import Adapter, Condition, described, state_dict_sha256
from unsample.numbers.grid import FLOW, prediction_type_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class GaussianModel(Adapter):
    """A mixture of K Gaussians with diagonal variances.

    Args:
        means: (K, C, H, W), in the model's own range ([-1, 1] nominal).
        variances: (K, C, H, W), positive.
        scheduler: a diffusers scheduler; its `prediction_type` is what `network` returns, the velocity eps - x0 for
            one of flow matching.
        id: a name.
        fits: for a prompt, (K,) log-weights added to those of the components; None for a model without text.
    """

    family = "gaussian"
    __repr__ = described
    num_classes: int | None = None
    multiple = 1

    def __init__(
        self,
        means: Tensor,
        variances: Tensor,
        scheduler: Any,
        id: str = "gaussian",
        fits: Callable[[str], Tensor] | None = None,
    ) -> None:
        import torch

        if means.shape != variances.shape or means.ndim != 4:
            raise Incompatible(
                f"means and variances must both be (K, C, H, W); got {tuple(means.shape)} and {tuple(variances.shape)}"
            )
        self.means, self.variances = means.double(), variances.double()
        self.scheduler, self.id, self.fits = scheduler, id, fits
        self.sample_shape: tuple[int, int, int] = tuple(means.shape[1:])  # type: ignore[assignment]
        self.picture_size = (self.sample_shape[2], self.sample_shape[1])
        self.takes_prompt = fits is not None
        self.embed_width = len(means)  # an embedding is a log-weight a component
        self.device = means.device
        self.dtype: torch.dtype | None = torch.float64
        self._last_level: tuple[tuple[float, float], tuple[Tensor, ...]] | None = None

    def to(self, device: torch.device) -> GaussianModel:
        """The same mixture on another device."""
        return GaussianModel(self.means.to(device), self.variances.to(device), self.scheduler, self.id, self.fits)

    def network(self, x: Tensor, timestep: float, condition: Condition) -> Tensor:
        """The exact eps, v, x0 or velocity (as the scheduler's `prediction_type` says), computed in float64."""
        kind = prediction_type_of(self.scheduler)
        alpha, sigma = self._levels_at(timestep)
        if x.shape[1:] != self.means.shape[1:]:
            own, got = tuple(self.means.shape[1:]), tuple(x.shape[1:])
            raise Incompatible(f"{self.id} is a closed form and knows samples of {own} only; got {got}")
        flat = x.double().flatten(1)
        x0, noise = (v.reshape(x.shape) for v in self._posterior_means(flat, alpha, sigma, condition))
        if kind in ("sample", FLOW):
            return (x0 if kind == "sample" else noise - x0).to(x.dtype)
        eps = (x.double() - alpha * x0) / sigma
        return (eps if kind == "epsilon" else alpha * eps - sigma * x0).to(x.dtype)

    def _levels_at(self, timestep: float) -> tuple[float, float]:
        """alpha and sigma at a timestep; between two rows of a table log(sigma / alpha) is a straight line."""
        if prediction_type_of(self.scheduler) == FLOW:
            sigma = timestep / float(self.scheduler.config.num_train_timesteps)
            return 1 - sigma, sigma
        table, low = self.scheduler.alphas_cumprod, int(timestep)
        abar = float(table[low].double())
        if timestep != low:
            ends = [math.log((1 - a) / a) for a in (abar, float(table[low + 1].double()))]
            abar = 1 / (1 + math.exp(ends[0] + (timestep - low) * (ends[1] - ends[0])))
        return math.sqrt(abar), math.sqrt(1 - abar)

    def _posterior_means(self, x: Tensor, alpha: float, sigma: float, condition: Condition) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and E[eps | x]; neither divides by alpha or sigma."""
        precision, centre, constant, gain, offset = self._level(alpha, sigma)
        logits = constant + x @ centre.T - 0.5 * (x**2) @ precision.T  # (B, K)
        if condition.prompt_embeds is not None:
            logits = logits + condition.prompt_embeds.double().flatten(1)
        weight = logits.softmax(1)
        return weight @ offset + x * (weight @ gain), sigma * (x * (weight @ precision) - weight @ centre)

    def _level(self, alpha: float, sigma: float) -> tuple[Tensor, ...]:
        """What depends on the noise level only; the last one asked for is kept, and another thread may replace it."""
        kept = self._last_level
        if kept is None or kept[0] != (alpha, sigma):
            mu, v = self.means.flatten(1), self.variances.flatten(1)
            s = alpha**2 * v + sigma**2
            constant = -0.5 * ((alpha * mu) ** 2 / s + s.log()).sum(1)
            kept = (alpha, sigma), (1 / s, alpha * mu / s, constant, alpha * v / s, mu * (sigma**2 / s))
            self._last_level = kept
        return kept[1]

    def encode(self, images: Tensor) -> Tensor:
        """[0, 1] to [-1, 1]."""
        return images * 2 - 1

    def decode(self, latents: Tensor) -> Tensor:
        """[-1, 1] to [0, 1]; other channel counts are shown by their first channel."""
        images = latents / 2 + 0.5
        return images if images.shape[1] == 3 else images[:, :1].expand(-1, 3, -1, -1)

    def embed(self, prompts: Sequence[str | None], negative: bool = False) -> Condition:
        """(B, 1, K) log-weights of the components, -1e4 for those that do not fit the prompt."""
        import torch

        if self.fits is None:
            raise Incompatible(f"{self.id} takes no prompt; leave prompt out, or use scenes-mixture or scenes-sd")
        return Condition(torch.stack([self.fits(p or "") for p in prompts])[:, None].to(self.device))

    @cached_property
    def _sha256(self) -> str:
        return state_dict_sha256({"means": self.means, "variances": self.variances})

    def weights_sha256(self) -> str:
        """SHA-256 of means and variances."""
        return self._sha256


def scenes_mixture(scheduler: Any = None) -> GaussianModel:
    """`scenes-mixture`: 512 scenes at 32x32, every combination of 8 shapes, 4 colours, 4 backgrounds, 4 textures.

    All are drawn with the same jitter and light, so changing one attribute leads to another component: noise,
    attributes and the true edit are all known. The variance is small in plain regions, larger in textured ones. With a
    `scheduler` of flow matching it is the same mixture as a flow, its velocity exact.
    """
    import torch
    from diffusers import DDIMScheduler

    from unsample.datasets.rendered import mixture_scenes
    from unsample.datasets.scenes import render

    scenes = mixture_scenes()
    drawn = render(scenes, 32)
    variances = torch.where(drawn.plain_mask > 0, 0.03**2, 0.12**2).expand_as(drawn.images)
    scheduler = scheduler or DDIMScheduler(clip_sample=False)
    return GaussianModel(
        drawn.images * 2 - 1, variances, scheduler, "scenes-mixture", lambda prompt: fit_prompt(prompt, scenes)
    )


def fit_prompt(prompt: str, scenes: Sequence[Any]) -> Tensor:
    """(K,) log-weights: 0 for the scenes that fit most of the prompt's attribute words, -1e4 for the others.

    Words before `on` speak of the object, words after it of the background. A part that names no texture is taken
    as plain if it names a colour, as in the captions. A warning when no scene fits every word.
    """
    import warnings

    import torch

    from unsample.datasets.scenes import ATTRIBUTES

    words = prompt.lower().replace(",", " ").split()
    cut = words.index("on") if "on" in words else len(words)
    wanted: dict[str, str] = {}
    parts = [(words[:cut], ("shape", "colour", "texture")), (words[cut:], ("background", "background_texture"))]
    for part, names in parts:
        for name in names:
            named = [w for w in part if w in ATTRIBUTES[name]]
            if named:
                wanted[name] = named[0]
        if names[-2] in wanted:
            wanted.setdefault(names[-1], "plain")
    if words and not wanted:
        warnings.warn(f"scenes-mixture knows no word of {prompt!r}; all of its scenes are meant", stacklevel=2)
    score = torch.tensor([sum(getattr(s, n) == v for n, v in wanted.items()) for s in scenes])
    if int(score.max()) < len(wanted):
        warnings.warn(f"no component of scenes-mixture fits all of {prompt!r}; the nearest are used", stacklevel=2)
    return torch.where(score == score.max(), 0.0, -1e4)  # finite, so that embeddings can be interpolated
