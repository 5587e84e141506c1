"""The scorer `numeric`: the number that an answer comes to, compared exactly.

Order: the last `####`, the last box, the last cue, a line that is a number alone, the last number. After a cue the
first number counts, and where it is part of an equation, the first of the last side. A statement without a number
does not fall back to what stands before it.
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Final

from cometbatch.evaluation.scorers.cleaning import plain
from cometbatch.evaluation.scorers.expressions import expression
from cometbatch.evaluation.scorers.markup import plain_math
from cometbatch.evaluation.scorers.numbers import NumberForm, Token, tokens_in
from cometbatch.evaluation.scorers.scores import AMBIGUOUS, NO_ANSWER, Gold, Score, Scorer, Why
from cometbatch.evaluation.scorers.statements import MAX_STATEMENT, boxed, cued, first_line, last_line, marked
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.choices import Choice

MAX_LINES: Final = 200
"""Lines with digits, from the end, in which the last number is looked for."""
Found = Fraction | Why
_DIGIT: Final = expression(r"\d")
_CLAUSE_END: Final = expression(
    r"[.!?;](?=[\s\"')]|$)|\n|,(?= [^\W\d])|\(|\b(?:because|since|where|which|weil|denn|parce|porque)\b|。|;|，"
)
_DENIED: Final = expression(r"(?:\bnot|n't|\bnicht|\bpas|\bне|不是) ?(?:just )?$", re.IGNORECASE)
_LISTED: Final = expression(r"[\s,;.()\[\]{}|]*")
_ENUMERATOR: Final = expression(r"(?:^|\n) {0,8}\d{1,3}[.)] +(?=\S)")
_ALONE: Final = expression(r"[\s\W]*(?:[A-Za-zα-ω]\w{0,3}\s?=)?\s*$")
_UNIT_ALONE: Final = expression(r"\s?[A-Za-z°%/^{}\d µμ-]{0,30}[.!)*\]\s\"']*$")
_RESULT: Final = expression(r"[^\w\n]{0,40}(?:\\[A-Za-z]{1,10}[\s{\\]{0,3}|US|[A-Za-z] ?= ?){0,3}[^\w\n]{0,10}\d")
_MAX_SHOWN_DIGITS: Final = 40


def numeric(settings: ScoreSettings) -> Scorer:
    """Scores by the number in an answer; gold: numbers, any of which is right."""
    form = NumberForm(is_comma=settings.decimal == "comma", divides=settings.percent == "divide")
    is_right = _comparison(settings.tolerance, settings.relative)

    def score(answer: str, gold: Gold, choices: Sequence[Choice] = ()) -> Score:  # noqa: ARG001 - as each scorer
        found = number_in(answer, form)
        if isinstance(found, str):
            return Score(0.0, None, found)
        return Score(float(any(is_right(found, each) for each in gold)), shown(found))

    return score


def _comparison(tolerance: Decimal | None, relative: Decimal | None) -> Callable[[Fraction, Fraction], bool]:
    if tolerance is None and relative is None:
        return lambda found, gold: found == gold
    absolute, share = Fraction(tolerance or 0), Fraction(relative or 0)
    return lambda found, gold: abs(found - gold) <= max(absolute, share * abs(gold))


def shown(number: Fraction) -> str:
    """A number in plain digits where its decimals end, as a fraction where they do not."""
    whole, rest = number.denominator, 0
    for prime in (2, 5):
        count = 0
        while whole % prime == 0 and count <= _MAX_SHOWN_DIGITS:
            whole, count = whole // prime, count + 1
        rest = max(rest, count)
    if whole > 1 or rest > _MAX_SHOWN_DIGITS:
        return f"{number.numerator}/{number.denominator}"
    digits = str(abs(number.numerator) * 10**rest // number.denominator)
    sign = "-" if number < 0 else ""
    if not rest:
        return sign + digits
    digits = digits.rjust(rest + 1, "0")
    return f"{sign}{digits[:-rest]}.{digits[-rest:]}"


def number_in(answer: str, form: NumberForm) -> Found:
    """The number that an answer states, or why there is none."""
    text = plain(answer, keeps_numbers=True)
    if not _DIGIT.search(text):
        return NO_ANSWER
    if (found := _behind_marker(text, form)) is not None:
        return found
    if (box := boxed(text)) is not None:
        found = first_number(box.text, form)
        return NO_ANSWER if found is None else found
    if (cue := cued(text)) is not None:
        found = first_number(cue.text, form)
        if found is None and not cue.is_tail:
            found = _alone(last_line(text[cue.end :]), form)
        return NO_ANSWER if found is None else found
    found = _alone(last_line(text), form)
    if found is None:
        found = _alone(first_line(text), form)
    return _last_number(text, form) if found is None else found


def _behind_marker(text: str, form: NumberForm) -> Found | None:
    """The number behind the last marker; None where there is none, or where it marks a heading."""
    marker = marked(text)
    if marker is None:
        return None
    found = first_number(marker.text, form)
    if marker.is_tail:
        return NO_ANSWER if found is None else found
    return found if found is not None and _is_result(marker.text) else None


def first_number(statement: str, form: NumberForm) -> Found | None:
    """The first number of the first clause that has any: of the last side of its equation, where it is one."""
    line, tokens = tokens_in(plain_math(statement), form)
    tokens = [each for each in tokens if each.kind != "part"]
    if not tokens:
        return None
    said = [each for each in tokens if not _DENIED.search(line[max(0, each.start - 12) : each.start])]
    if not said:
        return NO_ANSWER
    if _is_list(line, tokens):
        return AMBIGUOUS
    first = said[0]
    end = _CLAUSE_END.search(line, first.end)
    limit = end.start() if end is not None else len(line)
    sides = max(line.rfind("=", 0, limit), line.rfind("≈", 0, limit))
    after = [each for each in said if sides < each.start < limit]
    return _found(after[0] if after else first)


def _is_list(line: str, tokens: list[Token]) -> bool:
    """Whether a line has several numbers and nothing else, as in "2, 3"."""
    if len(tokens) < 2:  # noqa: PLR2004 - several
        return False
    gaps = [line[: tokens[0].start], *(line[one.end : two.start] for one, two in pairwise(tokens))]
    return all(_LISTED.fullmatch(each) for each in [*gaps, line[tokens[-1].end :]])


def _found(token: Token) -> Found:
    if token.value is not None:
        return token.value
    return "ambiguous" if token.kind == "ambiguous" else NO_ANSWER


def _is_result(statement: str) -> bool:
    """Whether a line behind `####` is a result, and no heading."""
    return _RESULT.match(statement) is not None or cued(statement) is not None


def _alone(text: str, form: NumberForm) -> Found | None:
    """The number of a line that says nothing else but its unit; None where it says more, or none."""
    if len(text) > MAX_STATEMENT or not _DIGIT.search(text):
        return None
    line, tokens = tokens_in(plain_math(text), form)
    tokens = [each for each in tokens if each.kind != "part"]
    if len(tokens) != 1:
        return None
    (only,) = tokens
    is_alone = _ALONE.match(line[: only.start]) and _UNIT_ALONE.match(line[only.end :])
    return _found(only) if is_alone else None


def _last_number(text: str, form: NumberForm) -> Found:
    """The last number of a text, whatever it is about."""
    end = len(text)
    for _ in range(MAX_LINES):
        begin = text.rfind("\n", 0, end) + 1
        line = text[begin:end]
        if _DIGIT.search(line):
            if len(line) > MAX_STATEMENT:
                cut = line.find(" ", len(line) - MAX_STATEMENT)
                line = line[cut:] if cut >= 0 else ""
                if not line:
                    return NO_ANSWER
            begun = _ENUMERATOR.match(line)
            line, tokens = tokens_in(plain_math(line[begun.end() :] if begun else line), form)
            usable = [each for each in tokens if each.kind != "part"]
            if _is_list(line, usable):
                return AMBIGUOUS
            if usable:
                return _found(usable[-1])
        if not begin:
            break
        end = begin - 1
    return NO_ANSWER
