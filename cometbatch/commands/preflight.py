"""Everything about a job that can be checked before the first request: shared by plan and run."""

import asyncio
import datetime as dt
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from cometbatch import wire
from cometbatch.control.bounds import describe_unbounded
from cometbatch.errors import JobError, UsageError
from cometbatch.input import table as source
from cometbatch.input.table import Identity, Source
from cometbatch.job import Job
from cometbatch.money import prices as pricing
from cometbatch.prompt.template import PromptTemplate
from cometbatch.records import HttpResponse, PriceBook
from cometbatch.results import columns as output
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.partition import RowMaker
from cometbatch.simulator.behaviour import Behaviour, Fault
from cometbatch.transport import TlsSettings, Transport, check_key, describe_route

if TYPE_CHECKING:
    import httpx

SIMULATOR_KEY = "sk-simulator-needs-no-key"
CATALOG_PATH = "/api/models"  # public, no key (contract sheet, section 8.1)

PARTITION_ANSWER_BYTES = 32 * 2**20  # answers of one partition, all in memory when its part is written
BYTES_PER_TOKEN = 4  # of an answer's text, about: as many as the estimates take for a token
LEAST_BOUND_ROWS = 64  # however long answers may be: a part for each handful of rows would be slow to write and read
UNCAPPED_PARTITION_ROWS = 1024  # where answers have no cap: at 8,000 tokens each they still fill just those 32 MiB
SHORTEST_KEY = 8  # characters; shorter ones are no keys, and can stand in any text by chance
UNREAD_CATALOG = "no prices: the catalog can't be read"
CATALOG_WAITS_S = (0.5, 1.5)  # before each further attempt: one that fails makes a whole run's cost unknown


class Checked(Struct, frozen=True):
    """A job whose input, templates and names have been found to fit together."""

    job: Job
    source: Source
    template: PromptTemplate
    format: wire.WireFormat

    def row_maker(self) -> RowMaker:
        """How rows of this job become requests."""
        return row_maker(self.job, self.template, self.source.columns)


def row_maker(job: Job, template: PromptTemplate, columns: Sequence[str]) -> RowMaker:
    """How rows of a table with these columns become requests; only what is needed of a row becomes Python values."""
    needed = set(columns) if template.needs_all_columns else set(template.columns_needed)
    wire_format, model = wire.FORMATS[job.target.format], job.target.model
    build = wire_format.request_builder(model, job.params)
    return RowMaker(
        columns=tuple(name for name in columns if name in needed or name == job.input.id),
        id_column=job.input.id,
        render=template.texts,
        build=wire.framed(lambda texts: build(template.messages(texts)), template.varying),
        hash_start=hashlib.sha256(f"{wire_format.name}\n{model}\n".encode()),
        now=now,
        common_characters=sum(len(message.content) for message in template.messages([""] * template.varying)),
        max_output_tokens=job.params.max_output_tokens,
    )


def check(job: Job) -> Checked:
    """Check what any session of a job needs, without a full read of its input. Raises `UsageError`."""
    refuse_key(job)
    if job.target.is_simulator:
        simulator_behaviour(job)
    opened = source.open_source(job.input.path, encoding=job.input.encoding, delimiter=job.input.delimiter)
    template = job.prompt_template_for(opened.columns)
    if job.input.id is not None and job.input.id not in opened.columns:
        raise UsageError(f"input.id: there is no column {job.input.id!r}; there are {', '.join(opened.columns)}.")
    return Checked(job, opened, template, wire.FORMATS[job.target.format])


def refuse_clashes(checked: Checked) -> None:
    """Raises `UsageError` where a new run's columns would be named like the input's.

    One that is carried on had its own checked when it began, and is not asked for those that were added since: its
    prefix can't be changed any more.
    """
    job = checked.job
    if clashes := output.clashes(checked.source.columns, job.output.prefix):
        raise UsageError(
            f"{job.input.path}: the input has columns named like the output's: {', '.join(clashes)}. "
            "Set output.prefix (for example to out_) to tell them apart."
        )


def refuse_key(job: Job) -> None:
    """Raises `UsageError` where a text of the job holds the very key, which would go into files and messages."""
    key = os.environ.get(job.target.key_env, "").strip()
    if len(key) < SHORTEST_KEY:
        return
    for section, value in job.describe().items():
        if any(key in text for text in _texts(value)):
            name = "prompt" if section == "messages" else section
            raise UsageError(
                f"{name}: this holds the API key that {job.target.key_env} is set to. Nothing was written or sent: "
                "take it out, the key is read from the environment alone."
            )


