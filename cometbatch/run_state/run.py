"""One run: its directory, what it is, and what is recorded of it by now."""

import functools
from collections.abc import Collection
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.errors import START_OVER, CheckpointError, UsageError
from cometbatch.job import Job
from cometbatch.job.paths import RUN_PREFIX, RUN_SUFFIX, absolute, linked, run_beside
from cometbatch.records import Partition, Tally
from cometbatch.results import parts, tallies
from cometbatch.run_state import recorded
from cometbatch.run_state.directory import MANIFEST, RunDirectory
from cometbatch.run_state.manifest import Manifest, decode_manifest, encode_manifest, has_matrix, partitions_of
from cometbatch.run_state.progress import Progress, look
from cometbatch.run_state.published import is_published
from cometbatch.run_state.succession import is_moved, looked_at
from cometbatch.store import local

Place: TypeAlias = Literal["free", "ours", "foreign"]
"""What stands where the result goes: nothing (or what the run is to replace), its result, another file."""


class Run(Struct, frozen=True):
    """A run that a directory holds. `result`: where its result goes."""

    directory: RunDirectory
    manifest: Manifest
    progress: Progress
    result: Path

    @property
    def tally(self) -> Tally:
        """Of the records of the slices that the job names: what the result will tell."""
        if len(self.manifest.active) == len(self.manifest.slices):
            return self.progress.records
        found = self.progress.by_slice
        return functools.reduce(tallies.add, (found[each] for each in self.manifest.active if each in found), Tally())

    @property
    def prefix(self) -> str:
        """What stands before the names of its output columns."""
        return str(self.manifest.fingerprint.get("output.prefix") or "")

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its output columns: those that it began with, and what a `--retry` added."""
        added = self.directory.reopened().target_column
        return self.manifest.columns if added is None else (*self.manifest.columns, added)

    @property
    def targets(self) -> tuple[int, int]:
        """The numbers of the targets that a job may ask without drift: the first, and that of the newest `--retry`."""
        return 0, self.directory.reopened().target

    @property
    def rows(self) -> int:
        """How many rows its input has."""
        return self.manifest.input.rows

    @property
    def is_complete(self) -> bool:
        """Whether every call has an outcome in a part."""
        if len(self.manifest.active) < len(self.manifest.slices):
            return not self.missing
        return len(self.progress.committed) == self.partition_count

    @property
    def partition_count(self) -> int:
        """How many partitions it has, in the slices that the job names."""
        return self.manifest.partitions_in_slice * len(self.manifest.active)

    def open_targets(self, index: int) -> dict[int, int]:
        """The target of each call of a partition that a `--retry` left without an outcome, and that has none yet.

        Raises `CheckpointError` where the file that tells them is damaged.
        """
        if index in self.progress.committed or not self.directory.reopened().round_of(index).round:
            return {}
        files = recorded.sources(self.directory, self.manifest, [index], self.progress.last)
        targets, done = recorded.open_targets(files), self.progress.recorded
        return {ordinal: target for ordinal, target in targets.items() if ordinal not in done}

    @property
    def missing(self) -> list[Partition]:
        """The partitions without a part, ascending, of the slices that the job names."""
        committed, named = set(self.progress.committed), set(self.manifest.active)
        found = (each for each in self.manifest.partitions() if each.slice in named)
        return [each for each in found if each.index not in committed]

    def due(self, limit: int | None) -> list[Partition]:
        """The partitions with work: all that are missing, or those that lack an outcome of a row below `limit`."""
        if limit is None:
            return self.missing
        return [each for each in self.missing if lacking(self, each, limit)]

    def calls_due(self, limit: int | None) -> int:
        """How many calls have no outcome, of all rows or of those below `limit` in each slice."""
        if limit is None:
            return self.manifest.calls - self.tally.calls
        return sum(lacking(self, each, limit) for each in self.missing)

    @property
    def replaced(self) -> Tally:
        """What no longer counts, since `--retry` reset it, but stays in the bill."""
        return self.directory.reopened().replaced

    @property
    def bill(self) -> Tally:
        """Everything that was paid so far, whether it still counts or not."""
        return tallies.add(self.progress.tally, self.replaced)

    @property
    def is_begun(self) -> bool:
        """Whether outcomes are, or were before a `--retry`, that must not be mixed with another job's."""
        return self.is_complete or self.progress.calls > 0 or self.directory.reopened().rounds > 0

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do: the result is that of the parts, and says so."""
        if not self.is_complete or self.place != "ours" or self.progress.accepted.charges:
            return False
        if self.directory.parts.is_dataset:
            return not self.directory.parts.unlinked()
        return is_published(self)

    @property
    def place(self) -> Place:
        """What stands where the result goes. A folder holds parts, each of which names its run."""
        run_id = (parts.result_metadata(self.result) or {}).get("cometbatch.run_id")
        if self.result.is_dir() or run_id == self.manifest.run_id:
            return "ours"
        stamp = parts.file_stamp(self.result)
        is_updated = run_id is not None and run_id == self.manifest.follows
        return "free" if stamp is None or is_updated or stamp == self.manifest.replaces else "foreign"

    @property
    def has_earlier_result(self) -> bool:
        """Whether a result stands there that was published before a `--retry`, or by the run that this one updates."""
        if not self.result.exists():
            return False
        if self.place == "ours":
            return self.directory.reopened().rounds > 0
        return self.manifest.follows is not None and self.place == "free"

    def looked_at_again(self) -> "Run":
        """The same run, with what is recorded of it by now. Raises `CheckpointError` as `progress.look` does."""
        return msgspec.structs.replace(self, progress=look(self.directory, self.manifest))


def refuse_foreign(run: Run) -> None:
    """Raises `UsageError` where publishing would overwrite a file that this run did not write."""
    if run.place == "foreign":
        raise UsageError(
            f"output.path: {run.result} is not the file that this run wrote, or was to replace. Nothing was "
            "overwritten, and every answer is safe in the run directory: move that file away, then run the same "
            "command again."
        )


def with_manifest(run: Run, manifest: Manifest) -> Run:
    """The same run, after its manifest was replaced on the disk."""
    run.directory.write_manifest(encode_manifest(manifest))
    return msgspec.structs.replace(run, manifest=manifest)


def lacking(run: Run, partition: Partition, limit: int, recorded: Collection[int] | None = None) -> int:
    """How many calls of a partition have no outcome, of rows below the limit.

    `recorded`: the calls of open partitions that have one; those of the run's progress where it is left out.
    """
    found = run.progress.recorded if recorded is None else recorded
    first, rows = run.manifest.first_ordinal(partition), min(partition.row_count, limit - partition.first_row)
    return sum(ordinal not in found for ordinal in range(first, first + rows))


def with_journals(run: Run) -> list[list[int]]:
    """The partitions without a part of which a journal or a kept file may tell, those of a range together."""
    numbers = {file.range for file in run.directory.journals.all()}
    numbers |= {run.manifest.range_of(index) for index in run.directory.reopened().partitions}
    done = frozenset(run.progress.committed)
    found = (partitions_of(run.manifest, number) for number in sorted(numbers))
    return list(filter(None, ([each for each in some if each not in done] for some in found)))


def counted(run: Run, *, is_dead: bool = True) -> Tally:
    """Of the records of the slices that the job names, with the possible charges of all that was ever sent.

    What may have been billed stays in the bill, also where the job no longer names the cell that it was sent for.
    `is_dead`: whether the newest session has ended, so that what it left in flight counts, too.
    """
    found = run.tally
    if run.manifest.has_matrix:
        found = tallies.add(found, tallies.charges_of(tallies.beyond(run.progress.records, found)))
    found = tallies.add(found, run.progress.noted)
    return tallies.add(found, run.progress.charges) if is_dead else found


def find(directory: RunDirectory, result: Path, accept: Collection[str] = ()) -> Run | None:
    """The run that the directory holds, if any; changes nothing.

    `accept`: names of damaged journals whose lost lines a person accepts as charges. Raises `CheckpointError` where it
    is damaged, where its answers are there without its manifest, or where a version that was never released began it.
    """
    content = directory.read_manifest()
    if content is None:
        refuse_unreleased(result)
        if directory.holds_answers():
            raise CheckpointError(
                f"{directory.path}: {MANIFEST} is gone, but answers are here. Nothing was changed. Restore it from "
                f"a copy, or {START_OVER} Where a run with --fresh was cut off, that is the way on."
            )
        return None
    manifest = decode_manifest(content, str(directory.path / MANIFEST))
    try:
        progress = look(directory, manifest, accept)
    except CheckpointError:
        _refuse_moved(directory, manifest)
        raise
    _refuse_moved(directory, manifest)
    return Run(directory, manifest, progress, result)


def _refuse_moved(directory: RunDirectory, manifest: Manifest) -> None:
    if is_moved(directory, manifest.run_id):
        raise CheckpointError(
            f"{directory.path}: just now another process replaces this run by its update. Run the same command again."
        )


def refuse_unreleased(result: Path) -> None:
    """Raises `CheckpointError` where a run of a version before the first release stands beside the result."""
    older = result.with_name(result.name + RUN_SUFFIX)
    if local.content(older / MANIFEST, None) is not None:
        raise CheckpointError(
            f"{older}: a version of cometbatch before the first release began this run, and this version can't go on "
            "with it. Finish it with the version that began it, or begin anew: move that folder away, or run with "
            "--fresh. A result that it has published stays a readable Parquet file."
        )


def directory_of(result: Path, *, is_dataset: bool) -> RunDirectory:
    """Where the run of a result is kept: in its place, or an update in the place beside it."""
    return looked_at(home_of(result, is_dataset=is_dataset))


def home_of(result: Path, *, is_dataset: bool, has_slices: bool = False, fresh: bool = False) -> RunDirectory:
    """The run directory beside a result, whatever is in it.

    `has_slices`: the job has a matrix, so that a data set holds a file for each slice, and not the parts themselves.
    What the run that is there says of that comes first, unless a new one replaces it (`fresh`).
    """
    path = run_beside(result)
    content = local.content(path / MANIFEST, None)
    if content is not None and not fresh:
        has_slices = has_matrix(content)
    if not is_dataset:
        return RunDirectory(path)
    return RunDirectory(path, slices=result) if has_slices else RunDirectory(path, parts=result)


def directory_of_job(job: Job) -> RunDirectory:
    """Where the run of a job is kept: in its place, or an update in the place beside it."""
    return looked_at(home_of_job(job))


def home_of_job(job: Job, *, fresh: bool = False) -> RunDirectory:
    """The run directory of a job, whatever is in it. `fresh`: a new run is to replace what is there."""
    has_slices = job.matrix is not None
    return home_of(job.output.path, is_dataset=job.output.is_dataset, has_slices=has_slices, fresh=fresh)


def directory_at(path: Path) -> tuple[RunDirectory, Path]:
    """The run directory that `path` is, or that stands beside it, and the result, wherever both were moved to.

    Where an update is going on there, it is the update's. A link at its end is followed, as a job does. Raises
    `UsageError` where that leads nowhere, `CheckpointError` where `path` is a run directory of a version before the
    first release.
    """
    try:
        path = linked(absolute(Path(), path))
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{path}: can't be used: {getattr(error, 'strerror', None) or 'a loop of links'}.") from error
    if not path.name:
        raise UsageError(f"{path}: this is the root of the file system. Give a job file, an output or a run directory.")
    is_run = path.name.startswith(RUN_PREFIX) and path.name.endswith(RUN_SUFFIX)
    if path.name.endswith(RUN_SUFFIX) and not is_run:
        refuse_unreleased(path.with_name(path.name.removesuffix(RUN_SUFFIX)))
    result = path.with_name(path.name.removeprefix(RUN_PREFIX).removesuffix(RUN_SUFFIX)) if is_run else path
    return directory_of(result, is_dataset=result.is_dir()), result
