"""What a simulated model answers where JSON is asked for: a value that fits the schema which the request holds.

Laws: the value depends on the request alone; it fits the schema that was sent, and the keywords that its descriptions
tell in words, as a model would take them. A pattern is met where Python's own parser can read it.
"""

import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from cometbatch.records import Message, Prompt
from cometbatch.simulator.behaviour import number
from cometbatch.wire.sent_schema import told_in
from cometbatch.wire.structured import Asked, asked_in

DEEP = 6  # values within each other from which on the shortest way out is taken: a schema may hold itself
TOO_LARGE = 2**63  # the least integer that 64 bits do not hold
JSON_FAULTS: Final = ("ignores_schema", "fenced", "cut_json", "extra_key", "wrong_type", "int_overflow")
"""Faults that only a request for JSON can have."""
_SCHEMA_WORDS: Final = "fits this JSON Schema"  # how our own prompts say it; others may speak of schemas, too
_PATTERN_WORDS: Final = "this regular expression matches as a whole"
_BOUNDS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_LEAST, _MOST = -1000, 1000  # numbers where a schema sets no bounds
_SAMPLES: Final[Mapping[str, Callable[[int], str]]] = {
    "date": lambda n: f"2026-{n % 12 + 1:02}-{n % 28 + 1:02}",
    "date-time": lambda n: f"2026-{n % 12 + 1:02}-{n % 28 + 1:02}T{n % 24:02}:{n % 60:02}:00Z",
    "time": lambda n: f"{n % 24:02}:{n % 60:02}:00Z",
    "duration": lambda n: f"P{n % 30 + 1}D",
    "email": lambda n: f"row{n}@example.com",
    "hostname": lambda n: f"host{n}.example.com",
    "uri": lambda n: f"https://example.com/{n}",
    "ipv4": lambda n: f"192.0.2.{n % 256}",
    "ipv6": lambda n: f"2001:db8::{n % 9999}",
    "uuid": lambda n: f"{n:08x}-0000-4000-8000-{n:012x}",
}


class Wanted(Struct, frozen=True):
    """The form that an answer is asked for in. `schema`: None for any JSON; `pattern`: of a text that is no JSON."""

    schema: dict[str, Any] | None = None
    is_call: bool = False
    pattern: str | None = None


def wanted(format_name: str, prompt: Prompt) -> Wanted | None:
    """What a request asks for, by its settings or by the words of its prompt; None for text of any kind."""
    asked = asked_in(format_name, prompt.params.extra)
    told = _told_schema(prompt.messages)
    if asked is not None and asked.schema is not None:
        return Wanted(asked.schema, asked.is_call)
    if told is not None:
        return Wanted(told, asked is not None and asked.is_call)
    for message in prompt.messages:
        _, found, rest = message.text.partition(_PATTERN_WORDS)
        if found and "\n" in rest:
            return Wanted(pattern=rest.partition("\n")[2])
    return None if asked is None else _any_json(asked)


def _any_json(asked: Asked) -> Wanted:
    return Wanted(
        {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}, asked.is_call
    )


def _told_schema(messages: Sequence[Message]) -> dict[str, Any] | None:
    """The schema that a prompt holds behind the words for it."""
    for message in messages:
        _, found, rest = message.text.partition(_SCHEMA_WORDS)
        if found and "{" in rest:
            try:
                value, _ = json.JSONDecoder().raw_decode(rest, rest.index("{"))
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                return value
    return None


def answer_in_form(form: Wanted, digest: bytes, words: str, *, is_meant: bool = False) -> str:
    """The answer's text. `words`: what a text in it says; `is_meant`: a choice or a whole number says that, too."""
    if form.pattern is not None:
        return _of_pattern(form.pattern, digest, "pattern") or words
    return _compact(_Making(form.schema, digest, words, is_meant=is_meant).value(form.schema, "$", 0))


