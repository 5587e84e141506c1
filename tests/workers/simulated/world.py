"""Virtual time, and one order in which everything happens: whatever is due first is next, and a seed breaks ties.

A world has processes. Each has an event loop, clocks and threads of its own, may be killed at any step, and may stand
still for a while and go on, as after SIGSTOP. Nothing here takes real time, and nothing runs beside anything else: the
same seed is the same life, event for event.
"""

import asyncio
import contextlib
import heapq
import itertools
import math
import random
from collections.abc import Callable
from concurrent.futures import Executor
from typing import IO, Any, Final

from msgspec import Struct

from tests.workers.simulated.strands import Strand, Strands

RESOLUTION_S: Final = 1e-6  # world time and a process's time differ by rounding
BEGIN_S: Final = (0.0, 0.0002, 0.002)  # seconds until a thread begins what it was told
STEPS_AT_ONCE: Final = 20  # of a loop that has something to do, before others have their turn at the same moment
IN_STRAND: Final = 0.3  # share of what threads do that may stand still half-way; the rest is done in one go
STEPS_AFTER_DEATH: Final = 400  # of a dead process's loop, in which its files are closed; nothing that it does counts


class KilledError(BaseException):
    """What a dead process asks of disk, net or service does not happen any more."""


class NoProgressError(Exception):
    """A life did not end within its time."""


