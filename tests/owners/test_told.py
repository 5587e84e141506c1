"""What others have seen counts here: whose failure a failure is, and whether the service heeds what it is asked for."""

from cometbatch.control.attribution import Account, HeldFailure, HeldFailures
from cometbatch.control.first_answers import FirstAnswers
from cometbatch.records import Failure


def held(number: int) -> HeldFailure[int]:
    """A refused call."""
    return HeldFailure(number, Failure("invalid_request", "not so", 400), 0.5, "refusal")


def test_what_others_hold_counts_towards_the_bound() -> None:
    """Three here and four there are seven; alone they would go on."""
    failures = HeldFailures[int](works=False, max_alike=7, max_misdirected=7)
    for number in range(3):
        failures.hold(held(number))
    assert failures.by_cause == {"refusal": 3}
    assert failures.reason_to_stop() is None
    failures.held_by_others = {"refusal": 4}
    reason = failures.reason_to_stop()
    assert reason is not None
    assert reason.message.startswith("7 rows failed with the same error")


def test_what_others_hold_stops_nobody_who_holds_nothing() -> None:
    """Those who hold them stop, and say so."""
    failures = HeldFailures[int](works=False, max_alike=1, max_misdirected=1)
    failures.held_by_others = {"refusal": 40}
    assert failures.reason_to_stop() is None


def test_an_answer_to_others_shows_that_the_model_works() -> None:
    """What is held may be released, and an outage is over."""
    failures = HeldFailures[int](works=False, max_alike=7, max_misdirected=7)
    failures.hold(held(1))
    for number in range(4):
        failures.failed(number, "connection")
    assert failures.is_outage
    assert failures.others_answered(5, 1.0)
    assert (failures.works, failures.answers, failures.is_outage) == (True, 5, False)


def test_an_answer_to_others_shows_that_the_key_is_accepted() -> None:
    """Refusals in a row begin anew."""
    account = Account((0, 1))
    for number in range(8):
        account.refused.add(0.0, float(number))
    assert account.refused.are_everyones(8.0, lambda _start, _end: 0)
    account.others_answered(3, 9.0)
    assert account.answers == 3
    assert not account.refused.are_everyones(9.0, lambda _start, _end: 0)
    assert account.is_doubtful(0)


def test_answers_of_all_owners_that_are_no_json_stop_the_run() -> None:
    """Each has its share of the room, and of what is left of it; sums that come late change nothing."""
    first = FirstAnswers[int](others=4)
    first.share = 0.25
    assert first.room == 4
    first.add(is_cut=True)
    assert first.room == 3
    first.others_added(8, 2)
    assert first.room == 1
    first.others_added(3, 1)
    assert first.reason_to_stop() is None
    first.others_added(15, 2)
    reason = first.reason_to_stop()
    assert reason is not None
    assert reason.message == "20 answers came, and none of them was JSON (3 were cut at the token cap)"
