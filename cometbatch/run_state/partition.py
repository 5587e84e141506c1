"""The partitions of a run without a part: opened range by range, recorded, committed as parts.

Guards: the partitions of one range share its rows, read once for all queues that are there, and one journal. A range is
closed when no partition of it is open, and read and opened again when a slower queue gets there. Each bound on what is
open is a queue's own, so that no queue waits for what another one holds.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from cometbatch.records import CallRequest, Outcome, Partition, Record
from cometbatch.results import columns
from cometbatch.run_state import recorded
from cometbatch.run_state.in_flight import InFlightMarks
from cometbatch.run_state.input_passes import InputPasses, Tables
from cometbatch.run_state.journal import Journal
from cometbatch.run_state.making import CallMaker, Make, Take
from cometbatch.run_state.open_partition import OpenPartition, replayed
from cometbatch.run_state.open_range import OpenRange
from cometbatch.run_state.part_writer import PartWriter
from cometbatch.run_state.queue_calls import OPEN_PARTITIONS, QueueCalls
from cometbatch.run_state.run import Run

MAX_OPEN_BYTES = 48 * 1024 * 1024  # bytes of input of open ranges, unused columns included; above it none is opened
ROWS_PER_SLOT = 4  # calls of open partitions for each request in flight; below it more partitions than usual are opened
MAX_KEPT_BYTES = 32 * 1024 * 1024  # bytes of records of all open partitions that are kept in memory beside the journals
SYNC_INTERVAL_S = 0.05  # seconds between two syncs: a power cut loses what was recorded since the sync before last
SLOW_SYNC_S = 0.1  # seconds that a sync may take before the run says that the disk is slow


class Partitions:
    """What is open of a run: takes records, commits parts; its `queues` hand out the calls.

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
        tables: Tables,
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
        self._maker = CallMaker(
            run.manifest,
            makers,
            slice_makers,
            columns,
            reads_files=reads_files,
            take=take,
            asks=run.progress.asks,
        )
        self.is_slow_to_make = self._maker.is_slow
        self._in_slice = run.manifest.partitions_in_slice
        self._passes = InputPasses(tables)
        self._readings: set[asyncio.Future[Any]] = set()
        self._ranges: dict[int, OpenRange] = {}
        self._closed: dict[int, Journal] = {}  # of ranges that are set aside, and may be opened again
        self._with_records = run.progress.open_by_range(run.manifest)  # partitions of each range that have no part
        self._open: dict[int, OpenPartition] = {}
        self.opened: Callable[[int], OpenPartition | None] = self._open.get  # by index
        self._settling: set[asyncio.Task[None]] = set()
        self._writer_of = PartWriter(run, further)
        # A thread each, kept: allocators keep megabytes for every thread that ever took memory, so work that wanders
        # through a pool's threads makes a process grow with the length of a run. No sync waits for a part.
        lock = run.directory.lock
        self._reader, self._writer, self._syncer = lock.thread(), lock.thread(), lock.thread()
        self._broken: BaseException | None = None
        self.slowest_sync_s = 0.0
        self.on_commit: Callable[[Partition], None] = lambda _: None
        together = [run.manifest.active] if queues is None else queues
        self._min_open_rows = slots * ROWS_PER_SLOT
        self.queues: Sequence[QueueCalls] = [
            QueueCalls(
                self,
                self._todo(some),
                max_bytes=MAX_OPEN_BYTES // max(1, len(together)),
                min_open_rows=self._min_open_rows,
            )
            for some in together
        ]
        self._queue_of = {each: queue for queue, some in zip(self.queues, together, strict=True) for each in some}
        self._together = {each: len(some) for some in together for each in some}

    # -- records ------------------------------------------------------------------------------------------------------

    def record(self, records: Sequence[Record]) -> None:
        """Write records down; when this returns, a killed process can't lose them. A partition's last call commits it.

        Where committing some part has failed, whoever asks for a call next is told: these were paid for.
        """
        index_of = self._run.manifest.partition_of
        by_partition: dict[int, list[Record]] = {}
        for record in records:
            by_partition.setdefault(index_of(record.ordinal), []).append(record)
        by_range: dict[int, dict[int, list[Record]]] = {}
        for index, some in by_partition.items():
            by_range.setdefault(index % self._in_slice, {})[index] = some
        for number, groups in by_range.items():
            self._ranges[number].record(groups)
            self._with_records.setdefault(number, set()).update(groups)
            for index in groups:
                self.close_if_settled(self._open[index])

    def leave(self, ordinal: int) -> None:
        """The call gets no outcome in this session. A partition of which only such calls are left is closed."""
        opened = self._open[self._run.manifest.partition_of(ordinal)]
        opened.left += 1
        self.close_if_settled(opened)

    async def sync_forever(self, marks: InFlightMarks) -> None:
        """Group commit: every so often make records and marks survive a power cut, off the event loop.

        A mark's cell is free once a sync has covered its record. Ends where the disk fails, which whoever asks for a
        call next is told.
        """
        try:
            while True:
                await asyncio.sleep(SYNC_INTERVAL_S)
                cells = marks.take_recorded()
                journals = [each.journal for each in self._ranges.values() if each.journal is not None]
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
        is_cancelled = await _outlast(self._readings)
        self._passes.close()
        is_cancelled |= await _outlast(self._settling)
        for thread in (self._reader, self._writer, self._syncer):
            thread.shutdown(wait=True)
        _close_journals(self._ranges.values())
        if is_cancelled:
            raise asyncio.CancelledError
        self.raise_if_broken()

    # -- for a queue --------------------------------------------------------------------------------------------------

    @property
    def is_broken(self) -> bool:
        """Whether the run must not go on."""
        return self._broken is not None

    def raise_if_broken(self) -> None:
        """Raise why the run must not go on, if so it is."""
        if self._broken is not None:
            raise self._broken

    async def in_reader(self, work: Callable[..., Any], *arguments: object) -> Any:
        """Do work in the thread that reads, which outlives a caller who is cancelled."""
        return await asyncio.shield(self._reading(work, *arguments))

    async def open(self, queue: QueueCalls, number: int, partitions: Sequence[Partition]) -> list[OpenPartition]:
        """Open a queue's partitions in a range, once its rows are there. Raises what reading raised."""
        range_ = await self._joined(queue, number, partitions)
        try:
            if range_.loading is not None:
                table = await asyncio.shield(range_.loading)
                if range_.journal is None:
                    range_.begin(table, self._journal_of(number))
            found: list[OpenPartition] = await self.in_reader(self._opened, range_, partitions)
        except BaseException:
            self._leave_range(queue, range_, len(partitions))
            raise
        for opened in found:
            index = opened.partition.index
            self._open[index] = range_.partitions[index] = opened
            queue.note_open(opened, range_)
        return found

    def calls_of(self, opened: Sequence[OpenPartition]) -> Iterator[list[CallRequest | Outcome]]:
        """The calls without an outcome of partitions of one range, some at a time, the last of them first."""
        partition, table = opened[0].partition, opened[0].table
        rows = partition.row_count if self._limit is None else self._limit - partition.first_row
        return self._maker.calls(opened, table, min(rows, partition.row_count))

    def close_if_settled(self, opened: OpenPartition) -> None:
        """Commit the partition once each call has its outcome; set it aside where only calls are left that get none."""
        if not opened.is_settled or opened.is_closing:
            return
        opened.is_closing = True
        queue = self._queue_of[opened.partition.slice]
        self._settle(queue, self._close(queue, opened))

    # -- ranges -------------------------------------------------------------------------------------------------------

    def _todo(self, slices: Sequence[int]) -> Iterator[tuple[int, list[Partition]]]:
        """The ranges in which these slices have work, ascending, with their partitions there."""
        run, limit, committed = self._run, self._limit, frozenset(self._run.progress.committed)
        for number in range(self._in_slice):
            indexes = (each * self._in_slice + number for each in slices)
            found = [run.manifest.partition(index) for index in indexes if index not in committed]
            if limit is not None:
                found = [each for each in found if run.lacking(each, limit)]
            if found:
                yield number, found

    async def _joined(self, queue: QueueCalls, number: int, partitions: Sequence[Partition]) -> OpenRange:
        """The range, open or being opened, with the queue in it."""
        while (range_ := self._ranges.get(number)) is not None and range_.closing is not None:
            await asyncio.shield(range_.closing)
            self.raise_if_broken()
        if range_ is None:
            others = {each.next_range for each in self.queues if each is not queue}
            pass_, useless = self._passes.pass_to(number, {each for each in others if each is not None})
            first = partitions[0]
            wanted = Partition(number, first.first_row, first.row_count)
            range_ = self._ranges[number] = OpenRange(number)
            range_.loading = self._reading(pass_.read, wanted)
            for each in useless:
                self._reading(each.close)
        range_.queues[queue] = len(partitions)
        if len(range_.queues) > 1:  # what the range takes is shared by one more
            self._tell_room()
        return range_

    def _reading(self, work: Callable[..., Any], *arguments: object) -> asyncio.Future[Any]:
        reading = asyncio.get_running_loop().run_in_executor(self._reader, work, *arguments)
        self._readings.add(reading)
        reading.add_done_callback(self._has_read)
        return reading

    def _has_read(self, reading: asyncio.Future[Any]) -> None:
        self._readings.discard(reading)
        if not reading.cancelled():
            reading.exception()  # whoever waits has it; else nobody needs it any more

    def _journal_of(self, number: int) -> Journal:
        """The journal of a range in this session: begun, or opened again. Raises `CheckpointError`."""
        journal = self._closed.pop(number, None)
        if journal is None:
            return self._run.directory.journals.begin(self._run.manifest.run_id, number, self._session)
        journal.reopen()
        return journal

    def _opened(self, range_: OpenRange, partitions: Sequence[Partition]) -> list[OpenPartition]:
        """A queue's partitions in a range, with what earlier sessions left of them. For the thread that reads."""
        run, manifest, table, journal = self._run, self._run.manifest, range_.table, range_.journal
        assert table is not None  # noqa: S101 - it was read before
        assert journal is not None  # noqa: S101 - it was begun before
        earlier = [file for file in run.directory.journals.all(range_.number) if file.session < self._session]
        indexes = [each.index for each in partitions]
        files = recorded.sources(run.directory, manifest, indexes, run.progress.last, earlier)
        records = replayed(manifest, indexes, files, journal, self._room_of(partitions[0]))
        found = []
        for each in partitions:
            opened = OpenPartition(each, manifest.first_ordinal(each), table, journal, records[each.index])
            if self._limit is not None:
                beyond = range(max(0, self._limit - each.first_row), each.row_count)
                opened.left = sum(not opened.has_outcome(opened.first + row) for row in beyond)
            found.append(opened)
        return found

    def _room_of(self, partition: Partition) -> int:
        """Bytes of records of a partition that are kept in memory."""
        calls = partition.row_count * self._together[partition.slice]
        ranges = max(OPEN_PARTITIONS, -(-self._min_open_rows // max(1, calls)))
        return MAX_KEPT_BYTES // len(self._queue_of) // ranges

    async def _close(self, queue: QueueCalls, opened: OpenPartition) -> None:
        """Bring a settled partition to its end, and its range, where it was the last one open there."""
        index = opened.partition.index
        range_ = self._ranges[index % self._in_slice]
        with_records = self._with_records.setdefault(range_.number, set())
        try:
            if opened.is_complete:
                await asyncio.get_running_loop().run_in_executor(self._writer, self._writer_of.write, opened)
                with_records.discard(index)
            else:
                with_records.add(index)
            del range_.partitions[index]
            await self._left(queue, range_)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever asks next: the run must not go on
            self._break(error)
        else:
            del self._open[index]
            if opened.is_complete:
                self.on_commit(opened.partition)
            queue.note_closed(opened, range_)

    def _leave_range(self, queue: QueueCalls, range_: OpenRange, partitions: int) -> None:
        """A queue gave up opening its partitions in a range."""
        range_.queues[queue] -= partitions - 1
        self._settle(queue, self._left(queue, range_))

    def _settle(self, queue: QueueCalls, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        for tasks in (queue.settling, self._settling):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _left(self, queue: QueueCalls, range_: OpenRange) -> None:
        """One partition less is open in a range. Nobody's range is closed.

        Its journal stays while it tells of a partition that has no part.
        """
        range_.queues[queue] -= 1
        if not range_.queues[queue]:
            del range_.queues[queue]
        if range_.queues:
            return
        range_.closing = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        try:
            if range_.journal is not None and self._with_records.get(range_.number):
                await loop.run_in_executor(self._syncer, range_.close)
                self._closed[range_.number] = range_.journal
            elif range_.journal is not None:
                await loop.run_in_executor(self._writer, self._forget, range_.number, range_.journal)
            del self._ranges[range_.number]
        finally:
            range_.closing.set_result(None)

    def _forget(self, number: int, journal: Journal) -> None:
        self._run.directory.journals.forget(number)
        journal.close()

    def _tell_room(self) -> None:
        for queue in self.queues:
            queue.on_room()

    def _break(self, error: BaseException) -> None:
        self._broken = self._broken or error
        self._tell_room()


def _close_journals(ranges: Iterable[OpenRange]) -> None:
    """All of them, whatever one of them raises."""
    first: BaseException | None = None
    for opened in ranges:
        try:
            opened.close()
        except Exception as error:  # noqa: BLE001 - raised below
            first = first or error
    if first is not None:
        raise first


async def _outlast(tasks: "Iterable[asyncio.Future[Any]]") -> bool:
    """Wait until these have ended, also where the caller is cancelled meanwhile; returns whether that happened."""
    is_cancelled = False
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError:
            is_cancelled = True
    return is_cancelled
