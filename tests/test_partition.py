"""Partitions: handed out row by row, recorded, committed as parts, and resumed from what a disk holds."""

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.errors import CheckpointError
from cometbatch.records import Failed, Failure, Outcome, Partition
from cometbatch.results import columns
from cometbatch.run_state import group_commit, open_partition, partition
from cometbatch.run_state.group_commit import SYNC_INTERVAL_S
from cometbatch.run_state.journal import Journal
from cometbatch.run_state.open_partition import RECORD_BYTES, OpenPartition
from cometbatch.run_state.partition import ROWS_PER_SLOT, Partitions
from cometbatch.run_state.queue_calls import OPEN_PARTITIONS, QueueCalls
from tests import virtual_time
from tests.run_on_disk import RunOnDisk, carry_out
from tests.scripted_run import (
    NOW,
    RUN_ID,
    ScriptedService,
    always,
    answer,
    by_row,
    refused,
)


def outcome_of_row(row: int) -> Failed:
    """Some outcome, told from others by its row."""
    return Failed(row, str(row), 2, 1.5, NOW + timedelta(seconds=row), "hash", Failure("blocked", f"row {row}"))


def journal(run: RunOnDisk, index: int, rows: range) -> None:
    """Leave a journal behind, as a process that died with these rows recorded."""
    run.write_journal(index, [outcome_of_row(row) for row in rows], session=1)


def all_rows(run: RunOnDisk) -> list[int]:
    """The row numbers in all parts, in their order there."""
    return list(map(int, run.parts()["n"].to_pylist()))


