"""What the check of an answer's text says: it fits, or it does not, with the checker's words.

The loop asks a `Checker` and needs to know nothing of schemas or patterns.
"""

from typing import Final, Protocol, TypeAlias

from msgspec import Struct

MAX_WORDS: Final = 10  # lines of a misfit; what is wrong beyond them is not listed
MAX_LINE_CHARS: Final = 200  # characters of each line; a longer one is cut


class Fits(Struct, frozen=True, gc=False):
    """The text is an answer as the job asks for it. `value`: what it holds, in Python's types."""

    value: object


class Misfit(Struct, frozen=True, gc=False):
    """The text is no answer as the job asks for it.

    `words`: at most `MAX_WORDS` lines of `MAX_LINE_CHARS` characters, such as
    "$.urgency: 9 is greater than the maximum of 5". `is_json`: whether the text was JSON at all.
    """

    words: tuple[str, ...]
    is_json: bool


Verdict: TypeAlias = Fits | Misfit


class Checker(Protocol):
    """Tells whether the text of an answer is what the job asks for. Any text gets a verdict; nothing is raised."""

    def check(self, text: str) -> Verdict:
        """The value in a text that fits, or what is wrong with it."""
