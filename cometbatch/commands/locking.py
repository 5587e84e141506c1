"""The lock of a run, and the wait for another process that has it."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Final

from cometbatch.commands.observers import Observers
from cometbatch.commands.progress_line import Progress
from cometbatch.errors import RunLockedError, UsageError
from cometbatch.records import Tally
from cometbatch.run_state.directory import RunDirectory

LOOK_S: Final = 0.5  # seconds between two tries to get the lock: a process that ends tells nobody


def refuse_wait(wait_s: float | None) -> None:
    """Raise `UsageError` for a time that nobody can wait."""
    if wait_s is not None and not 0 <= wait_s < math.inf:
        raise UsageError(f"--wait: {wait_s:g} is no time to wait; give seconds, such as 120.")


@contextlib.asynccontextmanager
async def locked(directory: RunDirectory, wait_s: float | None, observers: Observers) -> AsyncIterator[bool]:
    """Be the one writer of a run; yields whether another process had the run a moment ago.

    Raises `RunLockedError` where it still has it after `wait_s` seconds (None: at once), `UsageError` where the folder
    can't be written to.
    """
    loop = asyncio.get_running_loop()
    deadline, is_told = loop.time() + (wait_s or 0.0), False
    with contextlib.ExitStack() as held:
        while True:
            if is_told:
                await _until_free(directory, deadline)
            try:
                held.enter_context(directory.locked())
                break
            except OSError as error:
                words = f"output.path: can't write to {directory.path.parent} ({error.strerror})."
                raise UsageError(words) from error
            except RunLockedError as error:
                observers.locked(by_others=True)
                if loop.time() >= deadline:
                    raise
                if not is_told:
                    line = f"Waiting for at most {wait_s:g} s: {error.holder} is running this job ({directory.path})."
                    waiting = Progress(0, Tally(), on=False, observers=observers)
                    waiting.say(line)
                    waiting.close()
                is_told = True
        if is_told:
            observers.locked(by_others=False)
        yield is_told


async def _until_free(directory: RunDirectory, deadline: float) -> None:
    """Wait until nobody has the run, or until this time of the loop."""
    loop = asyncio.get_running_loop()
    while directory.lock.is_held() and (left_s := deadline - loop.time()) > 0:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(min(LOOK_S, left_s))
