"""The first pass of a page: its numbers are those of `status`, `compare` and the run's summary."""

import json
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.commands.report import told_of
from cometbatch.commands.result_sources import named_results
from cometbatch.job.report import ReportSettings
from cometbatch.money.exact import format_amount
from cometbatch.reports.figures import figures
from cometbatch.reports.page.survey import Survey, Surveying, Told, survey
from cometbatch.reports.page.troubles import RetryCommand
from cometbatch.reports.sources import ResultFiles, Tables
from tests import virtual_time
from tests.page.results import evaluated
from tests.reports.results import failed, incomplete, right, write, wrong
from tests.test_asked_again import GOOD, PRICES, PROSE, Ledger
from tests.test_retry_rows import uneven
from tests.workbench import Network, Workbench, leave_in_flight, simulator

MOMENT = datetime(2026, 11, 30, 19, 0, tzinfo=UTC)
FAULTS = ("400:0.1", "prompt-blocked:0.1", "length:0.1", "no-usage:0.1", "reset:0.1")
MONEY = (
    "usd", "unpriced", "at_least", "possible_usd", "possible_unknown", "reused_rows", "reused_saved_usd",
    "rejected_asks", "rejected_usd", "replaced_usd", "judge_usd",
)  # fmt: skip
"""What a result alone tells of its cost, too."""


def run(path: Path, network: httpx.AsyncBaseTransport, **options: Any) -> None:
    """Run a job file, as far as it gets."""
    with_stops = cometbatch.run_async(cometbatch.load_job(path), progress=False, http=network, **options)
    virtual_time.run(with_stops)


def job_of(folder: Path, rows: int = 60, **sections: Any) -> tuple[Workbench, Path]:
    """A job file over some rows."""
    bench = Workbench(folder)
    bench.write_rows(rows)
    return bench, bench.write_job(**{"output": {"partition_rows": 16}, **sections})


def troubled(folder: Path) -> Path:
    """Rows that fail, are cut, have no token counts, and requests that got no answer."""
    _, path = job_of(folder, retry={"max_attempts": 2})
    run(path, simulator(*FAULTS))
    return path


def asked_again(folder: Path) -> Path:
    """Answers that did not fit, and were paid for."""
    _, path = job_of(folder, 30, response={"json": True, "max_asks": 3}, prices=PRICES)
    some, service = Ledger(GOOD), Ledger(PROSE, GOOD)
    some.instead = lambda request: some if b"note 1" in request.content else service
    run(path, some)
    return path


def stopped_between_asks(folder: Path) -> Path:
    """A run that has paid for answers of rows without an outcome."""
    _, path = job_of(folder, response={"json": True, "max_asks": 3}, prices=PRICES)
    with pytest.raises(cometbatch.ServiceRefusedError):
        run(path, Ledger(PROSE))
    return path


def deduped(folder: Path) -> Path:
    """Rows that take the answers of equal ones."""
    bench = Workbench(folder)
    bench.write_table(pa.table({"parcel": [str(at) for at in range(20)], "note": [str(at % 7) for at in range(20)]}))
    path = bench.write_job(dedupe=True, prompt={"user": "Say {{ note }}"})
    run(path, simulator("length:0.3"))
    return path


def retried(folder: Path) -> Path:
    """Rows that were answered again: what they had cost before is no longer in the cost."""
    _, path = job_of(folder, 12, retry={"max_attempts": 1})
    run(path, Network(answer=uneven))
    run(path, simulator(), retry=["incomplete"])
    return path


def prefixed(folder: Path) -> Path:
    """Output columns with a prefix, in a data set."""
    _, path = job_of(folder, output={"path": f"{folder}/set/", "prefix": "a_", "partition_rows": 16})
    run(path, simulator(*FAULTS))
    return path


def of_cells(folder: Path) -> Path:
    """Three models, two samples."""
    evaluated(folder)
    return folder / "job.yaml"


