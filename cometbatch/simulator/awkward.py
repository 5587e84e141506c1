"""Replies as gateways of this kind were seen to send them (contract sheet, section 13, "Bodies").

Law: those in `READABLE` say the same as the plain reply, only otherwise.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cometbatch.records import HttpResponse
from cometbatch.simulator.behaviour import number
from cometbatch.wire.streaming import chunks_of, event_stream

_DECODER = msgspec.json.Decoder(dict[str, Any])
_FAILURE = {"code": 502, "message": "the simulated provider went quiet"}


def _events(wire_name: str, body: dict[str, Any], digest: bytes) -> tuple[dict[str, str], bytes]:
    """A stream, under its own content type or under that of JSON; a list of chunks where the format is gemini's."""
    chunks = chunks_of(wire_name, body)
    if wire_name == "gemini":
        return {}, msgspec.json.encode(chunks)
    kind = ("application/json", "text/event-stream")[number(digest, "streamed", 2)]
    return {"content-type": kind}, event_stream(chunks, end_mark=wire_name == "chat")


def _wrapped(_wire_name: str, body: dict[str, Any], digest: bytes) -> tuple[dict[str, str], bytes]:
    """One JSON value with something around it."""
    before, after = (
        (b": SIMULATOR WORKING\n\n: SIMULATOR WORKING\n\n", b"\n"),
        (b"data: ", b"\n\n"),
        (b"", b"\ndata: [DONE]\n\n"),
        (b"\n\n  \n", b""),
    )[number(digest, "wrapped", 4)]
    return {}, before + msgspec.json.encode(body) + after


def _miscoded(_wire_name: str, body: dict[str, Any], digest: bytes) -> tuple[dict[str, str], bytes]:
    """Under a coding that nobody asked for, or that is none."""
    plain = msgspec.json.encode(body)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    coding, sent = (
        ("utf-8", plain),
        ("gzip", plain),
        ("br", plain),
        ("deflate", packer.compress(plain) + packer.flush()),
    )[number(digest, "miscoded", 4)]
    return {"content-encoding": coding}, sent


def _dialect(wire_name: str, body: dict[str, Any], _digest: bytes) -> tuple[dict[str, str], bytes]:
    """Finish words and types of parts that belong to another format."""
    for choice in body.get("choices", ()):
        choice["finish_reason"] = {"stop": "STOP", "length": "MAX_TOKENS"}.get(choice["finish_reason"])
        choice["message"]["content"] = [{"type": "output_text", "text": choice["message"]["content"]}]
    for item in body.get("output", ()):
        for part in item.get("content", ()):
            part["type"] = "text"
    if wire_name == "messages":
        body["stop_reason"] = {"end_turn": "stop", "max_tokens": "length"}.get(body["stop_reason"])
    for candidate in body.get("candidates", ()):
        candidate["finishReason"] = candidate["finishReason"].lower()
    return {}, msgspec.json.encode(body)


def _failed(wire_name: str, body: dict[str, Any], _digest: bytes) -> tuple[dict[str, str], bytes]:
    """A provider's failure inside a success, with the tokens that it took."""
    if wire_name == "chat":
        body["choices"][0] |= {"finish_reason": "error", "error": _FAILURE}
    else:
        body["error"] = _FAILURE
    return {}, msgspec.json.encode(body)


def _unreadable(_wire_name: str, _body: dict[str, Any], _digest: bytes) -> tuple[dict[str, str], bytes]:
    return {}, b"the answer was generated, and can't be written as JSON"


def _cut(wire_name: str, body: dict[str, Any], _digest: bytes) -> tuple[dict[str, str], bytes]:
    """A stream without its end, framed as if it were whole."""
    return {"content-type": "text/event-stream"}, event_stream(chunks_of(wire_name, body)[:1], end_mark=False)


READABLE = frozenset({"streamed", "wrapped", "miscoded", "dialect"})
"""Faults that change how an answer is said, and nothing that it says."""
AWKWARD: Mapping[str, Callable[[str, dict[str, Any], bytes], tuple[dict[str, str], bytes]]] = {
    "streamed": _events,
    "wrapped": _wrapped,
    "miscoded": _miscoded,
    "dialect": _dialect,
    "failed-200": _failed,
    "unreadable": _unreadable,
    "cut-stream": _cut,
}


def awkward(name: str, reply: HttpResponse, wire_name: str, digest: bytes) -> HttpResponse:
    """The reply with the fault of this name; as it is where that is another fault."""
    if name not in AWKWARD:
        return reply
    headers, body = AWKWARD[name](wire_name, _DECODER.decode(reply.body), digest)
    return HttpResponse(reply.status, {**reply.headers, **headers}, body)
