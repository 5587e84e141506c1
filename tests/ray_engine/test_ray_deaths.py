"""What dies or stands still in a run on Ray: no row is lost, what is sent twice was in flight and is in the bill.

They take minutes: `.ci/weekly ray` sets RAY_DEATHS for them.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ray_engine.runs import Command, RayRun, TimedServer, others, parent_of, ports_of, said
from tests.stub_server import wait_until

pytestmark = pytest.mark.skipif(not os.environ.get("RAY_DEATHS"), reason="takes minutes; .ci/weekly runs it")

ROWS, PER_S, CONCURRENCY, WORKERS = 900, 60, 16, 3
ON_RAY = ("--engine", "ray", "--workers", str(WORKERS))
LIMITS = {"concurrency": CONCURRENCY, "requests_per_minute": PER_S * 60}
LATENCY_S = (0.1, 0.3)
LEASE_S = 1.0


def at(server: TimedServer, requests: int) -> None:
    """Wait for this many requests."""
    wait_until(lambda: server.requests >= requests, f"{requests} requests", limit_s=90)


def one_of(command: Command, title: str) -> int:
    """A process of the run with this title."""
    return others(command, title)[0]


def ended(run: RayRun, command: Command, server: TimedServer, *, killed: int) -> None:
    """The run has come to its end in spite of it; `killed`: how many processes had requests in flight."""
    out, errors = command.process.communicate(timeout=180)
    assert command.process.returncode == 0, (out, said(errors))
    summary = run.summary(out)
    assert (summary["succeeded"], summary["finished"]) == (run.rows, True)
    run.check_result()
    assert server.wasted <= killed * CONCURRENCY
    assert sum(count > 1 for count in server.answered.values()) <= summary["resent"]
    assert server.most_in_a_second() <= PER_S + 10


def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    """What it had in flight is sent again, and nothing else."""
    with TimedServer(latency_s=LATENCY_S) as server:
        run = RayRun(tmp_path, server, ROWS, limits=LIMITS)
        with run.started(*ON_RAY) as command:
            for requests in (ROWS // 4, ROWS // 2):
                at(server, requests)
                os.kill(one_of(command, "ray::_OwnerActor"), signal.SIGKILL)
            ended(run, command, server, killed=2)


def test_a_worker_that_stood_still_sends_nothing_more(tmp_path: Path) -> None:
    """Once its ranges are another's, it is refused for ever, although Ray takes it for alive."""
    with TimedServer(latency_s=LATENCY_S) as server:
        run = RayRun(tmp_path, server, ROWS, limits=LIMITS)
        with run.started(*ON_RAY) as command:
            at(server, ROWS // 4)
            worker = one_of(command, "ray::_OwnerActor.carry")
            ports = ports_of(worker)
            os.kill(worker, signal.SIGSTOP)
            time.sleep(6)
            continued = time.monotonic()
            os.kill(worker, signal.SIGCONT)
            ended(run, command, server, killed=1)
            late = [at for at, port in server.came if port in ports and at > continued + 0.5]
            assert late == []


@pytest.mark.parametrize("stop_s", [0.0, 4.0], ids=["killed", "stopped"])
def test_the_coordinator_dies_or_stands_still(tmp_path: Path, stop_s: float) -> None:
    """Nobody sends without it; then all go on with what they have, and nothing is sent twice."""
    with TimedServer(latency_s=LATENCY_S) as server:
        run = RayRun(tmp_path, server, ROWS, limits=LIMITS, budget={"max_cost_usd": 5})
        with run.started(*ON_RAY) as command:
            at(server, ROWS // 4)
            coordinator = one_of(command, "ray::_CoordinatorActor")
            struck = time.monotonic()
            os.kill(coordinator, signal.SIGSTOP if stop_s else signal.SIGKILL)
            if stop_s:
                time.sleep(stop_s)
                os.kill(coordinator, signal.SIGCONT)
                silent = [at for at, _ in server.came if struck + LEASE_S + 0.3 < at < struck + stop_s]
                assert silent == []
            ended(run, command, server, killed=0)


@pytest.mark.parametrize("then", [ON_RAY, ("--engine", "local", "--workers", "2"), ("--engine", "local")], ids=str)
def test_a_dead_driver_and_the_same_command_at_once(tmp_path: Path, then: tuple[str, ...]) -> None:
    """The new session's first request comes at least 3 s later, and none of the old workers after it."""
    with TimedServer(latency_s=LATENCY_S) as server:
        run = RayRun(tmp_path, server, ROWS, limits=LIMITS)
        with run.started(*ON_RAY) as first:
            at(server, ROWS // 4)
            first.folder()  # which is removed afterwards: the command itself can't
            first.process.kill()
            dead = time.monotonic()
            with run.started(*then) as second:
                ended(run, second, server, killed=WORKERS)
        old = {port for at, port in server.came if at < dead + 2.5}
        new = [(at, port) for at, port in server.came if at >= dead + 2.5]
        assert min(new)[0] >= dead + 3
        assert not old & {port for _, port in new}


def test_ctrl_c_in_a_terminal_stops_all_in_order(tmp_path: Path) -> None:
    """It reaches the whole group of processes; what is in flight is finished, and nothing is sent twice afterwards."""
    with TimedServer(latency_s=LATENCY_S) as server:
        run = RayRun(tmp_path, server, ROWS, limits=LIMITS)
        with run.started(*ON_RAY) as command:
            at(server, ROWS // 4)
            os.killpg(command.process.pid, signal.SIGINT)
            command.process.communicate(timeout=60)
            assert command.process.returncode == 128 + signal.SIGINT
            assert others(command) == []
        with run.started("--engine", "local") as command:
            ended(run, command, server, killed=0)


def kill(pid: int) -> None:
    """End a node's daemon."""
    os.kill(pid, signal.SIGKILL)


def stop(pid: int) -> None:
    """Hang it."""
    os.kill(pid, signal.SIGSTOP)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("strike", "rows"), [(kill, 3 * ROWS), (stop, 6 * ROWS)], ids=["killed", "stopped"])
def test_a_node_that_ray_takes_for_lost(tmp_path: Path, strike: Callable[[int], None], rows: int) -> None:
    """Its workers go on, whatever Ray says; one that was given up sends and commits nothing more, though it lives."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - after the variable, and where Ray is there alone

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        raylet, _ = (cluster.add_node(num_cpus=1).all_processes["raylet"][0].process.pid for _ in range(2))
        with TimedServer(latency_s=LATENCY_S) as server:
            engine = {"ray": {"address": cluster.address, "workers": WORKERS}}
            run = RayRun(tmp_path, server, rows, limits=LIMITS, engine=engine)
            with run.started() as command:
                at(server, ROWS // 4)
                zombie = next(pid for pid in others(command, "ray::_OwnerActor.carry") if parent_of(pid) == raylet)
                ports = ports_of(zombie)
                strike(raylet)
                os.kill(zombie, signal.SIGSTOP)
                time.sleep(6)
                continued = time.monotonic()
                with contextlib.suppress(ProcessLookupError):  # Ray may have ended it
                    os.kill(zombie, signal.SIGCONT)
                ended(run, command, server, killed=WORKERS)
                assert [at for at, port in server.came if port in ports and at > continued + 0.5] == []
    finally:
        for pid in [raylet] if strike is stop else []:
            os.kill(pid, signal.SIGCONT)
        cluster.shutdown()  # type: ignore[no-untyped-call] # Ray has no types here
