"""The loop: rows in, outcomes out, a bounded number of requests in flight. Knows no vendor, file format or command.

Replies are dealt with in turns: what has come since the last one is judged, then written down at once, then its slots
send the next rows. One thing after the other for all of them, rather than all things for one after the other, because
code that has just run runs several times as fast; and no row needs a task. Where many requests are in flight, a turn
waits a moment for more of their replies, as network cards do with interrupts: a tenth less CPU.

A turn sends as far as pace, budget and limits have room, and a timer goes on when the pace lets more go. Where
something else has to be waited for (a limit, the budget, a row's next attempt, the next partition), one dispatcher
waits, for one request at a time. A request that must wait before its next attempt goes into the backlog with a due
time, and its slot is free at once.
"""

import asyncio
import functools
import heapq
import itertools
import math
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import assert_never

from msgspec import Struct

from cometbatch.control.attribution import Cause, HeldFailure, HeldFailures
from cometbatch.control.budget import Budget
from cometbatch.control.retry_table import backoff
from cometbatch.control.window import ConcurrencyWindow
from cometbatch.limiting.limits import Limits
from cometbatch.money.exact import format_amount
from cometbatch.records import (
    Abort,
    Answered,
    CallRequest,
    ChargeReason,
    Completion,
    ErrorDetail,
    Failed,
    Failure,
    GiveUp,
    HttpResponse,
    Outcome,
    PossibleCharge,
    Record,
    Retry,
    TransportFailure,
    Usage,
)
from cometbatch.results.columns import outcomes_in, status_of
from cometbatch.runner.ports import Calls, ExchangeResult, Marks, Observer, Policy, Reply, Sending, Service, Stop

GATHER_S = 0.008  # from the first reply of a turn to the turn, at most,
GATHER_SHARE = 0.1  # and so much of the time that this reply took
GATHERED_FROM = 64  # requests in flight; fewer bring too few replies in that time
FULL_TURN = 64  # replies that need not wait for more
BACKLOG_PER_SLOT = 4  # rows waiting for another attempt, per slot, before fresh rows wait for them
REFUSALS = frozenset({"rate_limited", "overloaded"})  # what sending more slowly may help against
TOLD_AFTER_S = 10.0  # without any answer
MAX_PUSHBACKS = 50  # in a row, at which a row that the service keeps pushing back fails
NOTHING = Decimal(0)  # US dollars
REDIRECT = 300  # below this status, an answer that can't be read was generated and billed
LARGE_BYTES = 64 * 1024  # of a reply, beyond which it is dealt with at once, so that few are in memory at a time
GATEWAY_TIMEOUTS = (504, 524)  # the provider behind the gateway may finish, and be billed, all the same
WINDOWS_TO_DOUBT_PATH = 2  # windows of requests that only a wrong path explains, before the run stops over it


class _Pending(Struct, eq=False, gc=False):
    """A row between being read and having an outcome."""

    request: CallRequest
    began: float  # event-loop time
    attempts: int = 0  # exchanges so far
    counted_failures: int = 0  # those that count against the row
    reserved: Decimal = NOTHING  # of the budget, for the attempt under way
    answers_seen: int = -1  # by everyone, when its last attempt failed
    unanswered_in_a_row: int = 0  # attempts in a row that failed without anyone being answered in between
    had_second_chance: bool = False
    pushbacks: int = 0  # those in a row at which the service pushed back


class _Slot:
    """Room for one request in flight."""

    __slots__ = ("arrive", "came", "cell", "charge", "latency_s", "number", "pending", "sending", "started")

    pending: _Pending
    cell: int
    charge: float  # tokens, as the limits took it
    started: float  # event-loop time
    latency_s: float  # from then to the end of the reply
    sending: Sending
    came: ExchangeResult

    def __init__(self, number: int, arrive: Callable[["_Slot", ExchangeResult], None]) -> None:
        self.number = number
        self.arrive = functools.partial(arrive, self)


