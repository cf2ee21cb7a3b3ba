"""Methods and editors of a plan as they are written: `name[key=value,...]`, or a table of TOML that says the same.

A row's label is that text without `guidance`, `steps`, `items` and `models` (of an editor without `guidance`, `mask`,
`sampling_guidance` and `methods`), which stand in columns of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption, shown, unknown_name
from unsample.experiment.setup import BASELINES, NO_MASK, PLAIN_EDIT
from unsample.numeric import is_real, is_text, is_whole

if TYPE_CHECKING:
    from unsample.bench.plan import Plan

SAME = "same"  # as an inversion guidance: that of sampling
CHOOSING = ("guidance", "steps", "items", "models")  # keys of a method that choose its cells and change none
OF_A_METHOD = (
    "quick",
    "inversion_guidance",
    "strength",
    *CHOOSING,
)  # keys of a plan that a method may have its own value of
SCALES = ("guidance", "sampling_guidance")
OF_AN_EDITOR = (*SCALES, "mask", "methods")  # keys of an editor in a plan that are none of its settings
_OWN = {"method": OF_A_METHOD, "editor": OF_AN_EDITOR}
_ENTRY = re.compile(r"(\w+)(?:\[(.*)\])?", re.DOTALL)
_EXAMPLES = {
    "method": "{name = 'edict', inversion_guidance = 3}",
    "editor": "{name = 'p2p', guidance = [3, 7.5], mask = 'auto'}",
}


@dataclass(frozen=True)
class Named:
    """A method of a plan: its label, and how `get_method` makes it."""

    label: str
    name: str
    settings: Mapping[str, Any]
    inversion_guidance: float
    baseline: bool = False
    same: bool = False  # it is inverted at the guidance of sampling, whichever that is
    unsaid: bool = False  # nobody said a guidance of inversion: it is the method's own
    guidance: tuple[float, ...] = ()  # of sampling
    steps: tuple[int, ...] = ()
    items: int | None = None  # the first so many of the data set; None: all
    models: tuple[str, ...] = ()  # of the plan's that it is tried on; none: all
    strength: float | None = None  # None: the method's own

    def at(self, guidance: float, guidable: bool = True) -> Named:
        """As it is in the cells of one guidance of sampling; where a model is not guidable, its own guidance is 1."""
        if self.same or (self.unsaid and not guidable):
            return replace(self, inversion_guidance=guidance if self.same else 1.0)
        return self

    def tried(self, model: str, steps: int, guidance: float) -> bool:
        """Whether it has cells on a model of the plan, with so many steps, at a guidance of sampling."""
        return steps in self.steps and guidance in self.guidance and (not self.models or model in self.models)


@dataclass(frozen=True)
class Edited:
    """An editor of a plan: its label, how `get_editor` makes it, and what it is tried with."""

    label: str = PLAIN_EDIT
    name: str = PLAIN_EDIT
    settings: Mapping[str, Any] = field(default_factory=dict)
    masks: tuple[str, ...] = (NO_MASK,)  # of MASKS
    guidance: tuple[float, ...] = ()  # of the edit; none: that of sampling
    methods: tuple[str, ...] = ()  # names or labels of the methods that it is tried with; none: all
    sampling: tuple[float, ...] = ()  # guidances of sampling that it is tried with; none: all


def methods_of(plan: Plan) -> list[Named]:
    """The methods of a plan in order, baselines last.

    Raises:
        UnknownName: no such method or setting. BadOption: a text that is no method, or a setting that cannot be.
    """
    found = [_named(text, plan) for text in plan.methods]
    if not plan.edit:
        return found
    guidance, steps = (tuple(dict.fromkeys(v for m in found for v in getattr(m, k))) for k in ("guidance", "steps"))
    inverted = plan.inversion_guidance if isinstance(plan.inversion_guidance, float) else 1.0
    edits = [name for name, stage in BASELINES.items() if stage == "edit"]
    return found + [Named(b, b, {}, inverted, baseline=True, guidance=guidance, steps=steps) for b in edits]


def _named(text: str, plan: Plan) -> Named:
    from unsample.methods import get_method, parse_settings

    name, parts, pairs = _parsed(text, "method")
    zero = BASELINES.get(name) == "recovered"
    if not zero:
        get_method(name)
    own = {pair[0]: _value(pair[0], pair[1], text) for pair in pairs if pair[0] in OF_A_METHOD}
    if own.get("quick") and any(pair[0] == "preset" for pair in pairs):
        raise BadOption(f"preset and quick = true of a method are two presets; give one of them: {shown(text)}")
    chosen: dict[str, Any] = {key: own.get(key, getattr(plan, key)) for key in ("guidance", "steps")}
    chosen |= {"items": own.get("items"), "models": own.get("models", ())}
    if zero:
        if others := {key for key, *_ in pairs} - {*CHOOSING}:
            raise unknown_name(f"key of {name}", min(others), CHOOSING)
        return Named(name, name, {}, 1.0, baseline=True, **chosen)
    quick = own.get("quick", plan.quick)
    given = [(key, value) for key, value in pairs if key not in OF_A_METHOD]
    settings = parse_settings(name, [("preset", "quick")] * quick + given)
    method = get_method(name, dict(settings))
    said = own.get("inversion_guidance", plan.inversion_guidance)
    inverted = 1.0 if said == SAME else method.inverts_at(said, guidable=True)
    label = _label(name, [part for part, pair in zip(parts, pairs, strict=True) if pair[0] not in CHOOSING])
    chosen |= {"strength": own.get("strength", plan.strength), "same": said == SAME, "unsaid": said is None}
    return Named(label, name, settings, inverted, **chosen)


def editors_of(plan: Plan) -> list[Edited]:
    """The editors of a plan in order; of one that does not edit, a prompt swap that is never asked for.

    Raises:
        UnknownName: no such editor, setting or mask. BadOption: a text that is no editor, or a setting that cannot be.
    """
    return [_edited(text, plan) for text in plan.editors]


def _edited(text: str, plan: Plan) -> Edited:
    from unsample.edits import get_editor, parse_settings
    from unsample.edits.choose import AUTO

    name, parts, pairs = _parsed(text, "editor")
    if name != AUTO:
        get_editor(name)
    own = {key: _listed(key, value, text) for key, value in pairs if key in OF_AN_EDITOR}
    given = [(key, _inner(value)) for key, value in pairs if key not in OF_AN_EDITOR]
    if name == AUTO and given:
        raise BadOption(f"editor {AUTO} chooses the settings too; leave {given[0][0]} out, or name an editor")
    settings = {} if name == AUTO else dict(get_editor(name, parse_settings(name, given)).settings)
    label = _label(name, [part for part, pair in zip(parts, pairs, strict=True) if pair[0] not in OF_AN_EDITOR])
    chosen = {"guidance": own.get("guidance", plan.edit_guidance), "masks": own.get("mask", plan.masks)}
    return Edited(
        label, name, settings, methods=own.get("methods", ()), sampling=own.get("sampling_guidance", ()), **chosen
    )


def _listed(key: str, text: str, entry: str) -> tuple[Any, ...]:
    """The values of one of `OF_AN_EDITOR` in brackets: `3`, `[1,3]`, `given`, `[ddim,null_text]`."""
    if key in SCALES:
        value = _value("guidance", text, entry)
        return tuple(value)
    words = _several(text)
    if key == "mask":
        from unsample.bench.plan import typed

        return tuple(typed("masks", words))
    if not words or len({*words}) < len(words):
        raise BadOption(f"methods in {shown(entry)} are different methods of the plan, at least one; got {shown(text)}")
    return words


def _several(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in split_outside(_inner(text), ",") if part.strip())


def _inner(text: str) -> str:
    """What stands in brackets: of a setting that holds commas, `reweight=[red=3,blue=0.5]`."""
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def _parsed(text: str, kind: str) -> tuple[str, list[str], list[tuple[str, str]]]:
    """Name, parts and settings of `NAME[key=value,...]`."""
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise BadOption(f"{_a(kind)} of a plan is NAME or NAME[key=value,...]; got {shown(text)}")
    parts = [part.strip() for part in split_outside(match[2] or "", ",") if part.strip()]
    pairs = [tuple(side.strip() for side in part.split("=", 1)) for part in parts]
    if any(len(pair) != 2 for pair in pairs):
        raise BadOption(f"settings in {shown(text)} are key=value, separated by commas")
    _check_once([pair[0] for pair in pairs], text)
    return match[1], parts, [(pair[0], pair[1]) for pair in pairs]


def _label(name: str, kept: Sequence[str]) -> str:
    return f"{name}[{','.join(kept)}]" if kept else name


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "editor" else f"a {kind}"


def _check_once(keys: Sequence[str], entry: str) -> None:
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise BadOption(f"{shown(twice[0])} stands twice in {shown(entry)}; give it once")


def _value(key: str, text: str, entry: str) -> Any:
    """The value of one of `OF_A_METHOD` in brackets: `3`, `[1,3]`, `true`, `same`, `[scenes-sd,scenes-ddpm]`."""
    if key == "models":
        return _own(key, _several(text))
    several = text[1:-1].split(",") if text.startswith("[") and text.endswith("]") else None
    try:
        values = [_scalar(part.strip()) for part in several or [text]]
    except ValueError as error:
        takes = "true or false" if key == "quick" else "a number"
        raise BadOption(f"{key} in {shown(entry)} must be {takes}; got {shown(text)}") from error
    return _own(key, values if several else values[0])


def _scalar(text: str) -> Any:
    if text in (SAME, "true", "false"):
        return text if text == SAME else text == "true"
    return int(text) if re.fullmatch(r"[+-]?[0-9]+", text) else float(text)


def _own(key: str, value: Any) -> Any:
    """The value of one of `OF_A_METHOD`, checked as the plan's own is."""
    from unsample.bench.plan import typed

    if key != "items":
        return typed(key, value)
    if not is_whole(value) or not 1 <= value < 2**31:
        raise BadOption(f"items of a method must be a whole number of at least 1; got {shown(value)}")
    return int(value)


