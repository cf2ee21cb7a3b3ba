"""Whether all of a picture is in its file. Pillow may leave what is missing black or grey; here it is refused.

PNG: the checksum of every critical chunk, and its end. JPEG: every scan of every component, and as much data as its
height asks for. TIFF: every strip or tile, inside the file, uncompressed ones as long as their rows, deflated ones up
to their checksum. Pillow itself checks how much data a BMP, a GIF, a WEBP, an AVIF and a JPEG 2000 hold. A JPEG, WEBP,
AVIF or JPEG 2000 whose data was changed and not shortened carries no checksum by which it could be known.
"""

from __future__ import annotations

import io
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, ImageFile

_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # not a stuffed byte, a restart or a fill byte
_FILLER = bytes(8)  # as much as libjpeg reads ahead of what it needs
_MARKER = re.compile(rb"\xff+[^\x00\xff]")
_ALONE, _END, _SCAN = (0x01, *range(0xD0, 0xD9)), 0xD9, 0xDA
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), (0xC2, 0xCA)
_FRAMES = (*_SEQUENTIAL, *_PROGRESSIVE, 0xC9)  # 0xC9: sequential, arithmetic
_ALL = range(64)  # the coefficients of a block
_MAX_SCANS = 500  # each costs a pass over the picture
_SLACK = 4096  # bytes of a strip beyond its rows
_YCBCR = 6
_DEFLATE = (8, 32946)  # TIFF's two numbers of it


class _Strict:
    """How many are reading strictly at the moment, and what Pillow was told before."""

    lock, readers, before = threading.Lock(), 0, False


@contextmanager
def strictly() -> Iterator[None]:
    """Let Pillow refuse files that are cut short, even where another library has told it to accept them."""
    with _Strict.lock:
        if _Strict.readers == 0:
            _Strict.before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        _Strict.readers += 1
    try:
        yield
    finally:
        with _Strict.lock:
            _Strict.readers -= 1
            if _Strict.readers == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _Strict.before


def load_whole(image: Image.Image) -> None:
    """Decode a picture that Pillow has opened, when all of it is there. One that was decoded before is left as it is.

    Raises:
        ValueError: what is missing or wrong. And whatever Pillow raises.
    """
    file: Any = getattr(image, "fp", None)
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or file is None:
        image.load()
        return
    if image.format == "PNG":
        _check_png(file)
    elif image.format == "TIFF":
        _check_tiff(image, file)
    if image.format not in ("JPEG", "MPO"):
        image.load()
        return
    image.fp = io.BytesIO(_whole_jpeg(_content(file)))
    image.load()
    if getattr(image, "_exclusive_fp", False):
        file.close()


def _content(file: Any) -> bytes:
    at = file.tell()
    file.seek(0)
    data: bytes = file.read()
    file.seek(at)
    return data


def _check_png(file: Any) -> None:
    """The checksums of the critical chunks, up to the end."""
    at = file.tell()
    file.seek(8)
    kind, packed = b"", []
    while kind != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it ends before its last chunk")
        length, kind = struct.unpack(">I4s", head)
        content, checksum = file.read(length), file.read(4)
        if len(content) < length or len(checksum) < 4:
            raise ValueError(f"its chunk {kind.decode('latin-1')!a} is cut short")
        if kind[:1].isupper() and zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
            raise ValueError(f"the checksum of its chunk {kind.decode('latin-1')} is wrong")
        if kind == b"IHDR":
            width, height = struct.unpack(">II", content[:8])
        packed += [content] if kind == b"IDAT" else []
    _inflate(b"".join(packed), 2 * height * (8 * width + 1) + _SLACK)
    file.seek(at)


def _whole_jpeg(data: bytes) -> bytes:
    """The data as it is to be decoded: up to the end of the first picture in it, with all of its scans.

    A decoder that comes upon the end too early makes up the rest of the picture. So one of a single scan is decoded
    without its end: if data is lacking the decoder waits for it, and Pillow says so.
    """
    kind, components, scans, end = _scans(data)
    if len(scans) > _MAX_SCANS:
        raise ValueError(f"it has more than {_MAX_SCANS} scans")
    reached = {
        c: [min((p for ids, ks, p in scans if c in ids and k in ks), default=1) for k in _ALL] for c in components
    }
    if lacking := sum(any(precisions) for precisions in reached.values()):
        raise ValueError(f"scans are missing for {lacking} of its {len(components)} components")
    return data[:end] + _FILLER if kind in _SEQUENTIAL and len(scans) == 1 else data


def _scans(data: bytes) -> tuple[int, bytes, list[tuple[bytes, range, int]], int]:
    """A JPEG's kind (its SOF marker), its components, each scan's components, coefficients and bits left, its end."""
    kind, components, at = 0, b"", 2
    scans: list[tuple[bytes, range, int]] = []
    while len(scans) <= _MAX_SCANS and (found := _MARKER.search(data, at)):
        marker, at = data[found.end() - 1], found.end()
        if marker == _END:
            return kind, components, scans, found.start()
        if marker in _ALONE:
            continue
        segment = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        at += 2 + len(segment)
        if marker in _FRAMES:
            kind, components = marker, segment[6 : 6 + 3 * segment[5] : 3]
        elif marker == _SCAN:
            ids, first, last, bits = segment[1:-3:2], *segment[-3:]
            scans.append((ids, range(first, last + 1), bits & 15) if kind in _PROGRESSIVE else (ids, _ALL, 0))
            at = stop.start() if (stop := _NEXT_MARKER.search(data, at)) else len(data)
    return kind, components, scans, len(data)


def _check_tiff(image: Any, file: Any) -> None:
    """Every strip or tile is there, inside the file, and holds its rows."""
    tags = image.tag_v2
    size = file.seek(0, io.SEEK_END)
    width, height, samples = tags[256], tags[257], tags.get(277, 1)
    planes, bits = (samples, 1) if tags.get(284, 1) == 2 else (1, samples)
    tiled = 324 in tags
    across, down = (tags[322], tags[323]) if tiled else (width, min(tags.get(278, height), height))
    rows, columns = -(-height // down), -(-width // across)
    offsets, counts = (tags[324], tags.get(325)) if tiled else (tags[273], tags.get(279))
    wanted, what = planes * rows * columns, "tiles" if tiled else "strips"
    if min(len(offsets), len(offsets if counts is None else counts)) < wanted:
        raise ValueError(f"{len(offsets)} of its {wanted} {what} are there")
    row = -(-across * bits * max(tags.get(258, (1,))) // 8)
    for k, start in enumerate(offsets[:wanted]):
        held = size - start if counts is None else counts[k]
        if start <= 0 or held <= 0 or start + held > size:
            raise ValueError(f"one of its {wanted} {what} lies outside the file")
        last = height - down * (rows - 1) if not tiled and k % rows == rows - 1 else down
        if tags.get(259, 1) == 1 and tags.get(262) != _YCBCR and held < last * row:
            raise ValueError(f"one of its {wanted} {what} has {held} bytes for {last} rows of {row}")
        if tags.get(259) in _DEFLATE:
            file.seek(start)
            _inflate(file.read(min(held, 2 * down * row + _SLACK)), down * row + _SLACK)


def _inflate(data: bytes, most: int) -> None:
    """Unpack to the end, where the checksum is, keeping nothing."""
    unpacking, count = zlib.decompressobj(), 0
    while not unpacking.eof:
        piece = unpacking.decompress(data, most)
        data, count = unpacking.unconsumed_tail, count + len(piece)
        if count > most or not (piece or data or unpacking.eof):
            raise ValueError("its compressed data has no end")
