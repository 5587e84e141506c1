"""The index of earlier answers: which rows of earlier results answered a request, by the request's hash.

Flat files of 64-bit numbers, in the order of keys. A key is made of the first 16 characters of a `request_hash`, a
place is a file and a row in it, and an origin is the call that paid: its run and its ordinal there. Only a fan-out over
the first 16 bits of the keys is in memory; it says which of them to read. Two hashes may share a key, so whoever takes
an answer compares the whole hash in the row.

Guards: one entry for each key and origin, however many results hold a copy of that answer. Nothing in the files is
believed without its checksum, so that a damaged index is never taken for one that lacks an answer.
"""

import contextlib
import os
import struct
import sys
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self, overload

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from cometbatch.errors import CheckpointError
from cometbatch.results.columns import REUSED_FROM
from cometbatch.store import local

VERSION: Final = 1  # of the files: an index of another version is made again
HASH_CHARACTERS: Final = 64
ORDINAL: Final = "ordinal"
"""The column of ordinals, in a file whose rows are not all of a run's from one on."""
BYTES: Final = 8  # of a number
SLOT_BITS: Final = 16  # of a key: a slot of the fan-out, whose entries are read at once
SPILLED_ROWS: Final = 524_288  # entries that are divided into buckets at a time
BUCKET_ROWS: Final = 500_000  # entries that are sorted at a time, about
MAX_BUCKET_BITS: Final = 12
ROW_BITS: Final = 40  # of a place or an origin: the row or the ordinal; the bits above are the file or the run
MAX_RUNS: Final = 1 << 20  # that answers may come from
ENTRIES_READ: Final = 64  # of one key, at a time
SLOT_READ: Final = 4_096  # keys of a slot that are read at once; of more, a search reads some
CRC_BYTES: Final = 1 << 20  # read at a time
_HEAD: Final = "index.json"
_FAN_OUT: Final = "fan_out"
_SPILL: Final = "unsorted"
_NAMES: Final = ("keys", "places", "origins")
_FACTORS: Final = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F  # odd, so that no character of the hash is lost
_WORDS: Final = struct.Struct("=QQ")
_MASK: Final = (1 << 64) - 1
_ROW_MASK: Final = (1 << ROW_BITS) - 1
_ORDER_BITS: Final = 32  # of a key, beside those of its bucket: by these entries are sorted, then as they came


class SourceFile(Struct, frozen=True):
    """A Parquet file with rows of an earlier run.

    `run`: its number among the runs of the index. `service`: who answered. `prefix`: what stands before the names of
    the output columns, `columns`. `first_ordinal`: of its first row; None where a column of its own,
    `ORDINAL`, tells the ordinals. `stamp`: its size and the time of its last change.
    """

    path: str
    run: int
    service: str
    prefix: str
    columns: tuple[str, ...]
    first_ordinal: int | None
    rows: int
    stamp: str


class Entry(Struct, frozen=True, gc=False):
    """An earlier answer: the run that paid, as a number, and the ordinal there; the file that holds it, and the row."""

    run: int
    ordinal: int
    file: int
    row: int


class Batch(Struct, frozen=True):
    """Some rows of a file: their hashes, and where a row is a copy the id of the run that paid, and the ordinal there.

    `ordinals`: of the rows, where the file tells them in a column of its own.
    """

    hashes: pa.Array
    origins: pa.Array | None = None
    origin_ordinals: pa.Array | None = None
    ordinals: pa.Array | None = None


class _Head(Struct, frozen=True):
    """What the files are. `sources`: what they were made from; `sums`: of each file."""

    version: int
    byte_order: str
    sources: str
    runs: tuple[str, ...]
    files: tuple[SourceFile, ...]
    count: int
    sums: dict[str, str]


def key_of(request_hash: str) -> int:
    """The key of a hash of 64 characters."""
    first, second = map(int, _WORDS.unpack(request_hash[: _WORDS.size].encode()))
    return (first * _FACTORS[0] + second * _FACTORS[1]) & _MASK


