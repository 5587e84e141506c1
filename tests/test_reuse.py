"""`reuse`: what an earlier run was answered is never paid for again, and each answer is taken at most once in a run."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.errors import UsageError
from cometbatch.simulator.app import create_app
from cometbatch.simulator.behaviour import Behaviour
from tests import virtual_time
from tests.workbench import MODEL, Network, Workbench, carry_out, files, simulator


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
        given = {
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
    """Of a table with rows added, edited and removed, what was answered before is taken at no cost; the ledger agrees."""
    nights = Nights(tmp_path)
    first = nights.run(1, texts(range(100)))
    assert (nights.sent, first.tally.reused) == (100, 0)
    second = nights.run(2, [*texts(range(50)), "edited", *texts(range(52, 100)), "new"])
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
    """Only an answer to the very request is taken: an edited prompt sends all, and a second model none of the first's."""
    nights = Nights(tmp_path)
    nights.run(1, texts(range(8)))
    edited = nights.run(2, texts(range(8)), prompt={"system": "Be kind.", "user": "{{ note }}"})
    other = nights.run(3, texts(range(8)), target={"model": "comet-sim-1-mini"})
    assert (nights.sent, edited.tally.reused, other.tally.reused) == (24, 0, 0)
    assert nights.run(4, texts(range(8)), target={"model": "comet-sim-1-mini"}).tally.reused == 8


words = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=9)
night = st.tuples(words, st.sampled_from([MODEL, "comet-sim-1-mini"]), st.none() | st.integers(1, 8), st.booleans())


@given(st.lists(night, min_size=2, max_size=4))
@settings(max_examples=12, deadline=None)
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
