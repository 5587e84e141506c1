"""One owner of a run in its own process: the loop of a session alone, with ports that are leased from the coordinator.

Guards: without a lease nothing is sent, and nothing is committed. Once what it works on is another's, or whoever
started the process is gone, what is in flight is given up at once.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

from cometbatch.control.budget import Budget
from cometbatch.control.coordination import messages
from cometbatch.control.coordination.messages import (
    Claim,
    Commit,
    ErrorWords,
    Found,
    Join,
    Lease,
    Leave,
    Renew,
    StopOrder,
    Verdict,
)
from cometbatch.control.granted_account import GrantedAccount
from cometbatch.control.leased_rate import LeasedRate
from cometbatch.engines.asking import LAST_RETRY_S, LOST, Asking, retry_s
from cometbatch.engines.lease_clock import lease_clock
from cometbatch.engines.leased_sends import LeasedSends
from cometbatch.engines.line import Line, LineClosedError, LineError
from cometbatch.engines.owner_news import OwnerNews
from cometbatch.engines.owner_report import Reporting
from cometbatch.engines.session import Ports, run_partitions
from cometbatch.limiting.leased import LeasedLimits
from cometbatch.records import RejectedAsk
from cometbatch.run_state.claims import Claims
from cometbatch.run_state.in_flight import InFlightMarks
from cometbatch.run_state.ownership import Claimed, LostOwnerError
from cometbatch.run_state.partition import Partitions
from cometbatch.runner.hearing import Hearing, words_of
from cometbatch.runner.ports import Ended, Stop
from cometbatch.runner.turns import Runner

Open: TypeAlias = Callable[["Owner"], tuple[Partitions, InFlightMarks]]
"""Makes what an owner works on, once it has joined. The partitions' `Ownership` is the owner."""

SOONER_S: Final = 0.02
"""Seconds between two renewals at least, however urgent. Less is more traffic; more has requests wait for a share."""

REFUSED_S: Final = 0.05
"""Seconds after a refusal until it is told, at most: further ones that come meanwhile are told with it."""

SHORT_S: Final = 0.5
"""Seconds for which the next call finds no room in the grant, until an owner asks for a range that a lost one had: with
that the money comes back that the lost one has not spent. Longer is a longer halt; shorter is more traffic."""

LEAVE_S: Final = 5.0
"""Seconds that an owner tries to take its leave, at most. Once its lease has ended, that says the same."""

DRIVER_GONE: Final = Stop("terminated", "The command that started this worker has ended.")
GIVEN_AWAY: Final = Stop("terminated", LOST)


class _ToTell:
    """Whether something is to be told before the next renewal is due."""

    def __init__(self) -> None:
        self._is_any = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> None:
        """Something is."""
        self._timer = None
        self._is_any.set()

    def soon(self) -> None:
        """Something is, together with what comes in the next moment."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(REFUSED_S, self.now)

    def clear(self) -> None:
        """All of it is being told."""
        self._is_any.clear()

    async def wait(self, wait_s: float) -> None:
        """Wait for something, this long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._is_any.wait()


