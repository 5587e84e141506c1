"""Several owners on one run directory: each works on the ranges that it claims, and commits what it finished."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from cometbatch.records import AskAgain, CallRequest, Completion, Done, Failed, Failure, RejectedAsk, Usage
from cometbatch.results import tallies
from cometbatch.runner.ports import Stop
from tests import virtual_time
from tests.owned_runs import Dealer, DealtOwnership, OwnedRun
from tests.run_on_disk import RunOnDisk, carry_out
from tests.scripted_run import NOW, PRICE_USD, ScriptedService, always, answer


def service() -> ScriptedService:
    """One that answers each call after a second."""
    return ScriptedService(always(answer()))


@pytest.mark.parametrize("queues", [((0,),), ((0, 1), (2,))])
def test_owners_share_the_ranges_and_each_call_is_sent_once(
    tmp_path: Path, queues: tuple[tuple[int, ...], ...]
) -> None:
    """Two owners answer all rows of all slices; every range has one owner, and is closed once, by it."""
    disk = RunOnDisk(tmp_path, 40, 5, queues=queues)
    asked = service()

    async def both() -> OwnedRun:
        run = OwnedRun(disk)
        await asyncio.gather(*(run.begin(worker, asked).work() for worker in (1, 2)))
        return run

    dealer = virtual_time.run(both()).dealer
    slices = sum(map(len, queues))
    assert sorted(asked.rows) == list(range(40 * slices))
    assert disk.parts()["n"].to_pylist() == list(range(40)) * slices
    assert sorted(dealer.closed) == sorted(dealer.claims)
    assert {owner for owner, _ in dealer.claims} == {1, 2}
    assert sorted(number for _, number in dealer.claims) == list(range(8))
    assert [spent for _, _, spent in dealer.parts.values()] == [5 * PRICE_USD] * 8 * slices
    assert disk.directory.journals.all() == []
    looked = disk.look()
    assert (looked.calls, looked.tally.charges) == (40 * slices, 0)


def asking_twice(service: ScriptedService) -> ScriptedService:
    """The same, whose first answers are not taken."""

    def accept(request: CallRequest, _completion: Completion, ask: int) -> Done | AskAgain:
        return AskAgain(request) if ask == 1 else Done()

    service.accept = accept
    return service


def test_of_two_parts_the_first_stands_and_what_the_other_had_paid_is_in_the_bill(tmp_path: Path) -> None:
    """Two owners are forced on the same ranges: each part is one owner's, and the bill has everything that was sent."""
    disk = RunOnDisk(tmp_path, 12, 3)
    services = [asking_twice(service()), asking_twice(ScriptedService(always(answer("late"), latency=1.2)))]

    async def both() -> None:
        run = OwnedRun(disk)
        owners = [run.begin(worker, asked, dealer=Dealer(range(4))) for worker, asked in enumerate(services, start=1)]
        await asyncio.gather(*(owner.work() for owner in owners))

    virtual_time.run(both())
    assert disk.parts()["n"].to_pylist() == list(range(12))
    sent = sum(len(each.sent) for each in services)
    assert sent > 24
    looked = disk.look()
    assert tallies.spent(looked.with_charges) == sent * PRICE_USD
    assert looked.records.calls == 12
    disk.begin()
    assert tallies.spent(disk.look().tally) == sent * PRICE_USD
    assert disk.directory.journals.all() == []


def test_a_lease_that_ends_while_a_part_is_written_delays_the_part(tmp_path: Path) -> None:
    """Nobody took the range meanwhile: the owner renews its lease, and writes the part again."""
    disk, asked = RunOnDisk(tmp_path, 3, 3), service()
    looks = Counter[str]()

    class Lapsing(DealtOwnership):
        """Not current when its first part is to get its name."""

        def is_current(self) -> bool:
            looks["parts"] += disk.directory.parts.there() == [] and self.dealer.parts != {}
            return looks["parts"] != 1

    async def work() -> None:
        run = OwnedRun(disk)
        owner = run.begin(1, asked, ownership=Lapsing)
        await owner.work()

    virtual_time.run(work())
    assert disk.parts()["n"].to_pylist() == [0, 1, 2]
    assert len(asked.sent) == 3
    assert looks["parts"] > 1


