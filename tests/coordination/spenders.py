"""Owners that spend money, on ranges of calls: killed, stopped and taken over at will."""

import itertools
from collections.abc import Callable
from decimal import Decimal

from cometbatch.control.coordination.messages import (
    Claim,
    Claimed,
    Commit,
    Found,
    Lease,
    Leave,
    QueueReport,
    Renew,
    Reply,
    Report,
    Request,
    Verdict,
)
from tests.coordination.owners import SILENCE_S, World

CALLS = 20  # in each range
WORST = Decimal("0.03")  # US dollars, of any call
IN_FLIGHT = 4
MARKS = Decimal("0.01")


class Books:
    """What really was spent, and what the journals say: by range and owner."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.billed = Decimal(0)
        self.outcomes: dict[int, set[int]] = {}
        self.booked: dict[tuple[int, int], Decimal] = {}
        self.marks: dict[tuple[int, int], dict[int, Decimal]] = {}
        self.commits: dict[int, int] = {}
        self.numbers = itertools.count(1)

    def spent_in(self, range_: int, owner: int) -> Decimal:
        """In an owner's journal of a range, marks at their most."""
        at_most = sum(self.marks.get((range_, owner), {}).values(), Decimal(0))
        return self.booked.get((range_, owner), Decimal(0)) + at_most


