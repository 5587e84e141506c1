"""The life of a partition: opened, fed to the runner call by call, recorded, committed as a part.

Only open partitions take memory, and only some are open: the runner waits for room rather than being handed calls whose
neighbours are still being waited for.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, TypeAlias

import pyarrow as pa

from cometbatch.input.values import row_values
from cometbatch.records import CallRequest, Failed, Outcome, Partition, Record, Tally
from cometbatch.results import columns, parts, tallies
from cometbatch.results.columns import outcomes_in
from cometbatch.run_state import open_partition, recorded
from cometbatch.run_state.in_flight import InFlightMarks
from cometbatch.run_state.manifest import metadata_of
from cometbatch.run_state.open_partition import OpenPartition
from cometbatch.run_state.run import Run

Make: TypeAlias = Callable[[int, Mapping[str, object]], CallRequest | Failed]
"""The request of a call, by its ordinal and its row's values, or why there is none. The same values, the same bytes."""
Take: TypeAlias = Callable[[Sequence[CallRequest | Outcome]], list[CallRequest | Outcome]]
"""The same calls, in place of a request its outcome where an earlier answer to it was found."""

OPEN_PARTITIONS = 4  # partitions that may be open while their slowest calls are waited for
MAX_OPEN_BYTES = 48 * 1024 * 1024  # bytes of input of open partitions, unused columns included; above it none is opened
ROWS_PER_SLOT = 4  # calls of open partitions for each request in flight; below it more partitions than usual are opened
MAX_KEPT_BYTES = 32 * 1024 * 1024  # bytes of records of all open partitions that are kept in memory beside the journals
LONG_BYTES = 64  # bytes of a cell of the input, on average; shorter ones are written faster than found to be repeated
MADE_AT_ONCE = 32  # rows made into requests one after the other: twice as fast as one at a time
MADE_FROM_FILES = 8  # the same where files are read for it: the first is sent sooner
TAKEN_AT_ONCE = 256  # rows that are looked up among earlier answers one after the other
TAKEN_BYTES = (
    4 * 1024 * 1024
)  # bytes of input of these rows; of longer ones there are fewer, but not below MADE_FROM_FILES
RELEASE_EVERY = 4  # parts between two releases of memory; after each, the next part touches new memory
SYNC_INTERVAL_S = 0.05  # seconds between two syncs: a power cut loses what was recorded since the sync before last
SLOW_SYNC_S = 0.1  # seconds that a sync may take before the run says that the disk is slow


