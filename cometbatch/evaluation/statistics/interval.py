"""An interval, for those who show one and for those who make one."""

from msgspec import Struct


class Interval(Struct, frozen=True):
    """From `low` to `high`."""

    low: float
    high: float
