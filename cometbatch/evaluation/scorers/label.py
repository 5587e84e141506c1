"""The scorer `label`: which of a fixed set of labels an answer says.

The same order as `choice`, and where nothing states a label, the only one that the text mentions. The longest label
wins ("not spam" is not "spam"), denied ones are skipped, and yes, no, true, false, none count only as statements.
"""

from collections.abc import Sequence
from typing import Final

from cometbatch.evaluation.scorers.choice import names_of, stated_name
from cometbatch.evaluation.scorers.cleaning import plain
from cometbatch.evaluation.scorers.expressions import expression
from cometbatch.evaluation.scorers.golds import GoldError
from cometbatch.evaluation.scorers.mentions import Names, label_key
from cometbatch.evaluation.scorers.naming import Line, Stated
from cometbatch.evaluation.scorers.scores import AMBIGUOUS, NO_ANSWER, Gold, Score, Scorer, Why
from cometbatch.evaluation.scorers.statements import MAX_STATEMENT
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.choices import Choice

_SENTENCE: Final = expression(r"(?<=[.!?。！？])\s+|\n+")
_CONCLUDES: Final = expression(
    r"\b(?:overall|so|therefore|thus|hence|in conclusion|in summary|finally|altogether|insgesamt|daher|also|"
    r"classif\w+|categor\w+|label(?:l?ed)?|sentiment|verdict|en conclusion|por lo tanto|donc|итак)\b"
)


def label(settings: ScoreSettings) -> Scorer:
    """Scores by the label that an answer says; gold: labels, any of which is right.

    Raises `GoldError` where two labels can't be told apart.
    """
    known: dict[str, str] = {}
    for each in settings.labels:
        twin = known.setdefault(label_key(plain(each)), each)
        if twin != each:
            raise GoldError(f"the labels {twin!r} and {each!r} can't be told apart: case and hyphens do not count")
    names = names_of(tuple(map(plain, settings.labels)))

    def score(answer: str, gold: Gold, choices: Sequence[Choice] = ()) -> Score:  # noqa: ARG001 - as each scorer
        found = _read(plain(answer), names)
        if isinstance(found, str):
            return Score(0.0, None, found)
        said = settings.labels[found[0]]
        return Score(float(said in gold), said)

    return score


def _read(text: str, names: Names) -> tuple[int, ...] | Why:
    """The index of the one label that a text says, or why there is none."""
    found = stated_name(text, names, is_multi=False, or_else=_mentioned)
    if isinstance(found, tuple) and len(set(found)) > 1:
        return AMBIGUOUS
    return NO_ANSWER if found is None else found


def _mentioned(text: str, names: Names) -> Stated:
    """The only label that the end of a text mentions, or that its concluding sentence does."""
    tail = text.rstrip()[-MAX_STATEMENT:]
    sentences = [Line(each, names, is_statement=False) for each in _SENTENCE.split(tail) if each.strip()]
    said = [each for each in sentences if each.meant()]
    indices = {mention.index for line in said for mention in line.meant()}
    if len(indices) <= 1:
        return tuple(indices) or None
    last = said[-1]
    concluding = last.concluded() if len(said) == 1 else {mention.index for mention in last.meant()}
    is_conclusion = len(said) == 1 or _CONCLUDES.search(last.low) is not None
    return tuple(concluding) if len(concluding) == 1 and is_conclusion else tuple(indices)
