"""The input as a file: what is no table is refused, and so is a file whose content changes while it is read.

Guards: only a regular file is opened, because a pipe can be read only once. Whatever fails becomes an `InputError`
that names the file. The file is opened here, once for each pass, and handed on as a file object, so that its name may
be any bytes.
"""

import hashlib
import io
import itertools
import os
import pathlib
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn, TypeAlias

import pyarrow as pa
from msgspec import Struct

from cometbatch.errors import InputChangedError, InputError, did_you_mean, quoting

TEXT_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson")
ENDINGS = (*TEXT_ENDINGS, ".parquet")
UNPACKED_ENDINGS = (".gz", ".zst")  # of compressed text, after the ending of what it is
KNOWN_ENDINGS = ".csv, .tsv, .jsonl or .parquet"
PACKED_ENDINGS = frozenset({".gz", ".zst", ".bz2", ".xz", ".zip"})
PACKED_MARKS = (  # the first bytes of a file that is not unpacked here
    (b"\x1f\x8b", "gzip"),  # within a file that was unpacked
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh9", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
MAX_SHOWN = 80  # characters of foreign text in a message; the rest is cut off
MAX_PATH_SHOWN = 1_000  # characters of a path in a message
MAX_NUMBERS = 10  # of columns in a message; of the others, the number is said
MAX_NAMES = 1_000  # of files in a folder that are compared with the name of one that is not there
READ_BYTES = 1 << 20  # of a file at a time, to sum up its content


def ending_of(name: str) -> str:
    """The end of a file's name that says what it holds, in small letters, such as .csv or .jsonl.gz; "" for none."""
    lower = name.lower()
    endings = (*ENDINGS, *(text + packed for text in TEXT_ENDINGS for packed in UNPACKED_ENDINGS))
    return next((each for each in endings if lower.endswith(each) and len(lower) > len(each)), "")


def kind_of(name: str) -> str:
    """The first part of `ending_of`, by which a table's kind is known: .csv, .tsv, .jsonl, .parquet; "" for none."""
    kind = next((each for each in ENDINGS if ending_of(name).startswith(each)), "")
    return ".jsonl" if kind == ".ndjson" else kind


def unused(encoding: str, delimiter: str | None) -> list[str]:
    """The keys that are set and mean nothing for a table that is no CSV."""
    keys = [] if encoding.lower() in {"utf-8", "utf8"} else ["input.encoding"]
    return keys + ([] if delimiter is None else ["input.delimiter"])


class FileIdentity(Struct, frozen=True):
    """One of several files that are one table: name from their folder on, size in bytes, SHA-256 (hex), rows."""

    name: str
    size: int
    sha256: str
    rows: int = 0


class Identity(Struct, frozen=True):
    """What tells this input from every other, and how it was read.

    `size` is that of the file. `decoded_size` is that of its rows in memory, which compression and repetition hide;
    for CSV it is that of its text. Both are in bytes. `files`: of an input in several files, which they are; sizes are
    sums then, and `sha256` is over the list of names, sizes and digests.
    """

    name: str
    size: int
    sha256: str
    rows: int
    columns: tuple[str, ...]
    decoded_size: int = 0
    files: tuple[FileIdentity, ...] = ()

    def rows_within(self, size: int) -> int:
        """How many rows of average length fit into `size` bytes; at least 1."""
        return max(1, size * max(1, self.rows) // max(1, self.size, self.decoded_size))


class Measured(Struct, frozen=True):
    """What one pass over the whole file finds out; the sizes are as in `Identity`."""

    rows: int
    size: int
    sha256: str
    decoded_size: int


Stamp: TypeAlias = tuple[int, int, int, int, int]
"""What tells that a file may have changed: device, inode, size, and the times of the last write and of any change."""


class OpenFile:
    """A file held open. `raw` is at its start; `size` is in bytes, as the file was opened."""

    def __init__(self, path: pathlib.Path, raw: io.BufferedReader) -> None:
        self.path = path
        self.raw = raw
        self.size = self.stamp()[2]

    def stamp(self) -> Stamp:
        """The file's stamp as it is now: one system call, whatever its size."""
        status = os.fstat(self.raw.fileno())
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def content(self, limit: int | None = None) -> tuple[int, str]:
        """Size in bytes and SHA-256 (hex) of what the file holds now, or of its first `limit` bytes.

        It is read past the buffer of `raw`, whose place stays: somebody may be reading there.
        """
        sha256, size = hashlib.sha256(), 0
        while block := os.pread(
            self.raw.fileno(), READ_BYTES if limit is None else min(READ_BYTES, limit - size), size
        ):
            sha256.update(block)
            size += len(block)
        return size, sha256.hexdigest()

    def edges(self) -> tuple[bytes, bytes]:
        """The first 8 and the last 4 bytes, where formats leave their marks."""
        head = self.raw.read(8)
        self.raw.seek(max(0, self.size - 4))
        tail = self.raw.read(4)
        self.raw.seek(0)
        return head, tail


class Content:
    """What a file was found to hold, by its stamp at that time.

    Guards: content decides whether an input is still the same. A stamp only saves to read it again: a file that was
    touched, copied back or written anew with the same bytes has not changed.
    """

    def __init__(self) -> None:
        self._sha256 = ""
        self._stamp: Stamp | None = None

    def note(self, sha256: str, stamp: Stamp) -> None:
        """Remember the content of a file whose stamp was this before it was read."""
        self._sha256, self._stamp = sha256, stamp

    def refuse_other(self, file: OpenFile, size: int, sha256: str) -> None:
        """Raise `InputChangedError` where the file does not hold these bytes any more.

        Without an earlier look at the same content, the file is taken at its size.
        """
        stamp = file.stamp()
        if self._sha256 != sha256 and stamp[2] == size:
            self.note(sha256, stamp)
        if stamp == self._stamp:
            return
        if (stamp[2], file.content()[1]) != (size, sha256):
            is_longer = stamp[2] > size and file.content(size)[1] == sha256
            raise changed(file.path, as_it_was=size if is_longer else None)
        self.note(sha256, stamp)


@contextmanager
def opened(path: pathlib.Path) -> Iterator[OpenFile]:
    """The file, open for reading. Raises `InputError` for what is no regular file, or can't be opened."""
    with refusing(path):
        _refuse_irregular(path)
        raw = path.open("rb")
    with raw:
        yield OpenFile(path, raw)


def digest(raw: io.BufferedReader) -> tuple[int, str]:
    """Size in bytes and SHA-256 (hex) of the whole file."""
    raw.seek(0)
    sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
    return raw.tell(), sha256


def changed(path: pathlib.Path, as_it_was: int | None = None) -> InputChangedError:
    """The error where a file is not what it was. `as_it_was`: of a file that only grew, the bytes that it had."""
    return InputChangedError(shown(str(path), limit=MAX_PATH_SHOWN), as_it_was)


# ---------------------------------------------------------------- refusing


def refuse(path: pathlib.Path, what: str, line: int | None = None, *, quote: str = "") -> NoReturn:
    """Raise an `InputError` that says where and what; lines count from 1. `quote`: what of it stands in the table."""
    where = f"{shown(str(path), limit=MAX_PATH_SHOWN)}" + ("" if line is None else f", line {line}")
    raise InputError(quoting(f"{where}: {what}", quote))


@contextmanager
def refusing(path: pathlib.Path) -> Iterator[None]:
    """Turn the errors of the system and of pyarrow into an `InputError`."""
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or shown(str(exc))
        near = _names_near(path) if isinstance(exc, FileNotFoundError) else ""
        raise InputError(f"{shown(str(path), limit=MAX_PATH_SHOWN)}: can't be read: {reason}{near}") from exc
    except (pa.ArrowException, UnicodeError) as exc:
        reason = shown(str(exc), limit=300)
        words = f"{shown(str(path), limit=MAX_PATH_SHOWN)}: can't be read: {reason}; "
        raise InputError(quoting(f"{words}if the file is damaged, write or copy it again", reason)) from exc


def _names_near(path: pathlib.Path) -> str:
    """A hint at a table of nearly this name beside it, or at the folder or a link's file that is not there either."""
    if path.is_symlink():
        return "; it is a link to a file that is not there"
    if not path.parent.is_dir():
        return f"; there is no folder {shown(str(path.parent), limit=MAX_PATH_SHOWN)}"
    with suppress(OSError):
        names = (each.name for each in itertools.islice(path.parent.iterdir(), MAX_NAMES))
        near = did_you_mean(path.name, filter(ending_of, names))
        return f"; {near}" if near else ""
    return ""


def shown(text: str, *, limit: int = MAX_SHOWN) -> str:
    """Foreign text fit for a message: one line, no control or direction characters, at most `limit` characters."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def refuse_packed(path: pathlib.Path, head: bytes) -> None:
    """Raise `InputError` where the first bytes are those of a compressed file or an archive."""
    for mark, kind in PACKED_MARKS:
        if head.startswith(mark):
            refuse(path, f"is {kind}, not text; unpack or export it to {KNOWN_ENDINGS} first")


def refuse_duplicates(path: pathlib.Path, columns: Sequence[str]) -> None:
    """Raise `InputError` where two columns have the same name."""
    places: dict[str, list[int]] = {}
    for position, name in enumerate(columns, start=1):
        places.setdefault(name, []).append(position)
    same = [f'"{shown(name)}" (columns {_numbers(at)})' for name, at in places.items() if len(at) > 1]
    if same:
        refuse(path, f"column names must differ, but these come more than once: {'; '.join(same[:10])}; rename them")


def _numbers(numbers: Sequence[int]) -> str:
    """The first of some numbers, and how many more there are."""
    words = ", ".join(map(str, numbers[:MAX_NUMBERS]))
    return words + (f" and {len(numbers) - MAX_NUMBERS:,} more" if len(numbers) > MAX_NUMBERS else "")


def _refuse_irregular(path: pathlib.Path) -> None:
    try:
        mode = path.stat().st_mode
    except ValueError as exc:  # a NUL in the path
        raise InputError(f"{shown(str(path))}: is no possible file name") from exc
    if stat.S_ISDIR(mode):
        refuse(path, f"is a directory; name one {KNOWN_ENDINGS} file")
    if not stat.S_ISREG(mode):  # opening a pipe would wait, and it can't be read twice
        refuse(path, "is not a regular file but a pipe or device, which can't be read twice; save it as a file first")
