"""A token cap is a request, and an answer above it is evidence: what follows for bills, budgets, plans and the job."""

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cometbatch
from cometbatch.control.budget import FAR_ABOVE, FIRST_IN_FLIGHT, MORE_PER_ANSWER, Budget, ProvenBounds
from cometbatch.money.exact import format_rounded
from cometbatch.records import Answered, Completion, Rates, RejectedAsk, Tally, Usage
from cometbatch.results.summary import BudgetReachedError, ServiceRefusedError
from cometbatch.results.tallies import add, cost_step, median_cost, tally
from cometbatch.runner.ports import Reply, Stop
from cometbatch.simulator.answers import OVERLONG_TOKENS
from tests import virtual_time
from tests.scripted_run import (
    CHAT,
    MODEL,
    NOW,
    RowsInMemory,
    Script,
    ScriptedService,
    always,
    answer,
    make_runner,
    row_request,
)
from tests.workbench import FORMATS, Network, Workbench, carry_out, files, simulator

RATES = Rates(input=Decimal(1), output=Decimal(10))  # US dollars per million tokens
CAP = 5  # tokens


def spend(
    script: Script,
    budget: Budget | None,
    *,
    rows: int = 2000,
    earlier: Tally | None = None,
    adaptive: bool = False,
    rates: Rates = RATES,
    is_exact: bool = False,
) -> tuple[Stop | None, RowsInMemory, ScriptedService]:
    """A session over many rows with a cap of a few tokens each, at 256 in flight."""
    service, table = ScriptedService(script), RowsInMemory([row_request(n, max_output_tokens=CAP) for n in range(rows)])
    service.rates = rates
    runner = make_runner(
        table,
        service,
        concurrency=256,
        budget=budget,
        earlier=earlier or Tally(),
        adaptive=adaptive,
        is_exact=is_exact,
    )
    return virtual_time.run(runner.run()).stop, table, service


def spent_by(table: RowsInMemory) -> Decimal:
    """What the recorded answers cost."""
    return tally(table.recorded).cost_usd


# -- few in flight at first ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_dollar_is_not_230_at_256_in_flight(*, adaptive: bool) -> None:
    """Answers of 90 cents to a cap of five tokens: those in flight before the first answer are paid, and no more."""
    stop, table, service = spend(
        always(answer(output_tokens=90_000)), Budget(Decimal(1), Decimal(0)), adaptive=adaptive
    )
    assert stop is not None
    assert stop.kind == "budget"
    assert (service.peak, len(table.recorded)) == (FIRST_IN_FLIGHT, FIRST_IN_FLIGHT)
    assert spent_by(table) < 2


def test_a_dollar_is_not_230_in_a_whole_run(bench: Workbench) -> None:
    """The same by the simulator's own ledger, from the job to the summary, and in the session that follows."""
    bench.write_rows(400)
    network = simulator("cap-ignored:1")
    job = bench.job(
        target={"model": "comet-sim.2.5"},  # $10 for a million tokens: each answer takes 30 cents
        params={"max_output_tokens": CAP},
        budget={"max_cost_usd": 1},
        limits={"concurrency": 256},
    )
    for sent in (3, 3):  # the second session begins with what the first one learnt
        with pytest.raises(BudgetReachedError):
            carry_out(job, network)
        assert network.posts == sent
    assert Decimal(network.ledger["cost_usd"]) <= 1


@pytest.mark.parametrize("one_in", [1, 2, 5, 20, 100])
def test_however_seldom_the_cap_is_ignored_few_such_answers_are_paid_for(one_in: int) -> None:
    """The more requests are in flight, the more answers have kept to the cap: some three are expected, not 256."""

    def script(row: int, _attempt: int) -> tuple[float, Reply]:
        return 1.0, answer(output_tokens=90_000 if row % one_in == one_in - 1 else CAP)

    stop, table, _ = spend(script, Budget(Decimal(1), Decimal(0)))
    assert stop is not None
    assert spent_by(table) < 4 * Decimal("0.91")


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 20))
def test_in_flight_are_two_and_two_more_for_each_answer_that_kept_to_its_reservation(
    answers: list[bool], earlier: int
) -> None:
    """Since the last one that was far above it; those of earlier sessions count until then."""
    proven, kept = ProvenBounds(earlier), earlier
    for is_kept in answers:
        proven.answered(Decimal(1), Decimal(1) if is_kept else Decimal(100))
        kept = kept + 1 if is_kept else 0
    most = FIRST_IN_FLIGHT + MORE_PER_ANSWER * kept
    assert (proven.admits(most - 1), proven.admits(most)) == (True, False)


