"""`plan`: everything that can be known before the first request, with nothing sent but the request for prices."""

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from cometbatch.commands.asking import WORDS_TOKENS
from cometbatch.commands.checks import (
    Checked,
    check,
    check_budget,
    check_session,
    describe_missing_columns,
    goes_on,
    partition_rows,
)
from cometbatch.commands.connection import NO_KEY, api_key, describe_connection, simulator_behaviour, tls_settings
from cometbatch.commands.looks import PLAN_BYTES, Looks, describe_texts
from cometbatch.commands.open_files import fit
from cometbatch.commands.plan_budget import BudgetPlan, BudgetWalk, budget_walk
from cometbatch.input.files import Identity
from cometbatch.input.table import partitions
from cometbatch.input.values import row_values
from cometbatch.job import Job
from cometbatch.money.exact import EXACT, format_amount, format_rounded
from cometbatch.money.prices import estimate_cost, likely_cost
from cometbatch.records import CallRequest, Failed, PriceBook, Rates, Tally
from cometbatch.results import tallies
from cometbatch.results.summary import cap_warning, count
from cometbatch.run_state.progress import Progress
from cometbatch.run_state.run import Run, directory_of, find
from cometbatch.runner.row_maker import ASSUMED_OUTPUT_TOKENS
from cometbatch.service.catalog import find_prices
from cometbatch.transport import Transport

if TYPE_CHECKING:
    import httpx


