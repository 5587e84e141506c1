"""The evaluation of the page: the numbers and words of `compare`, and a heat map that stays small."""

import base64
import json
import random
import struct
import subprocess
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cometbatch.job.report import ReportSettings
from cometbatch.reports import words
from cometbatch.reports.figures import EXTRA, figures
from cometbatch.reports.page.evaluation import LEVELS, MAX_QUESTIONS, NO_ANSWER, evaluation_of
from cometbatch.reports.sources import ResultFiles
from tests.reports.results import NUMERIC, failed, incomplete, right, write, wrong

MODELS = ("model-a", "model-b", "model-c")


def cell(model: str, marks: str) -> tuple[dict[str, str], list[list[dict[str, Any]]]]:
    """A cell of right (1), wrong (0), refused (r) and failed (f) answers."""
    made = {"1": right, "0": wrong, "r": incomplete, "f": failed}
    return {"model": model, "format": "chat"}, [[made[mark]() for mark in marks]]


def of(*paths: Path, **settings: Any) -> dict[str, Any]:
    """The evaluation of results, which a page can hold as JSON."""
    found = evaluation_of([ResultFiles(path.name, (path,)) for path in paths], ReportSettings(**settings))
    assert found is not None
    return json.loads(json.dumps(found, allow_nan=False))  # type: ignore[no-any-return]


def scores_of(heat: dict[str, Any]) -> list[list[float | None]]:
    """The mean scores of a heat map: for each line, for each question that is shown."""
    raw = base64.b64decode(heat["scores"])
    levels = struct.unpack(f"<{len(raw) // 2}H", raw)
    width = heat["high"] - heat["low"]
    means = [None if level == NO_ANSWER else heat["low"] + level / LEVELS * width for level in levels]
    return [means[at : at + heat["shown"]] for at in range(0, len(means), heat["shown"])]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three models on ten questions of two subjects."""
    cells = [
        cell("model-a", "1100101r10"),
        cell("model-b", "11f1101111"),
        cell("model-c", "0000100rc0".replace("c", "0")),
    ]
    inputs = {"answer": list("abcdefghij"), "subject": ["x"] * 5 + ["y"] * 5}
    return write(tmp_path / "three.parquet", cells, inputs=inputs)


def test_the_numbers_are_those_of_compare(three: Path) -> None:
    """The figures are the same at full precision; each text stands in what `compare` prints."""
    settings = ReportSettings(baseline="model-a", groups="subject")
    found = of(three, baseline="model-a", groups="subject")
    same = figures([ResultFiles(three.name, (three,))], settings)
    assert same is not None
    assert found["figures"] == json.loads(json.dumps(same.to_dict()))
    printed = same.describe(10_000)
    (board,) = found["boards"]
    for cells in board["cells"]:
        row = next(
            line for line in printed.splitlines() if line.startswith(found["lines"][cells["line"]]["name"] + " ")
        )
        for name in ("score", "interval", "answered", "unscored", "cost_of_right", "tokens", "p50_s", "p95_s"):
            assert f" {cells[name]}" in row, name
    for each in board["comparisons"]:
        assert each["difference"] in printed
        assert each["tested"] in printed
    assert board["precision"] in printed
    assert all(sentence in printed for sentence in board["sentences"])
    assert board["head"] == printed.splitlines()[0]
    assert board["groups"][0] == ["subject", "questions", "model-b", "model-a", "model-c"]


def test_a_line_is_found_by_its_labels(three: Path) -> None:
    """Labels stand by the page's columns; each line of a board names its place among all lines."""
    found = of(three, by=("model", "format"))
    assert found["lines"][1]["labels"] == {"model": "model-b", "axis:format": "chat"}
    board = found["boards"][0]
    assert [cells["line"] for cells in board["cells"]] == [1, 0, 2]
    assert board["baseline"] == 1
    assert board["gold"] == "input:answer"


