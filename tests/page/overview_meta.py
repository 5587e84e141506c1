"""What a page says of its sources and of their rows, by hand: the first screen of results that nobody has to run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cometbatch.commands.watch_server import Answer
from cometbatch.reports.page.html import PageWriter, meta_text, page_frame

BEGIN_MS = 1_796_063_105_000  # 2026-11-30 18:25:05 UTC
HOSTILE = "</script><img src=x onerror=alert(1)>\u202egnp.exe\x00"
SHOWN_HOSTILE = "</script><img src=x onerror=alert(1)>\\u{202e}gnp.exe\\u{0}"

Meta = dict[str, Any]


def figures(**parts: Mapping[str, Any]) -> Meta:
    """The figures of one source. `parts`: what differs from a run of 100,000 rows with something of everything."""
    usual: dict[str, Meta] = {
        "outcomes": {"succeeded": 96_412, "incomplete": 1_288, "failed": 2_300, "remaining": 0},
        "cost": {
            "usd": "12.345678901",
            "unpriced": 12,
            "at_least": 3,
            "possible_usd": "0.000612",
            "possible_requests": 3,
            "possible_unknown": 1,
            "reused_rows": 1_200,
            "reused_saved_usd": "0.14159",
            "rejected_asks": 14,
            "rejected_usd": "0.00213",
            "replaced_rows": 5,
            "replaced_usd": "0.0009",
            "judge_usd": "0.25",
        },
        "tokens": {
            "input": 48_123_456,
            "output": 9_123_457,
            "cache_read": 12_000_001,
            "cache_write": 4_321,
            "reasoning": 1_500_002,
            "uncounted": 13,
        },
        "time": {
            "first_ms": BEGIN_MS,
            "last_ms": BEGIN_MS + 722_000,
            "latency_p50_s": 1.234,
            "latency_p95_s": 4.56,
            "attempts": 103_412,
        },
    }
    return {name: {**part, **parts.get(name, {})} for name, part in usual.items()}


def plain_cost(usd: str | None) -> Meta:
    """A cost with nothing beside it."""
    counts = dict.fromkeys(
        (
            "unpriced",
            "at_least",
            "possible_requests",
            "possible_unknown",
            "reused_rows",
            "rejected_asks",
            "replaced_rows",
        ),
        0,
    )
    amounts = dict.fromkeys(("possible_usd", "reused_saved_usd", "rejected_usd", "replaced_usd"), "0")
    return {**counts, **amounts, "usd": usd, "judge_usd": None}


def failure(kind: str, rows: int, status: str = "failed", **more: object) -> Meta:
    """One kind of failure."""
    usual = {
        "words": f"What {kind} means.",
        "example": {"file": 0, "ordinal": 17, "message": f"The message of {kind}."},
        "advice": "",
        "commands": [{"file": 0, "rows": rows, "command": f"cometbatch run job.yaml --retry {kind}"}],
    }
    return {"status": status, "kind": kind, "rows": rows, **usual, **more}


def series(
    succeeded: Sequence[int], step_s: float = 1.0, others: Sequence[int] = (), p50_s: Sequence[float | None] = ()
) -> Meta:
    """Steps of time; each row costs $0.001."""
    counts = list(others) or [0] * len(succeeded)
    medians = list(p50_s) or [1.5 if each else None for each in succeeded]
    return {
        "begin_ms": BEGIN_MS,
        "step_s": step_s,
        "succeeded": list(succeeded),
        "others": counts,
        "p50_s": medians,
        "p95_s": [None if each is None else 3 * each for each in medians],
        "cost_usd": [sum(succeeded[: at + 1]) / 1000 for at in range(len(succeeded))],
    }


def extremes(label: str = "ticket", file: int = 0) -> Meta:
    """Three rows in each list."""
    values = {"slowest": 42.5, "dearest": 0.0124, "longest": 4096}
    lists: Meta = {
        name: [{"file": file, "ordinal": 5 + at, "value": value / 2**at, "label": f"{label} {at}"} for at in range(3)]
        for name, value in values.items()
    }
    return {**lists, "length_unit": "tokens"}


def meta(
    *sources: Meta,
    failures: Sequence[Meta] = (),
    over_time: Meta | None = None,
    standing_out: Meta | None = None,
    names: Sequence[str] = (),
    words: str = "",
    notes: Sequence[str] = (),
) -> Meta:
    """What the page says of itself. `sources`: the figures of each."""
    described = [
        {
            "name": names[at] if names else f"out/answers-{at}.parquet",
            "run_id": "0123",
            "command": "cometbatch run job.yaml",
            "state": ("finished", "running", "stopped")[at % 3],
            "rows": sum(n or 0 for name, n in each["outcomes"].items() if name != "remaining"),
            "calls": sum(n or 0 for n in each["outcomes"].values()),
            "in_page": 0,
            "no_prompts": None,
            "notes": list(notes),
        }
        for at, each in enumerate(sources)
    ]
    nothing: Meta = {"slowest": [], "dearest": [], "longest": [], "length_unit": "tokens"}
    return {
        "version": 1,
        "program": "cometbatch 0.1.0",
        "made_at": "2026-11-30T19:00:00Z",
        "title": "answers.parquet",
        "watch": None,
        "sources": described,
        "selection": {"rows": 0, "of": 0, "limit": 100_000, "seed": 0, "parts": {}, "words": words},
        "columns": [],
        "frames": [],
        "overview": {
            "sources": list(sources),
            "failures": list(failures),
            "series": over_time,
            "extremes": standing_out or nothing,
        },
        "evaluation": None,
    }


def everything(sources: int = 1) -> Meta:
    """A first screen with something in each place; of several sources the further ones lack what can be lacking."""
    lacking = figures(
        outcomes={"incomplete": 0, "remaining": None},
        cost=plain_cost(None) | {"unpriced": 98_712},
        tokens={"input": None, "output": None, "cache_read": 0, "cache_write": 0, "reasoning": 0},
        time={"first_ms": None, "last_ms": None, "latency_p50_s": None, "latency_p95_s": None},
    )
    counts = [100 + 7 * (at % 13) if at < 50 or at > 60 else 0 for at in range(140)]
    return meta(
        *[figures(), *[lacking] * (sources - 1)],
        failures=[
            failure("rate_limited", 1_800, advice="Lower limits.requests_per_minute first."),
            failure("invalid_request", 500, command=None, advice=f"Read the message: {HOSTILE}", words=HOSTILE),
            failure("length", 1_288, "incomplete", example=None),
        ],
        over_time=series(counts, 5.0, others=[at % 5 for at in range(140)]),
        standing_out=extremes(HOSTILE, file=sources - 1),
        names=[HOSTILE, *[f"out/{'a-long-name-' * 6}{at}.parquet" for at in range(1, sources)]],
        words="The page holds 100,000 of 250,000 rows.",
        notes=[f"A note with {HOSTILE}"],
    )


def write_page(folder: Path, said: Meta) -> Path:
    """The page of this, without rows."""
    path = folder / "report.html"
    with PageWriter(path) as page:
        page.finish(said)
    return path


class WatchedPage:
    """A page without rows for a server of watched pages. Asked for news, it tells what `say` was given last."""

    def __init__(self, said: Meta) -> None:
        self._watch = {"every_ms": 20, "seldom_ms": 20, "generation": "g", "version": 0}
        self._said = {**said, "watch": self._watch}
        self._version = 0

    def say(self, said: Meta) -> None:
        """What the page is told from now on."""
        self._said, self._version = {**said, "watch": self._watch}, self._version + 1

    def page(self) -> Answer:
        """The page as it is first."""
        frame = page_frame("A run", is_watched=True)
        body = frame.head + meta_text(self._said) + frame.middle + frame.tail
        return Answer(body, "text/html; charset=utf-8", frame.policy)

    def data(self, _query: Mapping[str, str]) -> Answer:
        """What the page is told when it asks."""
        told = {"chunks": [], "meta": self._said, "version": self._version, "generation": "g"}
        return Answer(msgspec.json.encode({**told, "ended": False, "more": False}), "application/json")
