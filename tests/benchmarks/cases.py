"""What is measured. Each case runs processes and keeps one record of each; `report` makes tables of the records."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.benchmarks.measuring import Environments, Measured, Running, StubServer
from tests.benchmarks.rivals import (
    CONTENDERS,
    FLOOR,
    STUB,
    SUBJECT,
    SUBJECT_ON_ASYNCIO,
    Contender,
    count_right,
    write_job,
    write_rows,
)

Record = dict[str, Any]
"""One measured process, JSON-ready."""

POLL_S = 0.002  # publishing a short table is over in a twentieth of a second
FIRST_REQUEST_LATENCY_S = 60.0  # so that nothing happens between the first request and the look at the process
SETTLED_S = 3.0  # by then a run has recorded what was answered, and synced it


class Service(Struct, frozen=True):
    """How the stub answers, and how many requests a client may have in flight."""

    in_flight: int
    latency_s: float
    spread_s: float = 0.0
    one_core: bool = False
    is_encrypted: bool = False


USUAL = Service(256, 0.05, 0.025)
MANY = Service(2000, 0.2, 0.1, one_core=True)
AT_ONCE = Service(256, 0.0, one_core=True)
NO_WAIT = Service(256, 0.0)


class Workshop:
    """Where the measured processes run, and where their records go."""

    def __init__(self, folder: Path, keep: Callable[[Record], None], rounds: int) -> None:
        self.environments = Environments(folder / "venvs")
        self.keep = keep
        self.rounds = rounds
        self._folder = folder

    def rows(self, rows: int) -> Path:
        """An input of this many rows."""
        return write_rows(self._folder / "inputs", rows)

    def stub(self, service: Service, **more: Any) -> StubServer:
        """A server that answers so."""
        python = self.environments.python("stub", STUB)
        return StubServer(python, service.latency_s, service.spread_s, one_core=service.one_core, **more)

    def python(self, who: Contender) -> Path:
        """The interpreter that has who's packages."""
        return self.environments.python(who.name, who.packages)

    @contextmanager
    def bench(self) -> Iterator[Path]:
        """An empty folder that is gone afterwards."""
        folder = self._folder / "work"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
        shutil.rmtree(folder)

    def carry_out(self, who: Contender, rows: int, service: Service, **said: object) -> Record:
        """One whole run, from the table to the answers, all of them checked."""
        with self.bench() as folder, self.stub(service, tls=folder if service.is_encrypted else None) as stub:
            output = folder / "out.parquet"
            command = who.command(self.python(who), stub.base_url, self.rows(rows), output, service.in_flight)
            measured = Running(command, folder / "stdout", one_core=service.one_core).end().or_fail(command)
            record = record_of(who.name, rows, measured, **said) | seen(stub)
            right = count_right(who.answers(output), rows)
        if right != rows:
            raise SystemExit(f"{who.title}: {right} of {rows} rows have their own answer")
        self.keep(record)
        return record

    def kept(self, name: str, make: Callable[[Path], None]) -> Path:
        """A folder that is costly to make, made once."""
        folder = self._folder / name
        if not folder.exists():
            staged = folder.with_name(f"{folder.name}.tmp")
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            make(staged)
            staged.rename(folder)
        return folder


def record_of(who: str, rows: int, measured: Measured, **said: object) -> Record:
    """What is kept of a process."""
    took = {"cpu_s": measured.cpu_s, "wall_s": measured.wall_s, "peak_mb": measured.peak_mb}
    return {"who": who, "rows": rows, **said, **took}


def seen(stub: StubServer) -> Record:
    """What the server says of the run."""
    end = stub.end()
    return {"answered": end.answered, "busy_s": end.busy_s, "stub_cpu_s": end.cpu_s}


# -- against others ----------------------------------------------------------------------------------------------------


def rivals(shop: Workshop, rows: int, slow_rows: int, contenders: Sequence[Contender] = CONTENDERS) -> None:
    """256 in flight at 50 +- 25 ms: everyone in turn, and everyone with one row alone, which is what a start takes.

    Each round begins with another one: a machine that was worked hard for half a minute may be slower for the next.
    """
    for each_round in range(shop.rounds):
        first = each_round % len(contenders)
        for who in (*contenders[first:], *contenders[:first]):
            shop.carry_out(who, 1, USUAL, case="start-up", round=each_round)
            shop.carry_out(who, slow_rows if who.is_slow else rows, USUAL, case="rivals", round=each_round)


def many(shop: Workshop, rows: int) -> None:
    """2,000 in flight at 200 +- 100 ms, on one core; the floor beside it shows what server and machine can do."""
    _on_one_core(shop, rows, MANY, "many")


def at_once(shop: Workshop, rows: int) -> None:
    """256 in flight at 0 ms, on one core."""
    _on_one_core(shop, rows, AT_ONCE, "at-once")


def _on_one_core(shop: Workshop, rows: int, service: Service, case: str) -> None:
    for each_round in range(shop.rounds):
        for who in (SUBJECT, FLOOR):
            shop.carry_out(who, rows, service, case=case, round=each_round)


def tls(shop: Workshop, rows: int) -> None:
    """What TLS takes: the same job with it and without, at 256 and at 2,000 in flight."""
    for each_round in range(shop.rounds):
        for in_flight, latency_s, spread_s in ((256, 0.05, 0.025), (2000, 0.2, 0.1)):
            for case, is_encrypted in (("no tls", False), ("tls", True)):
                service = Service(in_flight, latency_s, spread_s, is_encrypted=is_encrypted)
                shop.carry_out(SUBJECT, rows, service, case=case, in_flight=in_flight, round=each_round)


