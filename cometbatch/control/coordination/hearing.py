"""What all owners together have heard of the service, and what everybody is told of it. Pure, told the time."""

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from cometbatch.control.attribution import Cause
from cometbatch.control.coordination.messages import (
    News,
    Pushback,
    QueueReport,
    QueueTold,
    Report,
    Resume,
    StopOrder,
)
from cometbatch.control.coordination.pace import Pace
from cometbatch.control.coordination.settings import Settings


class _Pause(Struct):
    number: int = 0
    until: float = 0.0
    prober: int | None = None  # who alone tries meanwhile, and says when it is over


class Heard:
    """Of one model: answers and failures of each owner, and the pause that the service asked for."""

    def __init__(self, queue: int) -> None:
        self._queue = queue
        self._reports: dict[int, QueueReport] = {}
        self._gone = QueueReport(queue)  # of owners that are no more: sums
        self._pause = _Pause()

    def heard(self, owner: int, report: QueueReport) -> bool:
        """An owner's word, later than its last one; returns whether the others should know at once."""
        before = self._reports.get(owner)
        others = [each for number, each in self._reports.items() if number != owner]
        self._reports[owner] = report
        is_first = not any(each.is_json for each in (*others, self._gone))
        is_json = report.is_json and is_first and not (before is not None and before.is_json)
        has_answers = report.answers > (0 if before is None else before.answers)
        return is_json or (has_answers and any(each.held for each in others))

    def told(self, owner: int, now: float) -> QueueTold:
        """What an owner is told, without its share of the rate."""
        others = [self._gone, *(each for number, each in self._reports.items() if number != owner)]
        held: Counter[Cause] = Counter()
        for each in others:
            held.update(each.held)
        return QueueTold(
            self._queue,
            answers=sum(each.answers for each in others),
            not_json=sum(each.not_json for each in others),
            cut=sum(each.cut for each in others),
            is_json=any(each.is_json for each in others),
            held=dict(held),
            pause_s=0.0 if owner == self._pause.prober else max(0.0, self._pause.until - now),
            pause=self._pause.number,
        )

    def pause(self, owner: int, wait_s: float, now: float, *, is_everyones: bool) -> None:
        """The service asks to wait. Of everyone's pause, its last word to the owner who began it counts."""
        prober = self._pause.prober if self._pause.until > now else None
        if prober is None and is_everyones:
            prober = owner
        until = now + wait_s if owner == prober else max(now + wait_s, self._pause.until)
        self._pause = _Pause(self._pause.number + 1, until, prober)

    def resume(self, owner: int, now: float) -> bool:
        """It answers again, as the owner says who probes, or anybody where none does; returns whether it was silent."""
        if self._pause.prober not in {None, owner}:
            return False
        was_on = self._pause.until > now
        self._pause.until, self._pause.prober = now, None
        return was_on

    def drop(self, owner: int, now: float) -> bool:
        """The owner is no more; what it held is nobody's. Returns whether the others should know at once."""
        report, gone = self._reports.pop(owner, QueueReport(self._queue)), self._gone
        self._gone = QueueReport(
            self._queue,
            answers=gone.answers + report.answers,
            not_json=gone.not_json + report.not_json,
            cut=gone.cut + report.cut,
            is_json=gone.is_json or report.is_json,
        )
        return self._pause.prober == owner and self.resume(owner, now)


class Stops:
    """Why sending ends: of the run, and of models. The first reason stands."""

    def __init__(self) -> None:
        self._orders: dict[int | None, StopOrder] = {}
        self._left: dict[int | None, StopOrder] = {}

    @property
    def orders(self) -> tuple[StopOrder, ...]:
        """All that were given."""
        return tuple(self._orders.values())

    @property
    def at_end(self) -> tuple[StopOrder, ...]:
        """All that were given, and why calls have no outcome although nobody was ordered to stop."""
        left = {} if self.is_stopped else self._left
        return tuple((left | self._orders).values())

    @property
    def is_stopped(self) -> bool:
        """Whether the whole run stops."""
        return None in self._orders

    def note_left(self, orders: Iterable[StopOrder]) -> None:
        """An owner has ended, and these are the reasons why calls of its ranges have no outcome."""
        for order in orders:
            self._left.setdefault(order.queue, order)

    def add(self, order: StopOrder) -> bool:
        """Note an order; returns whether it says anything new.

        What is in flight is given up where any order for the same model, or for the run, says so.
        """
        first = self._orders.get(order.queue)
        if first is not None and (first.is_now or not order.is_now):
            return False
        self._orders[order.queue] = order if first is None else StopOrder(first.words, True, order.queue)
        return True


class Hearing:
    """Of all models: what was heard of them, their adaptive rates, and the orders to stop. What is urgent is news."""

    def __init__(self, settings: Settings) -> None:
        self._heard = [Heard(queue) for queue in range(settings.queues)]
        self._paces = [Pace() for _ in range(settings.queues if settings.adaptive else 0)]
        self.stops = Stops()
        self.news = 1
        """Number of the newest news."""

    def join(self, owner: int, now: float) -> None:
        """An owner begins."""
        for pace in self._paces:
            pace.join(owner, now)

    def hear(self, owner: int, report: Report, now: float) -> None:
        """An owner's word, later than its last one."""
        for each in report.queues:
            if self._heard[each.queue].heard(owner, each):
                self.news += 1
            if self._paces:
                pace = self._paces[each.queue]
                was_unbound = pace.per_s is None
                pace.heard(owner, each, now)
                if was_unbound and pace.per_s is not None:
                    self.news += 1

    def told(self, owner: int, now: float) -> tuple[QueueTold, ...]:
        """What an owner is told of each model of which there is anything to tell."""
        return tuple(self._told(owner, now))

    def news_for(self, owner: int, now: float, *, is_lost: bool) -> News:
        """What an owner is told at once."""
        return News(self.news, self.told(owner, now), self.stops.orders, is_lost)

    def per_s(self) -> tuple[float | None, ...]:
        """The adaptive rate of each model; None where there is none yet."""
        return tuple(each.per_s for each in self._paces) or (None,) * len(self._heard)

    def pushback(self, word: Pushback, now: float) -> None:
        """The service asks to wait."""
        self._heard[word.queue].pause(word.owner, word.wait_s, now, is_everyones=word.is_everyones)
        self.news += 1

    def resume(self, word: Resume, now: float) -> None:
        """It answers again."""
        if self._heard[word.queue].resume(word.owner, now):
            self.news += 1

    def stop(self, order: StopOrder) -> bool:
        """Order everybody to stop; returns whether that is new."""
        is_new = self.stops.add(order)
        self.news += is_new
        return is_new

    def drop(self, owner: int, now: float, *, is_lost: bool) -> None:
        """The owner is no more; one that is lost should hear of it."""
        is_urgent = [each.drop(owner, now) for each in self._heard]
        for pace in self._paces:
            pace.drop(owner)
        self.news += is_lost or any(is_urgent)

    def _told(self, owner: int, now: float) -> Iterator[QueueTold]:
        for queue, heard in enumerate(self._heard):
            told = heard.told(owner, now)
            if self._paces:
                told = msgspec.structs.replace(told, per_s=self._paces[queue].shares().get(owner))
            if told != QueueTold(queue):
                yield told
