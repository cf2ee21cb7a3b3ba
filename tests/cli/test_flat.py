"""Groups of options as dataclasses: a verb offers their fields one by one, but those that it leaves out or renames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer

from unsample.cli.flat import But, flat
from unsample.cli.options import opt


@dataclass(frozen=True)
class Size:
    width: Annotated[int, opt("Sizes", "N", "Across.")] = 4
    height: Annotated[int, opt("Sizes", "N", "Down.")] = 3


def verb(*, name: Annotated[str, opt("Names", "TEXT", "Whose.")] = "a", size: Size) -> int:
    """Words."""
    seen.append((name, size))
    return 0


def narrow(*, size: Annotated[Size, But(leave=("height",), rename={"width": "breadth"})]) -> int:
    seen.append(("", size))
    return 0


seen: list[Any] = []


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (verb, [], ("a", Size())),
        (verb, ["--height", "9", "--name", "b"], ("b", Size(4, 9))),
        (narrow, ["--breadth", "7"], ("", Size(7, 3))),
    ],
)
def test_the_fields_of_a_group_are_options(function: Any, arguments: list[str], expected: Any) -> None:
    app = typer.Typer(add_completion=False)
    app.command()(flat(function))
    seen.clear()
    app(arguments, standalone_mode=False)
    assert seen == [expected]


def test_what_a_verb_leaves_out_is_no_option() -> None:
    app = typer.Typer(add_completion=False)
    app.command()(flat(narrow))
    command = typer.main.get_command(app)
    assert [p.opts for p in command.params if p.name != "help"] == [["--breadth"]]
