"""One adaptive rate for all owners: a service is pestered hardly more by eight owners than by one process."""

import heapq
import itertools
import math
import random
from collections.abc import Callable

import pytest

from cometbatch.control.coordination.coordinator import Coordinator
from cometbatch.control.coordination.messages import (
    Drive,
    Join,
    Lease,
    News,
    QueueReport,
    Renew,
    Reply,
    Report,
)
from cometbatch.control.coordination.pace import Pace, report_s
from cometbatch.control.rate import AdaptiveRate
from cometbatch.control.window import ConcurrencyWindow
from cometbatch.results import tallies
from tests.coordination.scene import Scene, settings

PER_S, BURST, ROWS, CEILING = 100.0, 10.0, 2000, 64
REFUSED_S, NET_S = 0.003, 0.002


class Service:
    """Admits `PER_S` requests a second and refuses the others at once; and how many rows are left."""

    def __init__(self, seed: int, rows: int) -> None:
        self.now = 0.0
        self.chance = random.Random(seed)
        self.left = self.unanswered = rows
        self.refused = 0
        self.owners: list[Owner] = []
        self._bucket, self._filled_at = BURST, 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def admits(self) -> bool:
        self._bucket = min(BURST, self._bucket + (self.now - self._filled_at) * PER_S)
        self._filled_at = self.now
        is_admitted = self._bucket >= 1
        self._bucket -= is_admitted
        self.refused += not is_admitted
        return is_admitted

    def run(self) -> None:
        while self.unanswered:
            self.now, _, event = heapq.heappop(self._events)
            event()


class Sender:
    """What of an owner sends: a window, rows of the service, and a rate of its own or a leased one."""

    def __init__(self, service: Service, window: ConcurrencyWindow) -> None:
        self.service, self.window = service, window
        self.in_flight = 0
        self.may_send: Callable[[], bool] = lambda: True
        self._wakes_at = math.inf

    def send(self) -> None:
        service, now = self.service, self.service.now
        while service.left and self.may_send():
            if (wait_s := self.window.wait_s(now, self.in_flight)) > 0:
                self._wake(wait_s)
                return
            service.left -= 1
            self.in_flight += 1
            self.window.sent(now)
            if service.admits():
                latency_s = service.chance.uniform(0.1, 0.3)
                # The lambda's default is the value of now, which the type checker can't infer.
                service.later(latency_s, lambda latency_s=latency_s: self._answered(latency_s))  # type: ignore[misc]
            else:
                service.later(REFUSED_S, lambda: self._refused(now))

    def _answered(self, latency_s: float) -> None:
        self.in_flight -= 1
        self.service.unanswered -= 1
        self.window.answered(self.service.now, latency_s)
        self.send()

    def _refused(self, sent_at: float) -> None:
        self.in_flight -= 1
        self.service.left += 1
        self.window.refused(self.service.now, sent_at)
        self.send()

    def _wake(self, wait_s: float) -> None:
        at = self.service.now + wait_s
        if wait_s < math.inf and (at < self._wakes_at or self._wakes_at <= self.service.now):
            self._wakes_at = at
            self.service.later(wait_s, self.send)


class LeasedRate(AdaptiveRate):
    """A rate that another has worked out; counts what that needs to know."""

    def __init__(self) -> None:
        super().__init__()
        self.sends = self.bound = self.refusals = 0
        self.sending_per_s = 0.0
        self.on_first: Callable[[], None] = lambda: None

    def sent(self, now: float, *, is_binding: bool) -> None:
        self.sends += 1
        self.bound += is_binding

    def refused(self, sending_per_s: float) -> None:
        self.refusals += 1
        self.sending_per_s = sending_per_s
        if self.refusals == 1:
            self.on_first()

    def outage_began(self, now: float) -> None:
        """Told by the report."""

    def outage_ended(self, now: float) -> None:
        """Told by the report."""


class Owner:
    """A sender that is told its rate and its ceiling by a coordinator."""

    def __init__(self, service: Service, coordinator: Coordinator, number: int, *, is_prompt: bool) -> None:
        self.service, self.coordinator, self.number = service, coordinator, number
        self.rate = rate = LeasedRate()
        self.lease = Lease(0)
        self.renewed = 0
        window = ConcurrencyWindow(CEILING)
        window.rate = self.rate
        self.sender = Sender(service, window)
        self.seen = 0
        service.owners.append(self)
        if is_prompt:
            rate.on_first = self.renew
        self.sender.may_send = lambda: self.sender.in_flight < self.lease.ceiling
        self.take(coordinator.handle(Join(number), service.now))

    def renew(self, planned: int | None = None) -> None:
        if planned not in (None, self.renewed):
            return
        self.renewed += 1
        service, rate, sender = self.service, self.rate, self.sender
        waiting = min(service.left, max(0, min(self.lease.ceiling, sender.window.window) - sender.in_flight))
        report = QueueReport(
            0,
            rate.sends,
            rate.bound,
            rate.refusals,
            rate.sending_per_s,
            waiting=waiting,
            in_flight=sender.in_flight,
            is_out=sender.window.is_probing,
        )
        request = Renew(self.number, self.renewed, self.lease.number, Report((report,)))
        service.later(NET_S, lambda: self.arrive(request))

    def arrive(self, request: Renew) -> None:
        reply = self.coordinator.handle(request, self.service.now)
        self.service.later(NET_S, lambda: self.take(reply))
        for owner in self.service.owners:
            news = self.coordinator.news_beyond(owner.seen, owner.number, self.service.now)
            if news is not None:
                owner.seen = news.number
                # The lambda's default is the value of now, which the type checker can't infer.
                self.service.later(NET_S, lambda owner=owner, news=news: owner.hear(news))  # type: ignore[misc]

    def take(self, reply: Reply) -> None:
        assert isinstance(reply, Lease)
        self.lease = reply
        self.hear(reply)
        renewed = self.renewed
        self.service.later(reply.ask_again_s, lambda: self.renew(renewed))
        self.sender.send()

    def hear(self, reply: Lease | News) -> None:
        for told in reply.queues:
            self.rate.per_s = math.inf if told.per_s is None else told.per_s


