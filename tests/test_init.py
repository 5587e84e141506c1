"""`init`: from a table to a job file that runs as it stands, for nothing, and says how to get real answers."""

import json
import re
import shlex
import unicodedata
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.cli import cli
from cometbatch.commands.connection import simulator_behaviour
from cometbatch.commands.first_look import FirstLook, as_shown, cut
from cometbatch.commands.init import SCHEMA_FILE
from cometbatch.commands.job_text import job_text, placeholder
from cometbatch.input import files as input_files
from cometbatch.job import load_job
from cometbatch.prompt.template import compile_prompt
from cometbatch.simulator.app import create_app
from tests.test_cli import COMMAND, command, on_a_terminal
from tests.workbench import Network, carry_out, files, simulator

KEY_LIKE = "sk-0123456789abcdef"
ROWS = [
    {"nr": "7", "order_id": "a-1", "note": "The kettle is broken, and the lid, too.", "lang": "en"},
    {"nr": "7", "order_id": "a-2", "note": "Where is my parcel?\nIt was promised for Monday.", "lang": "en"},
    {"nr": "8", "order_id": "a-3", "note": "Danke, alles \"gut\"; bis bald.", "lang": "de"},
    {"nr": "9", "order_id": "a-4", "note": "", "lang": "de"},
]  # fmt: skip


def as_csv(folder: Path, rows: list[dict[str, str]], mark: str = ",", name: str = "orders.csv") -> Path:
    """Rows as a CSV, each cell in quotes."""
    lines = [[*rows[0]], *(row.values() for row in rows)]
    quoted = (mark.join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines)
    path = folder / name
    path.write_text("\n".join(quoted) + "\n", encoding="utf-8")
    return path


def as_table(folder: Path, rows: list[dict[str, str]]) -> Path:
    """The same as Parquet."""
    path = folder / "orders.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def as_lines(folder: Path, rows: list[dict[str, str]]) -> Path:
    """The same as JSON, an object in each line."""
    path = folder / "orders.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


WRITERS: dict[str, Callable[[Path, list[dict[str, str]]], Path]] = {
    ".csv": as_csv,
    ".tsv": lambda folder, rows: as_csv(folder, rows, "\t", "orders.tsv"),
    ".parquet": as_table,
    ".jsonl": as_lines,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def columns_of(line: str) -> int:
    """How many columns of a terminal a line takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)


# -- the first ten minutes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", sorted(WRITERS.keys() & input_files.ENDINGS))
def test_from_a_table_to_answers_of_the_service(here: Path, ending: str) -> None:
    """The job runs as it is written; with the two words from its comments it asks the service."""
    table = WRITERS[ending](here, ROWS)
    begun = cometbatch.init(table.name, model="your-model-id")
    assert (begun.rows, begun.id_column, begun.prompt_column) == (4, "order_id", "note")
    job = load_job("job.yaml")
    plan = cometbatch.plan(job)
    assert (plan.rows, plan.unrenderable, plan.warnings) == (4, 1, plan.warnings)
    assert plan.first_request is not None
    assert plan.first_request["body"]["messages"][1]["content"] == ROWS[0]["note"]
    first = carry_out(job, Network())
    assert (first.succeeded, first.failed) == (3, 1)
    result = pq.read_table(job.output.path)
    assert result["custom_id"].to_pylist() == [row["order_id"] for row in ROWS]
    assert cometbatch.verify("job.yaml").ok
    text = Path("job.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^(  \w+: )\S+  # for real: (\S+)$", r"\1\2", text, flags=re.MULTILINE)
    Path("job.yaml").write_text(text, encoding="utf-8")
    real = load_job("job.yaml")
    assert (real.target.base_url, real.target.model) == ("https://api.cometapi.com", "your-model-id")
    job = load_job("job.yaml", ["target.model=comet-sim-1"])  # the one that the test's service has
    network = simulator()
    assert (carry_out(job, network).succeeded, network.posts) == (3, 3)


def test_the_command_ends_with_the_one_that_comes_next(here: Path) -> None:
    """Without a terminal nothing is asked; the last line can be pasted; 80 columns are enough for all of it."""
    as_csv(here, [{**row, "注": "狐" * 90} for row in ROWS], name="my orders.csv")
    done = command("init", "my orders.csv", "--job", "my job.yaml", key=False)
    assert (done.returncode, done.stderr) == (0, "")
    for line in (done.stdout + Path("my job.yaml").read_text(encoding="utf-8")).splitlines():
        assert columns_of(line) <= 80, line
    assert done.stdout.splitlines()[-1] == "Next: cometbatch run 'my job.yaml'"
    for row in ROWS[:3]:
        assert f"order_id: {row['order_id']}" in done.stdout
    again = command(*shlex.split(done.stdout.splitlines()[-1])[2:], "--set", "prompt.allow_empty=true", key=False)
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, "4 of 4 rows: 4 succeeded, 0 incomplete, 0 failed")


def test_on_a_terminal_nothing_is_asked_either(here: Path) -> None:
    """What was chosen is said; to change it is to edit a line."""
    table = as_csv(here, ROWS)
    code, shown = on_a_terminal([*COMMAND, "init", str(table)], 80)
    assert (code, shown.splitlines()[-1].strip()) == (0, "Next: cometbatch run job.yaml")


def test_json_tells_a_program_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object, with the command that comes next."""
    as_csv(here, ROWS)
    cli.main(["init", "orders.csv", "--json"], standalone_mode=False)
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "job_file": "job.yaml", "schema_file": SCHEMA_FILE, "input": "orders.csv", "rows": 4, "columns": [*ROWS[0]],
        "id_column": "order_id", "prompt_column": "note", "notes": [], "next_command": "cometbatch run job.yaml",
    }  # fmt: skip


