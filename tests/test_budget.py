"""A budget is never passed, whatever the service does with what is in flight, and a run that met it carries on."""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cometbatch
from cometbatch.control.budget import Budget
from cometbatch.money.exact import format_rounded
from cometbatch.results.summary import BudgetReachedError
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
    """A job that may cost so much."""
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
    assert not re.search(r"\$[0-9.]*0 ", str(stopped.value))  # amounts as a person writes them, without trailing zeros
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
    """The rows' cost and what may have been thrown away together are no less than the server's own count."""
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


def test_a_refused_request_is_not_counted_as_thrown_away(bench: Workbench) -> None:
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
    assert any("the service reported $11999999994 for 12 answers" in warning for warning in summary.warnings)
