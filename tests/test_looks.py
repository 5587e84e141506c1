"""What is surely not meant is told before it is paid for: in a job's texts and in its rows, with numbers and places."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cometbatch
from cometbatch.commands import looks
from cometbatch.input.seen import Seen
from cometbatch.prompt.suspicions import describe_stop, suspicions
from cometbatch.prompt.template import compile_prompt
from tests.workbench import carry_out

JOB: dict[str, Any] = {
    "input": {"path": "in.csv"},
    "output": {"path": "out.parquet"},
    "target": {"base_url": "http://127.0.0.1:9", "format": "chat", "model": "m"},
    "prompt": {"user": "{{ text }}"},
    "prices": {"input": 1, "output": 1},
    "params": {"max_output_tokens": 4},
}


class Answering(httpx.AsyncBaseTransport):
    """Answers every prompt, and notes the last message of each."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One answer."""
        self.asked.append(json.loads(request.content)["messages"][-1]["content"])
        choice = {"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        return httpx.Response(200, json={"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})


def job_over(folder: Path, table: str, *overrides: str, **sections: dict[str, Any]) -> cometbatch.Job:
    """A job over this table; sections are laid over the usual ones."""
    (folder / "in.csv").write_text(table, encoding="utf-8")
    described = {name: {**JOB.get(name, {}), **sections.get(name, {})} for name in {*JOB, *sections}}
    return cometbatch.load_job(described, overrides, base_dir=folder)


def told(job: cometbatch.Job) -> list[str]:
    """What `plan` warns of, but for the key."""
    return [words for words in cometbatch.plan(job).warnings if "COMETAPI_KEY" not in words]


# ---------------------------------------------------------------- rows

SAME, PAID = "the same prompt as an earlier row", "each is sent and paid for (dedupe: true sends one)"
UNSENT = "they fail unsent, unless prompt.allow_empty is true"
TABLE = "id,text\n1,a\n,b\n2, \n1,a\n3,\n,a\n1,c\n"


def test_plan_tells_numbers_and_first_places(tmp_path: Path) -> None:
    """Identical prompts, empty ones, ids that are empty or double: how many of how many rows, and the first of them."""
    assert told(job_over(tmp_path, TABLE, input={"id": "id"})) == [
        f"2 of 7 rows have {SAME} (first: rows 3, 5); {PAID}",
        f"2 of 7 rows have an empty or blank prompt (first: rows 2, 4); {UNSENT}",
        "input.id: 2 of 7 rows have no id (first: rows 1, 5)",
        "input.id: 2 of 7 rows have the same id as an earlier row (first: rows 3, 6)",
    ]


def test_with_samples_no_way_is_named_that_they_refuse(tmp_path: Path) -> None:
    """Samples ask the same on purpose, and a job with `dedupe` and several of them is refused."""
    job = job_over(tmp_path, "id,text\n1,a\n2,a\n", matrix={"samples": 2})
    assert f"1 of 2 rows has {SAME} (first: row 1); each is sent and paid for" in told(job)


