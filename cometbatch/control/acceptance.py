"""Whether an answer is taken for what was asked: a completion -> Done or AskAgain. Pure.

Only a whole answer that does not fit is asked for again. One that was cut, filtered or refused would be so again, and
an empty one leaves nothing to show the model.
"""

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from cometbatch.prompt.answers import Checker, Fits
from cometbatch.records import Acceptance, AskAgain, CallRequest, Completion, Done, FinishReason

_DONE: Final = Done()
_FITS: Final = Done(is_json=True)
_EMPTY: Final = Done(is_json=False)
_OF_THE_ROW: Final[frozenset[FinishReason]] = frozenset({"content_filter", "refusal"})
"""Endings that tell of the row alone, and nothing of whether the service heeds what is asked for."""


def accept_all(_request: CallRequest, _completion: Completion, _ask: int) -> Acceptance:
    """Every answer is taken, also one that was cut short: what it says is for the person to judge."""
    return _DONE


class AcceptFitting(Struct, frozen=True):
    """Takes answers that fit; others are asked for again until a call has had `max_asks` asks.

    `following`: the request that shows the model its answer and these words about it, made of the call's first one;
    None where the request has no place for them.
    """

    checker: Checker
    following: Callable[[CallRequest, str, str], CallRequest | None]
    max_asks: int
    is_pattern: bool = False

    def accept(self, request: CallRequest, completion: Completion, ask: int) -> Acceptance:
        """What the completion that this ask of a call (from 1) brought means. `request`: the call's first."""
        text, ended = completion.text, completion.finish_reason
        if ended in _OF_THE_ROW:
            return _DONE
        if not text or text.isspace():
            return _EMPTY
        found = self.checker.check(text)
        if isinstance(found, Fits):
            return _FITS
        if ended != "stop":
            return Done(is_json=found.is_json)
        if ask < self.max_asks:
            words = words_to_model(found.words, is_pattern=self.is_pattern)
            if (following := self.following(request, text, words)) is not None:
                return AskAgain(following, is_json=found.is_json)
        return Done("; ".join(found.words), is_json=found.is_json)


def words_to_model(words: Sequence[str], *, is_pattern: bool = False) -> str:
    """What the model is told of its answer."""
    what, how = ("pattern", "answer") if is_pattern else ("schema", "JSON")
    lines = "".join(f"- {line}\n" for line in words)
    return f"Your answer does not fit the {what}:\n{lines}Answer again, with the {how} alone."
