"""The library's promises, end to end on virtual time: a table in, a table out, whatever the service does."""

import json
import signal
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.money.exact import format_rounded
from cometbatch.results.columns import schema_of
from cometbatch.run_state.directory import RunDirectory
from cometbatch.simulator.awkward import READABLE
from cometbatch.simulator.behaviour import FAULT_KINDS
from cometbatch.simulator.catalog import CATALOG_SHAPES, SEARCH_FEE
from cometbatch.simulator.json_answers import JSON_FAULTS
from tests import virtual_time
from tests.workbench import (
    ANSWER_COLUMNS,
    FORMATS,
    KEY,
    KEY_ENV,
    SYSTEM,
    Network,
    Workbench,
    carry_out,
    files,
    simulator,
    started,
)

STOP_A_START = {"provider-key", "provider-credit"}  # before any answer they stop the run
TRANSIENT = tuple(kind.name for kind in FAULT_KINDS if kind.strikes == "attempt" and kind.name not in STOP_A_START)
# Billed by the server, and maybe never read.
LOSES_ANSWERS = {"reset", "slow-body", "long-tail", "cut-json", "cut-stream", "failed-200"}
MILLION = 1_000_000
SERVICE = "https://service.example"


def prompt(row: int) -> str:
    """The user message of a row of the workbench's table."""
    return f"Parcel {row:04d} says: note {row}, in two\nlines"


def credit_for(posts: int) -> Callable[[httpx.Request], httpx.Response | None]:
    """A balance that pays for this many requests."""
    left = posts

    def answer(request: httpx.Request) -> httpx.Response | None:
        nonlocal left
        left -= request.method == "POST"
        refusal = {"error": {"message": "user quota is not enough", "code": "insufficient_user_quota"}}
        return httpx.Response(403, json=refusal) if left < 0 else None

    return answer


def stopped_after(job: cometbatch.Job, answers: int) -> cometbatch.RunSummary:
    """What a run came to whose credit was spent after this many answers."""
    with pytest.raises(cometbatch.RunStoppedError) as caught:
        carry_out(job, Network(answer=credit_for(answers)))
    return caught.value.summary


def price(usage: dict[str, Any], per_input: str, per_output: str) -> Decimal:
    """US dollars for these token counts at these rates per million."""
    inputs, outputs = int(usage["input_tokens"]), int(usage["output_tokens"])
    return (inputs * Decimal(per_input) + outputs * Decimal(per_output)) / MILLION


# -- each row once, in order, with its own answer ----------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_stormy_run_ends_with_the_same_table_as_a_calm_one(bench: Workbench, name: str) -> None:
    """Resets, 5xx, "not now", cut and dripping bodies, time limits change no row, no answer and no cost."""
    bench.write_rows(300)
    settings: dict[str, Any] = {"target": {"format": name}, "output": {"partition_rows": 64}}
    carry_out(bench.job(**settings), Network())
    calm = bench.result()
    storm = simulator(*(f"{fault}:0.05" for fault in TRANSIENT))
    patient = bench.job(**settings, retry={"max_attempts": 20}, limits={"timeout_s": 150})
    summary = carry_out(patient, storm, fresh=True)
    stormy = bench.result()
    assert stormy.select(ANSWER_COLUMNS).equals(calm.select(ANSWER_COLUMNS))
    assert (summary.succeeded, summary.retries, summary.pushbacks) == (300, storm.posts - 300, summary.pushbacks)
    assert summary.retries > 100
    assert summary.pushbacks > 0
    not_now = {"409", "423", "424", "425", "429", "499"}
    assert set(storm.ledger["rejected"]) == not_now | {"500", "502", "503", "504", "524", "529"}


