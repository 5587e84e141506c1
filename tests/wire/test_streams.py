"""A reply says the same whole and in pieces, however the pieces are wrapped."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import Completion, ErrorDetail, HttpResponse, Usage
from cometbatch.wire import FORMATS, Keep, WireFormat
from cometbatch.wire.event_stream import MAX_LINES
from cometbatch.wire.streaming import chunks_of, event_stream
from tests.wire.strategies import JSON_VALUES, completions

every_format = pytest.mark.parametrize("wire", FORMATS.values(), ids=lambda wire: wire.name)
moderate = settings(max_examples=60, deadline=None)
Wrapping = Callable[[list[dict[str, Any]]], bytes]


def dumped(value: object) -> bytes:
    """JSON as most servers write it."""
    return json.dumps(value).encode()


def named(chunk: dict[str, Any]) -> bytes:
    """An event whose name stands in a line of its own, and not in its data."""
    name = str(chunk.get("type", "message"))
    data = dumped({key: value for key, value in chunk.items() if key != "type"} if "type" in chunk else chunk)
    return b"id: 7\r\nevent: " + name.encode() + b"\r\ndata:" + data + b"\r\nretry: 100\r\n\r\n"


WRAPPINGS: dict[str, Wrapping] = {
    "events": lambda chunks: event_stream(chunks, end_mark=False),
    "events and an end mark": lambda chunks: event_stream(chunks, end_mark=True),
    "named events": lambda chunks: b"".join(map(named, chunks)),
    "a byte order mark": lambda chunks: b"\xef\xbb\xbf" + event_stream(chunks, end_mark=True),
    "comments": lambda chunks: b": WAITING\n\n" + event_stream(chunks, end_mark=True).replace(b"\n\n", b"\n\n:\n\n"),
    "no blank lines": lambda chunks: b"\n".join(b"data: " + dumped(chunk) for chunk in chunks),
    "carriage returns": lambda chunks: b"\r".join(b"data: " + dumped(chunk) + b"\r" for chunk in chunks),
    "values over several lines": lambda chunks: b"\n".join(
        b"".join(b"data: " + line + b"\n" for line in json.dumps(chunk, indent=1).encode().splitlines())
        for chunk in chunks
    ),
    "a list": dumped,
    "a list after data:": lambda chunks: b"data: " + dumped(chunks),
    "a line for each": lambda chunks: b"\n".join(map(dumped, chunks)),
}
TYPES = st.sampled_from(["application/json", "text/event-stream", "text/event-stream; charset=utf-8", ""])


def streamed(wire: WireFormat, completion: Completion) -> list[dict[str, Any]]:
    """The chunks of an answer's reply."""
    return chunks_of(wire.name, json.loads(wire.build_response("m", completion).body))


def is_ended(wire: WireFormat, completion: Completion) -> bool:
    """Whether the format's reply says how the answer ended."""
    return completion.finish_reason != "other" or bool(completion.detail)


@every_format
@pytest.mark.parametrize("wrapped", WRAPPINGS.values(), ids=WRAPPINGS)
@settings(max_examples=10, deadline=None)
@given(data=st.data(), kind=TYPES)
def test_chunks_say_what_the_whole_reply_says(
    wire: WireFormat, wrapped: Wrapping, data: st.DataObject, kind: str
) -> None:
    """Text, ending, usage, ids and detail, in each variant of a stream (contract sheet, section 13)."""
    completion = data.draw(
        completions(wire).filter(lambda drawn: is_ended(wire, drawn) and drawn.detail != "no candidates")
    )
    body = wrapped(streamed(wire, completion))
    told = wire.parse_response(HttpResponse(200, {"content-type": kind}, body))
    assert told == whole(wire, completion)


def whole(wire: WireFormat, completion: Completion) -> Completion | ErrorDetail:
    """What is read of the same answer in one reply."""
    return wire.parse_response(wire.build_response("m", completion))


