"""The one place where a run hears what its other owners have seen, and where it says what it has seen itself.

What others are answered releases what is held here, ends a silence, and shows that the model works; what they hold
counts towards the bounds that stop the run. Counts that are told are sums, so that a word that comes twice, or late,
changes nothing.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from cometbatch.control.coordination.messages import QueueReport, QueueTold, StopOrder, StopWords
from cometbatch.control.leased_rate import LeasedRate
from cometbatch.errors import Quoting, logged
from cometbatch.records import RejectedAsk
from cometbatch.runner.model_queue import ModelQueue
from cometbatch.runner.ports import Stop
from cometbatch.runner.turns import Runner

_NOTHING_SEEN: Final = LeasedRate(lambda: None)
"""What is told of a model whose requests no window slows down."""


class Hearing:
    """Hands what is told to the queues of a runner. `concurrency`: requests that all owners may have in flight."""

    def __init__(self, runner: Runner, concurrency: int) -> None:
        self._runner = runner
        self._concurrency = concurrency
        self._queues = [_QueueHearing(queue, runner) for queue in runner.queues]

    def told(self, queues: Iterable[QueueTold]) -> None:
        """Take what is told of models."""
        now = asyncio.get_running_loop().time()
        for each in queues:
            if each.queue < len(self._queues):
                self._queues[each.queue].told(each, now)
        self._runner.advance_soon()

    def recorded(self, queue: int, asks: Mapping[int, Sequence[RejectedAsk]]) -> None:
        """Others have recorded these asks of calls of a queue, which it will be handed."""
        self._queues[queue].queue.asks.recorded.update(asks)

    def set_ceiling(self, ceiling: int) -> None:
        """How many requests may be in flight here."""
        self._runner.slots.set_ceiling(ceiling)
        for queue in self._runner.queues:
            if queue.window is not None:
                queue.window.set_ceiling(ceiling)
            if queue.asks.first is not None:
                queue.asks.first.share = min(1.0, ceiling / self._concurrency)
        self._runner.advance_soon()

    def ordered(self, order: StopOrder) -> None:
        """Send no more. An order that was heard before does nothing."""
        stop = stop_of(order.words)
        if order.queue is not None:
            if order.queue < len(self._queues):
                self._queues[order.queue].queue.stop(stop)
        elif order.is_now:
            self._runner.stop_now(stop)
        else:
            self._runner.stop(stop)

    def set_idle(self, *, is_idle: bool) -> None:
        """Whether there is no range for this owner now."""
        for queue in self._runner.queues:
            queue.sender.has_no_range = is_idle

    def report(self) -> tuple[QueueReport, ...]:
        """What was seen of each model."""
        now = asyncio.get_running_loop().time()
        return tuple([each.report(now) for each in self._queues])

    def is_paused(self, queue: int) -> bool:
        """Whether everybody is refused, as this owner has found, and is not answered yet."""
        sender = self._queues[queue].queue.sender
        return sender.pause.is_on(asyncio.get_running_loop().time()) and not sender.is_closed


class _QueueHearing:
    """What was told of one model so far."""

    def __init__(self, queue: ModelQueue, runner: Runner) -> None:
        self.queue = queue
        self._runner = runner
        self._answers = 0
        self._pause = 0
        self._paused_until = float("-inf")

    def told(self, told: QueueTold, now: float) -> None:
        queue = self.queue
        if queue.window is not None and isinstance(queue.window.rate, LeasedRate):
            queue.window.rate.lease(told.per_s)
        self._told_pause(told, now)
        if told.answers > self._answers:
            answers, self._answers = told.answers - self._answers, told.answers
            self._others_answered(answers, now)
        queue.held.held_by_others = {cause: held for cause, held in told.held.items() if held}
        queue.attempts.stop_over_held()
        self._told_first_answers(told)
        queue.write()

    def report(self, now: float) -> QueueReport:
        queue, sender = self.queue, self.queue.sender
        first, rate = queue.asks.first, None if queue.window is None else queue.window.rate
        seen = rate if isinstance(rate, LeasedRate) else _NOTHING_SEEN
        waiting = sender.known_waiting if sender.waits_for_ranges else sender.wanted(now)
        return QueueReport(
            queue.number,
            sent=sender.sent_count,
            bound=seen.bound,
            refused=seen.refusals,
            sending_per_s=seen.sending_per_s,
            answers=queue.held.answers - self._answers,
            not_json=0 if first is None else first.own,
            cut=0 if first is None else first.own_cut,
            is_json=first is not None and first.is_over,
            held=queue.held.by_cause,
            waiting=0 if sender.is_closed else waiting,
            in_flight=len(sender.in_flight),
            is_out=seen.is_out,
        )

    def _told_pause(self, told: QueueTold, now: float) -> None:
        """A new pause begins, in which another owner alone probes; one that is over ends here, too."""
        sender = self.queue.sender
        if told.pause > self._pause and told.pause_s > 0:
            is_others_alone = sender.paused_until == self._paused_until
            self._paused_until = now + told.pause_s
            sender.paused_until = (
                self._paused_until if is_others_alone else max(sender.paused_until, self._paused_until)
            )
        elif told.pause >= self._pause and told.pause_s <= 0 and self._paused_until > now:
            if sender.paused_until == self._paused_until:
                sender.paused_until = now
            sender.pause.answered(now)
            self._paused_until = now
        self._pause = max(self._pause, told.pause)

    def _others_answered(self, answers: int, now: float) -> None:
        queue = self.queue
        is_any_held = queue.held.others_answered(answers, now)
        queue.patience.others_answered(answers, now)
        if queue.window is not None:
            queue.window.others_answered(now)
        if is_any_held:
            queue.attempts.release_held(now)

    def _told_first_answers(self, told: QueueTold) -> None:
        first = self.queue.asks.first
        if first is None or first.is_over:
            return
        first.others_added(told.not_json, told.cut)
        if told.is_json:
            first.is_over = True
            self.queue.asks.judge_held()
        else:
            self.queue.asks.stop_without_json()


def words_of(stop: Stop) -> StopWords:
    """A stop as it travels."""
    return StopWords(stop.kind, str(stop.message), logged(stop.message), str(stop.hint), stop.fix, stop.next_usd)


def stop_of(words: StopWords) -> Stop:
    """What `words_of` made travel. Raises `msgspec.ValidationError` for a kind that is none."""
    is_quoting = words.logged not in {"", words.message}
    message = Quoting(words.message, words.logged) if is_quoting else words.message
    fields = {"kind": words.kind, "message": "", "hint": words.hint, "fix": words.fix, "next_usd": words.next_usd}
    return msgspec.structs.replace(msgspec.convert(fields, Stop), message=message)
