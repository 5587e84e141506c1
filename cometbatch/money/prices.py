"""What a row costs, exactly: the catalog's prices or the job's own, frozen into a book that a whole run uses.

Hides the many shapes of the public catalog and its two traps: prices that must not pass through floats, and codes
that look like ids. Guards: money is exact `Decimal`; an unknown price or count is `None`, never 0; the rows' costs
add up to the total to the last digit, because a rate has at most `RATE_DECIMALS` decimals and a rate is per million
tokens, so that every cost is a whole number of 1e-18 US dollars (`COST_SCALE`).
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Final

from msgspec import Struct

from cometbatch.money.exact import EXACT, ROUNDING
from cometbatch.records import PriceBook, Rates, Usage

RATE_DECIMALS: Final = 12
"""Decimals of a rate in US dollars (per million tokens, or per request); finer prices are rounded half-even."""

COST_SCALE: Final = 18
"""Decimals of a cost in US dollars: a rate's twelve, and six for the million."""

MAX_RATE: Final = Decimal(10**9)
"""US dollars; a larger price is a mistake. With `MAX_TOKENS` it keeps a cost below 1e20, which a column can hold."""

MAX_TOKENS: Final = 10**15
"""A larger count in one reply is garbage, so its cost is unknown."""

CHARACTERS_PER_TOKEN: Final = 4
"""The service's own rule for estimates (contract sheet, section 8.3)."""

_RATE_UNIT: Final = Decimal(1).scaleb(-RATE_DECIMALS)
_COST_UNIT: Final = Decimal(1).scaleb(-COST_SCALE)
_NUMBER: Final = re.compile(r"[0-9]{1,30}(?:\.[0-9]{0,60})?(?:[eE][+-]?[0-9]{1,2})?")
_MAX_MODELS: Final = 10**6  # a catalog that claims more than this claims nothing
_MAX_SHOWN_CHARS: Final = 80
_NO_RATES: Final = Rates()
_NOTHING = Decimal(0)
_ONE = Decimal(1)


class PriceSettings(Struct, frozen=True):
    """What the job says about prices: US dollars per million tokens, `per_request` per request.

    `catalog`: whether prices not given here may come from the public catalog. The multipliers make the cache rates
    from the input rate where these are not given. Cached input costs as much as any other by default, because the
    catalog has no price for it (contract sheet, section 8.3).
    """

    catalog: bool = True
    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    per_request: Decimal | None = None
    cache_read_multiplier: Decimal = Decimal(1)
    cache_write_multiplier: Decimal = Decimal("1.25")

    @property
    def is_complete(self) -> bool:
        """Whether the prices given here are enough by themselves."""
        return self.per_request is not None or (self.input is not None and self.output is not None)

    @property
    def needs_catalog(self) -> bool:
        """Whether some price has to come from the catalog."""
        return self.catalog and not self.is_complete


class CatalogEntry(Struct, frozen=True):
    """One model of the catalog. Prices are in US dollars; None where that basis does not apply or can't be read.

    `ratio` is the factor from list to charged price. A model that is `upcoming` can't be called yet.
    """

    id: str
    code: str | None = None
    input: Decimal | None = None
    output: Decimal | None = None
    per_request: Decimal | None = None
    per_second: Decimal | None = None
    ratio: Decimal | None = None
    upcoming: bool = False


class Catalog(Struct, frozen=True):
    """The models by id, and what was odd about the list."""

    entries: dict[str, CatalogEntry]
    warnings: tuple[str, ...] = ()

    def find(self, model: str) -> CatalogEntry | None:
        """The entry with this id; a code finds nothing, because it can't be called (contract sheet, section 8.1)."""
        return self.entries.get(model)

    def id_for_code(self, code: str) -> str | None:
        """The id of the first model that has this code."""
        return next((entry.id for entry in self.entries.values() if entry.code == code), None)


class CatalogProblem(Struct, frozen=True):
    """Why a body is no catalog."""

    reason: str


def parse_catalog(body: bytes) -> Catalog | CatalogProblem:
    """The catalog in a reply of `GET /api/models`, in any of its shapes (contract sheet, sections 8.1 and 8.2).

    Total: any bytes whatever get an answer. What can't be read of one model is unknown for that model only.
    """
    document = _decoded(body)
    if isinstance(document, dict) and document.get("success") is False:
        return CatalogProblem(_shown(document.get("message") or "the service refused to list its models"))
    records = document.get("data") if isinstance(document, dict) else document
    if not isinstance(records, list):
        return CatalogProblem("the reply holds no list of models" if document is not None else "the reply is not JSON")
    entries = [entry for entry in map(_entry, records) if entry is not None]
    return Catalog(_by_id(entries), tuple(_oddities(document, records, entries)))


