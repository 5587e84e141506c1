"""A line of the result: what its part holds of it, and what is joined to it when the result is read or published.

A part has the input's columns, the output's, and the columns of answers. A line of the result has beside these the
columns of its slice (after the input's), and columns that others make of whole lines (after all others), scores for
one. `Lines` is the only place that knows this order: publishing, reading a run and `verify` ask it.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import pyarrow as pa

from cometbatch.results import columns
from cometbatch.results.columns import Column
from cometbatch.results.slices import SliceColumns
from cometbatch.results.target_column import with_target


class Joined(Protocol):
    """Columns that are joined to the lines of a result, and that no part has."""

    @property
    def fields(self) -> Sequence[pa.Field]:
        """Their names, prefix included, and types, in order."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What a result that has them says of them in its metadata."""

    def cells(self, lines: pa.Table, rows: Sequence[int]) -> Sequence[pa.Array]:
        """The columns of these lines, which have all columns before them. `rows`: the number of each line's row."""


class Lines:
    """How the lines of a run's result are made of its parts' lines.

    `input_columns`: the names of the input's. `prefix`: before the names of `output`, the output's. `slices`: the
    columns of cell, sample and row; None without a matrix. `joined`: further columns, in order.
    """

    def __init__(
        self,
        input_columns: Sequence[str],
        prefix: str,
        output: Sequence[Column],
        slices: SliceColumns | None = None,
        joined: Sequence[Joined] = (),
    ) -> None:
        self._input, self._prefix, self._output = tuple(input_columns), prefix, tuple(output)
        self.slices, self._joined = slices, tuple(joined)

    @property
    def metadata(self) -> dict[str, str]:
        """What a result says of the columns that are joined to it."""
        return {key: value for each in self._joined for key, value in each.metadata.items()}

    @property
    def slice_fields(self) -> Sequence[pa.Field]:
        """The columns of cell, sample and row; none without a matrix."""
        return () if self.slices is None else self.slices.fields

    @property
    def joined_fields(self) -> list[pa.Field]:
        """The columns after all others that no part has."""
        return [field for each in self._joined for field in each.fields]

    def schema(self, part: pa.Schema) -> pa.Schema:
        """The schema of the result whose parts have this one, its metadata included."""
        fields, width = list(with_target(part.empty_table(), self._prefix, self._output).schema), len(self._input)
        return pa.schema([*fields[:width], *self.slice_fields, *fields[width:], *self.joined_fields], part.metadata)

    def names(self, part_names: Sequence[str]) -> tuple[str, ...]:
        """The names of all columns, of those of a part that has all of the run's output columns."""
        width, own = len(self._input), (field.name for field in self.slice_fields)
        return (*part_names[:width], *own, *part_names[width:], *(field.name for field in self.joined_fields))

    def table(self, part: pa.Table, place: int, rows: Sequence[int], *, target: int = 0) -> pa.Table:
        """The lines of some lines of a part. `place`: which slice of the result it is of; `rows`: the row of each line.

        `target`: that was asked, where the part is older than the column that tells it.
        """
        lines = with_target(part, self._prefix, self._output, target)
        if self.slices is not None:
            width, made = len(self._input), self.slices.cells(place, rows)
            schema = pa.schema([*list(lines.schema)[:width], *self.slices.fields, *list(lines.schema)[width:]])
            arrays = [*lines.columns[:width], *made, *lines.columns[width:]]
            lines = pa.Table.from_arrays(arrays, schema=schema.with_metadata(part.schema.metadata))
        for each in self._joined:
            for field, cells in zip(each.fields, each.cells(lines, rows), strict=True):
                lines = lines.append_column(field, cells)
        return lines

    def repeated(self, schema: pa.Schema) -> list[str] | bool:
        """The columns of a result in which values may repeat, as pyarrow's `use_dictionary` has it: names, or all."""
        found = columns.repeated(schema, self._prefix)
        if isinstance(found, bool) or self.slices is None:
            return found
        row = self.slices.names[-1]
        return [name for name in found if name != row]
