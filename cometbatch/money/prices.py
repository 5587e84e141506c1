"""What an answer costs, exactly: the catalog's prices or the job's own, frozen into a book that a whole run uses.

Guards: money is exact `Decimal`; an unknown price or count is `None`, never 0; the costs of the rows add up to the
total to the last digit. That holds because a rate has at most `RATE_DECIMALS` decimals and is per million tokens, so
that every cost is a whole number of 1e-18 US dollars (`COST_SCALE`).
"""

import functools
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from cometbatch.money.exact import EXACT, ROUNDING
from cometbatch.records import PriceBook, Rates, RatesAbove, Usage

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
_MAX_QUOTED_CHARS: Final = 80
_NO_RATES: Final = Rates()
_PER_TOKEN: Final = {"input": 1, "output": 1, "cache_read": 1, "cache_write": 1, "cache_write_1h": 2}
"""Rates per token, and how many times `MAX_RATE` each may be: writes for an hour cost twice the highest input price."""
_ONE = Decimal(1)
_WRITE_1H_MULTIPLIER: Final = Decimal(2)  # of the input price, as Anthropic has it (contract sheet, section 8.3)


class PriceSettings(Struct, frozen=True):
    """What the job says about prices: US dollars per million tokens, `per_request` per request.

    `catalog`: whether prices not given here may come from the public catalog. The multipliers make the cache rates
    from the input rate where these are not given. Cached input costs as much as any other by default, because the
    catalog has no price for it (contract sheet, section 8.3). `cache_write_1h`, of tokens kept for an hour, is twice
    the input price where it is not given. `above`: other prices for answers with much input.
    """

    catalog: bool = True
    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    per_request: Decimal | None = None
    cache_read_multiplier: Decimal = Decimal(1)
    cache_write_multiplier: Decimal = Decimal("1.25")
    cache_write_1h: Decimal | None = None
    above: "PricesAbove | None" = None

    def of_another_model(self, given: "PriceSettings | None") -> "PriceSettings":
        """The same for another model, of which the job gives these prices, or none. The multipliers hold for all."""
        if given is None:
            multipliers = self.cache_read_multiplier, self.cache_write_multiplier
            given = PriceSettings(cache_read_multiplier=multipliers[0], cache_write_multiplier=multipliers[1])
        # Where these prices are complete, the catalog is not asked for them, but may be for others.
        return msgspec.structs.replace(given, catalog=self.catalog or self.is_complete)

    @property
    def is_complete(self) -> bool:
        """Whether the prices given here are enough by themselves."""
        return self.per_request is not None or (self.input is not None and self.output is not None)

    @property
    def is_own(self) -> bool:
        """Whether any price is given here."""
        return self.per_request is not None or self.input is not None or self.output is not None

    @property
    def needs_catalog(self) -> bool:
        """Whether some price has to come from the catalog."""
        return self.catalog and not self.is_complete


class PricesAbove(Struct, frozen=True):
    """Prices in US dollars per million tokens of an answer, for all of its tokens, whose input is above `input_tokens`.

    Those of input and output are as below where they are not given; those of the cache keep their relation to that of
    the input.
    """

    input_tokens: int
    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None


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


def price_book(
    model: str, *, settings: PriceSettings, entry: CatalogEntry | None = None
) -> tuple[PriceBook, list[str]]:
    """The prices for a run with this model, and warnings for the person who pays.

    Prices in `settings` win over those of `entry`, which is None where the catalog was not read or lists no such model.
    A price per request wins over prices per token; a model priced per second has no known price for text (contract
    sheet, section 8.3). Rates are rounded half-even to `RATE_DECIMALS`. The `ratio` of the entry is kept in the book
    but changes no rate.
    """
    if not settings.catalog:
        entry = None
    own = settings.is_own
    base = _own_basis(settings, entry) if own else _listed_basis(entry)
    rates = _with_cache_rates(base, settings)
    warnings = []
    if rates is None and (settings.catalog or own):
        warnings.append(_why_unknown(model, entry, own=own))
    if rates is not None and not own and not any((rates.input, rates.output, rates.per_request)):
        warnings.append(f"the catalog lists {quoted(model)} at no cost")
    if rates is not None and rates.per_request is not None and settings.above is not None:
        warnings.append(f"prices.above is not used: the catalog prices {quoted(model)} per request")
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
    """Prices as whole numbers of their last decimal: exact, and fast to apply to one answer after another."""

    def __init__(self, rates: Rates | None) -> None:
        self._rates = rates
        self._per_request: Decimal | None = None
        self._units: tuple[int, int, int, int, int] | None = None  # input, cache read, cache write, for an hour, output
        self._above: Meter | None = None
        self._above_input_tokens = MAX_TOKENS  # the most input at which `_above` does not apply
        if rates is None:
            return
        if rates.per_request is not None:
            self._per_request = EXACT.quantize(rates.per_request, _COST_UNIT)
        elif rates.input is not None and rates.output is not None:
            read, write = (rates.input if rate is None else rate for rate in (rates.cache_read, rates.cache_write))
            hour = write if rates.cache_write_1h is None else rates.cache_write_1h
            self._units = (_units(rates.input), _units(read), _units(write), _units(hour), _units(rates.output))
            if rates.above is not None:
                self._above, self._above_input_tokens = Meter(rates.above.rates), rates.above.input_tokens

    def cost(self, usage: Usage) -> Decimal | None:
        """US dollars for one answer, as the function `cost` says."""
        if self._units is None:
            return self._per_request
        inputs, outputs = usage.input_tokens, usage.output_tokens
        if inputs is None or outputs is None or inputs > MAX_TOKENS or outputs > MAX_TOKENS:
            return None
        if self._above is not None and inputs > self._above_input_tokens:
            return self._above.cost(usage)
        full_rate, read_rate, write_rate, hour_rate, output_rate = self._units
        read, write = usage.cache_read_input_tokens, usage.cache_write_input_tokens
        if not read and not write:
            return _dollars(full_rate * inputs + output_rate * outputs)
        read, write = read or 0, write or 0
        hour = min(usage.cache_write_1h_input_tokens or 0, write)
        rest = max(0, inputs - read - write)  # counts of cached tokens never make it negative
        cached = read_rate * read + write_rate * (write - hour) + hour_rate * hour
        return _dollars(full_rate * rest + cached + output_rate * outputs)

    def max_cost(
        self, body_bytes: int, max_output_tokens: int | None, *, writes_for_an_hour: bool = False
    ) -> Decimal | None:
        """The largest cost of one request in US dollars; None where there is no price or no cap on the answer.

        A token is at least one byte of the request's body, so its bytes bound its input tokens. Each is priced at the
        highest input rate: that of tokens kept for an hour is among them only if `writes_for_an_hour`.
        """
        if self._units is None:
            return None if self._rates is None else self._rates.per_request
        if max_output_tokens is None:
            return None
        highest = max(self._units[: 4 if writes_for_an_hour else 3])
        below = _dollars(highest * body_bytes + self._units[4] * max_output_tokens)
        if self._above is None or body_bytes <= self._above_input_tokens:
            return below
        above = self._above.max_cost(body_bytes, max_output_tokens, writes_for_an_hour=writes_for_an_hour)
        return below if above is None else max(below, above)


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
    """An estimate times the catalog's ratio of charged to listed price; None where the catalog has no ratio."""
    if cost is None or book.ratio is None:
        return None
    return ROUNDING.quantize(ROUNDING.multiply(cost, book.ratio), _COST_UNIT)


