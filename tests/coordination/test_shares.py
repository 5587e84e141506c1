"""One rate for all owners: what they may use together never passes the limit, and is all of it while rows wait."""

import itertools
import os
from collections.abc import Callable

import pytest

from cometbatch.control.coordination.messages import LEASE_S, MARGIN, QueueReport, Renew, Report
from cometbatch.control.coordination.shares import divide
from tests.coordination.owners import Owner, World, claim_forever, peak
from tests.coordination.scene import Scene, busy, settings

SEEDS = int(os.environ.get("SEEDS", "15"))
PER_S = 200.0
LIMIT = settings(owners=8, concurrency=64, requests_per_minute=60 * PER_S)
RENEWAL_S = LEASE_S / 3 + 0.1


def sent_by(owners: list[Owner]) -> list[float]:
    """When anything left, of all owners."""
    return sorted(itertools.chain.from_iterable(owner.sent for owner in owners))


def shares(owners: list[Owner]) -> float:
    """What owners may use together at this moment."""
    return sum(owner.share for owner in owners)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_owners_that_always_have_rows_use_the_whole_limit(count: int) -> None:
    """At least 99 % of it, in peaks of the limit and a request for each owner; also again after one was killed."""
    world = World(LIMIT, count)
    owners = [Owner(world, number) for number in range(1, count + 1)]
    world.run(2)
    assert shares(owners) >= 0.99 * PER_S
    world.run(7)
    assert sum(2 <= at < 7 for at in sent_by(owners)) >= 0.99 * 5 * PER_S
    assert peak(sent_by(owners)) <= PER_S + max(count, 10)
    if count > 1:
        owners[0].kill()
        world.run(7 + LEASE_S * MARGIN + RENEWAL_S)
        assert shares(owners) >= 0.999 * PER_S


@pytest.mark.parametrize("seed", range(SEEDS))
def test_shares_never_pass_the_limit_whatever_happens(seed: int) -> None:
    """Messages are late or lost, rows and owners come and go, the coordinator stands still or dies."""
    world = World(LIMIT, seed, loss=0.1, delay_s=(0.002, 0.1, 0.4)[seed % 3])
    chance = world.random
    numbers = itertools.count(1)
    owners: list[Owner] = []

    def rows() -> Callable[[], int]:
        waiting = chance.choice([0, 3, 1000])
        return lambda: waiting if chance.random() < 0.9 else 1000

    def happen() -> None:
        what = chance.random()
        if what < 0.3 or len(owners) < 2:
            owners.append(Owner(world, next(numbers), rows()))
            claim_forever(owners[-1])
        elif what < 0.5:
            chance.choice(owners).kill()
        elif what < 0.55:
            world.freeze(chance.uniform(0, 3))
        elif what < 0.6:
            world.restart(chance.uniform(0, 2))
        else:
            chance.choice(owners).waiting = rows()
        world.later(chance.uniform(0, 1), happen)

    def check() -> None:
        assert shares(owners) <= PER_S * (1 + 1e-9)

    happen()
    world.watched.append(check)
    world.run(20)
    assert peak(sent_by(owners)) <= PER_S + max(10, len(owners))


def test_a_few_rows_hold_no_more_than_they_need() -> None:
    """An owner with three rows waiting leaves the rest to others."""
    world = World(LIMIT)
    few = Owner(world, 1, lambda: 3)
    few._sending = True  # it waits for something else
    many = [Owner(world, number) for number in (2, 3, 4)]
    world.run(5)
    assert few.share <= 5
    assert shares([few, *many]) >= 0.99 * PER_S


def test_what_a_finished_owner_had_is_others_at_once() -> None:
    """By its leaving, or by its word that nothing waits: within a moment, not only when its lease has ended."""
    scene = Scene(settings(requests_per_minute=60 * PER_S))
    scene.join(1)
    scene.join(2)
    for _ in range(6):
        scene.renew(1)
        scene.renew(2)
    assert scene.leases[2].requests_per_s == PER_S / 2
    scene.renew(1, busy(waiting=0))
    assert scene.renew(2).requests_per_s == PER_S / 2  # the first one may not know it yet
    assert scene.leases[2].ask_again_s <= 0.05
    scene.renew(1, busy(waiting=0))
    assert scene.renew(2).requests_per_s == PER_S
    scene.renew(1)
    scene.renew(2)
    scene.renew(2)
    assert scene.renew(1).requests_per_s == PER_S / 2
    scene.leave(1)
    assert scene.renew(2).requests_per_s == PER_S


def test_a_newcomer_gets_what_is_free_and_the_rest_when_others_have_come_down() -> None:
    """Nobody sends above the limit meanwhile."""
    scene = Scene(settings(requests_per_minute=60 * PER_S))
    scene.join(1)
    scene.renew(1)
    assert scene.join(2).requests_per_s == 0.0
    assert scene.renew(1).requests_per_s == PER_S / 2
    assert scene.renew(2).requests_per_s == 0.0
    scene.renew(1)
    assert scene.renew(2).requests_per_s == PER_S / 2


def test_an_older_word_changes_nothing() -> None:
    """A renewal that comes late brings neither counts nor shares back."""
    scene = Scene(settings(requests_per_minute=60 * PER_S, tokens_per_minute=60_000.0))
    scene.join(1)
    first = scene.renew(1)
    scene.renew(1, Report((QueueReport(0, sent=50, waiting=9),), retries=3))
    scene.ask(Renew(1, 1, first.number, Report(retries=1)))
    assert scene.drive().retries == 3
    assert scene.leases[1].requests_per_s == PER_S


