"""Several owners and a real coordinator on virtual time: one rate, one budget, one pace, one stop for all of them."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from cometbatch.control.first_answers import FirstAnswers
from cometbatch.records import AskAgain
from cometbatch.run_state.ownership import LostOwnerError
from cometbatch.runner.ports import Ended
from cometbatch.runner.queue_start import QueueStart
from tests import virtual_time
from tests.owners.coordinated import Coordinated, HostLine
from tests.owners.working import SharedRun
from tests.run_on_disk import RunOnDisk
from tests.scripted_run import PRICE_USD, RowsInMemory, ScriptedService, always, answer, make_runner, refused

WORKERS = 4


class Bucket:
    """A service's limit: a number of requests a second, half a second's at once."""

    def __init__(self, per_s: float) -> None:
        self._per_s, self._level, self._at = per_s, per_s / 2, 0.0

    def takes(self, at: float) -> bool:
        """Whether a request that comes now is answered."""
        self._level = min(self._per_s / 2, self._level + (at - self._at) * self._per_s)
        self._at = at
        is_taken = self._level >= 1
        self._level -= is_taken
        return is_taken


class MultiSet(set[int]):
    """Rows that are sent: one that two owners send at a time is there until both have it."""

    def __contains__(self, row: object) -> bool:
        return False

    def remove(self, row: int) -> None:
        """One of them has its answer."""
        self.discard(row)


def now() -> float:
    """Virtual seconds."""
    return asyncio.get_running_loop().time()


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
    disk, asked = RunOnDisk(tmp_path, 600, 25), ScriptedService(always(answer(), 0.3))
    _, ended = worked(disk, asked, settings={"requests_per_minute": 6000.0}, concurrency=200)
    assert ended == [Ended()] * WORKERS
    times = sorted(at for at, _ in asked.sent)
    peak = max(sum(at <= each < at + 1 for each in times) for at in times)
    assert peak <= 100 + max(WORKERS, 5)
    assert 600 / times[-1] >= 0.93 * 100


def test_at_a_low_limit_owners_take_turns(tmp_path: Path) -> None:
    """Six requests a second, two models: they leave one by one, of all owners, and none of the limit is wasted."""
    disk, asked = RunOnDisk(tmp_path, 30, 3, queues=((0,), (1,))), ScriptedService(always(answer(), 0.3))
    _, ended = worked(disk, asked, settings={"requests_per_minute": 360.0})
    assert ended == [Ended()] * WORKERS
    times = sorted(at for at, _ in asked.sent)
    assert len(times) == 60
    assert min(later - before for before, later in itertools.pairwise(times)) >= 1 / 6 - 0.06
    assert times[-1] <= 60 / 6 * 1.15


def test_lines_that_lose_messages_change_nothing(tmp_path: Path) -> None:
    """One of 25 messages and answers gets lost: each row is answered once and is in the result."""
    disk, asked = RunOnDisk(tmp_path, 200, 10), ScriptedService(always(answer(), 0.5))
    coordinated, ended = worked(disk, asked, line={"loses": 0.04})
    assert ended == [Ended()] * WORKERS
    assert sorted(asked.rows) == list(range(200))
    assert disk.parts()["n"].to_pylist() == list(range(200))
    assert coordinated.driven[-1].recorded.succeeded == 200


def test_everyone_waits_while_one_owner_probes(tmp_path: Path) -> None:
    """For 10 s all are refused with `Retry-After` of a minute: one request at a time probes, and all go on after it."""
    disk = RunOnDisk(tmp_path, 600, 15)
    asked = ScriptedService(always(answer(), 0.3))
    asked.script = lambda _row, _attempt: (
        (0.02, refused(429, retry_after="60")) if 3.0 < now() < 13.0 else (0.3, answer())
    )
    _, ended = worked(disk, asked, max_wait_s=1.0)
    assert ended == [Ended()] * WORKERS
    assert disk.parts()["n"].to_pylist() == list(range(600))
    times = [at for at, _ in asked.sent]
    assert sum(6.0 < at < 13.0 for at in times) <= 4
    assert sum(20.3 < at < 27.0 for at in times) >= 100


def test_a_refused_key_stops_all_owners(tmp_path: Path) -> None:
    """Each sends no more than it had in flight when it was told."""
    disk, asked = RunOnDisk(tmp_path, 600, 15), ScriptedService(always(refused(401, message="no such key"), 0.2))
    coordinated, ended = worked(disk, asked)
    assert [each.stop.kind for each in ended if isinstance(each, Ended) and each.stop is not None] == ["refused"] * 4
    assert len(asked.sent) <= 16
    assert [each.words.kind for each in coordinated.driven[-1].stops] == ["refused"]


def test_rows_that_fail_with_the_same_error_are_counted_over_all_owners(tmp_path: Path) -> None:
    """The model refuses each row: the run stops after `max_alike` of them, and what was in flight."""
    disk, asked = RunOnDisk(tmp_path, 600, 15), ScriptedService(always(refused(400, message="not so"), 1.0))
    coordinated, ended = worked(disk, asked, max_alike=40)
    assert all(isinstance(each, Ended) and each.stop is not None for each in ended)
    assert len(asked.sent) <= 40 + 2 * 16
    assert disk.look().calls == 0
    assert coordinated.driven[-1].stops


def test_failures_that_are_held_at_the_end_are_the_rows_own(tmp_path: Path) -> None:
    """All rows of a small table are refused by a model that has never answered: each is recorded as failed."""
    disk, asked = RunOnDisk(tmp_path, 12, 2), ScriptedService(always(refused(400, message="not so"), 0.5))
    coordinated, ended = worked(disk, asked)
    assert ended == [Ended()] * WORKERS
    assert coordinated.driven[-1].recorded.failed == 12


def test_what_others_are_answered_shows_whose_failure_it_is(tmp_path: Path) -> None:
    """One owner's rows are all refused, the others' are answered: its rows fail, and nobody stops."""
    disk, asked = RunOnDisk(tmp_path, 400, 100), ScriptedService(always(answer(), 0.5))
    asked.script = lambda row, _attempt: (0.5, refused(400, message="not so") if row < 100 else answer())
    coordinated, ended = worked(disk, asked, max_alike=30)
    assert ended == [Ended()] * WORKERS
    assert (coordinated.driven[-1].recorded.failed, coordinated.driven[-1].recorded.succeeded) == (100, 300)


def test_an_owner_that_is_cut_off_is_replaced_by_the_others(tmp_path: Path) -> None:
    """Its lease ends, its ranges are taken over, and it ends itself once it hears of that; each row has one outcome."""
    disk, asked = RunOnDisk(tmp_path, 400, 10), ScriptedService(always(answer(), 0.5))

    async def cut(_: Coordinated, lines: list[HostLine]) -> None:
        await asyncio.sleep(3.0)
        lines[0].is_cut = True
        await asyncio.sleep(8.0)
        lines[0].is_cut = False

    asked.sending = MultiSet()
    coordinated, ended = worked(disk, asked, meanwhile=cut)
    assert isinstance(ended[0], LostOwnerError)
    assert ended[1:] == [Ended()] * (WORKERS - 1)
    assert disk.parts()["n"].to_pylist() == list(range(400))
    assert len(asked.rows) - 400 <= 4 * 4
    assert coordinated.driven[-1].is_over


def test_the_budget_holds_over_all_owners(tmp_path: Path) -> None:
    """The sum of what was answered never passes it, and the run stops over it with little left."""
    disk, asked = RunOnDisk(tmp_path, 1000, 20), ScriptedService(always(answer(), 0.5))
    asked.max_cost_usd = 2 * PRICE_USD
    cap = 150 * PRICE_USD
    coordinated, ended = worked(disk, asked, settings={"budget_usd": cap})
    stops = [each.stop for each in ended if isinstance(each, Ended) and each.stop is not None]
    assert [stop.kind for stop in stops] == ["budget"] * WORKERS
    spent = disk.look().tally.cost_usd
    assert cap - (WORKERS + 1) * asked.max_cost_usd <= spent <= cap
    assert coordinated.driven[-1].spent_usd == spent


def test_few_rows_are_paid_for_before_the_first_json(tmp_path: Path) -> None:
    """No answer is JSON: the run stops after 20 of them, all owners together, and what was in flight."""
    disk, asked = RunOnDisk(tmp_path, 400, 10), ScriptedService(always(answer(), 0.5))
    asked.accept = lambda call, _completion, _ask: AskAgain(call, is_json=False)
    coordinated, ended = worked(disk, asked, starts=lambda: [QueueStart(first_answers=FirstAnswers())])
    assert all(isinstance(each, Ended) and each.stop is not None for each in ended)
    assert len(asked.sent) <= 20 + WORKERS
    assert len(coordinated.driven[-1].stops) == 1


def test_an_unknown_capacity_is_found_once_for_all(tmp_path: Path) -> None:
    """A service of 60 requests a second refuses four owners little more than one process, and its rate is used."""

    def service() -> ScriptedService:
        asked, bucket = ScriptedService(always(answer(), 0.3)), Bucket(60.0)
        asked.script = lambda _row, _attempt: (0.3, answer()) if bucket.takes(now()) else (0.02, refused(429))
        return asked

    alone, asked = service(), service()
    virtual_time.run(make_runner(RowsInMemory(500), alone, concurrency=64, adaptive=True).run())
    disk = RunOnDisk(tmp_path, 500, 25)
    _, ended = worked(disk, asked, concurrency=64, adaptive=True, settings={"adaptive": True})
    assert ended == [Ended()] * WORKERS
    assert len(asked.sent) - 500 <= 1.5 * (len(alone.sent) - 500)
    assert asked.sent[-1][0] <= 1.1 * alone.sent[-1][0]
