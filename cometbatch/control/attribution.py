"""Whose failure a failure is: the call's, or everyone's. Pure.

While others are answered, a call's failure is its own. While nobody is, a failure may say nothing of its call: it is
held until the next answer. Where no answer comes, the run stops, and the calls that were held stay unrecorded.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Generic, Literal, TypeAlias, TypeVar, assert_never

from msgspec import Struct

from cometbatch.control.failure_words import in_short
from cometbatch.errors import Quoting
from cometbatch.records import Failure, FailureKind, Fix

T = TypeVar("T")
Cause: TypeAlias = Literal["wrong_address", "unreached", "refusal", "account", "exhausted"]
"""Why a call can't be answered.

wrong_address: a page or a redirect came in place of an answer; unreached: its attempts are used up, and no connection
was ever made; refusal: the service refused it for good; account: at each of its attempts the key or the account was
refused, and nobody was answered in between; exhausted: its attempts are used up.
"""

OUTAGE_ROWS: Final = 4
"""Calls that fail one after the other without an answer in between. Fewer are the calls' own failures; from this many
on, it is an outage, and their attempts do not count."""

ACCOUNT_REFUSALS: Final = 8
"""Refusals of the key or the account in a row, after which the run stops. Fewer may be one route's: where one request
of ten meets such a route, four in a row come once in ten thousand requests, eight hardly ever."""

ASKED_TO_WAIT: Final = 4
"""Refusals with `Retry-After` in a row, after which nobody sends. Fewer may be one route's."""

ASKED_TO_WAIT_S: Final = 0.2
"""Seconds that these refusals last at least. Sooner, a service that still answers a few has had no time to."""

UNDER_WAY: Final = 0.1
"""Share of the requests sent since the first refusal that may be under way for longer than refusals take. Where more
are, they may yet be answered, and the refusals are not everyone's."""

OUTAGE_S: Final = 30.0
"""Seconds since the last answer. Up to this, calls that meet an outage get further attempts; after it, they fail."""

OUTAGE_FAILURES: Final[frozenset[FailureKind]] = frozenset({"connection", "overloaded"})
"""The kinds of failure that an outage shows as. Others count against their call also during an outage."""

CROWD_REPLIES: Final = 32
"""Replies looked back at for refusals of overload. Where `OUTAGE_ROWS` calls are among them, the service can do less
than it is asked to, and a refusal says nothing of its call. More replies would find a crowd that is long gone."""

BAD_REQUEST: Final = 400
"""The lowest HTTP status of a refusal. Below it, something was generated, so the failure is the call's own."""

_ADDRESS_CAUSES: Final[frozenset[Cause]] = frozenset({"wrong_address", "unreached"})
_TO_CHECK: Final[dict[Cause, tuple[str, Fix]]] = {
    "wrong_address": ("target.base_url, target.model, the service", "job"),
    "unreached": ("the service's address and the network", "wait"),
    "refusal": ("prompt, params and target", "job"),
    "account": ("the API key and the account's balance", "account"),
    "exhausted": ("target.base_url, target.model, the service", "job"),
}


class HeldFailure(Struct, Generic[T], frozen=True):
    """A call that can't be answered at a time when no call is.

    `unanswered_in_a_row`: how many of its last attempts failed with no answer to anyone in between.
    """

    call: T
    failure: Failure
    latency_s: float
    cause: Cause
    unanswered_in_a_row: int = 0


class ReasonToStop(Struct, frozen=True):
    """What happened, what to check (a sentence), and what has to be mended (a word)."""

    message: str
    hint: str
    fix: Fix


