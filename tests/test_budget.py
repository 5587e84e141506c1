"""A budget is never passed, whatever the service does with what is in flight, and a run that met it can be resumed."""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cometbatch
from cometbatch.control.bounds import remote_parts, unbounded
from cometbatch.control.budget import Budget, CostBounds
from cometbatch.money.exact import format_rounded
from cometbatch.records import Answered, HttpResponse, Rates, Tally, Usage
from cometbatch.results.summary import BudgetReachedError
from cometbatch.results.tallies import tally
from cometbatch.runner.ports import Stop
from tests import virtual_time
from tests.scripted_run import RowsInMemory, ScriptedService, always, answer, make_runner, row_request
from tests.workbench import Network, Workbench, carry_out, simulator

ROWS = 60
WASTE = ("reset:0.1", "cut-json:0.1", "504:0.05", "503:0.1")
SMALL, LARGE = st.integers(0, 10**9), st.integers(0, 10**31)  # sums of large ones have more than the usual 28 digits
amounts = (SMALL | LARGE).map(lambda units: Decimal((0, tuple(map(int, str(units))), -18)))


@given(cap=amounts, spent=amounts, bills=st.lists(st.tuples(amounts, amounts), max_size=50), late=st.randoms())
def test_spent_and_reserved_never_pass_the_cap(
    cap: Decimal, spent: Decimal, bills: list[tuple[Decimal, Decimal]], late: Any
) -> None:
    """As long as no bill is higher than its reservation, in whatever order they are settled; to the last digit."""
    budget, booked, open_bills = Budget(cap, spent), Fraction(spent), []
    for pair in bills:
        reserved = max(pair)
        if budget.reserve(reserved):
            open_bills.append((reserved, min(pair)))
        if open_bills and late.random() < 0.5:
            reservation, actual = open_bills.pop(late.randrange(len(open_bills)))
            budget.settle(reservation, actual)
            booked += Fraction(actual)
        set_aside = sum(Fraction(reservation) for reservation, _ in open_bills)
        assert booked + set_aside <= max(cap, spent)
        assert Fraction(budget.left) == Fraction(cap) - booked - set_aside


def budgeted(bench: Workbench, cap: Decimal, **more: Any) -> cometbatch.Job:
    """A job that may cost this much."""
    return bench.job(budget={"max_cost_usd": float(cap)}, params={"max_output_tokens": 64}, **more)


