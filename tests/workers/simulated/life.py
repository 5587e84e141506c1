"""One life: the sessions of a plan, one after the other, then a last one in which nothing goes wrong, then the laws."""

import contextlib
import math
import os
import tempfile
from pathlib import Path

import msgspec
import pytest

from cometbatch.run_state.group_commit import SYNC_INTERVAL_S
from tests.crash import power
from tests.crash.power import Disk, Recorder
from tests.workers.simulated import laws
from tests.workers.simulated.disk import DiskSpeed, SimulatedDisk
from tests.workers.simulated.laws import BrokenLawError, Ended, Harm
from tests.workers.simulated.net import Net, NetFaults
from tests.workers.simulated.plain import Settings, plain_session
from tests.workers.simulated.plan import Mishap, Plan, SessionPlan
from tests.workers.simulated.service import Faults, SimulatedService
from tests.workers.simulated.table import Table
from tests.workers.simulated.workers import Session
from tests.workers.simulated.world import Process, Trigger, World, usual_clock

SESSION_S = 400.0  # virtual seconds in which any session ends
LOST_WITH_POWER_S = 2 * SYNC_INTERVAL_S + 0.02  # of work, where syncs take no time
QUIET = Faults()
LAST = SessionPlan(0, in_cluster=False, service=QUIET, net=NetFaults(), mishaps=())


