"""Bodies that hold JSON among other things: events of a stream, comments, lines, an end mark.

Gateways send them although a plain reply was asked for (contract sheet, section 13, "Bodies"). Law: time and memory
are linear in the bytes, and one value is in memory at a time.
"""

from collections.abc import Iterator
from typing import Any, Final

from cometbatch.wire.tolerant_json import MAX_PATIENT_BYTES, NotJson, decode_json

MAX_LINES = 200_000  # of a stream; one with more is not read. A token takes up to three, and 4 MiB hold some 90,000
MAX_END_MARKS = 4  # behind one value; what has more is read line by line
DONE: Final = object()
"""Stands for the end mark of a stream, `[DONE]`."""

_DONE: Final = b"[DONE]"
_DATA: Final = b"data:"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def values_in(body: bytes) -> Iterator[Any]:
    """The JSON values of a body that is no JSON document itself, in order; none where it is one line of something else.

    An end mark is `DONE`. A value that can't be read is a `NotJson`, and the last one. An event's name is the `type`
    of its value where that has none.
    """
    if body.count(b"\n") + body.count(b"\r") > MAX_LINES:
        yield NotJson("more lines than any answer has")
        return
    text = body.removeprefix(_BYTE_ORDER_MARK).strip()
    is_line = b"\n" not in text and b"\r" not in text
    if is_line and not text.startswith((_DATA, b"event:", b":")) and not text.endswith(_DONE):
        return
    alone = _value_alone(text)
    if alone is not None:
        yield from alone
        return
    is_patient, is_open = len(body) <= MAX_PATIENT_BYTES, not body.endswith((b"\n", b"\r"))
    is_first = True
    for name, lines in _events(body):
        for value in _read(name, lines, is_patient=is_patient):
            if isinstance(value, NotJson):
                # Part of a line at the end: of a stream, the rest of it did not come.
                is_cut = value.is_cut or (not is_first and is_open and body.endswith(lines[-1]))
                yield NotJson(value.reason, is_cut)
                return
            is_first = False
            yield value


def _value_alone(stripped: bytes) -> list[Any] | None:
    """One value between comments, `data:` and an end mark; None where the body is something else."""
    text, tail = _without_comments(stripped), []
    for _ in range(MAX_END_MARKS):
        if text.endswith(_DONE):
            text, tail = text.removesuffix(_DONE).rstrip().removesuffix(_DATA).rstrip(), [DONE]
    text = text.removeprefix(_DATA).lstrip()
    value = decode_json(text) if text[:1] in (b"{", b"[") else NotJson("")
    if isinstance(value, NotJson):
        return None
    return [*(value if isinstance(value, list) else [value]), *tail]


def _without_comments(text: bytes) -> bytes:
    """The text without the lines of comments that it begins and ends with."""
    lines = text.splitlines(keepends=True)
    first, last = 0, len(lines)
    while first < last and _is_comment(lines[first]):
        first += 1
    while last > first and _is_comment(lines[last - 1]):
        last -= 1
    return b"".join(lines[first:last]).strip() if (first, last) != (0, len(lines)) else text


def _is_comment(line: bytes) -> bool:
    return line.startswith(b":") or not line.strip()


def _events(body: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Name and data of each event, as the standard for event streams has them. A line without a field is data, too."""
    name, lines = "", list[bytes]()
    for line in body.removeprefix(_BYTE_ORDER_MARK).splitlines():
        field, colon, value = line.partition(b":")
        if not line.strip():
            if lines:
                yield name, lines
            name, lines = "", []
        elif field == b"data" and colon:
            lines.append(value)
        elif field == b"event" and colon:
            name = value.decode(errors="replace").strip()
        elif field not in (b"", b"id", b"retry", b"event", b"data"):
            lines.append(line)
    if lines:
        yield name, lines


def _read(name: str, lines: list[bytes], *, is_patient: bool) -> Iterator[Any]:
    """An event's value; one for each line where the lines are no value together: some leave out the blank lines."""
    whole = b"\n".join(lines).strip()
    value = _value(name, whole, is_patient=is_patient)
    if isinstance(value, NotJson) and len(lines) > 1:
        yield from (_value(name, line.strip(), is_patient=is_patient) for line in lines if line.strip())
    elif whole:
        yield value


def _value(name: str, text: bytes, *, is_patient: bool) -> Any:
    if text == _DONE:
        return DONE
    value = decode_json(text, is_patient=is_patient)
    if isinstance(value, dict) and name not in ("", "message") and "type" not in value:
        return {"type": name, **value}
    return value
