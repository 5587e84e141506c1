"""`verify` of rows that took the answer of an equal row of the same run: each has what that row has, and names it."""

from array import array
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cometbatch.commands.verify_report import Findings
from cometbatch.errors import CheckpointError
from cometbatch.input.values import row_values
from cometbatch.results import columns
from cometbatch.run_state.answers import PartRows
from cometbatch.run_state.manifest import Manifest

AT_ONCE: Final = 1 << 18
"""Rows that are compared in one pass over the parts: some megabytes of numbers, whatever their answers hold."""
OWN: Final = frozenset(
    {columns.CUSTOM_ID, "attempts", "cost_usd", "target", columns.ASKS, "rejected_cost_usd", *columns.REUSED_COLUMNS}
)
"""Columns of a row's own, whosever answer it took."""
NO_ROW: Final = (1 << 64) - 1  # in place of an ordinal that no row can have


class EqualRows:
    """Compares rows that took an answer of this run with the rows that they took it from, many in one pass."""

    def __init__(self, manifest: Manifest, prefix: str, rows: PartRows, findings: Findings) -> None:
        self._manifest, self._prefix, self._rows, self._findings = manifest, prefix, rows, findings
        self._names = [column.name for column in rows.columns]
        self._shared = [name for name in self._names if name not in OWN]
        self._has_origins = columns.REUSED_FROM in self._names
        self._taken, self._from, self._digests = array("Q"), array("Q"), array("q")
        if self._has_origins and manifest.job.get("dedupe"):
            findings.use("equal")

    def add(self, first_row: int, piece: pa.Table) -> None:
        """Look at the next rows of a part."""
        if not self._has_origins:
            return
        origins = pc.equal(piece.column(self._prefix + columns.REUSED_FROM), self._manifest.run_id)
        if not pc.any(origins).as_py():
            return
        self._findings.use("equal")
        for row, cells in enumerate(self._cells(piece), first_row):
            if cells[columns.REUSED_FROM] == self._manifest.run_id:
                place = cells["reused_ordinal"]
                self._taken.append(row)
                self._from.append(NO_ROW if place is None or not 0 <= place < self._manifest.calls else place)
                self._digests.append(self._digest(cells, cells["reused_cost_usd"]))
        if len(self._taken) >= AT_ONCE:
            self.end()

    def end(self) -> None:
        """Compare what was added. Raises nothing: a part that can't be read is told of by other checks."""
        order = sorted(range(len(self._taken)), key=self._from.__getitem__)
        for index, some in groupby(order, lambda number: self._partition_of(self._from[number])):
            numbers = list(some)
            found = {} if index is None else self._origins(sorted({self._from[number] for number in numbers}))
            for number in numbers:
                if found is not None and found.get(self._from[number]) != self._digests[number]:
                    words = f"its answer is not that of row {self._from[number]}, from which it was taken"
                    where = f"row {self._taken[number]}"
                    self._findings.add("equal", words if index is not None else "no row has its answer", where=where)
        for each in (self._taken, self._from, self._digests):
            del each[:]

    def _partition_of(self, ordinal: int) -> int | None:
        return None if ordinal == NO_ROW else self._manifest.partition_of(ordinal)

    def _origins(self, ordinals: list[int]) -> dict[int, int] | None:
        """What the rows of one part have; a row that has taken its own answer from another has nothing to give."""
        found: dict[int, int] = {}
        try:
            for some, table in self._rows.take(ordinals):
                for ordinal, cells in zip(some, self._cells(table), strict=True):
                    if cells[columns.REUSED_FROM] is None and cells["status"] != "failed":
                        found[ordinal] = self._digest(cells, cells["cost_usd"])
        except CheckpointError:
            return None
        return found

    def _cells(self, table: pa.Table) -> Iterator[dict[str, Any]]:
        chosen = table.select([self._prefix + name for name in self._names]).rename_columns(self._names)
        return row_values(chosen, self._names)

    def _digest(self, cells: dict[str, Any], cost: object) -> int:
        """Of what both rows have; the one that was asked has its cost where the other says what that was."""
        return hash((cost, *(cells[name] for name in self._shared)))
