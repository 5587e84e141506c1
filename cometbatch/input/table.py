"""The input table: CSV, TSV, JSON Lines or Parquet in, the same rows in the same order out, however often it is read.

Guards: same ordinal, same row; memory does not grow with the input; what can't be read is refused by `open_source` or
`Source.check`, before the first request, as an `InputError` that names file, line, column, reason and what to do.

A further kind of file is a further `Layout`, chosen in `open_source` by the file's ending.
"""

import io
import pathlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import NoReturn, Protocol

import msgspec
import pyarrow as pa
from msgspec import Struct

from cometbatch.errors import InputError
from cometbatch.input import files
from cometbatch.input.csv import open_csv
from cometbatch.input.files import Content, Identity, Measured, OpenFile, refuse
from cometbatch.input.jsonl import open_jsonl
from cometbatch.input.parquet import open_parquet
from cometbatch.records import Partition

# pyarrow would catch Ctrl-C during a read in the main thread and report it as a damaged file, or lose it.
pa.enable_signal_handlers(False)

DELIMITERS = {".csv": ",", ".tsv": "\t"}
PARQUET_KIND, JSONL_KIND = ".parquet", ".jsonl"


class Feed(Protocol):
    """Batches in file order."""

    def next_batch(self, wanted: int) -> tuple[int, pa.RecordBatch] | None:
        """The next batch with the ordinal of its first row; None at the end.

        Batches that lie wholly before row `wanted` may be left out.
        """


class Layout(Protocol):
    """A kind of file whose columns are known, and how its rows are counted, checked and read.

    Its methods get the file open and at its start. They raise `InputError`, or errors of the system and of pyarrow,
    where a row can't be read.
    """

    @property
    def schema(self) -> pa.Schema:
        """The columns, with the types in which `feed` delivers them."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what is readable but surely not meant."""

    @property
    def hint(self) -> str:
        """A sentence for whoever misses a column: why the header may be read otherwise than meant; "" for no reason."""

    def measure(self, raw: io.BufferedReader) -> Measured:
        """Read the whole file once: after this, every row is known to be readable."""

    def feed(self, raw: io.BufferedReader, identity: Identity) -> AbstractContextManager[Feed]:
        """The rows in batches of a few MiB, or of one longer row."""


