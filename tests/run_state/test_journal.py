"""Journals: what survives a kill, a full disk and a power cut, and what damage is refused, byte for byte."""

import io
import itertools
import os
import re
import signal
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cometbatch.errors import CheckpointError
from cometbatch.run_state.journal import (
    LINE_EXTRA_BYTES,
    DamagedJournalError,
    Header,
    Journal,
    JournalReader,
    Synced,
    write_whole,
)
from tests.child_process import child, heard

RUN = "0123456789abcdef"
HEADER = Header(RUN, 7, 3)
RECORDS = [b'{"record":"failed","ordinal":1}', b"", b"\xff\x01\r not JSON, not text", b'{"ordinal":3,"x":"' + b"x" * 30]
LINES = st.binary(max_size=40).map(lambda record: record.replace(b"\n", b""))
records = st.lists(LINES.filter(lambda record: not record.startswith(b'{"record":')), max_size=5)
on_disk = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)


def line_of(record: bytes) -> bytes:
    """A line as the format says: CRC-32 in eight hexadecimal digits, a space, the record, a line break."""
    return b"%08x " % zlib.crc32(record) + record + b"\n"


HEAD = line_of(b'{"record":"journal","run_id":"0123456789abcdef","range":7,"session":3}')


def note(size: int) -> bytes:
    """The line that says how far the file is synced."""
    return line_of(b'{"record":"synced","bytes":%d}' % size)


def journal_of(path: Path, written: Sequence[bytes]) -> bytes:
    """Write a journal, never synced, and give back what the file holds."""
    journal = Journal(path, HEADER)
    journal.append(written)
    journal.close()
    return path.read_bytes()


def reader(path: Path, **options: Any) -> JournalReader:
    """A reader of session 3's journal of range 7."""
    return JournalReader(path, RUN, 7, **options)


