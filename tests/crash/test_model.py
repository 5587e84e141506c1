"""Random lives of a run: sessions, retries and crashes at any step, held against what the service itself counted.

A session is recorded step by step; a kill -9 leaves the folder as it is after some step, a power cut less than that.
A request costs one cent. The service counts every answer that it gave, whether or not anyone was left to read it.
"""

import itertools
import os
import random
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

import cometbatch
from cometbatch.records import Completion, Usage
from cometbatch.results import tallies
from cometbatch.run_state.run import Run, directory_of, find
from cometbatch.wire import chat
from tests import virtual_time
from tests.crash import power
from tests.crash.power import Disk, Recorder
from tests.workbench import MODEL, Network, Workbench

PROSE = "That depends."  # which is no JSON
ROWS, PARTITION_ROWS, CONCURRENCY = 10, 4, 3
PRICE = Decimal("0.01")
EXAMPLES = int(os.environ.get("LIVES", "25"))  # for each kind of crash

Words = Literal["", "failed", "incomplete", "failed,incomplete"]
Crash = Literal["kill", "power"]


class Step(Struct, frozen=True):
    """One session: what is retried, how the service behaves, and where it is cut: 0 is at once, 1 is not at all.

    `cap`: the most tokens with which the rows that are retried are asked; 64 is how the run began.
    """

    words: Words
    service: Literal["good", "uneven", "poor"]
    cut_at: float
    seed: int
    cap: int = 64


STEPS = st.builds(
    Step,
    words=st.sampled_from(["", "", "failed", "incomplete", "failed,incomplete"]),
    service=st.sampled_from(["good", "uneven", "uneven", "poor"]),
    cut_at=st.floats(0, 1),
    seed=st.integers(0, 10**6),
    cap=st.sampled_from([64, 64, 500, 900]),
)


def cut_short() -> httpx.Response:
    """An answer that is billed and incomplete."""
    return answered("Half an ans", "length")


def answered(text: str, reason: Literal["stop", "length"]) -> httpx.Response:
    """A billed answer."""
    reply = chat.build_response(MODEL, Completion(text, reason, Usage(10, 5)))
    return httpx.Response(reply.status, headers=reply.headers, content=reply.body)


