"""Which name a statement states: the first that is not denied, with those that stand beside it."""

from typing import Final, Literal, TypeAlias

from cometbatch.evaluation.scorers.denials import denies_all, is_denied_after, is_denied_before, is_merged, stand_beside
from cometbatch.evaluation.scorers.expressions import expression
from cometbatch.evaluation.scorers.markup import plain_name
from cometbatch.evaluation.scorers.mentions import Mention, Names, joined

Stated: TypeAlias = tuple[int, ...] | Literal["ambiguous", "no_answer"] | None
"""The indices of the names, in order; why there is none; None where no name is mentioned."""
_FILLERS: Final = (
    "the|option|options|choice|choices|letter|letters|answer|answers|number|label|class|category|is|are|it|it's|its|"
    "it is|that|that's|this|both|either|so|thus|hence|therefore|then|my|our|final|correct|right|best|i'd|i|i'm|we|say|"
    "said|go|going|with|choose|chose|pick|select|would|be|must|should|to|definitely|probably|clearly|likely|certainly|"
    "obviously|maybe|perhaps|possibly|think|believe|guess|as|follows|for|sure|okay|ok|well|sentiment|prediction|verdict|"
    "die|der|das|ist|antwort|option|la|le|el|los|las|es|est|opción|opcion|letra|lettre|réponse|respuesta|richtig|"
    "это|вариант|буква|буду|und|о|a opção|opção|opzione"
)
_START: Final = expression(
    rf"(?:[^\w]|(?:{_FILLERS})(?![^\W_]|'[^\W_])|选项|選項|选择|選擇|选|選|是|项|第|为|為|答案)*"
)
_BEFORE_CLAUSE: Final = expression(r"[.;!?,:。，；](?=\s|$)|\bbut\b|\bsondern\b|\bsino\b|\bmais\b|\bа\b|而是|，")
_STATED_BEFORE: Final = expression(
    r"(?:\b(?:so|thus|hence|therefore|choose|chose|pick|picked|select|selected|go with|going with|opt for|must be|"
    r"has to be|have to be|should be|is|it's|that's|remains|leaves|leaving|option|choice|answer|say|yes|ist|c'est|est|"
    r"es|ответ|antwort|respuesta|réponse|risposta|resposta)|选|选择|選|選擇|是|为|は)"
    r"[\s,:]*(?:(?:option|choice|letter|answer|the|only|just|with|is)\s+){0,3}[(\"'\[]?$"
)
_RIGHT_AFTER: Final = expression(
    r"[ \"')\]]{0,3}(?:is|are|seems|must be|would be|looks|appears(?: to be)?|has to be)\s"
    r"(?:\w+ly |both |all |also )?(?:the |an? |my |our )?(?:only |most |one that is )?"
    r"(?:correct|right|true|best|better|answer|valid|accurate|appropriate|likely|fits)"
    r"| (?:ist|est|es|è|é)\s(?:die |la |a )?(?:richtig|korrekt|bonne|corr?et?ct?|respuesta|risposta|resposta)"
    r"|(?:选项|選項|项)?(?:是)?(?:正确|正確|对的|對的|最佳)|が正|です|입니다|[이가] ?(?:정답|맞)"
)
_SAYS_NO_MORE: Final = expression(r"[\W_]*(?:(?:번|です|입니다|选项|選項|项|が正解(?:です)?)[\W_]*){0,2}")
_VERB_AFTER: Final = expression(r"[\"')\]]{0,2} (?:is|was|has|would|can|could|lies|means|refers|ist|es|est|è|é)\b")
_AFTER_FUNCTION: Final = expression(
    r"[\s\"')\]」』】》>}]*(?:$|[.,;:!?(/&\-–—。，！]|(?:because|since|as|weil|denn|porque|parce|and|or|und|y|et|but|it|"
    r"there|he|she|they|this|that|the|i)\b)"
)
_BEFORE_FUNCTION: Final = expression(
    r"(?:\b(?:is|are|was|be|ist|es|est|è|é|answer|answered|say|said)|[:=,\"'(\[「『【《<])[\s\"'(\[]*$"
)
_SET_APART: Final = expression(
    r"\s*(?:$|[.):\],;!–—-]|\(|"
    r"(?:because|since|as|rather than|instead of|(?:and |but )?not|weil|denn|porque|parce|car)\b)"
)
"""What stands between a name at the beginning and its explanation."""
_ALWAYS_STATES: Final = frozenset({"yes", "ja", "oui", "sí", "sì", "sim", "да"})


