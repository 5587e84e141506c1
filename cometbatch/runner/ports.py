"""What the loop needs of others and tells them: protocols for those that have a state, values and functions else."""

from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.records import (
    Acceptance,
    AnsweredStatus,
    CallRequest,
    Completion,
    ErrorDetail,
    Fix,
    HttpRequest,
    HttpResponse,
    Outcome,
    Record,
    Refusal,
    TransportFailure,
    Usage,
)
from cometbatch.results.columns import status_of

Reply: TypeAlias = HttpResponse | TransportFailure
ExchangeResult: TypeAlias = HttpResponse | TransportFailure | Exception
"""What an exchange calls back with: as the network has it, still to be read."""
StopKind: TypeAlias = Literal["interrupted", "terminated", "hung_up", "refused", "budget"]


class Stop(Struct, frozen=True):
    """Why a run ended before its last call.

    `hint` says in a sentence what to do before the run is resumed; `fix` says the same as one word, for programs.
    `next_usd`: at a budget, what the next call can cost at most, in US dollars; None is unknown.
    """

    kind: StopKind
    message: str
    hint: str = ""
    fix: Fix = "nothing"
    next_usd: Decimal | None = None


class Ended(Struct, frozen=True):
    """How a run ended. `stop`: why the whole run ended before its last call; None where it did not.

    `queues`: why a queue ended before its last call, by its number, where that was its own affair: the model is not
    there, or its own calls alone are refused. Where each queue that was not finished has stopped, `stop` is the first
    of these stops.
    """

    stop: Stop | None = None
    queues: Mapping[int, Stop] = msgspec.field(default_factory=lambda: MappingProxyType({}))


class Calls(Protocol):
    """Where the calls of one queue come from."""

    on_room: Callable[[], None]

    @property
    def settling(self) -> Collection[object]:
        """What comes to its end by itself, after which there is room, as `on_room` tells."""

    @property
    def has_room(self) -> bool:
        """Whether another call may be asked for. Where it may not, `on_room` is called as soon as it may."""

    def ready_call(self) -> CallRequest | Outcome | None:
        """The same as `next_call` where the call can be had at once; `None` where room or input must be waited for."""

    async def next_call(self) -> CallRequest | Outcome | None:
        """The next call to send, or the outcome of one that needs no request; `None` after the last.

        Raises what reading the input, or writing an earlier record, raised.
        """

    def set_aside(self) -> None:
        """The queue has stopped while others go on: none of its open calls gets an outcome in this session.

        Called once, when all of its records are written and no call is being asked for. Nothing of the queue need be
        kept in memory then, and no call of it is asked for any more.
        """


class Records(Protocol):
    """Where the records of all queues go to."""

    def record(self, records: Sequence[Record]) -> None:
        """Write records down. When this returns, a killed process can't lose them. Raises where they can't be written.

        The asks and possible charges of a call come before its outcome, in one sequence or in an earlier one. All
        records of one sequence are of one queue.
        """

    def leave(self, ordinal: int) -> None:
        """The call gets no outcome in this session: it need not be kept in memory. All its records are written."""


class Marks(Protocol):
    """Which attempts are in flight, for the session that follows a crash. Each has a cell from its send to its end."""

    def begin(self, ordinal: int, ask: int, attempt: int, amount: Decimal | None) -> int:
        """Mark an attempt as in flight, before it is sent; returns its cell.

        `ask` and `attempt` count from 1, attempts within their ask. `amount`: US dollars that the attempt can cost at
        most; `None` is unknown.
        """

    def end(self, cell: int, *, recorded: bool) -> None:
        """The attempt is dealt with. Not called for one of which it is unknown whether its records were written.

        `recorded`: a record of its call that tells of this attempt (outcome, ask or possible charge) was written, so
        the cell is free once a sync has covered that record. False: the attempt can't have been billed, and the cell
        is free at once.
        """


class Observer(Protocol):
    """Who is told how the run goes; never the reason that it fails."""

    def recorded(self, outcomes: Sequence[Outcome], in_flight: int) -> None:
        """Outcomes were written down, at least one."""

    def asked_to_slow_down(self, wait_s: float) -> None:
        """The service asks to slow down; nobody sends for `wait_s` seconds."""

    def retried(self) -> None:
        """A call will be sent again."""


