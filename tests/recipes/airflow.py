"""The page's two DAGs, run by Airflow's own scheduler; tasks are marked as failed through its API."""

import itertools
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.recipes.cron import process_of
from tests.recipes.page import for_folders, promised, recipe
from tests.recipes.places import Environment, free_port, group, made, wait_for_port
from tests.recipes.situations import (
    FOLDERS,
    ROWS,
    SITUATIONS,
    STOPPED,
    Prepared,
    Situation,
    environment,
    prepared,
    until,
)

PACKAGES = ("apache-airflow==3.3.2", "apache-airflow-providers-standard")
KINDS = {"bash": "Airflow, Bash", "python": "Airflow, Python"}
OVER = {"success", "failed"}
LONG_S = 9.0  # seconds for an answer: longer than the 5 s that Airflow leaves a task after SIGTERM
FAILED_BY_HAND = {kind: Situation(f"by_hand_{kind}", 143, "marked as failed", latency_s=LONG_S) for kind in KINDS}
SECOND_TRY_S = 10.0  # a retry would begin within this time


def check(folder: Path, environments: Path, cometbatch: str) -> Iterator[str]:
    """Says what was tried, a line for each thing."""
    place = made("airflow", PACKAGES, environments)
    yield place.note
    with ExitStack() as stack:
        tried: dict[str, tuple[Prepared, str]] = {}  # by the name of its DAG
        for kind in KINDS:
            for situation in [*SITUATIONS, *STOPPED.values(), FAILED_BY_HAND[kind]]:
                name = f"triage_{kind}_{situation.name}"
                here = stack.enter_context(prepared(situation, folder / name))
                write_dag(folder, here, name, kind, cometbatch)
                tried[name] = here, kind
        name = f"triage_bash_{FOLDERS.name}"
        tried[name] = dated, _ = stack.enter_context(prepared(FOLDERS, folder / name)), "bash"
        write_dag(folder, dated, name, "bash", cometbatch)
        airflow = stack.enter_context(started(folder, place))
        for kind, situation in FAILED_BY_HAND.items():
            name = f"triage_{kind}_{situation.name}"
            here = tried.pop(name)[0]
            airflow.begin(name)
            here.wait_for_answers(4)
            airflow.mark_failed(name)
            until(ended, "the end of the run", here)
            time.sleep(SECOND_TRY_S)
            assert airflow.instance(name)["state"] == "failed"
            here.check_nothing_was_lost()
            yield f"{KINDS[kind]}: marked as failed in the middle, what was in flight is recorded; no retry"
        for name in tried:
            airflow.begin(name)
        for kind, (name, situation) in itertools.product(KINDS, STOPPED.items()):
            here = tried[f"triage_{kind}_{name}"][0]
            here.wait_for_answers(4)
            airflow.strike(here, situation.code - 128)
        for name, (here, kind) in tried.items():
            until(airflow.is_over, f"{name}: over", name)
            found, code = airflow.instance(name), here.situation.code
            end = "retried" if found["try_number"] > 1 else "done" if found["state"] == "success" else "failed"
            assert end == promised(KINDS[kind])[code], (name, found)
            if code > 128:
                assert (found["state"], here.server.wasted) == ("success", 0), (name, found)
        assert list(dated.nights().values()) == [ROWS], dated.nights()
        yield f"a folder for each night: {', '.join(dated.nights())}"
        yield "each exit code, by BashOperator and by a task in Python: as the table says"


def write_dag(folder: Path, here: Prepared, name: str, kind: str, cometbatch: str) -> None:
    """The page's DAG for one job, under a name of its own."""
    paths = {"/srv/triage": str(here.folder), f"triage_{kind}(": f"{name}("}
    paths |= {"/opt/cometbatch/bin/cometbatch": cometbatch, "--wait 120": "--wait 1"}
    if here.situation is FOLDERS:
        paths["--update"] = for_folders("Airflow, Bash")
    (folder / "dags").mkdir(exist_ok=True)
    (folder / f"dags/{name}.py").write_text(recipe(f"triage_{kind}.py", paths), encoding="utf-8")


def ended(here: Prepared) -> bool:
    """Whether nobody works on the run any more."""
    return "running" not in here.command("status").stdout.splitlines()[0]


class Airflow:
    """Its API, as an administrator uses it."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._token = self._asked("GET", "/auth/token")["access_token"]

    def begin(self, name: str) -> None:
        """Switch a DAG on, so that its last night is made up for."""
        until(self._knows, f"{name}: read by Airflow", name)
        self._asked("PATCH", f"/api/v2/dags/{name}", {"is_paused": False})

    def instance(self, name: str) -> dict[str, Any]:
        """Its one task: state and number of the try."""
        found = self._asked("GET", f"/api/v2/dags/{name}/dagRuns/~/taskInstances")["task_instances"]
        return dict(found[0]) if found else {"state": None, "try_number": 0}

    def is_over(self, name: str) -> bool:
        """Whether its task neither runs nor waits to be tried again."""
        return self.instance(name)["state"] in OVER

    def mark_failed(self, name: str) -> None:
        """As a person does on Airflow's page."""
        run = self._asked("GET", f"/api/v2/dags/{name}/dagRuns")["dag_runs"][0]["dag_run_id"]
        self._asked("PATCH", f"/api/v2/dags/{name}/dagRuns/{run}/taskInstances/triage", {"new_state": "failed"})

    def strike(self, here: Prepared, number: int) -> None:
        """A signal to the command itself; then its service answers at once."""
        os.kill(process_of(here), number)
        until(ended, "the end of the first try", here)
        here.server.latency_s = (0.0, 0.0)

    def _knows(self, name: str) -> bool:
        return any(each["dag_id"] == name for each in self._asked("GET", "/api/v2/dags?limit=100")["dags"])

    def _asked(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        if path != "/auth/token":
            headers["authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, headers, method=method)
        for pause_s in (1, 2, 4, 8, 16, None):
            try:
                with self._open(request, timeout=60) as reply:
                    return dict(json.load(reply))
            except urllib.error.HTTPError as error:
                if error.code < HTTPStatus.INTERNAL_SERVER_ERROR or pause_s is None:
                    raise
            time.sleep(pause_s)  # its SQLite is busy
        raise AssertionError


@contextmanager
def started(folder: Path, place: Environment) -> Iterator[Airflow]:
    """Airflow's three parts, on this machine alone: none of them listens elsewhere."""
    port = free_port()
    settings = {
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_FOLDER": str(folder / "dags"),
        "CORE__PARALLELISM": "4",
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "API__BASE_URL": f"http://127.0.0.1:{port}",
        "API_AUTH__JWT_SECRET": "a secret of this check alone, long enough for what signs with it in Airflow",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
        "SCHEDULER__ENABLE_HEALTH_CHECK": "False",
    }
    places = {"AIRFLOW_HOME": str(folder), "TMPDIR": str(folder)}  # a task that is killed leaves a folder in the latter
    own = environment(**places, **{f"AIRFLOW__{key}": value for key, value in settings.items()})
    airflow = place.program("airflow")
    with ExitStack() as stack:
        with group([airflow, "db", "migrate"], folder / "migrate.log", own) as process:
            assert process.wait() == 0
        api = [airflow, "api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        for line in (api, [airflow, "dag-processor"], [airflow, "scheduler", "--skip-serve-logs"]):
            stack.enter_context(group(line, folder / f"{line[1]}.log", own))
        wait_for_port(port, "Airflow's API server")
        yield Airflow(port)
