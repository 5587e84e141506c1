"""Workers' processes and the socket between them and the driver."""

import asyncio
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cometbatch.control.coordination.messages import (
    Assigned,
    Claim,
    Claimed,
    Driven,
    Join,
    Lease,
    OwnerState,
    StopOrder,
    StopWords,
    Verdict,
    Watch,
    decode_request,
    encode,
)
from cometbatch.engines import event_loop
from cometbatch.engines.line import LineClosedError
from cometbatch.engines.local_workers import LocalLauncher, SocketLine, command_of
from cometbatch.engines.supervising import supervise
from cometbatch.errors import CometbatchError
from tests.child_process import child, heard

END_S = 20.0  # a moment, and more where a machine does other things
COMMAND = command_of("tests.workers.small_worker")
OVER, NOTHING_YET, TOO_HARD = Claimed(is_over=True), Claimed(ask_again_s=0.02), Claimed((Assigned(7),))
GIVE_UP = StopOrder(StopWords("interrupted", "Interrupted."), is_now=True)


class Answers:
    """Answers owners without a coordinator: `claimed` to each that asks for work; over once two of them have left.

    `joined`: who has begun.
    """

    def __init__(self, claimed: Claimed = OVER) -> None:
        self.claimed = claimed
        self.joined: list[int] = []
        self.left: set[int] = set()
        self.gone_owners: list[int] = []
        self.stops: tuple[StopOrder, ...] = ()
        self.on_join: Callable[[int], None] = lambda _: None

    async def handle(self, content: bytes) -> bytes:
        request = decode_request(content)
        match request:
            case Join():
                self.joined.append(request.owner)
                self.on_join(request.owner)
                return encode(Lease(1))
            case Claim():
                if self.claimed.is_over:
                    self.left.add(request.owner)
                return encode(self.claimed)
            case Watch():
                await asyncio.sleep(60)
        return encode(Verdict())

    def gone(self, owner: int) -> None:
        self.gone_owners.append(owner)

    async def drive(self) -> Driven:
        states = tuple(OwnerState(each, 0.0, is_lost=False, has_left=each in self.left) for each in self.joined)
        return Driven(owners=states, stops=self.stops, is_over=len(self.left) == 2)


@asynccontextmanager
async def _launching(answers: Answers, command: tuple[str, ...] = COMMAND) -> AsyncIterator[LocalLauncher]:
    launcher = LocalLauncher(answers.handle, lambda owner: str(owner).encode(), command, withheld=("SECRET_HEADER",))
    try:
        yield launcher
    finally:
        await launcher.aclose()


def _supervised(answers: Answers, workers: int, command: tuple[str, ...] = COMMAND) -> None:
    async def main() -> None:
        async with _launching(answers, command) as launcher:
            await supervise(launcher, workers, answers)

    event_loop.run(main())


def test_several_questions_are_under_way_at_once_and_all_owners_end_in_order(temporary: Path) -> None:
    """A long poll that nobody answers holds up no other message, and nothing is left behind."""
    answers = Answers()
    _supervised(answers, 2)
    assert sorted(answers.joined) == [1, 2]
    assert sorted(answers.gone_owners) == [1, 2]
    assert list(temporary.iterdir()) == []


def test_a_killed_owner_is_replaced_by_one_with_a_new_number(temporary: Path) -> None:
    """Its number is no other owner's ever again."""
    answers = Answers(NOTHING_YET)

    async def main() -> None:
        async with _launching(answers) as launcher:
            launched = []
            launch = launcher.launch

            async def kept(owner: int) -> object:
                launched.append(await launch(owner))
                return launched[-1]

            launcher.launch = kept  # type: ignore[method-assign, assignment] # the test's own in its place

            def joined(owner: int) -> None:
                if owner == 3:
                    answers.claimed = OVER
                elif len(answers.joined) == 2:
                    launched[0].kill()

            answers.on_join = joined
            await supervise(launcher, 2, answers)

    event_loop.run(main())
    assert answers.joined[-1] == 3
    assert answers.gone_owners[0] == 1


