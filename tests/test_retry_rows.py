"""`--retry`: just the rows that match are answered again, and no crash leaves it half done."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.cli import resuming
from cometbatch.records import Completion, FailureKind, FinishReason, Usage
from cometbatch.results import parts
from cometbatch.results.retry_words import read_words
from cometbatch.run_state import reopen
from cometbatch.run_state.begin import next_session
from cometbatch.run_state.directory import REOPENED, RunDirectory
from cometbatch.run_state.run import find
from cometbatch.run_state.sessions import Who
from cometbatch.wire import chat
from tests import virtual_time
from tests.workbench import MODEL, Network, Workbench, carry_out, files, leave_in_flight, peak_bytes, simulator

ROWS, PARTITION_ROWS = 12, 4
SETTINGS: dict[str, Any] = {"output": {"partition_rows": PARTITION_ROWS}, "retry": {"max_attempts": 1}}
CUT_COST = Decimal("0.0000125")  # 10 tokens in and 5 out at the model's 0.5 and 1.5 US dollars per million

# How the rows of the first run end: of partition 0 all whole, of 1 and 2 two whole, one refused, one cut or empty.
ENDINGS = {6: "refused", 7: "cut", 9: "overloaded", 10: "empty"}


def row_of(request: httpx.Request) -> int | None:
    """Which row of the workbench's table a request is for."""
    found = re.search(rb"Parcel ([0-9]+)", request.content)
    return int(found[1]) if found else None


def answered(text: str, reason: FinishReason) -> httpx.Response:
    """A reply of the service to a chat request."""
    reply = chat.build_response(MODEL, Completion(text, reason, Usage(10, 5)))
    return httpx.Response(reply.status, headers=reply.headers, content=reply.body)


def uneven(request: httpx.Request) -> httpx.Response | None:
    """A service with a bad day."""
    match ENDINGS.get(row_of(request) or 0):
        case "refused":
            return httpx.Response(400, json={"error": {"message": "not this one", "code": "bad_row"}})
        case "overloaded":
            return httpx.Response(503, json={"error": {"message": "come back later"}})
        case "cut":
            return answered("Half an ans", "length")
        case "empty":
            return answered("", "stop")
    return None


def sent(network: Network) -> list[int]:
    """The rows that were sent, ascending."""
    return sorted(row for row in map(row_of, network.requests) if row is not None)


def read(output: Path) -> pa.Table:
    """A result as its readers see it: the file, or the data set's `*.parquet`, in order."""
    paths = sorted(output.glob("*.parquet")) if output.is_dir() else [output]
    return pa.concat_tables([pq.read_table(path) for path in paths])


def retried(job: cometbatch.Job, network: Network, *words: str) -> cometbatch.RunSummary:
    """The run of a job with these kinds of rows answered again, on virtual time."""
    return virtual_time.run(cometbatch.run_async(job, retry=words, progress=False, http=network))


@pytest.fixture
def finished(bench: Workbench) -> Workbench:
    """A finished run with two failed rows and two incomplete ones."""
    carry_out(bench.job(**SETTINGS), Network(answer=uneven))
    statuses = bench.result()["status"].to_pylist()
    assert [row for row, status in enumerate(statuses) if status == "failed"] == [6, 9]
    assert [row for row, status in enumerate(statuses) if status == "incomplete"] == [7, 10]
    return bench