def _dollars(units: int) -> Decimal:
    """Units of a rate times tokens as dollars, with `COST_SCALE` decimals."""
    return EXACT.multiply(units, _COST_UNIT)


def _units(rate: Decimal) -> int:
    """A rate in units of its last decimal. Raises `decimal.Inexact` where it is finer, `InvalidOperation` for NaN."""
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
    """The basis that the catalog charges by. A zero per request or second beside token prices means "not used"."""
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
    read, write, hour = settings.cache_read, settings.cache_write, settings.cache_write_1h
    whole = Rates(
        input=base.input,
        output=base.output,
        cache_read=ROUNDING.multiply(base.input, settings.cache_read_multiplier) if read is None else read,
        cache_write=ROUNDING.multiply(base.input, settings.cache_write_multiplier) if write is None else write,
        cache_write_1h=ROUNDING.multiply(base.input, _WRITE_1H_MULTIPLIER) if hour is None else hour,
    )
    rates = _rounded(whole)
    if rates is None or settings.above is None:
        return rates
    above = _rounded(_rates_above(whole, settings, settings.above))
    return (
        None if above is None else msgspec.structs.replace(rates, above=RatesAbove(settings.above.input_tokens, above))
    )


def _rates_above(below: Rates, settings: PriceSettings, given: PricesAbove) -> Rates:
    """The rates for much input: what is not given for the cache keeps its relation to the input price."""
    low, high = below.input or Decimal(0), (below.input if given.input is None else given.input) or Decimal(0)

    def related(price: Decimal | None, rate: Decimal | None, multiplier: Decimal) -> Decimal:
        if price is not None:
            return price
        return ROUNDING.divide(ROUNDING.multiply(rate or 0, high), low) if low else ROUNDING.multiply(high, multiplier)

    return Rates(
        input=high,
        output=below.output if given.output is None else given.output,
        cache_read=related(given.cache_read, below.cache_read, settings.cache_read_multiplier),
        cache_write=related(given.cache_write, below.cache_write, settings.cache_write_multiplier),
        cache_write_1h=related(given.cache_write_1h, below.cache_write_1h, _WRITE_1H_MULTIPLIER),
    )


def _rounded(rates: Rates) -> Rates | None:
    """Rates per token that a cost can be computed from exactly; None where one of them is no price."""
    found: dict[str, Any] = {name: _rate(getattr(rates, name), times) for name, times in _PER_TOKEN.items()}
    return None if None in found.values() else Rates(**found)


def _rate(price: Decimal, times: int = 1) -> Decimal | None:
    """A price with at most `RATE_DECIMALS` decimals, else unchanged; None where it can't be a price.

    It may be so many `times` `MAX_RATE`.
    """
    if not is_price(price, times):
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
    return f"no known price for {quoted(model)}: {reason}; costs will be unknown"


def is_price(amount: Decimal, times: int = 1) -> bool:
    """Whether an amount can be a price: finite, from 0 to `MAX_RATE`, or to so many times that."""
    return amount.is_finite() and 0 <= amount <= ROUNDING.multiply(MAX_RATE, times)


def quoted(text: str) -> str:
    """Foreign text for a message: in quotes, cut, with control characters escaped and lone surrogates replaced."""
    text = text.encode("utf-8", "replace").decode().strip()
    return repr(text if len(text) <= _MAX_QUOTED_CHARS else text[:_MAX_QUOTED_CHARS] + "…")
