"""Who starts another process where an owner's has ended, on virtual time."""

import asyncio
from collections.abc import Callable

import pytest

from cometbatch.control.coordination.messages import Driven, OwnerState, StopOrder, StopWords
from cometbatch.engines.supervising import END_NOW_S, supervise
from cometbatch.errors import CometbatchError
from cometbatch.records import Tally
from tests import virtual_time

GIVE_UP = StopOrder(StopWords("interrupted", "Interrupted."), is_now=True)


class Process:
    """An owner's process that ends when it is told to."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.was_killed = False
        self.over = asyncio.Event()

    async def ended(self) -> str:
        await self.over.wait()
        return "killed by signal 9" if self.was_killed else "exit code 1; no luck"

    def kill(self) -> None:
        self.was_killed = True
        self.over.set()


class Engine:
    """Starts processes, and is told what the driver says. `on_launch`: is called with each process."""

    def __init__(self, on_launch: Callable[[Process], None]) -> None:
        self.launched: list[Process] = []
        self.states: dict[int, OwnerState] = {}
        self.driven = Driven()
        self.gone_owners: list[int] = []
        self._on_launch = on_launch

    async def launch(self, owner: int) -> Process:
        await asyncio.sleep(0.1)
        self.launched.append(Process(owner))
        self._on_launch(self.launched[-1])
        return self.launched[-1]

    async def aclose(self) -> None:
        """Nothing is left."""

    def gone(self, owner: int) -> None:
        self.gone_owners.append(owner)

    async def drive(self) -> Driven:
        recorded, is_over = self.driven.recorded, self.driven.is_over
        return Driven(tuple(self.states.values()), recorded, stops=self.driven.stops, is_over=is_over)

    def joined(self, owner: int, *, is_lost: bool = False, has_left: bool = False) -> None:
        self.states[owner] = OwnerState(owner, 0.0, is_lost, has_left)


def _supervised(engine: Engine, workers: int) -> float:
    """Returns after how many seconds it was over."""

    async def main() -> float:
        await supervise(engine, workers, engine)
        return asyncio.get_running_loop().time()

    return virtual_time.run(main())


def test_owners_that_are_killed_before_they_begin_do_not_end_the_run() -> None:
    """What kills them is no fault of the program, and the next one may live."""

    def launched(process: Process) -> None:
        if process.owner <= 5:
            process.kill()
        else:
            engine.joined(process.owner, has_left=True)
            process.over.set()

    engine = Engine(launched)
    _supervised(engine, 2)
    assert [each.owner for each in engine.launched] == [1, 2, 3, 4, 5, 6, 7]


def test_owners_that_are_killed_for_ever_end_the_run() -> None:
    """With pauses between them that grow, since what kills them may pass."""
    engine = Engine(Process.kill)
    with pytest.raises(CometbatchError, match="6 workers in a row ended before any call had its outcome"):
        _supervised(engine, 2)


def test_owners_that_end_after_some_calls_are_replaced_as_often_as_it_takes() -> None:
    """Each of them brought the run on."""

    def launched(process: Process) -> None:
        engine.driven = Driven(recorded=Tally(succeeded=process.owner))
        engine.joined(process.owner, has_left=process.owner == 30)
        process.over.set()

    engine = Engine(launched)
    _supervised(engine, 1)
    assert len(engine.launched) == 30


def test_a_lost_owner_is_replaced_at_once_and_killed_at_the_end() -> None:
    """Its process may stand still, and know nothing of it."""

    def launched(process: Process) -> None:
        engine.joined(process.owner, is_lost=process.owner == 1, has_left=process.owner == 2)
        if process.owner == 2:
            engine.driven = Driven(is_over=True)
            process.over.set()

    engine = Engine(launched)
    assert _supervised(engine, 1) < 2
    assert engine.launched[0].was_killed


def test_nothing_is_started_after_a_stop_and_who_does_not_end_is_killed() -> None:
    """Once everything is given up."""

    def launched(process: Process) -> None:
        engine.joined(process.owner)
        if process.owner == 1:
            engine.driven = Driven(stops=(GIVE_UP,))
            process.over.set()

    engine = Engine(launched)
    assert END_NOW_S < _supervised(engine, 2) < END_NOW_S + 1
    assert [each.was_killed for each in engine.launched] == [False, True]