def test_what_a_session_alone_left_is_known_when_a_range_is_claimed(tmp_path: Path) -> None:
    """Outcomes and asks of earlier sessions stand: an owner, who was told nothing of them, sends only what is left."""
    disk, asked = RunOnDisk(tmp_path, 8, 4), asking_twice(service())
    answered = [Failed(row, None, 1, 1.0, NOW, "hash", Failure("blocked", "no")) for row in (0, 1)]
    rejected = RejectedAsk(5, 1, 1, NOW, Usage(3, 2), PRICE_USD, completion=Completion("no", "stop", Usage(3, 2)))
    disk.write_journal(0, answered, session=1)
    disk.write_journal(1, [rejected], session=1)

    async def work() -> None:
        await OwnedRun(disk).begin(1, asked).work()

    virtual_time.run(work())
    assert Counter(asked.rows) == {2: 2, 3: 2, 4: 2, 5: 1, 6: 2, 7: 2}
    assert disk.parts()["n"].to_pylist() == list(range(8))
    assert disk.parts()["error_kind"].to_pylist()[:2] == ["blocked", "blocked"]
    assert tallies.spent(disk.look().with_charges) == 12 * PRICE_USD


def test_rows_at_the_limit_and_beyond_are_left_for_a_later_session(tmp_path: Path) -> None:
    """Owners answer the rows below the limit; every range is closed, and a session without a limit does the rest."""
    disk, asked = RunOnDisk(tmp_path, 12, 4), service()

    async def work() -> OwnedRun:
        run = OwnedRun(disk)
        await asyncio.gather(*(run.begin(worker, asked, limit=6).work() for worker in (1, 2)))
        return run

    dealer = virtual_time.run(work()).dealer
    assert sorted(asked.rows) == list(range(6))
    assert sorted(number for _, number in dealer.closed) == [0, 1, 2]
    assert disk.directory.parts.there() == [0]
    assert virtual_time.run(carry_out(disk, asked)) is None
    assert sorted(asked.rows) == list(range(12))


def test_an_owner_that_waits_for_a_range_can_be_stopped(tmp_path: Path) -> None:
    """Others have all ranges: a stop does not wait until one of them loses its own."""
    disk, asked = RunOnDisk(tmp_path, 4, 4), ScriptedService(always(answer(), latency=100.0))

    async def work() -> float:
        run = OwnedRun(disk)
        busy, idle = run.begin(1, asked), run.begin(2, asked)
        working = asyncio.create_task(busy.work())
        await asyncio.sleep(1)
        waiting = asyncio.create_task(idle.work())
        await asyncio.sleep(1)
        idle.runner.stop(Stop("interrupted", "enough"))
        assert (await waiting).stop is not None
        took = asyncio.get_running_loop().time()
        await working
        return took

    assert virtual_time.run(work()) == 2.0


def test_a_queue_that_has_stopped_alone_keeps_no_range_open(tmp_path: Path) -> None:
    """The ranges are closed once the other queue is through, those of which the stopped one had calls open included."""
    disk = RunOnDisk(tmp_path, 12, 4, queues=((0,), (1,)))
    asked = ScriptedService(lambda row, _attempt: (1.0, answer()) if row < 12 else (1.5, answer()))

    async def work() -> OwnedRun:
        run = OwnedRun(disk)
        owner = run.begin(1, asked, slots=2)
        working = asyncio.create_task(owner.work())
        await asyncio.sleep(0.5)
        owner.runner.queues[1].stop(Stop("refused", "no such model"))
        await working
        return run

    dealer = virtual_time.run(work()).dealer
    assert dealer.closed == [(1, 0), (1, 1), (1, 2)]
    assert disk.directory.parts.there() == [0, 1, 2]
