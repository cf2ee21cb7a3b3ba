"""What a study leaves in its folder: rows, verdicts, figure, page; each file in one step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.media.files import atomic_write
from unsample.studies.plotting import WITHOUT
from unsample.studies.running import StudyResult, write_rows
from unsample.studies.verdicts import WITHOUT_SCIPY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("figure.png", "figure.svg")
PAGE = "index.html"
DPI = 120


def write_study(found: StudyResult, folder: Path, in_site: bool = False) -> tuple[list[Path], list[str]]:
    """Write all files of a study; also says what could not be made, and what to install for it.

    Args:
        found: its result.
        folder: to write to.
        in_site: whether an index of studies lies in the folder above.

    Raises:
        BadInput: a file cannot be written.
    """
    from unsample.studies.page import study_page

    files, said = write_rows(found, folder), []
    pictures: dict[str, bytes] = {}
    try:
        figure = found.figure() if found.rows else None
        pictures = {} if figure is None else {name: drawn(figure, name.partition(".")[2]) for name in FIGURES}
    except ImportError:
        said.append(WITHOUT)
        for name in FIGURES:  # of an earlier run: it shows other rows
            with suppress(OSError):
                (folder / name).unlink(missing_ok=True)
    if not found.rows:
        said.append("no rows: no picture gave what is asked")
    if any(each.reason == WITHOUT_SCIPY for verdict in found.verdicts for each in verdict.found):
        said.append(f"no intervals: {WITHOUT_SCIPY}")
    for name, content in pictures.items():
        atomic_write(folder / name, _writing(content))
    text = study_page(found, pictures, said, in_site)
    atomic_write(folder / PAGE, _writing(text.encode("utf-8", "replace")))
    return [*files, *(folder / name for name in (*pictures, PAGE))], said


def drawn(figure: Figure, kind: str, dpi: int = DPI) -> bytes:
    """A figure as a file, the same bits from the same rows."""
    import matplotlib

    content = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "unsample"}):
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
        figure.savefig(content, format=kind, dpi=dpi, metadata=metadata)
    return content.getvalue()


def _writing(content: bytes) -> Callable[[Path], Any]:
    return lambda temporary: temporary.write_bytes(content)
