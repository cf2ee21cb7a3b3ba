"""An editor of somebody's own beside the built-in ones: `unsample.edits.register`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from unsample.edits.base import Editor, EditorFacts
from unsample.methods.registering import check_facts, check_presets

Factory = TypeVar("Factory", bound=Callable[..., Editor])


@overload
def register(factory: Factory, *, summary: str, equation: str, cost: str, year: int, reference: str,
             presets: Mapping[str, Mapping[str, Any]] | None = ...,
             bibtex: str = ...) -> Factory: ...  # fmt: skip
@overload
def register(factory: None = ..., *, summary: str, equation: str, cost: str, year: int, reference: str,
             presets: Mapping[str, Mapping[str, Any]] | None = ...,
             bibtex: str = ...) -> Callable[[Factory], Factory]: ...  # fmt: skip
def register(
    factory: Any = None,
    *,
    summary: str,
    equation: str,
    cost: str,
    year: int,
    reference: str,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    bibtex: str = "",
) -> Any:
    """Put an editor into the table, as `unsample.methods.register` does with a method.

    Args:
        factory: under `configured`; its name is the editor's.
        summary: a line.
        equation: what makes it what it is.
        cost: of an edit beside its inversion, in network evaluations.
        year: of publication, or of now.
        reference: the paper, or "unpublished".
        presets: other settings, by name.
        bibtex: what `unsample cite` prints; default: the reference.

    Returns:
        The factory.

    Raises:
        BadOption: a name that is taken, a factory that is not under `configured`, a fact that is empty, or a preset
            that the factory refuses.
    """
    facts = {"summary": summary, "equation": equation, "cost": cost, "reference": reference}

    def registered(given: Factory) -> Factory:
        from unsample.edits import EDITORS

        check_facts("editor", given, Editor, facts, year)
        check_presets("editor", given, presets or {})
        EDITORS.add(given.__name__, EditorFacts(given, **facts, year=year, presets=presets or {}, bibtex=bibtex), given)
        return given

    return registered if factory is None else registered(factory)
