"""`plan`: everything that can be known before the first request, with nothing sent but the request for prices."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

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
from cometbatch.commands.growth import first_slices, grown, new_cells, price_settings
from cometbatch.commands.looks import describe_texts
from cometbatch.commands.open_files import fit
from cometbatch.commands.plan_budget import BudgetWalk, budget_walk
from cometbatch.commands.plan_cells import cell_plans
from cometbatch.commands.plan_costs import estimate
from cometbatch.commands.plan_survey import Beginning, Survey, survey, unseen_images
from cometbatch.commands.reusing import earlier_answers
from cometbatch.commands.row_changes import update_plan
from cometbatch.commands.run_plan import LimitedPlan, RunPlan
from cometbatch.commands.tables import JobSource, as_job, looked_at
from cometbatch.commands.targets import check_budgets, models_asked, price_warnings, priced_targets
from cometbatch.commands.updating import as_begun, choose
from cometbatch.input.files import Identity
from cometbatch.job import Job
from cometbatch.job.accepting import read_accept
from cometbatch.money.prices import PriceSettings
from cometbatch.records import CallRequest, PriceBook
from cometbatch.results import tallies
from cometbatch.results.answered import BYTES_EACH
from cometbatch.results.summary import cap_warning
from cometbatch.run_state.manifest import PricedTarget
from cometbatch.run_state.run import Run, home_of_job
from cometbatch.service.catalog import find_books
from cometbatch.transport import Transport
from cometbatch.transport.key import NoKeyError
from cometbatch.wire.images import by_reference
from cometbatch.wire.tolerant_json import decode_json

if TYPE_CHECKING:
    import httpx


TRY_ROWS = 20  # that `plan` estimates by themselves where nobody says how many: enough to see whether a prompt works


def _begin(
    checked: Checked, identity: Identity, known: Run | None, http: "httpx.AsyncBaseTransport | None"
) -> Beginning:
    job = checked.job
    if known is not None:
        return _resumed(checked, known, http)
    rows = partition_rows(checked, identity)
    if job.matrix is None:
        wanted = [(model, job.prices_of(model)) for model in models_asked(checked, identity)]
        found = _prices_now(job, wanted, http)
        books = {book.model: book for book, _ in found}
        targets = priced_targets(checked.target, [model for model, _ in wanted], books)
        return Beginning(targets, price_warnings(found), rows)
    cells = job.cells()
    found = _prices_now(job, [(cell.target.model, cell.prices) for cell in cells], http)
    targets = tuple(PricedTarget(cell.target, book) for cell, (book, _) in zip(cells, found, strict=True))
    slices = first_slices(cells, job.samples)
    return Beginning(targets, price_warnings(found), rows, slices, tuple(range(len(slices))))


def _resumed(checked: Checked, known: Run, http: "httpx.AsyncBaseTransport | None") -> Beginning:
    """A run that goes on, with the cells that it gets, and with prices where it had none so far."""
    job, manifest = checked.job, known.manifest
    added = new_cells(manifest, job)
    found = _prices_now(job, [(cell.target.model, cell.prices) for cell in added], http) if added else []
    manifest = grown(manifest, job, {cell.digest: book for cell, (book, _) in zip(added, found, strict=True)})
    unpriced = {
        number: (book.model, said)
        for number, (book, said) in enumerate(zip(manifest.books, price_settings(job, manifest), strict=True))
        if book.rates is None and said is not None
    }
    if unpriced and not known.is_complete:  # which the next session looks for, too
        again = dict(zip(unpriced, _prices_now(job, [*unpriced.values()], http), strict=True))
        books = [again[number][0] if number in again else book for number, book in enumerate(manifest.books)]
        manifest, found = manifest.with_prices(books), [*found, *again.values()]
    return Beginning(
        targets=manifest.targets,
        warnings=price_warnings(found),
        partition_rows=manifest.partition_rows,
        slices=manifest.slices,
        named=manifest.active,
        progress=known.progress,
        bill=tallies.add(known.bill, known.progress.charges),
        known=msgspec.structs.replace(known, manifest=manifest),
    )


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
    unscorable = () if checked.scoring is None else checked.scoring.check_golds(checked.source, identity)
    known = found if found is not None and goes_on(found, checked) else None
    is_finished = known is not None and _as_named(known, job).is_finished and not new_cells(known.manifest, job)
    keyless = () if is_finished else tuple(_lacking_key(job))
    begin = _begin(checked, identity, known, http)
    known = begin.known
    if not is_finished:
        _check_costs(checked, begin)
    walk = None if is_finished else _walk(checked, begin)
    with earlier_answers(checked, None if is_finished else job.reuse, chosen.directory, known, keep=False) as earlier:
        found_calls = survey(checked, identity, begin, walk=walk, limit=limit or TRY_ROWS, earlier=earlier)
    cost, likely = estimate(found_calls.all_rows, begin.books)
    return RunPlan(
        job=job,
        input=identity,
        partition_rows=begin.partition_rows,
        first_request=_shown(job, found_calls.first),
        unrenderable=found_calls.unrenderable,
        first_problem=found_calls.first_problem,
        input_tokens=found_calls.all_rows.input_tokens,
        output_tokens=found_calls.all_rows.output_tokens,
        uncapped=found_calls.uncapped,
        cost_usd=cost,
        likely_cost_usd=likely,
        prices=begin.books[0],
        other_prices=begin.books[1:],
        done=0 if known is None else known.tally.calls,
        connection=connection,
        finished=is_finished,
        running=chosen.directory.lock.is_held(),
        update=None if chosen.updated is None else update_plan(chosen.updated, checked),
        warnings=(
            *filter(None, [replaced]),
            *checked.warnings,
            *unscorable,
            *begin.warnings,
            *_of_begun(job, known),
            *describe_texts(checked),
            *found_calls.looks.warnings(),
            *unseen_images(checked, found_calls),
            *keyless,
        ),
        budget=None if walk is None else walk.plan(),
        limited=_limited_plan(limit, found_calls, begin.books),
        max_asks=checked.max_asks,
        worst_cost_usd=estimate(found_calls.all_rows, begin.books, checked.max_asks)[0],
        reuse=None if earlier is None else earlier.counts,
        dedupe=_dedupe_plan(found_calls, begin),
        slices=len(begin.named),
        cells=cell_plans(begin.slices, begin.named, found_calls.all_rows, begin.books),
    )


def _check_costs(checked: Checked, begin: Beginning) -> None:
    """Refuse what a budget can't be held for, and note what else is to be known of what is sent."""
    job, known = checked.job, begin.known
    check_budgets(checked, begin.targets, begin.asked if known is None or job.matrix is not None else known.targets)
    begin.asked_so_far = asked_so_far(job, known)
    queues = len({cell.target.model for cell in job.cells()})
    begin.warnings += filter(None, [fit(job.limits.concurrency, begin.partition_rows, queues)[2]])


