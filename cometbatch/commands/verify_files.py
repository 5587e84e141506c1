"""`verify`, of each file as a whole: which files there are, whose they are, whether they can be read."""

import contextlib
import functools
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa

from cometbatch.commands.verify_report import Findings
from cometbatch.errors import CheckpointError, JobError
from cometbatch.input.file_set import AnySource
from cometbatch.job import Job
from cometbatch.records import Partition, PriceBook
from cometbatch.results import columns, parts
from cometbatch.results.answer_columns import AnswerColumns
from cometbatch.results.rows import JOB_KEY
from cometbatch.results.target_column import with_target
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import PRICES_KEY, PROGRAM_KEYS, Manifest, metadata_of, partitions_of
from cometbatch.run_state.published import result_partitions
from cometbatch.run_state.sessions import Session
from cometbatch.run_state.strays import names_of_strays


class FileChecks:
    """Looks at the files of one run, each by its footer, its metadata and its pages. `names`: of the output columns."""

    def __init__(
        self,
        directory: RunDirectory,
        manifest: Manifest,
        names: Sequence[str],
        findings: Findings,
        answers: AnswerColumns | None = None,
    ) -> None:
        self._directory = directory
        self._manifest = manifest
        self._findings = findings
        self._prefix = str(manifest.fingerprint.get("output.prefix") or "")
        self._columns = columns.columns_of(names)
        self._answers = answers
        self._metadata = metadata_of(manifest)
        self._cells: dict[bytes, tuple[set[str], int]] = {}  # digests and samples, by the description of a job
        if manifest.priced_late:  # files written before say that there were no prices
            self._metadata.pop(PRICES_KEY)

    def check_strays(self, partitions: list[Partition]) -> None:
        """Parts of no partition, which a reader of the data set would take in, and what a killed process left."""
        files, known = self._directory.parts, {each.index for each in partitions}
        done = known - self._unfinished(partitions)
        ours = {path for index, path in files.all() if index in known}
        found = [*files.within.glob("*.part"), *(files.folder.glob("*.parquet") if files.is_dataset else ())]
        for path in sorted(set(found) - ours):
            self._findings.add("parts", "this file is no part of the run", where=path.name)
        for index in files.unlinked():
            where = files.published(index).name
            self._findings.add("parts", "this is not the part that a worker made; run the job again", where=where)
        last = self._directory.last_session()
        strays = self._strays(last, done)
        for path in self._directory.leftovers(done, last, functools.partial(partitions_of, self._manifest)):
            if path.name not in strays:
                self._findings.add("leftovers", "left by a process that was killed", where=path.name)

    def check_notes(self) -> None:
        """What workers noted of their parts, which `status` and `run` read first, is what the parts say."""
        directory, run_id = self._directory, self._manifest.run_id
        sizes, round_of = directory.parts.sizes(), directory.reopened().number_of
        for note in directory.owners.parts(run_id):
            if sizes.get(note.index, ("", -1))[1] != note.size or note.round != round_of(note.index):
                continue  # it counts for nothing
            path = directory.parts.path(note.index)
            with contextlib.suppress(CheckpointError):  # told of with the part
                if parts.read_info(path, run_id, note.index).tally != note.tally:
                    self._findings.add("sums", "its worker noted another total", where=path.name)

    def _strays(self, last: Session | None, done: Collection[int]) -> set[str]:
        """Journals of workers that count although each partition has its part; a damaged part is told of later."""
        try:
            return names_of_strays(self._directory, self._manifest, last, done)
        except CheckpointError:
            return {file.name for file in self._directory.journals.all() if file.worker}

    def unnamed(self, partitions: Iterable[Partition], named: Iterable[Partition]) -> list[Partition]:
        """The partitions with a part, of slices that the job no longer names: their answers stay for when it does."""
        ours = {each.index for each in named}
        return [
            each for each in partitions if each.index not in ours and self._directory.parts.path(each.index).exists()
        ]

    def _unfinished(self, partitions: Iterable[Partition]) -> set[int]:
        """The partitions without a part, of slices that the job no longer names: what is recorded of them stays."""
        named = {each.index for _, each in result_partitions(self._manifest)}
        others = (each.index for each in partitions if each.index not in named)
        return {index for index in others if not self._directory.parts.path(index).exists()}

    def check_part(self, partition: Partition, opened: AnySource | None) -> pa.Schema | None:
        """A part's schema; None where the part can't be read, or where its columns are not those of the run."""
        path = self._directory.parts.path(partition.index)
        if not path.exists():
            self._findings.add("parts", "this part is missing", where=path.name)
            return None
        try:
            info = parts.read_info(path, self._manifest.run_id, partition.index)
        except CheckpointError as error:
            self._findings.add("parts", str(error))
            return None
        if info.partition != partition:
            self._findings.add("parts", f"these are other rows than {rows_of(partition)}", where=path.name)
            return None
        try:
            schema = parts.check_part(path)
        except CheckpointError as error:
            self._findings.add("pages", str(error))
            return None
        self.check_metadata(path, schema.metadata or {}, partition.slice)
        return schema if self._has_columns(schema, path, opened) else None

    def check_metadata(self, path: Path, found: dict[bytes, bytes], of_slice: int | None = None) -> None:
        """A file's metadata name the run, the job and the prices of the manifest.

        `of_slice`: of a part, whose job may have had other cells and samples then, but had this one.
        """
        for key, value in self._metadata.items():
            said = found.get(key.encode())
            is_older = said is None and key in PROGRAM_KEYS
            if key == JOB_KEY and of_slice is not None and self._manifest.has_matrix:
                is_older = self._named(of_slice, said or b"")
            if said != value.encode() and not is_older and not (key == PRICES_KEY and self._are_its_prices(said)):
                self._findings.add("metadata", f"{key} is not the manifest's", where=path.name)

    def _named(self, of_slice: int, job: bytes) -> bool:
        """Whether a job, as the metadata of a part describe it, named the part's slice."""
        if job not in self._cells:
            try:
                described = Job.from_description(msgspec.json.decode(job))
                self._cells[job] = {cell.digest for cell in described.cells()}, described.samples
            except (JobError, msgspec.MsgspecError):
                self._cells[job] = set(), 0
        digests, samples = self._cells[job]
        each = self._manifest.slices[of_slice]
        return each.cell in digests and each.sample < samples

    def _are_its_prices(self, said: bytes | None) -> bool:
        """Whether a file names the run's prices in the words of another version, which may know fewer of them."""
        try:
            return said is not None and msgspec.json.decode(said, type=PriceBook) == self._manifest.prices
        except msgspec.MsgspecError:
            return False

    def _has_columns(self, found: pa.Schema, path: Path, opened: AnySource | None) -> bool:
        # A part that is to be merged may be older than the column of targets.
        is_merged = not self._directory.parts.is_dataset
        schema = with_target(found.empty_table(), self._prefix, self._columns).schema if is_merged else found
        names = [*self._manifest.input.columns, *(self._prefix + column.name for column in self._columns)]
        if self._answers is not None:
            names += self._answers.names
        elif self._manifest.targets[0].target.response.schema is not None:  # what it gives can't be told here
            return list(schema.names)[: len(names)] == names
        if schema.names != names:
            self._findings.add("columns", "other columns, or in another order", where=path.name)
            return False
        expected = opened.schema if opened is not None else pa.schema(list(schema)[: len(self._manifest.input.columns)])
        types = columns.joined_schema(expected, self._prefix, {}, self._columns, self._answers).types
        wrong = [name for name, one, two in zip(names, schema.types, types, strict=True) if one != two]
        if wrong:
            self._findings.add("columns", f"of another type: {', '.join(wrong)}", where=path.name)
        return not wrong


def rows_of(partition: Partition) -> str:
    """The rows of a partition, in words."""
    return f"rows {partition.first_row} to {partition.first_row + partition.row_count - 1}"
