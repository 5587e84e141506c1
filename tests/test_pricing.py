"""Prices: the catalog in each of its shapes, and costs that are exact (contract sheet, section 8)."""

import json
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.money.prices import (
    COST_SCALE,
    MAX_RATE,
    MAX_TOKENS,
    RATE_DECIMALS,
    CatalogEntry,
    PriceSettings,
    cost,
    estimate_cost,
    estimate_tokens,
    meter,
    price_book,
)
from cometbatch.records import PriceBook, Rates, Usage
from cometbatch.service.catalog import Catalog, CatalogProblem, parse_catalog, prices_in

# By hand from the contract sheet, section 8.1.
SHEET_CATALOG = rb"""{
  "success": true, "page": 1, "page_size": 20, "total": 302,
  "data": [{
    "id": "vendor-model-4.5", "code": "vendor-model-4-5", "name": "Vendor Model 4.5",
    "provider": "Vendor", "provider_code": "vendor", "created": 1773798949,
    "model_type": "text", "features": ["text-to-text"],
    "endpoints": "{\n  \"openai-chat\": {\n    \"path\": \"/v1/chat/completions\",\n    \"method\": \"POST\"\n  }\n}",
    "pricing": {"currency": "USD / M Tokens", "input": 0.5, "output": 1.5, "per_request": null, "per_second": null},
    "context_length": "1M", "max_completion_tokens": "128K",
    "api_doc_url": "https://apidoc.cometapi.com/api/text/chat"
  }]
}"""

# By hand from the contract sheet, section 8.2.
SHEET_MODEL_LIST = b"""{"success": true, "object": "list",
 "data": [{"id": "gpt-5.4", "object": "model", "created": 1626777600, "owned_by": "custom",
           "supported_endpoint_types": ["openai"]}]}"""


def catalog_of(*records: object) -> Catalog:
    """A catalog of these records, through the parser."""
    catalog = parse_catalog(json.dumps(records).encode())
    assert isinstance(catalog, Catalog)
    return catalog


def record(model: str = "m-1.5", **pricing: Any) -> dict[str, Any]:
    """A catalog record with these prices."""
    return {"id": model, "code": model.replace(".", "-"), "pricing": pricing}


def entry_of(**pricing: Any) -> CatalogEntry:
    """The entry that comes of a record with these prices."""
    entry = catalog_of(record(**pricing)).find("m-1.5")
    assert entry is not None
    return entry


def test_the_sheets_catalog_is_read() -> None:
    """The documented example gives its prices, and a warning that 301 models are missing."""
    assert parse_catalog(SHEET_CATALOG) == Catalog(
        entries={
            "vendor-model-4.5": CatalogEntry(
                "vendor-model-4.5",
                "vendor-model-4-5",
                input=Decimal("0.5"),
                output=Decimal("1.5"),
            )
        },
        warnings=("the catalog came short: 1 of 302 models",),
    )