def read(path: Path, **options: Any) -> list[bytes]:
    """The records that count."""
    return [record for _, record in reader(path, **options)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "00007.3.jsonl"


# -- written and read ----------------------------------------------------------------------------------------------


@on_disk
@given(written=records, syncs=st.lists(st.booleans(), min_size=5, max_size=5))
def test_a_journal_gives_back_what_it_was_given(path: Path, written: list[bytes], syncs: list[bool]) -> None:
    """Records without line breaks come back in order, from where `append` said, synced between or not."""
    path.unlink(missing_ok=True)
    journal, offsets = Journal(path, HEADER), list[int]()
    for record, is_synced in zip(written, syncs, strict=False):
        offsets.append(journal.append([record]))
        if is_synced:
            journal.sync()
    assert list(reader(path)) == list(zip(offsets, written, strict=True))
    assert [journal.read_again(at, len(record)) for at, record in zip(offsets, written, strict=True)] == written
    journal.close()


def test_records_of_one_append_stand_behind_each_other(path: Path) -> None:
    """The offset of the first and the sizes tell where each is, also where a note was written before them."""
    journal = Journal(path, HEADER)
    for _ in range(3):
        offset = journal.append(RECORDS)
        for record in RECORDS:
            assert journal.read_again(offset, len(record)) == record
            offset += len(record) + LINE_EXTRA_BYTES
        journal.sync()
    journal.close()
    assert read(path) == RECORDS * 3


def test_a_journal_is_lines_that_a_person_can_read(path: Path) -> None:
    """A checksum, a space, the record: run and range first, then records, with notes between: byte for byte."""
    journal = Journal(path, HEADER)
    journal.append(RECORDS[:2])
    journal.sync()
    journal.append(RECORDS[2:])
    journal.close()
    first = HEAD + b"".join(map(line_of, RECORDS[:2]))
    assert path.read_bytes() == first + note(len(first)) + b"".join(map(line_of, RECORDS[2:]))


def test_a_record_is_in_the_file_as_soon_as_it_is_appended(path: Path) -> None:
    """No buffer of ours stands between an outcome and the operating system: a killed process loses nothing."""
    journal = Journal(path, HEADER)
    for count, record in enumerate(RECORDS, start=1):
        journal.append([record])
        assert read(path) == RECORDS[:count]
    journal.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from cometbatch.run_state.journal import Header, Journal
journal = Journal(Path(sys.argv[1]), Header("0123456789abcdef", 7, 3))
for number in range(100):
    journal.append([b"%d" % number])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_no_record(path: Path) -> None:
    """What was appended is there, synced or not."""
    with child(KILLED, path) as process:
        assert process.wait() == -signal.SIGKILL
    assert read(path) == [b"%d" % number for number in range(100)]


def test_a_session_writes_into_no_file_that_is_there(path: Path) -> None:
    """A journal of another session, torn or whole, is only read."""
    content = journal_of(path, RECORDS)
    with pytest.raises(CheckpointError, match=rf"{path}: can't open the journal \(File exists"):
        Journal(path, HEADER)
    assert path.read_bytes() == content


def test_a_file_written_whole_reads_like_a_journal(path: Path) -> None:
    """Records are asked for one by one; a fault of theirs leaves no file."""
    write_whole(path, HEADER, iter(RECORDS))
    assert read(path, is_whole=True) == RECORDS
    path.unlink()

    def failing() -> Any:
        yield RECORDS[0]
        raise ValueError("a part is damaged")

    with pytest.raises(ValueError, match="a part is damaged"):
        write_whole(path, HEADER, failing())
    assert list(path.parent.iterdir()) == []


# -- notes of how far it is synced -------------------------------------------------------------------------------


def notes_in(path: Path) -> list[tuple[int, int]]:
    """Each note in a file: where it stands, and how many bytes it says are synced."""
    found, offset = [], 0
    for line in path.read_bytes().splitlines(keepends=True):
        if line[9:].startswith(b'{"record":"synced"'):
            found.append((offset, msgspec.json.decode(line[9:-1], type=Synced).bytes))
        offset += len(line)
    return found


STEPS = st.lists(st.sampled_from(["append", "sync", "sync that fails", "sync meanwhile"]), max_size=30)


@on_disk
@given(steps=STEPS)
def test_a_note_never_says_more_than_a_sync_has_covered(path: Path, steps: list[str]) -> None:
    """Whatever is appended while a sync runs, and whichever sync fails, a note tells of bytes that are on the disk."""
    path.unlink(missing_ok=True)
    journal, durable = Journal(path, HEADER), 0
    plain = os.fdatasync

    def synced(descriptor: int) -> None:
        nonlocal durable
        before = os.fstat(descriptor).st_size
        if step == "sync that fails":
            raise OSError(5, "Input/output error")
        if step == "sync meanwhile":
            journal.append([b"meanwhile"])
        plain(descriptor)
        durable = before

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", synced)
        for step in steps:
            before = durable
            if step == "append":
                journal.append([b"record"])
                assert all(size <= before for _, size in notes_in(path))
            elif step == "sync that fails":
                with pytest.raises(CheckpointError) if journal.is_dirty else pytest.MonkeyPatch.context():
                    journal.sync()
            else:
                journal.sync()
    assert all(size <= durable and size <= at for at, size in notes_in(path))
    journal.close()


def test_sync_reaches_the_disk_once_for_what_was_appended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Group commit: one system call for any number of records, none where there is nothing new."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    journal = Journal(path, HEADER)
    for _ in range(3):
        journal.append([b"{}"])
    assert journal.is_dirty
    journal.sync()
    journal.sync()
    assert (len(synced), journal.is_dirty) == (1, False)
    journal.append([b"{}"])
    journal.sync()
    assert len(synced) == 2
    journal.close()
    journal.sync()
    assert len(synced) == 2


def test_the_first_sync_covers_the_name_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may take a new file with all that was synced into it, unless its folder is synced."""
    folders: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: folders.append(f"/proc/self/fd/{descriptor}"))
    journal = Journal(path, HEADER)
    for _ in range(2):
        journal.append([b"{}"])
        journal.sync()
    journal.close()
    assert len(folders) == 1


def test_a_disk_that_fails_to_sync_is_an_error_that_names_the_journal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may not be on disk must not be taken for recorded."""

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    journal = Journal(path, HEADER)
    with pytest.raises(CheckpointError, match=r"00007\.3\.jsonl: can't sync .*Input/output error"):
        journal.sync()
    assert journal.is_dirty
    journal.close()


def test_a_journal_is_not_closed_under_a_sync(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing and committing run in two threads: closing waits, so that no sync meets a closed file."""
    journal = Journal(path, HEADER)
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


# -- what a power cut leaves -------------------------------------------------------------------------------------

UNSYNCED = HEAD + b"".join(map(line_of, RECORDS))


@pytest.mark.parametrize("length", range(len(UNSYNCED) + 1))
def test_a_journal_cut_short_anywhere_loses_only_its_torn_line(path: Path, length: int) -> None:
    """Whole lines count, the torn one does not, and the file stays as it is."""
    path.write_bytes(UNSYNCED[:length])
    whole = max(0, UNSYNCED[:length].count(b"\n") - 1)
    found = reader(path)
    assert [record for _, record in found] == RECORDS[:whole]
    assert found.whole_bytes == UNSYNCED.rfind(b"\n", 0, length) + 1
    assert path.read_bytes() == UNSYNCED[:length]


@pytest.mark.parametrize("position", range(len(UNSYNCED)))
@pytest.mark.parametrize("kind", ["a flipped bit", "a zero"])
def test_damage_that_no_note_covers_costs_its_own_line(path: Path, position: int, kind: str) -> None:
    """Lines behind the damaged one count, and nobody is asked. A line break that is lost costs the two lines."""
    damaged = bytearray(UNSYNCED)
    damaged[position] = 0 if kind == "a zero" else damaged[position] ^ 0x04
    path.write_bytes(damaged)
    hit = UNSYNCED[:position].count(b"\n")
    lost = {hit, hit + 1} if UNSYNCED[position] == ord("\n") else {hit}
    assert read(path) == [record for number, record in enumerate(RECORDS, start=1) if number not in lost]


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * 4096, b"\0" * 100 + b"\n", b"\n\n\n", b"00000000 {}\n", line_of(b"{}")[:-1], b"\xff" * 17, b" \n"],
    ids=["zeros", "zeros and a line break", "blank lines", "a wrong checksum", "no line break", "noise", "a blank"],
)
def test_garbage_behind_the_last_note_costs_nothing_else(path: Path, garbage: bytes) -> None:
    """A power cut may leave zeros or old blocks anywhere in what was not synced."""
    journal = Journal(path, HEADER)
    journal.append(RECORDS)
    journal.sync()
    journal.append([b"more"])
    journal.close()
    content = path.read_bytes()
    path.write_bytes(content + garbage)
    assert read(path) == [*RECORDS, b"more"]
    path.write_bytes(content + garbage + (b"" if garbage.endswith(b"\n") else b"torn\n") + line_of(b"behind it"))
    assert read(path) == [*RECORDS, b"more", b"behind it"]


@on_disk
@given(data=st.data())
def test_any_damage_is_explained_or_told_by_its_line(path: Path, data: st.DataObject) -> None:
    """Over any appends, syncs and damage: whole lines count; a damaged line that a note covers is an error, by line."""
    path.unlink(missing_ok=True)
    steps = data.draw(st.lists(st.integers(-5, 9), min_size=1, max_size=12))  # below 0: a sync
    journal = Journal(path, HEADER)
    for step in steps:
        if step < 0:
            journal.sync()
        else:
            journal.append([b'{"ordinal":%d,"text":"' % path.stat().st_size + b"x" * step + b'"}'])
    journal.close()
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    offsets = list(itertools.accumulate(map(len, lines), initial=0))[:-1]
    hit = data.draw(st.sets(st.integers(0, len(lines) - 1), max_size=3))
    damaged = [b"#" * 8 + line[8:] if number in hit else line for number, line in enumerate(lines)]
    path.write_bytes(b"".join(damaged))
    noted = max((size for at, size in notes_in(path) if offsets.index(at) not in hit), default=0)
    refused = sorted(number for number in hit if offsets[number] < noted)
    records_left = [
        line[9:-1] for number, line in enumerate(lines) if number not in hit and b'"record"' not in line[:20]
    ]
    assert [each.number for each in reader(path).damage()] == [number + 1 for number in refused]
    if refused:
        with pytest.raises(DamagedJournalError, match=rf":{refused[0] + 1}: ") as told:
            read(path)
        aside = [offsets[number] for number in refused]
        assert told.value.damage.offset == aside[0]
        assert read(path, set_aside=aside) == records_left
        assert reader(path, set_aside=aside).damage() == []
    elif len(hit) < len(lines):
        assert read(path) == records_left


# -- damage that is refused --------------------------------------------------------------------------------------


def synced_journal(path: Path) -> bytes:
    """A journal with all records before its last note."""
    journal = Journal(path, HEADER)
    journal.append(RECORDS)
    journal.sync()
    journal.append([b"last"])
    journal.close()
    return path.read_bytes()


@pytest.mark.parametrize("position", range(len(UNSYNCED) - 1))  # the last line break's loss damages the note itself
def test_a_flipped_bit_before_the_last_note_is_an_error_that_names_the_line(path: Path, position: int) -> None:
    """No crash damages what was synced: it is told by file and line, with the command, and the file stays as it is."""
    damaged = bytearray(synced_journal(path))
    damaged[position] ^= 0x04
    path.write_bytes(damaged)
    line = 1 + UNSYNCED[:position].count(b"\n")
    with pytest.raises(DamagedJournalError) as refused:
        read(path)
    assert re.match(rf"{path}:{line}: the line.* is damaged", str(refused.value))
    assert str(refused.value).endswith("--set-aside 00007.3.jsonl")
    assert path.read_bytes() == damaged
    copy = refused.value.__reduce__()
    assert str(copy[0](*copy[1])) == str(refused.value)


def test_a_damaged_line_names_its_call_where_it_shows_one(path: Path) -> None:
    """A person can look the row up."""
    path.write_bytes(synced_journal(path).replace(b'"failed"', b'"foiled"'))
    with pytest.raises(DamagedJournalError, match=r"00007\.3\.jsonl:2: the line of row 1 is damaged"):
        read(path)


def test_damage_of_a_file_that_was_synced_whole_is_never_explained(path: Path) -> None:
    """Files of kept outcomes have no notes; each damaged line is told once."""
    write_whole(path, HEADER, RECORDS)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"failed", b"foiled").replace(b"not JSON", b"got JSON"))
    assert read(path) == [RECORDS[1], RECORDS[3]]
    with pytest.raises(DamagedJournalError, match=":2: "):
        read(path, is_whole=True)
    damage = reader(path, is_whole=True).damage()
    assert [each.number for each in damage] == [2, 4]
    aside = [each.offset for each in damage]
    assert read(path, is_whole=True, set_aside=aside[:2]) == [RECORDS[1], RECORDS[3]]
    with pytest.raises(DamagedJournalError, match=":4: "):
        read(path, is_whole=True, set_aside=aside[:1])


def test_a_whole_note_of_another_version_is_refused_by_its_line(path: Path) -> None:
    """It is neither damage nor another program's file: to set it aside or to move it away would lose answers."""
    path.write_bytes(UNSYNCED + line_of(b'{"record":"synced","up_to":7}'))
    with pytest.raises(CheckpointError, match=r"00007\.3\.jsonl:6: the line is whole, and this version"):
        read(path)


def test_a_line_that_was_set_aside_costs_no_other(path: Path) -> None:
    """Damage that comes later is told all the same."""
    content = synced_journal(path)
    path.write_bytes(content.replace(b"not JSON", b"got JSON"))
    aside = [each.offset for each in reader(path).damage()]
    assert read(path, set_aside=aside) == [*RECORDS[:2], RECORDS[3], b"last"]
    path.write_bytes(content.replace(b"not JSON", b"got JSON").replace(b"failed", b"foiled"))
    with pytest.raises(DamagedJournalError, match=":2: "):
        read(path, set_aside=aside)


@pytest.mark.parametrize("header", [Header("fedcba9876543210", 7, 3), Header(RUN, 8, 3)], ids=["run", "range"])
def test_a_journal_of_something_else_is_refused_and_left_alone(path: Path, header: Header) -> None:
    """Answers of another run or range are not mixed in; the message names both."""
    write_whole(path, header, RECORDS)
    content = path.read_bytes()
    message = f"belongs to run {header.run_id}, range {header.range}, not to run {RUN}, range 7"
    with pytest.raises(CheckpointError, match=message) as refused:
        read(path)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == content
    path.write_bytes(UNSYNCED + content)
    with pytest.raises(CheckpointError, match=message):
        read(path)


@pytest.mark.parametrize(
    "content",
    [
        b'{"row": 1}\n{"row": 2}\n',
        b"notes\n",
        b"\n",
        line_of(b'{"row":1}'),
        line_of(b"not JSON"),
        line_of(b'{"record":"journal","run_id":1,"range":"7"}') + line_of(b"{}"),
        note(0),
    ],
)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    """A foreign file in a journal's place is not taken for a torn journal."""
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"00007\.3\.jsonl:1: this is no journal"):
        read(path)
    assert path.read_bytes() == content


# -- how much of it counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", range(UNSYNCED.count(b"\n") + 1))
def test_bytes_beyond_the_limit_do_not_count(path: Path, lines: int) -> None:
    """What a process wrote after a later session began is not looked at, whole, damaged or another run's."""
    content = journal_of(path, RECORDS)
    limit = sum(map(len, io.BytesIO(content).readlines()[:lines]))
    whole = max(0, content[:limit].count(b"\n") - 1)
    assert read(path, limit=limit) == RECORDS[:whole]
    path.write_bytes(content[:limit] + b"#" * (len(content) - limit) + note(len(content)))
    assert read(path, limit=limit) == RECORDS[:whole]
    assert reader(path, limit=limit).damage() == []


@pytest.mark.parametrize("offset", range(len(UNSYNCED)))
def test_damage_within_the_limit_is_refused_by_line(path: Path, offset: int) -> None:
    """All of it was synced when a later session began, so that no power cut explains it."""
    content = bytearray(journal_of(path, RECORDS))
    content[offset] ^= 0x01
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        read(path, limit=len(content))


def test_a_file_shorter_than_its_limit_is_refused(path: Path) -> None:
    """A file that was cut after it was synced has lost answers that were paid for."""
    content = journal_of(path, RECORDS)
    path.write_bytes(content[:-1])
    for act in (lambda: read(path, limit=len(content)), lambda: reader(path, limit=len(content)).damage()):
        with pytest.raises(
            CheckpointError, match=rf"{path}: {len(content) - 1} bytes, where there were {len(content)}"
        ):
            act()


class Growing(io.RawIOBase):
    """A file that ends after each of its pieces, and goes on when it is read once more."""

    def __init__(self, like: int, *pieces: bytes) -> None:
        super().__init__()
        self._like = like
        self._pieces = [each for piece in pieces for each in (piece, b"")]

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._like

    def readinto(self, into: Any) -> int:
        piece = self._pieces.pop(0) if self._pieces else b""
        into[: len(piece)] = piece
        return len(piece)


def test_a_journal_that_is_being_written_is_read_up_to_the_line_under_way(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that was completed while it was read was once taken for damage, with the advice to remove it."""
    content = journal_of(path, RECORDS)
    cut = content.rindex(b"\n", 0, -1) + 5
    with path.open("rb") as file:
        growing = Growing(file.fileno(), content[:cut], content[cut:] + line_of(b"more") + note(len(content)))
        monkeypatch.setattr(Path, "open", lambda _path, _mode: io.BufferedReader(growing))
        assert read(path) == RECORDS[:-1]


def test_a_record_that_changed_meanwhile_is_an_error_that_names_the_file(path: Path) -> None:
    """What is read again is checked again: it becomes the result."""
    journal = Journal(path, HEADER)
    offset = journal.append([RECORDS[0]])
    path.write_bytes(path.read_bytes().replace(b"failed", b"foiled"))
    with pytest.raises(CheckpointError, match=rf"00007\.3\.jsonl: the line at byte {offset} of row 1 is damaged"):
        journal.read_again(offset, len(RECORDS[0]))
    journal.close()


def test_a_journal_whose_partition_was_committed_meanwhile_is_empty(path: Path) -> None:
    """Who looks at a run that goes on may come late: the file is gone, which is no error."""
    assert read(path) == []
    assert read(path, limit=100) == []


@pytest.mark.parametrize("act", [read, lambda path: Journal(path, HEADER)], ids=["read", "begin"])
def test_a_journal_that_cannot_be_opened_is_an_error_that_names_it(
    tmp_path: Path, act: Callable[[Path], object]
) -> None:
    """What the operating system says comes with the file's name and what to do."""
    with pytest.raises(CheckpointError, match=rf"{tmp_path}: .*run the same command again"):
        act(tmp_path)


# -- a full disk -------------------------------------------------------------------------------------------------

FILL = """
import resource, signal, sys
from pathlib import Path
from cometbatch.run_state.journal import Header, Journal
from cometbatch.errors import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]), Header("0123456789abcdef", 7, 3))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
at_once = int(sys.argv[3])
for number in range(0, 100, at_once):
    try:
        journal.append([b"%020d" % each for each in range(number, number + at_once)])
    except CheckpointError as error:
        print(number, error)
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
offset = journal.append([b"after"])
print(journal.read_again(offset, 5))
journal.close()
"""


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("room", [0, 29, 30, 45])
def test_a_full_disk_is_an_error_and_the_journal_stays_readable(path: Path, room: int, at_once: int) -> None:
    """A line that fits only in part is cut off, so that neither the file nor a later line is damaged by it."""
    with child(FILL, path, len(HEAD) + 4 * 30 + room, at_once) as filling:
        number, message = heard(filling).split(" ", 1)
        assert heard(filling) == "b'after'"
        assert filling.wait() == 0
    whole = 4 + room // 30
    assert int(number) == whole // at_once * at_once
    assert str(path) in message
    assert "make room" in message
    assert read(path) == [*(b"%020d" % row for row in range(whole)), b"after"]
    assert reader(path).damage() == []
    assert path.stat().st_size == len(HEAD) + whole * 30 + len(line_of(b"after"))


def test_a_device_that_takes_nothing_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very first byte can be refused."""
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda _path, _mode, buffering: opened(Path("/dev/full"), "ab", buffering))
    with pytest.raises(CheckpointError, match=r"00007\.3\.jsonl.*No space left.*make room"):
        Journal(path, HEADER)
