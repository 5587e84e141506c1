"""The run directory: which file has which name, which of them count, and what goes when."""

import errno
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pyarrow.dataset as ds
import pytest

from cometbatch.errors import CheckpointError, RunLockedError, UsageError
from cometbatch.records import Tally
from cometbatch.run_state.directory import Reopened, Round, RunDirectory
from cometbatch.run_state.in_flight import read_marks
from cometbatch.run_state.sessions import Session, Who

RUN = "0123456789abcdef" * 2
WHO = Who("2026-05-01T00:00:00+00:00", 42, "here", "0.1.0")
FOREIGN = ["notes.txt", "answers.parquet", "1.parquet", "000001.parquet", "²²²²².parquet", "-0001.parquet", "a.tmp",
           "1.part", "000001.part", "00001.r.part", "in_flight", "in_flight.x", "0.txt"]  # fmt: skip
FOREIGN_JOURNALS = ["2.1.jsonl", "000002.1.jsonl", "notes.jsonl", "00002.jsonl", "00002.x.jsonl", "00002.kept.jsonl"]


def session(number: int, **fields: Any) -> Session:
    """A session's file."""
    return Session(number, RUN, WHO, **fields)


def _write(file: IO[bytes]) -> None:
    file.write(b"part")


def begin_journal(directory: RunDirectory, index: int, number: int, name: str = "") -> Path:
    """A journal with nothing but its first line, by this session, or under another name."""
    journal = directory.journals.begin(RUN, index, number)
    journal.close()
    return journal.path.rename(journal.path.with_name(name)) if name else journal.path


def run_in(path: Path, parts: Path | None = None) -> RunDirectory:
    """A run with two parts, a journal, and all that goes with them."""
    directory = RunDirectory(path, parts=parts)
    directory.create()
    directory.write_session(session(1))
    directory.write_manifest(b"{}")
    directory.write_reopened(Reopened())
    directory.new_marks(RUN, 1, 2).close()
    for index in (1, 123456):
        directory.commit_part(index, _write)
    begin_journal(directory, 2, 1)
    directory.journals.write_kept(RUN, 2, 1, [])
    return directory


# -- the run as a whole --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_dataset", [False, True])
def test_clear_forgets_the_run_and_nothing_else(tmp_path: Path, *, is_dataset: bool) -> None:
    """Our files go, half-written ones too; whatever else lies in the folders stays, and the lock stays ours."""
    directory = run_in(tmp_path / "run", tmp_path / "data" if is_dataset else None)
    folders = (directory.path, directory.parts.folder, directory.path / "sessions")
    directory.lock.acquire()
    kept = [folder / name for folder in folders for name in FOREIGN]
    kept += [directory.journals.folder / name for name in FOREIGN_JOURNALS]
    for path in kept:
        path.write_bytes(b"mine")
    part = directory.parts.path(9)
    for staged in (part, directory.path / "manifest.json", directory.path / "in_flight.2"):
        staged.with_name(f".{staged.name}.tmp").write_bytes(b"")
    directory.clear()
    left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*kept, directory.path / "lock"}
    assert directory.lock.is_held()
    directory.clear()
    directory.lock.release()


def test_a_cleared_run_directory_serves_a_new_run(tmp_path: Path) -> None:
    """After `clear` the directory is as good as new."""
    directory = run_in(tmp_path / "run")
    directory.clear()
    assert_holds_nothing(directory)
    run_in(tmp_path / "run")


