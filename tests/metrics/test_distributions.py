"""Distances between sets against scipy, torchmetrics and loops; shards against the whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import unsample
from unsample.metrics import Measuring, Settings, Subject
from unsample.metrics.distributions import FeatureMoments, FeatureSets, _inside, fd, frechet, kd
from unsample.metrics.moments import Moments

PIXELS = Settings(clip="pixels")


def sets(count: int = 40, side: int = 2, shift: float = 0.1, seed: int = 0) -> Subject:
    """Two sets of small pictures, whose pixels are the features."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(count, 3, side, side, generator=generator, dtype=torch.float64) for _ in range(2))
    return Subject(images=x * 0.8 + shift, reference=y)


def features(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    return subject.images.flatten(1).numpy(), subject.reference.flatten(1).numpy()  # type: ignore[union-attr]


def parts(subject: Subject, *sizes: int) -> list[Subject]:
    """The same pictures in batches."""
    found, start = [], 0
    for size in sizes:
        rows = slice(start, start + size)
        found.append(Subject(images=subject.images[rows], reference=subject.reference[rows]))  # type: ignore[index]
        start += size
    return found


def sqrtm_frechet(x: np.ndarray, y: np.ndarray) -> float:
    """As pytorch-fid has it."""
    from scipy.linalg import sqrtm

    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real))


def test_the_frechet_distance_is_that_of_scipys_matrix_root() -> None:
    subject = sets(60)
    score = unsample.measure(["fd[pixels]"], subject)["fd[pixels]"]
    assert score.values[0] == pytest.approx(sqrtm_frechet(*features(subject)), rel=1e-8)
    assert (score.name, score.n) == ("fd[pixels]", 60)
    assert score.details == {"n_images": 60, "n_reference": 60}


def test_the_frechet_distance_holds_with_fewer_pictures_than_dimensions() -> None:
    """By singular values of the cross products of the samples: no matrix root, no eigenvalue of a singular product."""
    subject = sets(5, side=8)
    x, y = features(subject)
    assert x.shape[1] > len(x)
    a, b = ((f - f.mean(0)) / math.sqrt(len(f) - 1) for f in (x, y))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * cross
    assert unsample.measure(["fd[pixels]"], subject)["fd[pixels]"].values[0] == pytest.approx(expected, rel=1e-6)


def test_a_set_has_no_distance_from_itself_and_a_shift_its_square() -> None:
    subject = sets(30)
    same = Subject(images=subject.reference, reference=subject.reference)
    moved = Subject(images=subject.reference + 0.1, reference=subject.reference)  # type: ignore[operator]
    assert unsample.measure(["fd[pixels]"], same)["fd[pixels]"].values[0] == pytest.approx(0, abs=1e-7)
    assert unsample.measure(["fd[pixels]"], moved)["fd[pixels]"].values[0] == pytest.approx(12 * 0.01, rel=1e-6)


def test_known_gaussians_have_their_known_distance() -> None:
    a, b = torch.diag(torch.tensor([4.0, 9.0]).double()), torch.diag(torch.tensor([1.0, 1.0]).double())
    zero = torch.zeros(2, dtype=torch.float64)
    assert frechet(zero, a, zero + 1, b) == pytest.approx(2 + (2 - 1) ** 2 + (3 - 1) ** 2)


def test_shards_merge_to_the_whole_in_any_batches() -> None:
    subject = sets(40)
    names = ["fd[pixels]", "kd[pixels]", "precision[pixels]", "recall[pixels]", "cka[pixels]"]
    whole = unsample.measure(names, subject)
    first, second = Measuring(names), Measuring(names)
    for k, part in enumerate(parts(subject, 7, 1, 20, 12)):
        (first if k < 2 else second).add(part)
    first.merge(second)
    for name, score in first.finish().items():
        assert score.values[0] == pytest.approx(whole[name].values[0], rel=1e-9), name
        assert score.n == 40


