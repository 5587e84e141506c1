"""`--retry`: resets outcomes, so that their calls are answered again; every other outcome stays as it is.

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

import itertools
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from cometbatch.records import PossibleCharge, Record, RejectedAsk, Tally
from cometbatch.results import codec, parts, tallies
from cometbatch.results.columns import columns_of, outcomes_in, read_outcomes
from cometbatch.results.retry_words import RetryWords
from cometbatch.run_state import recorded
from cometbatch.run_state.directory import Reopened, Round
from cometbatch.run_state.progress import journaled
from cometbatch.run_state.run import Run


class Matching(Struct, frozen=True):
    """What would be reset: in which partitions, how many calls, and what of them would no longer count."""

    partitions: tuple[int, ...] = ()
    calls: int = 0
    replaced: Tally = Tally()


def find(run: Run, retry: RetryWords) -> Matching:
    """Look which recorded calls match; changes nothing. Raises `CheckpointError` where a file is damaged."""
    found = Matching()
    for index in _candidates(run, retry):
        taken = whole = Tally()
        for records in _records(run, index):
            outcomes = outcomes_in(records)
            taken = tallies.add(taken, tallies.tally(each for each in outcomes if retry.match(each)))
            whole = tallies.add(whole, tallies.tally(outcomes))
        if taken.calls:
            replaced = tallies.add(found.replaced, tallies.add(taken, _beside_outcomes(run, index, whole)))
            found = Matching((*found.partitions, index), found.calls + taken.calls, replaced)
    return found


def take_back(run: Run, retry: RetryWords, found: Matching) -> None:
    """Open the matching calls again, in a round that begins with the newest session; on return it has happened.

    Raises `CheckpointError`; then it has not.
    """
    directory, before = run.directory, run.directory.reopened()
    this_round, session = before.rounds + 1, run.progress.last.number if run.progress.last is not None else 0
    for index in found.partitions:
        lines = _kept_lines(run, index, retry)
        directory.journals.write_kept(run.manifest.run_id, index, this_round, lines)
    directory.write_reopened(
        Reopened(
            rounds=this_round,
            partitions=before.partitions | dict.fromkeys(found.partitions, Round(this_round, session)),
            replaced=tallies.add(before.replaced, found.replaced),
        )
    )
    if run.progress.last is not None:
        directory.write_session(msgspec.structs.replace(run.progress.last, rounds=this_round))


def _kept_lines(run: Run, index: int, retry: RetryWords) -> Iterator[bytes]:
    """The outcomes that stay, and after them every call of the partition that has none then.

    Asks of calls that were open stay, too: their answers were paid for, and the calls go on from them.
    """
    partition = run.manifest.partitions()[index]
    first = run.manifest.first_ordinal(partition)
    open_calls = set(range(first, first + partition.row_count))
    for records in _records(run, index):
        for outcome in outcomes_in(records):
            if not retry.match(outcome):
                open_calls.discard(outcome.ordinal)
                yield codec.encode_record(outcome)
        yield from (codec.encode_record(record) for record in records if isinstance(record, RejectedAsk))
    yield from (recorded.encode_open(recorded.OpenCall(ordinal)) for ordinal in sorted(open_calls))


def _candidates(run: Run, retry: RetryWords) -> Iterator[int]:
    """The partitions worth reading: a part's footer tells that it has no such row, if it has none."""
    for index in run.progress.committed:
        if retry.may_match_in(_info(run, index).tally):
            yield index
    in_journals = {file.range for file in run.directory.journals.all()} | run.directory.reopened().partitions.keys()
    yield from sorted(in_journals - set(run.progress.committed))


def _records(run: Run, index: int) -> Iterator[Sequence[Record]]:
    """What is recorded of a partition, committed or not, some rows in memory at a time: answers can be long."""
    if index not in run.progress.committed:
        yield from journaled(run.directory, run.manifest, index, run.progress.last)
        return
    columns = columns_of(run.manifest.columns)
    ordinal = run.manifest.first_ordinal(run.manifest.partitions()[index])
    for piece in parts.read_pieces(run.directory.parts.path(index)):
        yield read_outcomes(piece, ordinal, run.prefix, columns, cap=run.manifest.targets[0].target.max_output_tokens)
        ordinal += piece.num_rows


def _beside_outcomes(run: Run, index: int, outcomes: Tally) -> Tally:
    """What a partition came to beyond its outcomes as they are read back, for which a file of kept ones has no place.

    These are possible charges, and of a part also what no column tells of asks before the last one. Asks of open calls
    stay, and count on.
    """
    if index in run.progress.committed:
        return tallies.beyond(_info(run, index).tally, outcomes)
    records = itertools.chain.from_iterable(journaled(run.directory, run.manifest, index, run.progress.last))
    return tallies.tally(record for record in records if isinstance(record, PossibleCharge))


def _info(run: Run, index: int) -> parts.PartInfo:
    return parts.read_info(run.directory.parts.path(index), run.manifest.run_id, index)
