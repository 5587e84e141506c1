"""Outcomes as lines of the vendors' batch results: OpenAI's, Anthropic's and Gemini's.

Law: names and texts survive. What a reply said beyond what columns keep is in a line only where the reply itself was
kept; else the line holds a reply of the format's shape that says the same.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import msgspec

from cometbatch.records import Answered, Completion, Failed, FailureKind, Outcome

Shape: TypeAlias = Literal["openai", "anthropic", "gemini"]
Reply: TypeAlias = Callable[[Completion], bytes | None]
"""A reply's JSON that holds a completion; None where the format can't say it."""

_NO_WORD_FOR_IT: Final = "the calls of tools are not kept in this format's shape; output.raw: true keeps whole replies"
_TOLD_BY: Mapping[Shape, frozenset[str]] = {
    "openai": frozenset({"choices", "output"}),
    "anthropic": frozenset({"content"}),
    "gemini": frozenset({"candidates", "promptFeedback", "usageMetadata"}),
}
"""Keys of a reply, one of which shows that it has the vendor's shape."""
_ANTHROPIC_TYPES: Mapping[FailureKind, str] = {
    "rate_limited": "rate_limit_error",
    "overloaded": "overloaded_error",
    "timeout": "timeout_error",
    "invalid_request": "invalid_request_error",
    "template": "invalid_request_error",
    "blocked": "invalid_request_error",
    "too_large": "request_too_large",
    "auth": "authentication_error",
    "credit": "billing_error",
    "model_not_found": "not_found_error",
}
"""Anthropic's types of errors; every other failure is an `api_error`."""
_GOOGLE_CODES: Mapping[FailureKind, tuple[int, str]] = {
    "rate_limited": (8, "RESOURCE_EXHAUSTED"),
    "credit": (8, "RESOURCE_EXHAUSTED"),
    "overloaded": (14, "UNAVAILABLE"),
    "connection": (14, "UNAVAILABLE"),
    "timeout": (4, "DEADLINE_EXCEEDED"),
    "invalid_request": (3, "INVALID_ARGUMENT"),
    "template": (3, "INVALID_ARGUMENT"),
    "too_large": (3, "INVALID_ARGUMENT"),
    "blocked": (9, "FAILED_PRECONDITION"),
    "auth": (16, "UNAUTHENTICATED"),
    "model_not_found": (5, "NOT_FOUND"),
}
"""Google's codes of errors, by number and name; every other failure is INTERNAL."""
_encode = msgspec.json.Encoder().encode


def result_line(shape: Shape, outcome: Outcome, reply: Reply, run_id: str = "") -> bytes:
    """The line of an outcome in a vendor's result file, without a line feed.

    `reply` makes the reply of an answer that was not kept. A row without a name of its own is called by its number,
    as in `row-7`. `run_id` makes the ids that OpenAI gives to lines differ between runs.
    """
    name = f"row-{outcome.ordinal}" if outcome.custom_id is None else outcome.custom_id
    said: tuple[FailureKind, str] = "invalid_response", _NO_WORD_FOR_IT
    body: bytes | None = None
    if isinstance(outcome, Answered):
        body = _kept(shape, outcome.completion.raw) or reply(outcome.completion)
    else:
        said = outcome.failure.kind, outcome.failure.message
    raw = None if body is None else msgspec.Raw(body)
    match shape:
        case "openai":
            return _encode(_openai(outcome, name, raw, said, run_id))
        case "anthropic":
            return _encode({"custom_id": name, "result": _anthropic(outcome, raw, said)})
        case "gemini":
            return _encode({"key": name, **_gemini(raw, said)})


def _kept(shape: Shape, raw: str | None) -> bytes | None:
    """The reply as it came, where it was kept and has the vendor's shape; lines can't hold its line feeds."""
    if raw is None:
        return None
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None
    if not isinstance(value, dict) or _TOLD_BY[shape].isdisjoint(value):
        return None
    return raw.encode() if "\n" not in raw and "\r" not in raw else _encode(value)


def _openai(
    outcome: Outcome, name: str, body: msgspec.Raw | None, said: tuple[FailureKind, str], run_id: str
) -> dict[str, Any]:
    digest = blake2b(f"{run_id} {outcome.ordinal}".encode(), digest_size=12).hexdigest()
    line: dict[str, Any] = {"id": f"batch_req_{digest}", "custom_id": name, "response": None, "error": None}
    if body is None:
        kind, message = said
        return line | {"error": {"code": kind, "message": message}}
    status = outcome.http_status if isinstance(outcome, Answered) else 200
    return line | {"response": {"status_code": status, "request_id": _request_id(outcome) or "", "body": body}}


def _anthropic(outcome: Outcome, body: msgspec.Raw | None, said: tuple[FailureKind, str]) -> dict[str, Any]:
    if body is not None:
        return {"type": "succeeded", "message": body}
    kind, message = said
    error = {"type": _ANTHROPIC_TYPES.get(kind, "api_error"), "message": message}
    return {"type": "errored", "error": {"type": "error", "error": error, "request_id": _request_id(outcome)}}


def _gemini(body: msgspec.Raw | None, said: tuple[FailureKind, str]) -> dict[str, Any]:
    if body is not None:
        return {"response": body}
    kind, message = said
    code, status = _GOOGLE_CODES.get(kind, (13, "INTERNAL"))
    return {"error": {"code": code, "message": message, "status": status}}


def _request_id(outcome: Outcome) -> str | None:
    return outcome.failure.request_id if isinstance(outcome, Failed) else outcome.request_id


SHAPES: Final[Mapping[str, Shape]] = MappingProxyType({name: name for name in _TOLD_BY})
"""The shapes by their names."""
