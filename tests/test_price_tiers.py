"""Prices that depend on the answer: cache writes that are kept for an hour, and answers with much input."""

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.control.budget import CostBounds
from cometbatch.errors import JobError
from cometbatch.job import load_job
from cometbatch.money.prices import CatalogEntry, Meter, PricesAbove, PriceSettings, cost, meter, price_book
from cometbatch.records import (
    CallRequest,
    GenerationParams,
    HttpRequest,
    Message,
    PriceBook,
    Rates,
    RatesAbove,
    Tally,
    Usage,
)
from cometbatch.results.summary import RunSummary, late_warnings
from cometbatch.wire import FORMATS
from tests.workbench import Network, Workbench, carry_out

ABOVE = PricesAbove(200_000, input=Decimal(4), output=Decimal(18))
OWN = PriceSettings(catalog=False, input=Decimal(2), output=Decimal(12))


def rates_of(prices: PriceSettings) -> Rates:
    """The rates of a book made of the job's own prices."""
    rates = price_book("m", settings=prices)[0].rates
    assert rates is not None
    return rates


def replaced(prices: PriceSettings, **fields: Any) -> PriceSettings:
    """The same prices with others in some places."""
    return msgspec.structs.replace(prices, **fields)


# -- writes that are kept for an hour --------------------------------------------------------------------------------


@pytest.mark.parametrize(("own", "rate"), [(None, "4"), ("3", "3"), ("0", "0")])
def test_what_is_kept_for_an_hour_costs_twice_the_input_price_unless_the_job_says_otherwise(
    own: str | None, rate: str
) -> None:
    """Anthropic's factor (section 8.3); the rest of what was written costs as before."""
    rates = rates_of(replaced(OWN, cache_write_1h=None if own is None else Decimal(own)))
    usage = Usage(1_000_000, 0, cache_write_input_tokens=500_000, cache_write_1h_input_tokens=200_000)
    rest = Decimal("0.5") * 2 + Decimal("0.3") * Decimal("2.5")
    assert cost(usage, rates) == rest + Decimal("0.2") * Decimal(rate)


def test_a_run_that_began_without_this_price_keeps_its_own() -> None:
    """Prices are frozen when a run begins: all that was written costs the same there."""
    usage = Usage(100, 0, cache_write_input_tokens=60, cache_write_1h_input_tokens=60)
    old = Rates(Decimal(1), Decimal(1), Decimal(1), Decimal("1.25"))
    assert cost(usage, old) == Decimal("0.000115")
    assert meter(old).max_cost(100, 0, writes_for_an_hour=True) == Decimal("0.000125")


def asking(body: bytes) -> CallRequest:
    """A call with this body and a cap of ten tokens."""
    return CallRequest(0, None, HttpRequest("/", {}, body), "hash", 0, 10)


def bounds(**learnt: Any) -> CostBounds:
    """Bounds at an input price of one dollar a token; answers cost nothing."""
    rates = rates_of(PriceSettings(catalog=False, input=Decimal(1_000_000), output=Decimal(0)))
    return CostBounds(
        lambda _call, inputs, outputs, hour: meter(rates).max_cost(inputs, outputs, writes_for_an_hour=hour), **learnt
    )


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("extra", "text", "factor"),
    [
        ({}, "hello", "1.25"),
        ({"cache_control": {"type": "ephemeral"}}, "hello", "1.25"),
        ({"cache_control": {"type": "ephemeral", "ttl": "5m"}}, "hello", "1.25"),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, "hello", "2"),
        ({"tools": [{"name": "f", "cache_control": {"ttl": "1h", "type": "ephemeral"}}]}, "hello", "2"),
        ({}, 'a text that says "ttl":"1h" and "ttl": "1h"', "1.25"),
    ],
)
def test_the_bound_counts_an_hours_price_where_the_request_asks_for_it(
    name: Any, extra: dict[str, Any], text: str, factor: str
) -> None:
    """Anywhere in the body, and not within a text."""
    params = GenerationParams(max_output_tokens=10, extra=extra)
    request = asking(FORMATS[name].request_builder("m", params)([Message.of_text("user", text)]).body)
    assert bounds().max_cost(request) == len(request.http.body) * Decimal(factor)


