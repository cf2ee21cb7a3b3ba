"""A method of somebody's own beside the built-in ones: `unsample.methods.register`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from unsample.errors import BadOption, UnsampleError
from unsample.methods.base import Method, MethodFacts
from unsample.methods.settings import setting_defaults
from unsample.numeric import is_whole

Factory = TypeVar("Factory", bound=Callable[..., Method])


@overload
def register(factory: Factory, *, summary: str, equation: str, cost: str, year: int, reference: str, family: str = ...,
             quick: Mapping[str, Any] | None = ..., presets: Mapping[str, Mapping[str, Any]] | None = ...,
             bibtex: str = ...) -> Factory: ...  # fmt: skip
@overload
def register(factory: None = ..., *, summary: str, equation: str, cost: str, year: int, reference: str,
             family: str = ..., quick: Mapping[str, Any] | None = ...,
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
    family: str = "of its own",
    quick: Mapping[str, Any] | None = None,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    bibtex: str = "",
) -> Any:
    """Put a method into the table: verbs, command line, plans, reports and saved inversions then know it by its name.

    Called with the factory, or as a decorator above `configured`. The same factory may be registered again, as happens
    where a cell of a notebook is run twice; the later one counts.

    Args:
        factory: under `configured`; its name is the method's.
        summary: a line.
        equation: what makes it what it is.
        cost: of an inversion in network evaluations, in T, the number of steps.
        year: of publication, or of now.
        reference: the paper; `arXiv:2010.02502` is found in it by `unsample cite`. Or "unpublished".
        family: what it is kin to, such as "ODE, implicit". A "baseline" is no other method's base, and is held to less
            by `unsample.testing.check_method`.
        quick: settings for a look, of 10 s at most; they are also those of `check_method`.
        presets: other settings, by name.
        bibtex: what `unsample cite` prints.

    Returns:
        The factory.

    Raises:
        BadOption: a name that is taken, a factory that is not under `configured`, a fact that is empty, or a preset
            that the factory refuses.

    Example:
        >>> import unsample
        >>> from unsample.methods import Method, configured, register
        >>> def halfway() -> Method:
        ...     return unsample.methods.ddim()
        >>> facts = dict(summary="DDIM", equation="as ddim", cost="T", year=2026, reference="unpublished")
        >>> same = register(configured(halfway), **facts)
        >>> unsample.methods.get_method("halfway")
        halfway()
    """
    facts = {"summary": summary, "family": family, "equation": equation, "cost": cost, "reference": reference}

    def registered(given: Factory) -> Factory:
        from unsample.methods import METHODS

        row = MethodFacts(given, **facts, year=year, quick=quick or {}, presets=presets or {}, bibtex=bibtex)
        check_facts("method", given, Method, facts, year)
        check_presets("method", given, row.named_settings())
        METHODS.add(given.__name__, row, given)
        return given

    return registered if factory is None else registered(factory)


def check_facts(kind: str, factory: Any, made: type, facts: Mapping[str, str], year: int) -> None:
    """Whether a factory and what is said of it can stand in a table.

    Raises:
        BadOption: it says what is wrong.
    """
    name = getattr(factory, "__name__", None)
    if not callable(factory) or name is None:
        raise BadOption(f"register takes a function that makes a {kind}; got {factory!r}")
    for what, text in facts.items():
        if not isinstance(text, str) or not text.strip():
            raise BadOption(f"{kind} {name}: {what} must be said in words; got {text!r}")
    if not is_whole(year) or not 1900 <= year <= 2100:
        raise BadOption(f"{kind} {name}: year must be a whole number such as 2026; got {year!r}")
    found = factory()
    if not isinstance(found, made):
        raise BadOption(f"{kind} {name}: its factory must return a {made.__name__}; got {found!r}")
    if getattr(found, "name", None) != name:
        raise BadOption(f"{kind} {name}: put @configured above its factory, below @register")


def check_presets(kind: str, factory: Callable[..., Any], presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Whether a factory takes every preset.

    Raises:
        BadOption: one that it refuses.
    """
    name = factory.__name__
    for preset, values in presets.items():
        if strange := [key for key in values if key not in setting_defaults(factory)]:
            raise BadOption(f"{kind} {name}: preset {preset} has {strange[0]}, which is no setting of it")
        try:
            factory(**values)
        except UnsampleError as error:
            raise BadOption(f"{kind} {name}: preset {preset} is refused: {error}") from error
