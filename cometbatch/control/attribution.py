"""Whose failure a failure is: the row's, or everyone's. Pure.

While others are answered, a row's failure is its own. While nobody is, a failure may say nothing of its row: it is
held back until the next answer, and where none comes the run stops with the rows that were held unrecorded.
"""

from collections import deque
from typing import Generic, Literal, TypeAlias, TypeVar

from msgspec import Struct

from cometbatch.records import Failure, FailureKind

T = TypeVar("T")
Cause: TypeAlias = Literal["wrong_address", "unreached", "refusal", "exhausted"]
OF_AN_ADDRESS: frozenset[Cause] = frozenset({"wrong_address", "unreached"})  # signs of a wrong address
TO_CHECK: dict[Cause, str] = {
    "wrong_address": "target.base_url, target.model, the service",
    "unreached": "the service's address and the network",
    "refusal": "prompt, params and target",
    "exhausted": "target.base_url, target.model, the service",
}

OUTAGE_FAILURES: frozenset[FailureKind] = frozenset({"connection", "overloaded"})  # what an outage looks like,
OUTAGE_ROWS = 4  # where so many rows have met it since the last answer
CROWD_REPLIES = 32  # of the last ones; where as many rows as make an outage were refused among them, all are
OUTAGE_S = 30.0  # from the last answer on: after that, rows that fail at every attempt are taken for what they are
BAD_REQUEST = 400  # from this status on, nothing was generated


class HeldFailure(Struct, Generic[T], frozen=True):
    """A row that can't be answered at a time when nothing is.

    `cause`: a page instead of an answer, attempts used up before the service was ever reached, a refusal, or attempts
    used up. `unanswered_in_a_row`: so many of its attempts in a row failed without anyone being answered in between.
    """

    row: T
    failure: Failure
    latency_s: float
    cause: Cause
    unanswered_in_a_row: int = 0


class HeldFailures(Generic[T]):
    """What is held back, and what has been seen of the service.

    `works`: it has answered before this session. `max_alike`: so many rows held back stop the run; `max_pages` of
    them are enough where a wrong address explains all.
    """

    def __init__(self, *, works: bool, max_alike: int, max_pages: int) -> None:
        self.works = works
        self.answers = 0
        self._max_alike = max_alike
        self._max_pages = min(max_pages, max_alike)
        self._answered_at = 0.0  # seconds on the caller's clock
        self._struck: set[int] = set()  # rows that failed since the last answer, as many as it takes to see an outage
        self._held: list[HeldFailure[T]] = []
        self._refused: deque[int | None] = deque(maxlen=CROWD_REPLIES)  # the row, or None for an answer

    @property
    def any(self) -> bool:
        """Whether a row is held back."""
        return bool(self._held)

    @property
    def is_outage(self) -> bool:
        """Whether rows fail side by side since the last answer."""
        return len(self._struck) >= OUTAGE_ROWS

    def answered(self, now: float) -> bool:
        """Something was answered. Returns whether a row is held back, which may be released now."""
        self._answered_at = now
        self.works = True
        self.answers += 1
        self._struck.clear()
        self._refused.append(None)
        return bool(self._held)

    def failed(self, row: int, kind: FailureKind) -> None:
        """An attempt of a row failed."""
        if kind == "overloaded":
            self._refused.append(row)
        if not self.is_outage:
            self._struck.add(row)

    def is_crowded(self, kind: FailureKind, now: float) -> bool:
        """Whether a refusal is everyone's: the service can do less than it is asked to, and answers the others."""
        if kind != "overloaded" or now - self._answered_at >= OUTAGE_S:
            return False
        return len(set(self._refused) - {None}) >= OUTAGE_ROWS

    def is_excused(self, kind: FailureKind, now: float, *, is_tail: bool = False) -> bool:
        """Whether a row that has used up its attempts gets more of them, because nobody is answered just now.

        `is_tail`: no further rows are left to tell an outage by.
        """
        is_recent = self.answers > 0 and now - self._answered_at < OUTAGE_S
        return is_recent and (self.is_outage or is_tail) and kind in OUTAGE_FAILURES

    def is_doubtful(self, doubt: HeldFailure[T]) -> bool:
        """Whether the next answer is to be waited for before the row fails.

        A page tells nothing of its row at any time, nor does a service that is not there; attempts used up tell nothing
        while no one is answered, and a refusal nothing before the service has ever answered: rows that are wrong may
        stand side by side. A timeout may have been billed each time, so its row is not tried over and over.
        """
        match doubt.cause:
            case "wrong_address" | "unreached":
                return True
            case "exhausted":
                return self.is_outage and doubt.unanswered_in_a_row > 1 and doubt.failure.kind != "timeout"
            case "refusal":
                return not self.works and (doubt.failure.status or 0) >= BAD_REQUEST

    def hold(self, doubt: HeldFailure[T]) -> list[HeldFailure[T]]:
        """Hold a row back. Returns those that are certain now: refusals that differ are the rows' own."""
        refusals = [held for held in self._held if held.cause == "refusal"]
        certain = refusals if doubt.cause == "refusal" and any(_differ(held, doubt) for held in refusals) else []
        self._held = [held for held in self._held if held not in certain] + [doubt]
        return certain

    def release(self) -> list[HeldFailure[T]]:
        """All that is held back, which no longer is."""
        released, self._held = self._held, []
        return released

    def reason_to_stop(self, *, is_over: bool = False) -> tuple[str, str] | None:
        """What happened and what to check, where too many rows are held back, or where the table is over.

        At its end only a wrong address stops the run: other failures are the rows' own.
        """
        if not self._held:
            return None
        causes = {doubt.cause for doubt in self._held}
        is_wrong_address = is_over and causes <= OF_AN_ADDRESS and not self.works
        if len(self._held) < self._enough(causes) and not is_wrong_address:
            return None
        doubt = self._held[-1]
        since = "since the last answer" if self.works else "and no request has worked"
        return (
            f"{len(self._held)} rows failed alike {since}: {doubt.failure.message}",
            f"Check {TO_CHECK[doubt.cause]}; none of these rows was recorded.",
        )

    def _enough(self, causes: set[Cause]) -> int:
        """So many rows held back for these causes stop the run."""
        if causes == {"unreached"}:
            return min(OUTAGE_ROWS, self._max_pages)  # each tried as often as a row may be
        return self._max_pages if causes <= OF_AN_ADDRESS else self._max_alike


def _differ(one: HeldFailure[T], other: HeldFailure[T]) -> bool:
    a, b = one.failure, other.failure
    return (a.kind, a.status, a.code) != (b.kind, b.status, b.code)
