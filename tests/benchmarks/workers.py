"""What workers take beside their calls: memory of each, lease traffic, CPU of the process that coordinates them.

    python -m tests.benchmarks.workers [--workers 1 2 4 8 16 32 64] [--seconds 10]

Against a service that takes 10 s for an answer, under a limit of 60 requests a second, so that next to nothing is done
for rows. Measured from the moment at which all workers send. 1 is the plain run, without a coordinator.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cometbatch
from cometbatch.engines.hosting import Host
from tests.workers.witness import KEY, KEY_ENV, Job, Service, processes

LATENCY_S: Final = 10.0
PER_S: Final = 60
START_S: Final = 120.0  # in which all workers have to be there
SAMPLE_S: Final = 0.5


def main(arguments: Sequence[str]) -> None:
    """Measure each number of workers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--drive", type=Path, help="what a process of its own does: this job")
    told = parser.parse_args(arguments)
    if told.drive is not None:
        drive(told.drive, told.workers[0], told.seconds)
        return
    for workers in told.workers:
        with tempfile.TemporaryDirectory() as folder, Service(latency_s=LATENCY_S) as service:
            limits = {"requests_per_minute": PER_S * 60, "concurrency": 1024}
            job = Job(Path(folder), service.base_url, 100_000, limits=limits)
            command = [sys.executable, "-m", "tests.benchmarks.workers", "--drive", str(job.path)]
            command += ["--workers", str(workers), "--seconds", str(told.seconds)]
            environment = {**os.environ, KEY_ENV: KEY}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            say(workers, json.loads(done.stdout.splitlines()[-1]))


def say(workers: int, told: dict[str, Any]) -> None:
    """One line of figures."""
    sys.stdout.write(
        f"{workers:2} workers: {told['worker_mb']:.0f} MB each (PSS; {told['worker_private_mb']:.0f} MB private), "
        f"driver {told['driver_mb']:.0f} MB, all there after {told['start_s']:.1f} s, "
        f"{told['messages_per_s']:.0f} messages/s, driver's CPU {told['driver_cpu'] * 100:.1f} % of a core, "
        f"a worker's {told['worker_cpu'] * 100:.1f} %\n"
    )
    sys.stdout.flush()


def drive(path: Path, workers: int, seconds: float) -> None:
    """Run the job with workers, driven by this process; look at all of them for some seconds, and stop it."""
    count = 0
    handle = Host.handle

    async def counted(host: Host, content: bytes) -> bytes:
        nonlocal count
        count += 1
        return await handle(host, content)

    Host.handle = counted  # type: ignore[method-assign, assignment] # counts what comes in
    stop, began = threading.Event(), time.monotonic()

    def look() -> None:
        expected = 0 if workers == 1 else workers
        while len(_workers()) < expected and time.monotonic() < began + START_S:
            time.sleep(SAMPLE_S)
        start_s = time.monotonic() - began
        time.sleep(LATENCY_S + 2)
        messages, at, cpu, worker_cpu = count, time.monotonic(), _cpu(os.getpid()), sum(map(_cpu, _workers()))
        time.sleep(seconds)
        took, there = time.monotonic() - at, _workers()
        memory = [_memory(pid) for pid in there] or [(0.0, 0.0)]
        told = {
            "start_s": start_s,
            "messages_per_s": (count - messages) / took,
            "driver_cpu": (_cpu(os.getpid()) - cpu) / took,
            "worker_cpu": (sum(map(_cpu, there)) - worker_cpu) / took / max(1, len(there)),
            "worker_mb": sum(pss for pss, _ in memory) / len(memory),
            "worker_private_mb": sum(private for _, private in memory) / len(memory),
            "driver_mb": _memory(os.getpid())[0],
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        stop.set()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        cometbatch.run(str(path), workers=workers, stop=stop, progress=False)
    except cometbatch.TerminatedRunError:
        looking.join()


def _workers() -> list[int]:
    return [pid for pid, parent, words in processes() if parent == os.getpid() and "worker_process" in words]


def _cpu(pid: int) -> float:
    """Seconds of CPU so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> tuple[float, float]:
    """The proportional share of memory, and what is the process's own, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    kb = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return kb["Pss"] / 1024, (kb["Private_Clean"] + kb["Private_Dirty"]) / 1024


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    main(sys.argv[1:])
