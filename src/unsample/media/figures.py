"""Figures to look at: labelled sheets, the four panels of an edit, strips of frames. Pillow only.

Small pictures are enlarged by a whole factor with hard pixel edges (nothing is invented between pixels), and a
difference is shown with the factor by which it was brightened in its label, so that two figures can be compared.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise

from PIL import Image, ImageChops, ImageDraw, ImageFont

from unsample.errors import BadOption

PANEL = 192  # about the side that small pictures are enlarged to
NARROWEST = 128  # column, so that a label has room under a thin picture
MAX_LINES = 3  # of a label

_SMOOTH = Image.Resampling.LANCZOS
_INK = (32, 34, 38)
_KEPT = (150, 152, 156)  # what a mask keeps fades to: seen on white pictures and on black ones
_EDGE = (205, 208, 213)
_HEAT = ((4, 4, 16), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))  # dark to bright

Pictures = Sequence[Image.Image]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def sheet(
    images: Sequence[Image.Image | None], labels: Sequence[str], columns: int | None = None, scale: int | None = None
) -> Image.Image:
    """Pictures in rows with a label under each, on white.

    Args:
        images: of any sizes and modes; at least one; None leaves its place empty.
        labels: one per picture; long ones are wrapped, then cut with an ellipsis; "" leaves the place empty.
        columns: pictures per row; by default one row up to five, then nearly a square.
        scale: whole factor of enlargement; by default pictures come to about 192 pixels a side, none is shrunk.

    Raises:
        BadOption: no pictures, not one label for each, or columns or scale under 1.
    """
    if not images or len(images) != len(labels):
        raise BadOption(f"a sheet needs pictures and one label for each; got {len(images)} and {len(labels)}")
    columns = min(len(images), _columns(len(images)) if columns is None else columns)
    if columns < 1:
        raise BadOption(f"a sheet needs at least one column; got {columns}")
    panels = _enlarged([image or Image.new("RGB", (1, 1)) for image in images], scale)
    width = max(NARROWEST, *(panel.width for panel in panels))
    height = max(panel.height for panel in panels)
    font = ImageFont.load_default(max(13, round(width / 14)))
    texts = [_wrapped(label, font, width) for label in labels]
    line = _line_height(font)
    gap = max(10, width // 16)
    rows = [range(start, min(start + columns, len(panels))) for start in range(0, len(panels), columns)]
    captions = [max(len(texts[n]) for n in row) * line for row in rows]
    total = gap + sum(height + (caption and caption + line // 3) + gap for caption in captions)
    canvas = Image.new("RGB", (gap + columns * (width + gap), total), "white")
    top = gap
    for row, caption in zip(rows, captions, strict=True):
        for column, n in enumerate(row):
            if images[n] is not None:
                _place(canvas, panels[n], (gap + column * (width + gap), top, width, height))
            _write(canvas, texts[n], font, (gap + column * (width + gap) + width / 2, top + height + line // 3))
        top += height + (caption and caption + line // 3) + gap
    return canvas


def edit_figure(
    source: Image.Image,
    reconstruction: Image.Image,
    *edits: Image.Image,
    labels: Sequence[str] = ("edit",),
    masks: Sequence[Image.Image | None] = (),
    maps: Sequence[Mapping[str, Image.Image]] = (),
) -> Image.Image:
    """Panels at the edit's size, a row an edit: source, reconstruction, mask, edit, difference, and maps of words.

    The mask stands where any edit has one: the source, faded to grey where it is kept. A map is drawn over the source.

    Args:
        source, reconstruction: of any size.
        edits: of one size; at least one.
        labels: one an edit.
        masks: one an edit, greyscale of any size, white where it is edited; or none at all.
        maps: one an edit, greyscale of any size, by their words; or none at all.
    """
    first = [image.convert("RGB") for image in (source, reconstruction)]
    first = [image if image.size == edits[0].size else image.resize(edits[0].size, _SMOOTH) for image in first]
    masked, most = any(mask is not None for mask in masks), max(map(len, maps), default=0)
    shown: list[tuple[Image.Image | None, str]] = []
    for k, (edit, label) in enumerate(zip(edits, labels, strict=True)):
        row: list[tuple[Image.Image | None, str]] = [(first[0], "source"), (first[1], "reconstruction")]
        if masked:
            own = masks[k]
            row.append((None, "") if own is None else (_faded(first[0], own), "mask"))
        heat, factor = difference(first[0], edit.convert("RGB"))
        row += [(edit, label), (heat, "difference (none)" if factor is None else f"difference (x{factor})")]
        row += [(_warm(first[0], image), f"attention: {word}") for word, image in (maps[k] if maps else {}).items()]
        shown += row + [(None, "")] * (4 + masked + most - len(row))
    return sheet([image for image, _ in shown], [label for _, label in shown], columns=4 + masked + most)


def _faded(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture where a mask is white, and faded to grey where it is black."""
    alpha = mask.convert("L").resize(picture.size, Image.Resampling.BILINEAR)
    grey = Image.new("RGB", picture.size, _KEPT)
    return Image.composite(picture, Image.blend(picture.convert("L").convert("RGB"), grey, 0.75), alpha)


def _warm(picture: Image.Image, values: Image.Image) -> Image.Image:
    """Values (greyscale) as heat over a picture in grey."""
    heat = _heat(values.convert("L").resize(picture.size, Image.Resampling.BILINEAR))
    return Image.blend(picture.convert("L").convert("RGB"), heat, 0.7)


