"""Journals: the records of a range of calls, a checksummed line each, written by one session and read by all.

Guards: a line that was handed to the operating system survives the death of the process, and one that was synced
survives a power cut. A journal notes how far it is synced. Damage after the last note is what a power cut leaves: the
lines that are whole count. Damage before it has another cause, and is an error that names line and call.
"""

import contextlib
import itertools
import os
import re
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.errors import CheckpointError
from cometbatch.store import local

CHECKSUM_DIGITS: Final = 8  # of a CRC-32 in hexadecimal
LINE_EXTRA_BYTES: Final = CHECKSUM_DIGITS + 2  # around a record: checksum, space, line break
ORDINAL = re.compile(rb'"ordinal":(\d{1,18})\b')
_OURS = re.compile(rb'"record":|\0')  # a damaged first line that has neither is another program's


class Header(Struct, frozen=True, omit_defaults=True, tag="journal", tag_field="record"):
    """The first line of a journal: to which run and range of calls it belongs, and which session writes it.

    `session` is a session's number, or, in a file of kept outcomes, the number of the round of `--retry`.
    `earlier`: the journals of those workers of the session that had the range before, by name, and how many bytes of
    each count: what is written there later counts for nothing.
    """

    run_id: str
    range: int
    session: int
    earlier: dict[str, int] = msgspec.field(default_factory=dict)


class Synced(Struct, frozen=True, tag="synced", tag_field="record"):
    """A note between records: the first `bytes` bytes of this file survive a power cut."""

    bytes: int


_Control: TypeAlias = Header | Synced
_CONTROL = msgspec.json.Decoder(_Control)
_CONTROL_STARTS: Final = (b'{"record":"journal"', b'{"record":"synced"')


class Damage(Struct, frozen=True):
    """A line that can't be read. `number` counts from 1; None where the line was not reached from the file's start.

    `ordinal` is None where the line does not show its call.
    """

    number: int | None
    offset: int
    ordinal: int | None


class DamagedJournalError(CheckpointError):
    """A line of a journal that was synced can't be read any more."""

    def __init__(self, path: Path, damage: Damage) -> None:
        """Name the file, the line, and where it shows one, the call."""
        call = "" if damage.ordinal is None else f" of row {damage.ordinal}"
        place, line = f"{path}:{damage.number}", "the line"
        if damage.number is None:
            place, line = str(path), f"the line at byte {damage.offset:,}"
        super().__init__(
            f"{place}: {line}{call} is damaged (its checksum differs), and no power cut explains it. "
            f"Restore the file from a copy; or count its damaged lines as charges and send their rows again: run the "
            f"job with --set-aside {path.name}"
        )
        self.path = path
        self.damage = damage