def _as_named(known: Run, job: Job) -> Run:
    """A run with the slices that its job names now."""
    return msgspec.structs.replace(known, manifest=grown(known.manifest, job, {}))


def _walk(checked: Checked, begin: Beginning) -> BudgetWalk | None:
    noun = "row" if checked.job.matrix is None else "call"
    return budget_walk(checked.job.budget.max_cost_usd, begin.books, begin.bill, checked.max_asks, noun)


def _dedupe_plan(found: Survey, begin: Beginning) -> DedupePlan | None:
    """None where rows that ask the same are all sent."""
    if begin.asked_so_far is None:
        return None
    saved = estimate(found.equal_rows, begin.books)[0] if found.equal_rows.requests else Decimal(0)
    memory_bytes = len(begin.asked_so_far) * BYTES_EACH
    return DedupePlan(found.all_rows.requests, found.equal_rows.requests, saved, memory_bytes)


def _of_begun(job: Job, known: Run | None) -> Iterator[str]:
    """What answers of a run that has begun have shown, and what it can't have any more, though the job asks for it."""
    if known is not None:
        yield from filter(None, [cap_warning(known.bill.largest_output_tokens, known.manifest.token_cap)])
        yield from describe_missing_columns(job, known.columns)
        yield from describe_late(job, known)


def _limited_plan(limit: int | None, found: Survey, books: Sequence[PriceBook]) -> LimitedPlan | None:
    """None where the first rows are all that remain, or nobody asked and none of them remains."""
    first = found.first_rows
    if first.requests == found.all_rows.requests or (limit is None and not first.requests):
        return None
    tokens = first.input_tokens, first.output_tokens
    return LimitedPlan(limit or TRY_ROWS, first.requests, *tokens, *estimate(first, books))


def _lacking_key(job: Job) -> Iterator[str]:
    """What is missing where the key should be. Raises `UsageError` where something is there that is no key."""
    try:
        api_key(job)
    except NoKeyError as error:
        yield f"{error.what}: a run needs the API key"


def _prices_now(
    job: Job, wanted: Sequence[tuple[str, PriceSettings]], http: "httpx.AsyncBaseTransport | None"
) -> list[tuple[PriceBook, list[str]]]:
    """The prices, fetched in a thread: the caller's event loop (a notebook has one) can't be entered twice."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, _prices(job, wanted, http)).result()


async def _prices(
    job: Job, wanted: Sequence[tuple[str, PriceSettings]], http: "httpx.AsyncBaseTransport | None"
) -> list[tuple[PriceBook, list[str]]]:
    base_url = job.target.base_url
    if job.target.is_simulator:
        base_url = "http://127.0.0.1"
        http = http or _simulated(job)
    transport = Transport(base_url, NO_KEY, timeout_s=job.limits.timeout_s, http=http, tls=tls_settings(job))
    try:
        return await find_books(wanted, transport)
    finally:
        await transport.aclose()


def _simulated(job: Job) -> "httpx.AsyncBaseTransport":
    import httpx  # noqa: PLC0415 - takes long to load, and only the simulator needs it

    from cometbatch.simulator.app import create_app  # noqa: PLC0415 - the same

    return httpx.ASGITransport(create_app(simulator_behaviour(job)))


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
