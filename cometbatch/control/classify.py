"""What an attempt that brought no completion means: a reply -> Retry, GiveUp or Abort, by the retry table. Pure.

Guards: every reply gets a verdict. A failure's message is bounded, and never quotes a key. Clock and chance are
arguments.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final, assert_never

from msgspec import Struct

from cometbatch.control.retry_table import FITTING_STATUS, RETRY_TABLE, Rule
from cometbatch.control.waits import retry_after_s
from cometbatch.records import (
    KEY_SHAPE,
    Abort,
    ErrorDetail,
    Failure,
    GiveUp,
    HttpResponse,
    Problem,
    Refusal,
    Retry,
    TransportFailure,
    TransportFailureKind,
)

MAX_MESSAGE_CHARS: Final = 2000
"""Characters of a failure's message that are kept. Messages are kept for each failed call, so they are bounded."""

_LOST_STATUS: Final = 500
_SUCCESS: Final = range(200, 300)
_BILLED_BELOW: Final = 300
"""An HTTP status. Below it, a reply that can't be read was generated, and billed."""
_GAVE_UP_WAITING: Final = (499, 504, 524, 598)
"""HTTP statuses. The provider behind the gateway may finish the work, and bill it, all the same."""


class _Signal(Struct, frozen=True):
    """What the rules look at. `problem` is set only where a success status hides that there is no answer."""

    message: str
    status: int | None = None
    codes: frozenset[str] = frozenset()
    problem: Problem | None = None
    transport: TransportFailureKind | None = None


def classify(
    reply: HttpResponse | TransportFailure, parsed: ErrorDetail | None, *, now: Callable[[], datetime]
) -> Refusal:
    """What an attempt that brought no completion means. Total: whatever the reply, there is a verdict.

    `parsed` is what a wire format made of the reply; None for a `TransportFailure`. `now` tells the time
    (aware), the base for a Retry-After date when the reply has no Date of its own. Source: contract sheet, section 7.2.
    """
    if isinstance(reply, TransportFailure):
        signal = _Signal(message=_words(reply.detail), transport=reply.kind)
        return _verdict(_first_match(signal), signal, ErrorDetail(status=0), None)
    detail = parsed or ErrorDetail(status=reply.status, problem="not_understood")
    signal = _signal_of(detail)
    return _verdict(_first_match(signal), signal, detail, retry_after_s(reply.headers, now=now()))


def may_be_billed(reply: HttpResponse | TransportFailure) -> bool:
    """Whether an attempt without an answer may have been billed (contract sheet, section 12: what is inferred)."""
    if isinstance(reply, TransportFailure):
        return reply.sent
    return reply.status < _BILLED_BELOW or reply.status in _GAVE_UP_WAITING


def _first_match(signal: _Signal) -> Rule:
    return next(rule for rule in RETRY_TABLE if _matches(rule, signal))


def _matches(rule: Rule, signal: _Signal) -> bool:
    return (
        (rule.transport is None or rule.transport == signal.transport)
        and (rule.problem is None or rule.problem == signal.problem)
        and (rule.statuses is None or signal.status in rule.statuses)
        and _says(rule, signal)
    )


def _says(rule: Rule, signal: _Signal) -> bool:
    if not rule.codes and rule.wording is None:
        return True
    if not rule.codes.isdisjoint(signal.codes):
        return True
    return rule.wording is not None and rule.wording.pattern.search(signal.message) is not None


def _signal_of(detail: ErrorDetail) -> _Signal:
    codes = frozenset(word.strip().lower() for word in (detail.code, detail.type)) - {""}
    message = _words(detail.message)
    if detail.status == _LOST_STATUS or (detail.status in _SUCCESS and detail.problem == "error"):
        return _Signal(message, status=_fitting_status(codes), codes=codes)
    problem = detail.problem if detail.status in _SUCCESS else None
    return _Signal(message, status=detail.status, codes=codes, problem=problem)


def _fitting_status(codes: frozenset[str]) -> int:
    """The status that an error should have had: the highest where code and type disagree, 500 for want of any."""
    numeric = {int(code) for code in codes if re.fullmatch("[45][0-9]{2}", code)}
    named = {FITTING_STATUS[code] for code in codes if code in FITTING_STATUS}
    return max((numeric | named) - {_LOST_STATUS}, default=_LOST_STATUS)


def _verdict(rule: Rule, signal: _Signal, detail: ErrorDetail, wait: float | None) -> Refusal:
    failure = _failure(rule, signal, detail)
    match rule.action:
        case "retry":
            return Retry(failure, retry_after_s=wait)
        case "slow down":
            return Retry(failure, retry_after_s=wait, slow_down=True, costs_attempt=False)
        case "slow down, counted":
            return Retry(failure, retry_after_s=wait, slow_down=True)
        case "give up":
            return GiveUp(failure)
        case "give up, or stop":
            return GiveUp(failure, path_mistake=True)
        case "abort" | "abort, or retry":
            return Abort(
                failure,
                rule.hint,
                rule.fix,
                is_certain=rule.action == "abort",
                retry_after_s=wait,
                is_of_model=rule.is_of_model,
            )
        case _:
            assert_never(rule.action)


def _failure(rule: Rule, signal: _Signal, detail: ErrorDetail) -> Failure:
    if signal.transport is not None:
        return Failure(rule.kind, signal.message or f"no whole reply ({signal.transport})")
    words = signal.message or f"HTTP {detail.status} without a message"
    message = f"{rule.advice}: {words}" if rule.advice else words
    return Failure(rule.kind, message[:MAX_MESSAGE_CHARS], detail.status, detail.code, detail.request_id)


def _words(text: str) -> str:
    """The service's own words, fit to keep: bounded, valid Unicode, and without a key that an error may quote."""
    kept = text[: MAX_MESSAGE_CHARS * 2].encode("utf-8", "replace").decode()
    return KEY_SHAPE.sub("sk-…", kept).strip()[:MAX_MESSAGE_CHARS]
