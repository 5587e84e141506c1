"""Calls that ask the same are sent once: laws over random tables with repeated rows, on virtual time."""

import asyncio
import contextlib
import hashlib
import os
import random
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import reduce
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from cometbatch.engines.session import Ports, run_partitions
from cometbatch.limiting.limits import Limits
from cometbatch.money.exact import EXACT
from cometbatch.records import (
    Acceptance,
    Answered,
    AskAgain,
    CallRequest,
    Completion,
    Done,
    Failed,
    HttpRequest,
    Outcome,
)
from cometbatch.results import answered, parts
from cometbatch.results.answered import BYTES_EACH, AnsweredCalls
from cometbatch.results.columns import REUSED_COLUMNS, columns_of, read_outcomes
from cometbatch.run_state.answers import RecordedAnswers, answered_calls
from cometbatch.run_state.queue_calls import OPEN_PARTITIONS
from cometbatch.run_state.run import Run
from cometbatch.runner.ports import Policy, Reply, Stop
from cometbatch.runner.queue_start import QueueStart
from cometbatch.runner.turns import Runner
from cometbatch.runner.twins import WRITTEN_BYTES, Twins
from tests import virtual_time
from tests.run_on_disk import RunOnDisk, session_of
from tests.scripted_run import (
    HALF,
    NOW,
    PRICE_USD,
    RUN_ID,
    Script,
    ScriptedService,
    Watcher,
    always,
    answer,
    cut_short,
    in_turn,
    lost,
    refused,
    row_request,
)

EXAMPLES = int(os.environ.get("LIVES", "30"))
FOR_EVER_S = 1e7  # seconds on the virtual clock: whoever still waits then waits for ever
REPLIES: Mapping[str, Reply] = {
    "answer": answer(),
    "cut": cut_short(),
    "refused": refused(400, code="bad_row"),
    "busy": refused(503, code="busy"),
    "slow down": refused(429, retry_after="90"),
    "lost": lost(),
}


class Table(RunOnDisk):
    """A table whose rows ask what `asked` says, so that some ask the same."""

    def __init__(self, path: Path, asked: Sequence[int], partition_rows: int) -> None:
        super().__init__(path, len(asked), partition_rows)
        self.asked = asked
        names = (*self.manifest.columns, *REUSED_COLUMNS)
        self.manifest = msgspec.structs.replace(self.manifest, columns=names)
        self.watcher = Watcher()

    def make(self, ordinal: int, values: Mapping[str, object]) -> CallRequest | Failed:
        """A request that tells its row by its name alone."""
        assert values == {"n": ordinal}
        question = self.asked[ordinal]
        digest = hashlib.sha256(str(question).encode()).hexdigest()
        names = {"ordinal": ordinal, "custom_id": f"id-{ordinal}", "request_hash": digest}
        return msgspec.structs.replace(row_request(question), **names)

    def snapshot(self, path: Path) -> "Table":
        """What a process killed at this moment leaves behind."""
        copy = Table(path, self.asked, self.manifest.partition_rows)
        super().snapshot(path)
        return copy

    def outcomes(self) -> list[Outcome]:
        """All outcomes in the parts, in their order there."""
        found: list[Outcome] = []
        for index in self.directory.parts.there():
            path = self.directory.parts.path(index)
            for piece in parts.read_pieces(path):
                found += read_outcomes(piece, len(found), columns=columns_of(self.manifest.columns))
        return found


async def session(
    table: Table,
    service: ScriptedService,
    *,
    concurrency: int = 3,
    stop_at: float | None = None,
    now: bool = False,
    **policy: float,
) -> Stop | None:
    """One session; it is stopped at this time, and gives up what is in flight if `now`. Fails where it never ends."""
    begun: Run = table.begin()
    partitions = table.partitions(concurrency, begun)
    answers = RecordedAnswers(begun, partitions.opened)
    twins = Twins(answered_calls(begun), RUN_ID, answers.find)
    marks = table.directory.new_marks(RUN_ID, session_of(begun), concurrency)
    ports = Ports(
        service=service.as_service(),
        policy=Policy(concurrency=concurrency, **{"max_attempts": 2, **policy}),  # type: ignore[arg-type]
        limits=Limits(),
        observer=table.watcher,
        now=lambda: NOW,
        jitter=lambda: HALF,
        queues=[QueueStart(earlier=begun.progress.tally, rejected=begun.progress.asks, twins=twins)],
    )

    @contextlib.contextmanager
    def watched(runner: Runner) -> Iterator[None]:
        if stop_at is not None:
            halt = runner.stop_now if now else runner.stop
            asyncio.get_running_loop().call_later(stop_at, halt, Stop("interrupted", "enough"))
        yield

    try:
        async with asyncio.timeout(FOR_EVER_S):
            return (await run_partitions(partitions, marks, ports, watched=watched)).stop
    finally:
        answers.close()


