"""More turns at the end of a request's body: the model is shown its own answer, and told what is wrong with it.

Law: everything else in the body stays as it was, byte for byte and in its order, whoever made it: a number that no
reader here could hold, a field that no format knows.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from cometbatch.wire.tolerant_json import encode_json

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TURNS: Final = msgspec.json.Decoder(list[msgspec.Raw])


def append_turns(body: bytes, key: str, turns: Sequence[object], *, alone: bytes = b"") -> bytes | None:
    """The body with these turns behind those in its list `key`; None where it has no such list.

    `alone`: what may stand in the list's place, by its first byte: a text, or one turn. `_turn_of` makes it a turn.
    """
    try:
        fields = _FIELDS.decode(body)
        found = bytes(fields[key]) if key in fields else b"[]"
        there = [_turn_of(found)] if found[:1] in (b'"', b"{") and found[:1] in alone else _TURNS.decode(found)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    fields[key] = msgspec.Raw(b"[%b]" % b",".join([*map(bytes, there), *map(encode_json, turns)]))
    return msgspec.json.encode(fields)


def _turn_of(found: bytes) -> msgspec.Raw:
    """A turn that stands without a list: as it is, or a user's text."""
    return msgspec.Raw(found if found[:1] == b"{" else b'{"role":"user","content":%b}' % found)
