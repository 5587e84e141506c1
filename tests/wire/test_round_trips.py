"""What one half writes, the other reads back: the law that lets the simulator stand for the service."""

import copy
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import (
    Completion,
    ErrorDetail,
    GenerationParams,
    HttpResponse,
    Message,
    ModelRequest,
    Prompt,
    Role,
    TextPart,
    Usage,
)
from cometbatch.wire import FORMATS, WireFormat, format_for_path
from cometbatch.wire.counts import COST_DECIMALS, MAX_COST
from tests.wire.strategies import COSTS, JSON_VALUES, MODELS, any_completions, completions, prompts, request_of

every_format = pytest.mark.parametrize("wire", FORMATS.values(), ids=lambda wire: wire.name)
moderate = settings(max_examples=60, deadline=None)


@every_format
@moderate
@given(data=st.data(), model=MODELS)
def test_the_server_half_reads_the_prompt_that_the_client_half_wrote(
    wire: WireFormat, data: st.DataObject, model: str
) -> None:
    """A request survives the trip exactly: model, messages, settings and every extra key."""
    prompt = data.draw(prompts(wire))
    assert wire.unsupported_params(prompt.params) is None
    assert wire.unsupported_messages([message.role for message in prompt.messages]) is None
    request = request_of(wire, model, prompt)
    assert wire.parse_request(request) == ModelRequest(model, prompt)
    assert format_for_path(request.path) is wire


@every_format
@moderate
@given(data=st.data(), model=MODELS)
def test_the_client_half_reads_the_completion_that_the_server_half_wrote(
    wire: WireFormat, data: st.DataObject, model: str
) -> None:
    """A reply survives the trip exactly: text, ending, usage, id, model and detail."""
    completion = data.draw(completions(wire))
    assert wire.parse_response(wire.build_response(model, completion)) == completion


def reporting(wire: WireFormat, completion: Completion, cost: object) -> Completion:
    """What is read of the same reply with a cost beside its counts, as some models' replies have it."""
    reply = wire.build_response("m", completion)
    body: dict[str, Any] = msgspec.json.decode(reply.body)
    body["usageMetadata" if wire.name == "gemini" else "usage"]["cost"] = cost
    content = msgspec.json.Encoder(decimal_format="number").encode(body)
    read = wire.parse_response(HttpResponse(reply.status, reply.headers, content))
    assert isinstance(read, Completion)
    return read


@every_format
@moderate
@given(data=st.data(), cost=COSTS)
def test_a_reported_cost_is_read_exactly_and_changes_nothing_else(
    wire: WireFormat, data: st.DataObject, cost: Decimal
) -> None:
    """Up to a float's own fifteen digits, whatever notation the number is written in."""
    completion = data.draw(completions(wire).filter(lambda drawn: drawn.usage != Usage()))
    assert reporting(wire, completion, cost) == msgspec.structs.replace(completion, reported_cost_usd=cost)


@every_format
@moderate
@given(data=st.data(), value=JSON_VALUES)
def test_whatever_stands_for_a_cost_breaks_no_answer(wire: WireFormat, data: st.DataObject, value: object) -> None:
    """It is an amount that the output's column can hold, or unknown; the answer is read as without it."""
    completion = data.draw(completions(wire).filter(lambda drawn: drawn.usage != Usage()))
    read = reporting(wire, completion, value)
    assert msgspec.structs.replace(read, reported_cost_usd=None) == completion
    if (cost := read.reported_cost_usd) is not None:
        assert 0 <= cost <= MAX_COST
        assert cost.same_quantum(COST_DECIMALS)


@every_format
@moderate
@given(completion=any_completions(), model=MODELS)
def test_every_completion_can_be_said_and_read(wire: WireFormat, completion: Completion, model: str) -> None:
    """Even a completion that a format can't say exactly becomes a reply which that format understands."""
    read = wire.parse_response(wire.build_response(model, completion))
    assert isinstance(read, Completion)
    if completion.response_model is None:
        assert read.response_model == model


