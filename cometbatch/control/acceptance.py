"""Whether an answer is taken for what was asked: a completion -> Done or AskAgain. Pure."""

from typing import Final

from cometbatch.records import Acceptance, CallRequest, Completion, Done

_DONE: Final = Done()


def accept_all(_request: CallRequest, _completion: Completion, _ask: int) -> Acceptance:
    """Every answer is taken, also one that was cut short: what it says is for the person to judge."""
    return _DONE
