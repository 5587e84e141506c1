"""Error bodies of every shape become one line of words with a status, a code and a request id."""

import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cometbatch.records import ErrorDetail, HttpResponse
from cometbatch.wire.envelope import (
    MAX_MESSAGE_CHARS,
    REQUEST_ID_HEADER,
    ErrorShape,
    build_error,
    parse_error,
    request_id_of,
)
from tests.wire.strategies import errors

moderate = settings(max_examples=80, deadline=None)
SHAPES: tuple[ErrorShape, ...] = get_args(ErrorShape)
JSON_SHAPES = [shape for shape in SHAPES if shape not in {"html", "empty"}]


def _said(body: object, status: int = 500, **headers: str) -> ErrorDetail:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_error(HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw))


def signed(detail: ErrorDetail) -> ErrorDetail:
    """The error as it is read back: the service repeats the request id at the end of its message."""
    if detail.request_id is None:
        return detail
    return replace(detail, message=f"{detail.message} (request id: {detail.request_id})")


@moderate
@given(detail=errors())
def test_an_openai_error_survives_the_trip(detail: ErrorDetail) -> None:
    """Status, code, type, message and request id; a message already signed is not signed twice."""
    read = parse_error(build_error(detail, "openai"))
    assert read == signed(detail)
    assert parse_error(build_error(read, "openai")) == read


@moderate
@given(detail=errors(code=st.just("")))
def test_an_anthropic_error_survives_the_trip_without_a_code(detail: ErrorDetail) -> None:
    """The shape has no code (contract sheet, section 7.1)."""
    assert parse_error(build_error(detail, "anthropic")) == signed(detail)


@moderate
@given(detail=errors(code=st.integers(0, 10**6).map(str)))
def test_numeric_codes_survive_the_trip_as_text(detail: ErrorDetail) -> None:
    """Google's shape, and the gateway's with a number in it: code is coerced to text."""
    assert parse_error(build_error(detail, "openai_numeric")) == signed(detail)
    assert parse_error(build_error(detail, "google")) == signed(detail)


@moderate
@given(detail=errors(type=st.just("")))
def test_a_flat_error_survives_the_trip_without_a_type(detail: ErrorDetail) -> None:
    """Code and message at the top, nothing else."""
    assert parse_error(build_error(detail, "flat")) == signed(detail)


@moderate
@given(detail=errors(type=st.just(""), code=st.just("")))
def test_a_pages_title_is_its_message(detail: ErrorDetail) -> None:
    """HTML says neither code nor type; its request id is in the header."""
    assert parse_error(build_error(detail, "html")) == detail


@moderate
@given(detail=errors())
def test_silence_says_only_its_status(detail: ErrorDetail) -> None:
    """An empty body leaves the status and the header."""
    assert parse_error(build_error(detail, "empty")) == ErrorDetail(detail.status, request_id=detail.request_id)


@pytest.mark.parametrize("shape", JSON_SHAPES)
def test_the_request_id_is_in_the_header_and_in_the_message(shape: ErrorShape) -> None:
    """Contract sheet, section 10, item 1."""
    reply = build_error(ErrorDetail(500, message="broke", request_id="2026abc"), shape)
    assert reply.headers[REQUEST_ID_HEADER] == "2026abc"
    assert b"broke (request id: 2026abc)" in reply.body
    assert request_id_of(reply) == "2026abc"
    assert request_id_of(replace(reply, headers={})) == "2026abc"


def test_the_server_half_writes_the_sheets_shapes() -> None:
    """Contract sheet, section 7.1, byte for byte but for spaces; without a code there is no param either."""
    detail = ErrorDetail(400, "error", "invalid_request", "comet_api_error", "no")
    bodies: dict[ErrorShape, str] = {
        "openai": '{"error":{"message":"no","type":"comet_api_error","param":"","code":"invalid_request"}}',
        "openai_numeric": '{"error":{"message":"no","type":"comet_api_error","param":"","code":400}}',
        "anthropic": '{"type":"error","error":{"type":"comet_api_error","message":"no"}}',
        "flat": '{"code":"invalid_request","message":"no"}',
        "empty": "",
    }
    assert {shape: build_error(detail, shape).body.decode() for shape in bodies} == bodies
    bare = ErrorDetail(503, message="no")
    assert build_error(bare, "openai").body == b'{"error":{"message":"no","type":"comet_api_error","code":""}}'
    assert build_error(bare, "google").body == b'{"error":{"code":503,"message":"no","status":"UNAVAILABLE"}}'
    assert build_error(bare, "flat").body == b'{"code":null,"message":"no"}'


