"""`plan`: everything that can be known before the first request, with nothing sent but the request for prices."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from cometbatch.commands.checked import Checked
from cometbatch.commands.checks import (
    check,
    check_session,
    describe_missing_columns,
    describe_replaced,
    goes_on,
    partition_rows,
    refuse_limit,
)
from cometbatch.commands.connection import NO_KEY, api_key, describe_connection, simulator_behaviour, tls_settings
from cometbatch.commands.deduping import DedupePlan, asked_so_far, describe_late
from cometbatch.commands.looks import PLAN_BYTES, Looks, describe_texts
from cometbatch.commands.open_files import fit
from cometbatch.commands.plan_budget import BudgetPlan, BudgetWalk, budget_walk
from cometbatch.commands.plan_costs import Requests, estimate
from cometbatch.commands.reusing import AsTaken, earlier_answers
from cometbatch.commands.row_changes import UpdatePlan, update_plan
from cometbatch.commands.scoring import check_golds
from cometbatch.commands.tables import JobSource, as_job, looked_at
from cometbatch.commands.targets import check_budgets, models_asked, price_warnings, priced_targets, row_makers
from cometbatch.commands.updating import as_begun, choose
from cometbatch.input.files import Identity
from cometbatch.input.table import partitions
from cometbatch.input.values import row_values
from cometbatch.job import Job
from cometbatch.job.accepting import read_accept
from cometbatch.money.exact import format_amount, format_rounded
from cometbatch.records import CallRequest, Failed, Outcome, PriceBook, Tally
from cometbatch.results import tallies
from cometbatch.results.accepted import Accepted, judged
from cometbatch.results.answered import BYTES_EACH, AnsweredCalls
from cometbatch.results.columns import OUTCOMES
from cometbatch.results.notebook import html_of
from cometbatch.results.reuse import EarlierAnswers
from cometbatch.results.reuse_counts import ReuseCounts
from cometbatch.results.summary import cap_warning
from cometbatch.results.summary_words import count, price_source
from cometbatch.results.terminal import visible
from cometbatch.run_state.manifest import PricedTarget
from cometbatch.run_state.progress import Progress
from cometbatch.run_state.run import Run, home_of_job
from cometbatch.runner.row_maker import ASSUMED_OUTPUT_TOKENS
from cometbatch.service.catalog import find_books
from cometbatch.transport import Transport
from cometbatch.transport.key import NoKeyError
from cometbatch.wire import output_cap
from cometbatch.wire.images import by_reference
from cometbatch.wire.tolerant_json import decode_json

if TYPE_CHECKING:
    import httpx


IMAGES_LOOKED_AT: Final = 1_000
"""Rows whose images `plan` opens; those of the rows after these are looked at when they are sent."""

TRY_ROWS = 20  # that `plan` estimates by themselves where nobody says how many: enough to see whether a prompt works


class LimitedPlan(Struct, frozen=True):
    """What `run --limit` would send and cost: of the first rows of the input, those that have no outcome yet.

    The numbers are estimates as of all rows (`RunPlan`).
    """

    limit: int
    requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal | None
    likely_cost_usd: Decimal | None


class RunPlan(Struct, frozen=True):
    """What a run of this job would do and cost.

    `first_request` is that of the first row without an outcome, without the key; None where no row is left or none can
    be rendered. Token counts are the documented estimate (contract sheet, section 8.3): a quarter of the characters
    in, `max_output_tokens` out. `cost_usd` is in US dollars at list price and a ceiling under that estimate, of what
    has a price; None where nothing has. Where an earlier answer of the run was longer than the cap, all are estimated
    as long as it. `worst_cost_usd`: the same where every row is asked `max_asks` times, with its last answer in each
    further ask; equal to `cost_usd` where rows are asked once.
    `done` counts the rows that have outcomes already; the estimates are for the others. `connection` says how requests
    get to the service. `finished`: every row has its outcome and the result is there. `running`: a run of this job is
    going on. `update`: None where the plan is of no update that is to begin. `budget`: None where the job has none, or
    nothing remains. `limited`: the first rows alone; None where these are all that remain. `uncapped`: requests whose
    answer has no cap. `prices` are those of the first target, `other_prices` those of further ones. `reuse`: how the
    rows that remain meet answers of earlier runs; None where none are looked for, or there is no such run. `dedupe`:
    None where rows that ask the same are all sent. The estimates are for those alone that are sent.
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
    update: UpdatePlan | None = None
    warnings: tuple[str, ...] = ()
    budget: BudgetPlan | None = None
    limited: LimitedPlan | None = None
    uncapped: int = 0
    max_asks: int = 1
    worst_cost_usd: Decimal | None = None
    other_prices: tuple[PriceBook, ...] = ()
    reuse: ReuseCounts | None = None
    dedupe: DedupePlan | None = None

    @property
    def price_source(self) -> str:
        """Where the prices come from, of all targets that have some."""
        return price_source((self.prices, *self.other_prices))

    @property
    def rows(self) -> int:
        """How many rows the input has."""
        return self.input.rows

    @property
    def accepted(self) -> Accepted:
        """What the run may come to, and still ends with exit code 0: rows that surely fail are counted already."""
        return judged(self.job.accept, self.rows, failed=self.unrenderable, incomplete=0, is_done=False)

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
            "update": msgspec.to_builtins(self.update),
            "partition_rows": self.partition_rows,
            "first_request": self.first_request,
            "unrenderable": self.unrenderable,
            "first_problem": self.first_problem,
            "accepted": self.accepted.to_dict() if self.job.accept.is_used else None,
            "estimated_input_tokens": self.input_tokens,
            "estimated_output_tokens": self.output_tokens,
            "estimated_cost_usd": _amount(self.cost_usd),
            "likely_cost_usd": _amount(self.likely_cost_usd),
            "limited": _limited_dict(self.limited),
            "reused": None if self.reuse is None else self.reuse.to_dict(requests=self._requests),
            "dedupe": None if self.dedupe is None else self.dedupe.to_dict(),
            "max_asks": self.max_asks,
            "worst_cost_usd": _amount(self.worst_cost_usd),
            "budget": None if self.budget is None else self.budget.to_dict(),
            "price_source": self.price_source,
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        return self.describe()

    def _repr_html_(self) -> str:
        return html_of(self.describe())

    def describe(self) -> str:
        """A page for a person, in which no character of a cell is hidden or does anything on a terminal."""
        lines = [
            f"input: {self.job.input.path} ({self.rows:,} rows, {len(self.input.columns)} columns{self._files()})",
            f"output: {self.job.output.path}",
            f"connection: {self.connection}",
            *self._state(),
            *(() if self.reuse is None else self.reuse.planned_words(is_deduped=self.dedupe is not None)),
            "first request:",
            *_indented(self.first_request),
            *(self.dedupe.describe() if self.dedupe is not None else ()),
            f"{self._estimated()}: {self.input_tokens:,} tokens in, {self._out()}",
            f"cost: {self._cost(self.cost_usd, self.likely_cost_usd)}{self._prices()}",
            *self._worst_cost(),
            *self._limited(),
            *(self.budget.describe() if self.budget is not None else ()),
        ]
        return visible("\n".join(lines))

    def _files(self) -> str:
        return f", {count(len(self.input.files), 'file')}" if self.input.files else ""

    def _state(self) -> Iterator[str]:
        if self.running:
            yield f"running: a run of this job is going on; {self.done:,} of {count(self.rows, 'row')} are done"
        elif self.finished:
            yield f"finished: {self.done:,} of {count(self.rows, 'row')} have an outcome; a run would send nothing"
        elif self.done:
            yield f"resumes: {self.done:,} rows are done, {self.rows - self.done:,} remain"
        elif self.update is not None:
            yield self.update.describe()
        if self.unrenderable:
            more = ", more than accepted" if self.job.accept.is_used and not self.accepted.is_within else ""
            yield f"{self.unrenderable:,} rows can't be rendered and will fail{more}; the first: {self.first_problem}"
        if self.job.accept.is_used:
            yield f"accepted: {self.accepted.bounds()}"

    @property
    def _requests(self) -> int | None:
        """How many different requests are sent, where rows that ask the same are sent once."""
        return None if self.dedupe is None else self.dedupe.requests

    def _estimated(self) -> str:
        if self._requests is not None:
            return f"estimate for {count(self._requests, 'request')}"
        if self.reuse is not None and self.reuse.taken:
            return f"estimate for the {count(self.reuse.sent, 'row')} to be sent"
        return f"estimate for the {self.rows - self.done:,} rows that remain" if self.done else "estimate"

    def _out(self) -> str:
        tokens = f"{self.output_tokens:,} tokens out"
        if self._is_capped:
            return f"{tokens} at most"
        if self.job.batch is not None:
            return f"{tokens} ({ASSUMED_OUTPUT_TOKENS} for each of {self.uncapped:,} without a cap)"
        return f"{tokens} ({ASSUMED_OUTPUT_TOKENS} a row assumed: params.max_output_tokens is not set)"

    @property
    def _is_capped(self) -> bool:
        if self.job.batch is not None:
            return not self.uncapped
        return all(output_cap(target.format, target.params) is not None for target in self.job.targets())

    def _cost(self, cost_usd: Decimal | None, likely_usd: Decimal | None) -> str:
        if cost_usd is None:
            return "unknown"
        likely = "" if likely_usd is None else f", likely {format_rounded(likely_usd)}"
        bound = "at most about" if self._is_capped else "about"
        return f"{bound} {format_rounded(cost_usd, up=True)}{likely}"

    def _prices(self) -> str:
        return ": there is no price (set prices)" if self.cost_usd is None else f" (prices: {self.price_source})"

    def _limited(self) -> Iterator[str]:
        if (first := self.limited) is not None:
            cost = self._cost(first.cost_usd, first.likely_cost_usd)
            told = f"costs {cost}" if first.cost_usd is not None else "has an unknown cost"
            told = told if first.requests else "would send nothing: each of these rows has its outcome"
            yield f"a try of the first {count(first.limit, 'row')} (run --limit {first.limit}) {told}"

    def _worst_cost(self) -> Iterator[str]:
        if self.max_asks > 1 and self.worst_cost_usd is not None:
            worst = format_rounded(self.worst_cost_usd, up=True)
            yield f"  if every row is asked {self.max_asks} times (response.max_asks): up to about {worst}"


