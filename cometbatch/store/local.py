"""Files of a local disk: written aside, synced, appended, locked. Knows no run and no record.

Guards: a file that is written aside is whole or absent, whenever the power fails; what the operating system says about
a file becomes an error that names the file; a lock is held until the last thread that can write has ended.
"""

import contextlib
import errno
import fcntl
import io
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any, TypeVar

from cometbatch.errors import CheckpointError, RunLockedError

T = TypeVar("T")

LOCK_TRIES = 5
LOCK_WAIT_S = 0.02  # seconds between two tries: who only looks whether a lock is taken holds it for a moment
SIGNATURE_BYTES = 128  # in front of a note, at least: another process's name fits there, and the note stays untouched
STAGED = ".tmp"  # the end of a file's name while it is written aside, until it is whole and renamed
MAKE_ROOM = "Everything recorded so far is safe: make room, then run the same command again."
PUT_RIGHT = "What was recorded so far is untouched: put this right, then run the same command again."
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Turn an error of the operating system into a `CheckpointError` that names the file."""
    try:
        yield
    except OSError as error:
        advice = MAKE_ROOM if error.errno in FULL else PUT_RIGHT
        raise CheckpointError(f"{path}: {what} ({error.strerror or error}). {advice}") from error


def content(path: Path, absent: T) -> bytes | T:
    """A file's bytes, or `absent` where there is no such file.

    Raises `CheckpointError` where the file is there and can't be read.
    """
    with naming(path, "can't be read"):
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return absent


def entries(folder: Path) -> list[str]:
    """The names in a folder, sorted; none where there is no folder. Raises `CheckpointError` where it can't be read.

    `Path.glob` takes a folder that can't be read for an empty one: its rows would be sent, and paid, again. Names and
    not paths, because the paths of ten million rows' parts take megabytes.
    """
    with naming(folder, "this folder can't be read"):
        try:
            return sorted(os.listdir(folder))  # noqa: PTH208 - it makes no path of each name
        except (FileNotFoundError, NotADirectoryError):
            return []


def sizes(folder: Path) -> dict[str, int]:
    """The bytes of each entry of a folder, by name; none where there is no folder. Raises as `entries` does."""
    with naming(folder, "this folder can't be read"):
        try:
            with os.scandir(folder) as found:
                return {entry.name: entry.stat().st_size for entry in found}
        except (FileNotFoundError, NotADirectoryError):
            return {}


def staged(final: Path, owner: str = "") -> Path:
    """Where a file is written until it is whole: readers of a folder of tables pass over names that begin so.

    `owner`: who writes it, where several processes may write this file at a time.
    """
    return final.with_name(f".{final.name}{owner and '.' + owner}{STAGED}")


def write_new(final: Path, write: Callable[[IO[bytes]], None], owner: str, check: Callable[[], object]) -> bool:
    """Write a file whole where there is none; False where another process was first, whose file stays.

    `check` is called right before the file gets its name. Raises what it raises, and what `write_aside` raises; then
    there is no such file by this process.
    """
    aside = staged(final, owner)
    with naming(final, "can't be written"):
        try:
            with aside.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            check()
            return _link(aside, final)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)


def _link(aside: Path, final: Path) -> bool:
    """Give a file a second name, durably, unless another file has it."""
    try:
        os.link(aside, final)
    except OSError as error:
        is_ours = _is_same(aside, final)  # a server of files may have done it, and lost its answer
        if not is_ours and not isinstance(error, FileExistsError):
            raise
    else:
        is_ours = True
    sync(final.parent)
    return is_ours


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names are those of one file."""
    try:
        return one.samefile(other)
    except (FileNotFoundError, NotADirectoryError):
        return False


def link(source: Path, final: Path, owner: str = "") -> bool:
    """Make `final` another name of the file `source`, in place of what has it now; False where it is that already.

    Any process may do it at any time, and again. Raises `CheckpointError` where the disk refuses.
    """
    with naming(final, f"can't be linked to {source}"):
        if _is_same(source, final):
            return False
        aside = staged(final, owner)
        aside.unlink(missing_ok=True)
        os.link(source, aside)
        aside.replace(final)
        aside.unlink(missing_ok=True)  # a rename to another name of the same file does nothing
    sync(final.parent)
    return True