def test_an_editor_finds_the_schema_beside(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first line names it, from the job file's own folder, and it is what the command `schema` prints."""
    (here / "jobs").mkdir()
    as_csv(here, ROWS)
    cometbatch.init("orders.csv", job_file="jobs/a.yaml")
    first = (here / "jobs/a.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA_FILE}"
    beside = (here / "jobs" / SCHEMA_FILE).read_text(encoding="utf-8")
    assert json.loads(beside) == cometbatch.schema()
    cli.main(["schema"], standalone_mode=False)
    assert capsys.readouterr().out == beside
    assert load_job("jobs/a.yaml").input.path == here / "orders.csv"


# -- what is chosen ----------------------------------------------------------------------------------------------------

IDS: dict[str, tuple[dict[str, list[Any]], str | None]] = {
    "named id": ({"a": ["x", "y"], "id": ["1", "2"]}, "id"),
    "whatever the case": ({"a": ["x", "y"], "ID": ["1", "2"]}, "ID"),
    "the likelier name": ({"user_id": ["x", "y"], "uuid": ["1", "2"]}, "uuid"),
    "a number": ({"a": ["x", "y"], "ticket_id": [1, 2]}, "ticket_id"),
    "in camels": ({"a": ["x", "y"], "ticketId": ["1", "2"]}, "ticketId"),
    "not unique": ({"id": ["1", "1"], "a": ["x", "y"]}, None),
    "not unique, another is": ({"id": ["1", "1"], "row_no": ["x", "y"]}, "row_no"),
    "a null": ({"id": ["1", None], "a": ["x", "y"]}, None),
    "an empty cell": ({"id": ["1", ""], "a": ["x", "y"]}, None),
    "unique, but no id": ({"name": ["1", "2"], "a": ["x", "y"]}, None),
    "a word that ends so": ({"paid": ["1", "2"], "grid": ["x", "y"]}, None),
    "a fraction": ({"id": [0.5, 1.5], "a": ["x", "y"]}, None),
    "a name with a line break": ({"a": ["x", "y"], "row\nrow_id": ["1", "2"]}, None),
    "custom_id": ({"id": ["1", "2"], "custom_id": ["x", "y"]}, "custom_id"),
}


@pytest.mark.parametrize("case", IDS)
def test_the_id_column_is_named_like_one_and_unique(here: Path, case: str) -> None:
    """Any other column is left to the person who knows the table."""
    cells, wanted = IDS[case]
    pq.write_table(pa.table(cells), "t.parquet")
    assert cometbatch.init("t.parquet").id_column == wanted
    assert load_job("job.yaml").input.id == wanted


def test_a_repeated_id_is_found_wherever_it_stands(here: Path) -> None:
    """The whole table is looked at, not its first rows."""
    for at, wanted in ((None, "id"), (0, None), (19_999, None)):
        ids = [*range(20_000), 20_000 if at is None else at]
        pq.write_table(pa.table({"id": ids, "note": ["text"] * len(ids)}), "t.parquet")
        assert cometbatch.init("t.parquet", job_file=f"{at}.yaml").id_column == wanted


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        ({"a": ["x", "y"], "b": ["long", "longer"]}, "b"),
        ({"a": ["very long at first", ""], "b": ["in all it is", "the longer one"]}, "b"),
        ({"id": ["a-much-longer-text-1", "a-much-longer-text-2"], "b": ["x", "y"]}, "b"),
        ({"id": ["1", "2"]}, "id"),
        ({"n": [1, 2], "day": [date(2026, 1, 2)] * 2}, "n"),
        ({"id": [1, 2], "n": [3.5, 4.5]}, "n"),
        ({"kind": pa.array(["question", "question"]).dictionary_encode(), "b": ["x", "y"]}, "kind"),
        ({"a": ["x", None], "b": [None, None]}, "a"),
        ({"a": ["x" * 9, "x"], "b": pa.array([["a" * 50], []])}, "a"),
        ({"a": pa.array(["x"], pa.large_string()), "b": pa.array(["long"], pa.string_view())}, "b"),
    ],
)
def test_the_prompt_has_the_longest_texts(here: Path, cells: dict[str, Any], wanted: str) -> None:
    """All rows together, without the id; where there are no texts, the first column."""
    pq.write_table(pa.table(cells), "t.parquet")
    assert cometbatch.init("t.parquet").prompt_column == wanted
    assert cometbatch.plan(load_job("job.yaml")).rows == len(next(iter(cells.values())))


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([{"who": {"name": "a long name of somebody"}, "note": "short"}], "note"),
        ([{"tags": ["one", "two", "three"], "n": 1}], "tags"),
        ([{"note": 1}, {"note": "a text beside a number"}], "note"),
    ],
)
def test_a_nested_value_of_a_line_is_asked_about_where_no_text_is(
    here: Path, rows: list[dict[str, Any]], wanted: str
) -> None:
    """A structure is mostly longer than the question beside it."""
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert cometbatch.init("t.jsonl").prompt_column == wanted


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_conversation_in_a_column_is_sent_as_one(here: Path, ending: str) -> None:
    """A table of chats has its prompts already; the text beside them is not asked about."""
    rows = [{"source": "a web page", "messages": [{"role": "user", "content": f"Question {n}?"}]} for n in range(3)]
    table = Path(f"chats{ending}")
    if ending == ".jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), table)
    begun = cometbatch.init(table)
    assert begun.prompt_column == "messages"
    first = cometbatch.plan(load_job("job.yaml")).first_request
    assert first is not None
    assert first["body"]["messages"] == rows[0]["messages"]


