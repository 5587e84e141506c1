"""Compressed files: the bytes inside, always from the start, a piece in memory at a time.

Hides how a coding is told and undone. Content decides, not the name: a `.csv` that holds gzip is unpacked, and a
`.csv.gz` that a browser has unpacked already is read as it is. Several compressed pieces one after the other are one
file, as their tools have it.
"""

import io
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import pyarrow as pa

from cometbatch.input.files import UNPACKED_ENDINGS, refuse

_MARKS: Final = ((b"\x1f\x8b\x08", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_SKIPPED: Final = (
    b"\x2a\x4d\x18"  # after one byte, 0x50 to 0x5F: a frame of zstd that holds no data, as pzstd writes it
)
_SKIPPED_FIRST: Final = range(0x50, 0x60)


class Stream(Protocol):
    """Bytes that are read in order."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, `size` at most; none at the end. Raises `InputError` where they can't be unpacked."""


def coding_of(name: str, head: bytes) -> str | None:
    """How a file is compressed, by its first 4 bytes: "gzip" or "zstd"; None where it is not, or otherwise.

    Its name decides only where it holds no more than the begin of a mark: then it was cut short.
    """
    if head[1:4] == _SKIPPED and head[0] in _SKIPPED_FIRST:
        return "zstd"
    is_named = name.lower().endswith(UNPACKED_ENDINGS)
    return next(
        (coding for mark, coding in _MARKS if head.startswith(mark) or (is_named and head and mark.startswith(head))),
        None,
    )


@contextmanager
def unpacked(path: pathlib.Path, raw: io.BufferedReader) -> Iterator[Stream]:
    """What a file holds, from its start. `raw` stays open; it is the stream itself where nothing is compressed."""
    raw.seek(0)
    coding = coding_of(path.name, raw.read(4))
    raw.seek(0)
    if coding is None:
        yield raw
        return
    with pa.PythonFile(_Borrowed(raw), mode="r") as file, pa.CompressedInputStream(file, coding) as stream:
        yield _Unpacked(path, stream, coding)


class _Borrowed:
    """A file that its reader does not close."""

    closed = False

    def __init__(self, raw: io.BufferedReader) -> None:
        self.read = raw.read

    def close(self) -> None:
        """Nothing: whoever opened the file closes it."""


class _Unpacked:
    """A stream of Arrow's, with errors that name the file."""

    def __init__(self, path: pathlib.Path, stream: pa.NativeFile, coding: str) -> None:
        self._path = path
        self._stream = stream
        self._coding = coding

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        try:
            found: bytes = self._stream.read(size)
        except OSError as error:
            if error.errno is not None:  # the system's own
                raise
            words = f"its {self._coding} data can't be unpacked ({error}): it is damaged or was cut short"
            refuse(self._path, f"{words}; copy or write it again")
        return found
