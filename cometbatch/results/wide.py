"""One line for each question: the columns of all its calls side by side, each named after the slice that it is of."""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

from cometbatch.errors import UsageError
from cometbatch.results.columns import CUSTOM_ID
from cometbatch.results.rows import Piece, Rows
from cometbatch.results.slices import ROW, SAMPLE, SliceColumns, words_of

MAX_SLICES: Final = 64  # side by side: beyond, a table has thousands of columns, which no program likes
WINDOW_ROWS: Final = 256  # of the input, that are put together at a time
GAP: Final = ","


def wide(rows: Rows, pieces: Callable[[], Iterable[Piece]], names: Sequence[str]) -> Rows:
    """The rows with one line for each question. `pieces`: those that are wanted, at each call; `names`: their columns.

    The input's columns and the question's name stand once, then `row`, then the other columns of each slice in turn, as
    in `response[model=a,sample=0]`. What a question lacks is null. Without a matrix they are the rows as they are.
    Raises `UsageError` where there are more than `MAX_SLICES` slices.
    """
    if not rows.slices:
        return rows
    if len(rows.slices) > MAX_SLICES:
        raise UsageError(
            f"--shape wide: the result has {len(rows.slices):,} cells and samples, and at most {MAX_SLICES} have room "
            "side by side. Leave it out, for a line for each of them."
        )
    made = _Wide(rows, names)
    return msgspec.structs.replace(
        rows, names=tuple(made.names), columns=(), pieces=lambda: made.pieces(pieces()), others={}, metadata={}
    )


class _Wide:
    """How long lines become wide ones."""

    def __init__(self, rows: Rows, names: Sequence[str]) -> None:
        self._slices = SliceColumns(rows.slices, rows.prefix)
        own, wanted = self._slices.names, set(names)
        first = rows.names.index(own[0])
        once = [*rows.names[:first], rows.prefix + CUSTOM_ID]
        self._row = rows.prefix + ROW
        self._once = [name for name in rows.names if name in once and name in wanted]
        self._each = [name for name in rows.names[first:] if name in wanted and name not in (*own, *once)]
        self._ends = [f"[{_words(rows, place)}]" for place in range(len(rows.slices))]
        self.names = [*self._once, self._row, *(name + end for name in self._each for end in self._ends)]

    def pieces(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The wide lines, some in memory at a time: what is read slice by slice is kept in files until then."""
        with tempfile.TemporaryDirectory(prefix="cometbatch-") as folder, contextlib.ExitStack() as files:
            streams = _Streams(Path(folder), len(self._ends), files)
            kept = [*self._once, self._row, *self._each]
            for piece in pieces:
                for place, table in self._by_slice(piece.table):
                    streams.write(place, table.select(kept))
            yield from self._merged(streams.read())

    def _by_slice(self, table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        places = self._slices.places(table)
        begin = 0
        for at in range(1, len(places) + 1):
            if at == len(places) or places[at] != places[begin]:
                yield places[begin], table.slice(begin, at - begin)
                begin = at

    def _merged(self, streams: Sequence[Iterator[pa.Table]]) -> Iterator[Piece]:
        windows = [_Window(stream, self._row) for stream in streams]
        while begun := [window.first for window in windows if window.first is not None]:
            end = min(begun) + WINDOW_ROWS
            found = [window.until(end) for window in windows]
            numbers = sorted({row for rows, _ in found for row in rows})
            yield Piece(numbers, self._side_by_side(numbers, found))

    def _side_by_side(self, numbers: Sequence[int], found: Sequence[tuple[list[int], pa.Table | None]]) -> pa.Table:
        schema = next(table for _, table in found if table is not None).schema
        whole = [(rows, schema.empty_table() if table is None else table) for rows, table in found]
        places = [dict(zip(rows, range(len(rows)), strict=True)) for rows, _ in whole]
        first = {row: (number, at[row]) for number, at in reversed([*enumerate(places)]) for row in at}
        begins = [0]
        for rows, _ in whole:
            begins.append(begins[-1] + len(rows))
        every = pa.concat_tables([table.select(self._once) for _, table in whole])
        once = every.take(pa.array([begins[first[row][0]] + first[row][1] for row in numbers], pa.int64()))
        taken = [
            table.take(pa.array([at.get(row) for row in numbers], pa.int64()))
            for (_, table), at in zip(whole, places, strict=True)
        ]
        columns = [*once.columns, pa.chunked_array([pa.array(numbers, pa.int64())])]
        columns += [table.column(name) for name in self._each for table in taken]
        fields = [*once.schema, pa.field(self._row, pa.int64())]
        fields += [schema.field(name).with_name(name + end) for name in self._each for end in self._ends]
        return pa.Table.from_arrays(columns, schema=pa.schema(fields))


class _Window:
    """The lines of one slice, ascending by row, taken up to a row at a time."""

    def __init__(self, tables: Iterator[pa.Table], row: str) -> None:
        self._tables, self._row = tables, row
        self._held: pa.Table | None = None
        self._rows: list[int] = []
        self._fill()

    @property
    def first(self) -> int | None:
        """The row of the next line; None at the end."""
        return self._rows[0] if self._rows else None

    def until(self, end: int) -> tuple[list[int], pa.Table | None]:
        """The lines of rows below `end`, and which rows these are."""
        rows: list[int] = []
        tables: list[pa.Table] = []
        while self._held is not None and self._rows and self._rows[0] < end:
            count = sum(row < end for row in self._rows)
            rows += self._rows[:count]
            tables.append(self._held.slice(0, count))
            self._held, self._rows = self._held.slice(count), self._rows[count:]
            if not self._rows:
                self._fill()
        return rows, pa.concat_tables(tables) if tables else None

    def _fill(self) -> None:
        self._held = next(self._tables, None)
        self._rows = [] if self._held is None else self._held.column(self._row).to_pylist()


class _Streams:
    """A file of lines for each slice. `files` closes what is opened."""

    def __init__(self, folder: Path, count: int, files: contextlib.ExitStack) -> None:
        self._paths, self._files = [folder / f"{place}.arrow" for place in range(count)], files
        self._writers: dict[int, tuple[pa.RecordBatchFileWriter, pa.Schema]] = {}

    def write(self, place: int, table: pa.Table) -> None:
        """Add lines to the file of a slice."""
        if place not in self._writers:
            file = self._files.enter_context(self._paths[place].open("wb"))
            self._writers[place] = pa.ipc.new_file(file, table.schema), table.schema
        writer, schema = self._writers[place]
        writer.write_table(table.cast(schema))

    def read(self) -> list[Iterator[pa.Table]]:
        """The lines of each slice, some at a time. Nothing can be added any more."""
        for writer, _ in self._writers.values():
            writer.close()
        self._files.close()
        return [self._of(place) for place in range(len(self._paths))]

    def _of(self, place: int) -> Iterator[pa.Table]:
        if place in self._writers:
            with self._paths[place].open("rb") as raw, pa.ipc.open_file(raw) as file:
                for number in range(file.num_record_batches):
                    yield pa.Table.from_batches([file.get_batch(number)])


def _words(rows: Rows, place: int) -> str:
    """A slice in the name of a column: the axes of the job, and the sample."""
    each, told = rows.slices[place], rows.job_axes
    labels = {name: label for name, label in each.labels.items() if name in told}
    return words_of({**labels, SAMPLE: each.sample}).replace(", ", GAP)
