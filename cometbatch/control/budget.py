"""Spending that can't pass its cap: what an attempt can cost is set aside before it is sent, and settled after. Pure.

The law: spent + reserved <= cap, whatever happens to what is in flight, as long as no bill is higher than its
reservation. Where one is (a service that ignores the token cap, or adds input of its own), the reservations that follow
are raised to what was seen, and the overrun is said as it is.

Whether a model keeps the token cap is not known before it answers, so its queue begins with few requests in flight, and
each answer that keeps to its reservation lets some more be. In flight are never more than `FIRST_IN_FLIGHT`, and
`MORE_PER_ANSWER` for each such answer: where a share p of the answers is far above its reservation, about
`MORE_PER_ANSWER` of them are expected in flight when the first of them comes, whatever p is and however large the run.
What one model shows says nothing of another, so each has to show it.

A cost that a reply reports of itself is not booked, even where it is the higher one: nothing documents its currency,
and it may pass every reservation, so that one bad number would end the run, where it may spoil no more than its row.
Where the two differ, the summary says so.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final, Protocol

from cometbatch.money.exact import EXACT, ROUNDING, format_rounded
from cometbatch.money.prices import MAX_TOKENS
from cometbatch.records import CallRequest, Usage

FIRST_IN_FLIGHT: Final = 2
"""Requests in flight under a budget before the first answer. With 1, one request that hangs would hold up the run; each
more is one more answer that can be paid for before it is known that the service ignores the token cap."""

MORE_PER_ANSWER: Final = 2
"""Requests that may be in flight in addition for each answer that kept to its reservation: three times as many each
round trip, so that a run at 256 in flight starts five round trips later than it would. More pays for more answers where
some of them do not keep to it."""

FAR_ABOVE: Final = 2
"""Times its reservation. A bill above that shows that the reservations were no bounds, and few are in flight again; one
that is less above (some tokens more than the cap) can at most double what is set aside."""

_NOTHING: Final = Decimal(0)
_NO_CAP: Final = Decimal("Infinity")
_HOUR: Final = b'"1h"'
_ASKS_FOR_AN_HOUR: Final = re.compile(rb'"ttl"\s*:\s*"1h"')
"""In a body: a cache is to keep what is written for an hour. Texts have their quotes escaped."""


class SharedAccount(Protocol):
    """A cap over several runs, each of which books what it sets aside and spends here, too."""

    @property
    def left(self) -> Decimal:
        """US dollars that are neither spent nor set aside."""

    @property
    def is_any_in_flight(self) -> bool:
        """Whether a request of some run is under way, and so may turn out to cost less than was set aside for it."""

    def count_in_flight(self, change: int) -> None:
        """So many requests more are under way, or fewer."""

    def reserve(self, amount: Decimal) -> bool:
        """As `Budget.reserve`."""

    def settle(self, reserved: Decimal, actual: Decimal) -> None:
        """As `Budget.settle`."""


class Budget:
    """US dollars under one cap. `spent`: by earlier sessions, rejected asks and possible charges included.

    `cap`: None where the run has no cap of its own. `shared`: the cap over several runs, which holds as well.
    """

    def __init__(self, cap: Decimal | None, spent: Decimal, *, shared: SharedAccount | None = None) -> None:
        self._cap = _NO_CAP if cap is None else cap
        self.shared = shared
        self._set_aside = _NOTHING  # of the shared cap, now
        self._given_up = _NOTHING  # of that, for requests that nobody waits for any more
        self._in_flight = 0  # as the shared cap knows it
        self.taken = spent  # or set aside

    @property
    def left(self) -> Decimal:
        """What is neither spent nor set aside; below 0 where a bill passed its reservation, or the cap was lowered."""
        return ROUNDING.subtract(self._cap, self.taken)  # a cap can have any number of decimals

    def reserve(self, amount: Decimal) -> bool:
        """Set an amount aside, or return False and set nothing aside where that would pass the cap."""
        taken = EXACT.add(self.taken, amount)
        if taken > self._cap:
            return False
        if self.shared is not None:
            if not self.shared.reserve(amount):
                return False
            self._set_aside = EXACT.add(self._set_aside, amount)
        self.taken = taken
        return True

    def is_shared_short(self, amount: Decimal) -> bool:
        """Whether it is the shared cap that has no room for this much, and not the run's own."""
        return self.shared is not None and EXACT.add(self.taken, amount) <= self._cap

    def settle(self, reserved: Decimal, actual: Decimal) -> None:
        """Give back a reservation and book what it really came to."""
        self.taken = EXACT.add(EXACT.subtract(self.taken, reserved), actual)
        if self.shared is not None:
            self.shared.settle(reserved, actual)
            self._set_aside = EXACT.subtract(self._set_aside, reserved)

    def give_up(self, reserved: Decimal) -> None:
        """Nobody waits for a request any more that may be billed: what is set aside for it stays so."""
        self._given_up = EXACT.add(self._given_up, reserved)

    def count_in_flight(self, change: int) -> None:
        """So many requests more are under way, or fewer. Told where a cap is shared."""
        self._in_flight += change
        if self.shared is not None:
            self.shared.count_in_flight(change)

    def close(self) -> Decimal:
        """Give back what is set aside of a shared cap for requests that were never sent; returns what was given up.

        Where an error left requests of which nobody knows what came of them, all that is set aside was given up.
        """
        if self._in_flight:
            self._given_up = self._set_aside
            self.count_in_flight(-self._in_flight)
        if self.shared is not None:
            self.shared.settle(EXACT.subtract(self._set_aside, self._given_up), _NOTHING)
        self._set_aside = self._given_up
        return self._given_up

    def describe(self, next_cost: Decimal) -> str:
        """In a sentence: what the next call can cost, and what is left, or by how much the budget is passed.

        A cost is rounded up and what is left is rounded down, so that both together never look like room.
        """
        left, which = self.left, "budget"
        if self.shared is not None and self.is_shared_short(next_cost):
            left, which = self.shared.left, "budget that is shared by several runs"
        state = (
            f"{format_rounded(left, down=True)} of the {which} is left"
            if left >= 0
            else f"the {which} is passed by {format_rounded(left.copy_abs(), up=True)} already"
        )
        return f"the next row can cost up to {format_rounded(next_cost, up=True)}, and {state}."