def whole_cost(bench: Workbench) -> Decimal:
    """What the table comes to without a budget."""
    summary = carry_out(bench.job(), simulator())
    assert summary.cost_usd is not None
    for path in sorted(bench.run_directory.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    bench.run_directory.rmdir()
    bench.output.unlink()
    return summary.cost_usd


@pytest.mark.parametrize("faults", [(), WASTE], ids=["healthy", "wasteful"])
def test_a_run_stops_before_its_budget_is_passed_and_carries_on_with_a_higher_one(
    bench: Workbench, faults: tuple[str, ...]
) -> None:
    """By the server's own count, answers that were lost on the way included; every row ends up answered once."""
    bench.write_rows(ROWS)
    cap = whole_cost(bench) / 2
    network = simulator(*faults, seed=4)
    with pytest.raises(BudgetReachedError) as stopped:
        carry_out(budgeted(bench, cap), network)
    assert stopped.value.exit_code == 4
    assert "budget" in str(stopped.value)
    assert not re.search(r"\.[0-9]{8}", str(stopped.value))  # amounts are rounded, and have few decimals
    assert 0 < stopped.value.summary.succeeded < ROWS
    assert Decimal(network.ledger["cost_usd"]) <= cap

    summary = carry_out(budgeted(bench, cap * 20), network)
    assert summary.succeeded == ROWS
    assert bench.result()["custom_id"].to_pylist() == [f"{row:04d}" for row in range(ROWS)]
    assert Decimal(network.ledger["cost_usd"]) <= summary.tally.cost_usd + summary.tally.charges_usd


def test_what_an_earlier_session_spent_counts(bench: Workbench) -> None:
    """The same budget again buys nothing more."""
    bench.write_rows(ROWS)
    cap = whole_cost(bench) / 2
    network = simulator()
    for _ in range(2):
        with pytest.raises(BudgetReachedError):
            carry_out(budgeted(bench, cap), network)
    assert Decimal(network.ledger["cost_usd"]) <= cap


def test_answers_without_token_counts_use_up_what_was_set_aside(bench: Workbench) -> None:
    """An unknown bill is taken at its worst, in this session and the next."""
    bench.write_rows(ROWS)
    cap = whole_cost(bench) / 2
    network = simulator("no-usage:1")
    with pytest.raises(BudgetReachedError) as stopped:
        carry_out(budgeted(bench, cap), network)
    posts = network.posts
    assert stopped.value.summary.tally.charges_usd <= cap
    with pytest.raises(BudgetReachedError):
        carry_out(budgeted(bench, cap), network)
    assert network.posts == posts


@pytest.mark.parametrize("step", ["run", "plan"])
def test_a_budget_without_a_price_is_refused(bench: Workbench, step: str) -> None:
    """It could not be held; `budget.allow_unpriced` goes without."""
    job = budgeted(bench, Decimal(1), prices="none")
    with pytest.raises(cometbatch.UsageError, match="there is no price"):
        cometbatch.plan(job, http=simulator()) if step == "plan" else carry_out(job, simulator())
    free = bench.job(
        budget={"max_cost_usd": 1, "allow_unpriced": True}, prices="none", output={"path": str(bench.output)}
    )
    assert carry_out(free, simulator()).all_succeeded


@pytest.mark.parametrize("step", ["run", "plan"])
def test_a_budget_without_a_catalog_is_not_blamed_on_the_model(bench: Workbench, step: str) -> None:
    """Whoever is offline has another thing to do than to look for prices."""
    down = httpx.MockTransport(lambda _request: httpx.Response(502))
    job = budgeted(bench, Decimal(1), prices={})
    with pytest.raises(cometbatch.UsageError, match=r"the catalog can't be read \(HTTP 502\), so a budget"):
        cometbatch.plan(job, http=down) if step == "plan" else carry_out(job, down)


def test_a_budget_without_a_cap_on_the_answer_is_refused(bench: Workbench) -> None:
    """An answer of any length can cost anything."""
    job = bench.job(budget={"max_cost_usd": 1}, params={"max_output_tokens": None})
    with pytest.raises(cometbatch.UsageError, match="max_output_tokens"):
        carry_out(job, simulator())


def test_attempts_that_may_have_been_billed_are_counted_apart(bench: Workbench) -> None:
    """The rows' cost and the possible charges together are no less than the server's own count."""
    bench.write_rows(ROWS)
    network = simulator("reset:0.2", "cut-json:0.15", seed=2)
    summary = carry_out(bench.job(), network)
    ledger = network.ledger
    assert summary.succeeded == ROWS
    assert summary.tally.charges >= ledger["answers_lost"] > 0
    assert summary.tally.cost_usd < Decimal(ledger["cost_usd"]) <= summary.tally.cost_usd + summary.tally.charges_usd
    most = format_rounded(summary.tally.charges_usd, up=True)
    said = f"possible extra charge: up to {most} for {summary.tally.charges} requests that got no answer"
    assert said in summary.describe()


def test_a_refused_request_is_not_counted_as_a_possible_charge(bench: Workbench) -> None:
    """Errors that the gateway itself makes are not billed (contract sheet, section 12)."""

    def refuse_once(request: httpx.Request) -> httpx.Response | None:
        seen.append(request)
        return httpx.Response(503, json={"error": {"message": "later"}}) if len(seen) == 2 else None

    seen: list[httpx.Request] = []
    summary = carry_out(bench.job(), Network(answer=refuse_once))
    assert summary.all_succeeded
    assert summary.tally.charges == 0


def test_a_cost_that_a_reply_reports_of_itself_is_not_booked(bench: Workbench) -> None:
    """One bad number in one reply can't end a run: the budget keeps to this run's own prices."""

    def absurd(_request: httpx.Request) -> httpx.Response:
        said = {"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 4, "cost": 999_999_999.5}
        return httpx.Response(200, json={"id": "c", "model": "m", "choices": [said], "usage": usage})

    summary = carry_out(budgeted(bench, Decimal(1), prices={"input": 1, "output": 2}), Network(answer=absurd))
    assert (summary.succeeded, summary.cost_usd) == (12, Decimal("0.000156"))
    assert any("the service reported $11,999,999,994.00 for 12 answers" in warning for warning in summary.warnings)


# -- bills above their reservations ----------------------------------------------------------------------------------

RATES = Rates(input=Decimal(1), output=Decimal(1))  # US dollars per million tokens
SEARCHED = answer(input_tokens=10_000, output_tokens=5)  # a cent, where not a hundred bytes were sent
LONG = answer(input_tokens=20, output_tokens=10_000)  # a cent, where the cap was ten tokens


def spend(
    reply: HttpResponse, cap: Decimal, *, concurrency: int, spent: Decimal = Decimal(0), earlier: Tally | None = None
) -> tuple[Stop | None, RowsInMemory]:
    """A session over many rows with a cap of ten tokens each, on a service that always gives this reply."""
    service = ScriptedService(always(reply))
    service.rates = RATES
    rows = RowsInMemory([row_request(row, max_output_tokens=10) for row in range(400)])
    budget = Budget(cap, spent)
    runner = make_runner(rows, service, concurrency=concurrency, budget=budget, earlier=earlier or Tally())
    return virtual_time.run(runner.run()).stop, rows


@pytest.mark.parametrize("reply", [SEARCHED, LONG], ids=["input of the service", "a cap that is ignored"])
def test_a_bill_above_its_reservation_raises_those_that_follow(reply: HttpResponse) -> None:
    """After the first such answer the cap is held again."""
    stop, rows = spend(reply, Decimal("0.205"), concurrency=1)
    assert stop is not None
    assert len(rows.recorded) == 20
    assert tally(rows.recorded).cost_usd <= Decimal("0.205")


@pytest.mark.parametrize("reply", [SEARCHED, LONG], ids=["input of the service", "a cap that is ignored"])
def test_what_bills_can_come_to_is_known_to_later_sessions(reply: HttpResponse) -> None:
    """Whatever is in flight at once, the next session passes no cap."""
    _, first = spend(reply, Decimal("0.05"), concurrency=1)
    earlier = tally(first.recorded)
    stop, rows = spend(reply, Decimal("0.205"), concurrency=50, spent=earlier.cost_usd, earlier=earlier)
    assert stop is not None
    total = tally([*first.recorded, *rows.recorded]).cost_usd
    assert Decimal("0.15") < total <= Decimal("0.205")


def test_an_overrun_is_said_as_it_is() -> None:
    """What is in flight when the first such bill comes can't be held back: a person is told by how much it is."""
    stop, rows = spend(SEARCHED, Decimal("0.005"), concurrency=50)
    assert stop is not None
    over = tally(rows.recorded).cost_usd - Decimal("0.005")
    assert over > 0
    assert f"the budget is passed by {format_rounded(over, up=True)} already" in stop.message
    assert "$0 of the budget" not in stop.message


def test_an_answer_says_by_how_much_its_input_passed_what_was_sent() -> None:
    """The journal has it, so that later sessions reserve enough."""
    _, rows = spend(SEARCHED, Decimal("0.01"), concurrency=1)
    (outcome,) = rows.recorded
    assert isinstance(outcome, Answered)
    assert outcome.input_above_bytes == 10_000 - len(row_request(0).http.body)
    assert tally(rows.recorded).largest_input_above_bytes == outcome.input_above_bytes


def test_a_count_that_can_only_be_garbage_raises_no_reservation() -> None:
    """Its cost is unknown, and one bad number must not end the run."""
    request = row_request(0, max_output_tokens=10)
    bounds = CostBounds(lambda _request, inputs, outputs, _hour: Decimal(inputs + (outputs or 0)))
    before = bounds.max_cost(request)
    assert bounds.learn(request, Usage(10**16, 10**16)) == 0
    assert bounds.max_cost(request) == before


# -- what lets the service add input ---------------------------------------------------------------------------------

UNBOUNDED: list[tuple[str, dict[str, Any]]] = [
    ("web_search_options", {"web_search_options": {}}),
    ("tools[0]", {"tools": [{"type": "web_search_preview"}]}),
    ("tools[1]", {"tools": [{"type": "function", "name": "f"}, {"type": "file_search", "vector_store_ids": ["v"]}]}),
    ("tools[0]", {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}),
    ("tools[0]", {"tools": [{"type": "mcp", "server_url": "https://example.com"}]}),
    ("prompt", {"prompt": {"id": "pmpt_1"}}),
    ("previous_response_id", {"previous_response_id": "resp_1"}),
    ("conversation", {"conversation": "conv_1"}),
    ("context_management", {"context_management": [{"type": "compaction"}]}),
    ("tools[0]", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ("tools[0]", {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}),
    ("container", {"container": "container_1"}),
    ("mcp_servers", {"mcp_servers": [{"type": "url", "url": "https://example.com", "name": "x"}]}),
    ("tools[0]", {"tools": [{"google_search": {}}]}),
    ("tools[0]", {"tools": [{"googleSearchRetrieval": {}}]}),
    ("tools[0]", {"tools": [{"urlContext": {}}]}),
    ("tools[0]", {"tools": [{"functionDeclarations": [], "codeExecution": {}}]}),
    ("tools[0]", {"tools": [{"type": "function", "function": {"name": "googleSearch"}}]}),
    ("cachedContent", {"cachedContent": "cachedContents/1"}),
    ("extra_body.google.cached_content", {"extra_body": {"google": {"cached_content": "cachedContents/1"}}}),
    ("search_parameters", {"search_parameters": {"mode": "auto"}}),
    ("enable_search", {"enable_search": True}),
    ("prediction", {"prediction": {"type": "content", "content": "x"}}),
]
BOUNDED: list[dict[str, Any]] = [
    {},
    {"previous_response_id": None, "web_search_options": None, "enable_search": False, "tools": []},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    {"tools": [{"type": "custom", "name": "f"}]},
    {"tools": [{"name": "f", "input_schema": {"type": "object"}}]},
    {"tools": [{"functionDeclarations": [{"name": "f"}]}, {"function_declarations": []}]},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {"properties": {"prompt": {}}}}}},
    {"reasoning_effort": "low", "metadata": {"container": "a note"}},
]


