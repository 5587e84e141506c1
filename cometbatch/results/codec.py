"""Records as lines of JSON, for journals. Guards: what is written reads back the same; money stays exact."""

from typing import Final

import msgspec

from cometbatch.records import Record

_ENCODER: Final = msgspec.json.Encoder(decimal_format="string")
_DECODER: Final[msgspec.json.Decoder[Record]] = msgspec.json.Decoder(Record)


def encode_record(record: Record) -> bytes:
    """A record as one line of JSON, without the line's end; money as strings, so that it stays exact."""
    return _ENCODER.encode(record)


def decode_record(line: bytes) -> Record:
    """What `encode_record` wrote. Raises `msgspec.DecodeError` for anything else."""
    return _DECODER.decode(line)
