"""What earlier sessions of a run left, found by looking: parts, journals and marks."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from msgspec import Struct

from cometbatch.errors import UsageError
from cometbatch.input import table as source
from cometbatch.records import Partition, Record, Tally
from cometbatch.results import codec, parts
from cometbatch.results import columns as output
from cometbatch.results import tally as tallies
from cometbatch.run_state import manifest as manifests
from cometbatch.run_state.directory import RunDirectory, read_journal, remove
from cometbatch.run_state.manifest import Manifest

LINES_AT_ONCE = 64  # of a journal, decoded: long answers must not be in memory together


class Progressed(Struct, frozen=True):
    """What is recorded already: which partitions are committed, and what it all comes to."""

    committed: tuple[int, ...] = ()
    tally: Tally = Tally()
    journal_rows: frozenset[int] = frozenset()

    @property
    def rows(self) -> int:
        """How many rows have an outcome."""
        return self.tally.calls


Place: TypeAlias = Literal["free", "ours", "foreign"]
"""What stands where the result goes: nothing (or what the run was told to replace), its result, somebody's file."""


class Found(Struct, frozen=True):
    """A run that a directory holds. `is_complete`: every row has an outcome in a part. `place`: of the result."""

    manifest: Manifest
    progressed: Progressed
    is_complete: bool
    is_stale: bool
    place: Place

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do: the result is that of the parts."""
        return self.is_complete and not self.is_stale and self.place == "ours"

    @property
    def is_begun(self) -> bool:
        """Whether something is recorded that must not be mixed with another job's answers."""
        return self.is_complete or self.is_stale or self.progressed.rows > 0


def find(directory: RunDirectory, result: Path) -> Found | None:
    """The run that the directory holds, if any; changes nothing. Raises `CheckpointError` where it is damaged."""
    content = directory.read_manifest()
    if content is None:
        return None
    manifest = manifests.decode(content, str(directory.path / "manifest.json"))
    progressed = look(directory, manifest)
    is_complete = len(progressed.committed) == partition_count(manifest)
    return Found(manifest, progressed, is_complete, directory.reopened().unpublished, place(result, manifest))


def place(result: Path, manifest: Manifest) -> Place:
    """Whose file stands where the result goes. A folder holds parts, each of which says whose it is."""
    if result.is_dir() or parts.result_run_id(result) == manifest.run_id:
        return "ours"
    mark = parts.file_stamp(result)
    return "free" if mark is None or mark == manifest.replaces else "foreign"


def refuse_foreign(result: Path, manifest: Manifest) -> None:
    """Raises `UsageError` where publishing would overwrite a file that this run did not write."""
    if place(result, manifest) == "foreign":
        raise UsageError(
            f"output.path: {result} is not the file that this run wrote, or was to replace. Nothing was overwritten, "
            "and every answer is safe in the run directory: move that file away, then run the same command again."
        )


def look(directory: RunDirectory, manifest: Manifest) -> Progressed:
    """Read the journals and the parts' footers; changes nothing, so it may look at a run that goes on."""
    # Journals first: a partition that is committed meanwhile is then found in its part, if not in both.
    journals = {index: _journaled(directory, index) for index in directory.journals()}
    committed = directory.committed()
    tally, journal_rows = Tally(), set[int]()
    for index in committed:
        tally = tallies.add(tally, parts.read_info(directory.part_path(index), manifest.run_id).tally)
    for index in journals.keys() - set(committed):
        tally = tallies.add(tally, journals[index][0])
        journal_rows |= journals[index][1]
    return Progressed(tuple(committed), tally, frozenset(journal_rows))


def partitions(manifest: Manifest) -> list[Partition]:
    """Every partition of the run, ascending."""
    return source.partitions(manifest.input.rows, manifest.partition_rows)


def partition_count(manifest: Manifest) -> int:
    """How many there are."""
    return len(range(0, manifest.input.rows, manifest.partition_rows))


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
        remove(path)
    for index in set(directory.journals()) & set(progressed.committed):
        remove(directory.journal_path(index))


def _journaled(directory: RunDirectory, index: int) -> tuple[Tally, frozenset[int]]:
    """What a partition's journal holds: its tally, and which rows. Changes nothing."""
    tally, rows = Tally(), set[int]()
    for some in journaled(directory, index):
        tally = tallies.add(tally, tallies.tally(some))
        rows.update(outcome.ordinal for outcome in output.outcomes_in(some))
    return tally, frozenset(rows)


def journaled(directory: RunDirectory, index: int) -> Iterator[list[Record]]:
    """The records of an open partition, in the journal's order, so many at a time. Changes nothing."""
    lines = read_journal(directory.journal_path(index))
    while some := list(map(codec.decode_record, itertools.islice(lines, LINES_AT_ONCE))):
        yield some
