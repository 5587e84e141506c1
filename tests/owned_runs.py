"""Several owners of one run on a disk, whose claims a script deals out; on virtual time, in one process."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from cometbatch.engines.session import Ports, run_partitions
from cometbatch.limiting.limits import Limits
from cometbatch.records import RejectedAsk
from cometbatch.run_state.ownership import Claimed, LostOwnerError
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.progress import Progress
from cometbatch.run_state.sharing import share
from cometbatch.runner.ports import Ended, Policy
from cometbatch.runner.queue_start import QueueStart
from cometbatch.runner.turns import Runner
from tests.run_on_disk import RunOnDisk, session_of
from tests.scripted_run import HALF, NOW, RUN_ID, ScriptedService, Watcher


class Dealer:
    """Deals ranges out, one at a claim, as a coordinator does that knows at once who is gone.

    A range of an owner that was lost goes to whoever claims next. A claim waits while others may still lose theirs.
    """

    def __init__(self, ranges: Iterable[int]) -> None:
        self.free: dict[int, tuple[int, ...]] = dict.fromkeys(ranges, ())  # with their earlier owners
        self.held: dict[int, tuple[int, tuple[int, ...]]] = {}  # by range: owner, earlier ones
        self.lost: set[int] = set()
        self.claims: list[tuple[int, int]] = []
        self.closed: list[tuple[int, int]] = []
        self.parts: dict[int, tuple[int, int, Decimal]] = {}  # announced: owner, range, what it has booked for it
        self.found: dict[tuple[int, int], Decimal] = {}  # by owner and range
        self.over = asyncio.Event()  # all ranges are closed
        self.ended = asyncio.Event()  # of the test: what hangs may go on
        self._changed = asyncio.Condition()

    def accounted(self, owner: int) -> Decimal:
        """What an owner is known to have spent: of each range what its next owner found, or what it announced itself.

        The larger of both: it may have died after it had announced a part, and its journal may be gone with the part.
        """
        announced: dict[int, Decimal] = {}
        for worker, range_, spent in self.parts.values():
            if worker == owner:
                announced[range_] = announced.get(range_, Decimal(0)) + spent
        found = {range_: spent for (worker, range_), spent in self.found.items() if worker == owner}
        return sum(
            (max(announced.get(each, Decimal(0)), found.get(each, Decimal(0))) for each in announced | found),
            Decimal(0),
        )

    async def lose(self, owner: int) -> None:
        """An owner's lease has ended: its ranges are there for others."""
        self.lost.add(owner)
        for number, (holder, earlier) in tuple(self.held.items()):
            if holder == owner:
                self.free[number] = (*earlier, holder)
                del self.held[number]
        async with self._changed:
            self._changed.notify_all()

    async def next(self, owner: int) -> Claimed | None:
        """The lowest free range, once there is one; None once all are closed."""
        async with self._changed:
            while not self.free:
                if owner in self.lost:
                    raise LostOwnerError("lost")
                if all(holder == owner for holder, _ in self.held.values()):
                    return None
                await self._changed.wait()
        if owner in self.lost:
            raise LostOwnerError("lost")
        number = min(self.free)
        earlier = self.free.pop(number)
        self.held[number] = owner, earlier
        self.claims.append((owner, number))
        return Claimed(number, earlier)

    def close(self, owner: int, number: int) -> None:
        """An owner is through with a range."""
        assert self.held.pop(number)[0] == owner
        self.closed.append((owner, number))
        if not self.held and not self.free:
            self.over.set()

        async def tell() -> None:
            async with self._changed:
                self._changed.notify_all()

        self._telling = asyncio.ensure_future(tell())


