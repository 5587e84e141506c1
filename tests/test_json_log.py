"""Standard error as JSON lines: all of it, whoever writes, however a command ends."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import cometbatch
from cometbatch.cli.json_log import JsonLog
from cometbatch.cli.printing import TRACEBACK, asked_for
from cometbatch.results.events import EVENTS, MAX_LINE_BYTES
from tests.stub_server import StubServer, wait_until
from tests.test_cli import LIMIT_S, background, command, one_object, target
from tests.workbench import KEY, KEY_ENV, Workbench

SECRET = "Zebra Quagga Okapi"

MISBEHAVING = f"""
import asyncio, logging, sys, threading, warnings
from cometbatch.cli.json_log import JsonLog

log = JsonLog()
log.install()
print("a stray line", file=sys.stderr)
sys.stderr.write("in two ")
sys.stderr.write("parts\\n")
warnings.warn("gone soon", DeprecationWarning, stacklevel=1)
warnings.warn("be careful")
logging.getLogger("library").error("it %s", "broke")
logging.getLogger("library").info("nothing to see")

def fail():
    raise ValueError("{SECRET}")

thread = threading.Thread(target=fail)
thread.start()
thread.join()

class Dying:
    def __del__(self):
        fail()

Dying()

async def main():
    task = asyncio.create_task(asyncio.sleep(0))
    asyncio.get_running_loop().call_soon(fail)
    await task
    await asyncio.sleep(0)

asyncio.run(main())
sys.stderr.write("no line break at the end")
fail()
"""


def events(stderr: str) -> list[dict[str, Any]]:
    """All of standard error, each line of which is an event that the table knows."""
    told = [json.loads(line) for line in stderr.splitlines()]
    for event in told:
        assert event["event"] in EVENTS
        assert list(event)[:3] == ["ts", "level", "event"]
    assert not stderr or stderr.endswith("\n")
    return told


# -- what is no event of ours ------------------------------------------------------------------------------------------


def test_whatever_python_writes_is_an_event() -> None:
    """Stray lines, warnings, library logs, exceptions of threads, finalizers, callbacks and of the program itself.

    An exception's place in the code is told, its words are not: they may quote a row.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", MISBEHAVING],
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    told = events(done.stderr)
    assert (done.returncode, done.stdout) == (1, "")
    messages = [event["message"] for event in told]
    assert messages == [
        "a stray line",
        "in two parts",
        "be careful",
        "it broke",
        "ValueError",
        "ValueError",
        "ValueError",
        "ValueError",
        "no line break at the end",
    ]
    assert [event["level"] for event in told] == ["warning"] * 4 + ["error", "warning", "warning", "error", "warning"]
    assert SECRET not in done.stderr
    assert told[2]["type"] == "UserWarning"
    assert [event.get("logger") for event in told if "logger" in event] == ["library", "asyncio"]
    assert all(event["where"][-1].endswith(" fail") for event in told if event["message"] == "ValueError")


def test_an_exceptions_words_are_shown_to_who_asks_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for people, by the variable for whoever reports a bug; an error of the system says what and which file."""
    read_end, write_end = os.pipe()
    log = JsonLog(write_end)
    log.tell_unexpected(OSError(28, "No space left on device", "out.parquet"))
    monkeypatch.setenv(TRACEBACK, "1")
    log.tell_unexpected(ValueError("words"))
    os.close(write_end)
    with open(read_end, encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
        told = events(file.read())
    assert [event["message"] for event in told] == [
        "OSError: No space left on device: out.parquet",
        "ValueError: words",
    ]


def test_lines_of_several_threads_stay_whole(tmp_path: Path) -> None:
    """Each is written at once, whichever its length."""
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log = JsonLog(descriptor)

    def tell(number: int) -> None:
        for length in range(200):
            log.tell("note", message=str(number) * length * 20)

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(descriptor)
    told = events(path.read_text(encoding="utf-8"))
    assert len(told) == 800
    assert all(len(set(event["message"]) - {"…"}) <= 1 for event in told)
    assert max(map(len, path.read_bytes().splitlines())) < MAX_LINE_BYTES


def test_a_log_that_nobody_reads_ends_nothing() -> None:
    """Standard error may be gone or full; the run goes on."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    JsonLog(write_end).tell("note", message="to nobody")
    os.close(write_end)
    JsonLog(write_end).tell("note", message="to nothing")


@pytest.mark.parametrize(
    ("arguments", "is_asked"),
    [
        ([], False),
        (["run", "job.yaml", "--log-format", "json"], True),
        (["run", "--log-format=json", "job.yaml"], True),
        (["run", "job.yaml", "--log-format"], False),
        (["run", "job.yaml", "--log-format", "text"], False),
        (["run", "job.yaml", "--log-format=json", "--log-format", "text"], False),
        (["run", "job.yaml", "--log-format", "text", "--log-format=json"], True),
        (["run", "--", "--log-format=json"], False),
        (["run", "job.yaml", "--json"], False),
        (["run", "job.yaml", "--set", "prompt.user=--log-format json"], False),
    ],
)
def test_it_is_known_before_the_command_line_is_parsed(arguments: list[str], is_asked: bool) -> None:
    """The last one given counts, as for the parser."""
    assert asked_for(arguments) is is_asked


