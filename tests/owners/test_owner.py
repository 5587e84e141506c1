"""An owner's process: what it sends, commits and tells, by what the coordinator answers."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cometbatch.control.coordination.messages import (
    ErrorWords,
    Leave,
    News,
    QueueTold,
    Renew,
    StopOrder,
    Stopping,
    StopWords,
)
from cometbatch.engines.line import LineClosedError
from cometbatch.run_state.ownership import LostOwnerError
from cometbatch.runner.ports import Ended
from tests import virtual_time
from tests.owners.scripted_line import ScriptedCoordinator, commits
from tests.owners.working import SharedRun
from tests.run_on_disk import RunOnDisk
from tests.scripted_run import ScriptedService, always, answer, refused

RANGES = 4


def service(latency: float = 0.2) -> ScriptedService:
    """One that answers each call."""
    return ScriptedService(always(answer(), latency))


def worked(
    disk: RunOnDisk,
    asked: ScriptedService,
    meanwhile: Callable[[ScriptedCoordinator], Awaitable[object]] | None = None,
    *,
    prepare: Callable[[ScriptedCoordinator], object] = lambda _: None,
    **options: Any,
) -> tuple[ScriptedCoordinator, Ended]:
    """One owner works on all ranges, and `meanwhile` goes on beside it."""

    async def main() -> tuple[ScriptedCoordinator, Ended]:
        coordinator = ScriptedCoordinator(range(disk.manifest.partitions_in_slice))
        prepare(coordinator)
        other = None if meanwhile is None else asyncio.ensure_future(meanwhile(coordinator))
        try:
            return coordinator, await SharedRun(disk).work(1, coordinator, asked, **options)
        finally:
            if other is not None:
                other.cancel()

    return virtual_time.run(main())


def test_an_owner_brings_what_it_claims_to_parts_and_leaves(tmp_path: Path) -> None:
    """All rows are answered once and committed; each range is told as closed, and the last report counts all rows."""
    disk, asked = RunOnDisk(tmp_path, 20, 5), service()
    coordinator, ended = worked(disk, asked, tells_outcomes=True)
    assert ended == Ended()
    assert sorted(asked.rows) == list(range(20))
    assert disk.parts()["n"].to_pylist() == list(range(20))
    assert sorted(commits(coordinator)) == list(range(RANGES))
    assert coordinator.held == {}
    (left,) = coordinator.told(Leave)
    assert left.report.recorded.succeeded == 20
    assert (left.error, left.left) == (None, ())
    reports = [left.report, *(each.report for each in coordinator.told(Renew))]
    assert sum(len(each.outcomes) for each in reports) == 20


def test_what_only_one_report_says_arrives_once_although_answers_get_lost(tmp_path: Path) -> None:
    """A renewal without an answer is sent again under its number, with the same outcomes."""
    disk, asked, lost = RunOnDisk(tmp_path, 40, 5), service(), itertools.count()

    def lose(coordinator: ScriptedCoordinator) -> None:
        coordinator.loses = lambda _: next(lost) % 3 == 1

    coordinator, ended = worked(disk, asked, prepare=lose, tells_outcomes=True)
    assert ended == Ended()
    outcomes: dict[int, tuple[bytes, ...]] = {}
    for each in coordinator.told(Renew):
        assert outcomes.setdefault(each.number, each.report.outcomes) == each.report.outcomes
    outcomes[0] = coordinator.told(Leave)[-1].report.outcomes
    lines = [line for lines in outcomes.values() for line in lines]
    assert (len(lines), len(set(lines))) == (40, 40)
    assert disk.parts()["n"].to_pylist() == list(range(40))


def test_without_a_lease_nothing_is_sent_and_it_goes_on_with_the_next(tmp_path: Path) -> None:
    """The coordinator is silent for 5 s: sending ends with the lease, and begins again with the next one."""

    async def fall_silent(coordinator: ScriptedCoordinator) -> None:
        await asyncio.sleep(2.0)
        coordinator.is_silent = True
        await asyncio.sleep(5.0)
        coordinator.is_silent = False

    disk, asked = RunOnDisk(tmp_path, 80, 80), service()
    _, ended = worked(disk, asked, fall_silent)
    assert ended == Ended()
    times = [at for at, _ in asked.sent]
    assert not [at for at in times if 3.01 < at < 7.0]
    assert max(at for at in times if at < 5.0) > 2.3
    assert min(at for at in times if at > 5.0) < 7.4
    assert disk.parts()["n"].to_pylist() == list(range(80))


def test_a_lost_owner_sends_and_commits_nothing_more(tmp_path: Path) -> None:
    """Once its ranges are another's, it gives up what is in flight, says nothing, and ends with an error."""
    disk, asked, at = RunOnDisk(tmp_path, 200, 5), service(), 2.0

    async def lose(coordinator: ScriptedCoordinator) -> None:
        await asyncio.sleep(at)
        coordinator.lost.add(1)
        coordinators.append(coordinator)

    coordinators: list[ScriptedCoordinator] = []
    with pytest.raises(LostOwnerError):
        worked(disk, asked, lose)
    assert max(sent for sent, _ in asked.sent) < at + 0.4
    assert coordinators[0].told(Leave) == []
    assert asked.sending == set()


