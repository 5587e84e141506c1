"""Responses, both halves (contract sheet, section 3).

The answer is spread over parts of items in a list that also holds reasoning and tool calls. How it ended is in the
field `status`, not in the HTTP status. This module hides both. Law: reasoning is never part of the answer.
"""

import functools
import re
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
    TextPart,
    Usage,
)
from cometbatch.wire import encoding, images, payload, request_extra, request_reading
from cometbatch.wire.appending import append_turns
from cometbatch.wire.chunks import ResponsesChunks
from cometbatch.wire.counts import RESPONSES, read_usage, reported_cost, total
from cometbatch.wire.reply_reading import Found, NoAnswer, ReplyShape, read_reply
from cometbatch.wire.request_extra import Misfit
from cometbatch.wire.tolerant_json import mapping, mappings, text
from cometbatch.wire.uncovered import SEARCH, billed

NAME: Final = "responses"
PATH: Final = "/v1/responses"

_ROLES: Mapping[str, Role] = {"system": "system", "developer": "developer", "user": "user", "assistant": "assistant"}
_PARTS: Final = frozenset({"input_text", "output_text", "text", "input_image"})
_INCOMPLETE_WORD: Mapping[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
# Types of output items by which the service bills more than tokens: the word for each.
SERVED: Mapping[str, str] = {
    "web_search_call": SEARCH,
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "image_generation_call": "image_generation",
}
_UNFINISHED: Final = frozenset({"in_progress", "queued"})
_FAILED: Final = frozenset({"failed", "cancelled"})
_CALLS: Final = frozenset({"function_call", "custom_tool_call", "tool_call"})
_HTTP_ERROR: Final = re.compile("[45][0-9]{2}")
_WRITTEN: Mapping[str, str] = {
    "model": "target.model",
    "input": "prompt",
    "instructions": "prompt",
    "max_output_tokens": "params.max_output_tokens",
    "temperature": "params.temperature",
    "top_p": "params.top_p",
}
_SAMPLE_CALL: Mapping[str, Any] = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "lookup",
    "arguments": "{}",
}


def request_builder(model: str, params: GenerationParams) -> Callable[[Sequence[Message]], HttpRequest]:
    """A function that builds requests with this model and these parameters. The same messages give the same bytes.

    A system message at the start is `instructions`, which is text; one of several parts stays an item of the input.
    """
    fixed = encoding.known(
        {
            "max_output_tokens": params.max_output_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
        }
    )

    extra = request_extra.unstreamed(params.extra)

    def build(messages: Sequence[Message]) -> HttpRequest:
        led = bool(messages) and messages[0].role == "system" and len(messages[0].content) == 1
        body: dict[str, Any] = {"model": model, "input": [_item(message) for message in messages[led:]]}
        if led:
            body["instructions"] = messages[0].text
        body |= fixed
        request_extra.merge(body, extra)
        return encoding.json_request(PATH, body)

    return build


as_sent = encoding.unstreamed


def with_turns(body: bytes, messages: Sequence[Message]) -> bytes | None:
    """The body with these messages at its end, and else as it was; None where its input is neither list nor text."""
    return append_turns(body, "input", [_item(message) for message in messages], alone=b'"')


def parse_request(request: HttpRequest) -> ModelRequest | ErrorDetail:
    """What a client asks, or the error to answer with. Any request gets one of the two."""
    return request_reading.read_or_refuse(_read_request, request)


def build_response(model: str, completion: Completion) -> HttpResponse:
    """The reply that holds this completion, with all documented fields."""
    origin = encoding.origin_of(model, completion, "resp_")
    complete = completion.finish_reason in {"stop", "refusal", "tool_calls"}
    reason = _INCOMPLETE_WORD.get(completion.finish_reason, completion.detail)
    body = {
        "id": origin.response_id,
        "object": "response",
        "created_at": origin.created,
        "completed_at": origin.created + 1 if complete else None,
        "status": "completed" if complete else "incomplete",
        "background": False,
        "error": None,
        "incomplete_details": None if complete or reason is None else {"reason": reason},
        "instructions": None,
        "max_output_tokens": None,
        "model": origin.model,
        "output": _output(completion, origin.tag),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "auto",
        "store": True,
        "temperature": 1,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1,
        "truncation": "disabled",
        **({} if completion.usage == Usage() else {"usage": _usage_body(completion.usage)}),
        "user": None,
        "metadata": {},
    }
    return encoding.json_reply(body)


