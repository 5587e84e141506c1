"""TLS on a connection: a protocol towards the network and a transport towards HTTP.

Event loops bring TLS of their own. This layer takes less memory and time, and it tells a reply that TLS has ended from
one that was cut: without the server's close_notify, whoever is on the way can end a reply of no stated length where he
likes.
"""

import asyncio
import contextlib
import ssl
from typing import Any, cast

WRITTEN_AT_ONCE_BYTES = 16 * 1024  # one record; OpenSSL keeps as much memory as was ever written in one go
CUT = "the server closed the connection without ending TLS (no close_notify): its reply may be cut short"


class TlsLayer(asyncio.BufferedProtocol):
    """TLS as a client. `protocol` is told of the connection when the handshake is done, and gets what is decrypted.

    The protocol's buffer is always the same memory. It receives what is encrypted, too: that is taken from it before
    what is decrypted is put there. `secured` is done when the handshake is; it raises `ssl.SSLError` or
    `ConnectionError`.
    """

    __slots__ = (
        "_buffer",
        "_incoming",
        "_is_closed",
        "_is_open",
        "_is_paused",
        "_line",
        "_outgoing",
        "_protocol",
        "_tls",
        "_unwritten",
        "secured",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        name: str | None,
        protocol: asyncio.BufferedProtocol,
    ) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self.set_protocol(protocol)
        self._line: asyncio.Transport | None = None
        self._is_paused = self._is_closed = False
        self._is_open = False  # whether the handshake is done and the connection not lost
        self._unwritten = b""  # what TLS takes once it has read more: the server renegotiates
        self.secured: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.secured.add_done_callback(_noticed)

    # -- towards the network: called by asyncio ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection: begin the handshake."""
        self._line = cast("asyncio.Transport", transport)  # as uvloop's is, too, without saying so
        self._shake_hands()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Memory for the next encrypted bytes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Encrypted bytes came."""
        if self._is_closed:
            return
        self._incoming.write(self._buffer[:nbytes])
        if not self._is_open:
            self._shake_hands()
        if self._is_open:
            self._read()

    def eof_received(self) -> None:
        """The network ends. Where TLS did not end before, what came last may be cut."""
        if self._is_open:
            self._read()
        if not self._is_closed:
            self._lose(ConnectionError(CUT))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by either side."""
        self._lose(exc)
        self._line = None

    # -- towards HTTP: a transport -------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send."""
        self._unwritten = self._unwritten + data if self._unwritten else data
        self._write_out()

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._is_closed or self._line is None or self._line.is_closing()

    def abort(self) -> None:
        """Close at once."""
        self._is_closed = True
        if self._line is not None:
            self._line.abort()

    def pause_reading(self) -> None:
        """Leave what comes in the system, and what is here undelivered."""
        self._is_paused = True
        if self._line is not None:
            self._line.pause_reading()

    def resume_reading(self) -> None:
        """Go on; what is here already is delivered in the next iteration of the loop."""
        self._is_paused = False
        if self._line is not None and not self._is_closed:
            self._line.resume_reading()
            asyncio.get_running_loop().call_soon(self._read)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol get what is decrypted from now on."""
        self._protocol = cast("asyncio.BufferedProtocol", protocol)
        self._buffer = cast("memoryview", self._protocol.get_buffer(-1))

    def get_extra_info(self, name: str) -> Any:
        """What the network's own transport knows."""
        return None if self._line is None else self._line.get_extra_info(name)

    # -- within --------------------------------------------------------------------------------------------------

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send_records()
        except ssl.SSLError as error:
            self._lose(error)
        else:
            self._send_records()
            if self.secured.done():  # whoever waited for it was cancelled
                self.abort()
                return
            self._is_open = True
            self.secured.set_result(None)
            self._protocol.connection_made(cast("asyncio.BaseTransport", self))

    def _read(self) -> None:
        """Hand on what is decrypted, until there is no more or the protocol pauses."""
        tls, incoming, buffer = self._tls, self._incoming, self._buffer
        is_more = incoming.pending or tls.pending()
        while is_more and not (self._is_paused or self._is_closed):
            try:
                nbytes: int = tls.read(len(buffer), buffer)  # type: ignore[assignment]  # a number, since there is a buffer
            except ssl.SSLWantReadError:  # half a record, or one that is not for the protocol, such as a ticket
                with contextlib.suppress(ssl.SSLError):
                    tls.write(b"")  # sends nothing, and frees the 16 KiB in which OpenSSL has read a ticket
                break
            except ssl.SSLError as error:
                self._lose(error)
                return
            if not nbytes:  # the server has ended TLS
                self._protocol.eof_received()
                self.abort()
                return
            self._protocol.buffer_updated(nbytes)
            is_more = incoming.pending or (nbytes == len(buffer) and tls.pending())
        if (self._outgoing.pending or self._unwritten) and not self._is_closed:
            try:
                self._write_out()
            except ssl.SSLError as error:
                self._lose(error)

    def _write_out(self) -> None:
        """Encrypt what is to be sent, and send it."""
        data = self._unwritten
        try:
            if len(data) <= WRITTEN_AT_ONCE_BYTES:
                self._unwritten = data[self._tls.write(data) :]
            else:
                self._write_large(memoryview(data))
        except ssl.SSLWantReadError:
            pass
        self._send_records()

    def _write_large(self, data: memoryview) -> None:
        """The same in pieces, each sent before the next one is encrypted."""
        sent = 0
        try:
            while sent < len(data):
                sent += self._tls.write(data[sent : sent + WRITTEN_AT_ONCE_BYTES])
                self._send_records()
        finally:
            self._unwritten = bytes(data[sent:])

    def _send_records(self) -> None:
        """Hand what TLS wants to send to the network."""
        if self._outgoing.pending and self._line is not None:
            self._line.write(self._outgoing.read())

    def _lose(self, error: Exception | None) -> None:
        """The connection is of no more use: tell whoever waits for it, once."""
        was_open, self._is_open = self._is_open, False
        if was_open:
            self._protocol.connection_lost(error)
        elif not self.secured.done():
            self.secured.set_exception(error or ConnectionError("the connection was closed during the TLS handshake"))
        self.abort()


def _noticed(secured: "asyncio.Future[None]") -> None:
    """An error that nobody waits for any more is not worth asyncio's words."""
    if not secured.cancelled():
        secured.exception()
