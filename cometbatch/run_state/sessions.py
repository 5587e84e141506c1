"""Sessions: one for each process that works on a run, numbered under the lock, never by time.

The last session's file alone says which charges earlier sessions left and how much of each earlier journal counts.
"""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from cometbatch.records import Tally
from cometbatch.results.accepted import Accept
from cometbatch.run_state.in_flight import Mark
from cometbatch.run_state.names import LostFileError

MARKS_LISTED: Final = 1000  # charges that a session's file lists, for people; the sum has all of them


class Who(Struct, frozen=True):
    """The process of a session. `version`: of the program. `limit`: rows of each slice that it was to answer.

    `accept`: what it was judged by in all, and `accept_option`: what of that stood beside the job file.
    """

    started_at: str
    pid: int
    host: str
    version: str
    limit: int | None = None
    accept: Accept = Accept()
    accept_option: Accept = Accept()


class Session(Struct, frozen=True):
    """The work of one process on a run.

    `found`: the marks that the session before left unsettled, the first of them. `total`: the possible charges that
    count without a journal, over all sessions so far. `counted`: for each journal of an earlier session, how many of
    its bytes count; a journal that is not in it counts for nothing. `set_aside`: for each damaged journal, the offsets
    of the lines that are lost: a power cut explained them when a session began, or a person has accepted them.
    `open`: for each range of a run of several slices, the partitions without a part of which these journals tell; they
    go once each has its part. UNSET with one slice, where a range is a partition.
    """

    number: int
    run_id: str
    who: Who
    found: tuple[Mark, ...] = ()
    total: Tally = Tally()
    counted: dict[str, int] = msgspec.field(default_factory=dict)
    set_aside: dict[str, tuple[int, ...]] = msgspec.field(default_factory=dict)
    rounds: int = 0
    open: dict[int, tuple[int, ...]] | msgspec.UnsetType = msgspec.UNSET


def encode(session: Session) -> bytes:
    """Readable JSON."""
    return msgspec.json.format(msgspec.json.encode(session), indent=1) + b"\n"


def decode(content: bytes | None, path: Path) -> Session:
    """Raises `LostFileError` where the file is gone or damaged: it holds money, so that nobody may guess it."""
    if content is None:
        raise LostFileError(path, "this file is gone; it told what earlier sessions may have spent")
    try:
        return msgspec.json.decode(content, type=Session)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LostFileError(path, f"this file is damaged ({error})") from error
