"""What a run of 160 slices takes beside a plain one: CPU and memory of a call; and what a slow model costs the others.

    python -m tests.benchmarks.slices [--calls 65440] [--rounds 5]

Partitions and the loop, with a service that answers at once in the same process, so that nothing else is measured. Each
run has a process of its own; plain runs and runs of 160 slices are measured in turns. Ends with 1 above a bar.
"""

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa

from cometbatch.control.acceptance import accept_all
from cometbatch.control.classify import classify
from cometbatch.engines.session import Ports, run_partitions
from cometbatch.limiting.limits import Limits
from cometbatch.records import CallRequest, Completion, HttpRequest, Partition, Usage
from cometbatch.run_state.begin import first_session
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.partition_size import suggest_partition_rows
from cometbatch.runner.ports import Policy, Service
from cometbatch.runner.queue_start import QueueStart
from cometbatch.wire.envelope import request_id_of
from tests import virtual_time
from tests.run_on_disk import WHO, RunOnDisk
from tests.scripted_run import CHAT, HALF, MODEL, NOW, RUN_ID, Watcher, read, row_request

SLICES: Final = 160
CPU_BAR: Final = 1.25  # times the CPU of a plain row
MEMORY_BAR_MB: Final = 60  # above a plain run
SLOTS: Final = 64
MODELS: Final = 5
SLOW_ROWS: Final = 20_000
SLOW: Final = 10  # times the latency of the others
TEXT: Final = "The parcel was left with a neighbour, who signed for it; the sender was told on the same day. " * 2


class Deaf(Watcher):
    """Remembers nothing."""

    def recorded(self, *_: object) -> None:
        """Outcomes were written down."""


class Table(RunOnDisk):
    """A table of short texts; each call asks the text of its row."""

    def __init__(self, path: Path, rows: int, queues: Sequence[Sequence[int]]) -> None:
        slices = sum(map(len, queues))
        super().__init__(path, rows, 1, queues=queues)
        texts = [f"Row {row}: {TEXT}" for row in range(rows)]
        self.table = pa.table({"n": range(rows), "text": texts})
        size = suggest_partition_rows(self.manifest.input, 100, slices)
        self.manifest = msgspec.structs.replace(self.manifest, partition_rows=size)

    def tables(self, wanted: Iterable[Partition]) -> Iterator[pa.Table]:
        """The rows of these partitions."""
        for each in wanted:
            self.reads[each.index] += 1
            yield self.table.slice(each.first_row, each.row_count)

    def make(self, ordinal: int, values: Mapping[str, object]) -> CallRequest:
        """A call that asks a row's text."""
        assert values["n"] == ordinal % self.table.num_rows
        return row_request(ordinal, max_output_tokens=100)


class Exchange:
    """An answer on its way."""

    def __init__(self, handle: asyncio.Handle) -> None:
        self.cancel: Callable[[], None] = handle.cancel


def service(latency: Callable[[HttpRequest], float]) -> Service:
    """Answers everything, after so many seconds."""
    reply = CHAT.build_response(MODEL, Completion(TEXT, "stop", Usage(60, 45)))

    def send(request: HttpRequest, done: Callable[[Any], None]) -> Exchange:
        return Exchange(asyncio.get_running_loop().call_later(latency(request), done, reply))

    return Service(
        send=send,
        read=read,
        max_cost=lambda *_: Decimal("0.001"),
        classify=lambda reply, parsed: classify(reply, parsed, now=lambda: NOW),
        accept=accept_all,
        request_id=request_id_of,
        price=lambda *_: Decimal("0.000123"),
        is_reached=lambda: True,
    )


async def carry_out(table: Table, answers: Service, slots: int = SLOTS) -> Partitions:
    """One session to its end."""
    first_session(table.directory, RUN_ID, WHO)
    run = table.found()
    partitions = Partitions(run, 1, table.tables, [table.make], ("n", "text"), slots=slots, queues=table.queues)
    marks = table.directory.new_marks(RUN_ID, 1, 2 * slots)
    ports = Ports(
        service=answers,
        policy=Policy(concurrency=slots),
        limits=Limits(),
        observer=Deaf(),
        now=lambda: NOW,
        jitter=lambda: HALF,
        queues=[QueueStart() for _ in table.queues],
    )
    ended = await run_partitions(partitions, marks, ports)
    assert ended.stop is None
    return partitions


