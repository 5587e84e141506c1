"""The power fails between any two steps of a run: the same command resumes it, and what is lost is on the bill.

Shown by order, not by clock: nothing is lost that was written before the sync before last began, and an attempt whose
mark was synced is on the bill, whatever was lost of its records or of the next attempt's.
"""

import asyncio
import itertools
import json
import os
import random
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.records import Answered, PossibleCharge, Record, Tally
from cometbatch.results import tallies
from cometbatch.run_state import group_commit
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.group_commit import GroupCommit
from cometbatch.run_state.progress import journaled
from cometbatch.run_state.run import Run, directory_of, find
from tests import virtual_time
from tests.crash import power
from tests.crash.power import Disk, Recorder, State
from tests.workbench import ANSWER_COLUMNS, Network, Workbench

ROWS, PARTITION_ROWS, CONCURRENCY = 12, 4, 3
INPUT, OUTPUT = 1, 10  # US dollars per million tokens
ANSWERS = ("custom_id", "status", "response", "request_hash")
REFUSED = 6  # this row, the first time
SEED = 20
CUTS = int(os.environ.get("CUTS", "30"))  # for each case; there are up to two hundred
SPARED = re.compile(r"lock|manifest\.json|reopened\.json|in_flight\.\d+|\d+\.json|\d+(\.r\d+)?\.part")
OUTCOME = re.compile(rb'"record":"(?:answered|failed)","ordinal":(\d+)')
MARK = re.compile(rb" *(\d+) +\d+ +\d+ +[0-9.a-z]+ [0-9a-f]{8}\n")


def row_of(request: httpx.Request) -> int | None:
    """Which row of the table a request is for."""
    found = re.search(rb"Parcel ([0-9]+)", request.content)
    return int(found[1]) if found else None


class Billed(NamedTuple):
    """An attempt that the service bills: after how many steps, which row's, its how many-th from 0, US dollars."""

    at: int
    row: int
    attempt: int
    cost_usd: Decimal


class Service(Network):
    """The simulator, and what it bills. One that `stumbles` breaks off every third row's first answer.

    Of those behind these it does not say how much they used.
    """

    def __init__(
        self,
        clock: "Clock",
        answer: Callable[[httpx.Request], httpx.Response | None] | None = None,
        *,
        stumbles: bool = False,
    ) -> None:
        super().__init__(answer=answer)
        self._clock = clock
        self._stumbles = stumbles
        self.billed: list[Billed] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._clock.loop = asyncio.get_running_loop()
        response = await super().handle_async_request(request)
        if (row := row_of(request)) is None:
            return response
        attempt = self._clock.sent[row]
        self._clock.sent[row] += 1
        if response.status_code == 200:
            said = json.loads(await response.aread())
            usage = said.pop("usage")
            cost_usd = Decimal(usage["prompt_tokens"] * INPUT + usage["completion_tokens"] * OUTPUT) / 10**6
            self.billed.append(Billed(self._clock.steps(), row, attempt, cost_usd))
            if self._stumbles and row % 3 == 0 and attempt == 0:
                raise httpx.ReadError("broken off")
            if self._stumbles and row % 3 == 1:
                return httpx.Response(200, json=said)
        return response


class Clock:
    """Virtual seconds, on from one session to the next."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._before = 0.0
        self.steps: Callable[[], int] = lambda: 0  # of the disk, so far
        self.sent = Counter[int]()  # attempts, by row

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
    """A balance that pays for this many answers."""
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
            prices={"input": INPUT, "output": OUTPUT},
        )

    def run(self, service: Network, **options: Any) -> cometbatch.RunSummary:
        return virtual_time.run(cometbatch.run_async(self.job, progress=False, http=service, **options))

    @property
    def directory(self) -> RunDirectory:
        return directory_of(self.output, is_dataset=self.job.output.is_dataset)

    def found(self) -> Run | None:
        """The run that is on the disk; none where --fresh was forgetting it."""
        return None if self.directory.read_manifest() is None else find(self.directory, self.output)

    def recorded(self) -> set[int]:
        """The rows that have an outcome, as parts and journals tell."""
        found = self.found()
        if found is None:
            return set()
        committed = {row for row in range(ROWS) if row // PARTITION_ROWS in found.progress.committed}
        return committed | found.progress.recorded

    def result(self) -> pa.Table:
        paths = sorted(self.output.glob("*.parquet")) if self.output.is_dir() else [self.output]
        return pa.concat_tables([pq.read_table(path) for path in paths])

    def strays(self) -> list[str]:
        """Files that a finished run has no use for."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".parquet")
        return [path.name for path in found if not SPARED.fullmatch(path.name)]


def simply(case: Case, clock: Clock) -> list[Service]:
    """From nothing to the result."""
    service = Service(clock)
    case.run(service)
    return [service]


def stumbling(case: Case, clock: Clock) -> list[Service]:
    """The same, with answers that are broken off, and answers that do not say how much they used."""
    service = Service(clock, stumbles=True)
    case.run(service)
    return [service]