def test_the_death_of_the_driver_ends_an_owner_at_once(tmp_path: Path) -> None:
    """Its line is closed: what is in flight is given up, and the marks stay."""
    disk, asked = RunOnDisk(tmp_path, 200, 5), service(latency=0.5)

    async def die(coordinator: ScriptedCoordinator) -> None:
        await asyncio.sleep(1.2)
        coordinator.is_closed = True

    with pytest.raises(LineClosedError):
        worked(disk, asked, die)
    assert max(sent for sent, _ in asked.sent) < 1.6
    assert disk.begin().progress.tally.charges == 4


def test_an_order_to_stop_ends_the_run_once_what_is_in_flight_is_recorded(tmp_path: Path) -> None:
    """It holds within a moment, and the owner does not tell the others what they ordered."""
    disk, asked = RunOnDisk(tmp_path, 200, 5), service(latency=0.5)
    order = StopOrder(StopWords("interrupted", "Interrupted."))

    async def stop(coordinator: ScriptedCoordinator) -> None:
        await asyncio.sleep(1.2)
        coordinator.stops = (order,)
        await coordinator.tell(News(1, stops=(order,)))

    coordinator, ended = worked(disk, asked, stop)
    assert ended.stop is not None
    assert (ended.stop.kind, ended.stop.message) == ("interrupted", "Interrupted.")
    assert max(sent for sent, _ in asked.sent) < 1.3
    assert disk.look().tally.charges == 0
    assert coordinator.told(Stopping) == []
    assert len(coordinator.told(Leave)) == 1


def test_an_order_to_stop_now_gives_up_what_is_in_flight(tmp_path: Path) -> None:
    """Its marks stay: each is a possible charge."""
    disk, asked = RunOnDisk(tmp_path, 200, 5), service(latency=0.5)
    order = StopOrder(StopWords("terminated", "Terminated."), is_now=True)

    async def stop(coordinator: ScriptedCoordinator) -> None:
        await asyncio.sleep(1.2)
        await coordinator.tell(News(1, stops=(order,)))

    _, ended = worked(disk, asked, stop)
    assert ended.stop is not None
    assert disk.begin().progress.tally.charges == 4


def test_what_its_calls_show_stops_it_at_once_and_is_told(tmp_path: Path) -> None:
    """A refused key: the owner stops by itself and says so, with the words of the stop."""
    disk, asked = RunOnDisk(tmp_path, 200, 5), ScriptedService(always(refused(401, message="no such key")))
    coordinator, ended = worked(disk, asked)
    assert ended.stop is not None
    (told,) = coordinator.told(Stopping)
    assert (told.order.queue, told.order.is_now) == (None, False)
    assert (told.order.words.kind, told.order.words.message) == ("refused", ended.stop.message)
    assert "no such key" not in told.order.words.logged
    assert len(asked.sent) == 4


def test_an_error_is_told_before_the_owner_ends(tmp_path: Path) -> None:
    """The input can't be read: the coordinator hears the error's name and words."""
    disk, asked = RunOnDisk(tmp_path, 20, 5), service()
    coordinators: list[ScriptedCoordinator] = []

    def broken(*_: object) -> None:
        raise OSError("the disk is gone")

    disk.tables = broken  # type: ignore[method-assign,assignment] # the test's own in its place
    with pytest.raises(OSError, match="the disk is gone"):
        worked(disk, asked, prepare=coordinators.append)
    (left,) = coordinators[0].told(Leave)
    assert left.error == ErrorWords.of(OSError("the disk is gone"))


def test_a_pause_of_another_owner_silences_this_one_within_a_moment(tmp_path: Path) -> None:
    """Nobody sends while it lasts; once it is over, sending goes on at once."""
    disk, asked = RunOnDisk(tmp_path, 100, 5), service(latency=0.1)

    async def pause(coordinator: ScriptedCoordinator) -> None:
        await asyncio.sleep(1.0)
        await coordinator.tell(News(1, queues=(QueueTold(0, pause_s=60.0, pause=1),)))
        await asyncio.sleep(3.0)
        await coordinator.tell(News(2, queues=(QueueTold(0, pause=1),)))

    _, ended = worked(disk, asked, pause)
    assert ended == Ended()
    times = [at for at, _ in asked.sent]
    assert not [at for at in times if 1.01 < at < 4.0]
    assert min(at for at in times if at > 3.0) < 4.1
