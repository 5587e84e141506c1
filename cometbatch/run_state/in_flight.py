"""Marks of requests in flight, in a small mapped file that outlives a killed process.

A mark says which attempt is on its way and what it can cost at most. It costs a memory write, not a system call; of
workers whose folder is on another machine, a write and a sync. A
mark that a dead session left, and that no record settles, is a possible charge.

Guards: a mark is there before its request leaves, and until a sync has covered the record of what came of it. The
first cell says of how many cells the file is sure, so that one that was cut is no file without marks. Where the file
grows, the second cell says so, then the first again: a power cut can tear only the one of them that was written last.
"""

import errno
import functools
import itertools
import mmap
import operator
import os
import re
import zlib
from collections.abc import Callable, Iterator
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import IO, Final

from msgspec import Struct

from cometbatch.errors import CheckpointError
from cometbatch.money.exact import ROUNDING
from cometbatch.run_state.names import LostFileError
from cometbatch.store import local

CELL_BYTES: Final = 64  # of a mark: ordinal, ask, attempt, amount, checksum, line break
SPARE_HEADERS: Final = 1  # cells after the first that hold no mark
EMPTY: Final = b" " * (CELL_BYTES - 1) + b"\n"
UNKNOWN: Final = "unknown"  # the amount of an attempt that has no highest cost
AMOUNT_UNIT: Final = Decimal("1e-9")  # US dollars: an amount is rounded up to it
AMOUNT_CHARACTERS: Final = 21  # of an amount in a mark; a longer one is unknown
MAX_ASK: Final = 9_999  # of a mark, which has four digits for it
MAX_ATTEMPT: Final = 999_999  # of a mark, which has six digits for it
CHECKSUM_AND_END: Final = 9  # bytes: a CRC-32 in hexadecimal, and the line break
_FIELDS: Final = b"%20d %4d %6d %21b "  # 55 bytes, then a checksum of 8 digits and a line break
_HEADER: Final = b"run %-32b %10d cells "  # 54 bytes, then a checksum of 8 digits, a blank and a line break
_HEADER_START: Final = b"r"  # of a mark, it is a blank or a digit
_HEADER_READ: Final = re.compile(rb"run ([0-9a-f]+) +(\d+) cells ([0-9a-f]{8}) \n")
_MARK: Final = re.compile(rb" *(\d{1,20}) +(\d{1,4}) +(\d{1,6}) +(unknown|\d{1,11}\.\d{9}) ([0-9a-f]{8})\n")


class Mark(Struct, frozen=True):
    """An attempt on its way. `max_cost_usd`: US dollars at most, None is unknown. `is_whole`: its checksum fits."""

    ordinal: int
    ask: int
    attempt: int
    max_cost_usd: Decimal | None
    is_whole: bool = True


class InFlightMarks:
    """The marks that this session sets, in a file of its own. For one thread, the event loop's."""

    def __init__(self, path: Path, run_id: str, cells: int) -> None:
        """Make the file with room for `cells` marks; it grows. Raises `CheckpointError` where the disk refuses."""
        self._path = path
        self._run_id = run_id
        cells += SPARE_HEADERS
        local.write_bytes(path, header_bytes(run_id, cells) + EMPTY * cells)
        with local.naming(path, "can't be opened"):
            self._file: IO[bytes] = path.open("r+b", buffering=0)
        self._cells = cells
        try:
            self._map = self._mapped(cells)
        except CheckpointError:
            self._file.close()
            raise
        self._free = list(range(cells, SPARE_HEADERS, -1))  # cell 0 is the header
        self._header_at = 0  # the cell of the newest header
        self._recorded: list[int] = []  # cells whose record no sync has covered yet
        self._is_dirty = False

    def _mapped(self, cells: int) -> "mmap.mmap | _Placed":
        with local.naming(self._path, "can't be mapped into memory"):
            return mmap.mmap(self._file.fileno(), (cells + 1) * CELL_BYTES)

    def begin(self, ordinal: int, ask: int, attempt: int, amount: Decimal | None) -> int:
        """Mark an attempt that is about to be sent; returns the cell that holds the mark."""
        if not self._free:
            self._grow()
        cell = self._free.pop()
        self._map[cell * CELL_BYTES : (cell + 1) * CELL_BYTES] = mark_bytes(ordinal, ask, attempt, amount)
        self._is_dirty = True
        return cell

    def end(self, cell: int, *, recorded: bool) -> None:
        """The attempt is dealt with. A cell of which a record tells stays until a sync has covered that record."""
        if recorded:
            self._recorded.append(cell)
        else:
            self._clear(cell)

    def take_recorded(self) -> list[int]:
        """The cells whose records are written by now; for `free`, once these records are synced."""
        taken, self._recorded = self._recorded, []
        return taken

    def free(self, cells: list[int]) -> None:
        """Empty these cells."""
        for cell in cells:
            self._clear(cell)

    def _clear(self, cell: int) -> None:
        """A power cut may bring the mark back: its record settles it then, or it is a charge at its most."""
        self._map[cell * CELL_BYTES : (cell + 1) * CELL_BYTES] = EMPTY
        self._free.append(cell)

    def _grow(self) -> None:
        """Twice as many cells, where records wait for a sync longer than usual.

        Where the disk refuses, the marks stay as they are: those of requests in flight are ended later. The file is
        sure of the new cells only once they are synced.
        """
        before, added = self._cells, max(1, self._cells)
        empty = EMPTY * added
        with local.naming(self._path, "can't be written"):
            if os.pwrite(self._file.fileno(), empty, (before + 1) * CELL_BYTES) < len(empty):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._sync()
        larger = self._mapped(before + added)
        self._map.close()
        self._map, self._cells = larger, before + added
        self._header_at = SPARE_HEADERS - self._header_at  # a power cut may tear what is written; the other is synced
        start = self._header_at * CELL_BYTES
        self._map[start : start + CELL_BYTES] = header_bytes(self._run_id, self._cells)
        self._free += range(self._cells, before, -1)

    def syncs(self) -> list[Callable[[], None]]:
        """What makes the marks survive a power cut, for another thread to call; nothing where none has changed."""
        if not self._is_dirty:
            return []
        self._is_dirty = False
        return [self._sync]

    def _sync(self) -> None:
        with local.naming(self._path, "can't be synced"):
            local.sync_data(self._file.fileno())

    def close(self) -> None:
        """Release the mapping; the marks stay in the file."""
        self._map.close()
        self._file.close()


