"""What counts of a run's files: every dollar once, every call once, over any sessions, crashes and rounds."""

import itertools
import shutil
import tempfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Struct

from cometbatch.errors import CheckpointError
from cometbatch.input.files import Identity
from cometbatch.job import Target
from cometbatch.money.exact import EXACT
from cometbatch.records import (
    Answered,
    AnsweredStatus,
    Completion,
    Failed,
    Failure,
    Outcome,
    PossibleCharge,
    PriceBook,
    Record,
    RejectedAsk,
    Usage,
)
from cometbatch.results import codec, columns, tallies
from cometbatch.results.retry_words import RetryWords, read_words
from cometbatch.run_state import recorded, reopen
from cometbatch.run_state.begin import begin_anew, first_session, next_session
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.in_flight import InFlightMarks, Mark
from cometbatch.run_state.journal import Header, Journal, line_of
from cometbatch.run_state.manifest import MANIFEST_VERSION, Manifest, PricedTarget, encode_manifest
from cometbatch.run_state.open_partition import OpenPartition, Room, replayed
from cometbatch.run_state.open_range import OpenRange
from cometbatch.run_state.open_records import OpenRecords
from cometbatch.run_state.part_writer import PartWriter
from cometbatch.run_state.progress import journaled
from cometbatch.run_state.run import Run, find
from cometbatch.run_state.sessions import Session, Who

RUN = "0123456789abcdef" * 2
WHO = Who("2026-05-01T00:00:00+00:00", 42, "here", "0.1.0")
NOW = datetime(2026, 5, 1, tzinfo=UTC)
ROWS, PARTITION_ROWS = 5, 2
TABLE = pa.table({"n": list(range(ROWS))})
MANIFEST = Manifest(
    version=MANIFEST_VERSION,
    cometbatch="0.1.0",
    run_id=RUN,
    created_at="2026-05-01T00:00:00+00:00",
    fingerprint={},
    input=Identity("table.csv", 1, "0" * 64, ROWS, ("n",)),
    partition_rows=PARTITION_ROWS,
    columns=tuple(column.name for column in columns.COLUMNS),
    targets=(PricedTarget(Target("chat", "model", ()), PriceBook("model", "none")),),
    job={},
)
CENT = Decimal("0.01")
FAILED = read_words("failed")
WHATS = st.sampled_from(["answer", "cut", "fail", "ask", "charge"])
CENTS = st.integers(0, 999).map(lambda cents: EXACT.multiply(CENT, Decimal(cents)))


def answered(
    ordinal: int, cost: Decimal | None, *, text: str = "", incomplete: bool = False, attempts: tuple[int, ...] = (1,)
) -> Answered:
    """An answer at this cost; `attempts`: of each ask, which was answered."""
    status: AnsweredStatus = "incomplete" if incomplete else "succeeded"
    completion = Completion(text, "length" if incomplete else "stop", Usage(1, 10 * ordinal + 1))
    asks = len(attempts)
    return Answered(
        ordinal, status, None, 1, 0.5, NOW, "hash", 200, None, completion, cost, asks, answered_attempts=attempts
    )


def failed(ordinal: int, cost: Decimal | None = None, attempts: tuple[int, ...] = ()) -> Failed:
    """No answer that was accepted; `cost`: of asks rejected before; `attempts`: of each of these, the answered one."""
    asks, failure = (1 if cost is None else 2), Failure("blocked", "no")
    return Failed(ordinal, None, 1, 0.5, NOW, "hash", failure, asks, cost_usd=cost, answered_attempts=attempts)


def charge(ordinal: int, cost: Decimal | None, ask: int = 1, attempt: int = 1) -> PossibleCharge:
    """An attempt without an answer."""
    return PossibleCharge(ordinal, NOW, "no_answer", cost, ask=ask, attempt=attempt)


def rejected(ordinal: int, cost: Decimal | None, ask: int = 1, attempt: int = 1, text: str = "") -> RejectedAsk:
    """An answer that was not accepted."""
    completion = Completion(text, "stop") if text else None
    return RejectedAsk(ordinal, ask, attempt, NOW, Usage(), cost, completion=completion)


