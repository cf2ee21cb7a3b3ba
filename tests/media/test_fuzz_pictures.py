"""Two thousand spoilt files: each is opened or refused in our words, and nothing is printed."""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from pathlib import Path

import pytest
from PIL import Image, ImageCms, PngImagePlugin

from unsample.errors import BadInput
from unsample.media.formats import MAX_PIXELS
from unsample.media.pictures import MIN_SIDE, open_picture, read_metadata

MUTATIONS = 2000
BATCHES = 10
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def seeds() -> list[bytes]:
    """Small files of every format and of the stranger modes, with EXIF, texts and several frames."""
    noise = random.Random(0)
    image = Image.frombytes("RGB", (20, 16), noise.randbytes(20 * 16 * 3))
    exif, texts = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112], exif[0x010E] = 6, "a description"
    texts.add_text("unsample", '{"prompt": "a red circle"}')
    texts.add_itxt("parameters", "a red circle\nSteps: 5", zip=True)
    frames = [image.rotate(90 * n) for n in range(3)]
    several = {"save_all": True, "append_images": frames[1:]}
    grey16 = Image.frombytes("I;16", (20, 16), noise.randbytes(20 * 16 * 2))
    return [
        encoded(image, "PNG", pnginfo=texts, exif=exif),
        encoded(image.quantize(16), "PNG", transparency=3),
        encoded(image.convert("LA"), "PNG"),
        encoded(grey16, "PNG"),
        encoded(frames[0], "PNG", **several),
        encoded(image, "JPEG", exif=exif),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "JPEG", progressive=True),
        encoded(image, "WEBP", exif=exif),
        encoded(image.convert("RGBA"), "WEBP", lossless=True),
        encoded(frames[0], "WEBP", **several),
        encoded(image, "BMP"),
        encoded(image.quantize(16), "BMP"),
        encoded(image, "TIFF", exif=exif),
        encoded(image, "TIFF", compression="tiff_lzw"),
        encoded(image, "TIFF", compression="tiff_adobe_deflate"),
        encoded(image.convert("1"), "TIFF", compression="group4"),
        encoded(grey16, "TIFF"),
        encoded(frames[0], "TIFF", **several),
        encoded(image, "GIF"),
        encoded(frames[0], "GIF", **several),
        encoded(image, "AVIF", exif=exif),
        encoded(image, "JPEG2000"),
        encoded(image.convert("RGBA"), "JPEG2000", no_jp2=True),
        encoded(image, "PNG", icc_profile=SRGB),
        encoded(image, "JPEG", icc_profile=SRGB),
    ]


def mutate(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    data = bytearray(content)
    kind = rng.choice(["flip", "flip", "header", "cut", "remove", "repeat", "splice", "extreme"])
    at = rng.randrange(len(data))
    if kind == "flip":
        for _ in range(rng.choice([1, 2, 8, 32])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "header":
        data[rng.randrange(min(64, len(data)))] = rng.randrange(256)
    elif kind == "cut":
        del data[at:]
    elif kind == "remove":
        del data[at : at + rng.randrange(1, 40)]
    elif kind == "repeat":
        data[at:at] = data[at : at + rng.randrange(1, 200)]
    elif kind == "splice":
        other = rng.choice(others)
        data[at:] = other[rng.randrange(len(other)) :]
    else:
        data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
    return bytes(data)


def check(path: Path) -> bool:
    """True when the file opened; anything but a sound picture or BadInput fails the test."""
    with contextlib.suppress(BadInput):
        read_metadata(path)
    try:
        picture = open_picture(path)
    except BadInput:
        return False
    assert picture.pixels.mode == "RGB"
    assert min(picture.pixels.size) >= MIN_SIDE
    assert picture.pixels.width * picture.pixels.height <= MAX_PIXELS
    assert len(picture.pixels.tobytes()) == picture.pixels.width * picture.pixels.height * 3
    return True


def test_the_files_are_good_before_they_are_spoilt(tmp_path: Path) -> None:
    for number, content in enumerate(seeds()):
        (tmp_path / f"{number}.bin").write_bytes(content)
        assert check(tmp_path / f"{number}.bin")


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_spoilt_file_is_opened_or_refused(batch: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng, files = random.Random(batch), seeds()
    path, opened = tmp_path / "spoilt.bin", 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(MUTATIONS // BATCHES):
            path.write_bytes(mutate(rng.choice(files), files, rng))
            opened += check(path)
    assert 0 < opened < MUTATIONS // BATCHES  # both happen, or the mutations test nothing
    assert caught == []
    assert capfd.readouterr() == ("", "")  # libtiff would print here
