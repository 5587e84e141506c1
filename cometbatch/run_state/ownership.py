"""What a session may work on where several owners share a run: asked of whoever deals the ranges out.

A session alone on its run has none of this: all ranges are its own.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

from msgspec import Struct

from cometbatch.errors import CometbatchError


class LostOwnerError(CometbatchError):
    """What this process works on is another's by now. It must not send or commit any more."""


class Claimed(Struct, frozen=True):
    """A range that this owner works on from now on. `earlier`: owners of this session that had it before, in order."""

    number: int
    earlier: tuple[int, ...] = ()


class Ownership(Protocol):
    """One owner's claim on ranges. `worker`: its number, from 1, which its files' names carry."""

    worker: int

    def is_current(self) -> bool:
        """Whether what it owns is its own at this moment, as far as its own clock tells. For any thread."""

    async def more(self, after: int) -> Sequence[Claimed] | None:
        """Further ranges, once there are some; None after the last. `after`: the last range that it was given, or -1.

        Raises `LostOwnerError`.
        """

    async def of_others(self, after: int) -> Sequence[Claimed]:
        """Ranges that lost owners had, as far as there are some at this moment. `after`: as for `more`.

        Raises `LostOwnerError`.
        """

    async def may_commit(self, range_: int, index: int, spent_usd: Decimal) -> None:
        """Return where this partition may become a part now. `spent_usd`: booked by this owner for its calls.

        Raises `LostOwnerError`.
        """

    def found(self, range_: int, earlier: int, spent_usd: Decimal) -> None:
        """What an earlier owner had booked in a range, its marks at their most; told before calls of it are sent."""

    def closed(self, range_: int) -> None:
        """Nothing more is recorded of this range in this session."""
