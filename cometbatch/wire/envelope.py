"""Error replies of any path, read into `ErrorDetail` and written from it (contract sheet, section 7.1).

One service answers in five JSON shapes, HTML pages and empty bodies, whatever path was asked; this module hides that.
Law: a message is one printable line of bounded length, and never repeats anything that looks like an API key.
"""

import html
import re
from typing import Any, Final, Literal, TypeAlias

from cometbatch.records import KEY_SHAPE, ErrorDetail, HttpResponse, Problem
from cometbatch.wire.event_stream import values_in
from cometbatch.wire.tolerant_json import NotJson, compact_text, decode_json, encode_json, first, mapping, well_formed

__all__ = [
    "ErrorShape",
    "NotJson",
    "build_error",
    "decode_json",
    "error_of",
    "holds_failure",
    "is_success",
    "parse_error",
    "request_id_of",
]

ErrorShape: TypeAlias = Literal["openai", "openai_numeric", "anthropic", "google", "flat", "html", "empty"]

SUCCESS: Final = range(200, 300)  # HTTP statuses
FAILURE_KEYS: Final = frozenset({"error", "errors", "base_resp", "success"})  # where a body says that something failed
REQUEST_ID_HEADER: Final = "x-cometapi-request-id"
MAX_MESSAGE_CHARS: Final = 2_000  # of an error's message; the rest is cut off
MAX_WORD_CHARS: Final = 200  # of a code, a type or a request id; the rest is cut off
_EXCERPT_BYTES: Final = 8_192  # of the start of a body that holds no envelope: readable words are taken from these
_SIGNATURE_CHARS: Final = 8_192  # of a message's end: the request id is looked for here (contract sheet, section 1)

_REQUEST_ID = re.compile(r"\(request id: ([^)]{1,200})\)")
_TITLE = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
_UNREAD_ELEMENT = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]*>?")
# Names under which gateways put an error's words.
_MESSAGE_NAMES: Final = ("message", "msg", "error_msg", "error_message")
# MiniMax's codes, as the words that others have for them (contract sheet, section 13, "Bodies").
_MINIMAX_CODES: Final = {
    "1002": "rate_limit_exceeded",
    "1004": "invalid_api_key",
    "1008": "insufficient_balance",
    "1026": "content_filter",
    "1027": "content_filter",
    "1039": "rate_limit_exceeded",
}
# Google's word for each HTTP status; its envelope holds both.
_GOOGLE_STATUS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def parse_error(response: HttpResponse) -> ErrorDetail:
    """The error that a reply without a completion stands for. Raises nothing, whatever the reply is.

    An error may be in a list, or be the event of a stream: what gateways did not mean to send is read all the same.
    """
    body = decode_json(response.body)
    if isinstance(body, NotJson):
        held = next((each for each in values_in(response.body) if holds_failure(each)), body)
    else:
        held = first(body) if isinstance(body, list) and holds_failure(first(body)) else body
    return error_of(response, held)


def error_of(response: HttpResponse, body: object, problem: Problem | None = None) -> ErrorDetail:
    """The error that a reply with this body stands for: a JSON value, or a `NotJson`.

    The shapes are tried in the order of the contract sheet, section 7.1. Under a success status, `problem` is one of
    these where it is not known before: html (a page, an empty body, or a content type that is not JSON, which is how a
    wrong path is answered: section 7.2), not_json (it is cut off), unreadable (it is whole, and no JSON), error (there
    is an error envelope), not_understood.
    """
    code, kind, message = _said(body)
    return ErrorDetail(
        status=response.status,
        problem=problem or _problem(response, body),
        code=_line(code, MAX_WORD_CHARS),
        type=_line(kind, MAX_WORD_CHARS),
        message=_line(message if code or kind or message else _readable(response, body), MAX_MESSAGE_CHARS),
        request_id=_request_id(response, message),
    )


def holds_failure(body: object) -> bool:
    """Whether a body says that something failed, whatever else it holds (contract sheet, section 13, "Bodies")."""
    if not isinstance(body, dict):
        return False
    if body.get("error") or "base_resp" in body or body.get("success") is False or body.get("errors"):
        return bool(_inner_error(body)) or body.get("success") is False
    return False


