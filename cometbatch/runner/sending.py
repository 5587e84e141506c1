"""What of a queue leaves, and when: one way to get a call, one way to let it pass, one way to send it.

`send_next` sends a call unless something has to be waited for: the window, the budget, a limit, a call that is due,
room, or the input. Whatever it waits for has it called again: a turn, a timer, or the source of calls. So nothing here
waits in a task of its own, but for the one that reads the input.
"""

import math
from collections.abc import Sequence
from decimal import Decimal

from cometbatch.control.attribution import HeldFailures
from cometbatch.control.pause import SharedPause
from cometbatch.control.window import ConcurrencyWindow
from cometbatch.runner.asks import Asks
from cometbatch.runner.books import Books
from cometbatch.runner.intake import Intake
from cometbatch.runner.ports import Calls, Stop
from cometbatch.runner.sharing import BlockedBy, Shared
from cometbatch.runner.slots import OpenCall, Slot

BACKLOG_PER_SLOT = 4  # calls waiting for another attempt, for each slot of the queue; from this on none is read


class Sender:
    """The backlog of a queue, what it has in flight, and what a call has to pass before it leaves.

    `number`: of the queue.
    """

    def __init__(
        self,
        number: int,
        calls: Calls,
        shared: Shared,
        *,
        window: ConcurrencyWindow | None,
        books: Books,
        held: HeldFailures[OpenCall],
        asks: Asks,
    ) -> None:
        slots, policy = shared.slots, shared.policy
        self.number = number
        self.backlog = asks.backlog
        self.pause = SharedPause(policy.max_wait_s)
        self.paused_until = -math.inf  # on the loop's clock; nobody sends before, not even to probe
        self.in_flight: set[Slot] = set()
        self.sent_count = 0
        self.is_closed = False
        self.has_no_range = False  # a further one was asked for, and there is none now
        self.blocked_by: BlockedBy = ""
        self.kept = 0
        self._send_request = shared.service.send
        self._limits = shared.limits
        self._window = window
        self._concurrency = policy.concurrency
        self._books = books
        self._asks = asks
        self._slots = slots
        self._intake = Intake(
            calls,
            books=books,
            asks=asks,
            held=held,
            twins=books.twins,
            max_backlog=BACKLOG_PER_SLOT * max(1, policy.concurrency // len(shared.account.queues)),
            is_idle=lambda: not self.in_flight,
            advance=shared.advance,
            fail=shared.fail,
        )
        self._in_hand: OpenCall | None = None  # the next to leave, whatever is due meanwhile: nobody overtakes it
        calls.on_room = lambda: slots.wake_in(0.0)
        slots.add(self)

    @property
    def is_exhausted(self) -> bool:
        """Whether the source of calls has no more, as far as is known now."""
        return self._intake.is_exhausted or self.waits_for_ranges

    @property
    def waits_for_ranges(self) -> bool:
        """Whether all that could be read is other owners', who may lose it."""
        return self.has_no_range and self._intake.is_reading

    @property
    def is_finished(self) -> bool:
        """Whether every call has been sent, and no attempt is to come."""
        if not self._intake.is_exhausted or self.in_flight or self._in_hand is not None:
            return False
        return not self.backlog and not self._intake.is_busy

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing of a queue that sends no more is under way: no request, and no reading of the input."""
        return self.is_closed and not self.in_flight and not self._intake.is_under_way

    def in_flight_from(self, start: float, end: float) -> int:
        """How many requests are in flight that were sent within this time."""
        return sum(start <= slot.started <= end for slot in self.in_flight)

    @property
    def begun(self) -> Sequence[OpenCall]:
        """The calls for which money may be set aside: those in flight, and the one in hand."""
        calls = [slot.call for slot in self.in_flight]
        return calls if self._in_hand is None else [*calls, self._in_hand]

    def give_back(self, slots: Sequence[Slot]) -> None:
        """What these slots sent is concluded."""
        self.in_flight.difference_update(slots)
        self._slots.free += slots

    @property
    def known_waiting(self) -> int:
        """How many calls are here that may be sent before long."""
        return len(self.backlog) - self.backlog.long_waits + (self._in_hand is not None)

    def wanted(self, now: float) -> int:
        """How many more requests it may send before long, as far as it is known now."""
        window, first = self._window, self._asks.first
        if self.blocked_by == "budget":
            return 0
        if now < self.paused_until or self.pause.is_on(now) or (window is not None and window.is_probing):
            return 1  # a probe
        if self._intake.is_exhausted:
            return self.known_waiting + self._intake.is_busy
        room = self._concurrency if window is None else window.window
        if first is not None and not first.is_over:
            room = min(room, first.room)
        return max(0, room - len(self.in_flight))

    def send_next(self, now: float) -> bool:
        """Send one call, if there is one that may leave now. There has to be a free slot."""
        if self.is_closed or (call := self._next_call(now)) is None:
            return False
        if (wait_s := self._let_pass(call, now)) > 0:
            self._in_hand = call
            if call.is_reserved and self.blocked_by != "limit":  # where it can't leave in a moment, others may need it
                self._books.release(call)
            self._slots.wake_in(wait_s)
            return False
        slot = self._slots.free.pop()
        slot.queue, slot.call, slot.started = self.number, call, now
        call.attempt += 1
        if self.pause.is_on(now):
            self.pause.sent(now)
        if self._window is not None:
            self._window.sent(now)
        self._books.begin(slot)
        slot.sending = self._send_request(call.request.http, slot.arrive)
        self.in_flight.add(slot)
        self.sent_count += 1
        return True

    def close(self) -> None:
        """Send no more."""
        self.is_closed = True
        self._slots.remove(self)
        if self._in_hand is not None:
            self._books.release(self._in_hand)
        self._intake.close()

    async def aclose(self) -> None:
        """Wait for the tasks that read, once they are cancelled."""
        await self._intake.aclose()

    def give_up(self) -> None:
        """Forget what is in flight: nobody is told any more what comes of it."""
        self._books.give_up(self.in_flight)
        for slot in self.in_flight:
            slot.sending.cancel()
        self.give_back(tuple(self.in_flight))

    def waits_for_others(self) -> bool:
        """Whether the call in hand may find room in the budget once other runs give back some of what they share."""
        return self._in_hand is not None and self._books.waits_for_others(self._in_hand)

    def budget_stop(self) -> tuple[Decimal, Stop] | None:
        """What the call in hand can cost at most, in US dollars, and why there is no room for it in the budget."""
        if self._in_hand is None:
            return None
        return self._in_hand.max_cost or Decimal(0), self._books.budget_stop(self._in_hand)

    def _next_call(self, now: float) -> OpenCall | None:
        """The call in hand, one that is due, or a fresh one; `None` where it has to be waited for."""
        if self.pause.is_on(now):
            return self._next_probe(now)
        if self._in_hand is not None:
            call, self._in_hand = self._in_hand, None
            return call
        backlog = self.backlog
        while backlog and backlog.due <= now:
            if self._intake.goes_on(call := backlog.pop()):
                return call
        if (fresh := self._intake.next_fresh(now)) is not None:
            return fresh
        if backlog:
            self._slots.wake_in(backlog.due - now)
        return None

    def _next_probe(self, now: float) -> OpenCall | None:
        """The call that probes while everybody waits: one that was not refused yet, else the one that is due first."""
        in_hand = self._in_hand
        if in_hand is not None:
            self._books.release(in_hand)
        if (wait_s := self.pause.wait_s(now)) > 0:
            self._slots.wake_in(wait_s)
            return None
        self._in_hand = None
        if in_hand is not None and not in_hand.is_asked_to_wait:
            return in_hand
        if in_hand is not None:
            self.backlog.put(in_hand, now, is_asked=True)
        if (fresh := self._intake.next_fresh(now)) is not None:
            return fresh
        # What is being read calls again.
        return self.backlog.pop() if self.backlog and not self._intake.is_reading else None

    def _let_pass(self, call: OpenCall, now: float) -> float:
        """Pass window, budget and limits. Returns 0, or seconds until it is worth trying again.

        Infinite: until something in flight is answered. Where nothing is, a budget without room is noticed at once,
        whatever the pace.
        """
        first, in_flight = self._asks.first, len(self.in_flight)
        if first is not None and not first.is_over and in_flight >= first.room:
            self.blocked_by = "first answers"
            return math.inf
        wait_s = self.paused_until - now
        if wait_s <= 0 and self._window is not None:
            wait_s = self._window.wait_s(now, in_flight)
        if wait_s > 0 and in_flight:
            return wait_s
        if not self._books.reserve(call, in_flight):
            self.blocked_by = "budget"
            return math.inf
        if wait_s > 0:
            return wait_s
        if (charge := self._limits.take(call.request.estimated_tokens)) is None:
            self.blocked_by = "limit"
            return self._limits.wait_s
        call.charge = charge
        return 0.0
