"""Rows over time: how many ended in each step, how long they took, what they had cost by then. Flat in memory.

Laws: there are at most `MOST_STEPS` steps, of which two are merged into one wherever there would be more. The steps do
not depend on the order in which rows are read.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
import polars as pl
from msgspec import Struct

from cometbatch.money.exact import EXACT
from cometbatch.reports.adding import MILLISECONDS, compacted, summed

MOST_STEPS: Final = 240
FIRST_STEP_MS: Final = 125  # milliseconds; every step is this long, or this long times a power of two
STEP: Final = "step"
LATENCY: Final = "latency"
DIGITS: Final = 3
"""Digits to which latencies are rounded in a step: so few values differ, however many rows there are."""


class Series(Struct, frozen=True):
    """Steps of time, each as long as the others: `step_s` seconds, the first from `begin_ms` (since 1970, UTC).

    Of each step: the rows that succeeded in it, and those that did not; the median and the 95th percentile of their
    latencies in seconds; and the cost in US dollars of all rows up to its end.
    """

    begin_ms: int
    step_s: float
    succeeded: tuple[int, ...]
    others: tuple[int, ...]
    p50_s: tuple[float | None, ...]
    p95_s: tuple[float | None, ...]
    cost_usd: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        said = msgspec.structs.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}


class SeriesAdding:
    """Adds up rows by steps of time."""

    def __init__(self) -> None:
        self._ends: tuple[int, int] | None = None
        self._step_ms = FIRST_STEP_MS
        self._counts: list[pl.DataFrame] = []
        self._latencies: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Some rows. Columns: `finished_ms`, `status`, `latency`, `cost_usd`, `is_reused`.

        Answers that were taken from earlier runs are left out: they were given then. So are rows without a time.
        """
        timed = rows.filter(~pl.col("is_reused") & pl.col("finished_ms").is_not_null())
        if not timed.height:
            return
        moments: list[int] = timed.select(
            pl.col("finished_ms").min().alias("first"), pl.col("finished_ms").max().alias("last")
        ).row(0)  # type: ignore[assignment]
        self._widen(moments[0], moments[1])
        steps = timed.with_columns((pl.col("finished_ms") // self._step_ms).alias(STEP))
        is_whole = pl.col("status") == "succeeded"
        counts = steps.group_by(STEP).agg(
            is_whole.sum().cast(pl.Int64).alias("succeeded"),
            (~is_whole).sum().cast(pl.Int64).alias("others"),
            pl.col("cost_usd").sum(),
        )
        rounded = pl.col(LATENCY).mul(MILLISECONDS).round(0).round_sig_figs(DIGITS).cast(pl.Int64)
        latencies = steps.filter(pl.col(LATENCY).is_finite()).group_by(STEP, rounded).len()
        self._counts = [summed([*self._counts, counts], [STEP])]
        self._latencies = compacted([*self._latencies, latencies], [STEP, LATENCY])

    def _widen(self, first: int, last: int) -> None:
        """Make steps longer until few of them reach from the first moment to the last."""
        low, high = self._ends or (first, last)
        self._ends = first, last = min(low, first), max(high, last)
        merged = 1
        while last // (self._step_ms * merged) - first // (self._step_ms * merged) >= MOST_STEPS:
            merged *= 2
        if merged > 1:
            self._step_ms *= merged
            self._counts = _merged(self._counts, merged, [STEP])
            self._latencies = _merged(self._latencies, merged, [STEP, LATENCY])

    def found(self) -> Series | None:
        """The steps; None where no row has a time."""
        if self._ends is None:
            return None
        first, last = (moment // self._step_ms for moment in self._ends)
        steps = pl.DataFrame({STEP: range(first, last + 1)}, schema={STEP: pl.Int64})
        counts = steps.join(self._counts[0], on=STEP, how="left", maintain_order="left")
        times = summed(self._latencies, [STEP, LATENCY]).sort(STEP, LATENCY) if self._latencies else None
        return Series(
            begin_ms=first * self._step_ms,
            step_s=self._step_ms / MILLISECONDS,
            succeeded=tuple(counts["succeeded"].fill_null(0)),
            others=tuple(counts["others"].fill_null(0)),
            p50_s=_quantiles(steps, times, 0.5),
            p95_s=_quantiles(steps, times, 0.95),
            cost_usd=_running(counts["cost_usd"].to_list()),
        )


def _merged(frames: Sequence[pl.DataFrame], steps: int, keys: Sequence[str]) -> list[pl.DataFrame]:
    """Sums by longer steps: each is this multiple of a step of now."""
    return [summed([frame.with_columns(pl.col(STEP) // steps) for frame in frames], keys)] if frames else []


def _quantiles(steps: pl.DataFrame, times: pl.DataFrame | None, share: float) -> tuple[float | None, ...]:
    """Of each step, the latency in seconds within which this share of its rows was answered."""
    if times is None:
        return (None,) * steps.height
    reached = pl.col("len").cum_sum().over(STEP) >= share * pl.col("len").sum().over(STEP)
    found = times.filter(reached).unique(STEP, keep="first", maintain_order=True)
    beside = steps.join(found, on=STEP, how="left", maintain_order="left")
    return tuple((beside[LATENCY] / MILLISECONDS).to_list())


def _running(amounts: Sequence[Decimal | None]) -> tuple[float, ...]:
    """What all steps cost up to each of them."""
    total, found = Decimal(), []
    for amount in amounts:
        total = EXACT.add(total, amount or Decimal())
        found.append(float(total))
    return tuple(found)
