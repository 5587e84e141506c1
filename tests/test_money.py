"""Amounts of money come out the same, to the last digit, whatever decimal context the calling program has set."""

import io
import json
from contextlib import AbstractContextManager
from decimal import ROUND_UP, Context, Decimal, FloatOperation, Inexact, InvalidOperation, Rounded, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.commands.progress_line import Progress
from cometbatch.control.budget import Budget
from cometbatch.money.exact import format_amount, format_rounded
from cometbatch.money.prices import PriceSettings, cost, likely_cost, meter, price_book
from cometbatch.records import Completion, Outcome, PossibleCharge, PriceBook, Rates, Record, Tally, Usage
from cometbatch.results import row_checks
from cometbatch.results.codec import encode_record
from cometbatch.results.columns import (
    columns_of,
    outcomes_table,
    read_outcomes,
    schema_of,
)
from cometbatch.results.summary import BudgetReachedError, RunSummary
from cometbatch.results.tallies import add, tally
from cometbatch.wire.counts import MAX_COST, reported_cost
from tests.test_output import NOW, answered, outcome_lists
from tests.workbench import Network, Workbench, carry_out

UNIT = Fraction(1, 10**18)
SUMS = ("cost_usd", "charges_usd", "reported_cost_usd", "differing_reported_usd", "differing_cost_usd")
LONG = Decimal("12345678901234567890.123456789012345678")  # more digits than the usual 28
TINY = Decimal("0.000000000000000001")


def hostile() -> AbstractContextManager[Context]:
    """A program that reckons with three digits and takes anything rounded, or mixed with floats, for an error."""
    traps = [Inexact, Rounded, InvalidOperation, FloatOperation]
    return localcontext(Context(prec=3, rounding=ROUND_UP, traps=traps))


def rounding_up() -> AbstractContextManager[Context]:
    """A program that reckons with three digits and hears of nothing: whoever used its context would not notice."""
    return localcontext(Context(prec=3, rounding=ROUND_UP, traps=[]))


CONTEXTS = pytest.mark.parametrize("context", [hostile, rounding_up])


@CONTEXTS
@given(left=outcome_lists(), right=outcome_lists())
@settings(max_examples=50)
def test_totals_are_exact(context: Any, left: list[Outcome], right: list[Outcome]) -> None:
    """Each sum is that of the fractions, of reported costs too, and adding tallies changes none of them."""
    records = [*left, *right, PossibleCharge(0, NOW, "no_answer", LONG), PossibleCharge(1, NOW, "no_answer", TINY)]
    with context():
        total, sum_of_both = tally(records), add(tally(left), tally(records[len(left) :]))
    assert total == sum_of_both
    rows = outcomes_table([*left, *right]).to_pylist()
    told = [row for row in rows if row["reported_cost_usd"] is not None]
    pairs = [(Fraction(row["reported_cost_usd"]), Fraction(row["cost_usd"])) for row in told if row["cost_usd"]]
    pairs += [(Fraction(row["reported_cost_usd"]), Fraction(0)) for row in told if row["cost_usd"] == 0]
    apart = [(one, two) for one, two in pairs if abs(one - two) > max(Fraction(1, 10**6), two / 1000)]
    assert [Fraction(getattr(total, name)) for name in SUMS] == [
        sum(Fraction(row["cost_usd"] or 0) for row in rows),
        Fraction(LONG) + UNIT,
        sum(Fraction(row["reported_cost_usd"]) for row in told),
        sum(one for one, _ in apart),
        sum(two for _, two in apart),
    ]
    assert (total.reported, total.differing) == (len(told), len(apart))


@CONTEXTS
@given(outcomes=outcome_lists())
@settings(max_examples=50)
def test_columns_and_journal_lines_hold_every_digit(context: Any, outcomes: list[Outcome]) -> None:
    """Written and read under that context, an outcome is the one that was written."""
    names = [name for name in schema_of().names if name != "reported_cost_usd"]
    columns = columns_of(names)
    ordinary = outcomes_table(outcomes).select(names)
    with context():
        table = outcomes_table(outcomes).select(names)
        read = read_outcomes(table, outcomes[0].ordinal if outcomes else 0, columns=columns)
        again = outcomes_table(read, columns)
        lines = [msgspec.json.decode(encode_record(outcome), type=Record) for outcome in outcomes]
    assert table.equals(ordinary)
    assert again.equals(ordinary)
    assert lines == outcomes


