"""What is recorded of partitions that have no part yet: kept outcomes, then every session's journals, read as one.

Partitions of one range share its journals, and each has its own file of kept outcomes.

Guards: the first outcome of a call stands, in the order of sessions and workers; what it was paid a second time is a
possible charge, never an error. An answer that was not accepted counts by itself while its call has no outcome: the
outcome's sums hold the call's asks, those of earlier sessions too.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.errors import CheckpointError
from cometbatch.records import Answered, Failed, Outcome, PossibleCharge, Record, RejectedAsk
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.header_bounds import bounds_of
from cometbatch.run_state.journal import ORDINAL, JournalReader
from cometbatch.run_state.journal_files import JournalFile
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.sessions import Session

KEPT_BY_A_ROUND = -1  # in place of a session's number: a file of kept outcomes comes before every session's


class OpenCall(Struct, frozen=True, tag="open", tag_field="record"):
    """A line of a file of kept outcomes: a call that a round asks again, or that was open, and its target."""

    ordinal: int
    target: int = 0


Attempt: TypeAlias = tuple[int, int, int, int, int]
"""Session, worker (0: of a session alone), ordinal, ask, attempt."""
_Line: TypeAlias = Answered | Failed | RejectedAsk | PossibleCharge | OpenCall
_DECODER: Final = msgspec.json.Decoder(_Line)
_OPEN_CALL: Final = b'{"record":"open"'  # the beginning of such a line: answers beside it can be long
encode_open = msgspec.json.Encoder().encode


class Source(Struct, frozen=True):
    """A file with records. `session`, `worker`: who wrote it. `takes`: whether a call's records count; None: all do."""

    path: Path
    session: int
    reader: JournalReader
    takes: Callable[[int], bool] | None = None
    worker: int = 0

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that count, with their offsets. Raises what a `JournalReader` raises."""
        if (takes := self.takes) is None:
            yield from self.reader
            return
        for offset, line in self.reader:
            found = ORDINAL.search(line)
            if found is None or takes(int(found[1])):
                yield offset, line


class Entry(Struct, frozen=True, gc=False):
    """A record as it counts, and where it stands. `is_duplicate`: the line is an outcome that came too late.

    `settled`: the asks, and of each the attempt, of which the line tells what came of them.
    """

    record: Record
    source: int
    offset: int
    size: int
    settled: tuple[tuple[int, int], ...]
    is_duplicate: bool = False


def attempts_in(source: Source, entry: Entry) -> set[Attempt]:
    """The attempts of which an entry of this file tells what came of them."""
    worker, record = source.worker, entry.record
    if isinstance(record, PossibleCharge) and record.owner:
        worker = record.owner
    return {(source.session, worker, record.ordinal, ask, attempt) for ask, attempt in entry.settled}


def sources(
    directory: RunDirectory,
    manifest: Manifest,
    indexes: Sequence[int],
    last: Session | None,
    files: Sequence[JournalFile] | None = None,
    *,
    bounds: Mapping[str, int] | None = None,
) -> list[Source]:
    """The files whose records of these partitions of one range count, in the order in which they count.

    `files`: the range's journals, for a caller that has listed the folder already. `bounds`: how many bytes count of
    those that another worker of their session went on from, by name; None is what their headers say.
    """
    journals, run_id, reopened = directory.journals, manifest.run_id, directory.reopened()
    since, found = dict[int, int](), list[Source]()
    for index in indexes:
        round_ = reopened.round_of(index)
        since[index] = round_.since
        if round_.round:
            kept = journals.read_kept(index, round_.round, run_id, last)
            found.append(Source(journals.kept(index, round_.round), KEPT_BY_A_ROUND, kept))
    files = journals.all(manifest.range_of(indexes[0])) if files is None else files
    if bounds is None:
        bounds = bounds_of(journals.folder, files, last) if any(file.worker for file in files) else {}
    for file in files:
        counting = frozenset(index for index, first in since.items() if file.session >= first)
        if counting:
            reader, takes = journals.read(file, run_id, last, bounds.get(file.name)), _takes(manifest, counting)
            found.append(Source(journals.folder / file.name, file.session, reader, takes, file.worker))
    return found


def _takes(manifest: Manifest, counting: frozenset[int]) -> Callable[[int], bool] | None:
    """Whether a call is in one of these partitions; None where no other partition has records in the same files."""
    if len(counting) == len(manifest.slices):
        return None
    return lambda ordinal: manifest.partition_of(ordinal) in counting


def entries(
    files: Iterable[Source], targets: dict[int, int] | None = None, included: list[Entry] | None = None
) -> Iterator[Entry]:
    """The records in these files as they count; asks that count come last.

    `targets` takes the target of each call that has a line of its own without an outcome, `included` the asks whose
    call's outcome has their sums. Raises what a `JournalReader` raises.
    """
    done: set[int] = set()
    asks: dict[int, list[Entry]] = {}  # by call
    for number, file in enumerate(files):
        for offset, line in file.lines():
            record = _decode(line, file.path, offset)
            if isinstance(record, OpenCall):
                if targets is not None:
                    targets[record.ordinal] = record.target
                continue
            entry = Entry(record, number, offset, len(line), _settled(record))
            if isinstance(record, RejectedAsk):
                asks.setdefault(record.ordinal, []).append(entry)
            elif isinstance(record, PossibleCharge):
                yield entry
            elif record.ordinal not in done:
                done.add(record.ordinal)
                yield entry
            elif isinstance(record, Answered) or record.asks > 1:  # a call that failed at its first ask cost nothing
                yield Entry(duplicate(record), number, offset, len(line), _settled(record), is_duplicate=True)
    for ordinal, some in asks.items():
        if ordinal not in done:
            yield from sorted(some, key=_ask_of)  # workers follow each other in any order of their numbers
    if included is not None:
        included += (ask for ordinal, some in asks.items() if ordinal in done for ask in some)


def records_of(source: Source) -> Iterator[Record]:
    """Every record of a file, also those that another one stands before. Raises what a `JournalReader` raises."""
    for offset, line in source.lines():
        record = _decode(line, source.path, offset)
        if not isinstance(record, OpenCall):
            yield record


def _ask_of(entry: Entry) -> int:
    assert isinstance(entry.record, RejectedAsk)  # noqa: S101 - it is one of a call's asks
    return entry.record.ask


def open_targets(files: Iterable[Source]) -> dict[int, int]:
    """Which target each call is asked of that a round of `--retry` left without an outcome, by ordinal.

    Raises what a `JournalReader` raises.
    """
    kept = (file for file in files if file.session == KEPT_BY_A_ROUND)
    lines = ((file.path, offset, line) for file in kept for offset, line in file.reader if line.startswith(_OPEN_CALL))
    calls = (_decode(line, path, offset) for path, offset, line in lines)
    return {call.ordinal: call.target for call in calls if isinstance(call, OpenCall)}


def _settled(record: Record) -> tuple[tuple[int, int], ...]:
    """A record settles the attempts that it tells of, and no other: one attempt's record can be lost without another's.

    An attempt without an answer that may be billed has a record of its own, a possible charge.
    """
    if isinstance(record, RejectedAsk | PossibleCharge):
        return ((record.ask, record.attempt),)
    return tuple(enumerate(record.answered_attempts, start=1))


def _decode(line: bytes, path: Path, offset: int) -> _Line:
    """Raises `CheckpointError` where a whole line is no record: a newer program may have written it."""
    try:
        return _DECODER.decode(line)
    except msgspec.MsgspecError as error:
        raise CheckpointError(
            f"{path}: the line at byte {offset:,} is whole, and this version of cometbatch does not understand it "
            f"({error}). Continue with the version that wrote it."
        ) from error


def duplicate(outcome: Outcome) -> PossibleCharge:
    """What an outcome counts as whose call has one already."""
    amount = outcome.max_cost_usd if outcome.cost_usd is None else outcome.cost_usd
    return PossibleCharge(outcome.ordinal, outcome.finished_at, "duplicate", amount)


def read_again(line: bytes, *, is_duplicate: bool) -> Record:
    """The record of a line that `entries` found before."""
    record = _DECODER.decode(line)
    if isinstance(record, OpenCall):
        raise TypeError("this line is no record of what a call came to")
    return duplicate(record) if is_duplicate and isinstance(record, Answered | Failed) else record


def largest_amount(reader: JournalReader) -> Decimal | None:
    """The largest amount in US dollars that a record in this file names; None where one of them is unknown."""
    amounts: list[Decimal | None] = []
    for _, line in reader:
        match record := _DECODER.decode(line):
            case PossibleCharge():
                amounts.append(record.max_cost_usd)
            case Answered() | RejectedAsk():
                amounts.append(record.max_cost_usd if record.cost_usd is None else record.cost_usd)
            case Failed() if record.asks > 1:
                amounts.append(record.max_cost_usd if record.cost_usd is None else record.cost_usd)
    known = [amount for amount in amounts if amount is not None]
    return max(known, default=None) if len(known) == len(amounts) else None
