"""`run --limit`: the first rows of a run, from which the full run goes on. What was paid is never paid again."""

import asyncio
import contextlib
import json
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.commands.run import run_async
from cometbatch.errors import UsageError
from tests import virtual_time
from tests.test_cli import command
from tests.workbench import ANSWER_COLUMNS, Network, Workbench, carry_out, simulator

ROWS = 12  # of the table of `bench`


def limited(job: cometbatch.Job, network: httpx.AsyncBaseTransport, limit: int | None, **more: Any) -> Any:
    """Run the first rows of a job on virtual time."""
    return virtual_time.run(run_async(job, limit=limit, progress=False, http=network, **more))


def parcels(network: Network) -> list[str]:
    """The rows that were sent, in order, by the number in their prompt."""
    return [prompt_of(each) for each in network.requests if each.method == "POST"]


def prompt_of(request: httpx.Request) -> str:
    """The number of the row that a request asks."""
    return str(json.loads(request.content)["messages"][-1]["content"]).split()[1]


def first(count: int, begin: int = 0) -> list[str]:
    """The numbers of rows."""
    return [f"{row:04d}" for row in range(begin, count)]


# -- what is sent ----------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(
    rows=st.integers(1, 12),
    partition_rows=st.integers(1, 6),
    ending=st.sampled_from(["out.parquet", "out/"]),
    sessions=st.lists(
        st.tuples(st.none() | st.integers(1, 14), st.none() | st.integers(0, 4), st.none() | st.floats(0.1, 3.0)),
        max_size=4,
    ),
)
def test_however_a_run_is_limited_stopped_and_cut_off_each_row_is_answered_once(
    rows: int, partition_rows: int, ending: str, sessions: list[tuple[int | None, int | None, float | None]]
) -> None:
    """Sessions with limits, without credit, or cancelled: no recorded row is sent again, none above the limit at all.

    The result is that of one plain run. A limited session that ends by itself has all of its rows.
    """
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(Path(folder))
        bench.write_rows(rows)
        bench.output = Path(folder) / ending.rstrip("/")
        output = {"path": str(bench.output) + ("/" if ending.endswith("/") else ""), "partition_rows": partition_rows}
        job = bench.job(output=output, limits={"concurrency": 2})
        answered: set[str] = set()
        for limit, credit, seconds in [*sessions, (None, None, None)]:
            money = None if credit is None else Decimal("0.00003") * credit
            network = simulator(credit_usd=money)
            with contextlib.suppress(cometbatch.RunStoppedError, TimeoutError):
                summary = virtual_time.run(
                    asyncio.wait_for(run_async(job, limit=limit, progress=False, http=network), seconds)
                )
                assert summary.finished == (summary.tally.calls == rows)
                assert limit is None or summary.tally.calls >= min(limit, rows)
                assert summary.ended_well
            sent = parcels(network)
            assert not answered & set(sent)
            assert set(sent) <= set(first(rows if limit is None else min(limit, rows)))
            done = cometbatch.show(job, limit=100).rows if bench.run_directory.exists() else None
            pieces = [] if done is None else done.pieces()
            now = [each for piece in pieces for each in piece.table["parcel"].to_pylist()]
            assert now == sorted(set(now))
            answered |= set(now)
        files = sorted(bench.output.glob("*")) if bench.output.is_dir() else [bench.output]
        read = cometbatch.results.rows.rows_of_files(files, bench.output)
        found = [row for piece in read.pieces() for row in piece.table.select(["parcel", "status"]).to_pylist()]
        assert found == [{"parcel": each, "status": "succeeded"} for each in first(rows)]
        assert cometbatch.verify(job).ok


def test_the_full_run_after_a_try_is_that_of_one_run(bench: Workbench) -> None:
    """The answers are the same as without the try, and so is what the server counts."""
    network = simulator()
    limited(bench.job(), network, 5)
    carry_out(bench.job(), network)
    tried, posts, ledger = bench.result().select(ANSWER_COLUMNS), network.posts, network.ledger
    whole = simulator()
    carry_out(bench.job(), whole, fresh=True)
    assert tried.equals(bench.result().select(ANSWER_COLUMNS))
    assert posts == whole.posts == ROWS
    assert ledger["cost_usd"] == whole.ledger["cost_usd"]


