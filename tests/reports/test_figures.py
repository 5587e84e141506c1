"""The figures of a leaderboard: what counts for a score, what it cost, who is compared with whom and on what."""

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cometbatch.errors import InputError, UsageError
from cometbatch.evaluation.statistics.interval import Interval
from cometbatch.job.report import ReportSettings
from cometbatch.reports.board import Figures, ScoreLine
from cometbatch.reports.figures import figures
from cometbatch.reports.sources import ResultFiles
from cometbatch.results.columns import COLUMNS, columns_of
from tests.reports.results import NUMERIC, failed, incomplete, right, write, wrong

MODEL_A, MODEL_B = {"model": "model-a", "format": "chat"}, {"model": "model-b", "format": "chat"}


def of(*paths: Path, **settings: Any) -> Figures:
    """The figures of results, called by their files' names."""
    found = figures([ResultFiles(path.name, (path,)) for path in paths], ReportSettings(**settings))
    assert found is not None
    return found


def lines_of(found: Figures) -> dict[str, ScoreLine]:
    """The lines of the first score by name."""
    return {line.name: line for line in found.boards[0].lines}


def test_three_ways_to_count_rows_without_a_score(tmp_path: Path) -> None:
    """72 right, 20 wrong, 5 incomplete, 3 failed: what the model left incomplete counts 0, what failed not at all."""
    rows = [right()] * 72 + [wrong()] * 20 + [incomplete()] * 4 + [incomplete("cut")] + [failed()] * 3
    (line,) = of(write(tmp_path / "a.parquet", [(MODEL_A, [rows])])).boards[0].lines
    assert line.score == pytest.approx(0.742268, abs=1e-6)
    assert line.answered == pytest.approx(0.782609, abs=1e-6)
    assert line.bounds == Interval(0.72, 0.75)
    assert (line.rows, line.scored, line.incomplete, line.failed, line.unscored) == (100, 92, 5, 3, 8)
    assert line.reasons == {"refused": 4, "failed": 3, "cut": 1}


def test_rows_without_gold_and_broken_scorers_count_for_nothing(tmp_path: Path) -> None:
    """Neither is the model's doing; both are told."""
    rows = [right(), wrong(), {"score": None}, {"score": None, "why": "scorer_error"}]
    found = of(write(tmp_path / "a.parquet", [(MODEL_A, [rows])]))
    (line,) = found.boards[0].lines
    assert (line.score, line.answered, line.bounds) == (0.5, 0.5, None)
    assert (line.rows, line.without_gold, line.scorer_errors) == (3, 1, 1)
    assert found.boards[0].questions == 3
    assert "scorer failed on 1 row" in found.notes[0]


def test_an_answer_that_was_cut_may_be_scored_by_its_text(tmp_path: Path) -> None:
    """With `incomplete: score` it has a score and no word: it counts like a whole one."""
    rows = [right(status="incomplete"), wrong(why="no_answer"), right()]
    (line,) = of(write(tmp_path / "a.parquet", [(MODEL_A, [rows])])).boards[0].lines
    assert (line.scored, line.incomplete) == (3, 0)
    assert line.score == pytest.approx(2 / 3)


def test_what_a_right_answer_costs_is_exact(tmp_path: Path) -> None:
    """All rows of a line, also those without a score, over the sum of its scores."""
    rows = [right(cost_usd=Decimal("0.1"))] * 3 + [incomplete(cost_usd=Decimal("0.000000000000000001"))] + [failed()]
    found = of(write(tmp_path / "a.parquet", [(MODEL_A, [rows])]))
    assert found.cost_usd == found.lines[0].cost_usd == Decimal("0.300000000000000001")
    assert found.boards[0].lines[0].cost_of_right_usd == Decimal("0.100000000000000000")
    assert found.answers == 4


def test_an_unknown_cost_is_no_cost_of_zero(tmp_path: Path) -> None:
    """It is null for that line and for the whole, and said; a failed row that was never answered has none."""
    cells = [(MODEL_A, [[right(), right(cost_usd=None)]]), (MODEL_B, [[right(), failed()]])]
    found = of(write(tmp_path / "a.parquet", cells))
    assert [line.cost_usd for line in found.lines] == [None, Decimal("0.001")]
    assert found.cost_usd is None
    assert lines_of(found)["model-a"].cost_of_right_usd is None
    assert found.notes[0] == "model-a: the cost of 1 row is unknown, so no cost is shown"
    assert found.to_dict()["cost_usd"] is None


