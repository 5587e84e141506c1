"""The wait for workers of a session whose driver is dead: they may send for some seconds more."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from cometbatch.commands.observers import Observers
from cometbatch.commands.progress_line import Progress
from cometbatch.commands.session_start import in_thread
from cometbatch.records import Tally
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.sharing import unshare


async def fenced(home: RunDirectory, files: ThreadPoolExecutor, observers: Observers) -> None:
    """Return once no worker of an earlier session can send or write any more. For whoever holds the lock.

    At once where the last session with workers ended in order. Raises `CheckpointError` where the lock can't be read.
    """
    epoch = await in_thread(files, home.epoch.unfenced)
    if epoch is None:
        return
    await in_thread(files, home.epoch.wait)
    telling = Progress(0, Tally(), on=False, observers=observers)
    telling.say(f"Waiting {epoch.fence_s:g} s for the workers of the last session, which may still send.")
    telling.close()
    await asyncio.sleep(epoch.fence_s)
    await in_thread(files, home.epoch.forget)
    await in_thread(files, unshare, home)
