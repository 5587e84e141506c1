"""`verify`: proves a finished run from its files alone, some rows at a time, and changes none of them.

Guards: each check is named in the report, as ok, failed with its first places, or skipped with the reason. What it
can't see is an answer that was changed in the same way in every file that holds it: nothing here is signed.
"""

import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch.commands.preflight import row_maker, run_directory
from cometbatch.commands.status import find_run, manifest_content
from cometbatch.errors import CheckpointError, InputError, JobError, UsageError
from cometbatch.input import table as source
from cometbatch.input.table import Source
from cometbatch.job import Job
from cometbatch.prompt.template import TemplateError
from cometbatch.records import Partition, Tally
from cometbatch.results import columns as output
from cometbatch.results import parts
from cometbatch.results import row_checks as evidence
from cometbatch.results import tally as tallies
from cometbatch.run_state import manifest as manifests
from cometbatch.run_state import resume
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.partition import RowMaker

PLACES_SHOWN = 5  # of each failed check
NOTHING = Tally()

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
        self._columns = output.columns_of(manifest.columns)
        self._untold = {
            "charges",
            "charges_usd",
            "charges_unknown",
            "charges_in_flight",
            "largest_input_above_bytes",
        }  # of the totals, by the columns
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
        originals = self._originals(opened)
        published = _Published(self._path, self._notes, self._check_metadata)
        for partition in self._partitions:
            schema, original = self._part(partition), next(originals)
            if schema is not None and self._has_columns(schema, partition, opened):
                self._check_part(partition, schema, original, published, maker)
            else:
                published.skip(partition.row_count)
        self._check_row_count(published)

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

    def _part(self, partition: Partition) -> pa.Schema | None:
        """A part's schema, once its footer and its pages are found to be right."""
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

    def _pages(self, path: Path) -> pa.Schema | None:
        try:
            schema = parts.check_part(path)
        except CheckpointError as error:
            self._notes.found("pages", str(error))
            return None
        self._check_metadata(path, schema.metadata or {})
        return schema

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

    # -- the rows --------------------------------------------------------------------------------------------------

    def _has_columns(self, schema: pa.Schema, partition: Partition, opened: Source | None) -> bool:
        """Whether a part's columns are those of the input and of the output, so that they can be looked into."""
        place = self._directory.part_path(partition.index).name
        names = [*self._manifest.input.columns, *(self._prefix + column.name for column in self._columns)]
        if schema.names != names:
            self._notes.found("columns", "other columns, or in another order", where=place)
            return False
        expected = opened.schema if opened is not None else pa.schema(list(schema)[: -len(self._columns)])
        types = output.joined_schema(expected, self._prefix, {}, self._columns).types
        wrong = [name for name, one, two in zip(names, schema.types, types, strict=True) if one != two]
        if wrong:
            self._notes.found("columns", f"of another type: {', '.join(wrong)}", where=place)
        return not wrong

    def _check_part(
        self,
        partition: Partition,
        schema: pa.Schema,
        original: pa.Table | None,
        published: "_Published",
        maker: RowMaker | None,
    ) -> None:
        """A part's rows, some in memory at a time. Raises `CheckpointError` where a page was damaged since `_pages`."""
        from_input, from_result = _Differences(self._manifest.input.columns), _Differences(schema.names)
        totals = _Totals()
        row = partition.first_row
        for piece in parts.read_pieces(self._directory.part_path(partition.index)):
            if original is not None:
                from_input.add(row, piece, original.slice(row - partition.first_row, piece.num_rows))
            from_result.add(row, piece, published.take(piece.num_rows))
            self._check_outcomes(partition.index, row, piece, totals)
            if maker is not None:
                self._check_requests(partition.index, row, piece, maker)
            row += piece.num_rows
        self._note_rows(partition, from_input)
        self._note_result(partition, from_result)
        self._check_sums(partition, totals)

    def _note_rows(self, partition: Partition, differences: "_Differences") -> None:
        if differences.other_columns:
            place = self._directory.part_path(partition.index).name
            self._notes.found("rows", "other columns than the input has", where=place)
        else:
            self._note_cells("rows", partition, differences, words="is not the input's")

    def _note_result(self, partition: Partition, differences: "_Differences") -> None:
        if differences.are_unknown:
            return
        if differences.other_columns:
            self._notes.found("result", "other columns than the parts have", where=self._path.name)
        elif differences.lacks_rows:
            self._notes.found("result", f"lacks rows of {_range(partition)}", where=self._path.name)
        else:
            self._note_cells("result", partition, differences, words="is not the published result's")

    def _note_cells(self, name: str, partition: Partition, differences: "_Differences", *, words: str) -> None:
        for row, column in differences.cells():
            self._notes.found(name, f"{column} {words}", where=self._row(partition.index, row))

    def _check_row_count(self, published: "_Published") -> None:
        """After the last partition; a table of no rows has a result, too, which is opened by now."""
        published.take(0)
        rows, due = published.row_count, self._manifest.input.rows
        if rows is not None and rows != due:
            self._notes.found("result", f"{rows:,} rows, the run has {due:,}", where=self._path.name)

    def _check_outcomes(self, index: int, first_row: int, piece: pa.Table, totals: "_Totals") -> None:
        rates = self._manifest.prices.rates
        for row, cells in enumerate(self._cells(piece), first_row):
            where, contradiction = self._row(index, row), evidence.contradiction(cells)
            totals.fit = totals.fit and contradiction is None
            self._notes.found("outcomes", contradiction, where=where)
            if cells["cost_usd"] is not None or not self._manifest.priced_late:
                self._notes.found("costs", evidence.wrong_cost(cells, rates), where=where)
        if totals.fit:
            outcomes = output.read_outcomes(piece, first_row, self._prefix, self._columns)
            totals.tally = tallies.add(totals.tally, tallies.tally(outcomes))

    def _check_requests(self, index: int, first_row: int, piece: pa.Table, maker: RowMaker) -> None:
        rows = source.rows(piece, maker.columns)
        for row, (cells, values) in enumerate(zip(self._cells(piece), rows, strict=True), first_row):
            made, where = maker.make(row, values), self._row(index, row)
            self._notes.found("ids", evidence.wrong_id(cells, made), where=where)
            self._notes.found("requests", evidence.wrong_request(cells, made), where=where)

    def _check_sums(self, partition: Partition, totals: "_Totals") -> None:
        if not totals.fit:
            return
        path = self._directory.part_path(partition.index)
        told = parts.read_info(path, self._manifest.run_id).tally
        if totals.tally != msgspec.structs.replace(told, **{name: getattr(NOTHING, name) for name in self._untold}):
            self._notes.found("sums", "its rows do not add up to the totals in its footer", where=path.name)

    def _cells(self, part: pa.Table) -> Iterator[dict[str, object]]:
        """The output columns of each row, by their names without prefix."""
        names = [column.name for column in self._columns]
        chosen = part.select([self._prefix + name for name in names]).rename_columns(names)
        return source.rows(chosen, names)

    def _row(self, index: int, row: int) -> str:
        return f"{self._directory.part_path(index).name}, row {row}"