def price_book(model: str, *, settings: PriceSettings, catalog: Catalog | None) -> tuple[PriceBook, list[str]]:
    """The prices for a run with this model, and warnings for the person who pays.

    Prices in `settings` win over the catalog's; `catalog` is None where it was not read. A price per request wins over
    prices per token; a model priced per second has no known price for text (contract sheet, section 8.3). Rates are
    rounded half-even to `RATE_DECIMALS`. The catalog's `ratio` is kept in the book but changes no rate.
    """
    entry = catalog.find(model) if settings.catalog and catalog is not None else None
    own = settings.per_request is not None or settings.input is not None or settings.output is not None
    base = _own_basis(settings, entry) if own else _listed_basis(entry)
    rates = _with_cache_rates(base, settings)
    warnings = list(_model_warnings(model, catalog)) if settings.catalog else []
    if rates is None and (settings.catalog or own):
        warnings.append(_why_unknown(model, entry, own=own))
    if rates is not None and not own and not any((rates.input, rates.output, rates.per_request)):
        warnings.append(f"the catalog lists {_shown(model)} at no cost")
    source = _source(settings, base, own=own) if rates is not None else "none"
    ratio = entry.ratio if entry is not None and rates is not None and not own else None
    return PriceBook(model, source, rates, ratio), warnings


def cost(usage: Usage, rates: Rates | None) -> Decimal | None:
    """US dollars for one answer, exact, with `COST_SCALE` decimals; None where price or counts are unknown.

    A price per request needs no counts. Cached tokens are part of the input; where the reply does not count them, all
    input is charged at the full rate. `rates` must be as `price_book` makes them, or the cost may not be exact, which
    raises `decimal.Inexact`.
    """
    return meter(rates).cost(usage)


@functools.lru_cache(maxsize=64)
def meter(rates: Rates | None) -> "Meter":
    """The meter for these prices. Raises `decimal.Inexact` where they have more decimals than a price can have."""
    return Meter(rates)


class Meter:
    """Prices made ready to be applied to one answer after another: whole numbers, which are exact, and fast."""

    def __init__(self, rates: Rates | None) -> None:
        self._rates = rates
        self._per_request: Decimal | None = None
        self._units: tuple[int, int, int, int] | None = None
        if rates is None:
            return
        if rates.per_request is not None:
            self._per_request = EXACT.quantize(rates.per_request, _COST_UNIT)
        elif rates.input is not None and rates.output is not None:
            read, write = (rates.input if rate is None else rate for rate in (rates.cache_read, rates.cache_write))
            self._units = (_units(rates.input), _units(read), _units(write), _units(rates.output))

    def cost(self, usage: Usage) -> Decimal | None:
        """US dollars for one answer, as `pricing.cost` says."""
        if self._units is None:
            return self._per_request
        inputs, outputs = usage.input_tokens, usage.output_tokens
        if inputs is None or outputs is None or inputs > MAX_TOKENS or outputs > MAX_TOKENS:
            return None
        full_rate, read_rate, write_rate, output_rate = self._units
        read, write = usage.cache_read_input_tokens, usage.cache_write_input_tokens
        if not read and not write:
            return _dollars(full_rate * inputs + output_rate * outputs)
        read, write = read or 0, write or 0
        rest = max(0, inputs - read - write)  # counts of cached tokens never make it negative
        return _dollars(full_rate * rest + read_rate * read + write_rate * write + output_rate * outputs)

    def max_cost(self, body_bytes: int, max_output_tokens: int | None) -> Decimal | None:
        """US dollars that one request can come to at most; None where there is no price or no cap on the answer.

        A token is at least one byte of what is sent, so the bytes of the request's body bound its input tokens, and
        each of them is priced at the dearest input rate.
        """
        if self._units is None:
            return None if self._rates is None else self._rates.per_request
        if max_output_tokens is None:
            return None
        return _dollars(max(self._units[:3]) * body_bytes + self._units[3] * max_output_tokens)


