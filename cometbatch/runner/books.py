"""The one place where money and records are booked: what an attempt can cost, came to, or may have come to.

Each queue has its own books: what its answers show of a model says nothing of another. Budget and marks are the run's.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import reduce

from msgspec import Struct

from cometbatch.control.budget import CostBounds, ProvenBounds
from cometbatch.control.classify import may_be_billed
from cometbatch.money.exact import EXACT
from cometbatch.records import (
    CONTRADICTION,
    Failed,
    Failure,
    PossibleCharge,
    Record,
    RejectedAsk,
    TransportFailure,
    Usage,
)
from cometbatch.results.columns import outcomes_in
from cometbatch.runner.ports import Reply, Stop
from cometbatch.runner.queue_start import QueueStart
from cometbatch.runner.sharing import Shared
from cometbatch.runner.slots import LATENCY_DIGITS, OpenCall, Slot

NOTHING = Decimal(0)  # US dollars
_WHOLES = ("input_tokens", "output_tokens")  # counts without which a cost is unknown


class Books:
    """What a queue books: reservations, possible charges, marks, and the records of a turn until they are written.

    `start`: what is known of the queue.
    """

    def __init__(self, shared: Shared, start: QueueStart) -> None:
        earlier, budget = start.earlier, shared.budget
        self._to = shared.records
        self._price = shared.service.price
        self._limits = shared.limits
        self._marks = shared.marks
        self._observer = shared.observer
        self._now = shared.now
        self._budget = budget
        self._shared = None if budget is None or budget.shared is None else budget  # whose cap others share
        self.twins = start.twins
        self._proven = ProvenBounds(earlier.new_answers + earlier.rejected, is_exact=start.is_exact)
        self._bounds = CostBounds(
            shared.service.max_cost,
            largest_output_tokens=earlier.largest_output_tokens,
            largest_input_above_bytes=earlier.largest_input_above_bytes,
            writes_for_an_hour=earlier.cache_write_1h_input_tokens > 0,
        )
        self._unwritten: list[Record] = []
        self._unwritten_cells: list[int] = []  # of the attempts that these records tell of
        self._left: list[int] = []  # ordinals of calls that get no outcome in this session

    @property
    def largest_output_tokens(self) -> int:
        """The most tokens of any answer so far."""
        return self._bounds.largest_output_tokens

    def reserve(self, call: OpenCall, in_flight: int) -> bool:
        """Set aside what the call's next attempt can cost, once; False where the budget has no room for it yet.

        `in_flight`: requests of this queue.
        A call that waits for something else is set aside anew where an answer has raised what attempts can cost.
        """
        if call.is_reserved and not self._bounds.are_raised:
            return True
        self._bounds.are_raised = False
        budget = self._budget
        if budget is not None and call.is_reserved:
            budget.settle(call.max_cost or NOTHING, NOTHING)
        call.max_cost = cost = self._bounds.max_cost(call.request)
        call.is_reserved = budget is None or (
            (cost is None or self._proven.admits(in_flight)) and budget.reserve(cost or NOTHING)
        )
        return call.is_reserved

    def release(self, call: OpenCall) -> None:
        """What is set aside for a call that does not leave yet is there for others."""
        if call.is_reserved:
            call.is_reserved = False
            if self._budget is not None:
                self._budget.settle(call.max_cost or NOTHING, NOTHING)

    def waits_for_others(self, call: OpenCall) -> bool:
        """Whether other runs have taken the room for this call under a shared cap, and may give some of it back."""
        budget = self._budget
        if budget is None or budget.shared is None:
            return False
        return budget.shared.is_any_in_flight and budget.is_shared_short(call.max_cost or NOTHING)

    def budget_stop(self, call: OpenCall) -> Stop:
        """Why there is no room for the call."""
        budget, cost = self._budget, call.max_cost
        words = "" if budget is None else budget.describe(cost or NOTHING)
        if budget is not None and budget.is_shared_short(cost or NOTHING):
            return Stop("budget", words, "Raise max_cost_usd of the shared limits to resume.", "budget")
        return Stop("budget", words, "Raise budget.max_cost_usd to resume.", "budget", cost)

    def give_up(self, slots: Iterable[Slot]) -> None:
        """Nobody waits for these attempts any more: they may be billed, and their marks stay."""
        for slot in slots:
            if self._budget is not None:
                self._budget.give_up(slot.call.max_cost or NOTHING)
            if self._shared is not None:
                self._shared.count_in_flight(-1)

    def begin(self, slot: Slot) -> None:
        """Mark the slot's attempt as in flight, before it is sent."""
        call = slot.call
        if self._shared is not None:
            self._shared.count_in_flight(1)
        slot.cell = self._marks.begin(call.request.ordinal, call.ask, call.attempt, call.max_cost)

    def answered(self, slot: Slot, usage: Usage) -> tuple[Decimal | None, Decimal | None]:
        """Book an answer, at its most where its cost is unknown. Returns cost and, where that is None, its bound."""
        call, request = slot.call, slot.call.request
        cost_usd = booked = self._price(request, usage)
        above = self._bounds.learn(request, usage)
        if above:
            call.input_above_bytes = max(call.input_above_bytes, above)
        if cost_usd is None:
            booked = self._bounds.max_cost(request)
        if self._shared is not None:
            self._shared.count_in_flight(-1)
        if self._budget is not None:
            self._budget.settle(call.max_cost or NOTHING, booked or NOTHING)
            if call.max_cost is not None and booked is not None:
                self._proven.answered(call.max_cost, booked)
        call.is_reserved = False
        if self._limits.counts_tokens and usage.input_tokens is not None and usage.output_tokens is not None:
            self._limits.settle(call.charge, request.estimated_tokens, usage.input_tokens + usage.output_tokens)
        return cost_usd, booked if cost_usd is None else None

    def unanswered(self, slot: Slot, reply: Reply, usage: Usage | None = None) -> bool:
        """Book an attempt without an answer: as a possible charge where it may have been billed, which is returned.

        `usage`: token counts that stand beside its error. They say what it came to, where they say all of it.
        """
        call, booked, is_charge = slot.call, NOTHING, may_be_billed(reply)
        if is_charge:
            counted = None if usage is None else self._price(call.request, usage)
            max_cost = self._bounds.max_cost(call.request) if counted is None else counted
            ordinal, now = call.request.ordinal, self._now()
            charge = PossibleCharge(
                ordinal, now, "no_answer", max_cost, _describe(reply), ask=call.ask, attempt=call.attempt
            )
            self.add(charge, slot.cell)
            booked = max_cost or NOTHING
        else:
            self._marks.end(slot.cell, recorded=False)
        if self._shared is not None:
            self._shared.count_in_flight(-1)
        if self._budget is not None:
            self._budget.settle(call.max_cost or NOTHING, booked)
        call.is_reserved = False
        return is_charge

    def add(self, record: Record, cell: int | None = None) -> None:
        """Have a record written before the turn is over; `cell`: of the attempt that it tells of."""
        self._unwritten.append(record)
        if cell is not None:
            self._unwritten_cells.append(cell)

    def fail(self, call: OpenCall, failure: Failure, latency_s: float) -> None:
        """The call's outcome: no answer, at the cost of the asks that were rejected before."""
        sums = sum_of(call.rejected) if call.rejected else Sums()
        self.add(
            Failed(
                ordinal=call.request.ordinal,
                custom_id=call.request.custom_id,
                attempts=call.earlier_attempts + call.attempt,
                latency_s=round(latency_s, LATENCY_DIGITS),
                finished_at=self._now(),
                request_hash=call.request.request_hash,
                failure=failure,
                asks=call.ask,
                usage=sums.usage,
                cost_usd=sums.cost_usd,
                answered_attempts=tuple([ask.attempt for ask in call.rejected]),
                max_cost_usd=sums.max_cost_usd,
                target=call.request.target,
                largest_tokens=sums.largest_tokens,
            )
        )

    def leave(self, call: OpenCall) -> None:
        """The call gets no outcome in this session. Nobody is told before what was recorded of it is written."""
        self._left.append(call.request.ordinal)
        if self.twins is not None:
            self._left += self.twins.left(call.original or call.request)

    def write(self, in_flight: int) -> None:
        """Write the records down, then tell of them and end their attempts' marks.

        Where writing fails, these marks stay: nobody knows what was written.
        """
        if self._unwritten:
            self._write_records(in_flight)
        if self._left:
            left, self._left = self._left, []
            for ordinal in left:
                self._to.leave(ordinal)

    def _write_records(self, in_flight: int) -> None:
        records, self._unwritten = self._unwritten, []
        cells, self._unwritten_cells = self._unwritten_cells, []
        self._to.record(records)
        for cell in cells:
            self._marks.end(cell, recorded=True)
        if outcomes := outcomes_in(records):
            self._observer.recorded(outcomes, in_flight)
            if self.twins is not None:
                for taken in self.twins.settle(outcomes):
                    self._to.record(taken)
                    self._observer.recorded(taken, in_flight)


