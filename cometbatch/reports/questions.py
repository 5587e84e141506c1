"""The questions of a leaderboard: which rows of several results are the same one, and what is known of each.

Guards: results are compared only where rows that go together have equal cells in the columns that both inputs have, the
right answers among them. Cells are compared by 64-bit hashes, so that long texts take no memory.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeAlias

import polars as pl
import pyarrow as pa
from msgspec import Struct

from cometbatch.errors import InputError, UsageError, did_you_mean
from cometbatch.reports.adding import QUESTION
from cometbatch.reports.layout import Layout
from cometbatch.reports.sources import Source

Key: TypeAlias = Literal["custom_id", "row"]
PLACE: Final = "row"
ID: Final = "id"
CELL: Final = "cell:"
"""Before the name of a column of the input whose cells are told."""
_HASH: Final = "hash:"
_WHOLE: Final = (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32)


class Questions(Struct, frozen=True, eq=False):
    """`facts`: a line for each question: its number, and the columns that were asked for, as text, after `CELL`.

    `numbers`: of each result, the number of the question of each of its rows; None where it is the row's own number.
    `key`: by what rows of several results go together.
    """

    facts: pl.DataFrame
    numbers: tuple[pl.DataFrame | None, ...]
    key: Key

    def of(self, source: int, rows: pl.Series) -> pl.Series:
        """The questions of these rows of a result."""
        numbers = self.numbers[source]
        if numbers is None:
            return rows.cast(pl.Int64).alias(QUESTION)
        return pl.DataFrame({PLACE: rows}).join(numbers, on=PLACE, how="left", maintain_order="left")[QUESTION]


def questions_of(sources: Sequence[Source], layouts: Sequence[Layout], columns: Sequence[str]) -> Questions:
    """The questions of these results; `columns`: of the input, whose cells are wanted as text.

    Raises `UsageError` where a result has no such column, `InputError` where rows that go together differ.
    """
    for source, layout in zip(sources, layouts, strict=True):
        for name in columns:
            if name not in layout.inputs:
                hint = did_you_mean(name, layout.inputs) or f"Its columns are: {', '.join(layout.inputs)}"
                raise UsageError(f"{source.name}: the input has no column {name!r}. {hint}")
    if len(sources) == 1:
        facts = _facts(sources[0], layouts[0], columns, ()).rename({PLACE: QUESTION})
        return Questions(facts, (None,), "row")
    shared = [name for name in layouts[0].inputs if all(name in layout.inputs for layout in layouts[1:])]
    frames = [
        _facts(source, layout, columns, shared, with_ids=True) for source, layout in zip(sources, layouts, strict=True)
    ]
    _refuse_other_types(sources, shared)
    key: Key = "custom_id" if all(_has_names(frame) for frame in frames) else "row"
    return _joined(sources, frames, shared, columns, key)


def _joined(
    sources: Sequence[Source],
    frames: Sequence[pl.DataFrame],
    shared: Sequence[str],
    columns: Sequence[str],
    key: Key,
) -> Questions:
    by = ID if key == "custom_id" else PLACE
    known = frames[0].with_columns(pl.col(PLACE).alias(QUESTION))
    numbers: list[pl.DataFrame | None] = [None]
    for source, frame in zip(sources[1:], frames[1:], strict=True):
        met = frame.join(known, on=by, how="left", suffix=" of first", maintain_order="left")
        _refuse_other_cells(sources[0], source, met, shared)
        first = max(known[QUESTION].to_list(), default=-1) + 1
        is_new = pl.col(QUESTION).is_null()
        met = met.with_columns(pl.when(is_new).then(first + is_new.cum_sum() - 1).otherwise(QUESTION).alias(QUESTION))
        numbers.append(met.select(PLACE, QUESTION))
        added = frame.with_columns(met[QUESTION]).join(known, on=QUESTION, how="anti", maintain_order="left")
        known = pl.concat([known, added.select(known.columns)])
    return Questions(known.select(QUESTION, *(CELL + name for name in columns)), tuple(numbers), key)


def _has_names(frame: pl.DataFrame) -> bool:
    """Whether each row has a name of its own."""
    return frame.height > 0 and not frame[ID].has_nulls() and frame[ID].n_unique() == frame.height


def _facts(
    source: Source, layout: Layout, columns: Sequence[str], shared: Sequence[str], *, with_ids: bool = False
) -> pl.DataFrame:
    """A line for each row of a result's input: its number, these columns as text, hashes of shared columns."""
    ids = [layout.custom_id] if with_ids and layout.custom_id else []
    frames: list[pl.DataFrame] = []
    wanted = list(dict.fromkeys([*columns, *shared, *ids]))
    for rows, table in _rows_once(source, layout, wanted) if wanted else ():
        frame = pl.DataFrame({PLACE: rows})
        cells = {name: _series(table, name) for name in table.column_names}
        frame = frame.with_columns(as_text(cells[name]).alias(CELL + name) for name in columns)
        frame = frame.with_columns(hashes(cells[name]).alias(_HASH + name) for name in shared)
        names = as_text(cells[ids[0]]) if ids else pl.Series(ID, [None] * frame.height, pl.String)
        frames.append(frame.with_columns(names.alias(ID)) if with_ids else frame)
    if not frames:
        texts = dict.fromkeys((*(CELL + name for name in columns), *([ID] if with_ids else [])), pl.String)
        return pl.DataFrame(schema={PLACE: pl.Int64, **texts, **{_HASH + name: pl.UInt64 for name in shared}})
    return pl.concat(frames)