def estimate_tokens(characters: int) -> int:
    """Tokens in a prompt of this many characters: a quarter, rounded up (contract sheet, section 8.3)."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def estimate_cost(input_tokens: int, output_tokens: int | None, requests: int, rates: Rates | None) -> Decimal | None:
    """US dollars for a whole table before it is sent, at full rates; None where price or bound is unknown.

    `input_tokens` is the sum of `estimate_tokens` over the prompts, `output_tokens` the sum of their caps (None where
    there is no cap). The documented estimate (contract sheet, section 8.3): texts of few characters per token, and
    cache writes at a surcharge, can cost more.
    """
    if rates is None:
        return None
    if rates.per_request is not None:
        return EXACT.quantize(EXACT.multiply(rates.per_request, requests), _COST_UNIT)
    if output_tokens is None or rates.input is None or rates.output is None:
        return None
    return _dollars(_units(rates.input) * input_tokens + _units(rates.output) * output_tokens)


def likely_cost(cost: Decimal | None, book: PriceBook) -> Decimal | None:
    """What an estimate comes to at charged prices, where the catalog tells their ratio to its own; None elsewhere."""
    if cost is None or book.ratio is None:
        return None
    return ROUNDING.quantize(ROUNDING.multiply(cost, book.ratio), _COST_UNIT)


def _dollars(units: int) -> Decimal:
    """Units of a rate times tokens as dollars, with `COST_SCALE` decimals."""
    return EXACT.multiply(units, _COST_UNIT)


def _units(rate: Decimal) -> int:
    """A rate in units of its last decimal. Raises `decimal.Inexact` for a finer one, `InvalidOperation` for none."""
    return int(EXACT.quantize(EXACT.scaleb(rate, RATE_DECIMALS), _ONE))


def _own_basis(settings: PriceSettings, entry: CatalogEntry | None) -> Rates:
    """The job's own prices, with the catalog's in the gaps."""
    if settings.per_request is not None:
        return Rates(per_request=settings.per_request)
    listed = entry or CatalogEntry("")
    return Rates(
        input=listed.input if settings.input is None else settings.input,
        output=listed.output if settings.output is None else settings.output,
    )


def _listed_basis(entry: CatalogEntry | None) -> Rates:
    """The basis that the catalog charges by. A zero beside token prices is a blank, not a gift."""
    if entry is None:
        return _NO_RATES
    by_tokens = entry.input is not None and entry.output is not None
    if entry.per_request is not None and (entry.per_request > 0 or not by_tokens):
        return Rates(per_request=entry.per_request)
    if entry.per_second:
        return _NO_RATES
    return Rates(input=entry.input, output=entry.output)


def _with_cache_rates(base: Rates, settings: PriceSettings) -> Rates | None:
    """The full set of rates, rounded; None unless every one of them is a price."""
    if base.per_request is not None:
        per_request = _rate(base.per_request)
        return None if per_request is None else Rates(per_request=per_request)
    if base.input is None or base.output is None:
        return None
    read, write = settings.cache_read, settings.cache_write
    rates = [
        _rate(base.input),
        _rate(base.output),
        _rate(ROUNDING.multiply(base.input, settings.cache_read_multiplier) if read is None else read),
        _rate(ROUNDING.multiply(base.input, settings.cache_write_multiplier) if write is None else write),
    ]
    return None if None in rates else Rates(*rates)


def _rate(price: Decimal) -> Decimal | None:
    """A price with at most `RATE_DECIMALS` decimals, otherwise as it was written; None if it can't be a price."""
    if _price(price) is None:
        return None
    rounded = ROUNDING.quantize(price, _RATE_UNIT)
    return price if rounded == price else rounded


def _source(settings: PriceSettings, base: Rates, *, own: bool) -> str:
    """Where the prices come from, in words."""
    if own:
        return "job file" if settings.is_complete else "job file and catalog"
    defaults = PriceSettings(catalog=settings.catalog)
    return "catalog" if settings == defaults or base.per_request is not None else "job file and catalog"


def _why_unknown(model: str, entry: CatalogEntry | None, *, own: bool) -> str:
    if own:
        reason = "prices.input and prices.output are both needed, or prices.per_request, each from 0 to 1e9"
    elif entry is None:
        reason = "the catalog gives none"
    elif entry.per_second:
        reason = "the catalog prices it per second of media"
    else:
        reason = "the catalog's entry has no price for text"
    return f"no known price for {_shown(model)}: {reason}; costs will be unknown"


def _model_warnings(model: str, catalog: Catalog | None) -> Iterator[str]:
    """What the catalog says about the list and the model, whether or not its prices are used."""
    if catalog is None:
        return
    yield from catalog.warnings
    entry = catalog.find(model)
    if entry is None:
        yield _not_listed(model, catalog.id_for_code(model))
    elif entry.upcoming:
        yield f"the catalog lists {_shown(model)} as upcoming: it may not be callable yet"


def _not_listed(model: str, right_id: str | None) -> str:
    if right_id is not None:
        return f"{_shown(model)} is a catalog code, not a model id: use {_shown(right_id)} as target.model"
    return f"{_shown(model)} is not in the catalog: check target.model (some models can be called without being listed)"


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
    prices = pricing if isinstance(pricing, dict) and _in_dollars(pricing.get("currency")) else {}
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
    if isinstance(total, Decimal) and total.is_finite() and len(records) < total <= _MAX_MODELS:
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
    """A price from 0 to `MAX_RATE`, given as a number or a numeric string; None for anything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = Decimal(value.strip())
    if not isinstance(value, Decimal) or not value.is_finite() or not 0 <= value <= MAX_RATE:
        return None
    return value.copy_abs()


def _in_dollars(currency: object) -> bool:
    """Whether the prices are US dollars. Other money is no price at all; no word on it means dollars."""
    return currency is None or (isinstance(currency, str) and currency.strip().upper().startswith(("USD", "$")))


def _text(value: object) -> str:
    """A string that can be written anywhere: lone surrogates become question marks; "" for what is no string."""
    return value.encode("utf-8", "replace").decode().strip() if isinstance(value, str) else ""


def _shown(value: object) -> str:
    """Foreign text in a message: cut, and with control characters escaped."""
    text = _text(value) if isinstance(value, str) else str(value)
    return repr(text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "…")