AROUND = [
    (b"", b"\ndata: [DONE]\n\n"),
    (b"", b"[DONE]"),
    (b"data: ", b""),
    (b"data:", b"\n\ndata: [DONE]\n\n"),
    (b": WAITING\n\n: WAITING\n\n", b"\n"),
    (b": WAITING\n", b"\n\n: end\n"),
    (b" \r\n\n\t", b"\r\n"),
    (b"\xef\xbb\xbf\n", b"\ndata: [DONE]\ndata: [DONE]"),
    (b"event: message\ndata: ", b"\n\n"),
    (b"[", b"]"),
]


@every_format
@pytest.mark.parametrize(("before", "after"), AROUND)
@pytest.mark.parametrize("indent", [None, 2])
def test_one_value_is_read_whatever_stands_around_it(
    wire: WireFormat, before: bytes, after: bytes, indent: int | None
) -> None:
    """Comments, blanks, `data:`, an end mark, brackets: also around JSON of many lines, where `data:` comes once."""
    completion = Completion("yes, {no}: [DONE] data:", "stop", Usage(9, 4))
    body = json.dumps(json.loads(wire.build_response("m", completion).body), indent=indent).encode()
    if indent and before.startswith(b"event"):
        body = body.replace(b"\n", b"\ndata: ")
    told = wire.parse_response(HttpResponse(200, {"content-type": "application/json"}, before + body + after))
    assert told == whole(wire, completion)


@every_format
def test_a_stream_without_its_end_is_cut(wire: WireFormat) -> None:
    """At each byte, between two chunks or within one: half an answer is never taken for a whole one."""
    completion = Completion("a text of some length", "stop", Usage(9, 4))
    chunks = streamed(wire, completion)
    last = next(n for n, chunk in enumerate(chunks) if b'"stop"' in dumped(chunk) or b"STOP" in dumped(chunk)
                or b"end_turn" in dumped(chunk) or chunk.get("type") == "response.completed")  # fmt: skip
    body = event_stream(chunks[:last], end_mark=False)
    for end in range(len(b"data: {"), len(body) + 1):
        told = wire.parse_response(HttpResponse(200, {"content-type": "text/event-stream"}, body[:end]))
        assert isinstance(told, ErrorDetail)
        assert told.problem == "not_json"


@every_format
def test_one_chunk_is_an_answer_only_if_it_says_how_the_answer_ended(wire: WireFormat) -> None:
    """Else it is the first of several: an end mark, or a reply that is no stream, says that there are no more."""
    body = wire.build_response("m", Completion("half", "other", Usage(9, 4))).body
    assert isinstance(wire.parse_response(HttpResponse(200, {}, body)), Completion)
    assert isinstance(
        wire.parse_response(HttpResponse(200, {}, b"data: " + body + b"\n\ndata: [DONE]\n\n")), Completion
    )
    told = wire.parse_response(HttpResponse(200, {}, b"data: " + body + b"\n\n"))
    assert isinstance(told, ErrorDetail)
    assert told.problem == "not_json"


@every_format
def test_token_counts_are_those_of_the_last_chunk_that_has_them(wire: WireFormat) -> None:
    """Earlier ones count what was there so far."""
    chunks = streamed(wire, Completion("yes", "stop", Usage(9, 4)))
    early = {"chat": {"usage": {"prompt_tokens": 9, "completion_tokens": 1}},
             "gemini": {"usageMetadata": {"promptTokenCount": 9}}}.get(wire.name, {})  # fmt: skip
    chunks[0] |= early
    told = wire.parse_response(HttpResponse(200, {}, event_stream(chunks, end_mark=True)))
    assert isinstance(told, Completion)
    assert (told.usage.input_tokens, told.usage.output_tokens) == (9, 4)


