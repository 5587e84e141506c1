import ast
import csv
import errno
import hashlib
import io
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.errors import InputError
from cometbatch.input import csv as csv_layout
from cometbatch.input import parquet as parquet_layout
from cometbatch.input.files import Identity
from cometbatch.input.table import Source, open_source, partitions
from cometbatch.input.values import row_values
from cometbatch.records import Partition
from tests import make_evaluation_data, make_sample_data
from tests.test_values import every_type

moderate = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder: pathlib.Path, content: bytes, name: str = "input.csv") -> pathlib.Path:
    """The file that a test reads."""
    path = folder / name
    path.write_bytes(content)
    return path


def cells(opened: Source, identity: Identity, partition_rows: int = 1_000) -> list[list[object]]:
    """All rows, read the way that a run reads them."""
    tables = opened.tables(identity, partitions(identity.rows, partition_rows))
    return [list(row.values()) for table in tables for row in row_values(table, opened.columns)]


def refusal(path: pathlib.Path, **options: Any) -> str:
    """The words with which the file is refused before a run."""
    with pytest.raises(InputError) as caught:
        open_source(path, **options).check()
    return str(caught.value)


# ---------------------------------------------------------------- CSV that is readable

READABLE: dict[str, tuple[bytes, list[list[object]]]] = {
    "plain": (b"a,b\n1,2\n", [["1", "2"]]),
    "no line break at the end": (b"a,b\n1,2", [["1", "2"]]),
    "header only": (b"a,b\n", []),
    "header only, no line break": (b"a,b", []),
    "header and blank lines": (b"a,b\n\n\n", []),
    "numbers stay text": (b"a,b\n007,1.50\n1e5,0x1F\n", [["007", "1.50"], ["1e5", "0x1F"]]),
    "words for nothing stay text": (b"a,b\nNULL,NaN\nnull,N/A\n", [["NULL", "NaN"], ["null", "N/A"]]),
    "dates and booleans stay text": (b"a,b\n2025-01-02,true\n", [["2025-01-02", "true"]]),
    "an empty cell is empty text": (b'a,b\n,""\n', [["", ""]]),
    "spaces are kept": (b"a,b\n  1 , 2\t\n", [["  1 ", " 2\t"]]),
    "byte order mark": (b"\xef\xbb\xbfa,b\n1,2\n", [["1", "2"]]),
    "byte order mark before a quoted name": (b'\xef\xbb\xbf"a",b\n1,2\n', [["1", "2"]]),
    "two byte order marks": (b"\xef\xbb\xbf\xef\xbb\xbfa,b\n1,2\n", [["1", "2"]]),
    "byte order mark in a row": (b"a,b\n\xef\xbb\xbf1,2\n", [["\ufeff1", "2"]]),
    "CR LF": (b"a,b\r\n1,2\r\n", [["1", "2"]]),
    "lone CR": (b"a,b\r1,2\r3,4", [["1", "2"], ["3", "4"]]),
    "mixed line ends": (b"a,b\r\n1,2\n3,4\r5,6", [["1", "2"], ["3", "4"], ["5", "6"]]),
    "blank lines are skipped": (b"\n\r\na,b\n\n1,2\r\n\r\n3,4\n\n", [["1", "2"], ["3", "4"]]),
    "a blank line in one column is a row": (b"a\n1\n\n2\n", [["1"], [""], ["2"]]),
    "blank lines in one column are rows": (b"\n\na\r\n\r\n\r\n1\r\n\r\n\r\n2", [[""], [""], ["1"], [""], [""], ["2"]]),
    "the last blank line in one column is no row": (b"a\n1\n\n", [["1"]]),
    "of several last blank lines in one column one is no row": (b"a\n1\n\n\n\n", [["1"], [""], [""]]),
    "one column of one blank line": (b"a\n\n", []),
    "a blank line in a cell of one column": (b'a\n"1\n\n2"\n\n3\n', [["1\n\n2"], [""], ["3"]]),
    "an empty cell in one column": (b'a\n""\n1\n', [[""], ["1"]]),
    "line breaks in cells": (b'a,b\n"1\n\n2","3\r\n4"\n', [["1\n\n2", "3\r\n4"]]),
    "delimiter in a cell": (b'a,b\n"1,2",3\n', [["1,2", "3"]]),
    "doubled quotes": (b'a,b\n"say ""hi""",""""\n', [['say "hi"', '"']]),
    "a stray quote is text": (b'a,b\n5" pipe,6"\n', [['5" pipe', '6"']]),
    "stray quotes next to quoted cells": (b'a,b\nx"y"z,"1"\n"2",w""\n', [['x"y"z', "1"], ["2", 'w""']]),
    "a quote after a space is text": (b'a,b\n "1", 2\n', [[' "1"', " 2"]]),
    "NUL in a cell": (b"a,b\n\x00,x\x00y\n", [["\x00", "x\x00y"]]),
    "backslashes escape nothing": (b'a,b\n\\n,"c:\\"\n', [["\\n", "c:\\"]]),
    "formulas and templates": (b"a,b\n=1+1,{{ 7*7 }}\n", [["=1+1", "{{ 7*7 }}"]]),
    "other Unicode line separators": ("a,b\nx\u2028y,\x0b\x0c\x85\n".encode(), [["x\u2028y", "\x0b\x0c\x85"]]),
    "emoji": ("a,b\n👨‍👩‍👧,é\n".encode(), [["👨‍👩‍👧", "é"]]),
    "a name that is empty": (b",b\n1,2\n", [["1", "2"]]),
    "a name over two lines": (b'"a\nx",b\n1,2\n', [["1", "2"]]),
    "a last line of one column that is quoted": (b'a\n"x"', [["x"]]),
    "comment signs are text": (b"a,b\n#1,2\n", [["#1", "2"]]),
    "a row of empty cells": (b"a,b\n,\n", [["", ""]]),
}


@pytest.mark.parametrize(("content", "expected"), READABLE.values(), ids=READABLE)
@pytest.mark.parametrize("read_size", [1, 3, csv_layout.READ_SIZE])
def test_text_comes_back_as_it_is(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    expected: list[list[object]],
    read_size: int,
) -> None:
    """Every CSV cell is the text between its delimiters, wherever the blocks of the file happen to end."""
    opened = open_source(written(tmp_path, content))
    monkeypatch.setattr(csv_layout, "READ_SIZE", read_size)
    identity = opened.check()
    assert cells(opened, identity) == expected
    assert identity.rows == len(expected)
    assert set(opened.schema.types) == {pa.string()}


