"""Responses, both halves (contract sheet, section 3).

The answer is spread over parts of items in a list that also holds reasoning and tool calls. How it ended is in the
field `status`, not in the HTTP status. This module hides both. Law: reasoning is never part of the answer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cometbatch.records import (
    Completion,
    ErrorDetail,
    FinishReason,
    GenerationParams,
    HttpRequest,
    HttpResponse,
    Message,
    ModelRequest,
    Prompt,
    Role,
    Usage,
)
from cometbatch.wire import encoding, request_extra, request_reading
from cometbatch.wire.counts import Counters, cache_counts, consistent_usage, count, reported_cost, total
from cometbatch.wire.envelope import is_success, parse_error
from cometbatch.wire.tolerant_json import compact_text, decode_json, mapping, mappings, text
from cometbatch.wire.uncovered import SEARCH, billed

NAME: Final = "responses"
PATH: Final = "/v1/responses"

_ROLES: Mapping[str, Role] = {"system": "system", "developer": "developer", "user": "user", "assistant": "assistant"}
_TEXT_PARTS: Final = frozenset({"input_text", "output_text", "text"})
_INCOMPLETE: Mapping[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_INCOMPLETE_WORD: Mapping[FinishReason, str] = {reason: word for word, reason in _INCOMPLETE.items()}
# Types of output items by which the service bills more than tokens: the word for each.
SERVED: Mapping[str, str] = {
    "web_search_call": SEARCH,
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "image_generation_call": "image_generation",
}
_UNFINISHED: Final = frozenset({"in_progress", "queued"})
_FAILED: Final = frozenset({"failed", "cancelled"})
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

    def build(messages: Sequence[Message]) -> HttpRequest:
        led = bool(messages) and messages[0].role == "system" and len(messages[0].content) == 1
        body: dict[str, Any] = {"model": model, "input": [_item(message) for message in messages[led:]]}
        if led:
            body["instructions"] = messages[0].text
        body |= fixed
        request_extra.merge(body, params.extra)
        return encoding.json_request(PATH, body)

    return build


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


def parse_response(response: HttpResponse, sent_bytes: int | None = None) -> Completion | ErrorDetail:
    """The completion in a reply, or the error that it stands for. Any status, headers and bytes get one of the two.

    `sent_bytes`: of the request's body; they choose between readings of the token counts that both fit.
    """
    body = mapping(decode_json(response.body)) if is_success(response.status) else {}
    if text(body.get("status")) in _FAILED:
        return _failed_generation(response, body)
    return _read_completion(body, sent_bytes) or parse_error(response)


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


def _item(message: Message) -> dict[str, Any]:
    kind = "output_text" if message.role == "assistant" else "input_text"
    return {"role": message.role, "content": [{"type": kind, "text": part.text} for part in message.content]}


def _read_request(request: HttpRequest) -> ModelRequest:
    body = request_reading.body_of(request)
    model = request_reading.take_model(body)
    turns = request_reading.take_turns(body, "input", "input is required", alone=str)
    messages = [_read_item(turn, f"input[{index}]") for index, turn in enumerate(turns)]
    instructions = body.pop("instructions", None)
    if instructions is not None:
        messages.insert(0, Message("system", request_reading.parts_of(instructions, _TEXT_PARTS, "instructions")))
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
        else request_reading.message_of(turn, _ROLES, _TEXT_PARTS, where)
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


def _failed_generation(response: HttpResponse, body: dict[str, Any]) -> ErrorDetail:
    said = parse_error(response)
    return ErrorDetail(
        status=said.status,
        problem="failed_generation",
        code=said.code,
        type=said.type,
        message=said.message if mapping(body.get("error")) else f"generation ended as {body['status']}",
        request_id=said.request_id,
    )


def _read_completion(body: dict[str, Any], sent_bytes: int | None) -> Completion | None:
    """None if the body is no finished response: it has no output list, or its status says that work goes on."""
    if not isinstance(body.get("output"), list) or text(body.get("status")) in _UNFINISHED:
        return None
    items, usage = mappings(body["output"]), mapping(body.get("usage"))
    parts = [part for item in items if item.get("type") == "message" for part in mappings(item.get("content"))]
    words = _joined(parts, "output_text", "text")
    reason, detail = _ending(body, items, parts, words)
    return Completion(
        text=words,
        finish_reason=reason,
        **billed(_read_usage(usage, words, sent_bytes), body, usage, _served(items) + _cited(parts)),
        reported_cost_usd=reported_cost(usage),
        response_id=text(body.get("id")),
        response_model=text(body.get("model")),
        detail=detail,
    )


def _is_call(item: dict[str, Any]) -> bool:
    return item.get("type") == "function_call"


def _joined(parts: list[dict[str, Any]], kind: str, key: str) -> str:
    return "".join([text(part.get(key)) or "" for part in parts if part.get("type") == kind])


def _ending(
    body: dict[str, Any], items: list[dict[str, Any]], parts: list[dict[str, Any]], words: str
) -> tuple[FinishReason, str | None]:
    status = text(body.get("status"))
    if status == "incomplete":
        raw = text(mapping(body.get("incomplete_details")).get("reason"))
        reason = _INCOMPLETE.get(raw or "", "other")
        return reason, (raw or None) if reason == "other" else None
    if status != "completed":
        return "other", status or None
    if "refusal" in [part.get("type") for part in parts]:
        return "refusal", _joined(parts, "refusal", "refusal") or None
    calls = [item for item in items if _is_call(item)]
    return ("tool_calls", compact_text(calls)) if calls and not words else ("stop", None)


def _served(items: list[dict[str, Any]]) -> list[str]:
    kinds = [item.get("type") for item in items]
    return [SERVED[kind] for kind in kinds if isinstance(kind, str) and kind in SERVED]


def _cited(parts: list[dict[str, Any]]) -> list[str]:
    """An answer that cites addresses has searched for them; a gateway may leave the search itself out."""
    notes = [note for part in parts if (found := part.get("annotations")) for note in mappings(found)]
    return [SEARCH] if any(note.get("type") == "url_citation" for note in notes) else []


def _read_usage(usage: dict[str, Any], words: str, sent_bytes: int | None) -> Usage | None:
    """`input_tokens` includes cached tokens, `output_tokens` includes reasoning, unless the counts say otherwise.

    None where they contradict each other.
    """
    cached = cache_counts(usage, "input_tokens_details")
    said = Counters(
        count(usage.get("input_tokens")),
        count(usage.get("output_tokens")),
        count(usage.get("total_tokens")),
        cached.read,
        cached.written,
        cached.written_1h,
        count(mapping(usage.get("output_tokens_details")).get("reasoning_tokens")),
    )
    return consistent_usage(said, sent_bytes=sent_bytes, has_text=bool(words))
