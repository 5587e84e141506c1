"""How many requests may be in flight with the files that this process may open: each connection takes one.

Told before a run. During it, rows would fail one after the other, for a reason that lies in none of them.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from cometbatch.errors import UsageError
from cometbatch.run_state.partition import ROWS_PER_SLOT
from cometbatch.run_state.queue_calls import OPEN_PARTITIONS
from cometbatch.transport import raise_open_files

OPEN_FILES = Path("/dev/fd")
OPEN_IN_SESSION = 24  # files that are open before the first request, and not all yet when `plan` counts them
SPARE_FILES = 32  # beside what is open before, connections and journals: input, parts, marks, pipes, look-ups of names
RESTING_SHARE = 8  # one connection more for each so many requests in flight: connections rest between two requests
WAYS_TO_RAISE = "ulimit -Hn as root, LimitNOFILE= of a systemd unit, --ulimit nofile= of a container"


def files_for(concurrency: int, partition_rows: int, queues: int = 1) -> int:
    """How many files a run opens at most with this many requests in flight, beside those that are open before.

    `queues`: how many models it asks.
    """
    return _connections(concurrency) + _journals(concurrency, partition_rows, queues) + SPARE_FILES


def fit(concurrency: int, partition_rows: int, queues: int = 1, *, workers: int = 1) -> tuple[int, int, str]:
    """As much of `limits.concurrency` as there are files for, the most connections, and a warning or "".

    `workers`: how many processes send; `concurrency` and what is returned are of each of them.

    Raises `UsageError` where there are too few files for a single request in flight. Files that other runs of this
    process may still open are not there for this one.
    """
    limit, opened = raise_open_files(), max(_open_now(), _others.before + sum(_others.promised))
    most = concurrency
    while most and opened + files_for(most, partition_rows, queues) > limit:
        most -= 1
    needed = opened + files_for(concurrency, partition_rows, queues)
    words = f"this process may open {limit:,} files, and limits.concurrency: {concurrency} needs {needed:,}"
    if workers > 1:
        share = f"its share of limits.concurrency ({concurrency:,} requests)"
        words = f"each of the {workers} workers may open {limit:,} files, and {share} needs {needed:,}"
    if not most:
        least = opened + files_for(1, partition_rows, queues)
        raise UsageError(f"{words}; a run needs at least {least:,}. Raise the limit ({WAYS_TO_RAISE}).")
    connections = limit - opened - SPARE_FILES - _journals(most, partition_rows, queues)
    lowered = (
        f"{words}: at most {most * workers:,} requests will be in flight. Raise the limit ({WAYS_TO_RAISE}), or set a "
        "lower limits.concurrency."
        if most < concurrency
        else ""
    )
    return most, connections, lowered


class _Others:
    """What the runs that go on in this process may open: `promised`, beside those that were open `before` them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.before = 0
        self.promised: list[int] = []


_others = _Others()


@contextlib.contextmanager
def fitted(
    concurrency: int, partition_rows: int, queues: int = 1, *, workers: int = 1
) -> Iterator[tuple[int, int, str]]:
    """The same as `fit`, while a run goes on: other runs of this process that begin meanwhile leave it its files."""
    with _others.lock:
        if not _others.promised:
            _others.before = _open_now()
        found = fit(concurrency, partition_rows, queues, workers=workers)
        mine = files_for(found[0], partition_rows, queues)
        _others.promised.append(mine)
    try:
        yield found
    finally:
        with _others.lock:
            _others.promised.remove(mine)
            if not _others.promised:
                _others.before = 0


def _connections(concurrency: int) -> int:
    return concurrency + -(-concurrency // RESTING_SHARE)


def _journals(concurrency: int, partition_rows: int, queues: int) -> int:
    """Each open range has a file: enough of them are open to hold some rows for each request in flight.

    Queues may be in different ranges, each of which is read by itself then.
    """
    each = max(OPEN_PARTITIONS, -(-concurrency * ROWS_PER_SLOT // partition_rows))
    return each * queues + queues


def _open_now() -> int:
    """How many files a session has open in this process, by the folder that Linux and macOS have for it."""
    with contextlib.suppress(OSError):
        return max(OPEN_IN_SESSION, sum(1 for _ in OPEN_FILES.iterdir()))
    return OPEN_IN_SESSION
