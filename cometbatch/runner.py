"""The loop: rows in, outcomes out, a bounded number of requests in flight. Knows no vendor, file format or command.

One worker per slot, for the whole run: no task is made for a row. A worker takes its turn (first come, first
served) to pick the next request that is due and to wait for the limits' permission, so only one of them ever waits
there; then it sends, judges and records, and takes its turn again. A request that must wait before its next attempt
goes into the backlog with a due time, and its slot is free at once.
"""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol, TypeAlias, assert_never

from msgspec import Struct

from cometbatch.limits import Limits
from cometbatch.output import outcome_of
from cometbatch.records import (
    Abort,
    Completion,
    Done,
    ErrorDetail,
    Failed,
    Failure,
    GiveUp,
    HttpRequest,
    HttpResponse,
    Incomplete,
    Outcome,
    Retry,
    RowRequest,
    Succeeded,
    TransportFailure,
    Usage,
    Verdict,
)
from cometbatch.retry import backoff

BACKLOG_PER_SLOT = 4  # rows waiting for another attempt, per slot, before fresh rows wait for them
WINDOWS_TO_DOUBT_PATH = 2  # windows of requests that only a wrong path explains, before the run stops over it

Reply: TypeAlias = HttpResponse | TransportFailure
StopKind: TypeAlias = Literal["interrupted", "terminated", "refused"]


class Stop(Struct, frozen=True):
    """Why a run ended before its last row, and what to do before carrying on."""

    kind: StopKind
    message: str
    hint: str = ""


class Rows(Protocol):
    """Where rows come from and outcomes go to."""

    on_room: Callable[[], None]

    @property
    def has_room(self) -> bool:
        """Whether `next_row` may be asked for more; where not, `on_room` is called when it may."""

    async def next_row(self) -> RowRequest | Failed | None:
        """The next row to send, or one that failed unsent; `None` after the last."""

    def record(self, outcome: Outcome) -> None:
        """Write an outcome down, so that a killed process can't lose it."""


class Marks(Protocol):
    """Which rows are in flight, for whoever comes after a crash."""

    def begin(self, slot: int, row: int) -> None:
        """The slot is sending the row."""

    def end(self, slot: int) -> None:
        """What the slot sent is dealt with."""


class Observer(Protocol):
    """Who is told how the run goes; never the reason that it fails."""

    def recorded(self, outcome: Outcome, in_flight: int) -> None:
        """An outcome was written down."""

    def pushed_back(self, wait_s: float) -> None:
        """The service pushes back; everyone waits."""

    def retried(self) -> None:
        """A row will be sent again."""


class Service(Struct, frozen=True):
    """The model service as the loop sees it: sending, understanding and judging, each without the others."""

    exchange: Callable[[HttpRequest], Awaitable[Reply]]
    parse: Callable[[HttpResponse], Completion | ErrorDetail]
    judge: Callable[[Reply, Completion | ErrorDetail | None], Verdict]
    price: Callable[[Usage], Decimal | None]


class Policy(Struct, frozen=True):
    """How much the loop may do at once and how long it bears with failures; waits in seconds."""

    concurrency: int = 16
    max_attempts: int = 5
    max_wait_s: float = 30.0
    max_pushback_s: float = 900.0


class _Pending:
    """A row between being read and having an outcome."""

    __slots__ = ("attempts", "pushed_back_since", "request", "strikes")

    def __init__(self, request: RowRequest) -> None:
        self.request = request
        self.attempts = 0  # exchanges so far
        self.strikes = 0  # those that count against the row
        self.pushed_back_since: float | None = None