def _rows_once(source: Source, layout: Layout, names: Sequence[str]) -> Iterator[tuple[pl.Series, pa.Table]]:
    """Each row of the input once, with these columns: of a result whose slices are whole, the first one is enough."""
    own = [layout.row] if layout.row else []
    seen = pl.Series(PLACE, [], pl.Int64)
    for places, table in source.tables([*own, *(name for name in names if name not in own)]):
        rows = numbers_of(table, layout.row, places)
        is_earlier = rows <= seen[-1] if source.is_whole and len(seen) else _are_among(rows, seen)
        is_new = rows.is_first_distinct() & ~is_earlier
        if is_new.any():
            yield rows.filter(is_new), table.filter(is_new.to_arrow()).select(list(names))
            new = rows.filter(is_new)
            seen = new[-1:] if source.is_whole else seen.append(new)
        if source.is_whole and not is_new.all():
            return


def _are_among(rows: pl.Series, seen: pl.Series) -> pl.Series:
    """Whether each of these rows was seen; each of those is there once."""
    marked = seen.to_frame(PLACE).with_columns(pl.lit(value=True).alias("seen"))
    return rows.to_frame(PLACE).join(marked, on=PLACE, how="left", maintain_order="left")["seen"].fill_null(value=False)


def numbers_of(table: pa.Table, row: str | None, places: Sequence[int]) -> pl.Series:
    """The rows of these lines."""
    if row is None:
        return pl.Series(PLACE, places, pl.Int64)
    return _series(table, row).cast(pl.Int64).alias(PLACE)


def _series(table: pa.Table, name: str) -> pl.Series:
    """A column, of the widest type of its kind: the same cells have the same hash however wide a file has them."""
    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    found = pl.Series(name, column)
    if found.dtype in _WHOLE:
        return found.cast(pl.Int64)
    return found.cast(pl.Float64) if found.dtype == pl.Float32 else found


def hashes(series: pl.Series) -> pl.Series:
    """A 64-bit hash of each cell; those of lists and structures are made of their values as Python shows them."""
    if not series.dtype.is_nested():
        return series.hash(seed=0)
    shown = (repr(value).encode("utf-8", "backslashreplace") for value in series.to_list())
    found = [int.from_bytes(hashlib.blake2b(each, digest_size=8).digest()) for each in shown]
    return pl.Series(found, dtype=pl.UInt64)


def as_text(series: pl.Series) -> pl.Series:
    """Cells as texts."""
    if series.dtype == pl.String:
        return series
    if series.dtype.is_nested() or series.dtype == pl.Binary:
        raise UsageError(f"the column {series.name!r} holds no plain values, so it can't tell clusters or groups.")
    return series.cast(pl.String)


def _refuse_other_types(sources: Sequence[Source], shared: Sequence[str]) -> None:
    schemas = [source.schema for source in sources]
    for source, schema in zip(sources[1:], schemas[1:], strict=True):
        for name in shared:
            pair = [_series(each.empty_table(), name).dtype for each in (schemas[0], schema)]
            if pair[0] != pair[1] and pl.Null not in pair and not any(each.is_nested() for each in pair):
                raise InputError(
                    f"{sources[0].name} and {source.name} have other types in the input column {name!r}: "
                    f"{pair[0]} and {pair[1]}. Compare results of the same input."
                )


def _refuse_other_cells(first: Source, second: Source, met: pl.DataFrame, shared: Sequence[str]) -> None:
    """Raises `InputError` for the first row whose cells differ."""
    for name in shared:
        ours, theirs = pl.col(_HASH + name), pl.col(f"{_HASH}{name} of first")
        differing = met.filter((ours != theirs) & pl.col(QUESTION).is_not_null())
        if differing.height:
            row, named = differing[PLACE][0], differing[ID][0]
            words = f"row {row}" if named is None else f"row {row} ({named})"
            raise InputError(
                f"{first.name} and {second.name} differ in the input column {name!r}, first in {words} of "
                f"{second.name}: these are not the same questions. Compare results of the same input."
            )