def test_a_table_without_texts_is_not_said_to_have_some(here: Path) -> None:
    """The prompt has a number then, and a person has to look at it."""
    pq.write_table(pa.table({"n": [1, 2], "m": [2.5, 3.5]}), "t.parquet")
    assert (
        "prompt: n; no column holds texts, so look at what the prompt says" in cometbatch.init("t.parquet").describe()
    )


def test_a_folder_and_a_pattern_are_tables_too(here: Path) -> None:
    """Files of one kind in a folder get a job as one file does."""
    Path("data").mkdir()
    for number in (1, 2):
        as_csv(here / "data", [{"id": f"r{number}", "note": f"Text {number}."}], name=f"{number}.csv")
    for number, table in enumerate(("data", "data/*.csv")):
        begun = cometbatch.init(table, job_file=f"{number}.yaml")
        assert (begun.rows, begun.id_column, begun.prompt_column) == (2, "id", "note")
        assert carry_out(load_job(f"{number}.yaml"), Network()).succeeded == 2


# -- vendors' batch files ---------------------------------------------------------------------------------------------

QUESTION = [{"role": "user", "content": "Two plus two?"}]
BATCH_LINES: dict[str, dict[str, Any]] = {
    "OpenAI": {
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "your-model-id", "messages": QUESTION, "stream": True},
    },
    "Responses": {
        "method": "POST",
        "url": "/v1/responses",
        "body": {"model": "your-model-id", "input": "Two plus two?"},
    },
    "Anthropic": {"params": {"model": "your-model-id", "max_tokens": 20, "messages": QUESTION}},
    "Gemini": {"request": {"contents": [{"role": "user", "parts": [{"text": "Two plus two?"}]}]}},
}