@pytest.mark.parametrize(
    ("name", "options", "content"),
    [
        ("t.tsv", {}, b"a\tb\n1,5\t2\n"),
        ("t.TSV", {}, b"a\tb\n1,5\t2\n"),
        ("t.CSV", {"delimiter": ";"}, b"a;b\n1,5;2\n"),
        ("t.csv", {"delimiter": "|"}, b"a|b\n1,5|2\n"),
        ("t.csv", {"delimiter": " "}, b"a b\n1,5 2\n"),
        ("t.csv", {"delimiter": "^"}, b"a^b\n1,5^2\n"),
        ("t.csv", {"delimiter": "]"}, b"a]b\n1,5]2\n"),
        ("t.csv", {"delimiter": "\\"}, b"a\\b\n1,5\\2\n"),
        ("t.csv", {"delimiter": "-"}, b"a-b\n1,5-2\n"),
        ("t.csv", {"delimiter": "\x1f"}, b"a\x1fb\n1,5\x1f2\n"),
        ("t.csv", {"encoding": "UTF8"}, b'a,b\n"1,5",2\n'),
    ],
)
def test_any_ascii_character_can_separate(
    tmp_path: pathlib.Path, name: str, options: dict[str, str], content: bytes
) -> None:
    """The delimiter follows from the ending, or is what the job says, signs of regular expressions included."""
    opened = open_source(written(tmp_path, content, name), **options)
    assert cells(opened, opened.check()) == [["1,5", "2"]]
    assert opened.warnings == ()


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-16", 'a,b\nü,中\r\n"x\r\n",\'\n'),
        ("utf-16-le", '\ufeffa,b\nü,中\r\n"x\r\n",\'\n'),
        ("utf_16_be", 'a,b\nü,😀\r\n"x\r\n",\'\n'),
        ("utf-32", 'a,b\nü,😀\r\n"x\r\n",\'\n'),
        ("utf-8-sig", 'a,b\nü,😀\r\n"x\r\n",\'\n'),
        ("cp1252", 'a,b\nü,€\r\n"x\r\n",\'\n'),
        ("latin-1", 'a,b\nü,\x80\r\n"x\r\n",\'\n'),
        ("shift_jis", 'a,b\nソ,表\r\n"x\r\n",\'\n'),
        ("gb18030", 'a,b\n中,😀\r\n"x\r\n",\'\n'),
    ],
)
@pytest.mark.parametrize("read_size", [1, 5, csv_layout.READ_SIZE])
def test_other_encodings_are_read_when_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, encoding: str, text: str, read_size: int
) -> None:
    """What `input.encoding` says is what the file is read as, byte order mark or not, in blocks of any size."""
    expected = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    opened = open_source(written(tmp_path, text.encode(encoding)), encoding=encoding)
    monkeypatch.setattr(csv_layout, "READ_SIZE", read_size)
    assert [list(opened.columns), *cells(opened, opened.check())] == expected


DIALECTS: tuple[tuple[str, Literal[0, 1]], ...] = (
    ("\r\n", csv.QUOTE_MINIMAL),
    ("\r\n", csv.QUOTE_ALL),
    ("\n", csv.QUOTE_ALL),
    ("\r", csv.QUOTE_ALL),
)
cell_text = st.text(st.sampled_from('a,"\n\r;\t é😀\ufeff\0') | st.characters(exclude_categories=["Cs"]), max_size=6)


@moderate
@given(
    lines=st.lists(st.text("ab", max_size=3), min_size=1, max_size=12),
    read_size=st.integers(1, 12),
    partition_rows=st.integers(1, 5),
)
def test_one_column_has_a_row_for_each_line(
    tmp_path: pathlib.Path, lines: list[str], read_size: int, partition_rows: int
) -> None:
    """A writer puts the null of a one-column table as an empty line: a row too, unless it is the very last."""
    opened = open_source(written(tmp_path, "".join(f"{line}\n" for line in ["head", *lines]).encode()))
    due = lines if lines[-1] else lines[:-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_layout, "READ_SIZE", read_size)
        assert cells(opened, opened.check(), partition_rows) == [[line] for line in due]


@moderate
@given(data=st.data(), width=st.integers(1, 4), read_size=st.integers(1, 40), partition_rows=st.integers(1, 5))
def test_what_a_csv_writer_wrote_comes_back(
    tmp_path: pathlib.Path, data: st.DataObject, width: int, read_size: int, partition_rows: int
) -> None:
    """Any table of text survives the trip, with any block size and any partition size."""
    wanted = data.draw(st.lists(st.lists(cell_text, min_size=width, max_size=width), max_size=12))
    # Up to Python 3.12 the writer only quotes the line breaks that it writes itself.
    ends, quoting = data.draw(st.sampled_from(DIALECTS))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=ends, quoting=quoting)
    writer.writerow([f"c{number}" for number in range(width)])
    writer.writerows(wanted)
    opened = open_source(written(tmp_path, text.getvalue().encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_layout, "READ_SIZE", read_size)
        identity = opened.check()
        assert cells(opened, identity, partition_rows) == wanted
    assert identity.rows == len(wanted)


def strictly_read(text: str) -> list[list[str]] | None:
    """What Python's own reader says; None where it, or the count of cells, says no."""
    try:
        found = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error:
        return None
    return found if all(len(row) == len(found[0]) for row in found) else None


@moderate
@given(text=st.text(st.sampled_from('",\n\rx\ufeff'), max_size=25), read_size=st.integers(1, 9))
def test_what_is_accepted_is_what_a_strict_reader_accepts(tmp_path: pathlib.Path, text: str, read_size: int) -> None:
    """Text is either refused with a line, or means what Python's csv module takes it for in its strict mode."""
    text = "a,b\n" + text
    opened = open_source(written(tmp_path, text.encode()))
    expected = strictly_read(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_layout, "READ_SIZE", read_size)
        if expected is None:
            with pytest.raises(InputError, match=r"input\.csv, line \d+: "):
                opened.check()
        else:
            assert cells(opened, opened.check()) == expected[1:]


def test_a_line_break_on_the_edge_of_a_block_is_kept(tmp_path: pathlib.Path) -> None:
    """A CR LF within a cell stays whole although the first 1 MiB of the file ends between the two."""
    start = b'a,b\n1,"'
    filler = b"x" * ((1 << 20) - len(start) - 1)
    opened = open_source(written(tmp_path, start + filler + b'\r\n"\n2,3\n'))
    assert cells(opened, opened.check()) == [["1", filler.decode() + "\r\n"], ["2", "3"]]


def test_a_cell_may_be_longer_than_a_block(tmp_path: pathlib.Path) -> None:
    """Cells of several MiB are read, with quotes and line breaks in them, and rows after them keep their places."""
    long = 'a "long" text\r\n' * 300_000
    content = f'a,b\n1,"{long.replace(chr(34), chr(34) * 2)}"\n2,{"y" * 3_000_000}\n3,z\n'.encode()
    opened = open_source(written(tmp_path, content))
    assert cells(opened, opened.check(), 1) == [["1", long], ["2", "y" * 3_000_000], ["3", "z"]]


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 3_072, 100_000])
@pytest.mark.parametrize(
    ("header", "line", "row"),
    [
        ("a,b", lambda count: '1,"%s"' % ('""x' * count), lambda count: ["1", '"x' * count]),
        ("a,b", lambda count: '1,"%s"' % ('""' * count), lambda count: ["1", '"' * count]),
        ("a,b", lambda count: "1,x" + '"' * count, lambda count: ["1", "x" + '"' * count]),
        ("a", lambda count: '"x\n"\n' * (count - 1) + '"y"', lambda _: ["y"]),
    ],
    ids=["doubled quotes with text", "doubled quotes alone", "quotes that are text", "quoted cells"],
)
def test_any_number_of_quotes_is_read(
    tmp_path: pathlib.Path, header: str, line: Callable[[int], str], row: Callable[[int], list[str]], count: int
) -> None:
    """Any number of quotes in a cell, or of quoted cells in a file, is read."""
    opened = open_source(written(tmp_path, f"{header}\n{line(count)}\nlast{',z' * header.count(',')}\n".encode()))
    *_, found, last = cells(opened, opened.check())
    assert (found, last[0]) == (row(count), "last")


