"""What of a schema a format can't express, and what is sent where a rare form of it can be."""

from typing import Any

import pytest

from cometbatch.wire import chat, gemini, messages
from cometbatch.wire.sent_schema import MAX_LONG_ENUM_CHARS, Problem, sent_schema, told_in

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}


def of(name: str, schema: Any, **others: Any) -> dict[str, Any]:
    """An object with one property, which is required."""
    return {"type": "object", "properties": {name: schema}, "required": [name], **others}


def levels(count: int) -> dict[str, Any]:
    """Objects within each other."""
    schema: dict[str, Any] = TEXT
    for _ in range(count):
        schema = of("a", schema)
    return schema


def doubling(count: int) -> dict[str, Any]:
    """Each definition holds the next one twice, with words beside it: written out, it is of 2 ** count schemas."""
    inner = {
        f"d{at}": {"anyOf": [{"$ref": f"#/$defs/d{at + 1}", "title": word} for word in "ab"]} for at in range(count)
    }
    return of("a", {"$ref": "#/$defs/d0", "title": "c"}, **{"$defs": {**inner, f"d{count}": TEXT}})


NO_TYPE = "a schema must say of which type a value is"
NOT_ALL_ITEMS = "an array must say what all of its items are"
LONG = [f"{at:0100}" for at in range(251)]
REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "anything": (chat.NAME, of("a", True), "#/properties/a", NO_TYPE),
    "nothing": (gemini.NAME, of("a", False), "#/properties/a", NO_TYPE),
    "a reference to nowhere": (chat.NAME, of("a", {"$ref": "#/$defs/b"}), "#/properties/a", "$ref leads nowhere"),
    "both of two": (
        chat.NAME, of("a", {"allOf": [TEXT, {"minLength": 2}]}), "#/properties/a/allOf",
        "allOf can't be sent in this format",
    ),
    "both of two objects": (
        messages.NAME, of("a", {"allOf": [of("b", TEXT), of("c", TEXT)]}), "#/properties/a/allOf",
        "allOf of objects can't be sent: each would have to name all properties",
    ),
    "required and not named": (
        chat.NAME, of("a", TEXT) | {"required": ["a", "b"]}, "#", "required names 'b', which properties has not",
    ),
    "a list of anything": (
        chat.NAME, of("a", {"type": "array"}), "#/properties/a", "an array must say what its items are",
    ),
    "a pair and more": (chat.NAME, of("a", {"type": "array", "prefixItems": [TEXT]}), "#/properties/a", NOT_ALL_ITEMS),
    "a pair and more, as written before 2020": (
        messages.NAME, of("a", {"items": [TEXT, NUMBER], "maxItems": 3}), "#/properties/a", NOT_ALL_ITEMS,
    ),
    "immense": (gemini.NAME, doubling(15), "#", "the schema is too large once each $ref is written out"),
    "a long enum of long values": (
        chat.NAME, of("a", {"enum": LONG}), "#",
        f"an enum of more than 250 values may have {MAX_LONG_ENUM_CHARS:,} characters",
    ),
    "too many values": (
        chat.NAME, of("a", {"enum": list(range(1_001))}), "#",
        "the schema has 1,001 values in its enums, and at most 1,000 can be sent",
    ),
    "too many characters": (
        chat.NAME, of("a" * 120_001, TEXT), "#",
        "the schema has 120,001 characters of names and fixed values, and at most 120,000 can be sent",
    ),
    "too many properties": (
        chat.NAME, {"type": "object", "properties": {str(at): TEXT for at in range(5_001)}}, "#",
        "the schema has 5,001 properties, and at most 5,000 can be sent",
    ),
    "too many levels": (
        chat.NAME, levels(11), "#", "the schema has 11 objects within each other, and at most 10 can be sent",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_format_can_not_express_is_said_once_with_its_place(name: str) -> None:
    """It is never left out silently."""
    format_name, schema, path, words = REFUSED[name]
    assert sent_schema(format_name, schema).problems == (Problem(path, words),)


MANY = {"enum": [f"{at:050}" for at in range(251)]}
STRUCTURES = [{"b": 1}, {"b": 2}]
SENT: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "anything": (gemini.NAME, True, {}),
    "a pair": (
        gemini.NAME, {"type": "array", "prefixItems": [TEXT, NUMBER]}, {"type": "array", "prefixItems": [TEXT, NUMBER]},
    ),
    "a pair and more": (
        gemini.NAME, {"type": "array", "prefixItems": [TEXT], "items": NUMBER},
        {"type": "array", "prefixItems": [TEXT], "items": NUMBER},
    ),
    "a pair and more, as written before 2020": (
        gemini.NAME, {"type": "array", "items": [TEXT], "additionalItems": NUMBER},
        {"type": "array", "prefixItems": [TEXT], "items": NUMBER},
    ),
    "a pair of one kind": (
        chat.NAME, {"type": "array", "prefixItems": [TEXT, TEXT], "items": False},
        {"type": "array", "items": TEXT, "description": '{prefixItems: [{"type": "string"}, {"type": "string"}]}'},
    ),
    "a list of anything": (gemini.NAME, {"type": "array"}, {"type": "array"}),
    "structures to choose from": (
        messages.NAME, of("b", NUMBER) | {"enum": STRUCTURES},
        of("b", NUMBER, additionalProperties=False) | {"description": '{enum: [{"b": 1}, {"b": 2}]}'},
    ),
    "a long enum of short values": (chat.NAME, MANY, MANY | {"type": "string"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SENT)
def test_rare_forms_are_sent_like_this(name: str) -> None:
    """As the format has it, and else in words."""
    format_name, schema, expected = SENT[name]
    sent = sent_schema(format_name, of("a", schema))
    assert (sent.problems, sent.schema["properties"]["a"]) == ((), expected)


OPTIONAL: list[tuple[Any, Any]] = [
    (TEXT, {"anyOf": [TEXT, {"type": "null"}]}),
    ({"anyOf": [TEXT, NUMBER]}, {"anyOf": [TEXT, NUMBER, {"type": "null"}]}),
    ({"anyOf": [TEXT, {"type": "null"}]}, {"anyOf": [TEXT, {"type": "null"}]}),
    ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
]


@pytest.mark.parametrize(("schema", "expected"), OPTIONAL)
def test_an_optional_property_of_a_strict_format_may_be_null(schema: Any, expected: Any) -> None:
    """Null is added where it is not allowed yet, and to a choice as one more."""
    sent = sent_schema(chat.NAME, of("a", schema) | {"required": []})
    assert sent.schema["properties"]["a"] == expected
    assert sent.schema["required"] == ["a"]


def test_two_definitions_of_one_name_stay_two() -> None:
    """Wherever in the user's schema each of them stands."""
    both = {"a": {"$ref": "#/$defs/It"}, "b": {"$ref": "#/definitions/It"}, "c": {"$ref": "#/$defs/more/It"}}
    defs = {"$defs": {"It": TEXT, "more": {"It": {"type": "boolean"}}}, "definitions": {"It": NUMBER}}
    made = sent_schema(chat.NAME, {"type": "object", "properties": both, "required": list(both), **defs}).schema
    assert made["$defs"] == {"It": TEXT, "It_2": NUMBER, "It_3": {"type": "boolean"}}
    assert [each["$ref"] for each in made["properties"].values()] == ["#/$defs/It", "#/$defs/It_2", "#/$defs/It_3"]


NO_KEYWORDS = [None, 7, "", "Of a place.", "{a}", "{a: 1, b}", "{a: yes}", "{a: 1, b: }", "{a: 1}\n\nb"]


@pytest.mark.parametrize("words", NO_KEYWORDS)
def test_words_of_a_persons_own_are_no_keywords(words: object) -> None:
    """A description that only looks like what was told is left alone."""
    assert told_in(words) == {}