def alone(seed: int) -> Service:
    """One process does all rows."""
    service = Service(seed, ROWS)
    Sender(service, ConcurrencyWindow(CEILING)).send()
    service.run()
    return service


def together(seed: int, count: int, *, is_prompt: bool = True) -> Service:
    """Owners share one coordinator. `is_prompt`: they say at once that something was refused for the first time."""
    service = Service(seed, ROWS)
    setting = settings(owners=count, concurrency=CEILING, adaptive=True)
    coordinator = Coordinator(setting, range(1), tallies.add)

    def drive() -> None:
        coordinator.drive(Drive(), service.now)
        service.later(0.1, drive)

    drive()
    for number in range(1, count + 1):
        Owner(service, coordinator, number, is_prompt=is_prompt)
    service.run()
    return service


@pytest.mark.parametrize("count", [1, 8])
def test_owners_are_refused_hardly_more_than_one_process(count: int) -> None:
    """At most 1.5 times as often, for 2,000 rows at 100 a second, and they are as fast."""
    one, many = alone(1), together(1, count)
    assert many.refused <= 1.5 * one.refused
    assert many.now <= 1.05 * one.now


def test_owners_that_speak_only_when_they_were_told_to_are_refused_little() -> None:
    """Where the first refusal is heard with the next renewal alone."""
    one, many = alone(1), together(1, 8, is_prompt=False)
    assert many.refused <= 1.5 * one.refused
    assert many.now <= 1.2 * one.now


def test_the_rate_is_shared_by_what_owners_can_use() -> None:
    """An owner that has few rows keeps enough to begin with when it gets more."""
    pace = Pace()
    assert pace.shares() == {}
    pace.join(1, 0.0)
    pace.join(2, 0.0)
    pace.heard(1, QueueReport(0, sent=100, refused=20, sending_per_s=100.0, waiting=50), 1.0)
    pace.heard(2, QueueReport(0, waiting=0), 1.0)
    assert pace.per_s is not None
    shares = pace.shares()
    assert sum(shares.values()) == pytest.approx(pace.per_s)
    assert shares[2] == pytest.approx(pace.per_s / 16)
    pace.drop(2)
    assert pace.shares() == {1: pytest.approx(pace.per_s)}
    pace.drop(1)
    assert pace.shares() == {}


def test_nothing_is_bounded_before_something_was_refused() -> None:
    """And then everybody is told at once."""
    scene = Scene(settings(adaptive=True))
    scene.join(1)
    scene.join(2)
    assert scene.drive().per_s == (None,)
    seen = scene.coordinator.news
    scene.wait(0.1)
    scene.renew(1, Report((QueueReport(0, sent=9, refused=8, sending_per_s=50.0, waiting=1),)))
    news = scene.coordinator.news_beyond(seen, 2, scene.now)
    assert news is not None
    assert news.queues[0].per_s is not None
    (per_s,) = scene.drive().per_s
    assert per_s is not None
    assert scene.leases[1].ask_again_s <= report_s(2) == 0.1


def test_a_refusal_of_what_was_sent_long_before_counts() -> None:
    """It came with a report that says of nothing else."""
    pace = Pace()
    pace.join(1, 0.0)
    pace.heard(1, QueueReport(0, sent=20, in_flight=1), 0.5)
    pace.heard(1, QueueReport(0, sent=20, refused=7, sending_per_s=40.0), 1.0)
    assert pace.per_s is not None
    assert pace.per_s <= 36.0


def test_an_outage_is_one_only_where_nobody_is_answered() -> None:
    """Then the rate is taken up again where it was, and not where the refusals of a dead service left it."""

    def rates(*, is_everyone_out: bool) -> tuple[float, float]:
        pace, now = Pace(), 0.0
        pace.join(1, now)
        pace.join(2, now)
        sent = refused = 0
        while now < 30:
            now += 0.1
            sent += 5
            refused += 2 * (now < 0.75)
            for owner in (1, 2):
                pace.heard(owner, QueueReport(0, sent, sent, refused, 50.0, waiting=5, in_flight=2), now)
        before = pace.per_s or 0.0
        for _ in range(50):
            now += 0.1
            pace.heard(1, QueueReport(0, sent, sent, refused + 40, 50.0, in_flight=1, is_out=True), now)
            pace.heard(2, QueueReport(0, sent, sent, refused, 50.0, in_flight=1, is_out=is_everyone_out), now)
        pace.heard(1, QueueReport(0, sent, sent, refused + 40, 50.0), now)
        pace.heard(2, QueueReport(0, sent, sent, refused, 50.0), now)
        pace.heard(1, QueueReport(0, sent, sent, refused + 40, 50.0, in_flight=1), now)
        return before, pace.per_s or 0.0

    before, after = rates(is_everyone_out=True)
    assert after >= 0.8 * before
    before, after = rates(is_everyone_out=False)
    assert after < 0.8 * before