@pytest.mark.parametrize("partition_rows", [1, 4, 5, 100])
def test_only_the_first_rows_are_sent_whatever_the_partitions(bench: Workbench, partition_rows: int) -> None:
    """A limit within a partition, at its end and beyond it; a smaller one sends nothing more."""
    job, network = bench.job(output={"partition_rows": partition_rows}), simulator()
    summary = limited(job, network, 4)
    assert sorted(parcels(network)) == first(4)
    assert (summary.finished, summary.had_work, summary.ended_well, bench.output.exists()) == (False, True, True, False)
    again = limited(job, network, 3)
    assert (again.had_work, again.ended_well, network.posts) == (False, True, 4)
    limited(job, network, 9)
    assert sorted(parcels(network)[4:]) == first(9, 4)


@pytest.mark.parametrize("limit", [ROWS, ROWS + 1, 10**18])
def test_a_limit_that_leaves_no_row_out_is_a_full_run(bench: Workbench, limit: int) -> None:
    """It publishes its result, at once or after a try."""
    limited(bench.job(), simulator(), 2)
    summary = limited(bench.job(), simulator(), limit)
    assert (summary.finished, summary.limited, bench.result().num_rows) == (True, None, ROWS)


def test_the_last_rows_of_a_run_are_published_also_by_a_limited_session(bench: Workbench) -> None:
    """Where rows beyond the limit were answered before, the run is complete, and nothing more is to be done."""

    def refused(request: httpx.Request) -> httpx.Response | None:
        is_first = request.method == "POST" and prompt_of(request) == "0000"
        return httpx.Response(400, json={"error": {"message": "not this one", "code": "bad"}}) if is_first else None

    carry_out(bench.job(), Network(answer=refused))
    bench.output.unlink()  # as if the run had been killed before it was published
    summary = limited(bench.job(), Network(answer=refused), 5)
    assert (summary.finished, bench.output.exists()) == (True, True)


def test_fresh_with_a_limit_begins_anew(bench: Workbench) -> None:
    """The result of the run before stands until the new one is published."""
    carry_out(bench.job(), simulator())
    before = bench.output.read_bytes()
    network = simulator()
    summary = limited(bench.job(params={"max_output_tokens": 5}), network, 2, fresh=True)
    assert (network.posts, summary.tally.calls, bench.output.read_bytes()) == (2, 2, before)
    carry_out(bench.job(params={"max_output_tokens": 5}), network)
    assert (network.posts, bench.output.read_bytes() == before) == (ROWS, False)


def test_a_budget_stops_a_try_and_the_advice_is_for_its_rows(bench: Workbench) -> None:
    """The budget that finishing needs is that of the first rows."""
    job = bench.job(budget={"max_cost_usd": 0.0002}, prices={"input": 1, "output": 2}, limits={"concurrency": 1})
    needed = []
    for limit in (5, 10):
        with pytest.raises(cometbatch.BudgetReachedError) as stopped:
            limited(job, simulator(), limit)
        needed.append(stopped.value.budget_to_finish or Decimal(0))
    assert 0 < needed[0] < needed[1]


# -- what is said ----------------------------------------------------------------------------------------------------


def test_what_is_tried_is_not_what_is_run_again(bench: Workbench) -> None:
    """`--retry` with a limit is refused, and so is what is no number of rows, before anything is sent."""
    network = simulator()
    with pytest.raises(UsageError, match="--retry and --limit exclude each other"):
        limited(bench.job(), network, 5, retry="failed")
    for wrong in (0, -1, 2.5, True, "5"):
        with pytest.raises(UsageError, match="is no number of rows"):
            limited(bench.job(), network, wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="is no number of rows"):
            cometbatch.plan(bench.job(), limit=wrong, http=network)  # type: ignore[arg-type]
    assert (network.requests, bench.run_directory.exists()) == ([], False)


