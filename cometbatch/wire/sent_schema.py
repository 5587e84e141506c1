"""The schema that is sent: a weakened copy of the user's, with what a format takes and nothing else.

Law: what fits the user's schema fits the one that is sent, but for properties that are left out, which a strict format
wants as null, and for properties that the user's schema does not name. The user's own schema is what answers are
checked against. What a format can't express at all is a `Problem`, never left out silently.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct

from cometbatch.prompt.schema_tree import (
    NULL,
    Path,
    Schema,
    allows_null,
    branches,
    inner_schemas,
    pointer_of,
    resolved,
    target_of,
    types_of,
)
from cometbatch.wire import chat, gemini, messages, responses

MAX_PROPERTIES: Final = 5_000  # of a strict schema, in all objects together
MAX_LEVELS: Final = 10  # objects of a strict schema within each other
MAX_NAME_CHARS: Final = 120_000  # of all names and fixed values of a strict schema
MAX_FIXED_VALUES: Final = 1_000  # in all enums of a strict schema
LONG_ENUM, MAX_LONG_ENUM_CHARS = 250, 15_000  # from how many values on an enum's characters are bounded, and to what
MAX_SCHEMAS: Final = 20_000  # within a schema that is sent: where each $ref is written out, a small one can be immense

_STRICT_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
_BOUNDS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_UNTOLD: Final = frozenset(
    {
        "$anchor",
        "$comment",
        "$defs",
        "$id",
        "$ref",
        "$schema",
        "$vocabulary",
        "allOf",
        "anyOf",
        "additionalProperties",
        "const",
        "definitions",
        "deprecated",
        "description",
        "discriminator",
        "enum",
        "items",
        "nullable",
        "oneOf",
        "prefixItems",
        "properties",
        "readOnly",
        "required",
        "title",
        "type",
        "writeOnly",
    }
)
"""Keywords that are never told in words: they are sent as they are, or by a rule of their own, or say nothing."""


class Dialect(Struct, frozen=True):
    """What a format takes. `kept`: keywords that are sent as they are; the others are told in `description`.

    `is_strict`: every property is required, an optional one may be null. `is_closed`: objects name all properties, and
    each schema its type. `all_of`: it takes `allOf`. `root_object`: the whole answer is an object. `formats`: values of
    `format` that it takes; None for all. `min_items`: values of `minItems` that it takes, None for all. `plain_enum`:
    fixed values are texts and numbers in an `enum`. `keeps_title`; `keeps_tuples`: `prefixItems`. `optional_circles`: a
    schema may hold itself only in a property that is not required.
    """

    kept: frozenset[str]
    is_strict: bool = False
    is_closed: bool = True
    all_of: bool = False
    root_object: bool = False
    formats: frozenset[str] | None = None
    min_items: tuple[int, ...] | None = None
    plain_enum: bool = False
    keeps_title: bool = True
    keeps_tuples: bool = False
    optional_circles: bool = False


_STRICT: Final = Dialect(
    frozenset({"pattern", "format", "minItems", "maxItems"}) | _BOUNDS,
    is_strict=True,
    root_object=True,
    formats=_STRICT_FORMATS,
    keeps_title=False,
)
DIALECTS: Final[Mapping[str, Dialect]] = MappingProxyType(
    {
        chat.NAME: _STRICT,
        responses.NAME: _STRICT,
        messages.NAME: Dialect(
            frozenset({"format", "minItems"}), all_of=True, formats=_STRICT_FORMATS | {"uri"}, min_items=(0, 1)
        ),
        gemini.NAME: Dialect(
            frozenset({"format", "minItems", "maxItems", "minimum", "maximum", "propertyOrdering"}),
            is_closed=False,
            plain_enum=True,
            keeps_tuples=True,
            optional_circles=True,
        ),
    }
)
"""What each format takes (OpenAI's and Anthropic's own libraries, and the description of Gemini's)."""


class Problem(Struct, frozen=True):
    """What a format can't express. `path`: where in the user's schema."""

    path: str
    words: str


class SentSchema(Struct, frozen=True):
    """The schema that is sent, and what of the user's schema can't be expressed in it: then it is not to be sent."""

    schema: dict[str, Any]
    problems: tuple[Problem, ...] = ()


def sent_schema(format_name: str, schema: Schema, *, root_object: bool = False) -> SentSchema:
    """The schema to send in a format. `root_object`: the answer is sent as an object, as calls of tools are."""
    dialect = DIALECTS[format_name]
    weakening = _Weakening(schema, dialect)
    made = weakening.whole(root_object=root_object or dialect.root_object)
    return SentSchema(made, tuple(dict.fromkeys(weakening.problems)))


class _Weakening:
    """One pass over a user's schema. `problems`: what was found that can't be expressed."""

    def __init__(self, root: Schema, dialect: Dialect) -> None:
        self.problems: list[Problem] = []
        self._root = root
        self._dialect = dialect
        self._names: dict[Path, str] = {}  # of what `$ref`s lead to
        self._waiting: list[Path] = []
        self._inlined: list[Path] = []
        self._count = 0

    def whole(self, *, root_object: bool) -> dict[str, Any]:
        """The schema that is sent."""
        top = resolved(self._root, self._root)
        made = self._schema(top, ())
        if root_object and made.get("type") != "object":
            self._refuse((), "the answer as a whole must be an object with properties")
        defs: dict[str, Any] = {}
        while self._waiting:
            path = self._waiting.pop(0)
            defs[self._names[path]] = self._schema(_at(self._root, path), path)
        if defs:
            made["$defs"] = defs
        if self._dialect.is_strict and not self.problems:
            self.problems += _beyond_limits(made)
        if self._dialect.optional_circles and not self.problems:
            self._refuse_circles()
        return made

    def _refuse(self, path: Path, words: str) -> None:
        self.problems.append(Problem(pointer_of(path), words))

    def _schema(self, schema: Schema, path: Path) -> dict[str, Any]:
        self._count += 1
        if self._count > MAX_SCHEMAS:
            if self._count == MAX_SCHEMAS + 1:
                self._refuse((), "the schema is too large once each $ref is written out")
            return {}
        if not isinstance(schema, Mapping):
            if schema is not True or self._dialect.is_closed:
                self._refuse(path, "a schema must say of which type a value is")
            return {}
        if "$ref" in schema:
            return self._reference(schema, path)
        alternatives = schema.get("allOf")
        if alternatives:
            return self._all_of(schema, path)
        return self._plain(schema, path)

    def _reference(self, schema: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """A `$ref` alone stays one; one beside other keywords is written out, once where it holds itself."""
        found = target_of(self._root, schema["$ref"])
        if found is None:
            self._refuse(path, "$ref leads nowhere")
            return {}
        place, target = found
        is_alone = all(word in {"$ref", "$defs", "definitions", "$schema", "$id", "$comment"} for word in schema)
        if is_alone or place in self._inlined:
            return {"$ref": self._name(place)}
        self._inlined.append(place)
        try:
            return self._schema(resolved(self._root, schema) if isinstance(target, Mapping) else target, path)
        finally:
            self._inlined.pop()

    def _name(self, place: Path) -> str:
        if not place:
            return "#"
        if place not in self._names:
            plain = re.sub(r"[^A-Za-z0-9_-]", "_", str(place[-1]))[:60] or "schema"
            taken, name, number = set(self._names.values()), plain, 2
            while name in taken:
                name, number = f"{plain}_{number}", number + 1
            self._names[place] = name
            self._waiting.append(place)
        return f"#/$defs/{self._names[place]}"

    def _all_of(self, schema: Mapping[str, Any], path: Path) -> dict[str, Any]:
        parts = schema["allOf"]
        if len(parts) == 1:
            return self._schema(resolved(self._root, schema), (*path, "allOf", 0))
        if not self._dialect.all_of:
            self._refuse((*path, "allOf"), "allOf can't be sent in this format")
            return {}
        for part in parts:
            found = resolved(self._root, part)
            if isinstance(found, Mapping) and "object" in types_of(found):
                self._refuse((*path, "allOf"), "allOf of objects can't be sent: each would have to name all properties")
                return {}
        rest = {word: value for word, value in schema.items() if word != "allOf"}
        made = self._plain(rest, path) if types_of(rest) or branches(rest) else self._told(rest, {})
        return made | {"allOf": [self._schema(part, (*path, "allOf", at)) for at, part in enumerate(parts)]}

    def _plain(self, schema: Mapping[str, Any], path: Path) -> dict[str, Any]:
        types = types_of(schema)
        made: dict[str, Any] = {}
        moved = self._keywords(schema, made)
        choice = branches(schema)
        if types:
            made = {"type": types[0] if len(types) == 1 else list(types)} | made
            moved |= {word: schema[word] for word in ("anyOf", "oneOf") if choice and word in schema}
        elif choice:
            word = "anyOf" if schema.get("anyOf") else "oneOf"
            made["anyOf"] = [self._schema(each, (*path, word, at)) for at, each in enumerate(choice)]
        elif self._dialect.is_closed:
            self._refuse(path, "a schema must say of which type a value is")
        if "object" in types:
            self._object(schema, path, made, moved)
        if "array" in types:
            self._array(schema, path, made, moved)
        self._fixed(schema, made, moved)
        return self._told(schema, made, moved)

    def _keywords(self, schema: Mapping[str, Any], made: dict[str, Any]) -> dict[str, Any]:
        """Put what is kept into `made`; returns what is to be told in words."""
        dialect = self._dialect
        moved: dict[str, Any] = {}
        for word, value in schema.items():
            if word in _UNTOLD or word.startswith("x-") or (word == "default" and value is None):
                continue
            is_kept = word in dialect.kept and not isinstance(value, bool)  # a bool: a bound of JSON Schema 4
            if word == "format" and dialect.formats is not None:
                is_kept = is_kept and value in dialect.formats
            if word == "minItems" and dialect.min_items is not None:
                is_kept = is_kept and value in dialect.min_items
            (made if is_kept else moved)[word] = value
        return moved

    def _object(self, schema: Mapping[str, Any], path: Path, made: dict[str, Any], moved: dict[str, Any]) -> None:
        names = schema.get("properties")
        properties: Mapping[str, Any] = names if isinstance(names, Mapping) else {}
        required = [name for name in schema.get("required") or () if isinstance(name, str)]
        others = schema.get("additionalProperties")
        if self._dialect.is_closed:
            is_named = "properties" in schema or others is False
            if others not in (None, False) or schema.get("patternProperties") or not is_named:
                self._refuse(path, "an object must name all of its properties, and may have no others")
            if lost := [name for name in required if name not in properties]:
                self._refuse(path, f"required names {lost[0]!r}, which properties has not")
            others = False
        sent = {name: self._schema(each, (*path, "properties", name)) for name, each in properties.items()}
        if self._dialect.is_strict:
            for name in sent.keys() - set(required):
                sent[name] = self._or_null(properties[name], sent[name])
            required = list(sent)
        if sent or self._dialect.is_closed:
            made["properties"] = sent
        if required or self._dialect.is_strict:
            made["required"] = required
        if isinstance(others, Mapping):
            others = self._schema(others, (*path, "additionalProperties"))
        if others is not None:
            made["additionalProperties"] = others
        moved.pop("unevaluatedProperties", None)

    def _or_null(self, schema: Schema, sent: dict[str, Any]) -> dict[str, Any]:
        if allows_null(self._root, schema):
            return sent
        if sent.keys() == {"anyOf"}:
            return {"anyOf": [*sent["anyOf"], NULL]}
        return {"anyOf": [sent, NULL]}

    def _array(self, schema: Mapping[str, Any], path: Path, made: dict[str, Any], moved: dict[str, Any]) -> None:
        items, places = schema.get("items"), schema.get("prefixItems")
        word = "prefixItems"
        if isinstance(items, Sequence) and not isinstance(items, str):
            items, places, word = schema.get("additionalItems"), items, "items"
            moved.pop("additionalItems", None)
        if not places:
            if isinstance(items, Mapping):
                made["items"] = self._schema(items, (*path, "items"))
            elif self._dialect.is_closed:
                self._refuse(path, "an array must say what its items are")
            return
        firsts = [self._schema(each, (*path, word, at)) for at, each in enumerate(places)]
        rest = self._schema(items, (*path, "items")) if isinstance(items, Mapping) else None
        if self._dialect.keeps_tuples:
            made["prefixItems"] = firsts
            if rest is not None:
                made["items"] = rest
            return
        longest = schema.get("maxItems")
        if rest is None and items is not False and not (isinstance(longest, int) and longest <= len(firsts)):
            self._refuse(path, "an array must say what all of its items are")
        each = [*firsts, *([] if rest is None else [rest])]
        different = [one for at, one in enumerate(each) if one not in each[:at]]
        made["items"] = different[0] if len(different) == 1 else {"anyOf": different}
        moved["prefixItems"] = places

    def _fixed(self, schema: Mapping[str, Any], made: dict[str, Any], moved: dict[str, Any]) -> None:
        """`enum` and `const`."""
        word = "const" if "const" in schema else "enum"
        if word not in schema:
            return
        values = [schema["const"]] if word == "const" else list(schema["enum"])
        if any(isinstance(value, Mapping | list) for value in values):
            moved[word] = schema[word]
        elif not self._dialect.plain_enum:
            made[word] = schema[word]
        elif any(isinstance(value, bool) for value in values) or not (plain := [v for v in values if v is not None]):
            moved[word] = schema[word]
        elif len(plain) == len(values):
            made["enum"] = values
        else:
            types = [each for each in types_of(schema) if each != "null"]
            made.pop("type", None)
            one = {"type": types[0] if len(types) == 1 else types, "enum": plain}
            made["anyOf"] = [one, NULL]

    def _told(
        self, schema: Mapping[str, Any], made: dict[str, Any], moved: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, Any]:
        """With title and description, in which stands what is told in words."""
        title, words = schema.get("title"), schema.get("description")
        if title is not None and self._dialect.keeps_title:
            made = {"title": title} | made
        elif words is None:
            words = title
        said = "\n\n".join([*([words] if isinstance(words, str) and words else []), *([tell(moved)] if moved else [])])
        return {"description": said} | made if said else made

    def _refuse_circles(self) -> None:
        """Note a schema that holds itself by way of properties that are all required."""
        for place in [(), *self._names]:
            if any(place == reached for reached, _ in self._required_references(place, set())):
                self._refuse(place, "what holds itself can't be in a required property")

    def _required_references(self, place: Path, seen: set[Path]) -> Iterator[tuple[Path, Schema]]:
        """Where the `$ref`s lead that a value of this schema must have, directly or by way of others."""
        waiting = [resolved(self._root, _at(self._root, place))]
        while waiting:
            schema = waiting.pop()
            if not isinstance(schema, Mapping):
                continue
            if "$ref" in schema and (found := target_of(self._root, schema["$ref"])) is not None:
                is_new = found[0] not in seen
                seen.add(found[0])
                if is_new:
                    yield found
                    waiting.append(found[1])
            required = schema.get("required") or ()
            for path, inner in inner_schemas(schema):
                if path[0] not in {"$defs", "definitions"} and (path[0] != "properties" or path[1] in required):
                    waiting.append(inner)


def _at(root: Schema, path: Path) -> Schema:
    for step in path:
        root = root[step]
    return root


def _beyond_limits(schema: Mapping[str, Any]) -> Iterator[Problem]:
    """In what a strict schema is larger than what is taken."""
    properties = characters = values = 0
    for inner in _everywhere(schema):
        names = inner.get("properties", {})
        fixed = [*inner.get("enum", ()), *([inner["const"]] if "const" in inner else ())]
        properties += len(names)
        values += len(inner.get("enum", ()))
        lengths = [len(str(each)) for each in fixed]
        characters += sum(map(len, [*names, *inner.get("$defs", {})])) + sum(lengths)
        if len(inner.get("enum", ())) > LONG_ENUM and sum(lengths) > MAX_LONG_ENUM_CHARS:
            yield Problem("#", f"an enum of more than {LONG_ENUM} values may have {MAX_LONG_ENUM_CHARS:,} characters")
    counted = (
        (properties, MAX_PROPERTIES, "properties"),
        (characters, MAX_NAME_CHARS, "characters of names and fixed values"),
        (values, MAX_FIXED_VALUES, "values in its enums"),
        (_levels(schema, schema, frozenset()), MAX_LEVELS, "objects within each other"),
    )
    for found, most, words in counted:
        if found > most:
            yield Problem("#", f"the schema has {found:,} {words}, and at most {most:,} can be sent")


def _everywhere(schema: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(schema, Mapping):
        yield schema
        for _, inner in inner_schemas(schema):
            yield from _everywhere(inner)


def _levels(root: Schema, schema: Any, within: frozenset[str]) -> int:
    """How many objects are within each other at most; one that holds itself counts once."""
    if not isinstance(schema, Mapping):
        return 0
    if "$ref" in schema:
        found = target_of(root, schema["$ref"])
        if found is None or schema["$ref"] in within:
            return 0
        return _levels(root, found[1], within | {schema["$ref"]})
    inner = [each for path, each in inner_schemas(schema) if path[0] != "$defs"]
    return ("properties" in schema) + max((_levels(root, each, within) for each in inner), default=0)


# --- keywords in words ---

_WORD: Final = re.compile(r"[, ]*([$\w-]+): ")


def tell(keywords: Mapping[str, Any]) -> str:
    """Keywords as words for a description: `{minimum: 1, maximum: 10}`."""
    told = (f"{word}: {json.dumps(value, ensure_ascii=False)}" for word, value in keywords.items())
    return "{" + ", ".join(told) + "}"


def told_in(description: object) -> dict[str, Any]:
    """The keywords that `tell` wrote at the end of a description; none where there are none."""
    if not isinstance(description, str):
        return {}
    words = description.rpartition("\n\n")[2]
    decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode
    found: dict[str, Any] = {}
    at = 1
    while words.startswith("{") and at < len(words) - 1:
        match = _WORD.match(words, at)
        if match is None:
            return {}
        try:
            found[match[1]], at = decode(words, match.end())
        except ValueError:
            return {}
    return found
