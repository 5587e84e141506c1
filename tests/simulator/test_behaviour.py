import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.simulator import FAULTS, Behaviour, Fault, parse_fault, parse_latency
from cometbatch.simulator.behaviour import (
    FAULT_KINDS,
    LONG_TAIL_S,
    MAX_LATENCY_S,
    latency_s,
    long_tail_s,
    number,
    request_digest,
    strike,
    unit,
)

DIGESTS = st.binary(min_size=16, max_size=16)
SHARES = st.floats(0, 1)
BY_ATTEMPT = [kind.name for kind in FAULT_KINDS if kind.strikes == "attempt"]
BY_REQUEST = [kind.name for kind in FAULT_KINDS if kind.strikes != "attempt"]
moderate = settings(max_examples=60, deadline=None)


@st.composite
def behaviours(draw: st.DrawFn) -> Behaviour:
    """Any behaviour that a user can ask for."""
    bounds = sorted(draw(st.tuples(st.floats(0, MAX_LATENCY_S), st.floats(0, MAX_LATENCY_S))))
    return Behaviour(
        seed=draw(st.integers()),
        latency_s=(bounds[0], bounds[1]),
        rps=draw(st.none() | st.floats(1e-6, 1e6)),
        faults=tuple(draw(st.lists(st.builds(Fault, st.sampled_from(sorted(FAULTS)), SHARES), max_size=4))),
        retry_after=draw(st.booleans()),
        credit_usd=draw(st.none() | st.decimals(0, 10**6, places=6)),
        quirks=draw(st.booleans()),
        catalog=draw(st.sampled_from(["full", "ratio", "endpoints-null"])),
        model=draw(st.none() | st.sampled_from(["your-model-id", "vendor/model=2"])),
    )


def of_options(options: list[str]) -> Behaviour:
    """What the command line makes of the options."""
    given_options = [option.partition("=")[::2] for option in options]
    values = dict(given_options)
    return Behaviour(
        seed=int(values["--seed"]),
        latency_s=parse_latency(values["--latency"]),
        rps=float(values["--rps"]) if "--rps" in values else None,
        faults=tuple(parse_fault(value) for name, value in given_options if name == "--fault"),
        retry_after="--retry-after" in values,
        credit_usd=Decimal(values["--credit"]) if "--credit" in values else None,
        quirks="--no-quirks" not in values,
        catalog=values.get("--catalog", "full"),
        model=values.get("--model"),
    )


@moderate
@given(behaviour=behaviours())
def test_options_say_the_whole_behaviour(behaviour: Behaviour) -> None:
    """A behaviour written as options and read back is the same, to the last digit."""
    assert of_options(behaviour.to_options()) == behaviour


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_can_be_asked_for_by_name(name: str) -> None:
    """NAME:SHARE is read for each name in the table, and the table says what the fault does and what it strikes."""
    assert parse_fault(f" {name}:0.25 ") == Fault(name, 0.25)
    assert FAULTS[name].endswith("]")
    assert len(FAULTS[name].splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("429", "429:0.05"),
        ("429:", "429:0.05"),
        ("429:5%", "429:0.05"),
        ("429:nan", "429:0.05"),
        ("429:-0.1", "429:0.05"),
        ("429:1.5", "from 0 to 1"),
        ("", "unknown fault"),
        (":0.1", "unknown fault"),
        ("lenght:0.1", "Did you mean length?"),
        ("refuse:0.1", "Did you mean refusal?"),
        ("418:0.1", "Known: bad-key, "),
        ("zzzz:0.1", "tool-calls"),
    ],
)
def test_a_fault_that_cannot_be_read_says_what_can(text: str, words: str) -> None:
    """A bad fault is a ValueError with the names, the nearest one, or the right form."""
    with pytest.raises(ValueError, match="fault") as caught:
        parse_fault(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [("2", (2.0, 2.0)), ("0", (0.0, 0.0)), ("0.5-1.5", (0.5, 1.5)), (" 1-120 ", (1.0, 120.0)), ("3-3", (3.0, 3.0))],
)
def test_latency_is_one_time_or_two(text: str, bounds: tuple[float, float]) -> None:
    """Seconds are given as one number or as a range."""
    assert parse_latency(text) == bounds


@pytest.mark.parametrize("text", ["", "fast", "-1", "2-1", "1-", "1-2-3", "1e3", "nan", "inf", "0-4000", "1,5", "٣"])
def test_a_latency_that_makes_no_sense_is_refused(text: str) -> None:
    """A bad latency is a ValueError that speaks of latency."""
    with pytest.raises(ValueError, match="latency"):
        parse_latency(text)


