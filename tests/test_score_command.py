"""Scores in results: joined when a result is published, computed anew without a request, checked by `verify`."""

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.errors import DriftError, JobError, UsageError
from cometbatch.results.score_columns import SCORES_KEY
from tests.workbench import Network, Workbench, carry_out, simulator

SCORERS = """\
import sys

print("imported")

def brevity(answer, row):
    return len(answer) < 10

def whole_row(answer, row):
    return 1 if row["response"] == answer and row["parcel"] == row["custom_id"] else 0

def odd(answer, row):
    return RESULTS[int(row["parcel"])](row)

def leave(row):
    sys.exit(7)

def print_much(row):
    while True:
        try:
            print("x" * 100_000)
        except Exception:
            pass

def fail(row):
    raise ValueError("what\\na pity")

class Wicked(BaseException):
    def __str__(self):
        raise RuntimeError

def wicked(row):
    raise Wicked

def spoil(row):
    row["note"] = row["response"] = None
    return 0.5

RESULTS = {
    0: lambda row: True, 1: lambda row: None, 2: lambda row: 0.25, 3: lambda row: "text", 4: fail, 5: leave,
    6: print_much, 7: wicked, 8: spoil, 9: lambda row: float("nan"), 10: lambda row: 10**400, 11: lambda row: [1],
}
"""


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A table of twelve rows, and a module of scorers beside the job."""
    made = Workbench(tmp_path)
    made.write_rows(12)
    (tmp_path / "mine.py").write_text(SCORERS, encoding="utf-8")
    return made


def job_of(bench: Workbench, *entries: str, **sections: Any) -> cometbatch.Job:
    """A job whose answers these functions score, each under its own name."""
    scores = {entry: {"python": f"mine:{entry}"} for entry in entries}
    settings = bench.settings(**sections) | ({"score": scores} if scores else {})
    path = bench.folder / "job.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return cometbatch.load_job(path)


def parts_of(bench: Workbench) -> dict[str, str]:
    """The SHA-256 of each part."""
    folder = bench.run_directory / "parts"
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def said(path: Path) -> list[dict[str, Any]]:
    """What a result's metadata say of its scores."""
    found: list[dict[str, Any]] = json.loads((pq.read_metadata(path).metadata or {}).get(SCORES_KEY.encode(), b"[]"))
    return found


def column(bench: Workbench, name: str) -> list[Any]:
    """A column of the result."""
    found: list[Any] = bench.result().column(name).to_pylist()
    return found


def test_scores_stand_after_all_other_columns_and_in_no_part(bench: Workbench) -> None:
    """Three for each score, in the order of the job; whoever changes a score pays for no answer again."""
    summary = carry_out(job_of(bench, "brevity", "whole_row"), simulator())
    names = bench.result().column_names
    assert names[-6:] == ["brevity", "brevity_answer", "brevity_why", "whole_row", "whole_row_answer", "whole_row_why"]
    assert column(bench, "whole_row") == [1.0] * 12
    assert summary.scores is not None
    assert summary.scores.lines == 12
    assert summary.to_polars().columns == names, "whoever reads the rows finds them"
    assert cometbatch.export(job_of(bench, "brevity"), to="csv").head.decode().rstrip().endswith("whole_row_why")
    (part,) = (bench.run_directory / "parts").glob("*.part")
    assert "brevity" not in pq.read_schema(part).names
    assert [(each["name"], each["scorer"], len(each["digest"])) for each in said(bench.output)] == [
        ("brevity", "python", 64),
        ("whole_row", "python", 64),
    ]


def test_a_prefix_stands_before_scores_as_before_all_columns_of_the_output(bench: Workbench) -> None:
    """A Python scorer gets the line by the names that the result has."""
    (bench.folder / "mine.py").write_text("def f(answer, row):\n    return row['x_response'] == answer\n")
    job = job_of(bench, "f", output={"prefix": "x_"})
    carry_out(job, simulator())
    assert bench.result().column_names[-3:] == ["x_f", "x_f_answer", "x_f_why"]
    assert column(bench, "x_f") == [1.0] * 12
    assert cometbatch.verify(job, run_scorers=True).ok


