"""Numbers in a line of text, each as an exact fraction, or with the reason why it is none.

A token is what a reader takes for one number, with all that belongs to it: sign, groups, fraction, power of ten. What
looks like a number and is none (a time, a date, a part of a word or of a unit) is a token, too, so that its digits are
never taken for a number of their own.
"""

import re
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from cometbatch.evaluation.scorers.cleaning import WORD
from cometbatch.evaluation.scorers.expressions import expression

MAX_DIGITS: Final = 4_000
"""Digits of a number that is read. A longer one is no number: comparing it would take too long."""
MAX_POWER: Final = 4_000
"""The largest power of ten, either way."""
Kind: TypeAlias = Literal["number", "unreadable", "ambiguous", "part"]
"""`unreadable`: a time, a date, an expression that nobody worked out. `part`: of a word, a unit, a power."""

_DIGITS: Final = r"(?:\d+(?:[.,'_]\d+)*|\.\d+)"
_POWER: Final = r"(?:\^|\*\*) ?\{? ?(?P<NAME>[-+–]? ?\d+) ?\}?"
_TOKEN: Final = expression(
    rf"(?P<sign>[-–+±])?(?P<whole>{_DIGITS})"
    rf"(?:[eE](?P<exp>[-+–]?\d+)(?!{WORD})"
    rf"| ?[×*xX·] ?10 ?{_POWER.replace('NAME', 'ten')}"
    rf"| ?{_POWER.replace('NAME', 'power')}"
    rf"|(?: {{1,2}}| and )(?P<upper>\d+) ?/ ?(?P<lower>\d+)(?![\d.,/]*\d)"
    rf"| {{0,2}}/ {{0,2}}(?P<over>[-+–]?{_DIGITS})"
    r")?"
)
_SPACED: Final = expression(r"(?<![\d.,'])(?<!\d )(\d{1,3})((?: \d{3})+)(?! ?[\d/'_])")
"""A number whose groups of three stand apart by spaces."""
_POINT_GROUPS: Final = expression(r"\d{1,3}(?:([,'_])\d{3})(?:\1\d{3})*|\d{1,2}(?:,\d{2})+,\d{3}|\d+")
_COMMA_GROUPS: Final = expression(r"\d{1,3}(?:([.'_])\d{3})(?:\1\d{3})*|\d+")
_UNITS: Final = r"(?:%|°[CF]?|[A-Za-z]{1,12})"
_NUMBER_AHEAD: Final = r"[-–+]?[.\d]"
_RANGE: Final = expression(
    rf" ?(?P<unit>{_UNITS})?"
    rf"(?: ?(?:[-–—~〜]|\.\.+) ?| (?:to|till|until|through|bis|até|до|à|a|hasta) | ?(?:至|到|から) ?)"
    rf"(?={_NUMBER_AHEAD})"
)
_EITHER: Final = expression(
    r"(?: ?(?:%|°[CF]?))? ?"
    rf"(?:(?<=[\s,])(?:or|and|oder|und|ou|et|o|y|e|или|и|of|en)(?= )|或|和|か|と|또는) ?(?:[a-z] ?= ?)?"
    rf"(?={_NUMBER_AHEAD})"
)
_PERCENT: Final = expression(
    r"\s?(?:%|per ?cent(?:age)?\b|prozent\b|pour ?cent\b|por ?cento\b|por ciento\b|процент)", re.IGNORECASE
)
_MAGNITUDES: Final = {
    "hundred": 2, "thousand": 3, "million": 6, "millions": 6, "billion": 9, "billions": 9, "trillion": 12, "tausend": 3,
    "millionen": 6, "milliarden": 9, "milliarde": 9, "milliard": 9, "milliards": 9, "mil": 3, "mille": 3, "millón": 6,
    "millones": 6, "milhão": 6, "milhões": 6, "milioni": 6, "тысяч": 3, "тысячи": 3, "миллион": 6, "миллиона": 6,
    "миллионов": 6, "万": 4, "萬": 4, "亿": 8, "億": 8,
}  # fmt: skip
_MAGNITUDE: Final = expression(
    rf" ?(?:({'|'.join(each for each in _MAGNITUDES if each[0] < chr(0x2E80))})(?!{WORD})|([万萬亿億]))", re.IGNORECASE
)
_AFTER_UNREADABLE: Final = expression(
    rf":\d| ?/ ?\d|\{{? ?[π√∞¯�]|\s?pi(?!{WORD})|[xyzni](?!{WORD})|x\d|[xX][\dA-Fa-f]|[-–]\d+[-–]\d|\.?¯|"
    rf" ?[+*×·÷^] ?[\d(√π{{]| ?[-–] ?[(√π]"
)
"""What follows a number of a time, a date, a product that is not worked out, or a factor."""
_BEFORE_UNREADABLE: Final = expression(
    r"(?:\d:|\d/|\d[-–]\d{1,4}[-–]|[√�¯][{( ]?|\}\{|\d ?[+*×·÷] ?|(?<![^\W\d_])[a-z] ?[+*×·÷] ?|"
    r"[)}] ?[+*×·÷^] ?|[π\d\w] ?\^ ?\{?)$"
)
_BEFORE_PART: Final = expression(rf"(?:{WORD}|[^\W\d_\u2e80-\U0010ffff][-–]|[\^_]\{{?[-–+]?|(?<!\w)&?#x?)$")
_TOLERANCE: Final = expression(r"(?:±|\+/[-–]|\+[-–]) ?$")
"""What stands between a number and how far it may be off."""
_NO_SIGN_AFTER: Final = expression(r"[\w)\]}%]$")
_NEGATIVE: Final = expression(
    r"(?:minus|negative|moins|menos|meno|минус|负|負|マイナス) ?$|[=(] ?[-–] $", re.IGNORECASE
)


