"""What is told of a run while it goes: the sums over its queues, or what concerns one of them, by its name."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from cometbatch.control.budget import Budget
from cometbatch.errors import Quoting, logged
from cometbatch.money.exact import EXACT
from cometbatch.runner.books import set_aside_for
from cometbatch.runner.model_queue import ModelQueue
from cometbatch.runner.ports import Pace

NAMED: Final = 2
"""Queues that are named when it is told what they wait for; more are counted."""


class Told:
    """How a run goes at this moment. What has come to its end is left out, unless all has."""

    def __init__(self, queues: Sequence[ModelQueue], concurrency: int, budget: Budget | None) -> None:
        self._queues = queues
        self._concurrency = concurrency
        self._budget = budget

    @property
    def pace(self) -> Pace:
        """How fast it may send at present, all queues together."""
        paces = [queue.pace for queue in self._sending()]
        rates = [pace.per_s for pace in paces if pace.per_s is not None]
        window = min(self._concurrency, sum([pace.window for pace in paces]))
        return Pace(window, sum(rates) if len(rates) == len(paces) else None)

    @property
    def unanswered_s(self) -> float:
        """Seconds for which a queue had no answer, although requests failed or hung; 0 where there is no such queue."""
        return max([queue.unanswered_s for queue in self._sending()])

    @property
    def spent_usd(self) -> Decimal | None:
        """US dollars booked by now, possible charges included, without what is set aside; None without a budget."""
        if self._budget is None:
            return None
        begun = [call for queue in self._queues for call in queue.sender.begun]
        return EXACT.subtract(self._budget.taken, set_aside_for(begun))

    @property
    def largest_output_tokens(self) -> int:
        """The most tokens of any answer so far, those of earlier sessions included."""
        return max([queue.books.largest_output_tokens for queue in self._queues])

    def waiting_for(self) -> str:
        """What keeps the next request back, in a few words for a person; "" where nothing does.

        Where some queues wait and others don't, or for something else, or have ended, it is told of each by its name.
        """
        words = {queue.name: queue.waiting_for() for queue in self._sending()}
        if len(words) == len(self._queues) and len(set(words.values())) <= 1:
            return next(iter(words.values()), "")
        waiting = [f"{name}: {each}" for name, each in words.items() if each]
        more = f"; {len(waiting) - NAMED} more models wait" if len(waiting) > NAMED else ""
        return "; ".join(waiting[:NAMED]) + more

    def silences(self) -> Mapping[int, str]:
        """What a person should know who waits for answers in vain, by the queue's number; empty where all is well."""
        is_single = len(self._queues) == 1
        ending = "the run stops" if is_single else "the cells of this model stop"
        found = {queue.number: words for queue in self._sending() if (words := queue.silence(ending))}
        if is_single:
            return found
        names = {number: self._queues[number].name for number in found}
        return {
            number: Quoting(f"{names[number]}: {words}", f"{names[number]}: {logged(words)}")
            for number, words in found.items()
        }

    def _sending(self) -> Sequence[ModelQueue]:
        return [queue for queue in self._queues if not queue.is_closed] or self._queues
