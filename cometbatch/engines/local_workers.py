"""Owners as processes of this machine: how they are started, and the socket over which they reach the coordinator.

Guards: no process is left behind: its stdin is a pipe from this process, and it ends when the pipe or the socket does,
however this process ends. What an owner is given goes through that pipe, and never into arguments, environment or
files. The socket lies in a folder of its own that no other user can enter, and takes none who does not know a token.
"""

import asyncio
import contextlib
import itertools
import os
import pickle
import secrets
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Self, TypeAlias

from msgspec import Struct

from cometbatch.control.coordination.messages import Reply, Request, decode_reply, encode
from cometbatch.engines.allocators import ALLOCATORS
from cometbatch.engines.framing import ANSWERED, ASKED, FAILED, Frames
from cometbatch.engines.line import LineClosedError, LineError
from cometbatch.errors import CometbatchError
from cometbatch.records import KEY_SHAPE

Handle: TypeAlias = Callable[[bytes], Awaitable[bytes]]
"""Answers an encoded message of an owner: `Host.handle`."""

MAX_SOCKET_PATH: Final = 100  # bytes that the path of a Unix socket may have on every system; Linux takes 107
NAME_BYTES: Final = 32  # of these, for the names of its folder and of the socket, about
HELLO_BYTES: Final = 64  # that whoever has not shown the token may send
MESSAGE_BYTES: Final = 1 << 30  # that a message may have
LAST_WORDS_BYTES: Final = 2_000  # of the end of a worker's stderr, for an error's message
_START: Final = "import sys; sys.path += sys.argv[1:]; from {0} import main; main()"
_SIZE_BYTES: Final = 8  # of the length that goes before what a worker is handed


def command_of(module: str) -> tuple[str, ...]:
    """The command that runs `main` of a module of this program in a process of its own.

    What this process finds on its path is found there, too, after the interpreter's own: the folder that a user works
    in hides none of the modules.
    """
    paths = (os.path.abspath(each) for each in sys.path)  # noqa: PTH100 - "" is the folder of now, and links stay
    return (sys.executable, "-P", "-c", _START.format(module), *paths)


class Handed(Struct, frozen=True):
    """What a worker's process gets through its stdin. `content`: what its owner is given."""

    path: str
    token: str
    content: bytes

    def __repr__(self) -> str:
        """Without secrets."""
        return f"Handed({self.path!r})"


def take_over(stdin: IO[bytes]) -> Handed | None:
    """What this process, a worker, is handed; None where whoever started it has ended already."""
    size = int.from_bytes(stdin.read(_SIZE_BYTES))
    content = stdin.read(size)
    return Handed(*pickle.loads(content)) if size and len(content) == size else None  # noqa: S301 - from our parent


# -- the worker's end --------------------------------------------------------------------------------------------------


class SocketLine:
    """An owner's way to the coordinator in the driver's process; `engines.line.Line`."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._numbers = itertools.count(1)
        self._frames = Frames(self._answered, self._ended, most=MESSAGE_BYTES)
        self.closed = asyncio.Event()
        """Set once the driver's process has ended, or has closed the line."""

    @classmethod
    async def connect(cls, path: str, token: str) -> Self:
        """Raises `LineClosedError` where nobody listens there any more."""
        line = cls()
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: line._frames, path)
        except OSError as error:
            raise LineClosedError(str(error)) from error
        line._frames.write(0, ASKED, token.encode())
        return line

    async def ask(self, request: Request) -> Reply:
        """Send a message and return its answer. Raises `LineError`, `LineClosedError`."""
        if self.closed.is_set():
            raise LineClosedError("the driver's process has ended")
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._frames.write(number, ASKED, encode(request))
            return decode_reply(await waiting)
        finally:
            del self._waiting[number]

    def close(self) -> None:
        """End the line; who still waits for an answer gets `LineClosedError`."""
        self._frames.cut()

    def _answered(self, number: int, kind: int, content: bytes) -> None:
        waiting = self._waiting.get(number)
        if waiting is None or waiting.done():  # whoever asked has been cancelled
            return
        if kind == ANSWERED:
            waiting.set_result(content)
        else:
            waiting.set_exception(LineError("the coordinator did not take the message"))

    def _ended(self) -> None:
        self.closed.set()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(LineClosedError("the driver's process has ended"))


# -- the driver's end --------------------------------------------------------------------------------------------------


class _Reached:
    """A worker that has connected. It is an owner's once it has shown the token."""

    def __init__(self, handle: Handle, owner_of: Callable[[str], "LocalWorker | None"]) -> None:
        self.frames = Frames(self._taken, self._lost, most=HELLO_BYTES)
        self._handle, self._owner_of = handle, owner_of
        self._worker: LocalWorker | None = None
        self._answering: set[asyncio.Task[None]] = set()

    def _taken(self, number: int, kind: int, content: bytes) -> None:
        if self._worker is None:
            self._worker = self._owner_of(content.decode(errors="replace")) if kind == ASKED else None
            if self._worker is None:
                self.frames.cut()
            else:
                self.frames.most = MESSAGE_BYTES
            return
        task = asyncio.get_running_loop().create_task(self._answer(self._worker, number, content))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, worker: "LocalWorker", number: int, content: bytes) -> None:
        try:
            self.frames.write(number, ANSWERED, await self._handle(content))
        except Exception as error:  # noqa: BLE001 - a worker that can't be served ends, and says why
            worker.complaint = f"its message could not be taken: {type(error).__name__}: {error}"
            self.frames.write(number, FAILED, b"")
            self.frames.cut()

    def _lost(self) -> None:
        for task in self._answering:
            task.cancel()


