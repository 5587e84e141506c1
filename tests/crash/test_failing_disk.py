"""The disk fails at any one thing that a run asks of it: the run stops in words, and the same command resumes it.

The injector stands where Python meets the operating system, as the power cut's recorder does, and refuses the n-th
thing that is asked of the disk: once, or from then on.
"""

import errno
import io
import mmap
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import cometbatch
from cometbatch.run_state.journal import Header, Journal, JournalReader
from tests.crash.test_power_cut import CONCURRENCY, REFUSED, ROWS, Case, Clock, Service, refuse_one, row_of
from tests.workbench import ANSWER_COLUMNS, Network, Workbench

Asked: TypeAlias = str  # create, write, cut, sync, rename, remove, folder; read, map, list

FULL = frozenset({"create", "write", "folder"})
BROKEN = frozenset({"write", "sync"})
STEP = int(os.environ.get("STEP", "8"))  # 1: at each single thing; a run asks to write about a hundred times,
READING_STEP = 1  # and to read about twenty
READ_ONLY = frozenset({"create", "write", "cut", "rename", "remove", "folder"})
READING = frozenset({"read", "map", "list"})
FAILURES = {
    "full": (errno.ENOSPC, FULL, False),
    "full for a moment": (errno.ENOSPC, FULL, True),
    "over quota": (errno.EDQUOT, FULL, False),
    "broken": (errno.EIO, BROKEN, True),
    "read-only": (errno.EROFS, READ_ONLY, False),
    "unreadable": (errno.EIO, READING, True),
    "forbidden": (errno.EACCES, READING, True),
}