@every_format
@moderate
@given(data=st.data())
def test_building_leaves_the_prompt_as_it_was(wire: WireFormat, data: st.DataObject) -> None:
    """The prompt and its extra mappings are the same before and after, and so are the bytes built from them."""
    prompt = data.draw(prompts(wire))
    before = copy.deepcopy(prompt)
    first = request_of(wire, "m", prompt)
    assert prompt == before
    assert request_of(wire, "m", before) == first


@every_format
@moderate
@given(completion=any_completions())
def test_the_same_completion_gets_the_same_bytes(wire: WireFormat, completion: Completion) -> None:
    """Ids and times of creation derive from what is said, never from a clock."""
    assert wire.build_response("m", completion) == wire.build_response("m", copy.deepcopy(completion))


@every_format
def test_a_reply_that_has_no_id_of_its_own_gets_one_from_its_content(wire: WireFormat) -> None:
    """Different answers get different ids, the same answer the same one."""
    ids = [_completion(wire, text).response_id for text in ("a", "b", "a")]
    assert ids[0] is not None
    assert ids[0] == ids[2] != ids[1]


def _completion(wire: WireFormat, text: str) -> Completion:
    completion = wire.parse_response(wire.build_response("m", Completion(text, "stop")))
    assert isinstance(completion, Completion)
    return completion


EXACT_BODIES = {
    "chat": b'{"model":"m","messages":[{"role":"system","content":"S"},{"role":"user","content":"U"}],'
    b'"max_completion_tokens":9,"temperature":0.5,"top_p":0.9,"deep":{"a":1}}',
    "responses": b'{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"U"}]}],'
    b'"instructions":"S","max_output_tokens":9,"temperature":0.5,"top_p":0.9,"deep":{"a":1}}',
    "messages": b'{"model":"m","max_tokens":9,"system":"S","messages":[{"role":"user","content":"U"}],'
    b'"temperature":0.5,"top_p":0.9,"deep":{"a":1}}',
    "gemini": b'{"systemInstruction":{"parts":[{"text":"S"}]},"contents":[{"role":"user","parts":[{"text":"U"}]}],'
    b'"generationConfig":{"maxOutputTokens":9,"temperature":0.5,"topP":0.9},"deep":{"a":1}}',
}


@every_format
def test_the_bytes_of_a_request_are_these(wire: WireFormat) -> None:
    """Compact, in a fixed order: a request hash made today is the hash of tomorrow."""
    params = GenerationParams(max_output_tokens=9, temperature=0.5, top_p=0.9, extra={"deep": {"a": 1}})
    request = request_of(wire, "m", Prompt((Message.of_text("system", "S"), Message.of_text("user", "U")), params))
    assert request.body == EXACT_BODIES[wire.name]
    assert request.headers["content-type"] == "application/json"
    assert ("anthropic-version" in request.headers) == (wire.name == "messages")


EXACT_PARTS = {
    "chat": b'{"model":"m","messages":['
    b'{"role":"system","content":[{"type":"text","text":"S"},{"type":"text","text":"T"}]},'
    b'{"role":"user","content":[{"type":"text","text":"U"},{"type":"text","text":"V"}]}],"max_completion_tokens":9}',
    "responses": b'{"model":"m","input":['
    b'{"role":"system","content":[{"type":"input_text","text":"S"},{"type":"input_text","text":"T"}]},'
    b'{"role":"user","content":[{"type":"input_text","text":"U"},{"type":"input_text","text":"V"}]}],'
    b'"max_output_tokens":9}',
    "messages": b'{"model":"m","max_tokens":9,"system":[{"type":"text","text":"S"},{"type":"text","text":"T"}],'
    b'"messages":[{"role":"user","content":[{"type":"text","text":"U"},{"type":"text","text":"V"}]}]}',
    "gemini": b'{"systemInstruction":{"parts":[{"text":"S"},{"text":"T"}]},"contents":[{"role":"user",'
    b'"parts":[{"text":"U"},{"text":"V"}]}],"generationConfig":{"maxOutputTokens":9}}',
}


