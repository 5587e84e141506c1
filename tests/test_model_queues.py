"""A run that asks several models: each has its own pace and its own stop, and none waits for another. Virtual time."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.control.budget import Budget
from cometbatch.control.first_answers import ENOUGH, FirstAnswers
from cometbatch.limiting.limits import Limits
from cometbatch.records import CallRequest, Completion, Done, Failed, Outcome, Record, Tally, Usage
from cometbatch.results.columns import outcomes_in
from cometbatch.runner.ports import Ended, Policy, Stop
from cometbatch.runner.queue_start import QueueStart
from cometbatch.runner.slots import OpenCall
from cometbatch.runner.turns import Runner
from tests.scripted_run import (
    NOW,
    MarksInMemory,
    RowsInMemory,
    Script,
    ScriptedService,
    Watcher,
    always,
    answer,
    lost,
    refused,
    row_request,
)
from tests.virtual_time import run

STEP = 100_000  # the ordinals of a queue begin at its number times this
BUSY, NO_CREDIT = refused(429), refused(403, code="insufficient_user_quota")
UNPAID = refused(402, message="Payment Required")  # of the account, or of a provider's behind one model
UNKNOWN, WRONG = refused(503, code="model_not_found"), refused(400, code="invalid_request", message="no such field")
INTERRUPTED = Stop("interrupted", "Interrupted.")
A, B, C = 0, 1, 2


class Table(RowsInMemory):
    """`room` bounds how many of its calls may be open."""

    done = 0

    @property
    def has_room(self) -> bool:
        return self.room is None or self.handed_out - self.done < self.room


class Recorded(RowsInMemory):
    """The records of all tables, each of which has room for another call with each that is done."""

    def __init__(self, tables: Sequence[Table]) -> None:
        super().__init__(0)
        self._tables = tables

    def record(self, records: Sequence[Record]) -> None:
        super().record(records)
        for outcome in outcomes_in(records):
            self._is_done(outcome.ordinal)

    def leave(self, ordinal: int) -> None:
        super().leave(ordinal)
        self._is_done(ordinal)

    def _is_done(self, ordinal: int) -> None:
        table = self._tables[ordinal // STEP]
        table.done += 1
        table.on_room()


class Queues:
    """A run over these many rows for each model, whose service does with each model what its script says.

    `costs`: US dollars for a call of each model, where there is a budget.
    """

    def __init__(
        self,
        rows: Sequence[int],
        scripts: Sequence[Script],
        *,
        concurrency: int = 8,
        costs: Sequence[Decimal] | None = None,
        budget: Budget | None = None,
        limits: Limits | None = None,
        starts: Sequence[QueueStart] | None = None,
        accept: Callable[[CallRequest, Completion, int], Any] | None = None,
        **policy: Any,
    ) -> None:
        self.tables = [
            Table([row_request(STEP * queue + row) for row in range(count)]) for queue, count in enumerate(rows)
        ]
        self.records = Recorded(self.tables)
        self.marks = MarksInMemory()
        self.service = ScriptedService(lambda row, attempt: scripts[row // STEP](row % STEP, attempt))
        self.in_flight = Counter[int]()
        self.peaks = Counter[int]()
        service = self.service.as_service()
        if accept is not None:
            service = msgspec.structs.replace(service, accept=accept)
        if costs is not None:

            def price(call: CallRequest, _usage: Usage) -> Decimal:
                return costs[call.ordinal // STEP]

            service = msgspec.structs.replace(service, price=price, max_cost=lambda call, *_: price(call, Usage()))
        self.runner = Runner(
            self.tables,
            self.records,
            service,
            Policy(concurrency=concurrency, **policy),
            limits or Limits(),
            marks=self.marks,
            observer=Watcher(),
            now=lambda: NOW,
            jitter=random.Random(3).random,
            budget=budget,
            starts=starts or [QueueStart(name=f"model-{queue}", is_exact=True) for queue in range(len(rows))],
        )

    def carry_out(self, *, then: Callable[["Queues"], None] | None = None, at_s: float = 0.0) -> Ended:
        """Run to the end. `then` is done at this time. Fails where the run never ends."""

        async def main() -> Ended:
            if then is not None:
                asyncio.get_running_loop().call_later(at_s, then, self)
            async with asyncio.timeout(10**6):
                return await self.runner.run()

        return run(main())

    def outcomes(self, queue: int) -> list[Outcome]:
        return [outcome for outcome in self.records.recorded if outcome.ordinal // STEP == queue]

    def answered(self, queue: int) -> int:
        return sum(not isinstance(outcome, Failed) for outcome in self.outcomes(queue))

    def sent(self, queue: int) -> list[float]:
        return [at for at, row in self.service.sent if row // STEP == queue]

    def ended(self, queue: int) -> float:
        return max(at for at, row in self.service.ended if row // STEP == queue)

    def peak(self, queue: int, start: float = 0.0, end: float = float("inf")) -> int:
        """The most requests of a queue that were in flight at a time, of those sent within this time."""
        ends = {row: at for at, row in self.service.ended}
        spans = [
            (at, ends.get(row, end)) for at, row in self.service.sent if row // STEP == queue and start <= at < end
        ]
        return max((sum(begun <= at < over for begun, over in spans) for at, _ in spans), default=0)


class Admitting:
    """A model that admits so many requests a second, refuses the others at once, and takes 0.2 to 0.4 s for each."""

    def __init__(self, per_s: float) -> None:
        self._per_s, self._level, self._at = per_s, per_s / 10, 0.0
        self._chance = random.Random(7)

    def __call__(self, _row: int, _attempt: int) -> tuple[float, Any]:
        now = asyncio.get_running_loop().time()
        self._level = min(self._per_s / 10, self._level + (now - self._at) * self._per_s)
        self._at = now
        if self._level < 1:
            return 0.003, BUSY
        self._level -= 1
        return self._chance.uniform(0.2, 0.4), answer()


def alone(rows: int, script: Script, **options: Any) -> Queues:
    """One model's run."""
    queues = Queues([rows], [script], **options)
    assert queues.carry_out() == Ended()
    return queues


