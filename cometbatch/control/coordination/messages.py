"""What owners, the driver and the coordinator say to each other: values alone, as they travel between processes.

An owner is one runner in one process for one session; it has a number, from 1, that no other owner of the session ever
gets. Each message of an owner is answered by one reply. Times are durations in seconds, never moments: clocks of two
processes, let alone of two machines, tell different times. Money is US dollars.

Laws: whatever is sent twice, or comes late, does no harm: counts that are sums are sums since the owner began, and an
older message than the newest one changes nothing.
"""

from decimal import Decimal
from typing import Final, Self, TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.control.attribution import Cause
from cometbatch.errors import Quoting, logged
from cometbatch.records import Fix, Tally

LEASE_S: Final = 1.0
"""Seconds that a lease lasts, up to `OWNERS_A_SECOND` owners. Longer keeps the rate of a dead owner unused for longer;
shorter is more traffic."""

OWNERS_A_SECOND: Final = 16
"""Owners up to which a lease lasts `LEASE_S`; with more it lasts longer in proportion: renewals stay as many."""

MARGIN: Final = 1.05
"""Times the length of a lease that the coordinator waits before it takes the lease for ended: clocks differ in rate."""

DRIVER_S: Final = 1.5
"""Seconds after the driver's last word, from which on nothing is granted: its workers must not outlive it."""

UNDER_WAY_S: Final = 0.4
"""Seconds for which the driver's last word, and a request that has left, may be under way: the fence is longer by that.
More has the next session wait for nothing; less lets an old request arrive after its first one."""

MIN_FENCE_S: Final = 3.0
"""Seconds that a fence lasts at least."""


# -- words that several messages have ----------------------------------------------------------------------------------


class StopWords(Struct, frozen=True, array_like=True):
    """Why sending ends: the fields of `runner.ports.Stop`. `logged`: its message without the service's own words."""

    kind: str
    message: str
    logged: str = ""
    hint: str = ""
    fix: Fix = "nothing"
    next_usd: Decimal | None = None


class ErrorWords(Struct, frozen=True, array_like=True):
    """What ended an owner: the name of an error's class, and what it says. `logged`: the same as a log may have it."""

    name: str
    words: str
    logged: str

    @classmethod
    def of(cls, error: Exception) -> Self:
        """What an error says."""
        words, said = str(error), error.args[0] if error.args else ""
        return cls(type(error).__name__, words, logged(said) if words == said else words)

    @property
    def message(self) -> str:
        """What it says, for a person; a log of it has `logged`."""
        return self.words if self.words == self.logged else Quoting(self.words, self.logged)


class StopOrder(Struct, frozen=True, array_like=True):
    """Send no more. `is_now`: give up what is in flight, too. `queue`: of this model alone; None is the whole run."""

    words: StopWords
    is_now: bool = False
    queue: int | None = None


class QueueReport(Struct, frozen=True, array_like=True):
    """What an owner has seen of one model. Counts are sums since the owner began; `held` and what follows are of now.

    `sent`: requests that left; `bound`: those of them that had waited for the adaptive rate. `refused`: refusals for
    lack of capacity; `sending_per_s`: how fast requests were sent before the last of them. `answers`: of any kind.
    `not_json`: answers that were no JSON while it was not known whether the service heeds what it is asked for; `cut`:
    of these, cut at the token cap; `is_json`: an answer was JSON. `held`: calls that are held since nobody is answered,
    by cause. `waiting`: calls that could be sent now, or will want to be before long. `in_flight`: requests.
    `is_out`: nothing is answered at present, and only probes are sent.
    """

    queue: int
    sent: int = 0
    bound: int = 0
    refused: int = 0
    sending_per_s: float = 0.0
    answers: int = 0
    not_json: int = 0
    cut: int = 0
    is_json: bool = False
    held: dict[Cause, int] = msgspec.field(default_factory=dict)
    waiting: int = 0
    in_flight: int = 0
    is_out: bool = False


class Report(Struct, frozen=True, array_like=True):
    """How an owner goes on.

    `queues`: what it has seen of each model, by its number. `spent_usd`: booked since it began, possible charges
    included. `reserved_usd`: set aside now. `wanted_usd`: what the next call can cost at most, where the grant has no
    room for it; None where nothing waits for money. `is_money_in_flight`: whether something in flight may give money
    back. `recorded`: a tally of the outcomes since it began. `outcomes`: encoded records of outcomes since the report
    before this one, where the driver wants each of them. `retries`, `pushbacks`: as the progress line counts them.
    `words`: what a person should read, since the last report; `waiting_for`: what holds back the next request.
    """

    queues: tuple[QueueReport, ...] = ()
    spent_usd: Decimal = Decimal(0)
    reserved_usd: Decimal = Decimal(0)
    wanted_usd: Decimal | None = None
    is_money_in_flight: bool = False
    recorded: Tally = Tally()
    outcomes: tuple[bytes, ...] = ()
    retries: int = 0
    pushbacks: int = 0
    words: tuple[str, ...] = ()
    waiting_for: str = ""
    largest_output_tokens: int = 0
    committed: tuple[int, ...] = ()
    """Partitions that it has committed since the report before this one."""
    unanswered_s: float = 0.0
    """Seconds for which nothing was answered, although requests failed or hung; 0 else."""


