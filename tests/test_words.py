"""What a person reads at the command line: hints that lead on, texts taken as typed, commands that can succeed."""

import json
import re
import shlex
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.commands.session import budget_to_finish
from cometbatch.errors import JobError, UsageError
from cometbatch.job import load_job
from cometbatch.job.secrets import is_secret
from cometbatch.records import PriceBook, Tally
from cometbatch.results.summary import RunSummary
from cometbatch.run_state.run import directory_of, find
from tests.test_cli import command
from tests.workbench import Network, Workbench, carry_out, simulator

SMALL = {
    "input": {"path": "t.csv"},
    "output": {"path": "o.parquet"},
    "target": {"format": "chat", "model": "m"},
    "prompt": {"user": "{{ body }}"},
}


def refused(*overrides: str, **sections: Any) -> str:
    """Why a job is refused."""
    with pytest.raises(JobError) as caught:
        load_job({**SMALL, **sections}, overrides)
    return str(caught.value)


# -- did you mean ----------------------------------------------------------------------------------------------------

UNKNOWN_KEYS = {
    "concurrency=4": "'limits.concurrency'",
    "model=m": "'target.model'",
    "temperature=1": "'params.temperature'",
    "max_tokens=5": "'params.max_output_tokens'",
    "params.max_tokens=5": "'params.max_output_tokens'",
    "params.concurrency=4": "'limits.concurrency'",
    "limits.max_retries=4": "'retry.max_attempts'",
    "limits.rpm=4": "'limits.requests_per_minute'",
    "target.max_cost_usd=4": "'budget.max_cost_usd'",
    "concurency=4": "'limits.concurrency'",
    "limits.concurency=4": "'concurrency'",
    "Limits.concurrency=4": "'limits'",
    "path=x": "input.path, output.path",
    "params.presence_penalty=1": "params.extra",
}


@pytest.mark.parametrize("override", UNKNOWN_KEYS)
def test_an_unknown_key_leads_to_the_one_that_is_meant(override: str) -> None:
    """Also where it is right in another section, or what another program calls it."""
    words = refused(override)
    assert "unknown key; " in words
    assert UNKNOWN_KEYS[override] in words


@pytest.mark.parametrize(
    ("name", "format_"),
    [("openai", "chat"), ("Anthropic", "messages"), ("claude", "messages"), ("google", "gemini"), ("Chat", "chat")],
)
def test_a_vendor_leads_to_its_format(name: str, format_: str) -> None:
    """Who knows a service by its maker finds its wire format."""
    assert f"did you mean {format_!r}?" in refused(f"target.format={name}")


@pytest.mark.parametrize(
    ("word", "kind"),
    [("fail", "failed"), ("error", "failed"), ("429", "rate_limited"), ("lenght", "length"), ("truncated", "length"),
     ("Timeout", "timeout"), ("refused", "refusal")],
)  # fmt: skip
def test_a_kind_of_row_that_is_none_leads_to_one(bench: Workbench, word: str, kind: str) -> None:
    """`--retry` says what was meant, and all that there is."""
    with pytest.raises(UsageError, match=rf"{word!r} is no kind of row, did you mean '{kind}'\? There are: failed, "):
        cometbatch.run(bench.job(), retry=word)


@pytest.mark.parametrize(
    ("option", "words"),
    [("--dry-run", "cometbatch plan"), ("--resume", "plain command"), ("--model", "--set target.model=MODEL"),
     ("--concurrency", "--set limits.concurrency"), ("--quite", "--quiet")],
)  # fmt: skip
def test_an_option_of_another_program_leads_to_ours(option: str, words: str) -> None:
    """What does the same here is named."""
    done = command("run", option, "job.yaml")
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize("slip", ["--fesh", "--refresh", "--fres", "--force", "--frehs", "--yess"])
def test_no_slip_leads_to_deleting_answers(slip: str) -> None:
    """`--fresh` is never proposed, nor what lets it go on without asking."""
    done = command("run", slip, "job.yaml")
    assert done.returncode == 2
    assert "'--fresh'" not in done.stderr
    assert "'--yes'" not in done.stderr


