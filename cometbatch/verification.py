"""`verify`: proves a finished run from its files alone, a partition at a time, and changes none of them.

Guards: each check is named in the report, as ok, failed with its first places, or skipped with the reason. What it
can't see is an answer that was changed in the same way in every file that holds it: nothing here is signed.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch import evidence, output, parts, resume, source
from cometbatch import manifest as manifests
from cometbatch.checkpoint import RunDirectory
from cometbatch.errors import CheckpointError, InputError, JobError, UsageError
from cometbatch.job import Job
from cometbatch.manifest import Manifest
from cometbatch.partition import RowMaker
from cometbatch.preflight import row_maker, run_directory
from cometbatch.records import Partition, Tally
from cometbatch.report import find_run, manifest_content
from cometbatch.source import Source
from cometbatch.template import TemplateError

PLACES_SHOWN = 5  # of each failed check
NOTHING = Tally()
BATCH_ROWS = 1024  # of the result in memory at a time, beside a partition

CHECKS = {
    "manifest": "the manifest can be read",
    "job": "the manifest's job is the one whose fingerprint it keeps, and the one asked about",
    "input": "the input is still the file that was read",
    "parts": "every partition has its part, of this run and these rows, and there are no others",
    "pages": "every part can be read whole, each page with its checksum",
    "columns": "the input's columns are followed by the output's, each of its type",
    "metadata": "the files say the same of their run, job and prices as the manifest",
    "rows": "each input row is there once, in order and as it was",
    "ids": "custom_id is the id column",
    "requests": "each answer belongs to the prompt that the job makes of its row",
    "outcomes": "each row's status and columns fit together",
    "costs": "each cost is the row's usage times the frozen prices",
    "sums": "the rows add up to the parts' own totals",
    "result": "the published result is the parts, row for row",
    "leftovers": "no journal and no half-written file is left",
}
"""Every check and what it proves, in the order of the report."""


class Check(Struct, frozen=True):
    """One line of the report. `found` counts what is wrong, `places` are the first of it; `reason`: why skipped."""

    name: str
    promise: str
    state: Literal["ok", "failed", "skipped"]
    found: int = 0
    places: tuple[str, ...] = ()
    reason: str | None = None


class Verification(Struct, frozen=True):
    """What was checked of a finished run. `run_id` and `rows` are `None` where the manifest can't be read."""

    output: Path
    run_id: str | None
    rows: int | None
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing that could be checked is wrong."""
        return not any(check.state == "failed" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "ok": self.ok,
            "run_id": self.run_id,
            "output": str(self.output),
            "rows": self.rows,
            "checks": [{name: getattr(check, name) for name in Check.__struct_fields__} for check in self.checks],
        }

    def describe(self) -> str:
        """A line for each check, then what it comes to."""
        return "\n".join([f"{self.output} ({self._run()})", *self._lines(), self._conclusion()])

    def _run(self) -> str:
        return "no readable manifest" if self.rows is None else f"run {self.run_id}, {self.rows:,} rows"

    def _lines(self) -> Iterator[str]:
        for check in self.checks:
            reason = "" if check.reason is None else f": {check.reason}"
            yield f"  {check.state:8} {check.name:10} {check.promise}{reason}"
            yield from (f"             {place}" for place in check.places)
            if check.found > len(check.places):
                yield f"             and {check.found - len(check.places):,} more"

    def _conclusion(self) -> str:
        states = [check.state for check in self.checks]
        skipped = f"; {states.count('skipped')} could not be checked" if "skipped" in states else ""
        if self.ok:
            return f"everything holds{skipped}"
        return f"{states.count('failed')} of {len(states)} checks failed{skipped}"


class _Notes:
    """What the checks find, as they find it."""

    def __init__(self) -> None:
        self._found = dict.fromkeys(CHECKS, 0)
        self._places: dict[str, list[str]] = {name: [] for name in CHECKS}
        self._reasons: dict[str, str] = {}

    def found(self, name: str, words: str | None, *, where: str = "") -> None:
        """Something is wrong, unless `words` is `None`."""
        if words is None:
            return
        self._found[name] += 1
        if len(self._places[name]) < PLACES_SHOWN:
            self._places[name].append(f"{where}: {words}" if where else words)

    def skip(self, reason: str, *names: str) -> None:
        """These could not be checked; the first reason stands."""
        for name in names:
            self._reasons.setdefault(name, reason)

    def checks(self) -> tuple[Check, ...]:
        return tuple(self._check(name, promise) for name, promise in CHECKS.items())

    def _check(self, name: str, promise: str) -> Check:
        if self._found[name]:
            return Check(name, promise, "failed", self._found[name], tuple(self._places[name]))
        if name in self._reasons:
            return Check(name, promise, "skipped", reason=self._reasons[name])
        return Check(name, promise, "ok")


def verify(job: Job | str | Path) -> Verification:
    """Prove a finished run from its files: a job's, or that of an output or run directory, wherever they were moved.

    Changes nothing and sends nothing. Raises `UsageError` where there is no run, or one that is not finished.
    """
    asked = job if isinstance(job, Job) else None
    directory, path = find_run(job) if not isinstance(job, Job) else (run_directory(job), job.output.path)
    content = manifest_content(directory)
    notes = _Notes()
    try:
        manifest = manifests.decode(content, str(directory.path / "manifest.json"))
        partitions = resume.partitions(manifest)
        directory.reopened()
    except (CheckpointError, ValueError) as error:  # ValueError: partitions of no rows
        notes.found("manifest", str(error))
        notes.skip("the manifest can't be read", *CHECKS)
        return Verification(path, None, None, notes.checks())
    _refuse_unfinished(directory, path, manifest, partitions)
    _Proof(directory, path, manifest, partitions, notes).carry_out(asked)
    return Verification(path, manifest.run_id, manifest.input.rows, notes.checks())


def _refuse_unfinished(directory: RunDirectory, path: Path, manifest: Manifest, partitions: list[Partition]) -> None:
    """A run with gaps is unfinished; but where its result is there and no journal to fill them, a part was lost."""
    missing = {each.index for each in partitions} - set(directory.committed())
    is_published = path.exists() and not directory.reopened().unpublished
    if missing and parts.result_run_id(path) == manifest.run_id and not missing & set(directory.journals()):
        return
    if missing or not is_published:
        done = len(partitions) - len(missing)
        raise UsageError(
            f"{directory.path}: this run is not finished ({done:,} of {len(partitions):,} partitions are done"
            f"{'' if missing else ', the result is not published'}). Run its job to carry on, then verify."
        )


class _Proof:
    """One run's files, checked against each other."""

    def __init__(
        self, directory: RunDirectory, path: Path, manifest: Manifest, partitions: list[Partition], notes: _Notes
    ) -> None:
        self._directory = directory
        self._path = path
        self._manifest = manifest
        self._partitions = partitions
        self._notes = notes
        self._columns = output.columns_of(manifest.version)
        self._untold = {"thrown", "thrown_cost_usd", "thrown_unpriced", "resent"}  # of the totals, by the columns
        if not any(column.name == "reported_cost_usd" for column in self._columns):
            self._untold |= {name for name in Tally.__struct_fields__ if name.startswith(("reported", "differing"))}
        self._prefix = str(manifest.fingerprint.get("output.prefix") or "")
        self._metadata = manifests.metadata(manifest)
        if manifest.priced_late:  # what was written before says that there were none
            self._metadata.pop(manifests.PRICES_KEY)

    def carry_out(self, asked: Job | None) -> None:
        """Every check but the manifest's own."""
        job = self._job(asked)
        maker = None if job is None else self._maker(job)
        opened = self._input(asked or job)
        self._check_strays()
        originals, results = self._originals(opened), self._results()
        for partition in self._partitions:
            part, original, result = self._part(partition), next(originals), next(results)
            if part is not None and self._has_columns(part, partition, opened):
                self._check_rows(partition, part, original)
                self._check_outcomes(partition, part, maker)
                self._check_result(partition, part, result)
        next(results)  # so that it sees the end of the file

    # -- what the run was about ------------------------------------------------------------------------------------

    def _job(self, asked: Job | None) -> Job | None:
        """The job as the manifest describes it."""
        if asked is not None:
            self._check_fingerprint(asked, "the job given")
        try:
            job = Job.from_description(self._manifest.job)
            self._check_fingerprint(job, "the manifest's job")
        except JobError as error:
            self._notes.found("job", str(error), where="manifest.json")
            self._notes.skip("the manifest's job can't be read", "ids", "requests")
            return None
        return job

    def _check_fingerprint(self, job: Job, whose: str) -> None:
        for key, _, _ in manifests.drift(self._manifest, job.fingerprint()):
            self._notes.found("job", f"{key} is not what the run began with", where=whose)

    def _maker(self, job: Job) -> RowMaker | None:
        try:
            template = job.prompt_template()
            template.check(self._manifest.input.columns)
        except TemplateError as error:
            self._notes.found("job", str(error), where="manifest.json")
            self._notes.skip("the manifest's templates can't be used", "ids", "requests")
            return None
        return row_maker(job, template, self._manifest.input.columns)

    def _input(self, job: Job | None) -> Source | None:
        """The input, if it is still there and the same."""
        if job is None or not job.input.path.exists():
            reason = "the input is not known" if job is None else f"{job.input.path} is gone"
            self._notes.skip(reason, "input", "rows")
            return None
        try:
            opened = source.open_source(job.input.path, encoding=job.input.encoding, delimiter=job.input.delimiter)
            if opened.digest() == (self._manifest.input.size, self._manifest.input.sha256):
                return opened
            self._notes.found("input", f"{job.input.path}: its content changed since the run began")
        except InputError as error:
            self._notes.found("input", str(error))
        self._notes.skip("the input is not the one that was read", "rows")
        return None

    # -- the files -------------------------------------------------------------------------------------------------

    def _check_strays(self) -> None:
        """Parts of no partition (a reader of the data set would take them in), and what a killed process left."""
        known = {self._directory.part_path(each.index) for each in self._partitions}
        for path in sorted(set(self._directory.parts.glob("*.parquet")) - known):
            self._notes.found("parts", "this file is no part of the run", where=path.name)
        for index in self._directory.journals():
            self._notes.found("leftovers", "a journal beside its part", where=self._directory.journal_path(index).name)
        for path in self._directory.leftover_files():
            self._notes.found("leftovers", "a half-written file", where=path.name)

    def _part(self, partition: Partition) -> pa.Table | None:
        """A part's content, once its footer is found to be right."""
        path = self._directory.part_path(partition.index)
        if not path.exists():
            self._notes.found("parts", "this part is missing", where=path.name)
            return None
        try:
            info = parts.read_info(path, self._manifest.run_id)
        except CheckpointError as error:
            self._notes.found("parts", str(error))
            return None
        if info.partition != partition:
            self._notes.found("parts", f"these are other rows than {_range(partition)}", where=path.name)
            return None
        return self._pages(path)

    def _pages(self, path: Path) -> pa.Table | None:
        try:
            table = parts.read_part(path)
        except CheckpointError as error:
            self._notes.found("pages", str(error))
            return None
        self._check_metadata(path, table.schema.metadata or {})
        return table

    def _check_metadata(self, path: Path, found: dict[bytes, bytes]) -> None:
        for key, value in self._metadata.items():
            if found.get(key.encode()) != value.encode():
                self._notes.found("metadata", f"{key} is not the manifest's", where=path.name)

    def _originals(self, opened: Source | None) -> Iterator[pa.Table | None]:
        """The input's own rows for each partition; `None` from where they can't be had."""
        if opened is not None:
            try:
                yield from opened.tables(self._manifest.input, self._partitions)
            except InputError as error:
                self._notes.found("rows", str(error))
        yield from itertools.repeat(None)

    def _results(self) -> Iterator[pa.Table | None]:
        """The published rows for each partition; `None` from where they can't be had."""
        if self._path.is_dir():
            self._notes.skip("the parts themselves are the result", "result")
        else:
            try:
                with pq.ParquetFile(self._path, pre_buffer=False) as file:
                    self._check_metadata(self._path, file.metadata.metadata or {})
                    yield from self._cut(file)
            except (OSError, ValueError, pa.ArrowException) as error:
                self._notes.found("result", f"can't be read ({' '.join(str(error).split())})", where=self._path.name)
        yield from itertools.repeat(None)

    def _cut(self, file: pq.ParquetFile) -> Iterator[pa.Table]:
        """A file's rows in partitions."""
        batches = file.iter_batches(batch_size=BATCH_ROWS, use_threads=False)
        held = file.schema_arrow.empty_table()
        for partition in self._partitions:
            while held.num_rows < partition.row_count and (batch := next(batches, None)) is not None:
                held = pa.concat_tables([held, pa.Table.from_batches([batch])])
            yield held.slice(0, partition.row_count)
            held = held.slice(partition.row_count)
        if file.metadata.num_rows != self._manifest.input.rows:
            words = f"{file.metadata.num_rows:,} rows, the run has {self._manifest.input.rows:,}"
            self._notes.found("result", words, where=self._path.name)

    # -- the rows --------------------------------------------------------------------------------------------------

    def _has_columns(self, part: pa.Table, partition: Partition, opened: Source | None) -> bool:
        """Whether a part's columns are those of the input and of the output, so that they can be looked into."""
        place = self._directory.part_path(partition.index).name
        names = [*self._manifest.input.columns, *(self._prefix + column.name for column in self._columns)]
        if part.column_names != names:
            self._notes.found("columns", "other columns, or in another order", where=place)
            return False
        expected = opened.schema if opened is not None else pa.schema(list(part.schema)[: -len(self._columns)])
        types = output.joined_schema(expected, self._prefix, {}, self._columns).types
        wrong = [name for name, one, two in zip(names, part.schema.types, types, strict=True) if one != two]
        if wrong:
            self._notes.found("columns", f"of another type: {', '.join(wrong)}", where=place)
        return not wrong

    def _check_rows(self, partition: Partition, part: pa.Table, original: pa.Table | None) -> None:
        if original is not None:
            self._compare(
                "rows", partition, part, original, columns=self._manifest.input.columns, words="is not the input's"
            )

    def _check_result(self, partition: Partition, part: pa.Table, result: pa.Table | None) -> None:
        if result is None:
            return
        if result.schema.names != part.schema.names or result.schema.types != part.schema.types:
            self._notes.found("result", "other columns than the parts have", where=self._path.name)
        elif result.num_rows == part.num_rows:
            self._compare(
                "result", partition, part, result, columns=part.column_names, words="is not the published result's"
            )
        else:
            self._notes.found("result", f"lacks rows of {_range(partition)}", where=self._path.name)

    def _compare(
        self, name: str, partition: Partition, part: pa.Table, other: pa.Table, *, columns: Sequence[str], words: str
    ) -> None:
        for offset, column in evidence.differences(part, other, columns):
            self._notes.found(name, f"{column} {words}", where=self._row(partition, offset))

    def _check_outcomes(self, partition: Partition, part: pa.Table, maker: RowMaker | None) -> None:
        rates, fits = self._manifest.prices.rates, True
        for offset, cells in enumerate(self._cells(part)):
            where, contradiction = self._row(partition, offset), evidence.contradiction(cells)
            fits = fits and contradiction is None
            self._notes.found("outcomes", contradiction, where=where)
            if cells["cost_usd"] is not None or not self._manifest.priced_late:
                self._notes.found("costs", evidence.wrong_cost(cells, rates), where=where)
        if maker is not None:
            self._check_requests(partition, part, maker)
        if fits:
            self._check_sums(partition, part)

    def _check_requests(self, partition: Partition, part: pa.Table, maker: RowMaker) -> None:
        rows = source.rows(part, maker.columns)
        for offset, (cells, values) in enumerate(zip(self._cells(part), rows, strict=True)):
            made, where = maker.make(partition.first_row + offset, values), self._row(partition, offset)
            self._notes.found("ids", evidence.wrong_id(cells, made), where=where)
            self._notes.found("requests", evidence.wrong_request(cells, made), where=where)

    def _check_sums(self, partition: Partition, part: pa.Table) -> None:
        path = self._directory.part_path(partition.index)
        tally = output.tally(output.read_outcomes(part, partition.first_row, self._prefix, self._columns))
        told = parts.read_info(path, self._manifest.run_id).tally
        if tally != msgspec.structs.replace(told, **{name: getattr(NOTHING, name) for name in self._untold}):
            self._notes.found("sums", "its rows do not add up to the totals in its footer", where=path.name)

    def _cells(self, part: pa.Table) -> Iterator[dict[str, object]]:
        """The output columns of each row, by their names without prefix."""
        names = [column.name for column in self._columns]
        chosen = part.select([self._prefix + name for name in names]).rename_columns(names)
        return source.rows(chosen, names)

    def _row(self, partition: Partition, offset: int) -> str:
        return f"{self._directory.part_path(partition.index).name}, row {partition.first_row + offset}"


def _range(partition: Partition) -> str:
    return f"rows {partition.first_row} to {partition.first_row + partition.row_count - 1}"
