"""The catalog is read whole, in as many pages as it has, no sooner than it asks for (contract sheet, section 8.1)."""

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.money.prices import PriceSettings
from cometbatch.records import PriceBook
from cometbatch.service.catalog import MAX_WAITS_S, find_books
from cometbatch.transport import Transport
from tests import virtual_time
from tests.scripted_server import chunked, reply, serving
from tests.scripted_server import run as on_a_real_loop
from tests.virtual_time import VirtualLoop
from tests.workbench import KEY, Workbench, carry_out, simulator

Answer = Callable[[httpx.Request], httpx.Response]


class Asked:
    """A service whose catalog gives these answers; keeps what it was asked, and when."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.queries: list[dict[str, str]] = []
        self.times: list[float] = []

    def prices(self, model: str) -> tuple[PriceBook, list[str]]:
        """The prices of a model, and warnings."""

        async def main() -> tuple[PriceBook, list[str]]:
            transport = Transport("https://x.test", KEY, timeout_s=5, http=httpx.MockTransport(self._answered))
            try:
                (found,) = await find_books([(model, PriceSettings())], transport)
                return found
            finally:
                await transport.aclose()

        return virtual_time.run(main())

    def _answered(self, request: httpx.Request) -> httpx.Response:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.queries.append(dict(request.url.params))
        self.times.append(loop.time())
        return self._answer(request)


def rows(first: int, last: int) -> list[dict[str, Any]]:
    """Records of models, each with a price of its own."""
    return [{"id": f"m{number}", "pricing": {"input": number, "output": 1}} for number in range(first, last)]


def paged(models: int, size: int, *, name: str = "page", first: int = 1, envelope: int | None = None) -> Answer:
    """A catalog in pages, whose number is called `name` and counts from `first`; the envelope may count otherwise."""

    def answer(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params.get(name, first)) - first
        said = number + (first if envelope is None else envelope)
        data = rows(number * size, min(models, (number + 1) * size)) if number >= 0 else []
        body = {"success": True, "page": said, "page_size": size, "total": models, "data": data}
        return httpx.Response(200, json=body)

    return answer


@given(
    models=st.integers(1, 60),
    size=st.integers(1, 25),
    name=st.sampled_from(["page", "p"]),
    counts=st.sampled_from([(1, 1), (0, 0), (1, 0)]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_every_model_is_found_on_whatever_page_it_stands(
    models: int, size: int, name: str, counts: tuple[int, int], data: st.DataObject
) -> None:
    """By either name of the number, whether query and envelope count from 0 or from 1; no page is asked for twice."""
    first, envelope = counts
    asked = Asked(paged(models, size, name=name, first=first, envelope=envelope))
    number = data.draw(st.integers(0, models - 1))
    book, warnings = asked.prices(f"m{number}")
    assert book.rates is not None
    assert book.rates.input == Decimal(number)
    assert [words for words in warnings if "short" in words] == []
    pages = -(-models // size)
    assert len(asked.queries) <= pages + 3
    assert len({json.dumps(query) for query in asked.queries}) == len(asked.queries)


def test_the_documented_example_is_read_to_its_end() -> None:
    """302 models, 20 on a page: 16 pages, each with the envelope's own size."""
    asked = Asked(paged(302, 20))
    book, warnings = asked.prices("m301")
    assert (book.rates is not None, warnings) == (True, [])
    assert asked.queries == [{}, *({"page": f"{page}", "page_size": "20"} for page in range(2, 17))]


@pytest.mark.parametrize("pages", [1, 3])
def test_an_envelope_inside_of_data_is_read_like_one_around_it(pages: int) -> None:
    """As the service's other lists come: `data.items`, with page, page_size and total beside it."""

    def answer(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params.get("page", 1))
        items = rows(2 * number - 2, 2 * number)
        return httpx.Response(200, json={"data": {"items": items, "page": number, "page_size": 2, "total": 2 * pages}})

    asked = Asked(answer)
    book, warnings = asked.prices(f"m{2 * pages - 1}")
    assert (book.rates is not None, warnings, len(asked.queries)) == (True, [], pages)


def test_a_list_that_has_no_further_pages_is_taken_as_it_is() -> None:
    """Both names are tried once; then the run goes on with what there is, and says so."""
    asked = Asked(lambda _: httpx.Response(200, json={"page": 1, "page_size": 20, "total": 302, "data": rows(0, 20)}))
    book, warnings = asked.prices("m7")
    assert book.rates is not None
    assert warnings == ["the catalog came short: 20 of 302 models"]
    assert [set(query) for query in asked.queries] == [set(), {"page", "page_size"}, {"p", "page_size"}]


@pytest.mark.parametrize(
    "body",
    [
        {"page": 0, "page_size": 0, "total": 3, "data": rows(0, 3)},
        {"page": 0, "page_size": 0, "total": 302, "data": []},
        {"total": 1, "data": rows(0, 3)},
        {"page": 1, "page_size": 20, "total": 10**9, "data": rows(0, 3)},
        {"page": 1, "page_size": 20, "total": "302", "data": rows(0, 3)},
        {"page": 1, "page_size": 20, "total": -5, "data": rows(0, 3)},
        {"data": rows(0, 3)},
        rows(0, 3),
    ],
)
def test_a_list_that_is_whole_by_its_own_word_is_asked_for_once(body: object) -> None:
    """Nothing is missing where no believable total says so, or where pages have no size."""
    asked = Asked(lambda _: httpx.Response(200, json=body))
    asked.prices("m1")
    assert asked.queries == [{}]


