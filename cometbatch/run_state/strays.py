"""What a worker recorded of a partition that another one made a part of, and that is in no part and no file of charges.

So it is where two worked on one partition, the second to finish it found the first one's part, and died before it had
booked its own rows. These count as possible charges; the next session counts them in its file, and then they go.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator

from msgspec import Struct

from cometbatch.records import Failed, PossibleCharge, Record, RejectedAsk, Tally
from cometbatch.results import tallies
from cometbatch.run_state import recorded
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.header_bounds import bounds_of
from cometbatch.run_state.journal_files import JournalFile
from cometbatch.run_state.manifest import Manifest, partitions_of
from cometbatch.run_state.names import owner_name
from cometbatch.run_state.owner_files import OwnerCharges
from cometbatch.run_state.recorded import Attempt
from cometbatch.run_state.seen_parts import SeenParts
from cometbatch.run_state.sessions import Session


class Included:
    """Which workers' records and marks of committed partitions are in a part, or in a file of charges."""

    def __init__(self, seen: SeenParts, charges: Iterable[OwnerCharges]) -> None:
        self._seen = seen
        self._booked = {(each.session, each.worker, index) for each in charges for index in each.booked}

    def has(self, index: int, session: int, worker: int) -> bool:
        """Whether those of this worker are. A session alone on its run is the one that makes its parts."""
        if not worker or (session, worker, index) in self._booked:
            return True
        return self._seen.has_records_of(index, owner_name(session, worker))


class Strays(Struct, frozen=True):
    """What was found. `tally`: the possible charges; `settled`: the attempts of which it tells; `names`: journals."""

    tally: Tally = Tally()
    settled: frozenset[Attempt] = frozenset()
    names: tuple[str, ...] = ()


def stray_journals(
    directory: RunDirectory, manifest: Manifest, last: Session | None, committed: Collection[int], included: Included
) -> Iterator[tuple[JournalFile, list[int]]]:
    """Journals of the newest session's workers, each with the committed partitions of which nothing else has its part.

    Those of earlier sessions are in the newest session's file. Raises `CheckpointError` where a part is damaged.
    """
    for file in directory.journals.all():
        if file.worker and (last is None or file.session >= last.number):
            done = (index for index in partitions_of(manifest, file.range) if index in committed)
            if strays := [index for index in done if not included.has(index, file.session, file.worker)]:
                yield file, strays


def names_of_strays(
    directory: RunDirectory, manifest: Manifest, last: Session | None, committed: Collection[int]
) -> set[str]:
    """The names of journals that are no leftovers. Raises `CheckpointError` where a part is damaged."""
    paths = [] if last is None else directory.owners.charges_of(last.number)
    charges = itertools.chain.from_iterable(map(directory.owners.read_charges, paths))
    included = Included(SeenParts(directory, manifest), charges)
    return {file.name for file, _ in stray_journals(directory, manifest, last, committed, included)}


def read_strays(
    directory: RunDirectory, manifest: Manifest, last: Session | None, committed: Collection[int], included: Included
) -> Strays:
    """What strays tell. Raises `CheckpointError` where a file is damaged, or another run's."""
    charges, settled, names = list[PossibleCharge](), set[Attempt](), list[str]()
    for file, indexes in stray_journals(directory, manifest, last, committed, included):
        bounds = bounds_of(directory.journals.folder, directory.journals.all(file.range), last)
        sources = recorded.sources(directory, manifest, indexes, last, [file], bounds=bounds)
        own = [source for source in sources if source.session != recorded.KEPT_BY_A_ROUND]
        some = len(charges), len(settled)
        for entry in recorded.entries(own):
            record = entry.record
            owner = record.owner if isinstance(record, PossibleCharge) else 0
            if not owner or not included.has(manifest.partition_of(record.ordinal), file.session, owner):
                charges += _charge(record)
            settled |= recorded.attempts_in(own[entry.source], entry)
        if (len(charges), len(settled)) != some:
            names.append(file.name)
    return Strays(tallies.tally(charges), frozenset(settled), tuple(names))


def _charge(record: Record) -> list[PossibleCharge]:
    """What a record comes to of which another owner's part has the call's outcome; none where it cost nothing."""
    if isinstance(record, PossibleCharge):
        return [record]
    if isinstance(record, RejectedAsk):
        amount = record.max_cost_usd if record.cost_usd is None else record.cost_usd
        return [PossibleCharge(record.ordinal, record.finished_at, "duplicate", amount)]
    return [] if isinstance(record, Failed) and record.asks == 1 else [recorded.duplicate(record)]
