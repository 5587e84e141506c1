"""`--retry`: takes outcomes back, so that their rows are answered again; every other row's outcome is kept as it is.

One file's rename decides. For each partition with matching rows a journal of what is kept is written under a name
that counts for nothing yet (`journal/00042.retry1.jsonl`); then `reopened.json` is replaced by one that names these
journals. A partition whose named journal is there is open again, and its part, if it has one, is the old one: still in
place, so that a data set stays whole, until the new part replaces it by the usual rename. What a crash leaves:

    before reopened.json    journals that nothing names: the run is as it was, and the next session removes them
    after it                open partitions, the old parts and the old result; the next session carries on
    a new part is there     and its journal too, which is complete: committed again from it, and nothing is sent
    the journal is gone     the partition is committed
    all are committed       the result is still the old one and marked as such: the next session publishes
    published               and still marked so: published again, the same; then the mark and the names go

What the outcomes that were taken back had cost is added up in the same file, by the same rename, so that the bill
neither loses it nor counts it twice.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, assert_never, get_args

import msgspec
from msgspec import Struct

from cometbatch.errors import UsageError
from cometbatch.records import (
    Answered,
    Failed,
    FailureKind,
    FinishReason,
    Outcome,
    PossibleCharge,
    Tally,
)
from cometbatch.results import codec, parts
from cometbatch.results import columns as output
from cometbatch.results import tally as tallies
from cometbatch.run_state import resume
from cometbatch.run_state.directory import Reopened, RunDirectory
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.resume import Progressed

WORDS: Final = ("failed", "incomplete", *get_args(FailureKind), *get_args(FinishReason))
"""What `--retry` understands. A finish reason stands for incomplete rows alone (`stop`: an empty answer)."""


class Matching(Struct, frozen=True):
    """What would be taken back: in which partitions, and what it comes to."""

    partitions: tuple[int, ...] = ()
    tally: Tally = Tally()


def read_words(wanted: str | Iterable[str]) -> frozenset[str]:
    """The kinds of rows that are meant; text is split at its commas. Raises `UsageError` with the list of them all."""
    words = frozenset(word.strip() for word in (wanted.split(",") if isinstance(wanted, str) else wanted))
    if unknown := sorted(words - set(WORDS)):
        raise UsageError(f"--retry: {', '.join(map(repr, unknown))} is no kind of row. There are: {', '.join(WORDS)}.")
    return words


def matches(outcome: Outcome, words: frozenset[str]) -> bool:
    """Whether the row is to be answered again; one with a whole answer never is."""
    match outcome:
        case Answered(status="succeeded"):
            return False
        case Answered(completion=completion):
            return "incomplete" in words or completion.finish_reason in words
        case Failed(failure=failure):
            return "failed" in words or failure.kind in words
        case _:
            assert_never(outcome)


def find(
    directory: RunDirectory, manifest: Manifest, progressed: Progressed, words: frozenset[str], prefix: str
) -> Matching:
    """Look which recorded rows match; changes nothing. Raises `CheckpointError` where a file is damaged."""
    found = Matching()
    for index in _candidates(directory, manifest, progressed, words):
        taken = Tally()
        for outcomes in _outcomes(directory, manifest, progressed, index, prefix):
            taken = tallies.add(taken, tallies.tally(outcome for outcome in outcomes if matches(outcome, words)))
        if taken.calls:
            replaced = tallies.add(taken, _thrown(directory, manifest, progressed, index))
            found = Matching((*found.partitions, index), tallies.add(found.tally, replaced))
    return found


def take_back(
    directory: RunDirectory,
    manifest: Manifest,
    progressed: Progressed,
    words: frozenset[str],
    *,
    found: Matching,
    prefix: str,
) -> Progressed:
    """Open the matching rows again; when this returns, it has happened. Raises `CheckpointError`; then it has not."""
    before = directory.reopened()
    this_round = before.rounds + 1
    for index in found.partitions:
        outcomes = itertools.chain.from_iterable(_outcomes(directory, manifest, progressed, index, prefix))
        kept = (codec.encode_record(outcome) for outcome in outcomes if not matches(outcome, words))
        directory.write_journal(manifest.run_id, index, this_round, kept)
    # A row that an old crash left marked, and that was answered since, is not in flight when it is opened again.
    directory.write_marks(resume.unrecorded(directory.marks(), manifest, progressed))
    directory.write_reopened(
        Reopened(
            rounds=this_round,
            journals={**before.journals, **dict.fromkeys(found.partitions, this_round)},
            unpublished=True,
            replaced=tallies.add(before.replaced, found.tally),
        )
    )
    return resume.look(directory, manifest)


def settle(directory: RunDirectory) -> None:
    """Note that the result is that of the parts again. No work where nothing was opened again."""
    reopened = directory.reopened()
    if reopened.unpublished:
        directory.write_reopened(msgspec.structs.replace(reopened, journals={}, unpublished=False))


def _candidates(
    directory: RunDirectory, manifest: Manifest, progressed: Progressed, words: frozenset[str]
) -> Iterator[int]:
    """The partitions worth reading: a part's footer tells that it has no such row, if it has none."""
    for index in progressed.committed:
        tally = parts.read_info(directory.part_path(index), manifest.run_id).tally
        kinds = set(tally.failures) | ({"failed"} if tally.failed else set())
        reasons = {"incomplete", *get_args(FinishReason)} if tally.incomplete else set()
        if words & (kinds | reasons):
            yield index
    yield from sorted(set(directory.journals()) - set(progressed.committed))


def _outcomes(
    directory: RunDirectory, manifest: Manifest, progressed: Progressed, index: int, prefix: str
) -> Iterator[Sequence[Outcome]]:
    """What is recorded of a partition, committed or not, some rows in memory at a time: answers can be long."""
    if index not in progressed.committed:
        for records in resume.journaled(directory, index):
            yield output.outcomes_in(records)
        return
    columns, row = output.columns_of(manifest.columns), index * manifest.partition_rows
    for piece in parts.read_pieces(directory.part_path(index)):
        yield output.read_outcomes(piece, row, prefix, columns)
        row += piece.num_rows


def _thrown(directory: RunDirectory, manifest: Manifest, progressed: Progressed, index: int) -> Tally:
    """What a partition's attempts that were thrown away came to: the new journal has no place for them."""
    if index in progressed.committed:
        tally = parts.read_info(directory.part_path(index), manifest.run_id).tally
        return Tally(
            charges=tally.charges,
            charges_usd=tally.charges_usd,
            charges_unknown=tally.charges_unknown,
            charges_in_flight=tally.charges_in_flight,
        )
    records = itertools.chain.from_iterable(resume.journaled(directory, index))
    return tallies.tally(record for record in records if isinstance(record, PossibleCharge))
