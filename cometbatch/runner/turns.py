"""The loop: calls in, outcomes out, a bounded number of requests in flight. Knows no vendor, file format or command.

Replies are dealt with in turns: those that have come since the last turn are judged, their records are written, then
the slots send the next calls. A turn does one thing after the other for all of its replies, since code that has just
run runs several times as fast; and no call needs a task.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from cometbatch.control.attribution import HeldFailures
from cometbatch.control.budget import Budget
from cometbatch.control.window import ConcurrencyWindow
from cometbatch.limiting.limits import Limits
from cometbatch.records import HttpResponse
from cometbatch.runner.asks import Asks
from cometbatch.runner.attempts import Attempts
from cometbatch.runner.books import Books
from cometbatch.runner.patience import Patience
from cometbatch.runner.ports import Calls, Ended, ExchangeResult, Marks, Observer, Pace, Policy, Records, Service, Stop
from cometbatch.runner.queue_start import QueueStart
from cometbatch.runner.sending import Sender
from cometbatch.runner.slots import OpenCall, Slot

LARGE_BYTES: Final = 64 * 1024
"""Bytes of a reply. A larger one is written as soon as it is judged, so that few are in memory at a time; smaller ones
are written together at the end of their turn."""

MISDIRECTED_PER_SLOT: Final = 2
"""Replies for each slot that only a wrong address explains, before the run stops over it."""

COALESCE_S: Final = 0.008
"""Seconds that a reply waits for others before its turn, but never more than a tenth of what it took. A turn for many
replies takes a tenth less CPU a row; 0 handles each reply alone."""

COALESCED_FROM: Final = 64
"""Requests in flight from which a reply waits; fewer bring too few replies in that time, and would only run slower."""


class Runner:
    """Brings calls to their outcomes; one instance runs one session, on one event loop.

    `queues`: the source of each model's calls. `starts`: what is known of each queue, in the same order.
    `budget` has what was spent before booked already. `jitter` returns a random number in [0, 1).
    """

    def __init__(
        self,
        queues: Sequence[Calls],
        records: Records,
        service: Service,
        policy: Policy,
        limits: Limits,
        *,
        marks: Marks,
        observer: Observer,
        now: Callable[[], datetime],
        jitter: Callable[[], float],
        budget: Budget | None = None,
        starts: Sequence[QueueStart] = (QueueStart(),),
    ) -> None:
        ((calls, start),) = zip(queues, starts, strict=True)
        self._now = now
        self._concurrency = policy.concurrency
        self._limits = limits
        self._window = window = ConcurrencyWindow(policy.concurrency) if policy.adaptive else None
        held = _none_held(policy, works=start.earlier.new_answers + len(start.rejected) > 0)
        self._books = books = Books(
            records,
            service,
            limits=limits,
            marks=marks,
            observer=observer,
            now=now,
            budget=budget,
            earlier=start.earlier,
        )
        books.twins = start.twins
        self._asks = asks = Asks(
            service, books=books, rejected=start.rejected, first=start.first_answers, stop=self.stop
        )
        self._sender = Sender(
            calls,
            service,
            policy=policy,
            limits=limits,
            window=window,
            books=books,
            held=held,
            asks=asks,
            arrive=self._arrive,
            advance=self._advance,
            stop=self.stop,
        )
        self._patience = Patience(
            policy, held, limits, observer, self._sender, jitter=jitter, is_reached=service.is_reached
        )
        self._attempts = Attempts(
            service,
            sender=self._sender,
            books=books,
            asks=asks,
            patience=self._patience,
            held=held,
            window=window,
            observer=observer,
            stop=self.stop,
        )
        self._arrived: list[Slot] = []
        self._turn: asyncio.Handle | None = None  # that is due
        self._over: asyncio.Future[None] | None = None
        self._stop: Stop | None = None

    async def run(self, cancelled: Callable[[], object] | None = None) -> Ended:
        """Bring every call to its outcome. Returns why the run, or a queue of it, stopped before its last call.

        `cancelled` is called each time that the task is cancelled, and stops the run, now or soon: `CancelledError` is
        raised once that is over. Without it, a cancel gives up at once what is in flight.

        Raises what the source of calls raised; then nothing more is sent.
        """
        self._over = asyncio.get_running_loop().create_future()
        try:
            self._advance()
            is_cancelled = await self._until_over(self._over, cancelled)
            if self._sender.error is not None:
                raise self._sender.error
        finally:
            self._sender.close()
            self._take_turn()  # what has come is paid for
            self._give_up()
            await self._sender.aclose()
        if is_cancelled:
            raise asyncio.CancelledError
        return Ended(self._stop)

    def stop(self, stop: Stop) -> None:
        """Send no more; what is in flight is finished and recorded. The first reason given stands."""
        if self._stop is None:
            self._stop = stop
            self._sender.close()
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
        return len(self._sender.in_flight)

    @property
    def pace(self) -> Pace:
        """How fast it may send at present."""
        window = self._window
        if window is None:
            return Pace(self._concurrency, None)
        return Pace(window.window, window.rate.per_s if window.rate.per_s < math.inf else None)

    @property
    def unanswered_s(self) -> float:
        """Seconds for which nothing was answered, although requests failed or hung; 0 else."""
        now = _time()
        probing_s = 0.0 if self._window is None else now - self._window.probing_since
        return max(0.0, probing_s, self._patience.unanswered_s(now))

    @property
    def spent_usd(self) -> Decimal | None:
        """US dollars booked by now, possible charges included, without what is set aside; None without a budget."""
        return self._sender.spent_usd

    @property
    def largest_output_tokens(self) -> int:
        """The most tokens of any answer so far, those of earlier sessions included."""
        return self._books.largest_output_tokens

    def waiting_for(self) -> str:
        """What keeps the next request back, in a few words for a person; "" where nothing does."""
        if wait := self._patience.describe_wait(_time()):
            return wait
        if self._window is not None and self._window.is_probing:
            return "no answers, probing"
        if self._sender.blocked_by == "budget":
            return "budget"
        words = {"limit": "rate limit", "first answers": "the first JSON answer"}
        return words.get(self._sender.blocked_by, "")

    def silence(self) -> str:
        """What a person should know who waits for answers in vain; "" where there is nothing to tell."""
        return self._patience.describe_silence(_time())

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
        try:
            self._conclude(arrived)
        except Exception as error:  # noqa: BLE001 - raised by `run`, which waits for this
            self._break(error)
        self._advance()

    def _conclude(self, arrived: list[Slot]) -> None:
        """Judge all of them, whatever becomes of one, since they are paid for. Raises the first error then."""
        now, moment = _time(), self._now()
        first: Exception | None = None
        self._sender.give_back(arrived)
        for slot in arrived:
            try:
                self._attempts.conclude(slot, now, moment)
                if isinstance(slot.result, HttpResponse) and len(slot.result.body) > LARGE_BYTES:
                    self._books.write(self.in_flight)
            except Exception as error:  # noqa: BLE001 - raised below
                first = first or error
            del slot.result
        self._books.write(self.in_flight)
        if first is not None:
            raise first

    def _advance(self) -> None:
        """Send what may leave. Where there is nothing left to send, the run is over."""
        sender = self._sender
        try:
            sender.send_ready(_time())
            if sender.is_finished and not sender.is_closed and self._asks.holds:
                self._asks.judge_held()
                sender.send_ready(_time())
            if sender.is_finished and not sender.is_closed:
                self._attempts.settle_held(_time())
                self._books.write(self.in_flight)
                if sender.is_finished:
                    sender.close()
                else:  # calls had waited for those that were held
                    sender.send_ready(_time())
        except Exception as error:  # noqa: BLE001 - raised by `run`, which waits for this
            self._break(error)
        self._end_if_over()

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

    def _give_up(self) -> None:
        self._sender.give_up()
        self._arrived.clear()

    def _break(self, error: Exception) -> None:
        """Nothing more is sent; `run` raises the error."""
        self._sender.close()
        if self._over is not None and not self._over.done():
            self._over.set_exception(error)

    def _end_if_over(self) -> None:
        over = self._over
        if self._sender.is_closed and not self.in_flight and over is not None and not over.done():
            over.set_result(None)


def _none_held(policy: Policy, *, works: bool) -> HeldFailures[OpenCall]:
    most = MISDIRECTED_PER_SLOT * policy.concurrency
    return HeldFailures(works=works, max_alike=policy.max_alike, max_misdirected=most)


def _time() -> float:
    return asyncio.get_running_loop().time()
