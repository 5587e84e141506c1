"""Owners as a coordinator meets them: on virtual time, over a net that delays and loses, killed and stopped at will."""

import heapq
import itertools
import random
from collections.abc import Callable

from cometbatch.control.coordination.coordinator import Coordinator
from cometbatch.control.coordination.messages import (
    Claim,
    Claimed,
    Drive,
    Join,
    Lease,
    QueueReport,
    Renew,
    Reply,
    Report,
    Request,
    decode_reply,
    decode_request,
    encode,
)
from cometbatch.control.coordination.settings import Settings
from cometbatch.results import tallies

TICK_S = 0.1
DRIVE_S = 0.2
SILENCE_S = 0.5  # after which an owner asks again that was not answered
BURST_S = 0.05


class World:
    """Virtual time, one coordinator, and the net between it and its owners. `loss`: share of messages that are lost."""

    def __init__(
        self, settings: Settings, seed: int = 0, *, loss: float = 0.0, delay_s: float = 0.002, ranges: int = 10_000
    ) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.loss, self.delay_s = loss, delay_s
        self.settings, self.ranges = settings, range(ranges)
        self.coordinator = Coordinator(settings, self.ranges, tallies.add)
        self.lines: list[bytes] = []  # what it has written down
        self.owners: list[Owner] = []
        self.watched: list[Callable[[], None]] = []  # called after each event
        self.frozen_until = self.dead_until = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.coordinator.drive(Drive(), 0.0)
        self._tick()

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        """Something happens this many seconds from now."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= until:
            at, _, event = heapq.heappop(self._events)
            self.now = max(self.now, at)
            event()
            for each in self.watched:
                each()
        self.now = until

    def ask(self, request: Request, answered: Callable[[Reply], None]) -> None:
        """Send a message there and the answer back, unless one of them is lost."""

        def arrive() -> None:
            if self.now < self.frozen_until:
                self.later(self.frozen_until - self.now, arrive)
                return
            if self.now < self.dead_until:
                return
            content = encode(self.coordinator.handle(decode_request(encode(request)), self.now))
            self.lines.extend(self.coordinator.unwritten())
            if self.random.random() >= self.loss:
                self.later(self._delay_s(), lambda: answered(decode_reply(content)))

        if self.random.random() >= self.loss:
            self.later(self._delay_s(), arrive)

    def freeze(self, seconds: float) -> None:
        """The coordinator stands still."""
        self.frozen_until = self.now + seconds

    def restart(self, seconds: float) -> None:
        """The coordinator is killed, and another takes its place some seconds later."""
        if self.now >= self.dead_until:
            self.dead_until = self.now + seconds
            self.coordinator = Coordinator(self.settings, self.ranges, tallies.add, lines=self.lines)

    def _delay_s(self) -> float:
        return self.random.uniform(0.2, 1.8) * self.delay_s

    def _tick(self) -> None:
        if self.now >= max(self.frozen_until, self.dead_until):
            self.coordinator.drive(Drive(), self.now)
            self.lines.extend(self.coordinator.unwritten())
        self.later(TICK_S, self._tick)


class Owner:
    """One owner, which sends as fast as it may while rows wait; `waiting`: how many there are."""

    def __init__(self, world: World, number: int, waiting: Callable[[], int] = lambda: 1000) -> None:
        self.world, self.number, self.waiting = world, number, waiting
        self.lease = Lease(0)
        self.ends_at = 0.0
        self.sent: list[float] = []
        self.is_dead = self.is_lost = False
        self.claims_at: list[float] = []
        self._bucket, self._filled_at = 0.0, world.now  # what has leaked out of it may be sent
        self._number = itertools.count(1)
        self._asked = 0
        self._sending = False
        world.owners.append(self)
        self._ask(Join(number))

    @property
    def share(self) -> float:
        """Requests a second that it may send now."""
        return (self.lease.requests_per_s or 0.0) if self.may_send else 0.0

    @property
    def may_send(self) -> bool:
        return not self.is_dead and not self.is_lost and self.world.now < self.ends_at

    def kill(self) -> None:
        """It is no more."""
        self.is_dead = True

    def report(self) -> Report:
        return Report((QueueReport(0, sent=len(self.sent), waiting=self.waiting()),))

    def renew(self) -> None:
        if not self.is_dead and not self.is_lost:
            self._ask(Renew(self.number, next(self._number), self.lease.number, self.report()))

    def _ask(self, request: Request) -> None:
        asked_at, self._asked = self.world.now, self._asked + 1
        asked = self._asked
        self.world.ask(request, lambda reply: self._take(reply, asked_at, asked))
        self.world.later(SILENCE_S, lambda: self.renew() if asked == self._asked else None)

    def _take(self, reply: Reply, asked_at: float, asked: int) -> None:
        if self.is_dead:
            return
        assert isinstance(reply, Lease)
        self.is_lost = self.is_lost or reply.is_lost
        if reply.number > self.lease.number:
            self._fill()
            self.lease = reply
            self.ends_at = asked_at + reply.valid_s
            self._bucket = min(self._bucket, self._burst())
        if asked == self._asked:
            self._asked += 1
            self.world.later(reply.ask_again_s, self.renew)
        if not self._sending:
            self._send()

    def _send(self) -> None:
        self._sending = self.may_send
        if not self._sending:
            return
        self._fill()
        while self.waiting() and self._passes():
            self.sent.append(self.world.now)
        if self.lease.turns is None and self.share:
            self.world.later(max(0.001, (1 - self._bucket) / self.share), self._send)
        else:
            self.world.later(0.005, self._send)

    def _passes(self) -> bool:
        if self.lease.turns is not None:
            return len(self.sent) < self.lease.turns
        if self._bucket < 1:
            return False
        self._bucket -= 1
        return True

    def _fill(self) -> None:
        self._bucket = min(self._burst(), self._bucket + self.share * (self.world.now - self._filled_at))
        self._filled_at = self.world.now

    def _burst(self) -> float:
        return max(1.0, BURST_S * (self.lease.requests_per_s or 0.0))


def claim_forever(owner: Owner, every_s: float = 0.2) -> None:
    """Have an owner ask for work, which it never ends: so it takes what silent owners have."""
    last = [-1]

    def take(reply: Reply) -> None:
        assert isinstance(reply, Claimed)
        owner.is_lost = owner.is_lost or reply.is_lost
        if reply.ranges:
            last[0] = reply.ranges[-1].range

    def ask() -> None:
        if not owner.is_dead and not owner.is_lost:
            owner.world.ask(Claim(owner.number, last[0]), take)
            owner.world.later(every_s, ask)

    ask()


def peak(times: list[float], span_s: float = 1.0) -> int:
    """The most that was sent within any span."""
    times = sorted(times)
    most, first = 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - span_s:
            first += 1
        most = max(most, last - first + 1)
    return most
