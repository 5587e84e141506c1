"""Sessions' files: numbered, whole, and the last one alone says what earlier ones left."""

from decimal import Decimal
from pathlib import Path

import pytest

from cometbatch.errors import CheckpointError
from cometbatch.records import Tally
from cometbatch.run_state import sessions
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.in_flight import Mark
from cometbatch.run_state.names import LostFileError
from cometbatch.run_state.sessions import Session, Who
from tests.owners_on_disk import answered
from tests.run_on_disk import RunOnDisk
from tests.scripted_run import RUN_ID

RUN = "0123456789abcdef" * 2
WHO = Who("2026-05-01T00:00:00+00:00", 42, "there\n", "0.1.1")
FULL = Session(
    7,
    RUN,
    WHO,
    found=(Mark(3, 1, 2, Decimal("0.010000000")), Mark(-1, 0, 0, None, is_whole=False)),
    total=Tally(charges=2, charges_usd=Decimal("12345678901234567890.123456789012345678"), largest_output_tokens=9),
    counted={"00001.3.jsonl": 4096},
    set_aside={"00001.3.jsonl": (70, 140)},
)


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A run's folders."""
    made = RunDirectory(tmp_path)
    made.create()
    return made


def test_a_session_comes_back_as_it_was_written(directory: RunDirectory) -> None:
    """Money to the last digit, and what is unknown as unknown."""
    directory.write_session(FULL)
    assert directory.last_session() == FULL
    assert sessions.decode(sessions.encode(FULL), Path("here")) == FULL


def test_the_last_session_is_the_one_with_the_highest_number(directory: RunDirectory) -> None:
    """By number, not by name or time; other files in the folder are nobody's."""
    for number in (9, 10, 2):
        directory.write_session(Session(number, RUN, WHO))
    for name in ("99.json.bak", "x.json", "11.txt"):
        (directory.path / "sessions" / name).write_bytes(b"")
    assert directory.last_session() == Session(10, RUN, WHO)
    assert directory.next_session() == 11


@pytest.mark.parametrize(
    "name", ["in_flight.12", "in_flight.12-3", "journal/00004.12.jsonl", "journal/00004.12-1.jsonl"]
)
def test_a_number_that_is_in_any_files_name_is_not_given_again(directory: RunDirectory, name: str) -> None:
    """No session ever writes into another's file."""
    directory.write_session(Session(3, RUN, WHO))
    (directory.path / name).write_bytes(b"")
    assert directory.next_session() == 13


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 40, b"{", b'{"number":1}', b"\xff", sessions.encode(FULL)[:-10], b"[" * 20_000]
)
def test_a_damaged_session_is_refused_by_name(directory: RunDirectory, content: bytes) -> None:
    """It holds money: nobody may guess it, and no earlier session's file stands in for it."""
    directory.write_session(Session(1, RUN, WHO))
    (directory.path / "sessions" / "2.json").write_bytes(content)
    with pytest.raises(LostFileError, match=r"2\.json: this file is damaged .*Restore it .* --set-aside 2\.json$"):
        directory.last_session()
    assert directory.last_session(["2.json"]) == Session(1, RUN, WHO)
    assert directory.next_session() == 3


@pytest.mark.parametrize("name", ["in_flight.3", "in_flight.3-1", "journal/00004.3.jsonl", "journal/00004.3-1.jsonl"])
def test_a_session_whose_file_is_gone_is_missed(directory: RunDirectory, name: str) -> None:
    """What it left tells of it; the file of an earlier session does not stand in for it unless a person says so."""
    directory.write_session(Session(2, RUN, WHO))
    (directory.path / name).write_bytes(b"")
    with pytest.raises(LostFileError, match=r"3\.json: this file is gone; .* --set-aside 3\.json$"):
        directory.last_session()
    assert directory.last_session(["3.json"]) == Session(2, RUN, WHO)


def test_a_session_is_noted_whole_or_not_at_all(directory: RunDirectory) -> None:
    """A full disk at that moment leaves the earlier sessions as they were."""
    directory.write_session(Session(1, RUN, WHO))
    (directory.path / "sessions" / ".7.json.tmp").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="No space left"):
        directory.write_session(FULL)
    assert directory.last_session() == Session(1, RUN, WHO)


def test_a_journal_that_tells_of_no_call_may_go_unseen(tmp_path: Path) -> None:
    """A process that died before its first record left a journal; a later one that sends nothing removes it."""
    run = RunOnDisk(tmp_path / "run", 4, 2)
    run.begin()
    run.directory.new_marks(RUN_ID, 1, 1).close()
    told = run.write_journal(0, [answered(0)], session=1)
    run.directory.journals.begin(RUN_ID, 1, 1).close()
    begun = run.begin()
    assert begun.progress.last is not None
    assert begun.progress.last.counted == {told.name: told.stat().st_size}
    run.directory.journals.forget(1)  # as the range is closed, of which nothing was recorded
    assert run.begin().progress.recorded == {0}
