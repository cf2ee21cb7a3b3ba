"""Colours as the file means them: profiles, gamma and primaries come to sRGB in every format, and it is said."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.media.test_pictures import chunk, png
from unsample.media import colour
from unsample.media.pictures import from_bytes, from_pil, open_picture

P3_POINTS = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
P3 = colour._profile(P3_POINTS, colour._SRGB_CURVE)
ASKED, SHOWN = (200, 60, 40), (217, 42, 23)  # a colour of Display P3, and the same in sRGB
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def grey_profile(gamma: float) -> bytes:
    """A greyscale profile: the one of a screen with its primaries taken out."""
    curve = b"curv" + bytes(4) + struct.pack(">IHxx", 1, round(gamma * 256))
    white = b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    at = 128 + 4 + 12 * 2
    table = struct.pack(">4sII4sII", b"wtpt", at, len(white), b"kTRC", at + len(white), len(curve))
    size = at + len(white) + len(curve)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, b"mntr", b"GRAY", b"XYZ ") + bytes(12) + b"acsp"
    return head.ljust(68, b"\0") + white[8:] + bytes(48) + struct.pack(">I", 2) + table + white + curve


def encoded(kind: str, image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def linear_to_srgb(v: float) -> float:
    """IEC 61966-2-1."""
    return 255 * (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_profile_is_converted_to_srgb_and_said(kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }.get(kind, {})
    content = encoded(kind, Image.new("RGB", (16, 16), ASKED), icc_profile=P3, **options)
    (tmp_path / "a").write_bytes(content)
    for picture in (open_picture(tmp_path / "a"), from_bytes(content), from_pil(Image.open(io.BytesIO(content)))):
        # JPEG and AVIF round in YCbCr, which is up to 2 of 255
        assert np.abs(np.array(picture.pixels.getpixel((8, 8))) - SHOWN).max() <= (2 if kind in ("JPEG", "AVIF") else 0)
        assert picture.notes == ("converted from an unnamed profile to sRGB",)
        assert picture.pixels.info == {}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
@pytest.mark.parametrize("profile", [SRGB, colour._profile(colour._SRGB_POINTS, colour._SRGB_CURVE)])
def test_an_srgb_profile_changes_nothing_and_is_not_mentioned(mode: str, profile: bytes) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).convert(mode)
    plain = from_bytes(encoded("PNG", image))
    found = from_bytes(encoded("PNG", image, icc_profile=profile))
    assert found.pixels.tobytes() == plain.pixels.tobytes()
    assert found.notes == plain.notes


def test_a_palette_and_its_transparency_are_converted() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *ASKED])
    image.putpixel((3, 3), 0)
    picture = from_bytes(encoded("PNG", image, transparency=0, icc_profile=P3))
    assert picture.pixels.getpixel((0, 0)) == SHOWN
    assert picture.pixels.getpixel((3, 3)) == (255, 255, 255)
    told = ("converted from a palette", "converted from an unnamed profile to sRGB", "transparency composited on white")
    assert picture.notes == told


def test_alpha_is_kept_as_it_is() -> None:
    picture = from_pil(with_profile(Image.new("RGBA", (8, 8), (*ASKED, 128)), P3))
    assert picture.pixels.getpixel((0, 0)) == tuple(round(255 + (c - 255) * 128 / 255) for c in SHOWN)


def with_profile(image: Image.Image, profile: object) -> Image.Image:
    image.info["icc_profile"] = profile
    return image


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_greys_follow_their_profile(mode: str) -> None:
    image = Image.new("L", (8, 8), 128)
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 128 * 257, dtype=np.uint16))
    picture = from_pil(with_profile(image.convert(mode) if mode == "LA" else image, grey_profile(1.0)))
    wanted = linear_to_srgb(128 / 255)
    assert picture.pixels.getpixel((0, 0)) == pytest.approx((wanted,) * 3, abs=1)  # lcms rounds to 8 bits
    assert "to sRGB" in picture.notes[-1]
    picture = from_pil(with_profile(Image.new("L", (8, 8), 200), P3))  # an RGB profile on greys: r = g = b
    assert picture.pixels.getpixel((0, 0)) == (200, 200, 200)


def test_cmyk_with_a_profile_of_another_space_says_that_it_was_not_used() -> None:
    picture = from_pil(with_profile(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), P3))
    assert picture.pixels.getpixel((0, 0)) == (255, 0, 0)
    assert picture.notes[0] == "converted from CMYK"
    assert "is of RGB, the picture CMYK; colours are taken as sRGB" in picture.notes[1]


def png_with(*chunks: bytes, level: int = 128, depth: int = 8) -> bytes:
    rows = bytes([level] * 3 * 8 * 8 * (depth // 8))
    return png(8, 8, depth, 2, rows, b"".join(chunks))


def gamma(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 100000)))


def primaries(points: tuple[float, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(v * 100000) for v in points)))


@pytest.mark.parametrize("depth", [8, 16])
def test_the_gamma_of_a_png_is_applied_and_said(depth: int) -> None:
    picture = from_bytes(png_with(gamma(1.0), depth=depth))
    assert picture.pixels.getpixel((0, 0)) == pytest.approx((linear_to_srgb(128 / 255),) * 3, abs=1)
    assert picture.notes[-1] == "converted from gamma 1 to sRGB"


def test_the_primaries_of_a_png_are_applied_and_said() -> None:
    rows = bytes(ASKED) * 64
    picture = from_bytes(png(8, 8, 8, 2, rows, gamma(0.45455) + primaries(P3_POINTS)))
    # P3's curve is sRGB's here; the primaries stand in the file with 5 digits
    assert picture.pixels.getpixel((0, 0)) == pytest.approx(SHOWN, abs=1)
    assert picture.notes == ("converted from the colours of its cHRM to sRGB",)


@pytest.mark.parametrize(
    "chunks",
    [
        [gamma(0.45455)],
        [gamma(0.45455), primaries(colour._SRGB_POINTS)],
        [primaries(colour._SRGB_POINTS)],
        [chunk(b"sRGB", b"\0"), gamma(1.0)],
    ],
    ids=["usual gamma", "usual gamma and primaries", "usual primaries", "sRGB goes before"],
)
def test_what_says_srgb_in_a_png_changes_nothing(chunks: list[bytes]) -> None:
    picture = from_bytes(png_with(*chunks))
    assert picture.pixels.getpixel((0, 0)) == (128, 128, 128)
    assert picture.notes == ()


def test_a_profile_goes_before_gamma() -> None:
    image = with_profile(Image.new("RGB", (8, 8), ASKED), P3)
    image.info["gamma"] = 1.0
    assert from_pil(image).pixels.getpixel((0, 0)) == SHOWN


def test_adobe_rgb_of_cameras_is_known_by_exif() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    exif.get_ifd(0x8769)[0xA005] = {1: "R03", 2: b"0100"}
    content = encoded("JPEG", Image.new("RGB", (16, 16), (60, 200, 60)), exif=exif, quality=100, subsampling=0)
    picture = from_bytes(content)
    assert picture.notes == ("converted from Adobe RGB (in its EXIF) to sRGB",)
    assert picture.pixels.getpixel((0, 0))[0] < 20  # a green beyond sRGB


BAD: dict[str, tuple[object, str]] = {
    "no profile": (b"x" * 300, "its colour profile cannot be used"),
    "cut": (P3[:200], "its colour profile"),
    "empty": (b"", "its colour profile is damaged"),
    "pieces lost": (None, "its colour profile is damaged"),
    "huge": (P3 + bytes(9 * 2**20), "its colour profile has 9 MB, the limit is 8 MB"),
    "a text": ("sRGB", "its colour profile is damaged"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_profile_that_cannot_be_used_is_said_and_the_colours_stay(what: str) -> None:
    profile, said = BAD[what]
    picture = from_pil(with_profile(Image.new("RGB", (8, 8), ASKED), profile))
    assert picture.pixels.getpixel((0, 0)) == ASKED
    assert said in picture.notes[0]
    assert picture.notes[0].endswith("colours are taken as sRGB")


def test_gamma_and_primaries_that_cannot_be_are_said() -> None:
    for chunks in ([gamma(0.0)], [gamma(99.0)], [primaries((0.3, 0.3) * 4)], [primaries((0.0,) * 8)]):
        picture = from_bytes(png_with(*chunks))
        assert picture.pixels.getpixel((0, 0)) == (128, 128, 128)
        assert picture.notes[0].endswith("colours are taken as sRGB")


def test_spoilt_profiles_end_in_a_note_and_in_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for profile in (P3, SRGB, grey_profile(2.2)):
        for _ in range(100):
            spoilt = bytearray(profile)
            for at in rng.integers(0, len(spoilt), 4):
                spoilt[at] = rng.integers(0, 256)
            picture = from_pil(with_profile(Image.new("RGB", (8, 8), ASKED), bytes(spoilt)))
            assert len(picture.notes) <= 1
            assert all(note.isprintable() for note in picture.notes)
