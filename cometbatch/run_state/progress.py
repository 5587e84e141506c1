"""What is recorded of a run by now, found by looking at parts, journals and marks; looking changes nothing."""

import itertools
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from cometbatch.errors import START_OVER, CheckpointError
from cometbatch.records import PossibleCharge, Record, RejectedAsk, Tally
from cometbatch.results import parts, tallies
from cometbatch.results.columns import outcomes_in
from cometbatch.run_state import recorded
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.in_flight import Mark, read_marks
from cometbatch.run_state.journal_files import JournalFile
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.sessions import Session

RECORDS_AT_ONCE = 64  # of a journal, in memory: answers can be long
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Progress(Struct, frozen=True):
    """What is recorded of a run.

    `committed`: partitions with their part. `records`: the tally of parts and journals. `recorded`: calls of open
    partitions that have an outcome. `unsettled`: the newest session's marks that no record settles: requests in flight
    while it lives, possible charges once it is dead. `last`: the newest session. `whole`: for each journal that was
    read, how many of its bytes are whole lines, and `torn`: where damaged lines begin among them that a power cut left.
    `accepted`: damaged lines that a person accepts now, as charges. `asks`: of calls that have no outcome.
    """

    committed: tuple[int, ...] = ()
    records: Tally = Tally()
    recorded: frozenset[int] = frozenset()
    unsettled: tuple[Mark, ...] = ()
    last: Session | None = None
    whole: dict[str, int] = msgspec.field(default_factory=dict)
    torn: dict[str, tuple[int, ...]] = msgspec.field(default_factory=dict)
    accepted: Tally = Tally()
    asks: dict[int, list[RejectedAsk]] = msgspec.field(default_factory=dict)

    @property
    def calls(self) -> int:
        """How many calls have an outcome."""
        return self.records.calls

    @property
    def tally(self) -> Tally:
        """Of everything that counts, with the charges that earlier sessions left."""
        return self.records if self.last is None else tallies.add(self.records, self.last.total)

    @property
    def charges(self) -> Tally:
        """What no session's file has yet: marks that a dead session left, and damaged lines that a person accepts."""
        return tallies.add(charged(self.unsettled), self.accepted)

    @property
    def with_charges(self) -> Tally:
        """The tally, once the newest session is dead."""
        return tallies.add(self.tally, self.charges)


def charged(marks: Iterable[Mark]) -> Tally:
    """What marks come to as possible charges."""
    return tallies.tally(
        PossibleCharge(mark.ordinal, _EPOCH, "in_flight", mark.max_cost_usd, ask=mark.ask, attempt=mark.attempt)
        for mark in marks
    )


def look(directory: RunDirectory, manifest: Manifest, accept: Collection[str] = ()) -> Progress:
    """Read journals, marks and the parts' footers; changes nothing, so that it may look at a run that goes on.

    `accept`: names of damaged journals whose lost lines a person accepts. Raises `CheckpointError` where a file is
    damaged, or another run's.
    """
    # In this order: a call that is recorded, or a partition that is committed meanwhile, is found in a later place.
    last, accepted = _accepting(directory, manifest, directory.last_session(), accept)
    marks = _marks(directory, manifest, last)
    committed: set[int] = set()
    tally = _see_parts(directory, manifest, committed)  # whose journals, if any are left, are not read at all
    journals = _OpenPartitions(directory, manifest, last, committed)
    tally = tallies.add(tally, _see_parts(directory, manifest, committed))
    done = frozenset(committed)
    for index, opened in journals.found.items():
        if index not in done:
            tally = tallies.add(tally, opened.tally)
    open_ones = {index: opened for index, opened in journals.found.items() if index not in done}
    settled = {ordinal: at for opened in open_ones.values() for ordinal, at in opened.settled.items()}
    return Progress(
        committed=tuple(sorted(committed)),
        records=tally,
        recorded=frozenset(itertools.chain.from_iterable(opened.outcomes for opened in open_ones.values())),
        unsettled=tuple(mark for mark in marks if not _is_settled(mark, manifest, done, settled)),
        last=last,
        whole=journals.whole,
        torn=journals.torn,
        accepted=accepted,
        asks={ordinal: asks for opened in open_ones.values() for ordinal, asks in opened.asks.items()},
    )


def _see_parts(directory: RunDirectory, manifest: Manifest, committed: set[int]) -> Tally:
    """Add the partitions that have a part by now, in their present round; returns the tally of those added."""
    tally = Tally()
    for index in directory.parts.there():
        if index not in committed:
            info = parts.read_info(directory.parts.path(index), manifest.run_id, index)
            if info.round == directory.reopened().round_of(index).round:
                committed.add(index)
                tally = tallies.add(tally, info.tally)
    return tally


