"""The columns of scores: for each score of a job its value, what was found in the answer, and why it is none or 0.

They are joined to the lines of a result when it is published, and are in no part: whoever changes how answers are
scored pays for no answer again.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import pyarrow as pa
from msgspec import Struct

from cometbatch.errors import UsageError
from cometbatch.evaluation.golds_of_rows import GoldReader
from cometbatch.evaluation.scorers import GoldError, Score, Scorer, scorer
from cometbatch.input.values import row_values
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.questions import ChoiceSettings
from cometbatch.results.score_columns import SCORES_KEY, score_columns
from cometbatch.results.scored import ScoreCounts

TYPES: Final = (pa.float64(), pa.large_string(), pa.string())
MEANINGS: Final = (
    ("number", "what the answer scored; null where it has no score"),
    ("text", "what was found in the answer, and compared with the gold; of a `scorer_error`, its message"),
    ("text", "why the score is 0 or null; null where an answer was found: see below"),
)
"""The columns of a score: type in plain words, meaning."""
WHY: Final[Mapping[str, str]] = {
    "length": "cut",
    "refusal": "refused",
    "content_filter": "filtered",
    "stop": "empty",
    "tool_calls": "empty",
    "invalid": "cut",
    "other": "cut",
}
"""The word for an incomplete row, by its finish reason. Such a row is the model's doing, so it counts 0."""
WHY_MEANINGS: Final[Mapping[str, str]] = {
    "no_answer": "nothing in the text could be taken for an answer: 0",
    "ambiguous": "the text gives several: 0",
    "invalid_json": "the text holds no JSON that can be read: 0",
    "refused": "the model refused to answer: 0",
    "cut": "the answer was cut at its token limit, or is not what `response` asks for: 0",
    "filtered": "a content filter took the answer: 0",
    "empty": "the answer is empty: 0",
    "failed": "the row failed, which is not the model's doing: null",
    "scorer_error": "the Python scorer failed: null",
}
"""Every word of the third column. A null score without a word is that of a row without gold."""
OUTCOME: Final = ("status", "finish_reason", "response")
"""The output columns that scores are made of."""
MAX_VALUE: Final = 1e100  # of a Python scorer, either way; the squares of larger ones are beyond a float's range
MAX_ANSWER: Final = 10_000  # characters of what was found in an answer; the rest is left out
LineScore: TypeAlias = tuple[float | None, str | None, str | None]
"""The three cells of a score in a line: value, what was found, and why it is none or 0."""
PythonScorer: TypeAlias = Callable[[str, dict[str, object]], LineScore]
"""Calls a function of the user's own. Raises nothing."""


NO_SCORE: Final[LineScore] = (None, None, None)
"""Of a row without gold, and where a Python scorer gives None."""
SCORER_ERROR: Final = "scorer_error"
MISSING: Final = "there is no gold in it"
READ_HINT: Final = "Put it right, or say otherwise in the score what the column holds (docs/scores.md)."
SKIP_HINT: Final = "Put it right, or set skip_missing: true in the score, so that rows without gold have no score."


class Loaded(Struct, frozen=True):
    """A Python scorer: the SHA-256 of its file, and what calls it; None where it was not imported."""

    digest: str
    score: PythonScorer | None = None


class _One:
    """One score: how a line is scored, and which columns that needs."""

    def __init__(
        self,
        settings: ScoreSettings,
        choices: ChoiceSettings | None,
        columns: Collection[str],
        loaded: Loaded | None,
    ) -> None:
        self.settings, self._loaded = settings, loaded
        self.reader = None if settings.scorer == "python" else GoldReader(settings, choices, columns)
        self._scorer: Scorer | None = None if settings.scorer == "python" else scorer(settings)
        self.columns: tuple[str, ...] = () if self.reader is None else self.reader.columns
        self.needs_all = self.reader is None

    @property
    def described(self) -> dict[str, Any]:
        """Its settings for metadata: the digest of a Python scorer, and the choices, too."""
        found: dict[str, Any] = self.settings.described()
        if self._loaded is not None:
            found["digest"] = self._loaded.digest
        if self.reader is not None and self.reader.choices is not None:
            found["choices"] = msgspec.to_builtins(self.reader.choices)
        return found

    def of(self, values: dict[str, object], status: object, finish_reason: object, text: str) -> LineScore:
        """The score of a line. Raises `GoldError` where its row has no gold that can be read."""
        found = None if self.reader is None else self.reader.of(values)
        if found is not None and found.gold is None:
            if not self.settings.skip_missing:
                raise GoldError(MISSING)
            return NO_SCORE
        if status == "failed":
            return None, None, "failed"
        if status != "succeeded":
            why = WHY.get(str(finish_reason), "cut")
            if self.settings.incomplete == "zero" or why != "cut" or not text:
                return 0.0, None, why
        if found is not None and found.gold is not None and self._scorer is not None:
            score = self._scorer(text, found.gold, found.choices)
            return score.value, score.answer, score.why
        if self._loaded is None or self._loaded.score is None:
            raise ValueError(f"the Python scorer of {self.settings.name} was not imported")
        return self._loaded.score(text, values)


