"""`reuse`: what an earlier run was answered is never paid for again, and each answer is taken at most once in a run."""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
import cometbatch.commands.reusing
from cometbatch import commands
from cometbatch.commands.reusing import index_of
from cometbatch.errors import CheckpointError, UsageError
from cometbatch.records import CallRequest, HttpRequest, Outcome
from cometbatch.results import parts
from cometbatch.run_state.making import CallMaker
from tests import virtual_time
from tests.run_on_disk import RunOnDisk
from tests.workbench import MODEL, Network, Workbench, files, simulator


class Nights:
    """A job over another table each night, with an output of its own, that takes from all nights before."""

    def __init__(self, folder: Path, network: Network | None = None) -> None:
        self.folder = folder
        self.network = network or simulator()
        self.bench = Workbench(folder)

    def job(self, number: int, texts: Sequence[str], **sections: Any) -> cometbatch.Job:
        """The job of a night over these texts."""
        self.bench.output = self.folder / f"night-{number}.parquet"
        self.bench.input = self.folder / f"in-{number}.parquet"
        pq.write_table(
            pa.table({"parcel": [str(at) for at in range(len(texts))], "note": list(texts)}), self.bench.input
        )
        given: dict[str, Any] = {
            "prompt": {"system": "Be brief.", "user": "{{ note }}"},
            "output": {"partition_rows": 4},
            "reuse": {"from": [str(self.folder / "night-*.parquet")]},
        }
        return self.bench.job(**(given | sections))

    def run(
        self, number: int, texts: Sequence[str], *, limit: int | None = None, **sections: Any
    ) -> cometbatch.RunSummary:
        """Run it; `limit`: only its first rows."""
        job = self.job(number, texts, **sections)
        return virtual_time.run(cometbatch.run_async(job, progress=False, http=self.network, limit=limit))

    @property
    def sent(self) -> int:
        """How many requests the server has answered, by its own count."""
        return int(self.network.ledger["answered"])


def texts(*ranges: range) -> list[str]:
    """Different texts."""
    return [f"Parcel {number} is late." for some in ranges for number in some]


def test_the_next_night_sends_the_new_and_the_edited_rows_alone(tmp_path: Path) -> None:
    """Of a table with rows added, edited and removed, what was answered before is taken at no cost."""
    nights = Nights(tmp_path)
    first = nights.run(1, texts(range(100)), output={"partition_rows": 40})
    assert (nights.sent, first.tally.reused) == (100, 0)
    edited = [*texts(range(50)), "edited", *texts(range(52, 100)), "new"]
    second = nights.run(2, edited, output={"partition_rows": 40})
    assert nights.sent == 102
    assert (second.tally.reused, second.tally.succeeded, second.tally.new_answers) == (98, 100, 2)
    table, before = nights.bench.result(), pq.read_table(tmp_path / "night-1.parquet")
    assert second.cost_usd == sum(table["cost_usd"].to_pylist())
    assert second.tally.reused_cost_usd == sum(table["reused_cost_usd"].drop_null().to_pylist())
    row, origin = table.slice(60, 1).to_pylist()[0], before.slice(61, 1).to_pylist()[0]
    assert (row["cost_usd"], row["attempts"], row["reused_cost_usd"]) == (0, 0, origin["cost_usd"])
    assert (row["reused_from"], row["reused_ordinal"]) == (first.run_id, 61)
    same = (
        "response",
        "status",
        "request_hash",
        "input_tokens",
        "finished_at",
        "response_id",
        "request_id",
        "latency_s",
    )
    assert {name: row[name] for name in same} == {name: origin[name] for name in same}
    assert "98 rows took an answer that was paid for before" in second.describe()
    assert second.to_dict()["reused"]["rows"] == 98


def test_a_row_that_was_away_for_a_night_is_not_paid_for_again(tmp_path: Path) -> None:
    """Answers are taken from all nights, and who paid is handed on unchanged, also from copies alone."""
    nights = Nights(tmp_path)
    first = nights.run(1, texts(range(20)))
    nights.run(2, texts(range(10)))
    nights.run(3, texts(range(20)))
    assert nights.sent == 20
    for path in (*tmp_path.glob("night-1*"), *tmp_path.glob("_night-1*/**/*")):
        if path.is_file():
            path.unlink()
    for folder in sorted(tmp_path.glob("_night-1*/**"), reverse=True):
        folder.rmdir()
    fourth = nights.run(4, texts(range(20)))
    assert (nights.sent, fourth.tally.reused) == (20, 20)
    assert set(nights.bench.result()["reused_from"].to_pylist()) == {first.run_id}


