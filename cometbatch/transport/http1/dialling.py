"""Opening connections: names to addresses, sockets, tunnels through proxies, TLS.

Hides that each of these takes time and fails in its own way. When one fails, nothing of a request was sent.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import aiohappyeyeballs

from cometbatch.records import TransportFailureKind
from cometbatch.transport.http1.connection import Connection, NoReplyError, receive_buffer
from cometbatch.transport.http1.tls_layer import TlsLayer
from cometbatch.transport.route import Hop, Route
from cometbatch.transport.tls import TlsSettings, tls_context

CONNECT_TIMEOUT_S = 30.0  # seconds to a connection that can carry a request, tunnel and TLS included
HANDSHAKES_AT_ONCE = 256  # of TLS; OpenSSL takes 40 kB for each under way, and 16 kB for each that is done
LOOKUP_KEPT_S = 10.0  # seconds for which the addresses of a name are kept: short, since services move
HAPPY_EYEBALLS_S = 0.25  # seconds after which the next address is tried, too (RFC 8305)
MAX_TUNNEL_HEAD_BYTES = 16 * 1024  # of a proxy's reply; a longer one is refused
TUNNEL_CLOSED = "the proxy closed the tunnel"

_OPENED = re.compile(rb"HTTP/1\.[01] 2[0-9][0-9][ \r]")  # any 2xx: then all that follows is the service's
_WANTS_PASSWORD = re.compile(rb"HTTP/1\.[01] 407[ \r]")
LENGTH_OF_IPV4 = 2  # fields of an IPv4 socket address: host and port; IPv6 has four
Line: TypeAlias = asyncio.Transport | TlsLayer
_Addresses: TypeAlias = "list[tuple[Any, ...]]"


class Dialler:
    """Opens connections along one route."""

    def __init__(self, route: Route, make: Callable[[], Connection], tls: TlsSettings) -> None:
        self._route = route
        self._make = make
        self._tls = tls
        self._contexts: dict[Hop, ssl.SSLContext] = {}
        self._handshakes = asyncio.Semaphore(HANDSHAKES_AT_ONCE)
        self._looking = asyncio.Lock()
        self._addresses: _Addresses = []
        self._looked_at = float("-inf")
        self._not_found: OSError | None = None

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
            words = f"can't connect to {hop}: {str(error) or type(error).__name__}"
            kind: TransportFailureKind = "proxy" if isinstance(error, _ProxyWantsPasswordError) else "connection"
            raise NoReplyError(kind, words, sent=False) from error

    async def _open(self, hop: Hop) -> Connection:
        connection = self._make()
        if not self._route.has_tunnel:
            await self._connect(hop, connection)
            return connection
        tunnel = _Tunnel()
        line = await self._connect(hop, tunnel)
        try:
            await tunnel.dig(self._route)
            await self._secure(line, connection)
        except BaseException:
            line.abort()
            raise
        return connection

    async def _connect(self, hop: Hop, speaker: asyncio.BufferedProtocol) -> Line:
        """Connect to the first address that answers, with TLS where the hop speaks it."""
        if hop.tls_name is None:
            return await self._connect_plain(hop, speaker)
        async with self._handshakes:
            layer = self._layer(hop, speaker)
            line = await self._connect_plain(hop, layer)
            try:
                await layer.secured
            except BaseException:
                line.abort()
                raise
        return layer

    async def _connect_plain(self, hop: Hop, speaker: asyncio.BufferedProtocol) -> asyncio.Transport:
        """A single IPv4 address needs no race: it doubles the work."""
        loop, addresses = asyncio.get_running_loop(), await self._lookup(hop)
        if len(addresses) == 1 and len(addresses[0][-1]) == LENGTH_OF_IPV4:
            host, port = addresses[0][-1]
            return (await loop.create_connection(lambda: speaker, host, port))[0]
        opened = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_S, loop=loop)
        return (await loop.create_connection(lambda: speaker, sock=opened))[0]

    async def _secure(self, line: Line, connection: Connection) -> None:
        """Begin TLS with the service inside the tunnel."""
        async with self._handshakes:
            if line.is_closing():  # TLS would wait for it in vain
                raise ConnectionError(TUNNEL_CLOSED)
            layer = self._layer(self._route.service, connection)
            line.set_protocol(layer)
            layer.connection_made(cast("asyncio.BaseTransport", line))
            await layer.secured

    def _layer(self, hop: Hop, speaker: asyncio.BufferedProtocol) -> TlsLayer:
        return TlsLayer(self._tls_context(hop), hop.tls_name, speaker)

    def _tls_context(self, hop: Hop) -> ssl.SSLContext:
        if hop not in self._contexts:
            self._contexts[hop] = tls_context(self._tls, as_client=hop is self._route.service)
        return self._contexts[hop]

    async def _lookup(self, hop: Hop) -> _Addresses:
        asked_at = asyncio.get_running_loop().time()
        async with self._looking:  # hundreds may ask at once: one look-up serves all of them, a failed one too
            if self._not_found is not None and self._looked_at >= asked_at:
                raise OSError(*self._not_found.args)
            if asked_at - self._looked_at > LOOKUP_KEPT_S or self._not_found is not None:
                await self._look_up(hop)
        return self._addresses

    async def _look_up(self, hop: Hop) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._addresses = [*await loop.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)]
        except OSError as error:
            self._not_found, self._looked_at = error, loop.time()
            raise
        self._not_found, self._looked_at = None, loop.time()


class _ProxyWantsPasswordError(ConnectionError):
    """The proxy answers 407."""


class _Tunnel(asyncio.BufferedProtocol):
    """Asks a proxy for a tunnel; every byte after its reply is the service's."""

    def __init__(self) -> None:
        self._buffer = receive_buffer()
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def dig(self, route: Route) -> None:
        """Ask for it and wait. Raises `ConnectionError` where the proxy refuses."""
        service = route.service
        headers = "".join(f"{name}: {value}\r\n" for name, value in route.tunnel_headers)
        assert self._transport is not None  # noqa: S101 - `create_connection` has seen to it
        self._transport.write(f"CONNECT {service} HTTP/1.1\r\nhost: {service}\r\n{headers}\r\n".encode())
        if not _OPENED.match(head := await self._answered):
            words = head.partition(b"\r\n")[0].decode("latin-1")[:100]
            wants_password = _WANTS_PASSWORD.match(head) is not None
            refusal = _ProxyWantsPasswordError if wants_password else ConnectionError
            raise refusal(f"the proxy refuses a tunnel to {service} ({words})")
        if self._head.partition(b"\r\n\r\n")[2]:  # with TLS the service waits until we speak
            raise ConnectionError(f"the proxy grants a tunnel to {service} and speaks on")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The proxy is connected."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Memory for the next bytes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes of the proxy's reply came."""
        self._head += self._buffer[:nbytes]
        if b"\r\n\r\n" in self._head:
            self._answer(self._head)
        elif len(self._head) > MAX_TUNNEL_HEAD_BYTES:
            self._answer(b"a reply without end")

    def connection_lost(self, exc: Exception | None) -> None:
        """The proxy is gone."""
        self._answer(str(exc or "it closed the connection").encode())

    def _answer(self, head: bytes) -> None:
        if not self._answered.done():
            self._answered.set_result(head)