class _Begin(Struct):
    """What the next session would begin with: prices, what is recorded, and what was paid so far."""

    targets: tuple[PricedTarget, ...]
    warnings: list[str]
    partition_rows: int
    progress: Progress = Progress()
    bill: Tally = Tally()
    known: Run | None = None
    asked_so_far: AnsweredCalls | None = None  # where rows that ask the same are sent once

    @property
    def books(self) -> tuple[PriceBook, ...]:
        """The price book of each target."""
        return tuple(each.prices for each in self.targets)

    def expected_tokens(self, cap: int | None) -> int:
        """What the answer to a call with this cap is taken to have: the cap, unless the service did not keep to it."""
        if cap is None:
            return ASSUMED_OUTPUT_TOKENS
        most = cap if self.known is None else self.known.manifest.token_cap
        is_passed = most is not None and self.bill.largest_output_tokens > most
        return max(cap, self.bill.largest_output_tokens) if is_passed else cap


def _begin(checked: Checked, identity: Identity, known: Run | None, http: "httpx.AsyncBaseTransport | None") -> _Begin:
    if known is None:
        models = models_asked(checked, identity)
        found = _prices_now(checked, models, http)
        targets = priced_targets(checked.target, models, {book.model: book for book, _ in found})
        return _Begin(targets, price_warnings(found), partition_rows(checked, identity))
    manifest, warnings = known.manifest, []
    unpriced = sorted({book.model for book in manifest.books if book.rates is None})
    if unpriced and not known.is_complete:  # which the next session looks for, too
        found = _prices_now(checked, unpriced, http)
        books = {book.model: book for book, _ in found}
        manifest = manifest.with_prices([books.get(book.model, book) for book in manifest.books])
        warnings = [words for _, some in found for words in some]
    bill = tallies.add(known.bill, known.progress.charges)
    return _Begin(manifest.targets, warnings, manifest.partition_rows, known.progress, bill, known)


