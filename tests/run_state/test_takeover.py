"""A range goes to another owner: no outcome is lost, and every paid thing is in the bill once, whoever dies when."""

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import Answered, AskAgain, CallRequest, Completion, Done, Record, Tally
from tests import virtual_time
from tests.owned_runs import OwnedRun, Owner
from tests.run_on_disk import RunOnDisk, carry_out
from tests.scripted_run import PRICE_USD, ScriptedService, answer

CALLS = 12
QUEUES = {12: ((0,),), 6: ((0, 1),), 4: ((0, 1), (2,))}  # by rows: as many calls of one slice, two, or three
LEASE_S = 0.2  # seconds between an owner's end and its ranges' next owner

Fate = tuple[int, Literal["killed", "paused", "all killed"]]
"""At which event, and what becomes of the owner at hand: it dies, it goes on a while without knowing that it is lost,
or the run is left as it is at this moment."""


def service_of(name: str, *, asks_twice: bool) -> ScriptedService:
    """Answers that say who asked. The first answer to every third row is not taken."""
    service = ScriptedService(lambda row, attempt: (1 + row * 7 % 3 * 0.3, answer(f"{name} {row} {attempt}")))
    service.max_cost_usd = PRICE_USD

    def accept(request: CallRequest, _completion: Completion, ask: int) -> Done | AskAgain:
        return AskAgain(request) if asks_twice and request.ordinal % 3 == 0 and ask == 1 else Done()

    service.accept = accept
    return service


@dataclass
class Story:
    """Some owners, each of which may meet its fate at an event: a claim, a commit, before or after a record."""

    run: OwnedRun
    fates: Sequence[Fate]
    folder: Path
    asks_twice: bool
    sent: Counter[int] = field(default_factory=Counter)  # requests that were marked as in flight, by owner
    owners: list[Owner] = field(default_factory=list)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    expected: dict[int, str] = field(default_factory=dict)  # the text of the first outcome that counts, by row
    events: int = 0
    copies: list[tuple[RunOnDisk, int, dict[int, str]]] = field(default_factory=list)
    losing: set[asyncio.Task[None]] = field(default_factory=set)

    def begin(self) -> None:
        """One more owner."""
        service = service_of(f"owner{len(self.owners) + 1}", asks_twice=self.asks_twice)
        owner = self.run.begin(len(self.owners) + 1, service, slots=3)
        really, really_marked = owner.partitions.record, owner.marks.begin

        def marked(ordinal: int, ask: int, attempt: int, amount: Decimal | None) -> int:
            self.sent[owner.ownership.worker] += 1
            return really_marked(ordinal, ask, attempt, amount)

        owner.marks.begin = marked  # type: ignore[method-assign] # the test's own in its place

        def record(records: Sequence[Record]) -> None:
            self.happens(owner)
            counts = owner.ownership.is_current()
            really(records)
            for each in records if counts else ():
                if isinstance(each, Answered):
                    self.expected[each.ordinal] = each.completion.text
            self.happens(owner)

        owner.partitions.record = record  # type: ignore[method-assign] # the test's own in its place
        owner.ownership.noted = lambda: self.happens(owner)
        self.owners.append(owner)
        self.tasks.append(asyncio.get_running_loop().create_task(owner.work()))

    def happens(self, owner: Owner) -> None:
        """Something happens to a living owner."""
        if not owner.ownership.is_current():
            return
        self.events += 1
        for at, kind in self.fates:
            if at != self.events:
                continue
            if kind == "all killed":
                copy = self.folder / f"copy{len(self.copies)}"
                copy.mkdir()
                assert self.run.disk.look().calls >= len(self.expected)
                self.copies.append((self.run.disk.snapshot(copy), self.sent.total(), dict(self.expected)))
                continue
            if kind == "killed":
                owner.die()
            self.losing.add(asyncio.get_running_loop().create_task(self.lose(owner)))

    async def lose(self, owner: Owner) -> None:
        """Its lease ends, and another one comes."""
        await asyncio.sleep(LEASE_S)
        await self.run.dealer.lose(owner.ownership.worker)
        self.begin()

    async def play(self, owners: int) -> None:
        """From the first claim to the last commit."""
        for _ in range(owners):
            self.begin()
        await self.run.dealer.over.wait()
        self.run.dealer.ended.set()
        for owner, task in zip(self.owners, self.tasks, strict=True):
            if owner.ownership.is_dead or not owner.ownership.is_current():
                task.cancel()
        ended = await asyncio.gather(*self.tasks, return_exceptions=True)
        for owner, outcome in zip(self.owners, ended, strict=True):
            if owner.ownership.is_current() and isinstance(outcome, BaseException):
                raise outcome


def texts(run: RunOnDisk) -> dict[int, str]:
    """The answers in the parts, by call; calls are there once and in order."""
    table = run.parts()
    assert table["n"].to_pylist() == list(range(run.table.num_rows)) * (CALLS // run.table.num_rows)
    return dict(enumerate(table["response"].to_pylist()))


def spent(tally: Tally) -> Decimal:
    """All that is in the bill."""
    assert not tally.charges_unknown
    return tally.cost_usd + tally.charges_usd + tally.rejected_cost_usd


@pytest.fixture(autouse=True)
def _power_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about what a power cut takes."""
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    monkeypatch.setattr(os, "fdatasync", lambda _file: None)


fates = st.lists(
    st.tuples(st.integers(1, 60), st.sampled_from(("killed", "paused", "all killed"))),
    max_size=5,
    unique_by=lambda fate: fate[0],
)


@settings(max_examples=20, deadline=None)
@given(owners=st.integers(1, 3), told=fates, rows=st.sampled_from(sorted(QUEUES)), asks_twice=st.booleans())
def test_whoever_stops_when_each_outcome_stands_and_each_request_is_in_the_bill_once(
    tmp_path_factory: pytest.TempPathFactory, owners: int, told: list[Fate], rows: int, *, asks_twice: bool
) -> None:
    """Owners die at any event, or go on without a lease; their ranges go to others, and from these to others again."""
    folder = tmp_path_factory.mktemp("story")
    (folder / "run").mkdir()
    disk = RunOnDisk(folder / "run", rows, 3, queues=QUEUES[rows])

    async def whole() -> Story:
        story = Story(OwnedRun(disk), told, folder, asks_twice)
        await story.play(owners)
        return story

    story = virtual_time.run(whole())
    assert texts(disk) | story.expected == texts(disk)
    assert spent(disk.look().with_charges) == story.sent.total() * PRICE_USD
    for owner, sent in story.sent.items():
        accounted = story.run.dealer.accounted(owner)
        assert accounted == sent * PRICE_USD or (rows < CALLS and accounted > sent * PRICE_USD)
    disk.begin()
    assert spent(disk.look().tally) == story.sent.total() * PRICE_USD
    for copy, sent, expected in story.copies:
        service = service_of("resumed", asks_twice=asks_twice)
        assert virtual_time.run(carry_out(copy, service)) is None
        assert texts(copy) | expected == texts(copy)
        assert spent(copy.look().tally) == (sent + len(service.sent)) * PRICE_USD
