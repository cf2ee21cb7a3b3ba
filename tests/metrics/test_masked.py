"""What is to be kept, by both conventions, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import unsample
from unsample.errors import BadInput
from unsample.metrics import Subject
from unsample.metrics.pixels import ssim

NAMES = ["pie_mse", "pie_psnr", "pie_ssim", "masked_mse", "masked_psnr", "masked_ssim"]


@pytest.fixture
def subject() -> Subject:
    """Three pictures: one with a square to be edited, one with none, one that is all to be edited."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(3, 3, 32, 32, generator=generator)
    images = (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1)
    mask = torch.zeros(3, 1, 32, 32)
    mask[0, :, :12, 10:20] = 1
    mask[2] = 1
    return Subject(images=images, reference=reference, mask=mask)


def outside(subject: Subject, k: int) -> list[float]:
    """Squared errors of the values outside, one by one."""
    images, reference, mask = (t.double().tolist() for t in (subject.images, subject.reference, subject.mask))  # type: ignore[union-attr]
    return [
        (images[k][c][y][x] - reference[k][c][y][x]) ** 2
        for c in range(3) for y in range(32) for x in range(32) if not mask[k][0][y][x]
    ]  # fmt: skip


def test_the_two_conventions_are_what_they_say(subject: Subject) -> None:
    scores = unsample.measure(NAMES, subject)
    for k in (0, 1):
        errors = outside(subject, k)
        whole, honest = sum(errors) / (3 * 32 * 32), sum(errors) / len(errors)
        assert scores["pie_mse"].values[k] == pytest.approx(whole, rel=1e-12)
        assert scores["masked_mse"].values[k] == pytest.approx(honest, rel=1e-12)
        assert scores["pie_psnr"].values[k] == pytest.approx(-10 * math.log10(whole), rel=1e-12)
        assert scores["masked_psnr"].values[k] == pytest.approx(-10 * math.log10(honest), rel=1e-12)


def test_zero_and_average_flatters_by_the_share_that_is_kept(subject: Subject) -> None:
    scores = unsample.measure(["pie_psnr", "masked_psnr"], subject)
    share = 1 - 120 / 1024
    gap = scores["pie_psnr"].values[0] - scores["masked_psnr"].values[0]  # type: ignore[operator]
    assert gap == pytest.approx(-10 * math.log10(share), abs=1e-9)
    assert scores["pie_psnr"].values[1] == pytest.approx(scores["masked_psnr"].values[1])


def test_a_mask_over_everything_has_a_reason_and_no_value(subject: Subject) -> None:
    for score in unsample.measure(NAMES, subject).values():
        assert score.values[2] is None
        assert "covers the whole picture" in str(score.reasons[2])
        assert score.exact == [False] * 3


def test_pie_ssim_is_that_of_the_blackened_pictures(subject: Subject) -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure as theirs

    keep = 1 - subject.mask.double()  # type: ignore[union-attr]
    expected = theirs(subject.images * keep, subject.reference * keep, data_range=1.0, reduction="none")
    found = unsample.measure(["pie_ssim"], subject)["pie_ssim"].values
    assert found[:2] == pytest.approx(expected.tolist()[:2], abs=1e-12)


def test_the_honest_ssim_does_not_see_what_is_inside_the_mask(subject: Subject) -> None:
    before = unsample.measure(["masked_ssim"], subject)["masked_ssim"].values
    images = torch.where(subject.mask == 1, torch.rand(3, 3, 32, 32), subject.images)  # type: ignore[arg-type]
    changed = Subject(images=images, reference=subject.reference, mask=subject.mask)
    assert unsample.measure(["masked_ssim"], changed)["masked_ssim"].values == before
    windows = [
        ssim_of_window(subject, y, x) for y in range(22) for x in range(22)
        if not bool(subject.mask[0, 0, y : y + 11, x : x + 11].any())  # type: ignore[index]
    ]  # fmt: skip
    assert before[0] == pytest.approx(sum(windows) / len(windows), abs=1e-12)


