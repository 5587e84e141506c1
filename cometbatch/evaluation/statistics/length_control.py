"""How often an answer would win if both were equally long."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from scipy import special

STEPS: Final = 100
EXACTNESS: Final = 1e-10
STEEPEST: Final = 30.0  # of the slope; beyond it, length tells the winner of every pair, and there is no fit
MIN_PAIRS: Final = 3


class LengthControl(Struct, frozen=True):
    """logit(value) = `a` + `b` tanh(difference / `sd`). `rate`: the win rate at a difference of 0. `sd`: characters."""

    rate: float
    a: float
    b: float
    sd: float


def length_control(values: Sequence[float], differences: Sequence[float]) -> LengthControl | None:
    """The fit by maximum likelihood. `values`: what x got of each pair, 0 to 1; `differences`: x's length minus y's.

    None where there is none: few pairs, all lengths or all values equal, or length tells the winner of every pair.
    """
    value, difference = np.array(values, float), np.array(differences, float)
    sd = float(difference.std(ddof=1)) if len(difference) >= MIN_PAIRS else 0.0
    if sd == 0:
        return None
    terms = np.column_stack([np.ones(len(value)), np.tanh(difference / sd)])
    weights = np.zeros(2)
    for _ in range(STEPS):
        chance = special.expit(terms @ weights)
        information = (terms * (chance * (1 - chance))[:, None]).T @ terms
        if np.linalg.cond(information) > 1 / np.finfo(float).eps:
            return None
        step = np.linalg.solve(information, terms.T @ (value - chance))
        weights += step
        if np.abs(weights).max() > STEEPEST:
            return None
        if np.abs(step).max() < EXACTNESS:
            a, b = map(float, weights)
            return LengthControl(float(special.expit(a)), a, b, sd)
    return None
