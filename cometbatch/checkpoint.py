"""The run directory: what survives a crash, and how it is read back. Never knows what an outcome means.

Guards: a part is whole or absent; an outcome is written before it is reported; one writer at a time. What is
written here is lines and files, and existence is the commit, so recovery is only a matter of looking.
"""

import fcntl
import io
import mmap
import os
import shutil
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

import msgspec
from msgspec import Struct

from cometbatch.errors import CheckpointError, RunLockedError

MANIFEST = "manifest.json"
SESSIONS = "sessions.jsonl"
CHECKSUM_DIGITS = 8
MARK_BYTES = 21  # one in-flight mark: a row number of up to 20 digits, right-aligned, and a line break


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
        self._file = path.open("a+b", buffering=0)
        self._dirty = False

    def replay(self) -> list[bytes]:
        """The records so far, oldest first. A torn end is cut off.

        Raises `CheckpointError` where an unreadable line has readable ones after it, which no crash explains, or
        where the journal is another run's.
        """
        self._file.seek(0)
        content = self._file.readall() or b""
        records, whole_bytes = _read_lines(content, self.path)
        if whole_bytes < len(content):
            self._file.truncate(whole_bytes)
        if not records:
            self.append(msgspec.json.encode(self._header))
            return []
        self._check_header(records[0])
        return records[1:]

    def append(self, record: bytes) -> None:
        """Write one record (no line break inside). Raises `CheckpointError` when the disk won't take it."""
        line = b"%0*x %s\n" % (CHECKSUM_DIGITS, zlib.crc32(record), record)
        try:
            written = self._file.write(line)
        except OSError as error:
            raise CheckpointError(f"{self.path}: can't write the journal ({error.strerror}). {WAY_ON}") from error
        if written != len(line):
            raise CheckpointError(f"{self.path}: can't write the journal (the disk is full). {WAY_ON}")
        self._dirty = True

    def sync(self) -> None:
        """Make what was appended survive a power cut; no work if nothing was."""
        if self._dirty and not self._file.closed:
            self._dirty = False
            os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Close the file; it stays for the next session."""
        self._file.close()

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


def read_journal(path: Path) -> list[bytes]:
    """The records of a journal that another process may be writing, without changing it; the header left out."""
    try:
        records, _ = _read_lines(path.read_bytes(), path)
    except FileNotFoundError:  # its partition was committed meanwhile
        return []
    return records[1:]


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
        with path.open("w+b") as file:
            file.write(b"".join(map(_mark, marks)))
            file.flush()
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
    return b"%20s\n" % (b"" if row is None else b"%d" % row)


def _read_marks(path: Path) -> frozenset[int]:
    if not path.exists():
        return frozenset()
    words = path.read_bytes().split()
    return frozenset(int(word) for word in words if word.isdigit())


class RunDirectory:
    """`<output>.run/`: manifest, lock, journals of open partitions and, unless the output is a data set, the parts."""

    def __init__(self, path: Path, *, parts: Path | None = None) -> None:
        self.path = path
        self.parts = parts or path / "parts"
        self._lock: IO[str] | None = None

    def lock(self) -> None:
        """Become the one writer. Raises `RunLockedError` with who holds it; a dead process holds nothing."""
        self.path.mkdir(parents=True, exist_ok=True)
        file = (self.path / "lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise RunLockedError(f"{self.path}: {holder} is carrying out this run. Wait for it, or stop it.") from error
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
        """Make the folders of a new run."""
        self.parts.mkdir(parents=True, exist_ok=True)
        (self.path / "journal").mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Forget the run, answers included; the lock stays ours."""
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()
        for part in self.parts.glob("*.parquet"):
            part.unlink()

    def read_manifest(self) -> bytes | None:
        """The manifest's bytes, or `None` where no run was begun."""
        try:
            return (self.path / MANIFEST).read_bytes()
        except FileNotFoundError:
            return None

    def write_manifest(self, content: bytes) -> None:
        """Write the manifest whole; from then on the run exists."""
        write_aside(self.path / MANIFEST, lambda file: _write(file, content))

    def sessions(self) -> list[Session]:
        """Every process's turn at this run so far, oldest first; a torn last line is left out."""
        try:
            lines = (self.path / SESSIONS).read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        return [msgspec.json.decode(line, type=Session) for line in lines]

    def add_session(self, session: Session) -> None:
        """Note a turn at this run."""
        with (self.path / SESSIONS).open("ab") as file:
            file.write(msgspec.json.encode(session) + b"\n")

    def committed(self) -> list[int]:
        """The partitions that have their part, ascending."""
        return sorted(int(path.stem) for path in self.parts.glob("*.parquet") if path.stem.isdigit())

    def journals(self) -> list[int]:
        """The partitions that have a journal, ascending."""
        return sorted(int(path.stem) for path in self.path.glob("journal/*.jsonl"))

    def part_path(self, index: int) -> Path:
        """Where the part of a partition is, or will be."""
        return self.parts / f"{index:05d}.parquet"

    def journal_path(self, index: int) -> Path:
        """Where the journal of an open partition is."""
        return self.path / "journal" / f"{index:05d}.jsonl"

    def open_journal(self, run_id: str, index: int) -> Journal:
        """The journal of a partition, new or carried on."""
        return Journal(self.journal_path(index), JournalHeader(run_id, index))

    def in_flight_marks(self, slots: int) -> InFlightMarks:
        """The marks of rows being sent, with what an earlier session left in them."""
        return InFlightMarks(self.path / "in_flight", slots)

    def commit_part(self, index: int, write: Callable[[IO[bytes]], None]) -> None:
        """Make a part exist, whole, and only then forget its journal."""
        write_aside(self.part_path(index), write)
        self.journal_path(index).unlink(missing_ok=True)

    def leftover_files(self) -> Iterator[Path]:
        """Half-written files of a killed process, which nobody will finish."""
        yield from self.path.glob("**/*.tmp")
        if not self.parts.is_relative_to(self.path):
            yield from self.parts.glob("*.tmp")


def write_aside(final: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that a reader finds all of it or none of it, whenever the power fails.

    Raises `CheckpointError` when the disk won't take it; what stood there before then still stands.
    """
    staged = final.with_name(final.name + ".tmp")
    try:
        with staged.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(final)
        _sync_directory(final.parent)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise CheckpointError(f"{final}: can't be written ({error.strerror or error}). {WAY_ON}") from error


def _write(file: IO[bytes], content: bytes) -> None:
    file.write(content)


def _sync_directory(path: Path) -> None:
    """A rename is only durable once its directory is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