@pytest.fixture(autouse=True, params=["kept", "read back", "in pieces"])
def _records(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a partition's records still fit in memory when it is committed, or come from its journal, or one by one.

    Long answers come so: a part of a thousand of them would take some hundred megabytes.
    """
    if request.param != "kept":
        monkeypatch.setattr("cometbatch.run_state.partition.MAX_KEPT_BYTES", 0)
    if request.param == "in pieces":
        monkeypatch.setattr("cometbatch.run_state.open_partition.PIECE_BYTES", 1)


# -- rows out, parts in ----------------------------------------------------------------------------------------------


def only_queue(partitions: Partitions) -> QueueCalls:
    """The calls of a run in which all wait for each other."""
    (queue,) = partitions.queues
    return queue


async def hand_out_all(rows: Partitions) -> list[int]:
    """Record every row as soon as it is handed out."""
    handed_out = []
    while (row := await only_queue(rows).next_call()) is not None:
        handed_out.append(row.ordinal)
        rows.record([row if isinstance(row, Failed) else outcome_of_row(row.ordinal)])
    await rows.finish()
    return handed_out


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(0, 20), partition_rows=st.integers(1, 8))
def test_every_row_is_handed_out_once_in_input_order(
    tmp_path_factory: pytest.TempPathFactory, rows: int, partition_rows: int
) -> None:
    """Whatever the partition size, the parts hold all rows once, in order, and no journal is left."""
    run = RunOnDisk(tmp_path_factory.mktemp("run"), rows, partition_rows, unsendable=range(2, rows, 5))
    assert virtual_time.run(hand_out_all(run.partitions(4))) == list(range(rows))
    assert run.directory.parts.there() == list(range(-(-rows // partition_rows)))
    assert run.open_indexes() == []
    if rows:
        assert all_rows(run) == list(range(rows))


def test_an_answer_stands_beside_its_own_row(tmp_path: Path) -> None:
    """However the answers overtake each other, the part has each beside the row that asked."""
    run = RunOnDisk(tmp_path, 24, 8)
    service = ScriptedService(lambda row, _attempt: (1 + row * 7 % 5, answer(f"answer to {row}")))
    assert virtual_time.run(carry_out(run, service, concurrency=5)) is None
    table = run.parts()
    assert table["response"].to_pylist() == [f"answer to {row}" for row in range(24)]
    assert table["custom_id"].to_pylist() == [f"id-{row}" for row in range(24)]


# -- room ------------------------------------------------------------------------------------------------------------


def open_beside_a_slow_row(run: RunOnDisk, concurrency: int) -> int:
    """Carry all rows out, the second of which takes very long; the most partitions that were open at a time."""
    most_open = 0

    def script(row: int, _attempt: int) -> tuple[float, Any]:
        nonlocal most_open
        most_open = max(most_open, len(run.open_indexes()))
        return (500.0 if row == 1 else 1.0), answer()

    assert virtual_time.run(carry_out(run, ScriptedService(script), concurrency=concurrency)) is None
    return most_open


@pytest.mark.parametrize("partition_rows", [8, 25])
def test_a_slow_row_keeps_few_partitions_open(tmp_path: Path, partition_rows: int) -> None:
    """While one early row is waited for, the others go on, and memory stays at a few open partitions."""
    run = RunOnDisk(tmp_path, 8 * partition_rows, partition_rows)
    most_open = open_beside_a_slow_row(run, concurrency=2)
    assert 2 <= most_open <= OPEN_PARTITIONS
    assert all_rows(run) == list(range(8 * partition_rows))


def test_three_threads_do_all_work_on_files_however_long_the_table(tmp_path: Path) -> None:
    """Allocators keep memory for every thread that ever took some: with a pool's, a run grew as it went on."""
    run = RunOnDisk(tmp_path, 8 * 40, 8)
    before, seen = set(threading.enumerate()), set[threading.Thread]()

    def script(_row: int, _attempt: int) -> tuple[float, Any]:
        seen.update(threading.enumerate())
        return 1.0, answer()

    assert virtual_time.run(carry_out(run, ScriptedService(script), concurrency=8)) is None
    assert len(seen - before) <= 3
    for thread in seen - before:
        thread.join()  # would never end where one is left behind


def test_rows_of_an_open_partition_need_no_room(tmp_path: Path) -> None:
    """The last partition that may be open is worked through while the others are still waited for."""
    run = RunOnDisk(tmp_path, 8 * OPEN_PARTITIONS, 8)
    slow = dict.fromkeys(range(0, 8 * (OPEN_PARTITIONS - 1), 8), (200.0, answer()))
    service = ScriptedService(by_row(slow, (1.0, answer())))
    virtual_time.run(carry_out(run, service, concurrency=OPEN_PARTITIONS))
    assert sum(at < 200 for at, _ in service.ended) == 8 * OPEN_PARTITIONS - len(slow)


def test_stuck_partitions_hold_back_fresh_ones(tmp_path: Path) -> None:
    """With all room taken by partitions that wait for a row, no further one is opened, and none is forgotten."""
    run = RunOnDisk(tmp_path, 8 * (OPEN_PARTITIONS + 2), 8)
    slow = dict.fromkeys(range(0, 8 * OPEN_PARTITIONS, 8), (200.0, answer()))
    service = ScriptedService(by_row(slow, (1.0, answer())))
    virtual_time.run(carry_out(run, service, concurrency=OPEN_PARTITIONS + 1))
    assert max(row for at, row in service.sent if at < 200) < 8 * OPEN_PARTITIONS
    assert all_rows(run) == list(range(8 * (OPEN_PARTITIONS + 2)))


def test_a_part_of_long_answers_is_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Journal, records and columns of 2,048 answers of 100 kB were in memory at a time: a gigabyte."""
    monkeypatch.setattr(open_partition, "PIECE_BYTES", 1)
    run = RunOnDisk(tmp_path, 24, 8)
    service = ScriptedService(lambda row, _attempt: (1 + row * 7 % 5, answer(f"answer to {row}")))
    virtual_time.run(carry_out(run, service, concurrency=8))
    assert [pq.read_metadata(path).num_row_groups for path in sorted(run.directory.parts.folder.iterdir())] == [8, 8, 8]
    assert run.parts()["response"].to_pylist() == [f"answer to {row}" for row in range(24)]


@pytest.mark.parametrize(("text", "is_kept"), [("e" * 1000, True), ("e" * 997 + "\N{GRINNING FACE}", False)])
def test_what_is_kept_in_memory_is_bounded_by_what_it_takes_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, *, is_kept: bool
) -> None:
    """One wide character makes every character of a text four bytes; in the journal both lines are as long."""
    read_again = list[int]()
    whole = Journal.read_again

    def counted(journal: Journal, offset: int, size: int) -> bytes:
        read_again.append(offset)
        return whole(journal, offset, size)

    monkeypatch.setattr(Journal, "read_again", counted)
    monkeypatch.setattr(partition, "MAX_KEPT_BYTES", 8 * 2000)
    run = RunOnDisk(tmp_path, 8, 8)
    assert virtual_time.run(carry_out(run, ScriptedService(always(answer(text))))) is None
    assert run.parts()["response"].to_pylist() == [text] * 8
    assert len(read_again) == (0 if is_kept else 8)


@pytest.mark.parametrize("room", [0, 20 * 2000, 90 * 2000])
def test_partitions_share_what_is_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Of the records of many slices as many are read again as do not fit, whichever partition has them."""
    read_again, most = list[int](), 0
    whole, added = Journal.read_again, OpenPartition.note

    def counted(journal: Journal, offset: int, size: int) -> bytes:
        read_again.append(offset)
        return whole(journal, offset, size)

    def noted(opened: OpenPartition, *arguments: Any) -> None:
        nonlocal most
        added(opened, *arguments)
        kept = (each._records._in_memory or () for each in partitions._open.values())
        most = max(most, sum(map(len, kept)))

    monkeypatch.setattr(Journal, "read_again", counted)
    monkeypatch.setattr(OpenPartition, "note", noted)
    monkeypatch.setattr(partition, "MAX_KEPT_BYTES", room)
    run = RunOnDisk(tmp_path, 6, 6, queues=[tuple(range(15))])
    partitions = run.partitions(90)
    service = ScriptedService(always(answer("e" * 1000)))
    assert virtual_time.run(carry_out(run, service, concurrency=90, partitions=partitions)) is None
    assert run.parts()["response"].to_pylist() == ["e" * 1000] * 90
    assert most <= room // (1000 + RECORD_BYTES)
    assert not read_again if room == 90 * 2000 else len(read_again) >= 90 - most
    assert partitions._kept.take(room)  # all of it was given back


def test_partitions_of_long_texts_are_open_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table sorted by length ends in partitions of eighty megabytes, and four of them were open."""
    monkeypatch.setattr(partition, "MAX_OPEN_BYTES", 1)
    run = RunOnDisk(tmp_path, 8 * 3, 8)
    most_open = open_beside_a_slow_row(run, concurrency=4)
    assert most_open == 1
    assert all_rows(run) == list(range(8 * 3))


@pytest.mark.parametrize("partition_rows", [1, 3])
def test_tiny_partitions_fill_all_slots(tmp_path: Path, partition_rows: int) -> None:
    """Where partitions are smaller than a window of requests, as many are open as the slots need."""
    run = RunOnDisk(tmp_path, 96, partition_rows)
    service = ScriptedService(always(answer(), latency=10.0))
    virtual_time.run(carry_out(run, service, concurrency=16))
    assert service.peak == 16
    assert service.ended[-1][0] == pytest.approx(60.0)


def test_a_row_in_the_backlog_does_not_lock_up_the_room(tmp_path: Path) -> None:
    """Where each open partition's last row waits for its next attempt, the run waits, and then goes on."""
    run = RunOnDisk(tmp_path, 40, 4)
    busy = refused(429, retry_after="20")

    def script(row: int, attempt: int) -> tuple[float, Any]:
        return 1.0, busy if row % 4 == 3 and attempt == 1 else answer()

    service = ScriptedService(script)
    finished = asyncio.wait_for(carry_out_later(run, service, concurrency=1, max_pushback_s=5000.0), 100_000)
    assert virtual_time.run(finished) is None
    assert all_rows(run) == list(range(40))


@pytest.mark.parametrize("left", [1, 3])
def test_partitions_of_which_only_rows_are_left_that_nobody_waits_for_make_room(tmp_path: Path, left: int) -> None:
    """They are closed, with what they hold in their journals, and the next session sends those rows and no others."""
    run = RunOnDisk(tmp_path, 200, 4)
    days = refused(429, retry_after="581981")
    service = ScriptedService(lambda row, _: (1.0, days if row % 4 < left else answer()))
    assert virtual_time.run(carry_out(run, service, concurrency=2)) is not None
    assert run.look().calls == 200 - 50 * left
    assert len(run.open_indexes()) == 50
    healthy = ScriptedService(always(answer()))
    assert virtual_time.run(carry_out(run, healthy)) is None
    assert len(healthy.sent) == 50 * left
    assert all_rows(run) == list(range(200))


async def carry_out_later(run: RunOnDisk, service: ScriptedService, **options: Any) -> object:
    """The same as `carry_out`, made outside a loop."""
    return await carry_out(run, service, **options)


def test_template_failures_alone_commit_their_partitions(tmp_path: Path) -> None:
    """A table of which no row can be sent ends by itself, within the bound of open partitions."""
    run = RunOnDisk(tmp_path, 200, 10, unsendable=range(200))
    service = ScriptedService(always(answer()))
    assert virtual_time.run(carry_out(run, service)) is None
    assert service.sent == []
    assert run.look().tally.failures == {"template": 200}


# -- carrying on -----------------------------------------------------------------------------------------------------


def test_a_complete_journal_is_committed_without_asking_anything(tmp_path: Path) -> None:
    """A process that died between its last outcome and its commit left nothing to send."""
    run = RunOnDisk(tmp_path, 12, 4)
    for index in range(3):
        journal(run, index, range(4 * index, 4 * index + 4))
    service = ScriptedService(always(answer()))
    assert virtual_time.run(carry_out(run, service)) is None
    assert service.sent == []
    assert all_rows(run) == list(range(12))
    assert run.parts()["error_message"].to_pylist() == [f"row {row}" for row in range(12)]


def test_only_rows_without_an_outcome_are_sent_again(tmp_path: Path) -> None:
    """A journal half full is resumed; what it holds goes into the part as it was."""
    run = RunOnDisk(tmp_path, 8, 4)
    journal(run, 0, range(1, 3))
    service = ScriptedService(always(answer()))
    assert virtual_time.run(carry_out(run, service)) is None
    assert service.rows == [0, 3, 4, 5, 6, 7]
    assert run.parts()["status"].to_pylist() == ["succeeded", "failed", "failed", *["succeeded"] * 5]


def test_a_stopped_run_keeps_its_journals(tmp_path: Path) -> None:
    """What was recorded before a stop is there afterwards, and the next session sends the rest."""
    run = RunOnDisk(tmp_path, 20, 20)
    stopping = ScriptedService(by_row({9: (1.0, refused(401, message="Invalid token"))}, (1.0, answer())))
    stop = virtual_time.run(carry_out(run, stopping))
    assert stop is not None
    recorded = run.look().calls
    assert recorded == len(stopping.sent) - 1

    service = ScriptedService(always(answer()))
    assert virtual_time.run(carry_out(run, service)) is None
    assert len(service.sent) == 20 - recorded
    assert all_rows(run) == list(range(20))


# -- faults ----------------------------------------------------------------------------------------------------------


def block_parts(run: RunOnDisk) -> None:
    """Make committing impossible: the folder of the parts is a file."""
    run.directory.parts.folder.rmdir()
    run.directory.parts.folder.write_text("in the way")


def unblock_parts(run: RunOnDisk) -> None:
    """Make committing possible again."""
    run.directory.parts.folder.unlink()
    run.directory.parts.folder.mkdir()


@pytest.mark.parametrize("rows", [4, 12, 400])
def test_a_commit_that_fails_ends_the_run_and_loses_nothing(tmp_path: Path, rows: int) -> None:
    """The error comes out, with the way on; the journals stay, and their rows are never sent again."""
    run = RunOnDisk(tmp_path, rows, 4)
    partitions = run.partitions(4)
    block_parts(run)
    first = ScriptedService(always(answer()))
    with pytest.raises(CheckpointError, match=r"parts.*run the same command again"):
        virtual_time.run(asyncio.wait_for(carry_out_later(run, first, partitions=partitions), 10_000))
    recorded = {record.ordinal for record in run.journaled()}
    assert len(recorded) >= 4

    unblock_parts(run)
    second = ScriptedService(always(answer()))
    assert virtual_time.run(carry_out(run, second)) is None
    assert sorted(second.rows) == sorted(set(range(rows)) - recorded)
    assert all_rows(run) == list(range(rows))


def test_failing_commits_that_take_all_room_do_not_stall_the_run(tmp_path: Path) -> None:
    """With nothing in flight to notice, and no room to go on, the error still comes out."""
    run = RunOnDisk(tmp_path, 4 * (OPEN_PARTITIONS + 2), 4)
    for index in range(OPEN_PARTITIONS):
        journal(run, index, range(4 * index, 4 * index + 3))  # all but one row: all commits start at one moment
    partitions = run.partitions(OPEN_PARTITIONS)
    block_parts(run)
    service = ScriptedService(always(answer()))

    async def main() -> float:
        with pytest.raises(CheckpointError):
            await asyncio.wait_for(
                carry_out(run, service, concurrency=OPEN_PARTITIONS, partitions=partitions), timeout=1000
            )
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) < 10


