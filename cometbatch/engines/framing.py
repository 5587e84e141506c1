"""Frames on a stream between two processes of one machine: several questions may be under way on it at once."""

import asyncio
import struct
from collections.abc import Callable
from typing import Final, cast

HEAD: Final = struct.Struct("!IQB")  # bytes of content, number of the question, kind
ASKED: Final = 0
ANSWERED: Final = 1
FAILED: Final = 2
"""Kinds of frames: a question, its answer, or word that there is none."""


def framed(number: int, kind: int, content: bytes) -> bytes:
    """A frame, as it is written."""
    return HEAD.pack(len(content), number, kind) + content


class Frames(asyncio.Protocol):
    """One end of a stream. `taken` is called with number, kind and content of each frame, `lost` once at its end.

    `most`: bytes of content of a frame; where one has more, the stream is cut. It may be raised at any time.
    """

    def __init__(self, taken: Callable[[int, int, bytes], None], lost: Callable[[], None], *, most: int) -> None:
        self.most = most
        self._taken, self._lost = taken, lost
        self._read = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The stream is there."""
        self._transport = cast("asyncio.Transport", transport)  # as uvloop's is, too, without saying so

    def data_received(self, data: bytes) -> None:
        """Take the frames that are whole by now."""
        self._read += data
        while len(self._read) >= HEAD.size:
            size, number, kind = HEAD.unpack_from(self._read)
            if size > self.most:
                self.cut()
                return
            end = HEAD.size + size
            if len(self._read) < end:
                return
            content = bytes(self._read[HEAD.size : end])
            del self._read[:end]
            self._taken(number, kind, content)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever ended it, it has ended
        """The stream has ended."""
        self._transport = None
        self._lost()

    def write(self, number: int, kind: int, content: bytes) -> None:
        """Send a frame; where the stream has ended, nothing happens."""
        if self._transport is not None:
            self._transport.write(framed(number, kind, content))

    def cut(self) -> None:
        """End the stream at once."""
        if self._transport is not None:
            self._transport.abort()