def write_aside(final: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that a reader finds all of it or none of it, whenever the power fails.

    A symbolic link at `final` stays, and the file that it leads to is written. Raises `CheckpointError` when the disk
    won't take it, and whatever `write` raised; then the old file stands.
    """
    if final.is_symlink():
        final = Path(os.path.realpath(final))
    aside = staged(final)
    with naming(final, "can't be written"):
        try:
            with aside.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(final)
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise
        sync(final.parent)


def write_bytes(final: Path, data: bytes) -> None:
    """Write a small file aside. Raises `CheckpointError` when the disk won't take it."""

    def write(file: IO[bytes]) -> None:
        file.write(data)

    write_aside(final, write)


def sync(path: Path) -> None:
    """Make a file's content survive a power cut, or a folder's names: a rename is durable once its folder is.

    Raises `CheckpointError` where the disk fails.
    """
    with naming(path, "can't be synced"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_data(descriptor: int) -> None:
    """Make the bytes of an open file survive a power cut; macOS has no fdatasync."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, so that a power cut takes none of them.

    Raises `OSError` where it can't be made.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def remove(path: Path) -> None:
    """Remove a file of ours, if it is there. Raises `CheckpointError` where the disk refuses."""
    with naming(path, "can't be removed"):
        path.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Give a file or folder another path on the same disk; durable once the folders of both are synced.

    Raises `CheckpointError` where the disk refuses.
    """
    with naming(source, f"can't be moved to {target}"):
        source.replace(target)


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours with all that is in it, if it is there. Raises `CheckpointError` where that fails."""
    with naming(folder, "can't be removed"):
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        elif folder.is_dir():
            shutil.rmtree(folder)


class _WritingThread(ThreadPoolExecutor):
    """A thread of which it is known what it has under way.

    To join it would not do: before Python 3.13 a thread counts as ended once a Ctrl-C has interrupted who joins it.
    """

    def __init__(self) -> None:
        super().__init__(1)
        self._under_way: set[Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Have the thread do this."""
        future = super().submit(fn, *args, **kwargs)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def end(self) -> None:
        """Wait for what is under way; what has not begun never does."""
        self.shutdown(wait=False, cancel_futures=True)
        wait(tuple(self._under_way))
        self.shutdown()


class Lock:
    """One writer at a time, held from `acquire` until `release`, which waits for every thread that may write.

    The file stays when the lock is free: to remove it would let two processes in.
    """

    def __init__(self, path: Path, *, holder_of: str) -> None:
        self._path = path
        self._holder_of = holder_of
        self._file: io.FileIO | None = None
        self._threads: list[_WritingThread] = []

    def acquire(self) -> None:
        """Become the one writer; a dead process holds nothing.

        Raises `RunLockedError` with the holder's name, and `OSError` where the folder can't be made or the file system
        has no locks.
        """
        make_folder(self._path.parent)
        file = _lock_file(self._path)
        try:
            _flock_patiently(file)
        except BlockingIOError as error:
            holder = _living_holder(_content(file).partition(b"\n")[0].decode(errors="replace"))
            file.close()
            words = f"{self._path.parent}: {holder} is running {self._holder_of}. Wait for it, or stop it."
            raise RunLockedError(words, holder) from error
        except OSError:
            file.close()
            raise
        self._file = file

    def sign(self) -> None:
        """Write this process's name into the lock, for the message that a second process gets; a full disk lacks it.

        A note that is there stays.
        """
        if self._file is not None:
            with contextlib.suppress(OSError):
                told, line = _content(self._file), _signature()
                first, end, note = told.partition(b"\n")
                if _note_in(told) and len(line) <= len(first):
                    _put(self._file, line.ljust(len(first)))
                else:
                    _replace(self._file, line + end + note if _note_in(told) else line + b"\n")

    def write_note(self, note: bytes) -> None:
        """Sign, and leave a note of one line for whoever gets the lock next, in place of the note that is there.

        On return it survives a power cut; a process that is killed before that leaves the old note or the new one.
        b"": no note. Raises `CheckpointError` where the disk refuses.
        """
        if self._file is None:
            raise RuntimeError("only who has the lock writes into it")
        with naming(self._path, "can't be written"):
            line = _signature().ljust(SIGNATURE_BYTES) if note else _signature()
            _replace(self._file, b"%b\n%b\n" % (line, note) if note else line + b"\n")
            os.fsync(self._file.fileno())
        sync(self._path.parent)

    def note(self) -> bytes:
        """The note in the lock, read without taking part; b"" where there is none.

        Raises `CheckpointError` where it can't be read.
        """
        return _note_in(content(self._path, b""))

    def thread(self) -> ThreadPoolExecutor:
        """A thread that may write under this lock: `release` waits for its end."""
        self._threads.append(_WritingThread())
        return self._threads[-1]

    def release(self) -> None:
        """Let the next process in, once no thread of ours can write any more.

        A Ctrl-C meanwhile is raised afterwards: the lock would be free under a thread that writes.
        """
        interrupt: BaseException | None = None
        while self._threads:
            try:
                self._threads[-1].end()
            except BaseException as error:  # noqa: BLE001 - raised below
                interrupt = error
            else:
                self._threads.pop()
        if self._file is not None:
            self._file.close()
            self._file = None
        if interrupt is not None:
            raise interrupt

    def is_held(self) -> bool:
        """Whether a live process holds the lock, asked without taking part."""
        try:
            with self._path.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def _lock_file(path: Path) -> io.FileIO:
    """The lock's file, open; not for appending, so that what it says is replaced and never gone."""
    with contextlib.suppress(FileNotFoundError):
        return path.open("r+b", buffering=0)
    path.open("ab").close()
    return path.open("r+b", buffering=0)


def _content(file: io.FileIO) -> bytes:
    file.seek(0)
    return file.read() or b""


def _note_in(told: bytes) -> bytes:
    return told.partition(b"\n")[2].strip(b" \0\n")


def _signature() -> bytes:
    return f"process {os.getpid()} on {socket.gethostname()}".encode()


def _replace(file: io.FileIO, told: bytes) -> None:
    """Give a lock another content in one write, which no kill divides: a file that is cut first would say nothing.

    Raises `OSError` where the disk refuses.
    """
    _put(file, told.ljust(os.fstat(file.fileno()).st_size))
    file.truncate(len(told))


def _put(file: io.FileIO, told: bytes) -> None:
    """Write at the beginning of a file. Raises `OSError` where not all of it was written."""
    file.seek(0)
    if file.write(told) != len(told):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _flock_patiently(file: io.FileIO) -> None:
    """Take the lock, at one of some tries. Raises `BlockingIOError`."""
    for _ in range(LOCK_TRIES - 1):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(LOCK_WAIT_S)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _living_holder(signature: str) -> str:
    """Who holds a lock, by the name in it; a dead process's name stands there until the next one has work to do.

    The name is not cleared when the lock is taken: looking at a finished run must not change a file.
    """
    found = re.fullmatch(r"process ([0-9]{1,10}) on (.*)", signature.strip())
    if found is None or (found[2] == socket.gethostname() and not _is_alive(int(found[1]))):
        return "another process"
    return found[0]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 asks whether the process could be signalled
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's process
        return True
    return True