def test_an_answer_is_kept_even_if_another_partition_is_broken(tmp_path: Path) -> None:
    """An answer that was paid for goes to its journal before anyone hears of a commit that failed elsewhere."""
    run = RunOnDisk(tmp_path, 8, 4)

    async def main() -> None:
        partitions = run.partitions(4)
        block_parts(run)
        commit_ended = asyncio.Event()
        only_queue(partitions).on_room = commit_ended.set
        for _ in range(8):
            await only_queue(partitions).next_call()
        for row in range(4):
            partitions.record([outcome_of_row(row)])
        await commit_ended.wait()
        partitions.record([outcome_of_row(6)])
        with pytest.raises(CheckpointError):
            await only_queue(partitions).next_call()
        with pytest.raises(CheckpointError):
            await partitions.finish()

    virtual_time.run(main())
    assert sorted(record.ordinal for record in run.journaled()) == [0, 1, 2, 3, 6]


def test_an_input_that_ends_early_is_an_error(tmp_path: Path) -> None:
    """A table that is shorter than the run believes ends the run rather than its rows."""
    run = RunOnDisk(tmp_path, 12, 4)

    def faulty(wanted: Iterable[Partition]) -> Iterator[pa.Table]:
        return iter([run.table.slice(0, 4)])

    run.tables = faulty  # type: ignore[method-assign] # the run's one reader, replaced
    with pytest.raises(ValueError, match="shorter"):
        virtual_time.run(carry_out(run, ScriptedService(always(answer()))))


