"""The run directory: which file has which name, and which of them count. Knows no outcome.

Guards: a session writes into files of its own only; existence is the commit, so that recovery is a matter of looking.

    manifest.json                          what the run is
    sessions/<n>.json                      session n: who, and what earlier sessions left
    sessions/<n>-<w>.json                  worker w of it: charges that are in no part and no journal (`owner_files`)
    journal/<range>.<n>.jsonl              records of a range of calls, by session n (by a worker of it: <n>-<w>)
    journal/<partition>.kept<round>.jsonl  what a round of --retry keeps of a partition
    in_flight.<n>                          marks of session n (of a worker of it: <n>-<w>)
    parts/<partition>.part                 a finished partition; of a later round: <partition>.r<round>.part
    committed/<n>-<w>.jsonl                a line for each part that a worker committed
    reopened.json                          which partitions are in which round
    reuse/                                 the index of earlier answers, while the run is not finished
    input/                                 the input's rows as Parquet, for workers, while the run is not finished
    grants.<n>.jsonl                       what the coordinator of session n, on Ray, has granted so far
    nonce                                  what a worker reads to know that it sees this very folder
    lock                                   who has it, and whether the last session with workers ended in order
    next/                                  a run directory without a lock: the update of this run, while it goes on
    earlier/<run id>/                      another: a run that stood here before (`succession` tells of both)

A data set keeps its parts as the result, named <partition>.parquet in every round; the round is in the footer. Parts of
workers lie in parts/, and the data set's names are second names of them. With
slices it keeps them in the run directory, and its folder holds a file for each slice (`slice_files`).
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct

from cometbatch.records import Tally
from cometbatch.run_state import json_files, sessions
from cometbatch.run_state.epoch import EpochNote
from cometbatch.run_state.in_flight import InFlightMarks, SyncedMarks
from cometbatch.run_state.journal_files import JournalFiles
from cometbatch.run_state.names import (
    COMMITTED,
    DATASET_PART,
    GRANTS,
    JOURNAL,
    KEPT,
    MARKS,
    PART,
    SESSION,
    LostFileError,
    finals_of,
    index_in,
    owner_name,
)
from cometbatch.run_state.owner_files import OwnerCharges, OwnerFiles
from cometbatch.run_state.part_files import PartFiles
from cometbatch.run_state.sessions import Session
from cometbatch.run_state.slice_files import SLICE_FILE
from cometbatch.store import local
from cometbatch.store.local import Lock
from cometbatch.store.mounts import is_local

MANIFEST: Final = "manifest.json"
REOPENED: Final = "reopened.json"
LOCK: Final = "lock"
PARTS: Final = "parts"
"""The folder of parts that are not the result themselves, or that workers made."""
COMMITS: Final = "committed"
"""The folder of workers' lines about their parts."""
NONCE: Final = "nonce"
INDEX: Final = "reuse"
"""The folder of the index of earlier answers: a cache, for the sessions of an unfinished run."""
INPUT: Final = "input"
"""The folder of the staged input: a cache, for sessions of an unfinished run that have workers."""


class Round(Struct, frozen=True):
    """A partition that a `--retry` opened again: in which round, and the first session whose records count in it."""

    round: int
    since: int


class Reopened(Struct, frozen=True):
    """What was opened again after it had been recorded; the rename of this file is what makes it so.

    `rounds`: of `--retry`, so far. `partitions`: those that are not in round 0. `replaced`: everything that no longer
    counts, over all rounds, but stays in the bill. `target`: which one the newest round asks. `target_column`: the name
    of the column that says which target a row was asked of; None while all of them were asked of one, or where the run
    has had such a column from its beginning.
    """

    rounds: int = 0
    partitions: dict[int, Round] = msgspec.field(default_factory=dict)
    replaced: Tally = Tally()
    target: int = 0
    target_column: str | None = None

    def round_of(self, index: int) -> Round:
        """The round that a partition is in."""
        return self.partitions.get(index, _FIRST)

    def number_of(self, index: int) -> int:
        """The number of that round."""
        found = self.partitions.get(index)
        return 0 if found is None else found.round