def check(table: Table, questions: Counter[int]) -> None:
    """The laws of a finished run. `questions`: those that the service has answered."""
    outcomes = table.outcomes()
    assert [outcome.ordinal for outcome in outcomes] == list(range(len(table.asked)))
    assert [outcome.custom_id for outcome in outcomes] == [f"id-{row}" for row in range(len(table.asked))]
    for outcome in outcomes:
        question = table.asked[outcome.ordinal]
        assert outcome.request_hash == hashlib.sha256(str(question).encode()).hexdigest()
        if not isinstance(outcome, Answered) or outcome.reused_from is None:
            assert outcome.attempts > 0
            continue
        assert outcome.reused_ordinal is not None
        first = outcomes[outcome.reused_ordinal]
        assert isinstance(first, Answered)
        assert (outcome.reused_from, first.reused_from) == (RUN_ID, None)
        assert table.asked[first.ordinal] == question
        assert (outcome.attempts, outcome.asks, outcome.cost_usd) == (0, 1, Decimal(0))
        assert (outcome.completion, outcome.status) == (first.completion, first.status)
        assert (outcome.request_id, outcome.finished_at) == (first.request_id, first.finished_at)
        assert outcome.reused_cost_usd == first.cost_usd
    given_answers = [outcome for outcome in outcomes if isinstance(outcome, Answered)]
    paid = [outcome for outcome in given_answers if outcome.reused_from is None]
    tally = table.look().tally
    assert tally.reused == len(given_answers) - len(paid)
    assert tally.cost_usd == reduce(EXACT.add, [each.cost_usd or Decimal(0) for each in paid], Decimal(0))
    assert len(paid) == len({table.asked[outcome.ordinal] for outcome in paid})  # each question was paid for once
    assert set(questions) == {table.asked[outcome.ordinal] for outcome in paid}
    assert tally.cost_usd == PRICE_USD * len(questions)


class Life(Struct, frozen=True):
    """A table, how the service replies to each question's sends, and where sessions end: seconds, given up or not."""

    asked: tuple[int, ...]
    partition_rows: int
    concurrency: int
    replies: dict[int, list[str]]
    seed: int
    stops: tuple[tuple[float, bool], ...]


QUESTIONS = 5
LIVES = st.builds(
    Life,
    asked=st.lists(st.integers(0, QUESTIONS - 1), min_size=1, max_size=30).map(tuple),
    partition_rows=st.integers(1, 7),
    concurrency=st.integers(1, 4),
    replies=st.dictionaries(st.integers(0, QUESTIONS - 1), st.lists(st.sampled_from([*REPLIES]), max_size=6)),
    seed=st.integers(0, 1000),
    stops=st.lists(st.tuples(st.floats(0.1, 20), st.booleans()), max_size=3).map(tuple),
)


class Ledger(ScriptedService):
    """A service that follows a life's script and counts the answers that it has given to each question."""

    def __init__(self, life: Life) -> None:
        super().__init__(self._reply)
        self.answered = Counter[int]()
        self._replies, self._chance = life.replies, random.Random(life.seed)

    def _reply(self, question: int, attempt: int) -> tuple[float, Reply]:
        replies = self._replies.get(question, [])
        word = replies[attempt - 1] if attempt <= len(replies) else "answer"
        return self._chance.uniform(0.5, 8), REPLIES[word]

    async def exchange(self, request: HttpRequest) -> Reply:
        """Answer a request, as the script says."""
        reply = await super().exchange(request)
        if reply in (REPLIES["answer"], REPLIES["cut"]):
            self.answered[self.ended[-1][1]] += 1
        return reply


def finish(table: Table, life: Life, service: ScriptedService) -> None:
    """Sessions to the run's end: a service that refuses everything stops some of them."""
    for _ in range(20):
        if virtual_time.run(session(table, service, concurrency=life.concurrency)) is None:
            return
    pytest.fail("the run does not come to its end")


