"""Token counts: inclusive totals in every format, and None for whatever is no count."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import CONTRADICTION, Completion, HttpResponse, Usage
from cometbatch.wire import FORMATS
from cometbatch.wire.counts import Counters, consistent_usage, count, total
from cometbatch.wire.uncovered import KEPT_CHARACTERS
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
            Usage(9, None, None, 5, None, 3),
        ),
        ("chat", {"prompt_tokens": 9, "claude_cache_creation_1_h_tokens": 3}, Usage(9, None, None, 3, None, 3)),
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
        ("gemini", {"promptTokenCount": 0}, Usage()),
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


CONTRADICTORY = None  # in place of a usage

READINGS: list[tuple[str, Counters, Usage | None]] = [
    ("cached in the prompt", Counters(50, 9, 59, 30, 10), Usage(50, 9, 30, 10)),
    ("cached beside the prompt, by the total", Counters(50, 9, 99, 30, 10), Usage(90, 9, 30, 10)),
    ("read in it, written beside it, by the total", Counters(50, 9, 69, 30, 10), Usage(60, 9, 30, 10)),
    ("cached larger than the prompt, no total", Counters(5, 9, None, 6), Usage(11, 9, 6)),
    ("read and written together larger than the prompt", Counters(5, 9, None, 3, 3), Usage(11, 9, 3, 3)),
    ("cached larger than the prompt, and no part of the total", Counters(5, 9, 14, 30, 10), Usage(45, 9, 30, 10)),
    ("a prompt of nothing but cached", Counters(0, 9, None, 30), Usage(30, 9, 30)),
    ("reasoning in the output", Counters(5, 9, 14, reasoning=4), Usage(5, 9, None, None, 4)),
    ("reasoning beside the output, by the total", Counters(5, 9, 18, reasoning=4), Usage(5, 13, None, None, 4)),
    ("reasoning larger than the output, no total", Counters(5, 9, reasoning=10), Usage(5, 19, None, None, 10)),
    ("reasoning larger than the output, by the total", Counters(5, 9, 24, reasoning=10), Usage(5, 19, None, None, 10)),
    ("both beside, by the total", Counters(50, 9, 93, 30, reasoning=4), Usage(80, 13, 30, None, 4)),
    ("thoughts in the total alone", Counters(5, 9, 100), Usage(5, 95)),
    (
        "thoughts in the total alone, some of them counted",
        Counters(5, 9, 100, reasoning=40),
        Usage(5, 95, None, None, 40),
    ),
    ("no output, but a total", Counters(5, None, 100), Usage(5, 95)),
    ("no output, a total, and reasoning", Counters(5, None, 100, reasoning=95), Usage(5, 95, None, None, 95)),
    ("no prompt, but a total", Counters(None, 9, 100, 4, reasoning=2), Usage(None, 9, 4, None, 2)),
    ("no prompt and no total", Counters(None, 9, reasoning=10), Usage(None, 19, None, None, 10)),
    ("nothing but a total", Counters(None, None, 100), Usage()),
    ("no total but a zero", Counters(5, 9, 0, 4), Usage(5, 9, 4)),
    ("a prompt of 0, and a total that may hold it", Counters(0, 9, 100), CONTRADICTORY),
    ("nothing but zeros, and a total", Counters(0, 0, 100), CONTRADICTORY),
    ("gemini: the same", Counters(0, 9, 100, 0, reasoning=4, reasoning_beside=True), CONTRADICTORY),
    ("a prompt of 0, cached beside it, and thoughts in the total alone", Counters(0, 9, 100, 30), Usage(30, 70, 30)),
    ("a total below the counts", Counters(50, 9, 30), CONTRADICTORY),
    ("a total below the counts, with parts", Counters(50, 9, 58, 30, reasoning=4), CONTRADICTORY),
    ("a total below the prompt, and no output", Counters(50, None, 30), CONTRADICTORY),
    ("a total between the readings", Counters(50, 9, 60, reasoning=20), CONTRADICTORY),
    ("all zero", Counters(0, 0, 0, 0, 0, 0, 0), Usage()),
    ("no prompt has 0 tokens", Counters(0, 9, 9), Usage(None, 9)),
    ("no text has 0 tokens", Counters(5, 0, 5, 4, reasoning=0), Usage(5, None, 4)),
    ("a sum that is no count", Counters(2**63 - 1, 9, None, 2**63 - 1, 1), Usage(None, 9, 2**63 - 1, 1)),
]
BESIDE = {"cache_beside": True}
GEMINI = {"reasoning_beside": True}
READINGS += [
    ("messages: cached beside the prompt", Counters(50, 9, None, 30, 10, **BESIDE), Usage(90, 9, 30, 10)),
    ("messages: cached in the prompt, by the total", Counters(50, 9, 59, 30, 10, **BESIDE), Usage(50, 9, 30, 10)),
    ("messages: cached beside it, by the total", Counters(50, 9, 99, 30, 10, **BESIDE), Usage(90, 9, 30, 10)),
    ("messages: the total leaves the cached part out", Counters(5, 9, 14, 30, **BESIDE), Usage(35, 9, 30)),
    ("messages: a total below the counts", Counters(50, 9, 10, 30, **BESIDE), CONTRADICTORY),
    ("gemini: thoughts beside candidates", Counters(5, 9, None, 0, reasoning=4, **GEMINI), Usage(5, 13, 0, None, 4)),
    ("gemini: thoughts in candidates", Counters(5, 9, 14, 0, reasoning=4, **GEMINI), Usage(5, 9, 0, None, 4)),
    ("gemini: tools beside the prompt", Counters(5, 9, 34, 0, tool_use=20, **GEMINI), Usage(25, 9, 0)),
    ("gemini: tools, no total", Counters(5, 9, None, 0, tool_use=20, **GEMINI), Usage(25, 9, 0)),
    ("gemini: tools in the prompt, by the total", Counters(50, 9, 59, 0, tool_use=20, **GEMINI), Usage(50, 9, 0)),
    ("gemini: tools are no part of the total", Counters(5, 9, 18, 0, reasoning=4, tool_use=20, **GEMINI),
     Usage(25, 13, 0, None, 4)),
    ("gemini: cached larger than all input", Counters(5, 9, None, 40, tool_use=20, **GEMINI), Usage(65, 9, 40)),
]  # fmt: skip


@pytest.mark.parametrize(("said", "expected"), [each[1:] for each in READINGS], ids=[each[0] for each in READINGS])
def test_counts_are_read_so_that_they_fit(said: Counters, expected: Usage | None) -> None:
    """Section 13: the total decides; a part larger than its whole stands beside it; what fits nothing is unknown."""
    assert consistent_usage(said, has_text=True) == expected


@pytest.mark.parametrize(
    ("said", "sent_bytes", "input_tokens"),
    [
        (Counters(50, 9, None, 30, **BESIDE), None, 80),
        (Counters(50, 9, None, 30, **BESIDE), 80, 80),
        (Counters(50, 9, None, 30, **BESIDE), 79, 50),
        (Counters(50, 9, None, 30, **BESIDE), 50, 50),
        (Counters(50, 9, None, 30, **BESIDE), 49, 80),  # the service has added input: the format's own reading
        (Counters(20, 9, None, 30, **BESIDE), 10, 50),  # one reading alone fits the reply
        (Counters(50, 9, 89, 30, **BESIDE), 60, 80),  # the total tells
        (Counters(50, 9, 59, 30, **BESIDE), 1000, 50),
        (Counters(50, 9, None, 30), 10, 50),
        (Counters(50, 9, None, 30), 1000, 50),
        (Counters(50, None, None, 30, **BESIDE), 60, 50),
    ],
)
def test_the_bytes_that_were_sent_choose_between_readings_that_both_fit(
    said: Counters, sent_bytes: int | None, input_tokens: int
) -> None:
    """No token is less than a byte: the reading that is not above the bytes counts. They make nothing unknown."""
    usage = consistent_usage(said, sent_bytes=sent_bytes)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (input_tokens, said.output)


@pytest.mark.parametrize("name", ANSWERS)
def test_each_format_hands_the_bytes_on(name: str) -> None:
    """Only where the cached input stands beside the prompt, and there is no total, do they change anything."""
    usage = {
        "input_tokens": 500,
        "prompt_tokens": 500,
        "cache_read_input_tokens": 400,
        "output_tokens": 7,
        "promptTokenCount": 500,
    }
    body = json.dumps(ANSWERS[name] | {"usageMetadata" if name == "gemini" else "usage": usage}).encode()
    read = [FORMATS[name].parse_response(HttpResponse(200, {}, body), sent_bytes) for sent_bytes in (None, 600)]
    inputs = [each.usage.input_tokens for each in read if isinstance(each, Completion)]
    assert inputs == ([900, 500] if name == "messages" else [500, 500])


COUNT_OR_NONE = st.none() | st.integers(0, 60)
COUNTERS = st.builds(
    lambda hour, **counts: Counters(cache_write_1h=min(hour, counts["cache_write"] or 0), **counts),
    st.integers(0, 20),
    input=COUNT_OR_NONE,
    output=COUNT_OR_NONE,
    total=st.none() | st.integers(0, 200),
    cache_read=COUNT_OR_NONE,
    cache_write=COUNT_OR_NONE,
    reasoning=COUNT_OR_NONE,
    tool_use=st.integers(0, 60),
    cache_beside=st.booleans(),
    reasoning_beside=st.booleans(),
)


@settings(max_examples=500, deadline=None)
@given(said=COUNTERS, sent_bytes=st.none() | st.integers(0, 200), has_text=st.booleans())
def test_no_reading_contradicts_itself_or_lies_below_the_replys_own_counts(
    said: Counters, sent_bytes: int | None, has_text: bool
) -> None:
    """No part exceeds its whole, nothing is less than the reply says, and the total is met where there is one.

    A total may only leave out parts that are larger than their wholes. Nothing is contradictory without a total.
    """
    usage = consistent_usage(said, sent_bytes=sent_bytes, has_text=has_text)
    if usage is None:
        assert said.total
        assert said.input is not None
        return
    inputs, outputs = usage.input_tokens, usage.output_tokens
    read, written = usage.cache_read_input_tokens or 0, usage.cache_write_input_tokens or 0
    assert inputs is None or inputs >= max(1, read + written, said.input or 0)
    assert outputs is None or outputs >= max(has_text, usage.reasoning_output_tokens or 0, said.output or 0)
    assert (usage.cache_write_1h_input_tokens or 0) <= written
    if said.total and inputs is not None and outputs is not None and said.input is not None:
        cached = (said.cache_read or 0) + (said.cache_write or 0)
        left_out_of_input = {0, inputs - said.input} if cached + said.tool_use > said.input else {0}
        is_beside = said.output is not None and (said.reasoning or 0) > said.output
        left_out_of_output = {0, said.reasoning or 0} if is_beside else {0}
        missing = inputs + outputs - said.total
        assert missing in {one + two for one in left_out_of_input for two in left_out_of_output}


@settings(max_examples=200, deadline=None)
@given(said=COUNTERS, sent_bytes=st.integers(0, 200))
def test_the_bytes_only_choose(said: Counters, sent_bytes: int) -> None:
    """With or without them the same counts are known, and with them the input is never the larger for it."""
    without, with_bytes = consistent_usage(said), consistent_usage(said, sent_bytes=sent_bytes)
    assert (without is None) == (with_bytes is None)
    if without is None or with_bytes is None:
        return
    known = [[count is None for count in msgspec.structs.astuple(each)] for each in (without, with_bytes)]
    assert known[0] == known[1]
    if without.input_tokens != with_bytes.input_tokens:
        assert (with_bytes.input_tokens or 0) <= sent_bytes < (without.input_tokens or 0)


@st.composite
def told(draw: st.DrawFn) -> tuple[Counters, Usage]:
    """Counts as some gateway tells them with their true total, and what is true.

    Parts have digits of their own, so that no two readings come to the same total.
    """
    digit = st.integers(1, 9)
    read, written = draw(digit), draw(digit) * 10
    reasoning, tool_use = draw(digit) * 100, draw(st.just(0) | digit.map(lambda number: number * 1000))
    hour = draw(st.none() | st.integers(1, written))
    apart = {part: draw(st.booleans()) for part in (read, written, tool_use, reasoning)}
    prompt, completion = 20_000 + draw(st.integers(0, 9)), 1_000 + draw(st.integers(0, 9))
    inputs = prompt + sum(part for part in (read, written, tool_use) if apart[part])
    outputs = completion + (reasoning if apart[reasoning] else 0)
    said = Counters(
        prompt,
        completion,
        inputs + outputs,
        read,
        written,
        hour,
        reasoning,
        tool_use,
        draw(st.booleans()),
        draw(st.booleans()),
    )
    return said, Usage(inputs, outputs, read, written, reasoning, hour)


@settings(max_examples=300, deadline=None)
@given(told(), st.none() | st.integers(0, 50_000))
def test_a_true_total_tells_which_parts_stand_beside_their_wholes(
    case: tuple[Counters, Usage], sent_bytes: int | None
) -> None:
    """Whatever convention a gateway has, and whatever the format's own is, what is true is read."""
    said, true = case
    assert consistent_usage(said, sent_bytes=sent_bytes, has_text=True) == true


