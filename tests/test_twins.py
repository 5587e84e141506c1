"""Calls that ask the same are sent once: laws over random tables with repeated rows, on virtual time."""

import asyncio
import contextlib
import hashlib
import random
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
from cometbatch.records import Answered, CallRequest, Failed, Outcome
from cometbatch.results import parts
from cometbatch.results.columns import REUSED_COLUMNS, columns_of, read_outcomes
from cometbatch.run_state.answers import RecordedAnswers, answered_calls
from cometbatch.run_state.run import Run
from cometbatch.runner.ports import Policy, Reply, Stop
from cometbatch.runner.turns import Runner
from cometbatch.runner.twins import Twins
from tests import virtual_time
from tests.run_on_disk import RunOnDisk, session_of
from tests.scripted_run import (
    HALF,
    NOW,
    PRICE_USD,
    RUN_ID,
    ScriptedService,
    Watcher,
    answer,
    cut_short,
    lost,
    refused,
    row_request,
)

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
        earlier=begun.progress.tally,
        asks=begun.progress.asks,
        twins=twins,
    )

    @contextlib.contextmanager
    def watched(runner: Runner) -> Iterator[None]:
        if stop_at is not None:
            halt = runner.stop_now if now else runner.stop
            asyncio.get_running_loop().call_later(stop_at, halt, Stop("interrupted", "enough"))
        yield

    try:
        async with asyncio.timeout(FOR_EVER_S):
            return await run_partitions(partitions, marks, ports, watched=watched)
    finally:
        answers.close()


def check(table: Table, service: ScriptedService, answered: Counter[int]) -> None:
    """The laws of a finished run. `answered`: how often the service gave an answer to each question."""
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
    assert set(answered) == {table.asked[outcome.ordinal] for outcome in paid}
    assert tally.cost_usd == PRICE_USD * len(answered)


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


def live(folder: Path, life: Life) -> tuple[Table, ScriptedService, Counter[int], int]:
    """Bring a run to its end over all of its sessions; also what was answered, and how often nobody heard it."""
    chance, answered = random.Random(life.seed), Counter[int]()

    def script(question: int, attempt: int) -> tuple[float, Reply]:
        replies = life.replies.get(question, [])
        word = replies[attempt - 1] if attempt <= len(replies) else "answer"
        return chance.uniform(0.5, 8), REPLIES[word]

    table = Table(folder / "run", life.asked, life.partition_rows)
    service = ScriptedService(script)
    exchange = service.exchange

    async def counted(request: object) -> Reply:
        reply = await exchange(request)  # type: ignore[arg-type]
        if reply in (REPLIES["answer"], REPLIES["cut"]):
            question = next(row for at, row in reversed(service.ended))
            answered[question] += 1
        return reply

    service.exchange = counted  # type: ignore[method-assign]
    for stop_at, now in life.stops:
        virtual_time.run(session(table, service, concurrency=life.concurrency, stop_at=stop_at, now=now))
        service.sending.clear()
    for _ in range(20):  # a service that refuses everything stops a session
        if virtual_time.run(session(table, service, concurrency=life.concurrency)) is None:
            break
    return table, service, answered, sum(answered.values()) - len(answered)


@settings(max_examples=150, deadline=None)
@given(LIVES)
def test_each_question_is_paid_for_once(tmp_path_factory: pytest.TempPathFactory, life: Life) -> None:
    """However rows repeat, fail, wait and stop: each gets one outcome, in order, and each question one bill."""
    table, service, answered, twice = live(tmp_path_factory.mktemp("run"), life)
    assert twice == 0
    check(table, service, answered)