@pytest.mark.parametrize("width", [1, 2, 63, 64, 65, 3_072, 20_000])
def test_any_number_of_quoted_cells_makes_a_row(tmp_path: pathlib.Path, width: int) -> None:
    """A row may have any number of quoted cells."""
    lines = [",".join(f'"{name}{number}"' for number in range(width)) for name in "abc"]
    opened = open_source(written(tmp_path, "\n".join(lines).encode()))
    assert cells(opened, opened.check()) == [[f"{name}{number}" for number in range(width)] for name in "bc"]


# ---------------------------------------------------------------- what Python 3.11.2 made of possessive quantifiers

# Before Python 3.11.5 (python/cpython#106052), the regular expression engine matches possessive quantifiers and
# atomic groups wrongly when what they repeat can step back. Debian 12 has such a Python, and others can't see it.


def test_100_000_short_lines_are_100_000_rows(tmp_path: pathlib.Path) -> None:
    """A long table of one column gains no rows and loses none."""  # there were 100,004
    wanted = [[f"line {number}"] for number in range(100_000)]
    opened = open_source(written(tmp_path, "\n".join(["text", *(row[0] for row in wanted)]).encode()))
    identity = opened.check()
    assert identity.rows == 100_000
    assert cells(opened, identity) == wanted


def test_several_columns_are_read_beyond_the_first_mib(tmp_path: pathlib.Path) -> None:
    """Rows that lie across the edge of a block stay whole."""  # "Expected 2 columns, got 1"
    wanted = [[str(number), f"some text, {number}"] for number in range(100_000)]
    content = "a,b\n" + "".join(f'{number},"{text}"\n' for number, text in wanted)
    assert len(content) > 2 << 20
    opened = open_source(written(tmp_path, content.encode()))
    assert cells(opened, opened.check()) == wanted


def test_a_quote_that_stays_open_never_passes_for_a_row(tmp_path: pathlib.Path) -> None:
    """An open quote is refused with its line."""  # it was one row instead
    message = refusal(written(tmp_path, b'a,b\n1,"x\n2,y\n3,z\n'))
    assert 'line 2: column 2 ("b"): the quote that opens here is never closed' in message


@pytest.mark.parametrize("content", [b"a", b"a,b", b'"a","b"', b"a,b\n", b"a,b\r"])
def test_a_header_alone_is_a_table_without_rows(tmp_path: pathlib.Path, content: bytes) -> None:
    """A header is readable without rows, and without a line break at its end."""  # that was refused
    opened = open_source(written(tmp_path, content))
    assert opened.check().rows == 0


POSSESSIVE = re.compile(r"[*+?}]\+|\(\?>")
ESCAPED = re.compile(r"\\.", re.DOTALL)


def is_possessive(text: str | bytes) -> bool:
    """Whether the text, if it is a regular expression, has a possessive quantifier or an atomic group."""
    plain = text if isinstance(text, str) else text.decode("latin-1")
    return POSSESSIVE.search(ESCAPED.sub("_", plain)) is not None


@pytest.mark.parametrize("text", ["a*+", "a++", "a?+", "a{2}+", "a{2,}+", "a{,2}+", "a{1,2}+", "(?>a)", rb"\++\\*+"])
def test_each_possessive_form_is_seen(text: str | bytes) -> None:
    """The test below can fail: it sees each form there is, and re takes each for one, too."""
    assert is_possessive(text)
    re.compile(text)


@pytest.mark.parametrize("text", ["a+", "a*?", r"a\*+", r"\++", rb"a{2}b+", "(?:>a)+", "(?=(a*))b"])
def test_no_other_form_is_taken_for_possessive(text: str | bytes) -> None:
    """What is not possessive may be used."""
    assert not is_possessive(text)
    re.compile(text)


def literals(module: pathlib.Path) -> Iterator[tuple[int, str | bytes]]:
    """The texts in a module's code, with their lines."""
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            yield node.lineno, node.value


def test_no_pattern_in_the_package_is_possessive() -> None:
    """No regular expression that a supported Python would match wrongly is anywhere in the package."""
    folder = pathlib.Path(cometbatch.__file__).parent
    modules = sorted(folder.rglob("*.py"))
    assert folder / "input" / "table.py" in modules
    found = [
        f"{module.relative_to(folder)}, line {line}: {text!r}"
        for module in modules
        for line, text in literals(module)
        if is_possessive(text)
    ]
    assert found == []


# ---------------------------------------------------------------- what is refused

