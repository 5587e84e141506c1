"""Who is told how a run goes beside its progress line: logs, metrics, telemetry. Never the reason that a run fails.

There is no work per row where nobody listens: the loop tells the progress line alone then.
"""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Final, Protocol

from msgspec import Struct

from cometbatch.job import Job
from cometbatch.records import Outcome, Partition, Tally
from cometbatch.results import tallies
from cometbatch.results.summary import RunSummary
from cometbatch.run_state.run import Run, counted
from cometbatch.runner.ports import Observer, Pace

COUNTED_AT_ONCE: Final = 128
"""Outcomes that wait to be counted. Fewer cost more CPU a row; more keep more answers in memory."""


class Moment(Struct, frozen=True):
    """A run at a moment, as it is looked at each second and once at its end.

    `at`: seconds on the event loop's clock. `tally`: of the run, over all sessions. `in_flight`: requests.
    `waiting_for`: what holds back the next request, in a few words; "" where nothing does. `unanswered_s`: seconds for
    which nothing was answered, although requests failed or hung; 0 else. `spent_usd`: US dollars that the budget has
    booked by now, possible charges included and what is set aside left out; None without a budget.
    """

    at: float
    tally: Tally
    in_flight: int
    waiting_for: str
    pace: Pace
    unanswered_s: float = 0.0
    spent_usd: Decimal | None = None


class Listener:
    """Who listens to a run: overrides what it wants to know. All calls come from the thread of the run's event loop.

    The order: `locked` before all others; `began` at most once; `recorded`, `asked_to_slow_down`, `retried`, `looked`,
    `committed` after it; `ended` last, once, and alone where the run did not get to its first request. A listener that
    raises is told nothing more.
    """

    takes_words = False
    """Whether it shows what a person is to read, in place of lines on standard error."""
    reads_tally = True
    """Whether it looks at the tally of a moment. Where nobody does, rows are not counted for it."""

    complain: Callable[[str], None] = staticmethod(lambda _words: None)
    """What it calls to have a warning told; set by who hands the run's calls on to it."""

    def locked(self, *, by_others: bool) -> None:
        """Another process has the run, or does not have it any more."""

    def began(self, job: Job, run: Run, limit: int | None) -> None:
        """A session is about to send. `run`: with what earlier sessions recorded. `limit`: as of the command."""

    def recorded(self, outcomes: Sequence[Outcome], in_flight: int) -> None:
        """Outcomes were written down, at least one. Called for each turn, so it must be quick."""

    def asked_to_slow_down(self, wait_s: float) -> None:
        """The service asks to slow down. `wait_s`: seconds that nobody sends; 0: the rate falls instead."""

    def retried(self) -> None:
        """A call will be sent again."""

    def looked(self, moment: Moment) -> None:
        """A second has passed, or the last call has its outcome."""

    def committed(self, partition: Partition) -> None:
        """A part was written."""

    def warned(self, words: str) -> None:
        """Something that whoever pays should know."""

    def noted(self, words: str) -> None:
        """Something that a person is told, and that is no warning."""

    def ended(self, summary: RunSummary | None, error: BaseException | None) -> None:
        """The run is over. `error`: what it raises; `summary`: what it came to, where that is known.

        A `RunStoppedError` has a summary; any other error has none.
        """


class Shown(Observer, Protocol):
    """The progress line."""

    def warn(self, words: str) -> None:
        """Tell whoever pays something, and those who listen, too."""


class Observers:
    """Hands what a run tells on to several listeners. One that raises is left out from then on, with a warning."""

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self._listeners = list(listeners)
        self._reads_tally = any(each.reads_tally for each in self._listeners)
        self._shown: Shown | None = None
        for each in self._listeners:
            each.complain = self._complain
        self._tally = Tally()
        self._uncounted: list[Outcome] = []

    def joined(self, listener: Listener) -> "Observers":
        """The same, and one more who listens."""
        return Observers([*self._listeners, listener])

    def beside(self, shown: Shown) -> Observer:
        """Whom the loop tells: `shown` alone where nobody listens, else itself, which tells `shown` first."""
        self._shown = shown
        return self if self._listeners else shown

    @property
    def any(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    @property
    def take_words(self) -> bool:
        """Whether one of them shows what a person is to read."""
        return any(each.takes_words for each in self._listeners)

    @property
    def tally(self) -> Tally:
        """What the run has come to by now, over all sessions; only of use where anybody listens."""
        if self._uncounted:
            self._count()
        return self._tally

    def recorded(self, outcomes: Sequence[Outcome], in_flight: int) -> None:
        """See `Listener`."""
        if self._shown is not None:
            self._shown.recorded(outcomes, in_flight)
        if self._reads_tally:
            self._uncounted += outcomes
        if len(self._uncounted) >= COUNTED_AT_ONCE:
            self._count()
        self._tell(lambda each: each.recorded(outcomes, in_flight))

    def asked_to_slow_down(self, wait_s: float) -> None:
        """See `Listener`."""
        if self._shown is not None:
            self._shown.asked_to_slow_down(wait_s)
        self._tell(lambda each: each.asked_to_slow_down(wait_s))

    def retried(self) -> None:
        """See `Listener`."""
        if self._shown is not None:
            self._shown.retried()
        self._tell(lambda each: each.retried())

    def locked(self, *, by_others: bool) -> None:
        """See `Listener`."""
        self._tell(lambda each: each.locked(by_others=by_others))

    def began(self, job: Job, run: Run, limit: int | None) -> None:
        """See `Listener`."""
        self._tally = counted(run, is_dead=False)
        self._tell(lambda each: each.began(job, run, limit))

    def looked(self, moment: Moment) -> None:
        """See `Listener`."""
        self._tell(lambda each: each.looked(moment))

    def committed(self, partition: Partition) -> None:
        """See `Listener`."""
        self._tell(lambda each: each.committed(partition))

    def warned(self, words: str) -> None:
        """See `Listener`."""
        self._tell(lambda each: each.warned(words))

    def noted(self, words: str) -> None:
        """See `Listener`."""
        self._tell(lambda each: each.noted(words))

    def ended(self, summary: RunSummary | None, error: BaseException | None) -> None:
        """See `Listener`."""
        self._tell(lambda each: each.ended(summary, error))

    def _count(self) -> None:
        outcomes, self._uncounted = self._uncounted, []
        self._tally = tallies.add(self._tally, tallies.tally(outcomes))

    def _tell(self, tell: Callable[[Listener], None]) -> None:
        for each in self._listeners.copy():
            try:
                tell(each)
            except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
                self._listeners.remove(each)
                self._complain(f"{type(each).__name__} failed and is told nothing more ({type(error).__name__})")

    def _complain(self, words: str) -> None:
        """Have a warning told, by the progress line where there is one, which hands it on to who listens."""
        tell = self.warned if self._shown is None else self._shown.warn
        tell(words)
