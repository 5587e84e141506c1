"""The check of one answer: the cells that it makes, the words for a misfit, nulls left out, and schemas refused."""

import sys
from datetime import UTC, date, datetime
from typing import Any

import pytest

from cometbatch.prompt.answers import MAX_LINE_CHARS, Fits, Misfit
from cometbatch.prompt.schema import MISSING_EXTRA, MissingExtraError, SchemaChecker, SchemaError, checker_for
from cometbatch.prompt.shape import MAX_DEPTH, Shape, columns_of

TEXT, INTEGER = {"type": "string"}, {"type": "integer"}
NODE: dict[str, Any] = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Link"}}}
LINK: dict[str, Any] = {"type": "object", "properties": {"node": {"$ref": "#/$defs/Node"}}}


def of(**properties: Any) -> dict[str, Any]:
    """An object of these properties."""
    return {"type": "object", "properties": properties}


def deep(levels: int) -> dict[str, Any]:
    """Definitions of which each is an object that holds the next."""
    chain = {str(at): of(a={"$ref": f"#/$defs/{at + 1}"}) for at in range(levels)}
    return of(top={"$ref": "#/$defs/0"}) | {"$defs": {**chain, str(levels): TEXT}}


@pytest.mark.parametrize(
    ("schema", "shape"),
    [
        (TEXT, Shape("text")),
        ({"type": "string", "format": "date"}, Shape("date")),
        ({"type": "string", "format": "date-time"}, Shape("moment")),
        ({"type": "string", "format": "email"}, Shape("text")),
        ({"type": ["integer", "number", "null"]}, Shape("number")),
        ({"type": ["integer", "string"]}, Shape("json")),
        ({"type": "null"}, Shape("json")),
        ({"enum": [True, None]}, Shape("flag")),
        (True, Shape("json")),
        ({}, Shape("json")),
        ({"$ref": "#/properties/it"}, Shape("json")),
        ({"allOf": [TEXT, TEXT]}, Shape("json")),
        ({"anyOf": [TEXT, {"type": "null"}]}, Shape("text")),
        ({"anyOf": [TEXT, TEXT]}, Shape("text")),
        ({"anyOf": [TEXT, INTEGER]}, Shape("json")),
        ({"anyOf": [{"type": "null"}, True]}, Shape("json")),
        ({"anyOf": [of(a=TEXT), of(a=TEXT)]}, Shape("json")),
        ({"type": "array", "items": INTEGER}, Shape("list", item=Shape("integer"))),
        ({"type": "array"}, Shape("json")),
        ({"type": "array", "items": TEXT, "prefixItems": [TEXT]}, Shape("json")),
        (of(a=TEXT), Shape("struct", fields=(("a", Shape("text")),))),
        (of(a=TEXT) | {"additionalProperties": True}, Shape("json")),
        (of(a=TEXT) | {"patternProperties": {"x": TEXT}}, Shape("json")),
        (of(), Shape("json")),
    ],
)
def test_a_column_has_the_one_shape_of_its_values(schema: Any, shape: Shape) -> None:
    """What has no single shape is JSON text."""
    assert columns_of(of(it=schema)) == {"it": shape}


def test_what_holds_itself_by_way_of_another_is_json_text() -> None:
    """The whole of it, as seen from the column that it stands in."""
    schema = of(top={"$ref": "#/$defs/Node"}, other=TEXT) | {"$defs": {"Node": NODE, "Link": LINK}}
    assert columns_of(schema) == {"top": Shape("json"), "other": Shape("text")}
    assert SchemaChecker(schema).cells('{"top":{"next":{"node":{}}}}') == {"top": '{"next":{"node":{}}}'}
    assert columns_of(of(again={"$ref": "#"}, other=TEXT)) == {"again": Shape("json"), "other": Shape("text")}


def test_what_is_nested_deeper_than_a_table_should_be_is_json_text() -> None:
    """From the bound on; what is above it is a struct."""

    def levels_of(shape: Shape) -> int:
        return 1 + levels_of(shape.fields[0][1]) if shape.fields else 0

    levels = [levels_of(columns_of(deep(count))["top"]) for count in (2, MAX_DEPTH - 2, MAX_DEPTH + 5)]
    assert levels[:2] == [2, MAX_DEPTH - 2]
    assert levels[2] < MAX_DEPTH