class Spender:
    """One owner: some calls in flight at a time, each with its cost set aside before it is sent."""

    def __init__(self, world: World, books: Books) -> None:
        self.world, self.books = world, books
        self.number = next(books.numbers)
        self.lease, self.ends_at = Lease(0, money_usd=Decimal(0)), 0.0
        self.spent = self.reserved = Decimal(0)
        self.wanted: Decimal | None = None
        self.in_flight = 0
        self.is_dead = self.is_lost = self.has_left = self.is_stopped = False
        self.frozen_until = 0.0
        self.range: int | None = None
        self.last = -1
        self.todo: list[int] = []
        self.closed: list[int] = []
        self.asking: object = None
        self._renewals = itertools.count(1)
        self._renewed = 0
        self.renew()

    @property
    def is_over(self) -> bool:
        return self.is_dead or self.is_lost or self.has_left

    @property
    def may_send(self) -> bool:
        return not self.is_over and self.ends_at > self.world.now >= self.frozen_until

    def _when_awake(self, event: Callable[[], None]) -> None:
        if self.is_dead:
            return
        if self.world.now < self.frozen_until:
            self.world.later(self.frozen_until - self.world.now, lambda: self._when_awake(event))
            return
        event()

    def report(self) -> Report:
        queue = QueueReport(0, waiting=len(self.todo), in_flight=self.in_flight)
        return Report((queue,), self.spent, self.reserved, self.wanted, self.in_flight > 0)

    def renew(self, after: int | None = None) -> None:
        if self.is_over or after not in (None, self._renewed):
            return
        self._renewed = next(self._renewals)
        number, asked_at = self._renewed, self.world.now
        request = Renew(self.number, number, self.lease.number, self.report(), tuple(self.closed))
        self.world.ask(request, lambda reply: self._when_awake(lambda: self._take(reply, asked_at)))
        self.world.later(SILENCE_S, lambda: self._when_awake(lambda: self.renew(number)))

    def _take(self, reply: Reply, asked_at: float) -> None:
        assert isinstance(reply, Lease)
        self.is_lost = self.is_lost or reply.is_lost
        if reply.number > self.lease.number and not self.is_over:
            self.lease, self.ends_at = reply, asked_at + reply.valid_s
            self.is_stopped = bool(reply.stops)
            renewed = self._renewed
            self.world.later(reply.ask_again_s, lambda: self._when_awake(lambda: self.renew(renewed)))
            self.work()

    def work(self) -> None:
        if self.is_over:
            return
        if self.is_stopped:
            self._leave_when_done()
        elif self.range is None:
            self._claim()
        elif not self.todo and not self.in_flight:
            self._commit(self.range)
        while self.todo and self.in_flight < IN_FLIGHT and not self.is_stopped and self._may_send():
            self._send(self.todo.pop(0))

    def _may_send(self) -> bool:
        has_room = self.spent + self.reserved + WORST <= (self.lease.money_usd or Decimal(0))
        is_first = self.wanted is None
        self.wanted = None if has_room else WORST
        if not has_room and is_first:
            self.renew()
        return has_room and self.world.now < self.ends_at

    def _send(self, call: int) -> None:
        assert self.range is not None
        range_ = self.range
        self.in_flight += 1
        self.reserved += WORST
        self.books.marks.setdefault((range_, self.number), {})[call] = WORST
        cost = (WORST * self.world.random.randrange(10, 101) / 100).quantize(Decimal("0.0001"))
        self.books.billed += cost
        after = self.world.random.uniform(0.05, 0.6)
        self.world.later(after, lambda: self._when_awake(lambda: self._answered(range_, call, cost)))

    def _answered(self, range_: int, call: int, cost: Decimal) -> None:
        self.in_flight -= 1
        self.reserved -= WORST
        self.spent += cost
        books, place = self.books, (range_, self.number)
        if not self.is_lost:
            books.booked[place] = books.booked.get(place, Decimal(0)) + cost
            books.marks[place].pop(call)
            books.outcomes[range_].add(call)
        self.work()

    def _ask(self, request: Request, answered: Callable[[Reply], None]) -> None:
        """Until it is answered, which is once."""
        if self.asking is not None:
            return
        asking = self.asking = object()

        def again() -> None:
            if self.asking is asking and not self.is_over:
                self.world.ask(request, lambda reply: self._when_awake(lambda: once(reply)))
                self.world.later(SILENCE_S, lambda: self._when_awake(again))

        def once(reply: Reply) -> None:
            if self.asking is asking and not self.is_over:
                self.asking = None
                answered(reply)

        again()

    def _claim(self) -> None:
        def take(reply: Reply) -> None:
            assert isinstance(reply, Claimed)
            self.is_lost = self.is_lost or reply.is_lost
            if reply.is_over:
                self.is_stopped = True
                self.work()
            elif not reply.ranges:
                self.world.later(reply.ask_again_s, lambda: self._when_awake(self.work))
            else:
                (assigned,) = reply.ranges
                self.range = self.last = assigned.range
                self._find(list(assigned.earlier))

        self._ask(Claim(self.number, self.last, tuple(self.closed)), take)

    def _find(self, earlier: list[int]) -> None:
        """Tell what earlier owners have spent in the range, and go on with the rest."""
        assert self.range is not None
        if earlier:
            spent = self.books.spent_in(self.range, earlier[0])
            self._ask(Found(self.number, self.range, earlier[0], spent), lambda _: self._find(earlier[1:]))
            return
        if self.range in self.books.commits:
            self.closed.append(self.range)
            self.range = None
            self.work()
            return
        done = self.books.outcomes.setdefault(self.range, set())
        self.todo = [call for call in range(CALLS) if call not in done]
        self.work()

    def _commit(self, range_: int) -> None:
        def take(reply: Reply) -> None:
            assert isinstance(reply, Verdict)
            self.is_lost = self.is_lost or reply.is_lost
            if not self.is_lost and self.range == range_:
                assert self.world.now >= self.ends_at or range_ not in self.books.commits
                if self.world.now < self.ends_at:
                    self.books.commits[range_] = self.number
                    self.closed.append(range_)
                    self.range = None
                self.work()

        spent = self.books.booked.get((range_, self.number), Decimal(0))
        self._ask(Commit(self.number, range_, range_, spent), take)

    def _leave_when_done(self) -> None:
        if not self.in_flight:
            self._ask(Leave(self.number, self.report(), tuple(self.closed)), lambda _: self._left())

    def _left(self) -> None:
        self.has_left = True
