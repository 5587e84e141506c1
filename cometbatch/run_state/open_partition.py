"""A partition between its first call and its part: its records, kept in memory or read again from the journals."""

import contextlib
import itertools
import os
from collections.abc import Callable, Collection, Iterator, Sequence

import pyarrow as pa

from cometbatch.records import Answered, Partition, Record, RejectedAsk
from cometbatch.results import codec
from cometbatch.results.columns import OUTCOMES
from cometbatch.run_state import recorded
from cometbatch.run_state.journal import LINE_EXTRA_BYTES, Journal, read_at
from cometbatch.run_state.recorded import Source
from cometbatch.store import local

RECORD_BYTES = 450  # bytes that a record takes in memory, beside those of its line
WIDEST_BYTES = 5  # bytes for each byte of a line that is not ASCII: wide characters, and the UTF-8 that encoding leaves
PIECE_BYTES = 4 * 1024 * 1024  # bytes of lines and input that become one row group of a part


class PartitionRecords:
    """The records of a partition, as far as there is room (bytes) in memory; else their places in the files.

    `files` are what earlier sessions left; the last place is this session's own `journal`, None for who only reads.
    """

    def __init__(self, files: Sequence[Source], journal: Journal | None, room: int) -> None:
        self._files = files
        self._journal = journal
        self._room = room
        self._in_memory: list[Record] | None = []
        self._ordinals: list[int] = []
        self._sizes: list[int] = []  # bytes of each record
        self._batches: list[tuple[int, int, int]] = []  # source, offset of the first line, and how many records
        self._duplicates: set[int] = set()  # numbers of records whose line is an outcome that came too late
        self.targets: dict[int, int] = {}  # of calls that a round of `--retry` left without an outcome
        for entry in recorded.entries(files, self.targets):
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
        self._ordinals += [record.ordinal for record in records]
        self._sizes += sizes
        self._batches.append((source, offset, len(sizes)))
        if self._in_memory is not None:
            self._in_memory += records
            self._room -= sum(sizes) * (WIDEST_BYTES if is_wide else 1) + RECORD_BYTES * len(sizes)
            if self._room < 0:
                self._in_memory = None

    def outcomes(self) -> set[int]:
        """The calls that have an outcome after the replay of what earlier sessions left."""
        with contextlib.ExitStack() as files:
            fetch = self._fetch(files)
            records = (fetch(number) for number in range(len(self._ordinals)))
            return {record.ordinal for record in records if isinstance(record, OUTCOMES)}

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

    def _places(self) -> Iterator[tuple[int, int]]:
        """Source and offset of each record, in the order in which they came."""
        sizes = iter(self._sizes)
        for source, first, count in self._batches:
            offset = first
            for size in itertools.islice(sizes, count):
                yield source, offset
                offset += size + LINE_EXTRA_BYTES

    def _fetch(self, files: contextlib.ExitStack) -> Callable[[int], Record]:
        """What finds a record by its number. `files` closes what it opens."""
        if (in_memory := self._in_memory) is not None:  # looked at once: another thread may forget them
            return in_memory.__getitem__
        opened: dict[int, int] = {}
        places = list(self._places())

        def fetch(number: int) -> Record:
            (source, offset), size = places[number], self._sizes[number]
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


class OpenPartition:
    """A partition, the input's rows beside it, and what is recorded of its calls.

    `targets`: of calls that a round of `--retry` left without an outcome, by ordinal.
    """

    def __init__(
        self, partition: Partition, table: pa.Table, files: Sequence[Source], journal: Journal, room: int
    ) -> None:
        self.partition = partition
        self.table = table
        self.size = table.nbytes
        self.journal = journal
        self._records = PartitionRecords(files, journal, room)
        self.recorded = self._records.outcomes()
        self.targets = self._records.targets
        self.left = 0  # calls that get no outcome in this session

    @property
    def is_complete(self) -> bool:
        """Whether each call has its outcome."""
        return len(self.recorded) == self.partition.row_count

    def record(self, records: Sequence[Record]) -> None:
        """Write records down. Raises `CheckpointError` where the disk won't take them."""
        lines = list(map(codec.encode_record, records))
        offset = self.journal.append(lines)
        self._records.add(records, lines, offset)
        self.recorded.update([record.ordinal for record in records if isinstance(record, OUTCOMES)])

    def records(self, piece_bytes: float) -> Iterator[list[Record]]:
        """What was recorded, in the order of the calls, some megabytes at a time."""
        return self._records.in_order(self.size // self.partition.row_count, piece_bytes)

    def answers(self, ordinals: Collection[int]) -> dict[int, Answered]:
        """What was answered to those of these calls that have an answer. For any thread.

        Raises `CheckpointError` or `ValueError` where the partition is committed meanwhile: then a part has it.
        """
        return self._records.answers(ordinals)

    def close(self) -> None:
        """Sync and close the journal, which stays for the next session; no work where it is closed already.

        So it is where a commit came to its end and the task that waited for it was cancelled before it could say so.
        """
        if self.journal.is_closed:
            return
        try:
            self.journal.sync()
            self.journal.note()
        finally:
            self.journal.close()