class HeldFailures(Generic[T]):
    """The failures that are held, and what has been seen of the service.

    `works`: it has answered before this session. `max_alike`: this many held calls stop the run. `max_misdirected`:
    this many are enough where a wrong address explains all of them.
    """

    def __init__(self, *, works: bool, max_alike: int, max_misdirected: int) -> None:
        self.works = works
        self.answers = 0
        self._max_alike = max_alike
        self._max_misdirected = min(max_misdirected, max_alike)
        self._answered_at = 0.0  # seconds on the caller's clock
        self.held_by_others: Mapping[Cause, int] = {}  # by other owners of the run, now
        self._failed: set[int] = set()  # calls that failed since the last answer; no more than show an outage
        self._held: list[HeldFailure[T]] = []
        self._recent: deque[int | None] = deque(maxlen=CROWD_REPLIES)  # the last replies: a refused call's ordinal, or
        # None for an answer

    @property
    def any(self) -> bool:
        """Whether a failure is held."""
        return bool(self._held)

    @property
    def by_cause(self) -> dict[Cause, int]:
        """How many failures are held, of each cause."""
        return dict(Counter(held.cause for held in self._held))

    @property
    def is_outage(self) -> bool:
        """Whether several calls have failed since the last answer."""
        return len(self._failed) >= OUTAGE_ROWS

    def answered(self, now: float) -> bool:
        """Somebody was answered. Returns whether a failure is held, which may be released now."""
        self._answered_at = now
        self.works = True
        self.answers += 1
        self._failed.clear()
        self._recent.append(None)
        return bool(self._held)

    def others_answered(self, answers: int, now: float) -> bool:
        """Other owners had this number of answers since the last word, one at least. Returns as `answered` does."""
        self.answers += answers - 1
        return self.answered(now)

    def failed(self, ordinal: int, kind: FailureKind) -> None:
        """An attempt of a call failed."""
        if kind == "overloaded":
            self._recent.append(ordinal)
        if not self.is_outage:
            self._failed.add(ordinal)

    def is_crowded(self, kind: FailureKind, now: float) -> bool:
        """Whether a refusal is everyone's: the service can do less than it is asked to, and answers the others."""
        if kind != "overloaded" or now - self._answered_at >= OUTAGE_S:
            return False
        return len(set(self._recent) - {None}) >= OUTAGE_ROWS

    def is_excused(self, kind: FailureKind, now: float, *, may_be_billed: bool, is_tail: bool = False) -> bool:
        """Whether a call that has used up its attempts gets more of them, because nobody is answered just now.

        A failure that may have been billed is never excused: each further attempt may be, too. `is_tail`: no further
        calls are left that could show an outage.
        """
        is_recent = self.answers > 0 and now - self._answered_at < OUTAGE_S
        return is_recent and not may_be_billed and (self.is_outage or is_tail) and kind in OUTAGE_FAILURES

    def should_hold(self, held: HeldFailure[T]) -> bool:
        """Whether to wait for the next answer before the call fails.

        A page tells nothing of its call at any time, nor does a service that is not there. Attempts used up tell
        nothing while no one is answered, a refusal nothing before the service has ever answered: calls that are wrong
        may follow each other. A timeout may have been billed each time, so its call is not tried over and over.
        """
        match held.cause:
            case "wrong_address" | "unreached" | "account":
                return True
            case "exhausted":
                return self.is_outage and held.unanswered_in_a_row > 1 and held.failure.kind != "timeout"
            case "refusal":
                return not self.works and (held.failure.status or 0) >= BAD_REQUEST
            case _:
                assert_never(held.cause)

    def hold(self, doubtful: HeldFailure[T]) -> list[HeldFailure[T]]:
        """Hold a failure. Returns those that are certain now: refusals that differ are the calls' own."""
        refusals = [held for held in self._held if held.cause == "refusal"]
        differ = doubtful.cause == "refusal" and any(_differ(held, doubtful) for held in refusals)
        certain = refusals if differ else []
        self._held = [held for held in self._held if held not in certain] + [doubtful]
        return certain

    def release(self) -> list[HeldFailure[T]]:
        """All that were held; from now on, none is."""
        released, self._held = self._held, []
        return released

    def reason_to_stop(self, *, is_over: bool = False) -> ReasonToStop | None:
        """Why the run stops, where too many failures are held, or where there are no more calls (`is_over`).

        At the end only a wrong address, or a refused account, stops the run: other failures are the calls' own.
        """
        if not self._held:
            return None
        count = len(self._held) + sum(self.held_by_others.values())
        causes = {held.cause for held in self._held}.union(self.held_by_others)
        is_wrong_address = causes <= _ADDRESS_CAUSES and not self.works
        stops_at_end = is_over and (is_wrong_address or "account" in causes)
        if count < self._enough(causes) and not stops_at_end:
            return None
        last = self._held[-1]
        since = "since the last answer" if self.works else "and no request has worked"
        to_check, fix = _TO_CHECK[last.cause]
        words = f"{count} rows failed with the same error {since}: "
        return ReasonToStop(
            Quoting(words + last.failure.message, words + in_short(last.failure)),
            f"Check {to_check}; none of these rows was recorded.",
            fix,
        )

    def _enough(self, causes: set[Cause]) -> int:
        """How many held failures of these causes stop the run."""
        if causes == {"unreached"}:  # few are enough: each of these calls has used up all of its attempts
            return min(OUTAGE_ROWS, self._max_misdirected)
        return self._max_misdirected if causes <= _ADDRESS_CAUSES else self._max_alike


