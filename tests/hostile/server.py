"""A service that answers most rows as it should and does to the others what it is asked to, byte by byte.

Which hostility a request meets stands in its prompt: "Do NAME." A process of its own, so that what it does costs the
client neither memory nor time; it says its port in its first line, and ends when its stdin closes.
"""

import asyncio
import contextlib
import gzip
import json
import re
import socket
import ssl
import struct
import sys
import zlib
from collections.abc import Awaitable, Callable

MB = 1 << 20
LARGE = 200 * MB
OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"Content-Type: application/json\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n\r\n"
ASKED = re.compile(rb"Row (\d+)\. Do ([\w -]+)\.")

Writer = asyncio.StreamWriter
Hostility = Callable[[Writer], Awaitable[None]]


def completion(text: str) -> bytes:
    """The body of an honest answer."""
    said = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"id": "c", "model": "m", "choices": [said], "usage": {}}).encode()


def whole(body: bytes, *headers: bytes) -> bytes:
    """A reply with its length."""
    return b"\r\n".join([JSON[:-2], *headers, b"Content-Length: %d" % len(body), b"", body])


FORGED = whole(completion("forged"))
TRUE = completion("true")


def says(*pieces: bytes, closes: bool = False, pause_s: float = 0.0) -> Hostility:
    """These bytes, one after the other; then perhaps the end of the connection."""

    async def hostile(writer: Writer) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        if closes:
            raise EOFError

    return hostile