CACHE_NAMES: list[tuple[str, dict[str, Any], Usage]] = [
    ("chat", {"prompt_tokens_details": {"cached_tokens": 4}}, Usage(90, 5, 4)),
    ("chat", {"prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 86}, Usage(90, 5, 4)),
    ("chat", {"cached_tokens": 4}, Usage(90, 5, 4)),
    ("chat", {"cache_read_input_tokens": 4, "cache_creation_input_tokens": 6}, Usage(90, 5, 4, 6)),
    ("chat", {"prompt_tokens_details": {"cached_tokens": 0}, "prompt_cache_hit_tokens": 4}, Usage(90, 5, 4)),
    ("chat", {"prompt_tokens_details": {"cached_tokens": 4}, "prompt_cache_hit_tokens": 9}, Usage(90, 5, 4)),
    ("chat", {"prompt_tokens_details": {"cached_tokens": 0}}, Usage(90, 5, 0)),
    ("chat", {"prompt_tokens_details": {"cached_tokens": "4"}}, Usage(90, 5)),
    ("chat", {"prompt_tokens_details": {"cached_tokens": "4"}, "cached_tokens": 0}, Usage(90, 5)),
    ("chat", {"prompt_tokens_details": {"cached_tokens": "4"}, "cached_tokens": 3}, Usage(90, 5, 3)),
    ("chat", {"prompt_tokens_details": {"cache_write_tokens": 6}}, Usage(90, 5, None, 6)),
    ("chat", {"prompt_tokens_details": {"cached_creation_tokens": 6}}, Usage(90, 5, None, 6)),
    ("chat", {"prompt_tokens_details": {"cache_creation_tokens": 6}}, Usage(90, 5, None, 6)),
    ("chat", {"prompt_tokens_details": {"cache_write_tokens": 6, "cached_creation_tokens": 8}}, Usage(90, 5, None, 6)),
    ("chat", {"prompt_tokens_details": {"cached_creation_tokens": 6}, "claude_cache_creation_5_m_tokens": 6},
     Usage(90, 5, None, 6)),
    ("chat", {"prompt_tokens_details": {"cached_creation_tokens": 6}, "claude_cache_creation_1_h_tokens": 6},
     Usage(90, 5, None, 6, None, 6)),
    ("responses", {"input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 6}}, Usage(90, 5, 4, 6)),
    ("responses", {"cache_read_input_tokens": 4, "claude_cache_creation_1_h_tokens": 6}, Usage(90, 5, 4, 6, None, 6)),
    ("messages", {"prompt_tokens_details": {"cached_tokens": 4}}, Usage(94, 5, 4)),
    ("messages", {"cache_read_input_tokens": 4, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(94, 5, 4)),
    ("messages", {"cache_creation_input_tokens": 6, "cache_creation": {"ephemeral_1h_input_tokens": 2}},
     Usage(96, 5, None, 6, None, 2)),
    ("messages", {"cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 2}},
     Usage(96, 5, None, 6, None, 2)),
    ("messages", {"cache_creation_input_tokens": 6,
                  "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}},
     Usage(96, 5, None, 6)),
    ("messages", {"cache_creation_input_tokens": 3,
                  "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 2}},
     Usage(96, 5, None, 6, None, 2)),
    ("messages", {"cache_creation_input_tokens": 6,
                  "cache_creation": {"ephemeral_5m_input_tokens": "x", "ephemeral_1h_input_tokens": 8}},
     Usage(96, 5, None, 6)),
    ("messages", {"cache_creation": {"ephemeral_1h_input_tokens": "x"}}, Usage(None, 5)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "cached", "expected"), CACHE_NAMES)
def test_cached_input_is_found_under_every_name(name: str, cached: dict[str, Any], expected: Usage) -> None:
    """Section 13: of names for one count the vendor's own stands; a 0 says nothing beside another's count."""
    own = {"prompt_tokens": 90, "completion_tokens": 5, "input_tokens": 90, "output_tokens": 5}
    assert _usage_of(name, own | cached) == expected


TRANSLATED: list[tuple[str, dict[str, Any], Usage]] = [
    ("chat", {"input_tokens": 90, "output_tokens": 5, "total_tokens": 95}, Usage(90, 5)),
    ("chat", {"prompt_tokens": None, "input_tokens": 90, "output_tokens": 5}, Usage(90, 5)),
    ("chat", {"input_tokens": 90, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 4},
              "output_tokens_details": {"reasoning_tokens": 3}}, Usage(90, 5, 4, None, 3)),
    ("chat", {"input_tokens": 90, "output_tokens": 5, "cache_read_input_tokens": 100}, Usage(190, 5, 100)),
    ("chat", {"prompt_tokens": 90, "input_tokens": 8, "output_tokens": 5}, Usage(90)),
    ("responses", {"prompt_tokens": 90, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}},
     Usage(90, 5, None, None, 3)),
    ("messages", {"prompt_tokens": 90, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
     Usage(90, 5, 4)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "usage", "expected"), TRANSLATED)
def test_counts_under_another_format_s_names_count_where_none_stands_under_its_own(
    name: str, usage: dict[str, Any], expected: Usage
) -> None:
    """A gateway that translates a reply may leave its counts as they were; what they include follows their names."""
    assert _usage_of(name, usage) == expected


@pytest.mark.parametrize("name", ANSWERS)
def test_counts_that_fit_no_reading_are_kept_as_they_came(name: str) -> None:
    """A person can see what the service said, in a text of bounded length."""
    usage = {"prompt_tokens": 90, "completion_tokens": 5, "input_tokens": 90, "output_tokens": 5, "total_tokens": 7}
    usage |= {"promptTokenCount": 90, "candidatesTokenCount": 5, "totalTokenCount": 7}
    for padding in ("", "x" * 5_000):
        counts = usage | {"note": padding}
        body = json.dumps(ANSWERS[name] | {"usageMetadata" if name == "gemini" else "usage": counts}).encode()
        completion = FORMATS[name].parse_response(HttpResponse(200, {}, body))
        assert isinstance(completion, Completion)
        assert completion.usage == Usage()
        kept = completion.cost_excludes or ""
        assert kept == CONTRADICTION + json.dumps(counts, separators=(",", ":"))[:KEPT_CHARACTERS]


KEYS = st.sampled_from(
    [
        "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "promptTokenCount",
        "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount", "cache_creation_input_tokens",
        "cache_read_input_tokens", "claude_cache_creation_5_m_tokens", "claude_cache_creation_1_h_tokens",
        "total_tokens", "totalTokenCount", "toolUsePromptTokenCount", "prompt_cache_hit_tokens", "cached_tokens",
    ]
)  # fmt: skip
DETAILS = st.dictionaries(
    st.sampled_from(["cached_tokens", "reasoning_tokens", "cache_write_tokens", "cached_creation_tokens"]),
    st.integers(0, 20) | JSON_VALUES,
)
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
    if usage.cache_write_input_tokens is not None:
        assert (usage.cache_write_1h_input_tokens or 0) <= usage.cache_write_input_tokens


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
