"""A plain chat answer is read in a shorter way than all others, and that changes nothing of what is read."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cometbatch.records import Completion, ErrorDetail, HttpResponse
from cometbatch.wire import chat
from cometbatch.wire.envelope import parse_error
from cometbatch.wire.loose import decode_json, mapping

ANSWER: dict[str, Any] = {
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
}
PLACES = (
    ("id",),
    ("model",),
    ("choices",),
    ("choices", 0),
    ("choices", 0, "message"),
    ("choices", 0, "message", "content"),
    ("choices", 0, "message", "refusal"),
    ("choices", 0, "message", "tool_calls"),
    ("choices", 0, "finish_reason"),
    ("error",),
    ("usage",),
    ("usage", "cost"),
    ("usage", "prompt_tokens"),
    ("usage", "completion_tokens"),
    ("usage", "prompt_tokens_details"),
    ("usage", "prompt_tokens_details", "cached_tokens"),
    ("usage", "completion_tokens_details"),
    ("usage", "completion_tokens_details", "reasoning_tokens"),
    ("usage", "claude_cache_creation_5_m_tokens"),
    ("usage", "claude_cache_creation_1_h_tokens"),
)
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


def changed(places: list[tuple[tuple[Any, ...], Any]]) -> bytes:
    """The answer with these values in these places, as far as the places are there."""
    body = json.loads(json.dumps(ANSWER))
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
    return json.dumps(body).encode()


def read_patiently(response: HttpResponse) -> Completion | ErrorDetail:
    """What the way for all replies makes of one."""
    return chat._read_completion(mapping(decode_json(response.body))) or parse_error(response)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), ODD), max_size=3))
@example([])
@example([(("usage", "prompt_tokens_details", "cached_tokens"), 99)])
@example([(("choices",), [])])
def test_both_ways_read_the_same(places: list[tuple[tuple[Any, ...], Any]]) -> None:
    """Whatever stands in whichever place: text, ending, counts, ids, and what is no answer at all."""
    response = HttpResponse(200, {"content-type": "application/json"}, changed(places))
    assert chat.parse_response(response) == read_patiently(response)


@pytest.mark.parametrize("repeated", ['"content": "other"', '"content": null', '"refusal": "no"', '"content": 5'])
def test_a_repeated_key_counts_the_same(repeated: str) -> None:
    """JSON leaves open which of two counts; the last one does, in both ways."""
    body = json.dumps(ANSWER).replace('"refusal": null', repeated).encode()
    response = HttpResponse(200, {"content-type": "application/json"}, body)
    assert chat.parse_response(response) == read_patiently(response)


def test_a_plain_answer_takes_the_short_way() -> None:
    """Otherwise none of this would be worth its lines."""
    assert chat.read_plain(HttpResponse(200, {}, json.dumps(ANSWER).encode())) is not None