@every_format
@pytest.mark.parametrize(
    "error",
    [
        b'data: {"error": {"code": 429, "message": "later"}}\n\n',
        b'event: error\ndata: {"code": 429, "message": "later"}\n\n',
        b'data: {"type": "error", "error": {"code": 429, "message": "later"}}\n\n',
        b'data: {"type": "error", "code": 429, "message": "later"}\n\n',
    ],
)
def test_an_error_among_chunks_is_the_error(wire: WireFormat, error: bytes) -> None:
    """By its code, as where it comes alone. One after the end of an answer takes nothing from it."""
    completion = Completion("yes", "stop", Usage(9, 4))
    chunks = streamed(wire, completion)
    told = wire.parse_response(HttpResponse(200, {}, event_stream(chunks[:1], end_mark=False) + error))
    assert isinstance(told, ErrorDetail)
    assert (told.problem, told.code, told.message) == ("error", "429", "later")
    ended = wire.parse_response(HttpResponse(200, {}, event_stream(chunks, end_mark=False) + error))
    assert ended == whole(wire, completion)


def chat_stream(*choices: dict[str, Any], **more: Any) -> Completion | ErrorDetail:
    """What is read of chat chunks with these choices."""
    chunks: list[dict[str, Any]] = [{"id": "x", "choices": [{"index": 0, **choice}]} for choice in choices]
    return FORMATS["chat"].parse_response(HttpResponse(200, {}, event_stream([*chunks, more], end_mark=True)))


@pytest.mark.parametrize(
    ("choices", "text", "reason", "detail"),
    [
        ([{"text": "ye"}, {"text": "s", "finish_reason": "stop"}], "yes", "stop", None),
        ([{"delta": {"content": "y"}}, {"message": {"content": "yes"}, "finish_reason": "stop"}], "yes", "stop", None),
        ([{"delta": {"content": [{"type": "text", "text": "yes"}]}, "finish_reason": "STOP"}], "yes", "stop", None),
        ([{"delta": {"content": "yes"}}], "yes", "other", None),
        ([{"delta": {"content": "yes"}}, {"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"}],
         "yes", "other", None),
        (
            [{"delta": {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}},
             {"delta": {"tool_calls": [{"function": {"arguments": "}"}}]}, "finish_reason": "stop"}],
            "", "tool_calls", '[{"id":"a","function":{"name":"f","arguments":"{"}},{"function":{"arguments":"}"}}]',
        ),
        (
            [{"delta": {"function_call": {"name": "f", "arguments": "{"}}},
             {"delta": {"function_call": {"arguments": "}"}}, "finish_reason": "function_call"}],
            "", "tool_calls", '[{"function":{"name":"f","arguments":"{}"}}]',
        ),
    ],
)  # fmt: skip
def test_chat_chunks_of_other_shapes(choices: list[dict[str, Any]], text: str, reason: str, detail: str | None) -> None:
    """The older completions, whole messages among deltas, parts, calls without an index, other choices."""
    told = chat_stream(*choices)
    assert isinstance(told, Completion)
    assert (told.text, told.finish_reason, told.detail) == (text, reason, detail)


def test_an_error_in_a_choice_of_a_stream_is_the_error() -> None:
    """Its code and words are kept."""
    told = chat_stream(
        {"delta": {"content": "y"}}, {"delta": {}, "finish_reason": "error", "error": {"code": 502, "message": "gone"}}
    )
    assert isinstance(told, ErrorDetail)
    assert (told.code, told.message) == ("502", "gone")


