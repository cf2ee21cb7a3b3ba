"""Pictures in and out, without torch: opened and checked, fitted to a model's size, written with their settings.

Everything a file can hold is brought to one form, an upright 8-bit sRGB picture, and every change is said in
`Picture.notes`. A file is untrusted: its size is checked from the header before anything is decoded, and
whatever Pillow throws becomes `BadInput`. The text in a PNG is data: parsed as JSON of bounded size, no more.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import json
import logging
import math
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from PIL import Image, UnidentifiedImageError, features
from PIL.PngImagePlugin import PngInfo

from unsample.errors import BadInput, BadOption
from unsample.media.colour import to_srgb
from unsample.media.damage import load_whole, strictly
from unsample.media.files import as_json, atomic_write, base_name, plain_settings
from unsample.media.fitting import once
from unsample.media.formats import FORMATS, MAX_PIXELS, SPOKEN

MAX_BYTES = 64 * 2**20
MIN_SIDE = 8
MAX_SKEW = 0.05  # by which an aspect ratio may change where a model's sizes allow that
MAX_METADATA = 64 * 1024  # bytes of one text in a PNG

Fit = Literal["aspect", "crop", "pad"]
Size = tuple[int, int]

_KINDS = {"1": "1-bit", "L": "greyscale", "LA": "greyscale", "La": "greyscale", "P": "a palette", "PA": "a palette"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STDERR = threading.Lock()
_PNG = b"\x89PNG"
_JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_MAGIC = (_PNG, b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*", *_JPEG_2000)
_OPTIONAL = {"webp": "WEBP", "avif": "AVIF", "jpg_2000": "JPEG 2000"}  # builds of Pillow lack some of them

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints Pillow's errors on bare stderr


@dataclass(frozen=True)
class Picture:
    """A picture as the user meant it: upright, 8-bit RGB, at its own size, with what was done to get there."""

    pixels: Image.Image
    path: str | None = None  # as it was given; None for a picture from memory
    name: str = "image"  # the stem of what is written for it
    notes: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)  # our own settings, when the PNG carries them

    @property
    def sha256(self) -> str:
        """SHA-256 of size and pixels: two files with one hash show the same picture."""
        return hashlib.sha256(f"{_by(self.pixels.size)}:".encode() + self.pixels.tobytes()).hexdigest()


def open_picture(path: str | os.PathLike[str]) -> Picture:
    """Open a PNG, JPEG, WEBP, BMP, TIFF, GIF, AVIF or JPEG 2000 file as an upright 8-bit RGB picture.

    16-bit, CMYK, palette, greyscale and 1-bit pictures are converted, colours are brought to sRGB from what the file
    says of them (a profile, gamma), transparency is composited on white, the first frame of an animation is taken, EXIF
    orientation is applied; `notes` says which of these happened.

    Raises:
        BadInput: missing, a folder, empty, damaged, not such a picture, over 64 MB or 64 megapixels, a side under 8.
    """
    with opened(path, FORMATS) as image:
        return _picture(image, os.fspath(path), _stem(Path(path).stem), f"picture {os.fspath(path)!r}")


def from_bytes(data: bytes, name: str = "image") -> Picture:
    """The same as `open_picture` for the content of a file: a cell of a table.

    Raises:
        BadInput: as there.
    """
    what = f"picture {name!r}"
    _check_bytes(len(data), what)
    with _only_bad_input(what):
        return _picture(_identified(io.BytesIO(data), FORMATS, what), None, _stem(Path(base_name(name)).stem), what)


def from_pil(image: Image.Image, name: str = "image") -> Picture:
    """The same checks and conversions for a picture in memory; `image` itself is left as it is."""
    if not isinstance(image, Image.Image):
        raise BadInput(f"picture {name!r} is a {type(image).__name__}, not a PIL image; give a path or a PIL image")
    what = f"picture {name!r}"
    with in_memory(image, what):
        return _picture(image, None, _stem(base_name(name)), what)


def fit_size(width: int, height: int, pixels: int, multiple: int, mode: Fit) -> Size:
    """The size at which a model sees a width x height picture, every side a multiple of `multiple`.

    "aspect" keeps the aspect ratio at about `pixels` in all; "crop" and "pad" give the square of that area. Where
    rounding would change the ratio by more than 5 %, the size nearest in area that keeps it is taken, of two thirds to
    one and a half times `pixels`, if there is one. A picture so thin that its short side has to be lifted to one
    multiple loses length rather than exceed twice `pixels`.
    """
    if min(width, height, pixels, multiple) < 1:
        raise BadOption(f"cannot fit {width}x{height} to {pixels} pixels in steps of {multiple}; all must be positive")
    if mode not in ("aspect", "crop", "pad"):
        raise BadOption(f"unknown fit {mode!r}; known: aspect, crop, pad")

    def rounded(side: float) -> int:
        return max(1, math.floor(side / multiple + 0.5)) * multiple

    if mode != "aspect":
        return rounded(math.sqrt(pixels)), rounded(math.sqrt(pixels))
    short, long = sorted((width, height))
    scale = math.sqrt(pixels / (width * height))
    new_short, new_long = rounded(short * scale), rounded(long * scale)
    new_long = max(new_short, min(new_long, 2 * pixels // new_short // multiple * multiple))
    new_short, new_long = _true_to(short / long, (new_short, new_long), pixels, multiple)
    return (new_short, new_long) if width <= height else (new_long, new_short)


def _true_to(ratio: float, rounded: Size, pixels: int, multiple: int) -> Size:
    """`rounded` (short, long) where it keeps a ratio within 5 %, else the nearest size that does, else `rounded`."""

    def true(size: Size) -> bool:
        return abs(math.log(size[0] / size[1] / ratio)) <= math.log(1 + MAX_SKEW)

    if true(rounded):
        return rounded
    low, high, found = pixels * 2 / 3, pixels * 3 / 2, []
    for short in range(multiple, math.isqrt(int(high)) + 1, multiple):
        long = max(short, math.floor(short / ratio / multiple + 0.5) * multiple)
        if low <= short * long <= high and true((short, long)):
            found.append((short, long))
    return min(found, key=lambda size: abs(math.log(size[0] * size[1] / pixels)), default=rounded)


def fit_picture(picture: Picture, size: Size, multiple: int, mode: Fit = "aspect") -> tuple[Image.Image, str]:
    """Bring a picture to what a model of `size` (width, height) takes; returns it and what was done ("" = nothing)."""
    pixels, done = picture.pixels, []
    target = fit_size(*pixels.size, size[0] * size[1], multiple, mode)
    if mode == "crop" and pixels.width != pixels.height:
        side = min(pixels.size)
        left, top = (pixels.width - side) // 2, (pixels.height - side) // 2
        pixels = pixels.crop((left, top, left + side, top + side))
        done.append(f"cropped from {_by(picture.pixels.size)} to the central {_by(pixels.size)}")
    inner = _inside(pixels.size, target) if mode == "pad" else target
    if pixels.size != inner:
        done.append(f"resized from {_by(pixels.size)} to {_by(inner)}{_aspect_note(pixels.size, inner)}")
        pixels = once(pixels, inner) or pixels.resize(inner, Image.Resampling.LANCZOS)
    if inner != target:
        done.append(f"padded with white to {_by(target)}")
        canvas = Image.new("RGB", target, "white")
        canvas.paste(pixels, ((target[0] - inner[0]) // 2, (target[1] - inner[1]) // 2))
        pixels = canvas
    return pixels, ", ".join(done)


def write_png(
    image: Image.Image, path: str | os.PathLike[str], settings: Mapping[str, Any], parameters: str | None = None
) -> None:
    """Write a PNG in one step, with its settings as text chunks `parameters` (as A1111 has it) and `unsample` (JSON).

    Folders are stripped from file names in the settings. Without `parameters` they are made from the settings.

    Raises:
        BadInput: when it cannot be written.
    """
    content = png_of(image, settings, parameters)
    atomic_write(path, lambda temporary: temporary.write_bytes(content))


def png_of(image: Image.Image, settings: Mapping[str, Any], parameters: str | None = None) -> bytes:
    """The content of such a PNG."""
    info = PngInfo()
    for name, text in png_texts(settings, parameters).items():
        info.add_text(name, text)
    bare = image.copy()
    bare.info = {}  # no colour profile, comment or transparency of the source travels along unseen
    buffer = io.BytesIO()
    bare.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def png_texts(settings: Mapping[str, Any], parameters: str | None = None) -> dict[str, str]:
    """The text chunks of a picture with these settings, by name, as `write_png` writes them."""
    plain = plain_settings(settings, max_bytes=MAX_METADATA)
    text = a1111_parameters(plain) if parameters is None else parameters
    return {**({"parameters": _encodable(text)} if text else {}), "unsample": _encodable(as_json(plain))}


def a1111_parameters(settings: Mapping[str, Any]) -> str:
    """The settings as the text that AUTOMATIC1111's web UI reads: prompt, negative prompt, one line of `Key: value`."""
    size, digest, method = settings.get("size"), settings.get("model_sha256"), settings.get("method")
    fields = {
        "Steps": settings.get("num_inference_steps"),
        "Sampler": "DDIM" if method == "ddim" else method,
        "CFG scale": settings.get("guidance_scale"),
        "Seed": settings.get("seed"),
        "Size": _by((size[0], size[1])) if isinstance(size, (tuple, list)) else size,
        "Model": settings.get("model"),
        "Model hash": str(digest)[:10] if digest else None,
    }
    line = ", ".join(f"{key}: {_a1111_value(value)}" for key, value in fields.items() if value is not None)
    negative = settings.get("negative_prompt")
    return "\n".join(filter(None, (settings.get("prompt"), f"Negative prompt: {negative}" if negative else "", line)))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The texts of a PNG: {"parameters": str or None, "unsample": dict or None}, None where there is none.

    Control characters are taken out of `parameters`, since it is made to be printed on a terminal.

    Raises:
        BadInput: not a readable PNG, a text over 64 kB, or an `unsample` text that is not a JSON object.
    """
    with opened(path, ("PNG",)) as image:
        load_whole(image)  # texts may stand behind the pixels
        texts = image.info
        try:
            return {
                "parameters": _printable(texts["parameters"]) if "parameters" in texts else None,
                "unsample": _parse_settings(texts["unsample"]) if "unsample" in texts else None,
            }
        except (ValueError, RecursionError) as error:
            found = f"the settings in {os.fspath(path)!r} cannot be read: {error}"
            raise BadInput(f"{found}; they are not as unsample writes them") from error


@contextmanager
def opened(
    path: str | os.PathLike[str], formats: tuple[str, ...] = FORMATS, kind: str = "picture"
) -> Iterator[Image.Image]:
    """The picture file with its header read and checked, nothing decoded yet; what is raised inside is `BadInput`."""
    what = f"{kind} {os.fspath(path)!r}"
    _check_file(path, what)
    with _only_bad_input(what), open(path, "rb") as file:
        yield _identified(file, formats, what)


@contextmanager
def in_memory(image: Image.Image, what: str) -> Iterator[Image.Image]:
    """A picture in memory, its size checked; what is raised inside is `BadInput`."""
    with _only_bad_input(what):
        _check_size(what, image.size)
        yield image


def _identified(file: BinaryIO, formats: tuple[str, ...], what: str) -> Image.Image:
    """The header of an open file, read and checked."""
    head = file.read(512)
    if lacking := _lacking(head):
        raise BadInput(
            f"{what} is {lacking}, which this build of Pillow cannot read; install Pillow's own wheel, or save it as "
            "PNG"
        )
    try:
        image = Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        wanted = "a PNG" if len(formats) == 1 else f"one of {SPOKEN}"
        raise BadInput(f"{what} is {_looks_like(head, formats)}; give {wanted}") from error
    _check_size(what, image.size)
    return image


def _check_file(path: str | os.PathLike[str], what: str) -> None:
    try:
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode):
            open(path, "rb").close()
    except FileNotFoundError as error:
        raise BadInput(f"{what}: there is no such file; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput(f"{what} cannot be opened: {reason}; check the path and its permissions") from error
    if stat.S_ISDIR(found.st_mode):
        raise BadInput(f"{what} is a directory; give the path of one picture, or of each of them")
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(f"{what} is a device or a pipe; give the path of an ordinary file")
    _check_bytes(found.st_size, what)


def _check_bytes(count: int, what: str) -> None:
    if count == 0:
        raise BadInput(f"{what} is empty (0 bytes); get the file again")
    if count > MAX_BYTES:
        raise BadInput(
            f"{what} is a file of {count / 2**20:.0f} MB, the limit is {MAX_BYTES // 2**20} MB; save it smaller"
        )


def _check_size(what: str, size: Size) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_large(what, f"{_by(size)} = {size[0] * size[1] / 1e6:.0f} megapixels")
    if min(size) < MIN_SIDE:
        raise BadInput(f"{what} is {_by(size)} pixels; each side must have at least {MIN_SIDE}, so enlarge it first")


def _too_large(what: str, found: str) -> BadInput:
    return BadInput(f"{what} has {found}, the limit is {MAX_PIXELS // 10**6} megapixels; make it smaller first")


@contextmanager
def _only_bad_input(what: str) -> Iterator[None]:
    """Turn whatever Pillow throws at a bad file into `BadInput`, and keep its warnings from the user."""
    try:
        with warnings.catch_warnings(), strictly():
            warnings.simplefilter("ignore")
            yield
    except BadInput:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit comes before ours, and names the pixels
        count = re.search(r"\((\d+) pixels\)", str(error))
        found = f"{int(count[1]) / 1e6:.0f} megapixels" if count else "too many pixels"
        if count and int(count[1]) <= MAX_PIXELS:
            limit = f"PIL.Image.MAX_IMAGE_PIXELS was set to {Image.MAX_IMAGE_PIXELS}"
            raise BadInput(
                f"{what} has {found}, and in this process {limit}; raise it to read larger pictures"
            ) from error
        raise _too_large(what, found) from error
    except MemoryError as error:
        raise BadInput(f"{what} does not fit into the memory that is free; make it smaller first") from error
    except Exception as error:  # OSError, SyntaxError, struct.error, zlib.error, KeyError ...: Pillow has no one root
        reason = str(error) or type(error).__name__
        raise BadInput(f"{what} is damaged or cut short ({reason}); get the file again or save it anew") from error


@contextmanager
def _silent_libtiff() -> Iterator[None]:
    """Keep libtiff, which prints its complaints past Python on the process's stderr, from the user's terminal."""
    with _STDERR, open(os.devnull, "wb") as nothing:
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        try:
            os.dup2(nothing.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def starts_like_a_picture(head: bytes) -> bool:
    """Whether the first 12 bytes of a file are those of a picture of a kind that is read here."""
    return head.startswith(_MAGIC) or head[4:12] in (b"ftypavif", b"ftypavis")


def _lacking(head: bytes) -> str | None:
    """The format of a file, when this build of Pillow lacks its reader."""
    kinds = {
        "webp": head[:4] == b"RIFF" and head[8:12] == b"WEBP",
        "avif": head[4:12] in (b"ftypavif", b"ftypavis"),
        "jpg_2000": head.startswith(_JPEG_2000),
    }
    return next((_OPTIONAL[name] for name, found in kinds.items() if found and not features.check(name)), None)


def _looks_like(head: bytes, formats: tuple[str, ...]) -> str:
    """What a file that is no picture seems to be, from its first bytes."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # its last character may be cut
        if re.sub(r"[\r\n\t]", "", text).isprintable():
            return "text, not a picture"
    except UnicodeDecodeError:
        pass
    if starts_like_a_picture(head):
        other = len(formats) < len(FORMATS) and not head.startswith(_PNG)
        return "a picture, but no PNG" if other else "damaged: it starts like a picture but cannot be read as one"
    if head[4:8] == b"ftyp":
        return "a HEIC or video file, which is not read here"
    return "not a picture of a kind that is read here"


