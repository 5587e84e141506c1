"""The simulator on a socket of this machine; uvicorn is known here alone, and so is the way to cut a connection.

Laws: the server listens before it is announced; a server whose parent has died ends.
"""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.server import HANDLED_SIGNALS

from cometbatch.errors import UsageError
from cometbatch.simulator.app import RESET, Receive, Scope, Send, Simulator, create_app
from cometbatch.simulator.behaviour import Behaviour

LOOPBACK_HOST = "127.0.0.1"
BACKLOG = 2048  # connections that may wait to be accepted
KEEP_ALIVE_S = 75  # seconds that an idle connection stays open, longer than at clients: only faults cut connections
SHUTDOWN_S = 1  # seconds that unfinished replies get at the end; their clients have left
_STDIN = 0
_READ_BYTES = 4096
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # linger for 0 seconds: close with RST, not with FIN

Address: TypeAlias = tuple[str, int]
Transports: TypeAlias = dict[Address, asyncio.Transport]  # by the client's address, unique while connected


def serve(
    behaviour: Behaviour,
    host: str = LOOPBACK_HOST,
    port: int = 0,
    announce: Callable[[str], None] = print,
    *,
    until_stdin_closes: bool = False,
) -> None:
    """Serve until interrupted or, if asked, until stdin ends. `announce` gets the base URL when the server listens.

    Port 0 takes any free port. Raises `UsageError` if the host is not 127.0.0.1 or the port is taken.
    """
    listener = _listen(host, port)
    transports: Transports = {}
    config = uvicorn.Config(
        _Resettable(create_app(behaviour), transports),
        http=_remembering_protocol(transports),
        ws="none",
        access_log=False,
        server_header=False,
        log_config=None,
        log_level="critical",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    server = _AnnouncingServer(config, lambda: announce(f"http://{host}:{listener.getsockname()[1]}"))
    if until_stdin_closes:
        threading.Thread(target=_end_with_stdin, args=(server,), daemon=True).start()
    with listener:
        server.run(sockets=[listener])


class _AnnouncingServer(uvicorn.Server):
    """Uvicorn's server, which calls `announce` when it listens."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End at a signal, but at none that the process was started to ignore (a shell's background job)."""
        ignored = [number for number in HANDLED_SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
        with super().capture_signals():
            if threading.current_thread() is threading.main_thread():
                for number in ignored:
                    signal.signal(number, signal.SIG_IGN)
            yield


class _Resettable:
    """The application with the ASGI extension that cuts the connection of a request."""

    def __init__(self, app: Simulator, transports: Transports) -> None:
        self._app = app
        self._transports = transports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["extensions"] = {**scope.get("extensions", {}), RESET: lambda: self._reset(scope["client"])}
        await self._app(scope, receive, send)

    def _reset(self, client: Address) -> None:
        transport = self._transports.get(client)
        if transport is not None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()


def _remembering_protocol(transports: Transports) -> type[asyncio.Protocol]:
    """Uvicorn's protocol, which also keeps open connections by the client's address."""

    class Remembering(AutoHTTPProtocol):  # type: ignore[misc,valid-type]  # which class it is depends on what is installed
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._address = transport.get_extra_info("peername")
            transports[self._address] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            transports.pop(self._address, None)
            super().connection_lost(exc)

    return Remembering


def _listen(host: str, port: int) -> socket.socket:
    if host != LOOPBACK_HOST:
        raise UsageError(f"the simulator serves this machine only: the host must be 127.0.0.1, not {host}")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as exc:
        listener.close()
        raise UsageError(f"can't listen on {host}:{port}: {exc}; choose another port, or 0 for any free one") from exc
    return listener


def _end_with_stdin(server: uvicorn.Server) -> None:
    """Read stdin to its end, then end the server.

    It is read without its buffer: a thread that holds the buffer's lock breaks the interpreter's exit.
    """
    with contextlib.suppress(OSError):  # a missing stdin counts as closed
        while os.read(_STDIN, _READ_BYTES):
            pass
    server.should_exit = True
