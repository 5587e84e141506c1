"""How large a message may become: one expression can't repeat or pad a text beyond the size of a message."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from jinja2.exceptions import TemplateRuntimeError

from cometbatch.prompt.allowance import current

MAX_MESSAGE_CHARACTERS = 64 << 20  # characters of one message; a longer one fails its row. The service takes far less
MAX_REPEATS = 1_000_000  # the widest padding, in characters, and the longest list that repeating makes, in items
_MAX_POWER_BITS = 1 << 16  # bits of the result of `**`; a larger one fails its row
# Formats with a width of seven digits or more; those of `%` also with one that comes from a value.
_WIDE_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(?:\d*\.)?(?:\d{7,}|\*)")
_WIDE_FIELD = re.compile(r"\d{7}")
_TOO_LONG = f"too long: a message may have {MAX_MESSAGE_CHARACTERS >> 20} Mi characters, a list {MAX_REPEATS} items"
_TOO_WIDE = f"too wide: a width or count is at most {MAX_REPEATS}"


def bounded(pieces: Iterable[str]) -> Iterator[str]:
    """The same pieces. Raises `TemplateRuntimeError` where together they are longer than a message may be."""
    room, allowed = MAX_MESSAGE_CHARACTERS, current()
    for piece in pieces:
        room -= len(piece)
        if allowed is not None:
            allowed.charge(piece)
        if room < 0:
            raise TemplateRuntimeError(_TOO_LONG)
        yield piece


def refuse_length(characters: int) -> None:
    """Raise `TemplateRuntimeError` for a text that would be longer than a message may be."""
    if characters > MAX_MESSAGE_CHARACTERS:
        raise TemplateRuntimeError(_TOO_LONG)


def refuse_sizes(*sizes: object) -> None:
    """Raise `TemplateRuntimeError` for a width or a count that is too large."""
    if any(isinstance(size, int) and size > MAX_REPEATS for size in sizes):
        raise TemplateRuntimeError(_TOO_WIDE)


def refuse_wide(spec: str, *, percent: bool = False) -> None:
    """Raise `TemplateRuntimeError` for a field of `str.format`, or a whole text with `%`, that pads too much."""
    if (_WIDE_PERCENT if percent else _WIDE_FIELD).search(spec):
        raise TemplateRuntimeError(_TOO_WIDE)


def refuse_growth(operator: str, left: object, right: object) -> None:
    """Raise `TemplateRuntimeError` for an operation whose result is larger than a message or list may be."""
    match operator, left, right:
        case "*", str() | bytes() | list() | tuple(), int():
            _refuse_repeats(left, right)
        case "*", int(), str() | bytes() | list() | tuple():
            _refuse_repeats(right, left)
        case "+", str(), str():
            refuse_length(len(left) + len(right))
        case "+", list() | tuple(), list() | tuple() if len(left) + len(right) > MAX_REPEATS:
            raise TemplateRuntimeError(_TOO_LONG)
        case "**", int(), int() if left.bit_length() * right > _MAX_POWER_BITS:
            raise TemplateRuntimeError("the power is too large a number")


def _refuse_repeats(what: str | bytes | list[Any] | tuple[Any, ...], times: int) -> None:
    if len(what) * times > (MAX_MESSAGE_CHARACTERS if isinstance(what, str | bytes) else MAX_REPEATS):
        raise TemplateRuntimeError(_TOO_LONG)