def test_answers_that_keep_to_the_cap_open_the_window_within_a_few_round_trips() -> None:
    """A run at 256 in flight is there after five round trips, and nobody else waits."""
    stop, table, service = spend(always(answer(output_tokens=CAP)), Budget(Decimal(1000), Decimal(0)))
    assert (stop, len(table.recorded), service.peak) == (None, 2000, 256)
    full_at = next(at for at, _ in service.sent[2 + 6 + 18 + 54 + 162 :])
    assert full_at < 5.1


@pytest.mark.parametrize(
    ("actual", "is_shown"),
    [(0, True), (1, True), (FAR_ABOVE, True), (FAR_ABOVE + 1, False), (1000, False)],
)
def test_some_tokens_more_are_no_reason_to_begin_anew(actual: int, *, is_shown: bool) -> None:
    """Services count differently by a few tokens; far above its reservation a bill shows that there was no bound."""
    proven = ProvenBounds(answers=10)
    proven.answered(Decimal(1), Decimal(actual))
    assert proven.admits(FIRST_IN_FLIGHT) is is_shown


def test_a_price_for_each_request_needs_no_evidence() -> None:
    """An answer of any length costs the same."""
    budget = Budget(Decimal(1000), Decimal(0))
    rates = Rates(per_request=Decimal("0.01"))
    _, _, service = spend(always(answer(output_tokens=90_000)), budget, rates=rates, is_exact=True)
    assert service.peak == 256


def test_without_a_budget_nobody_waits() -> None:
    """There is nothing to hold."""
    _, _, service = spend(always(answer()), None)
    assert service.peak == 256
    assert sum(at == 0 for at, _ in service.sent) == 256


def test_a_session_that_follows_begins_with_the_evidence_of_those_before() -> None:
    """Answers that kept to the cap count; what one cost that did not is set aside for each row."""
    _, _, service = spend(always(answer()), Budget(Decimal(1000), Decimal(0)), earlier=Tally(succeeded=200))
    assert sum(at == 0 for at, _ in service.sent) == 256
    earlier = Tally(succeeded=5, largest_output_tokens=90_000)
    budget = Budget(Decimal(2), Decimal(0))
    _, table, _ = spend(always(answer(output_tokens=90_000)), budget, earlier=earlier)
    assert len(table.recorded) == 2


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_row_that_waits_is_set_aside_at_what_was_learnt_meanwhile(*, adaptive: bool) -> None:
    """Also where it waited for something else than the budget: the second answer is the last one that is paid."""
    long = answer(output_tokens=90_000)
    script: Script = lambda row, _: (0.5 if row == 0 else 30.0, long)  # noqa: E731 - a table of two
    stop, table, _ = spend(script, Budget(Decimal(1), Decimal(0)), adaptive=adaptive)
    assert stop is not None
    assert len(table.recorded) == 2


def test_answers_without_token_counts_do_not_hold_up_a_run() -> None:
    """Nothing can be known of their length, now or later; each is booked at its most."""
    uncounted = CHAT.build_response(MODEL, Completion("Four.", "stop", Usage()))
    _, table, service = spend(always(uncounted), Budget(Decimal(1000), Decimal(0)))
    assert (len(table.recorded), service.peak) == (2000, 256)


def test_a_longer_answer_than_the_longest_is_learnt_in_turn() -> None:
    """Each record raises what is set aside; the budget is passed by those in flight at most."""

    def script(row: int, _attempt: int) -> tuple[float, Reply]:
        return 1.0, answer(output_tokens=10 if row < 100 else 1_000 if row < 300 else 50_000)

    stop, table, _ = spend(script, Budget(Decimal(5), Decimal(0)))
    assert stop is not None
    assert 5 < spent_by(table) < 5 + 256 * Decimal("0.5")
    assert f"can cost up to {format_rounded(Decimal('0.5'), up=True)[:4]}" in stop.message


def test_an_ask_that_was_not_accepted_is_known_to_later_sessions_too() -> None:
    """Its answer was as long as any."""
    ask = RejectedAsk(0, 1, 1, NOW, Usage(5, 70_000), Decimal("0.7"))
    assert tally([ask]).largest_output_tokens == 70_000