def test_a_failed_row_may_have_cost_something(tmp_path: Path) -> None:
    """Its rejected asks are billed: where their cost is unknown, so is that of the line."""
    columns = (*COLUMNS, *columns_of(["asks"]))
    rows = [right(asks=1), failed(asks=2)]
    found = of(write(tmp_path / "a.parquet", [(MODEL_A, [rows])], columns=columns))
    assert found.lines[0].unknown_costs == 1


def test_costs_that_lack_something_and_answers_of_earlier_runs_are_told(tmp_path: Path) -> None:
    """The first are at least what is shown, the second cost nothing here."""
    columns = (*COLUMNS, *columns_of(["reused_from"]))
    rows = [right(cost_excludes="web_search"), right(reused_from="run 1", cost_usd=Decimal(0))]
    found = of(write(tmp_path / "a.parquet", [(MODEL_A, [rows])], columns=columns))
    assert (found.lines[0].at_least, found.lines[0].reused) == (1, 1)
    assert [note.split(": ")[1][:12] for note in found.notes] == ["1 row used w", "earlier runs"]


def test_possible_charges_come_from_the_metadata(tmp_path: Path) -> None:
    """Those of rows that were answered again included; unknown ones are counted."""
    bill = {"charges_usd": "0.010", "replaced_charges_usd": "0.002", "charges_unknown": 1}
    found = of(write(tmp_path / "a.parquet", [(MODEL_A, [[right()]])], metadata={"cometbatch.bill": bill}))
    assert (found.possible_charges_usd, found.charges_unknown) == (Decimal("0.012"), 1)


def test_tokens_and_latencies(tmp_path: Path) -> None:
    """Tokens of answers that have both counts; half, and 95 %, of the rows were answered within these seconds."""
    rows = [right(latency_s=at / 10, output_tokens=None if at == 1 else 20) for at in range(1, 101)] + [failed()]
    (line,) = of(write(tmp_path / "a.parquet", [(MODEL_A, [rows])])).lines
    assert (line.p50_s, line.p95_s) == (5.0, 9.5)
    assert (line.counted, line.input_tokens, line.output_tokens, line.tokens_each) == (100, 10_000, 2_000, 120.0)


def two_models(folder: Path, **more: Any) -> Path:
    """Eight questions with four samples; model-a is better."""
    answers = ["1101 0000 1111 1011 0100 1111 1100 0001", "1001 0010 1111 0010 0000 1110 1000 0000"]
    cells = [
        (labels, [[right() if word[sample] == "1" else wrong() for word in words.split()] for sample in range(4)])
        for labels, words in zip((MODEL_A, MODEL_B), answers, strict=True)
    ]
    return write(folder / "two.parquet", cells, **more)


def test_lines_are_compared_question_by_question(tmp_path: Path) -> None:
    """Against the best line where nobody says which; each p is adjusted for all comparisons."""
    board = of(two_models(tmp_path)).boards[0]
    assert (board.questions, board.samples, board.common_questions) == (8, 4, 8)
    assert (board.baseline, board.baseline_is_best) == ("model-a", True)
    (found,) = board.comparisons
    assert (found.name, found.baseline, found.difference, found.test) == ("model-b", "model-a", -0.1875, "paired t")
    assert [found.p, found.p_holm] == pytest.approx([0.047945, 0.047945], abs=1e-6)
    assert [each.questions for each in found.needed] == [11, 3855, 964, 155]
    assert found.detectable == pytest.approx(0.219498, abs=1e-6)
    assert [each.samples for each in found.with_samples] == [4, 8, 16]


def test_as_many_samples_come_to_the_error_that_was_found(tmp_path: Path) -> None:
    """Also where answers to a question differ more than questions do, in clusters, and for one line as for two.

    Here the answers of both lines vary together, so that their variances within questions add up to more than their
    difference has. Questions with other numbers of answers, whatever these are on average, tell nothing of it.
    """
    passages = {"answer": list("12345678"), "passage": list("aabbccdd")}
    for cluster in (None, "passage"):
        board = of(two_models(tmp_path, inputs=passages), cluster=cluster).boards[0]
        told = [(each.se, each.with_samples) for each in board.comparisons]
        told += [(each.precision.se, each.precision.with_samples) for each in board.lines if each.precision]
        assert len(told) == 3
        for error, found in told:
            assert [each.samples for each in found] == [4, 8, 16]
            assert found[0].se == pytest.approx(error)
            assert sorted(found, key=lambda each: -each.se) == list(found)
    uneven = [[right(), right()], [wrong(), failed()], [wrong(), failed()]]  # two answers a question, on average
    (line,) = of(write(tmp_path / "uneven.parquet", [(MODEL_A, uneven)])).boards[0].lines
    assert line.precision is not None
    assert line.precision.with_samples == ()


