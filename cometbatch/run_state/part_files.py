"""The folder of a run's parts: one file for each finished partition of the round that the partition is in."""

from collections.abc import Callable
from pathlib import Path
from typing import IO

from cometbatch.run_state.names import DATASET_PART, PART, index_in, name_of
from cometbatch.store import local


class PartFiles:
    """Parts by partition. `round_of`: the round that a partition is in.

    A part has its round in its name. In a data set (`is_dataset`) the parts are the result: their names stay the same
    in every round, and the round is in the footer alone.
    """

    def __init__(self, folder: Path, round_of: Callable[[int], int], *, is_dataset: bool) -> None:
        self.folder = folder
        self.is_dataset = is_dataset
        self._round_of = round_of

    def path(self, index: int) -> Path:
        """Where the part of a partition is, or will be, in the round that the partition is in."""
        if self.is_dataset:
            return self.folder / f"{name_of(index)}.parquet"
        round_ = self._round_of(index)
        return self.folder / (f"{name_of(index)}.r{round_}.part" if round_ else f"{name_of(index)}.part")

    def index(self, name: str) -> int | None:
        """The partition that a file of this name is a part of, in whichever round; None for other names."""
        return index_in((DATASET_PART if self.is_dataset else PART).fullmatch(name))

    def there(self) -> list[int]:
        """The partitions with a part under its present name, ascending. In a data set it may be an old round's."""
        names = set(local.entries(self.folder))
        indexes = {index for name in names if (index := self.index(name)) is not None}
        return sorted(index for index in indexes if self.path(index).name in names)

    def superseded(self, index: int) -> list[Path]:
        """The parts of a partition from other rounds than its present one."""
        if self.is_dataset or not self._round_of(index):
            return []
        present = self.path(index).name
        return [
            self.folder / name for name in local.entries(self.folder) if name != present and self.index(name) == index
        ]

    def commit(self, index: int, write: Callable[[IO[bytes]], None]) -> None:
        """Make a part exist, whole. Raises what `local.write_aside` raises."""
        local.write_aside(self.path(index), write)
