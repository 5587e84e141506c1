"""`dedupe: true` from the job file to the result: what is sent, told, taken again and proved."""

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.commands.run import run_async
from cometbatch.results import parts
from tests import virtual_time
from tests.test_retry_rows import answered
from tests.workbench import Network, Workbench

ASKED = ["red", "blue", "red", "green", "blue", "red", "red", "green"]
PARTITION_ROWS = 3


def bench_of(folder: Path, asked: Sequence[str | None] = ASKED, **columns: Sequence[object]) -> Workbench:
    """A table whose rows ask for these words; each has a name of its own."""
    bench = Workbench(folder)
    names = [f"row {row}" for row in range(len(asked))]
    bench.write_table(pa.table({"parcel": names, "note": list(asked), **columns}))
    return bench


def job_of(bench: Workbench, *, dedupe: bool = True, **sections: Any) -> cometbatch.Job:
    """A job that asks for the words alone, so that equal words are equal requests."""
    given: dict[str, Any] = {
        "output": {"partition_rows": PARTITION_ROWS},
        "retry": {"max_attempts": 1},
        "prompt": {"user": "Say {{ note }}"},
    }
    return cometbatch.load_job({"dedupe": dedupe, **bench.settings(**{**given, **sections})})


def carry_out(job: cometbatch.Job, network: Network, **options: Any) -> cometbatch.RunSummary:
    """Run a job on virtual time."""
    summary: cometbatch.RunSummary = virtual_time.run(run_async(job, progress=False, http=network, **options))
    return summary


def word_of(request: httpx.Request) -> str:
    """What a request asks for."""
    found = re.search(rb"Say ([a-z]+)", request.content)
    assert found is not None
    return found[1].decode()


def words(network: Network) -> list[str]:
    """What was asked for, in order."""
    return [word_of(each) for each in network.requests if each.method == "POST"]


def origins(bench: Workbench) -> list[int | None]:
    """From which row each took its answer."""
    return list(bench.result()["reused_ordinal"].to_pylist())


@pytest.mark.parametrize("ending", ["out.parquet", "out/"])
def test_equal_rows_are_sent_once_and_proved(tmp_path: Path, ending: str) -> None:
    """Three requests for eight rows: the ledger of the server, the sums and `verify` agree."""
    bench, network = bench_of(tmp_path), Network()
    job = job_of(bench, output={"path": f"{tmp_path}/{ending}", "partition_rows": PARTITION_ROWS})
    summary = carry_out(job, network)
    assert sorted(words(network)) == ["blue", "green", "red"]
    table = pa.concat_tables(
        [pq.read_table(path) for path in sorted(tmp_path.glob("out/*.parquet"))] or [bench.result()]
    )
    assert table["reused_ordinal"].to_pylist() == [None, None, 0, None, 1, 0, 0, 3]
    assert table["custom_id"].to_pylist() == [f"row {row}" for row in range(len(ASKED))]
    by_word = dict(zip(ASKED, table["response"].to_pylist(), strict=True))
    assert table["response"].to_pylist() == [by_word[word] for word in ASKED]
    assert summary.tally.reused == 5
    ledger = network.ledger
    assert (ledger["answered"], ledger["answered_more_than_once"]) == (3, 0)
    assert summary.cost_usd == Decimal(ledger["cost_usd"])
    assert summary.cost_usd == sum(table["cost_usd"].to_pylist())
    assert summary.tally.reused_cost_usd == sum(cost or 0 for cost in table["reused_cost_usd"].to_pylist())
    assert "reused: 5 rows took the answer of an equal row: $0." in summary.describe()
    assert "reused: 5 rows took the answer of an equal row: $0." in str(cometbatch.status(job).describe())
    report = cometbatch.verify(job)
    assert report.ok, str(report.describe())
    assert "equal" in [check.name for check in report.checks]


