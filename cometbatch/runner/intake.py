"""Where calls come from that were not sent yet: the source of calls, and those that wait for one that asks the same."""

import asyncio
from collections.abc import Callable
from typing import Final

from cometbatch.control.attribution import HeldFailures
from cometbatch.records import Answered, CallRequest, Outcome
from cometbatch.results.columns import OUTCOMES
from cometbatch.runner.asks import Asks
from cometbatch.runner.books import Books
from cometbatch.runner.ports import Calls
from cometbatch.runner.slots import OpenCall
from cometbatch.runner.twins import MAX_WAITING, Twins

PASSED_AT_ONCE: Final = 256
"""Calls in a row that are not sent, since others ask the same. Then replies get their turn."""


class Intake:
    """Hands out fresh calls, and records the outcomes of those that are not sent.

    `twins`: the calls that wait for one that asks the same; None where each is sent. `max_backlog`: where more calls
    wait for another attempt, no fresh one is handed out. `is_idle`: whether nothing is in flight. `advance` is called
    when what was waited for is there. `fail` takes the error of a source that has no more calls because of it.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        books: Books,
        asks: Asks,
        held: HeldFailures[OpenCall],
        twins: Twins | None,
        max_backlog: int,
        is_idle: Callable[[], bool],
        advance: Callable[[], None],
        fail: Callable[[Exception], None],
    ) -> None:
        self.is_exhausted = False  # the source of calls has no more
        self.is_closed = False
        self._calls = calls
        self._books = books
        self._asks = asks
        self._held = held
        self._twins = twins
        if twins is not None:
            twins.advance = advance
        self._max_backlog = max_backlog
        self._is_idle = is_idle
        self._advance = advance
        self._fail = fail
        self._reading: asyncio.Task[CallRequest | Outcome | None] | None = None

    @property
    def is_reading(self) -> bool:
        """Whether the source of calls is being asked for the next one."""
        return self._reading is not None

    @property
    def is_under_way(self) -> bool:
        """Whether the source of calls is being asked, or answers are being looked up."""
        return self._reading is not None or (self._twins is not None and self._twins.is_looking)

    @property
    def is_busy(self) -> bool:
        """Whether calls will come without anything else that has to come to its end."""
        return self._reading is not None or (self._twins is not None and self._twins.is_busy)

    def next_fresh(self, now: float) -> OpenCall | None:
        """A call that was not sent yet; `None` where it has to be read first, or where enough wait already."""
        twins = self._twins
        if twins is not None and (freed := self._next_freed(twins)) is not None:
            return OpenCall(freed, now)
        backlog = self._asks.backlog
        waiting = len(backlog) - backlog.long_waits
        if (self.is_exhausted and twins is None) or self._reading is not None or waiting >= self._max_backlog:
            return None
        passed = 0
        while (twins is None or twins.has_room) and (fresh := self._ready_call()) is not None:
            if twins is not None and not self._is_to_send(fresh, twins):
                passed += 1
                if passed == PASSED_AT_ONCE:
                    asyncio.get_running_loop().call_soon(self._advance)
                    return None
                continue
            call = self._asks.open(fresh, now) if self._asks.recorded else OpenCall(fresh, now)
            if call is not None:
                return call
        if self.is_closed or (twins is not None and not twins.has_room):
            return None
        return self._read(now)

    def goes_on(self, call: OpenCall) -> bool:
        """Whether a call that was sent before is to be sent again: not if its like was answered meanwhile."""
        return self._twins is None or self._twins.goes_on(call)

    def close(self) -> None:
        """Read no more."""
        self.is_closed = True
        if self._reading is not None:
            self._reading.cancel()
        if self._twins is not None:
            self._twins.close()

    async def aclose(self) -> None:
        """Wait for the tasks that read, once they are cancelled."""
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._twins is not None:
            await self._twins.aclose()

    def _next_freed(self, twins: Twins) -> CallRequest | None:
        """A call whose like has failed. What was found for others is recorded."""
        for outcome in twins.found:
            self._books.add(outcome)
        twins.found.clear()
        if twins.error is not None:
            error, twins.error = twins.error, None
            self._fail(error)
        return twins.freed.popleft() if twins.freed and not self.is_closed else None

    def _ready_call(self) -> CallRequest | None:
        if self.is_exhausted:
            return None
        try:
            while isinstance(fresh := self._calls.ready_call(), OUTCOMES):
                self._record(fresh)
        except Exception as error:  # noqa: BLE001 - raised by `run`, once what is in flight is recorded
            self._fail(error)
            return None
        return fresh

    def _read(self, now: float) -> OpenCall | None:
        """Read the next calls. Where held ones take all the room, a call that waits for one of these goes first."""
        if not self.is_exhausted and self._calls.has_room:
            self._begin_to_read()
        elif self._is_stuck():
            is_held = self._held.any or self._asks.holds
            twins = self._twins
            is_twin_due = twins is not None and (is_held or twins.waiting > MAX_WAITING)
            if twins is not None and is_twin_due and (call := twins.next_waiting()) is not None:
                return OpenCall(call, now)
            if not self.is_exhausted:
                self._begin_to_read()
        return None

    def _begin_to_read(self) -> None:
        self._reading = asyncio.get_running_loop().create_task(_next_of(self._calls))
        self._reading.add_done_callback(self._has_read)

    def _is_stuck(self) -> bool:
        """Whether nothing goes on without more calls, since those that are held, or asked to wait, take all the room.

        Only further calls can explain what is held, and calls that wait for long shall not hold up the others.
        """
        backlog = self._asks.backlog
        is_held = self._held.any or self._asks.holds
        is_waiting = (is_held or backlog.long_waits > 0) and len(backlog) == backlog.long_waits
        return is_waiting and self._is_idle() and not self.is_busy and not self._calls.settling

    def _has_read(self, reading: "asyncio.Task[CallRequest | Outcome | None]") -> None:
        """The source has a call, or had no more, or is broken."""
        self._reading = None
        if reading.cancelled():
            if not self.is_closed:
                self._fail(RuntimeError("the run's own task was cancelled by somebody else"))
        elif isinstance(error := reading.exception(), Exception):
            self._fail(error)
        else:
            self._take(reading.result())
        self._advance()

    def _take(self, fresh: CallRequest | Outcome | None) -> None:
        if fresh is None:
            self.is_exhausted = True
        elif isinstance(fresh, OUTCOMES):
            self._record(fresh)
        elif self._twins is None or self._is_to_send(fresh, self._twins):
            now = asyncio.get_running_loop().time()
            if (call := self._asks.open(fresh, now)) is not None:
                self._asks.backlog.put(call, now)

    def _is_to_send(self, fresh: CallRequest, twins: Twins) -> bool:
        """Whether a call is sent by itself: it has asks of its own, or no other has asked the same."""
        if fresh.ordinal in self._asks.recorded:
            twins.note_own(fresh)
            return True
        return twins.admits(fresh)

    def _record(self, outcome: Outcome) -> None:
        """The outcome of a call that is not sent: it can't be, or an earlier run was answered the same."""
        self._books.add(outcome)
        if self._twins is not None and isinstance(outcome, Answered):
            self._twins.note_taken(outcome)


async def _next_of(calls: Calls) -> CallRequest | Outcome | None:
    return await calls.next_call()
