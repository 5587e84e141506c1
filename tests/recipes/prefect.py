"""The page's flow, run against a Prefect server on this machine; served by it, and cancelled through its API."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.recipes.page import promised, recipe
from tests.recipes.places import Environment, free_port, group, made, wait_for_port
from tests.recipes.situations import (
    LIMIT_S,
    SITUATIONS,
    Prepared,
    Situation,
    all_prepared,
    environment,
    prepared,
    until,
)

PACKAGES = ("prefect==3.9.1",)
RUN_FLOW = """
import json
import triage_prefect
from prefect.client.orchestration import get_client
state = triage_prefect.nightly(return_state=True)
with get_client(sync_client=True) as client:
    tries = [run.run_count for run in client.read_task_runs() if run.flow_run_id == state.state_details.flow_run_id]
print("END", json.dumps([state.type.value, tries]))
"""
"""Calls the flow as a person does, and tells its state and how often its task ran."""


def check(folder: Path, environments: Path, cometbatch: str) -> Iterator[str]:
    """Says what was tried, a line for each thing."""
    place = made("prefect", PACKAGES, environments, beside=True)
    yield place.note
    port = free_port()
    own = environment(
        PREFECT_HOME=str(folder / "home"),
        PREFECT_API_URL=f"http://127.0.0.1:{port}/api",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        DO_NOT_TRACK="1",
    )
    server = [place.program("prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with group(server, folder / "server.log", own):
        wait_for_port(port, "Prefect's server")
        with all_prepared(folder, SITUATIONS) as jobs:
            for name, here in jobs.items():
                end = flow_run(here, place, own)
                assert end == promised("Prefect")[here.situation.code], (name, end)
        yield "each exit code: as the table says"
        stop = Situation("cancelled", 143, "the flow run is cancelled", latency_s=2.0)
        with prepared(stop, folder / stop.name) as here:
            cancelled(here, place, own)
            here.check_nothing_was_lost()
        yield "cancelled in the middle: what was in flight is recorded, no retry, and the next run pays nothing twice"


def written(here: Prepared) -> Path:
    """The page's flow for this job."""
    script = here.folder / "triage_prefect.py"
    paths = {"/srv/triage": str(here.folder), "wait_s=120": "wait_s=1"}
    script.write_text(recipe("triage_prefect.py", paths), encoding="utf-8")
    return script


def flow_run(here: Prepared, place: Environment, own: Mapping[str, str]) -> str:
    """What becomes of one run of the flow, in the words of the page."""
    folder = written(here).parent
    line = [place.program("python"), "-c", RUN_FLOW]
    done = subprocess.run(line, cwd=folder, env=own, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    ends = [line.removeprefix("END ") for line in done.stdout.splitlines() if line.startswith("END ")]
    assert ends, done.stderr
    state, tries = json.loads(ends[0])
    return "retried" if tries[0] > 1 else "done" if state == "COMPLETED" else "failed"


def cancelled(here: Prepared, place: Environment, own: Mapping[str, str]) -> None:
    """Serve the flow as the page does, begin it, and cancel it once it has some answers."""
    log = here.folder / "served.log"

    def said(*words: str) -> str:
        line = [place.program("prefect"), *words]
        return subprocess.run(line, env=own, capture_output=True, text=True, check=True).stdout

    with group([place.program("python"), str(written(here))], log, {**own, "PYTHONUNBUFFERED": "1"}):
        until(lambda: "being served" in log.read_text(encoding="utf-8"), "the served flow")
        flow_run_id = said("deployment", "run", "nightly/nightly").partition("UUID: ")[2].split()[0]
        here.wait_for_answers(4)
        said("flow-run", "cancel", flow_run_id)
        until(lambda: "Cancelled flow run" in log.read_text(encoding="utf-8"), "the cancelling")
        asked = here.server.requests
        time.sleep(3)  # a retry would begin after 1 s
        assert here.server.requests == asked, "the run was begun again"
        shown = said("flow-run", "inspect", flow_run_id)
        assert "CANCELLED" in shown.upper(), shown
