"""What README and docs/ say is what the code does."""

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch import cli
from cometbatch.simulator import catalog
from cometbatch.wire import counts as counters
from cometbatch.wire import responses, uncovered
from tests import readme_commands, readme_tables
from tests.images import image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in readme_tables.PAGES}
DOCS = (
    "answers",
    "batch-files",
    "columns",
    "compare",
    "contributing",
    "durability",
    "eval-exports",
    "exit-codes",
    "how-it-works",
    "input",
    "job",
    "judge",
    "logs",
    "matrix",
    "messages",
    "performance",
    "python",
    "replies",
    "report",
    "retry",
    "reuse",
    "schedulers",
    "scores",
    "statistics",
    "telemetry",
    "updates",
    "workers",
)
ALL_TABLES = {
    "job_keys",
    "columns",
    "asked_columns",
    "matrix_columns",
    "finish_words",
    "retry",
    "exit_codes",
    "bars",
    "model",
    "cells",
    "exported",
    "nulls",
    "written",
    "told",
    "event_fields",
    "events",
    "metrics",
    "lines",
    "fromjson",
    "otel_metrics",
    "row_spans",
    "score_columns",
    "score_why",
    "session_spans",
    "scorers",
    "score_examples",
    "score_order",
}
MAX_LINES = 200
FIRST_SCREEN_LINES = 20
ON_SIMULATOR = ["target.base_url=simulator", "target.model=comet-sim-1", "simulator.latency_s=[0, 0]"]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?: \"[^\"]*\")?\)")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def all_blocks(language: str) -> list[object]:
    """The same of all pages, as cases of a test."""
    return [
        pytest.param(block, id=f"{page}-{number}")
        for page, text in PAGES.items()
        for number, block in enumerate(blocks(text, language))
    ]


def commands_shown() -> list[object]:
    """Each `cometbatch run` of README and docs/ that is for a job file, without its comment, as cases of a test."""
    lines = re.findall(r"^\$ (cometbatch run job\.yaml[^#\n]*)", "\n".join(PAGES.values()), flags=re.MULTILINE)
    return [pytest.param(line.strip(), id=line.strip()) for line in dict.fromkeys(lines)]