@settings(max_examples=EXAMPLES, deadline=None)
@given(LIVES)
def test_each_question_is_paid_for_once(tmp_path_factory: pytest.TempPathFactory, life: Life) -> None:
    """However rows repeat, fail, wait and stop: each gets one outcome, in order, and each question one bill."""
    table, service = Table(tmp_path_factory.mktemp("run"), life.asked, life.partition_rows), Ledger(life)
    for stop_at, now in life.stops:
        virtual_time.run(session(table, service, concurrency=life.concurrency, stop_at=stop_at, now=now))
        service.sending.clear()
    finish(table, life, service)
    assert set(service.answered.values()) <= {1}
    check(table, service.answered)


@settings(max_examples=EXAMPLES, deadline=None)
@given(LIVES, st.floats(0.1, 20))
def test_a_killed_run_pays_again_only_for_what_was_in_flight(
    tmp_path_factory: pytest.TempPathFactory, life: Life, killed_at: float
) -> None:
    """What a kill leaves is enough to go on from: no question is paid for again whose answer was recorded."""
    folder, service = tmp_path_factory.mktemp("run"), Ledger(life)
    table, copies = Table(folder / "before", life.asked, life.partition_rows), list[Table]()
    in_flight = 0

    async def killed() -> None:
        def kill() -> None:
            nonlocal in_flight
            in_flight = len(service.sending)
            copies.append(table.snapshot(folder / "after"))

        asyncio.get_running_loop().call_later(killed_at, kill)
        await session(table, service, concurrency=life.concurrency, stop_at=killed_at, now=True)

    virtual_time.run(killed())
    service.sending.clear()
    left = copies[0] if copies else table
    finish(left, life, service)
    assert sum(service.answered.values()) <= len(service.answered) + in_flight
    check(left, Counter(dict.fromkeys(service.answered, 1)))


# -- what the others do while one is waited for ----------------------------------------------------------------------


def test_where_one_fails_the_next_is_sent_one_at_a_time(tmp_path: Path) -> None:
    """Two refusals, then an answer: three requests for ten equal rows, and the answer is the other seven's."""
    table = Table(tmp_path, [0] * 10, 4)
    replies = ["refused", "refused", "cut"]
    service = ScriptedService(lambda _question, attempt: (1.0, REPLIES[replies[attempt - 1]]))
    assert virtual_time.run(session(table, service)) is None
    assert service.peak == 1
    outcomes = table.outcomes()
    assert [type(outcome) for outcome in outcomes] == [Failed] * 2 + [Answered] * 8
    assert [getattr(outcome, "reused_ordinal", None) for outcome in outcomes] == [None] * 3 + [2] * 7
    assert {getattr(outcome, "status", None) for outcome in outcomes[2:]} == {"incomplete"}
    assert len(table.watcher.outcomes) == 10


def test_equal_rows_that_are_all_refused_stop_the_run_like_others(tmp_path: Path) -> None:
    """A wrong job is found out after as many refusals as ever, though one question at a time is asked."""
    table = Table(tmp_path, [0] * 200, 8)
    most_open = 0

    def script(_question: int, _attempt: int) -> tuple[float, Reply]:
        nonlocal most_open
        most_open = max(most_open, len(table.open_indexes()))
        return 1.0, REPLIES["refused"]

    service = ScriptedService(script)
    stop = virtual_time.run(session(table, service, max_alike=20))
    assert stop is not None
    assert "20 rows failed with the same error" in stop.message
    assert len(service.sent) == 20
    assert most_open <= OPEN_PARTITIONS


def slow_down_once(tmp_path: Path) -> tuple[ScriptedService, int]:
    """A hundred equal rows, the first of which is asked to wait for long, then others; and how many were opened."""
    table = Table(tmp_path, [0] * 100 + [1, 2, 3], 4)
    replies, most_open = by_times({0: ["slow down"]}), 0

    def script(question: int, attempt: int) -> tuple[float, Reply]:
        nonlocal most_open
        most_open = max(most_open, len(table.open_indexes()))
        return replies(question, attempt)

    service = ScriptedService(script)
    assert virtual_time.run(session(table, service, max_wait_s=30)) is None
    return service, most_open


def test_a_row_that_waits_for_long_holds_up_its_equals_alone(tmp_path: Path) -> None:
    """The rows behind them are read and sent meanwhile."""
    service, _ = slow_down_once(tmp_path)
    ended = {question: at for at, question in service.ended}
    assert ended[0] > 90 > ended[3]
    assert service.times_sent(0) == 2