def test_log_probabilities_and_citations_of_a_stream_are_in_the_raw_reply() -> None:
    """What a whole reply would have held."""
    chunks: list[dict[str, Any]] = [
        {"citations": ["u"], "choices": [{"delta": {"content": "y"}, "logprobs": {"content": [{"token": "y"}]}}]},
        {"choices": [{"delta": {"content": "o"}, "logprobs": {"content": [{"token": "o"}]}, "finish_reason": "stop"}]},
    ]
    told = FORMATS["chat"].parse_response(
        HttpResponse(200, {}, event_stream(chunks, end_mark=True)), keep=Keep(raw=True)
    )
    assert isinstance(told, Completion)
    assert told.raw is not None
    kept = json.loads(told.raw)
    assert kept["citations"] == ["u"]
    assert kept["choices"][0]["logprobs"] == {"content": [{"token": "y"}, {"token": "o"}]}


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([{"type": "response.output_text.delta", "delta": words} for words in ("ye", "s", None)], "yes"),
        ([{"type": "response.output_item.done", "item": {"type": "message", "content": ["yes"]}}], "yes"),
        ([{"type": "response.output_item.done", "output_index": 0, "item": {"type": "reasoning"}},
          {"type": "response.output_text.delta", "delta": "yes"}], "yes"),
    ],
)  # fmt: skip
def test_a_response_that_ends_without_its_output_is_put_together(events: list[dict[str, Any]], text: str) -> None:
    """Some gateways leave the output out of the last event; the status may stand in its name alone."""
    last = {"type": "response.completed", "response": {"id": "r", "usage": {"input_tokens": 3, "output_tokens": 1}}}
    told = FORMATS["responses"].parse_response(HttpResponse(200, {}, event_stream([*events, last], end_mark=False)))
    assert isinstance(told, Completion)
    assert (told.text, told.finish_reason, told.usage) == (text, "stop", Usage(3, 1))


def test_a_response_that_fails_while_it_streams_says_so() -> None:
    """The last event is the error."""
    failed = {"status": "failed", "error": {"code": "server_error", "message": "broke"}}
    chunks: list[dict[str, Any]] = [
        {"type": "response.created", "response": {}},
        {"type": "response.failed", "response": failed},
    ]
    told = FORMATS["responses"].parse_response(HttpResponse(200, {}, event_stream(chunks, end_mark=False)))
    assert isinstance(told, ErrorDetail)
    assert (told.problem, told.code) == ("failed_generation", "server_error")


def test_blocks_of_a_message_are_put_together_wherever_they_say_that_they_stand() -> None:
    """Thinking, text without a start, an index beyond reason, input that is no JSON."""
    chunks: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3, "output_tokens": None}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "h"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}},
        {"type": "content_block_delta", "index": 10**9, "delta": {"type": "text_delta", "text": "yes"}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "name": "f"}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{half"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
    ]
    told = FORMATS["messages"].parse_response(
        HttpResponse(200, {}, event_stream(chunks, end_mark=False)), keep=Keep(reasoning=True)
    )
    assert isinstance(told, Completion)
    assert (told.text, told.finish_reason, told.reasoning, told.usage) == ("yes", "tool_calls", "hm", Usage(3, 4))
    assert told.detail == '[{"type":"tool_use","name":"f","input":"{half"}]'


def test_a_blocked_prompt_ends_a_gemini_stream() -> None:
    """There will be no candidate."""
    chunks = [{"promptFeedback": {"blockReason": "SAFETY"}}, {"usageMetadata": {"promptTokenCount": 3}}]
    told = FORMATS["gemini"].parse_response(HttpResponse(200, {}, json.dumps(chunks).encode()))
    assert isinstance(told, Completion)
    assert (told.finish_reason, told.detail, told.usage.input_tokens) == ("content_filter", "prompt blocked: SAFETY", 3)


@every_format
@moderate
@given(
    values=st.lists(JSON_VALUES, max_size=5),
    wrapped=st.sampled_from(["data: %b\n\n", "data: %b\n", "%b\n", "event: error\ndata: %b\n\n"]),
)
def test_any_values_in_a_stream_get_an_answer(wire: WireFormat, values: list[Any], wrapped: str) -> None:
    """Whatever events hold."""
    body = b"".join(wrapped.encode() % dumped(value) for value in values)
    assert isinstance(wire.parse_response(HttpResponse(200, {}, body)), Completion | ErrorDetail)