@CONTEXTS
@given(value=st.floats(0, MAX_COST, exclude_max=True) | st.integers(0, MAX_COST - 1))
def test_a_reported_cost_is_read_to_the_columns_last_digit(context: Any, value: float) -> None:
    """As it is written, rounded half-even to eighteen decimals."""
    with context():
        read = reported_cost({"cost": value})
    assert read is not None
    assert read.as_tuple().exponent == -18
    assert Fraction(read) == round(Fraction(repr(value)) / UNIT) * UNIT


usages = st.builds(Usage, *[st.integers(0, 10**15)] * 2)
prices = st.integers(0, 10**18).map(lambda units: Decimal((0, tuple(map(int, str(units))), -12)))


@CONTEXTS
@given(usage=usages, input_price=prices, output_price=prices, ratio=prices, digits=st.integers(0, 10**60 - 1))
def test_prices_and_costs_are_exact(
    context: Any, *, usage: Usage, input_price: Decimal, output_price: Decimal, ratio: Decimal, digits: int
) -> None:
    """A cost is its counts times its rates; what is likely is that times the ratio, to a cost's last decimal."""
    with context():
        book, _ = price_book("m", settings=PriceSettings(input=input_price, output=output_price))
        due = cost(usage, book.rates)
        most = meter(book.rates).max_cost(usage.input_tokens or 0, usage.output_tokens)
        likely = likely_cost(due, PriceBook("m", "catalog", book.rates, ratio))
        odd = likely_cost(due, PriceBook("m", "catalog", book.rates, Decimal(f"0.{digits:060d}")))
    exact = (
        Fraction(input_price) * (usage.input_tokens or 0) + Fraction(output_price) * (usage.output_tokens or 0)
    ) / 10**6
    assert due is not None
    assert most is not None
    assert likely is not None
    assert odd is not None
    assert Fraction(due) == exact <= Fraction(most)
    assert Fraction(likely) == round(exact * Fraction(ratio) / UNIT) * UNIT
    assert abs(Fraction(odd) - exact * Fraction(digits, 10**60)) <= UNIT / 2


def test_nothing_is_likely_where_a_price_or_a_ratio_is_missing() -> None:
    """A guess would look like a promise."""
    assert likely_cost(None, PriceBook("m", "catalog", None, Decimal("0.8"))) is None
    assert likely_cost(Decimal(1), PriceBook("m", "catalog", Rates(), None)) is None


@CONTEXTS
def test_a_budget_is_not_passed_by_the_last_digit(context: Any) -> None:
    """However large it is, and with any number of decimals: one unit more than it is too much."""
    with context():
        budget = Budget(LONG, Decimal(0))
        assert not budget.reserve(Decimal("12345678901234567890.123456789012345679"))
        assert budget.reserve(LONG)
        assert not budget.reserve(TINY)
        budget.settle(LONG, Decimal("12345678901234567890.123456789012345677"))
        assert budget.left == TINY
        assert budget.reserve(TINY)
        nothing = Budget(Decimal("1e-9999"), Decimal("0.5"))
        assert not nothing.reserve(TINY)
        assert nothing.left < 0


def paid(cost: Decimal) -> Outcome:
    """A row that cost this much."""
    return answered(Completion("x", "stop"), cost)


@given(st.decimals(min_value="1e-18", max_value="1e20", places=18))
def test_an_amount_for_a_person_is_rounded_and_never_to_nothing(amount: Decimal) -> None:
    """It is close to the amount, not $0 where something was spent, and no less than the amount where it is a bound."""
    shown, bound = (Decimal(format_rounded(amount, up=up).strip("$").replace(",", "")) for up in (False, True))
    assert abs(shown - amount) <= max(amount / 20, Decimal("0.00005"))
    assert shown > 0
    assert amount <= bound


@given(amount=st.decimals(min_value="-1e20", max_value="1e20", places=18))
def test_an_amount_that_is_rounded_up_or_down_is_the_next_one_that_is_shown(amount: Decimal) -> None:
    """Nothing that can be shown lies between: both are the amount itself, or one step apart around it."""
    texts = (format_rounded(amount, up=True), format_rounded(amount, down=True))
    most, least = (Decimal(text.replace("$", "").replace(",", "")) for text in texts)
    size = abs(amount)
    step = Decimal("0.01") if size >= 1 else max(Decimal(1).scaleb(size.adjusted() - 1), Decimal("1e-19"))
    assert least <= amount <= most
    assert most - least <= (step if size >= 1 or size < Decimal("0.0001") else Decimal("0.0001"))
    assert (most == least) == (most == amount)


