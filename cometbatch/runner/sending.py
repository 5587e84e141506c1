"""What leaves, and when: one way to get a call, one way to let it pass, one way to send it.

`send_ready` sends until something has to be waited for: a slot, the window, the budget, a limit, a call that is due,
room, or the input. Whatever it waits for calls it again: a turn, a timer, or the source of calls. So nothing here waits
in a task of its own, but for the one that reads the input.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Literal

from cometbatch.control.attribution import HeldFailures
from cometbatch.control.pause import SharedPause
from cometbatch.control.window import ConcurrencyWindow
from cometbatch.limiting.limits import Limits
from cometbatch.records import CallRequest, Outcome
from cometbatch.results.columns import OUTCOMES
from cometbatch.runner.asks import Asks
from cometbatch.runner.books import Books
from cometbatch.runner.ports import Calls, ExchangeResult, Policy, Service, Stop
from cometbatch.runner.slots import OpenCall, Slot

BACKLOG_PER_SLOT = 4  # calls waiting for another attempt, for each slot; where there are more, no fresh call is read


class Sender:
    """Slots, the backlog, and what a call has to pass before it leaves.

    `advance` is called when what was waited for is there, and has to call `send_ready`.
    """

    def __init__(
        self,
        calls: Calls,
        service: Service,
        *,
        policy: Policy,
        limits: Limits,
        window: ConcurrencyWindow | None,
        books: Books,
        held: HeldFailures[OpenCall],
        asks: Asks,
        arrive: Callable[[Slot, ExchangeResult], None],
        advance: Callable[[], None],
        stop: Callable[[Stop], None],
    ) -> None:
        self.backlog = asks.backlog
        self.pause = SharedPause(policy.max_wait_s)
        self.in_flight: set[Slot] = set()
        self.is_exhausted = False  # the source of calls has no more
        self.is_closed = False
        self.blocked_by: Literal["", "budget", "limit", "first answers"] = ""
        self.error: Exception | None = None  # of the source of calls; raised once what is in flight is recorded
        self._calls = calls
        self._send_request = service.send
        self._limits = limits
        self._window = window
        self._books = books
        self._held = held
        self._asks = asks
        self._advance = advance
        self._stop = stop
        self._free = [Slot(arrive) for _ in range(policy.concurrency)]
        self._max_backlog = BACKLOG_PER_SLOT * policy.concurrency
        self._in_hand: OpenCall | None = None  # the next to leave, whatever is due meanwhile: nobody overtakes it
        self._reading: asyncio.Task[CallRequest | Outcome | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        calls.on_room = lambda: self._call_again(0.0)

    @property
    def is_finished(self) -> bool:
        """Whether every call has been sent, and no attempt is to come."""
        is_waiting = self._in_hand is not None or self._reading is not None or self.backlog
        return self.is_exhausted and not self.in_flight and not is_waiting

    def in_flight_from(self, start: float, end: float) -> int:
        """How many requests are in flight that were sent within this time."""
        return sum(start <= slot.started <= end for slot in self.in_flight)

    def give_back(self, slots: Sequence[Slot]) -> None:
        """What these slots sent is concluded."""
        self.in_flight.difference_update(slots)
        self._free += slots

    def send_ready(self, now: float) -> None:
        """Send what may leave now."""
        if self.is_closed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.blocked_by = ""
        while self._free and (call := self._next_call(now)) is not None:
            wait_s = self._let_pass(call, now)
            if wait_s > 0:
                self._in_hand = call
                self._call_again(wait_s)
                break
            self._send(call, now)
        self._books.write(len(self.in_flight))

    def close(self) -> None:
        """Send no more."""
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._reading is not None:
            self._reading.cancel()

    async def aclose(self) -> None:
        """Wait for the task that reads, once it is cancelled."""
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    def give_up(self) -> None:
        """Forget what is in flight: nobody is told any more what comes of it."""
        for slot in self.in_flight:
            slot.sending.cancel()
        self.in_flight.clear()

    def _next_call(self, now: float) -> OpenCall | None:
        """The call in hand, one that is due, or a fresh one; `None` where it has to be waited for."""
        if self.pause.is_on(now):
            return self._next_probe(now)
        if self._in_hand is not None:
            call, self._in_hand = self._in_hand, None
            return call
        backlog = self.backlog
        if backlog and backlog.due <= now:
            return backlog.pop()
        if (fresh := self._next_fresh(now)) is not None:
            return fresh
        if backlog:
            self._call_again(backlog.due - now)
        return None

    def _next_fresh(self, now: float) -> OpenCall | None:
        """A call that was not sent yet; `None` where it has to be read first, or where enough wait already."""
        waiting = len(self.backlog) - self.backlog.long_waits
        if self.is_exhausted or self._reading is not None or waiting >= self._max_backlog:
            return None
        while (fresh := self._ready_call()) is not None:
            call = self._asks.open(fresh, now) if self._asks.recorded else OpenCall(fresh, now)
            if call is not None:
                return call
        if not self.is_closed and (self._calls.has_room or self._must_read()):
            self._reading = asyncio.get_running_loop().create_task(_next_of(self._calls))
            self._reading.add_done_callback(self._has_read)
        return None

    def _next_probe(self, now: float) -> OpenCall | None:
        """The call that probes while everybody waits: one that was not refused yet, else the one that is due first."""
        if (wait_s := self.pause.wait_s(now)) > 0:
            self._call_again(wait_s)
            return None
        in_hand, self._in_hand = self._in_hand, None
        if in_hand is not None and not in_hand.is_asked_to_wait:
            return in_hand
        if in_hand is not None:
            self.backlog.put(in_hand, now, is_asked=True)
        if (fresh := self._next_fresh(now)) is not None:
            return fresh
        # What is being read calls again.
        return self.backlog.pop() if self.backlog and self._reading is None else None

    def _ready_call(self) -> CallRequest | None:
        try:
            while isinstance(fresh := self._calls.ready_call(), OUTCOMES):
                self._books.add(fresh)
        except Exception as error:  # noqa: BLE001 - raised by `run`, once what is in flight is recorded
            self._lose_calls(error)
            return None
        return fresh

    def _must_read(self) -> bool:
        """Whether nothing goes on until more is read, since calls that are held, or asked to wait, take all the room.

        Only further calls can explain what is held, and calls that wait for long shall not hold up the others.
        """
        long_waits = self.backlog.long_waits
        is_held = self._held.any or self._asks.holds
        return (is_held or long_waits > 0) and len(self.backlog) == long_waits and not self.in_flight

    def _has_read(self, reading: "asyncio.Task[CallRequest | Outcome | None]") -> None:
        """The source has a call, or had no more, or is broken."""
        self._reading = None
        if reading.cancelled():
            if not self.is_closed:
                self._lose_calls(RuntimeError("the run's own task was cancelled by somebody else"))
        elif isinstance(error := reading.exception(), Exception):
            self._lose_calls(error)
        else:
            self._take(reading.result())
        self._advance()

    def _take(self, fresh: CallRequest | Outcome | None) -> None:
        if fresh is None:
            self.is_exhausted = True
        elif isinstance(fresh, OUTCOMES):
            self._books.add(fresh)
        else:
            now = asyncio.get_running_loop().time()
            if (call := self._asks.open(fresh, now)) is not None:
                self.backlog.put(call, now)

    def _lose_calls(self, error: Exception) -> None:
        """No more calls can be had. What is in flight is paid for, and finished all the same."""
        self.error = error
        self.close()

    def _let_pass(self, call: OpenCall, now: float) -> float:
        """Pass budget, window and limits. Returns 0, or seconds until it is worth trying again.

        Infinite: until something in flight is answered.
        """
        first = self._asks.first
        if first is not None and not first.is_over and len(self.in_flight) >= first.room:
            self.blocked_by = "first answers"
            return math.inf
        if not self._books.reserve(call, len(self.in_flight)):
            self.blocked_by = "budget"
            if not self.in_flight:
                words = self._books.describe_budget(call)
                self._stop(Stop("budget", words, "Raise budget.max_cost_usd to resume.", "budget", call.max_cost))
            return math.inf
        if self._window is not None and (wait_s := self._window.wait_s(now, len(self.in_flight))) > 0:
            return wait_s
        if (charge := self._limits.take(call.request.estimated_tokens, now)) is None:
            self.blocked_by = "limit"
            return self._limits.wait_s
        call.charge = charge
        return 0.0

    def _send(self, call: OpenCall, now: float) -> None:
        slot = self._free.pop()
        slot.call, slot.started = call, now
        call.attempt += 1
        if self.pause.is_on(now):
            self.pause.sent(now)
        if self._window is not None:
            self._window.sent(now)
        self._books.begin(slot)
        slot.sending = self._send_request(call.request.http, slot.arrive)
        self.in_flight.add(slot)

    def _call_again(self, wait_s: float) -> None:
        """Have the run advanced in this time."""
        if self._timer is not None:
            self._timer.cancel()
        is_timed = wait_s < math.inf and not self.is_closed
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._advance) if is_timed else None


async def _next_of(calls: Calls) -> CallRequest | Outcome | None:
    return await calls.next_call()
