"""`verify`, row by row: each part against the input, the published result, the job's prompts and the frozen prices."""

import functools
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch.commands.row_maker import Maker
from cometbatch.commands.verify_equal import EqualRows
from cometbatch.commands.verify_files import rows_of
from cometbatch.commands.verify_makers import Makers
from cometbatch.commands.verify_report import Findings
from cometbatch.commands.verify_reuse import ReusedChecks
from cometbatch.commands.verify_slices import CHECK
from cometbatch.input.values import row_values
from cometbatch.records import Partition, Tally
from cometbatch.results import columns, parts, row_checks, tallies
from cometbatch.results.answer_columns import AnswerColumns
from cometbatch.results.score_columns import SCORES_KEY, score_columns, scores_of
from cometbatch.results.target_column import target_in, with_target
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.published import lines_of

NOT_IN_COLUMNS: Final = (
    "charges",
    "charges_usd",
    "charges_unknown",
    "charges_in_flight",
    "rejected",
    "rejected_cost_usd",
    "largest_input_above_bytes",
    "at_cap",
)
"""Fields of a part's tally that its rows can't tell."""
OF_ONE_ANSWER: Final = ("largest_output_tokens", "long_inputs")
"""Fields that the rows of a run with several asks can't tell either: their counts are sums."""
NEWER_COLUMNS: Final = frozenset({"cache_write_1h_input_tokens", "cost_excludes"})
NEWER_FIELDS: Final = frozenset(
    {"cache_write_1h_input_tokens", "excluding", "excluded", "contradictory", "long_inputs"}
)
"""Fields of a tally that the programs did not sum up which began runs without the newer columns."""


