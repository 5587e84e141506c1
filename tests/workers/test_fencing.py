"""What a session does that finds workers of a dead one, and what is told of it meanwhile."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import cometbatch
from cometbatch.commands.fencing import fenced
from cometbatch.commands.observers import Listener, Observers
from cometbatch.errors import RunLockedError
from cometbatch.run_state.directory import RunDirectory
from tests import virtual_time
from tests.workbench import Workbench, carry_out, simulator


class Noted(Listener):
    """Keeps what a person is told."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def noted(self, words: str) -> None:
        self.words.append(words)


def waited_s(directory: RunDirectory, *listeners: Listener) -> float:
    """How long whoever gets the lock waits, in virtual seconds."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with directory.locked():
            await fenced(directory, directory.lock.thread(), Observers(listeners))
        return loop.time() - began

    return virtual_time.run(main())


def test_fence(tmp_path: Path) -> None:
    """Workers of a driver that died are waited for as long as they may send, which is told once; after that never."""
    directory, noted = RunDirectory(tmp_path / "run"), Noted()
    directory.create()
    with directory.locked():
        directory.epoch.open(1, "workers", 3.0)
    assert 3.0 <= waited_s(directory, noted) < 3.1
    assert noted.words == ["Waiting 3 s for the workers of the last session, which may still send."]
    assert waited_s(directory, noted) == 0.0
    assert len(noted.words) == 1


def test_no_fence(tmp_path: Path) -> None:
    """Nobody waits where no session had workers, or the last one with some ended in order."""
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    assert waited_s(directory) == 0.0
    with directory.locked():
        directory.epoch.open(1, "workers", 3.0)
        directory.epoch.close()
    assert waited_s(directory) == 0.0


def test_cut_off(tmp_path: Path) -> None:
    """A wait that is cut off is begun anew by the next session: nobody knows how long its workers were waited for."""
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    with directory.locked():
        directory.epoch.open(1, "workers", 3.0)

    async def main() -> None:
        with directory.locked():
            task = asyncio.create_task(fenced(directory, directory.lock.thread(), Observers()))
            await asyncio.sleep(1.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    virtual_time.run(main())
    assert 3.0 <= waited_s(directory) < 3.1


def test_status(tmp_path: Path) -> None:
    """While a session waits, `status` says so, and a second one is refused; a dead one's run is stopped."""
    bench = Workbench(tmp_path)
    bench.write_rows(4)
    job = bench.job()
    with pytest.raises(cometbatch.ServiceRefusedError):
        carry_out(job, simulator(credit_usd=Decimal(0)))
    directory = RunDirectory(bench.run_directory)
    with directory.locked():
        directory.epoch.open(1, "workers", 3.0)
        assert not cometbatch.status(job).is_waiting
        directory.epoch.wait()
        found = cometbatch.status(job)
        assert "waiting for workers of the last session" in found.describe()
        told: dict[str, Any] = json.loads(json.dumps(found.to_dict(), default=str))
        assert told["running"]
        assert told["waiting_for_workers"]
        with pytest.raises(RunLockedError):
            cometbatch.run(job, progress=False)
    found = cometbatch.status(job)
    assert not found.running
    assert ": stopped" in found.describe()
