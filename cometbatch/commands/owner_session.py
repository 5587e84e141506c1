"""The work of one owner in a process of its own: a session's partitions, as far as the coordinator gives them to it.

What the driver has checked is not checked again, and no line of the input is read before the owner has rows to send.
"""

import asyncio
import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
from msgspec import Struct

from cometbatch.commands.assignment import Assignment
from cometbatch.commands.checked import Checked
from cometbatch.commands.checks import fitted_to
from cometbatch.commands.clock import now
from cometbatch.commands.open_files import fitted
from cometbatch.commands.row_maker import sending_images
from cometbatch.commands.services import service_of
from cometbatch.commands.session_pieces import partitions_of, policy_of
from cometbatch.commands.session_start import input_lost
from cometbatch.commands.targets import row_makers
from cometbatch.control.coordination.messages import Leave
from cometbatch.engines.clock import clock as boot_clock
from cometbatch.engines.line import Line, LineError
from cometbatch.engines.owner import run_owner
from cometbatch.engines.session import Ports
from cometbatch.errors import InputError, InputLostError
from cometbatch.input.staging import open_staged
from cometbatch.job.batch_lines import open_table
from cometbatch.records import Partition
from cometbatch.run_state.directory import MANIFEST, RunDirectory
from cometbatch.run_state.in_flight import InFlightMarks
from cometbatch.run_state.manifest import decode_manifest
from cometbatch.run_state.ownership import LostOwnerError, Ownership
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.progress import Progress
from cometbatch.run_state.run import Run
from cometbatch.run_state.sharing import check_nonce
from cometbatch.transport import Transport


async def carry_assigned(content: bytes, line: Line) -> None:
    """The same as `carry` of a pickled assignment, on this machine's clock. Raises nothing: it tells the coordinator."""
    with suppress(Exception):
        await carry(pickle.loads(content), line, boot_clock)  # noqa: S301 - from the driver's process


async def carry(assignment: Assignment, line: Line, clock: Callable[[], float]) -> None:
    """Work on what the coordinator assigns to this owner until nothing is left, or it is told to stop.

    `clock`: seconds, counted also while the machine sleeps. What goes wrong is told to the coordinator, then raised.
    """
    try:
        prepared = await asyncio.to_thread(_prepared, assignment)
    except Exception as error:
        with suppress(LineError):
            await line.ask(Leave(assignment.owner, error=(type(error).__name__, str(error))))
        raise
    await prepared.carry_out(line, clock)


class _Prepared(Struct, frozen=True):
    """An owner's work, put together from what it is given."""

    assignment: Assignment
    checked: Checked
    run: Run

    async def carry_out(self, line: Line, clock: Callable[[], float]) -> None:
        """Send what the coordinator gives to this owner, over connections of its own. Raises as `run_owner` does."""
        assignment, checked, run = self.assignment, self.checked, self.run
        job, manifest = checked.job, run.manifest
        asked = row_makers(checked, manifest.targets, manifest.slices)
        concurrency = job.limits.concurrency
        with fitted(concurrency, manifest.partition_rows, len(manifest.queues())) as (slots, connections, _):
            transport = Transport.reaching(assignment.access)
            transport.limit_connections(connections)

            def opened(ownership: Ownership) -> tuple[Partitions, InFlightMarks]:
                share = min(slots, -(-concurrency // assignment.workers))
                session = assignment.session.number
                partitions = partitions_of(
                    checked,
                    run,
                    asked,
                    session,
                    slots=share,
                    limit=assignment.limit,
                    tables=self._tables,
                    ownership=ownership,
                )
                marks = run.directory.new_marks(manifest.run_id, session, 2 * slots, assignment.owner)
                return partitions, marks

            try:
                async with sending_images(transport.send, asked.images) as send:
                    ports = OwnerPorts(
                        service=service_of(checked, run, transport, send),
                        policy=policy_of(job, slots),
                        now=now,
                        jitter=random.random,
                        queues=assignment.queues,
                    )
                    await run_owner(
                        assignment.owner,
                        line,
                        clock,
                        ports,
                        opened,
                        concurrency=concurrency,
                        tells_outcomes=assignment.tells_outcomes,
                    )
            finally:
                await transport.aclose()

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
    manifest = decode_manifest(content or b"", str(directory.path / MANIFEST))
    progress = Progress(by_slice=assignment.records, last=assignment.session)
    return _Prepared(assignment, fitted_to(job, opened), Run(directory, manifest, progress, Path(assignment.result)))


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
