"""One connection to a service that is not trusted: bytes out, and one whole reply back or a `NoReplyError`.

httptools (llhttp) reads HTTP strictly. It has no bound for heads, interim replies and bodies: they are bounded here. A
connection on which bytes came unasked is dead, since the next row would take them for its answer.
"""

import asyncio
import functools
import re
import ssl
from collections.abc import Callable
from typing import NoReturn, cast

import httptools

from cometbatch.records import TransportFailureKind

# Bytes of a reply's body; a larger one fails. 128,000 tokens of five characters, each character escaped in six bytes,
# fit. A reply that arrives in one piece is not checked: RECEIVED_AT_ONCE_BYTES are far fewer.
MAX_BODY_BYTES = 4 * 1024 * 1024
SMALL_BODY_BYTES = 256 * 1024  # bytes of a body; reading a larger one stops there until the pool has room for it
MAX_HEAD_BYTES = 1024 * 1024  # bytes in a row that are no body; more fail. Usual heads have some kilobytes
MAX_HEADERS = 1000  # headers of a reply; more fail. Servers send about twenty
MAX_INTERIM_REPLIES = 16  # replies with a status of 1xx before the reply; more fail. Servers send one or two
RECEIVED_AT_ONCE_BYTES = 16 * 1024  # bytes parsed before other connections get their turn: milliseconds at the worst

MAX_NAMES_KEPT = 256  # names of headers that are kept in lower case, so that the next reply need not convert them
MAX_NAME_KEPT_BYTES = 64  # bytes of such a name; a longer one is not kept, so that a server can't fill our memory

_INTERIM_FROM, _FINAL_FROM = 100, 200  # statuses
_SWITCHING = 101
# OpenSSL's word for a server's refusal of our client certificate.
_REFUSED_US = re.compile("ALERT_(.*CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)")


class _Names(dict[bytes, str]):
    """Header names in lower case, kept for the next reply: nearly all replies have the same ones."""

    def __missing__(self, name: bytes) -> str:
        lowered = name.decode("latin-1").lower()
        if len(self) < MAX_NAMES_KEPT and len(name) <= MAX_NAME_KEPT_BYTES:
            self[name] = lowered
        return lowered


_names = _Names()


class NoReplyError(Exception):
    """There is no whole reply. Kind, words and `sent` are those of `TransportFailure`."""

    def __init__(self, kind: TransportFailureKind, words: str, *, sent: bool = True) -> None:
        super().__init__(words)
        self.kind = kind
        self.sent = sent


def receive_buffer() -> memoryview:
    """Memory to receive into. One serves all connections of an event loop: it is parsed before it is filled again."""
    return memoryview(bytearray(RECEIVED_AT_ONCE_BYTES))


