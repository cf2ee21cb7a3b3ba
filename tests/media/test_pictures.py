"""Pictures: what is refused and how, what is converted and said so, sizes, and settings in PNG files."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unsample.errors import BadInput, BadOption
from unsample.media import pictures
from unsample.media.pictures import (
    Picture,
    a1111_parameters,
    fit_picture,
    fit_size,
    from_bytes,
    from_pil,
    open_picture,
    read_metadata,
    write_png,
)


def colourful(width: int = 24, height: int = 16, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(width: int = 24, height: int = 16) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def same(a: Image.Image, b: Image.Image, tolerance: int = 0) -> bool:
    return a.size == b.size and np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max() <= tolerance


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG made by hand, for what Pillow does not write; `rows` without the filter bytes."""
    stride = len(rows) // height
    raw = b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(height))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


EXACT: dict[str, dict[str, Any]] = {
    "webp": {"lossless": True},
    "jpg": {"quality": 98, "subsampling": 0},
    "avif": {"quality": 100, "subsampling": "4:4:4"},
}

# What is opened


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "webp", "jpg", "avif", "jp2", "j2k"])
def test_every_format_opens_with_the_same_pixels(tmp_path: Path, suffix: str) -> None:
    image = smooth() if suffix != "gif" else smooth().quantize(16).convert("RGB")
    picture = open_picture(saved(image, tmp_path / f"cat.{suffix}", **EXACT.get(suffix, {})))
    assert picture.pixels.mode == "RGB"
    assert same(picture.pixels, image, tolerance=6 if suffix in ("jpg", "avif") else 0)
    assert picture.name == "cat"
    assert picture.path == str(tmp_path / f"cat.{suffix}")
    assert picture.notes == (("converted from a palette",) if suffix == "gif" else ())
    assert picture.metadata == {}


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    assert same(open_picture(saved(smooth(), tmp_path / "cat.jpg", format="PNG")).pixels, smooth())


def test_a_file_is_closed_again(tmp_path: Path) -> None:
    path = saved(smooth(), tmp_path / "a.tiff")
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    kept = [open_picture(path) for _ in range(5)]
    assert len(kept) == 5
    assert before == (len(os.listdir("/proc/self/fd")) if before else 0)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_greyscale_is_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    samples = np.linspace(0, 65535, 24 * 16).astype(np.uint16).reshape(16, 24)
    picture = open_picture(saved(Image.fromarray(samples), tmp_path / f"a.{suffix}"))
    assert np.array_equal(np.asarray(picture.pixels)[..., 0], np.rint(samples / 257).astype(np.uint8))
    assert picture.notes == ("16-bit converted to 8-bit", "converted from greyscale")


def test_sixteen_bit_big_endian_tiff_is_scaled(tmp_path: Path) -> None:
    samples = np.linspace(0, 65535, 24 * 16).astype(">u2").reshape(16, 24)
    tags = [(256, 4, 24), (257, 4, 16), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (279, 4, 768)]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    content = b"MM\0*" + struct.pack(">I", 8 + 768) + samples.tobytes() + struct.pack(">H", len(tags)) + entries
    (tmp_path / "a.tif").write_bytes(content + bytes(4))
    picture = open_picture(tmp_path / "a.tif")
    assert np.array_equal(np.asarray(picture.pixels)[..., 0], np.rint(samples / 257).astype(np.uint8))