# -- which rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (["failed"], [6, 9]),
        (["incomplete"], [7, 10]),
        (["failed", "incomplete"], [6, 7, 9, 10]),
        (["invalid_request"], [6]),
        (["overloaded"], [9]),
        (["length"], [7]),
        (["stop"], [10]),
        (["length", "overloaded", "timeout"], [7, 9]),
    ],
)
def test_just_the_rows_that_match_are_answered_again(finished: Workbench, words: list[str], rows: list[int]) -> None:
    """The others keep every cell of their outcome; those that match get a new one, their attempts counted anew."""
    before, network = finished.result(), Network()
    summary = retried(finished.job(**SETTINGS), network, *words)
    after = finished.result()
    kept = [row for row in range(ROWS) if row not in rows]
    assert sent(network) == rows
    assert after.take(kept).equals(before.take(kept), check_metadata=True)
    assert after.take(rows)["status"].to_pylist() == ["succeeded"] * len(rows)
    assert after.take(rows)["attempts"].to_pylist() == [1] * len(rows)
    assert (summary.finished, summary.reopened, summary.succeeded) == (True, len(rows), 8 + len(rows))
    assert cometbatch.verify(finished.output).ok


@pytest.mark.parametrize("word", ["timeout", "refusal", "template"])
def test_where_no_row_matches_nothing_happens(finished: Workbench, word: str) -> None:
    """It says so, ends as the finished run did, sends nothing and changes no file."""
    before, network = files(finished.folder), Network()
    summary = retried(finished.job(**SETTINGS), network, word)
    assert (network.requests, files(finished.folder)) == ([], before)
    assert (summary.finished, summary.had_work, summary.reopened, summary.all_succeeded) == (True, False, 0, False)
    assert "no row matches --retry" in summary.describe()


@pytest.mark.parametrize("words", ["failing", "failed,nonsense", {"succeeded"}, ""])
def test_an_unknown_word_is_refused_with_the_list(finished: Workbench, words: str | set[str]) -> None:
    """A misspelt kind must not pass for one that no row is of."""
    with pytest.raises(cometbatch.UsageError) as caught:
        cometbatch.run(finished.job(**SETTINGS), retry=words or {""})
    for word in ("failed", "incomplete", *get_args(FailureKind), *get_args(FinishReason)):
        assert word in str(caught.value)


def test_text_is_split_at_its_commas() -> None:
    """The command's form works in Python too."""
    assert read_words("failed, length").words == {"failed", "length"} == read_words(["length", "failed"]).words


def test_retry_and_fresh_exclude_each_other(finished: Workbench) -> None:
    """One keeps what the other forgets."""
    with pytest.raises(cometbatch.UsageError, match="exclude each other"):
        cometbatch.run(finished.job(**SETTINGS), fresh=True, retry={"failed"})


def test_a_missing_key_is_noticed_before_anything_is_taken_back(finished: Workbench) -> None:
    """The old result stands as if nobody had asked."""
    before = files(finished.folder)
    settings = {**SETTINGS, "target": {"base_url": "http://127.0.0.1:9"}}
    manifest = finished.run_directory / "manifest.json"
    text = manifest.read_text(encoding="utf-8").replace('"target.service": "simulator"', '"target.service": "loopback"')
    manifest.write_text(text, encoding="utf-8")
    with pytest.raises(cometbatch.UsageError, match="COMETAPI_KEY"):
        cometbatch.run(finished.job(**settings), retry={"failed"})
    after = files(finished.folder)
    assert {name: kept for name, kept in after.items() if "manifest" not in name} == {
        name: kept for name, kept in before.items() if "manifest" not in name
    }


def test_on_a_run_that_was_never_begun_it_just_runs(bench: Workbench) -> None:
    """There is nothing to reset."""
    summary = retried(bench.job(**SETTINGS), Network(), "failed")
    assert (summary.finished, summary.reopened, summary.succeeded) == (True, 0, ROWS)


# -- the result, meanwhile ---------------------------------------------------------------------------------------------


def test_the_old_result_stands_until_the_new_one_is_published(finished: Workbench) -> None:
    """A reader of the output finds one table or the other, whole, at every moment."""
    before = finished.output.read_bytes()
    seen: list[bytes] = []

    def look(request: httpx.Request) -> None:
        seen.append(finished.output.read_bytes())

    retried(finished.job(**SETTINGS), Network(answer=look), "failed")
    assert seen == [before] * len(seen) != []
    assert finished.output.read_bytes() != before