@pytest.mark.parametrize(("hour", "most"), [(False, "0.00135"), (True, "0.0021")])
def test_the_dearest_token_of_the_input_bounds_it_whatever_the_output_costs(most: str, *, hour: bool) -> None:
    """A thousand bytes at the highest rate that input can have here, and one token of output at its own."""
    rates = Rates(Decimal(1), Decimal(100), cache_write=Decimal("1.25"), cache_write_1h=Decimal(2))
    assert Meter(rates).max_cost(1000, 1, writes_for_an_hour=hour) == Decimal(most)


def test_an_answer_that_shows_such_writes_raises_the_bounds_that_follow() -> None:
    """In this session, and in a later one, which knows it from the tally."""
    learning, request = bounds(), asking(b"x" * 100)
    learning.learn(request, Usage(100, 1, None, 50, None, 0))
    assert learning.max_cost(request) == 125
    learning.learn(request, Usage(100, 1, None, 50, None, 1))
    assert learning.max_cost(request) == bounds(writes_for_an_hour=True).max_cost(request) == 200


# -- much input ------------------------------------------------------------------------------------------------------


def test_above_the_threshold_all_tokens_of_an_answer_have_the_other_prices() -> None:
    """At the threshold itself the lower ones hold; the price of the cache keeps its relation to that of the input."""
    rates = rates_of(replaced(OWN, cache_read=Decimal("0.2"), above=ABOVE))
    assert rates.above is not None
    assert rates.above.rates == Rates(Decimal(4), Decimal(18), Decimal("0.4"), Decimal(5), cache_write_1h=Decimal(8))
    assert cost(Usage(200_000, 1000, 100_000), rates) == Decimal("0.232")
    assert cost(Usage(200_001, 1000, 100_000), rates) == Decimal("0.458004")


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (PricesAbove(1, input=Decimal(4)), (4, 12, 4, 5, 8)),
        (PricesAbove(1, output=Decimal(18)), (2, 18, 2, "2.5", 4)),
        (PricesAbove(1, cache_read=Decimal(1)), (2, 12, 1, "2.5", 4)),
        (PricesAbove(1, Decimal(4), Decimal(18), Decimal(1), Decimal(2), Decimal(3)), (4, 18, 1, 2, 3)),
    ],
)
def test_a_price_that_is_left_out_is_as_below_or_in_relation(given_: PricesAbove, expected: tuple[Any, ...]) -> None:
    """`prices.above` needs no more than what differs."""
    rates = rates_of(replaced(OWN, above=given_))
    assert rates.above is not None
    found = msgspec.structs.astuple(rates.above.rates)
    assert (*found[:4], found[5]) == tuple(map(Decimal, expected))


def test_where_input_is_free_below_the_relation_is_the_usual_one() -> None:
    """Nothing keeps a relation to 0: cached input costs what it would by default."""
    free = replaced(OWN, input=Decimal(0), above=PricesAbove(1, input=Decimal(4)))
    above = rates_of(free).above
    assert above is not None
    assert above.rates == Rates(Decimal(4), Decimal(12), Decimal(4), Decimal(5), cache_write_1h=Decimal(8))


@pytest.mark.parametrize(("low", "high"), [("2", "1e10"), ("1e10", "2"), ("1e10", "1e10")])
def test_a_price_on_either_side_that_is_none_makes_all_prices_unknown(low: str, high: str) -> None:
    """Half a price is no price."""
    own = replaced(OWN, input=Decimal(low), above=PricesAbove(1, input=Decimal(high)))
    book, warnings = price_book("m", settings=own)
    assert book.rates is None
    assert len(warnings) == 1


def test_a_catalogs_price_per_request_is_not_mixed_with_prices_above() -> None:
    """The person who pays is told."""
    own = PriceSettings(above=ABOVE)
    book, warnings = price_book("m", settings=own, entry=CatalogEntry("m", per_request=Decimal(1)))
    assert book.rates == Rates(per_request=Decimal(1))
    assert warnings == ["prices.above is not used: the catalog prices 'm' per request"]


@pytest.mark.parametrize(
    ("above", "body_bytes", "most"),
    [
        (Rates(Decimal(4), Decimal(18)), 999, "0.002118"),
        (Rates(Decimal(4), Decimal(18)), 1000, "0.002120"),
        (Rates(Decimal(4), Decimal(18)), 1001, "0.004184"),
        (Rates(Decimal(1), Decimal(6)), 1001, "0.002122"),
        (Rates(Decimal(1), Decimal(200)), 1001, "0.003001"),
    ],
)
def test_a_request_that_may_pass_the_threshold_is_bounded_by_the_dearer_side(
    above: Rates, body_bytes: int, most: str
) -> None:
    """Its bytes bound its tokens: which side it comes to lie on is not known before."""
    rates = Rates(Decimal(2), Decimal(12), above=RatesAbove(1000, above))
    assert Meter(rates).max_cost(body_bytes, 10) == Decimal(most)