class _Shortage:
    """For how long the next call has found no room in the grant. `claims`: once there are some."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.claims: Claims | None = None
        self._clock = clock
        self._since: float | None = None

    def look(self, account: GrantedAccount) -> None:
        """Where it is long, ask for a range of a lost owner, whose grant may come back."""
        now = self._clock()
        if account.wanted is None:
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since >= SHORT_S and self.claims is not None:
            self._since = now
            self.claims.claim_of_others()


class Owner:
    """One owner's lease and ranges: it is the `Ownership` of its partitions. `worker`: its number.

    `limits`, `account`, `news`: what its ports are made of; `account` is None where there is no budget.
    """

    def __init__(
        self, worker: int, asking: Asking, clock: Callable[[], float], reporting: Reporting, concurrency: int
    ) -> None:
        """`concurrency`: requests that all owners together may have in flight."""
        self.worker = worker
        self.limits = LeasedLimits(clock)
        self.account: GrantedAccount | None = None
        self.news = OwnerNews(worker, asking, clock, concurrency)
        self._asking = asking
        self._clock = clock
        self._reporting = reporting
        self._renewals = 0
        self._was_waiting = False  # whether the last report said that there is something to send
        self._closed: list[int] = []  # ranges of which that is not known to have arrived
        self._to_tell = _ToTell()
        self._sends: LeasedSends | None = None
        self._shortage = _Shortage(clock)
        reporting.on_first = self._to_tell.now
        self.news.on_held = self._to_tell.soon
        asking.on_end = self._end

    # -- its lease ---------------------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Get the first lease. Raises `LostOwnerError`, `LineClosedError`."""
        while True:
            asked_at = self._clock()
            lease = await self._asking.ask(Join(self.worker), Lease)
            self._take(lease, asked_at)
            if self.limits.is_valid:
                return
            await self._asking.unless_over(min(lease.ask_again_s, LAST_RETRY_S))

    async def renew_forever(self) -> None:
        """Keep the lease, and tell how the owner goes on."""
        wait_s, tries = SOONER_S, 0
        while True:
            if tries:  # what is to be told can't change that nothing is granted
                await self._asking.unless_over(wait_s)
            else:
                await self._until_due(wait_s)
            try:
                wait_s = await self.renew()
                tries = 0 if self.limits.is_valid else tries + 1
            except LineClosedError:
                raise
            except LineError:
                tries += 1
            if tries:
                wait_s = retry_s(tries - 1)

    async def renew(self) -> float:
        """Get another lease; returns in how many seconds the next one is worth asking for. Raises `LineError`."""
        self._to_tell.clear()
        closed = tuple(self._closed)
        queues = self.news.report()
        self._was_waiting = any(each.waiting for each in queues)
        report = self._reporting.report(queues, self.account)
        asked_at = self._clock()
        message = Renew(self.worker, self._renewals + 1, self.limits.number, report, closed)
        lease = await self._asking.ask_once(message, Lease)
        self._renewals += 1
        self._reporting.confirmed()
        self._forget_closed(closed)
        self._take(lease, asked_at)
        return max(SOONER_S, min(lease.valid_s / 3, lease.ask_again_s))

    async def _until_due(self, wait_s: float) -> None:
        """Wait this long, or until something is to be told."""
        await self._asking.unless_over(min(wait_s, SOONER_S))
        if wait_s > SOONER_S:
            await self._to_tell.wait(wait_s - SOONER_S)

    def _take(self, lease: Lease, asked_at: float) -> None:
        if not self.limits.grant(lease, asked_at):
            return
        if lease.money_usd is not None:
            if self.account is None:
                self.account = GrantedAccount()
                self.account.on_short = self._to_tell.now
            self.account.grant(lease.money_usd)
            self._shortage.look(self.account)
        self.news.set_ceiling(lease.ceiling)
        self.news.hear(lease.queues)
        self.news.obey(lease.stops)
        if self._sends is not None:
            self._sends.go_on()
        self.news.send_ready()

    def _end(self) -> None:
        self.limits.end()
        self._to_tell.now()
        self.news.stop_now(GIVEN_AWAY if isinstance(self._asking.error, LostOwnerError) else DRIVER_GONE)

    def _short(self) -> None:
        """Only another lease lets a request pass. It comes in time where the coordinator knows that some wait."""
        if not self._was_waiting:
            self._to_tell.now()

    # -- its ranges: `Ownership` -------------------------------------------------------------------------------------

    def is_current(self) -> bool:
        """See `Ownership`."""
        return self.limits.is_valid

    async def more(self, after: int) -> Sequence[Claimed] | None:
        """See `Ownership`."""
        while True:
            closed = tuple(self._closed)
            told = await self._asking.ask(Claim(self.worker, after, closed), messages.Claimed)
            self._forget_closed(closed)
            if self.news.set_idle(is_idle=not told.ranges):
                self._to_tell.now()  # others can use its share
            if told.ranges:
                return [Claimed(each.range, each.earlier) for each in told.ranges]
            if told.is_over:
                return None
            await self._asking.unless_over(told.ask_again_s)

    async def of_others(self, after: int) -> Sequence[Claimed]:
        """See `Ownership`."""
        told = await self._asking.ask(Claim(self.worker, after, is_short=True), messages.Claimed)
        return [Claimed(each.range, each.earlier) for each in told.ranges]

    async def may_commit(self, range_: int, index: int, spent_usd: Decimal) -> None:
        """See `Ownership`."""
        tries = 0
        while True:
            await self._asking.ask(Commit(self.worker, range_, index, spent_usd), Verdict)
            if self.is_current():
                return
            await self._asking.unless_over(retry_s(tries))  # its lease has ended, and may be renewed
            tries += 1

    def found(self, range_: int, earlier: int, spent_usd: Decimal) -> None:
        """See `Ownership`."""
        self._asking.say(Found(self.worker, range_, earlier, spent_usd))

    def closed(self, range_: int) -> None:
        """See `Ownership`."""
        self._closed.append(range_)

    def _forget_closed(self, closed: Sequence[int]) -> None:
        self._closed = [each for each in self._closed if each not in closed]

    # -- its work ----------------------------------------------------------------------------------------------------

    def leased(self, ports: Ports) -> Ports:
        """The ports of a session alone, with limits, budget and rates that are leased."""
        account = self.account
        self._sends = LeasedSends(self.is_current, ports.service.send)
        return msgspec.structs.replace(
            ports,
            service=msgspec.structs.replace(ports.service, send=self._sends.send),
            limits=self.limits,
            budget=None if account is None else Budget(None, Decimal(0), shared=account),
            observer=self._reporting,
            queues=[msgspec.structs.replace(each, rate=LeasedRate(self._to_tell.soon)) for each in ports.queues],
            others=self.news,
        )

    @contextlib.contextmanager
    def heard(self, runner: Runner, partitions: Partitions) -> Iterator[None]:
        """While this runner sends."""
        self._reporting.begin(runner, partitions)
        self.limits.on_short = self._short
        hearing = self.news.begin(runner)
        if (owned := partitions.owned) is not None:
            self._shortage.claims = owned.claims
            owned.on_asks = lambda asks: _hand_on(asks, owned.queue_of, hearing)
        if self._asking.error is not None:
            self._end()
        yield

    async def leave(self, ended: Ended, error: Exception | None = None) -> None:
        """Tell what is left to tell, and that the owner has ended. All that can write has ended by now."""
        with contextlib.suppress(LineError, LostOwnerError, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await self._asking.all_said()
                await self._renew_once_more()
                words = None if error is None else ErrorWords.of(error)
                left = tuple(StopOrder(words_of(stop), queue=queue) for queue, stop in ended.queues.items())
                queues = self.news.report()
                report = self._reporting.report(queues, self.account)
                await self._asking.ask(Leave(self.worker, report, tuple(self._closed), words, left), Verdict)

    async def _renew_once_more(self) -> None:
        """So what only one report says has arrived before the last one says the rest."""
        tries = 0
        while True:
            try:
                await self.renew()
            except LineClosedError:
                raise
            except LineError:
                await self._asking.unless_over(retry_s(tries))
                tries += 1
            else:
                return


def _hand_on(asks: Mapping[int, Sequence[RejectedAsk]], queue_of: Callable[[int], int], hearing: Hearing) -> None:
    """What is recorded of calls without an outcome goes to the queues that send them."""
    for ordinal, of_call in asks.items():
        hearing.recorded(queue_of(ordinal), {ordinal: of_call})


async def run_owner(
    number: int,
    line: Line,
    opening: Open,
    ports: Ports,
    *,
    concurrency: int,
    tells_outcomes: bool = False,
    clock: Callable[[], float] = lease_clock,
) -> Ended:
    """Work on what the coordinator gives to this owner, until nothing is left, or it is told to stop.

    `number`: of the owner. `ports`: as for a session alone; limits, budget and rates are replaced by what is leased.
    `concurrency`: requests that all owners together may have in flight; `ports.policy` has the most of this one.
    `tells_outcomes`: the driver wants each outcome.

    Raises what `run_partitions` raised, once the coordinator knows of it; `LostOwnerError` where its ranges were given
    away, and `LineClosedError` where whoever started it is gone: then the process has to end.
    """
    asking = Asking(line)
    reporting = Reporting(tells_outcomes=tells_outcomes, then=ports.observer)
    owner = Owner(number, asking, clock, reporting, concurrency)
    try:
        await owner.join()
        asking.go_on(owner.renew_forever())
        asking.go_on(owner.news.watch())
        try:
            partitions, marks = opening(owner)
            ended = await run_partitions(
                partitions, marks, owner.leased(ports), watched=lambda runner: owner.heard(runner, partitions)
            )
        except Exception as error:
            if asking.error is not None:
                raise asking.error from error
            await asking.stop_background()
            await owner.leave(Ended(), error)
            raise
        asking.raise_if_over()
        await asking.stop_background()
        await owner.leave(ended)
        return ended
    finally:
        await asking.aclose()