class SyncedMarks(InFlightMarks):
    """Marks in a folder that is not this machine's own: each is on the server's disk before its request leaves.

    What is mapped into memory there nobody else sees, and the machine may be lost. The event loop waits for each sync.
    """

    def _mapped(self, cells: int) -> "_Placed":  # noqa: ARG002 - it writes wherever the file has room
        return _Placed(self._path, self._file)

    def begin(self, ordinal: int, ask: int, attempt: int, amount: Decimal | None) -> int:
        """Mark an attempt that is about to be sent, durably; returns the cell that holds the mark.

        Raises `CheckpointError` where the disk refuses.
        """
        cell = super().begin(ordinal, ask, attempt, amount)
        self._is_dirty = False
        self._sync()
        return cell


class _Placed:
    """Bytes of a file, written as those of a map are."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file

    def __setitem__(self, where: slice, data: bytes) -> None:
        with local.naming(self._path, "can't be written"):
            if os.pwrite(self._file.fileno(), data, where.start) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Nothing is held but the file, which its owner closes."""


def header_bytes(run_id: str, cells: int) -> bytes:
    """A header: the run's id, and how many cells follow the first one at least."""
    fields = _HEADER % (run_id.encode(), cells)
    return b"%b%08x \n" % (fields, zlib.crc32(fields))


def mark_bytes(ordinal: int, ask: int, attempt: int, amount: Decimal | None) -> bytes:
    """A mark as it stands in its cell. Asks and attempts beyond the room for them stay at the most that it holds."""
    told = UNKNOWN.encode() if amount is None else _amount(amount)
    fields = _FIELDS % (ordinal, min(ask, MAX_ASK), min(attempt, MAX_ATTEMPT), told)
    return b"%b%08x\n" % (fields, zlib.crc32(fields))


@functools.lru_cache(maxsize=4096)  # prompts of the same length can cost the same
def _amount(amount: Decimal) -> bytes:
    """Rounded up: a mark never says less than the attempt can cost."""
    text = f"{amount.quantize(AMOUNT_UNIT, ROUND_CEILING, ROUNDING):f}"
    return (text if len(text) <= AMOUNT_CHARACTERS else UNKNOWN).encode()


def read_marks(path: Path, run_id: str, *, is_loss_accepted: bool = False) -> list[Mark]:
    """The marks in a file.

    A cell that is neither empty nor whole is a mark of an unknown call. It counts at the largest amount in the file.
    Raises `CheckpointError` where the file is another run's, or can't be read. Unless `is_loss_accepted`, raises
    `LostFileError` where it is gone, was cut, or does not say how many cells it has: no power cut explains that.
    """
    data = local.content(path, None)
    header = None if data is None else _newest_header(data)
    if header is not None and header[0] != run_id.encode():
        raise CheckpointError(f"{path}: these marks belong to another run. Move the file away and run again.")
    if not is_loss_accepted and (data is None or header is None or len(data) < (header[1] + 1) * CELL_BYTES):
        what = "is gone" if data is None else "was cut, or is damaged"
        raise LostFileError(path, f"this file {what}; it told which requests were on their way")
    return list(_marks((data or b"")[CELL_BYTES:]))


def _newest_header(data: bytes) -> tuple[bytes, int] | None:
    """That of the two which knows of more cells; None where neither is whole."""
    found = [_header(data[at : at + CELL_BYTES]) for at in range(0, (1 + SPARE_HEADERS) * CELL_BYTES, CELL_BYTES)]
    return max((each for each in found if each is not None), key=operator.itemgetter(1), default=None)


def _header(cell: bytes) -> tuple[bytes, int] | None:
    """The run's id and the number of cells; None where the cell is damaged."""
    found = _HEADER_READ.fullmatch(cell)
    if found is None or int(found[3], 16) != zlib.crc32(cell[: found.start(3)]):
        return None
    return found[1], int(found[2])


def _marks(cells: bytes) -> Iterator[Mark]:
    damaged, amounts = 0, list[Decimal | None]()
    for start in range(0, len(cells), CELL_BYTES):
        cell = cells[start : start + CELL_BYTES]
        if not cell.strip(b" \n\0") or (start == 0 and cell.startswith(_HEADER_START)):
            continue
        mark = _read(cell)
        if mark is None:
            damaged += 1
        else:
            amounts.append(mark.max_cost_usd)
            yield mark
    known = [amount for amount in amounts if amount is not None]
    most = max(known) if known and len(known) == len(amounts) else None
    yield from itertools.repeat(Mark(-1, 0, 0, most, is_whole=False), damaged)


def _read(cell: bytes) -> Mark | None:
    found = _MARK.fullmatch(cell)
    if found is None or int(found[5], 16) != zlib.crc32(cell[:-CHECKSUM_AND_END]):
        return None
    amount = None if found[4] == UNKNOWN.encode() else Decimal(found[4].decode())
    return Mark(int(found[1]), int(found[2]), int(found[3]), amount)