class Runner:
    """Carries rows to their outcomes; one instance carries out one run, on one event loop.

    `path_works`: an earlier session had answers from this address, so a page instead of one is its row's own failure.
    """

    def __init__(
        self,
        rows: Rows,
        service: Service,
        policy: Policy,
        limits: Limits,
        *,
        marks: Marks,
        observer: Observer,
        now: Callable[[], datetime],
        jitter: Callable[[], float],
        path_works: bool = False,
    ) -> None:
        self._rows = rows
        self._service = service
        self._policy = policy
        self._limits = limits
        self._marks = marks
        self._observer = observer
        self._now = now
        self._jitter = jitter
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._backlog: list[tuple[float, int, _Pending]] = []
        self._order = itertools.count()
        self._exhausted = False
        self._workers: list[asyncio.Task[None]] = []
        self._sending: set[int] = set()
        self._stop: Stop | None = None
        self._closed = False
        self._pushback_rounds = 0
        self._last_pause_at = float("-inf")
        self._only_pushback_since: float | None = None
        self._path_works = path_works
        self._doubtful: list[tuple[_Pending, Failure, float]] = []
        rows.on_room = self._wake.set

    async def run(self) -> Stop | None:
        """Carry every row to its outcome. Returns `None` after the last one, or why the run stopped before.

        Raises what the rows' reader or recorder raised; then nothing more is sent.
        """
        self._workers = [asyncio.create_task(self._work(slot)) for slot in range(self._policy.concurrency)]
        try:
            await self._outcome_of_workers()
        finally:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
        return self._stop

    def stop(self, stop: Stop) -> None:
        """Admit no more; what is in flight is finished and recorded. The first reason given stands."""
        if self._stop is None:
            self._stop = stop
            self._close()

    def stop_now(self, stop: Stop) -> None:
        """Admit no more and give up what is in flight, unrecorded."""
        self.stop(stop)
        for worker in self._workers:
            worker.cancel()

    @property
    def in_flight(self) -> int:
        """How many requests are being sent right now."""
        return len(self._sending)

    def _close(self) -> None:
        self._closed = True
        for slot, worker in enumerate(self._workers):
            if slot not in self._sending:
                worker.cancel()

    async def _outcome_of_workers(self) -> None:
        done, _ = await asyncio.wait(self._workers, return_when=asyncio.FIRST_EXCEPTION)
        for worker in done:
            if not worker.cancelled() and (error := worker.exception()) is not None:
                raise error

    # -- a worker's turn -----------------------------------------------------------------------------------------

    async def _work(self, slot: int) -> None:
        try:
            while (taken := await self._take(slot)) is not None:
                await self._send(slot, *taken)
        except Exception:
            self._close()  # before `run` hears of it: another slot could send in between
            raise

    async def _send(self, slot: int, pending: _Pending, charge: float) -> None:
        started = self._time()
        self._marks.begin(slot, pending.request.row)
        reply = await self._service.exchange(pending.request.http)
        pending.attempts += 1
        self._conclude(pending, reply, started, charge)
        self._marks.end(slot)
        self._sending.discard(slot)
        self._wake.set()

    async def _take(self, slot: int) -> tuple[_Pending, float] | None:
        """Wait for a turn, a request that is due and the limits' permission; `None` when there is no more to send."""
        async with self._turn:
            if self._closed or (pending := await self._pick()) is None:
                return None
            charge = await self._limits.acquire(pending.request.estimated_tokens)
            self._sending.add(slot)
            return pending, charge

    async def _pick(self) -> _Pending | None:
        while True:
            if self._backlog and self._backlog[0][0] <= self._time():
                return heapq.heappop(self._backlog)[2]
            if self._may_admit():
                fresh = await self._rows.next_row()
                if isinstance(fresh, RowRequest):
                    return _Pending(fresh)
                self._settle_unsent(fresh)
            elif self._is_finished():
                return None
            else:
                await self._wait_for_news()

    def _may_admit(self) -> bool:
        if self._exhausted or len(self._backlog) >= BACKLOG_PER_SLOT * self._policy.concurrency:
            return False
        return self._rows.has_room or self._only_doubts_are_left()

    def _only_doubts_are_left(self) -> bool:
        """Whether the room that is missing may be held by rows that wait for further ones to settle their doubt."""
        return bool(self._doubtful) and not self._backlog and not self._sending

    def _settle_unsent(self, fresh: Failed | None) -> None:
        if fresh is None:
            self._exhausted = True
        else:
            self._finish(fresh)

    def _is_finished(self) -> bool:
        if not self._exhausted or self._backlog or self._sending:
            return False
        if self._doubtful:  # every row ran into it, and nothing has ever worked
            self._stop_over_path(self._doubtful[0][1])
        return True

    async def _wait_for_news(self) -> None:
        """Until the earliest retry is due, a request is answered, or a partition is committed."""
        self._wake.clear()
        due_in = max(0.0, self._backlog[0][0] - self._time()) if self._backlog else None
        try:
            async with asyncio.timeout(due_in):
                await self._wake.wait()
        except TimeoutError:
            pass

    # -- what came of an attempt ---------------------------------------------------------------------------------

    def _conclude(self, pending: _Pending, reply: Reply, started: float, charge: float) -> None:
        parsed = self._service.parse(reply) if isinstance(reply, HttpResponse) else None
        verdict = self._service.judge(reply, parsed)
        latency_s = self._time() - started
        match verdict:
            case Done(completion=completion):
                self._settle_limits(pending, completion.usage, charge)
                self._accept(pending, completion, reply, latency_s, started)
            case Retry():
                self._retry(pending, verdict, latency_s, started)
            case GiveUp(failure=failure, path_mistake=True) if not self._path_works:
                self._doubt(pending, failure, latency_s)
            case GiveUp(failure=failure):
                self._fail(pending, failure, latency_s)
            case Abort(failure=failure, hint=hint):
                self.stop(Stop("refused", failure.message, hint))
            case _:
                assert_never(verdict)

    def _settle_limits(self, pending: _Pending, usage: Usage, charge: float) -> None:
        if usage.input_tokens is not None and usage.output_tokens is not None:
            self._limits.settle(charge, pending.request.estimated_tokens, usage.input_tokens + usage.output_tokens)

    def _accept(
        self, pending: _Pending, completion: Completion, reply: Reply, latency_s: float, started: float
    ) -> None:
        assert isinstance(reply, HttpResponse)  # noqa: S101 - a completion is parsed from a response alone
        if started >= self._last_pause_at:
            self._pushback_rounds = 0
        self._trust_path()
        kind = Succeeded if outcome_of(completion) == "succeeded" else Incomplete
        request = pending.request
        self._finish(
            kind(
                row=request.row,
                custom_id=request.custom_id,
                attempts=pending.attempts,
                latency_s=latency_s,
                finished_at=self._now(),
                request_hash=request.request_hash,
                http_status=reply.status,
                request_id=reply.headers.get("x-cometapi-request-id"),
                completion=completion,
                cost_usd=self._service.price(completion.usage),
            )
        )

    def _fail(self, pending: _Pending, failure: Failure, latency_s: float) -> None:
        request = pending.request
        self._finish(
            Failed(
                row=request.row,
                custom_id=request.custom_id,
                attempts=pending.attempts,
                latency_s=latency_s,
                finished_at=self._now(),
                request_hash=request.request_hash,
                failure=failure,
            )
        )

    def _finish(self, outcome: Outcome) -> None:
        self._rows.record(outcome)
        if outcome.attempts:  # a row that was not sent tells nothing of the service
            self._only_pushback_since = None
        self._observer.recorded(outcome, len(self._sending))

    # -- another attempt -----------------------------------------------------------------------------------------

    def _retry(self, pending: _Pending, verdict: Retry, latency_s: float, started: float) -> None:
        pending.strikes += verdict.costs_attempt
        if verdict.slow_down and self._is_pushed_back_too_long(pending, verdict.failure, latency_s):
            return
        if pending.strikes >= self._policy.max_attempts:
            self._fail(pending, verdict.failure, latency_s)
            return
        wait_s = self._wait_before(pending, verdict, started)
        if verdict.slow_down or verdict.retry_after_s:
            self._pause(wait_s)
        self._observer.retried()
        heapq.heappush(self._backlog, (self._time() + wait_s, next(self._order), pending))

    def _is_pushed_back_too_long(self, pending: _Pending, failure: Failure, latency_s: float) -> bool:
        """Pushback costs no attempt, so time is its bound: for a row, and for a service that does nothing else."""
        if pending.pushed_back_since is None:
            pending.pushed_back_since = self._time()
        if self._only_pushback_since is None:
            self._only_pushback_since = self._time()
        patience = self._policy.max_pushback_s
        if self._time() - self._only_pushback_since > patience:
            hint = "Carry on later, or lower limits.concurrency and limits.requests_per_minute."
            self.stop(Stop("refused", f"for {patience:g} s the service only pushed back: {failure.message}", hint))
            return True
        if self._time() - pending.pushed_back_since > patience:
            self._fail(pending, failure, latency_s)
            return True
        return False

    def _wait_before(self, pending: _Pending, verdict: Retry, started: float) -> float:
        if verdict.slow_down and started >= self._last_pause_at:
            self._pushback_rounds += 1  # requests sent before the last pause tell nothing of what came after it
        if verdict.retry_after_s:  # "after 0 s" names no wait: asked at once and for ever, it would be a flood
            return verdict.retry_after_s
        failures = self._pushback_rounds if verdict.slow_down else pending.strikes
        return backoff(max(1, failures), jitter=self._jitter(), cap_s=self._policy.max_wait_s)

    def _pause(self, wait_s: float) -> None:
        self._last_pause_at = self._time()
        self._limits.pause(wait_s)
        self._observer.pushed_back(wait_s)

    # -- a wrong path --------------------------------------------------------------------------------------------

    def _doubt(self, pending: _Pending, failure: Failure, latency_s: float) -> None:
        """A page instead of an answer is either this row's bad luck or a wrong address; one working request tells."""
        self._doubtful.append((pending, failure, latency_s))
        if len(self._doubtful) >= WINDOWS_TO_DOUBT_PATH * self._policy.concurrency:
            self._stop_over_path(failure)

    def _stop_over_path(self, failure: Failure) -> None:
        hint = "Check target.base_url and target.model: no request has worked yet, so none of these rows was recorded."
        self.stop(Stop("refused", failure.message, hint))

    def _trust_path(self) -> None:
        self._path_works = True
        if self._closed:  # the next session sends them again: the stop has said that they are not recorded
            return
        doubtful, self._doubtful = self._doubtful, []
        for pending, failure, latency_s in doubtful:
            self._fail(pending, failure, latency_s)

    def _time(self) -> float:
        return asyncio.get_running_loop().time()
