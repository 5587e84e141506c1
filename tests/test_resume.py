"""Resuming: what earlier sessions left is found by looking, and no kill loses, repeats or hides a recorded row."""

import asyncio
import contextlib
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.errors import CheckpointError
from cometbatch.records import HttpResponse, Outcome, Partition, Tally
from cometbatch.results import columns, tallies
from cometbatch.results.columns import outcomes_in
from cometbatch.run_state.progress import Progress
from cometbatch.runner.ports import Reply, Stop
from cometbatch.runner.turns import Runner
from tests import virtual_time
from tests.run_on_disk import RunOnDisk, carry_out
from tests.scripted_run import (
    ScriptedService,
    always,
    answer,
    by_row,
    cut_short,
    lost,
    refused,
    unsendable,
)
from tests.workbench import files

# -- looking ---------------------------------------------------------------------------------------------------------


def half_way(path: Path) -> RunOnDisk:
    """A run of 20 rows in partitions of 4, refused after a while, with rows of every kind in parts and journals."""
    run = RunOnDisk(path, 20, 4, unsendable=[3, 9])
    replies: dict[int, tuple[float, Reply]] = {
        1: (1.0, cut_short()),
        4: (1.0, refused(400)),
        8: (2.5, refused(401, message="Invalid token")),
    }
    stop = virtual_time.run(carry_out(run, ScriptedService(by_row(replies, (1.0, answer()))), concurrency=3))
    assert stop is not None
    assert run.directory.parts.there()
    assert run.open_indexes()
    return run


def recorded_outcomes(run: RunOnDisk) -> Iterator[Outcome]:
    """Everything that parts and journals hold."""
    for index in run.directory.parts.there():
        yield from columns.read_outcomes(run.part(index), index * run.manifest.partition_rows)
    yield from outcomes_in(run.journaled())