class RunPlan(Struct, frozen=True):
    """What a run of this job would do and cost.

    `first_request` is that of the first row without an outcome, without the key; None where no row is left or none can
    be rendered. Token counts are the documented estimate (contract sheet, section 8.3): a quarter of the characters
    in, `max_output_tokens` out. `cost_usd` is in US dollars at list price and a ceiling under that estimate; None where
    there is no price. Where an earlier answer of the run was longer than the cap, all are estimated as long as it.
    `worst_cost_usd`: the same where every row is asked `max_asks` times, with its last answer in each further ask;
    equal to `cost_usd` where rows are asked once.
    `done` counts the rows that have outcomes already; the estimates are for the others. `connection` says how requests
    get to the service. `finished`: every row has its outcome and the result is there. `running`: a run of this job is
    going on. `budget`: None where the job has none, or nothing remains.
    """

    job: Job
    input: Identity
    partition_rows: int
    first_request: dict[str, Any] | None
    unrenderable: int
    first_problem: str | None
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal | None
    likely_cost_usd: Decimal | None
    prices: PriceBook
    done: int
    connection: str
    finished: bool = False
    running: bool = False
    warnings: tuple[str, ...] = ()
    budget: BudgetPlan | None = None
    max_asks: int = 1
    worst_cost_usd: Decimal | None = None

    @property
    def rows(self) -> int:
        """How many rows the input has."""
        return self.input.rows

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; amounts of money are strings, so that they stay exact."""
        return {
            "input": msgspec.to_builtins(self.input),
            "output": str(self.job.output.path),
            "way": self.connection,
            "rows": self.rows,
            "done": self.done,
            "finished": self.finished,
            "running": self.running,
            "partition_rows": self.partition_rows,
            "first_request": self.first_request,
            "unrenderable": self.unrenderable,
            "first_problem": self.first_problem,
            "estimated_input_tokens": self.input_tokens,
            "estimated_output_tokens": self.output_tokens,
            "estimated_cost_usd": _amount(self.cost_usd),
            "likely_cost_usd": _amount(self.likely_cost_usd),
            "max_asks": self.max_asks,
            "worst_cost_usd": _amount(self.worst_cost_usd),
            "budget": None if self.budget is None else self.budget.to_dict(),
            "price_source": self.prices.source,
            "warnings": list(self.warnings),
        }

    def describe(self) -> str:
        """A page for a person."""
        lines = [
            f"input: {self.job.input.path} ({self.rows:,} rows, {len(self.input.columns)} columns)",
            f"output: {self.job.output.path}",
            f"connection: {self.connection}",
            *self._state(),
            "first request:",
            *_indented(self.first_request),
            f"{self._estimated()}: {self.input_tokens:,} tokens in, {self._out()}",
            f"cost: {self._cost()}",
            *self._worst_cost(),
            *(self.budget.describe() if self.budget is not None else ()),
        ]
        return "\n".join(lines)

    def _state(self) -> Iterator[str]:
        if self.running:
            yield f"running: a run of this job is going on; {self.done:,} of {count(self.rows, 'row')} are done"
        elif self.finished:
            yield f"finished: {self.done:,} of {count(self.rows, 'row')} have an outcome; a run would send nothing"
        elif self.done:
            yield f"resumes: {self.done:,} rows are done, {self.rows - self.done:,} remain"
        if self.unrenderable:
            yield f"{self.unrenderable:,} rows can't be rendered and will fail; the first: {self.first_problem}"

    def _estimated(self) -> str:
        return f"estimate for the {self.rows - self.done:,} rows that remain" if self.done else "estimate"

    def _out(self) -> str:
        tokens = f"{self.output_tokens:,} tokens out"
        if self._is_capped:
            return f"{tokens} at most"
        return f"{tokens} ({ASSUMED_OUTPUT_TOKENS} a row assumed: params.max_output_tokens is not set)"

    @property
    def _is_capped(self) -> bool:
        return all(target.max_output_tokens is not None for target in self.job.targets())

    def _cost(self) -> str:
        if self.cost_usd is None:
            return "unknown: there is no price (set prices)"
        likely = "" if self.likely_cost_usd is None else f", likely {format_rounded(self.likely_cost_usd)}"
        bound = "at most about" if self._is_capped else "about"
        return f"{bound} {format_rounded(self.cost_usd, up=True)}{likely} (prices: {self.prices.source})"

    def _worst_cost(self) -> Iterator[str]:
        if self.max_asks > 1 and self.worst_cost_usd is not None:
            worst = format_rounded(self.worst_cost_usd, up=True)
            yield f"  if every row is asked {self.max_asks} times (response.max_asks): up to about {worst}"


class _Begin(Struct):
    """What the next session would begin with: prices, what is recorded, and what was paid so far."""

    book: PriceBook
    warnings: list[str]
    partition_rows: int
    progress: Progress = Progress()
    bill: Tally = Tally()


def _begin(checked: Checked, identity: Identity, known: Run | None, http: "httpx.AsyncBaseTransport | None") -> _Begin:
    if known is None:
        book, warnings = _prices_now(checked, http)
        return _Begin(book, list(warnings), partition_rows(checked, identity))
    book, warnings = known.manifest.prices, []
    if book.rates is None and not known.is_complete:
        book, warnings = _prices_now(checked, http)  # which the next session looks for, too
    bill = tallies.add(known.bill, known.progress.charges)
    return _Begin(book, list(warnings), known.manifest.partition_rows, known.progress, bill)


def plan(job: Job, *, http: "httpx.AsyncBaseTransport | None" = None) -> RunPlan:
    """Check everything about a job and say what it would do and cost; sends no prompt and writes no file.

    Raises `UsageError` for whatever `run` would refuse before its first request, but for a missing key and a run that
    is going on: `running` tells of that.
    """
    checked, connection = check(job), describe_connection(job, http)
    directory = directory_of(job.output.path, is_dataset=job.output.is_dataset)
    found = find(directory, job.output.path)
    check_session(checked, directory, found, http=http)
    identity = checked.source.check()
    known = found if found is not None and goes_on(found, checked) else None
    is_finished = known is not None and known.is_finished
    is_keyless = not is_finished and _lacks_key(job)
    begin = _begin(checked, identity, known, http)
    book, progress, bill, warnings = begin.book, begin.progress, begin.bill, begin.warnings
    if not is_finished:
        check_budget(job, checked.target, book)
        warnings += filter(None, [fit(job.limits.concurrency, begin.partition_rows)[2]])
    cap = checked.target.max_output_tokens
    expected = ASSUMED_OUTPUT_TOKENS if cap is None else max(cap, bill.largest_output_tokens)
    max_asks = checked.target.response.max_asks if checked.checker is not None else 1
    walk = None if is_finished else budget_walk(job.budget.max_cost_usd, book.rates, bill, expected, max_asks)
    looks = Looks(checked, checked.row_maker(), identity.rows - progress.calls, PLAN_BYTES)
    survey = _survey(checked, identity, begin, looks=looks, walk=walk)
    output_tokens = survey.requests * expected
    cost = _estimate(survey, expected, book.rates)
    worst = _estimate(survey.asked(max_asks, expected), expected, book.rates)
    return RunPlan(
        job=job,
        input=identity,
        partition_rows=begin.partition_rows,
        first_request=_shown(job, survey.first),
        unrenderable=survey.unrenderable,
        first_problem=survey.first_problem,
        input_tokens=survey.input_tokens,
        output_tokens=output_tokens,
        cost_usd=cost,
        likely_cost_usd=likely_cost(cost, book),
        prices=book,
        done=progress.calls,
        connection=connection,
        finished=is_finished,
        running=directory.lock.is_held(),
        warnings=(
            *checked.warnings,
            *warnings,
            *filter(None, [cap_warning(bill.largest_output_tokens, cap)]),
            *describe_texts(checked),
            *(() if known is None else describe_missing_columns(job, known.manifest.columns)),
            *looks.warnings(),
            *([_missing_key(job)] if is_keyless else []),
        ),
        budget=None if walk is None else walk.plan(),
        max_asks=max_asks,
        worst_cost_usd=worst,
    )


def _lacks_key(job: Job) -> bool:
    """Whether the variable of the key is not set. Raises `UsageError` where it is, and what it holds is no key."""
    if not job.target.is_simulator and job.target.key_env not in os.environ:
        return True
    api_key(job)
    return False


def _missing_key(job: Job) -> str:
    return f"the environment variable {job.target.key_env} is not set: a run needs the API key in it"


def _prices_now(checked: Checked, http: "httpx.AsyncBaseTransport | None") -> tuple[PriceBook, list[str]]:
    """The prices, fetched in a thread: the caller's event loop (a notebook has one) can't be entered twice."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, _prices(checked, http)).result()


