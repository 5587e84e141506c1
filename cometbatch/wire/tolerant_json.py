"""JSON from strangers: any bytes get a value or a reason, and every text in that value can be written as UTF-8.

Hides two decoders. The fast one refuses some of what services really send (a byte order mark, half a surrogate
pair, NaN, endless digits, one bad byte in a long answer); the patient one then reads it, because an answer that is
paid for should not be lost to a byte.
"""

import json
from typing import Any

import msgspec
from msgspec import Struct

MAX_VALUES = 200_000  # by its brackets and commas; more than one for each token of the longest answers
MAX_PATIENT_BYTES = 512 * 1024  # the patient decoder takes ten times as long

_fast_decode = msgspec.json.Decoder().decode
_fast_encode = msgspec.json.Encoder().encode


class NotJson(Struct, frozen=True):
    """The bytes are no JSON document, whole and readable; `reason` is a few words without the bytes themselves."""

    reason: str


def decode_json(body: bytes) -> Any:
    """The value in these bytes, or `NotJson`. Total: any bytes whatever get an answer, never an exception.

    And soon, in little memory: whoever decodes holds up everyone, and a value takes thirty times the bytes it is made
    of. So what has more than `MAX_VALUES` is not read, and beyond `MAX_PATIENT_BYTES` a bad byte is a bad reply.
    """
    if len(body) > MAX_VALUES and sum(map(body.count, (b"[", b"{", b","))) > MAX_VALUES:
        return NotJson("more values than any answer has")
    try:
        return _fast_decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _patient_decode(body) if len(body) <= MAX_PATIENT_BYTES else NotJson("large, and no JSON, or cut off")


def encode_json(value: object) -> bytes:
    """Compact JSON, the same bytes each time; half a surrogate pair becomes U+FFFD."""
    try:
        return _fast_encode(value)
    except UnicodeEncodeError:
        plain = json.dumps(msgspec.to_builtins(value), ensure_ascii=False, separators=(",", ":"))
        return well_formed(plain).encode()


def compact_text(value: object) -> str | None:
    """Decoded JSON as compact text again; None where it is nested too deeply to be written."""
    try:
        return _fast_encode(value).decode()
    except RecursionError:
        return None


def well_formed(text: str) -> str:
    """The text with each half of a surrogate pair that stands alone as U+FFFD, so that it can be written as UTF-8."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mapping(value: object) -> dict[str, Any]:
    """The value where it is a JSON object, and an empty one where it is anything else."""
    return value if isinstance(value, dict) else {}


def mappings(value: object) -> list[dict[str, Any]]:
    """The JSON objects of a list; nothing where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def first(value: object) -> dict[str, Any]:
    """The JSON object that a list begins with; an empty one where there is none."""
    return mapping(value[0]) if isinstance(value, list) and value else {}


def text(value: object) -> str | None:
    """The value where it is text, else None."""
    return value if isinstance(value, str) else None


def _patient_decode(body: bytes) -> Any:
    """What the standard library reads, after bad bytes became U+FFFD; written and read again to mend its texts."""
    try:
        value = json.loads(body.decode("utf-8-sig", "replace"), parse_int=_whole_number)
        return json.loads(well_formed(json.dumps(value, ensure_ascii=False)), parse_int=_whole_number)
    except ValueError:
        return NotJson("empty body" if not body.strip() else "no JSON, or cut off")
    except RecursionError:
        return NotJson("nested too deeply")


def _whole_number(digits: str) -> int | float:
    """Digits as a number; beyond what Python turns into an int, a float (infinity, in the end)."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)
