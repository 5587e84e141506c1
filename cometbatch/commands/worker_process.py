"""The process of a worker of `--workers`: takes its part over from the driver's process, and ends with it.

Guards: it ends within a second of the driver's, whatever it does then; no signal of a terminal reaches it, since the
driver alone decides; what it says is the driver's to show.
"""

import asyncio
import os
import pickle
import signal
import sys
import threading
from pathlib import Path
from typing import Final

from cometbatch.commands.owner_session import carry
from cometbatch.engines import event_loop
from cometbatch.engines.lease_clock import lease_clock
from cometbatch.engines.line import LineClosedError
from cometbatch.engines.local_workers import Handed, SocketLine, remove_folder, take_over

ORPHANED: Final = 3
"""The exit code of a worker whose driver has ended."""
LAST_S: Final = 0.7  # seconds that a worker has to end in once its driver has ended; then it ends whatever it does
NOTICED_S: Final = 0.1  # seconds within which the pipe and the socket of a process that has ended are both at their end
IGNORED: Final = ("SIGINT", "SIGTERM", "SIGHUP")


def main() -> None:
    """Work until the session is over, and end this process with the exit code that tells how."""
    for name in IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    handed = take_over(sys.stdin.buffer)
    sys.exit(ORPHANED if handed is None else event_loop.run(_work(handed)))


async def _work(handed: Handed) -> int:
    """Carry out the owner's session while the driver's process is there; returns the exit code."""
    try:
        line = await SocketLine.connect(handed.path, handed.token)
    except LineClosedError:
        remove_folder(Path(handed.path))  # nobody listens there any more
        return ORPHANED
    working = asyncio.create_task(carry(pickle.loads(handed.content), line, lease_clock))  # noqa: S301 - from our parent
    closed = asyncio.create_task(line.closed.wait())
    driver_over = asyncio.create_task(_driver_over(handed, line))
    try:
        await asyncio.wait({working, closed}, return_when=asyncio.FIRST_COMPLETED)
        if not closed.done() and not line.closed.is_set():
            return _ended(working)
        _end_in_time()
        await asyncio.wait({working})
        await asyncio.wait({driver_over}, timeout=NOTICED_S)
        return ORPHANED
    finally:
        closed.cancel()
        driver_over.cancel()
        line.close()


async def _driver_over(handed: Handed, line: SocketLine) -> None:
    """Wait for the end of the pipe that this process was started with, which is that of the driver's process.

    Then the socket's folder is removed: nobody else does that any more.
    """
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        if not os.read(0, 1):
            loop.remove_reader(0)
            over.set()

    loop.add_reader(0, read)
    await over.wait()
    line.close()
    remove_folder(Path(handed.path))


def _end_in_time() -> None:
    """End this process soon, whatever it does then: a run directory is made to be left at any moment."""
    timer = threading.Timer(LAST_S, os._exit, (ORPHANED,))
    timer.daemon = True
    timer.start()


def _ended(working: "asyncio.Task[None]") -> int:
    """The exit code; what went wrong is said in a line, which the driver quotes where nobody has told it better."""
    try:
        working.result()
    except Exception as error:  # noqa: BLE001 - the driver says it
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0