def measure(calls: int, slices: int) -> dict[str, float]:
    """Microseconds of CPU a call, and the most megabytes of this process."""
    with tempfile.TemporaryDirectory() as folder:
        table = Table(Path(folder), calls // slices, [tuple(range(slices))])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        asyncio.run(carry_out(table, service(lambda _request: 0.001)))
        cpu = time.process_time() - began
        assert len(table.directory.parts.there()) == len(table.manifest.partitions())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"cpu_us": cpu / calls * 1e6, "peak_mb": peak / 1024, "grown_mb": (peak - before) / 1024}


def slow_model(rows: int) -> dict[str, float]:
    """How often the input is read, and how many journals are open, with one model ten times slower than the others."""
    with tempfile.TemporaryDirectory() as folder:
        table = Table(Path(folder), rows, [(number,) for number in range(MODELS)])
        most = Counter[str]()
        ends = [0.0] * MODELS
        opened: list[Partitions] = []

        def latency(request: HttpRequest) -> float:
            number = int(json.loads(request.body)["messages"][0]["content"]) // rows
            ranges = [*opened[0]._ranges]
            journals = sum(each.journal is not None and not each.journal.is_closed for each in ranges)
            most["journals"] = max(most["journals"], journals)
            most["ranges"] = max(most["ranges"], len(ranges))
            seconds = SLOW * 0.1 if number == MODELS - 1 else 0.1
            ends[number] = max(ends[number], asyncio.get_running_loop().time() + seconds)
            return seconds

        really = Partitions.__init__

        def noted(self: Partitions, *arguments: Any, **named: Any) -> None:
            really(self, *arguments, **named)
            opened.append(self)

        Partitions.__init__ = noted  # type: ignore[method-assign] # so that the service sees what is open
        try:
            virtual_time.run(carry_out(table, service(latency), slots=200))
        finally:
            Partitions.__init__ = really  # type: ignore[method-assign]
        return {
            "ranges": table.manifest.partitions_in_slice,
            "readings": sum(table.reads.values()),
            "most_readings_of_a_range": max(table.reads.values()),
            "most_journals_open": most["journals"],
            "most_ranges_open": most["ranges"],
            "others_end_s": max(ends[:-1]),
            "slow_ends_s": ends[-1],
        }


def in_a_process(*words: str) -> dict[str, float]:
    """What a run in a process of its own says."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.slices", *words], stdout=subprocess.PIPE, text=True, check=True
    )
    said: dict[str, float] = json.loads(done.stdout)
    return said


def tell(words: str) -> None:
    """A line of what was found."""
    sys.stdout.write(f"{words}\n")


def main() -> int:
    """Measure, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=409 * SLICES, help="calls of each run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind, in turns")
    parser.add_argument("--slices", type=int, help="measure one run of so many slices, in this process")
    parser.add_argument("--slow-rows", type=int, help="try the slow model with so many rows, in this process")
    given = parser.parse_args()
    if given.slices is not None:
        tell(json.dumps(measure(given.calls, given.slices)))
        return 0
    if given.slow_rows is not None:
        tell(json.dumps(slow_model(given.slow_rows)))
        return 0
    plain, sliced = list[dict[str, float]](), list[dict[str, float]]()
    for _ in range(given.rounds):
        for found, slices in ((plain, 1), (sliced, SLICES)):
            found.append(in_a_process("--calls", str(given.calls), "--slices", str(slices)))
    cpu, memory = (
        [statistics.median(each[key] for each in some) for some in (plain, sliced)] for key in ("cpu_us", "peak_mb")
    )
    pairs = zip(sliced, plain, strict=True)  # one after the other, on a machine as busy
    ratio, more = statistics.median(one["cpu_us"] / other["cpu_us"] for one, other in pairs), memory[1] - memory[0]
    tell(f"CPU of a call: {cpu[0]:.1f} us plain, {cpu[1]:.1f} us with {SLICES} slices: {ratio:.2f} times ({CPU_BAR})")
    tell(f"memory: {memory[0]:.0f} MB plain, {memory[1]:.0f} MB with {SLICES}: {more:+.0f} MB ({MEMORY_BAR_MB})")
    slow = in_a_process("--slow-rows", str(SLOW_ROWS))
    tell(f"one of {MODELS} models {SLOW} times slower, {SLOW_ROWS:,} rows: {json.dumps(slow)}")
    is_read_twice = slow["most_readings_of_a_range"] > 2
    has_more_journals = slow["most_journals_open"] > slow["most_ranges_open"]
    return int(ratio > CPU_BAR or more > MEMORY_BAR_MB or is_read_twice or has_more_journals)


if __name__ == "__main__":
    sys.exit(main())
