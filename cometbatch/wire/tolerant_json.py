"""Tolerant JSON: any bytes become a value or a reason, and every text in the value can be written as UTF-8.

There are two decoders. The fast one refuses some of what services really send: a byte order mark, half a surrogate
pair, NaN, endless digits, one bad byte in a long answer. The patient one reads it, because a paid answer must not be
lost to one byte.
"""

import json
import re
from typing import Any, Final

import msgspec
from msgspec import Struct

MAX_VALUES = 200_000  # values in a body, counted by brackets and commas; a body with more is refused unread
MAX_PATIENT_BYTES = 512 * 1024  # of a body for the patient decoder, which is ten times slower; a larger one is refused

_fast_decode = msgspec.json.Decoder().decode
_fast_encode = msgspec.json.Encoder().encode


_TEXT: Final = re.compile(rb'"[^"]*"?')  # in JSON without escapes, to its end or to the end of the bytes
_BLANKS: Final = b"\xef\xbb\xbf \t\r\n"  # that may stand before a JSON document, a byte order mark included


class NotJson(Struct, frozen=True):
    """The bytes are no whole, readable JSON document. `reason` is a few words and repeats none of the bytes.

    `is_cut`: more bytes belong to it, which did not come. Otherwise the same bytes would come again.
    """

    reason: str
    is_cut: bool = False


def decode_json(body: bytes, *, is_patient: bool = True) -> Any:
    """The value in these bytes, or `NotJson`. Raises nothing, whatever the bytes are.

    Time and memory are bounded, because decoding holds up all other requests and a value takes up to thirty times its
    bytes: a body of more than `MAX_VALUES` is not read, and one above `MAX_PATIENT_BYTES`, or one that is part of such
    a body (`is_patient` is False), is read by the fast decoder alone.
    """
    if len(body) > MAX_VALUES and sum(map(body.count, (b"[", b"{", b","))) > MAX_VALUES:
        return NotJson("more values than any answer has")
    try:
        return _fast_decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        is_patient = is_patient and len(body) <= MAX_PATIENT_BYTES
        return _patient_decode(body) if is_patient else _no_json(body, "large, and ")


def encode_json(value: object) -> bytes:
    """Compact JSON. The same value gives the same bytes; half a surrogate pair becomes U+FFFD."""
    try:
        return _fast_encode(value)
    except UnicodeEncodeError:
        plain = json.dumps(msgspec.to_builtins(value), ensure_ascii=False, separators=(",", ":"))
        return well_formed(plain).encode()


def compact_text(value: object) -> str | None:
    """Decoded JSON as compact text; None if it is nested too deeply to be written."""
    try:
        return _fast_encode(value).decode()
    except RecursionError:
        return None


def well_formed(text: str) -> str:
    """The text with U+FFFD for each lone half of a surrogate pair, so that it can be written as UTF-8."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mapping(value: object) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def mappings(value: object) -> list[dict[str, Any]]:
    """The JSON objects in a list; none if the value is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def first(value: object) -> dict[str, Any]:
    """The JSON object that a list begins with, else an empty one."""
    return value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}


def text(value: object) -> str | None:
    """The value if it is text, else None."""
    return value if isinstance(value, str) else None


def _patient_decode(body: bytes) -> Any:
    """Bad bytes become U+FFFD, then the standard library reads. Writing and reading again mends lone surrogates."""
    try:
        value = json.loads(body.decode("utf-8-sig", "replace"), parse_int=_whole_number)
        return json.loads(well_formed(json.dumps(value, ensure_ascii=False)), parse_int=_whole_number)
    except ValueError:
        return _no_json(body)
    except RecursionError:
        return NotJson("nested too deeply", is_cut=_is_cut(body))


def _no_json(body: bytes, how: str = "") -> NotJson:
    """Why these bytes are no JSON. Blanks alone are cut: some gateways send them until the answer is there."""
    if not body.strip():
        return NotJson("empty body", is_cut=bool(body))
    is_cut = _is_cut(body)
    return NotJson(f"{how}no JSON, or cut off" if is_cut else f"{how}no JSON", is_cut)


def _is_cut(body: bytes) -> bool:
    """Whether a bracket that opens in the JSON never closes."""
    if body.lstrip(_BLANKS)[:1] not in (b"{", b"["):
        return False
    rest = _TEXT.sub(b"", body.replace(b"\\\\", b"").replace(b'\\"', b""))
    return rest.count(b"{") + rest.count(b"[") > rest.count(b"}") + rest.count(b"]")


def _whole_number(digits: str) -> int | float:
    """Digits as an int; as a float, which may be infinite, if there are more than Python turns into an int."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)
