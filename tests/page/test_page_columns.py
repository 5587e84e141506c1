"""Which columns a page has: by the layout of a result, never by what a name looks like."""

import json
from pathlib import Path

import pyarrow as pa

from cometbatch.commands.leaderboard import result_at
from cometbatch.reports.page.page_columns import Columns
from tests.page import results
from tests.page.memory_results import MemoryResult, encoded, result_table

SCORES = {
    "cometbatch.scores": json.dumps([{"name": "right", "gold": "answer"}, {"name": "near", "gold": "facts.value"}])
}


def named(columns: Columns) -> dict[str, tuple[str, str, str]]:
    """Title, kind and group of each column."""
    return {each.name: (each.title, each.kind, each.group) for each in columns.described}


def test_an_input_may_be_called_like_our_columns() -> None:
    """With a prefix before the output's, `status` is the input's own column, and both are shown."""
    inputs = {name: pa.array([f"my {name}"]) for name in ("status", "response", "model", "score:x", "file")}
    columns, (row,) = encoded([MemoryResult(result_table(1, inputs, {"response": ["hello"]}, prefix="out_"))])
    found = named(columns)
    assert found["status"] == ("out_status", "word", "outcome")
    assert found["input:status"] == ("status", "short", "input")
    assert (row.short["status"], row.short["input:status"]) == ("succeeded", "my status")
    assert row.texts["response"] is not None
    assert row.texts["response"].text == "hello"
    assert row.short["input:response"] == "my response"
    assert row.short["file"] == "out.parquet"


def test_each_title_is_there_once() -> None:
    """A CSV or JSON of a row has no name twice: the input keeps its names, the page's own give way."""
    inputs = {name: pa.array([f"my {name}"]) for name in ("file", "prompt", "cometbatch.prompt")}
    columns = Columns.of([MemoryResult(result_table(1, inputs))], has_prompts=True)
    found = named(columns)
    assert [found[name][0] for name in ("file", "prompt", "ordinal", "input:prompt")] == [
        "cometbatch.file", "cometbatch.cometbatch.prompt", "ordinal", "prompt",
    ]  # fmt: skip
    assert len({title for title, _, _ in found.values()}) == len(found)


def test_scores_and_answers_own_columns() -> None:
    """Scores are those that the metadata name; what else follows the output is typed, whatever it is called."""
    further = {
        "sentiment": pa.array(["good", "bad"] * 50),
        "right_why": pa.array([None, "no number"] * 50, pa.string()),
        "right": pa.array([1.0, None] * 50),
        "near": pa.array([1.0] * 100),
        "right_answer": pa.array([f"{number}" for number in range(100)]),
        "tags": pa.array([["a"], []] * 50),
        "right_whynot": pa.array([True, False] * 50),
    }
    inputs = {"answer": pa.array(["4"] * 100), "facts": pa.array([{"value": 4}] * 100)}
    columns, rows = encoded([MemoryResult(result_table(100, inputs, further=further, metadata=SCORES))])
    found = named(columns)
    assert found["typed:sentiment"] == ("sentiment", "word", "typed")
    assert found["typed:tags"] == ("tags", "text", "typed")
    assert found["typed:right_whynot"] == ("right_whynot", "word", "typed")
    assert found["score:right"] == ("right", "number", "score")
    assert found["score:right_answer"] == ("right_answer", "short", "score")
    assert found["score:right_why"] == ("right_why", "word", "score")
    assert columns.golds == {"right": "input:answer", "near": "input:facts"}
    assert rows[1].short["score:right_why"] == "no number"


def test_several_results_make_one_page() -> None:
    """The page has the columns of all of them; what a result lacks is null; the wider kind holds both."""
    one = result_table(1, {"n": pa.array([5]), "a": pa.array(["x"])}, {"reported_cost_usd": [None]})
    other = result_table(1, {"n": pa.array(["five"]), "b": pa.array(["y" * 81])})
    columns, rows = encoded([MemoryResult(one, "one.parquet"), MemoryResult(other, "other.parquet")])
    found = named(columns)
    assert found["input:n"] == ("n", "short", "input")
    assert [row.short["input:n"] for row in rows] == ["5", "five"]
    assert [row.short["input:a"] for row in rows] == ["x", None]
    assert [row.short["input:b"] for row in rows] == [None, 81]
    assert [row.short["file"] for row in rows] == ["one.parquet", "other.parquet"]


def test_a_matrix(tmp_path: Path) -> None:
    """Axes and the number of the sample are columns of the call; an axis with one label is none."""
    columns = Columns.of([result_at(results.evaluated(tmp_path, 4))], has_prompts=True)
    found = named(columns)
    assert found["model"] == ("model", "word", "call")
    assert found["sample"] == ("sample", "number", "call")
    assert found["row"] == ("row", "number", "call")
    assert "axis:format" not in found
    assert "typed:model" not in found
    assert "input:model" not in found
    assert [name for name, (_, _, group) in found.items() if group == "input"] == [
        "input:question", "input:choices", "input:answer", "input:subject",
    ]  # fmt: skip
    assert list(found)[:5] == ["file", "ordinal", "row", "custom_id", "model"]
    assert found["prompt"] == ("prompt", "text", "text")


def test_a_row_s_own_model() -> None:
    """The model is the one that the row was asked of, by the number of its target."""
    targets = json.dumps([{"target": {"model": "a"}}, {"target": {"model": "b"}}])
    table = result_table(3, further={"target": pa.array([1, 0, 7])}, metadata={"cometbatch.targets": targets})
    columns, rows = encoded([MemoryResult(table)])
    assert [row.short["model"] for row in rows] == ["b", "a", None]
    assert "typed:target" not in named(columns)


def test_the_name_of_a_row_stays_a_column_of_the_input() -> None:
    """Where the input calls its names `custom_id`, that column is shown once."""
    columns, rows = encoded([MemoryResult(result_table(1, {"custom_id": pa.array([7])}))])
    assert rows[0].short["custom_id"] == "7"
    assert "input:custom_id" not in named(columns)