def test_plan_counts_what_run_sends(tmp_path: Path) -> None:
    """Before the run, and of what remains of it: different requests, rows that take an answer, what is saved."""
    bench, network = bench_of(tmp_path), Network()
    job = job_of(bench)
    before = cometbatch.plan(job, http=network)
    assert before.dedupe is not None
    assert (before.dedupe.requests, before.dedupe.rows, before.dedupe.memory_bytes) == (3, 5, 3 * 32)
    assert before.cost_usd is not None
    assert before.dedupe.saved_usd is not None
    assert before.dedupe.saved_usd > before.cost_usd
    assert "dedupe: 3 different requests sent, 5 rows take the answer of an equal row" in before.describe()
    assert not any("same prompt" in each for each in before.warnings)
    carry_out(job, network, limit=2)
    then = cometbatch.plan(job, http=network)
    assert then.dedupe is not None
    assert (then.dedupe.requests, then.dedupe.rows, then.done) == (1, 5, 2)
    carry_out(job, network)
    assert sorted(words(network)) == ["blue", "green", "red"]
    assert cometbatch.plan(job, http=network).dedupe is None


def test_a_retry_takes_the_answer_of_an_equal_row_and_else_sends_one(tmp_path: Path) -> None:
    """A failed row whose equal was answered takes that answer; of equal incomplete rows one is sent."""
    bench = bench_of(tmp_path)
    failed = iter(["red"])

    def bad_day(request: httpx.Request) -> httpx.Response | None:
        if request.method == "POST" and word_of(request) == next(failed, ""):
            return httpx.Response(400, json={"error": {"message": "not this one", "code": "bad_row"}})
        is_cut = request.method == "POST" and word_of(request) == "blue"
        return answered("Bl", "length") if is_cut else None

    job = job_of(bench, limits={"concurrency": 1})
    first = Network(answer=bad_day)
    carry_out(job, first)
    assert words(first) == ["red", "blue", "red", "green"]
    assert bench.result()["status"].to_pylist() == [
        *("failed", "incomplete", "succeeded", "succeeded"),
        *("incomplete", "succeeded", "succeeded", "succeeded"),
    ]
    assert cometbatch.verify(job).ok
    second = Network()
    carry_out(job, second, retry="failed,incomplete")
    assert words(second) == ["blue"]
    assert set(bench.result()["status"].to_pylist()) == {"succeeded"}
    assert origins(bench) == [2, None, None, None, 1, 2, 2, 3]
    assert cometbatch.verify(job).ok


def test_other_models_are_other_requests(tmp_path: Path) -> None:
    """Rows that name their model themselves are equal where the model is, too."""
    bench = bench_of(tmp_path, ["red"] * 4, m=["comet-sim-1", "comet-sim-1-mini", None, "comet-sim-1-mini"])
    network = Network()
    job = job_of(bench, target={"model_column": "m"})
    carry_out(job, network)
    assert words(network) == ["red"] * 2
    assert origins(bench) == [None, None, 0, 1]
    assert cometbatch.verify(job).ok


def test_answers_of_earlier_runs_come_first(tmp_path: Path) -> None:
    """Each of them is one row's; the equal rows beyond these take the answer of one that has it, and name who paid."""
    bench, network = bench_of(tmp_path, ["red", "red"]), Network()
    carry_out(job_of(bench, dedupe=False), network)
    assert network.posts == 2
    before = bench.output
    bench.output = tmp_path / "then.parquet"
    bench.write_table(pa.table({"parcel": list("abcdef"), "note": ["red"] * 5 + ["blue"]}))
    job = job_of(bench, reuse={"from": [str(before)]})
    summary = carry_out(job, network)
    assert network.posts == 3
    table = bench.result()
    run_id = pq.read_metadata(before).metadata[b"cometbatch.run_id"].decode()
    assert table["reused_from"].to_pylist() == [run_id] * 5 + [None]
    assert {*table["reused_ordinal"].to_pylist()[:2]} == {0, 1}
    assert {*table["reused_ordinal"].to_pylist()[2:5]} <= {0, 1}
    assert summary.tally.reused == 5
    assert cometbatch.verify(job).ok