@pytest.mark.parametrize(("path", "extra"), UNBOUNDED)
def test_a_setting_that_lets_the_service_add_input_is_known(path: str, extra: dict[str, Any]) -> None:
    """By its path, in the spelling that was used."""
    assert [found for found, _ in unbounded(extra)] == [path]


@pytest.mark.parametrize("extra", BOUNDED)
def test_what_stands_in_the_request_whole_is_bounded(extra: dict[str, Any]) -> None:
    """Function tools are run by the caller; a setting that is off, or a name with another meaning, adds nothing."""
    assert list(unbounded(extra)) == []


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ({"type": "image_url", "image_url": {"url": "https://x/a.png"}}, ["image_url"]),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, []),
        ({"type": "input_image", "image_url": "https://x/a.png"}, ["image_url"]),
        ({"type": "input_file", "file_id": "file-1"}, ["file_id"]),
        ({"type": "image", "source": {"type": "url", "url": "https://x/a.png"}}, ["url"]),
        ({"type": "document", "source": {"type": "base64", "data": "AAAA"}}, []),
        ({"type": "item_reference", "id": "msg_1"}, ["item_reference"]),
        ({"fileData": {"fileUri": "https://x/a.pdf"}}, ["fileUri"]),
        ({"type": "text", "text": "file_id"}, []),
        (["file_id", 5, None], []),
    ],
)
def test_a_part_that_is_not_in_the_request_itself_is_known(part: object, found: list[str]) -> None:
    """However deep it lies in a body, in each format; what stands in the request whole is none."""
    assert list(remote_parts({"messages": [{"role": "user", "content": [part]}]})) == found


