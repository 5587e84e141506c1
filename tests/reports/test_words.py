"""A leaderboard as it is printed: the figures of the JSON, rounded, in plain text that fits a terminal."""

from decimal import Decimal
from pathlib import Path

import pytest

from cometbatch.job.report import ReportSettings
from cometbatch.reports.board import Figures
from cometbatch.reports.figures import figures
from cometbatch.reports.sources import ResultFiles
from cometbatch.results.terminal import columns
from tests.reports.results import NUMERIC, failed, incomplete, right, write, wrong


def cells(model: str, words: str, samples: int = 2) -> tuple[dict[str, str], list[list[dict[str, object]]]]:
    """A cell of right (1), wrong (0), refused (r), cut (c) and failed (f) answers."""
    made = {"1": right, "0": wrong, "r": incomplete, "c": lambda: incomplete("cut"), "f": failed}
    return {"model": model, "format": "chat"}, [
        [made[word]() for word in words[at:] + words[:at]] for at in range(samples)
    ]


@pytest.fixture
def found(tmp_path: Path) -> Figures:
    """Three models with two samples; charges, failures, groups."""
    path = write(
        tmp_path / "a.parquet",
        [cells("model-a", "1100101r10"), cells("model-b", "11f1101111"), cells("model-c", "0000100rc0")],
        inputs={"answer": list("abcdefghij"), "subject": ["x"] * 5 + ["y"] * 4 + [None]},
        metadata={"cometbatch.bill": {"charges_usd": "0.012", "replaced_charges_usd": "0"}},
    )
    made = figures([ResultFiles("a", (path,))], ReportSettings(baseline="model-a", groups="subject"))
    assert made is not None
    return made


def test_the_printed_form(found: Figures) -> None:
    """Scores with intervals, what is unscored and why, costs, comparisons, pass@k, groups."""
    head, *lines = found.describe(120).splitlines()
    assert head == (
        "correct: 10 questions x 2 samples, clustered by question; $0.058000 for 58 answers "
        "($0.012000 more may have been billed)"
    )
    assert lines == [
        "model    score  95 %         answered  unscored              right answers cost  tokens    p50 s  p95 s",
        "model-b  0.889  0.532 0.983  0.889     2 failed              $0.001125 each      120 each  1.0    1.0",
        "model-a  0.500  0.209 0.791  0.556     2 refused             $0.002000 each      120 each  1.0    1.0",
        "model-c  0.100  0.014 0.456  0.125     4 (2 cut, 2 refused)  $0.010000 each      120 each  1.0    1.0",
        "model-b: 2 rows failed; were they all wrong, or all right, the score would be 0.800 or 0.900",
        "model-b - model-a  +0.400 [+0.174, +0.626]  p 0.003 (Holm 0.006), paired t, 10 questions",
        "  0.05 could be told with 314 questions",
        "model-c - model-a  -0.400 [-0.626, -0.174]  p 0.003 (Holm 0.006), paired t, 10 questions",
        "  0.05 could be told with 314 questions",
        "this run could tell a difference of 0.280 (80 % power)",
        "         pass@1  pass@2  pass^2",
        "model-b  0.900   -       -",
        "model-a  0.500   0.900   0.100",
        "model-c  0.100   0.200   0.000",
        "model-b: no pass@2 and above, because 2 questions have fewer than 2 answers",
        "",
        "subject           questions  model-b              model-a              model-c",
        "x                 5          0.875 (0.304 0.991)  0.500 (0.111 0.889)  0.200 (0.021 0.743)",
        "y                 4          0.875 (0.218 0.994)  0.500 (0.077 0.923)  0.000 (0.000 0.717)",
        "(empty)           1          1.000 (-)            0.500 (-)            0.000 (-)",
        "(all answers)     10         0.889 (SE 0.072)     0.500 (SE 0.075)     0.100 (SE 0.067)",
        "(mean of groups)             0.917                0.500                0.067",
    ]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_it_fits_the_width(found: Figures, tmp_path: Path, width: int) -> None:
    """What does not fit comes below: also with long names, large scores, and each reason to be unscored."""
    reasons = [*map(incomplete, ("refused", "cut", "filtered", "empty") * 1_000), failed(), right(), right(), wrong()]
    reasons += [{"score": None, "why": "scorer_error"}] * 1_000
    large = [{"score": float(at * 10**9)} for at in range(len(reasons))]
    wide = [(name * 40, [reasons, large, large]) for name in ("left", "right", "日本語")]
    path = write(tmp_path / "b.parquet", [({"model": name, "format": "chat"}, rows) for name, rows in wide])
    other = figures([ResultFiles("b", (path,))], ReportSettings())
    assert other is not None
    for line in f"{found.describe(width)}\n{other.describe(width).partition('note: ')[0]}".splitlines():
        assert columns(line) <= width, line


