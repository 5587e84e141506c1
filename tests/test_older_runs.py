"""Runs that an older version began are carried on, proved and answered again by this one, and lose nothing.

`tests/data/version_1` holds two runs as version 0.1.0 left them, manifest version 1: ten rows in partitions of four.
One was stopped after six rows by a refused key; the other is finished.
"""

import json
import shutil
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.output import columns_of
from tests.workbench import carry_out

BEGUN = Path(__file__).parent / "data" / "version_1"
ROWS = 10


class Answering(httpx.AsyncBaseTransport):
    """Answers every prompt with its own words, and notes which rows were asked."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)["messages"][-1]["content"]
        self.rows.append(int(asked.split()[1][:-1]))
        said = {"message": {"role": "assistant", "content": f"re: {asked}"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 4, "cost": 0.5}
        return httpx.Response(200, json={"id": "c", "model": "m", "choices": [said], "usage": usage})


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A copy of the stopped run's folder."""
    return Path(shutil.copytree(BEGUN / "stopped", tmp_path / "stopped"))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A copy of the finished run's folder, without folders that have nothing in them: not everything copies these."""
    folder = Path(shutil.copytree(BEGUN / "finished", tmp_path / "finished"))
    journals = folder / "out.parquet.run" / "journal"
    if journals.exists():
        journals.rmdir()
    return folder


def job_in(folder: Path) -> cometbatch.Job:
    """The job that stands beside the run."""
    return cometbatch.load_job(folder / "job.yaml")


def result_in(folder: Path) -> pa.Table:
    """The published result."""
    return pq.read_table(folder / "out.parquet")


def test_a_stopped_run_is_carried_on_and_sends_only_what_is_missing(stopped: Path) -> None:
    """Six rows were recorded, in a part and a journal; four are sent, and each row is there once."""
    network = Answering()
    summary = carry_out(job_in(stopped), network)
    assert sorted(network.rows) == [6, 7, 8, 9]
    assert (summary.succeeded, summary.incomplete, summary.failed) == (8, 1, 1)
    table = result_in(stopped)
    assert table.column("custom_id").to_pylist() == [str(row) for row in range(ROWS)]
    assert table.column("response").to_pylist()[4] == "re: Row 4: word 4"
    assert cometbatch.verify(job_in(stopped)).ok


def test_a_run_keeps_the_columns_that_it_began_with(stopped: Path) -> None:
    """So that any two of its parts still concatenate; what newer versions add begins with the next run."""
    carry_out(job_in(stopped), Answering())
    names = ["number", "text", *(column.name for column in columns_of(1))]
    assert result_in(stopped).column_names == names
    parts = sorted((stopped / "out.parquet.run" / "parts").glob("*.parquet"))
    assert {tuple(pq.read_schema(part).names) for part in parts} == {tuple(names)}
    assert "reported_cost_usd" not in names


def test_a_finished_run_is_left_alone_and_proved(finished: Path) -> None:
    """Nothing is sent, nothing is changed, and everything about it still holds."""
    network, before = Answering(), (finished / "out.parquet").read_bytes()
    summary = carry_out(job_in(finished), network)
    assert network.rows == []
    assert not summary.had_work
    assert (finished / "out.parquet").read_bytes() == before
    assert cometbatch.verify(job_in(finished)).ok
    assert cometbatch.status(finished / "out.parquet").summary.finished


def test_rows_of_a_finished_run_are_answered_again(finished: Path) -> None:
    """`--retry` opens its parts, keeps every other answer, and publishes with the columns it had."""
    network, before = Answering(), result_in(finished)
    cometbatch.run(job_in(finished), retry="failed,incomplete", progress=False, http=network)
    assert sorted(network.rows) == [3, 5]
    after = result_in(finished)
    assert after.schema == before.schema
    kept = [row for row in range(ROWS) if row not in (3, 5)]
    assert after.take(kept).equals(before.take(kept))
    assert set(after.column("status").to_pylist()) == {"succeeded"}
    assert cometbatch.verify(job_in(finished)).ok


def test_a_new_run_has_the_columns_of_today(stopped: Path) -> None:
    """Started over, the same job has them all; what the service reports of its own is told, and never added."""
    summary = carry_out(job_in(stopped), Answering(), fresh=True)
    table = result_in(stopped)
    assert [str(cost) for cost in table.column("reported_cost_usd").to_pylist()] == ["0.500000000000000000"] * ROWS
    told = summary.to_dict()["reported"]
    assert (told["answers"], told["cost_usd"], told["differing"]) == (ROWS, "5", ROWS)
    assert summary.to_dict()["cost_usd"] == "0.000315"
    assert "the service's own word: $5 for 10 answers" in summary.describe()
    assert any("the service reported $5 for 10 answers" in warning for warning in summary.warnings)
    assert cometbatch.verify(job_in(stopped)).ok
