"""What is right for each row: from its gold cell or a template, with the choices of its question.

Guards that a prompt and a score see the same choices in the same order, and that a row without a gold is told from one
whose gold can't be read.
"""

from collections.abc import Collection, Mapping
from typing import Final

from msgspec import Struct

from cometbatch.evaluation.scorers import Gold, GoldError, gold_of
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.cells import PathError, cell_at, column_of, roots
from cometbatch.prompt.choices import Choice, ChoicesError
from cometbatch.prompt.questions import ChoiceSettings, columns_of, question
from cometbatch.prompt.template import PromptTemplate, compile_prompt
from cometbatch.records import Failure

USUAL_COLUMNS: Final = ("choices", "options", "endings", "mc1_targets.choices")
"""Where tables have the choices of a question, if a job does not say: the first of these that is there."""
_BRACES: Final = ("{{", "{%")


class RowGold(Struct, frozen=True):
    """What is right for a row: `gold`, None where the row does not say, and the choices of its question."""

    gold: Gold | None
    choices: tuple[Choice, ...] = ()


class GoldReader:
    """Finds what is right for a row, for one score with a gold. `choices`: of the job, if it says where they are."""

    def __init__(self, settings: ScoreSettings, choices: ChoiceSettings | None, columns: Collection[str]) -> None:
        """`columns`: of the input. Raises `GoldError` where it lacks one that is needed."""
        self._settings = settings
        self._template: PromptTemplate | None = None
        self._choices = _choices_for(choices, columns) if settings.scorer == "choice" else None
        if any(sign in settings.gold for sign in _BRACES):
            self._template = compile_prompt([("user", settings.gold)], choices_of=choices)
            self._template.check(list(columns))
        needed = self._needed_by_gold(columns)
        if self._choices is not None:
            needed |= columns_of(self._choices)
        self.columns = tuple(name for name in columns if name in needed)
        """The columns that `of` needs of a row."""

    @property
    def choices(self) -> ChoiceSettings | None:
        """Where the choices of a question are; None for a score without choices."""
        return self._choices

    def of(self, values: Mapping[str, object]) -> RowGold:
        """What is right for a row, by its values. Raises `GoldError` where the row says what can't be read."""
        try:
            shown = () if self._choices is None else question(self._choices, values)
            cell = self._cell(values)
        except (ChoicesError, PathError) as error:
            raise GoldError(str(error)) from None
        return RowGold(None if cell is None else gold_of(cell, self._settings, shown), shown)

    def _cell(self, values: Mapping[str, object]) -> object:
        if self._template is None:
            return cell_at(self._settings.gold, values)
        made = self._template.render(values)
        if isinstance(made, Failure):
            raise GoldError(made.message.partition(": ")[2] or made.message)
        return made[0].text

    def _needed_by_gold(self, columns: Collection[str]) -> set[str]:
        if self._template is not None:
            return set(columns) if self._template.needs_all_columns else set(self._template.columns_needed)
        return set(roots(self._settings.gold))


def lacking(
    settings: ScoreSettings, choices: ChoiceSettings | None, columns: Collection[str]
) -> tuple[str, str] | None:
    """The key and the path of a column that a score needs and that the input lacks; None where all are there."""
    if settings.gold and not any(sign in settings.gold for sign in _BRACES) and not column_of(settings.gold, columns):
        return settings.scorer, settings.gold
    if settings.scorer == "choice" and choices is not None:
        path = next((path for path in choices.columns if column_of(path, columns) is None), None)
        return None if path is None else ("choices.columns", path)
    return None


def place_shown(gold: RowGold) -> int | None:
    """The place of the right choice as it is shown, from 0; None where there is not just one."""
    labels = set() if gold.gold is None else {each for each in gold.gold if isinstance(each, str)}
    right = [place for place, each in enumerate(gold.choices) if each.label in labels]
    return right[0] if len(right) == 1 else None


def _choices_for(choices: ChoiceSettings | None, columns: Collection[str]) -> ChoiceSettings:
    if choices is not None:
        return choices
    usual = next((path for path in USUAL_COLUMNS if column_of(path, columns) is not None), None)
    if usual is None:
        raise GoldError(
            "no column holds the choices of a question: write choices: {columns: NAME}, or choices: {labels: [A, B, C, "
            "D]} where their texts are in the question itself"
        )
    return ChoiceSettings((usual,))
