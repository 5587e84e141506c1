"""Who may work on what, how fast, for how long and for how much money: the one place where owners of a run agree.

A state machine that is told the time. It knows neither processes nor how messages travel.
"""

from collections.abc import Callable, Iterable, Sequence

from cometbatch.control.coordination.messages import Drive, Driven, News, Reply, Request
from cometbatch.control.coordination.settings import Settings
from cometbatch.records import Tally


class Coordinator:
    """All owners of one session of a run. `now` is in seconds, on one clock that never goes back and counts suspends."""

    def __init__(
        self,
        settings: Settings,
        ranges: Sequence[int],
        add: Callable[[Tally, Tally], Tally],
        *,
        lines: Iterable[bytes] | None = None,
    ) -> None:
        """`ranges`: those that are due, ascending; a `range` will do. `add`: `results.tallies.add`.

        `lines`: what an earlier coordinator of this session wrote down, where this one takes its place (there may be
        none); None where this one is the first.
        """

    def handle(self, request: Request, now: float) -> Reply:
        """Answer an owner."""
        raise NotImplementedError

    def drive(self, word: Drive, now: float) -> Driven:
        """Answer the driver."""
        raise NotImplementedError

    def tick(self, now: float) -> None:
        """Notice what time alone changes. Called ten times a second: a longer gap is taken for a pause of ours."""

    def news_beyond(self, seen: int, owner: int, now: float) -> News | None:
        """What an owner has not seen yet; None where that is nothing."""

    def unwritten(self) -> list[bytes]:
        """Lines to be written down, in order, before what was answered last is sent; each is returned once."""
        return []
