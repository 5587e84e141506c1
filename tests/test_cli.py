"""The command line as people and programs meet it: real processes, their exit codes, their words, their files."""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.cli import EXIT_CODES, cli
from cometbatch.commands import progress_line, session_watch
from cometbatch.commands.progress_line import Progress
from cometbatch.records import Answered, Completion, Failed, Failure, Tally, Usage
from cometbatch.run_state.directory import RunDirectory
from tests.stub_server import MODEL, StubServer, Trouble, wait_until
from tests.workbench import KEY, KEY_ENV, Workbench, files

COMMAND = (sys.executable, "-m", "cometbatch")
LIMIT_S = 60  # for a process that takes a second on an idle machine


def environment() -> dict[str, str]:
    """The variables of this process, with a key."""
    return {**os.environ, KEY_ENV: KEY, "PYTHONPATH": str(Path(cometbatch.__file__).parent.parent)}


def command(*arguments: str | Path, key: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `cometbatch` to its end, with nothing that is a terminal."""
    variables = environment()
    if not key:
        del variables[KEY_ENV]
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


@contextlib.contextmanager
def background(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A `cometbatch` that goes on while the test does; gone at the end."""
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def server() -> Iterator[StubServer]:
    """A stub service that answers at once."""
    with StubServer() as stub:
        yield stub


def target(server: StubServer) -> dict[str, object]:
    """The keys of a job that lead to this server."""
    return {"base_url": server.base_url, "model": MODEL}


def one_object(stdout: str) -> dict[str, Any]:
    """The one JSON object that standard output holds, and nothing beside it."""
    assert stdout.count("\n") == 1
    assert stdout.endswith("\n")
    return dict(json.loads(stdout))


# -- run ---------------------------------------------------------------------------------------------------------------


def test_a_good_run_speaks_to_people_on_stdout_and_is_quiet_on_stderr(bench: Workbench, server: StubServer) -> None:
    """Exit code 0, a summary with rows, tokens and cost, and no progress line where there is no terminal."""
    done = command("run", bench.write_job(target=target(server)))
    assert (done.returncode, done.stderr) == (0, "")
    assert "12 of 12 rows: 12 succeeded, 0 incomplete, 0 failed" in done.stdout
    assert re.search(r"tokens: \d+ in .*, \d+ out", done.stdout)
    assert re.search(r"cost: \$0\.\d+ \(prices: catalog\)", done.stdout)
    assert f"result: {bench.output}" in done.stdout
    assert bench.result()["status"].to_pylist() == ["succeeded"] * 12


def test_json_is_the_only_thing_on_stdout(bench: Workbench, server: StubServer) -> None:
    """One object on one line, with exact money; run, status and plan alike."""
    job = bench.write_job(target=target(server))
    plan = one_object(command("plan", job, "--json").stdout)
    assert (plan["rows"], plan["done"], server.requests) == (12, 0, 0)
    run = one_object(command("run", job, "--json").stdout)
    assert (run["succeeded"], run["finished"], run["remaining"]) == (12, True, 0)
    assert Decimal(run["cost_usd"]) == sum(bench.result()["cost_usd"].to_pylist())
    for path in (job, bench.output, bench.run_directory):
        status = one_object(command("status", path, "--json").stdout)
        assert (status["run_id"], status["cost_usd"], status["running"]) == (run["run_id"], run["cost_usd"], False)


def test_a_finished_run_is_left_as_it_is(bench: Workbench, server: StubServer) -> None:
    """Again is harmless: exit code 0, no request, no file changed."""
    job = bench.write_job(target=target(server))
    command("run", job)
    before, requests = files(bench.folder), server.requests
    again = command("run", job)
    assert (again.returncode, again.stderr, server.requests) == (0, "", requests)
    assert "nothing was sent" in again.stdout
    assert files(bench.folder) == before


def test_failed_rows_end_with_3_and_a_result(bench: Workbench) -> None:
    """The run is finished and the result is there, but not all of it is answers; the simulator needs no key."""
    job = bench.write_job(simulator={"latency_s": [0, 0.01], "faults": {"400": 0.5}})
    done = command("run", job, "--json", key=False)
    summary = one_object(done.stdout)
    assert (done.returncode, done.stderr, summary["finished"]) == (3, "", True)
    assert 0 < summary["failures"]["invalid_request"] == 12 - summary["succeeded"]
    again = command("run", job, key=False)
    assert (again.returncode, again.stderr) == (3, "")
    assert "invalid_request" in again.stdout


def test_warnings_are_on_stderr_alone(bench: Workbench) -> None:
    """A price that is not known is said there, and standard output stays a program's."""
    job = bench.write_job(target={"model": "comet-sim-unpriced"}, simulator={"latency_s": [0, 0.01]})
    done = command("run", job, "--json")
    assert (done.returncode, one_object(done.stdout)["cost_usd"]) == (0, None)
    assert done.stderr.splitlines() == [line for line in done.stderr.splitlines() if line.startswith("Warning: ")]
    assert "no known price" in done.stderr


def test_set_overrides_the_job(bench: Workbench, server: StubServer) -> None:
    """`--set` reaches any key, may be repeated, and is checked like the file."""
    job = bench.write_job(target={**target(server), "model": "no-such-model"})
    elsewhere = bench.folder / "elsewhere.parquet"
    overrides = ("--set", f"target.model={MODEL}", "--set", f"output.path={elsewhere}")
    assert command("run", job, *overrides).returncode == 0
    assert pq.read_table(elsewhere).num_rows == 12
    wrong = command("run", job, "--set", "limits.concurency=3")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--set limits.concurency: unknown key; did you mean 'concurrency'?" in wrong.stderr


def test_a_refused_key_ends_with_5_and_the_way_to_carry_on(bench: Workbench) -> None:
    """The summary so far is printed, the reason and the very command to run again are on stderr."""
    with StubServer(Trouble(refuse_key=True)) as server:
        job = bench.write_job(target=target(server))
        done = command("run", job, "--json", "--fresh", "--set", "limits.concurrency=3")
    summary = one_object(done.stdout)
    assert (done.returncode, summary["finished"], summary["remaining"]) == (5, False, 12)
    assert "target.key_env" in done.stderr
    last = done.stderr.splitlines()[-1]
    expected = shlex.join(["cometbatch", "run", str(job), "--json", "--set", "limits.concurrency=3"])
    assert last == f"stopped at 0 of 12 rows; continue with: {expected}"


def test_a_second_process_ends_with_6(bench: Workbench, server: StubServer) -> None:
    """One writer at a time."""
    job = bench.write_job(target=target(server))
    with RunDirectory(bench.run_directory).locked():
        done = command("run", job)
    assert (done.returncode, done.stdout, server.requests) == (6, "", 0)
    assert "is running this job" in done.stderr


def test_a_damaged_run_directory_ends_with_1(bench: Workbench, server: StubServer) -> None:
    """The message names the file and what to do."""
    job = bench.write_job(target=target(server))
    command("run", job)
    (bench.run_directory / "manifest.json").write_bytes(b'{"version": 1')
    done = command("run", job)
    assert (done.returncode, done.stdout) == (1, "")
    assert "manifest.json" in done.stderr
    assert "--fresh" in done.stderr


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no such column": ({"prompt": {"user": "{{ nowhere }}"}}, "nowhere"),
    "unknown key": ({"limits": {"speed": 9}}, "limits.speed"),
    "unknown section": ({"wishes": {"a": 1}}, "wishes"),
    "no such input": ({"input": {"path": "/nowhere.csv"}}, "/nowhere.csv"),
    "unknown format": ({"target": {"format": "telegram"}}, "target.format"),
    "key in the job": ({"target": {"key_env": "sk-0123456789abcdef"}}, "environment variable"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_job_ends_with_2_and_says_where(bench: Workbench, mistake: str) -> None:
    """Nothing is sent, nothing is made, and the words name the key or the column; never a traceback."""
    sections, words = MISTAKES[mistake]
    job = bench.write_job(**sections)
    before = files(bench.folder)
    done = command("run", job)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "sk-0123456789abcdef" not in done.stderr
    assert files(bench.folder) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("run", "/nowhere/job.yaml"), "/nowhere/job.yaml", id="no job file"),
        pytest.param(("status", "/nowhere/out.parquet"), "no run", id="no run"),
        pytest.param(("run",), "JOB_FILE", id="no argument"),
        pytest.param(("walk", "job.yaml"), "walk", id="no such command"),
        pytest.param(("run", "job.yaml", "--fast"), "--fast", id="no such option"),
        pytest.param(("simulate", "--fault", "430:0.5"), "429", id="no such fault"),
        pytest.param(("simulate", "--credit", "much"), "much", id="no amount"),
    ],
)
def test_a_wrong_command_ends_with_2_and_a_sentence(arguments: tuple[str, ...], words: str) -> None:
    """The sentence names what is wrong."""
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_a_missing_key_ends_with_2_and_names_its_variable(bench: Workbench, server: StubServer) -> None:
    """Before anything is made."""
    done = command("run", bench.write_job(target=target(server)), key=False)
    assert (done.returncode, done.stdout, server.requests) == (2, "", 0)
    assert KEY_ENV in done.stderr
    assert not bench.run_directory.exists()


