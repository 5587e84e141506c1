"""What the columns of a result are: axes, row, output, scores, input; by its schema and its metadata."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
from msgspec import Struct

from cometbatch.errors import InputError
from cometbatch.job.matrix import MODEL
from cometbatch.results.columns import ASKS, CUSTOM_ID, REUSED_FROM
from cometbatch.results.rows import output_of
from cometbatch.results.score_columns import scores_of
from cometbatch.results.slices import ROW, SLICES_KEY, Label, ResultSlice, decode_slices
from cometbatch.results.target_column import TARGET_COLUMNS
from cometbatch.results.told import told, told_bill

_JOB_KEY: Final = "cometbatch.job"
_TARGETS_KEY: Final = "cometbatch.targets"
_BILL_KEY: Final = "cometbatch.bill"


class Layout(Struct, frozen=True):
    """The columns of a result by their names in its files.

    `axes`: the columns of axes by their names without prefix, in order; none without a matrix. `row`: the column with
    the row's number; None without a matrix, where a line's place is its row. `scores`: the settings of each score by
    its name; `score_columns`: its columns' names begin with these. `inputs`: the input's columns. `custom_id`: the
    column of names. `target`: the column of a row's target, where models differ by it; `models`: by that number, or
    the one that all rows were asked of. `cells`: the labels of each cell. `asks`, `reused_from`: those columns of the
    output, where there are such. `bill`: what the whole run cost, as its metadata tell it. `token_cap`: the job's,
    on an answer; None without one.
    """

    prefix: str
    axes: dict[str, str]
    row: str | None
    scores: dict[str, dict[str, Any]]
    score_columns: dict[str, str]
    inputs: tuple[str, ...]
    custom_id: str | None
    target: str | None
    models: tuple[str, ...]
    cells: tuple[dict[str, Label], ...]
    asks: str | None
    reused_from: str | None
    bill: dict[str, Any]
    token_cap: int | None = None


def layout_of(schema: pa.Schema, name: str) -> Layout:
    """The layout of a result; `name`: how a person calls it. Raises `InputError` where that is no result."""
    found = output_of(schema)
    if found is None:
        raise InputError(f"{name}: this is no result of cometbatch. Give a job file, or the result of a run.")
    if twice := [each for each, times in Counter(schema.names).items() if times > 1]:
        raise InputError(f"{name}: this is no result of cometbatch: it has two columns named {twice[0]!r}.")
    prefix, columns = found
    metadata = schema.metadata or {}
    said = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in metadata.items()}
    slices = decode_slices(said.get(SLICES_KEY, "")) or ()
    names = dict.fromkeys(label for each in slices for label in each.labels)
    axes = {label: prefix + label for label in names if prefix + label in schema.names}
    inputs = tuple(schema.names[: _first_of_output(schema.names, prefix, axes.values())])
    scores = {each["name"]: each for each in scores_of(said)}
    starts = {each: prefix + each if prefix + each in schema.names else each for each in scores}
    ids = [each for each in (prefix + CUSTOM_ID, CUSTOM_ID) if each in schema.names]
    models = _models(said)
    output = {column.name: prefix + column.name for column in columns}
    asks, reused_from = output.get(ASKS), output.get(REUSED_FROM)
    targets = [output[each] for each in TARGET_COLUMNS if each in output]
    return Layout(
        prefix,
        axes,
        prefix + ROW if axes else None,
        {each: settings for each, settings in scores.items() if starts[each] in schema.names},
        starts,
        inputs,
        ids[0] if ids else None,
        targets[0] if targets and len(set(models)) > 1 and not axes else None,
        models,
        _cells(slices, models) if axes else _cells((), models),
        asks,
        reused_from,
        told_bill(said.get(_BILL_KEY)),
        _token_cap(said),
    )


def _first_of_output(names: Sequence[str], prefix: str, axes: Iterable[str]) -> int:
    """The place of the first column that is not the input's, whose own may be called like some of the output's."""
    status = names.index(prefix + "status")
    is_named = status > 0 and names[status - 1] == prefix + CUSTOM_ID
    return min([status - is_named, *map(names.index, axes)])


def _cells(slices: Iterable[ResultSlice], models: Iterable[str]) -> tuple[dict[str, Label], ...]:
    """The labels of each cell; of a run without a matrix, one for each model."""
    found = dict.fromkeys(tuple(each.labels.items()) for each in slices)
    return tuple(map(dict, found)) or tuple({MODEL: model} for model in dict.fromkeys(models))


def _models(said: Mapping[str, str]) -> tuple[str, ...]:
    """The model of each target, or the job's."""
    targets = [_model_of(_mapping(each).get("target")) for each in _list(said.get(_TARGETS_KEY))]
    return tuple(targets) or (_model_of(_mapping(told(said.get(_JOB_KEY))).get("target")),)


def _token_cap(said: Mapping[str, str]) -> int | None:
    found = _mapping(_mapping(told(said.get(_JOB_KEY))).get("params")).get("max_output_tokens")
    return found if isinstance(found, int) else None


def _model_of(target: object) -> str:
    return str(_mapping(target).get(MODEL) or "?")


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(text: str | None) -> list[Any]:
    found = told(text)
    return found if isinstance(found, list) else []