@pytest.mark.parametrize("name", FORMATS)
def test_each_row_gets_the_answer_to_its_own_prompt(bench: Workbench, name: str) -> None:
    """Rows come out in input order, each beside the answer and the token counts of its own prompt."""
    bench.write_rows(100)
    summary = carry_out(bench.job(target={"format": name}, limits={"concurrency": 7}), simulator("503:0.2"))
    rows = bench.result().to_pylist()
    assert [row["parcel"] for row in rows] == [f"{row:04d}" for row in range(100)]
    assert [row["custom_id"] for row in rows] == [row["parcel"] for row in rows]
    for number, row in enumerate(rows):
        assert f"“{' '.join(prompt(number).split())}”" in row["response"]
        assert row["input_tokens"] == -(-len(SYSTEM + prompt(number)) // 4)
        assert row["output_tokens"] == -(-len(row["response"]) // 4)
        assert (row["status"], row["finish_reason"], row["http_status"]) == ("succeeded", "stop", 200)
        assert (row["error_kind"], row["error_message"]) == (None, None)
    assert summary.tally.output_tokens == sum(row["output_tokens"] for row in rows)
    assert summary.tally.attempts == sum(row["attempts"] for row in rows) > 100


# What each fault that strikes a request for good makes of its row: status, error_kind, finish_reason, http_status.
ENDINGS = {
    "400": ("failed", "invalid_request", None, 400),
    "403-html": ("failed", "invalid_request", None, 403),
    "500-invalid-request": ("failed", "invalid_request", None, 500),
    "prompt-blocked": ("failed", "blocked", None, 400),
    "sensitive-words": ("failed", "blocked", None, 500),
    "html-200": ("failed", "invalid_response", None, 200),
    "unreadable": ("failed", "invalid_response", None, 200),
    "redirect": ("failed", "invalid_request", None, 301),
    "length": ("incomplete", None, "length", 200),
    "length-empty": ("incomplete", None, "length", 200),
    "empty": ("incomplete", None, "stop", 200),
    "content-filter": ("incomplete", None, "content_filter", 200),
    "refusal": ("incomplete", None, "refusal", 200),
    "tool-calls": ("incomplete", None, "tool_calls", 200),
    "empty-candidates": ("failed", "server_error", None, 500),
}
SPOKEN_OTHERWISE = {  # formats that have no word of their own for it, or a way of their own
    ("messages", "content-filter"): ("incomplete", None, "refusal", 200),
    ("gemini", "refusal"): ("incomplete", None, "content_filter", 200),
    ("gemini", "empty-candidates"): ("incomplete", None, "content_filter", 200),
}


@pytest.mark.parametrize("fault", ENDINGS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_fault_for_good_ends_as_it_says(bench: Workbench, name: str, fault: str) -> None:
    """A row that is struck ends as its fault says, billed or not; its neighbours are answered."""
    summary = carry_out(bench.job(target={"format": name}), simulator(f"{fault}:0.5"))
    ended = [
        (row["status"], row["error_kind"], row["finish_reason"], row["http_status"])
        for row in bench.result().to_pylist()
    ]
    expected = SPOKEN_OTHERWISE.get((name, fault), ENDINGS[fault])
    well = ("succeeded", None, "stop", 200)
    assert set(ended) == {expected, well}
    assert summary.succeeded == ended.count(well)
    struck = bench.result().filter(pc.not_equal(pc.field("status"), "succeeded"))
    assert None not in struck["error_message"].to_pylist()
    assert (struck["cost_usd"].null_count == len(struck)) == (expected[0] == "failed")


def test_every_fault_for_good_is_in_the_table() -> None:
    """A fault that the simulator learns must be specified here.

    These end well: see below, and in `test_budget`. What is said otherwise and read all the same: `test_replies`. What
    strikes answers of a schema alone: `structured.test_runs`.
    """
    elsewhere = {"no-usage", "zero-usage", "wrong-total", "cap-ignored", "days-429", *READABLE}
    elsewhere |= {*JSON_FAULTS, "deep_keywords"}
    assert {kind.name for kind in FAULT_KINDS if kind.strikes == "request"} == {*ENDINGS, *elsewhere}


@pytest.mark.parametrize("name", FORMATS)
def test_rows_that_are_asked_to_wait_for_days_are_left_and_sent_again_by_the_next_session(
    bench: Workbench, name: str
) -> None:
    """All others are answered first; the run says how long the wait is, and the same command asks for no other row."""
    bench.write_rows(40)
    job = bench.job(target={"format": name})
    with pytest.raises(cometbatch.RunStoppedError, match=r"the service asks to wait 6\.8 days") as stopped:
        carry_out(job, simulator("days-429:0.1"))
    summary = stopped.value.summary
    assert (stopped.value.exit_code, summary.failed) == (5, 0)
    assert 20 < summary.succeeded < 40
    network = Network()
    assert carry_out(job, network).succeeded == 40
    assert network.posts == 40 - summary.succeeded


def test_a_row_that_cannot_be_rendered_fails_alone(bench: Workbench) -> None:
    """Nothing is sent for it, and the run goes on."""
    network = Network()
    job = bench.job(prompt={"user": "{{ 12 // (parcel|int - 5) }}: {{ note }}"})
    summary = carry_out(job, network)
    failed = bench.result().to_pylist()[5]
    assert (failed["status"], failed["error_kind"], failed["attempts"]) == ("failed", "template", 0)
    assert (failed["latency_s"], failed["request_hash"], failed["http_status"]) == (None, None, None)
    assert (network.posts, summary.succeeded, summary.tally.failures) == (11, 11, {"template": 1})


# -- money -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("model", "per_input", "per_output"),
    [
        ("comet-sim-1", "0.5", "1.5"),
        ("comet-sim-1-mini", "0.1", "0.4"),
        ("comet-sim-reasoner", "2", "8"),
        ("comet-sim.2.5", "1.25", "10"),
        ("comet-sim-cache", "3", "15"),
        ("comet-sim-edge-20260317", "0.037", "0.15"),
        ("open-comets/comet-sim-8b", "0.02", "0.02"),
    ],
)
def test_the_bill_is_the_servers_own(bench: Workbench, name: str, model: str, per_input: str, per_output: str) -> None:
    """Where each request got its answer, the rows' costs add up to the server's tokens times its price, exactly."""
    harmless = [f"{fault}:0.05" for fault in TRANSIENT if fault not in LOSES_ANSWERS]
    job = bench.job(target={"format": name, "model": model}, retry={"max_attempts": 20}, params={"temperature": 0})
    network = simulator(*harmless)
    summary = carry_out(job, network)
    counted = network.ledger["models"][model]
    assert counted["answered"] == summary.succeeded + summary.incomplete == 12
    assert summary.cost_usd == sum(bench.result()["cost_usd"].to_pylist()) == Decimal(counted["cost_usd"])
    assert summary.cost_usd == price(counted, per_input, per_output) > 0
    assert (summary.tally.input_tokens, summary.tally.output_tokens) == (
        counted["input_tokens"],
        counted["output_tokens"],
    )


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("model", ["comet-sim-parts", "comet-sim-parts-beside", "comet-sim-parts-inside"])
def test_the_bill_is_the_servers_own_whatever_a_count_includes(bench: Workbench, name: str, model: str) -> None:
    """Cached, written (for five minutes and an hour), reasoning and tool-use tokens, told inside or beside.

    Each row's cost is exact, and the proof agrees.
    """
    bench.write_rows(40)
    params = {"max_output_tokens": 500}  # which no answer comes to by chance
    job = bench.job(target={"format": name, "model": model}, prices={"cache_read_multiplier": 0.1}, params=params)
    network = simulator()
    summary = carry_out(job, network)
    counted = network.ledger["models"][model]
    assert counted["answered"] == summary.succeeded + summary.incomplete == 40
    assert summary.cost_usd == sum(bench.result()["cost_usd"].to_pylist()) == Decimal(counted["cost_usd"])
    tally = summary.tally
    assert (tally.input_tokens, tally.output_tokens) == (counted["input_tokens"], counted["output_tokens"])
    assert tally.cache_read_input_tokens > 0
    assert (tally.cache_write_input_tokens > tally.cache_write_1h_input_tokens > 0) == (name != "gemini")
    assert (tally.reasoning_output_tokens > 0) == (name != "messages")
    assert summary.warnings == ()
    assert cometbatch.verify(job).ok


@pytest.mark.parametrize("name", FORMATS)
def test_what_no_price_covers_is_what_the_servers_bill_has_more(bench: Workbench, name: str) -> None:
    """A search in each answer: the rows' costs are the tokens' part, exactly, and never shown as the whole."""
    job = bench.job(target={"format": name, "model": "comet-sim-search"})
    network = simulator()
    summary = carry_out(job, network)
    assert summary.cost_usd == Decimal(network.ledger["cost_usd"]) - 12 * SEARCH_FEE
    assert set(bench.result()["cost_excludes"].to_pylist()) == {"web_search, service_tier=priority"}
    assert "cost: at least $" in summary.describe()
    assert cometbatch.verify(job).ok


@pytest.mark.parametrize("name", FORMATS)
def test_what_the_service_says_that_an_answer_cost_stands_beside_our_own_sum(bench: Workbench, name: str) -> None:
    """In the table, the summary, the status and the proof; where both agree there is nothing to warn of."""
    job = bench.job(target={"format": name, "model": "comet-sim.2.5"}, output={"partition_rows": 5})
    summary = carry_out(job, simulator())
    table = bench.result()
    assert table["reported_cost_usd"].to_pylist() == table["cost_usd"].to_pylist()
    told = summary.to_dict()["reported"]
    assert (told["answers"], told["cost_usd"], told["differing"]) == (12, summary.to_dict()["cost_usd"], 0)
    assert not any("reported" in warning for warning in summary.warnings)
    assert cometbatch.status(bench.output).to_dict()["reported"] == told
    assert cometbatch.verify(job).ok


def test_a_reported_cost_is_known_of_an_open_partition_too(bench: Workbench) -> None:
    """The status of a stopped run adds up what its journal holds, and warns of what differs already."""

    def dear(request: httpx.Request) -> httpx.Response:
        if b"Parcel 0007" in request.content:
            return httpx.Response(401, json={"error": {"message": "Invalid token", "code": "", "type": "x"}})
        said = {"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 4, "cost": 0.25}
        return httpx.Response(200, json={"id": "c", "model": "m", "choices": [said], "usage": usage})

    limits = {"concurrency": 1, "adaptive": False}
    job = bench.job(prices={"input": 1, "output": 2}, limits=limits, output={"partition_rows": 5})
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(job, Network(answer=dear))
    status = cometbatch.status(bench.output)
    told = status.to_dict()["reported"]
    assert (told["answers"], told["cost_usd"]) == (7, "1.75")
    assert (told["differing"], told["differing_cost_usd"], told["differing_priced_usd"]) == (7, "1.75", "0.000091")
    warning = "the service reported $1.75 for 7 answers; at this run's prices they cost $0.000091"
    assert warning in status.to_dict()["warnings"]


def test_a_price_per_request_needs_no_token_counts(bench: Workbench) -> None:
    """A model priced per request costs that much a row, whatever it says of tokens."""
    network = simulator("no-usage:0.5")
    summary = carry_out(bench.job(target={"model": "comet-sim-flat"}), network)
    assert set(bench.result()["cost_usd"].to_pylist()) == {Decimal("0.002")}
    assert summary.cost_usd == Decimal("0.024") == Decimal(network.ledger["cost_usd"])


def test_the_job_may_state_a_price_per_request(bench: Workbench) -> None:
    """It holds for billed rows alone, with or without token counts, and the catalog is not asked."""
    network = simulator("400:0.4", "no-usage:0.4", "length:0.4")
    summary = carry_out(bench.job(prices={"per_request": 0.25}), network)
    billed = summary.succeeded + summary.incomplete
    assert 0 < billed < 12
    assert (summary.cost_usd, summary.tally.unpriced) == (billed * Decimal("0.25"), 0)
    assert {request.method for request in network.requests} == {"POST"}


def test_prices_of_the_job_go_before_the_catalogs(bench: Workbench) -> None:
    """Prices given in the job are charged, and then the catalog is not even asked."""
    network = Network()
    summary = carry_out(bench.job(prices={"input": 7, "output": 11.5}), network)
    assert {request.method for request in network.requests} == {"POST"}
    assert summary.cost_usd == price(summary.to_dict()["usage"], "7", "11.5")
    assert summary.prices.source == "job file"


@pytest.mark.parametrize("fault", ["no-usage", "zero-usage", "wrong-total"])
def test_answers_without_token_counts_are_unpriced_not_free(bench: Workbench, fault: str) -> None:
    """A row whose usage is unknown has no cost, is counted as unpriced, and adds nothing to the sum."""
    summary = carry_out(bench.job(), simulator(f"{fault}:0.5"))
    rows = bench.result().to_pylist()
    unknown = [row for row in rows if row["input_tokens"] is None]
    assert 0 < len(unknown) < 12
    assert {row["cost_usd"] for row in unknown} == {None}
    assert summary.tally.unpriced == len(unknown)
    assert summary.cost_usd == sum(row["cost_usd"] for row in rows if row["cost_usd"] is not None)


def unreachable(request: httpx.Request) -> httpx.Response | None:
    """A service whose catalog can't be had."""
    if request.method == "GET":
        raise httpx.ConnectError("connection refused", request=request)
    return None


def catalog(status: int, content: bytes) -> Callable[[httpx.Request], httpx.Response | None]:
    """A service with this catalog."""
    return lambda request: httpx.Response(status, content=content) if request.method == "GET" else None


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(unreachable, id="unreachable"),
        pytest.param(catalog(500, b""), id="500"),
        pytest.param(catalog(404, b"<html>no</html>"), id="404"),
        pytest.param(catalog(200, b"<html>hello</html>"), id="html"),
        pytest.param(catalog(200, b""), id="empty body"),
        pytest.param(catalog(200, b'{"success": true, "data": [{"id": "comet-si'), id="cut off"),
        pytest.param(catalog(200, b'{"success": false, "message": "closed today"}'), id="refused"),
        pytest.param(catalog(200, b'{"success": true, "data": []}'), id="no models"),
        pytest.param(catalog(200, b'{"data": [{"id": "comet-sim-1", "pricing": null}]}'), id="no prices"),
        pytest.param(catalog(200, b'{"data": [{"id": "comet-sim-1", "pricing": {"input": -1}}]}'), id="odd price"),
    ],
)
def test_without_a_catalog_costs_are_unknown_not_zero(
    bench: Workbench, answer: Callable[[httpx.Request], httpx.Response | None]
) -> None:
    """A catalog that can't be had or read stops no run: costs are null, and a warning says so."""
    summary = carry_out(bench.job(), Network(answer=answer))
    assert summary.all_succeeded
    assert summary.cost_usd is None
    assert summary.to_dict()["cost_usd"] is None
    assert bench.result()["cost_usd"].null_count == summary.tally.unpriced == 12
    assert summary.warnings
    assert "cost: unknown" in summary.describe()


@pytest.mark.parametrize("shape", CATALOG_SHAPES)
@pytest.mark.parametrize(
    ("model", "is_priced"), [("comet-sim-1", True), ("comet-sim-unlisted", False), ("comet-sim-unpriced", False)]
)
def test_any_shape_of_the_catalog_gives_the_price_or_a_warning(
    bench: Workbench, shape: str, model: str, is_priced: bool
) -> None:
    """Every shape in which models are listed is read; a model without a price has null costs and a warning."""
    network = simulator(catalog=shape)
    summary = carry_out(bench.job(target={"model": model}), network)
    if is_priced:
        assert summary.cost_usd == Decimal(network.ledger["cost_usd"]) > 0
    else:
        assert (summary.cost_usd, bench.result()["cost_usd"].null_count) == (None, 12)
        assert any("no known price" in warning for warning in summary.warnings)
    assert any("302" in warning for warning in summary.warnings) == (shape == "short-page")


def test_prices_none_asks_nobody(bench: Workbench) -> None:
    """With `prices: none` the catalog is not asked, costs are unknown, and nobody is warned of what they chose."""
    network = Network()
    summary = carry_out(bench.job(prices="none"), network)
    assert {request.method for request in network.requests} == {"POST"}
    assert (summary.cost_usd, summary.tally.unpriced, summary.warnings) == (None, 12, ())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({"input": 1, "output": 2}, {"input": 100, "output": 200}, id="other prices"),
        pytest.param({"input": 1, "output": 2}, {"per_request": 3}, id="another basis"),
        pytest.param({"input": 1, "output": 2}, "none", id="none any more"),
    ],
)
def test_a_run_keeps_the_prices_that_it_began_with(
    bench: Workbench, before: dict[str, object], after: dict[str, object] | str
) -> None:
    """Prices that changed in the job between two sessions change no cost, and a warning says so."""
    stopped_after(bench.job(prices=before), 5)
    summary = carry_out(bench.job(prices=after), Network())
    assert summary.cost_usd == price(summary.to_dict()["usage"], "1", "2")
    for row in bench.result().to_pylist():
        assert row["cost_usd"] == price(row, "1", "2")
    assert any("prices changed" in warning for warning in summary.warnings)


