"""The scorer `json`: the share of the gold's fields that the last JSON object of an answer has.

An object is read strictly: NaN, a comma too many, a key that is there twice, or a text that was cut make it invalid.
Numbers are compared exactly: 3.0 is 3, true is not 1, and the text "3" is a number only with `coerce`.
"""

import json
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from cometbatch.evaluation.scorers.cleaning import composed, without_thinking
from cometbatch.evaluation.scorers.expressions import expression
from cometbatch.evaluation.scorers.scores import Gold, Score, Scorer
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.choices import Choice

MAX_DEPTH: Final = 100
"""Lists and objects within each other; a deeper answer is invalid, so that no reader overflows."""
_OBJECT_BEGIN: Final = expression(r"\{(?=\s{0,200}(?:[\"'}]|[^\W\d]\w{0,60}\s{0,4}:))")
_LIST_BEGIN: Final = expression(r"\[(?=\s{0,200}(?:[\"'\[\]{\d-]|true|false|null))")
_TOKEN: Final = expression(r"\"(?:[^\"\\\n]|\\.)*[\"\n]?|[{}\[\]]|```")
_NUMBER: Final = expression(r"-?\d{1,400}(?:\.\d{1,400})?(?:[eE][-+]?\d{1,6})?")
_STEP: Final = expression(r"[^.\[\]]+")
_WORDS: Final = {"true": True, "false": False}
_MISSING: Final = object()
_OPENING, _CLOSING = "{[", "}]"


class _InvalidError(ValueError):
    """The text is no value."""


def json_fields(settings: ScoreSettings) -> Scorer:
    """Scores the share of fields; gold: one value, whose objects' fields count each by its path."""

    def score(answer: str, gold: Gold, choices: Sequence[Choice] = ()) -> Score:  # noqa: ARG001 - as each scorer
        (wanted,) = gold
        text = last_json(without_thinking(answer), wanted)
        try:
            found = read_strictly(text)
        except _InvalidError:
            return Score(0.0, None, "invalid_json")
        return Score(_share(wanted, found, settings), composed(text))

    return score


def last_json(text: str, wanted: object) -> str:
    """The text of the last object, of the last list where the gold is one, or the whole where it is a single value."""
    if isinstance(wanted, Mapping):
        return _last(text, _OBJECT_BEGIN)
    if isinstance(wanted, list | tuple):
        return _last(text, _LIST_BEGIN)
    return text.strip().removeprefix("```json").strip("`").strip()


def _last(text: str, begin: re.Pattern[str]) -> str:
    """The last value that begins so and is in no other; to the end of the text, where it is not closed."""
    found, position = "", 0
    while (start := begin.search(text, position)) is not None:
        end = _end_of(text, start.start())
        found, position = text[start.start() : end], end
    return found


def _end_of(text: str, start: int) -> int:
    """Where the value ends that begins at a place: behind its last bracket, or at a code fence that comes before."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        sign = token[0][0]
        if sign in _OPENING:
            depth += 1
        elif sign in _CLOSING:
            depth -= 1
            if depth == 0:
                return token.end()
        elif sign == "`":
            return token.start()
    return len(text)


def read_strictly(text: str) -> Any:
    """The value that a JSON text stands for, its numbers as `Decimal`. Raises `ValueError`."""
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError, InvalidOperation) as error:
        raise _InvalidError(str(error)) from None
    if _is_deeper(value):
        raise _InvalidError("lists and objects are nested too deeply")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _InvalidError("a key is there twice")
    return found


def _constant(word: str) -> Any:
    raise _InvalidError(f"{word} is no number of JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=Decimal, parse_int=Decimal
)


def _is_deeper(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for each in level for inner in _inner(each)]
        if not level:
            return False
    return True


def _inner(value: object) -> Sequence[object]:
    if isinstance(value, Mapping):
        return tuple(value.values())
    return value if isinstance(value, list | tuple) else ()


def _share(wanted: object, found: object, settings: ScoreSettings) -> float:
    if isinstance(wanted, Mapping) and not isinstance(found, Mapping):
        return 0.0
    if isinstance(wanted, Mapping) and not wanted:
        return 1.0
    fields = list(_fields(wanted, found))
    return sum(_is_equal(gold, value, settings) for gold, value in fields) / len(fields)


def _fields(wanted: object, found: object) -> Iterator[tuple[object, object]]:
    """Each field of the gold that is no object with fields of its own, and what stands at its path in an answer."""
    if not isinstance(wanted, Mapping) or not wanted:
        yield wanted, found
        return
    for name, value in wanted.items():
        yield from _fields(value, _at(found, name))


def _at(found: object, name: str) -> object:
    """What an object has under a name, or under the path that the name spells: `a.b`, `items[0].name`."""
    if isinstance(found, Mapping) and name in found:
        return found[name]
    if not isinstance(found, Mapping) or not ("." in name or "[" in name):
        return _MISSING
    value: object = found
    for step in _STEP.findall(name):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and len(step) < 7 and int(step) < len(value):  # noqa: PLR2004 - an index
            value = value[int(step)]
        else:
            return _MISSING
    return value


def _is_equal(gold: object, value: object, settings: ScoreSettings) -> bool:
    if value is _MISSING:
        return False
    return _compared(gold, settings) == _compared(value, settings)


def _compared(value: object, settings: ScoreSettings) -> Hashable:
    """A value in a form that is equal for equal values alone: its kind stands beside it, since in Python True is 1."""
    if isinstance(value, bool) or value is None:
        return "word", value
    if isinstance(value, int | float | Decimal):
        return "number", _exact(value)
    if isinstance(value, str):
        return _compared_text(value, settings)
    if isinstance(value, Mapping):
        return "object", frozenset((name, _compared(each, settings)) for name, each in value.items())
    items = tuple(_compared(each, settings) for each in value) if isinstance(value, list | tuple) else (str(value),)
    return "list", frozenset(Counter(items).items()) if settings.unordered else items


def _exact(number: float | Decimal) -> Decimal:
    return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)


def _compared_text(value: str, settings: ScoreSettings) -> Hashable:
    plain = value.strip()
    if settings.coerce and _NUMBER.fullmatch(plain):
        return "number", Decimal(plain)
    if settings.coerce and plain.lower() in _WORDS:
        return "word", _WORDS[plain.lower()]
    return "text", composed(value)