def new_run(folder: Path) -> Run:
    """A run in its first session."""
    directory = RunDirectory(folder / "run")
    directory.create()
    first_session(directory, RUN, WHO)
    directory.write_manifest(encode_manifest(MANIFEST))
    return found(directory)


def found(directory: RunDirectory, accept: tuple[str, ...] = ()) -> Run:
    """The run as a new process finds it."""
    run = find(RunDirectory(directory.path), directory.path.parent / "out.parquet", accept)
    assert run is not None
    return run


def write(run: Run, session: str, records: list[Record], index: int = 0) -> Path:
    """A journal of these records, by a session or a worker of it ("2-1"), with a torn line behind them."""
    path = run.directory.journals.folder / f"{index:05d}.{session}.jsonl"
    journal = Journal(path, Header(RUN, index, int(session.partition("-")[0])))
    journal.append([codec.encode_record(record) for record in records])
    journal.close()
    with path.open("ab") as file:
        file.write(b"0123 torn")
    return path


def noted(run: Run, number: int) -> Run:
    """The run once this is its newest session, to which all of the journals of earlier ones count."""
    run.directory.new_marks(RUN, number, 1).close()
    sizes = {
        file.name: path.read_bytes().rindex(b"\n") + 1
        for file in run.directory.journals.all()
        if file.session < number and (path := run.directory.journals.folder / file.name)
    }
    run.directory.write_session(Session(number, RUN, WHO, counted=sizes))
    return found(run.directory)


def outcomes(run: Run, index: int = 0) -> dict[int, Outcome]:
    """The outcomes that stand in an open partition."""
    records = journaled(run.directory, run.manifest, index, run.progress.last)
    some = list(itertools.chain.from_iterable(map(columns.outcomes_in, records)))
    assert len({outcome.ordinal for outcome in some}) == len(some)
    return {outcome.ordinal: outcome for outcome in some}


# -- what counts -----------------------------------------------------------------------------------------------------


def test_the_first_outcome_stands_in_the_order_of_sessions_then_workers(tmp_path: Path) -> None:
    """Later ones are possible charges with their cost; a later failure cost nothing."""
    run = new_run(tmp_path)
    for number, session in enumerate(["10", "2-1", "2", "1-10", "1-2"], start=1):
        if session == "10":
            write(run, session, [failed(0), answered(1, 9 * CENT)])
        else:
            write(run, session, [answered(0, number * CENT, text=session)])
    run = noted(run, 10)
    standing = outcomes(run)
    assert isinstance(standing[0], Answered)
    assert (standing[0].completion.text, standing[0].cost_usd) == ("1-2", 5 * CENT)
    tally = run.progress.tally
    assert (tally.succeeded, tally.cost_usd, tally.charges, tally.charges_usd) == (2, 14 * CENT, 3, 9 * CENT)


def test_an_ask_counts_by_itself_while_its_call_has_no_outcome(tmp_path: Path) -> None:
    """The outcome's sums hold the call's asks, those of earlier sessions too, in whichever order the lines stand."""
    run = new_run(tmp_path)
    write(run, "1", [rejected(0, 1 * CENT), rejected(1, 2 * CENT)])
    asks = noted(run, 2).progress.asks
    assert asks == {0: [rejected(0, 1 * CENT)], 1: [rejected(1, 2 * CENT)]}
    write(run, "2", [answered(0, 12 * CENT), rejected(0, 4 * CENT, 2), rejected(1, 32 * CENT, 2)])
    write(run, "3-1", [answered(0, 48 * CENT), failed(0, 3 * CENT)])
    InFlightMarks(run.directory.path / "in_flight.3-1", RUN, 1).close()
    progress = noted(run, 3).progress
    assert progress.asks == {1: [rejected(1, 2 * CENT), rejected(1, 32 * CENT, 2)]}
    tally = progress.tally
    assert (tally.succeeded, tally.cost_usd) == (1, 12 * CENT)
    assert (tally.charges, tally.charges_usd) == (2, 51 * CENT)
    assert (tally.rejected, tally.rejected_cost_usd) == (2, 34 * CENT)


