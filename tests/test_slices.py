"""Runs of several slices: calls in a fair order, ranges shared, set aside and read again, kills and resumes."""

import asyncio
import itertools
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.errors import CheckpointError
from cometbatch.input.files import Identity
from cometbatch.input.table import partitions as ranges_of
from cometbatch.records import CallRequest
from cometbatch.results.retry_words import read_words
from cometbatch.run_state import partition, reopen
from cometbatch.run_state.input_passes import InputPasses
from cometbatch.run_state.making import MADE_AT_ONCE
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.partition_size import suggest_partition_rows
from cometbatch.run_state.queue_calls import OPEN_PARTITIONS
from tests import virtual_time
from tests.run_on_disk import RunOnDisk, carry_out
from tests.scripted_run import ScriptedService, always, answer, refused
from tests.test_partition import outcome_of_row
from tests.test_resume import End, Life, Plan, plans

SHAPES: list[Sequence[Sequence[int]]] = [((0, 1, 2),), ((0,), (1,)), ((0, 2), (1,), (3, 4))]
"""Slices of one model; of two models; of three, with several slices in some."""
MODELS = tuple((number,) for number in range(5))


def lives(shape: Sequence[Sequence[int]]) -> st.SearchStrategy[list[Plan]]:
    """What becomes of the calls of a table of a few rows in each slice."""
    slices = sum(map(len, shape))
    return st.integers(1, 12).flatmap(lambda rows: st.lists(plans(), min_size=rows * slices, max_size=rows * slices))


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    shape=st.sampled_from(SHAPES),
    partition_rows=st.integers(1, 5),
    slots=st.integers(1, 5),
    endings=st.lists(
        st.tuples(st.sampled_from(get_args(End)), st.integers(0, 120).map(lambda tenths: tenths / 10)), max_size=5
    ),
)
def test_no_end_of_a_process_loses_a_call_of_any_slice_or_pays_for_a_recorded_one(
    data: st.DataObject,
    shape: Sequence[Sequence[int]],
    partition_rows: int,
    slots: int,
    endings: list[tuple[End, float]],
) -> None:
    """However often it is killed or stopped, each call ends once, and what was in flight at a kill is on the bill."""
    table = data.draw(lives(shape))
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), table, partition_rows, slots, shape)
        for end, at in endings:
            life.session(end, at)
        assert life.session() is None
        slices = len(life.run.manifest.slices)
        parts = life.run.parts()
        assert parts["n"].to_pylist() == [*range(len(table) // slices)] * slices
        assert parts["status"].to_pylist() == life.statuses
        assert life.run.open_indexes() == []
        paid_twice = sum(paid - 1 for paid in life.paid.values() if paid > 1)
        assert paid_twice <= life.in_flight_at_ends
        sent = len(life.service.sent)
        assert life.session() is None
        assert len(life.service.sent) == sent


# -- a fair order ----------------------------------------------------------------------------------------------------


async def handed_out(partitions: Partitions) -> list[list[int]]:
    """What each queue hands out, in order, while everything is recorded at once."""
    found: list[list[int]] = []
    for queue in partitions.queues:
        found.append([])
        while (call := await queue.next_call()) is not None:
            found[-1].append(call.ordinal)
            partitions.record([outcome_of_row(call.ordinal)])
    await partitions.finish()
    return found


@pytest.mark.parametrize("partition_rows", [40, 100, 1000])
def test_slices_of_a_queue_differ_by_at_most_so_many_rows_as_are_made_at_a_time(
    tmp_path: Path, partition_rows: int
) -> None:
    """At any moment each slice has been handed the same rows, in the same order, but for the newest few."""
    run = RunOnDisk(tmp_path, 230, partition_rows, queues=[(0, 1, 2), (3,)])
    together, alone = virtual_time.run(handed_out(run.partitions(4)))
    assert alone == [3 * 230 + row for row in range(230)]
    rows = Counter[int]()
    for ordinal in together:
        number, row = divmod(ordinal, 230)
        assert row == rows[number]  # in order
        rows[number] += 1
        assert max(rows[each] for each in range(3)) - min(rows[each] for each in range(3)) <= MADE_AT_ONCE
    assert rows == dict.fromkeys(range(3), 230)


def test_a_limit_is_of_rows_in_each_slice(tmp_path: Path) -> None:
    """The first rows are answered in each slice, and a later session answers the others."""
    run = RunOnDisk(tmp_path, 20, 6, queues=[(0, 1), (2,)])
    begun = run.begin()
    assert (begun.calls_due(8), len(begun.due(8))) == (24, 6)
    limited = run.partitions(4, begun, limit=8)
    assert [sorted(some) for some in virtual_time.run(handed_out(limited))] == [
        [*range(8), *range(20, 28)],
        [*range(40, 48)],
    ]
    assert run.look().calls == 24
    rest = virtual_time.run(handed_out(run.partitions(4)))
    assert sorted(itertools.chain.from_iterable(rest)) == sorted(
        set(range(60)) - {*range(8), *range(20, 28), *range(40, 48)}
    )
    assert run.parts()["n"].to_pylist() == [*range(20)] * 3


@pytest.mark.parametrize(("slices", "expected"), [(1, 1024), (64, 1024), (160, 409), (2000, 64)])
def test_a_range_has_so_many_calls_at_most_and_so_many_rows_at_least(slices: int, expected: int) -> None:
    """One journal holds 65,536 calls at most; but parts of a few rows are slow to write and to read."""
    assert suggest_partition_rows(Identity("t.csv", 1000, "", 10**6, ("a",)), None, slices) == expected


# -- queues of different speeds --------------------------------------------------------------------------------------


class Speeds:
    """A service of several models, each with its own latency; it looks at what is open each time that it is asked."""

    def __init__(self, run: RunOnDisk, latencies: Sequence[float]) -> None:
        self.run = run
        self.rows = run.table.num_rows
        self.service = ScriptedService(self._reply)
        self.most_journals = 0
        self.ends = defaultdict[int, float](float)
        self._latencies = latencies
        self._partitions: Partitions | None = None

    def _reply(self, ordinal: int, _attempt: int) -> tuple[float, Any]:
        assert self._partitions is not None
        opened = self._partitions._ranges
        journals = [each.journal for each in opened if each.journal is not None and not each.journal.is_closed]
        self.most_journals = max(self.most_journals, len(journals))
        return self._latencies[ordinal // self.rows], answer()

    def carry_out(self, slots: int) -> None:
        """All calls, to their outcomes."""

        async def main() -> None:
            self._partitions = self.run.partitions(slots)
            assert await carry_out(self.run, self.service, partitions=self._partitions, concurrency=slots) is None

        virtual_time.run(main())
        for at, ordinal in self.service.ended:
            self.ends[ordinal // self.rows] = max(self.ends[ordinal // self.rows], at)


def test_a_slow_model_holds_up_no_other_and_costs_one_more_reading(tmp_path: Path) -> None:
    """Four models end as soon as they would alone; each range is read once for them and once more for the slow one."""
    speeds = Speeds(RunOnDisk(tmp_path, 240, 12, queues=MODELS), [1, 1, 1, 1, 10])
    speeds.carry_out(slots=20)
    assert max(speeds.ends[number] for number in range(4)) == pytest.approx(60)  # four slots each
    assert speeds.ends[4] > 2 * 60
    assert max(speeds.run.reads.values()) <= 2
    assert speeds.run.reads.total() <= 2 * 20
    assert speeds.most_journals <= 2 * OPEN_PARTITIONS
    assert speeds.run.parts()["n"].to_pylist() == [*range(240)] * 5
    assert speeds.run.open_indexes() == []


def test_models_of_one_speed_read_the_input_once(tmp_path: Path) -> None:
    """What is open is shared by all that are there."""
    speeds = Speeds(RunOnDisk(tmp_path, 120, 12, queues=MODELS), [1] * 5)
    speeds.carry_out(slots=20)
    assert speeds.run.reads == dict.fromkeys(range(10), 1)


@settings(max_examples=12, deadline=None)
@given(
    latencies=st.lists(st.sampled_from([0.1, 1.0, 7.0, 60.0]), min_size=2, max_size=4),
    rows=st.integers(1, 40),
    partition_rows=st.integers(1, 9),
    slots=st.integers(1, 9),
    open_bytes=st.sampled_from([1, 200, 10**6]),
    slow_rows=st.sets(st.integers(0, 39), max_size=4),
)
def test_bounds_of_memory_stop_no_queue_for_good(
    *, latencies: list[float], rows: int, partition_rows: int, slots: int, open_bytes: int, slow_rows: set[int]
) -> None:
    """Whatever the speeds and the sizes, each call comes to its end, and what is open stays within its bounds."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition, "MAX_OPEN_BYTES", open_bytes)
        queues = [(number,) for number in range(len(latencies))]
        run = RunOnDisk(Path(folder), rows, partition_rows, queues=queues)
        most_open = 0

        def reply(ordinal: int, _attempt: int) -> tuple[float, Any]:
            nonlocal most_open
            most_open = max(most_open, len(run.directory.journals.all()))
            number, row = divmod(ordinal, rows)
            return (500.0 if row in slow_rows else latencies[number]), answer()

        async def main() -> None:
            work = carry_out(run, ScriptedService(reply), concurrency=slots)
            assert await asyncio.wait_for(work, 10**6) is None

        virtual_time.run(main())
        assert run.parts()["n"].to_pylist() == [*range(rows)] * len(latencies)
        if open_bytes == 1:
            assert most_open <= len(latencies) + 1  # a range for each queue, and one that is being closed


def test_a_range_that_is_set_aside_is_opened_again_in_the_same_session(tmp_path: Path) -> None:
    """Its journal goes where all that it tells of has a part, and is appended to where not."""
    run = RunOnDisk(tmp_path, 4, 2, queues=[(0,), (1,)])

    async def main() -> None:
        partitions = run.partitions(4)
        fast, slow = partitions.queues
        for _ in range(4):
            call = await fast.next_call()
            assert isinstance(call, CallRequest)
            if call.ordinal == 1:
                partitions.leave(1)
            else:
                partitions.record([outcome_of_row(call.ordinal)])
        await asyncio.wait(fast.settling)
        assert [*partitions._ranges] == []
        assert [file.range for file in run.directory.journals.all()] == [0]  # the other range's has gone
        for ordinal in range(4, 8):
            call = await slow.next_call()
            assert call is not None
            assert call.ordinal == ordinal
            partitions.record([outcome_of_row(ordinal)])
        await partitions.finish()

    virtual_time.run(main())
    progress = run.look()
    assert (progress.committed, [*progress.recorded]) == ((1, 2, 3), [0])
    assert [file.name for file in run.directory.journals.all()] == ["00000.1.jsonl"]
    service = ScriptedService(always(answer()))
    assert virtual_time.run(carry_out(run, service)) is None
    assert service.rows == [1]
    assert run.open_indexes() == []


def test_a_model_that_stops_for_itself_is_set_aside_and_resumed(tmp_path: Path) -> None:
    """What it had recorded counts; its open calls are sent in the next session, and no other's."""
    run = RunOnDisk(tmp_path, 30, 6, queues=[(0,), (1,)])
    gone = refused(404, code="model_not_found", message="no such model")

    def reply(ordinal: int, _attempt: int) -> tuple[float, Any]:
        return 1.0, gone if ordinal >= 30 + 9 else answer()

    stopped = ScriptedService(reply)
    virtual_time.run(carry_out(run, stopped, concurrency=4, max_alike=3))
    before = run.look()
    assert {*range(5)} <= set(before.committed)  # the other model has all of its answers
    assert before.calls < 60
    service = ScriptedService(always(answer()))
    assert virtual_time.run(carry_out(run, service)) is None
    assert len(service.rows) == 60 - before.calls
    assert min(service.rows) >= 30
    assert run.parts()["n"].to_pylist() == [*range(30)] * 2


# -- slices that the job names no more; rounds; losses ---------------------------------------------------------------


def half_done(run: RunOnDisk, ordinals: Sequence[int]) -> None:
    """A session that has recorded these calls, and was stopped."""

    async def main() -> None:
        partitions = run.partitions(8)
        for queue in partitions.queues:
            while (call := await queue.next_call()) is not None:
                if call.ordinal in ordinals:
                    partitions.record([outcome_of_row(call.ordinal)])
                if not queue.has_room:
                    break
        await partitions.finish()

    virtual_time.run(main())


def test_slices_that_the_job_names_no_more_stay_as_they_are(tmp_path: Path) -> None:
    """Nothing of them is sent, their parts and journals stay, and they go on where they were once named again."""
    run = RunOnDisk(tmp_path, 8, 4, queues=[(0,), (1,)])
    half_done(run, [0, 8, 9])
    run.manifest = msgspec.structs.replace(run.manifest, named=(1,), needs=("matrix",))
    run.queues = [(1,)]
    service = ScriptedService(always(answer()))
    assert virtual_time.run(carry_out(run, service)) is None
    assert sorted(service.rows) == [*range(10, 16)]
    found = run.found()
    assert (found.is_complete, found.partition_count, found.calls_due(None)) == (True, 2, 0)
    assert (run.open_indexes(), [*found.progress.recorded]) == ([0], [0])
    assert found.progress.by_slice[0].calls == 1
    run.manifest, run.queues = msgspec.structs.replace(run.manifest, named=msgspec.UNSET), [(0,), (1,)]
    service = ScriptedService(always(answer()))
    assert virtual_time.run(carry_out(run, service)) is None
    assert sorted(service.rows) == [*range(1, 8)]
    assert run.open_indexes() == []


def test_a_round_of_retry_resets_calls_of_several_slices(tmp_path: Path) -> None:
    """Of each slice what failed is asked again, whether it stands in a part or in the journal of its range."""
    run = RunOnDisk(tmp_path, 8, 4, queues=[(0,), (1, 2)])

    def reply(ordinal: int, _attempt: int) -> tuple[float, Any]:
        if ordinal % 8 == 7:
            return 100.0, answer()
        return 1.0, refused(400) if ordinal % 3 == 0 else answer()

    async def interrupted() -> None:
        with pytest.raises((asyncio.TimeoutError, asyncio.CancelledError)):
            await asyncio.wait_for(carry_out(run, ScriptedService(reply)), 50)

    virtual_time.run(interrupted())
    assert len(run.look().committed) == 3
    words = read_words("failed")
    found = run.begin()
    matching = reopen.find(found, words)
    failed = {ordinal for ordinal in range(24) if ordinal % 3 == 0 and ordinal % 8 != 7}
    assert matching.calls == len(failed)
    reopen.take_back(found, words, matching)
    unanswered = {7, 15, 23}
    service = ScriptedService(always(answer()))
    assert virtual_time.run(carry_out(run, service)) is None
    assert set(service.rows) == failed | unanswered
    assert len(service.rows) == len(failed | unanswered)
    assert run.look().records.succeeded == 24
    assert run.open_indexes() == []


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_journal_that_is_gone_is_missed_while_it_told_of_a_partition_without_a_part(
    tmp_path: Path, *, is_committed: bool
) -> None:
    """Where each partition of which it told has its part, it has gone rightly, although others have none yet."""
    run = RunOnDisk(tmp_path, 8, 4, queues=[(0,), (1,)])
    half_done(run, [0, 1, 2, 8])
    begun = run.begin()
    assert begun.progress.last is not None
    assert begun.progress.last.open == {0: (0, 2)}
    path = run.directory.journals.folder / "00000.1.jsonl"
    if is_committed:
        run.begin()  # with nothing lost
        half_done(run, [3, *range(9, 12)])
        assert {0, 2} <= set(run.look().committed)
        assert not path.exists()
        run.look()
    else:
        path.unlink()
        with pytest.raises(CheckpointError, match="this file is gone"):
            run.look()


# -- reading ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(turns=st.lists(st.integers(0, 3), max_size=60), count=st.integers(1, 8))
def test_no_more_passes_are_open_than_there_are_queues(turns: list[int], count: int) -> None:
    """However queues overtake each other, a pass reads ascending; who can go on with one that is there does so."""
    begun = 0
    of_rows = ranges_of(count, 1)

    def tables(wanted: Any) -> Any:
        nonlocal begun
        begun += 1
        last = -1
        for each in wanted:
            assert each.index > last
            last = each.index
            yield each.index

    passes, places = InputPasses(tables), [0] * 4
    for queue in turns:
        number = places[queue]
        if number == count:
            continue
        places[queue] += 1
        pass_, useless = passes.pass_to(number, {place for place in places if place < count})
        read: Callable[..., Any] = pass_.read
        assert read(of_rows[number]) == number
        for each in useless:
            each.close()
        assert len(passes._passes) <= 4
    passes.close()
    if len(set(turns)) < 2:
        assert begun <= 1
