"""What an owner does that has no money for its next call: it looks for what lost owners have not spent."""

from collections.abc import Callable
from typing import Final

from cometbatch.control.granted_account import GrantedAccount

SHORT_S: Final = 0.5
"""Seconds for which the next call finds no room in the grant, until a range of a lost owner is asked for, and between
two times: with the range the money comes back that the lost one has not spent. Longer is a longer halt; shorter is more
traffic."""


class LostMoney:
    """Asks for a range of a lost owner (`claim`) where the next call has had no room in the grant for long."""

    def __init__(self) -> None:
        self.claim: Callable[[], None] = lambda: None
        self._short_from: float | None = None

    def look(self, account: GrantedAccount, now: float) -> None:
        """After each lease. `now`: in seconds, by a clock that never goes back."""
        if account.wanted is None:
            self._short_from = None
        elif self._short_from is None:
            self._short_from = now
        elif now - self._short_from >= SHORT_S:
            self._short_from = now
            self.claim()
