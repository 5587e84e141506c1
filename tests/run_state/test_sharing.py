"""A run directory made ready for workers, the folder that each of them must see, and the epoch in its lock."""

import os
from pathlib import Path

import msgspec
import pytest

from cometbatch.errors import CheckpointError, UsageError
from cometbatch.run_state import manifest
from cometbatch.run_state.epoch import UNKNOWN_FENCE_S, Epoch
from cometbatch.run_state.manifest import WORKERS_NEED, decode_manifest
from cometbatch.run_state.sharing import check_nonce, share, unshare
from tests.child_process import child, heard
from tests.owners_on_disk import OwnersOnDisk, answers

# -- before workers start ----------------------------------------------------------------------------------------------


def test_a_shared_run_is_refused_by_name_by_a_program_that_knows_no_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would see no row of theirs, and pay for each again; a session without workers leaves the word there."""
    run = OwnersOnDisk(tmp_path)
    for _ in range(2):
        shared, _nonce = share(run.found())
        assert shared.manifest.needs == (WORKERS_NEED,)
    content = run.directory.read_manifest()
    assert content is not None
    assert run.resume().manifest == shared.manifest == decode_manifest(content, "manifest.json")
    monkeypatch.setattr(manifest, "KNOWN_NEEDS", frozenset())
    with pytest.raises(CheckpointError, match=r"does not know: workers\. Continue with a newer version"):
        run.found()


def test_a_worker_finds_the_folder_that_the_driver_shares(tmp_path: Path) -> None:
    """Each session has a nonce of its own, and none is left at its end."""
    run = OwnersOnDisk(tmp_path)
    nonces = set()
    for _ in range(2):
        _, nonce = share(run.found())
        check_nonce(run.found().directory, nonce, _never)
        nonces.add(nonce)
    assert len(nonces) == 2
    unshare(run.directory)
    assert run.names() == ["manifest.json"]


def _never(_seconds: float) -> None:
    raise AssertionError("there is nothing to wait for")


@pytest.mark.parametrize(("left", "words"), [(None, "is not there"), (b"another", "is another folder")])
def test_a_worker_on_a_folder_of_its_own_is_told_so(tmp_path: Path, left: bytes | None, words: str) -> None:
    """It looks a few times, since a folder of another machine may show a new file late; then it says what is needed."""
    run = OwnersOnDisk(tmp_path)
    if left is not None:
        (run.directory.path / "nonce").write_bytes(left)
    waits = list[float]()
    with pytest.raises(
        UsageError, match=f"this run directory {words} on .*put output.path on a disk that all machines"
    ):
        check_nonce(run.directory, "0f0f", waits.append)
    assert 0.2 <= sum(waits) <= 0.5


def test_a_worker_waits_for_a_folder_that_shows_the_nonce_late(tmp_path: Path) -> None:
    """As the cache of a network file system does."""
    run = OwnersOnDisk(tmp_path)
    nonce = run.directory.path / "nonce"
    # The struct checks its fields; the type checker can't.
    check_nonce(run.directory, "0f0f", lambda _: nonce.write_bytes(b"0f0f"))  # type: ignore[arg-type]


@pytest.mark.parametrize("is_dataset", [False, True])
def test_a_disk_that_gives_no_file_a_second_name_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_dataset: bool
) -> None:
    """Nothing there could tell which of two parts came first; the manifest is as it was."""
    run = OwnersOnDisk(tmp_path, is_dataset=is_dataset)

    def link(_source: Path, _final: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link)
        with pytest.raises(UsageError, match=r"can't get a second name .*Invalid cross-device link.*hard links"):
            share(run.found())
    assert run.found().manifest.needs == ()
    assert run.names("parts") == []
    share(run.found())


def test_the_end_of_a_session_with_workers_names_each_part_in_the_data_set(tmp_path: Path) -> None:
    """Also those whose worker was killed before it could."""
    run = OwnersOnDisk(tmp_path, is_dataset=True)
    share(run.found())
    run.commit(0, 1, answers(0))
    (run.result / "00000.parquet").unlink()
    unshare(run.directory)
    assert (run.result / "00000.parquet").samefile(run.directory.parts.path(0))


# -- the epoch ---------------------------------------------------------------------------------------------------------


def test_an_epoch_is_open_until_it_is_closed_or_its_fence_was_waited_for(tmp_path: Path) -> None:
    """Every session that finds it open must wait, however many began and died meanwhile."""
    run = OwnersOnDisk(tmp_path)
    directory = run.directory
    assert directory.epoch.unfenced() is None
    with directory.locked():
        directory.epoch.open(3, "workers", 3.5)
        assert directory.epoch.unfenced() == Epoch(3, "workers", 3.5)
    for _ in range(2):
        with directory.locked():
            directory.lock.sign()
            assert directory.epoch.unfenced() == Epoch(3, "workers", 3.5)
    with directory.locked():
        directory.epoch.forget()
        assert directory.epoch.read() is None
        directory.epoch.open(5, "ray", 4.0)
        directory.epoch.close()
    assert directory.epoch.unfenced() is None
    assert directory.epoch.read() == Epoch(5, "ray", 4.0, closed=True)


@pytest.mark.parametrize("note", [b"{", b"[]", b'{"session": 3}', b"\xff\xff", msgspec.json.encode("text")])
def test_an_epoch_that_cannot_be_read_is_one_that_may_live(tmp_path: Path, note: bytes) -> None:
    """Nobody knows for how long, so it is waited for longer than any usual fence."""
    run = OwnersOnDisk(tmp_path)
    with run.directory.locked():
        run.directory.lock.write_note(note)
    assert run.directory.epoch.unfenced() == Epoch(0, "", UNKNOWN_FENCE_S)


KILLED = """
import sys
from pathlib import Path
from cometbatch.run_state.directory import RunDirectory
directory = RunDirectory(Path(sys.argv[1]))
directory.lock.acquire()
directory.epoch.open(1, "workers", 3.0)
print("open", flush=True)
while True:
    directory.lock.sign()
    directory.epoch.open(1, "workers", 3.0)
    directory.epoch.open(22222, "ray", 30.25)
"""


def test_a_kill_in_the_middle_of_a_note_leaves_an_epoch(tmp_path: Path) -> None:
    """Whichever of two it was about to write over: never none, while workers of one may live."""
    run = OwnersOnDisk(tmp_path)
    with child(KILLED, run.directory.path) as process:
        assert heard(process) == "open"
        seen = {run.directory.epoch.unfenced() for _ in range(300)}
    seen.add(run.directory.epoch.unfenced())
    assert None not in seen
    assert run.directory.epoch.unfenced() in (Epoch(1, "workers", 3.0), Epoch(22222, "ray", 30.25))
