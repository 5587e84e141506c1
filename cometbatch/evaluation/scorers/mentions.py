"""Where a statement names a choice or a label: by its letter or number, by a word, or by a choice's own text.

Own texts are looked for before letters, longer ones first, and each place of a statement counts once. A name counts
only alone: not within a word, not before an apostrophe.
"""

import functools
import re
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from cometbatch.evaluation.scorers.cleaning import FIRST_HAN, WORD, plain
from cometbatch.evaluation.scorers.expressions import expression
from cometbatch.evaluation.scorers.markup import plain_name

MAX_MENTIONS: Final = 200
"""Names in a statement that are looked at."""
Kind: TypeAlias = Literal["text", "label", "letter", "lower", "function"]
"""`lower`: a small letter, which may be a word. `function`: yes, no and the like, which are words of any sentence."""
FUNCTION_WORDS: Final = frozenset(
    {
        "yes", "no", "true", "false", "none", "not", "ja", "nein", "wahr", "falsch", "oui", "non", "vrai", "faux", "sí",
        "si", "sì", "verdadero", "falso", "vero", "sim", "não", "да", "нет", "so", "other", "all", "both", "neither",
    }
)  # fmt: skip
_JOINED: Final = expression(r"(?<=[^\W\d_])[-_](?=[^\W\d_])")
_BETWEEN_WORDS: Final = expression(r"(?<=[^\W_])(?:[-_]|\s+)(?=[^\W_])")
_WORD: Final = expression(WORD)
_AFTER_LETTER: Final = (
    "is|are|was|because|since|and|or|as|but|not|nor|rather|instead|while|with|for|due|given|if|which|than|seems|would|"
    "must|should|has|can|cannot|isn't|ist|weil|und|oder|es|porque|y|est|parce|et|ou|и|или|это"
)
_PROSE: Final = {
    "A": expression(rf"[ \t]+(?!(?:{_AFTER_LETTER})(?!{WORD}))[^\W\d_]"),
    "I": expression(
        rf"[ \t]+(?!(?:is|because|since|and|or|as|but|not|nor|ist|weil|und|oder|es|porque|y|est|et|ou)(?!{WORD}))"
        r"[^\W\d_]"
    ),
}
"""What follows a capital A or I that is a word of a sentence."""
_OPENING, _CLOSING = "([{\"'<「『【《", ")]}\"'>」』】》"


class Mention(Struct, frozen=True):
    """Which name (its index) stands where in a statement. `is_wrapped`: in brackets or quotation marks."""

    start: int
    end: int
    index: int
    kind: Kind
    is_wrapped: bool = False


def comparable(text: str) -> str:
    """A text as names are compared: without markup and case, hyphens within words as spaces."""
    return joined(plain_name(plain(text)).lower()).strip(" .;:,!?\"'")


def joined(low: str) -> str:
    """Lower case with a space for each hyphen or underscore between letters; the places of signs stay."""
    return _JOINED.sub(" ", low) if "-" in low or "_" in low else low


