"""Bodies copied by hand from the contract sheet, against a misreading that both halves share."""

import pytest

from cometbatch.records import (
    Completion,
    ErrorDetail,
    GenerationParams,
    HttpRequest,
    HttpResponse,
    Message,
    ModelRequest,
    Prompt,
    Usage,
)
from cometbatch.wire import FORMATS, format_for_path
from cometbatch.wire.envelope import parse_error

ASKED = (Message.of_text("system", "Answer in one word."), Message.of_text("user", "Two plus two?"))

SHEET_REPLIES = {
    "chat": (
        """{
  "id": "chatcmpl-AbC123",
  "object": "chat.completion",
  "created": 1774412483,
  "model": "your-model-id-2026-03-17",
  "choices": [{
    "index": 0,
    "message": {"role": "assistant", "content": "Four", "refusal": null, "annotations": []},
    "logprobs": null,
    "finish_reason": "stop"
  }],
  "usage": {
    "prompt_tokens": 29, "completion_tokens": 2, "total_tokens": 31,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
      "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
  },
  "service_tier": "default",
  "system_fingerprint": "fp_490a4ad033"
}""",
        Completion("Four", "stop", Usage(29, 2, 0, None, 0), "chatcmpl-AbC123", "your-model-id-2026-03-17"),
    ),
    "responses": (
        """{
  "id": "resp_0a153ae8", "object": "response", "created_at": 1772611588, "completed_at": 1772611589,
  "status": "completed", "background": false, "error": null, "incomplete_details": null,
  "instructions": null, "max_output_tokens": null, "model": "your-model-id",
  "output": [
    {"id": "rs_1", "type": "reasoning", "summary": []},
    {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
     "content": [{"type": "output_text", "text": "Four.", "annotations": []}]}
  ],
  "parallel_tool_calls": true, "previous_response_id": null,
  "reasoning": {"effort": null, "summary": null}, "service_tier": "auto", "store": true,
  "temperature": 1, "text": {"format": {"type": "text"}, "verbosity": "medium"},
  "tool_choice": "auto", "tools": [], "top_p": 1, "truncation": "disabled",
  "usage": {
    "input_tokens": 19, "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 28
  },
  "user": null, "metadata": {}
}""",
        Completion("Four.", "stop", Usage(19, 9, 0, None, 0), "resp_0a153ae8", "your-model-id"),
    ),
    "messages": (
        """{
  "id": "msg_01AbC", "type": "message", "role": "assistant", "model": "claude-model-id",
  "content": [
    {"type": "thinking", "thinking": "…", "signature": "…"},
    {"type": "text", "text": "Four"}
  ],
  "stop_reason": "end_turn", "stop_sequence": null,
  "usage": {
    "input_tokens": 15, "output_tokens": 9,
    "cache_creation_input_tokens": 0, "cache_read_input_tokens": 18003,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
  }
}""",
        Completion("Four", "stop", Usage(18018, 9, 18003, 0, None, 0), "msg_01AbC", "claude-model-id"),
    ),
    "gemini": (
        """{
  "candidates": [{
    "index": 0,
    "content": {"role": "model", "parts": [
      {"text": "internal notes", "thought": true},
      {"text": "Four"}
    ]},
    "finishReason": "STOP",
    "safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}]
  }],
  "promptFeedback": {"safetyRatings": []},
  "usageMetadata": {
    "promptTokenCount": 12, "cachedContentTokenCount": 0,
    "candidatesTokenCount": 2, "thoughtsTokenCount": 40, "totalTokenCount": 54
  },
  "modelVersion": "gemini-model-id", "responseId": "AbC123"
}""",
        Completion("Four", "stop", Usage(12, 42, 0, None, 40), "AbC123", "gemini-model-id"),
    ),
}


@pytest.mark.parametrize("name", SHEET_REPLIES)
def test_the_sheets_own_reply_is_read_as_it_says(name: str) -> None:
    """Sections 2 to 5: text, ending, inclusive totals, id and model of each documented example."""
    body, expected = SHEET_REPLIES[name]
    assert FORMATS[name].parse_response(HttpResponse(200, {}, body.encode())) == expected


@pytest.mark.parametrize("name", SHEET_REPLIES)
def test_a_reply_of_one_format_is_not_understood_in_another(name: str) -> None:
    """JSON of another shape is an error value, never a guess."""
    reply = HttpResponse(200, {}, SHEET_REPLIES[name][0].encode())
    for other in FORMATS.keys() - {name}:
        told = FORMATS[other].parse_response(reply)
        assert isinstance(told, ErrorDetail)
        assert told.problem == "not_understood"


