"""Gemini generateContent, both halves (contract sheet, section 5).

The model is in the path, a blocked prompt is a 200 without candidates, thoughts are counted apart from the answer, and
clients spell keys in two ways. This module hides all four. Law: thoughts are never part of the answer.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

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
    Part,
    Prompt,
    Role,
    TextPart,
    Usage,
)
from cometbatch.wire import encoding, images, payload, request_extra, request_reading
from cometbatch.wire.appending import append_turns
from cometbatch.wire.chunks import GeminiChunks
from cometbatch.wire.counts import Counters, consistent_usage, count, reported_cost, total
from cometbatch.wire.reply_reading import Found, NoAnswer, ReplyShape, read_reply
from cometbatch.wire.request_extra import Misfit
from cometbatch.wire.tolerant_json import first, mapping, mappings, text
from cometbatch.wire.uncovered import SEARCH, billed

NAME: Final = "gemini"
NO_CANDIDATES: Final = "no candidates"  # detail of an answer that has neither candidates nor a reason for that
PROMPT_BLOCKED: Final = "prompt blocked: "  # how the detail of a blocked prompt begins; the service's reason follows

_PATH: Final = re.compile(r"/v1beta/models/([^/?]+):generateContent(?:\?.*)?")
_ROLES: Mapping[str, Role] = {"user": "user", "model": "assistant"}
_ROLE_WORD: Mapping[Role, str] = {"assistant": "model"}
_BLOCKED_WORDS: Final = frozenset({"LANGUAGE", "OTHER"})  # that mean a filter here, and nothing in other formats
_DEFAULT_BLOCK: Final = "SAFETY"
_KINDS: Final = ("png", "jpeg", "webp", "heic", "heif")  # of images
_CONFIG: Final = "generationConfig"
_COUNTERS: Final = (
    "promptTokenCount",
    "toolUsePromptTokenCount",
    "cachedContentTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
)
_CAMEL: Mapping[str, str] = {
    "max_output_tokens": "maxOutputTokens",
    "top_p": "topP",
    "stop_sequences": "stopSequences",
}
_WRITTEN: Mapping[str, str] = {
    "model": "target.model",
    "contents": "prompt",
    "systemInstruction": "prompt",
    "system_instruction": "prompt",
    "generation_config": "params.extra.generationConfig",
    "generationConfig.maxOutputTokens": "params.max_output_tokens",
    "generationConfig.max_output_tokens": "params.max_output_tokens",
    "generationConfig.temperature": "params.temperature",
    "generationConfig.topP": "params.top_p",
    "generationConfig.top_p": "params.top_p",
    "generationConfig.stopSequences": "params.stop",
    "generationConfig.stop_sequences": "params.stop",
    "generationConfig.seed": "params.seed",
}
_SAMPLE_CALL: Mapping[str, Any] = {"functionCall": {"name": "lookup", "args": {}}}


def path_of(model: str) -> str:
    """The route of a model, its name fully percent-encoded, slashes included (contract sheet, section 1)."""
    return f"/v1beta/models/{quote(model, safe='', errors='replace')}:generateContent"


def model_in(path: str) -> str | None:
    """The model that a path asks for, or None if it is another route. The path is as sent: percent-encoded."""
    found = _PATH.fullmatch(path)
    return unquote(found[1]) if found else None


def request_builder(model: str, params: GenerationParams) -> Callable[[Sequence[Message]], HttpRequest]:
    """A function that builds requests with this model and these parameters. The same messages give the same bytes.

    System messages at the start are `systemInstruction`.
    """
    path, config = path_of(model), _config(params)

    def build(messages: Sequence[Message]) -> HttpRequest:
        apart = request_extra.leading_system([message.role for message in messages])
        body: dict[str, Any] = {}
        if apart:
            body["systemInstruction"] = {"parts": [part for each in messages[:apart] for part in _parts(each)]}
        body["contents"] = [_content(message) for message in messages[apart:]]
        if config:
            body[_CONFIG] = dict(config)  # a copy, because the merge below changes it
        request_extra.merge(body, params.extra)
        return encoding.json_request(path, body)

    return build


def as_sent(request: HttpRequest) -> HttpRequest:
    """The request as it is: whether an answer is streamed stands in the path."""
    return request


def with_turns(body: bytes, messages: Sequence[Message]) -> bytes | None:
    """The body with these messages at its end, else as it was; None where its contents are neither list nor turn."""
    return append_turns(body, "contents", [_content(message) for message in messages], alone=b"{")


def parse_request(request: HttpRequest) -> ModelRequest | ErrorDetail:
    """What a client asks, or the error to answer with. Any request gets one of the two."""
    return request_reading.read_or_refuse(_read_request, request)


def build_response(model: str, completion: Completion) -> HttpResponse:
    """The reply that holds this completion, with all documented fields."""
    origin = encoding.origin_of(model, completion, "")
    body: dict[str, Any] = {} if _is_blocked(completion) else {"candidates": _candidates(completion)}
    body["promptFeedback"] = _feedback(completion)
    if completion.usage != Usage():
        body["usageMetadata"] = _usage_body(completion.usage)
    return encoding.json_reply(body | {"modelVersion": origin.model, "responseId": origin.response_id})


def unsupported_params(params: GenerationParams) -> str | None:
    """Why this format can't send these settings, as a sentence; None if it can."""
    if not isinstance(params.extra.get(_CONFIG, {}), dict):
        return "params.extra.generationConfig must be a mapping"
    return request_extra.unsupported_extra(params.extra, NAME, _WRITTEN)