def test_owners_that_die_before_they_begin_end_the_run_with_their_last_words(temporary: Path) -> None:
    """They are not started for ever."""
    code = "import sys; sys.exit('no such module')"
    with pytest.raises(CometbatchError, match=r"3 workers in a row .* exit code 1; no such module"):
        _supervised(Answers(NOTHING_YET), 1, (sys.executable, "-c", code))
    assert list(temporary.iterdir()) == []


def test_owners_that_die_of_their_work_end_the_run_with_their_last_words(temporary: Path) -> None:
    """Also where they write more than a pipe holds before that."""
    with pytest.raises(CometbatchError, match=r"3 workers in a row .* range 7 is too hard"):
        _supervised(Answers(TOO_HARD), 1)


def test_owners_that_do_not_end_once_all_is_given_up_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver waits some seconds for them."""
    monkeypatch.setattr("cometbatch.engines.supervising.END_NOW_S", 0.1)
    monkeypatch.setattr("cometbatch.engines.supervising.DRIVE_S", 0.1)
    answers = Answers(NOTHING_YET)
    answers.on_join = lambda _: setattr(answers, "stops", (GIVE_UP,))
    _supervised(answers, 1)
    assert answers.joined == [1]


def test_no_other_user_can_reach_the_socket_and_none_without_a_token_is_answered(temporary: Path) -> None:
    """Its folder has mode 0700, itself 0600."""
    answers = Answers(NOTHING_YET)

    async def main() -> None:
        async with _launching(answers) as launcher:
            await launcher.launch(1)
            path = _socket_below(temporary)
            line = await SocketLine.connect(str(path), "a guess")
            with pytest.raises(LineClosedError):
                await line.ask(Join(9))

    event_loop.run(main())
    assert 9 not in answers.joined


def test_no_secret_is_in_the_arguments_or_the_environment_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what looks like a key, nor what the launcher is told to withhold, nor the token."""
    monkeypatch.setenv("COMETAPI_KEY", "sk-" + "0123456789abcdef" * 3)
    monkeypatch.setenv("SECRET_HEADER", "opensesame")
    answers = Answers(NOTHING_YET)

    async def main() -> None:
        async with _launching(answers) as launcher:
            launched = await launcher.launch(1)
            (token,) = launcher._workers
            _refuse_shown(launched.pid, "0123456789abcdef", "opensesame", token)

    event_loop.run(main())


def _socket_below(folder: Path) -> Path:
    """The launcher's socket, which must be its user's alone."""
    (path,) = folder.glob("*/socket")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path


def _refuse_shown(pid: int, *secrets: str) -> None:
    """Whatever any user of the machine, or this one by another program, sees of a process has none of these."""
    for name in ("environ", "cmdline"):
        shown = Path(f"/proc/{pid}/{name}").read_bytes()
        assert shown
        assert not any(each.encode() in shown for each in secrets)


DRIVER = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from tests.workers.test_local_workers import NOTHING_YET, Answers, _launching
async def main():
    answers = Answers(NOTHING_YET)
    async with _launching(answers) as launcher:
        launched = [await launcher.launch(owner) for owner in (1, 2)]
        while len(answers.joined) < 2:
            await asyncio.sleep(0.01)
        print(*(each.pid for each in launched), flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def test_workers_end_with_their_driver_however_it_ends(temporary: Path) -> None:
    """A kill included: all of them are gone soon."""
    with child(DRIVER, Path(__file__).parents[2]) as driver:
        pids = heard(driver).split()
        driver.send_signal(signal.SIGKILL)
        died = time.monotonic()
        while any(_is_there(int(pid)) for pid in pids):
            assert time.monotonic() < died + END_S
            time.sleep(0.01)


def _is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
