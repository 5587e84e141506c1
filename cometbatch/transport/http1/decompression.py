"""Encoded bodies, which we never ask for: decoded within bounds and off the event loop, or handed on as they came.

Gateways name codings that were not asked for, wrong ones, and ones that are none (contract sheet, section 13,
"Bodies"). Law: a body that came whole is never called cut, and nothing inflates beyond the bound of plain bodies.
"""

import asyncio
import re
import zlib
from typing import Final

import pyarrow as pa

from cometbatch.records import HttpResponse
from cometbatch.transport.http1 import connection
from cometbatch.transport.http1.connection import NoReplyError

MAX_CODINGS: Final = 3  # of a body, one in the other; a body with more is handed on as it came
READ_AT_ONCE_BYTES: Final = 64 * 1024  # that a stream decodes at a time

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_STREAMS: Final = {"br": "brotli", "zstd": "zstd"}
_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # how a body begins -> what it is
_NO_TEXT: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # bytes that no JSON and no page holds
_CUT: Final = "the compressed reply is cut short"


class _NotDecodedError(Exception):
    """The body is whole, and is not what its coding says."""


async def whole_reply(status: int, headers: dict[str, str], body: bytes) -> HttpResponse:
    """A reply with its body decoded, and headers that describe the body as it is handed on.

    A body that can't be decoded keeps its `content-encoding`. Raises `NoReplyError` where the body is too large, or
    its compressed form is cut short.
    """
    coding = headers.get("content-encoding")
    if coding is None or not body:
        return described(status, headers, body)
    try:  # in a thread, a small one too: it may inflate a thousandfold
        plain = await asyncio.to_thread(_decoded, body, coding)
    except _NotDecodedError:
        return HttpResponse(status, _without_transfer(headers, body), body)
    return described(status, headers, plain)


def described(status: int, headers: dict[str, str], body: bytes) -> HttpResponse:
    """A reply whose headers describe this plain body."""
    if "content-encoding" in headers or "transfer-encoding" in headers:
        headers = _without_transfer(headers, body)
        headers.pop("content-encoding", None)
    return HttpResponse(status, headers, body)


def _without_transfer(headers: dict[str, str], body: bytes) -> dict[str, str]:
    kept = {name: value for name, value in headers.items() if name != "transfer-encoding"}
    return kept | {"content-length": str(len(body))}


def _decoded(body: bytes, coding: str) -> bytes:
    """The plain body. Text is plain already, whatever coding is named; what begins like gzip or zstd is that."""
    codings = [name for each in coding.lower().split(",") if (name := each.strip()) not in ("", "identity")]
    is_known = not codings
    for named in reversed(codings) if len(codings) <= MAX_CODINGS else ():
        if _NO_TEXT.search(body) is None:
            return body
        found = next((name for magic, name in _MAGIC.items() if body.startswith(magic)), named)
        if found in _GZIP:
            body = _inflated(body, zlib.MAX_WBITS | 16)
        elif found == "deflate":
            body = _deflated(body)
        elif found in _STREAMS:
            body = _streamed(body, _STREAMS[found])
        else:
            continue
        is_known = True
    if not is_known and _NO_TEXT.search(body) is not None:
        raise _NotDecodedError
    return body


def _deflated(body: bytes) -> bytes:
    """With zlib's frame, as the standard says, or without, as some servers send it."""
    try:
        return _inflated(body, zlib.MAX_WBITS)
    except _NotDecodedError:
        return _inflated(body, -zlib.MAX_WBITS)


def _inflated(body: bytes, window_bits: int) -> bytes:
    inflater = zlib.decompressobj(window_bits)
    try:
        plain = inflater.decompress(body, connection.MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise _NotDecodedError from error
    _check_size(len(plain))
    if not inflater.eof:
        raise NoReplyError("connection", _CUT)
    if inflater.unused_data:  # half an answer must not be taken for a whole one
        raise _NotDecodedError
    return plain


def _streamed(body: bytes, codec: str) -> bytes:
    """Decoded by Arrow, a piece at a time: it has both codings, and no bound of its own."""
    pieces, size = list[bytes](), 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), codec) as stream:
            while piece := stream.read(READ_AT_ONCE_BYTES):
                pieces.append(piece)
                size += len(piece)
                _check_size(size)
    except OSError as error:
        if "Truncated" in str(error):
            raise NoReplyError("connection", _CUT) from error
        raise _NotDecodedError from error
    return b"".join(pieces)


def _check_size(size: int) -> None:
    if size > connection.MAX_BODY_BYTES:
        raise NoReplyError("too_large", f"the reply inflates to more than {connection.MAX_BODY_BYTES:,} bytes")
