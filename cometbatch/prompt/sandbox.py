"""The environment in which a template runs: what it may reach, print and build up.

Hides Jinja2's sandbox. Guards three things: a template reaches nothing outside its row; a prompt is the same in every
process (no clock, no local time zone, nothing random, no memory address); one expression can't repeat or pad a text
beyond the size of a message. The author of a job is trusted with the rest: a template that loops for an hour, or
doubles a text in a loop with `~`, will do so. Jinja2's limit on the length of `range` holds.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any
from uuid import UUID

import msgspec
from jinja2 import StrictUndefined, Undefined
from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace

MAX_MESSAGE_CHARACTERS = 64 << 20  # characters of one message; a longer one fails its row. The service takes far less
MAX_REPEATS = 1_000_000  # the widest padding, in characters, and the longest list that repeating makes, in items
FUNCTIONS: Mapping[str, Callable[..., Any]] = {"range": safe_range, "dict": dict, "namespace": Namespace}

# Filters of Jinja2 whose result is an iterator, which would print as a memory address: here they give lists.
_LAZY_FILTERS = (
    "batch",
    "items",
    "map",
    "reject",
    "rejectattr",
    "reverse",
    "select",
    "selectattr",
    "slice",
    "unique",
)
# Filters and methods that take a width or a count, which is at most MAX_REPEATS.
_SIZED_FILTERS = ("batch", "center", "indent", "round", "slice", "tojson")
_SIZED_METHODS = frozenset({"center", "expandtabs", "ljust", "rjust", "to_bytes", "zfill"})
# Format strings with a width of seven digits or more, or with one that comes from a value.
_WIDE_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(?:\d*\.)?(?:\d{7,}|\*)")
_WIDE_BRACES = re.compile(r":[^{}]*\d{7}")
_MAX_POWER_BITS = 1 << 16  # bits of the result of `**`; a larger one fails its row
# Methods of dates and times whose result depends on the clock or on the machine's time zone.
_CLOCK_AND_ZONE = frozenset({"now", "today", "utcnow", "fromtimestamp", "utcfromtimestamp", "astimezone"})
_TOO_LONG = f"too long: a message may have {MAX_MESSAGE_CHARACTERS >> 20} Mi characters, a list {MAX_REPEATS} items"
_TOO_WIDE = f"too wide: a width or count is at most {MAX_REPEATS}"


class Row(dict[str, object]):
    """The whole row in a template. A column hides a method of dict of the same name."""


class _Method:
    """A method that can be called but not printed, because it prints as a memory address, new in every process."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def __call__(self, *args: object, **kwargs: object) -> object:
        if self._method.__name__ in _SIZED_METHODS:
            _refuse_sizes(*args, *kwargs.values())
        return self._method(*args, **kwargs)

    def __repr__(self) -> str:
        name = self._method.__name__
        raise TemplateRuntimeError(f"{name!r} is a method, not a value: call it, as in .{name}()")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox without clock, local time zone and memory addresses, and with bounds on size."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})  # Jinja2 also leaves these uncomputed while compiling

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """`left operator right` in a template."""
        _refuse_growth(operator, left, right)
        return super().call_binop(context, operator, left, right)

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """The pieces of a rendered template, or of a block in it, as one text."""
        return "".join(_bounded(pieces))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute` in a template."""
        if isinstance(obj, str) and attribute in ("format", "format_map") and _WIDE_BRACES.search(obj):
            raise TemplateRuntimeError(_TOO_WIDE)
        if isinstance(obj, Row) and attribute in obj:
            return obj[attribute]
        return _callable_only(super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]` in a template, which falls back to attributes."""
        return _callable_only(super().getitem(obj, argument))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may have this attribute at all."""
        if isinstance(obj, date):
            naive = isinstance(obj, datetime) and obj.tzinfo is None
            if attr in _CLOCK_AND_ZONE or (attr == "timestamp" and naive):
                return False
        return super().is_safe_attribute(obj, attr, value)


def _bounded(pieces: Iterable[str]) -> Iterator[str]:
    room = MAX_MESSAGE_CHARACTERS
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            raise TemplateRuntimeError(_TOO_LONG)
        yield piece


