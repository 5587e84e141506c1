"""Requests one by one, in the order of asking, where a limit is so low that shares of it would be none. Pure."""

import math
from typing import Final

BELOW_PER_S: Final = 20.0
"""Requests a second. Below it, owners are given turns in place of shares: a share's burst is a whole request each."""

LATE_S: Final = 0.05
"""Seconds by which an owner may come late for its turn and the next one still comes in time. More would let two
requests leave at once."""

PLACE_S: Final = 0.5
"""Seconds after its time, for which an owner keeps its place in the queue. One that does not ask any more then loses
it; others need not wait for it for longer than `LATE_S`."""

MIN_ASK_S: Final = 0.005
"""Seconds after which an owner asks again, at least."""


class Turns:
    """A bucket of one request, that fills with `per_s`."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._most = 1 + per_s * LATE_S
        self._level = 1.0
        self._filled_at = math.inf
        self._due: dict[int, float] = {}  # of who waits, in order of asking: when it was told to ask again
        self._given: dict[int, int] = {}

    def ask(self, owner: int, sent: int, now: float, *, is_waiting: bool) -> tuple[int, float]:
        """How many requests an owner may send in all, `sent` included, and seconds until it is worth asking again."""
        self._level = min(self._most, self._level + max(0.0, now - self._filled_at) * self._per_s)
        self._filled_at = now
        given = self._given[owner] = max(self._given.get(owner, 0), sent)
        if given > sent or not is_waiting:
            self._due.pop(owner, None)
            return given, math.inf
        self._due = {each: at for each, at in self._due.items() if now <= at + PLACE_S or each == owner}
        self._due.setdefault(owner, now)
        before = list(self._due)[: list(self._due).index(owner)]
        ahead = sum(now <= self._due[each] + LATE_S for each in before)
        if not ahead and self._level >= 1:
            self._level -= 1
            self._given[owner] = given + 1
            del self._due[owner]
            return given + 1, self._wait_s(len(self._due))
        wait_s = self._wait_s(ahead)
        self._due[owner] = now + wait_s
        return given, wait_s

    def drop(self, owner: int) -> None:
        """The owner sends no more."""
        self._due.pop(owner, None)
        self._given.pop(owner, None)

    def _wait_s(self, ahead: int) -> float:
        return max(MIN_ASK_S, (ahead + 1 - self._level) / self._per_s)
