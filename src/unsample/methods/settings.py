"""The settings of methods: declared once, in the signature of the factory, with type, bounds and text.

`num_iters: Annotated[int, Setting("iterations a step.", low=1)] = 10` is what the factory checks, what `--set` parses
and what `unsample methods NAME` and `help()` show. Conditions between two settings stand in the factory.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from unsample.errors import BadInput, BadOption, UnknownName, shown, unknown_name
from unsample.methods.inner import INNER, Base, recorded
from unsample.numbers.solvers.start import Start
from unsample.numeric import is_real, is_whole

P = ParamSpec("P")
EIGHT_BIT: Literal["8bit"] = "8bit"
NOISE = float | Literal["8bit"]  # how far a picture is known: a std, or that it was rounded
NUMBERS = dict[str, float]  # words with numbers: reweight={"red": 3}
C = TypeVar("C")  # what a factory makes: a Method, an Editor


@dataclass(frozen=True)
class Setting:
    """What is said of a setting beside its type."""

    text: str
    low: float = 0  # of a number, itself allowed
    high: float = math.inf
    among: tuple[int, ...] = ()  # the whole numbers that are allowed, in place of bounds
    unit: float | None = None  # of words with numbers: that of a word written without one


@dataclass(frozen=True)
class Declared:
    """A setting of a factory."""

    name: str
    hint: Any  # its type
    default: Any
    setting: Setting

    @property
    def optional(self) -> bool:
        """Whether it may be None."""
        return self.hint != Base and type(None) in get_args(self.hint)

    @property
    def kind(self) -> Any:
        """Its type without None."""
        kinds = tuple(k for k in get_args(self.hint) if k is not type(None))
        return Union[kinds] if self.optional else self.hint  # noqa: UP007 - of a tuple

    @property
    def spelling(self) -> str:
        """Its type as one writes it."""
        if self.kind == Base:
            return "Base"
        if get_origin(self.kind) is Literal:
            words = " | ".join(get_args(self.kind))
        elif self.kind == NOISE:
            words = f"float | {EIGHT_BIT}"
        else:
            words = str(self.kind) if get_args(self.kind) else self.kind.__name__
        return words + " | None" * self.optional

    def check(self, method: str, value: object) -> None:
        """Refuse a value that is not of the type, or out of bounds.

        Raises:
            BadOption: it says what was expected.
        """
        if self.kind == Base or (value is None and self.optional):
            return
        expected = self._expected(value)
        if expected is not None:
            raise BadOption(f"{method}: {self.name} must be {expected}; got {value!r}")

    def _expected(self, value: Any) -> str | None:
        """What the value must be, where it is not."""
        low, high, among = self.setting.low, self.setting.high, self.setting.among
        if self.kind is bool:
            return None if isinstance(value, bool) else "true or false"
        if self.kind is int and among:
            return None if is_whole(value) and value in among else " or ".join(map(str, among))
        if self.kind is int:  # of 63 bits: torch's seeds
            return None if is_whole(value) and low <= value < 2**63 else f"a whole number of at least {low}"
        if self.kind is float:
            limits = f"from {low:g} to {high:g}" if high < math.inf else f"of at least {low:g}"
            fits = is_real(value) and low <= value <= min(high, sys.float_info.max)
            return None if fits else f"a finite number {limits}"
        if self.kind == NOISE:
            fits = value == EIGHT_BIT or (is_real(value) and 0 < value <= sys.float_info.max)
            return None if fits else f"a finite number above 0, or {EIGHT_BIT}"
        if self.kind == NUMBERS:
            fits = isinstance(value, dict) and bool(value) and all(isinstance(v, str) and v.strip() for v in value)
            numbers = "numbers" if low == -math.inf else f"numbers from {low:g} to {high:g}"
            each = fits and all(is_real(v) and math.isfinite(v) and low <= v <= high for v in value.values())
            return None if each else f"words with {numbers}, such as {{'red': 0.5}} (red=0.5,blue=1 as text)"
        if self.kind is str:
            return None if isinstance(value, str) and value.strip() else "a text that is not empty"
        if self.kind == list[str]:
            texts = list(value) if isinstance(value, list | tuple) else []
            fits = bool(texts) and all(isinstance(v, str) and v.strip() for v in texts)
            return None if fits else "a list of texts, none of them empty"
        words = get_args(self.kind)
        return None if value in words else f"one of {', '.join(words)}"


def configured(factory: Callable[P, C]) -> Callable[P, C]:
    """A factory whose settings are checked as its signature declares them, and stand in what it returns.

    That (a dataclass with `name` and `settings`) gets the factory's name, and its docstring the text of the settings.
    """
    signature, name = inspect.signature(factory), factory.__name__

    @functools.wraps(factory)
    def made(*args: P.args, **kwargs: P.kwargs) -> C:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        for declared in declarations(made):
            declared.check(name, given.arguments[declared.name])
        method = factory(*args, **kwargs)
        settings = {k: recorded(v, name) if k in INNER else v for k, v in given.arguments.items()}
        return replace(method, name=name, settings=settings)  # type: ignore[type-var]

    made.__doc__ = _described(made)
    plain = [signature.parameters[d.name].replace(annotation=d.hint) for d in declarations(made)]
    made.__signature__ = signature.replace(parameters=plain)  # type: ignore[attr-defined]
    return made


@functools.cache
def declarations(factory: Callable[..., Any]) -> tuple[Declared, ...]:
    """The settings of a factory, in order."""
    hints = get_type_hints(factory, include_extras=True)
    defaults = {name: p.default for name, p in inspect.signature(factory).parameters.items()}
    parts = {name: get_args(hints.get(name)) for name in defaults}  # of Annotated: the type, and what is said of it
    for name, said in parts.items():
        if len(said) != 2 or not isinstance(said[1], Setting) or defaults[name] is inspect.Parameter.empty:
            raise TypeError(
                f"{factory.__name__}: declare its setting {name} as `{name}: Annotated[TYPE, Setting('what it is.')] = "
                "DEFAULT`"
            )
    return tuple(Declared(name, hint, defaults[name], setting) for name, (hint, setting) in parts.items())


def setting_defaults(factory: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults of a method's settings."""
    return {d.name: d.default for d in declarations(factory)}


