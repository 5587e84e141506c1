"""Which files a leaderboard is made of."""

from pathlib import Path

from msgspec import Struct


class ResultFiles(Struct, frozen=True):
    """A published result. `name`: how a person calls it. `files`: of the result, or the parts of a data set in order.

    `scores`: files with the score columns of a data set, in the same order of rows; none where the result has them.
    """

    name: str
    files: tuple[Path, ...]
    scores: tuple[Path, ...] = ()
