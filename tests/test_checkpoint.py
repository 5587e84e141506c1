"""What survives a crash: journals, locks, marks and files, on a real disk and with processes that are really killed."""

import errno
import fcntl
import io
import mmap
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow.dataset as ds
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cometbatch.errors import CheckpointError, RunLockedError
from cometbatch.run_state.directory import (
    LINE_EXTRA_BYTES,
    Journal,
    JournalHeader,
    RunDirectory,
    Session,
    read_journal,
    write_aside,
)

HEADER = JournalHeader("run-a", 7)
RECORDS = [b'{"row":1}', b"", b"\xff\x00\r not JSON, not text", b'{"row":3,"text":"' + b"x" * 30 + b'"}']
SESSION = Session("2026-05-01T00:00:00+00:00", 42, "here", "0.1.0", resent=3)
records = st.lists(st.binary(max_size=40).map(lambda record: record.replace(b"\n", b"")), max_size=8)


def line_of(record: bytes) -> bytes:
    """A line as the format says: CRC-32 in eight hexadecimal digits, a blank, the record, a line break."""
    return b"%08x " % zlib.crc32(record) + record + b"\n"


def journal_of(path: Path, written: list[bytes]) -> bytes:
    """Write a journal and give back what the file holds."""
    journal = Journal(path, HEADER)
    assert list(journal.replay()) == []
    for record in written:
        journal.append([record])
    journal.close()
    return path.read_bytes()


def replayed(path: Path) -> list[bytes]:
    """What a new session reads."""
    journal = Journal(path, HEADER)
    try:
        return list(journal.replay())
    finally:
        journal.close()


@contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that runs this code, and is dead afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    """The next line that a child says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


# -- the journal -------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(sessions=st.lists(records, max_size=4))
def test_a_journal_gives_back_what_it_was_given_over_any_number_of_sessions(
    tmp_path: Path, sessions: list[list[bytes]]
) -> None:
    """Records of any bytes but a line break come back as they were, in order, session after session."""
    path = tmp_path / "00007.jsonl"
    path.unlink(missing_ok=True)
    written: list[bytes] = []
    for session in sessions:
        journal = Journal(path, HEADER)
        assert list(journal.replay()) == written
        for record in session:
            journal.append([record])
        written += session
        journal.close()
    assert replayed(path) == written
    assert list(read_journal(path)) == written


def test_a_journal_is_lines_that_a_person_can_read(tmp_path: Path) -> None:
    """A checksum, a blank, the record: the format is what the documentation says, byte for byte."""
    content = journal_of(tmp_path / "00007.jsonl", RECORDS)
    first, rest = content.split(b"\n", 1)
    assert first[9:] == b'{"run_id":"run-a","partition":7}'
    assert first + b"\n" == line_of(first[9:])
    assert rest == b"".join(map(line_of, RECORDS))


def test_a_record_is_in_the_file_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    """No buffer of ours stands between an outcome and the operating system: a killed process loses nothing."""
    path = tmp_path / "00007.jsonl"
    journal = Journal(path, HEADER)
    list(journal.replay())
    for count, record in enumerate(RECORDS, start=1):
        journal.append([record])
        assert list(read_journal(path)) == RECORDS[:count]
    journal.close()


TORN = b"".join(map(line_of, [b'{"run_id":"run-a","partition":7}', *RECORDS]))


@pytest.mark.parametrize("length", range(len(TORN) + 1))
def test_a_journal_cut_short_anywhere_loses_only_its_torn_line(tmp_path: Path, length: int) -> None:
    """Whole lines stay, the torn one goes from the file too, and what is appended next is read back."""
    path = tmp_path / "00007.jsonl"
    path.write_bytes(TORN[:length])
    whole = max(0, TORN[:length].count(b"\n") - 1)
    assert list(read_journal(path)) == RECORDS[:whole]
    assert path.read_bytes() == TORN[:length]
    journal = Journal(path, HEADER)
    assert list(journal.replay()) == RECORDS[:whole]
    journal.append([b"next"])
    journal.close()
    assert replayed(path) == [*RECORDS[:whole], b"next"]


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * 4096, b"\0" * 100 + b"\n", b"\n\n\n", b"00000000 {}\n", line_of(b"{}")[:-1], b"\xff" * 17, b" \n"],
    ids=["zeros", "zeros and a line break", "blank lines", "a wrong checksum", "no line break", "noise", "a blank"],
)
def test_garbage_at_the_end_is_cut_off(tmp_path: Path, garbage: bytes) -> None:
    """A power cut may leave zeros or old blocks behind the last whole line; they cost no recorded outcome."""
    path = tmp_path / "00007.jsonl"
    content = journal_of(path, RECORDS)
    path.write_bytes(content + garbage)
    assert list(read_journal(path)) == RECORDS
    assert replayed(path) == RECORDS
    assert path.read_bytes() == content


LINE_BREAKS = [match.start() for match in re.finditer(rb"\n", TORN)]


@pytest.mark.parametrize("position", range(LINE_BREAKS[-2]))
def test_a_flipped_bit_before_the_last_line_is_an_error_that_names_the_line(tmp_path: Path, position: int) -> None:
    """No crash damages a line that others follow: it is reported by file and line, and the file is left as it is."""
    path = tmp_path / "00007.jsonl"
    damaged = bytearray(TORN)
    damaged[position] ^= 0x04
    path.write_bytes(damaged)
    line = 1 + TORN[:position].count(b"\n")
    journal = Journal(path, HEADER)
    for read in (journal.replay, lambda: read_journal(path)):
        with pytest.raises(CheckpointError, match=rf"00007\.jsonl:{line}: .*damaged"):
            list(read())
    journal.close()
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    "header", [JournalHeader("run-b", 7), JournalHeader("run-a", 8)], ids=["another run", "another partition"]
)
def test_a_journal_of_something_else_is_refused_and_left_alone(tmp_path: Path, header: JournalHeader) -> None:
    """Answers of another run or partition are not mixed in; the message says whose they are."""
    path = tmp_path / "00007.jsonl"
    content = journal_of(path, RECORDS)
    journal = Journal(path, header)
    with pytest.raises(CheckpointError, match="belongs to run run-a, partition 7") as refused:
        list(journal.replay())
    journal.close()
    assert str(path) in str(refused.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        b'{"row": 1}\n{"row": 2}\n',
        b"notes\n",
        b"\n",
        line_of(b'{"row":1}'),
        line_of(b"not JSON"),
        line_of(b'{"run_id":1,"partition":"7"}') + line_of(b"{}"),
    ],
)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    """A foreign file in a journal's place is not taken for a torn journal and emptied."""
    path = tmp_path / "00007.jsonl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"00007\.jsonl:1"):
        replayed(path)
    assert path.read_bytes() == content


