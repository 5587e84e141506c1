"""Any bytes whatever get an answer: never an exception, and nothing that can't be written down again."""

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import Completion, ErrorDetail, HttpRequest, HttpResponse, ModelRequest
from cometbatch.wire import FORMATS, WireFormat
from cometbatch.wire.envelope import parse_error, request_id_of
from cometbatch.wire.tolerant_json import NotJson, compact_text, decode_json
from tests.wire.strategies import JSON_VALUES, any_completions, prompts, request_of

every_format = pytest.mark.parametrize("wire", FORMATS.values(), ids=lambda wire: wire.name)
moderate = settings(max_examples=80, deadline=None)
STATUSES = st.integers(-1, 1000) | st.sampled_from([200, 301, 403, 500])
HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "x-cometapi-request-id", "location"]),
    st.sampled_from(["application/json", "text/html", ""]) | st.text(max_size=30),
)
# Keys that the formats look for, so that random JSON goes deep into their readers.
KEYS = st.sampled_from(
    [
        "choices", "message", "content", "finish_reason", "refusal", "tool_calls", "function_call", "usage", "error",
        "output", "status", "type", "incomplete_details", "reason", "text", "stop_reason", "candidates", "parts",
        "finishReason", "promptFeedback", "blockReason", "usageMetadata", "thought", "functionCall", "code", "model",
        "messages", "input", "contents", "role", "system", "systemInstruction", "generationConfig", "temperature",
        "instructions", "max_tokens", "stop", "seed",
    ]
)  # fmt: skip
LIKELY_WORDS = st.sampled_from(
    ["stop", "length", "completed", "incomplete", "failed", "queued", "message", "text", "output_text", "refusal",
     "function_call", "tool_use", "STOP", "user", "model", "assistant"]
)  # fmt: skip
LIKELY_JSON = st.recursive(
    LIKELY_WORDS | JSON_VALUES,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(KEYS, children, max_size=6),
    max_leaves=25,
)


def _check_total(wire: WireFormat, response: HttpResponse) -> None:
    told = wire.parse_response(response)
    assert isinstance(told, Completion | ErrorDetail)
    msgspec.json.encode(told)  # raises on half a surrogate pair
    if isinstance(told, ErrorDetail):
        assert len(told.message) <= 2_000
        assert all(part.isprintable() for part in (told.message, told.code, told.type, told.request_id or ""))
    assert 200 <= response.status < 300 or isinstance(told, ErrorDetail)
    request_id_of(response)


@every_format
@moderate
@given(status=STATUSES, headers=HEADERS, body=st.binary(max_size=80))
def test_any_bytes_get_an_answer(wire: WireFormat, status: int, headers: dict[str, str], body: bytes) -> None:
    """Any status, any headers, any bytes: a completion or an error value, bounded and printable."""
    _check_total(wire, HttpResponse(status, headers, body))


@every_format
@moderate
@given(status=STATUSES, value=LIKELY_JSON)
def test_any_json_gets_an_answer(wire: WireFormat, status: int, value: Any) -> None:
    """Wrong types in every place that a format looks at."""
    _check_total(wire, HttpResponse(status, {}, json.dumps(value).encode()))


@every_format
@moderate
@given(data=st.data(), completion=any_completions())
def test_a_damaged_reply_gets_an_answer(wire: WireFormat, data: st.DataObject, completion: Completion) -> None:
    """A valid body with a stretch of bytes replaced, anywhere; a cut-off one is no JSON, and nothing is a page."""
    body = wire.build_response("m", completion).body
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(start + 8, len(body))))
    _check_total(wire, HttpResponse(200, {}, body[:start] + data.draw(st.binary(max_size=6)) + body[end:]))
    cut = wire.parse_response(HttpResponse(200, {}, body[:start]))
    problem = "not_json" if start else "html"
    assert start == len(body) or (isinstance(cut, ErrorDetail) and cut.problem == problem)


