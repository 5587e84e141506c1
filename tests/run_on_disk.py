"""A table of numbers and its run directory, for tests of what a run leaves on a disk and finds there."""

import contextlib
import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cometbatch.control.budget import Budget
from cometbatch.engines.session import Ports, run_partitions
from cometbatch.input.files import Identity
from cometbatch.job import Target
from cometbatch.limiting.limits import Limits
from cometbatch.records import CallRequest, Failed, Partition, PriceBook, Record, Tally
from cometbatch.results import codec
from cometbatch.results.columns import schema_of
from cometbatch.run_state.begin import first_session, next_session
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import MANIFEST_VERSION, Manifest, PricedTarget, Slice, partitions_of
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.progress import Progress, journaled, look
from cometbatch.run_state.run import Run
from cometbatch.run_state.sessions import Session, Who
from cometbatch.runner.ports import Observer, Policy, Stop
from cometbatch.runner.queue_start import QueueStart
from cometbatch.runner.turns import Runner
from tests.scripted_run import HALF, MODEL, NOW, RUN_ID, ScriptedService, Watcher, row_request, unsendable

WHO = Who("2026-09-01T12:00:00+00:00", 42, "here", "0.1.0")


class RunOnDisk:
    """A table of numbers and its run directory. Each `begin` is a new process, which finds what is on the disk.

    `unsendable`: calls whose prompt can't be made. `queues`: the slices, by number, that wait for each other.
    """

    def __init__(
        self,
        path: Path,
        rows: int,
        partition_rows: int,
        unsendable: Iterable[int] = (),
        queues: Sequence[Sequence[int]] = ((0,),),
    ) -> None:
        self.directory = RunDirectory(path)
        self.directory.create()
        self.table = pa.table({"n": range(rows)})
        self.manifest = Manifest(
            version=MANIFEST_VERSION,
            cometbatch="0.1.0",
            run_id=RUN_ID,
            created_at="2026-09-01T12:00:00+00:00",
            fingerprint={},
            input=Identity("table.csv", 1, "0" * 64, rows, ("n",)),
            partition_rows=partition_rows,
            columns=tuple(schema_of().names),
            targets=(PricedTarget(Target("chat", MODEL, ()), PriceBook(MODEL, "none")),),
            job={},
            slices=tuple(Slice(sample=sample) for sample in range(sum(map(len, queues)))),
        )
        self.queues = queues
        self.reads = Counter[int]()  # how often each range of the input was read
        self._unsendable = frozenset(unsendable)
        self._made = itertools.count()

    def look(self) -> Progress:
        """What is recorded by now."""
        return look(self.directory, self.manifest)

    def found(self) -> Run:
        """The run as a process finds it."""
        return Run(self.directory, self.manifest, self.look(), self.directory.path / "result.parquet")

    def begin(self) -> Run:
        """A new process begins its session."""
        if self.directory.last_session() is None:
            first_session(self.directory, RUN_ID, WHO)
            return self.found()
        return next_session(self.found(), WHO)

    def partitions(self, slots: int, run: Run | None = None, limit: int | None = None) -> Partitions:
        """The partitions without a part, in a session that begins now unless it is given."""
        begun = self.begin() if run is None else run
        if not (self.directory.path / f"in_flight.{session_of(begun)}").exists():
            self.directory.new_marks(RUN_ID, session_of(begun), slots).close()
        return Partitions(
            begun,
            session_of(begun),
            self.tables,
            [self.make],
            ("n",),
            slots=slots,
            queues=self.queues,
            limit=limit,
        )

    def tables(self, wanted: Iterable[Partition]) -> Iterator[pa.Table]:
        """The input's rows of these partitions."""
        for each in wanted:
            self.reads[each.index] += 1
            yield self.table.slice(each.first_row, each.row_count)

    def make(self, ordinal: int, values: Mapping[str, object]) -> CallRequest | Failed:
        """The request that asks a call's own number."""
        assert values == {"n": ordinal % self.table.num_rows}
        return unsendable(ordinal) if ordinal in self._unsendable else row_request(ordinal)

    def write_journal(self, index: int, records: Sequence[Record], *, session: int | None = None) -> Path:
        """Leave a journal behind, as a process that died with these records written."""
        last = self.directory.last_session()
        number = session or (1 if last is None else last.number + 1)
        if last is None or number > last.number:
            journals = {
                file.name: (self.directory.journals.folder / file.name) for file in self.directory.journals.all()
            }
            counted = {name: path.stat().st_size for name, path in journals.items()}
            self.directory.write_session(Session(number, RUN_ID, WHO, counted=counted))
            self.directory.new_marks(RUN_ID, number, 1).close()
        journal = self.directory.journals.begin(RUN_ID, index, number)
        journal.append([codec.encode_record(record) for record in records])
        journal.close()
        return journal.path

    def journaled(self) -> list[Record]:
        """Every record of every open partition, as it counts."""
        last = self.directory.last_session()
        ranges = {file.range for file in self.directory.journals.all()}
        indexes = sorted(index for each in ranges for index in partitions_of(self.manifest, each))
        found = (journaled(self.directory, self.manifest, index, last) for index in indexes)
        return [record for of_partition in found for some in of_partition for record in some]

    def open_indexes(self) -> list[int]:
        """The ranges that have a journal."""
        return sorted({file.range for file in self.directory.journals.all()})

    def part(self, index: int) -> pa.Table:
        """A partition's part."""
        return pq.read_table(pa.BufferReader(self.directory.parts.path(index).read_bytes()))

    def parts(self) -> pa.Table:
        """All parts' rows, in the order of the partitions."""
        return pa.concat_tables([self.part(index) for index in self.directory.parts.there()])

    def snapshot(self, path: Path) -> "RunOnDisk":
        """What a process killed at this moment leaves behind, taken while threads may still be writing."""
        size = self.manifest.partition_rows
        copy = RunOnDisk(path, self.table.num_rows, size, self._unsendable, self.queues)
        # Journals first: a partition committed meanwhile is then found in both places, never in neither.
        for pattern in ("journal/*.jsonl", "in_flight.*", "sessions/*.json", "reopened.json", "parts/*"):
            for file in self.directory.path.glob(pattern):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(file, path / file.relative_to(self.directory.path))
        return copy