class ProvenBounds:
    """How many requests of a model may be in flight, by what its answers have shown of whether reservations are bounds.

    `answers`: how many answers of earlier sessions are known. `is_exact`: every bill is what was reserved for it, as
    with a price per request, so that nothing has to be shown first.
    """

    def __init__(self, answers: int = 0, *, is_exact: bool = False) -> None:
        self._is_exact = is_exact
        self._may_be_in_flight = FIRST_IN_FLIGHT + MORE_PER_ANSWER * answers

    def admits(self, in_flight: int) -> bool:
        """Whether one more request may be in flight beside these."""
        return in_flight < self._may_be_in_flight or self._is_exact

    def answered(self, reserved: Decimal, actual: Decimal) -> None:
        """Take an answer's bill as evidence. It is settled apart."""
        if actual > reserved and actual > EXACT.multiply(FAR_ABOVE, reserved):
            self._may_be_in_flight = FIRST_IN_FLIGHT
        else:
            self._may_be_in_flight += MORE_PER_ANSWER


class CostBounds:
    """What an attempt can cost at most.

    The bytes that are sent bound its input tokens, and the cap bounds its output tokens, until a bill says otherwise:
    the largest output seen, and the largest input above the bytes that were sent, count for all attempts that follow.
    An image's bytes are no text: it counts as `image_tokens` of its call say, which not every model keeps to.
    Cache writes that are kept for an hour cost more than others: they count where a request asks for them, and for all
    attempts once an answer has shown them.
    """

    def __init__(
        self,
        max_cost: Callable[[CallRequest, int, int | None, bool], Decimal | None],
        *,
        largest_output_tokens: int = 0,
        largest_input_above_bytes: int = 0,
        writes_for_an_hour: bool = False,
    ) -> None:
        """`max_cost`: US dollars for a call with at most these tokens of input and output; `None` is unknown.

        Its last argument says whether cache writes can be such that are kept for an hour.
        """
        self._max_cost = max_cost
        self.largest_output_tokens = largest_output_tokens
        self._input_above_bytes = largest_input_above_bytes
        self.are_raised = False  # since the reader of this last set it back
        self._writes_for_an_hour = writes_for_an_hour

    def max_cost(self, request: CallRequest) -> Decimal | None:
        """US dollars that an attempt can cost at most; `None` where there is no price, or no cap on the answer."""
        cap = request.max_output_tokens
        if cap is not None and cap < self.largest_output_tokens:
            cap = self.largest_output_tokens
        body = request.http.body
        hour = self._writes_for_an_hour or (_HOUR in body and _ASKS_FOR_AN_HOUR.search(body) is not None)
        return self._max_cost(request, len(body) + request.image_tokens + self._input_above_bytes, cap, hour)

    def learn(self, request: CallRequest, usage: Usage) -> int:
        """Look at a bill. Returns by how many tokens its input passed the bytes that were sent; 0 is usual.

        An output above `MAX_TOKENS` is garbage, and bounds nothing.
        """
        inputs, outputs = usage.input_tokens, usage.output_tokens
        if outputs is not None and self.largest_output_tokens < outputs <= MAX_TOKENS:
            self.largest_output_tokens = outputs
            self.are_raised = True
        if usage.cache_write_1h_input_tokens and not self._writes_for_an_hour:
            self._writes_for_an_hour = self.are_raised = True
        above = 0 if inputs is None or inputs > MAX_TOKENS else inputs - len(request.http.body) - request.image_tokens
        if above > self._input_above_bytes:
            self._input_above_bytes = above
            self.are_raised = True
        return max(0, above)