@given(amount=st.decimals(min_value="-1e20", max_value="1e20", places=18) | st.decimals(-1000, 1000, places=0))
def test_an_amount_in_full_keeps_each_digit_and_none_that_says_nothing(amount: Decimal) -> None:
    """It reads back as the same amount: no exponent, no zeros at the end of its decimals."""
    text = format_amount(amount)
    assert Decimal(text) == amount
    assert not set(text) - set("-.0123456789")
    assert "." not in text or text[-1] in "123456789"


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "$0"),
        ("0.00055", "$0.0006"),
        ("0.0123", "$0.0123"),
        ("0.3", "$0.3000"),
        ("0.0000254", "$0.000025"),
        ("12.345", "$12.34"),
        ("1234.5", "$1,234.50"),
        ("1", "$1.00"),
        ("0.99996", "$1.0000"),
        ("0.0001", "$0.0001"),
        ("0.00009996", "$0.000100"),
    ],
)
def test_how_amounts_are_shown(amount: str, shown: str) -> None:
    """Cents from a dollar on, four decimals below, two digits below a hundredth of a cent."""
    assert format_rounded(Decimal(amount)) == shown


@CONTEXTS
def test_what_is_shown_of_a_bill_is_right_to_the_cent_and_exact_in_json(context: Any) -> None:
    """On the progress line, in the summary, and to the last digit in JSON and in a proof's words against a row."""
    stream = io.StringIO()
    with context():
        progress = Progress(2, Tally(cost_usd=LONG), on=True, stream=stream)
        progress.recorded([paid(Decimal("0.0001"))], 0)
        progress.close()
        thrown = Tally(succeeded=1, charges=1, charges_usd=LONG)
        summary = RunSummary("r", Path("out"), 1, thrown, PriceBook("m", "none"), finished=True, replaced=thrown)
        said = summary.to_dict(), summary.describe()
        cells = outcomes_table([paid(LONG)]).to_pylist()[0]
        wrong = row_checks.wrong_cost(cells, None)
    assert "$12,345,678,901,234,567,890.12 · " in stream.getvalue()
    assert said[0]["thrown_cost_usd"] == "24691357802469135780.246913578024691356"
    assert "up to $24,691,357,802,469,135,780.25 for" in said[1]
    assert wrong is not None
    assert str(LONG) in wrong


def absurd(request: httpx.Request) -> httpx.Response | None:
    """An answer with a cost of many digits; no catalog."""
    if request.method == "GET":
        return httpx.Response(404)
    said = {"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 123_457, "completion_tokens": 1_013, "cost": 0.12345678901234567}
    return httpx.Response(200, json={"id": "c", "model": "m", "choices": [said], "usage": usage})


SETTINGS: dict[str, Any] = {
    "prices": {"input": 1.234567891234, "output": 98.765432198765},
    "params": {"max_output_tokens": 4_096},
}


def seen(bench: Workbench) -> tuple[Any, ...]:
    """All that a run of this table says of money, stopped once by its budget and resumed."""
    with pytest.raises(BudgetReachedError) as stopped:
        carry_out(bench.job(budget={"max_cost_usd": 1.5}, **SETTINGS), Network(answer=absurd))
    plan = cometbatch.plan(bench.job(**SETTINGS), http=Network(answer=absurd))
    summary = carry_out(bench.job(budget={"max_cost_usd": 20.000000000000000001}, **SETTINGS), Network(answer=absurd))
    proof, status = cometbatch.verify(bench.output), cometbatch.status(bench.output).to_dict()
    money_columns = bench.result().select(["cost_usd", "reported_cost_usd"]).to_pylist()
    assert proof.ok, proof.describe()
    told = [summary.to_dict(), status, plan.to_dict()]
    for each in told:
        for name in ("run_id", "output", "input", "created_at", "elapsed_s", "latency_s", "first_request"):
            each.pop(name, None)
    return stopped.value.summary.tally, summary.tally, json.dumps(told), money_columns


@CONTEXTS
def test_a_whole_run_comes_to_the_same(tmp_path: Path, context: Any) -> None:
    """Budget, prices, reported costs, plan, status and proof, run by a program that has other plans for decimals."""
    benches = [Workbench(tmp_path / name) for name in ("calm", "strange")]
    for bench in benches:
        bench.folder.mkdir()
        bench.write_rows(12)
    ordinary = seen(benches[0])
    with context():
        assert seen(benches[1]) == ordinary
