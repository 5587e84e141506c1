"""Which session had workers last, and whether it ended in order: the note in the lock.

Guards: the lock is free as soon as a driver is dead, and its workers may send for some seconds more. Who gets the lock
and finds an epoch that is not closed waits for its fence before it looks at the run.
"""

from typing import Final

import msgspec
from msgspec import Struct

from cometbatch.store.local import Lock

UNKNOWN_FENCE_S: Final = 10.0
"""Seconds to wait where the note is damaged, so that nobody knows how long its workers may send."""


class Epoch(Struct, frozen=True):
    """A session with workers. `engine`: "workers" or "ray"; "" is not known. `closed`: it ended in order.

    `fence_s`: seconds after the driver's death from which on none of its workers sends. `is_awaited`: the next session
    has the lock, and waits for them.
    """

    session: int
    engine: str
    fence_s: float
    closed: bool = False
    is_awaited: bool = False


class EpochNote:
    """The epoch in a run's lock. Only who has the lock writes it; anybody may read it."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def open(self, session: int, engine: str, fence_s: float) -> None:
        """Say that this session has workers, before the first of them starts.

        Raises `CheckpointError` where the disk refuses; then no worker may start.
        """
        self._lock.write_note(msgspec.json.encode(Epoch(session, engine, fence_s)))

    def close(self) -> None:
        """Say that no worker of it is left, once that is so. Raises `CheckpointError` where the disk refuses."""
        epoch = self.read()
        if epoch is not None and not epoch.closed:
            self._lock.write_note(msgspec.json.encode(msgspec.structs.replace(epoch, closed=True)))

    def wait(self) -> None:
        """Say that the lock's holder waits for the workers of this session. Raises as `open`."""
        epoch = self.unfenced()
        if epoch is not None:
            self._lock.write_note(msgspec.json.encode(msgspec.structs.replace(epoch, is_awaited=True)))

    def forget(self) -> None:
        """Take the note away, once its fence was waited for. Raises `CheckpointError` where the disk refuses."""
        if self._lock.note():
            self._lock.write_note(b"")

    def read(self) -> Epoch | None:
        """The newest epoch, closed or not; None where no session had workers.

        Raises `CheckpointError` where the lock can't be read.
        """
        note = self._lock.note()
        if not note:
            return None
        try:
            return msgspec.json.decode(note, type=Epoch)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return Epoch(0, "", UNKNOWN_FENCE_S)

    def unfenced(self) -> Epoch | None:
        """The epoch that is not closed, whose workers may still send; None where there is none. Raises as `read`."""
        epoch = self.read()
        return None if epoch is None or epoch.closed else epoch
