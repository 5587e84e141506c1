"""How many questions or samples it takes to tell a difference."""

import math
from typing import Final

from msgspec import Struct
from scipy import special

LEVEL: Final = 0.05  # of the two-sided test
POWER: Final = 0.8  # how often a true difference of this size is told
DETECTABLE: Final = float(special.ndtri(1 - LEVEL / 2) + special.ndtri(POWER))
"""The size of a difference, in standard errors, that is told with this power: 2.801585."""


class Samples(Struct, frozen=True):
    """What another number of samples would do. `se`: the standard error then; `detectable`: the difference it tells."""

    samples: int
    se: float
    detectable: float


def needed(variance: float, difference: float) -> float:
    """How many questions tell a difference of this size; `variance`: of one question's difference."""
    return DETECTABLE**2 * variance / difference**2


def questions_needed(variance: float, difference: float) -> int | None:
    """The same in whole questions; None for a difference of 0, which no number tells."""
    return None if difference == 0 else math.ceil(needed(variance, difference))


def detectable(se: float) -> float:
    """The smallest difference that a run with this standard error could tell."""
    return DETECTABLE * se


def variance_of(between: float, within: float, samples: float) -> float:
    """The variance of a question's mean, or difference, over this number of samples."""
    return between + within / samples


def with_samples(between: float, within: float, questions: int, samples: int) -> Samples:
    """What this number of samples of as many questions would come to."""
    se = math.sqrt(variance_of(between, within, samples) / questions)
    return Samples(samples, se, detectable(se))