@dataclass(frozen=True)
class Decoded:
    """A picture as it is stored, whole, in Pillow's mode for it."""

    image: Image.Image
    sixteen: bool  # 16 bits a sample are stored; of colour Pillow keeps the upper 8
    turn: Image.Transpose | None  # to make it upright
    turned: bool  # it is not upright as stored, or Pillow has turned it already
    notes: tuple[str, ...] = ()


def decoded(image: Image.Image) -> Decoded:
    """Decode; whatever is raised here is for `opened` to put into words."""
    notes: list[str] = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"first of {frames} frames" if image.tell() == 0 else f"frame {image.tell() + 1} of {frames}")
    whole = (0, 0, *image.size)
    if image.format == "GIF" and any(tile[1] != whole for tile in image.tile):  # type: ignore[attr-defined]
        notes.append(f"its frame covers a part of its {_by(image.size)}")
    raw_modes = [str(tile[3]) for tile in getattr(image, "tile", ())]
    sixteen = any(re.search(r"(?<!BGR);16", mode) for mode in raw_modes)  # BGR;16 is 5 + 6 + 5 bits
    before = _orientation(image) if image.format == "TIFF" else 1  # Pillow turns a TIFF while it loads it
    with _silent_libtiff() if image.format == "TIFF" else nullcontext():
        load_whole(image)
    turn = _UPRIGHT.get(_orientation(image))
    return Decoded(image, sixteen, turn, turn is not None or before in _UPRIGHT, tuple(notes))


