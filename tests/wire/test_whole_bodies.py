"""Bodies that a client wrote itself: they go out as they are, but for what is said here."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cometbatch.records import GenerationParams
from cometbatch.wire import FORMATS, FormatName, chat, gemini, messages, responses
from cometbatch.wire.whole_bodies import cap_of, decoded, request_reader, second_answer

NAMES: tuple[FormatName, ...] = ("chat", "responses", "messages", "gemini")
PATHS = {"chat": chat.PATH, "responses": responses.PATH, "messages": messages.PATH, "gemini": gemini.path_of("m-1")}
TURN = {"role": "user", "content": "Hi"}
NOTHING = GenerationParams()


def sent(name: FormatName, body: bytes | dict[str, Any], params: GenerationParams = NOTHING) -> bytes:
    """The body as it goes out."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request_reader(name, "m-1", params)(text).http.body


@pytest.mark.parametrize("name", NAMES)
@given(
    extra=st.dictionaries(
        st.sampled_from(["temperature", "user", "metadata", "x"]),
        st.recursive(st.none() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=3),
    ),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_a_body_goes_out_byte_for_byte(
    name: FormatName, extra: dict[str, Any], indent: int | None, *, ascii_only: bool
) -> None:
    """Law: spaces, escapes, digits and the order of keys are the file's, and nothing is added."""
    body = json.dumps({"messages": [TURN], **extra}, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
    whole = request_reader(name, "m-1", NOTHING)(body)
    assert (whole.http.body, whole.identity, whole.http.path) == (body, body, PATHS[name])
    assert whole.http.headers == FORMATS[name].request_builder("m-1", NOTHING)(()).headers


STREAMS = [
    (b'{"a":1, "stream":true}', b'{"a":1}', b'{"a":1}'),
    (b'{"stream": true, "stream_options": {"include_usage": true}, "a": 1.0}', b'{"a": 1.0}', b'{"a": 1.0}'),
    (b'{"stream":false,"a":1}', b'{"stream":false,"a":1}', b'{"a":1}'),
    (b'{"a":{"stream":true}}', b'{"a":{"stream":true}}', b'{"a":{"stream":true}}'),
]


@pytest.mark.parametrize(("body", "goes_out", "identity"), STREAMS)
def test_a_stream_is_taken_out_and_is_no_part_of_the_hash(body: bytes, goes_out: bytes, identity: bytes) -> None:
    """An answer comes whole; how it is delivered does not tell one request from another."""
    whole = request_reader("chat", "m-1", NOTHING)(body)
    assert (whole.http.body, whole.identity) == (goes_out, identity)


CAPS: list[tuple[FormatName, dict[str, Any], int | None]] = [
    ("chat", {"max_tokens": 5}, 5),
    ("chat", {"max_completion_tokens": 6}, 6),
    ("chat", {"max_tokens": 5, "max_completion_tokens": 6}, 6),
    ("chat", {"max_tokens": None}, None),
    ("chat", {"max_output_tokens": 5}, None),
    ("responses", {"max_output_tokens": 7}, 7),
    ("responses", {"max_tokens": 7}, None),
    ("messages", {"max_tokens": 8}, 8),
    ("messages", {}, None),
    ("gemini", {"generationConfig": {"maxOutputTokens": 9}}, 9),
    ("gemini", {"generation_config": {"max_output_tokens": 9}}, 9),
    ("gemini", {"generationConfig": "none"}, None),
    ("chat", {"max_tokens": "5"}, None),
    ("chat", {"max_tokens": 0}, None),
]


@pytest.mark.parametrize(("name", "body", "cap"), CAPS)
def test_the_cap_is_read_out_of_the_body(name: FormatName, body: dict[str, Any], cap: int | None) -> None:
    """By each name that the format has for it; of two the larger one bounds the answer."""
    assert request_reader(name, "m-1", NOTHING)(json.dumps(body).encode()).cap == cap
    if "generation_config" not in body:
        assert cap_of(name, body) == cap


LAID_OVER: list[tuple[FormatName, bytes, GenerationParams, bytes]] = [
    ("chat", b'{"model":"m-1","max_tokens":9,"x":1.0}', GenerationParams(max_output_tokens=5),
     b'{"model":"m-1","x":1.0,"max_completion_tokens":5}'),
    ("chat", b'{"max_completion_tokens":9}', GenerationParams(max_output_tokens=5, max_tokens_field="max_tokens"),
     b'{"max_tokens":5}'),
    ("chat", b'{"max_tokens": 9}', GenerationParams(max_tokens_field="max_completion_tokens"),
     b'{"max_completion_tokens": 9}'),
    ("chat", b'{"max_tokens":9,"max_completion_tokens":8}', GenerationParams(max_tokens_field="max_tokens"),
     b'{"max_tokens":9}'),
    ("responses", b'{"input":"a"}', GenerationParams(max_output_tokens=5, temperature=0.5),
     b'{"input":"a","max_output_tokens":5,"temperature":0.5}'),
    ("messages", b'{"max_tokens":9,"system":"s"}', GenerationParams(temperature=0.5),
     b'{"max_tokens":9,"system":"s","temperature":0.5}'),
    ("messages", b'{"max_tokens":9}', GenerationParams(max_output_tokens=5), b'{"max_tokens":5}'),
    ("gemini", b'{"generation_config":{"max_output_tokens":9,"top_k":1.0}}', GenerationParams(max_output_tokens=5),
     b'{"generationConfig":{"maxOutputTokens":5,"topK":1.0}}'),
    ("chat", b'{"metadata":{"a":1,"b":2}}', GenerationParams(extra={"metadata": {"a": 3}}),
     b'{"metadata":{"a":3,"b":2}}'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "params", "expected"), LAID_OVER)
def test_params_are_laid_over_a_body(name: FormatName, body: bytes, params: GenerationParams, expected: bytes) -> None:
    """What is set counts, in the format's own names; what is not set stays as the file has it."""
    assert sent(name, body, params) == expected
    reader = request_reader(name, "m-1", params)
    assert reader(body).cap == cap_of(name, decoded(expected))


def test_gemini_s_model_is_in_the_address_alone() -> None:
    """Gateways refuse one in the body; what is called so further in is a user's."""
    body = b'{"model" : "models/m-1", "contents": [], "labels": {"model": "m"}}'
    assert sent("gemini", body, NOTHING) == b'{"contents": [], "labels": {"model": "m"}}'
    assert sent("chat", body, NOTHING) == body


SECOND: list[tuple[dict[str, Any], str | None]] = [
    ({"n": 2}, "n"),
    ({"n": 1, "stream": True}, None),
    ({"generationConfig": {"candidateCount": 2}}, "generationConfig.candidateCount"),
    ({"generation_config": {"candidate_count": 3}}, "generation_config.candidate_count"),
    ({"background": True}, "background"),
    ({"best_of": 2}, "best_of"),
    ({"messages": [{"n": 2}], "metadata": {"n": "2"}}, None),
    ({"stream": "yes"}, "stream"),
]


@pytest.mark.parametrize(("body", "path"), SECOND)
def test_what_asks_for_more_than_one_answer_is_found(body: dict[str, Any], path: str | None) -> None:
    """A second answer would be paid and never be seen."""
    assert second_answer(body) == path


def test_texts_are_counted_and_encoded_bytes_are_not() -> None:
    """The estimate of tokens is a quarter of the characters that the model reads."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4_000}}
    source = {"type": "image", "source": {"type": "base64", "media_type": "x", "data": "A" * 4_000}}
    content = [{"type": "text", "text": "four"}, image, source]
    body = {"model": "a-long-name", "messages": [{"role": "user", "content": content}]}
    assert request_reader("chat", "m-1", NOTHING)(json.dumps(body).encode()).characters == len("four") + len("x")


def test_half_of_a_surrogate_pair_goes_out_as_it_is_written() -> None:
    """Our own decoders refuse it; the file's bytes are none of their business."""
    body = b'{"messages":[{"role":"user","content":"\\ud800"}],"max_tokens":5}'
    whole = request_reader("chat", "m-1", NOTHING)(body)
    assert (whole.http.body, whole.cap) == (body, 5)


NO_BODIES: list[tuple[bytes, str]] = [
    (b"", "Expecting value"),
    (b'{"a":', "Expecting value"),
    (b'{"a":1}{', "Extra data"),
    (b"[]", "no JSON object"),
    (b"null", "no JSON object"),
    (b'"\\ud800"', "no JSON object"),
    (b'{"a":' + b"[" * 99_999 + b"]" * 99_999 + b"}", "nested too deeply"),
    (b'{"a":' + b"[" * 700 + b"]" * 700 + b"}", "nested too deeply"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("body", "words"), NO_BODIES, ids=range(len(NO_BODIES)))
def test_what_is_no_body_is_refused(name: FormatName, body: bytes, words: str) -> None:
    """Whatever it is instead: cut, a list, or nested beyond what is read."""
    with pytest.raises(ValueError, match=words):
        decoded(request_reader(name, "m-1", NOTHING)(body).http.body)
