"""What is recorded of a run by now, found by looking at parts, journals and marks; looking changes nothing."""

import functools
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from cometbatch.errors import START_OVER, CheckpointError
from cometbatch.records import PossibleCharge, Record, RejectedAsk, Tally
from cometbatch.results import parts, tallies
from cometbatch.results.columns import outcomes_in
from cometbatch.run_state import recorded
from cometbatch.run_state.directory import REOPENED, RunDirectory
from cometbatch.run_state.in_flight import Mark, read_marks
from cometbatch.run_state.journal_files import JournalFile
from cometbatch.run_state.losses import lost_journals, lost_marks, without
from cometbatch.run_state.manifest import Manifest, partitions_of
from cometbatch.run_state.names import LostFileError
from cometbatch.run_state.owner_files import OwnerCharges
from cometbatch.run_state.recorded import Attempt
from cometbatch.run_state.seen_parts import SeenParts
from cometbatch.run_state.sessions import Session, Who
from cometbatch.run_state.strays import Included, Strays, read_strays

RECORDS_AT_ONCE = 64  # of a partition, in memory: answers can be long
BYTES_AT_ONCE = 4 * 1024 * 1024  # of all partitions of a range
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Progress(Struct, frozen=True):
    """What is recorded of a run.

    `committed`: partitions with their part. `records`: the tally of parts and journals, and `by_slice` of each slice
    with records, by its number. `recorded`: calls of open partitions that have an outcome. `unsettled`: the newest
    session's marks that no record settles: requests in flight while it lives, possible charges once it is dead. `last`:
    the newest session. `whole`: for each journal that was read, how many of its bytes are whole lines, and `torn`:
    where damaged lines begin among them that a power cut left. `accepted`: damaged lines and lost files that a person
    accepts now, as charges. `asks`: of calls without an outcome, the last of each with the text of its answer. `open`:
    partitions without a part that have a record. `booked`: charges that workers of the newest session have in files of
    their own. `strays`: what else they recorded that is in no part, possible charges once they are dead.
    """

    committed: tuple[int, ...] = ()
    records: Tally = Tally()
    by_slice: Mapping[int, Tally] = msgspec.field(default_factory=dict)
    recorded: frozenset[int] = frozenset()
    unsettled: tuple[Mark, ...] = ()
    last: Session | None = None
    whole: dict[str, int] = msgspec.field(default_factory=dict)
    torn: dict[str, tuple[int, ...]] = msgspec.field(default_factory=dict)
    accepted: Tally = Tally()
    asks: dict[int, list[RejectedAsk]] = msgspec.field(default_factory=dict)
    open: tuple[int, ...] = ()
    booked: Tally = Tally()
    strays: Strays = Strays()

    def open_by_range(self, manifest: Manifest) -> dict[int, set[int]]:
        """The partitions without a part that have a record, by their range, whose journals stay for them."""
        found: dict[int, set[int]] = {}
        for index in self.open:
            found.setdefault(manifest.range_of(index), set()).add(index)
        return found

    @property
    def calls(self) -> int:
        """How many calls have an outcome."""
        return self.records.calls

    @property
    def tally(self) -> Tally:
        """Of everything that counts, with the charges that earlier sessions left."""
        return tallies.add(self.records, self.noted)

    @property
    def noted(self) -> Tally:
        """The possible charges that count without a journal."""
        return self.booked if self.last is None else tallies.add(self.last.total, self.booked)

    @property
    def charges(self) -> Tally:
        """What no file of charges has yet.

        These are marks that a dead session left, what its workers recorded for no part, and losses that a person
        accepts.
        """
        return tallies.add(tallies.add(charged(self.unsettled), self.strays.tally), self.accepted)

    @property
    def left(self) -> Tally:
        """What the newest session's file lacks, once that session is dead."""
        return tallies.add(self.charges, self.booked)

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

    `accept`: names of damaged files whose losses a person accepts. Raises `CheckpointError` where a file is damaged, or
    another run's, and `UsageError` where a file that is accepted is not lost.
    """
    while True:
        newest = directory.newest_number()
        try:
            return _look(directory, manifest, accept)
        except LostFileError:
            if directory.newest_number() == newest:  # else a session began meanwhile, and removed what it has counted
                raise


def _look(directory: RunDirectory, manifest: Manifest, accept: Collection[str]) -> Progress:
    # In this order: a call that is recorded, or a partition that is committed meanwhile, is found in a later place.
    last, lost = _last_session(directory, manifest.run_id, accept)
    charges, lost_charges = _owners_charges(directory, last, accept)
    slots = {each.worker: each.slots for each in charges}
    marks, files_of_marks = _marks(directory, manifest.run_id, last, accept, slots)
    uncounted = [*lost, *lost_charges, *(name for name, is_counted in files_of_marks.items() if not is_counted)]
    lost += [*lost_charges, *files_of_marks]
    seen = SeenParts(directory, manifest)
    seen.look()  # their journals, if any are left, are not read at all
    gone = lost_journals(directory, manifest, last, seen.committed)
    seen.look()
    last, lost_names = _without_lost(last, [path for path, some in gone.items() if not some <= seen.committed], accept)
    unknown = tallies.tally(PossibleCharge(-1, _EPOCH, "damaged", None) for _ in [*uncounted, *lost_names])
    there = {name for name in lost_names if (directory.journals.folder / name).exists()}
    last, accepted = _set_aside(directory, manifest.run_id, last, set(accept).difference(lost, lost_names) | there)
    journals = _OpenPartitions(directory, manifest, last, {attempt_of(*mark) for mark in marks})
    journals.read_all(seen.committed)
    seen.look()
    done, by_slice = frozenset(seen.committed), seen.by_slice()
    open_ones = {index: opened for index, opened in journals.found.items() if index not in done}
    for index, opened in open_ones.items():
        number = manifest.partition(index).slice
        by_slice[number] = tallies.add(by_slice.get(number, Tally()), opened.tally)
    included = Included(seen, charges)
    strays = read_strays(directory, manifest, last, done, included)
    settled = journals.settled | strays.settled
    return Progress(
        committed=tuple(sorted(done)),
        records=functools.reduce(tallies.add, by_slice.values(), Tally()),
        by_slice=by_slice,
        recorded=frozenset(itertools.chain.from_iterable(opened.outcomes for opened in open_ones.values())),
        unsettled=tuple(
            mark
            for session, worker, mark in marks
            if not mark.is_whole
            or not (
                attempt_of(session, worker, mark) in settled
                or ((index := manifest.partition_of(mark.ordinal)) in done and included.has(index, session, worker))
            )
        ),
        booked=functools.reduce(tallies.add, (each.total for each in charges), Tally()),
        strays=strays,
        last=last,
        whole=journals.whole,
        torn=journals.torn,
        accepted=tallies.add(accepted, unknown),
        asks={ordinal: asks for opened in open_ones.values() for ordinal, asks in opened.asks.items()},
        open=tuple(index for index, opened in open_ones.items() if opened.has_records),
    )


def has_part(directory: RunDirectory, manifest: Manifest, index: int) -> bool:
    """Whether a partition has its part by now. Raises `CheckpointError` where the part is damaged, or another run's."""
    path = directory.parts.path(index)
    if not path.exists():
        return False
    return parts.read_info(path, manifest.run_id, index).round == directory.reopened().round_of(index).round


