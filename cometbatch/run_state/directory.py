"""The run directory: what survives a crash, and how it is read back. Never knows what an outcome means.

Guards: a part is whole or absent; an outcome is written before it is reported; one writer at a time. What is
written here is lines and files, and existence is the commit, so recovery is only a matter of looking.
"""

import contextlib
import errno
import fcntl
import io
import itertools
import mmap
import os
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Self, TypeVar

import msgspec
from msgspec import Struct

from cometbatch.errors import CheckpointError, RunLockedError
from cometbatch.records import Tally

T = TypeVar("T")

LOCK_TRIES = 5
LOCK_WAIT_S = 0.02
MANIFEST = "manifest.json"
SESSIONS = "sessions.jsonl"
IN_FLIGHT = "in_flight"
REOPENED = "reopened.json"
STAGED = ".tmp"  # a file that is being written aside ends so, until it is whole and renamed
CHECKSUM_BYTES = 4  # of a CRC-32, in twice as many hexadecimal digits
LINE_EXTRA_BYTES = 2 * CHECKSUM_BYTES + 2  # around a record: checksum in hex, space, line break
MARK_DIGITS = 20  # of the largest row number
MARK_BYTES = MARK_DIGITS + 1  # one in-flight mark: a row number, right-aligned, and a line break
NO_MARK = b" " * MARK_DIGITS + b"\n"
SECTOR_BYTES = 512  # what a disk writes whole or not at all, at least
INDEX_DIGITS = 5  # of a partition in a file's name, at least


class JournalHeader(Struct, frozen=True):
    """The first line of a journal: which run and partition it belongs to."""

    run_id: str
    partition: int


class Session(Struct, frozen=True):
    """One process's turn at a run. `resent`: how many rows it found in flight, for people to read."""

    started_at: str
    pid: int
    host: str
    version: str
    resent: int = 0


class Reopened(Struct, frozen=True):
    """What was opened again after it had been recorded; the rename of this file is what makes it so.

    `journals`: which round's journal counts for a partition; while that journal is there, the partition is open and
    its part is an old one. `unpublished`: the result is still that of before. `replaced`: what was taken back, over all
    rounds.
    """

    rounds: int = 0
    journals: dict[int, int] = msgspec.field(default_factory=dict)
    unpublished: bool = False
    replaced: Tally = Tally()


class Journal:
    """The outcomes of one open partition, one checksummed line each, appended with unbuffered writes.

    A line handed to the operating system survives the death of the process; `sync` makes it survive a power cut.
    """

    def __init__(self, path: Path, header: JournalHeader) -> None:
        self.path = path
        self._header = header
        with _naming(path, "can't open the journal"):
            self._file = path.open("a+b", buffering=0)
            self._whole_bytes = os.fstat(self._file.fileno()).st_size
        self._header_bytes = 0  # of its line, once it is known
        # A killed process may have written what it never synced.
        self._dirty = self._whole_bytes > 0
        self._syncing = threading.Lock()

    def replay(self) -> Iterator[bytes]:
        """The records so far, oldest first. After the last one, a torn end is cut off; an empty file gets its header.

        Raises `CheckpointError` where an unreadable line has readable ones after it, which no crash explains, where
        the journal is another run's, or where the disk fails.
        """
        with _naming(self.path, "can't read the journal"), self.path.open("rb") as file:
            lines = _Lines(file, self.path)
            for number, record in enumerate(lines):
                if number:
                    yield record
                else:
                    self._check_header(record)
                    self._header_bytes = len(record) + LINE_EXTRA_BYTES
        self._whole_bytes = lines.whole_bytes
        with _naming(self.path, "can't write the journal"):
            if self._whole_bytes < os.fstat(self._file.fileno()).st_size:
                self._file.truncate(self._whole_bytes)
        if not self._whole_bytes:
            self._header_bytes = self.append([msgspec.json.encode(self._header)])

    def read_again(self, offset: int, size: int) -> bytes:
        """One record: `offset` is how many bytes the records before it take, `LINE_EXTRA_BYTES` for each included.

        Raises `CheckpointError` where it is not what was written, or the disk fails.
        """
        with _naming(self.path, "can't read the journal"):
            line = os.pread(self._file.fileno(), size + LINE_EXTRA_BYTES, self._header_bytes + offset)
        record = _checked(line)
        if record is None:
            raise CheckpointError(
                f"{self.path}: the line at byte {self._header_bytes + offset} is damaged. Restore the file from a "
                "copy, or remove the line to send its row again."
            )
        return record

    def append(self, records: Sequence[bytes]) -> int:
        """Write records (no line break inside) and return how many bytes they take.

        Raises `CheckpointError` when the disk won't take all of them; those before the first that it won't are written.
        """
        lines = b"".join(map(_line, records))
        try:
            written = self._file.write(lines)
        except OSError:
            self._cut_off()
            with _naming(self.path, "can't write the journal"):
                raise
        if written != len(lines):
            self._whole_bytes += lines.rfind(b"\n", 0, written) + 1
            self._dirty = True
            self._cut_off()
            raise CheckpointError(f"{self.path}: can't write the journal (the disk is full). {WAY_ON}")
        self._whole_bytes += written
        self._dirty = True
        return written

    def sync(self) -> None:
        """Make what was appended survive a power cut; no work if nothing was. Any thread may call this."""
        with self._syncing, _naming(self.path, "can't sync the journal"):
            if self._dirty and not self._file.closed:
                self._dirty = False
                _sync_data(self._file.fileno())

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