def test_a_score_is_null_for_failures_and_0_for_what_the_model_left_out(bench: Workbench) -> None:
    """A row that failed is nobody's fault; one that was cut, refused, filtered or empty is the model's."""
    network = simulator("400:0.3", "length:0.3", "refusal:0.3", "content-filter:0.3", "empty:0.3")
    carry_out(job_of(bench, "whole_row"), network)
    rows = bench.result().select(["status", "finish_reason", "whole_row", "whole_row_why"]).to_pylist()
    words = {"length": "cut", "refusal": "refused", "content_filter": "filtered", "stop": "empty"}
    assert {row["status"] for row in rows} == {"succeeded", "incomplete", "failed"}
    for row in rows:
        due = {"failed": (None, "failed"), "succeeded": (1.0, None)}
        expected = due.get(row["status"], (0.0, words.get(row["finish_reason"])))
        assert (row["whole_row"], row["whole_row_why"]) == expected


def test_whatever_a_scorer_does_is_the_score_of_its_row(bench: Workbench, capfd: pytest.CaptureFixture[str]) -> None:
    """It may raise, exit, print without end or give garbage: the row says so, and the run is told."""
    summary = carry_out(job_of(bench, "odd", "whole_row"), simulator())
    assert column(bench, "odd")[:3] == [1.0, None, 0.25]
    assert column(bench, "odd")[8] == 0.5
    assert column(bench, "whole_row") == [1.0] * 12, "what one scorer does to its row is not seen by another"
    why = column(bench, "odd_why")
    assert [at for at, word in enumerate(why) if word == "scorer_error"] == [3, 4, 5, 6, 7, 9, 10, 11]
    messages = column(bench, "odd_answer")
    assert messages[3] == "ValueError: expected a number, True, False, None or a Score, found str"
    assert messages[4] == "ValueError: what a pity"
    assert messages[5] == "it called sys.exit"
    assert "more than 1,000,000 characters" in messages[6]
    assert messages[7] == "Wicked"
    assert summary.scores is not None
    assert summary.scores.errors == {"odd": 8}
    assert not summary.ended_well
    assert "odd on 8 of 12 lines" in summary.describe()
    assert "imported" not in capfd.readouterr().out, "standard output is the command's own"
    again = carry_out(job_of(bench, "odd", "whole_row"), Network())
    assert (again.had_work, again.ended_well) == (False, False), "what ended badly does not end well by itself"


STRANGE = """\
import os, cometbatch

class Text(str):
    def __getitem__(self, at):
        raise RuntimeError

def strange(answer, row):
    return [cometbatch.Score(1.0, Text("x"), Text("y")), cometbatch.Score(1.0, "\\ud800", "\\ud800"), 1e308][
        int(row["parcel"]) % 3
    ]

def fork(answer, row):
    if child := os.fork():
        with open(__file__ + ".children", "a") as file:
            file.write(f"{child}\\n")
    return 1

def end(answer, row):
    os.kill(os.getpid(), 15)
    return 1
"""


def test_words_of_any_class_and_half_a_surrogate_pair_can_be_written(bench: Workbench) -> None:
    """And a number whose square is beyond a float's range is an error of its row, not of the leaderboard."""
    (bench.folder / "mine.py").write_text(STRANGE)
    carry_out(job_of(bench, "strange"), simulator())
    assert column(bench, "strange")[:3] == [1.0, 1.0, None]
    assert column(bench, "strange_answer")[:2] == ["x", "?"]
    assert column(bench, "strange_why")[:3] == ["y", "?", "scorer_error"]
    assert "1e+308 is too large" in column(bench, "strange_answer")[2]