class Index:
    """An index that is open for reading, from one thread. `runs`: the ids of the runs that paid, by their numbers."""

    def __init__(self, folder: Path, head: _Head) -> None:
        self.runs = head.runs
        self.files = head.files
        self.count = head.count
        self._folder = folder
        self._fan_out = array("Q", (folder / _FAN_OUT).read_bytes())
        self._open = {name: os.open(folder / name, os.O_RDONLY) for name in head.sums if name != _FAN_OUT}

    def close(self) -> None:
        """Close the files."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __len__(self) -> int:
        return self.count

    def positions(self, key: int) -> tuple[int, int]:
        """Where entries begin that may have this key, and where they end."""
        slot = key >> (64 - SLOT_BITS)
        first, end = self._fan_out[slot], self._fan_out[slot + 1]
        if first == end:
            return first, first
        is_small = end - first <= SLOT_READ
        keys: Sequence[int] = self._read("keys", first, end) if is_small else _KeysOnDisk(self._read, first, end)
        leading = _leading(key)  # of the keys in a slot, these bits are in order
        low = bisect_left(keys, leading, key=_leading)
        high = bisect_right(keys, leading, low, key=_leading)
        return int(first + low), int(first + high)

    def entries(self, key: int, start: int, end: int) -> Iterator[tuple[int, Entry]]:
        """The entries of this key among those at these positions, each with its position."""
        for low in range(start, end, ENTRIES_READ):
            high = min(end, low + ENTRIES_READ)
            keys, places = self._read("keys", low, high), self._read("places", low, high)
            origins = self._read("origins", low, high) if "origins" in self._open else None
            for at, place in enumerate(places):
                if keys[at] == key:
                    yield low + at, self._entry(place, None if origins is None else origins[at])

    def _entry(self, place: int, origin: int | None) -> Entry:
        file, row = place >> ROW_BITS, place & _ROW_MASK
        if origin is not None:
            return Entry(origin >> ROW_BITS, origin & _ROW_MASK, file, row)
        source = self.files[file]
        return Entry(source.run, (source.first_ordinal or 0) + row, file, row)

    def _read(self, name: str, start: int, end: int) -> "array[int]":
        numbers = array("Q")
        numbers.frombytes(os.pread(self._open[name], (end - start) * BYTES, start * BYTES))
        return numbers


class _KeysOnDisk(Sequence[int]):
    """The keys at these positions, each read when it is asked for: there are too many to read all."""

    def __init__(self, read: Callable[[str, int, int], "array[int]"], start: int, end: int) -> None:
        self._read, self._start, self._end = read, start, end

    def __len__(self) -> int:
        return self._end - self._start

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[int]: ...
    def __getitem__(self, at: int | slice) -> int | Sequence[int]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        return int(self._read("keys", self._start + at, self._start + at + 1)[0])


def _leading(key: int) -> int:
    return key >> _ORDER_BITS


def opened(folder: Path, sources: str) -> Index | None:
    """The index in a folder, if it is whole and was made from these sources; None where it has to be made.

    Each byte of it is read: a bit that changed would hide an answer, which would be paid for again.
    """
    try:
        head = msgspec.json.decode((folder / _HEAD).read_bytes(), type=_Head)
        same = (head.version, head.byte_order, head.sources) == (VERSION, sys.byteorder, sources)
        if same and all(_sum_of(folder / name) == told for name, told in head.sums.items()):
            return Index(folder, head)
    except (OSError, msgspec.MsgspecError):
        pass
    return None


def remove(folder: Path) -> None:
    """Remove the files of an index. Raises `OSError` where the system refuses."""
    for name in (_HEAD, _FAN_OUT, *_NAMES, _SPILL):
        (folder / name).unlink(missing_ok=True)


def _sum_of(path: Path) -> str:
    crc = size = 0
    with path.open("rb") as file:
        while piece := file.read(CRC_BYTES):
            crc, size = zlib.crc32(piece, crc), size + len(piece)
    return _sum(crc, size)


def _sum(crc: int, size: int) -> str:
    return f"{crc:08x} over {size} bytes"


# -- making one --------------------------------------------------------------------------------------------------------


def build(
    folder: Path,
    sources: str,
    runs: Sequence[str],
    files: Sequence[SourceFile],
    batches: Callable[[SourceFile], Iterable[Batch]],
) -> Index:
    """Make the index of these files, in whose order equal requests take their answers, and open it.

    `runs`: the ids of the runs that the files are of. `batches`: reads the rows of a file. Raises `CheckpointError`
    where answers come from more runs than an index can name, and whatever `batches` and the disk raise.
    """
    remove(folder)
    numbers = {run: number for number, run in enumerate(runs)}
    has_origins = any(file.first_ordinal is None or REUSED_FROM in file.columns for file in files)
    names = _NAMES if has_origins else _NAMES[:2]
    bits = min(MAX_BUCKET_BITS, (sum(file.rows for file in files) // BUCKET_ROWS).bit_length())
    with _Spill(folder / _SPILL, names, bits) as spill:
        for number, file in enumerate(files):
            first = 0
            for batch in batches(file):
                rows = pl.int_range(first, first + len(batch.hashes), dtype=pl.UInt64, eager=True)
                first += len(rows)
                origins = _origins(batch, file, rows, numbers) if has_origins else None
                spill.add(_entries_of(batch, rows + (number << ROW_BITS), origins))
        spill.flush()
        sums = _sorted(folder, spill)
    (folder / _SPILL).unlink()
    head = _Head(VERSION, sys.byteorder, sources, tuple(numbers), tuple(files), spill.written, sums)
    with contextlib.suppress(UnicodeEncodeError):  # a path that no JSON can hold: the index serves this session alone
        local.write_bytes(folder / _HEAD, msgspec.json.encode(head))
    return Index(folder, head)


def _entries_of(batch: Batch, places: pl.Series, origins: pl.Series | None) -> pl.DataFrame:
    """Keys, places and origins of the rows that have a hash."""
    hashes = batch.hashes.cast(pa.string())
    if hashes.null_count or _value_bytes(hashes)[1] != len(hashes) * HASH_CHARACTERS:  # a row never sent has none
        is_hash = pc.fill_null(pc.equal(pc.binary_length(hashes), HASH_CHARACTERS), False)
        hashes, kept = hashes.filter(is_hash), pl.Series(is_hash)
        places, origins = places.filter(kept), None if origins is None else origins.filter(kept)
    words = _numbers(hashes.buffers()[2], *_value_bytes(hashes))
    step = HASH_CHARACTERS // BYTES
    keys = words.gather_every(step) * _FACTORS[0] + words.gather_every(step, 1) * _FACTORS[1]
    columns = {"keys": keys, "places": places}
    return pl.DataFrame(columns if origins is None else columns | {"origins": origins})


def _value_bytes(texts: pa.StringArray) -> tuple[int, int]:
    """Where the characters of texts begin in their buffer, and how many bytes they have."""
    if not len(texts):
        return 0, 0
    offsets = memoryview(texts.buffers()[1]).cast("i")
    start = offsets[texts.offset]
    return start, offsets[texts.offset + len(texts)] - start


def _origins(batch: Batch, file: SourceFile, rows: pl.Series, runs: dict[str, int]) -> pl.Series:
    """Which call paid for each row: the one that it names, or the row itself."""
    ordinals = (
        rows + (file.first_ordinal or 0) if batch.ordinals is None else pl.Series(batch.ordinals.cast(pa.uint64()))
    )
    own = ordinals + (file.run << ROW_BITS)
    if batch.origins is None or batch.origin_ordinals is None or batch.origins.null_count == len(own):
        return own
    named = batch.origins.cast(pa.dictionary(pa.int32(), pa.string()))
    for run in named.dictionary.to_pylist():
        if runs.setdefault(run, len(runs)) >= MAX_RUNS:
            raise CheckpointError(f"{file.path}: its answers come from more than {MAX_RUNS:,} runs.")
    numbers = pa.array([runs[run] for run in named.dictionary.to_pylist()], pa.uint64())
    paid_by = pl.Series(numbers.take(named.indices)) * (1 << ROW_BITS) + pl.Series(batch.origin_ordinals).cast(
        pl.UInt64, strict=False
    )
    return paid_by.fill_null(own)


class _Spill:
    """Entries, divided into buckets by the first bits of their keys, as they came, in one file."""

    def __init__(self, path: Path, names: Sequence[str], bits: int) -> None:
        self.names, self.bits = names, bits
        self.written = 0
        self._file = path.open("wb+", buffering=0)
        self._waiting: list[pl.DataFrame] = []
        self._rows = self._size = 0
        self._pieces: list[list[tuple[int, int]]] = [[] for _ in range(1 << bits)]  # offset and entries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, entries: pl.DataFrame) -> None:
        """Some more entries."""
        self._waiting.append(entries)
        self._rows += len(entries)
        if self._rows >= SPILLED_ROWS:
            self.flush()

    def flush(self) -> None:
        """Set down what waits."""
        if not self._waiting:
            return
        whole = pl.concat(self._waiting)
        self._waiting, self._rows = [], 0
        number = whole["keys"] // (1 << (64 - self.bits)) if self.bits else pl.zeros(len(whole), pl.UInt64, eager=True)
        for piece in whole.with_columns(bucket=number.cast(pl.UInt16)).partition_by("bucket", maintain_order=True):
            self._pieces[piece["bucket"][0]].append((self._size, len(piece)))
            for name in self.names:
                self._size += self._file.write(_bytes_of(piece[name])) or 0

    def bucket(self, number: int) -> pl.DataFrame:
        """The entries of a bucket, in the order in which they came."""
        pieces = self._pieces[number]
        size = BYTES * sum(rows for _, rows in pieces)
        columns = {name: bytearray(size) for name in self.names}
        done = 0
        for offset, rows in pieces:
            for at, column in enumerate(columns.values()):
                os.preadv(
                    self._file.fileno(), [memoryview(column)[done : done + BYTES * rows]], offset + BYTES * at * rows
                )
            done += BYTES * rows
        return pl.DataFrame({name: _numbers(column, 0, size) for name, column in columns.items()})


def _sorted(folder: Path, spill: _Spill) -> dict[str, str]:
    """Write the files of the index; returns their sums."""
    files = {name: _Summed(folder / name) for name in (*spill.names, _FAN_OUT)}
    fan_out = array("Q", [0])
    slots_each = 1 << (SLOT_BITS - spill.bits)
    for number in range(1 << spill.bits):
        found = spill.bucket(number)
        if "origins" in spill.names:
            found = found.unique(["keys", "origins"], keep="first", maintain_order=True)
        leading = found["keys"] * (1 << spill.bits) // (1 << _ORDER_BITS) * (1 << _ORDER_BITS)
        order = (leading + pl.int_range(len(found), dtype=pl.UInt64, eager=True)).sort() % (1 << _ORDER_BITS)
        keys = found["keys"].gather(order)
        borders = pl.int_range(1, slots_each + 1, dtype=pl.UInt64, eager=True) + number * slots_each
        ends = (keys // (1 << (64 - SLOT_BITS))).search_sorted(borders, side="left")
        fan_out.extend(spill.written + end for end in ends.to_list())
        files["keys"].write(_bytes_of(keys))
        for name in spill.names[1:]:
            files[name].write(_bytes_of(found[name].gather(order)))
        spill.written += len(found)
    files[_FAN_OUT].write(memoryview(fan_out).cast("B"))
    return {name: file.close() for name, file in files.items()}


class _Summed:
    """A file that is written once, from its start, and its checksum."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._crc = self._size = 0

    def write(self, data: memoryview) -> None:
        """Write all of it."""
        self._crc = zlib.crc32(data, self._crc)
        while data:
            done = self._file.write(data)
            self._size, data = self._size + done, data[done:]

    def close(self) -> str:
        """Close the file; returns its sum."""
        self._file.close()
        return _sum(self._crc, self._size)


def _numbers(buffer: Any, offset: int, size: int) -> pl.Series:
    """Numbers of 64 bits in these bytes of a buffer."""
    data = pa.py_buffer(memoryview(buffer)[offset : offset + size]) if size else pa.py_buffer(b"")
    return pl.Series(pa.Array.from_buffers(pa.uint64(), size // BYTES, [None, data]))


def _bytes_of(numbers: pl.Series) -> memoryview:
    found = numbers.rechunk().to_arrow()
    if not len(found):
        return memoryview(b"")
    return memoryview(found.buffers()[1])[found.offset * BYTES : (found.offset + len(found)) * BYTES]
