"""The figures of a leaderboard, each at full precision; how they are drawn is another matter."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from msgspec import Struct

from cometbatch.job.report import ReportSettings
from cometbatch.reports.sources import ResultFiles


class Figures(Struct, frozen=True):
    """A leaderboard. `notes`: sentences for a person. `needs_extra`: numpy or scipy is not installed, so intervals are missing."""

    score: str
    needs_extra: bool = False
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: every number at full precision, amounts of money as texts."""
        raise NotImplementedError

    def describe(self, width: int = 100) -> str:
        """The leaderboard as plain text, at most `width` columns wide where the labels allow it."""
        raise NotImplementedError


def figures(
    results: Sequence[ResultFiles],
    settings: ReportSettings,
    *,
    possible_charges_usd: Decimal | None = Decimal(),
    judge_cost_usd: Decimal | None = None,
) -> Figures | None:
    """The leaderboard of these results; None where they have no score. Reads the columns it needs, by row groups.

    `possible_charges_usd`: what may have been billed without an answer. Raises `InputError` where a file can't be read
    or results do not fit each other, `UsageError` where the settings name what is not there.
    """
    raise NotImplementedError