def test_a_file_of_nearly_this_name_is_named(bench: Workbench) -> None:
    """A slip in the job file's name is told by the file that is there."""
    bench.write_job()
    for name in ("plan", "run", "status", "verify"):
        assert "did you mean 'job.yaml'?" in command(name, bench.folder / "jbo.yaml").stderr


def test_a_table_of_nearly_this_name_is_named(bench: Workbench) -> None:
    """A slip in the input's name is told by the table that is there, one in a folder's name by the folder."""
    job = bench.write_job()
    (bench.folder / "notes.txt").write_text("")
    near = command("plan", job, "--set", f"input.path={bench.input.with_name(bench.input.stem + 's.csv')}").stderr
    assert f"No such file or directory; did you mean {bench.input.name!r}?" in near
    assert "did you mean" not in command("plan", job, "--set", "input.path=quarterly_report.csv").stderr
    assert (
        f"; there is no folder {bench.folder / 'dta'}\n" in command("plan", job, "--set", "input.path=dta/a.csv").stderr
    )


@pytest.mark.parametrize(
    ("prompt", "is_told"),
    [
        ("prompt:\n  user: {{ note }} please\n", True),
        ("prompt: {user: Hello {{ note }} }\n", True),
        ("prompt:\n  user: 'a' b\n", False),
    ],
)
def test_braces_without_quotes_are_told_where_yaml_can_t_be_read(tmp_path: Path, prompt: str, is_told: bool) -> None:
    """Whatever YAML makes of {{ in a place where it means something, the message says to put the text in quotes."""
    (tmp_path / "job.yaml").write_text(f"input: {{path: a.csv}}\n{prompt}", encoding="utf-8")
    with pytest.raises(UsageError, match="not valid YAML") as refused_job:
        load_job(tmp_path / "job.yaml")
    assert ("a text with {{ at its start, or within braces, needs quotes" in str(refused_job.value)) is is_told


# -- delimiters ------------------------------------------------------------------------------------------------------

HEADERS = {
    ("id;note", ".csv"): ";",
    ("id\tnote", ".csv"): "\t",
    ("id|note", ".csv"): "|",
    ("id,note", ".tsv"): ",",
    ("id;price,eur;note", ".csv"): ";",
    ("sep=;\nid;note", ".csv"): ";",
    ("sep=\t\nid\tnote", ".csv"): "\t",
}


@pytest.mark.parametrize(("header", "ending"), HEADERS)
@pytest.mark.parametrize("by", ["prompt", "id"])
def test_a_column_that_is_missed_leads_to_the_delimiter(bench: Workbench, header: str, ending: str, by: str) -> None:
    """The hint stands in the error, and what it says to write in the job file finds the column."""
    bench.input = bench.folder / f"in{ending}"
    bench.input.write_text(f"{header}\n", encoding="utf-8")
    sections = {"prompt": {"user": "{{ note }}" if by == "prompt" else "all"}, "input": {"id": "note"}}
    with pytest.raises(UsageError) as missed:
        cometbatch.plan(bench.job(**sections, prices="none"), http=Network())
    setting = re.search(r"set input\.delimiter: (\S+)\.$", str(missed.value))
    assert setting, str(missed.value)
    if header.startswith("sep="):
        assert "delete it" in str(missed.value)
        bench.input.write_text(header.partition("\n")[2] + "\n", encoding="utf-8")
    path = bench.folder / "job.yaml"
    text = json.dumps(bench.settings(**sections, prices="none"))
    path.write_text(text.replace('"input": {', f'"input": {{"delimiter": {setting[1]}, '), encoding="utf-8")
    assert load_job(path).input.delimiter == HEADERS[header, ending]
    assert cometbatch.plan(load_job(path), http=Network()).rows == 0


def test_no_delimiter_is_guessed_where_none_is_near(bench: Workbench) -> None:
    """A header of plain words gives no such hint."""
    with pytest.raises(UsageError) as missed:
        cometbatch.plan(bench.job(prompt={"user": "{{ elsewhere }}"}), http=Network())
    assert "delimiter" not in str(missed.value)


