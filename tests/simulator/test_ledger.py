from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import Usage
from cometbatch.simulator.gate import Gate
from cometbatch.simulator.ledger import Ledger

COST = Decimal("0.0000015")
EVENTS = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.sampled_from(["whole", "lost", "429", "cut"])))


def carry_out(ledger: Ledger, digest: bytes, event: str) -> None:
    """Let one thing happen to one request."""
    ledger.next_attempt(digest)
    match event:
        case "429":
            ledger.rejected(429)
        case "cut":
            ledger.cut_before_reply()
        case _:
            ledger.answered(digest, "m", Usage(10, 3), COST, whole=event == "whole")


@settings(max_examples=60, deadline=None)
@given(events=EVENTS)
def test_the_ledger_counts_each_thing_once(events: list[tuple[bytes, str]]) -> None:
    """Whatever happens, the ledger agrees with a plain recount of it."""
    ledger = Ledger()
    for digest, event in events:
        carry_out(ledger, digest, event)
    answered = [digest for digest, event in events if event in {"whole", "lost"}]
    whole = [digest for digest, event in events if event == "whole"]
    told = ledger.snapshot()
    assert told["requests"] == len(events)
    assert told["answered"] == len(answered)
    assert told["answers_lost"] == len(answered) - len(whole)
    assert told["answered_more_than_once"] == sum(answered.count(digest) > 1 for digest in set(answered))
    assert told["delivered_more_than_once"] == sum(whole.count(digest) > 1 for digest in set(whole))
    assert Decimal(str(told["cost_usd"])) == COST * len(answered)


def test_an_unpriced_answer_costs_nothing_and_is_counted() -> None:
    """Unknown is not free: what could not be priced is told beside the sum."""
    ledger = Ledger()
    ledger.answered(b"a", "m", Usage(10, 3), None, whole=True)
    ledger.answered(b"b", "m", Usage(None, None), COST, whole=True)
    models = ledger.snapshot()["models"]
    sums = {"answered": 2, "input_tokens": 10, "output_tokens": 3, "cost_usd": "0.0000015", "unpriced": 1}
    assert models == {"m": sums}


def test_attempts_are_counted_per_request() -> None:
    """Each request's attempts are numbered from 1."""
    ledger = Ledger()
    assert [ledger.next_attempt(digest) for digest in (b"a", b"b", b"a", b"a", b"b")] == [1, 1, 2, 3, 2]


def test_memory_is_bounded_and_the_least_recent_request_goes_first() -> None:
    """Beyond the bound the ledger forgets the request that it has not seen for longest, and no sums."""
    ledger = Ledger(max_remembered=2)
    for digest in (b"a", b"b", b"a", b"c"):
        carry_out(ledger, digest, "whole")
    assert ledger.next_attempt(b"a") == 3
    assert ledger.next_attempt(b"b") == 1
    assert len(ledger._seen) == 2
    assert ledger.snapshot()["answered"] == 4


def admitted(gate: Gate, clock: list[float], seconds: float) -> int:
    """How many requests pass if one comes every millisecond for so long."""
    passed = 0
    for _ in range(round(seconds * 1000)):
        passed += gate.admit()
        clock[0] += 0.001
    return passed


@pytest.mark.parametrize("rate", [0.5, 1, 7.5, 50])
def test_a_gate_admits_its_rate_and_a_seconds_worth_at_once(rate: float) -> None:
    """Over ten seconds pass ten seconds' worth and the first burst, give or take one."""
    clock = [5.0]
    gate = Gate(rate, lambda: clock[0])
    assert admitted(gate, clock, 10) == pytest.approx(10 * rate + max(1, rate), abs=1)


@pytest.mark.parametrize(("rate", "wait"), [(100, 1), (1, 1), (0.25, 4)])
def test_a_gate_says_how_long_to_wait(rate: float, wait: int) -> None:
    """After the wait that it names, the next request passes."""
    clock = [0.0]
    gate = Gate(rate, lambda: clock[0])
    while gate.admit():
        pass
    assert gate.retry_after_s() == wait
    clock[0] += wait
    assert gate.admit()
