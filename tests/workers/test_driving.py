"""The driver's talk with the coordinator: what it asks for, what it makes of the answers, and how a session ends."""

import asyncio
import io
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from cometbatch.commands.driving import LOST_S, Driving
from cometbatch.commands.observers import Listener, Observers
from cometbatch.commands.progress_line import Progress
from cometbatch.commands.stopping import STOPS, TERMINATED, Stopping
from cometbatch.commands.worker_errors import error_of
from cometbatch.control.coordination.messages import (
    Drive,
    Driven,
    ErrorWords,
    Leave,
    OwnerState,
    StopOrder,
    StopWords,
    decode_request,
    encode,
)
from cometbatch.engines.line import LineError
from cometbatch.errors import CheckpointError, CometbatchError, InputLostError, Quoting, logged, quoting
from cometbatch.records import Failed, Failure, Outcome, Partition, Tally
from cometbatch.results.codec import encode_record
from cometbatch.runner.hearing import stop_of, words_of
from cometbatch.runner.ports import Stop
from tests import virtual_time
from tests.run_on_disk import RunOnDisk

FAILED = Failed(3, "3", 1, 0.5, datetime(2026, 9, 1, tzinfo=UTC), None, Failure("timeout", "no answer"))


class Answers:
    """A coordinator that answers as it is told, and keeps what the driver said."""

    def __init__(self, answer: Callable[[Drive], Driven]) -> None:
        self.words: list[Drive] = []
        self._answer = answer

    async def drive(self, word: Drive) -> Driven:
        """Answer."""
        self.words.append(word)
        return self._answer(word)


