"""`accept`: how many rows may have no whole answer in a run that ends well."""

import fcntl
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import cometbatch
from cometbatch.cli import cli
from cometbatch.errors import JobError, UsageError
from cometbatch.job.accepting import read_accept
from cometbatch.results.accepted import Accept, judged
from tests import virtual_time
from tests.test_limit import prompt_of
from tests.workbench import Network, Workbench, carry_out, files, simulator

Bounds = Mapping[str, object]


def without(failed: int, incomplete: int = 0) -> Network:
    """A service that refuses the first rows, this many, and cuts the answers of those after them."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        row = int(prompt_of(request)) if request.method == "POST" else failed + incomplete
        if row < failed:
            return httpx.Response(400, json={"error": {"message": f"not row {row}", "code": "bad"}})
        if row < failed + incomplete:
            choice = {"index": 0, "message": {"role": "assistant", "content": "and so"}, "finish_reason": "length"}
            usage = {"prompt_tokens": 9, "completion_tokens": 64, "total_tokens": 73}
            return httpx.Response(200, json={"id": f"c-{row}", "choices": [choice], "usage": usage})
        return None

    return Network(answer=answer)


def run(bench: Workbench, network: Network, accept: Any = (), **options: Any) -> cometbatch.RunSummary:
    """Run a job on virtual time, with what is accepted beside it."""
    sections = {} if "limit" not in options else {"limits": {"concurrency": 2}}
    job = bench.job(**sections)
    return virtual_time.run(cometbatch.run_async(job, accept=accept, progress=False, http=network, **options))


def command(*arguments: object) -> Result:
    """A command in this process: its exit code and what it printed."""
    return CliRunner().invoke(cli, [*map(str, arguments)])


# -- bounds ------------------------------------------------------------------------------------------------------------


@given(
    percent=st.decimals(0, 100, places=3, allow_nan=False, allow_infinity=False),
    rows=st.integers(0, 10**12),
    away=st.integers(-2, 2),
)
def test_a_share_is_exact_and_its_boundary_is_within(percent: Decimal, rows: int, away: int) -> None:
    """Law: so many failed rows are within p % of all where 100 times their number is not above p times all."""
    failed = max(0, int(percent * rows) // 100 + away)
    found = judged(Accept(failed=f"{percent}%"), rows, failed=failed, incomplete=0)
    assert found.is_within == (failed * 100 * 1000 <= int(percent * 1000) * rows)
    assert found.failed.most * 100 <= percent * rows < (found.failed.most + 1) * 100


@given(bound=st.integers(0, 2**63 - 1), rows=st.integers(0, 10**6), failed=st.integers(0, 10**6))
def test_a_whole_number_counts_rows_whatever_the_table(bound: int, rows: int, failed: int) -> None:
    """Law: it does not depend on how many rows there are, and says nothing of rows of another kind."""
    accept = read_accept({"incomplete": bound})
    assert judged(accept, rows, failed=0, incomplete=failed).is_within == (failed <= bound)
    assert judged(accept, rows, failed=failed, incomplete=0).is_within == (failed == 0)


READ = [
    (5, "5"),
    (0, "0"),
    (Decimal(5), "5"),
    ("1%", "1%"),
    ("1 %", "1%"),
    ("0.5%", "0.5%"),
    (".5%", ".5%"),
    ("0%", "0%"),
    ("100%", "100%"),
    ("100.00%", "100.00%"),
    (None, None),
]
REFUSED = [
    (0.01, r'write 1 to count rows or "1%" for a share'),
    (Decimal("0.005"), r'write 1 to count rows or "0.5%" for a share'),
    (0.0, r'write 0 to count rows or "0%" for a share'),
    (1.0, r'write 1 to count rows or "100%" for a share'),
    (2.5, r'write 3 to count rows or "2.5%" for a share'),
    (250.0, r"write 250 to count rows$"),
    (-1, r"expected a whole number of rows, or a share of them as \"1%\""),
    (2**63, "expected a whole number of rows"),
    ("-1%", "a share is from 0% to 100%"),
    ("100.1%", "a share is from 0% to 100%"),
    ("1,5%", "a share is from 0% to 100%"),
    ("%", "a share is from 0% to 100%"),
    ("5", "take the quotes away"),
    ("one percent", "found 'one percent'"),
    (True, "found 'true'"),
    ([1], "found a (Python )?list"),
    (float("nan"), "it must be finite"),
]


@pytest.mark.parametrize(("value", "read"), READ, ids=repr)
def test_a_bound_is_a_whole_number_or_a_share(bench: Workbench, value: object, read: str | None) -> None:
    """In a job, in its description, and beside a job in Python."""
    job = bench.job(accept={"failed": value})
    assert job.accept == read_accept({"failed": value}) == Accept(failed=read)
    assert cometbatch.Job.from_description(job.describe()).accept == job.accept


@pytest.mark.parametrize(("value", "words"), REFUSED, ids=repr)
def test_a_bound_that_can_be_read_in_two_ways_or_none_is_refused(bench: Workbench, value: object, words: str) -> None:
    """With its place and what to write, in a job and beside one."""
    with pytest.raises(JobError, match=rf"accept\.failed: .*{words}"):
        bench.job(accept={"failed": value})
    with pytest.raises(UsageError, match=f"--accept failed: .*{words.rstrip('$')}"):
        read_accept({"failed": value})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (["failed=0.01"], r'write 1 to count rows or "1%"'),
        (["failed=1e-2"], r'write 1 to count rows or "1%"'),
        (["failed=010"], "leading zero"),
        (["failed=1", "failed=2"], "failed is there twice"),
        (["faild=1"], "'faild' is none of failed, incomplete: did you mean 'failed'"),
        (["length=1"], "'length' is none of failed, incomplete"),
        (["failed"], "expected KIND=BOUND, such as failed=1%"),
        (["failed=1,5%"], "expected KIND=BOUND"),
        (["failed="], "expected a whole number of rows"),
        ([5], "found int"),
        (5, "found int"),
    ],
)
def test_an_option_that_is_wrong_is_refused(said: Any, words: str) -> None:
    """It names the option and what it should be."""
    with pytest.raises(UsageError, match=f"--accept.*{words}"):
        read_accept(said)


def test_an_option_goes_over_the_job_kind_by_kind(bench: Workbench) -> None:
    """What it leaves out stays as the job has it, and texts may stand together."""
    option = read_accept(["failed=1%"])
    assert option.over(Accept(failed="5", incomplete="2")) == Accept(failed="1%", incomplete="2")
    assert read_accept("failed=1%, incomplete=5") == read_accept(["incomplete=5", "failed=1%"])
    path = bench.write_job(accept={"failed": 1})
    assert cometbatch.load_job(path, ["accept.failed=7%", "accept.incomplete=3"]).accept == Accept("7%", "3")


# -- how a run ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "ends_well", "words"),
    [
        ({}, False, ""),
        ({"failed": 0}, False, "more than accepted: 3 failed (at most 0), 1 incomplete (none is accepted)\n"),
        ({"failed": 2, "incomplete": 1}, False, "more than accepted: 3 failed (at most 2)\n"),
        ({"failed": 3}, False, "more than accepted: 1 incomplete (none is accepted)\n"),
        ({"failed": 3, "incomplete": 1}, True, "accepted: 3 failed (at most 3), 1 incomplete (at most 1)\n"),
        ({"failed": "25%", "incomplete": 9}, True, "accepted: 3 failed (at most 3, 25% of the 12 rows)"),
        ({"failed": "24.99%", "incomplete": 9}, False, "more than accepted: 3 failed (at most 2, 24.99% of the 12"),
        ({"failed": "0%", "incomplete": "100%"}, False, "more than accepted: 3 failed (at most 0, 0% of the 12 rows)"),
        ({"failed": "100%", "incomplete": "100%"}, True, "accepted: 3 failed (at most 12, 100% of the 12 rows)"),
    ],
)
def test_summary_status_and_exit_code_say_the_same(
    bench: Workbench, accept: Bounds, ends_well: bool, words: str
) -> None:
    """Of a job that accepts it, of the option, of a later look: one verdict; the result is published all the same."""
    summary = run(bench, without(3, 1), accept)
    said = summary.to_dict()["accepted"]
    assert (summary.ended_well, summary.all_succeeded, summary.finished) == (ends_well, False, True)
    assert (said is None, summary.to_dict()["ended_well"]) == (accept == {}, ends_well)
    assert said is None or (said["within"], said["of_rows"]) == (ends_well, 12)
    assert words in summary.describe()
    job = bench.write_job(accept=accept)
    for found in (cometbatch.status(job), cometbatch.status(bench.output), cometbatch.status(bench.job())):
        assert found.summary.ended_well == ends_well
        assert found.to_dict()["accepted"] == said
        assert words in found.describe()
    ended = command("run", job, "--json")
    assert ended.exit_code == (0 if ends_well else 3)
    assert json.loads(ended.stdout)["accepted"] == said
    line = "" if ends_well else words.partition("\n")[0].capitalize()
    assert ended.stderr.startswith(line)
    assert (ended.stderr == "") == (line == "")


def test_where_every_row_succeeds_nothing_is_said_of_it(bench: Workbench) -> None:
    """Words would be noise; a program finds that nothing had to be accepted."""
    summary = run(bench, simulator(), {"failed": "1%"})
    assert (summary.ended_well, summary.all_succeeded) == (True, True)
    assert "accepted" not in summary.describe()
    assert summary.to_dict()["accepted"]["failed"] == {"bound": "1%", "most": 0, "rows": 0, "within": True}


def test_a_finished_run_is_judged_by_what_is_accepted_today(bench: Workbench) -> None:
    """It is no drift, nothing is sent or written, and each command has its own verdict."""
    run(bench, without(2), {"failed": 1})
    before = files(bench.folder)
    job = bench.write_job()
    codes = [
        command("run", job, *options).exit_code
        for options in ((), ("--accept", "failed=2"), ("--accept=failed=1",), ("--set", "accept.failed=17%"))
    ]
    assert codes == [3, 0, 3, 0]
    assert cometbatch.status(job).summary.ended_well is False  # by the session that sent something
    assert command("status", job, "--accept", "failed=2").stdout.count("accepted: 2 failed (at most 2)") == 1
    assert {name: each for name, each in files(bench.folder).items() if name != "job.yaml"} == before
    assert bench.job(accept={"failed": 1}).fingerprint() == bench.job().fingerprint()


def test_status_knows_the_option_of_the_last_session_and_the_job_of_today(bench: Workbench) -> None:
    """The option belongs to the session, the job file to whoever asks."""
    run(bench, without(2), {"failed": 2})
    assert cometbatch.status(bench.job(accept={"failed": 1})).summary.accept == Accept(failed="2")
    assert cometbatch.status(bench.job(accept={"incomplete": 1})).summary.accept == Accept("2", "1")
    assert cometbatch.status(bench.output, accept="failed=1").summary.accept == Accept(failed="1")


@pytest.mark.parametrize(("limit", "accept", "ends_well"), [(4, "50%", True), (4, "49%", False), (3, 2, True)])
def test_with_a_limit_a_share_is_of_the_first_rows(
    bench: Workbench, limit: int, accept: object, ends_well: bool
) -> None:
    """Two rows fail, and two later ones are cut: those beyond the limit count for nothing."""
    summary = run(bench, without(2, 2), {"failed": accept, "incomplete": 12}, limit=limit)
    assert summary.limited is not None
    assert (summary.limited.failed, summary.limited.incomplete, summary.ended_well) == (2, limit - 2, ends_well)
    again = run(bench, without(0), {"failed": accept, "incomplete": "100%"}, limit=limit)
    assert (again.had_work, again.ended_well, again.accepted.rows) == (False, ends_well, limit)
    assert "of the first 4 rows" in again.describe() or limit != 4
    assert cometbatch.status(bench.job(), accept={"failed": accept, "incomplete": 2}).summary.ended_well == ends_well


@pytest.mark.parametrize("partition_rows", [1, 5, 100])
def test_rows_below_a_limit_are_counted_by_what_became_of_them(bench: Workbench, partition_rows: int) -> None:
    """In parts and in journals, in whole partitions and in cut ones."""
    job = bench.job(output={"partition_rows": partition_rows}, accept={"failed": 3, "incomplete": "20%"})
    for limit, network in ((9, without(3, 2)), (11, without(0)), (5, without(0))):
        summary = virtual_time.run(cometbatch.run_async(job, limit=limit, progress=False, http=network))
        assert summary.limited is not None
        assert (summary.limited.failed, summary.limited.incomplete) == (3, 2)
        assert summary.ended_well == (limit == 11)  # of 9 rows, 20 % is one row


# -- what it never hides -----------------------------------------------------------------------------------------------


ALL = {"failed": "100%", "incomplete": "100%"}


def test_a_run_that_stops_is_stopped_whatever_is_accepted(bench: Workbench) -> None:
    """Budget, refusal and interruption keep their codes; what is told so far is told as such."""
    job = bench.job(accept=ALL, budget={"max_cost_usd": 0.0005}, prices={"input": 1, "output": 2})
    with pytest.raises(cometbatch.BudgetReachedError) as stopped:
        carry_out(job, without(2))
    assert (stopped.value.exit_code, stopped.value.summary.ended_well) == (4, False)
    assert "\naccepted so far: 2 failed (at most 12, 100% of the 12 rows)" in stopped.value.summary.describe()
    with pytest.raises(cometbatch.ServiceRefusedError) as refused:
        carry_out(bench.job(accept=ALL), simulator("bad-key:1"), fresh=True)
    assert (refused.value.exit_code, refused.value.summary.ended_well) == (5, False)


def test_a_run_that_another_process_has_is_not_ended_well(bench: Workbench) -> None:
    """What is accepted is asked of a run that this process carried out."""
    run(bench, without(2), limit=4)
    with (bench.run_directory / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(cometbatch.RunLockedError) as locked:
            run(bench, simulator(), ALL)
    assert locked.value.exit_code == 6


# -- beforehand --------------------------------------------------------------------------------------------------------


def test_plan_says_what_is_accepted_and_what_surely_fails(bench: Workbench) -> None:
    """In rows, as the run will count them; a row that can't be rendered is known before."""
    bench.input.write_text("parcel,note\n" + "".join(f"{row},{'x' * (row % 4)}\n" for row in range(8)))
    job = bench.job(prompt={"user": "{{ note }}", "system": None}, accept={"failed": "20%"})
    plan = cometbatch.plan(job, http=simulator())
    assert "accepted: failed: at most 1, 20% of the 8 rows; incomplete: none is accepted" in plan.describe()
    assert "2 rows can't be rendered and will fail, more than accepted" in plan.describe()
    assert plan.to_dict()["accepted"]["failed"] == {"bound": "20%", "most": 1, "rows": 2, "within": False}
    assert ", more than" not in cometbatch.plan(job, accept="failed=2", http=simulator()).describe()
    assert cometbatch.plan(bench.job(), http=simulator()).to_dict()["accepted"] is None
    assert command("plan", bench.write_job(), "--accept", "failed=0.01").exit_code == 1  # the error that `main` tells
