"""`unsample serve`: the page in a browser, on this machine."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import tempfile
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsample.cli import checks, options, talk
from unsample.cli.flat import command
from unsample.cli.options import MODEL, OUTPUT, Placement, opt
from unsample.errors import BadInput, BadOption

if TYPE_CHECKING:
    from unsample.web.guard import Hosts

SERVER = "Server"
HERE = "127.0.0.1"
OWN = frozenset((HERE, "localhost", "::1"))
NEEDED = ("fastapi", "uvicorn")
VARIABLE = "UNSAMPLE_TOKEN"
SHORTEST = 16  # letters of a token
WAIT = 2  # seconds that open answers are given when the server ends
CONNECTIONS = 256


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    command(
        app,
        serve,
        "unsample serve",
        "unsample serve --model ./my-model --reports runs -o session",
    )


def serve(
    *,
    model: Annotated[
        list[str] | None,
        opt(
            MODEL, "NAME", "A model to offer beside the bundled ones; may be repeated.", "--model", "-m", default=False
        ),
    ] = None,
    place: Placement,
    host: Annotated[
        str, opt(SERVER, "ADDRESS", "Where to listen; another than this machine's own needs a token.")
    ] = HERE,
    port: Annotated[int, opt(SERVER, "N", "0 takes a free one.")] = 7860,
    token: Annotated[
        str | None,
        opt(
            SERVER,
            "TEXT",
            "What everybody has to know who asks, at least 16 letters; better in $UNSAMPLE_TOKEN, where other users "
            "of the machine do not see it.",
            default="$UNSAMPLE_TOKEN, if it is set",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        opt(SERVER, "NAME", "Another name that the server is asked under; may be repeated.", default=False),
    ] = None,
    reports: Annotated[
        str | None,
        opt(SERVER, "DIR", "Folder whose reports of benchmarks and studies are listed on the page.", default="none"),
    ] = None,
    output: Annotated[
        str | None,
        opt(
            OUTPUT,
            "DIR",
            "Folder for the session's pictures and inversions, new or empty; it is kept.",
            *options.OUT,
            default="a temporary one, which is removed at the end",
        ),
    ] = None,
    debug: options.Debug = False,
) -> int:
    """Open a page on which pictures are inverted, edited and compared.

    It runs the other verbs, one job at a time, and shows the command and the
    lines of Python that do the same. It asks no other host. Ctrl-C ends it.
    """
    checks.at_least("--port", port, 0, 65535)
    where = checks.place(place)
    secret = _token(token, host)
    if lacking := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise BadOption(f"unsample serve needs {' and '.join(lacking)}: pip install 'unsample[web]'")
    from unsample.web.facts import models
    from unsample.web.server import Served, Session, guarded

    known = models(tuple(model or ()))
    folder = None if reports is None else _reports(reports)
    listening = _listening(host, port)
    with ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _ended))
        stack.callback(listening.close)
        session = Session(
            Served(_session(output, stack), known, hosts(host, allow_host or ()), secret, folder, _given(where))
        )
        stack.callback(session.close)
        session.warm()
        _say_where(listening, host, secret)
        _run(guarded(session), listening)
    return 0


def _ended(number: int, frame: object) -> None:
    """At SIGTERM as at Ctrl-C, so that a temporary folder is removed."""
    raise KeyboardInterrupt


def _token(given: str | None, host: str) -> str:
    """The token; "" where none is needed and none was given.

    Raises:
        BadOption: one is needed, or this one is none.
    """
    token = os.environ.get(VARIABLE, "") if given is None else given
    if not token and host not in OWN:
        raise BadOption(
            f"--host {host} lets other machines in, and then everybody has to know a token; set ${VARIABLE} to a "
            f"secret of at least {SHORTEST} letters, or leave --host out"
        )
    if (token or given is not None) and not (len(token) >= SHORTEST and token.isascii() and token.isprintable()):
        raise BadOption(f"a token has at least {SHORTEST} letters, all of them ASCII; this one has {len(token)}")
    return token


def hosts(host: str, others: tuple[str, ...] | list[str]) -> Hosts:
    """The names that the server may be asked under: its own, this machine's where it listens to others, and more."""
    from unsample.web.guard import Hosts

    open_to_all = host in ("0.0.0.0", "::", "")
    names = {*OWN, host.lower(), *(name.lower() for name in others)}
    return Hosts(frozenset(names | ({socket.gethostname().lower()} if open_to_all else set())), open_to_all)


def _reports(folder: str) -> Path:
    if not Path(folder).is_dir():
        raise BadInput(f"--reports {folder!r} is no folder; give one with runs or studies in it")
    return Path(folder).resolve()


def _session(output: str | None, stack: ExitStack) -> Path:
    """The folder of the session.

    Raises:
        BadInput: something lies in it already, or it cannot be written to.
    """
    if output is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unsample-", ignore_cleanup_errors=True)))
    from unsample.media.files import check_writable_folder

    folder = check_writable_folder(output)
    if any(folder.iterdir()):
        raise BadInput(f"{output} is not empty; give a new folder for this session")
    return folder


def _given(where: Placement) -> dict[str, Any]:
    """How models are loaded, as options of the commands that the page shows: what differs from the default."""
    own = Placement()
    return {f.name: getattr(where, f.name) for f in fields(where) if getattr(where, f.name) != getattr(own, f.name)}


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        BadOption: it cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)
    except (OSError, OverflowError, UnicodeError) as error:
        raise BadOption(
            f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}; is another one "
            "running? --port 0 takes a free one"
        ) from error
    return found


def _say_where(listening: socket.socket, host: str, token: str) -> None:
    from urllib.parse import quote

    port = listening.getsockname()[1]
    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host
    talk.say(f"open http://{name}:{port}/{f'?token={quote(token)}' if token else ''} in a browser; Ctrl-C ends it")


def _run(app: Any, listening: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=WAIT,
        ws="none",
        http="h11",
    )
    uvicorn.Server(config).run(sockets=[listening])