def test_a_run_directory_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    """Looking makes nothing and raises nothing; nor does a file in its place."""
    assert_holds_nothing(RunDirectory(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    assert_holds_nothing(RunDirectory(tmp_path / "file"))


def assert_holds_nothing(directory: RunDirectory) -> None:
    """There is no run in it."""
    assert directory.read_manifest() is None
    assert directory.last_session() is None
    assert directory.next_session() == 1
    assert directory.reopened() == Reopened()
    assert (directory.parts.there(), directory.journals.all(), list(directory.marks_since(0))) == ([], [], [])
    assert list(directory.leftovers([], None)) == []


def test_a_run_has_one_writer_from_its_start_to_its_end(tmp_path: Path) -> None:
    """However it ends, the next one gets in."""

    def fail() -> None:
        with RunDirectory(tmp_path).locked():
            with pytest.raises(RunLockedError, match="is running this job"), RunDirectory(tmp_path).locked():
                pass
            raise ValueError("a bug")

    for _ in range(2):
        with pytest.raises(ValueError, match="a bug"):
            fail()


def test_folders_that_cannot_be_made_are_an_error_that_names_them(tmp_path: Path) -> None:
    """A file in a folder's place is reported before anything is sent."""
    directory = RunDirectory(tmp_path / "run", parts=tmp_path / "data")
    directory.path.mkdir()
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"{tmp_path / 'data'}: .*File exists"):
        directory.create()


def test_a_manifest_is_replaced_whole_and_read_back(tmp_path: Path) -> None:
    """The manifest's bytes come back as they were written, the last ones."""
    directory = RunDirectory(tmp_path)
    directory.write_manifest(b"first")
    directory.write_manifest(b"second \xff")
    assert directory.read_manifest() == b"second \xff"


UNREADABLE: list[tuple[str, Callable[[RunDirectory], object]]] = [
    ("in_flight.1", lambda directory: read_marks(next(iter(directory.marks_since(1))), RUN)),
    ("sessions/1.json", RunDirectory.last_session),
    ("reopened.json", lambda directory: RunDirectory(directory.path).reopened()),
    ("manifest.json", RunDirectory.read_manifest),
    ("journal/00002.1.jsonl", lambda directory: list(directory.journals.reader_of("00002.1.jsonl", RUN, None))),
    ("journal/00003.1.jsonl", lambda directory: directory.journals.begin(RUN, 3, 1)),
]


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EISDIR])
@pytest.mark.parametrize(("name", "read"), UNREADABLE)
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, read: Callable[[RunDirectory], object], code: int
) -> None:
    """It is not taken for a missing one, whatever the operating system holds against it."""
    directory = run_in(tmp_path / "run")
    path, opened = directory.path / name, io.open

    def refusing(file: Any, *more: Any, **options: Any) -> Any:
        if Path(file) == path:
            raise OSError(code, os.strerror(code))
        return opened(file, *more, **options)

    monkeypatch.setattr(io, "open", refusing)
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: ")) as refused:
        read(directory)
    assert os.strerror(code) in str(refused.value)


def test_a_manifest_that_cannot_be_read_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    """Beginning a new run over one that only can't be read would lose it."""
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(CheckpointError, match=r"manifest\.json: .*Is a directory"):
        RunDirectory(tmp_path).read_manifest()


# -- parts ---------------------------------------------------------------------------------------------------------


def test_what_is_there_is_found_by_looking(tmp_path: Path) -> None:
    """Parts and journals are known by their names alone; journals in the order in which they count."""
    directory = run_in(tmp_path / "run")
    for name in FOREIGN:
        (directory.parts.folder / name).write_bytes(b"")
    for name in [*FOREIGN_JOURNALS, *FOREIGN]:
        (directory.journals.folder / name).write_bytes(b"")
    for index in (0, 99999, 100000):
        directory.parts.path(index).write_bytes(b"")
    for name in ("00000.10.jsonl", "00000.9-10.jsonl", "00000.9-2.jsonl", "00000.9.jsonl", "100000.1.jsonl"):
        (directory.journals.folder / name).write_bytes(b"")
    assert directory.parts.there() == [0, 1, 99999, 100000, 123456]
    in_order = ["00000.9.jsonl", "00000.9-2.jsonl", "00000.9-10.jsonl", "00000.10.jsonl"]
    assert [file.name for file in directory.journals.all()] == [*in_order, "00002.1.jsonl", "100000.1.jsonl"]
    assert [file.name for file in directory.journals.all(0)] == in_order
    assert directory.journals.all(10000) == []