BAD_TEXT: dict[str, tuple[bytes, dict[str, str], list[str]]] = {
    "empty": (b"", {}, ["is empty", "header line"]),
    "blank lines only": (b"\n\r\n\n", {}, ["no header line"]),
    "byte order mark only": (b"\xef\xbb\xbf", {}, ["no header line"]),
    "too many cells": (b"a,b\n1,2\n3,4,5\n", {}, ["line 3", "expected 2 cells", "found 3", "3,4,5", "quotes around"]),
    "too few cells": (b"a,b\n1\n", {}, ["line 2", "expected 2 cells", "found 1"]),
    "too few cells in the last line": (b"a,b,c\n1,2,3\n4,5", {}, ["line 3", "expected 3 cells", "found 2"]),
    "a line of spaces": (b"a,b\n1,2\n  \n", {}, ["line 3", "found 1"]),
    "ragged after a cell of three lines": (b'a,b\n"1\r\n2\n3",4\n5\n', {}, ["line 5", "found 1", "begins 5"]),
    "ragged row that begins lines before it ends": (b'a,b\n1,2\n"x\ny",2,3\n', {}, ["line 3:", 'begins "x\\ny",2,3']),
    "ragged after blank lines": (b"a,b\r\n\r\n\r\n1\r\n", {}, ["line 4", "found 1"]),
    "ragged after blank lines in one column": (b"a\n1\n\n\n2,3\n", {}, ["line 5", "found 2", "begins 2,3"]),
    "ragged rows of several lines after blank ones": (b'a\n\n"x\ny",2\n', {}, ["line 3", "found 2"]),
    "an unclosed quote after blank lines in one column": (b'a\n1\n\n\n"2\n', {}, ["line 5", "never closed"]),
    "not UTF-8 after blank lines in one column": (b"a\n\n\n\xff\n", {}, ["line 4", "0xFF"]),
    "ragged with lone CR": (b"a,b\r1,2\r3\r", {}, ["line 3", "found 1"]),
    "a very long ragged row": (b"a,b\n" + b"x" * 500_000, {}, ["line 2", "found 1", "xxx…"]),
    "control characters in a ragged row": (b"a,b\n\x1b[31m\x00\n", {}, ["line 2", "\\x1b[31m\\x00"]),
    "a direction mark in a ragged row": ("a,b\n\u202eabc\n".encode(), {}, ["line 2", "\\u202eabc"]),
    "unclosed quote": (b'a,b\n1,2\n3,"4\n5,6\n', {}, ["line 3", 'column 2 ("b")', "never closed"]),
    "unclosed quote after others": (b'a,b\n"1","x\ny"\n\n"3', {}, ["line 5", 'column 1 ("a")', "never closed"]),
    "a lone quote at the end": (b'a,b\n1,"', {}, ["line 2", "never closed"]),
    "an even number of quotes, and yet unclosed": (b'a,b\n5",6\n1,"2\n', {}, ["line 3", "never closed"]),
    "text after a closing quote": (b'a,b\n1,2\n"x"y,2\n', {}, ["line 3", 'column 1 ("a")', "more text follows"]),
    "space after a closing quote": (b'a,b\n1,"x" \n', {}, ["line 2", 'column 2 ("b")', "must be doubled"]),
    "a quote that is not doubled": (b'a,b\n1,"say "hi" to"\n', {}, ["line 2", "must be doubled"]),
    "closed lines later": (b'a,b\n1,"x\n\ny"z\n', {}, ["line 2", "closes on line 4"]),
    "unclosed quote in the header": (b'a,"b\n1,2\n', {}, ["line 1", "never closed"]),
    "text after a quote in the header": (b'"a"x,b\n1,2\n', {}, ["line 1", "more text follows"]),
    "a header that never ends": (b"a" * (2 << 20), {}, ["line 1", "the header"]),
    "a header of too many names": (b"abc," * (1 << 19), {}, ["line 1", "header is longer"]),
    "a quote that swallows a large file": (b'a,"b\n' + b"1,2\n" * 600_000, {}, ["line 1"]),
    "not UTF-8": (
        b"a,b\n1,2\nx,caf\xe9 au lait\n",
        {},
        ["line 3", '("b")', "0xE9", "utf-8", "input.encoding", "cp1252"],
    ),
    "not UTF-8 in a later line of a cell": (b'a,b\n1,"x\ny\xff"\n', {}, ["line 3", "0xFF"]),
    "UTF-8 cut off at the end": (b"a,b\n1,\xe2\x82", {}, ["line 2", "0xE2"]),
    "not UTF-8 after a lone CR": (b"a,b\r1,2\r\xff,4\r", {}, ["line 3", 'column 1 ("a")', "0xFF"]),
    "cut off after a lone CR": (b"a,b\r1,2\r\xe2\x82", {}, ["line 3", 'column 1 ("a")', "0xE2"]),
    "not UTF-8 after a CR LF in a cell": (b'a,b\r\n1,"2\r\n\xff"\r\n', {}, ["line 3", 'column 2 ("b")', "0xFF"]),
    "an unclosed quote after CR LF in a cell": (
        b'a,b\r\n"1\r\n","\r\n2',
        {},
        ["line 3", 'column 2 ("b")', "never closed"],
    ),
    "UTF-8 of a surrogate": (b"a,b\n\xed\xa0\x80,2\n", {}, ["line 2", '("a")']),
    "not UTF-8 in the header": (b"a,\xfc\n1,2\n", {}, ["line 1", "column 2", "0xFC"]),
    "not UTF-8 after a good MiB": (
        b"a,b\n" + b"1,%b\n" % (b"2" * 1_000) * 1_200 + b"3,\xff\n",
        {},
        ["line 1202", "0xFF"],
    ),
    "undefined in cp1252": (b"a,b\n1,\x81\n", {"encoding": "cp1252"}, ["line 2", "0x81", "cp1252"]),
    "not ASCII": (b"a,b\n1,\xc3\xbc\n", {"encoding": "ascii"}, ["line 2", "0xC3", "ascii"]),
    "odd UTF-16": ("a,b\n1,2\n".encode("utf-16") + b"x", {"encoding": "utf-16"}, ["line 3", "utf-16"]),
    "a surrogate from UTF-7": (b"a,b\n+2AA-,1\n", {"encoding": "utf-7"}, ["line 2", "utf-7"]),
    "UTF-16-LE": ("a,b\n1,2\n".encode("utf-16"), {}, ["is utf-16", "input.encoding: utf-16"]),
    "UTF-16-BE": (b"\xfe\xff" + "a,b\n1,2\n".encode("utf-16-be"), {}, ["input.encoding: utf-16"]),
    "UTF-16 read as latin-1": ("a,b\n1,2\n".encode("utf-16"), {"encoding": "latin-1"}, ["input.encoding: utf-16"]),
    "UTF-32": ("a,b\n1,2\n".encode("utf-32"), {}, ["input.encoding: utf-32"]),
    "UTF-16 without its mark": ("a,b\n1,2\n".encode("utf-16-le"), {}, ["line 1", "NUL", "utf-16-le"]),
    "gzip under another name": (b"\x1f\x8b\x08\0\0\0\0\0", {}, ["gzip", "unpack"]),
    "Excel under another name": (b"PK\x03\x04\x14\0\x06\0", {}, ["Excel", "export"]),
    "zstd under another name": (b"\x28\xb5\x2f\xfd\x04\0", {}, ["zstd"]),
    "names that are the same": (b"a,b,a\n1,2,3\n", {}, ["must differ", '"a" (columns 1, 3)', "rename"]),
    "several names that are the same": (b"a,b,a,b,c\n", {}, ['"a" (columns 1, 3)', '"b" (columns 2, 4)']),
    "two names that are empty": (b"a,,\n1,2,3\n", {}, ['"" (columns 2, 3)']),
    "unknown encoding": (b"a,b\n", {"encoding": "utf-9"}, ["unknown input.encoding utf-9"]),
    "a codec that is not about text": (b"a,b\n", {"encoding": "hex"}, ["unknown input.encoding"]),
    "a codec that never works": (b"a,b\n", {"encoding": "undefined"}, ["unknown input.encoding"]),
    "a codec that reads no streams": (b"a,b\n", {"encoding": "mbcs"}, ["unknown input.encoding"]),
    "NUL in the encoding": (b"a,b\n", {"encoding": "utf-8\0"}, ["unknown input.encoding utf-8\\x00"]),
    "no encoding": (b"a,b\n", {"encoding": ""}, ["unknown input.encoding"]),
    "a quote as delimiter": (b"a,b\n", {"delimiter": '"'}, ["input.delimiter"]),
    "a line break as delimiter": (b"a,b\n", {"delimiter": "\n"}, ["input.delimiter", "\\n"]),
    "CR as delimiter": (b"a,b\n", {"delimiter": "\r"}, ["input.delimiter"]),
    "NUL as delimiter": (b"a,b\n", {"delimiter": "\0"}, ["input.delimiter"]),
    "two delimiters": (b"a,b\n", {"delimiter": "||"}, ["one ASCII character", "||"]),
    "no delimiter": (b"a,b\n", {"delimiter": ""}, ["input.delimiter", "nothing"]),
    "a name hundreds of times": (b",".join([b"a"] * 300) + b"\n", {}, ["(columns 1, 2", "9, 10 and 290 more)"]),
    "a delimiter beyond ASCII": (b"a,b\n", {"delimiter": "§"}, ["one ASCII character", "§"]),
}