def request_id_of(response: HttpResponse) -> str | None:
    """The id of this exchange in the service's log: from the header, else from an error's message."""
    named = response.headers.get(REQUEST_ID_HEADER, "")
    if (
        named.isascii() and named.encode().isalnum() and len(named) <= MAX_WORD_CHARS
    ):  # can't hold a key and needs no cleaning
        return named
    message = "" if is_success(response.status) else _said(decode_json(response.body))[2]
    return _request_id(response, message)


def is_success(status: int) -> bool:
    """Whether an HTTP status is a success (2xx)."""
    return status in SUCCESS


def _is_redirect(status: int) -> bool:
    return 300 <= status < 400  # noqa: PLR2004 - the bounds are what 3xx means


def build_error(detail: ErrorDetail, shape: ErrorShape) -> HttpResponse:
    """The server half: an error in one of the shapes. The request id is in the header and, in JSON, in the message.

    An openai body without a code has no `param`, as in the sheet's second example.
    """
    headers = {} if detail.request_id is None else {REQUEST_ID_HEADER: detail.request_id}
    if shape == "empty":
        return HttpResponse(detail.status, headers, b"")
    if shape == "html":
        page = f"<html><head><title>{html.escape(detail.message)}</title></head><body></body></html>"
        headers["content-type"] = "text/html; charset=utf-8"
        return HttpResponse(detail.status, headers, f"<!DOCTYPE html>{page}".encode(errors="replace"))
    headers["content-type"] = "application/json"
    return HttpResponse(detail.status, headers, encode_json(_envelope(detail, shape, _signed(detail))))


def _envelope(detail: ErrorDetail, shape: ErrorShape, message: str) -> dict[str, Any]:
    kind = detail.type or "comet_api_error"
    if shape == "anthropic":
        return {"type": "error", "error": {"type": kind, "message": message}}
    if shape == "google":
        word = detail.type or _GOOGLE_STATUS.get(detail.status, "UNKNOWN")
        return {"error": {"code": _numeric(detail), "message": message, "status": word}}
    if shape == "flat":
        return {"code": detail.code or None, "message": message}
    if shape == "openai_numeric":
        return {"error": {"message": message, "type": kind, "param": "", "code": _numeric(detail)}}
    param = {"param": ""} if detail.code else {}
    return {"error": {"message": message, "type": kind, **param, "code": detail.code}}


def _signed(detail: ErrorDetail) -> str:
    """The message with the request id at its end, where it is not there already."""
    signature = f"(request id: {detail.request_id})"
    if detail.request_id is None or signature in detail.message:
        return detail.message
    return f"{detail.message} {signature}".lstrip()


def _numeric(detail: ErrorDetail) -> int:
    return int(detail.code) if detail.code.isascii() and detail.code.isdigit() else detail.status


def _said(body: object) -> tuple[str, str, str]:
    """Code, type and message of an envelope in any shape; "" for what it does not have."""
    outer = mapping(body)
    error = _inner_error(outer)
    if isinstance(error, str):
        return _word(outer.get("code")), _word(outer.get("type")), error
    if error:
        kind = error.get("type") if error.get("type") is not None else error.get("status")
        return _word(error.get("code")), _word(kind), _message_in(error)
    code, message = _word(outer.get("code")) or _error_status(outer), _message_in(outer)
    if code and not message:
        message = _words(outer.get("detail"))
    return code, _word(outer.get("type")) if code or message else "", message


def _inner_error(outer: dict[str, Any]) -> dict[str, Any] | str:
    """The error within an envelope: an object or words; empty where it has none."""
    error = outer.get("error") or outer.get("errors")
    if isinstance(error, list):
        error = error[0] if error else None
    if isinstance(error, str) and error:
        return error
    if isinstance(error, dict) and any(error.values()):  # some send an empty one beside each answer
        return error
    status = mapping(outer.get("base_resp"))
    if status.get("status_code") not in (None, 0, "0", ""):
        code = _word(status.get("status_code"))
        return {"code": _MINIMAX_CODES.get(code, code), "message": f"{_words(status.get('status_msg'))} ({code})"}
    return {"message": _message_in(outer) or "error"} if error is True else {}


