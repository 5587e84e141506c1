"""Owners as actors of a Ray cluster, of our own on this machine or of the user's: how they start, and how they talk.

Guards: the key travels as an argument between processes, never by the environment, a name or an error; nothing of ours
sends for longer than its lease after the driver's death, and no actor is detached; Ray makes no call twice. What Ray
says of a process is a hint: the coordinator's leases say who may send.
"""

import asyncio
import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.control.coordination import messages
from cometbatch.control.coordination.coordinator import Coordinator
from cometbatch.control.coordination.messages import Drive, Driven, Reply, Request
from cometbatch.control.coordination.settings import Settings
from cometbatch.engines.hosting import Host
from cometbatch.engines.lease_clock import lease_clock
from cometbatch.engines.line import Line, LineClosedError, LineError
from cometbatch.engines.ray_cluster import CPUS, Cluster, compare_versions, loaded_ray, other_version, versions
from cometbatch.errors import CometbatchError
from cometbatch.results import tallies

PLACE_S: Final = 10.0  # seconds after which it is said that a worker has not started yet
NO_PLACE_S: Final = 60.0  # seconds after which the run ends where no worker at all has started
ANSWER_S: Final = 5.0  # seconds that an owner waits for an answer, which comes within a lease's length
DRIVEN_S: Final = 2.0  # seconds that the driver waits for an answer, before it says its word again
SILENCE_S: Final = 30  # seconds without an answer of the coordinator, after which a worker ends its process
CHUNK_BYTES: Final = 64 << 10  # of an argument: Ray puts one above 100 KB into its object store, which may go to disk

Carry: TypeAlias = Callable[[bytes, Line], Awaitable[None]]
"""The work of an owner: what it is given, as bytes, and its way to the coordinator. A function that can be imported."""


# -- in the actors -----------------------------------------------------------------------------------------------------


class _CoordinatorActor:
    """The coordinator, on the driver's node. Ray starts it anew where its process ends, with the same arguments."""

    def __init__(self, settings: Settings, ranges: Sequence[int], grants: str) -> None:
        file, lines = Path(grants), None
        if loaded_ray().get_runtime_context().was_current_actor_reconstructed:
            lines = file.read_bytes().splitlines() if file.exists() else []
        self._host = Host(Coordinator(settings, ranges, tallies.add, lines=lines), lease_clock, grants_file=file)

    async def ask(self, content: bytes) -> bytes:
        """Answer an owner; nothing where that fails."""
        try:
            return await self._host.handle(content)
        except Exception as error:  # noqa: BLE001 - Ray would show it, with whatever it quotes
            return _unanswered(error)

    async def drive(self, content: bytes) -> bytes:
        """Answer the driver; nothing where that fails."""
        try:
            return messages.encode(await self._host.drive(msgspec.msgpack.decode(content, type=Drive)))
        except Exception as error:  # noqa: BLE001 - as above
            return _unanswered(error)


def _unanswered(error: Exception) -> bytes:
    """Leave a note of an error in the log of Ray, by its name and place."""
    sys.stderr.write(f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}")
    return b""


class _OwnerActor:
    """A worker's process. It ends itself where the coordinator is silent for long: perhaps nobody else is there to."""

    def __init__(self, coordinator: Any, carry: Carry) -> None:
        self._silent_s = 0
        self._carry = carry
        self._line = RayLine(coordinator, self._heard)
        threading.Thread(target=self._end_in_silence, daemon=True).start()

    async def hello(self) -> dict[str, str]:
        """What this process runs on; asked before it is given anything."""
        return versions()

    async def carry(self, *chunks: bytes) -> str:
        """Do an owner's work. Returns the name of the error that ended it, if one did: Ray would show its words."""
        try:
            await self._carry(b"".join(chunks), self._line)
        except BaseException as error:  # noqa: BLE001 - returned
            return type(error).__name__
        return ""

    def _heard(self) -> None:
        self._silent_s = 0

    def _end_in_silence(self) -> None:
        """Count seconds in which this process ran: one that was stopped for a while could hear nothing meanwhile."""
        while self._silent_s < SILENCE_S:
            time.sleep(1)
            self._silent_s += 1
        os._exit(1)


# -- lines -------------------------------------------------------------------------------------------------------------


class RayLine:
    """An owner's `Line` to the coordinator's actor. `heard`: called at each answer."""

    def __init__(self, coordinator: Any, heard: Callable[[], None]) -> None:
        self._coordinator = coordinator
        self._heard = heard

    async def ask(self, request: Request) -> Reply:
        """Send a message and return its answer. Raises `LineError`, `LineClosedError`."""
        content = await _answer(self._coordinator.ask.remote(messages.encode(request)), ANSWER_S)
        self._heard()
        return messages.decode_reply(content)


class RayDriverLine:
    """The driver's `DriverLine` to the coordinator's actor."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator
        self._heard = 0.0

    async def drive(self, word: Drive) -> Driven:
        """Send the driver's word and return how the session goes. Raises `LineError`, `LineClosedError`."""
        is_first = not self._heard
        driven = await self._say(word)
        return await self._say(word) if is_first else driven  # the first word alone tells nothing of when it was said

    async def _say(self, word: Drive) -> Driven:
        content = messages.encode(msgspec.structs.replace(word, heard=self._heard))
        driven = msgspec.msgpack.decode(await _answer(self._coordinator.drive.remote(content), DRIVEN_S), type=Driven)
        self._heard = driven.at
        return driven


async def _answer(call: Any, limit_s: float) -> bytes:
    errors = loaded_ray().exceptions
    try:
        async with asyncio.timeout(limit_s):
            content: bytes = await asyncio.wrap_future(call.future())
    except errors.ActorDiedError as error:
        raise LineClosedError("the coordinator's process has ended, and no other takes its place") from error
    except (errors.RayError, TimeoutError) as error:
        raise LineError("the coordinator did not answer") from error
    if not content:
        raise LineError("the coordinator failed to answer")
    return content


