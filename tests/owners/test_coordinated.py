"""Several owners and a real coordinator on virtual time: one rate, one budget, one pace, one stop for all of them."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from cometbatch.runner.ports import Ended
from tests import virtual_time
from tests.owners.coordinated import Coordinated, HostLine
from tests.owners.working import SharedRun
from tests.run_on_disk import RunOnDisk
from tests.scripted_run import ScriptedService, always, answer

WORKERS = 4


def worked(
    disk: RunOnDisk,
    asked: ScriptedService,
    *,
    workers: int = WORKERS,
    line: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    meanwhile: Callable[[Coordinated, list[HostLine]], Coroutine[Any, Any, None]] | None = None,
    **options: Any,
) -> tuple[Coordinated, list[Ended | BaseException]]:
    """All owners of a run to their ends, with a driver beside them."""

    async def main() -> tuple[Coordinated, list[Ended | BaseException]]:
        concurrency = options.pop("concurrency", 16)
        told = {"owners": workers, "concurrency": concurrency, "queues": len(disk.queues), **(settings or {})}
        coordinated = Coordinated(range(disk.manifest.partitions_in_slice), **told)
        run = SharedRun(disk)
        lines = [HostLine(coordinated, seed=each, **(line or {})) for each in range(workers)]
        beside = [asyncio.ensure_future(coordinated.drive())]
        if meanwhile is not None:
            beside.append(asyncio.ensure_future(meanwhile(coordinated, lines)))
        try:
            ended = await asyncio.gather(
                *(
                    run.work(number + 1, each, asked, slots=concurrency, concurrency=concurrency, **options)
                    for number, each in enumerate(lines)
                ),
                return_exceptions=True,
            )
            await coordinated.say()
            return coordinated, ended
        finally:
            for each in beside:
                each.cancel()
            await coordinated.host.aclose()

    return virtual_time.run(main())


def test_owners_answer_all_rows_once_under_one_ceiling(tmp_path: Path) -> None:
    """No more is in flight than the run may have, all owners together; the driver hears of each row."""
    disk, asked = RunOnDisk(tmp_path, 400, 10), ScriptedService(always(answer(), 0.5))
    coordinated, ended = worked(disk, asked)
    assert ended == [Ended()] * WORKERS
    assert sorted(asked.rows) == list(range(400))
    assert disk.parts()["n"].to_pylist() == list(range(400))
    assert asked.peak <= 16
    assert coordinated.driven[-1].recorded.succeeded == 400
    assert coordinated.driven[-1].is_over


def test_owners_keep_one_rate(tmp_path: Path) -> None:
    """At 100 requests a second, no second has more than the limit and the bursts; nearly all of the rate is used."""
    disk, asked = RunOnDisk(tmp_path, 1500, 25), ScriptedService(always(answer(), 0.3))
    _, ended = worked(disk, asked, settings={"requests_per_minute": 6000.0}, concurrency=200)
    assert ended == [Ended()] * WORKERS
    times = sorted(at for at, _ in asked.sent)
    peak = max(sum(at <= each < at + 1 for each in times) for at in times)
    assert peak <= 100 + max(WORKERS, 5)
    assert 1500 / times[-1] >= 0.93 * 100


def test_lines_that_lose_messages_change_nothing(tmp_path: Path) -> None:
    """One of 25 messages and answers gets lost: each row is answered once and is in the result."""
    disk, asked = RunOnDisk(tmp_path, 200, 10), ScriptedService(always(answer(), 0.5))
    coordinated, ended = worked(disk, asked, line={"loses": 0.04})
    assert ended == [Ended()] * WORKERS
    assert sorted(asked.rows) == list(range(200))
    assert disk.parts()["n"].to_pylist() == list(range(200))
    assert coordinated.driven[-1].recorded.succeeded == 200