def _message_in(error: dict[str, Any]) -> str:
    return next((words for name in _MESSAGE_NAMES if (words := _words(error.get(name)))), "")


def _error_status(outer: dict[str, Any]) -> str:
    """A status in the body, where it is one of an error."""
    status = outer.get("status")
    return f"{status}" if type(status) is int and 400 <= status < 600 else ""  # noqa: PLR2004 - HTTP's errors


def _problem(response: HttpResponse, body: object) -> Problem:
    if _is_redirect(response.status):
        return "redirect"
    if not is_success(response.status):
        return "error"
    if isinstance(body, NotJson):
        if body.is_cut and not _is_html(response):
            return "not_json"
        return "html" if _is_no_answer(response) else "unreadable"
    return "error" if _is_envelope(mapping(body)) else "not_understood"


def _is_envelope(body: dict[str, Any]) -> bool:
    is_flat = "code" in body and any(isinstance(body.get(name), str) for name in _MESSAGE_NAMES)
    return is_flat or holds_failure(body) or bool(body.get("detail"))


def _is_no_answer(response: HttpResponse) -> bool:
    """Whether the body was never meant as an answer: it is empty, a page, or of another content type.

    A stream is an answer, and so is what is still encoded: its type tells of the bytes before that.
    """
    kind = response.headers.get("content-type", "").strip().lower()
    is_other = kind != "" and "json" not in kind and "event-stream" not in kind
    return not response.body or _is_html(response) or (is_other and "content-encoding" not in response.headers)


def _is_html(response: HttpResponse) -> bool:
    kind = response.headers.get("content-type", "").lower()
    return "html" in kind or response.body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def _readable(response: HttpResponse, body: object) -> str:
    """Readable words of a reply without an envelope: the target of a redirect, a page's text, or the first bytes."""
    if _is_redirect(response.status) and "location" in response.headers:
        return f"redirected to {response.headers['location'].partition('?')[0]}"  # a query can hold a key
    excerpt = response.body[:_EXCERPT_BYTES].decode("utf-8-sig", "replace")
    if not isinstance(body, NotJson):
        return excerpt
    if (coding := response.headers.get("content-encoding")) is not None:
        return f"{body.reason}: it is encoded as {coding[:40]!r}, which was not asked for and can't be read"
    if _is_html(response):
        return _page_words(excerpt)
    return f"{body.reason}: {excerpt}" if is_success(response.status) else excerpt


def _page_words(page: str) -> str:
    """A page's title, else its text without tags."""
    title = _TITLE.search(page)
    if title and title[1].strip():
        return " ".join(html.unescape(title[1]).split())
    return " ".join(html.unescape(_TAG.sub(" ", _UNREAD_ELEMENT.sub(" ", page))).split())


def _request_id(response: HttpResponse, message: str) -> str | None:
    found = _REQUEST_ID.search(message[-_SIGNATURE_CHARS:])
    header = _line(response.headers.get(REQUEST_ID_HEADER, ""), MAX_WORD_CHARS)
    return header or (_line(found[1], MAX_WORD_CHARS) if found else None) or None


def _word(value: object) -> str:
    """A code or a type as text, because gateways also send numbers and null."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return compact_text(value) or ""
    return ""


def _words(value: object) -> str:
    """A message as text. A message that is a JSON object or list becomes compact JSON."""
    if isinstance(value, str):
        return value
    return compact_text(value) or "" if isinstance(value, dict | list) and value else ""


def _line(words: str, longest: int) -> str:
    """One printable line of at most `longest` characters, without anything that looks like a key."""
    words = well_formed(words[: 4 * longest])
    words = words if words.isprintable() else "".join(map(_printable, words))
    words = KEY_SHAPE.sub("sk-...", words)
    return words if len(words) <= longest else words[: longest - 3] + "..."


def _printable(char: str) -> str:
    if char.isspace():
        return " "
    return char if char.isprintable() else char.encode("unicode_escape").decode()