# -- group commit ----------------------------------------------------------------------------------------------------


def test_what_is_recorded_is_synced_within_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times a second new records and marks are made to survive a power cut, once a file and not once a row."""
    run = RunOnDisk(tmp_path, 990, 1000)
    synced: list[float] = []
    really = os.fdatasync
    service = ScriptedService(always(answer(), latency=0.12))

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def counted(descriptor: int) -> None:
            synced.append(loop.time())
            really(descriptor)

        monkeypatch.setattr(os, "fdatasync", counted)
        await carry_out(run, service, concurrency=10)

    virtual_time.run(main())
    assert max(Counter(synced).values()) == 2  # a journal, and the marks
    recorded = {at for at, _ in service.ended}
    assert len(recorded) == 99
    for at in recorded:
        assert any(at <= moment <= at + 1.5 * SYNC_INTERVAL_S for moment in synced)


def test_a_part_that_takes_long_to_write_holds_up_no_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other partitions record meanwhile is not to wait for it."""
    run = RunOnDisk(tmp_path, 8, 4)
    writing, synced, really = threading.Event(), threading.Event(), columns.join
    held_up: list[bool] = []

    def slowly(*arguments: Any, **named: Any) -> pa.Table:
        writing.set()
        held_up.append(not synced.wait(timeout=20))
        return really(*arguments, **named)

    async def main() -> None:
        partitions = run.partitions(8)
        marks = run.directory.new_marks(RUN_ID, 1, 8)
        syncing = asyncio.create_task(partitions.sync_forever(marks))
        for _ in range(8):
            await only_queue(partitions).next_call()
        partitions.record([outcome_of_row(row) for row in range(4)])
        await asyncio.to_thread(writing.wait)
        monkeypatch.setattr(os, "fdatasync", lambda _descriptor: synced.set())
        partitions.record([outcome_of_row(4)])
        await partitions.finish()
        syncing.cancel()
        marks.close()

    monkeypatch.setattr(group_commit, "SYNC_INTERVAL_S", 0.001)
    monkeypatch.setattr(columns, "join", slowly)
    asyncio.run(main())
    assert held_up
    assert not any(held_up)