# -- --set -----------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=30).filter(
    lambda text: text.strip() and text != "null" and text.strip()[0] not in "\"'" and not is_secret(text)
)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_a_text_at_set_is_the_text(text: str) -> None:
    """Law: whatever marks of YAML it has, a text that is not wholly in quotes arrives as it was typed."""
    assert load_job(SMALL, [f"input.id={text}"]).input.id == text
    if not (text.strip().startswith("[") and text.strip().endswith("]")):  # a list may be meant
        assert load_job(SMALL, [f"params.stop={text}"]).params.stop == (text,)


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=30).filter(
        lambda text: text.strip() and not is_secret(text)
    )
)
def test_a_quoted_text_at_set_is_unquoted(text: str) -> None:
    """Law: one that is wholly in double or single quotes is what YAML, or JSON, reads in them."""
    single = "'" + text.replace("'", "''") + "'"
    for quoted in (json.dumps(text), json.dumps(text, ensure_ascii=False), single):
        assert load_job(SMALL, [f"input.id={quoted}"]).input.id == text


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("prompt.user=Ticket #1 {{ body }}", "Ticket #1 {{ body }}"),
        ("prompt.user=Ticket: {{ body }}", "Ticket: {{ body }}"),
        ("prompt.user={{ body }}", "{{ body }}"),
        ("prompt.user=[{{ body }}]", "[{{ body }}]"),
        ("prompt.user=yes", "yes"),
        ("prompt.user=2024-01-02", "2024-01-02"),
        ("prompt.user=- a", "- a"),
        ("prompt.user=\"a\" or 'b'", "\"a\" or 'b'"),
        ('prompt.user="a" and "b"', '"a" and "b"'),
        ('prompt.user="a" # "b"', '"a" # "b"'),
        ("prompt.user=!x &y *z", "!x &y *z"),
        ("prompt.user='#1'", "#1"),
        ("prompt.user=NULL", "NULL"),
    ],
)
def test_marks_of_yaml_mean_nothing_in_a_prompt_at_set(override: str, wanted: str) -> None:
    """A comment, a colon, braces, a word that YAML reads as something else: all of it arrives."""
    (message,) = load_job(SMALL, [override]).messages
    assert message.template == wanted


@pytest.mark.parametrize(
    ("override", "key", "wanted"),
    [
        ("target.model=4.5", "model", "4.5"),
        ("target.model=on", "model", "on"),
        ("target.model=vendor/name#2", "model", "vendor/name#2"),
        ("input.id=2024", "id", "2024"),
        ("input.id=null", "id", None),
        ("input.id=", "id", None),
        ("input.delimiter=;", "delimiter", ";"),
        ("input.delimiter=#", "delimiter", "#"),
        ('input.delimiter="\\t"', "delimiter", "\t"),
        ("input.delimiter=\t", "delimiter", "\t"),
        ("output.prefix=no", "prefix", "no"),
    ],
)
def test_each_key_that_takes_a_text_takes_it_as_typed(override: str, key: str, wanted: object) -> None:
    """A number of a model, a year for a column, a sign for a delimiter; `null` and nothing leave the key out."""
    section = override.partition(".")[0]
    assert getattr(getattr(load_job(SMALL, [override]), section), key) == wanted


def test_keys_of_other_kinds_stay_yaml() -> None:
    """Lists, numbers, flags and mappings are read as in a job file; a comment that would cut one is refused."""
    job = load_job(
        SMALL, ["params.stop=[a, '#']", "limits.concurrency=0012".replace("0012", "12"), "params.extra={a: [1]}"]
    )
    assert (job.params.stop, job.limits.concurrency, job.params.extra) == (("a", "#"), 12, {"a": [1]})
    for override in ("params.extra.user=#1", "params.extra.user=a #1", "limits.concurrency=4 # high"):
        assert "begins a comment in YAML" in refused(override)


def test_an_emoji_that_json_wrote_in_two_halves_is_one_character(tmp_path: Path) -> None:
    """A job file as a JSON writer leaves it; a lone half is refused once, for what it is."""
    path = tmp_path / "job.yaml"
    path.write_text(
        json.dumps({**SMALL, "prompt": {"user": "\N{CAT FACE} {{ body }} \N{PILE OF POO}"}}), encoding="ascii"
    )
    assert load_job(path).messages[0].template == "\N{CAT FACE} {{ body }} \N{PILE OF POO}"
    path.write_text(json.dumps({**SMALL, "prompt": {"user": "\ud83d {{ body }}"}}), encoding="ascii")
    with pytest.raises(JobError) as refusal:
        load_job(path)
    assert len(str(refusal.value).splitlines()) == 1


