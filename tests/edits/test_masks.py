"""Masks of an edit: 0 is the source's reconstruction, 1 the edit, to the bit; found ones are what the papers say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import unsample
from tests.problems import PROMPTS, mixture, normal
from unsample.edits import Editor, finding
from unsample.edits.base import Steering
from unsample.edits.masks import MaskAsked, at_state, feathered, fitted, softened
from unsample.errors import BadInput, BadOption, Incompatible, UnknownName, UnsampleError, UnsampleWarning
from unsample.media.masks import Mask
from unsample.media.pictures import Picture, fit_picture, read_metadata
from unsample.methods import METHODS, get_method
from unsample.numbers.draws import content_seeds

STEPS = 6
HALF = np.zeros((8, 8), dtype=bool)
HALF[:, :4] = True
quiet = pytest.mark.filterwarnings("ignore")


def inverted(name: str = "ddim", count: int = 2) -> tuple[Any, Any]:
    """Pictures of the mixture, inverted."""
    model, method, prompts = mixture(), get_method(name, {"preset": "quick"}), list(PROMPTS)[:count]
    steps: dict[str, Any] = {"num_inference_steps": STEPS}
    made = unsample.sample(model, prompts, noise=normal(count, *model.sample_shape), keep_trajectory=True, **steps)
    given = {"latents": made.latents, "trajectory": made.trajectory} if method.needs_trajectory else {}
    given = given or {"images": made.images}
    return model, unsample.invert(model, prompt=prompts, method=method, **given, **steps)


@quiet
@pytest.mark.parametrize("name", [n for n in METHODS if get_method(n).refuses_vp is None])
def test_a_mask_of_zeros_is_the_reconstruction_and_of_ones_the_edit(name: str) -> None:
    model, inversion = inverted(name)
    method, targets = get_method(name), list(PROMPTS)[::-1]
    if method.refuses_edit and method.edit_state is None:
        with pytest.raises(Incompatible, match=name):
            unsample.edit(model, inversion, targets, mask=HALF)
        return
    again = unsample.reconstruct(model, inversion)
    none = unsample.edit(model, inversion, targets, mask=np.zeros((8, 8)))
    assert torch.equal(none.latents, again.latents)
    assert torch.equal(none.images, again.images)
    if method.refuses_edit is None:
        alone = unsample.edit(model, inversion, targets)
        every = unsample.edit(model, inversion, targets, mask=np.ones((8, 8)))
        assert torch.equal(every.latents, alone.latents)
        assert torch.equal(every.images, alone.images)
    half = unsample.edit(model, inversion, targets, mask=HALF, mask_dilate=0)
    assert torch.equal(half.latents[..., 4:], again.latents[..., 4:])
    assert not torch.equal(half.latents[..., :4], again.latents[..., :4])


@quiet
def test_on_a_flow_too() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    model = mixture(scheduler=FlowMatchEulerDiscreteScheduler())
    picture = unsample.sample(model, "left", num_inference_steps=STEPS, generator=0).images
    for method in ("ddim", "edict", "flow_edit"):
        inversion = unsample.invert(model, picture, "left", method=method, num_inference_steps=STEPS)
        made = unsample.edit(model, inversion, "right", mask=HALF, mask_dilate=0)
        again = unsample.reconstruct(model, inversion)
        assert torch.equal(made.latents[..., 4:], again.latents[..., 4:])
        assert unsample.edit(model, inversion, "right", mask="auto").meta["mask"][0]["how"] == "auto"


@quiet
def test_an_editor_is_masked_as_the_bare_edit_is() -> None:
    model, inversion = inverted()
    idle, targets = Editor(name="idle", steer=lambda branches: Steering()), list(PROMPTS)[::-1]
    made = unsample.edit(model, inversion, targets, editor=idle, mask=HALF, mask_dilate=0)
    again = unsample.reconstruct(
        model, inversion
    )  # a smaller batch, whose matrix products some processors round otherwise
    torch.testing.assert_close(made.latents[..., 4:], again.latents[..., 4:], rtol=0, atol=1e-10)


@quiet
def test_prompts_share_a_source_and_each_has_its_mask() -> None:
    model, inversion = inverted(count=1)
    both = np.stack([HALF, ~HALF])
    made = unsample.edit(model, inversion, list(PROMPTS), mask=torch.from_numpy(both)[:, None])
    for k in range(2):
        alone = unsample.edit(model, inversion, PROMPTS[k], mask=[both[k]])
        torch.testing.assert_close(made.latents[k], alone.latents[0], rtol=0, atol=1e-8)
        assert made.meta["mask"][k] == alone.meta["mask"][0]
    with pytest.raises(BadOption, match=r"2 masks, and there are 1 edits"):
        unsample.edit(model, inversion, "right", mask=[HALF, HALF])


# ---------------------------------------------------------------- what a mask was


@quiet
def test_what_a_mask_was_is_recorded_and_written_into_the_picture(tmp_path: Path) -> None:
    model, inversion = inverted(count=1)
    Image.fromarray(HALF).save(tmp_path / "mask.png")
    made = unsample.edit(model, inversion, "right", mask=tmp_path / "mask.png", mask_feather=0.5, paste=True)
    sha256 = Mask(HALF).sha256
    assert made.mask is not None
    record = made.meta["mask"][0]
    assert record == {"how": "given", "feather": 0.5, "dilate": 1, "sha256": sha256, "notes": []} | {
        "share": pytest.approx(float(made.mask.mean()))
    }
    assert made.meta["mask_given"] is True
    assert made.meta["paste"] == 0.5
    [file] = made.save(tmp_path / "edit.png")
    assert file is not None
    written = read_metadata(file)["unsample"]
    assert (written["mask"], written["mask_given"], written["paste"]) == (record, True, 0.5)
    plain = unsample.edit(model, inversion, "right")
    assert plain.meta["mask_given"] is False
    assert "mask" not in plain.meta
    assert "mask_given" not in plain.settings(0)


@quiet
def test_a_mask_in_every_form_is_the_same_mask(tmp_path: Path) -> None:
    Image.fromarray(HALF).save(tmp_path / "mask.png")
    forms = [
        *(str(tmp_path / "mask.png"), tmp_path / "mask.png", Image.fromarray(HALF), HALF, HALF[None], HALF * 255),
        *(torch.from_numpy(HALF), torch.from_numpy(HALF)[None, None].float(), [HALF], HALF.astype("float32")),
    ]
    for form in forms:
        asked = MaskAsked.of(form)
        assert asked is not None
        assert np.array_equal(asked.given[0].where, HALF), form


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"mask": "nowhere.png"}, BadInput, "there is no such file"),
        ({"mask": np.zeros((8, 8, 8, 3))}, BadInput, r"\(H, W\), \(B, H, W\)"),
        ({"mask": np.linspace(0, 1, 64).reshape(8, 8)}, BadInput, "is no mask"),
        ({"mask": Image.effect_noise((8, 8), 80).convert("RGB")}, BadInput, "is no mask"),
        ({"mask": 3}, BadInput, "got int"),
        ({"mask": "auto:0"}, BadOption, "above 0"),
        ({"mask": "auto:far"}, BadOption, "above 0"),
        ({"mask": "attention:"}, BadOption, "names no word"),
        ({"mask": HALF, "mask_feather": -1}, BadOption, "mask_feather"),
        ({"mask": HALF, "mask_feather": math.nan}, BadOption, "mask_feather"),
        ({"mask": HALF, "mask_feather": 9}, BadOption, "8x8"),
        ({"mask": HALF, "mask_dilate": 0.5}, BadOption, "mask_dilate"),
        ({"mask_feather": 2}, BadOption, "there is none"),
        ({"mask_dilate": 2}, BadOption, "there is none"),
        ({"paste": True}, BadOption, "there is none"),
        ({"mask": "attention"}, Incompatible, "attention"),
    ],
)
def test_what_is_no_mask_is_refused(given: dict[str, Any], kind: type[UnsampleError], said: str) -> None:
    model, inversion = inverted(count=1)
    with pytest.raises(kind, match=said):
        unsample.edit(model, inversion, "right", **given)


def test_models_without_pictures_are_refused() -> None:
    from tests.problems import gaussian

    model = gaussian(shape=(1, 8, 8))
    wrapped = unsample.wrap(lambda x, t: x * 0, model.scheduler, sample_shape=(5, 4, 4), id="five")
    inversion = unsample.invert(wrapped, latents=normal(1, 5, 4, 4), num_inference_steps=3)
    with pytest.raises(Incompatible, match="makes no pictures"):
        unsample.edit(wrapped, inversion, class_labels=[0], mask=HALF)


@quiet
def test_an_empty_mask_is_said() -> None:
    model, inversion = inverted(count=1)
    with pytest.warns(UnsampleWarning, match="empty: nothing is edited") as found:
        made = unsample.edit(model, inversion, "right", mask=np.zeros((8, 8)))
    assert [w.message.kind for w in found if isinstance(w.message, UnsampleWarning)] == ["mask"]
    assert made.meta["mask"][0]["notes"] == ["nothing is to be edited: the mask is 0 all over"]


# ---------------------------------------------------------------- sizes


def test_a_mask_is_fitted_as_its_picture_was() -> None:
    where = np.zeros((30, 50), dtype=bool)
    where[6:21, 10:35] = True
    shown = Picture(Image.fromarray(where).convert("RGB"))
    for fit in ("aspect", "crop", "pad"):
        seen, _ = fit_picture(shown, (20, 20), 4, fit)  # type: ignore[arg-type]
        mask, notes = fitted(Mask(where), (50, 30), seen.size, fit)
        assert notes == ()
        expected = np.asarray(seen.convert("L")) / 255
        if fit == "pad":  # white all around, which is not edited
            expected[:4], expected[16:] = 0, 0
        assert np.abs(mask[0, 0].numpy() - expected).mean() < 0.02, fit  # its filter is another
    mask, notes = fitted(Mask(where), (100, 90), (100, 90), "aspect")
    assert mask.shape == (1, 1, 90, 100)
    assert notes == ("resized from 50x30 to the picture's 100x90",)
    assert float(mask[0, 0, 40, 40]) == 1


def test_a_mask_grows_by_cells_and_is_exact_but_where_its_edge_is() -> None:
    where = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    where[..., 8:16, 8:16] = 1  # 2 by 2 cells of a state of 8 by 8
    assert torch.equal(at_state(where, (8, 8))[0, 0, 2:4, 2:4], torch.ones(2, 2, dtype=torch.float64))
    assert float(at_state(where, (8, 8)).sum()) == 4
    assert float(at_state(softened(where, 1, 0, (8, 8)), (8, 8)).sum()) == 16
    soft = feathered(where, 1.0)
    assert float(soft[..., 5, :].max()) > 0 == float(soft[..., :5, :].max())  # it ends at three standard deviations
    assert float(soft[0, 0, 12, 8] + soft[0, 0, 12, 7]) == pytest.approx(1)  # half at the edge
    ones = torch.ones(1, 1, 9, 7, dtype=torch.float64)
    assert torch.equal(feathered(ones, 2.0), ones)


# ---------------------------------------------------------------- the source's own pixels


@quiet
def test_pasted_pixels_are_the_sources_outside_of_the_feather() -> None:
    model, inversion = inverted(count=1)
    plain = unsample.edit(model, inversion, "right", mask=HALF)
    made = unsample.edit(model, inversion, "right", mask=HALF, paste=True)
    assert inversion.source is not None
    source = inversion.source.permute(0, 3, 1, 2).float() / 255
    assert torch.equal(made.latents, plain.latents)
    assert torch.equal(made.images[..., 6:], source[..., 6:])  # 4, a cell, and three quarters of one
    assert torch.equal(made.images[..., :4], plain.images[..., :4])
    assert not torch.equal(plain.images[..., 6:], source[..., 6:])
    edge = made.images[..., 5]
    assert not torch.equal(edge, source[..., 5])  # a soft edge
    assert bool((edge >= torch.minimum(source, plain.images)[..., 5]).all())
    assert bool((edge <= torch.maximum(source, plain.images)[..., 5]).all())


@quiet
def test_latents_have_no_pixels_to_paste() -> None:
    model, _ = inverted(count=1)
    inversion = unsample.invert(model, latents=normal(1, *model.sample_shape), prompt="left", num_inference_steps=3)
    with pytest.raises(BadInput, match="holds no picture"):
        unsample.edit(model, inversion, "right", mask=HALF, paste=True)
    assert unsample.edit(model, inversion, "right", mask=HALF).mask is not None


# ---------------------------------------------------------------- found masks


def eps_of(model: Any, x: Tensor, alpha: float, sigma: float, half: slice) -> Tensor:
    """The noise in x under one half of the components, from the density by automatic differentiation."""
    x = x.clone().requires_grad_()
    means, variances = alpha * model.means[half], alpha**2 * model.variances[half] + sigma**2
    log = (-((x[:, None] - means) ** 2) / (2 * variances) - variances.log() / 2).flatten(2).sum(2)
    (score,) = torch.autograd.grad(log.logsumexp(1).sum(), x)
    return -sigma * score


@quiet
def test_auto_is_the_formula_of_diffedit() -> None:
    model, inversion = inverted()
    targets = list(PROMPTS)[::-1]
    made = unsample.edit(model, inversion, targets, mask="auto", mask_dilate=0)
    grid = model.grid(STEPS)
    alpha, sigma = grid.alpha[STEPS // 2], grid.sigma[STEPS // 2]
    assert inversion.source is not None
    assert made.mask is not None
    x0 = inversion.source.permute(0, 3, 1, 2).double() / 255 * 2 - 1
    halves = [slice(0, 3), slice(3, 6)]
    for k, seed in enumerate(content_seeds(inversion.source, 0)):
        noise = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
        x = alpha * x0[k] + sigma * noise
        differ = eps_of(model, x, alpha, sigma, halves[1 - k]) - eps_of(model, x, alpha, sigma, halves[k])
        level = differ.abs().mean((0, 1))
        level = level.clamp(max=3 * level.mean())
        level = level / level.max()
        sure = (level - 0.5).abs() > 1e-4
        assert torch.equal((level > 0.5)[sure], made.mask[k, 0].bool()[sure])
        assert 0 < made.meta["mask"][k]["share"] < 1
        alone = unsample.edit(model, inversion[k], targets[k], mask="auto", mask_dilate=0)
        assert torch.equal(alone.mask[0], made.mask[k])  # type: ignore[index]
        assert alone.nfe[0] == made.nfe[k] == unsample.edit(model, inversion[k], targets[k], mask=HALF).nfe[0] + 20
    assert made.meta["mask_given"] is False


@pytest.mark.parametrize(("level", "edited"), [(8.0, 1), (9.0, 6)])
def test_an_outlier_counts_as_three_times_the_mean(level: float, edited: int) -> None:
    found = torch.tensor([40.0, *[level] * 5, *[1.0] * 10]).reshape(1, 1, 4, 4)  # the mean is 5.6 and 5.9
    assert float(finding._cut(found).sum()) == edited


@quiet
def test_equal_prompts_differ_nowhere() -> None:
    model, inversion = inverted(count=1)
    made = unsample.edit(model, inversion, "left", mask="auto")
    assert torch.equal(made.latents, unsample.reconstruct(model, inversion).latents)


@quiet
def test_attention_finds_the_object_that_a_word_names() -> None:
    from unsample.datasets import open_dataset

    model = unsample.load("scenes-sd")
    items = list(open_dataset("scenes:3,split=tune,edit=colour"))
    images = torch.stack([item.image for item in items])
    sources, targets = [item.prompt for item in items], [item.target_prompt for item in items]
    inversion = unsample.invert(model, images, sources, num_inference_steps=4)
    before = [type(m).forward for m in model.unet.modules()]
    made = unsample.edit(model, inversion, targets, mask="attention", mask_dilate=0, guidance_scale=1)
    assert [type(m).forward for m in model.unet.modules()] == before
    assert made.mask is not None
    for k, item in enumerate(items):
        both = (made.mask[k] * item.mask).sum() / torch.maximum(made.mask[k], item.mask).sum()
        assert float(both) > 0.5
        changed = [w for w in targets[k].split() if w not in sources[k].split()]
        assert changed[0] in made.meta["mask"][k]["words"]
    alone = unsample.edit(model, inversion[1], targets[1], mask="attention", mask_dilate=0, guidance_scale=1)
    assert torch.equal(alone.mask[0], made.mask[1])  # type: ignore[index]
    noun = sources[1].split(" at ")[0].split()[-1]
    named = unsample.edit(model, inversion[1], targets[1], mask=f"attention:{noun}", guidance_scale=1)
    assert named.meta["mask"][0]["words"] == [noun]
    with pytest.raises(UnknownName, match="no word 'dog'"):
        unsample.edit(model, inversion[1], targets[1], mask="attention:dog")