def test_a_chosen_baseline_is_that_of_all(tmp_path: Path) -> None:
    """By the line's name, or by a label that one line alone has; another word is refused with what there is."""
    path = two_models(tmp_path)
    board = of(path, baseline="model-b").boards[0]
    assert (board.baseline, board.baseline_is_best) == ("model-b", False)
    assert board.comparisons[0].difference == 0.1875
    with pytest.raises(UsageError, match=r"baseline: no line is called 'modelb'. did you mean 'model-b'\?"):
        of(path, baseline="modelb")
    with pytest.raises(UsageError, match=r"no line is called 'x'. The lines are: 'model-a', 'model-b'"):
        of(path, baseline="x")


def test_one_line_is_compared_with_none(tmp_path: Path) -> None:
    """It has its score and interval."""
    board = of(write(tmp_path / "a.parquet", [(MODEL_A, [[right(), wrong()]])])).boards[0]
    assert (board.baseline, board.comparisons) == (None, ())
    assert board.lines[0].precision is not None


def test_a_comparison_is_on_the_questions_that_both_have(tmp_path: Path) -> None:
    """Where one has lost many, that is told; the best is the best on those that all have."""
    first = [right()] * 10 + [wrong()] * 10
    second = [right()] * 8 + [failed()] * 2 + [wrong()] * 8 + [failed()] * 2
    third = [failed()] * 8 + [right()] * 4 + [failed()] * 8
    cells = [(MODEL_A, [first]), (MODEL_B, [second]), ({"model": "model-c", "format": "chat"}, [third])]
    found = of(write(tmp_path / "a.parquet", cells), baseline="model-a")
    board = found.boards[0]
    assert board.common_questions == 2
    assert {each.name: (each.questions, each.lost, each.is_thinned) for each in board.comparisons} == {
        "model-b": (16, 4, True),
        "model-c": (4, 16, True),
    }
    assert len(found.notes) == 2


def test_axes_that_differ_tell_lines_apart(tmp_path: Path) -> None:
    """An axis that goes with an earlier one is left out; labels keep their type."""
    cells = [
        ({"model": model, "temperature": heat, "format": "chat" if model == "a" else "messages"}, [[right()]])
        for model in ("a", "b")
        for heat in (0, 0.5)
    ]
    path = write(tmp_path / "a.parquet", cells)
    found = of(path)
    assert found.by == ("model", "temperature")
    assert [line.name for line in found.lines] == ["a, 0.0", "a, 0.5", "b, 0.0", "b, 0.5"]
    assert found.lines[1].labels == {"model": "a", "temperature": 0.5}
    merged = of(path, by=("temperature",))
    assert [(line.name, line.rows) for line in merged.lines] == [("0.0", 2), ("0.5", 2)]
    assert merged.boards[0].samples == 2
    with pytest.raises(UsageError, match=r"by: there is no axis 'heat'. The axes are: model, temperature, format"):
        of(path, by=("heat",))


def test_pass_at_k_where_each_question_has_k_answers(tmp_path: Path) -> None:
    """With samples; where a question lost one, larger k are left out, and it is told how many questions lack them."""
    words = ["1111", "1101", "0000", "1001", "1111", "0100"]
    samples = [[right() if word[at] == "1" else wrong() for word in words] for at in range(4)]
    (line,) = of(write(tmp_path / "a.parquet", [(MODEL_A, samples)])).boards[0].lines
    found = {each.k: each for each in line.pass_k}
    assert sorted(found) == [1, 2, 4]
    assert found[2].at_least_one == pytest.approx(0.722222, abs=1e-6)
    assert [found[4].at_least_one_se, found[4].all] == pytest.approx([0.166667, 0.333333], abs=1e-6)
    samples[3][0] = failed()
    (line,) = of(write(tmp_path / "b.parquet", [(MODEL_A, samples)])).boards[0].lines
    found = {each.k: each for each in line.pass_k}
    assert found[2].at_least_one is not None
    assert (found[4].at_least_one, found[4].all, found[4].lacking) == (None, None, 1)


