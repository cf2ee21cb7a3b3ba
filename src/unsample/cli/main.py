"""The entry point: runs a verb and is the one place where an exception becomes a line, a JSON error and an exit code.

0 done; 1 unexpected; 2 options; 3 model or weights not found; 4 a file in or out; 5 diverged; 6 out of memory;
130 interrupted. Nothing is imported at the top that Ctrl-C could hit outside of `main`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typer.exceptions import TyperException

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    debug, as_json = "--debug" in options, "--json" in options
    try:
        from unsample.cli.talk import listening
        from unsample.wording import COMMAND_LINE, worded

        with worded(COMMAND_LINE), listening(everything=debug):
            return run(given)
    except BaseException as error:  # Ctrl-C and SystemExit too
        return _ended(error, given, debug, as_json)


def run(given: list[str]) -> int:
    """The same for a door that tells of errors itself: they are raised."""
    from unsample.cli.app import app

    result = app(given, prog_name="unsample", standalone_mode=False)
    if result == INTERRUPTED:  # what Typer makes of a KeyboardInterrupt
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


def _ended(error: BaseException, given: list[str], debug: bool, as_json: bool) -> int:
    if isinstance(error, BrokenPipeError) or (isinstance(error, SystemExit) and error.code in (None, 0, 1)):
        _close_stdout()  # the reader of a pipe went away (Typer makes that SystemExit(1)): nobody listens
        return 1 if isinstance(error, BrokenPipeError) else int(error.code or 0)
    from unsample.cli.talk import fail

    if debug:
        import traceback

        traceback.print_exception(error)
    code, message = explain(error, given)
    try:
        fail(code, message, as_json, getattr(error, "details", None))
        sys.stdout.flush()
    except OSError:  # stdout is what failed; stderr has it
        _close_stdout()
    return code


def explain(error: BaseException, given: Sequence[str] = ()) -> tuple[int, str]:
    """The exit code and the sentence for an exception; `given` are the arguments that led to it."""
    from typer.exceptions import TyperException

    from unsample.errors import UnsampleError, first_line, out_of_memory

    if isinstance(error, UnsampleError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted; the files that were written are whole"
    if isinstance(error, TyperException):
        return _usage(error, given)
    if out_of_memory(error):
        advice = "use --batch-size 1, a smaller picture, --dtype bfloat16 or --offload"
        return 6, f"out of memory ({first_line(error, 'no message')}); {advice}"
    if isinstance(error, OSError) and error.errno:
        return _system(error)
    reason = f"{type(error).__name__}: {first_line(error, 'no message')}"
    return 1, f"unexpected {reason}; run it again with --debug for the traceback, and please report it"


def _usage(error: TyperException, given: Sequence[str]) -> tuple[int, str]:
    """Typer's own: an unknown option, a missing argument, a value that is not a number."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "unsample"
    if hasattr(error, "option_name") and hasattr(error, "possibilities"):
        return 2, f"no such option: {error.option_name}{_near(error.option_name, context)}; see '{path} --help'"
    message = error.format_message().strip().rstrip(".")
    found = _values(getattr(getattr(error, "param", None), "opts", ()), given)
    return 2, f"{message[:1].lower()}{message[1:]}{f'; got {found[-1]!r}' if found else ''}; see '{path} --help'"


def _near(option: str, context: Any) -> str:
    """What an unknown option was meant to be."""
    from unsample.cli.spelling import meant

    found = meant(option, [name for param in context.command.params for name in param.opts] if context else [])
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _values(names: Sequence[str], given: Sequence[str]) -> list[str]:
    """What was given for an option; Typer's message does not repeat it."""
    from itertools import pairwise

    apart = [value for name, value in pairwise(given) if name in names]
    return apart + [g.partition("=")[2] for g in given if "=" in g and g.partition("=")[0] in names]


def _system(error: OSError) -> tuple[int, str]:
    """A full disk, a read-only file system, a missing permission."""
    import errno

    where = f" {error.filename!r}" if error.filename else ""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)
    if error.errno in codes:
        return 4, f"cannot read or write{where}: {error.strerror}; free some space, or choose another place"
    return 1, f"unexpected {type(error).__name__}{where}: {error.strerror or error}; run it again with --debug"


def _close_stdout() -> None:
    """Let nothing more be written, so that Python's exit does not complain about what is still in the buffer."""
    import contextlib
    import os

    with contextlib.suppress(OSError, ValueError):  # ValueError: not a real file, a test's capture
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