def test_words_of_earlier_answers_count_no_row_as_sent_that_is_not(tmp_path: Path) -> None:
    """Nine rows ask what has an earlier answer that is not taken, and two of them are sent."""
    bench, network = bench_of(tmp_path, ["red", "blue"]), Network()
    carry_out(job_of(bench, dedupe=False, params={"max_output_tokens": 64}), network)
    before = bench.output
    bench.output = tmp_path / "then.parquet"
    bench.write_table(pa.table({"parcel": list("abcdefghij"), "note": ["red"] * 4 + ["blue"] * 5 + ["green"]}))
    job = job_of(bench, reuse={"from": [str(before)], "statuses": ["incomplete"]}, params={"max_output_tokens": 64})
    planned = cometbatch.plan(job, http=network)
    reused = planned.to_dict()["reused"]
    assert (reused["sent"], reused["not_taken"]) == (3, {"status": 9})
    assert "estimate for 3 requests: " in planned.describe()
    assert "9 rows take no earlier answer: the earlier answer is of a status" in planned.describe()
    summary = carry_out(job, network)
    assert network.posts == 2 + 3
    assert "are sent all the same" not in summary.describe()
    taken = job_of(bench, reuse={"from": [str(before)]}, output={"path": str(tmp_path / "taken.parquet")})
    assert cometbatch.plan(taken, http=network).to_dict()["reused"]["not_taken"] == {}
    assert carry_out(taken, network).to_dict()["reused"]["not_taken"] == {}


def test_rows_that_can_not_be_rendered_fail_by_themselves(tmp_path: Path) -> None:
    """Nothing was sent for them, so there is no answer that others could take."""
    bench, network = bench_of(tmp_path, ["red", None, "red", None]), Network()
    job = job_of(bench, prompt={"user": "Say {{ note }}{{ none.at_all if note is none }}"})
    summary = carry_out(job, network)
    assert (summary.succeeded, summary.failed, network.posts) == (2, 2, 1)
    assert cometbatch.verify(job).ok


def test_a_run_that_began_without_says_that_each_row_is_sent(tmp_path: Path) -> None:
    """It has no columns that tell whose answer a row has."""
    bench, network = bench_of(tmp_path), Network()
    carry_out(job_of(bench, dedupe=False), network, limit=1)
    job = job_of(bench)
    assert cometbatch.plan(job, http=network).dedupe is None
    assert any("began without" in each and "dedupe" in each for each in cometbatch.plan(job, http=network).warnings)
    summary = carry_out(job, network)
    assert network.posts == len(ASKED)
    assert any("began without" in each for each in summary.warnings)


def test_verify_finds_an_answer_that_is_not_the_equal_rows(tmp_path: Path) -> None:
    """In every file the same text was put in place of it: the row that it was taken from tells."""
    bench = bench_of(tmp_path)
    job = job_of(bench)
    carry_out(job, Network())

    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index("response")
        texts = [
            "made up" if origin == 1 else text
            for origin, text in zip(table["reused_ordinal"].to_pylist(), table["response"].to_pylist(), strict=True)
        ]
        return table.set_column(place, table.schema.field("response"), pa.array(texts, pa.large_string()))

    for path in [*bench.run_directory.glob("parts/*"), bench.output]:
        told = pq.read_metadata(path).metadata
        table = change(pq.read_table(pa.BufferReader(path.read_bytes())))
        with pq.ParquetWriter(path, table.schema, write_page_checksum=True) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata(
                {key: value for key, value in told.items() if key not in (b"ARROW:schema", parts.SUM_KEY)}
            )
    failed = {check.name: check.places for check in cometbatch.verify(job).checks if check.state == "failed"}
    assert failed == {"equal": ("row 4: its answer is not that of row 1, from which it was taken",)}


@pytest.mark.parametrize("value", ["yes please", 3, {"on": True}])
def test_dedupe_is_true_or_false(tmp_path: Path, value: object) -> None:
    """Anything else is refused with its place."""
    with pytest.raises(cometbatch.UsageError, match=r"dedupe: expected true or false"):
        cometbatch.load_job({"dedupe": value, **bench_of(tmp_path).settings()})
