"""A coordinator that takes the place of one that died: it grants nothing at first, and knows what was promised."""

import msgspec

from cometbatch.control.coordination.messages import (
    MARGIN,
    Claim,
    Claimed,
    Commit,
    Found,
    Lease,
    Pushback,
    QueueReport,
    Renew,
    Report,
    StopOrder,
    StopWords,
)
from tests.coordination.scene import Scene, settings, usd

MONEY = settings(budget_usd=usd(10))
STOP = StopOrder(StopWords("refused", "no"))


def restarted(scene: Scene, *, lines: list[bytes] | None = None) -> Scene:
    """Another coordinator, with what the first one wrote down, and its owners with what they had."""
    again = Scene(scene.setting, scene.ranges, scene.lines if lines is None else lines)
    again.leases, again._renewals = scene.leases, scene._renewals
    return again


def test_nothing_is_granted_until_all_earlier_leases_have_ended() -> None:
    """Else two coordinators' shares would be used at the same time."""
    scene = Scene(MONEY)
    scene.join(1)
    again = restarted(scene)
    assert again.renew(1).valid_s == 0.0
    assert again.claim(1).ranges == ()
    again.wait(MARGIN - 0.01)
    assert again.renew(1).valid_s == 0.0
    again.wait(0.02)
    assert again.renew(1).valid_s == 1.0


def test_leases_have_higher_numbers_than_the_earlier_ones() -> None:
    """So an owner takes them for newer."""
    scene = Scene(MONEY)
    number = scene.join(1).number
    for _ in range(3):
        scene = restarted(scene)
        assert scene.renew(1).number > number
        number = scene.leases[1].number


def test_ranges_stay_whose_they_were() -> None:
    """Closed ones stay closed, freed ones free with who had them, and an answer that was lost is given again."""
    scene = Scene(settings(owners=1), range(6))
    scene.join(1)
    scene.join(2)
    scene.take(1)
    scene.take(1, 0, closed=(0,))
    assert scene.take(2) == 4
    scene.leave(2)
    again = restarted(scene)
    again.wait(1.2)
    again.renew(1)
    assert again.claim(1, 0).ranges[0].range == 1
    (assigned,) = again.claim(1, 1).ranges
    assert (assigned.range, assigned.earlier) == (4, (2,))
    assert [again.take(1, 4), again.take(1, 2), again.take(1, 3)] == [2, 3, 5]
    assert again.claim(1, 5).ranges == ()
    assert again.claim(1, 5, closed=(1, 2, 3, 4, 5)).is_over


def test_no_range_of_a_silent_owner_is_given_away_before_it_could_speak() -> None:
    """It had no chance to renew while nothing was granted."""
    scene = Scene(settings(), range(1))
    scene.join(1)
    scene.join(2)
    scene.take(1)
    again = restarted(scene)
    again.wait(1.1)
    again.renew(2)
    assert again.claim(2).ranges == ()
    assert not again.renew(1).is_lost


def test_who_was_lost_stays_lost() -> None:
    """And so does who has left."""
    scene = Scene(settings(), range(2))
    scene.join(1)
    scene.take(1)
    scene.wait(4)
    scene.join(2)
    scene.take(2)
    scene.leave(2)
    again = restarted(scene)
    assert again.renew(1).is_lost
    assert again.renew(2).is_lost


def test_what_was_granted_and_spent_is_known() -> None:
    """Nothing of it is granted twice, and what lost owners did not spend comes back as before."""
    scene = Scene(MONEY, range(2))
    scene.join(1)
    scene.take(1)
    scene.take(1, 0)
    scene.renew(1, Report(wanted_usd=usd(6)))
    scene.say(Commit(1, 0, 0, usd("0.5")))
    scene.renew(1, closed=(0,))
    scene.join(2)
    scene.renew(2, Report(wanted_usd=usd(3)))
    scene.leave(2, Report(spent_usd=usd(1)))
    again = restarted(scene)
    assert again.drive().spent_usd == 1
    again.wait(3)
    again.join(3)
    assert again.renew(3, Report(wanted_usd=usd(5))).money_usd == 0
    again.take(3)
    assert again.drive().spent_usd == 7
    again.say(Found(3, 1, 1, usd("0.25")))
    again = restarted(scene, lines=[*scene.lines, *again.lines])
    assert again.drive().spent_usd == usd("1.75")


def test_stops_stand() -> None:
    """Whoever gave them; and one of a model makes what lost owners spent unknown."""
    scene = Scene(MONEY, range(1))
    scene.join(1)
    scene.take(1)
    scene.renew(1, Report(wanted_usd=usd(6)))
    scene.drive(stops=(STOP, StopOrder(STOP.words, queue=0)))
    scene.join(1)
    again = restarted(scene)
    assert again.renew(1).stops == (STOP, StopOrder(STOP.words, queue=0))
    again.say(Pushback(1, 0, 1.0))


def test_without_what_was_written_a_range_is_given_again_and_has_one_part() -> None:
    """Who had it before may go on sending elsewhere, but not commit what is another's by now."""
    scene = Scene(settings(owners=2), range(2))
    assert [(scene.join(owner), scene.take(owner))[1] for owner in (1, 2)] == [0, 1]
    again = restarted(scene, lines=[])
    again.renew(1)
    again.wait(1.2)
    again.renew(1)
    assert [again.take(1), again.take(1, 0)] == [0, 1]
    assert again.leases[1].number > scene.leases[2].number
    assert not again.renew(2).is_lost
    assert not again.say(Commit(2, 1, 1))


def test_a_line_that_was_cut_short_was_never_told() -> None:
    """It is left out, as are empty ones."""
    scene = Scene(settings(owners=1), range(3))
    scene.join(1)
    scene.take(1)
    again = restarted(scene, lines=[b"", *scene.lines[:-1], scene.lines[-1][:-8]])
    again.wait(1.2)
    reply = again.ask(Renew(1, 99, 0))
    assert isinstance(reply, Lease)
    assert not reply.is_lost
    assert again.ask(Claim(1, -1)) == Claimed(again.claim(1).ranges)
    assert again.claim(1).ranges[0].range == 0


def test_what_was_sent_before_says_nothing_of_the_rate() -> None:
    """Counts are sums since an owner began, and nobody knows when the requests were sent."""
    scene = Scene(settings(adaptive=True))
    scene.join(1)
    again = restarted(scene)
    again.wait(1.2)
    sent = QueueReport(0, sent=1000, refused=500, sending_per_s=300.0, waiting=5)
    again.renew(1, Report((sent,)))
    assert again.drive().per_s == (None,)
    again.wait(0.1)
    again.renew(1, Report((msgspec.structs.replace(sent, sent=1030, refused=515),)))
    (per_s,) = again.drive().per_s
    assert per_s is not None
    assert per_s <= 300