@pytest.mark.parametrize(
    "settings_",
    [
        {"latency_s": (-1.0, 2.0)},
        {"latency_s": (0.0, math.inf)},
        {"latency_s": (math.nan, math.nan)},
        {"rps": 0.0},
        {"rps": math.nan},
        {"rps": math.inf},
        {"credit_usd": Decimal(-1)},
        {"credit_usd": Decimal("NaN")},
        {"catalog": "nonesuch"},
    ],
    ids=str,
)
def test_a_behaviour_that_makes_no_sense_is_refused(settings_: dict[str, Any]) -> None:
    """Whoever builds a behaviour in code is held to the same rules as the command line."""
    with pytest.raises(ValueError, match=r"latency|second|credit|catalog"):
        Behaviour(**settings_)


@moderate
@given(digest=DIGESTS, attempt=st.integers(1, 50), name=st.sampled_from(sorted(FAULTS)))
def test_a_share_of_none_or_all_is_exact(digest: bytes, attempt: int, name: str) -> None:
    """A fault with share 0 never strikes and one with share 1 always does."""
    assert strike([Fault(name, 0.0)], digest, attempt) is None
    assert strike([Fault(name, 1.0)], digest, attempt) == name


@pytest.mark.parametrize("name", BY_REQUEST)
def test_what_is_wrong_with_a_request_stays_wrong(name: str) -> None:
    """A permanent fault gives every attempt of a request the same end."""
    for row in range(40):
        digest = request_digest(0, "/", bytes([row]))
        assert len({strike([Fault(name, 0.5)], digest, attempt) for attempt in range(1, 10)}) == 1


@pytest.mark.parametrize("name", BY_ATTEMPT)
def test_what_goes_wrong_on_the_way_passes(name: str) -> None:
    """A transient fault leaves every request an attempt that gets through."""
    for row in range(40):
        digest = request_digest(0, "/", bytes([row]))
        assert {strike([Fault(name, 0.5)], digest, attempt) for attempt in range(1, 30)} == {name, None}


@pytest.mark.parametrize("name", FAULTS)
def test_a_share_is_that_share_of_requests(name: str) -> None:
    """Over many requests a fault strikes about as many as it was told to."""
    digests = [request_digest(7, "/v1/chat/completions", str(row).encode()) for row in range(2000)]
    struck = sum(strike([Fault(name, 0.1)], digest, 1) is not None for digest in digests)
    assert 140 < struck < 260


@moderate
@given(digest=DIGESTS, attempt=st.integers(1, 9), share=SHARES, other=SHARES)
def test_adding_a_fault_moves_no_other(digest: bytes, attempt: int, share: float, other: float) -> None:
    """Each fault rolls for itself: one that struck still strikes, or gives way to the new one alone."""
    before = strike([Fault("429", share)], digest, attempt)
    after = strike([Fault("429", share), Fault("500", other)], digest, attempt)
    assert after in {before, "500"}
    assert after == "429" if before == "429" else after != "429"


def test_a_gateway_refuses_the_caller_before_it_stumbles_and_stumbles_before_it_reads() -> None:
    """Where several faults strike, the one that a real gateway would meet first is told."""
    digest = request_digest(0, "/", b"")
    faults = [Fault("length", 1.0), Fault("503", 1.0), Fault("credit", 1.0)]
    assert strike(faults, digest, 1) == "credit"
    assert strike(faults[:2], digest, 1) == "503"


@moderate
@given(digest=DIGESTS, attempt=st.integers(1, 9), behaviour=behaviours())
def test_waits_stay_within_their_bounds(digest: bytes, attempt: int, behaviour: Behaviour) -> None:
    """Latency lies between the two times given, and the long tail beyond 100 seconds."""
    shortest, longest = behaviour.latency_s
    assert shortest <= latency_s(behaviour, digest, attempt) <= longest
    assert LONG_TAIL_S[0] <= long_tail_s(digest, attempt) <= LONG_TAIL_S[1]


@moderate
@given(digest=DIGESTS, label=st.text(max_size=20), below=st.integers(1, 1 << 100))
def test_rolls_stay_within_their_bounds(digest: bytes, label: str, below: int) -> None:
    """A roll is below its bound, and the same again for the same digest and label."""
    assert 0 <= unit(digest, label) < 1
    assert 0 <= number(digest, label, below) < below
    assert number(digest, label, below) == number(digest, label, below)


@moderate
@given(seed=st.integers(), other=st.integers(), path=st.text(max_size=20), body=st.binary(max_size=40))
def test_seed_path_and_body_make_the_digest(seed: int, other: int, path: str, body: bytes) -> None:
    """Another seed or body is another request."""
    digest = request_digest(seed, path, body)
    assert (request_digest(other, path, body) == digest) == (other == seed)
    assert request_digest(seed, path, body + b"x") != digest
