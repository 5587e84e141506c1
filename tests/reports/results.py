"""Results as a run publishes them, with scores, made from what each row is to hold."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cometbatch.evaluation.score_columns import TYPES
from cometbatch.results.columns import COLUMNS, Column
from cometbatch.results.score_columns import SCORES_KEY, score_columns
from cometbatch.results.slices import SLICES_KEY, ResultSlice, SliceColumns, encode_slices

NUMERIC = {"name": "correct", "scorer": "numeric", "gold": "answer"}
Row = Mapping[str, Any]
"""What a row has in `score`, `why`, `status`, `cost_usd`, `latency_s`, tokens, or another output column."""


def right(**others: Any) -> dict[str, Any]:
    """A right answer."""
    return {"score": 1.0, **others}


def wrong(**others: Any) -> dict[str, Any]:
    """A wrong answer."""
    return {"score": 0.0, **others}


def incomplete(why: str = "refused", **others: Any) -> dict[str, Any]:
    """An answer that the model left incomplete."""
    return {"score": 0.0, "why": why, "status": "incomplete", **others}


def failed(**others: Any) -> dict[str, Any]:
    """A row that failed."""
    return {"score": None, "why": "failed", "status": "failed", "cost_usd": None, "latency_s": None, **others}


def write(
    path: Path,
    cells: Sequence[tuple[Mapping[str, Any], Sequence[Sequence[Row]]]],
    *,
    inputs: Mapping[str, Sequence[Any]] | None = None,
    scores: Sequence[Mapping[str, Any]] = (NUMERIC,),
    metadata: Mapping[str, Any] | None = None,
    group_rows: int = 1_000,
    has_matrix: bool = True,
    columns: Sequence[Column] = COLUMNS,
    prefix: str = "",
) -> Path:
    """Write a result. `cells`: of each the labels, then its rows for each sample. `inputs`: the input's columns.

    Without a matrix there is one cell with one sample, and its label `model` is the job's. Scores after the first one
    have the cells `NAME` and `NAME_why` of the rows.
    """
    rows = len(cells[0][1][0])
    names = [f"q{at}" for at in range(rows)]
    inputs = inputs or {"question": [f"What is {at}?" for at in range(rows)], "answer": [str(at) for at in range(rows)]}
    slices = [ResultSlice(dict(labels), sample) for labels, samples in cells for sample in range(len(samples))]
    added = SliceColumns(slices, prefix)
    names_of = [
        *inputs,
        *(added.names if has_matrix else []),
        *(prefix + column.name for column in columns),
        *score_columns([score["name"] for score in scores], prefix),
    ]
    tables = []
    for place, lines in enumerate(lines for _, samples in cells for lines in samples):
        filled = [_filled(line, names[at], place, at) for at, line in enumerate(lines)]
        arrays = [pa.array(values) for values in inputs.values()]
        arrays += added.cells(place, range(rows)) if has_matrix else []
        arrays += [pa.array([line.get(column.name) for line in filled], column.type) for column in columns]
        for number, score in enumerate(scores):
            own = score_columns([score["name"]]) if number else ["score", "score_answer", "why"]
            arrays += [
                pa.array([line.get(cell) for line in filled], kind) for cell, kind in zip(own, TYPES, strict=True)
            ]
        tables.append(pa.Table.from_arrays(arrays, names=names_of))
    said = {
        SLICES_KEY: encode_slices(slices) if has_matrix else json.dumps([{"label": "", "target": 0, "sample": 0}]),
        SCORES_KEY: json.dumps(list(scores)),
        "cometbatch.job": json.dumps({"target": {"model": cells[0][0].get("model", "model-a")}}),
        "cometbatch.bill": json.dumps({"charges_usd": "0", "replaced_charges_usd": "0", "charges_unknown": 0}),
        **{key: json.dumps(value) for key, value in (metadata or {}).items()},
    }
    table = pa.concat_tables(tables).replace_schema_metadata(said)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group_rows)
    return path


def _filled(line: Row, name: str, place: int, at: int) -> dict[str, Any]:
    usual = {
        "custom_id": name,
        "status": "succeeded",
        "response": "#### 42",
        "finish_reason": "stop",
        "input_tokens": 100,
        "output_tokens": 20,
        "cost_usd": Decimal("0.001"),
        "attempts": 1,
        "latency_s": 1.0,
        "http_status": 200,
        "request_hash": hashlib.sha256(f"{place} {at}".encode()).hexdigest(),
    }
    return usual | dict(line)
