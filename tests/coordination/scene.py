"""A coordinator with a clock, and owners that behave."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from cometbatch.control.coordination.coordinator import Coordinator
from cometbatch.control.coordination.messages import (
    Claim,
    Claimed,
    Drive,
    Driven,
    Join,
    Lease,
    Leave,
    News,
    QueueReport,
    Renew,
    Reply,
    Report,
    Request,
    Verdict,
    Watch,
)
from cometbatch.control.coordination.settings import Settings
from cometbatch.results import tallies

TICK_S = 0.1


def settings(**changed: object) -> Settings:
    """Two owners with 16 requests in flight between them, and no limits, unless told otherwise."""
    given: dict[str, object] = {"owners": 2, "concurrency": 16} | changed
    return Settings(**given)  # type: ignore[arg-type] # the test names fields


class Scene:
    """One coordinator, whose driver speaks at each tick unless `is_driven` is off."""

    def __init__(
        self, setting: Settings, ranges: Sequence[int] = range(100), lines: Iterable[bytes] | None = None
    ) -> None:
        self.now = 1000.0
        self.setting, self.ranges = setting, ranges
        self.coordinator = Coordinator(setting, ranges, tallies.add, lines=lines)
        self.is_driven = True
        self.lines: list[bytes] = []
        self._renewals: dict[int, int] = {}
        self.leases: dict[int, Lease] = {}
        self.drive()

    def drive(self, **said: object) -> Driven:
        """The driver's word."""
        driven = self.coordinator.drive(Drive(**said), self.now)  # type: ignore[arg-type] # the test names fields
        self.lines.extend(self.coordinator.unwritten())
        return driven

    def wait(self, seconds: float) -> None:
        """Let time pass, with the coordinator awake."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now = min(end, self.now + TICK_S)
            if self.is_driven:
                self.drive()
            self.coordinator.tick(self.now)

    def stand_still(self, seconds: float) -> None:
        """Let time pass without the coordinator."""
        self.now += seconds

    def ask(self, request: Request) -> Reply:
        reply = self.coordinator.handle(request, self.now)
        self.lines.extend(self.coordinator.unwritten())
        if isinstance(reply, Lease):
            self.leases[request.owner] = reply
        return reply

    def join(self, owner: int) -> Lease:
        reply = self.ask(Join(owner))
        assert isinstance(reply, Lease)
        return reply

    def renew(self, owner: int, report: Report | None = None, *, closed: tuple[int, ...] = ()) -> Lease:
        """Renew with the newest lease that the owner has."""
        number = self._renewals[owner] = self._renewals.get(owner, 0) + 1
        lease = self.leases[owner].number if owner in self.leases else 0
        reply = self.ask(Renew(owner, number, lease, report or busy(), closed))
        assert isinstance(reply, Lease)
        return reply

    def claim(self, owner: int, after: int = -1, closed: tuple[int, ...] = ()) -> Claimed:
        reply = self.ask(Claim(owner, after, closed))
        assert isinstance(reply, Claimed)
        return reply

    def take(self, owner: int, after: int = -1, closed: tuple[int, ...] = ()) -> int:
        """Claim one range."""
        (assigned,) = self.claim(owner, after, closed).ranges
        return assigned.range

    def watch(self, owner: int, seen: int = 0) -> News:
        reply = self.ask(Watch(owner, seen))
        assert isinstance(reply, News)
        return reply

    def say(self, request: Request) -> bool:
        """Whether the owner may go on."""
        reply = self.ask(request)
        assert isinstance(reply, Verdict)
        return not reply.is_lost

    def leave(self, owner: int, report: Report | None = None, **said: object) -> bool:
        return self.say(Leave(owner, report or Report(), **said))  # type: ignore[arg-type] # the test names fields


def busy(sent: int = 0, waiting: int = 1000, in_flight: int = 0, **said: object) -> Report:
    """An owner that has rows waiting."""
    queue = QueueReport(0, sent=sent, waiting=waiting, in_flight=in_flight)
    return Report((queue,), **said)  # type: ignore[arg-type] # the test names fields


def usd(amount: str | float) -> Decimal:
    """US dollars."""
    return Decimal(str(amount))
