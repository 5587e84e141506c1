"""The power fails between any two steps of a run: what was recorded a second ago is there, and the run carries on."""

import asyncio
import itertools
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.run_state import manifest as manifests
from cometbatch.run_state import resume
from cometbatch.run_state.directory import RunDirectory
from tests import virtual_time
from tests.crash import power
from tests.crash.power import Disk, Recorder, State
from tests.workbench import ANSWER_COLUMNS, Network, Workbench

ROWS, PARTITION_ROWS, CONCURRENCY = 12, 4, 3
LOST_AT_MOST_S = 1.0  # docs/durability.md
REFUSED = 6  # this row, the first time
SEED = 20
CUTS = int(os.environ.get("CUTS", "30"))  # for each case; there are up to two hundred
SPARED = {"lock", "in_flight", "sessions.jsonl", "manifest.json", "reopened.json"}


def row_of(request: httpx.Request) -> int | None:
    """Which row of the table a request is for."""
    found = re.search(rb"Parcel ([0-9]+)", request.content)
    return int(found[1]) if found else None


class Service(Network):
    """The simulator, and when it answered which row."""

    def __init__(self, clock: "Clock", answer: Callable[[httpx.Request], httpx.Response | None] | None = None) -> None:
        super().__init__(answer=answer)
        self._clock = clock
        self.answered: list[tuple[float, int]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._clock.loop = asyncio.get_running_loop()
        response = await super().handle_async_request(request)
        if (row := row_of(request)) is not None and response.status_code == 200:
            self.answered.append((self._clock(), row))
        return response


class Clock:
    """Virtual seconds, on from one session to the next."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._before = 0.0

    def __call__(self) -> float:
        return self._before + (self.loop.time() if self.loop is not None else 0.0)

    def next_session(self) -> None:
        self._before, self.loop = self() + 1, None


def refuse_one(request: httpx.Request) -> httpx.Response | None:
    """A service that won't have one row."""
    if row_of(request) == REFUSED:
        return httpx.Response(400, json={"error": {"message": "not this one", "code": "bad_row"}})
    return None


def no_credit_after(answers: int) -> Callable[[httpx.Request], httpx.Response | None]:
    """A balance that pays for so many answers."""
    left = itertools.count(answers, -1)

    def answer(request: httpx.Request) -> httpx.Response | None:
        refusal = {"error": {"message": "user quota is not enough", "code": "insufficient_user_quota"}}
        return httpx.Response(403, json=refusal) if row_of(request) is not None and next(left) <= 0 else None

    return answer


class Case:
    """One job and the folder that it works in, or a copy of that folder."""

    def __init__(self, folder: Path, table: Path, ending: str) -> None:
        bench = Workbench(folder)
        bench.input = table
        self.output = folder / ending.rstrip("/")
        self.folder = folder
        self.job = bench.job(
            output={"path": f"{folder}/{ending}", "partition_rows": PARTITION_ROWS},
            limits={"concurrency": CONCURRENCY},
            retry={"max_attempts": 1},
        )

    def run(self, service: Network, **options: Any) -> cometbatch.RunSummary:
        return virtual_time.run(cometbatch.run_async(self.job, progress=False, http=service, **options))

    @property
    def directory(self) -> RunDirectory:
        is_dataset = self.job.output.is_dataset
        return RunDirectory(self.output.with_name(self.output.name + ".run"), parts=self.output if is_dataset else None)

    def recorded(self) -> set[int]:
        """The rows that have an outcome, as parts and journals tell."""
        content = self.directory.read_manifest()
        if content is None:
            return set()
        manifest = manifests.decode(content, "manifest")
        seen = resume.look(self.directory, manifest)
        return set(range(ROWS)) - set(resume.unrecorded(range(ROWS), manifest, seen))

    def result(self) -> pa.Table:
        paths = sorted(self.output.glob("*.parquet")) if self.output.is_dir() else [self.output]
        return pa.concat_tables([pq.read_table(path) for path in paths])

    def strays(self) -> list[str]:
        """Files that a finished run has no use for."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".parquet")
        return [path.name for path in found if path.name not in SPARED]


def simply(case: Case, clock: Clock) -> list[Service]:
    """From nothing to the result."""
    service = Service(clock)
    case.run(service)
    return [service]


def in_two_sessions(case: Case, clock: Clock) -> list[Service]:
    """Stopped on the way, and carried on."""
    services = [Service(clock, no_credit_after(6)), Service(clock)]
    with pytest.raises(cometbatch.RunStoppedError):
        case.run(services[0])
    clock.next_session()
    case.run(services[1])
    return services


def afresh(case: Case, clock: Clock) -> list[Service]:
    """Over a finished run, whose answers are to be forgotten."""
    service = Service(clock)
    case.run(service, fresh=True)
    return [service]


def again(case: Case, clock: Clock) -> list[Service]:
    """The row that was refused is answered again."""
    service = Service(clock)
    case.run(service, retry="failed")
    return [service]


@pytest.mark.parametrize("ending", ["out/deep/table.parquet", "out/"], ids=["file", "data set"])
@pytest.mark.parametrize("play", [simply, in_two_sessions, afresh, again])
def test_a_power_cut_at_any_step_loses_at_most_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, play: Callable[[Case, Clock], list[Service]], ending: str
) -> None:
    """Whatever of the unsynced is there, the run carries on to the right table and sends just what is not recorded."""
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    calm = Case(tmp_path / "calm", bench.input, ending)
    calm.run(Network())
    live, clock = Case(tmp_path / "live", bench.input, ending), Clock()
    live.folder.mkdir()
    if play in (afresh, again):
        live.run(Network(answer=refuse_one if play is again else None))
    before = live.recorded() - {REFUSED} if play is again else set()
    recorder = Recorder(live.folder, clock)
    with recorder.watching(monkeypatch):
        answered = [each for service in play(live, clock) for each in service.answered]

    states = list(after_power_cuts(recorder, answered, before))
    assert Disk(recorder, to_the_end=True).left(power.everything, power.all_names) == power.state_of(live.folder)
    monkeypatch.setattr(os, "fsync", lambda _file: None)  # from here on the power stays
    monkeypatch.setattr(os, "fdatasync", lambda _file: None)
    for number, (state, kept) in enumerate(random.Random(SEED).sample(states, min(CUTS, len(states)))):
        power.make(state, tmp_path / f"{number:04d}")
        carries_on(Case(tmp_path / f"{number:04d}", bench.input, ending), calm, kept, play)
        shutil.rmtree(tmp_path / f"{number:04d}")


def after_power_cuts(
    recorder: Recorder, answered: list[tuple[float, int]], before: set[int]
) -> Iterator[tuple[State, set[int]]]:
    """Each state that a power cut between two steps may leave, and the rows that have to be recorded in it."""
    disk, chance, seen = Disk(recorder), random.Random(SEED), set[int]()
    for now, step in recorder.steps:
        kept = before | {row for at, row in answered if at <= now - LOST_AT_MOST_S}
        for file_left, names_left in power.outcomes(chance):
            state = disk.left(file_left, names_left)
            mark = hash((frozenset(state.items()), frozenset(kept)))
            if mark not in seen:
                seen.add(mark)
                yield state, kept
        disk.take(step)


def carries_on(crashed: Case, calm: Case, kept: set[int], play: object) -> None:
    """The same command leads from here to the right end."""
    recorded, service = crashed.recorded(), Network()
    assert kept <= recorded
    is_void = crashed.directory.read_manifest() is None
    summary = crashed.run(service, fresh=play is afresh and is_void)
    sent = sorted(row for row in map(row_of, service.requests) if row is not None)
    assert sent == sorted(set(range(ROWS)) - recorded)
    if play is not again or summary.replaced.calls:
        assert crashed.result().select(ANSWER_COLUMNS).equals(calm.result().select(ANSWER_COLUMNS))
    assert (summary.finished, summary.rows) == (True, ROWS)
    assert crashed.strays() == []