class Growing(io.RawIOBase):
    """A file that ends after each of its pieces, and goes on when it is read once more."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__()
        self._pieces = [each for piece in pieces for each in (piece, b"")]

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        piece = self._pieces.pop(0) if self._pieces else b""
        into[: len(piece)] = piece
        return len(piece)


def test_a_journal_that_is_being_written_is_read_up_to_the_line_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that was completed while it was read was once taken for damage, with the advice to remove it."""
    path = tmp_path / "00007.jsonl"
    content = journal_of(path, RECORDS)
    cut = content.rindex(b"\n", 0, -1) + 5
    growing = Growing(content[:cut], content[cut:] + line_of(RECORDS[0]))
    monkeypatch.setattr(Path, "open", lambda _path, _mode: io.BufferedReader(growing))
    assert list(read_journal(path)) == RECORDS[:-1]


def test_a_record_is_found_again_by_what_stands_before_it(tmp_path: Path) -> None:
    """In a journal that was begun just now, and in one that was carried on with."""
    path = tmp_path / "00007.jsonl"
    for half in (RECORDS[:2], RECORDS[2:]):
        journal = Journal(path, HEADER)
        known = list(journal.replay())
        journal.append(half)
        offset = 0
        for record in [*known, *half]:
            assert journal.read_again(offset, len(record)) == record
            offset += len(record) + LINE_EXTRA_BYTES
        journal.close()


def test_a_record_that_changed_meanwhile_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    """What is read again is checked again: it becomes the result."""
    path = tmp_path / "00007.jsonl"
    journal = Journal(path, HEADER)
    list(journal.replay())
    journal.append(RECORDS)
    content = path.read_bytes()
    path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    size = len(RECORDS[-1])
    with pytest.raises(CheckpointError, match=r"00007\.jsonl: the line at byte [0-9]+ is damaged"):
        journal.read_again(sum(len(each) + LINE_EXTRA_BYTES for each in RECORDS[:-1]), size)
    journal.close()


