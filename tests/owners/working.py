"""Owners of a run on a disk, each with a service and a line to one coordinator; on virtual time."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from cometbatch.engines.line import Line
from cometbatch.engines.owner import Owner, run_owner
from cometbatch.engines.session import Ports
from cometbatch.limiting.limits import Limits
from cometbatch.run_state.in_flight import InFlightMarks
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.progress import Progress
from cometbatch.run_state.sharing import share
from cometbatch.runner.ports import Ended, Policy
from cometbatch.runner.queue_start import QueueStart
from tests.run_on_disk import RunOnDisk, session_of
from tests.scripted_run import HALF, NOW, RUN_ID, ScriptedService, Watcher


class SharedRun:
    """A session of a run for several owners."""

    def __init__(self, disk: RunOnDisk) -> None:
        self.disk = disk
        begun, _ = share(disk.begin())
        disk.manifest = begun.manifest
        self._run = msgspec.structs.replace(begun, progress=Progress(last=begun.progress.last))

    async def work(
        self,
        worker: int,
        line: Line,
        service: ScriptedService,
        *,
        slots: int = 4,
        concurrency: int | None = None,
        tells_outcomes: bool = False,
        starts: Callable[[], Sequence[QueueStart]] | None = None,
        **policy: Any,
    ) -> Ended:
        """One owner, to its end."""
        run, disk = self._run, self.disk

        def opening(owner: Owner) -> tuple[Partitions, InFlightMarks]:
            marks = disk.directory.new_marks(RUN_ID, session_of(run), slots, worker)
            partitions = Partitions(
                run,
                session_of(run),
                disk.tables,
                [disk.make],
                ("n",),
                slots=slots,
                queues=disk.queues,
                ownership=owner,
            )
            return partitions, marks

        ports = Ports(
            service=service.as_service(),
            policy=Policy(concurrency=slots, **policy),
            limits=Limits(),
            observer=Watcher(),
            now=lambda: NOW,
            jitter=lambda: HALF,
            queues=[QueueStart() for _ in disk.queues] if starts is None else starts(),
        )
        return await run_owner(
            worker,
            line,
            opening,
            ports,
            concurrency=slots if concurrency is None else concurrency,
            tells_outcomes=tells_outcomes,
            clock=asyncio.get_running_loop().time,
        )