@pytest.mark.parametrize(("content", "options", "phrases"), BAD_TEXT.values(), ids=BAD_TEXT)
def test_bad_text_is_refused_with_place_and_reason(
    tmp_path: pathlib.Path, content: bytes, options: dict[str, str], phrases: list[str]
) -> None:
    """Text that can't be read is refused before a run, in one line that says what, where and what to do."""
    path = written(tmp_path, content)
    message = refusal(path, **options)
    assert message.startswith(f"{path}")
    assert [phrase for phrase in phrases if phrase not in message] == []
    assert message.isprintable()
    assert len(message) < len(str(path)) + 350


@pytest.mark.parametrize("case", ["too many cells", "closed lines later", "not UTF-8", "unclosed quote", "odd UTF-16"])
@pytest.mark.parametrize("read_size", [1, 2, 7])
def test_a_fault_is_found_in_the_same_place_wherever_blocks_end(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, case: str, read_size: int
) -> None:
    """The message about a fault does not depend on how the file is read."""
    content, options, _ = BAD_TEXT[case]
    opened = open_source(written(tmp_path, content), **options)
    with pytest.raises(InputError) as whole:
        opened.check()
    monkeypatch.setattr(csv_layout, "READ_SIZE", read_size)
    with pytest.raises(InputError) as by_pieces:
        opened.check()
    assert str(by_pieces.value) == str(whole.value)


def test_a_row_beyond_all_bounds_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row longer than the limit ends the check instead of filling the memory."""
    monkeypatch.setattr(csv_layout, "MAX_ROW_SIZE", 1 << 20)
    assert "a row is longer than 1,048,576 bytes" in refusal(written(tmp_path, b"a,b\n1," + b"x" * (3 << 20)))


@pytest.mark.parametrize(
    ("name", "phrases"),
    [
        ("input.csv.bz2", ["compressed (.bz2)", "unpack", "gzip or zstd"]),
        ("input.parquet.zst", ["compressed (.zst)"]),
        ("input.zip", ["compressed (.zip)"]),
        ("input.txt", [".csv, .tsv, .jsonl or .parquet", "not .txt"]),
        ("input.xlsx", [".csv, .tsv, .jsonl or .parquet"]),
        ("input.json", [".csv, .tsv, .jsonl or .parquet", "one object a line"]),
        ("input", [".csv, .tsv, .jsonl or .parquet", "none at all"]),
        (".csv", [".csv, .tsv, .jsonl or .parquet", "none at all"]),
        ("input.parquet", ["is not a Parquet file", "CSV"]),
    ],
)
def test_other_kinds_of_file_are_refused_by_name(tmp_path: pathlib.Path, name: str, phrases: list[str]) -> None:
    """The ending must be a known one, and the message lists those."""
    message = refusal(written(tmp_path, b"a,b\n1,2\n", name))
    assert [phrase for phrase in phrases if phrase not in message] == []


def test_a_missing_file_is_refused(tmp_path: pathlib.Path) -> None:
    """The reason is the system's own."""
    assert os.strerror(errno.ENOENT) in refusal(tmp_path / "nothing.csv")


def test_an_impossible_name_is_refused(tmp_path: pathlib.Path) -> None:
    """A NUL in the path is said to be no file name, and is shown escaped."""
    assert "no possible file name" in refusal(tmp_path / "a\0b.csv")


def test_a_directory_is_refused(tmp_path: pathlib.Path) -> None:
    """A data set's directory is no input, whatever its name."""
    folder = tmp_path / "folder.parquet"
    folder.mkdir()
    assert "is a directory" in refusal(folder)


def test_a_pipe_is_refused_without_opening_it(tmp_path: pathlib.Path) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    assert "pipe or device" in refusal(pipe)


def test_a_device_is_refused(tmp_path: pathlib.Path) -> None:
    """A link to a device is no table."""
    link = tmp_path / "null.csv"
    link.symlink_to("/dev/null")
    assert "pipe or device" in refusal(link)


def test_a_link_to_a_file_is_read(tmp_path: pathlib.Path) -> None:
    """Links are followed; what counts is the name that the job gives."""
    link = tmp_path / "link.csv"
    link.symlink_to(written(tmp_path, b"a\n1\n", "data.bin"))
    assert open_source(link).check().name == "link.csv"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: pathlib.Path) -> None:
    """The reason is the system's own."""
    path = written(tmp_path, b"a\n1\n")
    path.chmod(0)
    assert os.strerror(errno.EACCES) in refusal(path)


def test_a_name_in_another_encoding_is_shown_escaped(tmp_path: pathlib.Path) -> None:
    """File names are bytes; one that is not text can be read, and named in messages and manifests."""
    path = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.csv"))
    path.write_bytes(b"a\n1\n")
    opened = open_source(path)
    assert opened.check().name == "caf\\udce9\\n.csv"
    path.write_bytes(b"a\n1,2\n")
    assert "caf\\udce9\\n.csv, line 2: " in refusal(path)


@pytest.mark.parametrize("name", ["input.csv", "input.tsv", "input.parquet"])
def test_a_folder_whose_name_is_no_text_is_no_obstacle(tmp_path: pathlib.Path, name: str) -> None:
    """A folder may have a name in another encoding: every format is read from it, as from any other."""
    folder = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"a": ["1"]}), tmp_path / name)
        (tmp_path / name).rename(folder / name)
    else:
        written(folder, b"a\n1\n", name)
    opened = open_source(folder / name)
    assert cells(opened, opened.check()) == [["1"]]
    assert opened.digest()[0] == (folder / name).stat().st_size


# ---------------------------------------------------------------- the csv module's limit on cells


def test_the_csv_modules_limit_is_put_back(tmp_path: pathlib.Path) -> None:
    """Long cells are read, and whoever else uses the csv module in this process finds its limit as it was."""
    before = csv.field_size_limit(1_000)
    try:
        opened = open_source(written(tmp_path, b"a\n" + b"x" * 2_000 + b"\ny\n"))
        tables = opened.tables(opened.check(), partitions(2, 1))
        assert next(tables).num_rows == 1
        assert csv.field_size_limit() == 1_000
        assert "never closed" in refusal(written(tmp_path, b'a\n"' + b"x" * 2_000))
        assert csv.field_size_limit() == 1_000
    finally:
        csv.field_size_limit(before)


