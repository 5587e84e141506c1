"""TLS by itself, against a server half in memory: whatever the network does with the bytes, HTTP gets what was sent."""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator, Sequence

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.transport.http1.tls_layer import CUT, TlsLayer

NAME = "service.test"
PIECES = st.lists(st.integers(1, 40_000), max_size=6)  # sizes in which bytes are cut; what is left is one piece
TEXTS = st.lists(st.integers(1, 60_000), min_size=1, max_size=4)  # sizes of what the server sends at a time


class Settings:
    """An authority, and both sides' settings; keys take time to make."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(NAME).configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)


SETTINGS = Settings()


class Line(asyncio.Transport):
    """The network's side: keeps what is sent, and says whether it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.reads = True
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class Http(asyncio.BufferedProtocol):
    """HTTP's side: keeps what comes, and pauses after so many deliveries as it is told."""

    def __init__(self, pauses: Sequence[int] = ()) -> None:
        self._buffer = memoryview(bytearray(16 * 1024))
        self._pauses = set(pauses)
        self.layer: TlsLayer | None = None
        self.got = bytearray()
        self.deliveries = 0
        self.ends: list[object] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsLayer)
        self.layer = transport

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self._buffer[:nbytes]
        self.deliveries += 1
        if self.deliveries in self._pauses and self.layer is not None:
            self.layer.pause_reading()

    def eof_received(self) -> None:
        self.ends.append("ended")

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)


class Pair:
    """A client's layer and a server half, with nothing but memory between them."""

    def __init__(self, pauses: Sequence[int] = (), version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        SETTINGS.client.maximum_version = version
        self.line, self.http = Line(), Http(pauses)
        self.layer = TlsLayer(SETTINGS.client, NAME, self.http)
        self._to_server, self._from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = SETTINGS.server.wrap_bio(self._to_server, self._from_server, server_side=True)
        self.layer.connection_made(self.line)

    async def shake_hands(self, sizes: Sequence[int] = ()) -> None:
        """All of it, the server's part cut into these sizes."""
        for _ in range(3):
            self._to_server.write(b"".join(self.line.sent))
            self.line.sent.clear()
            with contextlib.suppress(ssl.SSLWantReadError):
                self.server.do_handshake()
            await self.deliver(sizes)

    async def deliver(self, sizes: Sequence[int] = ()) -> None:
        """What the server has sent, cut into these sizes; where HTTP pauses, it goes on a moment later."""
        for piece in cut(self._from_server.read(), sizes):
            for start in range(0, len(piece), 16 * 1024):
                part = piece[start : start + 16 * 1024]
                memoryview(self.layer.get_buffer(-1))[: len(part)] = part
                self.layer.buffer_updated(len(part))
                while not self.line.reads:
                    self.layer.resume_reading()
                    await asyncio.sleep(0)

    def received(self) -> bytes:
        """What the server gets of what the client has sent."""
        self._to_server.write(b"".join(self.line.sent))
        self.line.sent.clear()
        got = bytearray()
        with contextlib.suppress(ssl.SSLWantReadError):
            while piece := self.server.read(65536):
                got += piece
        return bytes(got)


def cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """The data in pieces of these sizes; what is left comes last."""
    for size in sizes:
        piece, data = data[:size], data[size:]
        if piece:
            yield piece
    if data:
        yield data


@given(shaking=PIECES, sizes=PIECES, texts=TEXTS, pauses=st.sets(st.integers(1, 12)), is_old=st.booleans())
@settings(deadline=None)
def test_http_gets_what_was_sent_however_the_network_cuts_it(
    shaking: list[int], sizes: list[int], texts: list[int], pauses: set[int], *, is_old: bool
) -> None:
    """Every byte once and in order, with pauses of HTTP in between, in both versions of TLS that are in use."""

    async def main() -> None:
        pair = Pair(sorted(pauses), ssl.TLSVersion.TLSv1_2 if is_old else ssl.TLSVersion.TLSv1_3)
        await pair.shake_hands(shaking)
        assert pair.layer.secured.done()
        sent = b""
        for number, size in enumerate(texts):
            text = bytes([number]) * size
            sent += text
            pair.server.write(text)
            await pair.deliver(sizes)
        assert pair.http.got == sent
        assert pair.http.ends == []

    asyncio.run(main())


@given(sizes=st.lists(st.integers(0, 60_000), min_size=1, max_size=4))
@settings(deadline=None)
def test_the_server_gets_what_http_writes(sizes: list[int]) -> None:
    """Whatever its size, and what is written before the handshake is done, too."""

    async def main() -> None:
        pair, sent = Pair(), b""
        for number, size in enumerate(sizes):
            pair.layer.write(bytes([number]) * size)
            sent += bytes([number]) * size
            if number == 0:
                await pair.shake_hands()
        assert pair.received() == sent

    asyncio.run(main())


@pytest.mark.parametrize("text", [b"", b"x" * 100, b"x" * 50_000])
@pytest.mark.parametrize("is_ended", [False, True])
def test_the_end_of_tls_is_told_from_the_end_of_the_network(text: bytes, *, is_ended: bool) -> None:
    """Once, and after everything that came before it."""

    async def main() -> None:
        pair = Pair()
        await pair.shake_hands()
        if text:
            pair.server.write(text)
        if is_ended:
            with contextlib.suppress(ssl.SSLWantReadError):
                pair.server.unwrap()
        await pair.deliver()
        pair.layer.eof_received()
        pair.layer.connection_lost(None)
        assert pair.http.got == text
        assert [str(end) for end in pair.http.ends if end == "ended"] == ["ended"] * is_ended
        assert len(pair.http.ends) == 1 + is_ended
        assert (CUT in str(pair.http.ends[0])) is not is_ended
        assert pair.line.is_aborted

    asyncio.run(main())


@pytest.mark.parametrize("is_shaking", [True, False])
def test_what_is_no_tls_ends_the_connection(*, is_shaking: bool) -> None:
    """In the handshake whoever waits for it is told, later HTTP is; nothing of it is handed on."""

    async def main() -> None:
        pair = Pair()
        if not is_shaking:
            await pair.shake_hands()
        memoryview(pair.layer.get_buffer(-1))[:100] = b"\x17\x03\x03\0\x5f" + b"\0" * 95
        pair.layer.buffer_updated(100)
        pair.layer.buffer_updated(100)  # what comes afterwards is nobody's
        pair.layer.connection_lost(None)
        assert not pair.http.got
        assert pair.line.is_aborted
        if is_shaking:
            with pytest.raises(ssl.SSLError):
                await pair.layer.secured
        assert [isinstance(end, ssl.SSLError) for end in pair.http.ends] == ([] if is_shaking else [True])

    asyncio.run(main())


def test_a_network_that_ends_in_the_handshake_is_told_to_whoever_waits() -> None:
    """With the network's own error, where it has one, and HTTP never hears of that connection."""

    async def main() -> None:
        for error, words in ((OSError("reset by peer"), "reset by peer"), (None, "during the TLS handshake")):
            pair = Pair()
            pair.layer.connection_lost(error)
            with pytest.raises(OSError, match=words):
                await pair.layer.secured
            assert pair.http.ends == []
            assert pair.layer.is_closing()

    asyncio.run(main())


def test_a_handshake_that_nobody_waits_for_makes_no_connection() -> None:
    """Its attempt is over: HTTP is not told, and the network is left."""

    async def main() -> None:
        pair = Pair()
        pair.layer.secured.cancel()
        await pair.shake_hands()
        assert (pair.http.layer, pair.http.ends, pair.line.is_aborted) == (None, [], True)

    asyncio.run(main())
