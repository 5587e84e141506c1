"""Rows with their outcome, in the order of the result, some in memory at a time: of a result file, or of a data set.

Those of a run that is not finished come from `run_state.recorded_rows`, in the same pieces.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch.errors import InputError
from cometbatch.records import Outcome
from cometbatch.results import parts
from cometbatch.results.columns import ASKED_COLUMNS, COLUMNS, CUSTOM_ID, LATE_TARGET, Column, read_outcomes
from cometbatch.results.retry_words import RetryWords
from cometbatch.results.score_columns import SCORES_KEY, score_columns, scores_of
from cometbatch.results.slices import ROW, SAMPLE, SLICES_KEY, ResultSlice, decode_slices, slice_names
from cometbatch.results.told import told

SUCCEEDED: Final = "succeeded"
JOB_KEY: Final = "cometbatch.job"
"""Metadata: what the job of a result says."""
_TOLD_BY: Final = (
    "request_hash", "status", "response", "custom_id", "finish_reason", "error_kind", "error_message", "http_status",
    "request_id", "attempts", "latency_s", "finished_at",
)  # fmt: skip
"""Columns that every result has: they tell which columns are the output's, and what stands before their names."""


class Piece(Struct, frozen=True):
    """Some rows. `ordinals`: of their calls. `table`: their input columns, then the output's."""

    ordinals: Sequence[int]
    table: pa.Table

    def only(self, places: Sequence[int]) -> "Piece":
        """The rows at these places."""
        return Piece([self.ordinals[at] for at in places], self.table.take(pa.array(places, pa.int64())))


def gathered(pieces: Iterator[Piece], rows: int, size: int) -> Iterator[Piece]:
    """The same rows in fewer pieces, each of about this number of rows or bytes in memory, whichever comes first.

    Pieces with different schemas are not put together; a piece that is larger comes as it is.
    """
    for _, similar in itertools.groupby(pieces, key=lambda piece: piece.table.schema):
        some: list[Piece] = []
        count = taken = 0
        for piece in similar:
            some.append(piece)
            count += piece.table.num_rows
            taken += piece.table.nbytes
            if count >= rows or taken >= size:
                yield _joined(some)
                some, count, taken = [], 0, 0
        if some:
            yield _joined(some)