# -- stopping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_first_signal_finishes_what_is_in_flight(bench: Workbench, number: signal.Signals, code: int) -> None:
    """Every answer that was asked for is recorded, nothing new is asked, and the command that resumes it works."""
    bench.write_rows(100)
    with StubServer(latency_s=(0.2, 0.3)) as server:
        job = bench.write_job(target=target(server), limits={"concurrency": 8})
        with background("run", job) as process:
            wait_until(lambda: server.requests >= 12, "some requests")
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=LIMIT_S)
        assert process.returncode == code
        assert re.search(r"finishing \d requests in flight", stderr)
        line = f"stopped at {server.requests} of 100 rows; continue with: {shlex.join(['cometbatch', 'run', str(job)])}"
        assert stderr.splitlines()[-1] == line
        assert "Traceback" not in stderr
        assert f"{server.requests} of 100 rows" in stdout
        status = cometbatch.status(bench.output)
        assert status.summary.tally.calls == server.answered.total() == server.requests < 100
        server.latency_s = (0.0, 0.0)
        assert command("run", job).returncode == 0
        assert (server.requests, server.wasted) == (100, 0)


def test_a_second_signal_stops_now(bench: Workbench) -> None:
    """What was in flight is given up and sent again by the next run, which says so."""
    with StubServer(latency_s=(300.0, 300.0)) as server:
        job = bench.write_job(target=target(server), limits={"concurrency": 4})
        with background("run", job) as process:
            assert process.stderr is not None
            wait_until(lambda: server.requests == 4, "the first requests")
            process.send_signal(signal.SIGINT)
            assert "finishing 4 requests in flight" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 130
        assert "Stopping now" in stderr
        assert "0 of 12 rows" in stdout
        server.latency_s = (0.0, 0.0)
        done = command("run", job, "--json")
        summary = one_object(done.stdout)
        assert (done.returncode, summary["succeeded"], summary["resent"]) == (0, 12, 4)