class LocalWorker:
    """The process of an owner; `engines.line.Launched`. `complaint`: why it was given up; "" where it was not."""

    def __init__(self, owner: int, child: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self.owner = owner
        self.was_killed = False
        self.complaint = ""
        self._child, self._errors = child, errors
        self._is_ended = asyncio.get_running_loop().create_task(self._wait())

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._child.pid

    async def ended(self) -> str:
        """Wait until the process is gone; how it ended, in a few words, with the end of its stderr."""
        return await asyncio.shield(self._is_ended)

    def kill(self) -> None:
        """End it by force, if it is there."""
        self._child.kill()

    async def _wait(self) -> str:
        await _end_of(self._child.stdout)
        await asyncio.to_thread(self._child.wait)  # which is about to end
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):  # what it was handed may not have been read
                self._child.stdin.close()
        code = self._child.returncode
        self.was_killed = code < 0
        said = [f"exit code {code}" if code >= 0 else f"killed by signal {-code}", self.complaint, self._last_words()]
        return "; ".join(filter(None, said))

    def _last_words(self) -> str:
        with self._errors:
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - LAST_WORDS_BYTES))
            return " ".join(self._errors.read().decode(errors="replace").split())


async def _end_of(stdout: IO[bytes] | None) -> None:
    """Wait for the end of a pipe, and read past what comes: whoever writes into it never waits."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    class ToTheEnd(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it ended, it has ended
            if not over.done():
                over.set_result(None)

    transport, _ = await asyncio.get_running_loop().connect_read_pipe(ToTheEnd, stdout)
    try:
        await over
    finally:
        transport.close()


class LocalLauncher:
    """Starts owners' processes on this machine; `engines.line.Launcher`.

    `handle`: answers their messages. `assigned`: what an owner is given, as bytes, by its number. `command`: runs a
    worker, which takes that over (`take_over`). `withheld`: names of variables that its environment must not have,
    beside those that look like a key. Whoever has made one ends it with `aclose`.
    """

    def __init__(
        self, handle: Handle, assigned: Callable[[int], bytes], command: Sequence[str], withheld: Collection[str] = ()
    ) -> None:
        self._handle, self._assigned, self._command, self._withheld = handle, assigned, command, withheld
        self._workers: dict[str, LocalWorker] = {}  # by token
        self._reached: list[_Reached] = []
        self._ending = contextlib.ExitStack()
        self._path: Path | None = None
        self._beginning = asyncio.Lock()

    async def launch(self, owner: int) -> LocalWorker:
        """Start the process of an owner. Raises `CometbatchError` where that can't be done at all."""
        try:
            async with self._beginning:  # several are launched at once, and one socket is for all
                if self._path is None:
                    self._path = await self._listen()
            token, content = secrets.token_hex(HELLO_BYTES // 2), self._assigned(owner)
            with contextlib.ExitStack() as opened:
                errors = opened.enter_context(tempfile.TemporaryFile())  # a pipe that is full would make it wait
                child = self._spawn(errors)
                opened.pop_all()
        except OSError as error:
            raise CometbatchError(f"The process of a worker can't be started: {error}") from error
        worker = self._workers[token] = LocalWorker(owner, child, errors)
        handed = pickle.dumps((str(self._path), token, content))
        await asyncio.to_thread(_hand_over, child, len(handed).to_bytes(_SIZE_BYTES) + handed)
        return worker

    async def aclose(self) -> None:
        """End what is left: processes, connections, the socket and its folder."""
        try:
            for worker in self._workers.values():
                worker.kill()
            for worker in self._workers.values():
                await worker.ended()
        finally:
            self._ending.close()

    def _spawn(self, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own interpreter, and no shell
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # so that Ctrl-C in a terminal does not reach it
            env=_environment(os.environ, self._withheld),
        )

    async def _listen(self) -> Path:
        """Begin to take connections; returns the path of the socket."""
        folder = self._ending.enter_context(_folder())
        path = folder / "socket"
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        server = await asyncio.get_running_loop().create_unix_server(self._accept, sock=listening)
        self._ending.callback(self._stop_listening, server)
        return path

    def _accept(self) -> Frames:
        reached = _Reached(self._handle, self._workers.get)
        self._reached.append(reached)
        return reached.frames

    def _stop_listening(self, server: asyncio.Server) -> None:
        server.close()
        for reached in self._reached:
            reached.frames.cut()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A new folder that no other user can enter, with a path that is short enough for a socket's."""
    usual = tempfile.gettempdir()
    short = next((each for each in (usual, "/tmp") if len(os.fsencode(each)) < MAX_SOCKET_PATH - NAME_BYTES), usual)  # noqa: S108 - a new folder in it
    folder = Path(tempfile.mkdtemp(prefix="cometbatch-", dir=short))
    try:
        yield folder
    finally:
        remove_folder(folder / "socket")


def remove_folder(path: Path) -> None:
    """Remove a socket with its folder: at the end of the driver, or after that by its workers."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def _hand_over(child: subprocess.Popen[bytes], content: bytes) -> None:
    assert child.stdin is not None  # noqa: S101 - it was made with a pipe
    with contextlib.suppress(OSError):  # it has ended already, as is told elsewhere
        child.stdin.write(content)
        child.stdin.flush()


def _environment(own: Mapping[str, str], withheld: Collection[str]) -> dict[str, str]:
    """What a worker's process needs of this one's environment."""
    kept = {name: value for name, value in own.items() if name not in withheld and not KEY_SHAPE.search(value)}
    return {**ALLOCATORS, **kept}