def _picture(image: Image.Image, path: str | None, name: str, what: str) -> Picture:
    """Decode and convert; each step that changes something adds a note."""
    found = decoded(image)
    image, notes = found.image, list(found.notes)
    metadata = _own_metadata(image)
    if image.mode.startswith("I") or image.mode == "F":
        notes.append("float converted to 8-bit" if image.mode == "F" else "16-bit converted to 8-bit")
        image = _eight_bits(image, what)
    elif found.sixteen:
        notes.append("16-bit converted to 8-bit")
        image = _eight_bit_key(image)
    rgb = _to_rgb(image, _colours(found.image), notes)
    if found.turn is not None:
        rgb = rgb.transpose(found.turn)
    if found.turned:
        notes.append("turned by its EXIF orientation")
    rgb.info = {}
    return Picture(rgb, path, name, tuple(notes), metadata)


def _to_rgb(image: Image.Image, info: Mapping[str, Any], notes: list[str]) -> Image.Image:
    """From any 8-bit mode to sRGB on white; `info` is what the file says of its colours."""
    if image.mode not in ("RGB", "RGBA", "RGBX", "RGBa"):
        notes.append(f"converted from {_KINDS.get(image.mode, image.mode)}")
    if image.has_transparency_data:
        grey = image.mode in ("L", "LA", "La")
        image = (image.convert("LA") if grey else image).convert("LA" if grey else "RGBA")
    elif image.mode not in ("L", "CMYK"):
        own = image.mode in ("1", "P", "RGBX")
        info, image = (
            info if own or image.mode == "RGB" else {},
            image.convert("RGB"),
        )  # of LAB and the like: no profile
    image, note = to_srgb(image, info)
    if note is not None:
        notes.append(note)
    if image.mode not in ("LA", "RGBA"):
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB")
    notes.append("transparency composited on white")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _colours(image: Image.Image) -> Mapping[str, Any]:
    """What a decoded picture says of its colours: Pillow's `info`, and "adobe_rgb" where EXIF says so as cameras do."""
    try:
        exif = image.getexif()
        adobe = exif.get_ifd(0x8769).get(0xA001) == 0xFFFF and exif.get_ifd(0xA005).get(1) == "R03"
    except Exception:  # a broken EXIF block is no reason to refuse a good picture
        adobe = False
    return {**{str(key): value for key, value in image.info.items()}, "adobe_rgb": adobe}