def with_settings(
    factory: Callable[..., Any], presets: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any] | None
) -> Any:
    """What a factory makes of settings; `preset` among them names a set that the others go over.

    Raises:
        UnknownName: no such setting or preset.
    """
    given = dict(settings or {})
    preset = given.pop("preset", None)
    if preset is not None:
        if preset not in presets:
            raise unknown_name(f"preset of {factory.__name__}", preset, presets)
        given = {**presets[preset], **given}
    for name in given:
        if name not in setting_defaults(factory):
            raise unknown_setting(factory, name)
    return factory(**given)


def unknown_setting(factory: Callable[..., Any], name: str) -> UnknownName:
    """The error for a setting that a method has not."""
    method, known = factory.__name__, setting_defaults(factory)
    if known:
        return unknown_name(f"setting of {method}", name, known)
    return UnknownName(f"unknown setting of {method} {shown(str(name))}; {method} has no settings")


def parse_setting(factory: Callable[..., Any], name: str, text: str) -> Any:
    """A setting written as text (`--set num_iters=5`) as the type that the factory declares.

    Raises:
        UnknownName: the method has no such setting.
        BadOption: the text is not of that type.
    """
    from pydantic import TypeAdapter, ValidationError

    known = {d.name: d for d in declarations(factory)}
    if name not in known:
        raise unknown_setting(factory, name)
    hint = str if known[name].hint == Base else known[name].hint
    try:
        if known[name].kind == list[str]:
            return _texts(text)
        if known[name].kind == NUMBERS and text.lower() not in ("none", "null"):
            return _numbers(text, known[name])
        if text.lower() not in ("none", "null"):
            return TypeAdapter(hint).validate_strings(text)
        if not known[name].optional:
            raise TypeError("not optional")
    except (ValidationError, TypeError) as error:
        if get_origin(known[name].kind) is Literal or known[name].kind == NOISE:
            known[name].check(factory.__name__, text)
        example, kind = known[name].default, getattr(hint, "__name__", str(hint))
        example = 5 if example is None else example
        raise BadOption(f"setting {name}={text!r} is not of type {kind}; for example {name}={example}") from error
    return None


