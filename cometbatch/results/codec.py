"""Records as lines of JSON, for journals. Guards: what is written reads as the same `Record`; money stays exact."""

from typing import Final

import msgspec

from cometbatch.records import Record

_ENCODER: Final = msgspec.json.Encoder(decimal_format="string")


def encode_record(record: Record) -> bytes:
    """A record as one line of JSON, without the line's end; money as strings, so that it stays exact."""
    return _ENCODER.encode(record)
