"""Rows over time in few steps: laws."""

from decimal import Decimal

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.reports.page.series import FIRST_STEP_MS, MOST_STEPS, Series, SeriesAdding
from tests.page.rows import Row, frame

ROWS = st.lists(
    st.builds(
        Row,
        row=st.just(0),
        status=st.sampled_from(["succeeded", "failed", "incomplete"]),
        cost=st.none() | st.integers(0, 500),
        latency=st.none() | st.integers(1, 900_000).map(lambda each: each / 1000),
        finished_ms=st.none() | st.integers(1_700_000_000_000, 1_700_000_500_000) | st.integers(10**12, 2 * 10**12),
        is_reused=st.sampled_from([False, False, False, True]),
    ),
    max_size=60,
)


def series_of(rows: list[Row], size: int = 1_000) -> Series | None:
    """The series, from this number of rows at a time."""
    adding = SeriesAdding()
    for begin in range(0, len(rows), size):
        adding.add(frame(rows[begin : begin + size]))
    return adding.found()


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(1, 20), st.randoms(use_true_random=False))
def test_steps_do_not_depend_on_how_rows_are_read(rows: list[Row], size: int, order: object) -> None:
    """Neither on their order nor on how many are read at a time."""
    shuffled = list(rows)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert series_of(rows) == series_of(rows, size) == series_of(shuffled, size)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_each_row_is_in_its_step(rows: list[Row]) -> None:
    """There are few steps; counts and costs add up; a step's latencies are those of its rows, to three digits."""
    timed = [each for each in rows if each.finished_ms is not None and not each.is_reused]
    found = series_of(rows)
    if found is None:
        assert not timed
        return
    steps = len(found.succeeded)
    assert 1 <= steps <= MOST_STEPS
    step_ms = round(found.step_s * 1000)
    assert step_ms % FIRST_STEP_MS == 0
    assert (step_ms // FIRST_STEP_MS).bit_count() == 1
    of_step: list[list[Row]] = [[] for _ in range(steps)]
    for each in timed:
        assert each.finished_ms is not None
        of_step[(each.finished_ms - found.begin_ms) // step_ms].append(each)
    assert of_step[0]
    assert of_step[-1]
    total = Decimal()
    for at, some in enumerate(of_step):
        assert found.succeeded[at] == sum(each.status == "succeeded" for each in some)
        assert found.others[at] == len(some) - found.succeeded[at]
        total += sum(Decimal(each.cost or 0) / 100 for each in some)
        assert found.cost_usd[at] == float(total)
        latencies = sorted(each.latency for each in some if each.latency is not None)
        for share, quantiles in ((0.5, found.p50_s), (0.95, found.p95_s)):
            quantile = quantiles[at]
            if not latencies:
                assert quantile is None
                continue
            exact = next(x for rank, x in enumerate(latencies, 1) if rank >= share * len(latencies))
            assert quantile is not None
            assert abs(quantile - exact) <= 0.005 * exact


def test_long_runs_have_few_steps_with_long_latencies_rounded() -> None:
    """Ten hours in 141 steps, however often rows come; memory holds few numbers of each."""
    adding = SeriesAdding()
    for hour in range(10):
        moments = pl.int_range(hour * 3_600_000, (hour + 1) * 3_600_000, 100, eager=True)
        rows = pl.DataFrame({"finished_ms": moments}).with_columns(
            pl.lit("succeeded").alias("status"),
            (pl.col("finished_ms") % 9_973 / 1000 + 0.5).alias("latency"),
            pl.lit(Decimal("0.01"), pl.Decimal(38, 18)).alias("cost_usd"),
            pl.lit(value=False).alias("is_reused"),
        )
        adding.add(rows)
    found = adding.found()
    assert found is not None
    assert (found.step_s, len(found.succeeded)) == (256.0, 141)
    assert sum(found.succeeded) == 360_000
    assert found.cost_usd[-1] == 3600.0