# -- what is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", FORMATS)
def test_an_answer_above_its_cap_is_warned_of_once(
    bench: Workbench, capsys: pytest.CaptureFixture[str], wire: str
) -> None:
    """In the run, its summary and its status, with both numbers; in every format, and without a budget too."""
    job = bench.job(target={"format": wire}, params={"max_output_tokens": CAP})
    summary = carry_out(job, simulator("cap-ignored:0.5"))
    (warning,) = (words for words in summary.warnings if "token cap" in words)
    assert f"{summary.tally.largest_output_tokens:,} output tokens" in warning
    assert f"the token cap ({CAP})" in warning
    assert summary.tally.largest_output_tokens > OVERLONG_TOKENS
    assert capsys.readouterr().err.count("token cap") == 1
    assert warning in cometbatch.status(bench.output).summary.warnings


def test_a_long_run_warns_while_it_goes_on(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    """Within a second of the first such answer, and not again at the end, though a longer one came meanwhile."""
    bench.write_rows(40)
    said: list[int] = []

    def answers(request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET":
            return None
        said.append(capsys.readouterr().err.count("token cap"))
        usage = {"prompt_tokens": 5, "completion_tokens": 1000 + len(said)}
        choice = {"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
        return httpx.Response(200, json={"id": "c", "choices": [choice], "usage": usage})

    job = bench.job(limits={"concurrency": 1, "requests_per_minute": 30}, params={"max_output_tokens": CAP})
    carry_out(job, Network(answer=answers))
    said.append(capsys.readouterr().err.count("token cap"))
    assert sum(said) == 1
    assert 1 in said[:4]


def test_answers_within_the_cap_are_not_warned_of(bench: Workbench) -> None:
    """An answer of just as many tokens kept to it; without a cap there is none to keep."""
    assert carry_out(bench.job(params={"max_output_tokens": 1}), simulator()).warnings == ()
    free = bench.job(params={"max_output_tokens": None}, output={"path": str(bench.folder / "free.parquet")})
    assert carry_out(free, simulator("cap-ignored:1")).warnings == ()


def test_a_stop_says_what_a_row_cost(bench: Workbench) -> None:
    """At most, exactly and rounded up, and in the median; a finished run has its cost, and does not."""
    bench.write_rows(60)
    network = simulator("cap-ignored:0.2", seed=3)
    job = bench.job(params={"max_output_tokens": 64}, budget={"max_cost_usd": 0.2}, limits={"concurrency": 1})
    with pytest.raises(BudgetReachedError) as stopped:
        carry_out(job, network)
    summary = stopped.value.summary
    most = summary.tally.largest_cost_usd
    assert most > 20_000 * Decimal("1.5") / 10**6
    line = next(line for line in summary.describe().splitlines() if line.startswith("cost of a row so far"))
    median = median_cost(summary.tally)
    assert median is not None
    assert line == (
        f"cost of a row so far: about {format_rounded(median)} in the median, {format_rounded(most, up=True)} at most"
    )
    assert summary.to_dict()["row_cost"]["highest_usd"] == f"{most.normalize():f}"
    assert (
        "cost of a row"
        not in carry_out(bench.job(output={"path": str(bench.folder / "b.parquet")}), simulator()).describe()
    )


costs = st.decimals(0, 10**6, places=18, allow_nan=False)


def costing(row: int, cost: Decimal | None) -> Answered:
    """A row that cost this much."""
    return Answered(
        row, "succeeded", None, 1, 1.0, NOW, "hash", 200, None, Completion("Yes.", "stop", Usage(1, 1)), cost
    )


@given(st.lists(st.none() | costs, min_size=1, max_size=30))
def test_the_median_is_within_a_thirtieth_and_the_highest_is_exact(found: list[Decimal | None]) -> None:
    """Of the rows with a cost; in steps that need no list of them, however the rows are cut into tallies."""
    records = [costing(row, cost) for row, cost in enumerate(found)]
    whole = tally(records)
    assert whole == add(tally(records[:7]), tally(records[7:]))
    known = sorted(cost for cost in found if cost is not None)
    median = median_cost(whole)
    if not known:
        assert median is None
        return
    exact = known[(len(known) - 1) // 2]
    assert median is not None
    assert abs(median - exact) <= exact * Decimal("0.04")
    assert median <= whole.largest_cost_usd == known[-1]


@given(costs, costs)
def test_steps_are_in_the_order_of_costs(one: Decimal, other: Decimal) -> None:
    """So that the median can be found among them."""
    assert (cost_step(one) <= cost_step(other)) or one > other


# -- by which name the cap is set ------------------------------------------------------------------------------------


def sent(bench: Workbench, **sections: Any) -> list[dict[str, Any]]:
    """The bodies that a run sends."""
    network = Network()
    carry_out(bench.job(**sections), network, fresh=True)
    return [json.loads(request.content) for request in network.requests if request.method == "POST"]


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("auto", "max_completion_tokens"),
        ("max_completion_tokens", "max_completion_tokens"),
        ("max_tokens", "max_tokens"),
    ],
)
def test_a_chat_request_sets_the_cap_by_the_name_that_the_job_says(bench: Workbench, field: str, name: str) -> None:
    """By that one alone."""
    for body in sent(bench, params={"max_output_tokens": 9, "max_tokens_field": field}):
        assert body[name] == 9
        assert len(body.keys() & {"max_tokens", "max_completion_tokens"}) == 1


@pytest.mark.parametrize("wire", [each for each in FORMATS if each != "chat"])
def test_the_name_means_something_in_chat_alone(bench: Workbench, wire: str) -> None:
    """Elsewhere it is refused, by its place, unless it is left as it is by default."""
    assert bench.job(target={"format": wire}, params={"max_tokens_field": "auto"})
    with pytest.raises(cometbatch.JobError, match=r"max_tokens_field.*has a meaning only with target\.format: chat"):
        bench.job(target={"format": wire}, params={"max_tokens_field": "max_tokens"})


REFUSALS = [  # words, and the name that is to be set
    (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "max_completion_tokens",
    ),
    ("max_tokens is deprecated, please use `max_completion_tokens`", "max_completion_tokens"),
    ("upstream: 'max_tokens' is not allowed for this deployment", "max_completion_tokens"),
    ("Use the parameter max_completion_tokens instead of max_tokens.", "max_completion_tokens"),
    ("Unrecognized request argument supplied: max_completion_tokens", "max_tokens"),
    ("max_completion_tokens: Extra inputs are not permitted", "max_tokens"),
    ("Unknown parameter: 'max_completion_tokens'.", "max_tokens"),
    ("property 'max_completion_tokens' is unsupported, try max_tokens", "max_tokens"),
    ("Extra inputs are not permitted, field: 'max_completion_tokens', value: 64", "max_tokens"),
]
OF_THE_ROW = [
    "max_tokens is too large: 64. This model supports at most 32 completion tokens",
    "'max_tokens' or 'max_completion_tokens' is too large: 5000. Your request has 4000 input tokens. Try fewer.",
    "Invalid 'max_completion_tokens': integer below minimum value. Expected a value >= 16, but got 5 instead.",
    "'temperature' is not supported with this model. Your max_tokens is 64.",
    "this model does not support a value of this request",
    "invalid prompt: " + "word " * 100 + "max_tokens is not supported",
]


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize(("words", "name"), REFUSALS)
def test_a_refusal_that_names_the_field_stops_the_run_with_the_key_to_set(
    bench: Workbench, words: str, name: str, status: int
) -> None:
    """No row is failed for it, and nothing is tried by another name unasked."""
    error = {"message": words, "type": "invalid_request_error", "code": None}
    network = Network(answer=lambda request: posts(request, httpx.Response(status, json={"error": error})))
    with pytest.raises(ServiceRefusedError, match=f"Set params.max_tokens_field: {name}, ") as stopped:
        carry_out(bench.job(limits={"concurrency": 1}), network)
    assert (stopped.value.fix, stopped.value.summary.tally.calls, network.posts) == (name, 0, 1)


@pytest.mark.parametrize("words", OF_THE_ROW)
def test_a_refused_number_is_the_rows_failure(bench: Workbench, words: str) -> None:
    """Rows differ in how much room they leave, and a message may quote a row that speaks of such things."""
    error = {"message": words, "type": "invalid_request_error"}
    network = Network(answer=lambda request: posts(request, httpx.Response(400, json={"error": error})))
    assert carry_out(bench.job(), network).tally.failures == {"invalid_request": 12}


def posts(request: httpx.Request, reply: httpx.Response) -> httpx.Response | None:
    """A service that gives this reply to each POST, and the simulator's to all else."""
    return reply if request.method == "POST" else None


@pytest.mark.parametrize("done", [0, 5])
def test_a_run_that_a_refused_name_stopped_goes_on_with_the_other(bench: Workbench, done: int) -> None:
    """Rows that were answered before stay as they are, and are proven by the name that they were asked by."""

    def then_refuse(request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET" or len(network.requests) - 1 <= done or b'"max_tokens":' in request.content:
            return None
        error = {"message": "Unrecognized request argument supplied: max_completion_tokens"}
        return httpx.Response(400, json={"error": error})

    network = Network(answer=then_refuse)
    with pytest.raises(ServiceRefusedError):
        carry_out(bench.job(limits={"concurrency": 1}), network)
    summary = carry_out(bench.job(params={"max_tokens_field": "max_tokens"}), network)
    assert (summary.succeeded, network.posts) == (12, 13)
    for job in (bench.job(), bench.job(params={"max_tokens_field": "max_tokens"}), bench.output):
        assert cometbatch.verify(job).ok
    before = files(bench.folder)
    assert carry_out(bench.job(params={"max_tokens_field": "max_completion_tokens"}), network).had_work is False
    assert files(bench.folder) == before


def test_verify_tells_an_answer_to_another_prompt_all_the_same(bench: Workbench) -> None:
    """The two names are the only two ways; another cap is another request."""
    carry_out(bench.job(), Network())
    other = cometbatch.verify(bench.job(params={"max_output_tokens": 63}))
    assert not other.ok


# -- the older name in `params.extra` --------------------------------------------------------------------------------

OLDER: dict[str, Any] = {"max_output_tokens": None, "extra": {"max_tokens": 64}}


def test_a_cap_in_extra_counts_for_the_budget(bench: Workbench) -> None:
    """It is set aside like the other, so that the run stops in time, and a budget is not refused for want of a cap."""
    bench.write_rows(60)
    network = simulator()
    job = bench.job(params=OLDER, budget={"max_cost_usd": 0.001})
    with pytest.raises(BudgetReachedError):
        carry_out(job, network)
    assert 0 < Decimal(network.ledger["cost_usd"]) <= Decimal("0.001")


def test_a_cap_in_extra_counts_for_plan_and_warnings(bench: Workbench) -> None:
    """The plan is the same as with the other name, but for the name."""
    plain, older = (cometbatch.plan(bench.job(params=params), http=simulator()) for params in ({}, OLDER))
    assert (older.output_tokens, older.cost_usd) == (plain.output_tokens, plain.cost_usd) == (12 * 64, plain.cost_usd)
    assert "at most" in older.describe()
    assert "is not set" not in older.describe()
    assert any(
        "token cap (64)" in words for words in carry_out(bench.job(params=OLDER), simulator("cap-ignored:1")).warnings
    )


def test_a_cap_in_extra_counts_for_limits(bench: Workbench) -> None:
    """A limit that one answer would take more than an hour to pass is refused, by the key that sets the cap."""
    with pytest.raises(cometbatch.JobError, match=r"params\.extra\.max_tokens \(64\) would take more than an hour"):
        bench.job(params=OLDER, limits={"tokens_per_minute": 1})


@pytest.mark.parametrize("value", ["64", 0, -1, 1.5, None, True, [64]])
def test_what_is_no_cap_in_extra_counts_for_nothing(bench: Workbench, value: object) -> None:
    """It is sent as it stands, and a budget has nothing to hold on to."""
    params = {"max_output_tokens": None, "extra": {"max_tokens": value}}
    with pytest.raises(cometbatch.UsageError, match="an answer has no highest cost"):
        carry_out(bench.job(params=params, budget={"max_cost_usd": 1}), simulator())


def test_another_formats_name_is_no_cap(bench: Workbench) -> None:
    """`max_tokens` means nothing to the other formats that take no cap by that name."""
    job = bench.job(target={"format": "responses"}, params=OLDER, budget={"max_cost_usd": 1})
    with pytest.raises(cometbatch.UsageError, match="an answer has no highest cost"):
        carry_out(job, simulator())


# -- what a plan says of a budget ------------------------------------------------------------------------------------


def planned(
    bench: Workbench, cap: Decimal | float, network: httpx.AsyncBaseTransport | None = None, **more: Any
) -> Any:
    """The plan of a job with this budget."""
    job = bench.job(budget={"max_cost_usd": float(cap)}, **more)
    plan = cometbatch.plan(job, http=network or simulator())
    assert plan.budget is not None
    return plan


def test_a_plan_says_that_a_budget_is_enough(bench: Workbench) -> None:
    """For all rows; and no run has less to say."""
    plan = planned(bench, 1)
    assert plan.budget.is_enough
    assert "budget: $1.00: enough for 12 rows" in plan.describe()
    assert plan.to_dict()["budget"]["is_enough"] is True
    assert cometbatch.plan(bench.job(), http=simulator()).budget is None


def test_a_plan_says_for_how_many_rows_a_budget_is_enough_and_what_finishing_needs(bench: Workbench) -> None:
    """Where answers cost what is estimated, the run stops just there, and finishes with just what was named."""
    whole = planned(bench, 1)
    plan = planned(bench, whole.cost_usd / 2)
    assert 0 < plan.budget.rows < 12
    assert (
        f"enough for about {plan.budget.rows} of 12 rows; to finish, budget.max_cost_usd has to be about"
        in plan.describe()
    )
    needed = plan.budget.needed_usd
    assert planned(bench, needed).budget.is_enough
    assert not planned(bench, needed - Decimal("0.00000001")).budget.is_enough
    assert whole.cost_usd <= needed <= whole.cost_usd * 2


def test_a_run_stops_where_its_plan_said(bench: Workbench) -> None:
    """With answers of the whole cap and prompts of the estimated length."""
    bench.write_rows(40)
    body = {"id": "c", "choices": [{"message": {"content": "Yes."}, "finish_reason": "length"}]}
    tokens = cometbatch.plan(bench.job(), http=simulator()).input_tokens // 40
    reply = httpx.Response(200, json=body | {"usage": {"prompt_tokens": tokens, "completion_tokens": 64}})
    prices = {"input": 0, "output": 10}
    for cap in (Decimal("0.01"), Decimal("0.0064"), Decimal("0.0063")):
        more: dict[str, Any] = {"prices": prices, "output": {"path": str(bench.folder / f"{cap}.parquet")}}
        plan = planned(bench, cap, **more)
        job = bench.job(budget={"max_cost_usd": float(cap)}, limits={"concurrency": 1}, **more)
        with pytest.raises(BudgetReachedError) as stopped:
            carry_out(job, Network(answer=lambda request: posts(request, reply)))
        assert stopped.value.summary.tally.calls == plan.budget.rows == cap // Decimal("0.00064")


def test_a_plan_after_a_stop_counts_what_was_spent_and_learnt(bench: Workbench) -> None:
    """An answer far above its cap is what each row that remains may cost; the plan says so, and what all needs."""
    bench.write_rows(20)
    network = simulator("cap-ignored:1")
    with pytest.raises(BudgetReachedError) as stopped:
        carry_out(bench.job(budget={"max_cost_usd": 0.1}), network)
    plan = planned(bench, 0.1, network)
    spent = stopped.value.summary.cost_usd
    assert spent is not None
    assert (plan.budget.spent_usd, plan.budget.rows, plan.done) == (spent, 0, 3)
    assert (
        f"budget: $0.1000, {format_rounded(spent, up=True)} of it spent: enough for none of 17 rows" in plan.describe()
    )
    assert any("token cap" in words for words in plan.warnings)
    assert plan.cost_usd > 17 * OVERLONG_TOKENS * Decimal("1.5") / 10**6
    summary = carry_out(bench.job(budget={"max_cost_usd": float(plan.budget.needed_usd) + 1e-6}), network)
    assert summary.all_succeeded


def test_a_plan_without_a_price_says_that_a_budget_cannot_be_held(bench: Workbench) -> None:
    """Where the job says to run all the same."""
    job = bench.job(budget={"max_cost_usd": 1, "allow_unpriced": True}, prices="none")
    plan = cometbatch.plan(job, http=simulator())
    assert "budget: $1.00: can't be held, since there is no price" in plan.describe()
    assert plan.to_dict()["budget"] == {
        "max_cost_usd": "1",
        "spent_usd": "0",
        "is_enough": None,
        "rows": None,
        "needed_usd": None,
    }


# -- words -----------------------------------------------------------------------------------------------------------


@given(left=costs, cost=costs, spent=costs)
def test_a_budgets_words_never_look_like_room_where_there_is_none(left: Decimal, cost: Decimal, spent: Decimal) -> None:
    """What a row can cost is never rounded down, what is left never up, nor what is passed down."""
    words = Budget(spent + left, spent).describe(cost)
    shown, rest = (Decimal(word.strip("$.,").replace(",", "")) for word in words.split() if word.startswith("$"))
    assert (shown >= cost, rest <= left) == (True, True)
    passed = Budget(spent, spent + left).describe(cost)
    if left:
        assert Decimal(passed.rpartition("$")[2].split()[0].replace(",", "")) >= left
