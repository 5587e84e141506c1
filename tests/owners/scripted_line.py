"""A coordinator that follows a script: leases as the test says, ranges one at a claim; and what it was told."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

from cometbatch.control.coordination.messages import (
    Assigned,
    Claim,
    Claimed,
    Commit,
    Join,
    Lease,
    Leave,
    News,
    Renew,
    Reply,
    Request,
    StopOrder,
    Verdict,
    Watch,
    decode_reply,
    decode_request,
    encode,
)
from cometbatch.engines.line import LineClosedError, LineError

R = TypeVar("R", bound=Request)
WATCH_S = 1.0


class ScriptedCoordinator:
    """Answers one owner or several. `lease`: what each lease is made of; changed, it holds from the next one on."""

    def __init__(self, ranges: Iterable[int], **lease: object) -> None:
        self.fields: dict[str, object] = {"valid_s": 1.0, "ceiling": 64, **lease}
        self.heard: list[tuple[float, Request]] = []
        self.free = list(ranges)
        self.held: dict[int, int] = {}  # range: owner
        self.stops: tuple[StopOrder, ...] = ()
        self.lost: set[int] = set()
        self.is_silent = False  # nothing is answered, and each asks for ever
        self.is_closed = False
        self.delay_s = 0.001
        self.loses: Callable[[Request], bool] = lambda _: False  # the answer to this message never comes
        self.news = News(0)
        self._leases = 0
        self._given: dict[tuple[int, int], Claimed] = {}
        self._changed = asyncio.Condition()

    async def tell(self, news: News) -> None:
        """Whoever watches hears this."""
        self.news = news
        async with self._changed:
            self._changed.notify_all()

    def told(self, kind: type[R]) -> list[R]:
        """What was heard of one kind."""
        return [message for _, message in self.heard if isinstance(message, kind)]

    async def ask(self, request: Request) -> Reply:
        """As `Line` has it; everything travels as bytes."""
        if self.is_closed:
            raise LineClosedError("closed")
        await asyncio.sleep(self.delay_s)
        while self.is_silent:  # noqa: ASYNC110 - a test says so at its own time
            await asyncio.sleep(0.05)
        self.heard.append((asyncio.get_running_loop().time(), request))
        reply = await self._answer(decode_request(encode(request)))
        await asyncio.sleep(self.delay_s)
        if self.is_closed:
            raise LineClosedError("closed")
        if self.loses(request):
            raise LineError("lost")
        return decode_reply(encode(reply))

    async def _answer(self, request: Request) -> Reply:
        is_lost = request.owner in self.lost
        match request:
            case Join() | Renew():
                self._close(request.owner, request.closed if isinstance(request, Renew) else ())
                self._leases += 1
                # The struct checks its fields; the type checker can't.
                return Lease(self._leases, stops=self.stops, is_lost=is_lost, **self.fields)  # type: ignore[arg-type]
            case Claim():
                self._close(request.owner, request.closed)
                again = (request.owner, request.after)  # its answer was lost
                if again not in self._given:
                    claimed = self._claimed(request.owner, is_lost=is_lost)
                    if not claimed.ranges:
                        return claimed
                    self._given[again] = claimed
                return self._given[again]
            case Watch():
                async with self._changed:
                    if self.news.number <= request.seen:
                        with_timeout = asyncio.wait_for(self._changed.wait(), WATCH_S)
                        await asyncio.gather(with_timeout, return_exceptions=True)
                return self.news
            case Leave():
                self._close(request.owner, request.closed)
                return Verdict()
            case _:
                return Verdict(is_lost=is_lost)

    def _claimed(self, owner: int, *, is_lost: bool) -> Claimed:
        if is_lost:
            return Claimed(is_lost=True)
        if self.free:
            number = self.free.pop(0)
            self.held[number] = owner
            return Claimed((Assigned(number),))
        return Claimed(is_over=all(holder == owner for holder in self.held.values()))

    def _close(self, owner: int, closed: Iterable[int]) -> None:
        for each in closed:
            if self.held.get(each) == owner:
                del self.held[each]


def commits(coordinator: ScriptedCoordinator) -> list[int]:
    """Partitions of which it was asked whether they may become parts."""
    return [each.index for each in coordinator.told(Commit)]
