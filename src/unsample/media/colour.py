"""Colours to sRGB, which is what models and figures take: by Pillow's ImageCms, from what a picture says of its own.

That is an ICC profile, of any format; else in a PNG the chunks sRGB, gAMA and cHRM; else in EXIF the option of cameras
that is Adobe RGB. What says none of these, or a profile that is sRGB up to rounding, is taken as it is.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageCms

MAX_PROFILE = 8 * 2**20  # bytes; those of presses have about 3 MB
SAME = 2  # of 255: so near to itself every colour stays under a profile that is sRGB
_AS_SRGB = "taken as sRGB"
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # IEC 61966-2-1
_SRGB_POINTS = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # x and y of white, red, green, blue
_ADOBE_POINTS = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)  # Adobe RGB (1998), section 4.3.1
_ADOBE_GAMMA = 563 / 256
_USUAL_GAMMA = 1 / 2.2  # what gAMA says in nearly every PNG, of sRGB
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))  # ICC.1:2022, annex E
_D50 = (0.9642, 1.0, 0.8249)
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION


def to_srgb(image: Image.Image, info: Mapping[str, Any]) -> tuple[Image.Image, str | None]:
    """A decoded 8-bit picture with sRGB colours, and what was done, if anything.

    Args:
        image: of mode L, LA, RGB, RGBA or CMYK; alpha is kept.
        info: what Pillow found in the file, and "adobe_rgb" where EXIF says it.
    """
    if "icc_profile" in info:
        content = info["icc_profile"]
        if not isinstance(content, bytes) or not content:
            return image, f"its colour profile is damaged; colours are {_AS_SRGB}"
        if len(content) > MAX_PROFILE:
            size, limit = len(content) / 2**20, MAX_PROFILE // 2**20
            return image, f"its colour profile has {size:.0f} MB, the limit is {limit} MB; colours are {_AS_SRGB}"
        return _converted(image, content, None)
    if "srgb" in info:
        return image, None
    gamma, points = info.get("gamma"), info.get("chromaticity")
    if isinstance(gamma, float) or points:
        return _by_chunks(image, gamma, points)
    if info.get("adobe_rgb"):
        return _converted(image, _profile(_ADOBE_POINTS, (_ADOBE_GAMMA,)), "Adobe RGB (in its EXIF)")
    return image, None


def _by_chunks(image: Image.Image, gamma: Any, points: Any) -> tuple[Image.Image, str | None]:
    """By a PNG's gAMA and cHRM, either of which may be None."""
    if isinstance(gamma, float) and not 0.1 <= gamma <= 10:
        return image, f"its gAMA says {gamma:g}, which no screen has; colours are {_AS_SRGB}"
    usual = gamma is None or abs(gamma / _USUAL_GAMMA - 1) < 0.01
    if usual and (points is None or _near(points, _SRGB_POINTS)):
        return image, None
    name = " and ".join([*([] if usual else [f"gamma {gamma:g}"]), *(["the colours of its cHRM"] if points else [])])
    try:
        profile = _profile(points or _SRGB_POINTS, _SRGB_CURVE if usual else (1 / gamma,))
    except (ArithmeticError, ValueError, struct.error):  # numpy's LinAlgError is a ValueError
        return image, f"its cHRM names no colours of a screen; colours are {_AS_SRGB}"
    return _converted(image, profile, name)


def _converted(image: Image.Image, content: bytes, name: str | None) -> tuple[Image.Image, str | None]:
    """By a profile; one that cannot be used is said."""
    grey, alpha = image.mode in ("L", "LA"), image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        described = name or _words(ImageCms.getProfileDescription(profile))
        space = _words(profile.profile.xcolor_space)
        mode = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(space)
        if mode is None or (mode == "CMYK") is not (image.mode == "CMYK") or (mode == "L" and not grey):
            kind = "greyscale" if grey else image.mode
            return image, f"its colour profile {described!r} is of {space}, the picture {kind}; colours are {_AS_SRGB}"
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB", _INTENT, _FLAGS)
        if mode != "CMYK" and _changes_nothing(transform, mode):
            return image, None
        done = ImageCms.applyTransform(image.convert(mode), transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        return image, f"its colour profile cannot be used ({_words(str(error))}); colours are {_AS_SRGB}"
    assert done is not None  # it is None only of a transform in place
    if alpha is not None:
        done.putalpha(alpha)
    return done, f"converted from {described} to sRGB"


def _changes_nothing(transform: Any, mode: str) -> bool:
    """Whether a profile is sRGB: colours all over the cube, or all greys, stay as they are."""
    steps = range(256) if mode == "L" else range(0, 256, 15)
    colours = [(v,) for v in steps] if mode == "L" else [(r, g, b) for r in steps for g in steps for b in steps]
    probe = Image.frombytes(mode, (len(colours), 1), bytes(v for colour in colours for v in colour))
    done = ImageCms.applyTransform(probe, transform)
    assert done is not None
    return all(abs(a - b) <= SAME for a, b in zip(done.tobytes(), probe.convert("RGB").tobytes(), strict=True))


def _words(text: str) -> str:
    """A text of the file's as one short printable line."""
    plain = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return plain[:80] or "an unnamed profile"


def _near(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) == len(b) and all(abs(x - y) < 0.002 for x, y in zip(a, b, strict=True))


def _profile(points: Sequence[float], curve: Sequence[float]) -> bytes:
    """An ICC profile of a screen: x and y of white, red, green, blue, and the parameters of its curve.

    Reference:
        ICC.1:2022, sections 7.2, 8.3.3, 10.18 (parametricCurveType) and annex E (adaptation of white to D50).
    """
    import numpy as np

    white, *primaries = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(points[::2], points[1::2], strict=True))
    amounts = np.linalg.solve(np.stack(primaries, 1), white)
    cone = np.array(_BRADFORD)
    adapt = np.linalg.solve(cone, np.diag(cone @ _D50 / (cone @ white)) @ cone)
    columns = adapt @ (np.stack(primaries, 1) * amounts)

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(float(v) * 65536) for v in values))

    para = b"para" + bytes(4) + struct.pack(">HH", 0 if len(curve) == 1 else 3, 0) + fixed(*curve)
    xyz = [b"XYZ " + bytes(4) + fixed(*column) for column in (_D50, *columns.T)]
    named = dict(zip((b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ"), xyz, strict=True)) | dict.fromkeys(
        (b"rTRC", b"gTRC", b"bTRC"), para
    )
    at, table, content = 128 + 4 + 12 * len(named), b"", b""
    for tag, value in named.items():
        table += struct.pack(">4sII", tag, at + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(content), bytes(4), 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + fixed(*_D50)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(named)) + table + content