def _eight_bits(image: Image.Image, what: str) -> Image.Image:
    """Greyscale of 16-bit or float samples as "L" (or "LA"): 65535 (1.0 for floats) becomes 255, nothing is clipped."""
    import numpy as np

    samples = np.asarray(image)
    top = 1.0 if image.mode == "F" else 65535.0
    low, high = float(samples.min()), float(samples.max())
    if not (low >= 0 and high <= top):  # nan fails too
        raise BadInput(f"{what} has samples from {low:g} to {high:g}, not 0 to {top:g}; save it with 8 or 16 bits")
    levels = np.empty(samples.shape, dtype=np.uint8)
    for row in range(0, len(samples), 256):  # the floats of a whole picture would be four times as large
        levels[row : row + 256] = np.rint(samples[row : row + 256].astype(np.float32) * np.float32(255 / top))
    grey = Image.fromarray(levels)
    if isinstance(key := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(samples == key, 0, 255).astype(np.uint8)))
    return grey


def _eight_bit_key(image: Image.Image) -> Image.Image:
    """Of 16-bit colour Pillow keeps each sample's high byte, but the whole of the colour that is transparent."""
    if not isinstance(key := image.info.get("transparency"), tuple):
        return image
    image = image.copy()
    image.info["transparency"] = tuple(value >> 8 for value in key)
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block is no reason to refuse a good picture
        return 1


