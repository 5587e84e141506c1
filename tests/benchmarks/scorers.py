"""How long each scorer takes for a usual answer: `python -m tests.benchmarks.scorers` prints microseconds of CPU.

A usual answer reasons for some lines and states its result at the end. The bar is 100 us for each scorer.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from cometbatch.evaluation.scorers import gold_of, scorer
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.choices import choices_of

BAR_US: Final = 100.0
ROUNDS: Final = 7
ANSWERS_IN_A_ROUND: Final = 500
_REASONS: Final = (
    "Natalia sold 48 clips in April. In May she sold half as many, which is 48 / 2 = 24 clips. Altogether she sold "
    "48 + 24 = 72 clips in April and May. Let me check this once more: 24 is half of 48, and their sum is 72. So the "
    "number of clips is fine, and nothing else has to be added to it.\n"
)
_EXCLUDING: Final = (
    "Paris lies on the Seine, London on the Thames, and Rome on the Tiber. The capital of Germany lies on the Spree, "
    "so that three of the four choices can be ruled out.\n"
)
_CITIES: Final = ["Paris", "Berlin", "London", "Rome"]
CASES: Final[dict[str, tuple[dict[str, Any], str, object]]] = {
    "choice": ({}, _EXCLUDING + "The answer is (B) Berlin.", "B"),
    "choice alone": ({"scorer": "choice"}, "B", "B"),
    "numeric": ({}, _REASONS + "#### 72", "72"),
    "numeric cue": ({"scorer": "numeric"}, _REASONS + "The answer is $72.", "72"),
    "exact": ({}, "Berlin", "Berlin"),
    "normalized": ({}, "The city of Berlin, in Germany.", "Berlin"),
    "contains": ({}, _REASONS, "72 clips"),
    "regex": ({"pattern": r"#### (-?[0-9.,]+)"}, _REASONS + "#### 72", "72"),
    "label": ({"labels": ("positive", "negative", "neutral")}, "The review praises the film. It is positive.",
              "positive"),
    "label cue": ({"scorer": "label", "labels": ("yes", "no")}, _REASONS + "Answer: yes", "yes"),
    "json": ({}, '{"city": "Berlin", "country": "Germany", "people": 3700000, "rivers": ["Spree", "Havel"]}',
             {"city": "Berlin", "country": "Germany", "people": 3700000}),
    "token_f1": ({}, "It is the city of Berlin, which lies on the river Spree in the east of Germany.", "Berlin"),
    "token_f1 umlauts": ({"scorer": "token_f1"}, "Die Stadt München liegt an der Isar in Bayern.", "München"),
}  # fmt: skip
"""Options, a usual answer, and its gold, by the scorer and what is special about the answer."""


def measured() -> Iterator[tuple[str, float]]:
    """Microseconds of CPU for an answer, the least of several rounds, for each case."""
    for name, (options, answer, gold) in CASES.items():
        settings = ScoreSettings(**{"name": "score", "scorer": name, **options})
        choices = choices_of(_CITIES) if settings.scorer == "choice" else ()
        score, right = scorer(settings), gold_of(gold, settings, choices)
        assert right is not None

        def once(score: Any = score, answer: str = answer, right: Any = right, choices: Any = choices) -> None:
            score(answer, right, choices)

        yield name, min(_microseconds(once) for _ in range(ROUNDS))


def _microseconds(work: Callable[[], None]) -> float:
    begin = time.process_time()
    for _ in range(ANSWERS_IN_A_ROUND):
        work()
    return (time.process_time() - begin) / ANSWERS_IN_A_ROUND * 1_000_000


def main() -> None:
    """Print each case with its time, and whether it is within the bar."""
    for name, took in measured():
        print(f"{name:20}{took:8.1f} us  {'' if took <= BAR_US else 'above the bar'}")  # noqa: T201


if __name__ == "__main__":
    main()
