"""Sections `score`, `choices` and `report` of a job: what is read, what is refused and where, what a run remembers."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cometbatch.errors import JobError
from cometbatch.job import Job, load_job
from cometbatch.job.report import ReportSettings
from cometbatch.job.score_keys import COMMON_KEYS, OPTION_KEYS, SCORER_KEYS, keys_of
from cometbatch.job.scores import SCORER_OPTIONS, SCORERS, ScoreSettings

JOB = """\
input:  {path: in.parquet}
output: {path: out.parquet}
target: {format: chat, model: m}
prompt: {user: "%s"}
"""
SHOWS = "{{ q }} {{ choices | lettered }}"


def read(tmp_path: Path, more: str, prompt: str = "{{ q }}", *overrides: str) -> Job:
    """The job of a file that ends so."""
    (tmp_path / "in.parquet").touch()
    (tmp_path / "job.yaml").write_text(JOB % prompt + more, encoding="utf-8")
    return load_job(tmp_path / "job.yaml", overrides)


def score(tmp_path: Path, words: str) -> ScoreSettings:
    """One score that a job file says so."""
    (found,) = read(tmp_path, f"score:\n  s: {words}\n").scores
    return found


def test_a_score_has_a_name_a_scorer_and_its_gold(tmp_path: Path) -> None:
    """In the order of the job; each is told with file and line in messages."""
    job = read(tmp_path, "score:\n  correct: {numeric: answer, gold: marker}\n  short: {python: 'mine:brevity'}\n")
    correct, short = job.scores
    assert (correct.name, correct.scorer, correct.gold, correct.form) == ("correct", "numeric", "answer", "marker")
    assert (short.scorer, short.entry, short.folder) == ("python", "mine:brevity", tmp_path)
    assert correct.where == f"{tmp_path / 'job.yaml'}:6: score.correct"


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("{numeric: a, tolerance: 0.5}", "tolerance", Decimal("0.5")),
        ("{numeric: a, relative: 1e-3}", "relative", Decimal("0.001")),
        ("{numeric: a, decimal: comma}", "decimal", "comma"),
        ("{numeric: a, percent: divide}", "percent", "divide"),
        ("{label: a, labels: [no, yes, 3]}", "labels", ("no", "yes", "3")),
        ('{regex: a, pattern: "Final: (\\\\w+)"}', "pattern", r"Final: (\w+)"),
        ("{json: a, coerce: true}", "coerce", True),
        ("{json: a, unordered: true}", "unordered", True),
        ("{token_f1: a, tokens: characters}", "tokens", "characters"),
        ("{normalized: a.b, no_answer: unknown}", "no_answer", "unknown"),
        ("{exact: a, incomplete: score}", "incomplete", "score"),
        ("{contains: a, skip_missing: true}", "skip_missing", True),
        ('{exact: "{{ a|upper }}"}', "gold", "{{ a|upper }}"),
    ],
)
def test_each_option_is_read(tmp_path: Path, words: str, field: str, value: object) -> None:
    """YAML's `no` and `yes` are labels here, and no truth values."""
    assert getattr(score(tmp_path, words), field) == value


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("{numeric: a, exact: b}", "expected one scorer, found numeric and exact: give each a score of its own"),
        ("{nummeric: a}", "expected one scorer of .*, found none; did you mean 'numeric'\\?"),
        ("{numeric: a, tolerence: 1}", "tolerence: unknown key; did you mean 'tolerance'\\?"),
        ("{numeric: a, labels: [x, y]}", "labels: has a meaning only with label, and not with numeric"),
        ("{numeric: a, tolerance: -1}", "tolerance: expected a number from 0"),
        ("{regex: a}", "pattern is missing"),
        ("{label: a}", "labels is missing"),
        ("{exact: a, gold: letter}", "gold: letter has a meaning only with choice"),
        ("{numeric: a, gold: index}", "gold: index has a meaning only with choice or label"),
        ('{exact: "{{ a "}', "exact: in the template: "),
        ('{python: "mine"}', 'python: expected "module:function"'),
        ('{python: "mine:f", gold: value}', "gold: has no meaning with python"),
        ("numeric", "expected a mapping, such as"),
        ("", "found nothing: expected a scorer"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, words: str, problem: str) -> None:
    """All in the words of a person who has the file open."""
    with pytest.raises(JobError, match=rf"job\.yaml:6: score\.s.*{problem}"):
        score(tmp_path, words)


