"""What an answer's text says, and whether that is the gold: pure functions, total, in linear time.

`scorer(settings)` gives the function of a score; `gold_of` makes what it compares with from a row's cell.
"""

from collections.abc import Callable, Mapping
from typing import Final

from cometbatch.evaluation.scorers.choice import choice
from cometbatch.evaluation.scorers.golds import GoldError as GoldError
from cometbatch.evaluation.scorers.golds import gold_of as gold_of
from cometbatch.evaluation.scorers.json_fields import json_fields
from cometbatch.evaluation.scorers.label import label
from cometbatch.evaluation.scorers.numeric import numeric
from cometbatch.evaluation.scorers.patterns import PatternError as PatternError
from cometbatch.evaluation.scorers.patterns import problem_of as problem_of
from cometbatch.evaluation.scorers.patterns import regex
from cometbatch.evaluation.scorers.scores import Gold as Gold
from cometbatch.evaluation.scorers.scores import Score as Score
from cometbatch.evaluation.scorers.scores import Scorer as Scorer
from cometbatch.evaluation.scorers.texts import contains, exact, normalized, token_f1
from cometbatch.job.scores import ScoreSettings

_SCORERS: Final[Mapping[str, Callable[[ScoreSettings], Scorer]]] = {
    "choice": choice,
    "contains": contains,
    "exact": exact,
    "json": json_fields,
    "label": label,
    "normalized": normalized,
    "numeric": numeric,
    "regex": regex,
    "token_f1": token_f1,
}


def scorer(settings: ScoreSettings) -> Scorer:
    """The function of a score with these settings, of any scorer but `python`.

    Raises `PatternError` for a pattern that can't be used.
    """
    return _SCORERS[settings.scorer](settings)
