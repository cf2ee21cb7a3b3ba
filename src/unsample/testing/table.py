"""What holds of every row of the tables of methods and editors: its facts, its settings and its presets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_origin

from unsample.edits import EDITORS, get_editor
from unsample.errors import BadOption, UnknownName
from unsample.methods import METHODS, declarations, get_method, parse_setting, setting_defaults
from unsample.testing.words import must, must_refuse

QUOTED = (int, float, bool)  # settings of a type that not every text is of


@dataclass(frozen=True)
class Named:
    """A row by its name: of a "method", or of an "editor"."""

    kind: str
    name: str

    @property
    def facts(self) -> Any:
        """What the table says."""
        return (METHODS if self.kind == "method" else EDITORS)[self.name]

    @property
    def factory(self) -> Callable[..., Any]:
        """What makes it."""
        return self.facts.factory

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """By name."""
        return self.facts.named_settings() if self.kind == "method" else self.facts.presets

    def get(self, settings: dict[str, Any] | None = None) -> Any:
        """Configured by the table."""
        return (get_method if self.kind == "method" else get_editor)(self.name, settings)  # type: ignore[operator]


def its_facts_are_stated(row: Named) -> None:
    """Summary, equation, cost, reference and year are said."""
    for what in ("summary", "equation", "cost", "reference"):
        must(str(getattr(row.facts, what)).strip(), f"{what} must be said in words")
    must(1900 <= row.facts.year <= 2100, f"year must be such as 2026; it is {row.facts.year!r}")


def its_factory_is_configured_and_documented(row: Named) -> None:
    """The factory makes what is named after it, with the settings that it declares, each said in its docstring."""
    made, defaults = row.factory(), setting_defaults(row.factory)
    must(made.name == row.name, f"the factory makes {made.name!r}; put @configured above it, under the row's name")
    must(dict(made.settings) == defaults, f"its settings are {dict(made.settings)}, and the defaults {defaults}")
    described = inspect.getdoc(row.factory) or ""
    must(described.strip(), "the factory needs a docstring")
    for declared in declarations(row.factory):
        must(f"{declared.name}:" in described, f"setting {declared.name} is not in the docstring")
        text = declared.setting.text.strip()
        must(text.endswith("."), f"what is said of setting {declared.name} must be a sentence; it is {text!r}")


def its_settings_can_be_written_as_text(row: Named) -> None:
    """`--set NAME=VALUE` gives what the signature declares; another name is refused."""
    factory, known = row.factory, setting_defaults(row.factory)
    for declared in declarations(factory):
        name, default = declared.name, declared.default
        if not _closed(declared.kind):
            continue
        found = parse_setting(factory, name, str(default))
        must(found == default, f"--set {name}={default} gives {found!r}, and the default is {default!r}")
        wrong = f"--set {name}=-7.5e"
        must_refuse(BadOption, "", wrong, lambda n=name: factory(**{n: parse_setting(factory, n, "-7.5e")}))
    pattern = "known:" if known else "unknown"
    must_refuse(UnknownName, pattern, "a setting that it has not", parse_setting, factory, "num_itres", "5")
    must_refuse(UnknownName, f"setting of {row.name}", "a setting that it has not", row.get, {"num_itres": 5})


def its_settings_are_refused_where_they_are_not_as_declared(row: Named) -> None:
    """A value of another type, or out of its bounds, is refused by the setting's name."""
    for declared in declarations(row.factory):
        if not _closed(declared.kind) or declared.spelling == "Base":
            continue
        wrong: list[Any] = [object(), [], *([] if declared.optional else [None])]
        if declared.kind in (int, float):
            bounds = declared.setting.among or (declared.setting.low, declared.setting.high)
            wrong += [True, "5", min(bounds) - 1, max(bounds) + 1]  # above no bound: infinity
        for value in wrong:
            pattern = f"^{row.name}: {declared.name} must be "
            must_refuse(BadOption, pattern, f"{declared.name}={value!r}", row.factory, **{declared.name: value})


def its_presets_are_settings_of_it(row: Named) -> None:
    """Every preset can be had and says what it sets; another name is refused."""
    for preset, values in row.presets.items():
        made = row.get({"preset": preset})
        must(made.name == row.name, f"preset {preset} makes {made.name!r}")
        found = {k: made.settings.get(k) for k in values}
        must(found == dict(values), f"preset {preset} sets {found}, and says {dict(values)}")
    must_refuse(UnknownName, f"preset of {row.name}", "a preset that it has not", row.get, {"preset": "quikc"})


def _closed(kind: Any) -> bool:
    """Whether there are texts and values that are not of a setting's type."""
    from unsample.methods import Base

    return kind in QUOTED or kind == Base or get_origin(kind) is Literal


CHECKS = (
    its_facts_are_stated,
    its_factory_is_configured_and_documented,
    its_settings_can_be_written_as_text,
    its_settings_are_refused_where_they_are_not_as_declared,
    its_presets_are_settings_of_it,
)
