"""The run directory: what survives a crash, and how it is read back. Never knows what an outcome means.

Guards: a part is whole or absent; an outcome is written before it is reported; one writer at a time. What is
written here is lines and files, and existence is the commit, so recovery is only a matter of looking.
"""

import contextlib
import errno
import fcntl
import io
import mmap
import os
import re
import socket
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Self

import msgspec
from msgspec import Struct

from cometbatch.errors import CheckpointError, RunLockedError

MANIFEST = "manifest.json"
SESSIONS = "sessions.jsonl"
IN_FLIGHT = "in_flight"
STAGED = ".tmp"  # a file that is being written aside ends so, until it is whole and renamed
CHECKSUM_DIGITS = 8
MARK_DIGITS = 20  # of the largest row number
MARK_BYTES = MARK_DIGITS + 1  # one in-flight mark: a row number, right-aligned, and a line break
INDEX_DIGITS = 5  # of a partition in a file's name, at least


class JournalHeader(Struct, frozen=True):
    """The first line of a journal: which run and partition it belongs to."""

    run_id: str
    partition: int


class Session(Struct, frozen=True):
    """One process's turn at a run. `resent` rows were in flight when an earlier one died; they may be billed twice."""

    started_at: str
    pid: int
    host: str
    version: str
    resent: int = 0


