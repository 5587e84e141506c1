"""Where a process asks the disk for something: there it may be killed, stand still, or wait for a slow disk.

Files are real, in a folder in memory. Each change of one is an operation of the process that asks for it, and does not
happen where that process is dead by then. In a thread, an operation may take time, in which others go on.
"""

import contextlib
import io
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from cometbatch.run_state import journal
from cometbatch.store import local
from tests.workers.simulated.world import World

T = TypeVar("T")

SYNCS = ("fsync", "fdatasync")
KINDS = {
    "replace": "rename",
    "rename": "rename",
    "link": "link",
    "unlink": "unlink",
    "mkdir": "mkdir",
    "rmdir": "unlink",
}


class DiskSpeed:
    """How long a disk takes, in seconds. `sync_s`: for a sync at most; `stall`: the chance that one takes `stall_s`."""

    def __init__(self, *, sync_s: float = 0.004, stall: float = 0.0, stall_s: float = 0.5, step: float = 0.0) -> None:
        self.sync_s = sync_s
        self.stall = stall
        self.stall_s = stall_s
        self.step = step  # chance that another step than a sync takes as long as one

    def takes_s(self, world: World, kind: str) -> float:
        """How long this takes."""
        chance = world.chance
        if kind != "sync" and (kind == "write" or not self.step or chance.random() > self.step):
            return 0.0
        if self.stall and chance.random() < self.stall:
            return chance.random() * self.stall_s
        return chance.random() * self.sync_s


class SimulatedDisk:
    """What stands between the processes of a world and the files under `root`."""

    def __init__(self, world: World, root: Path, speed: DiskSpeed) -> None:
        self._world = world
        self._root = root
        self._speed = speed
        self._parts: set[Path] = set()  # that owners have made
        self.broken: list[str] = []  # laws of parts that somebody broke

    def asked(self, kind: str) -> None:
        """Some process asks for a change. Raises `KilledError` where that process is dead."""
        process = self._world.current
        if process is None:
            return
        process.operation(kind)
        if (seconds := self._speed.takes_s(self._world, kind)) or process.is_frozen:
            if self._world.job is not None:
                self._world.job.took_s += seconds
            elif not self._world.strands.pause(seconds):
                process.busy_until = self._world.now + seconds
            elif process.is_dead:
                process.operation(kind)

    @contextlib.contextmanager
    def watching(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """While it is there, files are changed through it."""
        with patch.context() as inner:
            inner.setattr(io, "open", self._opening(io.open))
            inner.setattr(mmap, "mmap", self._map_class())
            for name, kind in KINDS.items():
                inner.setattr(os, name, self._asking(kind, getattr(os, name)))
            for name in ("replace", "rename", "link"):
                inner.setattr(os, name, self._naming(getattr(os, name)))
            for name in SYNCS:
                inner.setattr(os, name, self._asking("sync", getattr(os, name)))
            inner.setattr(os, "pwrite", self._asking("mark", os.pwrite))
            inner.setattr(os, "write", self._asking("write", os.write))
            inner.setattr(local, "_WritingThread", self._thread_class())
            inner.setattr(journal, "threading", SimpleNamespace(Lock=lambda: _Lock(self._world)))
            yield

    def _asking(self, kind: str, step: Callable[..., T]) -> Callable[..., T]:
        def asked(*arguments: Any, **options: Any) -> T:
            self.asked(kind)
            return step(*arguments, **options)

        return asked

    def _naming(self, step: Callable[..., T]) -> Callable[..., T]:
        """What gives a part its name."""

        def named(source: Any, target: Any, **options: Any) -> T:
            process, part = self._world.current, Path(target)
            if process is not None and process.worker and part.parent.name == "parts":
                if process.lease_left_s() <= 0:
                    self.broken.append(f"parts: {process.name} makes {part.name} without a lease")
                result, existed = step(source, target, **options), part.exists()
                if existed and part in self._parts:
                    self.broken.append(f"parts: {process.name} replaces {part.name}")
                self._parts.add(part)
                return result
            return step(source, target, **options)

        return named

    def _opening(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, mode: str = "r", buffering: int = -1, *more: Any, **options: Any) -> Any:
            if not set(mode) & set("wa+x") or not isinstance(path, (str, Path)):
                return step(path, mode, buffering, *more, **options)
            if set(mode) & set("wax"):
                self.asked("create")
            raw = step(path, mode.replace("t", "").replace("b", "") + "b", 0)
            if self._world.current is not None:
                self._world.current.files.append(raw)
            asking = _Asking(raw, self.asked)
            if buffering == 0:
                return asking
            buffered = io.BufferedRandom(asking) if "+" in mode else io.BufferedWriter(asking)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8")

        return opened

    def _map_class(disk) -> type[mmap.mmap]:  # noqa: N805 - `self` is the map's, inside
        usual = mmap.mmap

        class AskingMap(usual):  # type: ignore[misc, valid-type] # a recorder's class, where one is there
            def __setitem__(self, where: Any, data: Any) -> None:
                disk.asked("mark")
                super().__setitem__(where, data)

        return AskingMap

    def _thread_class(disk) -> type[Executor]:  # noqa: N805 - `self` is the thread's, inside
        class SimulatedThread(Executor):
            """A thread of whichever process uses it; `run_in_executor` knows it."""

            def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
                raise NotImplementedError

            def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
                if wait and (process := disk._world.current) is not None:
                    process.thread_of(self).wait()

            def end(self) -> None:
                self.shutdown()

        return SimulatedThread


class _Lock:
    """A lock between threads of a process: who waits for it lets the others go on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_held = False

    def __enter__(self) -> None:
        while self._is_held:
            if not self._world.strands.pause(0.0001) and (process := self._world.current) is not None:
                process.finish_threads()
        self._is_held = True

    def __exit__(self, *_: object) -> None:
        self._is_held = False


class _Asking(io.RawIOBase):
    """A file whose changes are asked for. What is under it is unbuffered."""

    def __init__(self, file: Any, asked: Callable[[str], None]) -> None:
        self._file = file
        self._asked = asked

    def write(self, data: Any) -> int:
        self._asked("write")
        written: int = self._file.write(data)
        return written

    def truncate(self, size: int | None = None) -> int:
        self._asked("write")
        length: int = self._file.truncate(size)
        return length

    def readinto(self, buffer: Any) -> int:
        read: int = self._file.readinto(buffer)
        return read

    def seek(self, offset: int, whence: int = 0) -> int:
        at: int = self._file.seek(offset, whence)
        return at

    def tell(self) -> int:
        at: int = self._file.tell()
        return at

    def fileno(self) -> int:
        number: int = self._file.fileno()
        return number

    def readable(self) -> bool:
        return bool(self._file.readable())

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            try:
                super().close()
            finally:
                self._file.close()
