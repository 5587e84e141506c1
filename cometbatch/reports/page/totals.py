"""What the rows of a result came to, added up from its columns: the tally that its run would tell.

Law: for a finished run, outcomes, tokens, costs and attempts are those of the run's own tally, which `status` prints.
"""

from decimal import Decimal
from typing import Any, Final

import polars as pl

from cometbatch.money.exact import EXACT
from cometbatch.records import CONTRADICTION, Tally
from cometbatch.reports.adding import FAILED, MILLISECONDS, compacted, quantile_s, summed
from cometbatch.reports.page.series import LATENCY

USAGE: Final = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens",
    "cache_write_1h_input_tokens", "reasoning_output_tokens",
)  # fmt: skip


class TotalsAdding:
    """Adds up the rows of one result."""

    def __init__(self) -> None:
        self.rows = 0
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self._sums: dict[str, Any] = {}
        self._latencies: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Some rows, with the columns of the output that every result has, `latency`, `finished_ms`, `is_reused`.

        And `asks`, `rejected_cost_usd` and `reused_cost_usd`.
        """
        self.rows += rows.height
        for name, value in rows.select(**_SUMS).row(0, named=True).items():
            before = self._sums.get(name)
            self._sums[name] = value if before is None else _add(before, value)
        moments = rows.filter(~pl.col("is_reused"))["finished_ms"].drop_nulls()
        if len(moments):
            first, last = int(moments.min()), int(moments.max())  # type: ignore[arg-type]
            self.first_ms = first if self.first_ms is None else min(self.first_ms, first)
            self.last_ms = last if self.last_ms is None else max(self.last_ms, last)
        latency = pl.col(LATENCY)
        counted = rows.filter(latency.is_finite()).group_by(latency.mul(MILLISECONDS).round().cast(pl.Int64)).len()
        self._latencies = compacted([*self._latencies, counted], [LATENCY])

    def latency_s(self, share: float) -> float | None:
        """The latency, in seconds, within which this share of the rows was answered."""
        return quantile_s(summed(self._latencies, [LATENCY]).sort(LATENCY), share) if self._latencies else None

    def tally(self, bill: dict[str, Any]) -> Tally:
        """The rows' tally, with the possible charges that the result's metadata tell of its run (`bill`).

        Of asks that no row's cost includes, the metadata tell what they cost, and not how many they were.
        """
        sums: dict[str, Any] = {name: self._sums.get(name, 0) for name in _COUNTS}
        sums |= {name: self._sums.get(name) or Decimal() for name in _AMOUNTS}
        return Tally(
            **sums,
            charges=bill.get("charges_unknown", 0),
            charges_usd=bill.get("charges_usd", Decimal()),
            charges_unknown=bill.get("charges_unknown", 0),
            rejected_cost_usd=bill.get("rejected_usd", Decimal()),
        )


def _add(before: Any, value: Any) -> Any:
    return EXACT.add(before, value or Decimal()) if isinstance(before, Decimal) else before + value


_IS_FAILED: Final = pl.col("status") == FAILED
_IS_PAID: Final = ~pl.col("is_reused")
_IS_ASKED_AGAIN: Final = pl.col("asks") > 1
_IS_ANSWERED: Final = _IS_PAID & ~_IS_FAILED
_IS_BILLED: Final = _IS_PAID & (~_IS_FAILED | _IS_ASKED_AGAIN)
_EXCLUDES: Final = pl.col("cost_excludes")
_IS_CONTRADICTORY: Final = _EXCLUDES.str.starts_with(CONTRADICTION)
_COUNTS: Final[dict[str, pl.Expr]] = {
    "succeeded": (pl.col("status") == "succeeded").sum(),
    "incomplete": (pl.col("status") == "incomplete").sum(),
    "failed": _IS_FAILED.sum(),
    "attempts": pl.col("attempts").cast(pl.Int64).sum(),
    **{name: pl.col(name).filter(_IS_BILLED).sum() for name in USAGE},
    "unpriced": (_IS_BILLED & pl.col("cost_usd").is_null()).sum(),
    "uncounted": (_IS_BILLED & (pl.col("input_tokens").is_null() | pl.col("output_tokens").is_null())).sum(),
    "excluding": (_IS_ANSWERED & _EXCLUDES.is_not_null() & ~_IS_CONTRADICTORY.fill_null(value=False)).sum(),
    "contradictory": (_IS_ANSWERED & _IS_CONTRADICTORY.fill_null(value=False)).sum(),
    "reasked": (pl.col("asks").cast(pl.Int64) - 1).filter(_IS_BILLED).sum(),
    "reused": pl.col("is_reused").sum(),
    "reused_incomplete": (pl.col("is_reused") & (pl.col("status") == "incomplete")).sum(),
    "reused_unpriced": (pl.col("is_reused") & pl.col("reused_cost_usd").is_null()).sum(),
}
_AMOUNTS: Final[dict[str, pl.Expr]] = {
    "cost_usd": pl.col("cost_usd").sum(),
    "reasked_cost_usd": pl.col("rejected_cost_usd").filter(_IS_BILLED & _IS_ASKED_AGAIN).sum(),
    "reused_cost_usd": pl.col("reused_cost_usd").sum(),
}
_SUMS: Final = {**_COUNTS, **_AMOUNTS}