@pytest.mark.parametrize(
    ("body", "code", "kind", "message"),
    [
        ({"error": {"message": "m", "code": None, "type": None}}, "", "", "m"),
        ({"error": {"message": "m", "code": 429}}, "429", "", "m"),
        ({"error": {"message": "m", "code": 4.5}}, "4.5", "", "m"),
        ({"error": {"message": "m", "code": True, "type": ["x"]}}, "", "", "m"),
        ({"error": {"message": "m", "type": "t", "status": "S"}}, "", "t", "m"),
        ({"error": {"type": "overloaded_error"}}, "", "overloaded_error", ""),
        ({"error": {"code": "c"}}, "c", "", ""),
        ({"error": "m", "code": "c", "type": "t"}, "c", "t", "m"),
        ({"error": "", "message": "m"}, "", "", "m"),
        ({"error": {}, "message": "m", "type": "t"}, "", "t", "m"),
        ({"error": {"message": '{"error": {"message": "inner"}}'}}, "", "", '{"error": {"message": "inner"}}'),
        ({"error": {"message": {"detail": ["inner"]}}}, "", "", '{"detail":["inner"]}'),
        ({"error": {"message": "two\nlines\x1b[31m\u202e\x00\ud800"}}, "", "", "two lines\\x1b[31m\\u202e\\x00\ufffd"),
        ({"detail": "no envelope"}, "", "", '{"detail": "no envelope"}'),
        ({"type": "about:blank", "title": "t"}, "", "", '{"type": "about:blank", "title": "t"}'),
        ([{"error": {"message": "m", "code": 429}}], "429", "", "m"),
        ([{"no": "error"}], "", "", '[{"no": "error"}]'),
        ({"errors": [{"message": "m", "code": 7}]}, "7", "", "m"),
        ({"errors": []}, "", "", '{"errors": []}'),
        ({"error": True, "message": "m"}, "", "", "m"),
        ({"error": True}, "", "", "error"),
        ({"error": {"message": "", "code": None}, "message": "outer"}, "", "", "outer"),
        ({"code": 7, "msg": "m"}, "7", "", "m"),
        ({"status": 429, "detail": "slowly"}, "429", "", "slowly"),
        ({"base_resp": {"status_code": 1008, "status_msg": "m"}}, "insufficient_balance", "", "m (1008)"),
        ({"base_resp": {"status_code": 5, "status_msg": "m"}}, "5", "", "m (5)"),
        (b'event: error\ndata: {"error": {"message": "m", "code": "c"}}\n\n', "c", "", "m"),
        (b"upstream connect error\n", "", "", "upstream connect error "),
        (b"\xff\xfe", "", "", "\ufffd\ufffd"),
        (b"", "", "", ""),
        (b"\xef\xbb\xbfplain", "", "", "plain"),
        (b"<html><head><TITLE class=a>504 Gateway\n Time&#45;out</title></head>", "", "", "504 Gateway Time-out"),
        (b"<title> </title><style>p {}</style><script>var x = '<p>';</script><h1>Not &lt;here&gt;</h1><p>Bye", "", "",
         "Not <here> Bye"),
        (b"<p>open <b", "", "", "open"),
    ],
)  # fmt: skip
def test_every_body_says_something_readable(body: object, code: str, kind: str, message: str) -> None:
    """Section 7.1's parse order: error object, else top level, else the first bytes; one printable line."""
    assert _said(body) == ErrorDetail(500, "error", code, kind, message)


