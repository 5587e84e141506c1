"""Group commit: every so often records and marks survive a power cut, off the event loop.

Guards: a mark's cell is free once a sync has covered its record, not before.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

from cometbatch.run_state.in_flight import InFlightMarks
from cometbatch.run_state.open_ranges import OpenRanges

SYNC_INTERVAL_S = 0.05  # seconds between two syncs: a power cut loses what was recorded since the sync before last
SLOW_SYNC_S = 0.1  # seconds that a sync may take before the run says that the disk is slow


def slow_disk(seconds: float) -> str:
    """What a person should know of a disk that takes this long to sync."""
    return f"the disk took {seconds:.1f} s to sync: a power cut can lose what that long recorded."


class GroupCommit:
    """Syncs the journals of open ranges, and marks. `slowest_s`: the longest that a sync took, in seconds."""

    def __init__(self, ranges: OpenRanges) -> None:
        self.slowest_s = 0.0
        self._ranges = ranges

    async def run(self, marks: InFlightMarks) -> None:
        """Sync until this is cancelled. Raises `CheckpointError` where the disk fails."""
        while True:
            await asyncio.sleep(SYNC_INTERVAL_S)
            cells = marks.take_recorded()
            journals = [each.journal for each in self._ranges if each.journal is not None]
            files = [*(journal.sync for journal in journals if journal.is_dirty), *marks.syncs()]
            if files:
                await asyncio.get_running_loop().run_in_executor(self._ranges.syncer, self._sync, files)
            marks.free(cells)

    def _sync(self, files: Iterable[Callable[[], object]]) -> None:
        began = time.monotonic()
        for sync in files:
            sync()
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