def test_the_catalog_is_asked_once_in_a_run(bench: Workbench) -> None:
    """A second session prices by the first one's catalog, whatever the catalog says by then."""
    stopped_after(bench.job(), 5)
    dearer = catalog(200, b'{"data": [{"id": "comet-sim-1", "pricing": {"input": 900, "output": 900}}]}')
    network = Network(answer=dearer)
    summary = carry_out(bench.job(), network)
    assert {request.method for request in network.requests} == {"POST"}
    assert summary.cost_usd == price(summary.to_dict()["usage"], "0.5", "1.5")


# -- the result's shape ------------------------------------------------------------------------------------------------


def colourful_table() -> pa.Table:
    """Columns of every sort that a cell-by-cell copy would spoil, each with a null."""
    moments = [1_700_000_000_123_456, None, -1]
    columns = {
        "parcel": pa.array(["007", None, ""]),
        "note": pa.array(["a", "b", None], pa.large_string()),
        "count": pa.array([1, None, -3], pa.int8()),
        "big": pa.array([2**64 - 1, None, 0], pa.uint64()),
        "share": pa.array([0.1, float("inf"), None], pa.float32()),
        "money": pa.array([Decimal("1.10"), None, Decimal("-0.01")], pa.decimal128(12, 2)),
        "flag": pa.array([True, None, False]),
        "day": pa.array([0, None, -1], pa.date32()),
        "moment": pa.array(moments, pa.timestamp("us", tz="Europe/Berlin")),
        "local": pa.array(moments, pa.timestamp("us")),
        "fine": pa.array([1, None, 3], pa.timestamp("ns")),
        "clock": pa.array([1, None, 3], pa.time64("us")),
        "span": pa.array([1, None, 3], pa.duration("us")),
        "raw": pa.array([b"\x00\xff", None, b""], pa.binary()),
        "sort": pa.array(["x", None, "x"]).dictionary_encode(),
        "tags": pa.array([["a", None], None, []], pa.list_(pa.string())),
        "place": pa.array([{"x": 1, "y": [1, 2]}, None, {"x": None, "y": None}]),
        "pairs": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int32())),
        "nothing": pa.nulls(3),
    }
    table = pa.table(columns)
    described = table.schema.field("count").with_metadata({"unit": "parcels"})
    schema = table.schema.set(table.schema.get_field_index("count"), described)
    return table.cast(schema).replace_schema_metadata({"made by": "a test"})