def test_a_data_set_never_lacks_a_part(bench: Workbench) -> None:
    """An old part stays until the new one replaces it."""
    settings = {**SETTINGS, "output": {**SETTINGS["output"], "path": f"{bench.folder}/out/"}}
    carry_out(bench.job(**settings), Network(answer=uneven))
    counts: list[int] = []

    def look(request: httpx.Request) -> None:
        counts.append(read(bench.folder / "out").num_rows)

    summary = retried(bench.job(**settings), Network(answer=look), "failed", "incomplete")
    assert (set(counts), summary.all_succeeded) == ({ROWS}, True)
    assert cometbatch.verify(bench.folder / "out").ok


def test_a_finished_retry_is_a_finished_run(finished: Workbench) -> None:
    """The same command without --retry sends and changes nothing; with it, it finds nothing to do."""
    job = finished.job(**SETTINGS)
    retried(job, Network(), "failed", "incomplete")
    before, network = files(finished.folder), Network()
    assert carry_out(job, network).had_work is False
    assert retried(job, network, "failed").reopened == 0
    assert (network.requests, files(finished.folder)) == ([], before)


def test_rows_that_fail_again_can_be_retried_again(finished: Workbench) -> None:
    """A second round is as good as the first, and its bill comes on top."""
    job = finished.job(**SETTINGS)
    first = retried(job, Network(answer=uneven), "incomplete")
    assert (first.incomplete, first.replaced.calls, first.replaced.cost_usd) == (2, 2, 2 * CUT_COST)
    second = retried(job, Network(), "length")
    assert (second.incomplete, second.replaced.calls, second.replaced.cost_usd) == (1, 3, 3 * CUT_COST)
    assert cometbatch.verify(finished.output).ok


# -- the bill ----------------------------------------------------------------------------------------------------------


def test_what_was_taken_back_stays_on_the_bill(finished: Workbench) -> None:
    """Incomplete rows were billed: count and cost stand apart in every later summary and status."""
    job = finished.job(**SETTINGS)
    retried(job, Network(), "failed", "incomplete")
    for summary in (carry_out(job, Network()), cometbatch.status(finished.output).summary):
        assert (summary.replaced.calls, summary.replaced.incomplete, summary.replaced.failed) == (4, 2, 2)
        assert summary.replaced.cost_usd == 2 * CUT_COST
        assert summary.cost_usd == sum(finished.result()["cost_usd"].to_pylist())
        assert (
            "4 rows were answered again; their earlier answers cost $0.000025 (not in the cost above)"
            in summary.describe()
        )
        assert summary.to_dict()["replaced"] == {"rows": 4, "cost_usd": "0.000025", "unpriced": 0}


def test_an_answer_of_unknown_cost_is_counted_as_such(bench: Workbench) -> None:
    """Unknown is not free."""
    job = bench.job(**SETTINGS, prices="none")
    carry_out(job, Network(answer=uneven))
    summary = retried(job, Network(), "incomplete")
    assert (summary.replaced.unpriced, summary.replaced.calls) == (2, 2)
    assert "2 without a price" in summary.describe()


def test_fresh_forgets_what_was_replaced(finished: Workbench) -> None:
    """A new run has a new bill, and no journal of an old round is left to confuse it."""
    job = finished.job(**SETTINGS)
    with pytest.raises(cometbatch.RunStoppedError):
        retried(job, Network(answer=no_credit_after(0)), "failed")
    summary = carry_out(job, Network(), fresh=True)
    assert (summary.replaced.calls, summary.succeeded) == (0, ROWS)
    assert cometbatch.verify(finished.output).ok


# -- on runs that are not finished -------------------------------------------------------------------------------------