# -- a long table ------------------------------------------------------------------------------------------------------


def memory(shop: Workshop, rows: int) -> None:
    """Peak memory up to the moment when publishing begins, and from there on; then publishing by itself."""
    with shop.bench() as folder, shop.stub(NO_WAIT) as stub:
        output = folder / "out.parquet"
        python = shop.python(SUBJECT)
        command = SUBJECT.command(python, stub.base_url, shop.rows(rows), output, NO_WAIT.in_flight)
        running = Running(command, folder / "stdout")
        peaks = _peaks(running, output)
        measured = running.end().or_fail(command)
        shop.keep(record_of(SUBJECT.name, rows, measured, case="memory", **peaks) | seen(stub))
        if (right := count_right(SUBJECT.answers(output), rows)) != rows:
            raise SystemExit(f"cometbatch: {right} of {rows} rows have their own answer")
        for each_round in range(shop.rounds):
            _publish(shop, command, output, rows, each_round)


def _peaks(running: Running, output: Path) -> Record:
    """The peaks before and after the moment when something appears beside the run directory."""
    known = set(output.parent.iterdir()) | {output.with_name(f"_{output.name}.run")}
    before = during = 0.0
    is_publishing = False
    while running.is_running:
        if not is_publishing and set(output.parent.iterdir()) - known:
            is_publishing = True
            running.forget_peak()
        if is_publishing:
            during = max(during, running.peak_mb)
        else:
            before = max(before, running.peak_mb)
        time.sleep(POLL_S)
    return {"run_peak_mb": before, "publishing_peak_mb": during}


def _publish(shop: Workshop, command: list[str], output: Path, rows: int, each_round: int) -> None:
    """The finished run once more: with its result in place there is nothing to do, without it only to publish."""
    for case in ("nothing to do", "publishing"):
        if case == "publishing":
            output.unlink()
        measured = Running(command, output.parent / "stdout").end().or_fail(command)
        shop.keep(record_of(SUBJECT.name, rows, measured, case=case, round=each_round))


def resume(shop: Workshop, rows: int) -> None:
    """To the first request: of a run that has this many rows done, and of one of the same table that has none."""
    source = shop.rows(rows + rows // 50)
    stopped = shop.kept(f"stopped-{rows}", lambda folder: _stop_after(shop, rows, source, folder))
    for each_round in range(shop.rounds):
        for case, begun in (("fresh start", None), ("resume", stopped)):
            with shop.bench() as folder, shop.stub(Service(256, FIRST_REQUEST_LATENCY_S)) as stub:
                output = folder / "out.parquet"
                if begun is not None:
                    shutil.copytree(begun / "_out.parquet.run", folder / "_out.parquet.run")
                command = SUBJECT.command(shop.python(SUBJECT), stub.base_url, source, output, USUAL.in_flight)
                running = Running(command, folder / "stdout")
                stub.wait_for("asked")
                took = {"cpu_s": running.cpu_s, "peak_mb": running.peak_mb}
                running.kill()
                running.end()
                shop.keep({"case": case, "who": SUBJECT.name, "rows": rows, "round": each_round, **took})


def _stop_after(shop: Workshop, rows: int, source: Path, folder: Path) -> None:
    """Kill a run whose server answers this many rows and then falls silent."""
    with shop.stub(NO_WAIT, most=rows) as stub:
        command = SUBJECT.command(
            shop.python(SUBJECT), stub.base_url, source, folder / "out.parquet", NO_WAIT.in_flight
        )
        running = Running(command, folder / "stdout")
        stub.wait_for("silent")
        time.sleep(SETTLED_S)
        running.kill()
        running.end()


# -- small things ------------------------------------------------------------------------------------------------------


def limit(shop: Workshop, seconds: int) -> None:
    """1,000 requests/s: held to them by the limit, and by as many in flight as give the same rate without one."""
    rate = 1000
    for each_round in range(shop.rounds):
        for who in (SUBJECT, SUBJECT_ON_ASYNCIO):
            for is_limited in (False, True):
                _limited(shop, who, rate, seconds, is_limited=is_limited, each_round=each_round)


def _limited(shop: Workshop, who: Contender, rate: int, seconds: int, *, is_limited: bool, each_round: int) -> None:
    in_flight = USUAL.in_flight if is_limited else int(rate * USUAL.latency_s)
    limits = {"requests_per_minute": rate * 60} if is_limited else {}
    with shop.bench() as folder, shop.stub(USUAL) as stub:
        source, output = shop.rows(rate * seconds), folder / "out.parquet"
        command = who.command(shop.python(who), stub.base_url, source, output, in_flight)
        write_job(stub.base_url, source, output, in_flight, **limits)
        measured = Running(command, folder / "stdout").end().or_fail(command)
        case = "limit on" if is_limited else "limit off"
        shop.keep(record_of(who.name, rate * seconds, measured, case=case, round=each_round) | seen(stub))


def start(shop: Workshop, rows: int) -> None:
    """The command's help, and a plan of a small table."""
    python = shop.python(SUBJECT)
    with shop.bench() as folder:
        job = write_job("http://127.0.0.1:9", shop.rows(rows), folder / "out.parquet", USUAL.in_flight)
        for each_round in range(shop.rounds):
            for case, words in (("help", ["--help"]), ("plan", ["plan", str(job)])):
                command = [str(python.with_name("cometbatch")), *words]
                measured = Running(command, folder / "stdout").end().or_fail(command)
                shop.keep(record_of(SUBJECT.name, rows, measured, case=case, round=each_round))
