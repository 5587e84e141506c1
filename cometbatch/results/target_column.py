"""The column that says of which target a row was asked. A run that `--retry` asks in another way gets it late."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from cometbatch.errors import UsageError
from cometbatch.results.columns import LATE_TARGET, Column

TARGET_COLUMNS: Final = frozenset({"target", LATE_TARGET.name})
"""The names that this column may have."""


def target_column(prefix: str, taken: Collection[str]) -> str:
    """The name of the column of a call's target in a run that has begun without one. `taken`: names of other columns.

    Raises `UsageError` where both of its names are taken.
    """
    for name in ("target", LATE_TARGET.name):
        if prefix + name not in taken:
            return name
    raise UsageError(
        f"--retry: rows that are asked in another way need a column {prefix}target or {prefix}{LATE_TARGET.name}, and "
        "both names are taken. Ask these rows in a run of their own, with another output.path."
    )


def target_in(cells: Mapping[str, Any], own: int = 0) -> int:
    """The number of the target that a row was asked of, by its output columns; where none tells it, its slice's own."""
    found = next((cells[name] for name in TARGET_COLUMNS if name in cells), None)
    return own if found is None else int(found)


def with_target(table: pa.Table, prefix: str, columns: Sequence[Column], target: int = 0) -> pa.Table:
    """A part's table with the column of targets where `columns` end with it and the part was written before.

    `target`: that all calls of the part were asked of.
    """
    *_, before, last = columns
    if last.name not in TARGET_COLUMNS or prefix + last.name in table.column_names:
        return table
    place = table.schema.get_field_index(prefix + before.name) + 1
    values = pa.repeat(pa.scalar(target, last.type), len(table))
    return table.add_column(place, pa.field(prefix + last.name, last.type), values)
