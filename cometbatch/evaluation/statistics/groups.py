"""Groups of questions: their scores together, and the mean of their means."""

import math
from collections.abc import Sequence

from msgspec import Struct

from cometbatch.evaluation.statistics.means import Estimate


class GroupTotals(Struct, frozen=True):
    """All groups of a line. `micro`: the mean over all answers; `micro_se`: its error with the groups' sizes as given.

    `macro`: the mean of the groups' means, each counting alike; `macro_se`: its error. An error is None where a group
    has none. Both errors take groups for independent of each other.
    """

    micro: float
    micro_se: float | None
    macro: float
    macro_se: float | None


def group_totals(groups: Sequence[Estimate]) -> GroupTotals | None:
    """Groups put together; None without any."""
    if not groups:
        return None
    answers = sum(each.answers for each in groups)
    micro = sum(each.mean * each.answers for each in groups) / answers
    macro = sum(each.mean for each in groups) / len(groups)
    errors = [each.se for each in groups if each.se is not None]
    if len(errors) < len(groups):
        return GroupTotals(micro, None, macro, None)
    weighted = math.fsum((each.answers / answers * se) ** 2 for each, se in zip(groups, errors, strict=True))
    return GroupTotals(micro, math.sqrt(weighted), macro, math.sqrt(math.fsum(se * se for se in errors)) / len(groups))
