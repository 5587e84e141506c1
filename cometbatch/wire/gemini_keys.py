"""Gemini's keys in one spelling: batch files may have `generation_config`, and gateways know `generationConfig` alone.

Law: names that a user chose (properties of a schema, arguments of a function, labels) stay as they are, and so does
every byte that is no key.
"""

import re
from typing import Final

from msgspec import Struct

from cometbatch.wire.json_spans import TOKEN, key_of

_SNAKE: Final = re.compile(r"_?[a-z][a-z0-9]*(?:_[a-z0-9]+)+")
_JOINT: Final = re.compile(r"(?<=[a-z0-9])_([a-z0-9])")
_OF_USERS: Final = frozenset({"args", "headers", "labels", "metadata", "parameters", "partMetadata", "response"})
"""Keys of objects whose own keys a user chose. So are those of what ends in `schema`: `responseSchema`."""


class TwiceError(ValueError):
    """An object has one key in both spellings. The text says which."""


class _Open(Struct):
    """An object or a list that is open. `keys`: those that an object has so far, in camel case; None for a user's own.

    Each says whether it was in snake case.
    """

    is_object: bool
    keys: dict[str, bool] | None


def camel_key(name: str) -> str:
    """The key in camel case; a name that is no snake case stays."""
    return _JOINT.sub(lambda found: found[1].upper(), name) if _SNAKE.fullmatch(name) else name


def camel_cased(body: bytes) -> bytes:
    """A request's body with its keys in camel case. Raises `TwiceError` where one comes in both spellings."""
    if b"_" not in body and b"\\u" not in body:
        return body
    pieces: list[bytes] = []
    done = 0
    opened: list[_Open] = []
    is_key = of_user = False  # of the text that comes next; of the value that comes next
    for token in TOKEN.finditer(body):
        mark = token[0]
        if mark in b"{[":
            of_user = of_user or (bool(opened) and opened[-1].keys is None)
            opened.append(_Open(mark == b"{", None if of_user else {}))
            is_key, of_user = mark == b"{", False
        elif mark in b"}]":
            opened.pop()
            is_key = False
        elif mark == b",":
            is_key, of_user = opened[-1].is_object, False
        elif mark == b":":
            is_key = False
        elif is_key and (keys := opened[-1].keys) is not None:
            name = key_of(mark)
            camel = camel_key(name)
            if camel in keys and (camel != name or keys[camel]):
                raise TwiceError(f"{camel} is there in both spellings; leave one out")
            keys[camel] = camel != name
            of_user = camel in _OF_USERS or camel.lower().endswith("schema")
            if camel != name:
                pieces += [body[done : token.start()], b'"%b"' % camel.encode()]
                done = token.end()
    return b"".join([*pieces, body[done:]])
