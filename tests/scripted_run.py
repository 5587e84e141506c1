"""What the tests of a run are made of: a service that follows a script, rows in memory, and a run kept on disk."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from cometbatch.control.acceptance import accept_all
from cometbatch.control.budget import Budget
from cometbatch.control.classify import classify
from cometbatch.control.first_answers import FirstAnswers
from cometbatch.limiting.limits import Limits
from cometbatch.money.prices import meter
from cometbatch.records import (
    Acceptance,
    CallRequest,
    Completion,
    ErrorDetail,
    Failed,
    Failure,
    HttpRequest,
    HttpResponse,
    Message,
    ModelRequest,
    Outcome,
    PossibleCharge,
    Prompt,
    Rates,
    Record,
    RejectedAsk,
    Tally,
    TransportFailure,
    Usage,
)
from cometbatch.runner.ports import ExchangeResult, Marks, Observer, Policy, Reply, Service
from cometbatch.runner.queue_start import QueueStart
from cometbatch.runner.slots import OpenCall
from cometbatch.runner.turns import Runner
from cometbatch.transport.backends import InTask
from cometbatch.wire import FORMATS
from cometbatch.wire.envelope import build_error, request_id_of
from tests.wire.strategies import request_of

CHAT = FORMATS["chat"]
MODEL = "vendor-model-4.5"
NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
RUN_ID = "0123abcd"
PRICE_USD = Decimal("0.000123")
HALF = 0.5  # the jitter of a test that does not ask about jitter

Script = Callable[[int, int], tuple[float, Reply]]
"""What the service does with a row's n-th request (from 1): how many seconds it takes, and its reply."""


def answer(text: str = "Four.", *, input_tokens: int = 3, output_tokens: int = 2) -> HttpResponse:
    """A whole answer."""
    return CHAT.build_response(MODEL, Completion(text, "stop", Usage(input_tokens, output_tokens)))


def cut_short() -> HttpResponse:
    """An answer that ran into the token limit."""
    return CHAT.build_response(MODEL, Completion("Fo", "length", Usage(3, 1)))


def refused(status: int, *, code: str = "", message: str = "no", **headers: str) -> HttpResponse:
    """An error reply; header names with `_` for `-`."""
    reply = build_error(ErrorDetail(status, code=code, message=message), "openai")
    added = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(reply.status, reply.headers | added, reply.body)


def page() -> HttpResponse:
    """What a wrong path shows."""
    return build_error(ErrorDetail(200, message="Welcome"), "html")


def moved() -> HttpResponse:
    """The other thing that a wrong path shows."""
    return HttpResponse(301, {"location": "https://example.com/"}, b"")


def lost() -> TransportFailure:
    """No whole reply."""
    return TransportFailure("timeout", "no reply in time")


def row_request(row: int, *, estimated_tokens: int = 1, max_output_tokens: int | None = None) -> CallRequest:
    """A row that asks its own number."""
    http = request_of(CHAT, MODEL, prompt_of(row))
    return CallRequest(row, f"id-{row}", http, f"hash-{row}", estimated_tokens, max_output_tokens)


def unsendable(row: int) -> Failed:
    """A row whose prompt could not be made."""
    return Failed(row, f"id-{row}", 0, None, NOW, None, Failure("template", "no such thing"))


def prompt_of(row: int) -> Prompt:
    """The prompt that asks a row's own number."""
    return Prompt((Message.of_text("user", str(row)),))


