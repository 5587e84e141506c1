"""Compressed bodies, which we never ask for: decompressed within bounds and off the event loop, or refused."""

import asyncio
import zlib

from cometbatch.transport.http1 import connection
from cometbatch.transport.http1.connection import NoReplyError

_CODINGS = ("gzip", "x-gzip", "deflate")


async def decompressed(body: bytes, coding: str) -> bytes:
    """The plain body. Raises `NoReplyError` where it is too large, cut short, no such thing or of another coding."""
    if coding not in _CODINGS:
        raise NoReplyError("connection", f"the reply is encoded as {coding[:40]!r}, which was not asked for")
    try:
        return await asyncio.to_thread(_decompress, body)  # a small one too: it may inflate a thousandfold
    except zlib.error as error:
        raise NoReplyError("connection", str(error)) from error


def _decompress(body: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: tell gzip from zlib by its header
    plain = inflater.decompress(body, connection.MAX_BODY_BYTES + 1)
    if len(plain) > connection.MAX_BODY_BYTES:
        raise NoReplyError("too_large", f"the reply inflates to more than {connection.MAX_BODY_BYTES:,} bytes")
    if not inflater.eof:
        raise NoReplyError("connection", "the compressed reply is cut short")
    if inflater.unused_data:  # half an answer must not be taken for a whole one
        raise NoReplyError("connection", "the compressed reply goes on after its end")
    return plain
