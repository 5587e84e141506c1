"""Files that are whole or absent, and one writer, on a real disk and with processes that are really killed."""

import errno
import fcntl
import io
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from cometbatch.errors import CheckpointError, RunLockedError
from cometbatch.store import local
from cometbatch.store.local import Lock, write_aside
from tests.child_process import child, heard, told

# -- files that are whole or absent ------------------------------------------------------------------------------


def _write(file: IO[bytes], content: bytes) -> None:
    file.write(content)


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


def test_a_file_written_aside_is_a_file_like_any_other(tmp_path: Path) -> None:
    """Columnar writers seek and tell; the staged file can do both."""
    path = tmp_path / "file"

    def write(file: IO[bytes]) -> None:
        assert file.seekable()
        file.write(b"0123")
        file.seek(1, io.SEEK_SET)
        file.write(b"x")
        assert file.tell() == 2

    write_aside(path, write)
    assert path.read_bytes() == b"0x23"


def test_a_file_is_synced_before_it_gets_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another order a power cut could leave a name without content, or take both."""
    path, steps = tmp_path / "file", list[str]()

    def noted(descriptor: int) -> None:
        steps.append(f"{os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}'))} {path.exists()}")  # noqa: PTH115, PTH119

    monkeypatch.setattr(os, "fsync", noted)
    local.write_bytes(path, b"new")
    assert steps == [".file.tmp False", f"{tmp_path.name} True"]


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
        local.write_bytes(path, b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    """No error of the clean-up hides the one that counts."""
    (tmp_path / "folder").write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"{tmp_path / 'folder' / 'file'}: .*Not a directory"):
        local.write_bytes(tmp_path / "folder" / "file", b"new")


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EISDIR])
def test_a_file_that_cannot_be_read_is_not_taken_for_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The error names the file and says what the operating system said, whatever it holds against it."""
    path = tmp_path / "file"

    def refusing(*_: Any, **_options: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(io, "open", refusing)
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: ")) as refused:
        local.content(path, None)
    assert os.strerror(code) in str(refused.value)


def test_what_is_not_there_is_told_from_what_cannot_be_read(tmp_path: Path) -> None:
    """A missing file is `absent`, a missing folder is empty; a file in a folder's place is neither's error."""
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "none", tmp_path / "file" / "none"):
        assert local.content(path, None) is None
        assert local.entries(path) == []
    with pytest.raises(CheckpointError, match=rf"{tmp_path}: .*Is a directory.*run the same command again"):
        local.content(tmp_path, None)


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows would be sent, and paid, again."""

    def refusing(_path: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "listdir", refusing)
    with pytest.raises(CheckpointError, match=rf"{tmp_path}: .*Permission denied"):
        local.entries(tmp_path)


def test_removing_what_is_gone_is_no_error_and_what_stays_is(tmp_path: Path) -> None:
    """What the disk refuses to remove would come back as a surprise."""
    local.remove(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=rf"{tmp_path / 'folder'}: can't be removed"):
        local.remove(tmp_path / "folder")


def test_folders_are_made_one_by_one_and_each_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut takes none of them: each folder's parent is synced once the folder is in it."""
    synced: list[Path] = []
    monkeypatch.setattr(local, "sync", synced.append)
    local.make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]
    local.make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2


# -- one writer --------------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from cometbatch.store.local import Lock
lock = Lock(Path(sys.argv[1]), holder_of="this job")
lock.acquire()
lock.sign()
print("locked", flush=True)
sys.stdin.read()
"""

TRY = """
import sys
from pathlib import Path
from cometbatch.errors import RunLockedError
from cometbatch.store.local import Lock
lock = Lock(Path(sys.argv[1]), holder_of="this job")
try:
    lock.acquire()
    print("locked", flush=True)
except RunLockedError as error:
    print(error, flush=True)
