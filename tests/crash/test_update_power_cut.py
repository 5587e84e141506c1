"""The power fails, or the process is killed, between any two steps of an update: the old result or the new one stands.

The same command then ends right, and nothing that was answered is sent again. A kill is a power cut that leaves all.
"""

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.results import columns
from cometbatch.run_state import succession
from cometbatch.run_state.progress import journaled
from cometbatch.run_state.run import Run, find, home_of
from tests import virtual_time
from tests.crash import power
from tests.crash.power import Disk, Recorder, State
from tests.crash.test_power_cut import Clock, no_credit_after, row_of
from tests.workbench import ANSWER_COLUMNS, Network, Workbench

ROWS, PARTITION_ROWS, CONCURRENCY = 10, 4, 3
GONE, EDITED, NEW = 2, 7, (20, 21)  # parcels
SEED = 16
CUTS = int(os.environ.get("CUTS", "14"))  # for each case; there are some hundreds


def table(path: Path, parcels: list[int], edited: tuple[int, ...] = ()) -> Path:
    """Parcels with a note each."""
    lines = [f"{parcel:04d},note {parcel}{' again' if parcel in edited else ''}\n" for parcel in parcels]
    path.write_text("parcel,note\n" + "".join(lines), encoding="utf-8")
    return path


class Place:
    """An output, with the job that is run there: over the first night's table, or over another's."""

    def __init__(self, folder: Path, tables: list[Path]) -> None:
        self.folder = folder
        self.result = folder / "out.parquet"
        self.tables = tables

    def job(self, night: int, user: str | None = None) -> cometbatch.Job:
        bench = Workbench(self.folder)
        bench.input, bench.output = self.tables[night], self.result
        prompt = {} if user is None else {"prompt": {"user": user}}
        limits = {"concurrency": CONCURRENCY, "adaptive": False}
        return bench.job(output={"partition_rows": PARTITION_ROWS}, limits=limits, **prompt)

    def run(self, job: cometbatch.Job, network: httpx.AsyncBaseTransport, **options: Any) -> cometbatch.RunSummary:
        return virtual_time.run(cometbatch.run_async(job, progress=False, http=network, **options))

    def runs(self) -> Iterator[Run | None]:
        """Every run that is here whole: the one that is looked at, the one that it updates, earlier ones."""
        home = home_of(self.result, is_dataset=False)
        looked_at = succession.looked_at(home)
        yield find(looked_at, self.result)
        if looked_at is not home and not succession.is_decided(home, looked_at, self.result):
            yield find(home, self.result)
        for directory in succession.earlier_runs(home):
            yield find(directory, self.result)


def answered(run: Run | None) -> set[str | None]:
    """The hashes of requests whose answers a run has recorded."""
    if run is None:
        return set()
    found: set[str | None] = set()
    for each in run.manifest.partitions():
        if each.index in run.progress.committed:
            part = pq.read_table(run.directory.parts.path(each.index))
            found |= set(part.column("request_hash").to_pylist())
        else:
            for some in journaled(run.directory, run.manifest, each.index, run.progress.last):
                found |= {each.request_hash for each in columns.outcomes_in(some)}
    return found


def in_one_go(place: Place, clock: Clock) -> int:
    """The update, from its begin to its end."""
    place.run(place.job(1), Network(), update=True)
    return 1


def given_up(place: Place, clock: Clock) -> int:
    """An update that stops half-way, and whose table has changed again when the next command comes."""
    with pytest.raises(cometbatch.RunStoppedError):
        place.run(place.job(1), Network(answer=no_credit_after(1)), update=True)
    place.run(place.job(2), Network(), update=True)
    return 2


@pytest.mark.parametrize("play", [in_one_go, given_up])
def test_a_power_cut_at_any_step_of_an_update_leaves_the_old_result_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, play: Callable[[Place, Clock], int]
) -> None:
    """Whatever of the unsynced is there, one of the two is whole, `verify` holds at the end, and no answer is lost."""
    parcels = [*range(ROWS)]
    edited = [each for each in parcels if each != GONE]
    tables = [
        table(tmp_path / "first.csv", parcels),
        table(tmp_path / "second.csv", [*edited, NEW[0]], (EDITED,)),
        table(tmp_path / "third.csv", [*edited, *NEW], (EDITED,)),
    ]
    results = []
    for night in range(len(tables)):
        calm = Place(tmp_path / f"calm{night}", tables)
        calm.folder.mkdir()
        calm.run(calm.job(night), Network())
        results.append(pq.read_table(calm.result).select(ANSWER_COLUMNS))
    live, clock = Place(tmp_path / "live", tables), Clock()
    live.folder.mkdir()
    live.run(live.job(0), Network())
    recorder = Recorder(live.folder, clock)
    with recorder.watching(monkeypatch):
        last = play(live, clock)
    assert Disk(recorder, to_the_end=True).left(power.everything, power.all_names) == power.state_of(live.folder)

    states = list(after_cuts(recorder))
    monkeypatch.setattr(os, "fsync", lambda _file: None)  # from here on the power stays
    monkeypatch.setattr(os, "fdatasync", lambda _file: None)
    for number, state in enumerate(random.Random(SEED).sample(states, min(CUTS, len(states)))):
        folder = tmp_path / f"{number:04d}"
        power.make(state, folder)
        goes_on(Place(folder, tables), results, last)
        shutil.rmtree(folder)


def after_cuts(recorder: Recorder) -> Iterator[State]:
    """Each state that a cut between two steps may leave; first of each step's what a kill leaves."""
    disk, chance, seen = Disk(recorder), random.Random(SEED), set[int]()
    for _, step in recorder.steps:
        kill = (power.everything, power.all_names)
        for file_left, names_left in itertools.chain([kill], power.outcomes(chance)):
            state = disk.left(file_left, names_left)
            mark = hash(frozenset(state.items()))
            if mark not in seen:
                seen.add(mark)
                yield state
        disk.take(step)


def goes_on(place: Place, results: list[Any], last: int) -> None:
    """From here the same command leads to the new result, and sends what was answered nowhere."""
    stands = pq.read_table(place.result).select(ANSWER_COLUMNS)
    assert any(stands.drop_columns("cost_usd").equals(each.drop_columns("cost_usd")) for each in results)
    status = cometbatch.status(place.result)
    assert status.summary.tally.calls <= status.summary.rows
    known = set().union(*map(answered, place.runs()))
    network = Network()
    summary = place.run(place.job(last), network, update=True)
    assert (summary.finished, summary.succeeded) == (True, summary.rows)
    new = pq.read_table(place.result)
    assert new.select(ANSWER_COLUMNS).drop_columns("cost_usd").equals(results[last].drop_columns("cost_usd"))
    sent = [row for request in network.requests if (row := row_of(request)) is not None]
    hashes = dict(zip(new.column("custom_id").to_pylist(), new.column("request_hash").to_pylist(), strict=True))
    assert sorted(sent) == sorted(int(parcel) for parcel, each in hashes.items() if each not in known)
    assert cometbatch.verify(place.job(last)).ok
    assert not (place.result.with_name("_out.parquet.run") / "next").exists()
