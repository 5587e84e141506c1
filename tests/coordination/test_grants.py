"""Money: what owners have spent and may spend never passes the cap, whatever happens, and little is left at the end."""

import os
from decimal import Decimal
from typing import Any

import pytest

from cometbatch.control.coordination.grants import ACCOUNT_S
from cometbatch.control.coordination.messages import Commit, Drive, Found, Report, StopOrder, StopWords
from tests.coordination.owners import World
from tests.coordination.scene import Scene, settings, usd
from tests.coordination.spenders import WORST, Books, Spender

CAP = Decimal(3)
UNTIL_S = 5.0  # in which everything happens


def spend(
    seed: int, *, loss: float = 0.0, kills: int = 0, freezes: int = 0, restarts: int = 0, cap: Decimal = CAP
) -> tuple[World, Books]:
    """Eight owners spend until the run stops; who is killed is replaced."""
    world = World(settings(owners=8, concurrency=64, budget_usd=cap), seed, loss=loss, ranges=1000)
    books, chance = Books(world), world.random
    spenders = [Spender(world, books) for _ in range(8)]

    def replace() -> None:
        for each in list(spenders):
            if each.is_dead or each.is_lost:
                spenders.remove(each)
                spenders.append(Spender(world, books))
        if not world.coordinator.drive(Drive(), world.now).stops:
            world.later(0.3, replace)

    def check() -> None:
        assert books.billed <= cap
        assert sum((each.spent + each.reserved for each in spenders), Decimal(0)) <= cap
        at_work = [each.range for each in spenders if each.may_send and each.range is not None]
        assert len(set(at_work)) == len(at_work)

    for _ in range(kills):
        world.later(chance.uniform(0, UNTIL_S), lambda: setattr(chance.choice(spenders), "is_dead", True))
    for _ in range(freezes):
        world.later(chance.uniform(0, UNTIL_S), lambda: setattr(chance.choice(spenders), "frozen_until", world.now + 4))
    for _ in range(restarts):
        world.later(chance.uniform(0, UNTIL_S), lambda: world.restart(chance.uniform(0, 3)))
    replace()
    world.watched.append(check)
    world.run(60)
    return world, books


SCENES: dict[str, dict[str, Any]] = {
    "nothing happens": {},
    "owners are killed": {"kills": 5},
    "owners stand still, messages are lost": {"kills": 2, "freezes": 3, "loss": 0.1},
    "the coordinator is killed, too": {"kills": 2, "freezes": 2, "loss": 0.05, "restarts": 2},
}


@pytest.mark.parametrize("seed", range(int(os.environ.get("SEEDS", "2"))))
@pytest.mark.parametrize("scene", SCENES)
def test_the_cap_is_never_passed_and_little_is_left(scene: str, seed: int) -> None:
    """At the stop at most nine worst rows are left of what eight owners may spend, and no range has two owners."""
    world, _ = spend(seed, **SCENES[scene])
    (stop,) = world.coordinator.drive(Drive(), world.now).stops
    assert stop.words.kind == "budget"
    assert stop.words.next_usd == WORST
    assert stop.words.hint == "Raise budget.max_cost_usd to resume."
    grants = world.coordinator._grants
    assert grants is not None
    assert 0 <= grants.left <= 9 * WORST


def money(scene: Scene, owner: int, **said: object) -> tuple[Decimal | None, bool]:
    """What a renewal grants an owner, and whether it is short."""
    report = Report(**said)  # type: ignore[arg-type] # the test names fields
    granted = scene.renew(owner, report).money_usd
    assert granted is not None
    return granted, granted - report.spent_usd - report.reserved_usd < (report.wanted_usd or 0)


def test_without_a_budget_nothing_is_granted() -> None:
    """And what was spent is not counted here."""
    scene = Scene(settings())
    assert scene.join(1).money_usd is None
    assert scene.drive().spent_usd is None
    assert scene.say(Commit(1, scene.take(1), 0, usd(1)))
    assert scene.say(Found(1, 0, 2, usd(1)))
    assert scene.leave(1)


