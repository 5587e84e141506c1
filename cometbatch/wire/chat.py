"""Chat Completions, both halves (contract sheet, section 2).

An answer without text comes in several ways: its content is null, a refusal stands in its place, or reasoning used up
the cap. This module hides them. Law: `reasoning_content` is never part of the answer, and no token is counted twice.
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
from cometbatch.wire.chunks import ChatChunks
from cometbatch.wire.counts import CHAT, count, read_usage, reported_cost, total
from cometbatch.wire.reply_reading import Found, NoAnswer, ReplyShape, read_reply
from cometbatch.wire.request_extra import Misfit
from cometbatch.wire.tolerant_json import first, mapping, mappings, text
from cometbatch.wire.uncovered import SEARCH, billed

NAME: Final = "chat"
PATH: Final = "/v1/chat/completions"

_ROLES: Mapping[str, Role] = {"system": "system", "developer": "developer", "user": "user", "assistant": "assistant"}
_PARTS: Final = frozenset({"text", "image_url"})
# What the format writes itself, by its path in the body: the setting that it comes from. `max_tokens` may stand in
# `params.extra`, too, because older models know the cap by no other name (contract sheet, section 2).
_WRITTEN: Mapping[str, str] = {
    "model": "target.model",
    "messages": "prompt",
    "max_completion_tokens": "params.max_output_tokens",
    "temperature": "params.temperature",
    "top_p": "params.top_p",
    "stop": "params.stop",
    "seed": "params.seed",
}
_NO_MESSAGE: Final[dict[str, Any]] = {"content": 0}  # which is no content
NO_CHOICES: Final = "no choices"  # detail of an answer that was billed and has no choices
_SAMPLE_CALL: Mapping[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "lookup", "arguments": "{}"},
}
_REFUSAL_WORDS: Final = "I can't help with that."


def request_builder(model: str, params: GenerationParams) -> Callable[[Sequence[Message]], HttpRequest]:
    """A function that builds requests with this model and these parameters. The same messages give the same bytes."""
    cap_field = "max_tokens" if params.max_tokens_field == "max_tokens" else "max_completion_tokens"
    fixed = encoding.known(
        {
            cap_field: params.max_output_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "stop": params.stop or None,
            "seed": params.seed,
        }
    )

    extra = request_extra.unstreamed(params.extra)

    def build(messages: Sequence[Message]) -> HttpRequest:
        turns = [{"role": each.role, "content": encoding.text_or_parts(each.content, _image)} for each in messages]
        body: dict[str, Any] = {"model": model, "messages": turns, **fixed}
        request_extra.merge(body, extra)
        return encoding.json_request(PATH, body)

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
    origin = encoding.origin_of(model, completion, "chatcmpl-")
    body = {
        "id": origin.response_id,
        "object": "chat.completion",
        "created": origin.created,
        "model": origin.model,
        "choices": [
            {
                "index": 0,
                "message": _message(completion),
                "logprobs": None,
                "finish_reason": _finish_word(completion),
            }
        ],
        **({} if completion.usage == Usage() else {"usage": _usage_body(completion.usage)}),
        "service_tier": "default",
        "system_fingerprint": f"fp_{origin.tag[:10]}",
    }
    return encoding.json_reply(body)


def cap_in_extra(params: GenerationParams) -> int | None:
    """The cap on the answer in tokens that `params.extra` sets by the older name; None where it sets none from 1."""
    return count(params.extra.get("max_tokens")) or None


def unsupported_params(params: GenerationParams) -> str | None:
    """Why this format can't send these settings, as a sentence; None if it can."""
    if params.max_output_tokens is not None and "max_tokens" in params.extra:
        return "params.extra.max_tokens and params.max_output_tokens set the same cap; leave one out"
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


def _image(part: ImagePart) -> dict[str, Any]:
    address = {"url": images.url_of(part), "detail": part.detail or None}
    return {"type": "image_url", "image_url": encoding.known(address)}


def _read_request(request: HttpRequest) -> ModelRequest:
    body = request_reading.body_of(request)
    model = request_reading.take_model(body)
    turns = request_reading.take_turns(body, "messages", "field messages is required")
    messages = tuple(
        request_reading.message_of(turn, _ROLES, _PARTS, f"messages[{index}]") for index, turn in enumerate(turns)
    )
    cap = request_reading.take_cap(body, "max_completion_tokens")
    params = GenerationParams(
        max_output_tokens=request_reading.take_cap(body, "max_tokens") if cap is None else cap,
        temperature=request_reading.take_number(body, "temperature"),
        top_p=request_reading.take_number(body, "top_p"),
        stop=request_reading.take_stops(body, "stop"),
        seed=request_reading.take_seed(body, "seed"),
        extra=body,
    )
    return ModelRequest(model, Prompt(messages, params))