def test_parts_of_a_point_have_no_pass_at_k(tmp_path: Path) -> None:
    """An answer must be right or wrong for that."""
    board = of(write(tmp_path / "a.parquet", [(MODEL_A, [[{"score": 0.5}], [right()]])])).boards[0]
    assert (board.is_binary, board.is_bounded, board.lines[0].pass_k) == (False, True, ())


def test_scores_of_another_scale(tmp_path: Path) -> None:
    """They have a t interval, and no bounds for failed rows."""
    rows = [{"score": 120.0}, {"score": 80.0}, {"score": 95.0}, failed()]
    board = of(write(tmp_path / "a.parquet", [(MODEL_A, [rows]), (MODEL_B, [rows])])).boards[0]
    assert board.is_bounded is False
    assert board.lines[0].bounds is None
    assert board.lines[0].precision is not None
    assert board.lines[0].precision.method == "t"
    assert (board.comparisons[0].interval, board.comparisons[0].p, board.comparisons[0].needed) == (None, 1.0, ())


GROUPED: dict[str, list[Any]] = {
    "question": list("abcdef"),
    "answer": list("abcdef"),
    "subject": ["x", "x", "all", "all", None, "x"],
}


def test_groups_have_scores_of_their_own(tmp_path: Path) -> None:
    """A group may be called `all`; questions without a group are one."""
    rows = [right(), wrong(), right(), right(), wrong(), right()]
    (line,) = of(write(tmp_path / "a.parquet", [(MODEL_A, [rows])], inputs=GROUPED), groups="subject").boards[0].lines
    assert line.groups is not None
    assert {each.name: (each.questions, each.score) for each in line.groups.groups} == {
        "all": (2, 1.0),
        "x": (3, pytest.approx(2 / 3)),
        None: (1, 0.0),
    }
    assert line.groups.micro == line.score
    assert line.groups.macro == pytest.approx((1 + 2 / 3) / 3)


def test_clusters_of_questions_widen_the_interval(tmp_path: Path) -> None:
    """Questions with equal cells belong together; an empty cell is a cluster of its own."""
    rows = [right(), right(), right(), right(), wrong(), right()]
    path = write(tmp_path / "a.parquet", [(MODEL_A, [rows])], inputs=GROUPED)
    (line,) = of(path, cluster="subject").boards[0].lines
    assert line.precision is not None
    assert line.precision.clusters == 3
    with pytest.raises(UsageError, match=r"the input has no column 'subjekt'. did you mean 'subject'\?"):
        of(path, cluster="subjekt")


def test_too_many_groups_are_refused(tmp_path: Path) -> None:
    """A column of ids is no column of groups."""
    rows = [right()] * 1_001
    path = write(tmp_path / "a.parquet", [(MODEL_A, [rows])])
    with pytest.raises(UsageError, match="groups: the column has 1,001 values"):
        of(path, groups="question")


def test_several_scores_have_a_board_each(tmp_path: Path) -> None:
    """The one that was asked for comes first."""
    scores = [NUMERIC, {"name": "short", "scorer": "python", "digest": "1"}]
    rows = [right(short=0.5), wrong(short=None, short_why="scorer_error")]
    path = write(tmp_path / "a.parquet", [(MODEL_A, [rows])], scores=scores)
    assert [board.score for board in of(path).boards] == ["correct", "short"]
    found = of(path, score="short")
    assert [board.score for board in found.boards] == ["short", "correct"]
    assert found.boards[0].lines[0].score == 0.5
    with pytest.raises(UsageError, match=r"score: a.parquet has no score 'long'. Its scores are: correct, short"):
        of(path, score="long")


def test_a_result_without_scores_has_no_figures(tmp_path: Path) -> None:
    """None, which is for the command to tell."""
    path = write(tmp_path / "a.parquet", [(MODEL_A, [[right()]])], scores=())
    assert figures([ResultFiles("a", (path,))], ReportSettings()) is None


def test_the_output_may_have_a_prefix(tmp_path: Path) -> None:
    """Axis columns and scores have it, too; columns of the input of the same names are the input's."""
    inputs: dict[str, list[Any]] = {"model": ["x", "y"], "row": [7, 7], "correct": [0.0, 0.0], "answer": ["a", "b"]}
    path = write(tmp_path / "a.parquet", [(MODEL_A, [[right(), wrong()]])], prefix="out_", inputs=inputs)
    found = of(path, groups="model")
    assert [line.name for line in found.lines] == ["model-a"]
    assert lines_of(found)["model-a"].score == 0.5


