"""Rows as the first pass of a page reads them, made of what each is to hold."""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import polars as pl


class Row(NamedTuple):
    """A row: of which row of the input, its status and kind, and what it took. `cost`: in hundredths of a dollar."""

    row: int
    status: str = "succeeded"
    kind: str | None = "stop"
    cost: int | None = None
    latency: float | None = None
    tokens: int | None = None
    finished_ms: int | None = None
    is_reused: bool = False
    message: str | None = None


def frame(rows: Sequence[Row], first: int = 0) -> pl.DataFrame:
    """The rows as columns. `first`: the place of the first one."""
    costs = [None if each.cost is None else Decimal(each.cost) / 100 for each in rows]
    columns = {
        "place": pl.Series(range(first, first + len(rows)), dtype=pl.Int64),
        "row": pl.Series([each.row for each in rows], dtype=pl.Int64),
        "status": pl.Series([each.status for each in rows], dtype=pl.String),
        "kind": pl.Series([each.kind for each in rows], dtype=pl.String),
        "message": pl.Series([each.message for each in rows], dtype=pl.String),
        "label": pl.Series([f"row-{each.row}" for each in rows], dtype=pl.String),
        "cost_usd": pl.Series(costs, dtype=pl.Decimal(38, 18)),
        "cost": pl.Series([None if each is None else float(each) for each in costs], dtype=pl.Float64),
        "latency": pl.Series([each.latency for each in rows], dtype=pl.Float64),
        "length": pl.Series([each.tokens for each in rows], dtype=pl.Float64),
        "finished_ms": pl.Series([each.finished_ms for each in rows], dtype=pl.Int64),
        "is_reused": pl.Series([each.is_reused for each in rows], dtype=pl.Boolean),
    }
    return pl.DataFrame(columns)
