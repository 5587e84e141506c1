"""The life of a partition: opened, fed to the runner row by row, recorded, committed as a part.

Only open partitions take memory, and only so many are open: the runner is told to wait for room rather than being
handed rows whose neighbours are still being waited for.
"""

import asyncio
import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import IO, Any

import pyarrow as pa
from msgspec import Struct

from cometbatch.input import table as source
from cometbatch.money.prices import estimate_tokens
from cometbatch.records import CallRequest, Failed, Failure, HttpRequest, Outcome, Partition, Record, Tally
from cometbatch.results import codec, parts
from cometbatch.results import columns as output
from cometbatch.results import tally as tallies
from cometbatch.run_state.directory import LINE_EXTRA_BYTES, Journal, RunDirectory

OPEN_PARTITIONS = 4  # kept open while their slowest rows are waited for
MAX_OPEN_BYTES = 48 * 1024 * 1024  # of their input, columns that nobody uses included; beyond it none is opened beside
ROWS_PER_SLOT = 4  # rows of open partitions for each request in flight, where partitions are tiny
MAX_KEPT_BYTES = 32 * 1024 * 1024  # of the records of all open partitions, which are kept in memory beside the journals
RECORD_BYTES = 450  # of a record in memory beside its line's; and of what is not ASCII, at most so many for each byte:
WIDEST_BYTES = 5  # four of every character where one needs them, and one of the UTF-8 that encoding leaves behind
LONG_BYTES = 64  # of a cell of the input, on average: it takes less time to write a shorter one than to find it again
PIECE_BYTES = 4 * 1024 * 1024  # of lines and input that become one row group of a part
MADE_AT_ONCE = 32  # rows made into requests one after the other: twice as fast as one now and one then
GIVE_BACK_EVERY = 4  # parts: the next one takes longer, since all of its memory is touched for the first time
SYNC_INTERVAL_S = 0.5  # a power cut loses at most about this much of what was recorded
ASSUMED_OUTPUT_TOKENS = 256  # for the tokens-per-minute estimate of a row without a cap, until real usage corrects it


class RowMaker(Struct, frozen=True):
    """How a row of the input becomes a request, or fails before anything is sent.

    `render` gives the texts that differ from row to row, and `build` makes a request with them. `common_characters`:
    of the texts that all rows share. `hash_start`: a hash of hashlib's that has seen what all requests have in common;
    each goes on with a copy.
    """

    columns: tuple[str, ...]
    id_column: str | None
    render: Callable[[Mapping[str, object]], list[str] | Failure]
    build: Callable[[Sequence[str]], HttpRequest]
    hash_start: Any
    now: Callable[[], datetime]
    common_characters: int
    max_output_tokens: int | None

    def make(self, row: int, values: Mapping[str, object]) -> CallRequest | Failed:
        """The request of one row. The same row always gives the same bytes."""
        custom_id = None if self.id_column is None or (value := values[self.id_column]) is None else str(value)
        texts = self.render(values)
        if not isinstance(texts, list):  # to ask whether something is a Struct takes long where it is not
            return Failed(row, custom_id, 0, None, self.now(), None, texts)
        http = self.build(texts)
        digest = self.hash_start.copy()
        digest.update(http.body)
        cap = self.max_output_tokens
        tokens = estimate_tokens(sum(map(len, texts), self.common_characters)) + (cap or ASSUMED_OUTPUT_TOKENS)
        return CallRequest(row, custom_id, http, digest.hexdigest(), tokens, cap)