def test_a_grant_is_two_seconds_of_spending_and_a_row_at_least() -> None:
    """So that owners seldom ask, and no money lies idle."""
    scene = Scene(settings(budget_usd=usd(100)))
    assert scene.join(1).money_usd == 0
    assert money(scene, 1, wanted_usd=usd("0.5")) == (usd("0.5"), False)
    scene.wait(1)
    granted, _ = money(scene, 1, spent_usd=usd(1), reserved_usd=usd("0.5"), is_money_in_flight=True)
    assert granted == pytest.approx(usd("3.5"))
    scene.wait(1)
    assert money(scene, 1, spent_usd=usd("1.5")) == (granted, False)  # twice what it needs is not taken back
    scene.wait(1)
    assert money(scene, 1, spent_usd=usd("1.5")) == (usd("1.5"), False)


def test_what_an_owner_gives_back_is_another_s_once_it_says_so() -> None:
    """Until it has its newer lease, it may spend by the older one."""
    scene = Scene(settings(budget_usd=usd(1)))
    scene.join(1)
    scene.join(2)
    assert money(scene, 1, wanted_usd=usd("0.8")) == (usd("0.8"), False)
    assert money(scene, 2, wanted_usd=usd("0.4")) == (usd(0), True)
    assert money(scene, 1) == (usd(0), False)
    assert money(scene, 2, wanted_usd=usd("0.4")) == (usd(0), True)
    assert scene.leases[2].ask_again_s <= 0.1
    money(scene, 1)
    assert money(scene, 2, wanted_usd=usd("0.4")) == (usd("0.4"), False)


def test_a_smaller_grant_counts_with_what_was_taken_meanwhile() -> None:
    """An owner may have set money aside before it heard of it."""
    scene = Scene(settings(budget_usd=usd(1)))
    scene.join(1)
    scene.join(2)
    money(scene, 1, wanted_usd=usd("0.8"))
    money(scene, 2, wanted_usd=usd("0.4"))
    assert money(scene, 1) == (usd(0), False)
    assert money(scene, 1, reserved_usd=usd("0.7"), is_money_in_flight=True) == (usd("0.7"), False)
    assert money(scene, 2, wanted_usd=usd("0.4")) == (usd(0), True)
    assert scene.drive().stops == ()


def test_a_lost_owners_grant_is_spent_until_its_ranges_are_accounted_for() -> None:
    """By who takes them, and by the parts that it had announced; then the rest is there for others."""
    scene = Scene(settings(budget_usd=usd(10)), range(3))
    scene.join(1)
    for last in (-1, 0, 1):
        scene.take(1, last)
    money(scene, 1, wanted_usd=usd(8))
    scene.say(Commit(1, 0, 0, usd("0.1")))
    scene.say(Commit(1, 1, 1, usd("0.2")))
    scene.say(Commit(1, 2, 2, usd("0.4")))
    scene.renew(1, Report(spent_usd=usd("0.7"), wanted_usd=usd(8)), closed=(0,))
    scene.say(Commit(1, 0, 0, usd("0.1")))  # comes late, for the second time
    scene.wait(2)
    scene.join(2)
    assert scene.claim(2).ranges[0].earlier == (1,)
    assert scene.drive().spent_usd == usd("8.7")
    assert money(scene, 2, wanted_usd=usd(5)) == (usd(0), True)
    scene.say(Found(2, 0, 1, usd(9)))  # it had closed this one
    scene.say(Found(2, 1, 1, usd("9.9")))
    scene.say(Found(2, 1, 1, usd("0.3")))  # the last word counts
    scene.say(Found(2, 1, 7, usd(9)))  # of nobody
    assert money(scene, 2, wanted_usd=usd(5)) == (usd(0), True)
    scene.take(2, 1)
    scene.say(Found(2, 2, 1, usd("0.4")))
    assert scene.drive().spent_usd == usd("1.4")
    scene.say(Commit(2, 2, 2, usd("0.6")))  # so the first owner's part was not to be
    assert scene.drive().spent_usd == usd("1.0")
    assert money(scene, 2, wanted_usd=usd(5)) == (usd(5), False)


def test_a_range_that_others_have_closed_is_accounted_for() -> None:
    """All that its first owner had announced there became parts."""
    scene = Scene(settings(budget_usd=usd(10)), range(1))
    scene.join(1)
    scene.take(1)
    money(scene, 1, wanted_usd=usd(8))
    scene.say(Commit(1, 0, 0, usd("0.1")))
    scene.wait(2)
    scene.join(2)
    scene.take(2)
    scene.claim(2, 0, closed=(0,))
    assert scene.drive().spent_usd == usd("0.1")


