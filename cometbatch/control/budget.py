"""Spending that can't pass its cap: what an attempt can cost is set aside before it is sent, and settled after. Pure.

The law: spent + reserved <= cap, whatever happens to what is in flight, as long as no bill is higher than its
reservation. Where one is (a service that ignores the token cap, or adds input of its own), the reservations that follow
are raised to what was seen, and the overrun is said as it is.

A cost that a reply reports of itself is not booked, even where it is the higher one: nothing documents its currency,
and it may pass every reservation, so that one bad number would end the run, where it may spoil no more than its row.
Where the two differ, the summary says so.
"""

from collections.abc import Callable
from decimal import Decimal

from cometbatch.money.exact import EXACT, ROUNDING, format_amount
from cometbatch.money.prices import MAX_TOKENS
from cometbatch.records import CallRequest, Usage

_ASKS_FOR_AN_HOUR = b'"ttl":"1h"'
"""In a body, which is compact JSON: a cache is to keep what is written for an hour. Texts have their quotes escaped."""


class Budget:
    """US dollars under one cap. `spent`: by earlier sessions, rejected asks and possible charges included."""

    def __init__(self, cap: Decimal, spent: Decimal) -> None:
        self._cap = cap
        self._taken = spent  # or set aside

    @property
    def left(self) -> Decimal:
        """What is neither spent nor set aside; below 0 where a bill passed its reservation, or the cap was lowered."""
        return ROUNDING.subtract(self._cap, self._taken)  # a cap can have any number of decimals

    def reserve(self, amount: Decimal) -> bool:
        """Set an amount aside, or return False and set nothing aside where that would pass the cap."""
        taken = EXACT.add(self._taken, amount)
        if taken > self._cap:
            return False
        self._taken = taken
        return True

    def settle(self, reserved: Decimal, actual: Decimal) -> None:
        """Give back a reservation and book what it really came to."""
        self._taken = EXACT.add(EXACT.subtract(self._taken, reserved), actual)

    def describe(self, next_cost: Decimal) -> str:
        """In a sentence: what the next call can cost, and what is left, or by how much the budget is passed."""
        left = self.left
        state = (
            f"${format_amount(left)} of the budget is left"
            if left >= 0
            else f"the budget is passed by ${format_amount(left.copy_abs())} already"
        )
        return f"the next row can cost up to ${format_amount(next_cost)}, and {state}."


class CostBounds:
    """What an attempt can cost at most.

    The bytes that are sent bound its input tokens, and the cap bounds its output tokens, until a bill says otherwise:
    the largest output seen, and the largest input above the bytes that were sent, count for all attempts that follow.
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
        self._output_tokens = largest_output_tokens
        self._input_above_bytes = largest_input_above_bytes
        self._writes_for_an_hour = writes_for_an_hour

    def max_cost(self, request: CallRequest) -> Decimal | None:
        """US dollars that an attempt can cost at most; `None` where there is no price, or no cap on the answer."""
        cap = request.max_output_tokens
        if cap is not None and cap < self._output_tokens:
            cap = self._output_tokens
        body = request.http.body
        hour = self._writes_for_an_hour or _ASKS_FOR_AN_HOUR in body
        return self._max_cost(request, len(body) + self._input_above_bytes, cap, hour)

    def learn(self, request: CallRequest, usage: Usage) -> int:
        """Look at a bill. Returns by how many tokens its input passed the bytes that were sent; 0 is usual."""
        inputs, outputs = usage.input_tokens, usage.output_tokens
        if outputs is not None and self._output_tokens < outputs <= MAX_TOKENS:
            self._output_tokens = outputs
        if usage.cache_write_1h_input_tokens:
            self._writes_for_an_hour = True
        above = 0 if inputs is None or inputs > MAX_TOKENS else inputs - len(request.http.body)
        self._input_above_bytes = max(self._input_above_bytes, above)
        return max(0, above)
