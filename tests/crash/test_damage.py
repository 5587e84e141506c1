"""Files of a run that were damaged meanwhile: recovered from, or refused by name with a way out that works."""

import contextlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import cometbatch
from cometbatch.errors import CheckpointError
from tests import virtual_time
from tests.workbench import ANSWER_COLUMNS, Network, Workbench, carry_out, files

ROWS, PARTITION_ROWS, ANSWERS = 12, 4, 6
COMMITTED, JOURNALED = range(4), range(4, 6)
SETTINGS = {"output": {"partition_rows": PARTITION_ROWS}, "limits": {"concurrency": 1}}
PART, JOURNAL = "parts/00000.part", "journal/00001.1.jsonl"
SESSION, MARKS = "sessions/1.json", "in_flight.1"

Damage = Callable[[Path], object]


def no_credit_after(answers: int) -> Callable[[httpx.Request], httpx.Response | None]:
    """A balance that pays for this many answers."""
    left = itertools.count(answers, -1)

    def answer(request: httpx.Request) -> httpx.Response | None:
        refusal = {"error": {"message": "user quota is not enough", "code": "insufficient_user_quota"}}
        return httpx.Response(403, json=refusal) if request.method == "POST" and next(left) <= 0 else None

    return answer


def sent(network: Network) -> list[int]:
    """The rows that were sent, ascending."""
    found = (re.search(rb"Parcel ([0-9]+)", request.content) for request in network.requests)
    return sorted(int(match[1]) for match in found if match)


@pytest.fixture
def stopped(bench: Workbench) -> Workbench:
    """A run with a part, a journal with two rows, and six rows to go."""
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(bench.job(**SETTINGS), Network(answer=no_credit_after(ANSWERS)))
    assert (bench.run_directory / PART).exists()
    assert (bench.run_directory / JOURNAL).exists()
    return bench


@pytest.fixture
def calm(tmp_path: Path, bench: Workbench) -> Workbench:
    """The same table, run without any trouble."""
    (tmp_path / "calm").mkdir()
    other = Workbench(tmp_path / "calm")
    other.input = bench.input
    carry_out(other.job(**SETTINGS), Network())
    return other


def torn(path: Path) -> None:
    """Its last bytes are missing."""
    path.write_bytes(path.read_bytes()[:-5])


def torn_in_a_record(path: Path) -> None:
    """What its writer said at the end is missing, and the end of the record before that."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1])[:-5])


def flipped_at_the_end(path: Path) -> None:
    """One bit in the last record is another."""
    content = bytearray(path.read_bytes())
    content[content.rindex(b"\n", 0, content.rindex(b"\n", 0, -1)) - 20] ^= 0x04
    path.write_bytes(content)


def flipped(path: Path) -> None:
    """One bit in the middle is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x04
    path.write_bytes(content)


def flipped_at_the_start(path: Path) -> None:
    """One bit near the start is another."""
    content = bytearray(path.read_bytes())
    content[20] ^= 0x04
    path.write_bytes(content)


def emptied(path: Path) -> None:
    """No byte is left."""
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    """As long as before, and nothing but zeros."""
    path.write_bytes(bytes(path.stat().st_size))


def noise(path: Path) -> None:
    """Another program wrote here."""
    path.write_bytes(b"\xff\xfe not ours\n" * 30)


def removed(path: Path) -> None:
    """It is gone."""
    path.unlink()


def appended(path: Path) -> None:
    """A torn line behind the last."""
    with path.open("ab") as file:
        file.write(b'{"pid": 1')


def foreign(path: Path) -> None:
    """It says that it is another run's."""
    path.write_bytes(path.read_bytes().replace(b'"run_id"', b'"nur_id"'))


RECOVERED: list[tuple[str, Damage, set[int]]] = [
    (JOURNAL, torn, set()),
    (JOURNAL, torn_in_a_record, {5}),
    (JOURNAL, emptied, {4, 5}),
    (JOURNAL, zeroed, {4, 5}),
    (JOURNAL, removed, {4, 5}),
    (JOURNAL, appended, set()),
    (PART, removed, set(COMMITTED)),
    *((MARKS, damage, set()) for damage in (flipped, appended)),
    *(("lock", damage, set()) for damage in (torn, emptied, zeroed, noise, removed)),
]