class Token(Struct, frozen=True):
    """What looks like a number, and where. `value` only of a `number`."""

    start: int
    end: int
    kind: Kind
    value: Fraction | None = None


class NumberForm(Struct, frozen=True):
    """How numbers are written. `is_comma`: a comma before the decimals. `divides`: a per cent sign divides by 100."""

    is_comma: bool = False
    divides: bool = False


def tokens_in(line: str, form: NumberForm) -> tuple[str, list[Token]]:
    """The tokens of a line that is free of LaTeX and Markdown, and the line in which their places count."""
    if " " in line:
        line = _SPACED.sub(lambda found: found[1] + found[2].replace(" ", "'"), line)
    found = [_token(line, match, form) for match in _TOKEN.finditer(line)]
    for place in range(len(found) - 1):
        this, following = found[place], found[place + 1]
        if "part" not in (this.kind, following.kind) and _are_two_values(line, this, following):
            found[place], found[place + 1] = _either(this), _either(following)
    return line, found


def _either(token: Token) -> Token:
    return Token(token.start, token.end, "unreadable" if token.kind == "unreadable" else "ambiguous")


def _are_two_values(line: str, this: Token, following: Token) -> bool:
    """Whether two tokens are a range, or two values of which either may be meant."""
    between = line[this.end : following.end]
    found = _EITHER.match(between) or _RANGE.match(between)
    if found is None or this.end + found.end() not in (following.start, following.start + 1):
        return False
    unit = found.groupdict().get("unit")
    if unit is None or unit[0] in "%°":
        return True
    return line[following.end : following.end + len(unit) + 1].strip().startswith(unit)


def _token(line: str, match: re.Match[str], form: NumberForm) -> Token:
    """One token: what it is depends on what stands before and behind it."""
    start, end = match.span()
    sign = match["sign"] or ""
    digits_start = start + len(sign)
    before = line[max(0, start - 16) : start]
    if sign and _NO_SIGN_AFTER.search(before):
        before, sign, start = before + sign, "", digits_start
    after = line[end : end + 32]
    if (not sign or sign == "-") and _BEFORE_PART.search(before):
        return Token(start, end, "part")
    if sign == "±" or _TOLERANCE.search(before) or after.lstrip().startswith("±"):
        return Token(start, end, "ambiguous")
    if _BEFORE_UNREADABLE.search(before) or _AFTER_UNREADABLE.match(after):
        return Token(start, end, "unreadable")
    value = _value(match, form)
    if isinstance(value, str):
        return Token(start, end, value)
    if (sign in {"-", "–"}) != bool(_NEGATIVE.search(before)):
        value = -value
    if (found := _MAGNITUDE.match(after)) is not None:
        value *= 10 ** _MAGNITUDES[(found[1] or found[2]).lower()]
        end += found.end()
    if form.divides and _PERCENT.match(line, end):
        value /= 100
    return Token(start, end, "number", value)


def _value(match: re.Match[str], form: NumberForm) -> Fraction | Kind:
    value = read_digits(match["whole"], form)
    if isinstance(value, str):
        return value
    if (power := match["exp"] or match["ten"]) is not None:
        exponent = _integer(power)
        return "unreadable" if abs(exponent) > MAX_POWER else value * Fraction(10) ** exponent
    if match["power"] is not None:
        return _raised(value, _integer(match["power"]))
    if match["upper"] is not None:
        upper, lower = _integer(match["upper"]), _integer(match["lower"])
        is_mixed = value.denominator == 1 and 0 < upper < lower
        return value + Fraction(upper, lower) if is_mixed else "ambiguous"
    return value if match["over"] is None else _divided(value, match["over"], form)


def _divided(value: Fraction, over: str, form: NumberForm) -> Fraction | Kind:
    divisor = read_digits(over.lstrip("-+–"), form)
    if isinstance(divisor, str) or divisor == 0:
        return "unreadable"
    return value / (-divisor if over[0] in "-–" else divisor)


def _raised(value: Fraction, exponent: int) -> Fraction | Kind:
    bits = max(value.numerator.bit_length(), value.denominator.bit_length())
    if bits * abs(exponent) > MAX_POWER or (value == 0 and exponent < 0):
        return "unreadable"
    return value**exponent


def _integer(digits: str) -> int:
    """A whole number; beyond what is read, one that is larger than anything allowed."""
    digits = digits.replace(" ", "").replace("–", "-")
    return int(digits) if len(digits) <= MAX_DIGITS else 10 * MAX_POWER


def read_digits(digits: str, form: NumberForm = NumberForm()) -> Fraction | Kind:  # noqa: B008 - it is frozen
    """Digits with groups and decimals. A comma where points are decimals, without groups of three, says two things."""
    if digits.isdecimal():
        return Fraction(int(digits)) if len(digits) <= MAX_DIGITS else "unreadable"
    if len(digits) > MAX_DIGITS:
        return "unreadable"
    decimal, groups = (",", _COMMA_GROUPS) if form.is_comma else (".", _POINT_GROUPS)
    whole, _, decimals = digits.partition(decimal)
    if decimal in decimals:
        return "unreadable"
    if not groups.fullmatch(whole or "0") or (decimals and not decimals.isdecimal()):
        return "ambiguous"
    if whole.startswith("0") and not whole.isdecimal():
        return "ambiguous"
    plain = re.sub(r"[.,'_]", "", whole)
    return Fraction(int(plain + decimals or "0"), 10 ** len(decimals))