# -- the end of a run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", ["0.0005", "0.00000001"])
def test_the_command_of_a_budget_stop_finishes_the_run(bench: Workbench, budget: str) -> None:
    """Pasted as it is, also where the budget was given by --set and no row was answered."""
    job = bench.write_job(simulator={"latency_s": 0.001}, limits={"concurrency": 2})
    done = command("run", job, "--set", f"budget.max_cost_usd={budget}", "--fresh")
    assert done.returncode == 4
    assert re.search(r"^stopped at \d+ of 12 rows; to finish, ", done.stderr.splitlines()[-1])
    again = done.stderr.splitlines()[-1].partition("cometbatch ")[2]
    assert "--fresh" not in again
    assert again.count("budget.max_cost_usd") == 1
    assert command(*shlex.split(again)).returncode == 0


def test_a_budget_to_finish_is_above_what_finishing_costs(bench: Workbench) -> None:
    """Law over stops at any row: with the budget that is named, all rows that cost alike are answered."""
    for budget in ("0.00001", "0.00005", "0.0001", "0.0004"):
        with pytest.raises(cometbatch.BudgetReachedError) as stopped:
            carry_out(bench.job(budget={"max_cost_usd": Decimal(budget)}), simulator())
        needed = stopped.value.budget_to_finish
        assert needed is not None
        assert needed > Decimal(budget)
        assert len(needed.as_tuple().digits) <= 2
    assert carry_out(bench.job(budget={"max_cost_usd": needed}), simulator()).all_succeeded
    found = find(directory_of(bench.output, is_dataset=False), bench.output)
    assert found is not None
    assert budget_to_finish(found, None) is None


def test_a_mistyped_model_leads_to_a_command_without_it(bench: Workbench) -> None:
    """The command keeps every option but the one that was wrong; later, when rows were answered, it is the same."""
    job = bench.write_job(simulator={"latency_s": 0})
    done = command("run", job, "--set", "target.model=comet-smi-1", "--set", "limits.concurrency=2")
    assert done.returncode == 5
    assert "did you mean 'comet-sim-1'?" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("--set target.model=MODEL --set limits.concurrency=2")


def summary(tally: Tally, **more: Any) -> RunSummary:
    """A summary of this tally."""
    finished = more.pop("finished", True)
    return RunSummary("id", Path("o.parquet"), tally.calls, tally, PriceBook("m", "none"), finished, **more)


@pytest.mark.parametrize(
    ("reasons", "cap", "words"),
    [
        ({"length": 3}, 5, "3 cut at params.max_output_tokens=5"),
        ({"length": 3}, 5, "set params.max_output_tokens higher and give another output.path"),
        ({"length": 1}, None, "1 cut at the model's own token limit"),
        ({"content_filter": 2}, 5, "2 blocked by a content filter"),
        ({"stop": 1, "refusal": 1}, None, "run with --retry refusal,stop"),
        ({"tool_calls": 1}, None, "tool calls in place of an answer"),
    ],
)
def test_the_summary_says_why_rows_are_incomplete_and_what_to_do(
    reasons: dict[str, int], cap: int | None, words: str
) -> None:
    """Each reason with its number, and the way to whole answers."""
    tally = Tally(incomplete=sum(reasons.values()), incompletes=reasons)
    said = summary(tally, max_output_tokens=cap)
    assert words in said.describe()
    assert said.to_dict()["incompletes"] == reasons


def test_reasons_survive_parts_and_sessions(bench: Workbench) -> None:
    """A finished run, its status and a second run tell the same reasons, and `verify` adds them up."""
    job = bench.job(simulator={"faults": {"length": 0.5}}, output={"partition_rows": 4})
    first = carry_out(job, simulator("length:0.5"))
    assert first.tally.incompletes == {"length": first.incomplete}
    assert first.incomplete > 0
    assert cometbatch.status(job).summary.tally.incompletes == first.tally.incompletes
    assert carry_out(job, Network()).tally.incompletes == first.tally.incompletes
    assert "cut at params.max_output_tokens=64" in cometbatch.status(bench.output).describe()
    assert cometbatch.verify(job).ok


