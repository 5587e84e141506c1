"""The folder of a run's parts: one file for each finished partition of the round that the partition is in.

Guards: where several owners may finish a partition, the first part stands, whole, and no other ever takes its name. The
parts of a data set are the result; what an owner finishes of it lies in the run directory, and its name in the data set
is a second name of the same file, which anybody may make, and again.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import IO, Final

from cometbatch.run_state.names import DATASET_PART, PART, index_in, name_of
from cometbatch.run_state.ownership import LostOwnerError
from cometbatch.store import local

END_BYTES: Final = 64 * 1024
"""Bytes at the end of a part that have its metadata, and the sum over all pages with them. Two files of one size that
have the same there are copies of each other; with fewer bytes a part with a long job might hide its sum."""


class PartFiles:
    """Parts by partition. `rounds`: what tells, as it is now, the round that a partition is in.

    A part has its round in its name. In a data set (`is_dataset`) the parts are the result: their names there stay the
    same in every round, and the round is in the footer alone. `within`: the folder in the run directory for the parts
    that owners make, which have their round in their names, also in a data set.
    """

    def __init__(
        self, folder: Path, rounds: Callable[[], Callable[[int], int]], *, is_dataset: bool, within: Path
    ) -> None:
        self.folder = folder
        self.is_dataset = is_dataset
        self.within = within
        self._rounds = rounds

    def path(self, index: int) -> Path:
        """Where the part of a partition is, or will be, in the round that the partition is in."""
        part = self._of_owners(index)
        return self.published(index) if self.is_dataset and not part.exists() else part

    def published(self, index: int) -> Path:
        """Where the part of a partition of a data set is a part of the result."""
        return self.folder / f"{name_of(index)}.parquet"

    def _of_owners(self, index: int) -> Path:
        """A part with its round in its name."""
        return self.within / _name(index, self._rounds()(index))

    def there(self) -> list[int]:
        """The partitions with a part under its present name, ascending. In a data set it may be an old round's."""
        return sorted({index for index, _ in self.beside(frozenset())})

    def beside(self, known: AbstractSet[str]) -> Iterator[tuple[int, str]]:
        """The same, each with the name of its file, but for files of these names; a data set may have two for one."""
        yield from self._present(local.entries(self.within), known)
        if self.is_dataset:
            for name in set(local.entries(self.folder)) - known:
                if (index := index_in(DATASET_PART.fullmatch(name))) is not None:
                    yield index, name

    def in_run(self) -> list[int]:
        """The partitions whose part lies in the run directory, ascending."""
        return sorted(index for index, _ in self._present(local.entries(self.within)))

    def sizes(self) -> dict[int, tuple[str, int]]:
        """The same partitions, with the names of their parts and their bytes. Raises as `local.sizes` does."""
        found = local.sizes(self.within)
        return {index: (name, found[name]) for index, name in self._present(found)}

    def _present(self, names: Iterable[str], known: AbstractSet[str] = frozenset()) -> Iterator[tuple[int, str]]:
        """The parts under their present names among these, each with its partition."""
        round_of = self._rounds()
        for name in set(names) - known if known else names:
            found = PART.fullmatch(name)
            if (index := index_in(found)) is not None and found is not None:
                round_ = round_of(index)
                if found[2] == (str(round_) if round_ else None):
                    yield index, name

    def all(self) -> Iterator[tuple[int, Path]]:
        """Every part, of whichever round, with its partition; in a data set under each of its names."""
        for folder, kind in [(self.within, PART), *([(self.folder, DATASET_PART)] if self.is_dataset else [])]:
            for name in local.entries(folder):
                if (index := index_in(kind.fullmatch(name))) is not None:
                    yield index, folder / name

    def superseded(self, index: int) -> list[Path]:
        """The parts of a partition from other rounds than its present one."""
        if not self._rounds()(index):
            return []
        present = self._of_owners(index).name
        names = (name for name in local.entries(self.within) if name != present)
        return [self.within / name for name in names if index_in(PART.fullmatch(name)) == index]

    def commit(self, index: int, write: Callable[[IO[bytes]], None]) -> None:
        """Make a part exist, whole, where nobody else may make it. Raises what `local.write_aside` raises."""
        local.write_aside(self.published(index) if self.is_dataset else self._of_owners(index), write)

    def commit_new(
        self, index: int, write: Callable[[IO[bytes]], None], owner: str, is_current: Callable[[], bool]
    ) -> bool:
        """Make a part exist, whole, where others may make it, too; False where another was first, whose part stands.

        `owner`: whose it is, as its files' names have it. `is_current` is asked right before the part exists. Raises
        `LostOwnerError` where it says no, and what `local.write_new` raises.
        """

        def check() -> None:
            if not is_current():
                raise LostOwnerError("this process had lost the partition when its part was written; nothing changed")

        is_first = local.write_new(self._of_owners(index), write, owner, check)
        if self.is_dataset:
            self.link(index, owner)
        return is_first

    def link(self, index: int, owner: str = "") -> bool:
        """Have the data set name the part that lies in the run directory; False where it does, or there is none.

        Raises `CheckpointError` where the disk refuses.
        """
        part = self._of_owners(index)
        return self.is_dataset and part.exists() and local.link(part, self.published(index), owner)

    def link_all(self) -> None:
        """Have the data set name all of them. Raises `CheckpointError` where the disk refuses."""
        for index in self.in_run() if self.is_dataset else ():
            self.link(index)

    def unlinked(self) -> list[int]:
        """The partitions whose part lies in the run directory, and is not what the data set names.

        A copy of it will do: whoever copies a run to another disk may get two files of one.
        """
        if not self.is_dataset:
            return []
        pairs = ((index, self._of_owners(index), self.published(index)) for index in self.in_run())
        return [index for index, part, name in pairs if not _is_copy(name, part)]


def _is_copy(name: Path, part: Path) -> bool:
    """Whether this is the part, or a file with the same end, which has the sum over all that is before it."""
    with local.naming(name, "can't be read"):
        try:
            if name.samefile(part):
                return True
            ends = [_end(path) for path in (name, part)]
        except FileNotFoundError:
            return False
    return ends[0] == ends[1]


def _end(path: Path) -> tuple[int, bytes]:
    """How many bytes a file has, and the last of them."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - END_BYTES))
        return size, file.read()


def _name(index: int, round_: int) -> str:
    return f"{name_of(index)}.r{round_}.part" if round_ else f"{name_of(index)}.part"
