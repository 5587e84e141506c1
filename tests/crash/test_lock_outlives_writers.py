"""The lock of a run is held until the last thread that can write has ended, however the run ends."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import cometbatch
from cometbatch.errors import RunLockedError
from cometbatch.results import parts
from cometbatch.run_state.run import directory_of
from tests.workbench import Network, Workbench

ROWS = 2


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A table of two rows, one partition."""
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    return bench


class SlowDisk:
    """A part takes until `end` to be written."""

    def __init__(self) -> None:
        self.writing, self.end = threading.Event(), threading.Event()

    @contextmanager
    def under(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        really = parts.write_part

        def slowly(*arguments: Any, **options: Any) -> None:
            self.writing.set()
            assert self.end.wait(30)
            really(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(parts, "write_part", slowly)
            yield


def refused(bench: Workbench, network: Network) -> bool:
    """Whether a second run is refused, because another has the lock."""
    try:
        asyncio.run(cometbatch.run_async(bench.job(), progress=False, http=network))
    except RunLockedError:
        return True
    return False


def test_a_cancelled_run_keeps_its_lock_while_a_part_is_written(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run that was started at once paid rows again, and the bill did not say so."""
    network, disk = Network(), SlowDisk()
    lock = directory_of(bench.output, is_dataset=False).lock

    async def main() -> None:
        running = asyncio.create_task(cometbatch.run_async(bench.job(), progress=False, http=network))
        await asyncio.to_thread(disk.writing.wait)
        for _ in range(3):  # as often as it is asked
            running.cancel()
            await asyncio.sleep(0)
        assert lock.is_held()
        assert await asyncio.to_thread(refused, bench, network)
        disk.end.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not lock.is_held()

    with disk.under(monkeypatch):
        asyncio.run(main())
    summary = asyncio.run(cometbatch.run_async(bench.job(), progress=False, http=network))
    assert (summary.succeeded, network.posts) == (ROWS, ROWS)


def test_a_loop_that_is_torn_down_waits_for_the_writer(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """`asyncio.run` cancels every task at its end, those that wait for a thread too; the lock still waits for it."""
    network, disk = Network(), SlowDisk()
    lock = directory_of(bench.output, is_dataset=False).lock
    held: list[bool] = []

    async def main() -> None:
        running = asyncio.create_task(cometbatch.run_async(bench.job(), progress=False, http=network))
        await asyncio.to_thread(disk.writing.wait)
        assert not running.done()

    def release_later() -> None:
        disk.writing.wait(30)
        held.extend(lock.is_held() for _ in range(10) if not threading.Event().wait(0.02))
        disk.end.set()

    watching = threading.Thread(target=release_later)
    watching.start()
    with disk.under(monkeypatch):
        asyncio.run(main())
    watching.join()
    assert all(held)
    assert not lock.is_held()
    summary = asyncio.run(cometbatch.run_async(bench.job(), progress=False, http=network))
    assert (summary.succeeded, network.posts) == (ROWS, ROWS)
