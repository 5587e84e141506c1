"""The words around a name that deny it, or that put another beside it. In some ten languages."""

from typing import Final

from cometbatch.evaluation.scorers.expressions import expression

_NOT_BEFORE: Final = expression(
    r"(?:\b(?:not(?! only| just)|cannot|never|neither|nor|except(?: for)?|rather than|instead of|unlike|other than|"
    r"excluding|eliminat\w{1,4}|exclude[sd]?|rul(?:e|es|ed|ing) out|as opposed to|anything but|nicht|kein\w{0,2}|weder|"
    r"noch|statt|pas|ni|excepto|salvo|sauf|niet|geen|inte|ikke|не|ни|кроме|ليس|ليست|لا)\b|n't\b|n t\b)"
    r"[^.;:!?,]{0,25}$"
)
_NO_BEFORE: Final = expression(
    r"\b(?:no|non|não|without|sans|ohne|sin)[ -](?:(?:es|son|la|el|è|é|a|o|option|the|letter|signs of) ){0,3}[(\"']?$"
)
_HAN_BEFORE: Final = expression(r"(?:不是|并非|並非|不选|不選|而非|而不是|排除|不|非)[^,.;:]{0,4}$")
_TO_BE: Final = (
    r"is|are|was|were|can|could|would|will|should|does|do|did|has|may|might|must|seems|looks|appears|ist|sind|es|son|"
    r"est|sont|è|é|são|это|is clearly|is obviously|is also|can be|could be|must be|may be|has been|have been"
)
_WRONG: Final = (
    r"wrong|incorrect|false|invalid|impossible|untrue|inaccurate|excluded|eliminated|ruled out|out\b|falsch|nicht|"
    r"unmöglich|incorrect[oae]\w?|fals[oa]|fausse?|errad[oa]|errat[oa]|sbagliat[oa]|неверн\w*|неправильн\w*|ошибочн\w*|не\b"
)
_AFTER: Final = expression(
    rf"[ \"')\]]{{0,3}}(?:"
    rf"(?:(?:{_TO_BE})(?:n't| not| never| no longer)|cannot|can't|won't|isn't|aren't|doesn't|couldn't|"
    rf"n'est pas|n'est|no es|non è|não é|не)\b"
    rf"|:? ?(?:(?:{_TO_BE}) )?(?:therefore |clearly |definitely |also |both |all |just |simply )?(?:{_WRONG})"
    r"|[:=]? ?[✗❌✘×]| ?[:–-] ?(?:no|not|nein|non)\b|\?(?! *yes\b)(?= *\S)"
    r"|(?:项|選項)? ?(?:是)?(?:错|錯|不对|不對|不正确|不正確|不是|不符|不选|错误|錯誤|排除)"
    r"|ではな|じゃな|は(?:間違|誤|違)|(?:은|는|이|가)? ?(?:아니|아닙|틀)"
    r")"
)
_JOINING: Final = (
    r"and|or|und|oder|sowie|y|e|o|u|et|ou|и|или|en|of|as well as|maybe|possibly|perhaps|probably|either|both|also|the|"
    r"option|choice|answer|letter|number|и|или"
)
_BESIDE: Final = expression(
    rf"[\s,;/&+|)(\"'\]\[]*(?:(?:(?:{_JOINING})\b|及|和|与|與|或者|或|および|または|と|か|、|및|또는|와|과)"
    r"[\s,(\"'\[/&)]*){0,4}|[-–]"
)
_MERGED: Final = expression(r"[\s.:)(\]\[\-–—,\"'=>]*(?:(?:is|which is|i\.e\.|namely|that is)\b[\s,:\"']*)?")


_NONE_BEFORE: Final = expression(
    r"\b(?:none|neither|not one|not any|no one|keine\w?|ninguna|aucune) (?:of|von|de) [^.;:!?,]{0,25}$"
)


def denies_all(low: str, begin: int, start: int) -> bool:
    """Whether the words before a place deny a whole list that begins there, commas and all: "none of A, B or C"."""
    return _NONE_BEFORE.search(low[max(begin, start - 60) : start]) is not None


def is_denied_before(low: str, begin: int, start: int) -> bool:
    """Whether the words before a place of a line in lower case deny what stands there. `begin`: of its clause."""
    before = low[max(begin, start - 60) : start]
    if not before:
        return False
    if _NOT_BEFORE.search(before) or _NO_BEFORE.search(before):
        return True
    return not before.isascii() and _HAN_BEFORE.search(before) is not None


def is_denied_after(low: str, end: int) -> bool:
    """Whether the words behind a place of a line in lower case deny what ends there."""
    return _AFTER.match(low, end, end + 60) is not None


def stand_beside(gap: str) -> bool:
    """Whether two names with this between them are said together, as in "A or B"."""
    return _BESIDE.fullmatch(gap) is not None


def is_merged(gap: str) -> bool:
    """Whether the second of two names with this between them explains the first, as in "B (Berlin)"."""
    return _MERGED.fullmatch(gap) is not None
