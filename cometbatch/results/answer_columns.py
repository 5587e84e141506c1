"""Columns of what answers hold, typed by the job's schema, made at the commit from the text that was kept.

Law: a cell is what the row's `response` says; a row that has not succeeded, or whose text does not fit, has none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import pyarrow as pa

from cometbatch.input.values import JSON_MARK
from cometbatch.prompt.shape import Kind, Shape

_TYPES: Final[Mapping[Kind, pa.DataType]] = {
    "text": pa.string(),
    "json": pa.string(),
    "date": pa.date32(),
    "moment": pa.timestamp("us", tz="UTC"),
    "integer": pa.int64(),
    "number": pa.float64(),
    "flag": pa.bool_(),
}


class CellMaker(Protocol):
    """Makes cells of an answer's text; `prompt.schema.SchemaChecker` is one."""

    @property
    def columns(self) -> Mapping[str, Shape]:
        """The shape of each column by name."""

    def cells(self, text: str) -> Mapping[str, Any] | None:
        """The cells by column; None where the text does not fit."""


def arrow_type(shape: Shape) -> pa.DataType:
    """The type of a column whose cells have this shape."""
    if shape.kind == "list" and shape.item is not None:
        return pa.list_(arrow_type(shape.item))
    if shape.kind == "struct":
        return pa.struct([pa.field(name, arrow_type(field)) for name, field in shape.fields])
    return _TYPES[shape.kind]


class AnswerColumns:
    """The typed columns of a run's answers. `prefix`: before their names."""

    def __init__(self, maker: CellMaker, prefix: str = "") -> None:
        self._maker = maker
        self._types = {name: arrow_type(shape) for name, shape in maker.columns.items()}
        self.fields: Sequence[pa.Field] = [
            pa.field(prefix + name, self._types[name], metadata=JSON_MARK if shape.kind == "json" else None)
            for name, shape in maker.columns.items()
        ]

    @property
    def names(self) -> list[str]:
        """The names, prefix included."""
        return [field.name for field in self.fields]

    @property
    def properties(self) -> list[str]:
        """The names without the prefix."""
        return [*self._types]

    def cells(self, outcomes: pa.Table) -> list[pa.Array]:
        """The columns of these outcomes, which have `status` and `response` without prefix."""
        make = self._maker.cells
        statuses, texts = (outcomes.column(name).to_pylist() for name in ("status", "response"))
        rows = [
            make(text) if status == "succeeded" and text is not None else None
            for status, text in zip(statuses, texts, strict=True)
        ]
        return [
            pa.array([None if row is None else row.get(name) for row in rows], kind)
            for name, kind in self._types.items()
        ]
