"""Ranges: each has one owner at a time, and goes to another only when the first can't send any more."""

from cometbatch.control.coordination.claims import Claims
from cometbatch.control.coordination.messages import MARGIN, Assigned, Claim, Claimed, Commit
from tests.coordination.scene import Scene, busy, settings


def test_ranges_are_dealt_upwards_from_a_stretch_of_each_owners_own() -> None:
    """So that two owners do not read the whole input each."""
    scene = Scene(settings(), range(10))
    scene.join(1)
    scene.join(2)
    assert [scene.take(1), scene.take(2)] == [0, 5]
    assert [scene.take(1, 0), scene.take(2, 5)] == [1, 6]


def test_an_owner_without_work_takes_half_of_the_longest_stretch() -> None:
    """The upper half, so that each reads on from where it is."""
    scene = Scene(settings(), range(8))
    scene.join(1)
    scene.join(2)
    assert scene.take(2) == 0
    last, taken = -1, list[int]()
    for _ in range(7):
        last = scene.take(1, last)
        taken.append(last)
    assert taken == [4, 5, 6, 7, 2, 3, 1]
    assert scene.claim(1, 1).ranges == ()
    assert not scene.claim(1, 1).is_over


def test_a_claim_that_is_asked_again_gets_what_its_lost_answer_gave() -> None:
    """Else a range would be nobody's for ever."""
    scene = Scene(settings())
    scene.join(1)
    assert scene.take(1) == scene.take(1) == 0


def test_a_range_is_given_away_only_when_its_owners_lease_has_ended() -> None:
    """A process that is said to have ended may still send, for as long as its lease lasts."""
    scene = Scene(settings(), range(1))
    scene.join(1)
    scene.join(2)
    assert scene.take(1) == 0
    scene.drive(gone=(1,))
    scene.wait(0.5)
    scene.renew(2)
    scene.wait(MARGIN - 0.51)
    assert scene.claim(2).ranges == ()
    scene.wait(0.1)
    (assigned,) = scene.claim(2).ranges
    assert (assigned.range, assigned.earlier) == (0, (1,))


def test_an_owner_that_was_given_up_is_refused_for_ever() -> None:
    """Whatever it asks for: its ranges are another's."""
    scene = Scene(settings(), range(1))
    scene.join(1)
    scene.take(1)
    scene.wait(2)
    scene.join(2)
    scene.take(2)
    assert scene.renew(1).is_lost
    assert scene.claim(1).is_lost
    assert not scene.say(Commit(1, 0, 0))
    assert scene.say(Commit(2, 0, 0))
    assert scene.watch(1).is_lost


def test_an_owner_whose_lease_has_ended_goes_on_where_nobody_took_its_ranges() -> None:
    """A silence harms nobody by itself."""
    scene = Scene(settings(), range(1))
    scene.join(1)
    scene.take(1)
    scene.wait(5)
    assert scene.say(Commit(1, 0, 0))
    assert scene.renew(1).valid_s == 1.0


def test_nobodys_range_is_given_away_after_the_coordinator_stood_still() -> None:
    """Owners could not renew meanwhile, so their silence says nothing."""
    scene = Scene(settings(), range(1))
    scene.join(1)
    scene.join(2)
    scene.take(1)
    scene.stand_still(30)
    scene.drive()
    scene.renew(2)
    assert scene.claim(2).ranges == ()
    scene.wait(0.9)
    scene.renew(2)
    assert scene.claim(2).ranges == ()
    assert not scene.renew(1).is_lost


def test_the_session_is_over_when_all_is_closed_and_everybody_has_left() -> None:
    """Until then somebody may still write."""
    scene = Scene(settings(), range(2))
    scene.join(1)
    scene.take(1)
    scene.take(1, 0, closed=(0,))
    assert not scene.drive().is_over
    assert scene.claim(1, 1, closed=(1,)).is_over
    assert not scene.drive().is_over
    scene.leave(1)
    assert scene.drive().is_over


def test_who_leaves_frees_its_ranges_at_once() -> None:
    """Nothing of it is in flight, and all is synced."""
    scene = Scene(settings(), range(2))
    scene.join(1)
    scene.join(2)
    assert (scene.take(1), scene.take(1, 0)) == (0, 1)
    scene.leave(1, closed=(0,))
    (assigned,) = scene.claim(2).ranges
    assert (assigned.range, assigned.earlier) == (1, (1,))


def test_a_part_of_a_range_that_another_has_is_refused() -> None:
    """Whoever has it may be writing the same part."""
    scene = Scene(settings())
    scene.join(1)
    scene.join(2)
    assert not scene.say(Commit(2, scene.take(1), 0))
    assert scene.say(Commit(2, 99, 0))


def test_a_range_is_dealt_once_in_any_order() -> None:
    """Whatever stretches are left, and also where some were taken out of them."""
    claims = Claims([3, 5, 7, 11, 13], owners=1)
    assert claims.give(9, 7).range == 7
    assert claims.give(9, 17).range == 17  # that is not due any more
    dealt = [claims.claim(1, -1), claims.claim(2, -1), claims.claim(1, 3), claims.claim(2, 5)]
    assert sorted(each.range for each in dealt if each is not None) == [3, 5, 11, 13]
    assert claims.claim(1, 13) is None
    assert not claims.has_free


def test_nothing_is_left_to_do_where_no_range_is_due() -> None:
    """All owners may go home."""
    scene = Scene(settings(), [])
    scene.join(1)
    assert scene.claim(1).is_over


def test_owners_that_all_have_nothing_to_send_are_told_that_it_is_over() -> None:
    """They may hold ranges whose calls wait for a word that nobody will say; who has something to send may say it."""
    scene = Scene(settings(), range(1))
    scene.join(1)
    scene.join(2)
    scene.take(1)
    scene.renew(1, busy(waiting=1))
    assert not scene.claim(1, 0).is_over
    assert not scene.claim(2).is_over
    scene.renew(2, busy(waiting=0))
    assert not scene.claim(2).is_over
    scene.renew(1, busy(waiting=0))
    assert scene.claim(2).is_over


def test_an_owner_that_lacks_money_gets_what_a_lost_one_had_and_nothing_else() -> None:
    """What it finds there may bring money back; a range that nobody had would only wait with it."""
    scene = Scene(settings(), range(4))
    scene.join(1)
    scene.join(2)
    assert [scene.take(1), scene.take(2)] == [0, 2]
    assert scene.ask(Claim(2, 2, is_short=True)) == Claimed()
    scene.drive(gone=(1,))
    for _ in range(3):
        scene.wait(0.4)
        scene.renew(2)
    assert scene.ask(Claim(2, 2, is_short=True)) == Claimed((Assigned(0, (1,)),))