def test_without_a_matrix_the_model_is_the_jobs(tmp_path: Path) -> None:
    """Where rows were asked of several models, each is a line."""
    rows = [right(), wrong()]
    path = write(tmp_path / "a.parquet", [({"model": "model-z"}, [rows])], has_matrix=False)
    assert [(line.name, line.rows) for line in of(path).lines] == [("model-z", 2)]
    targets = [{"target": {"model": "m0"}}, {"target": {"model": "m1"}}]
    path = write(
        tmp_path / "b.parquet",
        [({}, [[right(target=1), wrong(target=0)]])],
        has_matrix=False,
        columns=(*COLUMNS, *columns_of(["target"])),
        metadata={"cometbatch.targets": targets},
    )
    assert {line.name: line.score for line in of(path).boards[0].lines} == {"m1": 1.0, "m0": 0.0}


def test_a_data_set_has_its_scores_beside_it(tmp_path: Path) -> None:
    """Files that are cut at other rows are read side by side; other numbers of rows are refused."""
    rows = [right(), wrong(), right(), right(), wrong()]
    whole = pq.read_table(write(tmp_path / "a.parquet", [(MODEL_A, [rows])], has_matrix=False))
    scores = [name for name in whole.column_names if name.startswith("correct")]
    metadata = whole.schema.metadata
    for name, start, end in (("0", 0, 2), ("1", 2, 5)):
        pq.write_table(whole.drop_columns(scores).slice(start, end - start), tmp_path / f"{name}.parquet")
    beside = whole.select(scores).replace_schema_metadata(metadata)
    pq.write_table(beside, tmp_path / "scores.parquet", row_group_size=3)
    parts = (tmp_path / "0.parquet", tmp_path / "1.parquet")
    found = figures([ResultFiles("data", parts, (tmp_path / "scores.parquet",))], ReportSettings())
    assert found is not None
    assert found.boards[0].lines[0].score == pytest.approx(0.6)
    pq.write_table(beside.slice(0, 4), tmp_path / "scores.parquet")
    with pytest.raises(InputError, match=r"data: it has other rows than its scores\. Score it again"):
        figures([ResultFiles("data", parts, (tmp_path / "scores.parquet",))], ReportSettings())


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    """With its name."""
    pq.write_table(pa.table({"question": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet: this is no result of cometbatch"):
        of(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(InputError, match=r"b.parquet: this can't be read as a result"):
        of(tmp_path / "b.parquet")
    with pytest.raises(InputError, match="folder: there is no Parquet file here"):
        figures([ResultFiles("folder", ())], ReportSettings())


def test_the_json_has_every_figure_and_is_the_same_each_time(tmp_path: Path) -> None:
    """Numbers at full precision, amounts as texts, and the same bytes, also for parts of points."""
    scores = [[{"score": (7 * at + sample) % 11 / 11} for at in range(500)] for sample in range(4)]
    path = write(tmp_path / "a.parquet", [(MODEL_A, scores), (MODEL_B, scores[::-1])], group_rows=37)
    texts = {json.dumps(of(path).to_dict()) for _ in range(3)}
    (text,) = texts
    found = json.loads(text)
    assert found["version"] == 1
    assert found["lines"][0]["cost_usd"] == "2"
    precision = of(path).boards[0].lines[0].precision
    assert precision is not None
    assert found["boards"][0]["lines"][0]["precision"]["se"] == precision.se


def test_without_the_extra_there_are_scores_and_counts(tmp_path: Path) -> None:
    """No interval and no comparison; the last line says how to get them."""
    path = two_models(tmp_path)
    code = f"""
import sys
sys.modules["numpy"] = sys.modules["scipy"] = None
from pathlib import Path
from cometbatch.job.report import ReportSettings
from cometbatch.reports.figures import figures
from cometbatch.reports.sources import ResultFiles
found = figures([ResultFiles("two", (Path({str(path)!r}),))], ReportSettings())
assert found.needs_extra and found.boards[0].lines[0].precision is None
print(found.describe())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "correct: 8 questions x 4 samples, clustered by question; $0.064000 for 64 answers",
        "model    score  answered  unscored  right answers cost  tokens    p50 s  p95 s",
        "model-a  0.562  0.562     0         $0.001778 each      120 each  1.0    1.0",
        "model-b  0.375  0.375     0         $0.002667 each      120 each  1.0    1.0",
        "statistics need `pip install 'cometbatch[eval]'`; scores are in the result",
    ]