class RowChecks:
    """Looks at the rows of one run's parts, some in memory at a time.

    `names`: of the output columns. `makers` make each row's request again; None where that can't be done.
    `same_rendering`: whether this
    program renders prompts by the rules that the run was made with, so that the requests can be compared. `answers`:
    makes the columns of answers again, where there are any. `equal`: looks at rows that took an equal row's answer.
    `reused`: looks at answers that were taken from earlier runs.
    """

    def __init__(
        self,
        directory: RunDirectory,
        manifest: Manifest,
        names: Sequence[str],
        published: "PublishedResult",
        findings: Findings,
        *,
        makers: Makers | None,
        same_rendering: bool,
        answers: AnswerColumns | None = None,
        equal: EqualRows | None = None,
        reused: ReusedChecks | None = None,
    ) -> None:
        self._directory = directory
        self._manifest = manifest
        self._lines = lines_of(manifest, names)
        self._slice_columns = frozenset(field.name for field in self._lines.slice_fields)
        self._published = published
        self._makers = makers
        self._findings = findings
        self._same_rendering = same_rendering
        self._answers = answers
        self._equal = equal
        self._reused = reused
        self._prefix = str(manifest.fingerprint.get("output.prefix") or "")
        self._columns = columns.columns_of(names)
        unknown = set(NOT_IN_COLUMNS)
        if not any(column.name == "reported_cost_usd" for column in self._columns):
            unknown |= {name for name in Tally.__struct_fields__ if name.startswith(("reported", "differing"))}
        known = {column.name for column in self._columns}
        if columns.ASKS in known:
            unknown |= set(OF_ONE_ANSWER)
        if not known >= NEWER_COLUMNS:
            unknown |= NEWER_FIELDS
        self._own_target = 0  # of the slice whose part is looked at
        self._no_tally = {name: getattr(Tally(), name) for name in unknown}

    def check_part(self, place: int, partition: Partition, schema: pa.Schema, original: pa.Table | None) -> None:
        """One part. `place`: of its slice in the result. `original`: the input's own rows; None where they are gone.

        Raises `CheckpointError` where a page was damaged after its file was checked.
        """
        path, skipped = self._directory.parts.path(partition.index), partition.slice * self._manifest.input.rows
        self._own_target = target = self._manifest.slices[partition.slice].target
        from_input = _Differences(self._manifest.input.columns)
        from_result = _Differences(self._lines.schema(schema).names)
        totals = _Totals()
        row = partition.first_row
        for written in parts.read_pieces(path):
            piece = with_target(written, self._prefix, self._columns, target)
            if original is not None:
                from_input.add(row, piece, original.slice(row - partition.first_row, piece.num_rows))
            line = self._lines.table(piece, place, range(row, row + piece.num_rows))
            from_result.add(row, line, self._published.take(piece.num_rows))
            self._check_outcomes(path.name, row, piece, totals)
            self._check_answers(path.name, row, piece)
            if self._equal is not None:
                self._equal.add(skipped + row, piece)
            if self._makers is not None:
                self._check_requests(path.name, row, piece, self._makers.of_slice(partition.slice))
            row += piece.num_rows
        self._note_rows(path.name, from_input)
        self._note_result(path.name, partition, from_result)
        self._check_sums(path, partition, totals)

    def _check_outcomes(self, place: str, first_row: int, piece: pa.Table, totals: "_Totals") -> None:
        books = self._manifest.books
        contradicted = False
        for row, cells in enumerate(self._cells(piece), first_row):
            where, contradiction = f"{place}, row {row}", row_checks.contradiction(cells)
            totals.fit = totals.fit and contradiction is None
            contradicted = contradicted or contradiction is not None
            self._findings.add("outcomes", contradiction, where=where)
            target = target_in(cells, self._own_target)
            if not 0 <= target < len(books):
                self._findings.add("outcomes", f"the run has no target {target}", where=where)
            elif cells["cost_usd"] is not None or not self._manifest.priced_late:
                self._findings.add("costs", row_checks.wrong_cost(cells, books[target].rates), where=where)
        if contradicted:
            return
        outcomes = columns.read_outcomes(piece, first_row, self._prefix, self._columns, target=self._own_target)
        if self._reused is not None:
            named = [(f"{place}, row {each.ordinal}", each) for each in columns.answered_in(outcomes)]
            self._reused.check(named)
        if totals.fit:
            totals.tally = tallies.add(totals.tally, tallies.tally(outcomes))

    def _check_answers(self, place: str, first_row: int, piece: pa.Table) -> None:
        """The columns of answers are made again of the text that was kept."""
        if self._answers is None:
            return
        names = list(columns.USED_BY_FURTHER)
        outcomes = piece.select([self._prefix + name for name in names]).rename_columns(names)
        found = piece.select(self._answers.names)
        due = pa.Table.from_arrays(self._answers.cells(outcomes), schema=pa.schema(self._answers.fields))
        for offset, column in row_checks.differences(found, due, self._answers.names):
            self._findings.add(
                "answers", f"{column} is not what response says", where=f"{place}, row {first_row + offset}"
            )

    def _check_requests(self, place: str, first_row: int, piece: pa.Table, makers: Sequence[Sequence[Maker]]) -> None:
        needed = {name for ways in makers for maker in ways for name in maker.columns}
        rows = row_values(piece, [name for name in self._manifest.input.columns if name in needed])
        same_ids = self._same_rendering or _prints_the_same(piece, makers[0][0].id_column)
        for row, (cells, values) in enumerate(zip(self._cells(piece), rows, strict=True), first_row):
            if not 0 <= (target := target_in(cells, self._own_target)) < len(makers):
                continue
            maker, *others = makers[target]
            made, where = maker.make(row, values), f"{place}, row {row}"
            if row_checks.wrong_request(cells, made):
                in_other_ways = (each.make(row, values) for each in others)
                made = next((each for each in in_other_ways if row_checks.wrong_request(cells, each) is None), made)
            if same_ids and columns.CUSTOM_ID in cells:  # else the input's column is that of the ids
                self._findings.add("ids", row_checks.wrong_id(cells, made), where=where)
            if self._same_rendering:
                self._findings.add("requests", row_checks.wrong_request(cells, made), where=where)

    def _cells(self, part: pa.Table) -> Iterator[dict[str, object]]:
        """The output columns of each row, by their names without prefix."""
        names = [column.name for column in self._columns]
        chosen = part.select([self._prefix + name for name in names]).rename_columns(names)
        return row_values(chosen, names)

    def _note_rows(self, place: str, differences: "_Differences") -> None:
        if differences.other_columns:
            self._findings.add("rows", "other columns than the input has", where=place)
        else:
            self._note_cells("rows", place, differences, words="is not the input's")

    def _note_result(self, place: str, partition: Partition, differences: "_Differences") -> None:
        if differences.are_unknown:
            return
        if differences.other_columns:
            self._findings.add("result", "other columns than the parts have", where=self._published.path.name)
        elif differences.lacks_rows:
            check = CHECK if self._slice_columns else "result"
            self._findings.add(check, f"lacks rows of {rows_of(partition)}", where=self._published.path.name)
        else:
            self._note_cells("result", place, differences, words="is not the published result's")

    def _note_cells(self, name: str, place: str, differences: "_Differences", *, words: str) -> None:
        for row, column in differences.cells():
            check = CHECK if name == "result" and column in self._slice_columns else name
            self._findings.add(check, f"{column} {words}", where=f"{place}, row {row}")

    def _check_sums(self, path: Path, partition: Partition, totals: "_Totals") -> None:
        if not totals.fit:
            return
        recorded = parts.read_info(path, self._manifest.run_id, partition.index).tally
        unknown = self._no_tally
        if not recorded.row_costs:  # a version that did not count them wrote this part
            unknown = unknown | {"row_costs": {}, "largest_cost_usd": recorded.largest_cost_usd}
        found = msgspec.structs.replace(totals.tally, **unknown)
        if recorded.incomplete and not recorded.incompletes:  # written before reasons were counted
            found = msgspec.structs.replace(found, incompletes={})
        if found != msgspec.structs.replace(recorded, **unknown):
            self._findings.add("sums", "its rows do not add up to the totals in its footer", where=path.name)


