"""A server that costs next to nothing, so that what is measured is the client: echoes each row after a set time.

    python -m tests.benchmarks.stub --latency 0.05 --spread 0.025

Says its port in its first line, "asked" at the first request, "silent" once it answers no more, and ends when its stdin
closes, with one JSON object: how many it answered, in how many seconds, and the CPU that these took.

Understands just what clients of Chat Completions send: requests with a content-length, one after the other on each
connection. The answer quotes the last message, so that every answer can be checked, in a body of about 630 bytes.
Answers that are due in the same millisecond go out together.
"""

import argparse
import asyncio
import contextlib
import json
import random
import ssl
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import cast

TICK_S = 0.001
END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"content-length:"
CONTENT = b'"content":'
BODY = json.dumps(
    {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "created": 1774412483,
        "model": "stub-1-2026-03-17",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "@", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 29,
            "completion_tokens": 12,
            "total_tokens": 41,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_490a4ad033",
    }
).encode()
BEFORE, AFTER = BODY.split(b"@")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Cometapi-Request-Id: 20260617165550885561\r\n"


class Stub:
    """What all connections share: when which answers are due."""

    def __init__(self, latency_s: float, spread_s: float, most: int) -> None:
        self._latency_s, self._spread_s, self._most = latency_s, spread_s, most
        self.answered = 0
        self.first_asked_s = 0.0
        self.last_answered_s = 0.0
        self._start_cpu_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._due: defaultdict[int, list[tuple[asyncio.WriteTransport, bytes]]] = defaultdict(list)

    def answer(self, line: asyncio.WriteTransport, content: bytes) -> None:
        """Say this on a connection, in time."""
        self.answered += 1
        if self.answered == 1:
            self.first_asked_s, self._start_cpu_s = self._loop.time(), time.process_time()
            _say("asked")
        if self.answered > self._most:
            if self.answered == self._most + 1:
                _say("silent")
            return
        length = len(BEFORE) + len(content) + len(AFTER)
        reply = b"%bContent-Length: %d\r\n\r\n%b%b%b" % (HEAD, length, BEFORE, content, AFTER)
        if not self._latency_s:
            line.write(reply)
            self.last_answered_s = self._loop.time()
            return
        delay_s = self._latency_s + self._spread_s * (2 * random.random() - 1)
        tick = int((self._loop.time() + delay_s) / TICK_S) + 1
        if tick not in self._due:
            self._loop.call_at(tick * TICK_S, self._send, tick)
        self._due[tick].append((line, reply))

    def _send(self, tick: int) -> None:
        for line, reply in self._due.pop(tick):
            if not line.is_closing():
                line.write(reply)
        self.last_answered_s = self._loop.time()

    def to_dict(self) -> dict[str, float]:
        """What it did, JSON-ready."""
        return {
            "answered": min(self.answered, self._most),
            "busy_s": self.last_answered_s - self.first_asked_s,
            "cpu_s": time.process_time() - self._start_cpu_s,
        }


class Connection(asyncio.Protocol):
    """Cuts what arrives into requests."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._line: asyncio.WriteTransport | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._line = cast("asyncio.WriteTransport", transport)  # as uvloop's is, too, without saying so

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        data = self._rest + data if self._rest else data
        while (head_end := data.find(END_OF_HEAD)) >= 0:
            at = data.lower().find(LENGTH, 0, head_end) + len(LENGTH)
            end = head_end + len(END_OF_HEAD) + int(data[at : data.find(b"\r\n", at)])
            if len(data) < end:
                break
            self._answer(data[head_end:end])
            data = data[end:]
        self._rest = data

    def _answer(self, body: bytes) -> None:
        start = body.rfind(CONTENT) + len(CONTENT)
        start = body.index(b'"', start) + 1
        assert self._line is not None
        self._stub.answer(self._line, body[start : body.index(b'"', start)])


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def encrypted(folder: Path) -> ssl.SSLContext:
    """TLS with a certificate for 127.0.0.1, by an authority of its own: `ca.pem` in the folder."""
    import trustme  # noqa: PLC0415 - takes long to load, and most runs speak no TLS

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def main(latency_s: float, spread_s: float, most: int, tls: Path | None) -> None:
    """Serve until stdin closes."""
    stub = Stub(latency_s, spread_s, most)
    loop = asyncio.get_running_loop()
    context = None if tls is None else encrypted(tls)
    listening = await loop.create_server(lambda: Connection(stub), "127.0.0.1", 0, backlog=4096, ssl=context)
    _say(str(listening.sockets[0].getsockname()[1]))
    await asyncio.to_thread(sys.stdin.read)
    _say(json.dumps(stub.to_dict()))


if __name__ == "__main__":
    with contextlib.suppress(ImportError):  # twice as fast where it is there
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    parser = argparse.ArgumentParser(description="A server that costs next to nothing.")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that an answer takes (0)")
    parser.add_argument("--spread", type=float, default=0.0, help="seconds that it may take more or less (0)")
    parser.add_argument("--most", type=int, default=sys.maxsize, help="requests that it answers; later ones wait")
    parser.add_argument("--tls", type=Path, metavar="FOLDER", help="speak TLS; the authority's certificate goes there")
    given = parser.parse_args()
    asyncio.run(main(given.latency, given.spread, given.most, given.tls))
