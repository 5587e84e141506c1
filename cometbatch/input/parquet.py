"""Parquet: row group by row group, a few MiB of rows at a time, in the types that the file says.

Guards: every page is decoded by `ParquetLayout.measure`, and its checksum compared where it has one, so that no row
fails later. Row groups without a wanted row are not read.
"""

import io
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch.input import files
from cometbatch.input.files import Identity, Measured, OpenFile, refuse, shown

BUFFER_SIZE = 1 << 20  # bytes that pyarrow reads ahead in a column
BATCH_SIZE = 8 << 20  # bytes of rows decoded at a time, about
MAX_BATCH_ROWS = 2_048  # rows decoded at a time, however short they are
CHECK_ROWS = 256  # rows decoded at a time at most while their size is unknown
PROBE_ROWS = 4  # rows at the start of a row group, by which the size of the others is guessed
MARK, ENCRYPTED_MARK = b"PAR1", b"PARE"
MIN_FILE_SIZE = 12  # bytes: a mark, the footer's length and a mark


class ParquetLayout(Struct, frozen=True):
    """A Parquet file whose footer has been read. `verifies`: `feed`, too, compares checksums of pages."""

    path: pathlib.Path
    schema: pa.Schema
    warnings: tuple[str, ...]
    hint: str = ""
    verifies: bool = False

    def measure(self, raw: io.BufferedReader) -> Measured:
        """Decode every page. Raises `InputError` or pyarrow's own errors at the first that can't be."""
        size, sha256 = files.digest(raw)
        row_count = decoded = 0
        with _parquet(raw, verify=True) as parquet:
            for batch in checked_batches(parquet):
                self._refuse_bad_text(batch, row_count)
                row_count += batch.num_rows
                decoded += batch.nbytes
            if row_count != parquet.metadata.num_rows:
                refuse(self.path, f"holds {row_count} rows, but its footer says {parquet.metadata.num_rows}")
        return Measured(row_count, size, sha256, decoded)

    def _refuse_bad_text(self, batch: pa.RecordBatch, first_row: int) -> None:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as exc:
                span = f"rows {first_row} to {first_row + batch.num_rows - 1}"
                why = shown(str(exc), limit=200)
                refuse(self.path, f'column "{shown(name)}", {span}: {why}; write it again', quote=why)

    @contextmanager
    def feed(self, raw: io.BufferedReader, identity: Identity) -> Iterator["ParquetFeed"]:
        """Batches of about 8 MiB at most."""
        with files.refusing(self.path):
            parquet = _parquet(raw, verify=self.verifies)
        with parquet:
            yield ParquetFeed(parquet, min(MAX_BATCH_ROWS, identity.rows_within(BATCH_SIZE)))


class ParquetFeed:
    """The batches of a Parquet file, but for row groups without a wanted row."""

    def __init__(self, parquet: pq.ParquetFile, batch_rows: int) -> None:
        self._parquet = parquet
        self._batch_rows = batch_rows
        self._group = -1  # the row group being read
        self._next = self._end = 0  # ordinals of the next row, and of the first row after the group
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def next_batch(self, wanted: int) -> tuple[int, pa.RecordBatch] | None:
        """The next batch with the ordinal of its first row; None at the end."""
        if wanted >= self._end and not self._open_group(wanted):
            return None
        batch = next(self._batches, None)
        if batch is None:
            return None
        first, self._next = self._next, self._next + batch.num_rows
        return first, batch

    def _open_group(self, wanted: int) -> bool:
        metadata = self._parquet.metadata
        while wanted >= self._end:
            self._group += 1
            if self._group >= metadata.num_row_groups:
                return False
            self._next, self._end = self._end, self._end + metadata.row_group(self._group).num_rows
        self._batches = self._parquet.iter_batches(self._batch_rows, row_groups=[self._group], use_threads=False)
        return True


def open_parquet(file: OpenFile, encoding: str, delimiter: str | None) -> ParquetLayout:
    """Read the footer. Raises `InputError` for what is no readable Parquet file, or has no columns.

    `encoding` and `delimiter` are for text: where they are set, there is a warning that they are not used.
    """
    _refuse_unlike_parquet(file)
    with _parquet(file.raw) as parquet:
        schema = parquet.schema_arrow
    if not schema.names:
        refuse(file.path, "has no columns")
    unused = files.unused(encoding, delimiter)
    warnings = tuple(f"{key} has no meaning for a Parquet file and is not used" for key in unused)
    return ParquetLayout(file.path, schema, warnings)


def is_parquet(head: bytes, tail: bytes) -> bool:
    """Whether a file with these first and last bytes is a whole Parquet file."""
    return head.startswith(MARK) and tail == MARK


def _parquet(raw: io.BufferedReader, *, verify: bool = False) -> pq.ParquetFile:
    # With pre_buffer, or without buffer_size, whole row groups are held in memory.
    return pq.ParquetFile(raw, pre_buffer=False, buffer_size=BUFFER_SIZE, page_checksum_verification=verify)


def checked_batches(parquet: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """All rows, about `BATCH_SIZE` bytes of them at a time, by what the footer and the first rows of each group say.

    Both are asked: rows that repeat a long text are short on disk, and the first ones may be shorter than others.
    """
    for index in range(parquet.num_row_groups):
        group = parquet.metadata.row_group(index)
        if not group.num_rows:
            continue
        first = next(parquet.iter_batches(PROBE_ROWS, row_groups=[index], use_threads=False), None)
        if first is None:  # a damaged footer counts rows that are not there, which whoever adds them up sees
            continue
        row_bytes = max(first.nbytes // max(1, first.num_rows), group.total_byte_size // group.num_rows, 1)
        del first
        rows = max(1, min(CHECK_ROWS, BATCH_SIZE // row_bytes))
        yield from parquet.iter_batches(rows, row_groups=[index], use_threads=False)


def _refuse_unlike_parquet(file: OpenFile) -> None:
    head, tail = file.edges()
    if head[:4] == ENCRYPTED_MARK or tail == ENCRYPTED_MARK:
        refuse(file.path, "is encrypted Parquet, which is not supported; decrypt it first")
    if head[:4] != MARK:
        refuse(
            file.path,
            f"is not a Parquet file, whatever its ending says; is it CSV? Name it so ({files.KNOWN_ENDINGS})",
        )
    if tail != MARK or file.size < MIN_FILE_SIZE:
        refuse(file.path, "is a Parquet file that was cut short: its end is missing; copy or write it again")