def unsupported_messages(roles: Sequence[Role]) -> str | None:
    """Why this format can't send messages in these roles, as a sentence; None if it can."""
    return request_extra.unsupported_roles(roles, NAME, system_apart=True)


def _content(message: Message) -> dict[str, Any]:
    return {"role": _ROLE_WORD.get(message.role, message.role), "parts": _parts(message)}


def _parts(message: Message) -> list[dict[str, Any]]:
    return [{"text": part.text} if isinstance(part, TextPart) else _image(part) for part in message.content]


def fitted(messages: Sequence[Message]) -> tuple[Message, ...] | Misfit:
    """Messages that were not written for this format, in its roles; or what it can't say."""
    return request_extra.fitted(messages, NAME, system_apart=True)


def unsupported_image(part: ImagePart) -> str | None:
    """Why this format can't send an image, as a sentence; None if it can."""
    return images.unsupported(part, NAME, _KINDS, links=False, detail=False)


def _image(part: ImagePart) -> dict[str, Any]:
    return {"inlineData": {"mimeType": images.kind_of(part), "data": images.base64_of(part)}}


def _config(params: GenerationParams) -> dict[str, Any]:
    return encoding.known(
        {
            "maxOutputTokens": params.max_output_tokens,
            "temperature": params.temperature,
            "topP": params.top_p,
            "stopSequences": params.stop or None,
            "seed": params.seed,
        }
    )


def _read_request(request: HttpRequest) -> ModelRequest:
    model = model_in(request.path)
    body = request_reading.body_of(request)
    if not model:
        raise request_reading.RequestMistake("model name is required")
    turns = request_reading.take_turns(body, "contents", "contents is required", alone=dict)
    contents = [_read_content(turn, f"contents[{index}]") for index, turn in enumerate(turns)]
    system = _read_system(_take_either(body, "systemInstruction", "system_instruction"))
    return ModelRequest(model, Prompt((*system, *contents), _read_params(body)))


def _take_either(body: dict[str, Any], camel: str, snake: str) -> object:
    """Google reads both spellings of a key. If a client sends both, the camel case counts."""
    values = [value for value in (body.pop(camel, None), body.pop(snake, None)) if value is not None]
    return values[0] if values else None


def _read_params(body: dict[str, Any]) -> GenerationParams:
    """Settings from `generationConfig`. Keys in it that have no common name stay in `extra`, under that name."""
    sent = _take_either(body, _CONFIG, "generation_config")
    if not isinstance(sent, dict | None):
        raise request_reading.RequestMistake(f"{_CONFIG} must be an object")
    config = {_CAMEL.get(key, key): value for key, value in (sent or {}).items()}
    params = GenerationParams(
        max_output_tokens=request_reading.take_cap(config, "maxOutputTokens"),
        temperature=request_reading.take_number(config, "temperature"),
        top_p=request_reading.take_number(config, "topP"),
        stop=request_reading.take_stops(config, "stopSequences"),
        seed=request_reading.take_seed(config, "seed"),
        extra=body,
    )
    if config or sent == {}:
        body[_CONFIG] = config
    return params


