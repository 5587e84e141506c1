"""The driver: it must be there for anything to be granted, and it is told how all goes."""

from cometbatch.control.coordination.messages import (
    DRIVER_S,
    MARGIN,
    ErrorWords,
    OwnerState,
    QueueReport,
    Report,
    fence_s,
    lease_s,
)
from cometbatch.records import Tally
from tests.coordination.scene import Scene, busy, settings, usd


def test_nothing_is_granted_without_the_driver() -> None:
    """Its owners must not outlive it."""
    scene = Scene(settings(requests_per_minute=6000.0, tokens_per_minute=6000.0, budget_usd=usd(1)))
    scene.join(1)
    granted = scene.renew(1, Report(wanted_usd=usd("0.5"))).money_usd
    scene.is_driven = False
    scene.wait(DRIVER_S - 0.01)
    assert scene.renew(1).valid_s == 1.0
    scene.wait(0.02)
    lease = scene.renew(1)
    assert (lease.valid_s, lease.requests_per_s, lease.tokens_per_s, lease.ceiling) == (0.0, 0.0, 0.0, 0)
    assert lease.money_usd is not None
    assert granted is not None
    assert lease.money_usd <= granted
    assert scene.claim(1).ranges == ()


def test_no_range_is_given_away_after_the_driver_was_silent() -> None:
    """Nobody could renew meanwhile."""
    scene = Scene(settings(), range(1))
    scene.join(1)
    scene.join(2)
    scene.take(1)
    scene.is_driven = False
    scene.wait(5)
    scene.is_driven = True
    scene.drive()
    scene.renew(2)
    assert scene.claim(2).ranges == ()
    assert not scene.renew(1).is_lost


def test_before_the_drivers_first_word_nothing_is_granted() -> None:
    """An owner may be there sooner."""
    scene = Scene(settings())
    late = Scene(settings())
    late.coordinator = type(scene.coordinator)(settings(), range(3), lambda one, _: one)
    assert late.join(1).valid_s == 0.0
    late.drive()
    assert late.renew(1).valid_s == 1.0


def test_the_driver_is_told_how_all_owners_go_on() -> None:
    """Sums include those that are gone; lists are told once."""
    scene = Scene(settings(), range(3))
    scene.join(1)
    scene.join(2)
    scene.take(1)
    scene.wait(0.3)
    first = Report(
        (QueueReport(0, in_flight=3),),
        recorded=Tally(succeeded=4),
        outcomes=(b"a", b"b"),
        retries=1,
        pushbacks=2,
        words=("Look.",),
        waiting_for="limit",
        largest_output_tokens=70,
        committed=(0,),
    )
    scene.renew(1, first)
    scene.leave(
        2, Report(recorded=Tally(succeeded=1), outcomes=(b"c",), retries=1), error=ErrorWords.of(ValueError("no"))
    )
    driven = scene.drive()
    assert driven.owners == (OwnerState(1, 0.0, False, False), OwnerState(2, 0.0, False, True))
    assert (driven.recorded.succeeded, driven.in_flight, driven.retries, driven.pushbacks) == (5, 3, 2, 2)
    assert (driven.outcomes, driven.words, driven.committed) == ((b"a", b"b", b"c"), ("Look.",), (0,))
    assert (driven.waiting_for, driven.largest_output_tokens) == ("limit", 70)
    assert driven.errors == (ErrorWords("ValueError", "no", "no"),)
    again = scene.drive(seen_outcomes=2)
    assert (again.outcomes, again.words, again.committed) == ((b"c",), (), ())
    assert again.recorded.succeeded == 5
    assert scene.drive(seen_outcomes=3).outcomes == ()


def test_a_wait_for_the_next_grant_is_no_wait_for_the_budget() -> None:
    """It is told only where the budget has no room."""
    scene = Scene(settings(budget_usd=usd(1)), range(1))
    scene.join(1)
    scene.renew(1, Report(wanted_usd=usd("0.5"), waiting_for="small: budget; large: rate limit"))
    assert scene.drive().waiting_for == "large: rate limit"
    scene.renew(1, Report(wanted_usd=usd("1.5"), waiting_for="budget"))
    assert scene.drive().waiting_for == "budget"


def test_silence_is_told() -> None:
    """So that the progress line can say who is."""
    scene = Scene(settings())
    scene.join(1)
    scene.wait(3)
    (state,) = scene.drive().owners
    assert 2.99 < state.silent_s < 3.01


def test_a_process_that_has_ended_goes_on_holding_its_ranges_until_its_lease_ends() -> None:
    """And others take them before further work of their own."""
    scene = Scene(settings(), range(10))
    scene.join(1)
    scene.take(1)
    scene.drive(gone=(1,))
    scene.wait(0.9)
    scene.join(2)
    assert scene.take(2) == 5
    scene.wait(0.3)
    assert scene.claim(2, 5).ranges[0].earlier == (1,)


def test_a_silent_owner_keeps_its_ranges_for_a_while_where_there_is_other_work() -> None:
    """It may only be slow."""
    scene = Scene(settings(), range(10))
    scene.join(1)
    scene.take(1)
    scene.wait(1.5)
    scene.join(2)
    assert scene.take(2) == 5
    scene.wait(0.9)
    scene.renew(2)
    assert scene.take(2, 5) == 6
    scene.wait(0.8)
    scene.renew(2)
    assert scene.claim(2, 6).ranges[0].earlier == (1,)
    scene.renew(2, busy())


def test_a_silent_owner_without_a_range_is_lost_after_a_while() -> None:
    """Nobody waits for it."""
    scene = Scene(settings(), range(1))
    scene.join(1)
    scene.wait(10)
    assert not scene.drive().owners[0].is_lost
    scene.wait(1.2)
    assert scene.drive().owners[0].is_lost


def test_an_owner_that_has_no_lease_gets_no_work() -> None:
    """It would lose it at once."""
    scene = Scene(settings())
    scene.join(1)
    scene.wait(1.2)
    assert scene.claim(1).ranges == ()
    scene.renew(1)
    assert len(scene.claim(1).ranges) == 1


def test_who_is_lost_tells_an_error_all_the_same() -> None:
    """It may be why it was silent."""
    scene = Scene(settings(), range(1))
    scene.join(1)
    scene.take(1)
    scene.wait(2)
    scene.join(2)
    scene.take(2)
    assert not scene.leave(1, error=ErrorWords.of(OSError("the disk is full")))
    assert scene.drive().errors == (ErrorWords.of(OSError("the disk is full")),)


def test_the_fence_is_longer_than_all_that_was_granted() -> None:
    """From the driver's last word to the end of the last lease that was given out by then."""
    for owners in (1, 16, 64):
        assert fence_s(owners) > DRIVER_S + MARGIN * lease_s(owners)
    assert fence_s(16) == 3.0