@every_format
def test_several_parts_are_sent_as_a_list(wire: WireFormat) -> None:
    """Each text part of a message is a part of its own in the format's own list."""
    turns: tuple[tuple[Role, str], ...] = (("system", "ST"), ("user", "UV"))
    messages = tuple(Message(role, tuple(map(TextPart, texts))) for role, texts in turns)
    prompt = Prompt(messages, GenerationParams(max_output_tokens=9))
    assert request_of(wire, "m", prompt).body == EXACT_PARTS[wire.name]


@every_format
def test_what_a_format_writes_is_never_overwritten_by_extra(wire: WireFormat) -> None:
    """Should job validation be left out, a clash in extra still changes nothing."""
    prompt = Prompt((Message.of_text("user", "U"),), GenerationParams(max_output_tokens=9))
    body: dict[str, Any] = msgspec.json.decode(request_of(wire, "m", prompt).body)
    clash = dict.fromkeys(body, "theirs")
    clashing = Prompt(prompt.messages, GenerationParams(max_output_tokens=9, extra=clash))
    assert request_of(wire, "m", clashing).body == request_of(wire, "m", prompt).body


@every_format
def test_half_a_surrogate_pair_does_not_stop_a_request(wire: WireFormat) -> None:
    """A text that can't be written as UTF-8 goes out with U+FFFD in that place, and nothing else changed."""
    prompt = Prompt((Message.of_text("user", "a\ud800b é"),), GenerationParams(max_output_tokens=9))
    request = wire.parse_request(request_of(wire, "m", prompt))
    assert isinstance(request, ModelRequest)
    assert request.prompt.messages[0].text == "a\ufffdb é"


def test_messages_sends_a_cap_even_when_none_is_set() -> None:
    """The format requires max_tokens, so a prompt without a cap goes out with the documented default."""
    request = request_of(FORMATS["messages"], "m", Prompt((Message.of_text("user", "U"),)))
    assert msgspec.json.decode(request.body)["max_tokens"] == 4096


def test_the_gemini_model_is_in_the_path_alone_and_wholly_encoded() -> None:
    """Slashes, colons, spaces and letters beyond ASCII are percent-encoded (contract sheet, section 1)."""
    request = request_of(FORMATS["gemini"], "vendor/mo del:é", Prompt((Message.of_text("user", "U"),)))
    assert request.path == "/v1beta/models/vendor%2Fmo%20del%3A%C3%A9:generateContent"
    assert "model" not in msgspec.json.decode(request.body)


@pytest.mark.parametrize(
    "path",
    [
        "/", "", "/v1/chat/completions/", "/v1/models", "/V1/chat/completions", "/v1beta/models/:generateContent",
        "/v1beta/models/a/b:generateContent", "/v1beta/models/m:streamGenerateContent", "/v1beta/models/m",
    ],
)  # fmt: skip
def test_any_other_path_belongs_to_no_format(path: str) -> None:
    """A path mistake is not guessed at: the service answers it with a redirect to a page."""
    assert format_for_path(path) is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/responses", "responses"),
        ("/v1/messages?beta=true", "messages"),
        ("/v1beta/models/a%2Fb:generateContent?key=k", "gemini"),
    ],
)
def test_a_route_is_known_with_or_without_a_query(path: str, name: str) -> None:
    """The four routes of the sheet, section 1, as they stand in a request line."""
    wire = format_for_path(path)
    assert wire is FORMATS[name]


def test_errors_are_values_of_the_same_type_in_every_format() -> None:
    """A status beyond 2xx is the envelope's, whatever the format."""
    for wire in FORMATS.values():
        reply = wire.build_response("m", Completion("hi", "stop"))
        told = wire.parse_response(msgspec.structs.replace(reply, status=500))
        assert isinstance(told, ErrorDetail)
        assert told.problem == "error"
