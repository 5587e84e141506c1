"""Results in memory, with the layout of real ones: an input's columns, then those of the output."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from msgspec import Struct

from cometbatch.reports.page.chunks import Chunk, Encoder, StoredPrompt
from cometbatch.reports.page.page_columns import Columns
from cometbatch.reports.sources import Source, Tables
from cometbatch.results.columns import COLUMNS
from tests.page.reading import Row, read_chunks


class MemoryResult(Struct, frozen=True):
    """A result in memory, read a number of rows at a time."""

    table: pa.Table
    name: str = "out.parquet"
    batch_rows: int = 10_000
    is_whole: bool = True

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table, and what its metadata say."""
        return self.table.schema

    def tables(self, names: Sequence[str]) -> Tables:
        """These columns, some lines at a time."""
        for begin in range(0, self.table.num_rows, self.batch_rows):
            some = self.table.slice(begin, self.batch_rows)
            yield range(begin, begin + some.num_rows), some.select(list(names))


def result_table(
    rows: int,
    inputs: Mapping[str, pa.Array] | None = None,
    outputs: Mapping[str, Any] | None = None,
    further: Mapping[str, pa.Array] | None = None,
    *,
    prefix: str = "",
    metadata: Mapping[str, str] | None = None,
) -> pa.Table:
    """A table with these columns of the input, of the output (others are null, all rows succeeded), and after it."""
    given = {"status": ["succeeded"] * rows, **(outputs or {})}
    found = dict(inputs or {})
    for column in COLUMNS:
        if column.name != "custom_id" or "custom_id" not in found:
            found[prefix + column.name] = pa.array(given.get(column.name, [None] * rows), column.type)
    return pa.table({**found, **(further or {})}).replace_schema_metadata(dict(metadata or {}))


def encoded(
    sources: Sequence[Source], prompts: Sequence[Sequence[StoredPrompt | None] | None] | None = None
) -> tuple[Columns, list[Row]]:
    """The columns of a page of these results, and the rows that its reader finds. `prompts`: of each source."""
    columns = Columns.of(sources, has_prompts=prompts is not None)
    encoder = Encoder(columns)
    chunks: list[Chunk] = []
    for file, source in enumerate(sources):
        own = None if prompts is None else prompts[file]
        for ordinals, table in source.tables(columns.read(file)):
            some = None if own is None else [own[at] for at in ordinals]
            chunks.extend(encoder.add(file, ordinals, table, some))
    chunks.extend(encoder.rest())
    return columns, read_chunks(columns.to_list(), [(each.short, each.text) for each in chunks])
