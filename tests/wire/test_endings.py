"""How an answer can end: every incomplete variant of the sheet, all of them HTTP 200."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from cometbatch.records import Completion, ErrorDetail, FinishReason, HttpResponse, Usage
from cometbatch.wire import FORMATS


def _read(name: str, body: object) -> Completion | ErrorDetail:
    return FORMATS[name].parse_response(HttpResponse(200, {}, json.dumps(body).encode()))


def _ending(name: str, body: object) -> tuple[str, str, str | None]:
    completion = _read(name, body)
    assert isinstance(completion, Completion), completion
    return completion.finish_reason, completion.text, completion.detail


def _chat(finish: object, **message: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}]}


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALL_TEXT = '{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (_chat("length", content="Fou"), ("length", "Fou", None)),
        (_chat("length", content="", reasoning_content="hm"), ("length", "", None)),
        (_chat("length", content=None), ("length", "", None)),
        (_chat("content_filter", content=None), ("content_filter", "", None)),
        (_chat("content_filter", content="Fo"), ("content_filter", "Fo", None)),
        (_chat("stop", content=None, refusal="No."), ("refusal", "", "No.")),
        (_chat("stop", content="Four", refusal="No."), ("stop", "Four", None)),
        (_chat("stop", content=None, refusal=""), ("stop", "", None)),
        (_chat("tool_calls", content=None, tool_calls=[CALL]), ("tool_calls", "", f"[{CALL_TEXT}]")),
        (_chat("tool_calls", content="Let me see", tool_calls=[CALL]), ("tool_calls", "Let me see", f"[{CALL_TEXT}]")),
        (_chat("tool_calls", content=None), ("tool_calls", "", None)),
        (_chat("function_call", function_call={"name": "f"}), ("tool_calls", "", '[{"name":"f"}]')),
        (_chat("stop", content=""), ("stop", "", None)),
        (
            _chat("stop", content=[{"type": "text", "text": "Fo"}, {"type": "text", "text": "ur"}]),
            ("stop", "Four", None),
        ),
        (_chat("stop", content=[{"type": "thinking", "text": "hm"}, {"type": "text"}, 7]), ("stop", "", None)),
        (_chat("stop", content="Four", reasoning_content="notes"), ("stop", "Four", None)),
        (_chat("done_it", content="Four"), ("other", "Four", "done_it")),
        (_chat(None, content="Four"), ("other", "Four", None)),
        (_chat(["stop"], content="Four"), ("other", "Four", None)),
        (_chat("", content="Four"), ("other", "Four", None)),
    ],
)
def test_chat_endings(body: object, expected: tuple[FinishReason, str, str | None]) -> None:
    """Contract sheet, section 2: reason, text and detail of each signature; reasoning is never text."""
    assert _ending("chat", body) == expected


def test_a_chat_answer_without_choices_that_was_billed_keeps_its_token_counts() -> None:
    """It ends incomplete with its cost, where a failure would have lost both."""
    body = {"id": "x", "model": "m", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 0}}
    assert _read("chat", body) == Completion("", "other", Usage(9, 0), "x", "m", "no choices")


def _response(status: object, *parts: object, items: Sequence[object] = (), **more: Any) -> dict[str, Any]:
    message = {"type": "message", "role": "assistant", "content": list(parts)}
    reasoning = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "content": [{"text": "hm"}]}
    return {"status": status, "output": [reasoning, *([message] if parts else []), *items], **more}


def _words(text: str) -> dict[str, str]:
    return {"type": "output_text", "text": text}


def _reason(word: object) -> dict[str, Any]:
    return {"incomplete_details": {"reason": word}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (_response("completed", _words("Fo"), _words("ur")), ("stop", "Four", None)),
        (_response("completed"), ("stop", "", None)),
        (_response("incomplete", _words("Fo"), **_reason("max_output_tokens")), ("length", "Fo", None)),
        (_response("incomplete", **_reason("max_output_tokens")), ("length", "", None)),
        (_response("incomplete", **_reason("content_filter")), ("content_filter", "", None)),
        (_response("incomplete", _words("Fo"), **_reason("max_tool_calls")), ("other", "Fo", "max_tool_calls")),
        (_response("incomplete", incomplete_details=None), ("other", "", None)),
        (_response("completed", {"type": "refusal", "refusal": "No."}), ("refusal", "", "No.")),
        (_response("completed", _words("Well"), {"type": "refusal", "refusal": "No."}), ("refusal", "Well", "No.")),
        (_response("completed", {"type": "refusal"}), ("refusal", "", None)),
        (
            _response("completed", items=[{"type": "function_call", "name": "f"}]),
            ("tool_calls", "", '[{"type":"function_call","name":"f"}]'),
        ),
        (
            _response("completed", _words("Four"), items=[{"type": "function_call"}]),
            ("tool_calls", "Four", '[{"type":"function_call"}]'),
        ),
        (_response("paused", _words("Four")), ("other", "Four", "paused")),
        (_response(None, _words("Four")), ("other", "Four", None)),
        (_response("completed", {"type": "output_text", "text": None}, 7), ("stop", "", None)),
    ],
)
def test_responses_endings(body: object, expected: tuple[FinishReason, str, str | None]) -> None:
    """Contract sheet, section 3: `status` and its details decide; reasoning items are never text."""
    assert _ending("responses", body) == expected


@pytest.mark.parametrize(
    ("body", "problem", "code", "message"),
    [
        (
            {"status": "failed", "error": {"code": "server_error", "message": "broke"}, "output": []},
            "failed_generation", "server_error", "broke",
        ),
        ({"status": "failed", "error": None, "output": []}, "failed_generation", "", "generation ended as failed"),
        ({"status": "cancelled", "output": []}, "failed_generation", "", "generation ended as cancelled"),
        ({"status": "queued", "output": []}, "not_understood", "", '{"status": "queued", "output": []}'),
        ({"status": "in_progress", "output": []}, "not_understood", "", '{"status": "in_progress", "output": []}'),
    ],
)  # fmt: skip
def test_responses_that_brought_no_answer(body: object, problem: str, code: str, message: str) -> None:
    """Contract sheet, section 3: a failed generation says why; one for later is not an answer."""
    told = _read("responses", body)
    assert isinstance(told, ErrorDetail)
    assert (told.status, told.problem, told.code, told.message) == (200, problem, code, message)


def _message(stop: object, *blocks: object) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(blocks), "stop_reason": stop}


def _block(text: object) -> dict[str, object]:
    return {"type": "text", "text": text}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (_message("end_turn", _block("Fo"), _block("ur")), ("stop", "Four", None)),
        (_message("stop_sequence", _block("Four")), ("stop", "Four", None)),
        (_message("max_tokens", {"type": "thinking", "thinking": "hm", "text": "hm"}), ("length", "", None)),
        (_message("model_context_window_exceeded", _block("Fo")), ("length", "Fo", None)),
        (_message("refusal"), ("refusal", "", None)),
        (_message("refusal", _block("I won't")), ("refusal", "I won't", None)),
        (
            _message("tool_use", {"type": "tool_use", "name": "f"}),
            ("tool_calls", "", '[{"type":"tool_use","name":"f"}]'),
        ),
        (_message("tool_use"), ("tool_calls", "", None)),
        (_message("pause_turn", _block("Fo")), ("other", "Fo", "pause_turn")),
        (_message(None, _block("Fo")), ("other", "Fo", None)),
        (_message("end_turn"), ("stop", "", None)),
        (_message("end_turn", _block(4), None, "x"), ("stop", "", None)),
    ],
)
def test_messages_endings(body: object, expected: tuple[FinishReason, str, str | None]) -> None:
    """Contract sheet, section 4: only text blocks are text; an unknown stop reason is kept as it came."""
    assert _ending("messages", body) == expected


def _candidate(finish: object, *parts: object) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "finishReason": finish}]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (_candidate("STOP", {"text": "Fo"}, {"text": "ur"}), ("stop", "Four", None)),
        (_candidate("STOP", {"text": "hm", "thought": True}, {"text": "Four"}), ("stop", "Four", None)),
        (_candidate("MAX_TOKENS", {"text": "hm", "thought": True}), ("length", "", None)),
        ({"candidates": [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}]}, ("length", "", None)),
        ({"candidates": [{"finishReason": "SAFETY"}]}, ("content_filter", "", "SAFETY")),
        (_candidate("RECITATION", {"text": "Fo"}), ("content_filter", "Fo", "RECITATION")),
        (_candidate("PROHIBITED_CONTENT"), ("content_filter", "", "PROHIBITED_CONTENT")),
        (_candidate("BLOCKLIST"), ("content_filter", "", "BLOCKLIST")),
        (_candidate("SPII"), ("content_filter", "", "SPII")),
        (_candidate("LANGUAGE"), ("content_filter", "", "LANGUAGE")),
        (_candidate("OTHER"), ("content_filter", "", "OTHER")),
        (_candidate("MALFORMED_FUNCTION_CALL"), ("other", "", "MALFORMED_FUNCTION_CALL")),
        (_candidate(None, {"text": "Four"}), ("other", "Four", None)),
        (_candidate("STOP", {"functionCall": {"name": "f"}}), ("tool_calls", "", '[{"functionCall":{"name":"f"}}]')),
        (
            _candidate("STOP", {"text": "Four"}, {"functionCall": {"name": "f"}}),
            ("tool_calls", "Four", '[{"functionCall":{"name":"f"}}]'),
        ),
        (_candidate("STOP"), ("stop", "", None)),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, ("content_filter", "", "prompt blocked: SAFETY")),
        (
            {"candidates": [], "promptFeedback": {"blockReason": "BLOCKLIST"}},
            ("content_filter", "", "prompt blocked: BLOCKLIST"),
        ),
        ({"candidates": [], "promptFeedback": {}}, ("other", "", "no candidates")),
        ({"candidates": []}, ("other", "", "no candidates")),
        ({"candidates": None, "usageMetadata": {"promptTokenCount": 3}}, ("other", "", "no candidates")),
    ],
)
def test_gemini_endings(body: object, expected: tuple[FinishReason, str, str | None]) -> None:
    """Contract sheet, section 5: thoughts are never text; a blocked prompt has no candidates and still is a 200."""
    assert _ending("gemini", body) == expected


NOT_OF_THE_FORMAT = [
    ("chat", {}),
    ("chat", {"choices": []}),
    ("chat", {"choices": [], "usage": {}}),
    ("chat", {"choices": [], "usage": None}),
    ("chat", {"choices": [None, {"message": {"content": "x"}}]}),
    ("chat", {"choices": [{"message": "x"}]}),
    ("chat", {"choices": [{"message": {"content": 7}}]}),
    ("chat", {"choices": {"message": {"content": "x"}}}),
    ("responses", {"status": "completed"}),
    ("responses", {"status": "completed", "output": "x"}),
    ("messages", {"type": "message"}),
    ("messages", {"content": "x"}),
    ("gemini", {"modelVersion": "m"}),
    ("gemini", {"candidates": "x", "promptFeedback": {}}),
    ("gemini", {"candidates": ["x"]}),
    ("gemini", {"candidates": [{}]}),
    *((name, value) for name in FORMATS for value in ([], [1], "x", 7, None, True, 0.5)),
]


@pytest.mark.parametrize(("name", "body"), NOT_OF_THE_FORMAT)
def test_json_of_no_known_shape_is_not_understood(name: str, body: object) -> None:
    """What is not understood is an error value that shows its first bytes."""
    told = _read(name, body)
    assert isinstance(told, ErrorDetail)
    assert (told.problem, told.message) == ("not_understood", json.dumps(body))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"error": {"code": "overloaded", "message": "later"}}, "overloaded", "later"),
        ({"error": "later"}, "", "later"),
        ({"code": 7, "message": "later"}, "7", "later"),
        ({"candidates": [], "usageMetadata": {}, "error": {"message": "later"}}, "", "later"),
    ],
)
def test_a_success_status_can_carry_an_error(name: str, body: object, code: str, message: str) -> None:
    """An error envelope under a 200 is an error with its own code and message."""
    told = _read(name, body)
    assert isinstance(told, ErrorDetail)
    assert (told.status, told.problem, told.code, told.message) == (200, "error", code, message)


@pytest.mark.parametrize(
    ("name", "completion", "key", "value"),
    [
        ("chat", Completion("", "refusal"), "refusal", "I can't help with that."),
        ("chat", Completion("", "tool_calls"), "tool_calls", [{"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}]),  # noqa: E501 - one case, one line
        ("chat", Completion("", "content_filter"), "content", None),
        ("chat", Completion("", "length"), "content", ""),
    ],
)  # fmt: skip
def test_a_chat_message_says_what_is_missing(name: str, completion: Completion, key: str, value: object) -> None:
    """The server half fills in what the sheet's signatures need, and uses null where the sheet has null."""
    body = json.loads(FORMATS[name].build_response("m", completion).body)
    assert body["choices"][0]["message"][key] == value


