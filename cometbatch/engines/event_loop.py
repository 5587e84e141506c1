"""Which event loop a run gets: uvloop's, where it is installed, and asyncio's own elsewhere.

uvloop comes with the package wherever there is a build of it; nothing here depends on which of the two it is.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop
except ImportError:  # PyPy, or a Python that is too new
    from asyncio import new_event_loop

Returned = TypeVar("Returned")


def run(main: Coroutine[Any, Any, Returned]) -> Returned:
    """Run a coroutine on a new event loop to its end, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
