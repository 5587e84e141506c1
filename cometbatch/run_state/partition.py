"""The partitions of a run without a part: opened range by range, recorded, committed as parts.

Guards: the partitions of one range share its rows, read once for all queues that are there, and one journal. A range is
closed when no partition of it is open, and read and opened again when a slower queue gets there. Each bound on what is
open is a queue's own, so that no queue waits for what another one holds.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from cometbatch.records import CallRequest, Outcome, Partition, Record
from cometbatch.results import columns
from cometbatch.run_state import recorded
from cometbatch.run_state.group_commit import GroupCommit
from cometbatch.run_state.in_flight import InFlightMarks
from cometbatch.run_state.input_passes import Tables
from cometbatch.run_state.making import CallMaker, Make, Take
from cometbatch.run_state.open_partition import OpenPartition, Room, replayed
from cometbatch.run_state.open_range import OpenRange
from cometbatch.run_state.open_ranges import OpenRanges, outlast
from cometbatch.run_state.owned_ranges import OwnedRanges
from cometbatch.run_state.ownership import Ownership
from cometbatch.run_state.part_writer import PartWriter
from cometbatch.run_state.queue_calls import QueueCalls
from cometbatch.run_state.run import Run, lacking

MAX_OPEN_BYTES = 48 * 1024 * 1024  # bytes of input of open ranges, unused columns included; above it none is opened
ROWS_PER_SLOT = 4  # calls of open partitions for each request in flight; below it more partitions than usual are opened
MAX_KEPT_BYTES = 32 * 1024 * 1024  # bytes of records of all open partitions that are kept in memory beside the journals


class Partitions:
    """What is open of a run: takes records, commits parts; its `queues` hand out the calls.

    `tables` reads partitions in the order given. `makers`: for each target of the run, what makes requests of rows, of
    which all of them together need `columns`. `slice_makers`: the same for each slice of the run, where slices of one
    target ask differently. `slots` is how many requests may be in flight. `queues`: which slices wait for each other,
    by their numbers; all of them, where it is left out. `session`: the number of the session that writes. `limit`: only
    rows below it are handed out, in each slice. `reads_files`: `makers` open files, which can take long, so a thread
    makes the requests. `further`: makes columns of the run's own. `take`: finds earlier answers, in that thread, to
    calls that were not asked before in this run, nor opened again by a `--retry`. `ownership`: where several owners
    share the run, one's claim on ranges, of which `run` knows nothing yet; then `owned` has what it has claimed.
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
        ownership: Ownership | None = None,
    ) -> None:
        self._run, self._session, self._limit = run, session, limit
        together = [run.manifest.active] if queues is None else queues
        self._ranges = OpenRanges(run, session, tables, ownership)
        self.owned = None if ownership is None else OwnedRanges(ownership, self._ranges, together, limit)
        self._maker = CallMaker(
            run.manifest,
            makers,
            slice_makers,
            columns,
            reads_files=reads_files,
            take=take,
            asks=run.progress.asks if self.owned is None else self.owned.asks,
        )
        self.is_slow_to_make = self._maker.is_slow
        self._in_slice = run.manifest.partitions_in_slice
        self._kept = Room(MAX_KEPT_BYTES)
        self._open: dict[int, OpenPartition] = {}
        self.opened: Callable[[int], OpenPartition | None] = self._open.get  # by index
        self._settling: set[asyncio.Task[None]] = set()
        self._writer_of = PartWriter(run, further, None if self.owned is None else self.owned.committer)
        self._broken: BaseException | None = None
        self.group_commit = GroupCommit(self._ranges)
        self.on_commit: Callable[[Partition], None] = lambda _: None
        self.queues: Sequence[QueueCalls] = [
            QueueCalls(
                self,
                _todo(run, limit, some) if self.owned is None else self.owned.claims.todo(number),
                max_bytes=MAX_OPEN_BYTES,
                own_bytes=MAX_OPEN_BYTES // len(together),
                min_open_rows=slots * ROWS_PER_SLOT,
                more=None if self.owned is None else functools.partial(self.owned.claims.more, number),
            )
            for number, some in enumerate(together)
        ]
        self._queue_of = {each: queue for queue, some in zip(self.queues, together, strict=True) for each in some}

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
            self._ranges.note_records(number, groups)
            for index in groups:
                if self.owned is not None:
                    self.owned.note(index, groups[index])
                self.close_if_settled(self._open[index])

    def leave(self, ordinal: int) -> None:
        """The call gets no outcome in this session. A partition of which only such calls are left is closed."""
        opened = self._open[self._run.manifest.partition_of(ordinal)]
        opened.left += 1
        self.close_if_settled(opened)

    async def sync_forever(self, marks: InFlightMarks) -> None:
        """Make records and marks survive a power cut, every so often.

        Ends where the disk fails, which whoever asks for a call next is told.
        """
        try:
            await self.group_commit.run(marks)
        except Exception as error:  # noqa: BLE001 - raised again by whoever asks next: the run must not go on
            self._break(error)

    async def finish(self) -> None:
        """Wait for the commits under way, also where the caller is cancelled meanwhile; then close what stays open.

        Raises what a commit raised.
        """
        is_cancelled = self.owned is not None and await self.owned.close()
        is_cancelled |= await self._ranges.finish_reading()
        is_cancelled |= await outlast(self._settling)
        self._ranges.close()
        if is_cancelled:
            raise asyncio.CancelledError
        self.raise_if_broken()

    # -- for a queue --------------------------------------------------------------------------------------------------

    @property
    def is_broken(self) -> bool:
        """Whether the run must not go on."""
        return self._broken is not None

    @property
    def open_bytes(self) -> int:
        """Bytes of input of all open ranges, unused columns included."""
        return sum(each.size for each in self._ranges)

    def raise_if_broken(self) -> None:
        """Raise why the run must not go on, if so it is."""
        if self._broken is not None:
            raise self._broken

    async def in_reader(self, work: Callable[..., Any], *arguments: object) -> Any:
        """Do work in the thread that reads, which outlives a caller who is cancelled."""
        return await self._ranges.outliving(work, *arguments)

    async def open(
        self, queue: QueueCalls, number: int, partitions: Sequence[Partition]
    ) -> tuple[list[OpenPartition], Iterator[list[CallRequest | Outcome]]]:
        """Open a queue's partitions in a range, once its rows are there. Raises what reading raised.

        Returns them with their calls without an outcome, some at a time, the last of these first.
        """
        needed = {each.next_range for each in self.queues}
        range_ = await self._ranges.join(queue, number, partitions, {each for each in needed if each is not None})
        if len(range_.queues) > 1:  # what the range takes is shared by one more
            self._tell_room()
        try:
            self.raise_if_broken()
            await self._ranges.load(range_)
            found: list[OpenPartition] = await self.in_reader(self._opened, range_, partitions)
        except BaseException:
            self._settle(queue, self._give_up(queue, range_, len(partitions)))
            raise
        for opened in found:
            index = opened.partition.index
            self._open[index] = range_.partitions[index] = opened
            queue.note_open(opened, range_)
            if self.owned is not None:
                self.owned.opened(opened)
        partition, table = found[0].partition, found[0].table
        rows = partition.row_count if self._limit is None else self._limit - partition.first_row
        return found, self._maker.calls(found, table, min(rows, partition.row_count))

    def close_if_settled(self, opened: OpenPartition) -> None:
        """Commit the partition once each call has its outcome; set it aside where only calls are left that get none."""
        if not opened.is_settled or opened.is_closing:
            return
        opened.is_closing = True
        queue = self._queue_of[opened.partition.slice]
        self._settle(queue, self._close(queue, opened))

    def note_set_aside(self, queue: QueueCalls) -> None:
        """A queue opens no further partition in this session."""
        if self.owned is not None:
            open_ones = {each.number for each in self._ranges if queue in each.queues}
            self.owned.claims.stop(self.queues.index(queue), open_ones)

    # -- ranges -------------------------------------------------------------------------------------------------------

    def _opened(self, range_: OpenRange, partitions: Sequence[Partition]) -> list[OpenPartition]:
        """A queue's partitions in a range, with what earlier sessions left of them. For the thread that reads."""
        run, manifest, table, journal = self._run, self._run.manifest, range_.table, range_.journal
        assert table is not None  # noqa: S101 - it was read before
        assert journal is not None  # noqa: S101 - it was begun before
        bounds, listed = journal.header.earlier, run.directory.journals.all(range_.number)
        earlier = [file for file in listed if file.session < self._session or file.name in bounds]
        indexes = [each.index for each in partitions]
        files = recorded.sources(run.directory, manifest, indexes, run.progress.last, earlier, bounds=bounds)
        records = replayed(manifest, indexes, files, journal, self._kept)
        found = []
        for each in partitions:
            opened = OpenPartition(each, manifest.first_ordinal(each), table, journal, records[each.index])
            if self._limit is not None:
                beyond = range(max(0, self._limit - each.first_row), each.row_count)
                opened.left = sum(not opened.has_outcome(opened.first + row) for row in beyond)
            found.append(opened)
        return found

    async def _close(self, queue: QueueCalls, opened: OpenPartition) -> None:
        """Bring a settled partition to its end, and its range, where it was the last one open there."""
        index = opened.partition.index
        range_ = self._ranges[index % self._in_slice]
        try:
            if opened.is_complete:
                writer, is_written = self._ranges.writer, False
                while not is_written:
                    if self.owned is not None:
                        await self.owned.may_commit(range_.number, index)
                    loop = asyncio.get_running_loop()
                    is_written = await loop.run_in_executor(writer, self._writer_of.write, opened)
                self._ranges.note_part(range_.number, index)
            else:
                self._ranges.note_records(range_.number, [index])
            del range_.partitions[index]
            await self._ranges.leave(queue, range_)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever asks next: the run must not go on
            self._break(error)
        else:
            del self._open[index]
            opened.forget()
            if opened.is_complete:
                self.on_commit(opened.partition)
            queue.note_closed(opened, range_)
            if self.owned is not None:
                self.owned.closed(self.queues.index(queue), opened, is_through=queue not in range_.queues)
            self._tell_room()

    async def _give_up(self, queue: QueueCalls, range_: OpenRange, partitions: int) -> None:
        """A queue does not open its partitions in a range after all."""
        try:
            await self._ranges.leave(queue, range_, partitions)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever asks next: the run must not go on
            self._break(error)

    def _settle(self, queue: QueueCalls, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        for tasks in (queue.settling, self._settling):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def _tell_room(self) -> None:
        for queue in self.queues:
            queue.on_room()

    def _break(self, error: BaseException) -> None:
        self._broken = self._broken or error
        self._tell_room()


def _todo(run: Run, limit: int | None, slices: Sequence[int]) -> Iterator[tuple[int, list[Partition]]]:
    """The ranges in which these slices have work, ascending, with their partitions there."""
    committed, in_slice = frozenset(run.progress.committed), run.manifest.partitions_in_slice
    for number in range(in_slice):
        indexes = (each * in_slice + number for each in slices)
        found = [run.manifest.partition(index) for index in indexes if index not in committed]
        if limit is not None:
            found = [each for each in found if lacking(run, each, limit)]
        if found:
            yield number, found