@pytest.mark.parametrize("is_before", [True, False])
def test_where_a_model_was_set_aside_a_lost_owners_grant_stays_spent(*, is_before: bool) -> None:
    """No part tells what its calls have cost."""
    scene = Scene(settings(budget_usd=usd(10)), range(1))
    stop = StopOrder(StopWords("refused", "no such model"), queue=0)
    scene.join(1)
    scene.take(1)
    money(scene, 1, wanted_usd=usd(8))
    scene.drive(stops=(stop,) if is_before else ())
    scene.wait(2)
    scene.join(2)
    scene.take(2)
    scene.drive(stops=(stop,))
    scene.say(Found(2, 0, 1, usd("0.3")))
    assert scene.drive().spent_usd == usd(8)


def test_who_leaves_gives_back_what_it_did_not_spend() -> None:
    """Its last word says what it has spent, for good."""
    scene = Scene(settings(budget_usd=usd(1)))
    scene.join(1)
    scene.join(2)
    money(scene, 1, wanted_usd=usd("0.8"))
    scene.leave(1, Report(spent_usd=usd("0.3"), reserved_usd=usd("0.1")))
    scene.leave(1, Report(spent_usd=usd(9)))
    assert scene.drive().spent_usd == usd("0.4")
    assert money(scene, 2, wanted_usd=usd("0.6")) == (usd("0.6"), False)


def test_an_owner_that_is_gone_without_a_range_gives_its_grant_back() -> None:
    """Nobody has to take anything over from it."""
    scene = Scene(settings(budget_usd=usd(1)))
    scene.join(1)
    money(scene, 1, wanted_usd=usd("0.8"))
    scene.drive(gone=(1, 7))
    scene.wait(1.2)
    assert scene.drive().owners[0].is_lost
    scene.join(2)
    assert money(scene, 2, wanted_usd=usd(1)) == (usd(1), False)


def short_of_money(*, ranges: int = 2) -> Scene:
    """One owner was lost with most of the money, and the other one can't go on without it."""
    scene = Scene(settings(budget_usd=usd(1)), range(ranges))
    scene.join(1)
    scene.take(1)
    money(scene, 1, wanted_usd=usd("0.8"))
    scene.wait(1.2)
    scene.join(2)
    scene.take(2)
    scene.drive(gone=(1,))
    for _ in range(4):
        scene.wait(0.3)
        assert money(scene, 2, wanted_usd=usd("0.5")) == (usd(0), True)
    return scene


def test_the_run_waits_for_money_of_lost_owners() -> None:
    """But not for ever: nobody may come to take what they had."""
    scene = short_of_money()
    for _ in range(int(ACCOUNT_S / 0.3) + 1):
        scene.wait(0.3)
        money(scene, 2, wanted_usd=usd("0.5"))
    (stop,) = scene.drive().stops
    assert stop.words.message == "the next row can cost up to $0.5000, and $0.2000 of the budget is left."
    assert (stop.words.fix, stop.words.next_usd) == ("budget", usd("0.5"))
    assert scene.claim(2, 0).is_over


def test_the_run_does_not_wait_for_what_would_not_be_enough() -> None:
    """All that may come back is less than the next row can cost."""
    scene = Scene(settings(budget_usd=usd(1)))
    scene.join(1)
    scene.take(1)
    money(scene, 1, wanted_usd=usd("0.4"))
    scene.drive(gone=(1,))
    scene.wait(1.2)
    scene.join(2)
    for _ in range(3):
        money(scene, 2, wanted_usd=usd("1.5"))
    assert len(scene.drive().stops) == 1


def test_a_bill_above_what_was_set_aside_is_said_as_it_is() -> None:
    """The cap is passed then, and nobody gets any more."""
    scene = Scene(settings(budget_usd=usd(1), spent_usd=usd("0.5")))
    scene.join(1)
    money(scene, 1, wanted_usd=usd("0.5"))
    assert money(scene, 1, spent_usd=usd("0.7"), wanted_usd=usd("0.5")) == (usd("0.7"), True)
    (stop,) = scene.drive().stops
    assert stop.words.message == "the next row can cost up to $0.5000, and the budget is passed by $0.2000 already."