@pytest.mark.parametrize("look", [lambda job: cometbatch.status(job).summary])
def test_an_unfinished_retry_says_that_the_result_is_the_earlier_one(
    bench: Workbench, look: Callable[[cometbatch.Job], RunSummary]
) -> None:
    """The result that stands there is named, and as what."""
    carry_out(bench.job(), simulator("length:0.5"))
    poor = bench.job(budget={"max_cost_usd": Decimal("0.0000001")})
    with pytest.raises(cometbatch.BudgetReachedError) as stopped:
        cometbatch.run(poor, retry="length", progress=False, http=simulator())
    for words in (stopped.value.summary.describe(), look(poor).describe()):
        assert f"result: {bench.output} (as it was before --retry: the run is not finished)" in words


def test_connections_are_shown_where_they_are_asked_for(bench: Workbench) -> None:
    """The summary is about rows; how connections were used is for whoever looks for trouble."""
    job = bench.write_job(simulator={"latency_s": 0})
    assert not re.search(r"over \d+ connection", command("run", job).stdout)
    assert re.search(r"over \d+ connection", command("run", job, "--fresh", "--verbose").stdout)


# -- --fresh ---------------------------------------------------------------------------------------------------------


def test_fresh_over_a_finished_run_says_what_it_deletes(bench: Workbench) -> None:
    """It goes on, and names rows and dollars."""
    job = bench.write_job(simulator={"latency_s": 0})
    assert command("run", job, "--fresh").stderr == ""
    done = command("run", job, "--fresh")
    assert done.returncode == 0
    assert re.search(
        r"^--fresh deletes the answers of 12 of 12 rows, which cost \$0\.\d+\.$", done.stderr, re.MULTILINE
    )


@pytest.mark.parametrize("damaged", [False, True])
def test_fresh_over_an_unfinished_run_wants_a_yes(bench: Workbench, damaged: bool) -> None:
    """Where there is no terminal to ask, nothing is deleted without --yes, and the command that resumes is named."""
    job = bench.write_job(simulator={"latency_s": 0}, limits={"concurrency": 2})
    assert command("run", job, "--set", "budget.max_cost_usd=0.0005").returncode == 4
    if damaged:
        (bench.run_directory / "manifest.json").write_bytes(b"{")
    before = files(bench.folder)
    done = command("run", job, "--fresh")
    assert done.returncode == 2
    assert "Nothing was deleted" in done.stderr
    assert f"Continue the run with: cometbatch run {job}\n" in done.stderr
    assert files(bench.folder) == before
    agreed = command("run", job, "--fresh", "--yes")
    assert agreed.returncode == 0
    assert agreed.stderr.startswith("--fresh deletes ")


def test_fresh_of_a_changed_job_names_what_keeps_the_run(bench: Workbench) -> None:
    """The same command without --fresh would be refused, so it is not named; `status` says what to undo, too."""
    job = bench.write_job(simulator={"latency_s": 0}, limits={"concurrency": 2})
    assert command("run", job, "--set", "budget.max_cost_usd=0.0005").returncode == 4
    changes = ("--set", "params.temperature=1", "--set", "prompt.system=Say little.")
    done = command("run", job, "--fresh", *changes)
    assert done.returncode == 2
    assert (
        "To keep it, give output.path another name; or undo the change of params.temperature, prompt, " in done.stderr
    )
    assert "Continue the run with" not in done.stderr
    assert (
        "undo the change of params.temperature, prompt, then continue with" in command("status", job, *changes).stdout
    )
    assert "undo" not in command("status", job).stdout


def test_fresh_without_paid_answers_asks_nobody(bench: Workbench) -> None:
    """A first try that was refused is nothing to keep."""
    job = bench.write_job(simulator={"latency_s": 0})
    assert command("run", job, "--set", "target.model=other").returncode == 5
    assert command("run", job, "--fresh").returncode == 0


def files(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