class _Totals(Struct):
    """What a partition's rows come to, so far. `fit`: none of them contradicts itself; only then is there a tally."""

    fit: bool = True
    tally: Tally = Tally()


class _Differences:
    """In what a partition differs from another table: found piece by piece, told column by column."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._rows = {column: array("q") for column in columns}
        self.are_unknown = self.other_columns = self.lacks_rows = False

    def add(self, first_row: int, piece: pa.Table, other: pa.Table | None) -> None:
        """Compare the next rows; `other` is `None` where they can't be had."""
        columns = list(self._rows)
        if other is None:
            self.are_unknown = True
        elif other.column_names != columns or other.schema.types != piece.select(columns).schema.types:
            self.other_columns = True
        elif other.num_rows != piece.num_rows:
            self.lacks_rows = True
        else:
            for offset, column in evidence.differences(piece, other, columns):
                self._rows[column].append(first_row + offset)

    def cells(self) -> Iterator[tuple[int, str]]:
        """The row and the column of each cell that differs."""
        for column, rows in self._rows.items():
            yield from ((row, column) for row in rows)


class _Published:
    """The published result, read once, some rows in memory at a time; what is wrong with the file is noted.

    `row_count`: what its footer says; `None` before the first row was asked for, and from where it can't be read.
    """

    def __init__(self, path: Path, notes: _Notes, check_metadata: Callable[[Path, dict[bytes, bytes]], None]) -> None:
        self.row_count: int | None = None
        self._path = path
        self._notes = notes
        self._check_metadata = check_metadata
        self._pieces = self._read()
        self._held: pa.Table | None = None

    def take(self, count: int) -> pa.Table | None:
        """The next rows, `count` of them, or fewer where the file ends; `None` where they can't be had."""
        while self._held is None or self._held.num_rows < count:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._held = piece if self._held is None else pa.concat_tables([self._held, piece])
        if self._held is None or self.row_count is None:
            return None
        taken, self._held = self._held.slice(0, count), self._held.slice(count)
        return taken

    def skip(self, count: int) -> None:
        """Pass over the next rows, one by one: so many at once may be long."""
        for _ in range(count):
            self.take(1)

    def _read(self) -> Iterator[pa.Table]:
        """Its rows in pieces, the first of which has none."""
        if self._path.is_dir():
            self._notes.skip("the parts themselves are the result", "result")
            return
        try:
            with (
                self._path.open("rb") as raw,  # Arrow opens no file whose name is no UTF-8
                pq.ParquetFile(raw, pre_buffer=False, buffer_size=parts.READ_BYTES) as file,
            ):
                self._check_metadata(self._path, file.metadata.metadata or {})
                self.row_count = file.metadata.num_rows
                yield from parts.pieces(file)
        except (OSError, ValueError, pa.ArrowException) as error:
            self.row_count = None
            self._notes.found("result", f"can't be read ({' '.join(str(error).split())})", where=self._path.name)


def _range(partition: Partition) -> str:
    return f"rows {partition.first_row} to {partition.first_row + partition.row_count - 1}"
