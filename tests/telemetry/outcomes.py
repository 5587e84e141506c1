"""Outcomes for tests of the telemetry, of all kinds."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import get_args

from hypothesis import strategies as st

from cometbatch.records import Answered, Completion, Failed, Failure, FailureKind, Outcome, Usage
from cometbatch.telemetry.attributes import Asked

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)
ASKED = Asked(("chat",) * 3, ("large", "small", "large"), "api.example.com", 443)  # two targets of one model
SECRET = "the words of a prompt"
TOKENS = st.none() | st.integers(0, 10**9)


def answered(row: int = 0, **changes: object) -> Answered:
    """A row that was answered."""
    usual: dict[str, object] = {
        "ordinal": row,
        "status": "succeeded",
        "custom_id": SECRET,
        "attempts": 1,
        "latency_s": 0.5,
        "finished_at": NOON,
        "request_hash": "0" * 64,
        "http_status": 200,
        "request_id": "req-1",
        "completion": completion(),
        "cost_usd": Decimal("0.000123"),
    }
    return Answered(**{**usual, **changes})  # type: ignore[arg-type]


def completion(model: str | None = "large-2026", usage: Usage = Usage(30, 4)) -> Completion:  # noqa: B008 - frozen
    """What a model said."""
    return Completion(SECRET, "stop", usage, "id-1", model, detail=SECRET, raw=SECRET, reasoning=SECRET)


def failed(row: int = 0, **changes: object) -> Failed:
    """A row without an answer."""
    usual: dict[str, object] = {
        "ordinal": row,
        "custom_id": SECRET,
        "attempts": 5,
        "latency_s": 2.0,
        "finished_at": NOON,
        "request_hash": "0" * 64,
        "failure": Failure("rate_limited", SECRET, 429, code=SECRET, request_id="req-2"),
    }
    return Failed(**{**usual, **changes})  # type: ignore[arg-type]


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    """Any outcome: answered, reused, failed after requests or before one, with and without counts and costs."""
    usage = Usage(*draw(st.tuples(TOKENS, TOKENS, TOKENS, TOKENS, TOKENS)))
    cost = draw(st.none() | st.decimals(0, 10**6, places=18))
    target = draw(st.integers(0, len(ASKED.models) - 1))
    latency = draw(st.floats(0, 500))
    if draw(st.booleans()):
        return answered(
            status=draw(st.sampled_from(("succeeded", "incomplete"))),
            attempts=draw(st.integers(0, 3)),
            latency_s=latency,
            completion=completion(draw(st.none() | st.sampled_from(("a", "b", SECRET))), usage),
            cost_usd=cost,
            target=target,
        )
    attempts, asks = draw(st.integers(0, 5)), draw(st.integers(1, 3))
    return failed(
        attempts=attempts,
        latency_s=latency if attempts else None,
        failure=Failure(draw(st.sampled_from(get_args(FailureKind))), SECRET),
        asks=asks,
        usage=usage if asks > 1 and attempts else Usage(),
        cost_usd=cost if asks > 1 and attempts else None,
        target=target,
        finished_at=NOON + timedelta(seconds=draw(st.integers(0, 3))),
    )
