"""Slices of a result: of which cell and sample its lines are, and the columns that say so.

Law: these columns are made when a result is read or published, and never kept: labels may be renamed, axes put into
another order, and samples added, while what was answered stays as it was written.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import pyarrow as pa
from msgspec import Struct

from cometbatch.results.told import told

Label: TypeAlias = str | int | float | bool
"""The name of a value of an axis, of the type that the column has if all labels of the axis allow it."""

SAMPLE: Final = "sample"
ROW: Final = "row"
SLICES_KEY: Final = "cometbatch.slices"
"""Metadata: a result's slices in its order, each {"labels": {axis: label}, "sample": number}, as JSON."""
SLICE_KEY: Final = "cometbatch.slice"
"""Metadata of a file that holds one slice of a data set: the same for this slice alone, and its number in the run."""

MEANINGS: Final = (
    ("`model`, `format`, and the last word of each other axis' name",
     "text, integer, number or true/false, as all labels of the axis allow",
     "the label of the axis' value in the line's cell"),
    (f"`{SAMPLE}`", "integer", "which of the answers to this row in this cell the line has, from 0"),
    (f"`{ROW}`", "integer", "which row of the input the line is of, from 0"),
)  # fmt: skip
"""The columns that a matrix adds between the input's and the output's: name, type in plain words, meaning."""

_MAX_EXACT: Final = 2**53  # the largest whole number up to which a float holds each one
_INT64: Final = range(-(2**63), 2**63)


class ResultSlice(Struct, frozen=True):
    """One slice of a result: the label of each axis by the name of its column, in order, and which sample it is."""

    labels: Mapping[str, Label]
    sample: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"labels": dict(self.labels), "sample": self.sample}

    @property
    def words(self) -> str:
        """For a person: `model=model-a, format=chat, sample=0`."""
        return words_of({**self.labels, SAMPLE: self.sample})

    @property
    def cell_words(self) -> str:
        """The same without the sample."""
        return words_of(self.labels)


def words_of(labels: Mapping[str, Label]) -> str:
    """Labels by the names of their columns, for a person."""
    return ", ".join(f"{name}={text_of(label)}" for name, label in labels.items())


def text_of(label: Label) -> str:
    """A label as text, as a column of texts has it."""
    return label if isinstance(label, str) else json.dumps(label)


def encode_slices(slices: Iterable[ResultSlice]) -> str:
    """What a result's metadata say of its slices."""
    return json.dumps([each.to_dict() for each in slices], ensure_ascii=False)


def decode_slices(text: str) -> tuple[ResultSlice, ...] | None:
    """The slices in a result's metadata; None where they are none of a matrix."""
    try:
        found = tuple(ResultSlice(dict(each["labels"]), int(each["sample"])) for each in told(text))
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    return found if all(each.labels and all(map(_is_label, each.labels.values())) for each in found) else None


def _is_label(value: object) -> bool:
    """Whether a value can be a label: it can be told from others, and written."""
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def encode_slice(each: ResultSlice, number: int) -> str:
    """What a file of one slice says of it. `number`: of the slice in the run, which stays whatever the order is."""
    return json.dumps(each.to_dict() | {"number": number}, ensure_ascii=False)


def number_of_slice(text: str) -> int:
    """The number that `encode_slice` was given; 0 where there is none."""
    try:
        return int(told(text)["number"])
    except (ValueError, TypeError, KeyError, OverflowError):
        return 0


def axis_type(labels: Iterable[Label]) -> pa.DataType:
    """The type of an axis' column: the narrowest that holds each label as it was given; text where none else does."""
    found = list(labels)
    if all(isinstance(label, bool) for label in found):
        return pa.bool_()
    if any(isinstance(label, bool | str) for label in found):
        return pa.string()
    whole = [label for label in found if isinstance(label, int)]
    if len(whole) == len(found) and all(label in _INT64 for label in whole):
        return pa.int64()
    return pa.float64() if all(abs(label) <= _MAX_EXACT for label in whole) else pa.string()


class SliceColumns:
    """The columns that a matrix adds: one for each axis, then `sample` and `row`. `prefix`: before their names."""

    def __init__(self, slices: Sequence[ResultSlice], prefix: str = "") -> None:
        self.slices = tuple(slices)
        self.axes: tuple[str, ...] = tuple(dict.fromkeys(name for each in slices for name in each.labels))
        types = {name: axis_type(each.labels[name] for each in slices if name in each.labels) for name in self.axes}
        self.fields: Sequence[pa.Field] = [
            *(pa.field(prefix + name, kind) for name, kind in types.items()),
            pa.field(prefix + SAMPLE, pa.int32()),
            pa.field(prefix + ROW, pa.int64()),
        ]
        self._values = [[_value(each.labels.get(name), kind) for name, kind in types.items()] for each in self.slices]

    @property
    def names(self) -> list[str]:
        """The names, prefix included."""
        return [field.name for field in self.fields]

    @property
    def repeated(self) -> list[str]:
        """Those whose values repeat, so that a dictionary makes them cost nothing: all but the row's number."""
        return self.names[:-1]

    def cells(self, place: int, rows: Sequence[int]) -> list[pa.Array]:
        """The columns of these rows of a slice. `place`: which slice of the result it is."""
        values = (*self._values[place], self.slices[place].sample)
        pairs = zip(values, self.fields, strict=False)
        return [
            *(pa.repeat(pa.scalar(value, field.type), len(rows)) for value, field in pairs),
            pa.array(rows, pa.int64()),
        ]

    def places(self, lines: pa.Table) -> list[int]:
        """Which slice of the result each of these lines is of. Raises `KeyError` for a line of none of them."""
        known = {
            (*values, each.sample): place
            for place, (values, each) in enumerate(zip(self._values, self.slices, strict=True))
        }
        told = (lines.column(name).to_pylist() for name in self.names[:-1])
        return [known[key] for key in zip(*told, strict=True)]


def _value(label: Label | None, kind: pa.DataType) -> Label | None:
    if label is None:
        return None
    return text_of(label) if pa.types.is_string(kind) else label


def slice_names(axes: Iterable[str]) -> list[str]:
    """The names, without prefix, of the columns that a matrix with these axis columns adds."""
    return [*axes, SAMPLE, ROW]