def in_two_sessions(case: Case, clock: Clock) -> list[Service]:
    """Stopped half-way, and resumed."""
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
@pytest.mark.parametrize("play", [simply, stumbling, in_two_sessions, afresh, again])
def test_a_power_cut_at_any_step_loses_only_what_was_written_since_the_sync_before_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, play: Callable[[Case, Clock], list[Service]], ending: str
) -> None:
    """Whatever of the unsynced is there, the same command ends right and sends just what is not recorded."""
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    calm = Case(tmp_path / "calm", bench.input, ending)
    calm.run(Network())
    live, clock = Case(tmp_path / "live", bench.input, ending), Clock()
    live.folder.mkdir()
    if play in (afresh, again):
        live.run(Network(answer=refuse_one if play is again else None))
    before = live.recorded() - {REFUSED} if play is again else set()
    recorder, passes = Recorder(live.folder, clock), list[int]()
    clock.steps = lambda: len(recorder.steps)
    really = GroupCommit._sync

    def noting(syncing: GroupCommit, files: Any) -> None:
        passes.append(len(recorder.steps))
        really(syncing, files)

    with recorder.watching(monkeypatch), monkeypatch.context() as patch:
        patch.setattr(GroupCommit, "_sync", noting)
        if play is stumbling:  # so seldom that an attempt's record and that of the next one wait for the same sync
            patch.setattr(group_commit, "SYNC_INTERVAL_S", 1.5)
        billed = [each for service in play(live, clock) for each in service.billed]
    assert len(passes) > (0 if play is again else 2)

    states = list(after_power_cuts(recorder, passes, billed, before))
    assert Disk(recorder, to_the_end=True).left(power.everything, power.all_names) == power.state_of(live.folder)
    monkeypatch.setattr(os, "fsync", lambda _file: None)  # from here on the power stays
    monkeypatch.setattr(os, "fdatasync", lambda _file: None)
    for number, (state, kept, paid) in enumerate(random.Random(SEED).sample(states, min(CUTS, len(states)))):
        power.make(state, tmp_path / f"{number:04d}")
        resumes(Case(tmp_path / f"{number:04d}", bench.input, ending), calm, kept, paid, play)
        shutil.rmtree(tmp_path / f"{number:04d}")


def after_power_cuts(
    recorder: Recorder, passes: list[int], billed: list[Billed], before: set[int]
) -> Iterator[tuple[State, set[int], list[Billed]]]:
    """Each state that a power cut between two steps may leave, with what has to be known in it.

    That is: the rows that have to be recorded, and what is billed of the attempts whose mark was synced.
    """
    disk, chance, seen = Disk(recorder), random.Random(SEED), set[int]()
    written, synced = list[tuple[int, int]](), Counter[int]()  # marks, by row
    marked = defaultdict[int, list[int]](list)  # rows, by file
    for number, (_, step) in enumerate(recorder.steps):
        begun = [each for each in passes if each <= number]
        safe = begun[-2] if len(begun) > 1 else 0
        kept = before | {row for at, row in written if at < safe}
        paid = [each for each in billed if each.at <= number and each.attempt < synced[each.row]]
        for file_left, names_left in power.outcomes(chance):
            state = disk.left(file_left, names_left)
            mark = hash((frozenset(state.items()), frozenset(kept), tuple(paid)))
            if mark not in seen:
                seen.add(mark)
                yield state, kept, paid
        disk.take(step)
        if isinstance(step, power.Wrote):
            written += [(number, int(found)) for found in OUTCOME.findall(step.data)]
            marked[step.node] += map(int, MARK.findall(step.data))
        elif isinstance(step, power.Synced):
            synced.update(marked.pop(step.node, []))


def told_of(run: Run | None) -> tuple[set[tuple[int, int]], int]:
    """Rows with their attempts, from 0, of which a run of one session knows; and how many it knows without saying."""
    if run is None:
        return set(), 0
    records: list[Record] = []
    for index in {each.index for each in run.manifest.partitions()} - {*run.progress.committed}:
        lines = journaled(run.directory, run.manifest, index, run.progress.last)
        records += itertools.chain.from_iterable(lines)
    marks = [*run.progress.unsettled, *(run.progress.last.found if run.progress.last is not None else ())]
    told = {(mark.ordinal, mark.attempt) for mark in marks}
    told |= {(each.ordinal, each.attempt) for each in records if isinstance(each, PossibleCharge)}
    told |= {(each.ordinal, each.answered_attempts[-1]) for each in records if isinstance(each, Answered)}
    in_parts = {row for row in range(ROWS) if row // PARTITION_ROWS in run.progress.committed}
    told |= set(itertools.product(in_parts, (1, 2)))  # a part is written only when all of its records are there
    return {(row, attempt - 1) for row, attempt in told}, sum(not mark.is_whole for mark in marks)


def resumes(crashed: Case, calm: Case, kept: set[int], paid: list[Billed], play: object) -> None:
    """The same command leads from here to the right end, with every answer that is lost on the bill."""
    recorded, service = crashed.recorded(), Network()
    assert kept <= recorded
    if play is not afresh:  # which forgets the bill of the run before
        found = crashed.found()
        bill = Tally() if found is None else tallies.add(found.progress.with_charges, found.replaced)
        assert len(paid) <= bill.succeeded + bill.charges - bill.unpriced  # an unpriced answer is a charge, too
        assert sum(each.cost_usd for each in paid) <= tallies.spent(bill)
    if play is stumbling:
        told, damaged = told_of(crashed.found())
        assert len({(each.row, each.attempt) for each in paid} - told) <= damaged
    is_void = crashed.directory.read_manifest() is None
    summary = crashed.run(service, fresh=play is afresh and is_void)
    sent = sorted(row for row in map(row_of, service.requests) if row is not None)
    assert sent == sorted(set(range(ROWS)) - recorded)
    if play is not again or summary.replaced.calls:
        columns = ANSWERS if play is stumbling else ANSWER_COLUMNS
        assert crashed.result().select(columns).equals(calm.result().select(columns))
    assert (summary.finished, summary.rows) == (True, ROWS)
    assert crashed.strays() == []
