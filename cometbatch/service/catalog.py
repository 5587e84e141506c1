"""The public catalog: fetched page by page, read, and turned into the prices of one model.

Hides the many shapes of the catalog and its traps: it may come in pages, prices must not pass through floats, and a
code looks like an id but can't be called. Reading stands here because only this room knows the service's JSON. `money`
lies below and gets one model's entry as a value.
"""

import asyncio
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Final

from msgspec import Struct

from cometbatch.control.waits import retry_after_s
from cometbatch.errors import nearest
from cometbatch.money.prices import CatalogEntry, PriceSettings, is_price, price_book, quoted
from cometbatch.records import HttpResponse, PriceBook, TransportFailure
from cometbatch.transport import Transport

CATALOG_PATH: Final = "/api/models"
"""The catalog's address below the base URL. It is public: no key is sent (contract sheet, section 8.1)."""

CATALOG_WAITS_S: Final = (0.5, 1.5)
"""Seconds to wait before each further attempt at a page, where the service names no wait. Without a catalog the cost of
the whole run stays unknown."""

MIN_ASKED_WAIT_S: Final = 1.0
"""Seconds to wait at least where the service names a wait: with `Retry-After: 0` it would be asked without end."""

MAX_WAITS_S: Final = 60.0
"""Seconds of waiting for all pages together. Where the service asks for more, it is not asked again, and the run begins
with what there is."""

PAGE_NAMES: Final[tuple[str, ...]] = ("page", "p")
"""What the service may call the number of a page in a query: the envelope's own name, then that of other endpoints."""

MAX_PAGES: Final = 1000
"""The most pages that are asked for, whatever `total` says."""

MAX_MODELS: Final = 10**6
"""The largest believable `total` of a catalog; a larger one is ignored."""

_NUMBER: Final = re.compile(r"[0-9]{1,30}(?:\.[0-9]{0,60})?(?:[eE][+-]?[0-9]{1,2})?")
_OK: Final = 200


class Catalog(Struct, frozen=True):
    """The models by id. `warnings` say what is odd about the list."""

    entries: dict[str, CatalogEntry]
    warnings: tuple[str, ...] = ()

    def find(self, model: str) -> CatalogEntry | None:
        """The entry with this id. A code finds nothing, because it can't be called (contract sheet, section 8.1)."""
        return self.entries.get(model)

    def id_for_code(self, code: str) -> str | None:
        """The id of the first model that has this code."""
        return next((entry.id for entry in self.entries.values() if entry.code == code), None)

    def warnings_about(self, model: str) -> Iterator[str]:
        """What is odd about the list, then what is odd about this model's place in it."""
        yield from self.warnings
        entry = self.find(model)
        if entry is not None:
            if entry.upcoming:
                yield f"the catalog lists {quoted(model)} as upcoming: it may not be callable yet"
        elif (right_id := self.id_for_code(model)) is not None:
            yield f"{quoted(model)} is a catalog code, not a model id: use {quoted(right_id)} as target.model"
        else:
            near = nearest(model, self.entries)
            hint = "" if near is None else f"did you mean {quoted(near)}? "
            yield (
                f"{quoted(model)} is not in the catalog: {hint}check target.model "
                "(some models can be called without being listed)"
            )


class Records(Struct, frozen=True):
    """What the service lists, as it lists it. `total`: how many it says there are; `problem`: why there are no more."""

    records: list[object]
    total: int | None
    problem: str = ""

    def warnings(self) -> tuple[str, ...]:
        """What makes the list less than it should be, in words."""
        return tuple(_oddities(self.total, self.problem, self.records, self.entries()))

    def entries(self) -> list[CatalogEntry]:
        """The records that are models, in their order."""
        return [entry for entry in map(entry_of, self.records) if entry is not None]


class CatalogProblem(Struct, frozen=True):
    """Why there is no catalog: it could not be fetched, or its body is no catalog."""

    reason: str

    def __str__(self) -> str:
        return f"no prices: the catalog can't be read ({self.reason})"


async def fetch_records(transport: Transport) -> Records | CatalogProblem:
    """The whole list, all pages of it, without the key."""
    return await _Fetching(transport).records()


