"""A real coordinator behind lines that are late and lose messages, on virtual time."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from cometbatch.control.coordination.coordinator import Coordinator
from cometbatch.control.coordination.messages import Drive, Driven, Reply, Request, decode_reply, encode
from cometbatch.control.coordination.settings import Settings
from cometbatch.engines.hosting import Host
from cometbatch.engines.line import LineClosedError, LineError
from cometbatch.results import tallies

DRIVE_S = 0.5


class Coordinated:
    """A coordinator and its driver. `settings`: what it is told of the run, beside the session's number."""

    def __init__(self, ranges: Sequence[int], **settings: Any) -> None:
        self.coordinator = Coordinator(Settings(**settings), ranges, tallies.add)
        self.host = Host(self.coordinator, asyncio.get_running_loop().time)
        self.driven: list[Driven] = []
        self.word = Drive()

    async def drive(self) -> None:
        """The driver's word, as long as this is not cancelled."""
        while True:
            await self.say()
            await asyncio.sleep(DRIVE_S)

    async def say(self) -> Driven:
        """The driver's word now."""
        self.driven.append(await self.host.drive(self.word))
        return self.driven[-1]


class HostLine:
    """One owner's line. `delay_s`: of a message, each way; `loses`: the share of messages that get lost, each way."""

    def __init__(self, coordinated: Coordinated, *, delay_s: float = 0.001, loses: float = 0.0, seed: int = 0) -> None:
        self.is_cut = False  # nothing passes, and who asks is told so after a while
        self.is_closed = False
        self.sent: list[tuple[float, Request]] = []
        self._host = coordinated.host
        self._delay_s, self._loses = delay_s, loses
        self._chance = random.Random(seed)

    async def ask(self, request: Request) -> Reply:
        """As `Line` has it."""
        await self._travel()
        self.sent.append((asyncio.get_running_loop().time(), request))
        content = await self._host.handle(encode(request))
        await self._travel()
        return decode_reply(content)

    async def _travel(self) -> None:
        if self.is_closed:
            raise LineClosedError("closed")
        await asyncio.sleep(self._delay_s * self._chance.uniform(0.5, 1.5))
        if self.is_cut or self._chance.random() < self._loses:
            await asyncio.sleep(0.5)
            raise LineError("no answer")