def test_a_page_that_cannot_be_had_leaves_those_before_it() -> None:
    """With the reason in the warning; a model before it has its price."""
    whole = paged(60, 20)

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503) if request.url.params.get("page") == "3" else whole(request)

    book, warnings = Asked(answer).prices("m25")
    assert book.rates is not None
    assert warnings == ["the catalog came short: 40 of 60 models (page 3: HTTP 503)"]


def test_a_catalog_that_never_ends_is_given_up() -> None:
    """A service that invents models page after page costs a bounded number of requests."""
    made = iter(range(10**9))

    def answer(_request: httpx.Request) -> httpx.Response:
        number = next(made)
        return httpx.Response(200, json={"page": 1, "page_size": 1, "total": 10**6, "data": rows(number, number + 1)})

    asked = Asked(answer)
    assert asked.prices("m5")[0].rates is not None
    assert len(asked.queries) == 1001


def refusing(times: int, **headers: str) -> Answer:
    """A catalog that answers 429 this often."""
    left, whole = [times], paged(3, 3)

    def answer(request: httpx.Request) -> httpx.Response:
        left[0] -= 1
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.Response(429, headers=named) if left[0] >= 0 else whole(request)

    return answer


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({"retry_after": "7"}, [7.0, 7.0, 7.0]),
        ({"retry_after_ms": "2500"}, [2.5, 2.5, 2.5]),
        ({"retry_after": "0"}, [1.0, 1.0, 1.0]),
        ({"date": "Tue, 01 Sep 2026 12:00:00 GMT", "retry_after": "Tue, 01 Sep 2026 12:00:09 GMT"}, [9.0, 9.0, 9.0]),
    ],
)
def test_a_catalog_that_asks_to_wait_is_waited_for(headers: dict[str, str], waits: list[float]) -> None:
    """To the letter, in each way of saying it, and as often as it says so; its price is then known."""
    asked = Asked(refusing(3, **headers))
    assert asked.prices("m2")[0].rates is not None
    assert [after - before for before, after in zip(asked.times, asked.times[1:], strict=False)] == waits


def test_a_later_page_that_asks_to_wait_is_waited_for() -> None:
    """It is the page that is missing that is asked for again."""
    refused: list[httpx.Request] = []
    whole = paged(9, 3)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.params.get("page") == "2" and not refused:
            refused.append(request)
            return httpx.Response(429, headers={"retry-after": "30"})
        return whole(request)

    asked = Asked(answer)
    assert asked.prices("m8") == Asked(whole).prices("m8")
    assert asked.times == [0.0, 0.0, 30.0, 30.0]


@pytest.mark.parametrize(("asks", "requests"), [("3600", 1), ("25", 3), ("61", 1)])
def test_nobody_waits_for_prices_for_long(asks: str, requests: int) -> None:
    """Above a minute of waiting in all the service is not asked again; the wait that it asks for is told."""
    asked = Asked(refusing(99, retry_after=asks))
    book, warnings = asked.prices("m2")
    assert (book.rates, len(asked.queries)) == (None, requests)
    assert asked.times[-1] <= MAX_WAITS_S
    assert f"HTTP 429, and the service asks to wait {int(asks):,} s" in warnings[0]


def test_without_a_named_wait_it_is_asked_three_times() -> None:
    """After half a second and another one and a half."""
    asked = Asked(refusing(99))
    assert asked.prices("m2")[0].unread_catalog == "HTTP 429"
    assert asked.times == [0.0, 0.5, 2.0]


def test_pages_are_asked_for_over_a_real_connection() -> None:
    """The query stands in the request's first line as it is."""
    pages = [{"page": page, "page_size": 2, "total": 4, "data": rows(2 * page, 2 * page + 2)} for page in (0, 1)]
    first, second = (json.dumps(page).encode() for page in pages)

    async def main() -> tuple[PriceBook, list[str]]:
        async with serving(reply(first), chunked(second)) as (server, client):
            ((book, _),) = await find_books([("m3", PriceSettings())], client)
            return book, [head[0] for head in server.heads]

    book, lines = on_a_real_loop(main)
    assert book.rates is not None
    assert lines == ["GET /api/models HTTP/1.1", "GET /api/models?page=1&page_size=2 HTTP/1.1"]


@pytest.mark.parametrize("shape", ["pages", "pages-by-p", "busy"])
def test_a_run_knows_the_cost_of_a_model_on_the_last_page(bench: Workbench, shape: str) -> None:
    """Whatever the simulator's catalog asks of its reader, costs are those of its own ledger, and nothing is warned."""
    network = simulator(catalog=shape)
    summary = carry_out(bench.job(target={"model": "open-comets/comet-sim-8b"}), network)
    assert summary.cost_usd == Decimal(network.ledger["cost_usd"]) > 0
    assert summary.warnings == ()