# -- commands ----------------------------------------------------------------------------------------------------------


def test_a_run_logs_events_and_prints_its_summary(bench: Workbench, server: StubServer) -> None:
    """Standard output stays as it is, in words or as JSON; the last event is the summary."""
    job = bench.write_job(target=target(server), prompt={"user": "{note} Parcel {{ parcel }}"})
    metrics = bench.folder / "x.prom"
    done = command("run", job, "--log-format", "json", "--json", "--metrics-file", metrics)
    told, summary = events(done.stderr), one_object(done.stdout)
    assert [event["event"] for event in told] == ["run_started", "warning", "part_committed", "run_finished"]
    assert told[-1] | summary == told[-1]
    assert (done.returncode, told[-1]["exit_code"], told[-1]["level"]) == (0, 0, "info")
    assert 'cometbatch_exit_code{name="x"} 0\n' in metrics.read_text(encoding="utf-8")
    again = command("run", job, "--log-format=json")
    assert "nothing was sent" in again.stdout
    assert [event["event"] for event in events(again.stderr)] == ["run_finished"]


def test_errors_of_each_kind_are_events(bench: Workbench) -> None:
    """Of the parser, of the job, of other commands: one event with the exit code, and nothing beside it."""
    job = bench.write_job(prompt={"user": "{{ nobody }}"})
    cases: tuple[tuple[tuple[str | Path, ...], str], ...] = (
        (("run", job, "--log-format", "json", "--dry-run"), "`cometbatch plan JOB_FILE`"),
        (("run", job, "--log-format", "json"), "no column 'nobody'"),
        (("verify", bench.output, "--log-format=json"), "out.parquet"),
    )
    for arguments, words in cases:
        done = command(*arguments)
        (event,) = events(done.stderr)
        assert (done.returncode, event["exit_code"], event["event"]) == (2, 2, "error")
        assert words in event["message"]
        assert done.stdout == ""


def test_a_stop_is_an_event_with_the_summary_so_far(bench: Workbench) -> None:
    """SIGTERM: a note that it was heard, the stop with its exit code, and the command that goes on."""
    bench.write_rows(400)
    with StubServer(latency_s=(0.2, 0.3)) as server:
        job = bench.write_job(target=target(server), limits={"concurrency": 4})
        with background("run", job, "--log-format", "json", "--json") as process:
            wait_until(lambda: server.requests > 8, "requests are on their way")
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=LIMIT_S)
    told = events(stderr)
    (stopped,) = [event for event in told if event["event"] == "run_stopped"]
    assert (process.returncode, stopped["exit_code"], stopped["reason"]) == (143, 143, "terminated")
    assert (stopped["level"], stopped["fix"], stopped["finished"]) == ("warning", "nothing", False)
    assert stopped | one_object(stdout) == stopped
    notes = [event["message"] for event in told if event["event"] == "note"]
    assert notes[0].startswith("Stopping: finishing ")
    assert f"cometbatch run {job} --log-format json --json" in notes[-1]


def test_fresh_never_asks_in_a_log(bench: Workbench, server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nobody to answer: what is paid is kept, and the error says how to go on."""
    monkeypatch.setenv(KEY_ENV, KEY)
    job = bench.write_job(target=target(server))
    cometbatch.run(job, limit=5, progress=False)
    done = command("run", job, "--fresh", "--log-format", "json")
    (event,) = events(done.stderr)
    assert (done.returncode, event["event"]) == (2, "error")
    assert "add --yes" in event["message"]


@pytest.fixture
def server() -> Any:
    """A stub service that answers at once."""
    with StubServer() as stub:
        yield stub


def test_a_prompt_of_the_command_line_is_in_no_line(bench: Workbench) -> None:
    """Neither in the command that goes on, nor in what says how the job changed; the advice itself stays."""
    job, prompt = bench.write_job(simulator={"latency_s": 0}), "Unspeakable {{ note }}"
    set_it = ("--log-format", "json", "--set", f"prompt.user={prompt}")
    stopped = command("run", job, *set_it, "--set", "prices={per_request: 1}", "--set", "budget.max_cost_usd=2")
    assert stopped.returncode == 4
    assert "continue" in stopped.stderr or "to finish" in stopped.stderr
    changed = command("run", job, "--log-format", "json", "--set", "prompt.user=Unspeakable too: {{ note }}")
    assert changed.returncode == 2
    assert "(not logged)" in changed.stderr
    for done in (stopped, changed):
        assert "Unspeakable" not in done.stderr
        assert "prompt" in done.stderr
        assert events(done.stderr)
    assert "Unspeakable" in command("run", job, "--set", "prompt.user=Unspeakable too: {{ note }}").stderr