def test_the_last_text_of_a_call_is_kept_and_no_earlier_one(tmp_path: Path) -> None:
    """The next ask shows the model its last answer; texts can be long, and are many."""
    run = new_run(tmp_path)
    write(
        run, "1", [rejected(0, CENT, 1, 1, "first"), rejected(1, CENT, 1, 1, "other"), rejected(0, CENT, 2, 1, "last")]
    )
    texts = {
        ordinal: [ask.completion.text for ask in asks if ask.completion is not None]
        for ordinal, asks in noted(run, 2).progress.asks.items()
    }
    assert texts == {0: ["", "last"], 1: ["other"]}


def test_a_run_that_begins_anew_keeps_what_was_answered_to_be_read(tmp_path: Path) -> None:
    """As money alone, over later sessions too, until its range is committed; a range that is no more goes at once."""
    run = new_run(tmp_path)
    path, beyond = write(run, "1", [rejected(0, CENT, 1, 1, "Surely.")]), write(run, "1", [rejected(4, CENT)], 2)
    InFlightMarks(run.directory.path / "in_flight.1", RUN, 1).close()
    other = msgspec.structs.replace(MANIFEST, partition_rows=3)
    run = begin_anew(found(run.directory), WHO, other)
    for _ in range(2):
        assert (path.exists(), beyond.exists()) == (True, False)
        progress = found(run.directory).progress
        assert (progress.asks, progress.tally.rejected, progress.tally.rejected_cost_usd) == ({}, 2, 2 * CENT)
        run = next_session(found(run.directory), WHO)
    commit(run, 0, [failed(0), failed(1), failed(2)])
    assert not path.exists()


def test_a_committed_partition_is_its_part(tmp_path: Path) -> None:
    """Records that a kill left behind are passed over, charges and damage too; marks of its calls are settled."""
    run = new_run(tmp_path)
    marks = run.directory.new_marks(RUN, 1, 4)
    for ordinal in (0, 1, 2):
        marks.begin(ordinal, 1, 1, CENT)
    marks.close()
    commit(run, 0, [answered(0, CENT), charge(1, CENT), failed(1)])
    before = found(run.directory).progress
    left = write(run, "1", [charge(0, CENT), answered(1, CENT)])
    left.write_bytes(left.read_bytes().replace(b"possible", b"passable") + line_of(b'{"record":"synced","bytes":500}'))
    run = found(run.directory)
    assert run.progress == before
    assert run.progress.committed == (0,)
    assert [mark.ordinal for mark in run.progress.unsettled] == [2]
    assert next_session(run, WHO).directory.journals.all() == []


def commit(run: Run, index: int, records: list[Record]) -> None:
    """One session's work on a partition, up to its part."""
    assert run.progress.last is not None
    files = recorded.sources(run.directory, run.manifest, [index], run.progress.last)
    journal = run.directory.journals.begin(RUN, index, run.progress.last.number)
    range_ = opened_range(run, index, files, journal, 10**6)
    range_.record({index: records})
    PartWriter(run).write(range_.partitions[index])
    run.directory.journals.forget(index)
    journal.close()


def opened_range(run: Run, index: int, files: list[recorded.Source], journal: Journal, room: int) -> OpenRange:
    """A range with its one partition open."""
    partition = run.manifest.partition(index)
    table = TABLE.slice(partition.first_row, partition.row_count)
    records = replayed(run.manifest, [index], files, journal, Room(room))[index]
    range_ = OpenRange(index)
    range_.begin(table, journal)
    range_.partitions[index] = OpenPartition(partition, partition.first_row, table, journal, records)
    return range_