class Journal:
    """The outcomes of one open partition, one checksummed line each, appended with one unbuffered write.

    A line handed to the operating system survives the death of the process; `sync` makes it survive a power cut.
    """

    def __init__(self, path: Path, header: JournalHeader) -> None:
        self.path = path
        self._header = header
        with _naming(path, "can't open the journal"):
            self._file = path.open("a+b", buffering=0)
            self._whole_bytes = os.fstat(self._file.fileno()).st_size
        self._dirty = False
        self._syncing = threading.Lock()

    def replay(self) -> list[bytes]:
        """The records so far, oldest first. A torn end is cut off.

        Raises `CheckpointError` where an unreadable line has readable ones after it, which no crash explains, or
        where the journal is another run's.
        """
        with _naming(self.path, "can't read the journal"):
            self._file.seek(0)
            content = self._file.readall() or b""
        records, self._whole_bytes = _read_lines(content, self.path)
        if self._whole_bytes < len(content):
            self._file.truncate(self._whole_bytes)
        if not records:
            self.append(msgspec.json.encode(self._header))
            return []
        self._check_header(records[0])
        return records[1:]

    def append(self, record: bytes) -> None:
        """Write one record (no line break inside). Raises `CheckpointError` when the disk won't take it, whole."""
        line = b"%0*x %s\n" % (CHECKSUM_DIGITS, zlib.crc32(record), record)
        with _naming(self.path, "can't write the journal"):
            try:
                written = self._file.write(line)
            except OSError:
                self._cut_off()
                raise
        if written != len(line):
            self._cut_off()
            raise CheckpointError(f"{self.path}: can't write the journal (the disk is full). {WAY_ON}")
        self._whole_bytes += written
        self._dirty = True

    def sync(self) -> None:
        """Make what was appended survive a power cut; no work if nothing was. Any thread may call this."""
        with self._syncing, _naming(self.path, "can't sync the journal"):
            if self._dirty and not self._file.closed:
                self._dirty = False
                os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Close the file, once no thread is syncing it; it stays for the next session."""
        with self._syncing:
            self._file.close()

    def _cut_off(self) -> None:
        """A half-written line must not stay: one after it, should there be room again, would make it look damaged."""
        with contextlib.suppress(OSError):
            self._file.truncate(self._whole_bytes)

    def _check_header(self, record: bytes) -> None:
        try:
            found = msgspec.json.decode(record, type=JournalHeader)
        except msgspec.MsgspecError as error:
            raise CheckpointError(f"{self.path}:1: not the first line of a journal.") from error
        if found != self._header:
            raise CheckpointError(
                f"{self.path}:1: this journal belongs to run {found.run_id}, partition {found.partition}, not to "
                f"run {self._header.run_id}, partition {self._header.partition}. Move it away and run again."
            )


WAY_ON = "Everything recorded so far is safe: make room, then run the same command again."
WAY_BACK = "What was recorded so far is untouched: put this right, then run the same command again."
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def _naming(path: Path, what: str) -> Iterator[None]:
    """Turn what the operating system says into a `CheckpointError` that names the file."""
    try:
        yield
    except OSError as error:
        way = WAY_ON if error.errno in FULL else WAY_BACK
        raise CheckpointError(f"{path}: {what} ({error.strerror or error}). {way}") from error


def read_journal(path: Path) -> list[bytes]:
    """The records of a journal that another process may be writing, without changing it; the header left out.

    Raises `CheckpointError` where it can't be read, or holds a damaged line before readable ones.
    """
    try:
        with _naming(path, "can't read the journal"):
            content = path.read_bytes()
    except CheckpointError as error:
        if isinstance(error.__cause__, FileNotFoundError):  # its partition was committed meanwhile
            return []
        raise
    return _read_lines(content, path)[0][1:]


def _read_lines(content: bytes, path: Path) -> tuple[list[bytes], int]:
    """The records of whole lines, and how many bytes they take; what follows is a torn end."""
    records: list[bytes] = []
    whole_bytes = 0
    torn_at = 0
    for number, line in enumerate(io.BytesIO(content), start=1):
        record = _checked(line)
        if record is None:
            torn_at = torn_at or number
        elif torn_at:
            raise CheckpointError(
                f"{path}:{torn_at}: this line is damaged (its checksum differs) and lines after it are not, so it "
                "is no torn end. Restore the file from a copy, or remove the line to send its row again."
            )
        else:
            records.append(record)
            whole_bytes += len(line)
    if not records and b"\n" in content:
        raise CheckpointError(f"{path}:1: this is no journal that cometbatch wrote. Move it away and run again.")
    return records, whole_bytes


def _checked(line: bytes) -> bytes | None:
    checksum, _, rest = line.partition(b" ")
    record = rest[:-1]
    if not rest.endswith(b"\n") or checksum != b"%0*x" % (CHECKSUM_DIGITS, zlib.crc32(record)):
        return None
    return record


class InFlightMarks:
    """Which rows are being sent right now, in a small mapped file that outlives a killed process.

    A mark costs a memory write, not a system call. What is still marked when a run carries on was sent and has no
    recorded answer: it is sent again, and may be billed twice.
    """

    def __init__(self, path: Path, slots: int) -> None:
        self.left_over = _read_marks(path)
        # What was left over stays marked, behind the slots in use, should this session die before it is answered.
        marks = [None] * slots + sorted(self.left_over)
        write_aside(path, lambda file: _write(file, b"".join(map(_mark, marks))))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), len(marks) * MARK_BYTES)

    def begin(self, slot: int, row: int) -> None:
        """Note that `slot` is sending `row`."""
        self._map[slot * MARK_BYTES : (slot + 1) * MARK_BYTES] = _mark(row)

    def end(self, slot: int) -> None:
        """Note that what `slot` sent has been answered and dealt with."""
        self._map[slot * MARK_BYTES : (slot + 1) * MARK_BYTES] = _mark(None)

    def close(self) -> None:
        """Release the mapping; the marks stay in the file."""
        self._map.close()


def _mark(row: int | None) -> bytes:
    return b"%*s\n" % (MARK_DIGITS, b"" if row is None else b"%d" % row)


def _read_marks(path: Path) -> frozenset[int]:
    try:
        words = path.read_bytes().split()
    except FileNotFoundError:
        return frozenset()
    return frozenset(int(word) for word in words if word.isdigit() and len(word) <= MARK_DIGITS)


class RunDirectory:
    """`<output>.run/`: manifest, lock, journals of open partitions and, unless the output is a data set, the parts."""

    def __init__(self, path: Path, *, parts: Path | None = None) -> None:
        self.path = path
        self.parts = parts or path / "parts"
        self._lock: IO[str] | None = None

    def lock(self) -> None:
        """Become the one writer. Raises `RunLockedError` with who holds it; a dead process holds nothing.

        Raises `OSError` where the directory can't be made or the file system has no locks.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        file = (self.path / "lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = _living_holder(file.read())
            file.close()
            raise RunLockedError(f"{self.path}: {holder} is carrying out this run. Wait for it, or stop it.") from error
        except OSError:
            file.close()
            raise
        self._lock = file

    def sign_lock(self) -> None:
        """Write who we are into the lock, for the message that a second process gets."""
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            self._lock.flush()

    def unlock(self) -> None:
        """Let the next process in. The file stays: removing it would let two in."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        self.lock()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.unlock()

    def is_locked(self) -> bool:
        """Whether a live process holds the run, asked without taking part."""
        try:
            with (self.path / "lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def create(self) -> None:
        """Make the folders of a new run. Raises `CheckpointError` where they can't be made."""
        for folder in (self.parts, self.path / "journal"):
            with _naming(folder, "this folder can't be made"):
                folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Forget the run, answers included, and nothing that is not ours; the lock stays ours.

        The manifest goes first: from then on there is no run, so that a crash half-way leaves nothing to carry on.
        """
        for name in (MANIFEST, SESSIONS, IN_FLIGHT):
            (self.path / name).unlink(missing_ok=True)
        for path in self.leftover_files():
            path.unlink()
        for index in self.journals():
            self.journal_path(index).unlink()
        for index in self.committed():
            self.part_path(index).unlink()

    def read_manifest(self) -> bytes | None:
        """The manifest's bytes, or `None` where no run was begun. Raises `CheckpointError` where it can't be read."""
        path = self.path / MANIFEST
        with _naming(path, "can't be read"):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write_manifest(self, content: bytes) -> None:
        """Write the manifest whole; from then on the run exists."""
        write_aside(self.path / MANIFEST, lambda file: _write(file, content))

    def sessions(self) -> list[Session]:
        """Every process's turn at this run so far, oldest first. Raises `CheckpointError` where a line is damaged."""
        return [self._session(number, line) for number, line in enumerate(self._session_lines(), start=1)]

    def add_session(self, session: Session) -> None:
        """Note a turn at this run. Raises `CheckpointError` when the disk won't take it."""
        lines = [*self._session_lines(), msgspec.json.encode(session)]
        write_aside(self.path / SESSIONS, lambda file: _write(file, b"".join(line + b"\n" for line in lines)))

    def _session_lines(self) -> list[bytes]:
        try:
            return (self.path / SESSIONS).read_bytes().splitlines()
        except FileNotFoundError:
            return []

    def _session(self, number: int, line: bytes) -> Session:
        try:
            return msgspec.json.decode(line, type=Session)
        except msgspec.MsgspecError as error:
            raise CheckpointError(
                f"{self.path / SESSIONS}:{number}: this line is damaged. Remove it: it only counts sessions."
            ) from error

    def committed(self) -> list[int]:
        """The partitions that have their part, ascending; files with other names are nobody's."""
        return _indexes(self.parts.glob("*.parquet"))

    def journals(self) -> list[int]:
        """The partitions that have a journal, ascending; files with other names are nobody's."""
        return _indexes(self.path.glob("journal/*.jsonl"))

    def part_path(self, index: int) -> Path:
        """Where the part of a partition is, or will be."""
        return self.parts / f"{_name(index)}.parquet"

    def journal_path(self, index: int) -> Path:
        """Where the journal of an open partition is."""
        return self.path / "journal" / f"{_name(index)}.jsonl"

    def open_journal(self, run_id: str, index: int) -> Journal:
        """The journal of a partition, new or carried on."""
        return Journal(self.journal_path(index), JournalHeader(run_id, index))

    def in_flight_marks(self, slots: int) -> InFlightMarks:
        """The marks of rows being sent, with what an earlier session left in them."""
        return InFlightMarks(self.path / IN_FLIGHT, slots)

    def commit_part(self, index: int, write: Callable[[IO[bytes]], None]) -> None:
        """Make a part exist, whole, and only then forget its journal. Raises what `write_aside` raises."""
        write_aside(self.part_path(index), write)
        self.journal_path(index).unlink(missing_ok=True)

    def leftover_files(self) -> list[Path]:
        """Our own half-written files of a killed process, which nobody will finish."""
        ours = [self.path / (name + STAGED) for name in (MANIFEST, SESSIONS, IN_FLIGHT)]
        staged = self.parts.glob("*.parquet" + STAGED)
        return [path for path in ours if path.exists()] + [
            path for path in staged if _index(path.name.removesuffix(".parquet" + STAGED)) is not None
        ]


