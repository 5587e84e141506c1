"""The loop: calls in, outcomes out, a bounded number of requests in flight. Knows no vendor, file format or command.

Replies are dealt with in turns: those that have come since the last turn are judged, their records are written, then
the slots send the next calls. A turn does one thing after the other for all of its replies, since code that has just
run runs several times as fast; and no call needs a task.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from cometbatch.control.attribution import Account
from cometbatch.control.budget import Budget
from cometbatch.runner.model_queue import ModelQueue
from cometbatch.runner.ports import (
    Alone,
    Calls,
    Ended,
    ExchangeResult,
    Marks,
    Observer,
    OtherOwners,
    Policy,
    RateLimits,
    Records,
    Service,
    Stop,
)
from cometbatch.runner.queue_start import QueueStart
from cometbatch.runner.sharing import Shared, SharedSlots
from cometbatch.runner.slots import Slot
from cometbatch.runner.telling import Told

COALESCE_S: Final = 0.008
"""Seconds that a reply waits for others before its turn, but never more than a tenth of what it took. A turn for many
replies takes a tenth less CPU a row; 0 handles each reply alone."""

COALESCED_FROM: Final = 64
"""Requests in flight from which a reply waits; fewer bring too few replies in that time, and would only run slower."""

OTHERS_S: Final = 0.05
"""Seconds after which a budget is asked again of which other runs have taken what is left."""


class Runner:
    """Brings calls to their outcomes; one instance runs one session, on one event loop.

    `queues`: the source of each model's calls. `starts`: what is known of each queue, in the same order.
    `budget` has what was spent before booked already. `jitter` returns a random number in [0, 1).
    `others`: who tells the other owners of the run, where there are some. `told`: how it goes. `slots`, `queues`: for
    what other owners say.
    """

    def __init__(
        self,
        queues: Sequence[Calls],
        records: Records,
        service: Service,
        policy: Policy,
        limits: RateLimits,
        *,
        marks: Marks,
        observer: Observer,
        now: Callable[[], datetime],
        jitter: Callable[[], float],
        budget: Budget | None = None,
        starts: Sequence[QueueStart] = (QueueStart(),),
        others: OtherOwners | None = None,
    ) -> None:
        self._now = now
        self._others = others or Alone()
        self.slots = SharedSlots(policy.concurrency, self._arrive, self._advance)
        shared = Shared(
            service=service,
            policy=policy,
            limits=limits,
            budget=budget,
            records=records,
            marks=marks,
            observer=observer,
            others=self._others,
            now=now,
            jitter=jitter,
            slots=self.slots,
            account=Account(range(len(queues))),
            in_flight_from=self._in_flight_from,
            advance=self._advance,
            stop=self.stop,
            ended=self._end_if_over,
            fail=self._lose_calls,
        )
        pairs = enumerate(zip(queues, starts, strict=True))
        self.queues = tuple([ModelQueue(number, calls, start, shared) for number, (calls, start) in pairs])
        self.told = Told(self.queues, policy.concurrency, budget)
        self._arrived: list[Slot] = []
        self._turn: asyncio.Handle | None = None  # that is due
        self._over: asyncio.Future[None] | None = None
        self._stop: Stop | None = None
        self._error: Exception | None = None  # of a source of calls; raised once what is in flight is recorded

    async def run(self, cancelled: Callable[[], object] | None = None) -> Ended:
        """Bring every call to its outcome. Returns why the run, or a queue of it, stopped before its last call.

        `cancelled` is called each time that the task is cancelled, and stops the run, now or soon: `CancelledError` is
        raised once that is over. Without it, a cancel gives up at once what is in flight.

        Raises what a source of calls raised; then nothing more is sent.
        """
        self._over = asyncio.get_running_loop().create_future()
        try:
            self._advance()
            is_cancelled = await self._until_over(self._over, cancelled)
            if self._error is not None:
                raise self._error
        finally:
            self._close()
            self._take_turn()  # what has come is paid for
            self._give_up()
            for queue in self.queues:
                await queue.sender.aclose()
        if is_cancelled:
            raise asyncio.CancelledError
        stopped = {number: queue.stopped for number, queue in enumerate(self.queues) if queue.stopped is not None}
        return Ended(self._stop or next(iter(stopped.values()), None), stopped)

    def stop(self, stop: Stop) -> None:
        """Send no more; what is in flight is finished and recorded. The first reason given stands."""
        if self._stop is None and self.slots.takers:
            self._stop = stop
            self._others.stopped(stop, None)
            self._close()
            self._end_if_over()

    def stop_now(self, stop: Stop) -> None:
        """Send no more and give up what is in flight, unrecorded."""
        self.stop(stop)
        self._take_turn()
        self._give_up()
        self._end_if_over()

    @property
    def in_flight(self) -> int:
        """How many requests are being sent right now."""
        return self.slots.in_flight

    def advance_soon(self) -> None:
        """Send what may leave: what was waited for is there, as far as anybody knows."""
        self.slots.wake_in(0.0)

    # -- a turn ------------------------------------------------------------------------------------------------------

    def _arrive(self, slot: Slot, result: ExchangeResult) -> None:
        """A slot's exchange has come to its end."""
        slot.result = result
        loop = asyncio.get_running_loop()
        slot.latency_s = loop.time() - slot.started
        self._arrived.append(slot)
        if self._turn is None:
            wait_s = min(COALESCE_S, slot.latency_s / 10) if self.in_flight >= COALESCED_FROM else 0.0
            self._turn = loop.call_later(wait_s, self._take_turn)

    def _take_turn(self) -> None:
        """Deal with the replies that have come, then send."""
        arrived, self._arrived = self._arrived, []
        if self._turn is not None:
            self._turn.cancel()  # a stop does not wait for it
            self._turn = None
        self._conclude(arrived)
        self._advance()

    def _conclude(self, arrived: list[Slot]) -> None:
        """Judge all of them, whatever becomes of one, since they are paid for."""
        now, moment = _time(), self._now()
        by_queue = self._by_queue(arrived)
        for queue, slots in by_queue:
            queue.sender.give_back(slots)
        for queue, slots in by_queue:
            if (error := queue.conclude(slots, now, moment)) is not None:
                self._break(error)

    def _by_queue(self, arrived: list[Slot]) -> Sequence[tuple[ModelQueue, list[Slot]]]:
        if len(self.queues) == 1:
            return [(self.queues[0], arrived)]
        found: dict[int, list[Slot]] = {}
        for slot in arrived:
            found.setdefault(slot.queue, []).append(slot)
        return [(self.queues[number], slots) for number, slots in found.items()]

    def _advance(self) -> None:
        """Send what may leave. Where there is nothing left to send, the run is over."""
        try:
            is_more = True
            while is_more and self.slots.takers:
                is_more = self._send_ready(_time())
            if self.slots.takers:
                self._stop_without_room()
        except Exception as error:  # noqa: BLE001 - raised by `run`, which waits for this
            self._break(error)
        self._end_if_over()

    def _send_ready(self, now: float) -> bool:
        """Send what may leave, and end the queues that have nothing left; returns whether one has more all the same."""
        is_more = False
        self.slots.send_ready(now)
        for queue in self.queues:
            queue.write()
            if queue.end_if_finished(now):
                is_more = True
            elif queue.stopped is not None:
                queue.set_aside_if_over()
        return is_more

    def _stop_without_room(self) -> None:
        """Stop where the budget has no room for the next call of any queue, and nothing in flight may give some back.

        Of the reasons, that of the cheapest call counts: from its cost on, there is something to send again.
        """
        if self.in_flight:
            return
        senders = [queue.sender for queue in self.queues if not queue.is_closed]
        if any(sender.blocked_by != "budget" for sender in senders):
            return
        if any(sender.waits_for_others() for sender in senders):
            self.slots.wake_in(OTHERS_S)
        elif reasons := [reason for sender in senders if (reason := sender.budget_stop()) is not None]:
            self.stop(min(reasons, key=lambda reason: reason[0])[1])

    # -- its end -----------------------------------------------------------------------------------------------------

    async def _until_over(self, over: asyncio.Future[None], cancelled: Callable[[], object] | None) -> bool:
        """Wait for the end of the run; returns whether the task was cancelled meanwhile. Raises what broke the run."""
        is_cancelled = False
        while not over.done():
            try:
                await asyncio.wait([over])
            except asyncio.CancelledError:
                if cancelled is None:
                    over.cancel()
                    raise
                is_cancelled = True
                cancelled()
        over.result()
        return is_cancelled

    def _in_flight_from(self, start: float, end: float) -> int:
        return sum([queue.sender.in_flight_from(start, end) for queue in self.queues])

    def _close(self) -> None:
        for queue in self.queues:
            if not queue.is_closed:
                queue.close()

    def _lose_calls(self, error: Exception) -> None:
        """No more calls can be had of a source. What is in flight is paid for, and finished all the same."""
        self._error = self._error or error
        self._close()

    def _give_up(self) -> None:
        for queue in self.queues:
            queue.sender.give_up()
        self._arrived.clear()

    def _break(self, error: Exception) -> None:
        """Nothing more is sent; `run` raises the error."""
        self._close()
        if self._over is not None and not self._over.done():
            self._over.set_exception(error)

    def _end_if_over(self) -> None:
        over = self._over
        if over is not None and not over.done() and not self.slots.takers and not self.slots.in_flight:
            over.set_result(None)


def _time() -> float:
    return asyncio.get_running_loop().time()
