"""What the scoring of a result came to, as counts; and what shows a leaderboard of it."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

MOST_ERRORS: Final = 10  # percent of the lines on which a scorer may fail in a run that ends well


class ScoreCounts(Struct):
    """How many lines were scored, and on how many of them a Python scorer failed, by the names of the scores."""

    lines: int = 0
    errors: dict[str, int] = msgspec.field(default_factory=dict)
    first_error: str = ""

    def note(self, name: str, messages: Sequence[str | None]) -> None:
        """A scorer failed on further lines, with these messages."""
        if messages:
            self.errors[name] = self.errors.get(name, 0) + len(messages)
            self.first_error = self.first_error or f"{name}: {messages[0]}"

    @property
    def has_too_many_errors(self) -> bool:
        """Whether a scorer failed on more lines than a run that ends well may have."""
        return any(100 * count > MOST_ERRORS * self.lines for count in self.errors.values())

    def describe(self) -> list[str]:
        """A sentence for each scorer that failed on some line."""
        if not self.errors:
            return []
        counts = ", ".join(f"{name} on {count:,} of {self.lines:,} lines" for name, count in self.errors.items())
        return [f"Python scorers failed: {counts}; the first: {self.first_error}"]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"lines": self.lines, "scorer_errors": dict(self.errors)}


class Leaderboard(Protocol):
    """The figures of a result's scores."""

    def describe(self, width: int = 100) -> str:
        """For a person, at most this many columns wide where the labels allow it."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, every number at full precision."""
