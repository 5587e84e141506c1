"""JSON as bytes: where the members of an object stand, so that some are changed and no other byte is.

The text must be JSON that a decoder has read; of other bytes nothing is promised but an end.
"""

import itertools
import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from msgspec import Struct

from cometbatch.wire.tolerant_json import encode_json

TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}:,]', re.DOTALL)
"""A text with its quotes, or a mark between values. Numbers and words (`true`) lie between tokens."""
_BLANKS: Final = b" \t\r\n"


class Member(Struct, frozen=True):
    """A member of an object, by offsets into the text: its key from `start` to `key_end`, its value to `end`."""

    key: str
    start: int
    key_end: int
    value: int
    end: int


def key_of(token: bytes) -> str:
    """The name that a text with its quotes stands for."""
    return json.loads(token) if b"\\" in token else token[1:-1].decode("utf-8", "replace")


def members(text: bytes) -> list[Member]:
    """The members of the object that the text is, in order. A key that comes twice is there twice."""
    found: list[Member] = []
    key, start, key_end, value, depth = "", 0, 0, 0, 0
    for token in TOKEN.finditer(text):
        mark = token[0]
        if mark in b"{[":
            depth += 1
        elif depth > 1:
            depth -= mark in b"}]"
        elif mark == b":":
            value = token.end()
        elif mark not in b",}]":
            if not value:
                key, start, key_end = key_of(mark), token.start(), token.end()
        elif value:
            raw = text[value : token.start()]
            begin = value + len(raw) - len(raw.lstrip(_BLANKS))
            found.append(Member(key, start, key_end, begin, value + len(raw.rstrip(_BLANKS))))
            value = 0
    return found


def without(text: bytes, keys: Collection[str]) -> bytes:
    """The object without its members of these names; every other byte is as it was."""
    listed = members(text)
    last = max((index for index, member in enumerate(listed) if member.key not in keys), default=-1)
    pieces: list[bytes] = []
    done = 0
    for member, following in itertools.pairwise(listed[: last + 1]):
        if member.key in keys:
            pieces.append(text[done : member.start])
            done = following.start
    if tail := listed[last + 1 :]:
        pieces.append(text[done : listed[last].end if last >= 0 else tail[0].start])
        done = tail[-1].end
    return b"".join([*pieces, text[done:]])


def renamed(text: bytes, names: Mapping[str, str]) -> bytes:
    """The object with other names for some of its members; every other byte is as it was."""
    pieces: list[bytes] = []
    done = 0
    for member in members(text):
        if (name := names.get(member.key)) is not None:
            pieces += [text[done : member.start], encode_json(name)]
            done = member.key_end
    return b"".join([*pieces, text[done:]])


def laid_over(text: bytes, over: Mapping[str, Any]) -> bytes:
    """The object with these members in place of its own, deeply where both are objects, and with those that it lacks.

    The values that stay are as they were, byte for byte.
    """
    pieces: list[bytes] = []
    left = dict(over)
    for member in members(text):
        raw = text[member.value : member.end]
        if member.key in left:
            value = left.pop(member.key)
            is_deeper = isinstance(value, Mapping) and raw[:1] == b"{"
            raw = laid_over(raw, value) if is_deeper else encode_json(value)
        elif member.key in over:  # of a key that comes twice, one stays
            continue
        pieces.append(text[member.start : member.key_end] + b":" + raw)
    pieces += [encode_json(key) + b":" + encode_json(value) for key, value in left.items()]
    return b"{" + b",".join(pieces) + b"}"
