"""A server on 127.0.0.1 that sends the bytes it is told to, and what tests of the transport ask of it."""

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cometbatch.records import HttpRequest, HttpResponse, TransportFailure
from cometbatch.transport import Reply, Transport

T = TypeVar("T")
KEY = "sk-Secret_0123456789"
REQUEST = HttpRequest("/v1/chat/completions", {"content-type": "application/json"}, b'{"model":"m"}')
OK = b"HTTP/1.1 200 OK\r\n"
SHORT_S = 0.1
LONG_S = 20.0  # never reached unless something hangs that should not

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Answers the n-th request with the n-th reply, the last one from then on, and keeps what it was sent."""

    replies: list[bytes | Script]
    url: str = ""
    connections: int = 0
    left: int = 0  # this many of them are over
    received: list[bytes] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # a client has left
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def heads(self) -> list[list[str]]:
        """The lines of each request before its body."""
        return [request.partition(b"\r\n\r\n")[0].decode().split("\r\n") for request in self.received]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for as long as it lasts."""
        self.connections += 1
        remember(self.tasks)
        try:
            while True:
                await self._answer(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()
            self.left += 1
            self.gone.set()

    async def all_gone(self) -> None:
        """Wait until every connection is over."""
        while self.left < self.connections:
            self.gone.clear()
            await self.gone.wait()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        self.received.append(head + await reader.readexactly(int(length[1]) if length else 0))
        reply = self.replies[min(len(self.received), len(self.replies)) - 1]
        if isinstance(reply, bytes):
            writer.write(reply)
            await writer.drain()
        else:
            await reply(writer)


@asynccontextmanager
async def serving(*replies: bytes | Script, **options: Any) -> AsyncIterator[tuple[Server, Transport]]:
    """A server with these replies, and a transport that knows its address. `server_tls`, `host` are the server's."""
    server = Server(list(replies))
    tls, host = options.pop("server_tls", None), options.pop("host", "127.0.0.1")
    listening = await asyncio.start_server(server.serve, host, 0, ssl=tls)
    named = f"[{host}]" if ":" in host else host
    server.url = f"http{'s' * bool(tls)}://{named}:{listening.sockets[0].getsockname()[1]}"
    client = Transport(server.url, KEY, **{"timeout_s": LONG_S, **options})
    try:
        yield server, client
    finally:
        await client.aclose()
        listening.close()
        await ended(server.tasks)


def remember(tasks: set[asyncio.Task[None]]) -> None:
    """Keep the task that serves a connection, so that it can be ended before its event loop is."""
    if task := asyncio.current_task():
        tasks.add(task)


async def ended(tasks: set[asyncio.Task[None]]) -> None:
    """End them all; whatever they say of it."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def exchanged(*replies: bytes | Script, **options: Any) -> Reply:
    """What comes of one request that is answered so."""

    async def main() -> Reply:
        async with serving(*replies, **options) as (_, client):
            return await client.exchange(REQUEST)

    return asyncio.run(main())


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function on a real event loop."""
    return asyncio.run(main())


def reply(body: bytes = b"{}", *headers: str, status: str = "200 OK") -> bytes:
    """A plain reply with its length."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def closing(content: bytes) -> Script:
    """These bytes, then the end of the connection."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        raise EOFError

    return script


def resetting(content: bytes) -> Script:
    """These bytes, then a reset."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        raise EOFError

    return script


def endless(start: bytes, piece: bytes, pause_s: float = 0.0) -> Script:
    """These bytes, and then the same piece again and again until the client has enough of it."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return script


def chunked(*chunks: bytes) -> bytes:
    """A whole chunked reply."""
    coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded


def failure(result: Reply) -> TransportFailure:
    """The failure that was expected."""
    assert isinstance(result, TransportFailure)
    return result


def answer(result: Reply) -> HttpResponse:
    """The whole reply that was expected."""
    assert isinstance(result, HttpResponse)
    return result


async def once(base_url: str, **options: Any) -> Reply:
    """One exchange with whoever is at this address."""
    client = Transport(base_url, KEY, **{"timeout_s": LONG_S, **options})
    try:
        return await client.exchange(REQUEST)
    finally:
        await client.aclose()
