"""Golds and choices in the layouts of public evaluation sets: found where the job says, refused with their row."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.commands.scoring import scoring_of
from cometbatch.errors import UsageError
from cometbatch.evaluation.score_columns import ScoreColumns
from cometbatch.job import Job, load_job
from cometbatch.prompt.questions import ChoiceSettings, question
from cometbatch.prompt.template import compile_prompt
from cometbatch.records import Failure

FOUR = ["Lima", "Oslo", "Rome", "Kyiv"]
STRUCT = {"text": FOUR, "label": ["A", "B", "C", "D"]}


def job_of(
    folder: Path, rows: list[dict[str, Any]], score: dict[str, Any], choices: dict[str, Any] | None = None
) -> Job:
    """A job over these rows."""
    pq.write_table(pa.Table.from_pylist(rows), folder / "in.parquet")
    shown = " {{ choices | lettered }}" if choices and "shuffle" in choices else ""
    settings: dict[str, Any] = {
        "input": {"path": str(folder / "in.parquet")},
        "output": {"path": str(folder / "out.parquet")},
        "target": {"base_url": "simulator", "format": "chat", "model": "comet-sim-1"},
        "prompt": {"user": "{{ question }}" + shown},
        "score": {"s": score},
    }
    return load_job(settings | ({"choices": choices} if choices else {}))


def values_of(job: Job, answers: list[str]) -> list[Any]:
    """What these answers score, one for each row."""
    table = pq.read_table(job.input.path)
    scoring = scoring_of(job, table.schema)
    assert scoring is not None
    for name, cells in (("status", "succeeded"), ("finish_reason", "stop")):
        table = table.append_column(name, pa.array([cells] * len(answers)))
    table = table.append_column("response", pa.array(answers))
    made: ScoreColumns = scoring.load(str)
    found: list[Any] = made.cells(table, range(len(answers)))[0].to_pylist()
    return found


LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None, str, str]] = {
    "MMLU": ({"choices": FOUR, "answer": 2}, {"choice": "answer", "gold": "index"}, None, "ANSWER: C", "ANSWER: A"),
    "ARC": ({"choices": STRUCT, "answerKey": "B"}, {"choice": "answerKey"}, None, "(B)", "(C)"),
    "ARC with digits": (
        {"choices": {"text": FOUR, "label": ["1", "2", "3", "4"]}, "answerKey": "2"},
        {"choice": "answerKey"},
        None,
        "Answer: 2",
        "Answer: 1",
    ),
    "HellaSwag": (
        {"endings": FOUR, "label": "3"},
        {"choice": "label", "gold": "index"},
        {"columns": "endings"},
        "ANSWER: D",
        "ANSWER: C",
    ),
    "HellaSwag, found by itself": (
        {"endings": FOUR, "label": "3"},
        {"choice": "label", "gold": "index"},
        None,
        "ANSWER: D",
        "ANSWER: C",
    ),
    "GSM8K": (
        {"answer": "6 * 7 = <<6*7=42>>42\n#### 1,042"},
        {"numeric": "answer", "gold": "marker"},
        None,
        "so it is 1042",
        "it is 42",
    ),
    "BoolQ": (
        {"label": 1},
        {"label": "label", "gold": "index", "labels": ["no", "yes"]},
        None,
        "Yes, surely.",
        "No.",
    ),
    "BoolQ with truth values": (
        {"answer": True},
        {"label": "answer", "labels": ["no", "yes"]},
        None,
        "Yes.",
        "No.",
    ),
    "CommonsenseQA": (
        {"choices": {"label": ["A", "B", "C", "D"], "text": FOUR}, "answerKey": "D"},
        {"choice": "answerKey"},
        None,
        "D",
        "A",
    ),
    "TruthfulQA": (
        {"mc1_targets": {"choices": FOUR, "labels": [1, 0, 0, 0]}},
        {"choice": "mc1_targets.labels", "gold": "flags"},
        {"columns": "mc1_targets.choices"},
        "ANSWER: A",
        "ANSWER: B",
    ),
    "TruthfulQA with two choices": (
        {"mc1_targets": {"choices": ["Lima", "Oslo"], "labels": [0, 1]}},
        {"choice": "mc1_targets.labels", "gold": "flags"},
        {"columns": "mc1_targets.choices"},
        "ANSWER: B",
        "ANSWER: A",
    ),
    "TriviaQA": (
        {"answer": {"value": "Kyiv", "aliases": ["Kiev", "Kyiv"]}},
        {"normalized": "answer.aliases"},
        None,
        "Kiev.",
        "Lviv",
    ),
    "SQuAD v2": (
        {"answers": {"text": ["Kyiv", "in Kyiv"], "answer_start": [0, 7]}},
        {"normalized": "answers.text"},
        None,
        "in Kyiv",
        "Lviv",
    ),
    "SQuAD v2 without an answer": (
        {"answers": {"text": pa.array([], pa.string()).to_pylist(), "answer_start": [0]}},
        {"normalized": "answers.text", "no_answer": "unanswerable"},
        None,
        "Unanswerable",
        "Kyiv",
    ),
    "SQuAD v2 as a list of structures": (
        {"answers": [{"text": "Kyiv", "start": 0}]},
        {"normalized": "answers.text"},
        None,
        "kyiv",
        "Lviv",
    ),
    "GPQA": (
        dict(zip(("Correct Answer", *(f"Incorrect Answer {at}" for at in (1, 2, 3))), FOUR, strict=True)),
        {"choice": "Correct Answer"},
        {"columns": ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]},
        "ANSWER: A",
        "ANSWER: B",
    ),
    "MMLU-Pro": (
        {"options": [*FOUR, "Bern", "Cork"], "answer": "F", "answer_index": 5},
        {"choice": "answer"},
        {"columns": "options"},
        "The answer is (F).",
        "The answer is (E).",
    ),
    "choices as JSON text": (
        {"choices": '["Lima", "Oslo"]', "answer": "1"},
        {"choice": "answer", "gold": "index"},
        None,
        "B",
        "A",
    ),
    "letters alone": ({"answer": "b"}, {"choice": "answer"}, {"labels": ["A", "B"]}, "(B)", "(A)"),
    "a template": ({"a": "4", "b": "2"}, {"numeric": "{{ a }}{{ b }}"}, None, "42", "24"),
    "a path through JSON text": ({"answer": '{"value": "Kyiv"}'}, {"exact": "answer.value"}, None, "Kyiv", "Kiev"),
    "a column with a point in its name": ({"answer.value": "Kyiv"}, {"exact": "answer.value"}, None, "Kyiv", "Kiev"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gold_is_found_in_each_layout(tmp_path: Path, layout: str) -> None:
    """With a right answer and a wrong one."""
    row, score, choices, right, wrong = LAYOUTS[layout]
    job = job_of(tmp_path, [{"question": "?"} | row] * 2, score, choices)
    assert values_of(job, [right, wrong]) == [1.0, 0.0]


def test_an_index_of_0_is_a_gold(tmp_path: Path) -> None:
    """And no missing one."""
    job = job_of(tmp_path, [{"question": "?", "choices": FOUR, "answer": 0}], {"choice": "answer", "gold": "index"})
    assert values_of(job, ["A"]) == [1.0]


# ---------------------------------------------------------------- shuffled


def test_shuffled_choices_are_scored_in_the_order_that_the_prompt_shows(tmp_path: Path) -> None:
    """Which depends on the seed and on the choices alone: all models and samples see the same."""
    rows = [{"question": "?", "choices": [f"{word} {number}" for word in FOUR], "answer": 0} for number in range(40)]
    job = job_of(tmp_path, rows, {"choice": "answer", "gold": "index"}, {"columns": "choices", "shuffle": 3})
    template = job.prompt_template_for(job.targets()[0], list(rows[0]))
    shown = [str(template.render(row)[0].content[0].text) for row in rows]  # type: ignore[index]
    letters = [
        next(line[2] if line[0] == "?" else line[0] for line in text.splitlines() if "Lima" in line) for text in shown
    ]
    assert set(letters) == set("ABCD")
    assert values_of(job, [f"ANSWER: {letter}" for letter in letters]) == [1.0] * 40
    assert question(ChoiceSettings(shuffle=3), rows[5]) == question(ChoiceSettings(shuffle=3), dict(rows[5], other=1))
    assert question(ChoiceSettings(shuffle=3), rows[5]) != question(ChoiceSettings(shuffle=4), rows[5])


def test_a_gold_by_its_letter_moves_with_its_text(tmp_path: Path) -> None:
    """Labels keep their places, texts move."""
    rows = [{"question": "?", "choices": [f"{word} {number}" for word in FOUR], "answer": "D"} for number in range(9)]
    for score in ({"choice": "answer"}, {"choice": "answer", "gold": "letter"}):
        job = job_of(tmp_path, rows, score, {"columns": "choices", "shuffle": 1})
        answers = [
            next(each.label for each in question(ChoiceSettings(shuffle=1), row) if "Kyiv" in each.text) for row in rows
        ]
        assert values_of(job, answers) == [1.0] * 9


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("score", "choices", "words"),
    [
        ({"choice": "anser"}, None, r"score\.s\.choice: no column 'anser' in the input, did you mean 'answer'\?"),
        ({"exact": "more.valeu"}, None, r"score\.s: more\.valeu: there is no field 'valeu'; did you mean 'value'\?"),
        ({"exact": "answer.x"}, None, r"score\.s: answer\.x: a value of type int64 has no field 'x'"),
        (
            {"choice": "answer"},
            {"columns": "chioces"},
            r"score\.s: choices\.columns: no column 'chioces' in the input",
        ),
        ({"numeric": "{{ anser }}"}, None, r"score\.s\.numeric: no column 'anser' in the input"),
        (
            {"label": "question", "labels": ["not spam", "Not-Spam"]},
            None,
            r"score\.s: the labels 'not spam' and 'Not-Spam' can't be told apart",
        ),
        ({"regex": "question", "pattern": "(?=x)"}, None, r"score\.s\.pattern: look-around.* not supported"),
        ({"python": "nobody_has_this:f"}, None, r"score\.s: there is no module nobody_has_this"),
    ],
)
def test_what_the_table_lacks_is_told_before_anything_is_sent(
    tmp_path: Path, score: dict[str, Any], choices: dict[str, Any] | None, words: str
) -> None:
    """With the nearest name."""
    rows = [{"question": "?", "choices": FOUR, "answer": 1, "more": {"value": 1}}]
    with pytest.raises(UsageError, match=words):
        cometbatch.plan(job_of(tmp_path, rows, score, choices))


def test_a_missing_gold_refuses_the_job_with_its_row(tmp_path: Path) -> None:
    """The first, and how many more there are; with skip_missing, such rows have no score and `plan` counts them."""
    rows: list[dict[str, Any]] = [{"question": f"? {at}", "answer": None if at % 3 else "x"} for at in range(6)]
    with pytest.raises(
        UsageError, match=r"score\.s: row 1 has no gold \(and 3 more rows\)\. Put it right, or set skip"
    ):
        cometbatch.plan(job_of(tmp_path, rows, {"exact": "answer"}))
    plan = cometbatch.plan(job_of(tmp_path, rows, {"exact": "answer", "skip_missing": True}))
    assert any("4 rows without gold will have no score" in warning for warning in plan.warnings)
    job = job_of(tmp_path, rows, {"exact": "answer", "skip_missing": True})
    assert values_of(job, ["x"] * 6) == [1.0, None, None, 1.0, None, None]


def test_a_gold_that_cannot_be_read_refuses_the_job_with_its_row(tmp_path: Path) -> None:
    """An index beyond the choices, a solution without a marker."""
    rows = [{"question": "?", "choices": FOUR, "answer": 0}, {"question": "!", "choices": FOUR, "answer": 4}]
    with pytest.raises(UsageError, match=r"score\.s: row 1: there is no choice at 4"):
        cometbatch.plan(job_of(tmp_path, rows, {"choice": "answer", "gold": "index"}))
    with pytest.raises(UsageError, match=r"row 0: there is no #### in"):
        cometbatch.plan(job_of(tmp_path, [{"question": "?", "answer": "42"}], {"numeric": "answer", "gold": "marker"}))


def test_plan_warns_where_the_right_choice_is_always_at_the_same_place(tmp_path: Path) -> None:
    """As in TruthfulQA; a shuffled order has none."""
    rows = [{"question": f"? {at}", "choices": [f"{word} {at}" for word in FOUR], "answer": 0} for at in range(40)]
    score = {"choice": "answer", "gold": "index"}
    warnings = cometbatch.plan(job_of(tmp_path, rows, score)).warnings
    assert any("in 40 of 40 rows the right choice is at place 1" in words for words in warnings)
    plan = cometbatch.plan(job_of(tmp_path, rows, score, {"columns": "choices", "shuffle": 7}))
    assert not any("at place" in words for words in plan.warnings)


@pytest.mark.parametrize("name", ["lettered", "labels"])
def test_choices_that_a_row_does_not_have_are_named(name: str) -> None:
    """As without the filter: whoever reads the message knows which field to look for."""
    made = compile_prompt([("user", f"{{{{ targets.choices | {name} }}}}")]).render({"targets": '{"choices": [1]}'})
    assert isinstance(made, Failure)
    assert "has no attribute 'choices'" in made.message
