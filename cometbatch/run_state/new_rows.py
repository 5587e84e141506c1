"""The rows of a run that got their outcome since somebody looked before, while the run goes on; changes nothing.

Law: each call is told once. A partition is read again only where it has a row that was not told, and only such rows
are made. In memory are a byte for each call of open partitions, and the rows of the input that these have.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import pyarrow as pa

from cometbatch.records import Partition
from cometbatch.results import columns
from cometbatch.results.rows import Piece
from cometbatch.run_state.input_passes import InputPass
from cometbatch.run_state.open_records import OpenRecords
from cometbatch.run_state.published import result_partitions
from cometbatch.run_state.recorded_rows import Tables, rows_of
from cometbatch.run_state.run import Run

INPUTS_KEPT: Final = 16
"""Partitions whose rows of the input are kept in memory, at about 8 MiB each at most; others are read again."""


class NewRows:
    """Tells the rows of one run, at each look those that are new.

    A run whose rows were reset (`--retry`), or another run in its place, needs another one of these.
    """

    def __init__(self) -> None:
        self._told: dict[int, bytearray] = {}  # of open partitions, by index: a byte for each call
        self._done: set[int] = set()  # partitions of which all is told
        self._inputs = _KeptInputs()

    def pieces(
        self, run: Run, tables: Tables | None, further: columns.Further | None
    ) -> Iterator[tuple[int, Partition, Piece]]:
        """The rows that are new in this look, in the order of the result; each with the place of its slice.

        Raises what `recorded_rows.rows_of` raises; what was told before that counts as told.
        """
        records, new = OpenRecords(run), self._new_of_open_ones(run)
        committed = frozenset(run.progress.committed)
        self._inputs.keep(run.manifest.partition(index).first_row for index in run.progress.open)
        for place, partition in result_partitions(run.manifest):
            index = partition.index
            calls = new.get(index, ())
            if index in self._done or (index not in committed and not calls):
                continue
            if index not in self._told:
                self._told[index] = bytearray(partition.row_count)
            if 0 in self._told[index]:
                found = rows_of(run, partition, self._inputs.reader(tables), further, records, calls=calls)
                for piece in self._new(found, index, run.manifest.first_ordinal(partition)):
                    yield place, partition, piece
            if 0 not in self._told[index]:
                self._done.add(index)
                del self._told[index]

    def _new_of_open_ones(self, run: Run) -> dict[int, set[int]]:
        """Of each partition without a part, the calls with an outcome that was not told."""
        found: dict[int, set[int]] = {}
        manifest = run.manifest
        for ordinal in run.progress.recorded:
            index = manifest.partition_of(ordinal)
            if index in self._done:
                continue
            told = self._told.get(index)
            if told is None or not told[ordinal - manifest.first_ordinal(manifest.partition(index))]:
                found.setdefault(index, set()).add(ordinal)
        return found

    def _new(self, pieces: Iterator[Piece], index: int, first: int) -> Iterator[Piece]:
        told = self._told[index]
        for piece in pieces:
            places = [at for at, ordinal in enumerate(piece.ordinals) if not told[ordinal - first]]
            for at in places:
                told[piece.ordinals[at] - first] = 1
            if places:
                yield piece if len(places) == len(piece.ordinals) else piece.only(places)


class _KeptInputs:
    """The input's rows of open partitions: read once, in one pass, while the run opens them in their order."""

    def __init__(self) -> None:
        self._kept: dict[int, pa.Table] = {}  # by first row
        self._pass: InputPass | None = None
        self._tables: Tables | None = None

    def keep(self, first_rows: Iterable[int]) -> None:
        """Forget all others than the partitions that begin at these rows."""
        wanted = set(first_rows)
        self._kept = {first: table for first, table in self._kept.items() if first in wanted}

    def reader(self, tables: Tables | None) -> Callable[[Partition], pa.Table | None]:
        """What gives a partition's rows of the input; None where the input can't be had."""
        if tables is not self._tables:
            self._tables, self._pass = tables, None
        return self._read

    def _read(self, partition: Partition) -> pa.Table | None:
        if self._tables is None:
            return None
        first = partition.first_row
        if first not in self._kept:
            if self._pass is None or first <= self._pass.at:
                self._pass = InputPass(self._tables)
            table = self._pass.read(partition)
            self._pass.at = first
            if len(self._kept) >= INPUTS_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[first] = table
        return self._kept[first]
