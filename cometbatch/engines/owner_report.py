"""What an owner tells of its work: collected as the runner goes, taken when a report is due.

What only one report may say (outcomes, words, committed partitions) stays with that report until it is known to have
arrived: so it is sent again as it was, and nothing is told twice or lost.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

from msgspec import Struct

from cometbatch.control.coordination.messages import QueueReport, Report
from cometbatch.control.granted_account import GrantedAccount
from cometbatch.errors import logged
from cometbatch.records import Outcome, Partition, Tally
from cometbatch.results import tallies
from cometbatch.results.codec import encode_record
from cometbatch.run_state.group_commit import SLOW_SYNC_S, slow_disk
from cometbatch.run_state.partition import Partitions
from cometbatch.runner.ports import Observer
from cometbatch.runner.turns import Runner

NOTHING: Final = Decimal(0)
COUNTED_AT_ONCE: Final = 128
"""Outcomes that wait to be counted. Fewer cost more CPU a row; more keep more answers in memory."""


class _Once(Struct, frozen=True):
    """What one report alone says."""

    outcomes: tuple[bytes, ...] = ()
    words: tuple[str, ...] = ()
    committed: tuple[int, ...] = ()


class Reporting:
    """Listens to a runner, as its observer does, and makes reports. `then`: who is told as well.

    `tells_outcomes`: each outcome is in a report.
    """

    def __init__(self, *, tells_outcomes: bool, then: Observer | None = None) -> None:
        self.on_first: Callable[[], None] = lambda: None
        """Called when the first outcome is recorded, which tells others that the service answers."""
        self._tells_outcomes = tells_outcomes
        self._then = then
        self._has_begun = False
        self._tally = Tally()
        self._uncounted: list[Outcome] = []
        self._outcomes: list[bytes] = []
        self._words: list[str] = []
        self._committed: list[int] = []
        self._retries = 0
        self._pushbacks = 0
        self._silent: set[int] = set()  # queues whose silence was told, since it began
        self._is_slow = False
        self._once: _Once | None = None  # of the report that was not confirmed yet
        self._runner: Runner | None = None
        self._partitions: Partitions | None = None

    def begin(self, runner: Runner, partitions: Partitions) -> None:
        """The runner is about to send."""
        self._runner, self._partitions = runner, partitions
        partitions.on_commit = self.committed

    # -- what is heard of the runner ---------------------------------------------------------------------------------

    def recorded(self, outcomes: Sequence[Outcome], in_flight: int) -> None:
        """See `Observer`."""
        self._uncounted += outcomes
        if not self._has_begun:
            self._has_begun = True
            self.on_first()
        if len(self._uncounted) >= COUNTED_AT_ONCE:
            self._count()
        if self._then is not None:
            self._then.recorded(outcomes, in_flight)

    def asked_to_slow_down(self, wait_s: float) -> None:
        """See `Observer`."""
        self._pushbacks += 1
        if self._then is not None:
            self._then.asked_to_slow_down(wait_s)

    def retried(self) -> None:
        """See `Observer`."""
        self._retries += 1
        if self._then is not None:
            self._then.retried()

    def committed(self, partition: Partition) -> None:
        """A part was written."""
        self._committed.append(partition.index)

    def say(self, words: str) -> None:
        """A person should read this; what it quotes of the service stays here."""
        self._words.append(logged(words))

    # -- reports -----------------------------------------------------------------------------------------------------

    def report(self, queues: tuple[QueueReport, ...], account: GrantedAccount | None) -> Report:
        """How the owner goes on. It says the same once more of what is said once, until that is `confirmed`."""
        self._count()
        self._look()
        runner = self._runner
        if self._once is None:
            self._once = _Once(tuple(self._outcomes), tuple(self._words), tuple(self._committed))
            self._outcomes, self._words, self._committed = [], [], []
        return Report(
            queues=queues,
            spent_usd=NOTHING if account is None else account.spent,
            reserved_usd=NOTHING if account is None else account.reserved,
            wanted_usd=None if account is None else account.wanted,
            is_money_in_flight=account is not None and account.may_give_back,
            recorded=self._tally,
            outcomes=self._once.outcomes,
            retries=self._retries,
            pushbacks=self._pushbacks,
            words=self._once.words,
            waiting_for="" if runner is None else logged(runner.told.waiting_for()),
            largest_output_tokens=0 if runner is None else runner.told.largest_output_tokens,
            committed=self._once.committed,
            unanswered_s=0.0 if runner is None else runner.told.unanswered_s,
        )

    def confirmed(self) -> None:
        """The last report has arrived."""
        self._once = None

    def _count(self) -> None:
        if not self._uncounted:
            return
        outcomes, self._uncounted = self._uncounted, []
        self._tally = tallies.add(self._tally, tallies.tally(outcomes))
        if self._tells_outcomes:
            self._outcomes += map(encode_record, outcomes)

    def _look(self) -> None:
        """Note what a person should know by now: silence of the service, a slow disk."""
        if self._runner is None or self._partitions is None:
            return
        silences = self._runner.told.silences()
        for queue in silences.keys() - self._silent:
            self.say(silences[queue])
        self._silent = set(silences)
        if (seconds := self._partitions.group_commit.slowest_s) > SLOW_SYNC_S and not self._is_slow:
            self.say(slow_disk(seconds))
            self._is_slow = True