@pytest.mark.parametrize(
    ("name", "completion", "expected"),
    [
        ("messages", Completion("", "content_filter"), ("refusal", "", None)),
        ("gemini", Completion("", "refusal", detail="No."), ("content_filter", "", "SAFETY")),
        ("gemini", Completion("x", "content_filter", detail=None), ("content_filter", "x", "SAFETY")),
        ("gemini", Completion("", "tool_calls"), ("tool_calls", "", '[{"functionCall":{"name":"lookup","args":{}}}]')),
        (
            "messages",
            Completion("", "tool_calls", detail='[{"functionCall":{}}]'),  # another format's call is not its own
            ("tool_calls", "", '[{"type":"tool_use","id":"toolu_1","name":"lookup","input":{}}]'),
        ),
        ("responses", Completion("x", "other", detail=None), ("other", "x", None)),
    ],
)
def test_what_a_format_has_no_word_for_takes_the_nearest(
    name: str, completion: Completion, expected: tuple[str, str, str | None]
) -> None:
    """Claude refuses where others filter, Gemini filters where others refuse."""
    assert _ending(name, json.loads(FORMATS[name].build_response("m", completion).body)) == expected


def test_a_missing_usage_is_unknown_and_not_zero() -> None:
    """A reply without usage has Usage() with every count None, in every format."""
    for wire in FORMATS.values():
        completion = wire.parse_response(wire.build_response("m", Completion("x", "stop")))
        assert isinstance(completion, Completion)
        assert completion.usage == Usage()