# -- plan, status, simulate, help --------------------------------------------------------------------------------------


def test_plan_shows_a_page_and_sends_no_prompt(bench: Workbench, server: StubServer) -> None:
    """Rows, the first request and the ceiling of the cost; no file is made."""
    job = bench.write_job(target=target(server))
    before = files(bench.folder)
    done = command("plan", job)
    assert (done.returncode, done.stderr, server.requests, files(bench.folder)) == (0, "", 0, before)
    assert "12 rows" in done.stdout
    assert f"POST {server.base_url}/v1/chat/completions" in done.stdout
    assert "Parcel 0000 says: note 0" in done.stdout
    assert re.search(r"cost: at most about \$0\.\d+", done.stdout)


def test_status_tells_a_person_how_a_run_stands(bench: Workbench, server: StubServer) -> None:
    """State, partitions, rows, cost and latency."""
    job = bench.write_job(target=target(server))
    command("run", job)
    done = command("status", bench.output)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("finished", "1 of 1 committed", "12 of 12 rows", "cost: $", "latency: median"):
        assert words in done.stdout


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, "stdin"])
def test_simulate_says_where_it_listens_and_serves(end: signal.Signals | str) -> None:
    """The first line is the address; there is a catalog; it ends when told to, without a traceback."""
    options = ("--until-stdin-closes",) if end == "stdin" else ()
    with background("simulate", "--port", "0", "--latency", "0", *options) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        found = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", process.stdout.readline())
        assert found
        with urllib.request.urlopen(f"{found[1]}/api/models", timeout=LIMIT_S) as reply:
            assert any(model["id"] == "comet-sim-1" for model in json.load(reply)["data"])
        if isinstance(end, signal.Signals):
            process.send_signal(end)
        else:
            process.stdin.close()
            process.stdin = None
        _, stderr = process.communicate(timeout=LIMIT_S)
    assert "Traceback" not in stderr
    assert process.returncode in (0, 130, 143)


