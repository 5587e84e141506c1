"""The server half of streams: a whole reply -> the chunks that a gateway sends of it, unasked.

Law: what is read of the chunks is what is read of the whole reply (`chunks` puts them together).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cometbatch.wire.tolerant_json import encode_json, mapping, mappings, text

PIECES = 3  # into which a text is cut


def chunks_of(format_name: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a reply's body, in order; the last one ends the answer, or counts its tokens."""
    return list(_CHUNKS[format_name](dict(body)))


def event_stream(chunks: list[dict[str, Any]], *, end_mark: bool) -> bytes:
    """Chunks as server-sent events. `end_mark`: with `[DONE]` at the end, as chat has it."""
    events = [b"data: " + encode_json(chunk) + b"\n\n" for chunk in chunks]
    return b"".join([*events, *([b"data: [DONE]\n\n"] if end_mark else [])])


def _pieces(words: str) -> Iterator[str]:
    size = -(-len(words) // PIECES) or 1
    return (words[begin : begin + size] for begin in range(0, len(words), size))


def _chat(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    usage = body.pop("usage", None)
    choices = mappings(body.pop("choices"))
    top = body | {"object": "chat.completion.chunk"}
    for choice in choices:
        message = dict(choice["message"])
        yield top | {"choices": [{"index": 0, "delta": {"role": message.pop("role")}, "finish_reason": None}]}
        for name in ("content", "refusal", "reasoning_content"):
            for piece in _pieces(text(message.get(name)) or ""):
                yield top | {"choices": [{"index": 0, "delta": {name: piece}, "finish_reason": None}]}
        for index, call in enumerate(mappings(message.get("tool_calls"))):
            function = mapping(call.get("function"))
            begun = call | {"index": index, "function": function | {"arguments": ""}}
            yield top | {"choices": [{"index": 0, "delta": {"tool_calls": [begun]}, "finish_reason": None}]}
            for piece in _pieces(text(function.get("arguments")) or ""):
                more = {"index": index, "function": {"arguments": piece}}
                yield top | {"choices": [{"index": 0, "delta": {"tool_calls": [more]}, "finish_reason": None}]}
        yield top | {"choices": [{"index": 0, "delta": {}, "finish_reason": choice.get("finish_reason")}]}
    if usage is not None:
        yield top | {"choices": [], "usage": usage}


def _responses(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": body | {"status": "in_progress", "output": [], "usage": None}}
    for index, item in enumerate(mappings(body.get("output"))):
        for part in mappings(item.get("content")):
            for piece in _pieces(text(part.get("text")) or ""):
                yield {"type": "response.output_text.delta", "output_index": index, "delta": piece}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{body.get('status')}", "response": body}


def _messages(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    usage, ending = body.get("usage"), {key: body.get(key) for key in ("stop_reason", "stop_sequence")}
    start = body | {"content": [], "stop_reason": None}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(mappings(body.get("content"))):
        if block.get("type") == "text":
            yield {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
            for piece in _pieces(text(block.get("text")) or ""):
                delta = {"type": "text_delta", "text": piece}
                yield {"type": "content_block_delta", "index": index, "delta": delta}
        else:
            begun = block | ({"input": {}} if "input" in block else {})
            yield {"type": "content_block_start", "index": index, "content_block": begun}
            for piece in _pieces(encode_json(block["input"]).decode() if "input" in block else ""):
                delta = {"type": "input_json_delta", "partial_json": piece}
                yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "ping"}
    yield {"type": "message_delta", "delta": ending, **({} if usage is None else {"usage": usage})}
    yield {"type": "message_stop"}


def _gemini(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    candidates, usage = mappings(body.pop("candidates", None)), body.pop("usageMetadata", None)
    for candidate in candidates:
        for part in mappings(mapping(candidate.get("content")).get("parts")):
            for piece in _pieces(part["text"]) if isinstance(part.get("text"), str) else [None]:
                shown = part if piece is None else part | {"text": piece}
                yield body | {"candidates": [{"index": 0, "content": {"role": "model", "parts": [shown]}}]}
    last = [{key: value for key, value in candidate.items() if key != "content"} for candidate in candidates]
    counted = {} if usage is None else {"usageMetadata": usage}
    yield body | ({"candidates": last} if candidates else {}) | counted


_CHUNKS: Mapping[str, Callable[[dict[str, Any]], Iterator[dict[str, Any]]]] = {
    "chat": _chat,
    "responses": _responses,
    "messages": _messages,
    "gemini": _gemini,
}