def name_of(value: object) -> str | None:
    """What a case is called in pytest's list."""
    return str(getattr(value, "__name__", "")) or None


@pytest.mark.parametrize(("name", "damage", "again"), RECOVERED, ids=name_of)
def test_damage_that_is_recovered_from(
    stopped: Workbench, calm: Workbench, name: str, damage: Damage, again: set[int]
) -> None:
    """The same command ends with the right table, and sends again just what the damaged file alone held."""
    damage(stopped.run_directory / name)
    network = Network()
    summary = carry_out(stopped.job(**SETTINGS), network)
    assert sent(network) == sorted(again | set(range(ANSWERS, ROWS)))
    assert summary.finished
    assert stopped.result().select(ANSWER_COLUMNS).equals(calm.result().select(ANSWER_COLUMNS))
    assert cometbatch.verify(stopped.output).ok


REFUSED: list[tuple[str, Damage, set[int]]] = [
    *((JOURNAL, damage, set(JOURNALED)) for damage in (flipped_at_the_start, flipped_at_the_end, foreign, noise)),
    *((PART, damage, set(COMMITTED)) for damage in (torn, emptied, zeroed, noise, foreign)),
]
LOST: list[tuple[str, Damage]] = [
    *((SESSION, damage) for damage in (torn, emptied, zeroed, noise, appended, removed)),
    *((MARKS, damage) for damage in (torn, emptied, zeroed, noise, removed, flipped_at_the_start)),
]


@pytest.mark.parametrize(("name", "damage", "again"), REFUSED, ids=name_of)
def test_damage_that_is_refused(
    stopped: Workbench, calm: Workbench, name: str, damage: Damage, again: set[int]
) -> None:
    """The error names the file and the way out; nothing is sent or changed; the way out loses that file alone."""
    path = stopped.run_directory / name
    damage(path)
    before, network = files(stopped.folder), Network()
    for act in (lambda: carry_out(stopped.job(**SETTINGS), network), lambda: cometbatch.status(stopped.output)):
        with pytest.raises(CheckpointError) as refused:
            act()
        assert str(path) in str(refused.value)
        assert re.search(r"Restore|[Rr]emove|Move|away|--fresh", str(refused.value))
    assert sent(network) == []
    assert {**files(stopped.folder), "lock": None} == {**before, "lock": None}
    path.unlink()
    carry_out(stopped.job(**SETTINGS), network)
    assert sent(network) == sorted(again | set(range(ANSWERS, ROWS)))
    assert stopped.result().select(ANSWER_COLUMNS).equals(calm.result().select(ANSWER_COLUMNS))


@pytest.mark.parametrize(("name", "damage"), LOST, ids=name_of)
@pytest.mark.parametrize("is_finished", [False, True])
def test_a_lost_file_that_knew_of_money_is_accepted_by_name(
    stopped: Workbench, calm: Workbench, name: str, damage: Damage, *, is_finished: bool
) -> None:
    """Nothing is sent until then; then no answer is paid for again, and charges of unknown amount are on the bill."""
    job = stopped.job(**SETTINGS)
    if is_finished:
        carry_out(job, Network())
        name = name.replace("1", "2")
    path, network = stopped.run_directory / name, Network()
    damage(path)
    if is_finished and name.startswith("in_flight") and damage is removed:  # without journals, nothing tells of it
        assert (carry_out(job, network).possible_charges.charges, network.requests) == (0, [])
        return
    for act in (lambda: carry_out(job, network), lambda: cometbatch.status(stopped.output)):
        with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))}: .* --set-aside {path.name}$"):
            act()
    assert network.requests == []
    summary = virtual_time.run(cometbatch.run_async(job, set_aside=[path.name], progress=False, http=network))
    assert sent(network) == ([] if is_finished else list(range(ANSWERS, ROWS)))
    assert summary.possible_charges.charges == summary.possible_charges.charges_unknown >= 1
    assert stopped.result().select(ANSWER_COLUMNS).equals(calm.result().select(ANSWER_COLUMNS))
    assert carry_out(job, network).possible_charges == summary.possible_charges
    assert cometbatch.verify(stopped.output).ok


@pytest.mark.parametrize("name", [SESSION, MARKS])
def test_a_file_that_is_not_lost_is_not_set_aside(stopped: Workbench, name: str) -> None:
    """What it knows would be forgotten for nothing; the same command without the option goes on."""
    name, network = Path(name).name, Network()
    job = stopped.job(**SETTINGS)
    with pytest.raises(cometbatch.UsageError, match=rf"'{name}' is no .* without --set-aside"):
        virtual_time.run(cometbatch.run_async(job, set_aside=[name], progress=False, http=network))
    assert network.requests == []


def test_damaged_lines_can_be_set_aside_as_charges(stopped: Workbench, calm: Workbench) -> None:
    """The error names line, row and command; the command counts the lost answer at its most and sends its row again."""
    path = stopped.run_directory / JOURNAL
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"ordinal":4', b'"ordinal":4 ', 1))
    job, network = stopped.job(**SETTINGS), Network()
    with pytest.raises(CheckpointError, match=rf"row 4 is damaged.*--set-aside {path.name}") as refused:
        carry_out(job, network)
    assert f"{path}:2" in str(refused.value) or f"{path}:3" in str(refused.value)
    summary = virtual_time.run(cometbatch.run_async(job, set_aside=[path.name], progress=False, http=network))
    assert sent(network) == [4, *range(ANSWERS, ROWS)]
    assert stopped.result().select(ANSWER_COLUMNS).equals(calm.result().select(ANSWER_COLUMNS))
    assert (summary.possible_charges.charges, summary.possible_charges.charges_unknown) == (1, 0)
    again = virtual_time.run(cometbatch.run_async(job, set_aside=[], progress=False, http=network))
    assert (again.had_work, again.possible_charges) == (False, summary.possible_charges)


def test_a_journal_that_is_not_there_can_not_be_set_aside(stopped: Workbench) -> None:
    """A name that is no journal's is a mistake of the call, and nothing is sent."""
    network = Network()
    with pytest.raises(cometbatch.UsageError, match="--set-aside"):
        virtual_time.run(
            cometbatch.run_async(stopped.job(**SETTINGS), set_aside=["x.jsonl"], progress=False, http=network)
        )
    assert network.requests == []


@pytest.mark.parametrize("name", ["manifest.json", "reopened.json"])
@pytest.mark.parametrize("damage", [emptied, zeroed, noise])
def test_what_a_run_is_cannot_be_guessed(stopped: Workbench, name: str, damage: Damage) -> None:
    """Without its manifest, or the note of what was reopened, a run is refused by name until it is put back."""
    path = stopped.run_directory / name
    whole = path.read_bytes() if path.exists() else None
    path.touch()
    damage(path)
    if name == "reopened.json":
        path.write_bytes(path.read_bytes() or b"{")
    network = Network()
    with pytest.raises(CheckpointError, match="--fresh") as refused:
        carry_out(stopped.job(**SETTINGS), network)
    assert str(path) in str(refused.value)
    assert network.requests == []
    path.unlink()
    if whole is not None:
        path.write_bytes(whole)
    assert carry_out(stopped.job(**SETTINGS), network).finished
    assert sent(network) == list(range(ANSWERS, ROWS))


@pytest.mark.parametrize("name", ["manifest.json", "reopened.json", SESSION, MARKS, JOURNAL, PART])
def test_a_folder_in_a_files_place_is_told_by_name(stopped: Workbench, calm: Workbench, name: str) -> None:
    """A file that can't be read is none that is missing: nothing is sent; with the file back, nothing is sent twice."""
    path, aside, network = stopped.run_directory / name, stopped.folder / "aside", Network()
    if path.exists():
        path.rename(aside)
    path.mkdir()
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        carry_out(stopped.job(**SETTINGS), network)
    assert network.requests == []
    path.rmdir()
    if aside.exists():
        aside.rename(path)
    carry_out(stopped.job(**SETTINGS), network)
    assert sent(network) == list(range(ANSWERS, ROWS))
    assert stopped.result().select(ANSWER_COLUMNS).equals(calm.result().select(ANSWER_COLUMNS))