class Partitions:
    """The partitions of a run without a part: hands out their calls, takes their records, commits them.

    `tables` reads partitions in the order given. `makers`: for each target of the run, what makes requests of rows, of
    which all of them together need `columns`. `slice_makers`: the same for each slice of the run, where slices of one
    target ask differently. `slots` is how many requests may be in flight. `queues`: which slices wait for each other,
    by their numbers; all of them, where it is left out. `session`: the number of the session that writes. `limit`: only
    rows below it are handed out, in each slice. `reads_files`: `makers` open files, which can take long, so a thread
    makes the requests. `further`: makes columns of the run's own. `take`: finds earlier answers, in that thread, to
    calls that were not asked before in this run, nor opened again by a `--retry`.
    """

    def __init__(
        self,
        run: Run,
        session: int,
        tables: Callable[[Iterable[Partition]], Iterator[pa.Table]],
        makers: Sequence[Make],
        columns: Sequence[str],
        *,
        slots: int,
        slice_makers: Sequence[Make] | None = None,
        queues: Sequence[Sequence[int]] | None = None,
        limit: int | None = None,
        reads_files: bool = False,
        further: columns.Further | None = None,
        take: Take | None = None,
    ) -> None:
        self._run, self._session, self._limit = run, session, limit
        own = [makers[each.target] for each in run.manifest.slices] if slice_makers is None else slice_makers
        self._makers, self._slice_makers, self._take = makers, own, take
        if queues is not None and len(queues) != 1:
            raise NotImplementedError("several queues")
        self._is_slow_to_make = reads_files or take is not None
        self._made_at_once = MADE_FROM_FILES if reads_files else MADE_AT_ONCE
        self._columns = columns
        self._min_open_rows = slots * ROWS_PER_SLOT
        self._room_each = MAX_KEPT_BYTES // max(OPEN_PARTITIONS, -(-self._min_open_rows // run.manifest.partition_rows))
        todo = run.due(limit)
        self._tables = tables(todo)
        self._unopened = zip(todo, self._tables, strict=True)
        self._reading: asyncio.Future[Any] | None = None
        self._making: Iterator[list[CallRequest | Outcome]] = iter(())
        self._made: list[CallRequest | Outcome] = []  # the next call is the last
        self._calls_left = 0
        self._open: dict[int, OpenPartition] = {}
        self.opened: Callable[[int], OpenPartition | None] = self._open.get  # by index
        self.settling: set[asyncio.Task[None]] = set()
        self._writer_of = PartWriter(run, further)
        # A thread each, kept: allocators keep megabytes for every thread that ever took memory, so work that wanders
        # through a pool's threads makes a process grow with the length of a run. No sync waits for a part.
        lock = run.directory.lock
        self._reader, self._writer, self._syncer = lock.thread(), lock.thread(), lock.thread()
        self._broken: BaseException | None = None
        self.slowest_sync_s = 0.0
        self.on_room: Callable[[], None] = lambda: None
        self.on_commit: Callable[[Partition], None] = lambda _: None

    @property
    def queues(self) -> "Sequence[Partitions]":
        """The source of each queue's calls."""
        return (self,)

    @property
    def has_room(self) -> bool:
        """Whether a call of an open partition is left, or another partition may be opened.

        Also where `next_call` has an error to raise: a run that waits for room would never hear of it.
        """
        if self._calls_left or self._broken is not None or not self._open:
            return True
        if sum(opened.size for opened in self._open.values()) >= MAX_OPEN_BYTES:
            return False
        if len(self._open) < OPEN_PARTITIONS:
            return True
        return sum(opened.partition.row_count for opened in self._open.values()) < self._min_open_rows

    def ready_call(self) -> CallRequest | Outcome | None:
        """The next call of the partition that is being handed out; None where `next_call` has more to do than that."""
        if not self._calls_left or self._broken is not None:
            return None
        if not self._made:
            if self._is_slow_to_make:
                return None
            self._made = next(self._making)
        self._calls_left -= 1
        return self._made.pop()

    async def next_call(self) -> CallRequest | Outcome | None:
        """The next call without an outcome, in order; None after the last.

        Raises what reading the input or committing a part raised.
        """
        while True:
            self._raise_if_broken()
            if (call := self.ready_call()) is not None:
                return call
            if self._calls_left:
                self._made = await self._in_reader(next, self._making)
                continue
            following = await self._read_next()
            if following is None:
                return None
            self._making = self._start(*following)

    def record(self, records: Sequence[Record]) -> None:
        """Write records down; when this returns, a killed process can't lose them. A partition's last call commits it.

        Where committing some part has failed, whoever asks for a call next is told: these were paid for.
        """
        by_partition: dict[int, list[Record]] = {}
        for record in records:
            by_partition.setdefault(self._run.manifest.partition_of(record.ordinal), []).append(record)
        for index, some in by_partition.items():
            opened = self._open[index]
            opened.record(some)
            self._close_if_settled(opened)

    def leave(self, ordinal: int) -> None:
        """The call gets no outcome in this session. A partition of which only such calls are left is closed."""
        opened = self._open[self._run.manifest.partition_of(ordinal)]
        opened.left += 1
        self._close_if_settled(opened)

    def set_aside(self) -> None:
        """No open call gets an outcome in this session: open partitions are closed, and nothing more is handed out."""
        self._calls_left = 0
        for opened in tuple(self._open.values()):
            rows, settled = opened.partition.row_count, len(opened.recorded) + opened.left
            if settled < rows:
                opened.left += rows - settled
                self._close_if_settled(opened)

    async def _set_aside(self, opened: OpenPartition) -> None:
        """Close the journal, which stays for the next session, in the thread that syncs it."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._syncer, opened.close)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever asks next: the run must not go on
            self._break(error)
        else:
            del self._open[opened.partition.index]
            self.on_room()

    async def sync_forever(self, marks: InFlightMarks) -> None:
        """Group commit: every so often make records and marks survive a power cut, off the event loop.

        A mark's cell is free once a sync has covered its record. Ends where the disk fails, which whoever asks for a
        call next is told.
        """
        try:
            while True:
                await asyncio.sleep(SYNC_INTERVAL_S)
                cells = marks.take_recorded()
                journals = [opened.journal for opened in self._open.values()]
                files = [*(journal.sync for journal in journals if journal.is_dirty), *marks.syncs()]
                if files:
                    await asyncio.get_running_loop().run_in_executor(self._syncer, self._sync, files)
                marks.free(cells)
        except Exception as error:  # noqa: BLE001 - raised again by whoever asks next: the run must not go on
            self._break(error)

    def _sync(self, files: Iterable[Callable[[], object]]) -> None:
        began = time.monotonic()
        for sync in files:
            sync()
        self.slowest_sync_s = max(self.slowest_sync_s, time.monotonic() - began)

    async def finish(self) -> None:
        """Wait for the commits under way, also where the caller is cancelled meanwhile; then close what stays open.

        Raises what a commit raised.
        """
        is_cancelled = await _outlast([self._reading] if self._reading is not None else [])
        self._close_input()
        is_cancelled |= await _outlast(self.settling)
        for thread in (self._reader, self._writer, self._syncer):
            thread.shutdown(wait=True)
        _close_journals(self._open.values())
        if is_cancelled:
            raise asyncio.CancelledError
        self._raise_if_broken()

    async def _read_next(self) -> tuple[Partition, pa.Table] | None:
        """The next partition with its table. A thread that reads outlives a caller who is cancelled."""
        following: tuple[Partition, pa.Table] | None = await self._in_reader(next, self._unopened, None)
        return following

    async def _in_reader(self, work: Callable[..., Any], *arguments: object) -> Any:
        self._reading = asyncio.get_running_loop().run_in_executor(self._reader, work, *arguments)
        return await asyncio.shield(self._reading)

    def _close_input(self) -> None:
        """Close the input now, not when the garbage collector comes by, and not under a thread that reads it."""
        if self._reading is not None and not self._reading.cancelled():
            self._reading.exception()  # whoever waited has had it; else nobody needs it any more
        if isinstance(self._tables, Generator):
            self._tables.close()

    def _start(self, partition: Partition, table: pa.Table) -> Iterator[list[CallRequest | Outcome]]:
        run = self._run
        files = recorded.sources(run.directory, run.manifest.run_id, partition.index, run.progress.last)
        journal = run.directory.journals.begin(run.manifest.run_id, partition.index, self._session)
        try:
            opened = OpenPartition(partition, table, files, journal, self._room_each)
        except BaseException:
            journal.close()
            raise
        self._open[partition.index] = opened
        rows = partition.row_count
        if self._limit is not None:
            rows = min(rows, self._limit - partition.first_row)
            first = run.manifest.first_ordinal(partition)
            beyond = range(first + rows, first + partition.row_count)
            opened.left = sum(ordinal not in opened.recorded for ordinal in beyond)
        self._calls_left = partition.row_count - len(opened.recorded) - opened.left
        if not self._calls_left:  # the last session died between its last outcome and its commit
            self._close_if_settled(opened)
            return iter(())
        return self._make_calls(opened, rows)

    def _make_calls(self, opened: OpenPartition, rows: int) -> Iterator[list[CallRequest | Outcome]]:
        """The calls of the first `rows` that have no outcome, some at a time, the last of them first."""
        values = row_values(opened.table.slice(0, rows), self._columns)
        calls: Iterator[tuple[int, dict[str, object]]] = enumerate(
            values, self._run.manifest.first_ordinal(opened.partition)
        )
        if done := frozenset(opened.recorded):
            calls = ((ordinal, values) for ordinal, values in calls if ordinal not in done)
        target = self._run.manifest.slices[opened.partition.slice].target
        makers = {**dict(enumerate(self._makers)), target: self._slice_makers[opened.partition.slice]}
        size = self._made_at_once if self._take is None else _looked_up_at_once(opened)
        while some := list(itertools.islice(calls, size)):
            made = _made(makers, target, opened.targets, some)
            if self._take is not None:
                made = _taken(self._take, made, (opened.targets, self._run.progress.asks))
            made.reverse()
            yield made

    def _close_if_settled(self, opened: OpenPartition) -> None:
        """Commit the partition once each call has its outcome; set it aside where only calls are left that get none."""
        if len(opened.recorded) + opened.left < opened.partition.row_count:
            return
        work = self._commit(opened) if opened.is_complete else self._set_aside(opened)
        task = asyncio.get_running_loop().create_task(work)
        self.settling.add(task)
        task.add_done_callback(self.settling.discard)

    async def _commit(self, opened: OpenPartition) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._writer_of.write, opened)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever asks next: the run must not go on
            self._break(error)
        else:
            del self._open[opened.partition.index]
            self.on_commit(opened.partition)
            self.on_room()

    def _break(self, error: BaseException) -> None:
        self._broken = self._broken or error
        self.on_room()

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise self._broken


def _made(
    makers: Mapping[int, Make], own: int, targets: Mapping[int, int], some: Sequence[tuple[int, Mapping[str, object]]]
) -> list[CallRequest | Outcome]:
    """The requests of some calls, each to the target that it has in `targets`, else to its slice's `own`."""
    if targets:
        return [makers[targets.get(ordinal, own)](ordinal, values) for ordinal, values in some]
    return list(itertools.starmap(makers[own], some))


