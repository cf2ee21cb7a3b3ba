"""`edit_gain` against what it must say of edits whose worth is known."""

from __future__ import annotations

import pytest
import torch

from unsample.datasets import draw_scene, render
from unsample.errors import BadInput
from unsample.metrics.edits import edit_gain


@pytest.fixture(scope="module")
def pictures():
    """Sources and true edits."""
    scenes = [draw_scene(k).replace(colour="red", background="white") for k in range(6)]
    return render(scenes).images, render([s.replace(colour="blue") for s in scenes]).images


def test_the_source_gains_nothing_and_the_truth_everything(pictures):
    source, truth = pictures
    assert edit_gain(source, truth, source).total.abs().max() < 1e-12  # sums in another order
    assert torch.equal(edit_gain(truth, truth, source).total, torch.ones(6, dtype=torch.float64))


def test_the_parts_add_up_and_name_where_the_error_is(pictures):
    source, truth = pictures
    changed = (truth != source).any(1, keepdim=True)
    broken = torch.where(changed, truth, truth + 0.1)
    gain = edit_gain(broken, truth, source)
    assert torch.allclose(gain.total, gain.inside + gain.outside)
    assert torch.allclose(gain.inside, torch.ones(6, dtype=torch.float64))
    expected = -((~changed).sum((1, 2, 3)) * 3 * 0.01) / (source - truth).square().sum((1, 2, 3))
    assert torch.allclose(gain.outside, expected.double(), rtol=1e-4)  # float32 pictures


def test_it_equals_the_ratio_of_mean_squared_errors(pictures):
    source, truth = pictures
    edit = (source + truth) / 2
    one = edit_gain(edit[:1], truth[:1], source[:1]).total
    direct = 1 - (edit[0] - truth[0]).square().mean() / (source[0] - truth[0]).square().mean()
    assert one.item() == pytest.approx(direct.item(), rel=1e-5)
    assert one.item() == pytest.approx(0.75, rel=1e-5)


def test_a_truth_that_equals_its_source_is_refused(pictures):
    source, _ = pictures
    with pytest.raises(BadInput, match="nothing was to be edited"):
        edit_gain(source, source, source)
    with pytest.raises(BadInput, match="one shape"):
        edit_gain(source[:1], source, source)