def test_a_flipped_page_is_found_before_the_result_is_published(stopped: Workbench, calm: Workbench) -> None:
    """A part's footer may be whole and a page not: no wrong answer is published, and what was sent is kept."""
    path, network = stopped.run_directory / PART, Network()
    content = bytearray(path.read_bytes())
    content[60] ^= 0x04
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        carry_out(stopped.job(**SETTINGS), network)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        carry_out(stopped.job(**SETTINGS), network)
    assert not stopped.output.exists()
    path.unlink()
    carry_out(stopped.job(**SETTINGS), network)
    assert sent(network) == sorted([*COMMITTED, *range(ANSWERS, ROWS)])
    assert stopped.result().select(ANSWER_COLUMNS).equals(calm.result().select(ANSWER_COLUMNS))


def test_damage_after_a_session_has_counted_a_journal_is_refused(stopped: Workbench) -> None:
    """What a killed session left unsaid, the start of the next one synced: no power cut explains it from then on."""
    path = stopped.run_directory / JOURNAL
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))  # as a kill leaves it
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(stopped.job(**SETTINGS), Network(answer=no_credit_after(0)))
    content = bytearray(path.read_bytes())
    content[-20] ^= 0x04
    path.write_bytes(content)
    network = Network()
    with pytest.raises(CheckpointError, match="--set-aside"):
        carry_out(stopped.job(**SETTINGS), network)
    assert network.requests == []


def test_damage_that_a_power_cut_explained_once_is_no_error_later(stopped: Workbench, calm: Workbench) -> None:
    """The session that finds it notes where it is; those after it know it."""
    path = stopped.run_directory / JOURNAL
    header, note, first, _, second, _ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(header + note + bytes(len(first) - 1) + b"\n" + second)
    for _ in range(2):
        with pytest.raises(cometbatch.RunStoppedError):
            carry_out(stopped.job(**SETTINGS), Network(answer=no_credit_after(0)))
    network = Network()
    carry_out(stopped.job(**SETTINGS), network)
    assert sent(network) == [4, *range(ANSWERS, ROWS)]
    assert stopped.result().select(ANSWER_COLUMNS).equals(calm.result().select(ANSWER_COLUMNS))


@pytest.fixture
def stopped_twice(stopped: Workbench) -> Workbench:
    """A second session began, noted how much of the first one's journal counts, and was refused at once."""
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(stopped.job(**SETTINGS), Network(answer=no_credit_after(0)))
    return stopped