@every_format
@moderate
@given(
    path=st.text(max_size=20) | st.just("/v1beta/models/m:generateContent"), body=st.binary(max_size=80) | LIKELY_JSON
)
def test_any_request_gets_an_answer(wire: WireFormat, path: str, body: Any) -> None:
    """The server half, too: whatever a client sends is read or refused."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = wire.parse_request(HttpRequest(path, {}, sent))
    assert isinstance(told, ModelRequest | ErrorDetail)
    msgspec.json.encode(told)


@every_format
@moderate
@given(data=st.data(), key=KEYS, value=LIKELY_JSON)
def test_a_request_with_one_wrong_value_is_read_or_refused(
    wire: WireFormat, data: st.DataObject, key: str, value: Any
) -> None:
    """A valid request in which any one key holds anything."""
    request = request_of(wire, "m", data.draw(prompts(wire)))
    body = json.dumps(json.loads(request.body) | {key: value}).encode()
    told = wire.parse_request(HttpRequest(request.path, {}, body))
    assert isinstance(told, ModelRequest | ErrorDetail)


DEEP = 200_000
CUT_OFF = {
    "deep array": b"[" * DEEP,
    "deep object": b'{"a":' * DEEP,
    "blank": b" \n",
    "cut off": b'{"choices": [{"message": {"content": "Fo',
    "cut in a letter": '{"id": "é'.encode()[:-1],
    "cut in an escape": b'{"id": "\\',
    "cut where much is read": b'["' + b"\\" * 600_000,
    "a stream that is cut": b'data: {"choices": [{"del',
    "a stream of comments": b": waiting\n\n: waiting\n\n",
}
UNREADABLE = {
    "deep and closed": b"[" * DEEP + b"]" * DEEP,
    "deep in a place that is read": b'{"choices":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "plain words": b"upstream connect error",
    "broken in the middle": b'{"choices": [nothing]}',
    "an end mark alone": b"data: [DONE]\n\n",
    "events that are no JSON": b"data: one\n\ndata: two\n\n",
    "two documents": b"{}{}",
    "an event without a value": b"data: []",
    "lines without end": b"data: 1\n" * 300_000,
}


@every_format
@pytest.mark.parametrize("body", CUT_OFF.values(), ids=CUT_OFF)
def test_what_is_cut_off_is_said_so(wire: WireFormat, body: bytes) -> None:
    """Under a success status such a body is not_json: the work may be done and billed, the answer is lost."""
    told = wire.parse_response(HttpResponse(200, {"content-type": "application/json"}, body))
    assert isinstance(told, ErrorDetail)
    assert told.problem == "not_json"
    assert told.message


@every_format
@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_whole_and_no_json_is_not_called_cut_off(wire: WireFormat, body: bytes) -> None:
    """The same bytes would come again, and be paid for again."""
    told = wire.parse_response(HttpResponse(200, {"content-type": "application/json"}, body))
    assert isinstance(told, ErrorDetail)
    assert told.problem == "unreadable"
    assert told.message
    assert "cut off" not in told.message


@every_format
@pytest.mark.parametrize("body", [b"{}\n{}", b'data: {"choices": []}\n\ndata: [DONE]\n', b"data: {}"])
def test_json_without_an_answer_is_not_understood(wire: WireFormat, body: bytes) -> None:
    """Several values, or a stream, of no known shape."""
    told = wire.parse_response(HttpResponse(200, {"content-type": "application/json"}, body))
    assert isinstance(told, ErrorDetail)
    assert told.problem == "not_understood"


@every_format
def test_an_answer_is_not_lost_to_a_byte(wire: WireFormat) -> None:
    """A byte order mark, half a surrogate pair, a bad byte, NaN, endless digits, a wrong content type: still read."""
    plain = wire.build_response("m", Completion("say QQ here", "stop")).body
    for old, new, expected in [
        (b"{", b"\xef\xbb\xbf{", "say QQ here"),
        (b"QQ", b"\\ud800", "say \ufffd here"),
        (b"QQ", b"\\udc00\\ud800", "say \ufffd\ufffd here"),
        (b"QQ", b"\\ud83d\\ude00", "say \U0001f600 here"),
        (b"QQ", b"\xff", "say \ufffd here"),
        (b"{", b'{"x": NaN, "y": -Infinity, "z": 1e999,', "say QQ here"),
        (b"{", b'{"x": ' + b"9" * 5_000 + b",", "say QQ here"),
    ]:
        told = wire.parse_response(HttpResponse(200, {"content-type": "text/plain"}, plain.replace(old, new, 1)))
        assert isinstance(told, Completion), told
        assert told.text == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"\\ud800": "\\udfff"}', {"\ufffd": "\ufffd"}),
        (b"9" * 30, int("9" * 30)),
        (b'["\\u0000", -0, 1.5, null]', ["\0", 0, 1.5, None]),
        (b"\xef\xbb\xbf[]", []),
        (b"", NotJson("empty body")),
        (b"nul", NotJson("no JSON")),
        (b'{"nul', NotJson("no JSON, or cut off", is_cut=True)),
        (b"[" * DEEP, NotJson("nested too deeply", is_cut=True)),
        (b"[" * DEEP + b"]" * DEEP, NotJson("nested too deeply")),
    ],
)
def test_decoding_gives_a_value_or_a_reason(body: bytes, expected: object) -> None:
    """Both decoders give the same plain values; a reason never repeats the bytes."""
    assert decode_json(body) == expected


def test_what_is_nested_too_deeply_is_not_written_either() -> None:
    """Compact text of a value beyond the encoder's depth is None, not a crash."""
    value: list[Any] = []
    for _ in range(100_000):  # Python 3.13 goes down by 10,000
        value = [value]
    assert compact_text(value) is None


@pytest.mark.parametrize("filler", [b"(request id: ", b"<title", b"<script>", b"<", b"&", b"sk-aaaaaaaaa ", b"\x1b"])
def test_a_hostile_page_is_read_in_time(filler: bytes) -> None:
    """Half a megabyte of any opening is read in linear time, and bounded (this test would hang otherwise)."""
    many = filler * (500_000 // len(filler))
    bodies = (b"<p>" + many, json.dumps({"error": {"message": many.decode()}}).encode())
    for status, body in itertools.product((200, 502), bodies):
        told = parse_error(HttpResponse(status, {"content-type": "text/html"}, body))
        assert len(told.message) <= 2_000
