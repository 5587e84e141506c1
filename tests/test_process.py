"""What the command does to its own process: standard descriptors, signals, and systems on which it can't run."""

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import cometbatch
from tests.stub_server import StubServer, wait_until
from tests.test_cli import COMMAND, LIMIT_S, background, command, environment, target
from tests.workbench import Workbench

CLOSED = [" ".join(closed) for count in range(1, 4) for closed in itertools.combinations(("<&-", ">&-", "2>&-"), count)]


def with_closed(closed: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `cometbatch` from a shell that closes some of its standard descriptors first."""
    line = shlex.join([*COMMAND, *map(str, arguments)])
    return subprocess.run(
        ["/bin/sh", "-c", f"exec {line} {closed}"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_descriptors_change_nothing(bench: Workbench, closed: str) -> None:
    """Help, plan, run and status do and say the same, but for what has nowhere to go, and end with the same code."""
    job = bench.write_job(simulator={"latency_s": 0, "faults": {"400": 0.5}})
    for arguments, code in ((("--help",), 0), (("plan", job), 0), (("run", job), 3), (("status", job), 0)):
        done = with_closed(closed, *arguments)
        assert (done.returncode, done.stderr) == (code, ""), arguments
        assert (done.stdout == "") == (">&-" in closed.split())
    assert bench.result().num_rows == 12


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_descriptors_keep_the_code_of_a_refusal(bench: Workbench, closed: str) -> None:
    """A wrong job ends with 2 and a run that is stopped with 5, also where the words have nowhere to go."""
    assert with_closed(closed, "run", bench.write_job(limits={"speed": 9})).returncode == 2
    refused = bench.write_job(simulator={"latency_s": 0, "faults": {"bad-key": 1}})
    assert with_closed(closed, "run", refused).returncode == 5


def test_a_full_disk_behind_standard_output_is_an_error(bench: Workbench) -> None:
    """Words that were not written are not taken for written; the sentence is on standard error."""
    job = bench.write_job(simulator={"latency_s": 0})
    done = with_closed(">/dev/full", "plan", job)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Exception ignored" not in done.stderr


# -- signals -----------------------------------------------------------------------------------------------------------


def test_a_terminal_that_is_closed_ends_a_run_with_129(bench: Workbench) -> None:
    """As with SIGTERM, what is in flight is finished and recorded; the same command continues."""
    bench.write_rows(100)
    with StubServer(latency_s=(0.2, 0.3)) as server:
        job = bench.write_job(target=target(server), limits={"concurrency": 8})
        with background("run", job) as process:
            wait_until(lambda: server.requests >= 12, "some requests")
            process.send_signal(signal.SIGHUP)
            _, stderr = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 129
        assert stderr.splitlines()[-1].endswith(f"continue with: {shlex.join(['cometbatch', 'run', str(job)])}")
        assert cometbatch.status(bench.output).summary.tally.calls == server.answered.total() == server.requests < 100
        server.latency_s = (0.0, 0.0)
        assert command("run", job).returncode == 0
        assert (server.requests, server.wasted) == (100, 0)


def test_the_code_is_129_also_where_the_terminal_is_gone(bench: Workbench) -> None:
    """Nothing can be shown any more, neither on standard output nor on standard error."""
    ours, theirs = os.openpty()
    with StubServer(latency_s=(0.3, 0.3)) as server:
        job = bench.write_job(target=target(server), limits={"concurrency": 4})
        arguments = [*COMMAND, "run", str(job)]
        with subprocess.Popen(arguments, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            wait_until(lambda: server.requests >= 4, "some requests")
            os.close(ours)
            process.send_signal(signal.SIGHUP)
            assert process.wait(timeout=LIMIT_S) == 129
    assert cometbatch.status(bench.output).summary.tally.calls == server.requests


IGNORABLE = ["HUP", "INT", "TERM"]  # `nohup`; a shell's background job; a supervisor of its own mind


def ignoring(name: str, *arguments: str | Path) -> list[str]:
    """A command that a shell starts with this signal ignored."""
    return ["/bin/sh", "-c", f"trap '' {name}; exec {shlex.join([*COMMAND, *map(str, arguments)])}"]


@pytest.mark.parametrize("name", IGNORABLE)
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(bench: Workbench, name: str) -> None:
    """A run that was started to outlive its terminal, or in a shell's background, goes on to its last row."""
    bench.write_rows(40)
    with StubServer(latency_s=(0.1, 0.1)) as server:
        line = ignoring(name, "run", bench.write_job(target=target(server), limits={"concurrency": 4}))
        with subprocess.Popen(line, env=environment(), stdout=subprocess.DEVNULL) as process:
            wait_until(lambda: server.requests >= 4, "some requests")
            process.send_signal(getattr(signal, f"SIG{name}"))
            assert process.wait(timeout=LIMIT_S) == 0
    assert bench.result().num_rows == 40


@pytest.mark.parametrize("name", IGNORABLE)
def test_a_simulator_ignores_what_it_was_started_to_ignore(name: str) -> None:
    """As a run does; it ends with its standard input all the same."""
    line = ignoring(name, "simulate", "--port", "0", "--latency", "0", "--until-stdin-closes")
    with subprocess.Popen(line, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        process.send_signal(getattr(signal, f"SIG{name}"))
        with urllib.request.urlopen(f"{address}/api/models", timeout=LIMIT_S) as reply:
            assert reply.status == 200
        process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0


IGNORING_INT = "trap '' INT; "
ENDED = {"SIGTERM": 143, "SIGHUP": 129}
LOADED = ["cometbatch.cli", "click", "cometbatch.process", "json"]
INTERRUPTED_AT = """
import os, signal, sys
from cometbatch.__main__ import main

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.{signal})

sys.meta_path.insert(0, Interrupting())
sys.modules.pop({name!r}, None)
sys.argv = ["cometbatch", "--version"]
main()
"""


@pytest.mark.parametrize("is_ignored", [False, True])
@pytest.mark.parametrize("name", LOADED)
def test_ctrl_c_while_the_command_loads_is_a_line(name: str, *, is_ignored: bool) -> None:
    """Exit code 130 and no traceback, whichever module is loading; where it is ignored, the command goes on."""
    line = shlex.join([sys.executable, "-c", INTERRUPTED_AT.format(name=name, signal="SIGINT")])
    done = subprocess.run(
        ["/bin/sh", "-c", f"{IGNORING_INT if is_ignored else ''}exec {line}"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    if is_ignored:
        assert (done.returncode, done.stderr) == (0, "")
        assert cometbatch.__version__ in done.stdout
    else:
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_while_the_command_loads_ends_it(name: str) -> None:
    """By a handler of its own: the first process of a container gets no signal else, and would go on till the kill."""
    program = INTERRUPTED_AT.format(name="click", signal=name)
    line = [sys.executable, "-c", program.replace('"--version"', '"plan", "--log-format", "json"')]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False, timeout=LIMIT_S)
    event = json.loads(done.stderr)
    assert (done.returncode, event["event"], event["exit_code"]) == (ENDED[name], "error", ENDED[name])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_a_signal_outside_a_run_ends_the_command_with_its_code(number: signal.Signals, code: int) -> None:
    """There is nothing to finish."""
    program = (
        "import os, sys\n"
        "from cometbatch import cli\n"
        "sys.argv = ['cometbatch', 'plan', 'job.yaml']\n"
        f"cli.cli.main = lambda **_: os.kill(os.getpid(), {int(number)})\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == code
    assert done.stderr.endswith(". Continue with: cometbatch plan job.yaml\n")


# -- other systems -----------------------------------------------------------------------------------------------------

WINDOWS = (
    "import asyncio, multiprocessing, signal, subprocess, sys\n"
    "import click, polars, pyarrow\n"  # which look for what only a real Windows has
    "sys.platform = 'win32'\n"
    "sys.modules['fcntl'] = sys.modules['resource'] = sys.modules['uvloop'] = None\n"  # as where there are none
    "del signal.SIGHUP\n"
)


def on_windows(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python that takes itself for one on Windows."""
    return subprocess.run(
        [sys.executable, "-c", WINDOWS + program],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["run", "job.yaml"], ["status", "out.parquet"]])
def test_windows_is_told_at_the_start_of_the_command(arguments: list[str]) -> None:
    """One sentence and exit code 2, not a traceback out of a library."""
    done = on_windows(f"from cometbatch.cli import main\nsys.argv = {['cometbatch', *arguments]}\nmain()\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: cometbatch runs on Linux, macOS and WSL.")
    assert len(done.stderr.splitlines()) == 1


def test_windows_can_import_the_package_and_read_a_job(bench: Workbench) -> None:
    """What a run needs of the system is only looked for when a run is asked for, and its lack is told in words."""
    job = bench.write_job()
    done = on_windows(
        "import cometbatch\n"
        f"print(cometbatch.load_job({str(job)!r}).target.model)\n"
        "for name in ('run', 'plan', 'status', 'verify'):\n"
        "    try:\n"
        "        getattr(cometbatch, name)\n"
        "    except cometbatch.UsageError as error:\n"
        "        print(error)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "comet-sim-1"
    assert len(lines) == 5
    assert all(line.startswith("cometbatch runs on Linux, macOS and WSL.") for line in lines[1:])


def test_uvloop_is_asked_for_only_where_it_can_be_installed() -> None:
    """It has no build for Windows, nor for PyPy: an installation there must not try to make one."""
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    marker = "sys_platform != 'win32' and platform_python_implementation == 'CPython'"
    assert f'; {marker}"' in next(line for line in project.splitlines() if "uvloop>=" in line)


ENDS_SLOWLY = """
import os, sys
from cometbatch.cli import main

class Ending:
    def __del__(self, write=os.write, read=os.read):
        write(1, b"ending\\n")
        read(0, 1)

ending = Ending()
sys.argv[1:] = ["--version"]
main()
"""
"""A command that has ended by itself, while its interpreter is torn down."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_end_leaves_the_exit_code(number: signal.Signals) -> None:
    """The command was done: it did not end by the signal, and does not say so."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", ENDS_SLOWLY], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout is not None
            assert b"ending\n" in iter(process.stdout.readline, b"")
            process.send_signal(number)
            _, words = process.communicate(b"\n", timeout=LIMIT_S)
        finally:
            process.kill()
    assert (process.returncode, words) == (0, b"")