class Journal:
    """A journal that this session writes, with unbuffered appends.

    `append` is for one thread, the event loop's; `sync` may be called by another.
    """

    def __init__(self, path: Path, header: Header, records: Sequence[bytes] = ()) -> None:
        """Begin a new file, with these records, in one write.

        Raises `CheckpointError` where the disk won't have it, or the file is there already.
        """
        self.path = path
        self.header = header
        with local.naming(path, "can't open the journal"):
            self._file = path.open("x+b", buffering=0)
        self._written = 0  # bytes of whole lines
        self._synced = 0  # of these, bytes that survive a power cut
        self._noted = 0  # bytes that the last note in the file speaks of
        self._is_named = False  # whether the file's name survives a power cut
        self._syncing = threading.Lock()
        first = msgspec.json.encode(header)
        self.records_at = len(first) + LINE_EXTRA_BYTES  # bytes of the header's line
        try:
            self._write([first, *records])
        except CheckpointError:
            self._file.close()
            raise

    def reopen(self) -> None:
        """Go on with a journal that this session has closed.

        Raises `CheckpointError` where the disk refuses, or the file is not as long as it was.
        """
        with local.naming(self.path, "can't open the journal"):
            file = self.path.open("r+b", buffering=0)
        if (size := file.seek(0, os.SEEK_END)) != self._written:
            file.close()
            raise CheckpointError(
                f"{self.path}: {size:,} bytes, where this session has written {self._written:,}: another program has "
                "changed the file. Run the same command again."
            )
        self._file = file

    def append(self, records: Sequence[bytes]) -> int:
        """Write records (no line break inside, no notes) and return the offset of the first one's line.

        Raises `CheckpointError` when the disk won't take all of them; those before the first that it won't are written.
        """
        self.note()
        offset = self._written
        self._write(records)
        return offset

    def note(self) -> None:
        """Note in the file how far it is synced, so that damage up to there is told from what a power cut leaves.

        Raises `CheckpointError` when the disk won't take it.
        """
        if self._noted < (synced := self._synced):  # read once: another thread moves it on
            self._write([msgspec.json.encode(Synced(synced))])
            self._noted = synced

    def _write(self, records: Sequence[bytes]) -> None:
        lines = b"".join(map(line_of, records))
        try:
            written = self._file.write(lines)
        except OSError:
            self._cut_off()
            with local.naming(self.path, "can't write the journal"):
                raise
        if written != len(lines):
            self._written += lines.rfind(b"\n", 0, written) + 1
            self._cut_off()
            raise CheckpointError(f"{self.path}: can't write the journal (the disk is full). {local.MAKE_ROOM}")
        self._written += written

    def _cut_off(self) -> None:
        """A half-written line must not stay: a later line behind it would look like a part of it."""
        self._file.seek(self._written)
        with contextlib.suppress(OSError):
            self._file.truncate(self._written)

    def read_again(self, offset: int, size: int) -> bytes:
        """The record of `size` bytes whose line begins at `offset`.

        Raises `CheckpointError` where it is not what was written, or the disk fails.
        """
        return read_at(self.path, self._file.fileno(), offset, size)

    @property
    def is_dirty(self) -> bool:
        """Whether something was appended that no sync has covered."""
        return self._written != self._synced

    @property
    def is_closed(self) -> bool:
        """Whether `close` has come to its end."""
        return self._file.closed

    def sync(self) -> None:
        """Make what was appended survive a power cut; no work if nothing was. For any thread."""
        with self._syncing, local.naming(self.path, "can't sync the journal"):
            written = self._written
            if written == self._synced or self._file.closed:
                return
            local.sync_data(self._file.fileno())
            if not self._is_named:  # a power cut may take a new file with all that was synced into it
                local.sync(self.path.parent)
                self._is_named = True
            self._synced = written

    def close(self) -> None:
        """Close the file, once no thread is syncing it; it stays for the next session."""
        with self._syncing:
            self._file.close()


def line_of(record: bytes) -> bytes:
    """A record as a line: checksum, space, record, line break."""
    return b"%08x %b\n" % (zlib.crc32(record), record)


def write_whole(path: Path, header: Header, records: Iterable[bytes]) -> None:
    """Write a journal that is whole or absent; each record is written before the next is asked for.

    Raises `CheckpointError` where the disk won't take it, and whatever `records` raised.
    """
    lines = map(line_of, itertools.chain([msgspec.json.encode(header)], records))
    local.write_aside(path, lambda file: file.writelines(lines))


def read_at(path: Path, descriptor: int, offset: int, size: int) -> bytes:
    """The record of `size` bytes whose line begins at `offset` of an open file. Raises `CheckpointError`."""
    try:
        line = os.pread(descriptor, size + LINE_EXTRA_BYTES, offset)
    except OSError:
        with local.naming(path, "can't read the journal"):
            raise
    record = checked(line)
    if record is None:
        raise DamagedJournalError(path, Damage(None, offset, _ordinal(line)))
    return record


def read_header(path: Path) -> tuple[Header, int] | None:
    """The first line of a journal, and how many bytes it has; None where there is no such file or no whole line yet.

    Raises `CheckpointError` where the file can't be read.
    """
    with local.naming(path, "can't be read"):
        try:
            with path.open("rb") as file:
                line = file.readline()
        except (FileNotFoundError, NotADirectoryError):
            return None
    record = checked(line)
    if record is None:
        return None
    try:
        found = _CONTROL.decode(record)
    except msgspec.MsgspecError:
        return None  # who reads the records tells
    return (found, len(line)) if isinstance(found, Header) else None