class Service(Network):
    """The simulator with a bad day; it notes at which step of the disk it got and answered each request."""

    def __init__(self, kind: str, seed: int, steps: Callable[[], int], *, is_asked_for_json: bool = False) -> None:
        super().__init__(answer=self._reply)
        self._is_asked_for_json = is_asked_for_json
        self._kind, self._chance, self._steps = kind, random.Random(seed), steps
        self._left = itertools.count(self._chance.randrange(8), -1)
        self.sent: list[int] = []  # steps at which a request came
        self.billed: list[tuple[int, int]] = []  # steps at which an answered request came, and was answered

    def _reply(self, request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET":
            return None
        if self._kind == "poor" and next(self._left) <= 0:
            return httpx.Response(403, json={"error": {"message": "no quota", "code": "insufficient_user_quota"}})
        lot = self._chance.random() if self._kind == "uneven" else 1.0
        if lot < 0.2:
            return httpx.Response(400, json={"error": {"message": "not this one", "code": "bad_row"}})
        if self._is_asked_for_json and 0.35 < lot < 0.7:
            return answered(PROSE, "stop")
        return cut_short() if lot < 0.5 else None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        step = self._steps()
        if request.method == "POST":
            self.sent.append(step)
        response = await super().handle_async_request(request)
        if request.method == "POST" and response.status_code == 200:
            self.billed.append((step, self._steps()))
        return response


class Life:
    """A run from nothing to its end, over any number of crashes."""

    def __init__(self, folder: Path, *, is_dataset: bool, has_asks: bool) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        table = Workbench(folder)
        table.write_rows(ROWS)
        self._table = table.input
        self._is_dataset = is_dataset
        self._has_asks = has_asks
        self.place = folder / f"{next(self._numbers):02d}"
        self.place.mkdir()
        self.billed = 0  # answers that the service gave
        self.unheard = 0  # requests that may have been on their way at a crash, at most

    def job(self, cap: int = 64) -> cometbatch.Job:
        bench = Workbench(self.place)
        bench.input = self._table
        return bench.job(
            output={
                "path": f"{self.place}/out{'/' if self._is_dataset else '.parquet'}",
                "partition_rows": PARTITION_ROWS,
            },
            limits={"concurrency": CONCURRENCY},
            retry={"max_attempts": 1},
            prices={"per_request": 0.01},
            params={"max_output_tokens": cap},
            response={"json": self._has_asks, "max_asks": 3},
        )

    def service(self, kind: str, seed: int, steps: Callable[[], int]) -> "Service":
        """A service for one session."""
        return Service(kind, seed, steps, is_asked_for_json=self._has_asks)

    def found(self) -> Run | None:
        path = self.job().output.path
        return find(directory_of(path, is_dataset=self._is_dataset), path)

    def bill(self) -> Decimal:
        """Everything that the run says may have been spent."""
        found = self.found()
        return Decimal(0) if found is None else tallies.spent(tallies.add(found.progress.with_charges, found.replaced))

    def missing(self, run: Run | None) -> int:
        """How many requests are missing: one for each call, but for those whose last ask was recorded already."""
        if run is None:
            return ROWS
        lasts = [(len(asks), asks[-1].completion) for asks in run.progress.asks.values()]
        over = sum(asks == 3 or (last is not None and last.finish_reason == "length") for asks, last in lasts)
        return ROWS - run.progress.calls - over

    def session(self, step: Step, crash: Crash) -> None:
        """One session, and the crash that ends it."""
        recorder, before = Recorder(self.place, lambda: 0.0), self.found()
        cap = step.cap if step.words and before is not None and before.is_begun else 64
        service = self.service(step.service, step.seed, lambda: len(recorder.steps))
        with pytest.MonkeyPatch.context() as patch, recorder.watching(patch):
            self.run(service, step.words, cap)
        cut = round(step.cut_at * len(recorder.steps))
        disk, chance = Disk(recorder), random.Random(step.seed)
        for _, each in recorder.steps[:cut]:
            disk.take(each)
        left: tuple[power.FileLeft, power.NamesLeft] = (power.everything, power.all_names)
        if crash == "power":
            left = chance.choice(list(power.outcomes(chance)))
        self.place = self._folder / f"{next(self._numbers):02d}"
        power.make(disk.left(*left), self.place)
        self.billed += sum(step < cut for step, _ in service.billed)
        self.unheard += min(CONCURRENCY, len(service.sent)) if cut < len(recorder.steps) else 0

    def run(self, service: Network, words: str = "", cap: int = 64) -> cometbatch.RunSummary | None:
        run: Any = cometbatch.run_async(self.job(cap), retry=words, progress=False, http=service)
        try:
            summary: cometbatch.RunSummary = virtual_time.run(run)
        except (cometbatch.RunStoppedError, cometbatch.DriftError):  # drift: no row matches, and others are open
            return None
        return summary


@pytest.mark.parametrize("is_dataset", [False, True], ids=["file", "data set"])
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=1, max_size=5), has_asks=st.booleans())
def test_no_kill_loses_pays_twice_or_counts_twice(steps: list[Step], *, is_dataset: bool, has_asks: bool) -> None:
    """After each crash the bill is what the service billed, and at most what may have been on its way beyond it.

    Whatever was reset stays in it. In the end each row is there once, and no recorded row was sent again.
    """
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), is_dataset=is_dataset, has_asks=has_asks)
        for step in steps:
            life.session(step, "kill")
            assert life.billed * PRICE <= life.bill() <= (life.billed + life.unheard) * PRICE
        before = life.found()
        missing = life.missing(before)
        service = life.service("good", 0, lambda: 0)
        summary = life.run(service)
        assert summary is not None
        assert (summary.finished, len(service.sent)) == (True, missing)
        billed = life.billed + missing
        assert billed * PRICE <= life.bill() <= (billed + life.unheard) * PRICE
        assert cometbatch.verify(life.job().output.path).ok
        again = Service("good", 0, lambda: 0)
        assert life.run(again) is not None
        assert again.requests == []


@pytest.mark.parametrize("is_dataset", [False, True], ids=["file", "data set"])
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=1, max_size=5), has_asks=st.booleans())
def test_no_power_cut_needs_a_person(steps: list[Step], *, is_dataset: bool, has_asks: bool) -> None:
    """Whatever of the unsynced is there, the same command ends with each row once, and sends just what is missing."""
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), is_dataset=is_dataset, has_asks=has_asks)
        for step in steps:
            life.session(step, "power")
        before = life.found()
        missing = life.missing(before)
        service = life.service("good", 0, lambda: 0)
        summary = life.run(service)
        assert summary is not None
        assert (summary.finished, len(service.sent)) == (True, missing)
        assert life.bill() <= (life.billed + missing + life.unheard) * PRICE
        assert cometbatch.verify(life.job().output.path).ok