def headings(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^#+ (.+)$", outside, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each).lower().replace(" ", "-") for each in found}


@pytest.fixture
def job_folder(tmp_path: Path) -> Path:
    """A folder with the README's job file and a table for it."""
    (tmp_path / "job.yaml").write_text(blocks(README, "yaml")[0], encoding="utf-8")
    table = "ticket_id,subject,body\n007,Kettle,My kettle broke\n008,Bill,Charged twice\n"
    (tmp_path / "tickets.csv").write_text(table, encoding="utf-8")
    asked = [[{"role": "user", "content": words}] for words in ("Hi", "Bye")]
    pq.write_table(pa.table({"messages": asked}), tmp_path / "chats.parquet")
    (tmp_path / "examples.jsonl").write_text(json.dumps({"role": "user", "content": "Hi"}), encoding="utf-8")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.png").write_bytes(image())
    (tmp_path / "products.csv").write_text("name,photo\ncup,1.png\nbox,1.png\n", encoding="utf-8")
    sums = ({"question": f"What is {each} plus 1?", "answer": f"One more.\n#### {each + 1}"} for each in (1, 2))
    (tmp_path / "gsm.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in sums), encoding="utf-8")
    wrong = ",".join(f"Incorrect Answer {number}" for number in (1, 2, 3))
    cities = "Which is in Peru?,Lima,Oslo,Rome,Kyiv\nWhich is in Norway?,Oslo,Lima,Rome,Kyiv\n"
    (tmp_path / "gpqa.csv").write_text(f"Question,Correct Answer,{wrong}\n{cities}", encoding="utf-8")
    return tmp_path


def test_the_readme_is_one_page() -> None:
    """It can be read in some minutes; whatever is looked up stands in docs/."""
    assert len(README.splitlines()) <= MAX_LINES
    assert sorted(PAGES) == sorted(["README.md", *(f"docs/{name}.md" for name in DOCS)])
    for name in DOCS:
        assert f"](docs/{name}.md)" in README


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_the_codes(page: str) -> None:
    """Job keys, columns, retry table, exit codes and measurements stand there as the code has them."""
    assert readme_tables.renewed(PAGES[page]) == PAGES[page], "run python -m tests.readme_tables"


def test_every_table_of_the_code_is_on_a_page() -> None:
    """None is lost when pages are rewritten."""
    assert set(re.findall(r"^<!-- table: (\w+) -->$", "\n".join(PAGES.values()), flags=re.MULTILINE)) == ALL_TABLES
    assert set(readme_tables.tables()) == ALL_TABLES


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    """Each link to a file of the repository finds it, and each link to a heading finds the heading."""
    folder = (ROOT / page).parent
    for link in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (folder / file).resolve() if file else ROOT / page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in headings(target.read_text(encoding="utf-8")), link


def test_the_first_screen_holds_the_two_commands() -> None:
    """A newcomer finds what it is and both commands without scrolling, each in one line."""
    first_screen = "\n".join(README.splitlines()[:FIRST_SCREEN_LINES])
    assert list(readme_commands.commands()) == ["run", "test"]
    for command in readme_commands.commands().values():
        assert "\n" not in command
        assert command in first_screen


def test_the_answer_shown_is_what_the_first_command_makes(tmp_path: Path) -> None:
    """The rows of the README are the result's, and so are the counts and the cost of its summary."""
    output = tmp_path / "quickstart.parquet"
    at_once = [f"output.path={output}", "simulator.latency_s=[0, 0]", "simulator.rps=100000"]
    summary = cometbatch.run(cometbatch.load_job(ROOT / "jobs" / "quickstart.yaml", at_once), progress=False)
    head, _, *shown = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in README.partition("## What you get")[2].splitlines()
        if line.startswith("|")
    ]
    table: pa.Table = pq.read_table(output)
    assert len(shown) > 3
    for cells, row in zip(shown, table.select(head).to_pylist(), strict=False):
        assert cells == [
            f"{value.normalize():f}" if isinstance(value, Decimal) else str(value) for value in row.values()
        ]
    said = summary.describe().splitlines()
    assert f"\n{said[0]}\n{said[1]}\n{said[2]}\n" in blocks(README, "text")[0]


@pytest.mark.parametrize("block", all_blocks("yaml"))
def test_every_job_shown_runs(job_folder: Path, block: str) -> None:
    """Each job file is valid as it stands, and completes against the simulator."""
    (job_folder / "job.yaml").write_text(block, encoding="utf-8")
    cometbatch.load_job(job_folder / "job.yaml")
    job = cometbatch.load_job(job_folder / "job.yaml", ON_SIMULATOR)
    summary = cometbatch.run(job, progress=False)
    assert summary.succeeded == 2 * len(job.cells()) * job.samples


@pytest.mark.parametrize("block", all_blocks("python"))
def test_all_python_shown_runs(job_folder: Path, monkeypatch: pytest.MonkeyPatch, block: str) -> None:
    """Each piece of Python works as pasted; only the address is replaced, to stay on this machine."""
    monkeypatch.chdir(job_folder)
    load_job: Callable[..., cometbatch.Job] = cometbatch.load_job

    def load(source: str | Mapping[str, object], more: tuple[str, ...] = ()) -> cometbatch.Job:
        return load_job(source, [*more, *ON_SIMULATOR])

    monkeypatch.setattr(cometbatch, "load_job", load)
    if "cometbatch" not in block:  # it reads a data set that a run has made
        cometbatch.run(load("job.yaml", ("output.path=out/triage/",)), progress=False)
    exec(compile(block, "README.md", "exec"), {})
    assert (job_folder / "out").exists()


@pytest.mark.parametrize("command", ["plan", "run", "status", "verify"])
def test_the_commands_of_the_readme_run(job_folder: Path, command: str) -> None:
    """Each command line that it shows for a job works on its job file."""
    assert f"cometbatch {command} job.yaml" in README
    if command in ("status", "verify"):
        ran(job_folder, "run job.yaml", *ON_SIMULATOR)
    more = ON_SIMULATOR if command in ("plan", "run") else []
    if command == "verify":  # it takes no --set, and the job asked about is the one that ran
        assert ran(job_folder, "verify out/triage.parquet")
        return
    assert "2" in ran(job_folder, f"{command} job.yaml", *more)


@pytest.mark.parametrize("line", commands_shown())
def test_the_recipes_run(job_folder: Path, line: str) -> None:
    """Each recipe works as pasted, on a run that has finished or a new one; only the address is replaced."""
    if "--retry" in line:
        ran(job_folder, "run job.yaml", *ON_SIMULATOR)
    said = ran(job_folder, line.removeprefix("cometbatch "), *ON_SIMULATOR)
    assert '"succeeded": 2' in said if "--json" in line else "2 of 2 rows: 2 succeeded" in said


def test_the_keys_of_the_summary_are_documented(job_folder: Path) -> None:
    """Whoever reads `--json` finds each key and its meaning."""
    summary = cometbatch.run(cometbatch.load_job(job_folder / "job.yaml", ON_SIMULATOR), progress=False)
    table = PAGES["docs/exit-codes.md"].partition("| key | meaning |")[2]
    named = {
        name
        for line in table.splitlines()
        for name in re.findall(r"`(\w+)`", line.split("|")[1:2][0] if "|" in line else "")
    }
    assert named == summary.to_dict().keys()


def ran(folder: Path, arguments: str, *overrides: str) -> str:
    """What a command says on standard output; it ends well."""
    line = [
        sys.executable,
        "-m",
        "cometbatch",
        *shlex.split(arguments),
        *(part for key in overrides for part in ("--set", key)),
    ]
    environment = {**os.environ, "COMETAPI_KEY": "sk-0123456789", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_command_is_in_the_readme() -> None:
    """A command that nobody can find is not there."""
    for name in cli.cli.commands:
        assert f"cometbatch {name}" in README


@pytest.mark.parametrize("job_file", sorted((ROOT / "jobs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_job_that_ships_can_be_planned(job_file: Path, tmp_path: Path) -> None:
    """The sample jobs are valid and priced."""
    output = tmp_path / ("out" if job_file.stem == "typed_columns" else "out.parquet")
    ending = "/" if job_file.stem == "typed_columns" else ""
    plan = cometbatch.plan(cometbatch.load_job(job_file, [f"output.path={output}{ending}"]))
    assert plan.rows > 0
    assert plan.unrenderable == 0
    assert plan.cost_usd is not None


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        ("durability", "# What survives what"),
        ("retry", "## Whose failure, and how long the wait"),
        ("updates", "## What happens"),
        ("workers", "## What survives what"),
    ],
)
def test_every_line_of_what_survives_what_is_held_by_a_test_that_is_there(page: str, heading: str) -> None:
    """Each promise names the file and, in the link's title, the test that would fail if it were not so."""
    table = PAGES[f"docs/{page}.md"].partition(f"{heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(lines) > 5
    for line in lines:
        held = re.fullmatch(r'\| .* \| \[test\]\(\.\./(tests/[\w/]+\.py) "(test_\w+)"\) \|', line)
        assert held, line
        assert f"def {held[2]}(" in (ROOT / held[1]).read_text(encoding="utf-8"), line


def test_every_count_and_use_that_is_read_is_named() -> None:
    """Each name by which the code finds a count, and each word of `cost_excludes`, is in the tables of replies."""
    page = PAGES["docs/replies.md"]
    places = {"cache_creation"}  # objects around counts
    counts = {*counters.WRITES, *counters.ELSEWHERE, *itertools.chain.from_iterable(counters.LIFETIMES)} - places
    used = {*uncovered.SERVED, *uncovered.COUNTED, *uncovered.TIERS, *uncovered.SIDE, *uncovered.SHOWN}
    used |= {*responses.SERVED, *responses.SERVED.values()}
    words = {*uncovered.SERVED.values(), *uncovered.COUNTED.values(), *uncovered.SIDE.values()} - {None}
    for name in counts | (used - {"web_fetch_requests"}) | words:
        assert f"`{name}`" in page, name


def test_the_models_that_it_names_are_the_simulator_s() -> None:
    """Whoever follows it gets answers."""
    named = set(re.findall(r"`(comet-sim[^`]*)`", "\n".join(PAGES.values())))
    assert len(named) > 1
    assert named <= {model.id for model in catalog.MODELS}
