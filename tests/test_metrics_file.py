"""The file for Prometheus' textfile collector: what it says, and that it never costs more than a warning."""

import math
import os
import stat
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import cometbatch
from cometbatch.commands import metrics_file
from cometbatch.commands.metrics_file import LAST_SUCCESS, METRICS, MetricsFile, text_of
from cometbatch.commands.observers import Moment
from cometbatch.records import Tally, Usage
from cometbatch.runner.ports import Pace
from tests import virtual_time
from tests.workbench import Network, Workbench, simulator

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
values = st.integers(-(10**15), 10**15) | st.floats(allow_nan=False) | st.decimals(-1000, 1000, places=12)


def read(path: Path) -> dict[str, dict[tuple[str, ...], float]]:
    """Each metric of the file, as a parser of Prometheus' own library reads it: by the values of its further labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
        assert family.documentation
        for sample in family.samples:
            about = METRICS[sample.name]
            assert family.type == about.kind
            assert sample.labels["name"] == path.stem
            labels = tuple(sample.labels[label] for label in about.labels)
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def carry_out(job: cometbatch.Job, network: Network, file: Path, **options: Any) -> cometbatch.RunSummary:
    """A run on virtual time that keeps metrics."""
    options = {"progress": False} | options
    return virtual_time.run(cometbatch.run_async(job, http=network, metrics_file=file, **options))


@given(st.dictionaries(st.sampled_from(["succeeded", "failed", "a\\b"]), values), texts, texts)
def test_what_is_written_is_what_a_parser_reads(rows: dict[str, Any], name: str, output: str) -> None:
    """Whatever stands in labels, and whatever numbers there are."""
    samples: metrics_file.Samples = {
        "cometbatch_rows_total": {(status, output): value for status, value in rows.items()},
        "cometbatch_run_info": {("id", output, "1"): 1},
        "cometbatch_pace_per_second": {(): math.inf},
    }
    families = {each.name: each for each in text_string_to_metric_families(text_of(samples, name))}
    (info,) = families["cometbatch_run_info"].samples
    assert (info.labels["name"], info.labels["output"], info.value) == (name, output, 1)
    assert families["cometbatch_pace_per_second"].samples[0].value == math.inf
    if rows:
        found = {each.labels["status"]: each.value for each in families["cometbatch_rows"].samples}
        assert found == {status: float(value) for status, value in rows.items()}


def test_a_finished_run_says_what_its_summary_says(bench: Workbench) -> None:
    """Rows by status and kind, cost, tokens, retries and refusals; others may read the file."""
    bench.write_rows(200)
    file = bench.folder / "triage.prom"
    job = bench.job(simulator={}, budget={"max_cost_usd": Decimal(3)})
    summary = carry_out(job, simulator("429:0.1", "400:0.1", "length:0.1"), file)
    found, tally = read(file), summary.tally
    assert 0 < summary.failed < 100
    assert 0 < summary.incomplete < 100
    expected = {("succeeded", ""): summary.succeeded, ("failed", "invalid_request"): summary.failed}
    assert found["cometbatch_rows_total"] == expected | {("incomplete", "length"): summary.incomplete}
    assert found["cometbatch_cost_usd_total"][()] == float(summary.cost_usd or 0)
    tokens = [found["cometbatch_tokens_total"][(kind,)] for kind in metrics_file.TOKENS]
    assert tokens == [getattr(tally, name) for name in Usage.__struct_fields__[:5]]
    single = {name: found[f"cometbatch_{name}"][()] for name in ("retries_total", "rate_limited_total", "finished")}
    assert single == {"retries_total": summary.retries, "rate_limited_total": summary.pushbacks, "finished": 1}
    assert (found["cometbatch_input_rows"][()], found["cometbatch_budget_usd"][()]) == (200, 3)
    assert found["cometbatch_exit_code"][()] == 3
    assert LAST_SUCCESS not in found
    assert list(found["cometbatch_run_info"]) == [(summary.run_id, str(bench.output), cometbatch.__version__)]
    assert found.keys() <= METRICS.keys()
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask()
    assert [path.name for path in bench.folder.iterdir() if "prom" in path.name] == ["triage.prom"]


def umask() -> int:
    """The umask of this process, which nobody can read without setting it."""
    found = os.umask(0)
    os.umask(found)
    return found


def test_the_last_success_outlives_nights_that_fail(bench: Workbench) -> None:
    """An alert on its age fires however a night fails: with failed rows, with a stop, before its first request."""
    file = bench.folder / "triage.prom"
    carry_out(bench.job(), simulator(), file)
    good = read(file)[LAST_SUCCESS][()]
    carry_out(bench.job(), simulator("400:1"), file, fresh=True)
    assert (read(file)["cometbatch_exit_code"][()], read(file)[LAST_SUCCESS][()]) == (3, good)
    with pytest.raises(cometbatch.BudgetReachedError):
        carry_out(bench.job(budget={"max_cost_usd": Decimal("0.0002")}), simulator(), file, fresh=True)
    found = read(file)
    assert (found["cometbatch_exit_code"][()], found["cometbatch_finished"][()], found[LAST_SUCCESS][()]) == (
        4,
        0,
        good,
    )
    with pytest.raises(cometbatch.UsageError):
        carry_out(bench.job(prompt={"user": "{{ nobody }}"}), simulator(), file)
    assert (read(file)["cometbatch_exit_code"][()], read(file)[LAST_SUCCESS][()]) == (2, good)
    carry_out(bench.job(), simulator(), file)
    assert read(file)["cometbatch_exit_code"][()] == 0
    assert read(file)[LAST_SUCCESS][()] > good


def moment(at: float, rows: int) -> Moment:
    """A look at a run at this time, with so many rows answered."""
    return Moment(at, Tally(succeeded=rows), 3, "", Pace(8, 2.5))


def test_it_is_written_while_the_run_goes_on(tmp_path: Path) -> None:
    """Each 15 s, with what is recorded by then, and no exit code before the end."""
    written: list[dict[str, Any]] = []

    def write(_path: Path, data: bytes) -> None:
        written.append({each.name: each.samples[0].value for each in text_string_to_metric_families(data.decode())})

    metrics = MetricsFile(tmp_path / "x.prom", write=write)
    for second in range(60):
        before = len(written)
        metrics.looked(moment(second, 10 * second))
        while second % 15 == 0 and len(written) == before:
            threading.Event().wait(0.001)
    metrics.ended(None, KeyboardInterrupt())
    assert [each["cometbatch_rows"] for each in written] == [0, 150, 300, 450, 450]
    assert [each.get("cometbatch_exit_code") for each in written] == [None] * 4 + [130]
    assert written[0]["cometbatch_pace_per_second"] == 2.5


@pytest.mark.parametrize("place", ["no/such/folder/x.prom", "in.csv/x.prom", "taken.prom"])
def test_a_place_that_takes_no_file_costs_one_warning(
    bench: Workbench, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is what it would have been."""
    (bench.folder / "taken.prom").mkdir()
    summary = carry_out(bench.job(), simulator(), bench.folder / place, progress=None)
    assert summary.all_succeeded
    assert capsys.readouterr().err.count("Warning: the metrics file can't be written: ") == 1