def _read_content(turn: object, where: str) -> Message:
    """One content. A content without a role is the user's (contract sheet, section 5)."""
    if not isinstance(turn, dict):
        raise request_reading.RequestMistake(f"{where} must be an object with role and parts")
    role = request_reading.role_of(turn.get("role") or "user", _ROLES, where)
    return Message(role, tuple(_read_parts(turn.get("parts"), where)))


def _read_system(instruction: object) -> list[Message]:
    """One message for each part."""
    if instruction is None:
        return []
    if not isinstance(instruction, dict):
        raise request_reading.RequestMistake("systemInstruction must be an object with parts")
    return [Message("system", (part,)) for part in _read_parts(instruction.get("parts"), "systemInstruction")]


def _read_parts(parts: object, where: str) -> list[Part]:
    """Parts as clients send them: a list, or a single part without a list."""
    listed = parts if isinstance(parts, list) else [] if parts is None else [parts]
    return [_read_part(mapping(part), where) for part in listed]


def _read_part(part: dict[str, Any], where: str) -> Part:
    words = text(part.get("text"))
    return request_reading.image_in(part, where) if words is None else TextPart(words)


def _is_blocked(completion: Completion) -> bool:
    return (completion.detail or "").startswith(PROMPT_BLOCKED) and completion.finish_reason == "content_filter"