class World:
    """All processes and events of one life. `chance`: decides by the seed. `drift`: how wrong clocks are."""

    def __init__(self, seed: int, drift: float = 0.0) -> None:
        self.drift = drift
        self.now = 0.0
        self.chance = random.Random(seed)
        self.processes: list[Process] = []
        self.current: Process | None = None  # whose code runs
        self.job: Job | None = None  # that runs in one go just now
        self.errors: list[BaseException] = []  # that nothing in a life explains
        self.strands = Strands()
        self.log: list[tuple[float, str]] = []
        self._events: list[tuple[float, float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()

    def note(self, words: str) -> None:
        """What a person reads who looks for the cause of a broken law."""
        self.log.append((self.now, words))

    def at(self, when: float, event: Callable[[], None]) -> None:
        """Have something happen at a moment; events of the same moment happen in any order."""
        heapq.heappush(self._events, (max(when, self.now), self.chance.random(), next(self.numbers), event))

    def after(self, wait_s: float, event: Callable[[], None]) -> None:
        """Have something happen in this many seconds."""
        self.at(self.now + wait_s, event)

    def run(self, is_over: Callable[[], bool], until: float) -> None:
        """Let things happen until it is over. Raises `NoProgressError` where that is not before `until`."""
        while not is_over():
            process = min(self.processes, key=_due, default=None)
            process_due = math.inf if process is None else process.due()
            event_due = self._events[0][0] if self._events else math.inf
            due = min(process_due, event_due)
            if due > until:
                raise NoProgressError(f"not over after {until:,.0f} s: {self._what_is_there()}")
            self.now = max(self.now, due)
            if event_due <= process_due:
                heapq.heappop(self._events)[3]()
            elif process is not None:
                process.step()

    def _what_is_there(self) -> str:
        return ", ".join(f"{each.name}: {'frozen' if each.is_frozen else 'alive'}" for each in self.processes)

    def close(self) -> None:
        """End every process that is left, and the threads."""
        for process in tuple(self.processes):
            process.kill()
        self.strands.close()


def _due(process: "Process") -> float:
    return process.due()


class Clock:
    """A process's clocks, in seconds: they begin anywhere, and are a little too fast or too slow.

    `monotonic` stands still while the machine is suspended; `boottime` does not.
    """

    def __init__(self, world: World, *, rate: float, start: float) -> None:
        self._world = world
        self._rate = rate
        self._start = start
        self._since = 0.0  # world time at which the rate was set
        self._suspended_s = 0.0

    def boottime(self) -> float:
        """Seconds since anything, those of a suspended machine included."""
        return self._start + self._rate * self._world.now

    def monotonic(self) -> float:
        """Seconds since anything, while the machine was awake."""
        return self.boottime() - self._suspended_s

    def slept(self, seconds: float) -> None:
        """The machine was suspended for so long, by the world's time."""
        self._suspended_s += self._rate * seconds

    def moment(self, monotonic: float) -> float:
        """When `monotonic` is this, by the world's time."""
        return (monotonic + self._suspended_s - self._start) / self._rate


def usual_clock(world: World) -> Clock:
    """A clock that begins anywhere, and is as much too fast or too slow as this world's clocks are."""
    chance = world.chance
    return Clock(world, rate=1 + chance.uniform(-1, 1) * world.drift, start=chance.uniform(0, 100_000))


class _Numbered:
    """What sets hold in the same order each time: its hash is a number of its world, and no place in memory."""

    _number: int

    def __new__(cls, *_arguments: Any, loop: "ProcessLoop", **_options: Any) -> Any:
        made = super().__new__(cls)
        made._number = loop.next_number()
        return made

    def __hash__(self) -> int:
        return self._number


class NumberedTask(_Numbered, asyncio.Task[Any]):
    """A task of a simulated process."""


class NumberedFuture(_Numbered, asyncio.Future[Any]):
    """A future of a simulated process."""


class ProcessLoop(asyncio.BaseEventLoop):
    """asyncio's own loop with a process's clock, which is stepped from outside. It has no sockets."""

    def __init__(self, process: "Process") -> None:
        super().__init__()
        self._process = process
        self.set_task_factory(lambda loop, coro, **options: NumberedTask(coro, loop=loop, **options))

    def next_number(self) -> int:
        """A number that nothing else of its world has."""
        return next(self._process.world.numbers)

    def create_future(self) -> "asyncio.Future[Any]":
        made: asyncio.Future[Any] = NumberedFuture(loop=self)
        return made

    def time(self) -> float:
        return self._process.clock.monotonic()

    def _process_events(self, events: object) -> None:
        """There are no sockets."""

    def _write_to_self(self) -> None:
        """The world looks at a loop before each step."""

    def run_in_executor(  # type: ignore[override] # the stub's generic form can't be restated
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        return self._process.run_in_thread(executor, lambda: func(*args))

    def step(self) -> None:
        """Run what is due, once, as far as its process is not killed or stopped meanwhile."""
        # asyncio's own queue, which its stub leaves out.
        ready, timers, process = self._ready, self._scheduled, self._process  # type: ignore[attr-defined]
        while timers and timers[0]._when <= self.time() + RESOLUTION_S:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
                if process.is_frozen or process.is_dead:
                    break
        finally:
            asyncio._set_running_loop(before)

    def due(self) -> float:
        """When there is something to do, by this loop's clock; minus infinity is now, infinity is not of itself."""
        if self._ready:  # type: ignore[attr-defined] # asyncio's own, which its stub leaves out
            return -math.inf
        timers = self._scheduled  # type: ignore[attr-defined] # asyncio's own, which its stub leaves out
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined] # asyncio's own, which its stub leaves out
        return timers[0]._when if timers else math.inf


class Trigger(Struct):
    """What happens to a process in one of its operations: the n-th of a kind, from now on; "" is of any kind.

    `freezes_s`: how long it stands still before it; None is that it is killed before it.
    """

    kind: str
    number: int
    freezes_s: float | None = None


class Process:
    """A process of a world: a loop, threads, clocks; it lives until it ends or is killed.

    `name`: for people. `clock`: its own. `on_death`: called once, when it is dead, whatever ended it.
    """

    def __init__(self, world: World, name: str, clock: Clock) -> None:
        self.world = world
        self.name = name
        self.clock = clock
        self.loop = ProcessLoop(self)
        self.loop.set_exception_handler(self._unexpected)
        self.is_dead = False
        self.is_frozen = False
        self.died_at = math.inf
        self.worker = 0  # its number as an owner
        self.lease_left_s: Callable[[], float] = lambda: math.inf
        self.errors = world.errors
        self.on_death: list[Callable[[], None]] = []
        self.busy_until = 0.0  # its loop waits for the disk
        self.files: list[IO[bytes]] = []  # that it has opened to write
        self._stepped_at = 0.0
        self.triggers: list[Trigger] = []
        self._threads: dict[int, Thread] = {}
        self._frozen: list[Callable[[], None]] = []  # what happens once it goes on
        world.processes.append(self)

    # -- steps --------------------------------------------------------------------------------------------------------

    def due(self) -> float:
        """When its loop has something to do, by the world's time."""
        if self.is_frozen:
            return math.inf
        due = self.loop.due()
        return max(self.busy_until, self.world.now if due == -math.inf else self.clock.moment(due))

    def step(self) -> None:
        """Its loop runs what is due."""
        self._stepped_at = self.world.now
        self.enter(self.loop.step)
        for _ in range(STEPS_AT_ONCE):
            if self.is_dead or self.is_frozen or self.busy_until > self.world.now or self.loop.due() > -math.inf:
                break
            self.enter(self.loop.step)
        if self.is_dead:
            self._unwind()

    def enter(self, work: Callable[[], None]) -> None:
        """Do something as this process."""
        before, self.world.current = self.world.current, self
        try:
            work()
        finally:
            self.world.current = before

    def start(self, main: Callable[[], Any]) -> "asyncio.Task[Any]":
        """Begin its main coroutine; it is dead when that has ended."""
        task: asyncio.Task[Any] = self.loop.create_task(main())
        task.add_done_callback(self._ended)
        return task

    def deliver(self, what: Callable[[], None]) -> None:
        """Something from outside reaches its loop, once it is not frozen; nothing reaches the dead."""
        if not self.is_dead:
            self.loop.call_soon(what)

    def operation(self, kind: str) -> None:
        """It is about to ask something of disk, net or service.

        Raises `KilledError` where it is dead, or is killed at that; may stand still from here on.
        """
        if self.is_dead:
            raise KilledError(self.name)
        for trigger in tuple(self.triggers):
            if trigger.kind in ("", kind):
                trigger.number -= 1
                if trigger.number <= 0:
                    self.triggers.remove(trigger)
                    self._pull(trigger, kind)

    def _pull(self, trigger: Trigger, kind: str) -> None:
        if trigger.freezes_s is not None:
            self.freeze(trigger.freezes_s, f"before: {kind}")
            return
        self.world.note(f"{self.name} is killed before: {kind}")
        self.is_dead = True
        raise KilledError(self.name)

    def _unexpected(self, _loop: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not self.is_dead:
            self.errors.append(error)

    @property
    def active_until(self) -> float:
        """Until when its loop could do something, by the world's time, once it is dead."""
        return self._stepped_at if self.busy_until > self.died_at else self.died_at

    # -- its end ------------------------------------------------------------------------------------------------------

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        if not self.is_dead:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self.errors.append(error)
            self.kill(is_expected=True)

    def kill(self, *, is_expected: bool = False) -> None:
        """It is no more, as after SIGKILL: what it has under way does not happen."""
        if self not in self.world.processes:
            return
        if not is_expected:
            self.world.note(f"{self.name} is killed")
        self.is_dead = True
        if self.world.current is not self:
            self._unwind()

    def _unwind(self) -> None:
        """Let its code run out, so that its files are closed; whatever it asks for does not happen."""
        if self not in self.world.processes:
            return
        self.world.processes.remove(self)
        self.died_at = self.world.now
        waiting, self._frozen = self._frozen, []
        for each in waiting:
            each()
        for thread in self._threads.values():
            thread.run_out()  # first: it may hold what the loop waits for
        self.enter(self._run_out)
        self.loop.close()
        for file in self.files:
            file.close()
        for told in self.on_death:
            told()

    def _run_out(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        for _ in range(STEPS_AFTER_DEATH):
            if self.loop.due() > -math.inf:
                break
            self.loop.step()
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined] # it waits for what never comes
            _outlast(task)
        self.loop._ready.clear()  # type: ignore[attr-defined] # asyncio's own, which its stub leaves out

    # -- standing still -----------------------------------------------------------------------------------------------

    def freeze(self, seconds: float, why: str = "", *, is_machine: bool = False) -> None:
        """It stands still for a while, as after SIGSTOP, or since its machine is suspended; what comes then waits."""
        if self.is_dead or self.is_frozen:
            return
        self.world.note(f"{self.name} stands still for {seconds:.2f} s {why}")
        self.is_frozen = True
        self.world.after(seconds, lambda: self._go_on(seconds if is_machine else 0.0))

    def _go_on(self, suspended_s: float) -> None:
        if self.is_dead:
            return
        self.world.note(f"{self.name} goes on")
        self.clock.slept(suspended_s)
        self.is_frozen = False
        waiting, self._frozen = self._frozen, []
        for each in waiting:
            each()

    def once_it_goes(self, what: Callable[[], None]) -> None:
        """Do something now, or when this process goes on."""
        if self.is_frozen:
            self._frozen.append(what)
        else:
            what()

    # -- threads ------------------------------------------------------------------------------------------------------

    def run_in_thread(self, executor: Executor | None, work: Callable[[], Any]) -> "asyncio.Future[Any]":
        """Have a thread do something; those of one executor do one thing after the other."""
        future: asyncio.Future[Any] = self.loop.create_future()
        self.thread_of(executor).submit(Job(self, work, future))
        return future

    def finish_threads(self) -> None:
        """What its threads have begun is done now: its loop waits for one of them."""
        for thread in self._threads.values():
            thread.finish_begun()

    def thread_of(self, executor: Executor | None) -> "Thread":
        """The thread that does the work of an executor in this process."""
        return self._threads.setdefault(id(executor), Thread(self, executor))


class Thread:
    """A thread of a process, which does one thing after the other. `executor`: whose work it does."""

    def __init__(self, process: Process, executor: Executor | None) -> None:
        self.executor = executor  # kept, since it is known by its id
        self._process = process
        self._jobs: list[Job] = []

    def submit(self, job: "Job") -> None:
        """Have it do something, once it has done what it was told before."""
        job.on_end = self._next
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._begin()

    def _begin(self) -> None:
        world = self._process.world
        world.after(world.chance.choice(BEGIN_S), self._jobs[0].go_on)

    def _next(self) -> None:
        del self._jobs[0]
        if self._jobs:
            self._begin()

    def finish_begun(self) -> None:
        """What it does is done now."""
        if self._jobs and self._jobs[0].is_begun:
            self._jobs[0].finish()

    def wait(self) -> None:
        """For whoever joins it: all that it was told is done now."""
        while self._jobs and not self._process.is_dead:
            self._jobs[0].finish()

    def run_out(self) -> None:
        """Its process is dead."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.run_out()


class Job:
    """What a thread does. It may stand still at each operation, for whatever time the disk takes."""

    def __init__(self, process: Process, work: Callable[[], Any], future: "asyncio.Future[Any]") -> None:
        self.on_end: Callable[[], None] = lambda: None
        self._process = process
        self._work = work
        self._future = future
        self._strand: Strand | None = None
        self._is_over = False
        self.took_s = 0.0  # what is done in one go is over only then
        self._done: tuple[Any, BaseException | None] | None = None

    def go_on(self) -> None:
        """Run up to the next operation that takes time, or to the end."""
        if not self._is_over and not self._process.is_dead:
            self._process.once_it_goes(self._run)

    @property
    def is_begun(self) -> bool:
        """Whether it is neither to begin yet nor over."""
        return self._strand is not None or self._done is not None

    def finish(self) -> None:
        """Run to the end, whatever time that takes."""
        while not self._is_over and not self._process.is_dead:
            self._run()

    def _run(self) -> None:
        process = self._process
        if self._is_over or process.is_dead:
            return
        if self._done is not None:
            self._end(*self._done)
            return
        if self._strand is None:
            if not process.triggers and process.world.chance.random() > IN_STRAND:
                self._run_in_one_go()
                return
            self._strand = process.world.strands.begin(self._work)
        process.enter(self._strand.go_on)
        if process.is_dead:
            self._is_over = True
            process.kill()
        elif self._strand.is_over:
            self._end(*self._strand.take())
        else:
            process.world.after(self._strand.pause_s, self.go_on)

    def _run_in_one_go(self) -> None:
        process, world = self._process, self._process.world

        def work() -> None:
            before, world.job = world.job, self
            try:
                self._done = self._work(), None
            except BaseException as error:  # noqa: BLE001 - handed on
                self._done = None, error
            finally:
                world.job = before

        process.enter(work)
        if process.is_dead:
            self._is_over = True
            process.kill()
        else:
            world.after(self.took_s, self.go_on)

    def _end(self, result: Any, error: BaseException | None) -> None:
        self._is_over, self._strand = True, None
        self._process.loop.call_soon(self._tell, result, error)
        self.on_end()

    def _tell(self, result: Any, error: BaseException | None) -> None:
        if self._future.done():
            return
        if error is None:
            self._future.set_result(result)
        else:
            self._future.set_exception(error)

    def run_out(self) -> None:
        """Its process is dead: the thread ends."""
        self._is_over = True
        if self._strand is not None:
            self._process.enter(self._strand.run_out)
            self._strand = None


def _outlast(task: "asyncio.Task[Any]") -> None:
    """A task that its process's death leaves: close its coroutine, whatever that says."""
    with contextlib.suppress(BaseException):
        task.get_coro().close()