DATE, MOMENT = {"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}
NOON = datetime(2025, 3, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schema", "text", "cell"),
    [
        (INTEGER, "7", 7),
        (INTEGER, "7.0", 7),
        (INTEGER, "-9223372036854775808", -(2**63)),
        ({"type": ["integer", "null"]}, "null", None),
        ({"type": "number"}, "7", 7.0),
        ({"type": ["number", "null"]}, "null", None),
        (DATE, '"2025-03-04"', date(2025, 3, 4)),
        (DATE | {"type": ["string", "null"]}, "null", None),
        (MOMENT, '"2025-03-04t13:00:00+01:00"', NOON),
        (MOMENT, '"2025-03-04T12:00:00.0000009Z"', NOON),
        (MOMENT | {"type": ["string", "null"]}, "null", None),
        ({"type": ["string", "integer"]}, '"é"', '"é"'),
        ({}, "null", None),
        ({"type": "array", "items": DATE}, '["2025-03-04"]', [date(2025, 3, 4)]),
        ({"type": ["array", "null"], "items": DATE}, "null", None),
        (of(on=DATE, a=TEXT), '{"on":"2025-03-04","a":"x"}', {"on": date(2025, 3, 4), "a": "x"}),
        (of(on=DATE) | {"type": ["object", "null"]}, "null", None),
        (of(a=TEXT), '{"a":"x"}', {"a": "x"}),
    ],
)
def test_a_cell_holds_what_the_answer_says(schema: Any, text: str, cell: object) -> None:
    """In the type of its column; null stays null."""
    assert SchemaChecker(of(it=schema)).cells(f'{{"it":{text}}}') == {"it": cell}


@pytest.mark.parametrize(
    ("schema", "text", "words"),
    [
        (INTEGER, "9223372036854775808", "$.it: 9223372036854775808 is outside the range of 64-bit integers"),
        (INTEGER, "1e30", "$.it: 1000000000000000019884624838656 is outside the range of 64-bit integers"),
        ({"type": "number"}, "1" + "0" * 400, "$.it: the number is too large"),
        (DATE, '"0000-01-01"', "$.it: '0000-01-01' is no date from 0001-01-01 to 9999-12-31"),
        (MOMENT, '"0000-01-01T00:00:00Z"', "$.it: '0000-01-01T00:00:00Z' is no date and time from year 1 to 9999 in"),
        (MOMENT, '"9999-12-31T23:00:00-02:00"', "$.it: '9999-12-31T23:00:00-02:00' is no date and time from year 1"),
        ({"type": "array", "items": of(n=INTEGER)}, '[{"n":1},{"n":1e19}]', "$.it[1].n: 10000000000000000000 is out"),
        (of(**{"a name": INTEGER}), '{"a name":1e19}', "$.it['a name']: 10000000000000000000 is outside"),
    ],
)
def test_a_value_that_no_cell_can_hold_does_not_fit(schema: Any, text: str, words: str) -> None:
    """It is never rounded or cut: the place in the answer is told, and there are no cells."""
    checker, answer = SchemaChecker(of(it=schema)), f'{{"it":{text}}}'
    found = checker.check(answer)
    assert isinstance(found, Misfit)
    assert found.is_json
    assert found.words[0].startswith(words)
    assert checker.cells(answer) is None


def test_what_is_no_json_does_not_fit_and_has_no_cells() -> None:
    """Whatever the schema lets be."""
    checker = SchemaChecker(True)
    assert checker.check("I can't say.") == Misfit(
        ("$: the answer is not JSON alone (line 1, column 1: Expecting value)",), is_json=False
    )
    assert checker.cells("I can't say.") is None


def test_the_place_of_a_value_that_is_the_whole_answer_is_the_answer() -> None:
    """Its column is called `value`, and the words do not speak of it."""
    lists = SchemaChecker({"type": "array", "items": INTEGER})
    assert lists.cells("[1,2]") == {"value": [1, 2]}
    assert lists.check("[1,1e19]") == Misfit(
        ("$[1]: 10000000000000000000 is outside the range of 64-bit integers",), is_json=True
    )


@pytest.mark.parametrize(
    ("schema", "text", "words"),
    [
        ({"anyOf": [of(n=INTEGER), {"type": "null"}]}, '{"n":"x"}', ['$.n: "x" is not of type "integer"']),
        (
            of(it={"anyOf": [of(n=INTEGER), {"type": "null"}]}),
            '{"it":{"n":"x"}}',
            ['$.it.n: "x" is not of type "integer"'],
        ),
        (
            {"oneOf": [TEXT, of(m=TEXT, n=INTEGER)]},
            '{"n":"x","m":1}',
            ['$.m: 1 is not of type "string"', '$.n: "x" is not of type "integer"'],
        ),
        ({"anyOf": [TEXT, INTEGER]}, "true", ["$: true is not valid under any of the schemas"]),
        ({"anyOf": [of(n=INTEGER), of(n=TEXT)]}, '{"n":true}', ['$: {"n":true} is not valid under any of the schemas']),
        ({"type": "string", "maxLength": 3}, f'"{"x" * 999}"', ['$: "xxx']),
    ],
)
def test_the_words_for_a_choice_are_those_of_the_branch_that_comes_nearest(
    schema: Any, text: str, words: list[str]
) -> None:
    """Where one alone is for a value of this type; else the choice is named. No line is too long."""
    found = SchemaChecker(schema).check(text)
    assert isinstance(found, Misfit)
    assert all(line.startswith(start) for line, start in zip(sorted(found.words), words, strict=True))
    assert max(map(len, found.words)) <= MAX_LINE_CHARS


CHOICE = {"anyOf": [of(a=TEXT) | {"required": ["b"]}, of(a=INTEGER)]}
PAIR = {"type": "array", "items": [of(a=TEXT)], "additionalItems": True}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (of(a=TEXT, b=TEXT), '{"a":null,"b":"x"}', {"b": "x"}),
        (of(a=of(b=TEXT)), '{"a":{"b":null}}', {"a": {}}),
        (of(a=True, b=TEXT), '{"a":null,"b":null}', {"a": None}),
        (of(a=False, b=TEXT), '{"a":null,"b":null}', {}),
        (of(a={"type": ["string", "null"]}, b=TEXT), '{"a":null,"b":null}', {"a": None}),
        (of(b=TEXT) | {"additionalProperties": of(c=TEXT)}, '{"b":null,"x":{"c":null}}', {"x": {}}),
        (of(it=CHOICE), '{"it":{"a":null}}', {"it": {}}),
        (of(it={"$ref": "#/$defs/C"}) | {"$defs": {"C": CHOICE}}, '{"it":{"a":null}}', {"it": {}}),
        (of(it={"type": "array", "items": of(a=TEXT)}), '{"it":[{"a":null}]}', {"it": [{}]}),
        (
            of(it={"type": "array", "prefixItems": [of(a=TEXT)]}),
            '{"it":[{"a":null},{"a":null}]}',
            {"it": [{}, {"a": None}]},
        ),
        (
            of(it=PAIR) | {"$schema": "http://json-schema.org/draft-07/schema#"},
            '{"it":[{"a":null},{"a":null}]}',
            {"it": [{}, {"a": None}]},
        ),
    ],
)
def test_a_null_that_only_the_sent_schema_allows_is_left_out(schema: Any, text: str, value: object) -> None:
    """At every depth; a null that the user's schema allows stays."""
    assert SchemaChecker(schema, nulls_are_added=True).check(text) == Fits(value)
    assert isinstance(SchemaChecker(schema).check(text), Misfit)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (of(a=TEXT) | {"required": ["a"]}, '{"a":null}'),
        (
            of(it={"anyOf": [of(a=TEXT) | {"required": ["a"]}, of(a=INTEGER) | {"required": ["a"]}]}),
            '{"it":{"a":null}}',
        ),
        (of(it={"anyOf": [False, TEXT]}), '{"it":{"a":null}}'),
    ],
)
def test_a_null_that_no_schema_allows_stays_a_misfit(schema: Any, text: str) -> None:
    """One of a required property says that it is missing, and nothing mends that."""
    assert isinstance(SchemaChecker(schema, nulls_are_added=True).check(text), Misfit)