def no_credit_after(posts: int, before: Callable[[httpx.Request], httpx.Response | None] | None = None) -> Any:
    """A balance that pays for this many requests."""
    left = posts

    def answer(request: httpx.Request) -> httpx.Response | None:
        nonlocal left
        left -= request.method == "POST"
        refusal = {"error": {"message": "user quota is not enough", "code": "insufficient_user_quota"}}
        if left < 0:
            return httpx.Response(403, json=refusal)
        return before(request) if before else None

    return answer


@pytest.mark.parametrize("posts", [0, 5, 7, 8, 10, 11])
def test_an_unfinished_run_takes_back_committed_and_open_rows_alike(bench: Workbench, posts: int) -> None:
    """What matches so far is answered again, then the run goes on; what did not match is never sent twice."""
    job = bench.job(**SETTINGS, limits={"concurrency": 1})
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(job, Network(answer=no_credit_after(posts, uneven)))
    done = set(range(posts))
    network = Network()
    summary = retried(job, network, "failed", "length")
    assert sent(network) == sorted({6, 7, 9} & done | set(range(ROWS)) - done)
    assert (summary.finished, summary.reopened) == (True, len({6, 7, 9} & done))
    assert summary.incomplete == len({10} & done)
    assert cometbatch.verify(bench.output).ok


def test_a_retry_that_is_stopped_is_carried_on_without_being_asked_again(finished: Workbench) -> None:
    """The plain command finishes it; until then the run is unfinished, for status and for verify."""
    job = finished.job(**SETTINGS, limits={"concurrency": 1})
    with pytest.raises(cometbatch.RunStoppedError):
        retried(job, Network(answer=no_credit_after(2)), "failed", "incomplete")
    status = cometbatch.status(finished.output)
    assert (status.summary.finished, status.summary.tally.calls, status.summary.replaced.calls) == (False, 10, 4)
    with pytest.raises(cometbatch.UsageError, match="not finished"):
        cometbatch.verify(finished.output)
    network = Network()
    summary = carry_out(job, network)
    assert (sent(network), summary.succeeded, summary.replaced.calls) == ([9, 10], ROWS, 4)


def test_a_retry_that_took_all_outcomes_and_is_stopped_is_finished_by_the_plain_command(bench: Workbench) -> None:
    """Nothing is recorded then, but the run is the same, its result stands, and what was paid stays in the bill."""
    job = bench.job(**SETTINGS)
    assert carry_out(job, simulator("prompt-blocked:1")).failed == ROWS
    with pytest.raises(cometbatch.RunStoppedError):
        retried(job, Network(answer=no_credit_after(0)), "failed")
    summary = carry_out(job, Network())
    assert (summary.succeeded, summary.replaced.failed) == (ROWS, ROWS)
    assert cometbatch.verify(bench.output).ok


def test_a_row_that_an_old_crash_left_in_flight_is_not_counted_as_sent_again(finished: Workbench) -> None:
    """It was answered since; being reset on purpose is not being lost."""
    leave_in_flight(finished, [6, 3])
    assert retried(finished.job(**SETTINGS), Network(), "failed").resent == 0


def test_a_damaged_note_is_named(finished: Workbench) -> None:
    """It is not taken for none: answers would come back that were replaced. --fresh is the way out."""
    job = finished.job(**SETTINGS)
    retried(job, Network(), "failed")
    note = finished.run_directory / REOPENED
    note.write_bytes(note.read_bytes()[:-9])
    for look in (lambda: carry_out(job, Network()), lambda: cometbatch.status(finished.output)):
        with pytest.raises(cometbatch.CheckpointError, match=r"reopened\.json: this file is damaged.*--fresh"):
            look()
    assert not cometbatch.verify(finished.output).ok
    assert carry_out(job, Network(), fresh=True).succeeded == ROWS


# -- crashes -----------------------------------------------------------------------------------------------------------