def test_run_tells_the_same_before_it_sends_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `plan` warns of, `run` prints and keeps in its summary, whether or not anyone planned."""
    job, network = job_over(tmp_path, TABLE, input={"id": "id"}), Answering()
    due = told(job)
    summary = carry_out(job, network)
    printed = [line.removeprefix("Warning: ") for line in capsys.readouterr().err.splitlines() if "Warning" in line]
    assert [words for words in printed if words in due] == due
    assert [words for words in summary.warnings if words in due] == due
    assert (summary.succeeded, summary.failed, network.asked.count("a")) == (5, 2, 3)


def test_cells_with_nothing_in_them_are_told_where_the_prompt_has_words(tmp_path: Path) -> None:
    """A spreadsheet leaves rows of delimiters: their prompts have words, and nothing of the row."""
    job = job_over(tmp_path, "id,text\n1,a\n2,\n3,\xa0\n,\n", prompt={"user": "Sum up: {{ text }}"})
    assert told(job) == [
        f"1 of 4 rows has {SAME} (first: row 3); {PAID}",
        "3 of 4 rows have nothing in the columns that the prompt uses (first: rows 1, 2, 3)",
    ]


def test_a_whole_row_of_nothing_is_told(tmp_path: Path) -> None:
    """A template that takes the row as a whole has nothing to say about one whose id alone is there."""
    words = {"user": "{{ row|tojson }}"}
    job = job_over(tmp_path, "id,text\n1,\n2,b\n", prompt=words, input={"id": "id"})
    assert told(job) == ["1 of 2 rows has nothing in the columns that the prompt uses (first: row 0)"]


def test_rows_without_a_prompt_are_told_with_the_reason(tmp_path: Path) -> None:
    """What can't be rendered fails unsent, and the first reason is said with the number."""
    job = job_over(tmp_path, "text\n1\nx\n0\ny\n", prompt={"user": "{{ 7 // (text|int) }}"})
    (words,) = told(job)
    assert words.startswith("3 of 4 rows have no prompt that can be made (first: rows 1, 2, 3); they fail unsent:")
    assert words.endswith("ZeroDivisionError: integer division or modulo by zero")


def test_a_table_as_it_should_be_is_told_nothing(tmp_path: Path) -> None:
    """No warning where there is nothing to warn of, also for a table of no rows."""
    assert told(job_over(tmp_path, "id,text\n1,a\n2,b\n", input={"id": "id"})) == []
    assert told(job_over(tmp_path, "id,text\n", input={"id": "id"})) == []


def test_the_rest_is_counted_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows are told of beforehand and as such; what comes later is in the summary, with the whole number."""
    monkeypatch.setattr(looks, "FIRST_ROWS", 3)
    job = job_over(tmp_path, "text\na\nb\na\nc\na\nd\na\n")
    found = [words for words in carry_out(job, Answering()).warnings if "same prompt" in words]
    assert found == [
        f"1 of the first 3 rows that remain has {SAME} (first: row 2); {PAID}",
        f"3 of 7 rows have {SAME} (first: rows 2, 4, 6); {PAID}",
    ]


def test_only_rows_that_remain_are_looked_at(tmp_path: Path) -> None:
    """A run that is resumed tells of what it will still pay for, with the rows' own numbers."""
    job = job_over(tmp_path, "text\na\na\nb\nc\nb\n", "limits.concurrency=1", "limits.adaptive=false")
    first = Answering()

    class Stopping(Answering):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if len(self.asked) == 2:
                return httpx.Response(401, json={"error": {"message": "no", "code": "invalid_api_key"}})
            return await super().handle_async_request(request)

    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(job, Stopping())
    assert told(job) == [f"1 of 3 rows has {SAME} (first: row 4); {PAID}"]
    assert [words for words in carry_out(job, first).warnings if "same prompt" in words] == told_before(3)


def told_before(rows: int) -> list[str]:
    """The one warning of the test above."""
    return [f"1 of {rows} rows has {SAME} (first: row 4); {PAID}"]


# ---------------------------------------------------------------- empty prompts


def test_empty_prompts_fail_unsent_until_they_are_allowed(tmp_path: Path) -> None:
    """Nothing to ask is nothing to pay for. The key sends them, also in a run that has begun: the rest stays."""
    table = 'text\na\n""\n\u200b\u00a0\nb\n'
    first = Answering()
    summary = carry_out(job_over(tmp_path, table), first)
    assert (sorted(first.asked), summary.failed) == (["a", "b"], 2)
    assert cometbatch.verify(tmp_path / "out.parquet").ok
    second = Answering()
    allowed = job_over(tmp_path, table, prompt={"allow_empty": True})
    summary = cometbatch.run(allowed, retry="template", progress=False, http=second)
    assert (sorted(second.asked), summary.failed, summary.succeeded) == (["", "\u200b\u00a0"], 0, 4)
    assert cometbatch.verify(tmp_path / "out.parquet").ok


