"""Money that is granted bit by bit, and a rate that is found elsewhere."""

import math
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from cometbatch.control.budget import Budget
from cometbatch.control.granted_account import GrantedAccount
from cometbatch.control.leased_rate import LeasedRate
from cometbatch.control.window import ConcurrencyWindow

CENTS = st.integers(0, 500).map(lambda cents: Decimal(cents) / 100)


@given(steps=st.lists(st.tuples(st.sampled_from(["grant", "reserve", "settle"]), CENTS), max_size=40))
def test_spent_and_reserved_pass_no_grant_that_they_did_not_pass_before(steps: list[tuple[str, Decimal]]) -> None:
    """Grants rise and fall; nothing is set aside beyond the newest one."""
    account, reserved = GrantedAccount(), []
    for kind, amount in steps:
        if kind == "grant":
            account.grant(amount)
        elif kind == "reserve":
            before = account.spent + account.reserved
            if account.reserve(amount):
                reserved.append(amount)
                assert before + amount <= account.granted
                assert account.wanted is None
            else:
                assert before + amount > account.granted
                assert account.wanted == amount
        elif reserved:
            held = reserved.pop()
            account.settle(held, min(held, amount))
    assert account.left == account.granted - account.spent - account.reserved
    assert account.reserved == sum(reserved)
    assert account.may_give_back == (account.reserved > 0)


def test_more_is_asked_for_once_and_the_run_never_stops_by_itself() -> None:
    """Without room the run waits, as another owner may give money back; who wants more is told when that is new."""
    account, asked = GrantedAccount(), []
    account.on_short = lambda: asked.append(account.wanted)
    budget = Budget(None, Decimal(0), shared=account)
    assert not budget.reserve(Decimal(2))
    assert not budget.reserve(Decimal(2))
    assert not budget.reserve(Decimal(3))
    assert asked == [Decimal(2), Decimal(3)]
    assert account.is_any_in_flight
    assert budget.is_shared_short(Decimal(2))
    account.grant(Decimal(3))
    assert budget.reserve(Decimal(3))
    budget.count_in_flight(1)
    assert (account.in_flight, account.wanted) == (1, None)
    budget.settle(Decimal(3), Decimal("1.5"))
    budget.count_in_flight(-1)
    assert (account.spent, account.reserved, account.may_give_back) == (Decimal("1.5"), Decimal(0), False)


def test_a_leased_rate_tells_what_it_meets_and_sends_at_its_share() -> None:
    """It counts, and tells of refusals and outages; a share of 0 is a very low rate, none is no bound."""
    told: list[tuple[int, bool]] = []
    rate = LeasedRate(lambda: told.append((rate.refusals, rate.is_out)))
    window = ConcurrencyWindow(16, rate)
    assert rate.per_s == math.inf
    now = 0.0
    for _ in range(8):
        now += window.wait_s(now, 0)
        window.sent(now)
    window.refused(now, now)
    assert (rate.bound, rate.refusals) == (0, 1)
    assert rate.sending_per_s > 0
    rate.lease(10.0)
    for _ in range(3):
        now += window.wait_s(now, 0)
        window.sent(now)
    assert rate.bound == 2
    rate.lease(0.0)
    assert 0 < rate.per_s < 0.1
    rate.lease(None)
    assert rate.per_s == math.inf
    for _ in range(8):
        now += 0.2
        window.failed(now, now)
    assert window.is_probing
    assert told == [(1, False), (1, True)]
    window.others_answered(now)
    assert not window.is_probing
    assert told[-1] == (1, False)


def test_an_answer_to_others_ends_no_outage_that_it_may_be_older_than() -> None:
    """Answers take a second here: one that comes to others half a second after failures began was under way then."""
    window = ConcurrencyWindow(16, LeasedRate(lambda: None))
    for _ in range(5):
        window.sent(0.0)
        window.answered(1.0, 1.0)
    for each in range(8):
        window.sent(1.0)
        window.failed(1.0 + each / 10, 1.0)
    assert window.is_probing
    window.others_answered(1.9)
    assert window.is_probing
    window.others_answered(2.5)
    assert not window.is_probing


def test_a_window_keeps_to_a_ceiling_that_changes() -> None:
    """Lowered, fewer may be in flight at once; raised again, it goes on from where it was."""
    window = ConcurrencyWindow(64)
    assert window.window == 8
    window.set_ceiling(4)
    assert window.window == 4
    assert window.wait_s(0.0, 4) == math.inf
    window.set_ceiling(0)
    assert window.wait_s(0.0, 0) == math.inf
    window.set_ceiling(32)
    assert window.window == 8
    assert window.wait_s(0.0, 0) == 0.0
    window.sent(0.0)
    window.timed_out(30.0, 0.0)
    was_cut_to = window.window
    window.set_ceiling(64)
    assert window.window == was_cut_to < 8