def strip(images: Pictures) -> Image.Image:
    """Frames side by side, in order, at one height."""
    if not images:
        raise BadOption("a strip needs at least one picture; got none")
    tallest = max(image.height for image in images)
    frames = _enlarged([_at_height(image.convert("RGB"), tallest) for image in images], None)
    gap = max(2, frames[0].width // 48)
    canvas = Image.new("RGB", (sum(frame.width + gap for frame in frames) - gap, frames[0].height), "white")
    left = 0
    for frame in frames:
        canvas.paste(frame, (left, 0))
        left += frame.width + gap
    return canvas


def noise_picture(noise: Sequence[Sequence[Sequence[float]]], size: tuple[int, int]) -> Image.Image:
    """Recovered noise to look at: -3 to 3 as black to white, the first three channels as red, green and blue.

    Args:
        noise: (C, H, W), anything that numpy takes.
        size: width and height to show it at, by nearest neighbour.
    """
    import numpy as np

    values = np.asarray(noise, dtype=np.float64)
    channels = values[:3] if len(values) >= 3 else values[:1].repeat(3, axis=0)
    shown = ((np.nan_to_num(channels).clip(-3, 3) + 3) / 6 * 255).round().astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(shown).resize(size, Image.Resampling.NEAREST)


def _columns(count: int) -> int:
    return count if count <= 5 else math.ceil(math.sqrt(count))


def _enlarged(images: Pictures, scale: int | None) -> list[Image.Image]:
    """All by the same whole factor, so that their sizes still compare."""
    largest = max(max(image.size) for image in images)
    factor = max(1, round(PANEL / largest)) if scale is None else scale
    if factor < 1:
        raise BadOption(f"scale must be a whole number of at least 1; got {scale}")
    rgb = [image.convert("RGB") for image in images]
    return [image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST) for image in rgb]


def _at_height(image: Image.Image, height: int) -> Image.Image:
    if image.height == height:
        return image
    return image.resize((max(1, round(image.width * height / image.height)), height), _SMOOTH)


def difference(before: Image.Image, after: Image.Image, factor: int | None = None) -> tuple[Image.Image, int | None]:
    """The largest absolute difference of the channels as heat, and the factor that it was brightened by.

    Args:
        before, after: RGB, of one size.
        factor: default: the power of two that just does not clip it; None comes back where nothing differs.
    """
    red, green, blue = ImageChops.difference(before, after).split()
    grey = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    largest = int(grey.getextrema()[1])  # type: ignore[arg-type]
    if factor is None and largest:
        factor = 2 ** int(math.log2(255 / largest))
    return _heat(grey.point([min(255, level * (factor or 1)) for level in range(256)])), factor


def _heat(grey: Image.Image) -> Image.Image:
    """Greyscale in the colours of heat."""
    heat = grey.copy()
    heat.putpalette([value for colour in _ramp(_HEAT) for value in colour])
    return heat.convert("RGB")


def _ramp(stops: Sequence[tuple[int, int, int]]) -> list[tuple[int, ...]]:
    """256 colours along the stops; the first and the last are exact."""
    colours = []
    for level in range(256):
        place = level / 255 * (len(stops) - 1)
        low, high = list(pairwise(stops))[min(int(place), len(stops) - 2)]
        part = place - min(int(place), len(stops) - 2)
        colours.append(tuple(round(a + (b - a) * part) for a, b in zip(low, high, strict=True)))
    return colours


def _wrapped(label: str, font: Font, width: int) -> list[str]:
    """The label in lines no wider than `width`, at most MAX_LINES; a word too long for a line is broken."""
    lines: list[str] = []
    rest = " ".join(_drawable(label).split())
    while rest:
        if len(lines) == MAX_LINES - 1 and font.getlength(rest) > width:
            return [*lines, rest[: _fitting(rest, font, width - font.getlength("…"))].rstrip() + "…"]
        count = _fitting(rest, font, width)
        space = rest.rfind(" ", 0, count + 1) if count < len(rest) else -1
        lines.append(rest[: space if space > 0 else count])
        rest = rest[len(lines[-1]) :].lstrip()
    return lines


def _drawable(label: str) -> str:
    """The label in ASCII, all that Pillow's built-in font has: accents are dropped, other letters become "?"."""
    letters = [letter for letter in unicodedata.normalize("NFKD", label) if not unicodedata.combining(letter)]
    return "".join(letter if letter.isascii() else "?" for letter in letters)


def _fitting(text: str, font: Font, width: float) -> int:
    """How many characters from the start fit; at least one."""
    count = 1
    while count < len(text) and font.getlength(text[: count + 1]) <= width:
        count += 1
    return count


def _line_height(font: Font) -> int:
    box = font.getbbox("(gj|")
    return math.ceil((box[3] - min(0, box[1])) * 1.15)


def _place(canvas: Image.Image, panel: Image.Image, cell: tuple[int, int, int, int]) -> None:
    """Centre the panel in its cell (left, top, width, height), with a hairline so that white pictures have an edge."""
    left, top = cell[0] + (cell[2] - panel.width) // 2, cell[1] + (cell[3] - panel.height) // 2
    outline = (left - 1, top - 1, left + panel.width, top + panel.height)
    ImageDraw.Draw(canvas).rectangle(outline, outline=_EDGE)
    canvas.paste(panel, (left, top))


def _write(canvas: Image.Image, lines: Sequence[str], font: Font, place: tuple[float, float]) -> None:
    """Lines centred under each other, the first with its top at `place` (x of the middle, y)."""
    draw = ImageDraw.Draw(canvas)
    for number, text in enumerate(lines):
        left = place[0] - font.getlength(text) / 2
        draw.text((round(left), place[1] + number * _line_height(font)), text, font=font, fill=_INK)