@pytest.mark.parametrize(("dropped", "groups"), [((), 1), (("sort",), 3)], ids=["dictionary", "none"])
def test_a_part_is_cut_only_where_no_dictionary_would_be_in_each_piece(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, dropped: tuple[str, ...], groups: int
) -> None:
    """A hundred thousand categories were written again with every few answers: a result of ten times the size."""
    monkeypatch.setattr("cometbatch.run_state.open_partition.PIECE_BYTES", 1)
    given = colourful_table().drop_columns(list(dropped))
    bench.write_table(given)
    assert carry_out(bench.job(input={"id": "parcel"}), Network()).all_succeeded
    assert pq.read_metadata(bench.run_directory / "parts" / "00000.part").num_row_groups == groups
    assert bench.result().select(given.column_names).combine_chunks().equals(given.combine_chunks())
    assert cometbatch.verify(bench.output).ok


def test_a_long_text_of_a_dictionary_is_stored_once_in_a_part(bench: Workbench) -> None:
    """A part of 250 MB was written of a table of 132 kB, whose one text of 120 kB was a dictionary's."""
    shared = "".join(map(str, range(20_000)))  # longer than what compression looks back to
    texts = pa.array([shared] * 1500).dictionary_encode()
    bench.write_table(pa.table({"parcel": list(map(str, range(1500))), "text": texts}))
    job = bench.job(input={"id": "parcel"}, prompt={"user": "{{ parcel }}"}, output={"partition_rows": 1500})
    assert carry_out(job, Network()).all_succeeded
    assert (bench.run_directory / "parts" / "00000.part").stat().st_size < 10 * len(shared)


