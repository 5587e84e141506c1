"""Token counts: inclusive totals in every format, and None for whatever is no count."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import Completion, HttpResponse, Usage
from cometbatch.wire import FORMATS
from cometbatch.wire.counts import consistent_usage, count, total
from tests.wire.strategies import JSON_VALUES

ANSWERS: dict[str, dict[str, Any]] = {
    "chat": {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]},
    "responses": {"status": "completed", "output": []},
    "messages": {"content": [], "stop_reason": "end_turn"},
    "gemini": {"candidates": [{"finishReason": "STOP"}]},
}


NO_USAGE: list[Any] = [None, [], "x", 3, True]


def _usage_of(name: str, usage: object) -> Usage:
    body = ANSWERS[name] | {"usageMetadata" if name == "gemini" else "usage": usage}
    completion = FORMATS[name].parse_response(HttpResponse(200, {}, json.dumps(body).encode()))
    assert isinstance(completion, Completion)
    return completion.usage


@pytest.mark.parametrize(
    ("name", "usage", "expected"),
    [
        ("chat", {"prompt_tokens": 9, "completion_tokens": 2}, Usage(9, 2)),
        ("chat", {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(9, None, 4)),
        (
            "chat",
            {
                "prompt_tokens": 9,
                "claude_cache_creation_5_m_tokens": 2,
                "claude_cache_creation_1_h_tokens": 3,
                "latency_checkpoint": {"total_ms": 12.5},
                "cost": 0.25,
            },
            Usage(9, None, None, 5),
        ),
        ("chat", {"prompt_tokens": 9, "claude_cache_creation_1_h_tokens": 3}, Usage(9, None, None, 3)),
        (
            "chat",
            {"prompt_tokens": 9, "claude_cache_creation_5_m_tokens": 3, "claude_cache_creation_1_h_tokens": "x"},
            Usage(9),
        ),
        ("chat", {"prompt_tokens": 9, "prompt_tokens_details": "x", "completion_tokens_details": None}, Usage(9)),
        ("responses", {"input_tokens": 9, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 4}},
         Usage(9, 5, None, None, 4)),
        ("messages", {"input_tokens": 1, "output_tokens": 2}, Usage(1, 2)),
        ("messages", {"input_tokens": 1, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 100},
         Usage(111, None, 100, 10)),
        ("messages", {"input_tokens": 1, "cache_creation_input_tokens": None, "cache_read_input_tokens": 100},
         Usage(101, None, 100)),
        ("messages", {"input_tokens": 1, "cache_read_input_tokens": "many"}, Usage()),
        ("messages", {"cache_read_input_tokens": 100}, Usage(None, None, 100)),
        ("gemini", {"promptTokenCount": 7}, Usage(7, 0, 0, None, 0)),
        ("gemini", {"promptTokenCount": 7, "candidatesTokenCount": 2, "thoughtsTokenCount": 40},
         Usage(7, 42, 0, None, 40)),
        ("gemini", {"promptTokenCount": 7, "cachedContentTokenCount": 5}, Usage(7, 0, 5, None, 0)),
        ("gemini", {"promptTokenCount": 7, "thoughtsTokenCount": None}, Usage(7, 0, 0, None, 0)),
        ("gemini", {"promptTokenCount": 7, "candidatesTokenCount": 3, "thoughtsTokenCount": None,
                    "cachedContentTokenCount": None}, Usage(7, 3, 0, None, 0)),
        ("gemini", {"promptTokenCount": 7, "thoughtsTokenCount": "x"}, Usage(7, None, 0, None, None)),
        ("gemini", {}, Usage()),
        ("gemini", {"cost": 0.25, "trafficType": "ON_DEMAND"}, Usage()),
        ("gemini", {"promptTokenCount": None, "totalTokenCount": 9}, Usage()),
        ("gemini", {"promptTokenCount": 0}, Usage(0, 0, 0, None, 0)),
        *((name, broken, Usage()) for name in ANSWERS for broken in NO_USAGE),
    ],
)  # fmt: skip
def test_usage_is_read_as_inclusive_totals(name: str, usage: object, expected: Usage) -> None:
    """Sections 2 to 5 and 8.3: what each counter includes, what an absent one means."""
    assert _usage_of(name, usage) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0), (12, 12), (12.0, 12), (2**63 - 1, 2**63 - 1), (2**63, None), (1e300, None), (-1, None), (-1.0, None),
        (0.5, None), (True, None), (False, None), ("12", None), (None, None), ([], None), ({}, None),
        (float("nan"), None), (float("inf"), None),
    ],
)  # fmt: skip
def test_a_count_is_a_whole_number_from_zero(value: object, expected: int | None) -> None:
    """Integral floats count, booleans and everything else do not."""
    assert count(value) == expected
    assert type(count(value)) is type(expected)


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    """Unknown is not zero, and a sum beyond 64 bits is no count."""
    assert (total(1, 2), total(1, None), total(), total(2**62, 2**62)) == (3, None, 0, None)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 5, "cache_read": 6}, Usage(5, 9, None, None, None)),
        ({"input_tokens": 5, "cache_write": 6}, Usage(5, 9, None, None, None)),
        ({"input_tokens": 5, "cache_read": 3, "cache_write": 2}, Usage(5, 9, 3, 2, None)),
        ({"input_tokens": 5, "cache_read": 3, "cache_write": 3}, Usage(5, 9, None, 3, None)),
        ({"input_tokens": None, "cache_read": 3}, Usage(None, 9, 3, None, None)),
        ({"input_tokens": 5, "reasoning": 10}, Usage(5, 9, None, None, None)),
        ({"input_tokens": 5, "reasoning": 9}, Usage(5, 9, None, None, 9)),
    ],
)
def test_a_part_that_contradicts_its_total_is_unknown(usage: dict[str, int | None], expected: Usage) -> None:
    """Cache beyond input and reasoning beyond output become None; both caches together never exceed the input."""
    assert consistent_usage(**({"output_tokens": 9} | usage)) == expected


KEYS = st.sampled_from(
    [
        "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "promptTokenCount",
        "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount", "cache_creation_input_tokens",
        "cache_read_input_tokens", "claude_cache_creation_5_m_tokens", "claude_cache_creation_1_h_tokens",
    ]
)  # fmt: skip
DETAILS = st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens"]), st.integers(0, 20) | JSON_VALUES)
DETAIL_KEYS = st.sampled_from(
    ["prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details"]
)


@pytest.mark.parametrize("name", ANSWERS)
@settings(max_examples=80, deadline=None)
@given(flat=st.dictionaries(KEYS, st.integers(0, 20) | JSON_VALUES), deep=st.dictionaries(DETAIL_KEYS, DETAILS))
def test_the_laws_of_usage_hold_whatever_is_reported(name: str, flat: dict[str, Any], deep: dict[str, Any]) -> None:
    """Each count is None or from 0 up; cache <= input; reasoning <= output."""
    usage = _usage_of(name, flat | deep)
    counts = [getattr(usage, field) for field in usage.__struct_fields__]
    assert all(number is None or (type(number) is int and 0 <= number < 2**63) for number in counts)
    if usage.input_tokens is not None:
        assert (usage.cache_read_input_tokens or 0) + (usage.cache_write_input_tokens or 0) <= usage.input_tokens
    if usage.output_tokens is not None:
        assert (usage.reasoning_output_tokens or 0) <= usage.output_tokens


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0.000123", "0.000123"),
        ("0.1", "0.1"),
        ("3", "3"),
        ("0", "0"),
        ("1e-7", "0.0000001"),
        ("1e-30", "0"),
        ("0.1234567890123456789", "0.12345678901234568"),
        ("-0.1", None),
        ("1e12", None),
        ("9" * 400, None),
        ('"0.1"', None),
        ("true", None),
        ("null", None),
        ("{}", None),
    ],
)
def test_a_cost_that_a_reply_reports_is_read_as_it_is_written(name: str, written: str, read: str | None) -> None:
    """Sections 2 and 8.3: `usage.cost` is recorded where it is a number that a cost can be, in any format."""
    where = "usageMetadata" if name == "gemini" else "usage"
    body = json.dumps(ANSWERS[name] | {where: {"cost": "@"}}).replace('"@"', written)
    completion = FORMATS[name].parse_response(HttpResponse(200, {}, body.encode()))
    assert isinstance(completion, Completion)
    assert completion.reported_cost_usd == (None if read is None else Decimal(read))
