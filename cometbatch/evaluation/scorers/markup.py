r"""LaTeX, Markdown and tags off a statement: for numbers, where fractions and powers are kept, and for names.

Statements are short (`statements.MAX_STATEMENT`), and each expression here reads its text once.
"""

import re
from typing import Final

from cometbatch.evaluation.scorers.expressions import expression

_SIGNS: Final = {
    "times": "×", "cdot": "×", "ast": "×", "div": "÷", "approx": "≈", "pm": "±", "mp": "±", "sqrt": "√", "pi": "π",
    "infty": "∞", "overline": "¯", "dot": "¯", "bar": "¯", "circ": "°", "degree": "°", "frac": "�", "dfrac": "�",
    "tfrac": "�", "cfrac": "�", "sfrac": "�", "nicefrac": "�", "binom": "�", "ln": "�", "log": "�", "sin": "�",
    "cos": "�", "tan": "�", "exp": "�", "to": " to ", "rightarrow": " ", "colon": ":", "ldots": "..", "dots": "..",
    "cdots": "..", "text": "", "textbf": "", "mathbf": "", "mathrm": "", "left": "", "right": "", "displaystyle": "",
    "geq": "≥", "leq": "≤", "ge": "≥", "le": "≤", "neq": "≠", "lt": "<", "gt": ">", "slash": "/", "backslash": " ",
}  # fmt: skip
"""Commands by what they print; � is what makes a number one that was not worked out. Others print a space."""
_COMMAND: Final = expression(r"\\([A-Za-z]+)\*?|\\([^A-Za-z])")
_ESCAPES: Final = {",": "'", "!": "", "%": "%", "$": "$", "#": "#", "&": "&", "_": "_", "{": "{", "}": "}", "-": ""}
_SIMPLE: Final = r"[-−–]?[\d.,]{1,4000}"
_FRACTION: Final = expression(
    rf"(\d)?([-–]?)�\s?(?:\{{\s?({_SIMPLE})\s?\}}|(\d))\s?(?:\{{\s?({_SIMPLE})\s?\}}|(\d))",
)
_CURRENCY: Final = (
    r"(?:(?<![A-Za-z])(?:US|A|C|R|HK|NZ|S|Mex)?[$]|[€£¥₹₽₩₺₫₪฿₦₱₴₸¢]|"
    r"(?<![A-Za-z])(?:USD|EUR|GBP|CHF|INR|JPY|CNY|RMB|Rs\.?)(?=[ -]?\d))"
)
_SIGNED_CURRENCY: Final = expression(rf"([-–+±]) ?{_CURRENCY}+ ?(?=[.\d])")
_ANY_CURRENCY: Final = expression(rf"{_CURRENCY}[$]?")
_ROUNDED: Final = expression(r"\*\*|__|`+|~~|<[/A-Za-z][^<>\n]{0,40}>")
_BRACED_COMMA: Final = expression(r"\{([,.'])\}")
_BRACED_WORDS: Final = expression(r"(?<![\^_�√}])\{([^{}\d]*)\}")
_EMPTY_BRACES: Final = expression(r"\{\s?\}")
_STARS_AS_POWER: Final = expression(r"(?<=\d)\*\*(?=-?\d)(?!-?[\d.,]{1,20}\*\*)")
_EMPHASIS: Final = expression(r"(?<![\w*])\*([^\s*](?:[^*\n]{0,100}[^\s*])?)\*(?![\w*])")
_DEGREES: Final = expression(r"\^\s?\{?\s?°\s?\}?")
_ENDING_COMMA: Final = expression(r"'(?!\d)|(?<!\d)'")
_BLANKS: Final = expression(r"\s+")

_WRAPPERS: Final = (
    r"text\w*|math(?:bf|rm|it|sf|tt|bb|cal|normal)|mbox|hbox|operatorname|left|right|displaystyle|boxed|fbox|bf|rm|it|"
    r"quad|qquad|underline|emph|boldsymbol|bm|large|Large|huge"
)
_WRAPPED_SIGN: Final = expression(rf"(?:[*`$_]{{1,4}}|\\(?:{_WRAPPERS})\{{)([^\W_])(?:[*`$_]{{1,4}}|\}})")
_SIGN_AS_TAG: Final = expression(r"<([A-Z])>(?!.*</\1>)")
_RAISED: Final = expression(r"\^\s?\{?([\w+-]{1,20})\}?")
_NAME_NOISE: Final = expression(
    rf"\\(?:{_WRAPPERS})(?![A-Za-z])\*?|\\[^A-Za-z]|\\|[*`$~{{}}]+|(?<![^\W_])_+|_+(?![^\W_])|</?[A-Za-z][^<>\n]{{0,40}}>"
)


def plain_math(text: str) -> str:
    r"""A statement as numbers are read: `\frac{1}{2}` is 1/2, `1\,234` is 1'234, `\text{cm}` its content, $ is gone."""
    if "\\" in text:
        text = _COMMAND.sub(_printed, text.replace("~", " "))
        if "�" in text:
            text = _FRACTION.sub(_divided, text)
        if "°" in text:
            text = _DEGREES.sub("°", text)
    if "{" in text:
        text = _BRACED_WORDS.sub(r" \1 ", _EMPTY_BRACES.sub("", _BRACED_COMMA.sub(r"\1", text)))
    if "$" in text or not text.isascii() or "USD" in text or "EUR" in text:
        text = _ANY_CURRENCY.sub(" ", _SIGNED_CURRENCY.sub(r"\1", text))
    text = _EMPHASIS.sub(r"\1", _ROUNDED.sub("", _STARS_AS_POWER.sub("^", text)))
    if "'" in text:
        text = _ENDING_COMMA.sub(" ", text)
    return _BLANKS.sub(" ", text).strip()


def _printed(found: re.Match[str]) -> str:
    if found[1] is not None:
        return _SIGNS.get(found[1], " ")
    return _ESCAPES.get(found[2], " ")


def _divided(found: re.Match[str]) -> str:
    whole, sign = found[1] or "", found[2]
    upper, lower = found[3] or found[4], found[5] or found[6]
    return f"{whole} {upper}/{lower} " if whole else f" {sign}{upper}/{lower} "


def plain_name(text: str) -> str:
    """A statement or a choice's text as names are looked for: without markup, with single spaces.

    One sign that stands in markup alone, as **A**, gets brackets, so that it is still told from a word.
    """
    if not text.isalnum():
        if "^" in text:
            text = _RAISED.sub(r"\1", text)
        if "<" in text:
            text = _SIGN_AS_TAG.sub(r" (\1) ", text)
        text = _NAME_NOISE.sub(" ", _WRAPPED_SIGN.sub(r" (\1) ", text))
        text = _BLANKS.sub(" ", text)
        if "=" in text:
            text = text.replace(" = ", "=")
    return text.strip()
