"""The public catalog: fetched, read, and turned into the prices of one model.

Hides the many shapes of the catalog and its two traps: prices must not pass through floats, and a code looks like an
id but can't be called. Reading stands here because only this room knows the service's JSON. `money` lies below and gets
one model's entry as a value.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Final

from msgspec import Struct

from cometbatch.errors import nearest
from cometbatch.money.prices import CatalogEntry, PriceSettings, is_price, price_book, quoted
from cometbatch.records import HttpResponse, PriceBook
from cometbatch.transport import Transport

CATALOG_PATH: Final = "/api/models"
"""The catalog's address below the base URL. It is public: no key is sent (contract sheet, section 8.1)."""

CATALOG_WAITS_S: Final = (0.5, 1.5)
"""Seconds to wait before each further attempt. Without a catalog the cost of the whole run stays unknown."""

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


class CatalogProblem(Struct, frozen=True):
    """Why there is no catalog: it could not be fetched, or its body is no catalog."""

    reason: str

    def __str__(self) -> str:
        return f"no prices: the catalog can't be read ({self.reason})"


async def find_prices(model: str, settings: PriceSettings, transport: Transport) -> tuple[PriceBook, list[str]]:
    """The prices of a model, and warnings for the person who pays.

    The catalog is fetched only where the settings leave a price open, and once more after each of `CATALOG_WAITS_S`
    while it can't be read.
    """
    if not settings.needs_catalog:
        return prices_in(None, model, settings)
    catalog = await _fetched(transport)
    for wait_s in CATALOG_WAITS_S:
        if isinstance(catalog, Catalog):
            break
        await asyncio.sleep(wait_s)
        catalog = await _fetched(transport)
    return prices_in(catalog, model, settings)


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


async def _fetched(transport: Transport) -> Catalog | CatalogProblem:
    reply = await transport.fetch_public(CATALOG_PATH)
    if not isinstance(reply, HttpResponse):
        return CatalogProblem(reply.detail)
    if reply.status != _OK:
        return CatalogProblem(f"HTTP {reply.status}")
    return parse_catalog(reply.body)


# --- reading ---


def parse_catalog(body: bytes) -> Catalog | CatalogProblem:
    """The catalog in a reply of `GET /api/models`, in any of its shapes (contract sheet, sections 8.1 and 8.2).

    Any bytes get an answer. A field that can't be read is unknown for its own model only.
    """
    document = _decoded(body)
    if isinstance(document, dict) and document.get("success") is False:
        return CatalogProblem(quoted(str(document.get("message") or "the service refused to list its models")))
    records = document.get("data") if isinstance(document, dict) else document
    if not isinstance(records, list):
        return CatalogProblem("the reply holds no list of models" if document is not None else "the reply is not JSON")
    entries = [entry for entry in map(_entry, records) if entry is not None]
    return Catalog(_by_id(entries), tuple(_oddities(document, records, entries)))


def _decoded(text: bytes) -> object:
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


def _entry(record: object) -> CatalogEntry | None:
    if not isinstance(record, dict) or not (model := _text(record.get("id"))):
        return None
    pricing = record.get("pricing")
    prices = pricing if isinstance(pricing, dict) and _is_in_dollars(pricing.get("currency")) else {}
    return CatalogEntry(
        id=model,
        code=_text(record.get("code")) or None,
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


def _oddities(document: object, records: list[object], entries: list[CatalogEntry]) -> Iterator[str]:
    """What makes the list less than it should be, in words."""
    total = document.get("total") if isinstance(document, dict) else None
    if isinstance(total, Decimal) and total.is_finite() and len(records) < total <= MAX_MODELS:
        yield f"the catalog came short: {len(records)} of {int(total)} models"
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


def _text(value: object) -> str:
    """A string that can be written anywhere: lone surrogates become question marks; "" where it is no string."""
    return value.encode("utf-8", "replace").decode().strip() if isinstance(value, str) else ""