def _content(path: Path, absent: T) -> bytes | T:
    """A file's bytes, or `absent` where there is no such file: one that can't be read is no file that is not there."""
    with _naming(path, "can't be read"):
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return absent


def read_journal(path: Path) -> Iterator[bytes]:
    """The records of a journal that another process may be writing, without changing it; the header left out.

    None where there is no file: its partition was committed meanwhile. Raises `CheckpointError` where it can't be read,
    or holds a damaged line before readable ones.
    """
    with _naming(path, "can't be read"):
        try:
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return
        with file:
            yield from itertools.islice(_Lines(file, path), 1, None)


class _Lines:
    """The records of a journal's whole lines, one by one: answers can be long. What follows them is a torn end.

    `whole_bytes`: how many bytes they take, so far.
    """

    def __init__(self, file: Iterable[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self.whole_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        first, torn_at = b"", 0
        for number, line in enumerate(self._file, start=1):
            first = first or line
            record = _checked(line)
            if record is None:
                if not line.endswith(b"\n"):
                    break  # the end, at which somebody may be writing: to read on would find the rest of this very line
                if not torn_at and _has_hole(line, self.whole_bytes):
                    break
                torn_at = torn_at or number
            elif torn_at:
                raise CheckpointError(
                    f"{self._path}:{torn_at}: this line is damaged (its checksum differs) and lines after it are not, "
                    "so it is no torn end. Restore the file from a copy, or remove the line to send its row again."
                )
            else:
                self.whole_bytes += len(line)
                yield record
        if not self.whole_bytes and first.endswith(b"\n") and not (first.startswith(b"\0") and _has_hole(first, 0)):
            raise CheckpointError(
                f"{self._path}:1: this is no journal that cometbatch wrote. Move it away and run again."
            )


def _has_hole(line: bytes, start: int) -> bool:
    """Whether zeros up to the end of a sector stand in the line that starts there, where no line has any.

    That is what a power cut leaves of a sector that had not reached the disk when the next one had: nothing from here
    on was ever synced, so it is a torn end, whatever follows.
    """
    zeros = line.find(b"\0")
    sector_end = zeros + SECTOR_BYTES - (start + zeros) % SECTOR_BYTES
    return zeros >= 0 and not line[zeros:sector_end].strip(b"\0")


def _line(record: bytes) -> bytes:
    return b"%08x %b\n" % (zlib.crc32(record), record)


def _checked(line: bytes) -> bytes | None:
    record = line[2 * CHECKSUM_BYTES + 1 : -1]
    return record if line == _line(record) else None


class InFlightMarks:
    """Which rows are being sent right now, in a small mapped file that outlives a killed process.

    A mark costs a memory write, not a system call. What is still marked when a run carries on was sent and has no
    recorded answer: it is sent again, and may be billed twice.

    Raises `CheckpointError` where the file can't be read or made anew.
    """

    def __init__(self, path: Path, slots: int) -> None:
        self.left_over = _read_marks(path)
        # What was left over stays marked, behind the slots in use, should this session die before it is answered.
        marks = [None] * slots + sorted(self.left_over)
        write_aside(path, lambda file: _write(file, b"".join(map(_mark, marks))))
        with _naming(path, "can't be mapped into memory"), path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), len(marks) * MARK_BYTES)
        self._free = list(range(slots))

    def begin(self, ordinal: int, ask: int, attempt: int, amount: Decimal | None) -> int:  # noqa: ARG002
        """Note that a call is being sent; returns its cell."""
        cell = self._free.pop()
        self._map[cell * MARK_BYTES : (cell + 1) * MARK_BYTES] = _mark(ordinal)
        return cell

    def end(self, cell: int, *, recorded: bool) -> None:  # noqa: ARG002
        """Note that what was sent has been dealt with."""
        self._map[cell * MARK_BYTES : (cell + 1) * MARK_BYTES] = NO_MARK
        self._free.append(cell)

    def close(self) -> None:
        """Release the mapping; the marks stay in the file."""
        self._map.close()


