"""Several owners on one run directory: each works on the ranges that it claims, and commits what it finished."""

import asyncio
from pathlib import Path

import pytest

from tests import virtual_time
from tests.owned_runs import OwnedRun
from tests.run_on_disk import RunOnDisk
from tests.scripted_run import PRICE_USD, ScriptedService, always, answer


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
    assert {spent for _, _, spent in dealer.committed} == {5 * PRICE_USD}
    assert disk.directory.journals.all() == []
    looked = disk.look()
    assert (looked.calls, looked.tally.charges) == (40 * slices, 0)