def cut_at_a_line(path: Path) -> None:
    """Its last lines are missing, whole."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))


@pytest.mark.parametrize(
    ("damage", "again"),
    [(removed, {4, 5}), (emptied, {4, 5}), (torn, set()), (torn_in_a_record, {5}), (cut_at_a_line, {5})],
    ids=name_of,
)
def test_a_journal_that_a_later_session_has_counted_can_not_go_unseen(
    stopped_twice: Workbench, calm: Workbench, damage: Damage, again: set[int]
) -> None:
    """Nothing is sent until it is set aside by name; then a charge of unknown amount stands for what it held, once."""
    path, job, network = stopped_twice.run_directory / JOURNAL, stopped_twice.job(**SETTINGS), Network()
    damage(path)
    for act in (lambda: carry_out(job, network), lambda: cometbatch.status(stopped_twice.output)):
        with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))}: .* --set-aside {path.name}$"):
            act()
    assert network.requests == []
    refused = Network(answer=no_credit_after(0))
    with pytest.raises(cometbatch.RunStoppedError):  # what was accepted is not asked again
        virtual_time.run(cometbatch.run_async(job, set_aside=[path.name], progress=False, http=refused))
    summary = carry_out(job, network)
    assert sent(network) == sorted(again | set(range(ANSWERS, ROWS)))
    assert (summary.possible_charges.charges, summary.possible_charges.charges_unknown) == (1, 1)
    assert stopped_twice.result().select(ANSWER_COLUMNS).equals(calm.result().select(ANSWER_COLUMNS))
    assert cometbatch.verify(stopped_twice.output).ok


def test_several_lost_journals_are_named_at_once(bench: Workbench, calm: Workbench) -> None:
    """One command accepts them all."""
    job = bench.job(**SETTINGS)
    for answers in (5, 1, 0):
        with pytest.raises(cometbatch.RunStoppedError):
            carry_out(job, Network(answer=no_credit_after(answers)))
    lost = ["00001.1.jsonl", "00001.2.jsonl"]
    for name in lost:
        removed(bench.run_directory / "journal" / name)
    with pytest.raises(CheckpointError, match=" ".join(f"--set-aside {re.escape(name)}" for name in lost) + "$"):
        cometbatch.status(bench.output)
    network = Network()
    summary = virtual_time.run(cometbatch.run_async(job, set_aside=lost, progress=False, http=network))
    assert (len(lost), summary.possible_charges.charges_unknown) == (2, 2)
    assert sent(network) == list(range(4, ROWS))
    assert bench.result().select(ANSWER_COLUMNS).equals(calm.result().select(ANSWER_COLUMNS))


@pytest.fixture
def retried(bench: Workbench) -> Workbench:
    """A finished run of which two rows had failed, and a --retry of them that was refused at once."""
    bad = re.compile(rb"Parcel 000[57]")

    def answer(request: httpx.Request) -> httpx.Response | None:
        is_bad = request.method == "POST" and bad.search(request.content)
        return httpx.Response(400, json={"error": {"message": "not this one", "code": "bad_row"}}) if is_bad else None

    job, refused = bench.job(**SETTINGS), Network(answer=no_credit_after(0))
    carry_out(job, Network(answer=answer))
    with pytest.raises(cometbatch.RunStoppedError):
        virtual_time.run(cometbatch.run_async(job, retry=["failed"], progress=False, http=refused))
    return bench


@pytest.mark.parametrize("damage", [removed, emptied, cut_at_a_line], ids=name_of)
def test_what_a_retry_keeps_can_not_be_lost_unseen(retried: Workbench, calm: Workbench, damage: Damage) -> None:
    """Rows that were paid are sent again only once the file that kept them is set aside, and then they are charged."""
    path, job, network = retried.run_directory / "journal/00001.kept1.jsonl", retried.job(**SETTINGS), Network()
    assert answered_calls(retried) == ROWS - 2
    damage(path)
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))}: .* --set-aside {path.name}$"):
        carry_out(job, network)
    assert network.requests == []
    refused = Network(answer=no_credit_after(0))
    with pytest.raises(cometbatch.RunStoppedError):
        virtual_time.run(cometbatch.run_async(job, set_aside=[path.name], progress=False, http=refused))
    summary = carry_out(job, network)
    assert set(sent(network)) <= {4, 5, 6, 7}
    assert summary.possible_charges.charges_unknown == 1
    assert retried.result().select(ANSWER_COLUMNS).equals(calm.result().select(ANSWER_COLUMNS))


def answered_calls(bench: Workbench) -> int:
    """How many calls have an outcome."""
    return cometbatch.status(bench.output).summary.tally.calls


def test_the_note_of_what_was_reset_can_not_be_lost_unseen(retried: Workbench) -> None:
    """Without it, parts of later rounds would count for nothing and be paid again: refused by name, nothing sent."""
    path, job = retried.run_directory / "reopened.json", retried.job(**SETTINGS)
    whole, network = path.read_bytes(), Network()
    removed(path)
    for act in (lambda: carry_out(job, network), lambda: cometbatch.status(retried.output)):
        with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))}: .*Restore it from a copy.*--fresh"):
            act()
    assert network.requests == []
    path.write_bytes(whole)
    carry_out(job, network)
    assert sent(network) == [5, 7]
    removed(path)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        carry_out(job, Network())


@pytest.mark.parametrize("name", ["in_flight.1", "sessions/2.json"])
def test_marks_without_a_manifest_are_what_is_left_of_a_run(bench: Workbench, name: str) -> None:
    """A run whose manifest is gone before its first answer may have paid all the same: it is not begun anew unasked."""
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(bench.job(**SETTINGS), Network(answer=no_credit_after(0)))
    for path in (bench.run_directory / "journal").iterdir():
        path.unlink()
    (bench.run_directory / name).touch()
    removed(bench.run_directory / "manifest.json")
    network = Network()
    with pytest.raises(CheckpointError, match=r"manifest\.json is gone.*--fresh"):
        carry_out(bench.job(**SETTINGS), network)
    assert network.requests == []
