"""The text of an answer, made plain: without thinking blocks, in one form of Unicode, without signs nobody sees.

Everything here takes time in proportion to the text, whatever the text is.
"""

import functools
import re
import unicodedata
from typing import Final, Literal

from cometbatch.evaluation.scorers.expressions import expression

WORD: Final = r"[^\W_\u2e80-\U0010ffff]"
"""A letter or digit of a script that puts spaces between words. Han, Kana and Hangul do not end or begin a word."""
FIRST_HAN: Final = "\u2e80"
"""The first sign of those scripts."""
_TAG: Final = expression(r"<(/?)(?:think(?:ing)?|thoughts?|reasoning|scratchpad)\s{0,3}>|◁(/?)think▷", re.IGNORECASE)
_UNSEEN: Final = expression(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufffe]+"
)
"""Zero-width signs, soft hyphens, and signs of direction."""
_LIGATURES: Final = expression("[\ufdfa\ufdfb]+")  # each is one sign that NFKC makes into 18 or 8
_MAX_MARKS: Final = 30
"""Combining marks in a row that are kept, as in Unicode's stream-safe text. Putting longer runs into canonical order
would take the square of their length."""
_SUPERSCRIPTS: Final = expression("[\u207a\u207b]?[\u00b2\u00b3\u00b9\u2070\u2074-\u2079]+")
_PLAIN_SUPERSCRIPTS: Final = str.maketrans(
    "\u207a\u207b\u00b2\u00b3\u00b9\u2070\u2074\u2075\u2076\u2077\u2078\u2079", "+-2310456789"
)
_BEFORE_VULGAR: Final = expression("(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e\u2189])")
_GROUP_SPACE: Final = expression("(?<=\\d)[\u00a0\u2007-\u200a\u202f\u205f](?=\\d{3}(?!\\d))")
"""A space that does not break, or a narrow one, within a number."""
_OTHER_DIGIT: Final = expression(r"[^\D0-9]")
_SIGNS: Final = str.maketrans(
    {
        "\u2010": "-", "\u2012": "-", "\u2212": "-", "\u2044": "/", "\u2215": "/", "\u2018": "'", "\u2019": "'",
        "\u02bc": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u00ab": '"', "\u00bb": '"', "\u066b": ".",
        "\u066c": ",", "\u0130": "I", "\u22c5": "\u00b7", "\u2715": "\u00d7",
    }
)  # fmt: skip
"""Minus signs, hyphens, slashes, quotation marks, and signs of Arabic numbers. The en dash stays: it may be a range."""


def without_thinking(text: str) -> str:
    """A text without its thinking blocks.

    A block that is not closed goes on to the end. One whose opening tag is in the prompt ends at its closing tag.
    """
    if "<" not in text and "◁" not in text:
        return text
    kept: list[str] = []
    begin, is_open, was_open = 0, False, False
    for tag in _TAG.finditer(text):
        is_closing = "/" in tag[0]
        if not is_closing and not is_open:
            kept.append(text[begin : tag.start()])
            is_open = was_open = True
        elif is_closing and is_open:
            begin, is_open = tag.end(), False
        elif is_closing:
            if was_open and not text[tag.end() :].strip():
                kept.append(text[begin : tag.start()])
                return "".join(kept)
            kept.clear()
            begin = tag.end()
    if not is_open:
        kept.append(text[begin:])
    return "".join(kept)


def composed(text: str, form: Literal["NFC", "NFKC"] = "NFC") -> str:
    """A text in a form of Unicode. Of more than 30 combining marks in a row the rest is left out."""
    if text.isascii():
        return text
    if len(text) > _MAX_MARKS and (marks := _marks_in(text)):
        text = _long_runs(marks).sub(r"\1", text)
    return unicodedata.normalize(form, text)


def _marks_in(text: str) -> str:
    """The signs of a text that begin with a combining mark once they are taken apart."""
    return "".join(
        sorted(each for each in set(text) if each > "\u02ff" and unicodedata.combining(_taken_apart(each)[0]))
    )


@functools.lru_cache(maxsize=4096)
def _taken_apart(sign: str) -> str:
    return unicodedata.normalize("NFKD", sign)


@functools.lru_cache(maxsize=64)
def _long_runs(marks: str) -> re.Pattern[str]:
    return re.compile(f"([{re.escape(marks)}]{{{_MAX_MARKS}}})[{re.escape(marks)}]+")


def plain(text: str, *, keeps_numbers: bool = False) -> str:
    """A text without thinking blocks and unseen signs, in NFKC, with plain digits, minus signs and quotation marks.

    Vulgar fractions become `1/2`. `keeps_numbers`: superscripts become `^{2}`, and spaces within a number apostrophes:
    else nobody could tell them from digits beside them afterwards.
    """
    text = without_thinking(text)
    if text.isascii():
        return text
    text = _LIGATURES.sub(" ", _UNSEEN.sub("", text))
    if keeps_numbers:
        text = _SUPERSCRIPTS.sub(lambda found: f"^{{{found[0].translate(_PLAIN_SUPERSCRIPTS)}}}", text)
        text = _GROUP_SPACE.sub("'", text)
    text = composed(_BEFORE_VULGAR.sub(" ", text), "NFKC").translate(_SIGNS)
    if _OTHER_DIGIT.search(text):
        text = text.translate({ord(each): str(unicodedata.digit(each)) for each in set(text) if each.isdecimal()})
    return text