def test_prices_above_go_with_the_catalogs() -> None:
    """Below them the catalog's hold, and the source says both."""
    book, _ = price_book(
        "m", settings=PriceSettings(above=ABOVE), entry=CatalogEntry("m", None, Decimal(2), Decimal(12))
    )
    assert book == PriceBook("m", "job file and catalog", rates_of(replaced(OWN, above=ABOVE)))


PRICES = st.just(Decimal(0)) | st.decimals(Decimal("0.01"), 1000, places=6)


@given(
    prices=st.builds(
        PriceSettings, input=PRICES, output=PRICES, cache_read=st.none() | PRICES, cache_write_1h=st.none() | PRICES,
        above=st.none() | st.builds(PricesAbove, st.integers(1, 1000), st.none() | PRICES, st.none() | PRICES),
    ),
    parts=st.tuples(*[st.integers(0, 500)] * 5),
    spare=st.integers(0, 100),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_a_cost_is_the_sum_of_its_parts_and_never_above_its_bound(
    prices: PriceSettings, parts: tuple[int, ...], spare: int
) -> None:
    """To the last digit, at the rates of its side of the threshold; each token of the input is a byte at least."""
    rest, read, minutes, hour, output = parts
    usage = Usage(rest + read + minutes + hour, output, read, minutes + hour, None, hour)
    rates = whole = rates_of(prices)
    if whole.above is not None and rest + read + minutes + hour > whole.above.input_tokens:
        rates = whole.above.rates
    named = ((rates.input, rest), (rates.cache_read, read), (rates.cache_write, minutes), (rates.cache_write_1h, hour))
    expected = sum(Fraction(rate or 0) * tokens for rate, tokens in (*named, (rates.output, output)))
    amount, most = cost(usage, whole), Meter(whole).max_cost(sum(parts[:4]) + spare, output, writes_for_an_hour=True)
    assert amount is not None
    assert most is not None
    assert Fraction(amount) == expected / 10**6
    assert amount <= most


def test_prices_survive_the_manifest() -> None:
    """A run that is resumed uses the very prices that it began with, those above included."""
    book = PriceBook("m", "job file", rates_of(replaced(OWN, above=ABOVE)))
    assert msgspec.json.decode(msgspec.json.encode(book), type=PriceBook) == book


# -- in a job --------------------------------------------------------------------------------------------------------


def job_with(prices: object) -> cometbatch.Job:
    """A job with these prices."""
    target = {"base_url": "http://127.0.0.1:9", "format": "chat", "model": "m"}
    return load_job(
        {"input": {"path": "in.csv"}, "output": {"path": "out.parquet"}, "target": target,
         "prompt": {"user": "{{ x }}"}, "prices": prices}
    )  # fmt: skip


def test_a_job_says_prices_above_in_a_mapping() -> None:
    """Its keys are those of the table, and it survives the description in the manifest."""
    above = {
        "input_tokens": 200_000,
        "input": 4,
        "output": 18,
        "cache_read": 0.4,
        "cache_write": 5,
        "cache_write_1h": 8,
    }
    job = job_with({"input": 2, "output": 12, "cache_write_1h": 5, "above": above})
    exact = [Decimal(str(above[name])) for name in list(above)[1:]]
    assert job.prices.above == PricesAbove(200_000, *exact)
    assert job.prices.cache_write_1h == 5
    assert cometbatch.Job.from_description(job.describe()).prices == job.prices


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        ({"above": 200_000}, r"prices\.above: expected a mapping with input_tokens and prices, found '200000'"),
        ({"above": {"input": 4}}, r"prices\.above: input_tokens is missing"),
        ({"above": {"input_tokens": 200_000}}, r"prices\.above: there is no price in it"),
        ({"above": {"input_tokens": 0, "input": 4}}, r"prices\.above\.input_tokens: expected a whole number from 1"),
        ({"above": {"input_tokens": 9, "input": -4}}, r"prices\.above\.input: expected a number from 0"),
        ({"above": {"input_tokens": 9, "inputs": 4}}, r"prices\.above\.inputs: unknown key; did you mean 'input'"),
        ({"per_request": 1, "above": {"input_tokens": 9, "input": 4}}, r"contradicts prices\.above"),
        ({"per_request": 1, "cache_write_1h": 4}, r"contradicts prices\.cache_write_1h"),
    ],
)
def test_prices_that_can_t_be_are_refused_by_name(prices: dict[str, Any], words: str) -> None:
    """With the key and what was expected."""
    with pytest.raises(JobError, match=words):
        job_with(prices)


