"""How a run ends that is told to: what it finishes, how long that may take, what it costs, what the next run sends."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch import process as command_process
from cometbatch.commands import open_files
from cometbatch.commands.open_files import files_for, fitted
from cometbatch.commands.progress_line import Progress
from cometbatch.records import Tally
from cometbatch.results import parts
from cometbatch.run_state.directory import RunDirectory
from cometbatch.simulator.app import create_app
from cometbatch.simulator.behaviour import Behaviour
from tests import virtual_time
from tests.stub_server import StubServer, wait_until
from tests.test_cli import LIMIT_S, background, command, environment, one_object, target
from tests.workbench import Network, Workbench, carry_out

ROWS = 12
WITHIN_S = 25.0  # the default of limits.stop_within_s
END_S = 2.0  # seconds in which a process ends once there is nothing left to finish
BUSY_S = 1.0  # seconds by which a busy machine may be late
LATENCIES_S = os.environ.get("LATENCIES_S", "300")  # of answers of a real server; weekly: 1 30 300
STOP_WITHIN_S = float(os.environ.get("STOP_WITHIN_S", "0.5"))  # weekly: 25
SIGNALS = os.environ.get("SIGNALS", "SIGTERM")  # weekly: SIGTERM SIGHUP
CODES = {"SIGTERM": 143, "SIGHUP": 129}


class SlowNetwork(Network):
    """Answers each prompt after its own time, and counts what it has answered, whether or not anyone waits for it."""

    def __init__(self, latencies_s: Sequence[float], catalog_s: float = 0.0) -> None:
        super().__init__(create_app(Behaviour(latency_s=(0.0, 0.0))))
        self.latencies_s, self.catalog_s = latencies_s, catalog_s
        self.answered = 0
        self.on_post: Callable[[int], object] = lambda _posts: None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Wait, then answer."""
        if request.method != "POST":
            await asyncio.sleep(self.catalog_s)
            return await super().handle_async_request(request)
        self.on_post(self.posts + 1)
        latency_s = self.latencies_s[self.posts % len(self.latencies_s)]
        self.requests.append(request)
        await asyncio.sleep(latency_s)
        reply = await self._behind.handle_async_request(request)
        self.answered += 1
        return reply


def job_of(bench: Workbench, **limits: float) -> cometbatch.Job:
    """Four requests in flight, and a price for each."""
    fixed: dict[str, float] = {"concurrency": 4, "adaptive": False}
    return bench.job(prices={"per_request": 0.01}, limits=fixed | limits)


def charges(summary: cometbatch.RunSummary) -> int:
    """How many requests may be billed without an answer."""
    return summary.possible_charges.charges


async def at(seconds: float, do: Callable[[], object]) -> None:
    """Do something when this time has passed."""
    await asyncio.sleep(seconds)
    do()


async def ended(run: Coroutine[Any, Any, cometbatch.RunSummary], seconds: float, do: Callable[[], object]) -> float:
    """Run, do something after some seconds, and say how long after it the run raised `TerminatedRunError`."""
    loop, doing = asyncio.get_running_loop(), asyncio.create_task(at(seconds, do))
    with pytest.raises(cometbatch.TerminatedRunError) as raised:
        await run
    await doing
    assert raised.value.exit_code == 143
    return loop.time() - seconds


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    latencies_s=st.lists(st.sampled_from([0.5, 1.0, 10.0, 24.0, 30.0, 300.0]), min_size=1, max_size=5),
    seconds=st.sampled_from([0.2, 0.7, 6.0]),
    within_s=st.sampled_from([0.0, 1.0, WITHIN_S]),
)
def test_what_is_in_flight_has_so_long_and_what_is_given_up_is_charged_once(
    tmp_path_factory: pytest.TempPathFactory, latencies_s: list[float], seconds: float, within_s: float
) -> None:
    """Recorded is what was answered in time; the rest is sent again, and in the bill once, whoever looks, and when."""
    assume(seconds < 1.5 or max(latencies_s) >= 10.0)  # else all is answered before the stop
    bench = Workbench(tmp_path_factory.mktemp("stopped"))
    bench.write_rows(16)
    network, stop = SlowNetwork(latencies_s), threading.Event()
    job = job_of(bench, stop_within_s=within_s)
    run = cometbatch.run_async(job, stop=stop, progress=False, http=network)
    assert virtual_time.run(ended(run, seconds, stop.set)) <= within_s + 0.1
    recorded, given_up = network.answered, network.posts - network.answered
    between = cometbatch.status(job).summary
    assert (between.tally.calls, charges(between)) == (recorded, given_up)
    network.latencies_s = [0.0]
    for summary in (carry_out(job, network), carry_out(job, network), cometbatch.status(job).summary):
        assert (summary.succeeded, charges(summary)) == (16, given_up)
        assert float(summary.possible_charges.charges_usd) == pytest.approx(0.01 * given_up)
    assert network.posts == 16 + given_up


