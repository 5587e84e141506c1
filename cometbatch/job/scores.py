"""The section `score`: what each score's settings are, and which options each scorer takes.

The scorers themselves are pure functions in a higher room. They read these settings, and this table of options is the
only one, so that a job file, its JSON Schema, its documentation and the scorers can't differ.
"""

from decimal import Decimal
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import Struct

from cometbatch.prompt.questions import ChoiceSettings

__all__ = ["SCORERS", "SCORER_OPTIONS", "ChoiceSettings", "GoldForm", "ScoreSettings", "ScorerName", "described"]

ScorerName: TypeAlias = Literal[
    "choice", "numeric", "exact", "normalized", "contains", "regex", "label", "json", "token_f1", "python"
]
GoldForm: TypeAlias = Literal["value", "index", "letter", "marker", "flags"]
"""How a gold cell says what is right: by the answer itself, by a choice's index from 0, by its letter, by a solution
whose answer stands after the last ####, or by a list of 0 and 1 with a 1 for each right choice."""


class ScoreSettings(Struct, frozen=True):
    """One score of a job.

    `gold`: the path of the column with the right answer, or a template; "" for a Python scorer. `entry`:
    "module:function" of a Python scorer, `folder` where its module is looked for first. `labels`: of scorer `label`.
    `incomplete`: what an answer that was cut counts: 0, or whatever its text scores. `skip_missing`: a row without gold
    has no score; without it, such a row refuses the job. `no_answer`: what a model is told to say where a gold list is
    empty.
    """

    name: str
    scorer: ScorerName
    gold: str = ""
    form: GoldForm = "value"
    entry: str = ""
    folder: Path | None = None
    incomplete: Literal["zero", "score"] = "zero"
    skip_missing: bool = False
    labels: tuple[str, ...] = ()
    multi: bool = False
    decimal: Literal["point", "comma"] = "point"
    percent: Literal["ignore", "divide"] = "ignore"
    tolerance: Decimal | None = None
    relative: Decimal | None = None
    pattern: str = ""
    tokens: Literal["words", "characters"] = "words"
    coerce: bool = False
    unordered: bool = False
    no_answer: str = ""


SCORER_OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "choice": ("multi",),
    "numeric": ("decimal", "percent", "tolerance", "relative"),
    "exact": ("no_answer",),
    "normalized": ("no_answer",),
    "contains": (),
    "regex": ("pattern",),
    "label": ("labels",),
    "json": ("coerce", "unordered"),
    "token_f1": ("tokens", "no_answer"),
    "python": (),
}
"""The options of each scorer, beside those that all have."""
SCORERS: Final[tuple[ScorerName, ...]] = get_args(ScorerName)


def described(scores: tuple[ScoreSettings, ...]) -> list[dict[str, object]]:
    """Each score as JSON-ready values, for metadata."""
    found: list[dict[str, object]] = msgspec.to_builtins(scores)
    return found