class ScriptedService:
    """A model service on the loop's clock, which remembers what was sent, when, and how it ended."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.max_cost_usd: Decimal | None = None  # of any row, where there are no rates
        self.rates: Rates | None = None
        self.accept: Callable[[CallRequest, Completion, int], Acceptance] = accept_all
        self.sent: list[tuple[float, int]] = []  # when, and which row
        self._times_sent = Counter[int]()
        self.ended: list[tuple[float, int]] = []
        self.sending: set[int] = set()
        self.peak = 0
        self.is_reached = False  # whether anything came of what was sent but that it could not be

    async def exchange(self, request: HttpRequest) -> Reply:
        asked = CHAT.parse_request(request)
        assert isinstance(asked, ModelRequest)
        row = int(asked.prompt.messages[0].text)
        self.sent.append((_time(), row))
        self._times_sent[row] += 1
        latency, reply = self.script(row, self.times_sent(row))
        self.is_reached = self.is_reached or not isinstance(reply, TransportFailure) or reply.sent
        assert row not in self.sending
        self.sending.add(row)
        self.peak = max(self.peak, len(self.sending))
        try:
            await asyncio.sleep(latency)
        finally:
            self.sending.remove(row)
        self.ended.append((_time(), row))
        return reply

    def times_sent(self, row: int) -> int:
        return self._times_sent[row]

    @property
    def rows(self) -> list[int]:
        return [row for _, row in self.sent]

    def _max_cost(self, _request: CallRequest, inputs: int, outputs: int | None, hour: bool) -> Decimal | None:
        if self.rates is None:
            return self.max_cost_usd
        return meter(self.rates).max_cost(inputs, outputs, writes_for_an_hour=hour)

    def as_service(self) -> Service:
        return Service(
            send=lambda request, done: InTask(lambda: self.exchange(request), done),
            read=read,
            max_cost=self._max_cost,
            classify=lambda reply, parsed: classify(reply, parsed, now=lambda: NOW),
            accept=self.accept,
            request_id=request_id_of,
            price=lambda _request, usage: PRICE_USD if self.rates is None else meter(self.rates).cost(usage),
            is_reached=lambda: self.is_reached,
        )


def read(_call: CallRequest, result: ExchangeResult, _sent_bytes: int) -> tuple[Reply, Completion | ErrorDetail | None]:
    """What came, and what it says."""
    if isinstance(result, Exception):
        raise result
    return result, CHAT.parse_response(result) if isinstance(result, HttpResponse) else None


def always(reply: Reply, latency: float = 1.0) -> Script:
    """The same reply to everything."""
    return lambda _row, _attempt: (latency, reply)


def by_row(replies: Mapping[int, tuple[float, Reply]], otherwise: tuple[float, Reply]) -> Script:
    """One reply for each of these rows, another for all others."""
    return lambda row, _attempt: replies.get(row, otherwise)


def in_turn(*replies: Reply, latency: float = 1.0) -> Script:
    """Each row gets these replies one after another, the last one for ever."""
    return lambda _row, attempt: (latency, replies[min(attempt, len(replies)) - 1])


class RowsInMemory:
    """A table in memory; `room` bounds how many of its rows may be handed out (`None`: all of them)."""

    def __init__(self, rows: int | Iterable[CallRequest | Failed], *, room: int | None = None) -> None:
        table = map(row_request, range(rows)) if isinstance(rows, int) else rows
        self._unread: Iterator[CallRequest | Failed] = iter(table)
        self.room = room
        self.settling = ()
        self.handed_out = 0
        self.asked = 0
        self.is_reading = False
        self.charges: list[PossibleCharge] = []
        self.asks: list[RejectedAsk] = []
        self.records: list[Record] = []  # all of them, in order
        self.recorded: list[Outcome] = []
        self.left: list[int] = []
        self.is_set_aside = False
        self.on_room: Callable[[], None] = lambda: None

    @property
    def has_room(self) -> bool:
        return self.room is None or self.handed_out < self.room

    def ready_call(self) -> CallRequest | Failed | None:
        """Every second time, so that both ways are taken; and not while a row is waited for."""
        self.asked += 1
        row = next(self._unread, None) if self.asked % 2 and self.has_room and not self.is_reading else None
        self.handed_out += row is not None
        return row

    async def next_call(self) -> CallRequest | Failed | None:
        self.is_reading = True
        await asyncio.sleep(0)
        self.is_reading = False
        row = next(self._unread, None)
        self.handed_out += row is not None
        return row

    def record(self, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, PossibleCharge):
                self.charges.append(record)
            elif isinstance(record, RejectedAsk):
                self.asks.append(record)
            else:
                self.recorded.append(record)
            self.records.append(record)

    def set_aside(self) -> None:
        self.is_set_aside = True

    def leave(self, ordinal: int) -> None:
        self.left.append(ordinal)

    @property
    def by_row(self) -> dict[int, Outcome]:
        assert len({outcome.ordinal for outcome in self.recorded}) == len(self.recorded)
        return {outcome.ordinal: outcome for outcome in self.recorded}


class MarksInMemory:
    """What is in flight, by cell; `began` and `ended` remember all that was told."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        self.began: list[tuple[int, int, int, Decimal | None]] = []
        self.ended: list[tuple[int, bool]] = []  # the ordinal, and whether it was recorded

    def begin(self, ordinal: int, ask: int, attempt: int, amount: Decimal | None) -> int:
        self.began.append((ordinal, ask, attempt, amount))
        self.rows[len(self.began)] = ordinal
        return len(self.began)

    def end(self, cell: int, *, recorded: bool) -> None:
        self.ended.append((self.rows.pop(cell), recorded))


class Watcher:
    """Remembers what the loop tells."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.in_flight: list[int] = []
        self.pauses: list[float] = []
        self.retries = 0

    def recorded(self, outcomes: Sequence[Outcome], in_flight: int) -> None:
        self.outcomes += outcomes
        self.in_flight += [in_flight] * len(outcomes)

    def asked_to_slow_down(self, wait_s: float) -> None:
        self.pauses.append(wait_s)

    def retried(self) -> None:
        self.retries += 1


def make_runner(
    rows: "RowsInMemory",
    service: ScriptedService,
    *,
    concurrency: int = 4,
    limits: Limits | None = None,
    jitter: Callable[[], float] = lambda: HALF,
    marks: Marks | None = None,
    observer: Observer | None = None,
    earlier: Tally = Tally(),  # noqa: B008 - frozen
    rejected: Mapping[int, Sequence[RejectedAsk]] | None = None,
    budget: Budget | None = None,
    is_exact: bool = False,
    first_answers: FirstAnswers[OpenCall] | None = None,
    **policy: Any,
) -> Runner:
    """A runner over these rows and this service."""
    return Runner(
        [rows],
        rows,
        service.as_service(),
        Policy(concurrency=concurrency, **policy),
        limits or Limits(),
        marks=marks or MarksInMemory(),
        observer=observer or Watcher(),
        now=lambda: NOW,
        jitter=jitter,
        budget=budget,
        starts=[QueueStart(earlier=earlier, rejected=rejected or {}, first_answers=first_answers, is_exact=is_exact)],
    )


def _time() -> float:
    return asyncio.get_running_loop().time()
