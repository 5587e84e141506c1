"""How a job's answers are judged, put together: its checker, its format, and what the run has seen so far."""

import functools
from collections.abc import Callable, Iterable, Sequence

import msgspec

from cometbatch.control.acceptance import AcceptFitting, accept_all
from cometbatch.control.first_answers import FirstAnswers
from cometbatch.job import Response
from cometbatch.money.prices import estimate_tokens
from cometbatch.prompt.answers import Checker, Misfit
from cometbatch.records import Acceptance, CallRequest, Completion, Message, RejectedAsk, Tally
from cometbatch.runner.slots import OpenCall
from cometbatch.wire import WireFormat

WORDS_TOKENS = 100
"""Tokens of what the model is told of an answer that does not fit, about: two lines of the check and the words around
them. A check has `MAX_WORDS` lines at most, and hardly ever more than a few."""


def acceptance(
    checker: Checker | None, wire_format: WireFormat, response: Response
) -> Callable[[CallRequest, Completion, int], Acceptance]:
    """What judges answers. Without a checker all are taken."""
    if checker is None:
        return accept_all
    ask_again, is_pattern = functools.partial(following, wire_format), response.pattern is not None
    return AcceptFitting(checker, ask_again, response.max_asks, is_pattern).accept


def following(wire_format: WireFormat, request: CallRequest, text: str, words: str) -> CallRequest | None:
    """The same request with the model's answer and what is said of it behind; None where it has no place for them."""
    turns = Message.of_text("assistant", text), Message.of_text("user", words)
    body = wire_format.with_turns(request.http.body, turns)
    if body is None:
        return None
    tokens = request.estimated_tokens + estimate_tokens(len(text) + len(words))
    http = msgspec.structs.replace(request.http, body=body)
    return msgspec.structs.replace(request, http=http, estimated_tokens=tokens)


def first_answers(
    checker: Checker | None,
    response: Response,
    bill: Tally,
    asks: Iterable[Sequence[RejectedAsk]],
    misfits: Iterable[str] = (),
) -> FirstAnswers[OpenCall] | None:
    """What holds the first answers of a run; None where one was JSON already, or none has to be.

    `bill`: what the run came to so far; `asks`: those of its open calls; `misfits`: the answers of rows that ended
    without one that fits. A row that ended so tells nothing by itself: a run over a few rows (`--limit`) ends with
    prose, and all others must not be paid for the same.
    """
    if checker is None or response.pattern is not None:
        return None
    if bill.new_successes > 0 or any(_is_json(checker, some[-1]) for some in asks):
        return None
    others = bill.rejected
    for text in misfits:
        found = checker.check(text)
        if not isinstance(found, Misfit) or found.is_json:
            return None
        others += 1
    return FirstAnswers(others, is_by_prompt=response.mode == "prompt")


def _is_json(checker: Checker, ask: RejectedAsk) -> bool:
    if ask.completion is None:
        return False
    found = checker.check(ask.completion.text)
    return not isinstance(found, Misfit) or found.is_json