@pytest.mark.parametrize("partition_rows", [1, 2, 100])
def test_input_columns_come_out_as_they_were(bench: Workbench, partition_rows: int) -> None:
    """Types, nulls, dictionaries, nesting and the columns' own metadata survive, however the input was cut."""
    bench.write_table(colourful_table())
    job = bench.job(input={"id": "parcel"}, output={"partition_rows": partition_rows})
    assert carry_out(job, Network()).all_succeeded
    given, result = pq.read_table(bench.input), bench.result()
    kept = result.select(given.column_names)
    assert kept.schema.remove_metadata().equals(given.schema.remove_metadata())
    assert kept.combine_chunks().equals(given.combine_chunks())
    assert kept.schema.field("count").metadata[b"unit"] == b"parcels"
    assert result.schema.metadata[b"made by"] == b"a test"


def test_text_of_a_csv_stays_text(bench: Workbench) -> None:
    """Leading zeros, the word NULL, empty cells, quotes and line breaks come out as they went in."""
    cells = ["007", "NULL", "", 'say ""hi""', "two\r\nlines", "1e5", " x "]
    lines = [f'{row},"{cell}"\r\n' for row, cell in enumerate(cells)]
    bench.input.write_bytes(("parcel,note\r\n" + "".join(lines)).encode())
    carry_out(bench.job(), Network())
    assert bench.result()["note"].to_pylist() == [cell.replace('""', '"') for cell in cells]
    assert bench.result().schema.field("parcel").type == pa.string()


def test_the_output_columns_follow_the_inputs(bench: Workbench) -> None:
    """The result has the input's columns, then the output's in their documented order and types."""
    carry_out(bench.job(), Network())
    schema = bench.result().schema
    assert schema.names == ["parcel", "note", *schema_of().names]
    assert [field.type for field in schema][2:] == [field.type for field in schema_of()]
    assert schema.names[2:5] == ["custom_id", "status", "response"]


def test_a_prefix_names_the_output_columns(bench: Workbench) -> None:
    """`output.prefix` goes before each output column and before nothing else."""
    carry_out(bench.job(output={"prefix": "llm_"}), Network())
    assert bench.result().column_names == ["parcel", "note", *(f"llm_{name}" for name in schema_of().names)]
    status = cometbatch.status(bench.output)
    assert status.latency_s is not None
    assert status.latency_s["max"] >= status.latency_s["median"] > 0


def test_a_clash_of_names_is_refused_with_the_way_out(bench: Workbench) -> None:
    """An input column with an output column's name is refused before anything is sent; a prefix helps."""
    bench.input.write_text("parcel,note,status\n1,hello,sent\n", encoding="utf-8")
    network = Network()
    with pytest.raises(cometbatch.UsageError, match=r"status.*output\.prefix"):
        carry_out(bench.job(), network)
    assert (network.requests, bench.run_directory.exists()) == ([], False)
    carry_out(bench.job(output={"prefix": "llm_"}), network)
    (row,) = bench.result().to_pylist()
    assert (row["status"], row["llm_status"]) == ("sent", "succeeded")


def test_the_result_says_where_it_comes_from(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's metadata holds job, run, version and price book, and no key."""
    monkeypatch.setenv(KEY_ENV, KEY)
    summary = carry_out(bench.job(target={"base_url": SERVICE}), Network())
    found = pq.read_metadata(bench.output).metadata
    said = {key.decode(): value.decode() for key, value in found.items() if key.startswith(b"cometbatch.")}
    assert said["cometbatch.run_id"] == summary.run_id
    assert said["cometbatch.version"] == cometbatch.__version__
    assert json.loads(said["cometbatch.job"])["target"]["model"] == "comet-sim-1"
    assert json.loads(said["cometbatch.prices"])["rates"]["output"] == "1.5"
    assert "cometbatch.created_at" in said
    assert KEY.encode() not in bench.output.read_bytes() + b"".join(found.values())


def test_the_parts_of_a_data_set_are_the_result(bench: Workbench) -> None:
    """An output path with a slash at its end is a folder of parts that read as one table, the same as one file's."""
    bench.write_rows(50)
    carry_out(bench.job(output={"partition_rows": 16}), Network())
    whole = bench.result().select([*ANSWER_COLUMNS, "parcel", "note"])
    folder = bench.folder / "answers"
    summary = carry_out(bench.job(output={"path": f"{folder}/", "partition_rows": 16}), Network())
    assert summary.finished
    assert [path.name for path in sorted(folder.iterdir())] == [f"{part:05d}.parquet" for part in range(4)]
    assert ds.dataset(folder).to_table().select(whole.column_names).equals(whole)
    assert pl.read_parquet(folder / "*.parquet")["response"].to_list() == whole["response"].to_pylist()
    assert cometbatch.status(folder).summary.finished


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_no_rows_give_an_empty_result(bench: Workbench, kind: str) -> None:
    """A table without rows ends at once with an empty table of the right columns, and nothing sent."""
    if kind == "csv":
        bench.write_rows(0)
    else:
        bench.write_table(colourful_table().slice(0, 0))
    network = Network()
    summary = carry_out(bench.job(), network)
    assert (summary.all_succeeded, summary.rows, network.posts) == (True, 0, 0)
    assert bench.result().num_rows == 0
    assert bench.result().column_names[-len(schema_of().names) :] == schema_of().names


# -- carrying on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["out.parquet", "answers/"])
def test_a_further_run_sends_and_changes_nothing(bench: Workbench, output: str) -> None:
    """Running a finished job again sends no request and leaves every file's bytes and time as they were."""
    job = bench.job(output={"path": str(bench.folder) + "/" + output, "partition_rows": 5})
    first = carry_out(job, Network())
    before, network = files(bench.folder), Network()
    again = carry_out(job, network)
    assert network.requests == []
    assert files(bench.folder) == before
    assert (first.had_work, again.had_work) == (True, False)
    assert (again.tally, again.cost_usd, again.run_id) == (first.tally, first.cost_usd, first.run_id)
    assert "nothing was sent" in again.describe()


@pytest.mark.parametrize("partition_rows", [1, 7, 1000])
@pytest.mark.parametrize("name", FORMATS)
def test_credit_spent_in_the_middle_loses_nothing(bench: Workbench, name: str, partition_rows: int) -> None:
    """The run stops, says why, keeps every answer, and after a top-up sends just the rows that have none."""
    bench.write_rows(60)
    job = bench.job(target={"format": name}, limits={"concurrency": 4}, output={"partition_rows": partition_rows})
    poor = simulator(credit_usd=Decimal("0.0009"))
    with pytest.raises(cometbatch.RunStoppedError, match="quota is not enough") as caught:
        carry_out(job, poor)
    stopped = caught.value
    assert stopped.exit_code == 5
    assert "Top up" in str(stopped)
    done = stopped.summary.tally.calls
    assert 10 < done < 50
    assert done == poor.ledger["answered"]
    assert (stopped.summary.finished, stopped.summary.to_dict()["remaining"], bench.output.exists()) == (
        False,
        60 - done,
        False,
    )
    rich = Network()
    summary = carry_out(job, rich)
    assert rich.posts == 60 - done
    assert (summary.all_succeeded, summary.resent) == (True, 0)
    assert bench.result()["parcel"].to_pylist() == [f"{row:04d}" for row in range(60)]
    assert summary.cost_usd == Decimal(poor.ledger["cost_usd"]) + Decimal(rich.ledger["cost_usd"])


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("bad-key", "target.key_env"),
        ("credit", "Top up"),
        ("key-quota", "quota"),
        ("model-not-found", "target.model"),
        ("not-priced", "target.model"),
    ],
)
@pytest.mark.parametrize("name", FORMATS)
def test_a_refused_job_stops_at_once(bench: Workbench, name: str, fault: str, words: str) -> None:
    """What every row would meet stops the run after the requests in flight, with nothing recorded and the way out."""
    bench.write_rows(100)
    network = simulator(f"{fault}:1")
    with pytest.raises(cometbatch.RunStoppedError) as caught:
        carry_out(bench.job(target={"format": name}, limits={"concurrency": 6}), network)
    assert caught.value.exit_code == 5
    assert 1 <= network.posts <= 6
    assert caught.value.summary.tally.calls == 0
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("no-such-model", "no available channel"),
        ("comet-sim-2-5", "has not been priced"),
        ("comet-sim-3", "no available"),
    ],
)
def test_a_model_that_cannot_be_called_stops_the_run(bench: Workbench, model: str, words: str) -> None:
    """An unknown id, a catalog code and an upcoming model stop the run instead of failing every row."""
    with pytest.raises(cometbatch.RunStoppedError, match=words) as caught:
        carry_out(bench.job(target={"model": model}), Network())
    assert caught.value.exit_code == 5
    assert any(model in warning for warning in caught.value.summary.warnings)


