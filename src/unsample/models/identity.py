"""What a function or an object is, as a hash that is the same in every process: of its source and all that it holds.

Covered: the function's own source (its syntax, not its layout or comments; its bytecode where there is no source, as in
a shell), defaults, what it closes over, the globals it names, the functions and classes of the user's among those, and
their tensors, arrays, numbers and networks. Not covered: the code of installed packages and of Python itself (taken by
name), modules (by name), what is looked up by `getattr` or read from files at the call. What cannot be read at all (a
function in C, an open file) is named in `Identity.unread`.
"""

from __future__ import annotations

import ast
import copyreg
import dis
import enum
import functools
import hashlib
import inspect
import linecache
import sys
import sysconfig
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis), PurePath, enum.Enum)


@dataclass(frozen=True)
class Identity:
    """`sha256` of all that could be read but the weights of `networks`; `unread` names what could not be read."""

    sha256: str
    networks: tuple[Any, ...] = ()  # in the order in which they were met
    unread: tuple[str, ...] = ()
    known: bool = True  # whether anything of the value itself could be read


def identity(value: Any) -> Identity:
    """What `value` is. The value is not called or changed."""
    reader = _Reader()
    sha256 = reader.of(value)
    return Identity(sha256, tuple(reader.networks), tuple(dict.fromkeys(reader.unread)), value is not reader.first_lost)


@dataclass
class _Reader:
    """One reading; what was met before is told by its number, so that circles end."""

    met: dict[int, int] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)  # alive while their ids are in use
    networks: list[Any] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    first_lost: Any = None

    def of(self, value: Any) -> str:
        if isinstance(value, PLAIN):
            return _sha(
                type(value).__qualname__, str(value) if isinstance(value, PurePath | enum.Enum) else repr(value)
            )
        if id(value) in self.met:
            return _sha("met", str(self.met[id(value)]))
        self.met[id(value)] = len(self.met)
        self.kept.append(value)
        if len(self.met) > 100_000:
            return self.lost(value)
        return self.known(value)

    def known(self, value: Any) -> str:
        """Of the kinds that are read by their content."""
        import numpy as np
        import torch

        if isinstance(value, torch.nn.Module):
            return self.of_network(value)
        if isinstance(value, torch.Tensor):
            from unsample.models.base import state_dict_sha256

            return _sha("tensor", str(value.dtype), state_dict_sha256({"": value}))
        if isinstance(value, np.ndarray | np.generic):
            array = np.ascontiguousarray(value)
            if array.dtype.hasobject:
                return _sha("array", str(array.shape), *map(self.of, array.ravel().tolist()))
            return _sha("array", array.dtype.str, str(array.shape), hashlib.sha256(array.tobytes()).hexdigest())
        if isinstance(value, torch.dtype | torch.device | np.dtype):
            return _sha("kind", str(value))
        if isinstance(value, list | tuple):
            return _sha("list", type(value).__qualname__, *map(self.of, value))
        if isinstance(value, set | frozenset):
            return _sha("set", *sorted(map(self.of, value)))
        if isinstance(value, dict):
            return _sha("dict", *sorted(_sha(self.of(k), self.of(v)) for k, v in value.items()))
        if isinstance(value, types.ModuleType):
            return _sha("module", value.__name__)
        return self.of_code(value)

    def of_network(self, module: Any) -> str:
        """Class and settings of every layer; the weights are for who asked, since they are read at every call."""
        self.networks.append(module)
        layers = []
        for name, layer in module.named_modules():
            own = {k: v for k, v in vars(layer).items() if k[0] != "_" and k != "training" and isinstance(v, PLAIN)}
            layers.append(_sha(name, self.of(type(layer)), self.of(own), getattr(layer, "code", "")))
        return _sha("network", *layers)

    def of_code(self, value: Any) -> str:
        """Of functions, classes, and objects by their class and what they hold."""
        inner = getattr(value, "_torchdynamo_orig_callable", None)
        if inner is not None:
            return self.of(inner)
        if isinstance(value, functools.partial):
            return _sha("partial", self.of(value.func), self.of(value.args), self.of(value.keywords))
        if isinstance(value, types.MethodType):
            return _sha("method", self.of(value.__func__), self.of(value.__self__))
        if isinstance(value, types.FunctionType):
            return self.of_function(value)
        if isinstance(value, type):
            return self.of_class(value)
        if isinstance(value, staticmethod | classmethod):
            return self.of(value.__func__)
        if isinstance(value, property):
            return _sha("property", *(self.of(f) for f in (value.fget, value.fset) if f))
        if isinstance(value, types.BuiltinFunctionType | types.WrapperDescriptorType | types.MethodDescriptorType):
            own = getattr(value, "__self__", None)
            if isinstance(own, types.ModuleType | type(None) | type):
                return _sha("builtin", _name(value))
            return _sha("builtin", _name(value), self.of(own))
        code = getattr(value, "code", None)  # torch.jit.script of a function
        if type(value).__module__.startswith("torch") and isinstance(code, str):
            return _sha("script", code)
        held = _held(value)
        return self.lost(value) if held is None else _sha("object", self.of(type(value)), self.of(held))

    def of_function(self, function: types.FunctionType) -> str:
        cells = []
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                cells.append(_sha(name, self.of(cell.cell_contents)))
            except ValueError:  # not filled yet
                cells.append(_sha(name))
        if _installed(function.__module__):
            return _sha("installed", _name(function), *cells)
        named = [
            _sha(name, self.of(function.__globals__[name]))
            for name in _globals(function.__code__)
            if name in function.__globals__
        ]
        more = self.of(function.__defaults__), self.of(function.__kwdefaults__)
        return _sha("function", _source(function) or _bytecode(function.__code__), *cells, *named, *more)

    def of_class(self, cls: type) -> str:
        """By name; a class of the user's by all that it and its parents hold."""
        parts = []
        for parent in cls.__mro__:
            if parent is object or _installed(parent.__module__):
                parts.append(_name(parent))
                continue
            own = {k: v for k, v in vars(parent).items() if k not in _NO_CONTENT}
            parts.append(_sha(*(_sha(k, self.of(v)) for k, v in sorted(own.items()))))
        return _sha("class", cls.__qualname__, *parts)

    def lost(self, value: Any) -> str:
        self.first_lost = value if self.first_lost is None else self.first_lost
        self.unread.append(getattr(value, "__qualname__", None) or f"an object of {_name(type(value))}")
        return _sha("unread", _name(type(value)))