def test_a_full_disk_costs_one_warning(tmp_path: Path) -> None:
    """However often the file can't be written; and a disk that takes it again gets it."""
    path, told, written = tmp_path / "x.prom", list[str](), list[bytes]()

    def write(_path: Path, data: bytes) -> None:
        written.append(data)
        if len(written) < 4:
            raise cometbatch.CheckpointError(f"{path}: can't be written (No space left on device).")
        path.write_bytes(data)

    metrics = MetricsFile(path, write=write)
    metrics.complain = told.append
    for look in range(4):
        metrics.looked(moment(15 * look, look))
        while len(written) <= look:
            threading.Event().wait(0.001)
    metrics.ended(None, ValueError())
    assert told == [
        f"the metrics file can't be written: {path}: can't be written (No space left on device). The run goes on."
    ]
    assert read(path)["cometbatch_exit_code"][()] == 1


def test_whatever_goes_wrong_is_a_warning(tmp_path: Path) -> None:
    """Also what nobody has thought of, such as a name that is no name."""
    told = list[str]()
    metrics = MetricsFile(tmp_path / "a\0b.prom")
    metrics.complain = told.append
    metrics.ended(None, ValueError())
    assert ["ValueError" in words for words in told] == [True]


def test_a_dead_disk_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run waits some seconds for its last metrics, and says so."""
    monkeypatch.setattr(metrics_file, "LAST_WRITE_S", 0.01)
    over, told = threading.Event(), list[str]()

    def write(_path: Path, _data: bytes) -> None:
        over.wait()

    metrics = MetricsFile(tmp_path / "x.prom", write=write)
    metrics.complain = told.append
    metrics.ended(None, ValueError())
    over.set()
    assert ["did not answer" in words for words in told] == [True]


def test_the_name_has_the_ending_that_the_collector_reads(bench: Workbench) -> None:
    """Another is refused before anything is sent: nobody would ever read it."""
    network = simulator()
    for name in ("metrics", "x.prom.tmp", "x.txt", ".prom"):
        with pytest.raises(cometbatch.UsageError, match=r"must end in \.prom"):
            carry_out(bench.job(), network, bench.folder / name)
    assert network.posts == 0


def test_a_run_that_another_process_has_leaves_its_metrics_alone(bench: Workbench) -> None:
    """They are that process's."""
    file = bench.folder / "x.prom"
    file.write_text("theirs\n", encoding="utf-8")
    metrics = MetricsFile(file)
    metrics.locked(by_others=True)
    metrics.ended(None, cometbatch.RunLockedError("somebody has it"))
    assert file.read_text(encoding="utf-8") == "theirs\n"


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"cometbatch_last_success_timestamp_seconds{} e\n", b"x" * 10**6]
)
def test_what_stood_there_before_may_be_anything(bench: Workbench, content: bytes) -> None:
    """It is replaced."""
    file = bench.folder / "x.prom"
    file.write_bytes(content)
    carry_out(bench.job(), simulator("400:1"), file)
    assert read(file)["cometbatch_exit_code"][()] == 3
    assert LAST_SUCCESS not in read(file)