def test_a_journal_whose_partition_was_committed_meanwhile_is_empty(tmp_path: Path) -> None:
    """Who looks at a run that goes on may come late: the file is gone, which is no error."""
    assert list(read_journal(tmp_path / "00007.jsonl")) == []


@pytest.mark.parametrize(
    "act", [lambda path: list(read_journal(path)), lambda path: Journal(path, HEADER)], ids=["read", "open"]
)
def test_a_journal_that_cannot_be_opened_is_an_error_that_names_it(
    tmp_path: Path, act: Callable[[Path], object]
) -> None:
    """What the operating system says comes with the file's name and what to do."""
    with pytest.raises(CheckpointError, match=rf"{tmp_path}: .*run the same command again"):
        act(tmp_path)


FILL = """
import resource, signal, sys
from pathlib import Path
from cometbatch.run_state.directory import Journal, JournalHeader
from cometbatch.errors import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]), JournalHeader("run-a", 7))
list(journal.replay())
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
for number in range(100):
    try:
        journal.append([b"%020d" % number])
    except CheckpointError as error:
        print(number, error)
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append([b"after"])
journal.close()
"""


@pytest.mark.parametrize("room", [0, 29, 30, 45])
def test_a_full_disk_is_an_error_and_the_journal_stays_readable(tmp_path: Path, room: int) -> None:
    """A line that fits only in part is taken back, so that neither the file nor a later line is damaged by it."""
    path = tmp_path / "00007.jsonl"
    header_bytes = len(journal_of(path, []))
    with child(FILL, path, header_bytes + 3 * 30 + room) as filling:
        number, message = heard(filling).split(" ", 1)
        assert filling.wait() == 0
    assert int(number) == 3 + room // 30
    assert str(path) in message
    assert "make room" in message
    assert replayed(path) == [*(b"%020d" % row for row in range(int(number))), b"after"]


def test_a_device_that_takes_nothing_is_an_error(tmp_path: Path) -> None:
    """The very first byte can be refused."""
    path = tmp_path / "00007.jsonl"
    path.symlink_to("/dev/full")
    journal = Journal(path, HEADER)
    with pytest.raises(CheckpointError, match=r"00007\.jsonl.*No space left.*make room"):
        journal.append([b"{}"])
    journal.close()


def test_sync_reaches_the_disk_once_for_what_was_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Group commit: one system call for any number of records, none where there is nothing new."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    journal = Journal(tmp_path / "00007.jsonl", HEADER)
    list(journal.replay())
    for _ in range(3):
        journal.append([b"{}"])
    journal.sync()
    journal.sync()
    assert len(synced) == 1
    journal.append([b"{}"])
    journal.sync()
    assert len(synced) == 2
    journal.close()
    journal.sync()
    assert len(synced) == 2


def test_a_disk_that_fails_to_sync_is_an_error_that_names_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may not be on disk must not be taken for recorded."""

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    journal = Journal(tmp_path / "00007.jsonl", HEADER)
    list(journal.replay())
    with pytest.raises(CheckpointError, match=r"00007\.jsonl: can't sync .*Input/output error"):
        journal.sync()
    journal.close()


def test_a_journal_is_not_closed_under_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing and committing run in two threads: closing waits, so that no sync meets a closed file."""
    journal = Journal(tmp_path / "00007.jsonl", HEADER)
    list(journal.replay())
    closing = threading.Thread(target=journal.close)

    def sync_slowly(descriptor: int) -> None:
        closing.start()
        closing.join(0.05)  # real time: whether another thread waits can't be seen otherwise
        os.fstat(descriptor)

    monkeypatch.setattr(os, "fdatasync", sync_slowly)
    journal.sync()
    closing.join()
    with pytest.raises(ValueError, match="closed"):
        journal.append([b"{}"])


# -- files that are whole or absent ------------------------------------------------------------------------------


