"""A recorder of what a program asks the disk to do under a folder, and the folder as a power cut would leave it.

The recorder stands where Python meets the operating system: files, maps, renames, removals, syncs. That it misses
nothing is checked by replaying everything, which must give the folder as it is, byte for byte. The law of a power cut
is POSIX's, and no kinder: what was synced is there; of other bytes any may be missing or zero; a name that was made,
replaced or removed is durable only when its folder was synced after it, whatever became of the file. So is a second
name of a file; what is put on the real disk has a file for each. A name that went to another folder is in one of the
two, since every file system for such work makes a rename whole or not at all.
"""

import contextlib
import io
import mmap
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeAlias

import pytest

SECTOR_BYTES = 512  # what a disk writes whole or not at all


@dataclass(frozen=True)
class Wrote:
    """Bytes of a file."""

    node: int
    at: int
    data: bytes


@dataclass(frozen=True)
class Cut:
    """A file's new length."""

    node: int
    size: int


@dataclass(frozen=True)
class Synced:
    """A file or a folder is durable as it is now."""

    node: int


@dataclass(frozen=True)
class Named:
    """A folder's entry. `instead_of`: the name that it had; `node` is None where the name was removed."""

    folder: int
    name: str
    node: int | None
    instead_of: str | None = None


@dataclass(frozen=True, eq=False)
class Moved:
    """A name that went from one folder to another: in one of the two at any time, and durable once both are synced."""

    folder: int
    name: str
    node: int
    to: int
    new_name: str


Step: TypeAlias = Wrote | Cut | Synced | Named | Moved


@dataclass(frozen=True)
class Content:
    """A file on a disk. `changed_ns`: the time of its last change, where it was there before."""

    data: bytes
    changed_ns: int | None = field(default=None, compare=False)


State: TypeAlias = dict[str, Content | None]
"""A folder's files, and its folders as None, by path; a folder comes before what is in it."""


@dataclass
class File:
    """What a file's disk blocks hold for sure, and what was asked for since."""

    durable: bytes = b""
    changed_ns: int | None = None
    pending: list[Wrote | Cut] = field(default_factory=list)


@dataclass
class Folder:
    """The same of a folder's names. `number`: of the folder itself."""

    durable: dict[str, int] = field(default_factory=dict)
    pending: list[Named | Moved] = field(default_factory=list)
    number: int = 0