def _looked_up_at_once(opened: OpenPartition) -> int:
    fitting: int = TAKEN_BYTES * opened.partition.row_count // max(1, opened.size)
    return max(MADE_FROM_FILES, min(TAKEN_AT_ONCE, fitting))


def _taken(
    take: Take, made: list[CallRequest | Outcome], barred: Sequence[Collection[int]]
) -> list[CallRequest | Outcome]:
    """These calls, with earlier answers to those that may have one.

    `barred`: the ordinals of others: what a `--retry` opened again asks for a new answer, and what a call was billed
    for in this run belongs to its own outcome.
    """
    if not any(barred):
        return take(made)
    is_barred = [any(call.ordinal in some for some in barred) for call in made]
    found = iter(take([call for call, no in zip(made, is_barred, strict=True) if not no]))
    return [call if no else next(found) for call, no in zip(made, is_barred, strict=True)]


def _close_journals(partitions: Iterable[OpenPartition]) -> None:
    """All of them, whatever one of them raises."""
    first: BaseException | None = None
    for opened in partitions:
        try:
            opened.close()
        except Exception as error:  # noqa: BLE001 - raised below
            first = first or error
    if first is not None:
        raise first


class PartWriter:
    """Makes parts of open partitions, in a thread."""

    def __init__(self, run: Run, further: columns.Further | None = None) -> None:
        self._run = run
        self._further = further
        self._columns = columns.columns_of(run.columns)
        self._metadata = metadata_of(run.manifest)
        self._written = 0

    def write(self, opened: OpenPartition) -> None:
        """Commit a partition of which each call has its outcome. Raises `CheckpointError` where the disk fails."""
        self._written += 1
        if self._written % RELEASE_EVERY == 0:
            parts.release_memory()  # what the parts before this one have taken
        run, index = self._run, opened.partition.index
        further = self._further
        schema = columns.joined_schema(opened.table.schema, run.prefix, self._metadata, self._columns, further)
        round_, tally = run.directory.reopened().round_of(index).round, Tally()
        first = run.manifest.first_ordinal(opened.partition)

        def tables() -> Iterator[pa.Table]:
            nonlocal tally
            # All at once where the input has dictionaries: Parquet has the whole of one in each row group.
            piece_bytes = math.inf if _has_dictionary(opened.table) else open_partition.PIECE_BYTES
            for records in opened.records(piece_bytes):
                if outcomes := outcomes_in(records):
                    rows = opened.table.slice(tally.calls, len(outcomes))
                    if outcomes[0].ordinal != first + tally.calls:
                        raise ValueError(f"an outcome of row {outcomes[0].ordinal} where another row's belongs")
                    part = columns.join(rows, outcomes, run.prefix, self._metadata, self._columns)
                    yield part if further is None else columns.extended(part, run.prefix, further)
                tally = tallies.add(tally, tallies.tally(records))

        def write(file: IO[bytes]) -> None:
            parts.write_part(
                file,
                schema,
                tables(),
                lambda: parts.PartInfo(run.manifest.run_id, opened.partition, tally, round_),
                is_result=run.directory.parts.is_dataset,
                repeated=self._repeated(schema, opened.table),
            )

        opened.journal.sync()  # to write the part can take longer than a power cut may lose
        run.directory.commit_part(index, write)
        opened.journal.close()

    def _repeated(self, schema: pa.Schema, table: pa.Table) -> list[str] | bool:
        """The columns of a part in which to look for repetitions: of one that is to be merged, the long texts alone.

        All of them where some are dictionaries already: these are small in memory, and would be immense without.
        """
        repeated = columns.repeated(schema, self._run.prefix)
        if self._run.directory.parts.is_dataset or isinstance(repeated, bool) or _has_dictionary(table):
            return repeated
        return [name for name in table.column_names if table[name].nbytes > LONG_BYTES * table.num_rows]


def _has_dictionary(table: pa.Table) -> bool:
    return any("dictionary<" in str(column.type) for column in table.schema)  # nested ones, too


async def _outlast(tasks: "Iterable[asyncio.Future[Any]]") -> bool:
    """Wait until these have ended, also where the caller is cancelled meanwhile; returns whether that happened."""
    is_cancelled = False
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError:
            is_cancelled = True
    return is_cancelled