class RefusalsInARow:
    """Refusals of one kind, with no answer in between to a request that was sent after the first of them.

    `enough`: this many can be everyone's. `min_s`: seconds that they last at least before they can be.
    """

    def __init__(self, enough: int, min_s: float = 0.0) -> None:
        self._enough = enough
        self._min_s = min_s
        self._count = 0
        self._first_sent_at = math.inf  # when the first refused request was sent
        self._since = math.inf  # when its refusal came
        self._longest_s = 0.0  # that a refusal took

    def answered(self, sent_at: float) -> None:
        """A request that was sent at this time was answered."""
        if sent_at >= self._first_sent_at:
            self._count, self._first_sent_at, self._longest_s = 0, math.inf, 0.0

    def add(self, sent_at: float, now: float) -> None:
        """One more; its request was sent at `sent_at`."""
        if not self._count:
            self._first_sent_at, self._since = sent_at, now
        self._count += 1
        self._longest_s = max(self._longest_s, now - sent_at)

    def are_everyones(self, now: float, in_flight: Callable[[float, float], int]) -> bool:
        """Whether everybody is refused. `in_flight`: how many requests are, that were sent from one time to another."""
        if self._count < self._enough or now - self._since < self._min_s:
            return False
        under_way = self.under_way(now, in_flight)
        return under_way <= max(1.0, UNDER_WAY * (self._count + under_way))

    def under_way(self, now: float, in_flight: Callable[[float, float], int]) -> int:
        """How many requests that were sent since the first refusal take longer than a refusal does."""
        return in_flight(self._first_sent_at, now - self._longest_s)


class Account:
    """What all queues of a run have seen of the key and the account: one model's answer shows that both are accepted.

    `queues`: the numbers of those that still send. `answers`: to anyone, in this session. `refused`: refusals of the
    key or the account in a row.
    """

    def __init__(self, queues: Iterable[int] = (0,)) -> None:
        self.queues = set(queues)
        self.answers = 0
        self.refused = RefusalsInARow(ACCOUNT_REFUSALS)
        self._refused_queues: set[int] = set()

    def others_answered(self, answers: int, now: float) -> None:
        """Other owners had this number of answers since the last word."""
        self.answers += answers
        self.refused.answered(now)

    def is_doubtful(self, queue: int) -> bool:
        """Whether a refusal that a queue met may be one route's: others are answered, or were not refused yet."""
        self._refused_queues.add(queue)
        return self.answers > 0 or not self.queues <= self._refused_queues


def _differ(one: HeldFailure[T], other: HeldFailure[T]) -> bool:
    a, b = one.failure, other.failure
    return (a.kind, a.status, a.code) != (b.kind, b.status, b.code)