class _Recorded:
    """The records of an open partition: kept in memory as long as there is room, else read again from the journal."""

    def __init__(self, journal: Journal, room: int) -> None:
        self._journal = journal
        self._rows: list[int] = []
        self._sizes: list[int] = []  # of their lines
        self._kept: list[Record] | None = []
        self._room = room

    def add(self, records: Sequence[Record], lines: Sequence[bytes]) -> None:
        """Note what stands in the journal by now, in its order."""
        self._rows += [record.ordinal for record in records]
        sizes = list(map(len, lines))
        self._sizes += sizes
        if self._kept is not None:
            self._kept += records
            wide = [len(line) for line in lines if not line.isascii()]
            self._room -= sum(sizes) + RECORD_BYTES * len(lines) + (WIDEST_BYTES - 1) * sum(wide)
            if self._room < 0:
                self._kept = None

    def in_row_order(self, beside_bytes: int, piece_bytes: float) -> Iterator[list[Record]]:
        """All of them, so many bytes at a time. `beside_bytes`: of the input that will stand beside each."""
        some: list[Record] = []
        size = 0
        fetch = self._fetch()
        for number in sorted(range(len(self._rows)), key=self._rows.__getitem__):
            some.append(fetch(number))
            size += self._sizes[number] + beside_bytes
            if size >= piece_bytes:
                yield some
                some, size = [], 0
        yield some

    def _fetch(self) -> Callable[[int], Record]:
        """What finds a record by its number."""
        if self._kept is not None:
            return self._kept.__getitem__
        offsets = list(itertools.accumulate((size + LINE_EXTRA_BYTES for size in self._sizes), initial=0))
        read_again = self._journal.read_again
        return lambda number: codec.decode_record(read_again(offsets[number], self._sizes[number]))


