"""What the README says is what the code does."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import cometbatch
from cometbatch import cli
from cometbatch.simulator import catalog
from tests import readme_commands, readme_tables

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST_SCREEN_LINES = 20
ON_SIMULATOR = ["target.base_url=simulator", "target.model=comet-sim-1", "simulator.latency_s=[0, 0]"]


def block(language: str) -> str:
    """The first fenced block in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def job_folder(tmp_path: Path) -> Path:
    """A folder with the README's job file and a table for it."""
    (tmp_path / "job.yaml").write_text(block("yaml"), encoding="utf-8")
    (tmp_path / "tickets.csv").write_text("ticket_id,body\n007,My kettle broke\n008,Charged twice\n", encoding="utf-8")
    return tmp_path


def test_the_tables_are_the_codes() -> None:
    """Job keys, columns, retry table and exit codes stand in the README as the code has them."""
    assert readme_tables.renewed(TEXT) == TEXT, "run python -m tests.readme_tables"


def test_the_first_screen_holds_the_two_commands() -> None:
    """A newcomer finds what it is and both commands without scrolling, each in one line."""
    first_screen = "\n".join(TEXT.splitlines()[:FIRST_SCREEN_LINES])
    assert list(readme_commands.commands()) == ["run", "test"]
    for command in readme_commands.commands().values():
        assert "\n" not in command
        assert command in first_screen


def test_the_job_of_the_readme_runs(job_folder: Path, tmp_path: Path) -> None:
    """Its job file is valid as it stands, and completes against the simulator."""
    cometbatch.load_job(job_folder / "job.yaml")
    summary = cometbatch.run(cometbatch.load_job(job_folder / "job.yaml", ON_SIMULATOR), progress=False)
    assert summary.succeeded == 2


def test_the_python_of_the_readme_runs(job_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python works as pasted; only the address is replaced, to stay on this machine."""
    monkeypatch.chdir(job_folder)
    load_job: Callable[..., cometbatch.Job] = cometbatch.load_job
    monkeypatch.setattr(cometbatch, "load_job", lambda path, more=(): load_job(path, [*more, *ON_SIMULATOR]))
    exec(compile(block("python"), "README.md", "exec"), {})
    assert (job_folder / "out" / "triage.parquet").exists()


@pytest.mark.parametrize("command", ["plan", "run", "status"])
def test_the_commands_of_the_readme_run(job_folder: Path, command: str) -> None:
    """Each command line that it shows for a job works on its job file."""
    assert f"cometbatch {command} job.yaml" in TEXT
    overrides = [part for key in ON_SIMULATOR for part in ("--set", key)]
    environment = {**os.environ, "COMETAPI_KEY": "sk-0123456789"}
    if command == "status":
        subprocess.run([sys.executable, "-m", "cometbatch", "run", "job.yaml", *overrides], cwd=job_folder, check=True)
        overrides = []
    line = [sys.executable, "-m", "cometbatch", command, "job.yaml", *overrides]
    done = subprocess.run(line, cwd=job_folder, env=environment, capture_output=True, check=True)
    assert b"2" in done.stdout


def test_every_command_is_in_the_readme() -> None:
    """A command that nobody can find is not there."""
    for name in cli.cli.commands:
        assert f"cometbatch {name}" in TEXT


@pytest.mark.parametrize("job_file", sorted((ROOT / "jobs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_job_that_ships_can_be_planned(job_file: Path, tmp_path: Path) -> None:
    """The sample jobs are valid and priced."""
    output = tmp_path / ("out" if job_file.stem == "typed_columns" else "out.parquet")
    ending = "/" if job_file.stem == "typed_columns" else ""
    plan = cometbatch.plan(cometbatch.load_job(job_file, [f"output.path={output}{ending}"]))
    assert plan.rows > 0
    assert plan.unrenderable == 0
    assert plan.cost_usd is not None


def test_every_line_of_what_survives_what_is_held_by_a_test_that_is_there() -> None:
    """Each promise names the file and, in the link's title, the test that would fail if it were not so."""
    section = TEXT.partition("## What survives what")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(lines) > 10
    for line in lines:
        held = re.fullmatch(r'\| .* \| \[test\]\((tests/[\w/]+\.py) "(test_\w+)"\) \|', line)
        assert held, line
        assert f"def {held[2]}(" in (ROOT / held[1]).read_text(encoding="utf-8"), line


def test_the_models_that_it_names_are_the_simulator_s() -> None:
    """Whoever follows it gets answers."""
    named = set(re.findall(r"`(comet-sim[^`]*)`", TEXT))
    assert len(named) > 1
    assert named <= {model.id for model in catalog.MODELS}