@pytest.mark.parametrize(
    "unit",
    [b"data: {}\n\n", b"data: 1\n", b":\n", b"\n", b"data: [DONE]\n", b'data: "\xff"\n\n', b'data: {"a": NaN}\n\n',
     b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n', b"[DONE]", b'data: {"', b'"', b"{}\r", b"data:data:"],
)  # fmt: skip
def test_a_stream_of_any_length_is_read_in_bounded_time(unit: bytes) -> None:
    """Four megabytes of anything take linear time, and only so many lines are read (else this would take minutes)."""
    told = FORMATS["chat"].parse_response(HttpResponse(200, {}, unit * (4_000_000 // len(unit))))
    assert isinstance(told, Completion | ErrorDetail)


def test_a_long_streamed_answer_is_read() -> None:
    """Twenty thousand tokens, one in each chunk: a plain JSON body of so many values would be refused."""
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": "word, "}, "finish_reason": None}]}
    ] * 20_000
    body = event_stream([*chunks, {"choices": [{"delta": {}, "finish_reason": "stop"}]}], end_mark=True)
    assert body.count(b"\n") < MAX_LINES
    told = FORMATS["chat"].parse_response(HttpResponse(200, {}, body))
    assert isinstance(told, Completion)
    assert told.text == "word, " * 20_000


def test_an_error_status_with_more_lines_than_any_stream_has_says_its_first_bytes() -> None:
    """What is too long to be looked through is told like any other page."""
    told = FORMATS["chat"].parse_response(HttpResponse(500, {}, b"data: 1\n" * 300_000))
    assert isinstance(told, ErrorDetail)
    assert told.message.startswith("data: 1 data: 1")


def test_what_a_streamed_answer_cites_is_kept() -> None:
    """An answer that cites addresses has searched for them, which is billed beside the tokens."""
    chunks: list[dict[str, Any]] = [
        {"choices": [{"delta": {"content": "yes", "annotations": [{"type": "url_citation"}]}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    ]
    told = FORMATS["chat"].parse_response(HttpResponse(200, {}, event_stream(chunks, end_mark=True)))
    assert isinstance(told, Completion)
    assert told.cost_excludes == "web_search"


def test_counts_of_zero_beside_a_call_were_not_said() -> None:
    """As beside a text: a call is an answer, too."""
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 0, "output_tokens": 0}
    bodies: dict[str, dict[str, Any]] = {
        "chat": {"choices": [{"message": {"tool_calls": [{"id": "c"}]}}], "usage": zeros},
        "responses": {"output": [{"type": "function_call"}], "usage": zeros},
        "messages": {"content": [{"type": "tool_use"}], "usage": zeros},
        "gemini": {"candidates": [{"content": {"parts": [{"functionCall": {}}]}}],
                   "usageMetadata": {"promptTokenCount": 0, "candidatesTokenCount": 0}},
    }  # fmt: skip
    for name, body in bodies.items():
        told = FORMATS[name].parse_response(HttpResponse(200, {}, dumped(body)))
        assert isinstance(told, Completion)
        assert (told.usage, told.finish_reason) == (Usage(), "tool_calls")


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        ("chat", {"choices": [{"delta": {"content": "yes"}, "finish_reason": "stop"}]}),
        ("responses", {"type": "response.completed", "response": {"status": "completed", "output": ["x"]}}),
        ("gemini", {"candidates": [{"content": {"parts": [{"text": "yes"}]}, "finishReason": "STOP"}]}),
    ],
)
def test_a_stream_of_one_chunk_that_ends_the_answer_is_whole(name: str, chunk: dict[str, Any]) -> None:
    """Whether it stands in an event, in a list, or alone."""
    for body in (b"data: " + dumped(chunk) + b"\n\n", dumped([chunk]), dumped(chunk)):
        told = FORMATS[name].parse_response(HttpResponse(200, {}, body))
        assert isinstance(told, Completion)
        assert told.finish_reason == "stop"


@pytest.mark.parametrize("body", [b'data: {"candidates": [{"content": {"parts": [{"text": "ye"}]}}]}\n\n',
                                  b'[{"candidates": [{"content": {"parts": [{"text": "ye"}]}}]}]'])  # fmt: skip
def test_a_stream_of_one_chunk_that_does_not_end_the_answer_is_cut(body: bytes) -> None:
    """Gemini's chunks look like whole replies; alone, outside of a stream, such a body is one without a finish word."""
    told = FORMATS["gemini"].parse_response(HttpResponse(200, {}, body))
    assert isinstance(told, ErrorDetail)
    assert told.problem == "not_json"
