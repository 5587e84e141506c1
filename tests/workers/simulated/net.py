"""The net between owners and a coordinator: messages come late, twice or never, and an owner may be cut off from it."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from cometbatch.control.coordination.messages import Drive, Driven, Lease, Reply, Request, decode_reply, encode
from cometbatch.engines.hosting import Host
from cometbatch.engines.line import LineClosedError, LineError
from tests.workers.simulated.world import Process, World

Answer = TypeVar("Answer")

DRIVER: Final = 0  # the driver's number among those who send messages
USUAL_S: Final = 0.003  # of a message on its way, at most
LOST_S: Final = 1.0  # until whoever sent a message is told that it is lost
SILENT_S: Final = 30.0  # without any answer, after which an owner of a cluster ends its process


class NetFaults(Struct, frozen=True):
    """What goes wrong with a message. `lost`, `late`, `twice`: chances; `late_s`: by how much at most."""

    lost: float = 0.0
    late: float = 0.0
    late_s: float = 3.0
    twice: float = 0.0


class Station:
    """Where the coordinator is: a process, and what answers there. `ends_with_it`: lines close when it dies."""

    def __init__(self, process: Process, host: Host, *, ends_with_it: bool) -> None:
        self.process = process
        self.host = host
        self.ends_with_it = ends_with_it
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, handling: Callable[[], Awaitable[Answer]], answered: Callable[[Answer], None]) -> None:
        """A message has come to the process."""

        async def answer() -> None:
            try:
                reply = await handling()
            except Exception as error:  # noqa: BLE001 - a life has nothing that explains it
                self.process.errors.append(error)
                return
            if not self.process.is_dead:
                answered(reply)

        def begin() -> None:
            task = self.process.loop.create_task(answer())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self.process.deliver(begin)


class Net:
    """Carries messages of a world. `station`: where the coordinator is now; None while there is none."""

    def __init__(self, world: World, faults: NetFaults) -> None:
        self.station: Station | None = None
        self.faults = faults
        self.messages = 0
        self._world = world
        self._cut_until: dict[int, float] = {}

    def cut(self, owner: int, seconds: float) -> None:
        """Nothing passes between this owner and the coordinator for a while."""
        self._world.note(f"owner {owner} is cut off for {seconds:.2f} s")
        self._cut_until[owner] = self._world.now + seconds

    def is_cut(self, owner: int) -> bool:
        """Whether nothing passes just now."""
        return self._world.now < self._cut_until.get(owner, -math.inf)

    def carry(self, owner: int, what: Callable[[], None]) -> None:
        """Have a message arrive, or not, or twice."""
        world, faults = self._world, self.faults
        self.messages += 1
        for _ in range(2 if world.chance.random() < faults.twice else 1):
            if self.is_cut(owner) or world.chance.random() < faults.lost:
                continue
            wait_s = world.chance.random() * (faults.late_s if world.chance.random() < faults.late else USUAL_S)
            world.after(wait_s, lambda: None if self.is_cut(owner) else what())


class SimulatedLine:
    """An owner's way to the coordinator, over a net. It knows how long the owner's lease lasts, by its own clock."""

    def __init__(self, net: Net, process: Process, owner: int) -> None:
        self.lease_ends = -math.inf
        self.is_lost = False
        self._newest = 0
        self._net = net
        self._process = process
        self._owner = owner
        self._heard_at = process.clock.boottime()

    def lease_left_s(self) -> float:
        """How long the newest lease lasts, in seconds by the owner's clock; below 0 where it has ended."""
        return self.lease_ends - self._process.clock.boottime()

    async def ask(self, request: Request) -> Reply:
        """See `Line`."""
        net, process = self._net, self._process
        process.operation("message")
        station = net.station
        if station is None or station.process.is_dead:
            await self._nobody_there(station)
        asked_at = process.clock.boottime()
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def answered(reply: bytes) -> None:
            net.carry(self._owner, lambda: process.deliver(lambda: _settle(future, reply)))

        def leave() -> None:
            if not process.is_dead and (there := net.station) is not None:
                content = encode(request)
                net.carry(self._owner, lambda: there.take(lambda: there.host.handle(content), answered))

        process.once_it_goes(leave)
        reply = decode_reply(await self._waited(future, station))
        self._heard_at = process.clock.boottime()
        self._note(reply, asked_at)
        return reply

    async def _waited(self, future: "asyncio.Future[bytes]", station: Station | None) -> bytes:
        while True:
            try:
                return await asyncio.wait_for(asyncio.shield(future), LOST_S)
            except TimeoutError:
                is_there = station is not None and not station.process.is_dead and self._net.station is station
                if is_there and station is not None and station.process.is_frozen and station.ends_with_it:
                    continue  # a socket's other end stands still: what was sent is answered once it goes on
                if not is_there:
                    await self._nobody_there(station)
                self._end_if_silent()
                raise LineError("no answer") from None

    async def _nobody_there(self, station: Station | None) -> None:
        if station is not None and station.ends_with_it:
            raise LineClosedError("the coordinator's process has ended")
        await asyncio.sleep(0.05)
        self._end_if_silent()
        raise LineError("nobody is there")

    def _end_if_silent(self) -> None:
        if self._process.clock.boottime() - self._heard_at > SILENT_S:
            self._process.kill(is_expected=True)

    def _note(self, reply: Reply, asked_at: float) -> None:
        self.is_lost = self.is_lost or bool(getattr(reply, "is_lost", False))
        if isinstance(reply, Lease) and reply.number > self._newest:
            self._newest = reply.number
            self.lease_ends = -math.inf if reply.is_lost else asked_at + reply.valid_s


class SimulatedDriverLine:
    """The driver's way to a coordinator in another process."""

    def __init__(self, net: Net, process: Process) -> None:
        self._net = net
        self._process = process
        self._heard = 0.0

    async def drive(self, word: Drive) -> Driven:
        """See `DriverLine`; as the line of a cluster has it."""
        is_first = not self._heard
        driven = await self._say(word)
        return await self._say(word) if is_first else driven

    async def _say(self, word: Drive) -> Driven:
        net, process, word = self._net, self._process, msgspec.structs.replace(word, heard=self._heard)
        there = net.station
        if there is None or there.process.is_dead:
            await asyncio.sleep(0.05)
            raise LineError("nobody is there")
        future: asyncio.Future[Driven] = asyncio.get_running_loop().create_future()

        def answered(reply: Driven) -> None:
            net.carry(DRIVER, lambda: process.deliver(lambda: _settle(future, reply)))

        net.carry(DRIVER, lambda: there.take(lambda: there.host.drive(word), answered))
        try:
            driven = await asyncio.wait_for(future, LOST_S)
        except TimeoutError:
            raise LineError("no answer") from None
        self._heard = driven.at
        return driven


def _settle(future: "asyncio.Future[Answer]", reply: Answer) -> None:
    if not future.done():
        future.set_result(reply)
