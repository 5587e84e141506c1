"""What a judge is asked: to compare two answers, or to rate one by criteria; and how it must answer."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

FIRST: Final = "first"
SECOND: Final = "second"
ANSWER: Final = "answer"
"""Names by which a judge's prompt shows answers: the two of a pair in the order of the call, or the one to rate."""
REASON: Final = "reason"
VERDICT: Final = "verdict"
VERDICT_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        REASON: {"type": "string", "description": "why, in one or two sentences"},
        VERDICT: {"enum": ["1", "2", "tie"], "description": "the number of the better answer, or tie"},
    },
    "required": [REASON, VERDICT],
    "additionalProperties": False,
}
"""What a judge of pairs must answer. The reason comes first, so that a model gives it before it decides."""


def rubric_schema(criteria: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """What a judge by rubric must answer: a reason, then a whole number within its range for each criterion."""
    numbers = {name: {"type": "integer", "minimum": low, "maximum": high} for name, (low, high) in criteria.items()}
    return {
        "type": "object",
        "properties": {REASON: {"type": "string", "description": "why, in one or two sentences"}, **numbers},
        "required": [REASON, *numbers],
        "additionalProperties": False,
    }


class Pairwise(Struct, frozen=True, tag=True):
    """Which cells are compared.

    `baseline`: the label, as text, of the cells with which the others are compared; None: each with each other one.
    `swap`: each pair is asked in both orders. `ridge`: a penalty that gives strengths also where they can't be told.
    """

    baseline: str | None = None
    swap: bool = True
    ridge: float = 0.0


class Rubric(Struct, frozen=True, tag=True):
    """What each answer is rated by: the lowest and the highest number of each criterion."""

    criteria: dict[str, tuple[int, int]]

    @property
    def schema(self) -> dict[str, Any]:
        """What an answer of the judge must be."""
        return rubric_schema(self.criteria)
