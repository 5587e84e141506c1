"""Opening connections: names to addresses, sockets, tunnels through proxies, TLS.

Hides that each of these takes time and fails in its own way; whatever fails here, nothing of a request has left.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import aiohappyeyeballs

from cometbatch.transport.connection import Connection, NoReplyError
from cometbatch.transport.route import Hop, Route

CONNECT_TIMEOUT_S = 30.0
LOOKUP_KEPT_S = 10.0  # of a name's addresses: short, since services move
HAPPY_EYEBALLS_S = 0.25  # after which the next address is tried, too (RFC 8305)
MAX_TUNNEL_HEAD_BYTES = 16 * 1024

_Addresses: TypeAlias = "list[tuple[Any, ...]]"


class Dialler:
    """Opens connections along one route."""

    def __init__(self, route: Route, make: Callable[[], Connection], tls: Callable[[], ssl.SSLContext]) -> None:
        self._route = route
        self._make = make
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._looking = asyncio.Lock()
        self._addresses: _Addresses = []
        self._looked_at = float("-inf")

    async def open(self, deadline: float) -> Connection:
        """A new connection, by this time of the event loop. Raises `NoReplyError`, unsent; or `TimeoutError`."""
        hop = self._route.proxy or self._route.service
        whole = asyncio.timeout_at(deadline)
        try:
            async with whole, asyncio.timeout(CONNECT_TIMEOUT_S):
                return await self._open(hop)
        except TimeoutError as error:
            if whole.expired():
                raise
            words = f"no connection to {hop} within {CONNECT_TIMEOUT_S:g} s"
            raise NoReplyError("timeout", words, sent=False) from error
        except (OSError, ValueError) as error:  # ValueError: of names and numbers that no network has
            words = f"can't connect to {hop}: {error or type(error).__name__}"
            raise NoReplyError("connection", words, sent=False) from error

    async def _open(self, hop: Hop) -> Connection:
        loop = asyncio.get_running_loop()
        opened = await aiohappyeyeballs.start_connection(
            await self._lookup(hop), happy_eyeballs_delay=HAPPY_EYEBALLS_S, loop=loop
        )
        tls = None if hop.tls_name is None else self._tls_context()
        if not self._route.has_tunnel:
            made = await loop.create_connection(self._make, sock=opened, ssl=tls, server_hostname=hop.tls_name)
            return made[1]
        line, tunnel = await loop.create_connection(_Tunnel, sock=opened, ssl=tls, server_hostname=hop.tls_name)
        try:
            await tunnel.dig(self._route)
            return await self._secure(line)
        except BaseException:
            line.abort()
            raise

    async def _secure(self, line: asyncio.Transport) -> Connection:
        """TLS to the service, inside of the tunnel."""
        connection = self._make()
        name = self._route.service.tls_name
        secured = await asyncio.get_running_loop().start_tls(
            line, connection, self._tls_context(), server_hostname=name
        )
        if secured is None:
            raise ConnectionError("the tunnel was closed")
        connection.connection_made(secured)
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        self._context = self._context or self._tls()
        return self._context

    async def _lookup(self, hop: Hop) -> _Addresses:
        loop = asyncio.get_running_loop()
        async with self._looking:  # hundreds may ask at once
            if loop.time() - self._looked_at > LOOKUP_KEPT_S:
                self._addresses = [*await loop.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)]
                self._looked_at = loop.time()
        return self._addresses


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a tunnel; everything after its reply is the service's."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def dig(self, route: Route) -> None:
        """Ask, and wait for leave. Raises `ConnectionError` where it is refused."""
        service = f"{route.service.host}:{route.service.port}"
        if ":" in route.service.host:
            service = f"[{route.service.host}]:{route.service.port}"
        headers = "".join(f"{name}: {value}\r\n" for name, value in route.tunnel_headers)
        assert self._transport is not None  # noqa: S101 - `create_connection` has seen to it
        self._transport.write(f"CONNECT {service} HTTP/1.1\r\nhost: {service}\r\n{headers}\r\n".encode())
        status = (await self._answered).partition(b"\r\n")[0].split(b" ", 2)
        if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or status[1] != b"200":  # noqa: PLR2004
            words = b" ".join(status[1:]).decode("latin-1")[:100]
            raise ConnectionError(f"the proxy refuses a tunnel to {service} ({words})")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The proxy is there."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """The proxy speaks."""
        self._head += data
        if b"\r\n\r\n" in self._head or len(self._head) > MAX_TUNNEL_HEAD_BYTES:
            self._answer(self._head)

    def connection_lost(self, exc: Exception | None) -> None:
        """The proxy is gone."""
        self._answer(b" %s" % str(exc or "closed").encode())

    def _answer(self, head: bytes) -> None:
        if not self._answered.done():
            self._answered.set_result(head)
