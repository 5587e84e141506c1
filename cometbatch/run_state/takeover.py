"""A range that was claimed: what is recorded of it, and what its earlier owners left in flight becomes the new one's.

Guards: before anything of the range is sent, its new owner has written down how much of the earlier owners' journals
counts, and each of their marks that no record of theirs settles, in one write that is synced. What they write later
counts for nothing. So whichever of several owners dies when, each outcome that counts stands once, and each request
that may be billed is in the bill once.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
from msgspec import Struct

from cometbatch.money.exact import EXACT
from cometbatch.records import PossibleCharge, Record
from cometbatch.results import codec, parts, tallies
from cometbatch.run_state import recorded
from cometbatch.run_state.in_flight import Mark, read_marks
from cometbatch.run_state.journal import LINE_EXTRA_BYTES, Journal
from cometbatch.run_state.journal_files import JournalFile, journal_name
from cometbatch.run_state.manifest import partitions_of
from cometbatch.run_state.names import owner_name
from cometbatch.run_state.ownership import Claimed
from cometbatch.run_state.progress import RangeProgress, attempt_of, look_at_range
from cometbatch.run_state.run import Run
from cometbatch.run_state.spending import NOTHING, Spending
from cometbatch.store import local


class Lines(Struct, frozen=True):
    """Records of one partition that stand in a journal, one after the other, from `offset` on."""

    records: tuple[Record, ...]
    lines: tuple[bytes, ...]
    offset: int


class Taken(Struct, frozen=True):
    """A range that is this owner's now. `progress`: what is recorded of it.

    `journal`: this owner's own, closed, where it goes on from others; `charges`: what it holds already, by partition.
    `spent`: what each earlier owner had booked there, parts included, its marks at their most, in US dollars.
    """

    progress: RangeProgress
    journal: Journal | None = None
    charges: Mapping[int, Lines] = msgspec.field(default_factory=dict)
    spent: Mapping[int, Decimal] = msgspec.field(default_factory=dict)


def take(run: Run, session: int, worker: int, claimed: Claimed) -> Taken:
    """Make a claimed range this owner's. For a thread: it reads and writes.

    It does no harm where the range is another's by then: that one has said of this one's journal, too, how much of it
    counts. Raises `CheckpointError` where a file is damaged or the disk refuses.
    """
    directory, manifest, last, number = run.directory, run.manifest, run.progress.last, claimed.number
    listed = directory.journals.all(number)
    files = [file for file in listed if file.session < session or (file.session, file.worker) in _of(session, claimed)]
    if not claimed.earlier:
        return Taken(look_at_range(directory, manifest, last, number, files))
    marks = _marks(run, session, claimed, files)  # first: what is recorded meanwhile settles its mark
    wanted = [attempt_of(session, earlier, mark) for earlier, mark in marks]
    progress = look_at_range(directory, manifest, last, number, files, wanted=wanted)
    for file in files:  # what was measured is not lost to a power cut from here on
        if file.session == session:
            local.sync(directory.journals.folder / file.name)
    names = [journal_name(number, session, earlier) for earlier in claimed.earlier]
    bounds = {name: progress.whole.get(name, 0) for name in names}
    moment = datetime.now(UTC)
    charges = [
        PossibleCharge(
            mark.ordinal, moment, "in_flight", mark.max_cost_usd, ask=mark.ask, attempt=mark.attempt, owner=earlier
        )
        for earlier, mark in marks
        if manifest.partition_of(mark.ordinal) not in progress.committed
        and attempt_of(session, earlier, mark) not in progress.settled
    ]
    spent = _spent(run, session, claimed, files, bounds=bounds, committed=progress.committed, charges=charges)
    if len(progress.committed) == len(partitions_of(manifest, number)):
        return Taken(progress, spent=spent)
    by_partition: dict[int, list[PossibleCharge]] = {}
    for charge in charges:
        by_partition.setdefault(manifest.partition_of(charge.ordinal), []).append(charge)
    encoded = {index: tuple(map(codec.encode_record, some)) for index, some in by_partition.items()}
    lines = [line for some in encoded.values() for line in some]
    journal = directory.journals.begin(manifest.run_id, number, session, worker, earlier=bounds, records=lines)
    try:
        journal.sync()
    finally:
        journal.close()
    return Taken(progress, journal, dict(_placed(by_partition, encoded, journal.records_at)), spent)


def _of(session: int, claimed: Claimed) -> set[tuple[int, int]]:
    return {(session, worker) for worker in claimed.earlier}


def _placed(
    records: Mapping[int, Sequence[Record]], encoded: Mapping[int, tuple[bytes, ...]], offset: int
) -> Iterable[tuple[int, Lines]]:
    for index, lines in encoded.items():
        yield index, Lines(tuple(records[index]), lines, offset)
        offset += sum(len(line) + LINE_EXTRA_BYTES for line in lines)


def _marks(run: Run, session: int, claimed: Claimed, files: Iterable[JournalFile]) -> list[tuple[int, Mark]]:
    """The earlier owners' marks in this range. One that is not whole is of an unknown call: the session's end has it.

    Raises `LostFileError` where an owner's file is gone, though it has begun a journal.
    """
    found: list[tuple[int, Mark]] = []
    begun = {file.worker for file in files if file.session == session}
    for worker in claimed.earlier:
        path = run.directory.path / f"in_flight.{owner_name(session, worker)}"
        if worker in begun or path.exists():
            marks = (mark for mark in read_marks(path, run.manifest.run_id) if mark.is_whole)
            of_range = run.manifest.range_of
            found += [
                (worker, mark) for mark in marks if of_range(run.manifest.partition_of(mark.ordinal)) == claimed.number
            ]
    return found


def _spent(
    run: Run,
    session: int,
    claimed: Claimed,
    files: Sequence[JournalFile],
    *,
    bounds: Mapping[str, int],
    committed: Collection[int],
    charges: Iterable[PossibleCharge],
) -> dict[int, Decimal]:
    """What each earlier owner had booked in the range.

    Where a part is there, and only it tells, all that is in the part; but nothing where each partition has its part,
    since what an owner has booked for a part it has told before.
    """
    manifest, directory = run.manifest, run.directory
    indexes = partitions_of(manifest, claimed.number)
    sources = recorded.sources(directory, manifest, indexes, run.progress.last, files, bounds=bounds)
    places = {worker: place for place, worker in enumerate(claimed.earlier)}
    spending, spent = Spending(), dict.fromkeys(claimed.earlier, NOTHING)
    silent = () if len(committed) == len(indexes) else committed
    unseen = {(worker, index) for worker in claimed.earlier for index in silent}

    def add(worker: int, amount: Decimal | None) -> None:
        if worker in spent:
            spent[worker] = EXACT.add(spent[worker], amount or NOTHING)

    for source in sorted(sources, key=lambda source: (source.session, places.get(source.worker, -1))):
        for record in recorded.records_of(source):
            amount = spending.added(record)
            if source.session == session:
                unseen.discard((source.worker, manifest.partition_of(record.ordinal)))
                owner = record.owner if isinstance(record, PossibleCharge) else 0
                add(owner or source.worker, amount)
    for charge in charges:
        add(charge.owner, charge.max_cost_usd)
    for worker, index in unseen:
        info = parts.read_info(directory.parts.path(index), manifest.run_id, index)
        if info.owners and info.owners[-1] == owner_name(session, worker):
            add(worker, tallies.spent(info.tally))
    return spent
