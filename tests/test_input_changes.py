"""An input that is written to during a run: its content decides, not its times; each message has a way that works."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.errors import InputChangedError, InputLostError
from cometbatch.input.table import open_source, partitions
from tests.workbench import Network, Workbench, carry_out

ROWS = 12
EIGHT_BYTES = 8


def once(change: Callable[[], object], *, after: int = 2) -> Network:
    """A service during whose reply number `after` something is done to the files."""
    network = Network()

    def answer(_request: httpx.Request) -> None:
        if network.posts == after:
            change()

    network._answer = answer
    return network


def touch(path: Path) -> None:
    """Other times, the same bytes."""
    os.utime(path, ns=(1, 1))


def rewrite(path: Path) -> None:
    """The same bytes, written in place."""
    path.write_bytes(path.read_bytes())


def replace(path: Path) -> None:
    """Another file of this name, with the same bytes."""
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.rename(path)


def unlink_and_write_other(path: Path) -> None:
    """Another file of this name, with other bytes: the run holds the one that it began with."""
    path.unlink()
    path.write_text("parcel,note\n", encoding="utf-8")


def link(path: Path) -> None:
    """A second name for the file, which changes when it was last changed."""
    os.link(path, path.with_name("second"))


def job(bench: Workbench) -> cometbatch.Job:
    """A job that reads its input again and again: some rows at a time."""
    return bench.job(output={"partition_rows": 2}, limits={"concurrency": 1, "adaptive": False})


@pytest.mark.parametrize("change", [touch, rewrite, replace, link, unlink_and_write_other])
def test_a_run_goes_on_where_the_bytes_that_it_reads_stay(bench: Workbench, change: Callable[[Path], None]) -> None:
    """Whatever is done to the file's times and names, each row is answered."""
    assert carry_out(job(bench), once(lambda: change(bench.input))).succeeded == ROWS


@pytest.mark.parametrize("change", [touch, rewrite, replace])
def test_a_resumed_run_goes_on_with_the_same_bytes(bench: Workbench, change: Callable[[Path], None]) -> None:
    """Nor do times and names count between two sessions."""
    bench.write_rows(ROWS)
    with pytest.raises(InputLostError):
        carry_out(job(bench), once(lambda: bench.input.write_bytes(bench.input.read_bytes() + b"x")))
    bench.write_rows(ROWS)
    change(bench.input)
    assert carry_out(job(bench), Network()).succeeded == ROWS


def test_rows_that_are_added_meanwhile_stop_the_run_with_a_way_that_works(bench: Workbench) -> None:
    """What the message says to paste finishes the run with the rows that it began with, and pays for none twice."""
    bench.input.rename(bench.folder / "a table.csv")  # the words must quote it
    bench.input = bench.folder / "a table.csv"
    first = once(lambda: bench.input.write_bytes(bench.input.read_bytes() + b"0099,more\n"))
    with pytest.raises(InputLostError) as lost:
        carry_out(job(bench), first)
    assert re.search(r"a table\.csv: changed while it was read\. What was answered is recorded", str(lost.value))
    with pytest.raises(cometbatch.DriftError) as drift:  # the plain command, which meets the longer table
        carry_out(job(bench), Network())
    for words in (str(lost.value), str(drift.value)):
        made, option = re.search(r"`(head .*?)`.* with (\S.*?\.csv'?);", words).groups()  # type: ignore[union-attr]
    subprocess.run(made, shell=True, check=True)
    (override,) = shlex.split(option)
    settings = bench.settings(output={"partition_rows": 2}, limits={"concurrency": 1, "adaptive": False})
    second = Network()
    copy = cometbatch.load_job(settings, [override.removeprefix("--set=")])
    assert carry_out(copy, second).succeeded == ROWS
    assert first.posts + second.posts == ROWS


def test_other_bytes_stop_the_run_with_another_way(bench: Workbench) -> None:
    """A table that was rewritten has to come back; the message says no more than what helps."""
    content = bench.input.read_bytes()
    with pytest.raises(InputLostError, match=r"read\. What was answered.*Put the table back as it was and run"):
        carry_out(job(bench), once(lambda: bench.input.write_bytes(content.replace(b"note 11", b"nose 11"))))
    bench.input.write_bytes(content)
    assert carry_out(job(bench), Network()).succeeded == ROWS


def test_a_parquet_file_that_is_overwritten_is_said_to_have_changed(bench: Workbench) -> None:
    """Half of one file and half of another can't be decoded; the message names the cause, not the symptom."""
    table = pa.table({"parcel": [f"{n:04}" for n in range(4_000)], "note": ["x" * 500] * 4_000})
    path = bench.folder / "in.parquet"
    pq.write_table(table, path, row_group_size=500, use_dictionary=False, compression="none")
    opened = open_source(path)
    tables = opened.tables(opened.check(), partitions(4_000, 1_000))
    next(tables)
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(InputChangedError, match="changed while it was read"):
        list(tables)


@settings(max_examples=60, deadline=None)
@given(before=st.binary(min_size=1, max_size=EIGHT_BYTES), after=st.binary(max_size=2 * EIGHT_BYTES), data=st.data())
def test_rows_are_handed_out_exactly_while_the_bytes_are_the_same(
    before: bytes, after: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Law: after any rewriting, with any times, the next table comes if and only if the content is what it was."""

    def text(content: bytes) -> bytes:
        return b"n\n" + content.hex().encode() + b"\n" + b"more\n" * 4

    path = tmp_path_factory.mktemp("law") / "in.csv"
    path.write_bytes(text(before))
    opened = open_source(path)
    identity = opened.check()
    tables = opened.tables(identity, partitions(identity.rows, 1))
    next(tables)
    path.write_bytes(text(after))
    os.utime(path, ns=(1, data.draw(st.integers(1, 10**18))))
    if after == before:
        assert sum(table.num_rows for table in tables) == identity.rows - 1
    else:
        with pytest.raises(InputChangedError):
            list(tables)


@pytest.mark.parametrize("added", [b"", b"x", b"0099,more\n"])
def test_only_what_begins_as_before_is_said_to_have_grown(bench: Workbench, added: bytes) -> None:
    """The size that it had is told where its first bytes are still the same ones."""
    opened = open_source(bench.input)
    identity = opened.check()
    content = bench.input.read_bytes()
    for begin, size in ((content, identity.size), (content.replace(b"note 3", b"nose 3"), None)):
        bench.input.write_bytes(begin + added)
        found = None
        try:
            list(opened.tables(identity, partitions(identity.rows, 4)))
        except InputChangedError as error:
            found = error
        assert (found is None) == (begin + added == content)
        if found is not None:
            assert found.as_it_was == (size if added else None)


def test_a_check_that_meets_a_writer_says_to_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent the same command is the way, once the file is whole."""
    path = tmp_path / "in.csv"
    path.write_text("n\n" + "1\n" * 1_000, encoding="utf-8")
    opened = open_source(path)
    measure = type(opened.layout).measure

    def meanwhile(layout: object, raw: object) -> object:
        found = measure(layout, raw)  # type: ignore[arg-type]
        path.write_text("n\n" + "2\n" * 1_000, encoding="utf-8")
        return found

    monkeypatch.setattr(type(opened.layout), "measure", meanwhile)
    with pytest.raises(InputChangedError, match=r"read\. Run the same command again once nothing writes to it\.$"):
        opened.check()
