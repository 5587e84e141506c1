"""How long is waited: before a call's next attempt, before the call fails, before the run stops."""

import math

from cometbatch.control.attribution import (
    ASKED_TO_WAIT,
    ASKED_TO_WAIT_S,
    HeldFailures,
    RefusalsInARow,
)
from cometbatch.control.failure_words import in_short
from cometbatch.control.waits import backoff, describe_wait
from cometbatch.errors import Quoting
from cometbatch.records import Failure, Retry
from cometbatch.runner.ports import Stop
from cometbatch.runner.sending import Sender
from cometbatch.runner.sharing import Shared
from cometbatch.runner.slots import OpenCall

MAX_BREATH_S = 1.0  # seconds that all rows wait, at most, for one row's `Retry-After` where no window slows them down
MAX_SLOW_DOWNS = 50  # in a row: a call that the service asks to slow down this often fails, after `max_pushback_s`
TOLD_AFTER_S = 10.0  # seconds without any answer, after which a person is told


class Patience:
    """Counts failures and the time without answers, and says how long to bear with them; times on the loop's clock.

    All of them are those of one queue, but for refusals of the account, which all queues have in common.
    """

    def __init__(self, shared: Shared, held: HeldFailures[OpenCall], sender: Sender) -> None:
        self._policy = shared.policy
        self._held = held
        self._observer = shared.observer
        self._others = shared.others
        self._shared_pause = sender.pause
        self._sender = sender
        self._jitter = shared.jitter
        self._is_reached = shared.service.is_reached
        self._slow_down_rounds = 0  # pauses in a row, each of them asked for after the one before
        self._paused_at = float("-inf")  # when the last pause began
        self._asked_to_wait = RefusalsInARow(ASKED_TO_WAIT, ASKED_TO_WAIT_S)
        self._account = shared.account
        self._in_flight_from = shared.in_flight_from
        self._unanswered_since: float | None = None
        self._silent_since: float | None = None  # the same, with the last calls that time out
        self._silent_failure: Failure | None = None  # the last failure since then
        self._is_free = False  # whether the last failure cost no attempt
        self._left = 0  # calls that are not waited for
        self._left_until = math.inf  # when the first of them may be sent again

    def answered(self, started: float) -> None:
        """An attempt that began at this time was answered."""
        if started >= self._paused_at:
            self._slow_down_rounds = 0
        self._unanswered_since = self._silent_since = None
        self._account.answers += 1
        self._account.refused.answered(started)
        self._asked_to_wait.answered(started)
        self._shared_pause.answered(started)

    def others_answered(self, answers: int, now: float) -> None:
        """Other owners had this number of answers. A pause of everyone ends by their word alone."""
        self._account.others_answered(answers, now)
        self._unanswered_since = self._silent_since = None
        self._asked_to_wait.answered(now)

    def failed_for_good(self) -> None:
        """A call has failed: then the service is there, and time counts from the next failure."""
        self._unanswered_since = self._silent_since = None

    def count(self, call: OpenCall, verdict: Retry, now: float) -> None:
        """Count a failure. One that only asks to slow down does not count against its call."""
        kind, held = verdict.failure.kind, self._held
        held.failed(call.request.ordinal, kind)
        is_excused = held.is_crowded(kind, now) and not _may_be_paid_for(verdict.failure)
        costs_attempt = verdict.costs_attempt and not is_excused
        self._is_free = not costs_attempt
        call.slow_downs_in_a_row = 0 if costs_attempt else call.slow_downs_in_a_row + 1
        is_unanswered = call.answers_seen == held.answers
        call.answers_seen = held.answers
        if is_unanswered and call.unanswered_in_a_row:
            call.unanswered_in_a_row += 1
        else:
            call.unanswered_in_a_row, call.account_answers_seen = 1, self._account.answers
        if call.counted_failures >= self._policy.max_attempts and not is_unanswered:
            call.counted_failures = 0  # they met a service that answered nobody; now it answers
        call.counted_failures += costs_attempt

    def is_used_up(self, call: OpenCall, failure: Failure, now: float, *, may_be_billed: bool, is_tail: bool) -> bool:
        """Whether the call fails. `is_tail`: no further calls are left to be read."""
        if self._held.is_excused(failure.kind, now, may_be_billed=may_be_billed, is_tail=is_tail):
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
        self._silent_failure = failure
        if self._silent_since is None:
            self._silent_since = now
        if failure.kind == "timeout" and is_tail:
            return None
        if self._unanswered_since is None:
            self._unanswered_since = now
        patience_s = self._policy.max_pushback_s
        if now - self._unanswered_since <= patience_s or not self._held.is_outage:
            return None
        hint = "Resume later, or lower limits.concurrency and limits.requests_per_minute."
        if failure.kind == "model_not_found":  # it was there before: its routes are down, or it was taken away
            hint = "Resume once the service has the model again."
        words = f"for {patience_s:g} s the service answered nothing: "
        message = Quoting(words + failure.message, words + in_short(failure))
        return Stop("refused", message, hint, "wait")

    def account_refused(self, call: OpenCall, started: float, now: float) -> bool:
        """The key or the account was refused, though it was accepted before. Returns whether it is for everybody.

        So it is where several refusals in a row, or all attempts of a call, met no answer in between.
        """
        refused = self._account.refused
        refused.add(started, now)
        if not self._account.answers:  # some queue was not refused yet
            return False
        if self.met_no_answer(call):
            return not refused.under_way(now, self._in_flight_from)
        return refused.are_everyones(now, self._in_flight_from)

    def met_no_answer(self, call: OpenCall) -> bool:
        """Whether all attempts of the call are used up, and nobody was answered between the first and the last.

        Of no queue: an answer of any model shows that the key is accepted, and that the account has credit.
        """
        if call.account_answers_seen != self._account.answers:
            return False
        return 1 < self._policy.max_attempts <= min(call.counted_failures, call.unanswered_in_a_row)

    def wait_s(self, call: OpenCall, verdict: Retry, started: float, now: float, *, is_adaptive: bool) -> float:
        """Seconds until the call's next attempt. A `Retry-After` is the call's own; where everybody gets one, all wait.

        `started`: when the failed attempt began. `is_adaptive`: a window slows everyone down where the service only
        asks to slow down; else all wait for that, too.
        """
        asked_s = verdict.retry_after_s  # "after 0 s" names no wait: asked at once and for ever, it would be a flood
        if asked_s and self._pauses_everyone(asked_s, started, now):
            return asked_s
        if not verdict.slow_down:
            return asked_s or self._backoff_s(call.counted_failures)
        if is_adaptive:
            self._observer.asked_to_slow_down(0.0)
            return asked_s or self._backoff_s(call.slow_downs_in_a_row)
        if asked_s:  # one row's wait; but refusals come at once, and without a window the next ones would be a flood
            self._pause(min(asked_s, MAX_BREATH_S), now)
            return asked_s
        if started >= self._paused_at:  # an attempt from before the pause tells nothing of what came after it
            self._slow_down_rounds += 1
        wait_s = self._backoff_s(self._slow_down_rounds)
        self._pause(wait_s, now)
        return wait_s

    def _pause(self, wait_s: float, now: float) -> None:
        self._paused_at = now
        self._sender.paused_until = max(self._sender.paused_until, now + wait_s)
        self._others.paused(self._sender.number, wait_s, is_everyones=False)
        self._observer.asked_to_slow_down(wait_s)

    def _pauses_everyone(self, asked_s: float, started: float, now: float) -> bool:
        """Whether everybody waits, since refusals that ask for a wait come without answers in between."""
        refused, pause = self._asked_to_wait, self._shared_pause
        refused.add(started, now)
        if not pause.is_on(now) and not refused.are_everyones(now, self._sender.in_flight_from):
            return False
        since = now if self._unanswered_since is None else self._unanswered_since
        pause.extend(now, asked_s, since + self._policy.max_pushback_s)
        self._others.paused(self._sender.number, asked_s, is_everyones=True)
        self._observer.asked_to_slow_down(asked_s)
        return True

    def is_left(self, call: OpenCall, due: float) -> bool:
        """Whether the call is not waited for: the wait that the service asked for ends after its `max_row_s`."""
        if due - call.began <= self._policy.max_row_s:
            return False
        self._left += 1
        self._left_until = min(self._left_until, due)
        return True

    def reason_to_end(self, now: float) -> Stop | None:
        """Why the run is not finished although there is nothing left to send: calls that are not waited for."""
        if not self._left:
            return None
        rows, wait = ("1 row" if self._left == 1 else f"{self._left:,} rows"), describe_wait(self._left_until - now)
        message = f"{rows} not answered: the service asks to wait {wait} (Retry-After), longer than retry.max_row_s"
        return Stop("refused", message, f"All other rows are done. Resume in {wait}.", "wait")

    def _backoff_s(self, failures: int) -> float:
        return backoff(max(1, failures), jitter=self._jitter(), cap_s=self._policy.max_wait_s)

    def describe_wait(self, now: float) -> str:
        """Whom the service asks to wait, and how long; "" where it does not."""
        if (until := max(self._sender.paused_until, self._shared_pause.until)) > now:
            return f"service asks to wait {math.ceil(until - now)} s"
        wait_s = self._last_calls_wait_s(now)
        return f"service asks the last rows to wait {math.ceil(wait_s)} s" if wait_s else ""

    def _last_calls_wait_s(self, now: float) -> float:
        """Seconds until the first call is due, where all that are left wait as the service asked them to; else 0."""
        sender = self._sender
        is_waiting = sender.is_exhausted and not sender.in_flight and sender.backlog.is_asked_to_wait
        return max(0.0, sender.backlog.due - now) if is_waiting else 0.0

    def unanswered_s(self, now: float) -> float:
        """Seconds for which nothing was answered, and several calls failed; 0 else."""
        return 0.0 if self._silent_since is None or not self._held.is_outage else now - self._silent_since

    def describe_silence(self, now: float, ending: str = "the run stops") -> str:
        """What a person should know who waits for answers in vain; "" where there is nothing to tell.

        `ending`: what the end of patience is for this queue.

        Where no further calls are left to be read, calls fail by themselves, and only refusals that cost no attempt
        stop the run.
        """
        since, failure = self._silent_since, self._silent_failure
        if since is None or failure is None or now - since < TOLD_AFTER_S:
            return ""
        words = f"for {TOLD_AFTER_S:g} s nothing was answered "
        rest = self._describe_end_of_silence(now, ending)
        return Quoting(f"{words}({failure.message}){rest}", f"{words}({in_short(failure)}){rest}")

    def _describe_end_of_silence(self, now: float, ending: str) -> str:
        """What comes of it where nothing is answered further on."""
        policy = self._policy
        if (wait_s := self._last_calls_wait_s(now)) and not self._shared_pause.is_on(now):
            return f"; the service asks the last rows to wait {describe_wait(wait_s)} more."
        seconds = f"{policy.max_pushback_s:g} s (retry.max_pushback_s)"
        if not self._sender.is_exhausted or (self._is_free and self._held.is_outage):
            sooner = "" if self._is_reached() else ", or once rows have used up their attempts: no connection was made"
            return f"; where that goes on, {ending} after {seconds}{sooner}."
        bound = (
            f"after {MAX_SLOW_DOWNS} refusals and {seconds}"
            if self._is_free
            else "after its attempts (retry.max_attempts)"
        )
        latest = f"at its first failure after {policy.max_row_s:g} s (retry.max_row_s)"
        return f"; where that goes on, each of the last rows fails {bound}, or {latest}."


def _may_be_paid_for(failure: Failure) -> bool:
    """Whether it came with a success status: each such attempt may be billed, so none is made for nothing."""
    return failure.status is not None and failure.status < 300  # noqa: PLR2004 - HTTP's successes