def test_a_file_written_aside_replaces_the_old_one(tmp_path: Path) -> None:
    """Afterwards there is the new content under that name, and nothing else."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write_aside(path, lambda file: _write(file, b"new"))
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_written_aside_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    """While it is being written a reader finds the old content."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file: IO[bytes]) -> None:
        file.write(b"half")
        file.flush()
        assert path.read_bytes() == b"old"
        file.write(b" and half")

    write_aside(path, write)
    assert path.read_bytes() == b"half and half"


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(28, "No space left on device"), CheckpointError),
        (CheckpointError("a part is damaged"), CheckpointError),
        (ValueError("not from the disk"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, error: BaseException, raised: type[BaseException]
) -> None:
    """Whatever ends it, disk or bug or Ctrl-C: what stood there stands, and no half file stays beside it."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file: IO[bytes]) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(raised):
        write_aside(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_under_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    """The message says which file, and that making room is enough."""
    path = tmp_path / "file"
    (tmp_path / ".file.tmp").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=rf"{path}: .*No space left.*make room"):
        write_aside(path, lambda file: _write(file, b"new"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    """No error of the clean-up hides the one that counts."""
    (tmp_path / "folder").write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"{tmp_path / 'folder' / 'file'}: .*Not a directory"):
        write_aside(tmp_path / "folder" / "file", lambda file: _write(file, b"new"))


def _write(file: IO[bytes], content: bytes) -> None:
    file.write(content)


# -- one writer --------------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from cometbatch.run_state.directory import RunDirectory
directory = RunDirectory(Path(sys.argv[1]))
directory.lock()
directory.sign_lock()
print("locked", flush=True)
sys.stdin.read()
"""

TRY = """
import sys
from pathlib import Path
from cometbatch.run_state.directory import RunDirectory
from cometbatch.errors import RunLockedError
try:
    with RunDirectory(Path(sys.argv[1])):
        print("locked", flush=True)
except RunLockedError as error:
    print(error, flush=True)
"""


def test_a_second_process_is_refused_and_told_who_has_the_run(tmp_path: Path) -> None:
    """Two writers would mix up one run, so the later one ends, naming the other."""
    with child(HOLD, tmp_path / "run") as holder:
        assert heard(holder) == "locked"
        assert RunDirectory(tmp_path / "run").is_locked()
        with child(TRY, tmp_path / "run") as second:
            message = heard(second)
    assert f"process {holder.pid} on " in message
    assert str(tmp_path / "run") in message


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """The lock dies with its process, even by SIGKILL; nobody has to remove a file."""
    with child(HOLD, tmp_path / "run") as holder:
        assert heard(holder) == "locked"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        directory = RunDirectory(tmp_path / "run")
        assert not directory.is_locked()
        with directory:
            assert directory.is_locked()


def test_a_dead_process_is_not_named_as_the_holder(tmp_path: Path) -> None:
    """Before the new holder has signed, the message names nobody rather than the one before it."""
    with child(HOLD, tmp_path / "run") as holder:
        assert heard(holder) == "locked"
    assert refusal(tmp_path / "run").endswith(": another process is carrying out this run. Wait for it, or stop it.")


@pytest.mark.parametrize(
    ("signature", "named"),
    [
        (f"process {os.getpid()} on {socket.gethostname()}\n", f"process {os.getpid()} on {socket.gethostname()}"),
        ("process 1 on elsewhere\n", "process 1 on elsewhere"),
        (f"process 1 on {socket.gethostname()}\n", f"process 1 on {socket.gethostname()}"),
        (f"process 9999999999 on {socket.gethostname()}\n", "another process"),
        ("", "another process"),
        ("who knows\n", "another process"),
    ],
)
def test_a_holder_is_named_where_it_can_be_alive(tmp_path: Path, signature: str, named: str) -> None:
    """A process of this machine can be asked for; one elsewhere is taken at its word; anything else is nobody."""
    (tmp_path / "lock").write_text(signature)
    assert f"{tmp_path}: {named} is carrying out" in refusal(tmp_path)


def test_a_holder_that_belongs_to_somebody_else_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not being allowed to ask is an answer."""

    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    signature = f"process 4711 on {socket.gethostname()}"
    (tmp_path / "lock").write_text(signature)
    assert signature in refusal(tmp_path)


def refusal(path: Path) -> str:
    """What a second writer is told."""
    with RunDirectory(path), pytest.raises(RunLockedError) as refused, RunDirectory(path):
        pass
    return str(refused.value)


def test_a_lock_is_free_after_its_holder_lets_go(tmp_path: Path) -> None:
    """The file stays, since removing it would let two in; the lock does not."""
    directory = RunDirectory(tmp_path / "run")
    for _ in range(2):
        with directory:
            directory.sign_lock()
            assert directory.is_locked()
        directory.unlock()
        assert not directory.is_locked()
    assert (tmp_path / "run" / "lock").exists()


def test_asking_for_a_lock_makes_nothing(tmp_path: Path) -> None:
    """Where there is no run nobody holds it, and looking leaves no trace."""
    directory = RunDirectory(tmp_path / "run")
    directory.sign_lock()
    assert not directory.is_locked()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_had_for_another_reason_is_no_other_process(tmp_path: Path) -> None:
    """A folder that can't be made is the disk's word, not a rival."""
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(OSError, match="File exists"):
        RunDirectory(tmp_path / "run").lock()


def test_a_file_system_without_locks_is_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems have none: that is said as it is, and nothing stays open."""

    def fail(_file: object, _kind: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    directory = RunDirectory(tmp_path)
    with pytest.raises(OSError, match="No locks available"):
        directory.lock()
    assert not directory.is_locked()


# -- rows in flight ----------------------------------------------------------------------------------------------

SEND = """
import os, signal, sys
from pathlib import Path
from cometbatch.run_state.directory import InFlightMarks
marks = InFlightMarks(Path(sys.argv[1]), 4)
first = marks.begin(10, 1, 1, None)
second = marks.begin(11, 1, 1, None)
marks.begin(18446744073709551615, 1, 1, None)
marks.end(first, recorded=True)
marks.begin(12, 1, 1, None)
marks.end(second, recorded=False)
os.kill(os.getpid(), signal.SIGKILL)
"""
LARGEST = 18446744073709551615


def test_marks_outlive_a_killed_process(tmp_path: Path) -> None:
    """What was being sent when the process died is known to the next one, exactly."""
    directory = RunDirectory(tmp_path)
    with child(SEND, tmp_path / "in_flight") as sender:
        assert sender.wait() == -signal.SIGKILL
    marks = directory.in_flight_marks(2)
    assert marks.left_over == {12, LARGEST}
    marks.close()


def test_what_was_left_over_stays_marked_until_it_is_dealt_with(tmp_path: Path) -> None:
    """A session that dies before it has sent the left-over rows again does not forget them."""
    directory = RunDirectory(tmp_path)
    first = directory.in_flight_marks(4)
    for row in range(4):
        first.begin(row, 1, 1, None)
    first.close()
    second = directory.in_flight_marks(2)
    second.begin(99, 1, 1, None)
    second.close()
    third = directory.in_flight_marks(8)
    assert third.left_over == {0, 1, 2, 3, 99}
    third.close()


def test_a_run_that_ends_by_itself_leaves_no_marks(tmp_path: Path) -> None:
    """Everything sent was answered: nothing is counted as sent twice."""
    directory = RunDirectory(tmp_path)
    marks = directory.in_flight_marks(2)
    assert marks.left_over == frozenset()
    marks.end(marks.begin(5, 1, 1, None), recorded=True)
    marks.close()
    again = directory.in_flight_marks(2)
    assert again.left_over == frozenset()
    again.close()


@pytest.mark.parametrize("content", [b"", b"\0" * 42, b"x" * 42, b"9" * 5000, b"-1 \xff 1.5 \n"])
def test_marks_that_cannot_be_read_count_as_none(tmp_path: Path, content: bytes) -> None:
    """Marks only serve a count of rows sent twice: a damaged file must not stop a run."""
    (tmp_path / "in_flight").write_bytes(content)
    marks = RunDirectory(tmp_path).in_flight_marks(2)
    assert marks.left_over == frozenset()
    marks.close()


# -- the run directory -------------------------------------------------------------------------------------------


def run_in(path: Path, parts: Path | None = None) -> RunDirectory:
    """A run with two parts, a journal, and all that goes with them."""
    directory = RunDirectory(path, parts=parts)
    directory.lock()
    directory.create()
    directory.write_manifest(b"{}")
    directory.add_session(SESSION)
    directory.in_flight_marks(2).close()
    for index in (1, 123456):
        directory.commit_part(index, lambda file: _write(file, b"part"))
    journal = directory.open_journal("run-a", 2)
    list(journal.replay())
    journal.close()
    return directory


FOREIGN = ["notes.txt", "answers.parquet", "1.parquet", "000001.parquet", "²²²²².parquet", "-0001.parquet", "a.tmp"]


@pytest.mark.parametrize("is_dataset", [False, True])
def test_clear_forgets_the_run_and_nothing_else(tmp_path: Path, *, is_dataset: bool) -> None:
    """Our files go, half-written ones too; whatever else lies in the folders stays, and the lock stays ours."""
    directory = run_in(tmp_path / "run", tmp_path / "data" if is_dataset else None)
    kept = [folder / name for folder in (directory.path, directory.parts) for name in FOREIGN]
    kept += [directory.path / "journal" / "2.jsonl", directory.path / "journal" / "notes.jsonl"]
    for path in kept:
        path.write_bytes(b"mine")
    (directory.parts / ".00009.parquet.tmp").write_bytes(b"")
    (directory.path / ".manifest.json.tmp").write_bytes(b"")
    directory.clear()
    left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*kept, directory.path / "lock"}
    assert directory.is_locked()
    directory.clear()
    directory.unlock()


def test_a_cleared_run_directory_serves_a_new_run(tmp_path: Path) -> None:
    """After `clear` the directory is as good as new."""
    directory = run_in(tmp_path / "run")
    directory.clear()
    assert directory.read_manifest() is None
    assert directory.sessions() == []
    assert directory.committed() == []
    assert directory.journals() == []
    directory.unlock()
    run_in(tmp_path / "run").unlock()


def test_what_is_committed_is_found_by_looking(tmp_path: Path) -> None:
    """Parts and journals are known by their names alone, in the order of their partitions."""
    directory = run_in(tmp_path / "run")
    for name in FOREIGN:
        (directory.parts / name).write_bytes(b"")
        (directory.path / "journal" / name).with_suffix(".jsonl").write_bytes(b"")
    for index in (0, 99999, 100000):
        directory.part_path(index).write_bytes(b"")
    assert directory.committed() == [0, 1, 99999, 100000, 123456]
    assert directory.journals() == [2]
    directory.unlock()


def test_a_run_directory_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    """Looking makes nothing and raises nothing."""
    directory = RunDirectory(tmp_path / "run")
    assert directory.read_manifest() is None
    assert directory.sessions() == []
    assert (directory.committed(), directory.journals(), directory.leftover_files()) == ([], [], [])
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_exists_has_no_journal(tmp_path: Path) -> None:
    """The journal goes when the part is there, and not before: a commit that fails keeps it."""
    directory = run_in(tmp_path / "run")

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left"):
        directory.commit_part(2, fail)
    assert directory.committed() == [1, 123456]
    assert directory.journals() == [2]
    directory.commit_part(2, lambda file: _write(file, b"part"))
    assert directory.committed() == [1, 2, 123456]
    assert directory.journals() == []
    assert directory.part_path(2).read_bytes() == b"part"
    directory.unlock()


@pytest.mark.parametrize("is_dataset", [False, True])
def test_half_written_files_are_found_and_only_ours(tmp_path: Path, *, is_dataset: bool) -> None:
    """What a killed process had staged is ours to remove; other people's files are not, whatever they end in."""
    directory = run_in(tmp_path / "run", tmp_path / "data" if is_dataset else None)
    staged = [directory.parts / ".00009.parquet.tmp"]
    staged += [directory.path / name for name in (".manifest.json.tmp", ".sessions.jsonl.tmp", ".in_flight.tmp")]
    for path in [*staged, directory.parts / ".x.parquet.tmp", directory.path / "y.tmp", directory.parts / "z.tmp"]:
        path.write_bytes(b"")
    assert sorted(directory.leftover_files()) == sorted(staged)
    directory.unlock()


def test_folders_that_cannot_be_made_are_an_error_that_names_them(tmp_path: Path) -> None:
    """A file in a folder's place is reported before anything is sent."""
    directory = RunDirectory(tmp_path / "run", parts=tmp_path / "data")
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"{tmp_path / 'data'}: .*File exists"):
        directory.create()