def test_moments_far_from_zero_do_not_cancel() -> None:
    x = torch.randn(100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1e6
    moments = Moments()
    for rows in x.split(9):
        moments.add(rows)
    assert torch.allclose(moments.covariance(), torch.cov(x.T), rtol=1e-6)
    assert torch.allclose(moments.mean, x.mean(0))  # type: ignore[arg-type]


def test_the_kernel_distance_is_that_of_torchmetrics() -> None:
    from torchmetrics.image.kid import poly_mmd

    subject = sets(50)
    x, y = (torch.from_numpy(f) for f in features(subject))
    score = unsample.measure(["kd[pixels]"], subject)["kd[pixels]"]
    assert score.values[0] == pytest.approx(float(poly_mmd(x, y)), rel=1e-9)
    assert score.details["low"] < score.values[0] < score.details["high"]


def test_the_kernel_distance_of_sets_of_two_sizes_is_the_double_sum() -> None:
    tally = FeatureSets(PIXELS)
    x, y = (torch.rand(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (6, 9))
    tally.images, tally.reference = [x], [y]
    k = lambda a, b: float((a @ b / 4 + 1) ** 3)  # noqa: E731
    within = [
        sum(k(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j) / len(a) / (len(a) - 1)
        for a in (x, y)
    ]
    across = sum(k(a, b) for a in x for b in y) / 54
    assert kd(tally)[0] == pytest.approx(sum(within) - 2 * across, rel=1e-9)


def test_the_interval_of_the_kernel_distance_holds_zero_for_one_distribution() -> None:
    generator, inside = torch.Generator().manual_seed(0), 0
    for _ in range(100):
        tally = FeatureSets(PIXELS)
        tally.images, tally.reference = (
            [torch.randn(60, 4, generator=generator, dtype=torch.float64)] for _ in range(2)
        )
        _, details = kd(tally)
        inside += details["low"] <= 0 <= details["high"]
    assert inside >= 90  # 95 +- 2.2 of 100; under the null the statistic is not quite normal


def test_precision_and_recall_are_those_of_loops() -> None:
    subject = sets(30, side=1, shift=0.0)
    x, y = features(subject)

    def share(points: np.ndarray, others: np.ndarray) -> float:
        count = 0
        for p in points:
            for k, o in enumerate(others):
                radius = sorted(np.linalg.norm(o - q) for j, q in enumerate(others) if j != k)[2]
                if np.linalg.norm(p - o) <= radius:
                    count += 1
                    break
        return count / len(points)

    scores = unsample.measure(["precision[pixels]", "recall[pixels]"], subject)
    assert scores["precision[pixels]"].values[0] == pytest.approx(share(x, y))
    assert scores["recall[pixels]"].values[0] == pytest.approx(share(y, x))
    assert 0 < share(x, y) <= 1
    assert share(x, y) != share(y, x)


def test_points_far_away_are_outside_and_the_points_themselves_inside() -> None:
    y = torch.rand(20, 5, dtype=torch.float64)
    assert _inside(y, y) == 1
    assert _inside(y + 100, y) == 0


def test_too_few_pictures_have_a_reason_and_their_number() -> None:
    subject = sets(1)
    for name in ("fd", "kd", "precision", "recall", "cka_debiased", "svcca"):
        score = unsample.measure([f"{name}[pixels]"], subject)[f"{name}[pixels]"]
        assert score.values == [None], name
        assert score.reasons[0], name
        assert score.n == 1


def test_the_default_features_are_those_of_the_bundled_clip() -> None:
    pictures = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    score = unsample.measure(["fd"], Subject(images=pictures, reference=pictures.flip(0)))["fd"]
    assert score.name == "fd[scenes-clip]"
    assert score.values[0] == pytest.approx(0, abs=1e-3)  # the same set; features of up to 30


def test_features_of_two_lengths_are_refused() -> None:
    tally = FeatureMoments(PIXELS)
    assert fd(tally)[0] == "a covariance needs at least two pictures on each side"
    score = unsample.measure(["fd[pixels]"], Subject(images=torch.rand(3, 3, 4, 4), reference=torch.rand(3, 3, 5, 5)))
    assert "one length" in str(score["fd[pixels]"].reasons[0])


def test_a_covariance_that_would_fill_the_memory_is_refused() -> None:
    pictures = torch.rand(3, 3, 64, 64)
    score = unsample.measure(["fd[pixels]"], Subject(images=pictures, reference=pictures))["fd[pixels]"]
    assert score.values == [None]
    assert "12288 features takes 1.1 GB" in str(score.reasons[0])


def test_fid_without_its_package_or_weights_says_what_is_missing() -> None:
    score = unsample.measure(["fid"], sets(4))["fid"]
    assert score.values == [None]
    assert "torch-fidelity" in str(score.reasons[0]) or "6726825d" in str(score.reasons[0])


# ---------------------------------------------------------------- alignment


def paired(noise: float, count: int = 60) -> Subject:
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(count, 3, 2, 2, generator=generator, dtype=torch.float64)
    turned = (base.flatten(1) @ torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64)).Q) * 3
    return Subject(images=turned.view_as(base) + noise * torch.randn(base.shape, generator=generator), reference=base)


@pytest.mark.parametrize("count", [60, 8])
def test_cka_is_hsic_of_the_gram_matrices(count: int) -> None:
    subject = paired(1.0, count)
    x, y = features(subject)
    n = len(x)
    centre = np.eye(n) - 1 / n
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    expected = np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert unsample.measure(["cka[pixels]"], subject)["cka[pixels]"].values[0] == pytest.approx(expected, rel=1e-9)


def unbiased_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al., Eq. 5, with its vectors of ones."""
    n, one = len(k), np.ones(len(k))
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    middle = (one @ k @ one) * (one @ m @ one) / (n - 1) / (n - 2)
    return float((np.trace(k @ m) + middle - 2 / (n - 2) * one @ k @ m @ one) / n / (n - 3))


def test_the_debiased_cka_is_that_of_the_unbiased_estimate() -> None:
    subject = paired(1.0)
    x, y = features(subject)
    k, m = x @ x.T, y @ y.T  # not centred: the unbiased estimate does not see a shift
    expected = unbiased_hsic(k, m) / math.sqrt(unbiased_hsic(k, k) * unbiased_hsic(m, m))
    found = unsample.measure(["cka_debiased[pixels]"], subject)["cka_debiased[pixels]"].values[0]
    assert found == pytest.approx(expected, rel=1e-6)


def test_unrelated_features_have_a_debiased_cka_about_zero_and_a_plain_one_above_it() -> None:
    subject = sets(30, side=8)
    scores = unsample.measure(["cka[pixels]", "cka_debiased[pixels]"], subject)
    assert abs(scores["cka_debiased[pixels]"].values[0]) < 0.1  # type: ignore[arg-type]
    assert scores["cka[pixels]"].values[0] > 0.5  # type: ignore[operator]


def test_a_turned_and_scaled_representation_is_the_same_one() -> None:
    for name in ("cka", "cka_debiased", "svcca"):
        assert unsample.measure([f"{name}[pixels]"], paired(0.0))[f"{name}[pixels]"].values[0] == pytest.approx(
            1, abs=1e-6
        )


def test_svcca_is_the_mean_of_canonical_correlations_from_covariances() -> None:
    subject = paired(2.0)

    def reduced(f: np.ndarray) -> np.ndarray:
        f = f - f.mean(0)
        values, vectors = np.linalg.eigh(f.T @ f)
        order = values[::-1].cumsum() / values.sum()
        return f @ vectors[:, ::-1][:, : int(np.argmax(order >= 0.99)) + 1]

    x, y = (reduced(f) for f in features(subject))
    xx, yy, xy = x.T @ x, y.T @ y, x.T @ y
    squares = np.linalg.eigvals(np.linalg.solve(xx, xy) @ np.linalg.solve(yy, xy.T)).real
    expected = np.sqrt(np.sort(squares)[::-1][: min(x.shape[1], y.shape[1])].clip(0)).mean()
    score = unsample.measure(["svcca[pixels]"], subject)["svcca[pixels]"]
    assert score.values[0] == pytest.approx(expected, rel=1e-5)
    assert score.details["directions"] == [x.shape[1], y.shape[1]]


def test_features_that_do_not_vary_have_a_reason() -> None:
    flat: Tensor = torch.full((40, 3, 2, 2), 0.5, dtype=torch.float64)
    subject = Subject(images=flat, reference=sets(40).reference)
    for name in ("cka[pixels]", "cka_debiased[pixels]", "svcca[pixels]"):
        score = unsample.measure([name], subject)[name]
        assert score.values == [None]
        assert "do not vary" in str(score.reasons[0])
