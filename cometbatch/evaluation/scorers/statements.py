"""Where an answer states its result: behind a marker, in a box, behind a cue as "The answer is", or alone in a line.

Each function finds the last of its kind and gives the text that states it, still with its LaTeX and Markdown. They
take what `cleaning.plain` gives, and time in proportion to it.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from cometbatch.evaluation.scorers.cleaning import WORD
from cometbatch.evaluation.scorers.expressions import expression

MAX_STATEMENT: Final = 2_000
"""Characters of a statement that are looked at; what follows them is explanation."""
MAX_CUES: Final = 500
"""Words for "answer", from the end, that are looked at: a text with more of them that state nothing is no answer."""
_MARKER: Final = "####"
_BOXES: Final = ("\\boxed", "\\fbox")
_BRACE: Final = expression(r"\\[\s\S]|[{}]")
_BARE: Final = expression(r"\\?[^\s$\\]*")
_BLANK: Final = expression(r"(?:[\s*_`$\[\]{}:\"'>|~=]+|\\[\[\](])*")
_LATIN_CUES: Final = (
    "answer", "ans", "antwort", "respuesta", "reponse", "risposta", "resposta", "antwoord", "svar", "svaret", "vastaus",
    "odpowiedz", "odpoved", "odgovor", "cevap", "jawaban", "jibu", "sagot", "raspuns", "valasz", "dap an", "tra loi",
)  # fmt: skip
_OTHER_CUES: Final = (
    "réponse", "odpowiedź", "odpověď", "odpoveď", "răspuns", "válasz", "yanıt", "đáp án", "trả lời", "ìdáhùn",
    "ответ", "відповідь", "адказ", "отговор", "одговор", "απάντηση", "תשובה", "الإجابة", "الاجابة", "إجابة", "الجواب",
    "جواب", "پاسخ", "उत्तर", "जवाब", "উত্তর", "பதில்", "సమాధానం", "คำตอบ", "答案", "答え", "答", "回答", "解答", "正解",
    "正确选项", "正確選項", "정답", "답변", "답",
)  # fmt: skip
_ALL_CUES: Final = tuple(dict.fromkeys((*_LATIN_CUES, *(unicodedata.normalize("NFKC", each) for each in _OTHER_CUES))))
_VERBS: Final = (
    "is", "are", "was", "were", "be", "equals", "equal to", "becomes", "comes to", "'s",
    "ist", "lautet", "lauten", "sind", "war", "wäre", "es", "son", "sería", "era", "est", "sont", "serait", "è", "sono",
    "é", "são", "seria", "zijn", "luidt", "är", "er", "jest", "je", "este", "это", "це", "є", "будет",
    "является", "είναι", "היא", "הוא", "هي", "هو", "है", "হল", "হলো", "คือ", "là", "adalah", "ialah", "ni",
)  # fmt: skip
_CLOSERS: Final = r"[ \t*_`\"'$\\)\]}]{0,8}"
_BETWEEN: Final = r"(?:[ \t]{1,2}(?!choices|options)[^\s.:;,!?=]{1,20}){0,6}?"
_CONNECTOR: Final = expression(
    rf"(?:{_CLOSERS}(?:[:=\u21d2\u2192]|[-–—=]{{1,2}}>|[ \t][-–—]{{1,2}}(?=[\s*])|[ \t]*—)"
    rf"|(?P<words>{_BETWEEN}){_CLOSERS}(?::|(?:(?<!{WORD})|(?='))(?:{'|'.join(_VERBS)})(?!{WORD}))"
    r"|[ \t](?=(?:не|nicht|niet|not)\b)"
    r"|(?:应该|應該|应|應|就|便|即|只能|选项|選項|选择|選擇){0,2}(?:是|为|為|选|選)|は|은|는|คือ"
    r")[ \t]*[:=]?",
    re.IGNORECASE,
)
"""What stands between the word for "answer" and the answer."""
_HEADING: Final = expression(r"[ \t*_`\"'$\\)\]}]*\r?(?:\n|$)")
_DIRECT: Final = expression(rf"{_CLOSERS}(?=[-+$€£(]?(?:[A-Z0-9]|\d[\d.,]*)\)?[.*`$]{{0,4}}\s*(?:\n|$))")
_PREFIX: Final = expression(r"[^\w\n]*(?:(?:my|the|final|correct|right|best|so|thus|your|die|la|el)[^\w\n]+){0,4}$")
_VERB_BEFORE: Final = expression(
    r"(?<!\w)(?:to|will|can|could|must|should|would|i|we|you|they|please|cannot|can't|not|and|let's)\s+$"
)
"""What stands before "answer" where it is a verb."""
_DENYING: Final = expression(r"\b(?:not|cannot|never|nicht|не|no|não|non|pas)\b|n't\b")
_OF_A_CHOICE: Final = expression(r"(?<!\S)[A-HJ-Z](?!\S)")
"""A letter between "answer" and a verb: "answer A would be" is about a choice."""
_OTHER_BEFORE: Final = expression(
    r"(?<!\w)(?:other|wrong|incorrect|remaining|these|those|alternative|false|previous)\s+$"
)
_IS_LIKE: Final = expression(
    r"[ \t*_]*(?:indeed |also |clearly |therefore |all )?(?:correct|incorrect|wrong|right|clear|obvious|simple|"
    r"straightforward|consistent|supported|reasonable|valid|verified|confirmed|plausible|richtig|falsch|(?:in)?corr?ect[aeo]s?|falsas?|"
    r"fausses?|justes?|(?:не)?верн\w+|(?:не)?правильн\w+)"
    r"(?=[ *_]*(?:[.,;!?:\n]|$|because\b|since\b|as\b|and\b|with\b))",
    re.IGNORECASE,
)
"""What an answer is said to be like: "this answer is correct" states none."""
_AFTER_ANSWER: Final = expression(
    r"[ \t]*[*_(\[]*(?:to|of|for|from|in|here|then|choice|option|letter|number|key|i|we|that|which|should|must|would|"
    r"could|will|can|cannot|may|might|therefore|thus|hence|so|clearly|definitely|probably|obviously|simply|now|again|is|final|"
    r"correct|has|have|seems|appears|turns|comes|ultimately|a-|[a-z]\W)",
    re.IGNORECASE,
)
"""What stands between "answer" and its verb. Other words, as in "the answer explains why it is", state nothing."""
_PLURAL: Final = expression(r"(?:s|en|er|n)?(?![^\W_\u2e80-\U0010ffff])")


_SAYING_NOTHING: Final = " \t\r\n\v\f`*_~$\\[](){}.,;:-=#|>\"'"


class Statement(Struct, frozen=True):
    """The text that states a result, where it begins and ends: `text[end:]` follows. `is_tail`: nothing follows."""

    text: str
    begin: int
    end: int
    is_tail: bool = False


def marked(text: str) -> Statement | None:
    """What follows the last `####`; in the next line that is not empty, where nothing follows in its own."""
    at = text.rfind(_MARKER)
    return None if at < 0 else _line_after(text, at + len(_MARKER))


def boxed(text: str) -> Statement | None:
    r"""What is in the last `\boxed{}` or `\fbox{}`: to the end of the line where it is not closed."""
    at = max(map(text.rfind, _BOXES)) if "\\" in text else -1
    if at < 0:
        return None
    begin = at + (6 if text.startswith(_BOXES[0], at) else 5)
    while text.startswith((" ", "\t"), begin):
        begin += 1
    if not text.startswith("{", begin):
        bare = _BARE.match(text, begin)
        end = bare.end() if bare is not None else begin
        return Statement(text[begin : min(end, begin + MAX_STATEMENT)], begin, end)
    depth = 0
    for found in _BRACE.finditer(text, begin):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return Statement(text[begin + 1 : min(found.start(), begin + MAX_STATEMENT)], begin + 1, found.end())
    return _line_after(text, begin + 1)


def all_boxed(text: str) -> str:
    """The line of the last box, or the box itself: where several boxes stand in one line, each states a part."""
    at = max(map(text.rfind, _BOXES))
    begin = text.rfind("\n", 0, at) + 1
    first = min((found for found in (text.find(each, begin) for each in _BOXES) if found >= 0), default=at)
    last = boxed(text)
    end = last.end if last is not None else len(text)
    return text[first : min(end, first + MAX_STATEMENT)]


def cued(text: str) -> Statement | None:
    """What follows the last word for "answer" that states one, in any of some forty languages."""
    for at, after in _cues(text):
        found = _CONNECTOR.match(text, after, after + 200)
        if found is not None and _states(text, at, found):
            return _line_after(text, after if _DENYING.search(found[0].lower()) else found.end())
        tag = text[at - 1 : at] + text[after : after + 1]
        if tag in {"<>", "[]"}:
            line = _line_after(text, after + 1)
            shown = line.text.split("<" if tag == "<>" else "[/", 1)[0]
            return Statement(shown, line.begin, line.end, is_tail=line.is_tail)
        begin = text.rfind("\n", max(0, at - 60), at) + 1
        if (begin or at <= 60) and _PREFIX.match(text[begin:at].lower()):  # noqa: PLR2004 - as above
            heading = _HEADING.match(text, after)
            if heading is not None and heading.end() < len(text):
                return _line_after(text, heading.end())
            if (direct := _DIRECT.match(text, after)) is not None:
                return _line_after(text, direct.end())
    return None


def _states(text: str, at: int, found: re.Match[str]) -> bool:
    """Whether the word at a place states an answer: not where it is about other answers, or says what one is like."""
    before = text[max(0, at - 16) : at].lower()
    if _OTHER_BEFORE.search(before) or _IS_LIKE.match(text, found.end()):
        return False
    words = found["words"]
    if not words:
        return True
    if text[at : at + 3].lower() == "ans" and not _AFTER_ANSWER.match(words):
        return False
    return not _OF_A_CHOICE.search(words) and not _VERB_BEFORE.search(before)


def _cues(text: str) -> Iterator[tuple[int, int]]:
    """Where each word for "answer" begins and ends, the last first."""
    low = text.lower()
    words = _LATIN_CUES if text.isascii() else _ALL_CUES
    places = {word: at for word in words if (at := low.rfind(word)) >= 0}
    for _ in range(MAX_CUES):
        if not places:
            return
        word = max(places, key=lambda each: (places[each] + len(each), len(each)))
        at = places[word]
        if (before := low.rfind(word, 0, at)) >= 0:
            places[word] = before
        else:
            del places[word]
        if text[at - 1 : at] == "/" and at:  # a closing tag
            continue
        is_spaced = (
            word[0] < "\u2e80" and not "\u0e00" <= word[0] <= "\u0eff"
        )  # Thai and Lao are written without spaces
        if is_spaced and at and _LETTER.match(text, at - 1) and not (text[at].isupper() and text[at - 1].islower()):
            continue
        end = _PLURAL.match(text, at + len(word)) if is_spaced else None
        if is_spaced and end is None:
            continue
        yield at, end.end() if end is not None else at + len(word)


_LETTER: Final = expression(WORD)


def _line_after(text: str, begin: int) -> Statement:
    """The rest of a line; the next that says anything, where it is empty."""
    found = _BLANK.match(text, begin)
    begin = found.end() if found is not None else begin
    end = text.find("\n", begin)
    end = len(text) if end < 0 else end
    return Statement(
        text[begin : min(end, begin + MAX_STATEMENT)], begin, end, is_tail=not text[end : end + 200].strip()
    )


def last_line(text: str) -> str:
    """The last line that says anything; of one that is longer than a statement, one sign more than a statement has."""
    said = text.rstrip(_SAYING_NOTHING)
    begin = max(said.rfind("\n") + 1, len(said) - MAX_STATEMENT - 1)
    end = text.find("\n", len(said))
    return text[begin : len(text) if end < 0 else end].rstrip()


def first_line(text: str) -> str:
    """The first line that says anything, cut as the last is."""
    skipped = len(text) - len(text.lstrip(_SAYING_NOTHING))
    begin = text.rfind("\n", 0, skipped) + 1
    end = text.find("\n", skipped, begin + MAX_STATEMENT)
    return text[begin : begin + MAX_STATEMENT + 1 if end < 0 else end].strip()
