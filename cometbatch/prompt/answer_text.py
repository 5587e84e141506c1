"""The text of an answer -> the JSON value in it, strictly: what is not whole and plain JSON is no value.

Laws: space, a byte order mark and one code fence around the whole text are left out, and nothing else is changed. JSON
that was cut is never a value, and nothing is mended: a mended answer looks valid and lacks what was cut.
"""

import json
import re
from typing import Any, Final

from cometbatch.prompt.answers import Misfit

MAX_DEPTH: Final = 200  # lists and objects within each other; a deeper answer is refused, so that no reader overflows
_BLANKS: Final = " \t\r\n\ufeff"
_FENCE: Final = "```"
_LANGUAGE: Final = re.compile(r"[ \t]*[\w.+-]*[ \t]*\r?")  # what may stand behind the first fence
_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")  # how JSON writes half of a surrogate pair


class _Refused(ValueError):  # noqa: N818 - no error of ours: it becomes a misfit
    """The text is JSON by its form, and holds what no value may hold."""


def bare(text: str) -> str:
    """A text without the space, the byte order mark and the one code fence around the whole of it."""
    text = text.strip(_BLANKS)
    if text.startswith(_FENCE) and text.endswith(_FENCE) and len(text) >= 2 * len(_FENCE):
        inner = text[len(_FENCE) : -len(_FENCE)]
        first, line_break, rest = inner.partition("\n")
        if line_break and _LANGUAGE.fullmatch(first):
            return rest.strip(_BLANKS)
        return inner.strip(_BLANKS)
    return text


def read_json(text: str) -> Any:
    """The JSON value that a text is, once it is `bare`; a `Misfit` where it is none. Raises nothing."""
    text = bare(text)
    try:
        value = _decode(text)
    except _Refused as error:
        return Misfit((f"$: {error}",), is_json=True)
    except json.JSONDecodeError as error:
        return Misfit((_no_json(text, error),), is_json=False)
    except ValueError:  # more digits than Python turns into a number
        return Misfit(("$: a number has too many digits",), is_json=True)
    except RecursionError:
        return Misfit(("$: lists and objects are nested too deeply",), is_json=False)
    words = _unfit(text, value)
    return value if words is None else Misfit((f"$: {words}",), is_json=True)


def _unfit(text: str, value: object) -> str | None:
    """What makes JSON no value for anyone: it is too deep, or can't be written as UTF-8."""
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(value):
        return "lists and objects are nested too deeply"
    if "\\u" in text and _HALF.search(text) and not _is_writable(value):
        return "a text holds half of a surrogate pair"
    return None


def _no_json(text: str, error: json.JSONDecodeError) -> str:
    if not text:
        return "$: the answer is empty, and must be JSON"
    if error.pos >= len(text) or error.msg.startswith("Unterminated"):
        return "$: the answer is no whole JSON: it ends too early"
    return f"$: the answer is not JSON alone (line {error.lineno}, column {error.colno}: {error.msg})"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"the key {json.dumps(twice[:80])} is there twice")
    return found


def _constant(word: str) -> Any:
    raise _Refused(f"{word} is no number of JSON")


def _number(digits: str) -> float:
    found = float(digits)
    if found - found != 0:
        raise _Refused(f"the number {digits[:40]} is too large")
    return found


_decode: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_number).decode


def _is_deeper(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


def _is_writable(value: object) -> bool:
    """Whether every text in a value can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
