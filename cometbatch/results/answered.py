"""Which calls of a run have an answer, by what was asked: a table of hashes in a bounded number of bytes.

Guards: no answer is mistaken for another's. The table finds an ordinal by the first 64 bits of a hash; whoever takes
the answer compares the whole hash. Two different requests share these bits in one of 370,000 runs of 10,000,000 calls;
then one that is repeated is sent again, and nothing else goes wrong.
"""

import sys
from array import array
from collections.abc import Iterable
from typing import Final

BYTES_EACH: Final = 32
"""Bytes of memory for each call in the table, at most, beside `SEGMENTS` small tables."""
SEGMENTS: Final = 256
"""Tables that grow one by one: while one is copied, it alone is in memory twice."""
HASH_DIGITS: Final = 64
_KEY_DIGITS: Final = 16
_ENTRY_WORDS: Final = 2  # the key, and the ordinal plus 1: 0 is a free place
_FIRST_ROOM: Final = 8  # places of a segment at first
_GROWTH: Final = (3, 2)  # a segment that is three quarters full becomes half full, so 16 bytes of a place are 32 a call


def key_of(request_hash: str) -> int:
    """The part of a hash by which a call is found."""
    return int(request_hash[:_KEY_DIGITS], 16)


def keys_of(request_hashes: str) -> "array[int]":
    """The keys of many hashes, given one after the other with nothing in between."""
    words = array("Q", bytes.fromhex(request_hashes))
    keys = words[:: HASH_DIGITS // _KEY_DIGITS]
    if sys.byteorder == "little":
        keys.byteswap()
    return keys


class AnsweredCalls:
    """The calls that have an answer, each request once: open addressing, between half and three quarters full."""

    def __init__(self) -> None:
        self._segments = [array("Q", bytes(16 * _FIRST_ROOM)) for _ in range(SEGMENTS)]
        self._counts = [0] * SEGMENTS

    def __len__(self) -> int:
        """How many different requests have an answer."""
        return sum(self._counts)

    @property
    def size(self) -> int:
        """Bytes of memory that the table takes."""
        return sum(len(places) * places.itemsize for places in self._segments)

    def find(self, request_hash: str) -> int | None:
        """The ordinal of a call that was answered and probably asked the same; None where there surely is none."""
        key = key_of(request_hash)
        found = _found(self._segments[key % SEGMENTS], key)
        return found - 1 if found else None

    def add(self, request_hash: str, ordinal: int) -> bool:
        """Note that a call was answered. False, and no change, where its like is there already."""
        return self._add(key_of(request_hash), ordinal)

    def add_all(self, keys: Iterable[int], ordinals: Iterable[int]) -> None:
        """Note many calls, by the keys of their hashes."""
        for key, ordinal in zip(keys, ordinals, strict=True):
            self._add(key, ordinal)

    def _add(self, key: int, ordinal: int) -> bool:
        number = key % SEGMENTS
        places = self._segments[number]
        size = len(places) // _ENTRY_WORDS
        at = key // SEGMENTS % size * _ENTRY_WORDS
        while places[at + 1]:
            if places[at] == key:
                return False
            at = (at + _ENTRY_WORDS) % len(places)
        places[at], places[at + 1] = key, ordinal + 1
        self._counts[number] += 1
        if 4 * self._counts[number] >= 3 * size:
            self._segments[number] = _grown(places)
        return True


def _found(places: "array[int]", key: int) -> int:
    """What stands with a key; 0 where it is not there."""
    at = key // SEGMENTS % (len(places) // _ENTRY_WORDS) * _ENTRY_WORDS
    while found := places[at + 1]:
        if places[at] == key:
            return found
        at = (at + _ENTRY_WORDS) % len(places)
    return 0


def _grown(places: "array[int]") -> "array[int]":
    """The same calls with more room."""
    times, by = _GROWTH
    size = len(places) // _ENTRY_WORDS * times // by
    grown = array("Q", bytes(16 * size))
    for key, ordinal in zip(places[::_ENTRY_WORDS], places[1::_ENTRY_WORDS], strict=True):
        if ordinal:
            at = key // SEGMENTS % size * _ENTRY_WORDS
            while grown[at + 1]:
                at = (at + _ENTRY_WORDS) % len(grown)
            grown[at], grown[at + 1] = key, ordinal
    return grown
