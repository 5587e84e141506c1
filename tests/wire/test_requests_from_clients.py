"""The server half reads what official clients and hand-written curl lines send, and refuses as the service does."""

import json
from typing import Any

import pytest

from cometbatch.records import ErrorDetail, HttpRequest, Message, ModelRequest, TextPart
from cometbatch.wire import FORMATS

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages",
         "gemini": "/v1beta/models/m:generateContent"}  # fmt: skip
VALID: dict[str, dict[str, Any]] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": "U"}]},
    "responses": {"model": "m", "input": "U"},
    "messages": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "U"}]},
    "gemini": {"contents": [{"parts": [{"text": "U"}]}]},
}


def _sent(name: str, body: object) -> ModelRequest | ErrorDetail:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return FORMATS[name].parse_request(HttpRequest(PATHS[name], {}, raw))


def _understood(name: str, **changes: object) -> ModelRequest:
    request = _sent(name, VALID[name] | changes)
    assert isinstance(request, ModelRequest), request
    return request


def _turns(request: ModelRequest) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in request.prompt.messages]


PARTS = [{"type": "text", "text": "U"}, {"type": "text", "text": "V"}]


@pytest.mark.parametrize(
    ("name", "key", "turn"),
    [
        ("chat", "messages", {"role": "user", "content": PARTS}),
        ("responses", "input", {"role": "user", "content": PARTS}),
        ("messages", "messages", {"role": "user", "content": PARTS}),
        ("gemini", "contents", {"parts": [{"text": "U"}, {"text": "V"}]}),
    ],
)
def test_typed_parts_stay_apart(name: str, key: str, turn: object) -> None:
    """A message has the parts that the client sent, in their order."""
    (message,) = _understood(name, **{key: [turn]}).prompt.messages
    assert message == Message("user", (TextPart("U"), TextPart("V")))


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("chat", {"messages": [{"role": "user", "content": PARTS}]}, [("user", "UV")]),
        ("chat", {"messages": [{"role": "assistant", "content": None}, {"role": "user", "content": ""}]},
         [("assistant", ""), ("user", "")]),
        ("chat", {"messages": [{"role": "developer", "content": "D"}, {"role": "user", "name": "n", "content": "U"}]},
         [("developer", "D"), ("user", "U")]),
        ("responses", {"input": "U"}, [("user", "U")]),
        ("responses", {"input": ["U"]}, [("user", "U")]),
        ("responses", {"input": [{"type": "message", "role": "user", "content": "U"}]}, [("user", "U")]),
        ("responses", {"instructions": ""}, [("system", ""), ("user", "U")]),
        ("responses", {"instructions": None}, [("user", "U")]),
        (
            "responses",
            {"input": [{"role": "assistant", "content": [{"type": "output_text", "text": "A"}]},
                       {"role": "user", "content": [{"type": "input_text", "text": "U"}]}]},
            [("assistant", "A"), ("user", "U")],
        ),
        ("messages", {"system": "S"}, [("system", "S"), ("user", "U")]),
        ("messages", {"system": PARTS}, [("system", "U"), ("system", "V"), ("user", "U")]),
        ("messages", {"system": []}, [("user", "U")]),
        ("messages", {"messages": [{"role": "user", "content": PARTS}]}, [("user", "UV")]),
        ("gemini", {"system_instruction": {"parts": {"text": "S"}}}, [("system", "S"), ("user", "U")]),
        ("gemini", {"systemInstruction": {"role": "x", "parts": [{"text": "S"}, {"text": "T"}]}},
         [("system", "S"), ("system", "T"), ("user", "U")]),
        ("gemini", {"systemInstruction": {}}, [("user", "U")]),
        ("gemini", {"contents": {"role": "user", "parts": [{"text": "U"}, {"text": "V"}]}}, [("user", "UV")]),
        ("gemini", {"contents": [{"role": "model", "parts": [{"text": "A"}]}, {"parts": {"text": "U"}}]},
         [("assistant", "A"), ("user", "U")]),
        ("gemini", {"contents": [{"role": "user"}]}, [("user", "")]),
    ],
)  # fmt: skip
def test_contents_are_read_in_every_spelling(
    name: str, changes: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    """Text or typed parts, camel or snake case, one or a list, with a role or without."""
    assert _turns(_understood(name, **changes)) == expected


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("chat", {"max_tokens": 7}, {"max_output_tokens": 7}),
        ("chat", {"max_tokens": 7, "max_completion_tokens": 8}, {"max_output_tokens": 8, "extra": {"max_tokens": 7}}),
        ("chat", {"max_tokens": 7.0, "temperature": 1, "seed": 4},
         {"max_output_tokens": 7, "temperature": 1.0, "seed": 4}),
        ("chat", {"stop": "a"}, {"stop": ("a",)}),
        ("chat", {"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ("chat", {"stop": None, "temperature": None, "top_p": None, "seed": None, "max_tokens": None}, {}),
        ("chat", {"stream": True, "n": 2}, {"extra": {"stream": True, "n": 2}}),
        ("responses", {"top_p": 0.5, "store": False}, {"top_p": 0.5, "extra": {"store": False}}),
        ("messages", {"stop_sequences": ["a"], "top_k": 3},
         {"max_output_tokens": 9, "stop": ("a",), "extra": {"top_k": 3}}),
        (
            "gemini",
            {"generation_config": {"max_output_tokens": 7, "top_p": 0.5, "stop_sequences": ["a"], "seed": 4, "x_y": 1}},
            {"max_output_tokens": 7, "top_p": 0.5, "stop": ("a",), "seed": 4,
             "extra": {"generationConfig": {"x_y": 1}}},
        ),
        ("gemini", {"generationConfig": {}}, {"extra": {"generationConfig": {}}}),
        ("gemini", {"generationConfig": {"seed": 4}}, {"seed": 4}),
        ("gemini", {"generationConfig": None, "tools": []}, {"extra": {"tools": []}}),
    ],
)  # fmt: skip
def test_settings_are_read_under_every_name(name: str, changes: dict[str, object], expected: dict[str, Any]) -> None:
    """Common names come out; unset keys are gone; what is not known stays in extra."""
    params = _understood(name, **changes).prompt.params
    defaults: dict[str, Any] = {
        "max_output_tokens": None,
        "temperature": None,
        "top_p": None,
        "stop": (),
        "seed": None,
        "extra": {},
    }
    assert {field: getattr(params, field) for field in defaults} == defaults | expected


NO_URL = "an image must be an address or a data: URL in base64"
IMAGE = [{"type": "image_url", "image_url": {"url": "data:"}}]
NO_CAPS: list[Any] = [0, -1, "9", True, 1.5]
NO_NUMBERS: list[Any] = ["hot", True, [], 10**400]
NO_SEEDS: list[Any] = ["x", 1.5, True]
NO_STOPS: list[Any] = [7, [7], {"a": 1}]
NO_PART = "has a part that is no text and no image; only these are served here"


@pytest.mark.parametrize(
    ("name", "changes", "status", "words"),
    [
        *((name, {"model": None}, 400, "model name is required") for name in ("chat", "responses", "messages")),
        ("chat", {"model": ""}, 400, "model name is required"),
        ("chat", {"model": 4.5}, 400, "model name is required"),
        ("chat", {"messages": None}, 500, "field messages is required"),
        ("chat", {"messages": []}, 500, "field messages is required"),
        ("messages", {"messages": None}, 500, "field messages is required"),
        ("responses", {"input": None}, 500, "input is required"),
        ("responses", {"input": ""}, 500, "input is required"),
        ("gemini", {"contents": None}, 500, "contents is required"),
        ("gemini", {"contents": []}, 500, "contents is required"),
        ("chat", {"messages": "U"}, 400, "messages must be a list"),
        ("chat", {"messages": {"role": "user", "content": "U"}}, 400, "messages must be a list"),
        ("gemini", {"contents": "U"}, 400, "contents must be a list"),
        ("chat", {"messages": ["U"]}, 400, "messages[0] must be an object with role and content"),
        ("gemini", {"contents": ["U"]}, 400, "contents[0] must be an object with role and parts"),
        ("chat", {"messages": [{"role": "tool", "content": "U"}]}, 400,
         "messages[0].role must be one of system, developer, user, assistant"),
        ("chat", {"messages": [{"content": "U"}]}, 400,
         "messages[0].role must be one of system, developer, user, assistant"),
        ("messages", {"messages": [{"role": "system", "content": "U"}]}, 400,
         "messages[0].role must be one of user, assistant"),
        ("gemini", {"contents": [{"role": "assistant", "parts": []}]}, 400,
         "contents[0].role must be one of user, model"),
        ("chat", {"messages": [{"role": "user", "content": 7}]}, 400,
         "messages[0].content must be text or a list of parts"),
        ("chat", {"messages": [{"role": "user", "content": IMAGE}]}, 400, "messages[0]: " + NO_URL),
        ("chat", {"messages": [{"role": "user", "content": ["U"]}]}, 400, f"messages[0] {NO_PART}"),
        ("responses", {"instructions": IMAGE}, 400, f"instructions {NO_PART}"),
        ("messages", {"system": [{"type": "text"}]}, 400, f"system {NO_PART}"),
        ("gemini", {"contents": [{"parts": [{"inlineData": {}}]}]}, 400, f"contents[0] {NO_PART}"),
        ("gemini", {"systemInstruction": "S"}, 400, "systemInstruction must be an object with parts"),
        ("gemini", {"generationConfig": []}, 400, "generationConfig must be an object"),
        ("messages", {"max_tokens": None}, 400, "max_tokens is required"),
        *(("chat", {"max_tokens": bad}, 400, "max_tokens must be a whole number from 1") for bad in NO_CAPS),
        *(("chat", {"temperature": bad}, 400, "temperature must be a number") for bad in NO_NUMBERS),
        *(("chat", {"seed": bad}, 400, "seed must be a whole number") for bad in NO_SEEDS),
        *(("chat", {"stop": bad}, 400, "stop must be text or a list of texts") for bad in NO_STOPS),
        ("chat", b"{", 400, "the request body is not JSON: no JSON, or cut off"),
        ("gemini", b"", 400, "the request body is not JSON: empty body"),
        ("chat", b"[]", 400, "the request body must be a JSON object"),
    ],
)  # fmt: skip
def test_a_clients_mistake_is_answered_as_the_service_does(name: str, changes: Any, status: int, words: str) -> None:
    """Section 10, item 3: a missing model is a 400, a missing conversation a 500, both invalid_request."""
    told = _sent(name, changes if isinstance(changes, bytes) else VALID[name] | changes)
    assert told == ErrorDetail(status, "error", "invalid_request", "comet_api_error", words)


def test_a_gemini_request_without_a_model_in_its_path_is_refused() -> None:
    """The model is in the path alone; a path without one names none."""
    told = FORMATS["gemini"].parse_request(HttpRequest("/v1beta/models", {}, json.dumps(VALID["gemini"]).encode()))
    assert told == ErrorDetail(400, "error", "invalid_request", "comet_api_error", "model name is required")


@pytest.mark.parametrize("kind", [[], {}, None, 1])
def test_a_part_whose_type_is_no_text_is_refused_and_does_not_raise(kind: object) -> None:
    """A type that can't even be looked up (a list, an object) once raised a TypeError."""
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [{"type": kind, "text": "hi"}]}]}
    request = HttpRequest("/v1/messages", {}, json.dumps(body).encode())
    assert isinstance(FORMATS["messages"].parse_request(request), ErrorDetail)
