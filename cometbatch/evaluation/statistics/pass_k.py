"""pass@k: at least one of k answers is right; pass^k: all k are. Exact, from whole numbers."""

import math
from collections.abc import Iterable


def pass_at(answers: int, right: int, k: int) -> float:
    """The chance that of k different answers to a question, of which `right` are right, at least one is."""
    ways = math.comb(answers, k)
    return (ways - math.comb(answers - right, k)) / ways


def pass_all(answers: int, right: int, k: int) -> float:
    """The chance that all of them are."""
    return math.comb(right, k) / math.comb(answers, k)


def tries(fewest: int) -> list[int]:
    """The k that are shown where each question has at least so many answers: powers of two, and all of them."""
    powers = [1 << power for power in range(fewest.bit_length())]
    return powers if not powers or powers[-1] == fewest else [*powers, fewest]


def mean_of(values: Iterable[tuple[float, int]]) -> float:
    """The mean of values, each with the number of questions that have it."""
    pairs = list(values)
    return math.fsum(value * count for value, count in pairs) / sum(count for _, count in pairs)
