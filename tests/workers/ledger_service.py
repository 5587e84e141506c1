"""A model service in a process of its own that writes down each request.

When it came, on which connection, for which row, and whether it was answered. It shares no code with what it tests.

    python -m tests.workers.ledger_service --latency 0.5 --limit 0

prints its address in its first line, and ends when its standard input is closed. `GET /ledger` is all that it knows.
Times are seconds of CLOCK_MONOTONIC, which all processes of a machine share.
"""

import argparse
import asyncio
import json
import re
import sys
import time
from typing import Any

ROW = re.compile(rb"Parcel (\d+)")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
INPUT_TOKENS, OUTPUT_TOKENS = 100, 50


class Book:
    """What came in. `requests`: time, connection, row, status; the status of one under way is 0."""

    def __init__(self, latency_s: float, limit: int, retry_after_s: float) -> None:
        self.latency_s = latency_s
        self.limit = limit  # answers begun in each second of the clock; 0 is no limit
        self.retry_after_s = retry_after_s
        self.requests: list[list[float]] = []
        self.opened: list[float] = []  # when each connection was opened
        self.ports: list[int] = []
        self._second = (0, 0)

    def admits(self, now: float) -> bool:
        """Whether one more fits into this second."""
        second, count = self._second
        if second != int(now):
            second, count = int(now), 0
        self._second = (second, count + 1)
        return not self.limit or count < self.limit


class Connection(asyncio.Protocol):
    """One connection, on which requests come one after the other."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._data = b""
        self._number = -1
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Note when it was opened."""
        self._transport = transport
        self._number = len(self._book.opened)
        self._book.opened.append(time.monotonic())
        self._book.ports.append(transport.get_extra_info("peername")[1])

    def data_received(self, data: bytes) -> None:
        """Take each whole request."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self._data, 0, end + 2)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._data) < whole:
                return
            request, self._data = self._data[:whole], self._data[whole:]
            self._take(request)

    def _take(self, request: bytes) -> None:
        now, book = time.monotonic(), self._book
        if request.startswith(b"GET"):
            path = request.split(b" ", 2)[1]
            known: dict[str, Any] = {"requests": book.requests, "opened": book.opened, "ports": book.ports}
            self._send(200, known if path == b"/ledger" else {})
            return
        row = int(found[1]) if (found := ROW.search(request)) else -1
        entry = [now, self._number, row, 0]
        book.requests.append(entry)
        if not book.admits(now):
            entry[3] = 429
            wait = f"Retry-After: {book.retry_after_s:g}\r\n" if book.retry_after_s else ""
            self._send(429, {"error": {"message": "too many requests", "code": "rate_limit_exceeded"}}, wait)
            return
        asyncio.get_running_loop().call_later(book.latency_s, self._answer, entry, row)

    def _answer(self, entry: list[float], row: int) -> None:
        entry[3] = 200
        message = {"role": "assistant", "content": f"answer {row}"}
        usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS}
        choice = {"message": message, "finish_reason": "stop"}
        self._send(200, {"id": "chatcmpl-1", "model": "stub-1", "choices": [choice], "usage": usage})

    def _send(self, status: int, body: dict[str, Any], more: str = "") -> None:
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\n{more}Content-Length: {len(content)}\r\n\r\n"
        if not self._transport.is_closing():
            self._transport.write(head.encode() + content)


async def serve(book: Book) -> None:
    """Serve until standard input is closed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(book), "127.0.0.1", 0)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--retry-after", type=float, default=0.0)
    told = parser.parse_args()
    asyncio.run(serve(Book(told.latency, told.limit, told.retry_after)))
