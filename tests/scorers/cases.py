"""Cases of the rules by which answers are read: each line of a file states an answer, a gold and what it scores."""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from cometbatch.evaluation.scorers import Score, gold_of, scorer
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.choices import Choice, choices_of

DATA: Final = Path(__file__).parent.parent / "data/scorers"
FILES: Final = ("rules", "more")
SCORERS: Final = ("choice", "numeric", "exact", "normalized", "contains", "regex", "label", "json", "token_f1")
_EXACT: Final = {"tolerance", "relative"}


class Case(Struct, frozen=True):
    """One answer. `options` are a score's, but `labels` of a `choice` are its choices', and `gold_is` is its form."""

    id: str
    scorer: str
    options: dict[str, Any]
    answer: str
    gold: Any
    choices: list[str] | None
    score: float
    reason: str | None = None
    why: str = ""

    @property
    def settings(self) -> ScoreSettings:
        """The score that the case is about."""
        options = {name: _option(name, value) for name, value in self.options.items()}
        form = options.pop("gold_is", "value")
        if self.scorer == "choice":
            options.pop("labels", None)
        return ScoreSettings(name="score", scorer=self.scorer, form=form, **options)  # type: ignore[arg-type]

    @property
    def shown(self) -> tuple[Choice, ...]:
        """The choices of the question."""
        return () if self.choices is None else choices_of(self.choices, tuple(self.options.get("labels", ())))

    def scored(self) -> Score:
        """What the answer scores."""
        gold = gold_of(self.gold, self.settings, self.shown)
        assert gold is not None
        return scorer(self.settings)(self.answer, gold, self.shown)


def _option(name: str, value: object) -> object:
    if name in _EXACT:
        return Decimal(str(value))
    return tuple(value) if isinstance(value, list) else value


def cases(name: str, scorer_name: str | None = None) -> Iterator[Case]:
    """The cases of a file, all or those of one scorer."""
    for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        found: Mapping[str, Any] = json.loads(line)
        if scorer_name in (None, found["scorer"]):
            yield Case(**found)