def test_a_scorer_that_forks_makes_no_second_writer(bench: Workbench) -> None:
    """The child that comes back ends; it publishes nothing, and nothing is said twice."""
    carry_out(job_of(bench), simulator())
    (bench.folder / "mine.py").write_text(STRANGE)
    own = os.getpid()
    job_of(bench, "fork")
    cometbatch.score(bench.folder / "job.yaml")
    if os.getpid() != own:
        (bench.folder / "child").touch()
        os._exit(0)
    children = (bench.folder / "mine.py.children").read_text().split()
    assert [os.waitstatus_to_exitcode(os.waitpid(int(child), 0)[1]) for child in children] == [1] * 12
    assert column(bench, "fork") == [1.0] * 12
    assert not (bench.folder / "child").exists()


def test_a_signal_that_ends_the_process_is_not_the_score_of_a_row(bench: Workbench) -> None:
    """It comes while a scorer runs, and looks like an exit of its own."""
    carry_out(job_of(bench), simulator())
    (bench.folder / "mine.py").write_text(STRANGE)

    class Ending:
        ended_with: int | None = None

        def __call__(self, *_: object) -> None:
            self.ended_with = 143
            raise SystemExit(143)

    before, old = signal.signal(signal.SIGTERM, Ending()), bench.output.read_bytes()
    try:
        with pytest.raises(SystemExit):
            cometbatch.score(job_of(bench, "end"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert bench.output.read_bytes() == old


def test_each_file_is_told_before_it_is_imported(bench: Workbench, capfd: pytest.CaptureFixture[str]) -> None:
    """With its digest, on standard error; `plan` imports none."""
    (bench.folder / "mine.py").write_text("import sys\nprint('ran', file=sys.__stderr__)\nbrevity = len\n")
    job = job_of(bench, "brevity")
    cometbatch.plan(job)
    assert "ran" not in capfd.readouterr().err
    (bench.folder / "mine.py").write_text("import sys\nprint('ran', file=sys.__stderr__)\nraise TypeError('no')\n")
    with pytest.raises(UsageError, match=r"mine\.py can't be imported: TypeError: no"):
        carry_out(job, Network())
    digest = hashlib.sha256((bench.folder / "mine.py").read_bytes()).hexdigest()
    told = capfd.readouterr().err
    assert told.index(f"runs Python code: {bench.folder / 'mine.py'} (SHA-256 {digest})") < told.index("ran")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("theirs:f", r"job\.yaml:1: score\.s: there is no module theirs: neither theirs\.py in .*, nor an installed"),
        ("mine:shortness", r"mine\.py has no function 'shortness'; it has .*brevity"),
        ("broken:f", r"broken\.py can't be imported: SyntaxError"),
        ("exits:f", r"exits\.py can't be imported: it called sys\.exit"),
    ],
)
def test_a_scorer_that_is_not_there_refuses_the_run_before_it_pays(bench: Workbench, entry: str, words: str) -> None:
    """In words with the place in the job file; nothing was sent."""
    (bench.folder / "broken.py").write_text("def f(:\n")
    (bench.folder / "exits.py").write_text("import sys\nsys.exit(3)\n")
    path = bench.folder / "job.yaml"
    path.write_text(json.dumps(bench.settings(score={"s": {"python": entry}})), encoding="utf-8")
    network = Network()
    with pytest.raises(UsageError, match=words):
        carry_out(cometbatch.load_job(path), network)
    assert network.posts == 0


