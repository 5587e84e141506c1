"""The work of one owner in a process of its own: a session's partitions, as far as the coordinator gives them to it.

What the driver has checked is not checked again, and no line of the input is read before the owner has rows to send.
"""

import asyncio
import contextlib
import functools
import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
from msgspec import Struct

from cometbatch.commands.assignment import Assignment
from cometbatch.commands.checked import Checked
from cometbatch.commands.checks import fitted_to
from cometbatch.commands.clock import now
from cometbatch.commands.observers import Observers
from cometbatch.commands.open_files import fitted
from cometbatch.commands.row_maker import sending_images
from cometbatch.commands.services import service_of
from cometbatch.commands.session_pieces import partitions_of, policy_of
from cometbatch.commands.session_start import input_lost
from cometbatch.commands.targets import RowMakers, row_makers
from cometbatch.control.coordination.messages import ErrorWords, Leave
from cometbatch.engines.lease_clock import lease_clock
from cometbatch.engines.line import Line, LineError
from cometbatch.engines.owner import run_owner
from cometbatch.engines.session import Ports
from cometbatch.errors import InputError, InputLostError
from cometbatch.input.file_set import with_contents
from cometbatch.input.staging import open_staged
from cometbatch.job.batch_lines import open_table
from cometbatch.limiting.leased import LeasedLimits
from cometbatch.records import Partition
from cometbatch.run_state.directory import MANIFEST, RunDirectory
from cometbatch.run_state.in_flight import InFlightMarks
from cometbatch.run_state.manifest import decode_manifest
from cometbatch.run_state.ownership import Ownership
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.progress import Progress
from cometbatch.run_state.run import Run
from cometbatch.run_state.sharing import check_nonce
from cometbatch.transport import Transport


async def carry_assigned(content: bytes, line: Line) -> None:
    """The same as `carry` of a pickled assignment, maybe on another machine.

    Raises as `carry`, and what `pickle` raises, which nobody has been told of.
    """
    assignment: Assignment = pickle.loads(content)  # noqa: S301 - from the driver's process
    await carry(msgspec.structs.replace(assignment, contents=()), line, lease_clock)


async def carry(assignment: Assignment, line: Line, clock: Callable[[], float]) -> None:
    """Work on what the coordinator assigns to this owner until nothing is left, or it is told to stop.

    `clock`: seconds, counted also while the machine sleeps. What goes wrong is told to the coordinator, then raised.
    """
    with contextlib.ExitStack() as stack:
        try:
            prepared = await asyncio.to_thread(_prepared, assignment)
            slots = stack.enter_context(prepared.slots())
        except Exception as error:
            with contextlib.suppress(LineError):
                await line.ask(Leave(assignment.owner, error=ErrorWords.of(error)))
            raise
        await prepared.carry_out(line, clock, slots)


class _Prepared(Struct, frozen=True):
    """An owner's work, put together from what it is given."""

    assignment: Assignment
    checked: Checked
    run: Run
    asked: RowMakers
    transport: Transport

    @contextlib.contextmanager
    def slots(self) -> Iterator[int]:
        """How many requests this process may have in flight at most. Raises `UsageError` where it may not have any."""
        manifest, concurrency = self.run.manifest, self.checked.job.limits.concurrency
        with fitted(concurrency, manifest.partition_rows, len(manifest.queues())) as (slots, connections, _):
            self.transport.limit_connections(connections)
            yield slots

    async def carry_out(self, line: Line, clock: Callable[[], float], slots: int) -> None:
        """Send what the coordinator gives to this owner, over connections of its own. Raises as `run_owner` does."""
        assignment, job, transport = self.assignment, self.checked.job, self.transport
        try:
            async with sending_images(transport.send, self.asked.images) as send:
                ports = Ports(
                    service=service_of(self.checked, self.run, transport, send),
                    policy=policy_of(job, slots),
                    limits=LeasedLimits(clock),
                    observer=Observers(),
                    now=now,
                    jitter=random.random,
                    queues=assignment.queues,
                )
                await run_owner(
                    assignment.owner,
                    line,
                    functools.partial(self._opened, slots),
                    ports,
                    concurrency=job.limits.concurrency,
                    tells_outcomes=assignment.tells_outcomes,
                    clock=clock,
                )
        finally:
            await transport.aclose()

    def _opened(self, slots: int, ownership: Ownership) -> tuple[Partitions, InFlightMarks]:
        """What the owner works on. It has as many ranges open as its share of all requests in flight needs."""
        assignment, run = self.assignment, self.run
        share, session = -(-self.checked.job.limits.concurrency // assignment.workers), assignment.session.number
        partitions = partitions_of(
            self.checked,
            run,
            self.asked,
            session,
            slots=min(slots, share),
            limit=assignment.limit,
            tables=self._tables,
            ownership=ownership,
        )
        return partitions, run.directory.new_marks(run.manifest.run_id, session, 2 * slots, assignment.owner)

    def _tables(self, wanted: Iterable[Partition]) -> Iterator[pa.Table]:
        """The rows of partitions, one by one. Raises `InputLostError` where the input changed meanwhile."""
        try:
            yield from self.checked.source.tables(self.run.manifest.input, wanted)
        except InputError as error:
            raise InputLostError(input_lost(self.checked.job.input.path, error)) from error


def _prepared(assignment: Assignment) -> _Prepared:
    """What the driver's process has as well, made anew. Raises as its own checks do, where this machine differs."""
    directory = RunDirectory(Path(assignment.directory), parts=_path(assignment.parts), slices=_path(assignment.slices))
    check_nonce(directory, assignment.nonce)
    job, content = assignment.job, directory.read_manifest()
    opened = open_table(job) if assignment.staged is None else open_staged(Path(assignment.staged))
    if assignment.staged is None and assignment.contents:
        opened = with_contents(opened, assignment.contents)
    manifest = decode_manifest(content or b"", str(directory.path / MANIFEST))
    checked = fitted_to(job, opened)
    asked = row_makers(checked, manifest.targets, manifest.slices)
    progress = Progress(by_slice=assignment.records, last=assignment.session)
    run = Run(directory, manifest, progress, Path(assignment.result))
    return _Prepared(assignment, checked, run, asked, Transport.reaching(assignment.access))


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