def ssim_of_window(subject: Subject, y: int, x: int) -> float:
    """One window of 11x11, by its weighted moments."""
    line = torch.tensor([math.exp(-((k - 5) ** 2) / 4.5) for k in range(11)], dtype=torch.float64)
    weight = line[:, None] * line[None] / line.sum() ** 2
    values = []
    for c in range(3):
        a, b = (t[0, c, y : y + 11, x : x + 11].double() for t in (subject.images, subject.reference))  # type: ignore[index]
        mean_a, mean_b = float((weight * a).sum()), float((weight * b).sum())
        var_a, var_b = float((weight * (a - mean_a) ** 2).sum()), float((weight * (b - mean_b) ** 2).sum())
        both = float((weight * (a - mean_a) * (b - mean_b)).sum())
        light = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        values.append(light * (2 * both + 9e-4) / (var_a + var_b + 9e-4))
    return sum(values) / 3


def test_pictures_that_agree_outside_are_exact_there(subject: Subject) -> None:
    images = torch.where(subject.mask == 1, torch.rand(3, 3, 32, 32), subject.reference)  # type: ignore[arg-type]
    scores = unsample.measure(
        ["pie_psnr", "masked_psnr"], Subject(images=images, reference=subject.reference, mask=subject.mask)
    )
    for score in scores.values():
        assert score.values == [None] * 3
        assert score.exact == [True, True, False]
    assert ssim(images[1:2], images[1:2]) == [1.0]


def test_a_mask_of_another_size_is_refused(subject: Subject) -> None:
    wrong = Subject(images=subject.images, reference=subject.reference, mask=subject.mask[:, :, :16])  # type: ignore[index]
    score = unsample.measure(["masked_mse"], wrong)["masked_mse"]
    assert score.values == [None] * 3
    assert "one size" in str(score.reasons[0])


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float64])
@pytest.mark.parametrize("high", [1, 255])
def test_a_mask_of_two_values_is_a_mask_in_every_type_and_form(subject: Subject, kind: torch.dtype, high: int) -> None:
    names = ["masked_mse", "pie_psnr", "masked_ssim"]
    wanted = {name: score.values for name, score in unsample.measure(names, subject).items()}
    mask = ((subject.mask * high) if kind != torch.bool else subject.mask).to(kind)  # type: ignore[operator,union-attr]
    for form in (mask, mask[:, 0], mask.numpy(), mask[:, 0].numpy(), mask[:, 0, :, :, None].numpy()):
        again = Subject(images=subject.images, reference=subject.reference, mask=form)
        assert torch.equal(again.mask, subject.mask)  # type: ignore[arg-type]
        assert {name: score.values for name, score in unsample.measure(names, again).items()} == wanted


def test_a_mask_of_one_picture_may_be_its_rows_alone(subject: Subject) -> None:
    mask = subject.mask[0, 0].numpy()  # type: ignore[index]
    assert torch.equal(Subject(mask=mask * 255).mask[0, 0], subject.mask[0, 0])  # type: ignore[index]


def test_a_mask_of_many_values_is_refused_and_one_of_odd_values_is_said(subject: Subject) -> None:
    with pytest.raises(BadInput, match="mask 1 is no mask: it has .* values"):
        Subject(mask=torch.stack([torch.zeros(1, 32, 32), torch.rand(1, 32, 32)]))
    for bad in (torch.rand(3, 3, 32, 32), "mask.png", torch.full((1, 1, 8, 8), torch.nan)):
        with pytest.raises(BadInput):
            Subject(mask=bad)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="mask 0: 7, on 0, is to be edited"):
        Subject(mask=subject.mask[:1] * 7)  # type: ignore[index]


def test_a_metric_of_masks_without_a_mask_says_so() -> None:
    picture: Tensor = torch.rand(1, 3, 16, 16)
    score = unsample.measure(["pie_psnr"], Subject(images=picture, reference=picture))["pie_psnr"]
    assert score.values == [None]
    assert "needs mask" in str(score.reasons[0])