def test_a_look_adds_up_to_what_is_recorded(tmp_path: Path) -> None:
    """The tally of a run half-way is the tally of every outcome in its parts and journals."""
    run = half_way(tmp_path)
    outcomes = list(recorded_outcomes(run))
    progress = run.look()
    assert progress.records == tallies.tally(outcomes)
    assert progress.calls == len(outcomes) > 8
    assert progress.tally.failures == {"template": 2, "invalid_request": 1}
    committed_rows = {row for row in range(20) if row // 4 in progress.committed}
    assert progress.recorded | committed_rows == {outcome.ordinal for outcome in outcomes}


def test_a_look_at_a_new_run_finds_nothing(tmp_path: Path) -> None:
    """No part and no journal is no row."""
    assert RunOnDisk(tmp_path, 20, 4).look() == Progress()


def test_a_look_changes_nothing(tmp_path: Path) -> None:
    """Looking at a run that goes on disturbs nothing, not even the torn end of a journal."""
    run = half_way(tmp_path)
    with next(run.directory.journals.folder.iterdir()).open("ab") as file:
        file.write(b'0123abcd {"record":')
    before = files(tmp_path)
    calls = run.look().calls
    assert files(tmp_path) == before
    assert calls == run.look().calls


def test_a_partition_committed_during_a_look_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that was recorded is never missing from a look, nor there twice, however the run goes on meanwhile."""
    run = RunOnDisk(tmp_path, 4, 4)
    run.write_journal(0, [unsendable(row) for row in range(4)])
    beside = run.directory.parts.beside

    def commit_first(known: AbstractSet[str]) -> Iterator[tuple[int, str]]:
        virtual_time.run(carry_out(RunOnDisk(tmp_path, 4, 4), ScriptedService(always(answer()))))
        return beside(known)

    monkeypatch.setattr(run.directory.parts, "beside", commit_first)
    seen = run.look()
    assert run.open_indexes() == []
    assert seen.calls == 4


def test_a_journal_beside_its_part_counts_once(tmp_path: Path) -> None:
    """A process that died between a commit and the end of its journal left each row twice, and it is one row."""
    run = RunOnDisk(tmp_path, 4, 4)
    path = run.write_journal(0, [unsendable(row) for row in range(4)])
    journal = path.read_bytes()
    virtual_time.run(carry_out(run, ScriptedService(always(answer()))))
    path.write_bytes(journal)
    found = run.look()
    assert (found.committed, found.records) == ((0,), Tally(failed=4, failures={"template": 4}))
    assert found.recorded == frozenset()


def test_a_foreign_part_is_refused(tmp_path: Path) -> None:
    """A part of another run is no row of this one."""
    run = half_way(tmp_path)
    run.manifest = msgspec.structs.replace(run.manifest, run_id="another")
    for path in [
        *run.directory.journals.folder.iterdir(),
        *run.directory.path.glob("sessions/*"),
        *run.directory.path.glob("in_*"),
    ]:
        path.unlink()
    with pytest.raises(CheckpointError, match=r"00000\.part"):
        run.look()


@pytest.mark.parametrize(("rows", "size", "count"), [(0, 4, 0), (1, 4, 1), (8, 4, 2), (9, 4, 3)])
def test_the_partitions_of_a_run_follow_from_its_manifest(tmp_path: Path, rows: int, size: int, count: int) -> None:
    """The ranges are the same in every session: size and number of rows are all that they depend on."""
    found = RunOnDisk(tmp_path, rows, size).manifest.partitions()
    assert [each.index for each in found] == list(range(count))
    assert [row for each in found for row in range(each.first_row, each.first_row + each.row_count)] == list(
        range(rows)
    )
    assert found[:1] == ([Partition(0, 0, min(rows, size))] if rows else [])


def test_a_session_begins_by_removing_only_what_is_of_no_use(tmp_path: Path) -> None:
    """Half-written files, records beside their part and counted marks go; all else stays as it is."""
    run = half_way(tmp_path)
    before = files(tmp_path)
    (run.directory.parts.folder / ".00004.part.tmp").write_bytes(b"half a part")
    run.write_journal(run.look().committed[0], [], session=1)
    run.begin()
    after = {name: content for name, content in files(tmp_path).items() if name != "sessions/2.json"}
    assert after == {name: content for name, content in before.items() if name != "in_flight.1"}


# -- kills and resumes -----------------------------------------------------------------------------------------------

End: TypeAlias = Literal["kill", "stop", "stop now"]
Plan: TypeAlias = tuple[list[tuple[float, Reply]], str]
STOPPED = Stop("interrupted", "Interrupted.")
FAULTS: list[Reply] = [refused(500), lost(), refused(429), refused(503, retry_after="2")]
ENDS: list[tuple[Reply, str]] = [(answer(), "succeeded"), (cut_short(), "incomplete"), (refused(400), "failed")]
LATENCIES = st.integers(0, 40).map(lambda tenths: tenths / 10)
TORN = b'0123abcd {"record":"answered","ordinal":3,"status":"succ'
MOST_USD = Decimal("0.01")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """What the service does with one row, request by request, and how the row ends."""
    faults = draw(st.lists(st.sampled_from(FAULTS), max_size=2))
    end, status = draw(st.sampled_from(ENDS))
    return [(draw(LATENCIES), reply) for reply in [*faults, end]], status


class Life:
    """A run that is ended and resumed, again and again. Each attempt is reserved at `MOST_USD`.

    `table`: what becomes of each call, those of each slice after those of the one before.
    """

    def __init__(
        self,
        folder: Path,
        table: list[Plan],
        partition_rows: int,
        slots: int,
        queues: Sequence[Sequence[int]] = ((0,),),
    ) -> None:
        self._folders = (folder / str(number) for number in itertools.count())
        self._table = table
        self._slots = slots
        rows, unsendable = len(table) // sum(map(len, queues)), range(4, len(table), 7)
        self.run = RunOnDisk(next(self._folders), rows, partition_rows, unsendable, queues)
        self.service = ScriptedService(self._script)
        self.service.max_cost_usd = MOST_USD
        self.paid: Counter[int] = Counter()  # requests of a row that bring its last reply, or would have
        self.in_flight_at_ends = 0  # requests that nobody heard the end of
        self._is_alive = True

    @property
    def statuses(self) -> list[str]:
        """How each row has to end."""
        return ["failed" if row % 7 == 4 else status for row, (_, status) in enumerate(self._table)]

    def session(self, end: End | None = None, at: float = 0.0) -> Stop | None:
        """One process: until it is through, or until it is ended in this way at this time."""
        found, index_of = self.run.look(), self.run.manifest.partition_of
        missing = [
            call
            for call in range(len(self._table))
            if call not in found.recorded and index_of(call) not in found.committed
        ]
        sent_before = len(self.service.sent)
        stop = virtual_time.run(self._session(end, at))
        assert set(self.service.rows[sent_before:]) <= set(missing)
        return stop

    async def _session(self, end: End | None, at: float) -> Stop | None:
        begun = self.run.begin()
        assert begun.progress.last is not None
        assert begun.progress.last.total.charges_in_flight == self.in_flight_at_ends
        assert begun.progress.last.total.charges_usd == self.in_flight_at_ends * MOST_USD
        self._is_alive = True

        @contextlib.contextmanager
        def watched(runner: Runner) -> Iterator[None]:
            task = asyncio.current_task()
            if end is not None and task is not None:
                asyncio.get_running_loop().call_at(at, self._end, end, runner, task)
            yield

        try:
            return await carry_out(
                self.run,
                self.service,
                begun=begun,
                concurrency=self._slots,
                watched=watched,
                max_attempts=99,
            )
        except (
            asyncio.CancelledError
        ):  # after a kill, which went on from a copy: nothing of this one is looked at again
            return STOPPED

    def _end(self, end: End, runner: Runner, running: "asyncio.Task[Stop | None]") -> None:
        if end == "stop":
            runner.stop(STOPPED)
            return
        if end == "stop now":
            self.in_flight_at_ends += runner.in_flight - len(runner._arrived)  # what has come is recorded
            runner.stop_now(STOPPED)
            return
        self.run = self.run.snapshot(next(self._folders))
        self._tear()
        self.in_flight_at_ends = self.run.look().with_charges.charges_in_flight
        running.cancel()
        self._is_alive = False  # what is still sent before the loop hears of it was never sent by a killed process

    def _tear(self) -> None:
        """Leave what a write leaves that was under way."""
        (self.run.directory.parts.folder / ".00099.part.tmp").write_bytes(b"PAR1 half a part")
        for path in sorted(self.run.directory.journals.folder.iterdir())[:1]:
            with path.open("ab") as file:
                file.write(TORN)

    def _script(self, row: int, attempt: int) -> tuple[float, Reply]:
        replies, _ = self._table[row]
        seconds, reply = replies[min(attempt, len(replies)) - 1]
        is_billed = isinstance(reply, HttpResponse) and reply.status == 200
        self.paid[row] += self._is_alive and attempt >= len(replies) and is_billed
        return seconds, reply


ENDINGS = st.lists(
    st.tuples(st.sampled_from(get_args(End)), st.integers(0, 120).map(lambda tenths: tenths / 10)), max_size=5
)


@settings(max_examples=60, deadline=None)
@given(
    table=st.lists(plans(), min_size=1, max_size=40),
    partition_rows=st.integers(1, 12),
    slots=st.integers(1, 5),
    endings=ENDINGS,
)
def test_no_end_of_a_process_loses_a_row_or_pays_for_a_recorded_one(
    table: list[Plan], partition_rows: int, slots: int, endings: list[tuple[End, float]]
) -> None:
    """However often a run is killed or stopped, each row is in the parts once, in order, as the service answered it.

    A recorded row is never sent again; what is paid for twice was in flight at a kill, is no more than the slots
    held then, and is on the bill of every later session, once.
    """
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), table, partition_rows, slots)
        for end, at in endings:
            life.session(end, at)
        assert life.session() is None

        parts = life.run.parts()
        assert parts["n"].to_pylist() == list(range(len(table)))
        assert parts["status"].to_pylist() == life.statuses
        assert life.run.open_indexes() == []
        paid_twice = sum(paid - 1 for paid in life.paid.values() if paid > 1)
        hard_ends = sum(end != "stop" for end, _ in endings)
        assert life.in_flight_at_ends <= hard_ends * slots
        assert paid_twice <= life.in_flight_at_ends
        assert life.service.peak <= slots

        before, sent = files(life.run.directory.parts.folder), len(life.service.sent)
        assert life.session() is None
        assert (files(life.run.directory.parts.folder), len(life.service.sent)) == (before, sent)


def test_a_run_killed_at_every_second_still_gets_through(tmp_path: Path) -> None:
    """A process that never lives long makes progress all the same, as each recorded row stays recorded."""
    life = Life(tmp_path, [([(0.7, answer())], "succeeded")] * 60, 8, 4)
    kills = 0
    while life.session("kill", 1.0) is not None:
        kills += 1
    assert life.run.parts()["n"].to_pylist() == list(range(60))
    windows = len(life.paid) // 4  # each life had the time to finish one
    assert kills == windows - 1
    assert sum(life.paid.values()) == len(life.paid) + kills * 4


def test_an_interrupted_run_pays_for_nothing_twice(tmp_path: Path) -> None:
    """After a first Ctrl-C everything that was sent is recorded: nothing has to be sent again."""
    life = Life(tmp_path, [([(0.7, answer())], "succeeded")] * 30, 8, 4)
    while life.session("stop", 1.0) is not None:
        pass
    assert set(life.paid.values()) == {1}
    assert life.in_flight_at_ends == 0
