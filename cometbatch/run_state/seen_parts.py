"""The parts of a run, as a look finds them: what each slice has in them, and whose records.

What a worker noted of its part is read in place of the part's footer where the part has the size that it had then: of
half a million parts, lines are read in a small part of the time that footers take.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from cometbatch.records import Tally
from cometbatch.results import parts, tallies
from cometbatch.results.parts import PartInfo
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import Manifest

ADDED_AT_ONCE: Final = 1000  # tallies of a slice that are added up at a time, and held in memory until then


class SeenParts:
    """The parts in their present round. `committed`: their partitions."""

    def __init__(self, directory: RunDirectory, manifest: Manifest) -> None:
        self.committed: set[int] = set()
        self._tallies: dict[int, list[Tally]] = {}  # of each slice, those that are to be added up
        self._directory = directory
        self._manifest = manifest
        self._in_slice = manifest.partitions_in_slice
        self._names: set[str] | None = None  # of the parts that were seen; None before the first look

    def look(self) -> None:
        """Add those that are there by now. Raises `CheckpointError` where one is damaged, or another run's."""
        if self._names is None:
            self._names = set(self._noted())
        for index, name in self._directory.parts.beside(self._names):
            if index not in self.committed:
                info = self._info(index)
                if info.round == self._directory.reopened().number_of(index):
                    self._add(index, info.tally)
            if index in self.committed:
                self._names.add(name)

    def _noted(self) -> Iterator[str]:
        """Add the parts that workers have noted; their names."""
        owners = self._directory.owners
        sizes = self._directory.parts.sizes() if owners.has_notes else {}
        round_of = self._directory.reopened().number_of
        for note in owners.parts(self._manifest.run_id) if sizes else ():
            name, size = sizes.get(note.index, ("", -1))
            if size == note.size and note.round == round_of(note.index) and note.index not in self.committed:
                self._add(note.index, note.tally)
                yield name

    def _add(self, index: int, tally: Tally) -> None:
        self.committed.add(index)
        some = self._tallies.setdefault(index // self._in_slice, [])
        some.append(tally)
        if len(some) >= ADDED_AT_ONCE:
            some[:] = [tallies.add_all(some)]

    def by_slice(self) -> dict[int, Tally]:
        """The tally of each slice in the parts."""
        return {number: tallies.add_all(some) for number, some in self._tallies.items()}

    def has_records_of(self, index: int, owner: str) -> bool:
        """Whether what a worker of the newest session recorded of a partition is in its part.

        Raises `CheckpointError` where the part is damaged.
        """
        owners = self._info(index).owners
        return owners is msgspec.UNSET or owner in owners

    def _info(self, index: int) -> PartInfo:
        return parts.read_info(self._directory.parts.path(index), self._manifest.run_id, index)
