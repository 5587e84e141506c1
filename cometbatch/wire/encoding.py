"""Writing bodies: compact JSON, without unset keys.

A real service draws ids at random and reads a clock. The server halves do neither: the same completion always gets the
same id and the same time of creation.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from msgspec import Struct

from cometbatch.records import Completion, HttpRequest, HttpResponse, ImagePart, Part, TextPart, Usage
from cometbatch.wire.tolerant_json import decode_json, encode_json, mappings

JSON_HEADERS: dict[str, str] = {"content-type": "application/json"}
_EARLIEST_CREATED = 1_772_323_200  # Unix seconds: invented times of creation begin here
_CREATED_SPREAD_S = 30 * 24 * 3600  # seconds over which invented times of creation are spread
_DIGEST_BYTES = 12  # of an invented id


class Origin(Struct, frozen=True):
    """The fields of a reply that identify it. `created` is in Unix seconds, `tag` a digest in hexadecimal."""

    response_id: str
    model: str
    created: int
    tag: str


def origin_of(model: str, completion: Completion, prefix: str) -> Origin:
    """The completion's own id and model if it has them; else the model asked, and an id made from a digest."""
    known = completion.response_id
    digest = blake2b(encode_json([model, completion]), digest_size=_DIGEST_BYTES)
    return Origin(
        response_id=known if known is not None else prefix + digest.hexdigest(),
        model=completion.response_model if completion.response_model is not None else model,
        created=_EARLIEST_CREATED + int.from_bytes(digest.digest(), "big") % _CREATED_SPREAD_S,
        tag=digest.hexdigest(),
    )


def json_request(path: str, body: object, headers: dict[str, str] = JSON_HEADERS) -> HttpRequest:
    """A POST of this body. All requests share one mapping of headers, which is never changed."""
    return HttpRequest(path, headers, encode_json(body))


def unstreamed(request: HttpRequest) -> HttpRequest:
    """The request with `"stream": false` at the end of its body: some gateways stream where it is left out.

    It is no part of a request's identity, so that hashes stay what they were (contract sheet, section 13, "Bodies").
    """
    return HttpRequest(request.path, request.headers, b'%b,"stream":false}' % request.body[:-1], request.images)


def json_reply(body: object) -> HttpResponse:
    """A reply with status 200 and this body."""
    return HttpResponse(200, dict(JSON_HEADERS), encode_json(body))


def text_or_parts(parts: Sequence[Part], image: Callable[[ImagePart], dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A content as the chat and messages formats have it: the text of a single part, else a list of typed parts.

    `image`: how the format has an image.
    """
    if len(parts) == 1 and type(parts[0]) is TextPart:
        return parts[0].text
    return [{"type": "text", "text": part.text} if isinstance(part, TextPart) else image(part) for part in parts]


def known(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def claude_cache_writes(usage: Usage) -> dict[str, int]:
    """Tokens that Claude wrote to its caches, as other formats report them: one count for each lifetime of a cache."""
    written, hour = usage.cache_write_input_tokens, usage.cache_write_1h_input_tokens
    minutes = None if written is None else written - (hour or 0)
    return known({"claude_cache_creation_5_m_tokens": minutes, "claude_cache_creation_1_h_tokens": hour})


def holds_calls(detail: str | None) -> bool:
    """Whether a completion's detail is a list of tool calls, so that a reply with them needs no made-up one."""
    return bool(mappings(decode_json((detail or "").encode(errors="replace"))))


def calls_in(
    detail: str | None, is_call: Callable[[dict[str, Any]], bool], sample: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The tool calls in a completion's detail that have the format's shape; the sample if there are none."""
    value = decode_json((detail or "").encode(errors="replace"))
    return [call for call in mappings(value) if is_call(call)] or [dict(sample)]