def test_nothing_new_is_nothing_to_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a row is waited for, the disk is left in peace."""
    run = RunOnDisk(tmp_path, 2, 2)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    virtual_time.run(carry_out(run, ScriptedService(by_row({1: (200.0, answer())}, (1.0, answer())))))
    assert 1 <= len(synced) <= 4  # marks and header, a record, the last one


def test_a_disk_that_fails_to_sync_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcomes that may not survive a power cut are no reason to buy more of them."""
    run = RunOnDisk(tmp_path, 100, 100)

    def failing(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", failing)
    service = ScriptedService(always(answer()))
    with pytest.raises((OSError, CheckpointError), match="Input/output error"):
        virtual_time.run(carry_out(run, service))
    assert len(service.sent) <= 8


def test_outcomes_are_read_back_from_the_journal_in_row_order(tmp_path: Path) -> None:
    """A part's order is the input's, whatever order the answers came in."""
    run = RunOnDisk(tmp_path, 6, 6)

    async def main() -> None:
        partitions = run.partitions(4)
        for _ in range(6):
            await only_queue(partitions).next_call()
        for row in (4, 0, 5, 2, 1, 3):
            partitions.record([outcome_of_row(row)])
        await partitions.finish()

    virtual_time.run(main())
    outcomes: list[Outcome] = columns.read_outcomes(run.parts(), 0)
    assert [outcome.ordinal for outcome in outcomes] == list(range(6))
    assert outcomes == [outcome_of_row(row) for row in range(6)]


def test_room_is_measured_in_partitions_and_in_rows_a_slot(tmp_path: Path) -> None:
    """Opening another partition is allowed below a number of them, or while the slots would run dry."""
    run = RunOnDisk(tmp_path, 1000, 1)

    async def handed_out_until_full(slots: int) -> int:
        partitions = run.partitions(slots)
        count = 0
        while only_queue(partitions).has_room:
            assert await only_queue(partitions).next_call() is not None
            count += 1
        await partitions.finish()
        return count

    assert virtual_time.run(handed_out_until_full(1)) == max(OPEN_PARTITIONS, ROWS_PER_SLOT)
    assert virtual_time.run(handed_out_until_full(16)) == 16 * ROWS_PER_SLOT


def test_an_unfinished_session_leaves_no_journal_open(tmp_path: Path) -> None:
    """`finish` syncs and closes what stays open."""
    run = RunOnDisk(tmp_path, 4, 4)

    async def main() -> Partitions:
        partitions = run.partitions(4)
        await only_queue(partitions).next_call()
        partitions.record([outcome_of_row(0)])
        await partitions.finish()
        return partitions

    partitions = virtual_time.run(main())
    with pytest.raises((ValueError, CheckpointError)):
        partitions.record([outcome_of_row(1)])
    assert run.look().calls == 1


@pytest.mark.parametrize("left", [0, 1])
def test_a_signal_that_ends_the_loop_while_a_partition_closes_is_no_error(tmp_path: Path, left: int) -> None:
    """The thread has closed the journal, and the task that waits for it is cancelled before it can say so.

    A signal that raises in the event loop does that: its runner cancels every task. With `left` the partition is set
    aside, without it committed.
    """
    run = RunOnDisk(tmp_path, 4, 4)

    async def main() -> Partitions:
        partitions = run.partitions(4)
        await only_queue(partitions).next_call()
        (opened,) = partitions._open.values()
        partitions.record([outcome_of_row(row) for row in range(4 - left)])
        for row in range(4 - left, 4):
            partitions.leave(row)
        (range_,) = partitions._ranges
        while range_.closing is None and partitions._settling:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0)  # however long the part takes
        thread = partitions._ranges.syncer if left else partitions._ranges.writer
        thread.submit(int).result()  # what the task has handed to this thread is done; the loop does not know it yet
        assert opened.journal.is_closed
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await partitions.finish()
        return partitions

    virtual_time.run(main())
    assert run.look().calls == 4 - left
