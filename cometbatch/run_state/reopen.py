"""`--retry`: resets outcomes, so that their calls are answered again; every other outcome stays as it is.

The job may ask them in another way than before: then the run has one more target, and the file of what is kept says of
each call that is to be asked of which target it is asked.

The rename of one file decides. For each partition with matching calls a file of what is kept is written under a name
that counts for nothing yet (`journal/00042.kept1.jsonl`); then `reopened.json` is replaced by one that puts these
partitions into the new round. Records of earlier sessions, and the parts of earlier rounds, stop counting by the same
rename, and what they came to is added to what was replaced: it stays in the bill. What a crash leaves:

    before reopened.json    files that nothing names: the run is as it was, and the next session removes them
    after it                partitions of the new round without a part: they are open, and the next session goes on;
                            then the session's file says that there is this round, so that no loss of it goes unseen
    a new part is there     it is a commit, since it has the round of its partition
    all are committed       the result names fewer rounds than there are: the next session publishes again
"""

import functools
import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from cometbatch.records import PossibleCharge, Record, RejectedAsk, Tally
from cometbatch.results import codec, parts, tallies
from cometbatch.results.columns import (
    columns_of,
    outcomes_in,
    read_outcomes,
    repeated,
)
from cometbatch.results.retry_words import RetryWords
from cometbatch.results.target_column import TARGET_COLUMNS, target_column, with_target
from cometbatch.run_state import recorded
from cometbatch.run_state.directory import Reopened, Round
from cometbatch.run_state.open_records import OpenRecords
from cometbatch.run_state.run import Run, with_journals
from cometbatch.store import local


class Matching(Struct, frozen=True):
    """What would be reset: in which partitions, how many calls, and what of them would no longer count."""

    partitions: tuple[int, ...] = ()
    calls: int = 0
    replaced: Tally = Tally()


def find(run: Run, retry: RetryWords, target: int | None = 0) -> Matching:
    """Look which calls match; changes nothing. Raises `CheckpointError` where a file is damaged.

    `target`: the number of the target that they are to be asked of; None is one that the run does not have yet. Where
    it is not the first, calls match, too, that an earlier `--retry` left to be asked of yet another one: that may be a
    mistake, which nobody answers.
    """
    found, open_records = Matching(), OpenRecords(run)
    for index in _candidates(run, retry):
        taken = whole = Tally()
        for records in _records(run, index, open_records):
            outcomes = outcomes_in(records)
            taken = tallies.add(taken, tallies.tally(each for each in outcomes if retry.match(each)))
            whole = tallies.add(whole, tallies.tally(outcomes))
        moved = {call for call, asked in run.open_targets(index).items() if _is_moved(asked, target)}
        if taken.calls or moved:
            beside = _beside_outcomes(run, index, whole, moved, open_records)
            replaced = tallies.add(found.replaced, tallies.add(taken, beside))
            found = Matching((*found.partitions, index), found.calls + taken.calls + len(moved), replaced)
    return found


def late_column(run: Run, target: int | None, answers: Collection[str]) -> str | None:
    """The column of targets that a run needs once calls are asked of this one, if it has begun without.

    `answers`: the names of its own columns. Raises `UsageError` where no name for it is free.
    """
    if target == 0 or not TARGET_COLUMNS.isdisjoint(run.columns):
        return run.directory.reopened().target_column
    return target_column(run.prefix, {*run.manifest.input.columns, *answers})


def take_back(run: Run, retry: RetryWords, found: Matching, target: int = 0, target_column: str | None = None) -> None:
    """Open the matching calls again, in a round that begins with the newest session; on return it has happened.

    They are asked of this target, which `target_column` tells from then on; of a matrix, each of its own cell again.
    Raises `CheckpointError`; then it has not.
    """
    directory, before = run.directory, run.directory.reopened()
    this_round, session = before.rounds + 1, run.progress.last.number if run.progress.last is not None else 0
    open_records = OpenRecords(run)
    for index in found.partitions:
        lines = _kept_lines(run, index, retry, target, open_records)
        directory.journals.write_kept(run.manifest.run_id, index, this_round, lines)
    directory.write_reopened(
        Reopened(
            rounds=this_round,
            partitions=before.partitions | dict.fromkeys(found.partitions, Round(this_round, session)),
            replaced=tallies.add(before.replaced, found.replaced),
            target=target,
            target_column=target_column,
        )
    )
    if run.progress.last is not None:
        directory.write_session(msgspec.structs.replace(run.progress.last, rounds=this_round))