def floods(start: bytes, piece: bytes, total: int = LARGE, *, pause_s: float | None = None) -> Hostility:
    """These bytes, and then the same piece again and again; then silence, should a fast client have taken it all.

    Not the end of the connection: that might happen to whoever is asked, so its row would be sent again.
    """

    async def hostile(writer: Writer) -> None:
        writer.write(start)
        for _ in range(total // len(piece)):
            writer.write(piece)
            await writer.drain()
            if pause_s is not None:
                await asyncio.sleep(pause_s)

    return hostile


def resets(*pieces: bytes) -> Hostility:
    """These bytes, and then a reset."""

    async def hostile(writer: Writer) -> None:
        await says(*pieces, pause_s=0.01)(writer)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        raise EOFError

    return hostile


def text(said: bytes) -> bytes:
    """A completion whose content is these very bytes."""
    return whole(completion("@").replace(b'"@"', b'"%s"' % said))


def in_pieces(size: int, total: int) -> bytes:
    """A chunk of this many bytes, again and again."""
    return (b"%x\r\n%s\r\n" % (size, b"x" * size)) * (total // size)


def bomb() -> bytes:
    """Zeros, packed a thousand to one."""
    packer = zlib.compressobj(1, wbits=31)
    return b"".join(packer.compress(bytes(MB)) for _ in range(LARGE // MB)) + packer.flush()


def fills(unit: bytes, total: int = 4_000_000) -> bytes:
    """A JSON list of the same value, again and again."""
    return b"[" + unit * (total // len(unit)) + b"0]"


def hostilities() -> dict[str, Hostility]:
    """All of them by name."""
    packed = bomb()
    gz, deep = b"Content-Encoding: gzip", 100_000
    surplus = whole(TRUE) + FORGED
    return {
        # more than anyone can take
        "large body": floods(JSON + b"Content-Length: %d\r\n\r\n" % LARGE, b"x" * 65536),
        "large chunked body": floods(CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n"),
        "tiny chunks": floods(CHUNKED, in_pieces(1, 60_000), 20 * MB),
        "chunk extensions": floods(CHUNKED, (b"1;" + b"e" * 1000 + b"\r\nx\r\n") * 60),
        "bomb": says(whole(packed, gz)),
        "bomb in a bomb": says(whole(gzip.compress(packed), gz)),
        "bomb named twice": says(whole(gzip.compress(packed), b"Content-Encoding: gzip, gzip")),
        "many members": says(whole(gzip.compress(TRUE) + gzip.compress(b"") * 30_000, gz)),
        "headers without end": floods(OK, b"X-More: of the same\r\n" * 1000),
        "long header": floods(OK + b"X-Long: ", b"x" * 65536),
        "thousands of headers": says(OK + b"X-More: of the same\r\n" * 5000 + b"Content-Length: 0\r\n\r\n"),
        "cookies": says(whole(TRUE, *[b"Set-Cookie: " + b"a=b; " * 1000] * 100)),
        "interim replies": floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 4000),
        "interim replies with headers": floods(b"", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 2000),
        "trailers": floods(CHUNKED + b"0\r\n", b"X-More: of the same\r\n" * 1000),
        # slower than anyone can wait
        "silence": says(),
        "silence in the body": says(JSON + b"Content-Length: 99\r\n\r\n{"),
        "drops": floods(JSON + b"\r\n", b"x", 100, pause_s=0.1),
        "large body that stops": says(JSON + b"Content-Length: %d\r\n\r\n" % LARGE, b"x" * MB),
        # what is no JSON, or too much of it
        "invalid UTF-8": says(text(b"\xff\xfe")),
        "much invalid UTF-8": says(text(b"\xffa" * 2_000_000)),
        "invalid UTF-8 in many texts": says(whole(fills(b'"\xff",'))),
        "lone surrogates": says(text(b"\\ud800" * 600_000)),
        "NUL": says(text(b"\\u0000" * 600_000)),
        "raw NUL": says(text(b"\0" * 4_000_000)),
        "deep lists": says(whole(b"[" * deep + b"]" * deep)),
        "deep mappings": says(whole(b'{"a":' * deep + b"1" + b"}" * deep)),
        "huge number": says(whole(b'{"usage":' + b"9" * 4_000_000 + b"}")),
        "many lists": says(whole(fills(b"[],"))),
        "many mappings": says(whole(fills(b'{"a":1},'))),
        "many surrogates": says(whole(fills(b'"\\ud800",'))),
        "many huge numbers": says(whole(fills(b"9" * 300 + b","))),
        "many request ids": says(
            whole(b'{"error":{"message":"' + b"(request id: " * 300_000 + b'"}}').replace(b"200 OK", b"400 No", 1)
        ),
        "spaces": says(whole(b" " * 4_000_000)),
        # what is no HTTP
        "longer than said": says(JSON + b"Content-Length: 10\r\n\r\n" + TRUE),
        "shorter than said": says(JSON + b"Content-Length: 9999\r\n\r\n" + TRUE, closes=True),
        "length and chunks": says(
            JSON + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(TRUE), TRUE)
        ),
        "two lengths": says(JSON + b"Content-Length: 3\r\nContent-Length: 300\r\n\r\n" + TRUE),
        "chunk garbage": says(CHUNKED + b"zz\r\n" + TRUE),
        "huge chunk": says(CHUNKED + b"f" * 30 + b"\r\n" + TRUE),
        "HTTP 0-9": says(TRUE, closes=True),
        "garbage": says(b"\0\xff" * 1000),
        "TLS": says(b"\x15\x03\x01\x00\x02\x02\x16", closes=True),
        "switching protocols": says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        "redirect loop": says(JSON.replace(b"200 OK", b"307 x") + b"Location: /\r\nContent-Length: 0\r\n\r\n"),
        # who hangs up, and when
        "closes": says(closes=True),
        "resets": resets(),
        "resets in the headers": resets(JSON),
        "resets in the body": resets(JSON + b"Content-Length: 99\r\n\r\n{"),
        "closes after the reply": says(whole(TRUE), closes=True),
        "resets after the reply": resets(whole(TRUE)),
        # answers that nobody asked for
        "surplus at once": says(surplus),
        "surplus soon after": says(whole(TRUE), FORGED, pause_s=0.01),
        "surplus without a body": says(b"HTTP/1.1 204 No Content\r\n\r\n" + FORGED),
        "surplus in two": says(whole(TRUE) + FORGED[:20], FORGED[20:], pause_s=0.01),
        "surplus interim": says(whole(TRUE) + b"HTTP/1.1 100 Continue\r\n\r\n" + FORGED),
    }


async def serve(reader: asyncio.StreamReader, writer: Writer, known: dict[str, Hostility]) -> None:
    """One connection, for as long as it lasts."""
    with contextlib.suppress(OSError, EOFError, ssl.SSLError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1]) if length else 0)
            asked = ASKED.search(body)
            assert asked is not None, body
            row, what = asked[1].decode(), asked[2].decode()
            if what == "well":
                await asyncio.sleep(0.01)
                writer.write(whole(completion(f"row {row}")))
            else:
                await known[what](writer)
    writer.close()


async def main() -> None:
    """Serve until stdin closes."""
    known = hostilities()

    async def connected(reader: asyncio.StreamReader, writer: Writer) -> None:
        await serve(reader, writer, known)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    sys.stdout.write(f"{listening.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