class Life:
    """A plan that is carried out in a folder."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.world = World(plan.seed, plan.drift)
        self.table = Table(folder / "run", plan.rows, plan.partition_rows, plan.queues)
        self.table.directory().create()
        self.service = SimulatedService(self.world, QUIET)
        self.harm: dict[str, Harm] = {}
        self.parts: list[str] = []
        self.sessions: list[Ended] = []
        self.power_cut_at = math.inf
        self._recorder: Recorder | None = None
        self._is_last = False
        self._started = 0

    def carry_out(self, patch: pytest.MonkeyPatch) -> None:
        """Live. Raises `BrokenLawError`, and `NoProgressError` where it does not end."""
        plan, speed = self.plan, DiskSpeed(sync_s=self.plan.sync_s, stall=self.plan.stall, step=self.plan.step)
        disk = SimulatedDisk(self.world, self.table.folder, speed)
        self.parts = disk.broken
        with self._recording(patch), disk.watching(patch):
            try:
                for number, each in enumerate(plan.sessions):
                    if plan.power_cut is not None and plan.power_cut[0] == number:
                        self.world.after(plan.power_cut[1], self._cut_power)
                    self._session(each, plan.settings)
                self._last_session()
                self.world.run(lambda: not self.world.processes, self.world.now + SESSION_S)
                self._check()
            finally:
                self.world.close()

    # -- sessions ----------------------------------------------------------------------------------------------------

    def _session(self, plan: SessionPlan, settings: Settings) -> None:
        self.service.faults = plan.service
        if plan.service.stops_at is not None:
            stops_at = len(self.service.ledger) + plan.service.stops_at
            self.service.faults = msgspec.structs.replace(plan.service, stops_at=stops_at)
        driver = self._process("driver")
        if not plan.owners:
            driver.start(lambda: plain_session(driver, self.table, self.service, settings))
            self._with_mishaps(plan, driver, None, None)
            self._until_dead(driver)
            self._ended(plan, settings)
            return
        net = Net(self.world, plan.net)
        session = Session(
            self.world,
            self.table,
            self.service,
            net,
            settings=settings,
            owners=plan.owners,
            in_cluster=plan.in_cluster,
        )
        session.new_owner, session.on_lost = self._mortal, self._lost
        driver.start(lambda: session.drive_session(driver))
        self._with_mishaps(plan, driver, session, net)
        self._until_dead(driver)
        self._ended(plan, settings, session)

    def _last_session(self) -> None:
        """Nothing goes wrong any more: then the run ends."""
        self._is_last = True
        self.service.faults = QUIET
        settings = msgspec.structs.replace(self.plan.settings, max_cost_usd=None)
        driver = self._process("last driver")
        driver.start(lambda: plain_session(driver, self.table, self.service, settings))
        self._until_dead(driver)
        self._ended(LAST, settings)

    def _process(self, name: str) -> Process:
        self._started += 1
        clock = usual_clock(self.world)
        return self._mortal(Process(self.world, f"{name} {self._started}", clock))

    def _mortal(self, process: Process) -> Process:
        """Remember when a process dies."""
        process.on_death.append(
            lambda: setattr(self.harm.setdefault(process.name, Harm()), "died_at", process.active_until)
        )
        return process

    def _lost(self, process: Process) -> None:
        """What it had is another's from now on: also after its driver's death."""
        harm = self.harm.setdefault(process.name, Harm())
        harm.lost_at = min(harm.lost_at, self.world.now)

    def _until_dead(self, driver: Process) -> None:
        self.world.run(lambda: driver.is_dead or bool(self.world.errors), self.world.now + SESSION_S)
        if self.world.errors:
            raise self.world.errors[0]

    def _ended(self, plan: SessionPlan, settings: Settings, session: Session | None = None) -> None:
        """A session is over. One that was killed before it had begun is none."""
        last = self.table.directory().last_session()
        if last is None or last.number in {each.number for each in self.sessions}:
            return
        is_quiet = not plan.mishaps and plan.net == NetFaults() and not self.plan.stall
        ended = Ended(last.number, plan.owners, settings, is_quiet)
        kinds: tuple[str, ...] = ()
        has_ended = False
        if session is not None:
            ended = msgspec.structs.replace(ended, stopped_at=session.stopped_at)
            kinds, has_ended = tuple(each.words.kind for each in session.driven.stops), session.has_ended
        self.sessions.append(ended)
        words = list(laws.of_a_session(self.table, self.service.ledger, ended, kinds, has_ended=has_ended))
        if words:
            raise BrokenLawError("\n".join(words))

    # -- the machine's power -----------------------------------------------------------------------------------------

    def _recording(self, patch: pytest.MonkeyPatch) -> contextlib.AbstractContextManager[None]:
        """What is asked of the disk is recorded, where its power fails at some time."""
        if self.plan.power_cut is None:
            return contextlib.nullcontext()
        self._recorder = Recorder(self.table.folder, lambda: self.world.now)
        return self._recorder.watching(patch)

    def _cut_power(self) -> None:
        """Every process dies, and of what was not synced anything may be lost that a disk can lose."""
        recorder, folder, world = self._recorder, self.table.folder, self.world
        if recorder is None or self._is_last:
            return
        world.note("the power fails")
        self.power_cut_at = world.now
        for process in tuple(world.processes):
            process.kill()
        left = Disk(recorder, to_the_end=True).left(*world.chance.choice(list(power.outcomes(world.chance))))
        power.make(left, folder.with_name("left"))
        folder.rename(folder.with_name("lost"))
        folder.with_name("left").rename(folder)
        recorder.begin_anew()

    # -- mishaps -----------------------------------------------------------------------------------------------------

    def _with_mishaps(self, plan: SessionPlan, driver: Process, session: Session | None, net: Net | None) -> None:
        for each in plan.mishaps:
            # The lambda's default is the value of now, which the type checker can't infer.
            self.world.after(each.at_s, lambda each=each: self._happen(each, driver, session, net))  # type: ignore[misc]

    def _happen(self, mishap: Mishap, driver: Process, session: Session | None, net: Net | None) -> None:
        process = driver
        if mishap.whom == "owner" and session is not None:
            owners = [each for each in session.owners.values() if not each.is_dead]
            if not owners:
                return
            process = owners[mishap.owner % len(owners)]
        elif mishap.whom == "coordinator" and session is not None:
            process = session.coordinator or driver
        if process.is_dead:
            return
        if mishap.what != "kill" and mishap.for_s:
            self.harm.setdefault(process.name, Harm()).stood_still = True
        match mishap.what:
            case "kill":
                process.kill()
            case "stop":
                process.freeze(mishap.for_s)
            case "suspend":
                process.freeze(mishap.for_s, is_machine=True)
            case "cut" if net is not None:
                net.cut(int(process.name.rpartition("-")[2]), mishap.for_s)
            case "trigger":
                process.triggers.append(Trigger(mishap.operation, mishap.number, mishap.for_s or None))

    # -- laws --------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        witness = laws.Witness(
            self.table,
            self.service.ledger,
            self.sessions,
            self.harm,
            self.parts,
            self.service.unsent,
            self.power_cut_at,
            LOST_WITH_POWER_S + (3.0 if self.plan.stall else 8 * self.plan.sync_s),
        )
        if words := list(laws.broken(witness)):
            raise BrokenLawError("\n".join(words))


def live(plan: Plan) -> Life:
    """Carry out a plan. Raises what it raises."""
    with tempfile.TemporaryDirectory(dir=_memory()) as folder, pytest.MonkeyPatch.context() as patch:
        life = Life(plan, Path(folder))
        try:
            life.carry_out(patch)
        except Exception as error:
            lines = "\n".join(f"{when:9.3f} {words}" for when, words in life.world.log)
            error.add_note(f"{plan}\n{lines}")
            raise
        return life


def _memory() -> str | None:
    """A folder in memory, where there is one: a life has thousands of small writes."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