def test_files_are_read_side_by_side(tmp_path: pathlib.Path) -> None:
    """Threads that read at the same time don't take the raised limit from each other."""
    opened = open_source(written(tmp_path, b"a\n" + (b"x" * 200_000 + b"\n") * 20))
    before = csv.field_size_limit()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: opened.check().rows, range(8)))
    assert found == [20] * 8
    assert csv.field_size_limit() == before


# ---------------------------------------------------------------- warnings


@pytest.mark.parametrize(
    ("content", "options", "hint"),
    [
        (b"a;b\n1;2\n", {}, "set input.delimiter: ';'"),
        (b"a\tb\n1\t2\n", {}, "set input.delimiter: '\\t'"),
        (b"a|b\n1|2\n", {}, "set input.delimiter: '|'"),
        (b"a,b\n1,2\n", {"delimiter": ";"}, "set input.delimiter: ','"),
        (b"\xef\xbb\xbfa,b\n1,2\n", {"encoding": "cp1252"}, "is read as cp1252"),
    ],
)
def test_what_is_surely_a_mistake_is_warned_about(
    tmp_path: pathlib.Path, content: bytes, options: dict[str, str], hint: str
) -> None:
    """A table that is readable, but not as it was meant, is read with a warning that says what to set."""
    opened = open_source(written(tmp_path, content), **options)
    assert opened.check().rows == 1
    assert [hint in warning for warning in opened.warnings] == [True]


def test_one_column_alone_is_no_mistake(tmp_path: pathlib.Path) -> None:
    """A table of one column with an ordinary name brings no warning."""
    assert open_source(written(tmp_path, b"prompt\na;b\n")).warnings == ()


# ---------------------------------------------------------------- Parquet

Write = Callable[..., pathlib.Path]


@pytest.fixture
def parquet(tmp_path: pathlib.Path) -> Write:
    """Writes a table to a Parquet file."""

    def write(table: pa.Table, **options: Any) -> pathlib.Path:
        path = tmp_path / "input.parquet"
        pq.write_table(table, path, **options)
        return path

    return write


@pytest.mark.parametrize("row_group_size", [1, 2, 5])
@pytest.mark.parametrize("partition_rows", [1, 2, 3, 5, 8])
def test_parquet_types_come_through_untouched(parquet: Write, row_group_size: int, partition_rows: int) -> None:
    """Tables have the very types and values of the file, however groups and partitions fall."""
    expected = every_type()
    opened = open_source(parquet(expected, row_group_size=row_group_size))
    identity = opened.check()
    tables = list(opened.tables(identity, partitions(5, partition_rows)))
    assert opened.schema == expected.schema
    assert [table.num_rows for table in tables] == [part.row_count for part in partitions(5, partition_rows)]
    for position, table in zip(range(0, 5, partition_rows), tables, strict=True):
        assert table.schema == opened.schema
        assert table.to_pylist() == expected.slice(position, partition_rows).to_pylist()
        table.validate(full=True)


LONG: dict[str, list[object]] = {
    "different": [bytes([number]) * 1_000_000 for number in range(40)],
    "repeated": [b"x" * 900_000] * 150,
    "in lists": [[bytes([number]) * 500_000] * 2 for number in range(40)],
    "after short ones": [*[b"a"] * 40, *(bytes([number]) * 1_000_000 for number in range(40))],
}


@pytest.mark.parametrize("cells", LONG.values(), ids=LONG)
@pytest.mark.parametrize("row_group_size", [33, 1_000])
def test_long_cells_are_checked_a_few_at_a_time(parquet: Write, cells: list[object], row_group_size: int) -> None:
    """A check holds some MiB of cells, however many rows a row group has: images in cells are as large as all of it."""
    path = parquet(pa.table({"a": cells}), row_group_size=row_group_size, use_dictionary=cells[0] == cells[1])
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=parquet_layout.BUFFER_SIZE) as file:
        batches = list(parquet_layout.checked_batches(file))
    assert sum(batch.num_rows for batch in batches) == len(cells)
    assert max(batch.nbytes for batch in batches) <= 2.5 * parquet_layout.BATCH_SIZE


def test_dictionaries_of_a_table_are_one(parquet: Write) -> None:
    """A partition that spans row groups has one dictionary for a column, not one for each group."""
    table = pa.table({"a": pa.array(["x", "y", "z", "x"]).dictionary_encode()})
    opened = open_source(parquet(table, row_group_size=1))
    (whole,) = opened.tables(opened.check(), partitions(4, 4))
    assert len({str(chunk.dictionary) for chunk in whole["a"].chunks}) == 1
    assert whole["a"].to_pylist() == ["x", "y", "z", "x"]


def test_parquet_without_rows_is_readable(parquet: Write) -> None:
    """No rows is a valid table."""
    opened = open_source(parquet(pa.table({"a": pa.array([], pa.string())})))
    identity = opened.check()
    assert (identity.rows, identity.columns) == (0, ("a",))
    assert list(opened.tables(identity, [])) == []


def test_settings_for_text_are_not_used_for_parquet(parquet: Write) -> None:
    """An encoding or delimiter for a Parquet file is warned about, each by its key."""
    path = parquet(pa.table({"a": ["ü"]}))
    opened = open_source(path, encoding="cp1252", delimiter=";")
    assert [warning.split()[0] for warning in opened.warnings] == ["input.encoding", "input.delimiter"]
    assert cells(opened, opened.check()) == [["ü"]]
    assert open_source(path).warnings == ()


def flipped(content: bytes, at: int) -> bytes:
    """The same bytes but for one."""
    return content[:at] + bytes((content[at] ^ 0xFF,)) + content[at + 1 :]


def test_parquet_under_a_csv_name_is_refused(parquet: Write) -> None:
    """The marks at both ends tell."""
    path = parquet(pa.table({"a": [1]}))
    assert "is a Parquet file, not text; name it .parquet" in refusal(path.rename(path.with_suffix(".csv")))


@pytest.mark.parametrize("keep", [4, 8, 11, 12, 100, -1, -4])
def test_a_parquet_file_that_was_cut_short_is_refused(parquet: Write, keep: int) -> None:
    """What a broken copy leaves is recognised at once."""
    path = parquet(every_type())
    path.write_bytes(path.read_bytes()[:keep])
    assert "cut short" in refusal(path)


@pytest.mark.parametrize(
    "content", [b"PAR1PAR1", b"PAR1\0\0\0\0PAR1", b"PAR1\xff\xff\xff\x7fPAR1", b"PAR1abcdefghijklPAR1"]
)
def test_a_footer_that_makes_no_sense_is_refused(tmp_path: pathlib.Path, content: bytes) -> None:
    """Marks alone make no Parquet file."""
    assert "input.parquet: " in refusal(written(tmp_path, content, "input.parquet"))