class Names:
    """The names of choices or labels, by index. `labels` stand for themselves, `texts` are choices' own."""

    def __init__(self, labels: tuple[str, ...], texts: tuple[str, ...] = ()) -> None:
        self.labels = labels
        self._by_label = {label_key(label): index for index, label in reversed(list(enumerate(labels)))}
        self._pattern = _label_pattern(labels)
        self._texts = _own_texts(texts, frozenset(self._by_label))

    @functools.cached_property
    def has_letters(self) -> bool:
        """Whether each label is one letter, so that another letter is a label outside of them."""
        return all(len(each) == 1 and each.isalpha() for each in self.labels)

    def mentions(self, line: str) -> list[Mention]:
        """The names in a line that went through `plain_name`, in order."""
        low = joined(line.lower())
        found = self._of_texts(low)
        taken = [(each.start, each.end) for each in found]
        for match in self._pattern.finditer(line):
            if not any(start < match.end() and match.start() < end for start, end in taken):
                mention = self._of_label(line, match)
                if mention is not None:
                    found.append(mention)
            if len(found) >= MAX_MENTIONS:
                break
        return sorted(found, key=lambda each: each.start)

    def _of_texts(self, low: str) -> list[Mention]:
        found: list[Mention] = []
        for text, index in self._texts:
            at = low.find(text)
            while at >= 0 and len(found) < MAX_MENTIONS:
                end = at + len(text)
                if is_whole(low, at, end) and not any(each.start < end and at < each.end for each in found):
                    found.append(Mention(at, end, index, "text", _is_wrapped(low, at, end)))
                at = low.find(text, end)
        return found

    def _of_label(self, line: str, match: re.Match[str]) -> Mention | None:
        start, end = match.span()
        said = match[0]
        index = self._by_label[label_key(said)]
        wrapped = _is_wrapped(line, start, end)
        if len(said) == 1 and said.isalpha() and said < FIRST_HAN:
            if said.islower():
                return Mention(start, end, index, "lower", wrapped)
            after = _PROSE[said].match(line, end) if said in _PROSE and not wrapped else None
            is_word = after is not None and after[0][-1].islower()
            return None if is_word else Mention(start, end, index, "letter", wrapped)
        kind: Kind = "function" if said.lower() in FUNCTION_WORDS else "label"
        return Mention(start, end, index, kind, wrapped)


def label_key(label: str) -> str:
    """A label in lower case, its words apart by spaces."""
    return _BETWEEN_WORDS.sub(" ", label.lower().strip())


def _is_wrapped(line: str, start: int, end: int) -> bool:
    before, after = line[start - 1 : start], line[end : end + 1]
    return bool(start and after) and before in _OPENING and after in _CLOSING


def is_whole(low: str, start: int, end: int) -> bool:
    """Whether a text stands alone in a line: not within a word or a number."""
    before, after = low[max(0, start - 2) : start], low[end : end + 2]
    if before and _WORD.match(low, start) and _WORD.match(before[-1]):
        return False
    if after and _WORD.match(low, end - 1) and _WORD.match(after[0]):
        return False
    if after and (after[0] == "#" or after == "+" * 2):
        return False
    if low[start].isdigit() and before and ((before[-1] in "-–/." and not before[0].isspace()) or before == " -"):
        return False
    if low[start].isdigit() and len(before) > 1 and before[-1] in ",:" and before[0].isdigit():
        return False
    return not (low[end - 1].isdigit() and len(after) > 1 and after[0] in ".,/:" and after[1].isdigit())


@functools.lru_cache(maxsize=256)
def _label_pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    words = [_BETWEEN_WORDS.split(each.strip()) for each in sorted(labels, key=len, reverse=True)]
    either = "|".join("[-_ ]".join(map(re.escape, each)) for each in words if each != [""]) or r"(?!)"
    return re.compile(
        rf"(?<!{WORD})(?<!{WORD}[-_'])(?<![°#&])(?<!\d[.,/:])(?<!\bN/)(?:{either})"
        rf"(?!{WORD})(?!_{WORD})(?!'{WORD})(?![+#%°])(?![.,/:–-]\d)(?!-[a-z])",
        re.IGNORECASE,
    )


@functools.lru_cache(maxsize=256)
def _own_texts(texts: tuple[str, ...], labels: frozenset[str]) -> tuple[tuple[str, int], ...]:
    """Choices' own texts, the longest first; one that is a label, too, is taken for the label."""
    found: dict[str, int] = {}
    for index, text in enumerate(texts):
        found.setdefault(comparable(text), index)
    return tuple(sorted(_usable(found.items(), labels), key=lambda each: len(each[0]), reverse=True))


def _usable(texts: Iterable[tuple[str, int]], labels: frozenset[str]) -> list[tuple[str, int]]:
    return [(text, index) for text, index in texts if text and text not in labels]
