"""Foreign text on a terminal: what could move its cursor, turn its text around or hide in it is shown as an escape.

Guards: a cell, or a service's message, changes nothing on a terminal but the place where it is shown, and never takes
more columns than were counted for it.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

MAX_MARKS: Final = 4  # accents on one character; further ones would be drawn over the lines above and below
CUT: Final = "…"
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
"""Characters that take no place although their category is that of letters or accents."""
_HIDDEN: Final = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Mn", "Me")
"""Categories: control, format (direction and zero width too), half of a pair, private, breaks, too many accents."""
_EMOJI_STYLE: Final = "\ufe0f"  # makes an emoji, two columns wide, of the symbol before it
_NEWER_EMOJI: Final = range(0x1F000, 0x1FB00)  # some are of a later Unicode than this Python knows
_NOT_PLAIN: Final = re.compile(r"[^\x00-\x7e]")


def visible(text: str, keep: str = "\n") -> str:
    r"""The text with escapes (`\x1b`, `\u202e`) for control, direction, zero-width and private characters.

    `keep`: a control character of our own that stays.
    """
    if text.isascii() and text.replace(keep, "").isprintable():
        return text
    return "".join(shown for shown, _ in _shown(text, keep))


def columns(text: str) -> int:
    """How many columns of a terminal a visible text takes at most."""
    return len(text) if text.isascii() else sum(width for _, width in _shown(text, "\n"))


def cut(text: str, room: float) -> str:
    """The text, made visible in one line, with as much of it as fits into `room` columns, from 1 to infinity."""
    shown: list[str] = []
    used = fits = 0  # columns; how many of what is shown leave room for the mark
    for piece, width in _shown(text, ""):
        if used + width > room:
            return "".join(shown[:fits]) + CUT
        shown.append(piece)
        used += width
        fits = len(shown) if used < room else fits
    return "".join(shown)


def escaped_json(text: str) -> str:
    """JSON that means the same, in which no character is hidden."""
    return text if text.isascii() and "\x7f" not in text else _NOT_PLAIN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    if next(iter(_shown(char, "")))[0] == char or unicodedata.combining(char):
        return char
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _shown(text: str, keep: str) -> Iterator[tuple[str, int]]:
    """Each character as it is shown, with the columns that it takes."""
    marks, before = MAX_MARKS, ""  # at the start there is nothing that could bear an accent
    for char in text:
        if " " <= char <= "~" or char in keep:
            marks, kind = 0, ""
            yield char, 0 if char in keep else 1
        else:
            kind = unicodedata.category(char)
            if kind in ("Mn", "Me") and marks < MAX_MARKS and not _INVISIBLE.match(char):
                marks += 1
                yield char, 0
            elif char == _EMOJI_STYLE and before in ("So", "Sm"):
                yield char, 1
            elif _is_hidden(char, kind):
                yield from ((each, 1) for each in char.encode("unicode_escape").decode())
            else:
                marks = 0
                yield char, 2 if kind == "Cn" or unicodedata.east_asian_width(char) in "WF" else 1
        before = kind


def _is_hidden(char: str, category: str) -> bool:
    """Whether a character that bears no accent any more is shown as an escape."""
    if category == "Cn":
        return ord(char) not in _NEWER_EMOJI
    return category in _HIDDEN or _INVISIBLE.match(char) is not None


def fitting(wanted: Sequence[int], room: int, least: int, between: int) -> list[int]:
    """How many columns of a line each cell gets: those that want little have it, the others share what is left.

    `wanted`: by each cell. `room`: of the line. `least`: no cell gets less where it wants that much, so that cells at
    the end may find no room; they are left out. `between`: columns between two cells.
    """
    given = [0] * len(wanted)
    left = room - between * (len(wanted) - 1)
    for place, at in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        given[at] = min(wanted[at], max(least, left // (len(wanted) - place)))
        left -= given[at]
    ends = itertools.accumulate(size + between for size in given)
    return [
        min(size, room)
        for at, (size, end) in enumerate(zip(given, ends, strict=True))
        if not at or end <= room + between
    ]
