"""How well a noise was recovered, where the truth is known (Zeng et al., 2026, arXiv:2606.03111, Eq. 9 to 11).

All on the model's own range ([-1, 1], or latents), unclamped and unquantised, one value a picture. A shrunken estimate
has a lower mean squared error without being nearer in direction, so the cosine and the std stand beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unsample.errors import BadInput
from unsample.metrics.subject import Found, Settings, Subject

if TYPE_CHECKING:
    from torch import Tensor


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error a picture: (B,), float64. `e_latent` of noises, `e_recon` and `e_interp` of latents."""
    return (a.double() - b.double()).square().flatten(1).mean(1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine between whole pictures: (B,), float64; 0 where one of them is zero."""
    p, q = a.double().flatten(1), b.double().flatten(1)
    scale = p.norm(dim=1) * q.norm(dim=1)
    return (p * q).sum(1) / scale.where(scale > 0, 1.0)


def std(noise: Tensor) -> Tensor:
    """Standard deviation of a picture's values: (B,), float64."""
    return noise.double().flatten(1).std(1, correction=0)


# ---------------------------------------------------------------- as the table calls them


def _compared(subject: Subject, name: str, with_name: str) -> tuple[Tensor, Tensor]:
    """Two of the subject's tensors, of one shape."""
    a, b = subject.given(name, with_name)
    if a.shape != b.shape:
        raise BadInput(f"{name} and {with_name} must be of one shape; got {tuple(a.shape)} and {tuple(b.shape)}")
    return a, b


def of_latent(subject: Subject, settings: Settings) -> list[float]:
    """`E_latent`: MSE of the recovered noise (Eq. 9)."""
    return mse(*_compared(subject, "noise", "true_noise")).tolist()


def of_recon(subject: Subject, settings: Settings) -> Found:
    """`E_recon`: MSE between what plays back and where the walk began (Eq. 10)."""
    return Found(mse(*_compared(subject, "played", "start")).tolist(), {"start": subject.start_kind})


def of_recon_record(subject: Subject, settings: Settings) -> Found:
    """The same of the latents that the whole record led to."""
    return Found(mse(*_compared(subject, "replayed", "start")).tolist(), {"start": subject.start_kind})


def of_interp(subject: Subject, settings: Settings) -> Found:
    """`E_interp`: the same for the sample of `slerp(true noise, recovered noise, 1/2)` (Eq. 11)."""
    return Found(mse(*_compared(subject, "between", "start")).tolist(), {"start": subject.start_kind})


def of_cosine(subject: Subject, settings: Settings) -> list[float]:
    """Direction, without length."""
    return cosine(*_compared(subject, "noise", "true_noise")).tolist()


def of_std(subject: Subject, settings: Settings) -> list[float]:
    """Length, without direction."""
    return std(*subject.given("noise")).tolist()