@pytest.mark.parametrize("colour", [2, 6, 4])
def test_sixteen_bit_colour_is_scaled_and_said(tmp_path: Path, colour: int) -> None:
    channels = {2: 3, 6: 4, 4: 2}[colour]
    samples = np.random.default_rng(0).integers(0, 65536, (8, 8, channels)).astype(">u2")
    if channels in (2, 4):
        samples[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(png(8, 8, 16, colour, samples.tobytes()))
    picture = open_picture(tmp_path / "a.png")
    expected = np.broadcast_to(samples[..., : max(1, channels - 1 if channels != 3 else 3)], (8, 8, 3)) / 257
    assert np.abs(np.asarray(picture.pixels) - expected).max() <= 1  # Pillow keeps the high byte of colour
    assert picture.notes[0] == "16-bit converted to 8-bit"


@pytest.mark.parametrize("colour", [0, 2])
def test_a_transparent_colour_of_16_bits_becomes_white(tmp_path: Path, colour: int) -> None:
    samples = np.full((8, 8, 3 if colour else 1), 5000, dtype=">u2")
    samples[2, 3] = 40000
    key = chunk(b"tRNS", struct.pack(">H", 40000) * samples.shape[-1])
    (tmp_path / "a.png").write_bytes(png(8, 8, 16, colour, samples.tobytes(), key))
    picture = open_picture(tmp_path / "a.png")
    assert picture.pixels.getpixel((3, 2)) == (255, 255, 255)
    assert picture.pixels.getpixel((0, 0)) == (19, 19, 19)
    assert "transparency composited on white" in picture.notes


def test_floats_from_0_to_1_are_scaled_and_others_refused(tmp_path: Path) -> None:
    samples = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    picture = open_picture(saved(Image.fromarray(samples), tmp_path / "a.tiff"))
    assert np.array_equal(np.asarray(picture.pixels)[..., 1], np.rint(samples * 255).astype(np.uint8))
    assert picture.notes[0] == "float converted to 8-bit"
    for bad in (samples * 2, samples - 0.5, samples * np.nan):
        with pytest.raises(BadInput, match=r"'.*b\.tiff' has samples from"):
            open_picture(saved(Image.fromarray(bad), tmp_path / "b.tiff"))


def test_32_bit_samples_beyond_16_bits_are_refused_and_not_clipped(tmp_path: Path) -> None:
    fine = Image.fromarray(np.full((8, 8), 65535, dtype=np.int32))
    assert open_picture(saved(fine, tmp_path / "a.tiff")).pixels.getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(BadInput, match="samples from 65536"):
        open_picture(saved(Image.fromarray(np.full((8, 8), 65536, dtype=np.int32)), tmp_path / "a.tiff"))


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk_is_converted_and_said(tmp_path: Path, suffix: str) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    picture = open_picture(saved(image, tmp_path / f"a.{suffix}"))
    assert same(picture.pixels, Image.new("RGB", (16, 16), (255, 0, 0)), tolerance=3)
    assert picture.notes == ("converted from CMYK",)


@pytest.mark.parametrize(("mode", "note"), [("L", "greyscale"), ("1", "1-bit"), ("P", "a palette")])
def test_grey_one_bit_and_palette_pictures_keep_their_colours(tmp_path: Path, mode: str, note: str) -> None:
    image = smooth().convert(mode) if mode != "P" else smooth().quantize(16)
    picture = open_picture(saved(image, tmp_path / "a.png"))
    assert same(picture.pixels, image.convert("RGB"))
    assert picture.notes == (f"converted from {note}",)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white_and_said(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255)).convert(mode)
    image.putpixel((1, 1), (0, 0, 0, 0)[-len(mode) :])
    image.putpixel((2, 2), (0, 0, 0, 128)[-len(mode) :])
    picture = open_picture(saved(image, tmp_path / "a.png"))
    assert [picture.pixels.getpixel((n, n)) for n in range(3)] == [(0,) * 3, (255,) * 3, (127,) * 3]
    assert picture.notes[-1] == "transparency composited on white"