def test_a_run_that_allowed_them_is_proven_too(tmp_path: Path) -> None:
    """What the job said when a run began does not decide what its rows may be."""
    table = 'text\na\n""\n'
    network = Answering()
    carry_out(job_over(tmp_path, table, prompt={"allow_empty": True}), network)
    assert sorted(network.asked) == ["", "a"]
    assert cometbatch.verify(tmp_path / "out.parquet").ok


@pytest.mark.parametrize(
    ("messages", "is_empty"),
    [
        ([("user", "{{ x }}")], True),
        ([("system", "Be brief."), ("user", " {{ x }}\n")], True),
        ([("system", "{{ x }}"), ("user", "Go on.")], False),
        ([("user", "Q"), ("assistant", "A"), ("user", "{{ x }}")], True),
        ([("user", "{{ x }}"), ("user", "Q")], False),
        ([("user", "Q"), ("assistant", "{{ x }}")], False),
        ([("system", "{{ x }}")], True),
        ([("user", "{{ x }}.")], False),
    ],
)
@pytest.mark.parametrize("nothing", [None, "", " \t\r\n", "\u200b\ufeff\u2060", "\u00a0\u3000\u2028"])
def test_a_prompt_is_empty_where_its_question_is(
    messages: list[tuple[Any, str]], is_empty: bool, nothing: object
) -> None:
    """The last message of a user decides; where there is none, the last one. What can't be seen is nothing."""
    template = compile_prompt(messages, refuse_empty=True)
    assert (template.render({"x": nothing}) is template.empty) is is_empty
    assert isinstance(compile_prompt(messages).render({"x": nothing}), tuple)


def test_an_id_that_is_no_text_fails_its_row(tmp_path: Path) -> None:
    """An id is printed as in a prompt; binary data that is no text names no row, and nothing is sent for it."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    ids = pa.array([b"\xff", "é".encode(), None, b"a"], pa.binary())
    pq.write_table(pa.table({"id": ids, "text": ["a", "b", "c", "d"]}), tmp_path / "in.parquet")
    network = Answering()
    job = job_over(tmp_path, "", "input.path=in.parquet", "input.id=id")
    summary = carry_out(job, network)
    result = pq.read_table(tmp_path / "out.parquet")
    assert result["custom_id"].to_pylist() == [None, "é", None, "a"]
    assert (network.asked, summary.failed) == (["b", "c", "d"], 1)
    assert "names no row" in result["error_message"].to_pylist()[0]
    assert cometbatch.verify(tmp_path / "out.parquet").ok


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("Classify: {text}", "for '{text}' write {{ text }}"),
        ("Classify: ${text} and $id", "for '${text}' write {{ text }}; for '$id' write {{ id }}"),
        ("Classify: { Text }", "for '{ Text }' write {{ text }}"),
        ("%(text)s %id%", "for '%(text)s' write {{ text }}; for '%id%' write {{ id }}"),
        ("[[text]] <<id>>", "for '[[text]]' write {{ text }}; for '<<id>>' write {{ id }}"),
        ("<text>", "for '<text>' write {{ text }}"),
        ("{order id}", "for '{order id}' write {{ row[\"order id\"] }}"),
        ("{% raw %}{{ text }}{% endraw %}", "every row gets the same prompt: for '{ text }' write {{ text }}"),
        ("Say hello.", "no message of the prompt uses a column of the input, so every row gets the same prompt"),
        ("{text}: ${text}, $text", "so every row gets the same prompt: for '{text}' write {{ text }}"),
        (
            "{{ id }}: {text}",
            "the prompt sends these as they stand, not the cells of the columns: for '{text}' write {{ text }}",
        ),
        (
            r"Sum up:\n{{ text }}",
            r"the prompt has \n as two characters; for a line break write the text in double quotes, or after a |",
        ),
    ],
)
def test_texts_that_are_surely_not_meant_are_told(template: str, words: str) -> None:
    """Other tools' placeholders, no column at all, a line break that is none: with what to write, once for each."""
    found = list(suspicions(compile_prompt([("system", "Be brief."), ("user", template)]), ["text", "id", "order id"]))
    assert len(found) == 1
    assert found[0].endswith(words)


