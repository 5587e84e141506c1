"""Passes over the input: one for whoever is ahead, and one more for each queue that is a range or more behind.

A pass reads ascending, as files can be read; who needs rows that it has left behind begins another pass.
"""

import itertools
from collections.abc import Callable, Collection, Generator, Iterable, Iterator

import pyarrow as pa

from cometbatch.records import Partition

Tables = Callable[[Iterable[Partition]], Iterator[pa.Table]]
"""Reads partitions of the input, ascending, one by one as they are asked for."""


class InputPass:
    """One pass over the input. `at`: the number of the range that was asked for last; -1 before the first."""

    def __init__(self, tables: Tables) -> None:
        self.at = -1
        self._wanted: Partition | None = None
        self._tables = tables(self._asked())

    def read(self, partition: Partition) -> pa.Table:
        """The rows of a range behind those read before. Raises `InputError`."""
        self._wanted = partition
        for table in self._tables:
            return table
        raise ValueError("the input is shorter than the run")

    def close(self) -> None:
        """Close the input now, not when the garbage collector comes by."""
        self._wanted = None
        if isinstance(self._tables, Generator):
            self._tables.close()

    def _asked(self) -> Iterator[Partition]:
        while self._wanted is not None:
            yield self._wanted


class InputPasses:
    """The passes of a session. Chosen by one thread, in the order in which another one reads."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._passes: list[InputPass] = []

    def pass_to(self, range_: int, needed_next: Collection[int]) -> tuple[InputPass, list[InputPass]]:
        """The pass that is to read a range now, and those that nobody needs from here on, to be closed.

        It is the nearest one before the range, but none that a queue needs which is between the two.
        `needed_next`: the range that each queue needs next; of the one that reads, after this one.
        """
        before = [each for each in self._passes if each.at < range_]
        nearest = max(before, key=lambda each: each.at, default=None)
        if nearest is None or any(nearest.at < other < range_ for other in needed_next):
            nearest = InputPass(self._tables)
            self._passes.append(nearest)
        nearest.at = range_
        ordered = sorted(self._passes, key=lambda each: each.at)
        useless = [
            each
            for each, further in itertools.pairwise(ordered)
            if not any(each.at < other <= further.at for other in needed_next)
        ]
        self._passes = [each for each in ordered if each not in useless]
        return nearest, useless

    def close(self) -> None:
        """Close all of them, once nobody reads any more."""
        for each in self._passes:
            each.close()