def test_an_installed_module_will_do(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the job's folder has none of its name."""
    package = bench.folder / "site" / "graders"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('plan imports no package')\n")
    (package / "good.py").write_text("def f(answer, row):\n    return 1\n")
    monkeypatch.syspath_prepend(str(bench.folder / "site"))
    path = bench.folder / "job.yaml"
    path.write_text(json.dumps(bench.settings(score={"s": {"python": "graders.good:f"}})), encoding="utf-8")
    assert cometbatch.plan(cometbatch.load_job(path)).rows == 12
    (package / "__init__.py").write_text("")
    carry_out(cometbatch.load_job(path), simulator())
    assert column(bench, "s") == [1.0] * 12


# ---------------------------------------------------------------- anew


def test_score_sends_nothing_needs_no_key_and_changes_no_part(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the input is needed: the answers are in the run with their rows."""
    carry_out(job_of(bench), simulator())
    before, plain = parts_of(bench), bench.result()
    monkeypatch.delenv("COMETAPI_KEY", raising=False)
    bench.input.unlink()
    found = cometbatch.score(job_of(bench, "whole_row"))
    assert (found.counts.lines, found.ended_well, found.names) == (12, True, ("whole_row",))
    assert parts_of(bench) == before
    assert bench.result().select(plain.column_names).equals(plain)
    assert column(bench, "whole_row") == [1.0] * 12


def test_a_run_whose_scores_changed_publishes_again_and_sends_nothing(bench: Workbench) -> None:
    """Also where only the scorer's file changed, and where the scores were taken out of the job."""
    network = simulator()
    carry_out(job_of(bench), network)
    sent = network.posts
    again = carry_out(job_of(bench, "brevity"), network)
    assert (again.had_work, again.finished, network.posts) == (False, True, sent)
    first = said(bench.output)
    with (bench.folder / "mine.py").open("a") as file:
        file.write("# another word\n")
    carry_out(job_of(bench, "brevity"), network)
    assert said(bench.output)[0]["digest"] != first[0]["digest"]
    stamp = bench.output.stat().st_mtime_ns
    carry_out(job_of(bench, "brevity"), network)
    assert bench.output.stat().st_mtime_ns == stamp, "what is scored already is left alone"
    carry_out(job_of(bench), network)
    assert (said(bench.output), bench.result().column_names[-1], network.posts) == ([], "request_hash", sent)


def test_score_refuses_what_it_has_no_answers_for(bench: Workbench) -> None:
    """A run that has not begun, one that is not finished, a job without scores, and another job."""
    job = job_of(bench, "brevity")
    with pytest.raises(UsageError, match="has not begun"):
        cometbatch.score(job)
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(job, simulator("model-not-found:1"))
    with pytest.raises(UsageError, match=r"this run is not finished \(0 of 12 rows"):
        cometbatch.score(job)
    carry_out(job, simulator())
    with pytest.raises(UsageError, match="no section score"):
        cometbatch.score(job_of(bench))
    with pytest.raises(DriftError, match=r"prompt\.messages"):
        cometbatch.score(job_of(bench, "brevity", prompt={"user": "Another {{ note }}"}))


def test_a_name_that_is_taken_is_refused(bench: Workbench) -> None:
    """By the input, by an output column, or by another score's own columns."""
    for names, words in (
        ({"note": "mine:brevity"}, "two columns named note"),
        ({"status": "mine:brevity"}, "two columns named status"),
        ({"a": "mine:brevity", "a_why": "mine:brevity"}, "two columns named a_why"),
    ):
        scores = {name: {"python": entry} for name, entry in names.items()}
        path = bench.folder / "job.yaml"
        path.write_text(json.dumps(bench.settings(score=scores)), encoding="utf-8")
        with pytest.raises(JobError, match=words):
            cometbatch.plan(cometbatch.load_job(path))


def test_a_data_set_gets_its_scores_in_a_file_beside_it(bench: Workbench) -> None:
    """Its parts are the result, and stay as they are; the file has the rows' numbers and names."""
    bench.output = bench.folder / "answers"
    output = {"path": f"{bench.output}/", "partition_rows": 5}
    summary = carry_out(job_of(bench, "whole_row", output=output), simulator())
    scores = pq.read_table(bench.folder / "answers.scores.parquet")
    assert scores.column_names == ["row", "custom_id", "whole_row", "whole_row_answer", "whole_row_why"]
    assert scores.column("row").to_pylist() == list(range(12))
    assert scores.column("custom_id").to_pylist() == [f"{row:04d}" for row in range(12)]
    assert scores.column("whole_row").to_pylist() == [1.0] * 12
    assert summary.finished
    before = {path.name: path.read_bytes() for path in bench.output.iterdir()}
    found = cometbatch.score(job_of(bench, "brevity", output=output))
    assert found.output == bench.folder / "answers.scores.parquet"
    assert {path.name: path.read_bytes() for path in bench.output.iterdir()} == before
    assert "brevity" in pq.read_table(found.output).column_names
    found_checks = cometbatch.verify(job_of(bench, "brevity", output=output), run_scorers=True).checks
    assert {each.name: each.state for each in found_checks}["scores"] == "ok"


@pytest.mark.parametrize("fail_at", ["write", "replace"])
def test_a_crash_leaves_the_old_result_or_the_new_one(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, fail_at: str
) -> None:
    """Whether it comes while the file is written or at its rename; nothing of it stays behind."""
    carry_out(job_of(bench), simulator())
    old = bench.output.read_bytes()

    def broken(*_: object, **__: object) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        if fail_at == "write":
            patched.setattr(os, "fsync", broken)
        else:
            patched.setattr(Path, "replace", broken)
        with pytest.raises(cometbatch.CometbatchError, match="No space left"):
            cometbatch.score(job_of(bench, "brevity"))
    assert bench.output.read_bytes() == old
    assert {path.name for path in bench.folder.iterdir() if path.is_file()} == {
        "in.csv", "job.yaml", "mine.py", "out.parquet",
    }  # fmt: skip
    cometbatch.score(job_of(bench, "brevity"))
    assert said(bench.output)


# ---------------------------------------------------------------- verify


def test_verify_runs_no_scorer_unless_it_is_asked_to(bench: Workbench, capfd: pytest.CaptureFixture[str]) -> None:
    """Then it names the file, and compares each line."""
    job = job_of(bench, "brevity")
    carry_out(job, simulator())
    capfd.readouterr()
    states = {each.name: (each.state, each.reason) for each in cometbatch.verify(job).checks}
    assert states["scores"][0] == "skipped"
    assert "brevity is a Python scorer: verify --run-scorers" in str(states["scores"][1])
    assert "runs Python code" not in capfd.readouterr().err
    states = {each.name: (each.state, each.reason) for each in cometbatch.verify(job, run_scorers=True).checks}
    assert states["scores"] == ("ok", None)
    assert "runs Python code" in capfd.readouterr().err
    (bench.folder / "mine.py").write_text("def brevity(answer, row):\n    return 1\n")
    states = {each.name: (each.state, each.reason) for each in cometbatch.verify(job, run_scorers=True).checks}
    assert "mine.py is not the file that scored the result" in str(states["scores"][1])


def test_verify_finds_a_score_that_was_changed(bench: Workbench) -> None:
    """In the result itself, with its line."""
    job = job_of(bench, "whole_row")
    carry_out(job, simulator())
    table = bench.result()
    scores = [1.0] * 11 + [0.0]
    changed = table.set_column(table.column_names.index("whole_row"), "whole_row", pa.array(scores, pa.float64()))
    metadata = pq.read_metadata(bench.output).metadata
    with pq.ParquetWriter(bench.output, changed.schema) as writer:
        writer.write_table(changed)
        writer.add_key_value_metadata({key: value for key, value in metadata.items() if key != b"ARROW:schema"})
    (check,) = (each for each in cometbatch.verify(job, run_scorers=True).checks if each.name == "scores")
    assert (check.state, check.found) == ("failed", 1)
    assert "line 11: whole_row is 0.0, and comes to 1.0" in check.places[0]
