"""Every example of every help page works as pasted, and every help page fits a terminal of 80 columns."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

import cometbatch
from cometbatch.cli import NAME, cli
from cometbatch.commands.models import _keep, _Kept
from cometbatch.job import job_keys
from cometbatch.job.urls import DEFAULT_BASE_URL
from cometbatch.simulator.catalog import MODELS

PAGES: dict[str, click.Command] = {"": cli, **cli.commands}
JOB = """\
input:   {path: tickets.csv, id: ticket_id}
output:  {path: out/triage.parquet}
target:  {base_url: simulator, format: chat, model: comet-sim-1}
prompt:  {user: "Classify: {{ body }}"}
params:  {max_output_tokens: 64}
simulator: {latency_s: 0}
score:   {echoed: {contains: body}}
judge:
  target: {format: chat, model: comet-sim-1}
  rubric: {criteria: {clear: 1-5}}
  prompt: {user: "{{ answer }}"}
"""


def examples() -> list[tuple[str, str]]:
    """Each command of a help page that is there to be pasted."""
    found = [(name, line) for name, page in PAGES.items() for line in re.findall(r"Example: (.+)", page.epilog or "")]
    assert {name for name, _ in found} == PAGES.keys()
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, a job file, and the job's finished run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "job.yaml").write_text(JOB, encoding="utf-8")
    (folder / "tickets.csv").write_text("ticket_id,body\n007,My kettle broke\n008,Charged twice\n", encoding="utf-8")
    assert cometbatch.run(cometbatch.load_job(folder / "job.yaml"), progress=False).succeeded == 2
    return folder


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder, and a catalog that was fetched a moment ago."""
    folder = tmp_path / "work"
    shutil.copytree(finished, folder)
    for name in ("a", "b"):
        shutil.copy(folder / "out" / "triage.parquet", folder / f"{name}.parquet")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    models = cometbatch.models(base_url="simulator").models
    _keep(_Kept(DEFAULT_BASE_URL, datetime.now(UTC), models))
    return folder


def in_a_shell(folder: Path, line: str) -> str:
    """Run a line in bash, with this program under its own name."""
    program = folder / "bin" / NAME
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cometbatch "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    root = str(Path(cometbatch.__file__).parent.parent)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": root}
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    return done.stdout


@pytest.mark.parametrize(("name", "line"), examples())
def test_every_example_works_as_pasted(here: Path, capfd: pytest.CaptureFixture[str], name: str, line: str) -> None:
    """On a table that is there, with or without a finished run, as its command needs it; it ends with code 0."""
    if name in ("", "init", "plan"):
        shutil.rmtree(here / "out")
    if name in ("", "init"):
        (here / "job.yaml").unlink()
    if line.startswith("cometbatch simulate --port"):  # which serves until it is stopped, on a port that may be taken
        line = re.sub(r"--port \d+", "--port 0", line) + " --until-stdin-closes"
    if re.search(r"[>&|$]", line) or "simulate --port" in line:
        in_a_shell(here, line)
        return
    program, *arguments = shlex.split(line)
    assert program == NAME
    code: object = 0
    try:
        cli.main(arguments, prog_name=NAME, standalone_mode=False)
    except SystemExit as end:
        code = end.code
    assert code == 0
    assert any(capfd.readouterr())  # a file that was written is told on standard error


@pytest.mark.parametrize("name", PAGES)
def test_every_help_page_fits_a_terminal_of_80_columns(name: str) -> None:
    """Nothing is wrapped in the middle of a command."""
    context = click.Context(PAGES[name], info_name=f"{NAME} {name}".strip(), terminal_width=80)
    lines = PAGES[name].get_help(context).splitlines()
    assert all(len(line) <= 80 for line in lines)
    shown = [line.strip().removeprefix("Example: ") for line in lines if line.startswith("  Example: ")]
    assert shown == [line for page, line in examples() if page == name]


# -- completion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o"), ("zsh", "#compdef cometbatch"), ("fish", "--command cometbatch")]
)
def test_each_shell_gets_its_script(capsys: pytest.CaptureFixture[str], shell: str, mark: str) -> None:
    """By the program's own name, so that it is asked again under it."""
    cli.main(["completion", shell], prog_name=NAME, standalone_mode=False)
    script = capsys.readouterr().out
    assert mark in script
    assert "_COMETBATCH_COMPLETE" in script


def test_bash_completes_by_the_script_that_it_was_given(here: Path) -> None:
    """Loaded as its help says, it asks the program, which answers with what can stand there."""
    words = 'COMP_WORDS=(cometbatch mod); COMP_CWORD=1; _cometbatch_completion cometbatch; echo "${COMPREPLY[@]}"'
    assert in_a_shell(here, f'eval "$(cometbatch completion bash)"; {words}') == "models\n"


@pytest.mark.parametrize(
    ("words", "begun", "wanted"),
    [
        ([], "in", ["init"]),
        (["run", "job.yaml"], "--retr", ["--retry"]),
        (["run", "job.yaml", "--set"], "limits.conc", ["limits.concurrency="]),
        (["plan", "job.yaml", "--set"], "", [f"{key.path}=" for key in job_keys()]),
        (["models", "--format"], "m", ["messages"]),
        (["completion"], "", ["bash", "zsh", "fish"]),
    ],
)
def test_commands_options_and_keys_are_completed(words: list[str], begun: str, wanted: list[str]) -> None:
    """What a shell offers after these words."""
    completer = BashComplete(cli, {}, NAME, "_COMETBATCH_COMPLETE")
    assert [item.value for item in completer.get_completions(words, begun)] == wanted


def test_the_models_of_the_examples_are_found() -> None:
    """An example that finds nothing shows nothing."""
    assert any("mini" in model.id for model in MODELS)
