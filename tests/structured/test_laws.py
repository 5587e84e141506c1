"""What holds for every schema, and for every text of an answer."""

import json
from typing import Any

import jsonschema_rs
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cometbatch.prompt.answers import MAX_LINE_CHARS, MAX_WORDS, Fits, Misfit
from cometbatch.prompt.schema import JsonChecker, PatternChecker, SchemaChecker
from cometbatch.results.answer_columns import AnswerColumns
from cometbatch.simulator import json_answers, schema_rules
from cometbatch.wire import FORMATS
from cometbatch.wire.sent_schema import DIALECTS, sent_schema, tell, told_in
from tests.structured.test_golden import filled, taken, without_nulls

NAMES = st.sampled_from(["a", "b", "a name", "größe", "$ref", "x/y~z"])
SCALARS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "string", "minLength": 2, "maxLength": 9},
            {"type": "string", "pattern": "^[a-c]{2,4}[0-9]$"},
            {"type": "string", "format": "date"},
            {"type": "string", "format": "date-time"},
            {"type": "integer", "minimum": -3, "maximum": 40},
            {"type": "integer", "exclusiveMinimum": 3, "multipleOf": 5},
            {"type": "number", "maximum": 7.5},
            {"type": "boolean"},
            {"type": ["integer", "null"]},
            {"enum": ["x", "y", None]},
            {"enum": [1, 2]},
            {"const": "only"},
            {"const": True},
            {"$ref": "#/$defs/Shared"},
            {"$ref": "#/$defs/Shared", "description": "beside it"},
            {"$ref": "#/$defs/Tree"},
        ]
    )
)


def objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects, some of whose properties are required."""

    @st.composite
    def made(draw: st.DrawFn) -> dict[str, Any]:
        properties = draw(st.dictionaries(NAMES, inner, min_size=1, max_size=4))
        required = [name for name in properties if draw(st.booleans())]
        schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
        return schema | ({"additionalProperties": False} if draw(st.booleans()) else {})

    return made()


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas with others in them."""
    lists = st.builds(lambda each: {"type": "array", "items": each, "maxItems": 3}, inner)
    unions = st.builds(lambda one, other: {"anyOf": [one, other, {"type": "null"}]}, objects(inner), SCALARS)
    alone = st.builds(lambda each: {"allOf": [each], "title": "It"}, inner)
    return st.one_of(objects(inner), lists, unions, alone)


DEFS = {
    "Shared": {
        "type": "object",
        "properties": {"k": {"type": "string"}, "o": {"type": "integer", "minimum": 0}},
        "required": ["k"],
    },
    "Tree": {
        "type": "object",
        "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
        "required": ["v"],
    },
}
SCHEMAS = st.builds(lambda top: top | {"$defs": DEFS}, objects(st.recursive(SCALARS, nested, max_leaves=6)))


@settings(max_examples=60, deadline=None)
@given(schema=SCHEMAS, digest=st.binary(min_size=16, max_size=16))
def test_an_answer_of_the_users_schema_comes_back_as_it_was(schema: dict[str, Any], digest: bytes) -> None:
    """Through the schema of each format, which takes it, and the check, which takes out the nulls that were added."""
    value = json.loads(json_answers.answer_in_form(json_answers.Wanted(schema), digest, "words"))
    assume(jsonschema_rs.is_valid(schema, value, validate_formats=True))
    for format_name in FORMATS:
        sent, is_strict = sent_schema(format_name, schema), DIALECTS[format_name].is_strict
        assert sent.problems == ()
        assert schema_rules.refused(format_name, sent.schema) is None
        given_value = filled(value, sent.schema, sent.schema) if is_strict else value
        assert list(jsonschema_rs.validator_for(sent.schema, validate_formats=True).iter_errors(given_value)) == []
        checker = SchemaChecker(schema, nulls_are_added=is_strict)
        found = taken(checker, json.dumps(given_value))
        assert jsonschema_rs.is_valid(schema, found, validate_formats=True)
        assert without_nulls(found) == without_nulls(value)


@settings(max_examples=40, deadline=None)
@given(schema=SCHEMAS, digest=st.binary(min_size=16, max_size=16), format_name=st.sampled_from(list(FORMATS)))
def test_the_simulator_answers_what_the_user_asked_for(schema: dict[str, Any], digest: bytes, format_name: str) -> None:
    """It reads the schema that is sent, and the keywords that are told in words, as a model would."""
    sent = sent_schema(format_name, schema).schema
    text = json_answers.answer_in_form(json_answers.Wanted(sent), digest, "words")
    checker = SchemaChecker(schema, nulls_are_added=DIALECTS[format_name].is_strict)
    verdict = checker.check(text)
    assert isinstance(verdict, Fits), verdict
    assert text == json_answers.answer_in_form(json_answers.Wanted(sent), digest, "words")


@settings(max_examples=60, deadline=None)
@given(schema=SCHEMAS, digest=st.binary(min_size=16, max_size=16))
def test_a_table_of_answers_holds_what_they_say(schema: dict[str, Any], digest: bytes) -> None:
    """Cells that are of their own type are the answer's values; an answer that does not fit gives none."""
    text = json_answers.answer_in_form(json_answers.Wanted(schema), digest, "words")
    value, columns = json.loads(text), AnswerColumns(SchemaChecker(schema))
    assume(jsonschema_rs.is_valid(schema, value, validate_formats=True))
    outcomes = pa.table({"status": ["succeeded", "incomplete", "succeeded"], "response": [text, text, "{}x"]})
    for field, cells in zip(columns.fields, columns.cells(outcomes), strict=True):
        assert cells.type == field.type
        first, *others = cells.to_pylist()
        assert others == [None, None]
        if value.get(field.name) is None:
            assert first is None
        elif field.type in (pa.int64(), pa.float64(), pa.bool_()):
            assert first == value[field.name]


@settings(max_examples=150, deadline=None)
@given(
    text=st.one_of(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            max_leaves=8,
        ).map(json.dumps),
    )
)
def test_any_text_gets_a_verdict_in_bounds(text: str) -> None:
    """Nothing is raised; a misfit has words, not too many and none too long."""
    checkers = (
        SchemaChecker(
            {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"$ref": "#"}}}, nulls_are_added=True
        ),
        JsonChecker(),
        PatternChecker("[a-z]+"),
    )
    for checker in checkers:
        verdict = checker.check(text)
        if isinstance(verdict, Misfit):
            assert 1 <= len(verdict.words) <= MAX_WORDS
            assert all(len(line) <= MAX_LINE_CHARS for line in verdict.words)


WHOLE = '{"a": [1, {"b": "x, y"}], "c": "d"}'


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_json_that_was_cut_is_never_taken(length: int) -> None:
    """Wherever it was cut, with a fence around it or without."""
    for text in (WHOLE[:length], f"```json\n{WHOLE[:length]}\n```", f"```json\n{WHOLE[:length]}"):
        verdict = JsonChecker().check(text)
        assert isinstance(verdict, Misfit)
        assert not verdict.is_json


@given(
    keywords=st.dictionaries(
        st.sampled_from(["minimum", "pattern", "not", "uniqueItems"]),
        st.one_of(st.integers(), st.text(), st.booleans(), st.dictionaries(st.text(), st.text(), max_size=2)),
        min_size=1,
    ),
    words=st.sampled_from(["", "Of a place.\n\n", "{a: 1}\n\n"]),
)
def test_keywords_in_words_can_be_read_back(keywords: dict[str, Any], words: str) -> None:
    """At the end of a description, whatever stands before them."""
    assert told_in(words + tell(keywords)) == keywords
