"""Pictures of which a part is missing or wrong: a decoder fills it with black or grey, and here they are refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from tests.media.test_pictures import chunk
from unsample.errors import BadInput
from unsample.media.pictures import from_bytes, from_pil, open_picture

SIZE = (96, 80)


def picture() -> Image.Image:
    """A gradient with noise: no row of it is one colour."""
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    levels = np.stack([x * 2, y * 2, x + y], axis=-1) + np.random.default_rng(0).normal(0, 12, (*SIZE[::-1], 3))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or picture()).save(buffer, format=kind, **options)
    return buffer.getvalue()


def png_zeroed_tail() -> bytes:
    """The middle of the one IDAT to its end is zero; its checksum is of what was there."""
    data = encoded("PNG")
    at = data.index(b"IDAT")
    count = int.from_bytes(data[at - 4 : at], "big")
    return data[: at + 4 + count // 3] + bytes(count - count // 3) + data[at + 4 + count :]


def png_with(kind: bytes, change: Callable[[bytes], bytes], right: bool) -> bytes:
    """A chunk is changed, and its checksum is made right again or not."""
    data = encoded("PNG", picture().quantize(16) if kind == b"PLTE" else None)
    at = data.index(kind)
    count = int.from_bytes(data[at - 4 : at], "big")
    new = chunk(kind, change(data[at + 4 : at + 4 + count]))
    return (
        data[: at - 4] + (new if right else new[:-4] + data[at + 4 + count : at + 8 + count]) + data[at + 8 + count :]
    )


def taller_jpeg(**options: object) -> bytes:
    """A JPEG whose height is raised from 80 to 800."""
    data = bytearray(encoded("JPEG", **options))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 7] = struct.pack(">H", 800)
    return bytes(data)


def cut_jpeg(share: float, **options: object) -> bytes:
    """A JPEG that is cut short and then ended as a whole one is."""
    data = encoded("JPEG", **options)
    return data[: int(len(data) * share)] + b"\xff\xd9"


def zeroed_jpeg() -> bytes:
    data = encoded("JPEG")
    return data[: len(data) // 2] + bytes(200) + data[len(data) // 2 + 200 :]


def tiff_with(tag: int, value: int, **options: object) -> bytes:
    data = bytearray(encoded("TIFF", **options))
    at = struct.unpack_from("<I", data, 4)[0]
    for k in range(struct.unpack_from("<H", data, at)[0]):
        if struct.unpack_from("<H", data, at + 2 + 12 * k)[0] == tag:
            struct.pack_into("<HII", data, at + 4 + 12 * k, 4, 1, value)
    return bytes(data)


def zeroed_tiff(compression: str) -> bytes:
    data = encoded("TIFF", compression=compression)
    return data[: len(data) // 2] + bytes(300) + data[len(data) // 2 + 300 :]


def tiled_tiff(lost: int) -> bytes:
    """Greyscale of 32x32 in four tiles of 16x16, of which the last ones are not there."""
    tiles = [np.full(256, 60 * k + 40, dtype=np.uint8).tobytes() for k in range(4 - lost)]
    places = [8 + 256 * k for k in range(len(tiles))]
    lists = 8 + 256 * len(tiles)
    entries = [
        (256, 1, 32),
        (257, 1, 32),
        (258, 1, 8),
        (259, 1, 1),
        (262, 1, 1),
        (277, 1, 1),
        (322, 1, 16),
        (323, 1, 16),
    ]
    entries += [(324, len(tiles), lists), (325, len(tiles), lists + 4 * len(tiles))]
    numbers = struct.pack(f"<{2 * len(tiles)}I", *places, *[256] * len(tiles))
    directory = lists + len(numbers)
    content = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in entries)
    header = b"II*\0" + struct.pack("<I", directory)
    return header + b"".join(tiles) + numbers + struct.pack("<H", len(entries)) + content + bytes(4)


def taller_bmp() -> bytes:
    data = bytearray(encoded("BMP"))
    data[22:26] = struct.pack("<i", 900)
    return bytes(data)


def early_gif() -> bytes:
    """The last half of the frame's blocks is left out, and the frame is ended."""
    data = encoded("GIF", picture().quantize(64))
    return data[: len(data) // 2] + b"\0\x3b"


DAMAGED: dict[str, Callable[[], bytes]] = {
    "png, zeroed tail": png_zeroed_tail,
    "png, a changed palette": lambda: png_with(b"PLTE", lambda c: c[::-1], right=False),
    "png, a wrong sum of its pixels": lambda: png_with(b"IDAT", lambda c: c[:-1] + bytes([c[-1] ^ 1]), right=True),
    "png, fewer pixels": lambda: png_with(b"IDAT", lambda c: c[: len(c) // 2], right=True),
    "png, zeroed, its sum made right": lambda: png_with(
        b"IDAT", lambda c: c[: len(c) // 3] + bytes(len(c) - len(c) // 3), right=True
    ),
    "png, without an end": lambda: encoded("PNG")[:-12],
    "png, interlaced, cut": lambda: encoded("PNG", interlace=1)[:-100],
    "jpeg, cut and ended": lambda: cut_jpeg(0.6),
    "jpeg, one block lacks": lambda: encoded("JPEG")[:-40] + b"\xff\xd9",
    "jpeg with restarts, cut and ended": lambda: cut_jpeg(0.6, restart_marker_blocks=2),
    "jpeg, progressive, cut and ended": lambda: cut_jpeg(0.6, progressive=True),
    "jpeg, taller": taller_jpeg,
    "jpeg in full colour, taller": lambda: taller_jpeg(subsampling=0, quality=100),
    "jpeg, zeroed": zeroed_jpeg,
    "tiff, taller": lambda: tiff_with(257, 33_000),
    "tiff, one row taller": lambda: tiff_with(257, 81),
    "tiff, a strip too short": lambda: tiff_with(279, 50),
    "tiff, a strip nowhere": lambda: tiff_with(273, 10**8),
    "tiff, lzw, taller": lambda: tiff_with(257, 3000, compression="tiff_lzw"),
    "tiff, deflate, zeroed": lambda: zeroed_tiff("tiff_adobe_deflate"),
    "tiff, a tile lacks": lambda: tiled_tiff(1),
    "bmp, taller": taller_bmp,
    "gif, ended early": early_gif,
    "webp, cut": lambda: encoded("WEBP")[:-50],
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_picture_that_lacks_a_part_is_refused(what: str) -> None:
    with pytest.raises(BadInput, match="damaged"):
        from_bytes(DAMAGED[what]())


@pytest.mark.parametrize("what", DAMAGED)
def test_it_is_refused_too_where_another_library_has_told_pillow_to_take_it(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(BadInput, match="damaged"):
        from_bytes(DAMAGED[what]())
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True  # the other library has it back


WHOLE: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encoded("JPEG"),
    "jpeg, progressive": lambda: encoded("JPEG", progressive=True),
    "jpeg with restarts": lambda: encoded("JPEG", restart_marker_blocks=1),
    "jpeg, coarse": lambda: encoded("JPEG", quality=1, optimize=True),
    "jpeg, one colour": lambda: encoded("JPEG", Image.new("RGB", (512, 512), "white")),
    "jpeg, greyscale": lambda: encoded("JPEG", picture().convert("L")),
    "jpeg, something behind it": lambda: encoded("JPEG") + b"\xff\xd8 and more",
    "several jpegs": lambda: encoded("MPO", save_all=True, append_images=[picture()]),
    "png, interlaced": lambda: encoded("PNG", interlace=1),
    "tiff, in strips": lambda: encoded("TIFF", strip_size=1000),
    "tiff, deflate, in strips": lambda: encoded("TIFF", compression="tiff_adobe_deflate", strip_size=1000),
    "tiff, jpeg": lambda: encoded("TIFF", compression="jpeg"),
    "tiff, tiles": lambda: tiled_tiff(0),
}


@pytest.mark.parametrize("what", WHOLE)
def test_a_whole_picture_has_the_pixels_that_pillow_reads(what: str) -> None:
    content = WHOLE[what]()
    with Image.open(io.BytesIO(content)) as image:
        assert from_bytes(content).pixels.tobytes() == image.convert("RGB").tobytes()


def test_a_file_that_pillow_has_opened_and_not_yet_read_is_checked(tmp_path: Path) -> None:
    for name in ("png, zeroed tail", "jpeg, cut and ended", "tiff, taller"):
        (tmp_path / "a").write_bytes(DAMAGED[name]())
        with Image.open(tmp_path / "a") as image, pytest.raises(BadInput, match="damaged"):
            from_pil(image)
    (tmp_path / "a").write_bytes(encoded("JPEG"))
    with Image.open(tmp_path / "a") as image:
        assert from_pil(image).pixels.tobytes() == image.tobytes()


def test_an_ancillary_chunk_may_be_wrong_behind_the_pixels() -> None:
    data = encoded("PNG")
    note = chunk(b"tEXt", b"Comment\0hello")
    assert from_bytes(data[:-12] + note[:-1] + b"\0" + data[-12:]).pixels.tobytes() == picture().tobytes()


def test_deflate_that_never_ends_is_refused_before_it_fills_the_memory() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    data = tiff_with(279, len(bomb), compression="tiff_adobe_deflate")
    at = len(data)
    moved = bytearray(data + bomb)
    directory = struct.unpack_from("<I", moved, 4)[0]
    for k in range(struct.unpack_from("<H", moved, directory)[0]):
        if struct.unpack_from("<H", moved, directory + 2 + 12 * k)[0] == 273:
            struct.pack_into("<HII", moved, directory + 4 + 12 * k, 4, 1, at)
    with pytest.raises(BadInput, match="its compressed data has no end"):
        from_bytes(bytes(moved))


def test_a_gif_whose_frame_is_smaller_than_it_says_so(tmp_path: Path) -> None:
    data = bytearray(encoded("GIF", picture().quantize(64)))
    data[8:10] = struct.pack("<H", 400)
    (tmp_path / "a.gif").write_bytes(data)
    assert open_picture(tmp_path / "a.gif").notes[0] == "its frame covers a part of its 96x400"