async def find_books(
    wanted: Sequence[tuple[str, PriceSettings]], transport: Transport
) -> list[tuple[PriceBook, list[str]]]:
    """The prices of each model, and warnings for the person who pays.

    The catalog is fetched only where the settings leave a price open, and once for all of them.
    """
    if not any(settings.needs_catalog for _, settings in wanted):
        return [prices_in(None, model, each) for model, each in wanted]
    found = await fetch_records(transport)
    catalog = found if isinstance(found, CatalogProblem) else _catalog(found)
    return [prices_in(catalog if each.needs_catalog else None, model, each) for model, each in wanted]


def prices_in(
    catalog: Catalog | CatalogProblem | None, model: str, settings: PriceSettings
) -> tuple[PriceBook, list[str]]:
    """The same from a catalog that was fetched already; None where none was asked for."""
    if isinstance(catalog, CatalogProblem):
        unknown = PriceBook(model, source="unknown: no catalog", unread_catalog=catalog.reason)
        return unknown, [f"{catalog}; costs stay unknown. Set prices."]
    if catalog is None or not settings.catalog:
        return price_book(model, settings=settings)
    book, warnings = price_book(model, settings=settings, entry=catalog.find(model))
    return book, [*catalog.warnings_about(model), *warnings]


# --- fetching ---


class _Page(Struct, frozen=True):
    """One page of the list. `number`, `size` and `total` are what the envelope says of it; None where it does not."""

    records: list[object]
    number: int | None
    size: int | None
    total: int | None


class _Fetching:
    """One reading of the whole list: each page asked for until it is there, or cannot be had."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._waited_s = 0.0

    async def records(self) -> Records | CatalogProblem:
        """The records of all pages. Where later ones can't be had, those of the pages before."""
        first = await self._page(CATALOG_PATH)
        if isinstance(first, CatalogProblem):
            return first
        records, known, problem = list(first.records), _ids(first.records), ""
        size, last, names = first.size or len(records), 1 if first.number is None else first.number, PAGE_NAMES
        for _ in range(MAX_PAGES):
            if first.total is None or len(records) >= first.total or not size:
                break
            steps = (1, 2) if last == 0 else (1,)  # an envelope may count from 0 where a query counts from 1
            for name, number in itertools.product(names, (last + step for step in steps)):
                page = await self._page(f"{CATALOG_PATH}?{name}={number}&page_size={size}")
                if isinstance(page, CatalogProblem):
                    problem = f"page {number}: {page.reason}"
                elif not (ids := _ids(page.records)) <= known:
                    records += page.records
                    known |= ids
                    last, names, problem = number, (name,), ""
                    break
            else:
                break
        return Records(records, first.total, problem)

    async def _page(self, path: str) -> _Page | CatalogProblem:
        """One page, asked for again after each of `CATALOG_WAITS_S`, or whenever the service says to ask again."""
        own_waits = iter(CATALOG_WAITS_S)
        while True:
            reply = await self._transport.fetch_public(path)
            page, asked_s = _page_in(reply), None
            if isinstance(page, _Page):
                return page
            if isinstance(reply, HttpResponse):
                asked_s = retry_after_s(reply.headers, now=datetime.now(UTC))
            wait_s = next(own_waits, None) if asked_s is None else max(asked_s, MIN_ASKED_WAIT_S)
            if wait_s is None or self._waited_s + wait_s > MAX_WAITS_S:
                asks = "" if asked_s is None else f", and the service asks to wait {asked_s:,.0f} s"
                return CatalogProblem(page.reason + asks)
            await asyncio.sleep(wait_s)
            self._waited_s += wait_s


def _page_in(reply: HttpResponse | TransportFailure) -> _Page | CatalogProblem:
    if isinstance(reply, TransportFailure):
        return CatalogProblem(reply.detail)
    return CatalogProblem(f"HTTP {reply.status}") if reply.status != _OK else _read_page(reply.body)


def _ids(records: Iterable[object]) -> set[str]:
    return {text_in(record.get("id")) for record in records if isinstance(record, dict)} - {""}


# --- reading ---