@pytest.mark.parametrize("rows", [3, 100])
@pytest.mark.parametrize("fault", ["html-200", "redirect"])
def test_pages_everywhere_are_a_wrong_address(bench: Workbench, fault: str, rows: int) -> None:
    """Where nothing but pages comes back the run stops, records nothing, and can be resumed."""
    bench.write_rows(rows)
    job = bench.job(limits={"concurrency": 5})
    network = simulator(f"{fault}:1")
    with pytest.raises(cometbatch.RunStoppedError, match=r"target\.base_url") as caught:
        carry_out(job, network)
    assert (caught.value.exit_code, caught.value.summary.tally.calls) == (5, 0)
    assert network.posts <= 3 * 5
    assert carry_out(job, Network()).succeeded == rows


def test_a_last_odd_row_does_not_stop_a_run_for_ever(bench: Workbench) -> None:
    """Once an earlier session had answers, a page instead of one is that row's own failure."""
    bench.write_rows(3)
    stopped_after(bench.job(limits={"concurrency": 1}), 2)
    summary = carry_out(bench.job(), simulator("html-200:1"))
    assert (summary.finished, summary.succeeded, summary.tally.failures) == (True, 2, {"invalid_response": 1})


CHANGES: dict[str, dict[str, Any]] = {
    "prompt.messages[0].content": {"prompt": {"system": "Be long."}},
    "prompt.messages[1].content": {"prompt": {"user": "Another: {{ note }}"}},
    "target.model": {"target": {"model": "comet-sim-1-mini"}},
    "target.format": {"target": {"format": "gemini"}},
    "params.temperature": {"params": {"temperature": 0.5}},
    "params.max_output_tokens": {"params": {"max_output_tokens": 65}},
    "params.stop": {"params": {"stop": "x"}},
    "params.extra": {"params": {"extra": {"user": "me"}}},
    "input.id": {"input": {"id": "note"}},
    "input.encoding": {"input": {"encoding": "latin-1"}},
    "output.prefix": {"output": {"prefix": "x_"}},
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_job_is_refused_once_rows_are_recorded(bench: Workbench, field: str) -> None:
    """Answers of two jobs are never mixed: the change is refused by name, nothing is sent and nothing touched."""
    stopped_after(bench.job(), 5)
    before, network = files(bench.folder), Network()
    with pytest.raises(cometbatch.DriftError) as caught:
        carry_out(bench.job(**CHANGES[field]), network)
    changed = [line.split(":")[0].strip() for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert changed == [field]
    assert "--fresh" in str(caught.value)
    assert (network.requests, files(bench.folder), caught.value.exit_code) == ([], before, 2)
    assert carry_out(bench.job(), Network()).all_succeeded


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_job_is_taken_while_nothing_is_recorded(bench: Workbench, field: str) -> None:
    """A first try that the service refused binds nobody: the mended job simply runs, by what it says now."""
    assert stopped_after(bench.job(), 0).tally.calls == 0
    summary = carry_out(bench.job(**CHANGES[field]), Network())
    assert summary.all_succeeded
    prefix = "x_" if field == "output.prefix" else ""
    assert f"{prefix}response" in bench.result().column_names


def test_a_changed_input_is_refused_once_rows_are_recorded(bench: Workbench) -> None:
    """Even one byte at the same length is noticed; with the old input the run is resumed."""
    job = bench.job()
    stopped_after(job, 5)
    content = bench.input.read_bytes()
    bench.input.write_bytes(content.replace(b"note 11", b"nose 11"))
    with pytest.raises(cometbatch.DriftError, match="input: was"):
        carry_out(job, Network())
    bench.input.write_bytes(content)
    assert carry_out(job, Network()).all_succeeded


SPEED: dict[str, dict[str, object]] = {
    "limits": {"concurrency": 2, "requests_per_minute": 600, "tokens_per_minute": 100_000, "timeout_s": 20},
    "retry": {"max_attempts": 2, "max_wait_s": 1, "max_pushback_s": 5},
}


@pytest.mark.parametrize("section", SPEED)
def test_speed_may_change_between_sessions(bench: Workbench, section: str) -> None:
    """Limits and retries are no part of what a run is."""
    stopped_after(bench.job(), 5)
    assert carry_out(bench.job(**{section: SPEED[section]}), Network()).all_succeeded


def test_partition_size_stays_what_it_was(bench: Workbench) -> None:
    """A run that goes on keeps the partitions that it began with, whatever the job says by then."""
    stopped_after(bench.job(output={"partition_rows": 3}), 5)
    assert carry_out(bench.job(output={"partition_rows": 4}), Network()).all_succeeded
    assert bench.result()["parcel"].to_pylist() == [f"{row:04d}" for row in range(12)]
    assert cometbatch.status(bench.output).partitions == 4


@pytest.mark.parametrize("is_finished", [True, False])
def test_fresh_starts_over(bench: Workbench, is_finished: bool) -> None:
    """`fresh` forgets the earlier run, finished or not, and answers every row anew."""
    earlier = carry_out(bench.job(), Network()) if is_finished else stopped_after(bench.job(), 5)
    network = Network()
    summary = carry_out(bench.job(prompt={"system": "Be long."}), network, fresh=True)
    assert (summary.all_succeeded, network.posts) == (True, 12)
    assert summary.run_id != earlier.run_id
    assert pq.read_metadata(bench.output).metadata[b"cometbatch.run_id"].decode() == summary.run_id


@pytest.mark.parametrize("output", ["out.parquet", "answers/"])
def test_a_result_that_is_not_this_runs_is_left_alone(bench: Workbench, output: str) -> None:
    """An output that exists without its run directory is refused before anything is sent; `fresh` replaces a file."""
    path = bench.folder / output
    stranger = path / "stranger.parquet" if output.endswith("/") else path
    stranger.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"x": [1]}), stranger)
    before, network = files(bench.folder), Network()
    job = bench.job(output={"path": f"{bench.folder}/{output}"})
    with pytest.raises(cometbatch.UsageError, match=r"exists.*--fresh"):
        carry_out(job, network)
    assert (network.requests, files(bench.folder)) == ([], before)
    if not output.endswith("/"):
        assert carry_out(job, network, fresh=True).all_succeeded