# -- the driver's side -------------------------------------------------------------------------------------------------


class _Owner:
    """An owner's actor that has its work. `engines.line.Launched`."""

    def __init__(self, owner: int, actor: Any, carrying: Any) -> None:
        self.owner = owner
        self.was_killed = False
        self._actor = actor
        self._carrying = carrying

    async def ended(self) -> str:
        """Wait until its work is done or Ray says that its process is gone."""
        try:
            error = await asyncio.wrap_future(self._carrying.future())
        except loaded_ray().exceptions.RayError as lost:
            self.was_killed = True
            return f"its process is gone ({type(lost).__name__})"
        return f"it ended with {error}" if error else "it ended"

    def kill(self) -> None:
        """End its process, if Ray can still reach it."""
        with contextlib.suppress(Exception):
            loaded_ray().kill(self._actor)

    def has_ended(self) -> bool:
        """Whether its process itself has said that its work is over."""
        ray = loaded_ray()
        done, _ = ray.wait([self._carrying], timeout=0)
        try:
            return bool(done) and ray.get(done[0]) is not None
        except ray.exceptions.RayError:
            return False


class RayJob(Struct, frozen=True):
    """What all actors of a session are made of, beside the key.

    `ranges`: those that are due. `grants`: path of the file in which the coordinator writes down what it grants.
    `assigned`: what an owner is given, as bytes, by its number. `tell`: shows a sentence to whoever runs the job.
    """

    settings: Settings
    ranges: Sequence[int]
    grants: str
    assigned: Callable[[int], bytes]
    carry: Carry
    tell: Callable[[str], None]


class RayLauncher:
    """Starts owners as actors. `engines.line.Launcher`. `workers`: how many of them have room, or were asked for."""

    def __init__(self, job: RayJob, cluster: Cluster, workers: int) -> None:
        self.workers = workers
        self._job = job
        self._cluster = cluster
        self._actors: list[Any] = []
        self._owners: list[_Owner] = []
        self._told: set[int] = set()  # owners of which it was said that they start late
        ray = loaded_ray()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        made = ray.remote(_CoordinatorActor).options(
            num_cpus=0, max_restarts=3, max_task_retries=0, max_concurrency=10_000, scheduling_strategy=here
        )
        self._coordinator = made.remote(job.settings, job.ranges, job.grants)
        self.line = RayDriverLine(self._coordinator)

    @classmethod
    def start(cls, job: RayJob, address: str, withheld: Collection[str]) -> Self:
        """Reach the cluster, or start one of our own, which takes some seconds. In the main thread.

        `withheld`: names of variables that no process of our own cluster may have. Raises `UsageError` where there is
        no cluster at this address, no room for a worker, or no Ray.
        """
        workers = job.settings.owners
        cluster = Cluster(address, workers, withheld)
        try:
            room = cluster.room()
            if room < workers:
                job.tell(f"the Ray cluster has room for {room} of {workers} workers: the run goes on with {room}")
            return cls(job, cluster, min(room, workers))
        except BaseException:
            cluster.close()
            raise

    async def launch(self, owner: int) -> _Owner:
        """Start an owner's actor, compare versions, and only then give it its work.

        Returns once it has a place; one that is lost before is made anew. Raises `CometbatchError` where no worker at
        all could be started, and `UsageError` where its node has another version of this package.
        """
        made = loaded_ray().remote(_OwnerActor)
        usual = {"num_cpus": CPUS, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        started, found = time.monotonic(), None
        while found is None:
            actor = made.options(**usual).remote(self._coordinator, self._job.carry)
            self._actors.append(actor)
            found = await self._hello(owner, actor, started)
        if words := compare_versions(found):
            self._job.tell(words)
        content = self._job.assigned(owner)
        chunks = [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]
        self._owners.append(_Owner(owner, actor, actor.carry.remote(*chunks)))
        return self._owners[-1]

    async def _hello(self, owner: int, actor: Any, started: float) -> dict[str, str] | None:
        """What an actor says of its versions, once it is there; None where it is lost, as with its node."""
        answer = asyncio.wrap_future(actor.hello.remote().future())
        done, _ = await asyncio.wait([answer], timeout=max(0.0, started + PLACE_S - time.monotonic()))
        if not done and owner not in self._told:
            self._told.add(owner)
            self._job.tell(f"worker {owner} has not started on the Ray cluster yet: its CPUs may all be in use")
        while not done:
            self._refuse_to_wait(started)
            done, _ = await asyncio.wait([answer], timeout=1)
        try:
            found: dict[str, str] = answer.result()
        except loaded_ray().exceptions.RayError as error:
            # Ray has nothing but words for what kept an actor from being made.
            if "No module named" in str(error) or "AttributeError" in str(error):
                raise other_version("none that fits") from error
            self._refuse_to_wait(started)
            await asyncio.sleep(1)
            return None
        return found

    def _refuse_to_wait(self, started: float) -> None:
        if not self._owners and time.monotonic() - started > NO_PLACE_S:
            raise CometbatchError(f"No worker could be started on the Ray cluster within {NO_PLACE_S:.0f} s.")

    async def aclose(self) -> None:
        """End all actors, and the cluster where it is our own; outwait the leases of those out of reach."""
        is_over = all(each.has_ended() for each in self._owners)
        for actor in (*self._actors, self._coordinator):
            with contextlib.suppress(Exception):
                loaded_ray().kill(actor)
        if not is_over:
            await asyncio.sleep(messages.fence_s(self._job.settings.owners))
        self._cluster.close()