class _Open:
    """A partition between its first row and its part."""

    def __init__(self, partition: Partition, table: pa.Table, journal: Journal, room: int) -> None:
        self.partition = partition
        self.table = table
        self.size = table.nbytes
        self._journal = journal
        self._records = _Recorded(journal, room)
        self.recorded: set[int] = set()
        try:
            self._replay()
        except BaseException:
            journal.close()
            raise

    @property
    def is_complete(self) -> bool:
        return len(self.recorded) == self.partition.row_count

    def _replay(self) -> None:
        for line in self._journal.replay():
            self._note([codec.decode_record(line)], [line])

    def record(self, records: Sequence[Record]) -> None:
        """Write them down."""
        lines = list(map(codec.encode_record, records))
        self._journal.append(lines)
        self._note(records, lines)

    def _note(self, records: Sequence[Record], lines: Sequence[bytes]) -> None:
        self._records.add(records, lines)
        self.recorded.update([outcome.ordinal for outcome in output.outcomes_in(records)])

    def records(self) -> Iterator[list[Record]]:
        """What was recorded, in row order, some megabytes at a time.

        All at once where the input has dictionaries: Parquet has the whole of one in each row group.
        """
        piece_bytes = math.inf if _has_dictionary(self.table) else PIECE_BYTES
        return self._records.in_row_order(self.size // self.partition.row_count, piece_bytes)

    def sync(self) -> None:
        """Make what was recorded survive a power cut."""
        self._journal.sync()

    def close(self) -> None:
        """Close the journal, which stays for the next session."""
        self._journal.close()


def _has_dictionary(table: pa.Table) -> bool:
    return any("dictionary<" in str(column.type) for column in table.schema)  # nested ones, too


class Partitions:
    """The uncommitted partitions of a run: hands out their rows, takes their outcomes, commits them.

    `todo` are the partitions without a part, ascending; `tables` reads them in that order; `partition_rows` is the
    size of every partition but the last. `slots` is how many requests may be in flight.
    """

    def __init__(
        self,
        directory: RunDirectory,
        run_id: str,
        todo: Sequence[Partition],
        tables: Callable[[Iterable[Partition]], Iterator[pa.Table]],
        maker: RowMaker,
        *,
        partition_rows: int,
        prefix: str,
        metadata: Mapping[str, str],
        columns: Sequence[output.Column] = output.COLUMNS,
        slots: int,
    ) -> None:
        self._directory = directory
        self._run_id = run_id
        self._maker = maker
        self._partition_rows = partition_rows
        self._prefix = prefix
        self._metadata = metadata
        self._columns = columns
        self._min_open_rows = slots * ROWS_PER_SLOT
        self._room_each = MAX_KEPT_BYTES // max(OPEN_PARTITIONS, -(-self._min_open_rows // partition_rows))
        self._tables = tables(todo)
        self._unopened = zip(todo, self._tables, strict=True)
        self._reading: asyncio.Future[tuple[Partition, pa.Table] | None] | None = None
        self._making: Iterator[list[CallRequest | Failed]] = iter(())
        self._made: list[CallRequest | Failed] = []  # the next row is the last
        self._rows_left = 0
        self._open: dict[int, _Open] = {}
        self._commits: set[asyncio.Task[None]] = set()
        self._written = 0  # parts, by their thread
        # A thread each, kept: allocators keep megabytes for every thread that ever took memory, so work that wanders
        # through a pool's threads makes a process grow with the length of a run. No sync waits for a part.
        self._reader, self._writer, self._syncer = (ThreadPoolExecutor(1) for _ in range(3))
        self._broken: BaseException | None = None
        self.on_room: Callable[[], None] = lambda: None

    @property
    def has_room(self) -> bool:
        """Whether a row of an open partition is left, or another partition may be opened.

        Also where `next_call` has an error to raise: a run that waits for room would never hear of it.
        """
        if self._rows_left or self._broken is not None or not self._open:
            return True
        if sum(opened.size for opened in self._open.values()) >= MAX_OPEN_BYTES:
            return False
        if len(self._open) < OPEN_PARTITIONS:
            return True
        return sum(opened.partition.row_count for opened in self._open.values()) < self._min_open_rows

    def ready_call(self) -> CallRequest | Failed | None:
        """The next row of the partition that is being handed out; `None` where `next_call` has more to do than that."""
        if not self._rows_left or self._broken is not None:
            return None
        self._rows_left -= 1
        if not self._made:
            self._made = next(self._making)
        return self._made.pop()

    async def next_call(self) -> CallRequest | Failed | None:
        """The next row without an outcome, in input order; `None` after the last.

        Raises what reading the input or committing a part raised.
        """
        while True:
            self._raise_if_broken()
            if (row := self.ready_call()) is not None:
                return row
            following = await self._read_next()
            if following is None:
                return None
            self._making = self._start(*following)

    def record(self, records: Sequence[Record]) -> None:
        """Write records down; when this returns, a killed process can't lose them. A partition's last row commits it.

        Where committing some part has failed, whoever asks for a row next is told: these were paid for.
        """
        by_partition: dict[int, list[Record]] = {}
        for record in records:
            by_partition.setdefault(record.ordinal // self._partition_rows, []).append(record)
        for index, some in by_partition.items():
            opened = self._open[index]
            opened.record(some)
            if opened.is_complete:
                self._commit_soon(opened)

    async def sync_forever(self) -> None:
        """Group commit: every so often make what was recorded survive a power cut, off the event loop.

        Ends where the disk fails, which whoever asks for a row next is told.
        """
        try:
            while True:
                await asyncio.sleep(SYNC_INTERVAL_S)
                for opened in list(self._open.values()):
                    await asyncio.get_running_loop().run_in_executor(self._syncer, opened.sync)
        except Exception as error:  # noqa: BLE001 - raised again by whoever asks next: the run must not go on
            self._break(error)

    async def finish(self) -> None:
        """Wait for the commits under way, then close what stays open. Raises what a commit raised."""
        try:
            await self._close_input()
            while self._commits:
                await asyncio.wait(self._commits)
        finally:
            for threads in (self._reader, self._writer, self._syncer):
                threads.shutdown(wait=False)
        self._close_journals()
        self._raise_if_broken()

    def _close_journals(self) -> None:
        with contextlib.ExitStack() as ending:  # ends all of them, whatever one of them raises
            for opened in self._open.values():
                ending.callback(opened.close)
                ending.callback(opened.sync)

    async def _read_next(self) -> tuple[Partition, pa.Table] | None:
        """The next partition with its table. A thread that reads outlives a caller who is cancelled."""
        self._reading = asyncio.get_running_loop().run_in_executor(self._reader, next, self._unopened, None)
        return await asyncio.shield(self._reading)

    async def _close_input(self) -> None:
        """Close the input now, not when the garbage collector comes by, and not under a thread that reads it."""
        if self._reading is not None:
            await asyncio.wait([self._reading])
            self._reading.exception()  # whoever waited has had it; else nobody needs it any more
        if isinstance(self._tables, Generator):
            self._tables.close()

    def _start(self, partition: Partition, table: pa.Table) -> Iterator[list[CallRequest | Failed]]:
        opened = _Open(partition, table, self._directory.open_journal(self._run_id, partition.index), self._room_each)
        self._open[partition.index] = opened
        if opened.is_complete:  # the last session died between its last outcome and its commit
            self._commit_soon(opened)
            return iter(())
        self._rows_left = partition.row_count - len(opened.recorded)
        return self._make_rows(opened)

    def _make_rows(self, opened: _Open) -> Iterator[list[CallRequest | Failed]]:
        """Some at a time, the last of them first."""
        values = source.rows(opened.table, self._maker.columns)
        rows: Iterator[tuple[int, dict[str, object]]] = enumerate(values, opened.partition.first_row)
        if done := frozenset(opened.recorded):
            rows = ((row, values) for row, values in rows if row not in done)
        while some := list(itertools.islice(rows, MADE_AT_ONCE)):
            made = list(itertools.starmap(self._maker.make, some))
            made.reverse()
            yield made

    def _commit_soon(self, opened: _Open) -> None:
        task = asyncio.get_running_loop().create_task(self._commit(opened))
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)

    async def _commit(self, opened: _Open) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._write_part, opened)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever asks next: the run must not go on
            self._break(error)
        else:
            del self._open[opened.partition.index]
            self.on_room()

    def _break(self, error: BaseException) -> None:
        self._broken = self._broken or error
        self.on_room()

    def _write_part(self, opened: _Open) -> None:
        self._written += 1
        if self._written % GIVE_BACK_EVERY == 0:
            parts.release_memory()  # what the parts before this one have taken
        schema = output.joined_schema(opened.table.schema, self._prefix, self._metadata, self._columns)
        tally = Tally()

        def tables() -> Iterator[pa.Table]:
            nonlocal tally
            for records in opened.records():
                if outcomes := output.outcomes_in(records):
                    yield self._joined(opened, outcomes, tally.calls)
                tally = tallies.add(tally, tallies.tally(records))

        def write(file: IO[bytes]) -> None:
            parts.write_part(
                file,
                schema,
                tables(),
                lambda: parts.PartInfo(self._run_id, opened.partition, tally),
                is_result=self._directory.is_dataset,
                repeated=self._repeated(schema, opened.table),
            )

        opened.sync()  # writing the part can take longer than a power cut may lose
        self._directory.commit_part(opened.partition.index, write)
        opened.close()

    def _repeated(self, schema: pa.Schema, table: pa.Table) -> list[str] | bool:
        """The columns of a part in which to look for repetitions, of one that is to be merged the long texts alone.

        All of them where some are dictionaries already: these are small in memory, and would be immense without.
        """
        repeated = output.repeated(schema, self._prefix)
        if self._directory.is_dataset or isinstance(repeated, bool) or _has_dictionary(table):
            return repeated
        return [name for name in table.column_names if table[name].nbytes > LONG_BYTES * table.num_rows]

    def _joined(self, opened: _Open, outcomes: Sequence[Outcome], offset: int) -> pa.Table:
        """Rows of an open partition from an offset on, each beside its outcome. Raises `ValueError` where it is not."""
        if outcomes[0].ordinal != opened.partition.first_row + offset:
            raise ValueError(f"an outcome of row {outcomes[0].ordinal} where that of another one belongs")
        rows = opened.table.slice(offset, len(outcomes))
        return output.join(rows, outcomes, self._prefix, self._metadata, self._columns)

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise self._broken
