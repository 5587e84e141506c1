"""Calls made of rows: some rows at a time, of these the calls of each slice in turn.

Guards: cells whose calls wait for each other differ by at most so many rows as are made at a time.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from cometbatch.input.values import row_values
from cometbatch.records import CallRequest, Failed, Outcome, RejectedAsk
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.open_partition import OpenPartition

Make: TypeAlias = Callable[[int, Mapping[str, object]], CallRequest | Failed]
"""The request of a call, by its ordinal and its row's values, or why there is none. The same values, the same bytes."""
Take: TypeAlias = Callable[[Sequence[CallRequest | Outcome]], list[CallRequest | Outcome]]
"""The same calls, in place of a request its outcome where an earlier answer to it was found."""

MADE_AT_ONCE = 32  # rows made into requests one after the other: twice as fast as one at a time
MADE_FROM_FILES = 8  # the same where files are read for it: the first is sent sooner
TAKEN_AT_ONCE = 256  # rows that are looked up among earlier answers one after the other
TAKEN_BYTES = (
    4 * 1024 * 1024
)  # bytes of input of these rows; of longer ones there are fewer, but not below MADE_FROM_FILES


class CallMaker:
    """Makes the calls of open partitions.

    `makers`: for each target of the run, what makes requests of rows, of which all of them together need `columns`.
    `slice_makers`: the same for each slice. `reads_files`: they open files, which can take long. `take`: finds earlier
    answers to calls that were not asked before in this run (`asks` holds those that were), nor opened again by a
    `--retry`.
    """

    def __init__(
        self,
        manifest: Manifest,
        makers: Sequence[Make],
        slice_makers: Sequence[Make] | None,
        columns: Sequence[str],
        *,
        reads_files: bool,
        take: Take | None,
        asks: Mapping[int, Sequence[RejectedAsk]],
    ) -> None:
        self.is_slow = reads_files or take is not None
        self._own = [each.target for each in manifest.slices]
        self._makers = makers
        self._slice_makers = [makers[target] for target in self._own] if slice_makers is None else slice_makers
        self._columns = columns
        self._at_once = MADE_FROM_FILES if reads_files else MADE_AT_ONCE
        self._take = take
        self._asks = asks

    def calls(
        self, partitions: Sequence[OpenPartition], table: pa.Table, rows: int
    ) -> Iterator[list[CallRequest | Outcome]]:
        """The calls without an outcome of the first `rows` of these partitions of one range, some at a time.

        The last of them comes first. `table`: the rows of the range.
        """
        size = self._at_once if self._take is None else _looked_up_at_once(table)
        values = row_values(table.slice(0, rows), self._columns)
        at_once = size if len(partitions) == 1 else min(size, MADE_AT_ONCE)
        for start in range(0, rows, at_once):
            some = list(itertools.islice(values, at_once))
            made: list[CallRequest | Outcome] = []
            for opened in partitions:
                calls = list(enumerate(some, opened.first + start))
                if not opened.is_new:
                    calls = [each for each in calls if not opened.has_outcome(each[0])]
                made += self._made(opened, calls)
                if made and (self._take is None or len(made) >= size):
                    yield self._taken(made, opened.targets)
                    made = []
            if made:
                yield self._taken(made, partitions[0].targets)

    def _made(
        self, opened: OpenPartition, some: Sequence[tuple[int, Mapping[str, object]]]
    ) -> list[CallRequest | Outcome]:
        """The requests of some calls, each to the target that a `--retry` gave it, else to its slice's own."""
        number, targets = opened.partition.slice, opened.targets
        make, own = self._slice_makers[number], self._own[number]
        if not targets:
            return list(itertools.starmap(make, some))
        asked = ((targets.get(each[0], own), each) for each in some)
        return [(make if target == own else self._makers[target])(*each) for target, each in asked]

    def _taken(self, made: list[CallRequest | Outcome], reset: Collection[int]) -> list[CallRequest | Outcome]:
        """These calls, the last first, with earlier answers to those that may have one.

        Others may not: what a `--retry` has `reset` asks for a new answer, and what a call was billed for in this run
        belongs to its own outcome.
        """
        if self._take is not None:
            if reset or self._asks:
                is_barred = [call.ordinal in reset or call.ordinal in self._asks for call in made]
                found = iter(self._take([call for call, no in zip(made, is_barred, strict=True) if not no]))
                made = [call if no else next(found) for call, no in zip(made, is_barred, strict=True)]
            else:
                made = self._take(made)
        made.reverse()
        return made


def _looked_up_at_once(table: pa.Table) -> int:
    fitting: Any = TAKEN_BYTES * table.num_rows // max(1, table.nbytes)
    return max(MADE_FROM_FILES, min(TAKEN_AT_ONCE, int(fitting)))