def test_an_alpha_that_hides_nothing_changes_nothing_and_is_not_mentioned(tmp_path: Path) -> None:
    picture = open_picture(saved(smooth().convert("RGBA"), tmp_path / "a.png"))
    assert same(picture.pixels, smooth())
    assert picture.notes == ()


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_palette_with_transparency_is_composited_on_white(tmp_path: Path, suffix: str) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((3, 3), 0)
    picture = open_picture(saved(image, tmp_path / f"a.{suffix}", transparency=0))
    assert picture.pixels.getpixel((3, 3)) == (255, 255, 255)
    assert picture.pixels.getpixel((0, 0)) == (0, 0, 200)
    assert picture.notes == ("converted from a palette", "transparency composited on white")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_the_first_frame_is_taken_and_said(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (16, 16), (20 * n, 0, 255)) for n in range(12)]
    path = saved(frames[0], tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **EXACT.get(suffix, {}))
    picture = open_picture(path)
    assert same(picture.pixels, frames[0])
    assert picture.notes[0] == "first of 12 frames"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_a_picture_is_turned_by_its_exif_orientation_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright, exif = smooth(24, 16), Image.Exif()
    exif[0x0112] = orientation
    undo = {6: 8, 8: 6}.get(orientation, orientation)
    stored = upright.transpose(pictures._UPRIGHT[undo]) if undo != 1 else upright
    picture = open_picture(saved(stored, tmp_path / f"a.{suffix}", exif=exif, **EXACT.get(suffix, {})))
    assert same(picture.pixels, upright, tolerance=6 if suffix in ("jpg", "avif") else 0)
    assert picture.notes == (("turned by its EXIF orientation",) if orientation != 1 else ())
    again = open_picture(saved(picture.pixels, tmp_path / "again.png"))
    assert same(again.pixels, picture.pixels)
    assert again.notes == ()


def test_nothing_of_the_file_but_its_pixels_is_carried_along(tmp_path: Path) -> None:
    picture = open_picture(saved(smooth(), tmp_path / "a.png", icc_profile=b"x" * 200, dpi=(72, 72)))
    assert picture.pixels.info == {}


def test_a_broken_exif_block_does_not_spoil_a_good_picture(tmp_path: Path) -> None:
    path = saved(smooth(), tmp_path / "a.png", exif=b"Exif\0\0nonsense")
    assert same(open_picture(path).pixels, smooth())


# What is refused


def refused(path: Path | str) -> str:
    with pytest.raises(BadInput) as caught:
        open_picture(path)
    assert caught.value.exit_code == 4
    return str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "nothing.png': there is no such file; check the path" in refused(tmp_path / "nothing.png")
    assert "no such file" in refused("")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "is a directory; give" in refused(tmp_path)


def test_a_pipe_and_a_device_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "is a device or a pipe; give" in refused(tmp_path / "pipe.png")
    assert "is a device or a pipe; give" in refused("/dev/zero")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert "is empty (0 bytes); get" in refused(tmp_path / "a.png")


def test_text_named_png_is_refused_as_text(tmp_path: Path) -> None:
    for text in ("hello, I am\n\ttext\n", "BMW and GIF89a", "Grüße, 世界 " * 200):
        (tmp_path / "a.png").write_text(text, encoding="utf-8")
        assert "is text, not a picture; give one of PNG, JPEG, GIF" in refused(tmp_path / "a.png")


def test_other_files_are_refused_by_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    assert "HEIC" in refused(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(bytes(range(256)))
    assert "is not a picture of a kind that is read here; give" in refused(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(100)))
    assert "damaged" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["ppm", "ico", "tga", "pcx"])
def test_formats_beyond_the_eight_are_refused(tmp_path: Path, suffix: str) -> None:
    message = refused(saved(smooth(), tmp_path / f"a.{suffix}"))
    assert "not a picture" in message


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif", "avif", "jp2"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    content = saved(colourful(64, 64), tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(content[: int(len(content) * share)])
    assert "damaged" in refused(tmp_path / f"a.{suffix}")


def test_bad_paths_are_refused(tmp_path: Path) -> None:
    assert "cannot be opened" in refused("a\0.png")
    assert "cannot be opened" in refused("x" * 300)
    (tmp_path / "file").touch()
    assert "cannot be opened" in refused(tmp_path / "file" / "a.png")


def test_a_side_under_8_is_refused(tmp_path: Path) -> None:
    assert "is 7x64 pixels; each side must have at least 8" in refused(saved(smooth(7, 64), tmp_path / "a.png"))
    assert "is 64x7 pixels" in refused(saved(smooth(64, 7), tmp_path / "a.png"))
    assert open_picture(saved(smooth(8, 8), tmp_path / "a.png")).pixels.size == (8, 8)


