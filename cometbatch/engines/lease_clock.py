"""The clock that leases are counted on."""

import sys
import time


def lease_clock() -> float:
    """Seconds since some moment, the time in which the machine is suspended included where the system tells it.

    A lease must not outlive a machine's sleep: on Linux `CLOCK_BOOTTIME` counts it; elsewhere the monotonic clock has
    to do.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()