async def _prices(checked: Checked, http: "httpx.AsyncBaseTransport | None") -> tuple[PriceBook, list[str]]:
    job, base_url = checked.job, checked.job.target.base_url
    if job.target.is_simulator:
        base_url = "http://127.0.0.1"
        http = http or _simulated(job)
    transport = Transport(base_url, NO_KEY, timeout_s=job.limits.timeout_s, http=http, tls=tls_settings(job))
    try:
        return await find_prices(checked.target.model, job.prices, transport)
    finally:
        await transport.aclose()


def _simulated(job: Job) -> "httpx.AsyncBaseTransport":
    import httpx  # noqa: PLC0415 - takes long to load, and only the simulator needs it

    from cometbatch.simulator.app import create_app  # noqa: PLC0415 - the same

    return httpx.ASGITransport(create_app(simulator_behaviour(job)))


class _Survey(Struct):
    """Sums over the requests of all rows that have no outcome yet. `input_tokens` is the estimate.

    `long_requests`, `long_input_tokens`: of those whose input is above `prices.above.input_tokens`.
    """

    requests: int = 0
    input_tokens: int = 0
    long_requests: int = 0
    long_input_tokens: int = 0
    unrenderable: int = 0
    first: CallRequest | None = None
    first_problem: str | None = None

    def asked(self, times: int, output_tokens: int) -> "_Survey":
        """The same where each row is asked so often; `output_tokens`: of each answer, which the next ask holds."""
        added = (times - 1) * (output_tokens + WORDS_TOKENS)
        return _Survey(
            requests=times * self.requests,
            input_tokens=times * self.input_tokens + added * self.requests,
            long_requests=times * self.long_requests,
            long_input_tokens=times * self.long_input_tokens + added * self.long_requests,
        )


def _survey(checked: Checked, identity: Identity, begin: _Begin, *, looks: Looks, walk: BudgetWalk | None) -> _Survey:
    survey, maker = _Survey(), checked.row_maker()
    progress, rates = begin.progress, begin.book.rates
    reserved = checked.target.max_output_tokens or ASSUMED_OUTPUT_TOKENS  # for the answer, in each request's estimate
    committed = set(progress.committed)
    missing = [each for each in partitions(identity.rows, begin.partition_rows) if each.index not in committed]
    for partition, table in zip(missing, checked.source.tables(identity, missing), strict=True):
        for row, values in enumerate(row_values(table, maker.columns), partition.first_row):
            if row in progress.recorded:
                continue
            made = maker.make(row, values)
            looks.note_made(row, values, made)
            if isinstance(made, Failed):
                survey.unrenderable += 1
                survey.first_problem = survey.first_problem or f"row {row}: {made.failure.message}"
                continue
            tokens = made.estimated_tokens - reserved
            survey.requests += 1
            survey.input_tokens += tokens
            if rates is not None and rates.above is not None and tokens > rates.above.input_tokens:
                survey.long_requests += 1
                survey.long_input_tokens += tokens
            survey.first = survey.first or made
            if walk is not None:
                walk.add(made, tokens)
    return survey


def _estimate(survey: _Survey, output_tokens: int, rates: Rates | None) -> Decimal | None:
    """US dollars for all requests, those with much input at their own rates; `output_tokens`: of each answer."""
    requests, tokens = survey.requests - survey.long_requests, survey.input_tokens - survey.long_input_tokens
    cost = estimate_cost(tokens, requests * output_tokens, requests, rates)
    if cost is None or rates is None or rates.above is None:
        return cost
    long_output = survey.long_requests * output_tokens
    longer = estimate_cost(survey.long_input_tokens, long_output, survey.long_requests, rates.above.rates)
    return None if longer is None else EXACT.add(cost, longer)


def _shown(job: Job, request: CallRequest | None) -> dict[str, Any] | None:
    if request is None:
        return None
    base_url = "" if job.target.is_simulator else job.target.base_url
    return {
        "method": "POST",
        "url": base_url + request.http.path,
        "headers": dict(request.http.headers),
        "body": msgspec.json.decode(request.http.body),
    }


def _indented(request: dict[str, Any] | None) -> Iterator[str]:
    if request is None:
        yield "  none: no row is left, or can be rendered"
        return
    yield f"  {request['method']} {request['url']}"
    yield from (f"  {name}: {value}" for name, value in request["headers"].items())
    body = msgspec.json.format(msgspec.json.encode(request["body"]), indent=2).decode()
    yield from (f"  {line}" for line in body.splitlines())


def _amount(amount: Decimal | None) -> str | None:
    return None if amount is None else format_amount(amount)
