"""Figures: every picture whole and in its place, labels readable and apart, the difference honest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFont

from unsample.errors import BadOption
from unsample.media import figures
from unsample.media.figures import edit_figure, sheet, strip


def plain(colour: str | tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)


def noise(seed: int, size: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def find(canvas: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of a colour."""
    rows, columns = np.nonzero((np.asarray(canvas) == colour).all(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def ink(canvas: Image.Image) -> NDArray[np.bool_]:
    """Where dark grey text is, coloured panels aside."""
    pixels = np.asarray(canvas).astype(int)
    dark: NDArray[np.bool_] = (pixels.max(axis=2) < 150) & (np.ptp(pixels, axis=2) < 12)
    return dark


RED, GREEN, BLUE, GOLD = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 200, 0)


def test_every_picture_is_whole_enlarged_and_in_reading_order() -> None:
    canvas = sheet([plain(RED), plain(GREEN), plain(BLUE), plain(GOLD)], ["a", "b", "c", "d"], columns=2)
    boxes = [find(canvas, colour) for colour in (RED, GREEN, BLUE, GOLD)]
    assert [(right - left, bottom - top) for left, top, right, bottom in boxes] == [(192, 192)] * 4
    assert boxes[0][1] == boxes[1][1] < boxes[2][1] == boxes[3][1]
    assert boxes[0][0] == boxes[2][0] < boxes[1][0] == boxes[3][0]


def test_enlarging_repeats_pixels_and_invents_none() -> None:
    canvas = np.asarray(strip([noise(1)]))
    assert np.array_equal(canvas[::3, ::3], np.asarray(noise(1)))
    assert np.array_equal(canvas[1::3, 2::3], np.asarray(noise(1)))


def test_a_large_picture_is_not_scaled_and_a_scale_can_be_asked_for() -> None:
    assert strip([noise(1, 300)]).size == (300, 300)
    left, top, right, bottom = find(sheet([plain(RED, (10, 10))], ["a"], scale=5), RED)
    assert (right - left, bottom - top) == (50, 50)


def test_each_label_stands_under_its_picture_within_its_column() -> None:
    words = "a very long label that goes on and on about a circle " * 4
    canvas = sheet([plain(RED), plain(GREEN), plain(BLUE)], [words, "Mxg", "x" * 300])
    dark = ink(canvas)
    for colour in (RED, GREEN, BLUE):
        left, _, right, bottom = find(canvas, colour)
        assert dark[bottom + 3 :, left:right].any()
    outside = np.ones(canvas.width, dtype=bool)
    for colour in (RED, GREEN, BLUE):
        left, _, right, _ = find(canvas, colour)
        outside[left:right] = False
    assert not dark[:, outside].any()


def test_labels_do_not_touch_the_next_row_or_the_edge() -> None:
    long = "word " * 200
    canvas = sheet([plain(RED), plain(GREEN)], [long, long], columns=1)
    dark = ink(canvas)
    top_of_second = find(canvas, GREEN)[1]
    assert not dark[top_of_second - 6 : top_of_second - 1].any()
    assert not dark[-6:].any()


def test_lines_of_a_label_do_not_overlap() -> None:
    canvas = sheet([plain(RED)], ["(gj| " * 20])
    rows = ink(canvas)[find(canvas, RED)[3] + 2 :].any(axis=1)
    assert (np.diff(rows.astype(int)) == 1).sum() == 3  # three separate bands of ink


def test_a_long_label_is_wrapped_at_words_and_cut_with_an_ellipsis() -> None:
    font = ImageFont.load_default(14)
    lines = figures._wrapped("one two three four five six seven eight nine ten " * 9, font, 150)
    assert len(lines) == figures.MAX_LINES
    assert lines[-1].endswith("…")
    assert all(font.getlength(line) <= 150 for line in lines)
    assert " ".join(lines)[:-1] in "one two three four five six seven eight nine ten " * 9
    assert figures._wrapped("short", font, 150) == ["short"]
    assert figures._wrapped("  ", font, 150) == []


def test_letters_that_the_font_lacks_do_not_become_boxes() -> None:
    assert figures._drawable("Ägypten 中") == "Agypten ?"
    box = bytes(ImageFont.load_default(14).getmask("中"))
    assert bytes(ImageFont.load_default(14).getmask("…")) != box  # the one other letter that is drawn


def test_a_thin_picture_still_has_room_for_its_label() -> None:
    canvas = sheet([plain(RED, (2, 64))], ["difference (x2)"])
    assert figures._wrapped("difference (x2)", ImageFont.load_default(13), figures.NARROWEST) == ["difference (x2)"]
    assert canvas.width > figures.NARROWEST


def test_an_edit_has_four_panels_of_the_edits_size() -> None:
    canvas = edit_figure(plain(RED, (100, 80)), plain(GREEN), plain(BLUE))
    for colour in (RED, GREEN, BLUE):
        left, top, right, bottom = find(canvas, colour)
        assert (right - left, bottom - top) == (192, 192)
    assert find(canvas, RED)[0] < find(canvas, GREEN)[0] < find(canvas, BLUE)[0]
    assert find(canvas, figures._HEAT[-1])[0] > find(canvas, BLUE)[2]


@pytest.mark.parametrize(("level", "factor"), [(255, 1), (128, 1), (127, 2), (100, 2), (60, 4), (1, 128), (0, None)])
def test_the_difference_is_brightened_as_its_label_says_and_never_clipped(level: int, factor: int | None) -> None:
    before, after = plain((0, 0, 0)), plain((0, 0, 0))
    after.putpixel((5, 6), (0, level, 0))
    heat, found = figures.difference(before, after)
    assert found == factor
    colours = figures._ramp(figures._HEAT)
    assert heat.getpixel((5, 6)) == colours[level * (factor or 1)]
    assert heat.getpixel((0, 0)) == figures._HEAT[0]


def test_a_darker_edit_differs_as_much_as_a_brighter_one() -> None:
    a, b = noise(1), noise(2)
    assert figures.difference(a, b)[0].tobytes() == figures.difference(b, a)[0].tobytes()


def test_the_label_of_the_difference_states_its_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []

    def note(images: list[Image.Image], names: list[str], columns: int) -> Image.Image:
        labels.extend(names)
        return images[0]

    monkeypatch.setattr(figures, "sheet", note)
    edit_figure(plain((0, 0, 0)), plain(RED), plain((60, 0, 0)))
    edit_figure(plain(RED), plain(RED), plain(RED))
    assert labels[:4] == ["source", "reconstruction", "edit", "difference (x4)"]
    assert labels[4:] == ["source", "reconstruction", "edit", "difference (none)"]


def test_heat_grows_brighter_all_the_way() -> None:
    brightness = [sum(colour) for colour in figures._ramp(figures._HEAT)]
    assert brightness == sorted(brightness)
    assert len(brightness) == 256


def test_a_strip_has_its_frames_in_order_at_one_height() -> None:
    canvas = strip([plain(RED), plain(GREEN, (32, 32)), plain(BLUE, (128, 64))])
    boxes = [find(canvas, colour) for colour in (RED, GREEN, BLUE)]
    assert [bottom - top for _, top, _, bottom in boxes] == [canvas.height] * 3
    assert boxes[0][2] < boxes[1][0] < boxes[1][2] < boxes[2][0]
    assert boxes[2][2] == canvas.width


def test_pictures_of_other_modes_are_taken() -> None:
    images = [Image.new(mode, (16, 16)) for mode in ("L", "RGBA", "P", "1")]
    assert sheet(images, ["a", "b", "c", "d"]).mode == "RGB"
    assert strip(images).mode == "RGB"


def test_what_makes_no_figure_is_refused() -> None:
    calls: list[Callable[[], object]] = [
        lambda: sheet([], []),
        lambda: sheet([plain(RED)], []),
        lambda: sheet([plain(RED)], ["a"], columns=0),
        lambda: sheet([plain(RED)], ["a"], scale=0),
        lambda: strip([]),
    ]
    for call in calls:
        with pytest.raises(BadOption):
            call()


def test_figures_do_not_import_torch() -> None:
    code = "import unsample.media.figures, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
