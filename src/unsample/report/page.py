"""The page: one HTML file that needs nothing else, no host and no script. Whatever comes from the run is escaped.

Its content security policy allows its own style and script, by their hashes, and pictures inside the page; so even a
text that got through unescaped could load or run nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from unsample.report import words
from unsample.report.about import MOST, About
from unsample.report.columns import STAGES, Column, leading
from unsample.report.gallery import Strip, by_editor, strips
from unsample.report.layout import Sheet, differences, sheets
from unsample.report.plot import NEEDED, Plot, plot
from unsample.report.published import beside
from unsample.report.reading import READING
from unsample.report.table import Block

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent


@dataclass(frozen=True)
class PagePart:
    """What the page shows of a model at a guidance."""

    id: str
    title: str
    sheets: Sequence[Sheet]
    differences: Sheet | None
    plots: Sequence[tuple[str, Plot]]
    strips: Sequence[Strip]
    by: str  # the column that picks the pictures
    editors: Sequence[Strip]  # edits of one item beside each other


def page(blocks: Sequence[Block], about: About, folder: Path) -> str:
    """The file's text.

    Args:
        blocks: the tables.
        about: what stands around them.
        folder: the run's, where its pictures lie.
    """
    from unsample import __version__

    style, script = (Markup((HERE / name).read_text("utf-8")) for name in ("page.css", "page.js"))
    templates = environment(HERE)
    templates.filters["breakable"] = _breakable
    return templates.get_template("page.html.jinja").render(
        about=about,
        parts=[_part(block, f"part-{k}", folder) for k, block in enumerate(blocks, 1)],
        reading=READING,
        policy=policy(style, script),
        style=style,
        script=script,
        version=__version__,
        count=words.count,
        most=MOST,
        needed=f"No figure: {NEEDED}.",
    )


def environment(folder: Path) -> Environment:
    """Of the templates of a folder: all that they put out is escaped, and without control characters."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        finalize=_seen,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _part(block: Block, name: str, folder: Path) -> PagePart:
    leaders = {stage: leading(block.columns, stage) for stage in ("edit", "noise", "recovered")}
    drawn = [(_called(c), plot(block, c)) for c in leaders.values() if c]
    by = next((c for c in leaders.values() if c), None)
    return PagePart(
        name,
        block.title,
        [*sheets(block), *beside(block)],
        differences(block),
        [(text, made) for text, made in drawn if made],
        strips(block, by, folder),
        _called(by) if by else "",
        by_editor(block, by, folder),
    )


def _seen(value: object) -> object:
    """Whatever the template puts out, before it is escaped: without control characters."""
    return words.plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _breakable(label: str) -> Markup:
    """A label that may be broken before its settings, `null_text[num_inner_steps=5]`."""
    return escape(words.line(label)).replace("[", Markup("<wbr>[")).replace(",", Markup(",<wbr>"))


def _called(column: Column) -> str:
    return f"{column.metric}, {STAGES.get(column.stage, column.stage).lower()}"


def policy(style: str, script: str = "") -> str:
    """The content security policy of a page with one style and at most one script of its own."""

    def allowed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    scripts = allowed(script) if script else "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src {allowed(style)}; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