def test_a_manifest_is_replaced_whole_and_read_back(tmp_path: Path) -> None:
    """The manifest's bytes come back as they were written, the last ones."""
    directory = RunDirectory(tmp_path)
    directory.write_manifest(b"first")
    directory.write_manifest(b"second \xff")
    assert directory.read_manifest() == b"second \xff"


def test_a_file_where_the_run_directory_should_be_is_no_run(tmp_path: Path) -> None:
    """There is no manifest in a file."""
    (tmp_path / "run").write_bytes(b"")
    assert RunDirectory(tmp_path / "run").read_manifest() is None


UNREADABLE: list[tuple[str, Callable[[RunDirectory], object]]] = [
    ("in_flight", RunDirectory.marks),
    ("in_flight", lambda directory: directory.in_flight_marks(2)),
    ("sessions.jsonl", RunDirectory.sessions),
    ("sessions.jsonl", lambda directory: directory.add_session(SESSION)),
    ("reopened.json", RunDirectory.reopened),
    ("manifest.json", RunDirectory.read_manifest),
    ("journal/00001.jsonl", lambda directory: list(read_journal(directory.journal_path(1)))),
    ("journal/00001.jsonl", lambda directory: directory.open_journal("run-a", 1)),
]


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EISDIR])
@pytest.mark.parametrize(("name", "read"), UNREADABLE)
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, read: Callable[[RunDirectory], object], code: int
) -> None:
    """It is not taken for a missing one, whatever the operating system holds against it."""
    directory = run_in(tmp_path / "run", None)
    path = directory.path / name
    path.write_bytes(b"{}")
    opened = io.open

    def refusing(file: Any, *more: Any, **options: Any) -> Any:
        if Path(file) == path:
            raise OSError(code, os.strerror(code))
        return opened(file, *more, **options)

    monkeypatch.setattr(io, "open", refusing)
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: ")) as refused:
        read(directory)
    assert os.strerror(code) in str(refused.value)
    directory.unlock()