def test_one_answer_is_taken_once_however_many_nights_hold_a_copy(tmp_path: Path) -> None:
    """After three nights, five samples of a row that was paid for once take one answer; the others are asked anew."""
    nights = Nights(tmp_path)
    for number in range(1, 4):
        nights.run(number, ["the same"])
    assert nights.sent == 1
    fourth = nights.run(4, ["the same"] * 5)
    assert (nights.sent, fourth.tally.reused) == (5, 1)
    assert fourth.reuse is not None
    assert fourth.reuse.not_taken == {"taken": 4}
    fifth = nights.run(5, ["the same"] * 5)
    assert (nights.sent, fifth.tally.reused) == (5, 5)
    origins = zip(*(nights.bench.result()[name].to_pylist() for name in ("reused_from", "reused_ordinal")), strict=True)
    assert len(set(origins)) == 5


def test_another_prompt_or_model_takes_nothing(tmp_path: Path) -> None:
    """Only an answer to the very request is taken: an edited prompt and a second model send all."""
    nights = Nights(tmp_path)
    nights.run(1, texts(range(8)))
    edited = nights.run(2, texts(range(8)), prompt={"system": "Be kind.", "user": "{{ note }}"})
    other = nights.run(3, texts(range(8)), target={"model": "comet-sim-1-mini"})
    assert (nights.sent, edited.tally.reused, other.tally.reused) == (24, 0, 0)
    assert nights.run(4, texts(range(8)), target={"model": "comet-sim-1-mini"}).tally.reused == 8


words = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=9)
night = st.tuples(words, st.sampled_from([MODEL, "comet-sim-1-mini"]), st.none() | st.integers(1, 8), st.booleans())


@given(st.lists(night, min_size=2, max_size=4))
@settings(max_examples=6, deadline=None)
def test_any_history_pays_for_each_answer_once(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[list[str], str, int | None, bool]]
) -> None:
    """Nights with any rows, equal ones too, of two models, cut short or resumed: what is sent is what a model says.

    A night pays for the rows of a request beyond the answers that exist to it. The sum of all costs is what the server
    billed, each origin stands at most once in a night, and each night is proven by `verify`.
    """
    nights = Nights(tmp_path_factory.mktemp("nights"))
    exist: Counter[tuple[str, str]] = Counter()
    spent = Decimal(0)
    for number, (rows, model, limit, is_resumed) in enumerate(history):
        said: dict[str, Any] = {"target": {"model": model}}
        done = rows if limit is None else rows[:limit]
        summary = nights.run(number, rows, limit=limit, **said)
        if is_resumed and limit is not None:
            done, summary = rows, nights.run(number, rows, **said)
        for key, count in Counter((model, text) for text in done).items():
            exist[key] = max(exist[key], count)
        assert nights.sent == exist.total()
        assert summary.cost_usd is not None
        spent += summary.cost_usd
        table = summary.to_polars()
        origins = [
            pair for pair in zip(table["reused_from"], table["reused_ordinal"], strict=True) if pair[0] is not None
        ]
        assert len(set(origins)) == len(origins) == summary.tally.reused
        if summary.finished:
            assert cometbatch.verify(nights.job(number, rows, **said)).ok
    assert spent == Decimal(nights.network.ledger["cost_usd"])


def test_a_resumed_run_takes_nothing_twice(tmp_path: Path) -> None:
    """What earlier sessions took is known from parts and journals, so equal rows beyond it are paid for."""
    nights = Nights(tmp_path)
    nights.run(1, ["a"] * 6)
    for limit in (3, 5, 6, 7):  # partitions of 4 rows: a part and a journal
        nights.run(2, ["a"] * 9, limit=limit)
    done = nights.run(2, ["a"] * 9)
    assert (nights.sent, done.tally.reused, done.finished) == (9, 6, True)
    assert not (tmp_path / "_night-2.parquet.run" / "reuse").exists()


