"""Where noises, samples and latents lie to each other: angles, distances, nearest neighbours. Flat geometry of tensors.

Of B pictures each of `noise`, `sample` and `latent` is (B, ...) where the network works. No torch at import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

VERTICES = ("noise", "sample", "latent")


def distance(a: Tensor, b: Tensor) -> Tensor:
    """The L2 distance of each pair, (B,), in 64 bit."""
    found: Tensor = (a.double() - b.double()).flatten(1).norm(dim=1)
    return found


def angles(noise: Tensor, sample: Tensor, latent: Tensor) -> Tensor:
    """The angles in degrees at noise, sample and latent of each triangle: (B, 3), which sum to 180.

    NaN where two vertices are one point.
    """
    import torch

    points = [each.double().flatten(1) for each in (noise, sample, latent)]
    found = []
    for k in range(3):
        here, one, two = points[k], points[k - 1], points[k - 2]
        a, b = one - here, two - here
        a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
        found.append(2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1)))  # right to rounding at 0 and 180 too
    return torch.rad2deg(torch.stack(found, 1))


def most_probable(found: Tensor, centred: bool = False) -> tuple[int, int, int] | None:
    """The triple of whole degrees that sums to 180 and has the largest product of the three histograms.

    Args:
        found: (N, 3) angles of triangles.
        centred: a bin k holds the angles nearest to k; else, as in the paper, those from k up to k + 1, whose
            three lower ends sum to less than 180.

    Returns:
        The first of the likeliest triples; None where no triple has pictures in all three bins.
    """
    import torch

    bins = (found + 0.5 if centred else found).floor()
    first = torch.arange(1, 179)
    counts = (bins[:, :, None] == first).sum(0)  # (3, 178)
    third = 180 - first[:, None] - first[None, :]
    fits = third >= 1
    product = counts[0][:, None] * counts[1][None, :] * counts[2][(third.clamp(min=1) - 1)] * fits
    if not bool(product.any()):
        return None
    a, b = divmod(int(product.argmax()), 178)
    return a + 1, b + 1, int(third[a, b])


def nearest(asked: Tensor, among: Tensor) -> list[int]:
    """For each of `asked` the place of the nearest of `among`, in L2."""
    import torch

    return [int(place) for place in torch.cdist(asked.double().flatten(1), among.double().flatten(1)).argmin(1)]


def assigned(asked: Tensor, among: Tensor) -> float:
    """The share of pictures whose own partner is their nearest: 1 / N by chance."""
    found = nearest(asked, among)
    return sum(place == k for k, place in enumerate(found)) / len(found)


def toward(points: Tensor, noise: Tensor, latent: Tensor, shares: Sequence[float]) -> Tensor:
    """Distances of a trajectory's points (T + 1, B, ...) to the points `noise + share (latent - noise)`.

    Returns:
        (T + 1, B, shares).
    """
    import torch

    ends = [noise.double() + share * (latent.double() - noise.double()) for share in shares]
    return torch.stack([torch.stack([distance(x, end) for end in ends], 1) for x in points])


def turn(to_noise: Sequence[float], to_latent: Sequence[float]) -> float:
    """Where a trajectory turns, 0 at its first point and 1 at its last: from there on it is nearer to the latent.

    1 where it never is.
    """
    last = len(to_noise) - 1
    far = [k for k in range(last + 1) if to_latent[k] >= to_noise[k]]
    return min(far[-1] + 1, last) / last if far else 0.0


def splits(count: int, size: int, most: int = 8) -> list[list[int]]:
    """Disjoint splits of `count` pictures, interleaved: of `size` or more, at most `most`, at least one."""
    many = max(1, min(most, count // size))
    return [list(range(k, count, many)) for k in range(many)]
