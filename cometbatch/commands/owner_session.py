"""The work of one owner in a process of its own: a session's partitions, as far as the coordinator gives them to it."""

from collections.abc import Callable

from cometbatch.commands.assignment import Assignment
from cometbatch.engines.line import Line


async def carry(assignment: Assignment, line: Line, clock: Callable[[], float]) -> None:
    """Work on what the coordinator assigns to this owner until nothing is left, or it is told to stop.

    `clock`: seconds, counted also while the machine sleeps.
    """
    raise NotImplementedError