def _mark(row: int | None) -> bytes:
    return NO_MARK if row is None else b"%*d\n" % (MARK_DIGITS, row)


def _read_marks(path: Path) -> frozenset[int]:
    words = _content(path, b"").split()
    return frozenset(int(word) for word in words if word.isdigit() and len(word) <= MARK_DIGITS)


def _read_reopened(path: Path) -> Reopened:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Reopened)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # the latter is msgspec's too
        raise CheckpointError(
            f"{path}: this file is damaged ({error}). Restore it from a copy, or start over with --fresh."
        ) from error


class RunDirectory:
    """`<output>.run/`: manifest, lock, journals of open partitions and, unless the output is a data set, the parts."""

    def __init__(self, path: Path, *, parts: Path | None = None) -> None:
        self.path = path
        self.parts = parts or path / "parts"
        self.is_dataset = parts is not None
        self._lock: io.FileIO | None = None
        self._reopened = Reopened()
        self._reopened_version: tuple[int, int, int] | None = None

    def lock(self) -> None:
        """Become the one writer. Raises `RunLockedError` with who holds it; a dead process holds nothing.

        Raises `OSError` where the directory can't be made or the file system has no locks.
        """
        _make_durable(self.path)
        file = (self.path / "lock").open("a+b", buffering=0)
        try:
            _flock_patiently(file)
        except BlockingIOError as error:
            file.seek(0)
            holder = _living_holder((file.read() or b"").decode(errors="replace"))
            file.close()
            raise RunLockedError(f"{self.path}: {holder} is carrying out this run. Wait for it, or stop it.") from error
        except OSError:
            file.close()
            raise
        self._lock = file

    def sign_lock(self) -> None:
        """Write who we are into the lock, for the message that a second process gets; a full disk may lack it."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._lock.truncate(0)
                self._lock.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())

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
        """Make the folders of a run, where they are missing. Raises `CheckpointError` where they can't be made."""
        for folder in (self.parts, self.path / "journal"):
            with _naming(folder, "this folder can't be made"):
                _make_durable(folder)

    def clear(self) -> None:
        """Forget the run, answers included, and nothing that is not ours; the lock stays ours.

        The manifest goes first: from then on there is no run, so that a crash half-way leaves nothing to carry on.
        When this returns, all of it is gone for good: what a power cut brought back would stand in the next run's way.
        """
        remove(self.path / MANIFEST)
        _sync(self.path)
        for name in (REOPENED, SESSIONS, IN_FLIGHT):
            remove(self.path / name)
        for path in self.leftover_files():
            remove(path)
        for index in self.journals():
            remove(self.journal_path(index))
        for index in self.committed():
            remove(self.part_path(index))
        for folder in (self.path, self.path / "journal", self.parts):
            if folder.is_dir():
                _sync(folder)

    def read_manifest(self) -> bytes | None:
        """The manifest's bytes, or `None` where no run was begun. Raises `CheckpointError` where it can't be read."""
        return _content(self.path / MANIFEST, None)

    def write_manifest(self, content: bytes) -> None:
        """Write the manifest whole; from then on the run exists."""
        write_aside(self.path / MANIFEST, lambda file: _write(file, content))

    def sessions(self) -> list[Session]:
        """Every process's turn at this run so far, oldest first.

        Raises `CheckpointError` where a line is damaged, or the file can't be read.
        """
        return [self._session(number, line) for number, line in enumerate(self._session_lines(), start=1)]

    def add_session(self, session: Session) -> None:
        """Note a turn at this run. Raises `CheckpointError` when the disk won't take it, or give what it has."""
        lines = [*self._session_lines(), msgspec.json.encode(session)]
        write_aside(self.path / SESSIONS, lambda file: _write(file, b"".join(line + b"\n" for line in lines)))

    def _session_lines(self) -> list[bytes]:
        return _content(self.path / SESSIONS, b"").splitlines()

    def _session(self, number: int, line: bytes) -> Session:
        try:
            return msgspec.json.decode(line, type=Session)
        except msgspec.MsgspecError as error:
            raise CheckpointError(
                f"{self.path / SESSIONS}:{number}: this line is damaged. Remove it: it only counts sessions."
            ) from error

    def committed(self) -> list[int]:
        """The partitions that have their part, ascending, and are not open again; other names are nobody's."""
        open_again = self._open_again()
        return [index for index in _indexes(_entries(self.parts), ".parquet") if index not in open_again]

    def journals(self) -> list[int]:
        """The partitions that have a journal, ascending; files with other names are nobody's."""
        superseded = self.reopened().journals.keys()
        first = {index for index in _indexes(_entries(self.path / "journal"), ".jsonl") if index not in superseded}
        return sorted(first | self._open_again())

    def part_path(self, index: int) -> Path:
        """Where the part of a partition is, or will be."""
        return self.parts / f"{_name(index)}.parquet"

    def journal_path(self, index: int) -> Path:
        """Where the journal of an open partition is."""
        return self._journal_path(index, self.reopened().journals.get(index, 0))

    def _journal_path(self, index: int, this_round: int) -> Path:
        again = f".retry{this_round}" if this_round else ""
        return self.path / "journal" / f"{_name(index)}{again}.jsonl"

    def _open_again(self) -> set[int]:
        rounds = self.reopened().journals
        journals = set(_entries(self.path / "journal")) if rounds else set[str]()
        return {index for index, this_round in rounds.items() if self._journal_path(index, this_round).name in journals}

    def reopened(self) -> Reopened:
        """What was opened again. Raises `CheckpointError` where the note of it is damaged.

        Asked for each partition, so it is read only when it was replaced, which gives it another inode.
        """
        path = self.path / REOPENED
        with _naming(path, "can't be read"):
            try:
                file = path.stat()
                version = (file.st_ino, file.st_mtime_ns, file.st_size)
                if version != self._reopened_version:
                    self._reopened, self._reopened_version = _read_reopened(path), version
            except (FileNotFoundError, NotADirectoryError):
                return Reopened()
        return self._reopened

    def write_reopened(self, reopened: Reopened) -> None:
        """Replace the note of what was opened again: from then on its journals count."""
        write_aside(self.path / REOPENED, lambda file: _write(file, msgspec.json.encode(reopened)))

    def write_journal(self, run_id: str, index: int, this_round: int, records: Iterable[bytes]) -> None:
        """Write a whole journal, which counts for nothing until `write_reopened` names its round.

        Each record is written before the next is asked for. Raises `CheckpointError` where the disk won't take it, and
        whatever `records` raised; then there is no such journal.
        """
        lines = map(_line, itertools.chain([msgspec.json.encode(JournalHeader(run_id, index))], records))
        write_aside(self._journal_path(index, this_round), lambda file: file.writelines(lines))

    def marks(self) -> frozenset[int]:
        """The rows that are marked as in flight. Raises `CheckpointError` where that can't be read."""
        return _read_marks(self.path / IN_FLIGHT)

    def write_marks(self, rows: Iterable[int]) -> None:
        """Mark just these rows as in flight."""
        write_aside(self.path / IN_FLIGHT, lambda file: _write(file, b"".join(map(_mark, rows))))

    def open_journal(self, run_id: str, index: int) -> Journal:
        """The journal of a partition, new or carried on."""
        journal = Journal(self.journal_path(index), JournalHeader(run_id, index))
        try:
            _sync(journal.path.parent)  # else a power cut may take a new journal with all that was synced into it
        except CheckpointError:
            journal.close()
            raise
        return journal

    def in_flight_marks(self, slots: int) -> InFlightMarks:
        """The marks of rows being sent, with what an earlier session left in them."""
        return InFlightMarks(self.path / IN_FLIGHT, slots)

    def commit_part(self, index: int, write: Callable[[IO[bytes]], None]) -> None:
        """Make a part exist, whole, and only then forget its journal. Raises what `write_aside` raises."""
        journal = self.journal_path(index)
        if index in self.reopened().journals:
            _sync(journal)  # until its removal is on the disk, it counts and the part does not: it must be whole
        write_aside(self.part_path(index), write)
        remove(journal)

    def leftover_files(self) -> list[Path]:
        """Our own files of a killed process that nobody will finish, and journals that do not count any more."""
        ours = {_staged(self.path / name).name for name in (MANIFEST, REOPENED, SESSIONS, IN_FLIGHT)}
        return [
            *(self.path / name for name in _entries(self.path) if name in ours),
            *(self.parts / name for name in _entries(self.parts) if _is_staged_part(name)),
            *self._superseded_journals(),
        ]

    def _superseded_journals(self) -> Iterator[Path]:
        """Journals of a round that does not count: before a partition was opened again, or prepared and never named."""
        rounds, folder = self.reopened().journals, self.path / "journal"
        for name in _entries(folder):
            found = re.fullmatch(r"\.?([0-9]+)(?:\.retry[0-9]+)?\.jsonl(?:" + re.escape(STAGED) + ")?", name)
            index = None if found is None else _index(found[1])
            if index is not None and folder / name != self._journal_path(index, rounds.get(index, 0)):
                yield folder / name


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