def unsupported_params(params: GenerationParams) -> str | None:
    """Why this format can't send these settings, as a sentence; None if it can."""
    if params.seed is not None:
        return "params.seed has no place in the responses format; leave it out or use the chat format"
    if params.stop:
        return "params.stop has no place in the responses format; leave it out or use the chat format"
    return request_extra.unsupported_extra(params.extra, NAME, _WRITTEN)


def unsupported_messages(roles: Sequence[Role]) -> str | None:
    """Why this format can't send messages in these roles, as a sentence; None if it can."""
    return request_extra.unsupported_roles(roles, NAME, system_apart=False)


def fitted(messages: Sequence[Message]) -> tuple[Message, ...] | Misfit:
    """Messages that were not written for this format, in its roles; or what it can't say."""
    return request_extra.fitted(messages, NAME, system_apart=False)


def unsupported_image(part: ImagePart) -> str | None:
    """Why this format can't send an image, as a sentence; None if it can."""
    return images.unsupported(part, NAME, images.USUAL_KINDS, links=True, detail=True)


def _item(message: Message) -> dict[str, Any]:
    kind = "output_text" if message.role == "assistant" else "input_text"
    parts = [
        {"type": kind, "text": part.text} if isinstance(part, TextPart) else _image(part) for part in message.content
    ]
    return {"role": message.role, "content": parts}


def _image(part: ImagePart) -> dict[str, Any]:
    return {"type": "input_image", "image_url": images.url_of(part), "detail": part.detail or "auto"}


def _read_request(request: HttpRequest) -> ModelRequest:
    body = request_reading.body_of(request)
    model = request_reading.take_model(body)
    turns = request_reading.take_turns(body, "input", "input is required", alone=str)
    messages = [_read_item(turn, f"input[{index}]") for index, turn in enumerate(turns)]
    instructions = body.pop("instructions", None)
    if instructions is not None:
        messages.insert(0, Message("system", request_reading.parts_of(instructions, _PARTS, "instructions")))
    params = GenerationParams(
        max_output_tokens=request_reading.take_cap(body, "max_output_tokens"),
        temperature=request_reading.take_number(body, "temperature"),
        top_p=request_reading.take_number(body, "top_p"),
        extra=body,
    )
    return ModelRequest(model, Prompt(tuple(messages), params))


def _read_item(turn: object, where: str) -> Message:
    """One item of the input. An item that is plain text is a user message."""
    return (
        Message.of_text("user", turn)
        if isinstance(turn, str)
        else request_reading.message_of(turn, _ROLES, _PARTS, where)
    )


def _output(completion: Completion, tag: str) -> list[dict[str, Any]]:
    """Reasoning comes first, as in the documented example. A message is there only if it has parts."""
    items: list[dict[str, Any]] = [{"id": f"rs_{tag}", "type": "reasoning", "summary": []}]
    parts = _parts(completion)
    if parts:
        status = "completed" if completion.finish_reason in {"stop", "refusal"} else "incomplete"
        message = {"id": f"msg_{tag}", "type": "message", "status": status, "role": "assistant", "content": parts}
        items.append(message)
    if completion.finish_reason == "tool_calls":
        items += encoding.calls_in(completion.detail, _is_call, _SAMPLE_CALL)
    return items


def _parts(completion: Completion) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if completion.text:
        parts.append({"type": "output_text", "text": completion.text, "annotations": []})
    if completion.finish_reason == "refusal":
        parts.append({"type": "refusal", "refusal": completion.detail or ""})
    return parts


def _usage_body(usage: Usage) -> dict[str, Any]:
    cached, reasoning = usage.cache_read_input_tokens, usage.reasoning_output_tokens
    return encoding.known(
        {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": encoding.known(
                {"cached_tokens": cached, "cache_write_tokens": usage.cache_write_input_tokens}
            )
            or None,
            "output_tokens": usage.output_tokens,
            "output_tokens_details": None if reasoning is None else {"reasoning_tokens": reasoning},
            "total_tokens": total(usage.input_tokens, usage.output_tokens),
            **({} if usage.cache_write_1h_input_tokens is None else encoding.claude_cache_writes(usage)),
        }
    )


