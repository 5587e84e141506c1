"""Which owner works on which range: each range has one at a time, and is dealt out until it is closed. Pure.

Ranges are dealt one at a time, upwards, each owner from a stretch of its own while there is one, so that not everybody
reads the whole input. Who has none left takes the upper half of the longest stretch.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise

from msgspec import Struct

from cometbatch.control.coordination.messages import Assigned


class _Stretch(Struct):
    """Ranges that nobody had yet, by their place among all: from `start` up to `end`, without it."""

    start: int
    end: int
    owner: int | None = None


class Claims:
    """Who has what. `ranges`: those that are due, ascending. `owners`: how many there are meant to be at a time."""

    def __init__(self, ranges: Sequence[int], owners: int) -> None:
        self._ranges = ranges
        cuts = [len(ranges) * each // owners for each in range(owners + 1)]
        self._stretches = [_Stretch(start, end) for start, end in pairwise(cuts) if start < end]
        self._released: dict[int, tuple[int, ...]] = {}  # free ranges, and who had them before
        self._holders: dict[int, int] = {}
        self._held: dict[int, dict[int, tuple[int, ...]]] = {}  # by owner: ranges, and who had them before
        self._last: dict[int, int] = {}  # the range that an owner was given last

    @property
    def is_over(self) -> bool:
        """Whether every range is closed."""
        return not (self._stretches or self._released or self._holders)

    @property
    def has_free(self) -> bool:
        """Whether there is a range that nobody has."""
        return bool(self._stretches or self._released)

    def held(self, owner: int) -> Sequence[int]:
        """The ranges that an owner has now."""
        return tuple(self._held.get(owner, ()))

    def holder(self, range_: int) -> int | None:
        """Who has a range."""
        return self._holders.get(range_)

    def again(self, owner: int, after: int) -> Assigned | None:
        """What an owner was given without hearing of it: `after` is the last range that it knows of."""
        last = self._last.get(owner, after)
        if last == after or last not in self._held.get(owner, {}):
            return None
        return Assigned(last, self._held[owner][last])

    def claim(self, owner: int, after: int, *, is_short: bool = False) -> Assigned | None:
        """Give an owner a range; None where all are taken or closed. One that somebody had before comes first.

        `is_short`: it wants no other one.
        """
        if self._released:
            above = [each for each in self._released if each > after]
            return self.give(owner, min(above or self._released))
        if is_short:
            return None
        stretch = self._stretch_for(owner)
        return None if stretch is None else self.give(owner, self._ranges[stretch.start])

    def give(self, owner: int, range_: int) -> Assigned:
        """Note that an owner has a range, which nobody has."""
        earlier = self._released.pop(range_, None)
        if earlier is None:
            earlier = ()
            self._cut_out(range_)
        self._holders[range_] = owner
        self._held.setdefault(owner, {})[range_] = earlier
        self._last[owner] = range_
        return Assigned(range_, earlier)

    def close(self, owner: int, ranges: Iterable[int]) -> list[int]:
        """Note that an owner is through with ranges; returns those that it had. Others are not its to close."""
        closed = [each for each in ranges if self._holders.get(each) == owner]
        for each in closed:
            del self._holders[each]
            del self._held[owner][each]
        return closed

    def release(self, owner: int) -> list[int]:
        """Free all that an owner has: it has ended, or is taken to have. Returns these ranges."""
        held = self._held.pop(owner, {})
        for range_, earlier in held.items():
            del self._holders[range_]
            self._released[range_] = (*earlier, owner)
        for stretch in self._stretches:
            if stretch.owner == owner:
                stretch.owner = None
        return list(held)

    def _stretch_for(self, owner: int) -> _Stretch | None:
        own = [each for each in self._stretches if each.owner == owner]
        free = own or [each for each in self._stretches if each.owner is None]
        if free:
            free[0].owner = owner
            return free[0]
        if not self._stretches:
            return None
        longest = max(self._stretches, key=lambda each: each.end - each.start)
        middle = (longest.start + longest.end) // 2
        if middle == longest.start:
            return longest
        upper = _Stretch(middle, longest.end, owner)
        longest.end = middle
        self._stretches.insert(self._stretches.index(longest) + 1, upper)
        return upper

    def _cut_out(self, range_: int) -> None:
        """Take a range that nobody had out of its stretch."""
        place = self._place(range_)
        if place is None:
            return
        index = next(i for i, each in enumerate(self._stretches) if each.start <= place < each.end)
        stretch = self._stretches.pop(index)
        rest = (_Stretch(stretch.start, place, stretch.owner), _Stretch(place + 1, stretch.end, stretch.owner))
        self._stretches[index:index] = [each for each in rest if each.start < each.end]

    def _place(self, range_: int) -> int | None:
        """Where a range that nobody had yet stands among all."""
        place = bisect_left(self._ranges, range_)
        if place == len(self._ranges) or self._ranges[place] != range_:
            return None
        return place if any(each.start <= place < each.end for each in self._stretches) else None