class WriteBatch:
    """Requests that are written together at the end of a turn. One serves all connections of an event loop.

    The system's code for sending drives ours out of the processor's caches, so it runs after all of ours.
    """

    def __init__(self) -> None:
        self._waiting: list[Connection] = []

    def put(self, connection: "Connection") -> None:
        """Have its request written within this iteration of the event loop."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._write_all)
        self._waiting.append(connection)

    def _write_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.write_out()


class Connection(asyncio.BufferedProtocol):
    """HTTP/1.1 for one request at a time; the parts of the last reply are attributes.

    `send` starts a request and calls back once: when the reply is whole, when it failed (`error`), or when its body is
    larger than `SMALL_BODY_BYTES` (`is_whole` is False; reading has stopped until `rest`).
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_head_bytes",
        "_head_lines",
        "_interim",
        "_is_large",
        "_on_end",
        "_parser",
        "_pieces",
        "_raw_headers",
        "_refusal",
        "_request",
        "_transport",
        "_until_end",
        "_write_batch",
        "error",
        "fileno",
        "headers",
        "is_dead",
        "is_whole",
        "on_body",
        "on_header",
        "opened",
        "rested_since",
        "status",
    )

    def __init__(self, buffer: memoryview, write_batch: WriteBatch) -> None:
        self._buffer = buffer
        self._write_batch = write_batch
        self._raw_headers: dict[bytes, bytes] = {}  # of the reply that is being read, undecoded
        self._pieces: list[bytes] = []  # of the body, not yet joined to `_body`
        # The parser calls these for each header and piece. Methods of ours would take more time than everything else.
        self.on_header = self._raw_headers.__setitem__
        self.on_body = self._pieces.append
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._on_end: Callable[[], None] | None = None
        self._request = b""  # not written yet
        self.fileno = -1  # of its socket
        self.opened = True  # until the transport says that it is closed
        self.is_dead = False  # whether it must not be used for another request
        self.is_whole = True
        self.error: NoReplyError | None = None
        self._refusal: NoReplyError | None = None  # why a callback of the parser has stopped it
        self._body: bytes | bytearray = b""  # of a reply that comes in several reads
        self.headers: dict[str, str] = {}
        self._is_large = False
        self._head_bytes = self._interim = 0
        self._start_head()
        self.rested_since = 0.0

    def take_body(self) -> bytes:
        """The last reply's body, as it came. It is not kept: connections rest, and would hold memory."""
        body = b"".join([self._body, *self._pieces] if self._body else self._pieces)
        self._forget()
        return body

    def send(self, request: bytes, on_end: Callable[[], None]) -> None:
        """Send a whole request within this iteration of the loop. No other may be in flight here."""
        self.is_whole = self._is_large = False
        self._head_bytes = self._interim = 0
        self._start_head()
        self._on_end = on_end
        if self.is_dead or self._transport is None:
            self.error = None
            self.fail(NoReplyError("connection", "the connection was closed before anything was sent", sent=False))
        else:
            self._request = request
            self._write_batch.put(self)

    def write_out(self) -> None:
        """Write the request, unless the exchange is over by now."""
        if self._transport is None or not self._request or self._transport.is_closing():
            return
        try:
            self._transport.write(self._request)
            self._request = b""
        except (OSError, RuntimeError) as error:  # the other connections' requests must be written all the same
            self.fail(NoReplyError("connection", str(error)))

    async def rest(self) -> None:
        """Read what is left of a large reply. Raises `NoReplyError`."""
        while not self.is_whole and self.error is None and self._transport is not None:
            waiter = asyncio.get_running_loop().create_future()
            self._on_end = functools.partial(_finish, waiter)
            self._transport.resume_reading()
            await waiter
        if self.error is not None:
            raise self.error

    def fail(self, error: NoReplyError) -> None:
        """End the exchange with this error and close the connection. A request that was not written was not sent."""
        self.abort()
        if not self.is_whole and self.error is None:
            self.error = error
            error.sent = error.sent and not self._request
            self._forget()
        self._request = b""
        self._wake()

    def abort(self) -> None:
        """Close at once."""
        self.is_dead = True
        if self._transport is not None:
            self._transport.abort()

    def _start_head(self) -> None:
        """Forget what an earlier head said."""
        self._until_end = False
        self._head_lines = self.status = 0

    def _forget(self) -> None:
        self._body = b""
        self._pieces.clear()
        self._raw_headers.clear()  # trailers, or part of a head

    def _wake(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()

    # -- called by asyncio --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast("asyncio.Transport", transport)  # as uvloop's is, too, without saying so
        self.fileno = transport.get_extra_info("socket").fileno()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Memory for the next bytes; little, so that many connections at once do not hold up the loop."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        if self.is_whole or self._request:
            self.fail(NoReplyError("connection", "the server spoke before it was asked"))
            return
        try:
            self._parser.feed_data(self._buffer[:nbytes])
            if self._body or not self.is_whole:
                self._put_together(nbytes)
        except NoReplyError as error:
            self.is_whole = False
            self.fail(error)
        except httptools.HttpParserCallbackError:
            if self._refusal is None:
                raise  # a mistake of ours
            self.fail(self._refusal)
        except httptools.HttpParserUpgrade:
            self.fail(NoReplyError("connection", "the server switches to another protocol, which was not asked for"))
        except httptools.HttpParserError as error:
            self.fail(NoReplyError("connection", f"the reply is no HTTP: {_words(error)}"))
        else:
            if self.is_whole:  # reported here, not while the parser runs, which may find more after the reply's end
                self._wake()
            elif len(self._body) > SMALL_BODY_BYTES and not self._is_large:
                self._is_large = True
                if self._transport is not None:
                    self._transport.pause_reading()
                self._wake()

    def _put_together(self, nbytes: int) -> None:
        """Join what came to the body. `nbytes`: how much came. Raises `NoReplyError` where a reply is too large.

        The body is one piece of memory: a list of tiny pieces takes twenty times as much.
        """
        if self._pieces:
            self._head_bytes = self._head_lines = 0
            if not isinstance(self._body, bytearray):
                self._body = bytearray(self._body)
            self._body += b"".join(self._pieces)
            self._pieces.clear()
        else:
            self._head_bytes += nbytes
            self._head_lines += bytes(self._buffer[:nbytes]).count(b"\n")
        if self._head_bytes > MAX_HEAD_BYTES:
            raise NoReplyError("connection", f"the reply's head is larger than {MAX_HEAD_BYTES:,} bytes")
        if len(self._body) > MAX_BODY_BYTES:
            raise too_large()
        # A head has two lines more than headers: the status line and an empty one. Lines without end may come in the
        # head, or after the last chunk of the body.
        if self._head_lines > MAX_HEADERS + 2:
            raise _too_many_headers()

    def eof_received(self) -> None:
        """The server sends no more. That ends a body of no stated length, and cuts any other one short."""
        self.is_dead = True
        if self._until_end and not self.is_whole:
            self.on_message_complete()
        self.fail(NoReplyError("connection", "the server closed the connection before the end of its reply"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by either side."""
        self.opened = False
        self.fail(_lost(exc, came=self.status > 0 or self._head_bytes > 0))
        self._transport = None
        del self._parser  # it refers to us: a cycle

    # -- called by httptools ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A reply begins. A second one is refused, which stops the parser; the first one is whole already."""
        if self.is_whole:
            self._refuse(NoReplyError("connection", "a reply that nobody asked for"))

    def on_headers_complete(self) -> None:
        """The head is read."""
        raw = self._raw_headers
        if len(raw) > MAX_HEADERS:
            self._refuse(_too_many_headers())
        self.status = self._parser.get_status_code()
        headers = self.headers = _decoded(raw)
        raw.clear()
        coding = headers.get("transfer-encoding")
        self._until_end = coding is None and "content-length" not in headers
        if coding is not None and coding.lower() != "chunked":
            words = f"the reply is transferred as {coding[:40]!r}, which was not asked for"
            self._refuse(NoReplyError("connection", words))

    def _refuse(self, error: NoReplyError) -> NoReturn:
        """Stop the parser. What it raises then need not show this error: its context is any that is being handled."""
        self._refusal = error
        raise error

    def on_message_complete(self) -> None:
        """A reply ends: the one that was asked for, or an interim one, which is passed over."""
        if self.status == _SWITCHING:  # the parser itself reports it
            return
        if _INTERIM_FROM <= self.status < _FINAL_FROM:
            self._interim += 1
            if self._interim > MAX_INTERIM_REPLIES:
                self._refuse(NoReplyError("connection", f"more than {MAX_INTERIM_REPLIES} interim replies"))
            self._forget()
            self._start_head()
        elif not self.is_whole:
            self.is_whole = True
            self.is_dead = self.is_dead or not self._parser.should_keep_alive()


def too_large() -> NoReplyError:
    """The error of a reply whose body passes the bound."""
    return NoReplyError("too_large", f"the reply's body is larger than {MAX_BODY_BYTES:,} bytes")


def _too_many_headers() -> NoReplyError:
    return NoReplyError("connection", f"the reply has more than {MAX_HEADERS:,} headers")


def _finish(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _decoded(raw: dict[bytes, bytes]) -> dict[str, str]:
    """Names and values. A header that is not UTF-8 must not cost an answer that is billed."""
    try:
        return {_names[name]: value.decode().strip() for name, value in raw.items()}
    except UnicodeDecodeError:
        return {_names[name]: value.decode("latin-1").strip() for name, value in raw.items()}


def _lost(exc: Exception | None, *, came: bool) -> NoReplyError:
    """Why a connection is gone. From TLS 1.3 on a server refuses our certificate after our first bytes."""
    words = "the connection was closed before the end of the reply" if exc is None else str(exc) or type(exc).__name__
    is_refusal = isinstance(exc, ssl.SSLError) and _REFUSED_US.search(exc.reason or "") is not None
    return NoReplyError("connection", words, sent=came or not is_refusal)


def _words(error: Exception) -> str:
    """An error's words; httptools may have split them into letters."""
    return "".join(map(str, error.args))