@pytest.mark.parametrize("content", [b"PAREabcdefghijklPARE", b"PAR1abcdefghijklPARE"])
def test_encrypted_parquet_is_refused(tmp_path: pathlib.Path, content: bytes) -> None:
    """The marks of an encrypted footer are known, and the message says what to do."""
    assert "encrypted" in refusal(written(tmp_path, content, "input.parquet"))


def test_parquet_without_columns_is_refused(parquet: Write) -> None:
    """A table of nothing but a number of rows holds no prompts."""
    assert "no columns" in refusal(parquet(pa.table({})))


def test_parquet_names_must_differ(parquet: Write) -> None:
    """Parquet allows the same name twice; a template could not tell which is meant."""
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["x", "y", "x"])
    assert '"x" (columns 1, 3)' in refusal(parquet(table))


def test_a_flipped_bit_in_a_page_is_found_by_its_checksum(parquet: Write) -> None:
    """Where pages have checksums they are compared, before the first request."""
    path = parquet(
        pa.table({"a": ["some text " * 50] * 50}), use_dictionary=False, compression="none", write_page_checksum=True
    )
    content = path.read_bytes()
    path.write_bytes(flipped(content, len(content) // 2))
    assert "can't be read" in refusal(path)


def test_a_broken_page_is_found_by_the_check(parquet: Write) -> None:
    """A page that can't be unpacked is refused before the first request, not in the middle of a run."""
    path = parquet(
        pa.table({"a": [f"some text {n * n}" for n in range(5_000)]}), use_dictionary=False, compression="zstd"
    )
    content = bytearray(path.read_bytes())
    content[200:1_200] = bytes(1_000)
    path.write_bytes(content)
    opened = open_source(path)
    with pytest.raises(InputError, match=r"input\.parquet"):
        opened.check()


def test_text_that_is_no_text_is_found_with_its_column(parquet: Write) -> None:
    """A text column with bytes that are not UTF-8 is refused by name and rows."""
    offsets = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0")
    bad = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"\xffx"))
    message = refusal(parquet(pa.table({"good": ["a", "b"], "bad": bad}), store_schema=False))
    assert [phrase for phrase in ('column "bad"', "rows 0 to 1", "UTF8") if phrase not in message] == []


@moderate
@example(position=0.13191874813996884, value=1)  # the footer counts rows in a group whose pages hold none
@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_damaged_parquet_file_never_escapes_as_a_traceback(
    tmp_path: pathlib.Path, position: float, value: int
) -> None:
    """Whatever byte is damaged, the file is either readable or refused as an input error."""
    path = tmp_path / "input.parquet"
    pq.write_table(pa.table({"a": ["x", "y", None], "b": [[1], [], [2, 3]]}), path)
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] = value
    path.write_bytes(content)
    try:
        opened = open_source(path)
        identity = opened.check()
    except InputError as exc:
        assert str(exc).isprintable()  # noqa: PT017  # a readable file is as good an end
    else:
        assert len(cells(opened, identity, 2)) == identity.rows


# ---------------------------------------------------------------- identity


@pytest.mark.parametrize("name", ["tickets.csv", "tickets.parquet"])
def test_the_identity_says_what_the_file_is(name: str) -> None:
    """Name, size, digest, columns and rows are those of the file, and `digest` agrees with `check`."""
    path = make_sample_data.SAMPLE_DATA / name
    opened = open_source(path)
    identity = opened.check()
    assert (identity.name, identity.size) == (name, path.stat().st_size)
    assert identity.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert opened.digest() == (identity.size, identity.sha256)
    assert (identity.rows, identity.columns) == (100, opened.columns)


def test_the_size_in_memory_counts_what_repetition_hides(parquet: Write) -> None:
    """A long text that a Parquet file holds once is counted as often as it is used."""
    opened = open_source(parquet(pa.table({"a": ["x" * 20_000] * 2_000})))
    identity = opened.check()
    assert identity.size < 1_000_000
    assert identity.decoded_size > 40_000_000
    assert 400 <= identity.rows_within(8 << 20) <= 420


# ---------------------------------------------------------------- partitions


@given(row_count=st.integers(0, 3_000), partition_rows=st.integers(1, 1_000))
def test_partitions_cover_each_row_once(row_count: int, partition_rows: int) -> None:
    """Partitions are consecutive, none is empty or too long, and together they are all rows."""
    parts = partitions(row_count, partition_rows)
    covered = [row for part in parts for row in range(part.first_row, part.first_row + part.row_count)]
    assert covered == list(range(row_count))
    assert [part.index for part in parts] == list(range(len(parts)))
    assert all(part.first_row == part.index * partition_rows for part in parts)
    assert all(1 <= part.row_count <= partition_rows for part in parts)


