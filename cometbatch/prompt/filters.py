"""The filters of templates: Jinja2's own, with bounds, with results that print, and with null as nothing.

Guards: null is nothing through each of them. A filter of texts takes it for the empty text, `join`, `length` and
`count` for the empty list, `default` for a value that is not there; every other filter gives null again. What a filter
makes into text, it makes as `printing.text_of` does.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from jinja2 import Undefined
from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import FILTERS, make_attrgetter

from cometbatch.prompt.allowance import current
from cometbatch.prompt.bounds import refuse_length, refuse_sizes
from cometbatch.prompt.choices import Choice, choices_of
from cometbatch.prompt.printing import json_of, percent, text_of

MAX_TEXT_SHOWN: Final = 80  # characters of a cell in a message; the rest is cut off
EACH: Final = "items of a loop"
"""The filter that a loop's list goes through: null has no items. No template can name it."""

# Filters of Jinja2 whose result is an iterator, which would print as a memory address: here they give lists.
_LAZY = frozenset(
    {"batch", "items", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "slice", "unique"}
)
# Filters that take a width or a count, which is at most MAX_REPEATS.
_SIZED = frozenset({"batch", "center", "indent", "round", "slice", "tojson"})
# Filters of one text.
_OF_TEXT = frozenset(
    {
        "capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "replace", "safe", "string",
        "striptags", "title", "trim", "truncate", "upper", "urlize", "wordcount", "wordwrap",
    }
)  # fmt: skip
# What filters give for null, where it is not null again.
_FOR_NULL: dict[str, Callable[..., object]] = {
    "count": lambda: 0,
    "length": lambda: 0,
    "int": lambda default=None, *_others, **_named: default,
    "float": lambda default=None: default,
    "join": lambda *_others, **_named: "",
    "pprint": lambda: "",
    "tojson": lambda *_others, **_named: "null",
    "urlencode": lambda: "",
}


def _filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    place = 1 if hasattr(function, "jinja_pass_arg") else 0  # Jinja2 can put something of its own before the value

    @functools.wraps(function)  # also copies Jinja2's own marks on the function
    def filter_(*args: Any, **kwargs: Any) -> object:
        before, value, others = args[:place], args[place], args[place + 1 :]
        if name in _SIZED:
            refuse_sizes(*others, *kwargs.values())
        if name in _OF_TEXT:
            value = text_of(value)
        elif value is None and name not in _OF_NULL:
            return _FOR_NULL[name](*others, **kwargs) if name in _FOR_NULL else None
        made = function(*before, value, *others, **kwargs)
        made = list(made) if name in _LAZY and not isinstance(made, str) else made
        if (allowed := current()) is not None:
            allowed.charge(made)
        return made

    return filter_


def _default(value: object, default_value: object = "", boolean: object = False) -> object:
    is_missing = value is None or isinstance(value, Undefined) or (boolean and not value)
    return default_value if is_missing else value


def _each(value: object) -> object:
    items: Any = () if value is None else value
    allowed = current()
    return items if allowed is None else allowed.each(items)


def _format(value: str, *args: object, **kwargs: object) -> str:
    return percent(value, kwargs or args)


def _fromjson(value: object) -> object:
    """What a text in JSON stands for; what is no text is a value already."""
    if isinstance(value, bytes):
        value = text_of(value)
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except UnicodeEncodeError:
        reason = "half of a surrogate pair"
    except RecursionError:
        reason = "lists and objects are nested too deeply"
    except msgspec.MsgspecError as error:
        reason = str(error) if value.strip() else "the text is empty"
    begin = value if len(value) <= MAX_TEXT_SHOWN else f"{value[:MAX_TEXT_SHOWN]}…"
    raise TemplateRuntimeError(f"fromjson: {begin!r} is no JSON ({reason})")


def _join(eval_ctx: Any, value: Iterable[object], d: object = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        value = map(make_attrgetter(eval_ctx.environment, attribute), value)
    texts, between = [text_of(item) for item in value], text_of(d)
    refuse_length(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


_join.jinja_pass_arg = FILTERS["join"].jinja_pass_arg  # type: ignore[attr-defined]


def _choices(value: object) -> tuple[Choice, ...]:
    """The choices in a cell. What is not there raises the error that says which name is missing."""
    if isinstance(value, Undefined):
        str(value)
    return choices_of(value)


def _lettered(value: object) -> str:
    """Choices as lines, each with its label before it: A. Paris."""
    return "\n".join(f"{each.label}. {each.text}" for each in _choices(value))


def _labels(value: object) -> list[str]:
    """The labels of choices, as a list: A, B, C where they have none of their own."""
    return [each.label for each in _choices(value)]


def _pprint(value: object) -> str:
    return json_of(value, indent=2)


def _replace(value: str, old: object, new: object, count: int | None = None) -> str:
    old, new = text_of(old), text_of(new)
    times = value.count(old) if count is None else min(value.count(old), count)
    refuse_length(len(value) + times * len(new))
    return value.replace(old, new, -1 if count is None else count)


def _urlencode(value: object) -> str:
    encode: Callable[[object], str] = FILTERS["urlencode"]
    if isinstance(value, Mapping):
        return encode({text_of(key): text_of(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return encode([(text_of(key), text_of(item)) for key, item in value])
    return encode(text_of(value))


def _xmlattr(eval_ctx: Any, d: Mapping[str, object], *others: object, **named: object) -> str:
    made: str = FILTERS["xmlattr"](
        eval_ctx, {k: None if v is None else text_of(v) for k, v in d.items()}, *others, **named
    )
    return made


_xmlattr.jinja_pass_arg = FILTERS["xmlattr"].jinja_pass_arg  # type: ignore[attr-defined]
_OWN: dict[str, Callable[..., Any]] = {
    "d": _default,
    "default": _default,
    "format": _format,
    "fromjson": _fromjson,
    "join": _join,
    "labels": _labels,
    "lettered": _lettered,
    "pprint": _pprint,
    "replace": _replace,
    "string": text_of,
    "tojson": json_of,
    "urlencode": _urlencode,
    "xmlattr": _xmlattr,
    EACH: _each,
}
_OF_NULL = frozenset({"d", "default", EACH})  # filters that look at null themselves


def filters() -> dict[str, Callable[..., Any]]:
    """All filters by name: Jinja2's but `random`, then `fromjson`, and `lettered` and `labels` for choices."""
    found = {**FILTERS, **_OWN}
    return {name: _filter(name, function) for name, function in found.items() if name != "random"}