def _prints_the_same(table: pa.Table, column: str | None) -> bool:
    """Whether values of a column are the same text by all rules of rendering."""
    kind = pa.null() if column is None else table.schema.field(column).type
    return any(is_kind(kind) for is_kind in (pa.types.is_null, pa.types.is_string, pa.types.is_integer))


class _Totals(Struct):
    """What a part's rows add up to so far. `fit`: no row contradicts itself; only then is there a tally."""

    fit: bool = True
    tally: Tally = Tally()


class _Differences:
    """In what a part differs from another table: found piece by piece, told column by column."""

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
            for offset, column in row_checks.differences(piece, other, columns):
                self._rows[column].append(first_row + offset)

    def cells(self) -> Iterator[tuple[int, str]]:
        """The row and the column of each cell that differs."""
        for column, rows in self._rows.items():
            yield from ((row, column) for row in rows)


class PublishedResult:
    """The published result, read once, some rows in memory at a time; what is wrong with its files is noted.

    `check_metadata` is called with each file's metadata. `files`: of a result whose parts are elsewhere, in its order.
    """

    def __init__(
        self,
        path: Path,
        findings: Findings,
        check_metadata: Callable[[Path, dict[bytes, bytes]], None],
        files: Sequence[Path] = (),
    ) -> None:
        self.path = path
        self._files = files
        self._findings = findings
        self._check_metadata = check_metadata
        self._row_count: int | None = None  # by its footer; None before the first read, and once it can't be read
        self._pieces = self._read()
        self._held: pa.Table | None = None

    def take(self, count: int) -> pa.Table | None:
        """The next rows, `count` of them, or fewer where the file ends; `None` where they can't be had."""
        while self._held is None or self._held.num_rows < count:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._held = piece if self._held is None else pa.concat_tables([self._held, piece])
        if self._held is None or self._row_count is None:
            return None
        taken, self._held = self._held.slice(0, count), self._held.slice(count)
        return taken

    def skip(self, count: int) -> None:
        """Pass over the next rows, one by one: together they can take much memory."""
        for _ in range(count):
            self.take(1)

    def check_row_count(self, due: int) -> None:
        """Call this after the last partition. It also opens the result of a table without rows."""
        self.take(0)
        rows = self._row_count
        if rows is not None and rows != due:
            self._findings.add("result", f"{rows:,} rows, the run has {due:,}", where=self.path.name)

    def _read(self) -> Iterator[pa.Table]:
        """Its rows in pieces, the first of which has none."""
        if list(self._files) == [self.path] and self.path.is_dir():
            self._findings.skip("the parts themselves are the result", "result")
            return
        path = self.path
        try:
            for path in self._files:
                with (
                    path.open("rb") as raw,  # Arrow opens no file whose name is no UTF-8
                    pq.ParquetFile(raw, pre_buffer=False, buffer_size=parts.READ_BYTES) as file,
                ):
                    said = file.metadata.metadata or {}
                    self._check_metadata(path, said)
                    self._row_count = (self._row_count or 0) + file.metadata.num_rows
                    yield from map(functools.partial(_without_scores, said), parts.pieces(file))
        except (OSError, ValueError, pa.ArrowException) as error:
            self._row_count = None
            self._findings.add("result", f"can't be read ({' '.join(str(error).split())})", where=path.name)


def _without_scores(said: Mapping[bytes, bytes], table: pa.Table) -> pa.Table:
    """Lines of a result without the columns of scores at their end, which another check looks at."""
    scores = scores_of({SCORES_KEY: said.get(SCORES_KEY.encode(), b"[]").decode(errors="replace")})
    names = score_columns(each["name"] for each in scores)
    ends = table.column_names[len(table.column_names) - len(names) :]
    is_there = bool(names) and all(end.endswith(name) for end, name in zip(ends, names, strict=True))
    return table.drop_columns(ends) if is_there else table
