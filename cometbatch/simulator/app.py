"""The simulator as an ASGI application, which sends replies late, in small pieces, or cut off.

It runs under any ASGI server and under `httpx.ASGITransport`. Only the server can cut a connection, so it may offer the
ASGI extension `RESET`, a callable. Without the extension, a cut is a `ConnectionResetError` from the application.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from cometbatch.records import HttpResponse
from cometbatch.simulator.behaviour import Behaviour
from cometbatch.simulator.service import MAX_BODY_BYTES, Delivery, Incoming, Service

RESET = "cometbatch.reset"
DRIPS = 30  # pieces of a body that is delivered slowly
DRIP_PAUSE_S = 1.0  # seconds before each piece

Scope = MutableMapping[str, Any]
ASGIMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[ASGIMessage]]
Send = Callable[[ASGIMessage], Awaitable[None]]


def loop_time() -> float:
    """Seconds on the running loop's clock: a test that moves this clock also moves the rate limit."""
    return asyncio.get_running_loop().time()


class Simulator:
    """The application. Each instance is a service with counts of its own."""

    def __init__(
        self, behaviour: Behaviour, *, sleep: Callable[[float], Awaitable[None]], now: Callable[[], float]
    ) -> None:
        self._service = Service(behaviour, now)
        self._sleep = sleep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI conversation. The reply is counted before the wait, so that a client that leaves changes nothing."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        body = await _body(receive)
        if body is None:
            return
        reply = self._service.reply(_incoming(scope, body))
        if reply.wait_s > 0:
            await self._sleep(reply.wait_s)
        await self._deliver(reply.response, reply.delivery, scope, receive, send)

    async def _deliver(
        self, response: HttpResponse, delivery: Delivery, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if delivery != "none":
            await send(_start(response))
        match delivery:
            case "whole":
                await send(_piece(response.body, last=True))
            case "dripping":
                await self._drip(response.body, send)
            case "cut":
                await send(_piece(response.body[: len(response.body) // 2], last=False))
                await _reset(scope, receive)
            case "none":
                await _reset(scope, receive)

    async def _drip(self, body: bytes, send: Send) -> None:
        size = -(-len(body) // DRIPS)
        for begin in range(0, len(body), size):
            await self._sleep(DRIP_PAUSE_S)
            await send(_piece(body[begin : begin + size], last=False))
        await send(_piece(b"", last=True))


def create_app(
    behaviour: Behaviour,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    now: Callable[[], float] = loop_time,
) -> Simulator:
    """A simulator with this behaviour. `sleep` waits for seconds, `now` gives seconds; in tests both are virtual."""
    return Simulator(behaviour, sleep=sleep, now=now)


async def _live(receive: Receive, send: Send) -> None:
    """The lifespan protocol. There is nothing to prepare and nothing to close."""
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return


async def _body(receive: Receive) -> bytes | None:
    """The whole body, cut a little above the bound; None if the client left before its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if len(body) <= MAX_BODY_BYTES:
            body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _incoming(scope: Scope, body: bytes) -> Incoming:
    raw_path = scope.get("raw_path")
    return Incoming(
        method=scope["method"],
        path=quote(scope["path"]) if raw_path is None else raw_path.decode("latin-1").partition("?")[0],
        query=scope.get("query_string", b"").decode("latin-1"),
        headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
        body=body,
    )


def _start(response: HttpResponse) -> ASGIMessage:
    headers = {"content-length": str(len(response.body)), **response.headers}
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": response.status, "headers": pairs}


def _piece(body: bytes, *, last: bool) -> ASGIMessage:
    return {"type": "http.response.body", "body": body, "more_body": not last}


async def _reset(scope: Scope, receive: Receive) -> None:
    """Cut the connection and wait until that is done."""
    reset = (scope.get("extensions") or {}).get(RESET)
    if reset is None:
        raise ConnectionResetError("the simulator cut the connection, as its behaviour asks")
    reset()
    while (await receive())["type"] != "http.disconnect":
        pass
