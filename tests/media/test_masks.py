"""Masks in every encoding that people have: read as what they painted, or refused with their values."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.media.test_pictures import png
from unsample.errors import BadInput
from unsample.media.masks import mask_of_array, open_mask
from unsample.media.pictures import open_picture

SHAPE = (24, 32)
INSIDE = np.zeros(SHAPE, dtype=bool)
INSIDE[4:14, 6:20] = True


def grey(low: int, high: int, kind: Any = np.uint8) -> Image.Image:
    return Image.fromarray(np.where(INSIDE, high, low).astype(kind))


def colours(kept: tuple[int, ...], edited: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.where(INSIDE[..., None], edited, kept).astype(np.uint8))


def palette(colours: list[int]) -> Image.Image:
    image = Image.fromarray(INSIDE.astype(np.uint8)).convert("P")
    image.putdata(INSIDE.astype(np.uint8).ravel().tolist())
    image.putpalette(colours)
    return image


def soft(kind: str, **options: Any) -> Image.Image:
    """White on black, enlarged with soft edges; or as JPEG leaves it."""
    image = colours((0, 0, 0), (255, 255, 255)).resize((SHAPE[1] * 8, SHAPE[0] * 8), Image.Resampling.NEAREST)
    if kind == "resized":
        return image.resize((SHAPE[1] * 5, SHAPE[0] * 5), Image.Resampling.BICUBIC)
    return again(image.crop((3, 3, 250, 190)), kind, **options)  # edges inside the blocks of a JPEG


def again(image: Image.Image, kind: str, **options: Any) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def opened(image: Image.Image, path: Path, **options: Any) -> Any:
    image.save(path, **options)
    return open_mask(path)


PAINTED: dict[str, tuple[Image.Image, str | None]] = {
    "white on black": (grey(0, 255), None),
    "one bit": (grey(0, 255).convert("1"), None),
    "white on black in colour": (colours((0, 0, 0), (255, 255, 255)), None),
    "a palette of black and white": (palette([0, 0, 0, 255, 255, 255]), None),
    "greys 0 and 1": (grey(0, 1), "1, on 0, is to be edited: 18.2% of the picture"),
    "greys 0 and 100": (grey(0, 100), "100, on 0,"),
    "16 bits, 0 and 1": (grey(0, 1, np.uint16), "1, on 0,"),
    "16 bits, 0 and 255": (grey(0, 255, np.uint16), "255, on 0,"),
    "16 bits, 0 and 65535": (grey(0, 65535, np.uint16), None),
    "32 bits, 0 and 70000": (grey(0, 70000, np.int32), "70000, on 0,"),
    "floats 0 and 1": (grey(0, 1, np.float32), None),
    "floats 0 and 255": (grey(0, 255, np.float32), None),
    "red on black": (colours((0, 0, 0), (255, 0, 0)), "(255, 0, 0), on 0,"),
    "dark blue on black": (colours((0, 0, 0), (0, 0, 9)), "(0, 0, 9), on 0,"),
    "red on white": (colours((255, 255, 255), (255, 0, 0)), "(255, 0, 0), on 255,"),
    "index 1 of a palette all black": (palette([0, 0, 0, 0, 0, 0]), "index 1, on index 0,"),
    "index 1 of the palette of label maps": (palette([0, 0, 0, 128, 0, 0]), "(128, 0, 0), on 0,"),
    "index 1 of a grey palette": (palette([n for n in range(256) for _ in range(3)]), "1, on 0,"),
    "black paint on transparency": (colours((0, 0, 0, 0), (0, 0, 0, 255)), "what is painted on transparency is"),
    "white paint on transparency": (colours((255, 255, 255, 0), (255, 255, 255, 255)), "what is painted"),
    "a soft brush of one colour": (colours((255, 0, 0, 0), (255, 0, 0, 90)), "what is painted on transparency is"),
    "grey with opacity": (colours((0, 0), (0, 255)), "what is painted on transparency is"),
    "opaque all over": (colours((0, 0, 0, 255), (255, 255, 255, 255)), None),
    "nearly black and white, as in video": (grey(16, 235), "what is nearer to 255 than to 0"),
}


@pytest.mark.parametrize("what", PAINTED)
def test_what_was_painted_is_to_be_edited(what: str, tmp_path: Path) -> None:
    image, note = PAINTED[what]
    mask = opened(image, tmp_path / ("a.tiff" if image.mode in ("F", "I") else "a.png"))
    assert np.array_equal(mask.where, INSIDE)
    assert len(mask.notes) == (note is not None)
    assert not note or note in mask.notes[0]


def test_a_palette_with_a_transparent_index_is_paint_on_transparency(tmp_path: Path) -> None:
    mask = opened(palette([255, 255, 255, 0, 0, 0]), tmp_path / "a.png", transparency=0)
    assert np.array_equal(mask.where, INSIDE)


def test_of_white_and_black_paint_on_transparency_white_is_to_be_edited(tmp_path: Path) -> None:
    image = colours((0, 0, 0, 0), (255, 255, 255, 255))
    image.paste((0, 0, 0, 255), (6, 4, 10, 8))
    mask = opened(image, tmp_path / "a.png")
    wanted = INSIDE.copy()
    wanted[4:8, 6:10] = False
    assert np.array_equal(mask.where, wanted)
    assert "with what is transparent as black" in mask.notes[0]


@pytest.mark.parametrize(
    "image",
    [
        soft("resized"),
        soft("JPEG", quality=90),
        soft("JPEG", quality=30),
        again(colours((0, 0, 0), (255, 0, 0)).resize((256, 192), Image.Resampling.NEAREST), "JPEG"),
        again(colours((255, 255, 255), (255, 0, 0)).resize((256, 192), Image.Resampling.NEAREST), "JPEG"),
    ],
    ids=["resized", "jpeg", "coarse jpeg", "jpeg of red on black", "jpeg of red on white"],
)
def test_soft_edges_and_jpeg_are_cut_at_half_and_said(
    image: Image.Image, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    mask = opened(image, tmp_path / "a.png")
    on_white = "white" in request.node.callspec.id
    wanted = np.asarray(image)[..., 1] < 128 if on_white else np.asarray(image).max(-1) > 127
    assert (mask.where != wanted).mean() < 0.005  # at an edge the colours of a JPEG bleed
    assert "what is nearer to" in mask.notes[0]


def photographs() -> list[Image.Image]:
    from skimage import data

    found = [data.astronaut(), data.camera(), data.coffee(), data.rocket(), data.moon(), data.text(), data.page()]
    night = data.hubble_deep_field()[:400, :400]
    return [Image.fromarray(a) for a in [*found, night, data.coins()]]


def test_a_photograph_is_no_mask(tmp_path: Path) -> None:
    for image in photographs():
        with pytest.raises(BadInput, match="is no mask: it has .* values .* a mask has two values: black where"):
            opened(image, tmp_path / "a.png")


THREE = np.where(INSIDE, 255, 0)
THREE[4:9] = 128
REFUSED: dict[str, tuple[np.ndarray[Any, Any], str]] = {
    "0, 1 and 2": (np.arange(768).reshape(SHAPE) % 3, r"it has 3 values \(0, 1, 2\), none of them over half"),
    "0 to 100": (np.arange(768).reshape(SHAPE) % 101, r"101 values \(0, .*, \.\.\.\), none of them over half"),
    "three": (THREE, r"3 values \(0, 128, 255\)"),
    "labels": (np.arange(768).reshape(SHAPE) % 4 * 85, r"4 values \(0, 85, 170, 255\)"),
    "two greys": (np.where(INSIDE, 200, 90), r"2 values \(90, 200\)"),
    "white and grey": (np.where(INSIDE, 128, 255), r"2 values \(255, 128\)"),
    "three colours": (np.stack([THREE, np.where(INSIDE, 255, 0), np.where(INSIDE, 255, 0)], -1), r"values .*\(128, "),
    "red and green": (np.where(INSIDE[..., None], (255, 0, 0), (0, 255, 0)), r"2 values \(\(0, 255, 0\), \(255, 0, 0"),
    "a picture with a hole": (
        np.dstack([np.random.default_rng(0).integers(0, 256, (*SHAPE, 3)), np.where(INSIDE, 0, 255)]),
        "with what is transparent as black, is no mask",
    ),
    "transparent all over": (np.zeros((*SHAPE, 4), dtype=int), "is transparent all over"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_mask_is_refused_with_its_values(what: str, tmp_path: Path) -> None:
    values, message = REFUSED[what]
    with pytest.raises(BadInput, match=message):
        opened(Image.fromarray(values.astype(np.uint8)), tmp_path / "a.png")


def test_16_bits_of_colour_that_pillow_would_lose_are_refused(tmp_path: Path) -> None:
    samples = np.repeat(INSIDE[..., None], 3, -1).astype(">u2")
    (tmp_path / "a.png").write_bytes(png(32, 24, 16, 2, samples.tobytes()))
    with pytest.raises(BadInput, match="16 bits a colour, of which the upper 8 are read, and these are at most 0"):
        open_mask(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(png(32, 24, 16, 2, (samples * 65535).astype(">u2").tobytes()))
    assert np.array_equal(open_mask(tmp_path / "a.png").where, INSIDE)


def test_a_mask_of_one_value_says_so(tmp_path: Path) -> None:
    for value, share, said in (
        (0, 0, "nothing is to be edited"),
        (1, 1, "the whole picture is"),
        (255, 1, "the whole"),
    ):
        mask = opened(Image.new("L", (16, 16), value), tmp_path / "a.png")
        assert mask.where.mean() == share
        assert said in mask.notes[0]
        assert f"the mask is {value} all over" in mask.notes[0]


def test_a_mask_is_turned_as_its_picture_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = opened(grey(0, 255), tmp_path / "a.png", exif=exif)
    grey(0, 255).save(tmp_path / "b.png", exif=exif)
    assert np.array_equal(mask.where, np.asarray(open_picture(tmp_path / "b.png").pixels)[..., 0] > 0)
    assert mask.notes == ("turned by its EXIF orientation",)


def test_a_mask_is_checked_like_a_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(BadInput, match=r"mask '.*a\.png' is text, not a picture"):
        open_mask(tmp_path / "a.png")
    with pytest.raises(BadInput, match="there is no such file"):
        open_mask(tmp_path / "b.png")


@pytest.mark.parametrize("kind", ["bool", "u1", "i8", "f4", "f8"])
@pytest.mark.parametrize("high", [1, 255])
def test_arrays_of_two_values_are_masks(kind: str, high: int) -> None:
    mask = mask_of_array((INSIDE * high).astype(kind))
    assert np.array_equal(mask.where, INSIDE)
    assert mask.notes == ()


def test_other_arrays_are_refused_or_said() -> None:
    assert mask_of_array(INSIDE * 7).notes[0].startswith("7, on 0,")
    for bad in (INSIDE * np.nan, INSIDE * -1.0, INSIDE[None], INSIDE.astype(object), np.zeros((0, 4))):
        with pytest.raises(BadInput):
            mask_of_array(bad)
    smooth = np.linspace(0, 1, 768).reshape(SHAPE)
    with pytest.raises(BadInput, match="is no mask"):
        mask_of_array(smooth)


def test_the_samples_of_a_big_endian_tiff_are_read(tmp_path: Path) -> None:
    samples = INSIDE.astype(">u2")
    sizes = [(256, 32), (257, 24), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 24), (279, 1536)]
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in sizes)
    content = b"MM\0*" + struct.pack(">I", 8 + 1536) + samples.tobytes() + struct.pack(">H", len(sizes)) + entries
    (tmp_path / "a.tif").write_bytes(content + bytes(4))
    assert np.array_equal(open_mask(tmp_path / "a.tif").where, INSIDE)
