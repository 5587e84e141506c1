import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import Usage
from cometbatch.simulator.catalog import (
    CATALOG_SHAPES,
    MODEL_BY_ID,
    MODELS,
    SHORT_PAGE_ROWS,
    callable_model,
    catalog_page,
    cost,
    is_code_only,
    model_list,
    model_page,
)
from tests.simulator.client import Client

LISTED = [model for model in MODELS if model.listed]
COUNTS = st.none() | st.integers(0, 10**9)


def page(shape: str) -> Any:
    """The body of `GET /api/models` in that shape, with exact prices."""
    return json.loads(catalog_page(shape), parse_float=Decimal)


@pytest.mark.parametrize("shape", CATALOG_SHAPES)
def test_every_shape_has_the_documented_fields(shape: str) -> None:
    """Section 8.1: envelope and record fields are there in every shape, and prices digit for digit."""
    body = page(shape)
    assert body.keys() == {"success", "page", "page_size", "total", "data"}
    for row in body["data"]:
        assert {"id", "code", "name", "provider", "model_type", "features", "endpoints", "pricing"} <= row.keys()
        assert row["pricing"]["input"] == MODEL_BY_ID[row["id"]].input
        assert row["pricing"]["per_request"] == MODEL_BY_ID[row["id"]].per_request


def test_item_11_the_full_list_is_page_0_of_0() -> None:
    """One shape lists everything without paging, as documented."""
    body = page("full")
    assert (body["page"], body["page_size"], body["total"]) == (0, 0, len(LISTED))
    assert [row["id"] for row in body["data"]] == [model.id for model in LISTED]


def test_item_11_a_short_page_has_fewer_rows_than_it_counts() -> None:
    """The other published shape is 1/20/302, with less than that on the page."""
    body = page("short-page")
    assert (body["page"], body["page_size"], body["total"]) == (1, 20, 302)
    assert len(body["data"]) == SHORT_PAGE_ROWS < len(LISTED)


@pytest.mark.parametrize("shape", CATALOG_SHAPES)
def test_item_11_only_one_shape_tells_the_ratio(shape: str) -> None:
    """`pricing.ratio` is there in all rows or in none."""
    ratios = {row["pricing"].get("ratio") for row in page(shape)["data"]}
    assert ratios == ({Decimal("0.8"), Decimal(1)} if shape == "ratio" else {None})


@pytest.mark.parametrize(
    ("shape", "layers"), [("full", 1), ("endpoints-double", 2), ("endpoints-object", 0), ("endpoints-null", None)]
)
def test_item_11_endpoints_come_in_four_disguises(shape: str, layers: int | None) -> None:
    """`endpoints` is a JSON string, twice encoded, a plain object, or null."""
    row = page(shape)["data"][0]
    endpoints = row["endpoints"]
    if layers is None:
        assert endpoints is None
        return
    for _ in range(layers):
        assert isinstance(endpoints, str)
        endpoints = json.loads(endpoints)
    assert endpoints["openai-chat"] == {"path": "/v1/chat/completions", "method": "POST"}
    assert len(endpoints) == 4


def test_item_11_awkward_models_are_on_the_list() -> None:
    """An upcoming model, a text model priced per request, one without any price, and ids unlike their codes."""
    rows = {row["id"]: row for row in page("full")["data"]}
    assert [name for name, row in rows.items() if row["upcoming"]] == ["comet-sim-3"]
    assert rows["comet-sim-flat"]["model_type"] == "text"
    assert rows["comet-sim-flat"]["pricing"] == {
        "currency": "USD / M Tokens",
        "input": None,
        "output": None,
        "per_request": Decimal("0.002"),
        "per_second": None,
    }
    unpriced = rows["comet-sim-unpriced"]["pricing"]
    assert [unpriced[basis] for basis in ("input", "output", "per_request", "per_second")] == [None] * 4
    assert rows["comet-sim.2.5"]["code"] == "comet-sim-2-5"
    assert rows["comet-sim-image"]["features"] is None


