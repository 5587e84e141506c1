"""The page's helper that runs the command from another environment: a signal to it reaches the run."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.recipes.page import for_folders, recipe
from tests.recipes.situations import FOLDERS, ROWS, SITUATIONS, STOPPED, Prepared, environment, prepared


def check(folder: Path, environments: Path, cometbatch: str) -> Iterator[str]:
    """Says what was tried, a line for each thing."""
    for situation in SITUATIONS:
        with prepared(situation, folder / situation.name) as here:
            assert begun(here, cometbatch).wait() == situation.code, situation
    for name, situation in STOPPED.items():
        with prepared(situation, folder / name) as here:
            process = begun(here, cometbatch)
            here.wait_for_answers(4)
            process.send_signal(int(situation.code) - 128)
            assert process.wait() == situation.code
            here.check_nothing_was_lost()
    with prepared(FOLDERS, folder / FOLDERS.name) as here:
        line = for_folders("Python").replace("/srv/triage", str(here.folder)).replace("wait_s=120", "wait_s=1")
        script = f"from datetime import date\nimport cometbatch\nprint({line}.finished)"
        done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, check=True)
        assert (done.stdout, list(here.nights().values())) == (b"True\n", [ROWS]), done
    yield "in Python: a folder for each night"
    yield "each exit code is handed on, each signal arrives, and what was in flight is recorded"


def begun(here: Prepared, cometbatch: str) -> "subprocess.Popen[bytes]":
    """The page's script for this job."""
    paths = {"/opt/cometbatch/bin/cometbatch": cometbatch, "/srv/triage": str(here.folder), '"120"': '"1"'}
    script = here.folder / "run_command.py"
    script.write_text(recipe("run_command.py", paths), encoding="utf-8")
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, str(script)], env=environment(), stdout=quiet, stderr=quiet)