def test_marks_that_cannot_be_mapped_are_an_error_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems map no file."""

    def refusing(*_: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", refusing)
    with pytest.raises(CheckpointError, match=r"in_flight: .*No such device"):
        RunDirectory(tmp_path).in_flight_marks(2)


def test_a_manifest_that_cannot_be_read_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    """Beginning a new run over one that only can't be read would lose it."""
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(CheckpointError, match=r"manifest\.json: .*Is a directory"):
        RunDirectory(tmp_path).read_manifest()


def test_sessions_come_back_in_order(tmp_path: Path) -> None:
    """Every turn at a run is known, with how many rows it sent again."""
    directory = RunDirectory(tmp_path)
    other = Session("2026-05-02T00:00:00+00:00", 43, "there\n", "0.1.1")
    for session in (SESSION, other):
        directory.add_session(session)
    assert directory.sessions() == [SESSION, other]


def test_a_damaged_session_line_is_an_error_that_names_it(tmp_path: Path) -> None:
    """It is not skipped in silence, and it is not a traceback."""
    directory = RunDirectory(tmp_path)
    directory.add_session(SESSION)
    with (tmp_path / "sessions.jsonl").open("ab") as file:
        file.write(b'{"pid":\n')
    with pytest.raises(CheckpointError, match=r"sessions\.jsonl:2: "):
        directory.sessions()