def test_a_part_that_exists_has_no_journal(tmp_path: Path) -> None:
    """What rounds kept goes when the part is there, and not before; all sessions' journals go with their range."""
    directory = run_in(tmp_path / "run")
    begin_journal(directory, 2, 2)
    begin_journal(directory, 2, 3, "00002.3-1.jsonl")
    other = begin_journal(directory, 20, 1)
    records = sorted(path for path in directory.journals.folder.iterdir() if path != other)
    assert len(records) == 4

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left"):
        directory.commit_part(2, fail)
    assert directory.parts.there() == [1, 123456]
    assert sorted(directory.journals.folder.iterdir()) == sorted([*records, other])
    directory.commit_part(2, _write)
    assert directory.parts.there() == [1, 2, 123456]
    assert [file.name for file in directory.journals.all(2)] == [
        path.name for path in records if "kept" not in path.name
    ]
    assert not directory.journals.kept(2, 1).exists()
    directory.journals.forget(2)
    assert list(directory.journals.folder.iterdir()) == [other]
    assert directory.parts.path(2).read_bytes() == b"part"


def test_a_part_of_an_earlier_round_is_no_commit_and_goes_with_the_next(tmp_path: Path) -> None:
    """A round has parts of its own; the earlier one is there until the new one is."""
    directory = run_in(tmp_path / "run")
    earlier = directory.parts.path(1)
    directory.write_reopened(Reopened(2, {1: Round(2, 7)}))
    assert directory.parts.path(1).name == "00001.r2.part"
    assert directory.parts.there() == [123456]
    assert list(directory.leftovers([123456], session(1))) == [directory.journals.kept(2, 1)]
    assert earlier.exists()
    directory.commit_part(1, _write)
    assert directory.parts.there() == [1, 123456]
    assert not earlier.exists()
    earlier.write_bytes(b"a kill between the rename and the removal")
    assert earlier in directory.leftovers([1, 123456], session(1))


def test_a_part_of_a_data_set_keeps_its_name_in_every_round(tmp_path: Path) -> None:
    """It is the result: readers of the folder find each partition once."""
    directory = run_in(tmp_path / "run", tmp_path / "data")
    directory.write_reopened(Reopened(1, {1: Round(1, 2)}))
    before = directory.parts.path(1).stat().st_ino
    directory.commit_part(1, _write)
    assert directory.parts.path(1).stat().st_ino != before
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["00001.parquet", "123456.parquet"]


def test_a_half_written_part_of_a_data_set_is_not_read_as_data(tmp_path: Path) -> None:
    """Whoever reads the folder while a part is being written finds the whole parts alone."""
    directory = RunDirectory(tmp_path / "run", parts=tmp_path / "data")
    seen: list[list[str]] = []

    def write(file: IO[bytes]) -> None:
        file.write(b"PAR1 half a part")
        seen.append(ds.dataset(tmp_path / "data").files)

    with directory.locked():
        directory.create()
        directory.commit_part(0, write)
    assert seen == [[]]


def test_parts_of_a_run_are_no_tables_to_who_reads_its_folder(tmp_path: Path) -> None:
    """A reader of all Parquet files below the result's folder counts no row twice."""
    run_in(tmp_path / "_out.parquet.run")
    assert list(tmp_path.rglob("*.parquet")) == []


# -- leftovers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_dataset", [False, True])
def test_half_written_files_are_leftovers_and_only_ours(tmp_path: Path, *, is_dataset: bool) -> None:
    """What a killed process had staged is ours to remove; other people's files are not, whatever they end in."""
    directory = run_in(tmp_path / "run", tmp_path / "data" if is_dataset else None)
    directory.write_reopened(Reopened(1, {2: Round(1, 1)}))
    part = directory.parts.path(9)
    staged = [part.with_name(f".{part.name}.tmp"), directory.journals.folder / ".00002.kept1.jsonl.tmp"]
    staged += [directory.path / name for name in (".manifest.json.tmp", ".reopened.json.tmp", ".in_flight.7.tmp")]
    staged += [directory.path / "sessions" / ".3.json.tmp"]
    others = [directory.parts.folder / ".x.parquet.tmp", directory.path / "y.tmp", directory.parts.folder / "z.tmp"]
    for path in [*staged, *others]:
        path.write_bytes(b"")
    assert sorted(directory.leftovers([], session(1))) == sorted(staged)


