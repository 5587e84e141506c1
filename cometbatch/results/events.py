"""The events of a log in JSON: which there are, what each holds, and how one becomes a line. Pure.

Laws: a line is one JSON object of `MAX_LINE_BYTES` at most, in ASCII; nothing in it is a cell, a prompt, an answer, a
service's own sentence or a key. Fields may be added; none changes its meaning.
"""

import itertools
import json
import math
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.errors import logged
from cometbatch.money.exact import format_amount
from cometbatch.records import KEY_SHAPE

Level: TypeAlias = Literal["info", "warning", "error"]

MAX_LINE_BYTES: Final = 16_000
"""Bytes of a line, its end included. Container runtimes split longer ones, at 16 KiB."""

BOUNDS: Final = ((2_000, 200), (200, 20), (40, 5))
"""Characters of a text, and items of a list or a mapping, at most: the first pair with which the line is short enough
counts. A line with anything left out has `cut`: true."""

COMMON: Final = {
    "ts": "when, in UTC: 2026-11-30T02:00:01.234Z",
    "level": "`info`, `warning` or `error`",
    "event": "one of the names below",
    "cut": "true where a text or a list of the line was too long and was cut; absent else",
}
"""The fields of every line."""


class Event(Struct, frozen=True):
    """One kind of event. `fields`: those beside `COMMON`, each with what its name does not say, or ""."""

    meaning: str
    fields: Mapping[str, str] = msgspec.field(default_factory=dict)
    level: Level = "info"


SUMMARY: Final = "keys of --json"
"""Stands for all keys of the summary among the fields of an event."""

EVENTS: Final[Mapping[str, Event]] = {
    "run_started": Event(
        "a session is about to send its first request",
        {
            "run_id": "",
            "session": "from 1",
            "output": "",
            "model": "with a matrix, that of its first cell",
            "rows": "",
            "done": "rows with an outcome of earlier sessions",
            "limit": "as of --limit",
            "budget_usd": "",
            "version": "",
            "cells": "with a matrix alone, as the next",
            "samples": "of each cell",
        },
    ),
    "progress": Event(
        "each 10 s",
        {
            "rows": "",
            "succeeded": "",
            "incomplete": "",
            "failed": "",
            "remaining": "",
            "cost_usd": "",
            "unpriced": "",
            "in_flight": "requests",
            "retries": "of this session",
            "rows_per_s": "of the last 10 s",
            "left_s": "seconds, at that rate",
            "waiting_for": "what holds back the next request",
        },
    ),
    "pace_changed": Event(
        "the run may send half as much again, or a third less, than at the last such event; each 10 s at most",
        {"window": "requests in flight at once", "per_s": "requests; null is no bound", "was": "both, before"},
    ),
    "rate_limited": Event(
        "the service asked to slow down; each 10 s at most",
        {"times": "since the last such event", "wait_s": "the longest wait of all rows; 0: the rate falls instead"},
        "warning",
    ),
    "outage_began": Event(
        "nothing was answered for 2 s, although requests failed or hung", {"unanswered_s": "so far"}, "warning"
    ),
    "outage_ended": Event("requests are answered again", {"unanswered_s": "seconds without an answer"}),
    "part_committed": Event(
        "a part of the result is on the disk",
        {
            "partition": "",
            "first_row": "",
            "rows": "",
            "cell": "with a matrix alone, as the next",
            "sample": "",
        },
    ),
    "row_failed": Event(
        "a row failed for good: the first 5 of each kind in a session",
        {
            "row": "of the input, from 0",
            "cell": "with a matrix alone, as the next: the labels of its cell",
            "sample": "from 0",
            "kind": "as in `error_kind`",
            "status": "of HTTP",
            "code": "the service's",
            "request_id": "the service's",
            "attempts": "",
        },
        "warning",
    ),
    "rows_failed": Event(
        "further rows failed for good, of a kind of which 5 were told one by one; each 10 s at most",
        {"kind": "", "rows": "since the last such event", "total": "of the kind in this session"},
        "warning",
    ),
    "budget_near": Event(
        "80 % of the budget are spent; once a session",
        {"spent_usd": "possible charges included", "budget_usd": ""},
        "warning",
    ),
    "warning": Event(
        "what whoever pays should know; or a warning of Python or of a library, which has the last three fields",
        {"message": "", "type": "", "where": "places in the code", "logger": ""},
        "warning",
    ),
    "note": Event("what else a person would be told", {"message": ""}),
    "error": Event(
        "the command ends with an error; an unexpected one has the last two fields",
        {"message": "", "exit_code": "", "type": "", "where": "places in the code"},
        "error",
    ),
    "run_stopped": Event(
        "the run stopped before its last row and can be resumed; a warning where a signal stopped it",
        {
            "reason": "budget, refused, interrupted, terminated or hung_up",
            "fix": "what has to be mended, in a word",
            "message": "",
            "exit_code": "",
            "budget_to_finish_usd": "",
            SUMMARY: "",
        },
        "error",
    ),
    "run_finished": Event(
        "the run came to its end; a warning where more rows than accepted have no whole answer",
        {"exit_code": "", SUMMARY: ""},
    ),
}
"""Each kind of event by its name."""


def event_of(name: str, moment: datetime, fields: Mapping[str, Any], level: Level | None = None) -> dict[str, Any]:
    """An event with its fields. Words that quote something stand in it without the quote. `level`: if not the usual."""
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
    head = {"ts": stamp, "level": level or EVENTS[name].level, "event": name}
    return head | {key: _plain(value) for key, value in fields.items()}


def line_of(event: Mapping[str, Any]) -> bytes:
    """The line of an event, with its end, however much its fields hold."""
    for characters, items in BOUNDS:
        bounded = _bounded(event, characters, items)
        line = json.dumps(bounded if bounded == event else bounded | {"cut": True}).encode() + b"\n"
        if len(line) <= MAX_LINE_BYTES:
            return line
    kept = {name: value for name, value in bounded.items() if name in COMMON}
    return json.dumps(kept | {"cut": True}).encode() + b"\n"


def _plain(value: object) -> Any:
    """The value as JSON has it, with amounts of money as texts."""
    if isinstance(value, bool | int | None) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    text = format_amount(value) if isinstance(value, Decimal) else logged(value)
    return KEY_SHAPE.sub("sk-...", text).encode("utf-8", "backslashreplace").decode()


def _bounded(value: Any, characters: int, items: int) -> Any:
    """The value with texts and lists of this length at most."""
    if isinstance(value, str):
        return value if len(value) <= characters else value[:characters] + "…"
    if isinstance(value, Mapping):
        some = itertools.islice(value.items(), items)
        return {_bounded(key, characters, items): _bounded(inner, characters, items) for key, inner in some}
    if isinstance(value, list):
        return [_bounded(inner, characters, items) for inner in value[:items]]
    return value
