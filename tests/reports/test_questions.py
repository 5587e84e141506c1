"""Which rows of several results are the same question, and that others are never compared."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cometbatch.errors import InputError, UsageError
from cometbatch.job.report import ReportSettings
from cometbatch.reports.board import Figures
from cometbatch.reports.figures import figures
from cometbatch.reports.sources import ResultFiles
from cometbatch.results.columns import COLUMNS
from tests.reports.results import NUMERIC, right, write, wrong

INPUTS: dict[str, list[Any]] = {"question": ["one", "two", "three"], "answer": [1, 2, 3], "notes": [["a"], [], None]}


def of(*paths: Path, **settings: Any) -> Figures:
    """The figures of results, called by their files' names."""
    found = figures([ResultFiles(path.name, (path,)) for path in paths], ReportSettings(**settings))
    assert found is not None
    return found


def result(
    path: Path, model: str, words: str, ids: str = "", inputs: dict[str, Any] | None = None, **more: Any
) -> Path:
    """A result of right (1) and wrong answers of a model."""
    names = ids.split() or [f"q{at}" for at in range(len(words))]
    rows = [(right if word == "1" else wrong)(custom_id=name) for word, name in zip(words, names, strict=True)]
    return write(path, [({"model": model}, [rows])], inputs=inputs or INPUTS, has_matrix=False, **more)


def test_rows_go_together_by_their_names(tmp_path: Path) -> None:
    """In whatever order they stand, and also where one result has rows of its own."""
    first = result(tmp_path / "a.parquet", "a", "110", "x y z")
    turned = {"question": ["four", "three", "one"], "answer": [4, 3, 1], "notes": [["x"], None, ["a"]]}
    second = result(tmp_path / "b.parquet", "b", "101", "w z x", turned)
    found = of(first, second)
    assert (found.joined_by, found.by, found.boards[0].questions) == ("custom_id", ("model",), 4)
    (compared,) = found.boards[0].comparisons
    assert (compared.questions, compared.lost) == (2, 2)
    assert (compared.only_line_right, compared.only_baseline_right) == (0, 0)


def test_rows_without_names_go_together_by_their_numbers(tmp_path: Path) -> None:
    """Also where names repeat."""
    paths = [result(tmp_path / f"{model}.parquet", model, "110", "x x z") for model in "ab"]
    found = of(*paths)
    assert (found.joined_by, found.boards[0].comparisons[0].questions) == ("row", 3)


def test_results_of_one_model_are_told_apart_by_their_files(tmp_path: Path) -> None:
    """Two prompts, say."""
    found = of(*(result(tmp_path / f"{name}.parquet", "a", words) for name, words in (("one", "111"), ("two", "100"))))
    assert found.by == ("model", "file")
    assert [line.name for line in found.lines] == ["a, one.parquet", "a, two.parquet"]
    assert found.boards[0].comparisons[0].baseline == "a, one.parquet"


@pytest.mark.parametrize("column", ["question", "answer", "notes"])
def test_other_input_cells_are_refused(tmp_path: Path, column: str) -> None:
    """Texts, right answers and lists: the error names column and row."""
    other = INPUTS | {column: [*INPUTS[column][:2], ["b"] if column == "notes" else type(INPUTS[column][2])(7)]}
    first, second = result(tmp_path / "a.parquet", "a", "110"), result(tmp_path / "b.parquet", "b", "110", "", other)
    words = f"a.parquet and b.parquet differ in the input column '{column}', first in row 2 \\(q2\\) of b.parquet"
    with pytest.raises(InputError, match=words):
        of(first, second)


def test_equal_numbers_of_another_width_are_equal(tmp_path: Path) -> None:
    """A column that only one input has is none of both; one of another kind is refused."""
    narrow = {"question": INPUTS["question"], "answer": pa.array([1, 2, 3], pa.int16()), "extra": ["x", "y", "z"]}
    found = of(result(tmp_path / "a.parquet", "a", "110"), result(tmp_path / "b.parquet", "b", "110", "", narrow))
    assert found.boards[0].comparisons[0].questions == 3
    texts = INPUTS | {"answer": ["1", "2", "3"]}
    with pytest.raises(InputError, match="have other types in the input column 'answer': Int64 and String"):
        of(result(tmp_path / "a.parquet", "a", "110"), result(tmp_path / "c.parquet", "c", "110", "", texts))


def test_scores_made_in_other_ways_are_refused(tmp_path: Path) -> None:
    """Another tolerance is another score; a score that one result lacks is left out."""
    first = result(tmp_path / "a.parquet", "a", "110", scores=[NUMERIC, {"name": "short"}])
    second = result(tmp_path / "b.parquet", "b", "110", scores=[NUMERIC | {"tolerance": "0.1"}])
    with pytest.raises(InputError, match="made the score 'correct' in different ways"):
        of(first, second)
    third = result(tmp_path / "c.parquet", "c", "110")
    assert [board.score for board in of(first, third).boards] == ["correct"]
    with pytest.raises(InputError, match="have no score of the same name"):
        of(first, result(tmp_path / "d.parquet", "d", "110", scores=[{"name": "other"}]))
    with pytest.raises(InputError, match=r"e.parquet has no scores\. Score it first"):
        of(first, result(tmp_path / "e.parquet", "e", "110", scores=[]))


def test_one_result_named_twice_is_refused(tmp_path: Path) -> None:
    """It would be compared with itself."""
    path = result(tmp_path / "a.parquet", "a", "110")
    with pytest.raises(UsageError, match="The same result is named twice"):
        of(path, path)


def test_a_matrix_is_compared_with_a_plain_result(tmp_path: Path) -> None:
    """Each row of the matrix' input is one question, however many slices have it; row groups may end anywhere."""
    labels = [{"model": model, "format": "chat"} for model in ("a", "b")]
    cells = [(each, [[right(), wrong(), wrong()]] * 3) for each in labels]
    matrix = write(tmp_path / "m.parquet", cells, inputs=INPUTS, group_rows=2)
    found = of(matrix, result(tmp_path / "c.parquet", "c", "111"), groups="answer")
    assert found.boards[0].questions == 3
    assert {line.name: line.questions for line in found.boards[0].lines} == {"a": 3, "b": 3, "c": 3}
    assert [each.questions for each in found.boards[0].comparisons] == [3, 3]


def test_the_input_may_have_columns_called_like_those_of_the_output(tmp_path: Path) -> None:
    """Its own `custom_id`, wherever it stands, and a `target`: columns behind them are the input's, too."""
    inputs: dict[str, list[Any]] = {"custom_id": ["x", "y"], "target": [5, 6], "answer": ["1", "2"]}
    columns = [column for column in COLUMNS if column.name != "custom_id"]
    other, rows = inputs | {"answer": ["1", "3"]}, [[right(), wrong()]]
    paths = [
        write(tmp_path / f"{name}.parquet", [({"model": name}, rows)], inputs=given, has_matrix=False, columns=columns)
        for name, given in (("a", inputs), ("b", inputs), ("c", other))
    ]
    found = of(*paths[:2], groups="answer")
    assert (found.joined_by, found.by, found.boards[0].questions) == ("custom_id", ("model",), 2)
    with pytest.raises(InputError, match="differ in the input column 'answer', first in row 1"):
        of(paths[0], paths[2])
