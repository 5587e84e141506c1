"""How one of several owners of a run commits its parts: the first part of a partition stands, whoever made it.

Guards: an owner that comes second loses no money of the bill. What it recorded itself of that partition is booked as
possible charges in a file of its own, which says so of the partition; until then its journal stays, and readers count
the same from there.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import IO

import msgspec

from cometbatch.records import Answered, PossibleCharge, RejectedAsk
from cometbatch.results import parts, tallies
from cometbatch.run_state import recorded
from cometbatch.run_state.journal import Journal, JournalReader
from cometbatch.run_state.names import JOURNAL, owner_name
from cometbatch.run_state.open_partition import OpenPartition
from cometbatch.run_state.owner_files import CommittedPart, OwnerCharges
from cometbatch.run_state.ownership import LostOwnerError
from cometbatch.run_state.run import Run
from cometbatch.run_state.spending import Spending


class Committer:
    """Commits parts. For one thread, the one that writes. `is_current`: whether the owner's claims hold now."""

    def __init__(self, run: Run, session: int, worker: int, is_current: Callable[[], bool]) -> None:
        self._run, self._session, self._worker = run, session, worker
        self._is_current = is_current
        self._name = owner_name(session, worker)

    def owners(self, journal: Journal) -> tuple[str, ...]:
        """Those whose records of this session a part has that is made with this journal: its writer's, and earlier."""
        matches = filter(None, map(JOURNAL.fullmatch, journal.header.earlier))
        return (*(owner_name(int(match[2]), int(match[3] or 0)) for match in matches), self._name)

    def commit(
        self, opened: OpenPartition, write: Callable[[IO[bytes]], None], committed: Callable[[], CommittedPart]
    ) -> bool:
        """Make a part exist, or book what this owner has paid for beside another's part.

        False: the owner's claims did not hold when the part was written, so that nothing was done. `committed` is asked
        after `write`. Raises `LostOwnerError` where another owner went on from this one's records, and
        `CheckpointError` where the disk fails.
        """
        directory, index = self._run.directory, opened.partition.index
        try:
            is_first = directory.commit_part(index, write, owner=self._name, is_current=self._is_current)
        except LostOwnerError:
            return False
        if is_first:
            size = directory.parts.path(index).stat().st_size
            part = msgspec.structs.replace(committed(), size=size)
            directory.owners.note_part(self._session, self._worker, part)
        else:
            self._book(opened)
        return True

    def _book(self, opened: OpenPartition) -> None:
        directory, index, run_id = self._run.directory, opened.partition.index, self._run.manifest.run_id
        winner = parts.read_info(directory.parts.path(index), run_id, index)
        owners = () if winner.owners is msgspec.UNSET else winner.owners
        if self._name in owners:
            raise LostOwnerError(f"{owners[-1]} went on with partition {index} from what {self._name} had recorded")
        files = directory.owners.charges_of(self._session)
        known = {each.worker: each for path in files for each in directory.owners.read_charges(path)}
        before = known.get(self._worker, OwnerCharges(run_id, self._session, self._worker))
        total = tallies.add(before.total, tallies.tally(self._charges(opened, owners)))
        booked = (*before.booked, index)
        directory.owners.write_charges(msgspec.structs.replace(before, total=total, booked=booked))

    def _charges(self, opened: OpenPartition, owners: tuple[str, ...]) -> Iterator[PossibleCharge]:
        """What this owner recorded of a partition, beside what `owners` had recorded, as possible charges."""
        manifest, journal = self._run.manifest, opened.journal
        reader = JournalReader(journal.path, manifest.run_id, journal.header.range)
        spending = Spending(opened.earlier_asks())
        for record in recorded.records_of(recorded.Source(journal.path, self._session, reader)):
            if manifest.partition_of(record.ordinal) != opened.partition.index:
                continue
            amount = spending.added(record)
            if isinstance(record, PossibleCharge):
                if not record.owner or owner_name(self._session, record.owner) not in owners:
                    yield record
            elif isinstance(record, RejectedAsk | Answered) or amount != Decimal(0):
                yield PossibleCharge(record.ordinal, record.finished_at, "duplicate", amount)
