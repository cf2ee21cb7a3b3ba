"""What stands before the pages: who may ask, from where, and how much may come in. Plain ASGI, so that nothing is read
before it is allowed.

A page of another site can make a browser ask 127.0.0.1: its name in `Host` (after DNS rebinding) and in `Origin` give
it away, and it has no token.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Message, Receive, Send], Awaitable[None]]

COOKIE = "unsample-token"
SAFE = ("GET", "HEAD")
METHODS = (*SAFE, "POST", "DELETE")
TOO_LARGE = 413
MOST_JSON = 64 * 2**10
MOST_DROPPED = 256 * 2**20  # of a body that is too large
BODY_SECONDS = 60.0  # for a whole body
CHUNK_SECONDS = 10.0  # for the next piece of it
POLICY = "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Refused(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Hosts:
    """The names under which this server may be asked: `names` with any port, and addresses where `addresses` is set.

    An address in `Host` cannot have been rebound: no name led to it.
    """

    names: frozenset[str]
    addresses: bool = False

    def has(self, host: str) -> bool:
        """Whether a `Host`, or what follows `//` in an `Origin`, is one of them."""
        name, port = _parted(host)
        if not port or not (port.isascii() and port.isdigit()):
            return False
        return name in self.names or (self.addresses and _is_address(name))


def _parted(host: str) -> tuple[str, str]:
    """Name and port; 80 is the port of a name without one."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        return name.lower(), port[1:] if port.startswith(":") else "" if port else "80"
    name, colon, port = host.partition(":")
    return name.lower(), port if colon else "80"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Around an application: refuses what may not be asked, and puts the same headers on every answer.

    Args:
        app: the application.
        hosts: under which names it is asked.
        token: what everybody has to know, "" where nobody need.
        most: bytes of a body, by the path that it is sent to; MOST_JSON for all others.
    """

    def __init__(self, app: Asgi, hosts: Hosts, token: str, most: dict[str, int]) -> None:
        self._app, self._hosts, self._token, self._most = app, hosts, token, most

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request; what is no request of HTTP is left to the application, or closed."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        started = False

        async def headed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = {name.lower() for name, _ in message.get("headers", ())}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        try:
            if (answer := self._admitted(scope)) is not None:
                return await _redirect(headed, *answer)
            await self._app(scope, self._bounded(scope, receive), headed)
        except Refused as error:
            if not started:
                value = {"error": {"message": error.message}}
                await _answer(headed, error.status, value, receive if error.status == TOO_LARGE else None)

    def _admitted(self, scope: Message) -> tuple[str, str] | None:
        """Nothing where the request may go on; a cookie and a place where a token was given in the address.

        Raises:
            Refused: it may not.
        """
        if scope["method"] not in METHODS:
            raise Refused(405, f"{scope['method'][:20]} is not asked of this server")
        if (host := _only(scope, b"host")) is None or not self._hosts.has(host):
            raise Refused(
                421,
                "this server is not asked under that name; use the address it printed, or start it with --allow-host",
            )
        if scope["method"] not in SAFE:
            self._check_origin(scope, host)
        declared = _only(scope, b"content-length")
        if declared is not None and (not declared.isdigit() or int(declared[:20]) > self._limit(scope)):
            raise Refused(TOO_LARGE, self._too_large(scope))
        return self._known(scope) if self._token else None

    def _check_origin(self, scope: Message, host: str) -> None:
        """A write comes from our own page, or from a program that is no browser."""
        origin, site = _only(scope, b"origin"), _only(scope, b"sec-fetch-site")
        if origin is None:
            if site not in (None, "same-origin", "none"):
                raise Refused(403, "a page of another site may not write here")
            return
        kind, _, place = origin.partition("://")
        if kind not in ("http", "https") or place.lower() != host.lower():
            raise Refused(403, "a page of another site may not write here")

    def _known(self, scope: Message) -> tuple[str, str] | None:
        """Whether the token is there: in a header, in our cookie, or in the address of the first page.

        Raises:
            Refused: it is not.
        """
        kind, _, given = (_only(scope, b"authorization") or "").partition(" ")
        if kind.lower() == "bearer" and self._same(given):
            return None
        try:
            cookie = SimpleCookie(_only(scope, b"cookie") or "").get(COOKIE)
        except CookieError:
            cookie = None
        if cookie is not None and self._same(cookie.value):
            return None
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=16)
        if scope["path"] == "/" and scope["method"] in SAFE and any(map(self._same, query.get("token", ()))):
            return f"{COOKIE}={quote(self._token)}; HttpOnly; SameSite=Lax; Path=/", "/"
        raise Refused(401, "this server asks for a token; open the address it printed, which ends in ?token=...")

    def _same(self, given: str) -> bool:
        from urllib.parse import unquote

        return hmac.compare_digest(unquote(given).encode("utf-8", "replace"), self._token.encode())

    def _limit(self, scope: Message) -> int:
        return self._most.get(scope["path"], MOST_JSON)

    def _too_large(self, scope: Message) -> str:
        most = self._limit(scope)
        return (
            f"that is over the limit of {most // 2**20} MB" if most >= 2**20 else f"over {most // 1024} kB are too much"
        )

    def _bounded(self, scope: Message, receive: Receive) -> Receive:
        """The body, counted and timed as it comes."""
        seen, whole = 0, False
        loop = asyncio.get_running_loop()
        end = loop.time() + BODY_SECONDS

        async def bounded() -> Message:
            nonlocal seen, whole
            if whole:  # afterwards it is waited for the reader to go away
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), min(CHUNK_SECONDS, max(0.01, end - loop.time())))
            except TimeoutError as error:
                raise Refused(408, "the request did not come in time") from error
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if seen > self._limit(scope):
                if not whole:
                    await _drop(receive)
                raise Refused(TOO_LARGE, self._too_large(scope))
            return message

        return bounded


def _only(scope: Message, name: bytes) -> str | None:
    """The value of a header that may stand there once.

    Raises:
        Refused: it stands there twice, or is not ASCII.
    """
    values = [value for key, value in scope["headers"] if key == name]
    if len(values) > 1 or any(not value.isascii() for value in values):
        raise Refused(400, f"the header {name.decode()} is not as a browser sends it")
    return values[0].decode() if values else None


async def _redirect(send: Send, cookie: str, place: str) -> None:
    headers = [(b"set-cookie", cookie.encode()), (b"location", place.encode())]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _answer(send: Send, status: int, value: Any, rest: Receive | None) -> None:
    """An answer, after which the connection ends; `rest` gives what still comes of the body."""
    body = json.dumps(value).encode()
    headers: Iterable[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body, "more_body": rest is not None})
    if rest is not None:
        await _drop(rest)
        await send({"type": "http.response.body", "body": b""})


async def _drop(receive: Receive) -> None:
    """Take the rest of a body and keep nothing of it, so that who sends it comes to read why it is refused."""
    seen = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(CHUNK_SECONDS):
            while seen < MOST_DROPPED and (message := await receive()).get("more_body", False):
                seen += len(message.get("body", b""))