class Runner:
    """Carries rows to their outcomes; one instance carries out one run, on one event loop.

    `works`: an earlier session had answers from this service, so whatever is refused now is its row's own failure.
    """

    def __init__(
        self,
        rows: Calls,
        service: Service,
        policy: Policy,
        limits: Limits,
        *,
        marks: Marks,
        observer: Observer,
        now: Callable[[], datetime],
        jitter: Callable[[], float],
        works: bool = False,
        budget: Budget | None = None,
    ) -> None:
        self._rows = rows
        self._service = service
        self._policy = policy
        self._limits = limits
        self._marks = marks
        self._observer = observer
        self._now = now
        self._jitter = jitter
        self._time: Callable[[], float] = _loop_time
        self._is_held_up = False  # whether the dispatcher waits for something, with a request in hand or for one
        self._wake = asyncio.Event()
        self._backlog: list[tuple[float, int, _Pending]] = []
        self._order = itertools.count()
        self._exhausted = False
        self._free = [_Slot(number, self._arrive) for number in reversed(range(policy.concurrency))]
        self._sending: set[_Slot] = set()
        self._arrived: list[_Slot] = []
        self._turn: asyncio.Handle | None = None  # that is due
        self._refill: asyncio.TimerHandle | None = None  # when the pace lets the next row go
        self._large_came = False  # and waits for no more; what is beside it is written down one by one
        self._unwritten: list[Record] = []  # to be written down before the turn is over
        self._possibly_unrecorded: set[int] = (
            set()
        )  # rows of which it is not known whether what was found is written down
        self._dispatcher: asyncio.Task[None] | None = None
        self._over: asyncio.Future[None] | None = None
        self._stop: Stop | None = None
        self._closed = False
        self._error: Exception | None = None
        self._is_booked = limits.counts_tokens or budget is not None
        self._pace = ConcurrencyWindow(policy.concurrency) if policy.adaptive else None
        self._is_limited = False
        self._waits_for_budget = False
        self._pushback_rounds = 0
        self._last_pause_at = float("-inf")
        self._unanswered_since: float | None = None
        self._unanswered_why = ""
        self._doubts = HeldFailures[_Pending](
            works=works, max_alike=policy.max_alike, max_pages=WINDOWS_TO_DOUBT_PATH * policy.concurrency
        )
        self._budget = budget
        rows.on_room = self._wake.set

    async def run(self) -> Stop | None:
        """Carry every row to its outcome. Returns `None` after the last one, or why the run stopped before.

        Raises what the rows' reader or recorder raised; then nothing more is sent.
        """
        loop = asyncio.get_running_loop()
        self._time = loop.time
        self._over = loop.create_future()
        self._dispatcher = loop.create_task(self._dispatch())
        self._dispatcher.add_done_callback(self._end_of_dispatch)
        try:
            await self._over
            if self._error is not None:
                raise self._error
        finally:
            self._close()
            self._take_turn()  # what has come is paid for
            self._give_up_sending()
            await asyncio.gather(self._dispatcher, return_exceptions=True)
        return self._stop

    def stop(self, stop: Stop) -> None:
        """Admit no more; what is in flight is finished and recorded. The first reason given stands."""
        if self._stop is None:
            self._stop = stop
            self._close()

    def stop_now(self, stop: Stop) -> None:
        """Admit no more and give up what is in flight, unrecorded."""
        self.stop(stop)
        self._take_turn()
        self._give_up_sending()
        self._end_if_over()

    @property
    def in_flight(self) -> int:
        """How many requests are being sent right now."""
        return len(self._sending)

    def waiting_for(self) -> str:
        """What keeps the next request back, in a few words for a person; "" where nothing does."""
        pause_s = self._limits.paused_until - self._time()
        if pause_s > 0:
            return f"service asks to wait {math.ceil(pause_s)} s"
        if self._pace is not None and self._pace.is_probing:
            return "no answers, probing"
        if self._waits_for_budget:
            return "budget"
        return "rate limit" if self._is_limited else ""

    def silence(self) -> str:
        """What a person should know who waits for answers in vain; "" as long as there is nothing to tell."""
        since, patience = self._unanswered_since, self._policy.max_pushback_s
        if since is None or self._time() - since < TOLD_AFTER_S:
            return ""
        why = f"for {TOLD_AFTER_S:g} s nothing was answered ({self._unanswered_why})"
        sooner = (
            "" if self._service.is_reached() else ", or once rows have used up their attempts: no connection was made"
        )
        return f"{why}; where that goes on, the run stops after {patience:g} s (retry.max_pushback_s){sooner}."

    def _close(self) -> None:
        self._closed = True
        if self._refill is not None:
            self._refill.cancel()
        if self._dispatcher is not None:
            self._dispatcher.cancel()

    def _give_up_sending(self) -> None:
        for slot in self._sending:
            slot.sending.cancel()
        self._sending.clear()
        self._arrived.clear()

    def _end_of_dispatch(self, dispatcher: asyncio.Task[None]) -> None:
        if dispatcher.cancelled() and not self._closed:
            self._break(RuntimeError("the run's own task was cancelled by somebody else"))
        self._end_if_over()

    def _break(self, error: Exception) -> None:
        """Nothing more is sent; `run` raises it."""
        self._close()
        if self._over is not None and not self._over.done():
            self._over.set_exception(error)

    def _end_if_over(self) -> None:
        over = self._over
        if self._closed and not self._sending and over is not None and not over.done():
            over.set_result(None)

    # -- a turn ----------------------------------------------------------------------------------------------------

    def _arrive(self, slot: _Slot, came: ExchangeResult) -> None:
        """What a slot sent has come to an end."""
        slot.came = came
        slot.latency_s = self._time() - slot.started
        arrived = self._arrived
        arrived.append(slot)
        if isinstance(came, HttpResponse) and len(came.body) > LARGE_BYTES:
            self._large_came = True
            self._call_turn(0)
        elif self._turn is None:
            self._call_turn(self._gathering_s(slot))
        elif len(arrived) == FULL_TURN:
            self._call_turn(0)

    def _gathering_s(self, slot: _Slot) -> float:
        is_worth_it = len(self._sending) >= GATHERED_FROM
        return min(GATHER_S, GATHER_SHARE * slot.latency_s) if is_worth_it else 0.0

    def _call_turn(self, wait_s: float) -> None:
        if self._turn is not None:
            self._turn.cancel()
        loop = asyncio.get_running_loop()
        self._turn = loop.call_later(wait_s, self._take_turn) if wait_s else loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Deal with the replies that have come."""
        arrived, self._arrived = self._arrived, []
        if self._turn is not None:
            self._turn.cancel()  # a stop does not wait for it
            self._turn = None
        try:
            cells = [(slot.cell, slot.pending.request.ordinal) for slot in arrived]
            try:
                self._conclude_all(arrived)
                self._send_ready()
            finally:
                self._unmark(cells)
        except Exception as error:  # noqa: BLE001 - raised by `run`, which waits for this
            self._break(error)
        if self._is_held_up or not self._sending:
            self._wake.set()
        self._end_if_over()

    def _conclude_all(self, arrived: list[_Slot]) -> None:
        """Judge all of them, whatever becomes of one, since they are paid for. Raises the first error then."""
        now, moment = self._time(), self._now()
        first: Exception | None = None
        for slot in arrived:
            try:
                self._conclude(slot, now, moment)
                if self._large_came:
                    self._write_down()
            except Exception as error:  # noqa: BLE001 - raised below
                first = first or error
                self._possibly_unrecorded.add(slot.pending.request.ordinal)
            del slot.came
        self._sending.difference_update(arrived)
        self._free += arrived
        self._large_came = False
        self._write_down()
        if first is not None:
            raise first

    def _send_ready(self) -> None:
        """Send fresh rows in the slots that are free, as far as nothing has to be waited for; else it is not for us."""
        if self._closed:
            return
        now, pace, budget = self._time(), self._pace, self._budget
        is_ours, is_bounded = not self._must_wait(now), budget is not None or self._limits.any
        while self._free and (pace is None or self._may_leave(now, pace)):
            if not is_ours or (fresh := self._ready_call()) is None:
                self._wake.set()
                break
            pending = _Pending(fresh, now)
            charge = self._claim(pending, budget) if is_bounded else 0.0
            if charge is None:
                self._put_back(pending, 0.0)
                self._wake.set()
                break
            self._send(self._free.pop(), pending, charge, now)
        self._write_down()

    def _claim(self, pending: _Pending, budget: Budget | None) -> float | None:
        """What budget and limits have room for at once; the charge in tokens, or None where it must be waited for."""
        if budget is not None and not self._reserve(pending, budget):
            return None
        charge = self._limits.acquire_now(pending.request.estimated_tokens)
        if charge is None:
            self._settle_reserved(pending, NOTHING)
        return charge

    def _may_leave(self, now: float, pace: ConcurrencyWindow) -> bool:
        """Whether the pace lets one more go. Where it will without a reply, rows are sent then."""
        if (wait_s := pace.wait_s(now, len(self._sending))) <= 0:
            return True
        if self._refill is not None:
            self._refill.cancel()
        is_timed = wait_s < math.inf and not self._closed
        self._refill = asyncio.get_running_loop().call_later(wait_s, self._fill_safely) if is_timed else None
        return False

    def _fill_safely(self) -> None:
        try:
            self._send_ready()
        except Exception as error:  # noqa: BLE001 - raised by `run`, which waits for this
            self._break(error)
        self._end_if_over()

    def _unmark(self, arrived: list[tuple[int, int]]) -> None:
        """Marks of slots that send again were overwritten: a mark is of no account where its row has an outcome."""
        for cell, ordinal in arrived:
            if ordinal not in self._possibly_unrecorded:
                self._marks.end(cell, recorded=True)

    def _send(self, slot: _Slot, pending: _Pending, charge: float, now: float) -> None:
        request = pending.request
        slot.pending, slot.charge, slot.started = pending, charge, now
        if self._pace is not None:
            self._pace.sent(now)
        slot.cell = self._marks.begin(request.ordinal, 1, pending.attempts + 1, self._bound(pending))
        slot.sending = self._service.send(request.http, slot.arrive)
        self._sending.add(slot)

    def _note_possible_charge(self, pending: _Pending, reason: ChargeReason, detail: str = "") -> None:
        request, max_cost = pending.request, self._bound(pending)
        self._unwritten.append(PossibleCharge(request.ordinal, self._now(), reason, max_cost, detail))

    def _must_wait(self, now: float) -> bool:
        """Whether the next request is the dispatcher's."""
        return self._is_held_up or bool(self._backlog) or self._limits.must_wait(now)

    def _ready_call(self) -> CallRequest | None:
        try:
            while not isinstance(fresh := self._rows.ready_call(), CallRequest):
                if fresh is None:
                    return None
                self._finish(fresh)
        except Exception as error:  # noqa: BLE001 - raised by `run`, once what is in flight is recorded
            self._end_of_rows(error)
            return None
        return fresh

    # -- the dispatcher --------------------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        """Send whatever has to be waited for, until there is no more to send."""
        try:
            while (slot := await self._free_slot()) and (taken := await self._next_permitted()) is not None:
                self._send(slot, *taken, self._time())
                self._send_ready()
        except Exception as error:  # noqa: BLE001 - raised by `run`, which waits for this
            self._break(error)
        self._closed = True

    async def _free_slot(self) -> _Slot:
        """Wait for one, and for the pace: with nothing in hand, so that `_send_ready` may go on meanwhile.

        Not where nothing is in flight: there may be nothing left to send, and the run over.
        """
        pace = self._pace
        while not self._free or (pace and self._sending and not self._may_leave(self._time(), pace)):
            self._wake.clear()
            await self._wake.wait()
        return self._free.pop()

    async def _next_permitted(self) -> tuple[_Pending, float] | None:
        """Wait for a request that is due and the limits' permission; `None` when there is no more to send."""
        if self._closed or (pending := await self._next_due()) is None or self._closed:
            return None
        if not await self._set_aside(pending):
            return None
        await self._outlast_pace()
        self._is_limited = True
        charge = await self._limits.acquire(pending.request.estimated_tokens)
        self._is_limited = False
        return pending, charge

    async def _set_aside(self, pending: _Pending) -> bool:
        """Reserve what the attempt can come to; where there is no room for it, wait for what is in flight."""
        if self._budget is None:
            return True
        while not self._reserve(pending, self._budget):
            if not self._sending:
                self._stop_at_budget(pending, self._budget.left)
                return False
            self._waits_for_budget = True
            await self._wait_for_news(None)
        self._waits_for_budget = False
        return True

    def _reserve(self, pending: _Pending, budget: Budget) -> bool:
        amount = self._max_cost(pending)
        if not budget.reserve(amount):
            return False
        pending.reserved = amount
        return True

    def _max_cost(self, pending: _Pending) -> Decimal:
        return self._bound(pending) or NOTHING

    def _bound(self, pending: _Pending) -> Decimal | None:
        request = pending.request
        return self._service.max_cost(request, len(request.http.body), request.max_output_tokens)

    def _stop_at_budget(self, pending: _Pending, left: Decimal) -> None:
        most, rest = format_amount(self._max_cost(pending)), format_amount(max(left, NOTHING))
        so_far = f"the next row can cost up to ${most}, and ${rest} of the budget is left."
        self.stop(Stop("budget", so_far, "Raise budget.max_cost_usd to carry on."))

    async def _outlast_pace(self) -> None:
        if self._pace is None:
            return
        while (wait_s := self._pace.wait_s(self._time(), len(self._sending))) > 0:
            await self._wait_for_news(None if wait_s == math.inf else wait_s)

    async def _next_due(self) -> _Pending | None:
        while True:
            if self._backlog and self._backlog[0][0] <= self._time():
                return heapq.heappop(self._backlog)[2]
            if self._may_admit():
                fresh = await self._next_call()
                if isinstance(fresh, CallRequest):
                    return _Pending(fresh, self._time())
                self._settle_unsent(fresh)
            elif self._is_finished():
                return None
            else:
                await self._wait_for_news(self._backlog[0][0] - self._time() if self._backlog else None)

    async def _next_call(self) -> CallRequest | Failed | None:
        """Where no more rows can be had, what is in flight is paid for and finished all the same."""
        try:
            return await self._rows.next_call()
        except Exception as error:  # noqa: BLE001 - raised by `run`, once what is in flight is recorded
            self._end_of_rows(error)
            return None

    def _end_of_rows(self, error: Exception) -> None:
        self._error = error
        self._close()

    def _may_admit(self) -> bool:
        if self._exhausted or len(self._backlog) >= BACKLOG_PER_SLOT * self._policy.concurrency:
            return False
        return self._rows.has_room or self._only_doubts_are_left()

    def _only_doubts_are_left(self) -> bool:
        """Whether the room that is missing may be held by rows that wait for further ones to settle their doubt."""
        return self._doubts.any and not self._backlog and not self._sending

    def _settle_unsent(self, fresh: Failed | None) -> None:
        if fresh is None:
            self._exhausted = True
        else:
            self._finish(fresh)
            self._write_down()

    def _is_finished(self) -> bool:
        if not self._exhausted or self._backlog or self._sending:
            return False
        self._resolve_doubts()
        self._write_down()
        return True

    async def _wait_for_news(self, seconds: float | None) -> None:
        """Until a request is answered or a partition is committed, for so long at most."""
        self._wake.clear()
        self._is_held_up = True
        try:
            async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            pass
        finally:
            self._is_held_up = False

    # -- what came of an attempt ---------------------------------------------------------------------------------

    def _conclude(self, slot: _Slot, now: float, moment: datetime) -> None:
        reply, parsed = self._service.read(slot.came)
        slot.pending.attempts += 1
        if isinstance(parsed, Completion):  # as nearly all are, which no table needs to tell
            assert isinstance(reply, HttpResponse)  # noqa: S101 - a completion is parsed from a response alone
            self._accept(slot, parsed, reply, now, moment)
        else:
            self._refuse(slot, reply, parsed)

    def _refuse(self, slot: _Slot, reply: Reply, parsed: ErrorDetail | None) -> None:
        """What an attempt without an answer comes to, by the retry table."""
        pending, latency_s = slot.pending, slot.latency_s
        verdict = self._service.classify(reply, parsed)
        self._settle_unanswered(pending, reply)
        match verdict:
            case Retry():
                self._retry(pending, verdict, latency_s, slot.started)
            case GiveUp(failure=failure, path_mistake=path_mistake):
                self._give_up(HeldFailure(pending, failure, latency_s, "wrong_address" if path_mistake else "refusal"))
            case Abort(failure=failure) if failure.kind == "model_not_found" and self._doubts.works:
                self._retry(pending, Retry(failure), latency_s, slot.started)  # it was there: its routes come and go
            case Abort(failure=failure, hint=hint):
                self.stop(Stop("refused", failure.message, hint))
            case _:
                assert_never(verdict)

    def _accept(self, slot: _Slot, completion: Completion, reply: HttpResponse, now: float, moment: datetime) -> None:
        pending, latency_s = slot.pending, slot.latency_s
        request = pending.request
        cost_usd = self._service.price(request, completion.usage)
        if cost_usd is None or self._is_booked:
            self._settle_answered(slot, completion.usage, cost_usd)
        is_doubted = self._doubts.answered(now)
        if slot.started >= self._last_pause_at:
            self._pushback_rounds = 0
        if self._pace is not None:
            self._pace.answered(now, latency_s)
        if is_doubted:
            self._release_doubts()
        self._finish(
            Answered(
                request.ordinal,
                status_of(completion),
                request.custom_id,
                pending.attempts,
                latency_s,
                moment,
                request.request_hash,
                reply.status,
                self._service.request_id(reply),
                completion,
                cost_usd,
            )
        )

    def _settle_answered(self, slot: _Slot, usage: Usage, cost_usd: Decimal | None) -> None:
        """Book what an answer came to, at its worst where that is not known."""
        pending = slot.pending
        if cost_usd is None and self._bound(pending) is not None:
            self._note_possible_charge(pending, "no_token_counts")
        self._settle_reserved(pending, cost_usd)
        if usage.input_tokens is not None and usage.output_tokens is not None:
            tokens = usage.input_tokens + usage.output_tokens
            self._limits.settle(slot.charge, pending.request.estimated_tokens, tokens)

    def _settle_unanswered(self, pending: _Pending, reply: Reply) -> None:
        """Book what an attempt without an answer may have come to."""
        is_billed = _may_be_billed(reply)
        if is_billed:
            self._note_possible_charge(pending, "no_answer", _what_came(reply))
        self._settle_reserved(pending, None if is_billed else NOTHING)

    def _settle_reserved(self, pending: _Pending, cost_usd: Decimal | None) -> None:
        if self._budget is not None:
            self._budget.settle(pending.reserved, pending.reserved if cost_usd is None else cost_usd)
            pending.reserved = NOTHING

    def _fail(self, pending: _Pending, failure: Failure, latency_s: float) -> None:
        request = pending.request
        self._finish(
            Failed(
                ordinal=request.ordinal,
                custom_id=request.custom_id,
                attempts=pending.attempts,
                latency_s=latency_s,
                finished_at=self._now(),
                request_hash=request.request_hash,
                failure=failure,
            )
        )

    def _finish(self, outcome: Outcome) -> None:
        self._unwritten.append(outcome)
        if outcome.attempts:  # a row that was not sent tells nothing of the service
            self._unanswered_since = None

    def _write_down(self) -> None:
        """Record what was found, then tell of it."""
        if not self._unwritten:
            return
        said, self._unwritten = self._unwritten, []
        try:
            self._rows.record(said)
        except BaseException:
            self._possibly_unrecorded.update(each.ordinal for each in said)
            raise
        self._observer.recorded(outcomes_in(said), len(self._sending))

    # -- another attempt -----------------------------------------------------------------------------------------

    def _retry(self, pending: _Pending, verdict: Retry, latency_s: float, started: float) -> None:
        self._tell_pace(verdict, started)
        self._count_strike(pending, verdict)
        if self._is_unanswered_too_long(verdict.failure):
            return
        if self._is_exhausted(pending, verdict.failure):
            cause: Cause = "exhausted" if self._doubts.works or self._service.is_reached() else "unreached"
            self._give_up(HeldFailure(pending, verdict.failure, latency_s, cause, pending.unanswered_in_a_row))
            return
        wait_s = self._wait_before(pending, verdict, started)
        self._observer.retried()
        self._put_back(pending, wait_s)

    def _put_back(self, pending: _Pending, wait_s: float) -> None:
        heapq.heappush(self._backlog, (self._time() + wait_s, next(self._order), pending))

    def _tell_pace(self, verdict: Retry, started: float) -> None:
        if self._pace is None:
            return
        if verdict.slow_down or verdict.failure.kind in REFUSALS:
            self._pace.refused(self._time(), started, verdict.retry_after_s or 0.0)
        elif verdict.failure.kind == "timeout":
            self._pace.timed_out(self._time(), started)
        else:
            self._pace.failed(self._time(), started)

    def _count_strike(self, pending: _Pending, verdict: Retry) -> None:
        """Plain pushback uses up no attempt of a row, and what an outage used up is given back when it ends."""
        kind = verdict.failure.kind
        self._doubts.failed(pending.request.ordinal, kind)
        costs_attempt = verdict.costs_attempt and not self._doubts.is_crowded(kind, self._time())
        pending.pushbacks = 0 if costs_attempt else pending.pushbacks + 1
        is_barren = pending.answers_seen == self._doubts.answers
        pending.answers_seen = self._doubts.answers
        pending.unanswered_in_a_row = pending.unanswered_in_a_row + 1 if is_barren else 1
        if pending.counted_failures >= self._policy.max_attempts and not is_barren:
            pending.counted_failures = 0  # they met a service that answered no one; now it does
        pending.counted_failures += costs_attempt

    def _is_exhausted(self, pending: _Pending, failure: Failure) -> bool:
        if self._doubts.is_excused(failure.kind, self._time(), is_tail=self._exhausted):
            return False
        seconds = self._time() - pending.began
        is_pushed_back_for_good = pending.pushbacks >= MAX_PUSHBACKS and seconds > self._policy.max_pushback_s
        is_used_up = pending.counted_failures >= self._policy.max_attempts or is_pushed_back_for_good
        return is_used_up or seconds > self._policy.max_row_s

    def _is_unanswered_too_long(self, failure: Failure) -> bool:
        """Neither pushback nor an outage costs attempts, so time is their bound; a few rows alone have their own.

        So have the last ones that run out of time: longer than `max_pushback_s` in all, and the table would never end.
        """
        if failure.kind == "timeout" and self._exhausted:
            return False
        if self._unanswered_since is None:
            self._unanswered_since = self._time()
        self._unanswered_why = failure.message
        patience = self._policy.max_pushback_s
        if self._time() - self._unanswered_since <= patience or not self._doubts.is_outage:
            return False
        hint = "Carry on later, or lower limits.concurrency and limits.requests_per_minute."
        self.stop(Stop("refused", f"for {patience:g} s the service answered nothing: {failure.message}", hint))
        return True

    def _wait_before(self, pending: _Pending, verdict: Retry, started: float) -> float:
        """Seconds until the row's next attempt; pushback also makes everyone else wait, or sends more slowly."""
        if verdict.retry_after_s:  # "after 0 s" names no wait: asked at once and for ever, it would be a flood
            self._pause(verdict.retry_after_s)
            return verdict.retry_after_s
        if not verdict.slow_down:
            return self._backoff(pending.counted_failures)
        if self._pace is not None:
            self._observer.pushed_back(0.0)
            return self._backoff(pending.pushbacks)
        if started >= self._last_pause_at:
            self._pushback_rounds += 1  # requests sent before the last pause tell nothing of what came after it
        wait_s = self._backoff(self._pushback_rounds)
        self._pause(wait_s)
        return wait_s

    def _backoff(self, failures: int) -> float:
        return backoff(max(1, failures), jitter=self._jitter(), cap_s=self._policy.max_wait_s)

    def _pause(self, wait_s: float) -> None:
        self._last_pause_at = self._time()
        self._limits.pause(wait_s)
        self._observer.pushed_back(wait_s)

    # -- the row's failure, or everyone's ----------------------------------------------------------------------------

    def _give_up(self, doubt: HeldFailure[_Pending]) -> None:
        certain = self._doubts.hold(doubt) if self._doubts.is_doubtful(doubt) else [doubt]
        for each in certain:
            self._fail(each.row, each.failure, each.latency_s)
        self._stop_if_in_doubt()

    def _stop_if_in_doubt(self, *, is_over: bool = False) -> None:
        reason = self._doubts.reason_to_stop(is_over=is_over)
        if reason is not None:
            self.stop(Stop("refused", *reason))

    def _resolve_doubts(self) -> None:
        """The table is over: what is not everyone's failure is its row's own."""
        self._stop_if_in_doubt(is_over=True)
        if not self._closed:
            for doubt in self._doubts.release():
                self._fail(doubt.row, doubt.failure, doubt.latency_s)

    def _release_doubts(self) -> None:
        """Something was answered: what was in doubt is its row's own failure, or gets a second chance."""
        if self._closed:  # the next session sends them again: the stop has said that they are not recorded
            return
        for doubt in self._doubts.release():
            if doubt.cause in {"exhausted", "unreached"} and not doubt.row.had_second_chance:
                self._try_again(doubt.row)
            else:
                self._fail(doubt.row, doubt.failure, doubt.latency_s)

    def _try_again(self, pending: _Pending) -> None:
        """Its attempts met a service that answered no one; now it does."""
        pending.had_second_chance, pending.counted_failures, pending.pushbacks = True, 0, 0
        self._put_back(pending, 0.0)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _may_be_billed(reply: Reply) -> bool:
    """Whether an attempt without an answer may have been billed (contract sheet, section 12: what is inferred)."""
    if isinstance(reply, TransportFailure):
        return reply.sent
    return reply.status < REDIRECT or reply.status in GATEWAY_TIMEOUTS


def _what_came(reply: Reply) -> str:
    return f"{reply.kind}: {reply.detail}" if isinstance(reply, TransportFailure) else f"HTTP {reply.status}, no answer"