def _own_metadata(image: Image.Image) -> dict[str, Any]:
    try:
        return _parse_settings(image.info.get("unsample"))
    except (ValueError, RecursionError):
        return {}


def _parse_settings(text: object) -> dict[str, Any]:
    value = json.loads(_bounded(text), parse_constant=_refuse_constant)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object was expected, found a {type(value).__name__}")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _bounded(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError("it is not text")
    if len(text.encode("utf-8", "replace")) > MAX_METADATA:
        raise ValueError(f"it is longer than {MAX_METADATA // 1024} kB")
    return str(text)


def _printable(text: object) -> str:
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", _bounded(text))


def _encodable(text: str) -> str:
    """Text that a PNG chunk takes: no lone surrogates (a command line can hold them), no NUL, of bounded size."""
    return text.encode("utf-8", "replace")[:MAX_METADATA].decode("utf-8", "ignore").replace("\0", "")


def _stem(name: str) -> str:
    """A name that still fits into a file name when a suffix is added (255 bytes is the usual limit)."""
    encoded = os.fsencode(name)
    return (name if len(encoded) <= 200 else encoded[:200].decode("utf-8", "ignore")) or "image"


def _a1111_value(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _inside(size: Size, target: Size) -> Size:
    """The largest size of the same shape inside `target`."""
    scale = min(target[0] / size[0], target[1] / size[1])
    return max(1, math.floor(size[0] * scale + 0.5)), max(1, math.floor(size[1] * scale + 0.5))


def _aspect_note(size: Size, target: Size) -> str:
    """Whether the resize kept the aspect ratio, in words for the note; nothing for squares."""
    before, after = size[0] / size[1], target[0] / target[1]
    if before == after:
        return ""
    if abs(math.log(after / before)) < 0.1:
        return ", aspect ratio kept within rounding"
    return f", aspect ratio changed from {before:.3g} to {after:.3g} by rounding the sides"