def cancelling(bench: Workbench, network: Network, *seconds: float) -> float:
    """Cancel a run at these times; how long it took from the first."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        running = asyncio.create_task(cometbatch.run_async(job_of(bench), progress=False, http=network))
        for moment in seconds:
            loop.call_at(moment, running.cancel)
        with pytest.raises(asyncio.CancelledError):
            await running
        return loop.time() - seconds[0]

    return virtual_time.run(main())


@pytest.mark.parametrize(
    ("latency_s", "moments", "most_s", "answered"),
    [
        (10.0, (1.0,), 9.1, 4),
        (30.0, (1.0,), WITHIN_S + 0.1, 0),
        (10.0, (1.0, 3.0), 2.1, 0),
        (10.0, (1.0, 3.0, 3.0), 2.1, 0),
    ],
    ids=["finished", "given up", "a second cancel", "a third"],
)
def test_a_cancelled_run_finishes_what_is_in_flight_and_stays_cancelled(
    bench: Workbench, latency_s: float, moments: tuple[float, ...], most_s: float, answered: int
) -> None:
    """As after SIGTERM; a second cancel gives up at once. What was answered is recorded, and no lock is held."""
    network = SlowNetwork([latency_s])
    assert cancelling(bench, network, *moments) <= most_s
    assert (cometbatch.status(bench.output).summary.tally.calls, network.answered) == (answered, answered)
    network.latencies_s = [0.0]
    summary = carry_out(job_of(bench), network)
    assert (summary.succeeded, charges(summary), network.posts) == (ROWS, 4 - answered, ROWS + 4 - answered)


@pytest.mark.parametrize("latency_s", [10.0, 300.0])
def test_who_listens_to_a_cancelled_run_is_told_what_it_came_to(bench: Workbench, latency_s: float) -> None:
    """As of one that was terminated: the event with the summary, metrics, and the cause of the `CancelledError`."""
    network, told, metrics = SlowNetwork([latency_s]), list[dict[str, Any]](), bench.folder / "x.prom"

    async def main() -> BaseException | None:
        options: dict[str, Any] = {"events": told.append, "metrics_file": metrics, "http": network}
        running = asyncio.create_task(cometbatch.run_async(job_of(bench), **options))
        asyncio.get_running_loop().call_at(12.0, running.cancel)
        with pytest.raises(asyncio.CancelledError) as raised:
            await running
        return raised.value.__cause__

    cause, summary = virtual_time.run(main()), cometbatch.status(bench.output).summary
    assert isinstance(cause, cometbatch.TerminatedRunError)
    assert (cause.summary.tally, cause.summary.finished) == (summary.tally, False)
    stopped = told[-1]
    assert (stopped["event"], stopped["reason"], stopped["exit_code"]) == ("run_stopped", "terminated", 143)
    assert (stopped["succeeded"], stopped["thrown"]) == (summary.succeeded, charges(summary))
    lines = metrics.read_text().splitlines()
    assert 'cometbatch_exit_code{name="x"} 143' in lines
    assert f'cometbatch_rows_total{{name="x",status="succeeded",error_kind=""}} {summary.succeeded}' in lines
    assert f'cometbatch_resent_total{{name="x"}} {charges(summary)}' in lines


def test_a_time_limit_of_the_caller_gets_its_own_error(bench: Workbench) -> None:
    """`asyncio.timeout` around a run raises `TimeoutError`, once what was in flight is recorded."""
    network = SlowNetwork([10.0])

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await cometbatch.run_async(job_of(bench), progress=False, http=network)

    virtual_time.run(main())
    assert cometbatch.status(bench.output).summary.tally.calls == 4


def test_ctrl_c_waits_for_what_is_in_flight_as_long_as_it_takes(bench: Workbench) -> None:
    """`limits.stop_within_s` is for those who are stopped by a program."""
    network = SlowNetwork([200.0])
    network.on_post = lambda posts: os.kill(os.getpid(), signal.SIGINT) if posts == 4 else None

    async def main() -> None:
        with pytest.raises(cometbatch.InterruptedRunError):
            await cometbatch.run_async(job_of(bench), progress=False, http=network)

    virtual_time.run(main())
    assert cometbatch.status(bench.output).summary.tally.calls == network.answered == 4


@pytest.mark.parametrize(("second", "answered"), [(signal.SIGHUP, 4), (signal.SIGTERM, 0), (signal.SIGINT, 0)], ids=str)
def test_a_second_signal_gives_up_at_once_unless_it_says_the_same(
    bench: Workbench, second: signal.Signals, answered: int
) -> None:
    """The end of a login session sends SIGTERM and SIGHUP together."""
    network = SlowNetwork([10.0])

    async def main() -> None:
        for seconds, number in ((2.0, signal.SIGTERM), (3.0, second)):
            asyncio.get_running_loop().call_later(seconds, os.kill, os.getpid(), number)
        with pytest.raises(cometbatch.TerminatedRunError):
            await cometbatch.run_async(job_of(bench), progress=False, http=network)

    virtual_time.run(main())
    summary = cometbatch.status(bench.output).summary
    assert (summary.tally.calls, charges(summary), network.answered) == (answered, 4 - answered, answered)


def test_a_signal_reaches_each_run_of_the_process(tmp_path: Path) -> None:
    """Two runs on one loop both end, also where one of them began and ended while the other went on."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    benches = [Workbench(tmp_path / name) for name in ("a", "b", "c")]
    for bench in benches:
        bench.folder.mkdir()
        bench.write_rows(ROWS)
    quick, *slow = [SlowNetwork([latency_s]) for latency_s in (0.1, 8.0, 8.0)]

    async def main() -> list[cometbatch.RunSummary | BaseException]:
        runs = [
            cometbatch.run_async(job_of(bench), progress=False, http=network)
            for bench, network in zip(benches, (quick, *slow), strict=True)
        ]
        asyncio.get_running_loop().call_later(5.0, os.kill, os.getpid(), signal.SIGTERM)
        return list(await asyncio.gather(*runs, return_exceptions=True))

    first, *others = virtual_time.run(main())
    assert isinstance(first, cometbatch.RunSummary)
    assert all(isinstance(other, cometbatch.TerminatedRunError) for other in others)
    assert [network.answered for network in slow] == [4, 4]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_run_in_a_thread_leaves_signals_alone(bench: Workbench) -> None:
    """They are the program's own; an event stops the run, from whichever thread it is set."""
    stop, network, seen = threading.Event(), SlowNetwork([0.05]), list[object]()
    errors = list[cometbatch.TerminatedRunError]()

    def fifth(posts: int) -> None:
        seen.append(signal.getsignal(signal.SIGTERM))
        if posts == 5:
            stop.set()

    def work() -> None:
        with pytest.raises(cometbatch.TerminatedRunError) as raised:
            cometbatch.run(job_of(bench), stop=stop, progress=False, http=network)
        errors.append(raised.value)

    network.on_post = fifth
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(LIMIT_S)
    assert set(seen) == {before}
    assert errors[0].summary.tally.calls == network.answered == network.posts < ROWS