def _refuse_growth(operator: str, left: object, right: object) -> None:
    """Raise `TemplateRuntimeError` for an operation whose result is larger than a message or list may be."""
    match operator, left, right:
        case "*", str() | bytes() | list() | tuple(), int():
            _refuse_repeats(left, right)
        case "*", int(), str() | bytes() | list() | tuple():
            _refuse_repeats(right, left)
        case "+", str(), str() if len(left) + len(right) > MAX_MESSAGE_CHARACTERS:
            raise TemplateRuntimeError(_TOO_LONG)
        case "+", list() | tuple(), list() | tuple() if len(left) + len(right) > MAX_REPEATS:
            raise TemplateRuntimeError(_TOO_LONG)
        case "**", int(), int() if left.bit_length() * right > _MAX_POWER_BITS:
            raise TemplateRuntimeError("the power is too large a number")
        case "%", str(), _ if _WIDE_PERCENT.search(left):
            raise TemplateRuntimeError(_TOO_WIDE)


def _refuse_repeats(what: str | bytes | list[Any] | tuple[Any, ...], times: int) -> None:
    if len(what) * times > (MAX_MESSAGE_CHARACTERS if isinstance(what, str | bytes) else MAX_REPEATS):
        raise TemplateRuntimeError(_TOO_LONG)


def _refuse_sizes(*sizes: object) -> None:
    if any(isinstance(size, int) and size > MAX_REPEATS for size in sizes):
        raise TemplateRuntimeError(_TOO_WIDE)


def _sized(function: Callable[..., object]) -> Callable[..., object]:
    """The same filter, with bounds on its widths and counts: all arguments but the value that it is used on."""

    @functools.wraps(function)  # also copies Jinja2's own marks on the function
    def sized(*args: Any, **kwargs: Any) -> object:
        _refuse_sizes(*args[1:], *kwargs.values())
        return function(*args, **kwargs)

    return sized


def _format(value: object, *args: object, **kwargs: object) -> object:
    """The filter `format`, which does what the operator `%` does."""
    _refuse_growth("%", str(value), args)
    return FILTERS["format"](value, *args, **kwargs)


_PRINTABLE = (str, int, float, Decimal, date, time, timedelta, list, tuple, dict, bytes, UUID, Undefined, _Method)
"""Types of data, and two types that raise an error of their own when they are printed."""


def _callable_only(value: object) -> object:
    return _Method(value) if isinstance(value, BuiltinMethodType | MethodType | FunctionType) else value


def _listed(lazy: Callable[..., Iterable[object]]) -> Callable[..., list[object]]:
    """The same filter with a list as its result, which prints its items."""

    @functools.wraps(lazy)  # also copies Jinja2's own marks on the function
    def as_list(*args: Any, **kwargs: Any) -> list[object]:
        return list(lazy(*args, **kwargs))

    return as_list


def _to_json(value: object, indent: int | None = None) -> str:
    """A value as JSON in the form that a file has: nothing escaped for HTML, keys in their order.

    Decimals and times become strings, NaN and infinities null.
    """
    text = msgspec.json.encode(value)
    return (text if indent is None else msgspec.json.format(text, indent=indent)).decode()


def printed(value: object) -> object:
    """What is printed for a value, through `str`: nothing for null. Raises for an object that is no data."""
    if value is None:
        return ""
    if isinstance(value, _PRINTABLE):
        return value
    raise TemplateRuntimeError(f"{type(value).__name__!r} is not a value that can be printed: try |list or |join")


def _new_environment() -> _Sandbox:
    environment = _Sandbox(undefined=StrictUndefined, finalize=printed, keep_trailing_newline=True, autoescape=False)
    environment.globals.clear()  # FUNCTIONS go to templates that call them alone: a column may have such a name
    environment.filters.update({name: _listed(FILTERS[name]) for name in _LAZY_FILTERS})
    environment.filters |= {"tojson": _to_json, "format": _format}
    environment.filters.update({name: _sized(environment.filters[name]) for name in _SIZED_FILTERS})
    del environment.filters["random"]
    return environment


ENVIRONMENT = _new_environment()