def test_where_too_many_wait_one_of_them_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that wait are in memory: beyond a bound no more are read, and an equal row asks whether it has to wait."""
    monkeypatch.setattr("cometbatch.runner.intake.MAX_WAITING", 20)
    service, most_open = slow_down_once(tmp_path)
    assert service.times_sent(0) == 2
    assert max(at for at, _ in service.ended) < 90
    assert most_open <= OPEN_PARTITIONS + 20 / 4


def by_times(words: Mapping[int, Sequence[str]]) -> Script:
    """Each question gets these replies one after another, then answers."""

    def script(question: int, attempt: int) -> tuple[float, Reply]:
        replies = words.get(question, ())
        return 1.0, REPLIES[replies[attempt - 1] if attempt <= len(replies) else "answer"]

    return script


def test_one_answer_for_thousands_is_written_some_at_a_time(tmp_path: Path) -> None:
    """The journal's lines of a long answer are never all in memory at once."""
    table = Table(tmp_path, [0] * 400, 400)
    service = ScriptedService(always(answer("x" * 100_000)))
    sizes: list[int] = []

    class Counting(Watcher):
        def recorded(self, outcomes: Sequence[Outcome], in_flight: int) -> None:
            sizes.append(len(outcomes))
            super().recorded(outcomes, in_flight)

    table.watcher = Counting()
    assert virtual_time.run(session(table, service)) is None
    assert sum(sizes) == 400
    assert max(sizes) <= WRITTEN_BYTES // 100_000
    assert len(service.sent) == 1


def test_a_row_with_asks_of_its_own_goes_on_from_them(tmp_path: Path) -> None:
    """What it was paid stays in its bill. Its equals take the answer that is accepted, and say what it cost in all."""
    table = Table(tmp_path, [0] * 5, 2)
    service = ScriptedService(in_turn(answer("no"), answer("still no"), answer("yes")))

    def accept(call: CallRequest, completion: Completion, _ask: int) -> Acceptance:
        return Done() if completion.text == "yes" else AskAgain(call)

    service.accept = accept
    virtual_time.run(session(table, service, stop_at=1.5))
    assert virtual_time.run(session(table, service)) is None
    assert len(service.sent) == 3
    first, *others = table.outcomes()
    assert isinstance(first, Answered)
    assert first.cost_usd == 3 * PRICE_USD
    taken = [(each.reused_cost_usd, each.cost_usd) for each in others if isinstance(each, Answered)]
    assert taken == [(3 * PRICE_USD, Decimal(0))] * 4
    assert table.look().tally.cost_usd == 3 * PRICE_USD


def test_equal_bits_are_not_taken_for_equal_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the table can't tell two requests apart, each still has its own answer; some are sent twice."""
    monkeypatch.setattr(answered, "key_of", lambda _hash: 7)
    monkeypatch.setattr(answered, "keys_of", lambda hashes: array("Q", [7] * (len(hashes) // 64)))
    table = Table(tmp_path, [0, 1, 2] * 8, 3)
    service = ScriptedService(lambda question, _attempt: (1.0, answer(f"to {question}")))
    virtual_time.run(session(table, service, stop_at=3.5))
    assert virtual_time.run(session(table, service)) is None
    texts = [each.completion.text for each in table.outcomes() if isinstance(each, Answered)]
    assert texts == [f"to {question}" for question in table.asked]


# -- the table ---------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=600), st.integers(0, 1000))
def test_the_table_is_a_mapping_to_the_first(numbers: list[int], seed: int) -> None:
    """It finds the first ordinal of each hash and nothing else, however it was filled."""
    hashes = [hashlib.sha256(f"{seed} {number}".encode()).hexdigest() for number in numbers]
    half, firsts, table = len(hashes) // 2, dict[str, int](), AnsweredCalls()
    for ordinal, each in enumerate(hashes):
        firsts.setdefault(each, ordinal)
    table.add_all(answered.keys_of("".join(hashes[:half])), range(half))
    for ordinal, each in enumerate(hashes[half:], half):
        assert table.add(each, ordinal) is (firsts[each] == ordinal)
    assert {each: table.find(each) for each in hashes} == firsts
    assert table.find(hashlib.sha256(b"another").hexdigest()) is None
    assert len(table) == len(firsts)


def test_the_table_takes_32_bytes_for_each_call() -> None:
    """At most, at each number of calls, beside small tables at the beginning."""
    table, chance, beginning = AnsweredCalls(), random.Random(0), AnsweredCalls().size
    for number in range(1, 30_000):
        table.add_all([chance.getrandbits(64)], [number])
        if number % 500 == 0:
            assert table.size <= BYTES_EACH * number + beginning
