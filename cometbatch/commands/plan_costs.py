"""What the requests of a plan come to, by target: tokens by the estimate, and US dollars."""

from collections.abc import Sequence
from decimal import Decimal
from functools import reduce
from typing import TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.commands.asking import WORDS_TOKENS
from cometbatch.money.exact import EXACT
from cometbatch.money.prices import estimate_cost, likely_cost
from cometbatch.records import PriceBook, Rates


class Sums(Struct):
    """Over the requests to one target. Tokens are the estimate."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def add(self, input_tokens: int, output_tokens: int) -> None:
        """One more request."""
        self.requests += 1
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens

    def asked(self, times: int) -> "Sums":
        """The same where each row is asked so often: each further ask holds the answer before it."""
        further = (times - 1) * (self.output_tokens + WORDS_TOKENS * self.requests)
        return Sums(times * self.requests, times * self.input_tokens + further, times * self.output_tokens)


class Requests(Struct):
    """Sums over requests, by target. `long_ones`: over those whose input is above `prices.above.input_tokens`."""

    requests: int = 0
    by_target: dict[int, Sums] = msgspec.field(default_factory=dict)
    long_ones: dict[int, Sums] = msgspec.field(default_factory=dict)

    @property
    def input_tokens(self) -> int:
        """Of all of them, by the estimate."""
        return sum(sums.input_tokens for sums in self.by_target.values())

    @property
    def output_tokens(self) -> int:
        """Of all of their answers."""
        return sum(sums.output_tokens for sums in self.by_target.values())

    def add(self, target: int, input_tokens: int, output_tokens: int, rates: Rates | None) -> None:
        """One more request."""
        self.requests += 1
        self.by_target.setdefault(target, Sums()).add(input_tokens, output_tokens)
        if rates is not None and rates.above is not None and input_tokens > rates.above.input_tokens:
            self.long_ones.setdefault(target, Sums()).add(input_tokens, output_tokens)


Cost: TypeAlias = tuple[Decimal | None, Decimal | None]
"""US dollars by list prices, and what they probably are; None where it is unknown."""


def estimate(found: Requests, books: Sequence[PriceBook], asks: int = 1) -> Cost:
    """US dollars for all requests to targets that have a price, and what they probably are; None where none has one.

    `asks`: how often each row is asked.
    """
    by_target = costs(found, books, asks) or {0: _cost(found, 0, books, asks)}
    known = [(cost, likely) for cost, likely in by_target.values() if cost is not None]
    likely = [each for _, each in known if each is not None]
    total = reduce(EXACT.add, (cost for cost, _ in known)) if known else None
    return total, reduce(EXACT.add, likely) if known and len(likely) == len(known) else None


def costs(found: Requests, books: Sequence[PriceBook], asks: int = 1) -> dict[int, Cost]:
    """The same for each target by itself."""
    return {number: _cost(found, number, books, asks) for number in found.by_target}


def _cost(found: Requests, number: int, books: Sequence[PriceBook], asks: int) -> Cost:
    sums, longer = found.by_target.get(number, Sums()), found.long_ones.get(number, Sums())
    cost = _cost_of(sums.asked(asks), longer.asked(asks), books[number].rates)
    return cost, likely_cost(cost, books[number])


def _cost_of(sums: Sums, longer: Sums, rates: Rates | None) -> Decimal | None:
    """US dollars for requests to one target, those with much input at their own rates."""
    requests, tokens = sums.requests - longer.requests, sums.input_tokens - longer.input_tokens
    cost = estimate_cost(tokens, sums.output_tokens - longer.output_tokens, requests, rates)
    if cost is None or rates is None or rates.above is None:
        return cost
    above = estimate_cost(longer.input_tokens, longer.output_tokens, longer.requests, rates.above.rates)
    return None if above is None else EXACT.add(cost, above)
