"""One odd value in a reply costs what depends on it, and nothing else of the answer."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cometbatch.records import Completion, ErrorDetail, HttpResponse, Usage
from cometbatch.wire import FORMATS

ANSWERS: dict[str, dict[str, Any]] = {
    "chat": {
        "id": "c",
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "yes", "refusal": None}, "finish_reason": "stop"}
        ],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    },
    "responses": {
        "id": "r",
        "status": "completed",
        "model": "m",
        "output": [
            {"type": "reasoning", "id": "rs", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]},
        ],
        "usage": {
            "input_tokens": 9,
            "output_tokens": 4,
            "input_tokens_details": {"cached_tokens": 2},
            "output_tokens_details": {"reasoning_tokens": 1},
        },
    },
    "messages": {
        "id": "msg",
        "model": "m",
        "content": [{"type": "text", "text": "yes"}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 9,
            "output_tokens": 4,
            "cache_creation_input_tokens": 1,
            "cache_read_input_tokens": 2,
        },
    },
    "gemini": {
        "responseId": "g",
        "modelVersion": "m",
        "candidates": [
            {
                "content": {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "yes"}]},
                "finishReason": "STOP",
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 9,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 1,
            "cachedContentTokenCount": 2,
            "totalTokenCount": 13,
        },
    },
}
MORE_PLACES = {
    "chat": [
        ("choices", 0, "message", "tool_calls"),
        ("error",),
        ("usage", "cost"),
        ("usage", "claude_cache_creation_5_m_tokens"),
        ("usage", "claude_cache_creation_1_h_tokens"),
    ],
    "responses": [("error",), ("incomplete_details",), ("usage", "cost"), ("output", 1, "content", 0, "refusal")],
    "messages": [("error",), ("type",), ("usage", "cost"), ("content", 0, "id")],
    "gemini": [
        ("error",),
        ("promptFeedback",),
        ("usageMetadata", "cost"),
        ("candidates", 0, "content", "parts", 0, "functionCall"),
    ],
}


def places_of(body: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a body."""
    inside = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, value in inside:
        yield (*above, key)
        yield from places_of(value, (*above, key))


PLACES = {name: [*places_of(body), *MORE_PLACES[name]] for name, body in ANSWERS.items()}
GONE = object()
ODD = st.one_of(
    st.sampled_from(
        [GONE, None, True, False, 0, -1, 3, 2**63 - 1, 2**63, 2**64, 1.0, 1.5, 1e300, "", " ", "length", []]
    ),
    st.sampled_from(
        [{}, [{}], [{"type": "text", "text": "part"}], "content_filter", "tool_calls", "é\ud83d", "\\u0000"]
    ),
    st.text(max_size=5),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
)


def changed(name: str, places: list[tuple[tuple[Any, ...], Any]]) -> HttpResponse:
    """A format's answer with these values in these places, as far as the places are there."""
    body = json.loads(json.dumps(ANSWERS[name]))
    for place, value in places:
        owner = body
        try:
            for key in place[:-1]:
                owner = owner[key]
            if value is GONE:
                del owner[place[-1]]
            else:
                owner[place[-1]] = json.loads(json.dumps(value))  # a copy: it may be put into itself
        except (KeyError, IndexError, TypeError):
            continue
    return reply(json.dumps(body))


def reply(body: str) -> HttpResponse:
    """A success with this body."""
    return HttpResponse(200, {"content-type": "application/json"}, body.encode())


ODDITIES = st.sampled_from(sorted(FORMATS)).flatmap(
    lambda name: st.tuples(
        st.just(name), st.lists(st.tuples(st.sampled_from(PLACES[name]), ODD), min_size=0, max_size=3)
    )
)
USUAL = {
    "chat": Completion("yes", "stop", Usage(9, 4, 2, None, 1), "c", "m"),
    "responses": Completion("yes", "stop", Usage(9, 4, 2, None, 1), "r", "m"),
    "messages": Completion("yes", "stop", Usage(12, 4, 2, 1, None), "msg", "m"),
    "gemini": Completion("yes", "stop", Usage(9, 4, 2, None, 1), "g", "m"),
}
# What is read from these places alone, and from no other.
FIELDS_AT = {
    ("usage",): {"usage", "reported_cost_usd", "cost_excludes"},
    ("usageMetadata",): {"usage", "reported_cost_usd", "cost_excludes"},
    ("id",): {"response_id"},
    ("responseId",): {"response_id"},
    ("model",): {"response_model"},
    ("modelVersion",): {"response_model"},
    ("type",): set[str](),
    ("promptFeedback",): set[str](),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_usual_answer_is_read_whole(name: str) -> None:
    """Text, ending, counts and ids of the documented shape."""
    assert FORMATS[name].parse_response(changed(name, [])) == USUAL[name]


@settings(max_examples=500, deadline=None)
@given(ODDITIES)
@example(("chat", [(("usage", "prompt_tokens_details", "cached_tokens"), 99)]))
@example(("chat", [(("usage", "prompt_tokens"), "9")]))
@example(("messages", [(("id",), GONE)]))
@example(("gemini", [(("usageMetadata",), {"totalTokenCount": 3})]))
def test_odd_values_cost_only_what_depends_on_them(oddities: tuple[str, list[tuple[tuple[Any, ...], Any]]]) -> None:
    """Whatever stands in the places of counts and ids, the paid answer is read; any other place gets an answer, too."""
    name, places = oddities
    read = FORMATS[name].parse_response(changed(name, places))
    assert isinstance(read, Completion | ErrorDetail)
    if any(place[:1] not in FIELDS_AT for place, _ in places):
        return
    assert isinstance(read, Completion)
    touched = set[str]().union(*(FIELDS_AT[place[:1]] for place, _ in places))
    for field in read.__struct_fields__:
        assert field in touched or getattr(read, field) == getattr(USUAL[name], field)


@pytest.mark.parametrize(
    ("name", "once", "twice", "text", "reason"),
    [
        ("chat", '"refusal": null', '"content": "other"', "other", "stop"),
        ("chat", '"refusal": null', '"content": null', "", "stop"),
        ("chat", '"refusal": null', '"refusal": "no"', "yes", "stop"),
        ("responses", '"status": "completed"', '"status": "completed", "status": "incomplete"', "yes", "other"),
        ("responses", '"type": "output_text"', '"type": "refusal", "type": "output_text"', "yes", "stop"),
        ("responses", '"type": "message"', '"type": "message", "type": "reasoning"', "", "stop"),
        ("messages", '"type": "text"', '"type": "text", "type": "thinking"', "", "stop"),
        ("gemini", '"text": "yes"', '"text": "yes", "text": "no"', "no", "stop"),
    ],
)
def test_the_last_of_a_repeated_key_counts(name: str, once: str, twice: str, text: str, reason: str) -> None:
    """JSON leaves open which of two counts; here it is always the last one."""
    read = FORMATS[name].parse_response(reply(json.dumps(ANSWERS[name]).replace(once, twice)))
    assert isinstance(read, Completion)
    assert (read.text, read.finish_reason) == (text, reason)