class Recorder:
    """Records, in order, what happens to the files under a folder while it is `watching`."""

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self.root = root
        self._clock = clock
        self._lock = threading.RLock()  # parts are written in threads
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was recorded: all that is in the folder is durable."""
        self.steps: list[tuple[float, Step]] = []
        self.base: dict[int, File | Folder] = {}
        self._numbers: dict[int, int] = {}  # of each inode, which the file system may use again
        self._scan(self.root)

    def _scan(self, path: Path) -> int:
        number = self._new(path)
        if path.is_dir():
            self.base[number] = Folder({each.name: self._scan(each) for each in path.iterdir()}, number=number)
        else:
            self.base[number] = File(path.read_bytes(), path.stat().st_mtime_ns)
        return number

    def _new(self, path: Path) -> int:
        number = len(self.base)
        self._numbers[path.stat().st_ino] = number
        self.base[number] = Folder(number=number) if path.is_dir() else File()
        return number

    def _number(self, file: int | Path) -> int:
        return self._numbers[(os.fstat(file) if isinstance(file, int) else file.stat()).st_ino]

    def _note(self, step: Step) -> None:
        self.steps.append((self._clock(), step))

    def _is_ours(self, path: Any) -> bool:
        return isinstance(path, (str, Path)) and Path(path).is_relative_to(self.root)

    @contextlib.contextmanager
    def watching(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(io, "open", self._opening(io.open))
            patch.setattr(mmap, "mmap", self._map_class())
            for name, step in (
                ("replace", self._replacing),
                ("link", self._linking),
                ("unlink", self._unlinking),
                ("rmdir", self._unlinking),
                ("mkdir", self._making),
            ):
                patch.setattr(os, name, step(getattr(os, name)))
            patch.setattr(os, "pwrite", self._placing(os.pwrite))
            for name in ("fsync", "fdatasync"):
                patch.setattr(os, name, self._syncing(getattr(os, name)))
            yield

    def _opening(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, mode: str = "r", buffering: int = -1, *more: Any, **options: Any) -> Any:
            if not self._is_ours(path) or not set(mode) & set("wa+x"):
                return step(path, mode, buffering, *more, **options)
            with self._lock:
                raw = self._open(Path(path), mode)
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8")

        return opened

    def _open(self, path: Path, mode: str) -> io.FileIO:
        existed = path.exists()
        raw = self._file_class()(path, mode.replace("b", "").replace("t", ""))
        if not existed:
            self._note(Named(self._number(path.parent), path.name, self._new(path)))
        elif "w" in mode:
            self._note(Cut(self._number(path), 0))
        return raw

    def _file_class(recorder) -> type[io.FileIO]:  # noqa: N805 - `self` is the file's, inside
        class RecordedFile(io.FileIO):
            def write(self, data: Any) -> int:
                with recorder._lock:
                    at = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
                    written = super().write(data)
                    recorder._note(Wrote(recorder._number(self.fileno()), at, bytes(data)[:written]))
                    return written

            def truncate(self, size: int | None = None) -> int:
                with recorder._lock:
                    length = super().truncate(size)
                    recorder._note(Cut(recorder._number(self.fileno()), length))
                    return length

        return RecordedFile

    def _map_class(recorder) -> type[mmap.mmap]:  # noqa: N805 - `self` is the map's, inside
        class RecordedMap(mmap.mmap):
            node: int

            def __new__(cls, file: int, length: int) -> Self:
                mapped = super().__new__(cls, file, length)
                mapped.node = recorder._number(file)
                return mapped

            def __setitem__(self, where: Any, data: Any) -> None:
                with recorder._lock:
                    super().__setitem__(where, data)
                    recorder._note(Wrote(self.node, where.start, bytes(data)))

        return RecordedMap

    def _placing(self, step: Callable[[int, bytes, int], int]) -> Callable[[int, bytes, int], int]:
        def placed(file: int, data: bytes, at: int) -> int:
            with self._lock:
                written = step(file, data, at)
                if os.fstat(file).st_ino in self._numbers:
                    self._note(Wrote(self._number(file), at, bytes(data)[:written]))
                return written

        return placed

    def _replacing(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(source: Any, target: Any) -> None:
            with self._lock:
                step(source, target)
                if self._is_ours(target):
                    folder, name = self._number(Path(target).parent), Path(target).name
                    if Path(source).parent == Path(target).parent:
                        self._note(Named(folder, name, self._number(target), Path(source).name))
                    else:
                        before = self._number(Path(source).parent)
                        self._note(Moved(before, Path(source).name, self._number(target), folder, name))

        return replaced

    def _linking(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def linked(source: Any, target: Any) -> None:
            with self._lock:
                step(source, target)
                if self._is_ours(target):
                    path = Path(target)
                    is_known = path.stat().st_ino in self._numbers  # else it was made without a byte (`touch`)
                    number = self._number(path) if is_known else self._new(path)
                    self._note(Named(self._number(path.parent), path.name, number))

        return linked

    def _unlinking(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def unlinked(path: Any, **options: Any) -> None:
            with self._lock:
                step(path, **options)
                if self._is_ours(path):
                    self._note(Named(self._number(Path(path).parent), Path(path).name, None))

        return unlinked

    def _making(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def made(path: Any, *more: Any, **options: Any) -> None:
            with self._lock:
                step(path, *more, **options)
                if self._is_ours(path):
                    self._note(Named(self._number(Path(path).parent), Path(path).name, self._new(Path(path))))

        return made

    def _syncing(self, step: Callable[[int], None]) -> Callable[[int], None]:
        def synced(file: int) -> None:
            with self._lock:
                step(file)
                if os.fstat(file).st_ino in self._numbers:
                    self._note(Synced(self._number(file)))

        return synced


class Disk:
    """What the power cut leaves, after any number of the recorded steps."""

    def __init__(self, recorder: Recorder, *, to_the_end: bool = False) -> None:
        self.nodes: dict[int, File | Folder] = {}
        self._half_durable: dict[Moved, int] = {}  # the folder that was synced since
        for number, node in recorder.base.items():
            self.nodes[number] = deepcopy(node)
        for _, step in recorder.steps if to_the_end else ():
            self.take(step)

    def take(self, step: Step) -> None:
        """One step happens."""
        node = self.nodes[step.folder if isinstance(step, Named | Moved) else step.node]
        if isinstance(step, Synced):
            self._sync(node)
        elif isinstance(step, Moved):
            for folder in (node, self.nodes[step.to]):
                assert isinstance(folder, Folder)
                folder.pending.append(step)
        else:
            node.pending.append(step)  # type: ignore[arg-type] # names are a folder's steps, the others a file's

    def _sync(self, node: File | Folder) -> None:
        if isinstance(node, File):
            node.durable = _content(node.durable, node.pending)
            node.changed_ns = None if node.pending else node.changed_ns
            node.pending.clear()
            return
        waiting = [step for step in node.pending if isinstance(step, Moved)]
        node.durable = _names(node, [step for step in node.pending if isinstance(step, Named)])
        node.pending = [*waiting]
        for step in waiting:
            if self._half_durable.setdefault(step, node.number) != node.number:
                for folder in (self.nodes[step.folder], self.nodes[step.to]):
                    assert isinstance(folder, Folder)
                    folder.durable = _names(folder, [step])
                    folder.pending.remove(step)

    def left(self, file_left: "FileLeft", names_left: "NamesLeft") -> State:
        """The folder as these choices leave it."""
        moved = {step: None for node in self.nodes.values() if isinstance(node, Folder)
                 for step in node.pending if isinstance(step, Moved)}  # fmt: skip
        gone = frozenset(names_left([*moved]))
        return dict(self._left(0, ".", file_left, lambda steps: _either(steps, gone, names_left)))

    def _left(
        self, number: int, path: str, file_left: "FileLeft", names_left: "NamesLeft"
    ) -> Iterator[tuple[str, Content | None]]:
        node = self.nodes[number]
        if isinstance(node, File):
            yield path, Content(file_left(node), None if node.pending else node.changed_ns)
            return
        yield path, None
        for name, inside in sorted(_names(node, names_left(node.pending)).items()):
            yield from self._left(inside, f"{path}/{name}", file_left, names_left)


def make(state: State, folder: Path) -> None:
    """Put such a folder on the real disk."""
    for name, content in state.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content.data)
            if content.changed_ns is not None:
                os.utime(folder / name, ns=(content.changed_ns, content.changed_ns))


def state_of(folder: Path) -> State:
    """A real folder's state."""
    inside = {f"./{path.relative_to(folder)}": path for path in folder.rglob("*")}
    return {".": None} | {name: Content(path.read_bytes()) if path.is_file() else None for name, path in inside.items()}


