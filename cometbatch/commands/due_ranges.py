"""How many owners send the calls of a session, and which ranges they share: as numbers, since there may be many."""

import array
from collections.abc import Sequence

from msgspec import Struct

from cometbatch.commands.engine_choice import EngineChoice
from cometbatch.results.summary_words import count
from cometbatch.run_state.manifest import partitions_of
from cometbatch.run_state.run import Run, lacking


def ranges_due(run: Run, limit: int | None) -> Sequence[int]:
    """The numbers of the ranges with work, ascending: of all rows, or of those below `limit`."""
    manifest, done = run.manifest, frozenset(run.progress.committed)
    rows = run.rows if limit is None else min(run.rows, limit)
    numbers = range(-(-rows // manifest.partition_rows))
    if not done and not run.progress.recorded:
        return numbers
    named = frozenset(manifest.active)

    def is_due(number: int) -> bool:
        some = (manifest.partition(index) for index in partitions_of(manifest, number) if index not in done)
        return any(each.slice in named and (limit is None or lacking(run, each, limit)) for each in some)

    return array.array("q", filter(is_due, numbers))


class Owners(Struct, frozen=True):
    """The processes that send the calls of a session. `ranges`: the numbers of those that are due, ascending."""

    engine: EngineChoice
    workers: int
    ranges: Sequence[int]


def owners_of(engine: EngineChoice, run: Run, limit: int | None, concurrency: int) -> Owners | None:
    """Who sends; None where this process sends everything.

    There are no more owners than ranges with work, nor than requests in flight (`concurrency`).
    """
    if engine.is_plain:
        return None
    ranges = ranges_due(run, limit)
    workers = min(engine.workers, max(1, len(ranges)), concurrency)
    return None if workers == 1 and engine.name == "local" else Owners(engine, workers, ranges)


def describe_fewer(engine: EngineChoice, owners: Owners | None, run: Run, limit: int | None) -> str:
    """Why fewer workers send than whoever started the run asks for, in a sentence; "" where there are as many."""
    workers = 1 if owners is None else owners.workers
    if workers >= engine.workers:
        return ""
    who = "This process alone sends" if owners is None else f"{count(workers, 'worker')} of {engine.workers} send"
    ranges = len(ranges_due(run, limit) if owners is None else owners.ranges)
    if not ranges:
        return ""
    if ranges > workers:
        return f"{who}: limits.concurrency allows no more requests in flight."
    rows = count(run.manifest.partition_rows, "row")
    left = "one range" if ranges == 1 else f"{ranges:,} ranges"
    return f"{who}: what is left is {left} of up to {rows}, and a range goes to one worker (output.partition_rows)."