def _failed_generation(status: str, error: dict[str, Any]) -> NoAnswer:
    """Why generation failed. A number that is an HTTP status decides like the status itself."""
    code = str(error.get("code"))
    said = error or {"message": f"generation ended as {status}"}
    return NoAnswer({"error": said}, "error" if _HTTP_ERROR.fullmatch(code) else "failed_generation")


def _read_completion(body: dict[str, Any], sent_bytes: int | None) -> Found:
    """None if the body is no finished response: it has no output, or its status says that work goes on."""
    status, output, alone = text(body.get("status")), body.get("output"), text(body.get("output_text"))
    if status in _FAILED:
        return _failed_generation(status, mapping(body.get("error")))
    if not isinstance(output, list) and (alone is None or output is not None):
        return None
    if status in _UNFINISHED:
        return None
    items, usage = mappings(output), mapping(body.get("usage"))
    contents = [item.get("content") for item in items if item.get("type", "message") == "message"]
    words = "".join([payload.text_in(content) or "" for content in contents]) or alone or ""
    reason, word = _ending(body, status, contents)
    calls = [item for item in items if _is_call(item)]
    counts = _read_usage(usage, words or payload.billed_for(calls), sent_bytes)
    reason = payload.decided(reason, has_calls=bool(calls))
    refusal = "".join([payload.refusal_in(content) or "" for content in contents]) or None
    detail = payload.detail_of(reason, word, calls, is_empty=not words, usage=counts, held=output)
    return Completion(
        text=words,
        finish_reason=reason,
        **billed(counts, body, usage, _served(items) + _cited(contents)),
        reported_cost_usd=reported_cost(usage),
        response_id=text(body.get("id")),
        response_model=text(body.get("model")),
        detail=refusal if reason == "refusal" else detail,
    )


def _is_call(item: dict[str, Any]) -> bool:
    return item.get("type") in list(_CALLS)


def _ending(body: dict[str, Any], status: str | None, contents: Sequence[object]) -> tuple[FinishReason, str | None]:
    """The finish reason, and the reply's own word where that is unknown. A body without a status is a whole answer."""
    if status == "incomplete":
        word = text(mapping(body.get("incomplete_details")).get("reason"))
        return payload.finish_of(word), word
    if status != "completed" and "status" in body:
        return "other", status
    is_refusal = any(part.get("type") == "refusal" for content in contents for part in mappings(content))
    return ("refusal", None) if is_refusal else ("stop", None)


def _reasoning(body: dict[str, Any]) -> str | None:
    items = [item for item in mappings(body.get("output")) if item.get("type") == "reasoning"]
    parts = [part for item in items for key in ("summary", "content") for part in mappings(item.get(key))]
    return payload.lines_of([text(part.get("text")) or "" for part in parts])


def _served(items: list[dict[str, Any]]) -> list[str]:
    kinds = [item.get("type") for item in items]
    return [SERVED[kind] for kind in kinds if isinstance(kind, str) and kind in SERVED]


def _cited(contents: Sequence[object]) -> list[str]:
    """An answer that cites addresses has searched for them; a gateway may leave the search itself out."""
    parts = [part for content in contents for part in mappings(content)]
    notes = [note for part in parts if (found := part.get("annotations")) for note in mappings(found)]
    return [SEARCH] if any(note.get("type") == "url_citation" for note in notes) else []


_read_usage: Final = functools.partial(read_usage, RESPONSES)
"""`input_tokens` includes cached tokens, `output_tokens` includes reasoning, unless the counts say otherwise."""


_REPLY: Final = ReplyShape(
    read=_read_completion,
    usage=lambda body: _read_usage(mapping(body.get("usage")), "", None) or Usage(),
    reasoning=_reasoning,
    chunks=ResponsesChunks,
)
parse_response: Final = functools.partial(read_reply, _REPLY)
"""The completion in a reply, or the error that it stands for. Any status, headers and bytes get one of the two."""
