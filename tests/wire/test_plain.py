"""A usual answer is read in a shorter way than all others, and that changes nothing of what is read."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cometbatch.records import Completion, ErrorDetail, HttpResponse, Usage
from cometbatch.wire import FORMATS, chat, gemini, messages, plain, responses

MODULES: dict[str, Any] = {module.NAME: module for module in (chat, responses, messages, gemini)}
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


def read_patiently(name: str, response: HttpResponse) -> Completion | ErrorDetail:
    """What the way for all replies makes of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "MAX_BYTES", -1)
        return FORMATS[name].parse_response(response)


WHERE = st.sampled_from(sorted(FORMATS)).flatmap(
    lambda name: st.tuples(
        st.just(name), st.lists(st.tuples(st.sampled_from(PLACES[name]), ODD), min_size=0, max_size=3)
    )
)


@settings(max_examples=1000, deadline=None)
@given(WHERE)
@example(("chat", []))
@example(("chat", [(("usage", "prompt_tokens_details", "cached_tokens"), 99)]))
@example(("chat", [(("choices",), [])]))
@example(("messages", [(("content",), [])]))
@example(("responses", [(("output",), [])]))
@example(("gemini", [(("usageMetadata",), {"totalTokenCount": 3})]))
@example(("gemini", [(("candidates", 0, "content", "parts", 0, "functionCall"), {"name": "f"})]))
def test_both_ways_read_the_same(where: tuple[str, list[tuple[tuple[Any, ...], Any]]]) -> None:
    """Whatever stands in whichever place: text, ending, counts, ids, and what is no answer at all."""
    response = changed(*where)
    assert FORMATS[where[0]].parse_response(response) == read_patiently(where[0], response)


@pytest.mark.parametrize(
    ("name", "once", "twice"),
    [
        ("chat", '"refusal": null', '"content": "other"'),
        ("chat", '"refusal": null', '"content": null'),
        ("chat", '"refusal": null', '"refusal": "no"'),
        ("chat", '"refusal": null', '"content": 5'),
        ("responses", '"status": "completed"', '"status": "completed", "status": "incomplete"'),
        ("responses", '"type": "output_text"', '"type": "refusal", "type": "output_text"'),
        ("responses", '"type": "message"', '"type": "message", "type": "reasoning"'),
        ("messages", '"type": "text"', '"type": "text", "type": "thinking"'),
        ("gemini", '"text": "yes"', '"text": "yes", "text": "no"'),
    ],
)
def test_a_repeated_key_counts_the_same(name: str, once: str, twice: str) -> None:
    """JSON leaves open which of two counts; the last one does, in both ways."""
    response = reply(json.dumps(ANSWERS[name]).replace(once, twice))
    assert FORMATS[name].parse_response(response) == read_patiently(name, response)


@pytest.mark.parametrize("name", FORMATS)
def test_a_usual_answer_takes_the_short_way(name: str) -> None:
    """Otherwise none of this would be worth its lines."""
    assert MODULES[name].read_plain(reply(json.dumps(ANSWERS[name]))) is not None


@pytest.mark.parametrize("name", FORMATS)
def test_what_the_simulator_says_is_usual(name: str) -> None:
    """The documented shape, with everything in it that nobody reads."""
    said = FORMATS[name].build_response("m", Completion("yes", "stop", Usage(9, 4)))
    assert MODULES[name].read_plain(said) is not None