def text_of(entry: Any, kind: str = "method") -> Any:
    """A method of a plan as text: `{name = "edict[p=0.9]", inversion_guidance = 3}` is `edict[p=0.9,inversion_...=3]`.

    Args:
        entry: a text, which stays as it is, or a table.
        kind: method, or editor.

    Raises:
        UnknownName: a key that it has not. BadOption: no name, or a value that cannot be.
    """
    if not isinstance(entry, Mapping):
        return entry.strip() if isinstance(entry, str) else entry
    keys = ("name", "settings", "preset", *_OWN[kind])
    for key in entry:
        if key not in keys:
            raise unknown_name(f"key of {_a(kind)}", key, keys)
    match = _ENTRY.fullmatch(entry["name"].strip() if is_text(entry.get("name")) else "")
    if match is None:
        raise BadOption(f"{_a(kind)} of a plan needs a name, such as {_EXAMPLES[kind]}; got {shown(entry)}")
    preset = {"preset": entry["preset"]} if "preset" in entry else {}
    settings = entry.get("settings", {})
    if not isinstance(settings, Mapping):
        raise BadOption(f"settings of {_a(kind)} are a table, such as {{num_iters = 5}}; got {shown(settings)}")
    inner = [match[2]] if match[2] else []
    if kind == "method":
        inner += [f"{key}={_text(key, value)}" for key, value in [*_flat(preset), *_flat(settings)]]
        inner += [f"{key}={_toml(_own(key, entry[key]))}" for key in OF_A_METHOD if key in entry]
    else:
        inner += [f"{key}={_editor_text(key, value)}" for key, value in (preset | dict(settings)).items()]
        inner += [f"{key}={_words(key, entry[key])}" for key in OF_AN_EDITOR if key in entry]
    return _label(match[1], inner)