class Line:
    """A line without markup, and the names in it that may be meant, each with whether it is denied."""

    def __init__(self, text: str, names: Names, *, is_statement: bool = True) -> None:
        self.text = plain_name(text)
        self.low = joined(self.text.lower())
        start = _START.match(self.low)
        self.start = start.end() if start is not None else 0
        found = names.mentions(self.text)
        self.mentions = [each for each in found if self._counts(each, found, is_statement)]
        self._denied: set[int] = set()
        self._note_denials()

    def _counts(self, mention: Mention, found: list[Mention], is_statement: bool) -> bool:
        if mention.kind == "lower":
            return is_statement and self._counts_small(mention, found)
        if mention.kind == "function":
            return self._states_function(mention, found, is_statement)
        return True

    def _counts_small(self, mention: Mention, found: list[Mention]) -> bool:
        """A small letter counts in brackets, where its own text follows, and where nothing but such is said."""
        if mention.is_wrapped:
            return True
        for other in found:
            if other.kind == "text" and other.start >= mention.end and other.index == mention.index:
                return is_merged(self.low[mention.end : other.start])
        left = list(self.low)
        for other in found:
            left[other.start : other.end] = " " * (other.end - other.start)
        rest = "".join(left)
        start = _START.match(rest)
        return start is not None and stand_beside(rest[start.end() :].strip(" ."))

    def _states_function(self, mention: Mention, found: list[Mention], is_statement: bool) -> bool:
        """Yes, no and the like count where they are all that a clause says."""
        word = self.low[mention.start : mention.end]
        is_first = mention.start <= self.start
        if word in _ALWAYS_STATES and is_first and is_statement:
            return True
        before = self.low[max(0, mention.start - 40) : mention.start]
        is_second = any(stand_beside(self.low[each.end : mention.start]) for each in found if each.end <= mention.start)
        if not (is_first or is_second or mention.is_wrapped or _BEFORE_FUNCTION.search(before)):
            return False
        return _AFTER_FUNCTION.match(self.low, mention.end) is not None

    def _note_denials(self) -> None:
        """A denial holds for all names that and, or, nor join: "not A or B", "A and B are wrong"."""
        previous, is_before, is_all = 0, False, False
        for place, mention in enumerate(self.mentions):
            begin = previous
            for clause in _BEFORE_CLAUSE.finditer(self.low, previous, mention.start):
                begin = clause.end()
            is_all = denies_all(self.low, begin, mention.start) or (is_all and stand_beside(self._gap(place)))
            is_before = is_denied_before(self.low, begin, mention.start) or (is_before and self._is_joined(place))
            is_before = is_before or is_all
            if is_before or is_denied_after(self.low, mention.end):
                self._denied.add(place)
            previous = mention.end
        for place in range(1, len(self.mentions)):
            letter, text = self.mentions[place - 1 : place + 1]
            if place in self._denied and letter.index == text.index and is_merged(self._gap(place)):
                self._denied.add(place - 1)
        is_after = False
        for place in range(len(self.mentions) - 1, 0, -1):
            is_after = is_denied_after(self.low, self.mentions[place].end) or is_after
            is_after = is_after and self._is_joined(place)
            if is_after:
                self._denied.add(place - 1)

    def _begins_clause(self, place: int) -> bool:
        """Whether a name is the subject of what follows, without a word that joins it to the one before: "B, A is"."""
        return not self._is_joined(place) and _VERB_AFTER.match(self.low, self.mentions[place].end) is not None

    def _is_joined(self, place: int) -> bool:
        gap = self._gap(place)
        return stand_beside(gap) and any(each.isalpha() or each == "&" for each in gap)

    def _gap(self, place: int) -> str:
        return self.low[self.mentions[place - 1].end : self.mentions[place].start]

    def begins_with_denied_list(self) -> bool:
        """Whether the first name stands in a list that is denied at its end, as in "A, B and C are wrong"."""
        for place in range(len(self.mentions)):
            if place in self._denied:
                return place > 0
            if place + 1 == len(self.mentions) or not stand_beside(self._gap(place + 1)):
                return False
            if self._begins_clause(place + 1):
                return False
        return False

    def stated(self, begin: int = 0) -> Stated:
        """The first name from a place on that is not denied, with those beside it. None where there is no name."""
        chosen: list[int] = []
        end = -1
        for place, mention in enumerate(self.mentions):
            if mention.start < begin or place in self._denied:
                continue
            if not chosen:
                chosen, end = [mention.index], mention.end
                continue
            gap = self.low[end : mention.start]
            if (is_merged(gap) and mention.kind == "text") or (stand_beside(gap) and not self._begins_clause(place)):
                if mention.index not in chosen:
                    chosen.append(mention.index)
                end = mention.end
            else:
                break
        if chosen:
            return tuple(chosen)
        return "no_answer" if self.mentions else None

    def meant(self) -> list[Mention]:
        """The names that are not denied."""
        return [each for place, each in enumerate(self.mentions) if place not in self._denied]

    def conclusion(self) -> Stated:
        """The last name that is not denied and that words beside it state; None where there is none."""
        for place in range(len(self.mentions) - 1, -1, -1):
            mention = self.mentions[place]
            if place in self._denied:
                continue
            if self._is_concluded(mention):
                first = place
                while first and first - 1 not in self._denied and stand_beside(self._gap(first)):
                    first -= 1
                return self.stated(self.mentions[first].start)
        return None

    def concluded(self) -> set[int]:
        """The indices of all names that words beside them state."""
        return {each.index for each in self.meant() if self._is_concluded(each)}

    def _is_concluded(self, mention: Mention) -> bool:
        before = self.low[max(0, mention.start - 40) : mention.start]
        return _STATED_BEFORE.search(before) is not None or _RIGHT_AFTER.match(self.low, mention.end) is not None

    def is_alone(self) -> bool:
        """Whether a line says its names and nothing else, as in "Option B: Berlin." or "A, C"."""
        if not self.mentions or self._denied:
            return False
        end = self.start
        for mention in self.mentions:
            gap = self.low[end : mention.start] if mention.start > end else ""
            if not (stand_beside(gap) or is_merged(gap)):
                return False
            end = max(end, mention.end)
        return _SAYS_NO_MORE.fullmatch(self.low, end) is not None

    def begins_with_name(self) -> bool:
        """Whether a name stands first, with a sign behind it that sets it apart from what follows."""
        first = self.mentions[0] if self.mentions else None
        if first is None or 0 in self._denied or first.start > self.start or first.kind == "lower":
            return False
        if self.begins_with_denied_list():
            return False
        return _SET_APART.match(self.low, first.end) is not None
