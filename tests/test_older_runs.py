"""Runs that an older version began are carried on, proved and answered again by this one, and lose nothing.

`tests/data/version_1` holds three runs as version 0.1.0 left them, manifest version 1. Two are of ten rows in
partitions of four: one was stopped after six rows by a refused key; the other is finished. The third was stopped after
three of five rows in partitions of two, and its input has a column by the name of one that the output has since.
"""

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.records import Tally
from cometbatch.results.columns import columns_of
from cometbatch.results.parts import PART_KEY
from tests.workbench import carry_out, files

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


@pytest.fixture
def namesake(tmp_path: Path) -> Path:
    """A copy of the stopped run whose input has a column `reported_cost_usd`."""
    return Path(shutil.copytree(BEGUN / "namesake", tmp_path / "namesake"))


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


def test_the_status_of_a_stopped_run_is_what_it_was(stopped: Path) -> None:
    """Parts and journals of then are counted and priced; what was not asked of the service then is not there."""
    status = cometbatch.status(stopped / "out.parquet")
    told = status.to_dict()
    assert (told["finished"], told["committed_partitions"], told["remaining"]) == (False, 1, 4)
    assert (told["succeeded"], told["incomplete"], told["failed"]) == (4, 1, 1)
    assert told["cost_usd"] == "0.0001605"
    assert told["reported"]["answers"] == 0
    assert "the service's own word" not in status.describe()


def test_rows_of_a_stopped_run_are_answered_again(stopped: Path) -> None:
    """`--retry` takes back a failed row of a part and an incomplete one of a journal, beside the rows to come."""
    network = Answering()
    summary = cometbatch.run(job_in(stopped), retry="failed,incomplete", progress=False, http=network)
    assert sorted(network.rows) == [3, 5, 6, 7, 8, 9]
    assert (summary.succeeded, summary.reopened, summary.replaced.rows) == (ROWS, 2, 2)
    assert result_in(stopped).column_names == ["number", "text", *(column.name for column in columns_of(1))]
    assert cometbatch.verify(job_in(stopped)).ok


def test_an_input_column_named_like_a_newer_output_column_stays_what_it_is(namesake: Path) -> None:
    """A name that the output took since stops no run that began before, and its values are never read as ours."""
    job, network = job_in(namesake), Answering()
    assert cometbatch.plan(job).done == 3
    carry_out(job, network)
    assert sorted(network.rows) == [3, 4]
    assert cometbatch.verify(job).ok
    cometbatch.run(job, retry="incomplete", progress=False, http=network)
    assert sorted(network.rows) == [1, 3, 4]
    table = result_in(namesake)
    assert table.column_names == ["number", "reported_cost_usd", *(column.name for column in columns_of(1))]
    assert table.column("reported_cost_usd").to_pylist() == [f"0.0{row} EUR" for row in range(5)]
    assert set(table.column("status").to_pylist()) == {"succeeded"}
    assert cometbatch.verify(job).ok


def test_such_an_input_needs_a_prefix_where_the_run_is_new(namesake: Path) -> None:
    """`--fresh` would give it the columns of today: refused before anything is sent or forgotten."""
    network, before = Answering(), files(namesake)
    with pytest.raises(cometbatch.UsageError, match=r"reported_cost_usd.*output\.prefix"):
        carry_out(job_in(namesake), network, fresh=True)
    assert (network.rows, files(namesake)) == ([], before)


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


def test_what_a_later_version_added_is_passed_over(stopped: Path) -> None:
    """Its manifest says that the columns are the same: whatever else it notes in any file stops nothing."""
    run = stopped / "out.parquet.run"
    noted = {"unheard_of": {"deep": [1, None]}}
    for path in (run / "manifest.json", run / "sessions.jsonl"):
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | noted) + "\n", encoding="utf-8")
    (run / "reopened.json").write_text(json.dumps({"rounds": 0, "replaced": noted} | noted), encoding="utf-8")
    add_to_journal(run / "journal" / "00001.jsonl", noted)
    add_to_footer(run / "parts" / "00000.parquet", noted)
    network = Answering()
    summary = cometbatch.run(job_in(stopped), retry="failed,incomplete", progress=False, http=network)
    assert sorted(network.rows) == [3, 5, 6, 7, 8, 9]
    assert summary.succeeded == ROWS
    assert cometbatch.verify(job_in(stopped)).ok


def add_to_journal(path: Path, noted: dict[str, Any]) -> None:
    """Every record, and whatever is inside it, says more, under a checksum that is right."""
    records = [json.loads(line.split(b" ", 1)[1]) for line in path.read_bytes().splitlines()]
    for record in records:
        for inner in (record, record.get("completion"), (record.get("completion") or {}).get("usage")):
            if inner is not None:
                inner.update(noted)
    texts = [json.dumps(record).encode() for record in records]
    path.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(text), text) for text in texts))


def add_to_footer(path: Path, noted: dict[str, Any]) -> None:
    """A part's own words say more, its totals too."""
    words, table = pq.read_metadata(path).metadata, pq.read_table(path)
    info = json.loads(words[PART_KEY])
    info = info | noted | {"tally": info["tally"] | noted, "partition": info["partition"] | noted}
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({PART_KEY: json.dumps(info).encode()})


def test_totals_that_an_older_version_did_not_keep_are_nothing() -> None:
    """Every field of a tally may be missing, as in the footers and bills of before it was added."""
    assert msgspec.json.decode(b"{}", type=Tally) == Tally()
