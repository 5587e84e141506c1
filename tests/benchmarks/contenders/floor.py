"""The floor: protocol callbacks, no task a row, the bytes that cometbatch sends, HTTP parsed by hand, no file written.

Every answer is decoded and checked as it arrives; only the number of right ones is written, at the end. Nothing that a
run needs is in it: no retry, no limits, no time-out, no usage and no price, and no status is looked at.
"""

import argparse
import asyncio
import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\ncontent-type: application/json\r\n"
    "authorization: Bearer sk-needed-by-nobody\r\naccept-encoding: identity\r\nAccept: */*\r\nContent-Length: "
)
PREFIX = b'{"model":"m","messages":[{"role":"system","content":"Answer in one word."},{"role":"user","content":'
SUFFIX = b'}],"max_completion_tokens":64}'
END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"Content-Length: "


class Message(msgspec.Struct):
    """What is said."""

    content: str


class Choice(msgspec.Struct):
    """One of them, of one."""

    message: Message


class Answer(msgspec.Struct):
    """As much of a reply as is needed."""

    choices: list[Choice]


decode = msgspec.json.Decoder(Answer).decode


class Table:
    """The rows that are still to be sent, and how many were answered right."""

    def __init__(self, source: str, host: str) -> None:
        self.right = 0
        self.lines = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = HEAD.format(host=host).encode()
        self.requests = self._read(source)

    def _read(self, source: str) -> Iterator[tuple[bytes, str]]:
        with open(source, encoding="utf-8", newline="") as file:  # noqa: PTH123 # as scripts do
            for _, question in list(csv.reader(file))[1:]:
                content = json.dumps(question).encode()
                body = PREFIX + content + SUFFIX
                yield b"%b%d\r\n\r\n%b" % (self._head, len(body), body), question

    def ended(self) -> None:
        """One connection has no more to do."""
        self.lines -= 1
        if not self.lines and not self.done.done():
            self.done.set_result(None)


class Line(asyncio.Protocol):
    """One connection, which sends a row as soon as the one before is answered."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._rest = b""
        self._question = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._table.lines += 1
        self._send()

    def data_received(self, data: bytes) -> None:
        """An answer, or a piece of one."""
        data = self._rest + data if self._rest else data
        head_end = data.find(END_OF_HEAD)
        if head_end >= 0:
            at = data.index(LENGTH) + len(LENGTH)
            body_at = head_end + len(END_OF_HEAD)
            if len(data) >= body_at + int(data[at : data.index(b"\r", at)]):
                self._rest = b""
                (choice,) = decode(data[body_at:]).choices
                self._table.right += choice.message.content == self._question
                self._send()
                return
        self._rest = data

    def connection_lost(self, exc: Exception | None) -> None:
        """The row on it, if there was one, has no answer."""
        self._table.ended()

    def _send(self) -> None:
        request = next(self._table.requests, None)
        if request is None:
            self._transport.close()
        else:
            head_and_body, self._question = request
            self._transport.write(head_and_body)


async def main(base_url: str, source: str, concurrency: int) -> int:
    """How many rows were answered right."""
    address = urlsplit(base_url)
    table = Table(source, address.netloc)
    loop = asyncio.get_running_loop()
    opened = (loop.create_connection(lambda: Line(table), address.hostname, address.port) for _ in range(concurrency))
    await asyncio.gather(*opened)
    await table.done
    return table.right


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    given = parser.parse_args()
    right = asyncio.run(main(given.base_url, given.input, given.concurrency))
    given.output.write_text(json.dumps({"right": right}), encoding="utf-8")