def _joined(pieces: Sequence[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    ordinals = list(itertools.chain.from_iterable(piece.ordinals for piece in pieces))
    return Piece(ordinals, pa.concat_tables(piece.table for piece in pieces))


class Rows(Struct, frozen=True):
    """The rows of a run that have an outcome.

    `names`: of all columns, in order. `prefix`: what stands before the names of `columns`, the output's. `pieces`: the
    rows, from the first, at each call. `notes`: sentences for a person on what is missing. `files`: that hold the
    result and the input, and that nobody who reads rows may overwrite. `others`: types of columns that are not the
    output's, as far as they are known where no row is. `metadata`: what the result says of itself, or will say.
    `lacks_input`: the input can't be read, so that its columns are null in rows that have no part yet.
    """

    names: tuple[str, ...]
    prefix: str
    columns: tuple[Column, ...]
    pieces: Callable[[], Iterator[Piece]]
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    others: Mapping[str, pa.DataType] = MappingProxyType({})
    metadata: Mapping[str, str] = MappingProxyType({})
    lacks_input: bool = False

    @property
    def slices(self) -> tuple[ResultSlice, ...]:
        """The slices of the result, in its order; none without a matrix."""
        return decode_slices(self.metadata.get(SLICES_KEY, "")) or ()

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the input's columns, which stand before all others."""
        own = {self.prefix + column.name for column in self.columns}
        own |= {self.prefix + name for name in slice_names(self.axes)} if self.slices else set()
        return tuple(itertools.takewhile(lambda name: name not in own, self.names))

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the columns of axes, without prefix; none without a matrix."""
        return tuple(dict.fromkeys(name for each in self.slices for name in each.labels))

    @property
    def job_axes(self) -> frozenset[str]:
        """The columns, without prefix, of the axes that the job has; `model` and `format` may not be among them."""
        try:
            axes = told(self.metadata.get(JOB_KEY))["matrix"]["axes"]
            return frozenset(str(axis["column"]) for axis in axes)
        except (KeyError, TypeError):
            return frozenset(self.axes)

    @property
    def told_by(self) -> tuple[str, ...]:
        """The columns, without prefix, that tell slices from each other: of axes with several labels, and `sample`."""
        varied = [name for name in self.axes if len({repr(each.labels.get(name)) for each in self.slices}) > 1]
        return (*varied, *([SAMPLE] if any(each.sample for each in self.slices) else []))

    def row_numbers(self, piece: Piece) -> Sequence[int]:
        """Which row of the input each of these lines is of."""
        if not self.slices:
            return piece.ordinals
        numbers: list[int] = piece.table.column(self.prefix + ROW).to_pylist()
        return numbers

    def matching(self, words: RetryWords) -> Iterator[Piece]:
        """The rows of these kinds; without words, all of them. `succeeded` is a kind, too."""
        for piece in self.pieces():
            if not words.words:
                yield piece
            elif found := self._matching(piece, words):
                yield piece.only(found)

    def _matching(self, piece: Piece, words: RetryWords) -> list[int]:
        """Only what has not succeeded becomes an outcome: that takes long, and there are few."""
        statuses = piece.table.column(f"{self.prefix}status").to_pylist()
        others = [at for at, status in enumerate(statuses) if status != SUCCEEDED]
        outcomes = self.outcomes(piece.only(others))
        found = {at for at, outcome in zip(others, outcomes, strict=True) if words.match(outcome)}
        if SUCCEEDED in words.words:
            found.update(set(range(len(statuses))).difference(others))
        return sorted(found)

    def outcomes(self, piece: Piece) -> list[Outcome]:
        """The outcomes of these rows, as far as columns tell them, each with the ordinal of its call."""
        found = read_outcomes(piece.table, 0, self.prefix, self.columns)
        pairs = zip(piece.ordinals, found, strict=True)
        return [msgspec.structs.replace(outcome, ordinal=ordinal) for ordinal, outcome in pairs]

    def table(self) -> pa.Table:
        """All of these rows, in memory; where there are none, all columns, nulls where a type is not known."""
        if tables := [piece.table for piece in self.pieces()]:
            return pa.concat_tables(tables, promote_options="default")  # without the input some of its cells are null
        return self.empty()

    def empty(self) -> pa.Table:
        """All columns, and no row; of nulls where a type is not known."""
        types = {self.prefix + column.name: column.type for column in self.columns} | dict(self.others)
        return pa.schema([(name, types.get(name, pa.null())) for name in self.names]).empty_table()

    def output(self) -> pa.Table:
        """The output columns of all of these rows, and those of answers."""
        table = self.table()
        first = table.schema.get_field_index(self.prefix + "status")
        is_named = first > 0 and table.column_names[first - 1] == self.prefix + CUSTOM_ID
        has_names = any(column.name == CUSTOM_ID for column in self.columns)
        return table.select(range(first - (is_named and has_names), table.num_columns))


def rows_of_files(files: Sequence[Path], where: Path) -> Rows:
    """The rows of a result, in one file or in the parts of a data set; `where`: the name of all of it.

    Raises `InputError` where that is no result, or can't be read.
    """
    if not files:
        raise InputError(f"{where}: there is no Parquet file here, so no result of cometbatch.")
    with _reading(files[0]) as file:
        file_schema, said = file.schema_arrow, file.metadata.metadata or {}
    found = output_of(file_schema)
    if found is None:
        raise InputError(
            f"{where}: this is no result of cometbatch, which would have the columns {', '.join(_TOLD_BY)}."
        )
    return Rows(
        tuple(file_schema.names),
        *found,
        lambda: _pieces(files),
        (),
        tuple(files),
        {field.name: field.type for field in file_schema},
        {key.decode(errors="replace"): value.decode(errors="replace") for key, value in said.items()},
    )


def with_scores(rows: Rows, path: Path) -> Rows:
    """The rows of a data set with the scores from the file beside it, whose lines are in the same order.

    Reading raises `InputError` where that can't be read.
    """
    with _reading(path) as file:
        schema, said = file.schema_arrow, file.metadata.metadata or {}
    metadata = dict(rows.metadata) | {SCORES_KEY: said.get(SCORES_KEY.encode(), b"[]").decode(errors="replace")}
    names = score_columns((each["name"] for each in scores_of(metadata)), rows.prefix)

    def pieces() -> Iterator[Piece]:
        held = schema.empty_table().select(names)
        beside = _pieces([path])
        for piece in rows.pieces():
            while held.num_rows < piece.table.num_rows and (found := next(beside, None)) is not None:
                held = pa.concat_tables([held, found.table.select(names)])
            table, count = piece.table, piece.table.num_rows
            for name in names:
                table = table.append_column(held.schema.field(name), held.column(name).slice(0, count))
            held = held.slice(count)
            yield Piece(piece.ordinals, table)

    others = dict(rows.others) | {name: schema.field(name).type for name in names}
    return msgspec.structs.replace(
        rows, names=(*rows.names, *names), pieces=pieces, others=others, metadata=metadata, files=(*rows.files, path)
    )


def output_of(schema: pa.Schema) -> tuple[str, tuple[Column, ...]] | None:
    """The output's columns in a table, and what stands before their names; None where it is no result."""
    prefix = _prefix(schema.names)
    return None if prefix is None else (prefix, tuple(_output_columns(schema, prefix)))


def _output_columns(schema: pa.Schema, prefix: str) -> Iterator[Column]:
    """The output's columns: those that every result has, and of the others those that follow at once, in their order.

    A column of the input may be called like one of the others, and so may one that a schema gives.
    """
    yield from (column for column in COLUMNS if prefix + column.name in schema.names)
    place = max(schema.get_field_index(prefix + name) for name in _TOLD_BY) + 1
    for column in (*ASKED_COLUMNS, LATE_TARGET):
        following = schema.field(place) if place < len(schema) else None
        if following is not None and following.name == prefix + column.name and following.type == column.type:
            place += 1
            yield column


def data_set_files(folder: Path) -> list[Path]:
    """The files of a data set, in the order of their rows. Raises `InputError` where the folder can't be read."""
    try:
        found = [path for path in folder.iterdir() if path.suffix == ".parquet" and path.name[0] not in "._"]
    except OSError as error:
        raise InputError(f"{folder}: can't be read ({error.strerror}).") from error
    return sorted(found, key=lambda path: (path.name.find("-"), len(path.stem.split("-")[0]), path.name))


def _prefix(names: Sequence[str]) -> str | None:
    """What stands before the output's names; of a table that went through several runs, the last one's."""
    last, *others = _TOLD_BY  # of them, one that no other table is likely to have
    ends = [name.removesuffix(last) for name in names if name.endswith(last)]
    whole = [prefix for prefix in ends if all(prefix + name in names for name in others)]
    return whole[-1] if whole else None


def _pieces(files: Sequence[Path]) -> Iterator[Piece]:
    ordinal = 0
    for path in files:
        with _reading(path) as file:
            for table in parts.pieces(file):
                if table.num_rows:
                    yield Piece(range(ordinal, ordinal + table.num_rows), table)
                ordinal += table.num_rows


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    options = {"pre_buffer": False, "page_checksum_verification": True}
    try:
        with path.open("rb") as raw, pq.ParquetFile(raw, buffer_size=parts.READ_BYTES, **options) as file:
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise InputError(f"{path}: this can't be read as a result ({words}).") from error
