"""What earlier sessions of a run left, found by looking: parts, journals and marks."""

from collections.abc import Iterable

from msgspec import Struct

from cometbatch import output, parts, source
from cometbatch.checkpoint import RunDirectory, read_journal
from cometbatch.manifest import Manifest
from cometbatch.records import Partition, Tally


class Progressed(Struct, frozen=True):
    """What is recorded already: which partitions are committed, and what it all comes to."""

    committed: tuple[int, ...] = ()
    tally: Tally = Tally()
    journal_rows: frozenset[int] = frozenset()

    @property
    def rows(self) -> int:
        """How many rows have an outcome."""
        return self.tally.rows


def look(directory: RunDirectory, manifest: Manifest) -> Progressed:
    """Read the parts' footers and the journals; changes nothing, so it may look at a run that goes on."""
    committed = directory.committed()
    tally = Tally()
    for index in committed:
        tally = output.add(tally, parts.read_info(directory.part_path(index), manifest.run_id).tally)
    open_journals = [index for index in directory.journals() if index not in set(committed)]
    journal_tally, journal_rows = _journaled(directory, open_journals)
    return Progressed(tuple(committed), output.add(tally, journal_tally), journal_rows)


def partitions(manifest: Manifest) -> list[Partition]:
    """Every partition of the run, ascending."""
    return source.partitions(manifest.input.rows, manifest.partition_rows)


def unrecorded(rows: Iterable[int], manifest: Manifest, progressed: Progressed) -> list[int]:
    """Those of the given rows that have no recorded outcome yet."""
    committed = set(progressed.committed)
    return [
        row
        for row in sorted(rows)
        if row < manifest.input.rows
        and row not in progressed.journal_rows
        and row // manifest.partition_rows not in committed
    ]


def tidy(directory: RunDirectory, progressed: Progressed) -> None:
    """Remove what a killed process left half done: staged files, and journals whose part exists."""
    for path in directory.leftover_files():
        path.unlink()
    for index in set(directory.journals()) & set(progressed.committed):
        directory.journal_path(index).unlink()


def _journaled(directory: RunDirectory, journals: Iterable[int]) -> tuple[Tally, frozenset[int]]:
    """What the journals of open partitions hold: its tally, and which rows. Changes nothing."""
    tally, rows = Tally(), set[int]()
    for index in journals:
        outcomes = [output.decode_outcome(record) for record in read_journal(directory.journal_path(index))]
        tally = output.add(tally, output.tally(outcomes))
        rows.update(outcome.row for outcome in outcomes)
    return tally, frozenset(rows)
