"""What an owner may send by its leases: never without one, never faster than its share, never in a new burst."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.control.coordination.messages import Lease
from cometbatch.limiting.leased import LeasedLimits

SHARES = st.one_of(st.just(0.0), st.floats(0.5, 400.0))
LEASES = st.lists(
    st.tuples(
        st.floats(0.0, 3.0),  # seconds until it comes
        st.floats(0.0, 0.5),  # seconds since it was asked for
        st.floats(0.2, 2.0),  # how long it lasts
        SHARES,
    ),
    min_size=1,
    max_size=8,
)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lease(number: int, **fields: object) -> Lease:
    """One that lasts a second."""
    return Lease(number, **{"valid_s": 1.0, **fields})  # type: ignore[arg-type] # the struct checks its fields


def sent_until(limits: LeasedLimits, clock: Clock, end: float, tokens: int = 1) -> list[float]:
    """When requests leave that are always there, as the runner asks for them."""
    times: list[float] = []
    while clock.now < end:
        if limits.take(tokens) is None:
            clock.now = min(end, clock.now + limits.wait_s)
        else:
            times.append(clock.now)
    return times


def most_in(times: list[float], window_s: float) -> int:
    """The most that left in any window of this length, its end excluded."""
    return max((sum(start <= at < start + window_s for at in times) for start in times), default=0)


@settings(max_examples=150, deadline=None)
@given(leases=LEASES, window_s=st.sampled_from([0.1, 0.5, 1.0, 3.0]))
def test_over_any_time_no_more_leaves_than_the_shares_and_one_burst(
    leases: list[tuple[float, float, float, float]], window_s: float
) -> None:
    """Whatever leases come: in each window at most what the shares of its moments come to, and one burst."""
    clock, times = Clock(), []
    limits = LeasedLimits(clock)
    spans: list[tuple[float, float, float]] = []  # from, to, share
    for number, (gap, age, valid_s, share) in enumerate(leases, 1):
        times += sent_until(limits, clock, clock.now + gap)
        asked_at, until = clock.now - age, clock.now - age + valid_s
        limits.grant(lease(number, valid_s=valid_s, requests_per_s=share), asked_at)
        spans = [(start, min(end, clock.now), each) for start, end, each in spans]
        spans.append((clock.now, max(clock.now, until), share))
    times += sent_until(limits, clock, clock.now + 3.0)
    for start in times:
        end = start + window_s
        allowed = sum(max(0.0, min(end, to) - max(start, since)) * share for since, to, share in spans)
        burst = max(max(1.0, share / 20) for since, to, share in spans if since < end and to > start)
        assert sum(start <= at < end for at in times) <= allowed + burst + 1e-6
    for at in times:
        assert any(since <= at < to for since, to, _ in spans), "sent without a lease"


def test_a_share_is_used_whole() -> None:
    """At 50 requests a second 50 leave in a second, once the first has waited for its place."""
    clock = Clock()
    limits = LeasedLimits(clock)
    limits.grant(lease(1, valid_s=10.0, requests_per_s=50.0), clock.now)
    assert 495 <= len(sent_until(limits, clock, clock.now + 10.0)) <= 500


def test_a_changed_share_opens_no_new_burst() -> None:
    """Leases that come ten times a second, now large, now small, let no more pass than their mean."""
    clock, times = Clock(), []
    limits = LeasedLimits(clock)
    for number in range(1, 101):
        limits.grant(lease(number, requests_per_s=(20.0, 200.0)[number % 2]), clock.now)
        times += sent_until(limits, clock, clock.now + 0.1)
    assert most_in(times, 1.0) <= 110 + 10


def test_without_a_lease_nothing_leaves_though_there_is_no_limit() -> None:
    """Before the first lease, and from its end on, counted from when it was asked for."""
    clock = Clock()
    limits = LeasedLimits(clock)
    assert limits.take(1) is None
    assert not limits.is_valid
    limits.grant(lease(1), clock.now - 0.4)
    assert limits.take(1) is not None
    assert limits.is_valid
    clock.now += 0.6
    assert limits.take(1) is None
    assert not limits.is_valid


def test_an_older_lease_changes_nothing_and_an_empty_one_ends_the_last() -> None:
    """Numbers tell which one counts; one of 0 s ends sending at once."""
    clock = Clock()
    limits = LeasedLimits(clock)
    assert limits.grant(lease(5), clock.now)
    assert not limits.grant(lease(4, valid_s=100.0), clock.now)
    assert limits.number == 5
    limits.grant(lease(6, valid_s=0.0), clock.now)
    assert limits.take(1) is None
    assert limits.number == 6


def test_after_the_end_no_lease_lets_anything_pass() -> None:
    """An owner that is lost, or whose driver is gone, sends nothing whatever comes."""
    clock = Clock()
    limits = LeasedLimits(clock)
    limits.grant(lease(1), clock.now)
    limits.end()
    assert not limits.grant(lease(2), clock.now)
    assert limits.take(1) is None


def test_turns_are_counted_over_all_leases() -> None:
    """Three turns in all: the third request leaves, the fourth has to wait for another lease, which is asked for."""
    clock, asked = Clock(), []
    limits = LeasedLimits(clock)
    limits.on_short = lambda: asked.append(clock.now)
    limits.grant(lease(1, turns=2), clock.now)
    assert [limits.take(1) is None for _ in range(3)] == [False, False, True]
    limits.grant(lease(2, turns=3), clock.now)
    assert [limits.take(1) is None for _ in range(2)] == [False, True]
    assert (len(asked), limits.sent) == (2, 3)


def test_a_share_of_nothing_waits_for_the_next_lease() -> None:
    """It is said that a lease is needed; with a share it goes on."""
    clock, asked = Clock(), []
    limits = LeasedLimits(clock)
    limits.on_short = lambda: asked.append(clock.now)
    limits.grant(lease(1, requests_per_s=0.0), clock.now)
    assert limits.take(1) is None
    assert (asked, limits.wait_s < math.inf) == ([clock.now], True)
    limits.grant(lease(2, requests_per_s=10.0), clock.now)
    assert len(sent_until(limits, clock, clock.now + 1.0)) >= 9


@settings(max_examples=60, deadline=None)
@given(tokens=st.integers(1, 3000), share=st.floats(20.0, 2000.0))
def test_tokens_keep_their_share_and_a_large_request_leaves_once_it_is_paid(tokens: int, share: float) -> None:
    """Over a minute: the share's tokens at most, beside one request that is larger than the burst."""
    clock = Clock()
    limits = LeasedLimits(clock)
    limits.grant(lease(1, valid_s=60.0, tokens_per_s=share), clock.now)
    times = sent_until(limits, clock, clock.now + 60.0, tokens)
    burst = max(1.0, share / 20)
    assert len(times) * tokens <= share * 60 + burst + tokens
    assert len(times) >= math.floor(share * 60 * 0.9 / tokens) - 1


def test_tokens_that_were_charged_too_little_are_paid_by_the_next_requests() -> None:
    """Answers that take ten times what was estimated: the rate is right after some of them."""
    clock, used = Clock(), 0
    limits = LeasedLimits(clock)
    limits.grant(lease(1, valid_s=1000.0, tokens_per_s=100.0), clock.now)
    start = clock.now
    while clock.now < start + 100.0:
        if (charge := limits.take(10)) is None:
            clock.now += limits.wait_s
        else:
            limits.settle(charge, 10, 100)
            used += 100
    assert used <= 100.0 * 100 + 500
    assert limits.counts_tokens


def test_without_a_limit_on_tokens_there_is_nothing_to_settle() -> None:
    """A charge of 0, and no debt."""
    clock = Clock()
    limits = LeasedLimits(clock)
    limits.grant(lease(1), clock.now)
    assert limits.take(100) == 0.0
    limits.settle(0.0, 100, 1000)
    assert not limits.counts_tokens
    assert limits.take(100) == 0.0
