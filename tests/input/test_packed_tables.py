"""Compressed CSV: the same cells as of the text within, told by content, and no shorter table where it was cut."""

import gzip
import hashlib
import pathlib
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.errors import InputChangedError, InputError
from cometbatch.input import csv as csv_layout
from cometbatch.input.table import Source, open_source, partitions

TABLE = "a,b\n" + "".join(f'{number * number},"x{number}\n, é"\n' for number in range(300))
PACK: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": lambda content: bytes(pa.compress(content, codec="zstd", asbytes=True)),
}


def cells(opened: Source, partition_rows: int = 70) -> list[list[object]]:
    """All cells, row by row."""
    identity = opened.check()
    tables = opened.tables(identity, partitions(identity.rows, partition_rows))
    return [list(row.values()) for table in tables for row in table.to_pylist()]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.CSV.zst"])
@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize("read_size", [7, csv_layout.READ_SIZE])
def test_what_is_within_is_read_whatever_the_name_says(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, coding: str, read_size: int
) -> None:
    """Content tells how a file is compressed; the identity is that of the file, with the size of the text within."""
    monkeypatch.setattr(csv_layout, "READ_SIZE", read_size)
    path = tmp_path / name
    path.write_bytes(PACK[coding](TABLE.encode()))
    opened = open_source(path)
    identity = opened.check()
    assert (opened.columns, identity.rows) == (("a", "b"), 300)
    assert (identity.size, identity.sha256) == opened.digest()
    assert identity.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert identity.decoded_size == len(TABLE.encode())
    assert cells(opened) == [[str(number * number), f"x{number}\n, é"] for number in range(300)]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_encodings_and_delimiters_are_those_of_the_text_within(tmp_path: pathlib.Path, coding: str) -> None:
    """A tab for .tsv, the job's own settings, byte order marks: as in a file that is not compressed."""
    path = tmp_path / "t.tsv.gz"
    path.write_bytes(PACK[coding]("\ufeffa\tb\n1\t2\n".encode()))
    assert cells(open_source(path)) == [["1", "2"]]
    path.write_bytes(PACK[coding]("a;b\n1;é\n".encode("utf-16")))
    assert cells(open_source(path, encoding="utf-16", delimiter=";")) == [["1", "é"]]
    with pytest.raises(InputError, match="is utf-16 text and can't be read as utf-8"):
        open_source(path)
    path.write_bytes(PACK[coding](b"a\tb\n1\t2\t3\n"))
    with pytest.raises(InputError, match="line 2: expected 2 cells"):
        open_source(path).check()


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("length", [(1 << 20) - 40, (1 << 20), (1 << 20) + 1, 5 << 20])
def test_a_row_above_the_bound_of_a_record_is_refused_with_its_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, coding: str, length: int
) -> None:
    """To the byte, since a compressed file may unpack to anything; the text of a plain one has its own bound."""
    monkeypatch.setattr(csv_layout, "MAX_RECORD_SIZE", 1 << 20)
    monkeypatch.setattr(csv_layout, "READ_SIZE", 1 << 14)
    content = b"a,b\n1,2\n" + b"3," + b"x" * (length - 2) + b"\n5,6\n"
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert open_source(path).check().rows == len(["1", "3", "5"])
    path.write_bytes(PACK[coding](content))
    if length <= 1 << 20:
        assert open_source(path).check().rows == len(["1", "3", "5"])
    else:
        with pytest.raises(InputError, match=r"t\.csv, line 3: a row is longer than 1,048,576 bytes"):
            open_source(path).check()


@settings(max_examples=60, deadline=None)
@given(coding=st.sampled_from(["gzip", "zstd"]), place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_damaged_file_is_never_another_table(
    tmp_path_factory: pytest.TempPathFactory, coding: str, place: float, flip: int
) -> None:
    """Cut off anywhere it is refused; a wrong byte is, too, or changes no cell where there is a checksum."""
    path = tmp_path_factory.mktemp("law") / ("t.csv.gz" if coding == "gzip" else "t.csv.zst")
    content = bytearray(PACK[coding](TABLE.encode()))
    at = int(place * len(content))
    path.write_bytes(content[:at])
    with pytest.raises(InputError):
        open_source(path).check()
    content[at] ^= flip
    path.write_bytes(content)
    try:
        found = cells(open_source(path))
    except InputError:
        return
    assert coding == "zstd" or found == [[str(number * number), f"x{number}\n, é"] for number in range(300)]


def test_a_file_that_was_packed_anew_has_changed(tmp_path: pathlib.Path) -> None:
    """What counts is the file's own bytes, as they are."""
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(TABLE.encode(), 9))
    opened = open_source(path)
    tables = opened.tables(opened.check(), partitions(300, 50))
    next(tables)
    path.write_bytes(path.read_bytes())
    next(tables)
    path.write_bytes(gzip.compress(TABLE.encode(), 1))
    with pytest.raises(InputChangedError):
        next(tables)