def test_the_heat_map_has_the_mean_of_each_question_and_cell(tmp_path: Path) -> None:
    """Incomplete answers count 0; a question without an answer that counts has none; samples are taken together."""
    labels = {"model": "model-a", "format": "chat"}
    samples = [[right(), wrong(), incomplete(), failed()], [right(), right(), right(), failed()]]
    other = ({"model": "model-b", "format": "chat"}, [[wrong(), wrong(), right(), right()]] * 2)
    heat = of(write(tmp_path / "a.parquet", [(labels, samples), other]))["boards"][0]["heat"]
    by_question = dict(zip(heat["questions"], zip(*scores_of(heat), strict=True), strict=True))
    assert by_question == {0: (1.0, 0.0), 1: (0.5, 0.0), 2: (0.5, 1.0), 3: (None, 1.0)}
    assert (heat["shown"], heat["of"], heat["disagreeing"]) == (4, 4, 3)
    assert heat["questions"][0] == 0, "where lines disagree most comes first"
    assert heat["rows"] == [None]


def test_scores_beyond_0_and_1_have_a_scale_of_their_own(tmp_path: Path) -> None:
    """The map reaches from the lowest to the highest score, and to 0, which an incomplete answer counts."""
    rows = [{"score": value} for value in (5.0, 20.0, 12.5)] + [incomplete()]
    heat = of(write(tmp_path / "a.parquet", [({"model": "m"}, [rows])]))["boards"][0]["heat"]
    assert (heat["low"], heat["high"]) == (0.0, 20.0)
    (means,) = scores_of(heat)
    assert dict(zip(heat["questions"], means, strict=True)) == {0: 5.0, 1: 20.0, 2: 12.5, 3: 0.0}


def test_a_large_heat_map_says_what_it_shows(tmp_path: Path) -> None:
    """Of many questions, those stay on which cells disagree, and the hardest of the others."""
    chance = random.Random(3)
    marks = ["".join(chance.choice("0111") for _ in range(3_000)) for _ in MODELS[:2]]
    path = write(tmp_path / "a.parquet", [cell(model, each) for model, each in zip(MODELS, marks, strict=False)])
    heat = of(path)["boards"][0]["heat"]
    differ = {at for at, pair in enumerate(zip(*marks, strict=True)) if len(set(pair)) > 1}
    wrong_twice = {at for at, pair in enumerate(zip(*marks, strict=True)) if pair == ("0", "0")}
    shown = set(heat["questions"])
    assert (heat["shown"], heat["of"], len(shown)) == (MAX_QUESTIONS, 3_000, MAX_QUESTIONS)
    assert heat["disagreeing"] == len(differ)
    assert differ | wrong_twice <= shown
    assert heat["words"].startswith("2,000 of 3,000 questions with an answer: those where cells disagree most")


def test_results_are_joined_by_their_names(tmp_path: Path) -> None:
    """Each result has its own numbers of rows; the map names the rows of each."""
    first = write(tmp_path / "a.parquet", [({"model": "m"}, [[right(), wrong(), wrong()]])], has_matrix=False)
    rows = [right(custom_id="q2"), wrong(custom_id="q0"), right(custom_id="q9")]
    inputs = {"answer": ["2", "0", "9"], "question": ["What is 2?", "What is 0?", "What is 9?"]}
    second = write(tmp_path / "b.parquet", [({"model": "m"}, [rows])], inputs=inputs, has_matrix=False)
    found = of(first, second)
    assert [line["labels"] for line in found["lines"]] == [
        {"model": "m", "file": "a.parquet"},
        {"model": "m", "file": "b.parquet"},
    ]
    heat = found["boards"][0]["heat"]
    assert heat["rows"][0] is None
    assert dict(zip(heat["questions"], heat["rows"][1], strict=True)) == {0: 1, 1: -1, 2: 0, 3: 2}