@pytest.mark.parametrize(
    ("record", "settled"),
    [
        (answered(0, CENT, attempts=(1, 3)), True),
        (answered(0, CENT, attempts=(1, 3, 1)), True),
        (answered(0, CENT, attempts=(3,)), False),
        (answered(0, CENT, attempts=(1, 4)), False),
        (failed(0), False),
        (failed(0, CENT), False),
        (charge(0, CENT, 2, 3), True),
        (charge(0, CENT, 2, 4), False),
        (charge(0, CENT, 3, 1), False),
        (charge(0, CENT, 2, 2), False),
        (charge(0, CENT, 1, 9), False),
        (rejected(0, CENT, 2, 3), True),
        (rejected(0, CENT, 1, 3), False),
        (answered(1, CENT, attempts=(1, 3)), False),
    ],
)
@pytest.mark.parametrize("session", ["1", "2"])
def test_a_mark_is_settled_by_its_own_session(tmp_path: Path, record: Record, *, settled: bool, session: str) -> None:
    """By the record of this very attempt: that of a later one may be there, and its own be lost, after a power cut."""
    run = new_run(tmp_path)
    run.directory.write_session(Session(2, RUN, WHO, counted={"00000.1.jsonl": 10**3}))
    write(run, session, [record])
    path = run.directory.journals.folder / "00000.1.jsonl"
    run.directory.write_session(
        Session(2, RUN, WHO, counted={path.name: path.read_bytes().rindex(b"\n") + 1} if path.exists() else {})
    )
    marks = run.directory.new_marks(RUN, 2, 1)
    marks.begin(0, 2, 3, 5 * CENT)
    marks.close()
    progress = found(run.directory).progress
    is_settled = settled and session == "2"
    assert progress.unsettled == (() if is_settled else (Mark(0, 2, 3, 5 * CENT),))
    assert progress.charges.charges_usd == (0 if is_settled else 5 * CENT)
    assert progress.charges.charges_in_flight == (0 if is_settled else 1)


def test_a_session_of_another_run_is_refused_by_name(tmp_path: Path) -> None:
    """Its money is another run's."""
    run = new_run(tmp_path)
    run.directory.write_session(Session(2, "f" * 32, WHO))
    with pytest.raises(CheckpointError, match=f"session 2 belongs to run {'f' * 32}, not to run {RUN}"):
        found(run.directory)


def test_a_whole_line_of_another_version_is_refused_by_its_place(tmp_path: Path) -> None:
    """It is no damage: to pass it over would lose what it holds."""
    run = new_run(tmp_path)
    run.directory.new_marks(RUN, 1, 1).close()
    path = write(run, "1", [])
    with path.open("ab") as file:
        file.write(b"\n" + line_of(b'{"record":"judged","ordinal":1}'))
    with pytest.raises(CheckpointError, match=r"00000\.1\.jsonl: the line at byte [0-9]+ is whole, and this version"):
        found(run.directory)


# -- damage that a person accepts ------------------------------------------------------------------------------------


def damaged_run(tmp_path: Path, costs: list[Decimal | None]) -> Run:
    """A run whose journal has two damaged lines before its last note, and these costs beside."""
    run = new_run(tmp_path)
    run.directory.new_marks(RUN, 1, 1).close()
    journal = run.directory.journals.begin(RUN, 0, 1)
    journal.append([codec.encode_record(answered(0, 7 * CENT)), codec.encode_record(charge(0, 7 * CENT))])
    journal.append([codec.encode_record(charge(1, cost)) for cost in costs])
    journal.sync()
    journal.append([codec.encode_record(charge(1, CENT))])
    journal.close()
    journal.path.write_bytes(journal.path.read_bytes().replace(b'"0.07"', b'"0.70"'))
    return run


@pytest.mark.parametrize("costs", [[2 * CENT, 3 * CENT], [2 * CENT, None]])
def test_damaged_lines_that_are_set_aside_are_charged_once(tmp_path: Path, costs: list[Decimal | None]) -> None:
    """Each at the largest amount of its file, unknown where one is; the same command again charges nothing more."""
    run = damaged_run(tmp_path, costs)
    name = "00000.1.jsonl"
    with pytest.raises(CheckpointError, match=f"--set-aside {name}"):
        found(run.directory)
    is_known = None not in costs
    beside = tallies.tally([*(charge(1, cost) for cost in costs), charge(1, CENT)])
    for _ in range(3):
        tally = next_session(found(run.directory, (name,)), WHO).progress.with_charges
        assert tally.charges == beside.charges + 2
        assert tally.charges_usd == EXACT.add(beside.charges_usd, 6 * CENT if is_known else Decimal(0))
        assert tally.charges_unknown == (0 if is_known else 3)
        assert found(run.directory).progress.with_charges == tally