def as_batch(vendor: str, rows: int = 3, name: str = "batch.jsonl") -> str:
    """A vendor's batch file of equal requests."""
    key = "key" if vendor == "Gemini" else "custom_id"
    lines = [json.dumps({key: f"r-{number}", **BATCH_LINES[vendor]}) for number in range(rows)]
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


@pytest.mark.parametrize("vendor", BATCH_LINES)
def test_a_batch_file_gets_the_short_job_of_its_kind(here: Path, vendor: str) -> None:
    """It runs as it is written, also where its lines name a model; only Gemini's has one to change in the job."""
    begun = cometbatch.init(as_batch(vendor))
    assert (begun.rows, begun.prompt_column) == (3, None)
    assert begun.id_column == ("key" if vendor == "Gemini" else "custom_id")
    text = Path("job.yaml").read_text(encoding="utf-8")
    assert ("\n  model: comet-sim-1  # for real:" in text) == (vendor == "Gemini")
    assert "\nprompt:" not in text
    assert all(columns_of(line) <= 80 for line in (text + begun.describe()).splitlines())
    job = load_job("job.yaml")
    summary = carry_out(job, Network(create_app(simulator_behaviour(job))))
    assert (summary.succeeded, summary.cost_usd is None) == (3, False)
    assert cometbatch.verify("job.yaml").ok


def test_the_model_of_a_batch_file_is_its_own(here: Path) -> None:
    """`--model` is for the comment of a file that names none."""
    with pytest.raises(cometbatch.UsageError, match=r"name their model, your-model-id\. Leave it out"):
        cometbatch.init(as_batch("OpenAI"), model="other-model-id")
    with pytest.raises(cometbatch.UsageError, match=r"--encoding: .* is a batch file"):
        cometbatch.init("batch.jsonl", encoding="latin-1")
    assert not Path("job.yaml").exists()
    cometbatch.init(as_batch("Gemini"), model="other-model-id")
    assert "# for real: other-model-id" in Path("job.yaml").read_text(encoding="utf-8")


