"""How alike two representations of the same pictures are: linear CKA, as it is and debiased, and SVCCA.

CKA (Kornblith et al., 2019, arXiv:1905.00414, Eq. 3 with linear kernels): `HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))` of
the Gram matrices. The plain one tends to 1 with more features than pictures; the debiased one takes the unbiased HSIC
(Song et al., 2012, Eq. 5) and can be negative. SVCCA (Raghu et al., 2017, arXiv:1706.05806): the directions that hold
99 % of the variance of each, then the mean of their canonical correlations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unsample.metrics.distributions import FeatureSets, Outcome

if TYPE_CHECKING:
    from torch import Tensor

VARIANCE = 0.99
CONSTANT = "the features of one side do not vary: there is nothing to compare"


def cka(tally: FeatureSets) -> Outcome:
    """Linear CKA of the features of results and sources, in [0, 1]."""
    x, y = (f - f.mean(0) for f in tally.joined())
    sizes = {"n": len(x)}
    if max(x.shape[1], y.shape[1]) > len(x):  # the smaller matrices: the same sums
        k, m = x @ x.T, y @ y.T
        scale, cross = k.norm() * m.norm(), (k * m).sum()
    else:
        scale, cross = (x.T @ x).norm() * (y.T @ y).norm(), (y.T @ x).square().sum()
    return (float(cross / scale) if scale > 0 else CONSTANT), sizes


def cka_debiased(tally: FeatureSets) -> Outcome:
    """Linear CKA with the unbiased estimate of HSIC; about 0 for unrelated features."""
    x, y = tally.joined()
    sizes = {"n": len(x)}
    if len(x) < 4:
        return "the unbiased estimate needs at least four pictures", sizes
    grams = [f @ f.T for f in (x - x.mean(0), y - y.mean(0))]
    for gram in grams:
        gram.fill_diagonal_(0)
    cross, own_x, own_y = (_hsic(grams[i], grams[j]) for i, j in ((0, 1), (0, 0), (1, 1)))
    return (cross / (own_x * own_y) ** 0.5 if min(own_x, own_y) > 0 else CONSTANT), sizes


def _hsic(k: Tensor, m: Tensor) -> float:
    """Unbiased, of two Gram matrices (n, n) with zeros on their diagonals."""
    n = len(k)
    rows_k, rows_m = k.sum(1), m.sum(1)
    total = (k * m).sum() + rows_k.sum() * rows_m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows_k @ rows_m)
    return float(total / (n * (n - 3)))


def svcca(tally: FeatureSets) -> Outcome:
    """Mean canonical correlation of the leading directions, in [0, 1]."""
    import torch

    x, y = tally.joined()
    bases = [_leading(f) for f in (x, y)]
    kept = [b.shape[1] for b in bases]
    sizes = {"n": len(x), "directions": kept}
    if min(kept) == 0:
        return CONSTANT, sizes
    if len(x) <= sum(kept):
        return f"{len(x)} pictures for {kept[0]} + {kept[1]} directions: the correlations would be 1 by chance", sizes
    return float(torch.linalg.svdvals(bases[0].T @ bases[1]).mean().clamp(max=1)), sizes


def _leading(features: Tensor) -> Tensor:
    """An orthonormal basis (n, k) of the directions that hold 99 % of the variance."""
    import torch

    left, values, _ = torch.linalg.svd(features - features.mean(0), full_matrices=False)
    power = values.square().cumsum(0)
    if float(power[-1]) == 0:
        return left[:, :0]
    return left[:, : int((power < VARIANCE * power[-1]).sum()) + 1]
