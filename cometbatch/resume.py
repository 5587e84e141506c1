"""What earlier sessions of a run left, found by looking: parts, journals and marks."""

from collections.abc import Iterable

from msgspec import Struct

from cometbatch import output, parts, source
from cometbatch.checkpoint import RunDirectory, read_journal
from cometbatch.manifest import Manifest
from cometbatch.records import Partition, Tally, Thrown


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
    """Read the journals and the parts' footers; changes nothing, so it may look at a run that goes on."""
    # Journals first: a partition that is committed meanwhile is then found in its part, if not in both.
    journals = {index: _journaled(directory, index) for index in directory.journals()}
    committed = directory.committed()
    tally, journal_rows = Tally(), set[int]()
    for index in committed:
        tally = output.add(tally, parts.read_info(directory.part_path(index), manifest.run_id).tally)
    for index in journals.keys() - set(committed):
        tally = output.add(tally, journals[index][0])
        journal_rows |= journals[index][1]
    return Progressed(tuple(committed), tally, frozenset(journal_rows))


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


def _journaled(directory: RunDirectory, index: int) -> tuple[Tally, frozenset[int]]:
    """What a partition's journal holds: its tally, and which rows. Changes nothing."""
    records = [output.decode_record(record) for record in read_journal(directory.journal_path(index))]
    return output.tally(records), frozenset(record.row for record in records if not isinstance(record, Thrown))
