"""The section `report`: how the scores of a job are compared in its leaderboard. It changes no request and no score."""

from msgspec import Struct


class ReportSettings(Struct, frozen=True):
    """What a leaderboard shows, and what it compares.

    `score`: which one is shown first; None is the job's first. `by`: axes whose values are the lines of the table;
    empty is every axis but the samples. `baseline`: the line that the others are compared with; None is the best one.
    `cluster`: the column whose equal values make a cluster; None is the question. `groups`: the column that says which
    group of questions a row belongs to.
    """

    score: str | None = None
    by: tuple[str, ...] = ()
    baseline: str | None = None
    cluster: str | None = None
    groups: str | None = None