def spoilt(fault: str, text: str) -> str:
    """An answer in JSON with a fault; as it is where the fault has no place in it."""
    if fault == "fenced":
        return f"```json\n{text}\n```"
    if fault == "cut_json":
        return text[: max(1, len(text) * 2 // 3)].rstrip("}]")
    value = json.loads(text)
    if fault == "int_overflow":
        value = _overflown(value)
    elif fault == "extra_key" and isinstance(value, dict):
        value = value | {"a_key_that_nobody_asked_for": True}
    elif fault == "wrong_type":
        value = _of_other_type(value)
    return _compact(value)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _of_other_type(value: Any) -> Any:
    if isinstance(value, dict) and value:
        name = next(iter(value))
        return value | {name: _of_other_type(value[name]) if isinstance(value[name], dict) else {"wrong": "type"}}
    return "wrong type" if isinstance(value, dict) else {"wrong": "type"}


def _overflown(value: Any) -> Any:
    """The value with its first integer beyond 64 bits."""
    if type(value) is int:
        return TOO_LARGE
    pairs: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = list(enumerate(value))
    for key, inner in pairs:
        changed = _overflown(inner)
        if changed != inner:
            copy = value.copy()
            copy[key] = changed
            return copy
    return value


class _Making:
    """Makes one value. Each choice comes from the digest and from the place in the value."""

    def __init__(self, root: Any, digest: bytes, words: str, *, is_meant: bool) -> None:
        self._root = root
        self._digest = digest
        self._words = words
        self._is_meant = is_meant

    def value(self, schema: Any, place: str, depth: int) -> Any:
        """A value that fits a schema."""
        if not isinstance(schema, Mapping):
            return self._words
        if "$ref" in schema:
            return self.value(self._target(schema["$ref"]), place, depth + 1)
        schema = {**told_in(schema.get("description")), **schema}
        for part in schema.pop("allOf", ()):
            schema = {**part, **schema}
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            is_said = self._is_meant and self._words in schema["enum"]
            return self._words if is_said else self._pick(schema["enum"], place)
        choice = schema.get("anyOf") or schema.get("oneOf")
        if choice and "type" not in schema:
            nulls = [each for each in choice if each.get("type") == "null"]
            return self.value(nulls[0] if nulls and depth >= DEEP else self._pick(choice, place), place, depth)
        return self._typed(schema, place, depth)

    def _target(self, reference: str) -> Any:
        value = self._root
        for step in reference.lstrip("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            value = value[int(name)] if isinstance(value, list) else value[name]
        return value

    def _pick(self, options: Sequence[Any], place: str) -> Any:
        return options[number(self._digest, f"pick {place}", len(options))]

    def _typed(self, schema: Mapping[str, Any], place: str, depth: int) -> Any:
        types = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(types, list):
            types = "null" if "null" in types and depth >= DEEP else self._pick(types, f"type {place}")
        if types == "object":
            return self._object(schema, place, depth)
        if types == "array":
            return self._array(schema, place, depth)
        if types in ("integer", "number"):
            if self._is_meant and self._words.isdecimal() and not _BOUNDS & schema.keys():
                return int(self._words)
            return self._number(schema, place, is_whole=types == "integer")
        if types == "boolean":
            return bool(number(self._digest, place, 2))
        return None if types == "null" else self._text(schema, place)

    def _object(self, schema: Mapping[str, Any], place: str, depth: int) -> dict[str, Any]:
        required = schema.get("required", ())
        return {
            name: self.value(inner, f"{place}.{name}", depth + 1)
            for name, inner in schema.get("properties", {}).items()
            if name in required or (depth < DEEP and number(self._digest, f"optional {place}.{name}", 2))
        }

    def _array(self, schema: Mapping[str, Any], place: str, depth: int) -> list[Any]:
        least = int(schema.get("minItems", 0))
        most = min(int(schema.get("maxItems", least + 2)), least + 2)
        length = least if depth >= DEEP else least + number(self._digest, f"length {place}", max(1, most - least + 1))
        firsts = schema.get("prefixItems") or []
        if firsts and not isinstance(schema.get("items"), Mapping):
            length = min(length, len(firsts))
        items = [
            self.value(firsts[at] if at < len(firsts) else schema.get("items"), f"{place}[{at}]", depth + 1)
            for at in range(max(least, length))
        ]
        if not schema.get("uniqueItems"):
            return items
        return [item for at, item in enumerate(items) if item not in items[:at]]

    def _number(self, schema: Mapping[str, Any], place: str, *, is_whole: bool) -> int | float:
        step = schema.get("multipleOf") or (1 if is_whole else 0.25)
        least, most = schema.get("minimum"), schema.get("maximum")
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        if least is None:
            least = above + step if isinstance(above, int | float) and not isinstance(above, bool) else None
        if most is None:
            most = below - step if isinstance(below, int | float) and not isinstance(below, bool) else None
        least = least if least is not None else min(_LEAST, most - 10) if most is not None else _LEAST
        most = most if most is not None else max(_MOST, least + 10)
        first = -(-least // step)
        count = max(1, int(most // step - first) + 1)
        found = (first + number(self._digest, f"number {place}", count)) * step
        return int(found) if is_whole else round(float(found), 9)

    def _text(self, schema: Mapping[str, Any], place: str) -> str:
        if isinstance(schema.get("pattern"), str):
            return _of_pattern(schema["pattern"], self._digest, place) or self._words
        if schema.get("format") in _SAMPLES:
            return _SAMPLES[schema["format"]](number(self._digest, place, 10_000))
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        text = self._words.ljust(least, "o")
        return text if most is None else text[: int(most)]


# --- texts of a pattern ---

_LONGEST_REPEAT = 3  # of what may be repeated without end, beyond the least
_CATEGORIES: Final = {"CATEGORY_DIGIT": "0123456789", "CATEGORY_WORD": "abcxyz019_", "CATEGORY_SPACE": " "}
_PLAIN: Final = "abcdefghijklmnopqrstuvwxyz0123456789 -_.,:/ABC"


def _of_pattern(pattern: str, digest: bytes, place: str) -> str | None:
    """A text that a pattern matches; None where the pattern is none of Python's."""
    parser = importlib.import_module("re._parser")  # the standard library has no other way to look into a pattern
    try:
        text = "".join(_matching(parser.parse(pattern), digest, place))
        return text if re.search(pattern, text) else None
    except (re.error, OverflowError, RecursionError, KeyError):
        return None


def _matching(parsed: Any, digest: bytes, place: str) -> list[str]:
    found = []
    for at, (operation, argument) in enumerate(parsed):
        here = f"{place}/{at}"
        match str(operation):
            case "LITERAL":
                found.append(chr(argument))
            case "NOT_LITERAL":
                found.append(next(each for each in _PLAIN if ord(each) != argument))
            case "ANY":
                found.append(_PLAIN[number(digest, here, 26)])
            case "IN":
                found.append(_of_set(argument, digest, here))
            case "BRANCH":
                found += _matching(argument[1][number(digest, here, len(argument[1]))], digest, here)
            case "SUBPATTERN":
                found += _matching(argument[-1], digest, here)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, inner = argument
                times = least + number(digest, here, min(int(most) - least, _LONGEST_REPEAT) + 1)
                for turn in range(times):
                    found += _matching(inner, digest, f"{here}*{turn}")
            case "ATOMIC_GROUP":
                found += _matching(argument, digest, here)
            case "AT":
                pass  # the text is nothing but the match
            case other:
                raise KeyError(other)
    return found


def _of_set(members: Any, digest: bytes, place: str) -> str:
    """A character of a set; of one that says what must not be, the first plain one that is not in it."""
    characters = ""
    for operation, argument in members:
        match str(operation):
            case "LITERAL":
                characters += chr(argument)
            case "RANGE":
                characters += "".join(map(chr, range(argument[0], min(argument[1], argument[0] + 40) + 1)))
            case "CATEGORY":
                characters += _CATEGORIES.get(str(argument), _PLAIN)
    if str(members[0][0]) == "NEGATE":
        return next(each for each in _PLAIN if each not in characters)
    return characters[number(digest, place, len(characters))]
