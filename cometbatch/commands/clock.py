"""The wall clock, for people: what is recorded shows it, and nothing waits for it."""

import datetime as dt


def now() -> dt.datetime:
    """The time now, in UTC."""
    return dt.datetime.now(dt.UTC)
