"""Tables that hold what is built in and, beside it, what others register: from a script, or from a package.

A package names its rows in entry points (`[project.entry-points."unsample.methods"]`); a script or a module is named by
`$UNSAMPLE_PLUGINS` or `unsample --plugin`. Both are imported when a name is asked for that is not known, or when the
table is listed, and register themselves (`unsample.methods.register`) as they are. A built-in row costs no such look.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unsample.errors import BadOption, UnknownName, UnsampleError, UnsampleWarning, first_line, unknown_name

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Row = TypeVar("Row")

VARIABLE = "UNSAMPLE_PLUGINS"
ABSENT = "others come with a package (install it) or a script (--plugin FILE, or $UNSAMPLE_PLUGINS)"


class Table(Mapping[str, Row]):
    """Built-in rows, and those that were registered.

    Args:
        kind: what a row is, in a word: "method".
        group: of the entry points that are looked through: "unsample.methods".
        built_in: the literal table; none of its rows can be replaced.
        reserved: names that mean something else where such a name is given.
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, Row], reserved: tuple[str, ...] = ()) -> None:
        self.kind, self.group, self.built_in, self.reserved = kind, group, built_in, reserved
        self.registered: dict[str, Row] = {}
        self.packages: dict[str, str] = {}  # of those that came by an entry point: "my-package 0.3"
        self._makers: dict[str, Callable[..., Any]] = {}
        self._loading: set[str] = set()
        self._listed: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Row:
        """The row of a name.

        Raises:
            KeyError: there is none. BadOption: a package or a script has it, and cannot be imported.
        """
        if name in self.built_in:
            return self.built_in[name]
        if name not in self.registered:
            load_plugins()
            self._load(name)
        return self.registered[name]

    def __iter__(self) -> Iterator[str]:
        """All names, the built-in ones first; what cannot be imported is warned of and left out."""
        self._load_all()
        yield from [*self.built_in, *self.registered]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def unknown(self, name: object) -> UnknownName:
        """The error for a name that is not there."""
        error = unknown_name(self.kind, name, self)
        return UnknownName(f"{error}; {ABSENT}")

    def add(self, name: str, row: Row, maker: Callable[..., Any]) -> None:
        """Take in a row; one that the same function made before is replaced.

        Args:
            name: letters, digits and underscores, as a function's.
            row: what the table says of it.
            maker: the function that it stands for.

        Raises:
            BadOption: no such name, a built-in one, or one that another function has.
        """
        if not isinstance(name, str) or not name.isidentifier():
            raise BadOption(f"names of {self.kind}s are those of functions, of letters, digits and _; got {name!r}")
        if name in self.built_in or name in self.reserved:
            raise BadOption(f"the {self.kind} {name} is built in and stays; give yours another name")
        if name in self.registered and not _same(self._makers[name], maker):
            raise BadOption(
                f"the {self.kind} {name} is registered already, by {_place(self._makers[name])}; {_place(maker)} needs "
                "another name"
            )
        self.registered[name], self._makers[name] = row, maker

    def origin(self, name: str) -> str:
        """Where a row comes from: "my-package 0.3", or the module that registered it; "" for a built-in one."""
        return "" if name in self.built_in else self.packages.get(name, self._makers[name].__module__)

    def _points(self) -> dict[str, list[EntryPoint]]:
        """The entry points of the group, by name."""
        from importlib.metadata import entry_points

        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            found.setdefault(point.name, []).append(point)
        return found

    def _load(self, name: str) -> None:
        """Import the package that has a name, if there is one."""
        points = self._points().get(name, []) if isinstance(name, str) else []
        if not points or name in self._loading:
            return
        packages = [f"{p.dist.name} {p.dist.version}" if p.dist else p.value for p in points]
        if len(points) > 1:
            raise BadOption(f"the {self.kind} {name} is in {' and in '.join(packages)}; uninstall one of them")
        whose = f"the {self.kind} {name} of {packages[0]} ({points[0].value})"
        self._loading.add(name)
        try:
            points[0].load()
        except (Exception, SystemExit) as error:
            raise BadOption(
                f"{whose} cannot be imported: {_reason(error)}; mend the package or uninstall it"
            ) from error
        finally:
            self._loading.discard(name)
        if name not in self.registered:
            raise BadOption(f"{whose} is not registered by its module, which should call {self.group}.register")
        self.packages[name] = packages[0]

    def _load_all(self) -> None:
        """Import what was not imported yet, and warn of what cannot be."""
        if self._listed == (now := tuple(sys.path)):
            return
        self._listed = now
        tries: list[Callable[[], None]] = [load_plugins]
        for name in self._points():
            if name in self.built_in:
                warnings.warn(_Warning(f"a package brings {self.kind} {name}; the built-in one stays"), stacklevel=2)
            elif name not in self.registered:
                tries.append(lambda name=name: self._load(name))  # type: ignore[misc]
        for load in tries:
            try:
                load()
            except UnsampleError as error:
                warnings.warn(_Warning(f"{error}; it is left out"), stacklevel=2)


def load_plugins(named: str | None = None) -> None:
    """Import the scripts and modules that `$UNSAMPLE_PLUGINS` names, each once.

    Args:
        named: in place of the variable: files or modules, with `os.pathsep` between them.

    Raises:
        BadOption: one that is not there, or that fails.
    """
    for name in filter(None, (os.environ.get(VARIABLE, "") if named is None else named).split(os.pathsep)):
        if name in _LOADED:
            continue
        _LOADED.add(name)
        try:
            _import(name)
        except (Exception, SystemExit) as error:
            _LOADED.discard(name)
            raise BadOption(f"the plugin {name} cannot be imported: {_reason(error)}") from error


def use_plugins(names: Sequence[str]) -> None:
    """Import scripts or modules now, and name them in `$UNSAMPLE_PLUGINS` for the processes that this one starts.

    Raises:
        BadOption: one that is not there, or that fails.
    """
    given = [str(Path(name).absolute()) if name.endswith(".py") else name for name in names]
    before = [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    load_plugins(os.pathsep.join(given))
    os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys([*before, *given]))


_LOADED: set[str] = set()


def _import(name: str) -> None:
    """Import a file by its path, or a module by its name."""
    if not name.endswith(".py"):
        import_module(name)
        return
    path = Path(name).resolve(strict=True)
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main is not None and Path(main).resolve() == path:
        return  # it is what runs
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.setdefault(path.stem, module)  # dataclasses and pickles look for it there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if before is module:
            del sys.modules[path.stem]
        raise


class _Warning(UnsampleWarning):
    def __init__(self, text: str) -> None:
        super().__init__("plugin", text)


def _reason(error: BaseException) -> str:
    text = first_line(error, "no message")
    return text if isinstance(error, UnsampleError) else f"{type(error).__name__}: {text}"


def _same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether two functions are one, perhaps read again: a cell of a notebook, a script and its import."""
    a, b = inspect.unwrap(one), inspect.unwrap(other)
    if a.__qualname__ != b.__qualname__:
        return False
    files = [getattr(getattr(f, "__code__", None), "co_filename", None) for f in (a, b)]
    return a.__module__ == b.__module__ or (files[0] is not None and files[0] == files[1])


def _place(maker: Callable[..., Any]) -> str:
    return f"{maker.__module__}.{maker.__qualname__}"