_NO_CONTENT = frozenset(  # of a class: what Python writes there itself
    [
        *("__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__", "__static_attributes__", "__slots__"),
        *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__parameters__"),
        *("__conditional_annotations__", "__abstractmethods__", "_abc_impl", "__orig_bases__", "__match_args__"),
        *("__dataclass_fields__", "__dataclass_params__"),
    ]
)


def _sha(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', getattr(value, '__name__', '?'))}"


def _held(value: Any) -> Any:
    """What an object holds: its attributes, else what it would be pickled as; None where that cannot be."""
    slots = [n for c in type(value).__mro__ for n in _as_names(vars(c).get("__slots__", ()))]
    if (hasattr(value, "__dict__") or slots) and not any(map(_in_c, type(value).__mro__)):
        held = {n: getattr(value, n) for n in slots if n not in ("__dict__", "__weakref__") and hasattr(value, n)}
        return held | dict(getattr(value, "__dict__", {}))
    try:
        reduce = copyreg.dispatch_table.get(type(value))
        reduced = reduce(value) if reduce else value.__reduce_ex__(4)
    except Exception:  # pickling runs the object's own code
        return None
    return reduced if isinstance(reduced, str) else list(reduced[:3])


def _in_c(cls: type) -> bool:
    """Whether a class was not made by a class statement: its objects hold what Python does not see."""
    return cls is not object and not cls.__flags__ & 1 << 9  # Py_TPFLAGS_HEAPTYPE


def _as_names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


@functools.cache
def _package_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(str(Path(paths[n])) for n in ("stdlib", "platstdlib", "purelib", "platlib"))


@functools.cache
def _installed(module: str | None) -> bool:
    """Whether a module is Python's own or of an installed package (or ours)."""
    if module is None or module in sys.builtin_module_names or module.partition(".")[0] in ("torch", "unsample"):
        return module is not None
    found = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    if file is None:
        return module.partition(".")[0] in sys.stdlib_module_names and module != "__main__"
    return file.startswith(_package_folders()) or "site-packages" in Path(file).parts


def _globals(code: types.CodeType) -> list[str]:
    """The globals that a function names, those of functions within it too."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= set(_globals(constant))
    return sorted(names)


def _source(function: types.FunctionType) -> str | None:
    """The function's source without layout and comments; None where it cannot be read, or is not what runs."""
    code = function.__code__
    try:
        name = inspect.getsourcefile(function) or code.co_filename
        tree, codes = _parsed("".join(linecache.getlines(name, function.__globals__)), code.co_filename)
    except (TypeError, OSError, SyntaxError, ValueError, RecursionError):
        return None
    if code not in codes:  # the file has changed since it was imported
        return None
    nodes = [n for n in tree.get(code.co_firstlineno, ()) if getattr(n, "name", "<lambda>") == code.co_name]
    if len(nodes) > 1:  # lambdas of one line
        nodes = [n for n in nodes if isinstance(n, ast.Lambda) and _contains(n, code)]
    return ast.unparse(nodes[0]) if len(nodes) == 1 else None


@functools.lru_cache(maxsize=16)
def _parsed(text: str, name: str) -> tuple[dict[int, list[Any]], frozenset[types.CodeType]]:
    """Functions and lambdas by the line they start at, and every code object of a file."""
    tree = ast.parse(text)
    nodes: dict[int, list[Any]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            decorators = getattr(node, "decorator_list", [])
            nodes.setdefault(decorators[0].lineno if decorators else node.lineno, []).append(node)
    codes: list[types.CodeType] = [compile(text, name, "exec", dont_inherit=True)]
    for code in codes:
        codes.extend(c for c in code.co_consts if isinstance(c, types.CodeType))
    return nodes, frozenset(codes)


def _contains(node: Any, code: types.CodeType) -> bool:
    """Whether a lambda is the one that a code object came from."""
    begin, end = (node.body.lineno, node.body.col_offset), (node.body.end_lineno, node.body.end_col_offset)
    places = [p for p in code.co_positions() if None not in p and p[3] != p[2]]
    found = [((p[0], p[2]), (p[1], p[3])) for p in places]
    return bool(found) and min(a for a, _ in found) == begin and max(b for _, b in found) == end  # type: ignore[type-var]


def _bytecode(code: types.CodeType) -> str:
    """Where there is no source: what this version of Python runs."""
    constants = [_bytecode(c) if isinstance(c, types.CodeType) else repr(c) for c in _sorted_sets(code.co_consts)]
    names = [*code.co_names, "|", *code.co_varnames, "|", *code.co_freevars]
    return _sha(".".join(map(str, sys.version_info[:2])), code.co_code.hex(), *names, "|", *constants)


def _sorted_sets(constants: tuple[Any, ...]) -> Iterator[Any]:
    for constant in constants:
        yield sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant
