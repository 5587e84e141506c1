"""Several workers in one run directory: whose file is whose, which part stands, and what of the others' work counts."""

import os
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cometbatch.errors import CheckpointError
from cometbatch.records import PossibleCharge, RejectedAsk, Usage
from cometbatch.results import parts, tallies
from cometbatch.run_state import reopen
from cometbatch.run_state.begin import remove_leftovers
from cometbatch.run_state.directory import Reopened, RunDirectory
from cometbatch.run_state.in_flight import SyncedMarks
from cometbatch.run_state.names import LostFileError, finals_of
from cometbatch.run_state.owner_files import OwnerCharges
from cometbatch.run_state.ownership import LostOwnerError
from cometbatch.run_state.run import Run
from cometbatch.run_state.strays import names_of_strays
from cometbatch.run_state.succession import clear
from cometbatch.store import local
from cometbatch.store import mounts as mounts_of
from tests.owners_on_disk import CENT, OwnersOnDisk, answered, answers, charges
from tests.scripted_run import NOW, RUN_ID


def bill(run: Run) -> Decimal:
    """US dollars of everything that was answered, or may have been."""
    return tallies.spent(run.progress.with_charges)


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_workers_files_carry_its_number_and_count_as_no_session(tmp_path: Path) -> None:
    """So no two processes write into one file, and the next session's number is one more than the driver's."""
    run = OwnersOnDisk(tmp_path)
    run.journal(0, 2, [])
    run.book(2, charges(1))
    run.commit(1, 2, answers(1))
    assert run.names() == ["in_flight.1-2", "manifest.json"]
    assert run.names("journal") == ["00000.1-2.jsonl"]
    assert run.names("sessions") == ["1-2.json", "1.json"]
    assert run.names("committed") == ["1-2.jsonl"]
    assert run.directory.next_session() == 2
    last = run.directory.last_session()
    assert last is not None
    assert last.number == 1


@pytest.mark.parametrize(
    ("folder", "final", "owner"),
    [
        ("parts", "00042.part", "3-2"),
        ("parts", "00042.r1.part", "3-2"),
        ("out", "00042.parquet", "3-2"),
        ("sessions", "3-2.json", ""),
        (".", "in_flight.3-2", ""),
        ("committed", "3-2.jsonl", ""),
    ],
)
def test_a_file_that_a_killed_worker_had_not_finished_is_a_leftover(
    tmp_path: Path, folder: str, final: str, owner: str
) -> None:
    """Two of them never write under one name, and whoever comes later knows both for what they are."""
    run = OwnersOnDisk(tmp_path, is_dataset=True)
    place = run.result if folder == "out" else run.directory.path / folder
    place.mkdir(exist_ok=True)
    half = local.staged(place / final, owner)
    half.write_bytes(b"half")
    (place / ".notes.3-2.tmp").write_bytes(b"")
    assert final in finals_of(half.name)
    assert list(run.directory.leftovers([], run.directory.last_session())) == [half]


def test_fresh_forgets_all_of_it_and_nothing_else(tmp_path: Path) -> None:
    """Parts, lines, charges, marks, the nonce; a file of another name stays where it is."""
    run = OwnersOnDisk(tmp_path, is_dataset=True)
    run.journal(0, 1, answers(0))
    run.commit(1, 1, answers(1))
    run.book(1, charges(1))
    (run.directory.path / "nonce").write_bytes(b"1")
    others = [run.directory.path / "committed" / "notes.jsonl", run.directory.path / "sessions" / "1-x.json"]
    for each in others:
        each.write_bytes(b"")
    clear(run.directory)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(left) == sorted(others)


# -- which part stands -------------------------------------------------------------------------------------------------


def test_the_first_part_stands_and_the_second_worker_is_told(tmp_path: Path) -> None:
    """Its file is gone, and the first one's is as it was."""
    run = OwnersOnDisk(tmp_path)
    assert run.commit(0, 1, answers(0)) is True
    before = run.directory.parts.path(0).read_bytes()
    assert run.commit(0, 2, answers(0)) is False
    assert run.directory.parts.path(0).read_bytes() == before
    assert run.names("parts") == ["00000.part"]
    assert parts.read_info(run.directory.parts.path(0), RUN_ID, 0).owners == ("1-1",)


def test_who_has_lost_the_partition_meanwhile_makes_no_part(tmp_path: Path) -> None:
    """It is asked last, when all of the part is on the disk."""
    run = OwnersOnDisk(tmp_path)
    with pytest.raises(LostOwnerError, match="had lost the partition"):
        run.commit(0, 1, answers(0), is_current=lambda: run.names("parts") != [".00000.part.1-1.tmp"])
    assert run.names("parts") == []
    assert run.commit(0, 2, answers(0)) is True


@pytest.mark.parametrize("error", [FileExistsError(17, "exists"), OSError(5, "input/output error")])
def test_a_server_that_made_the_name_and_lost_its_answer_is_no_rival(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """A client of NFS asks again, and is told that the name is there: it is the file's own."""
    really = os.link

    def link(source: Path, final: Path) -> None:
        really(source, final)
        raise error

    run = OwnersOnDisk(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link)
        assert run.commit(0, 1, answers(0)) is True
    assert run.names("parts") == ["00000.part"]


def test_a_disk_that_refuses_the_name_is_said_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nobody was first."""

    def link(_source: Path, _final: Path) -> None:
        raise OSError(1, "Operation not permitted")

    run = OwnersOnDisk(tmp_path)
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(CheckpointError, match=r"00000\.part: can't be written \(Operation not permitted\)"):
        run.commit(0, 1, answers(0))
    assert run.names("parts") == []


# -- a data set --------------------------------------------------------------------------------------------------------


def test_a_data_set_names_the_parts_that_workers_made(tmp_path: Path) -> None:
    """One file with two names: nothing is written twice."""
    run = OwnersOnDisk(tmp_path, is_dataset=True)
    run.commit(0, 1, answers(0))
    run.commit(1, 0, answers(1))  # a session alone
    assert run.directory.parts.there() == [0, 1]
    assert [path.name for path in sorted(run.result.iterdir())] == ["00000.parquet", "00001.parquet"]
    assert (run.result / "00000.parquet").samefile(run.directory.path / "parts" / "00000.part")
    assert run.found().progress.committed == (0, 1)
    assert run.found().directory.parts.unlinked() == []


@pytest.mark.parametrize("damage", ["gone", "another file"])
def test_the_next_session_repeats_a_name_that_a_kill_left_undone(tmp_path: Path, damage: str) -> None:
    """The part itself is what counts, so no row of it is sent again, and the run is not finished before."""
    run = OwnersOnDisk(tmp_path, is_dataset=True)
    for index in range(3):
        run.commit(index, 1, answers(index))
    assert run.found().is_finished
    name = run.result / "00001.parquet"
    name.unlink()
    if damage == "another file":
        name.write_bytes(b"PAR1 of an earlier round")
    found = run.found()
    assert found.progress.committed == (0, 1, 2)
    assert (found.is_complete, found.is_finished) == (True, False)
    assert run.resume().is_finished
    assert name.samefile(run.directory.path / "parts" / "00001.part")


def test_a_run_that_was_copied_file_by_file_is_as_finished_as_it_was(tmp_path: Path) -> None:
    """Of each part there are two files then; one that is another round's is told from a copy."""
    run = OwnersOnDisk(tmp_path / "one", is_dataset=True)
    for index in range(3):
        run.commit(index, 1, answers(index))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    copy = OwnersOnDisk.of(tmp_path / "two", run)
    assert not (copy.result / "00000.parquet").samefile(copy.directory.parts.path(0))
    assert copy.found().is_finished
    shutil.copyfile(copy.result / "00001.parquet", copy.result / "00002.parquet")
    assert copy.found().directory.parts.unlinked() == [2]


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("after", [0, 1])
def test_a_round_of_retry_is_answered_with_workers_or_without_whatever_the_round_before_had(
    tmp_path: Path, before: int, after: int
) -> None:
    """The newest round's part counts, is what the data set names, and the old round's is gone."""
    run = OwnersOnDisk(tmp_path, is_dataset=True)
    for index in range(3):
        run.commit(index, before, answers(index))
    run.resume()
    run.retry(1, 2)
    assert run.found().progress.committed == (0, 2)
    run.commit(1, after, answers(1, 2 * CENT), session=2)
    found = run.found()
    assert found.progress.committed == (0, 1, 2)
    assert found.is_finished
    assert bill(found) == 8 * CENT  # what a round replaces is in its own note, which this one lacks
    kept = ["00000.part", "00001.r1.part", "00002.part"] if before and after else []
    if before != after:
        kept = ["00000.part", "00002.part"] if before else ["00001.r1.part"]
    made = run.directory.path / "parts"
    assert [path.name for path in sorted(made.iterdir() if made.exists() else [])] == kept
    assert parts.read_info(run.result / "00001.parquet", RUN_ID, 1).round == 1


def test_a_part_that_is_written_anew_with_one_more_column_stays_what_the_data_set_names(tmp_path: Path) -> None:
    """As a `--retry` with another target does with each part of a data set."""
    run = OwnersOnDisk(tmp_path, is_dataset=True)
    run.commit(0, 1, answers(0))
    run.commit(1, 0, answers(1))
    run.directory.write_reopened(Reopened(1, target_column="target"))
    for _ in range(2):
        reopen.widen_parts(run.found())
        for index in (0, 1):
            assert parts.has_column(run.result / f"{index:05d}.parquet", "target")
        assert run.found().directory.parts.unlinked() == []
        assert run.found().progress.committed == (0, 1)


# -- what of a worker's own counts -------------------------------------------------------------------------------------


def test_records_that_no_part_has_are_possible_charges_until_a_session_has_counted_them(tmp_path: Path) -> None:
    """The second to finish a partition died before it had booked its rows: its journal tells them."""
    run = OwnersOnDisk(tmp_path)
    cut_off = RejectedAsk(1, 1, 1, NOW, Usage(), CENT)
    path = run.journal(0, 2, [answered(0, 4 * CENT), cut_off, PossibleCharge(1, NOW, "no_answer", CENT)])
    run.commit(0, 1, answers(0))
    for _ in range(2):
        found = run.found()
        assert (found.progress.strays.names, found.progress.committed) == (("00000.1-2.jsonl",), (0,))
        assert (bill(found), found.progress.with_charges.charges) == (8 * CENT, 3)
        remove_leftovers(found)
        assert path.exists()
        assert names_of_strays(found.directory, found.manifest, found.progress.last, [0]) == {path.name}
    for _ in range(2):
        found = run.resume()
        assert not path.exists()
        assert found.progress.strays.names == ()
        assert (bill(found), found.progress.with_charges.charges) == (8 * CENT, 3)


def test_a_journal_that_the_part_names_is_in_the_part(tmp_path: Path) -> None:
    """A worker took the range over: what it read is its own, and the journals are leftovers of a kill."""
    run = OwnersOnDisk(tmp_path)
    paths = [run.journal(0, 1, answers(0)[:1]), run.journal(0, 2, answers(0)[1:])]
    run.commit(0, 2, answers(0), others=[1])
    found = run.found()
    assert (bill(found), found.progress.strays.names) == (2 * CENT, ())
    assert set(paths) <= set(found.directory.leftovers([0], found.progress.last))


def test_what_a_worker_has_booked_counts_once_whenever_it_dies(tmp_path: Path) -> None:
    """Its file of charges names the partition, so that the journal, which goes after it, counts for nothing."""
    run = OwnersOnDisk(tmp_path)
    path = run.journal(0, 2, answers(0))
    run.mark(2, 0)
    run.commit(0, 1, answers(0))
    assert bill(run.found()) == 4 * CENT
    run.book(2, charges(2), booked=[0])
    for remove in (False, True):
        if remove:
            path.unlink()
        assert bill(run.found()) == 4 * CENT
        assert run.found().progress.unsettled == ()
    for _ in range(2):
        assert bill(run.resume()) == 4 * CENT
    assert run.names("sessions") == ["1.json", "2.json", "3.json"]


def test_a_mark_in_another_workers_part_is_a_possible_charge(tmp_path: Path) -> None:
    """The part's maker settled its own marks and those that it took over, and knew nothing of this one."""
    run = OwnersOnDisk(tmp_path)
    run.mark(1, 0)
    run.mark(2, 0)
    run.mark(3, 1)
    run.commit(0, 2, answers(0), others=[1])
    found = run.found()
    assert [mark.ordinal for mark in found.progress.unsettled] == [1]
    assert bill(found) == 3 * CENT


def test_a_journal_with_one_partition_lost_and_another_open_counts_for_both(tmp_path: Path) -> None:
    """Of a range in two slices: the lost rows are charges, the open ones stand, and both do so once."""
    run = OwnersOnDisk(tmp_path, slices=2)
    run.journal(0, 2, [*answers(0, 3 * CENT), *answers(3)])
    run.commit(0, 1, answers(0))
    for _ in range(3):
        found = run.found()
        assert found.progress.recorded == {6, 7}
        assert (found.progress.committed, bill(found)) == ((0,), 10 * CENT)
        assert found.progress.with_charges.charges == 2
        run.resume()
    assert run.names("journal") == ["00000.1-2.jsonl"]


def test_a_file_of_charges_that_is_damaged_is_refused_by_name(tmp_path: Path) -> None:
    """Nobody guesses money; a person may accept that it is unknown."""
    run = OwnersOnDisk(tmp_path)
    run.book(2, charges(2))
    (run.directory.path / "sessions" / "1-2.json").write_bytes(b"{")
    with pytest.raises(LostFileError, match=r"1-2\.json: this file is damaged .* --set-aside 1-2\.json"):
        run.found()
    assert run.found(["1-2.json"]).progress.with_charges.charges_unknown == 1


def test_marks_of_a_worker_that_are_lost_count_as_all_that_it_may_have_had_in_flight(tmp_path: Path) -> None:
    """Each at the largest amount that another mark names, once a person has accepted the loss."""
    run = OwnersOnDisk(tmp_path)
    run.mark(1, 0)
    run.mark(2, 1)
    run.journal(1, 3, [])
    (run.directory.path / "in_flight.1-3").unlink()
    with pytest.raises(LostFileError, match=r"in_flight\.1-3: this file is gone"):
        run.found()
    run.directory.owners.write_charges(OwnerCharges(RUN_ID, 1, 3, slots=7))
    found = run.found(["in_flight.1-3"])
    assert (bill(found), found.progress.with_charges.charges_unknown) == (9 * CENT, 0)


@pytest.mark.parametrize(("mounts", "is_ours"), [(b"disk / ext4 rw 0 0\n", True), (b"a:/b / nfs4 rw 0 0\n", False)])
def test_a_worker_syncs_its_marks_where_the_folder_is_another_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: bytes, *, is_ours: bool
) -> None:
    """A session alone has its marks in memory wherever they are, as ever."""
    path = tmp_path / "mounts"
    path.write_bytes(mounts)
    monkeypatch.setattr(mounts_of, "MOUNTS", path)
    run = OwnersOnDisk(tmp_path)
    for worker in (0, 1):
        marks = run.directory.new_marks(RUN_ID, 1, 1, worker)
        assert (type(marks) is SyncedMarks) == (worker > 0 and not is_ours)
        marks.close()


