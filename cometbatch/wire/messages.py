"""Anthropic Messages, both halves (contract sheet, section 4).

The format counts input without cached tokens, requires a cap on the answer, and keeps system messages apart. This
module hides all three. Law: thinking is never part of the answer.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cometbatch.records import (
    Completion,
    ErrorDetail,
    FinishReason,
    GenerationParams,
    HttpRequest,
    HttpResponse,
    ImagePart,
    Message,
    ModelRequest,
    Prompt,
    Role,
    Usage,
)
from cometbatch.wire import encoding, images, payload, request_extra, request_reading
from cometbatch.wire.appending import append_turns
from cometbatch.wire.chunks import MessagesChunks
from cometbatch.wire.counts import MESSAGES, read_usage, reported_cost
from cometbatch.wire.reply_reading import Found, NoAnswer, ReplyShape, read_reply
from cometbatch.wire.request_extra import Misfit
from cometbatch.wire.tolerant_json import mapping, mappings, text
from cometbatch.wire.uncovered import SEARCH, TOOLS, billed

NAME: Final = "messages"
PATH: Final = "/v1/messages"
DEFAULT_MAX_TOKENS: Final = 4096  # output tokens: the cap of a prompt that has none, because the format requires one
HEADERS: dict[str, str] = {"content-type": "application/json", "anthropic-version": "2023-06-01"}

_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant"}
_PARTS: Final = frozenset({"text", "image"})
# The format has no word for a filtered answer, so that one goes out as a refusal.
_STOP_WORD: Mapping[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "refusal": "refusal",
    "content_filter": "refusal",
}
_WRITTEN: Mapping[str, str] = {
    "model": "target.model",
    "messages": "prompt",
    "system": "prompt",
    "max_tokens": "params.max_output_tokens",
    "temperature": "params.temperature",
    "top_p": "params.top_p",
    "stop_sequences": "params.stop",
}
# Tools that the service ran, by their names in blocks of type server_tool_use: the word for each.
_SERVED: Mapping[str, str] = {"web_search": SEARCH, "code_execution": "code_execution"}
_SAMPLE_CALL: Mapping[str, Any] = {"type": "tool_use", "id": "toolu_1", "name": "lookup", "input": {}}


def request_builder(model: str, params: GenerationParams) -> Callable[[Sequence[Message]], HttpRequest]:
    """A function that builds requests with this model and these parameters. The same messages give the same bytes.

    System messages at the start are `system`: a list with a block for each of their parts, where there are several.
    """
    cap = DEFAULT_MAX_TOKENS if params.max_output_tokens is None else params.max_output_tokens
    fixed = encoding.known(
        {"temperature": params.temperature, "top_p": params.top_p, "stop_sequences": params.stop or None}
    )

    extra = request_extra.unstreamed(params.extra)

    def build(messages: Sequence[Message]) -> HttpRequest:
        apart = request_extra.leading_system([message.role for message in messages])
        body: dict[str, Any] = {"model": model, "max_tokens": cap}
        if apart:
            body["system"] = encoding.text_or_parts(
                [part for each in messages[:apart] for part in each.content], _image
            )
        body["messages"] = [
            {"role": each.role, "content": encoding.text_or_parts(each.content, _image)} for each in messages[apart:]
        ]
        body |= fixed
        request_extra.merge(body, extra)
        return encoding.json_request(PATH, body, HEADERS)

    return build


as_sent = encoding.unstreamed


def with_turns(body: bytes, messages: Sequence[Message]) -> bytes | None:
    """The body with these messages at its end, and else as it was; None where it has no messages."""
    turns = [{"role": each.role, "content": encoding.text_or_parts(each.content, _image)} for each in messages]
    return append_turns(body, "messages", turns)


def parse_request(request: HttpRequest) -> ModelRequest | ErrorDetail:
    """What a client asks, or the error to answer with. Any request gets one of the two."""
    return request_reading.read_or_refuse(_read_request, request)


def build_response(model: str, completion: Completion) -> HttpResponse:
    """The reply that holds this completion, with all documented fields."""
    origin = encoding.origin_of(model, completion, "msg_")
    body = {
        "id": origin.response_id,
        "type": "message",
        "role": "assistant",
        "model": origin.model,
        "content": _blocks(completion),
        "stop_reason": _STOP_WORD.get(completion.finish_reason, completion.detail),
        "stop_sequence": None,
        **({} if completion.usage == Usage() else {"usage": _usage_body(completion.usage)}),
    }
    return encoding.json_reply(body)


def unsupported_params(params: GenerationParams) -> str | None:
    """Why this format can't send these settings, as a sentence; None if it can."""
    if params.seed is not None:
        return "params.seed has no place in the messages format; leave it out or use the chat format"
    return request_extra.unsupported_extra(params.extra, NAME, _WRITTEN)


def unsupported_messages(roles: Sequence[Role]) -> str | None:
    """Why this format can't send messages in these roles, as a sentence; None if it can."""
    return request_extra.unsupported_roles(roles, NAME, system_apart=True)