class JournalReader:
    """The records of a journal that this or another process wrote, without changing it.

    `limit`: how many of its bytes count, all of them synced; None is all there are. `bound`: the same where another
    worker of the session went on from there, which may have found damage that a power cut left. `set_aside`: offsets of
    damaged lines that are accepted already. `is_whole`: the file was synced before it counted, so that damage anywhere
    in it is an error.
    """

    def __init__(
        self,
        path: Path,
        run_id: str,
        range_: int,
        *,
        limit: int | None = None,
        bound: int | None = None,
        set_aside: Collection[int] = (),
        is_whole: bool = False,
    ) -> None:
        self._path = path
        self._belongs = (run_id, range_)
        self._limit = limit
        self._end = min((each for each in (limit, bound) if each is not None), default=None)
        self._set_aside = set_aside
        self._is_whole = is_whole
        self.whole_bytes = 0  # up to the end of the last line that is whole
        self.torn: tuple[int, ...] = ()  # offsets of damaged lines before it that a power cut explains

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Each record with the offset of its line; none where there is no such file.

        Raises `DamagedJournalError`, and `CheckpointError` where the file is another run's, is no journal, is shorter
        than it was, or can't be read.
        """
        yield from self._records(None)

    def damage(self) -> list[Damage]:
        """The damaged lines that no power cut explains. Raises `CheckpointError` as reading does."""
        found: list[Damage] = []
        for _ in self._records(found):
            pass
        return found

    def _records(self, found: list[Damage] | None) -> Iterator[tuple[int, bytes]]:
        """Damage that no power cut explains goes to `found`, or is raised where there is none."""
        self.whole_bytes = 0
        torn: list[Damage] = []  # that the next note may show to have been synced
        is_strange = False
        for number, offset, line in self._lines():
            record = checked(line)
            if record is None:
                torn.append(Damage(number, offset, _ordinal(line)))
                is_strange = is_strange or (number == 1 and line.endswith(b"\n") and not _OURS.search(line))
                if self._is_whole:
                    torn = self._tell(torn, found)
                continue
            if record.startswith(_CONTROL_STARTS):
                torn = self._take_control(record, number, torn, found)
            elif number == 1:
                raise self._stranger()
            else:
                yield offset, record
            self.whole_bytes = offset + len(line)
        if is_strange and not self.whole_bytes:
            raise self._stranger()
        if self._limit is not None:  # all of it was synced when the session after its own began
            torn = self._tell(torn, found)
        offsets = [each.offset for each in torn if each.offset < self.whole_bytes]
        self.torn = tuple(offset for offset in offsets if offset not in self._set_aside)

    def _lines(self) -> Iterator[tuple[int, int, bytes]]:
        """Each line that counts, with its number and offset.

        A line without an end is the last: its writer may be about to complete it, and what follows is read next time.
        """
        with local.naming(self._path, "can't be read"):
            try:
                file = self._path.open("rb")
            except (FileNotFoundError, NotADirectoryError):
                return
            with file:
                self._check_size(os.fstat(file.fileno()).st_size)
                offset = 0
                for number, line in enumerate(file, start=1):
                    counting = line if self._end is None else line[: self._end - offset]
                    if counting:
                        yield number, offset, counting
                    offset += len(counting)
                    if not counting.endswith(b"\n"):
                        break

    def _check_size(self, size: int) -> None:
        if self._end is not None and size < self._end:
            raise CheckpointError(
                f"{self._path}: {size:,} bytes, where there were {self._end:,}: the file was cut. Restore it from a "
                "copy."
            )

    def _take_control(self, record: bytes, number: int, torn: list[Damage], found: list[Damage] | None) -> list[Damage]:
        """Returns the damage that is still to be explained."""
        try:
            control = _CONTROL.decode(record)
        except msgspec.MsgspecError as error:
            if number == 1:
                raise self._stranger() from error
            raise CheckpointError(
                f"{self._path}:{number}: the line is whole, and this version of cometbatch does not understand it "
                f"({error}). Continue with the version that wrote it."
            ) from error
        match control:
            case Header(run_id=run_id, range=range_) if (run_id, range_) != self._belongs:
                raise CheckpointError(
                    f"{self._path}:{number}: this journal belongs to run {run_id}, range {range_}, not to run "
                    f"{self._belongs[0]}, range {self._belongs[1]}. Move it away and run again."
                )
            case Synced() if number == 1:
                raise self._stranger()
            case Synced(bytes=synced):
                self._tell([each for each in torn if each.offset < synced], found)
                return [each for each in torn if each.offset >= synced]
        return torn

    def _tell(self, damaged: list[Damage], found: list[Damage] | None) -> list[Damage]:
        """Returns what is still to be told: nothing."""
        unexpected = [each for each in damaged if each.offset not in self._set_aside]
        if unexpected and found is None:
            raise DamagedJournalError(self._path, unexpected[0])
        if found is not None:
            found += unexpected
        return []

    def _stranger(self) -> CheckpointError:
        return CheckpointError(f"{self._path}:1: this is no journal that cometbatch wrote. Move it away and run again.")


def checked(line: bytes) -> bytes | None:
    """The record of a line; None where it is not whole."""
    record = line[CHECKSUM_DIGITS + 1 : -1]
    return record if line == line_of(record) else None


def _ordinal(line: bytes) -> int | None:
    found = ORDINAL.search(line)
    return None if found is None else int(found[1])
