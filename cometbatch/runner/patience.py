"""How long is waited: before a call's next attempt, before the call fails, before the run stops."""

from collections.abc import Callable

from cometbatch.control.attribution import HeldFailures
from cometbatch.control.waits import backoff
from cometbatch.limiting.limits import Limits
from cometbatch.records import Failure, Retry
from cometbatch.runner.ports import Observer, Policy, Stop
from cometbatch.runner.slots import OpenCall

MAX_SLOW_DOWNS = 50  # in a row: a call that the service asks to slow down this often fails, after `max_pushback_s`
TOLD_AFTER_S = 10.0  # seconds without any answer, after which a person is told


class Patience:
    """Counts failures and the time without answers, and says how long to bear with them; times on the loop's clock."""

    def __init__(
        self,
        policy: Policy,
        held: HeldFailures[OpenCall],
        limits: Limits,
        observer: Observer,
        *,
        jitter: Callable[[], float],
        is_reached: Callable[[], bool],
    ) -> None:
        self._policy = policy
        self._held = held
        self._limits = limits
        self._observer = observer
        self._jitter = jitter
        self._is_reached = is_reached
        self._slow_down_rounds = 0  # pauses in a row, each of them asked for after the one before
        self._paused_at = float("-inf")  # when the last pause began
        self._unanswered_since: float | None = None
        self._unanswered_why = ""

    def answered(self, started: float) -> None:
        """An attempt that began at this time was answered."""
        if started >= self._paused_at:
            self._slow_down_rounds = 0
        self._unanswered_since = None

    def failed_for_good(self) -> None:
        """A call has failed: then the service is there, and time counts from the next failure."""
        self._unanswered_since = None

    def count(self, call: OpenCall, verdict: Retry, now: float) -> None:
        """Count a failure. One that only asks to slow down does not count against its call."""
        kind, held = verdict.failure.kind, self._held
        held.failed(call.request.ordinal, kind)
        is_excused = held.is_crowded(kind, now) and not _may_be_paid_for(verdict.failure)
        costs_attempt = verdict.costs_attempt and not is_excused
        call.slow_downs_in_a_row = 0 if costs_attempt else call.slow_downs_in_a_row + 1
        is_unanswered = call.answers_seen == held.answers
        call.answers_seen = held.answers
        call.unanswered_in_a_row = call.unanswered_in_a_row + 1 if is_unanswered else 1
        if call.counted_failures >= self._policy.max_attempts and not is_unanswered:
            call.counted_failures = 0  # they met a service that answered nobody; now it answers
        call.counted_failures += costs_attempt

    def is_used_up(self, call: OpenCall, failure: Failure, now: float, *, is_tail: bool) -> bool:
        """Whether the call fails. `is_tail`: no further calls are left to be read."""
        if self._held.is_excused(failure.kind, now, is_tail=is_tail) and not _may_be_paid_for(failure):
            return False
        seconds, policy = now - call.began, self._policy
        is_slowed_for_good = call.slow_downs_in_a_row >= MAX_SLOW_DOWNS and seconds > policy.max_pushback_s
        return call.counted_failures >= policy.max_attempts or is_slowed_for_good or seconds > policy.max_row_s

    def reason_to_stop(self, failure: Failure, now: float, *, is_tail: bool) -> Stop | None:
        """Why the run stops over one more failure, if it does.

        Neither being asked to slow down nor an outage costs attempts, so time is their bound; a few calls alone have
        their own. So have the last calls that time out: together they may take longer than `max_pushback_s`, and the
        table would never end.
        """
        if failure.kind == "timeout" and is_tail:
            return None
        if self._unanswered_since is None:
            self._unanswered_since = now
        self._unanswered_why = failure.message
        patience_s = self._policy.max_pushback_s
        if now - self._unanswered_since <= patience_s or not self._held.is_outage:
            return None
        hint = "Resume later, or lower limits.concurrency and limits.requests_per_minute."
        message = f"for {patience_s:g} s the service answered nothing: {failure.message}"
        return Stop("refused", message, hint, "wait")

    def wait_s(self, call: OpenCall, verdict: Retry, started: float, now: float, *, is_adaptive: bool) -> float:
        """Seconds until the call's next attempt. Being asked to slow down makes everyone wait, or sends more slowly.

        `started`: when the failed attempt began. `is_adaptive`: a window slows everyone down, so no pause is needed.
        """
        if verdict.retry_after_s:  # "after 0 s" names no wait: asked at once and for ever, it would be a flood
            self._pause(verdict.retry_after_s, now)
            return verdict.retry_after_s
        if not verdict.slow_down:
            return self._backoff_s(call.counted_failures)
        if is_adaptive:
            self._observer.asked_to_slow_down(0.0)
            return self._backoff_s(call.slow_downs_in_a_row)
        if started >= self._paused_at:  # an attempt from before the pause tells nothing of what came after it
            self._slow_down_rounds += 1
        wait_s = self._backoff_s(self._slow_down_rounds)
        self._pause(wait_s, now)
        return wait_s

    def _backoff_s(self, failures: int) -> float:
        return backoff(max(1, failures), jitter=self._jitter(), cap_s=self._policy.max_wait_s)

    def _pause(self, wait_s: float, now: float) -> None:
        self._paused_at = now
        self._limits.pause(wait_s, now)
        self._observer.asked_to_slow_down(wait_s)

    def describe_silence(self, now: float) -> str:
        """What a person should know who waits for answers in vain; "" where there is nothing to tell."""
        since, patience_s = self._unanswered_since, self._policy.max_pushback_s
        if since is None or now - since < TOLD_AFTER_S:
            return ""
        why = f"for {TOLD_AFTER_S:g} s nothing was answered ({self._unanswered_why})"
        sooner = "" if self._is_reached() else ", or once rows have used up their attempts: no connection was made"
        return f"{why}; where that goes on, the run stops after {patience_s:g} s (retry.max_pushback_s){sooner}."


def _may_be_paid_for(failure: Failure) -> bool:
    """Whether it came with a success status: each such attempt may be billed, so none is made for nothing."""
    return failure.status is not None and failure.status < 300  # noqa: PLR2004 - HTTP's successes