@pytest.mark.parametrize("step", ["run", "plan"])
def test_a_budget_refuses_what_lets_the_service_add_input(bench: Workbench, step: str) -> None:
    """It could not be held: $4.10 were billed under a cap of $0.20. Nothing is sent."""
    network = simulator()
    job = bench.job(budget={"max_cost_usd": 1}, params={"max_output_tokens": 64, "extra": {"web_search_options": {}}})
    with pytest.raises(
        cometbatch.UsageError, match=r"params\.extra\.web_search_options.*budget\.allow_unbounded"
    ) as refused:
        cometbatch.plan(job, http=network) if step == "plan" else carry_out(job, network)
    assert refused.value.exit_code == 2
    assert network.posts == 0


def test_a_budget_that_may_be_passed_is_warned_of(bench: Workbench) -> None:
    """`budget.allow_unbounded` runs all the same, and says before what may happen."""
    extra: dict[str, Any] = {"web_search_options": {}}
    job = bench.job(
        budget={"max_cost_usd": 1, "allow_unbounded": True}, params={"max_output_tokens": 64, "extra": extra}
    )
    summary = carry_out(job, simulator())
    assert summary.all_succeeded
    assert any("budget may be passed" in words and "web_search_options" in words for words in summary.warnings)


def test_without_a_budget_everything_is_allowed(bench: Workbench) -> None:
    """There is nothing to hold."""
    assert (
        carry_out(bench.job(params={"extra": {"web_search_options": {}}}, output={"raw": True}), simulator()).warnings
        == ()
    )


def test_a_budget_of_its_own_gives_up_nothing_of_a_shared_cap() -> None:
    """What is in flight when the run ends is told to nobody where no cap is shared."""
    budget = Budget(Decimal(1), Decimal(0))
    assert budget.reserve(Decimal("0.25"))
    budget.count_in_flight(1)
    assert budget.close() == 0
    assert budget.left == Decimal("0.75")
