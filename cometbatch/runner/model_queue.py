"""The calls of one model, from their source to their outcomes: with a pace, a patience and a stop of their own."""

import asyncio
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cometbatch.control.attribution import HeldFailures
from cometbatch.control.window import ConcurrencyWindow
from cometbatch.records import HttpResponse
from cometbatch.runner.asks import Asks
from cometbatch.runner.attempts import Attempts
from cometbatch.runner.books import Books
from cometbatch.runner.patience import Patience
from cometbatch.runner.ports import Calls, Pace, Stop
from cometbatch.runner.queue_start import QueueStart
from cometbatch.runner.sending import Sender
from cometbatch.runner.sharing import Shared
from cometbatch.runner.slots import OpenCall, Slot

LARGE_BYTES: Final = 64 * 1024
"""Bytes of a reply. A larger one is written as soon as it is judged, so that few are in memory at a time; smaller ones
are written together at the end of their turn."""

MISDIRECTED_PER_SLOT: Final = 2
"""Replies for each slot that only a wrong address explains, before the queue stops over it."""


class ModelQueue:
    """Brings the calls of one model to their outcomes. `number`: its place among the queues of the run.

    `stopped`: why it has stopped by itself; None where it has not.
    """

    def __init__(self, number: int, calls: Calls, start: QueueStart, shared: Shared) -> None:
        self.name = start.name
        self.stopped: Stop | None = None
        self.number = number
        self._calls = calls
        self._shared = shared
        policy = shared.policy
        self._concurrency = policy.concurrency
        self.window = window = ConcurrencyWindow(policy.concurrency, start.rate) if policy.adaptive else None
        self.held = held = HeldFailures[OpenCall](
            works=start.earlier.new_answers + len(start.rejected) > 0,
            max_alike=policy.max_alike,
            max_misdirected=MISDIRECTED_PER_SLOT * policy.concurrency,
        )
        self.books = books = Books(shared, start)
        self.asks = asks = Asks(
            shared.service, books=books, rejected=start.rejected, first=start.first_answers, stop=self.stop
        )
        self.sender = Sender(number, calls, shared, window=window, books=books, held=held, asks=asks)
        self.patience = Patience(shared, held, self.sender)
        self.attempts = Attempts(
            number,
            shared,
            sender=self.sender,
            books=books,
            asks=asks,
            patience=self.patience,
            held=held,
            window=window,
            stop=self.stop,
            end=self.end,
        )
        self._is_set_aside = False

    @property
    def is_closed(self) -> bool:
        """Whether it sends no more."""
        return self.sender.is_closed

    def stop(self, stop: Stop) -> None:
        """Send no more of this queue alone; what is in flight is finished and recorded. The first reason stands."""
        if not self.is_closed:
            self._shared.others.stopped(stop, self.number)
            self.end(stop)

    def end(self, stop: Stop) -> None:
        """The queue has ended before its last call: there is nothing that it could send in this session."""
        if not self.is_closed:
            self.stopped = stop
            self.close()
            self._shared.ended()

    def close(self) -> None:
        """Send no more."""
        self.sender.close()
        self._shared.account.queues.discard(self.number)

    def conclude(self, slots: Sequence[Slot], now: float, moment: datetime) -> Exception | None:
        """Judge what came back to these slots, whatever becomes of one, since it is paid for. Returns the first error.

        `now` is the loop's time, `moment` that of the wall clock.
        """
        first: Exception | None = None
        for slot in slots:
            try:
                self.attempts.conclude(slot, now, moment)
                if isinstance(slot.result, HttpResponse) and len(slot.result.body) > LARGE_BYTES:
                    self.write()
            except Exception as error:  # noqa: BLE001 - handed on
                first = first or error
            del slot.result
        try:
            self.write()
        except Exception as error:  # noqa: BLE001 - handed on
            first = first or error
        return first

    def end_if_finished(self, now: float) -> bool:
        """Close the queue where nothing is left to send; returns whether there is something again that was held."""
        sender = self.sender
        if sender.is_closed or not sender.is_finished:
            return False
        if self.asks.holds:
            self.asks.judge_held()
            self.write()
            if not sender.is_finished:
                return True
        self.attempts.settle_held(now)
        self.write()
        if not sender.is_finished:  # calls had waited for those that were held
            return not sender.is_closed
        if not sender.is_closed:
            self.close()
        return False

    def set_aside_if_over(self) -> None:
        """Once nothing of a queue that has stopped alone is under way, its open calls need not be kept in memory."""
        if not self._is_set_aside and self.sender.is_at_rest:
            self._is_set_aside = True
            self._calls.set_aside()

    def write(self) -> None:
        """Write down what is not written yet."""
        self.books.write(self._shared.slots.in_flight)

    # -- what is told of it ------------------------------------------------------------------------------------------

    @property
    def pace(self) -> Pace:
        """How fast it may send at present."""
        window = self.window
        if window is None:
            return Pace(self._concurrency, None)
        return Pace(window.window, window.rate.per_s if window.rate.per_s < math.inf else None)

    @property
    def unanswered_s(self) -> float:
        """Seconds for which nothing was answered, although requests failed or hung; 0 else."""
        now = _time()
        probing_s = 0.0 if self.window is None else now - self.window.probing_since
        return max(0.0, probing_s, self.patience.unanswered_s(now))

    def waiting_for(self) -> str:
        """What keeps the next request back, in a few words for a person; "" where nothing does."""
        if wait := self.patience.describe_wait(_time()):
            return wait
        if self.window is not None and self.window.is_probing:
            return "no answers, probing"
        if self.sender.blocked_by == "budget":
            return "budget"
        words = {"limit": "rate limit", "first answers": "the first JSON answer"}
        return words.get(self.sender.blocked_by, "")

    def silence(self, ending: str) -> str:
        """What a person should know who waits for answers in vain; "" where there is nothing to tell.

        `ending`: what follows where it lasts, as "the run stops".
        """
        return self.patience.describe_silence(_time(), ending)


def _time() -> float:
    return asyncio.get_running_loop().time()
