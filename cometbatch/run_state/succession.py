"""How one run follows another in the same place: an update is a run of its own, and takes the place when it is done.

    next/                 the update, while it goes on. It is the run that commands look at while it has its manifest
    earlier/<run id>/     a run that stood here before, or an update that was given up: whole, and a source of answers

Guards: the old result or the new one stands whole, at every moment. One step decides: the rename of the new result,
which names the run in `next/`. From there on there is no way back, only forward: the old run's files go to
`earlier/<run id>/`, its manifest last; then those of `next/` go up, its manifest last. Each of them is a rename that
may be found done, and a manifest is moved when all other moves are durable: who has it, has all. Without its manifest
`next/` holds nothing that counts: nothing is sent before it is there.

Only who has the lock calls what moves or removes.
"""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from cometbatch.errors import CheckpointError
from cometbatch.results import parts
from cometbatch.run_state import json_files
from cometbatch.run_state.directory import COMMITS, LOCK, MANIFEST, PARTS, RunDirectory, drop_caches
from cometbatch.store import local

NEXT: Final = "next"
EARLIER: Final = "earlier"
STAYING: Final = frozenset({LOCK, NEXT, EARLIER})
"""What is no part of the run that stands here."""


class _Named(Struct):
    run_id: str


def looked_at(home: RunDirectory) -> RunDirectory:
    """Where the run is that commands are about: the update, while there is one, else what stands here.

    Changes nothing. Moves that were cut off are looked through. A data set has no updates. Raises `CheckpointError`
    where a folder can't be read.
    """
    if home.parts.is_dataset or MANIFEST not in local.entries(home.path / NEXT):
        return home
    return RunDirectory(home.path / NEXT, within=home, is_moving=MANIFEST not in local.entries(home.path))


def next_of(home: RunDirectory) -> RunDirectory:
    """Where an update of the run that stands here is begun."""
    return RunDirectory(home.path / NEXT, within=home)


def settle(home: RunDirectory, result: Path) -> None:
    """Go forward where that is decided, and remove a `next/` that holds nothing.

    Raises `CheckpointError` where the disk refuses, or where a manifest is damaged.
    """
    found = looked_at(home)
    if found is home:
        _remove_void(home)
    elif is_decided(home, found, result):
        old = _run_id(home)
        if old is not None:
            kept = home.path / EARLIER / old
            _make(kept)
            _move_all(home.path, kept, STAYING)
        _move_all(found.path, home.path)
        _remove_void(home)


def is_decided(home: RunDirectory, update: RunDirectory, result: Path) -> bool:
    """Whether the update has taken the place: its result stands there, or moving has begun.

    The latter counts by itself, because the result may have been moved away meanwhile. Raises `CheckpointError` where a
    manifest is damaged.
    """
    old = _run_id(home)
    if old is None or (home.path / EARLIER / old).is_dir():
        return True
    said = parts.result_metadata(result) or {}
    return said.get("cometbatch.run_id") == _run_id(update)


def is_moved(directory: RunDirectory, run_id: str) -> bool:
    """Whether a run is being moved away from where it was found, so that what was read there may lack something."""
    home = directory.home
    if directory is home:
        return (home.path / EARLIER / run_id).is_dir() or MANIFEST not in local.entries(home.path)
    is_next = directory.path == home.path / NEXT and not directory.is_moving
    return MANIFEST not in local.entries(directory.path) or (is_next and MANIFEST not in local.entries(home.path))


def _run_id(directory: RunDirectory) -> str | None:
    content = directory.read_manifest()
    return None if content is None else json_files.decode(content, _Named, str(directory.path / MANIFEST)).run_id


def _move_all(source: Path, target: Path, staying: Collection[str] = ()) -> None:
    """Move a run's files, the manifest when all others are durable."""
    names = [name for name in local.entries(source) if name not in staying]
    if taken := sorted(set(names).intersection(local.entries(target))):
        raise CheckpointError(
            f"{target / taken[0]}: this stands where {source / taken[0]} goes, and is of another run. Nothing was "
            "overwritten: move it away, then run the same command again."
        )
    for some in ([name for name in names if name != MANIFEST], [name for name in names if name == MANIFEST]):
        for name in some:
            local.move(source / name, target / name)
        local.sync(target)
        local.sync(source)


def _remove_void(home: RunDirectory) -> None:
    """Remove a `next/` without a manifest, but for what is not ours."""
    folder = home.path / NEXT
    if folder.is_dir() and not home.parts.is_dataset:
        update = RunDirectory(folder, within=home)
        update.clear()
        drop_caches(update)
        for path in (*(folder / name for name in ("journal", "sessions", PARTS, COMMITS)), folder):
            with contextlib.suppress(OSError):  # it is gone, or holds what is not ours
                path.rmdir()
        local.sync(home.path)


def clear(directory: RunDirectory) -> None:
    """Forget the run in this directory and an update of it, and nothing that is not ours; `earlier/` stays.

    Raises `CheckpointError` where the disk refuses.
    """
    if directory is directory.home:
        folder = directory.path / NEXT
        if folder.is_dir():
            RunDirectory(folder, within=directory).clear()  # its manifest first
        _remove_void(directory)
    directory.clear()


def give_up(home: RunDirectory) -> None:
    """Move an update that is not finished to the earlier runs, whole. Raises `CheckpointError` where that fails."""
    update = next_of(home)
    run_id = _run_id(update)
    if run_id is not None:
        drop_caches(update)
        _make(home.path / EARLIER)
        local.move(home.path / NEXT, home.path / EARLIER / run_id)
        local.sync(home.path / EARLIER)
        local.sync(home.path)


def earlier_runs(home: RunDirectory) -> Iterator[RunDirectory]:
    """The runs that stood here before, and updates that were given up; those whose moving was cut off are none yet."""
    folder = home.path / EARLIER
    for name in local.entries(folder):
        found = RunDirectory(folder / name, within=home)
        if found.read_manifest() is not None:
            yield found


def forget_earlier(home: RunDirectory) -> tuple[int, int]:
    """Remove the earlier runs; returns how many there were, and how many bytes of files.

    Raises `CheckpointError` where the disk refuses.
    """
    folder, runs, size = home.path / EARLIER, 0, 0
    for name in local.entries(folder):
        path = folder / name
        with local.naming(path, "can't be removed"):
            runs, size = runs + 1, size + sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
            local.remove(path / MANIFEST)  # first: a half of a run is no source
            local.remove_tree(path)
    if folder.is_dir():
        with local.naming(folder, "can't be removed"):
            folder.rmdir()
        local.sync(home.path)
    return runs, size


def _make(folder: Path) -> None:
    with local.naming(folder, "this folder can't be made"):
        local.make_folder(folder)