# -- a model never waits for another ---------------------------------------------------------------------------------


def test_a_slow_model_does_not_hold_a_fast_one_back() -> None:
    """One admits 20 requests a second, the other 200: that one has 85 % at least of what it has alone."""
    rows = 3000
    by_itself = rows / alone(rows, Admitting(200), concurrency=256, adaptive=True).ended(A)
    both = Queues([300, rows], [Admitting(20), Admitting(200)], concurrency=256, adaptive=True)
    assert both.carry_out() == Ended()
    assert (both.answered(A), both.answered(B)) == (300, rows)
    assert rows / both.ended(B) >= 0.85 * by_itself
    assert both.answered(A) / both.ended(A) >= 0.85 * 20


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_model_that_hangs_holds_up_no_other(*, adaptive: bool) -> None:
    """Its requests take 300 s; the other model is through when it would be with the slots that are its own."""
    rows, script = 400, always(answer(), latency=0.5)
    by_itself = alone(rows, script, concurrency=8, adaptive=adaptive).ended(A)
    queues = Queues([20, rows], [always(answer(), latency=300.0), script], concurrency=16, adaptive=adaptive)
    assert queues.carry_out() == Ended()
    assert queues.ended(B) <= 1.05 * by_itself
    assert queues.answered(A) == 20


def test_what_the_service_asks_of_one_model_holds_for_that_one() -> None:
    """One is asked to wait for a minute at each request; the other sends on at its own pace."""

    def waits(_row: int, _attempt: int) -> tuple[float, Any]:
        is_over = asyncio.get_running_loop().time() >= 60.0
        return (0.5, answer()) if is_over else (0.1, refused(429, retry_after="60"))

    rows, script = 200, always(answer(), latency=0.5)
    queues = Queues([40, rows], [waits, script], concurrency=8)
    assert queues.carry_out() == Ended()
    assert queues.ended(B) <= alone(rows, script, concurrency=4).ended(A)
    assert sum(at < 59 for at in queues.sent(A)) <= 10