def test_a_model_list_without_prices_is_read_with_a_warning() -> None:
    """The list of a key's models has ids but no prices."""
    assert parse_catalog(SHEET_MODEL_LIST) == Catalog(
        {"gpt-5.4": CatalogEntry("gpt-5.4")}, ("the catalog lists no prices",)
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>404</html>", "not JSON"),
        (b'{"data": [', "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'"text"', "no list"),
        (b"{}", "no list"),
        (b'{"success": true, "data": {"id": "m"}}', "no list"),
        (b'{"success": false, "message": "maintenance\\n now", "data": []}', r"'maintenance\\n now'"),
        (b'{"success": false}', "refused"),
        (b'{"success": false, "message": 7}', "'7'"),
    ],
)
def test_what_is_no_catalog_says_why(body: bytes, reason: str) -> None:
    """A page, a cut-off body, another shape or the service's own refusal is a reason and not a crash."""
    problem = parse_catalog(body)
    assert isinstance(problem, CatalogProblem)
    assert reason.replace(r"\\", "\\") in problem.reason


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["success", "data", "total", "id", "code", "pricing", "input", "ratio", "endpoints", "path"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(body=st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=100)
def test_any_bytes_whatever_get_an_answer(body: bytes) -> None:
    """The parser is total, and what it returns can be printed."""
    found = parse_catalog(body)
    assert repr(found).encode()


@pytest.mark.parametrize(
    ("price", "exact"),
    [
        ("0.1", "0.1"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("1e-7", "1E-7"),
        ("2", "2"),
        ("0", "0"),
        ("-0.0", "0.0"),
        ('"0.075"', "0.075"),
        ('" 3 "', "3"),
        ("1000000000", "1000000000"),
    ],
)
def test_a_price_is_exactly_what_the_catalog_wrote(price: str, exact: str) -> None:
    """Numbers and numeric strings never pass through a float."""
    catalog = parse_catalog(f'[{{"id": "m", "pricing": {{"input": {price}}}}}]'.encode())
    assert isinstance(catalog, Catalog)
    assert str(catalog.entries["m"].input) == exact


@pytest.mark.parametrize(
    "price",
    [
        *("null", "true", "{}", "[]", "-1", "NaN", "Infinity", "-Infinity"),
        *('""', '"free"', '"1,5"', '"1_0"', '"NaN"', '"-1"', '"1e99"', '"' + "9" * 5000 + '"'),
        *("1e99999999999999999999", "1e999", "1000000001", "9" * 5000),
    ],
)
def test_what_is_no_price_is_unknown(price: str) -> None:
    """Unknown is None and never 0, and takes nothing else down with it."""
    catalog = parse_catalog(f'[{{"id": "m", "pricing": {{"input": {price}, "output": 2}}}}]'.encode())
    assert isinstance(catalog, Catalog)
    assert catalog.entries["m"].input is None
    assert catalog.entries["m"].output == 2


@pytest.mark.parametrize("pricing", [None, "0.5", 0.5, [], {"currency": "CNY / M Tokens", "input": 1}, {"currency": 7}])
def test_pricing_that_is_missing_or_in_other_money_is_unknown(pricing: object) -> None:
    """A price in another currency is not taken for dollars."""
    catalog = catalog_of({"id": "m", "pricing": pricing})
    assert catalog.find("m") == CatalogEntry("m")


def test_every_basis_of_a_price_is_kept() -> None:
    """Per request, per second and the ratio stand beside the token prices."""
    entry = entry_of(currency="usd", input=1, output=2, per_request=0.25, per_second=0.5, ratio=0.8)
    assert entry == CatalogEntry(
        "m-1.5", "m-1-5", Decimal(1), Decimal(2), Decimal("0.25"), Decimal("0.5"), Decimal("0.8")
    )


def test_records_that_are_no_models_are_skipped_and_counted() -> None:
    """What has no id can't be called; the rest of the list is kept."""
    catalog = catalog_of(7, None, {"id": None}, {"id": " "}, {"name": "x"}, record("m", input=1))
    assert list(catalog.entries) == ["m"]
    assert catalog.warnings == ("5 records of the catalog are not models and were skipped",)


def test_of_a_model_listed_twice_the_first_counts() -> None:
    """Two entries with one id: the first price, and a warning."""
    catalog = catalog_of(record("m", input=1), record("m", input=2))
    assert catalog.entries["m"].input == 1
    assert catalog.warnings == ("1 models are in the catalog more than once; the first of each counts",)


@pytest.mark.parametrize("total", ["NaN", "1e400", '"302"', "null", "1", "-5", "[]"])
def test_an_odd_total_does_no_harm(total: str) -> None:
    """The total only ever makes a warning."""
    body = f'{{"data": [{{"id": "m", "pricing": {{"input": 1}}}}], "total": {total}}}'.encode()
    catalog = parse_catalog(body)
    assert isinstance(catalog, Catalog)
    assert catalog.warnings == ()


def test_a_model_is_found_by_id_and_never_by_code() -> None:
    """A code can't be called; it only leads to the id."""
    catalog = catalog_of(record("m-1.5", input=1))
    assert catalog.find("m-1-5") is None
    assert catalog.id_for_code("m-1-5") == "m-1.5"
    assert catalog.id_for_code("m-1.5") is None


def test_text_from_the_catalog_can_be_written_anywhere() -> None:
    """Lone surrogates in ids do not survive."""
    catalog = parse_catalog(b'[{"id": "m\\ud800"}]')
    assert isinstance(catalog, Catalog)
    assert list(catalog.entries) == ["m?"]


# The price book


def book(settings: PriceSettings, *records: object, model: str = "m-1.5") -> tuple[PriceBook, list[str]]:
    """The book for a model with these settings and this catalog."""
    return prices_in(catalog_of(*records) if records else None, model, settings)


CATALOG_PRICES = PriceSettings()
NO_PRICES = PriceSettings(catalog=False)


def test_token_prices_come_with_cache_rates() -> None:
    """Cached input costs as much as any other, cache writes a quarter more; the ratio changes no rate."""
    found, warnings = book(CATALOG_PRICES, record(input=0.5, output=1.5, ratio=0.8))
    rates = Rates(Decimal("0.5"), Decimal("1.5"), Decimal("0.5"), Decimal("0.625"), cache_write_1h=Decimal(1))
    assert found == PriceBook("m-1.5", "catalog", rates, ratio=Decimal("0.8"))
    assert warnings == []


@pytest.mark.parametrize(
    ("settings", "pricing", "rates", "source"),
    [
        (PriceSettings(input=Decimal(1), output=Decimal(2)), {}, (1, 2, 1, "1.25", None), "job file"),
        (PriceSettings(input=Decimal(1)), {"output": 9}, (1, 9, 1, "1.25", None), "job file and catalog"),
        (PriceSettings(output=Decimal(1)), {"input": 8}, (8, 1, 8, 10, None), "job file and catalog"),
        (
            PriceSettings(cache_read_multiplier=Decimal("0.1")),
            {"input": 2, "output": 4},
            (2, 4, "0.2", "2.5", None),
            "job file and catalog",
        ),
        (
            PriceSettings(cache_read=Decimal(3), cache_write=Decimal(5)),
            {"input": 2, "output": 4},
            (2, 4, 3, 5, None),
            "job file and catalog",
        ),
        (PriceSettings(per_request=Decimal(0)), {"input": 2, "output": 4}, (None, None, None, None, 0), "job file"),
        (CATALOG_PRICES, {"per_request": 0.02, "input": 1, "output": 1}, (None, None, None, None, "0.02"), "catalog"),
        (CATALOG_PRICES, {"per_request": 0.02, "per_second": 1}, (None, None, None, None, "0.02"), "catalog"),
        (CATALOG_PRICES, {"per_request": 0, "input": 1, "output": 1}, (1, 1, 1, "1.25", None), "catalog"),
        (CATALOG_PRICES, {"per_second": 0, "input": 1, "output": 1}, (1, 1, 1, "1.25", None), "catalog"),
        (PriceSettings(input=Decimal(1), output=Decimal(2)), {"per_request": 5}, (1, 2, 1, "1.25", None), "job file"),
    ],
)
def test_the_jobs_prices_win_and_then_the_first_basis_that_applies(
    settings: PriceSettings, pricing: dict[str, Any], rates: tuple[Any, ...], source: str
) -> None:
    """The job's word first; in the catalog a price per request before prices per token.

    What the catalog says of charged and listed prices holds for its own prices alone.
    """
    found, warnings = book(settings, record(**pricing, ratio=0.8), record("other", input=1))
    given = (None if rate is None else Decimal(rate) for rate in rates)
    fields: dict[str, Any] = dict(
        zip(("input", "output", "cache_read", "cache_write", "per_request"), given, strict=True)
    )
    assert found.rates == Rates(**fields, cache_write_1h=None if rates[0] is None else 2 * Decimal(rates[0]))
    assert found.source == source
    assert found.ratio == (
        Decimal("0.8") if {settings.input, settings.output, settings.per_request} == {None} else None
    )
    assert warnings == []


@pytest.mark.parametrize(
    ("settings", "pricing", "words"),
    [
        (CATALOG_PRICES, {}, "no price for text"),
        (CATALOG_PRICES, {"input": 1}, "no price for text"),
        (CATALOG_PRICES, {"output": 1}, "no price for text"),
        (CATALOG_PRICES, {"per_second": 0.1, "input": 1, "output": 1}, "per second"),
        (PriceSettings(catalog=False, input=Decimal(1)), {"output": 1}, "both needed"),
        (PriceSettings(input=Decimal(1)), {}, "both needed"),
        (PriceSettings(input=MAX_RATE * 2, output=Decimal(1)), {}, "from 0 to 1e9"),
        (PriceSettings(per_request=MAX_RATE * 2), {}, "from 0 to 1e9"),
    ],
)
def test_an_unknown_price_is_said_and_not_guessed(settings: PriceSettings, pricing: dict[str, Any], words: str) -> None:
    """Half a price is no price: rates are None and the warning says why."""
    found, warnings = book(settings, record(**pricing, ratio=0.8), record("other", input=1))
    assert found == PriceBook("m-1.5", "none")
    assert len(warnings) == 1
    assert words in warnings[0]
    assert "costs will be unknown" in warnings[0]


@pytest.mark.parametrize(
    ("pricing", "rates"),
    [
        ({"input": 0, "output": 0}, Rates(Decimal(0), Decimal(0), Decimal(0), Decimal(0), cache_write_1h=Decimal(0))),
        ({"per_request": 0}, Rates(per_request=Decimal(0))),
        ({"per_request": 0, "input": 1}, Rates(per_request=Decimal(0))),
        ({"per_request": 0, "output": 1}, Rates(per_request=Decimal(0))),
    ],
)
def test_prices_of_zero_are_taken_with_a_warning(pricing: dict[str, Any], rates: Rates) -> None:
    """A free model may be free; the person who pays should know that the catalog says so."""
    found, warnings = book(CATALOG_PRICES, record(**pricing))
    assert found.rates == rates
    assert warnings == ["the catalog lists 'm-1.5' at no cost"]


def test_a_job_without_prices_is_left_in_peace() -> None:
    """Who asked for no prices gets none, and no warning."""
    assert book(NO_PRICES, record(input=1, output=2)) == (PriceBook("m-1.5", "none"), [])
    assert book(NO_PRICES) == (PriceBook("m-1.5", "none"), [])


def test_a_code_in_place_of_an_id_is_found_out() -> None:
    """The warning names the id that was meant."""
    found, warnings = book(CATALOG_PRICES, record("m-1.5", input=1, output=1), model="m-1-5")
    assert found.rates is None
    assert warnings[0] == "'m-1-5' is a catalog code, not a model id: use 'm-1.5' as target.model"


def test_a_model_that_is_not_listed_is_warned_of() -> None:
    """Some models can be called without being listed, so it is no error."""
    found, warnings = book(CATALOG_PRICES, record(input=1, output=1), model="x" * 200)
    assert found.rates is None
    assert "not in the catalog: check target.model" in warnings[0]
    assert all(len(warning) < 250 for warning in warnings)


def test_a_model_that_is_to_come_is_warned_of() -> None:
    """An upcoming model may not be callable yet."""
    _, warnings = book(CATALOG_PRICES, record(input=1, output=1) | {"upcoming": True})
    assert warnings == ["the catalog lists 'm-1.5' as upcoming: it may not be callable yet"]


def test_a_catalog_that_came_short_is_warned_of() -> None:
    """What is odd about the list reaches the person who pays."""
    catalog = parse_catalog(SHEET_CATALOG)
    assert isinstance(catalog, Catalog)
    _, warnings = prices_in(catalog, "vendor-model-4.5", CATALOG_PRICES)
    assert warnings == ["the catalog came short: 1 of 302 models"]


def test_without_a_catalog_prices_are_unknown() -> None:
    """Where the catalog was not read, that is said."""
    found, warnings = book(CATALOG_PRICES)
    assert found.rates is None
    assert warnings == ["no known price for 'm-1.5': the catalog gives none; costs will be unknown"]


def test_a_catalog_that_can_t_be_read_is_told_by_a_field_that_the_manifest_keeps() -> None:
    """The reason is in the book, so that a later session knows it without a warning's words."""
    found, warnings = prices_in(CatalogProblem("HTTP 502"), "m-1.5", CATALOG_PRICES)
    assert (found.rates, found.unread_catalog) == (None, "HTTP 502")
    assert warnings == ["no prices: the catalog can't be read (HTTP 502); costs stay unknown. Set prices."]
    assert msgspec.json.decode(msgspec.json.encode(found), type=PriceBook) == found


@pytest.mark.parametrize(
    ("settings", "needs"),
    [
        (CATALOG_PRICES, True),
        (NO_PRICES, False),
        (PriceSettings(input=Decimal(1)), True),
        (PriceSettings(output=Decimal(1)), True),
        (PriceSettings(input=Decimal(1), output=Decimal(1)), False),
        (PriceSettings(per_request=Decimal(1)), False),
        (PriceSettings(cache_read_multiplier=Decimal(1)), True),
    ],
)
def test_the_catalog_is_asked_only_for_what_the_job_leaves_open(settings: PriceSettings, *, needs: bool) -> None:
    """A job with its own full prices needs no catalog."""
    assert settings.needs_catalog == needs


def test_rates_are_rounded_half_even_to_twelve_decimals() -> None:
    """A tie goes to the even digit; a price that fits stays as it was written."""
    own = PriceSettings(input=Decimal("0.0000000000005"), output=Decimal("0.0000000000015"), cache_read=Decimal("0.10"))
    rates = book(own)[0].rates
    assert rates is not None
    assert (rates.input, rates.output) == (Decimal(0), Decimal("0.000000000002"))
    assert str(rates.cache_read) == "0.10"


prices = st.decimals(0, 10**9, places=RATE_DECIMALS) | st.decimals(0, 1, places=40) | st.integers(0, 10**9).map(Decimal)
counts = st.integers(0, 10**12)


@st.composite
def books(draw: st.DrawFn) -> PriceBook:
    """Price books as `price_book` makes them, adversarial prices included."""
    own = PriceSettings(
        input=draw(prices),
        output=draw(prices),
        cache_read=draw(st.none() | prices),
        cache_write=draw(st.none() | st.just(Decimal(2))),
        cache_write_multiplier=Decimal(1),
    )
    return price_book("m", settings=own)[0]


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Usages that keep the law: cache counts are part of the input."""
    read, write, rest = draw(counts), draw(counts), draw(counts)
    return Usage(read + write + rest, draw(counts), draw(st.sampled_from([read, None])), write)


def exact_rate(rate: Decimal | None) -> Fraction:
    """A rate as a fraction."""
    assert rate is not None
    return Fraction(rate)


@given(found=books(), usage=usages())
@settings(max_examples=100)
def test_a_cost_is_exact(found: PriceBook, usage: Usage) -> None:
    """The cost equals the same sum in fractions, to the last digit, and has exactly COST_SCALE decimals."""
    rates = found.rates
    assert rates is not None
    assert usage.input_tokens is not None
    read, write = usage.cache_read_input_tokens or 0, usage.cache_write_input_tokens or 0
    expected = exact_rate(rates.input) * (usage.input_tokens - read - write)
    expected += exact_rate(rates.cache_read) * read + exact_rate(rates.cache_write) * write
    expected += exact_rate(rates.output) * (usage.output_tokens or 0)
    amount = cost(usage, rates)
    assert amount is not None
    assert Fraction(amount) == expected / 10**6
    assert amount.as_tuple().exponent == -COST_SCALE
    assert amount < 10**20


@given(found=books(), parts=st.lists(usages(), max_size=20))
@settings(max_examples=50)
def test_costs_add_up(found: PriceBook, parts: list[Usage]) -> None:
    """The sum of the rows' costs is the cost of the summed counts."""
    whole = Usage(
        sum(part.input_tokens or 0 for part in parts),
        sum(part.output_tokens or 0 for part in parts),
        sum(part.cache_read_input_tokens or 0 for part in parts),
        sum(part.cache_write_input_tokens or 0 for part in parts),
    )
    amounts = [cost(part, found.rates) for part in parts]
    with localcontext(prec=100):
        assert sum(amount for amount in amounts if amount is not None) == cost(whole, found.rates)


@given(found=books())
@settings(max_examples=50)
def test_a_book_survives_the_manifest(found: PriceBook) -> None:
    """A run that is resumed uses the very prices that it began with."""
    text = msgspec.json.encode(found)
    assert msgspec.json.decode(text, type=PriceBook) == found


@given(
    settings_=st.builds(PriceSettings, input=prices, output=prices, cache_read_multiplier=st.decimals(0, 2, places=9))
)
@settings(max_examples=50)
def test_every_rate_of_a_book_fits_its_decimals(settings_: PriceSettings) -> None:
    """Whatever multipliers do, no rate has more than RATE_DECIMALS decimals."""
    rates = price_book("m", settings=settings_)[0].rates
    for rate in () if rates is None else (rates.input, rates.output, rates.cache_read, rates.cache_write):
        assert (exact_rate(rate) * 10**RATE_DECIMALS).denominator == 1


RATES = Rates(Decimal(1), Decimal(10), cache_read=Decimal("0.1"), cache_write=Decimal("1.25"))
HOUR_RATES = Rates(Decimal(1), Decimal(10), cache_write=Decimal("1.25"), cache_write_1h=Decimal(2))


@pytest.mark.parametrize(
    ("usage", "rates", "expected"),
    [
        (Usage(1_000_000, 100_000), RATES, "2"),
        (Usage(1_000_000, 0, cache_read_input_tokens=400_000), RATES, "0.64"),
        (Usage(1_000_000, 0, cache_write_input_tokens=400_000), RATES, "1.1"),
        (Usage(1, 0), RATES, "0.000001"),
        (Usage(0, 0), RATES, "0"),
        (Usage(100, 0, 80, 60), RATES, "0.000083"),
        (Usage(10, 10, 5, 5), Rates(Decimal(1), Decimal(1)), "0.00002"),
        (Usage(100, 0, 0, 40, None, 30), HOUR_RATES, "0.0001325"),
        (Usage(100, 0, 0, 40, None, 50), HOUR_RATES, "0.00014"),
        (Usage(MAX_TOKENS, MAX_TOKENS), Rates(Decimal(1), Decimal(1)), "2e9"),
        (Usage(), Rates(per_request=Decimal("0.03")), "0.03"),
        (Usage(5, 5), None, None),
        (Usage(5, 5), Rates(), None),
        (Usage(5, 5), Rates(input=Decimal(1)), None),
        (Usage(None, 5), RATES, None),
        (Usage(5, None), RATES, None),
        (Usage(MAX_TOKENS + 1, 5), RATES, None),
        (Usage(5, MAX_TOKENS + 1), RATES, None),
        (Usage(5, 10**500), RATES, None),
        (Usage(5, 5), Rates(output=Decimal(1)), None),
    ],
)
def test_a_cost_by_hand(usage: Usage, rates: Rates | None, expected: str | None) -> None:
    """Cached tokens at their own rates, and None where price or counts are unknown."""
    assert cost(usage, rates) == (None if expected is None else Decimal(expected))


def test_unknown_cache_counts_never_make_a_row_cheaper() -> None:
    """Where the reply does not count cached tokens, all input costs the full rate."""
    unknown, known = cost(Usage(100, 0), RATES), cost(Usage(100, 0, cache_read_input_tokens=40), RATES)
    assert unknown is not None
    assert known is not None
    assert unknown > known


@pytest.mark.parametrize(("characters", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (4001, 1001)])
def test_a_quarter_of_the_characters_are_tokens(characters: int, tokens: int) -> None:
    """The documented estimate, rounded up."""
    assert estimate_tokens(characters) == tokens


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "rates", "expected"),
    [
        (1_000_000, 200_000, RATES, "3"),
        (1_000_000, None, RATES, None),
        (1_000_000, 200_000, None, None),
        (1_000_000, 200_000, Rates(output=Decimal(1)), None),
        (1_000_000, 200_000, Rates(input=Decimal(1)), None),
        (1_000_000, None, Rates(per_request=Decimal("0.03")), "0.3"),
    ],
)
def test_the_estimate_of_a_table(
    input_tokens: int, output_tokens: int | None, rates: Rates | None, expected: str | None
) -> None:
    """Ten requests at full rates; unknown without a price, or without a bound on the answers."""
    amount = estimate_cost(input_tokens, output_tokens, 10, rates)
    assert amount == (None if expected is None else Decimal(expected))


@pytest.mark.parametrize(
    ("rates", "cap", "dearest"),
    [
        (None, 64, None),
        (Rates(per_request=Decimal("0.002")), None, "0.002"),
        (Rates(input=Decimal(1), output=Decimal(2)), None, None),
        (Rates(input=Decimal(1)), 64, None),
        (Rates(output=Decimal(1)), 64, None),
        (Rates(input=Decimal(1), output=Decimal(2)), 64, "0.001128"),
        (Rates(input=Decimal(1), output=Decimal(2), cache_write=Decimal("1.25")), 64, "0.001378"),
    ],
)
def test_the_most_that_a_request_can_cost_is_known_where_price_and_cap_are(
    rates: Rates | None, cap: int | None, dearest: str | None
) -> None:
    """A token for each byte sent, at the dearest input rate, and an answer up to its cap; else nothing is promised."""
    assert meter(rates).max_cost(1000, cap) == (None if dearest is None else Decimal(dearest))
