"""`compare`: the leaderboard of jobs, results, data sets and runs that go on, on the command line and in Python."""

import json
import shlex
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import cometbatch
from cometbatch.cli import cli
from cometbatch.errors import UsageError
from tests import virtual_time
from tests.reports.results import right, write, wrong
from tests.workbench import Workbench, simulator

MODELS = ["comet-sim-1", "comet-sim-1-mini"]
SCORER = """\
def correct(answer, row):
    return (len(answer) + int(row["parcel"])) % 3 != 0
"""


def job_of(folder: Path, rows: int = 12, **sections: Any) -> Path:
    """A job file over some rows, two models and two samples, with a scorer beside it."""
    bench = Workbench(folder)
    bench.write_rows(rows)
    (folder / "mine.py").write_text(SCORER, encoding="utf-8")
    settings = bench.settings(
        matrix={"model": MODELS, "samples": 2},
        score={"correct": {"python": "mine:correct"}},
        report={"baseline": MODELS[1]},
        **sections,
    )
    del settings["target"]["model"]
    path = folder / "job.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path


def run(path: Path, **options: Any) -> cometbatch.RunSummary:
    """Run a job against a simulator."""
    return virtual_time.run(
        cometbatch.run_async(cometbatch.load_job(path), progress=False, http=simulator(), **options)
    )


def command(*arguments: object) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(cli, ["compare", *map(str, arguments)])


def test_a_job_its_result_and_its_run_directory_are_the_same(tmp_path: Path) -> None:
    """The job says what the report shows; its files say the same figures without that."""
    path = job_of(tmp_path)
    run(path)
    found = cometbatch.compare(path)
    assert found.by == ("model",)
    assert found.boards[0].baseline == MODELS[1]
    assert found.boards[0].samples == 2
    assert found.answers == 48
    costs = pq.read_table(tmp_path / "out.parquet", columns=["cost_usd"]).column(0).to_pylist()
    assert found.cost_usd == sum(costs)
    for other in (tmp_path / "out.parquet", tmp_path / "_out.parquet.run"):
        again = cometbatch.compare(other, baseline=MODELS[1])
        assert again.boards == found.boards
        assert again.lines == found.lines
    assert cometbatch.compare(cometbatch.load_job(path)).boards == found.boards


def test_options_go_over_what_the_job_says(tmp_path: Path) -> None:
    """And `--set` over the job, of which one must be given for it."""
    path = job_of(tmp_path)
    run(path)
    assert cometbatch.compare(path, baseline=MODELS[0]).boards[0].baseline == MODELS[0]
    assert cometbatch.compare(path, by="format").by == ("format",)
    assert cometbatch.compare(path, [f"report.baseline={MODELS[0]}"]).boards[0].baseline == MODELS[0]
    with pytest.raises(UsageError, match="--set is for a job file"):
        cometbatch.compare(tmp_path / "out.parquet", ["report.by=model"])


def test_a_data_set_is_compared_like_a_file(tmp_path: Path) -> None:
    """A file for each slice, with its scores."""
    (tmp_path / "set").mkdir()
    path, other = job_of(tmp_path), job_of(tmp_path / "set", output={"path": str(tmp_path / "set" / "out/")})
    settings = json.loads(other.read_text(encoding="utf-8"))
    settings["output"]["path"] += "/"
    other.write_text(json.dumps(settings), encoding="utf-8")
    run(path)
    run(other)
    found = cometbatch.compare(other)
    assert found.boards == cometbatch.compare(path).boards
    assert cometbatch.compare(tmp_path / "set" / "out", baseline=MODELS[1]).boards == found.boards


def test_a_plain_data_set_has_its_scores_in_a_file_beside_it(tmp_path: Path) -> None:
    """Its parts are not changed by scoring."""
    bench = Workbench(tmp_path)
    bench.write_rows(9)
    (tmp_path / "mine.py").write_text(SCORER, encoding="utf-8")
    settings = bench.settings(
        score={"correct": {"python": "mine:correct"}}, output={"path": f"{tmp_path / 'set'}/", "partition_rows": 4}
    )
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    run(path)
    assert (tmp_path / "set.scores.parquet").exists()
    (line,) = cometbatch.compare(path).boards[0].lines
    assert (line.name, line.scored) == ("comet-sim-1", 9)


