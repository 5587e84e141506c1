"""What the budget of a job is enough for: a walk over the rows that remain, as a run would send them."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from msgspec import Struct

from cometbatch.commands.asking import WORDS_TOKENS
from cometbatch.commands.targets import prices_of
from cometbatch.control.budget import CostBounds
from cometbatch.money.exact import EXACT, format_amount, format_rounded
from cometbatch.money.prices import estimate_cost
from cometbatch.records import CallRequest, PriceBook, Tally
from cometbatch.results import tallies
from cometbatch.results.summary_words import count

NOTHING = Decimal(0)  # US dollars


class BudgetPlan(Struct, frozen=True):
    """What a budget is enough for, in US dollars, if each answer costs what `plan` estimates.

    `spent_usd`: by all sessions so far, possible charges included. `rows`: of the `remaining` ones, those that are sent
    before the run stops. `needed_usd`: the lowest budget with which it would not stop. Both are None where there is no
    price. `worst`: the same where every row is asked `max_asks` times; None where rows are asked once. `noun`: what is
    counted; with a matrix, each row is several calls.
    """

    max_cost_usd: Decimal
    spent_usd: Decimal
    remaining: int
    rows: int | None
    needed_usd: Decimal | None
    max_asks: int = 1
    worst: "BudgetPlan | None" = None
    noun: str = "row"

    @property
    def is_enough(self) -> bool | None:
        """Whether no row is left out; None where there is no price."""
        return None if self.rows is None else self.rows == self.remaining

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; amounts of money are strings, so that they stay exact."""
        return {
            "max_cost_usd": format_amount(self.max_cost_usd),
            "spent_usd": format_amount(self.spent_usd),
            "is_enough": self.is_enough,
            "rows": self.rows,
            "needed_usd": None if self.needed_usd is None else format_amount(self.needed_usd),
            **({} if self.worst is None else {"worst": self.worst.to_dict()}),
        }

    def describe(self) -> Iterator[str]:
        """A line for a person, and one for the worst case."""
        spent = f", {format_rounded(self.spent_usd, up=True)} of it spent" if self.spent_usd else ""
        begin = f"budget: {format_rounded(self.max_cost_usd, down=True)}{spent}: "
        if self.rows is None or self.needed_usd is None:
            yield begin + "can't be held, since there is no price"
        elif self.is_enough:
            yield begin + f"enough for {count(self.remaining, self.noun)}"
        else:
            needed = format_rounded(self.needed_usd, up=True)
            some = f"about {self.rows:,}" if self.rows else "none"
            rows = f"enough for {some} of {count(self.remaining, self.noun)}"
            yield f"{begin}{rows}; to finish, budget.max_cost_usd has to be about {needed}"
        if self.worst is not None and self.worst.needed_usd is not None and not self.worst.is_enough:
            worst = format_rounded(self.worst.needed_usd, up=True)
            yield f"  if every row is asked {self.max_asks} times (response.max_asks): enough with about {worst}"


class BudgetWalk:
    """Sums over the rows in the order in which they are sent. `books`: the prices, by target.

    `asks`: how often each row is asked. `worst`: the same walk with more asks.
    """

    def __init__(
        self,
        max_cost_usd: Decimal,
        spent_usd: Decimal,
        books: Sequence[PriceBook],
        bounds: CostBounds,
        *,
        asks: int = 1,
        worst: "BudgetWalk | None" = None,
        noun: str = "row",
    ) -> None:
        self._noun = noun
        self._asks = asks
        self._worst = worst
        self._cap, self._spent = max_cost_usd, spent_usd
        self._rates = [book.rates for book in books]
        self._bounds = bounds
        self._taken = spent_usd
        self._needed = spent_usd
        self._remaining = self._rows = 0

    def add(self, request: CallRequest, input_tokens: int, output_tokens: int) -> None:
        """The next row, with its estimates. It is sent where there is room for the most that it can cost."""
        rates = self._rates[request.target]
        if rates is not None and rates.above is not None and input_tokens > rates.above.input_tokens:
            rates = rates.above.rates
        if self._worst is not None:
            self._worst.add(request, input_tokens, output_tokens)
        asks = self._asks
        inputs = asks * input_tokens + (asks - 1) * (output_tokens + WORDS_TOKENS)
        estimate = estimate_cost(inputs, asks * output_tokens, asks, rates) or NOTHING
        bound = EXACT.add(self._taken, max(estimate, self._bounds.max_cost(request) or NOTHING))
        self._needed = max(self._needed, bound)
        if self._rows == self._remaining and bound <= self._cap:
            self._rows += 1
        self._remaining += 1
        self._taken = EXACT.add(self._taken, estimate)

    def plan(self) -> BudgetPlan:
        """What it comes to."""
        is_known = any(rates is not None for rates in self._rates)
        rows, needed = (self._rows, self._needed) if is_known else (None, None)
        worst = None if self._worst is None else self._worst.plan()
        asks = self._asks if worst is None else worst.max_asks
        return BudgetPlan(self._cap, self._spent, self._remaining, rows, needed, asks, worst, self._noun)


def budget_walk(
    max_cost_usd: Decimal | None, books: Sequence[PriceBook], bill: Tally, max_asks: int = 1, noun: str = "row"
) -> BudgetWalk | None:
    """A walk that begins with what was spent, and bounds rows by what was learnt; None where there is no budget.

    `bill`: what all sessions so far paid, or may have paid. `max_asks`: how often a row is asked in the worst case.
    `noun`: as of `BudgetPlan`.
    """
    if max_cost_usd is None:
        return None
    bounds = CostBounds(
        prices_of(books)[1],
        largest_output_tokens=bill.largest_output_tokens,
        largest_input_above_bytes=bill.largest_input_above_bytes,
        writes_for_an_hour=bill.cache_write_1h_input_tokens > 0,
    )
    begin = (max_cost_usd, tallies.spent(bill), books, bounds)
    worst = BudgetWalk(*begin, asks=max_asks, noun=noun) if max_asks > 1 else None
    return BudgetWalk(*begin, worst=worst, noun=noun)
