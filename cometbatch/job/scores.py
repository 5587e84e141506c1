"""The section `score`: what each score's settings are, and which options each scorer takes.

The scorers themselves are pure functions in a higher room. They read these settings, and this table of options is the
only one, so that a job file, its JSON Schema, its documentation and the scorers can't differ.
"""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import Struct

ScorerName: TypeAlias = Literal[
    "choice", "numeric", "exact", "normalized", "contains", "regex", "label", "json", "token_f1", "python"
]
GoldForm: TypeAlias = Literal["value", "index", "letter", "marker", "flags"]
"""How a gold cell says what is right: by the answer itself, by a choice's index from 0, by its letter, by a solution
whose answer stands after the last ####, or by a list of 0 and 1 with a 1 for each right choice."""

SCORERS: Final[tuple[ScorerName, ...]] = get_args(ScorerName)
SCORER_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
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
"""The options of each scorer, beside those that all have. The scorers read the settings of these names."""
ALWAYS_SAID: Final = ("name", "scorer", "gold", "incomplete", "skip_missing")
"""What the metadata of a result say of each score."""
OF_A_FILE: Final = ("folder", "place")
"""What belongs to a job's file, and not to the score."""


class ScoreSettings(Struct, frozen=True):
    """One score of a job.

    `gold`: the path of the column with the right answer, or a template; "" for a Python scorer. `entry`:
    "module:function" of a Python scorer, `folder` where its module is looked for first. `labels`: of scorer `label`.
    `incomplete`: what an answer that was cut counts: 0, or whatever its text scores. `skip_missing`: a row without gold
    has no score; without it, such a row refuses the job. `no_answer`: what a model is told to say where a gold list is
    empty. `place`: in the job file, as "FILE:LINE: KEY".
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
    place: str = ""

    @property
    def where(self) -> str:
        """The place of the score in a job file, for messages; its key where nobody knows a file."""
        return self.place or f"score.{self.name}"

    def described(self) -> dict[str, Any]:
        """As JSON-ready values, for metadata: without what is left as it is by default, and without paths."""
        said = {}
        for field in msgspec.structs.fields(type(self)):
            value = getattr(self, field.name)
            if field.name not in OF_A_FILE and (field.name in ALWAYS_SAID or value != field.default):
                said[field.name] = str(value) if isinstance(value, Decimal) else value
        return said