def test_records_that_count_are_no_leftovers(tmp_path: Path) -> None:
    """Journals go with their part, with their round, or where a later session has noted no byte of them."""
    directory = run_in(tmp_path / "run")
    counted, uncounted, newest = (begin_journal(directory, 5, number) for number in (1, 2, 3))
    before_the_round, in_the_round = (begin_journal(directory, 6, number) for number in (1, 2))
    committed = begin_journal(directory, 1, 3)
    for round_ in (1, 2):
        directory.journals.write_kept(RUN, 6, round_, [])
    directory.write_reopened(Reopened(2, {6: Round(2, 2)}))
    names = {path.name: 10 for path in (counted, before_the_round, in_the_round)} | {"00002.1.jsonl": 10}
    gone = {uncounted, before_the_round, committed, directory.journals.kept(6, 1), directory.journals.kept(2, 1)}
    assert set(directory.leftovers([1, 123456], session(3, counted=names))) == {*gone, directory.path / "in_flight.1"}
    assert newest not in gone


def test_marks_go_once_a_later_session_has_counted_them(tmp_path: Path) -> None:
    """A session's own marks, and its workers', stay."""
    directory = run_in(tmp_path / "run")
    for name in ("in_flight.2", "in_flight.3", "in_flight.3-1", "in_flight.10"):
        (directory.path / name).write_bytes(b"")
    found = [{path.name for path in paths} for paths in (directory.marks_before(3), directory.marks_since(3))]
    assert found == [{"in_flight.1", "in_flight.2"}, {"in_flight.3", "in_flight.3-1", "in_flight.10"}]
    assert set(directory.marks_before(3)) <= set(directory.leftovers([], session(3)))


# -- journals: what counts of them ---------------------------------------------------------------------------------


def test_what_counts_of_a_journal_is_what_the_newest_session_noted(tmp_path: Path) -> None:
    """Of earlier sessions the bytes that it noted, none of a journal that it did not see; of its own all of them."""
    directory = run_in(tmp_path / "run")
    for number in (2, 3):
        journal = directory.journals.begin(RUN, 2, number)
        journal.append([b"one"])
        one = journal.path.stat().st_size
        journal.append([b"two"])
        journal.close()
    last = session(3, counted={"00002.2.jsonl": one})
    found = {
        file.name: [line for _, line in directory.journals.read(file, RUN, last)] for file in directory.journals.all(2)
    }
    assert found == {"00002.1.jsonl": [], "00002.2.jsonl": [b"one"], "00002.3.jsonl": [b"one", b"two"]}


@pytest.mark.parametrize("name", ["00009.1.jsonl", "notes.txt", "../manifest.json", ""])
def test_a_journal_that_is_not_there_cannot_be_set_aside(tmp_path: Path, name: str) -> None:
    """A mistyped name is told before anything is sent."""
    directory = run_in(tmp_path / "run")
    with pytest.raises(UsageError, match=re.escape(f"{name!r} is no journal in")):
        directory.journals.reader_of(name, RUN, None)


# -- reopened --------------------------------------------------------------------------------------------------------


def test_what_was_opened_again_is_read_as_it_is_now(tmp_path: Path) -> None:
    """Two processes see each other's: the note is read again when it was replaced."""
    writer, reader = RunDirectory(tmp_path), RunDirectory(tmp_path)
    for rounds in (1, 2, 3):
        noted = Reopened(rounds, {4: Round(rounds, rounds + 1)}, Tally(failed=rounds))
        writer.write_reopened(noted)
        assert writer.reopened() == reader.reopened() == noted
    assert reader.reopened().round_of(4) == Round(3, 4)
    assert reader.reopened().round_of(5) == Round(0, 0)


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"{", b'{"rounds":"x"}', b"\xff", b"[" * 20_000])
def test_a_damaged_note_of_what_was_opened_again_is_refused(tmp_path: Path, content: bytes) -> None:
    """It decides which answers count."""
    (tmp_path / "reopened.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"reopened\.json: this file is damaged"):
        RunDirectory(tmp_path).reopened()