# -- before and after the loop ----------------------------------------------------------------------------------------


def test_an_event_that_is_set_already_sends_and_makes_nothing(bench: Workbench) -> None:
    """The summary says what the run had come to."""
    stop, network = threading.Event(), Network()
    stop.set()
    before = list(bench.folder.iterdir())
    with pytest.raises(cometbatch.TerminatedRunError) as raised:
        virtual_time.run(cometbatch.run_async(job_of(bench), stop=stop, progress=False, http=network))
    assert (raised.value.summary.tally.calls, raised.value.summary.finished) == (0, False)
    assert (network.requests, list(bench.folder.iterdir())) == ([], before)
    carry_out(job_of(bench), network)
    with pytest.raises(cometbatch.TerminatedRunError) as raised:
        virtual_time.run(cometbatch.run_async(job_of(bench), stop=stop, progress=False, http=network))
    assert raised.value.summary.finished


def test_a_stop_while_prices_are_waited_for_ends_the_run_at_once(bench: Workbench) -> None:
    """Nothing is in flight that could be lost."""
    network, stop = SlowNetwork([1.0], catalog_s=20.0), threading.Event()
    job = bench.job(limits={"concurrency": 4})
    run = cometbatch.run_async(job, stop=stop, progress=False, http=network)
    assert virtual_time.run(ended(run, 3.0, stop.set)) <= 0.1
    assert network.posts == 0