def test_results_that_do_not_fit_are_a_sentence(tmp_path: Path, three: Path) -> None:
    """The page is made all the same, and says why it has no leaderboard."""
    paths = [
        write(tmp_path / f"{name}.parquet", [cell("m", "10")], inputs={"question": [name, "?"]}) for name in ("a", "b")
    ]
    (problem,) = of(*paths).values()
    assert "these are not the same questions" in problem
    assert "no line is called 'x'" in of(three, baseline="x")["problem"]


def test_what_has_no_scores_has_no_evaluation(tmp_path: Path) -> None:
    """Nothing is loaded for it that statistics need; numpy is pyarrow's own wish."""
    path = write(tmp_path / "a.parquet", [cell("m", "10")], scores=())
    code = (
        "import sys; from pathlib import Path\n"
        "from cometbatch.job.report import ReportSettings\n"
        "from cometbatch.reports.page.evaluation import evaluation_of\n"
        "from cometbatch.reports.sources import ResultFiles\n"
        f"assert evaluation_of([ResultFiles('a', (Path({str(path)!r}),))], ReportSettings()) is None\n"
        "assert not {'scipy', 'cometbatch.reports.inference'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_extra_there_are_scores(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither intervals nor comparisons; the page says what to install."""
    monkeypatch.delitem(sys.modules, "cometbatch.reports.inference", raising=False)
    for name in EXTRA:
        monkeypatch.setitem(sys.modules, name, None)
    found = of(three)
    assert "pip install 'cometbatch[eval]'" in found["hint"]
    (board,) = found["boards"]
    assert [cells["score"] for cells in board["cells"]] == ["0.889", "0.500", "0.100"]
    assert {cells["interval"] for cells in board["cells"]} == {words.UNKNOWN}
    assert board["comparisons"] == []


def sentences(path: Path, marks: Sequence[str]) -> list[str]:
    """What comparisons of these cells with the last one say in words."""
    cells = [cell(model, each) for model, each in zip(MODELS, marks, strict=False)]
    board = of(write(path, cells), baseline=MODELS[len(marks) - 1])["boards"][0]
    return [each["sentence"] for each in board["comparisons"]]


def test_a_comparison_is_told_in_words(tmp_path: Path) -> None:
    """What the difference is, and whether chance explains it."""
    (certain,) = sentences(tmp_path / "a.parquet", ["1" * 40, "10" * 20])
    assert certain == "model-a is 0.500 above model-b. That is more than chance explains (Holm p below 0.001)."
    (chance,) = sentences(tmp_path / "b.parquet", ["1101100110", "1101100111"])
    assert chance.startswith("model-a is 0.100 below model-b. This run can't tell that from chance (Holm p ")
    (same,) = sentences(tmp_path / "c.parquet", ["1010", "1010"])
    assert same.startswith("model-a equals model-b. ")


def test_several_scores_have_a_board_each(tmp_path: Path) -> None:
    """Costs stand in the head of the first alone."""
    other = {"name": "length", "scorer": "python", "gold": ""}
    rows = [right(length=3.0, length_why=None), wrong(length=7.0, length_why=None)]
    found = of(write(tmp_path / "a.parquet", [({"model": "m"}, [rows])], scores=(NUMERIC, other)))
    assert [(board["score"], board["cost_title"], board["gold"]) for board in found["boards"]] == [
        ("correct", "A\u00a0right\u00a0answer costs", "input:answer"),
        ("length", "A point costs", None),
    ]
    assert "$" in found["boards"][0]["head"]
    assert "$" not in found["boards"][1]["head"]


def test_what_the_judge_cost_is_told(three: Path) -> None:
    """With the digits of `compare`."""
    sources = [ResultFiles("a", (three,))]
    found = evaluation_of(sources, ReportSettings(), judge_cost_usd=Decimal("0.0123"))
    assert found is not None
    assert found["judge_cost"] == "$0.012300"
    same = figures(sources, ReportSettings(), judge_cost_usd=Decimal("0.0123"))
    assert same is not None
    assert f"judge: {found['judge_cost']}" in same.describe()