"""


def lock_in(folder: Path) -> Lock:
    """The lock of a folder."""
    return Lock(folder / "lock", holder_of="this job")


def second(folder: Path) -> str:
    """What a second process is told that wants this lock now."""
    with child(TRY, folder / "lock") as process:
        return heard(process)


def test_a_second_process_is_refused_and_told_who_has_the_run(tmp_path: Path) -> None:
    """Two writers would mix up one run, so the later one ends, naming the other."""
    with child(HOLD, tmp_path / "run" / "lock") as holder:
        assert heard(holder) == "locked"
        assert lock_in(tmp_path / "run").is_held()
        message = second(tmp_path / "run")
    assert f"process {holder.pid} on " in message
    assert str(tmp_path / "run") in message


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """The lock dies with its process, even by SIGKILL; nobody has to remove a file."""
    with child(HOLD, tmp_path / "lock") as holder:
        assert heard(holder) == "locked"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        lock = lock_in(tmp_path)
        assert not lock.is_held()
        lock.acquire()
        assert lock.is_held()
        lock.release()


def test_a_dead_process_is_not_named_as_the_holder(tmp_path: Path) -> None:
    """Before the new holder has signed, the message names nobody rather than the one before it."""
    with child(HOLD, tmp_path / "lock") as holder:
        assert heard(holder) == "locked"
    assert refusal(tmp_path).endswith(": another process is running this job. Wait for it, or stop it.")


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
    ids=["this process", "of another machine", "the first process", "no such process", "empty", "other words"],
)
def test_a_holder_is_named_where_it_can_be_alive(tmp_path: Path, signature: str, named: str) -> None:
    """A process of this machine can be asked for; one elsewhere is taken at its word; anything else is nobody."""
    (tmp_path / "lock").write_text(signature)
    assert f"{tmp_path}: {named} is running" in refusal(tmp_path)


def test_a_holder_that_belongs_to_somebody_else_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not being allowed to ask is an answer."""

    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    signature = f"process 4711 on {socket.gethostname()}"
    (tmp_path / "lock").write_text(signature)
    assert signature in refusal(tmp_path)


def refusal(folder: Path) -> str:
    """What a second writer is told."""
    lock = lock_in(folder)
    lock.acquire()
    try:
        with pytest.raises(RunLockedError) as refused:
            lock_in(folder).acquire()
    finally:
        lock.release()
    return str(refused.value)


def test_a_lock_is_free_after_its_holder_lets_go(tmp_path: Path) -> None:
    """The file stays, since removing it would let two in; the lock does not."""
    lock = lock_in(tmp_path / "run")
    for _ in range(2):
        lock.acquire()
        lock.sign()
        assert lock.is_held()
        lock.release()
        assert not lock.is_held()
    assert (tmp_path / "run" / "lock").exists()


def test_asking_for_a_lock_makes_nothing(tmp_path: Path) -> None:
    """Where there is no run nobody holds it, and looking leaves no trace."""
    lock = lock_in(tmp_path / "run")
    lock.sign()
    assert not lock.is_held()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_had_for_another_reason_is_no_other_process(tmp_path: Path) -> None:
    """A folder that can't be made is the disk's word, not a rival."""
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(OSError, match="File exists"):
        lock_in(tmp_path / "run").acquire()


def test_a_file_system_without_locks_is_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems have none: that is said as it is, and nothing stays open."""

    def fail(_file: object, _kind: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    lock = lock_in(tmp_path)
    with pytest.raises(OSError, match="No locks available"):
        lock.acquire()
    assert not lock.is_held()


# -- the lock outlives every thread that writes --------------------------------------------------------------------

WRITE = """
import sys
from pathlib import Path
from cometbatch.store.local import Lock
lock = Lock(Path(sys.argv[1]), holder_of="this job")
lock.acquire()

def write():
    while not thread._shutdown:  # until the main thread waits for this one
        pass
    print("writing", flush=True)
    sys.stdin.readline()
    Path(sys.argv[2]).write_bytes(b"whole")