def _numbers(text: str, declared: Declared) -> dict[str, float]:
    """Words with numbers as one writes them: `red=3,blue=0.5`; `red, -blue` where the setting has a unit.

    Raises:
        BadOption: a word without a number, or what is none.
    """
    found: dict[str, float] = {}
    for part in (part.strip() for part in text.split(",")):
        word, given, number = part.rpartition("=")
        sign = 1.0
        if not given and declared.setting.unit is not None:
            word, number, sign = part.removeprefix("-"), str(declared.setting.unit), -1.0 if part[:1] == "-" else 1.0
        try:
            found[word.strip()] = sign * float(number)
        except ValueError:
            found[""] = math.nan
        if not word.strip() or "" in found:
            raise BadOption(
                f"setting {declared.name}: {part!r} is no word with a number; for example {declared.name}=red=3,"
                "blue=0.5"
            )
    return found


def _texts(text: str) -> list[str]:
    """Texts as one writes them: apart by `;`, or `@FILE`, one a line.

    Raises:
        BadInput: a file that is not there, or that is no text.
    """
    if not text.startswith("@"):
        return [part.strip() for part in text.split(";")]
    try:
        lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{text[1:]} cannot be read as text, one a line: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _described(factory: Callable[..., Any]) -> str:
    """The docstring with what is declared: a section of the settings, and that others are refused."""
    written = inspect.cleandoc(factory.__doc__ or "")
    lines = [textwrap.fill(f"{d.name}: {d.setting.text}", 112, subsequent_indent="    ") for d in declarations(factory)]
    if not lines:
        return written
    settings = "Args:\n" + textwrap.indent("\n".join(lines), "    ")
    refused = "Raises:\n    BadOption: a setting out of its bounds.\n"
    if "Raises:\n" in written:
        return written.replace("Raises:\n", f"{settings}\n\n{refused}", 1)
    if not re.search(r"^(Reference|Example):", written, re.M):
        return f"{written}\n\n{settings}\n\n{refused}"
    return re.sub(r"^(?=(Reference|Example):)", lambda _: f"{settings}\n\n{refused}\n", written, count=1, flags=re.M)


# ---------------------------------------------------------------- what several methods declare alike

Tolerance = Annotated[
    float | None, Setting("a picture stops when its residual is at most tol * RMS(x_k); None runs all iterations.")
]
Started = Annotated[
    Start,
    Setting(
        "where the iteration of a step starts: at the point x_i itself (`source`), or at x_i carried along the eps of "
        "the step before (`previous`, as in `uni_inv`) or along what the eps of the last two steps lead to "
        "(`extrapolated`, as in `anderson`), for one network evaluation more in the first step."
    ),
]
KnownTo = Annotated[
    NOISE | None,
    Setting(
        "how far the picture is known: the std of its error on the model's own scale ([-1, 1] of a model on pixels), "
        "or `8bit`, that it was saved so. None takes it as exact."
    ),
]
NoiseAlone = Annotated[Base, Setting("the inversion, by a method that keeps the noise alone.")]
Checkpointing = Annotated[
    bool, Setting("less memory for one more forward pass an update (not counted); diffusers networks only.")
]
Optimizer = Annotated[
    Literal["adam", "sgd", "lbfgs"],
    Setting("`sgd` has no momentum, `lbfgs` 10 pairs and no line search; each picture has its own."),
]
Rate = Annotated[
    float | None,
    Setting("learning rate; None is 1e-3 for `adam`, 0.1 for `sgd` and 1 for `lbfgs`. The paper states none."),
]