class Source(Struct, frozen=True):
    """An input table whose header (or footer) has been read, and nothing more.

    Every CSV column is text; Parquet columns are of the types that the file says. `content`: what the file was found to
    hold when it was last read as a whole.
    """

    path: pathlib.Path
    layout: Layout
    content: Content = msgspec.field(default_factory=Content)

    @property
    def schema(self) -> pa.Schema:
        """The columns with their types, in the file's order."""
        return self.layout.schema

    @property
    def columns(self) -> tuple[str, ...]:
        """The column names, in the file's order; no two are the same."""
        return tuple(self.schema.names)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what is readable but surely not meant."""
        return self.layout.warnings

    @property
    def hint(self) -> str:
        """A sentence for whoever misses a column; "" for none."""
        return self.layout.hint

    def changes(self, was: Identity) -> list[str]:
        """What became of the files of an input in several; of one file there is nothing to list."""
        return [f"{each.name} is gone" for each in was.files]

    def check(self) -> Identity:
        """Read the whole input once: after this, every row is known to be readable.

        Raises `InputError` at the first row that is not.
        """
        with files.refusing(self.path), files.opened(self.path) as file:
            stamp = file.stamp()
            try:
                found = self.layout.measure(file.raw)
            except (InputError, OSError, pa.ArrowException):
                if file.stamp() != stamp:  # half of one table and half of another can't be read
                    raise files.changed(self.path) from None
                raise
            self.content.note(found.sha256, stamp)
            self.content.refuse_other(file, found.size, found.sha256)
        name = files.shown(self.path.name)
        return Identity(name, found.size, found.sha256, found.rows, self.columns, found.decoded_size)

    def digest(self) -> tuple[int, str]:
        """Size in bytes and SHA-256 (hex) of the file as it is now: a cheap check that it is still the same.

        Raises `InputError` where the file can't be read.
        """
        with files.refusing(self.path), files.opened(self.path) as file:
            stamp = file.stamp()
            size, sha256 = files.digest(file.raw)
            self.content.note(sha256, stamp)
            return size, sha256

    def begins_with(self, size: int, sha256: str) -> bool:
        """Whether the file's first `size` bytes have this SHA-256 (hex). Raises `InputError` where it can't be read."""
        with files.refusing(self.path), files.opened(self.path) as file:
            return file.content(size) == (size, sha256)

    def tables(self, identity: Identity, partitions: Iterable[Partition]) -> Iterator[pa.Table]:
        """One table for each partition, with exactly its rows; partitions come ascending and don't overlap.

        Holds a partition and a piece of the file (1 MiB of CSV, 8 MiB of Parquet rows, or one longer row) at a time.
        Partitions are asked for one by one, as the tables are.
        Raises `InputError` where the file is not, or is no longer, what `identity` says.
        """
        with files.opened(self.path) as file:
            self.content.refuse_other(file, identity.size, identity.sha256)
            with self.layout.feed(file.raw, identity) as feed:
                cursor = _Cursor(feed)
                for partition in partitions:  # an error raised in there is the caller's, not the input's
                    yield self._table(file, identity, cursor, partition)

    def _table(self, file: OpenFile, identity: Identity, cursor: "_Cursor", partition: Partition) -> pa.Table:
        with files.refusing(self.path):
            try:
                pieces = cursor.take(partition.first_row, partition.row_count)
            except (InputError, OSError, pa.ArrowException):
                self.content.refuse_other(file, identity.size, identity.sha256)  # which explains it
                raise
            self.content.refuse_other(file, identity.size, identity.sha256)
            if sum(piece.num_rows for piece in pieces) != partition.row_count:
                raise files.changed(self.path)
            table = pa.Table.from_batches(pieces, schema=self.schema)
            # Each batch brings its own dictionary; some readers of a table expect one for a column.
            has_dictionary = any(pa.types.is_dictionary(kind) for kind in self.schema.types)
            return table.unify_dictionaries() if has_dictionary else table


def open_source(path: pathlib.Path, *, encoding: str = "utf-8", delimiter: str | None = None) -> Source:
    """Look at the input's header or footer: cheap, whatever its size.

    `encoding` and `delimiter` are for CSV and TSV; without a delimiter, the ending decides.
    Raises `InputError` for what is no readable table of a known kind, or has columns that can't be told apart.
    """
    kind = files.kind_of(path.name)
    if not kind:
        _refuse_ending(path)
    with files.refusing(path), files.opened(path) as file:
        if file.size == 0:
            refuse(path, "is empty; a table needs at least " + ("a row" if kind == JSONL_KIND else "a header line"))
        layout = open_layout(file, kind, encoding, delimiter)
        if not layout.schema.names:
            refuse(path, "has no columns")
        files.refuse_duplicates(path, layout.schema.names)
    return Source(path, layout)


def open_layout(file: OpenFile, kind: str, encoding: str, delimiter: str | None) -> Layout:
    """The columns of a file of this kind. Raises `InputError` for what is none."""
    if kind == PARQUET_KIND:
        return open_parquet(file, encoding, delimiter)
    if kind == JSONL_KIND:
        return open_jsonl(file, encoding, delimiter)
    return open_csv(file, encoding, DELIMITERS[kind] if delimiter is None else delimiter)


def _refuse_ending(path: pathlib.Path) -> NoReturn:
    ending = path.suffix.lower()
    if ending in files.PACKED_ENDINGS:
        ways = ", or compress text with gzip or zstd" if ending not in files.UNPACKED_ENDINGS else ""
        refuse(path, f"is compressed ({ending}); unpack it first, or convert it to Parquet{ways}")
    hint = "; JSON must be one object a line, in a file that ends in .jsonl" if ending == ".json" else ""
    found = files.shown(path.suffix) or "none at all"
    refuse(path, f"the ending must be {files.KNOWN_ENDINGS}, not {found}{hint}")


def partitions(row_count: int, partition_rows: int) -> list[Partition]:
    """All rows in ranges of `partition_rows`; the last has what is left. Raises ValueError below 1 row."""
    if partition_rows < 1:
        raise ValueError(f"a partition needs at least 1 row, not {partition_rows}")
    starts = range(0, row_count, partition_rows)
    return [Partition(index, first, min(partition_rows, row_count - first)) for index, first in enumerate(starts)]


class _Cursor:
    """Takes ranges of rows, in ascending order, out of batches whose edges lie elsewhere."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._taken = 0  # rows before this one are gone
        self._first = 0  # ordinal of the first row held
        self._held: pa.RecordBatch | None = None

    def take(self, first: int, count: int) -> list[pa.RecordBatch]:
        """`count` rows from `first` on, or fewer where the file ends before."""
        if first < self._taken:
            raise ValueError(f"partitions must come in ascending order, but row {first} was passed already")
        pieces = []
        while count and self._fill(first):
            piece = self._held.slice(first - self._first, count)  # type: ignore[union-attr]  # _fill has seen to it
            pieces.append(piece)
            first, count = first + piece.num_rows, count - piece.num_rows
        self._taken = first
        return pieces

    def _fill(self, wanted: int) -> bool:
        while self._held is None or wanted >= self._first + self._held.num_rows:
            following = self._feed.next_batch(wanted)
            if following is None:
                return False
            self._first, self._held = following
        return True
