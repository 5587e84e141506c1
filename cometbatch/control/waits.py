"""How long to wait before another attempt: what the service asks for, or a backoff of our own. Pure."""

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

MAX_RETRY_AFTER_S: Final = 366 * 86_400.0
"""Seconds. A longer wait that a service asks for counts as this one, which no run waits for either."""

FIRST_BACKOFF_S: Final = 1.0
"""Seconds: the ceiling of the first wait. Each further failure doubles it (contract sheet, section 7.3)."""

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_NUMBER: Final = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{0,40})?")
_MAX_DATE_CHARS: Final = 64  # an HTTP date has 29


def backoff(failures: int, *, jitter: float, cap_s: float) -> float:
    """Seconds to wait after this many failures in a row (at least 1), with full jitter.

    `jitter` in [0, 1) picks a point below the ceiling, which is 1 s at first, doubles with each failure, and never
    passes `cap_s`. Spreading over the whole span keeps rows that failed together from coming back together.
    """
    doublings = min(failures - 1, 60)  # beyond that the cap has long decided: no overflow
    return jitter * min(cap_s, FIRST_BACKOFF_S * 2.0**doublings)


def retry_after_s(headers: dict[str, str], *, now: datetime) -> float | None:
    """The wait that a reply asks for, in seconds from 0 to `MAX_RETRY_AFTER_S`; None if it asks for none we can read.

    Reads `retry-after-ms`, then `retry-after` as seconds or as an HTTP date, taken relative to the reply's own Date
    where it has one (our clock may be wrong). The service documents neither (contract sheet, section 7.3).
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return _capped(milliseconds / 1000)
    asked = headers.get("retry-after", "")
    seconds = _number(asked)
    if seconds is None:
        until = _http_date(asked)
        seconds = None if until is None else (until - (_http_date(headers.get("date", "")) or now)).total_seconds()
    return None if seconds is None else _capped(seconds)


def describe_wait(seconds: float) -> str:
    """A wait in words, rounded up to what a person plans by: `40 s`, `12 min`, `5.5 hours`, `6.8 days`."""
    if seconds < _MINUTE_S:
        return f"{math.ceil(seconds)} s"
    if seconds < _HOUR_S:
        return f"{math.ceil(seconds / _MINUTE_S)} min"
    unit_s, unit = (_HOUR_S, "hour") if seconds < _DAY_S else (_DAY_S, "day")
    number = math.ceil(10 * seconds / unit_s) / 10
    return f"{number:g} {unit}" + ("" if number == 1 else "s")


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text := text.strip()) else None


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text[:_MAX_DATE_CHARS])
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _capped(seconds: float) -> float:
    return max(0.0, min(seconds, MAX_RETRY_AFTER_S))