# -- notes of parts ----------------------------------------------------------------------------------------------------


def test_a_noted_part_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at half a million parts reads lines; the figures are those of the footers."""
    run = OwnersOnDisk(tmp_path)
    for index in range(3):
        run.commit(index, 1 + index % 2, answers(index, index * CENT))
    before = run.found().progress
    opened, really = list[int](), parts.read_info

    def read_info(path: Path, run_id: str, index: int) -> parts.PartInfo:
        opened.append(index)
        return really(path, run_id, index)

    monkeypatch.setattr(parts, "read_info", read_info)
    assert run.found().progress == before
    assert (opened, bill(run.found())) == ([], 6 * CENT)


@pytest.mark.parametrize(
    "damage", [None, {}, {"run_id": "f0"}, {"size": 7}, {"round": 1}], ids=["torn", "gone", "run", "size", "round"]
)
def test_a_part_without_a_note_that_fits_tells_itself(tmp_path: Path, damage: dict[str, Any] | None) -> None:
    """Notes are never synced, and never trusted against the file that they are about."""
    run = OwnersOnDisk(tmp_path)
    run.commit(0, 1, answers(0))
    before = run.found().progress
    (note,) = run.directory.owners.parts(RUN_ID)
    path = run.directory.path / "committed" / "1-1.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-9] if damage is None else b"")
    if damage:
        run.note(msgspec.structs.replace(note, tally=charges(9), **damage))
    assert run.found().progress == before


def test_an_older_rounds_note_does_not_count(tmp_path: Path) -> None:
    """The same partition, opened again: it is open until its new part is there."""
    run = OwnersOnDisk(tmp_path)
    run.commit(0, 1, answers(0))
    run.resume()
    run.retry(0, 2)
    assert run.found().progress.committed == ()
    run.commit(0, 1, answers(0, 5 * CENT), session=2)
    assert run.found().progress.committed == (0,)
    assert run.found().progress.records.cost_usd == 10 * CENT
    assert run.names("parts") == ["00000.r1.part"]


def test_a_run_without_workers_has_none_of_their_files(tmp_path: Path) -> None:
    """Neither folders nor words in what it writes."""
    run = OwnersOnDisk(tmp_path)
    run.commit(0, 0, answers(0))
    assert isinstance(run.directory, RunDirectory)
    assert not (run.directory.path / "committed").exists()
    assert b"owners" not in run.directory.parts.path(0).read_bytes()