def test_rows_that_look_like_a_batch_file_and_have_more_are_a_table(here: Path) -> None:
    """The job has a prompt then; a line that no vendor would take is named, and nothing is written."""
    line = {"custom_id": "a", "params": {"temperature": 1}, "note": "Where is my parcel?"}
    Path("t.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert cometbatch.init("t.jsonl").prompt_column == "note"
    broken = Path(as_batch("OpenAI", name="b.jsonl"))
    broken.write_text(broken.read_text(encoding="utf-8") + '{"custom_id": "x"}\n', encoding="utf-8")
    with pytest.raises(cometbatch.InputError, match=r"b\.jsonl, line 4: lacks method"):
        cometbatch.init("b.jsonl", job_file="b.yaml")
    assert not Path("b.yaml").exists()


@pytest.mark.parametrize(
    ("text", "delimiter", "columns"),
    [
        ("id;note\n1;a,b\n", ";", ("id", "note")),
        ("id\tnote\n1\ta\n", "\t", ("id", "note")),
        ("id|note;s\n1|a\n", "|", ("id", "note;s")),
        ("what; when\nno semicolon here\n", None, ("what; when",)),
        ("note\na;b\n", None, ("note",)),
        ("id,a;b\n1,2\n", None, ("id", "a;b")),
    ],
)
def test_a_delimiter_is_found_by_the_header_where_all_rows_have_it(
    here: Path, text: str, delimiter: str | None, columns: tuple[str, ...]
) -> None:
    """A file as Excel writes it works; a text with a semicolon in it stays a text."""
    Path("t.csv").write_text(text, encoding="utf-8")
    assert cometbatch.init("t.csv").columns == columns
    assert load_job("job.yaml").input.delimiter == (delimiter or ",")
    assert cometbatch.plan(load_job("job.yaml")).rows == 1


def test_a_text_in_another_encoding_is_named_with_the_option(here: Path) -> None:
    """The file's line and byte, and what to write; with it the job reads the table."""
    Path("t.csv").write_bytes("note\ncafé au lait\n".encode("cp1252"))
    with pytest.raises(cometbatch.InputError, match=r"line 2: (?s:.*)--encoding NAME"):
        cometbatch.init("t.csv")
    assert not Path("job.yaml").exists()
    cometbatch.init("t.csv", encoding="cp1252")
    assert "café au lait" in Path("job.yaml").read_text(encoding="utf-8")
    assert load_job("job.yaml").input.encoding == "cp1252"


@pytest.mark.parametrize("column", ["status", "response", "Status", "cost_usd"])
def test_a_table_with_columns_like_ours_gets_a_prefix(here: Path, column: str) -> None:
    """The job runs all the same, and why its columns are named so is said."""
    as_csv(here, [{"note": "a", column: "x"}], name="t.csv")
    begun = cometbatch.init("t.csv")
    assert any("begin with out_" in note for note in begun.notes)
    plan = cometbatch.plan(load_job("job.yaml"))
    assert (load_job("job.yaml").output.prefix, plan.warnings) == ("out_", ())


def test_the_result_goes_where_nothing_is(here: Path) -> None:
    """Neither an earlier result, nor a run, nor the table itself stands in the new job's way."""
    (here / "out").mkdir()
    table = as_table(here / "out", ROWS)
    (here / "out/_orders_2.parquet.run").mkdir()
    cometbatch.init(table)
    assert load_job("job.yaml").output.path == here / "out/orders_3.parquet"
    assert load_job("job.yaml").input.path == table


# -- what is never done ---------------------------------------------------------------------------------------------


def a_file(path: Path) -> None:
    """Somebody's file."""
    path.write_text("mine", encoding="utf-8")


def a_broken_link(path: Path) -> None:
    """A link to a file that is not there."""
    path.symlink_to("elsewhere.yaml")


@pytest.mark.parametrize("taken", [a_file, a_broken_link, Path.mkdir])
def test_nothing_is_overwritten(here: Path, taken: Callable[[Path], None]) -> None:
    """What stands in the job file's place stays, and nothing is written beside it; the message says what to add."""
    as_csv(here, ROWS)
    taken(here / "job.yaml")
    before = files(here)
    with pytest.raises(cometbatch.UsageError, match=r"job\.yaml is there already.*--job NAME"):
        cometbatch.init("orders.csv")
    assert files(here) == before
    assert not (here / "elsewhere.yaml").exists()


def test_an_older_schema_stays_and_how_to_renew_it_is_said(here: Path) -> None:
    """The same schema is left without a word: two jobs of a folder share it."""
    as_csv(here, ROWS)
    assert cometbatch.init("orders.csv").notes == ()
    assert cometbatch.init("orders.csv", job_file="b.yaml").notes == ()
    (here / SCHEMA_FILE).write_text("{}", encoding="utf-8")
    (note,) = cometbatch.init("orders.csv", job_file="c.yaml").notes
    assert f"cometbatch schema > {SCHEMA_FILE}" in note
    assert (here / SCHEMA_FILE).read_text(encoding="utf-8") == "{}"


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no table": (("nowhere.csv",), "nowhere.csv: can't be read"),
    "a slip in its name": (("ordres.csv",), "did you mean 'orders.csv'?"),
    "no known kind": (("notes.txt",), "the ending must be"),
    "half a row": (("half.csv",), "line 3"),
    "empty": (("empty.csv",), "is empty"),
    "Excel's own line": (("sep.csv",), "delete it"),
    "no folder for the job": (("orders.csv", "--job", "no/job.yaml"), "no/job.yaml: can't be written"),
    "standard input": (("orders.csv", "--job", "-"), "can't be the name of a job file"),
    "a key for a model": (("orders.csv", "--model", KEY_LIKE), "target.model: this looks like a key"),
    "two words for a model": (("orders.csv", "--model", "a b"), "there are spaces in it"),
    "no encoding": (("orders.csv", "--encoding", "klingon"), "unknown input.encoding"),
    "a key for a column": (("key.csv",), "looks like a key"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_2_a_place_and_nothing_written(here: Path, mistake: str) -> None:
    """Never a traceback, never a key in the words."""
    as_csv(here, ROWS)
    for name, text in {"notes.txt": "a", "half.csv": "a,b\n1,2\n3\n", "empty.csv": "", "sep.csv": "sep=;\na;b\n1;2\n",
                       "key.csv": f"{KEY_LIKE}\na\n"}.items():  # fmt: skip
        Path(name).write_text(text, encoding="utf-8")
    before, ((table, *options), words) = files(here), MISTAKES[mistake]
    with pytest.raises(cometbatch.UsageError, match=re.escape(words)) as refused:
        cli.main(["init", table, *options], standalone_mode=False)
    assert KEY_LIKE not in str(refused.value)
    assert files(here) == before


def test_what_looks_like_a_key_in_a_cell_is_shown_nowhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on the terminal nor in the job file, which people keep and share."""
    as_csv(here, [{"id": "1", "note": f"my key is {KEY_LIKE}, please"}], name="t.csv")
    begun = cometbatch.init("t.csv")
    for text in (begun.describe(), str(begun.to_dict()), Path("job.yaml").read_text(encoding="utf-8"), repr(begun)):
        assert KEY_LIKE not in text
    assert "looks like a key" in begun.describe()


# -- laws -----------------------------------------------------------------------------------------------------------

WORDS = ["row", "none", "true", "self", "loop", "not", "range", "a.b", "{%", "2024", "_", "\uff45", "\u00e9", "e\u0301"]
NAMES = st.text(min_size=1, max_size=12) | st.sampled_from([*WORDS, "order id", "{{ x }}", '"', "\\", "'"])
NOT_IN_NAMES = re.compile("[\ud800-\udfff]")


@settings(max_examples=150, deadline=None)
@given(name=NAMES, cell=st.text(min_size=1, max_size=5))
def test_a_placeholder_stands_for_the_cell_of_a_column_of_any_name(name: str, cell: str) -> None:
    """Law: keywords, functions, braces, quotes and letters that Python folds included."""
    if NOT_IN_NAMES.search(name + cell):
        return
    template = compile_prompt([("user", placeholder(name))])
    template.check([name, "other"])
    messages = template.render({name: cell, "other": "x"})
    assert isinstance(messages, tuple)
    assert messages[0].content[0] == part_of(cell)


def part_of(cell: str) -> Any:
    """The part of a message that a cell becomes."""
    messages = compile_prompt([("user", "{{ a }}")]).render({"a": cell})
    assert isinstance(messages, tuple)
    return messages[0].content[0]


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(TEXTS, min_size=2, max_size=5, unique=True), cells=st.lists(TEXTS, min_size=5, max_size=5))
def test_the_text_of_a_job_reads_as_its_settings(tmp_path: Path, names: list[str], cells: list[str]) -> None:
    """Law: whatever the columns are called and the cells hold, and whatever stands in the comments."""
    row = dict(zip(names, cells, strict=False))
    look = FirstLook(names[0], names[1], tuple(names), (row, row, row))
    mapping: dict[str, dict[str, Any]] = {
        "input": {"path": "a b#c.csv", "id": names[0], "delimiter": ";", "encoding": "cp1252"},
        "output": {"path": "out/a.parquet", "prefix": "out_"},
        "target": {"base_url": "simulator", "model": "comet-sim-1", "format": "chat"},
        "prompt": {"system": "Sum: up #1", "user": placeholder(names[1])},
        "params": {"max_output_tokens": 5},
        "simulator": {"latency_s": [0.1, 0.2]},
    }
    try:
        wanted = load_job(mapping, base_dir=tmp_path)
    except cometbatch.JobError:
        return  # a name that no job can say, such as one with a line break
    path = tmp_path / "job.yaml"
    text = job_text(mapping, look, table="a b#c.csv", job_file="job.yaml", schema="s.json", model=None)
    path.write_text(text, encoding="utf-8")
    found = load_job(path)
    assert found.cut == (False, False)
    assert msgspec.structs.replace(found, source_path=None, places=wanted.places, cut=wanted.cut) == wanted


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40), width=st.integers(2, 30))
def test_a_cell_is_one_line_of_the_terminal(text: str, width: int) -> None:
    """Law: no control, direction or zero-width character gets through, and no line is longer than the terminal."""
    shown = as_shown(text)
    assert all(char.isprintable() for char in shown)
    assert columns_of(cut(shown, width)) - sum(map(bool, map(unicodedata.combining, cut(shown, width)))) <= width