class DealtOwnership:
    """One owner's claims, at a dealer."""

    def __init__(self, dealer: Dealer, worker: int) -> None:
        self.worker = worker
        self.dealer = dealer
        self.is_dead = False
        self.noted: Callable[[], object] = lambda: None  # called with each claim, commit and find

    def is_current(self) -> bool:
        return self.worker not in self.dealer.lost and not self.is_dead

    async def more(self, after: int) -> Sequence[Claimed] | None:
        claimed = await self.dealer.next(self.worker)
        self.noted()
        await self._unless_dead()
        return None if claimed is None else [claimed]

    async def of_others(self, after: int) -> Sequence[Claimed]:
        return []

    async def may_commit(self, range_: int, index: int, spent_usd: Decimal) -> None:
        await self._unless_dead()
        if not self.is_current():
            raise LostOwnerError("lost")
        self.dealer.parts[index] = (self.worker, range_, spent_usd)
        self.noted()
        await self._unless_dead()

    async def _unless_dead(self) -> None:
        if self.is_dead:
            await self.dealer.ended.wait()
            raise LostOwnerError("dead")

    def found(self, range_: int, earlier: int, spent_usd: Decimal) -> None:
        self.dealer.found[earlier, range_] = spent_usd
        self.noted()

    def closed(self, range_: int) -> None:
        if self.is_current():
            self.dealer.close(self.worker, range_)


class OwnedRun:
    """A session of a run with several owners. `ranges`: what is dealt out; all of them by default."""

    def __init__(self, disk: RunOnDisk, ranges: Iterable[int] | None = None) -> None:
        self.disk = disk
        begun, _ = share(disk.begin())
        disk.manifest = begun.manifest
        self.run = msgspec.structs.replace(begun, progress=Progress(last=begun.progress.last))
        self.dealer = Dealer(range(disk.manifest.partitions_in_slice) if ranges is None else ranges)

    @property
    def session(self) -> int:
        """Its number."""
        return session_of(self.run)

    def begin(
        self,
        worker: int,
        service: ScriptedService,
        *,
        slots: int = 4,
        dealer: Dealer | None = None,
        ownership: Callable[[Dealer, int], DealtOwnership] = DealtOwnership,
        **options: Any,
    ) -> "Owner":
        """A process that begins to work on it. `dealer`: another one than all others have."""
        return Owner(self, ownership(dealer or self.dealer, worker), service, slots, **options)


class Owner:
    """One owner's process."""

    def __init__(
        self,
        run: OwnedRun,
        ownership: DealtOwnership,
        service: ScriptedService,
        slots: int,
        *,
        limit: int | None = None,
        **policy: Any,
    ) -> None:
        self.ownership = ownership
        self.recorded = Watcher()
        disk = run.disk
        self.partitions = Partitions(
            run.run,
            run.session,
            disk.tables,
            [disk.make],
            ("n",),
            slots=slots,
            queues=disk.queues,
            limit=limit,
            ownership=ownership,
        )
        self.marks = disk.directory.new_marks(RUN_ID, run.session, slots, ownership.worker)
        self.ports = Ports(
            service=service.as_service(),
            policy=Policy(concurrency=slots, **policy),
            limits=_Lease(ownership),
            observer=self.recorded,
            now=lambda: NOW,
            jitter=lambda: HALF,
            queues=[QueueStart() for _ in disk.queues],
        )

    async def work(self) -> Ended:
        """Work to the end."""
        return await run_partitions(self.partitions, self.marks, self.ports, watched=self._watched)

    @contextlib.contextmanager
    def _watched(self, runner: Runner) -> Iterator[None]:
        owned = self.partitions.owned
        assert owned is not None

        def hand_on(asks: Mapping[int, Sequence[RejectedAsk]]) -> None:
            for ordinal, some in asks.items():
                runner.queues[owned.queue_of(ordinal)].asks.recorded[ordinal] = some

        owned.on_asks = hand_on
        self.runner = runner
        yield

    def die(self) -> None:
        """From here on it changes no file any more, and sends nothing: as after a SIGKILL."""
        self.ownership.is_dead = True
        for range_ in self.partitions._ranges:
            if range_.journal is not None:
                _silence(range_.journal._file)
        self.marks._map.close()
        self.marks._map = _Nowhere(2**16)  # type: ignore[assignment] # stands for what it replaces


class _Nowhere(bytearray):
    """Takes marks as a mapped file does, and keeps them from every file."""

    def close(self) -> None:
        """There is nothing to close."""


def _silence(file: Any) -> None:
    """What is written there goes nowhere."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    os.dup2(descriptor, file.fileno())
    os.close(descriptor)


class _Lease(Limits):
    """Nothing is sent by an owner that was lost, or has died."""

    def __init__(self, ownership: DealtOwnership) -> None:
        super().__init__()
        self._ownership = ownership

    def take(self, estimated_tokens: int) -> float | None:
        self.wait_s = 1000.0
        return super().take(estimated_tokens) if self._ownership.is_current() else None
