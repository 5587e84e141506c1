"""Many requests that differ in a few texts alone, made of what they have in common, which is written once.

Guards that they are, byte for byte, what the format makes of each by itself.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

from cometbatch.records import HttpRequest
from cometbatch.wire.tolerant_json import encode_json

Build: TypeAlias = Callable[[Sequence[str]], HttpRequest]


def framed(build: Build, count: int) -> Build:
    """The same requests as `build` makes of so many texts, none of which may hold half a surrogate pair.

    They must stand in the body as JSON strings of their own, one after the other; where a body shows that they do not,
    `build` itself is what comes back.
    """
    marks = _marks(build([""] * count).body, count)
    sample = build(marks)
    pieces, rest = [], sample.body
    for mark in map(encode_json, marks):
        piece, found, rest = rest.partition(mark)
        if not found or mark in rest:
            return build
        pieces.append(piece)
    frame = b"%b".join(piece.replace(b"%", b"%%") for piece in [*pieces, rest])
    path, headers = sample.path, sample.headers

    def fill(texts: Sequence[str]) -> HttpRequest:
        return HttpRequest(path, headers, frame % tuple(map(encode_json, texts)))

    return fill


def _marks(body: bytes, count: int) -> list[str]:
    """Texts that can be told in a body."""
    unused = (mark for number in itertools.count() if encode_json(mark := f"text {number}") not in body)
    return list(itertools.islice(unused, count))