def set_aside_for(calls: Iterable[OpenCall]) -> Decimal:
    """US dollars that are set aside for these calls."""
    aside = [call.max_cost for call in calls if call.is_reserved and call.max_cost is not None]
    return reduce(EXACT.add, aside, NOTHING)


class Sums(Struct, frozen=True):
    """What several asks of a call came to. `max_cost_usd` bounds the cost where that is None."""

    usage: Usage = Usage()
    cost_usd: Decimal | None = None
    max_cost_usd: Decimal | None = None
    reported_cost_usd: Decimal | None = None
    cost_excludes: str | None = None
    largest_tokens: tuple[int, int] = (0, 0)


def sum_of(asks: Sequence[RejectedAsk]) -> Sums:
    """The sums over asks, of which there is one at least. What is unknown of one is unknown of all.

    But a count of cached or reasoning tokens that one answer leaves out is 0 beside another's that has it: so it is
    priced, and services leave it out where there are none.
    """
    usages = [ask.usage for ask in asks]
    counts = {name: [getattr(usage, name) for usage in usages] for name in Usage.__struct_fields__}
    cost = _sum([ask.cost_usd for ask in asks])
    bounds = [ask.max_cost_usd if ask.cost_usd is None else ask.cost_usd for ask in asks]
    completions = [ask.completion for ask in asks if ask.completion is not None]
    reported = [each.reported_cost_usd for each in completions]
    return Sums(
        usage=Usage(**{name: _count(name, some) for name, some in counts.items()}),
        cost_usd=cost,
        max_cost_usd=None if cost is not None else _sum(bounds),
        reported_cost_usd=_sum(reported) if len(reported) == len(asks) else None,
        cost_excludes=_excluded([each.cost_excludes for each in completions if each.cost_excludes]),
        largest_tokens=(
            max(map(int, filter(None, counts["input_tokens"])), default=0),
            max(map(int, filter(None, counts["output_tokens"])), default=0),
        ),
    )


def _count(name: str, counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    is_whole = len(known) == len(counts) or (known and name not in _WHOLES)
    return sum(known) if is_whole else None


def _excluded(said: Sequence[str]) -> str | None:
    """What the costs of several answers leave out; where one's token counts contradict each other, these alone."""
    contradictory = [words for words in said if words.startswith(CONTRADICTION)]
    kinds = dict.fromkeys(kind for words in said for kind in words.split(", "))
    return contradictory[0] if contradictory else ", ".join(kinds) or None


def _sum(amounts: Sequence[Decimal | None]) -> Decimal | None:
    known = [amount for amount in amounts if amount is not None]
    return reduce(EXACT.add, known, NOTHING) if len(known) == len(amounts) else None


def _describe(reply: Reply) -> str:
    return f"{reply.kind}: {reply.detail}" if isinstance(reply, TransportFailure) else f"HTTP {reply.status}, no answer"
