"""The service and the timer of the page: verified, then run by a systemd of their own."""

import getpass
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.recipes.page import for_folders, promised, recipe
from tests.recipes.places import UnavailableError, first_process, group, sealed
from tests.recipes.situations import FOLDERS, ROWS, SITUATIONS, STOPPED, Prepared, Situation, all_prepared, until

MANAGER = "/lib/systemd/systemd"
TARGETS = ("basic", "shutdown", "exit", "timers", "network-online")
ENDED = ("inactive", "failed")
ASKED = "Result,NRestarts,ExecMainStatus,ActiveState,SubState"


def check(folder: Path, environments: Path, cometbatch: str) -> Iterator[str]:
    """Says what was tried, a line for each thing."""
    if shutil.which("systemd-analyze") is None or not Path(MANAGER).exists():
        raise UnavailableError("there is no systemd here; apt-get install systemd brings one")
    pair = folder / "verified"
    pair.mkdir()
    real = {"/opt/cometbatch/bin/cometbatch": cometbatch, "User=triage": f"User={getpass.getuser()}"}
    (pair / "cometbatch-triage.service").write_text(recipe("cometbatch-triage.service", real), encoding="utf-8")
    (pair / "cometbatch-triage.timer").write_text(recipe("cometbatch-triage.timer", {}), encoding="utf-8")
    units = sorted(str(path) for path in pair.iterdir())
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    version = subprocess.run([MANAGER, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    yield f"systemd {version} verifies service and timer, with no word against them"
    asked_to_stop = Situation("stop", 143, "systemctl stop", latency_s=2.0)
    timed = Situation("timer", 0, "a night was missed")
    with ExitStack() as stack:
        situations = [*SITUATIONS, *STOPPED.values(), asked_to_stop, timed, FOLDERS]
        jobs = stack.enter_context(all_prepared(folder / "jobs", situations))
        manager = Manager(folder)
        for name, here in jobs.items():
            manager.write(f"{name}.service", service(here, cometbatch, dated=name == FOLDERS.name))
        manager.write("timer.timer", recipe("cometbatch-triage.timer", {}))
        own = [MANAGER, "--user", "--unit=basic.target", "--log-target=null"]
        line = stack.enter_context(sealed(folder, [], own))
        spaces = stack.enter_context(group(line, folder / "systemd.log", manager.environment))
        until(manager.is_there, "a systemd of our own", spaces)
        yield from tried(manager, jobs)


def service(here: Prepared, cometbatch: str, *, dated: bool = False) -> str:
    """The page's service for one job. A manager of one user's services runs them all as that user.

    `dated`: with the page's command for a folder for each night.
    """
    paths = {"/opt/cometbatch/bin/cometbatch": cometbatch, "/srv/triage": str(here.folder)}
    paths |= {"/etc/cometbatch/key": str(here.key), "User=triage\n": "", "--wait 120": "--wait 1"}
    text = recipe("cometbatch-triage.service", paths)
    if dated:
        words = f"{here.job} --wait 1 --json --set target.key_file=%d/cometapi"
        command = for_folders("systemd").replace("...", words).replace("/opt/cometbatch/bin/cometbatch", cometbatch)
        text = re.sub("^ExecStart=.*$", lambda _: command, text, flags=re.MULTILINE)
    return text


class Manager:
    """A systemd for one user's units, that knows the units of one folder alone."""

    def __init__(self, folder: Path) -> None:
        self._units = folder / "units"
        self._within = 0  # a process in the manager's namespaces
        self._units.mkdir()
        for name in TARGETS:
            self.write(f"{name}.target", "[Unit]\nDefaultDependencies=no\n")
        own = {"XDG_RUNTIME_DIR": str(folder / "run/user"), "XDG_DATA_HOME": str(folder / "data")}
        self.environment = {**os.environ, **own, "HOME": str(folder), "SYSTEMD_UNIT_PATH": str(self._units)}
        stamps = folder / "data/systemd/timers"
        stamps.mkdir(parents=True)
        self._stamp = stamps / "stamp-timer.timer"

    def write(self, name: str, text: str) -> None:
        """A unit."""
        (self._units / name).write_text(text, encoding="utf-8")

    def ctl(self, *words: str) -> str:
        """What systemctl says."""
        line = ["nsenter", "--target", str(self._within), "--mount", "--pid", "systemctl", "--user", *words]
        return subprocess.run(line, env=self.environment, capture_output=True, text=True, check=False).stdout

    def is_there(self, spaces: "subprocess.Popen[bytes]") -> bool:
        """Whether it answers, in the namespaces that this process made; it hears nobody outside them."""
        with suppress(IndexError):  # they are still being made
            self._within = first_process(spaces)
        return self._within > 0 and "ActiveState=active" in self.ctl("show", "basic.target")

    def state(self, name: str) -> dict[str, str]:
        """What it knows of a service."""
        return dict(line.split("=", 1) for line in self.ctl("show", f"{name}.service", "-p", ASKED).splitlines())

    def has_ended(self, name: str) -> bool:
        """Whether it neither runs nor waits to be run again."""
        return self.state(name)["ActiveState"] in ENDED

    def has_restarted(self, name: str) -> bool:
        """Whether it was run again once."""
        return self.state(name)["NRestarts"] == "1"

    def miss_a_night(self) -> None:
        """The timer fired two days ago last."""
        self._stamp.touch()
        before = time.time() - 2 * 86400
        os.utime(self._stamp, (before, before))


def tried(manager: Manager, jobs: dict[str, Prepared]) -> Iterator[str]:
    """Start all services; strike those that are to be stopped; look at what the manager makes of their ends."""
    manager.ctl("start", "--no-block", *(f"{name}.service" for name in jobs if name != "timer"))
    for name in STOPPED:
        here = jobs[name]
        here.wait_for_answers(4)
        manager.ctl("kill", "--kill-whom=main", f"--signal={name}", f"{name}.service")
        until(manager.has_restarted, f"{name}: resumed", name)
        here.server.latency_s = (0.0, 0.0)
    jobs["stop"].wait_for_answers(4)
    manager.ctl("stop", "stop.service")
    assert (manager.state("stop")["ExecMainStatus"], manager.state("stop")["NRestarts"]) == ("143", "0")
    jobs["stop"].check_nothing_was_lost()
    yield "systemctl stop: 143, what was in flight is recorded, not started again; the next start pays nothing twice"
    for name in [*(each.name for each in SITUATIONS), *STOPPED]:
        until(manager.has_ended, f"{name}: over", name)
        found, code = manager.state(name), jobs[name].situation.code
        was_retried = name in STOPPED or found["NRestarts"] != "0"  # the count of a run that ended well is 0 again
        end = "retried" if was_retried else "done" if found["Result"] == "success" else "failed"
        assert end == promised("systemd")[code], (name, found)
        if name in STOPPED:
            assert (found["Result"], jobs[name].server.wasted) == ("success", 0), (name, found)
    assert manager.state("refused")["NRestarts"] in ("3", "4"), manager.state("refused")
    yield "each exit code: as the table says; a signal is followed by a start that pays nothing twice"
    until(manager.has_ended, "the folder of the night", FOLDERS.name)
    found, nights = manager.state(FOLDERS.name), jobs[FOLDERS.name].nights()
    assert (found["Result"], list(nights.values())) == ("success", [ROWS]), (found, nights)
    yield f"a folder for each night: {', '.join(nights)}"
    manager.miss_a_night()
    manager.ctl("start", "timer.timer")
    here = jobs["timer"]
    until(lambda: len(here.server.answered) == ROWS and manager.has_ended("timer"), "the timer's run")
    assert " 02:00:00 " in manager.ctl("list-timers", "--all"), manager.ctl("list-timers", "--all")
    yield "the timer makes up for a missed night at once, and waits for two o'clock then"