def limited(folder: Path) -> Path:
    """A run that has answered its first rows."""
    _, path = job_of(folder, retry={"max_attempts": 2})
    run(path, simulator(*FAULTS), limit=25)
    return path


def in_flight(folder: Path) -> Path:
    """A run whose process was killed with requests on the way."""
    bench, path = job_of(folder)
    run(path, simulator(), limit=20)
    leave_in_flight(bench, [30, 31])
    return path


def surveyed(*targets: Path, limit: int = 100_000) -> Survey:
    """The first pass over what a person named."""
    results = named_results(targets, purpose="show", needs_scores=False)
    return survey([each.source for each in results], [told_of(each) for each in results], limit=limit, seed=0)


FINISHED = (troubled, asked_again, deduped, retried, prefixed, of_cells)


@pytest.mark.parametrize("make", [*FINISHED, limited, in_flight, stopped_between_asks])
def test_the_numbers_are_those_of_status(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """Outcomes, costs, tokens and attempts, of finished and unfinished runs; failures by kind."""
    path = make(tmp_path)
    said, found = cometbatch.status(path).to_dict(), surveyed(path)
    (overview,) = found.overview()["sources"]
    names = ("succeeded", "incomplete", "failed", "remaining")
    assert overview["outcomes"] == {name: said[name] for name in names}
    assert overview["cost"] == {
        "usd": said["cost_usd"],
        "unpriced": said["unpriced"],
        "at_least": said["cost_excludes"]["rows"],
        "possible_usd": said["thrown_cost_usd"],
        "possible_requests": said["thrown"],
        "possible_unknown": said["thrown_unpriced"],
        "reused_rows": said["reused"]["rows"],
        "reused_saved_usd": said["reused"]["saved_usd"],
        "rejected_asks": said["rejected"]["asks"],
        "rejected_usd": said["rejected"]["cost_usd"],
        "replaced_rows": said["replaced"]["rows"],
        "replaced_usd": said["replaced"]["cost_usd"],
        "judge_usd": None,
    }
    usage = said["usage"]
    assert [overview["tokens"][name] for name in ("input", "output", "cache_read", "reasoning")] == [
        usage[f"{name}_tokens"] for name in ("input", "output", "cache_read_input", "reasoning_output")
    ]
    assert overview["time"]["attempts"] == said["attempts"]
    by_kind = {(each.status, each.kind): each.rows for each in found.troubles}
    assert by_kind == {("failed", kind): rows for kind, rows in said["failures"].items()} | {
        ("incomplete", kind): rows for kind, rows in said["incompletes"].items()
    }
    (described,) = found.described_sources()
    assert (described["run_id"], described["calls"]) == (said["run_id"], said["rows"])
    assert described["rows"] == described["in_page"] == said["rows"] - said["remaining"]
    assert described["state"] == ("finished" if said["finished"] else "stopped")


@pytest.mark.parametrize("make", FINISHED)
def test_a_result_alone_tells_the_same(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """From its columns and its metadata; how many requests may have been billed, only the run knows."""
    (tmp_path / "first").mkdir()
    known = surveyed(make(tmp_path / "first"))
    output = next(each for each in (tmp_path / "first").iterdir() if each.name in ("out.parquet", "set"))
    moved = tmp_path / "moved" / output.name
    moved.parent.mkdir()
    shutil.move(output, moved)
    alone = surveyed(moved)
    (first,), (second,) = known.overview()["sources"], alone.overview()["sources"]
    assert second["cost"]["possible_requests"] is None
    has_bill = moved.is_file()  # the parts of a data set do not know how the run ended
    assert {name: second["cost"][name] for name in MONEY if has_bill or "possible" not in name} == {
        name: first["cost"][name] for name in MONEY if has_bill or "possible" not in name
    }
    assert [second[part] for part in ("outcomes", "tokens", "time")] == [
        first[part] for part in ("outcomes", "tokens", "time")
    ]
    assert alone.series == known.series
    assert alone.described_sources()[0]["run_id"] == known.described_sources()[0]["run_id"]


def test_the_numbers_are_those_of_compare(tmp_path: Path) -> None:
    """Costs, and latencies, of which `status` knows those of parts alone."""
    rows = [right(cost_usd=Decimal(f"0.00{at}"), latency_s=at / 7) for at in range(1, 9)]
    rows += [wrong(), failed(input_tokens=None, output_tokens=None), incomplete(latency_s=2.0)]
    path = write(tmp_path / "a.parquet", [({"model": "m"}, [rows])], has_matrix=False)
    found = figures([ResultFiles("a", (path,))], ReportSettings())
    assert found is not None
    (line,), (overview,) = found.lines, surveyed(path).overview()["sources"]
    assert line.cost_usd is not None
    assert overview["cost"]["usd"] == format_amount(line.cost_usd)
    assert overview["outcomes"]["failed"] == line.failed
    assert (overview["time"]["latency_p50_s"], overview["time"]["latency_p95_s"]) == (line.p50_s, line.p95_s)
    assert (overview["tokens"]["input"], overview["tokens"]["output"]) == (line.input_tokens, line.output_tokens)


def test_amounts_stay_exact(tmp_path: Path) -> None:
    """Sums of amounts that no float holds, over several groups of rows."""
    cost = Decimal("1234567890.000000000000000001")
    rows = [right(cost_usd=cost)] * 2_500
    path = write(tmp_path / "a.parquet", [({"model": "m"}, [rows])], has_matrix=False)
    assert surveyed(path).overview()["sources"][0]["cost"]["usd"] == "3086419725000.0000000000000025"


def test_a_kind_of_failure_has_an_example_and_the_next_command(tmp_path: Path) -> None:
    """The example is a row of the page, and the command one that the run takes."""
    path = troubled(tmp_path)
    found = surveyed(path)
    table = pq.read_table(tmp_path / "out.parquet")
    for each in found.troubles:
        assert each.example is not None
        assert found.chosen.has(each.example["file"], each.example["ordinal"])
        row = table.slice(each.example["ordinal"], 1).to_pylist()[0]
        assert each.kind in (row["error_kind"], row["finish_reason"])
        assert each.example["message"] == row["error_message"][:300]
        more = " --set params.max_output_tokens=256" if each.kind == "length" else ""
        assert each.commands == (RetryCommand(0, each.rows, f"cometbatch run {path} --retry {each.kind}{more}"),)
        assert each.words.endswith(".")
    assert {each.kind for each in found.troubles} >= {"invalid_request", "blocked", "length"}
    assert list(found.troubles) == sorted(found.troubles, key=lambda each: -each.rows)


def test_each_of_two_runs_has_its_own_command(tmp_path: Path) -> None:
    """Two nights side by side: what asks the rows of a kind again, with the count of each."""
    for name in ("monday", "tuesday"):
        (tmp_path / name).mkdir()
    paths = [troubled(tmp_path / "monday"), limited(tmp_path / "tuesday")]
    alone = [{each.kind: each.rows for each in surveyed(path).troubles} for path in paths]
    found = {each.kind: each for each in surveyed(*paths).troubles}
    for kind in ("invalid_request", "blocked"):
        assert found[kind].commands == tuple(
            RetryCommand(at, alone[at][kind], f"cometbatch run {path} --retry {kind}")
            for at, path in enumerate(paths)
            if kind in alone[at]
        )
    assert max(len(each.commands) for each in found.values()) == 2


def test_without_the_job_file_the_advice_says_what_to_run(tmp_path: Path) -> None:
    """A result alone knows no command; of several results, each has its own count."""
    rows = [failed(error_kind="blocked", error_message="x" * 999), right(), incomplete(finish_reason="length")]
    paths = [write(tmp_path / f"{name}.parquet", [({"model": "m"}, [rows])], has_matrix=False) for name in "ab"]
    found = {each.kind: each for each in surveyed(*paths).troubles}
    assert found["blocked"].commands == (RetryCommand(0, 1, None), RetryCommand(1, 1, None))
    assert found["blocked"].rows == 2
    assert found["blocked"].example == {"file": 0, "ordinal": 0, "message": "x" * 300}
    assert found["blocked"].advice == (
        "Change the prompt, or ask another model: the same request would be blocked again. Ask them again with the "
        "job's file: cometbatch run JOB_FILE --retry blocked"
    )
    assert found["length"].words == "The answer is cut at the model's own token limit."


def test_rows_that_stand_out_are_in_the_page(tmp_path: Path) -> None:
    """The slowest, dearest and longest, the most first, by the names of their rows."""
    rows = [right(cost_usd=Decimal(at) / 1000, latency_s=100 - at / 2, output_tokens=at) for at in range(1, 150)]
    path = write(tmp_path / "a.parquet", [({"model": "m"}, [rows])], has_matrix=False)
    found = surveyed(path, limit=70)
    lists = found.overview()["extremes"]
    assert lists["dearest"][0] == {"file": 0, "ordinal": 148, "value": 0.149, "label": "q148"}
    assert [each["value"] for each in lists["slowest"]] == []  # the dearest took all places
    assert [each["value"] for each in lists["longest"]] == list(range(149, 139, -1))
    assert lists["length_unit"] == "tokens"
    assert found.in_page(0) == 70


def test_without_token_counts_the_longest_answers_are_those_with_the_most_characters(tmp_path: Path) -> None:
    """And rows without a name go by their place."""
    rows = [
        right(response="é" * at, output_tokens=None, input_tokens=None, custom_id=None, cost_usd=None)
        for at in range(1, 30)
    ]
    path = write(tmp_path / "a.parquet", [({"model": "m"}, [rows])], has_matrix=False)
    found = surveyed(path)
    assert found.overview()["extremes"]["length_unit"] == "characters"
    assert found.longest[0].value == 29
    assert found.longest[0].label == "row 28"
    assert found.overview()["sources"][0]["tokens"]["input"] is None
    assert found.overview()["sources"][0]["cost"]["usd"] is None


def test_answers_of_earlier_runs_are_not_in_the_series(tmp_path: Path) -> None:
    """Their times are of then."""
    found = surveyed(deduped(tmp_path))
    assert found.series is not None
    assert sum(found.series.succeeded) + sum(found.series.others) == 7
    assert found.series.cost_usd[-1] == pytest.approx(float(found.overview()["sources"][0]["cost"]["usd"]))


def test_a_survey_goes_on_with_further_rows(tmp_path: Path) -> None:
    """Two halves of a result, one after the other, are the whole; what was found can be asked for in between."""
    rows = [right(latency_s=at / 9, finished_at=MOMENT + timedelta(seconds=at)) for at in range(40)]
    rows[7] = failed(error_kind="timeout", error_message="too late", finished_at=MOMENT)
    whole = write(tmp_path / "a.parquet", [({"model": "m"}, [rows])], has_matrix=False)
    surveying = Surveying(100, 0)
    for part in (slice(0, 15), slice(15, 40)):
        surveying.add(0, _Part("a", ResultFiles("a", (whole,)), part))
        surveying.found([Told()])
    found = surveying.found([Told()])
    expected = survey([ResultFiles("a", (whole,))], [Told()], limit=100, seed=0)
    assert found.overview() == expected.overview()
    assert found.described_sources() == expected.described_sources()
    assert json.loads(json.dumps(found.overview())) == found.overview()  # JSON-ready


class _Part(NamedTuple):
    """Some lines of a result."""

    name: str
    whole: ResultFiles
    part: slice
    is_whole: bool = True

    @property
    def schema(self) -> pa.Schema:
        return self.whole.schema

    def tables(self, names: Sequence[str]) -> Tables:
        table = pa.concat_tables([table for _, table in self.whole.tables(names)])
        places = range(self.part.start, self.part.stop)
        yield places, table.slice(places.start, len(places))