class RateLimits(Protocol):
    """How fast requests may leave. `counts_tokens`: whether `settle` has anything to do."""

    counts_tokens: bool

    @property
    def wait_s(self) -> float:
        """Seconds after which to try again, for a request that `take` did not let pass."""

    def take(self, estimated_tokens: int) -> float | None:
        """Let a request of about this many tokens pass, and return what it is charged, in tokens; None: not yet."""

    def settle(self, charge: float, estimated_tokens: int, actual_tokens: int) -> None:
        """Correct a charge once the service has said how many tokens the request really took."""


class OtherOwners(Protocol):
    """Who tells the other owners of a run what the calls of this one show."""

    def paused(self, queue: int, wait_s: float, *, is_everyones: bool) -> None:
        """The service asks to wait. `is_everyones`: everybody is refused, and a request at a time probes."""

    def held(self) -> None:
        """A failed call is held, since nobody is answered here: what others are answered tells whose failure it is."""

    def stopped(self, stop: Stop, queue: int | None) -> None:
        """The calls show that the run, or a queue of it, must stop; here it has stopped by now."""


class Alone:
    """A run without other owners."""

    def paused(self, queue: int, wait_s: float, *, is_everyones: bool) -> None:
        """There is nobody to tell."""

    def held(self) -> None:
        """There is nobody to tell."""

    def stopped(self, stop: Stop, queue: int | None) -> None:
        """There is nobody to tell."""


class Pace(Struct, frozen=True):
    """How fast a run may send at present: requests in flight at once, and requests per second (None: no bound)."""

    window: int
    per_s: float | None


class Sending(Protocol):
    """An exchange under way."""

    def cancel(self) -> None:
        """Give it up: nobody is called back any more."""


class Service(Struct, frozen=True):
    """The model service as the loop sees it: each function knows one thing, and none keeps a state of the run.

    `send` begins an exchange, and calls back once. `read` makes a reply of an exchange's result, with what the reply
    says (`None` where there is none), and raises an exception that is a mistake of ours; it is told the call, whose
    target has a wire format, and how many bytes of body were sent. `classify`: what an attempt means that brought no
    completion. `accept`: whether the completion that this ask of a call (from 1) brought is taken. `price`: US dollars
    that a call's answer cost; `None` is unknown. `max_cost`: US dollars that an attempt of a call costs at most, with
    this many tokens of input and at most this many of output (`None`: no bound), and with cache writes that are kept
    for an hour if the last argument says so; `None` is unknown. `request_id`: the service's name for an exchange.
    `is_reached`: whether a connection was ever made.
    `status`: whether an answer that is taken has succeeded. `whose_model`: where the service says that it does not know
    the model of a call, whether the run's model is meant, the row's own, or a row's that nobody knows.
    """

    send: Callable[[HttpRequest, Callable[[ExchangeResult], None]], Sending]
    read: Callable[[CallRequest, ExchangeResult, int], tuple[Reply, Completion | ErrorDetail | None]]
    classify: Callable[[Reply, ErrorDetail | None], Refusal]
    accept: Callable[[CallRequest, Completion, int], Acceptance]
    price: Callable[[CallRequest, Usage], Decimal | None]
    max_cost: Callable[[CallRequest, int, int | None, bool], Decimal | None]
    request_id: Callable[[HttpResponse], str | None]
    is_reached: Callable[[], bool]
    status: Callable[[Completion], AnsweredStatus] = status_of
    whose_model: Callable[[CallRequest], Literal["run", "row", "nobody"]] = lambda _call: "run"


class Policy(Struct, frozen=True):
    """How much the loop does at once, and how long it bears with failures; times in seconds.

    `concurrency`: the most requests in flight; with `adaptive`, a ceiling below which the loop finds what the service
    sustains. `max_attempts`: attempts of one ask that count against it before its call fails. `max_wait_s`: the longest
    wait before another attempt, unless the service asks for a longer one. `max_pushback_s`: the longest time without
    any answer before the run stops. `max_alike`: this many calls refused for good, with the same error and before any
    answer, stop the run. `max_row_s`: a call that was begun longer ago fails at its next failure, and is not waited for
    where the service asks for a wait that ends later.
    """

    concurrency: int = 16
    max_attempts: int = 5
    max_wait_s: float = 30.0
    max_pushback_s: float = 900.0
    adaptive: bool = False
    max_alike: int = 100
    max_row_s: float = 3600.0