def _last_session(directory: RunDirectory, run_id: str, accept: Collection[str]) -> tuple[Session | None, list[str]]:
    """The newest session that has a file, and the names of the files of later ones, whose loss is accepted."""
    last = directory.last_session(accept)
    if last is not None and last.run_id != run_id:
        raise CheckpointError(
            f"{directory.path}: session {last.number} belongs to run {last.run_id}, not to run {run_id}. "
            f"Restore its file from a copy, or {START_OVER}"
        )
    if last is not None and last.rounds > directory.reopened().rounds:
        raise CheckpointError(
            f"{directory.path / REOPENED}: this file is gone, or older than the run; it told which rows --retry reset, "
            f"and what that had cost. Restore it from a copy, or {START_OVER}"
        )
    number = 0 if last is None else last.number
    lost = [f"{later}.json" for later in range(number + 1, directory.newest_number() + 1)]
    return Session(0, run_id, Who("", 0, "", "")) if last is None and lost else last, lost


def _marks(
    directory: RunDirectory, run_id: str, last: Session | None, accept: Collection[str], slots: Mapping[int, int]
) -> tuple[list[tuple[int, int, Mark]], dict[str, bool]]:
    """The marks that no later session has counted, with session and worker, and the files whose loss is accepted.

    `slots`: of each of the newest session's workers. Where one's file is lost, marks stand for what it had in flight at
    most: True. What a session alone had is for the caller to count: False.
    """
    marks, lost = list[tuple[int, int, Mark]](), dict[str, bool]()
    missing = list[tuple[int, int, int]]()
    for path, (session, worker) in ({} if last is None else directory.marks_since(last.number)).items():
        try:
            found = read_marks(path, run_id)
        except LostFileError:
            if path.name not in accept:
                raise
            found = read_marks(path, run_id, is_loss_accepted=True)
            lost[path.name] = worker in slots
            missing.append((session, worker, slots.get(worker, 0) - len(found)))
        marks += [(session, worker, mark) for mark in found]
    readable = [mark for _, _, mark in marks]
    marks += [(session, worker, mark) for session, worker, size in missing for mark in lost_marks(size, readable)]
    return marks, lost


