"""A partition between its first call and its part: its records, kept in memory or read again from the journals."""

import contextlib
import itertools
import os
import threading
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from cometbatch.records import Answered, Partition, Record, RejectedAsk
from cometbatch.results.columns import OUTCOMES
from cometbatch.run_state import recorded
from cometbatch.run_state.journal import LINE_EXTRA_BYTES, Journal, read_at
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.recorded import Source
from cometbatch.store import local

RECORD_BYTES = 450  # bytes that a record takes in memory, beside those of its line
WIDEST_BYTES = 5  # bytes for each byte of a line that is not ASCII: wide characters, and the UTF-8 that encoding leaves
PIECE_BYTES = 4 * 1024 * 1024  # bytes of lines and input that become one row group of a part


class Room:
    """Bytes of memory for the records of some partitions, which they take as they need them. For any thread."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Have so many bytes; False where there are not so many, and none is taken."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """So many bytes that were taken are free again."""
        with self._lock:
            self._left += size


class PartitionRecords:
    """The records of a partition, in memory while there is room for all of them; else their places in the files.

    `files` are what earlier sessions left; the last place is this session's own `journal`, None for who only reads.
    `targets`: of calls that a round of `--retry` left without an outcome.
    """

    def __init__(
        self, files: Sequence[Source], journal: Journal | None, room: Room, targets: Mapping[int, int]
    ) -> None:
        self.targets = targets
        self._files = files
        self._journal = journal
        self._room = room
        self._taken = 0  # bytes of the room
        self._in_memory: list[Record] | None = []
        self._ordinals = array("q")
        self._sizes = array("q")  # bytes of each record
        self._sources = array("l")  # the file of each record
        self._offsets = array("q")  # where its line begins there
        self._duplicates: set[int] = set()  # numbers of records whose line is an outcome that came too late

    def take(self, entry: recorded.Entry) -> None:
        """Note a record that an earlier session left."""
        if entry.is_duplicate:
            self._duplicates.add(len(self._ordinals))
        self._keep([entry.record], entry.source, entry.offset, [entry.size], is_wide=True)

    def add(self, records: Sequence[Record], lines: Sequence[bytes], offset: int) -> None:
        """Note records of this session, whose lines begin at `offset` of its journal."""
        is_wide = not all(map(bytes.isascii, lines))
        self._keep(records, len(self._files), offset, list(map(len, lines)), is_wide=is_wide)

    def _keep(
        self, records: Sequence[Record], source: int, offset: int, sizes: Sequence[int], *, is_wide: bool
    ) -> None:
        if self._in_memory is not None:
            taken = sum(sizes) * (WIDEST_BYTES if is_wide else 1) + RECORD_BYTES * len(sizes)
            if self._room.take(taken):
                self._taken += taken
                self._in_memory += records
            else:
                self.forget()
        self._sizes.extend(sizes)
        self._sources.extend([source] * len(sizes))
        ends = itertools.accumulate([size + LINE_EXTRA_BYTES for size in sizes], initial=offset)
        self._offsets.extend(itertools.islice(ends, len(sizes)))
        self._ordinals.extend([record.ordinal for record in records])  # last: another thread finds a record by it

    def forget(self) -> None:
        """Leave the memory to others: from here on the files are read."""
        self._in_memory = None
        self._room.give_back(self._taken)
        self._taken = 0

    def as_they_came(self) -> Iterator[Record]:
        """All of them, as they were noted. Raises `CheckpointError` where a file is not as it was."""
        with contextlib.ExitStack() as files:
            yield from map(self._fetch(files), range(len(self._ordinals)))

    def earlier_asks(self) -> dict[int, list[RejectedAsk]]:
        """By ordinal, the asks that others left of calls without an outcome. Raises as `as_they_came` does."""
        numbers = (number for number, source in enumerate(self._sources) if source < len(self._files))
        found: dict[int, list[RejectedAsk]] = {}
        with contextlib.ExitStack() as files:
            for record in map(self._fetch(files), numbers):
                if isinstance(record, RejectedAsk):
                    found.setdefault(record.ordinal, []).append(record)
        return found

    def answers(self, ordinals: Collection[int]) -> dict[int, Answered]:
        """What was answered to those of these calls that have an answer. For any thread: what is kept only grows."""
        wanted = set(ordinals)
        numbers = [number for number, ordinal in enumerate(self._ordinals) if ordinal in wanted]
        with contextlib.ExitStack() as files:
            found = map(self._fetch(files), numbers)
            return {record.ordinal: record for record in found if isinstance(record, Answered)}

    def in_order(self, beside_bytes: int, piece_bytes: float) -> Iterator[list[Record]]:
        """All that count once each call has its outcome, by ordinal, about `piece_bytes` of lines at a time.

        `beside_bytes`: of the input that will stand beside each. Asks are left out: an outcome holds their sums.
        """
        some: list[Record] = []
        size = 0
        with contextlib.ExitStack() as files:
            fetch = self._fetch(files)
            for number in sorted(range(len(self._ordinals)), key=self._ordinals.__getitem__):
                record = fetch(number)
                if isinstance(record, RejectedAsk):
                    continue
                some.append(record)
                size += self._sizes[number] + beside_bytes
                if size >= piece_bytes:
                    yield some
                    some, size = [], 0
            yield some

    def _fetch(self, files: contextlib.ExitStack) -> Callable[[int], Record]:
        """What finds a record by its number. `files` closes what it opens."""
        if (in_memory := self._in_memory) is not None:  # looked at once: another thread may forget them
            return in_memory.__getitem__
        opened: dict[int, int] = {}

        def fetch(number: int) -> Record:
            source, offset, size = self._sources[number], self._offsets[number], self._sizes[number]
            if self._journal is not None and source == len(self._files):
                line = self._journal.read_again(offset, size)
            else:
                path = self._files[source].path
                if source not in opened:
                    with local.naming(path, "can't be read"):
                        opened[source] = os.open(path, os.O_RDONLY)
                    files.callback(os.close, opened[source])
                line = read_at(path, opened[source], offset, size)
            return recorded.read_again(line, is_duplicate=number in self._duplicates)

        return fetch


def replayed(
    manifest: Manifest, indexes: Sequence[int], files: Sequence[Source], journal: Journal | None, room: Room
) -> dict[int, PartitionRecords]:
    """What these files, read once, hold of each of some partitions of one range. `room`: for all of them.

    Raises `CheckpointError` where a file is damaged.
    """
    targets: dict[int, int] = {}
    found = {index: PartitionRecords(files, journal, room, targets) for index in indexes}
    only = found[indexes[0]] if len(indexes) == 1 else None
    for entry in recorded.entries(files, targets):
        records = found[manifest.partition_of(entry.record.ordinal)] if only is None else only
        records.take(entry)
    return found


class OpenPartition:
    """A partition, the input's rows beside it, and what is recorded of its calls.

    `first`: the ordinal of its first call. `journal`: of its range, in this session. `records`: what earlier sessions
    left. `is_new`: none of these was an outcome.
    """

    def __init__(
        self,
        partition: Partition,
        first: int,
        table: pa.Table,
        journal: Journal,
        records: PartitionRecords,
    ) -> None:
        self.partition = partition
        self.first = first
        self.table = table
        self.size = table.nbytes  # bytes of input, unused columns included
        self.journal = journal
        self.targets = records.targets
        self.left = 0  # calls that get no outcome in this session
        self.outcomes = 0  # how many calls have one
        self.is_closing = False
        self._records = records
        self._has_outcome = bytearray(partition.row_count)
        self._note_outcomes(records.as_they_came())
        self.is_new = not self.outcomes

    @property
    def is_complete(self) -> bool:
        """Whether each call has its outcome."""
        return self.outcomes == self.partition.row_count

    @property
    def is_settled(self) -> bool:
        """Whether nothing more is recorded of it in this session."""
        return self.outcomes + self.left >= self.partition.row_count

    def has_outcome(self, ordinal: int) -> bool:
        """Whether a call of the partition has its outcome."""
        return self._has_outcome[ordinal - self.first] == 1

    def note(self, records: Sequence[Record], lines: Sequence[bytes], offset: int) -> None:
        """These records stand in the journal, as lines that begin at `offset`."""
        self._records.add(records, lines, offset)
        self._note_outcomes(records)

    def _note_outcomes(self, records: Iterable[Record]) -> None:
        for record in records:
            if isinstance(record, OUTCOMES) and not self._has_outcome[at := record.ordinal - self.first]:
                self._has_outcome[at] = 1
                self.outcomes += 1

    def earlier_asks(self) -> dict[int, list[RejectedAsk]]:
        """By ordinal, the asks that others left of calls without an outcome. Raises `CheckpointError`."""
        return self._records.earlier_asks()

    def forget(self) -> None:
        """Leave the memory of its records to other partitions: it is committed, or set aside."""
        self._records.forget()

    def records(self, piece_bytes: float) -> Iterator[list[Record]]:
        """What was recorded, in the order of the calls, some megabytes at a time."""
        return self._records.in_order(self.size // self.partition.row_count, piece_bytes)

    def answers(self, ordinals: Collection[int]) -> dict[int, Answered]:
        """What was answered to those of these calls that have an answer. For any thread.

        Raises `CheckpointError` or `ValueError` where the partition is committed meanwhile: then a part has it.
        """
        return self._records.answers(ordinals)
