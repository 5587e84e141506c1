"""The scorer `regex`, and what checks a job's own patterns: they run on Rust's engine, by way of polars.

Its time is linear in the text, whatever the pattern; so look-around and back-references can't be used.
"""

import functools
import re
from collections.abc import Sequence
from typing import Final

import polars as pl

from cometbatch.evaluation.scorers.cleaning import without_thinking
from cometbatch.evaluation.scorers.expressions import expression
from cometbatch.evaluation.scorers.scores import NO_ANSWER, Gold, Score, Scorer
from cometbatch.evaluation.scorers.texts import as_it_stands
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.choices import Choice

MAX_GROUPS: Final = 20
"""Groups of a pattern that are looked at for the first that took part in the match."""
_BEGIN, _BETWEEN, _END = "\ue000", "\ue001", "\ue002"
"""Private signs that are put around matches. They are taken out of the text before."""
_OWN_SIGNS: Final = expression("[\ue000-\ue002]")
_REASON: Final = expression(r"^error: (.+)$", re.MULTILINE)
_COLUMN: Final = "text"


class PatternError(ValueError):
    """A pattern can't be used; the message says why."""


def problem_of(pattern: str) -> str | None:
    """Why a pattern can't be used, in words; None where it can. Look-around and back-references can't be."""
    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.PolarsError as error:
        found = _REASON.search(str(error))
        reason = found[1] if found is not None else str(error).partition("\n")[0]
        return reason[:200]
    return None


def regex(settings: ScoreSettings) -> Scorer:
    """Scores 1 where the pattern's last match is one of the golds: its first group, or the whole where it has none.

    Raises `PatternError`.
    """
    if (words := problem_of(settings.pattern)) is not None:
        raise PatternError(words)
    marked = _marking(settings.pattern)

    def score(answer: str, gold: Gold, choices: Sequence[Choice] = ()) -> Score:  # noqa: ARG001 - as each scorer
        found = _last_match(without_thinking(answer), marked)
        if found is None:
            return Score(0.0, None, NO_ANSWER)
        return Score(float(any(found == as_it_stands(each) for each in gold)), found)

    return score


def groups_of(pattern: str) -> int:
    """How many groups a pattern has that keep what they match."""
    found = pl.Series([""]).str.extract_groups(pattern)
    return len(found.struct.fields) if found.dtype == pl.Struct else 0


@functools.lru_cache(maxsize=64)
def _marking(pattern: str) -> pl.Expr:
    """What puts signs around each match and between its groups."""
    groups = groups_of(pattern)
    shown = range(1, min(groups, MAX_GROUPS) + 1) if groups else range(1)
    marks = _BEGIN + _BETWEEN.join(f"${{{group}}}" for group in shown) + _END
    return pl.col(_COLUMN).str.replace_all(pattern, marks)


def _last_match(text: str, marking: pl.Expr) -> str | None:
    """What the last match says: its first group that is not empty."""
    if not text.isascii():
        text = _writable(_OWN_SIGNS.sub("", text))
    signed: str = pl.Series(_COLUMN, [text], dtype=pl.String).to_frame().select_seq(marking).item()
    begin = signed.rfind(_BEGIN)
    if begin < 0:
        return None
    groups = signed[begin + 1 : signed.index(_END, begin)].split(_BETWEEN)
    return as_it_stands(next(filter(None, groups), ""))


def _writable(text: str) -> str:
    """A text without halves of surrogate pairs, which no engine takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