def _content(before: bytes, steps: list[Wrote | Cut]) -> bytes:
    content = bytearray(before)
    for step in steps:
        size = step.size if isinstance(step, Cut) else step.at
        content.extend(bytes(max(0, size - len(content))))  # what was never written reads as zeros
        if isinstance(step, Cut):
            del content[step.size :]
        else:
            content[step.at : step.at + len(step.data)] = step.data
    return bytes(content)


def _names(folder: Folder, steps: Sequence[Named | Moved]) -> dict[str, int]:
    names = dict(folder.durable)
    for step in steps:
        if isinstance(step, Moved):
            if step.folder == folder.number:
                names.pop(step.name, None)
            else:
                names[step.new_name] = step.node
            continue
        names.pop(step.instead_of or step.name, None)
        if step.node is not None:
            names[step.name] = step.node
    return names


def _either(
    steps: Sequence[Named | Moved], gone: frozenset[Named | Moved], names_left: "NamesLeft"
) -> list[Named | Moved]:
    """What is left of a folder's steps: of the moves those that are there in both of their folders."""
    kept = {id(step) for step in names_left([step for step in steps if isinstance(step, Named)])}
    return [step for step in steps if id(step) in kept or step in gone]


# -- choices: what of the steps that were not synced is there ----------------------------------------------------------

FileLeft: TypeAlias = Callable[[File], bytes]
NamesLeft: TypeAlias = Callable[[list[Named | Moved]], list[Named | Moved]]


def nothing(file: File) -> bytes:
    """No byte reached the disk."""
    return file.durable


def everything(file: File) -> bytes:
    """Every byte did."""
    return _content(file.durable, file.pending)


def torn(chance: random.Random) -> FileLeft:
    """The first steps did, the last of them up to a byte."""

    def left(file: File) -> bytes:
        steps = file.pending[: chance.randint(0, len(file.pending))]
        if steps and isinstance(last := steps[-1], Wrote):
            steps = [*steps[:-1], Wrote(last.node, last.at, last.data[: chance.randint(0, len(last.data))])]
        return _content(file.durable, steps)

    return left


def zeros(chance: random.Random) -> FileLeft:
    """The length did, and the first of the bytes; zeros are behind them."""

    def left(file: File) -> bytes:
        first, whole = torn(chance)(file), everything(file)
        return first + bytes(max(0, len(whole) - len(first)))

    return left


def holes(chance: random.Random) -> FileLeft:
    """The length did, and some sectors did, in no order."""

    def left(file: File) -> bytes:
        whole = everything(file)
        before = file.durable[: len(whole)].ljust(len(whole), b"\0")
        sectors = range(0, len(whole), SECTOR_BYTES)
        return b"".join(chance.choice((before, whole))[at : at + SECTOR_BYTES] for at in sectors)

    return left


def writes(chance: random.Random) -> FileLeft:
    """The length did, and some writes did, in no order; zeros are where the others were."""

    def left(file: File) -> bytes:
        some = [step for step in file.pending if isinstance(step, Cut) or chance.random() < 0.5]
        return _content(file.durable, some).ljust(len(everything(file)), b"\0")

    return left


def no_names(_steps: list[Named | Moved]) -> list[Named | Moved]:
    """No name was made, replaced or removed."""
    return []


def all_names(steps: list[Named | Moved]) -> list[Named | Moved]:
    """All of them were."""
    return steps


def some_names(chance: random.Random) -> NamesLeft:
    """Some of them were, in no order."""
    return lambda steps: [step for step in steps if chance.random() < 0.5]


def first_names(chance: random.Random) -> NamesLeft:
    """The first of them were."""
    return lambda steps: steps[: chance.randint(0, len(steps))]


def outcomes(chance: random.Random) -> Iterator[tuple[FileLeft, NamesLeft]]:
    """What a power cut may leave: the two extremes of names with no byte, one of all, some of single writes."""
    yield nothing, no_names
    yield nothing, all_names
    for bytes_left in (
        chance.choice((everything, torn(chance), zeros(chance), holes(chance))),
        *([writes(chance)] * 4),
    ):
        yield bytes_left, chance.choice((no_names, all_names, some_names(chance), first_names(chance)))