def fitted(messages: Sequence[Message]) -> tuple[Message, ...] | Misfit:
    """Messages that were not written for this format, in its roles; or what it can't say."""
    return request_extra.fitted(messages, NAME, system_apart=True)


def unsupported_image(part: ImagePart) -> str | None:
    """Why this format can't send an image, as a sentence; None if it can."""
    return images.unsupported(part, NAME, images.USUAL_KINDS, links=True, detail=False)


def _image(part: ImagePart) -> dict[str, Any]:
    if part.is_linked:
        return {"type": "image", "source": {"type": "url", "url": part.source}}
    source = {"type": "base64", "media_type": images.kind_of(part), "data": images.base64_of(part)}
    return {"type": "image", "source": source}


def _read_request(request: HttpRequest) -> ModelRequest:
    body = request_reading.body_of(request)
    model = request_reading.take_model(body)
    turns = request_reading.take_turns(body, "messages", "field messages is required")
    messages = [request_reading.message_of(turn, _ROLES, _PARTS, f"messages[{n}]") for n, turn in enumerate(turns)]
    cap = request_reading.take_cap(body, "max_tokens")
    if cap is None:
        raise request_reading.RequestMistake("max_tokens is required")
    system = _read_system(body.pop("system", None))
    params = GenerationParams(
        max_output_tokens=cap,
        temperature=request_reading.take_number(body, "temperature"),
        top_p=request_reading.take_number(body, "top_p"),
        stop=request_reading.take_stops(body, "stop_sequences"),
        extra=body,
    )
    return ModelRequest(model, Prompt((*system, *messages), params))


def _read_system(system: object) -> list[Message]:
    """One message for a text, one for each block of a list."""
    blocks = system if isinstance(system, list) else [] if system is None else [system]
    contents = [block if isinstance(block, str) else [block] for block in blocks]
    return [Message("system", request_reading.parts_of(content, frozenset({"text"}), "system")) for content in contents]


def _blocks(completion: Completion) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if completion.text:
        blocks.append({"type": "text", "text": completion.text})
    if completion.finish_reason == "tool_calls":
        blocks += encoding.calls_in(completion.detail, _is_call, _SAMPLE_CALL)
    return blocks


def _usage_body(usage: Usage) -> dict[str, Any]:
    """Token counts as the format has them: its input count leaves out what was read from or written to the cache."""
    read, written = usage.cache_read_input_tokens, usage.cache_write_input_tokens
    hour = usage.cache_write_1h_input_tokens
    uncached = None if usage.input_tokens is None else usage.input_tokens - (read or 0) - (written or 0)
    return encoding.known(
        {
            "input_tokens": uncached,
            "output_tokens": usage.output_tokens,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "cache_creation": (
                None
                if written is None or hour is None
                else {"ephemeral_5m_input_tokens": written - hour, "ephemeral_1h_input_tokens": hour}
            ),
        }
    )


def _read_completion(body: dict[str, Any], sent_bytes: int | None) -> Found:
    """None if the body is no message: it has no list of content blocks, and no text where its type says message."""
    content, word = body.get("content"), text(body.get("stop_reason"))
    if not isinstance(content, list) and not (isinstance(content, str) and (word or body.get("type") == "message")):
        return None
    if payload.is_failure_word(word):
        return NoAnswer({"error": {"message": f"generation ended as {word}"}})
    usage = mapping(body.get("usage"))
    blocks = mappings(content)
    words = content if isinstance(content, str) else payload.text_in(blocks) or ""
    calls = [block for block in blocks if _is_call(block)]
    counts = _read_usage(usage, words or payload.billed_for(calls), sent_bytes)
    reason = payload.decided(payload.finish_of(word), has_calls=bool(calls))
    return Completion(
        text=words,
        finish_reason=reason,
        **billed(counts, body, usage, _served(blocks)),
        reported_cost_usd=reported_cost(usage),
        response_id=text(body.get("id")),
        response_model=text(body.get("model")),
        detail=payload.detail_of(reason, word, calls, is_empty=not words, usage=counts, held=content),
    )


def _is_call(block: dict[str, Any]) -> bool:
    return block.get("type") == "tool_use"


def _served(blocks: list[dict[str, Any]]) -> list[str]:
    """The words of the tools that the service ran. What it fetches is billed by tokens alone."""
    names = [block.get("name") for block in blocks if block.get("type") == "server_tool_use"]
    return [_SERVED.get(str(name), TOOLS) for name in names if name != "web_fetch"]


_read_usage: Final = functools.partial(read_usage, MESSAGES)
"""Total input = uncached + written to the cache + read from it (contract sheet, section 4).

Other models behind this format count the cached part inside of the input: a total, or the bytes, tell.
"""


_REPLY: Final = ReplyShape(
    read=_read_completion,
    usage=lambda body: _read_usage(mapping(body.get("usage")), "", None) or Usage(),
    reasoning=lambda body: payload.lines_of(payload.thinking_in(body.get("content"))),
    chunks=MessagesChunks,
)
parse_response: Final = functools.partial(read_reply, _REPLY)
"""The completion in a reply, or the error that it stands for. Any status, headers and bytes get one of the two."""
