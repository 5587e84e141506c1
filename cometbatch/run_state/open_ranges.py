"""The ranges of a run that are open, and the threads that read, write and sync for them.

Guards: a range is open while a queue is in it; its rows are read once for all queues that are there. Where nobody is in
it any more it is closed: its journal goes where each partition of which it tells has a part, and else stays, to be
appended to where a slower queue gets there.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from cometbatch.records import Partition
from cometbatch.run_state.input_passes import InputPasses, Tables
from cometbatch.run_state.journal import Journal
from cometbatch.run_state.journal_files import JournalFile
from cometbatch.run_state.open_range import OpenRange
from cometbatch.run_state.ownership import Ownership
from cometbatch.run_state.queue_calls import QueueCalls
from cometbatch.run_state.run import Run


class OpenRanges:
    """Opens and closes ranges. `tables`: reads the input.

    `session`: the number of the session that writes. `ownership`: of the worker of it; None where it is alone on the
    run.
    """

    def __init__(self, run: Run, session: int, tables: Tables, ownership: Ownership | None = None) -> None:
        self.run, self.session = run, session
        self._ownership = ownership
        self._worker = 0 if ownership is None else ownership.worker
        self._passes = InputPasses(tables)
        self._readings: set[asyncio.Future[Any]] = set()
        self._open: dict[int, OpenRange] = {}
        self._closed: dict[int, Journal] = {}  # of ranges that are set aside, and may be opened again
        self._gone_on_from: dict[int, dict[str, int]] = {}  # journals that count for nothing once they are removed
        self._with_records = run.progress.open_by_range(run.manifest)  # partitions of each range that have no part
        # A thread each, kept: allocators keep megabytes for every thread that ever took memory, so work that wanders
        # through a pool's threads makes a process grow with the length of a run. No sync waits for a part.
        lock = run.directory.lock
        self.reader, self.writer, self.syncer = lock.thread(), lock.thread(), lock.thread()

    def __getitem__(self, number: int) -> OpenRange:
        """The range of this number, which is open."""
        return self._open[number]

    def __iter__(self) -> Iterator[OpenRange]:
        """Those that are open."""
        return iter(self._open.values())

    def reading(self, work: Callable[..., Any], *arguments: object) -> asyncio.Future[Any]:
        """Begin work in the thread that reads, which outlives a caller who is cancelled."""
        reading = asyncio.get_running_loop().run_in_executor(self.reader, work, *arguments)
        self._readings.add(reading)
        reading.add_done_callback(self._has_read)
        return reading

    async def outliving(self, work: Callable[..., Any], *arguments: object) -> Any:
        """Have the thread that reads do this, to its end even where the caller is cancelled."""
        return await asyncio.shield(self.reading(work, *arguments))

    def _has_read(self, reading: asyncio.Future[Any]) -> None:
        self._readings.discard(reading)
        if not reading.cancelled():
            reading.exception()  # whoever waits has it; else nobody needs it any more

    async def join(
        self, queue: QueueCalls, number: int, partitions: Sequence[Partition], needed_next: Collection[int]
    ) -> OpenRange:
        """Have a queue in a range, which may have to be read and opened yet (`load`).

        `needed_next`: the ranges that the queues need next.
        """
        while (range_ := self._open.get(number)) is not None and range_.closing is not None:
            await asyncio.shield(range_.closing)
        if range_ is None:
            pass_, useless = self._passes.pass_to(number, needed_next)
            range_ = self._open[number] = OpenRange(number)
            range_.loading = self.reading(
                pass_.read, Partition(number, partitions[0].first_row, partitions[0].row_count)
            )
            for each in useless:
                self.reading(each.close)
        range_.queues[queue] = len(partitions)
        return range_

    async def load(self, range_: OpenRange) -> None:
        """Wait for the rows, and open the journal. Raises what reading raised, and `CheckpointError`."""
        if range_.loading is None or range_.journal is not None:
            return
        table = await asyncio.shield(range_.loading)
        if range_.journal is None:  # another queue may have come first
            range_.begin(table, self._journal_of(range_.number))

    def _journal_of(self, number: int) -> Journal:
        """The journal of a range in this session: begun, or opened again. Raises `CheckpointError`."""
        journal = self._closed.pop(number, None)
        if journal is None:
            journals, run_id = self.run.directory.journals, self.run.manifest.run_id
            earlier = self._gone_on_from.get(number)
            return journals.begin(run_id, number, self.session, self._worker, earlier=earlier)
        journal.reopen()
        return journal

    def adopt(self, number: int, journal: Journal) -> None:
        """The journal of a range that is not open was begun, and is closed again."""
        self._closed[number] = journal
        self._gone_on_from[number] = dict.fromkeys(journal.header.earlier, 0)

    def note_records(self, number: int, indexes: Iterable[int]) -> None:
        """The journal of a range tells of these partitions, and stays for them."""
        self._with_records.setdefault(number, set()).update(indexes)

    def note_part(self, number: int, index: int) -> None:
        """A partition has its part: the journal need not stay for it."""
        self._with_records.get(number, set()).discard(index)

    async def leave(self, queue: QueueCalls, range_: OpenRange, partitions: int = 1) -> None:
        """A queue has so many partitions less in a range. Raises `CheckpointError` where that can't be closed."""
        range_.queues[queue] -= partitions
        if not range_.queues[queue]:
            del range_.queues[queue]
        if range_.queues:
            return
        loop, journal = asyncio.get_running_loop(), range_.journal
        range_.closing = loop.create_future()
        try:
            if journal is not None and self._with_records.get(range_.number):
                await loop.run_in_executor(self.syncer, range_.close)
                self._closed[range_.number] = journal
            elif journal is not None and not await loop.run_in_executor(
                self.writer, self._forget, range_.number, journal
            ):
                self._closed[range_.number] = journal
            del self._open[range_.number]
        finally:
            range_.closing.set_result(None)

    def _forget(self, number: int, journal: Journal) -> bool:
        """Remove the journals of a range; returns whether they are gone. Its own one is closed."""
        own = {journal.path.name, *journal.header.earlier}

        def is_other(file: JournalFile) -> bool:
            return file.worker > 0 and file.session == self.session and file.name not in own

        # Whoever takes this range over looks for parts first, then reads journals. It found these parts, where the
        # claim holds by now; else it may be about to read this journal.
        is_gone = self._ownership is None or self._ownership.is_current()
        if is_gone:
            self.run.directory.journals.forget(number, is_other)
        journal.close()
        return is_gone

    async def finish_reading(self) -> bool:
        """Wait for what is being read, and close the input; returns whether the caller was cancelled meanwhile."""
        is_cancelled = await outlast(self._readings)
        self._passes.close()
        return is_cancelled

    def close(self) -> None:
        """End the threads, and close each journal, whatever one of them raises. Raises `CheckpointError`."""
        for thread in (self.reader, self.writer, self.syncer):
            thread.shutdown(wait=True)
        first: BaseException | None = None
        for range_ in self:
            try:
                range_.close()
            except Exception as error:  # noqa: BLE001 - raised below
                first = first or error
        if first is not None:
            raise first


async def outlast(tasks: "Iterable[asyncio.Future[Any]]") -> bool:
    """Wait until these have ended, also where the caller is cancelled meanwhile; returns whether that happened."""
    is_cancelled = False
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError:
            is_cancelled = True
    return is_cancelled
