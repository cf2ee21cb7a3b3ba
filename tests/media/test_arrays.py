"""Numpy arrays as pictures: of every form that has one meaning; the others are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import unsample
from unsample.errors import BadInput
from unsample.media.arrays import floats_of, picture_of, pictures_in
from unsample.metrics import Subject

RNG = np.random.default_rng(0)
LEVELS = RNG.integers(0, 256, (16, 24, 3), dtype=np.uint8)
GREY = LEVELS[..., 0]


@pytest.mark.parametrize(
    ("array", "notes"),
    [
        (LEVELS, ()),
        (LEVELS.astype(np.uint16) * 257, ("16-bit converted to 8-bit",)),
        ((LEVELS / 255).astype(np.float32), ("float converted to 8-bit",)),
        (LEVELS / 255, ("float converted to 8-bit",)),
        ((LEVELS / 255).astype(np.float16), ("float converted to 8-bit",)),
        (np.dstack([LEVELS, np.full_like(GREY, 255)]), ()),
        (LEVELS[:, ::-1][:, ::-1], ()),
    ],
)
def test_colour_in_every_type(array: Any, notes: tuple[str, ...]) -> None:
    (one,) = pictures_in(array)
    picture = picture_of(one, "cat")
    # half floats have 11 bits: half a level
    assert np.abs(np.asarray(picture.pixels, dtype=int) - LEVELS).max() <= (array.dtype == np.float16)
    assert (picture.notes, picture.name) == (notes, "cat")


@pytest.mark.parametrize("array", [GREY, GREY[..., None], GREY / 255, GREY.astype(np.uint16) * 257])
def test_greyscale_with_and_without_an_axis(array: Any) -> None:
    picture = picture_of(pictures_in(array)[0])
    assert np.array_equal(np.asarray(picture.pixels), np.repeat(GREY[..., None], 3, -1))
    assert picture.notes[-1] == "converted from greyscale"
    assert np.allclose(floats_of(pictures_in(array)[0]), GREY / 255, atol=1e-7)  # float32


def test_bool_is_black_and_white() -> None:
    array = GREY > 127
    assert np.array_equal(np.asarray(picture_of(pictures_in(array)[0]).pixels)[..., 0], array * 255)


def test_alpha_is_composited_on_white() -> None:
    array = np.zeros((8, 8, 4), dtype=np.uint8)
    array[0, 0, 3] = 255
    picture = picture_of(pictures_in(array)[0])
    assert picture.pixels.getpixel((0, 0)) == (0, 0, 0)
    assert picture.pixels.getpixel((1, 1)) == (255, 255, 255)
    assert picture.notes == ("transparency composited on white",)
    assert np.array_equal(floats_of(array)[:, 1, 1], (1, 1, 1))


def test_a_batch_is_several_pictures() -> None:
    batch = np.stack([LEVELS, LEVELS[::-1]])
    assert [np.array_equal(a, b) for a, b in zip(pictures_in(batch), batch, strict=True)] == [True, True]
    assert len(pictures_in(batch[..., :1])) == 2


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (LEVELS.transpose(2, 0, 1), r"shape \(3, 16, 24\); .*channels come last: np.moveaxis"),
        (LEVELS.transpose(2, 0, 1)[None], r"shape \(1, 3, 16, 24\); .*channels come last"),
        (np.stack([GREY] * 8), r"shape \(8, 16, 24\); .*of greyscale pictures \(B, H, W\) add an axis"),
        (LEVELS[..., :2], r"shape \(16, 24, 2\)"),
        (np.zeros(9), r"shape \(9,\)"),
        (np.zeros((0, 8, 3)), r"shape \(0, 8, 3\)"),
        (np.zeros((1, 1, 8, 8, 3)), r"shape \(1, 1, 8, 8, 3\)"),
        (LEVELS / 127.5 - 1, r"floats from -1 to 1; .*give \(array \+ 1\) / 2"),
        (LEVELS.astype(float), r"floats from 0 to 255; .*give array / 255"),
        (LEVELS * np.nan, r"floats from nan to nan"),
        (LEVELS * 1000.0, r"floats from 0 to 2.55e\+05; pictures of floats are 0 to 1$"),
        (LEVELS.astype(np.int64), r"array of int64; give uint8"),
        (LEVELS.astype(object), r"array of object; give uint8"),
    ],
)
def test_what_has_no_one_meaning_is_refused_by_name(array: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        pictures_in(array)


def test_invert_takes_arrays_alone_in_batches_and_in_lists() -> None:
    model = unsample.load("scenes-mixture")
    batch = RNG.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    wanted = unsample.invert(model, torch.from_numpy(batch).permute(0, 3, 1, 2) / 255, num_inference_steps=2)
    for given in (batch, [batch[0], batch[1]], [batch], batch / 255):
        found = unsample.invert(model, given, num_inference_steps=2)
        assert torch.equal(found.noise, wanted.noise)
        assert found.meta["names"] == ["image-0", "image-1"]
    assert unsample.invert(model, batch[0, ..., 0], num_inference_steps=2).meta["notes"] == ["converted from greyscale"]
    with pytest.raises(BadInput, match="floats from 0 to 255"):
        unsample.invert(model, batch.astype(float), num_inference_steps=2)
    with pytest.raises(BadInput, match="a numpy array"):
        unsample.invert(model, 3, num_inference_steps=2)


def test_what_is_measured_may_be_arrays() -> None:
    a, b = RNG.random((2, 2, 16, 16, 3))
    as_tensors = Subject(
        images=torch.from_numpy(a).permute(0, 3, 1, 2), reference=torch.from_numpy(b).permute(0, 3, 1, 2)
    )
    found = unsample.measure(["psnr", "ssim"], Subject(images=a, reference=b))  # type: ignore[arg-type]
    for name, score in unsample.measure(["psnr", "ssim"], as_tensors).items():
        assert found[name].values == pytest.approx(score.values, rel=1e-6)  # float32 for float64
    levels = Subject(images=LEVELS)  # type: ignore[arg-type]
    assert levels.images.shape == (1, 3, 16, 24)  # type: ignore[union-attr]
    assert torch.equal(levels.images[0] * 255, torch.from_numpy(LEVELS).permute(2, 0, 1).float())  # type: ignore[index]
    with pytest.raises(BadInput, match="reference has floats from"):
        Subject(reference=a * 2)  # type: ignore[arg-type]
