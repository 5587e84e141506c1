"""What is right, from a row's cell: any of the public layouts, made into what a scorer compares with."""

from collections.abc import Sequence

from cometbatch.evaluation.scorers.scores import Gold
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.choices import Choice


class GoldError(ValueError):
    """A cell can't be the gold of this score. The message says what it holds, and what the score takes."""


def gold_of(value: object, settings: ScoreSettings, choices: Sequence[Choice] = ()) -> Gold | None:
    """What is right, from the cell of a row (or a template's text); None where the cell says nothing: it is null.

    Raises `GoldError`, as for an index beyond the choices.
    """
    raise NotImplementedError