def _living_holder(signature: str) -> str:
    """Who holds a lock, by the name in it; a dead process's name stands there until the next one has work to do.

    Not cleared when the lock is taken: looking at a finished run must not change a file.
    """
    found = re.fullmatch(r"process ([0-9]{1,10}) on (.*)", signature.strip())
    if found is None or (found[2] == socket.gethostname() and not _is_alive(int(found[1]))):
        return "another process"
    return found[0]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # no signal, only the question whether one could be sent
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _name(index: int) -> str:
    """A partition in a file's name; more digits where they are needed."""
    return f"{index:0{INDEX_DIGITS}d}"


def _index(name: str) -> int | None:
    """The partition of that name; `None` for what `_name` would not have called so."""
    index = int(name) if re.fullmatch(r"[0-9]{5,18}", name) else None
    return None if index is None or _name(index) != name else index


def _indexes(paths: Iterable[Path]) -> list[int]:
    return sorted(index for path in paths if (index := _index(path.stem)) is not None)


def write_aside(final: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that a reader finds all of it or none of it, whenever the power fails.

    Raises `CheckpointError` when the disk won't take it, and whatever `write` raised; what stood there before then
    still stands.
    """
    staged = final.with_name(final.name + STAGED)
    with _naming(final, "can't be written"):
        try:
            _write_synced(staged, write)
            staged.replace(final)
        except BaseException:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
            raise
        _sync_directory(final.parent)


def _write_synced(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _write(file: IO[bytes], content: bytes) -> None:
    file.write(content)


def _sync_directory(path: Path) -> None:
    """A rename is only durable once its directory is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
