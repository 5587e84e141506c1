"""Lines of a file that may be compressed, each with its number and its place, in bounded memory."""

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from cometbatch.input.files import refuse
from cometbatch.input.packed import Stream

READ_SIZE = 1 << 20  # bytes read at a time
MAX_RECORD_SIZE = 64 << 20  # bytes of a line; a longer one is refused, because it has to be in memory as a whole


class Line(NamedTuple):
    """One line, without its line feed. `number` counts from 1; `offset` is the place of its first byte, unpacked."""

    number: int
    offset: int
    data: bytes


def lines(path: pathlib.Path, stream: Stream) -> Iterator[Line]:
    """The lines of a stream in order, blank ones included; an end without a line feed ends a line, too.

    Raises `InputError` with the line's number where one is longer than `MAX_RECORD_SIZE`.
    """
    begun: list[bytes] = []
    number, offset, size = 1, 0, 0
    while block := stream.read(READ_SIZE):
        first, *others = block.split(b"\n")
        begun.append(first)
        size += len(first)
        if size > MAX_RECORD_SIZE:
            refuse(path, f"this line is longer than {MAX_RECORD_SIZE:,} bytes, the most that a record may have", number)
        for piece in others:
            yield Line(number, offset, b"".join(begun))
            number, offset = number + 1, offset + size + 1
            begun, size = [piece], len(piece)
    if size:
        yield Line(number, offset, b"".join(begun))