@pytest.mark.parametrize(
    ("schema", "path", "words"),
    [
        (of(a={"$dynamicRef": "#"}), "#/properties/a", "$dynamicRef is not known here: use $ref"),
        (of(a={"$recursiveRef": "#"}), "#/properties/a", "$recursiveRef is not known here: use $ref"),
        (of(a={"$ref": "#nobody"}), "#/properties/a", "$ref #nobody leads nowhere"),
        ({"anyOf": [TEXT, {"not": {"$ref": "#"}}]}, "#", "$ref leads back to itself, so that it says nothing"),
        ({"if": True, "anyOf": [True], "allOf": "x"}, "#/allOf", '"x" is not of type "array"'),
        ({"$ref": "#/x", "x": {"$ref": "#/nowhere"}}, "#", ""),
    ],
)
def test_a_schema_that_can_not_be_used_is_refused(schema: Any, path: str, words: str) -> None:
    """With the place of what is wrong; a reference that is hidden behind another one is found, too."""
    with pytest.raises(SchemaError) as caught:
        SchemaChecker(schema)
    assert caught.value.path == path
    assert words in str(caught.value)


def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what needs the validator asks for it."""
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    for asked in ({"schema": TEXT}, {"pattern": "a"}):
        with pytest.raises(MissingExtraError, match=MISSING_EXTRA):
            checker_for(**asked)
    assert checker_for(json=True) is not None
    assert checker_for() is None