class Snapshots:
    """A copy of a folder before each step that makes or removes a file in it: what a crash at that moment leaves."""

    def __init__(self, folder: Path, into: Path) -> None:
        self._folder, self._into = folder, into
        self._lock = threading.RLock()  # parts are committed in threads
        self.taken: list[Path] = []

    @contextlib.contextmanager
    def watching(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patch:
            for name in ("replace", "unlink"):
                patch.setattr(Path, name, self._after_a_copy(getattr(Path, name)))
            yield
        self._copy()

    def _after_a_copy(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(path: Path, *arguments: Any, **options: Any) -> Any:
            with self._lock:
                if path.is_relative_to(self._folder) and path.exists():
                    self._copy()
                return step(path, *arguments, **options)

        return stepped

    def _copy(self) -> None:
        copy = self._into / f"{len(self.taken):03d}"
        shutil.copytree(self._folder, copy)
        self.taken.append(copy)


@pytest.mark.parametrize("is_dataset", [False, True], ids=["file", "data set"])
@pytest.mark.parametrize("stopped_after", [None, 7])
def test_a_crash_at_any_step_leaves_the_old_or_what_leads_to_the_new(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_dataset: bool, stopped_after: int | None
) -> None:
    """Killed before any rename or removal of a retry, the plain command ends with each row once and the bill right.

    Before the one rename that decides, all is as it was. After it, rows are answered again at most once more each,
    kept rows never. The output can be read at every moment.
    """
    (tmp_path / "live").mkdir()
    live = Workbench(tmp_path / "live")
    live.input = bench.input
    sections: dict[str, Any] = {"limits": {"concurrency": 1}}
    ending = "out/" if is_dataset else "out.parquet"
    output = {"path": f"{live.folder}/{ending}", "partition_rows": PARTITION_ROWS}
    job = live.job(**SETTINGS | sections | {"output": output})
    with contextlib.suppress(cometbatch.RunStoppedError):
        carry_out(job, Network(answer=uneven if stopped_after is None else no_credit_after(stopped_after, uneven)))
    done = ROWS if stopped_after is None else stopped_after
    taken_back = {6, 7, 9, 10} & set(range(done))
    (tmp_path / "crashed").mkdir()
    snapshots = Snapshots(live.folder, tmp_path / "crashed")
    with snapshots.watching(monkeypatch):
        retried(job, Network(), "failed", "incomplete")
    assert len(snapshots.taken) > 8
    decided = 0
    for folder in snapshots.taken:
        copy = Workbench(folder)
        copy.input = bench.input
        path = folder / ending.rstrip("/")
        again = copy.job(**SETTINGS | sections | {"output": {**output, "path": f"{folder}/{ending}"}})
        if stopped_after is None:
            assert read(path).num_rows == ROWS
        before = cometbatch.status(path)
        was_decided = before.summary.replaced.calls > 0
        decided += was_decided
        network = Network()
        summary = carry_out(again, network)
        result = read(path)
        assert (summary.finished, result["parcel"].to_pylist()) == (True, [f"{row:04d}" for row in range(ROWS)])
        assert cometbatch.verify(path).ok
        assert set(sent(network)) <= set(range(done, ROWS)) | (taken_back if was_decided else set())
        assert len(sent(network)) == ROWS - before.summary.tally.calls
        assert summary.replaced.calls == (len(taken_back) if was_decided else 0)
        assert summary.replaced.cost_usd == (len({7, 10} & taken_back) * CUT_COST if was_decided else 0)
        assert [row for row, status in enumerate(result["status"].to_pylist()) if status != "succeeded"] == (
            [] if was_decided else sorted(taken_back)
        )
        assert [file.name for file in folder.rglob("*") if file.suffix in (".tmp", ".jsonl")] == []
    assert 0 < decided < len(snapshots.taken)


def three_sessions(job: cometbatch.Job) -> Callable[[], object]:
    """The open partition has a journal of each of two sessions; the third finishes it."""
    for posts in (5, 1):
        with pytest.raises(cometbatch.RunStoppedError):
            carry_out(job, Network(answer=no_credit_after(posts)))
    return lambda: carry_out(job, Network())


def second_retry(job: cometbatch.Job) -> Callable[[], object]:
    """A retry was stopped before it answered all of its rows; another one resets other rows."""
    carry_out(job, Network(answer=uneven))
    with pytest.raises(cometbatch.RunStoppedError):
        retried(job, Network(answer=no_credit_after(1)), "failed")
    return lambda: retried(job, Network(), "incomplete")


@pytest.mark.parametrize("begin", [three_sessions, second_retry])
@pytest.mark.parametrize("ending", ["out.parquet", "out/"])
def test_a_crash_at_any_step_of_a_later_session_counts_every_row_and_dollar_once(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, begin: Callable[..., Any], ending: str
) -> None:
    """The plain command sends just what has no outcome, and what was paid before stays in the bill."""
    (tmp_path / "live").mkdir()
    (tmp_path / "crashed").mkdir()

    def job_in(folder: Path) -> cometbatch.Job:
        place = Workbench(folder)
        place.input = bench.input
        output = {"path": f"{folder}/{ending}", "partition_rows": PARTITION_ROWS}
        return place.job(**SETTINGS | {"limits": {"concurrency": 1}, "output": output})

    def paid(summary: cometbatch.RunSummary) -> Decimal:
        return summary.tally.cost_usd + summary.replaced.cost_usd

    finish = begin(job_in(tmp_path / "live"))
    at_first = paid(cometbatch.status(tmp_path / "live" / ending.rstrip("/")).summary)
    snapshots = Snapshots(tmp_path / "live", tmp_path / "crashed")
    with snapshots.watching(monkeypatch):
        finish()
    assert len(snapshots.taken) > 5
    for folder in snapshots.taken:
        before, network = cometbatch.status(folder / ending.rstrip("/")).summary, Network()
        summary = carry_out(job_in(folder), network)
        rows = read(folder / ending.rstrip("/"))
        assert (summary.finished, rows["parcel"].to_pylist()) == (True, [f"{row:04d}" for row in range(ROWS)])
        assert len(sent(network)) == len(set(sent(network))) == ROWS - before.tally.calls
        assert paid(before) >= at_first > 0
        assert paid(summary) == paid(before) + sum(rows["cost_usd"].to_pylist()[row] for row in sent(network))
        assert cometbatch.verify(folder / ending.rstrip("/")).ok


def test_what_is_kept_is_durable_before_it_counts(finished: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kept outcomes are on the disk, whole, before the rename that makes them count."""
    synced, steps = dict[int, int](), list[tuple[str, bool]]()
    sync, replace = os.fsync, Path.replace

    def syncing(file: int) -> None:
        synced[os.fstat(file).st_ino] = os.fstat(file).st_size
        sync(file)

    def replacing(path: Path, target: Path) -> Path:
        found = path.stat()
        steps.append((target.name, synced.get(found.st_ino) == found.st_size))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(Path, "replace", replacing)
    retried(finished.job(**SETTINGS), Network(), "incomplete")
    names = [name for name, _ in steps]
    assert all(is_whole for _, is_whole in steps)
    assert names.index(REOPENED) > max(index for index, name in enumerate(names) if ".kept" in name)


def test_what_comes_back_after_the_end_is_removed(finished: Workbench) -> None:
    """A journal of a round that is over counts for nothing: nothing is sent, and the next session clears it away."""
    job = finished.job(**SETTINGS)
    retried(job, Network(), "incomplete")
    stray = finished.run_directory / "journal" / "00001.kept1.jsonl"
    before, network = files(finished.folder), Network()
    stray.write_bytes(b"whatever")
    assert carry_out(job, network).had_work is False
    assert (network.requests, files(finished.folder)) == ([], before)


# -- long answers ------------------------------------------------------------------------------------------------------

LONG_ROWS, LONG_BYTES = 400, 100_000


def long(request: httpx.Request) -> httpx.Response | None:
    """Long answers, no two alike; that of the first row is cut short."""
    row = row_of(request)
    return None if row is None else answered(f"{row} ".ljust(LONG_BYTES, "x"), "stop" if row else "length")


@pytest.mark.parametrize("is_open", [False, True], ids=["committed", "open"])
def test_long_answers_are_taken_back_a_few_at_a_time(bench: Workbench, *, is_open: bool) -> None:
    """The kept answers of a partition are never in memory together, whether they come from its part or its journal."""
    bench.write_rows(LONG_ROWS)
    job = bench.job(output={"partition_rows": LONG_ROWS}, limits={"concurrency": 8})
    with pytest.raises(cometbatch.RunStoppedError) if is_open else contextlib.nullcontext():
        carry_out(job, Network(answer=no_credit_after(LONG_ROWS - 10 if is_open else LONG_ROWS, long)))
    found = find(RunDirectory(bench.run_directory), bench.output)
    assert found is not None
    run = next_session(found, Who("2026-05-01T00:00:00+00:00", 42, "here", cometbatch.__version__))
    again = read_words("incomplete")

    def take_back() -> None:
        matching = reopen.find(run, again)
        assert (matching.partitions, matching.calls) == ((0,), 1)
        reopen.take_back(run, again, matching)
        assert run.looked_at_again().progress.recorded == set(range(1, run.progress.calls))

    assert peak_bytes(take_back) < LONG_ROWS * LONG_BYTES


def test_a_part_whose_end_is_damaged_leaves_all_as_it_was(finished: Workbench) -> None:
    """Also one of an older version, where the checksum of the last page alone tells it: nothing is reset."""
    path = finished.run_directory / "parts" / "00001.part"
    content = pa.BufferReader(path.read_bytes())
    table, words = pq.read_table(content), pq.read_metadata(content).metadata
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True) as writer:
        writer.write_table(table, row_group_size=1)
        writer.add_key_value_metadata({parts.PART_KEY: words[parts.PART_KEY]})
    damaged = bytearray(path.read_bytes())
    damaged[int.from_bytes(damaged[-8:-4], "little") * -1 - 12] ^= 1  # before the footer and its length
    path.write_bytes(damaged)
    before, network = files(finished.folder), Network()
    with pytest.raises(cometbatch.CheckpointError, match=r"00001\.part: this part can't be read"):
        retried(finished.job(**SETTINGS), network, "failed")
    assert (network.posts, files(finished.folder)) == (0, before)


# -- the command -------------------------------------------------------------------------------------------------------


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    line = [sys.executable, "-m", "cometbatch", "run", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_takes_kinds_with_commas(finished: Workbench) -> None:
    """0: now every row succeeded; 2: an unknown kind, with the list; 3 and a word where nothing matches."""
    job_file = finished.write_job(**SETTINGS, simulator={"latency_s": 0})
    unknown = command(job_file, "--retry", "fialed")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "'fialed' is no kind of row" in unknown.stderr
    none = command(job_file, "--retry", "timeout")
    assert none.returncode == 3
    assert "no row matches --retry" in none.stdout
    done = command(job_file, "--retry", "failed,incomplete", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["replaced"]["rows"] == json.loads(done.stdout)["reopened"] == 4


def test_the_hint_after_a_stop_leaves_out_what_counts_once(
    finished: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resuming with --retry would reset what failed in the retry itself; a journal that was set aside may be gone."""
    once = (["--retry", "failed"], ["--retry=failed"], ["--fresh"], ["--set-aside", "00000.1.jsonl"])
    for given in once:
        monkeypatch.setattr(sys, "argv", ["cometbatch", "run", "job.yaml", *given, "--json"])
        assert resuming.same_command() == "cometbatch run job.yaml --json"
