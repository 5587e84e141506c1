"""The table of a life and its run directory, as each process finds them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cometbatch.input.files import Identity
from cometbatch.job import Target
from cometbatch.records import CallRequest, Partition, PriceBook, Tally
from cometbatch.results import tallies
from cometbatch.results.columns import schema_of
from cometbatch.run_state.begin import first_session, next_session
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import MANIFEST_VERSION, Manifest, PricedTarget, Slice
from cometbatch.run_state.progress import look
from cometbatch.run_state.run import Run
from tests.run_on_disk import WHO
from tests.scripted_run import MODEL, RUN_ID, row_request


class Table:
    """Rows that ask their own number, in `queues` slices of which each is a queue of its own."""

    def __init__(self, folder: Path, rows: int, partition_rows: int, queues: int = 1) -> None:
        self.folder = folder
        self.rows = rows
        self.began: list[tuple[int, float]] = []  # each session, and when it had counted what earlier ones left
        self._table = pa.table({"n": range(rows)})
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
            slices=tuple(Slice(sample=sample) for sample in range(queues)),
        )

    @property
    def queues(self) -> Sequence[Sequence[int]]:
        """The slices of each queue."""
        return [[each] for each in range(len(self.manifest.slices))]

    def directory(self) -> RunDirectory:
        """The run directory, as a process that begins knows it."""
        return RunDirectory(self.folder)

    def found(self, directory: RunDirectory | None = None) -> Run:
        """The run, as whoever looks finds it."""
        directory = directory or self.directory()
        return Run(directory, self.manifest, look(directory, self.manifest), self.folder / "result.parquet")

    def begin(self, directory: RunDirectory) -> Run:
        """A session begins, under the lock."""
        directory.create()
        if directory.last_session() is None:
            first_session(directory, RUN_ID, WHO)
            return self.found(directory)
        return next_session(self.found(directory), WHO)

    def tables(self, wanted: Iterable[Partition]) -> Iterator[pa.Table]:
        """The input's rows of these partitions."""
        for each in wanted:
            yield self._table.slice(each.first_row, each.row_count)

    def make(self, ordinal: int, values: Mapping[str, object]) -> CallRequest:
        """The request that asks a call's own number."""
        assert values == {"n": ordinal % self.rows}
        return row_request(ordinal)

    def answers(self, run: Run) -> list[tuple[int, str | None]]:
        """Row and answer of each line of each part, in order."""
        found: list[tuple[int, str | None]] = []
        for index in run.progress.committed:
            part = pq.read_table(pa.BufferReader(run.directory.parts.path(index).read_bytes()))
            found += zip(part["n"].to_pylist(), part["response"].to_pylist(), strict=True)
        return found

    def bill(self, run: Run) -> Tally:
        """Everything that the run says was, or may have been, spent."""
        return tallies.add(run.progress.with_charges, run.replaced)

    def spent(self, run: Run) -> Decimal:
        """The same in US dollars."""
        return tallies.spent(self.bill(run))