@pytest.mark.parametrize("concurrency", [8, 9])
def test_each_model_is_sure_of_its_share_of_the_slots_and_takes_what_others_leave(concurrency: int) -> None:
    """An equal part as long as all want it; once a model is done, the others have its slots."""
    queues = Queues([12, 300], [always(answer(), 1.0), always(answer(), 1.0)], concurrency=concurrency)
    assert queues.carry_out() == Ended()
    of_each = queues.peak(A, end=2.0), queues.peak(B, end=2.0)
    assert min(of_each) >= concurrency // 2
    assert max(of_each) <= concurrency - concurrency // 2
    assert queues.peak(B) == queues.service.peak == concurrency


def test_a_share_comes_back_as_requests_end() -> None:
    """What another model took while this one had to wait is given back with its next answers."""

    def waits(_row: int, attempt: int) -> tuple[float, Any]:
        return (0.1, refused(429, retry_after="10")) if attempt == 1 else (1.0, answer())

    queues = Queues([8, 400], [waits, always(answer(), 1.0)], concurrency=8)
    assert queues.carry_out() == Ended()
    assert queues.peak(B, 1.0, 9.0) >= 7
    assert queues.peak(A, 10.0, 14.0) == 4


def test_with_fewer_slots_than_models_all_have_their_turn() -> None:
    """Even where one of them hangs: it holds one slot, and the others take the rest in turn."""
    hung, quick = always(answer(), 300.0), always(answer(), 1.0)
    queues = Queues([5, 20, 20, 20, 20], [hung, quick, quick, quick, quick], concurrency=3)
    assert queues.carry_out() == Ended()
    assert queues.service.peak == 3
    assert max(queues.ended(queue) for queue in range(1, 5)) <= 41.0
    assert queues.peak(A, end=40.0) == 1
    of_each = [sum(at < 20 for at in queues.sent(queue)) for queue in range(1, 5)]
    assert max(of_each) - min(of_each) <= 1


def test_a_limit_of_the_run_is_shared_in_turn() -> None:
    """Where requests per minute bind, each model sends as many as the others, however many it could."""
    limits = Limits(requests_per_minute=120)
    queues = Queues([90, 30, 90], [always(answer(), 0.5)] * 3, concurrency=9, limits=limits)
    assert queues.carry_out() == Ended()
    of_each = [sum(at < 30 for at in queues.sent(queue)) for queue in (A, B, C)]
    assert sum(of_each) == pytest.approx(60, abs=1)
    assert max(of_each) - min(of_each) <= 1


def test_calls_of_all_sizes_have_their_turn_under_a_limit_of_tokens() -> None:
    """Few large calls of one model are not overtaken for ever by many small ones of another."""
    queues = Queues([0, 400], [always(answer(), 0.5)] * 2, concurrency=8, limits=Limits(tokens_per_minute=600))
    large = RowsInMemory([row_request(row, estimated_tokens=50) for row in range(4)])
    queues.tables[A].__dict__.update(large.__dict__ | {"on_room": queues.tables[A].on_room})
    assert queues.carry_out() == Ended()
    assert queues.answered(A) == 4
    assert queues.ended(A) <= 60.0


# -- money -----------------------------------------------------------------------------------------------------------


def test_a_call_without_room_in_the_budget_waits_while_cheaper_ones_go_on() -> None:
    """The run stops once nothing is in flight, and the next call of no model has room."""
    costs = [Decimal("0.40"), Decimal("0.01")]
    queues = Queues(
        [10, 50], [always(answer(), 1.0)] * 2, concurrency=4, costs=costs, budget=Budget(Decimal(1), Decimal(0))
    )
    ended = queues.carry_out()
    assert (queues.answered(A), queues.answered(B)) == (2, 20)
    assert ended.stop is not None
    assert (ended.stop.kind, ended.stop.next_usd, ended.queues) == ("budget", Decimal("0.01"), {})


