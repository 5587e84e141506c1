"""Tables of a caller (polars, pandas, Arrow): kept as a run's input, and given back with the answers.

Guards that a run over a table resumes like one over a file: the table is kept beside the run, under a name that its
content decides, so the same table finds its run again and another table never replaces it.
"""

import contextlib
import functools
import hashlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar, cast

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from cometbatch.errors import UsageError
from cometbatch.job import Job, load_job
from cometbatch.job.paths import input_beside
from cometbatch.store.local import write_aside

if TYPE_CHECKING:
    import pandas as pd

JobSource: TypeAlias = Job | str | os.PathLike[str] | Mapping[str, object]
"""A job, or what `load_job` makes one of."""
Table = TypeVar("Table")
"""A `polars.DataFrame`, a `pandas.DataFrame` or a `pyarrow.Table`."""
Kind: TypeAlias = Literal["polars", "pandas", "arrow"]

ACCEPTED: Final = "a polars.DataFrame, a pandas.DataFrame or a pyarrow.Table"
_DIGITS: Final = 16  # of the SHA-256 of a table's content, in its file's name
_NO_PATH: Final = "input.path=table.parquet"
"""Stands for the path of an input that is a table: no file is looked for there."""


def as_job(job: JobSource, table: object | None) -> Job:
    """The job. One that gets its rows from a table needs no `input.path`. Raises `UsageError`."""
    if isinstance(job, Job):
        return job
    return load_job(job, () if table is None else (_NO_PATH,))


@contextlib.contextmanager
def kept(job: Job, table: object | None) -> Iterator[Job]:
    """The job over a table, which is kept as a Parquet file beside the run; without a table, the job as it is.

    Where the block ends without an error, files of other tables of the same output go; where it raises, a file that
    this call has made goes. Raises `UsageError` for what is no table, or can't be written as Parquet.
    """
    if table is None:
        yield job
        return
    content = _parquet(to_arrow(table))
    path = input_beside(job.output.path, hashlib.sha256(content).hexdigest()[:_DIGITS])
    is_new = not path.exists()
    if is_new:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"output.path: can't write to {path.parent} ({error.strerror}).") from error
        write_aside(path, functools.partial(_write, content))
    try:
        yield over(job, path)
    except UsageError:  # the table is not that of the run, or can't be used: nothing was sent
        if is_new:
            path.unlink(missing_ok=True)
        raise
    for other in _kept_beside(job.output.path):
        if other != path:
            other.unlink(missing_ok=True)


@contextlib.contextmanager
def looked_at(job: Job, table: object | None) -> Iterator[Job]:
    """The job over a table, for the length of the block: nothing is left of it. Raises `UsageError`."""
    if table is None:
        yield job
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        path.write_bytes(_parquet(to_arrow(table)))
        yield over(job, path)


def over(job: Job, path: Path) -> Job:
    """The job with its rows from this Parquet file."""
    settings = msgspec.structs.replace(job.input, path=path, delimiter=None, encoding="utf-8")
    return msgspec.structs.replace(job, input=settings)


def to_arrow(table: object) -> pa.Table:
    """The rows of a table, as Arrow has them. Raises `UsageError` for what is none."""
    kind = kind_of(table)
    try:
        if kind == "polars":
            return _from_polars(cast("pl.DataFrame", table))
        if kind == "pandas":
            frame = cast("pd.DataFrame", table)
            if strange := [name for name in frame.columns if not isinstance(name, str)]:
                raise UsageError(f"input: a column's name is {strange[0]!r}, which is no text: rename it.")
            return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        return pa.table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UsageError(f"input: the table can't be used: {error}") from error


def _from_polars(frame: pl.DataFrame) -> pa.Table:
    for name, kind in frame.schema.items():
        if _holds_objects(kind):  # Arrow would get their addresses in memory
            raise UsageError(f"input: the column {name!r} holds Python objects: make texts or numbers of them.")
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _holds_objects(kind: pl.DataType | pl.datatypes.DataTypeClass) -> bool:
    inner = [kind.inner] if isinstance(kind, pl.List | pl.Array) else []
    if isinstance(kind, pl.Struct):
        inner = [field.dtype for field in kind.fields]
    return kind == pl.Object or any(_holds_objects(each) for each in inner)


def kind_of(table: object) -> Kind:
    """Which library a table is of. Raises `UsageError` for what is none."""
    if isinstance(table, pl.LazyFrame):
        raise UsageError("input: a polars.LazyFrame has no rows yet: hand in frame.collect().")
    if isinstance(table, pl.DataFrame):
        return "polars"
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(table, pandas.DataFrame):
        return "pandas"
    if isinstance(table, pa.Table | pa.RecordBatch) or hasattr(table, "__arrow_c_stream__"):
        return "arrow"
    raise UsageError(f"input: expected {ACCEPTED}, found {type(table).__name__}.")


def with_answers(table: Table, answers: pa.Table) -> Table:
    """The caller's table with these output columns behind its own: a new one of the same kind, row by row."""
    kind = kind_of(table)
    if kind == "polars":
        frame = cast("pl.DataFrame", table)
        return cast("Table", frame.hstack(cast("pl.DataFrame", pl.from_arrow(answers))))
    if kind == "pandas":
        return cast("Table", _with_columns(cast("pd.DataFrame", table), answers))
    joined = to_arrow(table)
    for name in answers.column_names:
        joined = joined.append_column(answers.schema.field(name), answers[name])
    return cast("Table", joined)


def _with_columns(frame: "pd.DataFrame", answers: pa.Table) -> "pd.DataFrame":
    """By position, whatever the index is. Counts that may be unknown are pandas' own nullable integers."""
    import pandas as pd  # noqa: PLC0415 - not needed by the package, and there where the caller has a frame of it

    nullable = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
    columns: pd.DataFrame = answers.to_pandas(types_mapper=nullable.get)
    return pd.concat([frame, columns.set_index(frame.index)], axis=1)


def _kept_beside(result: Path) -> Collection[Path]:
    names = re.compile(re.escape(input_beside(result, "*").name).replace(r"\*", rf"[0-9a-f]{{{_DIGITS}}}"))
    return [path for path in result.parent.iterdir() if names.fullmatch(path.name)]


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def _parquet(table: pa.Table) -> bytes:
    """The same bytes for the same table, however it is divided in memory."""
    file = io.BytesIO()
    try:
        pq.write_table(table.combine_chunks(), file)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UsageError(f"input: the table can't be kept as Parquet: {error}") from error
    return file.getvalue()
