"""For how long each owner may send, as the coordinator counts it. Pure, told the time.

An owner counts a lease from before it asked, and the coordinator from when it answers, and a little longer: so a lease
that has ended here has ended there, whatever happened to the messages in between.
"""

import math
from typing import Final

from cometbatch.control.coordination.messages import MARGIN

NUMBERS: Final = 1_000_000_000
"""Numbers of leases that one coordinator has for itself. One that takes its place begins above them, so that an owner
takes its leases for newer ones."""


class Leases:
    """Numbers and ends of leases. `begun`: how many coordinators of this session there were before this one."""

    def __init__(self, begun: int = 0) -> None:
        self.number = begun * NUMBERS
        """Number of the last lease."""
        self._ends: dict[int, float] = {}

    def issue(self, owner: int, now: float, valid_s: float) -> int:
        """A further lease; returns its number. One that is not valid at all ends none that the owner has."""
        self.number += 1
        if valid_s > 0:
            self._ends[owner] = now + MARGIN * valid_s
        return self.number

    def known(self, number: int) -> None:
        """An owner has a lease of this number, from whichever coordinator."""
        self.number = max(self.number, number)

    def ends_at(self, owner: int) -> float:
        """When the last lease of an owner ends; long ago where it never had one."""
        return self._ends.get(owner, -math.inf)

    def is_valid(self, owner: int, now: float) -> bool:
        """Whether an owner may send, as far as is known here."""
        return now < self.ends_at(owner)

    def drop(self, owner: int) -> None:
        """The owner has ended: it sends no more."""
        self._ends.pop(owner, None)
