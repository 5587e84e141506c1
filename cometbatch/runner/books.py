"""The one place where money and records are booked: what an attempt can cost, came to, or may have come to."""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import reduce

from cometbatch.control.budget import Budget, CostBounds
from cometbatch.control.classify import may_be_billed
from cometbatch.limiting.limits import Limits
from cometbatch.money.exact import EXACT
from cometbatch.records import (
    Failed,
    Failure,
    PossibleCharge,
    Record,
    Tally,
    TransportFailure,
    Usage,
)
from cometbatch.results.columns import outcomes_in
from cometbatch.runner.ports import Calls, Marks, Observer, Reply, Service
from cometbatch.runner.slots import OpenCall, Slot

NOTHING = Decimal(0)  # US dollars


class Books:
    """Budget, possible charges, marks and the records of a turn until they are written."""

    def __init__(
        self,
        calls: Calls,
        service: Service,
        *,
        limits: Limits,
        marks: Marks,
        observer: Observer,
        now: Callable[[], datetime],
        budget: Budget | None,
        earlier: Tally,
    ) -> None:
        self._calls = calls
        self._price = service.price
        self._limits = limits
        self._marks = marks
        self._observer = observer
        self._now = now
        self._budget = budget
        self._bounds = CostBounds(
            service.max_cost,
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
            (cost is None or budget.admits(in_flight)) and budget.reserve(cost or NOTHING)
        )
        return call.is_reserved

    def describe_budget(self, call: OpenCall) -> str:
        """Why there is no room for the call, in a sentence."""
        return "" if self._budget is None else self._budget.describe(call.max_cost or NOTHING)

    def begin(self, slot: Slot) -> None:
        """Mark the slot's attempt as in flight, before it is sent."""
        call = slot.call
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
        if self._budget is not None:
            self._budget.settle(call.max_cost or NOTHING, booked or NOTHING)
            if call.max_cost is not None and booked is not None:
                self._budget.answered(call.max_cost, booked)
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
        usage, cost_usd, max_cost_usd = sum_of(call, None, NOTHING, None) if call.rejected else (Usage(), None, None)
        self.add(
            Failed(
                ordinal=call.request.ordinal,
                custom_id=call.request.custom_id,
                attempts=call.earlier_attempts + call.attempt,
                latency_s=latency_s,
                finished_at=self._now(),
                request_hash=call.request.request_hash,
                failure=failure,
                asks=call.ask,
                usage=usage,
                cost_usd=cost_usd,
                answered_attempts=tuple([ask.attempt for ask in call.rejected]),
                max_cost_usd=max_cost_usd,
                target=call.request.target,
            )
        )

    def leave(self, call: OpenCall) -> None:
        """The call gets no outcome in this session. Nobody is told before what was recorded of it is written."""
        self._left.append(call.request.ordinal)

    def write(self, in_flight: int) -> None:
        """Write the records down, then tell of them and end their attempts' marks.

        Where writing fails, these marks stay: nobody knows what was written.
        """
        if self._unwritten:
            self._write_records(in_flight)
        if self._left:
            left, self._left = self._left, []
            for ordinal in left:
                self._calls.leave(ordinal)

    def _write_records(self, in_flight: int) -> None:
        records, self._unwritten = self._unwritten, []
        cells, self._unwritten_cells = self._unwritten_cells, []
        self._calls.record(records)
        for cell in cells:
            self._marks.end(cell, recorded=True)
        if outcomes := outcomes_in(records):
            self._observer.recorded(outcomes, in_flight)


def sum_of(
    call: OpenCall, usage: Usage | None, cost_usd: Decimal | None, max_cost_usd: Decimal | None
) -> tuple[Usage, Decimal | None, Decimal | None]:
    """The usage, cost and, where that is None, its bound, of a call's rejected asks and of its last one.

    What is unknown of one is unknown of all.
    """
    usages = [ask.usage for ask in call.rejected] + ([] if usage is None else [usage])
    counts = ([getattr(each, name) for each in usages] for name in Usage.__struct_fields__)
    costs = [*((ask.cost_usd, ask.max_cost_usd) for ask in call.rejected), (cost_usd, max_cost_usd)]
    total = _sum([cost for cost, _ in costs])
    bound = None if total is not None else _sum([most if cost is None else cost for cost, most in costs])
    return Usage(*(None if None in each else sum(each) for each in counts)), total, bound


def _sum(amounts: Sequence[Decimal | None]) -> Decimal | None:
    known = [amount for amount in amounts if amount is not None]
    return reduce(EXACT.add, known, NOTHING) if len(known) == len(amounts) else None


def _describe(reply: Reply) -> str:
    return f"{reply.kind}: {reply.detail}" if isinstance(reply, TransportFailure) else f"HTTP {reply.status}, no answer"
