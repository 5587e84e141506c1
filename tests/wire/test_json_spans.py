"""JSON as bytes: what is changed is changed, and every other byte stays."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cometbatch.wire import json_spans
from cometbatch.wire.gemini_keys import TwiceError, camel_cased

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["a", "b", "stream", 'say "hi"', "\\", "{", "é", "\n", "x:y"])
LAYOUTS = st.fixed_dictionaries(
    {
        "separators": st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")]),
        "ensure_ascii": st.booleans(),
        "indent": st.sampled_from([None, 0, 2]),
    }
)


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """An object as some program writes it; keys may come twice."""
    members = draw(st.lists(st.tuples(KEYS, VALUES), max_size=5))
    layout: dict[str, Any] = draw(LAYOUTS)
    comma, colon = layout["separators"]
    texts = [json.dumps(key) + colon + json.dumps(value, **layout) for key, value in members]
    start: str = draw(st.sampled_from(["", " \r\n"]))
    return f"{start}{{ {comma.join(texts)}\n}}".encode("utf-8", "replace")


def pairs(text: bytes) -> list[tuple[str, Any]]:
    """The members of an object in order, those that come twice included."""
    found: list[tuple[str, Any]] = []

    def keep(members: list[tuple[str, Any]]) -> dict[str, Any]:
        found[:] = members  # the outer object is the last that is read
        return dict(members)

    json.loads(text, object_pairs_hook=keep)
    return found


@given(text=objects())
def test_members_are_those_that_a_decoder_finds(text: bytes) -> None:
    """Law: each member is there once, in order, its key and its value where they are written."""
    found = json_spans.members(text)
    assert [(each.key, json.loads(text[each.value : each.end])) for each in found] == pairs(text)
    assert [json.loads(text[each.start : each.key_end]) for each in found] == [key for key, _ in pairs(text)]


@given(text=objects(), keys=st.frozensets(KEYS))
def test_what_is_taken_out_leaves_every_other_byte(text: bytes, keys: frozenset[str]) -> None:
    """Law: the other members stay, each as it is written; where none is taken out, the text is the same."""
    left = json_spans.without(text, keys)
    assert pairs(left) == [(key, value) for key, value in pairs(text) if key not in keys]
    kept = [text[each.start : each.end] for each in json_spans.members(text) if each.key not in keys]
    assert [left[each.start : each.end] for each in json_spans.members(left)] == kept
    if keys.isdisjoint(key for key, _ in pairs(text)):
        assert left == text


@given(text=objects(), names=st.dictionaries(KEYS, st.text(max_size=3), max_size=3))
def test_a_renamed_member_keeps_its_value(text: bytes, names: dict[str, str]) -> None:
    """Law: keys are other ones, and nothing else is."""
    found = json_spans.renamed(text, names)
    assert pairs(found) == [(names.get(key, key), value) for key, value in pairs(text)]
    if names.keys().isdisjoint(key for key, _ in pairs(text)):
        assert found == text


def merged(value: Any, over: Any) -> Any:
    """What lies on top counts, deeply where both are mappings."""
    if not isinstance(value, dict) or not isinstance(over, dict):
        return over
    return value | {key: merged(value.get(key), inner) for key, inner in over.items()}


@given(text=objects(), over=st.dictionaries(KEYS, VALUES, max_size=3))
def test_what_is_laid_over_counts_and_the_rest_stays(text: bytes, over: dict[str, Any]) -> None:
    """Law: of a body that has each key once, the result is the deep merge; values that stay keep their bytes."""
    members = pairs(text)
    found = json_spans.laid_over(text, over)
    before = {each.key: text[each.value : each.end] for each in json_spans.members(text)}
    after = {each.key: found[each.value : each.end] for each in json_spans.members(found)}
    assert after.keys() == before.keys() | over.keys()
    assert all(after[key] == raw for key, raw in before.items() if key not in over)
    if len(dict(members)) == len(members):
        assert json.loads(found) == merged(dict(members), over)


GEMINI = {
    "system_instruction": {"parts": [{"text": "snake_case stays in texts"}]},
    "contents": [
        {"role": "model", "parts": [{"function_call": {"name": "find_it", "args": {"user_id": {"deep_key": 1}}}}]},
        {"parts": [{"function_response": {"name": "find_it", "response": {"row_count": [{"a_b": 1}]}}}]},
        {"parts": [{"inline_data": {"mime_type": "image/png", "data": "aGk="}}]},
    ],
    "tools": [
        {
            "function_declarations": [
                {"name": "f", "parameters": {"properties": {"user_id": {"min_length": 1}}, "required": ["user_id"]}},
                {"name": "g", "parameters_json_schema": {"$defs": {"a_b": {}}}, "response": {"c_d": {}}},
            ]
        },
        {"google_search": {}},
    ],
    "generation_config": {
        "max_output_tokens": 5,
        "top_k": 40,
        "response_schema": {"properties": {"first_name": {"property_ordering": []}}},
        "response_json_schema": {"properties": {"last_name": {}}},
        "thinking_config": {"thinking_budget": 0},
    },
    "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    "labels": {"cost_center": "a_b"},
    "UPPER_case": 1,
}
GEMINI_CAMEL = {
    "systemInstruction": GEMINI["system_instruction"],
    "contents": [
        {"role": "model", "parts": [{"functionCall": {"name": "find_it", "args": {"user_id": {"deep_key": 1}}}}]},
        {"parts": [{"functionResponse": {"name": "find_it", "response": {"row_count": [{"a_b": 1}]}}}]},
        {"parts": [{"inlineData": {"mimeType": "image/png", "data": "aGk="}}]},
    ],
    "tools": [
        {
            "functionDeclarations": [
                {"name": "f", "parameters": {"properties": {"user_id": {"min_length": 1}}, "required": ["user_id"]}},
                {"name": "g", "parametersJsonSchema": {"$defs": {"a_b": {}}}, "response": {"c_d": {}}},
            ]
        },
        {"googleSearch": {}},
    ],
    "generationConfig": {
        "maxOutputTokens": 5,
        "topK": 40,
        "responseSchema": {"properties": {"first_name": {"property_ordering": []}}},
        "responseJsonSchema": {"properties": {"last_name": {}}},
        "thinkingConfig": {"thinkingBudget": 0},
    },
    "safetySettings": GEMINI["safety_settings"],
    "labels": {"cost_center": "a_b"},
    "UPPER_case": 1,
}


@given(layout=LAYOUTS)
def test_geminis_keys_become_camel_case_and_nothing_else_does(layout: dict[str, Any]) -> None:
    """Arguments, answers of functions, schemas and labels are a user's own, however the file is laid out."""
    found = camel_cased(json.dumps(GEMINI, **layout).encode())
    assert found == json.dumps(GEMINI_CAMEL, **layout).encode()
    assert camel_cased(found) == found


@given(text=objects())
def test_a_body_without_snake_case_goes_through_as_it_is(text: bytes) -> None:
    """Law: where no key is in snake case, no byte changes."""
    assert camel_cased(text) == text


@pytest.mark.parametrize("body", [b'{"top_p":1,"topP":1}', b'{"a":[{"topP":1,"x":{},"top_p":1}]}'])
def test_a_key_in_both_spellings_is_refused(body: bytes) -> None:
    """Which one counts is for the writer to say."""
    with pytest.raises(TwiceError, match="topP"):
        camel_cased(body)


def test_keys_written_with_escapes_are_read() -> None:
    """A letter may be written by its number."""
    assert json_spans.without(b'{"\\u0073tream":true,"a":1}', {"stream"}) == b'{"a":1}'
    assert camel_cased(b'{"top\\u005fp":1}') == b'{"topP":1}'
