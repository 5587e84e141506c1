"""`accept`: how many rows of a run may have no whole answer, and the run ends well all the same. Pure and exact."""

import math
from fractions import Fraction
from typing import Any

from msgspec import Struct


class Accept(Struct, frozen=True):
    """The most rows that may have failed, and that may be incomplete, in a run that ends well.

    Each bound is as it was written: "5" counts rows, "1%" is a share of all rows that the session is for. None: none
    may, and nobody said so.
    """

    failed: str | None = None
    incomplete: str | None = None

    @property
    def is_used(self) -> bool:
        """Whether anything is said."""
        return self != Accept()

    def over(self, other: "Accept") -> "Accept":
        """These bounds, and the other's where there is none."""
        return Accept(
            failed=other.failed if self.failed is None else self.failed,
            incomplete=other.incomplete if self.incomplete is None else self.incomplete,
        )


class Standing(Struct, frozen=True):
    """Rows of one kind against their bound. `most`: how many may be; that many are within it."""

    kind: str
    rows: int
    bound: str | None
    most: int

    @property
    def is_within(self) -> bool:
        """Whether there are not more than the bound allows."""
        return self.rows <= self.most

    @property
    def written(self) -> str | int | None:
        """The bound as a job file has it."""
        return self.bound if self.bound is None or self.bound.endswith("%") else int(self.bound)

    def allowance(self, whole: str) -> str:
        """How many there may be. `whole`: all rows, in words."""
        if self.bound is None:
            return "none is accepted"
        share = f", {self.bound} of {whole}" if self.bound.endswith("%") else ""
        return f"at most {self.most:,}{share}"


class Accepted(Struct, frozen=True):
    """What a session accepts, and how the rows that it is for stand against that.

    `rows`: all that it is for; shares are of these. `is_done`: each of them has its outcome, so that it stays so.
    """

    rows: int
    failed: Standing
    incomplete: Standing
    is_limited: bool = False
    is_done: bool = True

    @property
    def is_within(self) -> bool:
        """Whether the rows without a whole answer are within their bounds, as far as outcomes are there."""
        return self.failed.is_within and self.incomplete.is_within

    def describe(self) -> str:
        """Which rows are accepted, or are more than is; "" where each outcome is a whole answer."""
        both = self.failed, self.incomplete
        shown = [each for each in both if (each.rows if self.is_within else not each.is_within)]
        words = f"{'' if self.is_within else 'more than '}accepted{'' if self.is_done else ' so far'}"
        counts = (f"{each.rows:,} {each.kind} ({each.allowance(self._whole)})" for each in shown)
        return f"{words}: {', '.join(counts)}" if shown else ""

    def bounds(self) -> str:
        """What is accepted, whatever there is of it."""
        return "; ".join(f"{each.kind}: {each.allowance(self._whole)}" for each in (self.failed, self.incomplete))

    @property
    def _whole(self) -> str:
        first = "first " if self.is_limited else ""
        return f"the {first}row" if self.rows == 1 else f"the {first}{self.rows:,} rows"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        kinds = {
            each.kind: {"bound": each.written, "most": each.most, "rows": each.rows, "within": each.is_within}
            for each in (self.failed, self.incomplete)
        }
        return {"within": self.is_within, "of_rows": self.rows, **kinds}


def judged(
    accept: Accept, rows: int, *, failed: int, incomplete: int, is_limited: bool = False, is_done: bool = True
) -> Accepted:
    """How so many failed and incomplete rows of all stand against what is accepted."""
    return Accepted(
        rows,
        Standing("failed", failed, accept.failed, most_rows(accept.failed, rows)),
        Standing("incomplete", incomplete, accept.incomplete, most_rows(accept.incomplete, rows)),
        is_limited,
        is_done,
    )


def most_rows(bound: str | None, rows: int) -> int:
    """The most rows that a bound allows, of so many: exact, and a share of 1% of 199 rows is 1 row."""
    if bound is None:
        return 0
    if not bound.endswith("%"):
        return int(bound)
    return math.floor(Fraction(bound.removesuffix("%")) * rows / 100)
