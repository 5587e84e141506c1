"""Parquet parts: how a finished partition is written, trusted again later, and merged into the one result.

Guards: a part says which run and rows it holds, in its footer, so a foreign or damaged file is never taken for one.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch.errors import CheckpointError
from cometbatch.records import Partition, Tally

PART_KEY = b"cometbatch.part"
COMPRESSION = "zstd"


class PartInfo(Struct, frozen=True):
    """What a part says of itself."""

    run_id: str
    partition: Partition
    tally: Tally


def write_part(file: IO[bytes], table: pa.Table, info: PartInfo) -> None:
    """Write one finished partition as one row group."""
    with pq.ParquetWriter(file, table.schema, compression=COMPRESSION) as writer:
        writer.write_table(table, row_group_size=max(1, table.num_rows))
        writer.add_key_value_metadata({PART_KEY: msgspec.json.encode(info)})


def read_info(path: Path, run_id: str) -> PartInfo:
    """What a part says of itself. Raises `CheckpointError` where the file is damaged or another run's."""
    metadata, _ = _footer(path)
    try:
        info = msgspec.json.decode((metadata.metadata or {}).get(PART_KEY, b""), type=PartInfo)
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{path}: this is no part that cometbatch wrote. Move it away and run again.") from error
    if info.run_id != run_id or metadata.num_rows != info.partition.row_count:
        raise CheckpointError(f"{path}: this part belongs to run {info.run_id}, not to {run_id}. Move it away.")
    return info


def result_run_id(path: Path) -> str | None:
    """Which run wrote a result file; `None` where there is no such file, or none of ours."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    run_id = metadata.get(b"cometbatch.run_id")
    return None if run_id is None else run_id.decode()


def merge(file: IO[bytes], parts: Iterable[Path], schema: pa.Schema, metadata: Mapping[str, str]) -> None:
    """Write every part's rows, in the order given, as one Parquet file; a part at a time in memory."""
    with pq.ParquetWriter(file, schema, compression=COMPRESSION) as writer:
        for path in parts:
            try:
                table = pq.read_table(path, partitioning=None)
            except pa.ArrowException as error:
                raise _damaged(path, error) from error
            writer.write_table(table.cast(schema), row_group_size=max(1, table.num_rows))
        writer.add_key_value_metadata(dict(metadata))


def _footer(path: Path) -> tuple[pq.FileMetaData, pa.Schema]:
    try:
        with pq.ParquetFile(path) as file:
            return file.metadata, file.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: this part can't be read ({error}). Restore it from a copy, or remove it to send its rows again."
    )
