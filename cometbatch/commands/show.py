"""`show`: the answers of a run on the terminal, also while it goes on. Only reads, and takes no lock."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from cometbatch.commands.open_rows import chosen_kinds, chosen_names, open_rows
from cometbatch.commands.tables import JobSource
from cometbatch.errors import UsageError
from cometbatch.input.values import python_values
from cometbatch.results.export import cell_text, values
from cometbatch.results.retry_words import RetryWords
from cometbatch.results.rows import Piece, Rows
from cometbatch.results.summary_words import count
from cometbatch.results.terminal import columns as columns_of
from cometbatch.results.terminal import cut, fitting, visible

ROWS: Final = 10
MEASURED_ROWS: Final = 100  # from which the columns get their widths; further rows are cut to them
LEAST_WIDTH: Final = 8  # columns of the terminal that a cell gets at least, if it needs them
BETWEEN: Final = "  "
ANSWER: Final = "answer"
"""The name over what stands for a row where nobody chose columns: its answer, or why there is none."""


Row: TypeAlias = tuple[int, list[str | None]]
"""The number of a row of the input, and its cells: of a matrix, those of one of its calls."""


class Shown(Struct):
    """Rows to be shown to a person. `limit`: how many at most; `width`: columns of the terminal, None where it is none.

    `names`: the columns that were chosen; None for a few of our own choice. `full`: one row below the other. `notes`:
    sentences on what is missing, all of them once the lines have been read.
    """

    rows: Rows
    names: tuple[str, ...] | None
    kinds: RetryWords
    limit: int
    full: bool
    width: int | None
    notes: list[str]

    def lines(self) -> Iterator[str]:
        """The lines, without line ends, in which no character of a cell is hidden or does anything.

        Raises `CheckpointError` or `InputError` where a file can't be read.
        """
        found = self._found()
        first = list(itertools.islice(found, min(self.limit, MEASURED_ROWS)))
        if not first:
            yield f"no row{' of this kind' if self.kinds.words else ''} has an outcome"
            return
        rows = itertools.chain(first, itertools.islice(found, self.limit - len(first)))
        if self.full:
            yield from _one_by_one(self._headings, rows)
        else:
            used = [at for at in range(len(self._headings)) if self.names or any(cells[at] for _, cells in first)]
            head = ["row", *(self._headings[at] for at in used)]
            lines = ([str(ordinal), *(cells[at] or "" for at in used)] for ordinal, cells in rows)
            yield from _tabbed(head, lines) if self.width is None else self._table(head, lines, len(first), self.width)
        if next(found, None) is not None:
            whole = "" if self.full else ", and --full whole cells"
            self.notes.append(f"there are more rows; -n {10 * self.limit} shows more of them{whole}")

    def _table(self, head: Sequence[str], lines: Iterator[Sequence[str]], measured: int, width: int) -> Iterator[str]:
        """Cells cut to their share of the width, which the first lines decide."""
        room = max(1, width - 1)  # some terminals begin a new line after the last column
        first = [head, *itertools.islice(lines, measured)]
        wanted = [max(columns_of(cut(line[at], room)) for line in first) for at in range(len(head))]
        sizes = fitting(wanted, room, LEAST_WIDTH, len(BETWEEN))
        for line in itertools.chain(first, lines):
            cells = [cut(cell, size) for cell, size in zip(line, sizes, strict=False)]
            padded = [cell + " " * (size - columns_of(cell)) for cell, size in zip(cells, sizes, strict=True)]
            yield BETWEEN.join(padded).rstrip()
        if left_out := head[len(sizes) :]:
            self.notes.append(f"there was no room for {count(len(left_out), 'column')}: {', '.join(left_out)}")

    def _found(self) -> Iterator[Row]:
        for piece in self.rows.matching(self.kinds):
            columns = self._usual(piece) if self._is_usual else [_texts(piece, name) for name in self._headings]
            for at, row in enumerate(self.rows.row_numbers(piece)):
                yield row, [column[at] for column in columns]

    @property
    def _is_usual(self) -> bool:
        return self.names is None and not self.full

    @property
    def _headings(self) -> tuple[str, ...]:
        if self._is_usual:
            return (*self.rows.told_by, "custom_id", "status", ANSWER)
        return self.names or self.rows.names

    def _usual(self, piece: Piece) -> list[list[str | None]]:
        names = ("custom_id", "status", "response", "error_kind", "error_message")
        ids, statuses, answers, kinds, messages = (_texts(piece, self.rows.prefix + name) for name in names)
        reasons = [": ".join(filter(None, words)) for words in zip(kinds, messages, strict=True)]
        told = [_texts(piece, self.rows.prefix + name) for name in self.rows.told_by]
        return [*told, ids, statuses, [answer or reason for answer, reason in zip(answers, reasons, strict=True)]]


def _texts(piece: Piece, name: str) -> list[str | None]:
    """The cells of a column as a person reads them."""
    if "binary" not in str(piece.table.schema.field(name).type):
        return [cell_text(value) for value in values(piece.table, name)]
    return [cell_text(_without_bytes(cell)) for cell in python_values(piece.table.column(name))]


def _without_bytes(value: object) -> object:
    """The value with the number of its bytes for binary data that is no text, at every depth: an image is no sight."""
    match value:
        case bytes():
            return f"<{len(value):,} bytes>"
        case dict():
            return {name: _without_bytes(item) for name, item in value.items()}
        case list() | tuple():
            return [_without_bytes(item) for item in value]
    return value


def _one_by_one(names: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """Each row with all of its cells whole, but for nulls. What belongs to a cell never begins a line."""
    for ordinal, cells in rows:
        yield f"row {ordinal}:"
        for name, cell in zip(names, cells, strict=True):
            if cell is not None:
                first, *others = visible(cell.replace("\r\n", "\n")).split("\n")
                yield f"  {cut(name, math.inf)}: {first}"
                yield from (f"    {line}" for line in others)


def _tabbed(head: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    """Whole cells with tabs between, for who reads no terminal: no cell has a tab or a line break of its own."""
    return ("\t".join(cut(cell, math.inf) for cell in line) for line in itertools.chain([head], lines))


def show(
    target: JobSource,
    overrides: Sequence[str] = (),
    *,
    where: str | Iterable[str] = (),
    columns: Iterable[str] = (),
    limit: int = ROWS,
    full: bool = False,
    width: int | None = None,
) -> Shown:
    """The first rows with an outcome of a run, finished or not: of a job, a job file, its output or a run directory.

    `where`: only rows of these kinds: `succeeded`, `failed`, `incomplete`, an error kind or a finish reason. `columns`:
    these columns instead of id, status and answer. `limit`: how many rows at most. `full`: whole cells, one row at a
    time. `width`: columns of the terminal; without one, cells are whole and have tabs between them. Changes and sends
    nothing. Raises `UsageError` where there is nothing to show, `CheckpointError` where a file of the run is damaged.
    """
    if limit < 1:
        raise UsageError(f"-n: {limit} is no number of rows; write a whole number from 1.")
    kinds, wanted = chosen_kinds(where), tuple(columns)
    rows = open_rows(target, overrides)
    return Shown(rows, chosen_names(rows, wanted) if wanted else None, kinds, limit, full, width, list(rows.notes))
