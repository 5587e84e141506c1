"""Oddities of real replies beyond the documented body (contract sheet, section 10 item 9).

Law: no quirk changes an answer's text or the token counts that are billed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cometbatch.records import HttpResponse, Usage
from cometbatch.simulator.catalog import Model, Quirk, cost

SNAPSHOT_SUFFIX = "-2026-03-17"  # a reply may name a dated snapshot of the model that was asked
_THOUGHTS = "The simulator thought about this, and that is no part of its answer."
_DECODER = msgspec.json.Decoder(dict[str, Any])
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_OPTIONAL_USAGE = frozenset(
    {
        "prompt_tokens_details",
        "completion_tokens_details",
        "input_tokens_details",
        "output_tokens_details",
        "cache_creation",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "cachedContentTokenCount",
        "thoughtsTokenCount",
    }
)
_OPTIONAL_TOP = frozenset({"service_tier", "system_fingerprint"})


def response_model(model: Model, *, quirks: bool) -> str:
    """The model's name in the reply."""
    return model.id + SNAPSHOT_SUFFIX if quirks and "snapshot" in model.quirks else model.id


def quirky(reply: HttpResponse, model: Model, usage: Usage) -> HttpResponse:
    """The same answer with the model's quirks."""
    edits = [_EDITS[quirk] for quirk in model.quirks if quirk in _EDITS]
    if not edits:
        return reply
    body = _DECODER.decode(reply.body)
    for edit in edits:
        edit(body, model, usage)
    return HttpResponse(reply.status, reply.headers, _ENCODER.encode(body))


def _extra_usage(body: dict[str, Any], _model: Model, _usage: Usage) -> None:
    _counts(body)["latency_checkpoint"] = {"first_token_ms": 212, "total_ms": 901}


def _bare_usage(body: dict[str, Any], _model: Model, _usage: Usage) -> None:
    counts = _counts(body)
    for name in _OPTIONAL_USAGE & counts.keys():
        if not counts[name] or isinstance(counts[name], dict):  # a count above 0 stays, because it is part of a total
            del counts[name]
    for name in _OPTIONAL_TOP & body.keys():
        del body[name]


def _reasoning_content(body: dict[str, Any], _model: Model, _usage: Usage) -> None:
    for choice in body.get("choices", ()):
        choice["message"]["reasoning_content"] = _THOUGHTS


def _cost(body: dict[str, Any], model: Model, usage: Usage) -> None:
    _counts(body)["cost"] = cost(model, usage)


def _tool_use(body: dict[str, Any], _model: Model, usage: Usage) -> None:
    """Gemini counts what its tools read beside the prompt (contract sheet, section 13)."""
    counts = _counts(body)
    if "promptTokenCount" in counts:
        tools = (counts["promptTokenCount"] - (usage.cache_read_input_tokens or 0)) // 2
        counts["promptTokenCount"] -= tools
        counts["toolUsePromptTokenCount"] = tools


def _parts_beside(body: dict[str, Any], _model: Model, usage: Usage) -> None:
    """Cached input and reasoning beside their wholes, in the total alone (contract sheet, section 13)."""
    counts = _counts(body)
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_write_input_tokens or 0)
    for name in ("prompt_tokens", "promptTokenCount", *(("input_tokens",) if _total_key(counts) else ())):
        if name in counts:
            counts[name] -= cached
    for name in ("completion_tokens", *(("output_tokens",) if _total_key(counts) else ())):
        if name in counts:
            counts[name] -= usage.reasoning_output_tokens or 0
    _tell_total(counts, usage)


def _parts_inside(body: dict[str, Any], _model: Model, usage: Usage) -> None:
    """Cached input, what tools read and thoughts inside of their wholes, where the format has them beside."""
    counts = _counts(body)
    if "promptTokenCount" in counts:
        counts["promptTokenCount"] = usage.input_tokens
        counts["candidatesTokenCount"] = usage.output_tokens
    elif "input_tokens" in counts:
        counts["input_tokens"] = usage.input_tokens
    _tell_total(counts, usage)


def _total_key(counts: dict[str, Any]) -> str | None:
    return next((name for name in ("total_tokens", "totalTokenCount") if name in counts), None)


def _tell_total(counts: dict[str, Any], usage: Usage) -> None:
    """The true total, also where the format has none of its own."""
    if counts:
        counts[_total_key(counts) or "total_tokens"] = (usage.input_tokens or 0) + (usage.output_tokens or 0)


def _search(body: dict[str, Any], _model: Model, _usage: Usage) -> None:
    """A search, and a tier of its own, told as each format tells them."""
    if "output" in body:
        body["output"].insert(0, {"type": "web_search_call", "id": "ws_1", "status": "completed"})
    elif body.get("candidates"):
        body["candidates"][0]["groundingMetadata"] = {"webSearchQueries": ["comets"]}
    elif counts := _counts(body):
        counts["server_tool_use"] = {"web_search_requests": 1}
    (body if "service_tier" in body else _counts(body))["service_tier"] = "priority"


def _counts(body: dict[str, Any]) -> dict[str, Any]:
    """The usage object of a reply; a copy that is not sent if the reply has none, because it must stay without."""
    found = body.get("usageMetadata" if "usageMetadata" in body else "usage")
    return found if isinstance(found, dict) else {}


_EDITS: Mapping[Quirk, Callable[[dict[str, Any], Model, Usage], None]] = {
    "extra-usage": _extra_usage,
    "bare-usage": _bare_usage,
    "reasoning-content": _reasoning_content,
    "cost": _cost,
    "tool-use": _tool_use,
    "parts-beside": _parts_beside,
    "parts-inside": _parts_inside,
    "search": _search,
}
MISCOUNTS = frozenset({"zero-usage", "wrong-total"})
"""Faults of the token counts that a reply tells; the answer is billed as it is."""


def miscounted(reply: HttpResponse, fault: str) -> HttpResponse:
    """The same answer with token counts that can't be true: all 0, or above a total."""
    body = _DECODER.decode(reply.body)
    counts = _counts(body)
    if fault == "wrong-total":
        counts["totalTokenCount" if "promptTokenCount" in counts else "total_tokens"] = 1
    else:
        counts.update(_zeros(counts))
    return HttpResponse(reply.status, reply.headers, _ENCODER.encode(body))


def _zeros(counts: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _zeros(value) if isinstance(value, dict) else 0
        for name, value in counts.items()
        if isinstance(value, int | dict)
    }