def _accepting(
    directory: RunDirectory, manifest: Manifest, last: Session | None, names: Collection[str]
) -> tuple[Session | None, Tally]:
    """The newest session as it would be with these journals' damage set aside, and what the lost lines come to.

    Each is a charge at the largest amount that a line of its file names; the file does not tell more.
    """
    accepted = Tally()
    if last is None:
        return last, accepted
    if last.run_id != manifest.run_id:
        raise CheckpointError(
            f"{directory.path}: session {last.number} belongs to run {last.run_id}, not to run {manifest.run_id}. "
            f"Restore its file from a copy, or {START_OVER}"
        )
    for name in names:
        offsets = tuple(each.offset for each in directory.journals.reader_of(name, manifest.run_id, last).damage())
        together = (*last.set_aside.get(name, ()), *offsets)  # those before were charged when they were accepted
        last = msgspec.structs.replace(last, set_aside=last.set_aside | {name: together})
        most = recorded.largest_amount(directory.journals.reader_of(name, manifest.run_id, last))
        lost = (PossibleCharge(-1, _EPOCH, "damaged", most) for _ in offsets)
        accepted = tallies.add(accepted, tallies.tally(lost))
    return last, accepted


def _marks(directory: RunDirectory, manifest: Manifest, last: Session | None) -> list[Mark]:
    """The marks that no later session has counted: those of the newest session and its workers."""
    paths = [] if last is None else directory.marks_since(last.number)
    return [mark for path in paths for mark in read_marks(path, manifest.run_id)]


_ANY_ATTEMPT = (2**63, 2**63)  # later than each ask and attempt


def _is_settled(mark: Mark, manifest: Manifest, done: frozenset[int], settled: dict[int, tuple[int, int]]) -> bool:
    """Whether a record tells what came of an attempt: of this one or a later one, in its own session's journals."""
    if not mark.is_whole:
        return False
    is_committed = manifest.partition_of(mark.ordinal) in done
    return is_committed or settled.get(mark.ordinal, (0, 0)) >= (mark.ask, mark.attempt)


class _Opened(Struct):
    """What is recorded of one partition. `settled`: the newest session's last ask and attempt with a record."""

    tally: Tally
    outcomes: set[int]
    settled: dict[int, tuple[int, int]]
    asks: dict[int, list[RejectedAsk]]


class _OpenPartitions:
    """What journals and kept outcomes hold, partition by partition, but for those that are committed."""

    def __init__(self, directory: RunDirectory, manifest: Manifest, last: Session | None, committed: set[int]) -> None:
        self.whole: dict[str, int] = {}
        self.torn: dict[str, tuple[int, ...]] = {}
        self.found: dict[int, _Opened] = {}
        newest = None if last is None else last.number
        by_range: dict[int, list[JournalFile]] = {index: [] for index in directory.reopened().partitions}
        for file in directory.journals.all():
            by_range.setdefault(file.range, []).append(file)
        for index in sorted(by_range.keys() - committed):
            files = recorded.sources(directory, manifest.run_id, index, last, by_range[index])
            if files:
                self.found[index] = _opened(files, newest)
            self.whole |= {file.path.name: file.reader.whole_bytes for file in files}
            self.torn |= {file.path.name: file.reader.torn for file in files if file.reader.torn}


def _opened(files: list[recorded.Source], newest: int | None) -> _Opened:
    opened = _Opened(Tally(), set(), {}, {})
    found = recorded.entries(files)
    while some := list(itertools.islice(found, RECORDS_AT_ONCE)):
        records = [entry.record for entry in some]
        opened.tally = tallies.add(opened.tally, tallies.tally(records))
        opened.outcomes.update(outcome.ordinal for outcome in outcomes_in(records))
        of_newest = [entry.record for entry in some if files[entry.source].session == newest]
        _settle(opened.settled, of_newest)
        for record in records:
            if isinstance(record, RejectedAsk):
                opened.asks.setdefault(record.ordinal, []).append(record)
    return opened


def _settle(settled: dict[int, tuple[int, int]], records: list[Record]) -> None:
    for record in records:
        is_partial = isinstance(record, RejectedAsk | PossibleCharge) and getattr(record, "reason", "") != "duplicate"
        at = (record.ask, record.attempt) if isinstance(record, RejectedAsk | PossibleCharge) else _ANY_ATTEMPT
        settled[record.ordinal] = max(settled.get(record.ordinal, (0, 0)), at if is_partial else _ANY_ATTEMPT)


def journaled(directory: RunDirectory, manifest: Manifest, index: int, last: Session | None) -> Iterator[list[Record]]:
    """The records of an open partition as they count, some at a time. Changes nothing."""
    found = recorded.entries(recorded.sources(directory, manifest.run_id, index, last))
    while some := [entry.record for entry in itertools.islice(found, RECORDS_AT_ONCE)]:
        yield some
