"""Makes parts of open partitions whose calls all have an outcome."""

import math
from collections.abc import Iterator
from typing import IO

import msgspec
import pyarrow as pa

from cometbatch.records import Tally
from cometbatch.results import columns, parts, tallies
from cometbatch.results.columns import outcomes_in
from cometbatch.run_state import open_partition
from cometbatch.run_state.committer import Committer
from cometbatch.run_state.manifest import metadata_of
from cometbatch.run_state.open_partition import OpenPartition
from cometbatch.run_state.owner_files import CommittedPart
from cometbatch.run_state.run import Run

LONG_BYTES = 64  # bytes of a cell of the input, on average; shorter ones are written faster than found to be repeated
RELEASE_EVERY = 4  # parts between two releases of memory; after each, the next part touches new memory


class PartWriter:
    """Makes parts of open partitions, in a thread. `committer`: where several owners work on the run."""

    def __init__(self, run: Run, further: columns.Further | None = None, committer: Committer | None = None) -> None:
        self._run = run
        self._further = further
        self._committer = committer
        self._columns = columns.columns_of(run.columns)
        self._metadata = metadata_of(run.manifest)
        self._written = 0

    def write(self, opened: OpenPartition) -> bool:
        """Commit a partition of which each call has its outcome; False where that was not to be, as `Committer` has it.

        Raises `CheckpointError` where the disk fails, and what a `Committer` raises.
        """
        self._written += 1
        if self._written % RELEASE_EVERY == 0:
            parts.release_memory()  # what the parts before this one have taken
        run, index = self._run, opened.partition.index
        further = self._further
        schema = columns.joined_schema(opened.table.schema, run.prefix, self._metadata, self._columns, further)
        round_, tally, sum_ = run.directory.reopened().round_of(index).round, Tally(), ""
        committer = self._committer
        owners = msgspec.UNSET if committer is None else committer.owners(opened.journal)
        first = run.manifest.first_ordinal(opened.partition)

        def tables() -> Iterator[pa.Table]:
            nonlocal tally
            # All at once where the input has dictionaries: Parquet has the whole of one in each row group.
            piece_bytes = math.inf if _has_dictionary(opened.table) else open_partition.PIECE_BYTES
            for records in opened.records(piece_bytes):
                if outcomes := outcomes_in(records):
                    rows = opened.table.slice(tally.calls, len(outcomes))
                    if outcomes[0].ordinal != first + tally.calls:
                        raise ValueError(f"an outcome of row {outcomes[0].ordinal} where another row's belongs")
                    part = columns.join(rows, outcomes, run.prefix, self._metadata, self._columns)
                    yield part if further is None else columns.extended(part, run.prefix, further)
                tally = tallies.add(tally, tallies.tally(records))

        def write(file: IO[bytes]) -> None:
            nonlocal sum_
            sum_ = parts.write_part(
                file,
                schema,
                tables(),
                lambda: parts.PartInfo(run.manifest.run_id, opened.partition, tally, round_, owners),
                is_result=run.directory.parts.is_dataset,
                repeated=self._repeated(schema, opened.table),
            )

        opened.journal.sync()  # to write the part can take longer than a power cut may lose
        if committer is None or owners is msgspec.UNSET:
            return run.directory.commit_part(index, write)
        told = run.manifest.run_id, index
        return committer.commit(
            opened, write, lambda: CommittedPart(*told, 0, tally, sum=sum_, round=round_, owners=owners)
        )

    def _repeated(self, schema: pa.Schema, table: pa.Table) -> list[str] | bool:
        """The columns of a part in which to look for repetitions: of one that is to be merged, the long texts alone.

        All of them where some are dictionaries already: these are small in memory, and would be immense without.
        """
        repeated = columns.repeated(schema, self._run.prefix)
        if self._run.directory.parts.is_dataset or isinstance(repeated, bool) or _has_dictionary(table):
            return repeated
        return [name for name in table.column_names if table[name].nbytes > LONG_BYTES * table.num_rows]


def _has_dictionary(table: pa.Table) -> bool:
    return any("dictionary<" in str(column.type) for column in table.schema)  # nested ones, too
