"""Few open files: told before a run, with the number that it needs, and then no row fails for it."""

import asyncio
import json
import re
import resource
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cometbatch.commands import open_files
from cometbatch.commands.open_files import SPARE_FILES, files_for, fit
from cometbatch.errors import UsageError
from cometbatch.transport import Transport
from cometbatch.transport.http1 import pool
from tests.scripted_server import KEY, LONG_S, REQUEST, answer, reply, serving
from tests.stub_server import StubServer
from tests.test_cli import COMMAND, LIMIT_S, environment, target
from tests.workbench import Workbench

OPEN = 12  # files that are open before the run


@given(
    limit=st.integers(0, 30_000), concurrency=st.integers(1, 10_000), partition_rows=st.sampled_from([1, 8, 256, 8192])
)
def test_what_is_in_flight_never_takes_more_files_than_there_are(
    limit: int, concurrency: int, partition_rows: int
) -> None:
    """As much of `limits.concurrency` as fits, no less, with a warning exactly where it is less than was asked for."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(open_files, "raise_open_files", lambda: limit)
        monkeypatch.setattr(open_files, "_open_now", lambda: OPEN)
        if OPEN + files_for(1, partition_rows) > limit:
            with pytest.raises(UsageError, match=f"needs {OPEN + files_for(concurrency, partition_rows):,};"):
                fit(concurrency, partition_rows)
            return
        most, connections, warning = fit(concurrency, partition_rows)
    assert 1 <= most <= concurrency
    assert OPEN + files_for(most, partition_rows) <= limit
    assert most == concurrency or OPEN + files_for(most + 1, partition_rows) > limit
    assert most < connections <= limit - OPEN - SPARE_FILES
    assert bool(warning) is (most < concurrency)
    if warning:
        assert f"at most {most:,} requests will be in flight" in warning
        assert f"needs {OPEN + files_for(concurrency, partition_rows):,}" in warning


def test_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each of them may have in flight is told as its share, and the sum of all."""
    monkeypatch.setattr(open_files, "raise_open_files", lambda: 100)
    monkeypatch.setattr(open_files, "_open_now", lambda: OPEN)
    most, _, warning = fit(128, 256, workers=4)
    assert "each of the 4 workers may open 100 files" in warning
    assert f"at most {4 * most} requests will be in flight" in warning


def limited(files: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command in a shell that lets it open this many files and no more."""
    line = f"ulimit -n {files}; exec {shlex.join([*COMMAND, *map(str, arguments)])}"
    return subprocess.run(
        ["/bin/sh", "-c", line], env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@pytest.mark.parametrize("partition_rows", [1, None])
def test_a_run_with_few_files_says_so_and_loses_no_row(bench: Workbench, partition_rows: int | None) -> None:
    """Plan and run warn with the number needed; every row is answered at its first attempt, on kept connections."""
    bench.write_rows(400)
    output = {"path": str(bench.output)} | ({} if partition_rows is None else {"partition_rows": partition_rows})
    with StubServer(latency_s=(0.01, 0.05)) as server:
        job = bench.write_job(target=target(server), limits={"concurrency": 200, "adaptive": False}, output=output)
        planned, done = limited(128, "plan", job), limited(128, "run", job)
        assert (done.returncode, server.requests, server.wasted) == (0, 400, 0)
    for said in (planned.stderr, done.stderr):
        assert said.startswith("Warning: this process may open 128 files, and limits.concurrency: 200 needs ")
        assert "requests will be in flight. Raise the limit (" in said
    assert "retries" not in done.stdout


def test_a_run_with_too_few_files_is_refused_before_anything_is_sent(bench: Workbench) -> None:
    """By plan and run alike."""
    with StubServer() as server:
        job = bench.write_job(target=target(server))
        for command in ("plan", "run"):
            done = limited(40, command, job)
            assert done.returncode == 2
            assert "this process may open 40 files" in done.stderr
            assert "a run needs at least " in done.stderr
            assert "lower limits.concurrency" not in done.stderr
        assert server.requests == 0


def test_plan_and_run_tell_the_same_number(bench: Workbench) -> None:
    """What a session opens later is counted by plan already: with the files that it asks for, both go through."""
    bench.write_rows(2)
    with StubServer() as server:
        job = bench.write_job(target=target(server))
        told = [re.findall(r"needs (?:at least )?(\d+)", limited(40, name, job).stderr) for name in ("plan", "run")]
        assert told[0] == told[1]
        for name in ("plan", "run"):
            assert limited(int(told[0][1]), name, job).returncode == 0


def test_the_simulator_may_open_as_many_files_as_the_run(bench: Workbench) -> None:
    """It is a process of its own with a file for each connection: where it has too few, requests fail."""
    bench.write_rows(300)
    limits = {"concurrency": 300, "adaptive": False}
    job = bench.write_job(target={"base_url": "simulator"}, simulator={"latency_s": 0.5}, limits=limits)
    line = f"ulimit -Sn 128; exec {shlex.join([*COMMAND, 'run', str(job), '--json'])}"
    done = subprocess.run(
        ["/bin/sh", "-c", line], env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["retries"] == 0


def test_enough_files_are_worth_no_word(bench: Workbench) -> None:
    """As many as systems usually allow are enough for the usual concurrency."""
    with StubServer() as server:
        done = limited(1_024, "run", bench.write_job(target=target(server)))
    assert (done.returncode, done.stderr) == (0, "")


def test_resting_connections_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no more may be open, the one that rests longest is closed, and none that carries a request."""
    monkeypatch.setattr(pool, "REST_S", 60.0)  # no connection is used twice

    async def main() -> tuple[int, int]:
        async with serving(reply()) as (server, _):
            client = Transport(server.url, KEY, timeout_s=LONG_S)
            client.limit_connections(3)
            for count in (3, 2, 3, 1):
                for each in await asyncio.gather(*(client.exchange(REQUEST) for _ in range(count))):
                    answer(each)
            assert client.pool_stats is not None
            await client.aclose()
            return server.connections, client.pool_stats.most_open

    assert asyncio.run(main()) == (9, 3)


def test_the_limit_of_this_process_is_known() -> None:
    """It is the system's own number."""
    assert pool.raise_open_files() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
