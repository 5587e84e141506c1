"""The driver's side of a session with owners: its word to the coordinator, and what it hears from there.

For who stops a run, shows it or listens to it, this stands where the loop stands in a run of one process.
"""

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from cometbatch.commands.observers import Observers
from cometbatch.commands.progress_line import Progress
from cometbatch.control.coordination.messages import (
    MARGIN,
    Drive,
    Driven,
    OwnerState,
    StopOrder,
    lease_s,
)
from cometbatch.engines.line import DriverLine, LineError
from cometbatch.errors import CometbatchError
from cometbatch.records import Outcome
from cometbatch.results.summary_words import count
from cometbatch.run_state.manifest import Manifest
from cometbatch.runner.hearing import stop_of, words_of
from cometbatch.runner.ports import Ended, Pace, Stop

DRIVE_S: Final = 0.2
"""Seconds between two words to the coordinator. Without one for `DRIVER_S` it grants nothing more."""
LOST_S: Final = 30.0
"""Seconds without an answer of the coordinator, after which the session is given up: nothing is sent meanwhile."""

_OUTCOME: Final = msgspec.json.Decoder(Outcome)


class Told:
    """How a session with owners goes at this moment: what `runner.telling.Told` tells of one process."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self.now = Driven()

    @property
    def pace(self) -> Pace:
        """How fast they may send at present, all together."""
        rates = [rate for rate in self.now.per_s if rate is not None]
        return Pace(self._concurrency, sum(rates) if rates and len(rates) == len(self.now.per_s) else None)

    @property
    def unanswered_s(self) -> float:
        """Seconds for which an owner had no answer, although requests failed or hung."""
        return self.now.unanswered_s

    @property
    def spent_usd(self) -> Decimal | None:
        """US dollars booked by now, possible charges included; None without a budget."""
        return self.now.spent_usd

    @property
    def largest_output_tokens(self) -> int:
        """The most tokens of any answer so far."""
        return self.now.largest_output_tokens

    def waiting_for(self) -> str:
        """What keeps the next request back, in a few words for a person; "" where nothing does."""
        return self.now.waiting_for

    def silences(self) -> Mapping[int, str]:
        """Nothing: owners say by themselves what a person should know who waits in vain."""
        return {}


class Driving:
    """Speaks to the coordinator, and hands on what it says. `supervise` takes it for its own `Driving`.

    `workers`: how many owners there are meant to be. `manifest`: of the run. Where anybody listens, each outcome is
    handed on, else their counts.
    """

    def __init__(
        self, line: DriverLine, shown: Progress, observers: Observers, manifest: Manifest, *, workers: int, slots: int
    ) -> None:
        self.told = Told(slots)
        self._line = line
        self._shown, self._observers = shown, observers
        self._observer = observers.beside(shown)
        self._manifest = manifest
        self._silent_s = MARGIN * lease_s(workers)
        self._stops: tuple[StopOrder, ...] = ()
        self._gone: set[int] = set()
        self._seen = 0
        self._words: set[str] = set()
        self._retries = self._pushbacks = 0
        self._speaking = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._heard_at = asyncio.get_running_loop().time()

    # -- what stops a run asks -----------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """How many requests are being sent right now, as far as owners have said."""
        return self.told.now.in_flight

    def stop(self, stop: Stop) -> None:
        """Have every owner send no more; what is in flight is finished. The first reason given stands."""
        if not self._stops:
            self._order(stop, is_now=False)

    def stop_now(self, stop: Stop) -> None:
        """Have every owner give up what is in flight."""
        if not any(order.is_now for order in self._stops):
            self._order(stop, is_now=True)

    def _order(self, stop: Stop, *, is_now: bool) -> None:
        self._stops += (StopOrder(words_of(stop), is_now=is_now),)
        self._hurry.set()

    # -- what supervises processes asks --------------------------------------------------------------------------------

    def gone(self, owner: int) -> None:
        """The process of an owner is known to have ended."""
        self._gone.add(owner)
        self._hurry.set()

    async def drive(self) -> Driven:
        """Say the driver's word, and return the newest answer. Raises `CometbatchError` after `LOST_S` without one."""
        async with self._speaking:
            word = Drive(stops=self._stops, gone=tuple(sorted(self._gone)), seen_outcomes=self._seen)
            loop = asyncio.get_running_loop()
            try:
                driven = await self._line.drive(word)
            except LineError as error:
                if loop.time() - self._heard_at > LOST_S:
                    words = f"the coordinator of the workers has not answered for {LOST_S:g} s ({error}). "
                    raise CometbatchError(
                        words + "What was answered is recorded; run the same command again."
                    ) from error
                return self.told.now
            self._heard_at = loop.time()
            self._take(driven)
            return driven

    async def drive_forever(self) -> None:
        """Say the word again and again, at once where there is something to say. Raises as `drive`."""
        while True:
            self._hurry.clear()
            await self.drive()
            timer = asyncio.get_running_loop().call_later(DRIVE_S, self._hurry.set)
            try:
                await self._hurry.wait()
            finally:
                timer.cancel()

    # -- its end -------------------------------------------------------------------------------------------------------

    @property
    def have_all_left(self) -> bool:
        """Whether every owner that ever was there has ended in order, or has lost its lease, so that none sends."""
        return all(each.has_left or each.is_lost for each in self.told.now.owners)

    def ended(self) -> Ended:
        """How the session ended, once every owner has. A request to stop that came after the last call is none."""
        now = self.told.now
        orders = [order for order in now.stops if order.queue is None]
        if now.is_over:
            orders = []
        queues = {order.queue: stop_of(order.words) for order in reversed(now.stops) if order.queue is not None}
        stopped = dict(sorted(queues.items()))
        return Ended(stop_of(orders[0].words) if orders else next(iter(stopped.values()), None), stopped)

    # -- what it hears -------------------------------------------------------------------------------------------------

    def _take(self, driven: Driven) -> None:
        self.told.now = driven
        if driven.errors and not self._stops:  # what is in flight is paid for, and finished
            self._order(Stop("terminated", driven.errors[0].message), is_now=False)
        if self._observers.any:
            self._seen += len(driven.outcomes)
            if driven.outcomes:
                self._observer.recorded(list(map(_OUTCOME.decode, driven.outcomes)), driven.in_flight)
        else:
            self._shown.counted(driven.recorded, driven.in_flight)
        for _ in range(driven.retries - self._retries):
            self._observer.retried()
        for _ in range(driven.pushbacks - self._pushbacks):
            self._observer.asked_to_slow_down(0.0)
        self._retries = max(self._retries, driven.retries)
        self._pushbacks = max(self._pushbacks, driven.pushbacks)
        for index in driven.committed:
            self._observers.committed(self._manifest.partition(index))
        for words in driven.words:
            if words not in self._words:
                self._words.add(words)
                self._shown.warn(words)
        self._shown.workers = workers_in_words(driven.owners, self._silent_s)


def workers_in_words(owners: Sequence[OwnerState], silent_s: float) -> str:
    """How many workers there are, and how many of them have not been heard for longer than their lease lasts."""
    alive = [each for each in owners if not each.is_lost and not each.has_left]
    if not alive:
        return ""
    silent = sum(each.silent_s > silent_s for each in alive)
    return count(len(alive), "worker") + (f" ({silent} silent)" if silent else "")
