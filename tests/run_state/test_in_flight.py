"""Marks of requests in flight: what a killed process leaves, and how damage of it is counted."""

import mmap
import os
import re
import signal
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cometbatch.errors import CheckpointError
from cometbatch.run_state.in_flight import (
    CELL_BYTES,
    EMPTY,
    InFlightMarks,
    Mark,
    SyncedMarks,
    header_bytes,
    mark_bytes,
    read_marks,
)
from cometbatch.run_state.names import LostFileError
from tests.child_process import child

RUN = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
CENT = Decimal("0.010000000")
ORDINALS = st.integers(0, 2**63)
AMOUNTS = st.none() | st.decimals(0, 10**11, places=18) | st.integers(0, 10**11).map(Decimal)
on_disk = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the marks are."""
    return tmp_path / "in_flight.3"


def write_cells(path: Path, cells: bytes, run_id: str = RUN) -> None:
    """A file of marks with these cells behind its header."""
    path.write_bytes(header_bytes(run_id, len(cells) // CELL_BYTES) + cells)


# -- a mark --------------------------------------------------------------------------------------------------------


@given(ordinal=ORDINALS, ask=st.integers(1, 10**6), attempt=st.integers(1, 10**8), amount=AMOUNTS)
def test_a_mark_is_64_bytes_whatever_it_says(ordinal: int, ask: int, attempt: int, amount: Decimal | None) -> None:
    """A longer one would reach into its neighbour's cell."""
    cell = mark_bytes(ordinal, ask, attempt, amount)
    assert len(cell) == CELL_BYTES
    assert cell.endswith(b"\n")
    assert cell.isascii()


@on_disk
@given(
    ordinal=ORDINALS,
    ask=st.integers(1, 9999),
    attempt=st.integers(1, 999_999),
    amount=st.none() | st.decimals(0, Decimal("99999999999.999999999"), places=18),
)
def test_a_mark_reads_back_and_never_says_less_than_the_attempt_can_cost(
    path: Path, ordinal: int, ask: int, attempt: int, amount: Decimal | None
) -> None:
    """Ordinal, ask and attempt are exact; the amount is rounded up, by less than a billionth of a dollar."""
    write_cells(path, mark_bytes(ordinal, ask, attempt, amount))
    (mark,) = read_marks(path, RUN)
    assert (mark.ordinal, mark.ask, mark.attempt, mark.is_whole) == (ordinal, ask, attempt, True)
    if amount is None:
        assert mark.max_cost_usd is None
    else:
        assert mark.max_cost_usd is not None
        assert amount <= mark.max_cost_usd < amount + Decimal("1e-9")


@pytest.mark.parametrize("amount", [Decimal("99999999999.9999999991"), Decimal(10**11), Decimal("1e30")])
def test_an_amount_that_has_no_room_is_unknown(path: Path, amount: Decimal) -> None:
    """Unknown is no smaller amount."""
    write_cells(path, mark_bytes(1, 1, 1, amount))
    assert read_marks(path, RUN) == [Mark(1, 1, 1, None)]


def test_marks_are_lines_that_a_person_can_read(path: Path) -> None:
    """Run and cells, then ordinal, ask, attempt, amount in US dollars; checksums: the format, byte for byte."""
    marks = InFlightMarks(path, RUN, 2)
    marks.begin(12, 1, 3, Decimal("0.0123"))
    marks.close()
    assert path.read_bytes().decode().splitlines() == [
        f"run {RUN}          3 cells d21779f2 ",
        " " * 63,
        "                  12    1      3           0.012300000 ff5ca738",
        " " * 63,
    ]


# -- cells ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [InFlightMarks, SyncedMarks])
@on_disk
@given(data=st.data(), cells=st.integers(0, 3))
def test_the_file_holds_each_mark_until_it_is_freed(
    path: Path, data: st.DataObject, cells: int, kind: type[InFlightMarks]
) -> None:
    """Over any order of steps: a cell with a record stays until a sync has covered it, and no mark is overwritten."""
    steps = data.draw(st.lists(st.sampled_from(["begin", "begin", "recorded", "refused", "free"]), max_size=40))
    marks, held = kind(path, RUN, cells), dict[int, int]()
    in_flight: list[int] = []
    recorded: list[int] = []
    for number, step in enumerate(steps):
        if step == "begin":
            cell = marks.begin(number, 1, 1, CENT)
            assert cell not in held
            held[cell] = number
            in_flight.append(cell)
        elif step == "free":
            taken = marks.take_recorded()
            assert sorted(taken) == sorted(recorded)
            marks.free(taken)
            for cell in recorded:
                del held[cell]
            recorded = []
        elif in_flight:
            marks.end(cell := in_flight.pop(0), recorded=step == "recorded")
            if step == "recorded":
                recorded.append(cell)
            else:
                del held[cell]
        assert sorted(mark.ordinal for mark in read_marks(path, RUN)) == sorted(held.values())
        assert all(mark.is_whole for mark in read_marks(path, RUN))
    marks.close()


def test_what_was_recorded_while_a_sync_ran_waits_for_the_next(path: Path) -> None:
    """The cells that are freed are those of records that were written before the sync began."""
    marks = InFlightMarks(path, RUN, 4)
    first, second = marks.begin(1, 1, 1, CENT), marks.begin(2, 1, 1, CENT)
    marks.end(first, recorded=True)
    covered = marks.take_recorded()
    marks.end(second, recorded=True)
    marks.free(covered)
    assert [mark.ordinal for mark in read_marks(path, RUN)] == [2]
    assert marks.take_recorded() == [second]
    marks.close()


def test_marks_are_synced_once_for_what_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One system call for any number of marks, none where there is nothing new; a disk that fails is named."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    marks = InFlightMarks(path, RUN, 4)
    assert marks.syncs() == []
    cells = [marks.begin(number, 1, 1, None) for number in range(3)]
    for sync in marks.syncs() + marks.syncs():
        sync()
    assert len(synced) == 1
    marks.free(cells)
    monkeypatch.setattr(os, "fdatasync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    for sync in marks.syncs():
        with pytest.raises(CheckpointError, match=r"in_flight\.3: can't be synced .*Input/output error"):
            sync()
    marks.close()


def test_a_mark_on_another_machines_disk_is_there_before_its_request_leaves(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine may be lost at any moment: one sync for each mark, none for a cell that is free again."""
    synced: list[bytes] = []
    marks = SyncedMarks(path, RUN, 1)
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append(path.read_bytes()))
    cells = [marks.begin(number, 1, 1, CENT) for number in range(3)]
    assert [mark_bytes(number, 1, 1, CENT) in each for number, each in enumerate(synced[-1:], 2)] == [True]
    assert len(synced) == 4  # three, and one where the file grew
    assert marks.syncs() == []
    marks.free(cells)
    assert read_marks(path, RUN) == []
    marks.close()


def test_a_mark_that_the_disk_refuses_is_an_error_that_names_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request must not leave."""
    marks = SyncedMarks(path, RUN, 1)
    monkeypatch.setattr(os, "pwrite", lambda *_: 5)
    with pytest.raises(CheckpointError, match=r"in_flight\.3: can't be written \(No space left on device\)"):
        marks.begin(1, 1, 1, CENT)
    marks.close()


SEND = """
import os, signal, sys
from decimal import Decimal
from pathlib import Path
from cometbatch.run_state import in_flight
marks = getattr(in_flight, sys.argv[2])(Path(sys.argv[1]), "0123456789abcdef" * 2, 1)
first = marks.begin(10, 1, 1, Decimal("0.01"))
second = marks.begin(11, 2, 3, None)
third = marks.begin(9223372036854775808, 1, 1, Decimal("0.02"))
marks.end(first, recorded=False)
marks.begin(12, 1, 2, Decimal("0.01"))
marks.end(second, recorded=True)
marks.end(third, recorded=True)
marks.free([third])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", [InFlightMarks, SyncedMarks])
def test_marks_outlive_a_killed_process(path: Path, kind: type[InFlightMarks]) -> None:
    """What was being sent when the process died is known to the next one, exactly, and what no sync has covered."""
    with child(SEND, path, kind.__name__) as sender:
        assert sender.wait() == -signal.SIGKILL
    assert sorted(read_marks(path, RUN), key=lambda mark: mark.ordinal) == [
        Mark(11, 2, 3, None),
        Mark(12, 1, 2, CENT),
    ]


FILL = """
import resource, signal, sys
from decimal import Decimal
from pathlib import Path
from cometbatch.errors import CheckpointError
from cometbatch.run_state.in_flight import CELL_BYTES, InFlightMarks
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
marks = InFlightMarks(Path(sys.argv[1]), "0123456789abcdef" * 2, 2)
resource.setrlimit(resource.RLIMIT_FSIZE, (3 * CELL_BYTES + int(sys.argv[2]), resource.RLIM_INFINITY))
cells = [marks.begin(number, 1, 1, Decimal("0.01")) for number in range(2)]
for _ in range(2):
    try:
        marks.begin(2, 1, 1, None)
    except CheckpointError as error:
        print(error)
marks.end(cells[0], recorded=False)
marks.begin(3, 1, 1, Decimal("0.01"))
marks.close()
"""


@pytest.mark.parametrize("room", [0, 30, 64, 100])
def test_a_disk_that_lets_the_marks_not_grow_leaves_them_as_they_are(path: Path, room: int) -> None:
    """The error names the file; requests in flight end, and their cells serve again."""
    with child(FILL, path, room) as filling:
        said = filling.communicate()[0].splitlines()
        assert filling.returncode == 0
    assert len(said) == 2
    assert all(re.match(rf"{path}: can't be written .*make room", line) for line in said)
    assert sorted(mark.ordinal for mark in read_marks(path, RUN)) == [1, 3]


def test_marks_that_cannot_be_mapped_are_an_error_that_names_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems map no file; nothing stays open."""

    def refusing(*_: object) -> None:
        raise OSError(19, "No such device")

    monkeypatch.setattr(mmap, "mmap", refusing)
    with pytest.raises(CheckpointError, match=r"in_flight\.3: .*No such device"):
        InFlightMarks(path, RUN, 2)


# -- read after a crash --------------------------------------------------------------------------------------------


def gone(path: Path) -> None:
    """Somebody tidied up."""
    path.unlink()


def empty(path: Path) -> None:
    """No byte is left."""
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    """As long as before, and nothing but zeros."""
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    """The last byte is missing."""
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path: Path) -> None:
    """Neither of its headers has the checksum that it should have."""
    path.write_bytes(path.read_bytes().replace(b" cells", b" cellz"))


@pytest.mark.parametrize("lose", [gone, empty, zeroed, cut, flipped])
def test_a_file_that_lost_cells_is_refused_until_a_person_accepts_it(path: Path, lose: Callable[[Path], None]) -> None:
    """Marks that are not there are no proof that nothing was on its way; the error tells the ways on."""
    marks = InFlightMarks(path, RUN, 2)
    for number in range(3):
        marks.begin(number, 1, 1, CENT)
    marks.close()
    whole = read_marks(path, RUN)
    lose(path)
    with pytest.raises(LostFileError, match=r"in_flight\.3: this file .* --set-aside in_flight\.3$"):
        read_marks(path, RUN)
    assert {*read_marks(path, RUN, is_loss_accepted=True)} <= {*whole}


def test_the_file_is_sure_of_new_cells_only_once_they_are_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may cut off cells that were not synced, and such a file is whole all the same."""
    marks = InFlightMarks(path, RUN, 1)
    monkeypatch.setattr(os, "fdatasync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    marks.begin(1, 1, 1, CENT)
    with pytest.raises(CheckpointError, match="can't be synced"):
        marks.begin(2, 1, 1, CENT)
    assert path.read_bytes()[: 2 * CELL_BYTES] == header_bytes(RUN, 2) + EMPTY
    marks.close()


@on_disk
@given(growths=st.integers(1, 4), kept=st.integers(0, CELL_BYTES))
def test_a_torn_header_leaves_the_one_before_it(path: Path, growths: int, kept: int) -> None:
    """What a power cut leaves of the last header costs no mark, and asks nobody."""
    marks, before = InFlightMarks(path, RUN, 1), b""
    number = 0
    while growths:
        whole = path.read_bytes()
        marks.begin(number, 1, 1, CENT)
        number += 1
        if path.stat().st_size > len(whole):
            before, growths = whole[: 2 * CELL_BYTES], growths - 1
    marks.close()
    after = path.read_bytes()
    (at,) = [at for at in (0, CELL_BYTES) if before[at : at + CELL_BYTES] != after[at : at + CELL_BYTES]]
    torn = after[at : at + kept] + before[at + kept : at + CELL_BYTES]
    path.write_bytes(after[:at] + torn + after[at + CELL_BYTES :])
    assert sorted(mark.ordinal for mark in read_marks(path, RUN)) == [*range(number)]


@pytest.mark.parametrize("cell", [b"", EMPTY, b"\0" * 64, b" " * 64, b"\n" * 64, b" \0\n" + b"\0" * 61])
def test_empty_zero_and_blank_cells_are_no_marks(path: Path, cell: bytes) -> None:
    """A file that grew before a power cut may end in zeros."""
    write_cells(path, cell + mark_bytes(1, 1, 1, CENT) + cell * 2)
    assert read_marks(path, RUN) == [Mark(1, 1, 1, CENT)]


@pytest.mark.parametrize(
    ("amounts", "most"),
    [([], None), ([CENT], CENT), ([CENT, 3 * CENT, 2 * CENT], 3 * CENT), ([CENT, None], None), ([None], None)],
)
@pytest.mark.parametrize("torn", [b"x" * 64, mark_bytes(5, 1, 1, CENT)[:40] + b" " * 24, b"\0" * 63 + b"1"])
def test_a_damaged_cell_counts_at_the_largest_amount_in_the_file(
    path: Path, amounts: list[Decimal | None], most: Decimal | None, torn: bytes
) -> None:
    """It is a mark of an unknown call. Unknown is larger than each amount; alone in its file it is unknown, too."""
    whole = [mark_bytes(number, 1, 1, amount) for number, amount in enumerate(amounts)]
    write_cells(path, torn + b"".join(whole) + torn)
    marks = read_marks(path, RUN)
    assert [mark.ordinal for mark in marks if mark.is_whole] == list(range(len(amounts)))
    assert [mark.max_cost_usd for mark in marks if not mark.is_whole] == [most, most]


@on_disk
@given(data=st.data())
def test_any_damage_is_read_and_counts_no_less(path: Path, data: st.DataObject) -> None:
    """Each mark whose cell was hit is a mark still, and the others are exact; nothing is raised."""
    amounts = data.draw(st.lists(st.integers(1, 10**6).map(lambda cents: cents * CENT), min_size=1, max_size=5))
    content = bytearray(b"".join(mark_bytes(number, 1, 1, amount) for number, amount in enumerate(amounts)))
    for at, byte in data.draw(st.dictionaries(st.integers(0, len(content) - 1), st.integers(33, 255))).items():
        content[at] = byte
    write_cells(path, bytes(content))
    marks = read_marks(path, RUN)
    assert len(marks) == len(amounts)
    whole = {mark.ordinal: mark.max_cost_usd for mark in marks if mark.is_whole}
    assert all(amounts[ordinal] == amount for ordinal, amount in whole.items())
    most = max((amount for amount in whole.values() if amount is not None), default=None)
    assert all(mark.max_cost_usd == most for mark in marks if not mark.is_whole)


@on_disk
@given(content=st.binary(max_size=300))
def test_whatever_stands_in_a_file_of_marks_is_read(path: Path, content: bytes) -> None:
    """A damaged file must not stop a run."""
    path.write_bytes(content)
    assert all(not mark.is_whole for mark in read_marks(path, RUN, is_loss_accepted=True))


def test_marks_of_another_run_are_refused_by_name(path: Path) -> None:
    """They are another run's money."""
    write_cells(path, mark_bytes(1, 1, 1, CENT), OTHER)
    with pytest.raises(CheckpointError, match=rf"{path}: these marks belong to another run\. Move the file away"):
        read_marks(path, RUN)
