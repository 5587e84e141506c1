"""How a value becomes text in a prompt: one form for each type, wherever the value stands.

Guards: nothing that only Python writes (`None`, `True`, `['a']`, `b'a'`) gets into a prompt, neither directly nor
through a filter, `~`, `%` or `format`. The forms are a table in docs/input.md.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any
from uuid import UUID

from jinja2 import Undefined
from jinja2.exceptions import TemplateRuntimeError

from cometbatch.prompt.bounds import refuse_wide

_COMPACT = (",", ":")
_INDENTED = (",", ": ")
_SECONDS_OF_AN_HOUR = 3_600
_PYTHONS_OWN = re.compile(r"%(?:\([^)]*\))?[-+ #0-9.]*[ra]")


class UnprintableError(TemplateRuntimeError):
    """A value that is no data, or data that is no text."""


class Method:
    """A method that can be called but not printed, because it prints as a memory address, new in every process.

    `refuse` is called with the arguments of each call, and raises where they are too large.
    """

    def __init__(self, method: Callable[..., Any], refuse: Callable[..., None] | None = None) -> None:
        self._method = method
        self._refuse = refuse

    def __call__(self, *args: object, **kwargs: object) -> object:
        """What the method returns."""
        if self._refuse is not None:
            self._refuse(*args, *kwargs.values())
        return self._method(*args, **kwargs)

    def __str__(self) -> str:
        name = self._method.__name__
        raise TemplateRuntimeError(f"{name!r} is a method, not a value: call it, as in .{name}()")


METHODS = (BuiltinMethodType, MethodType, FunctionType)


def text_of(value: object) -> str:
    """A value as a prompt shows it: nothing for null, JSON for truth values, lists and structures.

    Raises `UnprintableError` for what is no data or no text, and whatever `str` raises.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | list | tuple | dict):
        return json_of(value)
    return _text_of_scalar(value)


def _text_of_scalar(value: object) -> str:
    if isinstance(value, timedelta):
        return _clock(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return _text_of_bytes(value)
    if isinstance(value, int | float | date | time | UUID | Undefined | Method):  # the last two raise an error
        return str(value)
    raise UnprintableError(f"{type(value).__name__!r} is not a value that can be printed: try |list or |join")


def _text_of_bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise UnprintableError(
            f"binary data that is not UTF-8 text (byte 0x{value[error.start]:02X} at {error.start})"
        ) from None


def _clock(span: timedelta) -> str:
    """Hours, minutes, seconds, as in -26:03:04.500000; the input writes spans of nanoseconds in the same form."""
    sign, span = ("-", -span) if span < timedelta(0) else ("", span)
    hours, rest = divmod(span.days * 24 * _SECONDS_OF_AN_HOUR + span.seconds, _SECONDS_OF_AN_HOUR)
    fraction = f".{span.microseconds:06}" if span.microseconds else ""
    return f"{sign}{hours}:{rest // 60:02}:{rest % 60:02}{fraction}"


def json_of(value: object, indent: int | None = None) -> str:
    """A value as JSON in the form that a file has: nothing escaped for HTML, keys in their order.

    What JSON has no form for is a text, printed as anywhere else; NaN and infinities are null.
    """
    encode = functools.partial(
        json.dumps,
        ensure_ascii=False,
        allow_nan=False,
        indent=indent,
        separators=_COMPACT if indent is None else _INDENTED,
        default=_text_of_scalar,
    )
    try:
        return encode(value)
    except ValueError:
        return encode(_finite(value))


def _finite(value: object) -> object:
    """The same value with null for NaN and infinities."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value


def percent(text: str, values: object) -> str:
    """`text % values`, and the filter `format`: `%s` writes a value as `text_of` does.

    Raises `TemplateRuntimeError` for `%r` and `%a`, which write Python's own notation.
    """
    refuse_wide(text, percent=True)
    if _PYTHONS_OWN.search(text):
        raise TemplateRuntimeError("%r and %a write Python's notation: use %s, or |tojson")
    if isinstance(values, tuple):
        return text % tuple(map(_shown, values))
    return text % (_ShownMapping(values) if isinstance(values, dict) else _shown(values))


def _shown(value: object) -> object:
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else _Shown(value)


class _Shown:
    """A value on the right side of `%`: the text that `text_of` gives, or the number that it is."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __str__(self) -> str:
        return text_of(self._value)

    def __int__(self) -> int:
        return int(self._value)

    def __float__(self) -> float:
        return float(self._value)


class _ShownMapping(dict[Any, object]):
    """A mapping on the right side of `%`: its values by name, or the whole of it."""

    def __init__(self, values: Mapping[Any, object]) -> None:
        super().__init__({name: _shown(value) for name, value in values.items()})
        self._values = values

    def __str__(self) -> str:
        return text_of(self._values)


def formatted(value: object, spec: str) -> str:
    """What a field of `str.format` writes: numbers and moments by their own rules where it asks for a form."""
    refuse_wide(spec)
    is_own = isinstance(value, int | float | Decimal | date | time) and not isinstance(value, bool)
    return format(value if spec and is_own else text_of(value), spec)