def test_simulate_lists_its_faults() -> None:
    """Each with a word on what it does."""
    done = command("simulate", "--faults")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(cometbatch.FAULTS)


def test_status_of_a_stopped_run_ends_with_the_command_that_resumes_it(bench: Workbench) -> None:
    """With the job file and what was set over it, where these were given; the same command works when pasted."""
    with StubServer(Trouble(refuse_key=True)) as server:
        job = bench.write_job(target={**target(server), "model": "none"})
        override = ("--set", f"target.model={MODEL}")
        assert command("run", job, *override).returncode == 5
    said = command("status", job, *override).stdout.splitlines()
    assert "stopped" in said[0]
    expected = shlex.join(["cometbatch", "run", str(job), *override])
    assert said[-1] == f"stopped at 0 of 12 rows; continue with: {expected}"
    assert command("status", bench.output).stdout.endswith("continue with: cometbatch run JOB_FILE\n")


def test_every_command_and_option_is_documented() -> None:
    """`--help` names each command with a sentence and an example, and each option has its words."""
    page = command("--help")
    assert (page.returncode, page.stderr) == (0, "")
    for name, each in cli.commands.items():
        assert re.search(rf"^  {name} +\w", page.stdout, re.MULTILINE)
        assert each.help
        assert f"Example: cometbatch {name} " in command(name, "--help").stdout
        options = [parameter for parameter in each.params if isinstance(parameter, click.Option)]
        assert all(option.help for option in options), name


