"""What the loop keeps of each call and of each request in flight."""

import functools
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from msgspec import Struct

from cometbatch.records import CallRequest, RejectedAsk
from cometbatch.runner.ports import ExchangeResult, Sending

LATENCY_DIGITS: Final = 3
"""Digits behind the point of a latency in seconds that is recorded: the event loop's clock tells milliseconds apart."""


class OpenCall(Struct, eq=False, gc=False):
    """A call between being read and having an outcome. Counts of failures are those of the present ask."""

    request: CallRequest
    began: float  # seconds on the event loop's clock
    ask: int = 1
    attempt: int = 0  # exchanges of this ask that were begun
    earlier_attempts: int = 0  # exchanges of the asks before, in this session
    rejected: tuple[RejectedAsk, ...] = ()  # asks that were answered, those of earlier sessions included
    original: CallRequest | None = None  # the first ask's request, once `request` is a later one's
    charge: float = 0.0  # tokens, as the limits took it for the attempt under way
    input_above_bytes: int = 0  # tokens: the most by which an ask's billed input passed the bytes that were sent
    is_reserved: bool = False  # whether `max_cost` is set aside for the next attempt
    max_cost: Decimal | None = None  # US dollars that the attempt under way can cost at most; None is unknown
    counted_failures: int = 0  # those that count against the call
    answers_seen: int = -1  # by everyone of the queue, when the last attempt failed
    unanswered_in_a_row: int = 0  # failed attempts in a row with no answer to anyone of the queue in between
    account_answers_seen: int = 0  # by everyone of all queues, when the first of these failed
    slow_downs_in_a_row: int = 0  # attempts in a row at which the service asked to slow down
    had_second_chance: bool = False
    is_asked_to_wait: bool = False  # whether the service asked for its present wait

    def begin_anew(self) -> None:
        """Forget the failures: they met a service that answered nobody, or belong to an ask that was answered."""
        self.counted_failures = self.slow_downs_in_a_row = self.unanswered_in_a_row = 0


class Slot:
    """Room for one request in flight."""

    __slots__ = ("arrive", "call", "cell", "latency_s", "queue", "result", "sending", "started")

    queue: int  # the number of the queue that has it
    call: OpenCall
    cell: int  # of the marks
    started: float  # seconds on the event loop's clock
    latency_s: float  # from then to the end of the reply
    sending: Sending
    result: ExchangeResult

    def __init__(self, arrive: Callable[["Slot", ExchangeResult], None]) -> None:
        self.arrive = functools.partial(arrive, self)