class Heard(Listener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.committed_: list[Partition] = []
        self.retries = 0

    def recorded(self, outcomes: Sequence[Outcome], in_flight: int) -> None:
        self.outcomes += outcomes

    def committed(self, partition: Partition) -> None:
        self.committed_.append(partition)

    def retried(self) -> None:
        self.retries += 1


class Driver:
    """The driver of a run of ten rows, with its progress line."""

    def __init__(self, folder: Path, answer: Callable[[Drive], Driven], *listeners: Listener) -> None:
        self.line = Answers(answer)
        self.stream = io.StringIO()
        self.observers = Observers(listeners)
        self.shown = Progress(10, Tally(), on=True, stream=self.stream, observers=self.observers)
        manifest = RunOnDisk(folder / "run", 10, 5).manifest
        self.driving = Driving(self.line, self.shown, self.observers, manifest, workers=2, slots=8)

    @property
    def said(self) -> str:
        """What was printed."""
        return self.stream.getvalue()


def state(owner: int, **fields: bool | float) -> OwnerState:
    """An owner that was heard a moment ago."""
    # The struct checks its fields; the type checker can't.
    return OwnerState(owner, **{"silent_s": 0.1, "is_lost": False, "has_left": False, **fields})  # type: ignore[arg-type]


def test_words(tmp_path: Path) -> None:
    """It speaks five times a second, at once where it has something to say, and says all of its orders each time."""

    async def main() -> list[Drive]:
        driver = Driver(tmp_path, lambda _: Driven(in_flight=3))
        task = asyncio.create_task(driver.driving.drive_forever())
        await asyncio.sleep(1.05)
        assert len(driver.line.words) == 6
        driver.driving.gone(2)
        driver.driving.stop(TERMINATED)
        driver.driving.stop(STOPS[signal.SIGINT])  # the first reason stands
        await asyncio.sleep(0.01)
        driver.driving.stop_now(TERMINATED)
        driver.driving.stop_now(TERMINATED)
        await asyncio.sleep(0.01)
        task.cancel()
        assert driver.driving.in_flight == 3
        return driver.line.words[6:]

    first, second = virtual_time.run(main())
    stop, now = (StopOrder(words_of(TERMINATED), is_now=is_now) for is_now in (False, True))
    assert first == Drive(stops=(stop,), gone=(2,))
    assert second == Drive(stops=(stop, now), gone=(2,))


def test_counts(tmp_path: Path) -> None:
    """Where nobody listens, the line is drawn by sums; it says how many workers there are, and how many are silent."""
    tally = Tally(succeeded=6, cost_usd=Decimal("0.25"))
    owners = (state(1), state(2, silent_s=9.0), state(3, is_lost=True), state(4, has_left=True))

    async def main() -> str:
        driver = Driver(tmp_path, lambda _: Driven(owners, tally, in_flight=7))
        await driver.driving.drive()
        await asyncio.sleep(1)
        driver.shown.redraw(driver.driving.in_flight, driver.driving.told.waiting_for())
        return driver.said

    said = virtual_time.run(main())
    assert "60% 6/10" in said
    assert "$0.25" in said
    assert "7 in flight" in said
    assert "2 workers (1 silent)" in said


def test_listeners(tmp_path: Path) -> None:
    """Where somebody listens, each outcome is handed on once, and so is each part, retry and warning."""
    heard = Heard()

    def answer(word: Drive) -> Driven:
        outcomes = (encode_record(FAILED),) if word.seen_outcomes == 0 else ()
        return Driven(outcomes=outcomes, retries=2, committed=(1,) if outcomes else (), words=("slow disk",))

    async def main() -> Driver:
        driver = Driver(tmp_path, answer, heard)
        await driver.driving.drive()
        await driver.driving.drive()
        return driver

    driver = virtual_time.run(main())
    assert heard.outcomes == [FAILED]
    assert heard.committed_ == [Partition(1, 5, 5)]
    assert heard.retries == driver.shown.retries == 2
    assert driver.said.count("Warning: slow disk") == 1


def test_lost_coordinator(tmp_path: Path) -> None:
    """One that does not answer is asked again for half a minute, then the session ends with what to do."""

    def answer(_: Drive) -> Driven:
        raise LineError("no answer")

    async def main() -> float:
        driver = Driver(tmp_path, answer)
        with pytest.raises(CometbatchError, match=r"has not answered for 30 s .*run the same command again"):
            await driver.driving.drive_forever()
        return asyncio.get_running_loop().time()

    assert LOST_S < virtual_time.run(main()) < LOST_S + 1


def travelled(error: Exception) -> Exception:
    """An error of an owner, as the driver raises it."""
    told = decode_request(encode(Leave(1, error=ErrorWords.of(error))))
    assert isinstance(told, Leave)
    assert told.error is not None
    return error_of(told.error)


def test_owner_s_error(tmp_path: Path) -> None:
    """It has all others finish what is in flight, and is raised here as in one process, with the same words in logs."""

    async def main() -> Driver:
        driver = Driver(tmp_path, lambda _: Driven(errors=(ErrorWords.of(InputLostError("in.csv: changed")),)))
        await driver.driving.drive()
        await driver.driving.drive()
        return driver

    driver = virtual_time.run(main())
    (order,) = driver.line.words[-1].stops
    assert not order.is_now
    error = travelled(InputLostError(quoting("in.csv: no number: 7x", "7x")))
    assert type(error) is InputLostError
    assert str(error) == "in.csv: no number: 7x"
    assert logged(error.args[0]) == "in.csv: no number: (not logged)"
    full = travelled(CheckpointError("journal: no space left"))
    assert isinstance(full, CheckpointError)
    assert full.exit_code == 1
    assert isinstance(travelled(OSError("no space left")), OSError)
    assert str(error_of(ErrorWords("Strange", "words", "words"))) == "Strange: words"


@pytest.mark.parametrize(
    ("driven", "kind", "queues"),
    [
        (Driven(is_over=True), None, {}),
        (Driven(stops=(StopOrder(words_of(TERMINATED)),)), "terminated", {}),
        (Driven(stops=(StopOrder(words_of(TERMINATED)),), is_over=True), None, {}),  # it came after the last call
        (
            Driven(
                stops=(StopOrder(StopWords("refused", "b"), queue=1), StopOrder(StopWords("refused", "a"), queue=0))
            ),
            "refused",
            {0: "a", 1: "b"},
        ),
        (
            Driven(
                stops=(StopOrder(StopWords("budget", "short", next_usd=Decimal(2))), StopOrder(words_of(TERMINATED)))
            ),
            "budget",
            {},
        ),
    ],
)
def test_endings(tmp_path: Path, driven: Driven, kind: str | None, queues: dict[int, str]) -> None:
    """A session ends with the first reason, and with that of each model that has one of its own."""

    async def main() -> Driver:
        driver = Driver(tmp_path, lambda _: driven)
        await driver.driving.drive()
        return driver

    ended = virtual_time.run(main()).driving.ended()
    assert (None if ended.stop is None else ended.stop.kind) == kind
    assert {number: stop.message for number, stop in ended.queues.items()} == queues


def test_stops_travel() -> None:
    """What a stop says is the same after the way, also the words of a service, which logs do not quote."""
    stop = Stop("refused", Quoting("no such model: mine", "no such model"), "Check it.", "job", Decimal("0.5"))
    made = stop_of(words_of(stop))
    assert made == stop
    assert logged(made.message) == "no such model"


def test_deadline(tmp_path: Path) -> None:
    """`stop_within_s` is one deadline for all workers: then what is in flight is given up, and it is said."""

    async def main() -> Driver:
        driver = Driver(tmp_path, lambda _: Driven(in_flight=5))
        stopping = Stopping(25.0)
        task = asyncio.create_task(driver.driving.drive_forever())
        async with stopping.watching():
            with stopping.heard(driver.shown), stopping.of_loop(driver.driving):
                await asyncio.sleep(0.1)
                stopping.ask(TERMINATED)
                await asyncio.sleep(24.5)
                assert [order.is_now for order in driver.line.words[-1].stops] == [False]
                await asyncio.sleep(1)
        assert [order.is_now for order in driver.line.words[-1].stops] == [False, True]
        task.cancel()
        return driver

    said = virtual_time.run(main()).said
    assert "Stopping: finishing 5 requests in flight, for at most 25 s" in said
    assert "5 requests in flight are given up after 25 s" in said