def test_a_partition_has_at_least_a_row() -> None:
    """A size below 1 is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least 1 row"):
        partitions(10, 0)


@pytest.fixture(params=["csv", "parquet"])
def numbered(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Source:
    """Thirty rows that hold their own ordinals, in either format."""
    path = tmp_path / f"input.{request.param}"
    if request.param == "csv":
        path.write_text("n\n" + "".join(f"{n}\n" for n in range(30)))
    else:
        pq.write_table(pa.table({"n": [str(n) for n in range(30)]}), path, row_group_size=4)
    return open_source(path)


@moderate
@given(chosen=st.sets(st.integers(0, 9)), read_size=st.integers(1, 50))
def test_the_same_ordinal_is_the_same_row(numbered: Source, chosen: set[int], read_size: int) -> None:
    """Whichever partitions are asked for, each table holds exactly the rows of its partition."""
    wanted = [part for part in partitions(30, 3) if part.index in chosen]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_layout, "READ_SIZE", read_size)
        tables = list(numbered.tables(numbered.check(), wanted))
    assert [[int(n) for n in table["n"].to_pylist()] for table in tables] == [
        list(range(part.first_row, part.first_row + part.row_count)) for part in wanted
    ]


def test_partitions_of_unequal_size_are_served(numbered: Source) -> None:
    """Ranges may begin and end anywhere, and be empty."""
    wanted = [Partition(0, 0, 0), Partition(1, 2, 11), Partition(2, 13, 1), Partition(3, 29, 1)]
    tables = numbered.tables(numbered.check(), wanted)
    assert [[int(n) for n in table["n"].to_pylist()] for table in tables] == [[], list(range(2, 13)), [13], [29]]


def test_partitions_come_ascending(numbered: Source) -> None:
    """Going back would mean to read the file again: a mistake of the caller."""
    with pytest.raises(ValueError, match="ascending"):
        list(numbered.tables(numbered.check(), [Partition(3, 20, 2), Partition(0, 0, 2)]))


def test_partitions_are_asked_for_one_by_one(numbered: Source) -> None:
    """A partition is read when its table is wanted, not before."""
    asked = []

    def wanted() -> Iterator[Partition]:
        for part in partitions(30, 10):
            asked.append(part.index)
            yield part

    tables = numbered.tables(numbered.check(), wanted())
    next(tables)
    assert asked == [0]
    next(tables)
    assert asked == [0, 1]


def test_what_fails_in_the_callers_iterator_stays_the_callers(numbered: Source) -> None:
    """A full disk met while partitions are handed out is not mistaken for a bad input."""

    def failing() -> Iterator[Partition]:
        yield Partition(0, 0, 1)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        list(numbered.tables(numbered.check(), failing()))


# ---------------------------------------------------------------- files that change


def test_a_file_that_became_shorter_is_refused(numbered: Source) -> None:
    """What was checked is not what is there: no table is delivered."""
    identity = numbered.check()
    with numbered.path.open("r+b") as file:
        file.truncate(identity.size - 5)
    with pytest.raises(InputError, match="changed while it was read"):
        next(numbered.tables(identity, partitions(30, 10)))


def test_a_file_written_to_while_it_is_read_is_refused(numbered: Source) -> None:
    """After a write that changed its content, no further table is delivered."""
    tables = numbered.tables(numbered.check(), partitions(30, 10))
    next(tables)
    with numbered.path.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"X")
    with pytest.raises(InputError, match="changed while it was read"):
        next(tables)


def test_partitions_beyond_the_end_are_refused(numbered: Source) -> None:
    """A table never has fewer rows than its partition."""
    with pytest.raises(InputError, match="changed while it was read"):
        list(numbered.tables(numbered.check(), [Partition(0, 25, 10)]))
    with pytest.raises(InputError, match="changed while it was read"):
        list(numbered.tables(numbered.check(), [Partition(0, 100, 1)]))


def test_another_header_of_the_same_size_is_refused(tmp_path: pathlib.Path) -> None:
    """Columns that were renamed after the source was opened are noticed by check and by tables."""
    path = written(tmp_path, b"a,b\n1,2\n")
    opened = open_source(path)
    identity = opened.check()
    path.write_bytes(b"a,c\n1,2\n")
    with pytest.raises(InputError, match="changed while it was read"):
        opened.check()
    with pytest.raises(InputError, match="changed while it was read"):
        list(opened.tables(identity, partitions(1, 1)))


def test_a_file_that_vanished_is_refused(numbered: Source) -> None:
    """Reading a file that is gone is an input error in every method."""
    identity = numbered.check()
    numbered.path.unlink()
    for read in (numbered.check, numbered.digest, lambda: next(numbered.tables(identity, partitions(30, 10)))):
        with pytest.raises(InputError, match=re.escape(os.strerror(errno.ENOENT))):
            read()


# ---------------------------------------------------------------- bounded memory


def test_a_csv_file_is_not_read_ahead(tmp_path: pathlib.Path) -> None:
    """After each table, no more of the file has been read than the rows so far and the blocks at their edges."""
    line = b"x" * 1_023 + b"\n"
    opened = open_source(written(tmp_path, b"head\n" + line * 16_384))
    identity = opened.check()
    with opened.path.open("rb") as raw, opened.layout.feed(raw, identity) as feed:
        for wanted in range(0, identity.rows, 1_024):
            batch = feed.next_batch(wanted)
            assert batch is not None
            assert raw.tell() <= (batch[0] + batch[1].num_rows) * len(line) + 2 * csv_layout.READ_SIZE
            assert batch[1].nbytes <= 2 * csv_layout.READ_SIZE


def test_row_groups_without_wanted_rows_are_not_read(parquet: Write) -> None:
    """A hole in a row group does no harm to those who don't need its rows."""
    table = pa.table({"a": [f"{n:06}" * 200 for n in range(3_000)]})
    path = parquet(table, row_group_size=1_000, use_dictionary=False, compression="zstd")
    identity = open_source(path).check()
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size] = bytes(
        chunk.total_compressed_size
    )
    path.write_bytes(content)
    first, second, third = partitions(3_000, 1_000)
    opened = open_source(path)
    assert [part.num_rows for part in opened.tables(identity, [first, third])] == [1_000, 1_000]
    with pytest.raises(InputError):
        list(opened.tables(identity, [second]))


def test_parquet_batches_follow_the_size_of_rows(parquet: Write) -> None:
    """Long rows are decoded a few at a time, although they are all in one row group."""
    opened = open_source(parquet(pa.table({"a": ["x" * 1_000_000] * 100})))
    identity = opened.check()
    with opened.path.open("rb") as raw, opened.layout.feed(raw, identity) as feed:
        following = (feed.next_batch(0) for _ in itertools.count())
        sizes = [batch[1].nbytes for batch in itertools.takewhile(lambda found: found is not None, following) if batch]
    assert max(sizes) <= parquet_layout.BATCH_SIZE
    assert sum(sizes) >= 100_000_000


# ---------------------------------------------------------------- sample data


def test_the_sample_tables_are_what_their_script_makes() -> None:
    """The committed files and the script that writes them say the same."""
    folder = make_sample_data.SAMPLE_DATA
    assert (folder / "tickets.csv").read_bytes() == make_sample_data.tickets_csv()
    assert (folder / "eval_capitals.csv").read_bytes() == make_sample_data.eval_capitals_csv()
    assert pq.read_table(folder / "tickets.parquet").equals(make_sample_data.tickets_table())
    assert (folder / "eval_maths.jsonl").read_bytes() == make_evaluation_data.maths_jsonl()
    assert (folder / "eval_messages.csv").read_bytes() == make_evaluation_data.messages_csv()
    assert pq.read_table(folder / "eval_choices.parquet").equals(make_evaluation_data.choices_table())
    assert pq.read_table(folder / "eval_short.parquet").equals(make_evaluation_data.short_table())


def test_the_sample_script_writes_every_sample_table(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sample table is there that the script does not write."""
    committed = {path.name for path in make_sample_data.SAMPLE_DATA.glob("[!.]*")}
    monkeypatch.setattr(make_sample_data, "SAMPLE_DATA", tmp_path / "made")
    make_sample_data.main()
    assert {path.name for path in (tmp_path / "made").iterdir()} == committed


def test_both_ticket_tables_hold_the_same_text() -> None:
    """The CSV and the Parquet file tell the same tickets, awkward cells included."""
    tables = {}
    for name in ("tickets.csv", "tickets.parquet"):
        opened = open_source(make_sample_data.SAMPLE_DATA / name)
        (table,) = opened.tables(opened.check(), partitions(100, 100))
        tables[name] = list(row_values(table, ["ticket_id", "subject", "body"]))
    assert tables["tickets.csv"] == tables["tickets.parquet"]
    bodies = {str(row["body"]) for row in tables["tickets.csv"]}
    assert {"NULL", "", "   leading and trailing spaces matter   "} <= bodies
    assert any("\r\n" in body for body in bodies)
    assert max(map(len, bodies)) > 15_000


def test_the_evaluation_set_has_one_right_answer_to_each_question() -> None:
    """Ids and questions are unique, and the expected word is among the choices."""
    opened = open_source(make_sample_data.SAMPLE_DATA / "eval_capitals.csv")
    found = cells(opened, opened.check())
    assert len(found) == len({row[0] for row in found}) == len({row[1] for row in found}) == 50
    assert all(str(expected) in str(choices).split(" | ") for _, _, choices, expected in found)
