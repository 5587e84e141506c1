"""How the files of a run are named, the numbers in their names, and the error for one that is lost."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cometbatch.errors import CheckpointError
from cometbatch.store import local

INDEX_DIGITS: Final = 5  # of a partition or range in a file's name, at least

JOURNAL: Final = re.compile(r"([0-9]{5,18})\.([0-9]{1,9})(?:-([0-9]{1,9}))?\.jsonl")
KEPT: Final = re.compile(r"([0-9]{5,18})\.kept([0-9]{1,9})\.jsonl")
PART: Final = re.compile(r"([0-9]{5,18})(?:\.r([0-9]{1,9}))?\.part")
DATASET_PART: Final = re.compile(r"([0-9]{5,18})\.parquet")
SESSION: Final = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?\.json")
"""Of a session, or of a worker of it; only the first kind counts as a session."""
COMMITTED: Final = re.compile(r"([0-9]{1,9})-([0-9]{1,9})\.jsonl")
GRANTS: Final = re.compile(r"grants\.([0-9]{1,9})\.jsonl")
MARKS: Final = re.compile(r"in_flight\.([0-9]{1,9})(?:-([0-9]{1,9}))?")
_STAGED: Final = re.compile(r"\.(.+)" + re.escape(local.STAGED))
_OWNED: Final = re.compile(r"(.+)\.[0-9]{1,9}-[0-9]{1,9}")


class LostFileError(CheckpointError):
    """A file that knows of money is gone or damaged, and nothing else tells what it knew."""

    def __init__(self, path: Path, what: str, others: Sequence[str] = ()) -> None:
        """Name the file, and the ways on. `others`: names of further files that are lost in the same way."""
        also = f" The same holds for {', '.join(others)}." if others else ""
        names = " ".join(f"--set-aside {name}" for name in (path.name, *others))
        super().__init__(
            f"{path}: {what}.{also} Restore it from a copy; or count what it knew as a possible charge of unknown "
            f"amount: run the job with {names}"
        )


def owner_name(session: int, worker: int = 0) -> str:
    """A session, or a worker of it, in a file's name: "3" or "3-2"."""
    return f"{session}-{worker}" if worker else f"{session}"


def finals_of(name: str) -> tuple[str, ...]:
    """The files that a file of this name may be the unfinished form of; none where it is no such name.

    Two, where what stands before the ending is either the owner that writes it or a part of the file's own name.
    """
    found = _STAGED.fullmatch(name)
    if found is None:
        return ()
    owned = _OWNED.fullmatch(found[1])
    return (found[1],) if owned is None else (found[1], owned[1])


def name_of(index: int) -> str:
    """A partition or range in a file's name; more digits where they are needed."""
    return f"{index:0{INDEX_DIGITS}d}"


def index_in(found: re.Match[str] | None) -> int | None:
    """The partition or range in a name; None where the name is none of ours, as with a zero too many."""
    if found is None:
        return None
    digits = found[1]
    return int(digits) if len(digits) == INDEX_DIGITS or digits[0] != "0" else None
