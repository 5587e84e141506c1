"""What workers of a session leave in a run directory, made by hand: parts, journals, marks and files of charges."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO

import msgspec
import pyarrow as pa

from cometbatch.records import Answered, Completion, PossibleCharge, Record, Tally, Usage
from cometbatch.results import codec, columns, parts, tallies
from cometbatch.results.columns import outcomes_in
from cometbatch.run_state.begin import first_session, next_session
from cometbatch.run_state.directory import Reopened, Round, RunDirectory
from cometbatch.run_state.manifest import Manifest, Slice, encode_manifest, metadata_of
from cometbatch.run_state.names import owner_name
from cometbatch.run_state.owner_files import CommittedPart, OwnerCharges
from cometbatch.run_state.recorded import OpenCall, encode_open
from cometbatch.run_state.run import Run, find
from tests.run_on_disk import WHO, RunOnDisk
from tests.scripted_run import NOW, RUN_ID

ROWS, PARTITION_ROWS = 6, 2
CENT = Decimal("0.01")


class OwnersOnDisk:
    """A run in its first session, whose workers write by hand. `is_dataset`: its parts are its result."""

    def __init__(self, folder: Path, *, is_dataset: bool = False, slices: int = 1) -> None:
        self.result = folder / ("out" if is_dataset else "out.parquet")
        self.directory = RunDirectory(folder / "run", parts=self.result if is_dataset else None)
        self.directory.create()
        (folder / "made").mkdir(parents=True, exist_ok=True)
        manifest = RunOnDisk(folder / "made", ROWS, PARTITION_ROWS).manifest
        self.manifest: Manifest = msgspec.structs.replace(
            manifest, slices=tuple(Slice(sample=sample) for sample in range(slices))
        )
        self.table = pa.table({"n": range(ROWS)})
        first_session(self.directory, RUN_ID, WHO)
        self.directory.write_manifest(encode_manifest(self.manifest))

    @classmethod
    def of(cls, folder: Path, other: "OwnersOnDisk") -> "OwnersOnDisk":
        """The same run, in a copy of its folder."""
        copy = cls.__new__(cls)
        copy.result = folder / other.result.name
        copy.manifest, copy.table = other.manifest, other.table
        is_dataset = other.directory.parts.is_dataset
        copy.directory = RunDirectory(folder / "run", parts=copy.result if is_dataset else None)
        return copy

    def found(self, accept: Sequence[str] = ()) -> Run:
        """The run as a process finds it."""
        directory = RunDirectory(self.directory.path, parts=self.result if self.directory.parts.is_dataset else None)
        run = find(directory, self.result, accept)
        assert run is not None
        return run

    def resume(self) -> Run:
        """The next session begins."""
        next_session(self.found(), WHO)
        return self.found()

    def journal(self, range_: int, worker: int, records: Sequence[Record], session: int = 1) -> Path:
        """A worker's journal of a range, with the marks that were there before it."""
        if not (self.directory.path / f"in_flight.{owner_name(session, worker)}").exists():
            self.directory.new_marks(RUN_ID, session, 1, worker).close()
        journal = self.directory.journals.begin(RUN_ID, range_, session, worker)
        journal.append([codec.encode_record(record) for record in records])
        journal.close()
        return journal.path

    def mark(self, worker: int, ordinal: int, session: int = 1) -> None:
        """A request of a worker on its way."""
        marks = self.directory.new_marks(RUN_ID, session, 1, worker)
        marks.begin(ordinal, 1, 1, CENT)
        marks.close()

    def commit(
        self,
        index: int,
        worker: int,
        records: Sequence[Record],
        *,
        session: int = 1,
        others: Sequence[int] = (),
        is_current: Callable[[], bool] = lambda: True,
    ) -> bool:
        """A worker's part of a partition, with what it took over of `others`, and the line that notes it."""
        owners = tuple(owner_name(session, each) for each in (*others, worker)) if worker else msgspec.UNSET
        round_ = self.directory.reopened().number_of(index)
        info = parts.PartInfo(RUN_ID, self.manifest.partition(index), tallies.tally(records), round_, owners)
        owner = owner_name(session, worker) if worker else ""
        write = self._writing(info, records)
        if worker:
            self.directory.parts.within.mkdir(exist_ok=True)
        is_first = self.directory.commit_part(index, write, owner=owner, is_current=is_current)
        if is_first and worker:
            size = self.directory.parts.path(index).stat().st_size
            self.note(CommittedPart(RUN_ID, index, size, info.tally, round=round_), session, worker)
        return is_first

    def note(self, part: CommittedPart, session: int = 1, worker: int = 1) -> None:
        """A worker's line about a part."""
        self.directory.owners.committed.mkdir(exist_ok=True)
        self.directory.owners.note_part(session, worker, part)

    def _writing(self, info: parts.PartInfo, records: Sequence[Record]) -> Callable[[IO[bytes]], None]:
        of_run, said = columns.columns_of(self.manifest.columns), metadata_of(self.manifest)
        rows = self.table.slice(info.partition.first_row, info.partition.row_count)
        table = columns.join(rows, outcomes_in(records), "", said, of_run)

        def write(file: IO[bytes]) -> None:
            parts.write_part(file, table.schema, [table], lambda: info)

        return write

    def retry(self, index: int, session: int) -> None:
        """A round that asks all calls of a partition again, from this session on."""
        first, number = index * PARTITION_ROWS, self.directory.reopened().rounds + 1
        calls = [OpenCall(ordinal) for ordinal in range(first, first + PARTITION_ROWS)]
        self.directory.journals.write_kept(RUN_ID, index, number, map(encode_open, calls))
        self.directory.write_reopened(Reopened(number, {index: Round(number, session)}))

    def book(self, worker: int, total: Tally, booked: Sequence[int] = (), session: int = 1) -> None:
        """A worker's file of charges."""
        self.directory.owners.write_charges(OwnerCharges(RUN_ID, session, worker, total=total, booked=tuple(booked)))

    def names(self, folder: str = ".") -> list[str]:
        """The files in a folder of the run."""
        return sorted(path.name for path in (self.directory.path / folder).iterdir() if path.is_file())


def answered(ordinal: int, cost: Decimal = CENT) -> Answered:
    """An answer at this cost."""
    completion = Completion(f"{ordinal}", "stop", Usage(1, 1))
    return Answered(ordinal, "succeeded", None, 1, 0.5, NOW, "hash", 200, None, completion, cost)


def answers(index: int, cost: Decimal = CENT) -> list[Record]:
    """An outcome of each call of a partition."""
    return [answered(ordinal, cost) for ordinal in range(index * PARTITION_ROWS, (index + 1) * PARTITION_ROWS)]


def charges(count: int) -> Tally:
    """So many possible charges of a cent."""
    return tallies.tally(PossibleCharge(0, NOW, "duplicate", CENT) for _ in range(count))