def _texts(value: object) -> Iterator[str]:
    """Every text in a JSON-ready value, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def check_budget(job: Job, prices: PriceBook, warnings: Iterable[str] = ()) -> None:
    """Raises `UsageError` where the job's budget could not be held: no price, no cap on an answer, input not ours.

    `warnings`: what was doubtful about the prices, which may be why there are none.
    """
    if job.budget.max_cost_usd is None:
        return
    if not job.budget.allow_unbounded and (added := describe_unbounded(job.params.extra)):
        raise UsageError(
            f"budget: the service may add input that is billed beyond what is sent, by {added}, so a budget can't be "
            "held. Take it out, or set budget.allow_unbounded: true to run all the same."
        )
    if job.budget.allow_unpriced:
        return
    if prices.rates is None:
        unread = next((words.partition(";")[0] for words in warnings if words.startswith(UNREAD_CATALOG)), None)
        raise UsageError(
            f"budget: {unread or f'there is no price for {prices.model}'}, so a budget can't be held. Set prices, or "
            "budget.allow_unpriced: true to go without."
        )
    if job.params.max_output_tokens is None and prices.rates.per_request is None:
        raise UsageError("budget: without params.max_output_tokens an answer has no highest cost. Set it.")


def refuse_unwritable(job: Job) -> None:
    """Raise `UsageError` where a run could not make its folder; nothing is written to find out."""
    place = job.output.path.parent
    try:
        while not place.exists():
            place = place.parent
        is_open = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    except OSError:  # a folder above it that may not be looked into
        is_open = False
    if not is_open:
        raise UsageError(
            f"output.path: can't write to {job.output.path.parent}: {place} is no folder, or not ours to write to."
        )


def run_directory(job: Job) -> RunDirectory:
    """Where a job's run is kept: beside its output."""
    path = job.output.path
    beside = path.with_name(path.name + ".run")
    return RunDirectory(beside, parts=path if job.output.is_dataset else None)


def suggested_rows(identity: Identity, max_output_tokens: int | None) -> int:
    """Rows to a partition: what suits the input, and few enough that their answers fit into memory at the commit."""
    if max_output_tokens is None:
        most = UNCAPPED_PARTITION_ROWS
    else:
        most = max(LEAST_BOUND_ROWS, PARTITION_ANSWER_BYTES // (BYTES_PER_TOKEN * max_output_tokens))
    return min(source.suggest_partition_rows(identity), most)


def api_key(job: Job) -> str:
    """The key from its environment variable. Raises `UsageError`, never quoting it."""
    if job.target.is_simulator:
        return SIMULATOR_KEY
    name = job.target.key_env
    if name not in os.environ:
        raise UsageError(f"The environment variable {name} is not set. It should hold the API key (target.key_env).")
    return check_key(os.environ[name])


def trust(job: Job) -> TlsSettings:
    """Whom to trust, and as whom to appear."""
    target = job.target
    return TlsSettings(ca_file=target.ca_file, client_cert=target.client_cert, client_key=target.client_key)


def way(job: Job, http: "httpx.AsyncBaseTransport | None") -> str:
    """How this job's requests get to the service, in a few words. Raises `UsageError` where something bars the way."""
    if job.target.is_simulator:
        return "to the simulator on this machine"
    if http is not None:
        return "through the transport that the caller handed in"
    return describe_route(job.target.base_url, trust(job))


def simulator_behaviour(job: Job) -> Behaviour:
    """How the built-in simulator should behave for this job. Raises `JobError` where its settings make no sense."""
    settings = job.simulator
    if settings is None:
        return Behaviour()
    try:
        return Behaviour(
            seed=settings.seed,
            latency_s=settings.latency_s,
            rps=settings.rps,
            faults=tuple(Fault(name, share) for name, share in settings.faults.items()),
            retry_after=settings.retry_after,
        )
    except ValueError as error:
        raise JobError(f"{job.source_path or 'the job'}: simulator: {error}") from error


async def price_book(job: Job, transport: Transport) -> tuple[PriceBook, list[str]]:
    """The prices of a job's model, from the job or the public catalog, and what is doubtful about them."""
    if not job.prices.needs_catalog:
        return pricing.price_book(job.target.model, settings=job.prices, catalog=None)
    catalog = await _catalog(transport)
    for wait_s in CATALOG_WAITS_S:
        if isinstance(catalog, pricing.Catalog):
            break
        await asyncio.sleep(wait_s)
        catalog = await _catalog(transport)
    if isinstance(catalog, pricing.CatalogProblem):
        unknown = PriceBook(job.target.model, source="unknown: no catalog")
        return unknown, [f"{UNREAD_CATALOG} ({catalog.reason}); costs stay unknown. Set prices."]
    return pricing.price_book(job.target.model, settings=job.prices, catalog=catalog)


async def _catalog(transport: Transport) -> pricing.Catalog | pricing.CatalogProblem:
    reply = await transport.fetch_public(CATALOG_PATH)
    if not isinstance(reply, HttpResponse):
        return pricing.CatalogProblem(reply.detail)
    if reply.status != 200:  # noqa: PLR2004 - the one status that brings a catalog
        return pricing.CatalogProblem(f"HTTP {reply.status}")
    return pricing.parse_catalog(reply.body)


def now() -> dt.datetime:
    """The wall clock, in UTC."""
    return dt.datetime.now(dt.UTC)
