"""What becomes of an answer: it is the call's outcome, or the call is asked again, or it is held for a while.

Guards: an ask whose answer is not taken is recorded, with its cost and its text, before the next one is sent; so a
later session goes on from that answer, and pays for none twice. Held answers are judged later, from what was recorded.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias

import msgspec

from cometbatch.control.first_answers import FirstAnswers
from cometbatch.records import Answered, AskAgain, CallRequest, Completion, HttpResponse, RejectedAsk
from cometbatch.results.columns import is_at_cap
from cometbatch.runner.backlog import Backlog
from cometbatch.runner.books import Books, sum_of
from cometbatch.runner.ports import Service, Stop
from cometbatch.runner.slots import LATENCY_DIGITS, OpenCall, Slot

Cost: TypeAlias = tuple[Decimal | None, Decimal | None]
"""What an answer cost in US dollars, and, where that is unknown, the most that it can have cost."""


class Asks:
    """Judges answers. `rejected`: by ordinal, what earlier sessions recorded of calls that are open.

    `first`: while none of a run's answers was JSON; None where that is no question.
    """

    def __init__(
        self,
        service: Service,
        *,
        books: Books,
        rejected: Mapping[int, Sequence[RejectedAsk]],
        first: FirstAnswers[OpenCall] | None,
        stop: Callable[[Stop], None],
    ) -> None:
        self.recorded = dict(rejected)  # of calls that were not opened yet
        self.backlog = Backlog()
        self.first = first
        self._service = service
        self._books = books
        self._stop = stop

    @property
    def holds(self) -> bool:
        """Whether a call waits for the first JSON."""
        return self.first is not None and self.first.holds

    def open(self, request: CallRequest, now: float) -> OpenCall | None:
        """The call, ready for its next ask; None where it is held, or had its last ask already."""
        asks = tuple(self.recorded.pop(request.ordinal, ()))
        call = OpenCall(request, now, ask=max(1, len(asks)), rejected=asks)
        if asks and self.first is not None and not self.first.is_over:
            self.first.hold(call)
            return None
        return call if not asks or self._goes_on(call) else None

    def answered(self, slot: Slot, completion: Completion, reply: HttpResponse, cost: Cost, moment: datetime) -> None:
        """Take an answer that was paid for. `moment` is that of the wall clock."""
        call, first = slot.call, self.first
        acceptance = self._service.accept(call.original or call.request, completion, call.ask)
        if first is not None and not first.is_over and acceptance.is_json is not None:
            if not acceptance.is_json:
                self._record(slot, completion, reply, cost, moment)
                self._hold(first, call, is_cut=completion.finish_reason == "length")
                return
            first.is_over = True
            self.judge_held()
        if isinstance(acceptance, AskAgain):
            self._record(slot, completion, reply, cost, moment)
            self._ask_again(call, acceptance.request)
            self.backlog.put(call, asyncio.get_running_loop().time())
        elif call.rejected or acceptance.misfit:
            call.rejected += (self._ask_of(slot, completion, reply, cost, moment),)
            self._books.add(self._outcome(call, acceptance.misfit), slot.cell)
        else:
            self._finish(slot, completion, reply, cost, moment)

    def judge_held(self) -> None:
        """Judge what was held: an answer was JSON, or no calls are left that could bring one."""
        for call in [] if self.first is None else self.first.release():
            if self._goes_on(call):
                self.backlog.put(call, asyncio.get_running_loop().time())

    def _hold(self, first: FirstAnswers[OpenCall], call: OpenCall, *, is_cut: bool) -> None:
        first.add(is_cut=is_cut)
        first.hold(call)
        self.stop_without_json()

    def stop_without_json(self) -> None:
        """Stop the queue where enough answers came, and none was JSON."""
        if self.first is not None and (reason := self.first.reason_to_stop()) is not None:
            self._stop(Stop("refused", reason.message, reason.hint, reason.fix))

    def _goes_on(self, call: OpenCall) -> bool:
        """Judge a call by its last recorded answer: ready for its next ask, or ended, which is recorded."""
        completion = call.rejected[-1].completion
        original = call.original or call.request
        acceptance = AskAgain(original) if completion is None else self._service.accept(original, completion, call.ask)
        if isinstance(acceptance, AskAgain):
            self._ask_again(call, acceptance.request)
            return True
        self._books.add(self._outcome(call, acceptance.misfit))
        return False

    def _ask_again(self, call: OpenCall, request: CallRequest) -> None:
        """Make a call ready for its next ask. It keeps its first hash; the last answer's text is in the request."""
        original = call.original or call.request
        if request.ordinal != original.ordinal:
            words = f"call {original.ordinal} was to be asked again with the request of call {request.ordinal}"
            raise ValueError(words)
        call.original = original
        call.request = msgspec.structs.replace(request, request_hash=original.request_hash, target=original.target)
        call.rejected = (*call.rejected[:-1], call.rejected[-1].without_text())
        call.ask += 1
        call.earlier_attempts += call.attempt
        call.attempt = 0
        call.begin_anew()

    def _record(self, slot: Slot, completion: Completion, reply: HttpResponse, cost: Cost, moment: datetime) -> None:
        """Record what the ask cost. Once that is written, the next one may be sent."""
        ask = self._ask_of(slot, completion, reply, cost, moment)
        self._books.add(ask, slot.cell)
        slot.call.rejected += (ask,)

    def _ask_of(
        self, slot: Slot, completion: Completion, reply: HttpResponse, cost: Cost, moment: datetime
    ) -> RejectedAsk:
        call, request = slot.call, slot.call.request
        return RejectedAsk(
            request.ordinal,
            call.ask,
            call.attempt,
            moment,
            completion.usage,
            cost[0],
            request.target,
            cost[1],
            completion,
            reply.status,
            self._service.request_id(reply),
            round(slot.latency_s, LATENCY_DIGITS),
            call.input_above_bytes,
        )

    def _finish(self, slot: Slot, completion: Completion, reply: HttpResponse, cost: Cost, moment: datetime) -> None:
        """The outcome of a call whose first answer is taken."""
        call, request = slot.call, slot.call.request
        cap = request.max_output_tokens
        outcome = Answered(
            request.ordinal,
            self._service.status(completion),
            request.custom_id,
            call.attempt,
            round(slot.latency_s, LATENCY_DIGITS),
            moment,
            request.request_hash,
            reply.status,
            self._service.request_id(reply),
            completion,
            cost[0],
            1,
            call.input_above_bytes,
            (call.attempt,),
            cost[1],
            completion.usage.output_tokens == cap and is_at_cap(completion, cap),
            request.target,
        )
        self._books.add(outcome, slot.cell)

    def _outcome(self, call: OpenCall, misfit: str) -> Answered:
        """The outcome of a call of which each answer is among its asks: the last one's answer, and the sums of all."""
        request, asks = call.request, call.rejected
        last, sums = asks[-1], sum_of(asks)
        assert last.completion is not None  # noqa: S101 - an ask without one is asked again
        completion = msgspec.structs.replace(
            last.completion,
            usage=sums.usage,
            reported_cost_usd=sums.reported_cost_usd,
            cost_excludes=sums.cost_excludes,
            **({"finish_reason": "invalid", "detail": misfit} if misfit else {}),
        )
        return Answered(
            ordinal=request.ordinal,
            status=self._service.status(completion),
            custom_id=request.custom_id,
            attempts=max(call.earlier_attempts + call.attempt, last.attempt),
            latency_s=last.latency_s,
            finished_at=last.finished_at,
            request_hash=request.request_hash,
            http_status=last.http_status,
            request_id=last.request_id,
            completion=completion,
            cost_usd=sums.cost_usd,
            asks=len(asks),
            input_above_bytes=max(ask.input_above_bytes for ask in asks),
            answered_attempts=tuple([ask.attempt for ask in asks]),
            max_cost_usd=sums.max_cost_usd,
            at_cap=is_at_cap(last.completion, request.max_output_tokens),
            target=request.target,
            rejected_cost_usd=sum_of(asks[:-1]).cost_usd if len(asks) > 1 else Decimal(0),
            largest_tokens=sums.largest_tokens if len(asks) > 1 else (0, 0),
        )
