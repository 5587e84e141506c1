"""A model service written by hand, for tests with real processes: it shares no code with what it tests.

It speaks the four formats (contract sheet, sections 2 to 5), answers every prompt with words that derive from the
prompt alone, and counts for each row how often it was asked and how often it answered, whether or not anyone was left
to read that. Runs in a thread of its own.
"""

import asyncio
import json
import random
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

MODEL = "stub-1"
INPUT_PRICE, OUTPUT_PRICE = "0.3", "1.7"  # US dollars per million tokens
POLL_S = 0.002
PARCEL = re.compile(r"Parcel (\d+)")
REASONS = {200: "OK", 401: "Unauthorized", 403: "Forbidden", 429: "Too Many Requests", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Trouble:
    """Shares of requests that go wrong. A reset comes before any answer, so it bills nothing."""

    reset: float = 0.0
    pushback: float = 0.0  # 429
    overload: float = 0.0  # 503
    slow: float = 0.0  # this many times the longest latency
    refuse_key: bool = False  # 401 for everyone
    credit: int | None = None  # answers that the balance pays for; beyond them comes 403


@dataclass(frozen=True)
class Said:
    """The answer to a prompt, and what it takes: inclusive totals."""

    text: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int


def answer_to(system: str, user: str) -> Said:
    """What the stub says to this prompt."""
    said = f"On “{user[:20]}”: {zlib.crc32(user.encode()):08x}"
    asked = len(system) + len(user)
    return Said(said, asked, len(said) + len(user) % 7, asked // 3, len(user) % 7)


@dataclass
class StubServer:
    """Serves on 127.0.0.1 for the length of a `with` block.

    `echo` is put into every reply, in headers, answers and errors, as a careless service would quote a key. `models`:
    which are known, in the chat format; where there are several, an answer derives from the model's name, too.
    `admits`: of some models how many requests each second gets at most; the others are told to slow down. `slower`: of
    some, how many times as long they take. `calls` counts answers by model, temperature and row.
    """

    trouble: Trouble = field(default_factory=Trouble)
    latency_s: tuple[float, float] = (0.0, 0.0)
    echo: str = ""
    seed: int = 0
    models: tuple[str, ...] = (MODEL,)
    admits: dict[str, int] = field(default_factory=dict)
    slower: dict[str, float] = field(default_factory=dict)
    asked: Counter[int] = field(default_factory=Counter)
    answered: Counter[int] = field(default_factory=Counter)
    calls: Counter[tuple[str, float | None, int]] = field(default_factory=Counter)
    admitted: Counter[tuple[str, int]] = field(default_factory=Counter)
    base_url: str = ""

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    @property
    def requests(self) -> int:
        """How many prompts came in."""
        return self.asked.total()

    @property
    def wasted(self) -> int:
        """How many answers were given for rows that had one."""
        return self.answered.total() - len(self.answered)

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._end.wait()
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the other end is gone, or we are
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply; false where the connection was cut instead."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, _ = head.split(" ", 2)
        length = re.search(r"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        body = await reader.readexactly(int(length[1])) if length else b""
        if method == "GET":
            self._send(writer, 200, self._catalog() if path == "/api/models" else {})
            return True
        return await self._generate(path, json.loads(body), writer)

    async def _generate(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        reply, system, user = SPOKEN[next(end for end in SPOKEN if path.endswith(end))](body)
        row = int(found[1]) if (found := PARCEL.search(user)) else -1
        self.asked[row] += 1
        lot, trouble = self._chance.random(), self.trouble
        if trouble.refuse_key:
            self._send(writer, 401, self._error(f"Incorrect API key provided: {self.echo}", "invalid_api_key"))
            return True
        if trouble.credit is not None and self.answered.total() >= trouble.credit:
            self._send(writer, 403, self._error(f"user quota is not enough {self.echo}", "insufficient_user_quota"))
            return True
        model = str(body.get("model", MODEL))
        if model in self.admits:
            second = int(time.monotonic())
            if self.admitted[model, second] >= self.admits[model]:
                self._send(writer, 429, self._error("too many requests", "rate_limit_exceeded"))
                return True
            self.admitted[model, second] += 1
        for share, status in ((trouble.reset, 0), (trouble.pushback, 429), (trouble.overload, 503)):
            if lot < share:
                if status:
                    self._send(writer, status, self._error(f"try again later {self.echo}", ""))
                return status > 0
            lot -= share
        times = (5 if lot < trouble.slow else 1) * self.slower.get(model, 1.0)
        await asyncio.sleep(self._chance.uniform(*self.latency_s) * times)
        said = answer_to(system, user if len(self.models) == 1 else f"{model}: {user}")
        self.answered[row] += 1
        self.calls[model, body.get("temperature"), row] += 1
        self._send(writer, 200, reply(said, said.text + self.echo))
        await writer.drain()
        return True

    def _error(self, message: str, code: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": "comet_api_error", "code": code}}

    def _catalog(self) -> dict[str, Any]:
        prices = {"currency": "USD / M Tokens", "input": float(INPUT_PRICE), "output": float(OUTPUT_PRICE)}
        common = {"name": self.echo, "model_type": "text", "pricing": prices}
        models = [{"id": model, "code": model, **common} for model in self.models]
        return {"success": True, "page": 0, "page_size": 0, "total": len(models), "data": models}

    def _send(self, writer: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        head = [f"HTTP/1.1 {status} {REASONS[status]}", "Content-Type: application/json"]
        head += [f"X-Cometapi-Request-Id: id-{self.echo}", f"X-Echo: Bearer {self.echo}"]
        head.append(f"Content-Length: {len(content)}")
        writer.write("\r\n".join([*head, "", ""]).encode() + content)


Reply = Callable[[Said, str], dict[str, Any]]
"""From what is said, and the text to put it in, to a body."""


def _chat(body: dict[str, Any]) -> tuple[Reply, str, str]:
    system, user = body["messages"]
    model = body["model"]
    assert (system["role"], user["role"], model[:5]) == ("system", "user", MODEL[:5])

    def reply(said: Said, text: str) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "model": model,
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": said.input_tokens,
                "completion_tokens": said.output_tokens,
                "prompt_tokens_details": {"cached_tokens": said.cached_tokens},
                "completion_tokens_details": {"reasoning_tokens": said.reasoning_tokens},
            },
        }

    return reply, system["content"], user["content"]


def _responses(body: dict[str, Any]) -> tuple[Reply, str, str]:
    turns = body["input"]
    user = (
        turns
        if isinstance(turns, str)
        else "".join(_words(turn["content"]) for turn in turns if turn["role"] == "user")
    )
    system = body.get("instructions") or "".join(_words(turn["content"]) for turn in turns if turn["role"] == "system")

    def reply(said: Said, text: str) -> dict[str, Any]:
        return {
            "id": "resp_1",
            "status": "completed",
            "model": MODEL,
            "output": [
                {"type": "reasoning", "summary": []},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]},
            ],
            "usage": {
                "input_tokens": said.input_tokens,
                "input_tokens_details": {"cached_tokens": said.cached_tokens},
                "output_tokens": said.output_tokens,
                "output_tokens_details": {"reasoning_tokens": said.reasoning_tokens},
            },
        }

    return reply, system, user


def _messages(body: dict[str, Any]) -> tuple[Reply, str, str]:
    assert body["max_tokens"] > 0

    def reply(said: Said, text: str) -> dict[str, Any]:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": [{"type": "thinking", "thinking": "not for you"}, {"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "usage": {
                "input_tokens": said.input_tokens - said.cached_tokens,  # what the cache served comes on top here
                "cache_read_input_tokens": said.cached_tokens,
                "output_tokens": said.output_tokens,
            },
        }

    return reply, _words(body["system"]), "".join(_words(turn["content"]) for turn in body["messages"])


def _gemini(body: dict[str, Any]) -> tuple[Reply, str, str]:
    def reply(said: Said, text: str) -> dict[str, Any]:
        return {
            "candidates": [
                {
                    "content": {"role": "model", "parts": [{"text": "not for you", "thought": True}, {"text": text}]},
                    "finishReason": "STOP",
                }
            ],
            "usageMetadata": {
                "promptTokenCount": said.input_tokens,
                "cachedContentTokenCount": said.cached_tokens,
                "candidatesTokenCount": said.output_tokens - said.reasoning_tokens,  # thoughts are counted beside
                "thoughtsTokenCount": said.reasoning_tokens,
            },
        }

    return reply, _words(body["systemInstruction"]["parts"]), _words(body["contents"][0]["parts"])


def _words(content: str | list[dict[str, str]]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


SPOKEN = {
    "/v1/chat/completions": _chat,
    "/v1/responses": _responses,
    "/v1/messages": _messages,
    f"/v1beta/models/{MODEL}:generateContent": _gemini,
}
"""How each route's request is read: to the shape of the reply, the system's words and the user's."""


def wait_until(is_so: Callable[[], bool], what: str, *, limit_s: float = 30.0) -> None:
    """Poll a real process's progress. Fails where it takes longer than the limit."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(POLL_S)