@pytest.mark.parametrize("name", ["a b", "1st", "x" * 61, "ä-b", "''"])
def test_a_score_is_named_like_a_column(tmp_path: Path, name: str) -> None:
    """Its three columns are called by it."""
    with pytest.raises(JobError, match="the name of a score"):
        read(tmp_path, f"score:\n  {name}: {{exact: a}}\n")


def test_a_report_is_of_scores_that_are_there(tmp_path: Path) -> None:
    """Labels are as they are written, also those that YAML takes for numbers."""
    found = read(tmp_path, "score: {s: {exact: a}}\nreport: {score: s, by: [model, temperature], baseline: 0}\n").report
    assert found == ReportSettings(score="s", by=("model", "temperature"), baseline="0")
    with pytest.raises(JobError, match=r"report.score: there is no score 'sss'; the scores are s"):
        read(tmp_path, "score: {s: {exact: a}}\nreport: {score: sss}\n")
    with pytest.raises(JobError, match="report: has a meaning only with the section score"):
        read(tmp_path, "report: {by: model}\n")


def test_scores_and_reports_are_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    """They change no request, and a run's description of its job is what it was before."""
    plain = read(tmp_path, "")
    scored = read(tmp_path, "score: {s: {exact: a}}\nreport: {baseline: x}\nchoices: {labels: [A, B]}\n")
    assert scored.fingerprint() == plain.fingerprint()
    assert scored.describe() == plain.describe()


def test_choices_that_a_prompt_shows_are_part_of_it(tmp_path: Path) -> None:
    """Another order is another prompt; choices that no template names change nothing."""
    one, other = (read(tmp_path, f"choices: {{columns: ends, shuffle: {seed}}}\n", SHOWS) for seed in (1, 2))
    assert one.fingerprint() != other.fingerprint()
    assert one.fingerprint()["prompt.choices"] == {"columns": ["ends"], "shuffle": 1}
    again = Job.from_description(one.describe())
    assert again.fingerprint() == one.fingerprint()
    assert "prompt.choices" not in read(tmp_path, "choices: {columns: ends}\n").fingerprint()


def test_an_order_that_no_prompt_shows_is_refused(tmp_path: Path) -> None:
    """It would be scored, and never asked."""
    with pytest.raises(JobError, match=r"choices.shuffle: the prompt does not show this order: write"):
        read(tmp_path, "choices: {columns: ends, shuffle: 1}\n")
    with pytest.raises(JobError, match=r"choices.shuffle: has a meaning only with choices.columns"):
        read(tmp_path, "choices: {labels: [A, B], shuffle: 1}\n", SHOWS)


def test_a_job_from_a_pipe_brings_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody saw in which folder its module would be looked for."""
    text = (JOB % "{{ q }}") + 'score: {s: {python: "mine:f"}}\n'
    (tmp_path / "text").write_text(text, encoding="utf-8")
    with (tmp_path / "text").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        with pytest.raises(JobError, match="from standard input or a pipe may have no Python scorer"):
            load_job("-")


def test_a_set_on_the_command_line_needs_no_quotes(tmp_path: Path) -> None:
    """A gold column is a text, whatever it looks like."""
    job = read(tmp_path, "score: {s: {exact: a}}\n", "{{ q }}", "score.s.exact=2024", "report.baseline=0.5")
    assert (job.scores[0].gold, job.report.baseline) == ("2024", "0.5")


def test_every_scorer_and_option_has_a_key() -> None:
    """The table of options is one: what a scorer reads is what a job can say."""
    assert tuple(SCORER_KEYS) == SCORERS == tuple(SCORER_OPTIONS)
    assert {name for options in SCORER_OPTIONS.values() for name in options} == set(OPTION_KEYS)
    fields = set(ScoreSettings.__struct_fields__)
    assert set(OPTION_KEYS) | set(COMMON_KEYS) <= fields
    assert all(keys_of(scorer).keys() >= {scorer, *COMMON_KEYS} for scorer in SCORERS)


def test_what_a_result_says_of_a_score_reads_back() -> None:
    """Paths of the job's machine are no part of it."""
    settings = ScoreSettings(
        "s", "numeric", "a", tolerance=Decimal("0.5"), folder=Path("/x"), place="job.yaml:3: score.s"
    )
    said: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(settings.described()))
    assert msgspec.convert(said, ScoreSettings) == msgspec.structs.replace(settings, folder=None, place="")
    assert "/x" not in str(said)
