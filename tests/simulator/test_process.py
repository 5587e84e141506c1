"""The simulator as a real server and a real process, on this machine's loopback."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from cometbatch.errors import CometbatchError, UsageError
from cometbatch.simulator import Behaviour, Fault, process
from cometbatch.simulator.process import COMMAND, SimulatorError, SimulatorProcess
from cometbatch.simulator.server import serve
from tests.simulator.client import BEARER, asked

QUICK = (0.0, 0.0)


@pytest.fixture(scope="module")
def cutting() -> Iterator[str]:
    """The address of a simulator that cuts half of its connections."""
    behaviour = Behaviour(seed=3, latency_s=QUICK, faults=(Fault("reset", 0.5),))
    with SimulatorProcess(behaviour) as simulator:
        yield simulator.base_url


def child_of(simulator: SimulatorProcess) -> "subprocess.Popen[bytes]":
    """The process behind it."""
    assert simulator._child is not None
    return simulator._child


def test_connections_are_really_cut_and_the_ledger_knows(cutting: str) -> None:
    """Item 7: over a socket a reset is a transport error, before the reply or within it; the rest gets through."""
    kinds: set[type[Exception] | int] = set()
    with httpx.Client(base_url=cutting, headers=BEARER) as client:
        for row in range(24):
            request = asked(f"row {row}")
            try:
                kinds.add(client.post(request.path, content=request.body).status_code)
            except httpx.TransportError as exc:
                kinds.add(type(exc))
        told = client.get("/simulator/ledger").json()
    assert 200 in kinds
    assert len(kinds) > 1
    assert told["requests"] == 24 == told["answered"] + told["cut_before_reply"]
    assert told["answers_lost"] > 0
    assert told["cut_before_reply"] > 0


def test_the_server_keeps_its_connections(cutting: str) -> None:
    """Pages and answers over one kept connection, and no word about the server's software."""
    with httpx.Client(base_url=cutting, headers=BEARER) as client:
        replies = [client.get(path) for path in ("/api/models", "/v1/models", "/nowhere")]
    assert [reply.status_code for reply in replies] == [200, 200, 301]
    assert all("server" not in reply.headers for reply in replies)


def test_a_process_ends_with_its_block_and_stands_apart_from_the_terminal() -> None:
    """In its own session, so that Ctrl-C does not reach it; gone, and its port closed, after the block."""
    with SimulatorProcess(Behaviour(latency_s=QUICK)) as simulator:
        child = child_of(simulator)
        assert os.getsid(child.pid) == child.pid != os.getsid(0)
        assert httpx.get(f"{simulator.base_url}/simulator/ledger").json()["requests"] == 0
        port = urlsplit(simulator.base_url).port
    assert child.returncode == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_killed_parent_leaves_no_orphan() -> None:
    """A simulator whose parent was killed ends by itself, since its stdin closes."""
    script = (
        "import sys, time\n"
        "from cometbatch.simulator import Behaviour\n"
        "from cometbatch.simulator.process import SimulatorProcess\n"
        "simulator = SimulatorProcess.start(Behaviour())\n"
        "print(simulator._child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        orphan = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    try:
        readable, _, _ = select.select([orphan], [], [], 10)  # a pidfd is readable once its process has ended
        assert readable == [orphan]
    finally:
        os.close(orphan)


def test_requests_under_way_do_not_hold_up_the_end() -> None:
    """Leaving the block takes no longer than a moment, though an answer was to take minutes."""
    simulator = SimulatorProcess.start(Behaviour(latency_s=(600.0, 600.0)))
    request = asked("Hello")
    with httpx.Client(base_url=simulator.base_url, headers=BEARER, timeout=0.3) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post(request.path, content=request.body)
        assert client.get("/simulator/ledger").json()["answered"] == 1
    child = child_of(simulator)
    simulator.close()
    simulator.close()
    assert child.returncode == 0


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('no such luck')", "exit code 1; it said: no such luck"),
        ("print('hello', flush=True)", "ended with exit code 0"),
        ("import sys; sys.stdin.read()", "did not say where it listens"),
        (
            "import signal, time; signal.signal(15, lambda *_: None); print('listening on ftp://x', flush=True)",
            "exit code 0",
        ),
    ],
)
def test_a_simulator_that_does_not_start_is_an_error_that_says_why(program: str, words: str) -> None:
    """The error has the child's own last words, and nothing is left running."""
    simulator = SimulatorProcess(Behaviour(), command=[sys.executable, "-c", program], start_limit_s=1.0)
    with pytest.raises(SimulatorError, match=words) as caught:
        simulator.__enter__()
    assert isinstance(caught.value, CometbatchError)
    assert simulator._child is None


def test_a_command_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    """Not even a process: still a clear error."""
    with pytest.raises(SimulatorError, match="can't be started"):
        SimulatorProcess(Behaviour(), command=[str(tmp_path / "nothing")]).__enter__()


def test_a_child_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked by a closed stdin and deaf to it, it is killed after the limit: that process and no other."""
    monkeypatch.setattr(process, "END_LIMIT_S", 0.1)
    program = "import time; print('listening on http://127.0.0.1:1', flush=True); time.sleep(60)"
    with SimulatorProcess(Behaviour(), command=[sys.executable, "-c", program]) as simulator:
        child = child_of(simulator)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("host", ["0.0.0.0", "example.com", "::1", ""])
def test_other_machines_are_not_served(host: str) -> None:
    """The simulator listens on 127.0.0.1 only."""
    with pytest.raises(UsageError, match=r"127\.0\.0\.1"):
        serve(Behaviour(), host=host)


def test_a_port_that_is_taken_is_an_error_that_says_what_to_do() -> None:
    """A taken or impossible port is the caller's to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (taken.getsockname()[1], 70000):
            with pytest.raises(UsageError, match="choose another port"):
                serve(Behaviour(), port=port)


def test_the_address_is_announced_once_it_answers() -> None:
    """In one's own process, without stdin: whoever hears the announcement can connect at once, and stop the server."""
    heard: list[int] = []

    def announce(base_url: str) -> None:
        port = urlsplit(base_url).port
        with socket.create_connection(("127.0.0.1", port or 0), timeout=5):
            heard.append(1)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        serve(Behaviour(), announce=announce)
    assert heard == [1]


def test_the_command_line_is_this_packages_own() -> None:
    """The child is `cometbatch simulate` of the same interpreter, on a free port, ending with its stdin."""
    assert COMMAND[0] == sys.executable
    assert COMMAND[1:] == ("-m", "cometbatch", "simulate", "--port", "0", "--until-stdin-closes")