def test_help_and_version_load_nothing_heavy() -> None:
    """The command line answers such questions at once: what a run needs is only loaded for a run."""
    heavy = "{'pyarrow', 'polars', 'httptools', 'httpx', 'tqdm', 'jinja2', 'uvicorn', 'yaml', 'msgspec'}"
    program = (
        "import sys\n"
        "from cometbatch.cli import cli\n"
        "cli.main(sys.argv[1:], standalone_mode=False)\n"
        f"print('loaded:', sorted({heavy} & set(sys.modules)))\n"
    )
    for arguments in (["--help"], ["run", "--help"], ["simulate", "--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], env=environment(), capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "loaded: []", arguments
    assert cometbatch.__version__ in done.stdout


def test_a_job_without_scores_loads_nothing_of_scores_and_reports(tmp_path: Path) -> None:
    """A plan and a run of it, up to its result, start as fast as if there were no evaluation."""
    bench = Workbench(tmp_path)
    bench.write_rows(3)
    program = (
        "import sys\n"
        "from cometbatch.cli import cli\n"
        "try:\n    cli.main(sys.argv[1:], standalone_mode=False)\nexcept SystemExit:\n    pass\n"
        "rooms = ('cometbatch.evaluation', 'cometbatch.reports', 'cometbatch.commands.scoring')\n"
        "print('loaded:', sorted(name for name in sys.modules if name.startswith(rooms)))\n"
    )
    job = bench.write_job()
    for arguments in (["plan"], ["run", "--quiet"]):
        words = [sys.executable, "-c", program, *arguments, str(job)]
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "loaded: []", arguments
    assert bench.result().num_rows == 3


def test_the_exit_codes_of_errors_are_in_the_table() -> None:
    """No error ends with a code that the documentation does not name."""
    documented = {code for code, _ in EXIT_CODES}
    kinds = [cometbatch.CometbatchError]
    while kinds:
        kind = kinds.pop()
        assert kind.exit_code in documented
        kinds += kind.__subclasses__()


# -- the progress line -------------------------------------------------------------------------------------------------


def on_a_terminal(arguments: list[str], columns: int) -> tuple[int, str]:
    """Run a command with a pseudo-terminal for its output: exit code and what was shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    with subprocess.Popen(arguments, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody writes to it any more
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)
    return process.returncode, shown.decode()


@pytest.mark.parametrize("columns", [80, 0])
def test_the_progress_line_tells_rows_time_rate_cost_and_requests_in_flight(bench: Workbench, columns: int) -> None:
    """On a terminal of the usual width, and on one that doesn't know its width, the bill so far can be read."""
    bench.write_rows(60)
    with StubServer(latency_s=(0.1, 0.2)) as server:
        job = bench.write_job(target=target(server), limits={"concurrency": 12})
        code, shown = on_a_terminal([*COMMAND, "run", str(job)], columns)
    assert code == 0
    lines = [line for line in re.split(r"[\r\n]+", shown) if "%" in line]
    assert all(len(line) <= 80 for line in lines)
    pattern = r" *(\d+)% (\d+)/60 · \d+:\d\d (?:left|elapsed) · [\d.]+/s · \$([\d.]+) · (\d+) in flight *"
    states = [found for line in lines if (found := re.fullmatch(pattern, line))]
    assert len(states) >= 3
    assert [int(states[0][2]), int(states[-1][2]), int(states[-1][4])] == [0, 60, 0]
    costs = [Decimal(state[3]) for state in states]
    assert costs == sorted(costs)
    assert costs[-1] == cometbatch.status(bench.output).summary.tally.cost_usd.quantize(Decimal("0.0001"))
    assert "60 of 60 rows" in shown


class BrokenTerminal(io.StringIO):
    """One that is gone after some writes."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self._left = writes

    def write(self, text: str) -> int:
        self._left -= 1
        if self._left < 0:
            raise OSError("Input/output error")
        return super().write(text)


def succeeded(cost_usd: Decimal | None) -> Answered:
    """An outcome with this cost."""
    completion = Completion("text", "stop", Usage(3, 4))
    return Answered(0, "succeeded", None, 1, 0.1, datetime.now(UTC), "", 200, None, completion, cost_usd)


@pytest.mark.parametrize("writes", range(6))
def test_a_terminal_that_is_gone_is_no_reason_to_fail(writes: int) -> None:
    """Whichever drawing it is that fails, the run never hears of it."""
    progress = Progress(2, Tally(), on=True, stream=BrokenTerminal(writes))
    progress.say("hello")
    progress.asked_to_slow_down(1.5)
    progress.recorded([succeeded(Decimal("0.1"))], 1)
    progress.close()
    other = threading.Thread(target=lambda: Progress(2, Tally(), on=False).say("hello"), daemon=True)
    other.start()
    other.join(timeout=30)
    assert not other.is_alive(), "nor does a run in another thread wait for it"


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ([None, None], " · cost unknown · "),
        ([None, Decimal("0.1")], " · $0.1000 (1 unpriced) · "),
        ([Decimal("0.1"), Decimal("0.2")], " · $0.3000 · "),
    ],
)
def test_an_unknown_cost_is_not_shown_as_nothing(costs: list[Decimal | None], words: str) -> None:
    """The progress line tells what is known, and that something is not."""
    stream = io.StringIO()
    progress = Progress(2, Tally(), on=True, stream=stream)
    for cost in costs:
        progress.recorded([succeeded(cost)], 0)
    progress.close()
    assert words in stream.getvalue()


def drawn(stream: io.StringIO) -> str:
    """The line as it was drawn last."""
    return re.split(r"[\r\n]+", stream.getvalue().rstrip())[-1].rstrip()


def test_the_progress_line_is_redrawn_before_the_first_answer() -> None:
    """Nothing has come yet, and still a person sees that requests are in flight and what the next one waits for."""
    stream = io.StringIO()
    progress = Progress(100, Tally(), on=True, stream=stream)
    progress.redraw(9, "rate limit")
    assert re.fullmatch(r"  0% 0/100 · 0:0\d elapsed · 0/s · \$0 · 9 in flight · waiting: rate limit", drawn(stream))
    progress.redraw(8, "")
    assert drawn(stream).endswith(" · 8 in flight")
    progress.close()


def test_the_progress_line_shows_rows_that_fell_short_when_there_are_some() -> None:
    """Failed and incomplete rows of earlier sessions and of this one are counted; none is not worth a word."""
    stream = io.StringIO()
    progress = Progress(100, Tally(succeeded=20, incomplete=1), on=True, stream=stream)
    assert drawn(stream).endswith(" · 0 in flight · 1 incomplete")
    failure = Failure("timeout", "no answer")
    progress.recorded([Failed(0, None, 1, 0.1, datetime.now(UTC), "", failure)], 5)
    progress.redraw(5, "")
    assert drawn(stream).startswith(" 22% 22/100 · ")
    assert drawn(stream).endswith(" · 5 in flight · 1 incomplete · 1 failed")
    progress.close()


def test_the_rate_is_that_of_the_last_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows a second and the time left follow the service, from the first answers on; an outage ends as no rate."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    progress = Progress(100_000, Tally(), on=True, stream=stream)
    row, shown = succeeded(Decimal("0.001")), {}
    for second in range(1, 1001):
        clock[0] += 1.0
        if second <= 600:
            progress.recorded([row] * (10 if second <= 300 else 40), 9)
        progress.redraw(9, "")
        shown[second] = drawn(stream)
    assert " · 2:46:39 left · 10/s · " in shown[1]
    assert " · 2:45:00 left · 10/s · " in shown[100]
    assert " · 35:25 left · 40/s · " in shown[600]
    assert " · 16:40 elapsed · 0/s · " in shown[1000]
    progress.close()


def test_without_a_terminal_a_line_tells_how_the_run_goes_at_10_s_and_each_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A log shows rows, time left, rate, cost and what is waited for, in whole lines of which none is redrawn."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    progress = Progress(1_000, Tally(), stream=stream)
    shown: list[tuple[int, str]] = []
    for second in range(1, 190):
        clock[0] += 1.0
        progress.recorded([succeeded(Decimal("0.001"))] * 2, 9)
        progress.redraw(9, "rate limit" if second > 100 else "")
        shown += [(second, line) for line in stream.getvalue().splitlines()[len(shown) :]]
    progress.close()
    assert [second for second, _ in shown] == [10, 60, 120, 180]
    assert shown[0][1] == "2% 20/1,000 · 8:10 left · 2.0/s · $0.0200 · 9 in flight"
    assert shown[2][1] == "24% 240/1,000 · 6:20 left · 2.0/s · $0.2400 · 9 in flight · waiting: rate limit"
    assert "\r" not in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 4


def test_a_late_line_does_not_move_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines come at whole minutes from the start: a machine that slept prints one line, not all that it missed."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    progress = Progress(10, Tally(), stream=stream)
    lines = []
    for moment in (9.9, 10.5, 59.0, 60.5, 330.0, 359.0, 361.0):
        clock[0] = moment
        progress.redraw(1, "")
        lines.append(len(stream.getvalue().splitlines()))
    assert lines == [0, 1, 1, 2, 3, 3, 4]


@pytest.mark.parametrize("on", [None, False])
def test_a_log_that_is_full_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch, *, on: bool | None) -> None:
    """The lines end, and the run goes on."""
    monkeypatch.setattr(progress_line, "FIRST_LINE_S", 0.0)
    progress = Progress(2, Tally(), on=on, stream=BrokenTerminal(0))
    progress.redraw(1, "")
    progress.asked_to_slow_down(1.5)
    progress.recorded([succeeded(Decimal("0.1"))], 1)
    progress.redraw(1, "")
    progress.close()


def test_a_run_without_a_terminal_prints_its_lines(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also before the first answer; with `progress=False` (`--quiet`) there is no line."""
    monkeypatch.setattr(progress_line, "FIRST_LINE_S", 0.1)
    monkeypatch.setattr(session_watch, "WAITING_SHOWN_EVERY_S", 0.05)
    for progress, lines in ((None, 1), (False, 0)):
        job = bench.job(target={"base_url": "simulator", "model": "comet-sim-1"}, simulator={"latency_s": 0.5})
        cometbatch.run(job, progress=progress, fresh=True)
        said = capsys.readouterr().err.splitlines()
        assert len(said) == lines
        assert all(
            re.fullmatch(r"\d+% \d+/12 · 0:\d\d \w+ · [\d.]+/s · \$[\d.]+ · \d+ in flight", line) for line in said
        )


@pytest.mark.parametrize("columns", [100, 60, 40, 20, 5])
def test_the_progress_line_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """What matters less leaves the line first, so that it never wraps; rows and failures stay the longest."""
    monkeypatch.setattr(progress_line, "USUAL_TERMINAL", (columns, 24))
    stream = io.StringIO()
    progress = Progress(100_000, Tally(succeeded=23_000, failed=2, cost_usd=Decimal("1.5")), on=True, stream=stream)
    progress.redraw(256, "service asks to wait 30 s")
    line = drawn(stream)
    assert len(line) < columns
    assert line.startswith(" 23% 23,002/100,000"[: columns - 1])
    assert ("2 failed" in line) is (columns > 30)
    assert ("waiting" in line) is (columns == 100)
    progress.close()


def test_a_terminal_without_the_dot_gets_another_separator() -> None:
    """A line for a terminal whose encoding is ASCII holds ASCII alone."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    progress = Progress(100, Tally(), on=True, stream=stream)
    progress.redraw(9, "")
    progress.close()
    stream.seek(0)
    assert " | 9 in flight" in stream.read()


def test_quiet_means_quiet() -> None:
    """With the line off, nothing is drawn, but what must be said still is."""
    stream = io.StringIO()
    progress = Progress(2, Tally(), on=False, stream=stream)
    progress.recorded([succeeded(None)], 1)
    progress.redraw(1, "rate limit")
    progress.asked_to_slow_down(1)
    assert stream.getvalue() == ""
    progress.say("Stopping.")
    progress.close()
    assert stream.getvalue() == "Stopping.\n"


@pytest.mark.parametrize(
    ("fault", "way"),
    [
        ("credit", "stopped at 0 of 12 rows; continue with: cometbatch run"),
        ("model-not-found", "stopped at 0 of 12 rows; correct the job, then continue with: cometbatch run"),
        ("html-200", "stopped at 0 of 12 rows; correct the job, then continue with: cometbatch run"),
    ],
)
def test_just_the_same_command_is_advised_only_where_it_can_help(bench: Workbench, fault: str, way: str) -> None:
    """A wrong model or address would stop the same command again: there the job has to be corrected first."""
    simulated = {"faults": {fault: 1}, "latency_s": 0.01}
    done = command("run", bench.write_job(simulator=simulated, limits={"concurrency": 2}))
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1].startswith(way)


@pytest.mark.parametrize(("fault", "field"), [("no-max-completion-tokens", "auto"), ("no-max-tokens", "max_tokens")])
def test_the_command_after_a_refused_field_sets_the_other_name(bench: Workbench, fault: str, field: str) -> None:
    """It finishes the run as it is pasted."""
    simulated = {"faults": {fault: 1}, "latency_s": 0.01}
    job = bench.write_job(simulator=simulated, params={"max_tokens_field": field}, limits={"concurrency": 2})
    stopped = command("run", job)
    assert stopped.returncode == 5
    advised = shlex.split(stopped.stderr.splitlines()[-1].partition("continue with: cometbatch ")[2])
    assert command(*advised).returncode == 0


def test_status_takes_the_overrides_of_the_run(bench: Workbench) -> None:
    """A run that was given another output is found by the same command line."""
    job, other = bench.write_job(simulator={"latency_s": 0}), f"output.path={bench.folder}/other.parquet"
    assert command("run", job, "--set", other).returncode == 0
    assert command("status", job).returncode == 2
    assert "finished" in command("status", job, "--set", other).stdout


def test_a_reader_who_has_seen_enough_is_no_error(bench: Workbench) -> None:
    """A closed pipe ends the command with the usual code, without a traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [*COMMAND, "plan", str(bench.write_job(prices="none"))]
    done = subprocess.run(
        arguments, stdout=writing, stderr=subprocess.PIPE, env=environment(), timeout=LIMIT_S, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
