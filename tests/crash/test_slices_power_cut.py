"""A run of several slices is killed, or the power fails, between any two steps of the disk: it goes on by itself.

Its models have different speeds, so that ranges are set aside and opened again, and journals go and are begun anew.
"""

import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests import virtual_time
from tests.crash import power
from tests.crash.power import Disk, Recorder
from tests.run_on_disk import RunOnDisk, carry_out
from tests.scripted_run import ScriptedService, answer, refused

ROWS, PARTITION_ROWS, QUEUES = 15, 3, [(0, 1), (2,)]
CALLS = ROWS * 3
CUTS = int(os.environ.get("CUTS", "8"))  # for each kind of crash; there are some five hundred


def run_in(path: Path) -> RunOnDisk:
    """The run as a process finds it there."""
    return RunOnDisk(path, ROWS, PARTITION_ROWS, unsendable=[4, 37], queues=QUEUES)


def script(ordinal: int, attempt: int) -> tuple[float, Any]:
    """The second model takes sixteen times as long; some rows are refused, some at first."""
    if ordinal % 5 == 3 and attempt == 1:
        return 0.5, refused(500)
    return (8.0 if ordinal >= 2 * ROWS else 0.5), refused(400) if ordinal % 7 == 6 else answer()


@pytest.mark.parametrize("kind", ["kill", "power"])
def test_a_cut_at_any_step_needs_no_person_and_repeats_nothing_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The next session sends just what has no record, each call ends once, and no journal is left."""
    place = tmp_path / "first"
    place.mkdir()
    run = run_in(place)
    recorder = Recorder(place, lambda: 0.0)
    with recorder.watching(monkeypatch):
        assert virtual_time.run(carry_out(run, ScriptedService(script), concurrency=5)) is None
    whole, chance = run.parts(), random.Random(1)
    names = [step for _, step in recorder.steps if isinstance(step, power.Named) and step.name.endswith(".jsonl")]
    assert sum(step.node is None for step in names) > 5  # more journals went than there are ranges: some came twice
    for number, cut in enumerate(sorted(chance.sample(range(len(recorder.steps)), CUTS))):
        disk = Disk(recorder)
        for _, step in recorder.steps[:cut]:
            disk.take(step)
        left: Any = (power.everything, power.all_names)
        if kind == "power":
            left = chance.choice(list(power.outcomes(chance)))
        after = tmp_path / f"{number:03d}"
        power.make(disk.left(*left), after)
        _goes_on(after, whole)


def _goes_on(place: Path, whole: Any) -> None:
    run = run_in(place)
    before, index_of = run.look(), run.manifest.partition_of
    missing = {call for call in range(CALLS) if call not in before.recorded and index_of(call) not in before.committed}
    service = ScriptedService(script)
    assert virtual_time.run(carry_out(run, service, concurrency=5)) is None
    assert set(service.rows) == missing - {4, 37}
    assert run.parts().select(["n", "status"]) == whole.select(["n", "status"])
    assert run.open_indexes() == []
