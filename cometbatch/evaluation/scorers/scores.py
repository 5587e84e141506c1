"""A score, and what it is compared with."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from cometbatch.prompt.choices import Choice

Why: TypeAlias = Literal["no_answer", "ambiguous", "invalid_json"]
"""Why nothing could be compared; the words for rows without a whole answer are not a scorer's."""
NO_ANSWER: Final = "no_answer"
AMBIGUOUS: Final = "ambiguous"


class Score(Struct, frozen=True):
    """What an answer scored: from 0 to 1. `answer`: what was found in its text. `why`: why nothing was found."""

    value: float | None
    answer: str | None = None
    why: Why | None = None


Gold: TypeAlias = tuple[Any, ...]
"""What is right, as `gold_of` makes it: any of these; of a `multi` choice all of them; of `json` one value."""
Scorer: TypeAlias = Callable[[str, Gold, Sequence[Choice]], Score]
"""Scores the text of an answer. It raises nothing, whatever the text."""
