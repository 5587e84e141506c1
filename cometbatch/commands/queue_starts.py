"""What a session knows of each queue of a run when it begins: what earlier sessions learnt of its model."""

import functools
from collections.abc import Iterator, Sequence

import msgspec
import pyarrow.compute as pc

from cometbatch.commands.asking import first_answers
from cometbatch.commands.checked import Checked
from cometbatch.records import RejectedAsk, Tally
from cometbatch.results import columns, tallies
from cometbatch.run_state.recorded_rows import rows_of
from cometbatch.run_state.run import Run
from cometbatch.runner.queue_start import QueueStart
from cometbatch.runner.twins import Twins

NO_ANSWER = {"succeeded": 0, "incomplete": 0, "incompletes": {}, "reused": 0, "reused_incomplete": 0}
"""The counts of a tally before the service has answered."""


def queue_starts(checked: Checked, run: Run, twins: Sequence[Twins | None]) -> tuple[QueueStart, ...]:
    """What is known of each queue, in their order. `twins`: of each queue."""
    queues, manifest = run.manifest.queues(), run.manifest
    starts = []
    for slices, of_queue in zip(queues, twins, strict=True):
        rejected = _asks(run, slices) if len(queues) > 1 else run.progress.asks
        asks = [tuple(some) for some in rejected.values() if some[-1].target == run.targets[1] or manifest.has_matrix]
        earlier = _earlier(run, slices, asks)
        answers = misfits(run, slices) if run.targets[1] == 0 else ()  # a later target's own are not told apart
        asked = {manifest.slices[each].target for each in slices} if manifest.has_matrix else range(len(manifest.books))
        books = [manifest.books[number] for number in asked]
        starts.append(
            QueueStart(
                name=manifest.targets[manifest.slices[slices[0]].target].target.model,
                earlier=earlier,
                rejected=rejected,
                first_answers=first_answers(checked.checker, checked.target.response, earlier, asks, answers),
                twins=of_queue,
                is_exact=all(book.rates is not None and book.rates.per_request is not None for book in books),
            )
        )
    return tuple(starts)


def _asks(run: Run, slices: Sequence[int]) -> dict[int, Sequence[RejectedAsk]]:
    """Of each open call of these slices the asks that earlier sessions recorded."""
    own = frozenset(slices)
    return {ordinal: some for ordinal, some in run.progress.asks.items() if ordinal // run.rows in own}


def _earlier(run: Run, slices: Sequence[int], asks: Sequence[Sequence[RejectedAsk]]) -> Tally:
    """What earlier sessions learnt of a queue. `asks`: of its open calls, those of the newest target.

    That a model is there was learnt of the first target, and of no later one that a `--retry` asks. Neither was that
    one's answers are JSON. Of a matrix, what was reset is not told apart: of that only counts the largest answer, since
    it bounds what the next one can cost.
    """
    if not run.manifest.has_matrix:
        if run.targets[1] == 0:
            return run.bill
        return msgspec.structs.replace(run.bill, **NO_ANSWER, rejected=sum(map(len, asks)))
    reset = run.replaced
    bounds = Tally(
        largest_output_tokens=reset.largest_output_tokens,
        largest_input_above_bytes=reset.largest_input_above_bytes,
        cache_write_1h_input_tokens=reset.cache_write_1h_input_tokens,
    )
    found = run.progress.by_slice
    return functools.reduce(tallies.add, (found[each] for each in slices if each in found), bounds)


def misfits(run: Run, slices: Sequence[int]) -> Iterator[str]:
    """The answers of these slices' rows that ended without one that fits. Raises `CheckpointError`."""
    found = run.progress.by_slice
    with_some = {each for each in slices if each in found and "invalid" in found[each].incompletes}
    reason, response, origin = (run.prefix + name for name in ("finish_reason", "response", columns.REUSED_FROM))
    for partition in run.manifest.partitions() if with_some else ():
        if partition.slice not in with_some:
            continue
        for piece in rows_of(run, partition, lambda _: None):
            invalid = pc.equal(piece.table.column(reason), "invalid")
            if columns.REUSED_FROM in run.columns:  # what an earlier run was answered says nothing of the service today
                invalid = pc.and_(invalid, pc.is_null(piece.table.column(origin)))
            yield from filter(None, piece.table.column(response).filter(invalid).to_pylist())
