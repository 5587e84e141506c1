"""Runs that version 0.1.0 began are resumed, proven and answered again by every later program, and lose nothing.

`tests/data/version_3` holds four runs as that version left them, with manifest version 3: ten rows in partitions of
four. One is finished; one was stopped after six rows; one was stopped in the middle of a `--retry`; one is a finished
data set. Row 3 failed and row 5 is incomplete, unless they were answered again.

They were begun by the first rules of rendering, by which their prompts come out as they do now. So that they can be
resumed, a test gives them the number of today's rules.
"""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.prompt.template import RENDERING
from tests.make_version_3 import BEGUN, CUT, REFUSED, ROWS, Answering, job_in
from tests.workbench import carry_out, files

NAMES = ("finished", "stopped", "retried", "dataset")


@pytest.fixture
def begun(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a run's folder. Not everything that copies takes folders with nothing in them."""
    folder = Path(shutil.copytree(BEGUN / request.param, tmp_path / request.param))
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return folder


def by_todays_rules(folder: Path) -> Path:
    """The same run as if it had been begun by today's rules of rendering."""
    (path,) = folder.glob("*.run/manifest.json")
    manifest = json.loads(path.read_bytes())
    manifest["fingerprint"]["prompt.rendering"] = RENDERING
    path.write_text(json.dumps(manifest))
    return folder


def without_lock(folder: Path) -> dict[str, object]:
    """Every file but the lock, which names the last process that looked."""
    return {path: content for path, content in files(folder).items() if not path.endswith("lock")}


def output_in(folder: Path) -> Path:
    """The result, or the data set's folder."""
    return folder / ("answers" if folder.name == "dataset" else "out.parquet")


def result_in(folder: Path) -> pa.Table:
    """The published rows."""
    output = output_in(folder)
    paths = sorted(output.glob("*.parquet")) if output.is_dir() else [output]
    return pa.concat_tables([pq.read_table(path) for path in paths])


@pytest.mark.parametrize("begun", NAMES, indirect=True)
def test_a_run_is_resumed_and_only_what_is_missing_is_sent(begun: Path) -> None:
    """Each row is there once, with its own answer; what was recorded is not sent again."""
    missing = {"finished": [], "stopped": [6, 7, 8, 9], "retried": [CUT], "dataset": []}[begun.name]
    network = Answering()
    by_todays_rules(begun)
    summary = carry_out(job_in(begun), network)
    assert sorted(network.rows) == missing
    table = result_in(begun)
    assert table.column("custom_id").to_pylist() == [str(row) for row in range(ROWS)]
    answered = set(range(ROWS)) - (set() if begun.name == "retried" else {REFUSED})
    for row in answered:
        assert table.column("response").to_pylist()[row] == f"re: Row {row}: word {row}"
    assert summary.finished
    assert cometbatch.verify(job_in(begun)).ok


@pytest.mark.parametrize("begun", NAMES, indirect=True)
def test_the_status_is_what_it_was(begun: Path) -> None:
    """Rows, bill and what a retry replaced are read as they were written; looking changes no file."""
    before = files(begun)
    told = cometbatch.status(output_in(begun)).to_dict()
    assert files(begun) == before
    counts = (told["finished"], told["succeeded"], told["incomplete"], told["failed"], told["cost_usd"])
    assert (
        counts
        == {
            "finished": (True, 8, 1, 1, "0.0000765"),
            "stopped": (False, 4, 1, 1, "0.0000425"),
            "retried": (False, 9, 0, 0, "0.0000765"),
            "dataset": (True, 8, 1, 1, "0.0000765"),
        }[begun.name]
    )
    assert (told["replaced"]["rows"], told["thrown"]) == ((2, 0) if begun.name == "retried" else (0, 0))


@pytest.mark.parametrize("begun", NAMES, indirect=True)
def test_rows_are_answered_again(begun: Path) -> None:
    """`--retry` finds failed and incomplete rows in parts and journals, beside the rows to come."""
    network = Answering()
    by_todays_rules(begun)
    retry = {"finished": [3, 5], "stopped": [3, 5, 6, 7, 8, 9], "retried": [CUT], "dataset": [3, 5]}[begun.name]
    summary = cometbatch.run(job_in(begun), retry="failed,incomplete", progress=False, http=network)
    assert sorted(network.rows) == retry
    assert (summary.succeeded, summary.finished) == (ROWS, True)
    assert cometbatch.verify(job_in(begun)).ok


@pytest.mark.parametrize("begun", ["stopped"], indirect=True)
def test_other_words_in_the_job_are_refused(begun: Path) -> None:
    """What the run was made with is known to the letter."""
    by_todays_rules(begun)
    with pytest.raises(cometbatch.DriftError, match=r"prompt\.messages\[0\]\.content: was .*Row .*, is .*Another"):
        carry_out(job_in(begun, "prompt.user=Another {{ text }}"), Answering())


@pytest.mark.parametrize("begun", NAMES, indirect=True)
def test_other_rules_of_rendering_are_drift_and_said_as_such(begun: Path) -> None:
    """Neither resuming nor a retry mixes prompts of two rules: nothing is sent or changed, the ways out are named."""
    before, network = without_lock(begun), Answering()
    with pytest.raises(cometbatch.DriftError) as caught:
        carry_out(job_in(begun), network)
    with pytest.raises(cometbatch.DriftError):
        cometbatch.run(job_in(begun), retry="failed,incomplete", progress=False, http=network)
    with pytest.raises(cometbatch.DriftError):
        cometbatch.plan(job_in(begun), http=network)
    words = str(caught.value)
    assert f"how prompts are rendered: was 1, is {RENDERING}" in words
    assert [way for way in ("Finish it with that version", "output.path", "--fresh") if way not in words] == []
    assert "Undo the change" not in words
    assert network.rows == []
    assert without_lock(begun) == before


@pytest.mark.parametrize("begun", ["finished", "dataset"], indirect=True)
def test_verify_skips_the_requests_of_other_rules(begun: Path) -> None:
    """Everything else is proven, and the report says why the requests are not."""
    report = cometbatch.verify(output_in(begun))
    assert report.ok
    skipped = {check.name: check.reason for check in report.checks if check.state == "skipped"}
    assert "renders prompts by other rules" in str(skipped["requests"])
    assert {check.name for check in report.checks if check.state == "ok"} >= {"ids", "costs", "outcomes", "sums"}
