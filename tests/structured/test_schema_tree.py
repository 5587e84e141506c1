"""Where a `$ref` leads, what a schema says with it, and which types and nulls it lets be."""

from typing import Any

import pytest

from cometbatch.prompt.schema_tree import all_schemas, allows_null, branches, resolved, target_of, types_of

TEXT = {"type": "string"}
NAMED: dict[str, Any] = {
    "$id": "https://example.com/s.json#",
    "$defs": {"T": TEXT, "a/b~c": {"type": "integer"}, "N": {"$anchor": "named", "type": "null"}},
    "anyOf": [{"$ref": "#/$defs/T"}, {"type": "boolean"}],
}


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("#", ((), NAMED)),
        ("#/$defs/T", (("$defs", "T"), TEXT)),
        ("#/%24defs/T", (("$defs", "T"), TEXT)),
        ("#/$defs/a~1b~0c", (("$defs", "a/b~c"), {"type": "integer"})),
        ("#/anyOf/1", (("anyOf", 1), {"type": "boolean"})),
        ("#/anyOf/2", None),
        ("#/anyOf/x", None),
        ("#/$defs/T/type/0", None),
        ("#named", (("$defs", "N"), {"$anchor": "named", "type": "null"})),
        ("#nobody", None),
        ("https://example.com/s.json", ((), NAMED)),
        ("https://example.com/s.json#/$defs/T", (("$defs", "T"), TEXT)),
        ("https://example.com/s.json#named", (("$defs", "N"), {"$anchor": "named", "type": "null"})),
        ("https://example.org/other.json", None),
        (7, None),
    ],
)
def test_a_reference_leads_to_a_place_of_the_schema_itself(reference: object, found: object) -> None:
    """By its pointer, by an anchor, or by the schema's own address; one to anywhere else leads nowhere."""
    assert target_of(NAMED, reference) == found


def test_a_truth_value_holds_no_schemas() -> None:
    """Nor do the data in `enum` and `const`."""
    assert list(all_schemas(True)) == []
    within: dict[str, Any] = {"items": True, "anyOf": [False, TEXT], "properties": {"a": True}, "const": {"not": TEXT}}
    assert [path for path, _ in all_schemas(within)] == [(), ("anyOf", 1)]


ROOT: dict[str, Any] = {
    "$defs": {
        "One": {"type": "object", "properties": {"a": TEXT}, "required": ["a"], "$defs": {"x": TEXT}},
        "Any": True,
        "Here": {"$ref": "#/$defs/There"},
        "There": {"$ref": "#/$defs/Here"},
    }
}


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        (TEXT, TEXT),
        (True, True),
        ({"$ref": "#/$defs/One"}, ROOT["$defs"]["One"]),
        ({"$ref": "#/$defs/One", "title": "It"}, ROOT["$defs"]["One"] | {"title": "It"}),
        (
            {"$ref": "#/$defs/One", "properties": {"b": TEXT}, "required": ["b", "a"], "$defs": {"y": TEXT}},
            {
                "type": "object",
                "properties": {"a": TEXT, "b": TEXT},
                "required": ["a", "b"],
                "$defs": {"x": TEXT, "y": TEXT},
            },
        ),
        ({"$ref": "#/$defs/Any"}, True),
        ({"$ref": "#/$defs/Any", "type": "string"}, {"$ref": "#/$defs/Any", "type": "string"}),
        ({"$ref": "#/nowhere"}, {"$ref": "#/nowhere"}),
        ({"$ref": "#/$defs/Here"}, {"$ref": "#/$defs/Here"}),
        ({"allOf": [TEXT], "title": "It"}, {"type": "string", "title": "It"}),
        ({"allOf": [{"$ref": "#/$defs/One"}]}, ROOT["$defs"]["One"]),
        ({"allOf": [True]}, {"allOf": [True]}),
        ({"allOf": [TEXT, TEXT]}, {"allOf": [TEXT, TEXT]}),
    ],
)
def test_a_schema_says_what_its_reference_and_its_own_words_say_together(schema: Any, found: Any) -> None:
    """A reference in a circle, or to nowhere, stays as it is, as does what can't be joined."""
    assert resolved(ROOT, schema) == found


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"type": "string", "const": 1}, ["string"]),
        ({"type": ["string", "null"]}, ["string", "null"]),
        ({"const": None}, ["null"]),
        ({"const": [1]}, ["array"]),
        ({"enum": [True, 1, 2, 1.5, "x", {}, []]}, ["boolean", "integer", "number", "string", "object", "array"]),
        ({"properties": {"a": TEXT}}, ["object"]),
        ({"items": TEXT}, ["array"]),
        ({"prefixItems": [TEXT]}, ["array"]),
        ({"minLength": 2}, []),
    ],
)
def test_the_types_of_a_schema_are_those_that_it_is_about(schema: dict[str, Any], types: list[str]) -> None:
    """Those it names; else those of its fixed values; else objects or lists, where it speaks of their parts."""
    assert types_of(schema) == types


@pytest.mark.parametrize(
    ("schema", "is_allowed"),
    [
        (True, True),
        (False, False),
        ({}, True),
        ({"type": "null"}, True),
        ({"type": ["string", "null"]}, True),
        (TEXT, False),
        ({"minLength": 2}, False),
        ({"const": None}, True),
        ({"const": 1}, False),
        ({"enum": [1, None]}, True),
        ({"enum": [1]}, False),
        ({"anyOf": [TEXT, {"type": "null"}]}, True),
        ({"oneOf": [TEXT, True]}, True),
        ({"anyOf": [TEXT, {"type": "integer"}]}, False),
        ({"type": "string", "anyOf": [TEXT, {"type": "null"}]}, False),
        ({"$ref": "#/$defs/Any"}, True),
    ],
)
def test_null_is_allowed_where_the_form_of_a_schema_tells_so(schema: Any, is_allowed: bool) -> None:
    """What can't be told counts as no."""
    assert allows_null(ROOT, schema) is is_allowed


def test_a_choice_that_is_no_list_is_none() -> None:
    """So that a schema that can't be compiled does not break what looks at it."""
    assert branches({"anyOf": "text"}) == branches({"oneOf": 1}) == branches({}) == []
    assert branches({"anyOf": [], "oneOf": [TEXT]}) == [TEXT]
