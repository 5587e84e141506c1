"""Reading replies: any bytes of a success become an answer, a provider's failure, or a reason why they are neither.

The usual reply is one JSON object, which its format reads. All else is met rarely, and costs time only then: streams,
end marks, comments, lists (contract sheet, section 13, "Bodies"). Law: nothing that is whole is called cut off.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.records import Completion, ErrorDetail, HttpResponse, Problem, Usage
from cometbatch.wire.chunks import Chunks
from cometbatch.wire.envelope import FAILURE_KEYS, SUCCESS, error_of, holds_failure, parse_error
from cometbatch.wire.event_stream import DONE, values_in
from cometbatch.wire.tolerant_json import NotJson, compact_text, decode_json

STREAM_CUT = NotJson("a stream without its end", is_cut=True)


class Keep(Struct, frozen=True):
    """What of a reply is kept beside its answer: its JSON, and what the model thought, where the format carries it."""

    raw: bool = False
    reasoning: bool = False


KEEP_NOTHING = Keep()


class NoAnswer(Struct, frozen=True):
    """What a format finds in place of an answer: an error's envelope, and how it failed to be an answer."""

    said: dict[str, Any]
    problem: Problem = "error"


Found: TypeAlias = Completion | NoAnswer | None
"""What a body holds; None if it has no shape of the format."""


class ReplyShape(Struct, frozen=True):
    """How a format reads a body.

    `read`: the completion in it, given how many bytes its request had. `usage`: the token counts in it. `reasoning`:
    what the model thought, as text.
    `chunks`: makes what puts streamed chunks together.
    """

    read: Callable[[dict[str, Any], int | None], Found]
    usage: Callable[[dict[str, Any]], Usage]
    reasoning: Callable[[dict[str, Any]], str | None]
    chunks: Callable[[], Chunks]


def read_reply(
    shape: ReplyShape, response: HttpResponse, sent_bytes: int | None = None, *, keep: Keep = KEEP_NOTHING
) -> Completion | ErrorDetail:
    """The completion in a reply, or the error that it stands for. Any status, headers and bytes get one of the two.

    `sent_bytes`: of the request's body; they choose between readings of the token counts that both fit.
    """
    if response.status not in SUCCESS:
        return parse_error(response)
    value = decode_json(response.body)
    body, found = (value, shape.read(value, sent_bytes)) if type(value) is dict else (value, None)
    if found is None and not holds_failure(body):
        body, found = _read_chunks(response.body, value, shape, sent_bytes)
    if isinstance(found, Completion) and (FAILURE_KEYS.isdisjoint(body) or not holds_failure(body)):
        return _kept(found, body, shape, keep) if keep.raw or keep.reasoning else found
    said, problem = (found.said, found.problem) if isinstance(found, NoAnswer) else (body, None)
    usage = shape.usage(body) if type(body) is dict else Usage()
    error = error_of(response, said, problem)
    return error if usage == Usage() else msgspec.structs.replace(error, usage=usage)


def _read_chunks(text: bytes, value: Any, shape: ReplyShape, sent_bytes: int | None) -> tuple[Any, Found]:
    """What a body holds that the format does not read as it is: a body put together, and what was found in it."""
    chunks = shape.chunks()
    if type(value) is dict:
        chunks.add(value)
        body = value
    else:
        body = _put_together(value, text, chunks)
    if type(body) is not dict:
        return body, None
    found = None if body is value else shape.read(body, sent_bytes)
    if found is None and not holds_failure(body) and (whole := chunks.body()) is not None:
        if chunks.is_ended:
            return whole, shape.read(whole, sent_bytes)
        return (body, None) if body is value else (STREAM_CUT, None)
    if isinstance(found, Completion) and found.finish_reason == "other" and not found.detail and not chunks.is_ended:
        return STREAM_CUT, None  # the first of several chunks, which does not say how the answer ended
    return body, found


def _put_together(value: Any, body: bytes, chunks: Chunks) -> Any:
    """What a body stands for that is no JSON object: an object, else a value of another kind, or a `NotJson`.

    `value`: what the body is as JSON. One object in it stands for itself; several are chunks, up to an error.
    """
    first, count = value, 0
    for each in values_in(body) if isinstance(value, NotJson) else value if isinstance(value, list) else ():
        if each is DONE:
            chunks.is_ended = True
        elif isinstance(each, NotJson) and not chunks.is_ended:
            return STREAM_CUT if each.is_cut and not value.is_cut else each if count else value
        elif isinstance(each, dict):
            if (error := _failure_in(each)) is not None:
                if chunks.is_ended:
                    continue
                return error
            first, count = first if count else each, count + 1
            chunks.add(each)
    if count > 1 and (whole := chunks.body()) is not None:
        return whole if chunks.is_ended else STREAM_CUT
    is_silent = count == 0 and isinstance(value, NotJson) and not chunks.is_ended
    return STREAM_CUT if is_silent and body.lstrip()[:1] == b":" else first


def _failure_in(chunk: dict[str, Any]) -> dict[str, Any] | None:
    """The error that a chunk of a stream holds, as an envelope."""
    if holds_failure(chunk):
        return chunk
    return {"error": chunk} if chunk.get("type") == "error" else None


def _kept(found: Completion, body: dict[str, Any], shape: ReplyShape, keep: Keep) -> Completion:
    return msgspec.structs.replace(
        found,
        raw=compact_text(body) if keep.raw else None,
        reasoning=shape.reasoning(body) if keep.reasoning else None,
    )
