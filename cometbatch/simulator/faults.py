"""Replies that are no answer, in the service's own words; the shape of an error's envelope is hidden here.

Sources: contract sheet, sections 7.1 (envelopes), 7.2 (statuses and codes) and 10 (the checklist).
"""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from cometbatch.records import ErrorDetail, HttpResponse
from cometbatch.simulator.behaviour import number
from cometbatch.wire.envelope import ErrorShape, build_error

GATEWAY_TYPE = "comet_api_error"
STREAM_REFUSED = "the simulator does not stream: leave stream out, or set it to false"
ELSEWHERE = "/docs/not-found"  # the page that a wrong path is redirected to
_HTML = "text/html; charset=utf-8"


class Refusal(Struct, frozen=True):
    """One reply that is no answer.

    `routed`: the request got past the gateway, so that the reply takes time. `varies`: the code means nothing, so that
    the envelope varies; if the request was routed, it may be the provider's own (section 7.1). `retry_after_s`: the
    wait in seconds that the reply names in any case; 0: none.
    """

    status: int
    message: str
    code: str = ""
    type: str = GATEWAY_TYPE
    routed: bool = False
    varies: bool = False
    html: bool = False
    retry_after_s: int = 0


REFUSALS: Mapping[str, Refusal] = MappingProxyType(
    {
        "bad-key": Refusal(401, "Invalid token", varies=True),
        "credit": Refusal(403, "user quota is not enough", "insufficient_user_quota"),
        "key-quota": Refusal(403, "token quota is not enough", "pre_consume_token_quota_failed"),
        "model-not-found": Refusal(
            503, "no available channel for group default and model {subject} (distributor)", "model_not_found"
        ),
        "not-priced": Refusal(400, "model {subject} has not been priced by the administrator", varies=True),
        "proxy-password": Refusal(407, "the proxy wants a user name and a password"),
        "provider-key": Refusal(401, "Incorrect API key provided", "invalid_api_key", "invalid_request_error"),
        "provider-credit": Refusal(402, "Insufficient Balance"),
        "409": Refusal(409, "conflict", routed=True, varies=True),
        "423": Refusal(423, "locked", routed=True, varies=True),
        "424": Refusal(424, "failed dependency", routed=True, varies=True),
        "425": Refusal(425, "too early", routed=True, varies=True),
        "499": Refusal(499, "client closed request", routed=True, varies=True),
        "days-429": Refusal(429, "the quota of this week is used up", varies=True, retry_after_s=581_981),
        "no-max-tokens": Refusal(
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            "unsupported_parameter",
            "invalid_request_error",
            routed=True,
        ),
        "no-max-completion-tokens": Refusal(
            400,
            "Unrecognized request argument supplied: max_completion_tokens",
            type="invalid_request_error",
            routed=True,
        ),
        "429": Refusal(429, "too many requests, please try again later", varies=True),
        "500": Refusal(500, "upstream request failed", routed=True),
        "502": Refusal(502, "bad gateway", routed=True, varies=True),
        "503": Refusal(503, "the service is overloaded, please try again later", routed=True, varies=True),
        "504": Refusal(504, "gateway timeout", routed=True, html=True),
        "524": Refusal(524, "a timeout occurred", routed=True, html=True),
        "529": Refusal(529, "overloaded", type="overloaded_error", routed=True, varies=True),
        "400": Refusal(
            400,
            "the model does not support a value of this request",
            type="invalid_request_error",
            routed=True,
            varies=True,
        ),
        "403-html": Refusal(403, "request blocked", html=True),
        "500-invalid-request": Refusal(
            500, "the request is not what the model expects", "invalid_request", routed=True
        ),
        "prompt-blocked": Refusal(400, "request blocked by the provider: SAFETY", "prompt_blocked", routed=True),
        "sensitive-words": Refusal(500, "sensitive words detected", "sensitive_words_detected"),
        "empty-response": Refusal(500, "the provider returned no candidates", "empty_response", routed=True),
        "wrong-method": Refusal(404, "Invalid URL ({subject})", type="invalid_request_error"),
        "too-large": Refusal(413, "the request body is too large", "read_request_body_failed"),
        "schema": Refusal(
            400, "Invalid schema: {subject}", "invalid_json_schema", "invalid_request_error", routed=True
        ),
        "deep_keywords": Refusal(400, "Invalid JSON payload received. {subject}", routed=True, varies=True),
        "stream": Refusal(400, STREAM_REFUSED, "invalid_request"),
    }
)
_PROVIDER_SHAPES: Mapping[str, tuple[ErrorShape, ...]] = {
    "messages": ("anthropic", "openai"),
    "gemini": ("google", "openai_numeric", "openai"),
}
_GATEWAY_SHAPES: tuple[ErrorShape, ...] = ("openai", "openai", "openai", "openai_numeric")


def refuse(name: str, *, subject: str, wire_name: str, request_id: str, digest: bytes) -> HttpResponse:
    """The refusal with this name as a reply. `subject` is the model or path that its message names."""
    refusal = REFUSALS[name]
    shape = _shape(refusal, wire_name, digest)
    detail = ErrorDetail(
        status=refusal.status,
        code=refusal.code,
        type="" if shape == "google" else refusal.type,  # Google's word for the status is the type
        message=refusal.message.format(subject=subject),
        request_id=request_id,
    )
    reply = build_error(detail, shape)
    if refusal.retry_after_s:
        reply.headers["retry-after"] = str(refusal.retry_after_s)
    return reply


def html_page(status: int, title: str) -> HttpResponse:
    """An HTML page in place of JSON."""
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return HttpResponse(status, {"content-type": _HTML}, page.encode())


def redirect() -> HttpResponse:
    """The reply to a wrong path (section 10 item 8)."""
    page = html_page(301, "Moved Permanently")
    return HttpResponse(301, {**page.headers, "location": ELSEWHERE}, page.body)


def _shape(refusal: Refusal, wire_name: str, digest: bytes) -> ErrorShape:
    if refusal.html:
        return "html"
    if not refusal.varies:
        return "openai"
    shapes = _PROVIDER_SHAPES.get(wire_name, _GATEWAY_SHAPES) if refusal.routed else _GATEWAY_SHAPES
    return shapes[number(digest, f"shape {refusal.status}", len(shapes))]