# -- in a run --------------------------------------------------------------------------------------------------------


def reading(input_tokens: int) -> httpx.Response:
    """An answer that took so many input tokens."""
    said = {"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
    usage = {"prompt_tokens": input_tokens, "completion_tokens": 10, "total_tokens": input_tokens + 10}
    return httpx.Response(200, json={"id": "c", "model": "m", "choices": [said], "usage": usage})


def answered_in_turn(*input_tokens: int) -> Network:
    """Answers that took so many input tokens, one after the other."""
    left = iter(input_tokens)
    return Network(answer=lambda request: reading(next(left)) if request.method == "POST" else None)


def test_a_run_prices_each_answer_by_its_own_input_and_verify_agrees(tmp_path: Path) -> None:
    """Rows on both sides of the threshold; nobody is warned of prices that the job knows."""
    bench = Workbench(tmp_path)
    bench.write_rows(3)
    prices = {"input": 2, "output": 12, "above": {"input_tokens": 200_000, "input": 4, "output": 18}}
    job = bench.job(prices=prices, limits={"concurrency": 1})
    summary = carry_out(job, answered_in_turn(100, 200_000, 300_000))
    costs = bench.result().column("cost_usd").to_pylist()
    assert costs == [Decimal("0.00032"), Decimal("0.40012"), Decimal("1.20018")]
    assert summary.cost_usd == sum(costs)
    assert not any("prices.above" in warning for warning in summary.warnings)
    assert cometbatch.verify(job).ok


def test_much_input_is_told_where_the_job_has_one_price_for_all(tmp_path: Path) -> None:
    """Many models cost more then: a warning counts such answers and names the key."""
    bench = Workbench(tmp_path)
    bench.write_rows(3)
    job = bench.job(prices={"input": 2, "output": 12}, limits={"concurrency": 1})
    summary = carry_out(job, answered_in_turn(200_001, 200_000, 300_000))
    assert (
        "2 answers took more than 200,000 input tokens, above which many models cost more; prices.above sets what they "
        "cost then"
    ) in summary.warnings
    assert cometbatch.verify(job).ok


@pytest.mark.parametrize(
    "rates", [None, Rates(per_request=Decimal(1)), Rates(Decimal(1), Decimal(1), above=RatesAbove(5, Rates()))]
)
def test_much_input_is_no_news_where_its_price_is_known_or_none_is(rates: Rates | None) -> None:
    """Per request, above a threshold, or without any price."""
    assert not list(late_warnings(Tally(succeeded=1, long_inputs=1), PriceBook("m", "job file", rates)))


def test_a_plan_prices_long_prompts_by_their_own_prices(tmp_path: Path) -> None:
    """The estimate is a quarter of the characters: a row above the threshold, one at it."""
    bench = Workbench(tmp_path)
    (tmp_path / "long.csv").write_text("text\n" + "x" * 400 + "\n" + "x" * 404 + "\n", encoding="utf-8")
    prices = {"input": 1, "output": 0, "above": {"input_tokens": 100, "input": 10}}
    made = {"input": {"path": str(tmp_path / "long.csv"), "id": None}, "prompt": {"user": "{{ text }}", "system": None}}
    plan = cometbatch.plan(bench.job(prices=prices, **made), http=Network())
    assert plan.input_tokens == 201
    assert plan.cost_usd == Decimal("0.00111")
    unknown = cometbatch.plan(bench.job(prices="none", **made), http=Network())
    assert unknown.cost_usd is None


def test_a_resumed_run_is_told_of_prices_that_changed_above(tmp_path: Path) -> None:
    """And of none that stayed as they were."""
    bench = Workbench(tmp_path)
    bench.write_rows(2)
    above = {"input_tokens": 200_000, "input": 4}
    carry_out(bench.job(prices={"input": 2, "output": 12, "above": above}), answered_in_turn(10, 10))
    changed = "prices changed in the job; this run goes on with the ones that it began with"
    for threshold, said in ((200_000, False), (100_000, True)):
        prices = {"input": 2, "output": 12, "above": above | {"input_tokens": threshold}}
        assert (changed in carry_out(bench.job(prices=prices), Network()).warnings) == said


# -- what no price covers --------------------------------------------------------------------------------------------


def searched(request: httpx.Request) -> httpx.Response | None:
    """A search for each row, at another tier."""
    if request.method == "GET":
        return None
    said = {"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 20, "completion_tokens": 10, "server_tool_use": {"web_search_requests": 2}}
    body = {"id": "c", "model": "m", "choices": [said], "usage": usage}
    tier = {"service_tier": "priority"} if b"0001" in request.content else {}
    return httpx.Response(200, json=body | tier)


def test_a_cost_that_leaves_something_out_is_never_shown_as_exact(tmp_path: Path) -> None:
    """Column, sum, status, JSON and a warning say it; the priced part is exact, and `verify` agrees."""
    bench = Workbench(tmp_path)
    bench.write_rows(3)
    job = bench.job(prices={"input": 1, "output": 10})
    summary = carry_out(job, Network(answer=searched))
    table = bench.result()
    assert table.column("cost_excludes").to_pylist() == [
        "web_search",
        "web_search, service_tier=priority",
        "web_search",
    ]
    assert set(table.column("cost_usd").to_pylist()) == {Decimal("0.00012")}
    assert summary.to_dict()["cost_excludes"] == {"rows": 3, "kinds": {"service_tier": 1, "web_search": 3}}
    for each in (summary, cometbatch.status(bench.output).summary):
        assert "cost: at least $0.0004 (prices: job file); 3 rows with more in use than is priced" in each.describe()
        used = "3 answers used what no price covers: service_tier (1), web_search (3)"
        assert each.warnings == (f"{used}. Their cost is at least what is shown",)
    assert cometbatch.verify(job).ok


def contradicting(request: httpx.Request) -> httpx.Response | None:
    """Counts whose total is less than one of them."""
    if request.method == "GET":
        return None
    said = {"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 12}
    return httpx.Response(200, json={"id": "c", "model": "m", "choices": [said], "usage": usage})


def test_counts_that_contradict_each_other_make_the_cost_unknown_and_are_kept(tmp_path: Path) -> None:
    """A warning counts the rows; the counts as they came are in the row; the budget takes the answer at its most."""
    bench = Workbench(tmp_path)
    bench.write_rows(2)
    job = bench.job(prices={"input": 1, "output": 10}, params={"max_output_tokens": 64})
    summary = carry_out(job, Network(answer=contradicting))
    assert summary.cost_usd is None
    for row in bench.result().to_pylist():
        kept = row["cost_excludes"].removeprefix("usage=")
        assert json.loads(kept) == {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 12}
        assert (row["input_tokens"], row["output_tokens"], row["cost_usd"]) == (None, None, None)
    (warning,) = [each for each in summary.warnings if "answer" in each]
    assert warning == (
        "2 answers came with token counts that contradict each other: their cost is unknown, and the column "
        "cost_excludes holds the counts as they came"
    )
    assert summary.tally.charges == 2
    assert cometbatch.verify(job).ok


def test_input_that_the_service_adds_is_priced_and_told_once(tmp_path: Path) -> None:
    """Counts above the bytes that were sent are no reason to know nothing."""
    bench = Workbench(tmp_path)
    bench.write_rows(2)
    summary = carry_out(bench.job(prices={"input": 1, "output": 10}), answered_in_turn(10_000, 10_000))
    assert summary.cost_usd == Decimal("0.0202")
    (warning,) = [each for each in summary.warnings if "adds input" in each]
    assert warning.startswith("the service adds input: an answer was billed for 9,")


def test_earlier_answers_are_at_least_what_is_shown_too() -> None:
    """What `--retry` replaced may have used what no price covers."""
    earlier = Tally(succeeded=2, excluding=1, excluded={"web_search": 1}, cost_usd=Decimal(1))
    summary = RunSummary("r", Path("out"), 2, Tally(), PriceBook("m", "none"), finished=False, replaced=earlier)
    assert "their earlier answers cost at least $1.00 (not" in summary.describe()