def test_rows_that_a_retry_opens_are_asked_anew(tmp_path: Path) -> None:
    """`--retry` asks for new answers, so none is taken from earlier runs, nor from the run's own earlier answer."""
    cut = Nights(tmp_path, simulator("length:1"))
    said: dict[str, Any] = {"reuse": {"from": [str(tmp_path / "night-*.parquet")], "statuses": ["incomplete"]}}
    cut.run(1, texts(range(4)))
    second = cut.run(2, texts(range(4)), **said)
    assert (cut.sent, second.tally.reused, second.tally.incomplete) == (4, 4, 4)
    whole = simulator()
    job = cut.job(2, texts(range(4)), **said)
    third = virtual_time.run(cometbatch.run_async(job, retry="incomplete", progress=False, http=whole))
    assert (whole.posts, third.tally.reused, third.tally.succeeded) == (4, 0, 4)
    assert cometbatch.verify(job).ok


@pytest.mark.parametrize(
    ("settings", "reason", "taken"),
    [
        ({}, None, 4),
        ({"statuses": ["incomplete"]}, "status", 0),
        ({"max_age": "9999w"}, None, 4),
        ({"max_age": "1h"}, "age", 0),
        ({"sampling": False}, "sampling", 0),
    ],
)
def test_what_is_not_taken_is_told_by_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], reason: str | None, taken: int
) -> None:
    """`plan` and the summary count the rows that are sent although an earlier answer exists, and say why."""
    nights = Nights(tmp_path)
    nights.run(1, texts(range(4)))
    later = commands.clock.now() + timedelta(hours=2)
    monkeypatch.setattr(commands.reusing, "now", lambda: later)
    said: dict[str, Any] = {"reuse": {"from": [str(tmp_path / "night-1.parquet")], **settings}}
    before = files(tmp_path)
    planned = cometbatch.plan(nights.job(2, texts(range(5)), **said), http=nights.network)
    assert {name for name in files(tmp_path) if name not in before} == {"in-2.parquet"}
    summary = nights.run(2, texts(range(5)), **said)
    assert planned.reuse is not None
    assert (planned.reuse.taken, planned.reuse.sent, planned.reuse.new) == (taken, 5 - taken, 1)
    assert summary.reuse is not None
    assert summary.reuse == planned.reuse
    assert summary.reuse.not_taken == ({reason: 4} if reason else {})
    assert (summary.tally.reused, nights.sent) == (taken, 9 - taken)
    assert f"{taken} rows take an earlier answer" in planned.describe()
    assert planned.to_dict()["reused"]["sent"] == 5 - taken


def test_a_call_that_is_answered_alike_each_time_is_taken_without_sampling(tmp_path: Path) -> None:
    """`sampling: false` takes answers where a seed or a temperature of 0 asks for the same answer each time."""
    nights = Nights(tmp_path)
    every: list[dict[str, float]] = [{"temperature": 0}, {"seed": 3}, {"temperature": 0.5}]
    for number, params in enumerate(every):
        where = {"from": [str(tmp_path / "night-*.parquet")], "sampling": False}
        nights.run(2 * number, texts(range(2)), params=params, reuse=where)
        summary = nights.run(2 * number + 1, texts(range(2)), params=params, reuse=where)
        assert summary.tally.reused == (0 if params.get("temperature") else 2)