def test_a_run_that_is_not_finished_is_compared_as_far_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the rows that have an outcome; that needs the scorer, which is told before it is imported."""
    path = job_of(tmp_path)
    run(path, limit=5)
    found = cometbatch.compare(path)
    assert found.is_partial
    assert [line.rows for line in found.lines] == [10, 10]
    assert found.boards[0].comparisons[0].questions == 5
    assert "mine.py" in capsys.readouterr().err
    assert "not finished: 20 of 48 rows have an outcome so far" in found.notes[0]
    assert "of a run that is not finished" in found.describe()


def test_the_json_has_every_number(tmp_path: Path) -> None:
    """One line, the same each time, of which the printed form is a part."""
    path = job_of(tmp_path)
    run(path)
    outputs = {command(path, "--json").stdout for _ in range(2)}
    (text,) = outputs
    assert json.loads(text) == cometbatch.compare(path).to_dict()
    printed = command(path)
    assert printed.exit_code == 0
    assert printed.stdout.rstrip("\n") == cometbatch.compare(path).describe(100)


def test_what_cannot_be_compared_ends_with_2(tmp_path: Path) -> None:
    """Nothing that has begun, no scores, other questions; each says what to do."""
    path = job_of(tmp_path)
    plain = write(tmp_path / "plain.parquet", [({"model": "m"}, [[right(), wrong()]])], scores=(), has_matrix=False)
    runs = {
        "This job has not begun": command(path),
        "there are no scores. Add a section score to the job": command(plain),
        "there is no run here": command(tmp_path / "nothing.parquet"),
    }
    for words, result in runs.items():
        assert isinstance(result.exception, UsageError)
        assert words in str(result.exception)
    assert command().exit_code == UsageError.exit_code


def test_results_of_two_runs_are_compared(tmp_path: Path) -> None:
    """By the names of their rows."""
    paths = [
        write(tmp_path / f"{name}.parquet", [({"model": name}, [rows])], has_matrix=False)
        for name, rows in (("a", [right(), wrong(), right()]), ("b", [right(cost_usd=Decimal("0.004"))] * 3))
    ]
    result = command(*paths)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:5] == [
        "correct: 3 questions, clustered by question; $0.015000 for 6 answers",
        "model  score  95 %         answered  unscored  right answers cost  tokens    p50 s  p95 s",
        "b      1.000  0.439 1.000  1.000     0         $0.004000 each      120 each  1.0    1.0",
        "a      0.667  0.208 0.939  0.667     0         $0.001500 each      120 each  1.0    1.0",
        "a - b  -0.333 [-1.000, +1.000]  p 0.500 (Holm 0.500), McNemar mid-p, 3 questions",
    ]


def test_without_the_extra_it_ends_with_2(tmp_path: Path) -> None:
    """And says how to get it."""
    path = write(tmp_path / "a.parquet", [({"model": "m"}, [[right(), wrong()]])], has_matrix=False)
    code = (
        "import sys; sys.modules['numpy'] = sys.modules['scipy'] = None; from cometbatch.__main__ import main; "
        f"sys.argv = ['cometbatch', 'compare', {str(path)!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "Error: statistics need `pip install 'cometbatch[eval]'`; scores are in the result.\n"


def test_scores_of_other_settings_than_the_jobs_are_told(tmp_path: Path) -> None:
    """They are shown as they are, with the command that makes those of now."""
    path = job_of(tmp_path)
    run(path)
    assert cometbatch.compare(path).notes == ()
    changed = [*("score.correct.python=null", "score.correct.contains=parcel")]
    (note,) = cometbatch.compare(path, changed).notes
    command = shlex.join(["cometbatch", "score", str(path), "--set", changed[0], "--set", changed[1]])
    assert note.endswith(f"the job scores answers in other ways by now; score them again: {command}")


def test_a_result_that_is_not_published_is_no_result(tmp_path: Path) -> None:
    """All answers are there, and the command that publishes them is told."""
    path = job_of(tmp_path)
    run(path)
    (tmp_path / "out.parquet").unlink()
    with pytest.raises(UsageError, match="this run has all of its answers, and its result is not published"):
        cometbatch.compare(path)


def test_a_result_without_a_row_has_no_line(tmp_path: Path) -> None:
    """There is nothing to compare, and no error."""
    path = write(tmp_path / "a.parquet", [({"model": "m"}, [[right()]])], has_matrix=False)
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    found = cometbatch.compare(path)
    assert (found.lines, found.answers) == ((), 0)
    assert found.describe().startswith("correct: 0 questions")
