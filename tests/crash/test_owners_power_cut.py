"""The power fails between any two steps of what workers of a run do together: who wrote a part, and which epoch."""

import itertools
import os
import random
import shutil
from pathlib import Path

import pytest

from cometbatch.results import tallies
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.epoch import Epoch
from tests.crash import power
from tests.crash.power import Disk, Recorder
from tests.owners_on_disk import CENT, OwnersOnDisk, answers, charges

SEED = 19
CUTS = int(os.environ.get("CUTS", "30"))  # for each case


def clock_of_steps() -> float:
    """Nobody asks for the time here."""
    return 0.0


def test_a_power_cut_never_takes_an_epoch_whose_workers_may_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the moment at which workers may start to the one at which the epoch is closed, whatever is written."""
    live = tmp_path / "live"
    live.mkdir()
    recorder = Recorder(live, clock_of_steps)
    lives = list[tuple[int, int, float]]()  # from which step to which step, and the fence
    with recorder.watching(monkeypatch):
        directory = RunDirectory(live / "run")
        for session, fence_s in ((1, 3.0), (2, 123.5), (3, 4.0)):
            with directory.locked():
                directory.lock.sign()
                directory.epoch.forget()
                directory.epoch.open(session, "ray", fence_s)
                begun = len(recorder.steps)
            with directory.locked():  # the driver is dead, and the next one has not waited yet
                directory.lock.sign()
                directory.lock.sign()
                lives.append((begun, len(recorder.steps), fence_s))
                directory.epoch.close()
    disk, chance, looks = Disk(recorder), random.Random(SEED), 0
    for number, (_, step) in enumerate([*recorder.steps, (0.0, None)]):
        due = [fence_s for begun, end, fence_s in lives if begun <= number <= end]
        for file_left, names_left in power.outcomes(chance):
            if due:
                copy = tmp_path / "copy"
                power.make(disk.left(file_left, names_left), copy)
                found = RunDirectory(copy / "run").epoch.unfenced()
                assert found is not None
                assert found.fence_s in due
                shutil.rmtree(copy)
                looks += 1
        if step is not None:
            disk.take(step)
    assert looks > 20
    assert directory.epoch.read() == Epoch(3, "ray", 4.0, closed=True)


@pytest.mark.parametrize("is_dataset", [False, True], ids=["file", "data set"])
def test_a_power_cut_leaves_one_part_whole_and_every_dollar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_dataset: bool
) -> None:
    """Two workers finish one partition, the second books its rows: at each step a journal or a file has them."""
    live = OwnersOnDisk(tmp_path / "live", is_dataset=is_dataset)
    paths = [live.journal(0, worker, answers(0)) for worker in (1, 2)]
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    recorder, done = Recorder(tmp_path / "live", clock_of_steps), list[int]()
    with recorder.watching(monkeypatch):
        for folder in (live.directory.parts.within, live.directory.owners.committed):
            if not folder.is_dir():
                folder.mkdir()
                power_sync(live.directory.path)
        assert live.commit(0, 1, answers(0))
        done.append(len(recorder.steps))
        paths[0].unlink()
        assert not live.commit(0, 2, answers(0))
        live.book(2, charges(2), booked=[0])
        paths[1].unlink()
    assert Disk(recorder, to_the_end=True).left(power.everything, power.all_names) == power.state_of(tmp_path / "live")
    disk, chance, states = Disk(recorder), random.Random(SEED), []
    for number, (_, step) in enumerate([*recorder.steps, (0.0, None)]):
        states += [(number, disk.left(*left)) for left in power.outcomes(chance)]
        if step is not None:
            disk.take(step)
    for number, state in itertools.islice(chance.sample(states, len(states)), CUTS):
        copy = tmp_path / "copy"
        power.make(state, copy)
        crashed = OwnersOnDisk.of(copy, live)
        for found in (crashed.found(), crashed.resume(), crashed.resume()):
            spent = tallies.spent(found.progress.with_charges)
            assert spent == 4 * CENT
            assert number < done[0] or found.progress.committed == (0,)
            assert found.progress.committed == (0,) or found.progress.recorded == {0, 1}
        if is_dataset and found.progress.committed:
            assert (crashed.result / "00000.parquet").read_bytes() == crashed.directory.parts.path(0).read_bytes()
        assert not list(copy.rglob("*.tmp"))
        shutil.rmtree(copy)


def power_sync(folder: Path) -> None:
    """Make a folder's names durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
