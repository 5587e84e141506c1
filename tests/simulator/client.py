"""A client in one's hands: a simulator without a socket, and time that passes only when someone sleeps."""

import asyncio
import json
from typing import Any

import httpx
from msgspec import Struct

from cometbatch.records import Completion, ErrorDetail, GenerationParams, HttpRequest, HttpResponse, Message, Prompt
from cometbatch.simulator.app import Simulator, create_app
from cometbatch.simulator.behaviour import Behaviour
from cometbatch.wire import FORMATS
from tests.wire.strategies import request_of

KEY = "sk-0123456789"
BEARER = {"authorization": f"Bearer {KEY}"}


class VirtualTime:
    """A clock that sleeping moves, and a list of the sleeps."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.seconds += seconds


class Heard(Struct):
    """A reply, and what the client half of its format reads in it."""

    status: int
    headers: dict[str, str]
    body: bytes
    parsed: Completion | ErrorDetail

    @property
    def completion(self) -> Completion:
        assert isinstance(self.parsed, Completion), self.parsed
        return self.parsed

    @property
    def error(self) -> ErrorDetail:
        assert isinstance(self.parsed, ErrorDetail), self.parsed
        return self.parsed

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a simulator of its own, in any format; no real time passes."""

    def __init__(self, behaviour: Behaviour | None = None, **settings: Any) -> None:
        self.time = VirtualTime()
        self.app: Simulator = create_app(behaviour or Behaviour(**settings), sleep=self.time.sleep, now=self.time.now)

    def send(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] = BEARER) -> httpx.Response:
        async def sent() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://simulator") as client:
                return await client.request(method, path, content=body, headers=headers)

        return asyncio.run(sent())

    def ask(
        self, words: str = "Is the sky blue?", *, wire: str = "chat", model: str = "comet-sim-1", **p: Any
    ) -> Heard:
        """Ask one question; `p` are generation parameters."""
        request = asked(words, wire=wire, model=model, **p)
        reply = self.send("POST", request.path, request.body, {**request.headers, **BEARER})
        return heard(wire, HttpResponse(reply.status_code, dict(reply.headers), reply.content))

    def ledger(self) -> Any:
        return self.send("GET", "/simulator/ledger", headers={}).json()


def asked(words: str, *, wire: str = "chat", model: str = "comet-sim-1", **params: Any) -> HttpRequest:
    """The request that a run would send for these words."""
    prompt = Prompt(
        (Message.of_text("system", "Be brief."), Message.of_text("user", words)), GenerationParams(**params)
    )
    return request_of(FORMATS[wire], model, prompt)


def heard(wire: str, response: HttpResponse) -> Heard:
    """What a run would read in this reply."""
    return Heard(response.status, response.headers, response.body, FORMATS[wire].parse_response(response))