def _owners_charges(
    directory: RunDirectory, last: Session | None, accept: Collection[str]
) -> tuple[list[OwnerCharges], list[str]]:
    """What the newest session's workers booked, and the names of the files whose loss is accepted."""
    found, lost = list[OwnerCharges](), list[str]()
    for path in [] if last is None else directory.owners.charges_of(last.number):
        try:
            found += directory.owners.read_charges(path)
        except LostFileError:
            if path.name not in accept:
                raise
            lost.append(path.name)
    return found, lost


def _without_lost(last: Session | None, lost: list[Path], accept: Collection[str]) -> tuple[Session | None, list[str]]:
    """The newest session without these journals, and their names, whose loss is accepted.

    Raises `LostFileError` where one is not.
    """
    refused = [path for path in lost if path.name not in accept]
    if refused:
        what = "this file was cut" if refused[0].exists() else "this file is gone, and no part has its rows"
        names = [path.name for path in refused[1:]]
        raise LostFileError(refused[0], f"{what}; it told what was answered, and what that cost", names)
    for path in lost:
        last = without(last, path)
    return last, [path.name for path in lost]


def _set_aside(
    directory: RunDirectory, run_id: str, last: Session | None, names: Collection[str]
) -> tuple[Session | None, Tally]:
    """The newest session as it would be with these journals' damage set aside, and what the lost lines come to.

    Each is a charge at the largest amount that a line of its file names; the file does not tell more.
    """
    accepted = Tally()
    for name in names:
        offsets = tuple(each.offset for each in directory.journals.reader_of(name, run_id, last).damage())
        if last is None:
            continue
        together = (*last.set_aside.get(name, ()), *offsets)  # those before were charged when they were accepted
        last = msgspec.structs.replace(last, set_aside=last.set_aside | {name: together})
        most = recorded.largest_amount(directory.journals.reader_of(name, run_id, last))
        lost = (PossibleCharge(-1, _EPOCH, "damaged", most) for _ in offsets)
        accepted = tallies.add(accepted, tallies.tally(lost))
    return last, accepted


def attempt_of(session: int, worker: int, mark: Mark) -> Attempt:
    """The attempt that a mark of a worker tells of."""
    return (session, worker, mark.ordinal, mark.ask, mark.attempt)


class _Opened(Struct):
    """What is recorded of one partition. `unadded`: records that are not in it yet."""

    tally: Tally = Tally()
    outcomes: set[int] = msgspec.field(default_factory=set)
    asks: dict[int, list[RejectedAsk]] = msgspec.field(default_factory=dict)
    unadded: list[Record] = msgspec.field(default_factory=list)
    has_records: bool = False

    def add(self) -> None:
        """Add what is not in it yet."""
        records, self.unadded = self.unadded, []
        if not records:
            return
        self.has_records = True
        self.tally = tallies.add(self.tally, tallies.tally(records))
        self.outcomes.update(outcome.ordinal for outcome in outcomes_in(records))
        for record in records:
            if isinstance(record, RejectedAsk):
                before = self.asks.get(record.ordinal, [])
                self.asks[record.ordinal] = [*(ask.without_text() for ask in before), record]


