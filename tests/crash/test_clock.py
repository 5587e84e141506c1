"""The wall clock is for people: it may jump by days in the middle of a run, and nothing waits for it or is lost."""

import asyncio
import datetime as dt
import itertools
from collections.abc import Callable
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

import cometbatch
from cometbatch.commands import row_maker, run
from tests import virtual_time
from tests.crash.test_power_cut import row_of
from tests.workbench import Network, Workbench, started

ROWS = 40
NOON = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
JUMPS = {
    "forward": [NOON, NOON + DAY],
    "back": [NOON, NOON - DAY],
    "to and fro": [NOON, NOON + 400 * DAY, NOON - 400 * DAY],
    "to the beginning of time": [NOON, dt.datetime(1970, 1, 1, tzinfo=dt.UTC)],
}


def pushing_back(headers: Callable[[], dict[str, str]]) -> Network:
    """A service that refuses every row once, and says with a date until when."""
    refused: set[int] = set()

    def answer(request: httpx.Request) -> httpx.Response | None:
        row = row_of(request)
        if row is None or row in refused or row % 10:
            return None
        refused.add(row)
        return httpx.Response(429, headers=headers(), json={"error": {"message": "wait", "code": ""}})

    return Network(answer=answer)


@pytest.mark.parametrize("jumps", JUMPS)
def test_a_clock_that_jumps_delays_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jumps: str
) -> None:
    """Each look at the clock finds another day; a pause until a date is counted from the reply's own date."""
    clock = itertools.cycle(JUMPS[jumps])
    for module in (run, row_maker):
        monkeypatch.setattr(module, "now", lambda: next(clock))
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    network = pushing_back(
        lambda: {
            "date": format_datetime(NOON, usegmt=True),
            "retry-after": format_datetime(NOON + dt.timedelta(seconds=3), usegmt=True),
        }
    )
    summary, seconds = virtual_time.run(timed(bench, network))
    assert (summary.finished, summary.succeeded) == (True, ROWS)
    assert 3 <= seconds < 60
    assert bench.result().column("custom_id").to_pylist() == [f"{row:04d}" for row in range(ROWS)]
    assert cometbatch.verify(bench.output).ok
    assert cometbatch.status(bench.output).summary.finished


async def timed(bench: Workbench, network: Network) -> tuple[cometbatch.RunSummary, float]:
    """What a run came to, and how long it took on the loop's own clock."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    return await started(bench.job(limits={"concurrency": 4}), network), loop.time() - began


def test_a_pause_until_a_date_without_a_clock_of_the_services_own_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our clock is a year behind, so the date is a year ahead: no pause is longer than an hour all the same."""
    monkeypatch.setattr(run, "now", lambda: NOON - 365 * DAY)
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    network = pushing_back(lambda: {"retry-after": format_datetime(NOON, usegmt=True)})
    summary, seconds = virtual_time.run(timed(bench, network))
    assert (summary.finished, summary.succeeded) == (True, ROWS)
    assert seconds < 4 * 3600 + 60  # four rows are refused, one after the other