def _words(key: str, value: Any) -> str:
    """The value of one of `OF_AN_EDITOR` as it is written in brackets."""
    if key in SCALES:
        return _toml(_own("guidance", value))
    words = value if isinstance(value, list | tuple) else [value]
    if not words or not all(map(is_text, words)):
        raise BadOption(f"{key} of an editor is a word, or a list of words; got {shown(value)}")
    return words[0] if len(words) == 1 and "," not in words[0] else f"[{','.join(words)}]"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Settings as `--set` writes them; those of a method inside another one have its key before them."""
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        if not isinstance(value, Mapping):
            found.append((f"{prefix}{key}", value))
            continue
        if not {*value} <= {"name", "settings"} or not isinstance(value.get("settings", {}), Mapping):
            raise BadOption(f"{prefix}{key} of a method is a name, or {{name = ..., settings = {{...}}}}")
        found += [(f"{prefix}{key}", value.get("name")), *_flat(value.get("settings", {}), f"{prefix}{key}.")]
    return found


def _text(key: str, value: Any) -> str:
    """A setting as `--set` takes it."""
    plain = is_text(value) and re.fullmatch(r"[^\[\](),=]+", value)
    if not (plain or is_real(value) or isinstance(value, bool)):
        raise BadOption(f"setting {shown(key)} of a method is a number, true, false or a word; got {shown(value)}")
    return str(value) if plain else _toml(value)


def _editor_text(key: str, value: Any) -> str:
    """A setting as `--editor-set` takes it, in brackets where it holds commas or brackets of its own."""
    if isinstance(value, Mapping) and all(is_text(w) and is_real(n) for w, n in value.items()):
        value = ",".join(f"{word}={_toml(float(number))}" for word, number in value.items())
    elif isinstance(value, list) and value and all(map(is_text, value)):
        value = "; ".join(value)
    if not is_text(value):
        return _text(key, value)
    return f"[{value}]" if re.search(r"[,\[\]()]", value) else str(value)


def _toml(value: Any) -> str:
    """A value as one writes it: 3, not 3.0."""
    if isinstance(value, tuple):
        return _toml(value[0]) if len(value) == 1 else f"[{','.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def split_outside(text: str, separator: str) -> list[str]:
    """Split at a separator that stands outside of brackets: `a,b[c,d]` gives `a` and `b[c,d]`."""
    parts, depth, begin = [], 0, 0
    for k, letter in enumerate(text):
        depth += (letter in "[(") - (letter in "])")
        if letter == separator and depth == 0:
            parts.append(text[begin:k])
            begin = k + 1
    return [*parts, text[begin:]]


def drifting(plan: Plan) -> dict[tuple[str, float], str]:
    """The methods of a plan, by label and guidance, whose reconstruction drifts for the guidance alone; what is said.

    It is what the verbs warn of (`playing.drift`).
    """
    found = {(m.label, w): drift_of(m.at(w), w) for m in methods_of(plan) for w in m.guidance}
    return {key: said for key, said in found.items() if said}


def drift_of(named: Named, guidance: float) -> str:
    """What is to be said of a method that is inverted at its own guidance and sampled at another; mostly nothing."""
    from unsample.methods import get_method
    from unsample.verbs.playing import drift

    if named.baseline:
        return ""
    method = get_method(named.name, dict(named.settings))
    scales = (guidance,)
    return drift(method, named.inversion_guidance, scales) if method.drifts(named.inversion_guidance, scales) else ""
