"""What is sent for each schema, in each format, held by files that a person has looked at."""

import json
from typing import Any

import jsonschema_rs
import pytest

from cometbatch.prompt.answers import Fits, Misfit
from cometbatch.prompt.schema import SchemaChecker
from cometbatch.simulator import schema_rules
from cometbatch.wire import FORMATS
from cometbatch.wire.sent_schema import DIALECTS, sent_schema
from tests.structured import golden
from tests.structured.schemas import CASES

EVERY = [(name, format_name) for name in CASES for format_name in FORMATS]


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_body_sent_is_the_golden_one(format_name: str) -> None:
    """33 schemas, and one of them in each mode; `python -m tests.structured.golden` writes the files anew."""
    assert golden.path_of(format_name).read_text(encoding="utf-8") == golden.text_of(format_name)


@pytest.mark.parametrize(("name", "format_name"), EVERY)
def test_a_format_takes_the_schema_that_it_is_sent(name: str, format_name: str) -> None:
    """By the simulator's own rules, which were written apart from what the client does."""
    sent = sent_schema(format_name, CASES[name].schema)
    assert sent.problems or schema_rules.refused(format_name, sent.schema) is None


@pytest.mark.parametrize(("name", "format_name"), EVERY)
def test_what_fits_the_users_schema_fits_the_one_that_is_sent(name: str, format_name: str) -> None:
    """In a strict format with null for every property that is left out; and the null is taken out again."""
    case, sent = CASES[name], sent_schema(format_name, CASES[name].schema)
    if sent.problems:
        return
    weakened = jsonschema_rs.validator_for(sent.schema, validate_formats=True)
    checker = SchemaChecker(case.schema, nulls_are_added=DIALECTS[format_name].is_strict)
    for text in case.fits:
        value = json.loads(text)
        given = filled(value, sent.schema, sent.schema) if DIALECTS[format_name].is_strict else value
        assert list(weakened.iter_errors(given)) == []
        assert without_nulls(taken(checker, json.dumps(given))) == without_nulls(value)


def taken(checker: SchemaChecker, text: str) -> Any:
    """The value in a text that fits."""
    verdict = checker.check(text)
    assert isinstance(verdict, Fits), (text, verdict)
    return verdict.value


def without_nulls(value: Any) -> Any:
    """A value without what is null: a property that may be null and may be missing comes back as null."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def filled(value: Any, schema: Any, root: Any) -> Any:
    """A value with null for each property that a strict schema requires and the value has not."""
    if "$ref" in schema:
        return filled(value, root if schema["$ref"] == "#" else root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    for branch in schema.get("anyOf", ()):
        candidate = filled(value, branch, root)
        within = branch | {"$defs": root.get("$defs", {}) | {"whole": root}}
        alone = json.loads(json.dumps(within).replace('"#"', '"#/$defs/whole"'))
        if jsonschema_rs.is_valid(alone, candidate):
            return candidate
    if isinstance(value, dict):
        names = schema.get("properties", {})
        return value | {
            name: filled(value[name], inner, root) if name in value else None for name, inner in names.items()
        }
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [filled(each, schema["items"], root) for each in value]
    return value


@pytest.mark.parametrize("name", CASES)
def test_an_answer_is_taken_if_and_only_if_it_fits_the_users_schema(name: str) -> None:
    """Whatever was weakened for a format."""
    case = CASES[name]
    for is_strict in (False, True):
        checker = SchemaChecker(case.schema, nulls_are_added=is_strict)
        for text in case.fits:
            assert taken(checker, text) == json.loads(text)
        for text in case.misfits:
            assert isinstance(checker.check(text), Misfit), text
