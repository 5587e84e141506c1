"""The folder of a run's journals: which file holds what, and what of it counts."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from cometbatch.errors import UsageError
from cometbatch.run_state import journal
from cometbatch.run_state.journal import Header, Journal, JournalReader
from cometbatch.run_state.names import JOURNAL, KEPT, index_in, name_of, owner_name
from cometbatch.run_state.sessions import Session
from cometbatch.store import local


def journal_name(range_: int, session: int, worker: int = 0) -> str:
    """The name of a range's journal."""
    return f"{name_of(range_)}.{owner_name(session, worker)}.jsonl"


class JournalFile(Struct, frozen=True, order=True):
    """A journal's file: the range of calls, the session and the worker that write it. Sorted as they count."""

    range: int
    session: int
    worker: int
    name: str

    @property
    def marks(self) -> str:
        """The name of the file of marks that was there before this journal was."""
        return f"in_flight.{self.owner}"

    @property
    def owner(self) -> str:
        """The session, or the worker of it, in the names of its files."""
        return owner_name(self.session, self.worker)


class JournalFiles:
    """Journals of all sessions, and the files of outcomes that rounds of `--retry` keep.

    What counts of them is in the newest session's file, which readers are given; None before the first session.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self, range_: int | None = None) -> list[JournalFile]:
        """Every session's journals, by range, then session, then worker; `range_`: of this range alone.

        Files with other names are nobody's.
        """
        start = "" if range_ is None else name_of(range_) + "."
        found = []
        for name in local.entries(self.folder):
            match = JOURNAL.fullmatch(name) if name.startswith(start) else None
            if match and (index := index_in(match)) is not None:
                found.append(JournalFile(index, int(match[2]), int(match[3] or 0), name))
        return sorted(found)

    def kept_of(self, index: int) -> list[Path]:
        """What rounds of `--retry` kept of a partition."""
        names = (name for name in local.entries(self.folder) if name.startswith(name_of(index) + "."))
        return [self.folder / name for name in names if KEPT.fullmatch(name)]

    def forget(self, range_: int, keep: Callable[[JournalFile], bool] = lambda _: False) -> None:
        """Remove the journals of a range, all sessions': each partition with a record in them has its part.

        `keep`: journals of other workers of this session, whose records may be in no part. Raises `CheckpointError`
        where the disk refuses.
        """
        for file in self.all(range_):
            if not keep(file):
                local.remove(self.folder / file.name)

    def begin(
        self,
        run_id: str,
        range_: int,
        session: int,
        worker: int = 0,
        *,
        earlier: dict[str, int] | None = None,
        records: Sequence[bytes] = (),
    ) -> Journal:
        """A new journal, of the session that runs, or of a worker of it, with these records.

        `earlier`: how many bytes count of the journals that it goes on from. Raises `CheckpointError` where the disk
        won't have it.
        """
        path = self.folder / journal_name(range_, session, worker)
        return Journal(path, Header(run_id, range_, session, earlier or {}), records)

    def read(self, file: JournalFile, run_id: str, last: Session | None, bound: int | None = None) -> JournalReader:
        """A reader of what counts in a journal. `bound`: of its bytes, where another worker went on from there."""
        limit, aside = _limit(file.name, file.session, last), _set_aside(file.name, last)
        return JournalReader(self.folder / file.name, run_id, file.range, limit=limit, bound=bound, set_aside=aside)

    def reader_of(self, name: str, run_id: str, last: Session | None) -> JournalReader:
        """A reader of what counts in the file of this name. Raises `UsageError` where no journal has such a name."""
        match = JOURNAL.fullmatch(name) or KEPT.fullmatch(name)
        index = index_in(match)
        if match is None or index is None or name not in local.entries(self.folder):
            raise UsageError(
                f"--set-aside: {name!r} is no journal in {self.folder}, and no file that this run has lost. Where it "
                "was set aside already, run the same command without --set-aside."
            )
        is_kept = match.re is KEPT
        limit, aside = None if is_kept else _limit(name, int(match[2]), last), _set_aside(name, last)
        return JournalReader(self.folder / name, run_id, index, limit=limit, set_aside=aside, is_whole=is_kept)

    def kept(self, index: int, round_: int) -> Path:
        """Where the outcomes are that a round of `--retry` keeps of a partition."""
        return self.folder / f"{name_of(index)}.kept{round_}.jsonl"

    def read_kept(self, index: int, round_: int, run_id: str, last: Session | None) -> JournalReader:
        """A reader of what a round keeps of a partition."""
        path = self.kept(index, round_)
        return JournalReader(path, run_id, index, set_aside=_set_aside(path.name, last), is_whole=True)

    def write_kept(self, run_id: str, index: int, round_: int, records: Iterable[bytes]) -> None:
        """Write what a round keeps, which counts for nothing until the note of rounds names it.

        Raises `CheckpointError` where the disk refuses, and whatever `records` raised; then there is no such file.
        """
        journal.write_whole(self.kept(index, round_), Header(run_id, index, round_), records)

    def sync(self) -> None:
        """Make every journal survive a power cut: a killed process may have written what it never synced."""
        for file in self.all():
            local.sync(self.folder / file.name)
        if self.folder.is_dir():
            local.sync(self.folder)


def _limit(name: str, session: int, last: Session | None) -> int | None:
    """How many bytes of a journal count: all of the newest session's, of earlier ones' what that session noted."""
    return last.counted.get(name, 0) if last is not None and session < last.number else None


def _set_aside(name: str, last: Session | None) -> frozenset[int]:
    return frozenset() if last is None else frozenset(last.set_aside.get(name, ()))