@pytest.mark.parametrize(
    "template",
    [
        "{{ text }}",
        "{{ text }} as {text}",
        "<text>{{ id }}</text>",
        '{{ text }}: answer as {"label": "…"}, {other}, $5, 7% or %s',
        "{{ row|tojson }}{text}",
        "{{ text|replace('\\n', ' ') }}",
        "{% if text %}a{% endif %}",
    ],
)
def test_texts_that_may_be_meant_are_told_nothing(template: str) -> None:
    """Braces of JSON, tags around a text and escapes within code are usual."""
    assert list(suspicions(compile_prompt([("user", template)]), ["text", "id"])) == []


def test_many_placeholders_are_told_in_short() -> None:
    """The first say what is wrong."""
    names = [f"column{number}" for number in range(9)]
    template = compile_prompt([("user", " ".join(f"{{{name}}}" for name in names))])
    (words,) = suspicions(template, names)
    assert words.endswith("for '{column4}' write {{ column4 }}; and 4 more")


def test_a_stop_that_never_comes_is_told() -> None:
    """A stop of a backslash and an n never ends an answer."""
    assert list(describe_stop(("\n", "###"))) == []
    (words,) = describe_stop(("\n", r"\n\n"))
    assert words.startswith(r"params.stop has \n as two characters")


@pytest.mark.parametrize(
    ("prompt", "is_told"),
    [
        ("Ticket #1 {{ text }}", True),
        ("Sum up this #text", True),
        ("Sum up {{ text }} # {{ id }}", True),
        ("Sum up {{ text }} # the text", False),
        ("'Ticket #1 {{ text }}'", False),
        ("Ticket#1 {{ text }}", False),
        ("|\n    Ticket #1 {{ text }}", False),
    ],
)
def test_a_prompt_that_yaml_cuts_is_told_with_its_line(tmp_path: Path, prompt: str, is_told: bool) -> None:
    """Where a # began a comment in the middle of a prompt, the warning names file and line, and not the text."""
    (tmp_path / "in.csv").write_text("text,id\na,1\n")
    (tmp_path / "job.yaml").write_text(
        "input: {path: in.csv}\noutput: {path: o.parquet}\ntarget: {base_url: simulator, format: chat, model: m}\n"
        f"prices: none\nprompt:\n  user: {prompt}\nparams: {{stop: ['\\n']}}\n"
    )
    found = told(cometbatch.load_job(tmp_path / "job.yaml"))
    cut = [words for words in found if "begins a comment in YAML" in words]
    assert bool(cut) is is_told
    assert all(f"{tmp_path / 'job.yaml'}:6: prompt.user" in words and "{{" not in words for words in cut)
    assert any(r"params.stop has \n" in words for words in found)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("prompt:\n  user: #1 {{ text }}\n", "prompt.user"),
        ("prompt:\n  system: # Rules\n  user: '{{ text }}'\n", "prompt.system"),
        ("prompt:\n  messages:\n  - role: user\n    content: #2\n", "prompt.messages[0].content"),
        ("prompt: {user: '{{ text }}'}\nparams:\n  stop: ###\n", "params.stop"),
    ],
)  # fmt: skip
def test_a_text_that_is_all_comment_is_refused_once(tmp_path: Path, section: str, key: str) -> None:
    """Where a # leaves nothing of a text that a request carries, the job is refused for that, and for nothing else."""
    head = "input: {path: in.csv}\noutput: {path: o.parquet}\ntarget: {format: chat, model: m}\n"
    (tmp_path / "job.yaml").write_text(head + section, encoding="utf-8")
    with pytest.raises(cometbatch.UsageError) as refused:
        cometbatch.load_job(tmp_path / "job.yaml")
    assert f"{key}: found nothing: a # begins a comment in YAML" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_text_that_is_left_out_on_purpose_is_left_out(tmp_path: Path) -> None:
    """Null and an empty value need no word, also with a comment in the next line."""
    head = "input: {path: in.csv}\noutput: {path: o.parquet}\ntarget: {format: chat, model: m}\n"
    prompt = "prompt:\n  system:\n  # the question\n  user: '{{ text }}'\nparams:\n  stop: null # none\n"
    (tmp_path / "job.yaml").write_text(head + prompt, encoding="utf-8")
    job = cometbatch.load_job(tmp_path / "job.yaml")
    assert ([each.role for each in job.messages], job.params.stop) == (["user"], ())


