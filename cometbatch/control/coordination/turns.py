"""Requests one by one, in the order of asking, where a limit is so low that shares of it would be none. Pure."""

import math
from typing import Final

BELOW_PER_S: Final = 20.0
"""Requests a second. Below it, owners are given turns in place of shares: a share's burst is a whole request each."""

LATE_S: Final = 0.05
"""Seconds by which an owner may come late for its turn and the next one still comes in time. More would let two
requests leave at once."""

PLACE_S: Final = 0.15
"""Seconds after its time, for which an owner keeps its place. An owner that asks no more then loses it."""

MIN_ASK_S: Final = 0.005
"""Seconds after which an owner asks again, at least."""


class Turns:
    """A bucket of one request, that fills with `per_s`."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._most = 1 + per_s * LATE_S
        self._level = 1.0
        self._filled_at = math.inf
        self._places: dict[int, float] = {}  # of who waits, in order: until when the place is kept
        self._given: dict[int, int] = {}

    def ask(self, owner: int, sent: int, now: float, *, is_waiting: bool) -> tuple[int, float]:
        """How many requests an owner may send in all, `sent` included, and seconds until it is worth asking again."""
        self._level = min(self._most, self._level + max(0.0, now - self._filled_at) * self._per_s)
        self._filled_at = now
        given = max(self._given.get(owner, 0), sent)
        if given > sent or not is_waiting:
            self._places.pop(owner, None)
            return self._note(owner, given), math.inf
        self._places = {each: until for each, until in self._places.items() if until >= now or each == owner}
        self._places.setdefault(owner, now)
        ahead = list(self._places).index(owner)
        if not ahead and self._level >= 1:
            self._level -= 1
            del self._places[owner]
            return self._note(owner, given + 1), max(MIN_ASK_S, self._wait_s(len(self._places)))
        wait_s = max(MIN_ASK_S, self._wait_s(ahead))
        self._places[owner] = now + wait_s + PLACE_S
        return self._note(owner, given), wait_s

    def drop(self, owner: int) -> None:
        """The owner sends no more."""
        self._places.pop(owner, None)
        self._given.pop(owner, None)

    def _wait_s(self, ahead: int) -> float:
        return (ahead + 1 - self._level) / self._per_s

    def _note(self, owner: int, given: int) -> int:
        self._given[owner] = given
        return given
