"""Whose failure a failure is: laws and tables of what is held, what is certain, and what stops a run."""

import itertools
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.control.attribution import (
    BAD_REQUEST,
    CROWD_REPLIES,
    OUTAGE_FAILURES,
    OUTAGE_ROWS,
    OUTAGE_S,
    Cause,
    HeldFailure,
    HeldFailures,
)
from cometbatch.records import Failure, FailureKind, Fix

FAST = settings(max_examples=100, deadline=None)
CAUSES: tuple[Cause, ...] = get_args(Cause)
KINDS: tuple[FailureKind, ...] = get_args(FailureKind)
ADDRESS = {"wrong_address", "unreached"}

failures = st.builds(
    Failure,
    kind=st.sampled_from(["invalid_request", "blocked"]),
    message=st.just("no"),
    status=st.sampled_from([400, 403]),
    code=st.sampled_from(["", "odd"]),
)
REPLIES = st.lists(st.none() | st.tuples(st.integers(0, 9), st.sampled_from(KINDS)), max_size=80)
"""None is an answer, else a call's ordinal and the kind of its failure."""


def held(
    cause: Cause,
    *,
    call: int = 0,
    kind: FailureKind = "overloaded",
    status: int | None = None,
    in_a_row: int = 0,
) -> HeldFailure[int]:
    """A failure to be judged."""
    return HeldFailure(call, Failure(kind, f"words of {cause}", status), 0.1, cause, in_a_row)


def fresh(*, works: bool = False, max_alike: int = 20, max_misdirected: int = 8) -> HeldFailures[int]:
    """Nothing is held yet."""
    return HeldFailures(works=works, max_alike=max_alike, max_misdirected=max_misdirected)


def after(replies: list[tuple[int, FailureKind] | None]) -> HeldFailures[int]:
    """What these replies leave, one each second from second 0."""
    seen = fresh()
    for second, reply in enumerate(replies):
        if reply is None:
            seen.answered(second)
        else:
            seen.failed(*reply)
    return seen


@FAST
@given(replies=REPLIES)
def test_an_outage_is_several_calls_that_failed_since_the_last_answer(
    replies: list[tuple[int, FailureKind] | None],
) -> None:
    """One call that fails again and again is none, nor are calls with an answer in between."""
    since = list(itertools.takewhile(lambda reply: reply is not None, reversed(replies)))
    calls = {reply[0] for reply in since if reply is not None}
    assert after(replies).is_outage == (len(calls) >= OUTAGE_ROWS)


@FAST
@given(replies=REPLIES, later_s=st.floats(0, 2 * OUTAGE_S))
def test_a_crowd_is_several_calls_refused_for_overload_lately_while_others_are_answered(
    replies: list[tuple[int, FailureKind] | None], later_s: float
) -> None:
    """Only answers and refusals for overload are looked back at; other failures say nothing of a crowd."""
    seen = after(replies)
    telling = [reply for reply in replies if reply is None or reply[1] == "overloaded"][-CROWD_REPLIES:]
    refused = {reply[0] for reply in telling if reply is not None}
    answered_at = max((second for second, reply in enumerate(replies) if reply is None), default=0)
    for kind in KINDS:
        is_crowd = kind == "overloaded" and later_s < OUTAGE_S and len(refused) >= OUTAGE_ROWS
        assert seen.is_crowded(kind, answered_at + later_s) == is_crowd


@FAST
@given(
    answers=st.integers(0, 2),
    failed=st.integers(0, 2 * OUTAGE_ROWS),
    later_s=st.floats(0, 2 * OUTAGE_S),
    may_be_billed=st.booleans(),
    is_tail=st.booleans(),
)
def test_attempts_used_up_are_given_back_only_in_a_short_outage_that_costs_nothing(
    answers: int, failed: int, later_s: float, *, may_be_billed: bool, is_tail: bool
) -> None:
    """There must have been an answer, and lately; at the table's end one call is enough for an outage."""
    seen = fresh(works=True)
    for _ in range(answers):
        seen.answered(7.0)
    for ordinal in range(failed):
        seen.failed(ordinal, "connection")
    is_outage = failed >= OUTAGE_ROWS or is_tail
    lately = answers > 0 and 7.0 + later_s - 7.0 < OUTAGE_S
    for kind in KINDS:
        excused = seen.is_excused(kind, 7.0 + later_s, may_be_billed=may_be_billed, is_tail=is_tail)
        assert excused == (lately and is_outage and not may_be_billed and kind in OUTAGE_FAILURES)


@pytest.mark.parametrize("cause", ["wrong_address", "unreached", "account"])
@pytest.mark.parametrize("works", [False, True])
def test_what_says_nothing_of_its_call_is_held_at_any_time(cause: Cause, *, works: bool) -> None:
    """A page, a service that is not there, a refused account: whatever was answered before."""
    assert fresh(works=works).should_hold(held(cause))