# -- what owners ask ---------------------------------------------------------------------------------------------------


class Join(Struct, frozen=True, array_like=True, tag=True):
    """An owner begins. Answered by `Lease`."""

    owner: int


class Renew(Struct, frozen=True, array_like=True, tag=True):
    """Let me go on. Answered by `Lease`. `number`: of this message, from 1. `lease`: number of the newest lease it has.

    `closed`: ranges that it is through with since it began to be told: all partitions have their part, or what is left
    gets no outcome in this session.
    """

    owner: int
    number: int
    lease: int
    report: Report = Report()
    closed: tuple[int, ...] = ()


class Claim(Struct, frozen=True, array_like=True, tag=True):
    """Give me work. Answered by `Claimed`. `after`: the last range that it was given, or -1: it reads upwards.

    `is_short`: it has work, but no money for it. It wants a range that a lost owner had, since whoever takes that over
    tells what the lost one has not spent.
    """

    owner: int
    after: int = -1
    closed: tuple[int, ...] = ()
    is_short: bool = False


class Commit(Struct, frozen=True, array_like=True, tag=True):
    """May this partition become a part? Answered by `Verdict`. `spent_usd`: what the owner has booked for its calls."""

    owner: int
    range: int
    index: int
    spent_usd: Decimal = Decimal(0)


class Found(Struct, frozen=True, array_like=True, tag=True):
    """What an earlier owner had booked in a range that was taken from it, marks at their most. Answered by `Verdict`.

    So what is left of that owner's money comes back once each range that it held is accounted for.
    """

    owner: int
    range: int
    earlier: int
    spent_usd: Decimal


class Pushback(Struct, frozen=True, array_like=True, tag=True):
    """The service asks to wait. Answered by `Verdict`; all other owners are told at once.

    `is_everyones`: everybody is refused; then this owner alone probes, and says `Resume` when one is answered.
    """

    owner: int
    queue: int
    wait_s: float
    is_everyones: bool = False


class Resume(Struct, frozen=True, array_like=True, tag=True):
    """A probe was answered: the pause of a model is over. Answered by `Verdict`."""

    owner: int
    queue: int


class Watch(Struct, frozen=True, array_like=True, tag=True):
    """Tell me once there is news beyond number `seen`. Answered by `News`, then or after `LEASE_S` at the latest."""

    owner: int
    seen: int = 0


class Stopping(Struct, frozen=True, array_like=True, tag=True):
    """An owner's calls show that the run, or a model of it, must stop. Answered by `Verdict`; everybody is told."""

    owner: int
    order: StopOrder


class Leave(Struct, frozen=True, array_like=True, tag=True):
    """The owner has ended in order: nothing of it is in flight, all is synced. Answered by `Verdict`.

    Its ranges may be given away at once, and what it did not spend is there for others. `error`: what ended it, which
    ends the run; None where nothing did. `left`: why some calls of its ranges get no outcome in
    this session although nobody was told to stop (the service asks them to wait for too long): it is the run's stop
    once all others have ended, where nothing else was.
    """

    owner: int
    report: Report = Report()
    closed: tuple[int, ...] = ()
    error: ErrorWords | None = None
    left: tuple[StopOrder, ...] = ()


Request: TypeAlias = Join | Renew | Claim | Commit | Found | Pushback | Resume | Watch | Stopping | Leave


# -- what the coordinator answers --------------------------------------------------------------------------------------


class QueueTold(Struct, frozen=True, array_like=True):
    """What an owner is told of one model. Counts are sums over all other owners since the run's session began.

    `per_s`: its share of the adaptive rate, requests a second; None where nothing was refused yet. `answers`,
    `not_json`, `cut`, `is_json`, `held`: as in `QueueReport`, of the others. `pause_s`: nobody may send for this long;
    0 is no pause. `pause`: number of that pause, which a later one raises.
    """

    queue: int
    per_s: float | None = None
    answers: int = 0
    not_json: int = 0
    cut: int = 0
    is_json: bool = False
    held: dict[Cause, int] = msgspec.field(default_factory=dict)
    pause_s: float = 0.0
    pause: int = 0


class Lease(Struct, frozen=True, array_like=True, tag=True):
    """An owner may send for `valid_s` from the moment at which it *asked*; nothing else lets it send.

    `number`: one more for each lease of the run. `requests_per_s`, `tokens_per_s`: its share of the limits; None where
    there is none; 0 where it has no share now. `turns`: where the limit on requests is low, how many requests it may
    send in all, since it joined, in place of a share; None elsewhere. `ask_again_s`: when it is worth asking again.
    `ceiling`: requests that it may have in flight. `money_usd`: granted since it joined, so that spent + reserved may
    never pass it; None where there is no budget. `is_lost`: its ranges are another's: it may never send or commit
    again.
    """

    number: int
    valid_s: float = 0.0
    requests_per_s: float | None = None
    turns: int | None = None
    tokens_per_s: float | None = None
    ask_again_s: float = LEASE_S / 3
    ceiling: int = 1
    money_usd: Decimal | None = None
    queues: tuple[QueueTold, ...] = ()
    stops: tuple[StopOrder, ...] = ()
    is_lost: bool = False


