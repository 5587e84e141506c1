"""The page's asset, materialized by Dagster's own command, and interrupted as Dagster interrupts a step."""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.recipes.page import promised, recipe
from tests.recipes.places import Environment, made
from tests.recipes.situations import LIMIT_S, SITUATIONS, Prepared, Situation, all_prepared, environment, prepared

PACKAGES = ("dagster==1.13.29",)
AT_ONCE = 2  # Dagster's processes take a core each while they start


def check(folder: Path, environments: Path, cometbatch: str) -> Iterator[str]:
    """Says what was tried, a line for each thing."""
    place = made("dagster", PACKAGES, environments, beside=True)
    yield place.note
    for first in range(0, len(SITUATIONS), AT_ONCE):
        chosen: Sequence[Situation] = SITUATIONS[first : first + AT_ONCE]
        with all_prepared(folder, chosen) as jobs:
            running = {name: begun(here, place, folder) for name, here in jobs.items()}
            for name, process in running.items():
                said, _ = process.communicate(timeout=LIMIT_S)
                end = end_of(said, process.returncode)
                assert end == promised("Dagster")[jobs[name].situation.code], (name, end, said)
    yield "each exit code: as the table says"
    for number in (signal.SIGINT, signal.SIGTERM):
        stop = Situation(number.name, 128 + number, "the run is terminated", latency_s=2.0)
        with prepared(stop, folder / number.name) as here:
            process = begun(here, place, folder)
            here.wait_for_answers(4)
            process.send_signal(number)
            said, _ = process.communicate(timeout=LIMIT_S)
            assert end_of(said, process.returncode) == "failed", said
            here.check_nothing_was_lost()
    yield "terminated in the middle: what was in flight is recorded, no retry, and the next run pays nothing twice"


def begun(here: Prepared, place: Environment, folder: Path) -> "subprocess.Popen[str]":
    """Materialize the page's asset for this job."""
    script = here.folder / "triage_dagster.py"
    paths = {"/srv/triage": str(here.folder), "wait_s=120": "wait_s=1"}
    script.write_text(recipe("triage_dagster.py", paths), encoding="utf-8")
    home = folder / f"home-{here.folder.name}"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    line = [place.program("dagster"), "asset", "materialize", "--select", "triage", "-f", str(script)]
    own = environment(DAGSTER_HOME=str(home), DAGSTER_DISABLE_TELEMETRY="1")
    pipe = subprocess.PIPE
    return subprocess.Popen(line, env=own, cwd=here.folder, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def end_of(said: str, code: int) -> str:
    """What became of the step, in the words of the page."""
    if "STEP_UP_FOR_RETRY" in said:
        return "retried"
    return "done" if code == 0 and "RUN_SUCCESS" in said else "failed"