def plan(
    job: JobSource,
    *,
    input: object | None = None,  # noqa: A002 - the section of a job that it stands for
    limit: int | None = None,
    accept: Mapping[str, object] | str | Iterable[str] = (),
    update: bool = False,
    http: "httpx.AsyncBaseTransport | None" = None,
) -> RunPlan:
    """Check everything about a job and say what it would do and cost; sends no prompt and writes no file.

    `job`: a job, or what `load_job` takes. `input`: a table (polars, pandas, Arrow) in place of `input.path`. `limit`:
    of so many first rows it says the cost by itself, too; 20 where nobody says. `accept`, `update`: as in `run`. Raises
    `UsageError` for whatever `run` would refuse before its first request, but for a missing key and a run that is going
    on: `running` tells of that.
    """
    refuse_limit(limit)
    given = read_accept(accept)
    with looked_at(as_job(job, input), input) as over:
        return _plan(msgspec.structs.replace(over, accept=given.over(over.accept)), limit, http, update=update)


def _plan(job: Job, limit: int | None, http: "httpx.AsyncBaseTransport | None", *, update: bool) -> RunPlan:
    checked, connection = check(job), describe_connection(job, http)
    chosen = choose(checked, home_of_job(job), update=update)
    checked, found = as_begun(checked, chosen.found, update=update), chosen.found
    job = checked.job
    replaced = describe_replaced(found, job)
    found, is_fresh = (found, False) if replaced is None else (None, True)
    check_session(checked, chosen.directory, found, fresh=is_fresh, updated=chosen.updated, http=http)
    identity = checked.source.check()
    unscorable = check_golds(checked.scoring, checked.source, identity)
    known = found if found is not None and goes_on(found, checked) else None
    is_finished = known is not None and known.is_finished
    keyless = () if is_finished else tuple(_lacking_key(job))
    begin = _begin(checked, identity, known, http)
    progress, bill, warnings = begin.progress, begin.bill, begin.warnings
    if not is_finished:
        check_budgets(checked, begin.targets, (0,) if known is None else known.targets)
        begin.asked_so_far = asked_so_far(job, known)
        warnings += filter(None, [fit(job.limits.concurrency, begin.partition_rows)[2]])
    walk = None if is_finished else budget_walk(job.budget.max_cost_usd, begin.books, bill, checked.max_asks)
    looks = Looks(checked, checked.row_maker(), identity.rows - progress.calls, PLAN_BYTES)
    with earlier_answers(checked, None if is_finished else job.reuse, chosen.directory, known, keep=False) as earlier:
        survey = _survey(checked, identity, begin, looks=looks, walk=walk, limit=limit or TRY_ROWS, earlier=earlier)
    cost, likely = estimate(survey.all_rows, begin.books)
    return RunPlan(
        job=job,
        input=identity,
        partition_rows=begin.partition_rows,
        first_request=_shown(job, survey.first),
        unrenderable=survey.unrenderable,
        first_problem=survey.first_problem,
        input_tokens=survey.all_rows.input_tokens,
        output_tokens=survey.all_rows.output_tokens,
        uncapped=survey.uncapped,
        cost_usd=cost,
        likely_cost_usd=likely,
        prices=begin.books[0],
        other_prices=begin.books[1:],
        done=progress.calls,
        connection=connection,
        finished=is_finished,
        running=chosen.directory.lock.is_held(),
        update=None if chosen.updated is None else update_plan(chosen.updated, checked),
        warnings=(
            *filter(None, [replaced]),
            *checked.warnings,
            *unscorable,
            *warnings,
            *_of_begun(job, known),
            *describe_texts(checked),
            *looks.warnings(),
            *_unseen_images(checked, survey),
            *keyless,
        ),
        budget=None if walk is None else walk.plan(),
        limited=_limited_plan(limit, survey, begin.books),
        max_asks=checked.max_asks,
        worst_cost_usd=estimate(survey.all_rows, begin.books, checked.max_asks)[0],
        reuse=None if earlier is None else earlier.counts,
        dedupe=_dedupe_plan(survey, begin),
    )