def test_a_file_over_64_megabytes_is_refused_unread(tmp_path: Path) -> None:
    path = saved(smooth(), tmp_path / "a.png")
    with open(path, "r+b") as file:
        file.truncate(64 * 2**20 + 1)
    assert "is a file of 64 MB, the limit is 64 MB" in refused(path)
    with open(path, "r+b") as file:
        file.truncate(64 * 2**20)
    open_picture(path)


def test_more_than_64_megapixels_are_refused_by_the_header(tmp_path: Path) -> None:
    for width, height in ((8001, 8000), (9500, 9500), (20000, 20000)):
        (tmp_path / "a.png").write_bytes(png(width, height, 8, 2, b"\0" * height))
        assert "the limit is 64 megapixels" in refused(tmp_path / "a.png")
    assert "400 megapixels" in refused(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(png(8000, 8000, 8, 2, b"\0" * 8000))
    assert "damaged" in refused(tmp_path / "a.png")  # 64 megapixels by the header, but no pixels


@pytest.mark.parametrize(("suffix", "name"), [("avif", "AVIF"), ("jp2", "JPEG 2000"), ("webp", "WEBP")])
def test_a_format_that_this_build_of_pillow_lacks_is_named(
    tmp_path: Path, suffix: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(smooth(), tmp_path / f"a.{suffix}")
    monkeypatch.setattr("PIL.features.check", lambda feature: False)
    assert f"is {name}, which this build of Pillow cannot read" in refused(path)


def test_a_lower_limit_of_pillow_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(smooth(100, 100), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "PIL.Image.MAX_IMAGE_PIXELS was set to 1000; raise it" in refused(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "a.png").write_bytes(png(20000, 20000, 8, 2, b"\0" * 20000))
    assert "400 megapixels, the limit is 64 megapixels" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
def test_a_huge_picture_costs_no_memory(tmp_path: Path, suffix: str) -> None:
    """The header of a small file is made to say 20000x20000 (16383x16383 in WEBP, its largest)."""
    content = bytearray(saved(colourful(16, 16), tmp_path / f"a.{suffix}").read_bytes())
    if suffix == "png":
        content = bytearray(png(20000, 20000, 8, 2, b"\0" * 20000))
    elif suffix == "jpg":
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", 20000, 20000)
    elif suffix == "gif":
        content[6:10] = struct.pack("<HH", 20000, 20000)
    elif suffix == "bmp":
        content[18:26] = struct.pack("<ii", 20000, 20000)
    elif suffix == "tiff":
        at = struct.unpack_from("<I", content, 4)[0] + 2
        for entry in range(at, at + 24, 12):
            content[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, 20000)
    elif content[12:16] == b"VP8 ":
        content[26:30] = struct.pack("<HH", 16383, 16383)
    (tmp_path / f"a.{suffix}").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "megapixels" in refused(tmp_path / f"a.{suffix}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB; decoding takes over a million


@pytest.mark.parametrize(
    "error",
    [OSError("x"), ValueError("x"), SyntaxError("x"), struct.error("x"), EOFError(), MemoryError(), KeyError(1)],
)
def test_whatever_pillow_throws_becomes_our_error(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(smooth(), tmp_path / "a.png")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    refused(path)


def test_a_lack_of_memory_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(smooth(), tmp_path / "a.png")

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    assert "does not fit into the memory" in refused(path)


def test_ctrl_c_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(smooth(), tmp_path / "a.png")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_picture(path)


def test_pillows_warnings_and_logs_stay_away_from_the_user(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(saved(smooth(), tmp_path / "a.tiff").read_bytes())
    at = struct.unpack_from("<I", content, 4)[0] + 2
    content[at + 12 * 9 + 8 : at + 12 * 9 + 12] = b"\xff\xff\xff\x7f"  # some tag's data lies far behind the end
    (tmp_path / "a.tiff").write_bytes(content[:-3])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.suppress(BadInput):
            open_picture(tmp_path / "a.tiff")
    assert caught == []
    assert capfd.readouterr() == ("", "")


def damaged_tiff(path: Path) -> Path:
    """A TIFF with 999 samples per pixel, which Pillow logs as an error."""
    content = bytearray(saved(smooth(), path).read_bytes())
    at = struct.unpack_from("<I", content, 4)[0] + 2
    while content[at : at + 2] != struct.pack("<H", 277):
        at += 12
    content[at + 8 : at + 10] = struct.pack("<H", 999)
    path.write_bytes(content)
    return path


def test_pillows_log_is_not_printed_where_logging_is_not_set_up(tmp_path: Path) -> None:
    path = damaged_tiff(tmp_path / "a.tiff")
    refused(path)
    code = "import sys, unsample.media.pictures as p\ntry: p.open_picture(sys.argv[1])\nexcept p.BadInput: pass"
    done = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_stderr_works_again_after_a_tiff(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_picture(saved(smooth(), tmp_path / "a.tiff"))
    refused(damaged_tiff(tmp_path / "b.tiff"))
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


# From memory


def test_a_picture_from_memory_has_the_same_conversions() -> None:
    image = Image.new("LA", (8, 8), (0, 0))
    picture = from_pil(image, "cat")
    assert picture.pixels.getpixel((0, 0)) == (255, 255, 255)
    assert picture == Picture(
        picture.pixels, None, "cat", ("converted from greyscale", "transparency composited on white")
    )
    assert image.mode == "LA"


def test_a_picture_from_memory_is_a_copy() -> None:
    image = smooth()
    picture = from_pil(image)
    image.putpixel((0, 0), (9, 9, 9))
    assert picture.pixels.getpixel((0, 0)) != (9, 9, 9)


def test_a_picture_from_memory_is_checked() -> None:
    for bad in (Image.new("RGB", (7, 8)), Image.new("1", (8001, 8000)), Image.new("F", (8, 8), 2), "a.png"):
        with pytest.raises(BadInput, match="'image'"):
            from_pil(bad)  # type: ignore[arg-type]


def test_an_opened_file_of_pillow_is_taken_and_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(saved(smooth(), tmp_path / "a.png", exif=exif)) as image:
        assert from_pil(image).pixels.size == (16, 24)
        assert image.size == (24, 16)


def test_a_stem_is_short_enough_to_add_a_suffix() -> None:
    assert from_pil(smooth(), "/tmp/a/cat").name == "cat"
    assert len(os.fsencode(from_pil(smooth(), "ü" * 200).name)) <= 200
    assert from_pil(smooth(), "").name == "image"


# Sizes


@pytest.mark.parametrize(
    ("size", "pixels", "multiple", "mode", "expected"),
    [
        ((64, 64), 64 * 64, 8, "aspect", (64, 64)),
        ((640, 480), 64 * 64, 8, "aspect", (72, 56)),
        ((480, 640), 64 * 64, 8, "aspect", (56, 72)),
        ((640, 480), 64 * 64, 1, "aspect", (74, 55)),
        ((640, 480), 512 * 512, 8, "aspect", (592, 440)),
        ((480, 640), 64 * 64, 16, "aspect", (48, 64)),  # not 48 x 80, which is 0.6 for 0.75
        ((600, 400), 64 * 64, 16, "aspect", (96, 64)),
        (
            (640, 360),
            64 * 64,
            16,
            "aspect",
            (80, 48),
        ),  # none within 5 % is of two thirds to one and a half times 64 x 64
        ((640, 480), 64 * 64, 8, "crop", (64, 64)),
        ((640, 480), 64 * 64, 8, "pad", (64, 64)),
        ((640, 480), 60 * 60, 8, "pad", (64, 64)),
        ((8, 8000), 64 * 64, 8, "aspect", (8, 1024)),
        ((8000, 8), 64 * 64, 8, "aspect", (1024, 8)),
        ((8, 8), 1, 8, "aspect", (8, 8)),
    ],
)
def test_sizes(size: tuple[int, int], pixels: int, multiple: int, mode: Any, expected: tuple[int, int]) -> None:
    assert fit_size(*size, pixels, multiple, mode) == expected


def test_any_picture_comes_to_multiples_and_about_the_pixel_count() -> None:
    rng = np.random.default_rng(0)
    for width, height in np.exp(rng.uniform(np.log(8), np.log(6000), (500, 2))).astype(int):
        fitted = fit_size(int(width), int(height), 4096, 8, "aspect")
        assert fitted[0] % 8 == fitted[1] % 8 == 0
        assert min(fitted) >= 8
        assert 4096 / 1.5 < fitted[0] * fitted[1] < 4096 * 2 + 1
        if fitted[0] != fitted[1]:
            assert (fitted[0] > fitted[1]) == (width > height)


def test_sizes_that_cannot_be_are_refused() -> None:
    for bad in ((0, 8, 64, 8, "aspect"), (8, 8, 0, 8, "crop"), (8, 8, 64, 0, "pad"), (8, 8, 64, 8, "stretch")):
        with pytest.raises(BadOption):
            fit_size(*bad)


@pytest.mark.parametrize("mode", ["aspect", "crop", "pad"])
def test_a_picture_of_the_models_size_comes_through_bit_exact(mode: Any) -> None:
    image = colourful(64, 64)
    fitted, note = fit_picture(from_pil(image), (64, 64), 8, mode)
    assert fitted.tobytes() == image.tobytes()
    assert note == ""


def test_a_picture_that_already_has_the_fitted_size_comes_through_bit_exact() -> None:
    image = colourful(72, 56)
    fitted, note = fit_picture(from_pil(image), (64, 64), 8)
    assert fitted.tobytes() == image.tobytes()
    assert note == ""


def test_aspect_resizes_the_whole_picture_and_says_so() -> None:
    fitted, note = fit_picture(from_pil(smooth(640, 480)), (64, 64), 8)
    assert same(fitted, smooth(640, 480).resize((72, 56), Image.Resampling.LANCZOS))
    assert note == "resized from 640x480 to 72x56, aspect ratio kept within rounding"
    assert fit_picture(from_pil(smooth(128, 128)), (64, 64), 8)[1] == "resized from 128x128 to 64x64"


def test_a_picture_too_thin_to_keep_its_shape_says_so() -> None:
    note = fit_picture(from_pil(smooth(8, 3200)), (64, 64), 8)[1]
    assert note == "resized from 8x3200 to 8x1024, aspect ratio changed from 0.0025 to 0.00781 by rounding the sides"


def test_crop_takes_the_central_square() -> None:
    image = smooth(101, 64)
    fitted, note = fit_picture(from_pil(image), (64, 64), 8, "crop")
    assert fitted.tobytes() == image.crop((18, 0, 82, 64)).tobytes()
    assert note == "cropped from 101x64 to the central 64x64"
    fitted, note = fit_picture(from_pil(smooth(48, 100)), (64, 64), 8, "crop")
    assert fitted.size == (64, 64)
    assert note == "cropped from 48x100 to the central 48x48, resized from 48x48 to 64x64"


def test_pad_keeps_the_whole_picture_on_white() -> None:
    image = smooth(64, 32)
    fitted, note = fit_picture(from_pil(image), (64, 64), 8, "pad")
    assert fitted.crop((0, 16, 64, 48)).tobytes() == image.tobytes()
    assert fitted.getpixel((0, 0)) == fitted.getpixel((63, 63)) == (255, 255, 255)
    assert note == "padded with white to 64x64"
    fitted, note = fit_picture(from_pil(smooth(30, 300)), (64, 64), 8, "pad")
    assert note == "resized from 30x300 to 6x64, aspect ratio kept within rounding, padded with white to 64x64"


# Settings in PNG files

SETTINGS = {
    "prompt": "a red circle",
    "negative_prompt": "blurry",
    "num_inference_steps": 50,
    "guidance_scale": 5.0,
    "seed": 0,
    "size": (64, 64),
    "model": "scenes-sd",
    "model_sha256": "abcdef1234567890",
    "method": "ddim",
}


def test_a1111_text_has_its_three_parts() -> None:
    assert a1111_parameters(SETTINGS) == (
        "a red circle\nNegative prompt: blurry\n"
        "Steps: 50, Sampler: DDIM, CFG scale: 5, Seed: 0, Size: 64x64, Model: scenes-sd, Model hash: abcdef1234"
    )


def test_a1111_text_leaves_out_what_is_absent() -> None:
    assert a1111_parameters({}) == ""
    assert a1111_parameters({"prompt": "", "seed": 3, "negative_prompt": None, "model_sha256": None}) == "Seed: 3"
    assert a1111_parameters({"guidance_scale": 7.5, "size": "64x56"}) == "CFG scale: 7.5, Size: 64x56"


def test_a1111_values_with_commas_are_quoted_as_a1111_does() -> None:
    assert a1111_parameters({"method": "edict, p: 0.93", "seed": 1}) == 'Sampler: "edict, p: 0.93", Seed: 1'


def test_settings_come_back_from_the_png(tmp_path: Path) -> None:
    write_png(colourful(), tmp_path / "a.png", SETTINGS)
    found = read_metadata(tmp_path / "a.png")
    assert found == {"parameters": a1111_parameters(SETTINGS), "unsample": {**SETTINGS, "size": [64, 64]}}
    picture = open_picture(tmp_path / "a.png")
    assert picture.metadata == found["unsample"]
    assert picture.pixels.tobytes() == colourful().tobytes()
    assert picture.notes == ()


def test_the_caller_may_give_the_parameters(tmp_path: Path) -> None:
    write_png(colourful(), tmp_path / "a.png", {}, "my own")
    assert read_metadata(tmp_path / "a.png") == {"parameters": "my own", "unsample": {}}


def test_parameters_are_kept_to_what_a_png_text_takes(tmp_path: Path) -> None:
    write_png(colourful(), tmp_path / "a.png", {}, "a\0b" + "x" * 70000)
    assert read_metadata(tmp_path / "a.png")["parameters"] == "ab" + "x" * 65533
    assert b"a\0b" not in (tmp_path / "a.png").read_bytes()


def test_no_folder_of_the_user_is_written_into_a_png(tmp_path: Path) -> None:
    names = {key: f"/home/me/secret/{key}.png" for key in ("input", "output", "path", "inversion", "edit")}
    settings = {**names, "model": "/home/me/secret/sd", "images": [{"reconstruction": "/home/me/secret/r.png"}]}
    write_png(colourful(), tmp_path / "a.png", settings)
    assert b"secret" not in (tmp_path / "a.png").read_bytes()
    assert open_picture(tmp_path / "a.png").metadata["images"] == [{"reconstruction": "r.png"}]
    assert read_metadata(tmp_path / "a.png")["parameters"] == "Model: sd"


def test_a_png_holds_nothing_but_pixels_and_our_two_texts(tmp_path: Path) -> None:
    image = colourful()
    image.info = {"icc_profile": b"x" * 200, "transparency": (1, 2, 3), "comment": "secret", "exif": b"Exif\0\0x"}
    write_png(image, tmp_path / "a.png", SETTINGS)
    content, at, names = (tmp_path / "a.png").read_bytes(), 8, []
    while at < len(content):
        names.append(content[at + 4 : at + 8])
        at += 12 + struct.unpack_from(">I", content, at)[0]
    assert names == [b"IHDR", b"tEXt", b"tEXt", b"IDAT", b"IEND"]
    assert "comment" in image.info


@pytest.mark.parametrize("prompt", ["Ein Würfel", "赤い円" * 5, "a\ud800b", "nul\0nul", "line\nline", "🙂" * 10000])
def test_any_prompt_can_be_written_and_read_again(tmp_path: Path, prompt: str) -> None:
    write_png(colourful(), tmp_path / "a.png", {"prompt": prompt, "negative_prompt": "🙂" * 10000, "seed": 5})
    found = read_metadata(tmp_path / "a.png")
    assert found["unsample"]["seed"] == 5
    assert found["parameters"].endswith("Seed: 5")
    assert found["unsample"].get("shortened", False) == (len(prompt) == 10000)
    if prompt.isprintable():
        assert found["unsample"]["prompt"].rstrip("…") == prompt[: len(found["unsample"]["prompt"].rstrip("…"))]


def test_settings_too_large_for_any_png_do_not_lose_the_picture(tmp_path: Path) -> None:
    write_png(colourful(), tmp_path / "a.png", {"sigmas": [0.123456789] * 20000})
    assert read_metadata(tmp_path / "a.png")["unsample"] == {"shortened": True}


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_picture(
    tmp_path: Path, failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(colourful(), tmp_path / "a.png", {"seed": 1})

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(BadInput if isinstance(failure, OSError) else KeyboardInterrupt):
        write_png(colourful(seed=1), tmp_path / "a.png", {"seed": 2})
    assert open_picture(tmp_path / "a.png").metadata == {"seed": 1}
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot write file .* its folder does not exist; create"):
        write_png(colourful(), tmp_path / "no" / "a.png", {})


def with_texts(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)
    return saved(colourful(), path, pnginfo=info)


def test_a_png_without_texts_has_none(tmp_path: Path) -> None:
    assert read_metadata(saved(colourful(), tmp_path / "a.png")) == {"parameters": None, "unsample": None}


@pytest.mark.parametrize(
    "text", ["{", "[1]", "3", "null", "", '{"a": NaN}', "[" * 60000, '{"a": "' + "x" * 66000 + '"}', '{"a": "\ud800']
)
def test_settings_that_are_nonsense_are_refused_by_read_metadata_and_ignored_by_open_picture(
    tmp_path: Path, text: str
) -> None:
    path = with_texts(tmp_path / "a.png", unsample=text.encode("utf-8", "replace").decode())
    with pytest.raises(BadInput, match="cannot be read"):
        read_metadata(path)
    assert open_picture(path).metadata == {}


def test_escape_codes_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = with_texts(tmp_path / "a.png", parameters="a\x1b[31m red\x9b2J\r\n\tcircle\x07")
    assert read_metadata(path)["parameters"] == "a[31m red2J\n\tcircle"


def test_texts_behind_the_pixels_are_found(tmp_path: Path) -> None:
    content = saved(colourful(), tmp_path / "a.png").read_bytes()
    ours = chunk(b"tEXt", b"unsample\0" + json.dumps({"seed": 7}).encode())
    (tmp_path / "a.png").write_bytes(content[:-12] + ours + content[-12:])
    assert read_metadata(tmp_path / "a.png")["unsample"] == {"seed": 7}
    assert open_picture(tmp_path / "a.png").metadata == {"seed": 7}


def test_metadata_of_other_files_is_refused(tmp_path: Path) -> None:
    for path in (saved(smooth(), tmp_path / "a.jpg"), tmp_path / "missing.png", tmp_path):
        with pytest.raises(BadInput):
            read_metadata(path)


def test_pictures_import_neither_torch_nor_numpy() -> None:
    code = "import unsample.media.pictures, sys; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_bytes_of_a_file_are_read_like_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(colourful().convert("RGBA"), tmp_path / "a.png")
    opened, read = open_picture(path), from_bytes(path.read_bytes(), "cells/a.png")
    assert same(opened.pixels, read.pixels)
    assert (read.path, read.name, read.notes) == (None, "a", opened.notes)
    for data, said in {
        b"": "is empty",
        b"some text": "text, not a picture",
        path.read_bytes()[:200]: "damaged",
    }.items():
        with pytest.raises(BadInput, match=said):
            from_bytes(data, "a")
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    with pytest.raises(BadInput, match="the limit is 0 MB"):
        from_bytes(path.read_bytes())