def test_tokens_are_shared_by_what_owners_send() -> None:
    """Who has a few rows gets the tokens of these; before anything is sent, all get the same."""
    scene = Scene(settings(tokens_per_minute=60_000.0))
    scene.join(1)
    scene.join(2)
    for _ in range(3):
        scene.renew(1, busy(waiting=10))
        scene.renew(2, busy(waiting=0))
    assert scene.leases[1].tokens_per_s == scene.leases[2].tokens_per_s == 500.0
    sent = 0
    for _ in range(8):
        scene.wait(0.3)
        sent += 30
        scene.renew(1, busy(sent))
        scene.renew(2, busy(waiting=5))
    assert scene.leases[1].tokens_per_s == pytest.approx(950.0)
    assert scene.leases[2].tokens_per_s == pytest.approx(50.0)


def test_a_division_is_fair_and_whole() -> None:
    """Nobody gets more than it can use while another could use it."""
    assert divide(100.0, {1: 10.0, 2: 200.0, 3: 300.0}) == {1: 10.0, 2: 45.0, 3: 45.0}
    assert divide(100.0, {1: 10.0, 2: 30.0}) == {1: 40.0, 2: 60.0}


@pytest.mark.parametrize(("per_s", "count"), [(1.0, 3), (6.0, 8), (19.0, 1), (19.0, 8)])
def test_below_twenty_a_second_requests_leave_in_the_order_of_asking(per_s: float, count: int) -> None:
    """The whole of the limit is used, nobody waits for more than its turn, and a second sees one request more."""
    world = World(settings(owners=count, concurrency=64, requests_per_minute=60 * per_s), count)
    owners = [Owner(world, number) for number in range(1, count + 1)]
    world.run(22)
    sent = sent_by(owners)
    assert sum(2 <= at < 22 for at in sent) >= 0.99 * 20 * per_s - 1
    assert peak(sent) <= per_s + 2
    counts = [len(owner.sent) for owner in owners]
    assert max(counts) - min(counts) <= 4


@pytest.mark.parametrize("seed", range(SEEDS // 5))
def test_turns_never_pass_the_limit_whatever_happens(seed: int) -> None:
    """Owners die with turns they did not use, messages are late or lost, and the others go on."""
    world = World(settings(owners=4, requests_per_minute=600.0), seed, loss=0.02, delay_s=0.01)
    owners = [Owner(world, number) for number in range(1, 6)]
    for at in (3, 6, 9):
        world.later(at, owners[at // 3].kill)
    world.run(15)
    assert peak(sent_by(owners)) <= 10 + 2 + len(owners)
    assert len(sent_by(owners)) >= 0.9 * 150


def test_a_turn_that_was_not_used_is_not_given_twice() -> None:
    """An owner has one turn ahead at most, and none where nothing waits."""
    scene = Scene(settings(requests_per_minute=60.0))
    scene.join(1)
    assert scene.renew(1, busy(waiting=0)).turns == 1  # as it joined, it was taken to have rows
    scene.wait(5)
    assert scene.renew(1, busy()).turns == 1
    assert scene.renew(1, busy(sent=1)).turns == 2
    scene.leave(1)


@pytest.mark.parametrize(("owners", "concurrency"), [(2, 16), (3, 16), (8, 64), (3, 2)])
def test_owners_divide_the_requests_in_flight(owners: int, concurrency: int) -> None:
    """All of them together may have what the run may have; where there are fewer than owners, some have none."""
    scene = Scene(settings(owners=owners, concurrency=concurrency))
    numbers = range(1, owners + 1)
    for _ in range(6):
        for number in numbers:
            scene.renew(number)
    ceilings = [scene.leases[number].ceiling for number in numbers]
    assert sum(ceilings) == concurrency
    assert max(ceilings) - min(ceilings) <= 1


def test_what_is_in_flight_counts_until_it_is_answered() -> None:
    """A newcomer gets no slot that another still uses, and the last owner gets all once the others have left."""
    scene = Scene(settings(owners=1, concurrency=16))
    scene.join(1)
    scene.renew(1, busy(in_flight=16))
    scene.wait(0.3)
    assert scene.join(2).ceiling == 0
    assert scene.renew(1, busy(in_flight=16)).ceiling == 8
    assert scene.renew(2).ceiling == 0
    scene.renew(1, busy(in_flight=10))
    assert scene.renew(2).ceiling == 6
    scene.leave(1)
    assert scene.renew(2).ceiling == 16


def test_who_is_at_its_ceiling_gets_what_others_do_not_use() -> None:
    """So the last one with rows is not held back by those that have none."""
    scene = Scene(settings(concurrency=16))
    scene.join(1)
    scene.join(2)
    for _ in range(6):
        scene.renew(1, busy(waiting=0))
        scene.renew(2, busy(waiting=0, in_flight=scene.leases[2].ceiling))
    assert (scene.leases[1].ceiling, scene.leases[2].ceiling) == (1, 15)
    scene.renew(1, busy(waiting=9))
    scene.renew(2, busy(waiting=0, in_flight=15))
    assert scene.leases[2].ceiling == 8
    assert scene.renew(1, busy(waiting=9)).ceiling == 1
    scene.renew(2, busy(waiting=0, in_flight=8))
    assert scene.renew(1, busy(waiting=9)).ceiling == 8


def test_leases_of_many_owners_last_longer() -> None:
    """So that renewals stay as many."""
    scene = Scene(settings(owners=32, concurrency=64))
    for number in range(1, 33):
        scene.join(number)
    assert scene.renew(1).valid_s == 2.0
