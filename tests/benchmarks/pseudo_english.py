"""Text that packs like English: words of a large vocabulary by Zipf's law, many of which follow the one before often.

gzip makes 1/2.7 of it, as of an encyclopaedia in English (enwik8: 2.74). The same seed makes the same text.
"""

import itertools
import random
from collections.abc import Iterator
from typing import Final

VOCABULARY: Final = 20_000  # words
_BEGINS: Final = (
    " t t t s s h w w b b c c d d f f p p m m l r n g k v y j th th wh sh ch st pr tr gr cl fr br pl cr sp bl dr fl gl "
    "sl str qu"
)
_MIDDLES: Final = "e e e e e a a a a o o o o i i i i u u ea ou ee ai oo io ie y"
_ENDS: Final = "    n n n r r s s t t d l l m p c g y k nd ng st nt ll ss ck rt rs ld ch th ct rd ns"
_PARTS: Final = tuple(each.split(" ") for each in (_BEGINS, _MIDDLES, _ENDS))
"""Of a syllable; frequent ones stand several times, and a syllable may begin or end with its vowel."""
_LONGER_FROM: Final = (150, 2_500, 12_000)  # words by rank: rare ones have more syllables
_RARITY: Final = 2.7  # of Mandelbrot's form of the law: a word's share is 1 / (rank + this)
_FOLLOWS: Final = 0.56  # share of words that are usual after the one before
_FOLLOWERS: Final = 6  # different words that are usual after one


class PseudoEnglish:
    """Text from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._words = self._vocabulary()
        self._ranks = self._drawn()
        self._usual: dict[int, list[int]] = {}
        self._last = next(self._ranks)

    def text(self, words: int) -> str:
        """A text of this number of words, in sentences."""
        found = [self._words[self._next()] for _ in range(words)]
        for begin in range(0, words, 16):
            end = min(begin + 15, words - 1)
            found[begin] = found[begin].capitalize()
            found[end] += "."
        return " ".join(found)

    def _next(self) -> int:
        chance = self._random.random()
        if chance < _FOLLOWS:
            usual = self._usual.get(self._last)
            if usual is None:
                usual = self._usual[self._last] = list(itertools.islice(self._ranks, _FOLLOWERS))
            self._last = usual[int(chance / _FOLLOWS * self._random.random() * _FOLLOWERS)]
        else:
            self._last = next(self._ranks)
        return self._last

    def _drawn(self) -> Iterator[int]:
        """Ranks of words, by their shares."""
        shares = list(itertools.accumulate(1 / (rank + _RARITY) for rank in range(VOCABULARY)))
        while True:
            yield from self._random.choices(range(VOCABULARY), cum_weights=shares, k=4_096)

    def _vocabulary(self) -> list[str]:
        found: dict[str, None] = {}
        while len(found) < VOCABULARY:
            syllables = 1 + sum(len(found) > rank and self._random.random() < 0.6 for rank in _LONGER_FROM)
            found["".join(self._random.choice(part) for _ in range(syllables) for part in _PARTS)] = None
        return list(found)
