"""What an owner notes beside journals, marks and parts: what it booked for itself, and which parts it has committed.

    sessions/<n>-<w>.json      its charges that are in no part and no journal, until the next session has counted them
    committed/<n>-<w>.jsonl    a checksummed line for each part that it committed

Guards: charges are counted once, whenever the process dies: its file says, too, in which partitions nothing of its
journals and marks counts any more. A line of a part is a copy of what its footer says, and counts only where it fits.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from cometbatch.records import Tally
from cometbatch.run_state.journal import checked, line_of
from cometbatch.run_state.names import COMMITTED, SESSION, LostFileError, owner_name
from cometbatch.store import local


class OwnerCharges(Struct, frozen=True):
    """What one owner booked beside journals and parts. `slots`: at least as many requests as it may have in flight.

    `total`: its possible charges. `booked`: partitions of which all that its journals and marks tell is in `total`, or
    in the part that another owner committed.
    """

    run_id: str
    session: int
    worker: int
    slots: int = 0
    total: Tally = Tally()
    booked: tuple[int, ...] = ()


class CommittedPart(Struct, frozen=True, tag="part", tag_field="record", omit_defaults=True):
    """A part as its owner committed it. `size`: bytes of its file. `sum`: as the part itself names it.

    `owners`: as of `PartInfo`.
    """

    run_id: str
    index: int
    size: int
    tally: Tally
    sum: str = ""
    round: int = 0
    owners: tuple[str, ...] = ()


_COMMITTED_PART: Final = msgspec.json.Decoder(CommittedPart)
_NOTHING: Final = msgspec.to_builtins(Tally())


class OwnerFiles:
    """The files of owners of all sessions. `sessions`, `committed`: the folders that they are in."""

    def __init__(self, sessions: Path, committed: Path) -> None:
        self.sessions = sessions
        self.committed = committed

    def write_charges(self, charges: OwnerCharges) -> None:
        """Write an owner's charges, whole. Raises `CheckpointError` where the disk won't take it."""
        content = msgspec.json.format(msgspec.json.encode(charges), indent=1) + b"\n"
        local.write_bytes(self.sessions / f"{owner_name(charges.session, charges.worker)}.json", content)

    def charges_of(self, session: int) -> list[Path]:
        """The files with what the owners of a session booked, in the order of their numbers."""
        return self._charge_files(range(session, session + 1))

    def read_charges(self, path: Path) -> list[OwnerCharges]:
        """What one of these files says; nothing where it is gone, since a later session has counted it.

        Raises `LostFileError` where it is damaged: it holds money, so that nobody may guess it.
        """
        content = local.content(path, None)
        return [] if content is None else [_decoded(content, path)]

    def charges_before(self, session: int) -> list[Path]:
        """The files of owners of earlier sessions, which this session's file has counted."""
        return self._charge_files(range(session))

    def _charge_files(self, sessions: range) -> list[Path]:
        found = ((name, SESSION.fullmatch(name)) for name in local.entries(self.sessions))
        some = [(int(match[2]), name) for name, match in found if match and match[2] and int(match[1]) in sessions]
        return [self.sessions / name for _, name in sorted(some)]

    def note_part(self, session: int, worker: int, part: CommittedPart) -> None:
        """Append the line of a part that this owner has committed. Raises `CheckpointError` where the disk refuses.

        It is not synced: where a power cut takes it, the part's footer is read.
        """
        path = self.committed / f"{owner_name(session, worker)}.jsonl"
        with local.naming(path, "can't be written"), path.open("ab", buffering=0) as file:
            file.write(line_of(_encoded(part)))

    @property
    def has_notes(self) -> bool:
        """Whether any owner has noted a part."""
        return any(map(COMMITTED.fullmatch, local.entries(self.committed)))

    def parts(self, run_id: str) -> Iterator[CommittedPart]:
        """The lines of all owners' parts, the newest session's last; damaged ones, and another run's, are passed over.

        Raises `CheckpointError` where a file can't be read.
        """
        found = ((name, COMMITTED.fullmatch(name)) for name in local.entries(self.committed))
        for _, _, name in sorted((int(match[1]), int(match[2]), name) for name, match in found if match):
            path = self.committed / name
            with local.naming(path, "can't be read"), contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                for line in file:
                    part = _part(line)
                    if part is not None and part.run_id == run_id:
                        yield part


def _encoded(part: CommittedPart) -> bytes:
    """A part in a line, which leaves out what its tally has none of: a run may have half a million."""
    told = msgspec.to_builtins(part)
    told["tally"] = {name: value for name, value in told["tally"].items() if value != _NOTHING[name]}
    return msgspec.json.encode(told)


def _part(line: bytes) -> CommittedPart | None:
    record = checked(line)
    try:
        return None if record is None else _COMMITTED_PART.decode(record)
    except msgspec.MsgspecError:  # of a newer program
        return None


def _decoded(content: bytes, path: Path) -> OwnerCharges:
    try:
        return msgspec.json.decode(content, type=OwnerCharges)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LostFileError(path, f"this file is damaged ({error}); it told what a worker may have spent") from error