def test_an_answer_must_fit_the_schema_of_today(tmp_path: Path) -> None:
    """An answer to the same request is taken only if it is what `response` asks for now."""
    nights = Nights(tmp_path)
    nights.run(1, texts(range(3)))
    summary = nights.run(2, texts(range(3)), response={"pattern": "no answer has this text", "max_asks": 1})
    assert (summary.tally.reused, summary.reuse and summary.reuse.not_taken) == (0, {"schema": 3})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("gone", "night-1.parquet is not there"),
        ("folder", "no part of a data set"),
        ("other table", "is no Parquet file that cometbatch wrote"),
        ("text", "is no Parquet file that cometbatch wrote"),
        ("part", "Restore it from a copy, or take it out of reuse.from"),
        ("manifest", "Restore it from a copy, or take it out of reuse.from"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(tmp_path: Path, spoil: str, words: str) -> None:
    """Nothing is sent where a named source is missing, foreign or damaged: its answers would be paid for again."""
    nights = Nights(tmp_path)
    nights.run(1, texts(range(6)))
    result, run = tmp_path / "night-1.parquet", tmp_path / "_night-1.parquet.run"
    match spoil:
        case "gone" | "folder" | "other table" | "text":
            run.rename(tmp_path / "away")
            result.unlink()
            if spoil == "folder":
                result.mkdir()
            elif spoil == "text":
                result.write_text("no table")
            elif spoil == "other table":
                pq.write_table(pa.table({"x": [1]}), result)
        case "part":
            part = run / "parts" / "00001.part"
            part.write_bytes(part.read_bytes()[:-9])
        case "manifest":
            (run / "manifest.json").write_text("{")
    said: dict[str, Any] = {"reuse": {"from": [str(result)]}}
    job, sent = nights.job(2, texts(range(6)), **said), nights.sent
    for command in (lambda: cometbatch.plan(job, http=nights.network), lambda: nights.run(2, texts(range(6)), **said)):
        with pytest.raises(UsageError, match=re.escape(words)):
            command()
    assert nights.sent == sent


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (["_night-1.run/lock"], None),  # a run that was killed before its first request, at several steps
        (["_night-1.run/lock", "_night-1.run/sessions/1.json", "night-1/"], None),
        (["_night-1.run/lock", "_night-1.run/sessions/1.json", "_night-1.run/.manifest.json.tmp"], None),
        (["_night-1.parquet.run/lock"], None),
        (["night-1/"], None),
        (["night-plots/week.png", "night-notes.txt"], None),
        (["_night-1.run/lock", "_night-1.run/journal/00000.1.jsonl"], "no part of a data set"),
        (["_night-1.run/lock", "_night-1.run/parts/00000.part"], "no part of a data set"),
        (["night-2026/11/00000.parquet"], "no part of a data set"),
    ],
)
def test_what_a_pattern_finds_may_hold_no_answers(tmp_path: Path, found: list[str], words: str | None) -> None:
    """It is passed over: a night that was killed as it began does not stop those that follow.

    What may hold answers and can't be read as a result is refused, as ever.
    """
    for name in found:
        path = tmp_path / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text("{}")
    nights = Nights(tmp_path)
    pattern = {"from": [str(tmp_path / "night-*"), str(tmp_path / "night-*.parquet")]}
    with nullcontext() if words is None else pytest.raises(UsageError, match=words):
        assert nights.run(2, texts(range(3)), reuse=pattern).tally.succeeded == 3


def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    """The index of an interrupted run is a cache: where a bit of it changed, all answers are found all the same."""
    nights = Nights(tmp_path)
    nights.run(1, texts(range(8)))
    nights.run(2, texts(range(8)), limit=2)
    keys = tmp_path / "_night-2.parquet.run" / "reuse" / "keys"
    keys.write_bytes(bytes(byte ^ 1 for byte in keys.read_bytes()))
    assert nights.run(2, texts(range(8))).tally.reused == 8
    assert nights.sent == 8


def test_a_disk_that_refuses_the_index_is_no_mistake_of_the_job(tmp_path: Path) -> None:
    """A scheduler tries again (exit code 1), as where a part can't be written."""
    (tmp_path / "full").touch()
    with pytest.raises(CheckpointError, match=r"index of earlier answers can't be written.*make room"):
        index_of([], tmp_path / "full" / "reuse")


@pytest.mark.parametrize("reused", [True, False])
@pytest.mark.parametrize("way", ["result alone", "run directory", "data set", "its folder alone"])
def test_every_form_of_an_earlier_result_is_a_source(tmp_path: Path, way: str, *, reused: bool) -> None:
    """A result without its run, a run directory, a data set with its run or without: each gives its answers.

    So do runs that had no `reuse`, whose results lack its columns.
    """
    nights = Nights(tmp_path)
    name, end = ("night-1", "/") if way in ("data set", "its folder alone") else ("night-1.parquet", "")
    nights.run(1, texts(range(9)), output={"path": f"{tmp_path}/{name}{end}", "partition_rows": 4}, reuse=reused)
    if way in ("result alone", "its folder alone"):
        (tmp_path / f"_{name}.run").rename(tmp_path / "away")
    source = tmp_path / (f"_{name}.run" if way == "run directory" else name)
    second = nights.run(2, texts(range(9)), reuse={"from": str(source)})
    assert (second.tally.reused, nights.sent) == (9, 9)
    assert sorted(nights.bench.result()["reused_ordinal"].to_pylist()) == list(range(9))