@pytest.mark.parametrize(
    ("stop", "told"),
    [(r"\n", [r"\n"]), (r"\t", [r"\t"]), (r"\r\n", [r"\n", r"\r"]), (r"\textbf", []), ("END", []), ("\n", [])],
)
def test_escapes_in_a_stop_text_are_told(stop: str, told: list[str]) -> None:
    """A stop text that nobody means can never be found; the beginning of a word is meant."""
    assert [sentence.split()[2] for sentence in describe_stop([stop])] == told


@pytest.mark.parametrize(
    ("typed", "way"),
    [
        ("{text!r}", "{{ text }}"),
        ("{text:>8.2f}", "{{ text }}"),
        ("{row[text]}", "{{ text }}"),
        ("{row['city name']}", '{{ row["city name"] }}'),
        ("{x:y}", '{{ row["x:y"] }}'),
        ("{text: string}", None),
        ('{"text": 1}', None),
    ],
)
def test_placeholders_of_python_formats_are_told(typed: str, way: str | None) -> None:
    """With what `str.format` takes after a name or around it; a field of JSON is none."""
    prompt = compile_prompt([("user", f"{{{{ id }}}} {typed}")])
    words = "the prompt sends these as they stand, not the cells of the columns: "
    due = [] if way is None else [f"{words}for {typed!r} write {way}"]
    assert list(suspicions(prompt, ["id", "text", "city name", "x:y"])) == due


# ---------------------------------------------------------------- memory


@given(values=st.lists(st.integers(0, 40).map(str), max_size=60))
def test_what_was_seen_is_seen_again(values: list[str]) -> None:
    """As a set would say it."""
    seen, before = Seen(60, 8 * 81), set[str]()
    for value in values:
        assert seen.add(value) is (value in before)
        before.add(value)
    assert seen.values == len(values)


def test_beyond_what_fits_only_the_first_rows_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that is full takes nothing more, and the number of rows that were compared is said."""
    monkeypatch.setattr("cometbatch.commands.plan_survey.PLAN_BYTES", 1 << 13)
    rows = "".join(f"{number}\n{number}\n" for number in range(1_000))
    found = told(job_over(tmp_path, "text\n" + rows))
    room = 768
    who = f"{room - 1} of the first {2 * room - 1:,} rows that remain have"
    assert found == [f"{who} {SAME} (first: rows 1, 3, 5); {PAID}"]


def test_what_was_seen_has_a_fixed_size() -> None:
    """Two tables of 31 MB at most, however many rows there are; small ones for few rows."""
    tracemalloc.start()
    try:
        large = Seen(10**9, looks.PLAN_BYTES)
        assert looks.PLAN_BYTES * 2 <= 64_000_000
        assert tracemalloc.get_traced_memory()[1] <= looks.PLAN_BYTES + 10_000
        small = Seen(100, looks.PLAN_BYTES)
        assert tracemalloc.get_traced_memory()[1] <= looks.PLAN_BYTES + 20_000
    finally:
        tracemalloc.stop()
    assert (large.room, small.room) == (3 * (looks.PLAN_BYTES // 8) // 4, 768)