SHEET_REQUESTS = [
    (
        "/v1/chat/completions",
        """{
  "model": "your-model-id",
  "messages": [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "Two plus two?"}
  ],
  "max_completion_tokens": 256,
  "temperature": 0,
  "response_format": {"type": "json_object"},
  "stream": false
}""",
        "your-model-id",
        GenerationParams(256, 0, extra={"response_format": {"type": "json_object"}, "stream": False}),
    ),
    (
        "/v1/responses",
        """{
  "model": "your-model-id",
  "input": "Two plus two?",
  "instructions": "Answer in one word.",
  "max_output_tokens": 256,
  "reasoning": {"effort": "low"},
  "text": {"format": {"type": "text"}},
  "store": false,
  "metadata": {"custom_id": "row-17"}
}""",
        "your-model-id",
        GenerationParams(
            256,
            extra={
                "reasoning": {"effort": "low"},
                "text": {"format": {"type": "text"}},
                "store": False,
                "metadata": {"custom_id": "row-17"},
            },
        ),
    ),
    (
        "/v1/messages",
        """{
  "model": "claude-model-id",
  "max_tokens": 1024,
  "system": "Answer in one word.",
  "messages": [{"role": "user", "content": "Two plus two?"}],
  "temperature": 0
}""",
        "claude-model-id",
        GenerationParams(1024, 0),
    ),
    (
        "/v1beta/models/gemini-model-id:generateContent",
        """{
  "systemInstruction": {"parts": [{"text": "Answer in one word."}]},
  "contents": [{"role": "user", "parts": [{"text": "Two plus two?"}]}],
  "generationConfig": {"maxOutputTokens": 256, "temperature": 0, "responseMimeType": "text/plain",
                       "thinkingConfig": {"thinkingLevel": "low"}},
  "safetySettings": []
}""",
        "gemini-model-id",
        GenerationParams(
            256,
            0,
            extra={
                "generationConfig": {"responseMimeType": "text/plain", "thinkingConfig": {"thinkingLevel": "low"}},
                "safetySettings": [],
            },
        ),
    ),
]


@pytest.mark.parametrize(("path", "body", "model", "params"), SHEET_REQUESTS)
def test_the_sheets_own_request_is_read_as_it_says(path: str, body: str, model: str, params: GenerationParams) -> None:
    """Sections 2 to 5: each documented request asks the same two messages, with its own settings."""
    wire = format_for_path(path)
    assert wire is not None
    read = wire.parse_request(HttpRequest(path, {}, body.encode()))
    assert read == ModelRequest(model, Prompt(ASKED, params))


SHEET_ERRORS = [
    (
        400,
        '{"error": {"message": "model name is required (request id: 2026…)", "type": "comet_api_error", "param": "", "code": "invalid_request"}}',  # noqa: E501 - as the sheet has it
        ErrorDetail(
            400, "error", "invalid_request", "comet_api_error", "model name is required (request id: 2026…)", "2026…"
        ),
    ),
    (
        401,
        '{"error": {"message": "Invalid token (request id: 2026…)", "type": "comet_api_error", "code": ""}}',
        ErrorDetail(401, "error", "", "comet_api_error", "Invalid token (request id: 2026…)", "2026…"),
    ),
    (
        500,
        '{"type": "error", "error": {"type": "comet_api_error", "message": "… (request id: 2026…)"}}',
        ErrorDetail(500, "error", "", "comet_api_error", "… (request id: 2026…)", "2026…"),
    ),
    (
        400,
        '{"error": {"code": 400, "message": "…", "status": "INVALID_ARGUMENT"}}',
        ErrorDetail(400, "error", "400", "INVALID_ARGUMENT", "…"),
    ),
    (
        403,
        '{"code": null, "message": "user quota is not enough"}',
        ErrorDetail(403, "error", "", "", "user quota is not enough"),
    ),
]


@pytest.mark.parametrize(("status", "body", "expected"), SHEET_ERRORS)
def test_every_envelope_of_the_sheet_is_read_on_any_path(status: int, body: str, expected: ErrorDetail) -> None:
    """Section 7.1: the five shapes, in every format alike."""
    reply = HttpResponse(status, {"content-type": "application/json"}, body.encode())
    assert parse_error(reply) == expected
    assert {wire.parse_response(reply) for wire in FORMATS.values()} == {expected}