def test_a_difference_of_nothing_is_no_reason_to_leave_a_smaller_one_out(tmp_path: Path) -> None:
    """Which of the usual differences this run could not tell does not depend on the one that was found."""
    told = []
    for won in (50, 51):
        words = "1" * won + "0" * (100 - won) + "1" * 1_900, "0" * won + "1" * (100 - won) + "1" * 1_900
        path = write(tmp_path / "a.parquet", [cells(name, each, 1) for name, each in zip("ab", words, strict=True)])
        made = figures([ResultFiles("a", (path,))], ReportSettings(baseline="b"))
        assert made is not None
        told.append("0.01 could be told with " in made.describe())
    assert told == [True, True]


def test_hostile_names_stay_in_their_place(tmp_path: Path) -> None:
    """Nothing of a label moves the cursor or takes the whole line."""
    path = write(tmp_path / "a.parquet", [cells("\x1b[2Jevil\n" + "x" * 300, "10"), cells("日本語", "11")])
    made = figures([ResultFiles("a", (path,))], ReportSettings())
    assert made is not None
    text = made.describe(100)
    assert "\x1b" not in text
    assert text.splitlines()[2].startswith("日本語    ")


def test_a_second_score_has_a_table_of_its_own(tmp_path: Path) -> None:
    """Costs, tokens and times are told once."""
    scores = [NUMERIC, {"name": "short", "scorer": "python"}]
    rows = [right(short=12.5), wrong(short=1234.5), right(short=None)]
    path = write(tmp_path / "a.parquet", [({"model": "m", "format": "chat"}, [rows])], scores=scores)
    made = figures([ResultFiles("a", (path,))], ReportSettings(), judge_cost_usd=Decimal("0.5"))
    assert made is not None
    lines = made.describe().splitlines()
    assert lines[2:] == [
        "m      0.667  0.208 0.939  0.667     0         $0.001500 each      120 each  1.0    1.0",
        "",
        "short: 2 questions, clustered by question",
        "model  score    95 %              answered  unscored  a point costs",
        "m      623.500  -7,140.0 8,387.0  623.500   0         $0.000002 each",
        "judge: $0.500000",
    ]


def test_small_p_values_and_large_scores_are_readable(tmp_path: Path) -> None:
    """No e-05, and no seven digits."""
    path = write(tmp_path / "a.parquet", [cells("a", "1" * 60), cells("b", "0" * 60)])
    made = figures([ResultFiles("a", (path,))], ReportSettings())
    assert made is not None
    assert "p <0.001 (Holm <0.001)" in made.describe()


def test_a_line_with_answers_to_some_questions_says_so(tmp_path: Path) -> None:
    """Its score is of other questions than those of other lines; its difference from them is not."""
    path = write(tmp_path / "a.parquet", [cells("a", "1101", samples=1), cells("b", "1ff0", samples=1)])
    made = figures([ResultFiles("a", (path,))], ReportSettings())
    assert made is not None
    words = "b: answers to 2 of 4 questions; it is compared on those that both lines have"
    assert words in made.describe().splitlines()