def _dedupe_plan(survey: "_Survey", begin: _Begin) -> DedupePlan | None:
    """None where rows that ask the same are all sent."""
    if begin.asked_so_far is None:
        return None
    saved = estimate(survey.equal_rows, begin.books)[0] if survey.equal_rows.requests else Decimal(0)
    memory_bytes = len(begin.asked_so_far) * BYTES_EACH
    return DedupePlan(survey.all_rows.requests, survey.equal_rows.requests, saved, memory_bytes)


def _of_begun(job: Job, known: Run | None) -> Iterator[str]:
    """What answers of a run that has begun have shown, and what it can't have any more, though the job asks for it."""
    if known is not None:
        yield from filter(None, [cap_warning(known.bill.largest_output_tokens, known.manifest.token_cap)])
        yield from describe_missing_columns(job, known.columns)
        yield from describe_late(job, known)


def _limited_plan(limit: int | None, survey: "_Survey", books: Sequence[PriceBook]) -> LimitedPlan | None:
    """None where the first rows are all that remain, or nobody asked and none of them remains."""
    first = survey.first_rows
    if first.requests == survey.all_rows.requests or (limit is None and not first.requests):
        return None
    tokens = first.input_tokens, first.output_tokens
    return LimitedPlan(limit or TRY_ROWS, first.requests, *tokens, *estimate(first, books))


