"""The report as Markdown: the page's tables without its pictures. Others' text is escaped, also from inline HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence

from unsample.report import words
from unsample.report.about import MOST, About, Convention
from unsample.report.layout import Head, Sheet, Text, differences, sheets
from unsample.report.published import beside
from unsample.report.reading import READING
from unsample.report.table import Block

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def markdown(blocks: Sequence[Block], about: About) -> str:
    """The file's text."""
    parts = ["# Benchmark report", "", _safe(about.summary), *(f"\n> {_safe(c)}" for c in about.cautions)]
    parts += ["", *(f"- {_safe(sentence)}" for sentence in READING)]
    for block in blocks:
        parts += ["", f"## {_safe(block.title)}"]
        apart = differences(block)
        for sheet in [*sheets(block), *beside(block), *([apart] if apart else [])]:
            parts += ["", f"### {_safe(sheet.title)}", "", *_table(sheet), *(f"\n{_safe(n)}" for n in sheet.notes)]
    parts += ["", "## Failures and broken rows", *_failures(about)]
    parts += ["", "## Conventions", "", *map(_convention, about.conventions)]
    parts += ["", "## How it was made", "", *_fenced(about.command)]
    parts += [f"- {_safe(name)}: {_safe(value)}" for name, value in [*about.settings, *about.versions]]
    return "\n".join(parts) + "\n"


def _table(sheet: Sheet) -> list[str]:
    heads = ["method", *(_head(h) for h in sheet.heads)]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * len(sheet.heads)}"]
    for line in sheet.lines:
        marks = [*line.marks, *(["baseline"] if line.baseline else [])]
        label = _safe(line.label) + (f" ({_safe(', '.join(marks))})" if marks else "")
        lines.append(f"| {' | '.join([label, *map(_cell, line.cells)])} |")
    return lines


def _head(head: Head) -> str:
    return _safe(f"{head.text} ({', '.join(head.more)})" if head.more else head.text)


def _cell(text: Text) -> str:
    main = f"**{_safe(text.main)}**" if text.bold else _safe(text.main)
    return "; ".join([main, *map(_safe, text.more)])


def _failures(about: About) -> list[str]:
    failed = [f"- {_safe(f.item)}: {_safe(f.where)}: {_safe(f.error)} ({_safe(f.attempts)})" for f in about.failures]
    broken = [f"- {_safe(item)}, a broken row of the data set: {_safe(reason)}" for item, reason in about.broken]
    return ["", *(_first(failed) + _first(broken) or ["None."])]


def _first(lines: list[str]) -> list[str]:
    return lines if len(lines) <= MOST else [*lines[:MOST], f"- And {len(lines) - MOST} more."]


def _convention(c: Convention) -> str:
    text = ": ".join(filter(None, [c.better, c.text]))
    return (
        f"- `{words.line(c.metric).replace('`', '')}`, {_safe(c.title)}; {_safe(text)}. {_safe(c.reference)}".rstrip()
    )


def _fenced(command: str) -> list[str]:
    """A block that its own text cannot close."""
    longest = max((len(run) for run in re.findall(r"`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}\n{command}\n{fence}", ""] if command else []


def _safe(text: str) -> str:
    r"""One line in which Markdown, tables and HTML find nothing of theirs."""
    return _SPECIAL.sub(r"\\\1", words.line(text)).replace("\\<", "&lt;").replace("\\>", "&gt;")
