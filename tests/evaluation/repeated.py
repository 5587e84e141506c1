"""Runs of an evaluation, drawn many times from models whose true scores are known."""

import itertools
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

import numpy as np

from cometbatch.evaluation.statistics.means import estimate
from cometbatch.evaluation.statistics.paired import paired
from cometbatch.evaluation.statistics.sums import Counts, Floats, Sums

Spread = Literal["none", "moderate", "strong", "all or nothing"]
CORRELATIONS: Final[dict[Spread, float]] = {"none": 0.0, "moderate": 0.2, "strong": 0.6, "all or nothing": 1.0}
"""How questions differ: by the correlation of two answers to one question. Between the ends, a question's chance of a
right answer is drawn from a beta distribution; at the upper end it is always or never answered right."""
QUESTIONS: Final = (30, 100, 400)
SAMPLES: Final = (1, 4, 8)
ACCURACIES: Final = (0.5, 0.8, 0.9, 0.95, 0.98)
COUPLED: Final = 0.7  # the share of questions that are as hard for one model as for the other


class Setting(NamedTuple):
    """What is drawn."""

    questions: int
    samples: int
    accuracy: float
    spread: Spread


def settings() -> Iterator[Setting]:
    """All 180."""
    return itertools.starmap(Setting, itertools.product(QUESTIONS, SAMPLES, ACCURACIES, CORRELATIONS))


NUMBERS: Final = {setting: number for number, setting in enumerate(settings())}


def draws(setting: Setting, seed: int) -> np.random.Generator:
    """The chance of one run: the same for the same setting and seed."""
    return np.random.Generator(np.random.PCG64([seed, NUMBERS[setting]]))


def chances(setting: Setting, drawn: np.random.Generator) -> Floats:
    """How likely each question is to be answered right."""
    correlation, accuracy = CORRELATIONS[setting.spread], setting.accuracy
    if correlation == 0:
        return np.full(setting.questions, accuracy)
    if correlation == 1:
        return (drawn.random(setting.questions) < accuracy).astype(float)
    strength = 1 / correlation - 1
    return drawn.beta(accuracy * strength, (1 - accuracy) * strength, setting.questions)


def answered(setting: Setting, likely: Floats, drawn: np.random.Generator) -> Sums:
    """The scores of one model."""
    right = drawn.binomial(setting.samples, likely).astype(float)
    counts: Counts = np.full(setting.questions, setting.samples, np.int64)
    return Sums(right, right, counts)


def coverage(setting: Setting, seeds: int) -> float:
    """How often the interval holds the true score, over these seeds."""
    held = 0
    for seed in range(seeds):
        drawn = draws(setting, seed)
        found = estimate(answered(setting, chances(setting, drawn), drawn))
        assert found is not None
        assert found.interval is not None
        held += found.interval.low <= setting.accuracy <= found.interval.high
    return held / seeds


def false_alarms(setting: Setting, seeds: int) -> dict[str, float]:
    """How often each test tells a difference at 5 % between two models that are equally good."""
    told: dict[str, int] = dict.fromkeys(("mid-p", "exact", "t", "reported") if setting.samples == 1 else ("t",), 0)
    for seed in range(seeds):
        drawn = draws(setting, seed)
        first, second = chances(setting, drawn), chances(setting, drawn)
        second = np.where(drawn.random(setting.questions) < COUPLED, first, second)
        found = paired(answered(setting, first, drawn), answered(setting, second, drawn))
        assert found is not None
        assert found.p_t is not None
        told["t"] += found.p_t <= 0.05
        if found.discordance is not None:
            told["mid-p"] += found.discordance.p_mid <= 0.05
            told["exact"] += found.discordance.p_exact <= 0.05
            told["reported"] += found.p is not None and found.p <= 0.05
    return {name: count / seeds for name, count in told.items()}