def parse_catalog(body: bytes) -> Catalog | CatalogProblem:
    """The catalog in one reply of `GET /api/models`, in any of its shapes (contract sheet, sections 8.1 and 8.2).

    Any bytes get an answer. A field that can't be read is unknown for its own model only.
    """
    page = _read_page(body)
    return page if isinstance(page, CatalogProblem) else _catalog(Records(page.records, page.total))


def _read_page(body: bytes) -> _Page | CatalogProblem:
    document = decoded(body)
    if isinstance(document, dict) and document.get("success") is False:
        return CatalogProblem(quoted(str(document.get("message") or "the service refused to list its models")))
    said = document if isinstance(document, dict) else {}
    records = said.get("data") if isinstance(document, dict) else document
    if isinstance(records, dict):  # as the lists of the account come: the envelope inside of `data`
        said, records = records, records.get("items")
    if not isinstance(records, list):
        return CatalogProblem("the reply holds no list of models" if document is not None else "the reply is not JSON")
    return _Page(records, _number(said.get("page")), _number(said.get("page_size")), _number(said.get("total")))


def _catalog(found: Records) -> Catalog:
    return Catalog(_by_id(found.entries()), found.warnings())


def _number(value: object) -> int | None:
    """A whole number from 0 to `MAX_MODELS`; None for anything else."""
    is_one = isinstance(value, Decimal) and value.is_finite() and 0 <= value <= MAX_MODELS
    return int(value) if isinstance(value, Decimal) and is_one else None


def decoded(text: bytes) -> object:
    """The JSON value, numbers as `Decimal`; None for what is not JSON."""
    try:
        return json.loads(text, parse_float=_decimal, parse_int=_decimal, parse_constant=_decimal)
    except (ValueError, RecursionError):
        return None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of many digits
        return Decimal("NaN")


def entry_of(record: object) -> CatalogEntry | None:
    """The model in a record; None where it has no id."""
    if not isinstance(record, dict) or not (model := text_in(record.get("id"))):
        return None
    pricing = record.get("pricing")
    prices = pricing if isinstance(pricing, dict) and _is_in_dollars(pricing.get("currency")) else {}
    return CatalogEntry(
        id=model,
        code=text_in(record.get("code")) or None,
        input=_price(prices.get("input")),
        output=_price(prices.get("output")),
        per_request=_price(prices.get("per_request")),
        per_second=_price(prices.get("per_second")),
        ratio=_price(prices.get("ratio")),
        upcoming=record.get("upcoming") is True,
    )


def _by_id(entries: Iterable[CatalogEntry]) -> dict[str, CatalogEntry]:
    by_id: dict[str, CatalogEntry] = {}
    for entry in entries:
        by_id.setdefault(entry.id, entry)
    return by_id


def _oddities(total: int | None, problem: str, records: list[object], entries: list[CatalogEntry]) -> Iterator[str]:
    """What makes the list less than it should be, in words."""
    if total is not None and len(records) < total:
        yield f"the catalog came short: {len(records)} of {total} models" + (f" ({problem})" if problem else "")
    if len(entries) < len(records):
        yield f"{len(records) - len(entries)} records of the catalog are not models and were skipped"
    counts = _by_id(entries)
    if len(counts) < len(entries):
        yield f"{len(entries) - len(counts)} models are in the catalog more than once; the first of each counts"
    if not any(_is_priced(entry) for entry in entries):
        yield "the catalog lists no prices"


def _is_priced(entry: CatalogEntry) -> bool:
    return any(price is not None for price in (entry.input, entry.output, entry.per_request, entry.per_second))


def _price(value: object) -> Decimal | None:
    """A price given as a number or a numeric string; None for anything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = Decimal(value.strip())
    return value.copy_abs() if isinstance(value, Decimal) and is_price(value) else None  # copy_abs: -0 is 0


def _is_in_dollars(currency: object) -> bool:
    """Whether the prices are US dollars. A missing currency means dollars; a price in another currency is unknown."""
    return currency is None or (isinstance(currency, str) and currency.strip().upper().startswith(("USD", "$")))


def text_in(value: object) -> str:
    """A string that can be written anywhere: lone surrogates become question marks; "" where it is no string."""
    return value.encode("utf-8", "replace").decode().strip() if isinstance(value, str) else ""