@pytest.fixture
def slow_result(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A result that takes 0.02 s for each part, once publishing has begun, which the event says."""
    really, begun = parts.merge, threading.Event()

    def slowly(file: Any, paths: Any, *arguments: Any, **options: Any) -> None:
        def slow_paths() -> Iterator[Path]:
            for path in paths:
                begun.set()
                time.sleep(0.02)
                yield path

        really(file, slow_paths(), *arguments, **options)

    monkeypatch.setattr(parts, "merge", slowly)
    return begun


@pytest.mark.parametrize(("within_s", "is_finished"), [(0.05, False), (WITHIN_S, True)])
def test_publishing_has_the_same_time_and_the_rename_decides(
    bench: Workbench, slow_result: threading.Event, within_s: float, *, is_finished: bool
) -> None:
    """A result that is there in time ends the run well. Else the next run publishes, and sends nothing."""
    network = SlowNetwork([0.0])
    job = bench.job(limits={"stop_within_s": within_s}, output={"partition_rows": 1})
    run = cometbatch.run_async(job, stop=slow_result, progress=False, http=network)
    if is_finished:
        assert asyncio.run(run).finished
    else:
        with pytest.raises(cometbatch.TerminatedRunError, match="publish the result") as raised:
            asyncio.run(run)
        assert (raised.value.summary.tally.calls, raised.value.summary.finished) == (ROWS, False)
        assert [path.name for path in bench.folder.iterdir() if path.is_file()] == ["in.csv"]
        assert carry_out(job, network).finished
    assert (network.posts, bench.result().num_rows) == (ROWS, ROWS)


def test_a_run_that_is_cancelled_while_it_publishes_has_published(
    bench: Workbench, slow_result: threading.Event
) -> None:
    """The cancel goes on once the result is there, and who listens is told that the run is finished."""
    told: list[dict[str, Any]] = []

    async def main() -> None:
        job = bench.job(output={"partition_rows": 1})
        running = asyncio.create_task(cometbatch.run_async(job, events=told.append, http=SlowNetwork([0.0])))
        await asyncio.to_thread(slow_result.wait, LIMIT_S)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert bench.result().num_rows == ROWS
    assert (told[-1]["event"], told[-1]["exit_code"]) == ("run_finished", 0)


# -- another process has the run --------------------------------------------------------------------------------------


def test_a_run_waits_for_another_process_and_goes_on_where_that_ended(
    bench: Workbench, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says whom it waits for; what was answered meanwhile is not asked again."""
    network = Network()
    assert carry_out(job_of(bench), network).succeeded == ROWS
    held = RunDirectory(bench.run_directory)

    async def main() -> cometbatch.RunSummary:
        with held.locked():
            running = asyncio.create_task(cometbatch.run_async(job_of(bench), wait_s=120, progress=False, http=network))
            await asyncio.sleep(60)
        summary = await running
        assert 60 <= asyncio.get_running_loop().time() <= 61
        return summary

    summary = virtual_time.run(main())
    assert (summary.had_work, network.posts) == (False, ROWS)
    said = capsys.readouterr().err
    assert said.startswith("Waiting for at most 120 s: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("wait_s", [0.0, 5.0])
def test_a_run_waits_no_longer_than_it_was_told(bench: Workbench, wait_s: float) -> None:
    """Then it is refused as without the wait."""

    async def main() -> float:
        with RunDirectory(bench.run_directory).locked(), pytest.raises(cometbatch.RunLockedError):
            await cometbatch.run_async(job_of(bench), wait_s=wait_s, progress=False, http=Network())
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == pytest.approx(wait_s)


@pytest.mark.parametrize("wait_s", [-1.0, float("nan"), float("inf")])
def test_a_time_that_nobody_can_wait_is_refused(bench: Workbench, wait_s: float) -> None:
    """Before anything else."""
    with pytest.raises(cometbatch.UsageError, match="--wait"):
        cometbatch.run(job_of(bench), wait_s=wait_s, http=Network())


def test_a_stop_ends_the_wait_at_once(bench: Workbench) -> None:
    """An event as a signal does."""
    stop = threading.Event()
    with RunDirectory(bench.run_directory).locked():
        run = cometbatch.run_async(job_of(bench), wait_s=120, stop=stop, progress=False, http=Network())
        assert virtual_time.run(ended(run, 10.0, stop.set)) <= 0.1


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency_s", [float(each) for each in LATENCIES_S.split()])
@pytest.mark.parametrize("name", SIGNALS.split())
def test_a_terminated_command_ends_in_time(bench: Workbench, latency_s: float, name: str) -> None:
    """Whatever the answers take: recorded is what was answered, and the next run re-sends only what was given up."""
    bench.write_rows(40)
    with StubServer(latency_s=(latency_s, latency_s)) as server:
        limits = {"concurrency": 8, "adaptive": False, "stop_within_s": STOP_WITHIN_S}
        job = bench.write_job(target=target(server), limits=limits)
        with background("run", job) as process:
            wait_until(lambda: server.requests >= 8, "the first requests")
            process.send_signal(getattr(signal, name))
            asked_at = time.monotonic()
            _, stderr = process.communicate(timeout=STOP_WITHIN_S + LIMIT_S)
            seconds = time.monotonic() - asked_at
        assert process.returncode == CODES[name]
        assert seconds <= min(latency_s, STOP_WITHIN_S) + END_S + BUSY_S
        assert f"in flight, for at most {STOP_WITHIN_S:g} s" in stderr
        recorded, given_up = server.answered.total(), server.requests - server.answered.total()
        assert (given_up > 0) is (latency_s > STOP_WITHIN_S)
        assert ("as a possible extra charge" in stderr) is (given_up > 0)
        between = cometbatch.status(bench.output).summary
        assert (between.tally.calls, charges(between)) == (recorded, given_up)
        server.latency_s = (0.0, 0.0)
        summary = one_object(command("run", job, "--json").stdout)
        assert (summary["succeeded"], summary["resent"]) == (40, given_up)
        assert server.requests == 40 + given_up


def test_a_command_that_waits_for_the_lock_ends_at_a_signal(bench: Workbench) -> None:
    """At once, and says how to go on. The metrics file stays that of the process that has the run."""
    metrics = bench.folder / "x.prom"
    metrics.write_text("theirs\n")
    with RunDirectory(bench.run_directory).locked():
        line = ("run", bench.write_job(simulator={"latency_s": 0}), "--wait", "120", "--metrics-file", metrics)
        with background(*line) as process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("Waiting for at most 120 s: ")
            process.send_signal(signal.SIGTERM)
            asked_at = time.monotonic()
            _, stderr = process.communicate(timeout=LIMIT_S)
            assert time.monotonic() - asked_at <= END_S + BUSY_S
        assert process.returncode == 143
        assert stderr.startswith("Terminated. Continue with: cometbatch run ")
    assert metrics.read_text() == "theirs\n"


@pytest.mark.parametrize("is_log", [False, True])
def test_a_command_does_not_wait_for_what_hangs(*, is_log: bool) -> None:
    """A thread that can't be stopped (a look-up of a name, a large input) is cut off in the end; a log has an event."""
    program = (
        "import os, signal, sys, threading, time\n"
        "from cometbatch import process\n"
        "from cometbatch.cli import printing\n"
        f"{'printing.log_as_json()' if is_log else ''}\n"
        "process.prepare(lambda code: sys.exit(code), printing.last_line)\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    began = time.monotonic()
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment())
    assert (done.returncode, done.stderr.count("\n")) == (143, 1)
    if is_log:
        event = json.loads(done.stderr)
        assert (event["event"], event["exit_code"], event["message"]) == ("error", 143, command_process.CUT)
    assert time.monotonic() - began < END_S + 3 * BUSY_S  # with the start of a Python


# -- several runs in one process --------------------------------------------------------------------------------------


def test_files_that_a_run_may_still_open_are_not_there_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two runs gets what is left, and all of it again once the first has ended."""
    monkeypatch.setattr(open_files, "raise_open_files", lambda: 1000)
    monkeypatch.setattr(open_files, "_open_now", lambda: 24)
    with fitted(600, 8192) as (first, _, _):
        assert first == 600
        with fitted(600, 8192) as (second, _, words):
            assert 24 + files_for(600, 8192) + files_for(second, 8192) <= 1000
            assert f"at most {second} requests" in words
        with pytest.raises(cometbatch.UsageError, match="at least"), fitted(600, 8192), fitted(600, 8192):
            pass
    with fitted(600, 8192) as (again, _, _):
        assert again == 600


def test_a_line_says_whose_it_is_where_several_runs_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """With a single run nothing is said of it."""
    one = Progress(10, Tally(), on=False, name="a.parquet")
    one.say("first")
    two = Progress(10, Tally(), on=False, name="b.parquet")
    one.say("second")
    two.say("third")
    two.close()
    one.say("fourth")
    one.close()
    assert capsys.readouterr().err.splitlines() == ["first", "a.parquet: second", "b.parquet: third", "fourth"]


def test_several_simulators_start_beside_each_other(tmp_path: Path) -> None:
    """Each run has its own, and none waits for another's."""
    jobs = []
    for name in ("a", "b"):
        bench = Workbench(tmp_path / name)
        bench.folder.mkdir()
        bench.write_rows(ROWS)
        jobs.append(bench.job(simulator={"latency_s": 0}))

    async def main() -> list[cometbatch.RunSummary]:
        return list(await asyncio.gather(*(cometbatch.run_async(job, progress=False) for job in jobs)))

    assert [summary.succeeded for summary in asyncio.run(main())] == [ROWS, ROWS]


def test_a_stop_must_be_something_that_can_be_set(bench: Workbench) -> None:
    """Told before anything is done."""
    wrong: Any = True
    with pytest.raises(cometbatch.UsageError, match=r"threading\.Event"):
        cometbatch.run(job_of(bench), stop=wrong, http=Network())
    with pytest.raises(cometbatch.UsageError, match=r"cometbatch\.Limits"):
        cometbatch.run(job_of(bench), limits=json.loads('{"concurrency": 4}'), http=Network())
