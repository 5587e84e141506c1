"""What an attempt means: each reply gets its verdict, and each verdict has one place that acts on it."""

from collections.abc import Callable
from datetime import datetime
from typing import assert_never

from cometbatch.control.attribution import Cause, HeldFailure, HeldFailures
from cometbatch.control.failure_words import in_short
from cometbatch.control.window import ConcurrencyWindow
from cometbatch.errors import Quoting
from cometbatch.records import (
    Abort,
    Completion,
    Failure,
    FailureKind,
    GiveUp,
    HttpResponse,
    Retry,
)
from cometbatch.runner.asks import Asks
from cometbatch.runner.books import Books
from cometbatch.runner.patience import Patience
from cometbatch.runner.ports import Stop
from cometbatch.runner.sending import Sender
from cometbatch.runner.sharing import Shared
from cometbatch.runner.slots import OpenCall, Slot

ACCOUNT_FAILURES: frozenset[FailureKind] = frozenset({"auth", "credit"})  # of the key or the account
SLOW_DOWN_FAILURES: frozenset[FailureKind] = frozenset({"rate_limited", "overloaded"})  # sending less may end them


class Attempts:
    """Acts on what the service's replies mean for their calls, for their queue, and for the run.

    `number`: of the queue, which `stop` stops alone. `end`: where nothing is left that it could send.
    """

    def __init__(
        self,
        number: int,
        shared: Shared,
        *,
        sender: Sender,
        books: Books,
        asks: Asks,
        patience: Patience,
        held: HeldFailures[OpenCall],
        window: ConcurrencyWindow | None,
        stop: Callable[[Stop], None],
        end: Callable[[Stop], None],
    ) -> None:
        self._number = number
        self._service = shared.service
        self._sender = sender
        self._books = books
        self._asks = asks
        self._patience = patience
        self._held = held
        self._account = shared.account
        self._window = window
        self._observer = shared.observer
        self._others = shared.others
        self._max_wait_s = shared.policy.max_wait_s
        self._stop = stop
        self._end = end
        self._stop_all = shared.stop

    def conclude(self, slot: Slot, now: float, moment: datetime) -> None:
        """Judge what came back to a slot. `now` is the loop's time, `moment` that of the wall clock."""
        asked = slot.call.request
        reply, parsed = self._service.read(asked, slot.result, len(asked.http.body) + asked.image_tokens)
        if isinstance(parsed, Completion):
            assert isinstance(reply, HttpResponse)  # noqa: S101 - a completion is parsed from a response alone
            self._answered(slot, parsed, reply, now, moment)
            return
        verdict = self._service.classify(reply, parsed)
        may_be_billed = self._books.unanswered(slot, reply, None if parsed is None else parsed.usage)
        match verdict:
            case Retry():
                self._retry(slot, verdict, now, may_be_billed=may_be_billed)
            case GiveUp(failure=failure, path_mistake=path_mistake):
                self._give_up(slot, failure, "wrong_address" if path_mistake else "refusal")
            case Abort() if self._is_unknown_model(slot, verdict):
                self._give_up(slot, verdict.failure, "refusal")
            case Abort() if self._is_doubtful(slot, verdict):
                retry = Retry(verdict.failure, retry_after_s=verdict.retry_after_s)
                self._retry(slot, retry, now, may_be_billed=may_be_billed, abort=verdict)
            case Abort():
                self._abort(verdict)
            case _:
                assert_never(verdict)

    def _answered(self, slot: Slot, completion: Completion, reply: HttpResponse, now: float, moment: datetime) -> None:
        cost = self._books.answered(slot, completion.usage)
        is_any_held = self._held.answered(now)
        self._patience.answered(slot.started)
        if self._window is not None:
            self._window.answered(now, slot.latency_s)
        if is_any_held:
            self.release_held(now)
        self._asks.answered(slot, completion, reply, cost, moment)

    def _is_unknown_model(self, slot: Slot, abort: Abort) -> bool:
        """Whether a refusal is of a model that the call's row names, and that nobody knows."""
        return abort.failure.kind == "model_not_found" and self._service.whose_model(slot.call.request) == "nobody"

    def _is_doubtful(self, slot: Slot, abort: Abort) -> bool:
        """Whether a refusal of everyone may be one route's, since others were answered with the same key and model.

        A model may have been there in an earlier session, but a key may be another one since. A model that a row names
        is its own.
        """
        if abort.is_certain:
            return False
        if abort.failure.kind == "model_not_found":
            return self._held.works or self._service.whose_model(slot.call.request) != "run"
        return self._held.answers > 0 if abort.is_of_model else self._account.is_doubtful(self._number)

    def _abort(self, abort: Abort) -> None:
        failure, stop = abort.failure, self._stop if abort.is_of_model else self._stop_all
        stop(Stop("refused", Quoting(failure.message, in_short(failure)), abort.hint, abort.fix))

    def _retry(
        self, slot: Slot, verdict: Retry, now: float, *, may_be_billed: bool, abort: Abort | None = None
    ) -> None:
        """Try again, or fail. `abort`: what it means where everybody is refused, and not this call alone."""
        call, failure, started, is_tail = slot.call, verdict.failure, slot.started, self._sender.is_exhausted
        patience = self._patience
        is_of_account = abort is not None and failure.kind in ACCOUNT_FAILURES
        self._tell_window(verdict, now, started)
        patience.count(call, verdict, now)
        if abort is not None and is_of_account and patience.account_refused(call, started, now):
            self._abort(abort)
        elif (reason := patience.reason_to_stop(failure, now, is_tail=is_tail)) is not None:
            self._stop(reason)
        elif patience.is_used_up(call, failure, now, may_be_billed=may_be_billed, is_tail=is_tail):
            is_there = self._held.works or self._service.is_reached()
            is_in_doubt = is_of_account and patience.met_no_answer(call)
            self._give_up(slot, failure, "account" if is_in_doubt else "exhausted" if is_there else "unreached")
        else:
            wait_s = patience.wait_s(call, verdict, started, now, is_adaptive=self._window is not None)
            is_asked = bool(verdict.retry_after_s)
            if is_asked and patience.is_left(call, now + wait_s):
                self._books.leave(call)
            else:
                self._observer.retried()
                is_long = is_asked and wait_s > self._max_wait_s  # then it keeps no others from being read
                self._sender.backlog.put(call, now + wait_s, is_asked=is_asked, is_long=is_long)

    def _tell_window(self, verdict: Retry, now: float, started: float) -> None:
        if self._window is None:
            return
        if verdict.slow_down or verdict.failure.kind in SLOW_DOWN_FAILURES:
            self._window.refused(now, started)
        elif verdict.failure.kind == "timeout":
            self._window.timed_out(now, started)
        else:
            self._window.failed(now, started)

    # -- the call's own failure, or everyone's -----------------------------------------------------------------------

    def _give_up(self, slot: Slot, failure: Failure, cause: Cause) -> None:
        """The call fails, or is held until it is known whether the failure is its own."""
        held = HeldFailure(slot.call, failure, slot.latency_s, cause, slot.call.unanswered_in_a_row)
        certain = [held]
        if self._held.should_hold(held):
            certain = self._held.hold(held)
            self._others.held()
        for each in certain:
            self._fail(each)
        self.stop_over_held()

    def _fail(self, failed: HeldFailure[OpenCall]) -> None:
        self._books.fail(failed.call, failed.failure, failed.latency_s)
        self._patience.failed_for_good()

    def stop_over_held(self, *, is_over: bool = False) -> None:
        """Stop the queue where what is held is too much, or where nothing else is left (`is_over`)."""
        reason = self._held.reason_to_stop(is_over=is_over)
        if reason is not None:
            self._stop(Stop("refused", reason.message, reason.hint, reason.fix))

    def settle_held(self, now: float) -> None:
        """There are no more calls: what is not everyone's failure is its call's own, but for calls not waited for."""
        self.stop_over_held(is_over=True)
        if not self._sender.is_closed:
            for held in self._held.release():
                self._fail(held)
            if (reason := self._patience.reason_to_end(now)) is not None:
                self._end(reason)

    def release_held(self, now: float) -> None:
        """Somebody is answered: what was held is its call's own failure, or gets a second chance."""
        if self._sender.is_closed:  # the next session sends them again: the stop has said that they are not recorded
            return
        for held in self._held.release():
            call = held.call
            if held.cause in {"exhausted", "unreached"} and not call.had_second_chance:
                call.had_second_chance = True
                call.begin_anew()
                self._sender.backlog.put(call, now)
            else:
                self._fail(held)