def widen_parts(run: Run) -> None:
    """Give each part of a data set the column of targets, where a `--retry` has added it to the run.

    All parts of a folder that is read as one table have the same columns. The parts that are merged into a file get the
    column on the way. Raises `CheckpointError`.
    """
    directory = run.directory
    if not directory.parts.is_dataset or directory.reopened().target_column is None:
        return
    columns = columns_of(run.columns)
    for index in run.progress.committed:
        path = directory.parts.path(index)
        if not parts.has_column(path, run.prefix + columns[-1].name):
            local.write_aside(path, functools.partial(_write_wide, path=path, info=_info(run, index), run=run))
    directory.parts.link_all()


def _write_wide(file: IO[bytes], *, path: Path, info: parts.PartInfo, run: Run) -> None:
    columns, own = columns_of(run.columns), run.manifest.slices[info.partition.slice].target
    completed = functools.partial(with_target, prefix=run.prefix, columns=columns, target=own)
    parts.rewrite(file, path, info, completed, functools.partial(repeated, prefix=run.prefix))


def _kept_lines(run: Run, index: int, retry: RetryWords, target: int, open_records: OpenRecords) -> Iterator[bytes]:
    """The outcomes that stay, and after them every call of the partition that has none then, with its target.

    Asks of calls that were open stay, too, but where another target is asked from now on: the answers were paid for,
    and the calls go on from them.
    """
    partition = run.manifest.partition(index)
    first = run.manifest.first_ordinal(partition)
    own = run.manifest.slices[partition.slice].target
    again = own if run.manifest.has_matrix else target
    open_calls = dict.fromkeys(range(first, first + partition.row_count), own)
    for call, asked in run.open_targets(index).items():
        open_calls[call] = target if _is_moved(asked, target) else asked
    for records in _records(run, index, open_records):
        for outcome in outcomes_in(records):
            if retry.match(outcome):
                open_calls[outcome.ordinal] = again
            else:
                open_calls.pop(outcome.ordinal, None)
                yield codec.encode_record(outcome)
        asks = (record for record in records if isinstance(record, RejectedAsk))
        yield from (codec.encode_record(ask) for ask in asks if open_calls.get(ask.ordinal) == ask.target)
    calls = (recorded.OpenCall(ordinal, open_calls[ordinal]) for ordinal in sorted(open_calls))
    yield from map(recorded.encode_open, calls)


def _is_moved(asked: int, target: int | None) -> bool:
    """Whether an open call that is to be asked of a target is asked of the new round's instead."""
    return target != 0 and asked not in (0, target)


def _candidates(run: Run, retry: RetryWords) -> Iterator[int]:
    """The partitions worth reading: a part's footer tells that it has no such row, if it has none.

    Slices that the job does not name any more stay as they are.
    """
    named = frozenset(run.manifest.active)
    for index in run.progress.committed:
        if run.manifest.partition(index).slice in named and retry.may_match_in(_info(run, index).tally):
            yield index
    yield from itertools.chain.from_iterable(with_journals(run))


def _records(run: Run, index: int, open_records: OpenRecords) -> Iterator[Sequence[Record]]:
    """What is recorded of a partition, committed or not, some rows in memory at a time: answers can be long."""
    if index not in run.progress.committed:
        yield from open_records.some(index)
        return
    columns = columns_of(run.columns)
    caps = [each.target.max_output_tokens for each in run.manifest.targets]
    partition = run.manifest.partition(index)
    ordinal, own = run.manifest.first_ordinal(partition), run.manifest.slices[partition.slice].target
    for piece in parts.read_pieces(run.directory.parts.path(index)):
        table = with_target(piece, run.prefix, columns, own)
        yield read_outcomes(table, ordinal, run.prefix, columns, caps=caps)
        ordinal += piece.num_rows


def _beside_outcomes(run: Run, index: int, outcomes: Tally, moved: Collection[int], open_records: OpenRecords) -> Tally:
    """What a partition came to beyond its outcomes as they are read back, for which a file of kept ones has no place.

    These are possible charges, and of a part also what no column tells of asks before the last one. Asks of open calls
    stay, and count on, but for those of calls that are `moved` to another target.
    """
    if index in run.progress.committed:
        return tallies.beyond(_info(run, index).tally, outcomes)
    records = itertools.chain.from_iterable(open_records.some(index))
    return tallies.tally(
        record
        for record in records
        if isinstance(record, PossibleCharge) or (isinstance(record, RejectedAsk) and record.ordinal in moved)
    )


def _info(run: Run, index: int) -> parts.PartInfo:
    return parts.read_info(run.directory.parts.path(index), run.manifest.run_id, index)
