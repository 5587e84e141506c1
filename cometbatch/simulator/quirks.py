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


def _counts(body: dict[str, Any]) -> dict[str, Any]:
    """The usage object of a reply; a copy that is not sent if the reply has none, because it must stay without."""
    found = body.get("usageMetadata" if "usageMetadata" in body else "usage")
    return found if isinstance(found, dict) else {}


_EDITS: Mapping[Quirk, Callable[[dict[str, Any], Model, Usage], None]] = {
    "extra-usage": _extra_usage,
    "bare-usage": _bare_usage,
    "reasoning-content": _reasoning_content,
    "cost": _cost,
}