@pytest.mark.parametrize("is_outage", [False, True])
@pytest.mark.parametrize("in_a_row", [0, 1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_attempts_used_up_are_held_in_an_outage_but_for_timeouts(
    kind: FailureKind, in_a_row: int, *, is_outage: bool
) -> None:
    """Held where nobody was answered during the last two of them; a timeout may have been billed each time."""
    seen = after([(ordinal, "connection") for ordinal in range(OUTAGE_ROWS if is_outage else OUTAGE_ROWS - 1)])
    should = is_outage and in_a_row >= 2 and kind != "timeout"
    assert seen.should_hold(held("exhausted", kind=kind, in_a_row=in_a_row)) == should


@pytest.mark.parametrize("status", [None, 200, BAD_REQUEST - 1, BAD_REQUEST, 404, 500])
@pytest.mark.parametrize("works", [False, True])
def test_a_refusal_is_held_only_before_the_service_has_ever_answered(status: int | None, *, works: bool) -> None:
    """And only where nothing was generated: a blocked answer is the call's own."""
    should = not works and status is not None and status >= BAD_REQUEST
    assert fresh(works=works).should_hold(held("refusal", status=status)) == should


@FAST
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["hold", "answer", "release"]), st.sampled_from(CAUSES), failures), max_size=30
    )
)
def test_each_held_call_leaves_once_and_refusals_that_differ_leave_at_once(
    steps: list[tuple[str, Cause, Failure]],
) -> None:
    """None is lost, none comes twice; what is held together as refusals is all alike."""
    seen, inside, left = fresh(max_alike=100), list[HeldFailure[int]](), list[int]()
    for call, (step, cause, failure) in enumerate(steps):
        if step == "hold":
            new = HeldFailure(call, failure, 0.1, cause)
            refusals = [each for each in inside if each.cause == "refusal"]
            alike = {(each.failure.kind, each.failure.status, each.failure.code) for each in [*refusals, new]}
            expected = refusals if cause == "refusal" and len(alike) > 1 else []
            certain = seen.hold(new)
            assert certain == expected
            inside = [each for each in inside if each not in certain] + [new]
            left += [each.call for each in certain]
        elif step == "answer":
            assert seen.answered(call) == bool(inside)
        else:
            released = seen.release()
            assert released == inside
            left += [each.call for each in released]
            inside = []
        assert seen.any == bool(inside)
    left += [each.call for each in seen.release()]
    assert sorted(left) == [call for call, (step, _, _) in enumerate(steps) if step == "hold"]


@FAST
@given(
    causes=st.lists(st.sampled_from(CAUSES), max_size=12),
    works=st.booleans(),
    is_over=st.booleans(),
    max_alike=st.integers(1, 12),
    max_misdirected=st.integers(1, 12),
)
def test_a_run_stops_where_enough_calls_are_held_for_what_they_have_in_common(
    causes: list[Cause], max_alike: int, max_misdirected: int, *, works: bool, is_over: bool
) -> None:
    """At the table's end a wrong address that nothing answered at, or a refused account, is enough for any number."""
    seen = fresh(works=works, max_alike=max_alike, max_misdirected=max_misdirected)
    for call, cause in enumerate(causes):
        seen.hold(held(cause, call=call, status=400))
    misdirected = min(max_alike, max_misdirected)
    kinds = set(causes)
    if kinds == {"unreached"}:
        enough = min(OUTAGE_ROWS, misdirected)
    elif kinds <= ADDRESS:
        enough = misdirected
    else:
        enough = max_alike
    at_end = is_over and ("account" in kinds or (kinds <= ADDRESS and not works))
    reason = seen.reason_to_stop(is_over=is_over)
    assert (reason is not None) == (bool(causes) and (len(causes) >= enough or at_end))
    assert reason is None or reason.message.startswith(f"{len(causes)} rows failed with the same error ")
    assert [each.call for each in seen.release()] == list(range(len(causes)))


@pytest.mark.parametrize(
    ("cause", "to_check", "fix"),
    [
        ("wrong_address", "target.base_url", "job"),
        ("unreached", "network", "wait"),
        ("refusal", "prompt, params and target", "job"),
        ("account", "API key and the account's balance", "account"),
        ("exhausted", "the service", "job"),
    ],
)
@pytest.mark.parametrize(("works", "since"), [(False, "no request has worked"), (True, "since the last answer")])
def test_a_stop_says_what_happened_and_what_to_check(
    cause: Cause, to_check: str, fix: Fix, since: str, *, works: bool
) -> None:
    """How many rows, since when, the service's own words, the settings to look at, and that no row was lost."""
    seen = fresh(works=works, max_alike=1)
    seen.hold(held(cause))
    reason = seen.reason_to_stop()
    assert reason is not None
    assert reason.fix == fix
    assert reason.message.endswith(f": words of {cause}")
    assert since in reason.message
    assert to_check in reason.hint
    assert "none of these rows was recorded" in reason.hint


@pytest.mark.parametrize("works", [False, True])
def test_a_service_that_has_answered_works_from_then_on(*, works: bool) -> None:
    """In this session or in an earlier one; the answers of this session are counted."""
    seen = fresh(works=works)
    assert (seen.works, seen.answers) == (works, 0)
    seen.answered(1.0)
    seen.answered(2.0)
    assert (seen.works, seen.answers) == (True, 2)
