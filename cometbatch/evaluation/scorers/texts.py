"""The scorers that compare texts: `exact`, `normalized`, `contains` and `token_f1`."""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from cometbatch.evaluation.scorers.cleaning import FIRST_HAN, composed, plain, without_thinking
from cometbatch.evaluation.scorers.expressions import expression
from cometbatch.evaluation.scorers.markup import plain_name
from cometbatch.evaluation.scorers.mentions import is_whole
from cometbatch.evaluation.scorers.scores import Gold, Score, Scorer
from cometbatch.evaluation.scorers.statements import boxed, cued, marked
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.choices import Choice

_LAST_PUNCTUATION: Final = 0x1FFFF
"""The last code point that is looked at for punctuation and currency: beyond it there is none."""
_DASHES: Final = (
    "-\u2010-\u2015\u2212\u058a\u05be\u1400\u1806\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0\ufe31"
    "\ufe32\ufe58\ufe63\uff0d"
)
"""Dashes and the minus sign, for a class of signs."""
_SIGN: Final = expression(rf"(?<![^\s(\[{{\"'])[{_DASHES}](?=\.?\d)")
"""The minus sign of a number."""
_KEPT: Final = str.maketrans({"\ue000": "-", "\ue001": ".", "\ue002": "/", "\ue003": ":", "\ue004": "#"})
_PRIVATE: Final = expression("[\ue000-\ue004]")
_POINT: Final = expression(r"(?<![^\W\d_])\.(?=\d)")
_WITHIN_NUMBER: Final = expression(r"(?<=\d)([/:])(?=\d)")
_SHARP: Final = expression(r"(?<=[^\W\d_])#(?![^\W_])")
_ARTICLE: Final = expression(r"(?<![^\s])(?:a|an|the) (?=\S)")
_DIGIT: Final = expression(r"\d")
_BLANKS: Final = expression(r"\s+")


@functools.cache
def _signs(*categories: str) -> str:
    """A regular expression for one sign of these categories of Unicode."""
    found = [chr(code) for code in range(_LAST_PUNCTUATION) if unicodedata.category(chr(code)).startswith(categories)]
    return f"[{re.escape(''.join(found))}]"


@functools.cache
def _removed(*, is_ascii: bool) -> re.Pattern[str]:
    """Punctuation, currency and Markdown's signs, but the underscore and the dashes, which part words."""
    if is_ascii:
        return re.compile(r"[!\"#$%&'()*,./:;?@\[\\\]{}`~]+")
    return re.compile(rf"(?:(?![{_DASHES}_]){_signs('P', 'Sc')}|[`~´])+")


def normalize(text: str) -> str:
    """A text as `normalized` compares it: without thinking blocks and markup, case, articles, punctuation, currency.

    Dashes become spaces. A number keeps its sign, its decimal point and a slash or colon within it; + stays, and so
    does # behind a letter. An article stays where nothing follows it.
    """
    return _folded(plain(text))


def _folded(text: str) -> str:
    if "\\" in text:
        text = plain_name(text)
    is_ascii = text.isascii()
    if not is_ascii:
        text = _PRIVATE.sub(" ", text)
        text = re.sub(_signs("Sc"), "", text)
    else:
        text = text.replace("$", "")
    text = text.casefold() if is_ascii else composed(text.casefold(), "NFKC")
    if _DIGIT.search(text):
        text = _WITHIN_NUMBER.sub(_kept, _POINT.sub("\ue001", _SIGN.sub("\ue000", text)))
    if "#" in text:
        text = _SHARP.sub("\ue004", text)
    text = _removed(is_ascii=is_ascii).sub("", text)
    text = re.sub(rf"[{_DASHES}_]+", " ", text)
    text = _BLANKS.sub(" ", text.translate(_KEPT)).strip()
    return _ARTICLE.sub("", text)


def _kept(found: re.Match[str]) -> str:
    return "\ue002" if found[1] == "/" else "\ue003"


def exact(settings: ScoreSettings) -> Scorer:  # noqa: ARG001 - as each scorer
    """Scores 1 where an answer is one of the golds, but for white space around it and how accents are encoded."""

    def score(answer: str, gold: Gold, choices: Sequence[Choice] = ()) -> Score:  # noqa: ARG001 - as each scorer
        found = as_it_stands(answer)
        return Score(float(any(found == as_it_stands(each) for each in gold)), found)

    return score


def as_it_stands(text: str) -> str:
    """A text without thinking blocks and outer white space, in NFC."""
    return composed(without_thinking(text)).strip()


def normalized(settings: ScoreSettings) -> Scorer:  # noqa: ARG001 - as each scorer
    """Scores 1 where an answer, or what it states behind a marker, in a box or behind a cue, is one of the golds."""

    def score(answer: str, gold: Gold, choices: Sequence[Choice] = ()) -> Score:  # noqa: ARG001 - as each scorer
        golds = {normalize(each) for each in gold}
        text = plain(answer)
        whole = _folded(text)
        if whole in golds:
            return Score(1.0, whole)
        stated = marked(text) or boxed(text) or cued(text)
        found = whole if stated is None else _folded(stated.text)
        return Score(float(found in golds), found)

    return score


def contains(settings: ScoreSettings) -> Scorer:  # noqa: ARG001 - as each scorer
    """Scores 1 where an answer contains one of the golds as whole words."""

    def score(answer: str, gold: Gold, choices: Sequence[Choice] = ()) -> Score:  # noqa: ARG001 - as each scorer
        text = plain(answer)
        low, folded = _BLANKS.sub(" ", text.casefold()), f" {_folded(text)} "
        for each in gold:
            wanted, sought = _BLANKS.sub(" ", plain(each).casefold()).strip(), normalize(each)
            is_there = _stands_in(wanted, low) or f" {sought} " in folded if sought or wanted else not low.strip()
            if is_there:
                return Score(1.0, each)
        return Score(0.0, None)

    return score


def _stands_in(wanted: str, low: str) -> bool:
    """Whether a text stands in another, not within a word or a number."""
    at = low.find(wanted) if wanted else -1
    is_word = wanted[:1].isalnum() and wanted[0] < FIRST_HAN
    while at >= 0:
        before = low[at - 1] if at else " "
        is_within = is_word and before.isalnum() and before < FIRST_HAN  # the usual reason, found without a call
        if not is_within and is_whole(low, at, at + len(wanted)):
            return True
        at = low.find(wanted, at + 1)
    return False


def token_f1(settings: ScoreSettings) -> Scorer:
    """Scores the harmonic mean of precision and recall over the words of answer and gold, as bags; the best gold."""
    bag: Callable[[str], Counter[str]] = _characters if settings.tokens == "characters" else _words

    def score(answer: str, gold: Gold, choices: Sequence[Choice] = ()) -> Score:  # noqa: ARG001 - as each scorer
        found = normalize(answer)
        said = bag(found)
        return Score(max((_f1(said, bag(normalize(each))) for each in gold), default=0.0), found)

    return score


def _words(text: str) -> Counter[str]:
    return Counter(text.split())


def _characters(text: str) -> Counter[str]:
    return Counter(text.replace(" ", ""))


def _f1(said: Counter[str], gold: Counter[str]) -> float:
    if not said or not gold:
        return float(said == gold)
    shared = (said & gold).total()
    return 2 * shared / (said.total() + gold.total())