def test_a_session_is_noted_whole_or_not_at_all(tmp_path: Path) -> None:
    """A full disk at that moment leaves the earlier sessions as they were."""
    directory = RunDirectory(tmp_path)
    directory.add_session(SESSION)
    (tmp_path / ".sessions.jsonl.tmp").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="No space left"):
        directory.add_session(SESSION)
    assert directory.sessions() == [SESSION]


def test_what_a_part_writer_gets_is_a_file_like_any_other(tmp_path: Path) -> None:
    """Columnar writers seek and tell; the staged file can do both."""
    directory = run_in(tmp_path / "run")

    def write(file: IO[bytes]) -> None:
        assert file.seekable()
        file.write(b"0123")
        file.seek(1, io.SEEK_SET)
        file.write(b"x")
        assert file.tell() == 2

    directory.commit_part(5, write)
    assert directory.part_path(5).read_bytes() == b"0x23"
    directory.unlock()


def test_a_half_written_part_of_a_data_set_is_not_read_as_data(tmp_path: Path) -> None:
    """Whoever reads the folder while a part is being written finds the whole parts alone."""
    directory = RunDirectory(tmp_path / "run", parts=tmp_path / "data")
    directory.lock()
    directory.create()
    seen: list[list[str]] = []

    def write(file: IO[bytes]) -> None:
        file.write(b"PAR1 half a part")
        seen.append(ds.dataset(tmp_path / "data").files)

    directory.commit_part(0, write)
    directory.unlock()
    assert seen == [[]]