def _message(completion: Completion) -> dict[str, Any]:
    reason, words = completion.finish_reason, completion.text
    message: dict[str, Any] = {"role": "assistant", "content": words, "refusal": None, "annotations": []}
    if reason in {"content_filter", "refusal", "tool_calls"} and not words:
        message["content"] = None
    if reason == "refusal":
        message["refusal"] = completion.detail or _REFUSAL_WORDS
    if reason == "tool_calls":
        message["tool_calls"] = encoding.calls_in(completion.detail, _is_call, _SAMPLE_CALL)
    return message


def _finish_word(completion: Completion) -> str | None:
    if completion.finish_reason == "other":
        return completion.detail
    return "stop" if completion.finish_reason == "refusal" else completion.finish_reason


def _usage_body(usage: Usage) -> dict[str, Any]:
    cached, reasoning = usage.cache_read_input_tokens, usage.reasoning_output_tokens
    output_details = {"audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
    return encoding.known(
        {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": total(usage.input_tokens, usage.output_tokens),
            "prompt_tokens_details": None if cached is None else {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": (
                None if reasoning is None else {"reasoning_tokens": reasoning} | output_details
            ),
            **encoding.claude_cache_writes(usage),
        }
    )


def _read_completion(body: dict[str, Any], sent_bytes: int | None) -> Found:
    """None if the body is no chat completion: no choice, no message, or a content that is neither text nor parts.

    An empty list of choices with token counts is an answer without text, because it was billed.
    """
    choice, usage = first(body.get("choices")), mapping(body.get("usage"))
    word = text(choice.get("finish_reason"))
    finish = payload.FINISH.get(word or "") or payload.finish_of(word)
    if choice.get("error") or (finish == "other" and payload.is_failure_word(word)):
        return NoAnswer({"error": choice.get("error") or {"message": f"generation ended as {word}"}})
    message = choice.get("message")
    if not isinstance(message, dict):
        message = _older_message(choice)
    content = message.get("content")
    words = content if isinstance(content, str) else payload.text_in(content)
    counts = _read_usage(usage, words or payload.billed_for(message.get("tool_calls")), sent_bytes)
    reason: FinishReason
    if words is not None:
        reason, detail = _ending(finish, word, message, words, counts)
    elif body.get("choices") == [] and usage and not body.get("error"):
        words, reason, detail = "", "other", NO_CHOICES
    else:
        return None
    return Completion(
        text=words,
        finish_reason=reason,
        **billed(counts, body, usage, _searched(message)),
        reported_cost_usd=reported_cost(usage),
        response_id=text(body.get("id")),
        response_model=text(body.get("model")),
        detail=detail,
    )


def _older_message(choice: dict[str, Any]) -> dict[str, Any]:
    """The message of the older completions, which have a text in its place."""
    is_older = "message" not in choice and isinstance(choice.get("text"), str)
    return {"content": choice["text"]} if is_older else _NO_MESSAGE


def _is_call(call: dict[str, Any]) -> bool:
    return bool(call)


def _ending(
    reason: FinishReason, word: str | None, message: dict[str, Any], words: str, usage: Usage | None
) -> tuple[FinishReason, str | None]:
    """The finish reason and its detail. A refusal counts only if there is no text."""
    calls = mappings(message.get("tool_calls"))
    if not calls and message.get("function_call"):
        calls = mappings([message["function_call"]])
    if not calls:
        if words and reason == "stop":
            return reason, None
        refusal = text(message.get("refusal")) or payload.refusal_in(message.get("content"))
        if refusal and not words:
            return "refusal", refusal
    reason = payload.decided(reason, has_calls=bool(calls))
    return reason, payload.detail_of(reason, word, calls, is_empty=not words, usage=usage, held=message)


def _reasoning(body: dict[str, Any]) -> str | None:
    message = mapping(first(body.get("choices")).get("message"))
    told = text(message.get("reasoning_content")) or text(message.get("reasoning"))
    details = [
        text(part.get("text")) or text(part.get("summary")) or "" for part in mappings(message.get("reasoning_details"))
    ]
    return payload.lines_of([told] if told else [*details, *payload.thinking_in(message.get("content"))])


def _searched(message: object) -> list[str]:
    """An answer that cites addresses has searched for them."""
    notes = message.get("annotations") if isinstance(message, dict) else None
    return [SEARCH] if notes and any(note.get("type") == "url_citation" for note in mappings(notes)) else []


_read_usage: Final = functools.partial(read_usage, CHAT)
"""`prompt_tokens` includes cached tokens, `completion_tokens` includes reasoning, unless the counts say otherwise."""


_REPLY: Final = ReplyShape(
    read=_read_completion,
    usage=lambda body: _read_usage(mapping(body.get("usage")), "", None) or Usage(),
    reasoning=_reasoning,
    chunks=ChatChunks,
)
parse_response: Final = functools.partial(read_reply, _REPLY)
"""The completion in a reply, or the error that it stands for. Any status, headers and bytes get one of the two."""