def test_a_model_that_is_done_does_not_stop_the_run_over_another_s_budget_before_its_answers_are_there() -> None:
    """What answers leave of their reservations is there for the next call, whichever model's it is."""
    queues = Queues(
        [1, 3],
        [always(answer(), 9.0), always(answer(), 1.0)],
        concurrency=2,
        costs=[Decimal("0.5"), Decimal("0.5")],
        budget=Budget(Decimal(1), Decimal(0)),
    )
    real = msgspec.structs.replace(queues.service.as_service(), price=lambda *_: Decimal("0.1"))
    for queue in queues.runner.queues:
        queue.books._price = real.price
    assert queues.carry_out() == Ended()
    assert (queues.answered(A), queues.answered(B)) == (1, 3)


def test_no_money_is_set_aside_for_a_call_that_has_to_wait_for_long() -> None:
    """One model's call is in hand when the service asks that model to wait; the other has all of the budget."""

    def waits(_row: int, attempt: int) -> tuple[float, Any]:
        return (0.1, refused(429, retry_after="500")) if attempt == 1 else (1.0, answer())

    queues = Queues(
        [8, 8],
        [waits, always(answer(), 1.0)],
        costs=[Decimal("0.1"), Decimal("0.1")],
        budget=Budget(Decimal("0.8"), Decimal(0)),
    )
    ended = queues.carry_out()
    assert ended.stop is not None
    assert (ended.stop.kind, queues.answered(B)) == ("budget", 8)
    assert queues.ended(B) < 500


def test_each_model_has_to_show_that_it_keeps_to_its_reservations() -> None:
    """What one model's answers came to says nothing of another, so each begins with two requests in flight."""
    starts = [QueueStart(earlier=Tally(succeeded=50)), QueueStart()]
    queues = Queues(
        [20, 20],
        [always(answer(), 1.0)] * 2,
        concurrency=32,
        costs=[Decimal("0.01")] * 2,
        budget=Budget(Decimal(9), Decimal(0)),
        starts=starts,
    )
    assert queues.carry_out() == Ended()
    assert [sum(at == 0 for at in queues.sent(queue)) for queue in (A, B)] == [20, 2]


# -- a model's misfortune is its own ---------------------------------------------------------------------------------


def test_a_model_that_is_not_there_stops_alone() -> None:
    """The others are answered, its calls stay open, and what of it is in memory may go."""
    queues = Queues([50, 50], [always(UNKNOWN, 0.2), always(answer(), 1.0)])
    ended = queues.carry_out()
    assert ended.stop is not None
    assert (ended.stop.fix, list(ended.queues)) == ("job", [A])
    assert ended.queues[A] is ended.stop
    assert (queues.outcomes(A), queues.answered(B)) == ([], 50)
    assert len(queues.sent(A)) <= 4
    assert (queues.tables[A].is_set_aside, queues.tables[B].is_set_aside) == (True, False)
    assert not queues.marks.rows


def test_a_model_that_goes_in_the_middle_stops_alone() -> None:
    """Its routes are down from the tenth call on: some calls alike stop it, and none of these has an outcome."""

    def goes(row: int, _attempt: int) -> tuple[float, Any]:
        return (1.0, answer()) if row < 10 else (0.1, UNKNOWN)

    queues = Queues([300, 300], [goes, always(answer(), 1.0)], max_alike=12, max_attempts=2)
    ended = queues.carry_out()
    assert (list(ended.queues), ended.stop) == ([A], ended.queues[A])
    assert queues.answered(A) == 10
    assert len(queues.outcomes(A)) <= 20  # some fail before it is an outage, while others are answered still
    assert queues.answered(B) == 300


def test_calls_that_fail_alike_stop_their_model_alone() -> None:
    """`max_alike` counts for each model."""
    queues = Queues([50, 50], [always(WRONG, 0.1), always(answer(), 1.0)], max_alike=7)
    ended = queues.carry_out()
    assert list(ended.queues) == [A]
    assert "7 rows failed with the same error" in ended.queues[A].message
    assert (queues.outcomes(A), queues.answered(B)) == ([], 50)