thread = lock.thread()
thread.submit(write)
waiting = thread.submit(Path(sys.argv[2]).unlink)
try:
    lock.release()
    print("released", waiting.cancelled(), flush=True)
except KeyboardInterrupt:
    print("interrupted", waiting.cancelled(), flush=True)
sys.stdin.readline()
"""


def wait_as_one_that_waits_in_release(process: Any) -> None:
    """Until the main thread of a child waits for a lock of another thread: the kernel tells what it sleeps on."""
    while "futex" not in Path(f"/proc/{process.pid}/wchan").read_text():
        pass


@pytest.mark.parametrize("interrupts", [0, 1, 3])
def test_a_lock_is_held_until_a_write_under_way_has_ended(tmp_path: Path, interrupts: int) -> None:
    """A second process is refused meanwhile, also where a person presses Ctrl-C; what has not begun never begins."""
    with child(WRITE, tmp_path / "lock", tmp_path / "file") as writer:
        assert heard(writer) == "writing"
        for _ in range(interrupts):
            wait_as_one_that_waits_in_release(writer)
            writer.send_signal(signal.SIGINT)
        assert "is running this job" in second(tmp_path)
        assert not (tmp_path / "file").exists()
        told(writer, "write it")
        assert heard(writer) == ("interrupted True" if interrupts else "released True")
        assert (tmp_path / "file").read_bytes() == b"whole"
        assert second(tmp_path) == "locked"


UNREADABLE: list[tuple[str, Callable[[Path], object]]] = [
    ("synced", local.sync),
    ("written", lambda path: local.write_bytes(path / "file", b"")),
]


@pytest.mark.parametrize(("word", "act"), UNREADABLE)
def test_a_disk_that_fails_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, act: Callable[[Path], object]
) -> None:
    """What may not be on the disk must not be taken for recorded."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CheckpointError, match=rf"{tmp_path}.*: can't be {word} .*Input/output error"):
        act(tmp_path)


# -- a note in the lock ------------------------------------------------------------------------------------------------


def test_a_note_in_the_lock_outlives_its_writer_and_signatures(tmp_path: Path) -> None:
    """Whoever has the lock next reads it, and signs without taking it away."""
    for note in (b'{"n": 1}', b'{"n": 22222222}', b"{}"):
        lock = lock_in(tmp_path)
        lock.acquire()
        lock.write_note(note)
        lock.release()
        lock.acquire()
        lock.sign()
        assert lock_in(tmp_path).note() == note
        lock.release()
        assert (tmp_path / "lock").read_bytes().endswith(b"\n" + note + b"\n")
    lock.acquire()
    lock.write_note(b"")
    assert lock.note() == b""
    assert (tmp_path / "lock").read_bytes().count(b"\n") == 1
    lock.release()


def test_a_lock_without_a_note_says_what_it_said_before_there_were_notes(tmp_path: Path) -> None:
    """An older program reads it, and a run without workers writes nothing else."""
    lock = lock_in(tmp_path)
    lock.acquire()
    lock.sign()
    assert (tmp_path / "lock").read_bytes() == f"process {os.getpid()} on {socket.gethostname()}\n".encode()
    assert lock.note() == b""
    lock.release()


def test_a_second_process_is_told_the_holder_beside_a_note(tmp_path: Path) -> None:
    """The note is none of its name."""
    lock = lock_in(tmp_path)
    lock.acquire()
    lock.write_note(b'{"session": 3}')
    with pytest.raises(RunLockedError, match=f"process {os.getpid()} on {re.escape(socket.gethostname())} is running"):
        lock_in(tmp_path).acquire()
    lock.release()


def test_a_note_that_the_disk_has_no_room_for_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may act on a note that the next process would not find."""
    lock = lock_in(tmp_path)
    lock.acquire()
    lock.write_note(b"{}")
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(CheckpointError, match=r"lock: can't be written \(No space left on device\)"):
        lock.write_note(b'{"session": 3}')
    lock.release()


def _full(_file: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