def test_a_result_that_was_moved_away_is_published_again(bench: Workbench) -> None:
    """The parts are still there, so the result is made anew from them and nothing is sent."""
    carry_out(bench.job(), Network())
    before = bench.result()
    bench.output.unlink()
    network = Network()
    assert carry_out(bench.job(), network).finished
    assert network.requests == []
    assert bench.result().equals(before)


# -- before the first request ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "  ", "two words", "sk-ümläut-0123456"])
def test_a_missing_or_broken_key_is_told_before_anything_is_made(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    """The message names the variable or says what is wrong; no file is made and the key is not quoted."""
    if key is not None:
        monkeypatch.setenv(KEY_ENV, key)
    before = files(bench.folder)
    with pytest.raises(cometbatch.UsageError, match=KEY_ENV if key is None else "API key") as caught:
        cometbatch.run(bench.job(target={"base_url": SERVICE}))
    assert files(bench.folder) == before
    assert not bench.run_directory.exists()
    assert key is None or not key.strip() or key not in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        pytest.param({"prompt": {"user": "{{ nowhere }}"}}, "nowhere", id="column of the prompt"),
        pytest.param({"input": {"id": "nowhere"}}, "nowhere", id="column of the id"),
        pytest.param({"input": {"path": "/nowhere/in.csv"}}, "/nowhere/in.csv", id="input"),
        pytest.param({"output": {"path": "in.csv/out.parquet"}}, "output.path", id="folder of the output"),
    ],
)
def test_what_is_wrong_with_a_job_is_told_before_anything_is_sent(
    bench: Workbench, sections: dict[str, Any], words: str
) -> None:
    """A job that does not fit its table or its disk sends nothing and makes nothing."""
    network, before = Network(), files(bench.folder)
    with pytest.raises(cometbatch.UsageError, match=words):
        carry_out(cometbatch.load_job(bench.settings(**sections), base_dir=bench.folder), network)
    assert (network.requests, files(bench.folder)) == ([], before)


def test_a_broken_row_at_the_end_of_the_input_is_told_before_anything_is_sent(bench: Workbench) -> None:
    """The input is read whole before the first request, and the message names the line."""
    with bench.input.open("ab") as file:
        file.write(b"1,2,3\n")
    network = Network()
    with pytest.raises(cometbatch.InputError, match=r"in\.csv, line 26"):
        carry_out(bench.job(), network)
    assert (network.requests, bench.run_directory.exists()) == ([], False)


def test_a_run_that_another_process_has_is_left_alone(bench: Workbench) -> None:
    """One writer at a time: the second is told so, sends nothing and changes nothing."""
    stopped_after(bench.job(), 5)
    network = Network()
    with RunDirectory(bench.run_directory).locked():
        before = files(bench.folder)
        with pytest.raises(cometbatch.RunLockedError) as caught:
            carry_out(bench.job(), network)
        assert (network.requests, files(bench.folder), caught.value.exit_code) == ([], before, 6)
        assert cometbatch.status(bench.output).running
    assert carry_out(bench.job(), network).all_succeeded


def test_the_callers_signal_handlers_come_back(bench: Workbench) -> None:
    """Ctrl-C and SIGTERM are the run's while rows are sent, and the caller's again afterwards."""
    during: list[object] = []

    def answer(_request: httpx.Request) -> None:
        during.append(signal.getsignal(signal.SIGTERM))

    async def program() -> list[object]:
        before: list[object] = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        await started(bench.job(prices="none"), Network(answer=answer))
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        return before

    _, before = virtual_time.run(program())
    assert before not in during


# -- plan --------------------------------------------------------------------------------------------------------------


def test_a_plan_sends_no_prompt_and_writes_no_file(bench: Workbench) -> None:
    """Only prices are asked for."""
    network, before = Network(), files(bench.folder)
    plan = cometbatch.plan(bench.job(), http=network)
    assert [(request.method, request.url.path) for request in network.requests] == [("GET", "/api/models")]
    assert files(bench.folder) == before
    assert (plan.rows, plan.done, plan.unrenderable) == (12, 0, 0)


