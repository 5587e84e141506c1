"""A session with owners: a driver whose process has the coordinator, and the processes that it starts and misses."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from cometbatch.control.coordination.coordinator import Coordinator
from cometbatch.control.coordination.messages import Drive, Driven, StopOrder, fence_s
from cometbatch.control.coordination.owners import Owner as Known
from cometbatch.control.coordination.settings import Settings as CoordinatorSettings
from cometbatch.engines.hosting import Host
from cometbatch.engines.line import DriverLine, LineClosedError, LineError
from cometbatch.engines.owner import run_owner
from cometbatch.engines.session import Ports
from cometbatch.engines.supervising import supervise
from cometbatch.errors import UsageError
from cometbatch.limiting.leased import LeasedLimits
from cometbatch.results import tallies
from cometbatch.run_state.in_flight import InFlightMarks
from cometbatch.run_state.ownership import LostOwnerError, Ownership
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.progress import Progress
from cometbatch.run_state.run import Run
from cometbatch.run_state.sharing import check_nonce, grants_file, share, unshare
from cometbatch.runner.queue_start import QueueStart
from tests.run_on_disk import session_of
from tests.scripted_run import NOW, RUN_ID, Watcher
from tests.workers.simulated.net import Net, SimulatedDriverLine, SimulatedLine, Station
from tests.workers.simulated.plain import Settings, begun, policy
from tests.workers.simulated.service import Sender, SimulatedService
from tests.workers.simulated.table import Table
from tests.workers.simulated.world import Process, World, usual_clock

NOTICED_S = 0.02  # seconds at most until it is noticed that a process has ended
RESTART_S = 0.3, 2.0  # seconds until a cluster starts a coordinator anew that has died
OUTLIVES_S = 20.0  # seconds at most for which a cluster's processes live on without their driver
DRIVE_S = 0.2  # seconds between two words of a driver


class UnexpectedError(Exception):
    """What ended an owner is nothing that a life has in it."""


class Session:
    """One session with owners, of which each has a process of its own."""

    def __init__(
        self,
        world: World,
        table: Table,
        service: SimulatedService,
        net: Net,
        *,
        settings: Settings,
        owners: int,
        in_cluster: bool,
    ) -> None:
        self.owners: dict[int, Process] = {}  # all that were ever started, by number
        self.on_lost: Callable[[Process], object] = lambda _: None
        self.stopped_at = math.inf  # everybody, by the world's time
        self.has_ended = False  # its driver, in order
        self.number = 0
        self.driven = Driven()
        self.stops: tuple[StopOrder, ...] = ()
        self.new_owner: Callable[[Process], object] = lambda _: None
        self.world = world
        self.table = table
        self._service = service
        self._net = net
        self._settings = settings
        self._owner_count = owners
        self.coordinator: Process | None = None  # where it has a process of its own
        self._in_cluster = in_cluster
        self._driver: Process | None = None
        self._line: DriverLine | None = None
        self._gone: set[int] = set()
        self._run: Run | None = None
        self._nonce = ""

    async def drive_session(self, process: Process) -> None:
        """What the driver does, from the lock to the last owner's end."""
        table, settings = self.table, self._settings
        self._driver = process
        directory = table.directory()
        with directory.locked():
            run = await begun(table, directory, lambda: self.world.now)
            self._run, self._nonce = share(run)
            table.manifest = self._run.manifest
            self.number = session_of(run)
            directory.epoch.open(self.number, "workers", fence_s(self._owner_count))
            due = sorted({each.index % run.manifest.partitions_in_slice for each in run.missing})
            told = CoordinatorSettings(
                owners=self._owner_count,
                concurrency=settings.concurrency,
                queues=len(table.queues),
                requests_per_minute=settings.requests_per_minute,
                tokens_per_minute=settings.tokens_per_minute,
                adaptive=settings.adaptive,
                budget_usd=settings.max_cost_usd,
                spent_usd=tallies.spent(table.bill(run)),
            )
            try:
                if self._in_cluster:
                    await self._away(told, due, grants_file(directory, self.number))
                else:
                    await self._here(told, due)
            finally:
                if not process.is_dead:
                    await self.aclose()
            directory.epoch.close()
            unshare(directory)
        self.has_ended = True

    async def _here(self, told: CoordinatorSettings, due: Sequence[int]) -> None:
        """The coordinator is in the driver's process."""
        process = self._driver
        assert process is not None
        host = Host(self._watched(Coordinator(told, due, tallies.add)), process.clock.boottime)
        self._net.station = Station(process, host, ends_with_it=True)
        self._line = host
        try:
            await self._supervised()
        finally:
            await host.aclose()

    async def _away(self, told: CoordinatorSettings, due: Sequence[int], grants: Path) -> None:
        """The coordinator is in a process of its own, which begins anew where it dies."""
        driver, world = self._driver, self.world
        assert driver is not None

        def start(*, is_first: bool) -> None:
            process = Process(world, f"coordinator of {self.number}", usual_clock(world))
            self.coordinator = process
            process.start(lambda: carry(process, is_first=is_first))
            process.on_death.append(begin_anew)

        def begin_anew() -> None:
            if not driver.is_dead:
                world.after(world.chance.uniform(*RESTART_S), lambda: None if driver.is_dead else start(is_first=False))

        async def carry(process: Process, *, is_first: bool) -> None:
            lines = None if is_first else _lines(grants)
            coordinator = self._watched(Coordinator(told, due, tallies.add, lines=lines))
            self._net.station = Station(
                process, Host(coordinator, process.clock.boottime, grants_file=grants), ends_with_it=False
            )
            await asyncio.Event().wait()

        def outlive() -> None:
            for each in filter(None, (self.coordinator, *self.owners.values())):
                # The lambda's default is the value of now, which the type checker can't infer.
                world.after(world.chance.uniform(0, OUTLIVES_S), lambda each=each: each.kill())  # type: ignore[misc]

        start(is_first=True)
        driver.on_death.append(outlive)
        self._line = SimulatedDriverLine(self._net, driver)
        await self._supervised()

    def _watched(self, coordinator: Coordinator) -> Coordinator:
        """Remember when it takes an owner for lost, and when it orders everybody to stop."""
        lose, stop = coordinator._roster.lose, coordinator._roster.stop

        def stopped(order: StopOrder) -> None:
            if order.queue is None:
                self.stopped_at = min(self.stopped_at, self.world.now)
            stop(order)

        def lost(owner: Known, now: float) -> None:
            self.world.note(f"owner {self.number}-{owner.number} is lost")
            self.on_lost(self.owners[owner.number])
            lose(owner, now)

        coordinator._roster.lose = lost  # type: ignore[method-assign] # the test's own in its place
        coordinator._roster.stop = stopped  # type: ignore[method-assign] # the test's own in its place
        return coordinator

    async def _supervised(self) -> None:
        driving = asyncio.create_task(self._drive_forever())
        try:
            await supervise(self, self._owner_count, self)
        finally:
            driving.cancel()
        await self.drive()

    async def _drive_forever(self) -> None:
        while True:
            await asyncio.sleep(DRIVE_S)
            await self.drive()

    # -- `Driving` ----------------------------------------------------------------------------------------------------

    def gone(self, owner: int) -> None:
        """See `Driving`."""
        self._gone.add(owner)

    async def drive(self) -> Driven:
        """See `Driving`."""
        assert self._line is not None
        with contextlib.suppress(LineError):
            self.driven = await self._line.drive(Drive(stops=self.stops, gone=tuple(sorted(self._gone))))
        if self.driven.errors:
            raise UnexpectedError(f"an owner ended with {self.driven.errors}")
        return self.driven

    # -- `Launcher` ---------------------------------------------------------------------------------------------------

    async def launch(self, owner: int) -> "Started":
        """See `Launcher`."""
        process = Process(self.world, f"owner {self.number}-{owner}", usual_clock(self.world))
        self.owners[owner] = process
        line = SimulatedLine(self._net, process, owner)
        process.worker, process.lease_left_s = owner, line.lease_left_s
        process.start(lambda: self._work(process, owner, line))
        self.new_owner(process)
        return Started(owner, process)

    async def aclose(self) -> None:
        """See `Launcher`."""
        for process in (*self.owners.values(), *filter(None, [self.coordinator])):
            process.on_death = [told for told in process.on_death if process is not self.coordinator]
            process.kill(is_expected=True)

    async def _work(self, process: Process, owner: int, line: SimulatedLine) -> None:
        """What an owner's process does."""
        table, found = self.table, self._run
        assert found is not None
        await asyncio.sleep(self.world.chance.random() * 0.1)  # until it has begun
        directory = table.directory()
        try:
            check_nonce(directory, self._nonce, lambda _: None)
        except UsageError:
            if self._driver is not None and self._driver.is_dead:
                return  # it began so late that a later session has the folder
            raise
        run = Run(directory, found.manifest, Progress(last=found.progress.last), found.result)
        slots = self._settings.concurrency

        def opened(ownership: Ownership) -> tuple[Partitions, InFlightMarks]:
            partitions = Partitions(
                run,
                self.number,
                table.tables,
                [table.make],
                ("n",),
                slots=-(-slots // self._owner_count),
                queues=table.queues,
                ownership=ownership,
            )
            return partitions, directory.new_marks(RUN_ID, self.number, 2 * slots, owner)

        ports = Ports(
            service=self._service.as_service(Sender(process, self.number, owner, line.lease_left_s)),
            policy=policy(self._settings),
            limits=LeasedLimits(process.clock.boottime),
            observer=Watcher(),
            now=lambda: NOW,
            jitter=self.world.chance.random,
            queues=[QueueStart(earlier=found.progress.tally, rejected=found.progress.asks) for _ in table.queues],
        )
        with contextlib.suppress(LostOwnerError, LineClosedError):
            await run_owner(owner, line, opened, ports, concurrency=slots, clock=process.clock.boottime)


def _lines(grants: Path) -> list[bytes]:
    """What an earlier coordinator of the session has written down."""
    return grants.read_bytes().splitlines() if grants.exists() else []


class Started:
    """An owner's process, as its driver knows it."""

    def __init__(self, owner: int, process: Process) -> None:
        self.owner = owner
        self.was_killed = True
        self._process = process
        self._ended = asyncio.Event()
        loop, world = asyncio.get_running_loop(), process.world

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon(self._ended.set)

        process.on_death.append(lambda: world.after(world.chance.random() * NOTICED_S, tell))

    async def ended(self) -> str:
        """See `Launched`."""
        await self._ended.wait()
        return "it was killed"

    def kill(self) -> None:
        """See `Launched`."""
        self._process.kill()