def _candidates(completion: Completion) -> list[dict[str, Any]]:
    if completion.finish_reason == "other" and completion.detail == NO_CANDIDATES:
        return []
    parts: list[dict[str, Any]] = [{"text": completion.text}] if completion.text else []
    if completion.finish_reason == "tool_calls":
        parts += encoding.calls_in(completion.detail, _is_call, _SAMPLE_CALL)
    content = {"role": "model", "parts": parts} if parts else {"role": "model"}
    finish = encoding.known({"finishReason": _finish_word(completion)})
    rating = {"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}
    return [{"index": 0, "content": content, **finish, "safetyRatings": [rating]}]


def _finish_word(completion: Completion) -> str | None:
    """A tool call ends as STOP. The format has no word for a refusal, so that one goes out as a block."""
    match completion.finish_reason:
        case "stop" | "tool_calls":
            return "STOP"
        case "length":
            return "MAX_TOKENS"
        case "other":
            return completion.detail
        case _:
            word = completion.detail or ""
            return word if _reason_of(word) == "content_filter" else _DEFAULT_BLOCK


def _feedback(completion: Completion) -> dict[str, Any]:
    ratings: dict[str, Any] = {"safetyRatings": []}
    if not _is_blocked(completion):
        return ratings
    return {"blockReason": (completion.detail or "").removeprefix(PROMPT_BLOCKED)} | ratings


def _usage_body(usage: Usage) -> dict[str, Any]:
    """Token counts as the format has them: the candidates' count leaves out thoughts."""
    thoughts, output = usage.reasoning_output_tokens, usage.output_tokens
    return encoding.known(
        {
            "promptTokenCount": usage.input_tokens,
            "cachedContentTokenCount": usage.cache_read_input_tokens,
            "candidatesTokenCount": None if output is None else output - (thoughts or 0),
            "thoughtsTokenCount": thoughts,
            "totalTokenCount": total(usage.input_tokens, output),
        }
    )


def _read_completion(body: dict[str, Any], sent_bytes: int | None) -> Found:
    """None if the body has no candidates and nothing that explains why."""
    candidate, usage = first(body.get("candidates")), mapping(body.get("usageMetadata"))
    if not candidate and not _explains_absence(body):
        return None
    word = text(candidate.get("finishReason"))
    if payload.is_failure_word(word):
        return NoAnswer({"error": {"message": text(candidate.get("finishMessage")) or f"generation ended as {word}"}})
    parts = _parts_in(candidate.get("content"))
    words = "".join([payload.text_of(part) for part in parts if not _is_thought(part)])
    calls = [part for part in mappings(parts) if _is_call(part)]
    counts = _read_usage(usage, words or payload.billed_for(calls), sent_bytes)
    if candidate:
        reason, detail = _ending(candidate, word, calls, is_empty=not words, usage=counts)
    else:
        reason, detail = _blocked(mapping(body.get("promptFeedback")))
    return Completion(
        text=words,
        finish_reason=reason,
        **billed(counts, body, usage, _searched(candidate)),
        reported_cost_usd=reported_cost(usage),
        response_id=text(body.get("responseId")),
        response_model=text(body.get("modelVersion")),
        detail=detail,
    )


def _explains_absence(body: dict[str, Any]) -> bool:
    """Whether a body without candidates is still an answer, and not an error or something unknown."""
    candidates = body.get("candidates")
    if body.get("error") or candidates not in (None, []):
        return False
    return candidates == [] or any(isinstance(body.get(key), dict) for key in ("promptFeedback", "usageMetadata"))


def _blocked(feedback: dict[str, Any]) -> tuple[FinishReason, str | None]:
    why = text(feedback.get("blockReason"))
    return ("content_filter", PROMPT_BLOCKED + why) if why else ("other", NO_CANDIDATES)


def _ending(
    candidate: dict[str, Any], word: str | None, calls: list[dict[str, Any]], *, is_empty: bool, usage: Usage | None
) -> tuple[FinishReason, str | None]:
    """The finish reason and its detail."""
    reason = payload.decided(_reason_of(word), has_calls=bool(calls))
    if reason == "content_filter" and not calls:
        return reason, word
    return reason, payload.detail_of(reason, word, calls, is_empty=is_empty, usage=usage, held=candidate)


def _reason_of(word: str | None) -> FinishReason:
    return "content_filter" if word in _BLOCKED_WORDS else payload.finish_of(word)


def _parts_in(content: object) -> list[Any]:
    """The parts of a content: a list, a single one, or text in their place."""
    parts = content.get("parts") if isinstance(content, dict) else content
    return parts if isinstance(parts, list) else [] if parts is None else [parts]


def _is_thought(part: object) -> bool:
    return isinstance(part, dict) and part.get("thought") is True


def _reasoning(body: dict[str, Any]) -> str | None:
    parts = _parts_in(first(body.get("candidates")).get("content"))
    return payload.lines_of([payload.text_of(part) for part in parts if _is_thought(part)])


def _is_call(part: dict[str, Any]) -> bool:
    return "functionCall" in part


def _searched(candidate: dict[str, Any]) -> list[str]:
    grounding = candidate.get("groundingMetadata")
    if not grounding:
        return []
    told = mapping(grounding)
    is_found = any("web" in chunk or "maps" in chunk for chunk in mappings(told.get("groundingChunks")))
    return [SEARCH] if is_found or told.get("webSearchQueries") or told.get("imageSearchQueries") else []


def _read_usage(usage: dict[str, Any], words: str, sent_bytes: int | None) -> Usage | None:
    """Input = prompt + tool use, output = candidates + thoughts (contract sheet, sections 5 and 13), if the total fits.

    A counter that is missing or null is 0. If all of them are, nothing is known: other fields, such as a cost, count
    nothing. None where the counts contradict each other.
    """
    found = [usage.get(name) for name in _COUNTERS]
    if found == [None] * len(_COUNTERS):
        return Usage()
    prompt, tool_use, cached, candidates, thoughts = [0 if number is None else count(number) for number in found]
    said = Counters(
        None if tool_use is None else prompt,
        None if thoughts is None else candidates,
        count(usage.get("totalTokenCount")),
        cached,
        reasoning=thoughts,
        tool_use=tool_use or 0,
        reasoning_beside=True,
    )
    return consistent_usage(said, sent_bytes=sent_bytes, has_text=bool(words))


_REPLY: Final = ReplyShape(
    read=_read_completion,
    usage=lambda body: _read_usage(mapping(body.get("usageMetadata")), "", None) or Usage(),
    reasoning=_reasoning,
    chunks=GeminiChunks,
)
parse_response: Final = functools.partial(read_reply, _REPLY)
"""The completion in a reply, or the error that it stands for. Any status, headers and bytes get one of the two."""
