"""The columns of scores in a result, and what its metadata say of them."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cometbatch.results.told import told

SCORES_KEY: Final = "cometbatch.scores"
"""Metadata: the settings of each score of a result, in the order of its columns, as JSON. Each has a `name`."""
ANSWER: Final = "_answer"
"""The end of the name of a score's column of what was taken from an answer."""
WHY: Final = "_why"
"""The end of the name of a score's column of why there is no value, or no other one."""


def scores_of(metadata: Mapping[str, str]) -> list[dict[str, Any]]:
    """The settings of each score of a result; none where its metadata name none, or can't be read."""
    try:
        return [each for each in told(metadata.get(SCORES_KEY)) if isinstance(each["name"], str)]
    except (TypeError, KeyError):
        return []


def score_columns(names: Iterable[str], prefix: str = "") -> list[str]:
    """The names of the columns of these scores, in order."""
    return [f"{prefix}{name}{end}" for name in names for end in ("", ANSWER, WHY)]
