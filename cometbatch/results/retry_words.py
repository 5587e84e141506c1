"""What `--retry` understands: kinds of rows by name, and which outcomes they mean."""

from collections.abc import Iterable, Sequence
from typing import Final, assert_never, get_args

from msgspec import Struct

from cometbatch.errors import UsageError, did_you_mean
from cometbatch.records import Answered, Failed, FailureKind, FinishReason, Outcome, Tally

WORDS: Final = ("failed", "incomplete", *get_args(FailureKind), *get_args(FinishReason))
"""What `--retry` understands. A finish reason stands for incomplete rows alone (`stop`: an empty answer)."""

_KNOWN_AS: Final = {
    **dict.fromkeys(("error", "errors", "failure", "failures"), "failed"),
    **dict.fromkeys(("max_tokens", "truncated", "cut"), "length"),
    **dict.fromkeys(("5xx", "500"), "server_error"),
    "429": "rate_limited",
    "empty": "stop",
}
"""What people call these kinds, for hints."""


class RetryWords(Struct, frozen=True):
    """The kinds of rows that are to be answered again; without words, none."""

    words: frozenset[str] = frozenset()

    def match(self, outcome: Outcome) -> bool:
        """Whether the call is to be answered again; one with a whole answer never is."""
        match outcome:
            case Answered(status="succeeded"):
                return False
            case Answered(completion=completion):
                return "incomplete" in self.words or completion.finish_reason in self.words
            case Failed(failure=failure):
                return "failed" in self.words or failure.kind in self.words
            case _:
                assert_never(outcome)

    def may_match_in(self, tally: Tally) -> bool:
        """Whether any of the outcomes behind a tally may match; it does not tell why answers are incomplete."""
        kinds = set(tally.failures) | ({"failed"} if tally.failed else set())
        reasons = {"incomplete", *get_args(FinishReason)} if tally.incomplete else set()
        return bool(self.words & (kinds | reasons))


def _meant(word: str, known: Sequence[str]) -> str:
    """A hint at the kind of row that a word stands for; "" where there is none."""
    return f"did you mean {_KNOWN_AS[word]!r}?" if word in _KNOWN_AS else did_you_mean(word, known)


def read_words(wanted: str | Iterable[str], *, option: str = "--retry", known: Sequence[str] = WORDS) -> RetryWords:
    """The kinds of rows that are meant; text is split at its commas. Raises `UsageError` with the list of them all."""
    words = frozenset(word.strip() for word in (wanted.split(",") if isinstance(wanted, str) else wanted))
    if unknown := sorted(words - set(known)):
        hints = [
            f"{word!r} is no kind of row" + (f", {near}" if (near := _meant(word, known)) else "") for word in unknown
        ]
        end = "" if hints[-1].endswith("?") else "."
        raise UsageError(f"{option}: {'; '.join(hints)}{end} There are: {', '.join(known)}.")
    return RetryWords(words)
