"""The crontab's line, fired by a real cron whose clock stands just before two, and then before three."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.recipes.page import promised, recipe
from tests.recipes.places import UnavailableError, group, programs_of, sealed
from tests.recipes.situations import (
    FOLDERS,
    ROWS,
    SITUATIONS,
    STOPPED,
    Prepared,
    Situation,
    all_prepared,
    prepared,
    until,
)

SPOOL = "/var/spool"
TABLES = f"{SPOOL}/cron/crontabs"
LIBRARY = "usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
BEFORE = ("2026-12-01 01:59:57", "2026-12-01 02:59:57")
NIGHTS = ("2026-12-01 01:59:57", "2026-12-02 01:59:57", "2026-12-03 01:59:57")


def check(folder: Path, environments: Path, cometbatch: str) -> Iterator[str]:
    """Says what was tried, a line for each thing."""
    if not (Path("/etc/debian_version").exists() and os.uname().machine == "x86_64"):
        raise UnavailableError("cron and libfaketime are taken from Debian, for x86-64")
    root = programs_of("cron", "libfaketime", folder=environments / "cron")
    grown = Situation("grown", 0, "a row is added between two and three")
    situations = [*SITUATIONS, *STOPPED.values(), grown]
    with all_prepared(folder / "jobs", situations) as jobs:
        table = "".join(line("crontab", here, cometbatch) for here in jobs.values())
        for round_, moment in enumerate(BEFORE, start=1):
            with daemon(folder, root, table, moment):
                if round_ == 1:
                    strike(jobs)
                for here in jobs.values():
                    until(has_ended, f"{here.folder.name}: run {round_}", here, round_)
            if round_ == 1:
                jobs[grown.name].add_a_row()
                for name in STOPPED:
                    here = jobs[name]
                    assert here.recorded() == here.server.answered.total(), name
                    here.server.latency_s = (0.0, 0.0)
        for name, here in jobs.items():
            code = here.situation.code
            assert promised("cron")[code] == ("done" if code == 0 else "retried")
            told = [each["exit_code"] for each in ends(here)]
            assert told == [code, 0 if name in STOPPED else code], (name, told)
            metrics = here.folder / "triage.prom"
            assert not metrics.exists() or f" {told[-1]}\n" in metrics.read_text(encoding="utf-8"), name
            if code == 0:
                assert [each["had_work"] for each in ends(here)] == [True, name == grown.name], name
                assert "cometbatch_last_success_timestamp_seconds" in metrics.read_text(encoding="utf-8"), name
            if name in STOPPED:
                assert [each["finished"] for each in ends(here)] == [False, True], name
                assert here.server.wasted == 0, name
        assert (len(jobs[grown.name].server.answered), jobs[grown.name].server.wasted) == (ROWS + 1, 0)
    yield "a row that was added between the two runs is the only one that the second sends"
    yield "a real cron at two, then at three: what was stopped is resumed, what is complete is left as it is"
    yield "each exit code: it stands in the log with its time, and the line of the next hour runs it again"
    yield from folders(folder, root, cometbatch)


def line(name: str, here: Prepared, cometbatch: str) -> str:
    """A crontab of the page for one job."""
    paths = {"/opt/cometbatch/bin/cometbatch": cometbatch, "--wait 120": "--wait 1", "/srv/triage": str(here.folder)}
    return recipe(name, paths)


def folders(folder: Path, root: Path, cometbatch: str) -> Iterator[str]:
    """A folder for each of three nights, of which each has one row more. The first is killed before it begins."""
    with prepared(FOLDERS, folder / "jobs/folders") as here:
        (here.folder / "out/_2026-11-30.run").mkdir(parents=True)
        (here.folder / "out/_2026-11-30.run/lock").touch()
        for number, moment in enumerate(NIGHTS, start=1):
            table = line("crontab-folders", here, cometbatch)  # cron hands its own false clock on to nobody
            table = table.replace("$(date", f"$(LD_PRELOAD={root}/{LIBRARY} FAKETIME='@{moment}' date")
            with daemon(folder, root, table, moment):
                until(has_ended, f"night {number}", here, number)
            assert here.nights()[moment.split()[0]] == ROWS + number - 1, here.nights()
            assert (len(here.server.answered), here.server.wasted) == (ROWS + number - 1, 0), moment
            here.add_a_row(ROWS + number - 1)
        assert [each["exit_code"] for each in ends(here)] == [0] * len(NIGHTS)
    yield "a folder for each night: three nights with a row more each send that row alone"


@contextlib.contextmanager
def daemon(folder: Path, root: Path, table: str, moment: str) -> Iterator[None]:
    """A cron that has this crontab alone, and believes it to be this moment."""
    place = folder / "daemon"
    tables = place / "crontabs"
    tables.mkdir(parents=True, exist_ok=True)
    (tables / "root").write_text(table, encoding="utf-8")
    (tables / "root").chmod(0o600)
    start = (  # cron sees no table of the machine's own
        "{ [ ! -e /etc/crontab ] || mount --bind /dev/null /etc/crontab; } && "
        f"mkdir -p {TABLES} && cp -p {tables}/root {TABLES}/root"
        f" && exec env LD_PRELOAD={root}/{LIBRARY} FAKETIME='@{moment}' {root}/usr/sbin/cron -f -L 15"
    )
    others = [path for path in ("/etc/cron.d",) if Path(path).exists()]
    with sealed(folder, [SPOOL, *others], ["bash", "-c", start]) as line:
        (folder / "run/crond.pid").unlink(missing_ok=True)
        with group(line, folder / "cron.log", {**os.environ, "TZ": "UTC"}):
            yield


def strike(jobs: dict[str, Prepared]) -> None:
    """Each run that is to be stopped gets its signal, once it has some answers."""
    for name in STOPPED:
        jobs[name].wait_for_answers(4)
        os.kill(process_of(jobs[name]), getattr(signal, name))


def process_of(here: Prepared) -> int:
    """The process that works on this job: the one of our own that has its file on its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if str(here.job).encode() in words and b"run" in words and b"sh" not in words[0].split(b"/")[-1]:
                return int(path.parent.name)
    raise AssertionError(f"nobody runs {here.job}")


def has_ended(here: Prepared, times: int) -> bool:
    """Whether a job has run so often, by what its log says of its ends."""
    return len(ends(here)) >= times


def ends(here: Prepared) -> list[dict[str, object]]:
    """The lines of its log that have an exit code; the page looks for them in the same way."""
    log = here.folder / "run.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [json.loads(line) for line in lines if '"exit_code"' in line and line.endswith("}")]