def _indexes(names: Iterable[str], ending: str) -> list[int]:
    stems = (name.removesuffix(ending) for name in names if name.endswith(ending))
    return sorted(index for stem in stems if (index := _index(stem)) is not None)


def _is_staged_part(name: str) -> bool:
    found = re.fullmatch(r"\.([0-9]+)\.parquet" + re.escape(STAGED), name)
    return found is not None and _index(found[1]) is not None


def _entries(folder: Path) -> list[str]:
    """The names in a folder, sorted; none where there is no folder.

    Not `Path.glob`, which takes a folder that can't be read for an empty one: its rows would be sent, and paid, again.
    Nor paths, of which those of ten million rows would take megabytes.
    """
    with _naming(folder, "this folder can't be read"):
        try:
            return sorted(path.name for path in folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def write_aside(final: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that a reader finds all of it or none of it, whenever the power fails.

    Raises `CheckpointError` when the disk won't take it, and whatever `write` raised; what stood there before then
    still stands.
    """
    staged = _staged(final)
    with _naming(final, "can't be written"):
        try:
            _write_synced(staged, write)
            staged.replace(final)
        except BaseException:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
            raise
        _sync(final.parent)


def _staged(final: Path) -> Path:
    """Where a file is written until it is whole: readers of a folder of tables pass over names that begin so."""
    return final.with_name("." + final.name + STAGED)


def _write_synced(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _write(file: IO[bytes], content: bytes) -> None:
    file.write(content)


def _sync_data(descriptor: int) -> None:
    """Make what was written to a file durable; macOS has no fdatasync."""
    sync = getattr(os, "fdatasync", os.fsync)
    sync(descriptor)


def _flock_patiently(file: io.FileIO) -> None:
    """Take the lock; whoever only looks whether it is taken holds it for a moment. Raises `BlockingIOError`."""
    for _ in range(LOCK_TRIES - 1):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(LOCK_WAIT_S)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _make_durable(folder: Path) -> None:
    """Make a folder, and those above it that are missing, so that a power cut takes none of them and what is inside."""
    if not folder.is_dir():
        _make_durable(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    """Make a file's content survive a power cut, or a directory's: a rename is only durable once its directory is.

    Raises `CheckpointError` where the disk fails.
    """
    with _naming(path, "can't be synced"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file of ours, should it be there. Raises `CheckpointError` where the disk won't have it."""
    with _naming(path, "can't be removed"):
        path.unlink(missing_ok=True)
