"""What a row may cost, in counts, which are the same on a busy machine: nothing here looks at a clock.

A run in this process against the stub server at 0 ms, over the connections that a real run uses. The counts of a short
run are subtracted from those of a longer one, so that what a run costs by itself does not matter. A bound is what was
counted when it was set, and 15 % more: a change that needs more sets it anew, and says why.
"""

import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TypeVar

import pytest

import cometbatch
from tests.benchmarks.measuring import StubServer
from tests.benchmarks.rivals import QUESTION, SUBJECT, count_right, write_job
from tests.workbench import KEY, KEY_ENV

IN_FLIGHT = 64
PARTITION_ROWS = 100  # what is held is a few partitions; so that both runs have many
FILLER_BYTES = 2000  # so that the input is several times as long as the buffers that it is read into
WARM_UP_ROWS = 200
MOST_CALLS = {"call": 160.0, "c_call": 200.0}  # of functions in Python and in C, as `sys.setprofile` names them
MOST_USUAL_CALLS = {"call": 186.0, "c_call": 222.0}  # at a pace and under a budget
MOST_BYTES_HELD = 150.0  # a record alone has 500
Measured = TypeVar("Measured")


class Table:
    """A job over this many rows, and the server that answers it."""

    def __init__(self, folder: Path, rows: int, settings: Sequence[str] = ()) -> None:
        self._folder, self._rows, self._settings = folder, rows, settings

    def carry_out(self, measured: Callable[[Callable[[], None]], Measured]) -> Measured:
        """What a measure says of the run; afterwards every row has its own answer."""
        output = self._folder / f"{self._rows}.parquet"
        with StubServer(Path(sys.executable), latency_s=0.0) as stub:
            path = write_job(stub.base_url, self._write(), output, IN_FLIGHT)
            job = cometbatch.load_job(path, [f"output.partition_rows={PARTITION_ROWS}", *self._settings])
            found = measured(lambda: _run(job))
        assert count_right(SUBJECT.answers(output), self._rows) == self._rows
        return found

    def _write(self) -> Path:
        path = self._folder / f"{self._rows}.csv"
        lines = (f'{row},"{QUESTION.format(row)}",{"-" * FILLER_BYTES}\n' for row in range(self._rows))
        path.write_text("id,q,filler\n" + "".join(lines), encoding="utf-8")
        return path


def _run(job: cometbatch.Job) -> None:
    assert cometbatch.run(job, fresh=True, progress=True).all_succeeded


def both(
    folder: Path, rows: tuple[int, int], measured: Callable[[Callable[[], None]], Measured], *settings: str
) -> list[Measured]:
    """What a measure says of a shorter and a longer run, in a process where every import is done."""
    return [Table(folder, count, settings).carry_out(measured) for count in (WARM_UP_ROWS, *rows)][1:]


def counted(work: Callable[[], None]) -> Counter[str]:
    """How many calls it makes, in all threads that it starts and in this one."""
    counts = Counter[str]()

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        counts[event] += 1

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return counts


def most_held(work: Callable[[], None]) -> int:
    """The most bytes that Python objects held at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)


@pytest.mark.parametrize(
    ("settings", "most_calls"),
    [((), MOST_CALLS), (("limits.adaptive=true", "budget.max_cost_usd=100"), MOST_USUAL_CALLS)],
    ids=["free", "usual"],
)
def test_a_row_needs_few_calls(tmp_path: Path, settings: tuple[str, ...], most_calls: dict[str, float]) -> None:
    """Calls of functions for each row, from reading it to publishing its answer, progress included."""
    rows = 500, 1500
    few, more = both(tmp_path, rows, counted, *settings)
    each = {event: (more[event] - few[event]) / (rows[1] - rows[0]) for event in most_calls}
    assert all(each[event] <= most for event, most in most_calls.items()), each


def test_a_row_that_is_done_holds_no_memory(tmp_path: Path) -> None:
    """The peak of 31 times as many rows is the same, but for what is known of each partition.

    So many that what is in memory by chance does not count: reading, writing and waiting for a slow disk meet in the
    longer run more often, and were seen to come to 2.7 MB when they do.
    """
    rows = 1000, 31000
    few, more = both(tmp_path, rows, most_held)
    held = (more - few) / (rows[1] - rows[0])
    assert held <= MOST_BYTES_HELD, held