@pytest.mark.parametrize("name", FORMATS)
def test_a_plan_shows_the_first_request_without_the_key(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is the request that a run sends first, but for what only the transport adds."""
    monkeypatch.setenv(KEY_ENV, KEY)
    job = bench.job(target={"base_url": SERVICE, "format": name}, limits={"concurrency": 1}, prices="none")
    plan = cometbatch.plan(job, http=Network())
    network = Network()
    carry_out(job, network)
    shown, sent = plan.first_request, network.requests[0]
    assert shown is not None
    assert shown["url"] == str(sent.url)
    assert shown["body"] == json.loads(sent.content)
    assert all(sent.headers[name] == value for name, value in shown["headers"].items())
    assert "authorization" not in shown["headers"]
    assert KEY not in plan.describe() + json.dumps(plan.to_dict()) + repr(plan)


def test_a_plan_refuses_an_output_that_a_run_could_not_write(bench: Workbench, tmp_path: Path) -> None:
    """It would be noticed at the start of the run, at night."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    job = bench.job(output={"path": str(tmp_path / "file" / "out.parquet")})
    with pytest.raises(cometbatch.UsageError, match=r"output\.path: can't write to .*file"):
        cometbatch.plan(job, http=simulator())


def test_a_plan_estimates_as_the_sheet_says(bench: Workbench) -> None:
    """A quarter of the characters, rounded up, and the whole cap, at list price (contract sheet, section 8.3)."""
    plan = cometbatch.plan(bench.job(), http=simulator(catalog="ratio"))
    tokens = sum(-(-len(SYSTEM + prompt(row)) // 4) for row in range(12))
    assert (plan.input_tokens, plan.output_tokens) == (tokens, 12 * 64)
    assert plan.cost_usd == (tokens * Decimal("0.5") + 12 * 64 * Decimal("1.5")) / MILLION
    assert plan.likely_cost_usd == plan.cost_usd * Decimal("0.8")
    assert f"cost: at most about {format_rounded(plan.cost_usd, up=True)}, likely " in plan.describe()


def test_a_plans_ceiling_holds(bench: Workbench) -> None:
    """What the simulator then charges, which counts tokens by the same rule, stays below."""
    job = bench.job(target={"model": "comet-sim-reasoner"})
    plan = cometbatch.plan(job, http=Network())
    cost = carry_out(job, Network()).cost_usd
    assert cost is not None
    assert plan.cost_usd is not None
    assert 0 < cost <= plan.cost_usd


def test_a_plan_counts_the_rows_that_cannot_be_rendered(bench: Workbench) -> None:
    """They are counted, the first is shown with its reason, and they are no part of the estimate."""
    job = bench.job(prompt={"user": "{{ 12 // (parcel|int % 4) }}"})
    plan = cometbatch.plan(job, http=Network())
    assert plan.unrenderable == 3
    assert (plan.first_problem or "").startswith("row 0: ")
    assert "ZeroDivisionError" in plan.describe()
    assert plan.output_tokens == 9 * 64
    assert carry_out(job, Network()).tally.failures == {"template": 3}


def test_a_plan_of_a_run_half_done_tells_what_remains(bench: Workbench) -> None:
    """It shows the rows done, keeps the run's prices, and refuses what the run would refuse."""
    stopped_after(bench.job(), 5)
    network = Network(answer=unreachable)
    plan = cometbatch.plan(bench.job(), http=network)
    assert (plan.done, plan.prices.source, network.requests) == (5, "catalog", [])
    with pytest.raises(cometbatch.DriftError):
        cometbatch.plan(bench.job(prompt={"system": "Be long."}), http=network)


def test_a_plan_without_prices_says_unknown(bench: Workbench) -> None:
    """No catalog is no price, and no price is not free."""
    plan = cometbatch.plan(bench.job(), http=Network(answer=unreachable))
    assert (plan.cost_usd, plan.to_dict()["estimated_cost_usd"]) == (None, None)
    assert "unknown" in plan.describe()
    assert plan.warnings


def test_a_plan_can_be_had_in_a_notebook(bench: Workbench) -> None:
    """Where an event loop is running, too."""

    async def notebook() -> cometbatch.RunPlan:
        return cometbatch.plan(bench.job(), http=Network())

    assert virtual_time.run(notebook()).rows == 12


# -- status ------------------------------------------------------------------------------------------------------------


def test_status_without_a_run_says_so(bench: Workbench) -> None:
    """There is nothing to tell before a run begins, and asking makes nothing."""
    with pytest.raises(cometbatch.UsageError, match="no run"):
        cometbatch.status(bench.output)
    assert not bench.run_directory.exists()


def test_status_of_a_run_half_done(bench: Workbench) -> None:
    """It tells what is recorded, in parts and journals, and is the same asked by output or by run directory."""
    job = bench.job(output={"partition_rows": 4}, limits={"concurrency": 1})
    stopped = stopped_after(job, 6)
    before = files(bench.folder)
    status = cometbatch.status(bench.output)
    assert (status.summary.tally, status.summary.finished, status.running) == (stopped.tally, False, False)
    assert (status.committed, status.partitions, status.summary.to_dict()["remaining"]) == (1, 3, 6)
    other = cometbatch.status(bench.run_directory)
    assert (other.to_dict(), other.describe()) == (status.to_dict(), status.describe())
    assert files(bench.folder) == before


def test_status_while_the_run_goes_on(bench: Workbench) -> None:
    """It reads along without disturbing, and what it tells never goes back."""
    seen: list[cometbatch.RunStatus] = []

    def answer(request: httpx.Request) -> None:
        if request.method == "POST":
            seen.append(cometbatch.status(bench.output))

    summary = carry_out(bench.job(output={"partition_rows": 4}), Network(answer=answer))
    assert all(status.running and not status.summary.finished for status in seen)
    rows = [status.summary.tally.calls for status in seen]
    assert rows == sorted(rows)
    after = cometbatch.status(bench.output)
    assert (after.running, after.summary.finished, after.committed) == (False, True, 3)
    assert (after.summary.tally, after.summary.cost_usd) == (summary.tally, summary.cost_usd)
    assert after.latency_s is not None
    assert "finished" in after.describe()