def test_verify_holds_an_answer_against_the_run_that_paid(tmp_path: Path) -> None:
    """A copy that differs from its source is found, one whose source is gone is skipped, and two of one are found."""
    nights = Nights(tmp_path)
    nights.run(1, texts(range(4)))
    nights.run(2, texts(range(4)))
    job = nights.job(2, texts(range(4)))
    assert {check.name: check.state for check in cometbatch.verify(job).checks}["reused"] == "ok"
    part = tmp_path / "_night-1.parquet.run" / "parts" / "00000.part"
    whole = part.read_bytes()
    table = pq.read_table(part)
    place = table.schema.get_field_index("response")
    changed = table.set_column(place, table.schema.field(place), [pa.array(["another"] * 4, pa.large_string())])
    metadata = table.schema.metadata
    info = parts.read_info(part, metadata[b"cometbatch.run_id"].decode(), 0)
    kept = changed.replace_schema_metadata(
        {key: value for key, value in metadata.items() if key not in (parts.PART_KEY, parts.SUM_KEY)}
    )
    with part.open("wb") as file:
        parts.write_part(file, kept.schema, [kept], lambda: info)
    found = {check.name: check for check in cometbatch.verify(job).checks}["reused"]
    assert (found.state, found.found) == ("failed", 4)
    assert "text: not what run" in found.places[0]
    part.write_bytes(whole)
    (tmp_path / "night-1.parquet").rename(tmp_path / "moved.parquet")
    (tmp_path / "_night-1.parquet.run").rename(tmp_path / "_moved.parquet.run")
    gone = {check.name: check for check in cometbatch.verify(job).checks}["reused"]
    assert (gone.state, gone.reason) == ("skipped", "4 rows took answers of which no source is there")


def test_a_run_that_began_without_the_columns_takes_nothing_and_says_so(tmp_path: Path) -> None:
    """A run keeps the columns that it began with: `reuse` that comes later waits for the next run."""
    nights = Nights(tmp_path)
    nights.run(1, texts(range(4)))
    nights.run(2, texts(range(4)), limit=1, reuse=False)
    summary = nights.run(2, texts(range(4)))
    assert (summary.tally.reused, nights.sent) == (0, 8)
    assert any("reused_from" in warning for warning in summary.warnings)


def test_this_outputs_own_earlier_runs_are_sources_but_not_for_fresh(tmp_path: Path) -> None:
    """Runs in `earlier/` count with `reuse: true`; one that was begun with --fresh takes nothing of them, ever."""
    nights = Nights(tmp_path)
    first = nights.run(1, texts(range(6)), reuse=True)
    run = tmp_path / "_night-1.parquet.run"
    run.rename(tmp_path / "away")
    (run / "earlier").mkdir(parents=True)
    (tmp_path / "away").rename(run / "earlier" / first.run_id)
    (tmp_path / "night-1.parquet").unlink()
    second = nights.run(1, texts(range(4)), reuse=True)
    assert (second.tally.reused, nights.sent) == (4, 6)
    job = nights.job(1, texts(range(2)), reuse=True)
    for limit in (1, None):
        again = cometbatch.run_async(job, fresh=limit is not None, limit=limit, progress=False, http=nights.network)
        assert virtual_time.run(again).tally.reused == 0
    assert nights.sent == 8


def test_another_services_answer_is_not_taken(tmp_path: Path) -> None:
    """The same request to another address has another answer: the summary says how many rows that concerns."""
    nights = Nights(tmp_path)
    nights.run(1, texts(range(3)))
    said: dict[str, Any] = {
        "target": {"base_url": "https://gateway.example"}, "prices": {"input": 1, "output": 1},
    }  # fmt: skip
    summary = nights.run(2, texts(range(3)), **said)
    assert summary.reuse is not None
    assert (summary.tally.reused, summary.reuse.not_taken) == (0, {"service": 3})


def test_a_call_that_was_billed_in_this_run_goes_on_with_its_own_asks(tmp_path: Path) -> None:
    """What a call was billed for belongs to its own outcome, so no earlier answer takes its place."""
    calls = [CallRequest(row, None, HttpRequest("/", {}, b""), "0" * 64, 1) for row in range(4)]
    looked_up: list[int] = []

    def take(some: Sequence[CallRequest | Outcome]) -> list[CallRequest | Outcome]:
        looked_up.extend(call.ordinal for call in some)
        return list(some)

    manifest = RunOnDisk(tmp_path, 4, 4).manifest
    makers: list[Any] = [None]
    maker = CallMaker(manifest, makers, None, (), reads_files=False, take=take, asks={3: []})
    assert maker._taken(list(calls), {1: 0}) == calls[::-1]
    assert looked_up == [0, 2]
