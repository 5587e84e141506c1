"""The server of `report --watch`: one page and its increments on the loopback interface, for who knows its token.

Guards: whatever comes in, from whoever, gets an answer or a closed connection in bounded time and memory; a request
that is not wholly right gets the same 404, which tells nothing. Right is: GET or HEAD, one Host that is this server's
own (so that no name of another site leads here), and the token in the path. Neither the token nor a request is logged.
"""

import contextlib
import hmac
import io
import secrets
import socket
import socketserver
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Protocol, Self
from urllib.parse import parse_qsl

from msgspec import Struct

from cometbatch.errors import UsageError

LOOPBACK: Final = "127.0.0.1"
TOKEN_BYTES: Final = 24  # of chance: 192 bits
READ_S: Final = 5.0  # seconds for a whole request; then its connection is closed
WRITE_S: Final = 60.0  # seconds for a whole answer: a page can have tens of megabytes
REQUEST_BYTES: Final = 65_536
"""Of a whole request. A browser sends some hundred, and the cookies of other local servers."""
CONNECTIONS: Final = 32  # at the same time; a page needs one
QUERY_FIELDS: Final = 8  # of a path, after its question mark; a page sends four
END_S: Final = 0.1  # seconds after which the server looks whether it is to end
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of each answer: nothing keeps it, no other page embeds it, and no address that holds the token is passed on."""
NOTHING_ALLOWED: Final = "default-src 'none'; frame-ancestors 'none'"


class Answer(Struct, frozen=True):
    """A body with its type. `policy`: what a browser allows it (Content-Security-Policy)."""

    body: bytes
    type: str
    policy: str = NOTHING_ALLOWED


NOT_FOUND: Final = Answer(b"Not found.\n", "text/plain; charset=utf-8")


class Content(Protocol):
    """What is served. Both are called by several threads at once."""

    def page(self) -> Answer:
        """The page as it is now."""

    def data(self, query: Mapping[str, str]) -> Answer:
        """What the page asks for."""


class PageServer(ThreadingHTTPServer):
    """Serves until it is closed, in threads of its own. `url`: of the page.

    `port`: 0 for one that is free. Raises `UsageError` where another program has it.
    """

    daemon_threads = True  # a slow client does not keep the command from ending
    request_queue_size = CONNECTIONS
    allow_reuse_port = False  # with it another process could take the same port, and answer in place of this one

    def __init__(self, content: Content, port: int = 0) -> None:
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"--port {port}: this can't be used ({error.strerror}). Leave it out: then a free one is taken."
            ) from error
        self.content = content
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self.port = int(self.server_address[1])
        self.hosts = frozenset({f"{LOOPBACK}:{self.port}", f"localhost:{self.port}"})
        self.url = f"http://{LOOPBACK}:{self.port}/{self.token}/"
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        self._thread = threading.Thread(target=self.serve_forever, args=(END_S,), name="page-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def server_bind(self) -> None:
        """As any server, without looking up a name for its address, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, or close it at once where there are too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has no further thread
            self._free.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection; whatever happens, the next one has its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or spoke nonsense, is nobody's error."""


class _Request(io.RawIOBase):
    """Reads a connection within a number of bytes and a number of seconds, at whatever pace they come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._until = time.monotonic() + READ_S
        self._left = REQUEST_BYTES

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises `TimeoutError` once its time is over, `ConnectionAbortedError` once there is too much."""
        seconds = self._until - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        if not self._left:
            raise ConnectionAbortedError
        self._connection.settimeout(seconds)
        count = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        return count


class _Handler(BaseHTTPRequestHandler):
    """One request: a connection has no second one."""

    server: PageServer
    protocol_version = "HTTP/1.0"

    def setup(self) -> None:
        """Read within bounds."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Request(self.connection))

    def do_GET(self) -> None:
        """Answer."""
        self._send(self._found())

    do_HEAD = do_GET  # noqa: N815 - as the library calls it

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - the library's arguments
        """Whatever the library finds wrong with a request."""
        self._send(NOT_FOUND)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library calls it
        """Nothing is logged: an address holds the token."""

    def _found(self) -> Answer:
        hosts = [each.lower() for each in self.headers.get_all("Host", [])]
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:
            return NOT_FOUND
        path, _, query = self.path.partition("?")
        begin, _, name = path.rpartition("/")
        is_known = hmac.compare_digest(begin.encode(), f"/{self.server.token}".encode())
        if not is_known or name not in ("", "data"):
            return NOT_FOUND
        if not name:
            return self.server.content.page()
        try:
            fields = dict(parse_qsl(query, max_num_fields=QUERY_FIELDS))
        except ValueError:
            return NOT_FOUND
        return self.server.content.data(fields)

    def _send(self, answer: Answer) -> None:
        self.close_connection = True
        self.connection.settimeout(WRITE_S)
        with contextlib.suppress(OSError):  # the page may be closed by now
            self.send_response_only(404 if answer is NOT_FOUND else 200)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Security-Policy", answer.policy)
            self.send_header("Content-Type", answer.type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