def _limited_dict(limited: LimitedPlan | None) -> dict[str, Any] | None:
    if limited is None:
        return None
    return {
        "limit": limited.limit,
        "requests": limited.requests,
        "estimated_input_tokens": limited.input_tokens,
        "estimated_output_tokens": limited.output_tokens,
        "estimated_cost_usd": _amount(limited.cost_usd),
        "likely_cost_usd": _amount(limited.likely_cost_usd),
    }


def _lacking_key(job: Job) -> Iterator[str]:
    """What is missing where the key should be. Raises `UsageError` where something is there that is no key."""
    try:
        api_key(job)
    except NoKeyError as error:
        yield f"{error.what}: a run needs the API key"


def _prices_now(
    checked: Checked, models: Sequence[str], http: "httpx.AsyncBaseTransport | None"
) -> list[tuple[PriceBook, list[str]]]:
    """The prices, fetched in a thread: the caller's event loop (a notebook has one) can't be entered twice."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, _prices(checked, models, http)).result()


async def _prices(
    checked: Checked, models: Sequence[str], http: "httpx.AsyncBaseTransport | None"
) -> list[tuple[PriceBook, list[str]]]:
    job, base_url = checked.job, checked.job.target.base_url
    if job.target.is_simulator:
        base_url = "http://127.0.0.1"
        http = http or _simulated(job)
    transport = Transport(base_url, NO_KEY, timeout_s=job.limits.timeout_s, http=http, tls=tls_settings(job))
    try:
        return await find_books([(model, job.prices_of(model)) for model in models], transport)
    finally:
        await transport.aclose()


def _simulated(job: Job) -> "httpx.AsyncBaseTransport":
    import httpx  # noqa: PLC0415 - takes long to load, and only the simulator needs it

    from cometbatch.simulator.app import create_app  # noqa: PLC0415 - the same

    return httpx.ASGITransport(create_app(simulator_behaviour(job)))


class _Survey(Struct):
    """What was found in all rows that have no outcome yet. `first_rows`: of those below a limit, by themselves.

    `equal_rows`: of those that take the answer of an equal row, which are not among the others. `uncapped`: requests
    whose answer has no cap.
    """

    all_rows: Requests = msgspec.field(default_factory=Requests)
    first_rows: Requests = msgspec.field(default_factory=Requests)
    equal_rows: Requests = msgspec.field(default_factory=Requests)
    uncapped: int = 0
    unrenderable: int = 0
    first: CallRequest | None = None
    first_problem: str | None = None

    def add(self, made: CallRequest | Outcome, begin: _Begin, *, walk: BudgetWalk | None, limit: int) -> None:
        """One more request that would be sent, unless its like would, or one that takes an earlier answer."""
        known = begin.asked_so_far
        is_new = known is None or made.request_hash is None or known.add(made.request_hash, made.ordinal)
        if isinstance(made, OUTCOMES):
            return
        # Each request's estimate has what is reserved for the answer.
        cap, rates = made.max_output_tokens, begin.books[made.target].rates
        tokens, expected = made.estimated_tokens - (cap or ASSUMED_OUTPUT_TOKENS), begin.expected_tokens(cap)
        if not is_new:
            self.equal_rows.add(made.target, tokens, expected, rates)
            return
        self.uncapped += cap is None
        self.all_rows.add(made.target, tokens, expected, rates)
        if made.ordinal < limit:
            self.first_rows.add(made.target, tokens, expected, rates)
        self.first = self.first or made
        if walk is not None:
            walk.add(made, tokens, expected)


def _survey(
    checked: Checked,
    identity: Identity,
    begin: _Begin,
    *,
    looks: Looks,
    walk: BudgetWalk | None,
    limit: int,
    earlier: EarlierAnswers | None = None,
) -> _Survey:
    survey, asked = _Survey(), row_makers(checked, begin.targets)
    taking = AsTaken(earlier, begin.progress.asks)
    counting = row_makers(checked, begin.targets, opens_images=False) if asked.reads_files else asked
    progress = begin.progress
    committed = set(progress.committed)
    missing = [each for each in partitions(identity.rows, begin.partition_rows) if each.index not in committed]
    for partition, table in zip(missing, checked.source.tables(identity, missing), strict=True):
        targets = {} if begin.known is None else begin.known.open_targets(partition.index)
        for row, values in enumerate(row_values(table, asked.columns), partition.first_row):
            if row in progress.recorded:
                continue
            number = targets.get(row, 0)
            maker = (asked if survey.all_rows.requests < IMAGES_LOOKED_AT else counting).makers[number]
            made = maker.make(row, values)
            looks.note_made(row, values, made)
            if begin.targets[number].target.conversation is not None:
                looks.note_end(row, maker.render(values))
            if isinstance(made, Failed):
                survey.unrenderable += 1
                survey.first_problem = survey.first_problem or f"row {row}: {made.failure.message}"
                continue
            for request in taking.known(made, is_again=row in targets):
                survey.add(request, begin, walk=walk, limit=limit)
    for request in taking.rest():
        survey.add(request, begin, walk=walk, limit=limit)
    return survey


def _unseen_images(checked: Checked, survey: _Survey) -> Iterator[str]:
    if checked.target.may_have_images and survey.all_rows.requests > IMAGES_LOOKED_AT:
        yield f"images were opened for {IMAGES_LOOKED_AT:,} rows; those of the others are looked at when they are sent"


def _shown(job: Job, request: CallRequest | None) -> dict[str, Any] | None:
    if request is None:
        return None
    base_url = "" if job.target.is_simulator else job.target.base_url
    return {
        "method": "POST",
        "url": base_url + request.http.path,
        "headers": request.http.headers | job.target.headers,
        "body": decode_json(by_reference(request.http.body)),
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