def test_a_damaged_file_of_kept_outcomes_is_set_aside_line_by_line(tmp_path: Path) -> None:
    """Each damaged line is one charge."""
    run = new_run(tmp_path)
    commit(run, 0, [answered(0, CENT), failed(1)])
    commit(run, 1, [answered(2, 2 * CENT), failed(3)])
    run = found(run.directory)
    matching = reopen.find(run, FAILED)
    run = next_session(run, WHO)
    reopen.take_back(run, FAILED, matching)
    path = run.directory.journals.kept(0, 1)
    path.write_bytes(path.read_bytes().replace(b'"ordinal":', b'"cardinal":'))
    with pytest.raises(CheckpointError, match=r"--set-aside 00000\.kept1\.jsonl"):
        found(run.directory)
    for _ in range(2):
        run = next_session(found(run.directory, (path.name,)), WHO)
        assert (run.progress.tally.charges, run.progress.tally.calls) == (2, 1)


# -- every dollar once, every call once ------------------------------------------------------------------------------


class Attempt(Struct):
    """A request in flight, as the model of a run knows it."""

    cell: int
    ask: int
    attempt: int
    amount: Decimal | None


class Sessions(RuleBasedStateMachine):
    """A run over sessions that die at any moment: the sum of what was paid is known, and must be what is found."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.spent = Decimal(0)  # what the outcomes, asks and charges that were recorded came to, and marks left behind
        self.unknown = 0  # possible charges without a bound
        self.done: set[int] = set()
        self.refusing: set[int] = set()  # of these, calls that failed
        self.asks: dict[int, list[Decimal]] = {}  # of calls without an outcome
        self.texts: dict[int, str] = {}  # of these, of the last ask
        self.answered_at: dict[int, tuple[int, ...]] = {}  # by call, of each of its asks, which attempt was answered
        self.flying: dict[int, Attempt] = {}
        self.last_attempt: dict[int, tuple[int, int]] = {}
        self.opened: dict[int, OpenRange] = {}
        self.committed: set[int] = set()

    @initialize()
    def begin(self) -> None:
        """The first session."""
        self.start(new_run(self.folder))

    def start(self, run: Run) -> None:
        """What a session has in its hands."""
        self.run = run
        assert run.progress.last is not None
        self.number = run.progress.last.number
        self.marks = run.directory.new_marks(RUN, self.number, 1)
        self.writer = PartWriter(run)

    def open(self, index: int) -> OpenRange:
        """The partition, as this session writes it."""
        if index not in self.opened:
            files = recorded.sources(self.run.directory, self.run.manifest, [index], self.run.progress.last)
            journal = self.run.directory.journals.begin(RUN, index, self.number)
            self.opened[index] = opened_range(self.run, index, files, journal, room=10**5 * (index % 2))
            opened = self.opened[index].partitions[index]
            calls = range(opened.first, opened.first + opened.partition.row_count)
            assert {ordinal for ordinal in calls if opened.has_outcome(ordinal)} == set(calls) & self.done
        return self.opened[index]

    def journals(self) -> list[Journal]:
        """Of what is open."""
        return [each.journal for each in self.opened.values() if each.journal is not None]

    def record(self, record: Record, *, ends_mark: bool) -> None:
        """Write a record down, and end its attempt's mark, or die before that."""
        self.open(record.ordinal // PARTITION_ROWS).record({record.ordinal // PARTITION_ROWS: [record]})
        flying = self.flying.pop(record.ordinal, None)
        if flying is not None and ends_mark:
            self.marks.end(flying.cell, recorded=True)

    @rule(ordinal=st.integers(0, ROWS - 1), amount=st.none() | CENTS)
    def begin_attempt(self, ordinal: int, amount: Decimal | None) -> None:
        """An attempt leaves."""
        self.send(ordinal, amount)

    def send(self, ordinal: int, amount: Decimal | None) -> None:
        """Mark an attempt of a call that is open, and has none in flight."""
        if ordinal not in self.done and ordinal not in self.flying:
            ask, attempt = self.last_attempt.get(ordinal, (1 + len(self.asks.get(ordinal, [])), 0))
            cell = self.marks.begin(ordinal, ask, attempt + 1, amount)
            self.flying[ordinal] = Attempt(cell, ask, attempt + 1, amount)
            self.last_attempt[ordinal] = (ask, attempt + 1)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), cost=CENTS, ends_mark=st.booleans(), what=WHATS)
    def receive(self, data: st.DataObject, cost: Decimal, what: str, *, ends_mark: bool) -> None:
        """An attempt ends."""
        ordinal = data.draw(st.sampled_from(sorted(self.flying)))
        at = self.flying[ordinal]
        asks = self.asks.get(ordinal, [])
        if what == "charge":
            self.record(charge(ordinal, cost, at.ask, at.attempt), ends_mark=ends_mark)
        elif what == "ask":
            text = f"{ordinal}: {at.ask} of session {self.number}"
            self.record(rejected(ordinal, cost, at.ask, at.attempt, text), ends_mark=ends_mark)
            self.texts[ordinal] = text
            self.asks[ordinal] = [*asks, cost]
            self.answered_at[ordinal] = (*self.answered_at.get(ordinal, ()), at.attempt)
            self.last_attempt[ordinal] = (at.ask + 1, 0)
            self.send(ordinal, at.amount)
        elif what == "fail":
            cost = Decimal(0)
            self.marks.end(self.flying.pop(ordinal).cell, recorded=False)  # what is refused costs nothing
            failure = failed(ordinal, sum(asks, cost) if asks else None, self.answered_at.get(ordinal, ()))
            self.record(failure, ends_mark=ends_mark)
        else:
            attempts = (*self.answered_at.get(ordinal, ()), at.attempt)
            outcome = answered(ordinal, sum(asks, cost), incomplete=what == "cut", attempts=attempts)
            self.record(outcome, ends_mark=ends_mark)
        if what not in ("charge", "ask"):
            self.asks.pop(ordinal, None)
            self.answered_at.pop(ordinal, None)
            self.done.add(ordinal)
            self.refusing |= {ordinal} if what != "answer" else set()
        self.spent += cost

    @rule()
    def sync(self) -> None:
        """What the syncing thread does."""
        cells = self.marks.take_recorded()
        for journal in self.journals():
            journal.sync()
        self.marks.free(cells)

    @rule(index=st.integers(0, 2))
    def commit(self, index: int) -> None:
        """A partition's last outcome is there."""
        if index not in self.committed and self.open(index).partitions[index].is_complete:
            range_ = self.opened.pop(index)
            self.writer.write(range_.partitions[index])
            self.run.directory.journals.forget(index)
            range_.close()
            self.committed.add(index)

    @rule(
        data=st.data(),
        words=st.sampled_from([(), (), ("failed",), ("incomplete", "failed")]),
        begins=st.integers(1, 3),
        is_half_begun=st.booleans(),
        dies_before_the_note=st.booleans(),
    )
    def die(
        self,
        data: st.DataObject,
        words: tuple[str, ...],
        begins: int,
        *,
        is_half_begun: bool,
        dies_before_the_note: bool,
    ) -> None:
        """The session dies, and others begin, which may die in between; `words`: what the last is told to retry."""
        for journal in self.journals():
            journal.close()
        self.marks.close()
        for at in self.flying.values():
            self.spent += at.amount or 0
            self.unknown += at.amount is None
        self.write_what_came_too_late(data)
        self.flying, self.opened, self.last_attempt = {}, {}, {}
        directory = self.run.directory
        for count in range(begins):
            before = {path: path.read_bytes() for path in directory.marks_since(0)}
            is_last = count == begins - 1
            run = found(directory)
            matching = reopen.find(run, RetryWords(frozenset(words))) if words and is_last else reopen.Matching()
            run = self.begun_anew(run) if self.is_anew(data) else next_session(run, WHO)
            assert run.progress.with_charges == found(directory).progress.with_charges
            if is_half_begun:
                for path, content in before.items():
                    path.write_bytes(content)
            if matching.partitions:
                if dies_before_the_note:
                    directory.journals.write_kept(RUN, matching.partitions[0], directory.reopened().rounds + 1, [])
                    run = next_session(found(directory), WHO)
                self.take_back(run, RetryWords(frozenset(words)), matching)
                run = run.looked_at_again()
        self.start(run)

    def is_anew(self, data: st.DataObject) -> bool:
        """Whether a run without outcomes begins anew."""
        return not self.done and data.draw(st.booleans())

    def begun_anew(self, run: Run) -> Run:
        """Asks of another job are money alone."""
        self.asks, self.answered_at = {}, {}
        return begin_anew(run, WHO, MANIFEST)

    def take_back(self, run: Run, again: RetryWords, matching: reopen.Matching) -> None:
        """A round of --retry, and what it means for the model."""
        taken = {
            outcome.ordinal
            for index in matching.partitions
            for outcome in self.standing(run, index)
            if again.match(outcome)
        }
        assert taken <= self.refusing
        assert matching.calls == len(taken)
        reopen.take_back(run, again, matching)
        self.done -= taken
        self.refusing -= taken
        self.committed -= set(matching.partitions)

    def standing(self, run: Run, index: int) -> list[Outcome]:
        """The outcomes of a partition."""
        return [*itertools.chain.from_iterable(map(columns.outcomes_in, reopen._records(run, index, OpenRecords(run))))]

    def write_what_came_too_late(self, data: st.DataObject) -> None:
        """A second outcome in another worker's file; torn lines; lines that a writer of a dead session adds."""
        folder = self.run.directory.journals.folder
        for path in sorted(folder.iterdir()):
            if path.name.endswith(f".{self.number}.jsonl"):
                with path.open("ab") as file:
                    file.write(b'deadbeef {"record":"answered","ordinal"')
            elif "kept" not in path.name:
                with path.open("ab") as file:
                    file.write(line_of(codec.encode_record(charge(int(path.name[:5]) * PARTITION_ROWS, 10**6 * CENT))))
        late = sorted(ordinal for ordinal in self.done if ordinal // PARTITION_ROWS not in self.committed)
        if data.draw(st.booleans()) and late:
            ordinal, cost = data.draw(st.sampled_from(late)), data.draw(CENTS)
            InFlightMarks(self.run.directory.path / f"in_flight.{self.number}-1", RUN, 1).close()
            write(self.run, f"{self.number}-1", [answered(ordinal, cost)], ordinal // PARTITION_ROWS)
            self.spent += cost

    @invariant()
    def each_dollar_and_each_call_counts_once(self) -> None:
        """Whoever looks now finds what was recorded, and what was paid, whatever was reset."""
        if not hasattr(self, "run"):
            return
        run = found(self.run.directory)
        tally = run.progress.with_charges
        in_flight = sum((at.amount or Decimal(0) for at in self.flying.values()), Decimal(0))
        assert EXACT.add(tallies.spent(tally), tallies.spent(run.replaced)) == self.spent + in_flight
        unknown = self.unknown + sum(at.amount is None for at in self.flying.values())
        assert tally.charges_unknown + run.replaced.charges_unknown == unknown
        assert {mark.ordinal for mark in run.progress.unsettled} == set(self.flying)
        assert tally.calls == len(self.done)
        assert {key: [ask.cost_usd for ask in asks] for key, asks in run.progress.asks.items()} == self.asks
        for ordinal, asks in run.progress.asks.items():
            texts = [ask.completion.text for ask in asks if ask.completion is not None]
            assert texts == [""] * (len(asks) - 1) + [self.texts[ordinal]]
        assert set(run.progress.committed) == self.committed
        assert run.progress.recorded == {each for each in self.done if each // PARTITION_ROWS not in self.committed}

    def teardown(self) -> None:
        """Close what is open, and remove it."""
        for journal in self.journals():
            journal.close()
        if hasattr(self, "marks"):
            self.marks.close()
        shutil.rmtree(self.folder)


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