class FailingDisk:
    """Refuses the `fails_at`-th thing that is asked of it under `root`, of those named."""

    def __init__(self, root: Path, number: int, asked: frozenset[Asked], fails_at: int, *, once: bool) -> None:
        self._root, self._number, self._asked, self._fails_at, self._once = root, number, asked, fails_at, once
        self._count = 0
        self.on_failure: Callable[[], None] = lambda: None

    @property
    def has_failed(self) -> bool:
        """Whether it came to that."""
        return self._count >= self._fails_at

    def ask(self, what: Asked) -> None:
        """Raise where this is the one."""
        if what not in self._asked:
            return
        self._count += 1
        if self._count == self._fails_at:
            self.on_failure()
        if self._count == self._fails_at or (self._count > self._fails_at and not self._once):
            raise OSError(self._number, os.strerror(self._number))

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Stand in the way of everything that Python asks of files there."""
        patch.setattr(io, "open", self._opening(io.open))
        for name, what in (("replace", "rename"), ("unlink", "remove"), ("mkdir", "folder")):
            patch.setattr(os, name, self._asking(getattr(os, name), what))
        for name in ("listdir", "scandir"):
            patch.setattr(os, name, self._asking(getattr(os, name), "list"))
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, self._syncing(getattr(os, name)))
        patch.setattr(mmap, "mmap", self._mapping(mmap.mmap))

    def _is_ours(self, path: object) -> bool:
        return isinstance(path, (str, Path)) and Path(path).is_relative_to(self._root)

    def _opening(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, mode: str = "r", buffering: int = -1, *more: Any, **options: Any) -> Any:
            if not self._is_ours(path):
                return step(path, mode, buffering, *more, **options)
            if set(mode) & set("wax") and not Path(path).exists():
                self.ask("create")
            raw = self._file_class()(path, mode.replace("b", "").replace("t", ""))
            if buffering == 0:
                return raw
            one_way = io.BufferedReader if "r" in mode else io.BufferedWriter
            buffered = io.BufferedRandom(raw) if "+" in mode else one_way(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8")

        return opened

    def _file_class(disk) -> type[io.FileIO]:  # noqa: N805 - `self` is the file's, inside
        class File(io.FileIO):
            def write(self, data: Any) -> int:
                disk.ask("write")
                return super().write(data)

            def truncate(self, size: int | None = None) -> int:
                disk.ask("cut")
                return super().truncate(size)

            def read(self, size: int | None = -1) -> bytes:
                disk.ask("read")
                return super().read(-1 if size is None else size)

            def readall(self) -> bytes:
                disk.ask("read")
                return super().readall()

            def readinto(self, buffer: Any) -> int:
                disk.ask("read")
                return super().readinto(buffer)

        return File

    def _asking(self, step: Callable[..., Any], what: Asked) -> Callable[..., Any]:
        def asked(path: Any, *more: Any, **options: Any) -> Any:
            if self._is_ours(path):
                self.ask(what)
            return step(path, *more, **options)

        return asked

    def _mapping(self, step: Callable[..., mmap.mmap]) -> Callable[..., mmap.mmap]:
        def mapped(file: int, *more: Any, **options: Any) -> mmap.mmap:
            self.ask("map")
            return step(file, *more, **options)

        return mapped

    def _syncing(self, step: Callable[[int], None]) -> Callable[[int], None]:
        def synced(file: int) -> None:
            self.ask("sync")
            step(file)

        return synced


def simply(case: Case, service: Service) -> cometbatch.RunSummary:
    """From nothing to the result."""
    return case.run(service)


def again(case: Case, service: Service) -> cometbatch.RunSummary:
    """The row that was refused is answered again."""
    return case.run(service, retry="failed")


def failing_at_each(folder: Path, failure: str, step: int) -> Iterator[tuple[Path, FailingDisk]]:
    """A new folder and a disk that fails `step` things later each time, until a run asks no more than that."""
    number, asked, once = FAILURES[failure]
    disk, at = FailingDisk(folder, number, asked, 0, once=once), 1 - step
    while disk.has_failed:
        at += step
        place = folder / f"{at:03d}"
        place.mkdir()
        disk = FailingDisk(place, number, asked, at, once=once)
        yield place, disk


@pytest.mark.parametrize(
    ("play", "ending"), [(simply, "out/table.parquet"), (again, "out/table.parquet"), (again, "out/")]
)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_disk_that_fails_at_anything_stops_the_run_in_words_and_loses_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: str,
    play: Callable[[Case, Service], cometbatch.RunSummary],
    ending: str,
) -> None:
    """An error that names a file, no request more; then the same command sends what is not recorded, and that alone.

    Nor does a run that gets through in spite of it send what was recorded before.
    """
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    calm = Case(tmp_path / "calm", bench.input, ending)
    calm.run(Network())
    tried = 0
    for place, disk in failing_at_each(tmp_path, failure, READING_STEP if FAILURES[failure][1] == READING else STEP):
        case, service = Case(place, bench.input, ending), Service(Clock())
        if play is again:
            case.run(Network(answer=refuse_one))
        recorded, sent_before = case.recorded() - {REFUSED}, list[int]()
        disk.on_failure = lambda sent=sent_before, service=service: sent.append(service.posts)  # type: ignore[misc]
        with monkeypatch.context() as patch:
            disk.install(patch)
            words = stopped_words(case, service, play)
        assert not recorded & set(map(row_of, service.requests))
        if disk.has_failed and words is not None:
            tried += 1
            assert "\n" not in words
            assert str(place) in words
            assert service.posts <= sent_before[0] + CONCURRENCY
        carries_on(case, calm, play)
    assert tried >= 2


def stopped_words(case: Case, service: Service, play: Callable[[Case, Service], cometbatch.RunSummary]) -> str | None:
    """What the run says as it stops; None where it gets through: not everything that fails is needed."""
    try:
        play(case, service)
    except cometbatch.CometbatchError as error:
        return str(error) if error.exit_code in (1, 2) else f"exit code {error.exit_code}\n"
    return None


def carries_on(case: Case, calm: Case, play: object) -> None:
    """The same command leads from here to the right end, and sends no recorded row again."""
    recorded, service = case.recorded(), Network()
    summary = case.run(service)
    if recorded == set(range(ROWS)) and summary.failed:  # nothing had been reset yet
        recorded -= {REFUSED}
        summary = case.run(service, retry="failed")
    sent = sorted(row for row in map(row_of, service.requests) if row is not None)
    assert sent == sorted(set(range(ROWS)) - recorded)
    assert (summary.finished, summary.succeeded) == (True, ROWS)
    assert case.result().select(ANSWER_COLUMNS).equals(calm.result().select(ANSWER_COLUMNS))
    assert case.strays() == []


def test_a_torn_end_that_cannot_be_cut_off_costs_its_own_line_alone(tmp_path: Path) -> None:
    """Nothing is written behind it any more: the journal that could not write the whole line ends the run."""
    path = tmp_path / "00000.1.jsonl"
    journal = Journal(path, Header("run-a", 0, 1))
    journal.append([b"{}"])
    journal.close()
    with path.open("ab") as file:
        file.write(b'01234567 {"record":"answ')
    assert [line for _, line in JournalReader(path, "run-a", 0)] == [b"{}"]


RUN = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from cometbatch.results import parts
from cometbatch.cli import main
parts.GROUP_BYTES, parts.LISTED_BYTES = 1, 0  # as in a long table: a result of several row groups, larger than any part
main()
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="this system has no limit on a file's size")
@pytest.mark.parametrize("room", [20, 60, 600, 2_500, 3_900, 9_000, 14_000])
def test_a_real_limit_on_space_ends_the_command_with_1_and_a_sentence(tmp_path: Path, room: int) -> None:
    """No file may grow beyond a bound, as on a full disk: exit code 1, no traceback, and it is resumed afterwards."""
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    job = bench.write_job(
        output={"path": str(tmp_path / "out.parquet"), "partition_rows": 4}, simulator={"latency_s": 0}
    )
    command = [sys.executable, "-c", RUN]
    ended = subprocess.run(
        [*command, str(room), "run", str(job)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert "File too large" in ended.stderr or "the disk is full" in ended.stderr
    assert "Traceback" not in ended.stderr
    ended = subprocess.run(
        [*command, "1000000", "run", str(job)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert bench.result().column("custom_id").to_pylist() == [f"{row:04d}" for row in range(ROWS)]
