"""How far apart two sets of pictures are, over any features; every figure carries the sizes of the two samples.

Frechet distance (Heusel et al., 2017, arXiv:1706.08500, Eq. 6): `|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2))`. Kernel
distance (Binkowski et al., 2018, arXiv:1801.01401, Sec. 3): the unbiased squared MMD of `(x.y / D + 1)^3`. Precision
and recall (Kynkaanniemi et al., 2019, arXiv:1904.06991, Eq. 1 and 2): the share of one set that lies in the
balls around the other's points which reach to their third neighbours. All in float64. Tallies are filled a batch at a
time and merged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput
from unsample.metrics.features import INCEPTION, both
from unsample.metrics.moments import Moments
from unsample.metrics.subject import Settings, Subject

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBOURS = 3
MOST_FEATURES = 8192  # of a covariance, half a gigabyte
ROWS = 1024  # of a matrix of distances that are in memory at once
Outcome = tuple[float | str, dict[str, Any]]


class FeatureMoments:
    """Mean and covariance of the features of results and sources."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.images, self.reference = Moments(), Moments()

    @property
    def n(self) -> int:
        """Pictures seen."""
        return self.images.n

    def add(self, subject: Subject) -> None:
        """A batch."""
        a, b = both(subject, self.settings)
        if a.shape[1] > MOST_FEATURES:
            size = 8 * a.shape[1] ** 2 / 2**30
            raise BadInput(
                f"a covariance of {a.shape[1]} features takes {size:.1f} GB; the limit is {MOST_FEATURES} features: "
                "smaller pictures, or a network such as fd[scenes-clip]"
            )
        self.images.add(a)
        self.reference.add(b)

    def merge(self, other: FeatureMoments) -> None:
        """Another shard."""
        self.images.merge(other.images)
        self.reference.merge(other.reference)


class InceptionMoments(FeatureMoments):
    """The same of the Inception features that papers mean by FID."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(replace(settings, clip=INCEPTION))


class FeatureSets:
    """The features themselves: for what needs pairs of pictures."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.images: list[Tensor] = []
        self.reference: list[Tensor] = []

    @property
    def n(self) -> int:
        """Pictures seen."""
        return sum(len(part) for part in self.images)

    def add(self, subject: Subject) -> None:
        """A batch."""
        a, b = both(subject, self.settings)
        self.images.append(a)
        self.reference.append(b)

    def merge(self, other: FeatureSets) -> None:
        """Another shard."""
        self.images += other.images
        self.reference += other.reference

    def joined(self) -> tuple[Tensor, Tensor]:
        """All of them: two of (n, D), float64."""
        import torch

        return torch.cat(self.images).double(), torch.cat(self.reference).double()


def fd(tally: FeatureMoments) -> Outcome:
    """Frechet distance of two Gaussians with the features' moments."""
    sizes = {"n_images": tally.images.n, "n_reference": tally.reference.n}
    if min(sizes.values()) < 2:
        return "a covariance needs at least two pictures on each side", sizes
    assert tally.images.mean is not None
    assert tally.reference.mean is not None
    covariances = tally.images.covariance(), tally.reference.covariance()
    return frechet(tally.images.mean, covariances[0], tally.reference.mean, covariances[1]), sizes


def frechet(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """The distance of two Gaussians (D,), (D, D).

    `tr (S S')^(1/2)` is the sum of the roots of the eigenvalues of `R S' R` with R = S^(1/2): symmetric, so that it
    holds with fewer samples than dimensions, where a root of the product itself does not. Rounding leaves eigenvalues
    a little below zero; they are zero.
    """
    import torch

    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    apart = (mean - other_mean).square().sum()
    return max(0.0, float(apart + covariance.trace() + other_covariance.trace() - 2 * cross))


def kd(tally: FeatureSets) -> Outcome:
    """Unbiased squared MMD, so that it can be a little below zero, with a 95 % interval from the jackknife."""
    x, y = tally.joined()
    n, m = len(x), len(y)
    sizes = {"n_images": n, "n_reference": m}
    if min(n, m) < 3:
        return "a kernel distance with an interval needs at least three pictures on each side", sizes
    within_x, within_y = _kernel_sums(x, x) - _kernel(x, x), _kernel_sums(y, y) - _kernel(y, y)
    across_x, across_y = _kernel_sums(x, y), _kernel_sums(y, x)

    def mmd(xx: Tensor, yy: Tensor, xy: Tensor, n: int, m: int) -> Tensor:
        return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)

    sums = within_x.sum(), within_y.sum(), across_x.sum()
    value = float(mmd(*sums, n, m))
    without_x = mmd(sums[0] - 2 * within_x, sums[1], sums[2] - across_x, n - 1, m)
    without_y = mmd(sums[0], sums[1] - 2 * within_y, sums[2] - across_y, n, m - 1)
    variance = (n - 1) * without_x.var(correction=0) + (m - 1) * without_y.var(correction=0)
    half = 1.96 * float(variance) ** 0.5
    return value, sizes | {"low": value - half, "high": value + half}


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """k(x_i, y_i) row by row."""
    return ((x * y).sum(1) / x.shape[1] + 1) ** 3


def _kernel_sums(x: Tensor, y: Tensor) -> Tensor:
    """sum_j k(x_i, y_j) for each i, some rows at a time."""
    import torch

    return torch.cat([((rows @ y.T / x.shape[1] + 1) ** 3).sum(1) for rows in x.split(ROWS)])


def precision(tally: FeatureSets) -> Outcome:
    """The share of results that lie among the sources."""
    return _share(tally, lambda x, y: (x, y))


def recall(tally: FeatureSets) -> Outcome:
    """The share of sources that lie among the results."""
    return _share(tally, lambda x, y: (y, x))


def _share(tally: FeatureSets, order: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Outcome:
    x, y = tally.joined()
    sizes = {"n_images": len(x), "n_reference": len(y), "neighbours": NEIGHBOURS}
    if min(len(x), len(y)) <= NEIGHBOURS:
        return f"the distance to neighbour {NEIGHBOURS} needs more than {NEIGHBOURS} pictures on each side", sizes
    points, others = order(x, y)
    return _inside(points, others), sizes


def _inside(points: Tensor, others: Tensor) -> float:
    """The share of points within one of the others' balls."""
    import torch

    def distances(rows: Tensor) -> Tensor:  # not by a matrix product, which loses the nearest ones
        return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")

    nearest = NEIGHBOURS + 1  # the first neighbour of a point is itself
    radii = torch.cat([distances(rows).kthvalue(nearest, dim=1).values for rows in others.split(ROWS)])
    inside = [(distances(rows) <= radii).any(1) for rows in points.split(ROWS)]
    return float(torch.cat(inside).double().mean())
