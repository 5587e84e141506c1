"""How many requests may be in flight with the files that this process may open: each connection takes one.

Told before a run. During it, rows would fail one after the other, for a reason that lies in none of them.
"""

import contextlib
from pathlib import Path

from cometbatch.errors import UsageError
from cometbatch.run_state.partition import OPEN_PARTITIONS, ROWS_PER_SLOT
from cometbatch.transport import raise_open_files

OPEN_FILES = Path("/dev/fd")
OPEN_IN_SESSION = 24  # files that are open before the first request, and not all yet when `plan` counts them
SPARE_FILES = 32  # beside what is open before, connections and journals: input, parts, marks, pipes, look-ups of names
RESTING_SHARE = 8  # one connection more for each so many requests in flight: connections rest between two requests
WAYS_TO_RAISE = "ulimit -Hn as root, LimitNOFILE= of a systemd unit, --ulimit nofile= of a container"


def files_for(concurrency: int, partition_rows: int) -> int:
    """How many files a run opens at most with this many requests in flight, beside those that are open before."""
    return _connections(concurrency) + _journals(concurrency, partition_rows) + SPARE_FILES


def fit(concurrency: int, partition_rows: int) -> tuple[int, int, str]:
    """As much of `limits.concurrency` as there are files for, the most connections, and a warning or "".

    Raises `UsageError` where there are too few files for a single request in flight.
    """
    limit, opened = raise_open_files(), _open_now()
    most = concurrency
    while most and opened + files_for(most, partition_rows) > limit:
        most -= 1
    needed = opened + files_for(concurrency, partition_rows)
    words = f"this process may open {limit:,} files, and limits.concurrency: {concurrency} needs {needed:,}"
    if not most:
        least = opened + files_for(1, partition_rows)
        raise UsageError(f"{words}; a run needs at least {least:,}. Raise the limit ({WAYS_TO_RAISE}).")
    connections = limit - opened - SPARE_FILES - _journals(most, partition_rows)
    lowered = (
        f"{words}: at most {most:,} requests will be in flight. Raise the limit ({WAYS_TO_RAISE}), or set a "
        "lower limits.concurrency."
        if most < concurrency
        else ""
    )
    return most, connections, lowered


def _connections(concurrency: int) -> int:
    return concurrency + -(-concurrency // RESTING_SHARE)


def _journals(concurrency: int, partition_rows: int) -> int:
    """Each open partition has a file: enough of them are open to hold some rows for each request in flight."""
    return max(OPEN_PARTITIONS, -(-concurrency * ROWS_PER_SLOT // partition_rows)) + 1


def _open_now() -> int:
    """How many files a session has open in this process, by the folder that Linux and macOS have for it."""
    with contextlib.suppress(OSError):
        return max(OPEN_IN_SESSION, sum(1 for _ in OPEN_FILES.iterdir()))
    return OPEN_IN_SESSION