def session_of(run: Run) -> int:
    """The number of the session that has begun."""
    assert run.progress.last is not None
    return run.progress.last.number


async def carry_out(
    run: RunOnDisk,
    service: ScriptedService,
    *,
    concurrency: int = 4,
    partitions: Partitions | None = None,
    begun: Run | None = None,
    budget: Budget | None = None,
    observer: Observer | None = None,
    limits: Limits | None = None,
    earlier: Tally | None = None,
    jitter: Callable[[], float] = lambda: HALF,
    watched: Callable[[Runner], AbstractContextManager[Callable[[], object] | None]] = lambda _: (
        contextlib.nullcontext()
    ),
    **policy: Any,
) -> Stop | None:
    """One session of a run, from what earlier ones left to its end."""
    begun = begun or (run.found() if partitions is not None else run.begin())
    marks = run.directory.new_marks(RUN_ID, session_of(begun), concurrency)
    ports = Ports(
        service=service.as_service(),
        policy=Policy(concurrency=concurrency, **policy),
        limits=limits or Limits(),
        observer=observer or Watcher(),
        now=lambda: NOW,
        jitter=jitter,
        budget=budget,
        queues=[
            QueueStart(
                earlier=begun.progress.tally if earlier is None else earlier,
                rejected=begun.progress.asks,
            )
            for _ in run.queues
        ],
    )
    ended = await run_partitions(partitions or run.partitions(concurrency, begun), marks, ports, watched=watched)
    return ended.stop