def test_whether_it_ended_well_is_said_of_the_first_rows_alone(bench: Workbench) -> None:
    """A row beyond the limit that failed before does not count; one below it does, also in a finished run."""

    def refused(request: httpx.Request) -> httpx.Response | None:
        is_it = request.method == "POST" and prompt_of(request) == "0006"
        return httpx.Response(400, json={"error": {"message": "not this one", "code": "bad"}}) if is_it else None

    job = bench.job(output={"partition_rows": 4})
    ends = [limited(job, Network(answer=refused), limit).ended_well for limit in (3, 7, 6, 8, 3, None, 3, 7)]
    assert ends == [True, False, True, False, True, False, True, False]


def test_the_command_says_how_to_run_all_rows(bench: Workbench) -> None:
    """The summary, `status` and `show` tell a try from a run that was stopped; exit code 0."""
    job = bench.write_job(simulator={"latency_s": 0})
    tried = command("run", job, "--limit", "4", "--set", "limits.concurrency=3")
    assert tried.returncode == 0
    lines = tried.stdout.splitlines()
    assert lines[0] == "4 of 12 rows: 4 succeeded, 0 incomplete, 0 failed"
    assert lines[-1] == f"4 of 12 rows; all of them: cometbatch run {job} --set limits.concurrency=3"
    status = cometbatch.status(job)
    assert status.describe().splitlines()[-1] == f"4 of 12 rows; all of them: cometbatch run {job}"
    assert "done with the first 4 rows of the input alone (--limit)" in status.describe()
    assert "stopped" not in status.describe()
    assert (status.to_dict()["limit"], status.summary.finished) == (4, False)
    assert len(command("show", job).stdout.splitlines()) == 1 + 4


def test_status_tells_a_try_that_was_stopped(bench: Workbench) -> None:
    """It has not reached its last row."""
    with pytest.raises(cometbatch.ServiceRefusedError):
        limited(bench.job(limits={"concurrency": 1}), simulator(credit_usd=Decimal("0.00006")), 8)
    told = cometbatch.status(bench.job()).describe()
    assert "stopped, the first 8 rows of the input alone (--limit)" in told
    assert "of 12 rows; continue with: cometbatch run JOB_FILE" in told.splitlines()[-1]
    carry_out(bench.job(), simulator())
    assert "--limit" not in cometbatch.status(bench.job()).describe()


def test_plan_tells_the_cost_of_the_first_rows_and_of_all(bench: Workbench) -> None:
    """By itself of 20 rows, with a limit of that many, and of none where these are done or all there are."""
    bench.write_rows(100)
    job = bench.job(prices={"input": 1, "output": 2})
    whole, some = cometbatch.plan(job), cometbatch.plan(job, limit=50)
    assert whole.limited is not None
    assert some.limited is not None
    assert (whole.limited.limit, whole.limited.requests, some.limited.requests) == (20, 20, 50)
    assert whole.cost_usd == some.cost_usd
    assert some.limited.cost_usd == some.cost_usd / 2  # type: ignore[operator]  # all rows are alike
    assert "a try of the first 50 rows (run --limit 50) costs at most about $0.00" in some.describe()
    assert some.to_dict()["limited"]["requests"] == 50
    limited(job, simulator(), 20)
    assert cometbatch.plan(job).limited is None
    assert "would send nothing" in cometbatch.plan(job, limit=20).describe()
    assert cometbatch.plan(job, limit=30).limited.requests == 10  # type: ignore[union-attr]
    assert cometbatch.plan(job, limit=100).limited is None


def test_warnings_are_about_the_rows_that_are_sent(bench: Workbench) -> None:
    """A try of three rows says nothing of the fourth."""
    bench.input.write_text("parcel,note\n" + "".join(f"{n},same\n" for n in (1, 2, 3, 3, 3)), encoding="utf-8")
    job = bench.job(prompt={"user": "Parcel {{ parcel }}"})
    assert not [each for each in limited(job, simulator(), 3).warnings if "same prompt" in each]
    assert [each for each in carry_out(job, simulator()).warnings if "same prompt" in each]
