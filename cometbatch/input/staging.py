"""An input that is no Parquet, written once as Parquet: each process of a run reads only the rows that it works on.

Guards: what is read back is what the input itself delivers, row by row and type by type. Each page has a checksum. A
file that was cut short or damaged, or that holds another input or another run's, is written again and never read.

The run goes on naming the input itself: its identity is that of the input, and a session without workers reads that.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch.errors import InputError
from cometbatch.input import files
from cometbatch.input.file_set import AnySource, FileSet
from cometbatch.input.files import Identity, refuse
from cometbatch.input.parquet import ParquetLayout, open_parquet
from cometbatch.input.table import Source
from cometbatch.records import Partition
from cometbatch.version import VERSION

ROWS: Final = "rows.staged"
"""The name of the Parquet file. Not `.parquet`: a reader of all `**/*.parquet` would count these rows, too."""

NOTE: Final = "rows.json"
"""The name of the file that says what `ROWS` holds; written after it."""

GROUP_ROWS: Final = 2_048  # rows of a row group, unless a partition has more: whoever wants one row decodes its group
GROUP_BYTES: Final = 32 << 20  # bytes of rows in a row group, about, unless a partition has more: it is held in memory

WriteAside: TypeAlias = Callable[[Path, Callable[[IO[bytes]], None]], None]
"""Writes a file so that it is whole or absent: path, and what writes its content. `store.local.write_aside`."""


class Note(Struct, frozen=True):
    """What a staged file holds. `size`, `sha256` (hex): its own. `by`: the program's version. `of`: the input."""

    run: str
    by: str
    size: int
    sha256: str
    of: Identity


class StagedSource(Source, frozen=True, kw_only=True):
    """A staged input: everybody takes it for the input that it was made of.

    `of`: that input. `held`: the file itself.
    """

    of: Identity
    held: Identity

    def check(self) -> Identity:
        """Compare the file with its sum. Returns the identity of the input. Raises `InputError` for a damaged file."""
        if Source.digest(self) != (self.held.size, self.held.sha256):
            raise damaged(self.path)
        return self.of

    def digest(self) -> tuple[int, str]:
        """Size in bytes and SHA-256 (hex) of the input that the file was made of. Raises as `check` does."""
        self.check()
        return self.of.size, self.of.sha256

    def begins_with(self, size: int, sha256: str) -> bool:  # noqa: ARG002 - the bytes of the input are not here
        """Whether the input's first bytes are these: never known here."""
        return False

    def tables(self, identity: Identity, partitions: Iterable[Partition]) -> Iterator[pa.Table]:
        """As the input gives them. Raises `InputError` where `identity` is another input's, or a page is damaged."""
        if (identity.size, identity.sha256, identity.rows) != (self.of.size, self.of.sha256, self.of.rows):
            raise files.changed(self.path)
        return Source.tables(self, self.held, partitions)


def is_worth_staging(source: AnySource) -> bool:
    """Whether rows of this input can't be found without reading all that stand before them."""
    first = source.sources[0] if isinstance(source, FileSet) else source
    return not isinstance(first.layout, ParquetLayout)


class GivenUpError(Exception):
    """Nobody waits for the rows any more."""


def stage(
    source: AnySource,
    identity: Identity,
    folder: Path,
    *,
    run_id: str,
    partition_rows: int,
    write_aside: WriteAside,
    is_given_up: Callable[[], bool] = lambda: False,
) -> Path:
    """Write the rows of an input into `folder`, which is there, unless they stand there already; returns the path.

    Holds some MiB of rows, or a partition, in memory. `is_given_up` is asked before each group of rows. Raises
    `InputError` where the input is not, or no longer, what `identity` says, `GivenUpError`, and whatever `write_aside`
    raises.
    """
    path = folder / ROWS
    if _is_staged(path, identity, run_id):
        return path

    def write(file: IO[bytes]) -> None:
        _write_rows(source, identity, partition_rows, file, is_given_up)

    write_aside(path, write)
    with files.refusing(path), files.opened(path) as file:
        size, sha256 = file.content()
    note = msgspec.json.encode(Note(run_id, VERSION, size, sha256, identity))
    write_aside(folder / NOTE, lambda file: _write_all(file, note))
    return path


def open_staged(path: Path) -> StagedSource:
    """A staged file, by its path: cheap, whatever its size. Pages are compared with their checksums as they are read.

    Raises `InputError` where it is not there, was cut short, or is not what its note says.
    """
    note = _note_of(path)
    if note is None:
        refuse(path, f"its note {NOTE} is missing or damaged; run the same command again")
    with files.refusing(path), files.opened(path) as file:
        if file.size != note.size:
            raise damaged(path)
        layout = open_parquet(file, "utf-8", None)
    of = note.of
    held = Identity(path.name, note.size, note.sha256, of.rows, of.columns, of.decoded_size)
    return StagedSource(path, msgspec.structs.replace(layout, verifies=True), of=of, held=held)


def damaged(path: Path) -> InputError:
    """The error where a staged file is not what was written."""
    shown = files.shown(str(path), limit=files.MAX_PATH_SHOWN)
    return InputError(f"{shown}: this copy of the input is damaged. Run the same command again: it is made anew.")


def _is_staged(path: Path, identity: Identity, run_id: str) -> bool:
    """Whether these rows are there, whole, for this run: all bytes are read."""
    note = _note_of(path)
    if note is None or (note.run, note.by, note.of) != (run_id, VERSION, identity):
        return False
    try:
        return open_staged(path).check() == identity
    except InputError:
        return False


def _note_of(path: Path) -> Note | None:
    try:
        return msgspec.json.decode(path.with_name(NOTE).read_bytes(), type=Note)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _write_rows(
    source: AnySource, identity: Identity, partition_rows: int, file: IO[bytes], is_given_up: Callable[[], bool]
) -> None:
    options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True, "write_statistics": False}
    with pq.ParquetWriter(file, source.schema, **options) as writer:
        for table in source.tables(identity, _groups(identity, partition_rows)):
            if is_given_up():
                raise GivenUpError
            writer.write_table(table, row_group_size=max(1, table.num_rows))


def _groups(identity: Identity, partition_rows: int) -> Iterator[Partition]:
    """All rows as row groups, each a whole number of partitions, but for the last one."""
    most = min(GROUP_ROWS, identity.rows_within(GROUP_BYTES))
    size = partition_rows * max(1, most // partition_rows)
    for index, first in enumerate(range(0, identity.rows, size)):
        yield Partition(index, first, min(size, identity.rows - first))


def _write_all(file: IO[bytes], content: bytes) -> None:
    file.write(content)