class _OpenPartitions:
    """What journals and kept outcomes hold, range by range, of the partitions that are not committed.

    `settled`: of the attempts that are `wanted`, those of which a journal of their own worker tells what came of them,
    or one that has counted the worker's marks.
    """

    def __init__(
        self, directory: RunDirectory, manifest: Manifest, last: Session | None, wanted: Collection[Attempt]
    ) -> None:
        self.whole: dict[str, int] = {}
        self.torn: dict[str, tuple[int, ...]] = {}
        self.found: dict[int, _Opened] = {}
        self.settled: set[Attempt] = set()
        self._directory, self._manifest, self._last = directory, manifest, last
        self._wanted = frozenset(wanted)

    def read_all(self, committed: Collection[int]) -> None:
        """Read every range that may have records of others than these partitions."""
        reset = {self._manifest.range_of(index) for index in self._directory.reopened().partitions}
        by_range: dict[int, list[JournalFile]] = {number: [] for number in reset}
        for file in self._directory.journals.all():
            by_range.setdefault(file.range, []).append(file)
        for number in sorted(by_range):
            indexes = [index for index in partitions_of(self._manifest, number) if index not in committed]
            if indexes:
                self.read(indexes, by_range[number])

    def read(self, indexes: Sequence[int], files: Sequence[JournalFile]) -> None:
        """Read what these files, and kept outcomes, hold of some partitions of one range."""
        sources = recorded.sources(self._directory, self._manifest, indexes, self._last, files)
        if sources:
            self._read(self._manifest, indexes, sources)
        self.whole |= {source.path.name: source.reader.whole_bytes for source in sources}
        self.torn |= {source.path.name: source.reader.torn for source in sources if source.reader.torn}

    def _read(self, manifest: Manifest, indexes: Sequence[int], files: list[recorded.Source]) -> None:
        found = {index: _Opened() for index in indexes}
        only = found[indexes[0]] if len(indexes) == 1 else None
        waiting_bytes = 0
        included = list[recorded.Entry]()
        for entry in recorded.entries(files, included=included if self._wanted else None):
            opened = found[manifest.partition_of(entry.record.ordinal)] if only is None else only
            opened.unadded.append(entry.record)
            waiting_bytes += entry.size
            if len(opened.unadded) == RECORDS_AT_ONCE:
                opened.add()
            if only is None and waiting_bytes > BYTES_AT_ONCE:
                for each in found.values():
                    each.add()
                waiting_bytes = 0
            if self._wanted:
                self.settled |= recorded.attempts_in(files[entry.source], entry) & self._wanted
        for entry in included:  # the outcome tells of its own worker's attempts alone
            self.settled |= recorded.attempts_in(files[entry.source], entry) & self._wanted
        for each in found.values():
            each.add()
        self.found |= found


class RangeProgress(Struct, frozen=True):
    """What is recorded of one range, by the files that count for its owner.

    `committed`: its partitions with their part. `recorded`, `asks`, `open`, `whole`: as of `Progress`, of the others.
    `settled`: of the attempts that were asked about, those of which a record tells.
    """

    committed: frozenset[int] = frozenset()
    recorded: frozenset[int] = frozenset()
    asks: Mapping[int, Sequence[RejectedAsk]] = msgspec.field(default_factory=dict)
    open: tuple[int, ...] = ()
    whole: Mapping[str, int] = msgspec.field(default_factory=dict)
    settled: frozenset[Attempt] = frozenset()


def look_at_range(
    directory: RunDirectory,
    manifest: Manifest,
    last: Session | None,
    number: int,
    files: Sequence[JournalFile],
    *,
    wanted: Collection[Attempt] = (),
) -> RangeProgress:
    """What is recorded of a range of which nobody else writes any more. `files`: the journals that count.

    Raises `CheckpointError` where a file is damaged, or another run's.
    """
    indexes = partitions_of(manifest, number)
    committed = frozenset(index for index in indexes if has_part(directory, manifest, index))
    journals = _OpenPartitions(directory, manifest, last, wanted)
    open_ones = [index for index in indexes if index not in committed]
    if open_ones:
        journals.read(open_ones, files)
    return RangeProgress(
        committed=committed,
        recorded=frozenset(itertools.chain.from_iterable(opened.outcomes for opened in journals.found.values())),
        asks={ordinal: asks for opened in journals.found.values() for ordinal, asks in opened.asks.items()},
        open=tuple(index for index, opened in journals.found.items() if opened.has_records),
        whole=journals.whole,
        settled=frozenset(journals.settled),
    )


def journaled(directory: RunDirectory, manifest: Manifest, index: int, last: Session | None) -> Iterator[list[Record]]:
    """The records of an open partition as they count, some at a time. Changes nothing."""
    yield from journaled_in(directory, manifest, [index], last)


def journaled_in(
    directory: RunDirectory, manifest: Manifest, indexes: Sequence[int], last: Session | None
) -> Iterator[list[Record]]:
    """The records of open partitions of one range, as they count, some at a time. Changes nothing."""
    found = recorded.entries(recorded.sources(directory, manifest, indexes, last))
    while some := [entry.record for entry in itertools.islice(found, RECORDS_AT_ONCE)]:
        yield some