@pytest.mark.parametrize(
    ("status", "headers", "body", "problem", "message"),
    [
        (
            301,
            {"location": "https://x.example/page?key=sk-1"},
            b"<p>",
            "redirect",
            "redirected to https://x.example/page",
        ),
        (302, {}, b"<title>Moved</title>", "redirect", "Moved"),
        (200, {"content_type": "text/html"}, b"nothing here", "html", "nothing here"),
        (200, {}, b" \n<!doctype html><title>Home</title>", "html", "Home"),
        (200, {}, b'{"id": "x"', "not_json", 'no JSON, or cut off: {"id": "x"'),
        (200, {"content_type": "application/json"}, b'{"id": "x"', "not_json", 'no JSON, or cut off: {"id": "x"'),
        (200, {"content_type": "application/problem+json"}, b'{"id', "not_json", 'no JSON, or cut off: {"id'),
        (200, {"content_type": " "}, b'{"id', "not_json", 'no JSON, or cut off: {"id'),
        (200, {"content_type": "text/plain"}, b'{"id": "x"', "not_json", 'no JSON, or cut off: {"id": "x"'),
        (200, {"content_type": "text/plain; charset=utf-8"}, b"Welcome", "html", "no JSON: Welcome"),
        (200, {"content_type": "text/html"}, b'{"id": "x"', "html", '{"id": "x"'),
        (200, {"content_type": "application/json"}, b"Welcome", "unreadable", "no JSON: Welcome"),
        (200, {"content_type": "text/event-stream"}, b"data: well", "unreadable", "no JSON: data: well"),
        (
            200,
            {"content_type": "text/plain", "content_encoding": "lzma"},
            b"\x00\x01",
            "unreadable",
            "no JSON: it is encoded as 'lzma', which was not asked for and can't be read",
        ),
        (204, {}, b"", "html", "empty body: "),
        (200, {"content_type": "application/json"}, b"", "html", "empty body: "),
        (200, {}, b" \n", "not_json", "empty body:   "),
        (200, {}, b'{"id": "x"}', "not_understood", '{"id": "x"}'),
        (200, {"content_type": "text/html"}, b'{"id": "x"}', "not_understood", '{"id": "x"}'),
        (200, {}, b'{"error": null, "message": "m"}', "not_understood", "m"),
        (200, {}, b'{"error": {"message": "m"}}', "error", "m"),
        (200, {}, b'{"error": "m"}', "error", "m"),
        (200, {}, b'{"code": null, "message": "m"}', "error", "m"),
        (200, {}, b'{"success": false, "message": "m"}', "error", "m"),
        (200, {}, b'{"success": false}', "error", '{"success": false}'),
        (200, {}, b'{"detail": "m"}', "error", '{"detail": "m"}'),
        (200, {}, b'{"base_resp": {"status_code": 0}}', "not_understood", '{"base_resp": {"status_code": 0}}'),
        (201, {"location": "/x"}, b"{}", "not_understood", "{}"),
        (403, {"content_type": "text/html"}, b"<title>Denied</title>", "error", "Denied"),
        (0, {}, b"", "error", ""),
        (199, {}, b"", "error", ""),
        (999, {}, b"", "error", ""),
    ],
)
def test_the_problem_is_named(status: int, headers: dict[str, str], body: bytes, problem: str, message: str) -> None:
    """Beyond 2xx it is an error, a redirect for 3xx; under 2xx it matters what was sent instead of an answer."""
    told = _said(body, status, **headers)
    assert (told.problem, told.message) == (problem, message)


def test_words_are_bounded() -> None:
    """A message stays within 2,000 characters, codes, types and ids within 200."""
    long = "x" * 100_000
    told = _said({"error": {"message": long, "code": long, "type": long}}, x_cometapi_request_id=long)
    assert len(told.message) == MAX_MESSAGE_CHARS
    assert [len(told.code), len(told.type), len(told.request_id or "")] == [200, 200, 200]
    assert len(_said(b"<p>" + b"x" * 100_000).message) == MAX_MESSAGE_CHARS


def test_an_api_key_never_reaches_a_message() -> None:
    """Even a service that repeats the key does not make us repeat it; prose with a dash is left alone."""
    key = "sk-abcDEF0123456789_-xyz"
    for body in (
        {"error": {"message": f"bad key {key}.", "code": key, "type": key}},
        f"<p>{key}".encode(),
        key.encode(),
    ):
        told = _said(body, x_cometapi_request_id=key)
        assert key not in repr(told)
        assert "sk-..." in told.message
    assert _said({"error": {"message": "task-specification"}}).message == "task-specification"


@pytest.mark.parametrize(
    ("status", "headers", "message", "expected"),
    [
        (500, {REQUEST_ID_HEADER: "head"}, "m (request id: tail)", "head"),
        (500, {}, "m (request id: tail)", "tail"),
        (500, {REQUEST_ID_HEADER: ""}, "m (request id: tail)", "tail"),
        (500, {}, "m (request id: )", None),
        (500, {}, "m", None),
        (200, {}, "m (request id: tail)", None),
        (200, {REQUEST_ID_HEADER: "head"}, "m", "head"),
    ],
)
def test_the_request_id_comes_from_the_header_first(
    status: int, headers: dict[str, str], message: str, expected: str | None
) -> None:
    """Header, else the end of an error's message; an answer's own words are never searched for one."""
    reply = HttpResponse(status, headers, json.dumps({"error": {"message": message}}).encode())
    assert request_id_of(reply) == expected