_FIRST: Final = Round(0, 0)


class RunDirectory:
    """The files of one run. `parts`: where the parts are, if they are the result themselves (a data set).

    `slices`: the folder of a data set that gets a file for each slice.
    `within`: the run directory that this one lies in, which has the lock of both. `is_moving`: moving this one's files
    up into that one was cut off, so that each of them is in one of the two. `home`: the directory beside the result.
    """

    def __init__(
        self,
        path: Path,
        *,
        parts: Path | None = None,
        within: "RunDirectory | None" = None,
        is_moving: bool = False,
        slices: Path | None = None,
    ) -> None:
        self.path = path
        self.slices = slices
        self.home: RunDirectory = self if within is None else within.home
        self.lock: Lock = Lock(path / LOCK, holder_of="this job") if within is None else within.lock
        self.is_moving = is_moving
        self._places = (path, within.path) if is_moving and within is not None else (path,)
        self.journals = JournalFiles(_first(self._places, "journal"))
        is_dataset = parts is not None
        self.parts = PartFiles(
            parts or _first(self._places, PARTS),
            lambda: self.reopened().number_of,
            is_dataset=is_dataset,
            within=_first(self._places, PARTS),
        )
        self.sessions = _first(self._places, "sessions")
        self.owners = OwnerFiles(self.sessions, _first(self._places, COMMITS))
        self.epoch = EpochNote(self.lock)
        self.index = path / INDEX
        self.input = path / INPUT
        self._reopened = Reopened()
        self._reopened_stamp: tuple[int, int, int] | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one writer. Raises what `Lock.acquire` raises."""
        self.lock.acquire()
        try:
            yield
        finally:
            self.lock.release()

    def create(self) -> None:
        """Make the folders of a run, where they are missing. Raises `CheckpointError` where they can't be made."""
        for folder in self._folders()[1:]:
            with local.naming(folder, "this folder can't be made"):
                local.make_folder(folder)

    def clear(self) -> None:
        """Forget the run, answers included, and nothing that is not ours; the lock stays ours.

        The manifest goes first, so that a crash half-way leaves nothing that could be resumed. When
        this returns, all of it is gone for good: what a power cut brought back would stand in the next run's way.
        """
        local.remove(self.path / MANIFEST)
        if self.path.is_dir():
            local.sync(self.path)
        drop_caches(self)
        for folder in self._all_folders():
            if folder.is_dir():
                for name in local.entries(folder):
                    if _is_ours(self, folder, name):
                        local.remove(folder / name)
                local.sync(folder)

    def _all_folders(self) -> Iterable[Path]:
        """Those that only some runs have, too."""
        return dict.fromkeys((*self._folders(), self.parts.within, self.owners.committed, self.path / PARTS))

    def _folders(self) -> tuple[Path, ...]:
        own = self.path, self.journals.folder, self.sessions, self.parts.folder
        return own if self.slices is None else (*own, self.slices)

    def read_manifest(self) -> bytes | None:
        """The manifest's bytes, or None where no run was begun. Raises `CheckpointError` where it can't be read."""
        return local.content(self.path / MANIFEST, None)

    def holds_answers(self) -> bool:
        """Whether there are records, parts, marks or a second session here, whatever run they are of.

        A first session's file alone is what a crash before the manifest leaves.
        """
        if self.journals.all() or self.newest_number() > 1 or self.parts.in_run():
            return True
        return any(MARKS.fullmatch(name) for name in _names(self._places))

    def write_manifest(self, content: bytes) -> None:
        """Write the manifest whole; from then on the run exists."""
        local.write_bytes(self.path / MANIFEST, content)

    def last_session(self, accept: Collection[str] = ()) -> Session | None:
        """The newest session, but for those whose file is lost, which a person accepts by name.

        Raises `LostFileError` where another one is lost: also one that has no file, where a journal or marks tell of
        it, since its file was synced before these were made.
        """
        for number in range(self.newest_number(), 0, -1):
            path = self.sessions / f"{number}.json"
            try:
                return sessions.decode(local.content(path, None), path)
            except LostFileError:
                if path.name not in accept:
                    raise
        return None

    def newest_number(self) -> int:
        """The highest number of a session in any file's name; 0 before the first."""
        names = [*_names(self._places), *local.entries(self.sessions)]
        found = [MARKS.fullmatch(name) or SESSION.fullmatch(name) for name in names]
        numbers = [int(match[1]) for match in found if match] + [file.session for file in self.journals.all()]
        return max(numbers, default=0)

    def write_session(self, session: Session) -> None:
        """Write a session's file. Raises `CheckpointError` when the disk won't take it."""
        local.write_bytes(self.sessions / f"{session.number}.json", sessions.encode(session))

    def next_session(self) -> int:
        """One more than the number in any file's name, so that no session ever writes into another's file."""
        return 1 + self.newest_number()

    def new_marks(self, run_id: str, session: int, cells: int, worker: int = 0) -> InFlightMarks:
        """The marks of a session that begins, or of a worker of it, which may be on another machine than the folder."""
        if worker:
            self.owners.write_charges(OwnerCharges(run_id, session, worker, slots=cells))
        kind = SyncedMarks if worker and not is_local(self.path) else InFlightMarks
        return kind(self.path / f"in_flight.{owner_name(session, worker)}", run_id, cells)

    def marks_before(self, session: int) -> list[Path]:
        """The files of marks of earlier sessions, which this session's file has counted."""
        found = ((name, MARKS.fullmatch(name)) for name in _names(self._places))
        return [_first(self._places, name) for name, match in found if match and int(match[1]) < session]

    def marks_since(self, session: int) -> dict[Path, tuple[int, int]]:
        """The files of marks of this session and of later ones, their workers' included, each with session and worker.

        Those of the newest session are named, too, where they are gone and its journals tell that they were there.
        """
        newest = self.newest_number()
        found = [name for name in _names(self._places) if MARKS.fullmatch(name)]
        found += [file.marks for file in self.journals.all() if file.session == newest]
        matches = (match for name in found if (match := MARKS.fullmatch(name)) and int(match[1]) >= session)
        return {_first(self._places, each[0]): (int(each[1]), int(each[2] or 0)) for each in matches}

    def reopened(self) -> Reopened:
        """What was opened again. Raises `CheckpointError` where the note of it is damaged.

        Asked for each partition, so that it is read only when it was replaced, which gives it another inode.
        """
        path = _first(self._places, REOPENED)
        with local.naming(path, "can't be read"):
            try:
                file = path.stat()
                stamp = (file.st_ino, file.st_mtime_ns, file.st_size)
                if stamp != self._reopened_stamp:
                    self._reopened = json_files.decode(path.read_bytes(), Reopened, str(path))
                    self._reopened_stamp = stamp
            except (FileNotFoundError, NotADirectoryError):
                return Reopened()
        return self._reopened

    def write_reopened(self, reopened: Reopened) -> None:
        """Replace the note of what was opened again: from then on its rounds count."""
        local.write_bytes(self.path / REOPENED, msgspec.json.encode(reopened))

    def commit_part(
        self,
        index: int,
        write: Callable[[IO[bytes]], None],
        *,
        owner: str = "",
        is_current: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Make a part exist, whole, and only then forget what rounds of `--retry` kept, and the parts of earlier ones.

        The journals of its range may hold other partitions' records. `owner`: the worker, as its files' names have it
        ("3-2"), where several work on the run; then False is returned where another was first, whose part stands, and
        `is_current` is asked right before the part exists, and again before anything is removed: where it says no by
        then, another worker may be about to read that. Raises what `local.write_aside` or `PartFiles.commit_new` raise.
        """
        if not owner:
            self.parts.commit(index, write)
        elif not self.parts.commit_new(index, write, owner, is_current):
            return False
        if owner and not is_current():
            return True
        for path in [*self.journals.kept_of(index), *self.parts.superseded(index)]:
            local.remove(path)
        return True

    def leftovers(
        self,
        committed: Iterable[int],
        last: Session | None,
        partitions_of: Callable[[int], Iterable[int]] = lambda range_: (range_,),
    ) -> Iterator[Path]:
        """Files of a killed process that count for nothing.

        Half-written files; records of committed partitions, or of rounds and sessions that do not count; parts of
        earlier rounds; marks and workers' charges that a later session has counted already. `partitions_of`: the
        partitions of a range that may have records in its journals. Workers' journals of committed partitions are among
        them, also where they count (`strays`).
        """
        done, reopened = frozenset(committed), self.reopened()
        for folder in self._all_folders():
            names = (name for name in local.entries(folder) if finals_of(name) and _is_ours(self, folder, name))
            yield from (folder / name for name in names)
        for name in local.entries(self.journals.folder):
            range_, index = index_in(JOURNAL.fullmatch(name)), index_in(KEPT.fullmatch(name))
            if range_ is None and index is None:
                continue
            indexes = partitions_of(range_) if range_ is not None else [index] if index is not None else []
            if not any(each not in done and _counts(name, reopened.round_of(each), last) for each in indexes):
                yield self.journals.folder / name
        for index in done & reopened.partitions.keys():
            yield from self.parts.superseded(index)
        if last is not None:
            yield from self.marks_before(last.number)
            yield from self.owners.charges_before(last.number)


def drop_caches(directory: RunDirectory) -> None:
    """Remove what only saves work while a run is not finished. Raises `CheckpointError` where the disk refuses."""
    for folder in (directory.index, directory.input):
        local.remove_tree(folder)


def _is_ours(directory: RunDirectory, folder: Path, name: str) -> bool:
    """Whether a name in a folder of the run is one that a run gives, whole or while it is written."""
    return any(_is_given(directory, folder, each) for each in finals_of(name) or (name,))


def _is_given(directory: RunDirectory, folder: Path, name: str) -> bool:
    """Whether a run gives a file in this folder this name."""
    parts = directory.parts
    if folder == directory.slices or (folder == parts.folder and parts.is_dataset):
        return index_in(DATASET_PART.fullmatch(name)) is not None or SLICE_FILE.fullmatch(name) is not None
    if folder in (parts.within, directory.path / PARTS):
        return index_in(PART.fullmatch(name)) is not None
    if folder == directory.path:
        return name in (MANIFEST, REOPENED, NONCE) or any(each.fullmatch(name) for each in (MARKS, GRANTS))
    if folder in (directory.sessions, directory.owners.committed):
        return (SESSION if folder == directory.sessions else COMMITTED).fullmatch(name) is not None
    return index_in(JOURNAL.fullmatch(name) or KEPT.fullmatch(name)) is not None


def _first(places: Sequence[Path], name: str) -> Path:
    """Where a file or folder of a run is; where it is in none of the places, its path in the first."""
    return next((place / name for place in places if (place / name).exists()), places[0] / name)


def _names(places: Iterable[Path]) -> list[str]:
    """The names in all of the places."""
    return [name for place in places for name in local.entries(place)]


def _counts(name: str, round_: Round, last: Session | None) -> bool:
    """Whether a journal, or a file of kept outcomes, of an open partition counts, or is named by the newest session."""
    if kept := KEPT.fullmatch(name):
        return int(kept[2]) == round_.round
    found = JOURNAL.fullmatch(name)
    session = int(found[2]) if found else 0
    is_counted = last is None or session >= last.number or name in last.counted
    return session >= round_.since and is_counted
