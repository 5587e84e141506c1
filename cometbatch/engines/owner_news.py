"""What an owner hears of the others and tells them while its runner sends: pauses, stops, what each has seen."""

from collections.abc import Callable, Sequence
from typing import Final

from cometbatch.control.coordination.messages import (
    News,
    Pushback,
    QueueReport,
    QueueTold,
    Resume,
    StopOrder,
    Stopping,
    Watch,
)
from cometbatch.engines.asking import Asking
from cometbatch.runner.hearing import Hearing, words_of
from cometbatch.runner.ports import Stop
from cometbatch.runner.turns import Runner

PAUSE_LOOK_S: Final = 0.05
"""Seconds between two looks whether a pause of everyone is over, and between two words of pauses that differ little."""


class OwnerNews:
    """Between the coordinator and a runner; as `OtherOwners` it is told what the runner's calls show.

    `worker`: the owner's number. `clock`: seconds. `concurrency`: requests that all owners may have in flight.
    """

    def __init__(self, worker: int, asking: Asking, clock: Callable[[], float], concurrency: int) -> None:
        self.on_held: Callable[[], None] = lambda: None
        """Called where a call is held."""
        self._worker = worker
        self._asking = asking
        self._clock = clock
        self._concurrency = concurrency
        self._ceiling = 1
        self._told: dict[int, QueueTold] = {}  # the newest of each queue
        self._orders: list[StopOrder] = []
        self._is_obeying = False
        self._is_idle = False
        self._paused_until: dict[int, float] = {}  # as this owner told it, by queue
        self._runner: Runner | None = None
        self._hearing: Hearing | None = None

    def begin(self, runner: Runner) -> Hearing:
        """Hear for a runner that is about to send; what was told before counts for it."""
        self._runner = runner
        self._hearing = hearing = Hearing(runner, self._concurrency)
        hearing.set_ceiling(self._ceiling)
        hearing.set_idle(is_idle=self._is_idle)
        hearing.told(tuple(self._told.values()))
        for order in self._orders:
            self._obey(order)
        return hearing

    async def watch(self) -> None:
        """Hear at once what can't wait for the next lease."""
        seen = 0
        while True:
            news = await self._asking.ask(Watch(self._worker, seen), News)
            seen = max(seen, news.number)
            self.hear(news.queues)
            self.obey(news.stops)

    # -- what is told ------------------------------------------------------------------------------------------------

    def set_ceiling(self, ceiling: int) -> None:
        """How many requests may be in flight here."""
        if ceiling != self._ceiling:
            self._ceiling = ceiling
            if self._hearing is not None:
                self._hearing.set_ceiling(ceiling)

    def hear(self, queues: Sequence[QueueTold]) -> None:
        """Take what others have seen of models."""
        self._told.update((each.queue, each) for each in queues)
        if self._hearing is not None:
            self._hearing.told(queues)

    def obey(self, orders: Sequence[StopOrder]) -> None:
        """Stop what is to stop; an order that is told again does nothing."""
        for order in orders:
            if order not in self._orders:
                self._orders.append(order)
                self._obey(order)

    def stop_now(self, stop: Stop) -> None:
        """Send no more, and give up what is in flight; nobody else is told."""
        self._is_obeying = True
        if self._runner is not None:
            self._runner.stop_now(stop)

    def send_ready(self) -> None:
        """What was waited for may be there."""
        if self._runner is not None:
            self._runner.advance_soon()

    def set_idle(self, *, is_idle: bool) -> bool:
        """Whether there is no range for this owner now; returns whether that is new."""
        was_idle, self._is_idle = self._is_idle, is_idle
        if self._hearing is not None:
            self._hearing.set_idle(is_idle=is_idle)
        return is_idle and not was_idle

    def report(self) -> tuple[QueueReport, ...]:
        """What was seen of each model."""
        return () if self._hearing is None else self._hearing.report()

    def _obey(self, order: StopOrder) -> None:
        if self._hearing is None:
            return
        was_obeying, self._is_obeying = self._is_obeying, True
        try:
            self._hearing.ordered(order)
        finally:
            self._is_obeying = was_obeying

    # -- what the calls show: `OtherOwners` --------------------------------------------------------------------------

    def paused(self, queue: int, wait_s: float, *, is_everyones: bool) -> None:
        """See `OtherOwners`. The others are not told again of a pause that they know."""
        now = self._clock()
        known_until = self._paused_until.get(queue, now)
        if now + wait_s <= known_until + max(PAUSE_LOOK_S, wait_s / 10) and known_until > now:
            return
        self._paused_until[queue] = now + wait_s
        self._asking.say(Pushback(self._worker, queue, wait_s, is_everyones))
        if is_everyones and known_until <= now:
            self._asking.go_on(self._resume(queue))

    def held(self) -> None:
        """See `OtherOwners`."""
        self.on_held()

    def stopped(self, stop: Stop, queue: int | None) -> None:
        """See `OtherOwners`."""
        if not self._is_obeying:
            self._asking.say(Stopping(self._worker, StopOrder(words_of(stop), queue=queue)))

    async def _resume(self, queue: int) -> None:
        """Say when a probe was answered before the pause was over."""
        while self._hearing is not None and self._hearing.is_paused(queue):
            await self._asking.unless_over(PAUSE_LOOK_S)
            self._asking.raise_if_over()
        if self._clock() < self._paused_until.pop(queue, 0.0):
            self._asking.say(Resume(self._worker, queue))