class Assigned(Struct, frozen=True, array_like=True):
    """A range that an owner works on from now on. `earlier`: owners of this session that had it before, in order."""

    range: int
    earlier: tuple[int, ...] = ()


class Claimed(Struct, frozen=True, array_like=True, tag=True):
    """Work. Nothing in `ranges` and not `is_over`: ask again in `ask_again_s`, as another owner may lose its own."""

    ranges: tuple[Assigned, ...] = ()
    is_over: bool = False
    ask_again_s: float = 0.2
    is_lost: bool = False


class Verdict(Struct, frozen=True, array_like=True, tag=True):
    """Taken note of. `is_lost`: as in `Lease`; a part must not be committed then."""

    is_lost: bool = False


class News(Struct, frozen=True, array_like=True, tag=True):
    """What can't wait for the next renewal. `number`: of the newest news. `queues`: what is to be told of models."""

    number: int
    queues: tuple[QueueTold, ...] = ()
    stops: tuple[StopOrder, ...] = ()
    is_lost: bool = False


Reply: TypeAlias = Lease | Claimed | Verdict | News


# -- what the driver asks ----------------------------------------------------------------------------------------------


class Drive(Struct, frozen=True, array_like=True):
    """The driver's word, at least each half second; without it nothing is granted (`DRIVER_S`). Answered by `Driven`.

    `stops`: orders to all owners, all that were given so far. `gone`: owners whose process is known to have ended, a
    hint: their ranges are given away once their leases are over. `seen_outcomes`: how many outcomes it has taken.
    `heard`: `at` of the newest answer that it has, 0 before the first: a word that comes late, or waited for a
    coordinator that stood still, must not tell of a driver that has died since. None where both are one process.
    """

    stops: tuple[StopOrder, ...] = ()
    gone: tuple[int, ...] = ()
    seen_outcomes: int = 0
    heard: float | None = None


class OwnerState(Struct, frozen=True, array_like=True):
    """An owner as the driver sees it. `silent_s`: seconds since its last word. `is_lost`, `has_left`: it is no more."""

    owner: int
    silent_s: float
    is_lost: bool
    has_left: bool


class Driven(Struct, frozen=True, array_like=True):
    """The session as the coordinator knows it. Tallies are sums over all owners, those that are gone included.

    `outcomes`: those since `seen_outcomes`; `is_over`: no range is left to be worked on, and nobody works.
    `spent_usd`: by all owners, what is not accounted for of lost ones at its most; None without a budget. `per_s`: the
    adaptive rate of each queue. `errors`: of owners that an error ended. `committed`: partitions, since the last word.
    """

    owners: tuple[OwnerState, ...] = ()
    recorded: Tally = Tally()
    outcomes: tuple[bytes, ...] = ()
    in_flight: int = 0
    retries: int = 0
    pushbacks: int = 0
    words: tuple[str, ...] = ()
    waiting_for: str = ""
    spent_usd: Decimal | None = None
    largest_output_tokens: int = 0
    per_s: tuple[float | None, ...] = ()
    stops: tuple[StopOrder, ...] = ()
    errors: tuple[ErrorWords, ...] = ()
    committed: tuple[int, ...] = ()
    is_over: bool = False
    unanswered_s: float = 0.0
    """The most of any owner that is there, as in `Report`."""
    at: float = 0.0
    """When it was said, by the coordinator's own clock: for the driver's next word to name, and for nothing else."""


def _plain(value: object) -> str:
    """Words that quote something travel as words."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} can't travel")


_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_plain)
_REQUEST: Final = msgspec.msgpack.Decoder(Request)
_REPLY: Final = msgspec.msgpack.Decoder(Reply)


def encode(message: Request | Reply | Drive | Driven) -> bytes:
    """A message as bytes."""
    return _ENCODER.encode(message)


def decode_request(content: bytes) -> Request:
    """What an owner asks. Raises `msgspec.MsgspecError` where these bytes are no request."""
    return _REQUEST.decode(content)


def decode_reply(content: bytes) -> Reply:
    """What the coordinator answers. Raises `msgspec.MsgspecError` where these bytes are no reply."""
    return _REPLY.decode(content)


def lease_s(owners: int) -> float:
    """Seconds that a lease lasts with this number of owners."""
    return LEASE_S * max(1.0, owners / OWNERS_A_SECOND)


def fence_s(owners: int) -> float:
    """Seconds after a driver's death from which on none of its owners sends: 3 s with few of them."""
    return max(MIN_FENCE_S, DRIVER_S + MARGIN * lease_s(owners) + UNDER_WAY_S)
