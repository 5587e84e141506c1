"""JSON that is too much to read is a bad reply, and what an honest service sends never is."""

import json

import pytest

from cometbatch.records import HttpResponse
from cometbatch.wire import envelope
from cometbatch.wire.tolerant_json import MAX_PATIENT_BYTES, MAX_VALUES, NotJson, decode_json
from tests.hostile.server import completion, fills


@pytest.mark.parametrize("unit", [b"[],", b'{"a":1},', b"0,", b'"ab",', b"[[[[]]]],"])
def test_more_values_than_any_answer_has_are_not_read(unit: bytes) -> None:
    """They would take thirty times their bytes of memory, and hold up everyone."""
    assert isinstance(decode_json(fills(unit)), NotJson)


@pytest.mark.parametrize(
    "word", ["word, ", "def f(a, b): return [a, b]\n", '{"a": [1, 2]}, ', "词语。", "\N{GRINNING FACE}"]
)
def test_the_longest_answers_are_read(word: str) -> None:
    """128,000 tokens of prose, code or JSON, at some four characters each, escaped or not."""
    said = word * (512_000 // len(word.encode()))
    for body in (completion(said), json.dumps(json.loads(completion(said)), ensure_ascii=False).encode()):
        assert decode_json(body)["choices"][0]["message"]["content"] == said


def test_as_many_values_as_are_allowed_are_read() -> None:
    """The bound itself is inside."""
    assert len(decode_json(b"[" + b"0," * (MAX_VALUES - 1) + b"0]")) == MAX_VALUES
    assert isinstance(decode_json(b"[" + b"0," * MAX_VALUES + b"0]"), NotJson)


def test_a_bad_byte_is_mended_up_to_a_size() -> None:
    """An answer is not lost to a byte unless reading it patiently would keep everyone waiting."""
    frame = len(b'""')
    assert decode_json(b'"' + b"\xff" * (MAX_PATIENT_BYTES - frame) + b'"') == "�" * (MAX_PATIENT_BYTES - frame)
    assert isinstance(decode_json(b'"' + b"\xff" * (MAX_PATIENT_BYTES - frame + 1) + b'"'), NotJson)


def test_a_request_id_is_found_at_the_end_of_a_long_message() -> None:
    """It stands there; what comes before may be as long as it likes."""
    message = "over " * 10_000 + "(request id: 2026abc)"
    body = json.dumps({"error": {"message": message}}).encode()
    assert envelope.request_id_of(HttpResponse(500, {}, body)) == "2026abc"
