"""A worker's process that asks and says what it is told to: the socket and its process alone, without a run."""

import asyncio
import sys

from cometbatch.control.coordination.messages import Claim, Claimed, Join, Watch
from cometbatch.engines import event_loop
from cometbatch.engines.line import LineClosedError
from cometbatch.engines.local_workers import SocketLine, take_over


def main() -> None:
    """Take over what the launcher hands to this process."""
    handed = take_over(sys.stdin.buffer)
    assert handed is not None
    sys.exit(event_loop.run(work(handed.path, handed.token, int(handed.content))))


async def work(path: str, token: str, owner: int) -> int:
    """Ask for work until there is none; die of the first range."""
    line = await SocketLine.connect(path, token)
    watching = asyncio.create_task(line.ask(Watch(owner)))  # which is answered only at the driver's end
    await line.ask(Join(owner))
    try:
        while True:
            claimed = await line.ask(Claim(owner))
            assert isinstance(claimed, Claimed)
            if claimed.is_over:
                return 0
            if claimed.ranges:
                sys.stdout.write("words that nobody reads" * 10_000)
                raise SystemExit(f"range {claimed.ranges[0].range} is too hard")
            await asyncio.sleep(claimed.ask_again_s)
    except LineClosedError:
        return 3
    finally:
        watching.cancel()