class ScoreColumns:
    """Makes the columns of a job's scores for lines of its result.

    `columns`: of the input. `prefix`: before the names of output columns, and of these. `python`: the Python scorers by
    the names of their scores, imported. Raises `GoldError` and `PatternError` for what no line can be scored with.
    """

    def __init__(
        self,
        scores: Sequence[ScoreSettings],
        choices: ChoiceSettings | None,
        columns: Collection[str],
        prefix: str = "",
        python: Mapping[str, Loaded] | None = None,
    ) -> None:
        loaded = python or {}
        self._prefix = prefix
        self._scores = [_One(each, choices, columns, loaded.get(each.name)) for each in scores]
        self.counts = ScoreCounts()

    @property
    def readers(self) -> list[tuple[ScoreSettings, GoldReader]]:
        """What finds the gold of a row, for each score that has one."""
        return [(each.settings, each.reader) for each in self._scores if each.reader is not None]

    @property
    def fields(self) -> list[pa.Field]:
        """Names and types, in order."""
        names = score_columns((each.settings.name for each in self._scores), self._prefix)
        return [pa.field(name, kind) for name, kind in zip(names, TYPES * len(self._scores), strict=True)]

    @property
    def metadata(self) -> dict[str, str]:
        """What a result says of its scores."""
        return {SCORES_KEY: msgspec.json.encode([each.described for each in self._scores]).decode()}

    def needed(self, names: Sequence[str]) -> list[str]:
        """Those of a line's columns that scores are made of: all where there is a Python scorer."""
        if any(each.needs_all for each in self._scores):
            return list(names)
        needed = {name for each in self._scores for name in each.columns}
        needed |= {self._prefix + name for name in OUTCOME}
        return [name for name in names if name in needed]

    def cells(self, lines: pa.Table, rows: Sequence[int]) -> list[pa.Array]:
        """The columns of these lines, which have the columns of the result before them. `rows`: each line's row.

        Raises `UsageError` with the row where a row has no gold that can be read.
        """
        outcome, names = [self._prefix + name for name in OUTCOME], self.needed(lines.column_names)
        found: list[list[LineScore]] = [[] for _ in self._scores]
        for row, values in zip(rows, row_values(lines, names), strict=True):
            status, reason, text = (values[name] for name in outcome)
            for each, scores in zip(self._scores, found, strict=True):
                try:
                    scores.append(each.of(values, status, reason, "" if text is None else str(text)))
                except GoldError as error:
                    hint = SKIP_HINT if str(error) == MISSING else READ_HINT
                    raise UsageError(f"{each.settings.where}: row {row:,}: {error}. {hint}") from error
        self.counts.lines += lines.num_rows
        for each, scores in zip(self._scores, found, strict=True):
            self.counts.note(each.settings.name, [answer for _, answer, why in scores if why == SCORER_ERROR])
        return [array for scores in found for array in _arrays(scores)]


def _arrays(scores: Sequence[LineScore]) -> list[pa.Array]:
    values, answers, whys = zip(*scores, strict=True) if scores else ((), (), ())
    shown, reasons = ([None if each is None else _printable(each) for each in texts] for texts in (answers, whys))
    columns = ([None if value is None else float(value) for value in values], shown, reasons)
    return [pa.array(cells, kind) for cells, kind in zip(columns, TYPES, strict=True)]


def _printable(answer: str) -> str:
    """What a column can hold: half of a surrogate pair is replaced."""
    shown = answer[:MAX_ANSWER]
    return shown if shown.isascii() else shown.encode(errors="replace").decode()


def score_given(value: object) -> LineScore:
    """What a Python scorer gave, as a score. Raises `ValueError` for what is none."""
    if not isinstance(value, Score):
        return _number(value), None, None
    for name, words in (("answer", value.answer), ("why", value.why)):
        if words is not None and not isinstance(words, str):
            raise ValueError(f"Score.{name} must be a text or None, not {type(words).__name__}")
    return _number(value.value), _own(value.answer), _own(value.why)


def _own(text: str | None) -> str | None:
    """A text without the class of its giver, whose methods may do anything."""
    return None if text is None else str.__getitem__(text, slice(MAX_ANSWER))


def _number(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) and not hasattr(value, "__float__"):
        raise ValueError(f"expected a number, True, False, None or a Score, found {type(value).__name__}")
    try:
        found = float(value)  # also the numbers of numpy
    except OverflowError:
        raise ValueError("the number is too large") from None
    if not math.isfinite(found):
        raise ValueError(f"expected a finite number, found {found}")
    if abs(found) > MAX_VALUE:
        raise ValueError(f"the number {found} is too large: at most {MAX_VALUE}, either way")
    return found