def test_a_key_can_call_what_the_catalog_lacks_and_not_what_is_upcoming() -> None:
    """Section 8.1: a catalog row is no proof, and callable models may be missing from it."""
    callable_ids = {row["id"] for row in json.loads(model_list())["data"]}
    listed_ids = {row["id"] for row in page("full")["data"]}
    assert callable_ids - listed_ids == {"comet-sim-unlisted"}
    assert listed_ids - callable_ids == {"comet-sim-3"}
    assert {model.id for model in MODELS if callable_model(model.id)} == callable_ids


def test_a_code_is_for_the_detail_page_alone() -> None:
    """A code that is nobody's id can't be called, and finds the model's page."""
    assert is_code_only("comet-sim-2-5")
    assert callable_model("comet-sim-2-5") is None
    assert not is_code_only("comet-sim-1")
    body = model_page("comet-sim-2-5")
    assert body is not None
    assert json.loads(body)["data"]["id"] == "comet-sim.2.5"
    assert model_page("comet-sim.2.5") is None
    assert model_page("comet-sim-unlisted") is None


def test_cost_is_at_list_price() -> None:
    """Worked by hand: 1,000 in and 200 out at 0.5 and 1.5 USD per million is 0.0008 USD."""
    assert cost(MODEL_BY_ID["comet-sim-1"], Usage(1000, 200, 400)) == Decimal("0.0008")
    assert cost(MODEL_BY_ID["comet-sim-flat"], Usage()) == Decimal("0.002")
    assert cost(MODEL_BY_ID["comet-sim-unpriced"], Usage(1000, 200)) is None
    assert cost(MODEL_BY_ID["comet-sim-video"], Usage(1000, 200)) is None


def test_cache_writes_cost_a_quarter_more() -> None:
    """Worked by hand: 800 plain and 200 written of 1,000 in count as 1,050, at 3 USD per million."""
    assert cost(MODEL_BY_ID["comet-sim-cache"], Usage(1000, 0, 0, 200)) == Decimal("0.00315")


@settings(max_examples=60, deadline=None)
@given(one=st.tuples(COUNTS, COUNTS), two=st.tuples(COUNTS, COUNTS))
def test_costs_add_up_exactly(one: tuple[int | None, int | None], two: tuple[int | None, int | None]) -> None:
    """Two answers cost what one of both sizes together would."""
    model = MODEL_BY_ID["comet-sim-edge-20260317"]
    total = Usage((one[0] or 0) + (two[0] or 0), (one[1] or 0) + (two[1] or 0))
    apart = (cost(model, Usage(*one)) or 0) + (cost(model, Usage(*two)) or 0)
    assert apart == cost(model, total)


@pytest.mark.parametrize(("shape", "name"), [("pages", "page"), ("pages-by-p", "p")])
def test_pages_together_are_the_whole_list(shape: str, name: str) -> None:
    """Section 13: by one name of the page's number, and by the other it is always the first page."""
    other = {"page": "p", "p": "page"}[name]
    pages = [json.loads(catalog_page(shape, query={name: f"{number}"})) for number in range(1, 5)]
    assert [row["id"] for page in pages for row in page["data"]] == [model.id for model in LISTED]
    assert {page["total"] for page in pages} == {len(LISTED)}
    for asked in ({}, {other: "2"}, {name: "0"}, {name: "two"}, {name: ""}):
        assert json.loads(catalog_page(shape, query=asked)) == pages[0]


def test_a_busy_catalog_names_its_wait_and_keeps_to_it() -> None:
    """Section 13: who asks again too soon is refused again."""
    client = Client(catalog="busy")
    for wait_s in (0.5, 0.4, 0.2):
        refused = client.send("GET", "/api/models")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        client.time.seconds += wait_s
    assert client.send("GET", "/api/models").json()["total"] == len(LISTED)