def test_a_model_that_answers_nothing_for_long_stops_alone() -> None:
    """`max_pushback_s` counts for each model."""
    queues = Queues([50, 600], [always(BUSY, 0.1), always(answer(), 1.0)], concurrency=2, max_pushback_s=120.0)
    ended = queues.carry_out()
    assert list(ended.queues) == [A]
    assert "for 120 s the service answered nothing" in ended.queues[A].message
    assert queues.answered(B) == 600
    assert queues.ended(B) > 300.0


def test_a_model_without_json_stops_alone() -> None:
    """Another's JSON says nothing of it."""

    def accept(call: CallRequest, _completion: Completion, _ask: int) -> Done:
        return Done(is_json=call.ordinal // STEP == B)

    starts = [QueueStart(name=name, first_answers=FirstAnswers[OpenCall]()) for name in ("a", "b")]
    queues = Queues([50, 50], [always(answer(), 1.0)] * 2, starts=starts, accept=accept)
    ended = queues.carry_out()
    assert (list(ended.queues), ended.queues[A].fix) == ([A], "response")
    assert (len(queues.sent(A)), queues.answered(B)) == (ENOUGH, 50)


def test_where_each_model_has_stopped_the_run_has() -> None:
    """Its reason is the first queue's."""
    queues = Queues([50, 50], [always(UNKNOWN, 0.2), always(WRONG, 0.2)], max_alike=5)
    ended = queues.carry_out()
    assert sorted(ended.queues) == [A, B]
    assert ended.stop is ended.queues[A]
    assert not queues.records.recorded


@pytest.mark.parametrize("reply", [NO_CREDIT, refused(407)], ids=["credit", "proxy"])
def test_what_is_everyone_s_stops_all(reply: Any) -> None:
    """A spent credit, met by one model, is all models'; what is in flight is finished."""

    def spent(row: int, _attempt: int) -> tuple[float, Any]:
        return (1.0, answer()) if row < 8 else (0.1, reply)

    queues = Queues([50, 500], [spent, always(answer(), 1.0)])
    ended = queues.carry_out()
    assert ended.stop is not None
    assert (ended.stop.kind, ended.queues) == ("refused", {})
    assert queues.answered(B) < 20
    assert not queues.marks.rows


def test_one_model_s_refused_payment_is_not_the_account_s_while_another_is_answered() -> None:
    """A provider's account behind one model may be empty: the other's answers show that ours is not."""
    queues = Queues([30, 300], [always(UNPAID, 0.1), always(answer(), 1.0)], max_alike=10, max_attempts=2)
    ended = queues.carry_out()
    assert list(ended.queues) == [A]
    assert queues.answered(B) == 300


def test_a_model_that_was_not_refused_yet_may_still_be_answered() -> None:
    """Before any answer, a refusal of one model is not everyone's; once each was refused, it is."""
    queues = Queues([30, 60], [always(UNPAID, 0.1), always(answer(), 30.0)], max_alike=5, max_attempts=2)
    assert list(queues.carry_out().queues) == [A]
    assert queues.answered(B) == 60
    queues = Queues([30, 30], [always(UNPAID, 0.1), always(UNPAID, 0.4)])
    ended = queues.carry_out()
    assert ended.stop is not None
    assert (ended.stop.fix, ended.queues) == ("account", {})
    assert len(queues.service.sent) <= 24


def test_the_account_refused_in_the_middle_is_noticed_whichever_model_meets_it() -> None:
    """All are refused from 5 s on, with a word that may be one provider's: few requests later the run stops."""

    def ends(_row: int, _attempt: int) -> tuple[float, Any]:
        is_over = asyncio.get_running_loop().time() > 5.0
        return (0.1, UNPAID) if is_over else (0.5, answer())

    queues = Queues([500, 500], [ends, ends])
    ended = queues.carry_out()
    assert ended.stop is not None
    assert (ended.stop.fix, ended.queues) == ("account", {})
    assert sum(at > 5.0 for at, _ in queues.service.sent) <= 24


# -- stops in combination --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_now", [False, True])
def test_an_interrupt_stops_what_has_not_stopped(*, is_now: bool) -> None:
    """The run's reason is the interrupt; that a model had stopped before is told beside it."""

    def halt(queues: Queues) -> None:
        runner = queues.runner
        (runner.stop_now if is_now else runner.stop)(INTERRUPTED)

    queues = Queues([50, 50], [always(UNKNOWN, 0.2), always(answer(), 3.0)], concurrency=4)
    ended = queues.carry_out(then=halt, at_s=4.0)
    assert ended.stop == INTERRUPTED
    assert list(ended.queues) == [A]
    assert queues.answered(B) == (4 if is_now else 8)


def test_a_budget_that_is_spent_after_a_model_has_stopped_is_the_run_s_reason() -> None:
    """Each of both is told."""
    queues = Queues(
        [50, 50],
        [always(UNKNOWN, 0.2), always(answer(), 1.0)],
        costs=[Decimal("0.1")] * 2,
        budget=Budget(Decimal(1), Decimal(0)),
    )
    ended = queues.carry_out()
    assert ended.stop is not None
    assert (ended.stop.kind, list(ended.queues), queues.answered(B)) == ("budget", [A], 10)


def test_a_stop_that_comes_while_the_last_answers_are_waited_for_changes_no_reason() -> None:
    """The first reason stands: the models have stopped by themselves before."""
    queues = Queues([50, 50], [lambda row, _: (9.0 if row else 0.1, UNKNOWN)] * 2, concurrency=4)
    ended = queues.carry_out(then=lambda some: some.runner.stop(INTERRUPTED), at_s=2.0)
    assert ended.stop is ended.queues[A]


def test_one_source_that_breaks_stops_all_and_what_is_in_flight_is_recorded() -> None:
    """No call of any model is sent after it, and the error is raised."""

    async def broken() -> None:
        raise OSError("torn")

    queues = Queues([50, 50], [always(answer(), 1.0)] * 2)
    table = queues.tables[A]
    take = table.ready_call
    table.ready_call = lambda: None if table.handed_out > 4 else take()  # type: ignore[method-assign]
    asking = table.next_call

    async def next_call() -> Any:
        return await (broken() if table.handed_out > 4 else asking())

    table.next_call = next_call  # type: ignore[method-assign]
    with pytest.raises(OSError, match="torn"):
        queues.carry_out()
    assert len(queues.records.recorded) == len(queues.service.sent)


# -- what is told ----------------------------------------------------------------------------------------------------


def test_what_is_waited_for_is_told_of_the_model_that_waits() -> None:
    """By its name, where others go on; and the numbers are those of all models together."""
    said: list[Any] = []

    def look(queues: Queues) -> None:
        told = queues.runner.told
        said.extend([told.waiting_for(), told.unanswered_s > 0, told.pace.window, queues.runner.in_flight])
        said.append(told.silences())

    queues = Queues([50, 500], [always(refused(429, retry_after="900")), always(answer(), 1.0)])
    queues.carry_out(then=look, at_s=15.5)
    waiting, is_unanswered, window, in_flight, silences = said
    assert waiting.startswith("model-0: service asks to wait ")
    assert (is_unanswered, window) == (True, 8)
    assert 4 <= in_flight <= 8
    assert list(silences) == [A]
    assert silences[A].startswith("model-0: for 10 s nothing was answered ")


def test_the_last_model_that_waits_is_named() -> None:
    """Its cells alone stop, which is told so, with what to do once the model is there again."""
    said: list[Any] = []

    def goes(row: int, _attempt: int) -> tuple[float, Any]:
        return (1.0, answer()) if row < 10 else (0.1, UNKNOWN)

    queues = Queues([300, 20], [goes, always(answer(), 0.1)], adaptive=True, max_pushback_s=60.0)
    ended = queues.carry_out(
        then=lambda it: said.extend([it.runner.told.waiting_for(), it.runner.told.silences()]), at_s=40
    )
    waiting, silences = said
    assert waiting == "model-0: no answers, probing"
    assert "where that goes on, the cells of this model stop after 60 s" in silences[A]
    assert ended.queues[A].hint == "Resume once the service has the model again."


# -- whatever happens ------------------------------------------------------------------------------------------------

REPLIES = [
    *[answer()] * 6,
    BUSY,
    refused(429, retry_after="7"),
    refused(500, message="boom"),
    lost(),
    WRONG,
    UNKNOWN,
    UNPAID,
    NO_CREDIT,
]


class Watched(Queues):
    """Looks after each round whether a queue that could send has nothing in flight although a slot is free."""

    def carry_out(self, **options: Any) -> Ended:
        slots = self.runner.slots
        sends = slots.send_ready

        def send_ready(now: float) -> None:
            sends(now)
            takers = slots.takers
            if not slots.free or any(taker.blocked_by == "limit" for taker in takers):
                return
            share = max(1, len(slots.free) + slots.in_flight) // max(1, len(takers))
            for taker in tuple(takers):
                if len(taker.in_flight) < max(1, share) or len(slots.free) > sum(each.kept for each in takers):
                    assert not taker.send_next(now), "a queue that can send was idle"

        slots.send_ready = send_ready  # type: ignore[method-assign]
        return super().carry_out(**options)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_happens_each_call_has_one_outcome_or_none_and_no_slot_is_wasted(data: st.DataObject) -> None:
    """With any replies, limits, budget and stop: the run ends, no more is in flight than may be, none idles."""
    draw = data.draw
    counts = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4), label="rows")
    chances = [draw(st.sampled_from([0.0, 0.2, 0.6, 1.0])) for _ in counts]
    replies = [draw(st.lists(st.sampled_from(REPLIES), min_size=1, max_size=6)) for _ in counts]
    seed, concurrency = draw(st.integers(0, 99)), draw(st.integers(1, 6))
    chance = random.Random(seed)
    latencies = draw(st.sampled_from([(0.5,), (0.1, 2.0), (0.5, 300.0)]))

    def script(queue: int) -> Script:
        def reply(_row: int, _attempt: int) -> tuple[float, Any]:
            is_bad = chance.random() < chances[queue]
            return chance.choice(latencies), chance.choice(replies[queue]) if is_bad else answer()

        return reply

    cap = draw(st.sampled_from([None, Decimal("0.5"), Decimal(9)]), label="cap")
    per_minute = draw(st.sampled_from([None, 90.0]), label="per minute")
    queues = Watched(
        counts,
        [script(queue) for queue in range(len(counts))],
        concurrency=concurrency,
        costs=None if cap is None else [Decimal("0.1") * (queue + 1) for queue in range(len(counts))],
        budget=None if cap is None else Budget(cap, Decimal(0)),
        limits=Limits(requests_per_minute=per_minute),
        adaptive=draw(st.booleans(), label="adaptive"),
        max_alike=draw(st.integers(1, 5)),
        max_attempts=3,
        max_pushback_s=60.0,
        max_row_s=600.0,
    )
    for table in queues.tables:
        table.room = draw(st.sampled_from([None, None, 3]))
    stop_at = draw(st.sampled_from([None, None, 0.0, 1.5, 20.0]), label="stop at")
    is_now = draw(st.booleans())

    def halt(some: Queues) -> None:
        (some.runner.stop_now if is_now else some.runner.stop)(INTERRUPTED)

    ended = queues.carry_out(then=None if stop_at is None else halt, at_s=stop_at or 0.0)
    ordinals = [outcome.ordinal for outcome in queues.records.recorded]
    assert len(set(ordinals)) == len(ordinals)
    assert not set(ordinals) & set(queues.records.left)
    assert queues.service.peak <= concurrency
    is_alone = ended.stop is None or ended.stop in ended.queues.values()
    for queue, count in enumerate(counts):
        seen = len(queues.outcomes(queue)) + sum(ordinal // STEP == queue for ordinal in queues.records.left)
        assert seen <= count
        assert seen == count or queue in ended.queues or not is_alone
    if not is_now:
        assert not queues.marks.rows
